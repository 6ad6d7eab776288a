"""Patterns onto a grid, through the wavelength, with errors and coverage (decisions 10-13)."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import InputError
from xrdpipe.types import BoolArray, FloatArray, Grid, Patterns

if TYPE_CHECKING:
    import scipy.sparse as sp

MIN_COVERED = 0.5
"""A pattern with less than this fraction of the grid is outside it (decision 13)."""

UNPOLARIZED = 0.0
"""Polarization factor of (1 + cos² 2θ) / 2, which uncorrected patterns are divided by."""

_TOLERANCE = 1e-6
"""Overlaps below this fraction of a native bin are rounding, not data."""


@dataclass(frozen=True)
class Resampling:
    """Weights from native bins to grid points; rows without data are empty.

    Parameters
    ----------
    weights
        Shape (grid points, native bins); every filled row sums to 1.
    method
        ``linear`` or ``overlap``, as chosen.
    correlation_length
        Grid points over which errors of the result are correlated, had the native bins
        independent errors (1 = independent).
    polarization
        What native values are divided by first, shape (native bins,), or None.
    """

    weights: sp.csr_array[Any]
    method: str
    correlation_length: float
    polarization: NDArray[np.float64] | None = None


def at_wavelength(
    two_theta: NDArray[np.float64], wavelength: float, new_wavelength: float
) -> NDArray[np.float64]:
    """Angles (degrees) of the same sin θ / λ at another wavelength (Å); NaN where none exists."""
    if np.isclose(wavelength, new_wavelength, rtol=1e-9, atol=0):
        return two_theta
    sine = np.sin(np.radians(two_theta) / 2) * new_wavelength / wavelength
    return np.asarray(np.degrees(2 * np.arcsin(np.where(sine <= 1, sine, np.nan))), np.float64)


def plan_resampling(patterns: Patterns, grid: Grid, method: str = "auto") -> Resampling:
    """Compute the weights once for all patterns of one axis.

    Parameters
    ----------
    method
        ``overlap`` weights I = Σ w I / Σ w by the shared width of bins; ``linear`` interpolates
        between centres; ``auto`` takes overlap where the grid's step is not finer than the
        native one.

    Raises
    ------
    InputError
        If the native axis is not ascending.
    """
    centres = patterns.two_theta
    if centres.size < 2 or not np.all(np.diff(centres) > 0):
        raise InputError("the radial axis of the patterns must be ascending, with two bins or more")
    axis = patterns.radial_axis
    middle = (axis[1:] + axis[:-1]) / 2
    edges = np.concatenate([[2 * axis[0] - middle[0]], middle, [2 * axis[-1] - middle[-1]]])
    edges = dataclasses.replace(patterns, radial_axis=np.maximum(edges, 0)).two_theta
    centres = at_wavelength(centres, patterns.wavelength, grid.wavelength)
    edges = at_wavelength(edges, patterns.wavelength, grid.wavelength)
    usable = np.isfinite(edges[1:])
    native_step = float(np.median(np.diff(centres[usable])))
    if method == "auto":
        method = "overlap" if grid.step >= native_step * (1 - _TOLERANCE) else "linear"
    if method == "overlap":
        weights = _overlap_weights(edges[: usable.sum() + 1], grid.edges, centres.size)
    else:
        weights = _linear_weights(centres[usable], grid.two_theta, centres.size)
    changes = not np.isclose(patterns.wavelength, grid.wavelength, rtol=1e-9, atol=0)
    polarization = None
    if changes and patterns.polarization_factor is None:
        # The azimuthal mean of the polarization factor does not depend on the beam's degree of
        # polarization for a full ring: (1 + cos² 2θ) / 2.
        polarization = (1 + np.cos(np.radians(patterns.two_theta)) ** 2) / 2
    return Resampling(weights, method, _correlation_length(weights), polarization)


def resample(patterns: Patterns, grid: Grid, plan: Resampling) -> Patterns:
    """Apply a plan: intensity, errors (Σ a² var), coverage and spottiness onto the grid.

    A grid point any of whose native bins is NaN is NaN; nothing is invented beyond the ends.
    """

    def values(native: FloatArray) -> NDArray[np.float32]:
        return apply_weights(plan.weights, native, plan.polarization).astype(np.float32)

    def errors(native: FloatArray) -> NDArray[np.float32]:
        squared = plan.weights.copy()
        squared.data = squared.data**2
        variance = np.asarray(native, np.float64) ** 2
        scale = None if plan.polarization is None else plan.polarization**2
        # In float64 to the end: squares of float32 overflow and vanish.
        return np.sqrt(apply_weights(squared, variance, scale)).astype(np.float32)

    intensity = values(patterns.intensity)
    coverage = apply_weights(plan.weights, patterns.coverage, None)
    coverage = np.where(np.isnan(coverage), np.float32(0), coverage)
    return dataclasses.replace(
        patterns,
        radial_axis=grid.two_theta,
        wavelength=grid.wavelength,
        unit="degrees",
        intensity=intensity,
        intensity_errors=(
            None if patterns.intensity_errors is None else errors(patterns.intensity_errors)
        ),
        coverage=coverage.astype(np.float32),
        spottiness=None if patterns.spottiness is None else values(patterns.spottiness),
        polarization_factor=(
            patterns.polarization_factor if plan.polarization is None else UNPOLARIZED
        ),
    )


def apply_weights(
    weights: sp.csr_array[Any],
    native: FloatArray,
    divisor: NDArray[np.float64] | None,
) -> NDArray[np.float64]:
    """Weighted sums of rows (rows, native bins) → (rows, grid points); NaN spreads."""
    work = np.asarray(native, np.float64)
    if divisor is not None:
        work = work / divisor
    missing = np.isnan(work)
    result = (weights @ np.where(missing, 0, work).T).T
    touched = weights.copy()
    touched.data = np.ones_like(touched.data)
    empty = np.diff(weights.indptr) == 0
    if missing.any():
        result[(touched @ missing.T.astype(np.float64)).T > 0] = np.nan
    result[:, empty] = np.nan
    return np.ascontiguousarray(result, np.float64)


def inside_grid(intensity: FloatArray) -> BoolArray:
    """Rows with at least half of the grid, shape (rows,)."""
    return np.asarray(np.isfinite(intensity).mean(axis=1) >= MIN_COVERED, bool)


def _overlap_weights(
    edges: NDArray[np.float64], grid_edges: NDArray[np.float64], n_native: int
) -> sp.csr_array[Any]:
    import scipy.sparse as sp

    rows, columns, weights = [], [], []
    widths = np.diff(edges)
    slack = _TOLERANCE * float(np.median(widths))
    for row, (low, high) in enumerate(itertools.pairwise(grid_edges)):
        if low < edges[0] - slack or high > edges[-1] + slack:
            continue  # a point whose bin is not wholly measured has no data
        first = max(int(np.searchsorted(edges, low, "right")) - 1, 0)
        last = min(int(np.searchsorted(edges, high, "left")), widths.size)
        shared = np.minimum(edges[first + 1 : last + 1], high) - np.maximum(edges[first:last], low)
        kept = shared > _TOLERANCE * widths[first:last]
        shared = shared[kept]
        rows += [row] * shared.size
        columns += (np.arange(first, last)[kept]).tolist()
        weights += (shared / shared.sum()).tolist()
    shape = (grid_edges.size - 1, n_native)
    return sp.csr_array((weights, (rows, columns)), shape=shape)


def _linear_weights(
    centres: NDArray[np.float64], points: NDArray[np.float64], n_native: int
) -> sp.csr_array[Any]:
    import scipy.sparse as sp

    slack = _TOLERANCE * float(np.median(np.diff(centres)))
    inside = np.flatnonzero((points >= centres[0] - slack) & (points <= centres[-1] + slack))
    right = np.clip(np.searchsorted(centres, points[inside]), 1, centres.size - 1)
    fraction = (points[inside] - centres[right - 1]) / (centres[right] - centres[right - 1])
    fraction = np.where(np.abs(fraction) < _TOLERANCE, 0, fraction)
    fraction = np.where(np.abs(fraction - 1) < _TOLERANCE, 1, fraction)
    rows = np.concatenate([inside, inside])
    columns = np.concatenate([right - 1, right])
    weights = np.concatenate([1 - fraction, fraction])
    kept = weights != 0
    return sp.csr_array((weights[kept], (rows[kept], columns[kept])), shape=(points.size, n_native))


def _correlation_length(weights: sp.csr_array[Any]) -> float:
    """1 + 2 Σ of the mean correlations at lags 1, 2, …, for independent native errors."""
    filled = weights[np.diff(weights.indptr) > 0]
    if filled.shape[0] < 2:
        return 1.0
    norm = np.sqrt(filled.power(2).sum(axis=1))
    length = 1.0
    for lag in range(1, min(50, filled.shape[0])):
        product = filled[:-lag].multiply(filled[lag:]).sum(axis=1) / (norm[:-lag] * norm[lag:])
        mean = float(product.mean())
        if mean < 1e-3:
            break
        length += 2 * mean
    return length
