"""The 2D simulator: rings where Bragg puts them, grains, defects, and truth as rendered."""

from __future__ import annotations

import dataclasses
import itertools
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, label

from xrdpipe.crystal import ReflectionTable, bragg_angle, load_phase, powder_intensity, reflections
from xrdpipe.crystal.scattering import form_factor
from xrdpipe.errors import InputError, OptionError
from xrdpipe.phases import distractor_phases, shipped_phases
from xrdpipe.simulation import background, counting, diamonds, layouts
from xrdpipe.simulation.beamstop import Beamstop, beamstop_mask, beamstop_transmission
from xrdpipe.simulation.compton import (
    BOHR_RADIUS,
    ELECTRONS,
    FITTED,
    WATER,
    incoherent_scattering,
    recoil,
)
from xrdpipe.simulation.effects import EFFECTS, EVERY_EFFECT, GROUPS, Effects
from xrdpipe.simulation.frame import expected_counts, simulate_frame
from xrdpipe.simulation.grains import add_spots, render_phases
from xrdpipe.simulation.instrument import Setup, draw_setup
from xrdpipe.simulation.lines import (
    Beam,
    IlluminatedPhase,
    Lines,
    displaced_angle,
    lines_on_detector,
    powder_profile,
)
from xrdpipe.simulation.plane import PROFILE_STEP, DetectorPlane, detector_plane
from xrdpipe.simulation.profile import line_profile, pseudo_voigt_width
from xrdpipe.simulation.sample import DISPLACEMENT, SampleMap, draw_sample, strained_cell
from xrdpipe.simulation.texture import fibre_density
from xrdpipe.simulation.truth import weight_and_strength

WAVELENGTH = 0.4959
DISTANCE = 0.1
SHAPE = (320, 300)
SATURATION = 2**20 - 1
NAMES = ("bastnaesite-(La)", "calcite", "rhenium")


