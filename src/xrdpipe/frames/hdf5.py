"""Frames in HDF5 files: the layout is probed, then every frame is read where its pixels lie."""

from __future__ import annotations

import math
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, overload

import h5py
import numpy as np
from numpy.typing import NDArray

from xrdpipe.bounds import sound
from xrdpipe.errors import FrameError, InputError, InputMissingError
from xrdpipe.frames.layouts import areadetector, bliss, dectris, lima, maxiv, nexus, petra, stack
from xrdpipe.frames.layouts.chunks import check_chunks
from xrdpipe.frames.layouts.files import check_no_scan, continued, file_counters
from xrdpipe.frames.layouts.layout import Column, Layout, Probe, Scope, holds_frames
from xrdpipe.frames.layouts.links import (
    LostDatasetError,
    find_dataset,
    follow,
    open_file,
    open_linked,
    whole,
    why_not_open,
)
from xrdpipe.frames.layouts.modules import ModuleReader
from xrdpipe.frames.layouts.outside import files_outside
from xrdpipe.frames.layouts.packing import Packing, packing_of
from xrdpipe.frames.layouts.planes import Planes, Stored, unwritten
from xrdpipe.schema import FrameStatus
from xrdpipe.types import DetectorInfo, Encoded, Frame, FrameRecord, IntArray, ScanHint

HDF5_SUFFIXES = frozenset({".h5", ".hdf5", ".hdf", ".nxs", ".nx5"})

PROBES: tuple[Probe, ...] = (
    dectris.probe,
    bliss.probe,
    areadetector.probe,
    lima.probe,
    maxiv.probe,
    petra.probe,
    nexus.probe,
    stack.probe,
)
"""Asked in this order; the last one answers or raises."""

OPEN_FILES = 32
"""So many data files are kept open."""

_SELECTION = re.compile(r"^(.*?)\[([-\d:,\s]+)\]$")


def is_hdf5(path: Path) -> bool:
    """True for a file that is HDF5 by its name or by its content."""
    return path.suffix.lower() in HDF5_SUFFIXES or bool(h5py.is_hdf5(str(path)))


def open_hdf5(path: Path, dataset: str | None) -> Hdf5Series:
    """Open the frames in ``path``.

    Parameters
    ----------
    dataset
        A dataset, or a group to stay in (a bliss scan ``3.1``, an NXentry); None for the whole
        file. ``/data[:, 1]`` takes index 1 of the second axis before the last two.

    Raises
    ------
    InputMissingError
        If file or dataset does not exist.
    InputError
        If there are no frames, or several stacks that could be meant.
    """
    if not path.exists():
        raise InputMissingError(f"{path} does not exist; check the path of the frames.")
    try:
        file = open_file(str(path))
    except OSError as error:
        raise InputError(f"{path} {why_not_open(str(path), error)}.") from error
    with sound(str(path)):
        return Hdf5Series(str(path), file, _layout(path, file, dataset or ""))


def open_hdf5_files(files: Sequence[Path], name: str) -> Hdf5Series:
    """Open files without a master that continue each other, as detectors write them.

    Parameters
    ----------
    files
        In natural order.
    name
        What the user asked for, for messages.

    Raises
    ------
    InputError
        If they may be anything else: each must hold one stack of the same frames and nothing of a
        scan, their names must differ in the last number only.
    """
    counters = file_counters(files)
    found: list[Layout | LostDatasetError] = []
    first: h5py.File | None = None
    for path in files:
        try:
            file = open_linked(str(path), "")
        except LostDatasetError as error:
            found.append(error)
            continue
        with sound(str(path)):
            layout = _layout(path, file, "")
        check_no_scan(path, layout)
        found.append(layout)
        if first is None:
            first = file
        else:
            file.close()
    if first is None:
        raise InputError("none of them can be opened as HDF5")
    with sound(name):
        return Hdf5Series(name, first, continued(files, counters, found))


