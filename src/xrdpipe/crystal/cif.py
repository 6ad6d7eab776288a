"""CIF text to a structure: every flavour that writers make, and one sentence where it fails."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import gemmi
import numpy as np
from numpy.typing import NDArray

from xrdpipe.crystal.atoms import Atom, Tensor, formula_of, read_atoms
from xrdpipe.crystal.cif_values import column, data_block, first_text, number
from xrdpipe.crystal.lattice import Cell, cell_of_metric, direct_metric
from xrdpipe.crystal.structure import (
    Claims,
    Site,
    Structure,
    direct_basis,
    shortest_distances,
    special_position,
)
from xrdpipe.crystal.symmetry import (
    Symmetry,
    setting_names,
    settings_of_name,
    settings_of_number,
    symmetry_of_hall,
    symmetry_of_triplets,
)
from xrdpipe.errors import InputError, InputMissingError
from xrdpipe.types import Phase

LARGEST_FILE = 20_000_000
"""Bytes; a CIF of one structure is far smaller."""

LENGTHS = (0.5, 1e5)
"""Cell edges in Å outside this range are in another unit."""


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
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise InputError(
            f"'{path}' has {size} bytes; expected a CIF of one structure, at most {LARGEST_FILE}."
        )
    phase = Phase(name=path.stem, cif=_decoded(path.read_bytes()), source=str(path))
    structure(phase)
    return phase


def _decoded(raw: bytes) -> str:
    """Text of a file in UTF-8 or UTF-16 with or without a byte order mark, or in Latin-1."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", errors="replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Older databases write author names in Latin-1.
        return raw.decode("latin-1")


def structure(phase: Phase) -> Structure:
    """Structure of a phase.

    Raises
    ------
    InputError
        The CIF text cannot be used; the sentence says what is missing or wrong.
    """
    return _structure(phase.cif, phase.source or phase.name)


@functools.lru_cache(maxsize=512)
def _structure(text: str, source: str) -> Structure:
    where = f"'{source}'"
    block = data_block(text, where)
    cell = _cell(block, where)
    remarks: list[str] = []
    atoms = read_atoms(block, where, remarks)
    settings = _settings(block, cell, where, remarks)
    fitting = [symmetry for symmetry in settings if symmetry.fits(cell)]
    if not fitting:
        values = ", ".join(f"{value:g}" for value in cell)
        raise InputError(
            f"{where}: the cell ({values}) does not have the symmetry of space group "
            f"{setting_names(settings)}; check the setting, for example rhombohedral or "
            "hexagonal axes."
        )
    found = [_assembled(symmetry, cell, atoms, remarks) for symmetry in fitting]
    symmetry, even, sites = found[0] if len(found) == 1 else _origin(found, remarks)
    if not np.allclose(even, cell, rtol=2e-4, atol=0):
        given = ", ".join(f"{value:g}" for value in cell)
        used = ", ".join(f"{value:.5g}" for value in even)
        remarks.append(f"the cell ({given}) is made symmetric ({used})")
    return Structure(even, symmetry, sites, _claims(block), tuple(dict.fromkeys(remarks)))


def _cell(block: gemmi.cif.Block, where: str) -> Cell:
    a, b, c = (number(first_text(block, f"_cell_length_{axis}")) for axis in "abc")
    # The CIF core dictionary gives the angles a default of 90°.
    alpha, beta, gamma = (
        number(first_text(block, f"_cell_angle_{angle}") or "90")
        for angle in ("alpha", "beta", "gamma")
    )
    cell = (a, b, c, alpha, beta, gamma)
    usable = bool(np.all(np.isfinite(cell))) and min(cell) > 0 and max(cell[3:]) < 180
    # Three angles that no parallelepiped has give a negative determinant.
    if not usable or np.linalg.det(direct_metric((1, 1, 1, alpha, beta, gamma))) < 1e-6:
        raise InputError(
            f"{where} has no usable cell (found {cell}); expected _cell_length_a "
            "… _cell_angle_gamma in Å and degrees."
        )
    if min(a, b, c) < LENGTHS[0] or max(a, b, c) > LENGTHS[1]:
        raise InputError(
            f"{where}: cell edges of {min(a, b, c):g} to {max(a, b, c):g} Å are no crystal's; "
            "expected _cell_length_a, _b and _c in Å."
        )
    return cell


def _settings(block: gemmi.cif.Block, cell: Cell, where: str, remarks: list[str]) -> list[Symmetry]:
    """Symmetry of the file; two settings where it leaves the origin open."""
    name = first_text(
        block,
        "_space_group_name_H-M_alt",
        "_symmetry_space_group_name_H-M",
        "_space_group_name_H-M_full",
        "_space_group_name_H-M_ref",
    )
    said = first_text(block, "_space_group_IT_number", "_symmetry_Int_Tables_number")
    hall = first_text(block, "_space_group_name_Hall", "_symmetry_space_group_name_Hall")
    listed = column(block, "_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz")
    triplets = [text for text in listed if text]
    value = number(said)
    integer = int(value) if 1 <= value <= 230 else 0
    named = settings_of_name(name, cell) if name else []
    numbered = settings_of_number(integer, cell) if integer and not named else []
    candidates = named or numbered
    called = name or (str(integer) if integer else "")
    if triplets:
        return [_of_list(triplets, called, candidates, integer, where, remarks)]
    explicit = symmetry_of_hall(hall) if hall else None
    if explicit is not None:
        known = [one for one in candidates if explicit.same_group(one)]
        if candidates and not known:
            remarks.append(f"the Hall symbol '{hall}' is not '{called}'; it is used")
        return known or [explicit]
    if named:
        remarks.extend(_other_number(named, integer, "the name"))
        return named
    if numbered:
        why = f"space group '{name}' is not known" if name else "only a space group number is given"
        remarks.append(f"{why}; number {integer} is read as {setting_names(numbered)}")
        return numbered
    raise InputError(
        f"{where}: space group '{(name or hall or said)[:60]}' is not known; expected a "
        "Hermann-Mauguin name such as 'R -3 c', a Hall symbol, a number or a list of "
        "symmetry operations."
    )


