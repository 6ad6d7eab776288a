"""MAX IV (Sardana, contrast): scan file with ``measurement``, detector in a file beside it.

``scan-1737.h5:/entry/measurement/<motor>``; frames in ``scan-1737_pilatus.h5:/entry/instrument/
pilatus/data``, behind a link or a virtual dataset, or with nothing but the names to tell.
"""

from __future__ import annotations

from pathlib import Path

import h5py

from xrdpipe.errors import InputError
from xrdpipe.frames.layouts.commands import hint, parse_command
from xrdpipe.frames.layouts.layout import (
    NO_FRAMES,
    Column,
    Layout,
    Scope,
    columns_in,
    distinct,
    holds_frames,
    reader,
)
from xrdpipe.frames.layouts.links import LostDatasetError, find_group, follow, open_file
from xrdpipe.frames.layouts.metadata import detector_info, exposure, text
from xrdpipe.frames.layouts.planes import planes_of
from xrdpipe.types import ScanHint

_COMMANDS = ("title", "description", "macro")
_TIMES = ("count_time", "exposure_time", "acquisition_time")


def probe(scope: Scope) -> Layout | None:
    """Find the frames of a scan file, or of a detector file with its scan file beside it.

    Raises
    ------
    InputError
        If the scan has several detectors, or its frames are gone.
    """
    for name, entry in scope.entries():
        stacks, lost = _stacks(entry)
        stacks = [(path, data) for path, data in stacks if scope.means(data)]
        measurement = find_group(entry, "measurement")
        if measurement is None:
            beside = _scan_file(scope, stacks)
            if beside is None:
                continue
            return _layout(name, entry, *stacks[0], beside)
        if not (lost or text(entry, *_COMMANDS) or any(_behind(entry, d) for _, d in stacks)):
            continue
        if len(stacks) == 1:
            return _layout(name, entry, *stacks[0], None)
        if len(stacks) > 1:
            listing = ", ".join(f"/{name}/{path} {data.shape}" for path, data in stacks)
            raise InputError(
                f"{scope.path} holds {len(stacks)} stacks of frames ({listing}); name the one to "
                f"read as {scope.path}::/{name}/{stacks[0][0]}."
            )
        if lost and scope.only is None:
            raise InputError(f"{scope.path}: the frames are lost: {lost[0]}.")
    return None


def _behind(entry: h5py.Group, data: h5py.Dataset) -> bool:
    """True if the frames lie in another file."""
    return bool(data.is_virtual or data.file.filename != entry.file.filename)


def _stacks(entry: h5py.Group) -> tuple[list[tuple[str, h5py.Dataset]], list[str]]:
    """Detectors of a scan, in ``measurement`` or ``instrument``; and why others are lost."""
    found, lost = [], []
    for place, inner in (("measurement", ("", "frames", "data")), ("instrument", ("data",))):
        group = find_group(entry, place)
        for child in group if group is not None else ():
            if NO_FRAMES.search(child):
                continue
            for last in inner:
                path = f"{place}/{child}/{last}".rstrip("/")
                try:
                    data = follow(entry, path)
                except LostDatasetError as error:
                    if error.file != entry.file.filename:
                        lost.append(error.reason)
                    continue
                if holds_frames(data):
                    found.append((path, data))
    return distinct(found), lost


def _scan_file(scope: Scope, stacks: list[tuple[str, h5py.Dataset]]) -> h5py.File | None:
    """``scan-1737.h5`` beside ``scan-1737_pilatus.h5``, if it records a scan."""
    path = Path(scope.path)
    stem, _, detector = path.stem.rpartition("_")
    if len(stacks) != 1 or not stem or detector.isdigit():
        return None
    sibling = path.with_name(stem + path.suffix)
    if not sibling.is_file():
        return None
    try:
        file = open_file(str(sibling))
    except OSError:
        return None
    return file if find_group(file, "entry/measurement") is not None else None


def _layout(
    name: str, entry: h5py.Group, path: str, data: h5py.Dataset, beside: h5py.File | None
) -> Layout:
    planes = planes_of(data)
    scan = entry if beside is None else beside["entry"]
    columns = columns_in(find_group(scan, "measurement"))
    camera = path.split("/")[1]
    detector = find_group(data.file, data.parent.name) if data.parent.name != "/" else None
    info = detector_info(entry, detector or find_group(entry, f"instrument/{camera}"))
    evidence = [f"/{name}/{path}", f"{len(columns)} columns in {scan.name}/measurement"]
    if _behind(entry, data):
        evidence.append(f"frames in {planes.stored[-1].name}")
    if beside is not None:
        evidence.append(f"scan file {beside.filename} lies beside")
    seconds = exposure(detector, planes.size, _TIMES)
    scan_hint, command_seconds = _hint(scan, columns, planes.size)
    return Layout(
        "MAX IV",
        (f"/{name}/{path}",),
        planes,
        tuple(evidence),
        columns=columns,
        scan=scan_hint,
        detector=info,
        exposure=command_seconds if seconds is None else seconds,
    )


def _hint(
    scan: h5py.Group, columns: dict[str, Column], frames: int
) -> tuple[ScanHint | None, float | None]:
    command = text(scan, *_COMMANDS)
    motion = parse_command(command, frames) if command else None
    if motion is None:
        return None, None

    return hint(motion, "MAX IV", reader(columns)), motion.exposure
