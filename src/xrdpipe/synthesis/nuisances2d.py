"""What a detector sees besides the sample: background, diamond anvils, beamstop, bad pixels.

Static parts (diamond spots, dead and hot pixels) belong to a measurement and are drawn once;
each frame then adds its own drift, zingers and counting noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.synthesis.frames2d import (
    DEGREE,
    DetectorPlane,
    azimuth_difference,
    pixels_near,
)
from xrdpipe.types import BoolArray, FloatArray

DIAMOND_SPACINGS = (2.059, 1.261, 1.075, 0.892)
"""d of diamond 111, 220, 311, 400 in Å (a = 3.567 Å)."""

HALO_REACH = 25.0
"""The halo of a diamond spot ends this many pixels from its centre."""

HALO_LEVEL = 1e-3
"""Height of the halo over the height of the spot."""

HALO_CORE = 3.0
"""Radius in pixels at which the halo starts to fall."""


@dataclass(frozen=True)
class Background:
    """Smooth scattering at one place, in counts per pixel.

    Parameters
    ----------
    air
        Air and beamstop scattering at q = 1 Å⁻¹.
    air_exponent
        It falls with q to this power.
    fluid
        Height of the first hump of the fluid, at q = 2.0 Å⁻¹.
    second_hump
        Height of the hump at q = 3.05 Å⁻¹ over the first.
    compton
        Incoherent scattering at large q.
    """

    air: float
    air_exponent: float
    fluid: float
    second_hump: float
    compton: float


def momentum_transfer(two_theta: FloatArray, wavelength: float) -> NDArray[np.float64]:
    """Momentum transfer 4π sinθ / λ in 1/Å, shape of ``two_theta`` (degrees)."""
    return 4 * np.pi / wavelength * np.sin(np.asarray(two_theta, dtype=float) / 2 * DEGREE)


def background_profile(
    two_theta: FloatArray, wavelength: float, background: Background
) -> NDArray[np.float64]:
    """Radial profile of the smooth scattering, counts per pixel, shape of ``two_theta``.

    The two humps stand for the structure factor of an aqueous fluid; incoherent scattering
    rises from zero and levels off.
    """
    q = momentum_transfer(two_theta, wavelength)
    # Nothing is measured below 0.3 1/Å: the direct beam stays finite.
    falling = background.air * np.maximum(q, 0.3) ** -background.air_exponent
    first = np.exp(-(((q - 2.0) / 0.42) ** 2))
    second = background.second_hump * np.exp(-(((q - 3.05) / 0.60) ** 2))
    incoherent = background.compton * -np.expm1(-((q / 3.0) ** 2))
    profile: NDArray[np.float64] = falling + background.fluid * (first + second) + incoherent
    return profile


@dataclass(frozen=True)
class DiamondSpots:
    """Reflections of the anvils: fixed on the detector, drifting slowly with the scan.

    Parameters
    ----------
    two_theta, chi
        Centres in degrees, shape (n,).
    counts
        Height in counts, shape (n,).
    drift
        Relative change of the height, 2θ shift and chi shift (pixels) over the whole scan,
        shape (n, 3).
    """

    two_theta: NDArray[np.float64]
    chi: NDArray[np.float64]
    counts: NDArray[np.float64]
    drift: NDArray[np.float64]


def draw_diamond_spots(
    plane: DetectorPlane, random: np.random.Generator, anvils: int = 2
) -> DiamondSpots:
    """Draw spots of two single crystals: one to three per crystal and ring.

    Heights are log-uniform from 10^2.5 to 10^7 counts, one spot in each of as many equal
    parts of that range, so that some saturate whatever the seed.
    """
    two_theta: list[float] = []
    for _ in range(anvils):
        for spacing in DIAMOND_SPACINGS:
            sine = plane.wavelength / (2 * spacing)
            many = int(random.integers(1, 4))
            if sine < 1:
                two_theta += [float(2 * np.arcsin(sine) / DEGREE)] * many
    count = len(two_theta)
    # Stress and the finite crystal move a spot a little off the ring.
    centre = np.array(two_theta) + 0.02 * random.standard_normal(count)
    return DiamondSpots(
        two_theta=centre,
        chi=random.uniform(-180, 180, count),
        counts=10 ** (2.5 + 4.5 * (random.permutation(count) + random.random(count)) / count),
        drift=random.normal(0, [0.3, 0.5, 0.5], (count, 3)),
    )


def render_diamond_spots(
    plane: DetectorPlane, spots: DiamondSpots, progress: float = 0.5
) -> NDArray[np.float32]:
    """Counts of the anvils' spots with their halos, shape (rows, columns).

    Parameters
    ----------
    plane
        The detector.
    spots
        From :func:`draw_diamond_spots`.
    progress
        Place in the scan, 0-1; the drift is zero in the middle.
    """
    values = np.zeros(len(plane.order), dtype=np.float32)
    place = progress - 0.5
    # Pixel pitch seen from the sample: cos² 2θ along the radius and cos 2θ along the ring.
    tilt = np.cos(spots.two_theta * DEGREE)
    radial = plane.pitch * tilt**2 / np.median(np.cos(plane.two_theta * DEGREE)) ** 2
    around = radial / tilt / np.sin(spots.two_theta * DEGREE)
    centre = spots.two_theta + spots.drift[:, 1] * place * radial
    azimuth = spots.chi + spots.drift[:, 2] * place * around
    height = spots.counts * np.maximum(1 + spots.drift[:, 0] * place, 0.1)
    pixel, spot = pixels_near(plane, centre, azimuth, HALO_REACH * radial, HALO_REACH * around)
    down = (plane.two_theta[pixel] - centre[spot]) / radial[spot]
    across = azimuth_difference(plane.chi[pixel], azimuth[spot]) / around[spot]
    squared = down**2 + across**2
    core = np.exp(-squared / (2 * 1.2**2))
    taper = np.maximum(1 - squared / HALO_REACH**2, 0)
    halo = HALO_LEVEL * taper * (1 + squared / HALO_CORE**2) ** -1.5
    np.add.at(values, pixel, (height[spot] * (core + halo)).astype(np.float32))
    return plane.image(values)


def diamond_mask(plane: DetectorPlane, spots: DiamondSpots, threshold: float) -> BoolArray:
    """Pixels where the anvils give more than ``threshold`` counts anywhere in the scan."""
    seen = np.zeros(plane.shape, dtype=bool)
    for progress in (0.0, 0.5, 1.0):
        seen |= render_diamond_spots(plane, spots, progress) > threshold
    return seen


@dataclass(frozen=True)
class Beamstop:
    """A disc on an arm.

    Parameters
    ----------
    radius
        Shadow of the disc, degrees 2θ.
    arm_half_width
        Half the width of the arm over the detector distance, dimensionless.
    arm_chi
        Azimuth of the arm, degrees.
    edge
        Width of the penumbra, degrees.
    transmission
        What still comes through.
    """

    radius: float = 3.6
    arm_half_width: float = 0.007
    arm_chi: float = 90.0
    edge: float = 0.05
    transmission: float = 0.003


def beamstop_transmission(
    two_theta: FloatArray, chi: FloatArray, beamstop: Beamstop
) -> NDArray[np.float32]:
    """Transmission of the beamstop and its arm per pixel, shape (rows, columns)."""
    radius = np.tan(np.asarray(two_theta, dtype=float) * DEGREE)
    turn = (np.asarray(chi, dtype=float) - beamstop.arm_chi) * DEGREE
    edge = beamstop.edge * DEGREE
    disc = (radius - np.tan(beamstop.radius * DEGREE)) / edge
    beside_arm = (np.abs(radius * np.sin(turn)) - beamstop.arm_half_width) / edge
    beside_arm = np.where(np.cos(turn) > 0, beside_arm, np.inf)
    distance = np.clip(np.minimum(disc, beside_arm), -30, 30)
    open_part = 1 / (1 + np.exp(-4 * distance))
    through = beamstop.transmission + (1 - beamstop.transmission) * open_part
    return np.asarray(through, dtype=np.float32)


def beamstop_mask(two_theta: FloatArray, chi: FloatArray, beamstop: Beamstop) -> BoolArray:
    """Pixels that lose more than 2 % to the beamstop or its arm."""
    shadow: BoolArray = beamstop_transmission(two_theta, chi, beamstop) < 0.98
    return shadow


@dataclass(frozen=True)
class BadPixels:
    """Static defects of the detector, shape (rows, columns) each.

    Parameters
    ----------
    dead
        True where a pixel always reads 0.
    hot
        Counts that a pixel adds to every frame, 0 for good pixels.
    """

    dead: BoolArray
    hot: NDArray[np.float32]

    @property
    def pixels(self) -> BoolArray:
        """Dead or hot."""
        either: BoolArray = self.dead | (self.hot > 0)
        return either


def draw_bad_pixels(
    plane: DetectorPlane,
    random: np.random.Generator,
    dead_fraction: float = 2e-4,
    hot_fraction: float = 1e-4,
) -> BadPixels:
    """Draw dead pixels, and hot ones of 10^2 to 10^5.5 counts; none in the gaps."""
    rows, columns = plane.shape
    live = ~plane.gap_mask
    chance = random.random((rows, columns))
    level = 10 ** random.uniform(2, 5.5, (rows, columns))
    dead = (chance < dead_fraction) & live
    hot = (chance > 1 - hot_fraction) & live
    return BadPixels(dead=dead, hot=np.where(hot, level, 0).astype(np.float32))


def add_zingers(counts: NDArray[np.int64], random: np.random.Generator, mean: float = 3.0) -> None:
    """Add events of cosmic and stray high-energy photons, one to three pixels long, in place."""
    rows, columns = counts.shape
    for _ in range(int(random.poisson(mean))):
        row, column = int(random.integers(rows)), int(random.integers(columns))
        length = int(random.integers(1, 4))
        counts[row, column : column + length] += int(10 ** random.uniform(1.5, 4.5))


def expose(
    expected: FloatArray,
    plane: DetectorPlane,
    bad: BadPixels,
    random: np.random.Generator,
    *,
    saturation: int,
    zingers: float = 3.0,
) -> NDArray[np.int64]:
    """Turn expected counts into what the counter of each pixel shows.

    Parameters
    ----------
    expected
        Shape (rows, columns), counts, efficiency included.
    plane
        The detector.
    bad
        Its defects.
    random
        Draws the photons.
    saturation
        Largest value that the counter can show.
    zingers
        Mean number of zingers per frame.

    Returns
    -------
    Shape (rows, columns); gaps hold 0, see :func:`with_sentinels`.
    """
    counts = random.poisson(np.asarray(expected, dtype=float) + bad.hot)
    add_zingers(counts, random, zingers)
    np.minimum(counts, saturation, out=counts)
    counts[bad.dead | plane.gap_mask] = 0
    return counts


def with_sentinels(
    counts: NDArray[np.int64], flagged: BoolArray, dtype: np.dtype[np.int32] | str
) -> NDArray[np.int64] | NDArray[np.int32]:
    """Counts in the detector's dtype; flagged pixels get its sentinel.

    The sentinel of photon-counting detectors is 2ⁿ-1 of unsigned and -1 of signed types.
    """
    kind = np.dtype(dtype)
    sentinel = -1 if kind.kind == "i" else int(np.iinfo(kind).max)
    stored = np.minimum(counts, np.iinfo(kind).max - 1).astype(kind)
    stored[flagged] = sentinel
    return stored