@cache
def arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A flat detector square to the beam with one gap: 2θ, chi (degrees), gaps."""
    y, x = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]] + 0.5
    y, x = (y - 160.3) * 2.5e-4, (x - 149.8) * 2.5e-4
    two_theta = np.degrees(np.arctan2(np.hypot(y, x), DISTANCE))
    gaps = np.zeros(SHAPE, bool)
    gaps[200:208] = True
    return two_theta, np.degrees(np.arctan2(y, x)), gaps


@cache
def plane() -> DetectorPlane:
    two_theta, chi, gaps = arrays()
    return detector_plane(two_theta, chi, WAVELENGTH, DISTANCE, gap_mask=gaps)


@cache
def table(name: str) -> ReflectionTable:
    path = (shipped_phases() | distractor_phases())[name]
    return reflections(load_phase(path), WAVELENGTH, 0.95)


@cache
def setup(effects: Effects = EVERY_EFFECT) -> Setup:
    two_theta, chi, _ = arrays()
    return draw_setup(plane(), two_theta, chi, 11, saturation=SATURATION, effects=effects)


@cache
def sample(**changes: object) -> SampleMap:
    options = {"layout": "independent", "counts": 40.0, "log_grains": 3.5} | changes
    return draw_sample([table(name) for name in NAMES], (4, 5), 11, **options)


def phase(name: str, **changes: object) -> IlluminatedPhase:
    found = table(name)
    return IlluminatedPhase(
        **({"table": found, "peak_counts": 100.0, "grains": np.inf, "cell": found.cell} | changes)
    )


def rendered(*phases: IlluminatedPhase, seed: int = 0, beam: Beam | None = None) -> np.ndarray:
    return plane().image(render_phases(plane(), phases, beam or Beam(), random(seed)))


def radial_mean(image: np.ndarray, step: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    two_theta, _, gaps = arrays()
    place = np.round(two_theta[~gaps] / step).astype(int)
    count = np.bincount(place)
    total = np.bincount(place, weights=image[~gaps])
    return np.arange(len(count)) * step, total / np.maximum(count, 1)


def centroid(image: np.ndarray, near: float, reach: float = 0.45) -> float:
    """Intensity-weighted 2θ of a ring without neighbours, degrees."""
    two_theta, _, gaps = arrays()
    ring = (np.abs(two_theta - near) < reach) & ~gaps
    # Divide out the number of pixels, which grows with the radius.
    weight = image[ring] / np.tan(np.radians(two_theta[ring]))
    return float(np.average(two_theta[ring], weights=weight))


def full_width(axis: np.ndarray, values: np.ndarray) -> float:
    """Full width at half maximum of one line on a fine axis."""
    above = np.flatnonzero(values >= values.max() / 2)
    first, last = above[0], above[-1]
    half = values.max() / 2
    left = np.interp(half, values[first - 1 : first + 1], axis[first - 1 : first + 1])
    right = np.interp(half, values[[last + 1, last]], axis[[last + 1, last]])
    return float(right - left)


def only_line(lines: Lines, i: int) -> Lines:
    return dataclasses.replace(
        lines,
        **{
            field.name: getattr(lines, field.name)[i : i + 1]
            for field in dataclasses.fields(lines)
            if field.name != "scale"
        },
    )


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- rings -----------------------------------------------------------------------------------


def test_rings_sit_at_the_bragg_angle():
    axis, mean = radial_mean(rendered(phase("calcite")))
    expected = 2 * np.degrees(np.arcsin(WAVELENGTH / 2 / 3.035))
    assert axis[np.argmax(mean)] == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(("strain", "line"), [((0.01, 0, 0), 2), ((0, 0, 0.02), 1), ((0, 0, 0), 2)])
def test_ring_follows_the_strained_cell(strain, line):
    """Lines 002 (1) and 101 (2) of rhenium, from the metric of the strained hexagonal cell."""
    found = table("rhenium")
    cell = strained_cell(found.cell, np.array(strain))
    assert cell[0] == cell[1]
    h, k, l = found.hkl[line]  # noqa: E741
    d = 1 / np.sqrt(4 / 3 * (h * h + h * k + k * k) / cell[0] ** 2 + l * l / cell[2] ** 2)
    expected = 2 * np.degrees(np.arcsin(WAVELENGTH / 2 / d))
    seen = centroid(rendered(phase("rhenium", cell=tuple(cell), microstrain=0.0)), expected, 0.3)
    assert seen == pytest.approx(expected, abs=0.004)


@pytest.mark.parametrize("displacement", [-2000.0, 0.0, 1000.0])
def test_displaced_sample_moves_rings_by_its_share_of_the_distance(displacement):
    """The radius on the detector is (L - dz) tan 2θ."""
    found = table("rhenium")
    for line in (2, 4):
        true = np.radians(found.two_theta[line])
        expected = np.degrees(np.arctan((1 - displacement * 1e-6 / DISTANCE) * np.tan(true)))
        moved = rendered(phase("rhenium", displacement=displacement, microstrain=0.0))
        assert centroid(moved, expected, 0.3) == pytest.approx(expected, abs=0.005)
    np.testing.assert_allclose(displaced_angle(found.two_theta, 0.0, 0.1), found.two_theta)


def test_rings_have_the_azimuthal_mean_intensity():
    found = table("rhenium")
    image = rendered(phase("rhenium", grains=1e12, size=500.0, microstrain=1e-4))
    axis, mean = radial_mean(image)
    theta = np.radians(found.two_theta / 2)
    intensity = found.multiplicity * found.f_squared / (np.sin(theta) ** 2 * np.cos(theta))
    # 100, 002, 101, 102, 110: apart from each other and inside the detector
    area = []
    for centre in found.two_theta[:5]:
        near = np.abs(axis - centre) < 0.42
        area.append(mean[near].sum())
    np.testing.assert_allclose(np.array(area) / area[2], intensity[:5] / intensity[2], rtol=0.02)
    two_theta, _, gaps = arrays()
    ring = (np.abs(two_theta - found.two_theta[2]) < 0.02) & ~gaps
    assert image[ring].std() / image[ring].mean() < 0.05
    assert image[ring].max() == pytest.approx(100, rel=0.02)  # as asked


def test_many_grains_are_the_powder_average():
    powder = rendered(phase("calcite"))
    many = rendered(phase("calcite", grains=1e12))
    np.testing.assert_allclose(many, powder, atol=1e-3 * powder.max())


@pytest.mark.parametrize("log_grains", [1.0, 2.5, 4.0, 5.5])
def test_grain_statistics_keep_the_mean_and_set_the_scatter(log_grains):
    """Mean over draws is the powder ring; relative scatter is sqrt(E[v²]/n)."""
    only = phase("rhenium", grains=10**log_grains, size=500.0, microstrain=1e-4)
    lines = lines_on_detector(plane(), only, Beam())
    strongest = int(np.argmax(lines.area))
    axis = plane().profile_two_theta
    one_line = only_line(lines, strongest)
    two_theta, _, gaps = arrays()
    ring = (np.abs(two_theta - lines.two_theta[strongest]) < 0.4) & ~gaps
    window = np.abs(axis - lines.two_theta[strongest]) < 0.4
    smooth = powder_profile(axis, one_line)[window].mean()
    draws = 60 if log_grains < 4 else 20
    means = np.array([rendered(only, seed=seed)[ring].mean() for seed in range(draws)])
    # Gaps and neighbouring lines change the mean a little; the scatter of the draws more.
    scatter = np.sqrt(np.exp(1.0) / lines.spots[strongest])
    assert means.mean() == pytest.approx(smooth, rel=0.1 + 4 * scatter / np.sqrt(draws))
    assert means.std() / means.mean() == pytest.approx(scatter, rel=0.6, abs=0.01)


def test_few_grains_give_as_many_spots_as_diffract():
    """Spots on a ring are N m Δω cosθ / 2 on average, Poisson from draw to draw."""
    mosaic, grains = 0.8, 200.0
    coarse = phase("rhenium", grains=grains, mosaic=mosaic, volume_spread=0.0, microstrain=0.0)
    found = table("rhenium")
    line = 2  # 101, m = 12
    theta = np.radians(found.two_theta[line] / 2)
    tolerance = np.radians(np.hypot(mosaic, Beam().divergence))
    expected = grains * 12 * tolerance * np.cos(theta) / 2
    assert found.multiplicity[line] == 12
    two_theta, _, gaps = arrays()
    seen = turn_is_valid(found.two_theta[line])
    ring = (np.abs(two_theta - found.two_theta[line]) < 0.25) & ~gaps
    counts = []
    for seed in range(40):
        image = rendered(coarse, seed=seed)
        counts.append(label((image > 0.3 * image[ring].max()) & ring, np.ones((3, 3)))[1])
    # Of about 17 spots a few touch each other.
    assert np.mean(counts) == pytest.approx(expected * seen, rel=0.12)
    assert np.std(counts) == pytest.approx(np.sqrt(expected * seen), rel=0.35)


def turn_is_valid(angle: float) -> float:
    """Part of a ring outside the gap."""
    two_theta, _, gaps = arrays()
    ring = np.abs(two_theta - angle) < 0.1
    return float((ring & ~gaps).sum() / ring.sum())


def test_a_spot_has_the_size_of_mosaic_and_line():
    width, sigma = 0.4, 2.0
    values = np.zeros(len(plane().order), np.float32)
    at = (12.0, 40.0, 500.0, width, 0.0, sigma)
    add_spots(plane(), values, *(np.array([value]) for value in at))
    heavy = values.sum()
    turn = np.sqrt(np.average((plane().chi - 40.0) ** 2, weights=values))
    across = np.sqrt(np.average((plane().two_theta - 12.0) ** 2, weights=values))
    assert turn == pytest.approx(sigma, rel=0.02)
    assert across == pytest.approx(width / 2.3548, rel=0.02)
    # height is the integral over 2θ at the azimuthal centre; pixels per square degree follow.
    per_degree = (np.tan(np.radians(12.0)) / np.cos(np.radians(12.0)) ** 2) * (DISTANCE / 2.5e-4)
    pixels = per_degree * np.radians(1) * np.radians(1) * (DISTANCE / 2.5e-4)
    assert heavy == pytest.approx(500.0 * np.sqrt(2 * np.pi) * sigma * pixels, rel=0.02)


def test_few_grains_leave_rings_of_spots():
    image = rendered(phase("calcite", grains=1000.0), seed=3)
    two_theta, _, gaps = arrays()
    ring = (np.abs(two_theta - table("calcite").two_theta[1]) < 0.1) & ~gaps
    assert np.median(image[ring]) < 0.05 * image[ring].max()


def test_spots_over_the_azimuth_cut_are_whole():
    """A spot at chi = 180° is the same as one turned elsewhere."""
    total = []
    for chi in (179.99, -180.0, 100.0):
        values = np.zeros(len(plane().order), np.float32)
        add_spots(
            plane(),
            values,
            *(np.array([value]) for value in (12.0, chi, 500.0, 0.3, 0.2, 1.0)),
        )
        total.append(values.sum())
    np.testing.assert_allclose(total, total[0], rtol=0.02)


def test_texture_modulates_the_ring_and_has_mean_one():
    found = table("calcite")
    rows = np.arange(8)
    cosine = np.broadcast_to(np.linspace(0, 1, 400), (8, 400))  # equal areas of the sphere
    np.testing.assert_allclose(fibre_density(found, rows, 1.0, cosine), 1.0, rtol=1e-6)
    for march in (0.6, 1.5):
        textured = fibre_density(found, rows, march, cosine)
        np.testing.assert_allclose(textured.mean(axis=1), 1.0, atol=0.03)
    plates = [i for i, hkl in enumerate(found.hkl) if hkl[0] == hkl[1] == 0][:1]
    along, across = fibre_density(found, np.array(plates), 0.6, np.array([[1.0, 0.0]]))[0]
    # March-Dollase for a plane across the axis: r⁻³ along it, r^1.5 across.
    assert along == pytest.approx(0.6**-3, rel=0.02)
    assert across == pytest.approx(0.6**1.5, rel=0.02)
    two_theta, chi, gaps = arrays()
    ring = (np.abs(two_theta - found.two_theta[plates[0]]) < 0.05) & ~gaps
    on_axis = ring & (np.minimum(np.abs(chi), 180 - np.abs(chi)) < 15)
    off_axis = ring & (np.abs(np.abs(chi) - 90) < 15)
    for grains in (1e12, np.inf):
        image = rendered(phase("calcite", march=0.6, fibre=0.0, grains=grains))
        assert image[on_axis].mean() > 2 * image[off_axis].mean()


# --- profile ---------------------------------------------------------------------------------


def test_profile_has_unit_area_and_its_width():
    offset = np.linspace(-2, 2, 8001)
    for lorentzian in (0.0, 0.4, 1.0):
        shape = line_profile(offset, 0.2, lorentzian)
        assert np.trapezoid(shape, offset) == pytest.approx(1, rel=1e-3)
        assert full_width(offset, shape) == pytest.approx(0.2, rel=0.03)
    width, lorentzian = pseudo_voigt_width(np.array([0.1, 0.0]), np.array([0.0, 0.1]))
    np.testing.assert_allclose(width, 0.1, rtol=1e-4)
    np.testing.assert_allclose(lorentzian, [0, 1], atol=1e-3)


@pytest.mark.parametrize(
    ("size", "microstrain", "beam_width"), [(1e5, 0.0, 0.3), (5.0, 0.0, 0.01), (1e5, 4e-3, 0.01)]
)
def test_width_is_what_was_asked_for(size, microstrain, beam_width):
    """Instrument, Scherrer and strain widths, each the widest in turn; area whatever the width."""
    asked = phase("rhenium", size=size, microstrain=microstrain)
    lines = lines_on_detector(plane(), asked, Beam(width=beam_width, bandwidth=0.0))
    i = int(np.argmax(lines.area))
    theta = np.radians(lines.two_theta[i] / 2)
    pixel = 2.3548 * plane().pitch / np.sqrt(12)
    scherrer = np.degrees(0.9 * WAVELENGTH / (10 * size * np.cos(theta)))
    strain = 2.3548 * np.degrees(2 * microstrain * np.tan(theta))
    expected, _ = pseudo_voigt_width(np.sqrt(beam_width**2 + pixel**2 + strain**2), scherrer)
    fine = np.arange(0, 25, 0.001)
    seen = powder_profile(fine, only_line(lines, i))
    assert full_width(fine, seen) == pytest.approx(expected, rel=0.02)
    assert seen.sum() * 0.001 == pytest.approx(lines.area[i], rel=0.005)
    largest = max(beam_width, scherrer, strain)
    assert expected == pytest.approx(np.hypot(largest, pixel), rel=0.2)


def test_ring_of_grains_has_the_area_of_the_line():
    """Modulated rings are interpolated from a table of their own: area and place are the same."""
    found = phase("rhenium", march=1.0 + 1e-5)  # drawn ring by ring, hardly textured
    np.testing.assert_allclose(rendered(found), rendered(phase("rhenium")), atol=0.1)


def test_radial_profile_is_interpolated():
    axis = plane().profile_two_theta
    wave = 5 + np.sin(axis)
    np.testing.assert_allclose(
        plane().interpolated(wave), np.interp(plane().two_theta, axis, wave), rtol=1e-5
    )
    places = plane().slice_between(10.0, 11.0)
    part = plane().interpolated(wave[1000:1101], places, 1000)
    inside = (plane().two_theta[places] > 10.001) & (plane().two_theta[places] < 10.999)
    np.testing.assert_allclose(
        part[inside], np.interp(plane().two_theta[places], axis, wave)[inside], rtol=1e-5
    )
    outside = (plane().two_theta[places] < 9.98) | (plane().two_theta[places] > 11.02)
    assert outside.any()
    assert not part[outside].any()
    assert axis[1] == PROFILE_STEP
    assert axis[-1] > plane().two_theta.max()


def test_efficiency_is_applied_forward():
    two_theta, chi, _ = arrays()
    solid_angle = np.cos(np.radians(two_theta)) ** 3
    seen = detector_plane(
        two_theta, chi, WAVELENGTH, DISTANCE, solid_angle=solid_angle, polarization=0.9
    )
    np.testing.assert_allclose(seen.efficiency, 0.9 * solid_angle, rtol=1e-6)
    dim = np.full(SHAPE, 0.5, np.float32)
    half = dataclasses.replace(setup(), plane=dataclasses.replace(plane(), efficiency=dim))
    np.testing.assert_allclose(
        expected_counts(half, sample(), 3, 11),
        0.5 * expected_counts(setup(), sample(), 3, 11),
        rtol=1e-5,
    )


def test_a_detector_of_gaps_is_refused():
    two_theta, chi, _ = arrays()
    with pytest.raises(InputError, match="gaps only"):
        detector_plane(two_theta, chi, 0.5, 0.1, gap_mask=np.ones(SHAPE, bool))
    with pytest.raises(InputError, match="must have one shape"):
        detector_plane(two_theta, chi[1:], 0.5, 0.1)


# --- background ------------------------------------------------------------------------------


def test_background_has_its_humps():
    axis = np.linspace(3, 30, 2000)
    q = background.momentum_transfer(axis, WAVELENGTH)
    fluid = background.Background(0.0, 1.6, 10.0, 0.5, 0.0)
    profile = background.background_profile(axis, WAVELENGTH, fluid)
    assert q[np.argmax(profile)] == pytest.approx(2.0, abs=0.03)
    second = q > 2.7
    assert q[second][np.argmax(profile[second])] == pytest.approx(3.05, abs=0.15)
    air = background.Background(5.0, 2.0, 0.0, 0.0, 0.0)
    np.testing.assert_allclose(
        background.background_profile(axis, WAVELENGTH, air), 5 / q**2, rtol=1e-9
    )


def test_incoherent_scattering_of_hydrogen_is_exact():
    """One electron: S = 1 - f², here with f integrated from the density of the 1s state."""
    r = np.linspace(1e-6, 20, 20001)  # Bohr radii
    density = 4 * r**2 * np.exp(-2 * r)
    for q in (0.3, 1.0, 2.0, 5.0):
        x = q * BOHR_RADIUS * r
        form = np.trapezoid(density * np.sin(x) / x, r)
        seen = incoherent_scattering(np.array([q]), {"H": 1})[0]
        assert seen == pytest.approx(1 - form**2, rel=1e-4)


@pytest.mark.parametrize("element", ["C", "O"])
def test_incoherent_scattering_is_bounded_by_the_form_factor(element):
    """Σ|f_j|² ≥ f²/Z, so S ≤ Z - f²/Z; Pauli's principle takes no more than half of it."""
    charge = ELECTRONS[element]
    s = np.linspace(0.1, 1.5, 30)
    bound = 1 - (form_factor(element, s**2) / charge) ** 2
    seen = incoherent_scattering(4 * np.pi * s, {element: 1})
    assert np.all(seen < bound)
    assert np.all(seen > 0.5 * bound)


