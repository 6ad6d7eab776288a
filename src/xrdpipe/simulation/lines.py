"""The lines of a phase as they fall on the detector, and the smooth rings they make.

The mean over a ring's azimuth is ``m |F|² / (sin²θ cosθ)`` per pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.crystal import Cell, ReflectionTable, bragg_angle, powder_intensity
from xrdpipe.simulation.plane import DEGREE, DetectorPlane
from xrdpipe.simulation.profile import (
    FWHM_PER_SIGMA,
    PROFILE_REACH,
    line_profile,
    pseudo_voigt_width,
)
from xrdpipe.types import FloatArray


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
        Number of grains in the beam; infinite gives the powder average.
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
    displacement
        Sample out of the calibrated plane, towards the detector, µm.
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
    displacement: float = 0.0


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
    """The lines of one phase on the detector, one entry per ring.

    Parameters
    ----------
    two_theta
        Where the rings are seen, degrees.
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
        Scattering scale S of ``area = S m|F|²/(V² sin²θ cosθ)`` but for V: proportional to the
        volume of the phase in the beam over V².
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


def displaced_angle(
    two_theta: FloatArray, displacement: float, distance: float
) -> NDArray[np.float64]:
    """2θ at which a ring is seen when the sample is out of the calibrated plane, degrees.

    The radius on a detector square to the beam is ``(L - dz) tan 2θ``, which the calibration
    reads as ``L tan 2θ'``. For a tilted detector this holds with L at the ring's mean.

    Parameters
    ----------
    two_theta
        True scattering angles, degrees.
    displacement
        dz, towards the detector, µm.
    distance
        L, m.
    """
    shrink = 1 - displacement * 1e-6 / distance
    angle = np.asarray(two_theta, dtype=float) * DEGREE
    seen: NDArray[np.float64] = np.arctan2(shrink * np.sin(angle), np.cos(angle)) / DEGREE
    return seen


def lines_on_detector(plane: DetectorPlane, phase: IlluminatedPhase, beam: Beam) -> Lines:
    """Positions, areas, widths and grain statistics of the rings that touch the detector."""
    table = phase.table
    low, high = plane.two_theta_limits
    bragg = bragg_angle(table.d_in_cell(phase.cell), plane.wavelength)
    two_theta = displaced_angle(bragg, phase.displacement, plane.distance)
    near = 1.0  # degrees: the foot of a line just outside still reaches the detector
    row = np.flatnonzero((two_theta > low - near) & (two_theta < high + near))
    two_theta = two_theta[row]
    theta = bragg[row] / 2 * DEGREE
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
        Smooth background on ``plane.profile_two_theta``, counts per pixel; infinite detectability
        where there is none.
    """
    axis = plane.profile_two_theta
    low, high = plane.two_theta_limits
    covered = (axis >= low) & (axis <= high)
    signal, under = powder_profile(axis, lines)[covered], background[covered]
    if not np.any(signal > 0):
        return 0.0
    ratio = np.divide(signal, under, out=np.where(signal > 0, np.inf, 0.0), where=under > 0)
    return float(ratio.max())
