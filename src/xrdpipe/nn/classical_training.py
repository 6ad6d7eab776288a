"""The decision of a classical method, learned from synthetic patterns, as a model folder."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from xrdpipe.classical.decision import fit_decision, log_odds
from xrdpipe.classical.methods import Method, make_method
from xrdpipe.errors import OptionError
from xrdpipe.nn.calibration import calibrate
from xrdpipe.nn.held_out_scores import write_report
from xrdpipe.nn.inference import BLOCK, COEFFICIENTS
from xrdpipe.nn.model_folder import WeightsEntry, file_sha256
from xrdpipe.nn.model_writing import write_phases_and_card
from xrdpipe.nn.stream import draw_chosen
from xrdpipe.nn.task import CALIBRATION, TRAINING, Task
from xrdpipe.types import IntArray, Progress

WEIGHTS = "weights-0.safetensors"


def train_classical(
    task: Task, folder: Path, name: str, progress: Progress, notes: str = ""
) -> dict[str, Any]:
    """Learn the decision of a classical method and write its model folder.

    The decision is fitted on one stream, calibrated on a second and reported on a third; the
    seed of the task names them.

    Parameters and result are those of :func:`xrdpipe.nn.training.train`.

    Raises
    ------
    OptionError
        The recipe wants other patterns than a stream, or more than one member.
    """
    started = time.perf_counter()
    recipe = task.recipe
    if recipe.data == "s-set" or recipe.members != 1:
        raise OptionError(
            f"network '{recipe.network}' is a classical method: it needs data 'stream' and one "
            f"member; the recipe has data '{recipe.data}' and {recipe.members} members."
        )
    method = make_method(recipe.network, task.library, task.grid)
    number = recipe.epochs * recipe.patterns_per_epoch
    progress.start("patterns", number + recipe.held_out)
    coefficients = fit_decision(*_seen(task, method, TRAINING, number, progress))
    features, labels = _seen(task, method, CALIBRATION, recipe.held_out, progress)
    temperature, bias = calibrate(log_odds(features, coefficients), labels)
    # Folded in, so that log-odds of 0 stay what they mean: nothing is known.
    coefficients = coefficients / temperature
    coefficients[:, 0] += bias
    progress.done()
    model = folder / "model"
    shutil.rmtree(model, ignore_errors=True)
    _write_model(task, coefficients, model, name, notes)
    return write_report(task, model, name, started, number)


def _seen(
    task: Task, method: Method, use: int, number: int, progress: Progress
) -> tuple[NDArray[np.float64], IntArray]:
    """Features (N, K, F) and labels (N, K) of the first patterns of a stream."""
    features, labels = [], []
    for first in range(0, number, BLOCK):
        count = min(BLOCK, number - first)
        batch = draw_chosen(task.stream(use), first, count, task.recipe.masked_share)
        features.append(method.scores(batch.intensity, batch.coverage))
        labels.append(batch.presence)
        progress.advance(count)
    return np.concatenate(features), np.concatenate(labels)


def _write_model(
    task: Task, coefficients: NDArray[np.float64], folder: Path, name: str, notes: str
) -> None:
    """Write decision, phases and card."""
    folder.mkdir(parents=True)
    save_file({COEFFICIENTS: torch.from_numpy(coefficients)}, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # safetensors writes files that only their owner can read
    none = (0.0,) * len(task.library)
    write_phases_and_card(
        task,
        folder,
        name,
        (WeightsEntry(WEIGHTS, file_sha256(folder / WEIGHTS), 1.0, none),),
        (),
        "None: a classical method on bins weighted by the noise of the pattern itself; bins "
        "without data do not count.",
        notes or f"Classical method '{task.recipe.network}', no network; see docs/classical.md.",
    )
