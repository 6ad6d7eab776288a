"""What NeXus-like groups say of detector, beam and exposure, in our units."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from xrdpipe.bounds import LARGEST_FRAME
from xrdpipe.frames.layouts.links import attribute, find_dataset, whole
from xrdpipe.types import DetectorInfo, IntArray

Exposure = NDArray[np.float64] | float | None
"""Seconds: one per frame, one for all, or not known."""

KEV_ANGSTROM = 12.398419843320026
"""Energy times wavelength of a photon (CODATA 2018)."""

SECONDS = {"s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
METRES = {"m": 1.0, "metre": 1.0, "meter": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6}
ANGSTROMS = {"angstrom": 1.0, "angstroms": 1.0, "a": 1.0, "å": 1.0, "nm": 10.0, "m": 1e10}
KEVS = {"kev": 1.0, "ev": 1e-3}


def text(group: h5py.Group | None, *names: str) -> str | None:
    """The first of these datasets that holds a text."""
    for name in names:
        data = find_dataset(group, name) if group is not None else None
        if data is not None and data.dtype.kind in "SO" and data.size:
            value = data[(0,) * data.ndim]
            value = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
            if value.strip():
                return str(value.strip())
    return None


def number(group: h5py.Group | None, *names: str) -> float | None:
    """The first of these datasets that holds a number, also written as a text (bliss)."""
    for name in names:
        data = find_dataset(group, name) if group is not None else None
        if data is None or not data.size:
            continue
        value = data[(0,) * data.ndim]
        try:
            return float(value)
        except (ValueError, TypeError):
            continue
    return None


def quantity(
    group: h5py.Group | None, names: Iterable[str], units: Mapping[str, float], default: str
) -> NDArray[np.float64] | None:
    """The first of these datasets with a positive number, flat, in the unit that counts as 1.

    Zero is what detectors write for a wavelength or distance that nobody has set.
    """
    for name in names:
        data = find_dataset(group, name) if group is not None else None
        if data is None or data.dtype.kind not in "uif" or not data.size:
            continue
        unit = (attribute(data, "units") or default).strip().lower()
        values = np.asarray(whole(data), np.float64).ravel()
        if unit in units and (np.isfinite(values) & (values > 0)).any():
            return values * units[unit]
    return None


def exposure(group: h5py.Group | None, frames: int, names: Iterable[str]) -> Exposure:
    """Seconds per frame: one number, or one per frame."""
    values = quantity(group, names, SECONDS, "s")
    if values is None:
        return None
    return values if values.size == frames > 1 else float(values[0])


def wavelength(entry: h5py.Group, detector: h5py.Group | None) -> float | None:
    """In Å, from beam or monochromator, or from the photon energy."""
    beams = ("instrument/beam", "sample/beam", "instrument/monochromator")
    lengths = [f"{beam}/{name}" for beam in beams for name in ("incident_wavelength", "wavelength")]
    energies = [f"{beam}/{name}" for beam in beams for name in ("incident_energy", "energy")]
    found = quantity(entry, lengths, ANGSTROMS, "angstrom")
    if found is not None:
        return float(found[0])
    found = quantity(entry, energies, KEVS, "keV")
    if found is None:
        found = quantity(detector, ("photon_energy", "detectorSpecific/photon_energy"), KEVS, "eV")
    return None if found is None else KEV_ANGSTROM / float(found[0])


def pixel_mask(group: h5py.Group | None, names: Iterable[str]) -> IntArray | None:
    """The first of these masks, shape (rows, columns); a mask of several planes is united."""
    for name in names:
        data = find_dataset(group, name) if group is not None else None
        if data is None or data.ndim < 2 or data.dtype.kind not in "uib" or not data.size:
            continue
        planes = whole(data, LARGEST_FRAME).reshape(-1, *data.shape[-2:])
        if planes.dtype.kind == "b":
            planes = planes.astype(np.uint8)
        return np.asarray(np.bitwise_or.reduce(planes, axis=0))
    return None


def detector_info(
    entry: h5py.Group, detector: h5py.Group | None, channel: str = ""
) -> DetectorInfo:
    """Everything known of a detector.

    Parameters
    ----------
    entry
        The entry, for the beam.
    detector
        Its NXdetector; None if there is none.
    channel
        Name of the group of a threshold, which may have a mask of its own (DECTRIS).
    """
    specific = "detectorSpecific"
    saturation = number(
        detector,
        "saturation_value",
        f"{specific}/saturation_value",
        "countrate_correction_count_cutoff",
        f"{specific}/countrate_correction_count_cutoff",
    )
    bits = number(
        detector,
        "bit_depth_image",
        f"{specific}/bit_depth_image",
        "bit_depth_readout",
        f"{specific}/bit_depth_readout",
    )
    distance = quantity(
        detector, ("detector_distance", "distance", f"{specific}/detector_distance"), METRES, "m"
    )
    return DetectorInfo(
        description=_description(detector),
        pixel_mask=pixel_mask(
            detector,
            [f"{part}pixel_mask" for part in (channel and f"{channel}/", "", f"{specific}/")],
        ),
        saturation_value=saturation if saturation and saturation > 0 else None,
        bit_depth=int(bits) if bits and bits > 0 else None,
        wavelength=wavelength(entry, detector),
        distance=None if distance is None else float(distance[0]),
    )


def _description(detector: h5py.Group | None) -> str | None:
    """The detector's name; that of its group where that is all there is."""
    if detector is None:
        return None
    said = text(
        detector,
        "description",
        "detector_information/model",
        "detector_information/name",
        "model",
        "local_name",
        "detector_name",
        "name",
    )
    own = detector.name.rstrip("/").split("/")[-1]
    if said is None:
        return None if own in ("", "detector", "data") else own
    return said


def units_of(data: h5py.Dataset) -> str:
    """Units of a column, or ``""``."""
    return attribute(data, "units")


def is_column(item: Any) -> bool:
    """True for a numeric dataset of at most two axes that no detector wrote."""
    return (
        isinstance(item, h5py.Dataset)
        and item.dtype.kind in "uif"
        and item.ndim in (1, 2)
        and item.size > 0
    )
