"""The lines of the phases in a pattern: where they are, how wide, how strong, what masking takes.

A ring's intensity is split in two: what grains too faint to be masked give, and the bright spots.
The masked version of a pattern holds the first (and a rest of the second), the unmasked both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from xrdpipe.synthesis.composition import Components
from xrdpipe.synthesis.counter import Counter, between, log_between, poisson
from xrdpipe.synthesis.lines import MARCH_STEPS, LineTable
from xrdpipe.synthesis.recipe import Range, Recipe
from xrdpipe.synthesis.surroundings import Coverage, Knots
from xrdpipe.types import Grid

Float = NDArray[np.float64]

GAUSSIAN_PEAK = 2 * np.sqrt(np.log(2) / np.pi)
"""Height of a Gaussian of unit area and unit FWHM."""

LORENTZIAN_PEAK = 2 / np.pi
"""The same of a Lorentzian."""


@dataclass(frozen=True)
class Exposure:
    """What all lines of a pattern share; each of shape (N,).

    Parameters
    ----------
    level
        Counts per pixel at the strongest line of a phase that fills the beam.
    base
        Mean background, counts per pixel.
    saturation
        Largest value of a pixel; infinite if there is none.
    spot_limit
        Standard deviations above which a spot is masked; infinite where only what saturates is.
    width, v, u, lorentzian
        Instrument: FWHM in degrees at small angles, Caglioti's growth, Lorentzian part.
    rest
        What masking leaves of a spot, relative to the limit.
    zero, scale
        Errors of the 2θ zero in degrees and of the distance, relative.
    """

    level: Float
    base: Float
    saturation: Float
    spot_limit: Float
    rest: Float
    width: Float
    v: Float
    u: Float
    lorentzian: Float
    zero: Float
    scale: Float

    def limit(self, sample: NDArray[np.int64], local: Float) -> Float:
        """Counts per pixel above which masking takes a spot out of a ring of mean ``local``."""
        noisy = local + self.spot_limit[sample] * np.sqrt(local + 1)
        return np.minimum(noisy, self.saturation[sample])

    def shifted(self, sample: NDArray[np.int64], two_theta: Float) -> Float:
        """Angles as the detector sees them, degrees."""
        tangent = np.tan(np.radians(two_theta)) * (1 + self.scale[sample])
        seen: Float = np.degrees(np.arctan(tangent)) + self.zero[sample]
        return np.where(two_theta < 90, seen, two_theta + self.zero[sample])


def middle(limits: Range) -> float:
    """Geometric mean of a range: what an effect that is off stands at."""
    return float(np.sqrt(limits[0] * limits[1]))


def draw_exposure(recipe: Recipe, counter: Counter) -> Exposure:
    """Draw what all lines of a pattern share."""
    number = len(counter.samples)
    draws = counter.uniform("exposure", 8)
    level = log_between(draws[:, 0], recipe.noise.counts)
    base = level / log_between(draws[:, 1], recipe.background.line_to_background)
    smooth = recipe.background.on or recipe.compton.on
    overexposed = draws[:, 2] < recipe.masking.overexposed_probability
    threshold = np.where(overexposed, np.inf, between(draws[:, 3], recipe.masking.threshold))
    saturation = log_between(draws[:, 4], recipe.saturation.counts)
    profile, still = recipe.profile, recipe.profile.on
    shape = counter.uniform("instrument", 4)
    none = np.zeros(number)
    errors = counter.normal("alignment", 2) * recipe.alignment.on
    return Exposure(
        level=level,
        base=base if smooth else none,
        saturation=saturation if recipe.saturation.on else none + np.inf,
        spot_limit=threshold if recipe.masking.on else none + np.inf,
        rest=between(draws[:, 5], recipe.masking.rest),
        width=log_between(shape[:, 0], profile.width) if still else none + middle(profile.width),
        v=between(shape[:, 1], profile.v) if still else none,
        u=between(shape[:, 2], profile.u) if still else none,
        lorentzian=between(shape[:, 3], profile.lorentzian) if still else none,
        zero=errors[:, 0] * recipe.alignment.zero_shift,
        scale=errors[:, 1] * recipe.alignment.distance_scale,
    )


@dataclass(frozen=True)
class Scenery:
    """What a ring lies in; the functions are held at knots, shape (N, J).

    Parameters
    ----------
    knots
        Where they are held.
    coverage
        What of each ring is seen.
    transmission
        What beam stop and cell let through.
    smooth
        Background, counts per pixel.
    """

    knots: Knots
    coverage: Coverage
    transmission: Float
    smooth: Float


@dataclass(frozen=True)
class Crystals:
    """The state of every component (E entries).

    Parameters
    ----------
    strain
        Shape (E, 3), along the Cartesian axes (x ∥ a*, z ∥ c).
    size, microstrain
        Scherrer size in Å (infinite if off), relative spread of d.
    march, axis
        March coefficient (1: none) and number of the habit axis.
    grains, tolerance, spread, spot
        As in the recipe; tolerance in radians; grains infinite if off.
    jitter
        Log-normal σ of single lines.
    """

    strain: Float
    size: Float
    microstrain: Float
    march: Float
    axis: NDArray[np.int64]
    grains: Float
    tolerance: Float
    spread: Float
    spot: Float
    jitter: Float


def draw_crystals(
    table: LineTable, components: Components, recipe: Recipe, counter: Counter
) -> Crystals:
    """Draw the state of every phase in every pattern."""
    place, slot = components.sample, components.slot

    def draw(purpose: str, count: int) -> Float:
        return counter.items(purpose, place, slot, count)

    none = np.zeros(len(place))
    strain = np.zeros((len(place), 3))
    if recipe.strain.on:
        draws = draw("strain", 4)
        axes = ndtri(draws[:, 1:]) * recipe.strain.deviatoric
        strain = np.take_along_axis(axes, table.tied[components.phase], axis=1)
        strain += ndtri(draws[:, :1]) * recipe.strain.isotropic
        strain += between(counter.uniform("common strain", 1), recipe.strain.common)[place]
    profile = draw("widths", 2)
    texture = draw("texture", 3)
    textured = (texture[:, 0] < recipe.texture.probability) & recipe.texture.on
    grains = draw("grains", 4)
    return Crystals(
        strain=strain,
        size=10 * log_between(profile[:, 0], recipe.profile.size)
        if recipe.profile.on
        else none + np.inf,
        microstrain=log_between(profile[:, 1], recipe.profile.microstrain) * recipe.profile.on,
        march=np.where(textured, log_between(texture[:, 1], recipe.texture.march), 1.0),
        axis=(texture[:, 2] * len(table.texture)).astype(np.int64),
        grains=np.where(
            components.parasite,
            log_between(grains[:, 0], recipe.distractors.parasite_grains),
            log_between(grains[:, 0], recipe.grains.number),
        )
        if recipe.grains.on
        else none + np.inf,
        tolerance=np.radians(log_between(grains[:, 1], recipe.grains.tolerance)),
        spread=between(grains[:, 2], recipe.grains.volume_spread),
        spot=log_between(grains[:, 3], recipe.grains.spot),
        jitter=log_between(draw("jitter", 1)[:, 0], recipe.structure.line_jitter)
        * recipe.structure.on,
    )


def ideal_crystals(number: int) -> Crystals:
    """Components without strain, broadening, texture or few grains."""
    none, endless = np.zeros(number), np.full(number, np.inf)
    return Crystals(
        strain=np.zeros((number, 3)),
        size=endless,
        microstrain=none,
        march=np.ones(number),
        axis=np.zeros(number, np.int64),
        grains=endless,
        tolerance=none,
        spread=none,
        spot=none,
        jitter=none,
    )


@dataclass(frozen=True)
class Sticks:
    """Lines of a batch of patterns, M in all; a line is its place, shape and two areas.

    Parameters
    ----------
    sample
        Shape (M,), place in the batch.
    owner
        Shape (M,), class of the phase; K for phases outside the library, −1 for what is no part of
        the sample.
    position, width
        Degrees; the width is a FWHM.
    mixing
        Lorentzian part of the pseudo-Voigt, 0-1.
    clean, spots, filed
        Areas in counts per pixel × degrees: what masking leaves, what rejection takes, and what a
        mask file takes.
    """

    sample: NDArray[np.int64]
    owner: NDArray[np.int64]
    position: Float
    width: Float
    mixing: Float
    clean: Float
    spots: Float
    filed: Float


def draw_rings(
    table: LineTable,
    grid: Grid,
    components: Components,
    exposure: Exposure,
    scenery: Scenery,
    recipe: Recipe,
    counter: Counter,
) -> tuple[Sticks, Crystals]:
    """Lines of all phases of a batch, and the state of the crystals they come from."""
    crystals = draw_crystals(table, components, recipe, counter)
    count = table.count[components.phase]
    start = np.cumsum(count) - count
    entry = np.repeat(np.arange(len(count)), count)
    number = np.arange(len(entry)) - start[entry]
    phase, sample = components.phase[entry], components.sample[entry]
    line = table.first[phase] + number
    # Positions and widths.
    stretch = np.einsum("mi,mi->m", table.squared_cosines[line], crystals.strain[entry])
    sine = grid.wavelength / (2 * table.d[line] * (1 + stretch))
    theta = np.arcsin(np.minimum(sine, 1.0))
    position = exposure.shifted(sample, np.degrees(2 * theta))
    width, mixing = _widths(grid, theta, sample, entry, exposure, crystals)
    # Areas of the powder.
    words = counter.items("lines", sample, components.slot[entry] << 16 | number, 4)
    coarse = words[:, 2] * 65536
    jitter, second = (np.floor(coarse) + 0.5) / 65536, coarse - np.floor(coarse)
    sigma = crystals.jitter[entry]
    area = table.area[line] * np.exp(sigma * ndtri(jitter) - sigma**2 / 2)
    area *= _texture(table, line, crystals.march[entry], crystals.axis[entry])
    strongest = start + (table.strongest - table.first)[components.phase]
    unit = width[strongest] / peak_height(mixing[strongest])
    amount = components.fraction * exposure.level[components.sample] * unit
    area *= np.where(sine < 1, amount[entry], 0.0)
    area *= scenery.knots.at(scenery.transmission, sample, position)
    clean, spots = area, np.zeros(len(area))
    if recipe.grains.on:
        height = area * peak_height(mixing) / width
        local = height + scenery.knots.at(scenery.smooth, sample, position)
        seen = scenery.knots.at(scenery.coverage.knots, sample, position)
        mean = crystals.grains * crystals.tolerance / 2
        mean = mean[entry] * table.multiplicity[line] * seen * np.cos(theta)
        # Volume of a grain, relative, per counts of its spot.
        volume = crystals.spot[entry] * mean / np.maximum(height, 1e-30)
        limit = exposure.limit(sample, local) if recipe.masking.on else np.full(len(area), np.inf)
        faint, bright = grain_factors(
            mean,
            crystals.spread[entry],
            limit * volume,
            exposure.saturation[sample] * volume,
            exposure.rest[sample],
            (words[:, 0], words[:, 1], second, words[:, 3]),
        )
        clean, spots = area * faint, area * bright
    owner = np.where(components.parasite[entry], -1, np.minimum(phase, table.labelled))
    filed = np.zeros(len(area))
    return Sticks(sample, owner, position, width, mixing, clean, spots, filed), crystals


def _widths(
    grid: Grid,
    theta: Float,
    sample: NDArray[np.int64],
    entry: NDArray[np.int64],
    exposure: Exposure,
    crystals: Crystals,
) -> tuple[Float, Float]:
    """FWHM in degrees and Lorentzian part of every line."""
    tangent = np.tan(theta)
    growth = 1 + exposure.v[sample] * tangent + exposure.u[sample] * tangent**2
    instrument = exposure.width[sample] * np.sqrt(np.maximum(growth, 0.5))
    lorentzian = exposure.lorentzian[sample] / 2
    strain = np.degrees(4 * crystals.microstrain[entry] * tangent)
    gauss = np.hypot(instrument * (1 - lorentzian), strain)
    lorentz = np.degrees(0.9 * grid.wavelength / (crystals.size[entry] * np.cos(theta)))
    return pseudo_voigt(gauss, lorentz + instrument * lorentzian)


def pseudo_voigt(gauss: Float, lorentz: Float) -> tuple[Float, Float]:
    """FWHM and Lorentzian part of the pseudo-Voigt nearest to a Voigt profile.

    Thompson, Cox & Hastings, J. Appl. Cryst. 20, 79 (1987).
    """
    g, q = gauss, lorentz
    total = (
        g**5
        + q * (2.69269 * g**4 + q * (2.42843 * g**3 + q * (4.47163 * g**2 + q * 0.07842 * g)))
        + q**5
    ) ** 0.2
    ratio = q / total
    return total, ratio * (1.36603 - ratio * (0.47719 - ratio * 0.11116))


def peak_height(mixing: Float) -> Float:
    """Height of a pseudo-Voigt of unit area and unit FWHM."""
    height: Float = GAUSSIAN_PEAK * (1 - mixing) + LORENTZIAN_PEAK * mixing
    return height


def _texture(table: LineTable, line: NDArray[np.int64], march: Float, axis: Any) -> Float:
    """March-Dollase weight of every line, from the table."""
    step = MARCH_STEPS[1] - MARCH_STEPS[0]
    place = np.clip((np.log(march) - MARCH_STEPS[0]) / step, 0, len(MARCH_STEPS) - 1.001)
    below = place.astype(np.int64)
    weight = place - below
    mixed: Float = table.texture[axis, below, line] * (1 - weight)
    mixed += table.texture[axis, below + 1, line] * weight
    return mixed


def grain_factors(
    mean: Float,
    spread: Float,
    limit: Float,
    saturation: Float,
    rest: Float,
    random: tuple[Float, Float, Float, Float],
) -> tuple[Float, Float]:
    """Ring factors of few-grain statistics: what masking leaves, and what it takes; shapes (M,).

    The grains on a ring are a Poisson process with log-normal volumes v of mean 1. Those below and
    above a volume are independent; the sum over each group, given its number, is drawn from the
    log-normal distribution of the same mean and variance (Fenton, IRE Trans. Commun. Syst. 8, 57
    (1960)). Without saturation the mean of the two factors' sum is 1, its variance
    exp(σ²)/``mean``.

    Parameters
    ----------
    mean
        Expected number of grains.
    spread
        Log-normal σ of the volumes.
    limit, saturation
        Volumes above which a grain is masked, and stops counting; limit ≤ saturation or both
        infinite.
    rest
        What masking leaves of a grain, relative to ``limit``.
    random
        Four independent numbers in (0, 1) per ring.
    """
    at_limit = _partial_moments(limit, spread)
    at_saturation = _partial_moments(saturation, spread)
    below = poisson(random[0], mean * at_limit[0])
    above = poisson(random[1], mean * (1 - at_limit[0]))
    faint = _sum_of_volumes(below, *at_limit, random[2])
    beyond = 1 - at_saturation[0]
    with np.errstate(invalid="ignore", over="ignore"):
        capped = [
            np.where(beyond > 0, beyond * saturation**power, 0.0) + at_saturation[power]
            for power in (1, 2)
        ]
    bright = _sum_of_volumes(
        above, 1 - at_limit[0], capped[0] - at_limit[1], capped[1] - at_limit[2], random[3]
    )
    flank = np.minimum(np.where(above > 0, rest * above * np.where(above > 0, limit, 0), 0), bright)
    safe = np.where(mean > 0, mean, 1)
    return (faint + flank) / safe, (bright - flank) / safe


def _partial_moments(volume: Float, spread: Float) -> tuple[Float, Float, Float]:
    """∫ p, ∫ v p and ∫ v² p up to a volume, for log-normal volumes of mean 1."""
    with np.errstate(divide="ignore"):
        place = np.log(volume) / spread
    return (
        ndtr(place + spread / 2),
        ndtr(place - spread / 2),
        np.exp(spread**2) * ndtr(place - 1.5 * spread),
    )


def _sum_of_volumes(
    number: Float, probability: Float, first: Float, second: Float, uniform: Float
) -> Float:
    """Sum over ``number`` grains of a group with these partial moments."""
    safe = np.maximum(probability, 1e-12)
    mean = first / safe
    relative = np.maximum(second / safe / np.maximum(mean, 1e-30) ** 2 - 1, 0)
    sigma = np.sqrt(np.log1p(relative / np.maximum(number, 1)))
    return np.asarray(number * mean * np.exp(sigma * ndtri(uniform) - sigma**2 / 2), np.float64)
