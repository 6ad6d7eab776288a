"""Rows of frames that were integrated as they came, and their way into the final file.

``OUTPUT.live/`` holds blocks like ``OUTPUT.part/``, in the order in which frames came. At the end
the ordinary run asks for its rows; a frame that is still the one that was integrated is not
integrated again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.cores import usable_cores
from xrdpipe.errors import FrameError
from xrdpipe.schema import FrameFlag
from xrdpipe.stages.job import Job, columns_of
from xrdpipe.stages.live.arrivals import Arrival, digest, frame_of
from xrdpipe.stages.reduction import BLOCK_ROWS, Blocks, reduced_blocks
from xrdpipe.store.parts import LIVE_SUFFIX, Column, PartFolder, Rows
from xrdpipe.types import Progress

IDENTITY = {
    "file": Column("S512"),
    "place": Column("<i8"),
    "size": Column("<i8"),
    "mtime_ns": Column("<i8"),
    "digest": Column("S32"),
    "divisor": Column("<f8"),
    "numbers": Column("S128"),
}
"""Which frame a row is of, what it was divided by, and the numbers that place it; a frame whose
file or numbers do not fit has no file: it is integrated again."""


@dataclass(frozen=True)
class _Kept:
    """Where the row of a frame lies, and what the frame was when it was integrated."""

    block: int
    place: int
    stamp: tuple[int, int]
    digest: str
    divisor: float
    retried: bool
    """Read at a second try, which a later run would not say of it."""


class KeptRows:
    """The folder of rows; holds its lock until closed.

    Parameters
    ----------
    job
        Of the frames that were there first.
    output
        The patterns file to come.
    base
        Folder that file names are kept relative to, so that a moved scan is known again.
    restart
        Discard what is there.

    Raises
    ------
    OutputExistsError
        If the folder holds rows made with other options.
    """

    def __init__(self, job: Job, output: Path, base: Path, restart: bool) -> None:
        self._base = base
        self._columns = columns_of(job)
        self._parts = PartFolder(output, self._columns | IDENTITY, suffix=LIVE_SUFFIX)
        self._rows: dict[tuple[str, int], _Kept] = {}
        self._key = live_key(job)
        self._parts.begin(self._key, restart)
        self._arrived = 0
        for number in range(len(self._parts)):
            self._note(number, self._parts.block(number))

    @property
    def folder(self) -> Path:
        """Where the rows lie."""
        return self._parts.folder

    def __len__(self) -> int:
        """Frames with a row."""
        return len(self._rows)

    def close(self) -> None:
        """Let others write."""
        self._parts.__exit__()

    def discard(self) -> None:
        """Remove the folder."""
        self._parts.discard()

    def blocks(self) -> Iterator[tuple[tuple[Arrival, ...], Rows]]:
        """Frames of each block with their rows; a frame that came again is in a later one, too."""
        for number in range(len(self._parts)):
            rows = self._parts.block(number)
            named = rows["file"] != b""
            rows = {name: values[named] for name, values in rows.items()}
            arrivals = tuple(
                Arrival(
                    (os.path.join(self._base, file.decode()), place),  # noqa: PTH118 - h5::path
                    row,
                    (size, mtime_ns),
                    tuple(int(n) for n in numbers.split()),
                )
                for row, (file, place, size, mtime_ns, numbers) in enumerate(
                    zip(
                        *(rows[n].tolist() for n in ("file", "place", "size", "mtime_ns")),
                        rows["numbers"].tolist(),
                        strict=True,
                    )
                )
            )
            yield arrivals, {name: rows[name] for name in self._columns}

    def keep(self, arrivals: list[Arrival], rows: Rows, digests: list[str], divisor: float) -> None:
        """Write rows of frames, safely on disk when this returns."""
        identity: dict[str, list[Any]] = {
            "file": [self._name_of(a) for a in arrivals],
            "place": [a.frame[1] for a in arrivals],
            "size": [a.stamp[0] for a in arrivals],
            "mtime_ns": [a.stamp[1] for a in arrivals],
            "digest": digests,
            "divisor": [divisor] * len(arrivals),
            "numbers": [_numbers_of(a) for a in arrivals],
        }
        whole = rows | {
            name: np.array(values, np.dtype(IDENTITY[name].dtype))
            for name, values in identity.items()
        }
        self._parts.append(self._arrived, whole)
        self._note(len(self._parts) - 1, whole)

    def hand_over(self, job: Job, waiting: NDArray[np.intp], progress: Progress) -> Blocks:
        """Blocks of some rows of the complete scan: those that are kept, then the others."""
        known = self._valid(job, waiting)
        rows = np.array(sorted(known), np.intp)
        if rows.size:
            progress.note(f"{rows.size} of {waiting.size} frames were integrated as they came")
        held: tuple[int, Rows] = -1, {}
        for some in np.split(rows, np.flatnonzero(_breaks(rows)) + 1) if rows.size else ():
            if progress.stopped():
                return
            block: Rows = {
                name: np.empty((some.size, *column.shape), np.dtype(column.dtype))
                for name, column in self._columns.items()
            }
            for at, row in enumerate(some.tolist()):
                kept = known[row]
                if held[0] != kept.block:
                    held = kept.block, self._parts.block(kept.block)
                for name, values in block.items():
                    values[at] = held[1][name][kept.place]
            progress.advance(some.size)
            yield int(some[0]), block
        yield from reduced_blocks(job, np.setdiff1d(waiting, rows), progress)

    def _name_of(self, arrival: Arrival) -> bytes:
        """The file as it is kept; empty where it, or its numbers, would be cut short."""
        name = os.path.relpath(arrival.frame[0], self._base).encode()
        fits = _fits("file", name) and _fits("numbers", _numbers_of(arrival))
        return name if fits else b""

    def _note(self, number: int, rows: Rows) -> None:
        columns = [rows[name].tolist() for name in ("file", "place", "size", "mtime_ns")]
        digests, divisors = rows["digest"].tolist(), rows["divisor"].tolist()
        for place, (file, part, size, mtime, content, divisor) in enumerate(
            zip(*columns, digests, divisors, strict=True)
        ):
            if not file:
                continue
            retried = bool(rows["flags"][place] & FrameFlag.RETRIED)
            self._rows[file.decode(), part] = _Kept(
                number, place, (size, mtime), content.decode(), divisor, retried
            )
        self._arrived += rows["file"].size

    def _valid(self, job: Job, waiting: NDArray[np.intp]) -> dict[int, _Kept]:
        """Rows whose frame is still what was integrated, in the way this job would do it."""
        if live_key(job) != self._key:
            return {}
        found: dict[int, _Kept] = {}
        unsure: dict[int, _Kept] = {}
        for row in waiting.tolist():
            record = job.source.records[row]
            file, place = frame_of(record)
            kept = self._rows.get((os.path.relpath(file, self._base), place))
            if kept is None or kept.retried or record.problem:
                continue
            try:
                if kept.divisor != job.normalisation.divisor(row):
                    continue
            except FrameError:
                continue
            if not kept.digest:
                if kept.stamp == (record.size, record.mtime_ns):
                    found[row] = kept
            else:
                unsure[row] = kept
        with ThreadPoolExecutor(job.config.threads or usable_cores()) as pool:
            same = pool.map(lambda row: _digest_of(job, row) == unsure[row].digest, unsure)
            found |= {row: unsure[row] for row, agrees in zip(unsure, same, strict=True) if agrees}
        return found


def _numbers_of(arrival: Arrival) -> bytes:
    return " ".join(map(str, arrival.numbers)).encode()


def _fits(name: str, text: bytes) -> bool:
    return len(text) <= np.dtype(IDENTITY[name].dtype).itemsize


def live_key(job: Job) -> dict[str, Any]:
    """What a row depends on besides its frame: the key of the run without the list of frames."""
    header = job.header
    planes = [*job.reducer.static_valid.values(), *header.norm.values()]
    of_frames = ("frames", "exposure")
    return {name: value for name, value in header.key.items() if name not in of_frames} | {
        "stage": "live",
        "shape": list(job.source.shape),
        "dtype": job.source.dtype.str,
        "pixels": repr(dataclasses.replace(job.kind, reason="")),
        "settings": repr(job.reducer.settings),
        "path": header.parameters["integration_path"],
        "wavelength": header.wavelength,
        "bins": _hash(header.radial_edges),
        "planes": [_hash(np.asarray(plane)) for plane in planes],
    }


def _hash(values: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def _digest_of(job: Job, row: int) -> str:
    try:
        return digest(job.source.fetch(row))
    except FrameError:
        return ""


def _breaks(rows: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Where a new block begins: as in a run that integrates them."""
    return np.asarray((np.diff(rows) != 1) | (rows[1:] % BLOCK_ROWS == 0), np.bool_)
