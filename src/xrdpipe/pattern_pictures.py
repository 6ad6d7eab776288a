"""Patterns drawn over the lines of the phases, for a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.crystal import PhaseLines
from xrdpipe.map_colors import PHASE_COLORS
from xrdpipe.pictures import literal

MOST_ROWS = 8
"""Phases whose lines are drawn below a pattern."""

MOST_LABELS = 9
"""Lines with their Miller indices above them."""

BEYOND = 0.7
"""Degrees that are shown beyond the outermost lines."""

LABEL_WIDTH = 0.016
"""Room that a label takes, as a part of the axis."""

PLANE_SPACINGS = (20, 10, 8, 6, 5, 4, 3.5, 3, 2.5, 2.2, 2, 1.8, 1.6, 1.5, 1.4, 1.3, 1.2, 1.1, 1,
                  0.9, 0.8, 0.7, 0.6, 0.5)  # fmt: skip
"""Å, marked at the upper axis where there is room."""


@dataclass(frozen=True)
class Curve:
    """One pattern of a picture.

    Parameters
    ----------
    intensity
        Shape (bins,), NaN without data.
    label, color
        As the legend says and shows it.
    """

    intensity: NDArray[np.float64]
    label: str
    color: str = "black"


@dataclass(frozen=True)
class PatternAxis:
    """What the patterns of a report have in common.

    Parameters
    ----------
    two_theta
        Degrees, shape (bins,).
    wavelength
        In Å.
    units
        Of the intensity.
    """

    two_theta: NDArray[np.float64]
    wavelength: float
    units: str


@dataclass(frozen=True)
class MarkedPhase:
    """A phase whose lines are drawn: place in the model's list, and whether it is the subject."""

    lines: PhaseLines
    number: int
    subject: bool = False

    @property
    def color(self) -> str:
        """The colour of the phase in every picture."""
        return PHASE_COLORS[self.number % len(PHASE_COLORS)]


def draw_pattern(
    where: PatternAxis,
    curves: Sequence[Curve],
    phases: Sequence[MarkedPhase],
    title: str,
    size: tuple[float, float] = (9.6, 3.6),
) -> Any:
    """A matplotlib figure: patterns on a square-root scale over rows of reference lines.

    The last curve is the map's own. Lines of the subject run faintly through it and carry their
    Miller indices.
    """
    from matplotlib.figure import Figure

    width, height = size
    wide = width > 7
    rows = min(len(phases), MOST_ROWS)
    figure = Figure(figsize=(width, height + 0.16 * rows), layout="constrained")
    if rows:
        upper, lower = figure.subplots(
            2, 1, sharex=True, height_ratios=(height - 0.6, 0.17 * rows + 0.05)
        )
    else:
        upper, lower = figure.subplots(), None
    for curve in curves:
        root = np.sqrt(np.maximum(curve.intensity, 0))
        upper.plot(where.two_theta, root, color=curve.color, linewidth=0.8, label=curve.label)
    left, right = _angles(where, curves, phases)
    upper.set_xlim(left, right)
    upper.set_ylim(*_roots(where, curves, left, right))
    _label_roots(upper)
    units = where.units.replace("arbitrary units", "arb. units")
    upper.set_ylabel(f"intensity ({units})" if units else "intensity", fontsize=8.5)
    upper.tick_params(labelsize=8)
    if len(curves) > 1:
        figure.legend(fontsize=8, loc="upper right", ncols=len(curves), frameon=False)
    for phase in phases:
        if phase.subject:
            _mark_subject(upper, phase, where, _tops(where, curves))
    below = upper if lower is None else lower
    below.set_xlabel(f"2θ (degrees) at {where.wavelength:.5g} Å", fontsize=8.5)
    below.tick_params(labelsize=8)
    if lower is not None:
        _draw_rows(lower, phases[:rows], where)
    if wide:
        _draw_spacings(upper, where.wavelength)
    figure.suptitle(literal(title), fontsize=9.5, x=0.01, ha="left")
    return figure


def _angles(
    where: PatternAxis, curves: Sequence[Curve], phases: Sequence[MarkedPhase]
) -> tuple[float, float]:
    """Ends of the axis: where there are data, and not far beyond the outermost lines."""
    seen = np.isfinite(np.stack([curve.intensity for curve in curves])).any(axis=0)
    angles = where.two_theta[seen] if seen.any() else where.two_theta
    left, right = float(angles[0]), float(angles[-1])
    positions = [phase.lines.two_theta(where.wavelength) for phase in phases]
    lines = np.concatenate(positions) if positions else np.zeros(0)
    inside = lines[(lines > left) & (lines < right)]
    if inside.size:
        left, right = max(left, inside.min() - BEYOND), min(right, inside.max() + BEYOND)
    return left, right


