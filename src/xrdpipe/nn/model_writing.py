"""A trained model as a folder: weights, calibration, phases and card."""

from __future__ import annotations

from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from xrdpipe.crystal import powder_intensity, reflections
from xrdpipe.errors import InputError
from xrdpipe.nn.calibration import calibrate, log_odds_of, unknown_threshold
from xrdpipe.nn.inference import logistic
from xrdpipe.nn.model_folder import (
    ModelCard,
    PhaseEntry,
    Unknown,
    WeightsEntry,
    file_sha256,
    write_card,
)
from xrdpipe.nn.networks import Network
from xrdpipe.nn.patterns import Chosen
from xrdpipe.nn.task import Task
from xrdpipe.types import Grid, Phase

LINES_APART = 0.05
"""Lines nearer than this, in degrees, count as one when the strongest are listed."""


def write_model(
    task: Task,
    networks: list[Network],
    held_out: Chosen,
    folder: Path,
    name: str,
    notes: str,
) -> None:
    """Write weights, calibration, phases and card."""
    folder.mkdir(parents=True)
    recipe = task.recipe
    precision = torch.float16 if recipe.weights == "float16" else torch.float32
    phases = len(task.library)
    weights, scores = [], []
    for member, network in enumerate(networks):
        file = f"weights-{member}.safetensors"
        stored = {k: v.to(precision).contiguous() for k, v in network.state_dict().items()}
        save_file(stored, folder / file)
        (folder / file).chmod(0o644)  # safetensors writes files that only their owner can read
        # Calibrate what will be loaded, not what was trained.
        network.load_state_dict({k: v.float() for k, v in stored.items()})
        odds = log_odds_of(network, recipe.channels, held_out)
        temperature, bias = calibrate(odds[:, :phases], held_out.presence)
        entry = WeightsEntry(file, file_sha256(folder / file), temperature, bias)
        if recipe.unknown:
            one, other = calibrate(odds[:, phases:], held_out.foreign[:, None])
            entry = replace(entry, unknown=(one, other[0]))
            scores.append(logistic(odds[:, phases] / one + other[0]))
        weights.append(entry)
    write_phases_and_card(
        task,
        folder,
        name,
        tuple(weights),
        recipe.channels,
        "Each channel of xrdpipe.channels normalises itself, per pattern and ignoring NaN; "
        "gaps are filled linearly and ends by the nearest value before.",
        notes,
        unknown_threshold(np.mean(scores, axis=0), held_out) if recipe.unknown else None,
    )


def write_phases_and_card(
    task: Task,
    folder: Path,
    name: str,
    weights: tuple[WeightsEntry, ...],
    channels: tuple[str, ...],
    normalisation: str,
    notes: str,
    unknown: Unknown | None = None,
) -> None:
    """Write the CIF files and ``model.json`` of a model whose weights are there.

    Parameters
    ----------
    task, folder, name
        What was trained, the model folder, and its name.
    weights
        Files of the members with their calibration.
    channels
        Inputs of a network; none for a classical method.
    normalisation, notes
        Sentences of the card.
    unknown
        When a pattern counts as unknown; None for models that cannot tell.
    """
    (folder / "phases").mkdir()
    phases = []
    for phase in task.library.phases:
        if Path(phase.name).name != phase.name:
            raise InputError(f"the phase name '{phase.name}' is no name of a file; rename it.")
        file = f"phases/{phase.name}.cif"
        (folder / file).write_text(phase.cif, encoding="utf-8")
        lines = strongest_lines(phase, task.grid)
        phases.append(PhaseEntry(phase.name, file, file_sha256(folder / file), lines))
    card = ModelCard(
        name=name,
        network=task.recipe.network,
        channels=channels,
        grid=task.grid,
        normalisation=normalisation,
        polarization_corrected=True,
        min_coverage=0.5,
        prior=(0.5,) * len(phases),
        phases=tuple(phases),
        weights=weights,
        recipe={
            "train": asdict(task.recipe),
            "synthesis": asdict(task.synthesis),
            "seed": task.seed,
            "distractors": [phase.name for phase in task.distractors],
        },
        versions={p: version(p) for p in ("xrdpipe", "torch", "numpy", "scipy", "gemmi")},
        notes=notes,
        unknown=unknown,
    )
    write_card(card, folder)


def strongest_lines(phase: Phase, grid: Grid, number: int = 3) -> tuple[float, ...]:
    """2θ of the strongest separate lines on the grid, degrees, strongest first."""
    d_min = grid.wavelength / (2 * np.sin(np.radians(min(grid.stop, 179) / 2)))
    table = reflections(phase, grid.wavelength, float(d_min))
    intensity = powder_intensity(table, grid.wavelength)
    found: list[float] = []
    for index in np.argsort(-intensity):
        angle = float(table.two_theta[index])
        apart = all(abs(angle - other) > LINES_APART for other in found)
        if grid.start <= angle <= grid.stop and apart:
            found.append(round(angle, 4))
        if len(found) == number:
            break
    return tuple(found)
