"""A series of image files (TIFF, CBF, EDF, MarCCD, …), read through fabio."""

from __future__ import annotations

import copy
import os
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import FrameError, InputError
from xrdpipe.frames.headers import (
    CBF_START,
    COMPRESSED,
    Header,
    as_text,
    detector_info,
    exposure_key,
    frames_stated,
    is_cbf,
    numbers,
    numpy_frames,
    open_stream,
    read_headers,
    text_values,
)
from xrdpipe.frames.names import Names, motor_axes, original_name, pattern, read_names
from xrdpipe.frames.plain import byte_offset_pixels, cbf_image, plain_pixels
from xrdpipe.frames.whole import check_whole
from xrdpipe.quiet import quiet
from xrdpipe.schema import FrameStatus
from xrdpipe.types import Encoded, Frame, FrameRecord

SAMPLED = 3
"""Readable frames looked at before the series' shape is decided: one stray image is outvoted."""

HEADER_THREADS = 8
"""Headers lie on network disks: waiting for one file overlaps with the next."""

_FORMATS = {
    "PilatusImage": "Pilatus TIFF",
    "TifImage": "TIFF",
    "MarccdImage": "MarCCD",
    "CbfImage": "CBF",
    "EdfImage": "EDF",
    "Mar345Image": "mar345",
    "SpeImage": "SPE",
    "GeImage": "GE",
    "BrukerImage": "Bruker",
    "Bruker100Image": "Bruker",
}


@dataclass(frozen=True)
class _File:
    """One file of the series, before its frames are counted."""

    path: Path
    number: int
    size: int
    mtime_ns: int
    problem: int = 0
    reason: str = ""

    def record(self, place: int, index: int) -> FrameRecord:
        """Record of one of its frames."""
        return FrameRecord(
            str(self.path), place, index, self.size, self.mtime_ns, self.problem, self.reason
        )


@dataclass(frozen=True)
class _Decoded:
    """A frame as fabio gives it, with the number of frames in its file and the file's format."""

    path: Path
    frame: Frame
    frames: int
    kind: str


