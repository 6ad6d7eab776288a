"""A map that grows: patterns are judged as they come, for the live view and the partial map."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.config import MapConfig
from xrdpipe.errors import InputError, OutputExistsError
from xrdpipe.maps import PhaseMap, assemble
from xrdpipe.nn.model_folder import find_model, reference_lines
from xrdpipe.pictures import draw_map
from xrdpipe.resampling import plan_resampling, resample
from xrdpipe.schema import NO_RESULT, PRESENT, UNDECIDED, UNITS, FrameStatus
from xrdpipe.stages.job import Job
from xrdpipe.stages.live.placing import Placing
from xrdpipe.stages.map import BOTH, Decision, judge, prior_of, together
from xrdpipe.stages.resample import check_reach
from xrdpipe.store.live_view import LiveView
from xrdpipe.store.maps import KEY_PATH, MapHeader, read_map, write_map
from xrdpipe.store.nexus import already_done
from xrdpipe.store.parts import Rows
from xrdpipe.types import Patterns, Predictions

if TYPE_CHECKING:
    from xrdpipe.nn.inference import Model

SPARE = 64 << 20
"""Bytes that the disk must have left for the view."""

SHOW_EVERY = 0.2
"""Least seconds between two updates of the view; an update may cost a tenth of the time."""
SHOW_SHARE = 0.1

SAVE_EVERY = 5.0
"""Least seconds between two writings of the partial map; they may cost a twentieth of the time."""
SAVE_SHARE = 0.05

JUDGE_SHARE = 0.25
"""While many frames wait to be integrated, the model may take this share of the time."""

AT_ONCE = 256
"""Patterns judged together, a block of inference."""


class GrowingMap:
    """One map of a scan that is being measured; a context manager that closes the view.

    Parameters
    ----------
    config, output, model
        Of the map step, its file, and the model it names, loaded.
    job
        What is decided of the integration.
    expected
        Number of frames to come, if known.
    note
        Says what is special.

    Raises
    ------
    XrdpipeError
        If the map could not be made of these patterns, or its file is another's.
    """

    def __init__(
        self,
        config: MapConfig,
        output: Path,
        model: Model,
        job: Job,
        expected: int | None,
        note: Callable[[str], None],
    ) -> None:
        header = job.header
        self._config, self._output, self._job = config, output, job
        self._variants = _variants(config.variant, header.variants)
        self._in_patterns = output.resolve() == Path(config.patterns[0]).resolve()
        card = model.card
        edges = job.binning.two_theta_edges(job.geometry.wavelength)
        check_reach(edges, job.geometry.wavelength, card.grid)
        none: Rows = {f"{self._variants[0]}.I": np.full((1, job.binning.count), np.nan, "f4")}
        plan = plan_resampling(
            self._patterns(none | {"status": np.ones(1, "u1")}, self._variants[0]),
            card.grid,
            config.method,
        )
        self._decision = Decision(model, card, prior_of(config, card), plan)
        self._threshold = None if card.unknown is None else card.unknown.threshold
        self._lines = reference_lines(find_model(config.model))
        self._placing = Placing(config, expected)
        if not self._placing.shaped:
            note(f"{output}: the frames are shown in one row until the scan is complete")
        self._queue: deque[tuple[NDArray[np.intp], Rows]] = deque()
        phases = len(card.phases)
        self._frames = 0
        self._found = Predictions(
            np.full((AT_ONCE, phases), np.nan, np.float32),
            np.full((AT_ONCE, phases), np.nan, np.float32),
            np.full(AT_ONCE, np.nan, np.float32),
            np.full(AT_ONCE, FrameStatus.PENDING, np.uint8),
        )
        self._version = np.zeros(AT_ONCE, np.int64)
        output.parent.mkdir(parents=True, exist_ok=True)
        self._view: LiveView | None = LiveView(
            view_of(output), card.phase_names, self._placing.shape
        )
        self._shown = np.zeros(self._placing.shape, np.int64)
        self._unshown = False
        self._note, self._cramped = note, False
        self._next_show = self._next_save = self._next_judge = 0.0
        self._saver = ThreadPoolExecutor(1)
        self._saving: Future[None] | None = None
        self._unsaved = False

    def close(self) -> None:
        """End the writing of the partial map and close the view."""
        self._saver.shutdown()
        if self._view is not None:
            self._view.close()

    def add(self, numbers: tuple[int, ...]) -> None:
        """One more frame; frames are counted from 0 in the order of these calls."""
        self._placing.add(numbers)
        self._frames += 1
        if self._frames > len(self._version):
            found = self._found
            self._found = Predictions(
                _twice(found.probability, np.nan),
                _twice(found.spread, np.nan),
                _twice(found.unknown, np.nan),
                _twice(found.status, FrameStatus.PENDING),
            )
            self._version = _twice(self._version, 0)

    def integrated(self, frames: NDArray[np.intp], rows: Rows) -> None:
        """Rows of frames, to be judged when there is time."""
        for first in range(0, frames.size, AT_ONCE):
            part = slice(first, first + AT_ONCE)
            self._queue.append((frames[part], {name: v[part] for name, v in rows.items()}))

    def lost(self, frame: int, status: int) -> None:
        """A frame that gives no pattern."""
        self._found.probability[frame] = self._found.spread[frame] = np.nan
        self._found.unknown[frame] = np.nan
        self._found.status[frame] = status
        self._version[frame] += 1
        self._unshown = True

    def step(self, busy: bool) -> None:
        """Judge some patterns, show them, write the partial map: as far as it is their turn."""
        now = time.monotonic()
        if self._queue and now >= self._next_judge:
            self._judge()
            spent = time.monotonic() - now
            self._next_judge = now + (spent / JUDGE_SHARE if busy else 0)
        if self._unshown and time.monotonic() >= self._next_show:
            self.show()
        if self._unsaved and time.monotonic() >= self._next_save:
            self._save()

    @property
    def behind(self) -> bool:
        """True if patterns wait to be judged."""
        return bool(self._queue)

    def show(self) -> None:
        """Bring the view up to date."""
        begun = time.monotonic()
        phase_map, numbers = self._map()
        frames = phase_map.scan.frame_index
        version = np.where(frames >= 0, self._version[frames], 0)
        # A pixel changes by a new result, or by another frame where numbers turn out otherwise.
        state = np.where(version > 0, (version << 32) + numbers + 1, 0)
        before = np.zeros_like(state)
        width = min(state.shape[1], self._shown.shape[1])
        before[:, :width] = self._shown[:, :width]
        lines = np.flatnonzero((state != before).any(axis=1))
        if lines.size:
            self._write_view(phase_map, numbers, lines)
            self._shown, self._unsaved = state, True
        self._unshown = False
        spent = time.monotonic() - begun
        self._next_show = begun + max(SHOW_EVERY, spent / SHOW_SHARE)

    def _write_view(
        self, phase_map: PhaseMap, numbers: NDArray[np.int64], lines: NDArray[np.intp]
    ) -> None:
        """Show some lines, if the disk has room; without the view the run goes on."""
        if self._view is None:
            return
        room = shutil.disk_usage(self._view.path.parent).free > SPARE
        if not room and not self._cramped:
            self._note(f"{self._view.path} is not kept up to date: the disk is full")
        self._cramped = not room
        if room:
            with self._or_without_view() as view:
                view.write(phase_map, numbers, lines)

    @contextmanager
    def _or_without_view(self) -> Iterator[LiveView]:
        assert self._view is not None
        try:
            yield self._view
        except OSError as error:
            self._note(f"{self._view.path} is given up ({error}); the map goes on without it")
            self._view = None

    def save_last(self) -> None:
        """Leave a partial map of all that was judged, for who looks before the run goes on."""
        self.show()
        for _ in range(2):  # one may be under way
            if self._saving is not None:
                self._saving.result()
            self._save()
        if self._saving is not None:
            self._saving.result()

    def finish(self) -> None:
        """Show the finished map, and say that nothing more will come."""
        stored = read_map(self._output)
        phase_map, numbers = self._map()
        if stored.status.shape == phase_map.status.shape:
            weights = 2 ** np.arange(len(stored.decision), dtype=np.int64)[:, None, None]
            combination = ((stored.decision == PRESENT) * weights).sum(axis=0)
            decided = (stored.decision != UNDECIDED).any(axis=0)
            final = dataclasses.replace(
                phase_map,
                probability=stored.probability,
                decision=stored.decision,
                winner=stored.winner,
                combination=np.where(decided, combination, NO_RESULT),
                status=stored.status,
            )
            self._write_view(final, numbers, np.arange(stored.status.shape[0]))
        if self._view is not None:
            with self._or_without_view() as view:
                view.finish()

    def _judge(self) -> None:
        from xrdpipe.nn.inference import one_thread

        frames, rows = self._queue.popleft()
        while self._queue and frames.size + self._queue[0][0].size <= AT_ONCE:
            more, others = self._queue.popleft()
            frames = np.concatenate([frames, more])
            rows = {name: np.concatenate([values, others[name]]) for name, values in rows.items()}
        grid, plan = self._decision.card.grid, self._decision.plan
        on_grid = [resample(self._patterns(rows, v), grid, plan) for v in self._variants]
        with one_thread():
            judged = [judge(patterns, self._decision) for patterns in on_grid]
        found = judged[0] if len(judged) == 1 else together(*judged)
        for name in ("probability", "spread", "unknown", "status"):
            getattr(self._found, name)[frames] = getattr(found, name)
        self._version[frames] += 1
        self._unshown = True

    def _map(self) -> tuple[PhaseMap, NDArray[np.int64]]:
        """The maps as far as they are known, and the frame number of each pixel."""
        scan, numbers = self._placing.place()
        phase_map = assemble(
            self._found, scan, self._decision.card.phase_names, unknown_threshold=self._threshold
        )
        status = np.where(scan.frame_index < 0, FrameStatus.PENDING, phase_map.status)
        return dataclasses.replace(phase_map, status=status.astype(np.uint8)), numbers

    def _save(self) -> None:
        """Write the partial map, in a thread of its own: a picture takes its time."""
        if self._in_patterns or (self._saving is not None and not self._saving.done()):
            return
        if self._saving is not None:
            self._saving.result()
        phase_map, _ = self._map()
        self._unsaved = False
        self._next_save = time.monotonic() + SAVE_EVERY
        self._saving = self._saver.submit(self._write, phase_map)

    def _write(self, phase_map: PhaseMap) -> None:
        begun = time.thread_time()
        pending = int((phase_map.status == FrameStatus.PENDING).sum())
        card = self._decision.card
        source = Path(self._config.patterns[0])
        title = f"{source.stem}, {' and '.join(self._variants)}, model {card.name}, "
        title += f"{pending} of {phase_map.status.size} pixels pending"
        header = MapHeader(
            patterns=self._job.config.output or Path("patterns.h5"),
            title=title,
            key={},
            parameters={"name": card.name, "input_variant": self._config.variant or "masked"},
            lines=self._lines,
        )
        write_map(self._output, header, phase_map, card.grid, pending=pending)
        if self._config.png:
            picture = self._output.with_suffix(".png")
            temporary = picture.with_name(f".{picture.name}")
            draw_map(temporary, phase_map, title)
            temporary.replace(picture)
        spent = time.thread_time() - begun
        self._next_save = time.monotonic() + max(SAVE_EVERY, spent / SAVE_SHARE)

    def _patterns(self, rows: Rows, variant: str) -> Patterns:
        """Rows as a patterns file would hold them."""
        header = self._job.header
        intensity = rows[f"{variant}.I"]
        return Patterns(
            radial_axis=header.radial_axis,
            wavelength=header.wavelength,
            intensity=intensity,
            intensity_errors=rows.get(f"{variant}.I_errors"),
            coverage=rows.get(f"{variant}.coverage", np.isfinite(intensity).astype(np.float32)),
            spottiness=rows.get(f"{variant}.spottiness"),
            frame=np.arange(len(intensity)),
            status=rows["status"],
            unit=UNITS[header.unit][0],
            variant=variant,
            polarization_factor=header.polarization_factor,
        )


def view_of(output: Path) -> Path:
    """The live view beside a map."""
    return output.with_name(f"{output.stem}_live{output.suffix}")


def check_output(output: Path, restart: bool) -> None:
    """Refuse to follow into a file that is not partial, before anything is waited for.

    Raises
    ------
    OutputExistsError
        If a finished map, or anything else, has that name.
    """
    if not output.exists():
        return
    # A finished map has a key of its own, which no other equals.
    try:
        already_done(output, {}, KEY_PATH, restart)
    except OutputExistsError as error:
        raise OutputExistsError(
            f"{output} exists and is no partial map of a scan that is followed; use --restart to "
            "replace it if it is a map, or another --output."
        ) from error


def _variants(asked: str | None, held: tuple[str, ...]) -> tuple[str, ...]:
    """Which variants are judged, as a map of the finished file would choose them."""
    wanted = ("masked", "unmasked") if asked == BOTH else (asked,) if asked else held[:1]
    if not set(wanted) <= set(held):
        raise InputError(
            f"the map needs the {' and '.join(wanted)} variant, the frames are integrated "
            f"{' and '.join(held)}; integrate with variant 'both'."
        )
    return wanted


def _twice(values: NDArray[Any], fill: float) -> NDArray[Any]:
    """The same with room for as many again."""
    return np.concatenate([values, np.full_like(values, fill)])
