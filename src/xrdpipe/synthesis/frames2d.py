"""Detector frames from explicit grains: every ring is a sum of spots.

A grain in the beam gives a spot on the ring of a lattice plane when the plane is within the
angular tolerance Δω of the Bragg condition, so a ring of multiplicity m holds on average
``n = N m Δω cosθ / 2`` spots of N grains (He, *Two-dimensional X-ray Diffraction*, 2nd ed.,
ch. 2). Few grains give missing rings and single spots, many give a smooth ring. The mean over
a ring's azimuth is ``m |F|² / (sin²θ cosθ)`` per pixel.

This simulator shares structure factors with the training patterns and nothing else: it is for
tests, demonstrations and validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.crystal import Cell, ReflectionTable, bragg_angle, powder_intensity
from xrdpipe.errors import InputError
from xrdpipe.types import BoolArray, FloatArray

PROFILE_STEP = 0.01
"""Step of the radial profile that smooth intensity is drawn from, degrees 2θ."""

PROFILE_REACH = 5.0
"""A line ends this many full widths from its centre."""

AZIMUTH_BINS = 2880
"""Azimuthal bins of a grainy ring: 0.125°."""

FEW_SPOTS = 60
"""Rings with fewer spots than this have each spot drawn on its own, with its own strain."""

MANY_SPOTS = 20_000
"""Above this, the volume in an azimuthal bin is a gamma variate of the same mean and variance."""

SMOOTH_RIPPLE = 0.02
"""A ring whose azimuthal ripple is smaller than this is drawn smooth."""

WEAK_LINE = 2e-3
"""Lines below this part of the strongest keep their grain statistics but are drawn smooth."""

DEGREE = np.pi / 180
FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))


@dataclass(frozen=True)
class DetectorPlane:
    """Where the pixels are, sorted so that a ring is a slice and a spot a few short runs.

    Parameters
    ----------
    shape
        Rows and columns.
    gap_mask
        Shape (rows, columns), True where the detector has no pixel.
    efficiency
        Shape (rows, columns), solid angle times polarization: what integration divides out.
    wavelength
        In Å.
    pitch
        Pixel width along 2θ in degrees, median over the detector.
    order
        Flat pixel index, sorted by radial bin, then azimuth; gaps are left out.
    two_theta, chi
        In that order, degrees; chi in [-180, 180).
    azimuth_bin
        In that order, index into AZIMUTH_BINS.
    key
        Radial bin plus the turn of azimuth, in that order: what spots are looked up in.
    bin_start
        First place of each radial bin (width ``pitch``), and the end of the last.
    profile_index, profile_weight
        In that order: where in the radial profile a pixel lies, for linear interpolation.
    """

    shape: tuple[int, int]
    gap_mask: BoolArray
    efficiency: NDArray[np.float32]
    wavelength: float
    pitch: float
    order: NDArray[np.int64]
    two_theta: NDArray[np.float32]
    chi: NDArray[np.float32]
    azimuth_bin: NDArray[np.int32]
    key: NDArray[np.float64]
    bin_start: NDArray[np.int64]
    profile_index: NDArray[np.int32]
    profile_weight: NDArray[np.float32]

    @property
    def profile_two_theta(self) -> NDArray[np.float64]:
        """Points of the radial profile in degrees, from 0 past the last pixel."""
        return np.arange(int(self.profile_index.max()) + 2) * np.float64(PROFILE_STEP)

    @property
    def two_theta_limits(self) -> tuple[float, float]:
        """Smallest and largest 2θ of a pixel, degrees."""
        return float(self.two_theta.min()), float(self.two_theta.max())

    def slice_between(self, low: float, high: float) -> slice:
        """Places of all pixels of the radial bins that touch [low, high] degrees 2θ."""
        last = len(self.bin_start) - 1
        first_bin = min(max(int(low / self.pitch), 0), last)
        last_bin = min(max(int(high / self.pitch) + 1, 0), last)
        return slice(int(self.bin_start[first_bin]), int(self.bin_start[last_bin]))

    def image(self, values: FloatArray, fill: float = 0.0) -> NDArray[np.float32]:
        """Put values in sorted order back onto the detector; gaps get ``fill``."""
        flat = np.full(self.shape[0] * self.shape[1], fill, dtype=np.float32)
        flat[self.order] = values
        return flat.reshape(self.shape)


def detector_plane(
    two_theta: FloatArray,
    chi: FloatArray,
    wavelength: float,
    *,
    solid_angle: FloatArray | float = 1.0,
    polarization: FloatArray | float = 1.0,
    gap_mask: BoolArray | None = None,
) -> DetectorPlane:
    """Sort the pixels of a detector once for all frames.

    Parameters
    ----------
    two_theta, chi
        Shape (rows, columns), degrees, at the pixel centres.
    wavelength
        In Å.
    solid_angle, polarization
        Factors that the measurement carries and integration divides out.
    gap_mask
        True where there is no pixel.
    """
    shape = (two_theta.shape[0], two_theta.shape[1])
    gaps = np.zeros(shape, dtype=bool) if gap_mask is None else np.asarray(gap_mask, dtype=bool)
    if chi.shape != shape or gaps.shape != shape:
        raise InputError(
            f"two_theta {shape}, chi {chi.shape} and gap mask {gaps.shape} must have one shape."
        )
    along_rows, along_columns = np.gradient(np.asarray(two_theta, dtype=float))
    pitch = float(np.median(np.hypot(along_rows, along_columns)))
    live = np.flatnonzero(~gaps)
    angle = np.asarray(two_theta, dtype=float).ravel()[live]
    turn = ((np.asarray(chi, dtype=float).ravel()[live] + 180) / 360) % 1.0
    radial_bin = np.floor(angle / pitch)
    # Short of the next integer, so that a turn close to 1 stays in its radial bin.
    key = radial_bin + turn * (1 - 1e-9)
    by_key = np.argsort(key, kind="stable")
    angle, turn, radial_bin, key = (part[by_key] for part in (angle, turn, radial_bin, key))
    bin_start = np.searchsorted(radial_bin, np.arange(int(radial_bin[-1]) + 2))
    place = angle / PROFILE_STEP
    return DetectorPlane(
        shape=shape,
        gap_mask=gaps,
        efficiency=np.broadcast_to(
            np.asarray(solid_angle) * np.asarray(polarization), shape
        ).astype(np.float32),
        wavelength=float(wavelength),
        pitch=pitch,
        order=live[by_key],
        two_theta=angle.astype(np.float32),
        chi=(360 * turn - 180).astype(np.float32),
        azimuth_bin=np.minimum((turn * AZIMUTH_BINS).astype(np.int32), AZIMUTH_BINS - 1),
        key=key,
        bin_start=bin_start,
        profile_index=place.astype(np.int32),
        profile_weight=(place % 1.0).astype(np.float32),
    )


@dataclass(frozen=True)
class IlluminatedPhase:
    """What the beam meets of one phase at one place of the sample.

    Parameters
    ----------
    table
        Its lines.
    peak_counts
        Height of its strongest line on the detector in the powder average, counts per pixel.
    grains
        Number of grains in the beam.
    cell
        The strained cell: a, b, c in Å and three angles in degrees.
    size
        Coherent domain (Scherrer) size in nm; a grain holds many.
    microstrain
        Spread of Δd/d from grain to grain, dimensionless.
    mosaic
        FWHM of the mosaic spread of one grain, degrees.
    volume_spread
        Standard deviation of the logarithm of the grain volume.
    march
        March-Dollase coefficient of a fibre texture around c; 1 = random orientation.
    fibre
        Azimuth chi of the fibre axis in the detector plane, degrees.
    """

    table: ReflectionTable
    peak_counts: float
    grains: float
    cell: Cell
    size: float = 200.0
    microstrain: float = 5e-4
    mosaic: float = 0.2
    volume_spread: float = 1.0
    march: float = 1.0
    fibre: float = 0.0


@dataclass(frozen=True)
class Beam:
    """What the beam and the detector add to a line.

    Parameters
    ----------
    width
        Gaussian FWHM along 2θ without the pixel, degrees.
    divergence
        FWHM of the convergence of the focused beam, degrees.
    bandwidth
        FWHM of Δλ/λ, dimensionless.
    """

    width: float = 0.08
    divergence: float = 0.05
    bandwidth: float = 2e-4


@dataclass(frozen=True)
class Lines:
    """The lines of one phase as they fall on the detector, one entry per ring.

    Parameters
    ----------
    two_theta
        Centres, degrees.
    area
        Integral of the line over 2θ in the powder average, counts per pixel × degrees.
    width, lorentzian
        FWHM in degrees and Lorentzian part of the pseudo-Voigt, strain spread included.
    spot_width, spot_lorentzian
        The same of one grain, without the spread from grain to grain.
    spots
        Expected number of spots on the full ring.
    azimuthal_sigma
        Standard deviation of a spot along chi, degrees.
    scale
        Scattering scale S of ``area = S m|F|²/(V² sin²θ cosθ)``: proportional to the volume
        of the phase in the beam.
    row
        Row of each ring in the reflection table.
    """

    two_theta: NDArray[np.float64]
    area: NDArray[np.float64]
    width: NDArray[np.float64]
    lorentzian: NDArray[np.float64]
    spot_width: NDArray[np.float64]
    spot_lorentzian: NDArray[np.float64]
    spots: NDArray[np.float64]
    azimuthal_sigma: NDArray[np.float64]
    scale: float
    row: NDArray[np.int64]


def lines_on_detector(plane: DetectorPlane, phase: IlluminatedPhase, beam: Beam) -> Lines:
    """Positions, areas, widths and grain statistics of the rings that touch the detector."""
    table = phase.table
    low, high = plane.two_theta_limits
    two_theta = bragg_angle(table.d_in_cell(phase.cell), plane.wavelength)
    near = 1.0  # degrees: the foot of a line just outside still reaches the detector
    row = np.flatnonzero((two_theta > low - near) & (two_theta < high + near))
    two_theta = two_theta[row]
    theta = two_theta / 2 * DEGREE
    # Scherrer equation with K = 0.9, and Δ2θ = 2 ε tanθ; nm to Å is a factor of 10.
    size_width = 0.9 * plane.wavelength / (10 * phase.size * np.cos(theta)) / DEGREE
    strain_width = FWHM_PER_SIGMA * 2 * phase.microstrain * np.tan(theta) / DEGREE
    energy_width = 2 * beam.bandwidth * np.tan(theta) / DEGREE
    pixel_width = FWHM_PER_SIGMA * plane.pitch / np.sqrt(12)
    spot_gaussian = np.sqrt(beam.width**2 + pixel_width**2 + energy_width**2)
    spot_width, spot_lorentzian = pseudo_voigt_width(spot_gaussian, size_width)
    width, lorentzian = pseudo_voigt_width(np.hypot(spot_gaussian, strain_width), size_width)
    relative = powder_intensity(table, plane.wavelength)[row]
    height = relative * line_profile(np.zeros(len(row)), width, lorentzian)
    on_detector = (two_theta >= low) & (two_theta <= high)
    strongest = float(height[on_detector].max(initial=0.0))
    scale = phase.peak_counts / strongest if strongest > 0 else 0.0
    tolerance = DEGREE * np.sqrt(
        phase.mosaic**2 + beam.divergence**2 + (beam.bandwidth * np.tan(theta) / DEGREE) ** 2
    )
    spots = phase.grains * table.multiplicity[row] * tolerance * np.cos(theta) / 2
    # A spot is at least about a pixel wide; along chi a pixel is pitch / sin 2θ.
    pixel_azimuth = 0.6 * plane.pitch / np.sin(2 * theta)
    azimuthal_sigma = np.hypot(phase.mosaic / FWHM_PER_SIGMA, pixel_azimuth)
    return Lines(
        two_theta=two_theta,
        area=scale * relative,
        width=width,
        lorentzian=lorentzian,
        spot_width=spot_width,
        spot_lorentzian=spot_lorentzian,
        spots=spots,
        azimuthal_sigma=azimuthal_sigma,
        scale=scale,
        row=row,
    )


def pseudo_voigt_width(
    gaussian: FloatArray, lorentzian: FloatArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """FWHM and Lorentzian part of the pseudo-Voigt nearest to a Voigt profile.

    Thompson, Cox & Hastings, J. Appl. Cryst. 20, 79 (1987).

    Parameters
    ----------
    gaussian, lorentzian
        FWHM of the two parts, same units.
    """
    g, w = np.asarray(gaussian, dtype=float), np.asarray(lorentzian, dtype=float)
    width = (
        g**5
        + 2.69269 * g**4 * w
        + 2.42843 * g**3 * w**2
        + 4.47163 * g**2 * w**3
        + 0.07842 * g * w**4
        + w**5
    ) ** 0.2
    ratio = w / width
    return width, 1.36603 * ratio - 0.47719 * ratio**2 + 0.11116 * ratio**3


def _tapered_lorentzian(u: FloatArray) -> FloatArray:
    """Unit-width Lorentzian shape that goes smoothly to zero at ±PROFILE_REACH."""
    taper = np.maximum(1 - (u / PROFILE_REACH) ** 2, 0)
    shape: FloatArray = taper * taper / (1 + 4 * u * u)
    return shape


_U = np.linspace(-PROFILE_REACH, PROFILE_REACH, 20001)
_LORENTZIAN_AREA = float(np.trapezoid(_tapered_lorentzian(_U), _U))
_GAUSSIAN_PEAK = 2 * np.sqrt(np.log(2) / np.pi)


def line_profile(
    offset: FloatArray, width: FloatArray | float, lorentzian: FloatArray | float
) -> FloatArray:
    """Pseudo-Voigt of unit area whose tails end at PROFILE_REACH full widths.

    Parameters
    ----------
    offset
        Distance from the centre, degrees.
    width
        FWHM, degrees.
    lorentzian
        Lorentzian part, 0-1.
    """
    u = offset / width
    gaussian = _GAUSSIAN_PEAK * np.exp(-4 * np.log(2) * u * u)
    tails = _tapered_lorentzian(u) / _LORENTZIAN_AREA
    profile: FloatArray = ((1 - lorentzian) * gaussian + lorentzian * tails) / width
    return profile


def powder_profile(
    two_theta: FloatArray, lines: Lines, factor: FloatArray | float = 1.0
) -> NDArray[np.float64]:
    """Radial profile of smooth rings on a uniform axis, counts per pixel, shape of the axis.

    Parameters
    ----------
    two_theta
        Uniform axis, degrees.
    lines
        The rings.
    factor
        Multiplies each ring.
    """
    axis = np.asarray(two_theta, dtype=float)
    profile = np.zeros(len(axis))
    step = axis[1] - axis[0]
    strengths = np.broadcast_to(np.asarray(factor) * lines.area, lines.area.shape)
    for i in np.flatnonzero(strengths > 0):
        reach = PROFILE_REACH * lines.width[i]
        first = max(int((lines.two_theta[i] - reach - axis[0]) / step), 0)
        last = max(int((lines.two_theta[i] + reach - axis[0]) / step) + 2, 0)
        part = axis[first:last] - lines.two_theta[i]
        profile[first:last] += strengths[i] * line_profile(
            part, lines.width[i], lines.lorentzian[i]
        )
    return profile


def strongest_over_background(plane: DetectorPlane, lines: Lines, background: FloatArray) -> float:
    """Detectability: largest ratio of the powder average to the background under it.

    Parameters
    ----------
    plane
        The detector; only 2θ that it covers counts.
    lines
        The rings of the phase.
    background
        Smooth background on ``plane.profile_two_theta``, counts per pixel.
    """
    axis = plane.profile_two_theta
    low, high = plane.two_theta_limits
    covered = (axis >= low) & (axis <= high)
    return float(np.max(powder_profile(axis, lines)[covered] / background[covered]))


def fibre_density(
    table: ReflectionTable, row: NDArray[np.int64], march: float, cos_beta: FloatArray
) -> NDArray[np.float64]:
    """Pole density of rings in a fibre texture around c, averaged over each orbit.

    The March-Dollase distribution of c axes (Dollase, J. Appl. Cryst. 19, 267 (1986)) is
    averaged on the cone of c axes that bring a plane normal at angle ψ from c to an angle β
    from the fibre axis. The mean over all directions is 1 for every ring.

    Parameters
    ----------
    table
        Lines and rotations.
    row
        Rows wanted, shape (R,).
    march
        March-Dollase coefficient.
    cos_beta
        Cosine of the angle between scattering vector and fibre axis, shape (R, n).

    Returns
    -------
    Shape (R, n).
    """
    nodes = np.linspace(0, 1, 25)
    phi = np.pi * (np.arange(24) + 0.5) / 24
    cos_psi, cos_b = nodes[:, None, None], nodes[None, :, None]
    cos_alpha = cos_psi * cos_b + np.sqrt((1 - cos_psi**2) * (1 - cos_b**2)) * np.cos(phi)
    squared = cos_alpha**2
    cone = np.mean((march**2 * squared + (1 - squared) / march) ** -1.5, axis=2)
    cosines = np.sqrt(np.clip(table.axis_cosines_squared((0, 0, 1))[row], 0, 1))
    place = cosines * (len(nodes) - 1)
    below = np.minimum(place.astype(int), len(nodes) - 2)
    weight = (place - below)[..., None]
    per_ring = np.mean(cone[below] * (1 - weight) + cone[below + 1] * weight, axis=1)
    density: NDArray[np.float64] = np.stack(
        [
            np.interp(np.abs(cosine), nodes, ring)
            for cosine, ring in zip(cos_beta, per_ring, strict=True)
        ]
    )
    return density


def render_phases(
    plane: DetectorPlane,
    phases: Sequence[IlluminatedPhase],
    beam: Beam,
    random: np.random.Generator,
    smooth: FloatArray | None = None,
) -> NDArray[np.float32]:
    """Expected counts of all phases plus a smooth radial background, before the efficiency.

    Parameters
    ----------
    plane
        The detector.
    phases
        What is in the beam.
    beam
        Widths that the beam adds.
    random
        Draws the grains.
    smooth
        Further radial intensity on ``plane.profile_two_theta``, counts per pixel.

    Returns
    -------
    Shape (rows, columns), 0 in the gaps.
    """
    axis = plane.profile_two_theta
    profile = np.zeros(len(axis)) if smooth is None else np.array(smooth, dtype=float)
    values = np.zeros(len(plane.order), dtype=np.float32)
    spots: list[NDArray[np.float64]] = []
    for phase in phases:
        lines = lines_on_detector(plane, phase, beam)
        if not len(lines.row):
            continue
        smooth_factor, grainy = _grainy_rings(plane, phase, lines, random, values, spots)
        profile += powder_profile(axis, lines, np.where(grainy, 0.0, smooth_factor))
    if spots:
        add_spots(plane, values, *np.concatenate(spots, axis=1))
    table = profile.astype(np.float32)
    step = np.diff(table, append=table[-1:])
    values += table[plane.profile_index] + step[plane.profile_index] * plane.profile_weight
    return plane.image(values)


def _grainy_rings(
    plane: DetectorPlane,
    phase: IlluminatedPhase,
    lines: Lines,
    random: np.random.Generator,
    values: NDArray[np.float32],
    spots: list[NDArray[np.float64]],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Draw the grains of every ring; add what is not smooth, and say what is.

    Returns
    -------
    Factor of each ring that is left to the smooth profile, and which rings are not left to it.
    """
    rings = len(lines.row)
    factor = np.ones(rings)
    grainy = np.zeros(rings, dtype=bool)
    textured = abs(np.log(phase.march)) > 1e-6
    density = np.ones((rings, AZIMUTH_BINS))
    if textured:
        density = fibre_density(
            phase.table, lines.row, phase.march, _cos_to_fibre(lines.two_theta, phase.fibre)
        )
    expected = lines.spots * density.mean(axis=1)
    # E[v] = 1 for volumes exp(N(-s²/2, s)); then E[v²] = exp(s²).
    second_moment = np.exp(phase.volume_spread**2)
    overlap = lines.azimuthal_sigma * 2 * np.sqrt(np.pi) / 360
    ripple = np.sqrt(second_moment / np.maximum(lines.spots * overlap, 1e-12))
    weak = lines.area / lines.width < WEAK_LINE * np.max(lines.area / lines.width)
    for i in range(rings):
        if ripple[i] < SMOOTH_RIPPLE and not textured:
            continue
        count = int(random.poisson(min(expected[i], 1e12)))
        if weak[i] or (count == 0 and expected[i] < FEW_SPOTS):
            factor[i] = _volume_sum(random, count, phase.volume_spread) / lines.spots[i]
            continue
        grainy[i] = True
        if count <= FEW_SPOTS:
            spots.append(_ring_spots(phase, lines, i, count, density[i], random))
            continue
        azimuth = _ring_azimuth(phase, lines, i, count, density[i], random)
        reach = PROFILE_REACH * lines.width[i]
        ring = plane.slice_between(lines.two_theta[i] - reach, lines.two_theta[i] + reach)
        offset = plane.two_theta[ring] - np.float32(lines.two_theta[i])
        profile = line_profile(offset, float(lines.width[i]), float(lines.lorentzian[i]))
        values[ring] += (
            np.float32(lines.area[i]) * profile * azimuth[plane.azimuth_bin[ring]]
        ).astype(np.float32)
    return factor, grainy


