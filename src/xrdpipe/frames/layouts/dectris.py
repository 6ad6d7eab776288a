"""DECTRIS FileWriter: an Eiger master with its data files, or a data file alone.

Legacy format: links ``/entry/data/data_00000N`` to ``x_data_00000N.h5:/entry/data/data``. Format
v2024.2: one virtual ``/entry/data/data`` of four axes (frame, channel, y, x). With
``nimages_per_file = 0`` either lies in the master itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import h5py
import numpy as np

from xrdpipe.frames.layouts.layout import Layout, Scope, holds_frames
from xrdpipe.frames.layouts.links import LostDatasetError, find, find_dataset, find_group, follow
from xrdpipe.frames.layouts.metadata import Exposure, detector_info, exposure, number
from xrdpipe.frames.layouts.planes import Planes, joined, lost_planes, planes_of
from xrdpipe.schema import FrameStatus
from xrdpipe.types import IntArray

_LINKED = re.compile(r"data_(\d+)$")


def probe(scope: Scope) -> Layout | None:
    """Find the series of an Eiger, Pilatus 4 or Mythen master."""
    for name, entry in scope.entries():
        data = find_group(entry, "data")
        if data is None:
            continue
        detector = find_group(entry, "instrument/detector")
        linked = {int(m[1]): child for child in data if (m := _is_file(data, child))}
        if linked:
            found = _linked(scope, name, entry, data, linked, detector)
            if found is not None:
                return found
        if "data" not in data:
            continue
        try:
            stack = follow(data, "data")
        except LostDatasetError:
            continue
        if isinstance(stack, h5py.Dataset) and stack.ndim >= 2 and scope.means(stack):
            if detector is not None and _is_dectris(entry, detector):
                return _in_master(scope, name, entry, stack, detector)
            if "image_nr_low" in stack.attrs and stack.ndim <= 4:
                return _data_file(scope, name, entry, stack, detector)
    return None


def _is_file(data: h5py.Group, child: str) -> re.Match[str] | None:
    """A numbered link to a data file, or frames stored under such a name."""
    frames = isinstance(data.get(child, getlink=True), h5py.ExternalLink)
    return _LINKED.match(child) if frames or holds_frames(find(data, child), 2) else None


def _is_dectris(entry: h5py.Group, detector: h5py.Group) -> bool:
    program = find(entry, "program_name")
    daq = isinstance(program, h5py.Dataset) and b"DECTRIS" in np.asarray(program[()]).tobytes()
    return daq or "detectorSpecific" in detector


# --- data files behind links -----------------------------------------------------------------


def _linked(
    scope: Scope,
    name: str,
    entry: h5py.Group,
    data: h5py.Group,
    present: dict[int, str],
    detector: h5py.Group | None,
) -> Layout | None:
    digits = len(next(iter(present.values()))) - len("data_")
    # Numbers left out in between were never linked; they are missed all the same.
    numbers = range(min(1, *present), max(present) + 1)
    children = [f"data_{n:0{digits}d}" for n in numbers]
    channel = _Channel()
    files = []
    for child in children:  # one open at a time: a series may have thousands
        try:
            item = _frames_at(data, child)
        except LostDatasetError as error:
            files.append(_File(lost=error))
            continue
        if item.ndim == 4 and not channel.group:
            channel = _Channel.of(item, scope)
        low = item.attrs.get("image_nr_low")
        files.append(
            _File(
                _one_channel(item, channel.index),
                None if low is None else int(low),
                scope.means(item),
            )
        )
        del item
    if not any(file.planes is not None and file.meant for file in files) and scope.only:
        return None
    # A group that was named keeps the files of it that are lost; a dataset is meant alone.
    whole = scope.only is None or find_group(scope.file, scope.name) is not None
    if not whole:
        kept = [i for i, file in enumerate(files) if file.planes is not None and file.meant]
        children, files = [children[i] for i in kept], [files[i] for i in kept]
    announced = _announced(detector)
    planes, index = _series(files, announced if whole else None)
    evidence = [f"/{name}/data/{children[0]}" + (f" to {children[-1]}" if children[1:] else "")]
    lost = sum(file.lost is not None for file in files)
    if lost:
        evidence.append(f"{lost} of {len(files)} data files are not there or cannot be opened")
    if whole:
        evidence += _compared(announced, int((planes.problem == 0).sum()))
    evidence += channel.evidence
    stated = any(file.low is not None for file in files)
    return Layout(
        "Eiger master",
        tuple(f"/{name}/data/{child}" for child in children),
        planes,
        tuple(evidence),
        index if whole or stated else None,
        detector=detector_info(entry, detector, channel.group),
        exposure=_exposure(detector, planes.size),
        selected=channel.named,
    )


@dataclass(frozen=True)
class _File:
    """A data file: its planes and ``image_nr_low``, or why it is lost."""

    planes: Planes | None = None
    low: int | None = None
    meant: bool = True
    lost: LostDatasetError | None = None


def _frames_at(data: h5py.Group, child: str) -> h5py.Dataset:
    item = follow(data, child)
    if not isinstance(item, h5py.Dataset) or item.ndim < 2:
        reason = f"{item.file.filename}::{item.name} holds no frames"
        raise LostDatasetError(item.file.filename, item.name, FrameStatus.MISSING, reason)
    return item


def _series(files: Sequence[_File], announced: int | None) -> tuple[Planes, IntArray]:
    """Planes of data files after each other, and their numbers.

    Numbers count from 1 as DECTRIS does. A file that is not there held the frames up to the next
    one's ``image_nr_low``; else as many as a full file, but no more than were announced.
    """
    full = max((file.planes.size for file in files if file.planes is not None), default=0)
    parts, numbers = [], []
    after = 1
    for file, following in zip(files, [*files[1:], None], strict=True):
        planes = file.planes
        if file.low is not None:
            after = file.low
        if planes is None:
            assert file.lost is not None
            count = max(full, 1)
            if following is not None and following.low is not None:
                count = max(following.low - after, 0)
            elif following is None and announced is not None and after <= announced:
                left = announced - after + 1
                count = min(count, left) if full else left
            planes = lost_planes(count, file.lost)
        parts.append(planes)
        numbers.append(after + np.arange(planes.size))
        after += planes.size
    return joined(parts), np.concatenate(numbers)


def _one_channel(data: h5py.Dataset, channel: int) -> Planes:
    """The planes of one channel (threshold) of a dataset of four axes."""
    planes = planes_of(data)
    if data.ndim != 4:
        return planes
    return planes.take(np.arange(data.shape[0]) * data.shape[1] + channel)


@dataclass(frozen=True)
class _Channel:
    """Which channel is read: the first, unless the user names another as ``[:, 1]``.

    Parameters
    ----------
    index
        Along the second of four axes.
    group
        Name of its group in the NXdetector, for its own pixel mask.
    evidence
        That there are others.
    named
        True if the user chose it.
    """

    index: int = 0
    group: str = ""
    evidence: tuple[str, ...] = ()
    named: bool = False

    @classmethod
    def of(cls, data: h5py.Dataset, scope: Scope) -> _Channel:
        """The channel of a dataset, if it has four axes."""
        if data.ndim != 4:
            return cls()
        count = int(data.shape[1])
        axis = find_dataset(data.parent, "channel")
        names = [f"threshold_{number + 1}" for number in range(count)]
        if axis is not None and axis.size == count:
            said = np.asarray(axis[()]).ravel().tolist()
            names = [v.decode() if isinstance(v, bytes) else str(v) for v in said]
        match scope.selection:
            case (None, int(index)) if index < count:
                return cls(index, f"{names[index]}_channel", (f"channel {names[index]}",), True)
        if count == 1:
            return cls(0, f"{names[0]}_channel")
        sentence = (
            f"{count} channels ({', '.join(names)}): {names[0]} is taken; name another as "
            f"{data.name}[:, 1]"
        )
        return cls(0, f"{names[0]}_channel", (sentence,))


# --- data in the master, data files alone -----------------------------------------------------


def _in_master(
    scope: Scope, name: str, entry: h5py.Group, data: h5py.Dataset, detector: h5py.Group
) -> Layout:
    channel = _Channel.of(data, scope)
    planes = _one_channel(data, channel.index)
    ids = find(entry, "data/image_id")
    low = int(data.attrs.get("image_nr_low", 1))
    numbers = low + np.arange(planes.size)
    if isinstance(ids, h5py.Dataset) and ids.size == planes.size:
        numbers = np.asarray(ids[()], np.int64).ravel()
    where = "virtual, over data files" if data.is_virtual else "in the master itself"
    return Layout(
        "Eiger master",
        (f"/{name}/data/data",),
        planes,
        (
            f"/{name}/data/data {where}, {data.ndim} axes",
            *_compared(_announced(detector), int((planes.problem == 0).sum())),
            *channel.evidence,
        ),
        numbers,
        detector=detector_info(entry, detector, channel.group),
        exposure=_exposure(detector, planes.size),
        selected=channel.named,
    )


def _data_file(
    scope: Scope,
    name: str,
    entry: h5py.Group,
    data: h5py.Dataset,
    detector: h5py.Group | None,
) -> Layout:
    channel = _Channel.of(data, scope)
    planes = _one_channel(data, channel.index)
    low = int(data.attrs["image_nr_low"])
    info = replace(detector_info(entry, detector), description="Eiger")
    return Layout(
        "Eiger data file",
        (f"/{name}/data/data",),
        planes,
        (f"/{name}/data/data@image_nr_low = {low}; metadata is in the master", *channel.evidence),
        low + np.arange(planes.size),
        detector=info,
        selected=channel.named,
    )


def _announced(detector: h5py.Group | None) -> int | None:
    """Frames that were asked for: nimages per trigger, times triggers."""
    images = number(detector, "detectorSpecific/nimages", "nimages")
    if images is None or images < 1:
        return None
    triggers = number(detector, "detectorSpecific/ntrigger", "ntrigger")
    return int(images) * max(int(triggers or 1), 1)


def _compared(announced: int | None, found: int) -> list[str]:
    if announced is None:
        return []
    if announced == found:
        return [f"all {announced} frames that the master announces (nimages × ntrigger)"]
    return [f"the master announces {announced} frames (nimages × ntrigger), {found} are there"]


def _exposure(detector: h5py.Group | None, frames: int) -> Exposure:
    return exposure(detector, frames, ("count_time", "detectorSpecific/count_time", "frame_time"))
