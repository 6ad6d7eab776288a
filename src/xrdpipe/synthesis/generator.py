"""What all synthetic patterns of one training share: lines of the phases, angles, smooth shapes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.crystal import ReflectionTable, powder_intensity, reflections
from xrdpipe.errors import InputError
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.types import Grid, Phase, PhaseLibrary

MARGIN = 1.0
"""Lines up to this many degrees outside the grid are drawn, for their tails."""

FAINTEST = 0.002
"""Lines weaker than this part of a phase's strongest are left out."""

SAME_LINES = 0.006
"""A distractor whose strongest lines agree within this with a library phase is left out."""

GP_RANK = 14


@dataclass(frozen=True)
class PhaseLines:
    """The lines of one phase that can fall on the grid, ready for drawing.

    Parameters
    ----------
    area
        Shape (R,), ideal peak area per pixel, strongest = 1.
    d, multiplicity
        Shape (R,).
    strain_response
        Shape (R, 3), see :meth:`xrdpipe.crystal.ReflectionTable.strain_response`.
    tied
        Index of the independent strain of each Cartesian axis, shape (3,).
    axis_cosines
        Shape (A, R, S) squared cosines to A possible texture axes.
    """

    name: str
    area: NDArray[np.float64]
    d: NDArray[np.float64]
    multiplicity: NDArray[np.float64]
    strain_response: NDArray[np.float64]
    tied: tuple[int, int, int]
    axis_cosines: NDArray[np.float64]


def phase_lines(table: ReflectionTable, grid: Grid) -> PhaseLines:
    """Prepare the lines of a phase for a grid.

    Raises
    ------
    InputError
        No line of the phase falls on the grid.
    """
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
        strain_response=table.strain_response()[keep],
        tied=_tied_axes(table),
        axis_cosines=np.stack(
            [table.axis_cosines_squared(axis)[keep] for axis in _texture_axes(table)]
        ),
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


def _texture_axes(table: ReflectionTable) -> list[tuple[int, int, int]]:
    """Common habit axes and the normal of the strongest line."""
    strongest = table.hkl[int(np.argmax(table.multiplicity * table.f_squared))]
    h, k, l = (int(index) for index in strongest)  # noqa: E741 - Miller indices
    return [(0, 0, 1), (1, 0, 0), (1, 1, 0), (h, k, l)]


@dataclass(frozen=True)
class Generator:
    """Everything that is the same for all samples: lines, angles, background shapes.

    Parameters
    ----------
    lines
        Of the K phases of the library, in class order.
    distractors
        Of the phases without a label.
    grid, recipe
        What is drawn, and how.
    gp
        Shape (G, GP_RANK, n): unit-variance smooth functions for G lengths.
    """

    lines: tuple[PhaseLines, ...]
    distractors: tuple[PhaseLines, ...]
    grid: Grid
    recipe: Recipe
    two_theta: NDArray[np.float64]
    gp: NDArray[np.float32]


def make_generator(
    library: PhaseLibrary, distractors: tuple[Phase, ...], grid: Grid, recipe: Recipe
) -> Generator:
    """Prepare :func:`draw`; distractors that look like a phase of the library are left out."""
    d_min = grid.wavelength / (2 * np.sin(np.radians(min(grid.stop + MARGIN, 179) / 2)))
    tables = [reflections(phase, grid.wavelength, d_min) for phase in library.phases]
    others = []
    for phase in distractors:
        try:
            table = reflections(phase, grid.wavelength, d_min)
            lines = phase_lines(table, grid)
        except InputError:
            continue  # nothing of it reaches this grid, so it cannot distract
        if not any(_alike(lines, phase_lines(known, grid)) for known in tables):
            others.append(lines)
    return Generator(
        lines=tuple(phase_lines(table, grid) for table in tables),
        distractors=tuple(others),
        grid=grid,
        recipe=recipe,
        two_theta=grid.two_theta,
        gp=_smooth_functions(grid),
    )


def _alike(one: PhaseLines, other: PhaseLines) -> bool:
    """Whether the three strongest lines of one lie on lines of the other, and vice versa."""

    def inside(a: PhaseLines, b: PhaseLines) -> bool:
        strong = a.d[np.argsort(-a.area)[:3]]
        notable = b.d[b.area > 0.1]
        return bool(np.all(np.abs(strong[:, None] / notable - 1).min(axis=1) < SAME_LINES))

    return inside(one, other) and inside(other, one)


def _smooth_functions(grid: Grid) -> NDArray[np.float32]:
    """Low-rank factors of Gaussian processes with lengths 1.5-10°, each of unit variance."""
    knots = np.linspace(grid.start, grid.stop, 60)
    weights = []
    for length in (1.5, 2.5, 4.0, 6.5, 10.0):
        kernel = np.exp(-((knots[:, None] - knots) ** 2) / (2 * length**2))
        values, vectors = np.linalg.eigh(kernel)
        top = np.argsort(-values)[:GP_RANK]
        factor = vectors[:, top] * np.sqrt(np.clip(values[top], 0, None))
        weights.append([np.interp(grid.two_theta, knots, column) for column in factor.T])
    return np.array(weights, dtype=np.float32)
