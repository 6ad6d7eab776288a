"""MAX IV (Sardana): a scan file, and the file of the detector beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import h5py
import numpy as np

from xrdpipe.frames.writers.hdf5 import frame_stack, nx_group, put, put_columns
from xrdpipe.frames.writers.series import Put, Series


@contextlib.contextmanager
def maxiv(series: Series) -> Iterator[Put]:
    """Sardana: ``NAME.h5`` with ``measurement``, frames in ``NAME_CAMERA.h5`` of the receiver."""
    known = series.detector
    camera = f"{series.name}_{known.camera}.h5"
    inside = f"/entry/instrument/{known.camera}/data"
    with h5py.File(series.folder / f"{series.name}.h5", "w") as file:
        entry = nx_group(file, "entry", "NXentry")
        put(entry, "program_name", "sardana")
        put(entry, "title", _sardana_command(series))
        measurement = nx_group(entry, "measurement", "NXcollection")
        put_columns(measurement, series)
        put(measurement, "point_nb", np.arange(series.frames))
        instrument = nx_group(entry, "instrument", "NXinstrument")
        detector = nx_group(instrument, known.camera, "NXdetector")
        detector["data"] = h5py.ExternalLink(camera, inside)
    with h5py.File(series.folder / camera, "w") as file:
        instrument = nx_group(nx_group(file, "entry", "NXentry"), "instrument", "NXinstrument")
        detector = nx_group(instrument, known.camera, "NXdetector")
        put(detector, "count_time", known.exposure, "s")
        yield frame_stack(detector, series).__setitem__


def _sardana_command(series: Series) -> str:
    """``meshct samx 0 0.015 3 samy 0 0.01 2 0.05 True``, the last word for a snake."""
    scan, seconds = series.scan, f"{series.detector.exposure:g}"
    travels = scan.travels() if scan else []
    if scan is None or not travels:
        return f"timescan {series.frames - 1} {seconds}"
    if len(travels) == 1:
        return f"ascanct {travels[0]} {seconds}"
    return f"meshct {' '.join(travels)} {seconds} {scan.snake}"
