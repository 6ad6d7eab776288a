"""Frames → rows of patterns: fetched ahead, reduced in threads, handed on in blocks in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.cores import usable_cores
from xrdpipe.schema import LOST
from xrdpipe.stages.job import Job, columns_of
from xrdpipe.stages.outcomes import FrameOutcome, fetch, reduce
from xrdpipe.stages.shard import Shard
from xrdpipe.store.parts import Rows
from xrdpipe.types import Encoded, Progress

BLOCK_ROWS = 64
"""Frames per block of resumable state; at 1 Mpixel without the kernel about 5 s of one core."""

BATCH_BYTES = 1 << 27
"""Frames that come uncompressed are taken together up to so many bytes."""

Blocks = Iterator[tuple[int, Rows]]
"""First row and content of each block."""


@dataclass(frozen=True)
class _Block:
    """A block of rows that batches fill: its first row, its content."""

    first: int
    content: Rows


@dataclass(frozen=True)
class _Batch:
    """Frames under way: where in which block their rows go, and whether they complete it."""

    block: _Block
    places: slice
    completes: bool
    outcomes: Future[list[FrameOutcome]]


def reduced_blocks(job: Job, waiting: NDArray[np.intp], progress: Progress) -> Blocks:
    """Integrate some rows; yields the first row and the content of each block, in order.

    One thread per core reduces batches; as many fetch the next ones meanwhile, mostly waiting for
    the disk. Memory holds ``threads`` + 1 batches, whatever the number of frames. Where
    ``progress.stopped()``, what is under way is finished; the last block is then a short one.
    """
    threads = job.config.threads or usable_cores()
    queue: deque[_Batch] = deque()
    short: tuple[_Block, int] | None = None
    with ThreadPoolExecutor(threads) as readers, ThreadPoolExecutor(threads) as workers:
        for block, rows, places in _batches(job, waiting, _batch_size(job, waiting, threads)):
            if progress.stopped():
                break
            fetched = readers.submit(fetch, job, rows)
            completes = places.stop == len(block.content["status"])
            queue.append(
                _Batch(block, places, completes, workers.submit(reduce, job, rows, fetched))
            )
            while len(queue) > threads:
                batch = queue.popleft()
                _collect(batch, progress)
                if batch.completes:
                    yield batch.block.first, batch.block.content
        for batch in queue:
            _collect(batch, progress)
            if batch.completes:
                yield batch.block.first, batch.block.content
            short = None if batch.completes else (batch.block, batch.places.stop)
    if short is not None:
        block, rows_done = short
        yield block.first, {name: values[:rows_done] for name, values in block.content.items()}


@dataclass(frozen=True)
class Execution:
    """Where which rows of a job are reduced; changes no number.

    Parameters
    ----------
    produce
        What makes blocks of some rows; by default the threads of this process.
    shard
        Reduce this share of the rows only, beside processes that do the others, and write no
        output; None: all rows, to the end.
    """

    produce: Callable[[Job, NDArray[np.intp], Progress], Blocks] = reduced_blocks
    shard: Shard | None = None


def _batches(
    job: Job, waiting: NDArray[np.intp], size: int
) -> Iterator[tuple[_Block, list[int], slice]]:
    """Rows that are reduced together: which, and where in which block they go."""
    for rows in _blocks_of(waiting):
        block = _Block(int(rows[0]), _empty_block(job, rows.size))
        for place in range(0, rows.size, size):
            some = rows[place : place + size].tolist()
            yield block, some, slice(place, place + len(some))


def _blocks_of(rows: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Consecutive rows, at most BLOCK_ROWS together, within aligned blocks."""
    if not rows.size:
        return
    breaks = np.flatnonzero((np.diff(rows) != 1) | (rows[1:] % BLOCK_ROWS == 0)) + 1
    yield from np.split(rows, breaks)


def _batch_size(job: Job, waiting: NDArray[np.intp], threads: int) -> int:
    """Frames per batch: every thread has some, and uncompressed ones fit into memory."""
    if job.batch is None or not waiting.size:
        return 1
    size = min(job.batch.size, -(-waiting.size // threads))
    first = int(waiting[0])
    compressed = isinstance(fetch(job, [first])[first].pixels, Encoded)
    rows, columns = job.source.shape
    return size if compressed else max(1, min(size, BATCH_BYTES // (rows * columns * 4)))


def _empty_block(job: Job, rows: int) -> Rows:
    block: Rows = {
        name: np.zeros((rows, *column.shape), np.dtype(column.dtype))
        for name, column in columns_of(job).items()
    }
    for name in block:
        if "." in name:
            block[name][...] = np.nan
    return block


def _collect(batch: _Batch, progress: Progress) -> None:
    """Put the outcomes into their block."""
    block = batch.block.content
    for place, outcome in enumerate(batch.outcomes.result(), batch.places.start):
        block["status"][place] = outcome.status
        block["flags"][place] = outcome.flags
        block["reason"][place] = outcome.reason.encode()[:256].decode(errors="ignore").encode()
        if outcome.reduced is not None:
            for name, value in outcome.reduced.counts.items():
                block[name][place] = value
            for variant, row in outcome.reduced.rows.items():
                for signal, values in row.items():
                    block[f"{variant}.{signal}"][place] = values
        progress.advance(1, int(outcome.status in LOST))