def _cos_to_fibre(two_theta: FloatArray, fibre: float) -> NDArray[np.float64]:
    """Cosine between scattering vectors around a ring and an axis in the detector plane.

    The scattering vector is (cosθ cosχ, cosθ sinχ, -sinθ) with the beam along z.
    """
    chi = (np.arange(AZIMUTH_BINS) + 0.5) * 360 / AZIMUTH_BINS - 180
    theta = np.asarray(two_theta)[:, None] / 2 * DEGREE
    cosine: NDArray[np.float64] = np.cos(theta) * np.cos((chi[None, :] - fibre) * DEGREE)
    return cosine


def _volumes(random: np.random.Generator, count: int, spread: float) -> NDArray[np.float64]:
    """Log-normal grain volumes of mean exactly 1, shape (count,)."""
    return random.lognormal(-(spread**2) / 2, spread, count)


def _volume_sum(random: np.random.Generator, count: int, spread: float) -> float:
    """Sum of ``count`` grain volumes."""
    if count > MANY_SPOTS:
        deviation = np.sqrt(count * (np.exp(spread**2) - 1))
        return float(max(count + deviation * random.standard_normal(), 0.0))
    return float(_volumes(random, count, spread).sum())


def _draw_azimuth(
    random: np.random.Generator, count: int, density: FloatArray
) -> NDArray[np.float64]:
    """Azimuths of ``count`` spots with a density over AZIMUTH_BINS, degrees."""
    cumulative = np.concatenate([[0.0], np.cumsum(density)])
    edges = np.linspace(-180, 180, AZIMUTH_BINS + 1)
    chi: NDArray[np.float64] = np.interp(random.random(count) * cumulative[-1], cumulative, edges)
    return chi


