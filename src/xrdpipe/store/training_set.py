"""A set of synthetic patterns with everything that is known about them (HDF5)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from xrdpipe import __version__
from xrdpipe.store.nexus import (
    entry_uuid,
    fixed_strings,
    new_group,
    new_root,
    now,
    put,
    put_key,
    rows_dataset,
)
from xrdpipe.store.writing import whole_hdf5
from xrdpipe.types import Grid

KEY_PATH = "entry/process/run_key"

PATTERNS = {
    "masked": "intensity without bright spots, counts per pixel; NaN where there is no data",
    "unmasked": "intensity with bright spots and hot pixels",
    "spottiness": "intensity that masking takes out",
    "coverage": "fraction of the ring that is seen, 0-1",
}

TARGETS = {
    "presence_masked": "1 present, 0 absent, -1 present but below the detection limit",
    "presence_unmasked": "the same for the unmasked version",
    "strength_masked": "matched-filter signal to noise of the phase",
    "strength_unmasked": "the same for the unmasked version",
    "present": "1 where the phase is there",
    "scattering": "height of the strongest ideal line, relative; 0 = absent",
    "weight": "weight fraction of all crystalline matter in the beam, unlabelled phases included",
    "lattice": "a, b, c in angstrom, alpha, beta, gamma in degrees; NaN where absent",
    "size": "crystallite size in nm; NaN where absent",
    "microstrain": "relative spread of d; NaN where absent",
    "grains": "number of grains in the beam; NaN where absent",
    "march": "March-Dollase coefficient; NaN where absent",
}

DRAWN = "drawn_"
"""Blocks hold what was drawn for a pattern as a whole under names with this start."""


@dataclass(frozen=True)
class TrainingSet:
    """What a set of patterns is made of.

    Parameters
    ----------
    phase_names
        In class order.
    grid
        2θ axis and wavelength.
    number
        Patterns.
    config, key
        The resolved configuration and the run's key (decision 21).
    """

    phase_names: tuple[str, ...]
    grid: Grid
    number: int
    config: Mapping[str, Any]
    key: Mapping[str, Any]


def write_training_set(
    path: Path, about: TrainingSet, blocks: Iterable[Mapping[str, NDArray[Any]]]
) -> None:
    """Write patterns block by block; complete or not at all.

    Parameters
    ----------
    path
        HDF5 file to write.
    about
        What the set is made of.
    blocks
        Arrays by the names of PATTERNS and TARGETS, and of what was drawn, one row per pattern, in
        order.
    """
    with whole_hdf5(path) as file:
        new_root(file)
        entry = new_group(file, "entry", "NXentry", default="data")
        put(entry, "entry_identifier_uuid", entry_uuid(dict(about.key)))
        _describe(entry, about)
        data = new_group(
            entry, "data", "NXdata", signal="masked", axes=[".", "two_theta"]
        )  # fmt: skip
        data.attrs["auxiliary_signals"] = ["unmasked", "spottiness", "coverage"]
        put(data, "two_theta", about.grid.two_theta, units="degrees")
        for name, meaning in PATTERNS.items():
            rows_dataset(data, name, about.number, about.grid.size, long_name=meaning)
        targets = new_group(entry, "targets", "NXcollection")
        put(targets, "phase_names", fixed_strings(list(about.phase_names)))
        drawn = new_group(entry, "drawn", "NXcollection")
        _fill(data, targets, drawn, about.number, blocks)


def _fill(
    data: h5py.Group,
    targets: h5py.Group,
    drawn: h5py.Group,
    number: int,
    blocks: Iterable[Mapping[str, NDArray[Any]]],
) -> None:
    first = 0
    for block in blocks:
        rows = slice(first, first + len(block["masked"]))
        for name in PATTERNS:
            data[name][rows] = block[name]
        for name, meaning in TARGETS.items():
            values = np.asarray(block[name])
            values = values.astype(np.int8 if values.dtype.kind in "bi" else np.float32)
            if name not in targets:
                targets.create_dataset(name, (number, *values.shape[1:]), values.dtype)
                targets[name].attrs["long_name"] = meaning
            targets[name][rows] = values
        for name in block:
            if name.startswith(DRAWN):
                place = name.removeprefix(DRAWN)
                if place not in drawn:
                    drawn.create_dataset(place, (number,), np.float32)
                drawn[place][rows] = block[name]
        first = rows.stop


def _describe(entry: h5py.Group, about: TrainingSet) -> None:
    instrument = new_group(entry, "instrument", "NXinstrument")
    monochromator = new_group(instrument, "monochromator", "NXmonochromator")
    put(monochromator, "wavelength", about.grid.wavelength, units="angstrom")
    process = new_group(entry, "process", "NXprocess")
    put(process, "program", "xrdpipe synthesize")
    put(process, "version", __version__)
    put(process, "date", now())
    put_key(process, about.key)
    put(process, "config_json", json.dumps(dict(about.config), sort_keys=True))
