"""Colours of maps whose pixels are kinds, not numbers: the same in every picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.maps import PhaseMap
from xrdpipe.schema import NO_RESULT, UNDETERMINED, UNKNOWN, FrameStatus, PixelStatus

PHASE_COLORS = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#0072B2", "#F0E442")
"""Okabe & Ito's, told apart by colour-blind readers; black and grey are kept for "none of the
phases" and "no result"."""

MORE_COLORS = ("#332288", "#999933", "#882255")
"""Of Tol's muted scheme: for combinations, once the phases' own colours are used up."""

NONE_COLOR = "#000000"
UNKNOWN_COLOR = "#AA4466"
UNDETERMINED_COLOR = "#E6E6E6"
OTHERS_COLOR = "#FFFFFF"
NO_DATA_COLOR = "#BBBBBB"

MOST_NAMES = 5
"""Phases named of a combination."""

MOST_COMBINATIONS = 9
"""Shown by name; more colours cannot be told apart."""

STATUS_COLORS = {
    FrameStatus.PENDING: "#FFFFFF",
    FrameStatus.OK: "#9ECAE1",
    FrameStatus.MISSING: "#BBBBBB",
    FrameStatus.UNREADABLE: "#E69F00",
    FrameStatus.CORRUPT: "#D55E00",
    FrameStatus.WRONG_SHAPE: "#CC79A7",
    FrameStatus.EMPTY: "#F0E442",
    FrameStatus.DUPLICATE: "#999933",
    FrameStatus.SKIPPED: "#777777",
    PixelStatus.OUTSIDE_GRID: "#0072B2",
    PixelStatus.MODEL_FAILED: "#000000",
}


STATUS_WORDS = {
    FrameStatus.PENDING: "still to come",
    FrameStatus.OK: "good",
    FrameStatus.MISSING: "no frame",
    FrameStatus.UNREADABLE: "frame unreadable",
    FrameStatus.CORRUPT: "frame corrupt",
    FrameStatus.WRONG_SHAPE: "frame of another shape",
    FrameStatus.EMPTY: "frame empty",
    FrameStatus.DUPLICATE: "frame a duplicate",
    FrameStatus.SKIPPED: "frame skipped",
    PixelStatus.OUTSIDE_GRID: "pattern covers too little of the model's range",
    PixelStatus.MODEL_FAILED: "model gave no number",
}


@dataclass(frozen=True)
class ColorClass:
    """One kind of pixel of a map that is no number.

    Parameters
    ----------
    label, color
        As the legend says and shows it.
    count
        Pixels of it.
    """

    label: str
    color: str
    count: int


def combinations(phase_map: PhaseMap) -> tuple[NDArray[np.int16], tuple[ColorClass, ...]]:
    """Which phases are present together.

    One phase alone has its own colour. The rare combinations of maps with many phases share one;
    pixels of none of the phases are told apart by whether the model knows what it sees.

    Returns
    -------
    Shape (ny, nx), the place of each pixel's class; and the classes, the frequent ones first.
    """
    none = 0
    codes = np.asarray(phase_map.combination, np.int64).copy()
    for reason in (UNKNOWN, UNDETERMINED):
        codes[(codes == none) & (phase_map.winner == reason)] = reason
    found, counts = np.unique(codes, return_counts=True)
    number = dict(zip(found.tolist(), counts.tolist(), strict=True))
    by_count = sorted((code for code in number if code > 0), key=lambda c: (-number[c], c))
    named, rest = by_count[:MOST_COMBINATIONS], by_count[MOST_COMBINATIONS:]
    if len(rest) == 1:
        named, rest = by_count[: MOST_COMBINATIONS + 1], []
    colors = _combination_colors(named, len(phase_map.phase_names))
    classes = [
        ColorClass(combination_label(code, phase_map.phase_names), colors[code], number[code])
        for code in named
    ]
    places = {code: place for place, code in enumerate(named)}
    if rest:
        places |= dict.fromkeys(rest, len(classes))
        count = sum(number[code] for code in rest)
        classes.append(ColorClass(f"{len(rest)} rarer combinations", OTHERS_COLOR, count))
    for code, label, color in (
        (none, "none of the phases", NONE_COLOR),
        (UNKNOWN, "none of them, something unknown", UNKNOWN_COLOR),
        (UNDETERMINED, "undetermined", UNDETERMINED_COLOR),
        (NO_RESULT, "no result", NO_DATA_COLOR),
    ):
        if code in number:
            places[code] = len(classes)
            classes.append(ColorClass(label, color, number[code]))
    values = np.array([places[code] for code in found.tolist()], np.int16)
    return values[np.searchsorted(found, codes)], tuple(classes)


def combination_label(code: int, names: Sequence[str]) -> str:
    """The phases of Σ 2^k, joined; of many, how many more."""
    present = [name for k, name in enumerate(names) if code >> k & 1]
    more = len(present) - MOST_NAMES
    return " + ".join([*present[:MOST_NAMES], *([f"{more} more"] if more > 0 else [])])


def _combination_colors(codes: Sequence[int], n_phases: int) -> dict[int, str]:
    """A phase alone has its own colour, combinations those that are left.

    Where there are colours for all, a combination has the same in every map of these phases.
    """
    if 2**n_phases - 1 <= len(PHASE_COLORS) + len(MORE_COLORS):
        codes = range(1, 2**n_phases)
    colors: dict[int, str] = {}
    for code in codes:
        if code & (code - 1) == 0:
            own = PHASE_COLORS[(code.bit_length() - 1) % len(PHASE_COLORS)]
            if own not in colors.values():
                colors[code] = own
    free = [c for c in (*PHASE_COLORS[::-1], *MORE_COLORS) if c not in colors.values()]
    for code in codes:
        if code not in colors:
            colors[code] = free.pop(0)
    return colors


def statuses(phase_map: PhaseMap) -> tuple[NDArray[np.int16], tuple[ColorClass, ...]]:
    """What became of every pixel; as :func:`combinations`."""
    indices = np.zeros(phase_map.status.shape, np.int16)
    classes: list[ColorClass] = []
    for member in (m for m in [*FrameStatus, *PixelStatus] if (phase_map.status == m).any()):
        same = phase_map.status == member
        indices[same] = len(classes)
        classes.append(ColorClass(STATUS_WORDS[member], STATUS_COLORS[member], int(same.sum())))
    return indices, tuple(classes)
