"""Pixels grouped by the bin of their centre, and robust statistics along each ring."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.types import BoolArray

GROUP_RATIO = 1.25
"""Bins whose pixel numbers differ by no more than this are sorted together, padded with NaN."""

TAIL = 0.1587
"""Part of a normal distribution beyond one standard deviation, on one side."""


@dataclass(frozen=True)
class AzimuthalStatistics:
    """Robust centre and half-widths of the corrected intensity in each bin, shape (bins,)."""

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
    """

    def __init__(self, bins: NDArray[np.intp], count: int, shape: tuple[int, int]) -> None:
        self.bins = bins
        self.count = count
        self.reach = _pixel_reach(bins.reshape(shape))
        """Half the radial size of a pixel, in bins, rounded up."""
        order = np.argsort(bins, kind="stable")
        order = order[bins[order] >= 0]
        sizes = np.bincount(bins[order], minlength=count)
        starts = np.cumsum(sizes) - sizes
        self._groups: list[tuple[NDArray[np.intp], NDArray[np.int32]]] = []
        by_size = np.argsort(sizes, kind="stable")
        by_size = by_size[sizes[by_size] > 0]
        while by_size.size:
            limit = max(sizes[by_size[0]] * GROUP_RATIO, 8)
            group = by_size[sizes[by_size] <= limit]
            by_size = by_size[group.size :]
            # One row of pixel numbers per bin; the number after the last pixel stands for "none".
            places = np.arange(sizes[group].max())
            inside = places < sizes[group][:, None]
            rows = np.where(inside, starts[group][:, None] + places, 0)
            self._groups.append((group, np.where(inside, order[rows], bins.size).astype(np.int32)))

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
        shown = np.append(np.where(valid, value, none), none)
        pixels = np.zeros(self.count, np.intp)
        centre, lower, upper = (np.full(self.count, none) for _ in range(3))
        for group, numbers in self._groups:
            rows = np.sort(shown[numbers], axis=1)  # NaN goes to the end
            n = numbers.shape[1] - np.count_nonzero(np.isnan(rows), axis=1)
            at = np.arange(n.size)
            tail = np.floor(TAIL * np.maximum(n - 1, 0)).astype(np.intp)
            middle = (rows[at, np.maximum(n - 1, 0) // 2] + rows[at, n // 2 - (n == 0)]) / 2
            pixels[group] = n
            centre[group] = middle
            lower[group] = np.maximum(middle - rows[at, tail], 0)
            upper[group] = np.maximum(rows[at, np.maximum(n - 1 - tail, 0)] - middle, 0)
        return AzimuthalStatistics(centre, lower, upper, pixels)


def _pixel_reach(plane: NDArray[np.intp]) -> int:
    steps = []
    for one, other in ((plane[1:], plane[:-1]), (plane[:, 1:], plane[:, :-1])):
        inside = (one >= 0) & (other >= 0)
        steps.append(np.abs(one - other)[inside])
    size = np.concatenate(steps)
    return int(np.ceil(np.quantile(size, 0.95) / 2)) if size.size else 1
