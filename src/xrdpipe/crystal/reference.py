"""The lines of a phase as people draw them: ticks with relative heights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.crystal.lattice import bragg_angle
from xrdpipe.crystal.powder import powder_intensity, reflections
from xrdpipe.types import Phase

FAINTEST = 0.002
"""Lines weaker than this part of the strongest are left out."""


@dataclass(frozen=True)
class PhaseLines:
    """The powder lines of a phase, sorted from large to small d.

    Parameters
    ----------
    name
        Of the phase.
    d
        Plane spacings in Å, shape (R,).
    intensity
        Of the ideal powder, corrected for polarization; the strongest line has 1. Shape (R,).
    hkl
        Miller indices of one member of each set of planes, shape (R, 3).
    """

    name: str
    d: NDArray[np.float64]
    intensity: NDArray[np.float64]
    hkl: NDArray[np.int64]

    def two_theta(self, wavelength: float) -> NDArray[np.float64]:
        """Positions in degrees at a wavelength in Å, shape (R,); NaN where it cannot diffract."""
        return bragg_angle(self.d, wavelength)


def phase_lines(phase: Phase, wavelength: float, d_min: float) -> PhaseLines:
    """Lines down to a plane spacing in Å, with their relative intensities at a wavelength in Å.

    Raises
    ------
    InputError
        The CIF cannot be used or has no line with d ≥ d_min.
    """
    table = reflections(phase, wavelength, d_min)
    intensity = powder_intensity(table, wavelength)
    strong = intensity >= FAINTEST * intensity.max()
    return PhaseLines(
        phase.name, table.d[strong], intensity[strong] / intensity.max(), table.hkl[strong]
    )