def test_incoherent_scattering_goes_from_zero_to_one():
    for element, terms in FITTED.items():
        assert sum(a for a, _ in terms) == pytest.approx(ELECTRONS[element], abs=1e-3)
    curve = incoherent_scattering(np.array([0.0, 1.0, 3.0, 200.0]), WATER)
    assert curve[0] == 0
    assert np.all(np.diff(curve) > 0)
    assert curve[-1] == pytest.approx(1, abs=1e-3)
    # Ten electrons of water: those of two hydrogens and an oxygen, no more.
    q = np.array([2.0])
    parts = 2 * incoherent_scattering(q, {"H": 1}) + 8 * incoherent_scattering(q, {"O": 1})
    assert incoherent_scattering(q, WATER)[0] == pytest.approx(parts[0] / 10)
    with pytest.raises(InputError, match="'La'; known: H, C, O"):
        incoherent_scattering(q, {"La": 1})


def test_recoil_at_right_angles_takes_one_compton_wavelength():
    assert recoil(np.array([0.0, 90.0]), 0.5) == pytest.approx([1, (0.5 / 0.5242631) ** 2])


# --- diamonds and beamstop ---------------------------------------------------------------------


def test_diamond_spots_lie_on_diamond_rings_with_halo_and_mask():
    spots = setup().diamonds
    rings = bragg_angle(np.array(diamonds.DIAMOND_SPACINGS), WAVELENGTH)
    assert np.all(np.abs(spots.two_theta[:, None] - rings).min(axis=1) < 0.1)
    image = diamonds.render_diamond_spots(plane(), spots)
    assert image.max() > 1e3
    covered = diamonds.diamond_mask(plane(), spots, 3.0)
    for progress in (0.0, 0.3, 1.0):
        shown = diamonds.render_diamond_spots(plane(), spots, progress)
        assert shown[~covered].max() < 6
    assert covered.mean() < 0.05
    strong = (image > 0.3 * image.max()).sum()
    assert covered.sum() > 5 * strong  # the halo, not only the spot


