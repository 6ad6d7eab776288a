"""Training inputs drawn on the fly, in order, with worker processes ahead of the training.

No torch here, so that workers start fast.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process

import numpy as np
from numpy.typing import NDArray

from xrdpipe.channels import build_channels
from xrdpipe.errors import EnvironmentProblemError
from xrdpipe.synthesis.generator import Generator, make_generator
from xrdpipe.synthesis.patterns import PatternBatch, draw
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.types import Grid, Phase, PhaseLibrary

AHEAD = 3
"""Batches drawn ahead per worker."""


@dataclass(frozen=True)
class Stream:
    """An endless, numbered series of synthetic patterns.

    Parameters
    ----------
    library, distractors, grid, recipe
        See :func:`xrdpipe.synthesis.patterns.draw_patterns`.
    channels
        Views that the network sees.
    seed
        Names the stream.
    """

    library: PhaseLibrary
    distractors: tuple[Phase, ...]
    grid: Grid
    recipe: Recipe
    channels: tuple[str, ...]
    seed: int


@functools.lru_cache(maxsize=4)
def _prepared(
    library: PhaseLibrary, distractors: tuple[Phase, ...], grid: Grid, recipe: Recipe
) -> Generator:
    return make_generator(library, distractors, grid, recipe)


def draw_batch(stream: Stream, first: int, number: int) -> PatternBatch:
    """Samples first … first + number − 1 of a stream."""
    generator = _prepared(stream.library, stream.distractors, stream.grid, stream.recipe)
    return draw(generator, first, number, stream.seed)


def draw_views(
    stream: Stream, first: int, number: int
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Inputs (number, C, n) and labels (number, K) of those samples."""
    batch = draw_batch(stream, first, number)
    return build_channels(stream.channels, batch.intensity, batch.coverage), batch.presence


def _end_with_parent() -> None:
    """Let this worker die with the training process, which a killed one cannot ask for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the training process answers Ctrl-C
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def batches(
    stream: Stream, first: int, last: int, size: int, workers: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int8]]]:
    """Batches number first … last − 1 of ``size`` samples each, in order.

    The samples are the same for any number of workers; 0 draws them in this process.

    Raises
    ------
    EnvironmentProblemError
        A worker process died.
    """
    if workers == 0:
        for number in range(first, last):
            yield draw_views(stream, number * size, size)
        return
    # Spawned, not forked: torch has threads, and a fork would copy their locks.
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_end_with_parent
    )
    waiting: deque[Future[tuple[NDArray[np.float32], NDArray[np.int8]]]] = deque()
    try:
        for number in range(first, last):
            waiting.append(pool.submit(draw_views, stream, number * size, size))
            if len(waiting) > AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise EnvironmentProblemError(
            "a process that draws training patterns died (out of memory, or the calling script "
            "has no `if __name__ == '__main__'` guard); set workers = 0 in the recipe to do "
            "without them. The run can be resumed."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
