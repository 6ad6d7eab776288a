"""The splitting matrix cut into tiles of consecutive pixels, in the order the kernel reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import scipy.sparse as sp

TILE = 1 << 15
"""Pixels per tile: 16 frames of it fit into a core's cache, and a number in it into 16 bits."""


@dataclass(frozen=True)
class Tiles:
    """A matrix of shape (rows, pixels), tile by tile and in each tile row by row.

    Parameters
    ----------
    tile
        Pixels per tile, a power of two.
    rows
        Rows of the matrix.
    tile_runs
        First run of each tile, shape (tiles + 1,).
    run_row
        Row that a run of entries belongs to, shape (runs,).
    run_entries
        First entry of each run, shape (runs + 1,).
    entry_pixel
        Pixel of each entry, counted from the first of its tile.
    entry_coefficient
        Its coefficient.
    pixel_entries, pixel_row, pixel_coefficient
        The same matrix pixel by pixel, as in a CSC array.
    """

    tile: int
    rows: int
    tile_runs: NDArray[np.int64]
    run_row: NDArray[np.int32]
    run_entries: NDArray[np.int64]
    entry_pixel: NDArray[np.uint16]
    entry_coefficient: NDArray[np.float32]
    pixel_entries: NDArray[np.int64]
    pixel_row: NDArray[np.int32]
    pixel_coefficient: NDArray[np.float32]


def tiled(matrix: sp.csc_array[Any], tile: int = TILE) -> Tiles:
    """Cut a matrix into tiles, in time proportional to its entries."""
    rows, pixels = matrix.shape
    run_row, run_length, entry_pixel, coefficient, runs = [], [], [], [], [0]
    for first in range(0, pixels, tile):
        columns = matrix.indptr[first : min(first + tile, pixels) + 1]
        part = slice(columns[0], columns[-1])
        by_row = type(matrix)(
            (matrix.data[part], matrix.indices[part], columns - columns[0]),
            shape=(rows, columns.size - 1),
        ).tocsr()
        length = np.diff(by_row.indptr)
        filled = np.flatnonzero(length)
        run_row.append(filled.astype(np.int32))
        run_length.append(length[filled])
        entry_pixel.append(by_row.indices.astype(np.uint16))
        coefficient.append(by_row.data.astype(np.float32))
        runs.append(runs[-1] + filled.size)
    lengths = np.concatenate(run_length)
    return Tiles(
        tile=tile,
        rows=rows,
        tile_runs=np.array(runs, np.int64),
        run_row=np.concatenate(run_row),
        run_entries=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        entry_pixel=np.concatenate(entry_pixel),
        entry_coefficient=np.concatenate(coefficient),
        pixel_entries=matrix.indptr.astype(np.int64),
        pixel_row=matrix.indices.astype(np.int32),
        pixel_coefficient=matrix.data.astype(np.float32),
    )


@dataclass(frozen=True)
class RingPlan:
    """Pixels by the bin of their centre, as the kernel reads them; None = not needed.

    Parameters
    ----------
    bin
        Of each pixel; the number of bins = in none, −1 = never looked at.
    ring_totals
        Σ norm, Σ 1 / norm² and number of pixels in each bin, shape (bins, 3).
    tile_ring_runs, ring_run_bin, ring_run_entries, ring_entry_pixel, ring_entry_inverse
        Runs of pixels of one bin: first of each tile, bin of a run, first entry of each run,
        pixel of an entry within the tile, 1 / norm.
    sample_start, sample_pixel, sample_norm
        Pixels that statistics are taken of, ascending in each bin.
    edges
        Pixels without a neighbour on the left or on the right.
    ring_start, ring_pixel
        All pixels of each bin, ascending.
    """

    bin: NDArray[np.int32]
    ring_totals: NDArray[np.float64]
    tile_ring_runs: NDArray[np.int64] | None = None
    ring_run_bin: NDArray[np.int32] | None = None
    ring_run_entries: NDArray[np.int64] | None = None
    ring_entry_pixel: NDArray[np.uint16] | None = None
    ring_entry_inverse: NDArray[np.float32] | None = None
    sample_start: NDArray[np.int64] | None = None
    sample_pixel: NDArray[np.int32] | None = None
    sample_norm: NDArray[np.float32] | None = None
    edges: NDArray[np.int32] | None = None
    ring_start: NDArray[np.int64] | None = None
    ring_pixel: NDArray[np.int32] | None = None


@dataclass(frozen=True)
class Pixels:
    """What rings are made of, in the order of the stored frame; every array of shape (pixels,).

    Parameters
    ----------
    bins
        Bin of each centre, −1 for none.
    count
        Number of bins.
    valid
        Pixels to look at.
    norm
        Normalisation.
    columns
        Pixels per row.
    """

    bins: NDArray[np.intp]
    count: int
    valid: NDArray[np.bool_]
    norm: NDArray[np.float32]
    columns: int


def ring_plan(
    pixels: Pixels,
    sampled: NDArray[np.intp] | None,
    moments: bool,
    whole: bool,
    tile: int = TILE,
) -> RingPlan:
    """Arrange the pixels of rings.

    Parameters
    ----------
    sampled
        Pixels that statistics are taken of; None = no statistics.
    moments
        Sums for the variance of rings are wanted.
    whole
        All pixels of a ring are wanted at once.
    """
    import scipy.sparse as sp

    count = pixels.count
    looked_at = np.flatnonzero(pixels.valid & (pixels.bins >= 0))
    ring, norm = pixels.bins[looked_at], pixels.norm[looked_at].astype(np.float64)
    totals = [np.bincount(ring, weight, count) for weight in (norm, norm**-2, None)]
    made: dict[str, NDArray[Any]] = {}
    if moments or whole:
        inside = np.zeros(pixels.bins.size + 1, np.int64)
        inside[looked_at + 1] = 1
        matrix = sp.csc_array(
            ((1 / norm).astype(np.float32), ring, np.cumsum(inside)),
            shape=(count, pixels.bins.size),
        )
    if moments:
        runs = tiled(matrix, tile)
        made |= {
            "tile_ring_runs": runs.tile_runs,
            "ring_run_bin": runs.run_row,
            "ring_run_entries": runs.run_entries,
            "ring_entry_pixel": runs.entry_pixel,
            "ring_entry_inverse": runs.entry_coefficient,
        }
    if whole:
        by_ring = matrix.tocsr()
        made |= {
            "ring_start": by_ring.indptr.astype(np.int64),
            "ring_pixel": by_ring.indices.astype(np.int32),
        }
    if sampled is not None:
        by_bin = np.sort(pixels.bins[sampled] << 32 | sampled)
        samples = np.bincount(by_bin >> 32, minlength=count)
        made["sample_start"] = np.concatenate([[0], np.cumsum(samples)])
        made["sample_pixel"] = (by_bin & 0xFFFFFFFF).astype(np.int32)
        made["sample_norm"] = pixels.norm[made["sample_pixel"]]
        rows = pixels.valid.reshape(-1, pixels.columns)
        alone = np.pad(~rows, ((0, 0), (1, 1)), constant_values=True)
        made["edges"] = np.flatnonzero(rows & (alone[:, :-2] | alone[:, 2:])).astype(np.int32)
    return RingPlan(
        bin=np.where(pixels.valid, np.where(pixels.bins < 0, count, pixels.bins), -1).astype(
            np.int32
        ),
        ring_totals=np.stack(totals, axis=1).astype(np.float64),
        **made,
    )
