"""Which pixels of a frame are outliers along the azimuth: per-frame dynamic masks.

All decisions are taken on the unsplit geometry (a pixel belongs to the bin of its centre);
the variants are then integrated with the same splitting (decision 5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from xrdpipe.types import BoolArray

MIN_PIXELS = 8
"""A bin with fewer valid pixels has no azimuthal statistics worth clipping on."""

GROWTH_THRESHOLD = 2.0
"""A neighbour of a rejected pixel is rejected from this many standard deviations on."""

SKEW_LIMIT = 2.0
"""The upper half-width counts up to this multiple of the lower one: a ring of many grains is
skewed, and its bright side is powder, not outliers; beyond, it is spots that widen it."""

MAX_OUTLYING = 0.25
"""A bin with a larger fraction beyond the threshold is a shadow's edge, not a ring with spots:
nothing in it is clipped."""

HOT_FACTOR = 3.0
"""An isolated hot pixel exceeds all its neighbours by this factor: no point spread does."""

_NEIGHBOURS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0))


@dataclass(frozen=True)
class PixelNoise:
    """Variance of a raw pixel value: gain · expected + read_noise².

    Photon counters have gain 1 and no read noise; then variance = expected counts (Poisson).
    """

    gain: float = 1.0
    read_noise: float = 0.0

    def variance(self, expected: NDArray[np.float32]) -> NDArray[np.float32]:
        """Variance of raw values whose expectation is given, at least that of one photon."""
        return np.asarray(
            self.gain * np.maximum(expected, self.gain) + self.read_noise**2, np.float32
        )


POISSON = PixelNoise()


@dataclass(frozen=True)
class AzimuthalStatistics:
    """Robust centre and half-widths of the corrected intensity in each bin, shape (bins,)."""

    centre: NDArray[np.float32]
    lower: NDArray[np.float32]
    upper: NDArray[np.float32]
    pixels: NDArray[np.intp]


def azimuthal_statistics(
    value: NDArray[np.float32], bins: NDArray[np.intp], valid: BoolArray, n_bins: int
) -> AzimuthalStatistics:
    """Median and half-widths (to the 15.87 % and 84.13 % quantiles) of each bin.

    For a normal distribution both half-widths equal the standard deviation. Spots lift only the
    upper side, so the lower half-width stays that of the ring under them.

    Parameters
    ----------
    value
        Corrected intensity, shape (pixels,).
    bins
        Bin of each pixel, −1 outside, shape (pixels,).
    valid
        Pixels to use, shape (pixels,).
    """
    use = valid & (bins >= 0)
    used_bins = bins[use]
    # One sort of (bin, value) pairs as 64-bit keys: an IEEE float orders like an integer once
    # the sign is folded. NaN never reaches this point (not valid).
    raw = value[use].view(np.uint32)
    ordered = np.where(raw >> 31, ~raw, raw | np.uint32(0x80000000))
    keys = (used_bins.astype(np.uint64) << np.uint64(32)) | ordered
    keys.sort()
    low = (keys & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    values = np.where(low >> 31, low & np.uint32(0x7FFFFFFF), ~low).view(np.float32)
    pixels = np.bincount(used_bins, minlength=n_bins)
    start = np.concatenate([[0], np.cumsum(pixels)[:-1]])
    filled = pixels > 0
    last = max(values.size - 1, 0)

    def order_statistic(position: NDArray[np.intp]) -> NDArray[np.float32]:
        result = np.full(n_bins, np.nan, np.float32)
        if values.size:
            result[filled] = values[np.minimum(start + position, last)[filled]]
        return result

    middle = order_statistic((pixels - 1) // 2) + order_statistic(pixels // 2)
    centre = np.asarray(middle / 2, np.float32)
    tail = np.floor(0.1587 * (pixels - 1)).clip(0).astype(np.intp)
    lower = np.maximum(centre - order_statistic(tail), 0)
    upper = np.maximum(order_statistic(np.maximum(pixels - 1 - tail, 0)) - centre, 0)
    return AzimuthalStatistics(centre, lower, upper, pixels)


def pixel_reach(bins: NDArray[np.intp], shape: tuple[int, int]) -> int:
    """Half the radial size of a pixel, in bins, rounded up.

    Parameters
    ----------
    bins
        Bin of each pixel centre, shape (pixels,), −1 outside.
    """
    plane = bins.reshape(shape)
    steps = []
    for one, other in ((plane[1:], plane[:-1]), (plane[:, 1:], plane[:, :-1])):
        inside = (one >= 0) & (other >= 0)
        steps.append(np.abs(one - other)[inside])
    size = np.concatenate(steps)
    return int(np.ceil(np.quantile(size, 0.95) / 2)) if size.size else 1


def isolated_hot_pixels(
    image: NDArray[np.float32], valid: BoolArray, threshold: float, noise: PixelNoise
) -> BoolArray:
    """Pixels far above every one of their eight neighbours, shape (rows, columns).

    Works where a bin has too few pixels for azimuthal statistics.
    """
    shown = np.where(valid, image, -np.inf).astype(np.float32)
    padded = np.pad(shown, 1, constant_values=-np.inf)
    rows, columns = image.shape
    highest = np.full(image.shape, -np.inf, np.float32)
    for dy, dx in _NEIGHBOURS:
        np.maximum(highest, padded[1 + dy : 1 + dy + rows, 1 + dx : 1 + dx + columns], out=highest)
    surrounded = np.isfinite(highest)
    highest[~surrounded] = 0
    floor = np.maximum(highest, 0)
    limit = floor + threshold * np.sqrt(noise.variance(floor)) + _skew(threshold) * noise.gain
    return np.asarray(valid & surrounded & (shown > limit) & (shown > HOT_FACTOR * floor), bool)


def robust_outliers(
    image: NDArray[np.float32],
    norm: NDArray[np.float32],
    bins: NDArray[np.intp],
    n_bins: int,
    valid: BoolArray,
    saturated: BoolArray,
    threshold: float,
    halo: int,
    noise: PixelNoise,
    reach: int = 1,
) -> BoolArray:
    """Decide the outliers of one frame, robust from 0.005 to 10⁴ counts per pixel.

    (a) isolated hot pixels; (b) values above centre + threshold · max(azimuthal width, counting
    width), the counting width being that of at least one count, so that a single count is never
    rejected, with the skewness term (t² − 1)/6 of the Poisson quantile (Cornish-Fisher), and
    their neighbours down to 2 standard deviations; (c) saturated pixels with a halo.

    Centre and azimuthal width are the largest within ``reach`` bins: on the flank of a sharp
    ring a shift of half a pixel, which no calibration excludes, is a factor in intensity, and
    the brighter pixels there are the ring itself. A bin with more than a quarter of its pixels
    beyond the threshold lies on the edge of a shadow and is left alone.

    Parameters
    ----------
    image
        Raw values minus dark, shape (rows, columns).
    norm
        Pixel normalisation (flat · solid angle · polarization), same shape.
    bins
        Bin of each pixel centre, shape (pixels,), −1 outside.
    valid
        Statically valid pixels, same shape as the image.
    saturated
        Saturated pixels, same shape.
    threshold
        In standard deviations.
    halo
        Pixels.
    reach
        Bins by which a ring may lie off its calculated place (see :func:`pixel_reach`).

    Returns
    -------
    BoolArray
        True = rejected (never a pixel that was not valid), shape (rows, columns).
    """
    flat_valid = valid.ravel()
    flat_norm = np.where(norm > 0, norm, 1).ravel().astype(np.float32)
    value = image.ravel() / flat_norm
    statistics = azimuthal_statistics(value, bins, flat_valid & ~saturated.ravel(), n_bins)
    inside = flat_valid & (bins >= 0)
    where = np.maximum(bins, 0)
    judged = inside & (statistics.pixels >= MIN_PIXELS)[where]
    size = 2 * reach + 1
    filled = statistics.pixels > 0
    widths = np.maximum(
        statistics.lower, np.minimum(statistics.upper, SKEW_LIMIT * statistics.lower)
    )
    centre = maximum_filter1d(np.where(filled, statistics.centre, -np.inf), size)[where]
    centre[~judged] = 0
    width = maximum_filter1d(np.where(filled, widths, 0), size)[where]
    counting = np.sqrt(noise.variance(np.maximum(centre, 0) * flat_norm)) / flat_norm
    excess = value - centre
    skew = _skew(threshold) * noise.gain / flat_norm
    clipped = judged & (excess > np.maximum(threshold * width, threshold * counting + skew))
    outlying = np.bincount(bins[clipped], minlength=n_bins)
    judged &= (outlying <= MAX_OUTLYING * statistics.pixels)[where]
    clipped &= judged
    rejected = clipped.reshape(image.shape) | isolated_hot_pixels(image, valid, threshold, noise)
    weak = judged & (excess > GROWTH_THRESHOLD * np.maximum(width, counting))
    rejected = _grow(rejected, weak.reshape(image.shape), halo)
    if saturated.any():
        rejected |= _dilate(saturated, halo)
    return np.asarray(rejected & valid, bool)


def sigma_clip_outliers(
    image: NDArray[np.float32],
    norm: NDArray[np.float32],
    variance: NDArray[np.float32] | None,
    bins: NDArray[np.intp],
    n_bins: int,
    valid: BoolArray,
    threshold: float,
    cycles: int = 5,
) -> BoolArray:
    """Reproduce the decisions of pyFAI's ``sigma_clip`` without pixel splitting.

    Two-sided clipping at max(threshold, Chauvenet's criterion) standard deviations around the
    mean, up to five times; the deviation is the azimuthal one, or comes from ``variance``.

    Parameters
    ----------
    variance
        Poisson variance per pixel, shape (rows, columns); None = azimuthal model.

    Returns
    -------
    BoolArray
        True = rejected, shape (rows, columns).
    """
    use = np.flatnonzero(valid.ravel() & (bins >= 0) & (norm.ravel() > 0))
    use = use[np.argsort(bins[use], kind="stable")]  # bin by bin, in pyFAI's order of pixels
    where = bins[use]
    signal = image.ravel()[use].astype(np.float64)
    weight = norm.ravel()[use].astype(np.float64)
    spread = None if variance is None else variance.ravel()[use].astype(np.float64)
    keep = np.ones(use.size, bool)

    def total(quantity: NDArray[np.float64]) -> NDArray[np.float64]:
        kept = np.where(keep, quantity, 0.0)
        return np.asarray(np.bincount(where, kept, minlength=n_bins), np.float64)

    with np.errstate(divide="ignore", invalid="ignore"):
        value = signal / weight
        for _ in range(cycles):
            count = np.bincount(where, keep, minlength=n_bins)
            mean = total(signal) / total(weight)
            square = _running_square(signal, weight, where, keep) if spread is None else spread
            std = np.sqrt(total(square) / total(weight**2))
            chauvenet = np.sqrt(2 * np.log(np.maximum(count, 3) / np.sqrt(2 * np.pi)))
            limit = np.maximum(threshold, chauvenet) * std
            outlying = keep & ~(np.abs(value - mean[where]) <= limit[where])
            if not outlying.any():
                break
            keep &= ~outlying
    rejected = np.zeros(image.size, bool)
    rejected[use[~keep]] = True
    return rejected.reshape(image.shape)


def _running_square(
    signal: NDArray[np.float64],
    weight: NDArray[np.float64],
    where: NDArray[np.intp],
    keep: BoolArray,
) -> NDArray[np.float64]:
    """Each pixel's part of pyFAI's one-pass azimuthal variance, for pixels sorted by bin.

    w²·(x − mean before)·(x − mean with this pixel): it depends on the order of the pixels and
    differs from the two-pass sum by enough to decide at the threshold.
    """
    first = np.flatnonzero(np.diff(where, prepend=-1))
    length = np.diff(first, append=where.size)

    def with_this(quantity: NDArray[np.float64]) -> NDArray[np.float64]:
        running = np.cumsum(quantity)
        before_bin = running[first] - quantity[first]
        return np.asarray(running - np.repeat(before_bin, length), np.float64)

    kept_weight = np.where(keep, weight, 0.0)
    kept_signal = np.where(keep, signal, 0.0)
    total_weight, total_signal = with_this(kept_weight), with_this(kept_signal)
    value = signal / weight
    before = (total_signal - kept_signal) / (total_weight - kept_weight)
    product = kept_weight**2 * (value - before) * (value - total_signal / total_weight)
    alone = with_this(keep.astype(np.float64)) == 1  # the first pixel of a bin has no variance
    return np.where(keep & ~alone, product, 0.0)


def _skew(threshold: float) -> float:
    """Cornish-Fisher skewness term of a Poisson quantile, in counts."""
    return (threshold**2 - 1) / 6


def _grow(seed: BoolArray, candidate: BoolArray, steps: int) -> BoolArray:
    """Grow ``seed`` into 8-connected ``candidate`` pixels, at most ``steps`` times."""
    grown = seed.copy()
    front = np.argwhere(seed)
    for _ in range(steps):
        if not front.size:
            break
        front = _neighbours(front, np.asarray(_NEIGHBOURS), seed.shape)
        fresh = candidate[front[:, 0], front[:, 1]] & ~grown[front[:, 0], front[:, 1]]
        front = np.unique(front[fresh], axis=0)
        grown[front[:, 0], front[:, 1]] = True
    return grown


def _dilate(seed: BoolArray, radius: int) -> BoolArray:
    """Grow ``seed`` by a disc of ``radius`` pixels."""
    grown = seed.copy()
    if radius:
        reach = np.arange(-radius, radius + 1)
        dy, dx = np.meshgrid(reach, reach, indexing="ij")
        disc = np.argwhere(dy**2 + dx**2 <= radius**2) - radius
        spread = _neighbours(np.argwhere(seed), disc, seed.shape)
        grown[spread[:, 0], spread[:, 1]] = True
    return grown


def _neighbours(
    pixels: NDArray[np.intp], offsets: NDArray[np.intp], shape: tuple[int, ...]
) -> NDArray[np.intp]:
    """Return all ``pixels`` + ``offsets`` inside the image, shape (n, 2)."""
    near = (pixels[:, None, :] + offsets[None, :, :]).reshape(-1, 2)
    inside = (near >= 0).all(axis=1) & (near < np.asarray(shape)).all(axis=1)
    return np.asarray(near[inside], np.intp)