def _of_list(
    triplets: Sequence[str],
    called: str,
    candidates: Sequence[Symmetry],
    integer: int,
    where: str,
    remarks: list[str],
) -> Symmetry:
    """Symmetry of a list of operations, compared with the group's name and number."""
    try:
        symmetry, listed = symmetry_of_triplets(triplets, called)
    except ValueError as error:
        raise InputError(f"{where}: {error}; expected triplets such as '-y,x-y,z'.") from error
    if listed < len(symmetry):
        remarks.append(
            f"the {listed} symmetry operations listed generate {len(symmetry)}, all are used"
        )
    # Another setting of the group named has as many operations per lattice point.
    if candidates and len(symmetry.rotations) != len(candidates[0].rotations):
        remarks.append(
            f"the symmetry operations listed ({len(symmetry)}) are not those of space group "
            f"'{called}' ({len(candidates[0])}); the list is used"
        )
    else:
        remarks.extend(_other_number(candidates, integer, "the list of operations"))
    return symmetry


def _other_number(settings: Sequence[Symmetry], number: int, used: str) -> list[str]:
    """Sentence where a named group has another number than the file says."""
    group = gemmi.find_spacegroup_by_name(settings[0].name) if settings else None
    if not number or group is None or group.number == number:
        return []
    return [f"space group '{group.xhm()}' is number {group.number}, not {number}; {used} is used"]


def _assembled(
    symmetry: Symmetry, cell: Cell, atoms: Sequence[Atom], remarks: list[str]
) -> tuple[Symmetry, Cell, tuple[Site, ...]]:
    """Atoms in their orbits under one setting, in a cell with the group's symmetry."""
    mean = symmetry.invariant_metric(cell)
    even = cell if np.allclose(mean, direct_metric(cell), rtol=1e-9) else cell_of_metric(mean)
    basis = direct_basis(even)
    metric = direct_metric(even)
    sites = []
    for atom in atoms:
        position, multiplicity = special_position(atom.position, symmetry, basis)
        u_iso, u_star = _displacement(atom, metric, remarks)
        sites.append(
            Site(
                label=atom.label,
                element=atom.element,
                position=position,
                occupancy=atom.occupancy,
                multiplicity=multiplicity,
                u_iso=u_iso,
                u_star=u_star,
            )
        )
    return symmetry, even, tuple(sites)


def _displacement(
    atom: Atom, metric: NDArray[np.float64], remarks: list[str]
) -> tuple[float, NDArray[np.float64] | None]:
    """Mean U in Å², and U_ij a*_i a*_j of an anisotropic atom."""
    given = atom.displacement
    if not isinstance(given, Tensor):
        return given, None
    stars = np.sqrt(np.diag(np.linalg.inv(metric)))
    u_star = given.values if given.beta else given.values * np.outer(stars, stars)
    mean = float(np.trace(u_star @ metric) / 3)
    # Rounded values of a disc or a needle may be below zero by their last digit.
    if np.linalg.eigvalsh(u_star).min() >= -1e-3 * np.abs(u_star).max():
        return mean, u_star
    mean = max(mean, 0.0)
    remarks.append(
        f"the anisotropic displacement of site '{atom.label}' is not positive definite; its "
        f"mean U = {mean:.4f} Å² is used"
    )
    return mean, None


def _origin(
    found: Sequence[tuple[Symmetry, Cell, tuple[Site, ...]]], remarks: list[str]
) -> tuple[Symmetry, Cell, tuple[Site, ...]]:
    """The choice of origin under which no atoms collide."""
    nearest = []
    for symmetry, cell, sites in found:
        distances = shortest_distances(cell, symmetry, sites)
        nearest.append(min(distance for distance, _, _ in distances) if distances else 0.0)
    best = int(np.argmax(np.round(nearest, 2)))
    lengths = " and ".join(f"{length:.2f}" for length in nearest)
    clear = max(nearest) - min(nearest) > 0.1
    reason = f"shortest distances {lengths} Å" if clear else "nothing in the file tells them apart"
    remarks.append(
        f"the space group leaves the origin open ({setting_names([one[0] for one in found])}); "
        f"'{found[best][0].name}' is used ({reason})"
    )
    return found[best]


def _claims(block: gemmi.cif.Block) -> Claims:
    names = ("_chemical_name_mineral", "_chemical_name_common", "_chemical_name_systematic")
    return Claims(
        names=tuple(name for tag in names if (name := first_text(block, tag))),
        formula=formula_of(block),
        units=number(first_text(block, "_cell_formula_units_Z")),
        volume=number(first_text(block, "_cell_volume")),
        density=number(
            first_text(block, "_exptl_crystal_density_diffrn", "_exptl_crystal_density_meas")
        ),
    )
