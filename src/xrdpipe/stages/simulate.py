"""Simulate a detector folder of a synthetic map, with the truth beside it."""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe import crystal
from xrdpipe.config import SimulateConfig
from xrdpipe.cores import usable_cores
from xrdpipe.errors import InputError, OutputExistsError
from xrdpipe.frames.write import (
    FORMAT_DTYPE,
    PIXEL_MASK_FORMATS,
    DetectorDescription,
    ScanDescription,
    open_writer,
    pixel_mask_bits,
    stored_order,
)
from xrdpipe.integration.geometry import Geometry, load_geometry, save_poni
from xrdpipe.phases import distractor_phases, shipped_phases
from xrdpipe.simulation.counting import with_sentinels
from xrdpipe.simulation.diamonds import diamond_mask
from xrdpipe.simulation.effects import EVERY_EFFECT, Effects
from xrdpipe.simulation.frame import simulate_frame
from xrdpipe.simulation.instrument import Setup, draw_setup
from xrdpipe.simulation.plane import detector_plane
from xrdpipe.simulation.sample import SampleMap, draw_sample
from xrdpipe.simulation.truth import weight_and_strength
from xrdpipe.stages.preview import picture_path, write_preview
from xrdpipe.stages.versions import software_versions
from xrdpipe.store.truth import Truth, write_truth
from xrdpipe.types import BoolArray, IntArray, Outcome, Phase, Progress

DETECTOR, DISTANCE, WAVELENGTH = "Pilatus300k", 0.10, 0.4959
"""Where no option says otherwise: distance in m, wavelength in Å (25 keV)."""

POLARIZATION_FACTOR = 0.99
"""Horizontally polarized beam: integration corrects for the same by default."""

SATURATION = 1_048_575
"""20-bit counter; a pixel that shows this is saturated."""

TILT = (0.010, -0.006, 0.0)
"""Rotations of the detector in radian: no real detector stands exactly square to the beam."""

DISTRACTORS = ("fluorite", "aragonite", "lanthanum-hydroxide")
"""Shipped phases that may lie where they are in no label."""

GASKET = "rhenium"
"""Gives faint gasket rings where it is absent; a distractor where it is in no label."""

HALO_THRESHOLD = 3.0
"""Counts above which the glow of a diamond spot is masked."""

