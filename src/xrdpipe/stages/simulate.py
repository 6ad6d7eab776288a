"""Simulate a detector folder of a synthetic map, with the truth beside it."""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe import crystal
from xrdpipe.config import SimulateConfig
from xrdpipe.errors import InputError, OutputExistsError
from xrdpipe.frames.write import (
    FORMAT_DTYPE,
    DetectorDescription,
    open_writer,
    pixel_mask_bits,
)
from xrdpipe.integration.geometry import Geometry, load_geometry, save_poni
from xrdpipe.phases import distractor_phases, shipped_phases
from xrdpipe.stages.versions import software_versions
from xrdpipe.store.truth import Truth, write_truth
from xrdpipe.synthesis.frames2d import DetectorPlane, detector_plane
from xrdpipe.synthesis.nuisances2d import diamond_mask, with_sentinels
from xrdpipe.synthesis.scan2d import (
    SampleMap,
    Setup,
    draw_sample,
    draw_setup,
    simulate_frame,
    weight_and_strength,
)
from xrdpipe.types import BoolArray, Outcome, Phase, Progress

POLARIZATION_FACTOR = 0.99
"""Horizontally polarized beam: integration corrects for the same by default."""

SATURATION = 1_048_575
"""20-bit counter; a pixel that shows this is saturated."""

TILT = (0.010, -0.006, 0.0)
"""Rotations of the detector in radian: no real detector stands exactly square to the beam."""

DISTRACTORS = ("fluorite", "aragonite", "lanthanum-hydroxide")
"""Shipped phases that may lie where they are in no label."""

GASKET = "rhenium"
"""With distractors, this phase also gives faint gasket rings where it is absent."""

HALO_THRESHOLD = 3.0
"""Counts above which the glow of a diamond spot is masked."""

BEGUN = "simulate.part.json"
"""The record of a simulation that has not ended; renamed to ``simulate.json`` at its end."""

OUTPUTS = (
    BEGUN,
    "frames",
    "geometry.poni",
    "mask.npy",
    "diamond_spots.npy",
    "monitor.csv",
    "truth.h5",
    "simulate.json",
)


@dataclass(frozen=True)
class Experiment:
    """Everything that frame i is made of.

    Parameters
    ----------
    geometry
        From the PONI file.
    setup, sample
        What stays and what varies in the scan.
    phases
        Label set, then distractors.
    """

    geometry: Geometry
    setup: Setup
    sample: SampleMap
    phases: tuple[Phase, ...]


def run(config: SimulateConfig, progress: Progress) -> Outcome:
    """Write ``frames/``, ``geometry.poni``, masks, ``truth.h5`` and, last, ``simulate.json``.

    A folder without ``simulate.json`` was interrupted; the same command makes it anew (frames
    follow from the seed).

    Raises
    ------
    OutputExistsError
        The folder holds another simulation and ``restart`` is off, or something else.
    """
    phases = _label_phases(config)
    with tempfile.TemporaryDirectory() as scratch:
        geometry = write_geometry(
            Path(scratch) / "geometry.poni", config.detector, config.distance, config.wavelength
        )
    experiment = plan(config, geometry, phases)
    folder = config.output
    record = _record(config, experiment)
    if not _claim(folder, config.restart, record):
        return Outcome(folder, 0, f"{folder}: already done.")
    (folder / "geometry.poni").write_text(geometry.poni_text)
    setup, sample = experiment.setup, experiment.sample
    _write_truth(folder / "truth.h5", experiment)
    np.save(folder / "mask.npy", known_mask(setup).astype(np.uint8))
    spots = diamond_mask(setup.plane, setup.diamonds, HALO_THRESHOLD)
    np.save(folder / "diamond_spots.npy", spots.astype(np.uint8))
    _write_monitor(folder / "monitor.csv", sample)
    frames = sample.frame.size
    progress.start("simulate", frames)
    (folder / "frames").mkdir()
    dtype = FORMAT_DTYPE[config.format]
    description = _describe(experiment, config)
    # A detector with a pixel mask blanks its known bad pixels, too; others only the gaps.
    flagged = description.pixel_mask > 0 if config.format == "eiger" else geometry.gap_mask
    with open_writer(config.format, folder / "frames", "map", frames, description) as write:
        for index in range(frames):
            counts = simulate_frame(setup, sample, index, config.seed)
            write(with_sentinels(counts, flagged, dtype))
            progress.advance(1)
    progress.done()
    (folder / BEGUN).replace(folder / "simulate.json")
    ny, nx = sample.shape
    return Outcome(
        path=folder,
        summary=(
            f"{frames} frames ({ny} x {nx}) of {geometry.detector_name} in {folder / 'frames'}, "
            f"truth in {folder / 'truth.h5'}."
        ),
        details={"frames": frames, "phases": [phase.name for phase in phases]},
    )


