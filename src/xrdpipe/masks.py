"""Mask algebra, and where the shipped masks lie. Convention everywhere: True = masked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import InputError
from xrdpipe.types import BoolArray, Mask


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


def without_measurement(image: NDArray[Any], sentinels: Sequence[float]) -> BoolArray:
    """Pixels whose raw value says 'no measurement': sentinels, and what is no number."""
    invalid = ~np.isfinite(image) if image.dtype.kind == "f" else np.zeros(image.shape, bool)
    for sentinel in sentinels:
        limits = np.iinfo(image.dtype) if image.dtype.kind in "ui" else np.finfo(image.dtype)
        if limits.min <= sentinel <= limits.max and (
            image.dtype.kind == "f" or float(sentinel).is_integer()
        ):
            invalid |= image == image.dtype.type(sentinel)
    return invalid


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
