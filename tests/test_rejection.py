"""Rejection keeps powder and removes spots; spottiness, excess variance and coverage are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from known_frames import SHAPE, geometry_of
from xrdpipe.errors import FrameError
from xrdpipe.integration.geometry import Geometry, choose_binning
from xrdpipe.integration.reduce import FrameReducer, ReducedFrame, ReductionSettings
from xrdpipe.integration.rings import Rings
from xrdpipe.schema import FrameFlag, FrameStatus

FEW, MANY = None, 120
"""Bins: the default 0.01° (about 14 pixels each on this detector), and 0.15° (about 210)."""


def reducer(geometry: Geometry, bins: int | None = MANY, **settings: Any) -> FrameReducer:
    settings = {"variants": ("masked", "unmasked"), "splitting": "no", **settings}
    mask = settings.pop("mask", None)
    return FrameReducer(
        geometry,
        choose_binning(geometry, "2theta", bins, None),
        ReductionSettings(**settings),
        mask=mask,
    )


def pixel_norm(geometry: Geometry) -> np.ndarray:
    """What an isotropic sample's counts are proportional to: solid angle times polarization."""
    return geometry.solid_angle * geometry.polarization(0.99)


def ring_profile(geometry: Geometry, centre: float = 7.0, sigma: float = 0.2) -> np.ndarray:
    return np.exp(-0.5 * ((geometry.two_theta - centre) / sigma) ** 2)


def area_ratio(result: ReducedFrame, axis: np.ndarray, centre: float, reach: float) -> float:
    """Masked over unmasked intensity above a background that both share, around a ring."""
    near = np.abs(axis - centre) < reach
    beside = (np.abs(axis - centre) >= reach) & (np.abs(axis - centre) < 1.5 * reach)
    masked, unmasked = (result.rows[v]["I"].astype(float) for v in ("masked", "unmasked"))
    ground = np.nanmedian(unmasked[beside])
    return float(np.nansum(masked[near] - ground) / np.nansum(unmasked[near] - ground))


@pytest.mark.parametrize("bins", [FEW, MANY])
@pytest.mark.parametrize("level", [0.005, 0.05, 0.5, 5.0, 100.0, 1e4])
def test_an_isotropic_poisson_frame_loses_nothing(geometry, level, bins):
    reduce = reducer(geometry, bins, solid_angle=True)
    expected = level * pixel_norm(geometry)
    rng = np.random.default_rng(int(level * 1000))
    rejected, drift = 0, []
    for _ in range(4):
        image = rng.poisson(expected).astype(np.uint32)
        result = reduce.reduce(image)
        masked, unmasked = (result.rows[v]["I"] for v in ("masked", "unmasked"))
        np.testing.assert_array_equal(np.isfinite(masked), np.isfinite(unmasked))
        rejected += result.counts["n_masked_dynamic"]
        weight = reduce.static_norm("masked")
        drift.append(np.nansum(masked * weight) / weight.sum())
    assert rejected <= 1e-4 * 4 * expected.size
    n_counts = level * expected.size * 4
    assert np.mean(drift) == pytest.approx(level, rel=4 / np.sqrt(n_counts))


@pytest.mark.parametrize("level", [0.5, 10.0, 1000.0])
@pytest.mark.parametrize("covered", [0.005, 0.02, 0.05, 0.10])
def test_spots_on_a_ring_are_removed(geometry, level, covered):
    """Spots over 0.5-10 % of a ring keep less than 4 % of their excess."""
    rng = np.random.default_rng(round(level * covered * 1e4))
    profile = ring_profile(geometry)
    smooth = level * (0.3 + profile) * pixel_norm(geometry)
    on_ring = np.abs(geometry.two_theta - 7.0) < 0.3
    candidates = np.argwhere(on_ring)
    y, x = np.indices(SHAPE)
    peak = 60 * np.sqrt(max(level, 1)) + 20 * level
    spots = np.zeros(SHAPE)
    while np.mean((spots > 0.01 * peak)[on_ring]) < covered:
        cy, cx = candidates[rng.integers(len(candidates))] + rng.uniform(-0.5, 0.5, 2)
        distance2 = (y - cy) ** 2 + (x - cx) ** 2
        spots += peak * rng.uniform(0.5, 1.5) * np.exp(-distance2 / (2 * 0.8**2))
    counts = rng.poisson(smooth).astype(np.uint32)
    reduce = reducer(geometry, variants=("masked", "unmasked"))
    clean = reduce.reduce(counts).rows["unmasked"]["I"]
    result = reduce.reduce(counts + rng.poisson(spots).astype(np.uint32))
    ring = np.abs(reduce.binning.centres - 7.0) < 0.3
    excess = np.nansum((result.rows["unmasked"]["I"] - clean)[ring])
    left = np.nansum((result.rows["masked"]["I"] - clean)[ring])
    assert excess > 0.3 * np.nansum(clean[ring]) * covered / 0.1
    assert abs(left) < 0.04 * excess


