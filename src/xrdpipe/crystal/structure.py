"""The crystal structure that everything else is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gemmi
import numpy as np
from numpy.typing import NDArray

from xrdpipe.crystal.lattice import Cell, cell_volume
from xrdpipe.crystal.symmetry import Symmetry

DALTON = 1.66053906892
"""Atomic mass constant in g/cm³ · Å³ (CODATA 2022)."""

SAME_PLACE = 0.2
"""Images of a site closer than this, in Å, are one atom on a special position."""


@dataclass(frozen=True, eq=False)
class Site:
    """One atom of the asymmetric unit.

    Parameters
    ----------
    label
        As in the file.
    element
        Symbol, ``D`` for deuterium.
    position
        Shape (3,), fractions of the cell; exactly on its special position.
    occupancy
        Part of the places of the orbit that the atom fills.
    multiplicity
        Atoms of the full orbit per unit cell.
    u_iso
        Isotropic mean-square displacement in Å²; the mean of ``u_star`` where that is given.
    u_star
        Shape (3, 3), U_ij a*_i a*_j (dimensionless), so that the Debye-Waller factor is
        exp(−2π² h U* hᵀ) (Trueblood et al., Acta Cryst. A52, 770 (1996)); or None.
    """

    label: str
    element: str
    position: NDArray[np.float64]
    occupancy: float
    multiplicity: int
    u_iso: float
    u_star: NDArray[np.float64] | None

    @property
    def atoms(self) -> float:
        """Atoms of this kind per unit cell."""
        return self.occupancy * self.multiplicity


@dataclass(frozen=True)
class Claims:
    """What a file says about its own content, to be compared with it.

    Numbers are NaN and texts empty where the file says nothing.
    """

    names: tuple[str, ...] = ()
    formula: str = ""
    units: float = np.nan
    volume: float = np.nan
    density: float = np.nan


@dataclass(frozen=True, eq=False)
class Structure:
    """A unit cell, its symmetry and its atoms.

    Parameters
    ----------
    cell
        a, b, c in Å and the angles in degrees, with the symmetry of the group.
    symmetry
        Operations.
    sites
        The asymmetric unit.
    claims
        Names, formula and numbers of the file.
    remarks
        What had to be assumed in reading the file, one sentence each.
    """

    cell: Cell
    symmetry: Symmetry
    sites: tuple[Site, ...]
    claims: Claims = Claims()
    remarks: tuple[str, ...] = ()

    @property
    def volume(self) -> float:
        """Unit-cell volume in Å³."""
        return cell_volume(self.cell)

    @property
    def density(self) -> float:
        """Mass density in g/cm³."""
        mass = sum(site.atoms * gemmi.Element(site.element).weight for site in self.sites)
        return float(DALTON * mass / self.volume)

    @property
    def content(self) -> dict[str, float]:
        """Atoms per unit cell of every element, deuterium counted as hydrogen."""
        atoms: dict[str, float] = {}
        for site in self.sites:
            element = "H" if site.element == "D" else site.element
            atoms[element] = atoms.get(element, 0.0) + site.atoms
        return atoms


def special_position(
    position: NDArray[np.float64], symmetry: Symmetry, basis: NDArray[np.float64]
) -> tuple[NDArray[np.float64], int]:
    """Position moved exactly onto its special position, and the size of its orbit.

    Files round 1/3 to 0.3333; the mean over the operations that keep the atom in place undoes
    that, so that extinct lines stay extinct.

    Parameters
    ----------
    position
        Shape (3,), fractions.
    symmetry
        Operations.
    basis
        Direct cell vectors as rows in Å, shape (3, 3), in any Cartesian frame.
    """
    images = symmetry.images(position)
    step = images - position
    shifted = step - np.rint(step)
    near = np.linalg.norm(shifted @ basis, axis=1) < SAME_PLACE
    centre = position + shifted[near].mean(axis=0)
    return centre, len(images) // int(near.sum())


def shortest_distances(
    cell: Cell, symmetry: Symmetry, sites: Sequence[Site], largest_work: float = 3e6
) -> list[tuple[float, Site, Site]] | None:
    """Distance in Å from every site to its nearest neighbour of every site.

    Returns None where the structure is too large to be searched. Distances below
    ``SAME_PLACE`` (mixed sites) are left out.
    """
    places = len(symmetry) * len(sites)
    if places * len(sites) * 27 > largest_work:
        return None
    basis = direct_basis(cell)
    shifts = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    found = []
    for number, first in enumerate(sites):
        for second in sites[number:]:
            step = symmetry.images(second.position) - first.position
            step -= np.rint(step)
            distance = np.linalg.norm((step[:, None] + shifts) @ basis, axis=2)
            distance = distance[distance > SAME_PLACE]
            found.append((float(distance.min()), first, second))
    return found


def direct_basis(cell: Cell) -> NDArray[np.float64]:
    """Cell vectors as rows in Å, shape (3, 3), a along x."""
    a, b, c = cell[:3]
    cos_alpha, cos_beta, cos_gamma = np.cos(np.radians(cell[3:]))
    sin_gamma = np.sin(np.radians(cell[5]))
    c_y = c * (cos_alpha - cos_beta * cos_gamma) / sin_gamma
    c_z = cell_volume(cell) / (a * b * sin_gamma)
    return np.array([[a, 0.0, 0.0], [b * cos_gamma, b * sin_gamma, 0.0], [c * cos_beta, c_y, c_z]])
