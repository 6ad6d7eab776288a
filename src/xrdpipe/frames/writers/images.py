"""Image files that appear under their name only when they are whole."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray

from xrdpipe.frames.writers.series import Put, Series

Single = Callable[[Path, int, NDArray[Any]], None]
"""Write one file: path, number of the frame from 0, image."""


def unfinished(path: Path) -> Path:
    """Name of a file that is being written; no reader takes it for a frame."""
    return path.with_name(path.name + ".part")


@contextlib.contextmanager
def one_per_file(series: Series, suffix: str, write: Single) -> Iterator[Put]:
    """Write ``NAME_00001.SUFFIX`` … with one frame each."""

    def put(index: int, image: NDArray[Any]) -> None:
        path = series.folder / f"{series.name}_{index + 1:05d}.{suffix}"
        write(unfinished(path), index, image)
        unfinished(path).replace(path)

    yield put


class MultiFrame:
    """A file of several frames that is being written: subclasses know its bytes.

    Parameters
    ----------
    stream
        Of the empty file.
    series
        That the frames belong to.
    """

    def __init__(self, stream: BinaryIO, series: Series) -> None:
        self.stream = stream
        self.series = series
        self.frames = 0

    def append(self, index: int, image: NDArray[Any]) -> None:
        """Add the next frame."""
        raise NotImplementedError

    def finish(self) -> None:
        """Write what is known only at the end: by default nothing."""


@contextlib.contextmanager
def several_per_file(series: Series, suffix: str, kind: type[MultiFrame]) -> Iterator[Put]:
    """Write ``NAME_00001.SUFFIX`` … with the frames of a line each.

    A file that an exception interrupts is removed; one that simply ends early is kept.
    """
    current: tuple[Path, MultiFrame] | None = None

    def close() -> None:
        nonlocal current
        if current is not None:
            path, file = current
            file.finish()
            file.stream.close()
            unfinished(path).replace(path)
            current = None

    def put(index: int, image: NDArray[Any]) -> None:
        nonlocal current
        if current is None:
            number = index // series.per_file + 1
            path = series.folder / f"{series.name}_{number:05d}.{suffix}"
            current = path, kind(unfinished(path).open("wb+"), series)
        current[1].append(index, image)
        current[1].frames += 1
        if current[1].frames == series.per_file:
            close()

    try:
        yield put
        close()
    finally:
        if current is not None:
            current[1].stream.close()
            unfinished(current[0]).unlink(missing_ok=True)
