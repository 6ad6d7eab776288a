"""EDF, the ESRF data format, as SPEC and LImA write it: single and multi-frame."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.frames.writers.images import MultiFrame, one_per_file, several_per_file
from xrdpipe.frames.writers.series import MONITOR, Put, Series

BLOCK = 512
"""Headers are padded to a multiple of this many bytes."""

DATA_TYPES = {
    "u1": "UnsignedByte",
    "i1": "SignedByte",
    "u2": "UnsignedShort",
    "i2": "SignedShort",
    "u4": "UnsignedInteger",
    "i4": "SignedInteger",
}


def write_edf(path: Path, image: NDArray[Any], header: Mapping[str, str]) -> None:
    """Write one integer image as EDF with a few lines of header; the suffix of ``path`` is free."""
    path.write_bytes(_frame(image, header, 0))


def single(series: Series) -> contextlib.AbstractContextManager[Put]:
    """``NAME_00001.edf`` …, one frame each."""

    def write(path: Path, index: int, image: NDArray[Any]) -> None:
        write_edf(path, image, _header(series, index))

    return one_per_file(series, "edf", write)


def stack(series: Series) -> contextlib.AbstractContextManager[Put]:
    """``NAME_00001.edf`` …, the frames of a line after each other, each with its header."""
    return several_per_file(series, "edf", _Frames)


class _Frames(MultiFrame):
    def append(self, index: int, image: NDArray[Any]) -> None:
        self.stream.write(_frame(image, _header(self.series, index), self.frames))


def _frame(image: NDArray[Any], header: Mapping[str, str], number: int) -> bytes:
    rows, columns = image.shape
    keys = {
        "EDF_DataBlockID": f"{number}.Image.Psd",
        "EDF_BinarySize": str(image.nbytes),
        "HeaderID": f"EH:{number + 1:06d}:000000:000000",
        "Image": str(number + 1),
        "ByteOrder": "LowByteFirst",
        "DataType": DATA_TYPES[image.dtype.str[1:]],
        "Dim_1": str(columns),
        "Dim_2": str(rows),
        "Size": str(image.nbytes),
        **header,
    }
    text = "{\n" + "".join(f"{key} = {value} ;\n" for key, value in keys.items())
    length = -(-(len(text) + 2) // BLOCK) * BLOCK
    pixels = np.ascontiguousarray(image, image.dtype.newbyteorder("<"))
    return f"{text:<{length - 2}}}}\n".encode() + pixels.tobytes()


def _header(series: Series, index: int) -> dict[str, str]:
    detector = series.detector
    rows, columns = detector.pixel_size
    header = {
        "acq_frame_nb": str(index),
        "acq_expo_time": f"{detector.exposure:g}",
        "count_time": f"{detector.exposure:g}",
        "WaveLength": f"{1e-10 * detector.wavelength:.9g}",
        "SampleDistance": f"{detector.distance:g}",
        "PSize_1": f"{columns:g}",
        "PSize_2": f"{rows:g}",
        "Center_1": f"{detector.beam_centre[0]:g}",
        "Center_2": f"{detector.beam_centre[1]:g}",
    }
    values = {name: f"{column[index]:.9g}" for name, (column, _) in series.columns().items()}
    counters = {"sec": f"{detector.exposure:g}"}
    if MONITOR in values:
        counters[MONITOR] = values.pop(MONITOR)
    for kind, named in (("motor", values), ("counter", counters)):
        if named:
            header |= {f"{kind}_mne": " ".join(named), f"{kind}_pos": " ".join(named.values())}
    return header
