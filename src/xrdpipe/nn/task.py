"""What is to be trained, and where its random numbers come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xrdpipe.nn.stream import Stream
from xrdpipe.nn.train_recipe import TrainRecipe
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.types import Grid, Labelled, Phase, PhaseLibrary

TRAINING, CALIBRATION, REPORT, WEIGHTS, VALIDATION = range(5)
"""Uses of random numbers; each has its own stream."""


@dataclass(frozen=True)
class Task:
    """What is to be trained.

    Parameters
    ----------
    library, distractors
        Classes in order, and phases without a label.
    grid
        Of the model, with its wavelength.
    recipe, synthesis
        How to train, and on what.
    seed
        Of everything random.
    labelled
        Measured patterns with labels, for hybrid training.
    start
        Folder of the model whose weights are the first ones; None draws them.
    """

    library: PhaseLibrary
    distractors: tuple[Phase, ...]
    grid: Grid
    recipe: TrainRecipe
    synthesis: Recipe
    seed: int
    labelled: Labelled | None = None
    start: Path | None = None

    def stream(self, use: int, member: int = 0) -> Stream:
        """The patterns of one use; streams of different uses share no sample."""
        return Stream(
            self.library,
            self.distractors,
            self.grid,
            self.synthesis,
            derived_seed(self.seed, use, member),
            "synthetic-crystals" if self.recipe.data == "synthetic-crystals" else "physics",
        )


def derived_seed(*numbers: int) -> int:
    """An independent 63-bit seed for a tuple of numbers."""
    state = np.random.SeedSequence(numbers).generate_state(2, np.uint32)
    return int(state[0]) << 31 ^ int(state[1])
