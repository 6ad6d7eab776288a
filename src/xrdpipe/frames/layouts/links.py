"""Opening HDF5 files and following links through them, with a reason for each that dangles."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 - registers the decompression filters of detectors

from xrdpipe.bounds import MOST_VALUES, check_open_files, check_values
from xrdpipe.errors import FrameError, InputError
from xrdpipe.frames.layouts.chunks import check_chunks
from xrdpipe.schema import FrameStatus

MAX_LINKS = 20
"""More links than these after each other are a circle."""


class LostDatasetError(FrameError):
    """A link, or a file behind it, leads nowhere.

    Parameters
    ----------
    file, dataset
        Where it should have led.
    status, reason
        As in FrameError.
    """

    def __init__(self, file: str, dataset: str, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.file = file
        self.dataset = dataset


def open_file(path: str) -> h5py.File:
    """Open for reading, also while a writer in SWMR mode has it; raises OSError."""
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if "already open for write" not in str(error):
            raise
        try:
            return h5py.File(path, "r", locking=False, swmr=True)
        except OSError:
            raise error from None


def why_not_open(path: str, error: Exception) -> str:
    """What an HDF5 error on opening means for the user, without the file's name."""
    text = str(error)
    if os.path.isfile(path) and os.path.getsize(path) == 0:  # noqa: PTH113, PTH202 - h5 names
        return "is empty (0 bytes): the writer has not begun, or was killed"
    if "already open for write" in text or "bad object header" in text:
        return "is still being written, or its writer was killed before closing it"
    if "truncated file" in text:
        return "is truncated: it is still being copied or written, or the copy was cut short"
    if "signature not found" in text:
        return "is no HDF5 file"
    return f"cannot be opened as HDF5 ({text})"


def beside(file: str, name: str) -> str:
    """The file that a link in ``file`` means by ``name``, as HDF5 looks for it.

    An absolute name that is not there, as in a copied folder, is looked for beside the file; so
    is one relative to a link to the file. The first place is returned if it is nowhere.
    """
    folders = [os.path.dirname(file), os.path.dirname(os.path.realpath(file))]  # noqa: PTH120
    places = [os.path.join(folder, name) for folder in folders]  # noqa: PTH118
    if os.path.isabs(name):  # noqa: PTH117
        own = os.path.basename(name)  # noqa: PTH119
        places += [os.path.join(folder, own) for folder in folders]  # noqa: PTH118
    return next((place for place in places if os.path.exists(place)), places[0])  # noqa: PTH110


def open_linked(path: str, dataset: str) -> h5py.File:
    """Open a file that a link or a virtual dataset names; raises LostDatasetError."""
    if not os.path.exists(path):  # noqa: PTH110
        what = f", {dataset} was to be in it" if dataset else ""
        raise LostDatasetError(path, dataset, FrameStatus.MISSING, f"{path} is not there{what}")
    try:
        return open_file(path)
    except PermissionError as error:
        raise LostDatasetError(
            path, dataset, FrameStatus.UNREADABLE, f"{path} cannot be opened: {error}"
        ) from error
    except OSError as error:
        raise LostDatasetError(
            path, dataset, FrameStatus.CORRUPT, f"{path} {why_not_open(path, error)}"
        ) from error


def follow(start: h5py.Group, name: str, depth: int = 0) -> h5py.Group | h5py.Dataset:
    """The object a path leads to, through soft and external links.

    Raises
    ------
    LostDatasetError
        If it leads nowhere; the reason names the file and the dataset that are missed.
    """
    group: Any = start.file["/"] if name.startswith("/") else start
    parts = [part for part in name.split("/") if part not in ("", ".")]
    for number, part in enumerate(parts):
        file = group.file.filename
        path = f"{group.name.rstrip('/')}/{part}"
        if not isinstance(group, h5py.Group) or depth > MAX_LINKS:
            raise _absent(file, path)
        link = group.get(part, getlink=True)
        rest = "/".join(parts[number + 1 :])
        if isinstance(link, h5py.SoftLink):
            return follow(group, f"{link.path}/{rest}".rstrip("/"), depth + 1)
        if isinstance(link, h5py.ExternalLink):
            target = beside(file, link.filename)
            whole = f"{link.path}/{rest}".rstrip("/")
            return follow(open_linked(target, whole)["/"], whole, depth + 1)
        try:
            group = group[part]
        except (KeyError, OSError, RuntimeError) as error:
            raise _absent(file, path) from error
    return group


