"""Reflections to synthetic 1D patterns with labels, for training.

Sample i is drawn from the counter-based generator Philox keyed by (seed, i): it is the same
whoever makes it, in whatever batch. Intensities are those of the azimuthal mean per pixel with
polarization already corrected. The 2D simulator that tests models is separate on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.synthesis.disturbances import (
    count_pixels,
    draw_background,
    draw_coverage,
    draw_hot_pixels,
    draw_ripple,
    draw_spots,
)
from xrdpipe.synthesis.generator import Generator, make_generator
from xrdpipe.synthesis.peaks import Profile, Shift, log_uniform, phase_pattern
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.types import Grid, Phase, PhaseLibrary


@dataclass(frozen=True)
class PatternBatch:
    """Synthetic patterns and what they are.

    Parameters
    ----------
    intensity
        Shape (N, n) float32, NaN where there is no data; counts per pixel.
    coverage
        Shape (N, n) float32, 0-1.
    presence
        Shape (N, K) int8: 1 present, 0 absent, −1 present below the detection limit.
    fraction
        Shape (N, K) float32, scattering fraction (strongest ideal line, relative); 0 = absent.
    strength
        Shape (N, K) float32, matched-filter signal to noise of the phase in this pattern.
    masked
        Shape (N,), True where strong spots were removed.
    """

    intensity: NDArray[np.float32]
    coverage: NDArray[np.float32]
    presence: NDArray[np.int8]
    fraction: NDArray[np.float32]
    strength: NDArray[np.float32]
    masked: NDArray[np.bool_]


def draw_patterns(
    library: PhaseLibrary,
    distractors: tuple[Phase, ...],
    grid: Grid,
    recipe: Recipe,
    first_sample: int,
    n_samples: int,
    seed: int,
) -> PatternBatch:
    """Draw the samples first_sample … first_sample + n_samples − 1 of a stream.

    Parameters
    ----------
    library
        Phases with a label, in class order.
    distractors
        Phases mixed in without a label.
    grid, recipe
        What is drawn, and how.
    first_sample, n_samples
        Part of the endless stream.
    seed
        Names the stream.
    """
    generator = make_generator(library, distractors, grid, recipe)
    return draw(generator, first_sample, n_samples, seed)


def draw(generator: Generator, first_sample: int, n_samples: int, seed: int) -> PatternBatch:
    """Like :func:`draw_patterns`, with the preparation done once."""
    samples = [
        _draw_one(generator, sample_random(seed, first_sample + index))
        for index in range(n_samples)
    ]
    return PatternBatch(
        intensity=np.array([s.intensity for s in samples], dtype=np.float32),
        coverage=np.array([s.coverage for s in samples], dtype=np.float32),
        presence=np.array([s.presence for s in samples], dtype=np.int8),
        fraction=np.array([s.fraction for s in samples], dtype=np.float32),
        strength=np.array([s.strength for s in samples], dtype=np.float32),
        masked=np.array([s.masked for s in samples], dtype=bool),
    )


def sample_random(seed: int, sample: int) -> np.random.Generator:
    """Random numbers of one sample: Philox keyed by (seed, sample)."""
    key = np.array([seed & (2**64 - 1), sample], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


@dataclass(frozen=True)
class _Sample:
    intensity: NDArray[np.float64]
    coverage: NDArray[np.float64]
    presence: NDArray[np.int64]
    fraction: NDArray[np.float64]
    strength: NDArray[np.float64]
    masked: bool


def _draw_one(generator: Generator, random: np.random.Generator) -> _Sample:
    recipe, grid = generator.recipe, generator.grid
    masked = bool(random.random() < recipe.masked_probability)
    fraction, label = _composition(generator, random)
    coverage = draw_coverage(generator, random)
    level = 10 ** random.uniform(*recipe.counts)  # counts per pixel of the strongest ideal line
    profile = Profile.draw(recipe, random)
    shift = Shift.draw(recipe, random)
    pixel = random.uniform(*recipe.pixel)
    # Counts of all phases; the last row collects what has no label.
    signal = np.zeros((len(generator.lines) + 1, grid.size))
    spot_limit = 5 * np.sqrt(max(level, 1.0)) + level  # what rejection would notice
    for index in np.flatnonzero(fraction):
        row = index if label[index] else -1
        signal[row] += phase_pattern(
            generator.lines[index],
            generator,
            random,
            profile,
            shift,
            coverage,
            level * fraction[index],
            spot_limit if masked else np.inf,
        )
    if generator.distractors:
        for _ in range(2):
            if random.random() < recipe.distractor_probability:
                other = generator.distractors[random.integers(len(generator.distractors))]
                amount = level * log_uniform(random, recipe.fraction)
                signal[-1] += phase_pattern(
                    other, generator, random, profile, shift, coverage, amount,
                    spot_limit if masked else np.inf,
                )  # fmt: skip
    base = draw_background(generator, random, level, coverage)
    spots = draw_spots(generator, random, profile, shift, level, masked)
    ripple = log_uniform(random, recipe.ripple)
    length = int(random.integers(5, 41))  # points over which the ripple is smooth
    expected = signal.sum(axis=0) + base + spots
    rippled = expected * (1 + ripple * draw_ripple(random, grid.size, length))
    split = random.random() >= recipe.unsplit_probability
    intensity, variance = count_pixels(generator, random, rippled, coverage, pixel, split)
    if not masked:
        intensity = intensity + draw_hot_pixels(generator, random, coverage, pixel)
    # The ripple is one number per ``length`` points.
    variance = variance + (ripple * expected) ** 2 * length
    shown = np.isfinite(intensity)
    local = signal[:-1, shown]
    strength = np.sqrt(np.sum(local**2 / variance[shown], axis=1))
    presence = np.where(label, np.where(strength >= recipe.detection_limit, 1, -1), 0)
    if random.random() < recipe.coverage_unknown_probability:
        coverage = np.ones(grid.size)
    return _Sample(
        intensity,
        np.where(shown, coverage, 0.0),
        presence,
        np.where(label, fraction, 0.0),
        strength,
        masked,
    )


def _composition(
    generator: Generator, random: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scattering fractions (K,) and which of them count as present."""
    recipe, count = generator.recipe, len(generator.lines)
    chance = min(recipe.presence_probability, recipe.mean_phases / count)
    label = random.random(count) < chance
    if random.random() < recipe.null_probability:
        label[:] = False
    low, high = np.log(recipe.fraction)
    fraction = np.where(label, np.exp(random.uniform(low, high, count)), 0.0)
    for index, lines in enumerate(generator.lines):
        trace = random.random() < recipe.parasite_probability
        if lines.name in recipe.parasites and trace and not label[index]:
            fraction[index] = log_uniform(random, recipe.parasite_fraction)
    return fraction, label