def write_geometry(path: Path, detector: str, distance: float, wavelength: float) -> Geometry:
    """Write a PONI whose beam hits the middle of the detector, and load it.

    Parameters
    ----------
    path
        PONI file to write.
    detector
        pyFAI's name.
    distance
        Sample to detector, m.
    wavelength
        In Å.

    Raises
    ------
    InputError
        pyFAI does not know the detector, or it has no fixed shape.
    """
    with tempfile.TemporaryDirectory() as scratch:
        # Only a PONI tells the size of a detector, and its centre is needed to write one.
        first = Path(scratch) / "corner.poni"
        save_poni(first, detector, distance, 0.0, 0.0, wavelength)
        plain = load_geometry(first)
    half = [n * size / 2 for n, size in zip(plain.shape, plain.pixel_size, strict=True)]
    # The PONI is the foot of the perpendicular, which a tilt moves away from the beam.
    save_poni(
        path,
        detector,
        distance,
        half[0] - distance * np.tan(TILT[1]),
        half[1] + distance * np.tan(TILT[0]),
        wavelength,
        TILT,
    )
    return load_geometry(path)


def plan(config: SimulateConfig, geometry: Geometry, phases: tuple[Phase, ...]) -> Experiment:
    """Draw sample and set-up; no frame is made yet.

    Parameters
    ----------
    config
        The options.
    geometry
        From :func:`write_geometry`.
    phases
        The label set.
    """
    setup = plan_setup(geometry, config.seed)
    names = [phase.name for phase in phases]
    everything = phases
    if config.distractor:
        foreign = distractor_phases()
        everything += tuple(
            crystal.load_phase(foreign[name]) for name in DISTRACTORS if name not in names
        )
    d_min = config.wavelength / (2 * np.sin(np.radians(setup.plane.two_theta_limits[1] / 2)))
    sample = draw_sample(
        [crystal.reflections(phase, config.wavelength, d_min * 0.98) for phase in everything],
        config.scan_shape,
        config.seed,
        layout=config.layout,
        counts=config.counts,
        log_grains=config.grains,
        labelled=len(phases),
        gasket=names.index(GASKET) if config.distractor and GASKET in names else None,
        snake=config.snake,
        fast_axis=config.fast_axis,
    )
    return Experiment(geometry, setup, sample, everything)


def plan_setup(geometry: Geometry, seed: int) -> Setup:
    """Detector with its defects and the diamond spots of a seed."""
    plane: DetectorPlane = detector_plane(
        geometry.two_theta,
        geometry.chi,
        geometry.wavelength,
        solid_angle=geometry.solid_angle,
        polarization=geometry.polarization(POLARIZATION_FACTOR),
        gap_mask=geometry.gap_mask,
    )
    return draw_setup(plane, geometry.two_theta, geometry.chi, seed, saturation=SATURATION)


def known_mask(setup: Setup) -> BoolArray:
    """What a beamline would hand out as mask: gaps, beamstop, dead and hot pixels."""
    return setup.plane.gap_mask | setup.shadow | setup.bad.pixels


