"""The truth file of a simulated map: what is where, known exactly (HDF5)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import InputError, InputMissingError
from xrdpipe.store.nexus import say_pipeline
from xrdpipe.store.writing import whole_hdf5
from xrdpipe.types import BoolArray

TRUTH = "/entry/truth"

_UNITS = {"lattice": "angstrom, degrees", "size": "nm", "displacement": "um"}

_MEANING = {
    "presence": "1 where the phase has a fraction above 0 in the illuminated volume",
    "weight_fraction": "of all crystalline matter in the beam, unlabelled phases included",
    "strength": "strongest line over local background in the noise-free powder average; "
    "above 0 without presence: a parasitic line of that phase (gasket)",
    "lattice": "a, b, c, alpha, beta, gamma; NaN where absent",
    "size": "coherent domain size; NaN where absent",
    "grains": "number of grains in the beam; 0 where absent",
    "monitor": "incident intensity relative to the mean",
    "frame": "number in the files of the frame measured here, from 0",
    "displacement": "sample out of the calibrated plane, along the beam towards the detector",
    "distractor": "strongest counts per pixel of a phase outside the label set",
    "fraction": "strongest line over that of the phase if it filled the beam; 0 where absent",
    "signal_to_noise": "largest height of the phase in the azimuthal mean of the noise-free frame "
    "over the counting noise there, of rings one pixel wide",
    "peak_signal_to_noise": "the same for the strongest labelled phase and its powder average",
    "exposure": "counts per pixel at the strongest line of a phase that fills the beam",
    "strain": "isotropic strain of the cell",
    "fluid": "height of the first hump of the fluid over the strongest line of a phase that fills "
    "the beam",
    "saturated": "number of good pixels at the largest value of the counter",
    "missing": "part of the 2theta range of interest without a pixel",
    "foreign_signal_to_noise": "signal_to_noise of the phase outside the label set",
    "foreign_fraction": "fraction of the phase outside the label set",
    "foreign": "index of the phase outside the label set, -1 where there is none",
}


@dataclass(frozen=True)
class Truth:
    """What a simulated map holds; arrays are (K, ny, nx) unless said otherwise.

    Parameters
    ----------
    phase_names
        K names in class order.
    presence
        True where the fraction in the illuminated volume is above 0.
    weight_fraction
        0-1, of all crystalline matter in the beam.
    strength
        Strongest line over local background in the noise-free powder average.
    lattice
        Shape (K, ny, nx, 6), Å and degrees; NaN where absent.
    size
        Coherent domain size in nm; NaN where absent.
    extra
        Further arrays of shape (..., ny, nx): grains, monitor, frame, displacement, distractor.
    """

    phase_names: tuple[str, ...]
    presence: BoolArray
    weight_fraction: NDArray[np.float32]
    strength: NDArray[np.float32]
    lattice: NDArray[np.float32]
    size: NDArray[np.float32]
    extra: dict[str, NDArray[Any]]


def write_truth(path: Path, truth: Truth) -> None:
    """Write ``/entry/truth`` with units and meanings."""
    with whole_hdf5(path) as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        group = entry.create_group("truth")
        group.attrs["NX_class"] = "NXcollection"
        say_pipeline(group)
        group.create_dataset("phase_names", data=list(truth.phase_names), dtype=h5py.string_dtype())
        arrays: dict[str, NDArray[Any]] = {
            "presence": truth.presence.astype(np.uint8),
            "weight_fraction": truth.weight_fraction.astype(np.float32),
            "strength": truth.strength.astype(np.float32),
            "lattice": truth.lattice.astype(np.float32),
            "size": truth.size.astype(np.float32),
            **truth.extra,
        }
        for name, array in arrays.items():
            dataset = group.create_dataset(name, data=array)
            if name in _MEANING:
                dataset.attrs["long_name"] = _MEANING[name]
            if name in _UNITS:
                dataset.attrs["units"] = _UNITS[name]


def read_truth(path: Path) -> Truth:
    """Read a truth file.

    Raises
    ------
    InputMissingError
        The file does not exist.
    InputError
        It is no HDF5 file, or a dataset is absent or has another shape than the rest.
    """
    path = Path(path)
    if not path.is_file():
        raise InputMissingError(f"truth file '{path}' does not exist; simulate writes truth.h5.")
    known = ("presence", "weight_fraction", "strength", "lattice", "size")
    try:
        with h5py.File(path, "r", locking=False) as file:
            if TRUTH not in file:
                raise InputError(f"'{path}' has no {TRUTH}; expected a truth file of simulate.")
            group = file[TRUTH]
            absent = [name for name in ("phase_names", *known) if name not in group]
            if absent:
                raise InputError(f"'{path}': {TRUTH} lacks {', '.join(absent)}.")
            names = tuple(group["phase_names"].asstr()[()].tolist())
            arrays = {name: group[name][()] for name in group if name != "phase_names"}
    except OSError as error:
        raise InputError(f"'{path}' cannot be read as HDF5 ({error}).") from error
    shape = arrays["presence"].shape
    if len(shape) != 3 or shape[0] != len(names):
        raise InputError(
            f"'{path}': presence has shape {shape}; expected (phases, ny, nx) with "
            f"{len(names)} phases."
        )
    for name in known[1:]:
        if arrays[name].shape[:3] != shape:
            raise InputError(
                f"'{path}': {name} has shape {arrays[name].shape}; expected {shape} first."
            )
    return Truth(
        phase_names=names,
        presence=arrays["presence"].astype(bool),
        weight_fraction=arrays["weight_fraction"],
        strength=arrays["strength"],
        lattice=arrays["lattice"],
        size=arrays["size"],
        extra={name: array for name, array in arrays.items() if name not in known},
    )
