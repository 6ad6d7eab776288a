"""The stage ``train``: CIF files and a wavelength to a model folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from xrdpipe.classical import METHODS
from xrdpipe.config import TrainConfig
from xrdpipe.crystal import load_phase
from xrdpipe.errors import InputError, OptionError, OutputExistsError
from xrdpipe.nn.model_folder import CARD
from xrdpipe.nn.train_recipe import TrainRecipe, load_recipe
from xrdpipe.phases import distractor_phases
from xrdpipe.stages.labelled import read_labelled
from xrdpipe.stages.synthesize import user_library
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.types import Grid, Labelled, Outcome, Phase, PhaseLibrary, Progress

RUN = "run.json"


def run(config: TrainConfig, progress: Progress | None = None) -> Outcome:
    """Train a model, or continue an interrupted training.

    Work goes to ``OUTPUT.part``; the finished folder is renamed into place.

    Raises
    ------
    OutputExistsError
        The output, or interrupted work on it, belongs to another training.
    InputError
        The output is something else than a model folder.
    OptionError
        Labelled patterns are missing, or no recipe asks for them.
    """
    progress = progress if progress is not None else Progress()
    recipe, synthesis = load_recipe(config.recipe)
    grid = Grid.parse(config.grid, config.wavelength)
    library = user_library(config.cif, progress)
    output = Path(config.output)
    work = output.with_name(output.name + ".part")
    distractors = tuple(load_phase(path) for path in distractor_phases().values())
    names = tuple(phase.name for phase in library.phases)
    labelled = read_labelled(config.labelled, config.truth, config.variant, names, grid)
    if bool(recipe.labelled_patterns) != (labelled is not None):
        raise OptionError(
            f"recipe '{config.recipe}' adds {recipe.labelled_patterns} labelled patterns, "
            f"{len(config.labelled)} files are given; --labelled belongs to a hybrid recipe."
        )
    key = run_key(library, distractors, grid, recipe, synthesis, config.seed)
    if labelled is not None:
        key["labelled"] = {
            name: hashlib.sha256(getattr(labelled, name).tobytes()).hexdigest()
            for name in Labelled.FIELDS
        }
    if output.exists() and not (output / CARD).is_file():
        raise InputError(f"'{output}' exists and is no model folder; give another output.")
    if config.restart:
        shutil.rmtree(work, ignore_errors=True)
    elif (output / RUN).is_file() or output.exists():
        _refuse_other(output, key)
        return Outcome(output, summary=f"already done: {output}")
    elif (work / RUN).is_file():
        _refuse_other(work, key)
        progress.note(f"continuing {work}")
    work.mkdir(parents=True, exist_ok=True)
    (work / RUN).write_text(json.dumps(key, indent=2) + "\n", encoding="utf-8")

    # torch is loaded only when everything that can be refused has been checked.
    import torch

    from xrdpipe.nn.classical_training import train_classical
    from xrdpipe.nn.training import Task, train

    if config.threads is not None:
        torch.set_num_threads(config.threads)
    task = Task(library, distractors, grid, recipe, synthesis, config.seed, labelled)
    learn = train_classical if recipe.network in METHODS else train
    report = learn(task, work, output.name, progress)
    model = work / "model"
    (work / RUN).replace(model / RUN)
    if output.exists():
        shutil.rmtree(output)
    model.replace(output)
    shutil.rmtree(work)
    return Outcome(output, summary=_summary(output, report), details=report)


def run_key(
    library: PhaseLibrary,
    distractors: tuple[Phase, ...],
    grid: Grid,
    recipe: TrainRecipe,
    synthesis: Recipe,
    seed: int,
) -> dict[str, Any]:
    """What makes two trainings the same (decision 21); threads and workers are left out."""
    settings = asdict(recipe)
    for volatile in ("workers", "checkpoint_every"):
        settings.pop(volatile)
    key = {
        "phases": {phase.name: phase.sha256 for phase in library.phases},
        "distractors": {phase.name: phase.sha256 for phase in distractors},
        "grid": asdict(grid),
        "seed": seed,
        "train": settings,
        "synthesis": asdict(synthesis),
        "versions": {name: version(name) for name in ("xrdpipe", "torch", "numpy")},
    }
    plain: dict[str, Any] = json.loads(json.dumps(key))  # tuples become lists, as in the file
    return plain


def _refuse_other(folder: Path, key: dict[str, Any]) -> None:
    """Raise unless the folder belongs to this very training."""
    path = folder / RUN
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:
        found = {}
    for name, wanted in _flat(key).items():
        other = _flat(found).get(name)
        if other != wanted:
            raise OutputExistsError(
                f"'{folder}' belongs to another training: {name} is {other!r} there and "
                f"{wanted!r} now; give another output or --restart."
            )


def _flat(key: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in key.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _summary(output: Path, report: dict[str, Any]) -> str:
    scores = report["scores"]["all"]
    each = ", ".join(
        f"{phase} {100 * (s['accuracy'] if s['accuracy'] is not None else np.nan):.1f} %"
        f" (prevalence {100 * (s['prevalence'] or 0):.0f} %)"
        for phase, s in scores.items()
    )
    return f"{output}: accuracy on held-out synthetic patterns {each}"
