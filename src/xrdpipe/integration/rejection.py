"""Which pixels of a frame are outliers along the azimuth: per-frame dynamic masks.

All decisions are taken on the unsplit geometry (a pixel belongs to the bin of its centre);
the variants are then integrated with the same splitting (decision 5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.integration.rings import AzimuthalStatistics, Rings
from xrdpipe.masks import with_halo
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

CLIP_CYCLES = 5
"""How often ``sigma-clip`` clips at most."""

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


def isolated_hot_pixels(
    image: NDArray[np.float32], valid: BoolArray, threshold: float, noise: PixelNoise
) -> BoolArray:
    """Pixels far above every one of their eight neighbours, shape (rows, columns).

    Works where a bin has too few pixels for azimuthal statistics.
    """
    shown = np.where(valid, image, -np.inf).astype(np.float32)

    def limit(floor: NDArray[np.float32]) -> NDArray[np.float32]:
        sigma = np.sqrt(noise.variance(floor))
        return np.asarray(floor + threshold * sigma + skewness(threshold) * noise.gain, np.float32)

    # Few pixels exceed their left and right neighbours by the factor; only those are looked at.
    suspect = shown > limit(np.zeros(1, np.float32))
    suspect[:, 1:] &= shown[:, 1:] > HOT_FACTOR * shown[:, :-1]
    suspect[:, :-1] &= shown[:, :-1] > HOT_FACTOR * shown[:, 1:]
    at = np.argwhere(suspect)
    padded = np.pad(shown, 1, constant_values=-np.inf)
    around = at[:, None, :] + 1 + np.asarray(_NEIGHBOURS)
    highest = padded[around[..., 0], around[..., 1]].max(axis=1, initial=-np.inf)
    floor = np.maximum(highest, 0)
    value = shown[at[:, 0], at[:, 1]]
    hot = np.isfinite(highest) & (value > limit(floor)) & (value > HOT_FACTOR * floor)
    found = np.zeros(image.shape, bool)
    found[at[hot, 0], at[hot, 1]] = True
    return found


def robust_outliers(
    image: NDArray[np.float32],
    norm: NDArray[np.float32],
    rings: Rings,
    valid: BoolArray,
    saturated: BoolArray,
    threshold: float,
    halo: int,
    noise: PixelNoise,
) -> BoolArray:
    """Decide the outliers of one frame, robust from 0.005 to 10⁴ counts per pixel.

    (a) isolated hot pixels; (b) values above centre + threshold · max(azimuthal width, counting
    width), the counting width being that of at least one count, so that a single count is never
    rejected, with the skewness term (t² − 1)/6 of the Poisson quantile (Cornish-Fisher), and
    their neighbours down to 2 standard deviations; (c) saturated pixels with a halo.

    Centre and azimuthal width are the largest within half a pixel (``rings.reach`` bins): on the
    flank of a sharp ring a shift of half a pixel, which no calibration excludes, is a factor in
    intensity, and the brighter pixels there are the ring itself. A bin with more than a quarter
    of its pixels beyond the threshold lies on the edge of a shadow and is left alone.

    Parameters
    ----------
    image
        Raw values minus dark, shape (rows, columns).
    norm
        Pixel normalisation (flat · solid angle · polarization), same shape.
    rings
        Which pixels lie in which bin.
    valid
        Statically valid pixels, same shape as the image.
    saturated
        Saturated pixels, same shape.
    threshold
        In standard deviations.
    halo
        Pixels.

    Returns
    -------
    BoolArray
        True = rejected (never a pixel that was not valid), shape (rows, columns).
    """
    flat_valid = valid.ravel()
    flat_norm = np.where(norm > 0, norm, 1).ravel().astype(np.float32)
    value = image.ravel() / flat_norm
    measured = flat_valid & ~saturated.ravel()
    statistics = rings.statistics(value, measured)
    centre, width, judged = ring_limits(statistics, rings.reach)
    top = float(flat_norm.max(initial=1e-6))
    fewest, _ = _counting_width(np.where(judged, centre, 0), top, threshold, noise)

    # Exact limits are computed only for pixels above the lowest limit that their bin can have:
    # two widths, or two counting widths at the largest normalisation.
    lowest = centre + 0.999 * GROWTH_THRESHOLD * np.maximum(width, fewest)
    lowest = np.append(np.where(judged, lowest, np.inf), np.inf).astype(np.float32)
    at = np.flatnonzero(flat_valid & (value > lowest[rings.bins]))  # bin −1 is the last entry
    where = rings.bins[at]
    pixel_norm = flat_norm[at]
    counting = np.sqrt(noise.variance(np.maximum(centre[where], 0) * pixel_norm)) / pixel_norm
    skew = skewness(threshold) * noise.gain / pixel_norm
    excess = value[at] - centre[where]
    beyond = excess > np.maximum(threshold * width[where], threshold * counting + skew)
    outlying = np.bincount(where[beyond], minlength=rings.count)
    clipped = (outlying <= MAX_OUTLYING * rings.pixels(measured))[where]
    rejected = isolated_hot_pixels(image, valid, threshold, noise)
    rejected.ravel()[at[beyond & clipped]] = True
    weak = np.zeros(image.shape, bool)
    weak.ravel()[at[clipped & (excess > GROWTH_THRESHOLD * np.maximum(width[where], counting))]] = (
        True
    )
    rejected = _grow(rejected, weak, halo)
    if saturated.any():
        rejected |= with_halo(saturated, halo)
    return np.asarray(rejected & valid, bool)


def ring_limits(
    statistics: AzimuthalStatistics, reach: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], BoolArray]:
    """Centre and width that a bin's pixels are compared with, and whether they are at all.

    Parameters
    ----------
    statistics
        Shape (…, bins).
    reach
        Bins within half a pixel, over which both are the largest.
    """
    from scipy.ndimage import maximum_filter1d  # late: it takes a tenth of the time to start

    size = 2 * reach + 1
    filled = statistics.pixels > 0
    widths = np.maximum(
        statistics.lower, np.minimum(statistics.upper, SKEW_LIMIT * statistics.lower)
    )
    centre = maximum_filter1d(np.where(filled, statistics.centre, -np.inf), size)
    width = maximum_filter1d(np.where(filled, widths, 0), size)
    return centre, width, statistics.pixels >= MIN_PIXELS


def lowest_outlier(
    centre: NDArray[np.float32],
    width: NDArray[np.float32],
    judged: BoolArray,
    top: float | NDArray[np.float64],
    threshold: float,
    noise: PixelNoise,
) -> NDArray[np.float32]:
    """No outlier of a bin is lower, whatever its normalisation up to ``top``; shape (…, bins)."""
    counting, skew = _counting_width(np.where(judged, centre, 0), top, threshold, noise)
    beyond = np.maximum(threshold * width, threshold * counting + skew)
    lowest = np.where(judged, centre, 0) + 0.999 * beyond
    return np.where(judged, lowest, np.inf).astype(np.float32)


def _counting_width(
    centre: NDArray[np.float32],
    top: float | NDArray[np.float64],
    threshold: float,
    noise: PixelNoise,
) -> tuple[NDArray[np.floating[Any]], float | NDArray[np.float64]]:
    """Smallest counting width, and skewness term, for normalisations up to ``top``."""
    expected = (np.maximum(centre, 0) * top).astype(np.float32)
    return np.sqrt(noise.variance(expected)) / top, skewness(threshold) * noise.gain / top


def hot_pixel_limit(threshold: float, noise: PixelNoise) -> float:
    """No isolated hot pixel has a lower signal."""
    none = np.zeros(1, np.float32)
    limit = none + threshold * np.sqrt(noise.variance(none)) + skewness(threshold) * noise.gain
    return float(limit.astype(np.float32)[0])


def sigma_clip_outliers(
    image: NDArray[np.float32],
    norm: NDArray[np.float32],
    variance: NDArray[np.float32] | None,
    rings: Rings,
    valid: BoolArray,
    threshold: float,
    cycles: int = CLIP_CYCLES,
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
    bins, n_bins = rings.bins, rings.count
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


def skewness(threshold: float) -> float:
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


def _neighbours(
    pixels: NDArray[np.intp], offsets: NDArray[np.intp], shape: tuple[int, ...]
) -> NDArray[np.intp]:
    """Return all ``pixels`` + ``offsets`` inside the image, shape (n, 2)."""
    near = (pixels[:, None, :] + offsets[None, :, :]).reshape(-1, 2)
    inside = (near >= 0).all(axis=1) & (near < np.asarray(shape)).all(axis=1)
    return np.asarray(near[inside], np.intp)
