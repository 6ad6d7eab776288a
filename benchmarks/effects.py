"""Draw every effect of the synthetic patterns: the same sample with the effect and without it.

    python benchmarks/effects.py -o docs/images/effects.png

All other effects but profile, background and noise are off, so that one effect is seen at a time.
Of the first samples the one is shown that differs most.
"""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt
import torch

from xrdpipe.crystal import load_phase
from xrdpipe.nn.patterns import draw_pairs
from xrdpipe.phases import distractor_phases, shipped_phases
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.synthesis.scene import make_generator
from xrdpipe.types import Grid, PhaseLibrary

GRID = Grid(5, 24, 0.01, 0.4959)
BASE = ("composition", "profile", "background", "noise", "labels")
"""Effects that all panels share."""

NEEDS = {
    "masking": ("grains", "anvil_spots"),
    "saturation": ("grains", "anvil_spots"),
    "compton": (),
}
"""Effects without which another shows nothing."""

RECIPE = Recipe.from_mapping(
    {
        "composition": {"fraction": [0.3, 1.0], "nulls": 0},
        "noise": {"counts": [100, 1000], "ripple": [0.005, 0.02]},
        "background": {"line_to_background": [2, 6]},
        "distractors": {"probability": 1.0},
        "strain": {"isotropic": 0.006},
        "alignment": {"zero_shift": 0.04, "distance_scale": 0.003},
        "grains": {"number": [100, 2000]},
        "texture": {"probability": 1.0},
        "anvil_spots": {"height": [0.3, 10], "halo_probability": 1.0},
        "spikes": {"number": 3, "height": [0.1, 3]},
        "hot_pixels": {"number": [5, 20], "counts": [1e3, 1e5]},
        "shadows": {"beam_stop_probability": 1.0, "opening_probability": 1.0},
        "saturation": {"counts": [3e3, 3e4]},
        "detector": {"gap_probability": 1.0, "low_cut_probability": 0.5},
    }
)
"""Wider than in training where an effect would be too faint to see."""

FAINT = RECIPE.from_mapping(
    {
        "composition": {"fraction": [0.3, 1.0], "nulls": 0},
        "noise": {"counts": [0.2, 2], "ripple": [0.005, 0.02]},
        "background": {"line_to_background": [2, 6]},
    }
)
"""Few counts, where noise is the effect."""

VERSION = {"masking": "masked"}
"""Shown is the unmasked version, but where masking is the effect."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    library = PhaseLibrary(tuple(load_phase(path) for path in shipped_phases().values()))
    distractors = tuple(load_phase(path) for path in distractor_phases().values())
    names = [effect.name for effect in fields(Recipe) if effect.name not in ("labels",)]
    figure, axes = plt.subplots(6, 3, figsize=(13.5, 15), sharex=True, layout="constrained")
    for axis, name in zip(axes.flat, names, strict=True):
        keep = {*BASE, *NEEDS.get(name, ()), name}
        shown = FAINT if name == "noise" else RECIPE
        every = shown.without(*(e.name for e in fields(Recipe) if e.name not in keep))
        curves = []
        for recipe in (every, every.without(name)):
            generator = make_generator(library, distractors, GRID, recipe)
            pairs = draw_pairs(generator, 0, 96, seed=11)
            curves.append(getattr(pairs, VERSION.get(name, "unmasked")).numpy())
        sample = most_different(*curves)
        draw(axis, name, curves[0][sample], curves[1][sample])
    for axis in axes[-1]:
        axis.set_xlabel("2θ (degrees), λ = 0.4959 Å")
    for axis in axes[:, 0]:
        axis.set_ylabel("counts per pixel")
    axes.flat[0].legend(loc="upper right", fontsize=8, frameon=False)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.output, dpi=80)
    print(arguments.output)


def most_different(one: np.ndarray, other: np.ndarray) -> int:
    """The sample whose pattern changes most relative to its own range."""
    a, b = np.nan_to_num(one), np.nan_to_num(other)
    span = np.percentile(b, 99.5, axis=1) - np.percentile(b, 1, axis=1)
    apart = np.abs(a - b)
    change = np.median(apart, axis=1) + 0.05 * np.mean(apart.clip(max=5 * span[:, None]), axis=1)
    ranked = np.argsort(change / np.maximum(span, 1e-9))
    # The most extreme few are no typical examples.
    return int(ranked[-8])


def draw(axis: plt.Axes, name: str, with_it: np.ndarray, without: np.ndarray) -> None:
    axis.plot(GRID.two_theta, without, color="0.6", lw=1.4, label="without")
    axis.plot(GRID.two_theta, with_it, color="#0072b2", lw=0.8, label="with")
    top = np.nanpercentile(np.stack([with_it, without]), 99.7)
    axis.set_ylim(0, 1.25 * top)
    axis.set_xlim(GRID.start, GRID.stop)
    axis.set_title(name.replace("_", " "), loc="left", fontsize=10, fontweight="bold")
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
