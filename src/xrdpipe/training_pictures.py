"""Pictures of a training report, each as the bytes of a PNG.

Learning curves, confusion, calibration, detection limits, and the line widths of a calibrant.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xrdpipe.map_colors import PHASE_COLORS

MARKERS = "osD^vPX"
"""One per phase beside its colour, so that colour is never all that tells two phases apart."""

ABSENT = "none of them"
LONGEST_NAME = 16
FEWEST = 10
"""Bins of fewer patterns are not drawn."""

MOST_NUMBERS = 12
"""Larger tables are shown without a number in every cell."""


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _png(figure: Any) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=100, metadata={"Software": "xrdpipe"})
    return stream.getvalue()


def _style(number: int) -> dict[str, Any]:
    """Colour and marker of a phase; beyond seven phases the same colours come with open markers."""
    color = PHASE_COLORS[number % len(PHASE_COLORS)]
    # Yellow on white is hard to see.
    color = "#000000" if color == "#F0E442" else color
    face = color if number < len(PHASE_COLORS) else "white"
    return {
        "color": color,
        "marker": MARKERS[(number + number // len(MARKERS)) % len(MARKERS)],
        "markerfacecolor": face,
        "ms": 4.5,
        "lw": 1.3,
    }


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _plain_sides(axis: Any) -> None:
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25, lw=0.6)


def _plain_logarithm(axis: Any, parts: Sequence[float]) -> None:
    """A logarithmic axis over less than three decades with plain numbers at these parts of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=parts))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _legend_below(figure: Any, axis: Any, entries: int) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=min(entries, 5),
        fontsize=8,
        frameon=False,
    )


def draw_learning(learning: Sequence[Mapping[str, Any]]) -> bytes:
    """Training and held-out loss, and held-out accuracy, of every member against the epoch."""
    figure = _figure(9, 3.4)
    left, right = figure.subplots(1, 2)
    for curve in learning:
        style = _style(int(curve["member"]))
        name = f"member {curve['member']}"
        epochs = np.arange(1, len(curve["training_loss"]) + 1)
        plain = {"color": style["color"], "lw": 1.0, "ls": ":"}
        left.plot(epochs, curve["training_loss"], label=f"{name}, training", **plain)
        checked = curve["checked"]
        left.plot(checked, curve["held_out_loss"], label=f"{name}, held out", **style)
        accuracy = [100 * value for value in curve["held_out_accuracy"]]
        right.plot(checked, accuracy, label=name, **style)
        if curve["chosen"] in checked:
            place = checked.index(curve["chosen"])
            ring = {"marker": "o", "ms": 11, "mfc": "none", "mec": "black", "ls": "none"}
            left.plot(curve["chosen"], curve["held_out_loss"][place], **ring)
            right.plot(curve["chosen"], accuracy[place], **ring)
        if curve["stopped"] is not None:
            for axis in (left, right):
                axis.axvline(curve["stopped"], color=style["color"], lw=0.8, ls="--")
    left.set_yscale("log")
    _plain_logarithm(left.yaxis, (1, 1.5, 2, 3, 4, 5, 7))
    left.set_ylabel("loss", fontsize=9)
    right.set_ylabel("accuracy on held-out patterns (%)", fontsize=9)
    for axis in (left, right):
        axis.set_xlabel("epoch", fontsize=9)
        axis.locator_params(axis="x", integer=True, nbins=8)
        _plain_sides(axis)
    _legend_below(figure, left, 2 * len(learning))
    return _png(figure)


