"""Smooth scattering of air, fluid and electrons, as a radial profile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.simulation.compton import DIAMOND, WATER, incoherent_scattering, recoil
from xrdpipe.simulation.plane import DEGREE
from xrdpipe.types import FloatArray


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
        Incoherent scattering of all electrons if they were free.
    anvils
        Share of the electrons in the beam that belong to the diamond anvils, 0-1; the others
        are those of water.
    """

    air: float
    air_exponent: float
    fluid: float
    second_hump: float
    compton: float
    anvils: float = 0.9


def momentum_transfer(two_theta: FloatArray, wavelength: float) -> NDArray[np.float64]:
    """Momentum transfer 4π sinθ / λ in 1/Å, shape of ``two_theta`` (degrees)."""
    return 4 * np.pi / wavelength * np.sin(np.asarray(two_theta, dtype=float) / 2 * DEGREE)


def background_profile(
    two_theta: FloatArray, wavelength: float, background: Background
) -> NDArray[np.float64]:
    """Radial profile of the smooth scattering, counts per pixel, shape of ``two_theta``.

    The two humps stand for the structure factor of an aqueous fluid.
    """
    q = momentum_transfer(two_theta, wavelength)
    # Nothing is measured below 0.3 1/Å: the direct beam stays finite.
    falling = background.air * np.maximum(q, 0.3) ** -background.air_exponent
    first = np.exp(-(((q - 2.0) / 0.42) ** 2))
    second = background.second_hump * np.exp(-(((q - 3.05) / 0.60) ** 2))
    electrons = background.anvils * incoherent_scattering(q, DIAMOND) + (
        1 - background.anvils
    ) * incoherent_scattering(q, WATER)
    incoherent = background.compton * recoil(two_theta, wavelength) * electrons
    profile: NDArray[np.float64] = falling + background.fluid * (first + second) + incoherent
    return profile
