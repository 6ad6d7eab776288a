"""The lines of all phases that can fall on a grid, laid end to end, ready for drawing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.crystal import (
    ReflectionTable,
    density,
    powder_intensity,
    reciprocal_basis,
    reflections,
)
from xrdpipe.errors import InputError
from xrdpipe.types import Grid, Phase, PhaseLibrary

MARGIN = 1.0
"""Lines up to this many degrees outside the grid are drawn, for their tails."""

FAINTEST = 0.002
"""Lines weaker than this part of a phase's strongest are left out."""

SAME_LINES = 0.006
"""A distractor whose strongest lines agree within this with a library phase is left out."""

MARCH_STEPS = np.linspace(np.log(0.2), np.log(5.0), 81)
"""Logarithms of the March coefficients at which textures are tabulated."""

Float = NDArray[np.float64]


@dataclass(frozen=True)
class PhaseLines:
    """The lines of one phase.

    Parameters
    ----------
    name
        Of the phase.
    area
        Shape (R,), ideal area per pixel, strongest on the grid = 1.
    d, multiplicity
        Shape (R,); d in Å.
    squared_cosines
        Shape (R, 3), of the plane normals to the Cartesian axes: Δd/d under strains along them.
    tied
        Which of three independent strains each Cartesian axis takes, shape (3,).
    texture
        Shape (A, M, R): March-Dollase weight for A habit axes and the steps of the coefficient.
    basis
        Direct cell vectors as rows, Å.
    weight
        Mass per area of the strongest line, up to a constant common to all phases.
    """

    name: str
    area: Float
    d: Float
    multiplicity: Float
    squared_cosines: Float
    tied: tuple[int, int, int]
    texture: Float
    basis: Float
    weight: float


def phase_lines(phase: Phase, grid: Grid) -> PhaseLines:
    """Prepare the lines of a phase for a grid.

    Raises
    ------
    InputError
        No line of the phase falls on the grid.
    """
    d_min = grid.wavelength / (2 * np.sin(np.radians(min(grid.stop + MARGIN, 179) / 2)))
    table = reflections(phase, grid.wavelength, d_min)
    two_theta = table.two_theta
    area = powder_intensity(table, grid.wavelength)
    with np.errstate(invalid="ignore"):
        near = (two_theta > grid.start - MARGIN) & (two_theta < grid.stop + MARGIN)
        on = (two_theta >= grid.start) & (two_theta <= grid.stop)
    if not on.any():
        raise InputError(
            f"phase '{table.name}' has no line between {grid.start:g} and {grid.stop:g} degrees "
            f"at {grid.wavelength:g} Å; use a wider grid."
        )
    strongest = area[on].max()
    keep = near & (area > FAINTEST * strongest)
    return PhaseLines(
        name=table.name,
        area=area[keep] / strongest,
        d=table.d[keep],
        multiplicity=table.multiplicity[keep].astype(float),
        squared_cosines=table.normals()[keep] ** 2,
        tied=_tied_axes(table),
        texture=_texture_table(table, keep),
        basis=np.asarray(np.linalg.inv(reciprocal_basis(table.cell)).T, np.float64),
        weight=density(phase) * table.volume**2 / strongest,
    )


def _tied_axes(table: ReflectionTable) -> tuple[int, int, int]:
    """Which Cartesian axes must strain together to keep the symmetry."""
    order = len(table.rotations)
    a, b, c = table.cell[:3]
    cubic = order >= 12 and np.allclose([a, b], c, rtol=1e-6) and table.cell[3:] == (90, 90, 90)
    if cubic:
        return (0, 0, 0)
    if np.isclose(a, b, rtol=1e-6):
        return (0, 0, 1)
    return (0, 1, 2)


def _texture_table(table: ReflectionTable, keep: NDArray[np.bool_]) -> Float:
    """Weights for common habit axes and the normal of the strongest line, shape (4, M, R)."""
    strongest = table.hkl[int(np.argmax(table.multiplicity * table.f_squared))]
    h, k, l = (int(index) for index in strongest)  # noqa: E741 - Miller indices
    axes = [(0, 0, 1), (1, 0, 0), (1, 1, 0), (h, k, l)]
    cosines = [table.axis_cosines_squared(axis)[keep] for axis in axes]
    return np.stack(
        [[march_dollase(square, float(np.exp(step))) for step in MARCH_STEPS] for square in cosines]
    )


