"""Where each frame of a dataset lies: behind virtual datasets, in which file, in which chunk.

A dataset of N axes is a series of planes: all axes before the last two, flattened. Each plane is
traced to the file that holds its pixels; what was never written there, or is no longer there, is
known before the first frame is read.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from xrdpipe.bounds import check_frames, check_image
from xrdpipe.errors import InputError
from xrdpipe.frames.layouts.links import (
    MAX_LINKS,
    LostDatasetError,
    as_written,
    beside,
    follow,
    open_linked,
)
from xrdpipe.schema import FrameStatus
from xrdpipe.types import BoolArray

OPENED = 2000
"""So many data files are opened at the start (about 1 ms each); the others when first read."""

LONGEST_GAP = 100
"""So many numbered files may be missing one after another."""

COUNTED_CHUNKS = 5_000_000
"""HDF5 walks through all chunks to count them: not in datasets of more than these."""

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Stored:
    """A dataset that holds pixels.

    Parameters
    ----------
    file, dataset
        Where it is.
    leading
        Lengths of the axes before the last two.
    shape
        Rows and columns; (0, 0) if the dataset is not there.
    dtype
        Native dtype of the pixels.
    size, mtime_ns
        Of the file, or of all files behind a dataset put together from parts of frames.
    examined
        False if unwritten frames are still to be looked for.
    modules
        What its planes are put together from, if it is a virtual dataset of parts of frames.
    """

    file: str
    dataset: str
    leading: tuple[int, ...] = ()
    shape: tuple[int, int] = (0, 0)
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype("u4"))
    size: int = 0
    mtime_ns: int = 0
    examined: bool = True
    modules: Modules | None = field(default=None, compare=False, repr=False)

    @property
    def name(self) -> str:
        """``file::/dataset``, as a user can name it."""
        return f"{self.file}::{self.dataset}"


@dataclass(frozen=True)
class Planes:
    """Planes in order: entry i lies in dataset ``stored[which[i]]`` at the flat ``place[i]``.

    Parameters
    ----------
    stored
        The datasets.
    which, place
        Shape (n,).
    problem
        Shape (n,): ``frames/status`` of planes that cannot be read, else 0.
    reason
        Plane → why, for those with a problem.
    gaps
        Shape (rows, columns): pixels that no part of a virtual dataset fills; None if all are.
    bit_depth
        Bits of the parts, where a virtual dataset of parts is of a wider type.
    """

    stored: tuple[Stored, ...]
    which: NDArray[np.int32]
    place: Places
    problem: NDArray[np.uint8]
    reason: dict[int, str]
    gaps: BoolArray | None = None
    bit_depth: int | None = None

    @property
    def size(self) -> int:
        """Number of planes."""
        return int(self.which.size)

    def take(self, rows: Places) -> Planes:
        """Some of the planes, in another order."""
        lost = np.flatnonzero(self.problem[rows]).tolist()
        reason = {i: self.reason[int(rows[i])] for i in lost}
        return replace(
            self,
            which=self.which[rows],
            place=self.place[rows],
            problem=self.problem[rows],
            reason=reason,
        )


@dataclass(frozen=True)
class Modules:
    """Parts that planes are put together from: part i belongs to ``plane[i]``, which rises.

    Parameters
    ----------
    plane
        Shape (n,).
    parts
        Where the n parts lie.
    """

    plane: Places
    parts: Planes

    def of(self, plane: int) -> list[tuple[Stored, int]]:
        """The parts of one plane: dataset and flat place in it."""
        first, last = np.searchsorted(self.plane, (plane, plane + 1))
        which, place = self.parts.which[first:last], self.parts.place[first:last]
        return [
            (self.parts.stored[w], p) for w, p in zip(which.tolist(), place.tolist(), strict=True)
        ]


def joined(parts: Sequence[Planes]) -> Planes:
    """Planes after each other."""
    if len(parts) == 1:
        return parts[0]
    first_stored = np.cumsum([0, *(len(part.stored) for part in parts)])
    first_plane = np.cumsum([0, *(part.size for part in parts)])
    reason = {
        int(start) + plane: why
        for part, start in zip(parts, first_plane, strict=False)
        for plane, why in part.reason.items()
    }
    return Planes(
        tuple(stored for part in parts for stored in part.stored),
        np.concatenate([p.which + i for p, i in zip(parts, first_stored, strict=False)]).astype(
            np.int32
        ),
        np.concatenate([part.place for part in parts]),
        np.concatenate([part.problem for part in parts]),
        reason,
        next((part.gaps for part in parts if part.gaps is not None), None),
        next((part.bit_depth for part in parts if part.bit_depth), None),
    )


def lost_planes(count: int, error: LostDatasetError) -> Planes:
    """``count`` planes of a dataset that is not there."""
    return Planes(
        (Stored(error.file, error.dataset),),
        np.zeros(count, np.int32),
        np.arange(count),
        np.full(count, error.status, np.uint8),
        dict.fromkeys(range(count), error.reason),
    )


def planes_of(data: h5py.Dataset) -> Planes:
    """All planes of a dataset, traced to the files that hold them.

    Raises
    ------
    InputError
        If it claims more than there can be.
    """
    return _trace(data, {}, 0)


Known = dict[tuple[str, str], "Planes | LostDatasetError"]


def _trace(data: h5py.Dataset, known: Known, depth: int) -> Planes:
    where = f"{data.file.filename}::{data.name}"
    check_image(data.shape[-2:], where)
    check_frames(math.prod(data.shape[:-2]), where)
    if data.is_virtual:
        if depth == MAX_LINKS:
            raise InputError(f"{where} is a virtual dataset that is made of itself.")
        return _virtual(data, known, depth)
    return _here(data)


def describe(data: h5py.Dataset, *, examined: bool = True) -> Stored:
    """The dataset itself as a place of pixels."""
    file = data.file.filename
    stat = os.stat(file)  # noqa: PTH116 - h5 names are text
    rows, columns = data.shape[-2:]
    return Stored(
        as_written(file),
        data.name,
        tuple(int(n) for n in data.shape[:-2]),
        (int(rows), int(columns)),
        data.dtype,
        stat.st_size,
        stat.st_mtime_ns,
        examined,
    )


def _here(data: h5py.Dataset) -> Planes:
    stored = describe(data)
    n = math.prod(stored.leading)
    problem, reason = unwritten(data)
    return Planes((stored,), np.zeros(n, np.int32), np.arange(n), problem, reason)


def unwritten(data: h5py.Dataset) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """Planes whose chunks were never written (reading them gives the fill value, silently)."""
    leading = data.shape[:-2]
    n = math.prod(leading)
    problem = np.zeros(n, np.uint8)
    name = f"{data.file.filename}::{data.name}"
    if data.chunks is None:
        if n and not data.external and not data.is_virtual and data.id.get_storage_size() == 0:
            problem[:] = FrameStatus.MISSING
            return problem, dict.fromkeys(range(n), f"{name} was never written")
        return problem, {}
    grid = [-(-length // chunk) for length, chunk in zip(data.shape, data.chunks, strict=True)]
    expected = math.prod(grid)
    if expected > COUNTED_CHUNKS or data.id.get_num_chunks() >= expected:
        return problem, {}
    written = np.zeros(grid[:-2], np.int32)

    def count(chunk: Any) -> None:
        offset = chunk.chunk_offset
        written[tuple(offset[i] // data.chunks[i] for i in range(len(leading)))] += 1

    data.id.chunk_iter(count)
    for axis, length in enumerate(leading):
        written = np.repeat(written, data.chunks[axis], axis).take(np.arange(length), axis)
    per_plane = grid[-2] * grid[-1]
    reason = {}
    for plane, found in enumerate(written.ravel().tolist()):
        if found == 0:
            problem[plane] = FrameStatus.MISSING
            reason[plane] = f"frame {plane} of {name} was never written"
        elif found < per_plane:
            problem[plane] = FrameStatus.CORRUPT
            reason[plane] = (
                f"frame {plane} of {name} is half-written: {found} of {per_plane} chunks are there"
            )
    return problem, reason


# --- virtual datasets ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """One mapping of a virtual dataset: planes ``into`` come from planes ``origin`` of a dataset.

    ``origin`` is None where the whole source is meant; ``rows`` and ``columns`` are the pixels
    that are filled, ``whole`` is True if these are all and the source's frames are used whole.
    """

    file: str
    dataset: str
    into: Places
    origin: Places | None
    rows: Places
    columns: Places
    whole: bool


def _virtual(data: h5py.Dataset, known: Known, depth: int) -> Planes:
    mappings = data.virtual_sources()
    shape = _extent(data, mappings)
    parts = _parts(data, mappings, shape)
    sources: dict[tuple[str, str], Planes | LostDatasetError] = {}
    for part in parts:
        place = part.file, part.dataset
        if place not in sources:
            sources[place] = _source(data, part, known, depth)
    found = [s for s in sources.values() if isinstance(s, Planes) and s.stored]
    whole = all(part.whole for part in parts) and all(
        s.stored[0].shape in ((0, 0), data.shape[-2:]) for s in found
    )
    n = math.prod(shape[:-2])
    check_frames(max(n, sum(part.into.size for part in parts)), data.file.filename)
    return (_of_whole_frames if whole else _of_pieces)(data, n, parts, sources)


def _source(data: h5py.Dataset, part: _Part, known: Known, depth: int) -> Planes | LostDatasetError:
    """Planes of the dataset a mapping names, or why they are lost; each is opened once."""
    place = part.file, part.dataset
    if place in known:
        return known[place]
    try:
        like = next((s.stored[0] for s in known.values() if isinstance(s, Planes)), None)
        if len(known) >= OPENED and like is not None and part.file != data.file.filename:
            known[place] = _unopened(part, like)
        else:
            same = part.file == data.file.filename
            file = data.file if same else open_linked(part.file, part.dataset)
            item = follow(file["/"], part.dataset)
            if not isinstance(item, h5py.Dataset) or item.ndim < 2:
                raise LostDatasetError(
                    *place, FrameStatus.MISSING, f"{part.file}::{part.dataset} holds no frames"
                )
            known[place] = _trace(item, known, depth + 1)
    except LostDatasetError as error:
        known[place] = error
    return known[place]


def _unopened(part: _Part, like: Stored) -> Planes:
    """As the first of its like that was opened, until it is read."""
    if not os.path.exists(part.file):  # noqa: PTH110
        raise LostDatasetError(
            part.file,
            part.dataset,
            FrameStatus.MISSING,
            f"{part.file} is not there, {part.dataset} was to be in it",
        )
    stat = os.stat(part.file)  # noqa: PTH116
    count = part.into.size if part.origin is None else int(part.origin.max(initial=-1)) + 1
    stored = Stored(
        part.file,
        part.dataset,
        (count,) if len(like.leading) == 1 else like.leading,
        like.shape,
        like.dtype,
        stat.st_size,
        stat.st_mtime_ns,
        examined=False,
    )
    return Planes(
        (stored,), np.zeros(count, np.int32), np.arange(count), np.zeros(count, np.uint8), {}
    )


def _of_whole_frames(
    data: h5py.Dataset,
    n: int,
    parts: Sequence[_Part],
    sources: dict[tuple[str, str], Planes | LostDatasetError],
) -> Planes:
    """Every frame lies whole in one source: it is read there, in its native dtype."""
    name = f"{data.file.filename}::{data.name}"
    # The virtual dataset itself stands for the planes that nothing is mapped to.
    pieces = [Planes((describe(data),), np.zeros(0, np.int32), np.zeros(0, int), *_no_problem(0))]
    for part in parts:
        origin = np.arange(part.into.size) if part.origin is None else part.origin
        pieces.append(_picked(sources[part.file, part.dataset], origin, part))
    found = joined(pieces)
    into = np.concatenate([np.zeros(0, np.int64), *(part.into for part in parts)])
    which, place = np.zeros(n, np.int32), np.arange(n)
    problem = np.full(n, FrameStatus.MISSING, np.uint8)
    which[into], place[into], problem[into] = found.which, found.place, found.problem
    lost = {int(into[row]): why for row, why in found.reason.items()}
    unmapped = f"of {name} is mapped to no file: it was never written"
    reason = {
        row: lost.get(row, f"frame {row} {unmapped}") for row in np.flatnonzero(problem).tolist()
    }
    return Planes(found.stored, which, place, problem, reason, found.gaps, found.bit_depth)


def _no_problem(n: int) -> tuple[NDArray[np.uint8], dict[int, str]]:
    return np.zeros(n, np.uint8), {}


def _picked(source: Planes | LostDatasetError, origin: Places, part: _Part) -> Planes:
    """The planes ``origin`` of a source; those beyond its end are missing."""
    if isinstance(source, LostDatasetError):
        return lost_planes(origin.size, source)
    inside = origin < source.size
    if inside.all():
        return source.take(origin)
    # A place in an empty source is never read: its problem is set.
    if source.size:
        picked = source.take(np.where(inside, origin, 0))
    else:
        none = np.zeros(origin.size, np.int32)
        picked = Planes(source.stored, none, origin, *_no_problem(origin.size))
    problem, reason = picked.problem.copy(), dict(picked.reason)
    for row in np.flatnonzero(~inside).tolist():
        problem[row] = FrameStatus.MISSING
        reason[row] = (
            f"{part.file}::{part.dataset} holds {source.size} frames, frame {origin[row]} "
            "was never written"
        )
    place = np.where(inside, picked.place, origin)
    return replace(picked, place=place, problem=problem, reason=reason)


def _of_pieces(
    data: h5py.Dataset,
    n: int,
    parts: Sequence[_Part],
    sources: dict[tuple[str, str], Planes | LostDatasetError],
) -> Planes:
    """Frames put together from modules: HDF5 does that, but each module must be there."""
    name = f"{data.file.filename}::{data.name}"
    problem, reason = _no_problem(n)
    pieces = np.zeros(n, np.int64)
    filled = np.zeros(data.shape[-2:], bool)
    found = []
    for part in parts:
        origin = np.arange(part.into.size) if part.origin is None else part.origin
        picked = _picked(sources[part.file, part.dataset], origin, part)
        found.append(picked)
        pieces[part.into] += 1
        filled[np.ix_(part.rows, part.columns)] = True
        for row, why in picked.reason.items():
            problem[part.into[row]] = picked.problem[row]
            reason[int(part.into[row])] = why
    most = int(pieces.max(initial=0))
    for row in np.flatnonzero(pieces < max(most, 1)).tolist():
        problem[row] = FrameStatus.MISSING
        reason[row] = f"frame {row} of {name} has {pieces[row]} of {most} modules: never written"
    into = np.concatenate([part.into for part in parts])
    order = np.argsort(into, kind="stable")
    modules = Modules(into[order], joined(found).take(order))
    behind = [s.stored[0] for s in sources.values() if isinstance(s, Planes)]
    files = {stored.file: stored for stored in behind}
    whole = describe(data)
    stored = Stored(
        whole.file,
        whole.dataset,
        whole.leading,
        whole.shape,
        whole.dtype,
        whole.size + sum(s.size for s in files.values()),
        max([whole.mtime_ns, *(s.mtime_ns for s in files.values())]),
        modules=modules,
    )
    narrow = {s.dtype for s in behind if s.dtype.kind == "u"}
    cast = len(narrow) == 1 and next(iter(narrow)).itemsize < data.dtype.itemsize
    return Planes(
        (stored,),
        np.zeros(n, np.int32),
        np.arange(n),
        problem,
        reason,
        None if filled.all() else ~filled,
        8 * next(iter(narrow)).itemsize if cast else None,
    )


def _extent(data: h5py.Dataset, mappings: Sequence[Any]) -> tuple[int, ...]:
    """The shape of a virtual dataset, up to the last of numbered files (``x_%b.h5``).

    By itself HDF5 ends it before the first of them that is missing, without a word.
    """
    length = int(data.shape[0])
    own = data.file.filename
    for mapping in mappings if data.ndim > 2 else ():
        axes = _Axes.of(mapping.vspace, data.shape)
        if "%b" not in mapping.file_name or axes.count[0] != UNLIMITED:
            continue
        number, gap = 0, 0
        while gap < LONGEST_GAP:
            there = os.path.exists(beside(own, _numbered(mapping.file_name, number)))  # noqa: PTH110
            number, gap = number + 1, 0 if there else gap + 1
            if there:
                last = axes.start[0] + (number - 1) * axes.stride[0] + axes.block[0]
                length = max(length, last)
    return (length, *data.shape[1:])


def _numbered(name: str, number: int) -> str:
    return name.replace("%b", str(number)).replace("%%", "%")


def _parts(data: h5py.Dataset, mappings: Sequence[Any], shape: tuple[int, ...]) -> list[_Part]:
    """The mappings of a virtual dataset."""
    parts = []
    own = data.file.filename
    files: dict[str, str] = {}
    for mapping in mappings:
        target = _Axes.of(mapping.vspace, shape)
        extent = tuple(mapping.src_space.shape)
        origin = _Axes.of(mapping.src_space, extent) if len(extent) >= 2 else None
        if "%" in mapping.file_name or "%" in mapping.dset_name:
            blocks = target.blocks(shape[0])
        else:
            blocks = [(0, target)]
        for block, into in blocks:
            file = _numbered(mapping.file_name, block)
            if file not in files:
                files[file] = own if file == "." else as_written(beside(own, file))
            planes = into.planes(shape)
            source = None if origin is None else origin.planes(extent, planes.size)
            parts.append(
                _Part(
                    files[file],
                    _numbered(mapping.dset_name, block),
                    planes[: source.size] if source is not None else planes,
                    source,
                    into.along(-2, shape[-2]),
                    into.along(-1, shape[-1]),
                    into.covers(shape) and (origin is None or origin.covers(extent)),
                )
            )
    return parts


UNLIMITED = h5py.h5s.UNLIMITED


@dataclass(frozen=True)
class _Axes:
    """A regular selection: along each axis blocks of a length, a count of them at a stride."""

    start: tuple[int, ...]
    stride: tuple[int, ...]
    count: tuple[int, ...]
    block: tuple[int, ...]

    @classmethod
    def of(cls, space: Any, shape: tuple[int, ...]) -> _Axes:
        ndim = len(shape)
        ones = (1,) * ndim
        if space.get_select_type() == h5py.h5s.SEL_HYPERSLABS:
            if space.is_regular_hyperslab():
                return cls(*(tuple(int(v) for v in part) for part in space.get_regular_hyperslab()))
            low, high = space.get_select_bounds()
            block = tuple(int(h - a) + 1 for a, h in zip(low, high, strict=True))
            return cls(tuple(int(v) for v in low), ones, ones, block)
        return cls((0,) * ndim, ones, ones, shape)

    def along(self, axis: int, length: int) -> Places:
        """Indices along one axis, within its length."""
        start, stride, count, block = (
            self.start[axis],
            self.stride[axis],
            self.count[axis],
            self.block[axis],
        )
        left = max(length - start, 0)
        block = min(block, left)
        count = min(count, -(-left // stride))
        index = start + stride * np.arange(count)[:, None] + np.arange(block)
        return np.asarray(index[index < length], np.int64)

    def planes(self, shape: tuple[int, ...], at_most: int | None = None) -> Places:
        """Flat indices of the planes, in the order HDF5 goes through them."""
        flat = np.zeros(1, np.int64)
        for axis, length in enumerate(shape[:-2]):
            endless = UNLIMITED in (self.count[axis], self.block[axis])
            if endless and at_most is not None:
                length = self.start[axis] + at_most * max(self.stride[axis], 1)
            flat = (flat[:, None] * length + self.along(axis, length)).ravel()
        return flat if at_most is None else flat[:at_most]

    def covers(self, shape: tuple[int, ...]) -> bool:
        """True if whole frames are selected."""
        return all(
            self.start[axis] == 0 and self.along(axis, shape[axis]).size == shape[axis]
            for axis in (-2, -1)
        )

    def blocks(self, length: int) -> list[tuple[int, _Axes]]:
        """The single blocks along the first axis of a mapping with numbered files."""
        stride = max(self.stride[0], 1)
        count = self.count[0]
        if count == UNLIMITED:
            count = -(-max(length - self.start[0], 0) // stride)
        return [
            (
                number,
                _Axes(
                    (self.start[0] + number * stride, *self.start[1:]),
                    (1, *self.stride[1:]),
                    (1, *self.count[1:]),
                    self.block,
                ),
            )
            for number in range(count)
        ]
