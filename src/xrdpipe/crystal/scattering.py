"""Atoms that scatter: form factors, dispersion, displacements, and their sum F(hkl)."""

from __future__ import annotations

import functools

import gemmi
import numpy as np
from numpy.typing import NDArray

from xrdpipe.crystal.structure import Structure
from xrdpipe.types import FloatArray

HC = 12398.419843320026
"""Planck constant times speed of light in eV Å (CODATA 2018, exact)."""

_AT_ONCE = 2_000_000
"""Reflections times operations that are summed in one step (about 100 MB)."""


def form_factor(element: str, sine_over_wavelength_squared: FloatArray) -> NDArray[np.float64]:
    """Form factor f of the neutral atom in electrons, same shape as (sinθ/λ)² in 1/Å².

    Four Gaussians and a constant, *International Tables* C (1992), table 6.1.1.4, good to
    sinθ/λ = 2 /Å. The charge of an ion is not used: it changes f below 0.3 /Å only, and bonds
    do the same.
    """
    terms = gemmi.Element(element).it92
    squared = np.asarray(sine_over_wavelength_squared, dtype=float)[..., None]
    gaussians = np.array(terms.a) * np.exp(-np.array(terms.b) * squared)
    factor: NDArray[np.float64] = gaussians.sum(axis=-1) + terms.c
    return factor


@functools.lru_cache(maxsize=4096)
def dispersion(element: str, wavelength: float) -> complex:
    """f′ + i f″ in electrons at a wavelength in Å.

    Cromer & Liberman, J. Chem. Phys. 53, 1891 (1970), for free atoms, with the relativistic
    correction of Kissel & Pratt (1990); not right within about 50 eV of an absorption edge,
    where the surroundings of the atom count. Zero for H and He, and beyond uranium.
    """
    number = gemmi.Element(element).atomic_number
    real, imaginary = gemmi.cromer_liberman(z=number, energy=HC / wavelength)
    return complex(real, imaginary)


def structure_factors(
    structure: Structure, hkl: NDArray[np.int64], d: NDArray[np.float64], wavelength: float
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """F(hkl) and F of the Friedel mates, per unit cell, each of shape (R,), electrons.

    F = Σ_sites occ · w · (f + f′ + i f″) · Σ_ops exp(2πi h·(W x + w)) · T, with the
    displacement of every image turned with it: T = exp(−2π² (hW) U* (hW)ᵀ) or
    exp(−8π² U (sinθ/λ)²).

    Parameters
    ----------
    structure
        Cell, symmetry and atoms.
    hkl
        Shape (R, 3).
    d
        Shape (R,), their plane spacings in Å; infinite for 000.
    wavelength
        In Å, for f′ and f″.
    """
    symmetry = structure.symmetry
    forward = np.zeros(len(hkl), dtype=np.complex128)
    friedel = np.zeros(len(hkl), dtype=np.complex128)
    step = max(1, _AT_ONCE // len(symmetry.rotations))
    for start in range(0, len(hkl), step):
        part = slice(start, start + step)
        indices = hkl[part]
        squared = 1 / (4 * d[part] ** 2)
        turned = np.einsum("ri,sij->rsj", indices, symmetry.rotations)
        moved = indices @ symmetry.translations.T
        centring = np.exp(2j * np.pi * (indices @ symmetry.centring.T)).sum(axis=1)
        for site in structure.sites:
            waves = np.exp(2j * np.pi * (turned @ site.position + moved))
            if site.u_star is None:
                thermal = np.exp(-8 * np.pi**2 * site.u_iso * squared)
                total = waves.sum(axis=1) * thermal
            else:
                squares = np.einsum("rsi,ij,rsj->rs", turned, site.u_star, turned, optimize=True)
                total = (waves * np.exp(-2 * np.pi**2 * squares)).sum(axis=1)
            # On a special position several operations give the same atom.
            share = site.occupancy * site.multiplicity / len(symmetry)
            total = share * centring * total
            factor = form_factor(site.element, squared) + dispersion(site.element, wavelength)
            forward[part] += factor * total
            friedel[part] += factor * total.conj()
    return forward, friedel
