"""Maps drawn one by one, for a report and for publication: on the scan's axes, with a scale bar."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.map_colors import NO_DATA_COLOR, ColorClass, combinations, statuses
from xrdpipe.maps import PhaseMap
from xrdpipe.pictures import (
    LONGEST,
    axis_label,
    equal_units,
    literal,
    panel_ratio,
    scan_extent,
    show_on_scan,
    shown_unit,
)
from xrdpipe.types import Scan

LEFT, GAP = 0.75, 0.1
"""Inches for what is written left of a map, and to its colour bar or legend."""

LEGEND_LINE, LETTER = 0.19, 0.068
"""Inches of a line and of a letter of a legend."""

LEGEND_LETTERS = 34
"""Longer labels are broken into lines."""

HIGHEST, LOWEST = 1.3, 0.9
"""A map is no higher than so many times the width it may have, and gets at least so many inches."""

LENGTHS = ("m", "dm", "cm", "mm", "um", "µm", "μm", "micron", "nm", "pm")
"""Units that a scale bar makes sense for."""


@dataclass(frozen=True)
class MapPanel:
    """One map to draw.

    Parameters
    ----------
    title
        Above it.
    values
        Shape (ny, nx): numbers, NaN without a result; or indices into ``classes``.
    label
        Of the colour bar.
    colors
        matplotlib's name of the colour scale.
    limits
        Ends of the colour scale.
    threshold
        Marked on the colour bar.
    classes
        For maps that are no numbers.
    """

    title: str
    values: NDArray[Any]
    label: str = ""
    colors: str = "viridis"
    limits: tuple[float, float] = (0.0, 1.0)
    threshold: float | None = None
    classes: tuple[ColorClass, ...] = ()


def composite(phase_map: PhaseMap) -> MapPanel:
    """Which phases are present together."""
    indices, classes = combinations(phase_map)
    return MapPanel("phases present together", indices, classes=classes)


def status_panel(phase_map: PhaseMap) -> MapPanel:
    """What became of every pixel."""
    indices, classes = statuses(phase_map)
    return MapPanel("status", indices, classes=classes)


def draw_panels(
    scan: Scan, panels: Sequence[MapPanel], width: float = 3.0, legend: bool = True
) -> Any:
    """A matplotlib figure: maps side by side, each with its colour bar or legend.

    Parameters
    ----------
    width
        Of each map alone, inches; high maps are narrower.
    legend
        Whether maps of classes have one.
    """
    from matplotlib.figure import Figure

    ratio = float(np.clip(panel_ratio(scan), 1 / LONGEST, LONGEST))
    across = max(min(width, HIGHEST * width / ratio), 0.8)
    high = max(min(width * ratio, HIGHEST * width), LOWEST)
    lines = max(_legend_lines(panel) for panel in panels) if legend else 0
    bottom, top = 0.52, 0.55
    height = max(bottom + high + top, LEGEND_LINE * lines + top)
    widths = [LEFT + across + GAP + (_beside_width(panel) if legend or not panel.classes else 0.1)
              for panel in panels]  # fmt: skip
    total = sum(widths)
    figure = Figure(figsize=(total, height))

    def place(x: float, wide: float) -> tuple[float, float, float, float]:
        return x / total, (height - top - high) / height, wide / total, high / height

    start = 0.0
    for panel, taken in zip(panels, widths, strict=True):
        axis = figure.add_axes(place(start + LEFT, across))
        if panel.classes:
            _draw_classes(axis, scan, panel)
            if legend:
                _draw_legend(axis, panel, (start + LEFT + across + GAP) / total)
        else:
            beside = figure.add_axes(place(start + LEFT + across + GAP, 0.13))
            _draw_numbers(axis, beside, scan, panel)
        axis.set_xlabel(axis_label("x", scan.x), fontsize=8.5)
        axis.set_ylabel(axis_label("y", scan.y), fontsize=8.5)
        axis.tick_params(labelsize=8)
        axis.locator_params(axis="x", nbins=max(2, round(2 * across)))
        if scan.irregular:
            axis.set_facecolor("#F4F4F4")
        elif scan.shape[0] == 1:
            axis.set_yticks([] if scan.y is None else scan.y.values)
        above = _draw_scale(axis, scan)
        axis.set_title(literal(panel.title), fontsize=9.5, loc="left", pad=18 if above else None)
        start += taken
    return figure


def _draw_numbers(axis: Any, beside: Any, scan: Scan, panel: MapPanel) -> None:
    import matplotlib as mpl

    colors = mpl.colormaps[panel.colors].with_extremes(bad=NO_DATA_COLOR)
    low, high = panel.limits
    drawn = show_on_scan(axis, scan, panel.values, vmin=low, vmax=high, cmap=colors)
    bar = axis.figure.colorbar(drawn, cax=beside)
    bar.set_label(panel.label, fontsize=8)
    bar.ax.tick_params(labelsize=8)
    if panel.threshold is not None:
        bar.ax.axhline(panel.threshold, color="white", linewidth=2.5)
        bar.ax.axhline(panel.threshold, color="black", linewidth=1)


def _beside_width(panel: MapPanel) -> float:
    """Inches that a colour bar with its numbers, or a legend, takes."""
    if not panel.classes:
        return 0.85
    lines = [line for kind in panel.classes for line in _legend_text(kind).split("\n")]
    return 0.4 + LETTER * max(len(line) for line in lines)


def _legend_lines(panel: MapPanel) -> int:
    return sum(_legend_text(kind).count("\n") + 1 for kind in panel.classes)


def _legend_text(kind: ColorClass) -> str:
    """Label and count, in lines of a moderate length."""
    label = textwrap.fill(kind.label, LEGEND_LETTERS, max_lines=3, placeholder=" …")
    return f"{label} ({kind.count})"


def _draw_classes(axis: Any, scan: Scan, panel: MapPanel) -> None:
    from matplotlib.colors import ListedColormap

    number = len(panel.classes)
    colors = ListedColormap([kind.color for kind in panel.classes])
    show_on_scan(axis, scan, panel.values, vmin=-0.5, vmax=number - 0.5, cmap=colors)


def _draw_legend(axis: Any, panel: MapPanel, left: float) -> None:
    """Beside the map, from ``left`` on, a part of the figure's width."""
    from matplotlib.patches import Patch

    handles = [
        Patch(
            facecolor=kind.color,
            edgecolor="black",
            linewidth=0.4,
            label=literal(_legend_text(kind)),
        )
        for kind in panel.classes
    ]
    axis.figure.legend(
        handles=handles, fontsize=8, loc="upper left", frameon=False, borderaxespad=0,
        handlelength=1.2, bbox_to_anchor=(left, axis.get_position().y1),
    )  # fmt: skip


