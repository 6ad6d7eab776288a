"""The 2D simulator: rings where Bragg puts them, grains, sentinels, and truth as rendered."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest

from xrdpipe.crystal import ReflectionTable, bragg_angle, load_phase, powder_intensity, reflections
from xrdpipe.errors import OptionError
from xrdpipe.phases import distractor_phases, shipped_phases
from xrdpipe.synthesis import frames2d, layouts, nuisances2d, scan2d
from xrdpipe.synthesis.frames2d import Beam, DetectorPlane, IlluminatedPhase, detector_plane

WAVELENGTH = 0.4959
SHAPE = (320, 300)
SATURATION = 2**20 - 1


@cache
def arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A flat detector square to the beam with one gap: 2θ, chi (degrees), gaps."""
    y, x = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]] + 0.5
    y, x = (y - 160.3) * 2.5e-4, (x - 149.8) * 2.5e-4
    two_theta = np.degrees(np.arctan2(np.hypot(y, x), 0.1))
    gaps = np.zeros(SHAPE, bool)
    gaps[200:208] = True
    return two_theta, np.degrees(np.arctan2(y, x)), gaps


@cache
def plane() -> DetectorPlane:
    two_theta, chi, gaps = arrays()
    return detector_plane(two_theta, chi, WAVELENGTH, gap_mask=gaps)


@cache
def table(name: str) -> ReflectionTable:
    path = (shipped_phases() | distractor_phases())[name]
    return reflections(load_phase(path), WAVELENGTH, 0.95)


@cache
def setup() -> scan2d.Setup:
    two_theta, chi, _ = arrays()
    return scan2d.draw_setup(plane(), two_theta, chi, 11, saturation=SATURATION)


@cache
def sample(**changes: object) -> scan2d.SampleMap:
    options = {"layout": "independent", "counts": 40.0, "log_grains": 3.5} | changes
    tables = [table(name) for name in ("bastnaesite-(La)", "calcite", "rhenium")]
    return scan2d.draw_sample(tables, (4, 5), 11, **options)


def phase(name: str, **changes: object) -> IlluminatedPhase:
    lines = table(name)
    return IlluminatedPhase(
        **({"table": lines, "peak_counts": 100.0, "grains": 1e12, "cell": lines.cell} | changes)
    )


