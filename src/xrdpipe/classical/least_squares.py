"""Non-negative least squares: patterns as sums of phases on a smooth background.

The background is a cubic spline with a weak pull to smoothness (Eilers & Marx, Stat. Sci. 11, 89
(1996)); it is eliminated from the normal equations, so that only the K scale factors are left to
be kept non-negative. Everything runs over a batch of patterns at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline

from xrdpipe.classical.matched_filter import (
    LINE_SPREAD,
    VISIBLE,
    all_matches,
    correlate,
    likeliest,
    trusted,
)
from xrdpipe.classical.observed import Observed, observe
from xrdpipe.classical.templates import (
    LARGEST_STRAIN,
    Templates,
    default_strains,
    make_templates,
)
from xrdpipe.types import FloatArray, Grid, PhaseLibrary

KNOTS_APART = 1.0
"""Degrees between the knots of the background; more on a wide range."""

MOST_KNOTS = 40

STIFFNESS = 1e-4
"""Weight of the squared second differences, relative to that of the data."""

ABOVE = 1.5
"""Standard deviations above the model from which a bin counts less (Huber, Ann. Math. Stat. 35,
73 (1964), on the upper side only): more intensity can be another phase or a spot, less cannot."""

ROUNDS = 3
"""Times that the weights of the bins are renewed."""

SWEEPS = 200
"""Rounds of coordinate descent at most."""

BLOCK = 15
"""Bins of a block: about one line."""

SUPPORT = 0.02
"""Part of its maximum above which a template counts as being near one of its lines."""

TINY = 1e-300

Array = NDArray[np.float64]
Array32 = NDArray[np.float32]


@dataclass(frozen=True)
class Fit:
    """What was found in N patterns.

    Parameters
    ----------
    scale
        Shape (N, K): area of each phase's strongest line, intensity x degree; NaN where no line
        of the phase is covered.
    error
        Same shape, its standard deviation from counting and the misfit; correlations between
        neighbouring bins, which share pixels, are not in it.
    strain
        Same shape, isotropic strain Δd/d.
    width
        Shape (N,), FWHM in degrees.
    misfit
        Shape (N,), χ² per bin.
    free
        Shape (N, R): scale of the free components.
    background, unexplained, weight
        Shape (N, n): spline, what neither it nor the phases explain, and the weight of each bin.
    features
        Shape (N, K, 7), for the decision; 0 where no line is covered.
    """

    scale: Array
    error: Array
    strain: Array
    width: Array
    misfit: Array
    free: Array
    background: Array
    unexplained: Array
    weight: Array
    features: Array


@dataclass(frozen=True)
class LeastSquares:
    """Scores from a fit of all phases at once.

    Parameters
    ----------
    templates
        Of the phases.
    spline
        Shape (n, B), values of the background's B-splines in the bins.
    components
        Shape (R, n), patterns of anything else with lines, ≥ 0; usually none.
    """

    templates: Templates
    spline: Array
    components: Array32

    @classmethod
    def of(cls, library: PhaseLibrary, grid: Grid) -> LeastSquares:
        """Prepare it for phases and a grid."""
        templates = make_templates(library, grid, default_strains(grid))
        bins = len(templates.two_theta)
        return cls(templates, spline_basis(templates.two_theta), np.zeros((0, bins), np.float32))

    @property
    def features(self) -> int:
        """Number of features of the decision."""
        return 7

    def scores(self, intensity: FloatArray, coverage: FloatArray) -> Array:
        """Features of the decision, (N, K, 7)."""
        return self.fit(observe(intensity, coverage, self.templates.together)).features

    def fit(self, observed: Observed) -> Fit:
        """Fit scale factors, strains, zero shifts, a line width and a background."""
        chosen = self._first_shapes(observed)
        weight = trusted(observed)
        solved = self._solve(weight, observed.intensity, chosen.shapes)
        chosen = self._improved(weight, solved, chosen)
        for _ in range(ROUNDS):
            weight = _reweighted(observed, solved)
            solved = self._solve(weight, observed.intensity, chosen.shapes)
        return self._summary(weight, solved, chosen)

    def _choose(self, width: NDArray[np.int64], distortion: NDArray[np.int64]) -> _Chosen:
        """Templates of each pattern, and the free components."""
        phases = np.arange(self.templates.values.shape[1])
        shapes = self.templates.values[width[:, None], phases, distortion]
        if len(self.components):
            free = np.broadcast_to(self.components, (len(shapes), *self.components.shape))
            shapes = np.concatenate([shapes, free], axis=1)
        return _Chosen(width, distortion, shapes)

    def _first_shapes(self, observed: Observed) -> _Chosen:
        """The width that explains most with the distortion that each phase likes best alone."""
        best = likeliest(self.templates, all_matches(self.templates, observed))
        number, widths, _ = best.shape
        weight = trusted(observed)
        gains = []
        for index in range(widths):
            shapes = self._choose(np.full(number, index), best[:, index]).shapes
            gains.append(self._solve(weight, observed.intensity, shapes).gain)
        width = np.argmax(gains, axis=0)
        return self._choose(width, best[np.arange(number), width])

    def _improved(self, weight: Array, solved: _Solved, chosen: _Chosen) -> _Chosen:
        """Distortion of each phase where the others, taken off the pattern, do not disturb it."""
        distortion = chosen.distortion.copy()
        for phase in range(distortion.shape[1]):
            alone = solved.residual + solved.scale[:, phase, None] * chosen.shapes[:, phase]
            for index in np.unique(chosen.width):
                rows = np.flatnonzero(chosen.width == index)
                values = self.templates.values[index, phase]
                score = correlate(weight[rows], alone[rows], values)
                distortion[rows, phase] = likeliest(self.templates, score)
        return self._choose(chosen.width, distortion)

    def _solve(self, weight: Array, intensity: Array, shapes: Array32) -> _Solved:
        """Weighted fit of scale factors ≥ 0 and of the background."""
        spline = self.spline
        bins, knots = spline.shape
        pairs = (spline[:, :, None] * spline[:, None, :]).reshape(bins, -1)
        matrix = (weight @ pairs).reshape(-1, knots, knots)
        size = np.trace(matrix, axis1=1, axis2=2)[:, None, None] / knots
        # A pattern without data gets any matrix that can be solved.
        matrix += np.where(size > 0, size, 1) * _stiffness(knots)
        weighted = shapes * weight[:, None]
        sides = np.concatenate([weighted, (weight * intensity)[:, None]], axis=1) @ spline
        solution = np.linalg.solve(matrix, np.swapaxes(sides, 1, 2))
        last = shapes.shape[1]
        normal = weighted @ np.swapaxes(shapes, 1, 2) - sides[:, :last] @ solution[..., :last]
        right = np.einsum("nkj,nj->nk", weighted, intensity)
        right -= np.einsum("nkb,nb->nk", sides[:, :last], solution[..., last])
        full = np.square(shapes).sum(axis=2, dtype=np.float64)
        largest = weight.max(axis=1, keepdims=True)
        seen = np.einsum("nkj,nkj->nk", weighted, shapes) > VISIBLE * full * largest
        scale = non_negative(normal, right, seen)
        knots_values = solution[..., last] - np.einsum("nbk,nk->nb", solution[..., :last], scale)
        background = knots_values @ spline.T
        lines = np.einsum("nk,nkj->nj", scale, shapes)
        gain = np.einsum("nk,nk->n", 2 * right - np.einsum("nkl,nl->nk", normal, scale), scale)
        return _Solved(
            scale, normal, right, seen, background, lines, intensity - background - lines, gain
        )

    def _summary(self, weight: Array, solved: _Solved, chosen: _Chosen) -> Fit:
        known = chosen.distortion.shape[1]
        bins = np.maximum((weight > 0).sum(axis=1), 1)
        misfit = np.einsum("nj,nj->n", weight, solved.residual**2) / bins
        error = np.sqrt(_inverse_diagonal(solved.normal, solved.seen))
        error *= np.sqrt(np.maximum(misfit, 1))[:, None]
        seen = solved.seen[:, :known]
        free = solved.scale[:, known:]
        features = self._features(weight, solved, chosen, misfit)
        return Fit(
            scale=np.where(seen, solved.scale[:, :known], np.nan),
            error=np.where(seen, error[:, :known], np.nan),
            strain=self.templates.strains[chosen.distortion],
            width=self.templates.widths[chosen.width],
            misfit=misfit,
            free=free,
            background=solved.background,
            unexplained=solved.residual + free @ self.components,
            weight=weight,
            features=np.where(seen[..., None], features, 0),
        )

    def _features(self, weight: Array, solved: _Solved, chosen: _Chosen, misfit: Array) -> Array:
        """What speaks for each phase, (N, K, 7), with all others taken off the pattern.

        Standard deviations above 0; the same without the block of bins that speaks most for it,
        which may be a spot; agreement of shape around its lines; height relative to it and the
        background; share of all scale factors; squared strain; misfit of the pattern.
        """
        known = chosen.distortion.shape[1]
        shapes, scale = chosen.shapes[:, :known], solved.scale[:, :known]
        alone = solved.residual[:, None] + scale[..., None] * shapes
        weighted = shapes * weight[:, None]
        blocks = np.arange(0, shapes.shape[2], BLOCK)
        top = np.add.reduceat(weighted * alone, blocks, axis=2)
        norm = np.add.reduceat(weighted * shapes, blocks, axis=2)
        best = np.argmax(top, axis=2)[..., None]
        other_top, other_norm = (
            part.sum(axis=2) - np.take_along_axis(part, best, axis=2)[..., 0]
            for part in (top, norm)
        )
        diagonal = np.einsum("nkk->nk", solved.normal)[:, :known]
        pull = solved.right - np.einsum("nkl,nl->nk", solved.normal, solved.scale)
        own = pull[:, :known] + diagonal * scale
        top_of_shape = shapes.max(axis=2)
        near = shapes > SUPPORT * top_of_shape[..., None]
        power = np.einsum("nkj,nj,nkj->nk", near, weight, alone**2)
        level = np.maximum(np.median(solved.background, axis=1, keepdims=True), 0)
        height = scale * top_of_shape
        total = scale.sum(axis=1, keepdims=True)
        features = [
            np.arcsinh(own / _root(diagonal)),
            np.arcsinh(other_top / _root(other_norm)),
            top.sum(axis=2) / _root(power * norm.sum(axis=2)),
            np.log(height / np.maximum(level + height, TINY) + 1e-3),
            scale / np.maximum(total, TINY),
            (self.templates.strains[chosen.distortion] / LARGEST_STRAIN) ** 2,
            np.broadcast_to(np.log(np.maximum(misfit, 1e-2))[:, None], scale.shape),
        ]
        return np.stack(features, axis=2)


def _root(values: Array) -> Array:
    return np.sqrt(np.maximum(values, TINY))


@dataclass(frozen=True)
class _Chosen:
    """Templates that are fitted: width (N,) and distortion (N, K) by number, patterns (N, K, n)."""

    width: NDArray[np.int64]
    distortion: NDArray[np.int64]
    shapes: Array32


@dataclass(frozen=True)
class _Solved:
    """One weighted fit; shapes (N, K), (N, K, K), (N, n) and (N,)."""

    scale: Array
    normal: Array
    right: Array
    seen: NDArray[np.bool_]
    background: Array
    lines: Array
    residual: Array
    gain: Array


def spline_basis(two_theta: Array) -> Array:
    """Values of cubic B-splines with equidistant knots, shape (n, B)."""
    span = two_theta[-1] - two_theta[0]
    pieces = int(np.clip(round(span / KNOTS_APART), 2, MOST_KNOTS))
    inner = np.linspace(two_theta[0], two_theta[-1], pieces + 1)
    step = inner[1] - inner[0]
    knots = np.concatenate(
        [inner[0] + step * np.arange(-3, 0), inner, inner[-1] + step * np.arange(1, 4)]
    )
    values: Array = BSpline.design_matrix(two_theta, knots, 3).toarray()
    return values


def _stiffness(knots: int) -> Array:
    """Squared second differences as a matrix, and a trace of what keeps splines without data."""
    second = np.diff(np.eye(knots), 2, axis=0)
    penalty: Array = STIFFNESS * second.T @ second + 1e-9 * np.eye(knots)
    return penalty


def _reweighted(observed: Observed, solved: _Solved) -> Array:
    """Weights from counting, from the spread of line intensities, and less far above the model."""
    variance = 1 + observed.weight * (LINE_SPREAD * solved.lines) ** 2
    weight = observed.weight / variance
    high = np.sqrt(weight) * solved.residual / ABOVE
    return np.asarray(weight / np.maximum(high, 1), np.float64)


def non_negative(normal: Array, right: Array, seen: NDArray[np.bool_]) -> Array:
    """Minimise sᵀ M s − 2 bᵀ s over s ≥ 0, by cyclic coordinate descent.

    Parameters
    ----------
    normal, right
        M, shape (N, K, K), and b, shape (N, K).
    seen
        Shape (N, K); s is 0 where False.

    Returns
    -------
    s, shape (N, K).
    """
    diagonal = np.einsum("nkk->nk", normal)
    usable = seen & (diagonal > 0)
    size = np.sqrt(np.where(usable, diagonal, 1))
    scaled = normal / size[:, :, None] / size[:, None, :]
    target = np.where(usable, right / size, 0)
    found = np.zeros_like(target)
    for _ in range(SWEEPS):
        before = found.copy()
        for k in range(found.shape[1]):
            rest = target[:, k] - np.einsum("nl,nl->n", scaled[:, k], found) + found[:, k]
            found[:, k] = np.where(usable[:, k], np.maximum(rest, 0), 0)
        if np.all(np.abs(found - before) <= 1e-7 * (1e-300 + np.abs(found).max(axis=1))[:, None]):
            break
    return np.asarray(found / size, np.float64)


def _inverse_diagonal(normal: Array, seen: NDArray[np.bool_]) -> Array:
    """Diagonal of the inverses, with what is not seen taken out, shape (N, K)."""
    both = seen[:, :, None] & seen[:, None, :]
    size = np.sqrt(np.maximum(np.einsum("nkk->nk", normal), 1e-300))
    scaled = np.where(both, normal / size[:, :, None] / size[:, None, :], 0)
    # Phases with the same lines cannot be told apart: large errors, not a failure.
    scaled += np.where(both, 1e-9, 1) * np.eye(normal.shape[1])
    inverse: Array = np.einsum("nkk->nk", np.linalg.inv(scaled)) / size**2
    return np.maximum(inverse, 0)
