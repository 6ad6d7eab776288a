"""Which phases a pattern holds, and how much of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import InputError
from xrdpipe.synthesis.counter import Counter, log_between
from xrdpipe.synthesis.lines import LineTable
from xrdpipe.synthesis.recipe import Recipe

COMMON, CROWD = 2, 4
"""Distractors in one pattern at most, and further ones where it is crowded."""


@dataclass(frozen=True)
class Components:
    """Phases of N patterns, one entry for each phase of each pattern: E in all.

    Parameters
    ----------
    sample, phase
        Shape (E,), place in the batch and in the table.
    slot
        Shape (E,), number of the entry in its pattern: a phase of the library has its own.
    fraction
        Shape (E,), height of the strongest ideal line, relative.
    parasite
        Shape (E,), True where a phase of the library is no part of the sample.
    label
        Shape (N, K), True where a phase of the library counts as present.
    """

    sample: NDArray[np.int64]
    phase: NDArray[np.int64]
    slot: NDArray[np.int64]
    fraction: NDArray[np.float64]
    parasite: NDArray[np.bool_]
    label: NDArray[np.bool_]


def draw_components(table: LineTable, recipe: Recipe, counter: Counter) -> Components:
    """Draw the composition of every pattern.

    Raises
    ------
    InputError
        The recipe's combinations are of another number of phases.
    """
    known, number = table.labelled, len(counter.samples)
    label = _labels(table, recipe, counter)
    amounts = counter.uniform("amounts", known)
    if recipe.composition.on:
        fraction = np.where(label, log_between(amounts, recipe.composition.fraction), 0.0)
    else:
        fraction = label.astype(float)
    phase = np.broadcast_to(np.arange(known), (number, known))
    if recipe.distractors.on:
        fraction = fraction + _parasites(table, recipe, counter, label)
        foreign, amount = _foreign(table, recipe, counter)
        phase = np.concatenate([phase, foreign], axis=1)
        fraction = np.concatenate([fraction, amount], axis=1)
    sample, slot = np.nonzero(fraction)
    parasite = (slot < known) & ~label[sample, np.minimum(slot, known - 1)]
    return Components(sample, phase[sample, slot], slot, fraction[sample, slot], parasite, label)


def _labels(table: LineTable, recipe: Recipe, counter: Counter) -> NDArray[np.bool_]:
    """Which phases of the library are there, shape (N, K)."""
    known, number = table.labelled, len(counter.samples)
    composition = recipe.composition
    if not composition.on:
        return np.ones((number, known), bool)
    chance = counter.uniform("presence", known + 1)
    if composition.combinations:
        wrong = next((key for key, _ in composition.combinations if len(key) != known), None)
        if wrong is not None:
            raise InputError(
                f"[synthesis.composition] combinations has the key '{wrong}', but there are "
                f"{known} phases ({', '.join(table.names[:known])}); give one digit per phase."
            )
        keys = np.array([[digit == "1" for digit in key] for key, _ in composition.combinations])
        total = np.cumsum([weight for _, weight in composition.combinations])
        # Rounding must not reach past the last combination.
        chosen = np.searchsorted(total / total[-1], chance[:, known]).clip(0, len(keys) - 1)
        prior: NDArray[np.bool_] = keys[chosen]
        return prior
    each = min(composition.presence, composition.mean_phases / known)
    return (chance[:, :known] < each) & (chance[:, known:] >= composition.nulls)


def _parasites(
    table: LineTable, recipe: Recipe, counter: Counter, label: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Traces of phases that belong to the cell, where they are not labelled, shape (N, K)."""
    known = table.labelled
    draws = counter.uniform("parasites", 2 * known)
    wanted = np.isin(table.names[:known], recipe.distractors.parasites)
    there = (draws[:, :known] < recipe.distractors.parasite_probability) & wanted & ~label
    trace = log_between(draws[:, known:], recipe.distractors.parasite_fraction)
    return np.where(there, trace, 0.0)


def _foreign(
    table: LineTable, recipe: Recipe, counter: Counter
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Phases without a label and their fractions (0: none), each of shape (N, COMMON + CROWD)."""
    most = COMMON + CROWD
    draws = counter.uniform("distractors", 3 * most).reshape(-1, most, 3)
    named, every = table.listed - table.labelled, len(table.names) - table.labelled
    share = recipe.distractors.made_up_share if 0 < named < every else float(named == 0)
    made_up = counter.uniform("made up", most) < share
    first = np.where(made_up, named, 0)
    which = first + (draws[..., 0] * (np.where(made_up, every, named) - first)).astype(np.int64)
    crowded = counter.uniform("crowded", 1) < recipe.distractors.crowded
    chance = np.where(np.arange(most) < COMMON, recipe.distractors.probability, 0.5 * crowded)
    there = (draws[..., 1] < chance) & (every > 0)
    fraction = log_between(draws[..., 2], recipe.composition.fraction)
    place = np.minimum(table.labelled + which, len(table.names) - 1)
    return place, np.where(there, fraction, 0.0)