def _ring_spots(
    phase: IlluminatedPhase,
    lines: Lines,
    i: int,
    count: int,
    density: FloatArray,
    random: np.random.Generator,
) -> NDArray[np.float64]:
    """Single spots of ring i: shape (6, count), the columns of :func:`add_spots`."""
    chi = _draw_azimuth(random, count, density)
    volume = _volumes(random, count, phase.volume_spread)
    theta = lines.two_theta[i] / 2 * DEGREE
    shift = 2 * phase.microstrain * np.tan(theta) / DEGREE * random.standard_normal(count)
    sigma = lines.azimuthal_sigma[i]
    height = lines.area[i] * volume / lines.spots[i] * 360 / (np.sqrt(2 * np.pi) * sigma)
    return np.stack(
        [
            lines.two_theta[i] + shift,
            chi,
            height,
            np.full(count, lines.spot_width[i]),
            np.full(count, lines.spot_lorentzian[i]),
            np.full(count, sigma),
        ]
    )


def _ring_azimuth(
    phase: IlluminatedPhase,
    lines: Lines,
    i: int,
    count: int,
    density: FloatArray,
    random: np.random.Generator,
) -> NDArray[np.float32]:
    """Azimuthal modulation of ring i, shape (AZIMUTH_BINS,); mean 1 for an average draw."""
    if count <= MANY_SPOTS:
        chi = _draw_azimuth(random, count, density)
        volume = _volumes(random, count, phase.volume_spread)
        place = np.minimum(((chi + 180) / 360 * AZIMUTH_BINS).astype(int), AZIMUTH_BINS - 1)
        drawn = np.bincount(place, weights=volume, minlength=AZIMUTH_BINS)
    else:
        # A compound Poisson sum has mean n and variance n E[v²]; gamma keeps both.
        mean = np.maximum(lines.spots[i] * density / AZIMUTH_BINS, 1e-12)
        second_moment = np.exp(phase.volume_spread**2)
        drawn = random.gamma(mean / second_moment, second_moment)
    frequency = np.fft.rfftfreq(AZIMUTH_BINS, d=360 / AZIMUTH_BINS)
    blur = np.exp(-2 * (np.pi * frequency * lines.azimuthal_sigma[i]) ** 2)
    spread = np.fft.irfft(np.fft.rfft(drawn) * blur, n=AZIMUTH_BINS)
    scaled: NDArray[np.float32] = np.maximum(spread * AZIMUTH_BINS / lines.spots[i], 0).astype(
        np.float32
    )
    return scaled


