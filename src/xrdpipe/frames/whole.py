"""Is an image file whole? Asked before fabio reads it.

Cut or damaged bytes can make fabio run for ever (CBF, TIFF), write outside its memory (mar345),
or give pixels nobody measured.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import math
import re
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from xrdpipe.bounds import LARGEST_FRAME
from xrdpipe.errors import FrameError
from xrdpipe.frames.headers import (
    CBF_START,
    EDF_TYPES,
    edf_headers,
    is_cbf,
    is_other_brace,
    is_tiff,
    open_stream,
    tiff_pages,
)
from xrdpipe.schema import FrameStatus


def check_whole(file: Path) -> None:
    """Raise FrameError for what is not there, cannot be opened, is empty, cut short or damaged.

    Formats that state no sizes and no checksum are left to their reader.
    """
    try:
        if file.stat().st_size == 0:
            raise FrameError(FrameStatus.CORRUPT, f"{file} is empty (0 bytes)")
        with open_stream(file) as stream:
            start = stream.read(16)
            stream.seek(0)
            if is_tiff(start):
                _check_tiff(stream)
            elif start.lstrip().startswith(b"{") and not is_other_brace(file, start):
                _check_edf(stream)
            elif is_cbf(file, start):
                check_cbf(stream.read())
            elif start[:2] in _MAR345_STARTS or re.search(r"\.mar\d+$", file.name):
                _check_mar345(stream.read())
    except FrameError:
        raise
    except FileNotFoundError as error:
        raise FrameError(FrameStatus.MISSING, f"{file} does not exist") from error
    except (ValueError, OverflowError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FrameError(FrameStatus.CORRUPT, f"{file} is damaged: {error}") from error
    except OSError as error:
        raise FrameError(FrameStatus.UNREADABLE, f"{file} cannot be opened: {error}") from error


_COLUMNS, _ROWS, _STRIP_OFFSETS, _STRIP_BYTES = 256, 257, 273, 279


def _check_tiff(stream: BinaryIO) -> None:
    """Directories and pixels must lie inside the file, and be as many as an image has."""
    pages = tiff_pages(stream)
    size = stream.seek(0, 2)
    if not pages:
        raise ValueError("the TIFF holds no image")
    for page in pages:
        offsets, lengths = _as_tuple(page.get(_STRIP_OFFSETS)), _as_tuple(page.get(_STRIP_BYTES))
        end = max((at + n for at, n in zip(offsets, lengths, strict=False)), default=0)
        if end > size:
            raise ValueError(f"truncated, {size} bytes of {end}")
        _check_size(_as_tuple(page.get(_ROWS)), _as_tuple(page.get(_COLUMNS)))


def _check_size(rows: tuple[Any, ...], columns: tuple[Any, ...]) -> None:
    """One number each, and no more pixels than an image has."""
    if not (
        len(rows) == len(columns) == 1 and isinstance(rows[0], int) and isinstance(columns[0], int)
    ):
        raise ValueError("its directory does not say how many pixels there are")
    if not 0 < rows[0] * columns[0] <= LARGEST_FRAME:
        raise ValueError(f"it states {rows[0]} x {columns[0]} pixels, more than an image has")


def _check_edf(stream: BinaryIO) -> None:
    """Sizes that an image has, and pixels in this file, not compressed."""
    headers = edf_headers(stream)
    size = stream.seek(0, 2)
    for header in headers:
        upper = {key.upper(): value for key, value in header.items()}
        axes = {key: value for key, value in upper.items() if re.fullmatch(r"DIM_\d+", key)}
        if set(axes) - {"DIM_1", "DIM_2", "DIM_3"}:
            raise ValueError(f"its header states {max(axes)}; expected two axes")
        pixels = math.prod(int(float(value)) for value in axes.values())
        if not 0 < pixels <= LARGEST_FRAME:
            raise ValueError(f"its header states {' x '.join(axes.values())} pixels")
        packing = upper.get("COMPRESSION", "NONE").strip().upper()
        if not (packing.startswith("NO") or "OFFSET" in packing or not packing):
            raise ValueError(f"its pixels are compressed ({packing}); unpack them first")
        if "EDF_BINARYFILENAME" in upper:
            raise ValueError("its pixels lie in another file, which is not read")
        if float(upper.get("SIZE", 0)) > size:
            raise ValueError(f"truncated, {size} bytes of {upper['SIZE']}")
        kind = np.dtype(EDF_TYPES.get(upper.get("DATATYPE", "").lower(), "u1"))
        if "OFFSET" not in packing and pixels * kind.itemsize > size:
            raise ValueError(f"truncated, {size} bytes for {' x '.join(axes.values())} pixels")


def _as_tuple(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)


def check_cbf(content: bytes) -> None:
    """The pixels must be there, and match their checksum, which fabio does not ask."""
    start = content.find(CBF_START)
    stated = re.search(rb"X-Binary-Size:\s*(\d+)", content[: max(start, 0)])
    if start < 0 or stated is None:
        raise ValueError("the header of the CBF is incomplete")
    first = start + len(CBF_START)
    needed = first + int(stated.group(1)[:18])
    if len(content) < needed:
        raise ValueError(f"truncated, {len(content)} bytes of at least {needed}")
    checksum = re.search(rb"Content-MD5:\s*(\S+)", content[:start])
    digest = hashlib.md5(content[first:needed], usedforsecurity=False).digest()
    if checksum is not None and base64.b64encode(digest) != checksum.group(1):
        raise ValueError("its pixels do not match their checksum")


_MAR345 = {struct.pack("<i", 1234): "<", struct.pack(">i", 1234): ">"}
_MAR345_STARTS = (b"\xd2\x04", b"\x04\xd2", b"\x2d\x04", b"\x04\x2d")
"""What fabio takes for the first two bytes of a mar345."""
_PACKED = re.compile(rb"\nCCP4 packed image( V2)?, X: (\d+), Y: (\d+)\n")
_BITS = (0, 4, 5, 6, 7, 8, 16, 32)
_BITS_V2 = (0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 32)
"""Bits per pixel by their code in the head of a block (CCP4 pack_c)."""


def _check_mar345(content: bytes) -> None:
    """The packed blocks must hold as many pixels as the header says, neither fewer nor more."""
    match = _PACKED.search(content)
    if match is None or len(content) < 64 or content[:4] not in _MAR345:
        raise ValueError("the packed image of the mar345 is not there")
    wanted = struct.unpack(_MAR345[content[:4]] + "i", content[20:24])[0]
    if wanted > LARGEST_FRAME:
        raise ValueError(f"{wanted} pixels stated, more than an image has")
    if int(match.group(2)) * int(match.group(3)) != wanted:
        raise ValueError(f"{wanted} pixels stated, {match.group(2)!r} x {match.group(3)!r} packed")
    bits, width = (_BITS_V2, 4) if match.group(1) else (_BITS, 3)
    mask = (1 << width) - 1
    packed = content[match.end() :] + b"\0\0"
    place, pixels, end = 0, 0, 8 * (len(packed) - 2)
    while pixels < wanted:
        at = place >> 3
        if place >= end:
            raise ValueError(f"truncated, {pixels} of {wanted} pixels")
        head = (packed[at] | packed[at + 1] << 8) >> (place & 7)
        block = 1 << (head & mask)
        pixels += block
        place += 2 * width + block * bits[head >> width & mask]
    if pixels > wanted or place > end:
        raise ValueError(f"its packed blocks hold {pixels} pixels of {wanted}, and bits beyond")
