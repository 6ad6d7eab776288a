"""Pixels to leave out for a whole series: diamond spots, and outliers of the stack's median."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label, maximum_filter1d, minimum_filter1d

from xrdpipe.integration.rejection import (
    MAX_OUTLYING,
    MIN_PIXELS,
    SKEW_LIMIT,
    PixelNoise,
    robust_outliers,
)
from xrdpipe.integration.rings import Rings
from xrdpipe.types import BoolArray

MIN_SPOT = 4
"""Pixels of the smallest spot, flanks included: a zinger or a hot pixel has fewer."""

_EIGHT = np.ones((3, 3), bool)


def spots(
    image: NDArray[np.float32],
    norm: NDArray[np.float32],
    rings: Rings,
    valid: BoolArray,
    threshold: float,
    reach: int,
    noise: PixelNoise,
) -> BoolArray:
    """Peaks of one frame above their ring, as ``robust`` rejection decides, without its halo.

    Parameters
    ----------
    image
        Raw values, shape (rows, columns).
    norm
        Pixel normalisation, same shape.
    valid
        Pixels that carry a measurement, same shape.
    threshold
        In standard deviations.
    reach
        How many pixels a peak extends into its flanks at most.

    Returns
    -------
    BoolArray
        Shape (rows, columns); single zingers and hot pixels are left out.
    """
    none = np.zeros(image.shape, bool)
    outliers = robust_outliers(image, norm, rings, valid, none, threshold, reach, noise)
    return without_small(outliers, MIN_SPOT)


def azimuthal_outliers(
    image: NDArray[np.float32],
    norm: NDArray[np.float32],
    rings: Rings,
    valid: BoolArray,
    threshold: float,
    noise: PixelNoise,
) -> BoolArray:
    """Pixels above or below their ring by ``threshold`` standard deviations.

    The limits are those of ``robust`` rejection, towards both sides: the larger of azimuthal and
    counting width, from the centres within half a pixel, and no clipping in bins of which more
    than a quarter lies beyond the limit of one side.

    Parameters
    ----------
    image
        Median of a stack, raw values, shape (rows, columns).
    noise
        Of that median.
    """
    shown = np.where(valid, image, 0).astype(np.float32)
    pixel_norm = np.where(norm > 0, norm, 1).astype(np.float32)
    value = (shown / pixel_norm).ravel()
    statistics = rings.statistics(value, valid.ravel())
    size = 2 * rings.reach + 1
    filled = statistics.pixels > 0
    upper = np.minimum(statistics.upper, SKEW_LIMIT * statistics.lower)
    lower = np.minimum(statistics.lower, SKEW_LIMIT * statistics.upper)
    highest = maximum_filter1d(np.where(filled, statistics.centre, -np.inf), size)
    lowest = minimum_filter1d(np.where(filled, statistics.centre, np.inf), size)
    width = maximum_filter1d(np.where(filled, np.maximum(upper, lower), 0), size)

    judged = np.append(statistics.pixels >= MIN_PIXELS, False)  # bin −1 is the last entry
    usable = valid.ravel() & judged[rings.bins]
    found = np.zeros(image.size, bool)
    for centre, sign in ((highest, 1), (lowest, -1)):
        # Counting widths are computed only for what the azimuthal width lets through.
        nearest = np.append(centre + sign * threshold * width, 0).astype(np.float32)[rings.bins]
        at = np.flatnonzero(usable & ((value > nearest) if sign > 0 else (value < nearest)))
        where, scale = rings.bins[at], pixel_norm.ravel()[at]
        counting = np.sqrt(noise.variance(np.maximum(centre[where], 0) * scale)) / scale
        skew = (threshold**2 - 1) / 6 * noise.gain / scale
        beyond = sign * (value[at] - centre[where]) > threshold * counting + skew
        outlying = np.bincount(where[beyond], minlength=rings.count)
        clipped = (outlying <= MAX_OUTLYING * statistics.pixels)[where]
        found[at[beyond & clipped]] = True
    return found.reshape(image.shape)


def without_small(regions: BoolArray, pixels: int) -> BoolArray:
    """Drop 8-connected regions of fewer than ``pixels`` pixels."""
    numbers, _ = label(regions, _EIGHT)
    large = np.bincount(numbers.ravel()) >= pixels
    large[0] = False
    return np.asarray(large[numbers], bool)
