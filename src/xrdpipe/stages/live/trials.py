"""Frames that cannot be used yet: when to look again, and when to give up."""

from __future__ import annotations

from dataclasses import dataclass

from xrdpipe.types import FrameRecord

STILL = 3.0
"""A file that has not changed for so many seconds will not become whole any more."""

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""Seconds between two tries: each pause is twice the one before."""

Stamp = tuple[int, int]
"""Size and modification time (ns) of a file."""


def stamp_of(record: FrameRecord) -> Stamp:
    """What tells whether the file of a frame has changed."""
    return record.size, record.mtime_ns


@dataclass
class _Trial:
    """What is known of one frame.

    Parameters
    ----------
    stamp
        Of its file at the last try.
    still_since
        When the file was first seen like that.
    next_try, pause
        When to try again, and how long was waited for that.
    given_up
        True if nothing but a change of the file is waited for.
    """

    stamp: Stamp
    still_since: float
    next_try: float
    pause: float
    given_up: bool = False


class Trials:
    """Keeps count of the frames that were refused; times are seconds of a steady clock."""

    def __init__(self) -> None:
        self._trials: dict[tuple[str, int], _Trial] = {}

    def due(self, frame: tuple[str, int], stamp: Stamp, now: float) -> bool:
        """Whether to try a frame: at first, and when its file has changed or time has passed."""
        trial = self._trials.get(frame)
        if trial is None:
            return True
        if trial.stamp != stamp:
            trial.stamp, trial.still_since = stamp, now
            if trial.given_up:
                del self._trials[frame]
                return True
        return not trial.given_up and now >= trial.next_try

    def refused(self, frame: tuple[str, int], stamp: Stamp, now: float) -> bool:
        """Note a try in vain; returns True if it was the last."""
        trial = self._trials.get(frame)
        if trial is None:
            self._trials[frame] = _Trial(stamp, now, now + FIRST_PAUSE, FIRST_PAUSE)
            return False
        if trial.stamp != stamp:
            trial.stamp, trial.still_since = stamp, now
        trial.pause = min(2 * trial.pause, LONGEST_PAUSE)
        trial.next_try = now + trial.pause
        trial.given_up = now - trial.still_since >= STILL
        return trial.given_up

    def forget(self, frame: tuple[str, int]) -> None:
        """A frame was used."""
        self._trials.pop(frame, None)

    @property
    def waiting(self) -> int:
        """Frames that will be tried again."""
        return sum(not trial.given_up for trial in self._trials.values())
