"""Crystal structures to powder reflections: CIF in; d, multiplicity and |F|² out.

The only package that uses gemmi. Structure factors are of free neutral atoms with their
displacements, isotropic or not, and the dispersion f′ and f″ at the wavelength; intensities
are those of the azimuthal mean of an area detector, m|F|²/(sin²θ cosθ), not the power of a
whole ring. ``lattice`` and ``symmetry`` hold the geometry; ``cif`` with ``cif_values``,
``species``, ``formulas`` and ``atoms`` reads a file into a ``structure``; ``scattering`` and
``powder`` compute; ``oddities`` doubts.
"""

from __future__ import annotations

from xrdpipe.crystal.cif import load_phase, structure
from xrdpipe.crystal.lattice import (
    Cell,
    bragg_angle,
    plane_spacing,
    reciprocal_basis,
    reciprocal_metric,
    spacing_gradient,
)
from xrdpipe.crystal.oddities import oddities
from xrdpipe.crystal.powder import ReflectionTable, density, powder_intensity, reflections
from xrdpipe.crystal.reference import PhaseLines, phase_lines
from xrdpipe.crystal.scattering import HC, structure_factors
from xrdpipe.crystal.structure import DALTON, Site, Structure

__all__ = [
    "DALTON",
    "HC",
    "Cell",
    "PhaseLines",
    "ReflectionTable",
    "Site",
    "Structure",
    "bragg_angle",
    "density",
    "load_phase",
    "oddities",
    "phase_lines",
    "plane_spacing",
    "powder_intensity",
    "reciprocal_basis",
    "reciprocal_metric",
    "reflections",
    "spacing_gradient",
    "structure",
    "structure_factors",
]
