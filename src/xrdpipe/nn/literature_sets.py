"""Training sets of two papers, for comparison: neither knows grains, spots or real backgrounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from xrdpipe.nn.lineshapes import Lines, render_lines
from xrdpipe.nn.patterns import Pairs
from xrdpipe.synthesis.composition import Components
from xrdpipe.synthesis.counter import Counter, between, counter
from xrdpipe.synthesis.lines import LineTable
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.synthesis.rings import (
    Scenery,
    Sticks,
    draw_exposure,
    draw_rings,
    ideal_crystals,
)
from xrdpipe.synthesis.scene import Generator, make_generator, targets_of
from xrdpipe.synthesis.surroundings import Coverage, Knots
from xrdpipe.types import Grid, PhaseLibrary

Float = NDArray[np.float64]

PAPER_COUNTS = (384, 385, 287)
"""Single-phase patterns of the S set of Li et al. (2024): bastnaesite, calcite, rhenium."""

PAPER_RANGE = (3.0, 60.0)
"""Its 2θ range, degrees; 5701 points 0.01° apart."""

MIXED = 1 << 32
"""Number of the first mixture, beyond those of any single-phase pattern."""


def paper_s_set(
    library: PhaseLibrary, wavelength: float, seed: int, mixtures: int = 1056
) -> tuple[NDArray[np.float32], NDArray[np.int8], Grid]:
    """The synthetic set of Li et al. (2024): only positions, intensities and profiles vary.

    384, 385 and 287 single-phase patterns for three phases (352 each for another number), and
    ``mixtures`` sums of two or more of them in random ratios. No background, no noise, no empty
    patterns.

    Parameters
    ----------
    library
        Phases in class order.
    wavelength
        In Å.
    seed
        Sample i depends on (seed, i) only.
    mixtures
        Number of mixed patterns added.

    Returns
    -------
    Patterns (N, 5701) with values ≥ 0, labels (N, K), and their grid.
    """
    grid = Grid(*PAPER_RANGE, 0.01, wavelength)
    varied = Recipe()
    recipe = replace(
        varied.without("grains", "masking", "saturation", "distractors"),
        structure=replace(varied.structure, line_jitter=(0.01, 0.2)),
        texture=replace(varied.texture, probability=0.3),
    )
    generator = make_generator(library, (), grid, recipe)
    count = len(library)
    numbers = PAPER_COUNTS if count == 3 else (352,) * count
    owner = np.repeat(np.arange(count), numbers)
    random = counter(seed, 0, len(owner))
    components = _one_each(owner, count)
    exposure = replace(draw_exposure(recipe, random), level=np.ones(len(owner)))
    sticks, _ = draw_rings(
        generator.table, grid, components, exposure, _nothing(generator.knots, len(owner)),
        recipe, random,
    )  # fmt: skip
    single = _rendered(sticks, sticks.clean, len(owner), grid)
    labels = np.eye(count, dtype=np.int8)[owner]
    if count > 1 and mixtures:
        mix = _mixing(owner, count, counter(seed, MIXED, mixtures))
        single = np.concatenate([single, mix @ single])
        labels = np.concatenate([labels, (mix @ labels > 0).astype(np.int8)])
    return single.astype(np.float32), labels, grid


def _mixing(owner: NDArray[np.int64], count: int, random: Counter) -> Float:
    """Ratios of single-phase patterns in mixtures, shape (mixtures, patterns)."""
    draws = random.uniform("mixtures", 3 * count + 1)
    ratio, pick, order = (draws[:, 1 + i * count : 1 + (i + 1) * count] for i in range(3))
    members = 2 + (draws[:, :1] * (min(count, 3) - 1)).astype(np.int64)
    wanted = order.argsort(axis=1).argsort(axis=1) < members
    mix = np.zeros((len(draws), len(owner)))
    for phase in range(count):
        rows = np.flatnonzero(wanted[:, phase])
        own = np.flatnonzero(owner == phase)
        chosen = own[(pick[rows, phase] * len(own)).astype(np.int64)]
        mix[rows, chosen] = between(ratio[rows, phase], (0.1, 1.0))
    return mix


def _one_each(phase: NDArray[np.int64], known: int) -> Components:
    """Patterns of one phase each."""
    label = np.eye(known, dtype=bool)[phase]
    sample = np.arange(len(phase))
    own = np.zeros(len(phase), bool)
    return Components(sample, phase, np.zeros_like(phase), np.ones(len(phase)), own, label)


def _nothing(knots: Knots, number: int) -> Scenery:
    """Complete rings and no background."""
    ones = np.ones((number, len(knots.two_theta)))
    blind = np.tile([1.0, 0.0], (number, 1, 1))
    return Scenery(knots, Coverage(ones, blind), ones, 0 * ones)


def _rendered(sticks: Sticks, area: Float, number: int, grid: Grid) -> Float:
    """Patterns (N, n) of lines with these areas."""
    lines = Lines(
        torch.from_numpy(sticks.sample),
        torch.from_numpy((sticks.position - grid.start) / grid.step),
        torch.from_numpy(sticks.width / grid.step),
        torch.from_numpy(sticks.mixing),
        torch.from_numpy(area[:, None] / grid.step),
    )
    curves = render_lines(lines, number, grid.size)
    return curves[:, 0].clamp_(min=0).numpy().astype(np.float64)


# --- the imperfections of Schopmans, Reiser & Friederich (2023), supplement S4.2 ---------------

CAGLIOTI = (0.0, 0.01)
"""U and W, degrees²; V is 0 and the Gaussian and Lorentzian widths are equal."""

LENGTH = (7.0, 40.0)
"""Correlation length of the background, degrees."""

BACKGROUND_SCALE, BACKGROUND_LIMIT = 75.0, 150.0
"""The background's sum is a normal number of this deviation, truncated to [0, 150]."""

