"""Three unknown scores on the protocol's maps with an unknown phase: which tells it best?

* ``answer``: the further answer of the networks, as ``map`` writes it;
* ``unexplained``: what a non-negative least-squares fit of the model's phases leaves, in units of
  its noise;
* ``latent``: Mahalanobis distance of the first member's features from those of synthetic patterns
  without a phase outside the library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xrdpipe.channels import build_channels
from xrdpipe.classical.least_squares import LeastSquares
from xrdpipe.classical.observed import observe
from xrdpipe.crystal import load_phase
from xrdpipe.metrics import auroc
from xrdpipe.nn.inference import BLOCK, Model, load_model
from xrdpipe.nn.model_folder import find_model, phase_library
from xrdpipe.nn.stream import Stream, draw_chosen
from xrdpipe.phases import distractor_phases
from xrdpipe.resampling import plan_resampling
from xrdpipe.stages.resample import resampled_blocks
from xrdpipe.store.patterns import PatternsFile
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.types import FloatArray, Patterns

from .evaluate import known_truth, map_answers
from .maps import Cache
from .protocol import MapPlan

REFERENCE = 4096
"""Synthetic patterns that the latent distance is measured from."""

DIRECTIONS = 64
"""Principal directions of the features that it uses."""

EXCESS = 3.0
"""Standard deviations from which on intensity counts as unexplained."""

Array = NDArray[np.float64]


def compare(cache: Cache, model: str) -> list[dict[str, Any]]:
    """AUROC of each score and variant over the maps of the set ``unknown``, goals subset."""
    plans = cache.protocol.of_set("unknown")
    known = known_truth(cache, plans)
    there = (known.extra["foreign"] >= 0).ravel()
    goals = cache.protocol.tables["goals"]
    clear = (known.extra["foreign_fraction"] >= goals["fraction"]) & (
        known.extra["foreign_signal_to_noise"] > goals["signal_to_noise"]
    )
    use = ~there | clear.ravel()
    loaded = load_model(find_model(model), "cpu")
    library = phase_library(find_model(model))
    fit = LeastSquares.of(library, loaded.card.grid)
    latent = _LatentDistance(loaded, find_model(model))
    found = []
    for variant in ("masked", "unmasked"):
        answer = map_answers(cache, plans, model, variant, keep=True).unknown
        parts = [_patterns(cache, plan, loaded, variant) for plan in plans]
        scores = {
            "unexplained": np.concatenate([_unexplained(fit, part) for part in parts]),
            "latent": np.concatenate([latent.of(part) for part in parts]),
        }
        if answer is not None:
            scores = {"answer": np.asarray(answer).ravel()} | scores
        for name, score in scores.items():
            value = auroc(there[use], score[use])
            found.append({"score": name, "variant": variant, "auroc": round(float(value), 4)})
    return found


def table(found: Sequence[dict[str, Any]]) -> str:
    """The comparison as Markdown."""
    names = dict.fromkeys(row["score"] for row in found)
    lines = ["| score | masked | unmasked |", "|---|---|---|"]
    for name in names:
        values = {row["variant"]: row["auroc"] for row in found if row["score"] == name}
        lines.append(f"| {name} | {values['masked']:.3f} | {values['unmasked']:.3f} |")
    return "\n".join(lines)


def _patterns(cache: Cache, plan: MapPlan, model: Model, variant: str) -> Patterns:
    """The patterns of a map on the model's grid, in the order of its pixels."""
    grid = model.card.grid
    with PatternsFile(cache.patterns(plan), variant) as source:
        plan_of_grid = plan_resampling(source.rows(0, 1), grid)
        blocks = [part for _, part in resampled_blocks(source, grid, plan_of_grid)]
    frame = cache.truth(plan).extra["frame"].ravel()
    fields = ("intensity", "coverage", "spottiness")
    whole = {name: np.concatenate([getattr(b, name) for b in blocks])[frame] for name in fields}
    return Patterns(**{**vars(blocks[0]), **whole})


def _unexplained(fit: LeastSquares, patterns: Patterns) -> Array:
    score = []
    for row in range(0, len(patterns.intensity), BLOCK):
        part = slice(row, row + BLOCK)
        together = fit.templates.together
        left = fit.fit(observe(patterns.intensity[part], patterns.coverage[part], together))
        excess = np.clip(np.nan_to_num(left.unexplained) * np.sqrt(left.weight), 0, 1e3)
        score.append(np.where(excess > EXCESS, excess, 0).sum(axis=1))
    return np.concatenate(score)


class _LatentDistance:
    def __init__(self, model: Model, folder: Any) -> None:
        self.model = model
        library = phase_library(folder)
        others = tuple(load_phase(path) for path in distractor_phases().values())
        stream = Stream(library, others, model.card.grid, Recipe(), 77)
        drawn = draw_chosen(stream, 0, REFERENCE, 0.5)
        own = drawn.foreign == 0
        features = self._features(drawn.intensity[own], drawn.coverage[own], drawn.spottiness[own])
        self.centre = features.mean(axis=0)
        _, spread, self.axes = np.linalg.svd(features - self.centre, full_matrices=False)
        self.axes = self.axes[:DIRECTIONS]
        self.spread = spread[:DIRECTIONS] / np.sqrt(len(features))

    def of(self, patterns: Patterns) -> Array:
        features = self._features(patterns.intensity, patterns.coverage, patterns.spottiness)
        away = (features - self.centre) @ self.axes.T / self.spread
        distance: Array = np.sqrt((away**2).sum(axis=1))
        return distance

    def _features(self, intensity: Any, coverage: Any, spottiness: FloatArray | None) -> Array:
        network = self.model.evidence.networks[0]  # type: ignore[attr-defined]
        parts = []
        with torch.inference_mode():
            for row in range(0, len(intensity), BLOCK):
                part = slice(row, row + BLOCK)
                spots = None if spottiness is None else spottiness[part]
                views = build_channels(
                    self.model.card.channels, intensity[part], coverage[part], spots
                )
                parts.append(network.latent(torch.from_numpy(views)).numpy())
        return np.concatenate(parts).astype(np.float64)
