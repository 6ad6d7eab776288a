"""Training: synthetic patterns to a model folder, resumable at every checkpoint.

Random numbers restart from
(seed, member, epoch) at every epoch, so a resumed run equals an uninterrupted one.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from xrdpipe.channels import build_channels
from xrdpipe.errors import EnvironmentProblemError, InputError
from xrdpipe.nn.checkpoints import load_checkpoint, save_checkpoint
from xrdpipe.nn.held_out_scores import write_report
from xrdpipe.nn.literature_sets import paper_s_set
from xrdpipe.nn.losses import add_noise, binary_cross_entropy, multitask_cross_entropy
from xrdpipe.nn.memory import keep_memory
from xrdpipe.nn.model_folder import (
    read_card,
)
from xrdpipe.nn.model_writing import write_model
from xrdpipe.nn.networks import Network, make_network
from xrdpipe.nn.stream import batches, draw_chosen
from xrdpipe.nn.task import CALIBRATION, TRAINING, VALIDATION, WEIGHTS, Task, derived_seed
from xrdpipe.nn.train_recipe import TrainRecipe
from xrdpipe.nn.validation import Batch, Course, curves_as_table, draw_held_out
from xrdpipe.types import Progress


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
    write_model(task, networks, held_out, model, name, notes)
    epochs = sum(course.done for course in courses)
    seen = epochs * _patterns_in_epoch(recipe, fixed)
    return write_report(task, model, name, started, seen, curves_as_table(courses))


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
