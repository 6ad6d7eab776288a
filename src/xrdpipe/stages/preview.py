"""One picture of a simulation before it is made: map, a frame, its pattern."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xrdpipe.crystal import bragg_angle, powder_intensity
from xrdpipe.errors import OutputExistsError
from xrdpipe.integration.geometry import Geometry, choose_binning
from xrdpipe.integration.reduce import FrameReducer, ReductionSettings
from xrdpipe.pictures import PhaseMarks, Preview, draw_preview
from xrdpipe.simulation.frame import expected_counts, simulate_frame
from xrdpipe.simulation.instrument import Setup
from xrdpipe.simulation.sample import SampleMap
from xrdpipe.types import BoolArray


def picture_path(folder: Path, restart: bool) -> Path:
    """Where the picture of a simulation goes: ``FOLDER.png``.

    Raises
    ------
    OutputExistsError
        Another picture lies there, and ``restart`` is off.
    """
    path = folder.with_name(f"{folder.name}.png")
    if path.exists() and not restart and b"xrdpipe" not in path.read_bytes()[:1000]:
        raise OutputExistsError(
            f"'{path}' exists and is no picture of xrdpipe; name another folder with --output, or "
            "give --restart to replace it."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_preview(
    path: Path,
    geometry: Geometry,
    setup: Setup,
    sample: SampleMap,
    mask: BoolArray,
    seed: int,
    polarization_factor: float,
) -> None:
    """Draw the map and the frame that shows most phases.

    Parameters
    ----------
    path
        PNG file.
    geometry, setup, sample
        The experiment.
    mask
        What is masked in the second of the two patterns, shape (rows, columns).
    seed
        Of the simulation.
    polarization_factor
        Of the beam.
    """
    known = sample.labelled
    row, column = _telling_pixel(sample)
    index = int(sample.frame[row, column])
    counts = simulate_frame(setup, sample, index, seed)
    reducer = FrameReducer(
        geometry,
        choose_binning(geometry, "2theta", None, None),
        ReductionSettings(
            variants=("masked", "unmasked"),
            polarization_factor=polarization_factor,
            error_model="none",
            reject="none",
            saturation=setup.saturation,
        ),
        mask=mask,
    )
    bare_setup, bare = _phases_alone(setup, sample)
    measured = reducer.reduce(counts).rows
    alone = reducer.reduce(expected_counts(bare_setup, bare, index, seed)).rows
    marks = []
    for k, table in enumerate(sample.tables):
        if sample.presence[k].any() or sample.parasitic[k].any():
            height = powder_intensity(table, setup.plane.wavelength)
            here = bool(sample.presence[k, row, column])
            angle = bragg_angle(table.d, setup.plane.wavelength)
            marks.append(PhaseMarks(table.name, angle, height, here, k < known))
    draw_preview(
        path,
        Preview(
            names=tuple(table.name for table in sample.tables[:known]),
            presence=sample.presence[:known],
            pixel=(row, column),
            frame=index,
            counts=np.where(geometry.gap_mask, np.nan, counts).astype(np.float32),
            detector=geometry.detector_name,
            wavelength=geometry.wavelength,
            two_theta=reducer.binning.centres,
            unmasked=measured["unmasked"]["I"],
            masked=measured["masked"]["I"],
            alone=alone["unmasked"]["I"],
            marks=tuple(marks),
        ),
    )


def _telling_pixel(sample: SampleMap) -> tuple[int, int]:
    """The pixel where most phases are present; of several, the one with the strongest lines."""
    known = slice(sample.labelled)
    present = sample.presence[known].sum(axis=0)
    heights: NDArray[np.float64] = sample.peak_counts[known].sum(axis=0)
    best = present + 0.9 * heights / max(float(heights.max()), 1e-9)
    row, column = np.unravel_index(int(np.argmax(best)), best.shape)
    return int(row), int(column)


def _phases_alone(setup: Setup, sample: SampleMap) -> tuple[Setup, SampleMap]:
    """The same phases as ideal powders: no background, gasket, diamonds or beamstop."""
    plain = dataclasses.replace(
        setup,
        transmission=np.ones_like(setup.transmission),
        diamonds=dataclasses.replace(setup.diamonds, counts=0 * setup.diamonds.counts),
    )
    background = sample.background.copy()
    background[[0, 2, 4]] = 0
    powder = dataclasses.replace(
        sample,
        parasitic=np.zeros_like(sample.parasitic),
        grains=np.full_like(sample.grains, np.inf),
        march=np.ones_like(sample.march),
        background=background,
    )
    return plain, powder