def test_halo_surrounds_its_spot():
    one = diamonds.DiamondSpots(
        np.array([12.0]), np.array([35.0]), np.array([1e6]), np.zeros((1, 3))
    )
    bare = diamonds.render_diamond_spots(plane(), dataclasses.replace(one, halo=0.0))
    image = diamonds.render_diamond_spots(plane(), one)
    radius = DISTANCE * np.tan(np.radians(12.0)) / 2.5e-4
    row = 160.3 + radius * np.sin(np.radians(35.0)) - 0.5
    column = 149.8 + radius * np.cos(np.radians(35.0)) - 0.5
    y, x = np.indices(SHAPE)
    away = np.hypot(y - row, x - column)
    gaps = arrays()[2]
    halo = (away > 8) & (away < 15) & ~gaps
    # A thousandth of the spot, falling with the third power beyond three pixels.
    expected = 1e3 * (1 - (away / 25) ** 2) * (1 + (away / 3) ** 2) ** -1.5
    np.testing.assert_allclose(image[halo], expected[halo], rtol=0.3)
    assert image[halo].mean() == pytest.approx(expected[halo].mean(), rel=0.05)
    assert bare[halo].max() < 1e-3
    assert not image[away > 28].any()
    assert np.hypot(*(np.array(np.unravel_index(image.argmax(), SHAPE)) - (row, column))) < 1


