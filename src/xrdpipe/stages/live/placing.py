"""Where frames lie on the map while others are still to come."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xrdpipe.config import ScanOptions
from xrdpipe.frames.names import LARGEST_NUMBER
from xrdpipe.scan import scan_positions
from xrdpipe.types import Scan

LEAST_ROW = 64
"""Pixels of a map without a shape; it doubles as frames come."""


class Placing:
    """Pixels of frames by the numbers in their names, as the finished scan will have them.

    Without ``scan_shape``, or where positions decide, the frames form one row until the scan is
    complete.

    Parameters
    ----------
    options
        Of the map.
    expected
        Number of frames to come, if known: the length of a map without a shape.
    """

    def __init__(self, options: ScanOptions, expected: int | None = None) -> None:
        self._options = options
        self._by_shape = options.scan_shape is not None and options.positions in (None, "none")
        self._expected = expected
        self._numbers: list[tuple[int, ...]] = []

    @property
    def shaped(self) -> bool:
        """True if the map has its final shape already."""
        return self._by_shape

    def add(self, numbers: tuple[int, ...]) -> None:
        """One more frame, with all numbers of its name."""
        self._numbers.append(numbers)

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx) of the map as it is now."""
        if self._by_shape and self._options.scan_shape is not None:
            return self._options.scan_shape
        row = self._expected or LEAST_ROW
        highest = int(self._points().max(initial=0))
        while highest >= row:
            row *= 2
        return 1, row

    def place(self) -> tuple[Scan, NDArray[np.int64]]:
        """The scan as it is now, and the acquisition number of each pixel's frame, −1 for none.

        ``frame_index`` counts the frames in the order in which they were added; frames beyond the
        shape have no pixel.
        """
        shape = self.shape
        options = self._options
        ways = (options.fast_axis, options.snake) if self._by_shape else ("x", False)
        points, numbers = self._points(), self._acquisition()
        inside = np.flatnonzero((points >= 0) & (points < shape[0] * shape[1]))
        where = scan_positions(shape, *ways)[points[inside]]
        frame_index = np.full(shape, -1, np.int32)
        frame_index[where[:, 0], where[:, 1]] = inside
        shown = np.where(frame_index >= 0, numbers[frame_index], -1) if inside.size else frame_index
        scan = Scan(frame_index, *ways, evidence="frames in the order in which they came")
        return scan, shown.astype(np.int64)

    def _acquisition(self) -> NDArray[np.int64]:
        """The one number that differs between the names; their order where several do."""
        columns = list(zip(*self._numbers, strict=True)) if self._alike() else []
        varying = [column for column in columns if column.count(column[0]) < len(column)]
        if len(varying) == 1 and len(set(varying[0])) == len(varying[0]):
            columns = varying
        elif len(self._numbers) > 1:
            columns = []
        if columns and max(columns[-1]) <= LARGEST_NUMBER:
            return np.array(columns[-1], np.int64)
        order = sorted(range(len(self._numbers)), key=self._numbers.__getitem__)
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(len(order))
        return ranks

    def _points(self) -> NDArray[np.int64]:
        """Point of each frame in the order of measurement, as ``scan.place_frames`` would say."""
        if not self._numbers:
            return np.empty(0, np.int64)
        numbers = self._acquisition()
        low, high = int(numbers.min()), int(numbers.max())
        if self._by_shape and self._options.first_number is not None:
            return numbers - self._options.first_number
        shape = self._options.scan_shape if self._by_shape else None
        pixels = shape[0] * shape[1] if shape else self._expected or LEAST_ROW
        base = 0 if low == 0 else 1
        return numbers - (base if high - base < pixels else low)

    def _alike(self) -> bool:
        """True if all names hold the same count of numbers."""
        return len({len(numbers) for numbers in self._numbers}) == 1
