"""Reading again what a network file system or a busy disk refused for a moment."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable
from typing import TypeVar

from xrdpipe.errors import FrameError

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
    for tries, pause in enumerate(PAUSES):
        try:
            return read(), tries > 0
        except FrameError as error:
            if not is_transient(error):
                raise
        time.sleep(pause)
    try:
        return read(), True
    except FrameError as error:
        if is_transient(error):
            error = FrameError(error.status, f"{error.reason} (tried {len(PAUSES) + 1} times)")
        raise error from error.__cause__


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
