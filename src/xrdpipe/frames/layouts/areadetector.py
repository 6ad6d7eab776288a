"""EPICS areaDetector (NDFileHDF5): ``/entry/data/data`` and one attribute per frame.

``NDArrayUniqueId`` counts every frame of the camera: a gap is a frame that was dropped.
"""

from __future__ import annotations

import re
from dataclasses import replace

import h5py
import numpy as np

from xrdpipe.frames.layouts.commands import axes_hint
from xrdpipe.frames.layouts.layout import Column, Layout, Scope, distinct, holds_frames, miscount
from xrdpipe.frames.layouts.links import attribute, find, find_group, whole
from xrdpipe.frames.layouts.metadata import (
    SECONDS,
    Exposure,
    detector_info,
    is_column,
    quantity,
    text,
)
from xrdpipe.frames.layouts.planes import planes_of
from xrdpipe.types import DetectorInfo, IntArray, ScanHint

ATTRIBUTES = ("instrument/NDAttributes", "instrument/detector/NDAttributes", "NDAttributes")
_STACKS = ("data/data", "instrument/detector/data")
_MOTOR = re.compile(r"\.(RBV|VAL|DRBV|RRBV)$")


def probe(scope: Scope) -> Layout | None:
    """Find the stack of an areaDetector file."""
    for name, entry in scope.entries():
        groups = [g for path in ATTRIBUTES if (g := find_group(entry, path)) is not None]
        if not groups:
            continue
        stacks = [
            (path, data)
            for path in _STACKS
            if isinstance(data := find(entry, path), h5py.Dataset)
            and holds_frames(data, 2)
            and scope.means(data)
        ]
        if stacks:
            return _layout(name, entry, groups, *distinct(stacks)[0])
    return None


def _layout(
    name: str, entry: h5py.Group, groups: list[h5py.Group], path: str, data: h5py.Dataset
) -> Layout:
    planes = planes_of(data)
    attributes = {
        child: item
        for group in reversed(groups)
        for child in group
        if isinstance(item := find(group, child), h5py.Dataset)
    }
    numbers, said = _numbers(attributes.get("NDArrayUniqueId"), planes.size)
    return Layout(
        "areaDetector",
        (f"/{name}/{path}",),
        planes,
        (f"{groups[0].name} with {len(attributes)} attributes per frame", said),
        numbers,
        {child: Column.at(item) for child, item in attributes.items() if is_column(item)},
        _hint(attributes, data, planes.size),
        _detector(entry, groups),
        _exposure(groups, planes.size),
    )


def _numbers(ids: h5py.Dataset | None, frames: int) -> tuple[IntArray | None, str]:
    if ids is None:
        return None, "no NDArrayUniqueId: frames are counted in order"
    if ids.size != frames:
        return None, f"NDArrayUniqueId has {ids.size} values for {frames} frames: it is not used"
    numbers = np.asarray(whole(ids), np.int64).ravel()
    if why := miscount(numbers):
        return None, f"NDArrayUniqueId {why}: it is not used, frames are counted in order"
    dropped = int(numbers.max()) - int(numbers.min()) + 1 - np.unique(numbers).size
    return numbers, f"NDArrayUniqueId {numbers.min()}-{numbers.max()}, {dropped} dropped"


def _detector(entry: h5py.Group, groups: list[h5py.Group]) -> DetectorInfo:
    info = detector_info(entry, find_group(entry, "instrument/detector"))
    for group in groups:
        words = [text(group, name) for name in ("Manufacturer", "Model", "CameraModel")]
        said = " ".join(word for word in words if word)
        if said and info.description is None:
            info = replace(info, description=said)
    return info


def _exposure(groups: list[h5py.Group], frames: int) -> Exposure:
    for group in groups:
        values = quantity(group, ("AcquireTime", "ExposureTime", "CountTime"), SECONDS, "s")
        if values is not None:
            same = values.size != frames or (values == values[0]).all()
            return float(values[0]) if same else values
    return None


def _hint(attributes: dict[str, h5py.Dataset], data: h5py.Dataset, frames: int) -> ScanHint | None:
    """The two motors that move, and the shape where the writer stored a grid."""
    moving = []
    for name, item in attributes.items():
        motor = _MOTOR.search(attribute(item, "NDAttrSource"))
        if motor and is_column(item) and item.size == frames > 1:
            values = np.asarray(whole(item), np.float64).ravel()
            if np.ptp(values) > 0:
                moving.append((float(np.abs(np.diff(values)).sum() / np.ptp(values)), name))
    shape = (int(data.shape[0]), int(data.shape[1])) if data.ndim == 4 else None
    if len(moving) != 2:
        if shape is None:
            return None
        return ScanHint(
            shape=shape, fast_axis="x", snake=False, source="areaDetector", evidence="stored grid"
        )
    (_, slow), (_, fast) = sorted(moving)
    evidence = f"{fast} and {slow} are the motors that move"
    if shape is not None:
        found = axes_hint(fast, slow, shape[1], shape[0], "areaDetector", evidence)
        return replace(found, snake=False)
    return replace(axes_hint(fast, slow, 1, 1, "areaDetector", evidence), shape=None)