def test_beamstop_shadow_and_arm():
    two_theta, chi, _ = arrays()
    stop = Beamstop(radius=3.0, arm_half_width=0.01, arm_chi=90.0)
    through = beamstop_transmission(two_theta, chi, stop)
    assert through[two_theta < 2.7].max() < 0.01
    arm = (np.abs(chi - 90) < 1) & (two_theta > 5)
    assert through[arm].max() < 0.01
    assert through[(np.abs(chi + 90) < 1) & (two_theta > 3.5)].min() > 0.99
    assert through[~beamstop_mask(through)].min() >= 0.98


# --- counting ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [0.02, 3.0, 900.0, 1100.0, 40_000.0])
def test_counts_have_the_variance_of_poisson(mean):
    counts = counting.photon_counts(np.full((400, 500), mean, np.float32), random(3))
    spread = np.sqrt(mean / counts.size)
    assert counts.mean() == pytest.approx(mean, abs=5 * spread)
    # The variance of a sample variance: (2 + 1/λ) λ² / n.
    assert counts.var() == pytest.approx(mean, rel=5 * np.sqrt((2 + 1 / mean) / counts.size))
    assert counts.min() >= 0


def test_bright_and_faint_pixels_of_one_frame():
    expected = np.full((100, 100), 2.0, np.float32)
    expected[::2] = 1e6
    counts = counting.photon_counts(expected, random())
    assert counts[::2].min() > 9.9e5
    assert counts[1::2].max() < 20


