"""A stack of frames in an HDF5 file of no particular layout."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import h5py

from xrdpipe.frames.writers.hdf5 import frame_stack, put_columns
from xrdpipe.frames.writers.series import Put, Series

GZIP = {"compression": "gzip", "compression_opts": 1, "shuffle": True}


@contextlib.contextmanager
def plain(series: Series) -> Iterator[Put]:
    """``NAME.h5`` as anybody's script makes it: ``/frames``, and a column per motor. No metadata.

    Gzip, so that every HDF5 library reads it.
    """
    with h5py.File(series.folder / f"{series.name}.h5", "w") as file:
        put_columns(file, series)
        yield frame_stack(file, series, name="frames", filters=GZIP).__setitem__
