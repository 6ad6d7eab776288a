"""Work in progress: ``OUTPUT.part/`` with a key and append-only blocks (decisions 20 and 21).

Resumable state is never an HDF5 file: a killed writer leaves one that cannot be opened. Each
block carries its length and checksum; a torn last block is dropped. Several processes may share
the folder, each with a file of blocks of its own; locks tell who writes, and end with their
process however it ends.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
import struct
import time
import zlib
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import EnvironmentProblemError, OutputExistsError

try:
    import fcntl
except ImportError:  # Windows: nobody is kept from writing twice
    fcntl = None  # type: ignore[assignment]

_HEADER = struct.Struct("<4sQQQdI")  # magic, first row, rows, payload bytes, Unix time, CRC-32
_MAGIC = b"XRB2"

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


@dataclass(frozen=True)
class Block:
    """Where a block of rows lies, and when it was written (Unix time, s)."""

    first: int
    rows: int
    file: Path
    offset: int
    time: float


PART_SUFFIX, LIVE_SUFFIX = ".part", ".live"

KEY_FILE, COLUMNS_FILE = "run.json", "columns.json"
"""In the folder: what the rows depend on, and what each row holds."""

SHORT = 80
"""Characters of a value in a message."""

LOCK_TRIES, LOCK_PAUSE = 5, 0.05
"""A look at who writes holds the lock for a moment, too; pauses in s."""


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
    if old == new:
        return None
    if isinstance(old, str) and isinstance(new, str) and old[:1] == new[:1] == "{":
        within = first_difference(json.loads(old), json.loads(new), where)  # a key in a key
        return within or f"{where} is written differently"
    return f"{where} is {_short(old)} there, {_short(new)} here"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHORT else text[:SHORT] + "…"


class PartFolder:
    """Blocks of rows waiting to become one output file; a context manager that holds the lock.

    Parameters
    ----------
    output
        The final file; the folder is its name with ``.part``.
    columns
        What every block holds.
    writer
        A process that does a share of the rows beside others has a name, and a file of blocks of
        that name; without one, the folder is this process's alone.
    suffix
        Of the folder, where it is not ``.part``.
    """

    def __init__(
        self,
        output: Path,
        columns: Mapping[str, Column],
        writer: str = "",
        suffix: str = PART_SUFFIX,
    ) -> None:
        self.output = output
        self.folder = output.with_name(output.name + suffix)
        self._columns = dict(columns)
        self._writer = writer
        self._own = self.folder / (f"rows-{writer}.bin" if writer else "rows.bin")
        self._known: list[Block] = []
        self._locks = ExitStack()

    def __enter__(self) -> PartFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        self._locks.close()

    def begin(self, key: Mapping[str, Any], restart: bool) -> NDArray[np.intp]:
        """Create or continue; returns the rows that are already there.

        Raises
        ------
        OutputExistsError
            If the folder holds work with another key; names the first difference.
        EnvironmentProblemError
            If it cannot be written, or another process is writing it.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock()
            if restart:
                self._discard()
            self._claim(key)
            self._own.touch()
        except OSError as error:
            if isinstance(error, OutputExistsError):
                raise
            raise EnvironmentProblemError(f"cannot write to {self.folder}: {error}.") from error
        return self._keep_whole_blocks()

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
        now = time.time()
        fields = (_MAGIC, first_row, n_rows, len(payload), now)
        header = _HEADER.pack(*fields, _checksum(fields, payload))
        try:
            with self._own.open("ab") as stream:
                at = stream.tell()
                stream.write(header + payload)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise EnvironmentProblemError(
                f"cannot write to {self.folder}: {error}; free space or permissions, then run "
                "the same command to continue."
            ) from error
        self._known.append(Block(first_row, n_rows, self._own, at, now))

    def blocks(self, only: Container[str] = ()) -> Iterator[tuple[int, Rows]]:
        """All rows in order, a block at a time; what two writers did is taken once.

        ``only`` some columns, where others are not needed.
        """
        end = 0
        with ExitStack() as opened:
            streams: dict[Path, BinaryIO] = {}
            for block in sorted(self._known, key=lambda block: (block.first, -block.rows)):
                past = block.first + block.rows
                if past <= end:
                    continue
                if block.file not in streams:
                    streams[block.file] = opened.enter_context(block.file.open("rb"))
                rows = read_block(streams[block.file], block, self._columns, only)
                repeated = max(end - block.first, 0)
                yield block.first + repeated, {k: v[repeated:] for k, v in rows.items()}
                end = past

    def block(self, number: int) -> Rows:
        """One block by the order in which blocks were appended."""
        block = self._known[number]
        with block.file.open("rb") as stream:
            return read_block(stream, block, self._columns)

    def __len__(self) -> int:
        """Number of blocks."""
        return len(self._known)

    def discard(self) -> None:
        """Remove the folder: the output is written."""
        # Without its key nobody takes what is left for work in progress.
        (self.folder / KEY_FILE).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._locks.close()

    def _lock(self) -> None:
        """Keep others from writing: all of them, or those of the same name."""
        names = {"lock": not self._writer}
        if self._writer:
            names[f"lock-{self._writer}"] = True
        for name, alone in names.items():
            self._locks.enter_context(_locked(self.folder / name, alone, self.output))

    def _discard(self) -> None:
        """Remove earlier work; a process with a name removes its own only."""
        if self._writer:
            self._own.unlink(missing_ok=True)
            return
        for file in self.folder.iterdir():
            if not file.name.startswith("lock"):
                file.unlink()

    def _claim(self, key: Mapping[str, Any]) -> None:
        """Leave the key, or find that what is there has the same."""
        if not (self.folder / KEY_FILE).is_file():
            write_whole(self.folder / KEY_FILE, key_text(key), replace=False)
        refuse_another(self.folder, key)
        if not (self.folder / COLUMNS_FILE).is_file():
            columns = {name: [c.dtype, list(c.shape)] for name, c in self._columns.items()}
            write_whole(self.folder / COLUMNS_FILE, json.dumps(columns))
        sync_folder(self.folder)

    def _keep_whole_blocks(self) -> NDArray[np.intp]:
        """Rows on disk; drops a torn last block of this process's own file."""
        # A share looks through its own file; who has all of them looks through all.
        self._known = whole_blocks(self.folder, self._own if self._writer else True)
        own = [block for block in self._known if block.file == self._own]
        width = sum(column.nbytes for column in self._columns.values())
        end = own[-1].offset + _HEADER.size + own[-1].rows * width if own else 0
        with self._own.open("ab") as stream:
            stream.truncate(end)
        return rows_of(self._known)


