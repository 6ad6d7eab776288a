"""Incoherent (Compton) scattering of free atoms, from the composition of what the beam crosses."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import InputError
from xrdpipe.types import FloatArray

COMPTON_WAVELENGTH = 0.0242631
"""h / (m c) in Å (CODATA 2022)."""

BOHR_RADIUS = 0.529177211
"""In Å (CODATA 2022)."""

FITTED = {
    "C": (
        (0.7568, 82.2385),
        (2.5511, 31.7282),
        (0.7051, 11.9471),
        (1.4605, 1.4637),
        (0.5263, 0.5150),
    ),
    "O": (
        (0.8847, 52.0063),
        (3.2189, 16.4487),
        (1.7990, 6.5958),
        (1.5538, 0.8143),
        (0.5434, 0.2815),
    ),
}
"""(a, b in Å²) of ``S = Σ a (1 - exp(-b s²))`` with s = sinθ/λ; Σ a = Z.

Balyuzi, Acta Cryst. A31, 600 (1975).
"""

ELECTRONS = {"H": 1, "C": 6, "O": 8}

DIAMOND = {"C": 1.0}
WATER = {"H": 2.0, "O": 1.0}


def incoherent_scattering(q: FloatArray, composition: Mapping[str, float]) -> NDArray[np.float64]:
    """Incoherent scattering function per electron, 0 at q = 0 and 1 at large q.

    Parameters
    ----------
    q
        Momentum transfer, 1/Å.
    composition
        Number of atoms of each element, in any common unit.

    Raises
    ------
    InputError
        An element is not in ELECTRONS.
    """
    unknown = [element for element in composition if element not in ELECTRONS]
    if unknown:
        raise InputError(
            f"no incoherent scattering function for '{unknown[0]}'; known: {', '.join(ELECTRONS)}."
        )
    transfer: NDArray[np.float64] = np.asarray(q, dtype=np.float64)
    scattered = np.zeros(transfer.shape)
    for element, atoms in composition.items():
        scattered += atoms * _of_atom(element, transfer)
    return scattered / sum(atoms * ELECTRONS[element] for element, atoms in composition.items())


def _of_atom(element: str, q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Incoherent scattering function of one atom, electrons."""
    if element == "H":
        # One electron: S = 1 - f² with the form factor of the 1s state.
        hydrogen: NDArray[np.float64] = 1 - (1 + (q * BOHR_RADIUS / 2) ** 2) ** -4
        return hydrogen
    s_squared = (q / (4 * np.pi)) ** 2
    a, b = np.array(FITTED[element]).T
    fitted: NDArray[np.float64] = -np.expm1(-b * s_squared[..., None]) @ a
    return fitted


def recoil(two_theta: FloatArray, wavelength: float) -> NDArray[np.float64]:
    """Loss of counts by the energy that recoil takes: (E'/E)² of the Klein-Nishina formula.

    Parameters
    ----------
    two_theta
        Degrees.
    wavelength
        In Å.
    """
    taken = COMPTON_WAVELENGTH / wavelength * (1 - np.cos(np.radians(two_theta)))
    factor: NDArray[np.float64] = (1 + taken) ** -2
    return factor
