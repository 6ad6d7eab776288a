"""What the map can show: each choice with its values, colours and legend."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe import schema
from xrdpipe.maps import PhaseMap
from xrdpipe.pictures import NO_DATA_COLOR, PHASE_COLORS, combination_color, combination_label
from xrdpipe.schema import FrameStatus, PixelStatus
from xrdpipe.types import BoolArray

TOGETHER, CONFIDENCE, UNKNOWN, NUMBER, STATUS = (
    "phases together",
    "confidence of the answer",
    "unknown score",
    "number of phases",
    "status",
)
PROBABILITY, SPREAD = "probability: ", "spread: "

UNKNOWN_COLOR = "#882255"

IN_LEGEND = 12
"""Combinations of phases that the legend names; the others share one line."""

NAMED = 5
"""Phases that are named of a combination; of more, only how many."""

FREQUENT_COLORS = (*PHASE_COLORS, "#332288", "#117733", "#44AA99", "#999933", "#AA4499")
OTHERS_COLOR = "#555555"
"""Of combinations, where there are more phases than colours (Okabe & Ito's, then Tol's)."""

STATUS_COLORS = {
    FrameStatus.PENDING: "#FFFFFF",
    FrameStatus.OK: "#0072B2",
    FrameStatus.MISSING: "#000000",
    FrameStatus.UNREADABLE: "#D55E00",
    FrameStatus.CORRUPT: "#E69F00",
    FrameStatus.WRONG_SHAPE: "#CC79A7",
    FrameStatus.EMPTY: "#F0E442",
    FrameStatus.DUPLICATE: "#882255",
    FrameStatus.SKIPPED: "#777777",
    PixelStatus.OUTSIDE_GRID: "#56B4E9",
    PixelStatus.MODEL_FAILED: "#009E73",
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
class MapView:
    """One picture of the map.

    Parameters
    ----------
    values
        Shape (ny, nx) float32, NaN where there is nothing to show.
    low, high
        Ends of the scale.
    label
        Of the colour bar; empty where colours are categories.
    colors
        One per category 0, 1, …; empty where the scale is continuous.
    legend
        (colour, text) of the categories and counts.
    """

    values: NDArray[np.float32]
    low: float
    high: float
    label: str
    colors: tuple[str, ...]
    legend: tuple[tuple[str, str], ...]


def choices(phase_map: PhaseMap) -> dict[str, list[str]]:
    """Names of the views in groups."""
    overview = [TOGETHER, NUMBER, CONFIDENCE]
    if phase_map.unknown_threshold is not None:
        overview.append(UNKNOWN)
    return {
        "overview": [*overview, STATUS],
        "presence": [PROBABILITY + name for name in phase_map.phase_names],
        "between ensemble members": [SPREAD + name for name in phase_map.phase_names],
    }


def view_of(phase_map: PhaseMap, name: str) -> MapView:
    """One of them."""
    if name.startswith(PROBABILITY):
        return _probability(phase_map, phase_map.phase_names.index(name.removeprefix(PROBABILITY)))
    if name.startswith(SPREAD):
        spread = phase_map.spread[phase_map.phase_names.index(name.removeprefix(SPREAD))]
        known = spread[np.isfinite(spread)]
        high = float(known.max()) if known.size else 0.0
        return _scale(phase_map, spread, high or 0.01, "standard deviation of the probability")
    if name == CONFIDENCE:
        return _scale(phase_map, phase_map.confidence, 1, "probability of the answer")
    if name == UNKNOWN:
        return _unknown(phase_map)
    if name == NUMBER:
        return _number(phase_map)
    if name == STATUS:
        return _status(phase_map)
    return _together(phase_map)


def _scale(
    phase_map: PhaseMap,
    values: NDArray[np.float32],
    high: float,
    label: str,
    legend: tuple[tuple[str, str], ...] = (),
) -> MapView:
    legend = (*legend, *_nothing(phase_map, ~np.isfinite(values)))
    return MapView(np.asarray(values, np.float32), 0.0, high, label, (), legend)


def _nothing(phase_map: PhaseMap, empty: BoolArray) -> list[tuple[str, str]]:
    """Why pixels have no colour: their frame is still to come, or there is no result."""
    pending = phase_map.status == FrameStatus.PENDING
    numbers = {
        STATUS_WORDS[FrameStatus.PENDING]: int(np.count_nonzero(empty & pending)),
        "no result": int(np.count_nonzero(empty & ~pending)),
    }
    return [(NO_DATA_COLOR, f"{text}: {pixels(n)}") for text, n in numbers.items() if n]


def _probability(phase_map: PhaseMap, k: int) -> MapView:
    present = int(np.count_nonzero(phase_map.decision[k] == 1))
    judged = int(np.count_nonzero(phase_map.decision[k] >= 0))
    share = f" ({present / judged:.1%} of those judged)" if judged else ""
    legend = (("", f"present in {pixels(present)}{share}"),)
    return _scale(phase_map, phase_map.probability[k], 1, "probability of presence", legend)


def _unknown(phase_map: PhaseMap) -> MapView:
    limit = phase_map.unknown_threshold
    reached = int(np.count_nonzero(phase_map.unknown >= (np.inf if limit is None else limit)))
    legend = (("", f"at or above the threshold: {pixels(reached)}"),)
    return _scale(phase_map, phase_map.unknown, 1, "unknown score", legend)


def _number(phase_map: PhaseMap) -> MapView:
    counts = phase_map.n_phases
    most = max(int(counts.max(initial=0)), 1)
    colors = tuple(_dark_to_light(most + 1))
    legend = [
        (colors[n], f"{n}: {pixels(total)}")
        for n in range(most + 1)
        if (total := int(np.count_nonzero(counts == n)))
    ]
    return _categories(phase_map, np.where(counts < 0, np.nan, counts), colors, legend)


def _dark_to_light(n: int) -> list[str]:
    """Black for none, then blue to yellow: told apart by brightness alone."""
    ends = np.array([[0, 0, 0], [0, 90, 160], [80, 170, 190], [240, 228, 66]], float)
    place = np.linspace(0, len(ends) - 1, max(n, 2))[:n]
    mixed = [np.interp(place, np.arange(len(ends)), ends[:, c]) for c in range(3)]
    return [hex_color(np.array(rgb) / 255) for rgb in zip(*mixed, strict=True)]


def _status(phase_map: PhaseMap) -> MapView:
    members = list(STATUS_COLORS)
    place = np.full(256, np.nan)
    place[[int(member) for member in members]] = np.arange(len(members))
    values = place[phase_map.status]
    legend = [
        (STATUS_COLORS[member], f"{STATUS_WORDS[member]}: {pixels(total)}")
        for member in members
        if (total := int(np.count_nonzero(phase_map.status == member)))
    ]
    return _categories(phase_map, values, tuple(STATUS_COLORS.values()), legend)


def _together(phase_map: PhaseMap) -> MapView:
    names = phase_map.phase_names
    strange = phase_map.winner == schema.UNKNOWN
    shown = np.where(strange, schema.UNKNOWN, phase_map.combination)
    codes, place, counts = np.unique(shown, return_inverse=True, return_counts=True)
    known = np.flatnonzero(codes != schema.NO_RESULT)
    order = known[np.argsort(-counts[known], kind="stable")]
    named = order[:IN_LEGEND]
    colors = _combination_colors(codes[order].tolist(), len(names))
    labels = [_combination(code, names) for code in codes[named].tolist()]
    legend = [
        (color, f"{label}: {counts[i]}")
        for color, label, i in zip(colors, labels, named, strict=False)
    ]
    if len(order) > IN_LEGEND:
        others = int(counts[order[IN_LEGEND:]].sum())
        color = OTHERS_COLOR if len(names) > len(PHASE_COLORS) else ""
        legend.append((color, f"{len(order) - IN_LEGEND} other combinations: {others}"))
    rank = np.full(len(codes), np.nan)
    rank[order] = np.arange(len(order))
    if OTHERS_COLOR in colors:  # rare ones share a colour: there may be thousands
        last = colors.index(OTHERS_COLOR)
        colors, rank = colors[: last + 1], np.minimum(rank, last)
    return _categories(phase_map, rank[place.reshape(shown.shape)], tuple(colors), legend)


def _combination_colors(codes: list[int], n_phases: int) -> list[str]:
    """Colours of combinations, the most frequent first.

    Mixtures of the phases' colours, as far as phases have colours of their own; else the frequent
    combinations have colours of theirs.
    """
    found = []
    free = iter(FREQUENT_COLORS)
    for code in codes:
        if code == schema.UNKNOWN:
            found.append(UNKNOWN_COLOR)
        elif code == 0 or n_phases <= len(PHASE_COLORS):
            found.append(hex_color(combination_color(code, n_phases)))
        else:
            found.append(next(free, OTHERS_COLOR))
    return found


def _combination(code: int, names: tuple[str, ...]) -> str:
    if code == schema.UNKNOWN:
        return "something unknown"
    present = [name for k, name in enumerate(names) if code >> k & 1]
    more = len(present) - NAMED
    if more > 0:
        return " + ".join(present[:NAMED]) + f" + {more} more"
    return combination_label(code, names)


def _categories(
    phase_map: PhaseMap,
    values: NDArray[np.generic],
    colors: tuple[str, ...],
    legend: list[tuple[str, str]],
) -> MapView:
    shown = values.astype(np.float32)
    legend = [*legend, *_nothing(phase_map, np.isnan(shown))]
    colors = colors or (NO_DATA_COLOR,)
    return MapView(shown, -0.5, len(colors) - 0.5, "", colors, tuple(legend))


def hex_color(rgb: NDArray[np.float64]) -> str:
    """``#RRGGBB`` of three numbers 0-1."""
    return "#" + "".join(f"{round(255 * float(c)):02X}" for c in rgb)


def pixels(n: int) -> str:
    """``1 pixel``, ``2 pixels``."""
    return f"{n} pixel" if n == 1 else f"{n} pixels"
