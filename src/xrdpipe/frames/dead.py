"""Which raw values carry no measurement, and how a frame is turned (decisions 1 and 4)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_COUNTING = re.compile(
    r"pilatus|eiger|maxipix|lambda|xpad|cirpad|medipix|timepix|mythen|merlin|dectris", re.I
)
_INTEGRATING = re.compile(
    r"ccd|rayonix|mar|pixium|perkin|dexela|frelon|adsc|quantum|basler|fairchild|jungfrau|"
    r"fit2d|varex|aarhus|raspberry|apex|titan|hamamatsu|nexus.*flat|mil.*cam",
    re.I,
)


@dataclass(frozen=True)
class PixelKind:
    """Photon-counting or integrating, with the values that mean 'no measurement'.

    Parameters
    ----------
    counting
        True for photon counters.
    sentinels
        Raw values without measurement.
    saturation
        Raw value from which a pixel is saturated, or None.
    reason
        The evidence, one phrase.
    suspect
        True if the values look like sentinels but nothing says the detector counts photons.
    """

    counting: bool
    sentinels: tuple[float, ...]
    saturation: float | None
    reason: str
    suspect: bool = False


def pixel_kind(
    image: NDArray[Any],
    detector_class: str = "Detector",
    description: str | None = None,
    saturation: float | None = None,
    override: tuple[float, ...] | str | None = None,
) -> PixelKind:
    """Decide from the detector class, the metadata, or the values seen, in this order.

    Parameters
    ----------
    image
        One frame in its native dtype.
    detector_class
        pyFAI's name of the detector in the PONI.
    description
        The detector's name in the metadata.
    saturation
        Saturation value from metadata or option.
    override
        ``--sentinel``: values, or ``"none"``.
    """
    dtype = image.dtype
    top = float(np.iinfo(dtype).max) if dtype.kind in "ui" else None
    counting, reason = _counting(image, detector_class, description)
    stated = " by the " in reason
    if override is not None:
        sentinels = () if override == "none" else tuple(float(v) for v in override)
        reason = f"{reason}; sentinels from the option"
    elif counting and dtype.kind == "u":
        sentinels = (float(top or 0),)
    elif counting:
        sentinels = (-1.0, -2.0)
    else:
        sentinels = ()
    if not counting and saturation is None and dtype.kind == "u":
        saturation = top
    suspect = bool(
        not (counting or stated)
        and override is None
        and dtype.kind == "u"
        and (image == dtype.type(top)).any()
    )
    return PixelKind(counting, sentinels, saturation, reason, suspect)


def _counting(
    image: NDArray[Any], detector_class: str, description: str | None
) -> tuple[bool, str]:
    for name, origin in ((detector_class, "detector class"), (description or "", "metadata")):
        if _COUNTING.search(name):
            return True, f"photon-counting by the {origin} '{name}'"
        if _INTEGRATING.search(name):
            return False, f"integrating by the {origin} '{name}'"
    if image.dtype.kind in "if":
        below = np.unique(image[image < 0])
        if below.size and set(below.tolist()) <= {-1, -2}:
            return True, "photon-counting: the only values below zero are -1 and -2"
        if below.size:
            return False, f"integrating: {below.size} different values below zero are data"
    if image.dtype == np.uint32 and (image == np.iinfo(np.uint32).max).any():
        return True, "photon-counting: 2^32-1 is present, no integrating detector reaches it"
    return False, "nothing says photon-counting: taken as integrating"


def oriented(image: NDArray[Any], flip: str, rotate: int) -> NDArray[Any]:
    """Flip, then rotate counter-clockwise; a view where possible.

    Parameters
    ----------
    flip
        ``none``, ``ud``, ``lr`` or ``both``.
    rotate
        0, 90, 180 or 270 degrees.
    """
    if flip in ("ud", "both"):
        image = image[::-1]
    if flip in ("lr", "both"):
        image = image[:, ::-1]
    return np.rot90(image, rotate // 90) if rotate else image
