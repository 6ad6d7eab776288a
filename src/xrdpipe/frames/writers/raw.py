"""Frames behind a binary header: Princeton Instruments (SPE) and GE flat panels.

Neither has a place for motors or a monitor.
"""

from __future__ import annotations

import contextlib
import struct
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from xrdpipe.frames.writers.images import MultiFrame, several_per_file
from xrdpipe.frames.writers.series import Put, Series


class _Raw(MultiFrame):
    """A header of fixed length that counts the frames behind it, uint16."""

    def __init__(self, stream: BinaryIO, series: Series) -> None:
        super().__init__(stream, series)
        stream.write(self.header(0))

    def header(self, frames: int) -> bytes:
        raise NotImplementedError

    def append(self, index: int, image: NDArray[Any]) -> None:
        self.stream.write(np.ascontiguousarray(image, "<u2").tobytes())

    def finish(self) -> None:
        self.stream.seek(0)
        self.stream.write(self.header(self.frames))


class _Spe(_Raw):
    """4100 bytes (Princeton Instruments, 'WinX file structure', version 2.x)."""

    def header(self, frames: int) -> bytes:
        rows, columns = self.series.shape
        head = bytearray(4100)
        for place, code, value in (
            (6, "H", columns),
            (10, "f", self.series.detector.exposure),
            (18, "H", rows),
            (42, "H", columns),
            (108, "h", 3),  # unsigned integers of 16 bits
            (656, "H", rows),
            (1446, "i", frames),
        ):
            struct.pack_into(f"<{code}", head, place, value)
        head[20:29] = b"01Jan2000"
        head[172:178] = b"000000"
        return bytes(head)


class _Ge(_Raw):
    """8192 bytes (GE a-Si, standard header of ADEPT, version 8001)."""

    def header(self, frames: int) -> bytes:
        rows, columns = self.series.shape
        head = bytearray(8192)
        head[:5] = b"ADEPT"
        struct.pack_into("<HIHIHHHH", head, 10, 8001, 8192, 0, 0, frames, rows, columns, 16)
        return bytes(head)


def spe(series: Series) -> contextlib.AbstractContextManager[Put]:
    """``NAME_00001.spe`` … with the frames of a line each."""
    return several_per_file(series, "spe", _Spe)


def ge(series: Series) -> contextlib.AbstractContextManager[Put]:
    """``NAME_00001.ge2`` … with the frames of a line each."""
    return several_per_file(series, "ge2", _Ge)
