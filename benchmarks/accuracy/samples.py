"""The sample of a protocol map: fractions, grains, strain and exposure drawn evenly over ranges.

The simulator draws what the protocol does not speak of (textures, widths, background shapes).
Values are log-uniform by rank, not by chance: every map holds the whole range of every quantity.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xrdpipe import crystal
from xrdpipe.errors import InputError
from xrdpipe.integration.geometry import Geometry
from xrdpipe.phases import distractor_phases, shipped_phases
from xrdpipe.simulation.effects import Effects
from xrdpipe.simulation.instrument import Setup
from xrdpipe.simulation.layouts import presence_map, smooth_field
from xrdpipe.simulation.sample import SampleMap, draw_sample, strained_cell
from xrdpipe.simulation.streams import stream
from xrdpipe.stages.simulate import (
    GASKET,
    TILT,
    Experiment,
    known_mask,
    known_spots,
    lines_seen,
    plan_setup,
    write_geometry,
)
from xrdpipe.types import BoolArray

from .protocol import MapPlan, Protocol, at_wavelength
from .visibility import Rings, powder_signal_to_noise, rings

PROTOCOL_STREAM = 9
"""Apart from the streams of the simulator."""

REFERENCE = 30.0
"""Counts per pixel at the strongest line of a phase that fills the beam, at the mean monitor: the
brightness that the spots of the anvils are meant for. Exposure is incident intensity: it scales
powder, background and spots alike, not hot pixels and zingers."""

UNKNOWN = Path(__file__).with_name("phases")


@dataclasses.dataclass(frozen=True)
class ProtocolSample:
    """An experiment with what the protocol drew; arrays are (K, ny, nx) or (ny, nx).

    Parameters
    ----------
    experiment
        Geometry, detector, sample, phases.
    rings
        Good pixels of the detector.
    fraction
        Strongest line of each labelled phase over that of the phase if it filled the beam.
    strain
        Isotropic strain of its cell.
    exposure
        Counts per pixel at the strongest line of a phase that fills the beam.
    peak_signal_to_noise
        Of the strongest labelled phase in its powder average; where there is none, of one that
        might have been there.
    fluid
        First hump of the fluid, in the units of ``fraction``.
    foreign, foreign_fraction
        Which distractor, -1 for none, and its fraction.
    missing
        Part of the 2θ range without a pixel.
    """

    experiment: Experiment
    rings: Rings
    fraction: NDArray[np.float64]
    strain: NDArray[np.float64]
    exposure: NDArray[np.float64]
    peak_signal_to_noise: NDArray[np.float64]
    fluid: NDArray[np.float64]
    foreign: NDArray[np.int64]
    foreign_fraction: NDArray[np.float64]
    missing: float


def draw_protocol_sample(
    protocol: Protocol, plan: MapPlan, exposure: NDArray[np.float64] | None = None
) -> ProtocolSample:
    """Draw one map of the protocol.

    Parameters
    ----------
    protocol, plan
        What to draw.
    exposure
        Shape (ny, nx), for the sample of another map at another wavelength: the exposure there.
    """
    difficulty = protocol.tables["difficulty"]
    setup, geometry = _detector(protocol, plan)
    # The gasket's phase is in the label set; elsewhere its rings would be an unlabelled phase.
    paths = shipped_phases() | distractor_phases() | {p.stem: p for p in UNKNOWN.glob("*.cif")}
    phases = tuple(
        crystal.load_phase(paths[name]) for name in (*protocol.labels, *plan.distractors)
    )
    tables = [lines_seen(phase, setup) for phase in phases]
    if None in tables:
        raise InputError(
            f"map {plan.name}: the detector sees no line of {phases[tables.index(None)].name}; "
            "give its set another distance."
        )
    known, shape = len(protocol.labels), plan.shape
    base = draw_sample(
        [table for table in tables if table is not None],
        shape,
        plan.seed,
        counts=REFERENCE,
        labelled=known,
    )
    random = stream(plan.seed, PROTOCOL_STREAM)
    presence = np.zeros_like(base.presence)
    presence[:known] = _labels(protocol, plan, random)
    foreign = np.where(
        smooth_field(shape, 1.5, random) < difficulty["distractor"],
        random.integers(0, len(plan.distractors), shape),
        -1,
    )
    presence[known:] = foreign == np.arange(len(plan.distractors))[:, None, None]
    fraction = np.stack([_log_uniform(p, random, difficulty["fraction"]) for p in presence])
    grains = np.stack([_log_uniform(p, random, difficulty["grains"]) for p in presence])
    strain, lattice = _strain(base, difficulty["strain"], difficulty["axial_strain"], random)
    fluid = smooth_field(shape, 2.0, random) < difficulty["fluid"]
    background = base.background.copy()
    background[2] = np.where(fluid, base.background[2], 0.0)
    parasitic = np.zeros_like(fraction)
    if GASKET in protocol.labels:
        k = protocol.labels.index(GASKET)
        rim = (random.random(shape) < difficulty["gasket"]) & ~presence[k]
        parasitic[k] = REFERENCE * _log_uniform(rim, random, difficulty["gasket_fraction"])
    sample = dataclasses.replace(
        base,
        presence=presence,
        peak_counts=REFERENCE * fraction,
        parasitic=parasitic,
        grains=grains,
        lattice=lattice,
        background=background,
    )
    # One more phase where there is none, for the exposure alone.
    everywhere = np.ones(shape, dtype=bool)
    might = random.integers(0, known, shape) == np.arange(len(phases))[:, None, None]
    might &= ~presence[:known].any(axis=0)
    supposed = might * REFERENCE * _log_uniform(everywhere, random, difficulty["fraction"])
    wanted = _log_uniform(everywhere, random, difficulty["peak_signal_to_noise"])
    good = rings(setup, known_mask(setup) | known_spots(setup))
    trial = dataclasses.replace(sample, peak_counts=sample.peak_counts + supposed)
    reached = np.empty(shape)
    for row, column in np.ndindex(*shape):
        reached[row, column] = powder_signal_to_noise(setup, trial, good, row, column)
    if exposure is None:
        exposure = np.minimum(REFERENCE * (wanted / reached) ** 2, difficulty["exposure"])
    sample = dataclasses.replace(sample, monitor=base.monitor * exposure / REFERENCE)
    return ProtocolSample(
        experiment=Experiment(geometry, setup, sample, phases),
        rings=good,
        fraction=fraction[:known],
        strain=np.where(presence, strain, 0)[:known],
        exposure=exposure,
        peak_signal_to_noise=reached * np.sqrt(exposure / REFERENCE),
        fluid=background[2] / REFERENCE,
        foreign=foreign,
        foreign_fraction=fraction[known:].max(axis=0),
        missing=_missing(protocol, plan, good),
    )


def _detector(protocol: Protocol, plan: MapPlan) -> tuple[Setup, Geometry]:
    """The detector of a map, its blind range taken out like a gap."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "geometry.poni"
        geometry = write_geometry(path, plan.detector, plan.distance, plan.wavelength, TILT)
    if plan.blind is not None:
        low, high = (at_wavelength(x, protocol.wavelength, plan.wavelength) for x in plan.blind)
        blind = (geometry.two_theta > low) & (geometry.two_theta < high)
        geometry = dataclasses.replace(geometry, gap_mask=geometry.gap_mask | blind)
    off = () if plan.anvils else ("diamonds",)
    return plan_setup(geometry, plan.seed, effects=Effects.without(off)), geometry


