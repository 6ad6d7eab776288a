"""What a finished file says of the run that wrote it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from xrdpipe.bounds import sound
from xrdpipe.errors import InputError
from xrdpipe.frames.layouts.links import whole
from xrdpipe.schema import LOST, FrameStatus
from xrdpipe.store.nexus import PENDING_PATH, text

PROCESSES = ("phase_map", "resampling", "reduction", "process")
"""Groups of ``/entry`` that hold the ``run_key`` of a command, the last one first."""


@dataclass(frozen=True)
class Frames:
    """Frames that are good, those that are lost, and why: reason → frames, the first few."""

    ok: int = 0
    lost: int = 0
    reasons: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Written:
    """A finished file: the key of its run, the command, when, of which version.

    ``frames`` is None where it holds none.
    """

    key: Mapping[str, Any]
    command: str
    date: str
    version: str
    frames: Frames | None
    pending: int = 0
    """Pixels of a partial map that have no frame yet."""


def frames_of(status: NDArray[Any], reasons: Iterable[bytes] = (), most: int = 5) -> Frames:
    """Count ``frames/status``; at most ``most`` reasons, the first ones first."""
    counted = Counter(reason.decode(errors="replace") for reason in reasons if reason)
    ok = int(np.count_nonzero(status == FrameStatus.OK))
    return Frames(ok, int(np.isin(status, [*LOST]).sum()), tuple(counted.items())[:most])


def read_written(path: Path) -> Written | None:
    """What a file says of its run; None if xrdpipe did not write it, or it cannot be read."""
    try:
        with sound(str(path)), h5py.File(path, "r", locking=False) as file:
            entry = file.get("entry")
            names = () if not isinstance(entry, h5py.Group) else PROCESSES
            for name in names:
                if f"{name}/run_key" in entry:
                    process = entry[name]
                    key = json.loads(text(process["run_key"]))
                    date, version = text(process["date"]), text(process["version"])
                    pending = int(whole(file[PENDING_PATH])) if PENDING_PATH in file else 0
                    stage = str(key.get("stage", ""))
                    return Written(key, stage, date, version, _frames(entry), pending)
    except InputError:
        return None
    return None


def frame_counts(path: Path) -> tuple[int, int] | None:
    """Frames that are good in a patterns file or map, and those that were lost, if it is one."""
    written = read_written(path)
    if written is None or written.frames is None:
        return None
    return written.frames.ok, written.frames.lost


def _frames(entry: h5py.Group) -> Frames | None:
    if "phase_map/status" in entry:
        return frames_of(whole(entry["phase_map/status"]))
    if "frames/status" in entry:
        return frames_of(whole(entry["frames/status"]), whole(entry["frames/reason"]))
    return None
