"""Any NeXus file: the signal of an NXdata, or ``data`` of an NXdetector.

Diamond writes grid scans with four axes (y, x, rows, columns), as a virtual dataset in which each
frame lies at its place on the grid, whichever way the scan went; ``uid`` is 0 where none came.
"""

from __future__ import annotations

import math
from dataclasses import replace

import h5py
import numpy as np

from xrdpipe.frames.layouts.layout import (
    NO_FRAMES,
    Column,
    Layout,
    Scope,
    distinct,
    holds_frames,
)
from xrdpipe.frames.layouts.links import (
    attribute,
    find,
    find_dataset,
    find_group,
    own_groups,
    whole,
)
from xrdpipe.frames.layouts.metadata import detector_info, exposure, is_column
from xrdpipe.frames.layouts.planes import Planes, planes_of
from xrdpipe.schema import FrameStatus
from xrdpipe.types import ScanHint

_UIDS = ("uid", "uniqueKeys", "diamond_scan/keys/uniqueKeys", "diamond_scan/keys/uid")
_TIMES = ("count_time", "exposure_time", "frame_time", "collection/count_time")


def probe(scope: Scope) -> Layout | None:
    """Find the one stack that NXdata or NXdetector point at."""
    found: list[tuple[str, h5py.Dataset, h5py.Group, h5py.Group | None]] = []
    for name, entry in scope.entries():
        for path, data, plot in _candidates(entry):
            if scope.means(data):
                found.append((f"{name}/{path}", data, entry, plot))
    kept = distinct([(path, data) for path, data, _, _ in found])
    chosen = [item for item in found if item[0] in {path for path, _ in kept}]
    plotted = [item for item in chosen if item[3] is not None]
    if len(chosen) > 1 and len(plotted) == 1:
        chosen = plotted
    if len(chosen) != 1:
        return None
    return _layout(*chosen[0])


def _candidates(entry: h5py.Group) -> list[tuple[str, h5py.Dataset, h5py.Group | None]]:
    """(path, dataset, NXdata group) of the signals, then of the detectors."""
    found: list[tuple[str, h5py.Dataset, h5py.Group | None]] = []
    groups = list(own_groups(entry))
    if "signal" in entry.attrs:
        groups.insert(0, ("", entry))
    for name, group in groups:
        if attribute(group, "NX_class") not in ("NXdata", "NXentry"):
            continue
        signal = attribute(group, "signal")
        data = find(group, signal) if signal else None
        if holds_frames(data):
            found.append((f"{name}/{signal}".lstrip("/"), data, group))
    instrument = find_group(entry, "instrument")
    for name, group in own_groups(instrument) if instrument is not None else ():
        if NO_FRAMES.search(name):
            continue
        data = find(group, "data")
        if holds_frames(data):
            found.append((f"instrument/{name}/data", data, None))
    return found


def _layout(path: str, data: h5py.Dataset, entry: h5py.Group, plot: h5py.Group | None) -> Layout:
    leading = tuple(int(n) for n in data.shape[:-2])
    camera = _camera(entry, data, path)
    columns = _columns(entry, plot, leading)
    planes, said = _with_uids(planes_of(data), entry, plot, camera)
    kind = "NeXus grid scan" if len(leading) == 2 else "NeXus stack"
    what = f"NXdata {plot.name}" if plot is not None else f"NXdetector {data.parent.name}"
    return Layout(
        kind,
        (f"/{path}",),
        planes,
        (what, f"{'virtual ' if data.is_virtual else ''}dataset of {data.ndim} axes", *said),
        columns=columns,
        scan=_hint(plot, leading, columns),
        detector=detector_info(entry, camera),
        exposure=exposure(camera, planes.size, _TIMES),
    )


def _camera(entry: h5py.Group, data: h5py.Dataset, path: str) -> h5py.Group | None:
    """The NXdetector that the stack belongs to: by name, or because there is only one."""
    names = [part for part in path.split("/")[1:] if part not in ("instrument", "data")]
    for name in (*names, "detector"):
        group = find_group(entry, f"instrument/{name}")
        if group is not None:
            return group
    instrument = find_group(entry, "instrument")
    cameras = [
        group
        for _, group in (own_groups(instrument) if instrument is not None else ())
        if attribute(group, "NX_class") == "NXdetector"
    ]
    return cameras[0] if len(cameras) == 1 else None


