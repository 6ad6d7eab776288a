"""When a scan that is followed is over."""

from __future__ import annotations

from pathlib import Path

from xrdpipe.errors import OptionError

TIMEOUT = 60.0
"""Seconds without a new frame after which a scan counts as over."""


class Ends:
    """Whichever comes first.

    Parameters
    ----------
    expect
        Number of frames, lost ones included; None = not known.
    timeout
        Seconds without a new frame, counted from the first one; None = a minute.
    marker
        A file that appears at the end; frames that are there by then are still taken.

    Raises
    ------
    OptionError
        If a number makes no sense.
    """

    def __init__(
        self,
        expect: int | None = None,
        timeout: float | None = None,
        marker: str | Path | None = None,
    ) -> None:
        if expect is not None and expect < 1:
            raise OptionError(f"--expect {expect}: expected a number of frames, 1 or more.")
        if timeout is not None and not timeout > 0:
            raise OptionError(f"--timeout {timeout:g}: expected seconds, more than 0.")
        self.expect = expect
        self.timeout = TIMEOUT if timeout is None else timeout
        self._marker = None if marker is None else Path(marker)

    @property
    def marked(self) -> str:
        """The end marker if it is there, else an empty text."""
        return str(self._marker) if self._marker is not None and self._marker.exists() else ""
