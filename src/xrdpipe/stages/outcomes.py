"""What becomes of each frame: its rows, or why there are none; a bad frame never costs another."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from xrdpipe.errors import EnvironmentProblemError, FrameError
from xrdpipe.frames.dead import oriented, sentinels_of
from xrdpipe.integration.reduce import ReducedFrame
from xrdpipe.schema import FrameFlag, FrameStatus
from xrdpipe.stages.job import Job, Pixels, read_pixels
from xrdpipe.types import Encoded


@dataclass(frozen=True)
class FrameOutcome:
    """What became of one frame: its rows, or why there are none."""

    reduced: ReducedFrame | None
    status: int
    flags: int
    reason: str = ""


@dataclass(frozen=True)
class Fetched:
    """Pixels of a frame as they are stored, or why it has none; ``retried``: at a second try."""

    pixels: Pixels | FrameError
    retried: bool = False


def fetch(job: Job, rows: list[int]) -> dict[int, Fetched]:
    """Pixels of some rows for the compiled path; none for the path of single frames."""
    if job.batch is None:
        return {}  # one frame at a time is read by who reduces it
    with job.clock("read"):
        return {row: _fetched(job, row) for row in rows}


def _fetched(job: Job, row: int) -> Fetched:
    assert job.batch is not None
    encodings = job.batch.encodings

    def read() -> Pixels:
        pixels = job.source.fetch(row)
        if isinstance(pixels, Encoded) and pixels.encoding not in encodings:
            return job.source.read(row).image
        return pixels

    record = job.source.records[row]
    try:
        if record.problem:
            raise FrameError(record.problem, record.reason)
        return Fetched(*job.patience(read))
    except FrameError as error:
        return Fetched(error)
    except (MemoryError, EnvironmentProblemError):
        raise
    except Exception as error:  # a reader's mistake costs the frame that provoked it
        return Fetched(_mistake(error, "read"))


def reduce(job: Job, rows: list[int], fetching: Future[dict[int, Fetched]]) -> list[FrameOutcome]:
    """Outcomes of some rows, compiled where possible.

    Raises
    ------
    EnvironmentProblemError
        If the memory does not even hold one frame.
    """
    try:
        fetched = fetching.result()
    except MemoryError:
        return _in_halves(job, rows)
    with job.clock("integrate"):
        try:
            return _reduced(job, rows, fetched)
        except MemoryError:
            fetched = {}  # read again, fewer at a time
            return _in_halves(job, rows)
        except EnvironmentProblemError:
            raise
        except Exception:  # one of them provoked a mistake: which one?
            return [_alone(job, row) for row in rows]


def _in_halves(job: Job, rows: list[int]) -> list[FrameOutcome]:
    """Outcomes of rows that together were too many for the memory."""
    if len(rows) == 1:
        raise EnvironmentProblemError(
            "out of memory with a single frame; use fewer --threads or a larger machine, "
            "then run the same command to continue."
        ) from None
    middle = len(rows) // 2
    found = []
    for some in (rows[:middle], rows[middle:]):
        try:
            found += _reduced(job, some, {row: _fetched(job, row) for row in some})
        except MemoryError:
            found += _in_halves(job, some)
    return found


def _alone(job: Job, row: int) -> FrameOutcome:
    """The outcome of one frame after a mistake in its batch."""
    try:
        return one_frame(job, row)
    except MemoryError:
        return _in_halves(job, [row])[0]
    except EnvironmentProblemError:
        raise
    except Exception as error:
        return _lost(job, row, _mistake(error, "integrated"))


def _mistake(error: Exception, done: str) -> FrameError:
    """Something xrdpipe or a library did not foresee, told as the fault of a frame."""
    return FrameError(
        FrameStatus.CORRUPT, f"it could not be {done} ({type(error).__name__}: {error})"
    )


def _reduced(job: Job, rows: list[int], fetched: dict[int, Fetched]) -> list[FrameOutcome]:
    if job.batch is None:
        return [one_frame(job, row) for row in rows]
    found: dict[int, FrameOutcome] = {}
    frames: dict[int, Pixels] = {}
    scales: list[float] = []
    for row, one in fetched.items():
        if isinstance(one.pixels, FrameError):
            found[row] = _lost(job, row, one.pixels)
            continue
        try:
            scales.append(job.normalisation.divisor(row))
        except FrameError:
            found[row] = one_frame(job, row)  # which says so, with all that is known of it
            continue
        frames[row] = one.pixels
    results = job.batch.reduce(list(frames.values()), scales) if frames else []
    for (row, pixels), result in zip(frames.items(), results, strict=True):
        retried = FrameFlag.RETRIED if fetched[row].retried else FrameFlag(0)
        flags = int(_known_flags(job) | job.normalisation.flags(row) | retried)
        if result is None:
            image = None if isinstance(pixels, Encoded) else pixels
            found[row] = one_frame(job, row, image, retried)
        elif isinstance(result, FrameError):
            found[row] = _lost(job, row, result, flags)
        else:
            found[row] = FrameOutcome(result, FrameStatus.OK, flags | result.flags)
    return [found[row] for row in rows]


def one_frame(
    job: Job,
    row: int,
    image: NDArray[Any] | None = None,
    known: FrameFlag = FrameFlag(0),  # noqa: B008 - immutable
) -> FrameOutcome:
    """The outcome of one frame by itself, read unless it is given."""
    flags = _known_flags(job) | known
    record = job.source.records[row]
    try:
        if record.problem:
            raise FrameError(record.problem, record.reason)
        if image is None:
            image, retried = _read(job, row)
            flags |= FrameFlag.RETRIED if retried else FrameFlag(0)
        sentinels, suspect = sentinels_of(image, job.kind)
        if suspect:
            flags |= FrameFlag.SENTINEL_SUSPECT
        flags |= job.normalisation.flags(row)
        divisor = job.normalisation.divisor(row)
        image = oriented(image, job.config.flip, job.config.rotate)
        reduced = job.reducer.reduce(image, divisor, sentinels)
    except FrameError as error:
        return _lost(job, row, error, int(flags))
    return FrameOutcome(reduced, FrameStatus.OK, int(flags) | reduced.flags)


def _read(job: Job, row: int) -> tuple[NDArray[Any], bool]:
    with job.clock("read"):
        return job.patience(lambda: read_pixels(job.source, row))


def _known_flags(job: Job) -> FrameFlag:
    return FrameFlag.SENTINEL_SUSPECT if job.kind.suspect else FrameFlag(0)


def _lost(job: Job, row: int, error: FrameError, flags: int | None = None) -> FrameOutcome:
    file = job.source.records[row].file
    reason = error.reason if file.partition("::")[0] in error.reason else f"{file}: {error.reason}"
    return FrameOutcome(
        None, error.status, int(_known_flags(job) if flags is None else flags), reason
    )
