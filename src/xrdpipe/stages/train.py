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
from xrdpipe.nn.model_folder import CARD, find_model, model_sha256, read_card
from xrdpipe.nn.train_recipe import DEFAULT_RECIPE, TrainRecipe, load_recipe
from xrdpipe.phases import distractor_phases
from xrdpipe.stages.calibrant import Described, describe
from xrdpipe.stages.labelled import read_labelled
from xrdpipe.stages.like import Likeness, like
from xrdpipe.stages.synthesize import user_library
from xrdpipe.stages.training_page import training_page
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
        The output is something else than a model folder, or a calibrant cannot be used.
    OptionError
        Labelled patterns are missing, or no recipe asks for them; a calibrant for a recipe that
        does not draw line widths from ranges.
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
    described = _described(config, recipe, grid, synthesis)
    if described is not None:
        synthesis = described.synthesis
        progress.note(described.text)
    likeness = _likeness(config, recipe, grid, synthesis)
    if likeness is not None:
        synthesis = likeness.synthesis
        progress.note(likeness.text)
    key = run_key(library, distractors, grid, recipe, synthesis, config.seed)
    if likeness is not None:
        key["like"] = likeness.key
    if described is not None:
        key["calibrant"] = described.key
    start = None if config.start is None else _start(config.start, recipe, library, grid)
    if start is not None:
        key["start"] = model_sha256(start)
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
        return Outcome.already_done(output)
    elif (work / RUN).is_file():
        _refuse_other(work, key)
        progress.note(f"continuing {work}")
    work.mkdir(parents=True, exist_ok=True)
    (work / RUN).write_text(json.dumps(key, indent=2) + "\n", encoding="utf-8")

    # torch is loaded only when everything that can be refused has been checked.
    import torch

    from xrdpipe.nn.classical_training import train_classical
    from xrdpipe.nn.task import Task
    from xrdpipe.nn.training import train

    if config.threads is not None:
        torch.set_num_threads(config.threads)
    task = Task(library, distractors, grid, recipe, synthesis, config.seed, labelled, start)
    learn = train_classical if recipe.network in METHODS else train
    report = learn(task, work, output.name, progress)
    model = work / "model"
    if described is not None:
        report["calibrant"] = described.report
        text = json.dumps(report, indent=2, ensure_ascii=False)
        (model / "report.json").write_text(text + "\n", encoding="utf-8")
    facts = _facts(config, recipe, grid, library, report)
    (model / "report.html").write_text(training_page(report, facts), encoding="utf-8")
    (work / RUN).replace(model / RUN)
    if output.exists():
        shutil.rmtree(output)
    model.replace(output)
    shutil.rmtree(work)
    summary = f"{_summary(output, report)}; report: {output / 'report.html'}"
    return Outcome(output, summary=summary, details=report)


def _described(
    config: TrainConfig, recipe: TrainRecipe, grid: Grid, synthesis: Recipe
) -> Described | None:
    """What the calibrant says; None without one."""
    if config.calibrant is None or config.calibrant_cif is None:
        return None
    if recipe.data != "stream" or not synthesis.profile.on:
        raise OptionError(
            f"recipe '{config.recipe}' does not draw line widths from ranges (data "
            f"'{recipe.data}'), so that --calibrant would change nothing; use another recipe."
        )
    return describe(config.calibrant, config.calibrant_cif, grid, synthesis)


def _start(name: str, recipe: TrainRecipe, library: PhaseLibrary, grid: Grid) -> Path:
    """Folder of the model to start from, whose weights must fit."""
    if recipe.network in METHODS:
        raise OptionError(f"--start {name}: '{recipe.network}' has no weights to start from.")
    folder = find_model(name)
    card = read_card(folder)
    wanted = {
        "network": (card.network, recipe.network),
        "channels": (card.channels, recipe.channels),
        "phases": (card.phase_names, library.names),
        "grid": (str(card.grid), str(grid)),
        "unknown score": (card.unknown is not None, recipe.unknown),
    }
    for what, (there, here) in wanted.items():
        if there != here:
            raise OptionError(
                f"--start {name} does not fit: its {what} is {there}, here it is {here}; weights "
                "can only be taken over unchanged."
            )
    return folder


def _likeness(
    config: TrainConfig, recipe: TrainRecipe, grid: Grid, synthesis: Recipe
) -> Likeness | None:
    """What the patterns of a map say; None without any."""
    if config.like is None:
        return None
    if recipe.data != "stream":
        raise OptionError(
            f"recipe '{config.recipe}' draws nothing from ranges (data '{recipe.data}'), so that "
            "--like would change nothing; use another recipe."
        )
    return like(config.like, grid, synthesis)


def _facts(
    config: TrainConfig,
    recipe: TrainRecipe,
    grid: Grid,
    library: PhaseLibrary,
    report: dict[str, Any],
) -> list[tuple[str, str]]:
    """What was trained, for the head of the report."""
    return [
        ("phases", ", ".join(library.names)),
        ("grid", f"{grid.start:g} to {grid.stop:g} degrees, step {grid.step:g}, at "
                 f"{grid.wavelength:g} Å"),
        ("recipe", str(config.recipe or DEFAULT_RECIPE)),
        ("seed", str(config.seed)),
        ("network", f"{recipe.network}, {recipe.members} of them"),
        ("patterns seen", f"{report['patterns_seen']:,}"),
        ("held-out patterns", f"{report['held_out_patterns']:,}"),
    ]  # fmt: skip


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
