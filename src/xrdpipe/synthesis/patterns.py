"""Reflections to synthetic 1D patterns with labels, for training.

Sample i is drawn from the counter-based generator Philox keyed by (seed, i): it is the same
whoever makes it, in whatever batch. Intensities are those of the azimuthal mean per pixel with
polarization already corrected. The 2D simulator that tests models is separate on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.crystal import ReflectionTable, powder_intensity, reflections
from xrdpipe.errors import InputError
from xrdpipe.synthesis.recipe import Range, Recipe
from xrdpipe.types import Grid, Phase, PhaseLibrary

HALF_WINDOW = 7.0
"""A pseudo-Voigt line is drawn out to this many FWHM on both sides."""

MAX_WINDOW = 300
"""… but to no more than this many points."""

POWDER_LIMIT = 60.0
"""Rings with more expected grains than this get a Gaussian instead of single grains."""

MARGIN = 1.0
"""Lines up to this many degrees outside the grid are drawn, for their tails."""

FAINTEST = 0.002
"""Lines weaker than this part of a phase's strongest are left out."""

SAME_LINES = 0.006
"""A distractor whose strongest lines agree within this with a library phase is left out."""

GP_RANK = 14


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


@dataclass(frozen=True)
class PhaseLines:
    """The lines of one phase that can fall on the grid, ready for drawing.

    Parameters
    ----------
    area
        Shape (R,), ideal peak area per pixel, strongest = 1.
    d, multiplicity
        Shape (R,).
    strain_response
        Shape (R, 3), see :meth:`xrdpipe.crystal.ReflectionTable.strain_response`.
    tied
        Index of the independent strain of each Cartesian axis, shape (3,).
    axis_cosines
        Shape (A, R, S) squared cosines to A possible texture axes.
    """

    name: str
    area: NDArray[np.float64]
    d: NDArray[np.float64]
    multiplicity: NDArray[np.float64]
    strain_response: NDArray[np.float64]
    tied: tuple[int, int, int]
    axis_cosines: NDArray[np.float64]


def phase_lines(table: ReflectionTable, grid: Grid) -> PhaseLines:
    """Prepare the lines of a phase for a grid.

    Raises
    ------
    InputError
        No line of the phase falls on the grid.
    """
    two_theta = table.two_theta
    area = powder_intensity(table, grid.wavelength)
    with np.errstate(invalid="ignore"):
        near = (two_theta > grid.start - MARGIN) & (two_theta < grid.stop + MARGIN)
        on = (two_theta >= grid.start) & (two_theta <= grid.stop)
    if not on.any():
        raise InputError(
            f"phase '{table.name}' has no line between {grid.start:g} and {grid.stop:g} degrees "
            f"at {grid.wavelength:g} Å; use a wider grid."
        )
    strongest = area[on].max()
    keep = near & (area > FAINTEST * strongest)
    return PhaseLines(
        name=table.name,
        area=area[keep] / strongest,
        d=table.d[keep],
        multiplicity=table.multiplicity[keep].astype(float),
        strain_response=table.strain_response()[keep],
        tied=_tied_axes(table),
        axis_cosines=np.stack(
            [table.axis_cosines_squared(axis)[keep] for axis in _texture_axes(table)]
        ),
    )


def _tied_axes(table: ReflectionTable) -> tuple[int, int, int]:
    """Which Cartesian axes must strain together to keep the symmetry."""
    order = len(table.rotations)
    a, b, c = table.cell[:3]
    cubic = order >= 12 and np.allclose([a, b], c, rtol=1e-6) and table.cell[3:] == (90, 90, 90)
    if cubic:
        return (0, 0, 0)
    if np.isclose(a, b, rtol=1e-6):
        return (0, 0, 1)
    return (0, 1, 2)


def _texture_axes(table: ReflectionTable) -> list[tuple[int, int, int]]:
    """Common habit axes and the normal of the strongest line."""
    strongest = table.hkl[int(np.argmax(table.multiplicity * table.f_squared))]
    h, k, l = (int(index) for index in strongest)  # noqa: E741 - Miller indices
    return [(0, 0, 1), (1, 0, 0), (1, 1, 0), (h, k, l)]


@dataclass(frozen=True)
class Generator:
    """Everything that is the same for all samples: lines, angles, background shapes.

    Parameters
    ----------
    lines
        Of the K phases of the library, in class order.
    distractors
        Of the phases without a label.
    grid, recipe
        What is drawn, and how.
    gp
        Shape (G, GP_RANK, n): unit-variance smooth functions for G lengths.
    """

    lines: tuple[PhaseLines, ...]
    distractors: tuple[PhaseLines, ...]
    grid: Grid
    recipe: Recipe
    two_theta: NDArray[np.float64]
    gp: NDArray[np.float32]


