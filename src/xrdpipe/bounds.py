"""How large an input may be: what lies beyond is refused before memory is taken for it.

A few bytes of a file can claim any size, and a compressed one can hold it. The bounds are far above
what detectors write and far below what a computer can hold; nothing else depends on them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

from xrdpipe.errors import InputError, XrdpipeError

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]

LARGEST_FRAME = 20_000 * 20_000
"""Pixels of one image. Detectors have up to 18 million (Eiger2 16M); this is 20 times as many."""

MOST_FRAMES = 4_000_000
"""Frames of one series: a map of 2000 x 2000. Each costs up to 400 bytes of memory."""

MOST_VALUES = 100_000_000
"""Numbers in one table, column or map: 25 phases on the largest map."""

MOST_BINS = 200_000
"""Points of one pattern: 180 degrees in steps of 0.001."""

UNPACKED = 1 << 29
"""Bytes that a compressed file, or a compressed chunk of HDF5, may hold; gzip and its like can
pack a thousand times as many. The largest frames take 75 MB."""

MOST_NAMES = 10_000
"""Phases of a map."""

LARGEST_TEXT = 10_000_000
"""Bytes of a text that somebody wrote: a pipeline, a calibration, the card of a model."""

LARGEST_TABLE = 1 << 28
"""Bytes of a table: a line of 60 for each frame of the longest series."""

OTHER_FILES = 100
"""Files that a process may need open besides those of one dataset."""

_DAMAGE = (
    OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, IndexError,
    OverflowError, ArithmeticError, SystemError,
)  # fmt: skip
"""What HDF5 and NumPy raise for a file that is damaged, or holds other kinds than expected."""


def check_image(shape: Sequence[int], where: str) -> None:
    """Raise InputError for an image of more pixels than any detector has."""
    if math.prod(shape) > LARGEST_FRAME:
        raise InputError(
            f"{where} claims {' x '.join(str(n) for n in shape)} pixels; no detector image has "
            f"more than {LARGEST_FRAME}, the file is damaged or no series of frames."
        )


def check_frames(count: int, where: str) -> None:
    """Raise InputError for a longer series than can be handled."""
    if count > MOST_FRAMES:
        raise InputError(
            f"{where} claims {count} frames; a series may have {MOST_FRAMES}: the file is damaged, "
            "or has to be divided."
        )


def check_values(count: int, where: str, most: int = MOST_VALUES) -> None:
    """Raise InputError for more numbers than are read into memory at once."""
    if count > most:
        raise InputError(
            f"{where} claims {count} values; at most {most} are read, the file is damaged "
            "or is not what it is used as."
        )


def check_text(size: int, where: str, most: int = LARGEST_TEXT) -> None:
    """Raise InputError for a text that nobody wrote."""
    if size > most:
        raise InputError(
            f"{where} has {size} bytes; expected a text of at most {most}: it is another kind of "
            "file."
        )


def check_open_files(count: int, where: str) -> None:
    """Raise InputError for more files than this process may have open."""
    if resource is None:
        return
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed != resource.RLIM_INFINITY and count > allowed - OTHER_FILES:
        raise InputError(
            f"{where} takes its values from {count} files, and a process may open {allowed} here; "
            "raise that limit (ulimit -n)."
        )


@contextlib.contextmanager
def sound(where: str) -> Iterator[None]:
    """Turn what libraries raise for a damaged file into an InputError that names it.

    A file of a known layout may hold any kind of object at any place: who reads it need not ask
    at each.
    """
    try:
        yield
    except XrdpipeError:
        raise
    except _DAMAGE as error:
        detail = str(error).strip("'\"").splitlines()
        raise InputError(
            f"{where} cannot be read: it is damaged, or not laid out as expected "
            f"({detail[0] if detail else type(error).__name__})."
        ) from error
