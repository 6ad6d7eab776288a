"""Frames that HDF5 puts together from modules: each part is looked at before, where it lies.

HDF5 decodes a damaged chunk unseen, fills with zeros what it cannot open, and keeps every file of
a virtual dataset open: a long scan meets the limit of open files, and its frames turn blank.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import FrameError
from xrdpipe.frames.layouts.chunks import check_chunks
from xrdpipe.frames.layouts.links import follow, open_linked
from xrdpipe.frames.layouts.planes import Stored
from xrdpipe.schema import FrameStatus

HELD_OPEN = 16
"""So many datasets are kept open here."""

LEFT_OPEN = 100
"""So many files may a virtual dataset keep open: systems allow a process 256 and more."""


class ModuleReader:
    """Reads joined frames; safe to use from threads, one after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[str, str], h5py.Dataset] = OrderedDict()
        self._read: set[str] = set()

    def read(self, stored: Stored, plane: int) -> NDArray[Any]:
        """A plane of a virtual dataset, if the chunks of all its modules are whole.

        Raises
        ------
        FrameError
            If a module is not there, or cannot be opened.
        OSError
            If a chunk cannot hold what it should, or cannot be decoded.
        """
        with self._lock:
            self._check(stored, plane)
            if len(self._read) > LEFT_OPEN:
                # Closed, not dropped: a second handle would keep it, and its modules, open.
                self._close(stored)
                self._read.clear()
            data = self._opened(stored)
            return np.asarray(data[_index(data, plane)])

    def _check(self, stored: Stored, plane: int) -> None:
        if stored.modules is not None:
            for module, place in stored.modules.of(plane):
                self._read.add(module.file)
                self._check(module, place)
            return
        data = self._opened(stored)
        try:
            check_chunks(data, _index(data, plane))
        except OSError as error:
            raise OSError(f"in {stored.name} {error}") from error

    def _opened(self, stored: Stored) -> h5py.Dataset:
        place = stored.file, stored.dataset
        if place in self._held:
            self._held.move_to_end(place)
            return self._held[place]
        while len(self._held) >= HELD_OPEN:
            _, oldest = self._held.popitem(last=False)
            oldest.file.close()
        data = follow(open_linked(*place)["/"], stored.dataset)
        if not isinstance(data, h5py.Dataset) or data.ndim < 2:
            raise FrameError(FrameStatus.MISSING, f"{stored.name} is no dataset of frames")
        self._held[place] = data
        return data

    def _close(self, stored: Stored) -> None:
        data = self._held.pop((stored.file, stored.dataset), None)
        if data is not None:
            data.file.close()


def _index(data: h5py.Dataset, plane: int) -> tuple[int, ...]:
    leading = data.shape[:-2]
    return tuple(int(i) for i in np.unravel_index(plane, leading)) if leading else ()
