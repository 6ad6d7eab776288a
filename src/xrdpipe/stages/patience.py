"""Reading again what a network file system or a busy disk refused for a moment."""

from __future__ import annotations

import errno
import re
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from xrdpipe.errors import EnvironmentProblemError, FrameError
from xrdpipe.schema import FrameStatus

Result = TypeVar("Result")

OUTAGE = 8
"""Frames one after the other that a file server refuses: then it is not the frames."""

PAUSES = (0.1, 0.5, 2.0)
"""Between the tries, in s: hiccups of file servers last that long, or much longer."""

_TRANSIENT = frozenset(
    number
    for name in (
        "EIO", "EAGAIN", "EBUSY", "EINTR", "ESTALE", "ETIMEDOUT", "ENOLCK", "EREMOTEIO", "ENETDOWN",
        "ENETUNREACH", "ENETRESET", "ECONNRESET", "ECONNABORTED", "ENOTCONN", "EHOSTDOWN",
        "EHOSTUNREACH",
    )
    if (number := getattr(errno, name, None)) is not None
)  # fmt: skip

_IN_TEXT = re.compile(r"errno = (\d+)")
"""How the HDF5 library tells the number."""


class Patience:
    """Tries again; gives up the run where nothing can be read any more. Safe in threads."""

    def __init__(self) -> None:
        self._refused = 0
        self._lock = threading.Lock()

    def __call__(self, read: Callable[[], Result]) -> tuple[Result, bool]:
        """What ``read`` returns, tried again after errors that may pass; and whether it had to be.

        Raises
        ------
        FrameError
            The last one; its reason tells how often was tried.
        EnvironmentProblemError
            If that has happened to OUTAGE frames, with none read between.
        """
        for tries in range(len(PAUSES) + 1):
            try:
                result = read()
            except OSError as error:
                passing = is_transient(error)
                if not passing or tries == len(PAUSES):
                    self._count(passing, error)
                    raise _told(error, tries + 1 if passing else 1) from error
            else:
                self._count(False)
                return result, tries > 0
            time.sleep(PAUSES[tries])
        raise AssertionError("the last try returns or raises")

    def _count(self, refused: bool, error: OSError | None = None) -> None:
        with self._lock:
            self._refused = self._refused + 1 if refused else 0
            if self._refused >= OUTAGE:
                raise EnvironmentProblemError(
                    f"{self._refused} frames one after the other cannot be read ({error}): the "
                    "disk or file server fails; run the same command when it works again."
                ) from error


def _told(error: OSError, tries: int) -> FrameError:
    status = error.status if isinstance(error, FrameError) else FrameStatus.UNREADABLE
    reason = error.reason if isinstance(error, FrameError) else f"it cannot be read: {error}"
    return FrameError(status, reason + (f" (tried {tries} times)" if tries > 1 else ""))


def is_transient(error: BaseException | None) -> bool:
    """True if the system gave an error that may pass as the reason of this one."""
    while error is not None:
        if isinstance(error, OSError) and not isinstance(error, FrameError):
            match = _IN_TEXT.search(str(error))
            number = error.errno if match is None else int(match[1])
            if number in _TRANSIENT:
                return True
        error = error.__cause__ or error.__context__
    return False