@pytest.mark.parametrize("bins", [FEW, MANY])
@pytest.mark.parametrize("level", [10.0, 1000.0, 1e4])
def test_a_textured_ring_is_kept(geometry, level, bins):
    """±40 % along the azimuth is preferred orientation, not outliers."""
    texture = 1 + 0.4 * np.cos(2 * np.radians(geometry.chi) + 0.7)
    expected = level * (0.1 + ring_profile(geometry) * texture) * pixel_norm(geometry)
    image = np.random.default_rng(3).poisson(expected).astype(np.uint32)
    reduce = reducer(geometry, bins)
    result = reduce.reduce(image)
    assert result.counts["n_masked_dynamic"] <= 1e-4 * image.size
    assert area_ratio(result, reduce.binning.centres, 7.0, 0.6) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("bins", [None, 900])
def test_a_sharp_ring_off_its_calculated_place_is_kept(tmp_path, bins):
    """A ring of two pixels, half a pixel off along part of the azimuth, is no outlier.

    On its flanks a pixel's intensity is a matter of where its centre lies; clipping there took
    15-30 % of the lines of a real calibrant.
    """
    true = geometry_of(tmp_path, distance=1.5, centre=(75.3, 84.6))
    assumed = geometry_of(tmp_path, distance=1.5, centre=(75.8, 84.6))
    pixel = np.degrees(0.5e-3 / 1.5)
    # The average over the pixel, as a detector without point spread sees it.
    at = true.two_theta[..., None] + np.linspace(-0.4, 0.4, 5) * pixel
    profile = np.exp(-0.5 * ((at - 1.0) / (0.6 * pixel)) ** 2).mean(axis=-1)
    image = np.random.default_rng(4).poisson(100 + 3e4 * profile).astype(np.uint32)
    reduce = reducer(assumed, bins, polarization_factor=None)
    result = reduce.reduce(image)
    assert area_ratio(result, reduce.binning.centres, 1.0, 0.12) > 0.998


def test_a_grainy_ring_keeps_its_bright_grains(geometry):
    """Many grains of differing size: log-normal along the azimuth, 35 % wide."""
    rng = np.random.default_rng(5)
    sigma = np.sqrt(np.log(1 + 0.35**2))
    grains = np.exp(rng.normal(-(sigma**2) / 2, sigma, 720))
    sector = ((geometry.chi + 180) / 360 * grains.size).astype(int) % grains.size
    expected = 5 + 2000 * ring_profile(geometry) * grains[sector]
    reduce = reducer(geometry)
    result = reduce.reduce(rng.poisson(expected).astype(np.uint32))
    assert area_ratio(result, reduce.binning.centres, 7.0, 0.6) > 0.985


@pytest.mark.parametrize("lit", [0.35, 0.65])
def test_the_edge_of_a_shadow_is_no_reason_to_clip(geometry, lit):
    """An unmasked beamstop over most of a ring must not turn the lit part into outliers."""
    shadow = (geometry.chi + 180) / 360 > lit
    image = np.random.default_rng(12).poisson(np.where(shadow, 30, 800)).astype(np.uint32)
    result = reducer(geometry).reduce(image)
    inside = slice(10, 50)  # whole rings
    ratio = result.rows["masked"]["I"][inside] / result.rows["unmasked"]["I"][inside]
    np.testing.assert_allclose(ratio, 1, atol=0.01)


@pytest.mark.parametrize("bins", [FEW, MANY])
@pytest.mark.parametrize("level", [0.02, 5.0, 1000.0])
def test_isolated_hot_pixels_go_even_from_small_bins(geometry, level, bins):
    rng = np.random.default_rng(6)
    image = rng.poisson(level, SHAPE).astype(np.uint32)
    places = rng.choice(SHAPE[0] * SHAPE[1], 60, replace=False)
    image.ravel()[places] = 200 + 20 * level
    reduce = reducer(geometry, bins, polarization_factor=None, solid_angle=False)
    rejected = reduce.masked_pixels(image)
    inside = reduce._rings.bins[places] >= 0
    assert rejected.ravel()[places][inside].all()
    others = np.delete(rejected.ravel(), places)
    assert others.mean() < 1e-3


