"""Powder patterns of pure phases, ready for every width, strain and zero shift that is tried."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from xrdpipe.crystal import bragg_angle, powder_intensity, reflections
from xrdpipe.errors import InputError
from xrdpipe.types import FloatArray, Grid, Phase, PhaseLibrary

BIN = 0.02
"""Points are averaged to bins of about this width, in degrees."""

WIDTHS = (0.05, 0.066, 0.086, 0.114, 0.15, 0.197, 0.259, 0.34)
"""FWHM of the lines that are tried, degrees; one for all lines of a pattern."""

LARGEST_STRAIN = 0.01
ZEROS = (-0.025, 0.0, 0.025)
"""Isotropic strains up to the first and shifts of the 2θ zero, in degrees, are tried."""

LORENTZIAN = 0.4
"""Lorentzian part of the pseudo-Voigt profile."""

FINER = 4
"""Sticks are set on a grid this much finer than that of the patterns."""

MARGIN = 2.0
"""Lines up to this many degrees outside the grid count, for their tails and under strain."""

FAINTEST = 0.002
"""Lines weaker than this part of a phase's strongest are left out."""


@dataclass(frozen=True)
class Templates:
    """Patterns of K phases at W widths and M distortions, in n bins.

    Parameters
    ----------
    together
        Points of the grid averaged to a bin.
    two_theta
        Shape (n,), centres of the bins, degrees.
    widths
        Shape (W,), FWHM, degrees.
    strains, zeros
        Shape (M,): isotropic strain Δd/d and shift in degrees of each distortion.
    values
        Shape (W, K, M, n) float32, 1/degree: the strongest line on the grid has an area of 1.
    """

    together: int
    two_theta: NDArray[np.float64]
    widths: NDArray[np.float64]
    strains: NDArray[np.float64]
    zeros: NDArray[np.float64]
    values: NDArray[np.float32]


def default_strains(grid: Grid) -> NDArray[np.float64]:
    """Strains within ± 1 %, a step shifting the last line by two thirds of the narrowest width."""
    reach = np.degrees(2 * LARGEST_STRAIN * np.tan(np.radians(min(grid.stop, 120) / 2)))
    steps = int(np.ceil(1.5 * reach / WIDTHS[0]))
    return np.linspace(-LARGEST_STRAIN, LARGEST_STRAIN, 2 * max(steps, 5) + 1)


def make_templates(library: PhaseLibrary, grid: Grid, strains: NDArray[np.float64]) -> Templates:
    """Draw the patterns of all phases, under every pair of a strain and a zero shift.

    Raises
    ------
    InputError
        A phase has no line on the grid.
    """
    together = max(round(BIN / grid.step), 1)
    strain, zero = (part.ravel() for part in np.meshgrid(strains, ZEROS, indexing="ij"))
    widths = np.maximum(WIDTHS, 2.5 * together * grid.step)
    size = grid.size
    margin = round(MARGIN / grid.step)
    fine = (size + 2 * margin) * FINER
    profiles = fft.rfft(_profiles(widths, fine, grid.step / FINER))
    values = []
    for phase in library.phases:
        angle, area = _lines(phase, grid)
        half = np.radians(angle / 2)
        sine = np.clip(np.sin(half) / (1 + strain[:, None]), 0, 1)
        place = (np.degrees(2 * np.arcsin(sine)) + zero[:, None] - grid.start) / grid.step
        sticks = _sticks((place + margin) * FINER, area * FINER / grid.step, fine)
        drawn = fft.irfft(fft.rfft(sticks) * profiles[:, None], n=fine)
        points = drawn[..., ::FINER][..., margin : margin + size]
        values.append(binned(points, together).astype(np.float32))
    return Templates(
        together,
        binned(grid.two_theta, together),
        widths,
        strain,
        zero,
        np.ascontiguousarray(np.stack(values, axis=1)),
    )


def binned(values: FloatArray, together: int) -> NDArray[np.float64]:
    """Means of ``together`` neighbours along the last axis; the last bin may hold fewer."""
    first = np.arange(0, values.shape[-1], together)
    count = np.diff(np.append(first, values.shape[-1]))
    mean: NDArray[np.float64] = np.add.reduceat(values, first, axis=-1, dtype=np.float64) / count
    return mean


def _lines(phase: Phase, grid: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Angles in degrees and areas of the lines in reach; the strongest on the grid has 1."""
    d_min = grid.wavelength / (2 * np.sin(np.radians(min(grid.stop + MARGIN, 179) / 2)))
    table = reflections(phase, grid.wavelength, float(d_min))
    angle = bragg_angle(table.d, grid.wavelength)
    area = powder_intensity(table, grid.wavelength)
    on = (angle >= grid.start) & (angle <= grid.stop)
    if not on.any():
        raise InputError(
            f"phase '{phase.name}' has no line between {grid.start:g} and {grid.stop:g} degrees "
            f"at {grid.wavelength:g} Å; use a wider grid."
        )
    strongest = area[on].max()
    near = np.isfinite(area) & (np.abs(angle - (grid.start + grid.stop) / 2) < _reach(grid))
    keep = near & (area > FAINTEST * strongest)
    return angle[keep], area[keep] / strongest


def _reach(grid: Grid) -> float:
    return (grid.stop - grid.start) / 2 + MARGIN


def _sticks(place: FloatArray, area: FloatArray, size: int) -> NDArray[np.float64]:
    """Sums of sticks at places (M, R) between the points of a grid, shared linearly, (M, size)."""
    below = np.floor(place).astype(np.int64)
    part = place - below
    sticks = np.zeros((len(place), size))
    row = np.broadcast_to(np.arange(len(place))[:, None], place.shape)
    for point, share in ((below, 1 - part), (below + 1, part)):
        inside = (point >= 0) & (point < size)
        np.add.at(sticks, (row[inside], point[inside]), (share * area)[inside])
    return sticks


def _profiles(widths: FloatArray, size: int, step: float) -> NDArray[np.float64]:
    """Pseudo-Voigt profiles of unit sum around point 0 of a ring of points, (W, size)."""
    place = np.arange(size)
    distance = np.minimum(place, size - place) * step / widths[:, None]
    gauss = np.exp(-4 * np.log(2) * distance**2)
    lorentz = 1 / (1 + 4 * distance**2)
    shapes = [shape / shape.sum(axis=1, keepdims=True) for shape in (gauss, lorentz)]
    mixed: NDArray[np.float64] = (1 - LORENTZIAN) * shapes[0] + LORENTZIAN * shapes[1]
    return mixed
