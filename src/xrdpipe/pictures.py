"""Pictures for people: maps (a panel per phase and one of co-occurrence), masks, simulations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.maps import PhaseMap
from xrdpipe.masks import Component
from xrdpipe.schema import FrameStatus
from xrdpipe.types import BoolArray, Grid, Scan, ScanAxis

# Okabe & Ito's colours, told apart by colour-blind readers; black and grey are kept for
# "none present" and "no data".
PHASE_COLORS = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#0072B2", "#F0E442")
NO_DATA_COLOR = "#BBBBBB"
MAX_PANELS = 12
LONGEST = 12
"""Longer maps are stretched: at equal scale a line would be a hair."""


def draw_map(path: Path, phase_map: PhaseMap, title: str) -> None:
    """Write a PNG: probability of each phase, the unknown score, and which phases occur together.

    Parameters
    ----------
    path
        PNG file.
    title
        Line above the panels.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    panels = _answers(phase_map)
    n_panels = len(panels) + 1
    columns = n_panels if n_panels <= 5 else 4
    rows = -(-n_panels // columns)
    width = 3.4
    # The axes take about three quarters of a column; titles and labels the rest of the height.
    height = 0.72 * width * float(np.clip(_ratio(phase_map.scan), 0.3, 2.0)) + 1.1
    figure = Figure(figsize=(width * columns + 0.6, height * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    colors = mpl.colormaps["viridis"].with_extremes(bad=NO_DATA_COLOR)
    image: Any = None
    for axis, (heading, values) in zip(axes, panels, strict=False):
        image = _show(axis, phase_map.scan, values, vmin=0, vmax=1, cmap=colors)
        axis.set_title(heading, fontsize=9)
    if image is not None:
        bar = figure.colorbar(image, ax=axes[: n_panels - 1].tolist(), shrink=0.8, pad=0.01)
        bar.set_label("probability of presence")
    _draw_co_occurrence(axes[n_panels - 1], phase_map)
    for axis in axes[:n_panels]:
        axis.set_xlabel(axis_label("x", phase_map.scan.x))
        axis.set_ylabel(axis_label("y", phase_map.scan.y))
        axis.tick_params(labelsize=8)
    for axis in axes[n_panels:]:
        axis.axis("off")
    lost = int((phase_map.status != FrameStatus.OK).sum())
    figure.suptitle(title + (f"   ({lost} pixels without a result)" if lost else ""), fontsize=10)
    figure.savefig(path, dpi=150, metadata={"Software": "xrdpipe"})


def _answers(phase_map: PhaseMap) -> list[tuple[str, NDArray[np.float32]]]:
    """Heading and values between 0 and 1 of each panel but the last."""
    panels = []
    for k, name in enumerate(phase_map.phase_names[:MAX_PANELS]):
        present = int((phase_map.decision[k] == 1).sum())
        panels.append((f"{name}\npresent in {present} pixels", phase_map.probability[k]))
    if phase_map.unknown_threshold is not None:
        strange = int((phase_map.unknown >= phase_map.unknown_threshold).sum())
        panels.append((f"something unknown (score)\nin {strange} pixels", phase_map.unknown))
    return panels


def _show(axis: Any, scan: Scan, values: NDArray[Any], **colors: Any) -> Any:
    """Draw (ny, nx) values or (ny, nx, 3) colours where they were measured, row 0 at the top."""
    aspect = "equal" if equal_scale(scan) else "auto"
    if scan.irregular and scan.x_actual is not None and scan.y_actual is not None:
        x, y = scan.x_actual[0], scan.y_actual[0]
        # Points that would fill the panel if they lay on a square grid.
        size = (130 / np.sqrt(x.size)) ** 2
        drawn = axis.scatter(
            x, y, c=values[0], s=np.clip(size, 2, 200), plotnonfinite=True, **colors
        )
        axis.set_aspect(aspect)
        if not axis.yaxis_inverted():
            axis.invert_yaxis()
        return drawn
    return axis.imshow(
        values, extent=extent_of(scan), aspect=aspect, interpolation="nearest", **colors
    )


def extent_of(scan: Scan) -> tuple[float, float, float, float]:
    """Outer edges of the pixels as imshow takes them: left, right, bottom, top."""
    left, right = _edges(scan.x, scan.shape[1], scan.y)
    top, bottom = _edges(scan.y, scan.shape[0], scan.x)
    return left, right, bottom, top


def _edges(axis: ScanAxis | None, n: int, other: ScanAxis | None) -> tuple[float, float]:
    """First and last edge of an axis; a single pixel is as wide as those of the other axis."""
    if axis is None:
        return -0.5, n - 0.5
    spaced = axis if axis.values.size > 1 else other
    step = 1.0
    if spaced is not None and spaced.values.size > 1:
        step = float(spaced.values[1] - spaced.values[0])
    return float(axis.values[0]) - step / 2, float(axis.values[-1]) + step / 2


def equal_scale(scan: Scan) -> bool:
    """True if a length is the same along x and y: equal units, or pixels on both axes."""
    if scan.x is None or scan.y is None:
        same = scan.x is None and scan.y is None
    else:
        same = scan.x.units == scan.y.units
    return same and 1 / LONGEST <= _side_ratio(scan) <= LONGEST


def _ratio(scan: Scan) -> float:
    """Height of a panel over its width."""
    if equal_scale(scan):
        return _side_ratio(scan)
    return 1.0 if scan.irregular else scan.shape[0] / scan.shape[1]


def _side_ratio(scan: Scan) -> float:
    """Height of the scan over its width, in the units of its axes."""
    if scan.irregular and scan.x_actual is not None and scan.y_actual is not None:
        spans = [float(np.nanmax(v) - np.nanmin(v)) for v in (scan.y_actual, scan.x_actual)]
        return spans[0] / spans[1] if min(spans) > 0 else 1.0
    left, right, bottom, top = extent_of(scan)
    return (bottom - top) / (right - left)


def axis_label(name: str, axis: ScanAxis | None) -> str:
    """Motor and unit, or pixels."""
    if axis is None:
        return f"{name} (pixel)"
    return f"{axis.name} ({axis.units})" if axis.units else axis.name


def _draw_co_occurrence(axis: Any, phase_map: PhaseMap) -> None:
    """Each combination of present phases in its own colour, the frequent ones in the legend."""
    from matplotlib.patches import Patch

    combination = phase_map.combination
    codes, counts = np.unique(combination, return_counts=True)
    colors = {int(code): combination_color(int(code), len(phase_map.phase_names)) for code in codes}
    picture = np.zeros((*combination.shape, 3))
    for code, color in colors.items():
        picture[combination == code] = color
    _show(axis, phase_map.scan, picture)
    axis.set_title("phases together", fontsize=9)
    order = np.argsort(-counts)[:10]
    handles = [
        Patch(
            facecolor=tuple(colors[int(codes[i])].tolist()),
            edgecolor="black",
            linewidth=0.3,
            label=f"{combination_label(int(codes[i]), phase_map.phase_names)} ({counts[i]})",
        )
        for i in order
    ]
    axis.legend(
        handles=handles, fontsize=6.5, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False
    )


def combination_color(code: int, n_phases: int) -> NDArray[np.float64]:
    """Mean of the colours of the present phases; black for none, grey for no result."""
    if code < 0:
        return _rgb(NO_DATA_COLOR)
    present = [k for k in range(n_phases) if code >> k & 1]
    if not present:
        return np.zeros(3)
    mixed = np.mean([_rgb(PHASE_COLORS[k % len(PHASE_COLORS)]) for k in present], axis=0)
    # Mixtures are darkened, so that they differ from every single phase.
    return np.asarray(mixed * max(1 - 0.22 * (len(present) - 1), 0.3), np.float64)


def _rgb(color: str) -> NDArray[np.float64]:
    return np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def combination_label(code: int, names: tuple[str, ...]) -> str:
    """The present phases in words."""
    if code < 0:
        return "no result"
    present = [name for k, name in enumerate(names) if code >> k & 1]
    return " + ".join(present) or "none"


MASK_COLORS = ("#0072B2", *(c for c in PHASE_COLORS if c != "#0072B2"), "#FFFFFF", "#882255")
"""Blue for what the detector itself does not measure, then the other components in turn."""

DETECTOR_PARTS = ("detector_gaps", "pixel_mask", "sentinel")

DRAWN = 1600
"""Pixels of the frame that are drawn along its longer side; larger frames are thinned out."""

RINGED = 400
"""Components of up to this many pixels are ringed: single pixels are lost in a picture."""


def draw_mask(path: Path, image: NDArray[Any], components: Sequence[Component], title: str) -> None:
    """Write a PNG: a frame in grey, logarithmic, under what is masked and why.

    Parameters
    ----------
    path
        PNG file.
    image
        Frame in the orientation of the mask, shape (rows, columns); row 0 is drawn at the top.
    components
        Small ones are drawn over large ones.
    title
        Line above the picture.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    rows, columns = image.shape
    others = [part.name for part in components if part.name not in DETECTOR_PARTS]
    colors = {name: MASK_COLORS[1 + i % (len(MASK_COLORS) - 1)] for i, name in enumerate(others)}
    colors |= dict.fromkeys(DETECTOR_PARTS, MASK_COLORS[0])
    masked = np.zeros(image.shape, bool)
    for part in components:
        masked |= part.pixels
    by_size = sorted(components, key=lambda part: -part.count)
    # A picture has no more than so many pixels; a block is drawn masked if one of its pixels is.
    step = -(-max(rows, columns) // DRAWN)
    grey = _log_grey(image, ~masked)[step // 2 :: step, step // 2 :: step]
    overlay = np.zeros((-(-rows // step), -(-columns // step), 4), np.uint8)
    for part in by_size:
        y, x = np.nonzero(part.pixels)
        overlay[y // step, x // step] = [*(round(255 * c) for c in to_rgb(colors[part.name])), 165]

    width = 10.0
    height = float(np.clip(width * rows / columns, 4, 14))
    figure = Figure(figsize=(width + 3, height + 0.8), layout="constrained")
    axis = figure.subplots()
    for layer in (grey, overlay):
        n_rows, n_columns = layer.shape[:2]
        extent = (-0.5, n_columns * step - 0.5, n_rows * step - 0.5, -0.5)
        axis.imshow(layer, cmap="gray", interpolation="nearest", extent=extent, vmin=0, vmax=1)
    for part in by_size:
        if 0 < part.count <= RINGED:
            y, x = np.nonzero(part.pixels)
            axis.scatter(
                x, y, s=50, facecolors="none", edgecolors=colors[part.name], linewidths=0.9
            )
    handles = [
        Patch(
            facecolor=colors[part.name],
            edgecolor="black",
            linewidth=0.3,
            label=f"{part.name.replace('_', ' ')}: {part.count}",
        )
        for part in components
    ]
    if handles:
        axis.legend(
            handles=handles,
            title=f"masked: {np.count_nonzero(masked)} pixels\n({masked.mean():.2%} of the frame)",
            fontsize=9,
            title_fontsize=9,
            loc="upper left",
            bbox_to_anchor=(1.01, 1),
            frameon=False,
        )
    axis.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    axis.set_xlabel("column (pixel)")
    axis.set_ylabel("row (pixel); row 0 at the top")
    axis.set_title(title, fontsize=10)
    figure.savefig(path, dpi=120, metadata={"Software": "xrdpipe"})


def _log_grey(image: NDArray[Any], shown: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Grey values 0-1, logarithmic; the median of the pixels that stay is no darker than 0.3."""
    value = np.log1p(np.maximum(np.nan_to_num(image.astype(np.float32)), 0))
    if not shown.any():
        return np.zeros(image.shape, np.float32)
    low, median, high = np.quantile(value[shown], [0.01, 0.5, 0.998])
    low = min(low, (median - 0.3 * high) / 0.7)
    return np.asarray(np.clip((value - low) / max(high - low, 1e-6), 0, 1), np.float32)


MAPS_SHOWN, MAPS_IN_A_ROW = 20, 5
"""Maps of single phases in the picture of a simulation."""


@dataclass(frozen=True)
class PhaseMarks:
    """The reference lines of a phase.

    Parameters
    ----------
    name
        Of the phase.
    two_theta
        Degrees, shape (R,).
    intensity
        Of the ideal powder, arbitrary units, shape (R,).
    present
        Whether it is in the frame that is shown.
    labelled
        Whether it belongs to the label set.
    """

    name: str
    two_theta: NDArray[np.float64]
    intensity: NDArray[np.float64]
    present: bool
    labelled: bool


@dataclass(frozen=True)
class Preview:
    """What the picture of a simulation shows.

    Parameters
    ----------
    names
        K phases.
    presence
        Shape (K, ny, nx).
    pixel
        (row, column) of the frame shown.
    frame
        Its number, from 0.
    counts
        Shape (rows, columns), NaN in the gaps.
    detector, wavelength
        For the titles; wavelength in Å.
    two_theta
        Bin centres, degrees, shape (bins,).
    unmasked, masked
        The frame integrated with all its pixels and as a beamline would, counts per pixel.
    alone
        The same phases as ideal powders, nothing else.
    marks
        Reference lines of every phase.
    """

    names: tuple[str, ...]
    presence: BoolArray
    pixel: tuple[int, int]
    frame: int
    counts: NDArray[np.float32]
    detector: str
    wavelength: float
    two_theta: NDArray[np.float64]
    unmasked: NDArray[np.float32]
    masked: NDArray[np.float32]
    alone: NDArray[np.float32]
    marks: tuple[PhaseMarks, ...]


def draw_preview(path: Path, preview: Preview) -> None:
    """Write a PNG of 1366 x 768 pixels: map per phase, a frame, its pattern with the lines.

    Parameters
    ----------
    path
        PNG file.
    preview
        What to show.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.66, 7.68), layout="constrained")
    sides: Any = figure.subfigures(1, 2, width_ratios=(1, 1.4))
    frame, others = sides
    rows = -(-min(len(preview.names), MAPS_SHOWN) // MAPS_IN_A_ROW)
    maps, pattern = others.subfigures(2, 1, height_ratios=(0.6 + 0.1 * rows, 1.1))
    _draw_counts(frame, preview)
    _draw_presence(maps, preview)
    _draw_pattern(pattern, preview)
    figure.savefig(path, dpi=100, metadata={"Software": "xrdpipe"})


def _draw_presence(figure: Any, preview: Preview) -> None:
    """A small map per phase, in its colour; a cross where the frame was taken."""
    from matplotlib.colors import ListedColormap

    shown = min(len(preview.names), MAPS_SHOWN)
    ny, nx = preview.presence.shape[1:]
    columns = min(shown, MAPS_IN_A_ROW)
    rows = -(-shown // columns)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for k in range(shown):
        color = PHASE_COLORS[k % len(PHASE_COLORS)]
        axes[k].imshow(
            preview.presence[k],
            cmap=ListedColormap(["#EFEFEF", color]),
            vmin=0,
            vmax=1,
            interpolation="nearest",
            aspect="equal" if 1 / LONGEST <= ny / nx <= LONGEST else "auto",
        )
        axes[k].plot(preview.pixel[1], preview.pixel[0], "x", color="black", ms=7, mew=1.6)
        part = preview.presence[k].mean()
        name = preview.names[k] if len(preview.names[k]) <= 18 else preview.names[k][:17] + "…"
        axes[k].set_title(f"{name}\n{part:.0%}" if rows == 1 else f"{name} {part:.0%}", fontsize=8)
        if rows == 1:
            axes[k].tick_params(labelsize=7)
            axes[k].locator_params(nbins=5, integer=True)
            axes[k].set_xlabel("x (pixel)", fontsize=8)
            axes[k].set_ylabel("y (pixel)" if k == 0 else "", fontsize=8)
        else:
            axes[k].set(xticks=[], yticks=[])
    for axis in axes[shown:]:
        axis.axis("off")
    figure.suptitle(f"where the phases are   ({ny} x {nx} frames)", fontsize=10)


def _draw_counts(figure: Any, preview: Preview) -> None:
    """The frame, logarithmic; gaps in grey."""
    import matplotlib as mpl
    from matplotlib.colors import LogNorm

    axis = figure.subplots()
    # Half a count stands for none, which has no logarithm.
    image = np.maximum(preview.counts, 0.5)
    high = max(float(np.nanquantile(image, 0.999)), 5.0)
    colors = mpl.colormaps["viridis"].with_extremes(bad=NO_DATA_COLOR)
    drawn = axis.imshow(image, norm=LogNorm(0.5, high), cmap=colors, interpolation="nearest")
    bar = figure.colorbar(drawn, ax=axis, pad=0.02, extend="max", location="bottom", shrink=0.8)
    bar.set_label("counts per pixel", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    axis.set_xlabel("column (pixel)", fontsize=8)
    axis.set_ylabel("row (pixel)", fontsize=8)
    axis.tick_params(labelsize=7)
    row, column = preview.pixel
    figure.suptitle(
        f"frame {preview.frame}, taken at the cross (x = {column}, y = {row})\n"
        f"{preview.detector}, {preview.wavelength:g} Å; grey: no pixels",
        fontsize=10,
    )


def _draw_pattern(figure: Any, preview: Preview) -> None:
    """The integrated frame over ticks at the lines of every phase."""
    marks = preview.marks
    if len(marks) > 12:
        marks = tuple(mark for mark in marks if mark.present) or marks[:12]
    axis, ticks = figure.subplots(
        2, 1, sharex=True, height_ratios=(1, min(0.09 * len(marks) + 0.06, 0.8))
    )
    x = preview.two_theta
    axis.plot(x, preview.unmasked, color="#AAAAAA", lw=0.8, label="the frame, all pixels")
    axis.plot(x, preview.masked, color="black", lw=1.0, label="without what a mask takes out")
    axis.plot(x, preview.alone, color="#0072B2", lw=1.0, label="its phases alone, ideal powders")
    seen = preview.masked[np.isfinite(preview.masked) & (preview.masked > 0)]
    low, high = np.quantile(seen, [0.01, 1.0]) if seen.size else (0.1, 1.0)
    axis.set_yscale("log")
    axis.set_ylim(0.15 * low, 4 * high)
    axis.set_ylabel("intensity (counts per pixel)", fontsize=9)
    axis.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), frameon=False, ncols=3)
    axis.tick_params(labelsize=8)
    for i, mark in enumerate(marks):
        place = preview.names.index(mark.name) if mark.labelled else -1
        color = "#777777" if place < 0 else PHASE_COLORS[place % len(PHASE_COLORS)]
        strong = mark.intensity > 0.005 * mark.intensity.max()
        height = 0.25 + 0.6 * np.sqrt(mark.intensity[strong] / mark.intensity.max())
        ticks.vlines(mark.two_theta[strong], -i - height / 2, -i + height / 2, color=color, lw=1.3)
    ticks.set_yticks(
        [-i for i in range(len(marks))],
        [mark.name + ("" if mark.present else " (not here)") for mark in marks],
        fontsize=8 if len(marks) <= 10 else 6,
    )
    ticks.set_ylim(-len(marks) + 0.4, 0.6)
    ticks.set_xlim(x[0], x[-1])
    ticks.set_xlabel("2theta (degrees)", fontsize=9)
    ticks.tick_params(labelsize=8, axis="x")
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
        ticks.spines[side].set_visible(False)


def draw_patterns(
    path: Path,
    grid: Grid,
    masked: NDArray[np.float32],
    unmasked: NDArray[np.float32],
    present: NDArray[np.bool_],
    names: Sequence[str],
) -> None:
    """Write a PNG of synthetic patterns, each masked and unmasked.

    Parameters
    ----------
    path
        PNG file.
    grid
        2θ axis.
    masked, unmasked
        Shape (N, n), counts per pixel.
    present
        Shape (N, K), which of the named phases are there.
    names
        Of the K phases.
    """
    from matplotlib.figure import Figure

    rows = -(-len(masked) // 3)
    figure = Figure(figsize=(13, 2.1 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, 3, squeeze=False, sharex=True)
    for axis, one, other, there in zip(axes.flat, masked, unmasked, present, strict=False):
        axis.plot(grid.two_theta, other, color=PHASE_COLORS[3], lw=0.7, label="unmasked")
        axis.plot(grid.two_theta, one, color=PHASE_COLORS[5], lw=0.9, label="masked")
        # Spots may be a thousand times higher than everything else.
        top = max(float(np.nanpercentile(other, 99.0)), float(np.nanmax(one)))
        axis.set_ylim(min(0.0, float(np.nanmin(one))), 1.25 * top or 1)
        found = [name for name, is_there in zip(names, there, strict=True) if is_there]
        axis.set_title(", ".join(found) or "none of the phases", fontsize=8, loc="left")
        axis.set_xlim(grid.start, grid.stop)
        axis.tick_params(labelsize=8)
    for axis in axes.flat[len(masked) :]:
        axis.axis("off")
    for axis in axes[-1]:
        axis.set_xlabel(f"2θ (degrees), λ = {grid.wavelength:g} Å", fontsize=8)
    for axis in axes[:, 0]:
        axis.set_ylabel("counts per pixel", fontsize=8)
    axes[0, 0].legend(fontsize=7, frameon=False, loc="upper right")
    figure.savefig(path, dpi=110, metadata={"Software": "xrdpipe"})
