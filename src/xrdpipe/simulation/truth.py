"""What a simulated map holds, computed from the lines as they are rendered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xrdpipe.simulation.background import background_profile
from xrdpipe.simulation.instrument import Setup
from xrdpipe.simulation.lines import lines_on_detector, strongest_over_background
from xrdpipe.simulation.sample import SampleMap


def weight_and_strength(
    setup: Setup, sample: SampleMap, densities: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight fractions and strengths of the label set.

    Parameters
    ----------
    setup, sample
        The experiment.
    densities
        Mass density of every phase, g/cm³.

    Returns
    -------
    Weight fraction of all crystalline matter in the beam, and strength: strongest line over
    local background in the noise-free powder average, above 0 also where only the gasket
    gives the line. Both of shape (K, ny, nx).
    """
    axis = setup.plane.profile_two_theta
    mass = np.zeros((len(sample.tables), *sample.shape))
    strength = np.zeros((sample.labelled, *sample.shape))
    place = {id(table): k for k, table in enumerate(sample.tables)}
    for row, column in np.ndindex(sample.shape):
        background = sample.monitor[row, column] * background_profile(
            axis, setup.plane.wavelength, sample.background_at(row, column)
        )
        for phase in sample.illuminated(row, column):
            k = place[id(phase.table)]
            lines = lines_on_detector(setup.plane, phase, setup.beam)
            if sample.presence[k, row, column]:
                # A volume v of the phase scatters as v / V² with V that of its unit cell.
                mass[k, row, column] = lines.scale * phase.table.volume**2 * densities[k]
            if k < sample.labelled:
                strength[k, row, column] = strongest_over_background(setup.plane, lines, background)
    total = mass.sum(axis=0)
    return mass[: sample.labelled] / np.where(total > 0, total, 1), strength
