"""mar345 image plates: uint32, CCP4-packed. No place for motors or a monitor.

Packed here because fabio's packer writes outside its memory for some images (2026.6).
"""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe import __version__
from xrdpipe.frames.writers.images import one_per_file
from xrdpipe.frames.writers.series import START, Put, Series

HEADER = 4096
LINE = 64
"""Bytes of the header, and of each of its lines ('mar345 Image Formats', X-ray Research)."""

BYTE_ORDER_MARK = 1234
LARGEST = 32767
"""Brighter pixels stand in a table before the packed ones, with their true values.

Scanners list those above 65535; from here on, no difference needs the blocks of 32 bits, which
fabio reads as zeros.
"""

PER_RECORD = 8
"""Pixels per record of that table."""

BLOCK = 7
"""Pixels are packed in blocks of two to this power."""

BITS = np.array([0, 4, 5, 6, 7, 8, 16, 32])
"""Bits per pixel of a block, by the code in its head."""


def mar345(series: Series) -> contextlib.AbstractContextManager[Put]:
    """``NAME_00001.mar3450`` …, one frame each."""

    def write(path: Path, index: int, image: NDArray[Any]) -> None:
        rows, columns = image.shape
        bright = np.flatnonzero(image > LARGEST)
        table = np.zeros((-(-bright.size // PER_RECORD) * PER_RECORD, 2), "<u4")
        table[: bright.size, 0] = bright + 1
        table[: bright.size, 1] = image.flat[bright]
        title = f"\nCCP4 packed image, X: {columns:04d}, Y: {rows:04d}\n".encode()
        path.write_bytes(_header(series, bright.size) + table.tobytes() + title + packed(image))

    return one_per_file(series, "mar3450", write)


def _header(series: Series, bright: int) -> bytes:
    known = series.detector
    rows, columns = series.shape
    size_y, size_x = known.pixel_size
    x, y = known.beam_centre
    numbers = (
        BYTE_ORDER_MARK,
        columns,
        bright,
        1,  # compressed
        1,  # exposed for a time
        rows * columns,
        round(1e6 * size_x),  # µm
        round(1e6 * size_y),
        round(1e6 * known.wavelength),
        round(1e6 * known.distance),
    )
    lines = {
        "PROGRAM": f"xrdpipe {__version__}",
        "DATE": START,
        "SCANNER": "0",
        "FORMAT": f"{columns}  PCK {rows * columns}",
        "HIGH": f"{bright}",
        "PIXEL": f"LENGTH {1e6 * size_x:.0f}  HEIGHT {1e6 * size_y:.0f}",
        "WAVELENGTH": f"{known.wavelength:.6g}",
        "DISTANCE": f"{1e3 * known.distance:.6g}",
        "CENTER": f"X {x:.3f}  Y {y:.3f}",
        "MODE": "TIME",
        "TIME": f"{known.exposure:g}",
    }
    text = [f"{'mar research':<{LINE - 1}}"]
    text += [f"{key:<15}{value}".ljust(LINE - 1) for key, value in lines.items()]
    binary = struct.pack("<10i", *numbers).ljust(LINE, b"\0")
    return (binary + "\n".join([*text, "END OF HEADER"]).encode()).ljust(HEADER)


def packed(image: NDArray[Any]) -> bytes:
    """Pack the pixels as CCP4's ``pack_c`` (version 1) does: differences, in blocks.

    A pixel is predicted by the one before it, from the second row on by the mean of the one before
    it and the three above. Each block begins with two codes of three bits: its length and the bits
    of each of its differences.
    """
    columns = image.shape[1]
    values = np.minimum(image, LARGEST).astype(np.int32).ravel()
    difference = values.copy()
    difference[1 : columns + 1] -= values[:columns]
    above = values[: -columns - 1] + values[1:-columns] + values[2 : values.size - columns + 1]
    difference[columns + 1 :] -= (values[columns:-1] + above + 2) // 4

    full, rest = divmod(values.size, 1 << BLOCK)
    power = np.array([BLOCK] * full + [p for p in range(BLOCK) if rest >> p & 1])
    length = 1 << power
    start = np.cumsum(length) - length
    magnitude = np.maximum.reduceat(np.where(difference < 0, ~difference, difference), start)
    zero = ~np.logical_or.reduceat(difference != 0, start)
    code = np.searchsorted(BITS, np.where(zero, 0, np.frexp(magnitude)[1] + 1))
    width = BITS[code]
    end = np.cumsum(6 + length * width)

    bits = np.zeros(end[-1], np.uint8)
    head = end - (6 + length * width)
    for k in range(3):
        bits[head + k] = power >> k & 1
        bits[head + 3 + k] = code >> k & 1
    for each in np.unique(width[width > 0]):
        pixels = np.flatnonzero(np.repeat(width == each, length))
        block = np.repeat(np.arange(length.size), length)[pixels]
        place = head[block] + 6 + (pixels - start[block]) * each
        for k in range(each):
            bits[place + k] = difference[pixels] >> k & 1
    return np.packbits(bits, bitorder="little").tobytes()
