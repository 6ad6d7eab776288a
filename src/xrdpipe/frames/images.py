"""A series of image files (TIFF, CBF, EDF, …), read through fabio."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xrdpipe.errors import FrameError, InputError
from xrdpipe.quiet import quiet
from xrdpipe.schema import FrameStatus
from xrdpipe.types import DetectorInfo, Frame, FrameRecord

_COUNTING = re.compile(r"pilatus|eiger|maxipix|lambda|xpad|medipix|timepix|mythen|merlin", re.I)


SAMPLED = 3
"""Readable frames looked at before the series' shape is decided: one stray image is outvoted."""

_CBF_START = b"\x0c\x1a\x04\xd5"
"""Marks the start of the binary section (CBFlib manual, imgCIF)."""


class ImageSeries:
    """One frame per file, in the order given; numbers come from the names.

    Parameters
    ----------
    files
        In acquisition order.
    name
        What the user asked for, for messages.
    """

    def __init__(self, files: Sequence[Path], name: str) -> None:
        self.name = name
        with quiet():
            import fabio  # noqa: F401 - its import chatter, once and outside the threads
        first, self._first_file = self._typical(files)
        self.shape = (int(first.image.shape[0]), int(first.image.shape[1]))
        self.dtype = first.image.dtype
        self.header = first.header
        frames_per_file = _frames_in(self._first_file)
        numbers, self.numbered = frame_numbers(files)
        self.numbered &= frames_per_file == 1
        records: list[FrameRecord] = []
        for file, number in zip(files, numbers, strict=True):
            try:
                stat = file.stat()
                size, mtime = stat.st_size, stat.st_mtime_ns
            except OSError:
                size, mtime = 0, 0
            n_inside = frames_per_file if frames_per_file == 1 else _frames_in(file)
            for inside in range(n_inside):
                index = number if frames_per_file == 1 else len(records)
                records.append(FrameRecord(str(file), inside, index, size, mtime))
        self.records = tuple(records)
        stated = " ".join(f"{key} {value}" for key, value in first.header.items())
        match = _COUNTING.search(stated)
        self.detector = DetectorInfo(
            description=match.group(0) if match else None,
            saturation_value=_count_cutoff(stated),
            wavelength=_header_wavelength(stated),
        )
        self.kind = (
            f"{len(files)} {self._first_file.suffix.lstrip('.').upper() or 'image'} files, "
            f"{len(records)} frames of {self.shape[0]} x {self.shape[1]} {self.dtype}"
        )

    def read(self, row: int) -> Frame:
        """Read one frame; raises FrameError naming the file."""
        record = self.records[row]
        frame = read_image(Path(record.file), record.place)
        if frame.image.shape != self.shape:
            raise FrameError(
                FrameStatus.WRONG_SHAPE,
                f"{record.file} has {frame.image.shape[0]} x {frame.image.shape[1]} pixels, "
                f"the series has {self.shape[0]} x {self.shape[1]}",
            )
        if frame.image.dtype.newbyteorder("=") != self.dtype.newbyteorder("="):
            # The values that mean 'no measurement' belong to the dtype.
            raise FrameError(
                FrameStatus.WRONG_SHAPE,
                f"{record.file} holds {frame.image.dtype}, the series {self.dtype}",
            )
        return frame

    def _typical(self, files: Sequence[Path]) -> tuple[Frame, Path]:
        """The first frame of the shape most of the first three readable ones have."""
        reason = ""
        found: list[tuple[Frame, Path]] = []
        for file in files:
            try:
                found.append((read_image(file), file))
            except FrameError as error:
                reason = reason or str(error)
            if len(found) == SAMPLED:
                break
        if not found:
            raise InputError(
                f"none of the {len(files)} files of {self.name} can be read as a detector image; "
                f"the first: {reason}."
            )
        shapes = [frame.image.shape for frame, _ in found]
        return found[shapes.index(max(shapes, key=shapes.count))]