def add_spots(
    plane: DetectorPlane,
    values: NDArray[np.float32],
    two_theta: FloatArray,
    chi: FloatArray,
    height: FloatArray,
    width: FloatArray,
    lorentzian: FloatArray,
    azimuthal_sigma: FloatArray,
) -> None:
    """Add spots to intensities in the plane's sorted order, in place.

    Parameters
    ----------
    plane
        The detector.
    values
        Shape (pixels,), counts.
    two_theta, chi
        Centres, degrees; shape (n,) as all that follow.
    height
        Integral over 2θ at the centre of the azimuthal profile, counts × degrees.
    width, lorentzian
        FWHM in degrees and Lorentzian part along 2θ.
    azimuthal_sigma
        Standard deviation along chi, degrees.
    """
    # Beyond 4.5 sigma a Gaussian is below 4e-5 of its height.
    pixel, spot = pixels_near(plane, two_theta, chi, PROFILE_REACH * width, 4.5 * azimuthal_sigma)
    offset = plane.two_theta[pixel] - two_theta[spot]
    turn = azimuth_difference(plane.chi[pixel], chi[spot]) / azimuthal_sigma[spot]
    profile = line_profile(offset, width[spot], lorentzian[spot])
    # add.at: several spots may share a pixel
    np.add.at(values, pixel, (height[spot] * profile * np.exp(-turn * turn / 2)).astype(np.float32))


