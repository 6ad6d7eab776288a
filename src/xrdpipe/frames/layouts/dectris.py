"""DECTRIS FileWriter: an Eiger master with its data files, or a data file alone.

Legacy format: links ``/entry/data/data_00000N`` (the oldest: ``/entry/data_00000N``) to
``x_data_00000N.h5:/entry/data/data``. Format v2024.2: one virtual ``/entry/data/data`` of four axes
(frame, channel, y, x). With ``nimages_per_file = 0`` either lies in the master itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import h5py
import numpy as np

from xrdpipe.frames.layouts.areadetector import ATTRIBUTES
from xrdpipe.frames.layouts.layout import Layout, Scope, holds_frames, miscount
from xrdpipe.frames.layouts.links import (
    LostDatasetError,
    find,
    find_dataset,
    find_group,
    follow,
    whole,
)
from xrdpipe.frames.layouts.metadata import Exposure, detector_info, exposure, number
from xrdpipe.frames.layouts.planes import Planes, joined, lost_planes, planes_of
from xrdpipe.schema import FrameStatus
from xrdpipe.types import IntArray

_LINKED = re.compile(r"data_(\d+)$")


def probe(scope: Scope) -> Layout | None:
    """Find the series of an Eiger, Pilatus 4 or Mythen master."""
    for name, entry in scope.entries():
        data = find_group(entry, "data")
        detector = find_group(entry, "instrument/detector")
        for group in (data, entry):
            linked = {} if group is None else _data_files(group, links_only=group is entry)
            if group is not None and linked:
                found = _linked(scope, entry, group, linked, detector)
                if found is not None:
                    return found
        if data is None or "data" not in data:
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


def _data_files(group: h5py.Group, *, links_only: bool) -> dict[int, str]:
    """Numbered links to data files, or frames stored under such a name: number → name."""
    return {
        int(match[1]): child
        for child in group
        if (match := _LINKED.match(child))
        and (
            isinstance(group.get(child, getlink=True), h5py.ExternalLink)
            or (not links_only and holds_frames(find(group, child), 2))
        )
    }


def _is_dectris(entry: h5py.Group, detector: h5py.Group) -> bool:
    """By the program's name; else by a group that drivers of areaDetector write, too."""
    program = find(entry, "program_name")
    if isinstance(program, h5py.Dataset) and b"DECTRIS" in np.asarray(whole(program)).tobytes():
        return True
    epics = "NDArrayUniqueId" in detector or any(find_group(entry, p) for p in ATTRIBUTES)
    return "detectorSpecific" in detector and not epics


# --- data files behind links -----------------------------------------------------------------


def _linked(
    scope: Scope,
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
    announced = _announced(detector) if whole else None
    evidence = [f"{data.name}/{children[0]}" + (f" to {children[-1]}" if children[1:] else "")]
    lows = [file.low for file in files if file.low is not None]
    if (np.diff(lows) <= 0).any():
        evidence.append(
            f"image_nr_low does not rise from file to file ({lows[0]}, {lows[1]}, …): it is not "
            "used, frames are counted in order"
        )
        files = [replace(file, low=None) for file in files]
    planes, index = _series(files, announced)
    lost = sum(file.lost is not None for file in files)
    if lost:
        evidence.append(f"{lost} of {len(files)} data files are not there or cannot be opened")
    said, warnings = _compared(announced, planes)
    evidence += [*said, *channel.evidence]
    stated = any(file.low is not None for file in files)
    return Layout(
        "Eiger master",
        tuple(f"{data.name}/{child}" for child in children),
        planes,
        tuple(evidence),
        index if whole or stated else None,
        detector=detector_info(entry, detector, channel.group),
        exposure=_exposure(detector, planes.size),
        selected=channel.named,
        warnings=warnings,
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

    Numbers count from 1 as DECTRIS does. A file that is not there, or is cut short before another
    one, has the places up to the next one's ``image_nr_low``; else those of a full file, but all
    files together no more than were announced (unless more are there).
    """
    sizes = [0 if file.planes is None else file.planes.size for file in files]
    full = max(*sizes, 1)
    last = max((row for row, size in enumerate(sizes) if size), default=0)
    left = np.inf if announced is None or announced < sum(sizes) else announced - sum(sizes)
    parts, numbers = [], []
    after = 1
    for row, (file, following) in enumerate(zip(files, [*files[1:], None], strict=True)):
        if file.low is not None:
            after = file.low
        room = int(max(min(full - sizes[row], left), 0))
        if following is not None and following.low is not None:
            room = max(following.low - after - sizes[row], 0)
            if file.planes is not None:
                room = min(room, full - sizes[row])
        elif row >= last and file.planes is not None:
            room = 0
        left -= room
        parts += [] if file.planes is None else [file.planes]
        if room:
            error = file.lost or _short(file, full)
            lost = lost_planes(room, error)
            parts.append(replace(lost, place=lost.place + sizes[row]))
        numbers.append(after + np.arange(sizes[row] + room))
        after += sizes[row] + room
    return joined(parts), np.concatenate(numbers)


def _short(file: _File, full: int) -> LostDatasetError:
    assert file.planes is not None
    stored = file.planes.stored[0]
    reason = f"{stored.file} holds {file.planes.size} frames, other data files {full}"
    return LostDatasetError(stored.file, stored.dataset, FrameStatus.MISSING, reason)


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
            said = np.asarray(whole(axis)).ravel().tolist()
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
    said, warnings = _compared(_announced(detector), planes)
    if isinstance(ids, h5py.Dataset) and ids.size == planes.size:
        stated = np.asarray(whole(ids), np.int64).ravel()
        if why := miscount(stated):
            said += (f"image_id {why}: it is not used, frames are counted in order",)
        else:
            numbers = stated
    where = "virtual, over data files" if data.is_virtual else "in the master itself"
    return Layout(
        "Eiger master",
        (f"/{name}/data/data",),
        planes,
        (
            f"/{name}/data/data {where}, {data.ndim} axes",
            *said,
            *channel.evidence,
        ),
        numbers,
        detector=detector_info(entry, detector, channel.group),
        exposure=_exposure(detector, planes.size),
        selected=channel.named,
        warnings=warnings,
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


def _compared(announced: int | None, planes: Planes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Evidence that all frames are there, or a warning that they are not."""
    found = int((planes.problem == 0).sum())
    if announced is None:
        return (), ()
    if announced == found:
        return (f"all {announced} frames that the master announces (nimages × ntrigger)",), ()
    return (), (f"the master announces {announced} frames (nimages × ntrigger), {found} are there",)


def _exposure(detector: h5py.Group | None, frames: int) -> Exposure:
    return exposure(detector, frames, ("count_time", "detectorSpecific/count_time", "frame_time"))
