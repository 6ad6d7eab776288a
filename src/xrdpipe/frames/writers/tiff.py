"""TIFF 6.0, uncompressed: of EPICS areaDetector, single and multi-frame, and of a MarCCD.

The first carry the tags of NDFileTIFF: from 65000 time and number of the frame, from 65010 one
text ``name:value`` per attribute, the motors among them; the image description is that of a
DECTRIS detector.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from xrdpipe import __version__
from xrdpipe.frames.writers.images import MultiFrame, one_per_file, several_per_file
from xrdpipe.frames.writers.minicbf import header_lines
from xrdpipe.frames.writers.series import Put, Series

Tags = dict[int, str | int | float]

SHORTS = frozenset({258, 259, 262, 277, 284, 339})
"""Tags of 16 bits; the other whole numbers have 32."""

STRIP_OFFSETS = 273
FIRST_ATTRIBUTE = 65010


def single(series: Series) -> contextlib.AbstractContextManager[Put]:
    """``NAME_00001.tif`` …, one frame each."""
    attributes = _Attributes(series)

    def write(path: Path, index: int, image: NDArray[Any]) -> None:
        with path.open("wb") as stream:
            stream.write(b"II*\0" + struct.pack("<I", 8))
            _append(stream, image, attributes.of(index))

    return one_per_file(series, "tif", write)


def stack(series: Series) -> contextlib.AbstractContextManager[Put]:
    """``NAME_00001.tif`` …, a page per frame of a line."""
    return several_per_file(series, "tif", _Pages)


class _Pages(MultiFrame):
    def __init__(self, stream: BinaryIO, series: Series) -> None:
        super().__init__(stream, series)
        self.attributes = _Attributes(series)
        stream.write(b"II*\0" + bytes(4))
        self.link = 4

    def append(self, index: int, image: NDArray[Any]) -> None:
        start = self.stream.seek(0, 2)
        self.stream.seek(self.link)
        self.stream.write(struct.pack("<I", start))
        self.stream.seek(start)
        self.link = _append(self.stream, image, self.attributes.of(index))


class _Attributes:
    """Tags of each frame of a series."""

    def __init__(self, series: Series) -> None:
        self._detector = series.detector
        self._columns = series.columns()
        self._description = "\r\n".join(header_lines(series)) + "\r\n"

    def of(self, index: int) -> Tags:
        values = {"AcquireTime": self._detector.exposure}
        values |= {name: float(column[index]) for name, (column, _) in self._columns.items()}
        tags: Tags = {
            270: self._description,
            271: "simulated",
            272: self._detector.name,
            305: f"xrdpipe {__version__}",
            65000: index * self._detector.exposure,
            65001: index + 1,
            65002: int(index * self._detector.exposure),
            65003: 0,
        }
        named = enumerate(values.items(), FIRST_ATTRIBUTE)
        return tags | {tag: f"{name}:{value:.9g}" for tag, (name, value) in named}


def _image_tags(image: NDArray[Any]) -> Tags:
    rows, columns = image.shape
    return {
        256: columns,
        257: rows,
        258: 8 * image.dtype.itemsize,
        259: 1,
        262: 1,
        STRIP_OFFSETS: 0,
        277: 1,
        278: rows,
        279: image.nbytes,
        284: 1,
        339: {"u": 1, "i": 2}[image.dtype.kind],
    }


def _append(stream: BinaryIO, image: NDArray[Any], extra: Tags) -> int:
    """Write directory and pixels at an even place; returns the place of the next link."""
    start = stream.tell()
    tags = _image_tags(image) | extra
    pixels = start + len(_directory(tags, start))
    stream.write(_directory(tags | {STRIP_OFFSETS: pixels}, start))
    stream.write(_bytes(image))
    stream.write(bytes(image.nbytes % 2))
    return start + 2 + 12 * len(tags)


def _bytes(image: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(image, image.dtype.newbyteorder("<")).data.cast("B")


def _directory(tags: Mapping[int, str | int | float], start: int) -> bytes:
    """An image file directory that begins at byte ``start``, with the values that it points to."""
    entries, values = bytearray(struct.pack("<H", len(tags))), bytearray()
    after = start + 2 + 12 * len(tags) + 4
    for tag, value in sorted(tags.items()):
        if isinstance(value, str):
            raw = value.encode() + b"\0"
            kind, count = 2, len(raw)
        elif isinstance(value, float):
            kind, count, raw = 12, 1, struct.pack("<d", value)
        elif tag in SHORTS:
            kind, count, raw = 3, 1, struct.pack("<H", value)
        else:
            kind, count, raw = 4, 1, struct.pack("<I", value)
        entries += struct.pack("<HHI", tag, kind, count)
        if len(raw) > 4:
            entries += struct.pack("<I", after + len(values))
            values += raw + bytes(len(raw) % 2)
        else:
            entries += raw.ljust(4, b"\0")
    return bytes(entries + bytes(4) + values)


MARCCD_PIXELS = 4096
"""Pixels begin here, behind 1024 bytes of TIFF and 3072 of frame header."""


def marccd(series: Series) -> contextlib.AbstractContextManager[Put]:
    """``NAME_00001.mccd`` … as Rayonix detectors write them, uint16. No place for motors."""
    block = _marccd_header(series)

    def write(path: Path, index: int, image: NDArray[Any]) -> None:
        tags = _image_tags(image) | {STRIP_OFFSETS: MARCCD_PIXELS}
        head = b"II*\0" + struct.pack("<I", 8) + _directory(tags, 8)
        path.write_bytes(head.ljust(MARCCD_PIXELS - len(block), b"\0") + block + _bytes(image))

    return one_per_file(series, "mccd", write)


def _marccd_header(series: Series) -> bytes:
    """Frame header of 3072 bytes (Rayonix, 'The marccd Image Header')."""
    detector = series.detector
    rows, columns = series.shape
    bits = 8 * series.dtype.itemsize
    block = bytearray(3072)
    struct.pack_into("<I16s", block, 0, 2, b"MMX")
    struct.pack_into("<II", block, 28, 1234, 1234)
    struct.pack_into("<III", block, 80, columns, rows, series.dtype.itemsize)
    struct.pack_into("<I", block, 96, bits)
    struct.pack_into("<I", block, 104, series.saturation)
    in_thousandths = (
        1e3 * detector.distance,  # mm
        *detector.beam_centre,
        detector.exposure,
        detector.exposure,
    )
    struct.pack_into("<5i", block, 640, *(round(1e3 * value) for value in in_thousandths))
    rows_nm, columns_nm = (round(1e9 * size) for size in detector.pixel_size)
    struct.pack_into("<ii", block, 772, columns_nm, rows_nm)
    struct.pack_into("<i", block, 908, round(1e5 * detector.wavelength))
    return bytes(block)
