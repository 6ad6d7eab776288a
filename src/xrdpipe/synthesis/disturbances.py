"""Everything in a pattern that is no phase: coverage, background, spots, counting noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xrdpipe.synthesis.generator import GP_RANK, Generator
from xrdpipe.synthesis.peaks import Profile, Shift, log_uniform, log_uniform_many, render


def draw_coverage(generator: Generator, random: np.random.Generator) -> NDArray[np.float64]:
    """Fraction of each ring that is seen: detector edge, module gaps, missing ends. Shape (n,)."""
    recipe, two_theta, grid = generator.recipe, generator.two_theta, generator.grid
    span = grid.stop - grid.start
    best = random.uniform(*recipe.coverage)
    corner = grid.start + span * random.uniform(0.4, 1.6)
    reach = corner + span * random.uniform(0.1, 1.0)
    ends = [corner, reach]
    coverage = best * np.interp(two_theta, ends, [1.0, random.uniform(0.05, 0.5)])
    # Gaps between modules: shallow dips, sharper where a gap runs along the ring.
    for _ in range(random.integers(0, 6)):
        centre = random.uniform(grid.start, grid.stop)
        width = random.uniform(0.02, 0.6)
        depth = random.uniform(0.0, 0.4)
        coverage *= 1 - depth * np.exp(-(((two_theta - centre) / width) ** 2))
    if random.random() < recipe.cut_probability:
        coverage[two_theta < grid.start + span * random.uniform(*recipe.low_end)] = 0
    if random.random() < recipe.cut_probability:
        coverage[two_theta > grid.start + span * random.uniform(*recipe.high_end)] = 0
    if random.random() < recipe.gap_probability:
        for _ in range(random.integers(1, 4)):
            centre = random.uniform(grid.start, grid.stop)
            width = log_uniform(random, recipe.gap_width)
            coverage[np.abs(two_theta - centre) < width / 2] = 0
    return coverage


def draw_background(
    generator: Generator, random: np.random.Generator, level: float, coverage: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Counts per pixel of everything smooth, shape (n,)."""
    recipe, two_theta, grid = generator.recipe, generator.two_theta, generator.grid
    shapes = generator.gp[random.integers(len(generator.gp))]
    waves = recipe.waves * random.random() * (random.standard_normal(GP_RANK) @ shapes)
    curve = np.exp(waves)
    q = 4 * np.pi * np.sin(np.radians(two_theta / 2)) / grid.wavelength
    for centre in recipe.hump_q:
        width = random.uniform(*recipe.hump_width)
        height = random.uniform(*recipe.hump) * (random.random() < 0.7)
        place = centre * (1 + random.normal(0, 0.04))
        curve = curve + height * np.exp(-(((q - place) / width) ** 2) / 2)
    power = random.uniform(0.5, 4.0)
    curve = curve + random.uniform(*recipe.air) * random.random() * (q[0] / q) ** power
    curve = curve * np.exp(-random.uniform(-0.3, 1.2) * (q - q[0]) / (q[-1] - q[0]))
    if random.random() < recipe.beam_stop_probability:
        edge = random.uniform(*recipe.beam_stop)
        soft = random.uniform(0.03, 0.4)
        floor = random.uniform(0.0, 0.4)
        step = 1 / (1 + np.exp(-np.clip((two_theta - edge) / soft, -50, 50)))
        curve = curve * (floor + (1 - floor) * step)
    scale = level / log_uniform(random, recipe.line_to_background)
    result: NDArray[np.float64] = scale * curve / curve.mean()
    return result


