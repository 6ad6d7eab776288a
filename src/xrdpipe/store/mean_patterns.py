"""Mean patterns of groups of pixels, in one pass over a patterns file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import InputError
from xrdpipe.store.patterns import PatternsFile
from xrdpipe.types import BoolArray

ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class MeanPattern:
    """The mean of some rows of a patterns file, bin by bin over the rows that have data there.

    Parameters
    ----------
    intensity
        Shape (bins,), NaN where no row has data.
    intensity_errors
        Same shape: the rows' standard errors, added in quadrature and divided by their number;
        None where the file has none. What differs between pixels is not in it.
    rows
        How many rows were asked for and have data anywhere.
    """

    intensity: NDArray[np.float64]
    intensity_errors: NDArray[np.float64] | None
    rows: int


def mean_patterns(
    source: PatternsFile,
    members: BoolArray,
    read: Callable[[int], None] = lambda rows: None,
    errors: bool = True,
) -> list[MeanPattern]:
    """Mean pattern of each group.

    Parameters
    ----------
    source
        An open patterns file of N rows.
    members
        Shape (M, N), True where a row belongs to a group.
    read
        Called with the number of rows read so far.
    errors
        Whether they are wanted: without, half as much is read.

    Raises
    ------
    InputError
        If ``members`` does not have a column per row.
    """
    groups, columns = members.shape
    if columns != source.n_rows:
        raise InputError(
            f"{source.path} has {source.n_rows} rows; expected {columns}: the map belongs to other "
            "patterns."
        )
    has_errors = errors and "I_errors" in source.signals
    bins = source.radial_axis.size
    total, variance = np.zeros((groups, bins)), np.zeros((groups, bins))
    count, rows = np.zeros((groups, bins)), np.zeros(groups, np.int64)
    wanted: BoolArray = np.any(members, axis=0)
    for first in range(0, source.n_rows, ROWS_AT_ONCE):
        last = min(first + ROWS_AT_ONCE, source.n_rows)
        if wanted[first:last].any():
            intensity = source.signal("I", first, last)
            weight = members[:, first:last].astype(np.float64)
            there = np.isfinite(intensity)
            total += weight @ np.where(there, intensity, 0)
            # Most bins have data in every row or in none: only the others are counted one by one.
            always = there.all(axis=0)
            sometimes = there.any(axis=0) & ~always
            count += weight.sum(axis=1)[:, None] * always
            count[:, sometimes] += weight @ there[:, sometimes]
            rows += (members[:, first:last] & there.any(axis=1)).sum(axis=1)
            if has_errors:
                sigma = source.signal("I_errors", first, last)
                variance += weight @ np.where(there, sigma, 0).astype(np.float64) ** 2
        read(last)
    seen = count > 0
    number = np.where(seen, count, 1)
    mean = np.where(seen, total / number, np.nan)
    deviation = np.where(seen, np.sqrt(variance) / number, np.nan)
    return [
        MeanPattern(mean[m], deviation[m] if has_errors else None, int(rows[m]))
        for m in range(groups)
    ]
