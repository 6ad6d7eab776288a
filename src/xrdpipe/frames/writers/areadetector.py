"""EPICS areaDetector (NDFileHDF5): one attribute per frame for each motor."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from xrdpipe.frames.writers.hdf5 import frame_stack, nx_group, put
from xrdpipe.frames.writers.series import MONITOR, Put, Series


@contextlib.contextmanager
def areadetector(series: Series) -> Iterator[Put]:
    """NDFileHDF5 with its default layout: ``NAME.h5``, motors as attributes of each frame."""
    known = series.detector
    with h5py.File(series.folder / f"{series.name}.h5", "w") as file:
        entry = nx_group(file, "entry", "NXentry")
        instrument = nx_group(entry, "instrument", "NXinstrument")
        detector = nx_group(instrument, "detector", "NXdetector")
        data = frame_stack(detector, series)
        nx_group(entry, "data", "NXdata", signal="data")["data"] = data
        group = nx_group(instrument, "NDAttributes", "NXcollection", hostname="simulated")
        times = known.exposure * np.arange(series.frames)
        attributes: dict[str, tuple[NDArray[Any], str]] = {
            "NDArrayUniqueId": (np.arange(1, series.frames + 1, dtype=np.int32), "Driver"),
            "NDArrayTimeStamp": (times, "Driver"),
            "NDArrayEpicsTSSec": (times.astype(np.uint32), "Driver"),
            "NDArrayEpicsTSnSec": ((1e9 * (times % 1)).astype(np.uint32), "Driver"),
            "AcquireTime": (np.full(series.frames, known.exposure), "ACQ_TIME"),
            "Manufacturer": (np.full(series.frames, b"simulated"), "MANUFACTURER"),
            "Model": (np.full(series.frames, known.name.encode()), "MODEL"),
        }
        for name, (values, _) in series.columns().items():
            field = "S2" if name == MONITOR else "RBV"
            attributes[name] = values, f"xrdpipe:{name}.{field}"
        for name, (values, source) in attributes.items():
            kind = "EPICSPV" if ":" in source else "Param"
            put(
                group,
                name,
                values,
                NDAttrName=name,
                NDAttrDescription="",
                NDAttrSource=source,
                NDAttrSourceType=f"NDAttrSource{source if source == 'Driver' else kind}",
            )
        yield data.__setitem__
