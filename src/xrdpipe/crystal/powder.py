"""The powder lines of a phase: which there are, where, how many planes, how strong."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.crystal.cif import structure
from xrdpipe.crystal.lattice import (
    Cell,
    bragg_angle,
    cell_volume,
    plane_spacing,
    reciprocal_basis,
    reciprocal_metric,
)
from xrdpipe.crystal.scattering import structure_factors
from xrdpipe.crystal.structure import Structure
from xrdpipe.errors import InputError
from xrdpipe.types import Phase

ABSENT_FRACTION = 1e-9
"""Reflections weaker than this part of the strongest |F|² are extinct and left out."""

MOST_PLANES = 1_000_000
"""Reciprocal lattice points within 1/d_min; a cell of 30 Å has that many at 0.5 Å."""

MOST_TERMS = 200_000_000
"""Reflections times operations times atom sites of one table, about half a minute."""

_AT_ONCE = 200_000
"""Images of Miller indices under the rotations that are held at once."""


@dataclass(frozen=True)
class ReflectionTable:
    """The powder lines of one phase at one wavelength, sorted from large to small d.

    One row is one set of symmetry-equivalent planes; sets that share a d by accident (or by
    Laue class, such as hkl and khl in 4/m) stay separate rows.

    Parameters
    ----------
    name
        Phase name.
    hkl
        Shape (R, 3), Miller indices of one member of each set.
    d
        Shape (R,), plane spacing in Å.
    multiplicity
        Shape (R,), number of equivalent planes m, Friedel mates included.
    f_squared
        Shape (R,), ``|F|²`` per unit cell in electrons², mean over Friedel mates.
    cell
        a, b, c in Å, alpha, beta, gamma in degrees.
    rotations
        Shape (S, 3, 3), point-group rotations W: the equivalents of h are the rows h W.
    wavelength
        In Å; fixes f′ and f″.
    """

    name: str
    hkl: NDArray[np.int64]
    d: NDArray[np.float64]
    multiplicity: NDArray[np.int64]
    f_squared: NDArray[np.float64]
    cell: Cell
    rotations: NDArray[np.int64]
    wavelength: float

    def __len__(self) -> int:
        return len(self.d)

    @property
    def volume(self) -> float:
        """Unit-cell volume in Å³."""
        return cell_volume(self.cell)

    @property
    def two_theta(self) -> NDArray[np.float64]:
        """Line positions 2 asin(λ/2d), shape (R,), degrees."""
        return bragg_angle(self.d, self.wavelength)

    def orbit(self, row: int) -> NDArray[np.int64]:
        """Miller indices of all equivalent planes of a row, shape (m, 3), Friedel mates too."""
        members = self.hkl[row] @ self.rotations
        return np.unique(np.concatenate([members, -members]), axis=0)

    def d_in_cell(self, cell: Cell) -> NDArray[np.float64]:
        """Plane spacings of the same indices in another cell, shape (R,), Å."""
        return plane_spacing(self.hkl, reciprocal_metric(cell))

    def normals(self) -> NDArray[np.float64]:
        """Unit plane normals in a Cartesian frame (x along a*, z along c), shape (R, 3)."""
        vectors = self.hkl @ reciprocal_basis(self.cell)
        unit: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    def strain_response(self) -> NDArray[np.float64]:
        """Squared direction cosines n² of the plane normals, shape (R, 3).

        A cell strained by ε along the Cartesian axes changes d by Δd/d = n² ε to first order,
        so the shift of every line is one matrix product. Axes tied by symmetry (all three of
        a cubic cell; x and y of a hexagonal, trigonal or tetragonal one) must get one value.
        """
        response: NDArray[np.float64] = self.normals() ** 2
        return response

    def tensor_strain_response(self) -> NDArray[np.float64]:
        """Response of Δd/d to all six components of a strain tensor, shape (R, 6).

        Order of Voigt: ε11, ε22, ε33, γ23, γ13, γ12 with γ = 2 ε, in the Cartesian frame of
        :meth:`normals`: Δd/d = nᵀ ε n to first order, for a cell of any symmetry.
        """
        n = self.normals()
        mixed = np.stack([n[:, 1] * n[:, 2], n[:, 0] * n[:, 2], n[:, 0] * n[:, 1]], axis=1)
        response: NDArray[np.float64] = np.concatenate([n**2, mixed], axis=1)
        return response

    def axis_cosines_squared(self, axis: tuple[int, int, int]) -> NDArray[np.float64]:
        """Squared cosine between a reciprocal axis and every equivalent plane normal.

        Parameters
        ----------
        axis
            Miller indices of the axis of preferred orientation.

        Returns
        -------
        Shape (R, S): over the S rotations, so that a mean over S is a mean over the orbit.
        """
        basis = reciprocal_basis(self.cell)
        members = np.einsum("ri,sij->rsj", self.hkl, self.rotations) @ basis
        direction = np.asarray(axis, dtype=float) @ basis
        direction /= np.linalg.norm(direction)
        length = np.linalg.norm(members, axis=2)
        cosine_squared: NDArray[np.float64] = (members @ direction / length) ** 2
        return cosine_squared


def reflections(phase: Phase, wavelength: float, d_min: float) -> ReflectionTable:
    """Powder lines of a phase down to a plane spacing.

    Tables are kept in memory under the CIF text, the wavelength and d_min.

    Parameters
    ----------
    phase
        From :func:`load_phase`.
    wavelength
        In Å.
    d_min
        Smallest plane spacing in Å; at least λ/2 is used, the smallest that can diffract.

    Raises
    ------
    InputError
        The CIF cannot be used, has no line with d ≥ d_min, or has far too many.
    """
    if not (0 < wavelength < np.inf and 0 < d_min < np.inf):
        raise InputError(
            f"wavelength and d_min must be positive in Å; got {wavelength} and {d_min}."
        )
    return _reflections(phase, float(wavelength), max(float(d_min), float(wavelength) / 2))


def powder_intensity(
    table: ReflectionTable, wavelength: float, polarization: bool = False
) -> NDArray[np.float64]:
    """Intensity of the azimuthal mean (per pixel) of an ideal powder, arbitrary units.

    ``m |F|² P / (sin²θ cosθ)`` is the mean over the ring's pixels after the solid-angle
    correction: the integrated power of the ring falls with 1/sinθ and is spread over a
    circumference that grows with sin 2θ (Warren, *X-ray Diffraction*, 1990, ch. 4). Divide by
    ``table.volume ** 2`` to compare equal volumes of two phases.

    Parameters
    ----------
    table
        The lines.
    wavelength
        In Å.
    polarization
        True multiplies by P = (1 + cos²2θ)/2, the ring average for any degree of linear
        polarization; False (P = 1) where it was corrected upstream, as in xrdpipe's patterns.

    Returns
    -------
    Shape (R,); NaN where a line cannot be reached at this wavelength.
    """
    two_theta = np.radians(bragg_angle(table.d, wavelength))
    theta = two_theta / 2
    factor = (1 + np.cos(two_theta) ** 2) / 2 if polarization else 1.0
    lorentz = 1 / (np.sin(theta) ** 2 * np.cos(theta))
    intensity: NDArray[np.float64] = table.multiplicity * table.f_squared * factor * lorentz
    return intensity


def density(phase: Phase) -> float:
    """Mass density of a structure, g/cm³."""
    return structure(phase).density


@functools.lru_cache(maxsize=512)
def _reflections(phase: Phase, wavelength: float, d_min: float) -> ReflectionTable:
    """Uncached work of :func:`reflections`; a Phase is its CIF text, so the text is the key."""
    crystal = structure(phase)
    _check_size(phase, crystal, d_min)
    rotations = crystal.symmetry.rotations
    hkl, multiplicity = _orbits(crystal.cell, rotations, d_min)
    terms = len(hkl) * len(rotations) * len(crystal.sites)
    if terms > MOST_TERMS:
        raise InputError(
            f"phase '{phase.name}' has {len(hkl)} lines of {len(crystal.sites)} atom sites with "
            f"d >= {d_min:g} Å, more than can be computed; use a larger d_min or a smaller cell."
        )
    if not len(hkl):
        raise InputError(
            f"phase '{phase.name}' has no reflection with d >= {d_min:g} Å; use a wider 2θ range."
        )
    d = plane_spacing(hkl, reciprocal_metric(crystal.cell))
    forward, friedel = structure_factors(crystal, hkl, d, wavelength)
    f_squared = (np.abs(forward) ** 2 + np.abs(friedel) ** 2) / 2
    seen = f_squared > ABSENT_FRACTION * f_squared.max()
    order = np.flatnonzero(seen)[np.argsort(-d[seen], kind="stable")]
    arrays = (hkl[order], d[order], multiplicity[order], f_squared[order])
    for array in arrays:
        array.flags.writeable = False
    rotations.flags.writeable = False
    return ReflectionTable(phase.name, *arrays, crystal.cell, rotations, wavelength)


def _check_size(phase: Phase, crystal: Structure, d_min: float) -> None:
    """Refuse a cell whose reciprocal lattice has too many points, before they are listed."""
    points = 4 / 3 * np.pi * crystal.volume / d_min**3
    box = float(np.prod([2 * length / d_min + 1 for length in crystal.cell[:3]]))
    if points > MOST_PLANES or box > 20 * MOST_PLANES:
        lengths = ", ".join(f"{length:g}" for length in crystal.cell[:3])
        raise InputError(
            f"phase '{phase.name}' with a cell of {lengths} Å has about {max(points, 1):.2g} "
            f"planes with d >= {d_min:g} Å; expected at most {MOST_PLANES:.0e}: check that the "
            "cell is in Å, or use a larger d_min."
        )


def _orbits(
    cell: Cell, rotations: NDArray[np.int64], d_min: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """One plane of every orbit under the rotations and Friedel's law, and the orbit's size.

    The member with the largest h, then k, then l stands for its orbit, so only h ≥ 0 is
    searched, in parts that need little memory.
    """
    metric = reciprocal_metric(cell)
    largest = [int(np.floor(length / d_min)) + 1 for length in cell[:3]]
    base = 2 * sum(largest) + 1  # above any index of an image, rows of W being 0 and ±1
    weights = np.array([base * base, base, 1])
    step = max(1, _AT_ONCE // len(rotations))
    plane = np.stack(
        np.meshgrid(*[np.arange(-n, n + 1) for n in largest[1:]], indexing="ij"), axis=-1
    ).reshape(-1, 2)
    found, sizes = [np.empty((0, 3), dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    for h in range(largest[0] + 1):
        hkl = np.insert(plane, 0, h, axis=1)
        squared = np.einsum("ri,ij,rj->r", hkl, metric, hkl)
        hkl = hkl[(squared > 0) & (squared * d_min**2 <= 1)]
        for start in range(0, len(hkl), step):
            part = hkl[start : start + step]
            keys = np.einsum("ri,sij->rsj", part, rotations) @ weights
            keys = np.concatenate([keys, -keys], axis=1)
            first = np.flatnonzero(part @ weights == keys.max(axis=1))
            ordered = np.sort(keys[first], axis=1)
            found.append(part[first])
            sizes.append(1 + np.count_nonzero(np.diff(ordered, axis=1), axis=1))
    return np.concatenate(found), np.concatenate(sizes)
