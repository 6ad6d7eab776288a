"""Every file layout xrdpipe reads, as a generator: the fixtures of tests/test_layouts.py.

Each generator writes what the real writer writes (names, attributes, dtypes, compression), small.
The table of docs/inputs.md is made from this registry, so that each of its cells is a test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHAPE = (32, 40)
"""Rows and columns of the small frames; no detector has them, no reader may care."""


def some_frames(n: int, dtype: str = "u4", seed: int = 0, shape=SHAPE) -> NDArray[Any]:
    """(n, rows, columns) different frames without zeros, sentinels or symmetry."""
    random = np.random.default_rng(seed)
    ramp = 20 + np.arange(shape[0])[:, None] + 3 * np.arange(shape[1])
    return (random.poisson(ramp, (n, *shape)) + 1).astype(dtype)


@dataclass(frozen=True)
class Built:
    """One example of a layout on disk and what a reader must find in it.

    Parameters
    ----------
    paths
        What the user types.
    frames
        Shape (n, rows, columns), native dtype, in order; rows that are lost may hold anything.
    numbers
        Acquisition number of each record; None = the files give none.
    status
        Expected ``frames/status`` per record after reading (1 ok, 2 missing, …); None = all ok.
    kind
        A phrase that ``source.kind`` contains.
    positions
        Column name → values per frame.
    hint
        Expected ``source.scan`` fields.
    monitor
        (name, values) of a counter as ``--monitor`` names it.
    exposure, wavelength, distance, saturation, bit_depth
        As in the metadata: s, Å, m, raw counts, bits.
    pixel_mask
        Shape (rows, columns), nonzero = unusable.
    """

    paths: tuple[str, ...]
    frames: NDArray[Any]
    numbers: tuple[int, ...] | None
    kind: str
    status: tuple[int, ...] | None = None
    positions: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    hint: Mapping[str, Any] = field(default_factory=dict)
    monitor: tuple[str, NDArray[np.float64]] | None = None
    exposure: float | None = None
    wavelength: float | None = None
    distance: float | None = None
    saturation: float | None = None
    bit_depth: int | None = None
    pixel_mask: NDArray[Any] | None = None


Build = Callable[[Path], Built]


@dataclass(frozen=True)
class Layout:
    """A row of the table: the good example, and one per kind of damage.

    Parameters
    ----------
    name
        As in the table.
    written_by
        Who writes it.
    build
        Writes the whole example with all metadata the layout has into an empty folder.
    damages
        Kind of damage (a column of the table: ``missing``, ``unwritten``, ``damaged``,
        ``wrong shape``, ``duplicate``) → the example with it; ``status`` says what must come out.
    """

    name: str
    written_by: str
    build: Build
    damages: Mapping[str, Build] = field(default_factory=dict)


DAMAGES = ("missing", "unwritten", "damaged", "wrong shape", "duplicate")


def all_layouts() -> list[Layout]:
    """Every layout, in the order of the probes."""
    from layouts.hdf5 import HDF5_LAYOUTS
    from layouts.images import IMAGE_LAYOUTS

    return [*HDF5_LAYOUTS, *IMAGE_LAYOUTS]
