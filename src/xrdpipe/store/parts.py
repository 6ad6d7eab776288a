"""Work in progress: ``OUTPUT.part/`` with a key and append-only blocks (decisions 20 and 21).

Resumable state is never an HDF5 file: a killed writer leaves one that cannot be opened. Each
block carries its length and checksum; a torn last block is dropped.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import EnvironmentProblemError, OutputExistsError

_HEADER = struct.Struct("<4sQQQI")  # magic, first row, rows, payload bytes, CRC-32
_MAGIC = b"XRB1"

Rows = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Column:
    """One array of a block: what each row holds."""

    dtype: str
    shape: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes per row."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape, dtype=np.int64))


def key_text(key: Mapping[str, Any]) -> str:
    """The key in one canonical form."""
    return json.dumps(key, sort_keys=True, default=str)


def key_hash(key: Mapping[str, Any]) -> str:
    """sha256 of the canonical key."""
    return hashlib.sha256(key_text(key).encode()).hexdigest()


def first_difference(old: Any, new: Any, where: str = "") -> str | None:
    """One phrase naming the first entry in which two keys differ, or None."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            inner = f"{where}.{name}" if where else str(name)
            if name not in old or name not in new:
                here = "there" if name in old else "here"
                return f"{inner} is only {here}"
            found = first_difference(old[name], new[name], inner)
            if found:
                return found
        return None
    if isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return f"{where} has {len(old)} entries there, {len(new)} here"
        for place, (a, b) in enumerate(zip(old, new, strict=True)):
            found = first_difference(a, b, f"{where}[{place}]")
            if found:
                return found
        return None
    return None if old == new else f"{where} is {old!r} there, {new!r} here"


class PartFolder:
    """Blocks of rows waiting to become one output file.

    Parameters
    ----------
    output
        The final file; the folder is its name with ``.part``.
    columns
        What every block holds.
    """

    def __init__(self, output: Path, columns: Mapping[str, Column]) -> None:
        self.output = output
        self.folder = output.with_name(output.name + ".part")
        self._columns = dict(columns)
        self._blocks = self.folder / "rows.bin"

    def begin(self, key: Mapping[str, Any], restart: bool) -> NDArray[np.intp]:
        """Create or continue; returns the rows that are already there.

        Raises
        ------
        OutputExistsError
            If the folder holds work with another key; names the first difference.
        """
        plain = json.loads(key_text(key))
        if restart:
            shutil.rmtree(self.folder, ignore_errors=True)
        note = self.folder / "run.json"
        if note.is_file():
            old = json.loads(note.read_text())
            difference = first_difference(old, plain)
            if difference:
                raise OutputExistsError(
                    f"{self.folder} holds unfinished work of another run ({difference}); "
                    "use --restart to discard it, or another --output."
                )
            return self._keep_whole_blocks()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = note.with_suffix(".tmp")
            temporary.write_text(key_text(key))
            temporary.replace(note)
            self._blocks.write_bytes(b"")
        except OSError as error:
            raise EnvironmentProblemError(f"cannot write to {self.folder}: {error}") from error
        return np.empty(0, np.intp)

    def append(self, first_row: int, rows: Rows) -> None:
        """Write one block, safely on disk when this returns.

        Raises
        ------
        EnvironmentProblemError
            If the disk refuses; what was written before stays valid.
        """
        n_rows = next(iter(rows.values())).shape[0]
        payload = b"".join(
            np.ascontiguousarray(rows[name], np.dtype(column.dtype)).tobytes()
            for name, column in self._columns.items()
        )
        header = _HEADER.pack(_MAGIC, first_row, n_rows, len(payload), zlib.crc32(payload))
        try:
            with self._blocks.open("ab") as stream:
                stream.write(header + payload)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise EnvironmentProblemError(
                f"cannot write to {self.folder}: {error}; free space or permissions, then run "
                "the same command to continue."
            ) from error

    def blocks(self) -> Iterator[tuple[int, Rows]]:
        """All whole blocks in row order, read one at a time."""
        entries = sorted((first, at) for first, _, at in self._index())
        with self._blocks.open("rb") as stream:
            for first, at in entries:
                stream.seek(at)
                yield first, self._read(stream)

    def finish(self, written: Path) -> None:
        """Move the finished file into place and remove the folder."""
        written.replace(self.output)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _keep_whole_blocks(self) -> NDArray[np.intp]:
        rows: list[NDArray[np.intp]] = [np.empty(0, np.intp)]
        end = 0
        for first, n_rows, at in self._index():
            rows.append(np.arange(first, first + n_rows))
            end = at + _HEADER.size + n_rows * sum(c.nbytes for c in self._columns.values())
        with self._blocks.open("ab") as stream:
            stream.truncate(end)
        return np.concatenate(rows)

    def _index(self) -> list[tuple[int, int, int]]:
        """(first row, rows, offset) of every whole block; stops at the first torn one."""
        found = []
        if not self._blocks.exists():
            return []
        with self._blocks.open("rb") as stream:
            while True:
                at = stream.tell()
                head = stream.read(_HEADER.size)
                if len(head) < _HEADER.size:
                    break
                magic, first, n_rows, size, crc = _HEADER.unpack(head)
                payload = stream.read(size)
                if magic != _MAGIC or len(payload) < size or zlib.crc32(payload) != crc:
                    break
                found.append((first, n_rows, at))
        return found

    def _read(self, stream: Any) -> Rows:
        _, _, n_rows, size, _ = _HEADER.unpack(stream.read(_HEADER.size))
        payload = stream.read(size)
        rows: Rows = {}
        offset = 0
        for name, column in self._columns.items():
            count = n_rows * column.nbytes
            flat = np.frombuffer(
                payload,
                np.dtype(column.dtype),
                offset=offset,
                count=-1 if not column.nbytes else count // np.dtype(column.dtype).itemsize,
            )
            rows[name] = flat.reshape((n_rows, *column.shape))
            offset += count
        return rows