def _layout(path: Path, file: h5py.File, dataset: str) -> Layout:
    name, selection = _split(path, dataset)
    scope = replace(_scope(path, file, name), selection=selection)
    layout = next(found for probe in PROBES if (found := probe(scope)) is not None)
    if selection and not layout.selected:
        return _selected(scope, layout)
    return layout


def _split(path: Path, dataset: str) -> tuple[str, tuple[int | None, ...]]:
    """``/data[:, 1]`` → ``/data`` and (None, 1)."""
    match = _SELECTION.match(dataset)
    if match is None:
        return dataset, ()
    words = [word.strip() for word in match[2].split(",")]
    if not all(word == ":" or word.isdigit() for word in words):
        raise InputError(
            f"{path}::{dataset}: '[{match[2]}]' cannot be read; expected a number or ':' for each "
            "axis before the image, for example [:, 1]."
        )
    return match[1], tuple(None if word == ":" else int(word) for word in words)


def _scope(path: Path, file: h5py.File, name: str) -> Scope:
    """What the user means by a name in a file."""
    if not name.strip("/"):
        return Scope(str(path), file)
    try:
        item = follow(file["/"], name)
    except LostDatasetError as error:
        raise InputMissingError(
            f"{path} has no dataset {name}"
            + ("." if error.file == file.filename else f": {error.reason}.")
        ) from error
    entry = name.strip("/").split("/")[0]
    if isinstance(item, h5py.Dataset):
        if item.ndim < 2 or item.dtype.kind not in "uif":
            raise InputError(
                f"{path}::{name} is no stack of frames: {item.ndim} dimensions of {item.dtype}."
            )
        inside = "/" in name.strip("/")
        return Scope(str(path), file, name, (item,), entry if inside else "")
    if name.strip("/") == entry:
        return Scope(str(path), file, name, entry=entry)
    only = [data for child in item if holds_frames(data := _quietly(item, child), 2)]
    only += [
        data
        for child in item
        if isinstance(group := _quietly(item, child), h5py.Group)
        and holds_frames(data := _quietly(group, "data"), 2)
    ]
    if not only:
        raise InputError(
            f"{path}::{name} is a group without a stack of frames; name the dataset itself."
        )
    return Scope(str(path), file, name, tuple(only), entry)


def _quietly(group: h5py.Group, name: str) -> Any:
    try:
        return follow(group, name)
    except LostDatasetError:
        return None


def _selected(scope: Scope, layout: Layout) -> Layout:
    """The planes at an index of some axes before the last two."""
    shown = ", ".join(":" if index is None else str(index) for index in scope.selection)
    item = find_dataset(scope.file["/"], layout.datasets[0]) if len(layout.datasets) == 1 else None
    leading = () if item is None else item.shape[:-2]
    n = layout.planes.size
    if item is None or len(scope.selection) > len(leading) or math.prod(leading) != n:
        raise InputError(
            f"{scope.path}::{scope.name}: [{shown}] cannot be taken of {layout.name} with "
            f"{len(layout.datasets)} datasets and axes {tuple(leading)} before the image."
        )
    index = tuple(slice(None) if i is None else i for i in scope.selection)
    try:
        rows = np.arange(n).reshape(leading)[index].ravel()
    except IndexError as error:
        raise InputError(
            f"{scope.path}::{scope.name}: [{shown}] lies outside the axes {tuple(leading)}."
        ) from error
    return replace(
        layout,
        planes=layout.planes.take(rows),
        numbers=None if layout.numbers is None else layout.numbers[rows],
        columns={},
        scan=None,
        exposure=layout.exposure if isinstance(layout.exposure, float) else None,
        evidence=(*layout.evidence, f"[{shown}] of the axes {tuple(leading)}"),
    )


