"""Made-up crystals: phases that nobody will meet, to stand for those that nobody has listed.

A network that has only met a few phases beside its own learns those, not what "something else"
looks like. Cells, symmetries and atoms are drawn; structure factors are then those of real
crystals. Spacing and strength of the lines are what counts: nothing keeps atoms apart.
"""

from __future__ import annotations

import functools

import numpy as np

from xrdpipe.types import Phase

SEED = 20_240_311
"""Of the drawing: made-up crystal i is the same in every training."""

GROUPS = {
    "cubic": ("P m -3 m", "F m -3 m", "I m -3 m", "F d -3 m", "F -4 3 m", "P a -3", "I a -3"),
    "hexagonal": ("P 63/m m c", "P 63/m", "P -3 m 1", "R -3 m", "R -3 c", "P 32 2 1", "P 6/m m m"),
    "tetragonal": ("I 4/m m m", "P 42/m n m", "I 41/a m d", "P 4/n m m", "P 41 21 2"),
    "orthorhombic": ("P n m a", "C m c m", "P b c a", "I m m a", "P 21 21 21", "P b c n"),
    "monoclinic": ("P 21/c", "C 2/c", "C 2/m", "P 21/m"),
}
"""Frequent space groups of minerals and compounds (International Tables A), by crystal system."""

EDGES = (2.6, 12.0)
"""Range of cell edges in Å, log-uniform."""

ELEMENTS = ("C", "N", "O", "F", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "K", "Ca", "Ti", "Cr",
            "Mn", "Fe", "Ni", "Cu", "Zn", "Sr", "Y", "Zr", "Ba", "La", "Ce", "W", "Pb")  # fmt: skip

SITES = (1, 4)
"""Range of the number of independent atoms."""


@functools.cache
def made_up_phases(number: int) -> tuple[Phase, ...]:
    """The first ``number`` made-up crystals."""
    return tuple(_made_up(index) for index in range(number))


def _made_up(index: int) -> Phase:
    random = np.random.Generator(np.random.Philox(key=[SEED, index]))
    system = list(GROUPS)[random.integers(len(GROUPS))]
    group = GROUPS[system][random.integers(len(GROUPS[system]))]
    a, b, c = np.exp(random.uniform(np.log(EDGES[0]), np.log(EDGES[1]), 3))
    angle = random.uniform(91, 115)
    cell = {
        "cubic": (a, a, a, 90, 90, 90),
        "hexagonal": (a, a, c, 90, 90, 120),
        "tetragonal": (a, a, c, 90, 90, 90),
        "orthorhombic": (a, b, c, 90, 90, 90),
        "monoclinic": (a, b, c, 90, angle, 90),
    }[system]
    lines = [f"data_made-up-{index}", f"_symmetry_space_group_name_H-M '{group}'"]
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    lines += [f"_cell_{name} {value:.4f}" for name, value in zip(names, cell, strict=True)]
    keys = ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "U_iso_or_equiv")
    lines += ["loop_", *(f"_atom_site_{key}" for key in keys)]
    for number in range(int(random.integers(SITES[0], SITES[1] + 1))):
        element = ELEMENTS[random.integers(len(ELEMENTS))]
        # Half of the coordinates are special, as they often are in simple structures.
        special = random.choice([0.0, 0.25, 0.5], 3)
        place = np.where(random.random(3) < 0.5, special, random.random(3))
        x, y, z = place
        moved = random.uniform(0.004, 0.02)
        lines.append(f"{element}{number} {element} {x:.4f} {y:.4f} {z:.4f} {moved:.4f}")
    return Phase(f"made-up-{index}", "\n".join(lines) + "\n", "drawn")