def _with_uids(
    planes: Planes, entry: h5py.Group, plot: h5py.Group | None, camera: h5py.Group | None
) -> tuple[Planes, list[str]]:
    """Mark frames whose key is 0: the scan never came there."""
    groups = [group for group in (camera, plot, entry) if group is not None]
    for group in groups:
        for name in _UIDS:
            keys = find_dataset(group, name)
            if keys is None or keys.dtype.kind not in "uif" or keys.size != planes.size:
                continue
            empty = np.flatnonzero((np.asarray(whole(keys)).ravel() == 0) & (planes.problem == 0))
            problem, reason = planes.problem.copy(), dict(planes.reason)
            problem[empty] = FrameStatus.MISSING
            reason |= {
                row: f"frame {row} was never written: its key in {keys.name} is 0"
                for row in empty.tolist()
            }
            marked = replace(planes, problem=problem, reason=reason)
            return marked, [f"{keys.name}: {empty.size} of {keys.size} keys are 0 (never written)"]
    return planes, []


def _columns(
    entry: h5py.Group, plot: h5py.Group | None, leading: tuple[int, ...]
) -> dict[str, Column]:
    """Axes of the grid, and everything with one value per frame beside them."""
    columns: dict[str, Column] = {}
    n = math.prod(leading)
    for group in (entry, find_group(entry, "instrument")):
        for name in group if group is not None else ():
            item = find(group, name)
            if isinstance(item, h5py.Group):
                item = find(item, "value") or find(item, "data")
            if isinstance(item, h5py.Dataset) and is_column(item) and item.size == n > 1:
                columns[name] = Column.at(item)
    if plot is None:
        return columns
    names = _axes(plot)
    for name in plot:
        item = find_dataset(plot, name)
        if item is None or not is_column(item):
            continue
        stated = plot.attrs.get(f"{name}_indices")
        along = [int(axis) for axis in np.atleast_1d(stated)] if stated is not None else []
        if not along and name in names:
            along = [names.index(name)]
        axis = along[0] if len(along) == 1 and along[0] < len(leading) else None
        if axis is not None and item.size == leading[axis]:
            repeat, tile = math.prod(leading[axis + 1 :]), math.prod(leading[:axis])
            columns[name] = Column.at(item, repeat, tile)
        elif axis is None and item.size == n:
            columns[name] = Column.at(item)
    return columns


def _axes(plot: h5py.Group | None) -> list[str]:
    if plot is None or "axes" not in plot.attrs:
        return []
    names = [
        n.decode() if isinstance(n, bytes) else str(n) for n in np.atleast_1d(plot.attrs["axes"])
    ]
    return [part for name in names for part in name.split(":")] if len(names) == 1 else names


def _hint(
    plot: h5py.Group | None, leading: tuple[int, ...], columns: dict[str, Column]
) -> ScanHint | None:
    """A stored grid is a raster: each frame lies at its place, whichever way the scan went."""
    names = [_readback(name, columns) for name in _axes(plot)[: len(leading)]]
    known = [name if name in columns else None for name in names]
    if len(leading) == 2 and min(leading) > 0:
        y, x = known if len(known) == 2 else (None, None)
        return ScanHint(
            x=x,
            y=y,
            shape=(leading[0], leading[1]),
            fast_axis="x",
            snake=False,
            source="NXdata",
            evidence=f"stored as a grid of {leading[0]} x {leading[1]}"
            + (f" over {y} and {x}" if x and y else ""),
        )
    moving = [name for name in columns if name in ("x", "y")]
    if len(leading) == 1 and len(moving) == 2:
        return ScanHint(x="x", y="y", source="NXdata", evidence="x and y of each frame")
    if len(leading) == 1 and known[:1] != [None] and known:
        return ScanHint(
            x=known[0], shape=(1, leading[0]), fast_axis="x", source="NXdata",
            evidence=f"axis {known[0]}",
        )  # fmt: skip
    return None


def _readback(name: str, columns: dict[str, Column]) -> str:
    """``stage_x_value``, where the motor really was, for ``stage_x_set``."""
    measured = name.removesuffix("_set") + "_value"
    return measured if name.endswith("_set") and measured in columns else name
