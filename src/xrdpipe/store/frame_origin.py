"""What a patterns file says of the frames it was made from: files, geometry, mask."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.bounds import sound
from xrdpipe.errors import InputError
from xrdpipe.frames.layouts.links import whole
from xrdpipe.store.nexus import text
from xrdpipe.store.patterns import PatternsFile
from xrdpipe.types import BoolArray


@dataclass(frozen=True)
class FrameOrigin:
    """Where the frames lie and how they look at the sample.

    Parameters
    ----------
    files, places
        Of each row: the file relative to the common folder of all, and the frame in it.
    given
        The frames as the integration was told to find them.
    flip, rotate
        From the stored frame to the orientation of the geometry.
    poni
        Text of the geometry.
    wavelength
        In Å.
    sentinels
        Raw values that mean 'no measurement'.
    mask
        Shape (rows, columns), True = masked, in the orientation of the geometry; (0, 0) if there
        is none.
    """

    files: tuple[str, ...]
    places: tuple[int, ...]
    given: tuple[str, ...]
    flip: str
    rotate: int
    poni: str
    wavelength: float
    sentinels: tuple[float, ...]
    mask: BoolArray


def frame_origin(source: PatternsFile) -> FrameOrigin:
    """Read it.

    Raises
    ------
    InputError
        If the patterns were not made from frames by xrdpipe.
    """
    files = source.source_files
    entry = source.entry
    with sound(str(source.path)):
        if not files or "reduction/input/poni" not in entry:
            raise InputError(
                f"{source.path} does not say which frames it was made from: there are none to show."
            )
        given = entry["reduction/input"]
        sentinels = whole(given["sentinels"]) if "sentinels" in given else ()
        mask: NDArray[np.bool_] = np.zeros((0, 0), bool)
        if "instrument/detector/mask_applied" in entry:
            mask = np.asarray(whole(entry["instrument/detector/mask_applied"]), bool)
        return FrameOrigin(
            files=tuple(files),
            places=tuple(int(place) for place in whole(entry["frames/source_frame"])),
            given=_frames_given(text(given["config_json"]) if "config_json" in given else ""),
            flip=text(given["flip"]) if "flip" in given else "none",
            rotate=int(whole(given["rotate"])) if "rotate" in given else 0,
            poni=text(given["poni"]),
            wavelength=source.wavelength,
            sentinels=tuple(float(value) for value in np.atleast_1d(sentinels)),
            mask=mask,
        )


def _frames_given(config: str) -> tuple[str, ...]:
    """The option ``frames`` of the integration."""
    try:
        return tuple(str(name) for name in json.loads(config or "{}").get("frames") or ())
    except (ValueError, AttributeError, TypeError):
        return ()
