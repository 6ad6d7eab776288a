"""DECTRIS FileWriter: a master with its data files, legacy format and v2024.2."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import h5py
import numpy as np

from xrdpipe.frames.headers import HC
from xrdpipe.frames.writers.hdf5 import (
    BITSHUFFLE,
    VIRTUAL,
    DataFiles,
    frame_stack,
    nx_group,
    put,
    put_pixels,
    virtual_stack,
)
from xrdpipe.frames.writers.series import Put, Series

PER_FILE = 1000
"""``nimages_per_file`` as the FileWriter comes."""


@contextlib.contextmanager
def legacy(series: Series, per_file: int = PER_FILE) -> Iterator[Put]:
    """``NAME_master.h5`` with external links to ``NAME_data_000001.h5`` …, bitshuffle-LZ4.

    A series that ends early leaves data files of the frames written; links to files that were
    never written dangle, as they do after an abort. No place for motors.
    """

    def start(number: int, length: int) -> h5py.Dataset:
        return _data_file(series, number, (length,))

    def finish(data: h5py.Dataset, first: int, held: int) -> None:
        data.resize(held, axis=0)
        data.attrs["image_nr_low"] = np.int32(first + 1)
        data.attrs["image_nr_high"] = np.int32(first + held)

    files = DataFiles(start, series.frames, per_file, finish)
    with h5py.File(series.folder / f"{series.name}_master.h5", "w") as master:
        entry = nx_group(master, "entry", "NXentry")
        put(entry, "definition", "NXmx")
        data = nx_group(entry, "data", "NXdata", signal="data_000001")
        for number in range(1, len(files.lengths()) + 1):
            data[f"data_{number:06d}"] = h5py.ExternalLink(
                _data_name(series, number), "/entry/data/data"
            )
        detector = _detector(entry, series)
        beam = nx_group(entry["instrument"], "beam", "NXbeam")
        put(beam, "incident_wavelength", series.detector.wavelength, "angstrom")
        put(detector, "detector_distance", series.detector.distance, "m")
        specific = nx_group(detector, "detectorSpecific", "NXcollection")
        put(specific, "nimages", np.uint32(series.frames))
        put(specific, "ntrigger", np.uint32(1))
        put(specific, "countrate_correction_count_cutoff", np.uint32(series.saturation))
        put(specific, "x_pixels_in_detector", np.uint32(series.shape[1]))
        put(specific, "y_pixels_in_detector", np.uint32(series.shape[0]))
        _pixel_mask(specific, series)
        detector["pixel_mask"] = h5py.SoftLink(f"{specific.name}/pixel_mask")
    with contextlib.closing(files):
        yield files.put


@contextlib.contextmanager
def channels(series: Series, per_file: int = PER_FILE) -> Iterator[Put]:
    """Format v2024.2: one virtual dataset (frame, channel, y, x), here of one threshold."""

    def start(number: int, length: int) -> h5py.Dataset:
        return _data_file(series, number, (length, 1))

    files = DataFiles(start, series.frames, per_file)
    parts = files.parts(
        lambda number: _data_name(series, number), "/entry/data/data", (1, *series.shape)
    )
    path = series.folder / f"{series.name}_master.h5"
    with h5py.File(path, "w", libver=VIRTUAL) as master:
        entry = nx_group(master, "entry", "NXentry", version="v1.5")
        put(entry, "definition", "NXmx")
        put(entry, "program_name", "DECTRIS-DAQ")
        data = nx_group(
            entry, "data", "NXdata", signal="data", axes=["image_id", "channel", ".", "."]
        )
        virtual_stack(data, series, parts, (series.frames, 1))
        put(data, "image_id", np.arange(1, series.frames + 1))
        put(data, "channel", ["threshold_1"])
        detector = _detector(entry, series)
        beam = nx_group(entry["instrument"], "beam", "NXbeam")
        put(beam, "incident_energy", 1e3 * HC / series.detector.wavelength, "eV")
        put(detector, "distance", series.detector.distance, "m")
        _pixel_mask(nx_group(detector, "threshold_1_channel", "NXdetector_channel"), series)
        specific = nx_group(detector, "detectorSpecific", "NXcollection")
        put(specific, "nimages", np.uint32(series.frames))
        put(specific, "ntrigger", np.uint32(1))
    with contextlib.closing(files):
        yield files.put


def _data_name(series: Series, number: int) -> str:
    return f"{series.name}_data_{number:06d}.h5"


def _data_file(series: Series, number: int, leading: tuple[int, ...]) -> h5py.Dataset:
    file = h5py.File(series.folder / _data_name(series, number), "w")
    group = nx_group(nx_group(file, "entry", "NXentry"), "data", "NXdata")
    return frame_stack(group, series, leading)


def _detector(entry: h5py.Group, series: Series) -> h5py.Group:
    """What both formats say of the detector, in ``instrument/detector``."""
    known = series.detector
    bits = np.uint32(8 * series.dtype.itemsize)
    instrument = nx_group(entry, "instrument", "NXinstrument")
    group = nx_group(instrument, "detector", "NXdetector")
    put(group, "description", f"Simulated {known.name}")
    put(group, "bit_depth_image", bits)
    put(group, "bit_depth_readout", bits)
    put_pixels(group, series)
    put(group, "count_time", known.exposure, "s")
    put(group, "frame_time", known.exposure, "s")
    return group


def _pixel_mask(group: h5py.Group, series: Series) -> None:
    group.create_dataset(
        "pixel_mask", data=series.detector.pixel_mask, chunks=series.shape, **BITSHUFFLE
    )
