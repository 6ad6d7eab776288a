"""The classical methods by name."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from xrdpipe.classical.factorisation import Factorisation
from xrdpipe.classical.least_squares import LeastSquares
from xrdpipe.classical.matched_filter import MatchedFilter
from xrdpipe.errors import OptionError, did_you_mean
from xrdpipe.types import FloatArray, Grid, PhaseLibrary


class Method(Protocol):
    """Patterns to features of a decision per phase."""

    @property
    def features(self) -> int:
        """Number of features F."""

    def scores(self, intensity: FloatArray, coverage: FloatArray) -> NDArray[np.float64]:
        """Features (N, K, F) of patterns (N, points); all 0 where a phase has no line."""


def make_method(name: str, library: PhaseLibrary, grid: Grid) -> Method:
    """Prepare a method for phases and a grid.

    Raises
    ------
    OptionError
        Unknown name.
    InputError
        A phase has no line on the grid.
    """
    kinds: dict[str, type[MatchedFilter] | type[LeastSquares] | type[Factorisation]] = {
        "matched-filter": MatchedFilter,
        "nnls": LeastSquares,
        "nmf": Factorisation,
    }
    if name not in kinds:
        raise OptionError(f"unknown classical method '{name}'.{did_you_mean(name, kinds)}")
    return kinds[name].of(library, grid)