def _roots(
    where: PatternAxis, curves: Sequence[Curve], left: float, right: float
) -> tuple[float, float]:
    """Ends of the intensities' square roots: all of the lowest curve, room for labels above.

    Single-crystal spots stand a hundred times above everything else in an unmasked pattern, which
    then leaves the picture.
    """
    shown = (where.two_theta >= left) & (where.two_theta <= right)
    lows, highs = [], []
    for curve in curves:
        values = curve.intensity[shown & np.isfinite(curve.intensity)]
        if values.size:
            roots = np.sqrt(np.maximum(values, 0))
            lows.append(float(np.quantile(roots, 0.005)))
            highs.append(float(roots.max()))
    if not highs:
        return 0.0, 1.0
    low, high = min(lows), min(highs)
    span = max(high - low, 0.05 * high, 1e-6)
    return max(low - 0.08 * span, 0.0), high + 0.22 * span


def _label_roots(axis: Any) -> None:
    """Ticks at round intensities on an axis of their square roots."""
    from matplotlib.ticker import MaxNLocator

    low, high = axis.get_ylim()
    ticks = [t for t in MaxNLocator(6).tick_values(low**2, high**2) if low**2 <= t <= high**2]
    small = [t / 10 for t in ticks[:2] if t > 0 and (t / 10) ** 0.5 > low + 0.1 * (high - low)]
    ticks = sorted({*ticks, *small[:1]})
    axis.set_yticks([t**0.5 for t in ticks], [f"{t:g}" for t in ticks])


def _tops(where: PatternAxis, curves: Sequence[Curve]) -> NDArray[np.float64]:
    """Square root of the map's own pattern at every bin, 0 without data."""
    return np.asarray(np.sqrt(np.nan_to_num(np.maximum(curves[-1].intensity, 0))), np.float64)


def _mark_subject(
    axis: Any, phase: MarkedPhase, where: PatternAxis, tops: NDArray[np.float64]
) -> None:
    low, high = axis.get_xlim()
    positions = phase.lines.two_theta(where.wavelength)
    inside = np.isfinite(positions) & (positions > low) & (positions < high)
    strength = phase.lines.intensity
    bottom, top = axis.get_ylim()
    for place in np.flatnonzero(inside & (strength > 0.05)):
        axis.axvline(positions[place], color=phase.color, alpha=0.25, linewidth=0.8, zorder=0)
    labelled: list[float] = []
    room = LABEL_WIDTH * (high - low)
    for place in np.argsort(-strength):
        position = float(positions[place])
        if not inside[place] or len(labelled) == MOST_LABELS:
            continue
        if any(abs(position - other) < room for other in labelled):
            continue
        labelled.append(position)
        near = np.abs(where.two_theta - position) < room / 2
        height = float(tops[near].max()) if near.any() else 0.0
        text = " ".join(str(index) for index in phase.lines.hkl[place])
        axis.text(
            position, min(height + 0.02 * (top - bottom), top - 0.14 * (top - bottom)), text,
            rotation=90, fontsize=6.5, ha="center", va="bottom", color="#222222",
            bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.6},
        )  # fmt: skip


def _draw_rows(axis: Any, phases: Sequence[MarkedPhase], where: PatternAxis) -> None:
    low, high = axis.get_xlim()
    for row, phase in enumerate(phases):
        positions = phase.lines.two_theta(where.wavelength)
        inside = np.isfinite(positions) & (positions >= low) & (positions <= high)
        height = 0.15 + 0.75 * np.sqrt(phase.lines.intensity[inside])
        axis.vlines(
            positions[inside], row + 0.95, row + 0.95 - height, color=phase.color, linewidth=1.0
        )
    axis.set_ylim(len(phases), 0)
    axis.set_yticks(
        [row + 0.55 for row in range(len(phases))], [literal(phase.lines.name) for phase in phases]
    )
    for label, phase in zip(axis.get_yticklabels(), phases, strict=True):
        label.set_fontweight("bold" if phase.subject else "normal")
    axis.tick_params(axis="y", length=0, labelsize=7.5)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def _draw_spacings(axis: Any, wavelength: float) -> None:
    """Plane spacings along the upper edge."""
    from xrdpipe.crystal.lattice import bragg_angle

    low, high = axis.get_xlim()
    spacings = np.array(PLANE_SPACINGS, np.float64)
    angles = bragg_angle(spacings, wavelength)
    chosen: list[tuple[float, float]] = []
    for spacing, angle in zip(spacings.tolist(), angles.tolist(), strict=True):
        if not low < angle < high:  # NaN where it cannot diffract
            continue
        if not chosen or angle - chosen[-1][1] > 0.045 * (high - low):
            chosen.append((spacing, angle))
    upper = axis.secondary_xaxis("top")
    upper.set_xticks([angle for _, angle in chosen], [f"{spacing:g}" for spacing, _ in chosen])
    upper.tick_params(labelsize=7.5)
    upper.set_xlabel("d (Å)", fontsize=8)
