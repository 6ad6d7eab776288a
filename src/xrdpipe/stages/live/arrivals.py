"""What is new: frames that came, or changed, since the last look."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import itertools
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import InputError, InputMissingError
from xrdpipe.frames import open_frames
from xrdpipe.frames.images import ImageSeries
from xrdpipe.frames.names import image_suffix, original_name, pattern
from xrdpipe.frames.source import matching, natural_sort
from xrdpipe.stages.live.trials import STILL, Stamp, Trials, stamp_of
from xrdpipe.types import Encoded, FrameRecord, FrameSource

AT_ONCE = 256
"""Frames of one look, a block of inference: many when many wait, so that the rate of a batch run is
kept."""

FRESH = 0.02
"""A file changed less than so many seconds ago may change again within the clock tick of the file
system, unnoticed."""

WATCHED_SECONDS, WATCHED_FILES = 10.0, 512
"""Frames that were used are looked at again for so long: their files may have been half-written."""

LEAST_LOOKS = 2.0
"""Seconds after which an HDF5 file is opened again even if no file beside it has changed: its data
may lie elsewhere."""

Frame = tuple[str, int]
"""Identifies a frame: its file (absolute) and the place in it."""


@dataclass(frozen=True)
class Arrival:
    """A frame that may be used.

    Parameters
    ----------
    frame
        Its file and the place in it.
    row
        In the source that holds it.
    stamp
        Of the file when it was looked at, before it is read.
    numbers
        All numbers of the file's name, or the acquisition number alone.
    """

    frame: Frame
    row: int
    stamp: Stamp
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Arrivals:
    """Frames to be tried together, and the source that holds them."""

    source: FrameSource
    frames: tuple[Arrival, ...] = ()

    @property
    def rows(self) -> NDArray[np.intp]:
        """Their rows in the source."""
        return np.array([arrival.row for arrival in self.frames], np.intp)


class Watch(Protocol):
    """Where frames appear."""

    growing: bool
    """True if files hold many frames and change as they grow: their stamp then says nothing of a
    frame that was used, its content does."""

    def look(self) -> Arrivals | None:
        """Up to AT_ONCE frames that are new, changed, or due for another try; None if none are."""

    def used(self, arrival: Arrival) -> None:
        """The frame was integrated."""

    def refused(self, arrival: Arrival) -> bool:
        """The frame could not be integrated; returns True if it will not be tried again."""

    @property
    def waiting(self) -> int:
        """Frames seen and not yet used or given up."""

    @property
    def still(self) -> bool:
        """True if nothing tells that a writer has not closed its file yet."""


def open_watch(frames: Sequence[str], source: FrameSource, note: Callable[[str], None]) -> Watch:
    """Watch what ``source`` was opened from.

    Image files of one frame each are looked at one by one; anything else is opened again.
    """
    if isinstance(source, ImageSeries) and all(record.place == 0 for record in source.records):
        return FileWatch(frames, source, note)
    return ReopenWatch(frames)


class FileWatch:
    """Image files of one frame each in folders, or matching patterns.

    A look costs one listing of the folder if it has changed, and one ``stat`` of each file that is
    new, was refused, or was used a moment ago.

    Parameters
    ----------
    frames
        Folders, patterns or files.
    series
        What was there at first; tells what kind of files belong to it.
    note
        Says what is left out.
    """

    growing = False

    def __init__(
        self, frames: Sequence[str], series: ImageSeries, note: Callable[[str], None]
    ) -> None:
        self._frames = tuple(os.path.abspath(name) for name in frames)  # noqa: PTH100 - patterns
        self._series = series
        self._note = note
        files = [Path(record.file) for record in series.records]
        self._suffix = image_suffix(files[0].name)
        self._patterns = {pattern(file.name) for file in files}
        self._known: set[str] = set()
        self._originals: set[str] = set()
        self._odd: set[str] = set()
        self._queue: dict[str, None] = {}
        self._refused: set[str] = set()
        self._recent: deque[tuple[float, str]] = deque()
        self._stamps: dict[str, Stamp] = {}
        self._trials = Trials()
        self._listed: dict[str, int] = {}

    @property
    def waiting(self) -> int:
        """Files that were seen and not yet used or given up."""
        return len(self._queue) + self._trials.waiting

    @property
    def still(self) -> bool:
        """True: files of one frame are closed, or are looked at again at the end."""
        return True

    def look(self) -> Arrivals | None:
        """See :class:`Watch`."""
        with contextlib.suppress(OSError):  # a hiccup of the file server: at the next look
            self._list()
        now = time.monotonic()
        found: list[tuple[str, Stamp]] = []
        for file in dict.fromkeys([*self._changed(now), *self._refused, *self._queue]):
            stamp = self._settled(file)
            if stamp is not None and self._trials.due((file, 0), stamp, now):
                found.append((file, stamp))
                if len(found) == AT_ONCE:
                    break
        if not found:
            return None
        for file, _ in found:
            self._queue.pop(file, None)
        records = [FrameRecord(file, 0, row, *stamp) for row, (file, stamp) in enumerate(found)]
        arrivals = tuple(
            Arrival((file, 0), row, stamp, _numbers(file))
            for row, (file, stamp) in enumerate(found)
        )
        return Arrivals(self._series.holding(records), arrivals)

    def used(self, arrival: Arrival) -> None:
        """See :class:`Watch`."""
        file = arrival.frame[0]
        self._known.add(file)
        self._originals.add(_original(file))
        self._queue.pop(file, None)
        self._refused.discard(file)
        self._trials.forget(arrival.frame)
        self._stamps[file] = arrival.stamp
        self._recent.append((time.monotonic(), file))

    def refused(self, arrival: Arrival) -> bool:
        """See :class:`Watch`."""
        self._refused.add(arrival.frame[0])
        return self._trials.refused(arrival.frame, arrival.stamp, time.monotonic())

    def _list(self) -> None:
        """Find new names where a folder has changed."""
        new: list[Path] = []
        for name in self._frames:
            path = Path(name)
            if path.is_dir():
                changed = path.stat().st_mtime_ns
                # Within a clock tick of the file system a folder changes unnoticed.
                if self._listed.get(name) == changed and time.time_ns() - changed > 1e9:
                    continue
                # A hundred thousand names at every look: text, and no path for those known.
                prefix = os.path.join(name, "")  # noqa: PTH118
                files = (prefix + entry for entry in os.listdir(name))  # noqa: PTH208
                new += [Path(file) for file in files if file not in self._known]
                self._listed[name] = changed
            elif os.path.lexists(path):
                new.append(path)
            else:
                new += matching(name)
        fresh = [path for path in new if str(path) not in self._known and self._belongs(path)]
        for path in natural_sort(fresh):
            self._known.add(str(path))
            self._queue[str(path)] = None

    def _belongs(self, path: Path) -> bool:
        """Whether a file is a frame of the series by its name; said once where it is not."""
        name = path.name
        if name.startswith(".") or image_suffix(name) != self._suffix or str(path) in self._odd:
            return False
        original = _original(str(path))
        if original in self._originals or pattern(name) not in self._patterns:
            self._odd.add(str(path))
            self._note(f"left out: {path} is no frame of the series by its name, or a copy of one")
            return False
        self._originals.add(original)
        return True

    def _changed(self, now: float) -> Iterator[str]:
        """Files used a moment ago that are not as they were."""
        while self._recent and (
            now - self._recent[0][0] > WATCHED_SECONDS or len(self._recent) > WATCHED_FILES
        ):
            self._recent.popleft()
        for _, file in self._recent:
            stamp = _stamp(file)
            if stamp is not None and stamp != self._stamps[file]:
                yield file

    def _settled(self, file: str) -> Stamp | None:
        """Its stamp; None if it is gone, or changed so recently that a change could hide."""
        stamp = _stamp(file)
        if stamp is None:
            self._known.discard(file)
            self._originals.discard(_original(file))
            self._queue.pop(file, None)
            self._refused.discard(file)
            self._trials.forget((file, 0))
            return None
        return None if 0 <= time.time_ns() - stamp[1] < FRESH * 1e9 else stamp


class ReopenWatch:
    """Files of many frames, HDF5 above all, opened again when they have changed.

    In a file whose writer uses SWMR this sees what was flushed; another writer must close the file
    now and then.
    """

    growing = True

    def __init__(self, frames: Sequence[str]) -> None:
        self._frames = tuple(frames)
        self._used: set[Frame] = set()
        self._trials = Trials()
        self._more = False
        self._seen: list[tuple[str, int, int]] = []
        self._names = {os.path.basename(name.partition("::")[0]) for name in frames}  # noqa: PTH119
        self._looked = self._changed = -np.inf

    @property
    def waiting(self) -> int:
        """Frames that were seen and not yet used or given up."""
        return self._trials.waiting + self._more

    @property
    def still(self) -> bool:
        """True if no file has changed for a while: a file changes as its writer closes it."""
        return time.monotonic() - self._changed > STILL

    def look(self) -> Arrivals | None:
        """See :class:`Watch`."""
        now = time.monotonic()
        try:
            seen = self._beside()
        except OSError:
            return None
        changed = self._own(seen) != self._own(self._seen)
        if changed:
            self._changed = now
        same = seen == self._seen and now - self._looked < LEAST_LOOKS
        if same and not self._more and not self._trials.waiting:
            return None
        self._seen, self._looked = seen, now
        try:
            source = open_frames(self._frames)
            files = {record.file.partition("::")[0] for record in source.records}
            self._names |= {os.path.basename(file) for file in files}  # noqa: PTH119
            found = list(itertools.islice(self._due(source, now), AT_ONCE + 1))
        except (InputError, InputMissingError, OSError, RuntimeError, KeyError, ValueError):
            found = []  # being written: its parts do not fit together at this moment
        if changed and not found:
            # HDF5 shows a file as it was as long as anything of it is open in this process, and
            # an error may keep a handle in a circle of references.
            gc.collect()
        if not found:
            self._more = False
            return None
        self._more = len(found) > AT_ONCE
        return Arrivals(source, tuple(found[:AT_ONCE]))

    def used(self, arrival: Arrival) -> None:
        """See :class:`Watch`."""
        self._used.add(arrival.frame)
        self._trials.forget(arrival.frame)

    def refused(self, arrival: Arrival) -> bool:
        """See :class:`Watch`."""
        return self._trials.refused(arrival.frame, arrival.stamp, time.monotonic())

    def _due(self, source: FrameSource, now: float) -> Iterator[Arrival]:
        for row, record in enumerate(source.records):
            frame = frame_of(record)
            if record.problem or frame in self._used:
                continue
            stamp = stamp_of(record)
            if self._trials.due(frame, stamp, now):
                yield Arrival(frame, row, stamp, (record.index,))

    def _own(self, stamps: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
        """Those of the files that hold the frames: others beside them may change for ever."""
        return [stamp for stamp in stamps if os.path.basename(stamp[0]) in self._names]  # noqa: PTH119

    def _beside(self) -> list[tuple[str, int, int]]:
        """Stamps of all files beside the frames: data files appear there."""
        found = []
        for folder in {base_folder(name) for name in self._frames}:
            with os.scandir(folder) as entries:
                for entry in entries:
                    stamp = _stamp(entry.path)
                    if stamp is not None:
                        found.append((entry.path, *stamp))
        return sorted(found)


class Fingerprinted:
    """A source that keeps a digest of the content of every frame it hands out."""

    def __init__(self, source: FrameSource) -> None:
        self._source = source
        self.digests: dict[int, str] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def fetch(self, row: int) -> Encoded | NDArray[Any]:
        """The pixels, remembered by their digest."""
        pixels = self._source.fetch(row)
        self.digests[row] = digest(pixels)
        return pixels

    def as_source(self) -> FrameSource:
        """The same, as what it stands for."""
        return cast(FrameSource, self)


def digest(pixels: Encoded | NDArray[Any]) -> str:
    """A name for the content of a frame, 32 hexadecimal digits."""
    content = pixels.data if isinstance(pixels, Encoded) else pixels.tobytes()
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def frame_of(record: FrameRecord) -> Frame:
    """Which frame a record is of."""
    return os.path.abspath(record.file), record.place  # noqa: PTH100 - h5::path


def base_folder(name: str) -> Path:
    """The folder that paths of frames are told relative to: an argument's innermost folder."""
    path = Path(name.partition("::")[0]).absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _stamp(file: str) -> Stamp | None:
    try:
        result = os.stat(file)  # noqa: PTH116 - thousands of files
    except OSError:
        return None
    return result.st_size, result.st_mtime_ns


def _original(file: str) -> str:
    folder, name = os.path.split(file)
    return os.path.join(folder, original_name(name))  # noqa: PTH118


def _numbers(file: str) -> tuple[int, ...]:
    """Every number in the name; of a suffix only if it is a counter (``a.0001``)."""
    name = os.path.basename(file)  # noqa: PTH119
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    found = re.findall(r"\d+", name if suffix[1:].isdigit() else stem)
    return tuple(int(number) for number in found)