MONITOR_COUNTS = 1e6
"""Mean of the beam monitor."""

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
    follow from the seed). With ``preview``, one picture is written beside the folder instead.

    Raises
    ------
    InputError
        A phase has no line on the detector, or two have one name.
    OutputExistsError
        The folder holds another simulation and ``restart`` is off, or something else.
    """
    phases = label_phases(config)
    for phase in phases if config.cif else ():
        for oddity in crystal.oddities(phase):
            progress.note(oddity)
    geometry = geometry_of(config)
    experiment = plan(config, geometry, phases)
    setup, sample = experiment.setup, experiment.sample
    if config.preview:
        path = picture_path(config.output, config.restart)
        mask = known_mask(setup) | known_spots(setup)
        write_preview(path, geometry, setup, sample, mask, config.seed, POLARIZATION_FACTOR)
        return Outcome(path, summary=f"{path}: what would be simulated.")
    folder = config.output
    record = record_of(config, experiment)
    if not _claim(folder, config.restart, record):
        return Outcome.already_done(folder)
    write_scan(folder, config, experiment, progress)
    (folder / BEGUN).replace(folder / "simulate.json")
    ny, nx = sample.shape
    frames = sample.frame.size
    return Outcome(
        path=folder,
        summary=(
            f"{frames} frames ({ny} x {nx}) of {geometry.detector_name} in {folder / 'frames'}, "
            f"truth in {folder / 'truth.h5'}."
        ),
        details={"frames": frames, "phases": [phase.name for phase in phases]},
    )


def write_scan(
    folder: Path, config: SimulateConfig, experiment: Experiment, progress: Progress
) -> None:
    """Write frames, geometry, masks, monitor and truth of an experiment into a folder.

    Parameters
    ----------
    folder
        Exists, and holds none of these files.
    config
        Seed, layout of the files, order of the scan and threads; the rest is in ``experiment``.
    experiment
        From :func:`plan`.
    progress
        Counts frames.
    """
    geometry, setup, sample = experiment.geometry, experiment.setup, experiment.sample
    (folder / "geometry.poni").write_text(geometry.poni_text)
    monitor = np.round(MONITOR_COUNTS * sample.monitor.ravel()[np.argsort(sample.frame, axis=None)])
    scan = ScanDescription.regular(
        sample.shape, monitor=monitor, fast_axis=config.fast_axis, snake=config.snake
    )
    stored = stored_order(config.format, scan)
    write_truth(folder / "truth.h5", truth_of(experiment, np.argsort(stored)[sample.frame]))
    np.save(folder / "mask.npy", known_mask(setup).astype(np.uint8))
    np.save(folder / "diamond_spots.npy", known_spots(setup).astype(np.uint8))
    _write_monitor(folder / "monitor.csv", monitor[stored])
    frames = sample.frame.size
    progress.start("simulate", frames)
    (folder / "frames").mkdir()
    dtype = FORMAT_DTYPE[config.format]
    description = _describe(experiment, config)
    # A detector with a pixel mask blanks its known bad pixels, too; others only the gaps.
    masked = config.format in PIXEL_MASK_FORMATS
    flagged = description.pixel_mask > 0 if masked else geometry.gap_mask
    with open_writer(config.format, folder / "frames", "map", frames, description, scan) as write:
        for counts in _frames(experiment, config):
            write(with_sentinels(counts, flagged, dtype))
            progress.advance(1)
    progress.done()


def _frames(experiment: Experiment, config: SimulateConfig) -> Iterator[NDArray[np.int64]]:
    """Frames in the order of measurement, made in threads; memory holds two per thread."""
    setup, sample = experiment.setup, experiment.sample
    threads = config.threads or usable_cores()
    with ThreadPoolExecutor(threads) as pool:
        queue: deque[Future[NDArray[np.int64]]] = deque()
        for index in range(sample.frame.size):
            queue.append(pool.submit(simulate_frame, setup, sample, index, config.seed))
            if len(queue) >= 2 * threads:
                yield queue.popleft().result()
        while queue:
            yield queue.popleft().result()


def geometry_of(config: SimulateConfig) -> Geometry:
    """The user's geometry, or a new one."""
    if config.poni is not None:
        geometry = load_geometry(config.poni, needs_wavelength=False)
        if not np.isfinite(geometry.wavelength):
            raise InputError(
                f"{config.poni} has no wavelength, which a simulation takes from it; add a line "
                "'Wavelength: <metres>'."
            )
        if not geometry.file_format.startswith("PONI"):
            raise InputError(
                f"{config.poni} is a {geometry.file_format} file; simulate needs a PONI file."
            )
        return geometry
    tilt = TILT if config.tilt is None else tuple(np.radians(config.tilt).tolist())
    with tempfile.TemporaryDirectory() as scratch:
        return write_geometry(
            Path(scratch) / "geometry.poni",
            config.detector or DETECTOR,
            config.distance or DISTANCE,
            config.wavelength or WAVELENGTH,
            tilt,
        )


