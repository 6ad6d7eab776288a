"""CIF texts of small structures, made for the tests of the crystal package."""

from __future__ import annotations

from collections.abc import Sequence

CIF = """data_test
_cell_length_a {a}
_cell_length_b {b}
_cell_length_c {c}
_cell_angle_alpha {alpha}
_cell_angle_beta {beta}
_cell_angle_gamma {gamma}
{group}
{more}
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
_atom_site_U_iso_or_equiv
{atoms}
"""


def cif(
    cell: Sequence[float],
    group: str,
    atoms: Sequence[str],
    more: str = "",
) -> str:
    """CIF of a cell; a group starting with ``_`` or ``loop_`` is put in as it is.

    Atoms are rows ``label type x y z occupancy U``.
    """
    edges = [*cell, *[cell[0]] * (3 - len(cell))] if len(cell) < 3 else list(cell[:3])
    angles = list(cell[3:]) or [90, 90, 90]
    if not group.startswith(("_", "loop_")):
        group = f"_space_group_name_H-M_alt '{group}'"
    names = ("a", "b", "c", "alpha", "beta", "gamma")
    values = dict(zip(names, [*edges, *angles], strict=True))
    return CIF.format(**values, group=group, more=more, atoms="\n".join(atoms))


HEXAGONAL = (90, 90, 120)

CALCITE = cif(
    (4.99, 4.99, 17.06, *HEXAGONAL),
    "R -3 c :H",
    ("Ca Ca 0 0 0 1 0.010", "C C 0 0 0.25 1 0.010", "O O 0.257 0 0.25 1 0.014"),
)
CERIA = cif((5.4112,), "F m -3 m", ("Ce Ce 0 0 0 1 0.005", "O O .25 .25 .25 1 .010"))
TRICLINIC = cif(
    (7.1, 8.3, 9.7, 81, 97, 108),
    "P -1",
    ("Si Si 0.1131 0.2317 0.3723 1 0.01", "O O 0.4139 0.6329 0.0941 1 0.02"),
)