ADDITIVE, MULTIPLICATIVE = (0.0, 0.02), (0.0, 0.16)
"""Standard deviations of the noise."""

IMPURITY = (0.0, 0.05)
"""Part a of the impurity: (1 − a) I + a I′."""

K_ALPHA = ((1.540593, 1.544427), (0.709317, 0.713607))
"""Kα1 and Kα2 of Cu and Mo, Å (Hölzer et al., Phys. Rev. A 56, 4554 (1997))."""


def draw_imperfect(generator: Generator, first: int, number: int, seed: int) -> Pairs:
    """Patterns of one phase with the imperfections of Schopmans et al. (2023), S4.2.

    Pseudo-Voigt lines of Caglioti widths with one mixing for all, the Kα doublet where the
    wavelength is that of a Cu or Mo tube, an impurity phase, a background from a Gaussian process,
    additive and multiplicative noise. Where the paper draws crystals of all space groups, the
    library's phases are drawn with equal chances and the impurity comes from all others. Lines
    are never narrower than two points of the grid.

    Parameters
    ----------
    generator
        Phases and grid; its recipe is not used.
    first, number
        Part of the endless stream.
    seed
        Names the stream.

    Returns
    -------
    Pairs whose two versions are equal; coverage 1, spottiness 0.
    """
    random, grid, table = counter(seed, first, number), generator.grid, generator.table
    known, every = table.labelled, len(table.names)
    draws = random.uniform("imperfections", 10)
    phase = (draws[:, 0] * known).astype(np.int64)
    # Any other phase than the main one.
    impurity = (phase + 1 + (draws[:, 1] * max(every - 1, 1)).astype(np.int64)) % every
    part = between(draws[:, 2], IMPURITY) * (every > 1)
    pure, foreign = (_pure(table, grid, which, draws[:, 3:6]) for which in (phase, impurity))
    signal = (1 - part[:, None]) * pure + part[:, None] * foreign
    signal += _gaussian_process(grid, draws[:, 6], draws[:, 7], random)
    additive, multiplicative = between(draws[:, 8], ADDITIVE), between(draws[:, 9], MULTIPLICATIVE)
    signal += additive[:, None] * random.normal("additive", grid.size)
    signal *= 1 + multiplicative[:, None] * random.normal("multiplicative", grid.size)
    pattern = torch.from_numpy(signal.astype(np.float32))
    components = _one_each(phase, known)
    label = torch.from_numpy(components.label.astype(np.int8))
    certain = torch.where(label > 0, torch.inf, 0.0)
    other = torch.from_numpy(((impurity >= known) & (part > 0)).astype(np.int8))
    return Pairs(
        masked=pattern,
        unmasked=pattern,
        spottiness=torch.zeros_like(pattern),
        coverage=torch.ones_like(pattern),
        presence_masked=label,
        presence_unmasked=label,
        strength_masked=certain,
        strength_unmasked=certain,
        foreign_masked=other,
        foreign_unmasked=other,
        targets=targets_of(table, components, ideal_crystals(number)),
        drawn={},
        choice=torch.from_numpy(random.uniform("version", 1)[:, 0]),
    )


