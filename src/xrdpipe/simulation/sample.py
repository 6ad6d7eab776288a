"""What is where in the sample: drawn once, known exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.crystal import Cell, ReflectionTable
from xrdpipe.scan import scan_positions
from xrdpipe.simulation.background import Background
from xrdpipe.simulation.effects import EVERY_EFFECT, Effects
from xrdpipe.simulation.layouts import presence_map, smooth_field
from xrdpipe.simulation.lines import IlluminatedPhase
from xrdpipe.simulation.streams import SAMPLE_STREAM, stream
from xrdpipe.types import BoolArray, FloatArray

GASKET_GRAINS = 1e8
"""The gasket, hit by the tails of the beam, is fine-grained: its rings are smooth."""

STRAIN = 0.003
"""Largest isotropic strain of a cell; each axis adds a normal deviate of a third of it."""

DISPLACEMENT = 50.0
"""Largest distance of the sample from the calibrated plane, µm."""

ANVILS = (0.8, 0.99)
"""Range of the share of electrons in the beam that belong to the anvils."""


@dataclass(frozen=True)
class SampleMap:
    """What is where in the sample, known exactly; arrays are (K, ny, nx) or (ny, nx).

    The first ``labelled`` phases are the label set, those after it are distractors.

    Parameters
    ----------
    tables
        Lines of every phase, distractors included.
    labelled
        Number of phases in the label set, K.
    presence
        True where the fraction in the illuminated volume is above 0; all phases.
    peak_counts
        Height of the strongest line in the powder average, counts per pixel; all phases.
    parasitic
        Height of a line that belongs to no sample phase (gasket); all phases.
    grains, size, microstrain, mosaic, march, fibre
        As in :class:`~xrdpipe.simulation.lines.IlluminatedPhase`; all phases.
    lattice
        Shape (all phases, ny, nx, 6), strained cells, Å and degrees.
    displacement
        Sample out of the calibrated plane, towards the detector, µm.
    background
        Shape (6, ny, nx), the fields of Background.
    monitor
        Incident intensity relative to the mean.
    frame
        Number of the frame measured at each pixel, from 0.
    """

    tables: tuple[ReflectionTable, ...]
    labelled: int
    presence: BoolArray
    peak_counts: NDArray[np.float64]
    parasitic: NDArray[np.float64]
    grains: NDArray[np.float64]
    size: NDArray[np.float64]
    microstrain: NDArray[np.float64]
    mosaic: NDArray[np.float64]
    march: NDArray[np.float64]
    fibre: NDArray[np.float64]
    lattice: NDArray[np.float64]
    displacement: NDArray[np.float64]
    background: NDArray[np.float64]
    monitor: NDArray[np.float64]
    frame: NDArray[np.int32]

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx)."""
        ny, nx = self.frame.shape
        return ny, nx

    def illuminated(self, row: int, column: int) -> list[IlluminatedPhase]:
        """What the beam meets at one pixel, gasket included; absent phases are not listed."""
        at = (slice(None), row, column)
        phases = []
        for k, table in enumerate(self.tables):
            sources = (
                (self.peak_counts[at][k], self.grains[at][k], self.march[at][k]),
                (self.parasitic[at][k], GASKET_GRAINS, 1.0),
            )
            for peak_counts, grains, march in sources:
                if peak_counts > 0:
                    phases.append(
                        IlluminatedPhase(
                            table=table,
                            peak_counts=float(peak_counts * self.monitor[row, column]),
                            grains=float(grains),
                            cell=_as_cell(self.lattice[k, row, column]),
                            size=float(self.size[at][k]),
                            microstrain=float(self.microstrain[at][k]),
                            mosaic=float(self.mosaic[at][k]),
                            march=float(march),
                            fibre=float(self.fibre[at][k]),
                            displacement=float(self.displacement[row, column]),
                        )
                    )
        return phases

    def background_at(self, row: int, column: int) -> Background:
        """Smooth scattering at one pixel, per unit monitor."""
        return Background(*(float(value) for value in self.background[:, row, column]))


def _as_cell(numbers: FloatArray) -> Cell:
    a, b, c, alpha, beta, gamma = (float(number) for number in numbers)
    return a, b, c, alpha, beta, gamma


def strained_cell(cell: Cell, strain: FloatArray) -> NDArray[np.float64]:
    """The cell with its axes strained; axes of equal length are tied to the first of them.

    Parameters
    ----------
    cell
        a, b, c in Å and three angles in degrees.
    strain
        Of a, b, c; shape (..., 3).

    Returns
    -------
    Shape (..., 6).
    """
    a, b, c = cell[:3]
    first = strain[..., 0]
    second = first if abs(b - a) < 1e-6 * a else strain[..., 1]
    third = first if abs(c - a) < 1e-6 * a else strain[..., 2]
    strained = np.empty((*strain.shape[:-1], 6))
    strained[..., :3] = np.stack([a * (1 + first), b * (1 + second), c * (1 + third)], axis=-1)
    strained[..., 3:] = cell[3:]
    return strained


