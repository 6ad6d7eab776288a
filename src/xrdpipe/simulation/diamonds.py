"""Single-crystal reflections of the diamond anvils, with the glow around them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.simulation.plane import DEGREE, DetectorPlane, azimuth_difference, pixels_near
from xrdpipe.types import BoolArray

DIAMOND_SPACINGS = (2.059, 1.261, 1.075, 0.892)
"""d of diamond 111, 220, 311, 400 in Å (a = 3.567 Å)."""

SPOT_SIGMA = 1.2
"""Standard deviation of the spot itself, pixels."""

HALO_REACH = 25.0
"""The halo of a diamond spot ends this many pixels from its centre."""

HALO_LEVEL = 1e-3
"""Height of the halo over the height of the spot."""

HALO_CORE = 3.0
"""Radius in pixels at which the halo starts to fall."""


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
    halo
        Height of the halo over that of the spot.
    """

    two_theta: NDArray[np.float64]
    chi: NDArray[np.float64]
    counts: NDArray[np.float64]
    drift: NDArray[np.float64]
    halo: float = HALO_LEVEL


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


def add_diamond_spots(
    plane: DetectorPlane,
    values: NDArray[np.float32],
    spots: DiamondSpots,
    progress: float = 0.5,
    monitor: float = 1.0,
) -> None:
    """Add the anvils' spots with their halos to intensities in the plane's order, in place.

    Parameters
    ----------
    plane
        The detector.
    values
        Shape (pixels,), counts.
    spots
        From :func:`draw_diamond_spots`.
    progress
        Place in the scan, 0-1; the drift is zero in the middle.
    monitor
        Incident intensity.
    """
    place = progress - 0.5
    # Pixel pitch seen from the sample: cos² 2θ along the radius and cos 2θ along the ring.
    tilt = np.cos(spots.two_theta * DEGREE)
    radial = plane.pitch * tilt**2 / plane.median_cosine**2
    around = radial / tilt / np.sin(spots.two_theta * DEGREE)
    centre = spots.two_theta + spots.drift[:, 1] * place * radial
    azimuth = spots.chi + spots.drift[:, 2] * place * around
    height = monitor * spots.counts * np.maximum(1 + spots.drift[:, 0] * place, 0.1)
    pixel, spot = pixels_near(plane, centre, azimuth, HALO_REACH * radial, HALO_REACH * around)
    down = (plane.two_theta[pixel] - centre[spot]) / radial[spot]
    across = azimuth_difference(plane.chi[pixel], azimuth[spot]) / around[spot]
    squared = down**2 + across**2
    core = np.exp(-squared / (2 * SPOT_SIGMA**2))
    taper = np.maximum(1 - squared / HALO_REACH**2, 0)
    halo = spots.halo * taper * (1 + squared / HALO_CORE**2) ** -1.5
    np.add.at(values, pixel, (height[spot] * (core + halo)).astype(np.float32))


def render_diamond_spots(
    plane: DetectorPlane, spots: DiamondSpots, progress: float = 0.5
) -> NDArray[np.float32]:
    """Counts of the anvils' spots alone, shape (rows, columns); see add_diamond_spots."""
    values = np.zeros(len(plane.order), dtype=np.float32)
    add_diamond_spots(plane, values, spots, progress)
    return plane.image(values)


def diamond_mask(plane: DetectorPlane, spots: DiamondSpots, threshold: float) -> BoolArray:
    """Pixels where the anvils give more than ``threshold`` counts anywhere in the scan."""
    seen = np.zeros(plane.shape, dtype=bool)
    for progress in (0.0, 0.5, 1.0):
        seen |= render_diamond_spots(plane, spots, progress) > threshold
    return seen
