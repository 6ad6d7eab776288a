"""The shape of a line along 2θ: a pseudo-Voigt with tails that end."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xrdpipe.types import FloatArray

PROFILE_REACH = 5.0
"""A line ends this many full widths from its centre."""

FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))


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
_GAUSSIAN_PEAK = 2 * float(np.sqrt(np.log(2) / np.pi))
_FOUR_LN_2 = 4 * float(np.log(2))


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
    gaussian = _GAUSSIAN_PEAK * np.exp(-_FOUR_LN_2 * u * u)
    tails = _tapered_lorentzian(u) / _LORENTZIAN_AREA
    profile: FloatArray = ((1 - lorentzian) * gaussian + lorentzian * tails) / width
    return profile
