"""Everything smooth in a pattern that is no phase: what of each ring is seen, background, shadows.

Smooth functions are held at knots, every ``KNOT`` points of the grid, and joined linearly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.synthesis.counter import Counter, between, log_between
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.types import Grid

KNOT = 10
"""Points of the grid between knots."""

WAVE_RANK = 14
"""Terms of the low-rank Gaussian process."""

GAPS = 3
DIPS = 6

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Knots:
    """Where smooth functions are held, and the shapes that backgrounds are made of.

    Parameters
    ----------
    two_theta, q
        Shape (J,), degrees and 1/Å.
    waves
        Shape (L, WAVE_RANK, J): Gaussian processes of unit variance for L lengths.
    start, step
        First knot and distance, degrees.
    """

    two_theta: Float
    q: Float
    waves: Float
    start: float
    step: float

    def at(self, values: Float, sample: NDArray[np.int64], two_theta: Float) -> Float:
        """Values (N, J) of one sample each at single angles, shape of ``two_theta``."""
        place = np.clip((two_theta - self.start) / self.step, 0, len(self.two_theta) - 1.001)
        below = place.astype(np.int64)
        weight = place - below
        joined: Float = values[sample, below] * (1 - weight) + values[sample, below + 1] * weight
        return joined


def make_knots(grid: Grid, recipe: Recipe) -> Knots:
    """Knots of a grid; the last may lie up to KNOT − 1 points past its end."""
    count = -(-(grid.size - 1) // KNOT) + 1
    step = KNOT * grid.step
    two_theta: Float = grid.start + step * np.arange(count, dtype=np.float64)
    # Powers of q need a grid that starts at 0 to start a little later.
    q = 4 * np.pi * np.sin(np.radians(np.maximum(two_theta, step) / 2)) / grid.wavelength
    return Knots(two_theta, q, _waves(two_theta, recipe.background.lengths), grid.start, step)


def _waves(two_theta: Float, lengths: tuple[float, ...]) -> Float:
    """Low-rank factors of Gaussian processes with a squared-exponential kernel, unit variance."""
    nodes = np.linspace(two_theta[0], two_theta[-1], 120)
    factors = []
    for length in lengths:
        kernel = np.exp(-((nodes[:, None] - nodes) ** 2) / (2 * length**2))
        values, vectors = np.linalg.eigh(kernel)
        top = np.argsort(-values)[:WAVE_RANK]
        factor = vectors[:, top] * np.sqrt(np.clip(values[top], 0, None))
        factors.append([np.interp(two_theta, nodes, column) for column in factor.T])
    waves = np.array(factors)
    # What the low rank leaves out is given back, so that the variance is 1 everywhere.
    scaled: Float = waves / np.sqrt(np.sum(waves**2, axis=1, keepdims=True))
    return scaled


@dataclass(frozen=True)
class Coverage:
    """Fraction of each ring that is seen.

    Parameters
    ----------
    knots
        Shape (N, J), 0-1, smooth part.
    blind
        Shape (N, G, 2): intervals of 2θ without any pixel, degrees; empty ones are reversed.
    """

    knots: Float
    blind: Float

    def at(self, knots: Knots, sample: NDArray[np.int64], two_theta: Float) -> Float:
        """Coverage at single angles."""
        interval = self.blind[sample]
        inside = (two_theta[:, None] >= interval[..., 0]) & (two_theta[:, None] <= interval[..., 1])
        seen: Float = np.where(inside.any(axis=1), 0.0, knots.at(self.knots, sample, two_theta))
        return seen


def draw_coverage(knots: Knots, grid: Grid, recipe: Recipe, counter: Counter) -> Coverage:
    """Detector edge, module gaps, missing ends."""
    number, detector = len(counter.samples), recipe.detector
    nothing = np.array([1.0, 0.0])
    blind = np.tile(nothing, (number, GAPS + 2, 1))
    if not detector.on:
        return Coverage(np.ones((number, len(knots.two_theta))), blind)
    span = grid.stop - grid.start
    draws = counter.uniform("coverage", 9)
    best = between(draws[:, 0], detector.coverage)
    corner = grid.start + span * between(draws[:, 1], (0.4, 1.6))
    reach = corner + span * between(draws[:, 2], (0.1, 1.0))
    outer = between(draws[:, 3], (0.05, 0.5))
    fall = (knots.two_theta - corner[:, None]) / (reach - corner)[:, None]
    smooth = best[:, None] * (1 - (1 - outer[:, None]) * np.clip(fall, 0, 1))
    # Gaps between modules: shallow dips, sharper where a gap runs along the ring.
    dips = counter.uniform("dips", 1 + 3 * DIPS)
    there = np.arange(DIPS) < dips[:, :1] * DIPS
    centre = between(dips[:, 1 : 1 + DIPS], (grid.start, grid.stop))
    width = between(dips[:, 1 + DIPS : 1 + 2 * DIPS], (0.1, 0.6))
    depth = between(dips[:, 1 + 2 * DIPS :], (0.0, 0.4))
    for k in range(DIPS):
        rows = np.flatnonzero(there[:, k])
        distance = (knots.two_theta - centre[rows, k, None]) / width[rows, k, None]
        smooth[rows] *= 1 - depth[rows, k, None] * np.exp(-(distance**2))
    low = grid.start + span * between(draws[:, 5], detector.low_cut)
    cut = draws[:, 4] < detector.low_cut_probability
    blind[cut, 0] = np.stack([np.full(number, grid.start - span), low], axis=1)[cut]
    high = grid.start + span * between(draws[:, 7], detector.high_cut)
    cut = draws[:, 6] < detector.high_cut_probability
    blind[cut, 1] = np.stack([high, np.full(number, grid.stop + span)], axis=1)[cut]
    gaps = counter.uniform("gaps", 1 + 2 * GAPS)
    middle = between(gaps[:, 1 : 1 + GAPS], (grid.start, grid.stop))
    half = log_between(gaps[:, 1 + GAPS :], detector.gap_width) / 2
    there = (draws[:, 8] < detector.gap_probability)[:, None] & (
        np.arange(GAPS) <= gaps[:, :1] * GAPS
    )
    blind[:, 2:][there] = np.stack([middle - half, middle + half], axis=-1)[there]
    return Coverage(smooth, blind)


def draw_transmission(knots: Knots, grid: Grid, recipe: Recipe, counter: Counter) -> Float:
    """What beam stop and cell let through, shape (N, J), 0-1."""
    shadows = recipe.shadows
    number = len(counter.samples)
    through = np.ones((number, len(knots.two_theta)))
    if not shadows.on:
        return through
    draws = counter.uniform("shadows", 8)
    edges = [
        (shadows.beam_stop_probability, between(draws[:, 1], shadows.beam_stop), 1.0),
        (
            shadows.opening_probability,
            grid.start + (grid.stop - grid.start) * between(draws[:, 5], shadows.opening),
            -1.0,
        ),
    ]
    for column, (probability, edge, side) in zip((0, 4), edges, strict=True):
        there = np.flatnonzero(draws[:, column] < probability)
        soft = log_between(draws[there, column + 2], shadows.softness)[:, None]
        floor = between(draws[there, column + 3], shadows.floor)[:, None]
        distance = side * (knots.two_theta - edge[there, None]) / soft
        through[there] *= floor + (1 - floor) / (1 + np.exp(-np.clip(distance, -50, 50)))
    return through


def draw_background(knots: Knots, recipe: Recipe, counter: Counter) -> Float:
    """Smooth scattering of mean 1, shape (N, J)."""
    number, background = len(counter.samples), recipe.background
    curve = np.ones((number, len(knots.two_theta)))
    draws = counter.uniform("background", 5)
    if background.on:
        strength = background.waves * draws[:, :1] * counter.normal("waves", WAVE_RANK)
        kind = (draws[:, 1] * len(background.lengths)).astype(np.int64)
        for length in np.unique(kind):
            rows = kind == length
            curve[rows] = np.exp(strength[rows] @ knots.waves[length])
        humps = len(background.hump_q)
        draw = counter.uniform("humps", 3 * humps).reshape(number, 3, humps)
        shift = counter.normal("hump places", humps)
        for k, centre in enumerate(background.hump_q):
            width = between(draw[:, 0, k], background.hump_width)[:, None]
            height = between(draw[:, 1, k], background.hump) * (draw[:, 2, k] < 0.7)
            place = centre * (1 + 0.04 * shift[:, k : k + 1])
            curve += height[:, None] * np.exp(-(((knots.q - place) / width) ** 2) / 2)
        power = between(draws[:, 2], background.air_power)[:, None]
        air = counter.uniform("air", 2)
        height = (between(air[:, 0], background.air) * air[:, 1])[:, None]
        curve += height * (knots.q[0] / knots.q) ** power
    if recipe.compton.on:
        draw = counter.uniform("compton", 2)
        half = between(draw[:, 1], recipe.compton.half)[:, None]
        height = between(draw[:, 0], recipe.compton.height)[:, None]
        curve += height * knots.q**2 / (knots.q**2 + half**2)
    if background.on:
        along = (knots.q - knots.q[0]) / (knots.q[-1] - knots.q[0])
        curve *= np.exp(-between(draws[:, 3:4], background.slope) * along)
    scaled: Float = curve / curve.mean(axis=1, keepdims=True)
    return scaled
