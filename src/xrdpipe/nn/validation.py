"""How a training goes: loss on held-out patterns, learning rate, early stopping, best weights.

Held-out patterns come from a stream of their own and are the same for every check and every
member. Checks draw no random number, so that a training with them has the weights of one without.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from xrdpipe.nn.networks import Network
from xrdpipe.nn.stream import BLOCK, Stream, draw_block, views_of
from xrdpipe.nn.train_recipe import TrainRecipe

WARM_UP = 0.1
"""Part of a one-cycle schedule in which the learning rate rises."""

COOL_DOWN = 0.2
"""Part of the planned epochs in which a stopped one-cycle schedule ends."""

SMALLEST_GAIN = 0.002
"""A held-out loss counts as better if it is lower by this part: on an endless stream noise alone
makes a new minimum now and then."""

MOST_PATTERNS = 1024
"""Held-out patterns of a check: enough for half a point of accuracy, and cheap beside an epoch."""

Batch = tuple[Tensor, Tensor]
"""Inputs (N, C, n) and labels (N, K), or (N, K + 1) with an unknown score."""


def draw_held_out(stream: Stream, recipe: TrainRecipe) -> tuple[Batch, ...]:
    """The held-out patterns of every check, in blocks; none if the recipe never checks."""
    if not recipe.validate_every:
        return ()
    number = min(recipe.held_out, MOST_PATTERNS)
    return tuple(
        views_of(
            draw_block(stream, first, min(BLOCK, number - first)).as_tensors(),
            recipe.channels,
            recipe.masked_share,
            recipe.spottiness_share,
            recipe.unknown,
        )
        for first in range(0, number, BLOCK)
    )


def held_out_scores(
    network: Network,
    held_out: tuple[Batch, ...],
    loss: Callable[[Tensor, Tensor], Tensor],
) -> tuple[float, float]:
    """Mean loss and accuracy of a network on held-out patterns, in float32."""
    total, right, judged, patterns = 0.0, 0, 0, 0
    network.eval()
    with torch.inference_mode():
        for views, labels in held_out:
            odds = network.log_odds(views).float()
            total += float(loss(odds, labels)) * len(views)
            patterns += len(views)
            known = labels >= 0
            right += int((((odds > 0) == (labels == 1)) & known).sum())
            judged += int(known.sum())
    network.train()
    return total / patterns, right / max(judged, 1)


@dataclass
class Curve:
    """What is known of the training of one member so far.

    Parameters
    ----------
    training_loss
        Mean of every finished epoch.
    checked
        Number of finished epochs at every check.
    held_out_loss, held_out_accuracy
        At every check; the accuracy is that of all judged labels, before calibration.
    stopped
        Number of finished epochs when there was no more gain; None = not yet.
    chosen
        Number of finished epochs of the weights that are kept; None = the last.
    """

    training_loss: list[float] = field(default_factory=list)
    checked: list[int] = field(default_factory=list)
    held_out_loss: list[float] = field(default_factory=list)
    held_out_accuracy: list[float] = field(default_factory=list)
    stopped: int | None = None
    chosen: int | None = None

    def as_json(self) -> str:
        """Text from which :meth:`from_json` makes the same curve, to the last bit."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Curve:
        """Read :meth:`as_json`."""
        return cls(**json.loads(text))


