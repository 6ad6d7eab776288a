"""What the map can show: each choice with its values, colours and legend."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.map_colors import NO_DATA_COLOR, STATUS_WORDS, combinations, statuses
from xrdpipe.maps import PhaseMap
from xrdpipe.schema import FrameStatus
from xrdpipe.types import BoolArray

TOGETHER, CONFIDENCE, UNKNOWN, NUMBER, STATUS = (
    "phases together",
    "confidence of the answer",
    "unknown score",
    "number of phases",
    "status",
)
PROBABILITY, SPREAD = "probability: ", "spread: "


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
    indices, classes = statuses(phase_map)
    legend = [(kind.color, f"{kind.label}: {pixels(kind.count)}") for kind in classes]
    return _categories(phase_map, indices, tuple(kind.color for kind in classes), legend)


def _together(phase_map: PhaseMap) -> MapView:
    indices, classes = combinations(phase_map)
    shown = [kind for kind in classes if kind.color != NO_DATA_COLOR]  # that one comes last
    values = np.where(indices < len(shown), indices.astype(np.float32), np.nan)
    legend = [(kind.color, f"{kind.label}: {kind.count}") for kind in shown]
    return _categories(phase_map, values, tuple(kind.color for kind in shown), legend)


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
