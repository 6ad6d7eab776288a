"""What became of the frames of a finished file."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from xrdpipe.schema import LOST, FrameStatus


def frame_counts(path: Path) -> tuple[int, int] | None:
    """Frames that are good in a patterns file or map, and those that were lost.

    None for anything else.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            if "entry/phase_map/status" in file:
                status = file["entry/phase_map/status"][()]
            elif "entry/frames/status" in file:
                status = file["entry/frames/status"][()]
            else:
                return None
    except OSError:
        return None
    ok = int(np.count_nonzero(status == FrameStatus.OK))
    return ok, int(np.isin(status, [*LOST]).sum())
