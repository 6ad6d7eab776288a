"""LImA (ESRF and others): the file of a detector."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import h5py

from xrdpipe.frames.writers.hdf5 import frame_stack, nx_group, put
from xrdpipe.frames.writers.series import START, Put, Series


@contextlib.contextmanager
def lima(series: Series) -> Iterator[Put]:
    """``NAME_0000.h5`` with ``/entry_0000/measurement/data``: exposure, no motors, no beam."""
    data = lima_file(series.folder / f"{series.name}_0000.h5", series, series.frames)
    with data.file:
        yield data.__setitem__


def lima_file(path: Path, series: Series, frames: int) -> h5py.Dataset:
    """LImA makes room for a whole file before the frames come."""
    known = series.detector
    file = h5py.File(path, "w")
    file.attrs.update({"NX_class": "NXroot", "creator": "LIMA-1.9.24", "default": "/entry_0000"})
    entry = nx_group(file, "entry_0000", "NXentry", default="measurement")
    put(entry, "title", "Lima 2D detector acquisition")
    put(entry, "start_time", START)
    detector = nx_group(nx_group(entry, "ESRF", "NXinstrument"), known.camera, "NXdetector")
    data = frame_stack(detector, series, (frames,))
    data.attrs["interpretation"] = "image"
    info = nx_group(detector, "detector_information", "NXcollection")
    put(info, "model", known.name)
    put(info, "name", f"simulated {known.name}")
    size = nx_group(info, "pixel_size", "NXcollection")
    put(size, "xsize", known.pixel_size[1], "m")
    put(size, "ysize", known.pixel_size[0], "m")
    acquisition = nx_group(detector, "acquisition", "NXcollection")
    put(acquisition, "exposure_time", known.exposure, "s")
    put(acquisition, "mode", "Single")
    put(acquisition, "nb_frames", frames)
    nx_group(entry, "measurement", "NXcollection")["data"] = h5py.SoftLink(data.name)
    return data
