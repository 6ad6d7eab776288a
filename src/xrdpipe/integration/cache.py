"""Arrays kept on disk between runs: what geometry, mask and binning alone decide.

One file per entry, named by a hash of everything that enters it and written under another name
before it is renamed. So there is no lock that could go stale: a reader finds a whole entry or none,
of two processes that build at once the last one's rename stands, with the same bytes, and a process
that has mapped an entry keeps its pages when another removes the file. Processes share the pages.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import platform
import sys
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from importlib.metadata import version
from math import ceil
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from xrdpipe import __version__
from xrdpipe.errors import OptionError

FOLDER = "XRDPIPE_CACHE"
"""Environment variable: the folder of the cache."""

LIMIT = "XRDPIPE_CACHE_LIMIT"
"""Environment variable: the most it may hold, GiB; 0 = nothing is kept."""

DEFAULT_LIMIT = 4.0
"""GiB: about ten masks or geometries of a 4-Mpixel detector."""

GIB = 1 << 30

SUFFIX = ".arrays"
UNFINISHED = ".part"

ABANDONED = 3600.0
"""Age in s at which an unfinished file belongs to a process that was killed."""

MAGIC = b"xrdpipe1"
ALIGNMENT = 4096
"""Arrays start on a page, so that pages of arrays that nobody reads are not touched."""

FORGETFUL = frozenset({"nfs", "nfs4", "cifs", "smb3", "afs", "9p", "fuse.sshfs"})
"""File systems without memory for removed files that others have open."""

_PREFIX = len(MAGIC) + 8
"""Bytes before the header: magic, length and crc32 of the header."""

Arrays = dict[str, NDArray[Any]]
T = TypeVar("T")


class Once(Generic[T]):
    """A value made when it is first asked for, by whichever thread asks first."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: list[T] = []

    def __call__(self) -> T:
        """The value."""
        with self._lock:
            if not self._made:
                self._made.append(self._make())
            return self._made[0]


