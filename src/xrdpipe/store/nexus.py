"""Small helpers that write NeXus the same way everywhere."""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from xrdpipe import __version__
from xrdpipe.bounds import sound
from xrdpipe.errors import InputError, InputMissingError, OutputExistsError
from xrdpipe.frames.layouts.links import whole
from xrdpipe.schema import SCHEMA_VERSION
from xrdpipe.store.parts import first_difference, key_hash, key_text

CHUNK_BYTES = 512 * 1024
"""Target size of a chunk: whole chunks are written at once."""

FORMAT = ("earliest", "v110")
"""HDF5 format bounds: 1.10 brings virtual datasets and SWMR; every current tool reads it."""

_PIPELINE: ContextVar[Mapping[str, Any] | None] = ContextVar("pipeline", default=None)
"""The step of a pipeline that is running, for the record only: no number depends on it."""


LEGEND = 8
"""So many numbers are explained in a title; all are in flag_meanings or phase_names."""

PENDING_PATH = "entry/phase_map/pending"
"""Pixels that still wait for their frame: a map that has this is partial and may be replaced."""


def now() -> str:
    """Local time with zone, ISO 8601."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def new_group(parent: h5py.Group, name: str, nx_class: str, **attributes: Any) -> h5py.Group:
    """Create a group with its NX_class."""
    group = parent.create_group(name)
    group.attrs["NX_class"] = nx_class
    for key, value in attributes.items():
        group.attrs[key] = value
    return group


def put(group: h5py.Group, name: str, value: Any, **attributes: Any) -> h5py.Dataset:
    """Write one small dataset with attributes; a string becomes a UTF-8 scalar."""
    dataset = group.create_dataset(name, data=value)
    for key, attribute in attributes.items():
        dataset.attrs[key] = attribute
    return dataset


@contextmanager
def in_pipeline(record: Mapping[str, Any]) -> Iterator[None]:
    """What is written inside says which step of which pipeline wrote it."""
    token = _PIPELINE.set(record)
    try:
        yield
    finally:
        _PIPELINE.reset(token)


def say_pipeline(group: h5py.Group) -> None:
    """Attribute ``pipeline`` (JSON) of a process: file, sha256, title, step, scan, set."""
    record = _PIPELINE.get()
    if record:
        group.attrs["pipeline"] = json.dumps(dict(record))


def put_key(process: h5py.Group, key: Mapping[str, Any]) -> None:
    """What the numbers of a process depend on (decision 21), and which pipeline asked for them."""
    put(process, "run_key", key_text(key))
    say_pipeline(process)


def say_values(group: h5py.Group, what: str, names: Mapping[int, str]) -> None:
    """A title that tells what the numbers of a plot mean: viewers show no other legend."""
    said = [f"{value} {name}" for value, name in names.items()]
    more = ["…"] * (len(said) > LEGEND)
    put(group, "title", f"{what}: {', '.join(said[:LEGEND] + more)}")


def rows_dataset(
    group: h5py.Group, name: str, n_rows: int, columns: int, **attributes: Any
) -> h5py.Dataset:
    """Create an empty float32 (rows, columns) dataset with fixed chunks of whole rows."""
    chunk_rows = int(np.clip(CHUNK_BYTES // (4 * columns), 1, max(n_rows, 1)))
    dataset = group.create_dataset(
        name,
        shape=(n_rows, columns),
        dtype="f4",
        chunks=(chunk_rows, columns),
        maxshape=(None, columns),
        compression="gzip",
        compression_opts=1,
        shuffle=True,
        fillvalue=np.nan,
    )
    for key, attribute in attributes.items():
        dataset.attrs[key] = attribute
    return dataset


def new_root(file: h5py.File) -> None:
    """Attributes of the NeXus root."""
    file.attrs["NX_class"] = "NXroot"
    file.attrs["default"] = "entry"
    file.attrs["creator"] = "xrdpipe"
    file.attrs["creator_version"] = __version__
    file.attrs["file_time"] = now()
    file.attrs["HDF5_Version"] = h5py.version.hdf5_version
    file.attrs["h5py_version"] = h5py.version.version
    file.attrs["xrdpipe_schema"] = SCHEMA_VERSION


def entry_uuid(key: dict[str, Any]) -> str:
    """Identifier of an entry: a function of the key, so that reruns give the same file."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"xrdpipe:{key_hash(key)}"))


def text(value: Any) -> str:
    """A string dataset's value as str."""
    value = whole(value) if isinstance(value, h5py.Dataset) else value
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def open_processed(path: Path, what: str) -> h5py.File:
    """Open one of our files for reading.

    Raises
    ------
    InputMissingError, InputError
        If it is not there or is no HDF5 file with an ``/entry``.
    """
    if not path.is_file():
        raise InputMissingError(f"{what} {path} does not exist.")
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise InputError(f"{what} {path} cannot be opened as HDF5: {error}.") from error
    with sound(str(path)):
        group = "entry" in file and isinstance(file["entry"], h5py.Group)
    if not group:
        file.close()
        raise InputError(f"{path} is no {what}: it has no group /entry.")
    return file


def already_done(output: Path, key: dict[str, Any], key_path: str, restart: bool) -> bool:
    """True if ``output`` was made with this key (decision 21), and is not to be made again.

    Raises
    ------
    OutputExistsError
        If it exists and was made with another key, or by something else: only what this command
        wrote is ever replaced, so that a slip does not cost a raw file.
    """
    if not output.exists():
        return False
    old: Any = None
    try:
        with h5py.File(output, "r", locking=False) as file:
            if PENDING_PATH in file:
                return False
            if key_path in file:
                old = json.loads(text(file[key_path]))
    except (OSError, ValueError, KeyError, RuntimeError, TypeError):
        old = None
    check_same_run(output, old, key, restart)
    return not restart


def check_same_run(output: Path, old: Any, key: dict[str, Any], restart: bool) -> None:
    """Refuse an output whose key (None = it has none) is not this run's (decision 21).

    ``restart`` accepts the key of another run, but not a file without one.

    Raises
    ------
    OutputExistsError
        Naming the first difference.
    """
    if old is None:
        raise OutputExistsError(
            f"{output} exists and was not made by this command; remove it, or give another "
            "--output."
        )
    if restart:
        return
    difference = first_difference(old, json.loads(json.dumps(key, default=str)))
    if difference:
        raise OutputExistsError(
            f"{output} exists and belongs to another run ({difference}); use --restart to "
            "replace it, or another --output."
        )


def fixed_strings(values: list[str]) -> NDArray[np.bytes_]:
    """UTF-8 bytes of one common length."""
    encoded = [value.encode() for value in values]
    return np.array(encoded, dtype=f"S{max([1, *map(len, encoded)])}")
