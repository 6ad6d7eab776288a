"""Frames taken out of an HDF5 dataset past the library: one chunk, or one run of bytes.

HDF5 decodes under one lock for the whole process and copies twice; whoever decodes chunks itself
does it in all threads at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from xrdpipe.types import Encoded

BITSHUFFLE = 32008
"""Registered number of the filter; its fifth value says what compresses the shuffled bits."""

LZ4 = 2

NO_CHUNK = 2**64 - 1
"""Address of what was never written (HADDR_UNDEF)."""


@dataclass(frozen=True)
class Packing:
    """How a frame of one dataset can be had undecoded.

    Parameters
    ----------
    compressed
        True where each frame is one chunk of bitshuffle-LZ4; False where the dataset is one run of
        bytes in the file.
    first
        Offset of that run.
    """

    compressed: bool
    first: int = 0

    def fetch(self, data: h5py.Dataset, index: tuple[int, ...]) -> Encoded | NDArray[Any]:
        """One frame; as HDF5 reads it where it was stored without the filter.

        Parameters
        ----------
        index
            Of the frame along the axes before the last two.

        Raises
        ------
        OSError, ValueError
            As reading through HDF5 does.
        """
        if self.compressed:
            skipped, chunk = data.id.read_direct_chunk((*index, 0, 0))
            return np.asarray(data[index]) if skipped else Encoded(chunk, "bitshuffle-lz4")
        shape = data.shape[-2:]
        pixels = int(np.prod(shape))
        place = int(np.ravel_multi_index(index, data.shape[:-2])) if index else 0
        offset = self.first + place * pixels * data.dtype.itemsize
        image = np.fromfile(data.file.filename, data.dtype, pixels, offset=offset)
        return image.reshape(shape)  # ValueError where the file ends before


def packing_of(data: h5py.Dataset) -> Packing | None:
    """How frames of a dataset can be taken out; None where only HDF5 can."""
    if data.is_virtual or data.external or data.dtype.byteorder == ">":
        return None
    filters = data.id.get_create_plist()
    n_filters = filters.get_nfilters()
    if data.chunks is None:
        first = data.id.get_offset()
        writing = data.file.swmr_mode or data.file.mode != "r"
        if n_filters or first is None or first == NO_CHUNK or writing:
            return None
        return Packing(compressed=False, first=int(first))
    whole = (*(1,) * (data.ndim - 2), *data.shape[-2:])
    if n_filters != 1 or data.chunks != whole:
        return None
    code, _, values, _ = filters.get_filter(0)
    if code != BITSHUFFLE or len(values) < 5 or values[4] != LZ4:
        return None
    return Packing(compressed=True)
