"""Which raw values carry no measurement, and how a frame is turned (decisions 1 and 4)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.masks import equal_to, without_measurement
from xrdpipe.types import IntArray

_COUNTING = re.compile(
    r"pilatus|eiger|maxipix|lambda|xpad|cirpad|medipix|timepix|mythen|merlin|dectris", re.I
)
_INTEGRATING = re.compile(
    r"ccd|rayonix|mar|pixium|perkin|dexela|frelon|adsc|quantum|basler|fairchild|jungfrau|"
    r"fit2d|varex|aarhus|raspberry|apex|titan|hamamatsu|nexus.*flat|mil.*cam",
    re.I,
)

_DEPTHS = (8, 16, 32)
"""Bits of the unsigned types that detectors store; 12 or 20 bits are those of their counters."""
_TOP32 = 2**32 - 1


@dataclass(frozen=True)
class PixelKind:
    """Photon-counting or integrating, with the values that mean 'no measurement'.

    Parameters
    ----------
    counting
        True for photon counters.
    sentinels
        Raw values without measurement; whole ones are int, as 2^64-1 is no float.
    saturation
        Raw value from which a pixel is saturated, or None.
    reason
        The evidence, one phrase.
    suspect
        True if the values look like sentinels but nothing says the detector counts photons.
    watched
        Values that were not decided on, and would mean 'no measurement' in another frame.
    """

    counting: bool
    sentinels: tuple[float, ...]
    saturation: float | None
    reason: str
    suspect: bool = False
    watched: tuple[int, ...] = ()


def pixel_kind(
    image: NDArray[Any],
    detector_class: str = "Detector",
    description: str | None = None,
    saturation: float | None = None,
    override: tuple[float, ...] | str | None = None,
    bit_depth: int | None = None,
) -> PixelKind:
    """Decide from the detector class, the metadata, or the values seen, in this order.

    The largest value of the detector's own dtype means 'no measurement' also where a writer has
    cast the pixels to a wider one: 65535 stays 65535 in a uint32 copy.

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
    bit_depth
        Bits of a pixel as the detector read it, from the metadata or the source of a cast.
    """
    dtype = image.dtype
    top = int(np.iinfo(dtype).max) if dtype.kind == "u" else None
    counting, reason = _counting(image, detector_class, description)
    stated = " by the " in reason
    own_top, why = _top_before_cast(image, bit_depth)
    largest = (top,) if own_top is None else (own_top, top)
    tops = tuple(value for value in largest if value is not None)
    sentinels: tuple[float, ...] = ()
    watched: tuple[int, ...] = ()
    if override is not None:
        sentinels = () if override == "none" else tuple(float(v) for v in override)
        reason = f"{reason}; sentinels from the option"
    elif counting:
        sentinels = tops if dtype.kind == "u" else (*tops, -1, -2)
    if override is None and (counting or not stated):
        watched = tuple(value for value in _telling(image, top) if value not in sentinels)
    reason += f"; {why}" if why else ""
    if not counting and saturation is None and tops:
        saturation = tops[0]
    suspect = bool(
        not (counting or stated)
        and override is None
        and any(equal_to(image, value).any() for value in tops)
    )
    return PixelKind(counting, sentinels, saturation, reason, suspect, watched)


def sentinels_of(image: NDArray[Any], kind: PixelKind) -> tuple[tuple[int, ...], bool]:
    """Sentinels that one frame holds besides those decided on, and whether it is suspect.

    The decision was made on one frame; a pixel may fail, or saturate, in a later one only. The
    largest value of a narrower dtype tells where nothing lies above it, -1 and -2 where nothing
    else lies below zero. What an integrating detector may reach is not left out, only suspect.
    """
    found: list[int] = []
    suspect = False
    for value in sorted((v for v in kind.watched if v > 0), reverse=True):
        if equal_to(image, value).any():
            known = without_measurement(image, (*kind.sentinels, *found))
            if not (image[~known] > value).any():
                suspect = True
                if kind.counting or value >= _TOP32:
                    found.append(value)
    if -1 in kind.watched and _only_minus_one_or_two(image):
        found += [-1, -2]
    return tuple(found), suspect or bool(found)


def _telling(image: NDArray[Any], top: int | None) -> list[int]:
    """Values that mean 'no measurement' on a counting detector, if they come up."""
    width = _counts_to(image.dtype)
    values = [2**bits - 1 for bits in _DEPTHS[1:] if bits < width]
    if top is not None:
        values.append(top)
    elif not (image < 0).any():
        values += [-1, -2]
    return values


def _only_minus_one_or_two(image: NDArray[Any]) -> bool:
    if not np.fmin.reduce(image, axis=None) < 0:
        return False
    return set(np.unique(image[image < 0]).tolist()) <= {-1, -2}


def _counts_to(dtype: np.dtype[Any]) -> int:
    """Bits of the type, one more for floats: they hold the largest value of the same width."""
    return 8 * dtype.itemsize + (dtype.kind == "f")


def _top_before_cast(image: NDArray[Any], bit_depth: int | None) -> tuple[int | None, str]:
    """The largest value of the dtype that was cast to the image's, and how it is known.

    None where nothing shows a cast. Summed frames exceed the bits of one readout: then the
    metadata do not tell.
    """
    dtype = image.dtype
    if dtype.itemsize < 2 or dtype == np.float16:
        return None, ""
    width = _counts_to(dtype)
    usable = image[np.isfinite(image)] if dtype.kind == "f" else image
    if dtype.kind == "u":
        usable = usable[usable != np.iinfo(dtype).max]
    if not usable.size:
        return None, ""
    highest = usable.max()
    if bit_depth in _DEPTHS and bit_depth < width:
        top = 2**bit_depth - 1
        if highest <= dtype.type(top):
            return top, f"{bit_depth} bits before a writer made it {dtype}"
        return None, (
            f"the {bit_depth} bits of the metadata are one readout's, values reach {highest:g}"
        )
    for bits in (depth for depth in _DEPTHS[1:] if depth < width):
        top = 2**bits - 1
        several = highest == dtype.type(top) and (usable == highest).sum() > 1
        if several:
            return top, (
                f"2^{bits}-1 is the largest value, in {int((usable == highest).sum())} pixels: "
                f"{bits} bits before a writer made it {dtype}"
            )
    return None, ""


def _counting(
    image: NDArray[Any], detector_class: str, description: str | None
) -> tuple[bool, str]:
    for name, origin in ((detector_class, "detector class"), (description or "", "metadata")):
        if _COUNTING.search(name):
            return True, f"photon-counting by the {origin} '{name}'"
        if _INTEGRATING.search(name):
            return False, f"integrating by the {origin} '{name}'"
    if image.dtype.kind in "if":
        if _only_minus_one_or_two(image):
            return True, "photon-counting: the only values below zero are -1 and -2"
        below = np.unique(image[image < 0])
        if below.size:
            return False, f"integrating: {below.size} different values below zero are data"
    for bits in (32, 64):
        if equal_to(image, 2**bits - 1).any():
            return (
                True,
                f"photon-counting: 2^{bits}-1 is present, no integrating detector reaches it",
            )
    return False, "nothing says photon-counting: taken as integrating"


MASK_BITS = ("gap", "dead", "under-responding", "over-responding", "noisy")
"""Meaning of the lowest bits of an NXdetector ``pixel_mask``."""


def pixel_mask_reasons(mask: IntArray) -> list[tuple[str, int]]:
    """How many pixels a ``pixel_mask`` marks for which reason; a pixel counts once."""
    reasons = []
    left = np.asarray(mask).astype(np.int64)
    for bit, why in enumerate(MASK_BITS):
        marked = (left >> bit) & 1 == 1
        if marked.any():
            reasons.append((why, int(marked.sum())))
        left = np.where(marked, 0, left)
    if left.any():
        reasons.append(("other", int((left != 0).sum())))
    return reasons


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
