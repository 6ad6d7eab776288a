"""Pictures of maps for people: one panel per phase and one that shows co-occurrence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.maps import PhaseMap
from xrdpipe.schema import FrameStatus

# Okabe & Ito's colours, told apart by colour-blind readers; black and grey are kept for
# "none present" and "no data".
PHASE_COLORS = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#0072B2", "#F0E442")
NO_DATA_COLOR = "#BBBBBB"
MAX_PANELS = 12


def draw_map(path: Path, phase_map: PhaseMap, title: str) -> None:
    """Write a PNG: probability of each phase, and which phases occur together.

    Parameters
    ----------
    path
        PNG file.
    title
        Line above the panels.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    n_panels = min(len(phase_map.phase_names), MAX_PANELS) + 1
    columns = min(n_panels, 4)
    rows = -(-n_panels // columns)
    ny, nx = phase_map.scan.shape
    width = 3.4
    # The axes take about three quarters of a column; titles and labels the rest of the height.
    height = 0.72 * width * float(np.clip(ny / nx, 0.3, 2.0)) + 1.1
    figure = Figure(figsize=(width * columns + 0.6, height * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    colors = mpl.colormaps["viridis"].with_extremes(bad=NO_DATA_COLOR)
    image: Any = None
    for k in range(n_panels - 1):
        image = axes[k].imshow(phase_map.probability[k], vmin=0, vmax=1, cmap=colors)
        present = int((phase_map.decision[k] == 1).sum())
        axes[k].set_title(f"{phase_map.phase_names[k]}\npresent in {present} pixels", fontsize=9)
    if image is not None:
        bar = figure.colorbar(image, ax=axes[: n_panels - 1].tolist(), shrink=0.8, pad=0.01)
        bar.set_label("probability of presence")
    _draw_co_occurrence(axes[n_panels - 1], phase_map)
    for axis in axes[:n_panels]:
        axis.set_xlabel("x (pixel)")
        axis.set_ylabel("y (pixel)")
        axis.tick_params(labelsize=8)
    for axis in axes[n_panels:]:
        axis.axis("off")
    lost = int((phase_map.status != FrameStatus.OK).sum())
    figure.suptitle(title + (f"   ({lost} pixels without a result)" if lost else ""), fontsize=10)
    figure.savefig(path, dpi=150, metadata={"Software": "xrdpipe"})


def _draw_co_occurrence(axis: Any, phase_map: PhaseMap) -> None:
    """Each combination of present phases in its own colour, the frequent ones in the legend."""
    from matplotlib.patches import Patch

    combination = phase_map.combination
    codes, counts = np.unique(combination, return_counts=True)
    colors = {int(code): _color(int(code), len(phase_map.phase_names)) for code in codes}
    picture = np.zeros((*combination.shape, 3))
    for code, color in colors.items():
        picture[combination == code] = color
    axis.imshow(picture)
    axis.set_title("phases together", fontsize=9)
    order = np.argsort(-counts)[:10]
    handles = [
        Patch(
            facecolor=tuple(colors[int(codes[i])].tolist()),
            edgecolor="black",
            linewidth=0.3,
            label=f"{_label(int(codes[i]), phase_map.phase_names)} ({counts[i]})",
        )
        for i in order
    ]
    axis.legend(
        handles=handles, fontsize=6.5, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False
    )


def _color(code: int, n_phases: int) -> NDArray[np.float64]:
    """Mean of the colours of the present phases; black for none, grey for no result."""
    from matplotlib.colors import to_rgb

    if code < 0:
        return np.array(to_rgb(NO_DATA_COLOR))
    present = [k for k in range(n_phases) if code >> k & 1]
    if not present:
        return np.zeros(3)
    mixed = np.mean([to_rgb(PHASE_COLORS[k % len(PHASE_COLORS)]) for k in present], axis=0)
    # Mixtures are darkened, so that they differ from every single phase.
    return np.asarray(mixed * max(1 - 0.22 * (len(present) - 1), 0.3), np.float64)


def _label(code: int, names: tuple[str, ...]) -> str:
    if code < 0:
        return "no result"
    present = [name for k, name in enumerate(names) if code >> k & 1]
    return " + ".join(present) or "none"
