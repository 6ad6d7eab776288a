"""Crystal structures to powder reflections: d, multiplicity and |F|² from a CIF.

The only module that uses gemmi. Structure factors are of free atoms with isotropic
displacements and the anomalous terms f′ and f″ at the wavelength; intensities are those of
the azimuthal mean of an area detector, m|F|²/(sin²θ cosθ), not the power of a whole ring.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import InputError, InputMissingError
from xrdpipe.types import FloatArray, Phase

HC = 12398.419843320026
"""Planck constant times speed of light in eV Å (CODATA 2018, exact)."""

ABSENT_FRACTION = 1e-9
"""Reflections weaker than this part of the strongest |F|² are extinct and left out."""

Cell = tuple[float, float, float, float, float, float]


DALTON = 1.66053906892
"""Atomic mass constant in g/cm³ · Å³ (CODATA 2022)."""


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
        Shape (R,), |F|² per unit cell in electrons², mean over Friedel mates.
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
        return float(1 / np.sqrt(np.linalg.det(reciprocal_metric(self.cell))))

    @property
    def two_theta(self) -> NDArray[np.float64]:
        """Line positions 2 asin(λ/2d), shape (R,), degrees."""
        return bragg_angle(self.d, self.wavelength)

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


def reciprocal_basis(cell: Cell) -> NDArray[np.float64]:
    """Reciprocal basis vectors as rows (1/d convention, 1/Å), shape (3, 3)."""
    a, b, c = cell[:3]
    cos_alpha, cos_beta, cos_gamma = np.cos(np.radians(cell[3:]))
    # Metric tensor of the direct lattice; the reciprocal metric is its inverse.
    metric = np.array(
        [
            [a * a, a * b * cos_gamma, a * c * cos_beta],
            [a * b * cos_gamma, b * b, b * c * cos_alpha],
            [a * c * cos_beta, b * c * cos_alpha, c * c],
        ]
    )
    # Upper-triangular factor: a* along x, c along z (Busing & Levy, Acta Cryst. 22, 457 (1967)).
    upper: NDArray[np.float64] = np.linalg.cholesky(np.linalg.inv(metric))
    return upper


def reciprocal_metric(cell: Cell) -> NDArray[np.float64]:
    """Reciprocal metric tensor G*, shape (3, 3), 1/Å²: 1/d² = h G* hᵀ."""
    basis = reciprocal_basis(cell)
    metric: NDArray[np.float64] = basis @ basis.T
    return metric


def plane_spacing(hkl: NDArray[np.int64], metric: FloatArray) -> NDArray[np.float64]:
    """Plane spacing d of Miller indices (R, 3) under a reciprocal metric, shape (R,), Å."""
    d: NDArray[np.float64] = 1 / np.sqrt(np.einsum("ri,ij,rj->r", hkl, metric, hkl))
    return d


def bragg_angle(d: FloatArray, wavelength: float) -> NDArray[np.float64]:
    """2θ = 2 asin(λ/2d) in degrees, same shape as ``d``; NaN where the line is not reachable."""
    sine = wavelength / (2 * np.asarray(d, dtype=float))
    angle: NDArray[np.float64] = np.degrees(2 * np.arcsin(np.where(sine <= 1, sine, np.nan)))
    return angle


def load_phase(path: Path | str) -> Phase:
    """Read a CIF and check that it holds one structure that can be computed.

    Parameters
    ----------
    path
        The CIF; its file name without ``.cif`` is the phase name.

    Raises
    ------
    InputMissingError
        The file does not exist.
    InputError
        The text is no CIF, or lacks a cell, a space group or atom sites.
    """
    path = Path(path)
    if not path.is_file():
        raise InputMissingError(f"phase file '{path}' does not exist; give the path of a CIF.")
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        # Older databases write author names in Latin-1.
        text = raw.decode("latin-1")
    phase = Phase(name=path.stem, cif=text, source=str(path))
    _structure(phase)
    return phase


def reflections(phase: Phase, wavelength: float, d_min: float) -> ReflectionTable:
    """Powder lines of a phase down to a plane spacing.

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
        The CIF cannot be used, or has no line with d ≥ d_min.
    """
    if not (wavelength > 0 and d_min > 0):
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


@functools.lru_cache(maxsize=512)
def density(phase: Phase) -> float:
    """Mass density of a structure, g/cm³."""
    structure = _structure(phase)
    operations = _symmetry(structure)
    # Occupancies are crystallographic, so every site counts once per operation.
    images = len(list(operations)) if operations is not None else 1
    mass = images * sum(site.occ * site.element.weight for site in structure.sites)
    return float(DALTON * mass / structure.cell.volume)


def _structure(phase: Phase) -> gemmi.SmallStructure:
    """Parse the CIF text; one clear sentence for each thing that can be missing."""
    where = f"'{phase.source or phase.name}'"
    try:
        document = gemmi.cif.read_string(phase.cif)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{where} is not a readable CIF ({reason}).") from error
    blocks = [block for block in document if block.find_loop("_atom_site_fract_x")]
    if len(blocks) != 1:
        raise InputError(
            f"{where} holds {len(blocks)} data blocks with atom sites (_atom_site_fract_x); "
            "expected exactly one structure per CIF."
        )
    try:
        structure = gemmi.make_small_structure_from_block(blocks[0])
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{where}: the structure cannot be read ({error}).") from error
    cell = structure.cell
    lengths_and_angles = (cell.a, cell.b, cell.c, cell.alpha, cell.beta, cell.gamma)
    if not cell.is_crystal() or not all(np.isfinite(lengths_and_angles)) or cell.volume <= 0:
        raise InputError(
            f"{where} has no usable cell (found {lengths_and_angles}); expected _cell_length_a "
            "… _cell_angle_gamma in Å and degrees."
        )
    for site in structure.sites:
        position = (site.fract.x, site.fract.y, site.fract.z)
        if site.element.atomic_number == 0:
            raise InputError(
                f"{where}: atom site '{site.label}' has the unknown species "
                f"'{site.type_symbol}'; expected an element symbol such as Ca or Ca2+."
            )
        if not all(np.isfinite(position)):
            raise InputError(
                f"{where}: atom site '{site.label}' has no numeric position (found {position})."
            )
    _check_cell(where, structure)
    # Without this, atoms on special positions count once per symmetry operation.
    structure.change_occupancies_to_crystallographic()
    return structure


def _symmetry(structure: gemmi.SmallStructure) -> gemmi.GroupOps | None:
    """Symmetry operations: those listed in the file, else those of the space group's name."""
    if structure.symops:
        operations = gemmi.GroupOps([gemmi.Op(text) for text in structure.symops])
        operations.add_missing_elements()
        return operations
    if structure.spacegroup is not None:
        return structure.spacegroup.operations()
    return None


