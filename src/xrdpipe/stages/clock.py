"""Where the time of a run goes, added up over threads."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


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

    def each(self, work: str, items: Iterable[Item]) -> Iterator[Item]:
        """Hand on the items, counting the time they take to come as ``work``."""
        iterator = iter(items)
        while True:
            with self(work):
                item = next(iterator, None)
            if item is None:
                return
            yield item

    def read(self) -> dict[str, float]:
        """Seconds so far, by kind of work, to the microsecond."""
        with self._lock:
            return {work: round(seconds, 6) for work, seconds in self._seconds.items()}