def draw_spots(
    generator: Generator,
    random: np.random.Generator,
    profile: Profile,
    shift: Shift,
    level: float,
    masked: bool,
) -> NDArray[np.float64]:
    """Counts per pixel of single-crystal spots: anvils and unindexed spikes, shape (n,)."""
    recipe, grid = generator.recipe, generator.grid
    spacing = np.array(recipe.spot_spacings)
    spacing = spacing[random.random(len(spacing)) < recipe.spot_probability]
    spacing = spacing[spacing > grid.wavelength / 2]
    spacing = spacing * (1 + random.normal(0, 0.001, len(spacing)))
    known = np.degrees(2 * np.arcsin(grid.wavelength / (2 * spacing)))
    known = known * (1 + shift.scale) + shift.zero
    unknown = random.uniform(grid.start, grid.stop, random.poisson(recipe.spikes))
    position = np.concatenate([known, unknown])
    low, high = np.log(recipe.spot_height)
    height = level * np.exp(random.uniform(low, high, len(position)))
    height[len(known) :] *= 0.1  # stray grains are weaker than anvils
    width = profile.width * np.exp(random.uniform(-0.7, 0.9, len(position)))
    glare = random.random(len(known)) < recipe.halo_probability
    halo_height = height[: len(known)] * log_uniform_many(random, recipe.halo_height, len(known))
    halo_width = log_uniform_many(random, recipe.halo_width, len(known))
    if masked:
        left = log_uniform_many(random, recipe.halo, len(position))
        height = height * left
        width = width * random.uniform(1.0, 4.0, len(position))
        # Rejection follows the halo down to its own threshold: little of it stays.
        halo_height = np.minimum(halo_height * left[: len(known)], 0.3 * level)
    mixing = random.uniform(0, 1, len(position))
    spots = render(grid, position, width, mixing, height * width)
    # Lorentzians over the whole grid: a halo of degrees has no window to be cut to.
    distance = 2 * (generator.two_theta[:, None] - known) / halo_width
    halos = np.where(glare, halo_height, 0) / (1 + distance**2)
    return np.asarray(spots + halos.sum(axis=1), np.float64)


def draw_hot_pixels(
    generator: Generator,
    random: np.random.Generator,
    coverage: NDArray[np.float64],
    pixel: float,
) -> NDArray[np.float64]:
    """Counts per pixel that hot pixels add to the azimuthal mean, shape (n,).

    One pixel of width p at 2θ is one of 2π·2θ·coverage/p on its ring: it lifts every bin it covers
    by its height times p/(2π·2θ·coverage), a box of its width. Their number grows with the ring.
    """
    recipe, two_theta = generator.recipe, generator.two_theta
    towers = np.zeros(len(two_theta))
    ring = two_theta * coverage
    number = random.poisson(log_uniform(random, recipe.hot_pixels))
    if not number or not ring.any():
        return towers
    place = random.choice(len(two_theta), size=number, p=ring / ring.sum())
    height = log_uniform_many(random, recipe.hot_height, number)
    # A pixel seen along its diagonal is up to √2 wide.
    width = pixel * random.uniform(1.0, 1.41, number)
    for at, counts, wide in zip(place, height, width, strict=True):
        inside = np.abs(two_theta - two_theta[at]) <= wide / 2
        towers[inside] += counts * pixel / np.radians(360 * ring[at])
    return towers


def draw_ripple(random: np.random.Generator, size: int, length: int) -> NDArray[np.float64]:
    """Disturbance of about unit variance that is smooth over ``length`` points, shape (n,)."""
    knots = random.standard_normal(size // length + 2)
    return np.interp(np.arange(size) / length, np.arange(len(knots)), knots)


def count_pixels(
    generator: Generator,
    random: np.random.Generator,
    expected: NDArray[np.float64],
    coverage: NDArray[np.float64],
    pixel: float,
    split: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Counted mean per pixel and its variance, both (n,); NaN without pixels.

    A ring at 2θ holds 2π·2θ/p pixels per pixel width p. Splitting spreads each pixel over p, which
    is several bins: a running mean of counts over a running mean of pixel numbers, so the noise of
    neighbouring bins is correlated.
    """
    grid = generator.grid
    pixels = 2 * np.pi * generator.two_theta / pixel * (grid.step / pixel) * coverage
    if not split:
        pixels = random.poisson(pixels).astype(float)
    counts = random.poisson(pixels * expected).astype(float)
    width = max(round(pixel / grid.step), 1) | 1 if split else 1
    if width > 1:
        counts, pixels = _running_sum(counts, width), _running_sum(pixels, width)
    with np.errstate(divide="ignore", invalid="ignore"):
        intensity = np.where((pixels > 0) & (coverage > 0), counts / pixels, np.nan)
        variance = np.where(pixels > 0, (expected * pixels + 0.5) / pixels**2, np.inf)
    # Correlated bins carry less information than their number: as if width bins were one.
    return intensity, variance * width


def _running_sum(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Sum over ``width`` (odd) points centred on each, shorter at the ends."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    half = width // 2
    upper = np.minimum(place + half + 1, len(values))
    lower = np.maximum(place - half, 0)
    summed: NDArray[np.float64] = total[upper] - total[lower]
    # Differences of a running total leave rounding dust where the sum is zero.
    return np.where(summed > 1e-9 * total[-1], summed, 0.0)
