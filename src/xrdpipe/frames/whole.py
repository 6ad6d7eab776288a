"""Is an image file whole? Asked before fabio reads it.

Cut or damaged bytes can make fabio run for ever (CBF, TIFF), write outside its memory (mar345),
or give pixels nobody measured.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from xrdpipe.errors import FrameError
from xrdpipe.frames.headers import CBF_START, is_tiff, open_stream, tiff_pages
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
            elif start.startswith(b"###CBF") or ".cbf" in file.suffixes:
                check_cbf(stream.read())
            elif start[:4] in _MAR345:
                _check_mar345(stream.read())
    except FrameError:
        raise
    except FileNotFoundError as error:
        raise FrameError(FrameStatus.MISSING, f"{file} does not exist") from error
    except (ValueError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FrameError(FrameStatus.CORRUPT, f"{file} is damaged: {error}") from error
    except OSError as error:
        raise FrameError(FrameStatus.UNREADABLE, f"{file} cannot be opened: {error}") from error


_STRIP_OFFSETS, _STRIP_BYTES = 273, 279


def _check_tiff(stream: BinaryIO) -> None:
    """Directories and pixels must lie inside the file."""
    pages = tiff_pages(stream)
    size = stream.seek(0, 2)
    if not pages:
        raise ValueError("the TIFF holds no image")
    for page in pages:
        offsets, lengths = _as_tuple(page.get(_STRIP_OFFSETS)), _as_tuple(page.get(_STRIP_BYTES))
        end = max((at + n for at, n in zip(offsets, lengths, strict=False)), default=0)
        if end > size:
            raise ValueError(f"truncated, {size} bytes of {end}")


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
    needed = first + int(stated.group(1))
    if len(content) < needed:
        raise ValueError(f"truncated, {len(content)} bytes of at least {needed}")
    checksum = re.search(rb"Content-MD5:\s*(\S+)", content[:start])
    digest = hashlib.md5(content[first:needed], usedforsecurity=False).digest()
    if checksum is not None and base64.b64encode(digest) != checksum.group(1):
        raise ValueError("its pixels do not match their checksum")


_MAR345 = {struct.pack("<i", 1234): "<", struct.pack(">i", 1234): ">"}
_PACKED = re.compile(rb"\nCCP4 packed image( V2)?, X: (\d+), Y: (\d+)\n")
_BITS = (0, 4, 5, 6, 7, 8, 16, 32)
_BITS_V2 = (0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 32)
"""Bits per pixel by their code in the head of a block (CCP4 pack_c)."""


def _check_mar345(content: bytes) -> None:
    """The packed blocks must hold as many pixels as the header says, neither fewer nor more."""
    match = _PACKED.search(content)
    if match is None or len(content) < 64:
        raise ValueError("the packed image of the mar345 is not there")
    wanted = struct.unpack(_MAR345[content[:4]] + "i", content[20:24])[0]
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
