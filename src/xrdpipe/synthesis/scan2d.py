"""A synthetic raster scan: the sample with its truth, the set-up, and frame number i.

Random numbers are counter-based: the sample, the set-up and each frame have streams of their
own derived from the seed, so frame i is the same in whatever order and process it is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.crystal import Cell, ReflectionTable
from xrdpipe.scan import scan_positions
from xrdpipe.synthesis.frames2d import (
    Beam,
    DetectorPlane,
    IlluminatedPhase,
    lines_on_detector,
    render_phases,
    strongest_over_background,
)
from xrdpipe.synthesis.layouts import presence_map, smooth_field
from xrdpipe.synthesis.nuisances2d import (
    Background,
    BadPixels,
    Beamstop,
    DiamondSpots,
    background_profile,
    beamstop_mask,
    beamstop_transmission,
    draw_bad_pixels,
    draw_diamond_spots,
    expose,
    render_diamond_spots,
)
from xrdpipe.types import BoolArray, FloatArray

SAMPLE_STREAM, SETUP_STREAM, FRAME_STREAM = 0, 1, 2

GASKET_GRAINS = 1e8
"""The gasket, hit by the tails of the beam, is fine-grained: its rings are smooth."""


def stream(seed: int, *key: int) -> np.random.Generator:
    """Random numbers of one purpose: the same for a seed and key, independent otherwise."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))


@dataclass(frozen=True)
class Setup:
    """What stays the same through a scan.

    Parameters
    ----------
    plane
        The detector.
    beam
        Widths that the beam adds.
    transmission
        Beamstop shadow, shape (rows, columns).
    shadow
        True where the beamstop or its arm takes more than 2 %.
    bad
        Dead and hot pixels.
    diamonds
        Spots of the anvils.
    saturation
        Largest value of the counter.
    """

    plane: DetectorPlane
    beam: Beam
    transmission: NDArray[np.float32]
    shadow: BoolArray
    bad: BadPixels
    diamonds: DiamondSpots
    saturation: int


def draw_setup(
    plane: DetectorPlane,
    two_theta: FloatArray,
    chi: FloatArray,
    seed: int,
    *,
    saturation: int,
    beam: Beam | None = None,
    beamstop: Beamstop | None = None,
) -> Setup:
    """Draw bad pixels and diamond spots, which depend on the seed and the detector only.

    Parameters
    ----------
    plane
        The detector.
    two_theta, chi
        Shape (rows, columns), degrees.
    seed
        Of the simulation.
    saturation
        Largest value of the counter.
    beam, beamstop
        Other than the usual ones.
    """
    stop = beamstop or Beamstop()
    random = stream(seed, SETUP_STREAM)
    return Setup(
        plane=plane,
        beam=beam or Beam(),
        transmission=beamstop_transmission(two_theta, chi, stop),
        shadow=beamstop_mask(two_theta, chi, stop),
        bad=draw_bad_pixels(plane, random),
        diamonds=draw_diamond_spots(plane, random),
        saturation=saturation,
    )


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
        As in :class:`~xrdpipe.synthesis.frames2d.IlluminatedPhase`; all phases.
    lattice
        Shape (all phases, ny, nx, 6), strained cells, Å and degrees.
    background
        Shape (5, ny, nx), the fields of Background.
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
                        )
                    )
        return phases

    def background_at(self, row: int, column: int) -> Background:
        """Smooth scattering at one pixel, per unit monitor."""
        return Background(*(float(value) for value in self.background[:, row, column]))


def _as_cell(numbers: FloatArray) -> Cell:
    a, b, c, alpha, beta, gamma = (float(number) for number in numbers)
    return a, b, c, alpha, beta, gamma