def _absent(file: str, path: str) -> LostDatasetError:
    # No variable of who raises it: the file would stay open as long as the two hold each other.
    return LostDatasetError(file, path, FrameStatus.MISSING, f"{file} has no dataset {path}")


def find(start: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
    """What a path leads to, or None."""
    try:
        return follow(start, name)
    except LostDatasetError:
        return None


def find_group(start: h5py.Group, name: str) -> h5py.Group | None:
    """The group a path leads to, or None."""
    item = find(start, name)
    return item if isinstance(item, h5py.Group) else None


def find_dataset(start: h5py.Group, name: str) -> h5py.Dataset | None:
    """The dataset a path leads to, or None."""
    item = find(start, name)
    return item if isinstance(item, h5py.Dataset) else None


def group_in(parent: h5py.Group, name: str) -> h5py.Group:
    """The group of that name; raises InputError for a dataset, which ``in`` would read."""
    item = parent[name]
    if not isinstance(item, h5py.Group):
        raise InputError(f"{parent.file.filename}: {parent.name.rstrip('/')}/{name} is no group.")
    return item


def whole(data: h5py.Dataset, most: int = MOST_VALUES) -> Any:
    """All values of a dataset, of at most so many.

    Raises
    ------
    InputError
        If they are more than can be meant, or a virtual dataset is made of itself.
    OSError
        If they cannot be read.
    """
    check_values(data.size or 0, f"{data.file.filename}::{data.name}", most)
    check_sources(data)
    check_chunks(data)
    return data[()]


def check_sources(data: h5py.Dataset, above: tuple[tuple[str, str], ...] = ()) -> None:
    """Whether HDF5 can put a virtual dataset together; nothing for any other.

    Parameters
    ----------
    above
        File and name of the datasets on the way to this one.

    Raises
    ------
    InputError
        If it leads back to itself, which HDF5 follows for ever, or takes more files than may be
        open at once, which HDF5 fills with zeros.
    OSError
        If a chunk of its sources cannot hold what it should.
    """
    if not data.is_virtual:
        return
    own = data.file.filename
    if (own, data.name) in above or len(above) > MAX_LINKS:
        raise InputError(f"{own}::{data.name} is a virtual dataset that is made of itself.")
    sources = {(source.file_name, source.dset_name) for source in data.virtual_sources()}
    check_open_files(len({name for name, _ in sources}), f"{own}::{data.name}")
    for name, dataset in sources:
        try:
            same = name == "." or as_written(beside(own, name)) == as_written(own)
            file = data.file if same else open_linked(beside(own, name), dataset)
            item = follow(file["/"], dataset)
        except LostDatasetError:
            continue
        if isinstance(item, h5py.Dataset):
            check_sources(item, (*above, (own, data.name)))
            check_chunks(item)


def own_groups(group: h5py.Group) -> Iterator[tuple[str, h5py.Group]]:
    """Groups right below, without those behind links."""
    for name in group:
        if isinstance(group.get(name, getlink=True), h5py.HardLink) and isinstance(
            item := group[name], h5py.Group
        ):
            yield name, item


def attribute(item: h5py.Group | h5py.Dataset | h5py.File, name: str) -> str:
    """A text attribute, or ``""``."""
    try:
        value = item.attrs.get(name, "")
    except (OSError, RuntimeError, TypeError):  # of a kind that NumPy does not have, or damaged
        return ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def as_written(path: str) -> str:
    """A path without ``..``, so that one dataset has one name."""
    return os.path.normpath(path)