def _check_cell(where: str, structure: gemmi.SmallStructure) -> None:
    """Refuse a file without symmetry, or a cell that its symmetry does not leave unchanged."""
    operations = _symmetry(structure)
    if operations is None:
        raise InputError(
            f"{where}: space group '{structure.spacegroup_hm}' is not known; expected a "
            "Hermann-Mauguin name such as 'R -3 c', a Hall symbol, a number or a list of "
            "symmetry operations."
        )
    metric = reciprocal_metric(_cell_of(structure))
    for rotation in _rotations(operations):
        if not np.allclose(
            rotation @ metric @ rotation.T, metric, rtol=0, atol=5e-3 * metric.max()
        ):
            cell = ", ".join(f"{value:g}" for value in _cell_of(structure))
            raise InputError(
                f"{where}: the cell ({cell}) does not have the symmetry of space group "
                f"'{structure.spacegroup_hm}'; check the setting, for example rhombohedral or "
                "hexagonal axes."
            )


def _cell_of(structure: gemmi.SmallStructure) -> Cell:
    cell = structure.cell
    return (cell.a, cell.b, cell.c, cell.alpha, cell.beta, cell.gamma)


def _rotations(operations: gemmi.GroupOps) -> NDArray[np.int64]:
    """Distinct rotation parts W of x' = W x + w, shape (S, 3, 3)."""
    return np.unique(
        np.array([np.array(op.rot) // op.DEN for op in operations.sym_ops], dtype=np.int64), axis=0
    )


def _structure_factors(
    structure: gemmi.SmallStructure,
    operations: gemmi.GroupOps,
    hkl: NDArray[np.int64],
    d: NDArray[np.float64],
    wavelength: float,
) -> NDArray[np.complex128]:
    """F(hkl) per unit cell, shape (R,): sum over sites and all operations, centring included."""
    stol2 = 1 / (4 * d**2)  # (sinθ/λ)²
    energy = HC / wavelength
    total = np.zeros(len(hkl), dtype=complex)
    ops = list(operations)
    rotation = np.array([np.array(op.rot) / op.DEN for op in ops])
    translation = np.array([np.array(op.tran) / op.DEN for op in ops])
    for site in structure.sites:
        element = site.element
        scattering = np.array([element.it92.calculate_sf(float(s)) for s in stol2])
        f_prime, f_second = gemmi.cromer_liberman(z=element.atomic_number, energy=energy)
        thermal = np.exp(-8 * np.pi**2 * max(_u_iso(site), 0.0) * stol2)
        position = np.array([site.fract.x, site.fract.y, site.fract.z])
        images = rotation @ position + translation
        phase = np.exp(2j * np.pi * (hkl @ images.T)).sum(axis=1)
        total += site.occ * (scattering + f_prime + 1j * f_second) * thermal * phase
    return total


def _u_iso(site: gemmi.SmallStructure.Site) -> float:
    """Isotropic displacement in Å²: as given, else the mean of the diagonal of U."""
    if site.u_iso > 0:
        return float(site.u_iso)
    return float((site.aniso.u11 + site.aniso.u22 + site.aniso.u33) / 3)


@functools.lru_cache(maxsize=512)
def _reflections(phase: Phase, wavelength: float, d_min: float) -> ReflectionTable:
    """Uncached work of :func:`reflections`; a Phase is its CIF text, so the text is the key."""
    structure = _structure(phase)
    operations = _symmetry(structure)
    assert operations is not None  # _structure refused files without symmetry
    cell = _cell_of(structure)
    metric = reciprocal_metric(cell)
    largest = [int(np.floor(length / d_min)) + 1 for length in cell[:3]]
    axes = [np.arange(-n, n + 1) for n in largest]
    hkl = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    hkl = hkl[np.any(hkl != 0, axis=1)]
    spacing = plane_spacing(hkl, metric)
    hkl = hkl[spacing >= d_min]
    if len(hkl):
        rotations = _rotations(operations)
        hkl, multiplicity = _orbits(hkl, rotations)
        d = plane_spacing(hkl, metric)
        forward = _structure_factors(structure, operations, hkl, d, wavelength)
        friedel = _structure_factors(structure, operations, -hkl, d, wavelength)
        f_squared = (np.abs(forward) ** 2 + np.abs(friedel) ** 2) / 2
        seen = f_squared > ABSENT_FRACTION * f_squared.max()
        order = np.flatnonzero(seen)[np.argsort(-d[seen], kind="stable")]
    if not len(hkl):
        raise InputError(
            f"phase '{phase.name}' has no reflection with d >= {d_min:g} Å; use a wider 2θ range."
        )
    arrays = (hkl[order], d[order], multiplicity[order], f_squared[order], rotations)
    for array in arrays:
        array.flags.writeable = False
    return ReflectionTable(
        name=phase.name,
        hkl=arrays[0],
        d=arrays[1],
        multiplicity=arrays[2],
        f_squared=arrays[3],
        cell=cell,
        rotations=arrays[4],
        wavelength=wavelength,
    )


def _orbits(
    hkl: NDArray[np.int64], rotations: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """One representative per orbit under rotations and Friedel's law, and the orbit's size."""
    images = np.einsum("ri,sij->rsj", hkl, rotations)
    images = np.concatenate([images, -images], axis=1)
    base = 2 * int(np.abs(images).max()) + 1
    keys = (images + base // 2) @ np.array([base * base, base, 1])
    keys.sort(axis=1)
    multiplicity = 1 + np.count_nonzero(np.diff(keys, axis=1), axis=1)
    # The largest key of an orbit is shared by all its members and names it.
    _, first = np.unique(keys[:, -1], return_index=True)
    key = keys[first, -1]
    representative = np.stack([key // base**2, key // base % base, key % base], axis=1) - base // 2
    return representative, multiplicity[first]
