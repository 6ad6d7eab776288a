"""Training: synthetic patterns to a model folder, resumable at every checkpoint.

A checkpoint is one safetensors file, written aside and renamed. Random numbers restart from
(seed, member, epoch) at every epoch, so a resumed run equals an uninterrupted one.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.optimize import minimize
from torch import Tensor

from xrdpipe.channels import build_channels
from xrdpipe.crystal import powder_intensity, reflections
from xrdpipe.errors import EnvironmentProblemError, InputError
from xrdpipe.metrics import auroc, brier, expected_calibration_error
from xrdpipe.nn.inference import BLOCK, load_model, logistic, prior_shift
from xrdpipe.nn.literature_sets import paper_s_set
from xrdpipe.nn.losses import add_noise, binary_cross_entropy, multitask_cross_entropy
from xrdpipe.nn.memory import keep_memory
from xrdpipe.nn.model_folder import (
    ModelCard,
    PhaseEntry,
    Unknown,
    WeightsEntry,
    file_sha256,
    read_card,
    write_card,
)
from xrdpipe.nn.networks import Network, make_network
from xrdpipe.nn.patterns import Chosen
from xrdpipe.nn.stream import Stream, batches, draw_chosen
from xrdpipe.nn.train_recipe import TrainRecipe
from xrdpipe.nn.training_report import draw_judged, performance
from xrdpipe.nn.validation import Batch, Course, Curve, curves_as_table, draw_held_out
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.types import FloatArray, Grid, IntArray, Labelled, Phase, PhaseLibrary, Progress

TRAINING, CALIBRATION, REPORT, WEIGHTS, VALIDATION = range(5)
"""Uses of random numbers; each has its own stream."""

LINES_APART = 0.05
"""Lines nearer than this, in degrees, count as one when the strongest are listed."""

FALSE_ALARMS = 0.05
"""Part of the patterns without an unknown phase that the threshold of its score takes for one."""


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


def train(
    task: Task, folder: Path, name: str, progress: Progress, notes: str = ""
) -> dict[str, Any]:
    """Train a model, or continue, and write its folder.

    Parameters
    ----------
    task
        What is to be trained.
    folder
        Working folder: checkpoints go to it and, at the end, the model to ``folder/model``.
    name
        Name of the model.
    progress
        Where to report.
    notes
        Written to the card.

    Returns
    -------
    The report, also in ``model/report.json``.
    """
    started = time.perf_counter()
    recipe = task.recipe
    folder.mkdir(parents=True, exist_ok=True)
    keep_memory()
    fixed = _fixed_set(task) if recipe.data == "s-set" else None
    checks = draw_held_out(task.stream(VALIDATION), recipe)
    progress.start("training", recipe.epochs * recipe.members)
    trained = [
        _train_member(task, member, folder, fixed, checks, progress)
        for member in range(recipe.members)
    ]
    networks, courses = [network for network, _ in trained], [course for _, course in trained]
    progress.done()
    progress.note("calibrating on held-out synthetic patterns")
    held_out = draw_chosen(
        task.stream(CALIBRATION), 0, recipe.held_out, recipe.masked_share, recipe.spottiness_share
    )
    model = folder / "model"
    shutil.rmtree(model, ignore_errors=True)
    _write_model(task, networks, held_out, model, name, notes)
    epochs = sum(course.done for course in courses)
    seen = epochs * _patterns_in_epoch(recipe, fixed)
    return write_report(task, model, name, started, seen, curves_as_table(courses))


def write_report(
    task: Task,
    model: Path,
    name: str,
    started: float,
    patterns_seen: int,
    learning: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Score a model folder on held-out patterns and write ``report.json`` into it.

    Parameters
    ----------
    task, model, name
        What was trained, where it lies, and its name.
    started
        ``time.perf_counter()`` at the start.
    patterns_seen
        Patterns that training saw, those of all members together.
    learning
        Learning curves of the members; a classical method has none.
    """
    report = {
        "name": name,
        "seed": task.seed,
        "seconds_of_this_session": round(time.perf_counter() - started, 1),
        "patterns_seen": patterns_seen,
        **evaluate(task, model),
        "learning": learning or [],
    }
    text = json.dumps(report, indent=2, ensure_ascii=False)
    (model / "report.json").write_text(text + "\n", encoding="utf-8")
    return report


