"""Statistics of patterns from the 1D generator beside those of simulated, integrated frames.

    python benchmarks/compare_generators.py -o docs/images/generators.png \\
        --json benchmarks/results/generators.json

Nothing was fitted: the training ranges are meant to be wider than any one experiment. What
matters is that the simulated frames lie inside.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import h5py
import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

import xrdpipe
from xrdpipe.channels import background, fill_gaps
from xrdpipe.crystal import load_phase
from xrdpipe.nn.patterns import draw_pairs
from xrdpipe.phases import distractor_phases, shipped_phases
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.synthesis.scene import make_generator
from xrdpipe.types import Grid, PhaseLibrary

GRID = Grid(5, 24, 0.01, 0.4959)
LABELS = {
    "height": "highest point over its background",
    "width": "FWHM of the highest peak (degrees)",
    "slope": "background at 7° over that at 20°",
    "background": "median background (counts per pixel)",
    "spots": "spottiness over all intensity above background",
    "noise": "noise of a point over the background",
}


def statistics_of(
    masked: np.ndarray, unmasked: np.ndarray, spottiness: np.ndarray
) -> dict[str, np.ndarray]:
    """One number per pattern for each of LABELS; of the masked version but for the spots."""
    filled = fill_gaps(masked)
    smooth = background(filled)
    above = filled - smooth
    level = np.median(smooth, axis=1)
    top = above.argmax(axis=1)
    rows = np.arange(len(above))
    width = [_width(pattern, place) * GRID.step for pattern, place in zip(above, top, strict=True)]
    at = [round((angle - GRID.start) / GRID.step) for angle in (7, 20)]
    step = np.abs(filled[:, 12:] - filled[:, :-12])
    extra = fill_gaps(unmasked)
    total = np.clip(extra - background(extra), 0, None).sum(axis=1)
    return {
        "height": above[rows, top] / np.maximum(smooth[rows, top], 1e-3),
        "width": np.array(width),
        "slope": smooth[:, at[0]] / np.maximum(smooth[:, at[1]], 1e-3),
        "background": level,
        "spots": np.nan_to_num(spottiness).clip(0).sum(axis=1) / np.maximum(total, 1e-9),
        "noise": 1.05 * np.median(step, axis=1) / np.maximum(level, 1e-3),
    }


def _width(pattern: np.ndarray, top: int) -> float:
    """Points between the half heights of the peak at ``top``."""
    below = pattern < pattern[top] / 2
    left = np.flatnonzero(below[:top])
    right = np.flatnonzero(below[top:])
    if not len(left) or not len(right):
        return float("nan")
    return float(top + right[0] - left[-1] - 1)


def simulated(folder: Path) -> dict[str, np.ndarray]:
    """Maps of four kinds of sample, integrated."""
    parts = []
    for seed, options in enumerate(
        ({}, {"grains": 3.0}, {"counts": 5.0}, {"grains": 6.0, "counts": 300.0}), start=201
    ):
        scan = folder / f"scan-{seed}"
        xrdpipe.simulate(output=scan, scan_shape="12x16", seed=seed, format="eiger", **options)
        path = folder / f"{seed}.h5"
        xrdpipe.integrate(
            frames=next(scan.rglob("*_master.h5")), poni=next(scan.glob("*.poni")), output=path,
            variant="both", spottiness=True, radial_range=(5.0, 24.0), bins=1901,
        )  # fmt: skip
        with h5py.File(path) as file:
            entry = file["entry"]
            both = {
                name.split("_")[-1]: entry[f"{name}/data"]
                for name in entry
                if name.startswith("azint1d_")
            }
            spots = both["masked"]["spottiness"][()]
            parts.append(statistics_of(both["masked"]["I"][()], both["unmasked"]["I"][()], spots))
    return {name: np.concatenate([part[name] for part in parts]) for name in LABELS}


def generated(number: int) -> dict[str, np.ndarray]:
    """The training stream."""
    library = PhaseLibrary(tuple(load_phase(path) for path in shipped_phases().values()))
    others = tuple(load_phase(path) for path in distractor_phases().values())
    generator = make_generator(library, others, GRID, Recipe())
    parts = []
    for first in range(0, number, 64):
        pairs = draw_pairs(generator, first, 64, seed=31)
        arrays = (pairs.masked, pairs.unmasked, pairs.spottiness)
        parts.append(statistics_of(*(array.numpy() for array in arrays)))
    return {name: np.concatenate([part[name] for part in parts]) for name in LABELS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--number", type=int, default=4096)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        frames = simulated(Path(folder))
    stream = generated(arguments.number)
    figure, axes = plt.subplots(2, 3, figsize=(12.5, 6.4), layout="constrained")
    summary = {}
    for axis, (name, label) in zip(axes.flat, LABELS.items(), strict=True):
        one, two = (values[name][np.isfinite(values[name])] for values in (frames, stream))
        low, high = np.percentile(np.concatenate([one, two]), [0.5, 99.5])
        low = max(low, 1e-4)
        bins = np.geomspace(low, max(high, 10 * low), 40)
        for values, color, kind in (
            (two, "0.7", f"1D generator, {len(two)} patterns"),
            (one, "#0072b2", f"2D simulator, {len(one)} frames"),
        ):
            axis.hist(
                values.clip(low, high), bins, density=False, color=color,
                weights=np.full(len(values), 1 / len(values)),
                histtype="stepfilled" if color == "0.7" else "step", lw=1.6, label=kind,
            )  # fmt: skip
        axis.set_xscale("log")
        axis.set_xlabel(label)
        axis.spines[["top", "right"]].set_visible(False)
        ends = np.percentile(two, [1, 99])
        summary[name] = {
            "frames_5_50_95": np.round(np.percentile(one, [5, 50, 95]), 4).tolist(),
            "stream_5_50_95": np.round(np.percentile(two, [5, 50, 95]), 4).tolist(),
            "frames_inside_1_to_99_of_stream": round(
                float(((one >= ends[0]) & (one <= ends[1])).mean()), 4
            ),
        }
    for axis in axes[:, 0]:
        axis.set_ylabel("part of the patterns")
    axes.flat[0].legend(frameon=False, fontsize=9)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.output, dpi=85)
    print(json.dumps(summary, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
