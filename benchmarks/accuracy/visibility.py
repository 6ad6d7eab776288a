"""How far the lines of a phase stand above the counting noise of an azimuthal mean.

Over a ring of n pixels that collects s expected counts of a phase among t in all, the phase adds
s/n to the mean, whose standard deviation is √t/n: signal to noise is s/√t. Rings are one pixel
wide, as narrow as a line can be drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.simulation.background import background_profile
from xrdpipe.simulation.diamonds import add_diamond_spots
from xrdpipe.simulation.grains import render_phases
from xrdpipe.simulation.instrument import Setup
from xrdpipe.simulation.lines import lines_on_detector, powder_profile
from xrdpipe.simulation.sample import SampleMap
from xrdpipe.simulation.streams import FRAME_STREAM, stream
from xrdpipe.types import BoolArray, FloatArray


@dataclass(frozen=True)
class Rings:
    """Good pixels in rings one pixel wide.

    Parameters
    ----------
    ring
        Ring of each pixel, in the plane's sorted order.
    weight
        What a pixel sees of the intensity, 0 for bad pixels, in the same order.
    effective
        Sum of the weights of each ring.
    pitch
        Width of a ring, degrees; the first begins at 0.
    """

    ring: NDArray[np.int64]
    weight: NDArray[np.float64]
    effective: NDArray[np.float64]
    pitch: float

    def collected(self, values: FloatArray) -> NDArray[np.float64]:
        """Counts of each ring, from expected counts in the plane's sorted order."""
        weights = values * self.weight
        return np.bincount(self.ring, weights=weights, minlength=len(self.effective))


def rings(setup: Setup, bad: BoolArray) -> Rings:
    """Sort the pixels that are not ``bad``, shape (rows, columns), into rings."""
    plane = setup.plane
    seen = np.where(bad, 0, setup.transmission * plane.efficiency)
    weight = seen.ravel()[plane.order].astype(float)
    ring = np.floor(plane.key).astype(np.int64)
    effective = np.bincount(ring, weights=weight).astype(float)
    return Rings(ring, weight, effective, plane.pitch)


def _largest_ratio(signal: FloatArray, total: FloatArray) -> float:
    ratio = np.divide(signal, np.sqrt(total), out=np.zeros(len(total)), where=total > 0)
    return float(ratio.max(initial=0.0))


def powder_signal_to_noise(
    setup: Setup, sample: SampleMap, of: Rings, row: int, column: int
) -> float:
    """Of the strongest labelled phase at a pixel of the map, in its powder average."""
    plane = setup.plane
    axis = plane.profile_two_theta
    total = background_profile(axis, plane.wavelength, sample.background_at(row, column))
    total = total * sample.monitor[row, column]
    labelled = {id(table) for table in sample.tables[: sample.labelled]}
    signals = []
    for phase in sample.illuminated(row, column):
        profile = powder_profile(axis, lines_on_detector(plane, phase, setup.beam))
        total = total + profile
        if id(phase.table) in labelled:
            signals.append(profile)

    # A line may be narrower than a ring: rings take the mean of the profile over their width.
    edges = np.arange(len(of.effective) + 1) * of.pitch

    def counts(profile: FloatArray) -> NDArray[np.float64]:
        integral = np.cumsum(profile) * (axis[1] - axis[0])
        mean: NDArray[np.float64] = np.diff(np.interp(edges, axis, integral)) / of.pitch
        return of.effective * mean

    return max((_largest_ratio(counts(s), counts(total)) for s in signals), default=0.0)


def seen_in_frame(
    setup: Setup, sample: SampleMap, of: Rings, index: int, seed: int
) -> tuple[NDArray[np.float64], int]:
    """What the noise-free frame ``index`` shows, its grains as they lie.

    Returns
    -------
    Signal to noise of every phase, shape (phases,), and the number of good pixels at the largest
    value of the counter. Spots of the anvils count for the latter only: for the former they belong
    into ``bad`` of :func:`rings`.
    """
    plane = setup.plane
    row, column = (int(place[0]) for place in np.nonzero(sample.frame == index))
    monitor = float(sample.monitor[row, column])
    axis = plane.profile_two_theta
    smooth = background_profile(axis, plane.wavelength, sample.background_at(row, column))
    values = plane.interpolated(monitor * smooth)
    # The frame draws its phases one after the other: one stream gives each of them its grains.
    random = stream(seed, FRAME_STREAM, index, 0)
    signals: list[tuple[int, NDArray[np.float64]]] = []
    for phase in sample.illuminated(row, column):
        rendered = render_phases(plane, [phase], setup.beam, random)
        values += rendered
        k = next(i for i, table in enumerate(sample.tables) if table is phase.table)
        if sample.presence[k, row, column]:
            signals.append((k, of.collected(rendered)))
    total = of.collected(values)
    found = np.zeros(len(sample.tables))
    for k, signal in signals:
        found[k] = _largest_ratio(signal, total)
    if setup.saturation is None:
        return found, 0
    if np.any(setup.diamonds.counts > 0):
        progress = index / max(sample.frame.size - 1, 1)
        add_diamond_spots(plane, values, setup.diamonds, progress, monitor)
    full = plane.image(values) * setup.transmission * plane.efficiency >= setup.saturation
    return found, int((full & ~setup.bad.pixels).sum())