def test_bad_pixels_zingers_and_saturation():
    bad = setup().bad
    assert bad.dead.any()
    assert (bad.hot > 0).any()
    expected = np.full(SHAPE, 5.0, np.float32)
    expected[10, 10] = 1e8
    counts = counting.expose(expected, plane(), bad, random(), saturation=SATURATION, zingers=0.0)
    assert counts.max() == SATURATION == counts[10, 10]
    assert not counts[bad.dead].any()
    assert counts[(bad.hot > 0)].min() > 50
    good = ~(bad.pixels | plane().gap_mask)
    good[10, 10] = False
    assert counts[good].mean() == pytest.approx(5, rel=0.01)
    assert counts[good].var() == pytest.approx(5, rel=0.03)
    endless = counting.expose(expected, plane(), bad, random(), saturation=None, zingers=0.0)
    assert endless.max() > 9e7


def test_zingers_are_as_many_as_asked():
    """Events of one to three pixels in a row, Poisson in number."""
    counts = np.zeros((600, 600), np.int64)
    events = []
    for seed in range(30):
        counts[:] = 0
        counting.add_zingers(counts, random(seed), 12.0)
        regions, many = label(counts > 0)
        events.append(many)
        assert counts[counts > 0].min() > 30
        sizes = np.bincount(regions.ravel())[1:]
        assert sizes.max() <= 6  # two that touch
    assert np.mean(events) == pytest.approx(12, abs=4 * np.sqrt(12 / 30))


def test_defects_are_as_many_as_asked():
    dead, hot = (
        np.mean([getattr(counting.draw_bad_pixels(plane(), random(s)), name) > 0 for s in range(8)])
        for name in ("dead", "hot")
    )
    live = 1 - plane().gap_mask.mean()
    pixels = 8 * SHAPE[0] * SHAPE[1]
    assert dead == pytest.approx(2e-4 * live, abs=4 * np.sqrt(2e-4 / pixels))
    assert hot == pytest.approx(1e-4 * live, abs=4 * np.sqrt(1e-4 / pixels))


@pytest.mark.parametrize(
    ("dtype", "sentinel"), [("int32", -1), ("uint16", 65535), ("uint32", 2**32 - 1)]
)
def test_gaps_carry_the_sentinel(dtype, sentinel):
    counts = simulate_frame(setup(), sample(), 0, 11)
    stored = counting.with_sentinels(counts, plane().gap_mask, dtype)
    assert stored.dtype == dtype
    assert np.all(stored[plane().gap_mask] == sentinel)
    assert not np.any(stored[~plane().gap_mask] == sentinel)


# --- effects -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EFFECTS)
def test_every_effect_shows_and_can_be_left_out(name):
    """The frame changes where the effect is, and the sample stays what it was."""
    less = Effects.without([name])
    assert [e for e in EFFECTS if not getattr(less, e)] == [name]
    options = {"gasket": 2, "log_grains": 4.5}
    full = sample(**options)
    with_gasket = int(full.frame[full.parasitic[2] > 0][0])
    expected, counts = [], []
    for effects in (Effects(), less):
        scan, instrument = sample(effects=effects, **options), setup(effects)
        for index in (with_gasket, 9):
            expected.append(expected_counts(instrument, scan, index, 11))
            counts.append(simulate_frame(instrument, scan, index, 11))
    expected, counts = ((part[:2], part[2:]) for part in (expected, counts))
    assert np.not_equal(*counts).any()
    changed = np.mean(np.not_equal(*expected))
    of_the_counter = name in ("dead", "hot", "zingers", "poisson", "saturation")
    assert (changed == 0) == of_the_counter
    if name in ("halos", "diamonds", "beamstop"):
        assert changed < 0.15
    part = sample(effects=less, **options)
    np.testing.assert_array_equal(full.presence, part.presence)
    np.testing.assert_array_equal(full.peak_counts, part.peak_counts)


def test_without_everything_a_frame_is_a_smooth_powder():
    nothing = Effects.without(["all"])
    scan = sample(effects=nothing)
    row, column = np.argwhere(scan.presence.all(axis=0))[0]
    index = int(scan.frame[row, column])
    counts = simulate_frame(setup(nothing), scan, index, 11)
    axis = plane().profile_two_theta
    expected = sum(
        powder_profile(axis, lines_on_detector(plane(), p, Beam()))
        for p in scan.illuminated(row, column)
    )
    two_theta, _, gaps = arrays()
    seen = np.where(gaps, 0, np.interp(two_theta, axis, expected))
    assert np.abs(counts - seen).max() <= 0.51
    assert np.all(scan.lattice[1] == table("calcite").cell)


def test_groups_name_existing_effects():
    for names in GROUPS.values():
        assert set(names) <= set(EFFECTS)
    assert not Effects.without(["background"]).air
    assert Effects.without(["background"]).zingers
    with pytest.raises(OptionError, match="Did you mean 'compton'"):
        Effects.without(["comptn"])


# --- maps ------------------------------------------------------------------------------------


