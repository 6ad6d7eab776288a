"""Pixels of image files of the simplest kinds, without a library between.

One uncompressed image in a TIFF or EDF is one run of bytes; a CBF is one run of compressed ones.
fabio reads them all, and slowly: it reads and copies more than once. What is not exactly as
expected is left to it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from xrdpipe.bounds import LARGEST_FRAME
from xrdpipe.errors import FrameError
from xrdpipe.frames.headers import (
    CBF_START,
    EDF_END,
    EDF_TYPES,
    HEADER_LIMIT,
    edf_headers,
    is_tiff,
    tiff_pages,
)
from xrdpipe.frames.whole import check_cbf
from xrdpipe.types import Encoded

Shape = tuple[int, int]

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _OFFSETS, _SAMPLES, _LENGTHS, _FORMAT = (
    256, 257, 258, 259, 273, 277, 279, 339,
)  # fmt: skip
"""Tags of TIFF 6.0."""

_TIFF_FORMATS = {"u": 1, "i": 2, "f": 3}


def plain_pixels(file: Path, shape: Shape, dtype: np.dtype[Any]) -> Encoded | NDArray[Any] | None:
    """The pixels of a file that holds one image of this shape and dtype in the simplest way.

    Returns
    -------
    Encoded | NDArray | None
        The compressed pixels of a CBF, which match their checksum; or an image of that shape; or
        None: fabio may read it, or say what is wrong with it.
    """
    if dtype.byteorder == ">":
        return None
    try:
        with file.open("rb") as stream:
            start = stream.read(16)
            if start.startswith(b"###CBF"):
                return _cbf(start + stream.read(), shape, dtype)
            if is_tiff(start):
                first = _tiff_start(stream, shape, dtype)
            elif start.lstrip().startswith(b"{") and file.suffix.lower() == ".edf":
                first = _edf_start(stream, shape, dtype)
            else:
                return None
        if first is None:
            return None
        return np.fromfile(file, dtype, shape[0] * shape[1], offset=first).reshape(shape)
    except (OSError, OverflowError, ValueError, FrameError):
        return None


def byte_offset_pixels(data: bytes, pixels: int) -> NDArray[np.int32]:
    """Decode the binary section of a CBF by fabio, shape (pixels,).

    Raises
    ------
    ValueError
        If it holds fewer pixels.
    """
    from fabio.compression import decByteOffset

    # The longest difference takes 15 bytes, and fabio does not look where the section ends.
    found = np.asarray(decByteOffset(data + bytes(15), pixels)[:pixels], np.int32)
    step = np.diff(found, prepend=np.int32(0))
    size = np.abs(step.astype(np.int64))
    least = found.size + 2 * (size > 127).sum() + 4 * (size > 32767).sum()
    if found.size < pixels or least > len(data):
        raise ValueError(f"its binary section holds fewer than {pixels} pixels")
    return found


def cbf_image(content: bytes) -> NDArray[np.int32]:
    """The image of a CBF of one binary section.

    Raises
    ------
    ValueError
        For another kind of CBF than detectors write, or a damaged one.
    """
    check_cbf(content)
    header, _, rest = content.partition(CBF_START)
    columns = _number(rb"X-Binary-Size-Fastest-Dimension", header) or 0
    rows = _number(rb"X-Binary-Size-Second-Dimension", header) or 0
    if not 0 < rows * columns <= LARGEST_FRAME:
        raise ValueError(f"its header states {rows} x {columns} pixels")
    if _CBF_KIND.search(header) is None or not _is_int32(header):
        raise ValueError("its pixels are no byte offsets of signed 32-bit integers")
    section = rest[: _number(rb"X-Binary-Size", header)]
    if len(section) < rows * columns:
        raise ValueError(f"its binary section holds fewer than {rows * columns} pixels")
    return byte_offset_pixels(section, rows * columns).reshape(rows, columns)


def _is_int32(header: bytes) -> bool:
    return re.search(rb'X-Binary-Element-Type:\s*"signed 32-bit integer"', header) is not None


def _tiff_start(stream: BinaryIO, shape: Shape, dtype: np.dtype[Any]) -> int | None:
    """Where the pixels begin, if they are all there, one after the other."""
    stream.seek(0)
    if stream.read(2) != b"II":
        return None
    pages = tiff_pages(stream)
    if len(pages) != 1:
        return None
    page = pages[0]
    stated = (
        (page.get(_HEIGHT), page.get(_WIDTH)),
        page.get(_BITS),
        page.get(_COMPRESSION, 1),
        page.get(_SAMPLES, 1),
        page.get(_FORMAT, 1),
    )
    if stated != (shape, 8 * dtype.itemsize, 1, 1, _TIFF_FORMATS[dtype.kind]):
        return None
    offsets, lengths = (np.atleast_1d(page.get(tag, ())) for tag in (_OFFSETS, _LENGTHS))
    if not all(isinstance(n, int) for n in (*offsets.tolist(), *lengths.tolist())):
        return None
    size = shape[0] * shape[1] * dtype.itemsize
    if not 0 < offsets.size == lengths.size or int(lengths.sum()) != size:
        return None
    if (offsets[1:] != offsets[:-1] + lengths[:-1]).any():
        return None
    return int(offsets[0])


def _edf_start(stream: BinaryIO, shape: Shape, dtype: np.dtype[Any]) -> int | None:
    """Where the pixels begin, if they are the rest of the file."""
    stream.seek(0)
    headers = edf_headers(stream)
    if len(headers) != 1:
        return None
    header = {key.lower(): value.strip() for key, value in headers[0].items()}
    kind = EDF_TYPES.get(header.get("datatype", "").lower())
    dimensions = header.get("dim_2"), header.get("dim_1")
    stream.seek(0)
    end = EDF_END.search(stream.read(HEADER_LIMIT))
    pixels = shape[0] * shape[1] * dtype.itemsize
    if (
        kind != dtype.str[1:]
        or header.get("byteorder", "").lower() != "lowbytefirst"
        or header.get("compression", "none").lower() not in ("none", "")
        or dimensions != (str(shape[0]), str(shape[1]))
        or end is None
        or os.fstat(stream.fileno()).st_size != end.end() + pixels
    ):
        return None
    return end.end()


_CBF_KIND = re.compile(rb'conversions\s*=\s*"?x-CBF_BYTE_OFFSET"?', re.I)


def _cbf(content: bytes, shape: Shape, dtype: np.dtype[Any]) -> Encoded | None:
    """The binary section, if it holds such an image and matches its checksum."""
    check_cbf(content)
    header, _, rest = content.partition(CBF_START)
    columns = _number(rb"X-Binary-Size-Fastest-Dimension", header)
    rows = _number(rb"X-Binary-Size-Second-Dimension", header)
    size = _number(rb"X-Binary-Size", header)
    if (rows, columns) != shape or not _is_int32(header) or dtype != np.int32 or size is None:
        return None
    if _CBF_KIND.search(header) is None:
        return None
    return Encoded(rest[:size], "byte-offset")


def _number(key: bytes, header: bytes) -> int | None:
    match = re.search(key + rb":\s*(\d+)", header)
    return None if match is None else int(match.group(1)[:18])