def draw_sample(
    tables: Sequence[ReflectionTable],
    shape: tuple[int, int],
    seed: int,
    *,
    layout: str = "independent",
    counts: float = 30.0,
    log_grains: float = 4.0,
    labelled: int | None = None,
    gasket: int | None = None,
    snake: bool = False,
    fast_axis: str = "x",
    effects: Effects = EVERY_EFFECT,
) -> SampleMap:
    """Draw the sample: fractions, grains, strain, texture, background, monitor.

    Parameters
    ----------
    tables
        Lines of every phase, the label set first.
    shape
        (ny, nx).
    seed
        Of the simulation.
    layout
        See :func:`~xrdpipe.simulation.layouts.presence_map`.
    counts
        Counts per pixel at the strongest line of a phase that fills the beam.
    log_grains
        Mean log10 of the number of grains of a phase that fills the beam; it varies by a
        factor of 3 between places.
    labelled
        Number of phases in the label set [default: all]; the rest are distractors, at most
        one of them at a place.
    gasket
        Index of the phase that the gasket is made of: gives faint rings in half of the
        pixels that do not hold it. Outside the label set it gives nothing else.
    snake, fast_axis
        How the scan runs.
    effects
        What is switched off is drawn all the same, and then left out.
    """
    random = stream(seed, SAMPLE_STREAM)
    phases = len(tables)
    known = phases if labelled is None else labelled
    full = (phases, *shape)
    presence = np.zeros(full, dtype=bool)
    rim = gasket if gasket is not None and gasket < known else None
    presence[:known] = presence_map(layout, known, shape, random, rim)
    foreign = [k for k in range(known, phases) if k != gasket]
    if foreign:
        which = random.integers(0, len(foreign), shape)
        somewhere = smooth_field(shape, 1.5, random) < 0.4
        for i, k in enumerate(foreign):
            presence[k] = somewhere & (which == i)
    length = max(min(shape) / 8, 1.0)
    fields = np.stack([smooth_field(shape, length, random) for _ in range(phases)])
    # Scattering fraction log-uniform over 0.05-1, smooth in space with some scatter.
    mixed = np.clip(0.8 * fields + 0.2 * random.random(full), 0, 1)
    peak_counts = np.where(presence, counts * 0.05 ** (1 - mixed), 0.0)
    parasitic = np.zeros(full)
    if gasket is not None:
        tails = (random.random(shape) < 0.5) & ~presence[gasket]
        level = counts * 10 ** random.uniform(-2.5, -1.3, shape)
        parasitic[gasket] = np.where(tails & effects.gasket, level, 0.0)
    filled = np.where(presence, peak_counts / counts, 1.0)
    grains = filled * 10 ** (log_grains + 0.5 * random.standard_normal(full))
    isotropic = STRAIN * (2 * smooth_field(shape, length, random) - 1)
    axial = STRAIN / 3 * random.standard_normal((phases, *shape, 3))
    strain = (isotropic[..., None] + axial) * effects.strain
    lattice = np.stack([strained_cell(t.cell, s) for t, s in zip(tables, strain, strict=True)])
    measured = scan_positions(shape, fast_axis, snake)
    frame = np.empty(shape, dtype=np.int32)
    frame[measured[:, 0], measured[:, 1]] = np.arange(len(measured))
    size = 10 ** random.uniform(1.5, 2.9, full)
    microstrain = 10 ** random.uniform(-4.0, -2.7, full)
    mosaic = 10 ** random.uniform(-1.3, 0.0, full)
    march = np.exp(0.15 * random.standard_normal(full))
    fibre = np.broadcast_to(random.uniform(-180, 180, (phases, 1, 1)), full).copy()
    background = _background_map(shape, counts, random)
    monitor = _monitor(shape, frame, random)
    displacement = DISPLACEMENT * (2 * smooth_field(shape, length, random) - 1)
    background *= np.array([effects.air, 1, effects.fluid, 1, effects.compton, 1])[:, None, None]
    return SampleMap(
        tables=tuple(tables),
        labelled=known,
        presence=presence,
        peak_counts=peak_counts,
        parasitic=parasitic,
        grains=grains if effects.grains else np.full(full, np.inf),
        size=size,
        microstrain=microstrain * effects.strain,
        mosaic=mosaic,
        march=march if effects.texture else np.ones(full),
        fibre=fibre,
        lattice=lattice,
        displacement=displacement * effects.displacement,
        background=background,
        monitor=monitor if effects.drift else np.ones(shape),
        frame=frame,
    )


def _background_map(
    shape: tuple[int, int], counts: float, random: np.random.Generator
) -> NDArray[np.float64]:
    """Smooth scattering over the map in counts; amounts of air and fluid vary slowly."""

    def slowly(low: float, high: float) -> NDArray[np.float64]:
        varying: NDArray[np.float64] = low * (high / low) ** smooth_field(shape, 3.0, random)
        return varying

    return np.stack(
        [
            counts * slowly(0.3, 0.6),
            np.full(shape, random.uniform(1.4, 1.9)),
            counts * slowly(0.15, 0.8),
            slowly(0.4, 0.6),
            counts * slowly(0.08, 0.16),
            np.full(shape, random.uniform(*ANVILS)),
        ]
    )


def _monitor(
    shape: tuple[int, int], frame: NDArray[np.int32], random: np.random.Generator
) -> NDArray[np.float64]:
    """Slow drift of 1 %, decay between top-ups, and noise of 0.3 %."""
    turn = frame / max(frame.size, 1)
    drift = 0.01 * np.sin(2 * np.pi * (turn * random.uniform(0.5, 2) + random.random()))
    decay = -0.01 * (turn * 7 % 1.0)
    monitor: NDArray[np.float64] = 1 + drift + decay + 0.003 * random.standard_normal(shape)
    return monitor
