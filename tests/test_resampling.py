"""Patterns onto a grid: identity, overlap, errors, wavelengths and gaps have known answers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest

import xrdpipe
from xrdpipe.errors import InputError
from xrdpipe.resampling import inside_grid, plan_resampling, resample
from xrdpipe.schema import FrameStatus
from xrdpipe.store.patterns import PatternsFile
from xrdpipe.types import Grid, Patterns

WAVELENGTH = 0.4959
OTHER = 0.2952


def patterns(
    axis: np.ndarray, intensity: np.ndarray | None = None, rows: int = 2, **options
) -> Patterns:
    rng = np.random.default_rng(0)
    if intensity is None:
        intensity = rng.normal(100, 30, (rows, axis.size)).astype(np.float32)
    intensity = np.atleast_2d(intensity).astype(np.float32)
    defaults = {
        "radial_axis": axis,
        "wavelength": WAVELENGTH,
        "intensity": intensity,
        "intensity_errors": rng.uniform(0.5, 3, intensity.shape).astype(np.float32),
        "coverage": rng.uniform(0, 1, intensity.shape).astype(np.float32),
        "spottiness": rng.uniform(0, 9, intensity.shape).astype(np.float32),
        "frame": np.arange(len(intensity)),
        "status": np.full(len(intensity), FrameStatus.OK, np.uint8),
        "polarization_factor": 0.99,
    }
    return Patterns(**{**defaults, **options})


def onto(source: Patterns, grid: Grid, method: str = "auto") -> Patterns:
    return resample(source, grid, plan_resampling(source, grid, method))


def uniform(low: int, high: int, step: float = 0.01) -> np.ndarray:
    """Centres k·step for k = low … high."""
    return np.round(np.arange(low, high + 1) * step, 9)


# --- same wavelength --------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["auto", "overlap", "linear"])
@pytest.mark.parametrize("wavelength", [WAVELENGTH, 1.5406])
@pytest.mark.parametrize(
    ("low", "high", "grid"),
    [(300, 3000, (5, 24, 0.01)), (500, 2400, (5, 24, 0.01)), (1, 90, (0.25, 0.85, 0.01))],
)
def test_its_own_grid_is_the_identity_bit_by_bit(low, high, grid, wavelength, method):
    source = patterns(uniform(low, high), wavelength=wavelength)
    source.intensity[0, 10] = np.nan
    source.intensity_errors[1] *= 1e-24  # squares would vanish in float32
    result = onto(source, Grid(*grid, wavelength), method)
    first = round(grid[0] / 0.01) - low
    where = slice(first, first + result.two_theta.size)
    np.testing.assert_array_equal(result.radial_axis, source.radial_axis[where])
    for name in ("intensity", "intensity_errors", "coverage", "spottiness"):
        ours, theirs = getattr(result, name), getattr(source, name)[:, where]
        assert ours.tobytes() == theirs.tobytes(), name


@pytest.mark.parametrize("step", [0.01, 0.013, 0.025, 0.1])
def test_overlap_equals_brute_force(step):
    axis = uniform(300, 1200)
    source = patterns(axis)
    grid = Grid(4.003, 10.0, step, WAVELENGTH)
    plan = plan_resampling(source, grid, "overlap")
    result = resample(source, grid, plan)
    fine = 0.005
    for point in range(0, grid.size, 7):
        low, high = grid.edges[point], grid.edges[point + 1]
        weights = np.clip(np.minimum(axis + fine, high) - np.maximum(axis - fine, low), 0, None)
        weights /= weights.sum()
        expected = source.intensity.astype(float) @ weights
        variance = source.intensity_errors.astype(float) ** 2 @ weights**2
        np.testing.assert_allclose(result.intensity[:, point], expected, rtol=1e-6)
        np.testing.assert_allclose(result.intensity_errors[:, point], np.sqrt(variance), rtol=1e-6)
        np.testing.assert_allclose(
            result.coverage[:, point], source.coverage.astype(float) @ weights, rtol=1e-5
        )
    assert np.allclose(np.asarray(plan.weights.sum(axis=1)).ravel(), 1)


def test_overlap_conserves_the_integral_of_a_peak():
    axis = uniform(300, 1200)
    peak = np.exp(-0.5 * ((axis - 7.003) / 0.03) ** 2)
    coarse = onto(patterns(axis, peak), Grid(5, 10, 0.05, WAVELENGTH))
    assert coarse.intensity.sum() * 0.05 == pytest.approx(peak.sum() * 0.01, rel=1e-6)


def test_linear_onto_a_finer_grid_with_its_variance():
    axis = uniform(60, 240, 0.05)
    source = patterns(axis)
    grid = Grid(4, 10, 0.02, WAVELENGTH)
    plan = plan_resampling(source, grid)
    assert plan.method == "linear"
    result = resample(source, grid, plan)
    for row in range(2):
        expected = np.interp(grid.two_theta, axis, source.intensity[row])
        np.testing.assert_allclose(result.intensity[row], expected, rtol=1e-5)
    right = np.searchsorted(axis, grid.two_theta - 1e-9)
    a = (grid.two_theta - axis[right - 1]) / 0.05
    variance = (1 - a) ** 2 * source.intensity_errors[:, right - 1].astype(float) ** 2
    variance += a**2 * source.intensity_errors[:, right].astype(float) ** 2
    np.testing.assert_allclose(result.intensity_errors, np.sqrt(variance), rtol=1e-5)


def test_claimed_errors_are_the_scatter_of_resampled_noise():
    axis = uniform(300, 1200)
    noise = np.random.default_rng(1).normal(0, 2.0, (400, axis.size))
    source = patterns(axis, noise)
    source.intensity_errors[:] = 2.0
    for method, step in (("overlap", 0.037), ("linear", 0.007)):
        result = onto(source, Grid(5, 10, step, WAVELENGTH), method)
        ratio = result.intensity.std(axis=0) / result.intensity_errors[0]
        assert np.mean(ratio) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("step", [0.01, 0.1, 0.013, 0.0025])
def test_correlation_length_is_that_of_resampled_noise(step):
    """The sum of the correlations of a point with all its neighbours, itself included."""
    axis = uniform(300, 460)
    noise = np.random.default_rng(2).normal(size=(20000, axis.size))
    source = patterns(axis, noise)
    plan = plan_resampling(source, Grid(3.3, 4.3, step, WAVELENGTH))
    values = resample(source, Grid(3.3, 4.3, step, WAVELENGTH), plan).intensity
    correlation = np.corrcoef(values.T)
    lag = np.abs(np.subtract.outer(*2 * [np.arange(len(correlation))]))
    correlation[lag * step > max(0.03, 1.5 * step)] = 0  # nothing is shared further away
    inner = slice(len(correlation) // 4, -len(correlation) // 4)
    found = correlation.sum(axis=1)[inner].mean()
    assert plan.correlation_length == pytest.approx(found, rel=0.03)
    assert (plan.correlation_length > 1.2) == (step in (0.013, 0.0025))


@pytest.mark.parametrize(("method", "step"), [("overlap", 0.03), ("linear", 0.004)])
def test_no_number_spreads_to_its_neighbours_only(method, step):
    axis = uniform(300, 1200)
    source = patterns(axis)
    clean = onto(source, Grid(5, 10, step, WAVELENGTH), method)
    gap = int(np.argmin(np.abs(axis - 7.0)))
    source.intensity[0, gap] = source.intensity_errors[0, gap] = np.nan
    result = onto(source, Grid(5, 10, step, WAVELENGTH), method)
    missing = np.isnan(result.intensity[0])
    reach = 0.01 if method == "linear" else (0.01 + step) / 2
    near = np.abs(result.two_theta - axis[gap]) < reach - 1e-6
    np.testing.assert_array_equal(missing, near)
    np.testing.assert_array_equal(np.isnan(result.intensity_errors[0]), near)
    np.testing.assert_array_equal(result.intensity[0][~near], clean.intensity[0][~near])
    np.testing.assert_array_equal(result.intensity[1], clean.intensity[1])


@pytest.mark.parametrize(
    ("method", "step", "low", "high"),
    [
        ("overlap", 0.01, 6.0, 9.0),
        ("linear", 0.01, 6.0, 9.0),
        ("overlap", 0.03, 6.01, 8.99),  # a bin measured in part has no data
        ("linear", 0.004, 6.0, 9.0),
    ],
)
def test_nothing_is_invented_beyond_the_ends(method, step, low, high):
    result = onto(patterns(uniform(600, 900)), Grid(5.0, 10, step, WAVELENGTH), method)
    inside = (result.two_theta > low - 1e-6) & (result.two_theta < high + 1e-6)
    np.testing.assert_array_equal(np.isfinite(result.intensity[0]), inside)
    assert (result.coverage[0][~inside] == 0).all()
    assert 90 < inside.sum() < inside.size - 50


@pytest.mark.parametrize(("low", "inside"), [(700, True), (760, False)])
def test_half_of_the_grid_must_be_covered(low, inside):
    result = onto(patterns(uniform(low, 1200)), Grid(5, 10, 0.01, WAVELENGTH))
    assert inside_grid(result.intensity).tolist() == [inside, inside]


def test_a_descending_axis_is_refused():
    with pytest.raises(InputError, match="ascending"):
        plan_resampling(patterns(uniform(300, 400)[::-1]), Grid(3, 4, 0.01, WAVELENGTH))


# --- another wavelength -----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["overlap", "linear"])
@pytest.mark.parametrize("spacing", [1.3, 2.0, 3.1])
def test_a_peak_lands_at_the_bragg_angle_of_the_other_wavelength(spacing, method):
    axis = uniform(200, 3000)
    here = np.degrees(2 * np.arcsin(WAVELENGTH / 2 / spacing))
    there = np.degrees(2 * np.arcsin(OTHER / 2 / spacing))
    source = patterns(axis, 50 * np.exp(-0.5 * ((axis - here) / 0.15) ** 2))
    result = onto(source, Grid(2, 14, 0.01, OTHER), method)
    weight = np.where(np.abs(result.two_theta - there) < 0.5, result.intensity[0], 0)
    centre = np.sum(weight * result.two_theta) / weight.sum()
    assert centre == pytest.approx(there, abs=5e-4)
    assert result.intensity[0].max() == pytest.approx(50, rel=0.01)  # no Jacobian: height stays
    assert result.wavelength == OTHER


@pytest.mark.parametrize("unit", ["degrees", "1/angstrom"])
def test_a_constant_stays_constant(unit):
    axis = uniform(200, 3000) if unit == "degrees" else np.linspace(0.5, 6.5, 1500)
    source = patterns(axis, np.full(axis.size, 7.5), unit=unit)
    for wavelength in (WAVELENGTH, OTHER, 0.7093):
        result = onto(source, Grid(4, 12, 0.01, wavelength))
        values = result.intensity[np.isfinite(result.intensity)]
        assert values.size > 700
        np.testing.assert_allclose(values, 7.5, rtol=1e-6)


def test_a_q_axis_is_read_as_the_angle_it_means():
    q = np.linspace(0.5, 6.5, 3000)
    peak = np.exp(-0.5 * ((q - 2 * np.pi / 2.0) / 0.01) ** 2)
    result = onto(patterns(q, peak, unit="1/angstrom"), Grid(5, 24, 0.01, WAVELENGTH))
    angle = result.two_theta[np.nanargmax(result.intensity[0])]
    assert angle == pytest.approx(np.degrees(2 * np.arcsin(WAVELENGTH / 4)), abs=0.006)
    assert result.unit == "degrees"


def test_angles_that_do_not_exist_at_the_other_wavelength_are_left_out():
    axis = uniform(200, 17000)
    result = onto(patterns(axis, rows=1), Grid(100, 170, 0.1, 1.5 * WAVELENGTH))
    assert np.isfinite(result.intensity[0]).any()
    highest = np.degrees(2 * np.arcsin(1.0))
    assert result.two_theta[np.isfinite(result.intensity[0])].max() < highest


def test_polarization_is_divided_out_only_if_it_was_not_corrected():
    axis = uniform(200, 3000)
    measured = (1 + np.cos(np.radians(axis)) ** 2) / 2
    grid = Grid(2, 14, 0.01, OTHER)
    raw = patterns(axis, 4 * measured, polarization_factor=None)
    result = onto(raw, grid)
    np.testing.assert_allclose(result.intensity[np.isfinite(result.intensity)], 4, rtol=1e-4)
    assert result.polarization_factor == 0  # so that nobody divides again
    again = onto(result, Grid(4, 20, 0.01, WAVELENGTH))
    np.testing.assert_allclose(again.intensity[np.isfinite(again.intensity)], 4, rtol=1e-4)
    corrected = onto(dataclasses.replace(raw, polarization_factor=0.99), grid)
    assert corrected.polarization_factor == 0.99
    assert np.nanmin(corrected.intensity) < 3.75
    same = onto(raw, Grid(4, 20, 0.01, WAVELENGTH))
    assert same.polarization_factor is None  # the angle is that of the measurement
    np.testing.assert_array_equal(same.intensity[0], raw.intensity[0, 200:1801])


def test_errors_are_divided_like_the_intensity():
    axis = uniform(200, 3000)
    raw = patterns(axis, 10 * np.ones(axis.size), polarization_factor=None)
    raw.intensity_errors[:] = 1.0
    grid = Grid(2, 14, 0.0001, OTHER)
    result = onto(raw, grid, "linear")
    at_centres = np.nanmax(result.intensity_errors / result.intensity)
    assert at_centres == pytest.approx(0.1, rel=1e-4)


# --- the stage --------------------------------------------------------------------------------


@pytest.fixture
def integrated(tmp_path, scan, poni) -> Path:
    (scan / "frame_0002.tif").write_bytes(b"")
    xrdpipe.integrate(
        frames=[scan], poni=poni, output=tmp_path / "p.h5", polarization_factor=None, gain=1,
        read_noise=0, variant="both",
    )  # fmt: skip
    return tmp_path / "p.h5"


@pytest.mark.parametrize("variant", ["masked", "unmasked"])
def test_the_stage_stores_what_the_function_gives(integrated, variant):
    output = integrated.with_name("r.h5")
    xrdpipe.resample(
        patterns=integrated, grid="2:9:0.02", wavelength=OTHER, variant=variant, output=output
    )
    grid = Grid(2, 9, 0.02, OTHER)
    with PatternsFile(integrated, variant) as source:
        rows = source.rows(0, source.n_rows)
    expected = onto(rows, grid)
    with PatternsFile(output) as found:
        result = found.rows(0, found.n_rows)
        assert found.variant == variant
        assert found.polarization_factor == 0
        assert found.wavelength == OTHER
    for name in ("intensity", "intensity_errors", "coverage", "radial_axis", "status", "frame"):
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))
    with h5py.File(output) as file:
        entry = file["entry"]
        assert entry["resampling/polarization_divided_out"][()]
        assert entry["polarization_applied"][()]
        assert entry["resampling/method"].asstr()[()] == "overlap"
        assert entry["frames/status"][1] == FrameStatus.CORRUPT
        assert np.isnan(entry["data/I"][1]).all()


def test_onto_the_default_bins_the_stage_is_the_identity(integrated):
    output = integrated.with_name("same.h5")
    xrdpipe.resample(patterns=integrated, grid="2:9:0.01", wavelength=WAVELENGTH, output=output)
    with PatternsFile(integrated) as source, PatternsFile(output) as found:
        native, same = source.rows(0, 6), found.rows(0, 6)
        where = slice(*np.searchsorted(native.radial_axis, [1.9999, 9.0001]))
        for name in ("intensity", "intensity_errors"):
            np.testing.assert_array_equal(getattr(native, name)[:, where], getattr(same, name))
        assert found.polarization_factor is None


def test_grids_that_print_alike_are_different_runs(integrated):
    output = integrated.with_name("r.h5")
    common = {"patterns": integrated, "grid": "2:9:0.02", "output": output}
    xrdpipe.resample(**common, wavelength=0.4)
    assert xrdpipe.resample(**common, wavelength=0.4).summary.endswith("already done.")
    with pytest.raises(FileExistsError, match=r"grid\[3\] is 0.4 there, 0.4000001 here"):
        xrdpipe.resample(**common, wavelength=0.4000001)


def test_the_input_is_never_the_output(integrated):
    with pytest.raises(InputError, match="is the input"):
        xrdpipe.resample(
            patterns=integrated, grid="2:9:0.02", wavelength=0.4, output=integrated, restart=True
        )
