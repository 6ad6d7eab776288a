"""One phase in one pattern: cell strain, widths, texture, few-grain statistics, drawn lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.synthesis.generator import Generator, PhaseLines
from xrdpipe.synthesis.recipe import Range, Recipe
from xrdpipe.types import Grid

HALF_WINDOW = 7.0
"""A pseudo-Voigt line is drawn out to this many FWHM on both sides."""

MAX_WINDOW = 300
"""… but to no more than this many points."""

POWDER_LIMIT = 60.0
"""Rings with more expected grains than this get a Gaussian instead of single grains."""


def log_uniform(random: np.random.Generator, limits: Range) -> float:
    """One number, log-uniform between two positive limits."""
    return float(np.exp(random.uniform(np.log(limits[0]), np.log(limits[1]))))


def log_uniform_many(random: np.random.Generator, limits: Range, count: int) -> NDArray[np.float64]:
    """``count`` numbers, log-uniform between two positive limits."""
    low, high = np.log(limits)
    return np.asarray(np.exp(random.uniform(low, high, count)), np.float64)


@dataclass(frozen=True)
class Profile:
    """Widths of the instrument: FWHM in degrees, its growth with tan θ, Lorentzian part."""

    width: float
    growth: float
    lorentzian: float

    @classmethod
    def draw(cls, recipe: Recipe, random: np.random.Generator) -> Profile:
        """Draw an instrument."""
        width = log_uniform(random, recipe.instrument_width)
        return cls(width, random.uniform(-1.0, 4.0), random.uniform(0.0, 0.7))

    def fwhm(self, tangent: NDArray[np.float64]) -> NDArray[np.float64]:
        """Caglioti: H² = W + V tanθ + U tan²θ, written relative to W."""
        relative = 1 + self.growth * tangent + 4 * tangent**2
        width: NDArray[np.float64] = self.width * np.sqrt(np.clip(relative, 0.5, None))
        return width


@dataclass(frozen=True)
class Shift:
    """Errors of the geometry: zero in degrees and a relative scale of 2θ."""

    zero: float
    scale: float

    @classmethod
    def draw(cls, recipe: Recipe, random: np.random.Generator) -> Shift:
        """Draw the errors of a geometry."""
        return cls(random.normal(0, recipe.zero_shift), random.normal(0, recipe.distance_scale))


def phase_pattern(
    lines: PhaseLines,
    generator: Generator,
    random: np.random.Generator,
    profile: Profile,
    shift: Shift,
    coverage: NDArray[np.float64],
    amount: float,
    spot_limit: float,
) -> NDArray[np.float64]:
    """Counts per pixel of one phase, shape (n,).

    ``amount`` is the height of the strongest ideal line; spots above ``spot_limit`` counts per
    pixel are removed.
    """
    recipe, grid = generator.recipe, generator.grid
    # Cell: isotropic and deviatoric strain.
    independent = random.normal(0, recipe.deviatoric_strain, 3)
    strain = random.normal(0, recipe.strain) + independent[list(lines.tied)]
    d = lines.d * (1 + lines.strain_response @ strain)
    sine = grid.wavelength / (2 * d)
    theta = np.arcsin(np.minimum(sine, 1.0))
    position = np.degrees(2 * theta) * (1 + shift.scale) + shift.zero
    tangent = np.tan(theta)
    # Widths: instrument and microstrain Gaussian, size Lorentzian (Scherrer, K = 0.9), combined
    # as in Thompson, Cox & Hastings, J. Appl. Cryst. 20, 79 (1987).
    size = log_uniform(random, recipe.crystallite_size)
    micro = log_uniform(random, recipe.microstrain)
    instrument = profile.fwhm(tangent)
    broad = np.degrees(4 * micro * tangent)
    gauss = np.sqrt((instrument * (1 - 0.5 * profile.lorentzian)) ** 2 + broad**2)
    lorentz = np.degrees(0.9 * grid.wavelength / (size * np.cos(theta)))
    lorentz = lorentz + instrument * 0.5 * profile.lorentzian
    width, mixing = _pseudo_voigt(gauss, lorentz)
    # Intensity of single lines: structure model, texture, grains.
    area = lines.area * np.exp(
        log_uniform(random, recipe.line_jitter) * random.standard_normal(len(d))
    )
    if random.random() < recipe.texture_probability:
        axis = random.integers(len(lines.axis_cosines))
        area = area * _march_dollase(lines.axis_cosines[axis], log_uniform(random, recipe.texture))
    index = np.clip(np.round((position - grid.start) / grid.step), 0, grid.size - 1).astype(int)
    strongest = int(np.argmax(lines.area))
    height = amount * width[strongest]  # area of the strongest ideal line, up to a constant
    ring = _grain_factor(
        lines, generator, random, coverage[index], theta, height * area / width, spot_limit
    )
    return render(grid, position, width, mixing, height * area * ring)


def _pseudo_voigt(
    gauss: NDArray[np.float64], lorentz: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """FWHM and Lorentzian part of the pseudo-Voigt nearest to a Voigt."""
    g, q = gauss, lorentz
    total = (
        g**5
        + 2.69269 * g**4 * q
        + 2.42843 * g**3 * q**2
        + 4.47163 * g**2 * q**3
        + 0.07842 * g * q**4
        + q**5
    ) ** 0.2
    ratio = q / total
    return total, 1.36603 * ratio - 0.47719 * ratio**2 + 0.11116 * ratio**3


def _march_dollase(cosine_squared: NDArray[np.float64], march: float) -> NDArray[np.float64]:
    """Mean March-Dollase weight of each orbit, shape (R,) from (R, S)."""
    weight = (march**2 * cosine_squared + (1 - cosine_squared) / march) ** -1.5
    mean: NDArray[np.float64] = weight.mean(axis=1)
    return mean


def _grain_factor(
    lines: PhaseLines,
    generator: Generator,
    random: np.random.Generator,
    covered: NDArray[np.float64],
    theta: NDArray[np.float64],
    height: NDArray[np.float64],
    spot_limit: float,
) -> NDArray[np.float64]:
    """Ring factors Σ v / E[Σ v] of few-grain statistics, shape (R,), mean exactly 1.

    The number of contributing grains of a ring is Poisson with mean
    N_g m f_az Δω cosθ / 2. In the masked variant the grains whose spot exceeds ``spot_limit``
    counts per pixel are taken out, but for a rest.
    """
    recipe = generator.recipe
    grains = log_uniform(random, recipe.grains)
    omega = np.radians(log_uniform(random, recipe.grain_width))
    spread = random.uniform(*recipe.grain_size_spread)
    spot = np.exp(random.uniform(np.log(5e-4), np.log(2e-2)))  # part of the ring a spot covers
    rest = random.uniform(0.0, 0.3)
    mean = grains * lines.multiplicity * covered * omega * np.cos(theta) / 2
    many = mean > POWDER_LIMIT
    scatter = np.sqrt(np.exp(spread**2) / np.where(many, mean, 1))
    smooth = np.clip(1 + scatter * random.standard_normal(len(mean)), 0, None)
    number = random.poisson(np.where(many, 0, mean))
    volume = np.exp(spread * random.standard_normal(number.sum()) - spread**2 / 2)
    ring = np.repeat(np.arange(len(mean)), number)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = volume / mean[ring]
    if np.isfinite(spot_limit):
        share = np.where(height[ring] * share / spot > spot_limit, rest * share, share)
    counted = np.bincount(ring, weights=share, minlength=len(mean)).astype(np.float64)
    return np.where(many, smooth, counted)


def render(
    grid: Grid,
    position: NDArray[np.float64],
    width: NDArray[np.float64],
    mixing: NDArray[np.float64],
    strength: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Sum of pseudo-Voigt lines whose height is strength/width, shape (n,).

    The common factor of the pseudo-Voigt's area is left out; it changes by 1.5 over the mixing.
    """
    visible = strength > 1e-6 * strength.max(initial=0)
    position, width, mixing, strength = (a[visible] for a in (position, width, mixing, strength))
    if not len(position):
        return np.zeros(grid.size)
    reach = np.minimum(np.ceil(HALF_WINDOW * width / grid.step), MAX_WINDOW).astype(np.int64)
    centre = np.round((position - grid.start) / grid.step).astype(np.int64)
    # Ragged windows, laid end to end.
    counts = 2 * reach + 1
    line = np.repeat(np.arange(len(reach)), counts)
    inside = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    place = centre[line] - reach[line] + inside
    on = (place >= 0) & (place < grid.size)
    line, place = line[on], place[on]
    offset = (grid.start + grid.step * place - position[line]) * (2 / width[line])
    square = offset * offset
    mix = mixing[line]
    shape = mix / (1 + square) + (1 - mix) * np.exp(-np.log(2) * square)
    weights = (strength / width)[line] * shape
    return np.bincount(place, weights=weights, minlength=grid.size).astype(np.float64)