def write_geometry(
    path: Path,
    detector: str,
    distance: float,
    wavelength: float,
    tilt: tuple[float, float, float] = TILT,
) -> Geometry:
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
    tilt
        Rotations rot1, rot2, rot3 of the detector, radian.

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
        half[0] - distance * np.tan(tilt[1]) / np.cos(tilt[0]),
        half[1] + distance * np.tan(tilt[0]),
        wavelength,
        tilt,
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

    Raises
    ------
    InputError
        A phase of the label set has no line on the detector.
    """
    effects = Effects.without(config.without)
    setup = plan_setup(geometry, config.seed, _saturation(config), effects)
    tables = [lines_seen(phase, setup) for phase in phases]
    unseen = [phase for phase, table in zip(phases, tables, strict=True) if table is None]
    if unseen:
        low, high = setup.plane.two_theta_limits
        raise InputError(
            f"phase '{unseen[0].name}' has no line between {low:.1f} and {high:.1f} degrees at "
            f"{geometry.wavelength:g} Å, all that the detector sees; give another --distance, "
            "--wavelength or --detector, or leave the phase out."
        )
    names = [phase.name for phase in phases]
    everything = list(phases)
    if config.distractor:
        foreign = distractor_phases() | shipped_phases()
        for name in (*DISTRACTORS, GASKET):
            if name not in names:
                phase = crystal.load_phase(foreign[name])
                table = lines_seen(phase, setup)
                if table is not None:
                    everything.append(phase)
                    tables.append(table)
    named = [phase.name for phase in everything]
    sample = draw_sample(
        [table for table in tables if table is not None],
        config.scan_shape,
        config.seed,
        layout=config.layout,
        counts=config.counts,
        log_grains=config.grains,
        labelled=len(phases),
        gasket=named.index(GASKET) if GASKET in named else None,
        snake=config.snake,
        fast_axis=config.fast_axis,
        effects=effects,
    )
    return Experiment(geometry, setup, sample, tuple(everything))


def lines_seen(phase: Phase, setup: Setup) -> crystal.ReflectionTable | None:
    """Lines of a phase as far as the detector reaches; None if it sees none."""
    plane = setup.plane
    low, high = plane.two_theta_limits
    # Strain and displacement may bring in lines that lie a little outside; a phase has lines
    # down to 1 Å, so that a table is never empty.
    d_min = min(0.98 * plane.wavelength / (2 * np.sin(np.radians(high / 2))), 1.0)
    table = crystal.reflections(phase, plane.wavelength, float(d_min))
    on_detector = (table.two_theta > low) & (table.two_theta < high)
    return table if on_detector.any() else None


def plan_setup(
    geometry: Geometry,
    seed: int,
    saturation: int = SATURATION,
    effects: Effects = EVERY_EFFECT,
) -> Setup:
    """Detector with its defects and the diamond spots of a seed.

    Parameters
    ----------
    geometry
        Of the detector.
    seed
        Of the simulation.
    saturation
        Largest value of the counter.
    effects
        What is on.
    """
    # pyFAI's relative solid angle is (distance / path)³; the path along the beam follows.
    path = geometry.distance / np.cbrt(geometry.solid_angle.astype(float))
    along_beam = float(np.median(path * np.cos(np.radians(geometry.two_theta))))
    plane = detector_plane(
        geometry.two_theta,
        geometry.chi,
        geometry.wavelength,
        along_beam,
        solid_angle=geometry.solid_angle,
        polarization=geometry.polarization(POLARIZATION_FACTOR),
        gap_mask=geometry.gap_mask,
    )
    return draw_setup(
        plane, geometry.two_theta, geometry.chi, seed, saturation=saturation, effects=effects
    )


def _saturation(config: SimulateConfig) -> int:
    """Largest value of the counter; the largest of the file's type is a sentinel."""
    return min(SATURATION, int(np.iinfo(FORMAT_DTYPE[config.format]).max) - 1)


def known_mask(setup: Setup) -> BoolArray:
    """What a beamline would hand out as mask: gaps, beamstop, dead and hot pixels."""
    return setup.plane.gap_mask | setup.shadow | setup.bad.pixels


def known_spots(setup: Setup) -> BoolArray:
    """Diamond spots with their halos, wherever they drift."""
    return diamond_mask(setup.plane, setup.diamonds, HALO_THRESHOLD)


def label_phases(config: SimulateConfig) -> tuple[Phase, ...]:
    """The phases of the CIF files, or the shipped ones."""
    paths = config.cif or tuple(shipped_phases().values())
    phases = tuple(crystal.load_phase(path) for path in paths)
    names = [phase.name for phase in phases]
    if len(set(names)) != len(names):
        raise InputError(
            f"phase names must differ, found {', '.join(names)}; rename a CIF (its file name "
            "is the phase name)."
        )
    return phases