def read_image(file: Path, place: int = 0) -> Frame:
    """Read one image with its header; raises FrameError with a status and a reason."""
    if not file.exists():
        raise FrameError(FrameStatus.MISSING, f"{file} does not exist")
    import fabio

    try:
        if file.stat().st_size == 0:
            raise FrameError(FrameStatus.CORRUPT, f"{file} is empty (0 bytes)")
        with file.open("rb"):
            pass
    except OSError as error:
        if isinstance(error, FrameError):
            raise
        raise FrameError(FrameStatus.UNREADABLE, f"{file} cannot be opened: {error}") from error
    _check_cbf(file)
    try:
        opened = fabio.open(str(file)) if place == 0 else fabio.open(str(file)).getframe(place)
        image = np.asarray(opened.data)
        header = {str(key): str(value) for key, value in dict(opened.header).items()}
    except Exception as error:  # fabio raises many kinds for a broken file; each costs one frame
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FrameError(FrameStatus.CORRUPT, f"{file} cannot be decoded ({detail})") from error
    if opened.data is None or getattr(opened, "incomplete_data", False):
        # fabio gives no pixels for a TIFF cut short, and pads an EDF.
        raise FrameError(FrameStatus.CORRUPT, f"{file} is truncated or damaged: pixels are missing")
    if image.ndim != 2 or image.dtype.kind not in "uif":
        raise FrameError(
            FrameStatus.WRONG_SHAPE,
            f"{file} is no detector image: {image.ndim} dimensions of {image.dtype}",
        )
    return Frame(image, header)


def _check_cbf(file: Path) -> None:
    """Refuse a CBF that is cut short or whose pixels do not match their checksum.

    fabio searches for the end of a cut file without ever stopping, and ignores the checksum.
    """
    if file.suffix.lower() != ".cbf":
        return
    content = file.read_bytes()
    start = content.find(_CBF_START)
    stated = re.search(rb"X-Binary-Size:\s*(\d+)", content[: max(start, 0)])
    if start < 0 or stated is None:
        raise FrameError(FrameStatus.CORRUPT, f"{file} is no whole CBF: its header is incomplete")
    first = start + len(_CBF_START)
    needed = first + int(stated.group(1))
    if len(content) < needed:
        raise FrameError(
            FrameStatus.CORRUPT, f"{file} is truncated: {len(content)} bytes of at least {needed}"
        )
    checksum = re.search(rb"Content-MD5:\s*(\S+)", content[:start])
    digest = hashlib.md5(content[first:needed], usedforsecurity=False).digest()
    if checksum is not None and base64.b64encode(digest) != checksum.group(1):
        raise FrameError(
            FrameStatus.CORRUPT, f"{file} is damaged: its pixels do not match their checksum"
        )


def _frames_in(file: Path) -> int:
    import fabio

    try:
        return max(1, int(fabio.open(str(file)).nframes))
    except Exception:  # an unreadable file still takes one place in the scan
        return 1


def frame_numbers(files: Sequence[Path]) -> tuple[list[int], bool]:
    """Acquisition numbers from the digit group that varies between the names (decision 14).

    Where no single group varies, or numbers repeat, the order itself (0, 1, 2, …) and False.
    """
    groups = [re.findall(r"\d+", file.name) for file in files]
    by_order = list(range(len(files)))
    if len(files) == 1:
        own = re.findall(r"\d+", files[0].stem) or groups[0]  # .mar3450 or .bz2 numbers no frame
        return ([int(own[-1])], True) if own else (by_order, False)
    if len({len(group) for group in groups}) != 1:
        return by_order, False
    columns = [[int(group[i]) for group in groups] for i in range(len(groups[0]))]
    varying = [column for column in columns if len(set(column)) > 1]
    if len(varying) != 1 or len(set(varying[0])) != len(files):
        return by_order, False
    return varying[0], True


def _count_cutoff(header: str) -> float | None:
    """Saturation of a DECTRIS mini-CBF header (``Count_cutoff 1048574 counts``)."""
    match = re.search(r"Count_cutoff\W+(\d+)", header)
    return float(match.group(1)) if match else None


def _header_wavelength(header: str) -> float | None:
    match = re.search(r"Wavelength\s+([0-9.]+)\s*A", header)
    return float(match.group(1)) if match else None
