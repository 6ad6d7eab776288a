"""Shadows of beamstop, its arm and the cell: large dark regions of the mean of a series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import grey_opening, uniform_filter

from xrdpipe.errors import InputError
from xrdpipe.integration.masking import without_small
from xrdpipe.masks import with_halo
from xrdpipe.types import BoolArray

SIGNIFICANCE = (6.0, 3.0)
"""By how many standard deviations of a window the background lies above the limit: wanted in most
rings, needed in each; that a region of many windows must be dark guards against noise, too."""

WINDOWS = (3, 31)
"""Smallest and largest width of the window that brightness is averaged over, pixels."""

MIN_REGION = 2
"""Smallest shadow, in windows (and 64 pixels)."""

LIT_QUANTILE = 0.8
"""The lit part of a ring: shadows may cover four fifths of its azimuth."""

MIN_RING = 20
"""A ring with fewer pixels tells nothing of its own."""

BUMP = 0.1
"""Diffraction lines are narrower than this part of the radial range; background is wider."""

EDGE = 10
"""The edge of a shadow is steeper than this many pixels (and the window); background is not."""


BLOCKS = 4
"""Blocks of the image per side, in which level and noise of a ring are compared."""


@dataclass(frozen=True)
class _Rings:
    """Rings one pixel wide.

    Parameters
    ----------
    number
        Of each pixel's ring, shape (rows, columns).
    count
        How many rings.
    block
        Which part of the image a pixel lies in, shape (rows, columns).
    """

    number: NDArray[np.int32]
    count: int
    block: NDArray[np.int32]

    @property
    def bump(self) -> int:
        """Rings across the broadest diffraction line, odd."""
        return max(int(BUMP * self.count), 21) | 1


def shadows(
    image: NDArray[np.float32],
    norm: NDArray[np.float32],
    two_theta: NDArray[np.float64],
    valid: BoolArray,
    fraction: float,
    photon: float,
) -> BoolArray:
    """Connected regions below ``fraction`` of the background expected at their 2θ.

    Dark arcs of a textured ring still show the background, and only brightness below the
    background makes a shadow: the expectation is the lit part of each ring (a high quantile along
    the azimuth) with the diffraction lines taken off (an opening along 2θ). Where a whole ring is
    dark (beamstop, aperture) behind a steep edge, the expectation is carried over from before the
    edge. Brightness is averaged over a window as wide as the noise of the image asks for.

    Parameters
    ----------
    image
        Mean of the series, raw values, shape (rows, columns).
    norm
        Pixel normalisation, same shape.
    two_theta
        Degrees, same shape.
    valid
        Pixels that carry a measurement, same shape.
    fraction
        0-1.
    photon
        What one photon adds to the mean: the gain over the number of frames.

    Raises
    ------
    InputError
        If the background holds too few counts.
    """
    value = (np.where(valid, image, 0) / np.where(norm > 0, norm, 1)).astype(np.float32)
    rings = _rings(two_theta)
    level, variance = _level(value, valid, rings), _variance(value, valid, rings)
    # Spots must neither raise the expectation nor light up a shadow that they lie beside.
    highest = 2 * level + 10 * np.sqrt(np.maximum(variance, photon * level))
    value = np.minimum(value, highest.astype(np.float32)[rings.number])
    filled = np.bincount(rings.number[valid], minlength=rings.count) >= MIN_RING
    wanted, needed = SIGNIFICANCE
    background = np.maximum(_without_lines(level, rings.bump), 1e-12)
    noise = np.sqrt(np.maximum(variance, photon * background))
    widths = (wanted * noise / ((1 - fraction) * background))[filled]
    width = int(np.clip(np.ceil(np.median(widths)), *WINDOWS)) | 1 if widths.size else 3
    smooth, known = _average(value, valid, width)
    expected = _expected(smooth, known, rings, fraction, width)
    noise = np.sqrt(np.maximum(variance, photon * expected))
    judged = (expected > 0) & ((1 - fraction) * expected * width >= needed * noise)
    if not np.mean(judged[filled]) > 0.25:
        raise InputError(
            f"--shadow {fraction:g}: the background ({np.median(expected[filled]):.2g} per pixel "
            f"in the mean of the frames) is too faint to tell a shadow from noise in a window of "
            f"{width} pixels; raise --sample, or draw the shadow as --polygon."
        )
    dark = known & (smooth < np.where(judged, fraction * expected, -np.inf)[rings.number])
    dark = without_small(dark, max(MIN_REGION * width**2, 64))
    # A blurred edge crosses one half where it lies, a smaller fraction further inside.
    growth = 2 + max(int(np.ceil((0.5 - fraction) * width)), 0)
    return np.asarray(with_halo(dark, growth) & valid, bool)


def _rings(two_theta: NDArray[np.float64]) -> _Rings:
    pixel = np.median(np.hypot(*np.gradient(two_theta)))
    number = np.asarray((two_theta - two_theta.min()) / pixel, np.int32)
    rows, columns = ((np.arange(n) * BLOCKS // n).astype(np.int32) for n in two_theta.shape)
    return _Rings(number, int(number.max()) + 1, rows[:, None] * BLOCKS + columns)


def _level(value: NDArray[np.float32], valid: BoolArray, rings: _Rings) -> NDArray[np.float64]:
    """Mean brightness of the lit part of each ring, shape (rings,)."""
    return _of_lit_blocks(value[valid], rings.number[valid], rings.block[valid], rings.count)


def _variance(value: NDArray[np.float32], valid: BoolArray, rings: _Rings) -> NDArray[np.float64]:
    """Variance of one pixel of the background on each ring, from its neighbour's."""
    both = valid[:, 1:] & valid[:, :-1]
    square = (value[:, 1:] - value[:, :-1])[both].astype(np.float64) ** 2 / 2
    where, block = rings.number[:, 1:][both], rings.block[:, 1:][both]
    variance = _of_lit_blocks(square, where, block, rings.count)
    return _without_lines(variance, rings.bump)