def test_frame_is_independent_of_order_and_thread():
    forward = [simulate_frame(setup(), sample(), i, 11) for i in (0, 1, 2)]
    with ThreadPoolExecutor(2) as pool:
        backward = list(pool.map(lambda i: simulate_frame(setup(), sample(), i, 11), (2, 1, 0)))
    np.testing.assert_array_equal(forward, backward[::-1])
    assert np.any(forward[0] != forward[1])
    assert np.any(forward[0] != simulate_frame(setup(), sample(), 0, 12))


def test_absent_phase_adds_nothing_at_its_lines():
    """The noise-free frame is the one without the absent phase's table."""
    scan = sample()
    present = scan.presence[:, *np.argwhere(scan.frame == 7)[0]]
    for k in np.flatnonzero(~present):
        without = dataclasses.replace(scan, peak_counts=scan.peak_counts.copy())
        without.peak_counts[k] = 0
        np.testing.assert_array_equal(
            expected_counts(setup(), scan, 7, 11), expected_counts(setup(), without, 7, 11)
        )


def test_monitor_scales_the_frame():
    """Drift changes the whole frame by one factor, which is the monitor's."""
    assert 0.002 < np.ptp(sample().monitor) < 0.08
    steady = sample(effects=Effects.without(["drift"]))
    assert np.all(steady.monitor == 1)
    for index in (1, 13):
        row, column = np.argwhere(sample().frame == index)[0]
        with_drift, without = (
            expected_counts(setup(), scan, index, 11) for scan in (sample(), steady)
        )
        lit = without > 0
        ratio = with_drift[lit] / without[lit]
        np.testing.assert_allclose(ratio, sample().monitor[row, column], rtol=1e-4)


def test_displacement_is_smooth_bounded_and_recorded():
    scan = draw_sample([table("calcite")], (24, 24), 5)
    assert np.abs(scan.displacement).max() <= DISPLACEMENT
    assert np.ptp(scan.displacement) > DISPLACEMENT
    step = np.abs(np.diff(scan.displacement, axis=0)).mean()
    far = np.abs(scan.displacement - scan.displacement[::-1, ::-1]).mean()
    assert step < 0.5 * far
    row, column = np.argwhere(scan.presence[0])[0]
    (found,) = scan.illuminated(row, column)
    assert found.displacement == scan.displacement[row, column]


def test_truth_is_what_was_rendered():
    """Line over background at a phase's strongest line equals strength; 1 when absent."""
    scan = sample(effects=Effects.without(["grains", "texture"]))
    weight, strength = weight_and_strength(setup(), scan, [4.94, 2.71, 21.0])
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
        image = expected_counts(setup(), scan, index, 11, diamonds=False)
        image /= setup().transmission
        under = scan.monitor[row, column] * background.background_profile(
            axis, WAVELENGTH, scan.background_at(row, column)
        )
        over = image / np.interp(two_theta, axis, under) - 1
        if not scan.presence[:, row, column].any():
            assert np.abs(over[clear]).max() < 1e-3
        elif scan.presence[:, row, column].sum() == 1:
            assert over[clear].max() == pytest.approx(strength[:, row, column].max(), rel=0.05)


def test_weight_does_not_depend_on_the_choice_of_the_cell():
    """A cell doubled along c holds the same matter: F doubles, l doubles, lines and volume stay."""
    single = table("rhenium")
    a, b, c, *angles = single.cell
    double = dataclasses.replace(
        single,
        hkl=single.hkl * [1, 1, 2],
        f_squared=4 * single.f_squared,
        cell=(a, b, 2 * c, *angles),
    )
    scan = draw_sample([single, double], (2, 2), 3, effects=Effects.without(["strain"]))
    scan = dataclasses.replace(
        scan,
        presence=np.ones((2, 2, 2), bool),
        peak_counts=np.ones((2, 2, 2)),
        size=np.full((2, 2, 2), 100.0),
    )
    weight, _ = weight_and_strength(setup(), scan, [21.0, 21.0])
    np.testing.assert_allclose(weight, 0.5, rtol=1e-9)


def test_weight_follows_reference_intensities():
    """Equal volumes scatter as m|F|²/V²: fractions from peak heights give the mixture back."""
    names = ("calcite", "rhenium")
    tables = [table(name) for name in names]
    densities = np.array([2.71, 21.0])
    scan = draw_sample(tables, (1, 1), 3, effects=Effects.without(["all"]))
    ones = np.ones((2, 1, 1))
    scan = dataclasses.replace(
        scan, presence=ones > 0, size=200 * ones, microstrain=5e-4 * ones, peak_counts=ones
    )
    volumes = np.array([0.7, 0.3])
    heights = []
    for found in tables:
        probe = IlluminatedPhase(found, 1.0, np.inf, found.cell)
        lines = lines_on_detector(plane(), probe, Beam())
        ideal = powder_intensity(found, WAVELENGTH)[lines.row] / found.volume**2
        peaks = ideal * line_profile(np.zeros(len(ideal)), lines.width, lines.lorentzian)
        inside = lines.two_theta < plane().two_theta_limits[1]
        heights.append(peaks[inside].max())
    scan = dataclasses.replace(scan, peak_counts=(volumes * heights)[:, None, None])
    weight, _ = weight_and_strength(setup(), scan, densities)
    expected = volumes * densities / (volumes @ densities)
    np.testing.assert_allclose(weight[:, 0, 0], expected, rtol=1e-6)