def make_generator(
    library: PhaseLibrary, distractors: tuple[Phase, ...], grid: Grid, recipe: Recipe
) -> Generator:
    """Prepare :func:`draw`; distractors that look like a phase of the library are left out."""
    d_min = grid.wavelength / (2 * np.sin(np.radians(min(grid.stop + MARGIN, 179) / 2)))
    tables = [reflections(phase, grid.wavelength, d_min) for phase in library.phases]
    others = []
    for phase in distractors:
        try:
            table = reflections(phase, grid.wavelength, d_min)
            lines = phase_lines(table, grid)
        except InputError:
            continue  # nothing of it reaches this grid, so it cannot distract
        if not any(_alike(lines, phase_lines(known, grid)) for known in tables):
            others.append(lines)
    return Generator(
        lines=tuple(phase_lines(table, grid) for table in tables),
        distractors=tuple(others),
        grid=grid,
        recipe=recipe,
        two_theta=grid.two_theta,
        gp=_smooth_functions(grid),
    )


def _alike(one: PhaseLines, other: PhaseLines) -> bool:
    """Whether the three strongest lines of one lie on lines of the other, and vice versa."""

    def inside(a: PhaseLines, b: PhaseLines) -> bool:
        strong = a.d[np.argsort(-a.area)[:3]]
        notable = b.d[b.area > 0.1]
        return bool(np.all(np.abs(strong[:, None] / notable - 1).min(axis=1) < SAME_LINES))

    return inside(one, other) and inside(other, one)


def _smooth_functions(grid: Grid) -> NDArray[np.float32]:
    """Low-rank factors of Gaussian processes with lengths 1.5-10°, each of unit variance."""
    knots = np.linspace(grid.start, grid.stop, 60)
    weights = []
    for length in (1.5, 2.5, 4.0, 6.5, 10.0):
        kernel = np.exp(-((knots[:, None] - knots) ** 2) / (2 * length**2))
        values, vectors = np.linalg.eigh(kernel)
        top = np.argsort(-values)[:GP_RANK]
        factor = vectors[:, top] * np.sqrt(np.clip(values[top], 0, None))
        weights.append([np.interp(grid.two_theta, knots, column) for column in factor.T])
    return np.array(weights, dtype=np.float32)


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


def _log_uniform(random: np.random.Generator, limits: Range) -> float:
    return float(np.exp(random.uniform(np.log(limits[0]), np.log(limits[1]))))