def test_a_single_count_is_never_rejected(geometry):
    image = np.zeros(SHAPE, np.uint16)
    rng = np.random.default_rng(7)
    image.ravel()[rng.choice(image.size, 40, replace=False)] = 1
    image[75, 30:33] = 1  # neighbours too
    image[10, 10] = 4
    for bins in (FEW, MANY):
        reduce = reducer(geometry, bins)
        assert reduce.reduce(image).counts["n_masked_dynamic"] == 0
        assert not reduce.masked_pixels(image).any()


@pytest.mark.parametrize("halo", [0, 4])
def test_a_saturated_spot_goes_with_its_halo(geometry, halo):
    """Around a saturated spot even pixels that look like the ring are not to be trusted."""
    y, x = np.indices(SHAPE)
    image = np.random.default_rng(8).poisson(20, SHAPE).astype(np.uint16)
    image[np.hypot(y - 40, x - 120) < 2.5] = 20000
    reduce = reducer(geometry, saturation=20000, halo=halo)
    saturated = image >= 20000
    assert saturated.sum() == 21
    np.testing.assert_array_equal(
        reduce.masked_pixels(image), distance_transform_edt(~saturated) <= halo
    )
    result = reduce.reduce(image)
    assert result.counts["n_saturated"] == 21
    assert not result.flags & FrameFlag.SATURATED
    assert np.nanmax(result.rows["unmasked"]["I"]) > 200
    assert np.nanmax(result.rows["masked"]["I"]) < 30


def test_saturation_flags_the_frame_above_five_percent(geometry):
    image = np.full(SHAPE, 10, np.uint16)
    image[:9] = 5000  # 6 %
    reduce = reducer(geometry, saturation=5000.0, reject="none")
    result = reduce.reduce(image)
    assert result.flags == FrameFlag.SATURATED
    assert result.counts["n_saturated"] == 9 * SHAPE[1]
    assert np.nanmax(result.rows["masked"]["I"]) < 20


def test_a_frame_of_zeros_is_empty(geometry):
    with pytest.raises(FrameError) as caught:
        reducer(geometry).reduce(np.zeros(SHAPE, np.uint16))
    assert caught.value.status == FrameStatus.EMPTY


def test_decisions_do_not_depend_on_the_monitor(geometry, frame):
    image = frame.copy()
    image[20:24, 30:34] += 900
    reduce = reducer(geometry)
    one, other = (reduce.masked_pixels(image, scale) for scale in (1.0, 0.013))
    assert one.sum() >= 16
    np.testing.assert_array_equal(one, other)


# --- spottiness and azimuthal excess variance -------------------------------------------------


@pytest.mark.parametrize("level", [0.01, 0.1, 1.0, 10.0, 1e3, 1e4])
def test_isotropic_frames_have_neither_spots_nor_excess_variance(geometry, level):
    reduce = reducer(geometry, spottiness=True)
    rng = np.random.default_rng(int(100 * level))
    expected = level * pixel_norm(geometry)
    spots, excess = [], []
    for _ in range(6):
        row = reduce.reduce(rng.poisson(expected).astype(np.uint32)).rows["masked"]
        error = row["I_errors"]
        assert np.nanmax(np.abs(row["spottiness"]) / error) < 3
        spots.append(np.nanmean(row["spottiness"]) / level)
        excess.append(row["azimuthal_excess_variance"])
    excess = np.concatenate(excess)
    excess = excess[np.isfinite(excess)]
    assert abs(np.mean(spots)) < 1e-3
    assert abs(excess.mean()) < 4.5 * excess.std() / np.sqrt(excess.size)


def test_a_known_spot_gives_its_known_excess_and_exposure_only_scales_it(geometry):
    y, x = np.indices(SHAPE)
    spot = np.exp(-((y - 40) ** 2 + (x - 60) ** 2) / (2 * 1.5**2))
    found = []
    for exposure in (1.0, 10.0, 100.0):
        rng = np.random.default_rng(9)
        reduce = reducer(geometry, spottiness=True, polarization_factor=None, solid_angle=False)
        expected = exposure * (8 + 60 * spot * 40)
        row = reduce.reduce(rng.poisson(expected).astype(np.uint32)).rows["masked"]
        pixels = reduce.static_norm("masked")
        carried = np.nansum(row["spottiness"] * pixels) / exposure
        assert carried == pytest.approx(60 * 40 * spot.sum(), rel=0.03)
        found.append(carried)
    assert found[2] == pytest.approx(found[0], rel=0.03)


