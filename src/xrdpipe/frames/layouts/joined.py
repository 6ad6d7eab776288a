"""Frames that a virtual dataset joins of modules: their chunks are looked at where they lie."""

from __future__ import annotations

from dataclasses import dataclass

import h5py

from xrdpipe.errors import FrameError
from xrdpipe.frames.layouts.chunks import check_chunks
from xrdpipe.frames.layouts.links import beside, find, open_linked


@dataclass(frozen=True)
class Module:
    """A part of a virtual dataset.

    Parameters
    ----------
    data
        Where its values lie.
    first, last
        Frames of the virtual dataset it belongs to, along the axes before the last two.
    stored
        Which frame of ``data`` the first of them is; None if its frames are laid out otherwise.
    """

    data: h5py.Dataset
    first: tuple[int, ...]
    last: tuple[int, ...]
    stored: tuple[int, ...] | None

    def check(self, index: tuple[int, ...]) -> None:
        """Raise OSError if its part of a frame cannot be decoded safely."""
        inside = all(a <= i <= b for a, i, b in zip(self.first, index, self.last, strict=True))
        if inside and self.stored is None:
            check_chunks(self.data)
        elif inside and self.stored is not None:
            places = zip(self.stored, index, self.first, strict=True)
            check_chunks(self.data, tuple(start + i - first for start, i, first in places))


def modules_of(data: h5py.Dataset) -> tuple[Module, ...]:
    """The modules of a virtual dataset that are there; none for any other.

    What is not there HDF5 fills up, and what is not damaged it can read.
    """
    if not data.is_virtual:
        return ()
    found = []
    leading = data.ndim - 2
    for source in data.virtual_sources():
        part = _opened(data, source.file_name, source.dset_name)
        if part is None:
            continue
        first, last = _bounds(source.vspace, data)
        stored = _bounds(source.src_space, part)[0][:leading] if part.ndim == data.ndim else None
        found.append(Module(part, first[:leading], last[:leading], stored))
    return tuple(found)


def _bounds(space: h5py.h5s.SpaceID, data: h5py.Dataset) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """First and last places of a selection; a whole dataset has none of its own."""
    if space.get_select_type() == h5py.h5s.SEL_ALL:
        return (0,) * data.ndim, tuple(n - 1 for n in data.shape)
    first, last = space.get_select_bounds()
    return tuple(map(int, first)), tuple(map(int, last))


def _opened(data: h5py.Dataset, file: str, dataset: str) -> h5py.Dataset | None:
    try:
        home = data.file if file == "." else open_linked(beside(data.file.filename, file), dataset)
    except FrameError:
        return None
    part = find(home["/"], dataset)
    return part if isinstance(part, h5py.Dataset) and part.ndim >= 2 else None
