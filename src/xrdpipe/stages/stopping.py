"""Stopping on request: what is under way is finished and kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from xrdpipe.errors import InterruptedRunError


class Stop:
    """True once somebody asked to stop, by Ctrl-C or by SIGTERM as batch systems do."""

    def __init__(self) -> None:
        self.signal = 0

    def __call__(self) -> bool:
        """Whether to stop."""
        return bool(self.signal)

    def check(self, done: str) -> None:
        """Raise InterruptedRunError if so; ``done`` says what is kept."""
        if self.signal:
            raise InterruptedRunError(
                f"stopped by {signal.Signals(self.signal).name}: {done}; "
                "run the same command to continue.",
                self.signal,
            )


@contextmanager
def stopping() -> Iterator[Stop]:
    """Note the first SIGINT or SIGTERM instead of dying of it; the second stops at once.

    Only the main thread can do this; elsewhere signals do what they did.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def asked(number: int, frame: FrameType | None) -> None:
        if stop.signal:
            usual = before[number]
            if callable(usual):
                usual(number, frame)
            raise KeyboardInterrupt
        stop.signal = number

    before = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, asked)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