def test_gasket_lines_are_recorded_without_presence():
    scan = sample(gasket=2)
    _, strength = weight_and_strength(setup(), scan, [4.94, 2.71, 21.0])
    parasitic = scan.parasitic[2] > 0
    assert parasitic.any()
    assert not (parasitic & scan.presence[2]).any()
    assert np.array_equal(strength[2] > 0, parasitic | scan.presence[2])


def test_any_number_of_phases_and_distractors():
    one = draw_sample([table("fluorite")], (2, 3), 1)
    assert one.presence.shape == (1, 2, 3)
    tables = [table("calcite"), table("fluorite"), table("aragonite"), table("rhenium")]
    scan = draw_sample(tables, (6, 6), 1, labelled=1, gasket=3)
    assert scan.presence[1:].any()
    assert scan.presence[1:].sum(axis=0).max() == 1
    assert not scan.presence[3].any()
    assert scan.parasitic[3].any()
    weight, strength = weight_and_strength(setup(), scan, [2.7, 3.2, 2.9, 21.0])
    assert weight.shape == strength.shape == (1, 6, 6)
    assert weight.max() <= 1
    both = scan.presence[0] & scan.presence[1:].any(axis=0)
    assert both.any()
    assert weight[0][both].max() < 1
    assert np.all(weight[0][scan.presence[0] & ~both] == 1)


def test_without_background_every_line_is_infinitely_strong():
    scan = sample(effects=Effects.without(["background"]))
    _, strength = weight_and_strength(setup(), scan, [4.94, 2.71, 21.0])
    np.testing.assert_array_equal(np.isinf(strength), scan.presence)


def test_strain_keeps_symmetry():
    hexagonal = (5.0, 5.0, 17.0, 90.0, 90.0, 120.0)
    strained = strained_cell(hexagonal, np.array([[0.01, 0.5, -0.01], [0, 0, 0]]))
    np.testing.assert_allclose(strained[0], [5.05, 5.05, 16.83, 90, 90, 120])
    np.testing.assert_allclose(strained[1], hexagonal)
    cubic = strained_cell((4.0, 4.0, 4.0, 90.0, 90.0, 90.0), np.array([0.01, 0, 0]))
    np.testing.assert_allclose(cubic[:3], 4.04)


# --- layouts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
@pytest.mark.parametrize("phases", [1, 3, 20])
def test_every_phase_is_somewhere_and_nowhere(layout, phases):
    present = layouts.presence_map(layout, phases, (16, 20), random(5))
    assert present.shape == (phases, 16, 20)
    assert present.any(axis=(1, 2)).all()
    assert not present.all(axis=(1, 2)).any()


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 2)])
def test_small_maps(layout, shape):
    assert layouts.presence_map(layout, 3, shape, random(5)).shape == (3, *shape)


@pytest.mark.parametrize("seed", range(6))
def test_crust_grows_on_a_crystal(seed):
    """One compact crystal; each layer is closed around it, the next further out; then nothing."""
    present = layouts.presence_map("crust", 4, (40, 60), random(seed))
    holes = [label(~part)[1] for part in present]
    assert sorted(holes) == [1, 2, 2, 2]
    crystal = present[int(np.argmin(holes))]
    assert label(crystal)[1] == 1
    y, x = np.nonzero(crystal)
    away = np.hypot(*(np.indices(crystal.shape) - np.array([y.mean(), x.mean()])[:, None, None]))
    order = np.argsort([away[part].mean() for part in present])
    assert order[0] == int(np.argmin(holes))
    for inner, outer in itertools.pairwise(order):
        assert (binary_dilation(present[inner]) & present[outer]).any()
    assert (present[order[0]] & present[order[1]]).any()  # the crust lies on the crystal
    corners = present[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert not corners.any()


@pytest.mark.parametrize("seed", range(6))
def test_gasket_rim_is_around_everything(seed):
    present = layouts.presence_map("gasket-rim", 3, (30, 40), random(seed), rim=1)
    border = np.ones((30, 40), bool)
    border[1:-1, 1:-1] = False
    assert present[1][border].all()
    assert not present[[0, 2]][:, border].any()
    assert label(~present[1])[1] == 1  # one hole
    assert not present[1][15, 20]
    assert label(present[1])[1] == 1
    inside = binary_dilation(~present[1], iterations=2)
    assert not present[[0, 2]][:, ~inside].any()
    assert layouts.presence_map("gasket-rim", 3, (30, 40), random(seed))[2][border].all()


def test_inclusions_are_round_and_cover_two_fifths():
    maps = [layouts.presence_map("inclusions", 1, (60, 60), random(s))[0] for s in range(30)]
    assert np.mean(maps) == pytest.approx(0.4, abs=0.06)
    pieces = np.mean([label(part)[1] for part in maps])
    assert 3 < pieces < 40


def test_random_layout_has_no_structure():
    present = layouts.presence_map("random", 2, (80, 80), random())
    neighbours = np.mean(present[:, 1:] == present[:, :-1])
    assert neighbours == pytest.approx(0.5, abs=0.03)
    patches = layouts.presence_map("independent", 2, (80, 80), random())
    assert np.mean(patches[:, 1:] == patches[:, :-1]) > 0.85


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
