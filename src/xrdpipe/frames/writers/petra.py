"""PETRA III, Lambda detectors: one file per module, and a master over them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from xrdpipe.frames.writers.hdf5 import (
    VIRTUAL,
    Part,
    frame_stack,
    nx_group,
    put,
    put_pixels,
    virtual_stack,
)
from xrdpipe.frames.writers.series import PIXEL_MASK_GAP, Put, Series


@contextlib.contextmanager
def petra(series: Series) -> Iterator[Put]:
    """Lambda: ``NAME.nxs``, a virtual dataset over one file per module (``NAME_m01.nxs`` …).

    Rows of the detector that are all gap part the modules; they are in no file and read as 'no
    measurement'. A detector of one module has one file. No place for motors or the beam.
    """
    known = series.detector
    with contextlib.ExitStack() as files:
        file = h5py.File(series.folder / f"{series.name}.nxs", "w", libver=VIRTUAL)
        detector = _lambda(files.enter_context(file), series)
        modules = _modules(np.all(known.pixel_mask & PIXEL_MASK_GAP, axis=1))
        if len(modules) == 1:
            yield frame_stack(detector, series).__setitem__
            return
        parts, stacks = [], []
        for number, rows in enumerate(modules, 1):
            name = f"{series.name}_m{number:02d}.nxs"
            part = files.enter_context(h5py.File(series.folder / name, "w"))
            instrument = nx_group(nx_group(part, "entry", "NXentry"), "instrument", "NXinstrument")
            module = nx_group(instrument, "detector", "NXdetector")
            shape = (rows.stop - rows.start, series.shape[1])
            data = frame_stack(module, series, shape=shape)
            stacks.append((rows, data))
            parts.append(Part(name, data.name, (0, rows.start, 0), (series.frames, *shape)))
        virtual_stack(detector, series, parts, fill=int(np.iinfo(series.dtype).max))

        def write(index: int, image: NDArray[Any]) -> None:
            for rows, data in stacks:
                data[index] = image[rows]

        yield write


def _lambda(file: h5py.File, series: Series) -> h5py.Group:
    known = series.detector
    instrument = nx_group(nx_group(file, "entry", "NXentry"), "instrument", "NXinstrument")
    detector = nx_group(instrument, "detector", "NXdetector")
    put(detector, "description", f"Lambda (simulated {known.name})")
    put(detector, "local_name", "Lambda")
    put(detector, "bit_depth_readout", np.uint32(24))
    put(detector, "count_time", 1e3 * known.exposure, "ms")
    put(detector, "distance", known.distance, "m")
    put_pixels(detector, series)
    put(detector, "pixel_mask", known.pixel_mask[None])
    return detector


def _modules(gap: NDArray[np.bool_]) -> list[slice]:
    """Runs of rows between the gaps."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], gap, [True]])))
    return [slice(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