def march_dollase(cosine_squared: Float, march: float) -> Float:
    """Mean March-Dollase weight of each orbit, shape (R,) from squared cosines (R, S).

    (r² cos²α + sin²α / r)^(-3/2): Dollase, J. Appl. Cryst. 19, 267 (1986).
    """
    weight = (march**2 * cosine_squared + (1 - cosine_squared) / march) ** -1.5
    mean: Float = weight.mean(axis=1)
    return mean


@dataclass(frozen=True)
class LineTable:
    """The lines of several phases, laid end to end.

    Parameters
    ----------
    names
        Of the P phases; the first ``labelled`` of them have a label.
    labelled, listed
        K, and the number of phases that somebody named: those after it are made up.
    first, count
        Place and number of each phase's lines, shape (P,).
    strongest
        Place of each phase's strongest line, shape (P,).
    area, d, multiplicity, squared_cosines
        As in PhaseLines, R lines in all.
    tied, basis, weight
        Of each phase: shapes (P, 3), (P, 3, 3), (P,).
    texture
        Shape (A, M, R).
    """

    names: tuple[str, ...]
    labelled: int
    listed: int
    first: NDArray[np.int64]
    count: NDArray[np.int64]
    strongest: NDArray[np.int64]
    area: Float
    d: Float
    multiplicity: Float
    squared_cosines: Float
    tied: NDArray[np.int64]
    basis: Float
    weight: Float
    texture: Float


def line_table(
    library: PhaseLibrary,
    distractors: tuple[Phase, ...],
    grid: Grid,
    made_up: tuple[Phase, ...] = (),
) -> LineTable:
    """Lines of a library and of the other phases that do not look like one of it.

    Parameters
    ----------
    library
        The phases with a label.
    distractors, made_up
        Phases without one; those that no line of the grid belongs to are left out.
    grid
        Where lines must fall.

    Raises
    ------
    InputError
        A phase of the library has no line on the grid.
    """
    known = [phase_lines(phase, grid) for phase in library.phases]
    others, invented = (_unlike(known, group, grid) for group in (distractors, made_up))
    phases = known + others + invented
    count = np.array([len(lines.d) for lines in phases])
    first = np.cumsum(count) - count
    return LineTable(
        names=tuple(lines.name for lines in phases),
        labelled=len(known),
        listed=len(known) + len(others),
        first=first,
        count=count,
        strongest=first + np.array([_strongest(lines) for lines in phases]),
        area=np.concatenate([lines.area for lines in phases]),
        d=np.concatenate([lines.d for lines in phases]),
        multiplicity=np.concatenate([lines.multiplicity for lines in phases]),
        squared_cosines=np.concatenate([lines.squared_cosines for lines in phases]),
        tied=np.array([lines.tied for lines in phases]),
        basis=np.stack([lines.basis for lines in phases]),
        weight=np.array([lines.weight for lines in phases]),
        texture=np.concatenate([lines.texture for lines in phases], axis=2),
    )


def _unlike(known: list[PhaseLines], phases: tuple[Phase, ...], grid: Grid) -> list[PhaseLines]:
    """Lines of the phases that are on the grid and do not look like a known one."""
    found = []
    for phase in phases:
        try:
            lines = phase_lines(phase, grid)
        except InputError:
            continue  # nothing of it reaches this grid, so it cannot distract
        if not any(_alike(lines, one) for one in known):
            found.append(lines)
    return found


def _strongest(lines: PhaseLines) -> int:
    """The strongest line on the grid: the one of area 1."""
    return int(np.argmin(np.abs(lines.area - 1)))


def _alike(one: PhaseLines, other: PhaseLines) -> bool:
    """Whether the three strongest lines of one lie on lines of the other, and vice versa."""

    def inside(a: PhaseLines, b: PhaseLines) -> bool:
        strong = a.d[np.argsort(-a.area)[:3]]
        notable = b.d[b.area > 0.1]
        return bool(np.all(np.abs(strong[:, None] / notable - 1).min(axis=1) < SAME_LINES))

    return inside(one, other) and inside(other, one)
