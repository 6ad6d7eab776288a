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
    source: PatternsFile, members: BoolArray, read: Callable[[int], None] = lambda rows: None
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
    bins = source.radial_axis.size
    total, variance = np.zeros((groups, bins)), np.zeros((groups, bins))
    count, rows = np.zeros((groups, bins)), np.zeros(groups, np.int64)
    wanted: BoolArray = np.any(members, axis=0)
    for first in range(0, source.n_rows, ROWS_AT_ONCE):
        part = slice(first, first + ROWS_AT_ONCE)
        if wanted[part].any():
            patterns = source.rows(first, first + ROWS_AT_ONCE)
            weight = members[:, part].astype(np.float64)
            there = np.isfinite(patterns.intensity)
            total += weight @ np.where(there, patterns.intensity, 0)
            count += weight @ there
            rows += (members[:, part] & there.any(axis=1)).sum(axis=1)
            if patterns.intensity_errors is not None:
                variance += weight @ np.where(there, patterns.intensity_errors, 0) ** 2
        read(min(first + ROWS_AT_ONCE, source.n_rows))
    seen = count > 0
    number = np.where(seen, count, 1)
    mean = np.where(seen, total / number, np.nan)
    errors = np.where(seen, np.sqrt(variance) / number, np.nan)
    has_errors = "I_errors" in source.signals
    return [
        MeanPattern(mean[m], errors[m] if has_errors else None, int(rows[m])) for m in range(groups)
    ]
