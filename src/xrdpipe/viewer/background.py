"""Work that takes longer than a click, beside the page; of each kind only the latest counts."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

Schedule = Callable[[Callable[[], None]], Any]
"""Has something done in the thread of the page."""


class Background:
    """One thread that does one thing after the other.

    Parameters
    ----------
    schedule
        Brings a result back to the page.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._pool = ThreadPoolExecutor(1)
        self._latest: dict[str, int] = {}

    def start(
        self,
        kind: str,
        work: Callable[[], T],
        then: Callable[[T], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Do ``work`` there, then ``then`` or ``failed`` here, unless the kind was asked anew."""
        number = self.forget(kind)

        def current() -> bool:
            return self._latest[kind] == number

        def carry_out() -> None:
            if not current():
                return
            try:
                result = work()
            except Exception as error:
                problem = error  # the name ends with the clause
                self._schedule(lambda: failed(problem) if current() else None)
                return
            self._schedule(lambda: then(result) if current() else None)

        self._pool.submit(carry_out)

    def forget(self, kind: str) -> int:
        """What is under way of a kind does not count any more."""
        self._latest[kind] = self._latest.get(kind, 0) + 1
        return self._latest[kind]

    def close(self) -> None:
        """End after what is under way."""
        self._latest = dict.fromkeys(self._latest, -1)
        self._pool.shutdown(wait=False, cancel_futures=True)