def _label_phases(config: SimulateConfig) -> tuple[Phase, ...]:
    paths = config.cif or tuple(shipped_phases().values())
    phases = tuple(crystal.load_phase(path) for path in paths)
    names = [phase.name for phase in phases]
    if len(set(names)) != len(names):
        raise InputError(
            f"phase names must differ, found {', '.join(names)}; rename a CIF (its file name "
            "is the phase name)."
        )
    return phases


def _claim(folder: Path, restart: bool, record: dict[str, Any]) -> bool:
    """Make an empty output folder; False if this very simulation already lies there.

    What an interrupted run of the same simulation left is removed, and with ``restart`` what any
    simulation left.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"'{folder}' is a file; give a folder with --output.")
    begun, done = folder / BEGUN, folder / "simulate.json"
    if done.is_file() and not restart and json.loads(done.read_text()) == record:
        return False
    if folder.is_dir() and any(folder.iterdir()):
        interrupted = begun.is_file() and json.loads(begun.read_text()) == record
        if not (restart or interrupted):
            raise OutputExistsError(
                f"folder '{folder}' is not empty and holds no simulation with these options; name "
                "another with --output, or give --restart to replace an earlier simulation."
            )
        foreign = sorted(p.name for p in folder.iterdir() if p.name not in OUTPUTS)
        if foreign:
            raise OutputExistsError(
                f"folder '{folder}' holds '{foreign[0]}', which no simulation wrote; it is not "
                "removed. Name another folder with --output."
            )
        for name in OUTPUTS:
            path = folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    begun.write_text(json.dumps(record, indent=2) + "\n")
    return True


def _describe(experiment: Experiment, config: SimulateConfig) -> DetectorDescription:
    geometry, bad = experiment.geometry, experiment.setup.bad
    row, column = np.unravel_index(int(np.argmin(geometry.two_theta)), geometry.shape)
    return DetectorDescription(
        name=config.detector,
        pixel_size=geometry.pixel_size,
        distance=config.distance,
        wavelength=config.wavelength,
        beam_centre=(float(column), float(row)),
        saturation=SATURATION,
        pixel_mask=pixel_mask_bits(geometry.gap_mask, bad.dead, bad.hot > 0),
    )


def _write_truth(path: Path, experiment: Experiment) -> None:
    sample = experiment.sample
    known = sample.labelled
    presence = sample.presence[:known]
    densities = [crystal.density(phase) for phase in experiment.phases]
    weight, strength = weight_and_strength(experiment.setup, sample, densities)

    def where_present(values: NDArray[np.float64]) -> NDArray[np.float32]:
        shown = presence.reshape(presence.shape + (1,) * (values.ndim - presence.ndim))
        return np.where(shown, values, np.nan).astype(np.float32)

    write_truth(
        path,
        Truth(
            phase_names=tuple(phase.name for phase in experiment.phases[:known]),
            presence=presence,
            weight_fraction=weight.astype(np.float32),
            strength=strength.astype(np.float32),
            lattice=where_present(sample.lattice[:known]),
            size=where_present(sample.size[:known]),
            extra={
                "grains": np.where(presence, sample.grains[:known], 0).astype(np.float32),
                "monitor": sample.monitor,
                "frame": sample.frame,
                "distractor": sample.peak_counts[known:].sum(axis=0).astype(np.float32),
            },
        ),
    )


def _write_monitor(path: Path, sample: SampleMap) -> None:
    """Monitor counts per frame, in the order of the frames."""
    order = np.argsort(sample.frame, axis=None)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["frame", "monitor"])
        for number, value in enumerate(sample.monitor.ravel()[order], start=1):
            writer.writerow([number, f"{1e6 * value:.0f}"])


def _record(config: SimulateConfig, experiment: Experiment) -> dict[str, Any]:
    """Resolved configuration, phases with their hashes, and versions: the key of the run."""
    options = config.resolved()
    for name in ("output", "restart"):
        del options[name]
    return {
        "configuration": options,
        "phases": {phase.name: phase.sha256 for phase in experiment.phases},
        "labelled": experiment.sample.labelled,
        "polarization_factor": POLARIZATION_FACTOR,
        "saturation": SATURATION,
        "versions": software_versions() | {"numpy": np.__version__},
    }
