"""Patterns as the classical methods see them: bins, and how much each of them is to be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.channels import background, fill_gaps, noise
from xrdpipe.classical.templates import binned
from xrdpipe.types import FloatArray

SMALLEST_NOISE = 1e-3
"""Of the height of the lines: what stands for the noise of a pattern without any."""

LINE_HEIGHT = 98
"""Percentile of intensity above background that stands for the height of the lines."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Observed:
    """N patterns in n bins.

    Parameters
    ----------
    intensity
        Shape (N, n); 0 where there is no data.
    background
        Same shape, a smooth lower envelope.
    weight
        Same shape, 1/variance of counting; 0 where there is no data.
    """

    intensity: Array
    background: Array
    weight: Array


def observe(intensity: FloatArray, coverage: FloatArray, together: int) -> Observed:
    """Average patterns to bins and measure their noise.

    The noise is that of the patterns themselves, at the level of the background; above it the
    variance grows with the intensity, as that of counts does.

    Parameters
    ----------
    intensity
        Shape (N, points), NaN where there is no data.
    coverage
        Same shape; 0 or NaN where there is no data.
    together
        Points of a bin.
    """
    good = np.isfinite(intensity) & (np.nan_to_num(coverage) > 0)
    filled = fill_gaps(np.where(good, intensity, np.nan))
    base, sigma = background(filled), noise(filled)
    level = np.where(good, filled - base, 0).astype(np.float64)
    height = np.percentile(level, LINE_HEIGHT, axis=1, keepdims=True)
    share = binned(good.astype(np.float64), together)
    smooth, spread = binned(base, together), binned(sigma, together)
    # A bin is the mean of its points with data, above the background at those points.
    excess = binned(level, together) / np.maximum(share, 1e-9)
    spread = np.maximum(spread, SMALLEST_NOISE * np.maximum(height, 0))
    growth = 1 + _smooth(np.maximum(excess, 0)) / np.maximum(smooth, 3 * spread + 1e-300)
    variance = spread**2 * growth
    usable = (share >= 0.5) & (variance > 0)
    weight = np.where(usable, 1 / np.where(usable, variance, 1), 0)
    return Observed(np.where(usable, smooth + excess, 0), smooth, weight)


def _smooth(values: Array) -> Array:
    """Mean of each bin and its neighbours: the noise of a bin must not weigh the bin itself."""
    padded = np.pad(values, ((0, 0), (1, 1)), mode="edge")
    mean: Array = (padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / 3
    return mean
