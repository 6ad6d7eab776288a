"""Mask algebra, and where the shipped masks lie. Convention everywhere: True = masked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import InputError
from xrdpipe.types import BoolArray, Mask

MOSTLY_MASKED = 0.5
"""A mask of more than this part of the pixels may be inverted."""


@dataclass(frozen=True)
class Component:
    """One reason for which pixels are masked.

    Parameters
    ----------
    name
        One word: ``hot``, ``shadow`` …
    source
        What decided, with its threshold, for people.
    pixels
        Shape (rows, columns), True = masked.
    """

    name: str
    source: str
    pixels: BoolArray

    @property
    def count(self) -> int:
        """Number of pixels; one pixel may have several reasons."""
        return int(np.count_nonzero(self.pixels))


def reason_bits(components: Sequence[Component], shape: tuple[int, int]) -> NDArray[np.uint32]:
    """Why each pixel is masked: bit i is set by component i; 0 = not masked."""
    bits = np.zeros(shape, np.uint32)
    for number, component in enumerate(components):
        bits[component.pixels] |= np.uint32(1 << number)
    return bits


def with_halo(seed: BoolArray, radius: int) -> BoolArray:
    """Grow ``seed`` by a disc: every pixel within ``radius`` pixels of it."""
    grown = seed.copy()
    rows, columns = seed.shape
    at = np.argwhere(seed)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if 0 < dy**2 + dx**2 <= radius**2:
                y, x = at[:, 0] + dy, at[:, 1] + dx
                inside = (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
                grown[y[inside], x[inside]] = True
    return grown


def inside_polygon(corners: Sequence[tuple[float, float]], shape: tuple[int, int]) -> BoolArray:
    """Pixels whose centre lies inside a polygon, by the even-odd rule.

    Parameters
    ----------
    corners
        (column, row) of each corner; pixel centres have whole numbers.
    shape
        Rows and columns.
    """
    rows, columns = np.arange(shape[0])[:, None], np.arange(shape[1])[None, :]
    inside = np.zeros(shape, bool)
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        if y0 == y1:
            continue
        crossed = (rows >= min(y0, y1)) & (rows < max(y0, y1))
        inside ^= crossed & (columns < x0 + (rows - y0) * (x1 - x0) / (y1 - y0))
    return inside


def combine(masks: Sequence[Mask]) -> Mask:
    """Unite masks of one shape; every source is kept.

    Raises
    ------
    InputError
        If there is none, or shapes differ.
    """
    if not masks:
        raise InputError("no masks to combine.")
    shapes = {mask.pixels.shape for mask in masks}
    if len(shapes) != 1:
        raise InputError(f"masks of different shapes cannot be combined: {sorted(shapes)}.")
    pixels = np.logical_or.reduce([mask.pixels for mask in masks])
    return Mask(pixels, tuple(source for mask in masks for source in mask.sources))


def describe_masks(mask: Mask) -> list[str]:
    """One sentence for each source: how much it masks, and whether it may be inverted."""
    sentences = []
    for name, pixels, _ in mask.sources:
        fraction = pixels / mask.pixels.size
        if fraction > MOSTLY_MASKED:
            sentences.append(
                f"warning: mask {name} masks {fraction:.1%} of the pixels; is it inverted? "
                "Nonzero means masked"
            )
        else:
            sentences.append(f"mask {name}: {fraction:.1%} of the pixels masked")
    return sentences


def without_measurement(image: NDArray[Any], sentinels: Sequence[float]) -> BoolArray:
    """Pixels whose raw value says 'no measurement': sentinels, and what is no number."""
    invalid = ~np.isfinite(image) if image.dtype.kind == "f" else np.zeros(image.shape, bool)
    for sentinel in sentinels:
        invalid |= equal_to(image, sentinel)
    return invalid


def equal_to(image: NDArray[Any], value: float) -> BoolArray:
    """Pixels of that value as the dtype stores it: nowhere if it cannot."""
    number = _stored(value, image.dtype)
    if number is None:
        return np.zeros(image.shape, bool)
    return np.asarray(image == number, bool)


def _stored(value: float, dtype: np.dtype[Any]) -> Any:
    """A value as the dtype stores it; None if it cannot."""
    limits = np.iinfo(dtype) if dtype.kind in "ui" else np.finfo(dtype)
    if value == float(limits.max):
        value = limits.max  # 2^64-1 is 2^64 once it has been a float
    if not limits.min <= value <= limits.max or (dtype.kind != "f" and value != int(value)):
        return None
    return dtype.type(value)


def as_stored(values: Sequence[float], dtype: np.dtype[Any]) -> tuple[float, ...]:
    """Values that a pixel of the dtype can have, as it stores them; the others occur nowhere."""
    held = []
    for value in values:
        number = _stored(value, dtype)
        if number is not None:
            held.append(float(number))
    return tuple(dict.fromkeys(held))


def fraction_inside(part: BoolArray, whole: BoolArray) -> float:
    """Fraction of the pixels of ``part`` that lie in ``whole``, 0-1; NaN for an empty part."""
    count = int(part.sum())
    return float((part & whole).sum() / count) if count else float("nan")


def shipped_folder(kind: str) -> Path:
    """The folder of shipped ``masks`` or ``pipelines``: in the wheel, or in the checkout."""
    package = Path(__file__).parent
    installed = package / {"masks": "masks_shipped", "pipelines": "pipelines"}[kind]
    return installed if installed.is_dir() else package.parents[1] / kind


def shipped_masks() -> dict[str, Path]:
    """Name → file of the masks that ship with xrdpipe."""
    folder = shipped_folder("masks")
    if not folder.is_dir():
        return {}
    return {
        path.name.split(".")[0]: path
        for path in sorted(folder.iterdir())
        if path.suffix in {".tif", ".edf", ".npy", ".gz"}
    }
