"""The fixed synthetic set of Li et al. (2024), the S set: no background, no empty patterns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xrdpipe.synthesis.generator import make_generator
from xrdpipe.synthesis.patterns import sample_random
from xrdpipe.synthesis.peaks import Profile, Shift, phase_pattern
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.types import Grid, PhaseLibrary

PAPER_COUNTS = (384, 385, 287)
"""Single-phase patterns of the paper's S set: bastnaesite, calcite, rhenium."""


def paper_s_set(
    library: PhaseLibrary, grid: Grid, seed: int, mixtures: int = 1056
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """The paper's synthetic set: varied position, intensity and profile; no background, no noise.

    384, 385 and 287 single-phase patterns for three phases (352 each for another number),
    and ``mixtures`` sums of two or more of them in random ratios (Li et al. 2024).

    Parameters
    ----------
    library, grid
        Phases in class order and the points.
    seed
        Sample i depends on (seed, i) only.
    mixtures
        Number of mixed patterns added.

    Returns
    -------
    Patterns (N, n) with values ≥ 0, and labels (N, K).
    """
    recipe = Recipe(texture_probability=0.3, line_jitter=(0.01, 0.2), grains=(1e6, 1e7))
    generator = make_generator(library, (), grid, recipe)
    count = len(library)
    numbers = PAPER_COUNTS if count == 3 else (352,) * count
    full = np.ones(grid.size)
    single: list[NDArray[np.float64]] = []
    label: list[NDArray[np.int8]] = []
    owner = np.repeat(np.arange(count), numbers)
    for sample, phase in enumerate(owner):
        random = sample_random(seed, sample)
        profile, shift = Profile.draw(recipe, random), Shift.draw(recipe, random)
        single.append(
            phase_pattern(
                generator.lines[phase], generator, random, profile, shift, full, 1.0, np.inf
            )
        )
        label.append(np.eye(count, dtype=np.int8)[phase])
    patterns = [*single]
    for sample in range(mixtures if count > 1 else 0):
        random = sample_random(seed, len(owner) + sample)
        members = random.choice(count, random.integers(2, min(count, 3) + 1), replace=False)
        chosen = [random.choice(np.flatnonzero(owner == phase)) for phase in members]
        ratio = random.uniform(0.1, 1.0, len(members))
        patterns.append(sum(r * single[c] for r, c in zip(ratio, chosen, strict=True)))
        label.append(np.eye(count, dtype=np.int8)[members].sum(axis=0, dtype=np.int8))
    return np.array(patterns, dtype=np.float32), np.array(label, dtype=np.int8)
