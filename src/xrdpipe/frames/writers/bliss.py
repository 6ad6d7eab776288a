"""ESRF bliss: a scan file with a virtual dataset over files of LImA."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import h5py
import numpy as np

from xrdpipe.frames.writers.hdf5 import VIRTUAL, DataFiles, Part, nx_group, put, virtual_stack
from xrdpipe.frames.writers.lima import lima_file
from xrdpipe.frames.writers.series import START, Put, Series

PER_FILE = 1000


@contextlib.contextmanager
def bliss(series: Series) -> Iterator[Put]:
    """``NAME.h5`` with the scan ``1.1``, frames in ``scan0001/CAMERA_0000.h5`` …."""
    (series.folder / "scan0001").mkdir(exist_ok=True)

    def name(number: int) -> str:
        return f"scan0001/{series.detector.camera}_{number - 1:04d}.h5"

    def start(number: int, length: int) -> h5py.Dataset:
        return lima_file(series.folder / name(number), series, length)

    files = DataFiles(start, series.frames, PER_FILE)
    parts = files.parts(name, "/entry_0000/measurement/data", series.shape)
    with h5py.File(series.folder / f"{series.name}.h5", "w", libver=VIRTUAL) as file:
        file.attrs.update({"NX_class": "NXroot", "creator": "Bliss", "publisher": "bliss"})
        _bliss_scan(nx_group(file, "1.1", "NXentry"), series, parts)
    with contextlib.closing(files):
        yield files.put


def _bliss_scan(entry: h5py.Group, series: Series, parts: list[Part]) -> None:
    """Every counter and motor: its data below ``instrument``, a link in ``measurement``."""
    known = series.detector
    put(entry, "title", _title(series))
    put(entry, "start_time", START)
    instrument = nx_group(entry, "instrument", "NXinstrument")
    measurement = nx_group(entry, "measurement", "NXcollection")
    camera = nx_group(instrument, known.camera, "NXdetector")
    virtual_stack(camera, series, parts)
    put(camera, "type", "lima")
    acquisition = nx_group(camera, "acq_parameters", "NXcollection")
    put(acquisition, "acq_expo_time", known.exposure)
    put(acquisition, "acq_mode", "SINGLE")
    put(acquisition, "acq_nb_frames", series.frames)
    measurement[known.camera] = h5py.SoftLink(f"{camera.name}/data")
    columns = series.columns()
    columns["elapsed_time"] = (known.exposure * np.arange(series.frames, dtype=np.float64), "s")
    for name, (values, units) in columns.items():
        channel = nx_group(instrument, name, "NXdetector")
        put(channel, "data", values, units)
        measurement[name] = h5py.SoftLink(f"{channel.name}/data")
    positioners = nx_group(instrument, "positioners", "NXcollection")
    for motor in series.scan.motors if series.scan else ():
        put(positioners, motor, *columns[motor])


def _title(series: Series) -> str:
    """The command: ``amesh samx 0 0.015 3 samy 0 0.01 2 0.05 backnforth True``."""
    scan, seconds = series.scan, f"{series.detector.exposure:g}"
    travels = scan.travels() if scan else []
    if scan is None or not travels:
        return f"loopscan {series.frames} {seconds}"
    if len(travels) == 1:
        return f"ascan {travels[0]} {seconds}"
    return f"amesh {' '.join(travels)} {seconds} backnforth {scan.snake}"
