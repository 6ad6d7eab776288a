"""Where the time of a run goes, added up over threads."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds spent on each kind of work; several threads may spend them at once."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, work: str) -> Iterator[None]:
        """Count the time of a block as ``work``."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - begun
            with self._lock:
                self._seconds[work] += spent

    def read(self) -> dict[str, float]:
        """Seconds so far, by kind of work, to the millisecond."""
        with self._lock:
            return {work: round(seconds, 3) for work, seconds in self._seconds.items()}