class Course:
    """The course of one member's training: its curve, its learning rate, its end, its best weights.

    Without ``patience`` every planned epoch is trained and the last weights are kept; checks only
    watch. With it, ``patience`` checks in a row without a gain end the training. A constant
    learning rate ends at once. A one-cycle schedule is meant to end at a rate of zero, and much of
    the gain comes while it falls: it goes on to zero, in a fifth of the planned epochs instead of
    all that are left. Of the weights at the checks those with the lowest held-out loss are kept.

    Parameters
    ----------
    recipe
        How to train.
    held_out
        From :func:`draw_held_out`.
    loss
        Of log-odds and labels, as in training.
    """

    def __init__(
        self,
        recipe: TrainRecipe,
        held_out: tuple[Batch, ...],
        loss: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        self.recipe = recipe
        self.held_out = held_out
        self.loss = loss
        self.curve = Curve()
        self.best: dict[str, Tensor] = {}

    @property
    def done(self) -> int:
        """Finished epochs."""
        return len(self.curve.training_loss)

    @property
    def last(self) -> int:
        """Epochs after which training ends, as far as is known."""
        planned, stopped = self.recipe.epochs, self.curve.stopped
        if stopped is None:
            return planned
        return min(planned, stopped + self._cool_down())

    def _cool_down(self) -> int:
        if self.recipe.schedule == "constant":
            return 0
        return max(round(COOL_DOWN * self.recipe.epochs), 1)

    def learning_rate(self, step: int, steps: int) -> float:
        """Of the next batch.

        Constant, or a linear rise over a tenth and a cosine to zero; once stopped, a cosine from
        the rate of that moment to zero.

        Parameters
        ----------
        step, steps
            Number of the batch in its epoch, and batches per epoch.
        """
        stopped = self.curve.stopped
        now = self.done * steps + step
        if stopped is None or self.recipe.schedule == "constant":
            return self._planned_rate(now, steps)
        start, end = stopped * steps, self.last * steps
        return self._planned_rate(start, steps) * _falling(now - start, end - start)

    def _planned_rate(self, now: int, steps: int) -> float:
        if self.recipe.schedule == "constant":
            return self.recipe.learning_rate
        total = self.recipe.epochs * steps
        rise = max(int(WARM_UP * total), 1)
        if now < rise:
            return self.recipe.learning_rate * (now + 1) / rise
        return self.recipe.learning_rate * _falling(now - rise, total - rise)

    def follow(self, training_loss: float, network: Network) -> None:
        """Take note of a finished epoch, and check the network if it is time."""
        curve, recipe = self.curve, self.recipe
        curve.training_loss.append(training_loss)
        if not self.held_out or (self.done % recipe.validate_every and self.done < self.last):
            return
        loss, accuracy = held_out_scores(network, self.held_out, self.loss)
        if recipe.patience and loss <= min(curve.held_out_loss, default=math.inf):
            curve.chosen = self.done
            self.best = {key: value.clone() for key, value in network.state_dict().items()}
        curve.checked.append(self.done)
        curve.held_out_loss.append(loss)
        curve.held_out_accuracy.append(accuracy)
        rising = recipe.schedule == "one-cycle" and self.done <= WARM_UP * recipe.epochs
        if recipe.patience and curve.stopped is None and not rising and self._stagnant():
            curve.stopped = self.done

    def _stagnant(self) -> bool:
        """True if the last ``patience`` checks brought no gain."""
        losses, recent = self.curve.held_out_loss, self.recipe.patience
        if len(losses) <= recent:
            return False
        return min(losses[-recent:]) > min(losses[:-recent]) * (1 - SMALLEST_GAIN)

    def settle(self, network: Network) -> None:
        """Give the network the weights that are kept."""
        if self.best:
            network.load_state_dict(self.best)

    def line(self) -> str:
        """Where the training is, in a few words."""
        curve = self.curve
        words = f"epoch {self.done}/{self.last} loss {curve.training_loss[-1]:.4f}"
        if curve.checked and curve.checked[-1] == self.done:
            words += (
                f" held-out loss {curve.held_out_loss[-1]:.4f}"
                f" accuracy {100 * curve.held_out_accuracy[-1]:.1f} %"
            )
        if curve.stopped == self.done and self.last < self.recipe.epochs:
            ends = "ends" if self.last == self.done else f"comes to its end in epoch {self.last}"
            words += f"; no gain in {self.recipe.patience} checks: training {ends}"
        return words


def _falling(now: int, steps: int) -> float:
    """A cosine from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * now / max(steps, 1)))


def curves_as_table(courses: list[Course]) -> list[dict[str, Any]]:
    """Learning curves of all members, for a report."""
    return [{"member": number} | asdict(course.curve) for number, course in enumerate(courses)]