def _labels(protocol: Protocol, plan: MapPlan, random: np.random.Generator) -> BoolArray:
    """Presence of the label set, shape (K, ny, nx)."""
    known = len(protocol.labels)
    if plan.labels == "independent":
        return presence_map("independent", known, plan.shape, random)
    if plan.labels == "none":
        return np.zeros((known, *plan.shape), dtype=bool)
    counts = protocol.tables["co-occurrence"]
    names = random.permutation(sorted(counts))
    share = np.cumsum([counts[name] for name in names]) / sum(counts.values())
    # Zones of a smooth field, as large as the counts say.
    zone = np.searchsorted(share, smooth_field(plan.shape, max(min(plan.shape) / 8, 1.0), random))
    held = np.array([[letter == "1" for letter in name] for name in names])
    return np.moveaxis(held[zone], -1, 0)


def _log_uniform(
    where: BoolArray, random: np.random.Generator, limits: Sequence[float]
) -> NDArray[np.float64]:
    """Values log-uniform over ``limits`` by their ranks where wanted, 0 elsewhere; smooth in space.

    Parameters
    ----------
    where
        Shape (ny, nx).
    """
    low, high = limits
    # Half patches, half from pixel to pixel: neighbours are alike, not the same.
    field = smooth_field(where.shape, max(min(where.shape) / 8, 1.0), random)
    field = (field + random.random(where.shape))[where]
    rank = (np.argsort(np.argsort(field)) + random.random(field.size)) / max(field.size, 1)
    values = np.zeros(where.shape)
    values[where] = low * (high / low) ** rank
    return values


def _strain(
    sample: SampleMap, isotropic: float, axial: float, random: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Isotropic strain of every phase and pixel, uniform, and the strained cells."""
    phases, ny, nx = sample.presence.shape
    length = max(min(ny, nx) / 8, 1.0)
    field = np.stack([smooth_field((ny, nx), length, random) for _ in range(phases)])
    strain = isotropic * (2 * field - 1)
    axes = strain[..., None] + axial * random.uniform(-1, 1, (phases, ny, nx, 3))
    cells = [strained_cell(t.cell, a) for t, a in zip(sample.tables, axes, strict=True)]
    return strain, np.stack(cells)


def _missing(protocol: Protocol, plan: MapPlan, good: Rings) -> float:
    """Part of the protocol's 2θ range that no good pixel sees."""
    low, high = (at_wavelength(x, protocol.wavelength, plan.wavelength) for x in protocol.two_theta)
    grid = np.linspace(low, high, 1000)
    place = np.floor(grid / good.pitch).astype(int)
    seen = np.append(good.effective, 0.0)[np.minimum(place, len(good.effective))] > 0
    return float(1 - seen.mean())
