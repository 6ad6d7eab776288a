"""Cells and plane spacings: 1/d² = h G* hᵀ, and how d follows the metric and a strain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xrdpipe.types import FloatArray

Cell = tuple[float, float, float, float, float, float]
"""a, b, c in Å, alpha, beta, gamma in degrees."""


def direct_metric(cell: Cell) -> NDArray[np.float64]:
    """Metric tensor G of the direct lattice, shape (3, 3), Å²: products of the cell vectors."""
    a, b, c = cell[:3]
    cos_alpha, cos_beta, cos_gamma = np.cos(np.radians(cell[3:]))
    return np.array(
        [
            [a * a, a * b * cos_gamma, a * c * cos_beta],
            [a * b * cos_gamma, b * b, b * c * cos_alpha],
            [a * c * cos_beta, b * c * cos_alpha, c * c],
        ]
    )


def reciprocal_basis(cell: Cell) -> NDArray[np.float64]:
    """Reciprocal basis vectors as rows (1/d convention, 1/Å), shape (3, 3).

    The frame is Cartesian, with x along a* and z along c (the lower-triangular factor of G*;
    Busing & Levy, Acta Cryst. 22, 457 (1967), differ by naming the axes).
    """
    basis: NDArray[np.float64] = np.linalg.cholesky(np.linalg.inv(direct_metric(cell)))
    return basis


def reciprocal_metric(cell: Cell) -> NDArray[np.float64]:
    """Reciprocal metric tensor G*, shape (3, 3), 1/Å²: 1/d² = h G* hᵀ."""
    basis = reciprocal_basis(cell)
    metric: NDArray[np.float64] = basis @ basis.T
    return metric


def cell_of_metric(metric: FloatArray) -> Cell:
    """Cell of a direct metric tensor G (3, 3) in Å²."""
    a, b, c = (float(length) for length in np.sqrt(np.diag(metric)))
    cosines = (metric[1, 2] / (b * c), metric[0, 2] / (a * c), metric[0, 1] / (a * b))
    alpha, beta, gamma = (float(np.degrees(np.arccos(cosine))) for cosine in cosines)
    return (a, b, c, alpha, beta, gamma)


def cell_volume(cell: Cell) -> float:
    """Unit-cell volume in Å³."""
    return float(np.sqrt(np.linalg.det(direct_metric(cell))))


def plane_spacing(hkl: NDArray[np.int64], metric: FloatArray) -> NDArray[np.float64]:
    """Plane spacing d of Miller indices (R, 3) under a reciprocal metric, shape (R,), Å."""
    d: NDArray[np.float64] = 1 / np.sqrt(np.einsum("ri,ij,rj->r", hkl, metric, hkl))
    return d


def spacing_gradient(hkl: NDArray[np.int64], metric: FloatArray) -> NDArray[np.float64]:
    """∂d/∂G* for Miller indices (R, 3), shape (R, 3, 3), Å³.

    From d = (h G* hᵀ)^(−1/2): ∂d/∂G*_ij = −d³ h_i h_j / 2, so that Δd = Σ_ij ∂d/∂G*_ij ΔG*_ij.
    """
    d = plane_spacing(hkl, metric)
    gradient: NDArray[np.float64] = -0.5 * np.einsum("r,ri,rj->rij", d**3, hkl, hkl)
    return gradient


def bragg_angle(d: FloatArray, wavelength: float) -> NDArray[np.float64]:
    """2θ = 2 asin(λ/2d) in degrees, same shape as ``d``; NaN where the line is not reachable."""
    sine = wavelength / (2 * np.asarray(d, dtype=float))
    angle: NDArray[np.float64] = np.degrees(2 * np.arcsin(np.where(sine <= 1, sine, np.nan)))
    return angle
