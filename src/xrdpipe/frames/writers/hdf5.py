"""Groups, values and stacks of frames of NeXus-like HDF5 files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from xrdpipe.frames.writers.series import Series

BITSHUFFLE = hdf5plugin.Bitshuffle(cname="lz4")

VIRTUAL = "v110"
"""HDF5 format version that knows virtual datasets."""


def nx_group(parent: h5py.Group, name: str, nx_class: str, **attributes: Any) -> h5py.Group:
    """A new group of a NeXus class."""
    group = parent.create_group(name)
    group.attrs.update({"NX_class": nx_class, **attributes})
    return group


def put(group: h5py.Group, name: str, value: Any, units: str = "", **attributes: Any) -> None:
    """A new dataset, with units where it has some."""
    data = group.create_dataset(name, data=value)
    if units:
        data.attrs["units"] = units
    data.attrs.update(attributes)


def put_columns(group: h5py.Group, series: Series) -> None:
    """Motors and monitor, one value per frame."""
    for name, (values, units) in series.columns().items():
        put(group, name, values, units)


def put_pixels(group: h5py.Group, series: Series) -> None:
    """Size, beam centre and saturation, by their names in NXdetector."""
    known = series.detector
    put(group, "y_pixel_size", known.pixel_size[0], "m")
    put(group, "x_pixel_size", known.pixel_size[1], "m")
    put(group, "beam_center_x", known.beam_centre[0], "pixel")
    put(group, "beam_center_y", known.beam_centre[1], "pixel")
    put(group, "saturation_value", np.uint32(series.saturation))


def frame_stack(
    group: h5py.Group,
    series: Series,
    leading: tuple[int, ...] = (),
    *,
    name: str = "data",
    shape: tuple[int, int] | None = None,
    filters: Any = BITSHUFFLE,
) -> h5py.Dataset:
    """A dataset with room for frames, each a chunk: one that is never written takes no room.

    Parameters
    ----------
    group
        Where the dataset is made.
    series
        That the frames belong to.
    leading
        Axes before rows and columns; none given = one, of all frames.
    name
        Of the dataset.
    shape
        Rows and columns, if not those of the detector.
    filters
        Compression.
    """
    leading = leading or (series.frames,)
    shape = shape or series.shape
    return group.create_dataset(
        name,
        (*leading, *shape),
        series.dtype,
        chunks=(*(1 for _ in leading), *shape),
        maxshape=(None, *leading[1:], *shape),
        **filters,
    )


@dataclass(frozen=True)
class Part:
    """A whole dataset of another file, as a block of a virtual one.

    Parameters
    ----------
    file, dataset
        Where it is, as seen from the virtual dataset's file.
    start
        Its first element there, per axis.
    shape
        Of the block.
    """

    file: str
    dataset: str
    start: tuple[int, ...]
    shape: tuple[int, ...]


def virtual_stack(
    group: h5py.Group,
    series: Series,
    parts: Iterable[Part],
    leading: tuple[int, ...] = (),
    fill: int = 0,
) -> None:
    """The virtual dataset ``data``; axes as in :func:`frame_stack`.

    h5py's own function stores the time, so that no two files are alike.
    """
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_obj_track_times(False)
    properties.set_fill_value(np.array(fill, series.dtype))
    space = h5py.h5s.create_simple((*(leading or (series.frames,)), *series.shape))
    for part in parts:
        space.select_hyperslab(part.start, part.shape)
        source = h5py.h5s.create_simple(part.shape)
        properties.set_virtual(space, part.file.encode(), part.dataset.encode(), source)
    space.select_all()
    kind = h5py.h5t.py_create(series.dtype)
    h5py.h5d.create(group.id, b"data", kind, space, properties)


class DataFiles:
    """Data files of at most so many frames each, opened one after the other.

    Parameters
    ----------
    start
        Makes the file of a number (from 1) with room for some frames, and returns the dataset.
    frames, per_file
        In all, and in a full file.
    finish
        Is told the dataset, its first frame (from 0) and how many it holds, before it is closed.
    """

    def __init__(
        self,
        start: Callable[[int, int], h5py.Dataset],
        frames: int,
        per_file: int,
        finish: Callable[[h5py.Dataset, int, int], None] = lambda data, first, held: None,
    ) -> None:
        self._start, self._finish = start, finish
        self._frames, self._per_file = frames, per_file
        self._data: h5py.Dataset | None = None
        self._last = -1

    def lengths(self) -> list[int]:
        """Frames of each file."""
        starts = range(0, self._frames, self._per_file)
        return [min(self._per_file, self._frames - first) for first in starts]

    def parts(self, file: Callable[[int], str], dataset: str, frame: tuple[int, ...]) -> list[Part]:
        """The files as parts of a virtual dataset; ``file`` names that of a number (from 1)."""
        return [
            Part(file(n), dataset, ((n - 1) * self._per_file, *(0 for _ in frame)), (held, *frame))
            for n, held in enumerate(self.lengths(), 1)
        ]

    def put(self, index: int, image: NDArray[Any]) -> None:
        """Write a frame; frames come in order."""
        number, place = divmod(index, self._per_file)
        if self._data is None or place == 0:
            self.close()
            self._data = self._start(number + 1, self.lengths()[number])
        self._data[(place,) + (0,) * (self._data.ndim - 3)] = image
        self._last = index

    def close(self) -> None:
        """Close the file that is open."""
        if self._data is not None:
            held = self._last % self._per_file + 1
            self._finish(self._data, self._last + 1 - held, held)
            self._data.file.close()
            self._data = None
