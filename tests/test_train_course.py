"""The course of a training: learning rate, held-out checks, early stopping, resuming all of it."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from xrdpipe.crystal import load_phase
from xrdpipe.errors import OptionError
from xrdpipe.nn import training, validation
from xrdpipe.nn.task import Task
from xrdpipe.nn.train_recipe import TrainRecipe
from xrdpipe.nn.training import train
from xrdpipe.nn.validation import Course, Curve, held_out_scores
from xrdpipe.phases import shipped_phases
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.types import Grid, PhaseLibrary, Progress

GRID = Grid(6, 16, 0.05, 0.4959)
QUICK = TrainRecipe(
    epochs=3, patterns_per_epoch=32, batch=16, held_out=48, workers=0, precision="float32"
)
STEPS = 10


@pytest.fixture(scope="module")
def library():
    return PhaseLibrary((load_phase(shipped_phases()["calcite"]),))


class Weights(torch.nn.Module):
    """One number that is its own log-odds; settles which weights were kept."""

    def __init__(self):
        super().__init__()
        self.number = torch.nn.Parameter(torch.zeros(1))

    def log_odds(self, views):
        return self.number * views[:, :1, 0]


def followed(recipe, losses, monkeypatch):
    """A course whose held-out losses are given; the weight in epoch n is n."""
    given = iter(losses)
    monkeypatch.setattr(validation, "held_out_scores", lambda *_: (next(given), 0.5))
    course = Course(recipe, ((torch.zeros(1), torch.zeros(1)),), lambda odds, labels: odds.sum())
    network = Weights()
    rates = []
    while course.done < course.last:
        rates += [course.learning_rate(step, STEPS) for step in range(STEPS)]
        torch.nn.init.constant_(network.number, course.done + 1)
        course.follow(1.0, network)
    course.settle(network)
    return course, network.number.item(), rates


def test_without_a_stop_the_schedule_is_a_rise_and_a_cosine(monkeypatch):
    recipe = replace(QUICK, epochs=20, patience=3, learning_rate=0.5)
    falling = [1 / (n + 1) for n in range(20)]
    course, weight, rates = followed(recipe, falling, monkeypatch)
    assert (course.curve.stopped, course.done, weight) == (None, 20, 20)
    assert rates[0] == pytest.approx(0.5 / 20)
    assert rates[19] == pytest.approx(0.5)
    assert rates[110] == pytest.approx(0.25, abs=1e-6)  # halfway down the cosine
    assert rates[-1] < 1e-3 * 0.5


def test_no_gain_brings_a_one_cycle_schedule_to_its_end_early(monkeypatch):
    recipe = replace(QUICK, epochs=20, patience=3, learning_rate=0.5)
    # The best of the first part is in epoch 4; three checks without a gain end in epoch 7.
    losses = [1.0, 0.9, 0.8, 0.5, 0.6, 0.6, 0.4999, 0.45, 0.40, 0.35, 0.36]
    course, weight, rates = followed(recipe, losses, monkeypatch)
    assert course.curve.stopped == 7
    assert course.done == course.last == 11  # a fifth of 20 epochs later
    assert (course.curve.chosen, weight) == (10, 10)
    planned = followed(replace(recipe, patience=0), [1.0] * 20, monkeypatch)[2]
    assert rates[:70] == planned[:70]
    assert rates[70] == pytest.approx(planned[70])  # no jump
    assert all(late < early for early, late in pairwise(rates[70:]))
    assert rates[-1] < 0.01 * rates[70]


def test_a_constant_rate_ends_at_once_and_keeps_the_best(monkeypatch):
    recipe = replace(QUICK, epochs=20, patience=2, schedule="constant", learning_rate=0.5)
    course, weight, rates = followed(recipe, [0.5, 0.4, 0.45, 0.41], monkeypatch)
    assert (course.done, course.curve.stopped, weight) == (4, 4, 2)
    assert set(rates) == {0.5}
    assert "no gain in 2 checks" in course.line()


def test_without_patience_checks_only_watch(monkeypatch):
    recipe = replace(QUICK, epochs=6, patience=0, validate_every=4)
    course, weight, _ = followed(recipe, [0.1, 0.9], monkeypatch)
    assert course.curve.checked == [4, 6]  # and always after the last
    assert (course.done, weight, course.curve.chosen) == (6, 6, None)


def test_nothing_stops_while_the_rate_rises(monkeypatch):
    recipe = replace(QUICK, epochs=40, patience=1)
    course, _, _ = followed(recipe, [1.0] * 40, monkeypatch)
    assert course.curve.stopped == 5  # the rise takes the first four


def test_held_out_scores_have_known_answers():
    network = Weights()
    torch.nn.init.constant_(network.number, 1.0)
    views = torch.tensor([2.0, -2.0, 2.0, -2.0])[:, None, None]
    labels = torch.tensor([[1], [0], [0], [-1]], dtype=torch.int8)
    loss, accuracy = held_out_scores(
        network, ((views[:3], labels[:3]), (views[3:], labels[3:])), lambda odds, _: odds.sum()
    )
    assert accuracy == pytest.approx(2 / 3)  # -1 is not judged
    assert loss == pytest.approx((2 * 3 - 2 * 1) / 4)
    assert network.training


def test_a_curve_survives_its_text():
    curve = Curve([0.1 + 0.2, 1 / 3], [2], [math.pi], [0.7], 1, 2)
    assert Curve.from_json(curve.as_json()) == curve


def test_checks_change_no_weight(tmp_path, library):
    """Dropout draws random numbers; a check must not."""
    bytes_of = []
    for name, every in (("with", 1), ("without", 0)):
        recipe = replace(QUICK, validate_every=every, patience=0)
        train(Task(library, (), GRID, recipe, Recipe(), 1), tmp_path / name, "x", Progress())
        bytes_of.append((tmp_path / name / "model" / "weights-0.safetensors").read_bytes())
    assert bytes_of[0] == bytes_of[1]


@pytest.mark.parametrize("interrupted", [2, 3, 5])
def test_a_stopped_training_resumes_to_the_same_bytes(tmp_path, library, monkeypatch, interrupted):
    """Interrupted before the stop, at it, and in the cool-down; the best weights included."""
    recipe = replace(QUICK, epochs=10, patience=2, learning_rate=1e-7)  # learns nothing
    task = Task(library, (), GRID, recipe, Recipe(), seed=1)
    whole = train(task, tmp_path / "whole", "x", Progress())
    assert whole["learning"][0]["stopped"] == 3
    assert len(whole["learning"][0]["training_loss"]) == 5
    assert whole["patterns_seen"] == 5 * 32

    class StopError(Exception):
        pass

    save = training.save_checkpoint

    def stop(path, network, optimizer, course):
        save(path, network, optimizer, course)
        if course.done == interrupted:
            raise StopError

    monkeypatch.setattr(training, "save_checkpoint", stop)
    with pytest.raises(StopError):
        train(task, tmp_path / "parts", "x", Progress())
    monkeypatch.setattr(training, "save_checkpoint", save)
    resumed = train(task, tmp_path / "parts", "x", Progress())
    for report in (whole, resumed):
        del report["seconds_of_this_session"]
    assert resumed == whole
    for name in ("model/weights-0.safetensors", "checkpoint-0.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_progress_tells_epoch_losses_and_time_left(tmp_path, library):
    said, counted = [], []
    progress = Progress(advance=counted.append, note=said.append)
    train(Task(library, (), GRID, QUICK, Recipe(), 1), tmp_path, "x", progress)
    assert said[0].startswith("member 0 epoch 1/3 loss 0.")
    assert "held-out loss 0." in said[0]
    assert said[0].endswith("min left")
    assert "0.0 min left" in said[2]
    assert sum(counted) == 3


def test_patience_needs_checks():
    with pytest.raises(OptionError, match="'patience' 3 needs checks"):
        TrainRecipe.from_mapping({"patience": 3, "validate_every": 0})