def _draw_one(generator: Generator, random: np.random.Generator) -> _Sample:
    recipe, grid = generator.recipe, generator.grid
    masked = bool(random.random() < recipe.masked_probability)
    fraction, label = _composition(generator, random)
    coverage = _coverage(generator, random)
    level = 10 ** random.uniform(*recipe.counts)  # counts per pixel of the strongest ideal line
    profile = _Profile.draw(recipe, random)
    shift = _Shift.draw(recipe, random)
    pixel = random.uniform(*recipe.pixel)
    # Counts of all phases; the last row collects what has no label.
    signal = np.zeros((len(generator.lines) + 1, grid.size))
    spot_limit = 5 * np.sqrt(max(level, 1.0)) + level  # what rejection would notice
    for index in np.flatnonzero(fraction):
        row = index if label[index] else -1
        signal[row] += _phase_pattern(
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
                amount = level * _log_uniform(random, recipe.fraction)
                signal[-1] += _phase_pattern(
                    other, generator, random, profile, shift, coverage, amount,
                    spot_limit if masked else np.inf,
                )  # fmt: skip
    base = _background(generator, random, level, coverage)
    spots = _spots(generator, random, profile, shift, level, masked)
    ripple = _log_uniform(random, recipe.ripple)
    length = int(random.integers(5, 41))  # points over which the ripple is smooth
    expected = signal.sum(axis=0) + base + spots
    rippled = expected * (1 + ripple * _ripple(random, grid.size, length))
    split = random.random() >= recipe.unsplit_probability
    intensity, variance = _count(generator, random, rippled, coverage, pixel, split)
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
            fraction[index] = _log_uniform(random, recipe.parasite_fraction)
    return fraction, label


def _coverage(generator: Generator, random: np.random.Generator) -> NDArray[np.float64]:
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
            width = _log_uniform(random, recipe.gap_width)
            coverage[np.abs(two_theta - centre) < width / 2] = 0
    return coverage


@dataclass(frozen=True)
class _Profile:
    """Widths of the instrument: FWHM in degrees, its growth with tan θ, Lorentzian part."""

    width: float
    growth: float
    lorentzian: float

    @classmethod
    def draw(cls, recipe: Recipe, random: np.random.Generator) -> _Profile:
        width = _log_uniform(random, recipe.instrument_width)
        return cls(width, random.uniform(-1.0, 4.0), random.uniform(0.0, 0.7))

    def fwhm(self, tangent: NDArray[np.float64]) -> NDArray[np.float64]:
        """Caglioti: H² = W + V tanθ + U tan²θ, written relative to W."""
        relative = 1 + self.growth * tangent + 4 * tangent**2
        width: NDArray[np.float64] = self.width * np.sqrt(np.clip(relative, 0.5, None))
        return width


@dataclass(frozen=True)
class _Shift:
    """Errors of the geometry: zero in degrees and a relative scale of 2θ."""

    zero: float
    scale: float

    @classmethod
    def draw(cls, recipe: Recipe, random: np.random.Generator) -> _Shift:
        return cls(random.normal(0, recipe.zero_shift), random.normal(0, recipe.distance_scale))


def _phase_pattern(
    lines: PhaseLines,
    generator: Generator,
    random: np.random.Generator,
    profile: _Profile,
    shift: _Shift,
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
    size = _log_uniform(random, recipe.crystallite_size)
    micro = _log_uniform(random, recipe.microstrain)
    instrument = profile.fwhm(tangent)
    broad = np.degrees(4 * micro * tangent)
    gauss = np.sqrt((instrument * (1 - 0.5 * profile.lorentzian)) ** 2 + broad**2)
    lorentz = np.degrees(0.9 * grid.wavelength / (size * np.cos(theta)))
    lorentz = lorentz + instrument * 0.5 * profile.lorentzian
    width, mixing = _pseudo_voigt(gauss, lorentz)
    # Intensity of single lines: structure model, texture, grains.
    area = lines.area * np.exp(
        _log_uniform(random, recipe.line_jitter) * random.standard_normal(len(d))
    )
    if random.random() < recipe.texture_probability:
        axis = random.integers(len(lines.axis_cosines))
        area = area * _march_dollase(lines.axis_cosines[axis], _log_uniform(random, recipe.texture))
    index = np.clip(np.round((position - grid.start) / grid.step), 0, grid.size - 1).astype(int)
    strongest = int(np.argmax(lines.area))
    height = amount * width[strongest]  # area of the strongest ideal line, up to a constant
    ring = _grain_factor(
        lines, generator, random, coverage[index], theta, height * area / width, spot_limit
    )
    return _render(grid, position, width, mixing, height * area * ring)


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
    grains = _log_uniform(random, recipe.grains)
    omega = np.radians(_log_uniform(random, recipe.grain_width))
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


def _render(
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


def _background(
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
    scale = level / _log_uniform(random, recipe.line_to_background)
    result: NDArray[np.float64] = scale * curve / curve.mean()
    return result


def _spots(
    generator: Generator,
    random: np.random.Generator,
    profile: _Profile,
    shift: _Shift,
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
    if masked:
        low, high = np.log(recipe.halo)
        height = height * np.exp(random.uniform(low, high, len(position)))
        width = width * random.uniform(1.0, 4.0, len(position))
    mixing = random.uniform(0, 1, len(position))
    return _render(grid, position, width, mixing, height * width)


def _ripple(random: np.random.Generator, size: int, length: int) -> NDArray[np.float64]:
    """Disturbance of about unit variance that is smooth over ``length`` points, shape (n,)."""
    knots = random.standard_normal(size // length + 2)
    return np.interp(np.arange(size) / length, np.arange(len(knots)), knots)


def _count(
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


PAPER_COUNTS = (384, 385, 287)
"""Single-phase patterns of the paper's S set: bastnaesite, calcite, rhenium."""


def paper_s_set(
    library: PhaseLibrary, grid: Grid, seed: int, mixtures: int = 1056
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """The paper's synthetic set: varied position, intensity and profile; no background, no noise.

    384, 385 and 287 single-phase patterns for three phases (352 each for another number),
    and ``mixtures`` sums of two or more of them in random ratios (Li et al. 2024).

    Parameters
    ----------
    library, grid
        Phases in class order and the points.
    seed
        Sample i depends on (seed, i) only.
    mixtures
        Number of mixed patterns added.

    Returns
    -------
    Patterns (N, n) with values ≥ 0, and labels (N, K).
    """
    recipe = Recipe(texture_probability=0.3, line_jitter=(0.01, 0.2), grains=(1e6, 1e7))
    generator = make_generator(library, (), grid, recipe)
    count = len(library)
    numbers = PAPER_COUNTS if count == 3 else (352,) * count
    full = np.ones(grid.size)
    single: list[NDArray[np.float64]] = []
    label: list[NDArray[np.int8]] = []
    owner = np.repeat(np.arange(count), numbers)
    for sample, phase in enumerate(owner):
        random = sample_random(seed, sample)
        profile, shift = _Profile.draw(recipe, random), _Shift.draw(recipe, random)
        single.append(
            _phase_pattern(
                generator.lines[phase], generator, random, profile, shift, full, 1.0, np.inf
            )
        )
        label.append(np.eye(count, dtype=np.int8)[phase])
    patterns = [*single]
    for sample in range(mixtures if count > 1 else 0):
        random = sample_random(seed, len(owner) + sample)
        members = random.choice(count, random.integers(2, min(count, 3) + 1), replace=False)
        chosen = [random.choice(np.flatnonzero(owner == phase)) for phase in members]
        ratio = random.uniform(0.1, 1.0, len(members))
        patterns.append(sum(r * single[c] for r, c in zip(ratio, chosen, strict=True)))
        label.append(np.eye(count, dtype=np.int8)[members].sum(axis=0, dtype=np.int8))
    return np.array(patterns, dtype=np.float32), np.array(label, dtype=np.int8)