def _draw_scale(axis: Any, scan: Scan) -> bool:
    """A bar of a round length above the map, where both axes are lengths in one unit."""
    if scan.x is None or scan.x.units not in LENGTHS or not equal_units(scan):
        return False
    if scan.irregular and scan.x_actual is not None:
        span = float(np.nanmax(scan.x_actual) - np.nanmin(scan.x_actual))
    else:
        left, right, _, _ = scan_extent(scan)
        span = abs(right - left)
    length = round_length(span / 4)
    if not length:
        return False
    transform = axis.get_xaxis_transform()
    ends = axis.get_xlim()
    axis.set_autoscale_on(False)
    stop = ends[1]
    start = stop - math.copysign(length, ends[1] - ends[0])
    axis.plot(
        [start, stop], [1.025, 1.025], transform=transform, color="black", linewidth=2.5,
        clip_on=False, solid_capstyle="butt",
    )  # fmt: skip
    axis.text(
        (start + stop) / 2, 1.035, told_length(length, scan.x.units),
        transform=transform, fontsize=8, ha="center", va="bottom",
    )  # fmt: skip
    return True


def told_length(length: float, units: str) -> str:
    """A length in the unit in which it is no small fraction."""
    smaller = {"m": "mm", "mm": "µm", "um": "nm", "µm": "nm", "micron": "nm"}
    while length < 0.1 and units in smaller:
        length, units = length * 1000, smaller[units]
    return f"{length:.3g} {shown_unit(units)}"


def round_length(longest: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is no longer; 0 if there is none."""
    if not (math.isfinite(longest) and longest > 0):
        return 0.0
    power = 10.0 ** math.floor(math.log10(longest))
    return float(max(step * power for step in (1, 2, 5) if step * power <= longest * (1 + 1e-9)))


def png_of(figure: Any, dpi: int = 120) -> bytes:
    """A figure as the bytes of a PNG."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": "xrdpipe"})
    return stream.getvalue()


def svg_of(figure: Any, text: bool = True) -> bytes:
    """A figure as the bytes of an SVG; with ``text`` as text that other programs can edit."""
    import matplotlib as mpl

    stream = io.BytesIO()
    # A fixed salt and no date: the same map gives the same bytes.
    settings: Any = {"svg.fonttype": "none" if text else "path", "svg.hashsalt": "xrdpipe"}
    with mpl.rc_context(settings):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": "xrdpipe"})
    return stream.getvalue()