def azimuth_difference(chi: FloatArray, centre: FloatArray) -> FloatArray:
    """Difference of two azimuths in [-180, 180), degrees."""
    difference: FloatArray = (chi - centre + 180) % 360 - 180
    return difference


def pixels_near(
    plane: DetectorPlane,
    two_theta: FloatArray,
    chi: FloatArray,
    reach: FloatArray,
    azimuthal_reach: FloatArray,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels in a window around each of n centres.

    Parameters
    ----------
    plane
        The detector.
    two_theta, chi
        Centres in degrees, shape (n,).
    reach, azimuthal_reach
        Half-widths of the windows, degrees, shape (n,).

    Returns
    -------
    Places in the plane's sorted order, and which centre each belongs to; same length.
    """
    bins = len(plane.bin_start) - 1
    first = np.clip(np.floor((two_theta - reach) / plane.pitch), 0, bins).astype(np.int64)
    last = np.clip(np.floor((two_theta + reach) / plane.pitch) + 1, 0, bins).astype(np.int64)
    rows, spot = _expand(first, last)
    centre = ((chi[spot] + 180) / 360) % 1.0
    half = np.minimum(azimuthal_reach[spot] / 360, 0.5)
    low, high = centre - half, centre + half
    # A window over the cut at ±180° is two windows, moved by a turn.
    wraps_low, wraps_high = low < 0, high > 1
    rows = np.concatenate([rows, rows[wraps_low], rows[wraps_high]])
    spot = np.concatenate([spot, spot[wraps_low], spot[wraps_high]])
    low, high = (
        np.concatenate([low, low[wraps_low] + 1, low[wraps_high] - 1]),
        np.concatenate([high, high[wraps_low] + 1, high[wraps_high] - 1]),
    )
    start = np.searchsorted(plane.key, rows + np.maximum(low, 0))
    stop = np.searchsorted(plane.key, rows + np.minimum(high, 1 - 1e-12))
    pixel, run = _expand(start, stop)
    return pixel, spot[run]


def _expand(
    start: NDArray[np.int64], stop: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All integers of the ranges [start, stop), and the range that each belongs to."""
    length = np.maximum(stop - start, 0)
    owner = np.repeat(np.arange(len(start)), length)
    within = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
    return start[owner] + within, owner
