"""Rings as sums of the spots of grains.

A grain in the beam gives a spot on the ring of a lattice plane when the plane is within the
angular tolerance Δω of the Bragg condition, so a ring of multiplicity m holds on average
``n = N m Δω cosθ / 2`` spots of N grains (He, *Two-dimensional X-ray Diffraction*, 2nd ed.,
ch. 2). Few grains give missing rings and single spots, many give a smooth ring.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xrdpipe.simulation.lines import (
    Beam,
    IlluminatedPhase,
    Lines,
    lines_on_detector,
    powder_profile,
)
from xrdpipe.simulation.plane import (
    AZIMUTH_BINS,
    DEGREE,
    PROFILE_STEP,
    DetectorPlane,
    azimuth_difference,
    pixels_near,
)
from xrdpipe.simulation.profile import PROFILE_REACH, line_profile
from xrdpipe.simulation.texture import cosine_to_fibre, fibre_density
from xrdpipe.types import FloatArray

FEW_SPOTS = 60
"""Rings with fewer spots than this have each spot drawn on its own, with its own strain."""

MANY_SPOTS = 20_000
"""Above this, the volume in an azimuthal bin is a gamma variate of the same mean and variance."""

SMOOTH_RIPPLE = 0.02
"""A ring whose azimuthal ripple is smaller than this is drawn smooth."""

WEAK_LINE = 2e-3
"""Lines below this part of the strongest keep their grain statistics but are drawn smooth."""


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
    Shape (pixels,) in the plane's sorted order; ``plane.image`` puts it on the detector.
    """
    axis = plane.profile_two_theta
    profile = np.zeros(len(axis)) if smooth is None else np.array(smooth, dtype=float)
    grainy: list[tuple[Lines, int, NDArray[np.float32]]] = []
    spots: list[NDArray[np.float64]] = []
    for phase in phases:
        lines = lines_on_detector(plane, phase, beam)
        if len(lines.row):
            factor = _draw_rings(phase, lines, random, grainy, spots)
            profile += powder_profile(axis, lines, factor)
    values = plane.interpolated(profile)
    for lines, i, azimuth in grainy:
        _add_ring(plane, values, lines, i, azimuth)
    if spots:
        add_spots(plane, values, *np.concatenate(spots, axis=1))
    return values


def _draw_rings(
    phase: IlluminatedPhase,
    lines: Lines,
    random: np.random.Generator,
    grainy: list[tuple[Lines, int, NDArray[np.float32]]],
    spots: list[NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Draw the grains of every ring; list the rings that are modulated, and the single spots.

    Returns
    -------
    Factor of each ring for the smooth profile, 0 for the listed ones.
    """
    factor = np.ones(len(lines.row))
    textured = abs(np.log(phase.march)) > 1e-6
    density = np.ones((len(lines.row), AZIMUTH_BINS))
    if textured:
        density = fibre_density(
            phase.table, lines.row, phase.march, cosine_to_fibre(lines.two_theta, phase.fibre)
        )
    if np.isinf(phase.grains):
        if textured:
            grainy += [(lines, i, density[i].astype(np.float32)) for i in range(len(lines.row))]
            factor[:] = 0
        return factor
    expected = lines.spots * density.mean(axis=1)
    # E[v] = 1 for volumes exp(N(-s²/2, s)); then E[v²] = exp(s²).
    second_moment = np.exp(phase.volume_spread**2)
    overlap = lines.azimuthal_sigma * 2 * np.sqrt(np.pi) / 360
    ripple = np.sqrt(second_moment / np.maximum(lines.spots * overlap, 1e-12))
    height = lines.area / lines.width
    weak = height < WEAK_LINE * height.max()
    for i in range(len(lines.row)):
        if ripple[i] < SMOOTH_RIPPLE and not textured:
            continue
        count = int(random.poisson(min(expected[i], 1e12)))
        if weak[i] or (count == 0 and expected[i] < FEW_SPOTS):
            factor[i] = _volume_sum(random, count, phase.volume_spread) / lines.spots[i]
            continue
        factor[i] = 0
        if count <= FEW_SPOTS:
            spots.append(_ring_spots(phase, lines, i, count, density[i], random))
        else:
            grainy.append((lines, i, _ring_azimuth(phase, lines, i, count, density[i], random)))
    return factor


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


def _add_ring(
    plane: DetectorPlane,
    values: NDArray[np.float32],
    lines: Lines,
    i: int,
    azimuth: NDArray[np.float32],
) -> None:
    """Add ring i with an azimuthal modulation, in place."""
    centre, reach = lines.two_theta[i], PROFILE_REACH * lines.width[i]
    first = max(int((centre - reach) / PROFILE_STEP), 0)
    points = np.arange(first, int((centre + reach) / PROFILE_STEP) + 2) * PROFILE_STEP
    profile = lines.area[i] * line_profile(
        points - centre, float(lines.width[i]), float(lines.lorentzian[i])
    )
    ring = plane.slice_between(centre - reach, centre + reach)
    added = plane.interpolated(profile, ring, first)
    added *= azimuth[plane.azimuth_bin[ring]]
    values[ring] += added


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
