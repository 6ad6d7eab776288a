"""ESRF bliss: one entry ``N.1`` per scan, its detectors linked in ``measurement``.

``/N.1/instrument/<det>/data`` is a virtual dataset over LImA files; ``title`` is the command.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import h5py

from xrdpipe.errors import InputError
from xrdpipe.frames.layouts.commands import Motion, hint, parse_command
from xrdpipe.frames.layouts.layout import (
    Column,
    Layout,
    Scope,
    columns_in,
    distinct,
    holds_frames,
    reader,
)
from xrdpipe.frames.layouts.links import LostDatasetError, attribute, find, find_group, follow
from xrdpipe.frames.layouts.metadata import detector_info, exposure, number, text
from xrdpipe.frames.layouts.planes import planes_of
from xrdpipe.types import ScanHint

_ENTRY = re.compile(r"(.*_)?\d+\.\d+$")
_COUNTERS = ("_position", "_pos", "_enc", "_encoder", "_center")
LISTED = 8


@dataclass(frozen=True)
class _Stack:
    entry: str
    group: h5py.Group
    detector: str
    data: h5py.Dataset


def probe(scope: Scope) -> Layout | None:
    """Find the one scan with frames of a bliss file.

    Raises
    ------
    InputError
        If several scans have frames, or none, listing them.
    """
    entries = _entries(scope)
    if not entries:
        return None
    found, lost = [], []
    for name, group in entries:
        stacks, dangling = _stacks(name, group)
        found += [stack for stack in stacks if scope.means(stack.data)]
        lost += dangling
    found = [stack for stack in found if stack.data.shape[0] > 0]
    if len(found) == 1:
        return _layout(scope, found[0], len(entries))
    if found:
        raise InputError(_several(scope, found))
    if scope.only is not None:
        return None
    titles = "; ".join(_titled(n, g) for n, g in entries[:LISTED])
    why = f" The frames of {lost[0]} are lost." if lost else ""
    raise InputError(
        f"{scope.path} is a bliss file of {len(entries)} scans ({titles}), none of which holds "
        f"frames (yet).{why}"
    )


def _entries(scope: Scope) -> list[tuple[str, h5py.Group]]:
    names = [scope.entry] if scope.entry else list(scope.file)
    entries = []
    for name in names:
        if not _ENTRY.match(name):
            continue
        group = find_group(scope.file, name)
        if group is not None and ("measurement" in group or "instrument" in group):
            entries.append((name, group))
    return sorted(entries, key=lambda item: _natural(item[0]))


def _natural(name: str) -> tuple[str, list[int]]:
    return re.sub(r"\d+\.\d+$", "", name), [int(n) for n in re.findall(r"\d+", name)[-2:]]


def _stacks(name: str, entry: h5py.Group) -> tuple[list[_Stack], list[str]]:
    """Detectors with frames of one scan, and those whose frames are gone."""
    inside = "measurement" if "measurement" in entry else "instrument"
    group = find_group(entry, inside)
    stacks, lost = [], []
    for child in group if group is not None else ():
        path = f"{inside}/{child}" if inside == "measurement" else f"{inside}/{child}/data"
        try:
            data = follow(entry, path)
        except LostDatasetError as error:
            lost.append(error.reason)
            continue
        if holds_frames(data):
            stacks.append((child, data))
    return [_Stack(name, entry, child, data) for child, data in distinct(stacks)], lost


def _several(scope: Scope, found: list[_Stack]) -> str:
    lines = [
        f"{_titled(s.entry, s.group)}: {s.detector} {' x '.join(str(n) for n in s.data.shape)}"
        for s in found[:LISTED]
    ]
    more = f"; and {len(found) - LISTED} more" if len(found) > LISTED else ""
    one = found[0]
    example = f"{scope.path}::/{one.entry}"
    if len({stack.entry for stack in found}) == 1:
        example += f"/measurement/{one.detector}"
    return (
        f"{scope.path} holds {len(found)} stacks of frames ({'; '.join(lines)}{more}); name the "
        f"one to read, for example {example}."
    )


def _titled(name: str, group: h5py.Group) -> str:
    return f"{name} '{text(group, 'title') or 'no title'}'"


def _layout(scope: Scope, stack: _Stack, n_entries: int) -> Layout:
    entry = stack.group
    planes = planes_of(stack.data)
    detector = find_group(entry, f"instrument/{stack.detector}")
    title = text(entry, "title") or ""
    columns = columns_in(find_group(entry, "instrument/positioners"))
    columns |= columns_in(find_group(entry, "measurement"))
    motion = _measured(_fscan(entry) or parse_command(title, planes.size), columns)
    columns |= _slow_columns(entry, motion, columns)
    source = f"{'virtual dataset' if stack.data.is_virtual else 'dataset'} {stack.data.name}"
    evidence = [f"entry {stack.entry} of {n_entries}", f"title '{title}'", source]
    creator = attribute(scope.file, "creator") or attribute(scope.file, "publisher")
    if creator:
        evidence.insert(0, f"written by {creator}")
    count_time = exposure(
        detector, planes.size, ("acq_parameters/acq_expo_time", "count_time", "exposure_time")
    )
    if count_time is None and motion is not None:
        count_time = motion.exposure
    if count_time is None:
        count_time = _of_ct(title)
    return Layout(
        "bliss",
        (f"/{stack.entry}/measurement/{stack.detector}",),
        planes,
        tuple(evidence),
        columns=columns,
        scan=_hint(motion, columns),
        detector=detector_info(entry, detector),
        exposure=count_time,
    )


def _of_ct(title: str) -> float | None:
    """``ct 1``, ``loopscan 100 0.1`` and ``timescan 0.1`` end with the exposure."""
    words = re.sub(r"[(),]", " ", title).split()
    if words and words[0] in ("ct", "sct", "loopscan", "timescan", "limatake"):
        try:
            return float(words[2 if words[0] == "loopscan" else 1])
        except (ValueError, IndexError):
            return None
    return None


def _fscan(entry: h5py.Group) -> Motion | None:
    """The parameters of continuous scans, which bliss writes as texts."""
    group = find_group(entry, "instrument/fscan_parameters")
    fast, slow = text(group, "fast_motor"), text(group, "slow_motor")
    points = number(group, "fast_npoints"), number(group, "slow_npoints")
    if not fast or not slow or not points[0] or not points[1]:
        return None
    mode = (text(group, "fast_motor_mode") or "").upper()
    snake = {"ZIGZAG": True, "REWIND": False, "FORWARD": False}.get(mode)
    return Motion(
        ((fast, int(points[0])), (slow, int(points[1]))),
        snake,
        number(group, "acq_time"),
        text(entry, "title") or "fscan2d",
    )


def _measured(motion: Motion | None, columns: dict[str, Column]) -> Motion | None:
    """The motion with each motor by the name of the column that holds its positions.

    Fast scans record a motor in a counter of its own: ``nnp2_position``.
    """
    if motion is None:
        return None

    def column(motor: str) -> str:
        counters = (name for name in columns if name in {motor + end for end in _COUNTERS})
        return motor if motor in columns else next(counters, motor)

    return replace(motion, motors=tuple((column(motor), n) for motor, n in motion.motors))


def _slow_columns(
    entry: h5py.Group, motion: Motion | None, columns: dict[str, Column]
) -> dict[str, Column]:
    """The slow motor, if bliss saved it once per line in the entry ``N.2``."""
    if motion is None or len(motion.motors) != 2 or not entry.name.endswith(".1"):
        return {}
    (_, n_fast), (slow, n_slow) = motion.motors
    second = find_group(entry, entry.name[:-1] + "2")
    if slow in columns or second is None:
        return {}
    for place in ("measurement", "instrument/positioners"):
        data = find(second, f"{place}/{slow}")
        if isinstance(data, h5py.Dataset) and data.ndim == 1 and data.size == n_slow:
            return {slow: Column.at(data, repeat=n_fast)}
    return {}


def _hint(motion: Motion | None, columns: dict[str, Column]) -> ScanHint | None:
    if motion is None:
        return None

    found = hint(motion, "bliss", reader(columns))
    return replace(
        found,
        x=found.x if found.x in columns else None,
        y=found.y if found.y in columns else None,
    )