def test_excess_variance_of_a_known_modulation(geometry):
    modulation = 1 + 0.5 * np.cos(3 * np.radians(geometry.chi))
    image = np.random.default_rng(10).poisson(50 * modulation * pixel_norm(geometry))
    reduce = reducer(geometry, spottiness=True)
    excess = reduce.reduce(image.astype(np.uint32)).rows["masked"]["azimuthal_excess_variance"]
    bins = reduce._rings.bins
    use = bins >= 0
    pixels = np.bincount(bins[use], minlength=MANY)
    mean = np.bincount(bins[use], modulation.ravel()[use], MANY) / np.maximum(pixels, 1)
    square = np.bincount(bins[use], modulation.ravel()[use] ** 2, MANY) / np.maximum(pixels, 1)
    known = (square - mean**2) / np.maximum(mean, 1e-9) ** 2
    good = pixels > 100
    assert np.median((excess / known)[good]) == pytest.approx(1, abs=0.03)
    assert np.all(np.isnan(excess) == (pixels < 30))
    assert (pixels < 30).any()


def test_spottiness_is_nan_where_a_bin_has_too_few_pixels(geometry, frame):
    reduce = reducer(geometry, FEW, spottiness=True)
    row = reduce.reduce(frame).rows["masked"]
    bins = reduce._rings.bins
    pixels = np.bincount(bins[bins >= 0], minlength=reduce.binning.count)
    for name in ("spottiness", "azimuthal_excess_variance"):
        np.testing.assert_array_equal(np.isnan(row[name]), pixels < 30)
    assert 0.01 < np.mean(pixels >= 30) < 0.9


# --- coverage ---------------------------------------------------------------------------------


@pytest.mark.parametrize("splitting", ["no", "bbox", "full"])
def test_coverage_is_one_on_a_full_ring_and_half_on_half_of_it(geometry, frame, splitting):
    half = np.cos(np.radians(geometry.chi)) < 0
    reduce = reducer(geometry, 60, mask=half, splitting=splitting, reject="none")
    rows = reduce.reduce(frame).rows
    full = (reduce.binning.centres > 2) & (reduce.binning.centres < 8.5)  # the ring is inside
    assert rows["unmasked"]["coverage"][full] == pytest.approx(1, abs=0.03)
    assert rows["unmasked"]["coverage"][full].mean() == pytest.approx(1, abs=0.005)
    assert rows["masked"]["coverage"][full].mean() == pytest.approx(0.5, abs=0.01)
    assert rows["unmasked"]["coverage"][-1] < 0.2
    for row in rows.values():
        assert np.all((row["coverage"] >= 0) & (row["coverage"] <= 1))


# --- which pixels of a ring its statistics are taken of -----------------------------------------


def test_statistics_are_of_a_fixed_part_of_each_ring():
    rng = np.random.default_rng(5)
    shape, most = (300, 400), 200
    bins = rng.choice(np.arange(-1, 12), shape[0] * shape[1], p=[0.1, *[0.075] * 11, 0.075])
    bins[bins == 11] = np.where(np.cumsum(bins == 11) <= 150, 11, -1)[bins == 11]
    usable = rng.random(bins.size) < 0.7
    rings = Rings(bins, 12, shape, usable, most)
    np.testing.assert_array_equal(rings.sampled, Rings(bins, 12, shape, usable, most).sampled)
    value = rng.normal(10, 2, bins.size).astype(np.float32)
    valid = usable & (rng.random(bins.size) < 0.9)
    found = rings.statistics(value, valid)
    for ring in range(12):
        part = rings.sampled[rings.sample_start[ring] : rings.sample_start[ring + 1]]
        of = np.flatnonzero(usable & (bins == ring))
        assert part.size == np.unique(part).size == min(most, of.size)
        assert np.isin(part, of).all()
        assert found.pixels[ring] == valid[part].sum()
        assert found.centre[ring] == pytest.approx(np.median(value[part[valid[part]]]))
    np.testing.assert_array_equal(
        rings.pixels(valid), np.bincount(bins[valid & (bins >= 0)], minlength=12)
    )


def test_sampled_pixels_prefer_no_column_and_no_row():
    shape = (512, 512)
    rings = Rings(np.zeros(shape[0] * shape[1], np.intp), 1, shape, samples=1 << 14)
    for place in np.divmod(rings.sampled, shape[1]):
        for period in (2, 8, 64, 512):
            count = np.bincount(place % period, minlength=period)
            expected = rings.sampled.size / period
            assert np.abs(count - expected).max() < 5 * np.sqrt(expected)
