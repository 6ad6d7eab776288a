"""A file of no known layout: the one stack of frames in it, or a list of what there is."""

from __future__ import annotations

from collections.abc import Iterator

import h5py

from xrdpipe.errors import InputError
from xrdpipe.frames.layouts.layout import (
    NO_FRAMES,
    Column,
    Layout,
    Scope,
    distinct,
    holds_frames,
)
from xrdpipe.frames.layouts.links import LostDatasetError, find_group, follow
from xrdpipe.frames.layouts.metadata import detector_info, exposure, is_column
from xrdpipe.frames.layouts.planes import planes_of

LISTED = 6
DEEPEST = 12


def probe(scope: Scope) -> Layout:
    """Find the one stack.

    Raises
    ------
    InputError
        If there is none, or more than one; the message lists them.
    """
    path = scope.path
    items, columns, lost = _walk(scope)
    if scope.only is not None:
        items = [(data.name, data) for data in scope.only]
    stacks = [item for item in items if item[1].ndim >= 3]
    frames = [item for item in stacks if not NO_FRAMES.search(item[0].split("/")[-1])]
    stacks = frames or stacks
    if not stacks and len(items) == 1:
        stacks = items
    candidates = stacks or items
    if not candidates:
        gone = f" (behind a link: {lost[0]})" if lost else ""
        raise InputError(
            f"{path} holds no stack of frames{gone}; name the dataset as {path}::/path/to/dataset."
        )
    if len(candidates) > 1:
        listing = ", ".join(f"{name} {data.shape}" for name, data in candidates[:LISTED])
        what = "stacks of frames" if stacks else "images"
        raise InputError(
            f"{path} holds {len(candidates)} {what} ({listing}); "
            f"name one as {path}::{candidates[0][0]}."
        )
    return _layout(scope, *candidates[0], columns)


def _layout(scope: Scope, name: str, data: h5py.Dataset, columns: dict[str, Column]) -> Layout:
    planes = planes_of(data)
    entry = scope.file["/"]
    for _, group in scope.entries():
        if find_group(group, "instrument") is not None:
            entry = group
    camera = find_group(entry, "instrument/detector")
    per_frame = {
        key: column
        for key, column in columns.items()
        if int(scope.file[column.dataset].size) in (planes.size, planes.size + 1)
    }
    how = "named" if scope.only is not None else "the only stack of frames in the file"
    return Layout(
        "HDF5 stack",
        (name,),
        planes,
        (f"{name}: {how}",),
        columns=per_frame,
        detector=detector_info(entry, camera),
        exposure=exposure(camera, planes.size, ("count_time", "exposure_time", "frame_time")),
    )


def _walk(
    scope: Scope,
) -> tuple[list[tuple[str, h5py.Dataset]], dict[str, Column], list[str]]:
    """All stacks and columns of the file; links to other files are followed to datasets only."""
    items: list[tuple[str, h5py.Dataset]] = []
    columns: dict[str, Column] = {}
    lost: list[str] = []
    start = scope.file[scope.entry] if scope.entry else scope.file["/"]
    for name, found in _below(start, 0):
        if isinstance(found, LostDatasetError):
            lost.append(found.reason)
        elif holds_frames(found, 2):
            items.append((name, found))
        elif is_column(found) and found.ndim == 1 and found.file.filename == scope.file.filename:
            key = name.split("/")[-1]
            columns[name if key in columns else key] = Column.at(found)
    return distinct(items), columns, lost


def _below(group: h5py.Group, depth: int) -> Iterator[tuple[str, h5py.Dataset | LostDatasetError]]:
    for child in group:
        hard = isinstance(group.get(child, getlink=True), h5py.HardLink)
        name = f"{group.name.rstrip('/')}/{child}"
        try:
            item = follow(group, child)
        except LostDatasetError as error:
            yield name, error
            continue
        if isinstance(item, h5py.Dataset):
            yield name, item
        elif hard and isinstance(item, h5py.Group) and depth < DEEPEST:
            yield from _below(item, depth + 1)
