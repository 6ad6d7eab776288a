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
from dataclasses import asdict, dataclass
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
from xrdpipe.nn.inference import BLOCK, load_model, prior_shift
from xrdpipe.nn.literature_sets import paper_s_set
from xrdpipe.nn.losses import add_noise, binary_cross_entropy, multitask_cross_entropy
from xrdpipe.nn.model_folder import (
    ModelCard,
    PhaseEntry,
    WeightsEntry,
    file_sha256,
    write_card,
)
from xrdpipe.nn.networks import Network, make_network
from xrdpipe.nn.patterns import Chosen
from xrdpipe.nn.stream import Stream, batches, draw_chosen
from xrdpipe.nn.train_recipe import TrainRecipe
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.types import FloatArray, Grid, IntArray, Labelled, Phase, PhaseLibrary, Progress

TRAINING, CALIBRATION, REPORT, WEIGHTS = range(4)
"""Uses of random numbers; each has its own stream."""

LINES_APART = 0.05
"""Lines nearer than this, in degrees, count as one when the strongest are listed."""

WARM_UP = 0.1
"""Part of a one-cycle schedule in which the learning rate rises."""


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
    """

    library: PhaseLibrary
    distractors: tuple[Phase, ...]
    grid: Grid
    recipe: TrainRecipe
    synthesis: Recipe
    seed: int
    labelled: Labelled | None = None

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
    fixed = _fixed_set(task) if recipe.data == "s-set" else None
    progress.start("training", recipe.epochs * recipe.members)
    networks = [
        _train_member(task, member, folder, fixed, progress) for member in range(recipe.members)
    ]
    progress.done()
    progress.note("calibrating on held-out synthetic patterns")
    held_out = draw_chosen(
        task.stream(CALIBRATION), 0, recipe.held_out, recipe.masked_share, recipe.spottiness_share
    )
    model = folder / "model"
    shutil.rmtree(model, ignore_errors=True)
    _write_model(task, networks, held_out, model, name, notes)
    return write_report(task, model, name, started, _patterns_seen(task))


def write_report(
    task: Task, model: Path, name: str, started: float, patterns_seen: int
) -> dict[str, Any]:
    """Score a model folder on held-out patterns and write ``report.json`` into it.

    Parameters
    ----------
    task, model, name
        What was trained, where it lies, and its name.
    started
        ``time.perf_counter()`` at the start.
    patterns_seen
        Patterns that training saw.
    """
    report = {
        "name": name,
        "seed": task.seed,
        "seconds_of_this_session": round(time.perf_counter() - started, 1),
        "patterns_seen": patterns_seen,
        **evaluate(task, model),
    }
    text = json.dumps(report, indent=2, ensure_ascii=False)
    (model / "report.json").write_text(text + "\n", encoding="utf-8")
    return report


def _patterns_seen(task: Task) -> int:
    if task.recipe.data == "s-set":
        return len(_fixed_labels(task)) * task.recipe.epochs
    return task.recipe.epochs * _steps(task.recipe) * task.recipe.batch


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


def _fixed_labels(task: Task) -> Tensor:
    return _fixed_set(task)[1]


def _train_member(
    task: Task,
    member: int,
    folder: Path,
    fixed: tuple[Tensor, Tensor] | None,
    progress: Progress,
) -> Network:
    """Train one network from its last checkpoint, or from the start."""
    recipe = task.recipe
    torch.manual_seed(derived_seed(task.seed, WEIGHTS, member))
    network = make_network(recipe.network, len(recipe.channels), len(task.library), task.grid.size)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    optimizer = kind(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    checkpoint = folder / f"checkpoint-{member}.safetensors"
    done = load_checkpoint(checkpoint, network, optimizer) if checkpoint.is_file() else 0
    progress.advance(done)
    steps = len(list(_fixed_places(fixed, recipe))) if fixed else _steps(recipe)
    feed = _feed(task, member, fixed, done, steps)
    network.train()
    for epoch in range(done, recipe.epochs):
        torch.manual_seed(derived_seed(task.seed, TRAINING, member, epoch))
        noise = torch.Generator().manual_seed(derived_seed(task.seed, TRAINING, member, epoch, 1))
        total = 0.0
        for step in range(steps):
            views, labels = next(feed)
            rate = _learning_rate(recipe, epoch * steps + step, recipe.epochs * steps)
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
        progress.note(f"member {member} epoch {epoch + 1} loss {total / steps:.4f}")
        progress.advance(1)
        last = epoch + 1 == recipe.epochs
        if last or (epoch + 1) % recipe.checkpoint_every == 0:
            save_checkpoint(checkpoint, network, optimizer, epoch + 1)
    return network.eval()


def _loss(recipe: TrainRecipe, odds: Tensor, labels: Tensor) -> Tensor:
    if recipe.loss == "bce":
        return binary_cross_entropy(odds, labels)
    return multitask_cross_entropy(odds, labels, recipe.class_weights)


def _learning_rate(recipe: TrainRecipe, step: int, steps: int) -> float:
    """Constant, or linear rise over a tenth and a cosine to zero."""
    if recipe.schedule == "constant":
        return recipe.learning_rate
    rise = max(int(WARM_UP * steps), 1)
    if step < rise:
        return recipe.learning_rate * (step + 1) / rise
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / (steps - rise)))


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
        )
        return
    for epoch in range(done, recipe.epochs):
        shuffle = np.random.default_rng(derived_seed(task.seed, TRAINING, member, epoch, 2))
        order = torch.from_numpy(shuffle.permutation(len(fixed[0])))
        for start, stop in _fixed_places(fixed, recipe):
            place = order[start:stop]
            yield fixed[0][place], fixed[1][place]


def save_checkpoint(
    path: Path, network: Network, optimizer: torch.optim.Optimizer, epochs: int
) -> None:
    """Write weights, optimiser state and the number of finished epochs as one safetensors file."""
    tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{index}.{key}": value for key, value in state.items()})
    temporary = path.with_suffix(".tmp")
    save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, {"epochs": str(epochs)})
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.replace(path)


def load_checkpoint(path: Path, network: Network, optimizer: torch.optim.Optimizer) -> int:
    """Restore what :func:`save_checkpoint` wrote; returns the number of finished epochs."""
    with safe_open(path, "pt") as stream:
        epochs = int(stream.metadata()["epochs"])
    tensors = load_file(path)
    network.load_state_dict(
        {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
    )
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, entry = key.split(".", 2)
            state.setdefault(int(index), {})[entry] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return epochs


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
    weights = []
    for member, network in enumerate(networks):
        file = f"weights-{member}.safetensors"
        stored = {k: v.to(precision).contiguous() for k, v in network.state_dict().items()}
        save_file(stored, folder / file)
        (folder / file).chmod(0o644)  # safetensors writes files that only their owner can read
        # Calibrate what will be loaded, not what was trained.
        network.load_state_dict({k: v.float() for k, v in stored.items()})
        odds = _log_odds(network, recipe.channels, held_out)
        temperature, bias = calibrate(odds, held_out.presence)
        weights.append(WeightsEntry(file, file_sha256(folder / file), temperature, bias))
    write_phases_and_card(
        task,
        folder,
        name,
        tuple(weights),
        recipe.channels,
        "Each channel of xrdpipe.channels normalises itself, per pattern and ignoring NaN; "
        "gaps are filled linearly and ends by the nearest value before.",
        notes,
    )


def write_phases_and_card(
    task: Task,
    folder: Path,
    name: str,
    weights: tuple[WeightsEntry, ...],
    channels: tuple[str, ...],
    normalisation: str,
    notes: str,
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
    batch = draw_chosen(
        task.stream(REPORT), 0, recipe.held_out, recipe.masked_share, recipe.spottiness_share
    )
    probability, _ = model.predict(batch.intensity, batch.coverage, batch.spottiness)
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
    judged = (batch.presence >= 0).all(axis=1)
    exact = ((probability >= 0.5) == (batch.presence == 1)).all(axis=1)[judged].mean()
    return {
        "held_out_patterns": len(batch.masked),
        "exact_match": float(exact) if judged.any() else None,
        "scores": scores,
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
