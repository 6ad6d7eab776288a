"""Frames are integrated as they come, until the scan is over; the rows wait for the final file."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from xrdpipe.config import IntegrateConfig, MapConfig
from xrdpipe.errors import (
    FrameError,
    InputError,
    InputMissingError,
    OptionError,
)
from xrdpipe.frames import open_frames
from xrdpipe.nn.model_folder import find_model
from xrdpipe.schema import LOST, FrameStatus
from xrdpipe.stages.ahead import import_ahead
from xrdpipe.stages.integrate import first_frame, prepare
from xrdpipe.stages.job import Job
from xrdpipe.stages.live.arrivals import (
    Arrival,
    Arrivals,
    Fingerprinted,
    Frame,
    Watch,
    base_folder,
    open_watch,
)
from xrdpipe.stages.live.ends import Ends
from xrdpipe.stages.live.kept import KeptRows
from xrdpipe.stages.live.mapping import GrowingMap, check_output
from xrdpipe.stages.normalisation import Normalisation
from xrdpipe.stages.reduction import Execution, reduced_blocks
from xrdpipe.stages.stopping import Stop, stopping
from xrdpipe.store.nexus import already_done
from xrdpipe.store.parts import Rows
from xrdpipe.store.patterns import KEY_PATH
from xrdpipe.types import FrameSource, Progress

PERIOD = 0.25
"""Seconds between two looks at the frames: what came meanwhile is integrated and judged at once:
one frame by itself takes as long as several."""

FEW = 8
"""So many frames are integrated by one thread: the kernel takes them side by side, and one frame
costs it almost what eight do."""

MANY = 32
"""So many new frames at a look, and the next look follows at once."""

REST = 2.0
"""A look that finds nothing and takes long (in a folder of very many files) is followed by a rest
of so many times its length."""

SECONDS_BETWEEN_NOTES = 5.0
"""Of what is wrong with the first frame: a file that grows has another size every time."""


@dataclass(frozen=True)
class Followed:
    """A scan that is over, or was over before; a context manager.

    Parameters
    ----------
    execution
        How the ordinary run of the complete scan gets its rows.
    restart
        True if an unfinished final run is to begin again: all its rows are kept.
    """

    execution: Execution
    restart: bool
    _rows: KeptRows | None
    _maps: tuple[GrowingMap, ...]
    _open: ExitStack

    def __enter__(self) -> Followed:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def integrated(self) -> None:
        """The final patterns file is written: the kept rows are not needed any more."""
        if self._rows is not None:
            self._rows.discard()

    def mapped(self) -> None:
        """The final maps are written: the live views show them."""
        for growing in self._maps:
            growing.finish()


def follow(
    config: IntegrateConfig,
    maps: Sequence[tuple[MapConfig, Path]],
    ends: Ends,
    progress: Progress,
) -> Followed:
    """Integrate and map frames as they come, until one of the ends.

    Parameters
    ----------
    config
        Of the integration; its frames need not be there yet.
    maps
        Configurations and outputs of the maps of its patterns.

    Raises
    ------
    InterruptedRunError
        If somebody asked to stop; what was integrated is kept.
    XrdpipeError
        If an option cannot be used while a scan is running, or an input is wrong.
    """
    if config.monitor:
        raise OptionError(
            f"frames cannot be normalised by monitor {', '.join(config.monitor)} as they come: its "
            "values are complete when the scan is over; run the pipeline then, without --follow, "
            "or leave the monitor out."
        )
    if not config.poni.is_file():
        raise InputMissingError(f"{config.poni} does not exist; expected a geometry file.")
    from xrdpipe.nn.inference import load_model  # torch, which takes seconds

    output = config.output or Path("patterns.h5")
    # Before the first frame comes, so that it need not wait.
    models = [load_model(find_model(each.model), each.device) for each, _ in maps]
    for model in models:
        some = np.ones((1, model.card.grid.size), np.float32)
        model.predict(some, some, some)  # the first call is a slow one
    if any(each.png for each, _ in maps):
        import_ahead("matplotlib.figure")
    with ExitStack() as opened, stopping() as stop:
        _wait_for_first(config, ends, stop, progress.note)
        job = prepare(config, progress)
        done = already_done(output, dict(job.header.key), KEY_PATH, config.restart)
        if done:
            return Followed(Execution(), config.restart, None, (), opened.pop_all())
        for each, path in maps:
            check_output(path, each.restart)
        divisor = _common_divisor(job)
        watch = open_watch(config.frames, job.source, progress.note)
        rows = KeptRows(job, output, base_folder(config.frames[0]), config.restart)
        opened.callback(rows.close)
        resumed = len(rows)
        # An HDF5 file that stays open would be shown as it was when it was opened.
        job = dataclasses.replace(job, source=cast(FrameSource, None))
        growing = []
        for (each, path), model in zip(maps, models, strict=True):
            growing.append(GrowingMap(each, path, model, job, ends.expect, progress.note))
            opened.callback(growing[-1].close)
        loop = _Loop(job, watch, rows, tuple(growing), divisor, ends, progress, stop)
        loop.run()
        stop.check(f"the frames integrated so far are kept in {rows.folder}")
        restart = config.restart or resumed > 0
        execution = Execution(rows.hand_over)
        return Followed(execution, restart, rows, tuple(growing), opened.pop_all())


class _Loop:
    """The frames seen so far, and what becomes of the next ones."""

    def __init__(
        self,
        job: Job,
        watch: Watch,
        rows: KeptRows,
        maps: tuple[GrowingMap, ...],
        divisor: float | None,
        ends: Ends,
        progress: Progress,
        stop: Stop,
    ) -> None:
        self._job, self._watch, self._rows = job, watch, rows
        self._maps, self._divisor = maps, divisor
        self._ends, self._progress, self._stop = ends, progress, stop
        self._number: dict[Frame, int] = {}
        self._seen: set[Frame] = set()
        self._latest = time.monotonic()

    def run(self) -> None:
        """Until the scan is over or somebody asks to stop."""
        self._continue()
        self._progress.start("follow", self._ends.expect or 0, len(self._number))
        marked = ""
        while not self._stop():
            begun = time.monotonic()
            arrivals = self._watch.look()
            if arrivals is not None:
                self._take(arrivals)
            busy = arrivals is not None and len(arrivals.frames) >= MANY
            for growing in self._maps:
                growing.step(busy)
            if self._over(marked, idle=arrivals is None):
                break
            marked = self._ends.marked
            if not busy and not any(growing.behind for growing in self._maps):
                spent = time.monotonic() - begun
                time.sleep(max(PERIOD - spent, spent * REST if arrivals is None else 0))
        for growing in self._maps:
            growing.save_last()
        self._progress.done()

    def _continue(self) -> None:
        """Take up the frames that an earlier run integrated."""
        for arrivals, rows in self._rows.blocks():
            for arrival in arrivals:
                self._watch.used(arrival)
            self._show(arrivals, rows)
            for growing in self._maps:
                while growing.behind and not self._stop():  # else all rows would be in memory
                    growing.step(busy=False)
        if self._number:
            self._progress.note(f"continuing: {len(self._number)} frames were already integrated")

    def _take(self, arrivals: Arrivals) -> None:
        """Integrate some frames; keep their rows, show them."""
        source = Fingerprinted(arrivals.source)
        config = self._job.config
        if len(arrivals.frames) <= FEW:
            config = dataclasses.replace(config, threads=1)
        job = dataclasses.replace(
            self._job,
            config=config,
            source=source.as_source() if self._watch.growing else arrivals.source,
            normalisation=_every(len(arrivals.source.records), self._divisor),
        )
        by_row = {arrival.row: arrival for arrival in arrivals.frames}
        quiet = Progress(stopped=self._stop)
        for first, rows in reduced_blocks(job, arrivals.rows, quiet):
            here = [by_row[first + place] for place in range(rows["status"].size)]
            self._collect(here, rows, source)

    def _collect(self, frames: list[Arrival], rows: Rows, source: Fingerprinted) -> None:
        good = rows["status"] == FrameStatus.OK
        # Nothing measured: the space for the pixels may be there before the pixels.
        blank = good & ~(rows["max"] > 0)
        taken = np.zeros(good.size, bool)
        for place, arrival in enumerate(frames):
            if arrival.frame not in self._seen:
                self._seen.add(arrival.frame)
                self._latest = time.monotonic()
            doubtful = blank[place] or not good[place]
            if doubtful and not self._watch.refused(arrival):
                continue
            if good[place]:
                taken[place] = True
                self._watch.used(arrival)
            else:
                self._give_up(arrival, int(rows["status"][place]), rows["reason"][place].decode())
        places = np.flatnonzero(taken)
        if not places.size:
            return
        some = {name: values[places] for name, values in rows.items()}
        used = [frames[place] for place in places.tolist()]
        digests = [source.digests.get(arrival.row, "") for arrival in used]
        self._rows.keep(used, some, digests, self._divisor or 1.0)
        before = len(self._number)
        self._show(used, some)
        self._progress.advance(len(self._number) - before)

    def _show(self, frames: Sequence[Arrival], rows: Rows) -> None:
        numbers = np.array([self._numbered(arrival) for arrival in frames], np.intp)
        for growing in self._maps:
            growing.integrated(numbers, rows)

    def _numbered(self, arrival: Arrival) -> int:
        """Which of the frames it is, in the order in which they came."""
        number = self._number.get(arrival.frame)
        if number is None:
            number = self._number[arrival.frame] = len(self._number)
            for growing in self._maps:
                growing.add(arrival.numbers)
        return number

    def _give_up(self, arrival: Arrival, status: int, reason: str) -> None:
        """A frame that will not become readable any more, as far as one can tell."""
        new = arrival.frame not in self._number
        number = self._numbered(arrival)
        if new:
            self._progress.advance(1, int(status in LOST))
        self._progress.note(f"lost: {reason}")
        for growing in self._maps:
            growing.lost(number, status)

    def _over(self, marked: str, idle: bool) -> bool:
        """Whether the scan has ended; says why."""
        ends, seen = self._ends, len(self._number)
        waiting = self._watch.waiting
        if ends.expect is not None and seen >= ends.expect and self._watch.still:
            self._progress.note(f"the scan is over: {seen} frames, as expected")
            return True
        if not idle or waiting or not self._watch.still:
            return False
        if marked:
            self._progress.note(f"the scan is over: {marked} is there, after {seen} frames")
            return True
        if seen and time.monotonic() - self._latest > ends.timeout:
            expected = "" if ends.expect is None else f" of {ends.expect}"
            self._progress.note(
                f"the scan is over: no new frame for {ends.timeout:g} s, after {seen}{expected}"
            )
            return True
        return False


def _wait_for_first(
    config: IntegrateConfig, ends: Ends, stop: Stop, note: Callable[[str], None]
) -> None:
    """Until a frame can be read.

    Raises
    ------
    InputMissingError
        If the scan ends without one.
    """
    said, when = "", 0.0
    while True:
        ended = ends.marked
        try:
            first_frame(open_frames(config.frames))
            return
        except (
            InputError,
            InputMissingError,
            FrameError,
            OSError,
            RuntimeError,
            KeyError,
        ) as error:
            why = str(error)
        if ended:
            raise InputMissingError(
                f"{ended} says that the scan is over, but no frame can be read: {why}"
            )
        if why != said and time.monotonic() - when > SECONDS_BETWEEN_NOTES:
            note(f"waiting for the first frame: {why}")
            said, when = why, time.monotonic()
        stop.check("nothing was integrated yet")
        time.sleep(PERIOD)


def _common_divisor(job: Job) -> float | None:
    """The exposure time that all frames there have; None = intensities are not divided.

    Raises
    ------
    OptionError
        If the frames differ, so that it is not known of a frame to come.
    """
    exposure = job.normalisation.exposure
    if exposure is None:
        return None
    if not (exposure == exposure[0]).all():
        raise OptionError(
            f"--exposure {job.config.exposure} differs from frame to frame "
            f"({exposure.min():g}-{exposure.max():g} s), and cannot be known of frames to come; "
            "leave it out, or run the pipeline without --follow when the scan is over."
        )
    return float(exposure[0])


def _every(frames: int, divisor: float | None) -> Normalisation:
    """The same divisor for every frame."""
    return Normalisation(exposure=None if divisor is None else np.full(frames, divisor))
