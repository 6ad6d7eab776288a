"""Are the compressed chunks of a frame whole? Asked before HDF5 decodes them.

The filters of HDF5 trust the sizes in a chunk: a damaged one makes them read and write outside
their memory, or take as much as it says.
"""

from __future__ import annotations

import itertools
import math
import struct
import zlib
from collections.abc import Callable

import h5py

from xrdpipe.bounds import UNPACKED

GZIP, SHUFFLE, FLETCHER32, BITSHUFFLE, LZ4, ZSTD, BLOSC, BLOSC2 = (
    1, 2, 3, 32008, 32004, 32015, 32001, 32026,
)  # fmt: skip
"""Numbers of filters, as registered with The HDF Group."""

GZIP_EXPANDS = 1032
"""A deflated byte holds at most so many (zlib, technical details)."""

SHUFFLED_BLOCK = 8192
"""Bytes of a bitshuffle block where the header leaves it open (bitshuffle)."""


def check_chunks(data: h5py.Dataset, index: tuple[int, ...] | None = None) -> None:
    """Raise OSError if a chunk cannot hold what it should.

    Parameters
    ----------
    index
        Of a frame along the axes before the last two; None looks at all chunks.
    """
    place, check = _check_of(data)
    if check is None or data.chunks is None:
        return
    size = math.prod(data.chunks) * data.dtype.itemsize
    found: list[h5py.h5d.StoreInfo] = []
    if index is None:
        data.id.chunk_iter(found.append)
    else:
        frame = [slice(i, i + 1) for i in index] + [slice(0, n) for n in data.shape[-2:]]
        starts = [
            range(part.start // n * n, part.stop, n)
            for part, n in zip(frame, data.chunks, strict=True)
        ]
        found = [data.id.get_chunk_info_by_coord(at) for at in itertools.product(*starts)]
    for info in found:
        stored = info.byte_offset is not None and not info.filter_mask >> place & 1
        if stored and (check is not _gzip or info.size * GZIP_EXPANDS > UNPACKED):
            check(data.id.read_direct_chunk(info.chunk_offset)[1], size, data.dtype.itemsize)


Check = Callable[[bytes, int, int], None]
"""Looks at a chunk that must decode to a number of bytes, of items of a number of bytes."""


def _check_of(data: h5py.Dataset) -> tuple[int, Check | None]:
    """Number of the filter that compresses, and what looks at its chunks; None if nothing has to.

    Raises
    ------
    OSError
        For filters upon each other, whose sizes cannot be known beforehand.
    """
    filters = data.id.get_create_plist()
    codes = [filters.get_filter(number)[0] for number in range(filters.get_nfilters())]
    packing = [code for code in codes if code not in (SHUFFLE, FLETCHER32)]
    if not any(code in _CHECKS for code in packing):
        return 0, None
    if len(packing) > 1 or codes.count(FLETCHER32) > (codes[-1] == FLETCHER32):
        raise OSError("it is compressed more than once")
    check = _CHECKS[packing[0]]
    place = codes.index(packing[0])
    if packing[0] == BITSHUFFLE:
        values = filters.get_filter(place)[2]
        if len(values) < 5 or not values[4]:
            return 0, None  # not compressed
    if FLETCHER32 in codes:
        # Four bytes of checksum follow.
        return place, lambda chunk, size, item: check(chunk[:-4], size, item)
    return place, check


def _bitshuffle(chunk: bytes, size: int, item: int) -> None:
    """Size, size of a block, and blocks, each after its compressed size; the rest as it is."""
    if len(chunk) < 12:
        raise OSError(f"its chunk has {len(chunk)} bytes")
    stated, block = struct.unpack_from(">QI", chunk)
    if stated != size:
        raise OSError(f"its chunk states {stated} bytes, expected {size}")
    block = block or SHUFFLED_BLOCK // item // 8 * 8 * item
    if block % (8 * item):
        raise OSError(f"its chunk states blocks of {block} bytes")
    left = size // item % 8 * item
    whole, rest = divmod(size - left, block)
    place = 12
    for _ in range(whole + (rest > 0)):
        if place + 4 > len(chunk):
            raise OSError("its chunk is cut off")
        place += 4 + int(struct.unpack_from(">I", chunk, place)[0])
    if place + left != len(chunk):
        raise OSError(f"its chunk has {len(chunk)} bytes, its blocks {place + left}")


def _lz4(chunk: bytes, size: int, _: int) -> None:
    """Size, size of a block, and blocks, each after its compressed size."""
    if len(chunk) < 12:
        raise OSError(f"its chunk has {len(chunk)} bytes")
    stated, block = struct.unpack_from(">QI", chunk)
    if stated != size or not block:
        raise OSError(f"its chunk states {stated} bytes, expected {size}")
    place = 12
    for first in range(0, size, block):
        if place + 4 > len(chunk):
            raise OSError("its chunk is cut off")
        packed = int(struct.unpack_from(">I", chunk, place)[0])
        if packed > min(block, size - first):
            raise OSError("a block of its chunk is larger than its content")
        place += 4 + packed
    if place > len(chunk):
        raise OSError("its chunk is cut off")


def _gzip(chunk: bytes, size: int, _: int) -> None:
    """HDF5 takes as much memory as the content turns out to need."""
    try:
        content = len(zlib.decompressobj().decompress(chunk, size + 1))
    except zlib.error as error:
        raise OSError(str(error)) from error
    if content > size:
        raise OSError(f"its chunk holds more than the {size} bytes expected")


def _zstd(chunk: bytes, size: int, _: int) -> None:
    """The content size of the frame header (RFC 8878, 3.1.1.1), which HDF5 takes memory for."""
    if len(chunk) < 6 or chunk[:4] != b"\x28\xb5\x2f\xfd":
        raise OSError("its chunk is no zstd frame")
    descriptor = chunk[4]
    single = descriptor >> 5 & 1
    bytes_of = (single, 2, 4, 8)[descriptor >> 6]
    place = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    stated = int.from_bytes(chunk[place : place + bytes_of], "little") + 256 * (bytes_of == 2)
    if bytes_of and stated != size:
        raise OSError(f"its chunk states {stated} bytes, expected {size}")


def _blosc(chunk: bytes, size: int, _: int) -> None:
    """Sizes in the header of c-blosc: content, block, and chunk."""
    if len(chunk) < 16:
        raise OSError(f"its chunk has {len(chunk)} bytes")
    content, _block, packed = struct.unpack_from("<III", chunk, 4)
    if content != size or packed != len(chunk):
        raise OSError(f"its chunk states {content} bytes in {packed}, expected {size}")


_CHECKS: dict[int, Check] = {
    BITSHUFFLE: _bitshuffle,
    LZ4: _lz4,
    GZIP: _gzip,
    ZSTD: _zstd,
    BLOSC: _blosc,
}
