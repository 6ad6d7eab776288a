"""What is known of a series before its first frame is written."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.scan import scan_positions
from xrdpipe.types import BoolArray, IntArray

PIXEL_MASK_GAP, PIXEL_MASK_DEAD, PIXEL_MASK_HOT = 1, 2, 8
"""Bits of an NXdetector ``pixel_mask``: gap, dead, over-responding."""

MONITOR = "I0"
"""Name of the beam monitor, in every layout that has a place for it."""

START = "2000-01-01T00:00:00+00:00"
"""Where a layout needs a date: the same frames give the same files, whenever they are written."""

UNBROKEN = 100
"""Frames per file of multi-frame formats, where no scan tells the length of a line."""

LARGEST_FILE = 2**32 - 2**26
"""Bytes: offsets in a TIFF have 32 bits."""


@dataclass(frozen=True)
class DetectorDescription:
    """What a detector writes about itself.

    Parameters
    ----------
    name
        For example ``Pilatus300k``.
    pixel_size
        (rows direction, columns direction), m.
    distance
        Sample to detector, m.
    wavelength
        In Å.
    beam_centre
        (column, row) of the direct beam, pixels.
    saturation
        Raw counts at and above which a pixel is saturated.
    pixel_mask
        Shape (rows, columns), bits as above, 0 = good.
    exposure
        Exposure time, s.
    """

    name: str
    pixel_size: tuple[float, float]
    distance: float
    wavelength: float
    beam_centre: tuple[float, float]
    saturation: int
    pixel_mask: NDArray[np.uint32]
    exposure: float = 1.0

    @property
    def camera(self) -> str:
        """Name that a control system gives it: ``pilatus``."""
        match = re.match("[a-z]+", self.name.lower())
        return match.group() if match else "detector"


@dataclass(frozen=True)
class ScanDescription:
    """Where the sample stood and how much beam there was, frame by frame.

    Parameters
    ----------
    shape
        (ny, nx).
    positions
        Shape (frames, 2): x (to the right) and y (downward) of each frame, in the order of
        measurement.
    monitor
        Shape (frames,): beam monitor in the same order; None = none was recorded.
    fast_axis, snake
        How the scan ran, as in :func:`xrdpipe.scan.scan_positions`.
    motors
        Names of x and y.
    units
        Of the positions.
    """

    shape: tuple[int, int]
    positions: NDArray[np.float64]
    monitor: NDArray[np.float64] | None = None
    fast_axis: str = "x"
    snake: bool = False
    motors: tuple[str, str] = ("samx", "samy")
    units: str = "mm"

    @classmethod
    def regular(
        cls,
        shape: tuple[int, int],
        step: float = 0.005,
        *,
        monitor: NDArray[np.float64] | None = None,
        fast_axis: str = "x",
        snake: bool = False,
    ) -> ScanDescription:
        """A scan whose motors stop exactly on a grid of ``step`` mm."""
        cells = scan_positions(shape, fast_axis, snake)[:, ::-1]
        return cls(shape, np.round(step * cells, 9), monitor, fast_axis, snake)

    @property
    def cells(self) -> IntArray:
        """Shape (frames,): flat index on the map (row by row) of each frame."""
        row, column = scan_positions(self.shape, self.fast_axis, self.snake).T
        return np.asarray(row * self.shape[1] + column)

    @property
    def line(self) -> int:
        """Frames along the fast axis."""
        return self.shape[1] if self.fast_axis == "x" else self.shape[0]

    def columns(self) -> dict[str, tuple[NDArray[np.float64], str]]:
        """Motors and monitor: name → (one value per frame, units)."""
        found = {
            name: (np.asarray(values, np.float64), self.units)
            for name, values in zip(self.motors, self.positions.T, strict=True)
        }
        if self.monitor is not None:
            found[MONITOR] = (np.asarray(self.monitor, np.float64), "")
        return found

    def travels(self) -> list[str]:
        """Words of a scan command, the fast motor first: ``samx 0 0.015 3``, intervals counted.

        A motor that stays where it is has none.
        """
        travels = [
            (name, values.min(), values.max(), points - 1)
            for name, values, points in zip(
                self.motors, self.positions.T, self.shape[::-1], strict=True
            )
        ]
        if self.fast_axis == "y":
            travels.reverse()
        return [f"{name} {low:.6g} {high:.6g} {n}" for name, low, high, n in travels if n]


@dataclass(frozen=True)
class Series:
    """A series to be written.

    Parameters
    ----------
    folder
        Existing.
    name
        Stem of the file names.
    frames
        How many there will be.
    detector, scan
        Go into headers or metadata, as far as the layout has a place for them.
    dtype
        Of the frames.
    """

    folder: Path
    name: str
    frames: int
    detector: DetectorDescription
    scan: ScanDescription | None
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a frame."""
        rows, columns = self.detector.pixel_mask.shape
        return int(rows), int(columns)

    @property
    def saturation(self) -> int:
        """Raw counts at and above which a pixel is saturated, in the dtype of the frames."""
        return min(self.detector.saturation, int(np.iinfo(self.dtype).max) - 1)

    @property
    def per_file(self) -> int:
        """Frames per file of multi-frame formats: those of a line, if they fit."""
        room = LARGEST_FILE // (self.dtype.itemsize * self.shape[0] * self.shape[1])
        return max(1, min(self.scan.line if self.scan else UNBROKEN, room))

    def columns(self) -> dict[str, tuple[NDArray[np.float64], str]]:
        """Motors and monitor of the scan; empty without one."""
        return self.scan.columns() if self.scan else {}


Put = Callable[[int, NDArray[Any]], None]
"""Write the frame of a number, counted from 0; called for each number in order."""

Writer = Callable[[Series], contextlib.AbstractContextManager[Put]]


def pixel_mask_bits(gaps: BoolArray, dead: BoolArray, hot: BoolArray) -> NDArray[np.uint32]:
    """NXdetector pixel mask from three boolean masks of one shape."""
    return (
        np.where(gaps, PIXEL_MASK_GAP, 0)
        | np.where(dead, PIXEL_MASK_DEAD, 0)
        | np.where(hot, PIXEL_MASK_HOT, 0)
    ).astype(np.uint32)
