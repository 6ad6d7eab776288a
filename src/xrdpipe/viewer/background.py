"""Work that takes longer than a click, beside the page; of each kind only the latest counts."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from bokeh.document import Document

MOMENT = 40
"""Milliseconds."""

T = TypeVar("T")


class Background:
    """One thread that does one thing after the other.

    Parameters
    ----------
    document
        Of the page: results come back to its thread.
    """

    def __init__(self, document: Document) -> None:
        self._schedule = document.add_next_tick_callback
        self._later = document.add_timeout_callback
        self._asked: set[str] = set()
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

    def soon(self, kind: str, then: Callable[[], None]) -> None:
        """Do something in a moment, once for all that ask until then: a slider asks often."""
        if kind not in self._asked:
            self._asked.add(kind)

            def carry_out() -> None:
                self._asked.discard(kind)
                then()

            self._later(carry_out, MOMENT)

    def forget(self, kind: str) -> int:
        """What is under way of a kind does not count any more."""
        self._latest[kind] = self._latest.get(kind, 0) + 1
        return self._latest[kind]

    def close(self) -> None:
        """End after what is under way."""
        self._latest = dict.fromkeys(self._latest, -1)
        self._pool.shutdown(wait=False, cancel_futures=True)
