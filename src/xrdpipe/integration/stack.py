"""What a series of frames says of each pixel, in memory that does not grow with the series.

The frames are summed in up to seven consecutive parts. The median of the parts' means is the
median over the stack for up to seven frames; beyond, it is the median of means: as robust against
what happens in a few frames (zingers, passing grains), and sensitive at low counts, where the
median of single frames is zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from xrdpipe.integration.rejection import PixelNoise, isolated_hot_pixels
from xrdpipe.types import BoolArray

PARTS = 7
"""Parts of the series; odd, so that the median is one of them."""

MEDIAN_VARIANCE = np.pi / 2
"""Variance of a median over that of the mean, for normal noise."""

DEAD_COUNTS = 20.0
"""Counts a pixel should have seen, by its neighbours, before its silence means that it is dead."""

DEAD_SILENT = 0.3
"""Up to this part of a dead pixel's neighbours may be silent too: a dead row is found (4 of 24),
the edge and the corner of a shadow are not (8 of 24 and more)."""

_AROUND = np.array(
    [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3) if (dy, dx) != (0, 0)], np.intp
)


class FrameStack:
    """Sums of a series of frames.

    Parameters
    ----------
    shape
        Rows and columns.
    frames
        How many frames will come; some may turn out unreadable.
    """

    def __init__(self, shape: tuple[int, int], frames: int) -> None:
        self.shape = shape
        self.frames = 0
        """Frames added so far."""
        self._expected = frames
        parts = min(frames, PARTS)
        self._sums = np.zeros((parts, *shape), np.float32)
        self._seen = np.zeros((parts, *shape), np.uint16)

    def add(self, place: int, image: NDArray[Any], valid: BoolArray) -> None:
        """Take one frame in.

        Parameters
        ----------
        place
            Its place among the frames expected, from 0.
        image
            Raw values, shape (rows, columns).
        valid
            Pixels that carry a measurement, same shape.
        """
        part = place * len(self._sums) // self._expected
        np.add(self._sums[part], image, out=self._sums[part], where=valid, casting="unsafe")
        self._seen[part] += valid
        self.frames += 1

    @property
    def measured(self) -> NDArray[np.intp]:
        """In how many frames each pixel carried a measurement, shape (rows, columns)."""
        return np.asarray(self._seen.sum(axis=0, dtype=np.intp))

    @property
    def total(self) -> NDArray[np.float64]:
        """Sum over the frames, raw counts, shape (rows, columns)."""
        return np.asarray(self._sums.sum(axis=0, dtype=np.float64))

    @property
    def mean(self) -> NDArray[np.float32]:
        """Mean over the frames, raw counts, shape (rows, columns); NaN where never measured."""
        return _ratio(self.total, self.measured)

    @property
    def median(self) -> NDArray[np.float32]:
        """Median of the parts' means, raw counts, shape (rows, columns); NaN where unmeasured."""
        median = np.empty(self.shape, np.float32)
        rows = max(1, (1 << 20) // self.shape[1])
        for first in range(0, self.shape[0], rows):  # bands, to sort a few pixels at a time
            band = slice(first, first + rows)
            values = np.sort(_ratio(self._sums[:, band], self._seen[:, band]), axis=0)
            n = np.count_nonzero(np.isfinite(values), axis=0)[None]
            low = np.take_along_axis(values, np.maximum(n - 1, 0) // 2, axis=0)[0]
            high = np.take_along_axis(values, n // 2, axis=0)[0]
            median[band] = (low + high) / 2
        return median

    def median_noise(self, noise: PixelNoise) -> PixelNoise:
        """Noise of the median, given that of one frame."""
        # A mean of n frames is a detector of 1/n ADU per photon.
        frames = max(self.frames, 1) / (MEDIAN_VARIANCE if len(self._sums) > 2 else 1.0)
        return PixelNoise(noise.gain / frames, noise.read_noise / np.sqrt(frames))

    def hot_pixels(self, threshold: float, noise: PixelNoise) -> BoolArray:
        """Isolated hot pixels (as ``robust`` finds them) in more than half of the parts."""
        votes = np.zeros(self.shape, np.int8)
        for image, seen in self._parts():
            frames = int(seen.max())
            mean_noise = PixelNoise(noise.gain / frames, noise.read_noise / np.sqrt(frames))
            hot = isolated_hot_pixels(image, seen > 0, threshold, mean_noise)
            votes += np.where(hot, 1, np.where(seen > 0, -1, 0)).astype(np.int8)
        return votes > 0

    def dead_pixels(self) -> BoolArray:
        """Pixels that read zero in every frame where most of their neighbours see many counts."""
        seen = self.measured > 0
        total = np.where(seen, self.total, 0)
        silent = seen & (total <= 0)
        # Few silent pixels lie among enough counts; only those are looked at.
        lit = uniform_filter((total >= DEAD_COUNTS).astype(np.float32), 5, mode="constant")
        part = uniform_filter(seen.astype(np.float32), 5, mode="constant")
        at = np.argwhere(silent & (lit > (1 - DEAD_SILENT) * part * 0.9))
        padded = np.pad(np.where(seen, total, np.nan), 2, constant_values=np.nan)
        around = at[:, None, :] + 2 + _AROUND
        near = padded[around[..., 0], around[..., 1]]
        known = np.count_nonzero(np.isfinite(near), axis=1)
        quiet = np.count_nonzero(near < DEAD_COUNTS, axis=1)
        found = at[(known > 0) & (quiet <= DEAD_SILENT * known)]
        dead = np.zeros(self.shape, bool)
        dead[found[:, 0], found[:, 1]] = True
        return dead

    def _parts(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint16]]]:
        """(mean, frames per pixel) of every part that holds a frame."""
        for total, seen in zip(self._sums, self._seen, strict=True):
            if seen.any():
                yield _ratio(total, seen, empty=0), seen


def _ratio(
    total: NDArray[np.floating[Any]], number: NDArray[np.integer[Any]], empty: float = np.nan
) -> NDArray[np.float32]:
    mean = np.full(total.shape, empty, np.float32)
    np.divide(total, number, out=mean, where=number > 0, casting="unsafe")
    return mean