def read_block(
    stream: BinaryIO, block: Block, columns: Mapping[str, Column], only: Container[str] = ()
) -> Rows:
    """Content of a block, or ``only`` some of its columns, from the file it lies in."""
    rows: Rows = {}
    at = block.offset + _HEADER.size
    for name, column in columns.items():
        size = block.rows * column.nbytes
        if not only or name in only:
            stream.seek(at)
            flat = np.frombuffer(stream.read(size), np.dtype(column.dtype))
            rows[name] = flat.reshape((block.rows, *column.shape))
        at += size
    return rows


def stored_columns(folder: Path) -> dict[str, Column]:
    """What each row holds, as the process that began said; empty where it did not."""
    try:
        stored = json.loads((folder / COLUMNS_FILE).read_text())
        return {name: Column(dtype, tuple(shape)) for name, (dtype, shape) in stored.items()}
    except (OSError, ValueError, TypeError):
        return {}


def rows_of(blocks: Iterable[Block]) -> NDArray[np.intp]:
    """Numbers of the rows in some blocks, each once."""
    rows = [np.arange(block.first, block.first + block.rows) for block in blocks]
    return np.unique(np.concatenate([np.empty(0, np.intp), *rows]))


def refuse_another(folder: Path, key: Mapping[str, Any]) -> None:
    """Raise OutputExistsError, naming the first difference, if the work has another key."""
    difference = first_difference(stored_key(folder), json.loads(key_text(key)))
    if difference:
        raise OutputExistsError(
            f"{folder} holds unfinished work of another run ({difference}); "
            "use --restart to discard it, or another --output."
        )


def part_folder(output: Path) -> Path:
    """Where the unfinished work of an output lies."""
    return output.with_name(output.name + PART_SUFFIX)


def live_folder(output: Path) -> Path:
    """Where the rows of a scan that is followed wait."""
    return output.with_name(output.name + LIVE_SUFFIX)


