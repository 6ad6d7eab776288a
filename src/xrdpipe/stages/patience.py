"""Reading again what a network file system or a busy disk refused for a moment."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable
from typing import TypeVar

from xrdpipe.errors import FrameError
from xrdpipe.schema import FrameStatus

Result = TypeVar("Result")

PAUSES = (0.1, 0.5, 2.0)
"""Between the tries, in s: hiccups of file servers last that long, or much longer."""

_TRANSIENT = frozenset(
    number
    for name in (
        "EIO", "EAGAIN", "EBUSY", "EINTR", "ESTALE", "ETIMEDOUT", "ENOLCK", "EREMOTEIO", "ENETDOWN",
        "ENETUNREACH", "ENETRESET", "ECONNRESET", "ECONNABORTED", "EHOSTDOWN", "EHOSTUNREACH",
    )
    if (number := getattr(errno, name, None)) is not None
)  # fmt: skip

_IN_TEXT = re.compile(r"errno = (\d+)")
"""How the HDF5 library tells the number."""


def patiently(read: Callable[[], Result]) -> tuple[Result, bool]:
    """What ``read`` returns, tried again after errors that may pass; and whether it had to be.

    Raises
    ------
    FrameError
        The last one; its reason tells how often was tried.
    """
    for tries in range(len(PAUSES) + 1):
        try:
            return read(), tries > 0
        except OSError as error:
            passing = is_transient(error)
            if not passing or tries == len(PAUSES):
                raise _told(error, tries + 1 if passing else 1) from error
        time.sleep(PAUSES[tries])
    raise AssertionError("the last try returns or raises")


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