def _of_lit_blocks(
    values: NDArray[np.floating[Any]],
    number: NDArray[np.int32],
    block: NDArray[np.int32],
    count: int,
) -> NDArray[np.float64]:
    """Mean of each ring in each block of the image, and of the blocks a high quantile.

    Spots spoil few blocks, shadows not all; shape (rings,).
    """
    cell = number * BLOCKS**2 + block
    pixels = np.bincount(cell, minlength=count * BLOCKS**2)
    total = np.bincount(cell, values, minlength=count * BLOCKS**2)
    mean = np.where(pixels >= MIN_RING, total / np.maximum(pixels, 1), np.nan)
    ordered = np.sort(mean.reshape(count, BLOCKS**2), axis=1)  # NaN goes to the end
    blocks = np.count_nonzero(np.isfinite(ordered), axis=1)
    judged = np.flatnonzero(blocks)
    if not judged.size:
        return np.full(count, float(values.mean()) if values.size else 0.0)
    place = np.floor(LIT_QUANTILE * (blocks[judged] - 1)).astype(np.intp)
    return np.asarray(np.interp(np.arange(count), judged, ordered[judged, place]), np.float64)


def _without_lines(profile: NDArray[np.float64], bump: int) -> NDArray[np.float64]:
    """Take off what is narrower than ``bump`` rings."""
    return np.asarray(grey_opening(profile, (bump,), mode="nearest"))


def _average(
    value: NDArray[np.float32], valid: BoolArray, width: int
) -> tuple[NDArray[np.float32], BoolArray]:
    """Mean over a square window of valid pixels, and where enough of the window is valid."""
    weight = uniform_filter(valid.astype(np.float32), width, mode="constant")
    total = uniform_filter(np.where(valid, value, 0).astype(np.float32), width, mode="constant")
    known = weight > 0.2
    return np.divide(total, weight, out=np.zeros_like(total), where=known), known


def _expected(
    smooth: NDArray[np.float32], known: BoolArray, rings: _Rings, fraction: float, width: int
) -> NDArray[np.float64]:
    """Brightness of the unshadowed background on each ring, shape (rings,)."""
    number, values = rings.number[known], smooth[known]
    ordered = values[np.lexsort((values, number))]
    pixels = np.bincount(number, minlength=rings.count)
    place = np.floor(LIT_QUANTILE * np.maximum(pixels - 1, 0)).astype(np.intp)
    place += np.cumsum(pixels) - pixels
    judged = np.flatnonzero(pixels >= min(MIN_RING, pixels.max()))
    lit = np.interp(np.arange(rings.count), judged, ordered[place[judged]])
    lit = _without_lines(lit, max(2 * width + 1, rings.bump))
    outwards = _carried(lit, fraction, EDGE + width)
    inwards = _carried(lit[::-1], fraction, EDGE + width)[::-1]
    return np.maximum(outwards, inwards)


def _carried(lit: NDArray[np.float64], fraction: float, edge: int) -> NDArray[np.float64]:
    """Brightness from left to right; after a fall within ``edge`` rings, that of before it."""
    carried = lit.copy()
    for k in range(1, lit.size):
        before = carried[max(k - edge, 0) : k].max()
        if lit[k] < fraction * before:
            carried[k] = before
    return carried