class ImageSeries:
    """The frames of image files, in the order their names say; numbers come from the names.

    The later of two files that are one frame (a link, a copy, a compressed twin) is a duplicate:
    it keeps the number of the first, stands behind it, and shifts nothing.

    Parameters
    ----------
    files
        In natural order, with what the disk says of each; None where a link points to nothing.
    name
        What the user asked for, for messages.
    notes
        Evidence from where the files were found.
    """

    def __init__(
        self,
        files: Mapping[Path, os.stat_result | None],
        name: str,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        with quiet():
            import fabio  # noqa: F401 - its import chatter, once and outside the threads
        # fabio tries a TIFF that it cannot read with Pillow, which complains and gives up too.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        twins = _twins(files)
        originals = [path for path in files if path not in twins]
        names = read_names(originals)
        self._files = _described(files, originals, names, twins)
        # Of files of many frames: a first one that is not there has its places too.
        self._base = min(1, *names.numbers) if len(originals) > 1 else names.numbers[0]
        self._start = int(self._base == 1 < len(originals))
        first = self._typical()
        self.shape = (int(first.frame.image.shape[0]), int(first.frame.image.shape[1]))
        self.dtype = first.frame.image.dtype
        self._per_file = first.frames
        self._plain = first.frames == 1 and _is_plain(first)
        """Files of one frame that ``plain_pixels`` reads as fabio does, by the first of them."""
        self.records = tuple(self._records(first.frames))
        self.numbered = names.numbered and (self._per_file == 1 or len(originals) > 1)
        headers = self._sampled_headers(first.path)
        self.header = headers[0] if headers else first.frame.header
        self._stated = numbers(self.header)
        self.detector = detector_info(self.header)
        self._from_names = self._spread(names)
        motors = {key: units for key, (_, units) in _varying(headers).items()}
        self.columns = {key: units for key, (_, units) in self._from_names.items()} | motors
        self.scan = names.scan if self._per_file == 1 else None
        self.scan = self.scan or motor_axes(list(motors))
        self._columns: dict[str, NDArray[np.float64]] | None = None
        self._lock = threading.Lock()
        kind = first.kind if "MarCCD" not in (self.detector.description or "") else "MarCCD"
        per_file = f" of {self._per_file} frames" if self._per_file > 1 else ""
        self.kind = (
            f"{_counted(len(files), f'{kind} file')}{per_file}, "
            f"{_counted(len(self.records), 'frame')} of {self.shape[0]} x {self.shape[1]} "
            f"{self.dtype}"
        )
        self.warnings: tuple[str, ...] = ()
        self.evidence = (
            f"{first.path.name} is {kind} by its content",
            *names.evidence,
            *notes,
            *self._problems(),
        )

    def read(self, row: int) -> Frame:
        """Read one frame; raises FrameError naming the file."""
        record = self.records[row]
        if record.problem:
            raise FrameError(record.problem, record.reason)
        decoded = _decode(Path(record.file), record.place)
        frame = decoded.frame
        if frame.image.shape != self.shape:
            raise FrameError(
                FrameStatus.WRONG_SHAPE,
                f"{record.file} has {frame.image.shape[0]} x {frame.image.shape[1]} pixels, "
                f"the series has {self.shape[0]} x {self.shape[1]}",
            )
        if frame.image.dtype != self.dtype:
            # The values that mean 'no measurement' belong to the dtype.
            raise FrameError(
                FrameStatus.WRONG_SHAPE,
                f"{record.file} holds {frame.image.dtype}, the series {self.dtype}",
            )
        if self._per_file == 1 < decoded.frames:
            raise FrameError(
                FrameStatus.WRONG_SHAPE,
                f"{record.file} holds {decoded.frames} frames, the other files one each; "
                "give it on its own",
            )
        return frame

    def holding(self, records: Sequence[FrameRecord]) -> ImageSeries:
        """The same kind of frames in other files, which are not looked at before they are read."""
        other = copy.copy(self)
        other.records = tuple(records)
        return other

    def fetch(self, row: int) -> Encoded | NDArray[Any]:
        """The pixels without their header, past fabio where its file is of the simplest kind."""
        record = self.records[row]
        if self._plain and not record.problem:
            pixels = plain_pixels(Path(record.file), self.shape, self.dtype)
            if pixels is not None:
                return pixels
        return self.read(row).image

    @property
    def exposure(self) -> NDArray[np.float64] | float | None:
        """Exposure time in s, from the headers."""
        found = exposure_key(self.header)
        if found is None:
            return None
        key, seconds = found
        if key in self.columns:
            values = self.column(key)
            return None if values is None else values * seconds
        return self._stated[key][0] * seconds

    def column(self, name: str) -> NDArray[np.float64] | None:
        """Values of a position in the names, or of a key that the first headers hold."""
        if name in self._from_names:
            return self._from_names[name][0]
        with self._lock:
            if name not in self._stated:
                return None
            if self._columns is None:
                self._columns = self._read_columns()
            return self._columns[name]

    def _read_columns(self) -> dict[str, NDArray[np.float64]]:
        """Every number of every header, in one pass over the files."""
        columns = {key: np.full(len(self.records), np.nan) for key in self._stated}
        rows: dict[str, list[int]] = {}
        for row, record in enumerate(self.records):
            if not record.problem:
                rows.setdefault(record.file, []).append(row)

        def fill(file: str) -> None:
            try:
                headers = [numbers(header) for header in read_headers(Path(file))]
            except Exception:  # as many kinds as fabio has readers; the frame itself says why
                return
            for row in rows[file]:
                place = self.records[row].place
                for key, (value, _) in headers[place].items() if place < len(headers) else ():
                    if key in columns:
                        columns[key][row] = value

        with ThreadPoolExecutor(HEADER_THREADS) as pool:
            list(pool.map(fill, rows))
        return columns

    def _typical(self) -> _Decoded:
        """The first frame of the shape most of the first three readable ones have."""
        reason = ""
        found: list[_Decoded] = []
        for file in self._files:
            if file.problem:
                reason = reason or file.reason
                continue
            try:
                found.append(_decode(file.path))
            except FrameError as error:
                reason = reason or str(error)
            if len(found) == SAMPLED:
                break
        if not found:
            raise InputError(
                f"none of the {len(self._files)} files of {self.name} can be read as a detector "
                f"image; the first: {reason}."
            )
        shapes = [decoded.frame.image.shape for decoded in found]
        return found[shapes.index(max(shapes, key=shapes.count))]

    def _records(self, first: int) -> Iterator[FrameRecord]:
        """One record per frame.

        Where the first readable file holds one frame, so do all. Else the headers are counted,
        once per size on disk; a file that is missing, unreadable or short keeps the places of as
        many frames as the fullest file has, except at the end. Frames are
        counted from 0 or 1 as the files are.
        """
        if first == 1:
            for file in self._files:
                yield file.record(0, file.number)
            return
        inside_of = [0 if file.problem else 1 for file in self._files]
        by_size: dict[int, int] = {}
        for position, file in enumerate(self._files):
            if not file.problem:
                if file.size not in by_size or file.path.suffix.lower() in COMPRESSED:
                    by_size[file.size] = _frames_in(file.path)
                inside_of[position] = by_size[file.size]
        self._per_file = stride = max(inside_of)
        for position, (file, inside) in enumerate(zip(self._files, inside_of, strict=True)):
            end = position == len(self._files) - 1
            for place in range(inside if end and inside else stride):
                index = self._start + (file.number - self._base) * stride + place
                record = file.record(place, index)
                if inside and place >= inside:
                    reason = f"{file.path} holds {inside} frames, other files {stride}"
                    record = replace(record, problem=FrameStatus.MISSING, reason=reason)
                yield record

    def _sampled_headers(self, typical: Path) -> list[Header]:
        """Headers of the typical file first, then of the first, second, middle and last."""
        usable = [file.path for file in self._files if not file.problem]
        chosen = [typical, usable[0], *usable[1:2], usable[len(usable) // 2], usable[-1]]
        headers: list[Header] = []
        for path in dict.fromkeys(chosen):
            try:
                headers += read_headers(path)
            except Exception:  # as many kinds as fabio has readers
                continue
        return headers

    def _spread(self, names: Names) -> dict[str, tuple[NDArray[np.float64], str]]:
        """Columns of the names, which are per file, for each frame; duplicates have their own."""
        by_number = dict(zip(names.numbers, range(len(names.numbers)), strict=True))
        each, base, start = self._per_file, self._base, self._start
        files = [
            record.index if each == 1 else base + (record.index - start) // each
            for record in self.records
        ]
        if not by_number.keys() >= set(files):
            raise InputError(f"{self.name}: its files contradict each other on their frames.")
        rows = [by_number[number] for number in files]
        return {key: (values[rows], units) for key, (values, units) in names.columns.items()}

    def _problems(self) -> list[str]:
        words = {FrameStatus.DUPLICATE: "duplicate", FrameStatus.MISSING: "missing frame"}
        found = []
        for problem, word in words.items():
            reasons = [record.reason for record in self.records if record.problem == problem]
            if reasons:
                found.append(f"{_counted(len(reasons), word)}, the first: {reasons[0]}")
        return found


def _twins(files: Mapping[Path, os.stat_result | None]) -> dict[Path, tuple[Path, str]]:
    """Files that are a frame already given: later one → (first one, why).

    The same place on the disk (``latest.tif``, a link to a frame), or the same name but for the
    mark of a copy or of a compression (``a_0001 (1).tif``, ``a_0001_copy.tif``,
    ``a_0001.tif.gz``). A link that has a number of its own in the series is a frame of its own:
    whoever made it wanted it there.
    """

    def place(path: Path) -> Any:
        stat = files[path]
        return path if stat is None else (stat.st_dev, stat.st_ino)

    def name(path: Path) -> Any:
        return path.parent, original_name(path.name)

    found: dict[Path, tuple[Path, str]] = {}

    def numbered_alike(path: Path, first: Path) -> bool:
        return path.parent == first.parent and pattern(path.name) == pattern(first.name)

    ways = ((place, "is the same file as"), (name, "is, by its name, a copy of"))
    for key, why in ways:
        groups: dict[Any, list[Path]] = {}
        for path in files:
            if path not in found:
                groups.setdefault(key(path), []).append(path)
        for group in groups.values():
            if len(group) > 1:
                # A link repeats a file, and a mark makes a name longer.
                first = min(group, key=lambda path: (path.is_symlink(), len(path.name)))
                found |= {
                    path: (first, why)
                    for path in group
                    if path != first and (key is name or not numbered_alike(path, first))
                }
    # A link to a copy repeats what was copied.
    return {
        path: (found[first][0] if first in found else first, why)
        for path, (first, why) in found.items()
    }


def _described(
    files: Mapping[Path, os.stat_result | None],
    originals: list[Path],
    names: Names,
    twins: Mapping[Path, tuple[Path, str]],
) -> list[_File]:
    """Files in the order of the series; a duplicate right behind the file it repeats."""
    behind: dict[Path, list[Path]] = {}
    for twin, (path, _) in twins.items():
        behind.setdefault(path, []).append(twin)
    described = []
    for place, number in zip(names.order, names.numbers, strict=True):
        for path in (originals[place], *behind.get(originals[place], ())):
            stat = files[path]
            problem, reason = 0, ""
            if path in twins:
                other, why = twins[path]
                problem, reason = FrameStatus.DUPLICATE, f"{path} {why} {other}"
            elif stat is None:
                problem = FrameStatus.MISSING
                reason = f"{path} points to a file that is not there"
            elif stat.st_size == 0:
                problem, reason = FrameStatus.CORRUPT, f"{path} is empty (0 bytes)"
            size, mtime = (stat.st_size, stat.st_mtime_ns) if stat else (0, 0)
            described.append(_File(path, number, size, mtime, problem, reason))
    return described


def _varying(headers: list[Header]) -> dict[str, tuple[float, str]]:
    """Numbers of the first header that are others in a later one: what one calls columns."""
    found = [numbers(header) for header in headers]
    return {
        key: value
        for key, value in (found[0] if found else {}).items()
        if any(key in other and other[key][0] != value[0] for other in found[1:])
    }


def _counted(n: int, what: str) -> str:
    """``1 frame``, ``2 frames``."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def _is_plain(decoded: _Decoded) -> bool:
    image = decoded.frame.image
    pixels = plain_pixels(decoded.path, (int(image.shape[0]), int(image.shape[1])), image.dtype)
    if isinstance(pixels, Encoded):
        pixels = byte_offset_pixels(pixels.data, image.size).reshape(image.shape)
    return pixels is not None and np.array_equal(pixels, image, equal_nan=image.dtype.kind == "f")


def _frames_in(file: Path) -> int:
    """Number of frames; 0 if the file cannot be read: it then has the places of a full one."""
    try:
        return len(read_headers(file))
    except Exception:  # as many kinds as fabio has readers; the frame itself says why
        return 0


# --- one file ---------------------------------------------------------------------------------


def read_image(file: Path, place: int = 0) -> Frame:
    """Read one image with its header; raises FrameError with a status and a reason."""
    return _decode(file, place).frame


def _decode(file: Path, place: int = 0) -> _Decoded:
    from fabio.openimage import openimage

    check_whole(file)
    if file.suffix.lower() == ".npy":
        return _of_numpy(file, place)
    with open_stream(file) as stream:
        if is_cbf(file, stream.read(6)):
            return _of_cbf(file, place)
    try:
        opened: Any = openimage(str(file))
        frames = frames_stated(opened, file)
        if place >= frames:
            # fabio would take the next file of the folder for the next frame.
            raise ValueError(f"it holds {frames} frames")
        kind = opened.classname
        if place and kind == "SpeImage":
            opened = openimage(str(file), place)
        elif place:
            opened = opened.getframe(place)
        data = opened.data
        header = as_text(opened.header)
    except MemoryError:
        raise
    except Exception as error:  # fabio raises many kinds for a broken file; each costs one frame
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FrameError(FrameStatus.CORRUPT, f"{file} cannot be decoded ({detail})") from error
    if data is None or getattr(opened, "incomplete_data", False):
        # fabio gives no pixels for a TIFF it cannot read, and pads an EDF.
        raise FrameError(FrameStatus.CORRUPT, f"{file} is truncated or damaged: pixels are missing")
    image = np.asarray(data)
    if image.dtype.kind == "b":  # a TIFF of one bit per pixel: a mask
        image = image.astype(np.uint8)
    if image.ndim != 2 or image.dtype.kind not in "uif":
        raise FrameError(
            FrameStatus.WRONG_SHAPE,
            f"{file} is no detector image: {image.ndim} dimensions of {image.dtype}",
        )
    if kind.startswith("Bruker") and image.dtype.kind in "ui":
        # Stored with as few bytes as a frame's counts need: no two frames alike.
        image = image.astype(np.int32)
    image = image.astype(image.dtype.newbyteorder("="), copy=False)
    return _Decoded(file, Frame(image, header), frames, _FORMATS.get(kind, kind))


def _of_cbf(file: Path, place: int) -> _Decoded:
    """Past fabio, which looks for the end of a damaged header for ever."""
    with open_stream(file) as stream:
        content = stream.read()
    try:
        if place:
            raise ValueError("it holds one frame")
        image = cbf_image(content)
    except ValueError as error:
        raise FrameError(FrameStatus.CORRUPT, f"{file} cannot be decoded ({error})") from error
    header = text_values(content.partition(CBF_START)[0].decode(errors="replace"))
    return _Decoded(file, Frame(image, header), 1, _FORMATS["CbfImage"])


def _of_numpy(file: Path, place: int) -> _Decoded:
    try:
        stack = numpy_frames(file)
        image = np.array(stack[place])
    except (ValueError, IndexError, EOFError) as error:
        raise FrameError(FrameStatus.CORRUPT, f"{file} cannot be decoded ({error})") from error
    image = image.astype(image.dtype.newbyteorder("="), copy=False)
    return _Decoded(file, Frame(image), len(stack), "NumPy")
