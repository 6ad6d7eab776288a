"""Frame number i of a scan: the same in whatever order and process it is made."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xrdpipe.simulation.background import background_profile
from xrdpipe.simulation.counting import expose
from xrdpipe.simulation.diamonds import add_diamond_spots
from xrdpipe.simulation.grains import render_phases
from xrdpipe.simulation.instrument import Setup
from xrdpipe.simulation.sample import SampleMap
from xrdpipe.simulation.streams import FRAME_STREAM, photon_stream, stream


def expected_counts(
    setup: Setup, sample: SampleMap, index: int, seed: int, *, diamonds: bool = True
) -> NDArray[np.float32]:
    """Noise-free counts of frame ``index``, shape (rows, columns), efficiency included.

    Parameters
    ----------
    setup, sample
        The experiment.
    index
        Frame number, from 0.
    seed
        Of the simulation.
    diamonds
        Whether the anvils scatter.
    """
    row, column = (int(place[0]) for place in np.nonzero(sample.frame == index))
    monitor = float(sample.monitor[row, column])
    plane = setup.plane
    smooth = background_profile(
        plane.profile_two_theta, plane.wavelength, sample.background_at(row, column)
    )
    values = render_phases(
        plane,
        sample.illuminated(row, column),
        setup.beam,
        stream(seed, FRAME_STREAM, index, 0),
        smooth * monitor,
    )
    if diamonds and np.any(setup.diamonds.counts > 0):
        progress = index / max(sample.frame.size - 1, 1)
        add_diamond_spots(plane, values, setup.diamonds, progress, monitor)
    image = plane.image(values)
    image *= setup.transmission
    image *= plane.efficiency
    return image


def simulate_frame(setup: Setup, sample: SampleMap, index: int, seed: int) -> NDArray[np.int64]:
    """Measured counts of frame ``index``, shape (rows, columns); gaps hold 0."""
    return expose(
        expected_counts(setup, sample, index, seed),
        setup.plane,
        setup.bad,
        photon_stream(seed, FRAME_STREAM, index, 1),
        saturation=setup.saturation,
        zingers=setup.zingers,
        poisson=setup.poisson,
    )
