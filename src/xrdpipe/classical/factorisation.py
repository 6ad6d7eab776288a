"""Constrained non-negative factorisation: known phases, and components that no phase explains.

Patterns of a map X ≈ background + S T + A F with S, A, F ≥ 0: the phases T keep their calculated
patterns, the R free components F are found from all patterns of the map at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from xrdpipe.channels import background
from xrdpipe.classical.least_squares import Fit, LeastSquares
from xrdpipe.classical.observed import Observed, observe
from xrdpipe.types import FloatArray, Grid, PhaseLibrary

FREE = 3
"""Free components at most."""

FEWEST_PATTERNS = 16
"""Smaller maps are fitted pattern by pattern."""

ITERATIONS = 40
ROUNDS = 2
"""Steps of the factorisation, and times that the phases are fitted again beside it."""

CLIPPED = 20.0
"""Standard deviations that one bin counts at most: a spot in one pattern is no component."""

CLEAR = 5.0
SHARED = 3
"""A component is kept if it stands that many standard deviations out in that many patterns."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Factorisation:
    """Least squares with free components once a map has been seen.

    Parameters
    ----------
    least_squares
        Holds the components found so far; without any, patterns are fitted one by one.
    """

    least_squares: LeastSquares

    @classmethod
    def of(cls, library: PhaseLibrary, grid: Grid) -> Factorisation:
        """Prepare it for phases and a grid."""
        return cls(LeastSquares.of(library, grid))

    @property
    def components(self) -> NDArray[np.float32]:
        """Free components, shape (R, n); each has a maximum of 1."""
        return self.least_squares.components

    @property
    def features(self) -> int:
        """Number of features of the decision."""
        return self.least_squares.features

    def scores(self, intensity: FloatArray, coverage: FloatArray) -> Array:
        """Features of the decision, (N, K, 7)."""
        return self.least_squares.scores(intensity, coverage)

    def for_map(self, intensity: FloatArray, coverage: FloatArray) -> Factorisation:
        """Find the free components of a map; itself where there are too few patterns.

        Parameters
        ----------
        intensity, coverage
            Shape (N, points), patterns of the map; rows without data do not count.
        """
        method = replace(self.least_squares, components=self.components[:0])
        observed = observe(intensity, coverage, method.templates.together)
        observed = _rows(observed, observed.weight.max(axis=1) > 0)
        if len(observed.weight) < FEWEST_PATTERNS:
            return Factorisation(method)
        components: NDArray[np.float64] | None = None
        for _ in range(ROUNDS):
            fit = method.fit(observed)
            components = free_components(fit, components)
            if not len(components):
                break
            method = replace(method, components=components.astype(np.float32))
        return Factorisation(method)


def _rows(observed: Observed, keep: NDArray[np.bool_]) -> Observed:
    return Observed(observed.intensity[keep], observed.background[keep], observed.weight[keep])


def free_components(fit: Fit, start: Array | None = None) -> Array:
    """Non-negative factors of what a fit left unexplained, (R, n), each with a maximum of 1.

    Hierarchical alternating least squares with weights (Cichocki & Phan, IEICE Trans. Fundam.
    E92-A, 708 (2009)), started from singular vectors (Boutsidis & Gallopoulos, Pattern Recogn. 41,
    1350 (2008)).

    Parameters
    ----------
    fit
        Of all patterns of a map.
    start
        Components to start from.
    """
    root = np.sqrt(fit.weight)
    signal = np.clip(root * fit.unexplained, -CLIPPED, CLIPPED)
    weight = fit.weight
    residual = np.where(weight > 0, signal / np.where(root > 0, root, 1), 0)
    factors = _first(signal) if start is None else start
    amount = np.zeros((len(weight), len(factors)))
    for _ in range(ITERATIONS):
        for r in range(len(factors)):
            rest = weight * (residual - amount @ factors + np.outer(amount[:, r], factors[r]))
            norm = weight @ factors[r] ** 2
            amount[:, r] = np.maximum(rest @ factors[r], 0) / np.where(norm > 0, norm, np.inf)
            rest = weight * (residual - amount @ factors + np.outer(amount[:, r], factors[r]))
            norm = amount[:, r] ** 2 @ weight
            factor = np.maximum(amount[:, r] @ rest, 0) / np.where(norm > 0, norm, np.inf)
            height = factor.max()
            if height > 0:
                factors[r] = factor / height
                amount[:, r] *= height
    # What is smooth belongs to the background, and what is faint is nobody's line.
    lines = np.maximum(factors - background(factors), 0)
    lines[factors * np.sqrt((amount**2).T @ weight) < CLEAR] = 0
    clear = amount * np.sqrt(weight @ (lines**2).T) > CLEAR
    kept = lines[clear.sum(axis=0) >= SHARED]
    scaled: Array = kept / kept.max(axis=1, keepdims=True)
    return scaled


def _first(signal: Array) -> Array:
    """Positive parts of the leading singular vectors of what stands out of the noise."""
    excess = np.maximum(signal - 2, 0)
    length = np.linalg.norm(excess, axis=1, keepdims=True)
    # Each pattern counts the same, however strong its unexplained lines are.
    left, _, right = np.linalg.svd(excess / np.where(length > 0, length, 1), full_matrices=False)
    factors = []
    for r in range(min(FREE, len(right))):
        # Of the two signs, the half with more weight in both factors.
        positive = [
            np.linalg.norm(np.maximum(s * left[:, r], 0))
            * np.linalg.norm(np.maximum(s * right[r], 0))
            for s in (1, -1)
        ]
        vector = np.maximum(right[r] * (1 if positive[0] >= positive[1] else -1), 0)
        factors.append(vector / max(vector.max(), 1e-300))
    return np.array(factors)