def _pure(table: LineTable, grid: Grid, phase: NDArray[np.int64], draws: Float) -> Float:
    """Diffraction patterns with a maximum of 1, shape (N, n)."""
    count = table.count[phase]
    sample = np.repeat(np.arange(len(phase)), count)
    within = np.arange(len(sample)) - (np.cumsum(count) - count)[sample]
    line = table.first[phase][sample] + within
    u, w = (between(draws[:, k], CAGLIOTI)[sample] for k in (0, 1))
    doublet = next((pair for pair in K_ALPHA if abs(pair[0] - grid.wavelength) < 1e-3), None)
    parts = ((grid.wavelength, 1.0),) if doublet is None else ((doublet[0], 1.0), (doublet[1], 0.5))
    total = np.zeros((len(phase), grid.size))
    for wavelength, strength in parts:
        sine = wavelength / (2 * table.d[line])
        theta = np.arcsin(np.minimum(sine, 1))
        sticks = Sticks(
            sample=sample,
            owner=phase[sample],
            position=np.degrees(2 * theta),
            width=np.maximum(np.sqrt(u * np.tan(theta) ** 2 + w), 2 * grid.step),
            mixing=draws[sample, 2],
            clean=np.where(sine < 1, strength * table.area[line], 0.0),
            spots=np.zeros(len(line)),
            filed=np.zeros(len(line)),
        )
        total += _rendered(sticks, sticks.clean, len(phase), grid)
    scaled: Float = total / total.max(axis=1, keepdims=True)
    return scaled


def _gaussian_process(grid: Grid, length: Float, scale: Float, random: Counter) -> Float:
    """Backgrounds of the protocol: minimum 0, sum as drawn; shape (N, n)."""
    span = grid.stop - grid.start
    # Knots four to the shortest length, joined by straight lines.
    knots = np.linspace(grid.start, grid.stop, max(round(4 * span / LENGTH[0]), 4))
    distance = torch.from_numpy((knots[:, None] - knots) ** 2)
    lengths = torch.from_numpy(between(length, LENGTH))[:, None, None]
    kernel = torch.exp(-distance / (2 * lengths**2))
    # Smooth kernels are singular to rounding: a hundred-thousandth of white noise.
    factor = torch.linalg.cholesky(kernel + 1e-5 * torch.eye(len(knots), dtype=torch.float64))
    normal = torch.from_numpy(random.normal("background", len(knots)))
    curve = (factor @ normal[:, :, None])[:, :, 0]
    place = np.linspace(0, len(knots) - 1, grid.size)
    below = np.minimum(place.astype(np.int64), len(knots) - 2)
    weight = place - below
    values = curve.numpy()
    background = values[:, below] * (1 - weight) + values[:, below + 1] * weight
    background -= background.min(axis=1, keepdims=True)
    background /= background.sum(axis=1, keepdims=True)
    # Half of a normal distribution, cut at its limit.
    most = ndtr(BACKGROUND_LIMIT / BACKGROUND_SCALE) - 0.5
    scaled: Float = background * (BACKGROUND_SCALE * ndtri(0.5 + scale * most))[:, None]
    return scaled
