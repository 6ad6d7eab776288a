"""A stack of frames in an HDF5 file: one dataset, or the linked data files of an Eiger master."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 - registers the decompression filters of detectors
import numpy as np

from xrdpipe.errors import FrameError, InputError, InputMissingError
from xrdpipe.schema import FrameStatus
from xrdpipe.types import BoolArray, DetectorInfo, Frame, FrameRecord

HDF5_SUFFIXES = frozenset({".h5", ".hdf5", ".hdf", ".nxs", ".nx5"})
MIN_SIDE = 16
"""A dataset whose last two axes are shorter is no stack of detector frames."""

_EIGER_DATA = re.compile(r"data_\d+$")


def open_hdf5(path: Path, dataset: str | None) -> Hdf5Series:
    """Open ``path``; with no dataset named, the one obvious stack in it.

    Raises
    ------
    InputMissingError
        If file or dataset does not exist.
    InputError
        If there is no stack, or more than one.
    """
    if not path.exists():
        raise InputMissingError(f"{path} does not exist; check the path of the frames.")
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise InputError(f"{path} cannot be opened as HDF5: {error}.") from error
    try:
        if dataset is not None:
            names = [dataset]
        elif (eiger := _eiger_links(file)) is not None:
            names = eiger
        else:
            names = _find_stacks(file, path)
        return Hdf5Series(path, file, names, given=dataset is not None)
    except Exception:
        file.close()
        raise


def _eiger_links(file: h5py.File) -> list[str] | None:
    """Names ``/entry/data/data_00000N`` of a DECTRIS master file, from the first to the last.

    Dangling links are included, and so are numbers left out in between.
    """
    group = file.get("entry/data")
    if not isinstance(group, h5py.Group):
        return None
    names = [name for name in group if _EIGER_DATA.match(name)]
    if not names:
        return None
    digits = len(names[0]) - len("data_")
    numbers = [int(name.removeprefix("data_")) for name in names]
    return [
        f"/entry/data/data_{number:0{digits}d}"
        for number in range(min(1, *numbers), max(numbers) + 1)
    ]


def _find_stacks(file: h5py.File, path: Path) -> list[str]:
    found: dict[Any, str] = {}

    def visit(name: str, item: Any) -> None:
        if (
            isinstance(item, h5py.Dataset)
            and item.ndim >= 2
            and item.dtype.kind in "uif"
            and min(item.shape[-2:]) >= MIN_SIDE
        ):
            found.setdefault(item.id.__hash__(), "/" + name)

    file.visititems(visit)
    names = list(found.values())
    stacks = [name for name in names if file[name].ndim >= 3]
    if not stacks and len(names) == 1:
        stacks = names
    candidates = stacks or names
    if not candidates:
        raise InputError(
            f"{path} holds no stack of frames; name the dataset as {path}::/path/to/dataset."
        )
    if len(candidates) > 1:
        listing = ", ".join(f"{name} {file[name].shape}" for name in candidates[:6])
        what = "stacks of frames" if stacks else "images"
        raise InputError(
            f"{path} holds {len(candidates)} {what} ({listing}); "
            f"name one as {path}::{candidates[0]}."
        )
    return stacks


class Hdf5Series:
    """Frames of one or more datasets of one file, in order; axes before the last two are flat.

    Parameters
    ----------
    path
        For messages.
    file
        Open for reading.
    names
        Dataset names; those that are not there (dangling links) keep the places of their frames.
    given
        True if the user named the dataset.
    """

    def __init__(self, path: Path, file: h5py.File, names: list[str], *, given: bool) -> None:
        self.name = str(path)
        self._path = path
        self._file = file
        self._lock = threading.Lock()
        stat = path.stat()
        records: list[FrameRecord] = []
        self._where: list[tuple[str, tuple[int, ...]]] = []
        self.shape = (0, 0)
        self.dtype = np.dtype("u4")
        found = [self._dataset(name) for name in names]
        # In a master file the place of a frame is its number, from 1 as DECTRIS counts; missing
        # files are counted too.
        self.numbered = not given and _EIGER_DATA.search(names[0]) is not None
        next_index = 1 if self.numbered else 0
        for number, (name, data) in enumerate(zip(names, found, strict=True)):
            if data is None:
                if given:
                    raise InputMissingError(f"{path} has no dataset {name}.")
                for place in range(_frames_missing(found, number, next_index)):
                    self._where.append((name, ()))
                    records.append(FrameRecord(f"{path}::{name}", place, next_index, 0, 0))
                    next_index += 1
                continue
            if data.ndim < 2 or data.dtype.kind not in "uif":
                raise InputError(
                    f"{path}::{name} is no stack of frames: {data.ndim} dimensions of {data.dtype}."
                )
            shape = (int(data.shape[-2]), int(data.shape[-1]))
            if self.shape == (0, 0):
                self.shape, self.dtype = shape, data.dtype
            start = data.attrs.get("image_nr_low")
            if start is not None:
                next_index, self.numbered = int(start), True
            for place, position in enumerate(np.ndindex(*data.shape[:-2])):
                self._where.append((name, position))
                records.append(
                    FrameRecord(
                        f"{path}::{name}", place, next_index, stat.st_size, stat.st_mtime_ns
                    )
                )
                next_index += 1
        if self.shape == (0, 0):
            raise InputError(f"{path}: none of the linked data files can be opened.")
        self.records = tuple(records)
        self.detector = _detector(file)
        layout = "Eiger master" if len(names) > 1 or _EIGER_DATA.search(names[0]) else "HDF5 stack"
        self.kind = (
            f"{layout} {names[0]}{f' … {names[-1]}' if len(names) > 1 else ''}, "
            f"{len(records)} frames of {self.shape[0]} x {self.shape[1]} {self.dtype}"
        )

    def read(self, row: int) -> Frame:
        """Read one frame; raises FrameError naming dataset and frame."""
        name, position = self._where[row]
        data = self._dataset(name)
        if data is None:
            raise FrameError(
                FrameStatus.MISSING, f"{self._path}::{name} points to a file that is not there"
            )
        if tuple(data.shape[-2:]) != self.shape:
            raise FrameError(
                FrameStatus.WRONG_SHAPE,
                f"{self._path}::{name} has {data.shape[-2]} x {data.shape[-1]} pixels, "
                f"the series has {self.shape[0]} x {self.shape[1]}",
            )
        if data.dtype != self.dtype:
            raise FrameError(
                FrameStatus.WRONG_SHAPE,
                f"{self._path}::{name} holds {data.dtype}, the series {self.dtype}",
            )
        try:
            return Frame(np.asarray(data[position]))
        except OSError as error:
            raise FrameError(
                FrameStatus.CORRUPT,
                f"frame {row} of {self._path}::{name} cannot be decoded ({error})",
            ) from error

    def values(self, name: str) -> np.ndarray[Any, Any] | None:
        """A numeric dataset of the same file, flattened; None if there is none of that name."""
        data = self._dataset(name)
        if data is None or data.dtype.kind not in "uif":
            return None
        return np.asarray(data[()], np.float64).ravel()

    def _dataset(self, name: str) -> h5py.Dataset | None:
        try:
            with self._lock:
                item = self._file[name]
        except (KeyError, OSError):  # a dangling external link raises either
            return None
        return item if isinstance(item, h5py.Dataset) else None


def _frames_missing(found: list[h5py.Dataset | None], number: int, next_index: int) -> int:
    """How many frames a data file that is not there held.

    Its successor says with which frame it starts; else all files but the last hold equally many.
    """
    after = found[number + 1] if number + 1 < len(found) else None
    if after is not None and "image_nr_low" in after.attrs:
        return max(int(after.attrs["image_nr_low"]) - next_index, 0)
    full = next((data for data in found if data is not None), None)
    return 1 if full is None else int(np.prod(full.shape[:-2], dtype=np.int64))


def _detector(file: h5py.File) -> DetectorInfo:
    """What ``/entry/instrument/detector`` says, where it exists (NXdetector, DECTRIS)."""
    group = file.get("entry/instrument/detector")
    if not isinstance(group, h5py.Group):
        return DetectorInfo()

    def first(*names: str) -> Any:
        for name in names:
            item = group.get(name)
            if isinstance(item, h5py.Dataset):
                return item[()]
        return None

    mask = first("pixel_mask", "detectorSpecific/pixel_mask")
    pixel_mask: BoolArray | None = None
    if mask is not None and np.ndim(mask) >= 2:
        pixel_mask = np.asarray(mask).reshape(np.shape(mask)[-2:]) != 0
    saturation = first(
        "saturation_value",
        "detectorSpecific/saturation_value",
        "detectorSpecific/countrate_correction_count_cutoff",
    )
    description = first("description")
    if isinstance(description, bytes):
        description = description.decode(errors="replace")
    wavelength = file.get("entry/instrument/beam/incident_wavelength")
    return DetectorInfo(
        description=None if description is None else str(description),
        pixel_mask=pixel_mask,
        saturation_value=None if saturation is None else float(np.max(saturation)),
        wavelength=float(wavelength[()]) if isinstance(wavelength, h5py.Dataset) else None,
    )