def discard_leftover(output: Path) -> None:
    """Remove the unfinished work of a finished output: its run ended just before doing so."""
    for folder in (part_folder(output), live_folder(output)):
        if folder.is_dir() and not writers(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _checksum(fields: tuple[Any, ...], payload: bytes) -> int:
    """CRC-32 of a block: of what its header says, too."""
    return zlib.crc32(payload, zlib.crc32(_HEADER.pack(*fields, 0)))


def whole_blocks(folder: Path, verify: Path | bool = True) -> list[Block]:
    """Every whole block of every writer; a file is read up to its first torn one.

    Parameters
    ----------
    verify
        Leave out blocks with a wrong checksum, in all files or in this one; elsewhere a block is
        whole if all of its bytes are there, and headers alone are read.
    """
    found = []
    for file in sorted(folder.glob("rows*.bin")):
        check = verify is True or verify == file
        with file.open("rb") as stream:
            while True:
                at = stream.tell()
                head = stream.read(_HEADER.size)
                if len(head) < _HEADER.size:
                    break
                *fields, crc = _HEADER.unpack(head)
                magic, first, n_rows, size, when = fields
                left = os.fstat(stream.fileno()).st_size - stream.tell()
                if magic != _MAGIC or left < size:
                    break
                if not check:
                    stream.seek(size, os.SEEK_CUR)
                elif _checksum(tuple(fields), stream.read(size)) != crc:
                    continue
                found.append(Block(first, n_rows, file, at, when))
    return found


def writers(folder: Path) -> list[dict[str, Any]]:
    """Processes that are writing now: ``host``, ``pid``, ``since`` (Unix time, s)."""
    found = []
    for file in sorted(folder.glob("lock*")):
        try:
            with file.open() as stream:  # reading is enough: others may look, too
                if not try_lock(stream, alone=False):
                    found.append(_holder(file))
        except OSError:
            continue  # not ours to open, or just removed
    return found


def stored_key(folder: Path) -> Any:
    """What unfinished work depends on.

    Raises
    ------
    OutputExistsError
        If that cannot be read.
    """
    note = folder / KEY_FILE
    try:
        return json.loads(note.read_text())
    except ValueError as error:
        raise OutputExistsError(
            f"{note} is damaged ({error}); use --restart to discard the unfinished work."
        ) from error


def _holder(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError):
        return {"host": "unknown", "pid": 0, "since": 0.0}


def _locked(file: Path, alone: bool, output: Path) -> BinaryIO:
    """Hold a lock until the result is closed or the process ends, however it ends.

    Raises
    ------
    EnvironmentProblemError
        If another process holds it.
    """
    for _ in range(LOCK_TRIES):
        stream = file.open("a+b")
        # The file may have been removed by a run that finished between opening and locking.
        if try_lock(stream, alone) and file.exists() and file.stat().st_ino == _inode(stream):
            if alone:
                stream.truncate(0)
                holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
                stream.write(json.dumps(holder).encode())
                stream.flush()
            return stream
        stream.close()
        file.parent.mkdir(parents=True, exist_ok=True)
        time.sleep(LOCK_PAUSE)
    holder = next(iter(writers(file.parent)), _holder(file))
    raise being_written(output, holder)


def being_written(output: Path, writer: Mapping[str, Any] | None = None) -> EnvironmentProblemError:
    """What to say where somebody else writes, one of :func:`writers` if that is known."""
    who = f"process {writer['pid']} on {writer['host']}" if writer else "another process"
    return EnvironmentProblemError(
        f"{who} is writing {output}; wait for it, or give another --output."
    )


def try_lock(stream: Any, alone: bool) -> bool:
    """True unless another process holds it; file systems without locks never say no."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(stream, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
            raise
    return True


def _inode(stream: BinaryIO) -> int:
    return os.fstat(stream.fileno()).st_ino


def write_whole(file: Path, text: str, replace: bool = True) -> None:
    """Write a small file that is there whole or not at all; the first one stays if not ``replace``.

    File systems without hard links let the last one stay.
    """
    # A name of its own: several processes may begin at once, with the same content.
    temporary = file.with_suffix(f".{socket.gethostname()}-{os.getpid()}.tmp")
    with temporary.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    if not replace:
        try:
            os.link(temporary, file)
        except FileExistsError:
            temporary.unlink()
            return
        except OSError:
            pass  # no hard links here
        else:
            temporary.unlink()
            return
    temporary.replace(file)


def sync_folder(folder: Path) -> None:
    """Make a rename or a new file in a folder survive a power cut."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # not every system opens folders
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