def simulated_before(folder: Path, restart: bool, record: dict[str, Any]) -> bool:
    """True if this very simulation already lies in the folder; nothing is changed.

    Raises
    ------
    OutputExistsError
        If it holds anything that must not be removed.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"'{folder}' is a file; give a folder with --output.")
    begun, done = folder / BEGUN, folder / "simulate.json"
    if done.is_file() and not restart and json.loads(done.read_text()) == record:
        return True
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
    return False


def _claim(folder: Path, restart: bool, record: dict[str, Any]) -> bool:
    """Make an empty output folder; False if this very simulation already lies there.

    What an interrupted run of the same simulation left is removed, and with ``restart`` what any
    simulation left.
    """
    if simulated_before(folder, restart, record):
        return False
    if folder.is_dir():
        for name in OUTPUTS:
            path = folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / BEGUN).write_text(json.dumps(record, indent=2) + "\n")
    return True


def _describe(experiment: Experiment, config: SimulateConfig) -> DetectorDescription:
    geometry, bad = experiment.geometry, experiment.setup.bad
    row, column = np.unravel_index(int(np.argmin(geometry.two_theta)), geometry.shape)
    return DetectorDescription(
        name=config.detector or geometry.detector_name,
        pixel_size=geometry.pixel_size,
        distance=geometry.distance,
        wavelength=geometry.wavelength,
        beam_centre=(float(column), float(row)),
        saturation=_saturation(config),
        pixel_mask=pixel_mask_bits(geometry.gap_mask, bad.dead, bad.hot > 0),
    )


def truth_of(experiment: Experiment, frame: IntArray) -> Truth:
    """What is where in an experiment.

    Parameters
    ----------
    experiment
        From :func:`plan`.
    frame
        Number in the files of the frame measured at each pixel, shape (ny, nx).
    """
    sample = experiment.sample
    known = sample.labelled
    presence = sample.presence[:known]
    densities = [crystal.density(phase) for phase in experiment.phases]
    weight, strength = weight_and_strength(experiment.setup, sample, densities)

    def where_present(values: NDArray[np.float64]) -> NDArray[np.float32]:
        shown = presence.reshape(presence.shape + (1,) * (values.ndim - presence.ndim))
        return np.where(shown, values, np.nan).astype(np.float32)

    return Truth(
        phase_names=tuple(phase.name for phase in experiment.phases[:known]),
        presence=presence,
        weight_fraction=weight.astype(np.float32),
        strength=strength.astype(np.float32),
        lattice=where_present(sample.lattice[:known]),
        size=where_present(sample.size[:known]),
        extra={
            "grains": np.where(presence, sample.grains[:known], 0).astype(np.float32),
            "monitor": sample.monitor,
            "frame": frame.astype(np.int32),
            "displacement": sample.displacement.astype(np.float32),
            "distractor": sample.peak_counts[known:].sum(axis=0).astype(np.float32),
        },
    )


def _write_monitor(path: Path, monitor: NDArray[np.float64]) -> None:
    """Monitor counts per frame, in the order of the files."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["frame", "monitor"])
        for number, value in enumerate(monitor, start=1):
            writer.writerow([number, f"{value:.0f}"])


def record_of(config: SimulateConfig, experiment: Experiment) -> dict[str, Any]:
    """Resolved configuration, phases with their hashes, and versions: the key of the run."""
    options = config.recorded()
    del options["preview"]
    return {
        "configuration": options,
        "poni_sha256": experiment.geometry.poni_sha256,
        "phases": {phase.name: phase.sha256 for phase in experiment.phases},
        "labelled": experiment.sample.labelled,
        "polarization_factor": POLARIZATION_FACTOR,
        "saturation": experiment.setup.saturation,
        "versions": software_versions() | {"numpy": np.__version__},
    }
