"""The atom list of a CIF: what each site is, where, how full and how it moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import gemmi
import numpy as np
from numpy.typing import NDArray

from xrdpipe.crystal.cif_values import column, first_text, number
from xrdpipe.crystal.formulas import parse_formula
from xrdpipe.crystal.species import has_form_factor, plain_label_element, species_of
from xrdpipe.errors import InputError

DEFAULT_U = 0.01
"""Mean-square displacement in Å² of an atom without one (B = 0.79 Å², room temperature)."""

MOST_SITES = 5000
"""Atom sites; the largest structures of powder work (zeolites, frameworks) have hundreds."""

LARGEST_OCCUPANCY = 1.5
"""Larger occupancies are percentages or multiplicities, not parts of a place."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """An anisotropic displacement as a CIF gives it.

    Parameters
    ----------
    values
        Shape (3, 3): U_ij in Å², or β_ij/2π² (dimensionless) where ``beta``.
    beta
        Whether the axes' lengths are contained in it.
    """

    values: NDArray[np.float64]
    beta: bool = False


@dataclass(frozen=True, eq=False)
class Atom:
    """One row of the atom list, before it is placed in its orbit.

    Parameters
    ----------
    label
        As in the file.
    element
        Symbol.
    position
        Shape (3,), fractions of the cell, as given.
    occupancy
        Part of the places of the orbit that the atom fills.
    displacement
        Isotropic U in Å², or a tensor.
    """

    label: str
    element: str
    position: NDArray[np.float64]
    occupancy: float
    displacement: float | Tensor


def formula_of(block: gemmi.cif.Block) -> str:
    """Chemical formula of the file, empty where there is none."""
    return first_text(
        block,
        "_chemical_formula_sum",
        "_chemical_formula_structural",
        "_chemical_formula_moiety",
    )


def read_atoms(block: gemmi.cif.Block, where: str, remarks: list[str]) -> list[Atom]:
    """Atoms that scatter.

    Parameters
    ----------
    block
        The data block of the structure.
    where
        The file, for messages.
    remarks
        Gets a sentence for everything that had to be assumed.

    Raises
    ------
    InputError
        A site has an unknown species, no position or no possible occupancy.
    """
    count = len(column(block, "_atom_site_fract_x"))
    if count > MOST_SITES:
        raise InputError(
            f"{where} has {count} atom sites; expected at most {MOST_SITES}, a crystal that a "
            "powder pattern can show."
        )
    names = ("label", "type_symbol", "calc_flag", "occupancy", "U_iso_or_equiv", "B_iso_or_equiv",
             "fract_x", "fract_y", "fract_z")  # fmt: skip
    columns = {name: _site_column(block, name, count, where) for name in names}
    tensors = _tensors(block, where)
    formula = frozenset(parse_formula(formula_of(block)) or ())
    atoms: list[Atom] = []
    unknown: list[str] = []
    for i in range(count):
        row = {name: values[i] for name, values in columns.items()}
        label = (row["label"] or row["type_symbol"])[:40]
        element = _element(row, label, formula, where, remarks)
        if element is None:
            continue
        occupancy = _occupancy(row["occupancy"], label, where, remarks)
        if occupancy == 0:
            remarks.append(f"site '{label}' has the occupancy zero and is left out")
            continue
        displacement = _displacement(row, label, tensors, remarks)
        if displacement is None:
            unknown.append(label)
            displacement = DEFAULT_U
        position = _position(row, label, where)
        atoms.append(Atom(label, element, position, occupancy, displacement))
    if not atoms:
        raise InputError(f"{where} has no atom that scatters; expected at least one.")
    if unknown:
        named = ", ".join(unknown[:6]) + (", …" if len(unknown) > 6 else "")
        remarks.append(f"no displacement is given for {named}; U = {DEFAULT_U} Å² is used")
    return atoms


def _element(
    row: Mapping[str, str], label: str, formula: frozenset[str], where: str, remarks: list[str]
) -> str | None:
    """Element of a site; None for a dummy atom."""
    symbol = row["type_symbol"]
    if row["calc_flag"].lower().startswith("du"):
        remarks.append(f"site '{label}' is marked as a dummy atom and left out")
        return None
    species = species_of(symbol, label, formula)
    if species is None:
        raise InputError(
            f"{where}: atom site '{label}' has the unknown species "
            f"'{symbol[:40] or label}'; expected an element symbol such as Ca or Ca2+."
        )
    if species.remark:
        remarks.append(f"site '{label}' {species.remark}")
    element = species.element
    if element is not None and not has_form_factor(element):
        raise InputError(
            f"{where}: no form factor is known for '{element}' of site '{label}'; "
            "expected an element from hydrogen to californium."
        )
    spelt = plain_label_element(label) if symbol else ""
    if spelt and element is not None and spelt != element:
        remarks.append(f"site '{label}' is of type '{symbol}'; the type is used")
    return element


def _position(row: Mapping[str, str], label: str, where: str) -> NDArray[np.float64]:
    texts = [row[f"fract_{axis}"] for axis in "xyz"]
    position = np.array([number(text) for text in texts])
    if not all(np.isfinite(position)) or np.abs(position).max() > 1000:
        found = ", ".join(text or "?" for text in texts)
        raise InputError(
            f"{where}: atom site '{label}' has no numeric position (found {found[:80]})."
        )
    return position


def _displacement(
    row: Mapping[str, str], label: str, tensors: Mapping[str, Tensor], remarks: list[str]
) -> float | Tensor | None:
    """Anisotropic displacement of a site, else its U or B; None where neither is given."""
    if label in tensors:
        return tensors[label]
    u = number(row["U_iso_or_equiv"])
    if np.isnan(u):
        u = number(row["B_iso_or_equiv"]) / (8 * np.pi**2)
    if not np.isfinite(u):
        return None
    if u < 0:
        remarks.append(f"the negative displacement of site '{label}' is taken as zero")
    return max(u, 0.0)


def _site_column(block: gemmi.cif.Block, name: str, count: int, where: str) -> list[str]:
    """One column of the atom list, empty texts where the file has none."""
    values = column(block, f"_atom_site_{name}")
    if values and len(values) != count:
        raise InputError(
            f"{where} has {len(values)} values of _atom_site_{name} for {count} atom sites; "
            "expected one for each."
        )
    return values or [""] * count


def _occupancy(text: str, label: str, where: str, remarks: list[str]) -> float:
    if not text:
        return 1.0  # the default of the CIF core dictionary
    value = number(text)
    if not 0 <= value <= LARGEST_OCCUPANCY:
        raise InputError(
            f"{where}: the occupancy '{text[:40]}' of atom site '{label}' is not a part of one; "
            "expected 0 to 1."
        )
    if value > 1.05:
        remarks.append(f"the occupancy of site '{label}' is {value:g}, more than one")
    return value


def _tensors(block: gemmi.cif.Block, where: str) -> dict[str, Tensor]:
    """Anisotropic displacements by label."""
    labels = column(block, "_atom_site_aniso_label")
    found: dict[str, Tensor] = {}
    for kind, scale in (("U", 1.0), ("B", 1 / (8 * np.pi**2)), ("beta", 1 / (2 * np.pi**2))):
        names = ("11", "22", "33", "23", "13", "12")
        columns = [column(block, f"_atom_site_aniso_{kind}_{ij}") for ij in names]
        if not any(columns):
            continue
        if any(len(column) != len(labels) for column in columns):
            raise InputError(
                f"{where}: the table of anisotropic displacements is incomplete; expected "
                f"_atom_site_aniso_label and _atom_site_aniso_{kind}_11 … _{kind}_12."
            )
        for row, label in enumerate(labels):
            u11, u22, u33, u23, u13, u12 = (scale * number(column[row]) for column in columns)
            tensor = np.array([[u11, u12, u13], [u12, u22, u23], [u13, u23, u33]])
            # A row of '?' or of zeros says nothing; the isotropic value stands.
            if label[:40] not in found and np.all(np.isfinite(tensor)) and np.any(tensor):
                found[label[:40]] = Tensor(tensor, beta=kind == "beta")
    return found
