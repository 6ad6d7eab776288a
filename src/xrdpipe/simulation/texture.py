"""Preferred orientation: pole density around a ring in a fibre texture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xrdpipe.crystal import ReflectionTable
from xrdpipe.simulation.plane import AZIMUTH_BINS, DEGREE
from xrdpipe.types import FloatArray


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


def cosine_to_fibre(two_theta: FloatArray, fibre: float) -> NDArray[np.float64]:
    """Cosine between scattering vectors around a ring and an axis in the detector plane.

    The scattering vector is (cosθ cosχ, cosθ sinχ, -sinθ) with the beam along z.

    Parameters
    ----------
    two_theta
        Rings, degrees, shape (R,).
    fibre
        Azimuth of the axis, degrees.

    Returns
    -------
    Shape (R, AZIMUTH_BINS).
    """
    chi = (np.arange(AZIMUTH_BINS) + 0.5) * 360 / AZIMUTH_BINS - 180
    theta = np.asarray(two_theta)[:, None] / 2 * DEGREE
    cosine: NDArray[np.float64] = np.cos(theta) * np.cos((chi[None, :] - fibre) * DEGREE)
    return cosine
