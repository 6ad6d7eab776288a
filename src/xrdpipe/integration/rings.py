"""Pixels grouped by the bin of their centre, and robust statistics along each ring."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from xrdpipe.types import BoolArray

GROUP_RATIO = 1.25
"""Bins whose pixel numbers differ by no more than this are sorted together, padded with NaN."""

TAIL = 0.1587
"""Part of a normal distribution beyond one standard deviation, on one side."""


SAMPLES = 512
"""Pixels of a ring that its statistics are taken of: the median is then known to 1.25 σ / √512."""


@dataclass(frozen=True)
class AzimuthalStatistics:
    """Robust centre and half-widths of the corrected intensity in each bin, shape (bins,).

    ``pixels``: how many they were taken of.
    """

    centre: NDArray[np.float32]
    lower: NDArray[np.float32]
    upper: NDArray[np.float32]
    pixels: NDArray[np.intp]


class Rings:
    """Which pixels lie in which bin, without splitting; made once per geometry and binning.

    Parameters
    ----------
    bins
        Bin of each pixel centre, −1 outside, shape (pixels,).
    count
        Number of bins.
    shape
        Rows and columns of a frame.
    usable
        Pixels that frames may have a value in, shape (pixels,); None = all.
    samples
        Take statistics of at most so many of a bin's usable pixels, always the same; None = of all.
    """

    def __init__(
        self,
        bins: NDArray[np.intp],
        count: int,
        shape: tuple[int, int],
        usable: BoolArray | None = None,
        samples: int | None = None,
    ) -> None:
        self.bins = bins
        self.count = count
        self.reach = pixel_reach(bins.reshape(shape))
        """Half the radial size of a pixel, in bins, rounded up."""
        self.sampled, sizes = _sample(bins, count, usable, samples)
        """Pixels that statistics are taken of, bin by bin."""
        self.sample_start = np.concatenate([[0], np.cumsum(sizes)])
        """First of each bin in ``sampled``, shape (bins + 1,)."""
        starts = self.sample_start[:-1]
        self._groups: list[tuple[NDArray[np.intp], NDArray[np.int32], BoolArray]] = []
        by_size = np.argsort(sizes, kind="stable")
        by_size = by_size[sizes[by_size] > 0]
        while by_size.size:
            limit = max(sizes[by_size[0]] * GROUP_RATIO, 8)
            group = by_size[sizes[by_size] <= limit]
            by_size = by_size[group.size :]
            places = np.arange(sizes[group].max())
            inside = places < sizes[group][:, None]
            rows = np.where(inside, starts[group][:, None] + places, starts[group][:, None])
            self._groups.append((group, self.sampled[rows].astype(np.int32), inside))

    def pixels(self, valid: BoolArray) -> NDArray[np.intp]:
        """Valid pixels in each bin, shape (bins,)."""
        out = np.flatnonzero(~valid)
        return self._sizes - np.bincount(self.bins[out] + 1, minlength=self.count + 1)[1:]

    @cached_property
    def _sizes(self) -> NDArray[np.intp]:
        return np.bincount(self.bins + 1, minlength=self.count + 1)[1:]

    def statistics(self, value: NDArray[np.float32], valid: BoolArray) -> AzimuthalStatistics:
        """Median and half-widths (to the 15.87 % and 84.13 % quantiles) of each bin.

        For a normal distribution both half-widths equal the standard deviation. Spots lift only
        the upper side, so the lower half-width stays that of the ring under them.

        Parameters
        ----------
        value
            Corrected intensity, shape (pixels,).
        valid
            Pixels to use, same shape.
        """
        none = np.float32(np.nan)
        pixels = np.zeros(self.count, np.intp)
        centre, lower, upper = (np.full(self.count, none) for _ in range(3))
        for group, numbers, inside in self._groups:
            rows = np.where(inside & valid[numbers], value[numbers], none)
            rows.sort(axis=1)  # NaN goes to the end
            n = numbers.shape[1] - np.count_nonzero(np.isnan(rows), axis=1)
            at = np.arange(n.size)
            tail = np.floor(TAIL * np.maximum(n - 1, 0)).astype(np.intp)
            middle = (rows[at, np.maximum(n - 1, 0) // 2] + rows[at, n // 2 - (n == 0)]) / 2
            pixels[group] = n
            centre[group] = middle
            lower[group] = np.maximum(middle - rows[at, tail], 0)
            upper[group] = np.maximum(rows[at, np.maximum(n - 1 - tail, 0)] - middle, 0)
        return AzimuthalStatistics(centre, lower, upper, pixels)


def _sample(
    bins: NDArray[np.intp], count: int, usable: BoolArray | None, samples: int | None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pixel numbers bin by bin, at most ``samples`` in each, and how many each bin has.

    Which ones depends on nothing but the number of a pixel and which others are usable. They are
    spread at random: a regular choice would meet the columns of a detector's modules.
    """
    inside = bins >= 0 if usable is None else (bins >= 0) & usable
    number = np.flatnonzero(inside)
    order = bins[number].astype(np.uint64) << np.uint64(32) | _scattered(number)
    number = number[np.argsort(order)]
    sizes = np.bincount(bins[number], minlength=count)
    if samples is None:
        return number, sizes
    rank = np.arange(number.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return number[rank < samples], np.minimum(sizes, samples)


def _scattered(number: NDArray[np.intp]) -> NDArray[np.uint64]:
    """Another 32-bit number for each, without order and without repetition.

    Multiplications by odd constants and shifts by half of the bits, as hash functions end.
    """
    mixed = number.astype(np.uint32)
    for factor in (0x9E3779B1, 0x85EBCA77):
        mixed = (mixed ^ mixed >> np.uint32(16)) * np.uint32(factor)
    return (mixed ^ mixed >> np.uint32(16)).astype(np.uint64)


def pixel_reach(plane: NDArray[np.intp]) -> int:
    """Half the radial size of a pixel in bins, rounded up; bins of shape (rows, columns)."""
    steps = []
    for one, other in ((plane[1:], plane[:-1]), (plane[:, 1:], plane[:, :-1])):
        inside = (one >= 0) & (other >= 0)
        steps.append(np.abs(one - other)[inside])
    size = np.concatenate(steps)
    return int(np.ceil(np.quantile(size, 0.95) / 2)) if size.size else 1
