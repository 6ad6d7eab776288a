"""The endless stream of synthetic patterns as a torch dataset, and as inputs of a network."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from xrdpipe.channels import build_channels
from xrdpipe.errors import EnvironmentProblemError
from xrdpipe.nn.literature_sets import draw_imperfect
from xrdpipe.nn.memory import keep_memory
from xrdpipe.nn.patterns import Chosen, Pairs, choose, draw_pairs
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.synthesis.scene import Generator, make_generator
from xrdpipe.types import Grid, Phase, PhaseLibrary

BLOCK = 256
"""Samples drawn at a time: enough for the overhead of a call to be small."""


@dataclass(frozen=True)
class Stream:
    """An endless, numbered series of synthetic patterns.

    Parameters
    ----------
    library, distractors
        Phases with a label, in class order, and phases mixed in without one.
    grid, recipe
        What is drawn, and how.
    seed
        Names the stream.
    kind
        ``physics``, or ``synthetic-crystals`` for the protocol of Schopmans et al. (2023).
    """

    library: PhaseLibrary
    distractors: tuple[Phase, ...]
    grid: Grid
    recipe: Recipe
    seed: int
    kind: str = "physics"


@functools.lru_cache(maxsize=4)
def prepared(stream: Stream) -> Generator:
    """The generator of a stream; kept, since every block needs it."""
    keep_memory()  # in every process that draws
    return make_generator(stream.library, stream.distractors, stream.grid, stream.recipe)


def draw_block(stream: Stream, first: int, number: int, device: str = "cpu") -> Pairs:
    """The samples first … first + number − 1 of a stream."""
    if stream.kind == "synthetic-crystals":
        return draw_imperfect(prepared(stream), first, number, stream.seed)
    return draw_pairs(prepared(stream), first, number, stream.seed, device)


class PatternStream(IterableDataset[dict[str, Tensor]]):
    """Batches of pairs of masked and unmasked patterns with all their targets.

    An item is a batch: the fields of :class:`~xrdpipe.nn.patterns.Pairs` and
    :class:`~xrdpipe.synthesis.scene.Targets` by name, as tensors. Sample i of a stream is the same
    for any number of workers, any batch size and any part of the stream; use it with
    ``DataLoader(stream, batch_size=None, num_workers=…)``, which keeps the order.

    Parameters
    ----------
    stream
        What is drawn.
    batch
        Samples per item.
    first, last
        Numbers of the first batch and of the one after the last; without ``last``, endless.
    device
        Where patterns are rendered; with workers it must be the processor.
    """

    def __init__(
        self,
        stream: Stream,
        batch: int,
        first: int = 0,
        last: int | None = None,
        device: str = "cpu",
    ) -> None:
        self.stream = stream
        self.batch = batch
        self.first = first
        self.last = last
        self.device = device

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        turn, of = (worker.id, worker.num_workers) if worker else (0, 1)
        number = self.first + turn
        while self.last is None or number < self.last:
            pairs = draw_block(self.stream, number * self.batch, self.batch, self.device)
            yield pairs.as_tensors()
            number += of


def draw_chosen(
    stream: Stream, first: int, number: int, masked_share: float, spottiness_share: float = 1.0
) -> Chosen:
    """One version of each of the samples first … first + number − 1."""
    parts = [
        choose(
            draw_block(stream, start, min(BLOCK, first + number - start)).as_tensors(),
            masked_share,
            spottiness_share,
        )
        for start in range(first, first + number, BLOCK)
    ]
    return Chosen.joined(parts)


def views_of(
    batch: dict[str, Tensor],
    channels: tuple[str, ...],
    masked_share: float,
    spottiness_share: float = 1.0,
    unknown: bool = False,
) -> tuple[Tensor, Tensor]:
    """Inputs (N, C, n) and labels (N, K) of a batch of a stream; K + 1 with ``unknown``."""
    chosen = choose(batch, masked_share, spottiness_share)
    views = build_channels(channels, chosen.intensity, chosen.coverage, chosen.spottiness)
    return torch.from_numpy(views), torch.from_numpy(chosen.labels(unknown))


def batches(
    stream: Stream,
    channels: tuple[str, ...],
    masked_share: float,
    first: int,
    last: int,
    size: int,
    workers: int,
    spottiness_share: float = 1.0,
    unknown: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and labels of the batches first … last − 1 of ``size`` samples each, in order.

    The samples are the same for any number of worker processes; 0 draws them in this one. With
    ``unknown`` the last label is that of a phase outside the library.

    Raises
    ------
    EnvironmentProblemError
        A worker process died.
    """
    loader: DataLoader[Any] = DataLoader(
        PatternStream(stream, size, first, last),
        batch_size=None,
        num_workers=workers,
        # Of its own: a loader takes a number from the generator that dropout uses.
        generator=torch.Generator(),
        # Spawned, not forked: torch has threads, and a fork would copy their locks.
        multiprocessing_context="spawn" if workers else None,
        collate_fn=functools.partial(
            views_of,
            channels=channels,
            masked_share=masked_share,
            spottiness_share=spottiness_share,
            unknown=unknown,
        ),
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise EnvironmentProblemError(
            "a process that draws training patterns died (out of memory, or the calling script "
            "has no `if __name__ == '__main__'` guard); set workers = 0 in the recipe to do "
            "without them. The run can be resumed."
        ) from error