def radial_mean(image: np.ndarray, step: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    two_theta, _, gaps = arrays()
    place = np.round(two_theta[~gaps] / step).astype(int)
    count = np.bincount(place)
    total = np.bincount(place, weights=image[~gaps])
    return np.arange(len(count)) * step, total / np.maximum(count, 1)


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- rings -----------------------------------------------------------------------------------


def test_rings_sit_at_the_bragg_angle():
    lines = table("calcite")
    strong = np.argsort(-lines.multiplicity * lines.f_squared * lines.d**2)[:1]
    image = frames2d.render_phases(plane(), [phase("calcite")], Beam(), random())
    axis, mean = radial_mean(image)
    expected = bragg_angle(lines.d[strong], WAVELENGTH)[0]
    assert expected == pytest.approx(2 * np.degrees(np.arcsin(WAVELENGTH / 2 / 3.035)), abs=0.02)
    assert axis[np.argmax(mean)] == pytest.approx(expected, abs=0.03)


def test_ring_follows_the_strained_cell():
    lines = table("rhenium")
    a, b, c, *angles = lines.cell
    larger = phase("rhenium", cell=(1.01 * a, 1.01 * b, 1.01 * c, *angles))
    image = frames2d.render_phases(plane(), [larger], Beam(), random())
    axis, mean = radial_mean(image)
    assert axis[np.argmax(mean)] == pytest.approx(bragg_angle(2.1076 * 1.01, WAVELENGTH), abs=0.03)


def test_many_grains_give_smooth_rings_of_the_azimuthal_mean_intensity():
    lines = table("rhenium")
    image = frames2d.render_phases(
        plane(), [phase("rhenium", grains=1e12, size=500.0, microstrain=1e-4)], Beam(), random()
    )
    axis, mean = radial_mean(image)
    theta = np.radians(lines.two_theta / 2)
    intensity = lines.multiplicity * lines.f_squared / (np.sin(theta) ** 2 * np.cos(theta))
    np.testing.assert_allclose(
        intensity / intensity.max(),
        powder_intensity(lines, WAVELENGTH) / powder_intensity(lines, WAVELENGTH).max(),
    )
    # 100, 002, 101, 102, 110: apart from each other and inside the detector
    area = []
    for centre in lines.two_theta[:5]:
        near = np.abs(axis - centre) < 0.42
        area.append(mean[near].sum())
    np.testing.assert_allclose(np.array(area) / area[2], intensity[:5] / intensity[2], rtol=0.02)
    two_theta, _, gaps = arrays()
    ring = (np.abs(two_theta - lines.two_theta[2]) < 0.02) & ~gaps
    assert image[ring].std() / image[ring].mean() < 0.05


@pytest.mark.parametrize("log_grains", [1.0, 2.5, 4.0, 5.5])
def test_grain_statistics_keep_the_mean_and_set_the_scatter(log_grains):
    """Mean over draws is the powder ring; relative scatter is sqrt(E[v²]/n)."""
    only = phase("rhenium", grains=10**log_grains, size=500.0, microstrain=1e-4)
    lines = frames2d.lines_on_detector(plane(), only, Beam())
    strongest = int(np.argmax(lines.area))
    axis = plane().profile_two_theta
    near = np.abs(axis - lines.two_theta[strongest]) < 0.5
    one_line = dataclasses.replace(
        lines,
        **{
            field.name: getattr(lines, field.name)[strongest : strongest + 1]
            for field in dataclasses.fields(lines)
            if field.name != "scale"
        },
    )
    powder = frames2d.powder_profile(axis, one_line)[near].sum() * frames2d.PROFILE_STEP
    two_theta, _, gaps = arrays()
    ring = (np.abs(two_theta - lines.two_theta[strongest]) < 0.4) & ~gaps
    window = np.abs(axis - lines.two_theta[strongest]) < 0.4
    smooth = frames2d.powder_profile(axis, one_line)[window].mean()
    draws = 60 if log_grains < 4 else 20
    means = np.array(
        [
            frames2d.render_phases(plane(), [only], Beam(), random(seed))[ring].mean()
            for seed in range(draws)
        ]
    )
    assert powder == pytest.approx(lines.area[strongest], rel=0.02)
    # Gaps and neighbouring lines change the mean a little; the scatter of the draws more.
    scatter = np.sqrt(np.exp(1.0) / lines.spots[strongest])
    assert means.mean() == pytest.approx(smooth, rel=0.1 + 4 * scatter / np.sqrt(draws))
    assert means.std() / means.mean() == pytest.approx(scatter, rel=0.6, abs=0.01)


def test_few_grains_leave_rings_of_spots():
    image = frames2d.render_phases(plane(), [phase("calcite", grains=1000.0)], Beam(), random(3))
    two_theta, _, gaps = arrays()
    ring = (np.abs(two_theta - table("calcite").two_theta[1]) < 0.1) & ~gaps
    assert np.median(image[ring]) < 0.05 * image[ring].max()


def test_spots_over_the_azimuth_cut_are_whole():
    """A spot at chi = 180° is the same as one turned elsewhere."""
    total = []
    for chi in (179.99, -180.0, 100.0):
        values = np.zeros(len(plane().order), np.float32)
        frames2d.add_spots(
            plane(),
            values,
            *(np.array([value]) for value in (12.0, chi, 500.0, 0.3, 0.2, 1.0)),
        )
        total.append(values.sum())
    np.testing.assert_allclose(total, total[0], rtol=0.02)


def test_texture_modulates_the_ring_and_has_mean_one():
    lines = table("calcite")
    rows = np.arange(8)
    cosine = np.broadcast_to(np.linspace(0, 1, 400), (8, 400))  # equal areas of the sphere
    random_powder = frames2d.fibre_density(lines, rows, 1.0, cosine)
    np.testing.assert_allclose(random_powder, 1.0, rtol=1e-6)
    textured = frames2d.fibre_density(lines, rows, 0.6, cosine)
    np.testing.assert_allclose(textured.mean(axis=1), 1.0, atol=0.03)
    plates = [i for i, hkl in enumerate(lines.hkl) if hkl[0] == hkl[1] == 0][:1]
    along, across = frames2d.fibre_density(lines, np.array(plates), 0.6, np.array([[1.0, 0.0]]))[0]
    assert along > 2 > 0.7 > across
    image = frames2d.render_phases(
        plane(), [phase("calcite", march=0.6, fibre=0.0)], Beam(), random()
    )
    two_theta, chi, gaps = arrays()
    angle = lines.two_theta[plates[0]]
    ring = (np.abs(two_theta - angle) < 0.05) & ~gaps
    on_axis = ring & (np.minimum(np.abs(chi), 180 - np.abs(chi)) < 15)
    off_axis = ring & (np.abs(np.abs(chi) - 90) < 15)
    assert image[on_axis].mean() > 2 * image[off_axis].mean()


def test_profile_has_unit_area_and_its_width():
    offset = np.linspace(-2, 2, 8001)
    for lorentzian in (0.0, 0.4, 1.0):
        shape = frames2d.line_profile(offset, 0.2, lorentzian)
        assert np.trapezoid(shape, offset) == pytest.approx(1, rel=1e-3)
        wide = offset[shape > shape.max() / 2]
        assert np.ptp(wide) == pytest.approx(0.2, rel=0.03)
    width, lorentzian = frames2d.pseudo_voigt_width(np.array([0.1, 0.0]), np.array([0.0, 0.1]))
    np.testing.assert_allclose(width, 0.1, rtol=1e-4)
    np.testing.assert_allclose(lorentzian, [0, 1], atol=1e-3)


def test_efficiency_is_applied_forward():
    two_theta, chi, _ = arrays()
    solid_angle = np.cos(np.radians(two_theta)) ** 3
    seen = detector_plane(two_theta, chi, WAVELENGTH, solid_angle=solid_angle, polarization=0.9)
    np.testing.assert_allclose(seen.efficiency, 0.9 * solid_angle, rtol=1e-6)
    scan = sample()
    bright = dataclasses.replace(setup(), plane=dataclasses.replace(plane(), efficiency=0.5))
    half = scan2d.expected_counts(bright, scan, 3, 11)
    np.testing.assert_allclose(half, 0.5 * scan2d.expected_counts(setup(), scan, 3, 11), rtol=1e-5)


# --- nuisances -------------------------------------------------------------------------------


def test_background_has_its_humps():
    axis = np.linspace(3, 30, 2000)
    q = nuisances2d.momentum_transfer(axis, WAVELENGTH)
    fluid = nuisances2d.Background(0.0, 1.6, 10.0, 0.5, 0.0)
    profile = nuisances2d.background_profile(axis, WAVELENGTH, fluid)
    assert q[np.argmax(profile)] == pytest.approx(2.0, abs=0.03)
    second = q > 2.7
    assert q[second][np.argmax(profile[second])] == pytest.approx(3.05, abs=0.15)
    air = nuisances2d.Background(5.0, 2.0, 0.0, 0.0, 0.0)
    np.testing.assert_allclose(
        nuisances2d.background_profile(axis, WAVELENGTH, air), 5 / q**2, rtol=1e-9
    )


def test_diamond_spots_lie_on_diamond_rings_with_halo_and_mask():
    spots = setup().diamonds
    rings = bragg_angle(np.array(nuisances2d.DIAMOND_SPACINGS), WAVELENGTH)
    assert np.all(np.abs(spots.two_theta[:, None] - rings).min(axis=1) < 0.1)
    image = nuisances2d.render_diamond_spots(plane(), spots)
    assert image.max() > 1e3
    covered = nuisances2d.diamond_mask(plane(), spots, 3.0)
    for progress in (0.0, 0.3, 1.0):
        shown = nuisances2d.render_diamond_spots(plane(), spots, progress)
        assert shown[~covered].max() < 6
    assert covered.mean() < 0.05
    strong = (image > 0.3 * image.max()).sum()
    assert covered.sum() > 5 * strong  # the halo, not only the spot


def test_beamstop_shadow_and_arm():
    two_theta, chi, _ = arrays()
    stop = nuisances2d.Beamstop(radius=3.0, arm_half_width=0.01, arm_chi=90.0)
    through = nuisances2d.beamstop_transmission(two_theta, chi, stop)
    assert through[two_theta < 2.7].max() < 0.01
    arm = (np.abs(chi - 90) < 1) & (two_theta > 5)
    assert through[arm].max() < 0.01
    assert through[(np.abs(chi + 90) < 1) & (two_theta > 3.5)].min() > 0.99
    shadow = nuisances2d.beamstop_mask(two_theta, chi, stop)
    assert through[~shadow].min() >= 0.98


def test_bad_pixels_zingers_and_saturation():
    bad = setup().bad
    assert bad.dead.any()
    assert (bad.hot > 0).any()
    expected = np.full(SHAPE, 5.0, np.float32)
    expected[10, 10] = 1e8
    counts = nuisances2d.expose(
        expected, plane(), bad, random(), saturation=SATURATION, zingers=0.0
    )
    assert counts.max() == SATURATION == counts[10, 10]
    assert not counts[bad.dead].any()
    assert counts[(bad.hot > 0)].min() > 50
    good = ~(bad.pixels | plane().gap_mask)
    good[10, 10] = False
    assert counts[good].mean() == pytest.approx(5, rel=0.01)
    assert counts[good].var() == pytest.approx(5, rel=0.03)
    with_zingers = nuisances2d.expose(
        expected, plane(), bad, random(), saturation=SATURATION, zingers=40.0
    )
    assert 20 < (with_zingers[good] > 29).sum() < 150


@pytest.mark.parametrize(
    ("dtype", "sentinel"), [("int32", -1), ("uint16", 65535), ("uint32", 2**32 - 1)]
)
def test_gaps_carry_the_sentinel(dtype, sentinel):
    counts = scan2d.simulate_frame(setup(), sample(), 0, 11)
    stored = nuisances2d.with_sentinels(counts, plane().gap_mask, dtype)
    assert stored.dtype == dtype
    assert np.all(stored[plane().gap_mask] == sentinel)
    assert not np.any(stored[~plane().gap_mask] == sentinel)


# --- maps ------------------------------------------------------------------------------------


def test_frame_is_independent_of_order():
    forward = [scan2d.simulate_frame(setup(), sample(), i, 11) for i in (0, 1, 2)]
    backward = [scan2d.simulate_frame(setup(), sample(), i, 11) for i in (2, 0)]
    np.testing.assert_array_equal(forward[2], backward[0])
    np.testing.assert_array_equal(forward[0], backward[1])
    assert np.any(forward[0] != forward[1])
    assert np.any(forward[0] != scan2d.simulate_frame(setup(), sample(), 0, 12))


def test_absent_phase_adds_nothing_at_its_lines():
    """The noise-free frame is, to rounding, the one without the absent phase's table."""
    scan = sample()
    present = scan.presence[:, *np.argwhere(scan.frame == 7)[0]]
    for k in np.flatnonzero(~present):
        without = dataclasses.replace(scan, peak_counts=scan.peak_counts.copy())
        without.peak_counts[k] = 0
        np.testing.assert_array_equal(
            scan2d.expected_counts(setup(), scan, 7, 11),
            scan2d.expected_counts(setup(), without, 7, 11),
        )


def test_truth_is_what_was_rendered():
    """Line over background at a phase's strongest line equals strength; 1 when absent."""
    scan = dataclasses.replace(sample(), grains=np.full_like(sample().grains, 1e12))
    scan = dataclasses.replace(scan, march=np.ones_like(scan.march))
    weight, strength = scan2d.weight_and_strength(setup(), scan, [4.94, 2.71, 21.0])
    axis = plane().profile_two_theta
    assert np.array_equal(weight > 0, scan.presence)
    assert np.array_equal(strength > 0, scan.presence)
    np.testing.assert_allclose(
        weight.sum(axis=0), scan.presence.any(axis=0).astype(float), atol=1e-12
    )
    two_theta, _, gaps = arrays()
    clear = (setup().transmission > 0.999) & ~gaps
    for index in (0, 6, 13, 19):
        row, column = np.argwhere(scan.frame == index)[0]
        image = scan2d.expected_counts(setup(), scan, index, 11, diamonds=False)
        image /= setup().transmission
        background = scan.monitor[row, column] * nuisances2d.background_profile(
            axis, WAVELENGTH, scan.background_at(row, column)
        )
        over = image / np.interp(two_theta, axis, background) - 1
        if not scan.presence[:, row, column].any():
            assert np.abs(over[clear]).max() < 1e-3
        elif scan.presence[:, row, column].sum() == 1:
            assert over[clear].max() == pytest.approx(strength[:, row, column].max(), rel=0.05)


def test_gasket_lines_are_recorded_without_presence():
    scan = sample(gasket=2)
    _, strength = scan2d.weight_and_strength(setup(), scan, [4.94, 2.71, 21.0])
    parasitic = scan.parasitic[2] > 0
    assert parasitic.any()
    assert not (parasitic & scan.presence[2]).any()
    assert np.array_equal(strength[2] > 0, parasitic | scan.presence[2])


def test_any_number_of_phases_and_distractors():
    one = scan2d.draw_sample([table("fluorite")], (2, 3), 1)
    assert one.presence.shape == (1, 2, 3)
    tables = [table("calcite"), table("fluorite"), table("aragonite")]
    scan = scan2d.draw_sample(tables, (6, 6), 1, labelled=1)
    assert scan.presence[1:].any()
    assert not scan.presence[1:].all(axis=0).any()
    weight, strength = scan2d.weight_and_strength(setup(), scan, [2.7, 3.2, 2.9])
    assert weight.shape == strength.shape == (1, 6, 6)
    both = scan.presence[0] & scan.presence[1:].any(axis=0)
    assert both.any()
    assert weight[0][both].max() < 1


def test_strain_keeps_symmetry():
    hexagonal = (5.0, 5.0, 17.0, 90.0, 90.0, 120.0)
    a, b, c, *_ = scan2d.strained_cell(hexagonal, 0.01, 0.5, -0.01)
    assert (a, b, c) == pytest.approx((5.05, 5.05, 16.83))
    assert scan2d.strained_cell((4.0, 4.0, 4.0, 90.0, 90.0, 90.0), 0.01, 0, 0)[:3] == (
        pytest.approx((4.04, 4.04, 4.04))
    )


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
@pytest.mark.parametrize("phases", [1, 3, 20])
def test_layouts(layout, phases):
    present = layouts.presence_map(layout, phases, (16, 20), random(5))
    assert present.shape == (phases, 16, 20)
    assert present.any(axis=(1, 2)).all()
    assert not present.all(axis=(1, 2)).any()
    if layout == "independent" and phases == 3:
        code = np.unique(np.tensordot([1, 2, 4], present, axes=1))
        assert code.tolist() == list(range(8))


def test_independent_layout_has_every_combination_even_when_small():
    for seed in range(20):
        present = layouts.presence_map("independent", 3, (3, 3), random(seed))
        assert len(np.unique(np.tensordot([1, 2, 4], present, axes=1))) == 8


def test_independent_layout_is_independent_over_maps():
    both = [layouts.presence_map("independent", 2, (20, 20), random(s)) for s in range(60)]
    correlation = np.mean([np.corrcoef(b[0].ravel(), b[1].ravel())[0, 1] for b in both])
    assert abs(correlation) < 0.1


def test_unknown_layout_names_the_nearest():
    with pytest.raises(OptionError, match="Did you mean 'crust'"):
        layouts.presence_map("crusty", 2, (4, 4), random())
