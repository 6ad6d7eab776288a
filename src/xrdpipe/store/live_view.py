"""The live view of a map: an HDF5 file that others read while it is written (SWMR).

It is a view that may be thrown away (decision 20). Readers open it with
``h5py.File(path, "r", swmr=True)`` and call ``refresh()`` on a dataset before they read it again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from xrdpipe.maps import PhaseMap
from xrdpipe.schema import NO_RESULT, UNDECIDED, WINNER_MEANINGS, FrameStatus, PixelStatus
from xrdpipe.store.nexus import fixed_strings, new_group, new_root, put, say_values

FORMAT = ("v110", "v110")
"""SWMR needs the format of HDF5 1.10."""

IMAGES = {
    "presence/probability": ("f4", np.nan, "probability of presence"),
    "presence/decision": ("i1", UNDECIDED, "decision"),
    "winner/phase_id": ("i2", NO_RESULT, "most probable present phase"),
    "co_occurrence/combination": ("i8", NO_RESULT, "present phases (sum of 2^index, -1 no result)"),
    "frame": ("i8", -1, "acquisition number of the frame, -1 = none yet"),
    "status": ("u1", FrameStatus.PENDING, "status of the pixel, 0 = pending"),
}
"""Below ``/entry/phase_map``: type, value of a pending pixel, label; the status is written last."""


class LiveView:
    """An uncompressed SWMR file of the maps; a context manager that closes it.

    It appears under its name when it can be read by others.

    Parameters
    ----------
    path
        Replaced if it exists.
    phase_names
        As in the map.
    shape
        (ny, nx); :meth:`write` extends it if the map grows.
    """

    def __init__(self, path: Path, phase_names: tuple[str, ...], shape: tuple[int, int]) -> None:
        self.path = path
        temporary = path.with_name(path.name + ".writing")
        self._file = h5py.File(temporary, "w", libver=FORMAT, locking=False)
        try:
            self._create(phase_names, shape)
            self._file.swmr_mode = True
            temporary.replace(path)
        except BaseException:
            self._file.close()
            temporary.unlink(missing_ok=True)
            raise

    def __enter__(self) -> LiveView:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(
        self, phase_map: PhaseMap, numbers: NDArray[np.int64], lines: NDArray[np.intp]
    ) -> None:
        """Show some lines of the map; readers find them when this returns.

        Parameters
        ----------
        numbers
            Acquisition number of each pixel's frame, shape (ny, nx), −1 where there is none.
        lines
            Rows of the map that have changed.

        Raises
        ------
        OSError
            If the disk refuses; the view is closed and removed then.
        """
        images: dict[str, NDArray[Any]] = {
            "presence/probability": phase_map.probability,
            "presence/decision": phase_map.decision,
            "winner/phase_id": phase_map.winner,
            "co_occurrence/combination": phase_map.combination,
            "frame": numbers,
            "status": phase_map.status,
        }
        with self._or_given_up():
            group = self._file["entry/phase_map"]
            for name, values in images.items():
                dataset = group[name]
                if dataset.shape != values.shape:
                    dataset.resize(values.shape)
                for line in lines.tolist():
                    dataset[..., line, :] = values[..., line, :]
                dataset.flush()
            self._set("frames_done", int((phase_map.status != FrameStatus.PENDING).sum()))
            self._set("last_update", time.time())

    def finish(self) -> None:
        """Say that nothing more will come; raises OSError as :meth:`write` does."""
        with self._or_given_up():
            self._set("finished", 1)

    def close(self) -> None:
        """Close the file; readers keep it."""
        self._file.close()

    @contextmanager
    def _or_given_up(self) -> Iterator[None]:
        """Close and remove the file where the disk refuses what is written."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            # HDF5 cannot close what it cannot write, and would end the process: it writes into
            # memory from now on.
            if hasattr(os, "memfd_create"):
                memory = os.memfd_create(self.path.name)
                os.dup2(memory, self._file.id.get_vfd_handle())
                os.close(memory)
            self._file.close()
            self.path.unlink(missing_ok=True)
            raise OSError(f"HDF5 cannot write it: {str(error).splitlines()[0]}") from error

    def _set(self, name: str, value: float) -> None:
        dataset = self._file[f"entry/phase_map/{name}"]
        dataset[()] = value
        dataset.flush()

    def _create(self, phase_names: tuple[str, ...], shape: tuple[int, int]) -> None:
        new_root(self._file)
        entry = new_group(self._file, "entry", "NXentry", default="phase_map")
        process = new_group(entry, "phase_map", "NXprocess", default="co_occurrence")
        put(process, "program", "xrdpipe")
        put(process, "phase_names", fixed_strings(list(phase_names)))
        put(process, "frames_done", 0, long_name="pixels that are no longer pending")
        put(process, "last_update", time.time(), units="s", long_name="Unix time")
        put(process, "finished", 0, long_name="1 when nothing more will come")
        numbered = dict(enumerate(phase_names))
        bits = {2**k: name for k, name in numbered.items()}
        winners = {**numbered, **WINNER_MEANINGS}
        for name, signal, axes, title, meanings in (
            ("presence", "probability", 3, "probability of presence of phase", numbered),
            ("winner", "phase_id", 2, "most probable present phase", winners),
            ("co_occurrence", "combination", 2, "present phases, the sum of", bits),
        ):
            group = new_group(process, name, "NXdata", signal=signal, interpretation="image")
            # Without datasets of pixel numbers as axes: those of a map that grows would not fit.
            group.attrs["axes"] = ["."] * axes
            say_values(group, title, meanings)
        for name, (dtype, pending, label) in IMAGES.items():
            planes = (len(phase_names),) if name.startswith("presence/") else ()
            dataset = process.create_dataset(
                name,
                shape=(*planes, *shape),
                maxshape=(*planes, shape[0], None),
                chunks=(*(1 for _ in planes), min(shape[0], 64), min(shape[1], 64)),
                dtype=dtype,
                fillvalue=pending,
            )
            dataset.attrs["long_name"] = label
        winner = process["winner/phase_id"]
        winner.attrs["flag_values"] = np.array(
            [*range(len(phase_names)), *WINNER_MEANINGS], np.int16
        )
        winner.attrs["flag_meanings"] = " ".join(
            [*(name.replace(" ", "_") for name in phase_names), *WINNER_MEANINGS.values()]
        )
        members = [*FrameStatus, *PixelStatus]
        process["status"].attrs["flag_values"] = np.array([m.value for m in members], np.uint8)
        process["status"].attrs["flag_meanings"] = " ".join(m.name.lower() for m in members)
