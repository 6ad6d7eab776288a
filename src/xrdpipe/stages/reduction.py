"""Frames → rows of patterns: fetched ahead, reduced in threads, handed on in blocks in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.config import IntegrateConfig
from xrdpipe.errors import FrameError
from xrdpipe.frames.dead import PixelKind, oriented, sentinels_of
from xrdpipe.integration.batch import BatchReducer
from xrdpipe.integration.geometry import Binning, Geometry
from xrdpipe.integration.reduce import FrameReducer, ReducedFrame
from xrdpipe.schema import FrameFlag, FrameStatus
from xrdpipe.stages.normalisation import Normalisation
from xrdpipe.store.parts import Column, Rows
from xrdpipe.store.patterns import COUNTS, PatternsHeader
from xrdpipe.types import Encoded, FrameSource, Progress

BLOCK_ROWS = 64
"""Frames per block of resumable state; at 1 Mpixel without the kernel about 5 s of one core."""

BATCH_BYTES = 1 << 27
"""Frames that come uncompressed are taken together up to so many bytes."""

Pixels = Encoded | NDArray[Any]


@dataclass(frozen=True)
class Job:
    """Everything decided before the first frame is integrated."""

    config: IntegrateConfig
    source: FrameSource
    geometry: Geometry
    binning: Binning
    kind: PixelKind
    reducer: FrameReducer
    batch: BatchReducer | None
    """The same compiled, where that is possible."""
    normalisation: Normalisation
    header: PatternsHeader


@dataclass(frozen=True)
class _Outcome:
    """What became of one frame: its rows, or why there are none."""

    reduced: ReducedFrame | None
    status: int
    flags: int
    reason: str = ""


@dataclass(frozen=True)
class _Batch:
    """Frames under way.

    Parameters
    ----------
    block
        Where their rows go, together with those of the batches before and after.
    place
        Of the first of them in the block.
    first_row
        Of the block, where this is its last batch; else None.
    """

    block: Rows
    place: int
    first_row: int | None
    outcomes: Future[list[_Outcome]]


def columns_of(job: Job) -> dict[str, Column]:
    """What a block of rows holds."""
    bins = (job.binning.count,)
    columns = {
        f"{variant}.{signal}": Column("<f4", bins)
        for variant in job.header.variants
        for signal in job.header.signals
    }
    columns |= {name: Column("<f8") for name in COUNTS}
    columns |= {"status": Column("|u1"), "flags": Column("<u2"), "reason": Column("S256")}
    return columns


def read_pixels(source: FrameSource, row: int) -> NDArray[Any]:
    """The decoded pixels of a frame; raises FrameError with a status and a reason."""
    fetched = source.fetch(row)
    return source.read(row).image if isinstance(fetched, Encoded) else fetched


def reduced_blocks(
    job: Job, waiting: NDArray[np.intp], progress: Progress
) -> Iterator[tuple[int, Rows]]:
    """Integrate some rows; yields the first row and the content of each block, in order.

    One thread per core reduces batches; as many fetch the next ones meanwhile, mostly waiting for
    the disk. Memory holds ``threads`` + 1 batches, whatever the number of frames.
    """
    threads = job.config.threads or os.cpu_count() or 1
    queue: deque[_Batch] = deque()
    with ThreadPoolExecutor(threads) as readers, ThreadPoolExecutor(threads) as workers:
        size = _batch_size(job, waiting, threads)
        for rows in _blocks_of(waiting):
            block = _empty_block(job, rows.size)
            for place in range(0, rows.size, size):
                some = rows[place : place + size].tolist()
                fetched = readers.submit(_fetch, job, some)
                last = place + size >= rows.size
                queue.append(
                    _Batch(
                        block,
                        place,
                        int(rows[0]) if last else None,
                        workers.submit(_reduce, job, some, fetched),
                    )
                )
                while len(queue) > threads:
                    yield from _collected(queue.popleft(), progress)
        while queue:
            yield from _collected(queue.popleft(), progress)


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
    compressed = isinstance(_fetch(job, [int(waiting[0])])[int(waiting[0])], Encoded)
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


def _fetch(job: Job, rows: list[int]) -> dict[int, Pixels | FrameError]:
    """Pixels of some rows, or why a frame has none."""
    if job.batch is None:
        return {}  # one frame at a time is read by who reduces it
    found: dict[int, Pixels | FrameError] = {}
    for row in rows:
        record = job.source.records[row]
        try:
            if record.problem:
                raise FrameError(record.problem, record.reason)
            pixels = job.source.fetch(row)
            if isinstance(pixels, Encoded) and pixels.encoding not in job.batch.encodings:
                pixels = job.source.read(row).image
            found[row] = pixels
        except FrameError as error:
            found[row] = error
    return found


def _reduce(
    job: Job, rows: list[int], fetching: Future[dict[int, Pixels | FrameError]]
) -> list[_Outcome]:
    """Outcomes of consecutive rows, compiled where possible; a bad frame never raises."""
    fetched = fetching.result()
    if job.batch is None:
        return [_one_frame(job, row) for row in rows]
    found: dict[int, _Outcome] = {}
    frames: dict[int, Pixels] = {}
    scales: list[float] = []
    for row, pixels in fetched.items():
        if isinstance(pixels, FrameError):
            found[row] = _lost(job, row, pixels)
            continue
        try:
            scales.append(job.normalisation.divisor(row))
        except FrameError:
            found[row] = _one_frame(job, row)  # which says so, with all that is known of it
            continue
        frames[row] = pixels
    results = job.batch.reduce(list(frames.values()), scales) if frames else []
    for (row, pixels), result in zip(frames.items(), results, strict=True):
        flags = int(_known_flags(job) | job.normalisation.flags(row))
        if result is None:
            found[row] = _one_frame(job, row, None if isinstance(pixels, Encoded) else pixels)
        elif isinstance(result, FrameError):
            found[row] = _lost(job, row, result, flags)
        else:
            found[row] = _Outcome(result, FrameStatus.OK, flags | result.flags)
    return [found[row] for row in rows]


def _known_flags(job: Job) -> FrameFlag:
    return FrameFlag.SENTINEL_SUSPECT if job.kind.suspect else FrameFlag(0)


def _lost(job: Job, row: int, error: FrameError, flags: int | None = None) -> _Outcome:
    file = job.source.records[row].file
    reason = error.reason if file.partition("::")[0] in error.reason else f"{file}: {error.reason}"
    return _Outcome(None, error.status, int(_known_flags(job) if flags is None else flags), reason)


def _one_frame(job: Job, row: int, image: NDArray[Any] | None = None) -> _Outcome:
    """The outcome of one frame, read unless it is given; a bad frame never raises."""
    flags = _known_flags(job)
    record = job.source.records[row]
    try:
        if record.problem:
            raise FrameError(record.problem, record.reason)
        if image is None:
            image = read_pixels(job.source, row)
        sentinels, suspect = sentinels_of(image, job.kind)
        if suspect:
            flags |= FrameFlag.SENTINEL_SUSPECT
        flags |= job.normalisation.flags(row)
        divisor = job.normalisation.divisor(row)
        image = oriented(image, job.config.flip, job.config.rotate)
        reduced = job.reducer.reduce(image, divisor, sentinels)
    except FrameError as error:
        return _lost(job, row, error, int(flags))
    return _Outcome(reduced, FrameStatus.OK, int(flags) | reduced.flags)


def _collected(batch: _Batch, progress: Progress) -> Iterator[tuple[int, Rows]]:
    """Put the outcomes into their block; the block where it is complete."""
    block = batch.block
    for place, outcome in enumerate(batch.outcomes.result(), batch.place):
        block["status"][place] = outcome.status
        block["flags"][place] = outcome.flags
        block["reason"][place] = outcome.reason.encode()[:256].decode(errors="ignore").encode()
        if outcome.reduced is not None:
            for name, value in outcome.reduced.counts.items():
                block[name][place] = value
            for variant, row in outcome.reduced.rows.items():
                for signal, values in row.items():
                    block[f"{variant}.{signal}"][place] = values
        progress.advance(1)
    if batch.first_row is not None:
        yield batch.first_row, block
