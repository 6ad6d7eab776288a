"""NeXus: the grid scans of Diamond, and a stack as any other writer makes it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from xrdpipe.frames.headers import HC
from xrdpipe.frames.writers.hdf5 import (
    VIRTUAL,
    Part,
    frame_stack,
    nx_group,
    put,
    put_pixels,
    virtual_stack,
)
from xrdpipe.frames.writers.series import MONITOR, Put, Series


@contextlib.contextmanager
def diamond(series: Series) -> Iterator[Put]:
    """GDA: ``NAME.nxs``, a virtual dataset (y, x, rows, columns) over ``NAME_000001.h5``.

    Each frame lies at its place on the map, whichever way the scan went; ``uniqueKeys`` is the
    order of arrival, and 0 where none came.
    """
    known, scan = series.detector, series.scan
    grid = scan.shape if scan else (1, series.frames)
    cells = scan.cells if scan else np.arange(series.frames)
    name = f"{series.name}_000001.h5"
    shape = (*grid, *series.shape)

    def on_grid(values: NDArray[np.float64]) -> NDArray[np.float64]:
        placed = np.empty(grid)
        placed.flat[cells] = values
        return placed

    with h5py.File(series.folder / f"{series.name}.nxs", "w", libver=VIRTUAL) as file:
        entry = nx_group(file, "entry", "NXentry")
        instrument = nx_group(entry, "instrument", "NXinstrument")
        detector = nx_group(instrument, known.camera, "NXdetector")
        virtual_stack(detector, series, [Part(name, "/data", (0,) * 4, shape)], grid)
        put(detector, "count_time", np.full(grid, known.exposure), "s")
        put(detector, "distance", 1e3 * known.distance, "mm")
        put_pixels(detector, series)
        put(detector, "pixel_mask", known.pixel_mask)
        energy = nx_group(instrument, "monochromator", "NXmonochromator")
        put(energy, "energy", HC / known.wavelength, "keV")
        plot = nx_group(entry, known.camera, "NXdata", signal="data")
        plot["data"] = h5py.SoftLink(f"{detector.name}/data")
        record = nx_group(entry, "diamond_scan", "NXcollection")
        put(record, "scan_shape", np.array(grid))
        keys = nx_group(record, "keys", "NXcollection")
        keys["uniqueKeys"] = h5py.ExternalLink(name, "/uid")
        if scan is not None:
            x, y = (on_grid(values) for values in scan.positions.T)
            motors = scan.motors
            plot.attrs["axes"] = [f"{motors[1]}_set", f"{motors[0]}_set", ".", "."]
            for axis, motor, values in ((1, motors[0], x), (0, motors[1], y)):
                put(plot, f"{motor}_set", values.mean(axis=1 - axis), scan.units)
                put(plot, f"{motor}_value", values, scan.units)
                plot.attrs[f"{motor}_set_indices"] = axis
                plot.attrs[f"{motor}_value_indices"] = [0, 1]
            if scan.monitor is not None:
                put(entry, MONITOR, on_grid(scan.monitor))
    with h5py.File(series.folder / name, "w") as file:
        data = frame_stack(file, series, grid)
        arrived = file.create_dataset("uid", grid, np.int64)

        def write(index: int, image: NDArray[Any]) -> None:
            place = np.unravel_index(cells[index], grid)
            data[place] = image
            arrived[place] = index + 1

        yield write


@contextlib.contextmanager
def stack(series: Series) -> Iterator[Put]:
    """``NAME.nxs`` as any NeXus writer makes it: NXdata of three axes, x and y of each frame."""
    known, scan = series.detector, series.scan
    with h5py.File(series.folder / f"{series.name}.nxs", "w") as file:
        file.attrs.update({"NX_class": "NXroot", "default": "entry"})
        entry = nx_group(file, "entry", "NXentry", default="data")
        instrument = nx_group(entry, "instrument", "NXinstrument")
        detector = nx_group(instrument, "detector", "NXdetector")
        frames = frame_stack(detector, series)
        put(detector, "description", known.name)
        put(detector, "count_time", known.exposure, "s")
        put(detector, "distance", known.distance, "m")
        put_pixels(detector, series)
        put(detector, "pixel_mask", known.pixel_mask)
        beam = nx_group(instrument, "beam", "NXbeam")
        put(beam, "incident_wavelength", known.wavelength, "angstrom")
        data = nx_group(entry, "data", "NXdata", signal="data")
        data["data"] = frames
        if scan is not None:
            for name, values in zip("xy", scan.positions.T, strict=True):
                put(data, name, values, scan.units)
            if scan.monitor is not None:
                put(entry, MONITOR, scan.monitor)
        yield frames.__setitem__
