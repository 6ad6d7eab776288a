"""From the order of frames to pixels of the map (decision 19)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import InputError
from xrdpipe.types import IntArray, Scan


def scan_positions(
    shape: tuple[int, int], fast_axis: str = "x", snake: bool = False
) -> NDArray[np.intp]:
    """Pixel of each point in the order of measurement, shape (ny·nx, 2) as (row, column)."""
    ny, nx = shape
    points = nx if fast_axis == "x" else ny
    slow, fast = np.divmod(np.arange(ny * nx), points)
    if snake:
        fast = np.where(slow % 2 == 1, points - 1 - fast, fast)
    return np.stack([slow, fast] if fast_axis == "x" else [fast, slow], axis=1)


def place_frames(
    numbers: IntArray,
    numbered: bool,
    shape: tuple[int, int] | None,
    fast_axis: str = "x",
    snake: bool = False,
    incomplete: bool = False,
) -> Scan:
    """Place rows of a patterns file on the map.

    Parameters
    ----------
    numbers
        Acquisition number of each row.
    numbered
        True if the numbers come from the files and not from counting rows.
    shape
        (ny, nx), or None for one line of all frames.

    Raises
    ------
    InputError
        If the frames do not fit the shape.
    """
    n = int(numbers.size)
    if shape is None:
        shape = (1, n)
    pixels = shape[0] * shape[1]
    fit = f"{n} frames do not fit the scan shape {shape[0]}x{shape[1]} ({pixels} pixels)"
    if n > pixels:
        raise InputError(f"{fit}: give the right --scan-shape, or fewer frames.")
    if n == pixels:
        points = np.arange(n)
    elif numbered and (base := _base(numbers, pixels)) is not None and _distinct(numbers):
        points = numbers.astype(np.intp) - base
    elif incomplete:
        points = np.arange(n)
    else:
        reason = "the frames carry no numbers to place them by"
        if numbered:
            reason = f"their numbers {numbers.min()}-{numbers.max()} lie outside it"
            reason = reason if _distinct(numbers) else "some of them have the same number"
        raise InputError(f"{fit}, and {reason}: use --incomplete to fill pixels in order.")
    where = scan_positions(shape, fast_axis, snake)[points]
    frame_index = np.full(shape, -1, np.int32)
    frame_index[where[:, 0], where[:, 1]] = np.arange(n)
    return Scan(frame_index, fast_axis, snake)


def _distinct(numbers: IntArray) -> bool:
    return np.unique(numbers).size == numbers.size


def _base(numbers: IntArray, pixels: int) -> int | None:
    """Number of the first point: 0 if a frame is numbered 0, else 1; None if they do not fit."""
    low, high = int(numbers.min()), int(numbers.max())
    base = 0 if low == 0 else 1
    return base if low >= base and high - base < pixels else None
