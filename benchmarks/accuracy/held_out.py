"""Every method on patterns of the training generator that no training drew.

What the generator and the maps of the protocol tell apart: a method that is good here and bad there
learnt the generator; one that is bad in both did not learn. ``visible`` leaves out phases below the
detection limit of the generator, which training does not judge either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xrdpipe.crystal import load_phase
from xrdpipe.nn.inference import Model, Prediction, load_model
from xrdpipe.nn.model_folder import find_model, model_sha256, phase_library
from xrdpipe.nn.patterns import Pairs
from xrdpipe.nn.stream import BLOCK, Stream, draw_block
from xrdpipe.phases import distractor_phases
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.types import Grid

from .evaluate import SUBSETS, VARIANTS, Answers, Known, _scores, _truth_numbers
from .scores import map_weights

SEED = 915_001
"""Of the stream; trainings derive theirs, of 63 bits, from their own seed."""


def held_out(
    methods: Mapping[str, Sequence[str]],
    labels: Sequence[str],
    grid: Grid,
    say: Callable[[str], None],
    blocks: int = 16,
    repeats: int = 1000,
) -> dict[str, Any]:
    """Scores of all methods; intervals by bootstrap over blocks of 256 patterns.

    Parameters
    ----------
    methods
        Name → model folders or names, one per training seed; all with this grid.
    labels
        Label set in class order.
    grid
        Of the patterns.
    say
        Prints a line.
    blocks, repeats
        Patterns in blocks of 256, and bootstrap resamples.
    """
    first = find_model(next(iter(methods.values()))[0])
    others = tuple(load_phase(path) for path in distractor_phases().values())
    stream = Stream(phase_library(first), others, grid, Recipe(), SEED)
    drawn = [draw_block(stream, number * BLOCK, BLOCK) for number in range(blocks)]
    assert [phase.name for phase in stream.library.phases] == list(labels)
    known = {variant: _known(drawn, labels, variant) for variant in VARIANTS}
    weights = map_weights(blocks, repeats)
    result: dict[str, Any] = {
        "seed": SEED,
        "methods": {m: [model_sha256(find_model(f)) for f in of] for m, of in methods.items()},
        "truth": {variant: _truth_numbers(group) for variant, group in known.items()},
        "scores": {},
    }
    for method, models in methods.items():
        say(f"{method}: {blocks * BLOCK} held-out patterns")
        said = [_answers(load_model(find_model(model), "cpu"), drawn, labels) for model in models]
        result["scores"][method] = {
            variant: {
                subset: _scores(known[variant], [one[variant] for one in said], weights, subset)
                for subset in SUBSETS
            }
            for variant in VARIANTS
        }
    return result


def _known(drawn: Sequence[Pairs], labels: Sequence[str], variant: str) -> Known:
    """Truth of one variant; with both, a phase is visible if it is in either."""

    def judged(pairs: Pairs) -> torch.Tensor:
        if variant != "both":
            found: torch.Tensor = getattr(pairs, f"presence_{variant}")
            return found
        one, other = pairs.presence_masked, pairs.presence_unmasked
        return torch.where(one == 1, one, other)

    values = np.stack([judged(pairs).numpy().T for pairs in drawn])
    return Known(tuple(labels), values != 0, values >= 0, {})


def _answers(model: Model, drawn: Sequence[Pairs], labels: Sequence[str]) -> dict[str, Answers]:
    """What a model says of each variant and of both: shape (blocks, K, 256)."""
    order = [model.card.phase_names.index(name) for name in labels]
    said: dict[str, list[NDArray[np.float64]]] = {variant: [] for variant in VARIANTS}
    # Methods that look at a whole map first take the patterns of a variant as one.
    looked = {
        variant: model.for_map(
            len(drawn) * BLOCK,
            [
                (number * BLOCK, getattr(pairs, variant).numpy(), pairs.coverage.numpy())
                for number, pairs in enumerate(drawn)
            ],
        )
        for variant in ("masked", "unmasked")
    }
    for pairs in drawn:
        each = {}
        for variant in ("masked", "unmasked"):
            found: Prediction = looked[variant].predict(
                getattr(pairs, variant).numpy(), pairs.coverage.numpy(), pairs.spottiness.numpy()
            )
            each[variant] = found.probability[:, order].T.astype(float)
        for variant in VARIANTS:
            one = each.get(variant)
            said[variant].append(np.mean(list(each.values()), axis=0) if one is None else one)
    stacked = {variant: np.stack(found) for variant, found in said.items()}
    return {v: Answers(p, (p >= 0.5).astype(np.int8), None) for v, p in stacked.items()}