def _patterns_in_epoch(recipe: TrainRecipe, fixed: tuple[Tensor, Tensor] | None) -> int:
    return len(fixed[0]) if fixed else _steps(recipe) * recipe.batch


def _steps(recipe: TrainRecipe) -> int:
    """Batches per epoch of a stream."""
    return max(recipe.patterns_per_epoch // recipe.batch, 1)


def _fixed_set(task: Task) -> tuple[Tensor, Tensor]:
    """The paper's S set as inputs and labels."""
    patterns, labels, measured = paper_s_set(
        task.library, task.grid.wavelength, derived_seed(task.seed, TRAINING), task.recipe.mixtures
    )
    if task.grid.start < measured.start or task.grid.stop > measured.stop:
        raise InputError(
            f"the S set covers {measured.start:g}-{measured.stop:g} degrees, the grid "
            f"{task.grid.start:g}-{task.grid.stop:g}; use a grid inside of it."
        )
    onto = task.grid.two_theta
    patterns = np.stack([np.interp(onto, measured.two_theta, row) for row in patterns])
    views = build_channels(task.recipe.channels, patterns, np.ones_like(patterns))
    if task.recipe.labelled_patterns:
        measured_views, measured_labels = _labelled(task)
        views = np.concatenate([views, measured_views])
        labels = np.concatenate([labels, measured_labels])
    return torch.from_numpy(views), torch.from_numpy(labels)


def _labelled(task: Task) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """The labelled patterns of hybrid training, chosen by the seed."""
    number = task.recipe.labelled_patterns
    there = 0 if task.labelled is None else len(task.labelled.presence)
    if task.labelled is None or there < number:
        raise InputError(
            f"the recipe adds {number} labelled patterns, {there} are there; give more with "
            "--labelled and --truth."
        )
    random = np.random.default_rng(derived_seed(task.seed, TRAINING, number))
    chosen = random.permutation(there)[:number]
    views = build_channels(
        task.recipe.channels,
        task.labelled.intensity[chosen],
        task.labelled.coverage[chosen],
        task.labelled.spottiness[chosen],
    )
    return views, task.labelled.presence[chosen]


def _train_member(
    task: Task,
    member: int,
    folder: Path,
    fixed: tuple[Tensor, Tensor] | None,
    checks: tuple[Batch, ...],
    progress: Progress,
) -> tuple[Network, Course]:
    """Train one network from its last checkpoint, or from the start."""
    recipe = task.recipe
    torch.manual_seed(derived_seed(task.seed, WEIGHTS, member))
    answers = len(task.library) + recipe.unknown
    network = make_network(recipe.network, len(recipe.channels), answers, task.grid.size)
    if task.start is not None:
        network.load_state_dict(_first_weights(task.start, member))
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    optimizer = kind(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    checkpoint = folder / f"checkpoint-{member}.safetensors"
    course = Course(recipe, checks, lambda odds, labels: _loss(recipe, odds, labels))
    if checkpoint.is_file():
        load_checkpoint(checkpoint, network, optimizer, course)
    done = course.done
    progress.advance(done)
    steps = len(list(_fixed_places(fixed, recipe))) if fixed else _steps(recipe)
    feed = _feed(task, member, fixed, done, steps)
    network.train()
    began = time.perf_counter()
    while course.done < course.last:
        epoch = course.done
        torch.manual_seed(derived_seed(task.seed, TRAINING, member, epoch))
        noise = torch.Generator().manual_seed(derived_seed(task.seed, TRAINING, member, epoch, 1))
        total = 0.0
        for step in range(steps):
            views, labels = next(feed)
            rate = course.learning_rate(step, steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            views = add_noise(views, recipe.noise, noise)
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bfloat16"):
                odds = network.log_odds(views)
            loss = _loss(recipe, odds.float(), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += float(loss.detach())
        if not math.isfinite(total):
            raise EnvironmentProblemError(
                f"training diverged in epoch {epoch + 1} (loss {total}); lower learning_rate."
            )
        course.follow(total / steps, network)
        left = course.last - course.done + (recipe.members - member - 1) * recipe.epochs
        minutes = left * (time.perf_counter() - began) / (course.done - done) / 60
        progress.note(f"member {member} {course.line()}, {minutes:.1f} min left")
        progress.advance(1)
        if course.done == course.last or course.done % recipe.checkpoint_every == 0:
            save_checkpoint(checkpoint, network, optimizer, course)
    progress.advance(recipe.epochs - course.done)
    course.settle(network)
    return network.eval(), course


def _first_weights(folder: Path, member: int) -> dict[str, Tensor]:
    """Weights of a model's member; further members than it has begin with its first ones again."""
    files = read_card(folder).weights
    path = folder / files[member % len(files)].file
    return {key: value.float() for key, value in load_file(path).items()}


def _loss(recipe: TrainRecipe, odds: Tensor, labels: Tensor) -> Tensor:
    if recipe.loss == "bce":
        return binary_cross_entropy(odds, labels)
    return multitask_cross_entropy(odds, labels, recipe.class_weights)


def _fixed_places(fixed: tuple[Tensor, Tensor], recipe: TrainRecipe) -> Iterator[tuple[int, int]]:
    """First and last place of each batch of a fixed set."""
    size = len(fixed[0])
    for start in range(0, size, recipe.batch):
        yield start, min(start + recipe.batch, size)


def _feed(
    task: Task, member: int, fixed: tuple[Tensor, Tensor] | None, done: int, steps: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and labels, batch after batch, from epoch ``done`` on."""
    recipe = task.recipe
    if fixed is None:
        yield from batches(
            task.stream(TRAINING, member),
            recipe.channels,
            recipe.masked_share,
            done * steps,
            recipe.epochs * steps,
            recipe.batch,
            recipe.workers,
            recipe.spottiness_share,
            recipe.unknown,
        )
        return
    for epoch in range(done, recipe.epochs):
        shuffle = np.random.default_rng(derived_seed(task.seed, TRAINING, member, epoch, 2))
        order = torch.from_numpy(shuffle.permutation(len(fixed[0])))
        for start, stop in _fixed_places(fixed, recipe):
            place = order[start:stop]
            yield fixed[0][place], fixed[1][place]


def save_checkpoint(
    path: Path, network: Network, optimizer: torch.optim.Optimizer, course: Course
) -> None:
    """Write weights, optimiser state and the course so far as one safetensors file."""
    tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
    tensors |= {f"best.{key}": value for key, value in course.best.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{index}.{key}": value for key, value in state.items()})
    temporary = path.with_suffix(".tmp")
    save_file(
        {k: v.contiguous() for k, v in tensors.items()},
        temporary,
        {"curve": course.curve.as_json()},
    )
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.replace(path)


def load_checkpoint(
    path: Path, network: Network, optimizer: torch.optim.Optimizer, course: Course
) -> None:
    """Restore what :func:`save_checkpoint` wrote."""
    with safe_open(path, "pt") as stream:
        course.curve = Curve.from_json(stream.metadata()["curve"])
    tensors = load_file(path)

    def under(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    network.load_state_dict(under("network."))
    course.best = under("best.")
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in under("optimizer.").items():
        index, entry = key.split(".", 1)
        state.setdefault(int(index), {})[entry] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _write_model(
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
        odds = _log_odds(network, recipe.channels, held_out)
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
        _unknown(np.mean(scores, axis=0), held_out) if recipe.unknown else None,
    )


def _unknown(score: FloatArray, held_out: Chosen) -> Unknown:
    """The threshold that few held-out patterns without an unknown phase reach."""
    return Unknown(float(np.quantile(score[held_out.foreign == 0], 1 - FALSE_ALARMS)), FALSE_ALARMS)


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


def _log_odds(network: Network, channels: tuple[str, ...], batch: Chosen) -> NDArray[np.float64]:
    """Raw log-odds of a batch, shape (N, K)."""
    odds = []
    with torch.inference_mode():
        for row in range(0, len(batch.intensity), BLOCK):
            part = slice(row, row + BLOCK)
            views = build_channels(
                channels, batch.intensity[part], batch.coverage[part], batch.spottiness[part]
            )
            odds.append(network.log_odds(torch.from_numpy(views)).numpy())
    return np.concatenate(odds).astype(np.float64)


def calibrate(log_odds: FloatArray, labels: IntArray) -> tuple[float, tuple[float, ...]]:
    """Temperature and biases that make log-odds/T + b calibrated at a prior of 0.5 per phase.

    Minimises the cross-entropy with present and absent patterns of each phase weighted to equal
    shares (temperature scaling: Guo et al., ICML 2017).

    Parameters
    ----------
    log_odds
        Shape (N, K), on patterns that were not trained on.
    labels
        Shape (N, K): 1, 0, or −1 for not judged.
    """
    present, absent = (labels == 1).sum(axis=0), (labels == 0).sum(axis=0)
    usable = (present > 0) & (absent > 0)
    share = np.where(labels == 1, 0.5 / np.maximum(present, 1), 0.5 / np.maximum(absent, 1))
    share = np.where((labels >= 0) & usable, share, 0)
    sign = np.where(labels == 1, 1.0, -1.0)

    def misfit(numbers: FloatArray) -> float:
        odds = log_odds * np.exp(-numbers[0]) + numbers[1:]
        # A weak pull to T = 1, b = 0 keeps a hopeless model from running away.
        return float(np.sum(share * np.logaddexp(0, -sign * odds)) + 1e-4 * np.sum(numbers**2))

    count = log_odds.shape[1]
    bounds = [(-3.0, 3.0)] + [(-10.0, 10.0)] * count
    fit = minimize(misfit, np.zeros(count + 1), method="L-BFGS-B", bounds=bounds)
    return float(np.exp(fit.x[0])), tuple(float(value) for value in fit.x[1:])


def evaluate(task: Task, model_folder: Path) -> dict[str, Any]:
    """Scores of a written model on held-out synthetic patterns, beside prevalence.

    Patterns whose phase is below the detection limit are left out of the scores of that phase and
    counted apart. The calibration error is taken after shifting the prior to the prevalence.
    """
    model = load_model(model_folder, "cpu")
    recipe = task.recipe
    judged = draw_judged(task.stream(REPORT), recipe)
    batch = judged.batch
    probability, _, unknown = model.predict(batch.intensity, batch.coverage, batch.spottiness)
    rows = {
        "all": np.ones(len(batch.masked), dtype=bool),
        "masked": batch.masked,
        "unmasked": ~batch.masked,
    }
    scores = {
        label: {
            phase: _scores(batch.presence[chosen, index], probability[chosen, index])
            for index, phase in enumerate(task.library.names)
        }
        for label, chosen in rows.items()
    }
    known = (batch.presence >= 0).all(axis=1)
    exact = ((probability >= 0.5) == (batch.presence == 1)).all(axis=1)[known].mean()
    return {
        "held_out_patterns": len(batch.masked),
        "exact_match": float(exact) if known.any() else None,
        "scores": scores,
        "unknown": {
            label: _scores(batch.foreign[chosen], unknown[chosen]) for label, chosen in rows.items()
        }
        if model.card.unknown is not None
        else None,
        **performance(model, judged, probability),
    }


def _scores(label: IntArray, probability: FloatArray) -> dict[str, float | int | None]:
    judged = label >= 0
    truth, said = label[judged] == 1, probability[judged].astype(float)
    prevalence = float(truth.mean()) if truth.size else float("nan")
    if 0 < prevalence < 1:
        shifted = prior_shift(said[:, None], [0.5], [prevalence])[:, 0].astype(float)
    else:
        shifted = said
    decision = said >= 0.5
    faint = label == -1
    scores = {
        "patterns": int(judged.sum()),
        "prevalence": prevalence,
        "accuracy": _mean(decision == truth),
        "true_positive_rate": _mean(decision[truth]),
        "true_negative_rate": _mean(~decision[~truth]),
        "auroc": auroc(truth, said),
        "ece": expected_calibration_error(truth, shifted),
        "brier": brier(truth, shifted),
        "below_detection_limit": int(faint.sum()),
        "found_below_detection_limit": _mean(probability[faint] >= 0.5),
    }
    return {key: round(value, 5) if math.isfinite(value) else None for key, value in scores.items()}


def _mean(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if values.size else float("nan")