class ArrayCache:
    """Arrays by what they depend on; safe in several threads and processes.

    Parameters
    ----------
    folder
        Where the entries are; None = nothing is kept.
    limit
        Bytes that all entries together may take.
    note
        Told what is damaged or cannot be written.
    """

    def __init__(
        self,
        folder: Path | None,
        limit: float = DEFAULT_LIMIT * GIB,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.folder = folder
        self.limit = limit
        self._note = note

    def get(self, kind: str, key: tuple[Any, ...], build: Callable[[], Arrays]) -> Arrays:
        """The arrays of an entry, from the disk or else from ``build``.

        Parameters
        ----------
        kind
            What the arrays are, the first part of the file's name.
        key
            Everything they depend on, besides versions of the software.

        Returns
        -------
        dict
            Contiguous and read-only, wherever they come from.
        """
        path = None
        if self.folder is not None:
            path = self.folder / f"{kind}-{digest(_versions(), kind, key)[:32]}{SUFFIX}"
            found = self._found(path)
            if found is not None:
                return found
        arrays = {name: np.asarray(array, order="C").view() for name, array in build().items()}
        for array in arrays.values():
            array.flags.writeable = False
        if path is not None:
            self._store(path, arrays)
        return arrays

    def _found(self, path: Path) -> Arrays | None:
        try:
            arrays = _read(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            self._note(f"cache: {path} cannot be used ({error}); it is built anew")
            return None
        with contextlib.suppress(OSError):  # in another's folder it is read all the same
            os.utime(path)
        return arrays

    def _store(self, path: Path, arrays: Arrays) -> None:
        """Write an entry; without room or permission the run goes on without it."""
        header, size = _layout(arrays)
        if size > self.limit:
            self._note(
                f"cache: an entry of {size / GIB:.2g} GiB is not kept, the limit is "
                f"{self.limit / GIB:.2g} GiB ({LIMIT})"
            )
            return
        unfinished = path.with_name(f".{path.stem}-{uuid.uuid4().hex}{UNFINISHED}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _make_room(path.parent, self.limit - size)
            with unfinished.open("xb") as file:
                file.write(header)
                for array in arrays.values():
                    file.seek(-file.tell() % ALIGNMENT, os.SEEK_CUR)
                    file.write(array.data)
                file.truncate(size)
            unfinished.replace(path)
        except OSError as error:
            self._note(f"cache: {path.parent} cannot be written ({error}); going on without it")
            self.folder = None
        finally:
            with contextlib.suppress(OSError):  # whatever prevented writing it may prevent this
                unfinished.unlink(missing_ok=True)


NO_CACHE = ArrayCache(None)


def open_cache(note: Callable[[str], None]) -> ArrayCache:
    """The user's cache.

    Raises
    ------
    OptionError
        If the limit in the environment is no size.
    """
    limit = cache_limit()
    return ArrayCache(cache_folder() if limit else None, limit, note)


def cache_folder() -> Path | None:
    """``$XRDPIPE_CACHE``, else ``$XDG_CACHE_HOME/xrdpipe``, else ``~/.cache/xrdpipe``.

    None for a user without home.
    """
    given = os.environ.get(FOLDER)
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME", "")
    if Path(base).is_absolute():
        return Path(base) / "xrdpipe"
    try:
        return Path.home() / ".cache" / "xrdpipe"
    except RuntimeError:
        return None


def cache_limit() -> float:
    """What all entries together may take, bytes.

    Raises
    ------
    OptionError
        If the environment variable is no size.
    """
    given = os.environ.get(LIMIT, "") or str(DEFAULT_LIMIT)
    try:
        limit = float(given)
    except ValueError:
        limit = -1.0
    if not limit >= 0:
        raise OptionError(f"{LIMIT} is '{given}'; expected a size in GiB, for example 4.")
    return limit * GIB


def describe_cache() -> str:
    """Folder, size, limit and number of entries, for people."""
    folder = cache_folder()
    if folder is None:
        return f"cache: none, there is no home folder; set {FOLDER}"
    adding = not folder.exists() or os.access(folder, os.W_OK)
    sizes = [size for _, size, path in _entries(folder) if path.suffix == SUFFIX]
    return (
        f"cache: {folder}, {len(sizes)} {'entry' if len(sizes) == 1 else 'entries'}, "
        f"{sum(sizes) / GIB:.2f} of {cache_limit() / GIB:g} GiB"
        f"{'' if adding else ', read-only: nothing is added'}"
    )


def as_arrays(record: Any) -> Arrays:
    """The fields of a dataclass of arrays and whole numbers, but those that are None."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return {name: np.asarray(value) for name, value in values.items() if value is not None}


def from_arrays(kind: type[T], arrays: Mapping[str, NDArray[Any]]) -> T:
    """The dataclass that :func:`as_arrays` took apart."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    values = {name: array for name, array in arrays.items() if name in names}
    return kind(**{k: v if v.ndim else v.item() for k, v in values.items()})


def digest(*parts: Any) -> str:
    """Hash of nested tuples of arrays, numbers, texts and None."""
    hasher = hashlib.sha256()
    _feed(hasher, parts)
    return hasher.hexdigest()


def _feed(hasher: Any, part: Any) -> None:
    if isinstance(part, np.generic):
        part = part.item()
    if isinstance(part, tuple):
        hasher.update(f"({len(part)}".encode())
        for one in part:
            _feed(hasher, one)
    elif isinstance(part, np.ndarray):
        hasher.update(f"array {part.dtype.str} {part.shape}".encode())
        hasher.update(np.ascontiguousarray(part).data)
    elif part is None or isinstance(part, (bool, int, float, str)):
        hasher.update(f"{type(part).__name__} {part!r};".encode())
    else:
        raise TypeError(f"{type(part)} cannot be part of a key")


@cache
def _versions() -> tuple[str, ...]:
    """What computes the arrays. The code beside this file counts as it is, released or not."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        code.update(path.read_bytes())
    libraries = tuple(version(name) for name in ("pyFAI", "numpy", "scipy"))
    return __version__, code.hexdigest(), *libraries, platform.machine(), sys.byteorder


# --- files -----------------------------------------------------------------------------------


def _layout(arrays: Arrays) -> tuple[bytes, int]:
    """What precedes the arrays in a file, and the size of the file."""
    described = {
        name: {"dtype": array.dtype.str, "shape": array.shape, "crc32": zlib.crc32(array.data)}
        for name, array in arrays.items()
    }
    header = json.dumps(described).encode()
    prefix = MAGIC + len(header).to_bytes(4, "little") + zlib.crc32(header).to_bytes(4, "little")
    end = len(prefix) + len(header)
    for array in arrays.values():
        end = _aligned(end) + array.nbytes
    return prefix + header, end


def _aligned(place: int) -> int:
    return ceil(place / ALIGNMENT) * ALIGNMENT


def _read(path: Path) -> Arrays:
    """Map an entry and check every byte of its arrays; where mapping is no safe way, read it.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is damaged.
    """
    content: bytes | mmap.mmap
    with path.open("rb") as file:
        if _forgets_removed_files(path.parent):
            content = file.read()
        else:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    end = _PREFIX + int.from_bytes(content[len(MAGIC) : len(MAGIC) + 4], "little")
    header = content[_PREFIX:end]
    crc32 = int.from_bytes(content[_PREFIX - 4 : _PREFIX], "little")
    if content[: len(MAGIC)] != MAGIC or zlib.crc32(header) != crc32:
        raise ValueError("its header is damaged")
    arrays: Arrays = {}
    for name, one in json.loads(header).items():
        place = _aligned(end)
        dtype, shape = np.dtype(one["dtype"]), tuple(one["shape"])
        end = place + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        if end > len(content):
            raise ValueError("it is truncated")
        arrays[name] = np.ndarray(shape, dtype, content, place)
        if zlib.crc32(arrays[name].data) != one["crc32"]:
            raise ValueError(f"its {name} is damaged")
    return arrays


@cache
def _forgets_removed_files(folder: Path) -> bool:
    """True on network file systems where another machine may remove a file that is mapped here.

    There the next access to a page that memory has dropped would end the process.
    """
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return False
    place = folder.resolve()
    above = [one for one in mounts if place.is_relative_to(one[1].replace("\\040", " "))]
    return bool(above) and max(above, key=lambda one: len(one[1]))[2] in FORGETFUL


def _entries(folder: Path) -> list[tuple[float, int, Path]]:
    """Last use, size and path of every file of the cache, finished or not."""
    found = []
    for path in folder.glob("*") if folder.is_dir() else ():
        if path.suffix in (SUFFIX, UNFINISHED):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # removed by another process meanwhile
            found.append((status.st_mtime, status.st_size, path))
    return sorted(found)


def _make_room(folder: Path, limit: float) -> None:
    """Remove what killed processes left, then least recently used entries, down to ``limit``."""
    entries = _entries(folder)
    total = sum(size for _, size, _ in entries)
    now = time.time()
    for last_use, size, path in entries:
        unfinished = path.suffix == UNFINISHED
        if unfinished and now - last_use < ABANDONED:
            continue
        if unfinished or total > limit:
            path.unlink(missing_ok=True)
            total -= size