def draw_confusion(names: Sequence[str], confusion: Mapping[str, Any]) -> bytes:
    """Which phase is said to be there when another one is, and which one hides another."""
    count = len(names)
    side = 1.6 + 0.62 * min(count, 14)
    figure = _figure(2 * side + 2.2, side + 1.2)
    left, right = figure.subplots(1, 2)
    short = [_short(name) for name in names]
    rows = [
        f"{name}\n(n = {number})"
        for name, number in zip([*short, ABSENT], confusion["alone_patterns"], strict=True)
    ]
    image = _shares(left, confusion["alone"], short, rows)
    left.set_title("said to be there when one phase is alone", fontsize=9)
    left.set_xlabel("said to be there", fontsize=9)
    left.set_ylabel("what is there", fontsize=9)
    _shares(right, confusion["missed_beside"], short, short)
    right.set_title("not found when both are there\n(diagonal: all patterns with it)", fontsize=9)
    right.set_xlabel("beside", fontsize=9)
    right.set_ylabel("not found", fontsize=9)
    bar = figure.colorbar(image, ax=[left, right], shrink=0.8, pad=0.02)
    bar.set_label("part of the patterns (%)", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return _png(figure)


def _shares(
    axis: Any, table: Sequence[Sequence[float | None]], columns: Sequence[str], rows: Sequence[str]
) -> Any:
    values = 100 * np.array([[np.nan if v is None else v for v in row] for row in table])
    image = axis.imshow(values, cmap="cividis", vmin=0, vmax=100, aspect="equal")
    axis.set_xticks(range(len(columns)), columns, rotation=40, ha="right", fontsize=8)
    axis.set_yticks(range(len(rows)), rows, fontsize=8)
    if len(columns) <= MOST_NUMBERS:
        for i, row in enumerate(values):
            for j, value in enumerate(row):
                text = "-" if np.isnan(value) else f"{value:.1f}"
                dark = not np.isnan(value) and value < 55
                axis.text(j, i, text, ha="center", va="center", fontsize=8,
                          color="white" if dark else "black")  # fmt: skip
    return image


def draw_calibration(calibration: Mapping[str, Any]) -> bytes:
    """Frequency against probability, before and after calibration, one panel per phase."""
    names = list(calibration)
    columns = min(len(names), 4)
    rows = -(-len(names) // columns)
    figure = _figure(max(2.6 * columns, 4.0) + 0.3, 2.7 * rows + 0.6)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axis, name in zip(axes, names, strict=False):
        entry = calibration[name]
        axis.plot([0, 1], [0, 1], color="#888888", lw=0.8, label="perfect")
        ends = []
        for kind, color, marker, face, label in (
            ("before", "#D55E00", "s", "white", "before calibration"),
            ("after", "#0072B2", "o", "#0072B2", "after calibration"),
        ):
            bins = entry[f"reliability_{kind}"]
            if not bins:
                continue
            mean, part, low, high, _ = np.array(bins, dtype=float).T
            # Rounding may leave an end of an interval on the wrong side of its middle.
            bars = np.maximum([part - low, high - part], 0)
            axis.errorbar(mean, part, bars, color=color, marker=marker, mfc=face, ms=4, lw=1.0,
                          elinewidth=0.8, label=label)  # fmt: skip
            ends.append(f"{entry[f'ece_{kind}']:.3f}")
        axis.set_title(f"{_short(name)}, ECE {' → '.join(ends) or '-'}", fontsize=9)
        axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        axis.set_aspect("equal")
        _plain_sides(axis)
    for axis in axes[len(names) :]:
        axis.axis("off")
    for number, axis in enumerate(axes[: len(names)]):
        if number % columns == 0:
            axis.set_ylabel("part with the phase", fontsize=9)
        if number + columns >= len(names):
            axis.set_xlabel("probability given", fontsize=9)
            axis.tick_params(labelbottom=True)
    _legend_below(figure, axes[0], 3)
    return _png(figure)


def draw_detection(names: Sequence[str], detection: Mapping[str, Any]) -> bytes:
    """Part of the patterns in which a phase is found, against what makes that hard."""
    quantities = [key for key in detection if key != "false_presence"]
    figure = _figure(9.4, 6.6)
    axes = figure.subplots(2, 2, sharey=True).ravel()
    for axis, key in zip(axes, quantities, strict=True):
        table = detection[key]
        edges = np.array(table["edges"], dtype=float)
        if not edges.size:
            axis.text(0.5, 0.5, "does not vary", ha="center", transform=axis.transAxes)
            continue
        scale = np.log(edges) if table["logarithmic"] else edges
        middle = (scale[1:] + scale[:-1]) / 2
        middle = np.exp(middle) if table["logarithmic"] else middle
        kinds = ("all",) if key == "signal_to_noise" else ("all", "visible")
        for number, name in enumerate(names):
            for kind in kinds:
                entry = table["phases"][name][kind]
                patterns = np.array(entry["patterns"], dtype=float)
                enough = patterns >= FEWEST
                part = 100 * np.array(entry["found"])[enough] / patterns[enough]
                style = _style(number)
                if kind == "all" and "visible" in kinds:
                    style |= {"ls": ":", "ms": 2.5, "lw": 1.0}
                label = _short(name) if kind == kinds[-1] else None
                axis.plot(middle[enough], part, label=label, **style)
        if table["logarithmic"]:
            axis.set_xscale("log")
            if edges[-1] < 1000 * edges[0]:
                _plain_logarithm(axis.xaxis, (1, 3))
        axis.axhline(90, color="#888888", lw=0.8)
        axis.set_xlabel(table["label"], fontsize=9)
        axis.set_ylim(-3, 103)
        _plain_sides(axis)
    for axis in (axes[0], axes[2]):
        axis.set_ylabel("found (% of the patterns with it)", fontsize=9)
    _legend_below(figure, axes[0], len(names))
    return _png(figure)


def draw_instrument(calibrant: Mapping[str, Any]) -> bytes:
    """Widths and displacements of a calibrant's lines, and the curves through them."""
    lines, instrument = calibrant["lines"], calibrant["instrument"]
    place = np.array([line["expected"] for line in lines])
    fwhm = np.array([line["fwhm"] for line in lines])
    figure = _figure(9, 3.2)
    left, right = figure.subplots(1, 2)
    dots = {"ls": "none", "marker": "o", "ms": 4, "color": "#0072B2", "elinewidth": 0.8}
    left.errorbar(place, fwhm, [line["fwhm_error"] for line in lines], **dots, label="lines")
    curve = np.linspace(place.min(), place.max(), 200)
    tangent = np.tan(np.radians(curve) / 2)
    growth = 1 + instrument["v"] * tangent + instrument["u"] * tangent**2
    left.plot(curve, calibrant["shape"] * instrument["width"] * np.sqrt(growth), color="#D55E00",
              lw=1.3, label="instrument")  # fmt: skip
    left.set_ylim(0, 1.3 * fwhm.max())
    left.set_ylabel("width (FWHM, degrees)", fontsize=9)
    left.legend(fontsize=8, frameon=False, loc="lower right")
    off = 1e3 * (np.array([line["position"] for line in lines]) - place)
    right.errorbar(place, off, [1e3 * line["position_error"] for line in lines], **dots)
    if instrument["zero"] is not None:
        angle = np.radians(curve)
        shift = instrument["zero"] + instrument["scale"] * np.degrees(np.sin(2 * angle) / 2)
        right.plot(curve, 1e3 * shift, color="#D55E00", lw=1.3)
    right.axhline(0, color="#888888", lw=0.8)
    right.set_ylabel("found − calculated 2θ (0.001 degrees)", fontsize=9)
    for axis in (left, right):
        axis.set_xlabel("2θ (degrees)", fontsize=9)
        _plain_sides(axis)
    return _png(figure)