def strained_cell(cell: Cell, strain_a: float, strain_b: float, strain_c: float) -> Cell:
    """The cell with its axes strained; axes of equal length are tied to the first of them."""
    a, b, c, alpha, beta, gamma = cell
    if abs(b - a) < 1e-6 * a:
        strain_b = strain_a
    if abs(c - a) < 1e-6 * a:
        strain_c = strain_a
    return a * (1 + strain_a), b * (1 + strain_b), c * (1 + strain_c), alpha, beta, gamma


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
        See :func:`~xrdpipe.synthesis.layouts.presence_map`.
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
        pixels that do not hold it.
    snake, fast_axis
        How the scan runs.
    """
    random = stream(seed, SAMPLE_STREAM)
    phases = len(tables)
    known = phases if labelled is None else labelled
    full = (phases, *shape)
    presence = np.zeros(full, dtype=bool)
    presence[:known] = presence_map(layout, known, shape, random)
    if phases > known:
        which = random.integers(known, phases, shape)
        foreign = smooth_field(shape, 1.5, random) < 0.4
        for k in range(known, phases):
            presence[k] = foreign & (which == k)
    length = max(min(shape) / 8, 1.0)
    fields = np.stack([smooth_field(shape, length, random) for _ in range(phases)])
    # Scattering fraction log-uniform over 0.05-1, smooth in space with some scatter.
    mixed = np.clip(0.8 * fields + 0.2 * random.random(full), 0, 1)
    peak_counts = np.where(presence, counts * 0.05 ** (1 - mixed), 0.0)
    parasitic = np.zeros(full)
    if gasket is not None:
        tails = (random.random(shape) < 0.5) & ~presence[gasket]
        level = counts * 10 ** random.uniform(-2.5, -1.3, shape)
        parasitic[gasket] = np.where(tails, level, 0.0)
    filled = np.where(presence, peak_counts / counts, 1.0)
    grains = filled * 10 ** (log_grains + 0.5 * random.standard_normal(full))
    lattice = np.empty((*full, 6))
    iso = 0.003 * (2 * smooth_field(shape, length, random) - 1)
    for k, table in enumerate(tables):
        axial = 0.001 * random.standard_normal((3, *shape))
        for pixel in np.ndindex(shape):
            strain = iso[pixel] + axial[(slice(None), *pixel)]
            lattice[(k, *pixel)] = strained_cell(table.cell, *(float(s) for s in strain))
    measured = scan_positions(shape, fast_axis, snake)
    frame = np.empty(shape, dtype=np.int32)
    frame[measured[:, 0], measured[:, 1]] = np.arange(len(measured))
    return SampleMap(
        tables=tuple(tables),
        labelled=known,
        presence=presence,
        peak_counts=peak_counts,
        parasitic=parasitic,
        grains=grains,
        size=10 ** random.uniform(1.5, 2.9, full),
        microstrain=10 ** random.uniform(-4.0, -2.7, full),
        mosaic=10 ** random.uniform(-1.3, 0.0, full),
        march=np.exp(0.15 * random.standard_normal(full)),
        fibre=np.broadcast_to(random.uniform(-180, 180, (phases, 1, 1)), full).copy(),
        lattice=lattice,
        background=_background_map(shape, counts, random),
        monitor=_monitor(shape, frame, random),
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


def weight_and_strength(
    setup: Setup, sample: SampleMap, densities: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight fractions and strengths of the label set, from the lines as they are rendered.

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
                # The scale is that of m|F|²/V², so it is proportional to the phase's volume.
                mass[k, row, column] = lines.scale * densities[k]
            if k < sample.labelled:
                strength[k, row, column] = strongest_over_background(setup.plane, lines, background)
    total = mass.sum(axis=0)
    return mass[: sample.labelled] / np.where(total > 0, total, 1), strength


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
    image = render_phases(
        plane,
        sample.illuminated(row, column),
        setup.beam,
        stream(seed, FRAME_STREAM, index, 0),
        smooth * monitor,
    )
    if diamonds:
        progress = index / max(sample.frame.size - 1, 1)
        image += monitor * render_diamond_spots(plane, setup.diamonds, progress)
    return image * setup.transmission * plane.efficiency


def simulate_frame(setup: Setup, sample: SampleMap, index: int, seed: int) -> NDArray[np.int64]:
    """Measured counts of frame ``index``, shape (rows, columns); gaps hold 0."""
    return expose(
        expected_counts(setup, sample, index, seed),
        setup.plane,
        setup.bad,
        stream(seed, FRAME_STREAM, index, 1),
        saturation=setup.saturation,
    )