class Hdf5Series:
    """Frames of a file in order, wherever their pixels lie.

    Parameters
    ----------
    name
        As given by the user.
    file
        The same, open; of several files the first.
    layout
        What it was found to be.
    """

    def __init__(self, name: str, file: h5py.File, layout: Layout) -> None:
        self.name = name
        self._file = file
        self._layout = layout
        self._planes = layout.planes
        self._open = _OpenDatasets(layout.planes.stored)
        self._modules = ModuleReader()
        typical = _typical(layout.planes)
        if typical is None:
            reason = next(iter(layout.planes.reason.values()), "it is empty")
            raise InputError(f"{name} holds no frame that can be read: {reason}.")
        self.shape = typical.shape
        self.dtype = typical.dtype
        self.numbered = layout.numbers is not None
        self.records = _records(layout, typical)
        self.detector = _with_pixels(layout.detector, layout.planes)
        self.exposure = layout.exposure
        self.scan = layout.scan
        self.columns = {name: column.units for name, column in layout.columns.items()}
        self.evidence = (*layout.evidence, *_pixel_evidence(layout, typical, file))
        places = {stored.file for stored in layout.planes.stored}
        places |= {column.file for column in layout.columns.values()}
        self.warnings = (*layout.warnings, *files_outside(file, places))
        names = layout.datasets
        self.kind = (
            f"{layout.name} {names[0]}{f' … {names[-1]}' if len(names) > 1 else ''}, "
            f"{len(self.records)} frames of {self.shape[0]} x {self.shape[1]} {self.dtype}"
        )

    exposure: NDArray[np.float64] | float | None
    scan: ScanHint | None

    def read(self, row: int) -> Frame:
        """Read one frame; raises FrameError naming file, dataset and frame."""
        return Frame(self._pixels(row, compressed=False))

    def fetch(self, row: int) -> Encoded | NDArray[Any]:
        """The chunk of a frame as stored if it is bitshuffle-LZ4 and nothing else, or the image."""
        return self._pixels(row, compressed=True)

    @overload
    def _pixels(self, row: int, compressed: Literal[False]) -> NDArray[Any]: ...
    @overload
    def _pixels(self, row: int, compressed: bool) -> Encoded | NDArray[Any]: ...
    def _pixels(self, row: int, compressed: bool) -> Encoded | NDArray[Any]:
        record = self.records[row]
        if record.problem:
            raise FrameError(record.problem, record.reason)
        number = int(self._planes.which[row])
        stored = self._planes.stored[number]
        place = record.place
        if stored.modules is not None:
            return self._joined(stored, place)
        data, packing, problem, reason = self._open.get(number)
        try:
            leading = data.shape[:-2]
            where = (
                np.unravel_index(place, leading) if len(leading) > 1 else (place,)[: len(leading)]
            )
            index = tuple(int(i) for i in where)
            if data.shape[-2:] != self.shape or data.dtype != self.dtype:
                raise _wrong(stored.name, data.shape[-2:], data.dtype, self)
            if problem is not None and problem[place]:
                raise FrameError(int(problem[place]), reason[place])
            if compressed and packing is not None:
                return packing.fetch(data, index)
            check_chunks(data, index)
            return np.asarray(data[index])
        except (ValueError, IndexError) as error:
            raise FrameError(
                FrameStatus.MISSING,
                f"{stored.name} has {data.shape} values, frame {place} is not in it",
            ) from error
        except OSError as error:
            if isinstance(error, FrameError):
                raise
            raise _undecoded(stored, place, data, error) from error
        except (RuntimeError, KeyError, TypeError) as error:  # of damaged metadata
            raise _undecoded(stored, place, data, error) from error

    def _joined(self, stored: Stored, place: int) -> NDArray[Any]:
        """A frame put together from modules."""
        try:
            image = self._modules.read(stored, place)
        except FrameError:
            raise
        except (OSError, RuntimeError, KeyError, TypeError, ValueError, IndexError) as error:
            raise FrameError(
                FrameStatus.CORRUPT,
                f"frame {place} of {stored.name} cannot be decoded: it is truncated or damaged "
                f"({error})",
            ) from error
        if image.shape != self.shape or image.dtype != self.dtype:
            raise _wrong(stored.name, image.shape, image.dtype, self)
        return image

    def column(self, name: str) -> NDArray[np.float64] | None:
        """Values of one column, NaN at the end where a scan stopped early; None if unknown."""
        column = self._layout.columns.get(name)
        if column is None:
            return None
        with sound(f"{column.file}::{column.dataset}"):
            return self._padded(column.read())

    def values(self, name: str) -> NDArray[np.float64] | None:
        """A column by name, or a numeric dataset of the file by path, flat; None if unknown."""
        known = self.column(name)
        if known is not None:
            return known
        data = find_dataset(self._file["/"], name)
        if data is None or data.dtype.kind not in "uif":
            return None
        at = Column.at(data)
        for column in self._layout.columns.values():
            if (column.file, column.dataset) == (at.file, at.dataset):
                return self._padded(column.read())
        with sound(f"{self.name}::{name}"):
            return np.asarray(whole(data), np.float64).ravel()

    def _padded(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        missing = len(self.records) - values.size
        return np.pad(values, (0, missing), constant_values=np.nan) if missing > 0 else values


class _OpenDatasets:
    """The datasets read last, open; safe to use from threads."""

    def __init__(self, stored: tuple[Stored, ...]) -> None:
        self._stored = stored
        self._lock = threading.Lock()
        self._held: OrderedDict[int, _Opened] = OrderedDict()

    def get(self, number: int) -> _Opened:
        """A dataset, with the unwritten frames of one that was not looked into at the start.

        A thread may still read a dataset that is dropped here: its file closes when the last
        reader lets go.
        """
        with self._lock:
            held = self._held.get(number)
            if held is None:
                held = self._held[number] = _opened(self._stored[number])
                if len(self._held) > OPEN_FILES:
                    self._held.popitem(last=False)
            else:
                self._held.move_to_end(number)
        return held


_Opened = tuple[h5py.Dataset, Packing | None, NDArray[np.uint8] | None, dict[int, str]]
"""A dataset, how a frame can be taken from it undecoded, and its unwritten frames with reasons."""


def _opened(stored: Stored) -> _Opened:
    try:
        file = open_file(stored.file)
    except FileNotFoundError as error:
        raise FrameError(FrameStatus.MISSING, f"{stored.file} is not there any more") from error
    except OSError as error:
        raise FrameError(
            FrameStatus.UNREADABLE, f"{stored.file} {why_not_open(stored.file, error)}"
        ) from error
    data = follow(file["/"], stored.dataset)
    if not isinstance(data, h5py.Dataset) or data.ndim < 2:
        raise FrameError(FrameStatus.MISSING, f"{stored.name} is no dataset of frames")
    packing = packing_of(data)
    if stored.examined:
        return data, packing, None, {}
    return data, packing, *unwritten(data)


def _wrong(
    name: str, shape: tuple[int, ...], dtype: np.dtype[Any], series: Hdf5Series
) -> FrameError:
    if shape != series.shape:
        said = (
            f"{name} has {shape[0]} x {shape[1]} pixels, the series has {series.shape[0]} x "
            f"{series.shape[1]}"
        )
    else:
        said = f"{name} holds {dtype}, the series {series.dtype}"
    return FrameError(FrameStatus.WRONG_SHAPE, said)


def _undecoded(stored: Stored, place: int, data: h5py.Dataset, error: Exception) -> FrameError:
    """A chunk that cannot be decoded is damaged, unless its filter is not installed."""
    what = f"frame {place} of {stored.name}"
    filters = data.id.get_create_plist()
    codes = [filters.get_filter(number)[0] for number in range(filters.get_nfilters())]
    unknown = [str(code) for code in codes if not h5py.h5z.filter_avail(code)]
    if unknown:
        return FrameError(
            FrameStatus.UNREADABLE,
            f"{what} is compressed with HDF5 filter {', '.join(unknown)}, which is not installed",
        )
    return FrameError(
        FrameStatus.CORRUPT, f"{what} cannot be decoded: it is truncated or damaged ({error})"
    )


def _typical(planes: Planes) -> Stored | None:
    """A dataset of the shape and dtype that most frames have; None if there is no dataset."""
    counts = np.bincount(planes.which[planes.problem == 0], minlength=len(planes.stored))
    kinds: Counter[tuple[tuple[int, int], str]] = Counter()
    first: dict[tuple[tuple[int, int], str], Stored] = {}
    for stored, count in zip(planes.stored, counts.tolist(), strict=True):
        if count:
            kind = stored.shape, stored.dtype.str
            kinds[kind] += count
            first.setdefault(kind, stored)
    return first[kinds.most_common(1)[0][0]] if kinds else None


def _records(layout: Layout, typical: Stored) -> tuple[FrameRecord, ...]:
    """One record per plane, with what is known of it before it is read."""
    planes = layout.planes
    numbers: IntArray = np.arange(planes.size) if layout.numbers is None else layout.numbers
    problem, reason = planes.problem.copy(), dict(planes.reason)
    for number, stored in enumerate(planes.stored):
        if (stored.shape, stored.dtype) != (typical.shape, typical.dtype):
            for row in np.flatnonzero((planes.which == number) & (problem == 0)).tolist():
                problem[row] = FrameStatus.WRONG_SHAPE
                reason[row] = (
                    f"frame {planes.place[row]} of {stored.name} has {stored.shape[0]} x "
                    f"{stored.shape[1]} pixels of {stored.dtype}, the series {typical.shape[0]} x "
                    f"{typical.shape[1]} of {typical.dtype}"
                )
    if layout.numbers is not None:
        # The first frame that can be read keeps the number.
        order = np.argsort(problem != 0, kind="stable")
        _, first = np.unique(numbers[order], return_index=True)
        for row in np.setdiff1d(np.flatnonzero(problem == 0), order[first]).tolist():
            problem[row] = FrameStatus.DUPLICATE
            reason[row] = (
                f"frame {planes.place[row]} of {planes.stored[planes.which[row]].name} "
                f"repeats the number {numbers[row]} of an earlier frame"
            )
    names = [stored.name for stored in planes.stored]
    rows = zip(
        planes.which.tolist(),
        planes.place.tolist(),
        numbers.tolist(),
        problem.tolist(),
        strict=True,
    )
    return tuple(
        FrameRecord(
            names[which],
            place,
            index,
            planes.stored[which].size,
            planes.stored[which].mtime_ns,
            status,
            reason.get(row, ""),
        )
        for row, (which, place, index, status) in enumerate(rows)
    )


def _with_pixels(info: DetectorInfo, planes: Planes) -> DetectorInfo:
    """Add the gaps between the modules of a virtual dataset, and what the modules' dtype says."""
    if planes.gaps is not None:
        mask = info.pixel_mask
        if mask is None or mask.shape != planes.gaps.shape:
            mask = np.zeros(planes.gaps.shape, np.uint32)
        info = replace(info, pixel_mask=mask | planes.gaps.astype(mask.dtype))
    if planes.bit_depth is not None:
        info = replace(info, bit_depth=min(planes.bit_depth, info.bit_depth or 64))
    return info


def _pixel_evidence(layout: Layout, typical: Stored, file: h5py.File) -> list[str]:
    planes = layout.planes
    said = []
    if file.swmr_mode:
        said.append("the file is still being written (SWMR): frames to come are not seen")
    if planes.gaps is not None:
        said.append(f"{int(planes.gaps.sum())} pixels lie between the modules (masked)")
    if planes.bit_depth is not None:
        said.append(f"the modules hold {planes.bit_depth} bits, stored as {typical.dtype}")
    return said
