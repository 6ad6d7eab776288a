"""What a probe finds, and what it may look at."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import h5py
import numpy as np
from numpy.typing import NDArray

from xrdpipe.bounds import check_values
from xrdpipe.frames.layouts.links import find, open_file, own_groups, whole
from xrdpipe.frames.layouts.metadata import Exposure, is_column, units_of
from xrdpipe.frames.layouts.planes import Planes
from xrdpipe.types import DetectorInfo, IntArray, ScanHint

MIN_SIDE = 16
"""A dataset whose last two axes are shorter is no stack of detector frames."""

NO_FRAMES = re.compile(r"mask|flat|dark|background|lookup_table", re.I)
"""Datasets with such names belong to the detector and are no frames, whatever their shape."""


@dataclass(frozen=True)
class Column:
    """Where the values of a column lie: each repeated, then the whole tiled, for axes of a grid."""

    file: str
    dataset: str
    units: str = ""
    repeat: int = 1
    tile: int = 1

    @classmethod
    def at(cls, data: h5py.Dataset, repeat: int = 1, tile: int = 1) -> Column:
        """The column a dataset holds."""
        return cls(data.file.filename, data.name, units_of(data), repeat, tile)

    def read(self) -> NDArray[np.float64]:
        """The values, flat."""
        with open_file(self.file) as file:
            data = file[self.dataset]
            check_values(data.size * self.repeat * self.tile, f"{self.file}::{self.dataset}")
            values = np.asarray(whole(data), np.float64).ravel()
        if self.repeat > 1:
            values = np.repeat(values, self.repeat)
        return np.tile(values, self.tile) if self.tile > 1 else values


@dataclass(frozen=True)
class Layout:
    """What a file was found to be.

    Parameters
    ----------
    name
        As in the documents.
    datasets
        Names of the datasets with the frames, in order, for messages.
    planes
        Where each frame lies.
    evidence
        What in the file shows it: one phrase each.
    numbers
        Acquisition number of each plane; None = the file counts none.
    columns
        Numbers per frame by name.
    scan
        What is said of the scan.
    detector
        What is said of the detector.
    exposure
        Seconds: one per frame, one for all, or None.
    selected
        True if the planes are what the scope's selection asks for.
    warnings
        What is odd, one sentence each.
    """

    name: str
    datasets: tuple[str, ...]
    planes: Planes
    evidence: tuple[str, ...]
    numbers: IntArray | None = None
    columns: Mapping[str, Column] = field(default_factory=dict)
    scan: ScanHint | None = None
    detector: DetectorInfo = field(default_factory=DetectorInfo)
    exposure: Exposure = None
    selected: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scope:
    """The part of a file that the user means.

    Parameters
    ----------
    path
        Of the file, as the user gave it.
    file
        Open.
    name
        Dataset or group that was named; ``""`` for the whole file.
    only
        Datasets meant, if a dataset was named or a group inside an entry; None for all.
    entry
        Name of the entry meant; ``""`` for all.
    selection
        Index or None (all) along the axes before the last two; empty if none was given.
    """

    path: str
    file: h5py.File
    name: str = ""
    only: tuple[h5py.Dataset, ...] | None = None
    entry: str = ""
    selection: tuple[int | None, ...] = ()

    def means(self, data: h5py.Dataset) -> bool:
        """True if the user means this dataset, or none in particular."""
        return self.only is None or data in self.only

    def entries(self) -> Iterator[tuple[str, h5py.Group]]:
        """Entries of the file, or the one that is meant."""
        if self.entry:
            entry = find(self.file, self.entry)
            if isinstance(entry, h5py.Group):
                yield self.entry, entry
        else:
            yield from own_groups(self.file)


Probe = Callable[[Scope], Layout | None]


def holds_frames(item: object, axes: int = 3) -> bool:
    """True for a numeric dataset of at least so many axes whose last two are a detector's."""
    return (
        isinstance(item, h5py.Dataset)
        and item.ndim >= axes
        and item.dtype.kind in "uif"
        and min(item.shape[-2:]) >= MIN_SIDE
    )


def miscount(numbers: IntArray) -> str:
    """Why a counter numbers no frames: it starts again, or stands still; empty if it counts.

    A number that comes twice in a row is one frame that was stored twice.
    """
    back = np.flatnonzero(np.diff(numbers) < 0)
    if back.size:
        row = int(back[0]) + 1
        return f"falls back from {numbers[row - 1]} to {numbers[row]} at frame {row}"
    if numbers.size > 2 and numbers[0] == numbers[-1]:
        return f"is {numbers[0]} in every frame"
    return ""


def distinct(items: list[tuple[str, h5py.Dataset]]) -> list[tuple[str, h5py.Dataset]]:
    """Each dataset once, under the first of its names."""
    found: list[tuple[str, h5py.Dataset]] = []
    for name, data in items:
        if all(data != other for _, other in found):
            found.append((name, data))
    return found


def reader(columns: Mapping[str, Column]) -> Callable[[str], NDArray[np.float64] | None]:
    """A function that reads a column by name, giving None for an unknown one."""
    return lambda name: columns[name].read() if name in columns else None


def columns_in(group: h5py.Group | None) -> dict[str, Column]:
    """Every numeric dataset right below a group, links followed, that may be a column."""
    columns = {}
    for name in group if group is not None else ():
        item = find(group, name)
        if is_column(item) and isinstance(item, h5py.Dataset) and item.ndim == 1 and item.size > 1:
            columns[name] = Column.at(item)
    return columns
