"""Images and columns that go with frames: masks, dark, flat, monitors, exposure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from xrdpipe.bounds import LARGEST_FRAME, sound
from xrdpipe.errors import FrameError, InputError, InputMissingError, did_you_mean
from xrdpipe.frames.dead import PixelKind, oriented
from xrdpipe.frames.hdf5 import HDF5_SUFFIXES, open_hdf5
from xrdpipe.frames.headers import numpy_array, numpy_frames
from xrdpipe.frames.images import read_image
from xrdpipe.frames.layouts.links import whole
from xrdpipe.frames.source import open_frames
from xrdpipe.frames.tables import number_column, read_column, read_table, rows_by_number
from xrdpipe.masks import combine, shipped_masks, without_measurement
from xrdpipe.types import FrameSource, Mask

_NO_PLANE = {
    ".npz": "an archive of arrays; expected one image: save the array itself as .npy",
    ".immask": "a GSAS-II mask, which lists polygons, arcs and spots instead of pixels; draw it "
    "again with 'xrdpipe mask --polygon', or export it as an image",
}
"""Suffixes that look like an image and hold none."""

_ONE_OF = re.compile(r"(.+)\[(\d+)\]$")


def read_plane(reference: str, what: str) -> tuple[NDArray[Any], str]:
    """Read a 2D array from an image file, .npy, or ``file.h5::/dataset``, and hash the file.

    Parameters
    ----------
    what
        ``mask``, ``dark frame`` …, for messages.

    Raises
    ------
    InputMissingError, InputError
        Naming the file.
    """
    name, _, dataset = reference.partition("::")
    path = Path(name)
    if not path.is_file():
        raise InputMissingError(f"{what} {path} does not exist.")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if path.suffix.lower() in _NO_PLANE:
        raise InputError(f"{what} {path} is {_NO_PLANE[path.suffix.lower()]}.")
    try:
        if path.suffix.lower() == ".npy":
            plane = np.array(numpy_array(path))
        elif dataset or path.suffix.lower() in HDF5_SUFFIXES:
            plane = _hdf5_plane(path, dataset, what)
        else:
            plane = read_image(path).image
    except (FrameError, ValueError, OSError, EOFError) as error:
        raise InputError(f"{what} {path} cannot be read: {error}") from error
    if plane.dtype.kind == "b":
        plane = plane.astype(np.uint8)
    if plane.ndim != 2 or plane.dtype.kind not in "uif":
        raise InputError(f"{what} {path} is no image: {plane.ndim} dimensions of {plane.dtype}.")
    return plane, digest


def _hdf5_plane(path: Path, dataset: str, what: str) -> NDArray[Any]:
    """One image of an HDF5 file: the dataset named, or the only one there is."""
    try:
        series = open_hdf5(path, dataset or None)
    except InputError:
        plane = _boolean(path, dataset)
        if plane is None:
            raise
        return plane
    if len(series.records) > 1:
        raise InputError(
            f"{what} {path} holds {len(series.records)} images; expected one: name the dataset, or "
            f"choose an image: '{path}::/dataset[0]'."
        )
    return series.read(0).image


def _boolean(path: Path, dataset: str) -> NDArray[np.bool_] | None:
    """A boolean dataset, which holds no frames but may be a mask; None if there is not just one."""
    found: dict[str, h5py.Dataset] = {}

    def keep(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind == "b" and item.ndim == 2:
            found[name] = item

    try:
        with sound(str(path)), h5py.File(path, "r", locking=False) as file:
            if dataset:
                keep(dataset, file.get(dataset))
            else:
                file.visititems(keep)
            if len(found) != 1:
                return None
            plane = found.popitem()[1]
            return np.asarray(whole(plane, LARGEST_FRAME), np.bool_)
    except InputError:
        return None


def load_masks(
    references: tuple[str, ...], shape: tuple[int, int], flip: str, rotate: int
) -> Mask | None:
    """Read and unite masks, in the orientation of the PONI (decision 4); None for none.

    Parameters
    ----------
    references
        File, ``file.h5::/dataset``, or shipped name; ``…@stored`` lies like the stored frames.
    shape
        Rows and columns of an oriented frame.

    Raises
    ------
    InputError
        For a mask of another shape, or masks that leave no pixel.
    """
    parts = []
    for reference in references:
        name = reference.removesuffix("@stored")
        stored = name != reference
        path = shipped_masks().get(name)
        plane, digest = read_plane(str(path) if path else name, "mask")
        pixels = plane != 0
        if stored:
            pixels = np.asarray(oriented(pixels, flip, rotate))
        if pixels.shape != shape:
            raise InputError(
                f"mask {name} has {pixels.shape[0]} x {pixels.shape[1]} pixels, the oriented "
                f"frames have {shape[0]} x {shape[1]}; expected a mask of the same detector"
                + (" (it fits transposed)." if pixels.shape == shape[::-1] else ".")
            )
        parts.append(Mask(pixels, ((reference, int(pixels.sum()), digest),)))
    if not parts:
        return None
    union = combine(parts)
    if union.pixels.all():
        raise InputError(
            f"the masks {', '.join(references)} leave no pixel: nonzero must mean masked; "
            "invert the mask if it marks good pixels."
        )
    return union


@dataclass(frozen=True)
class Correction:
    """A dark frame or flat field: the mean of every frame it was made of.

    Parameters
    ----------
    plane
        Shape (rows, columns), oriented; NaN where none of its frames measured anything.
    sha256
        Hash of the pixels.
    frames
        How many frames were averaged.
    sources
        (reference, number of frames) of each ``--dark`` or ``--flat``.
    """

    plane: NDArray[np.float32]
    sha256: str
    frames: int
    sources: tuple[tuple[str, int], ...]


def load_correction(
    references: tuple[str, ...],
    what: str,
    shape: tuple[int, int],
    flip: str,
    rotate: int,
    kind: PixelKind | None = None,
) -> Correction | None:
    """Average dark frames or flat fields, oriented; None if none is named.

    Parameters
    ----------
    references
        Each a file, folder, glob or ``file.h5::/dataset`` (all its frames), or ``NAME[i]``: its
        frame i, counted from 0.
    what
        ``dark frame`` or ``flat field``, for messages.
    shape
        Rows and columns of an oriented frame.
    kind
        Of the frames' pixels: values that mean 'no measurement' there are none here either.

    Raises
    ------
    InputMissingError, InputError
        If one is absent, has another shape, or a single one of its frames is bad: a mean must not
        depend on how many of its frames happened to be readable.
    """
    if not references:
        return None
    total: NDArray[np.float64] | None = None
    measured = np.zeros((0, 0), np.int64)
    sources = []
    for reference in references:
        n_frames = 0
        for image in _stack(reference, what):
            n_frames += 1
            turned = oriented(image, flip, rotate)
            if turned.shape != shape:
                raise InputError(
                    f"{what} {reference} has {turned.shape[0]} x {turned.shape[1]} pixels, the "
                    f"oriented frames have {shape[0]} x {shape[1]}."
                )
            if total is None:
                total, measured = np.zeros(shape), np.zeros(shape, np.int64)
            good = ~without_measurement(turned, _sentinels(kind, image.dtype))
            total[good] += turned[good]
            measured += good
        sources.append((reference, n_frames))
    assert total is not None  # a stack has a frame, or raises
    mean = np.divide(total, measured, out=np.full(shape, np.nan), where=measured > 0)
    plane = np.ascontiguousarray(mean, np.float32)
    digest = hashlib.sha256(plane.tobytes()).hexdigest()
    return Correction(plane, digest, sum(n_frames for _, n_frames in sources), tuple(sources))


def _stack(reference: str, what: str) -> Iterator[NDArray[Any]]:
    """The frames that a reference names, one at a time, as stored."""
    chosen = None if Path(reference).exists() else _ONE_OF.match(reference)
    name, place = (chosen[1], int(chosen[2])) if chosen else (reference, None)
    if name.lower().endswith(".npy"):
        yield from _array_stack(Path(name), place, f"{what} {reference}")
        return
    try:
        source = open_frames(name)
    except InputMissingError as error:
        raise InputMissingError(f"{what} {error}") from error
    except InputError as error:
        raise InputError(f"{what}: {error}") from error
    n_frames = len(source.records)
    if place is not None and place >= n_frames:
        raise InputError(f"{what} {reference}: {name} holds frames 0-{n_frames - 1}.")
    for row in range(n_frames) if place is None else (place,):
        record = source.records[row]
        try:
            if record.problem:
                raise FrameError(record.problem, record.reason)
            yield source.read(row).image
        except FrameError as error:
            raise InputError(
                f"{what} {reference}: frame {row} cannot be used ({error.reason}); name the good "
                "ones, or leave the file out."
            ) from error


def _array_stack(path: Path, place: int | None, what: str) -> Iterator[NDArray[Any]]:
    """The planes of a ``.npy`` file: one image, or a stack of shape (frames, rows, columns)."""
    if not path.is_file():
        raise InputMissingError(f"{what} does not exist.")
    try:
        planes = numpy_frames(path)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{what} cannot be read: {error}") from error
    last = len(planes) - 1
    if (place or 0) > last:
        raise InputError(f"{what}: {path} holds {f'frames 0-{last}' if last >= 0 else 'no frame'}.")
    for plane in planes if place is None else planes[place : place + 1]:
        yield np.array(plane)


def _sentinels(kind: PixelKind | None, dtype: np.dtype[Any]) -> tuple[float, ...]:
    """Values without measurement in a plane that may be stored in another dtype than the frames."""
    if kind is None or not (kind.counting and kind.sentinels):
        return () if kind is None else kind.sentinels
    if dtype.kind == "u":
        return (*kind.sentinels, int(np.iinfo(dtype).max))
    return (*kind.sentinels, -1, -2)


# --- one number per frame --------------------------------------------------------------------


def load_monitor(reference: str, source: FrameSource) -> NDArray[np.float64]:
    """Monitor counts of each frame, shape (frames,); NaN where there is none for a frame.

    Parameters
    ----------
    reference
        A name from the metadata (``source.columns``), ``TABLE::COLUMN``, ``FILE.h5::/dataset``, or
        the path of a dataset in the frames' own file.

    Raises
    ------
    InputMissingError, InputError
        If there is no such column, or its rows cannot be told to belong to the frames.
    """
    return _per_frame(reference, source, "monitor")


def load_exposure(reference: str, source: FrameSource) -> NDArray[np.float64]:
    """Exposure time of each frame in s, shape (frames,); NaN where it is not known.

    Parameters
    ----------
    reference
        ``auto`` for what the files state, else as in :func:`load_monitor`.

    Raises
    ------
    InputMissingError, InputError
        If the files state none, or as in :func:`load_monitor`.
    """
    if reference != "auto":
        return _per_frame(reference, source, "exposure time")
    stated = source.exposure
    if stated is None:
        raise InputError(
            f"the metadata of {source.name} ({source.kind}) state no exposure time; name where it "
            f"is: --exposure NAME or TABLE::COLUMN.{_named(source)}"
        )
    if isinstance(stated, np.ndarray):
        return _in_order(stated, "of the metadata", source, "exposure time")
    return np.full(len(source.records), float(stated))


def _per_frame(reference: str, source: FrameSource, what: str) -> NDArray[np.float64]:
    table, separator, column = reference.rpartition("::")
    if separator:
        return _from_table(Path(table), column, source, what)
    values = source.column(reference)
    own = Path(source.name.partition("::")[0])
    if values is None and reference.startswith("/") and own.suffix.lower() in HDF5_SUFFIXES:
        values = read_column(own, reference, what)
    if values is None:
        raise InputError(
            f"{what} '{reference}' is not in the metadata of {source.name}."
            f"{_named(source, reference)} A table is named as TABLE::COLUMN."
        )
    return _in_order(values, reference, source, what)


def _from_table(table: Path, column: str, source: FrameSource, what: str) -> NDArray[np.float64]:
    values = read_column(table, column, what)
    reference = f"{table}::{column}"
    if table.suffix.lower() in HDF5_SUFFIXES:
        return _in_order(values, reference, source, what)
    columns = read_table(table, what)
    name = number_column(columns)
    if name is None or name == column:
        return _in_order(values, reference, source, what)
    numbers = columns[name]
    if np.unique(numbers).size < numbers.size or not np.all(numbers == np.round(numbers)):
        raise InputError(f"{what}: column '{name}' of {table} must number the rows, each once.")
    if not source.numbered:
        if numbers.size == len(source.records) and np.ptp(numbers) >= numbers.size:
            raise InputError(
                f"{what}: column '{name}' of {table} counts {numbers.min():g}-{numbers.max():g} "
                f"with gaps, the frames of {source.name} have no numbers, so that it is not known "
                f"which frame belongs to which row; if the rows are in order, leave '{name}' out."
            )
        return _in_order(values[np.argsort(numbers)], reference, source, what)
    return _by_number(numbers, values, source, f"{what}: column '{name}' of {table}")


def _by_number(
    numbers: NDArray[np.float64], values: NDArray[np.float64], source: FrameSource, where: str
) -> NDArray[np.float64]:
    """Values by acquisition number; NaN for a frame whose number is not in the table."""
    wanted = np.array([record.index for record in source.records], np.float64)
    rows = rows_by_number(numbers, wanted)
    if rows is None:
        raise InputError(
            f"{where} counts {numbers.min():g}-{numbers.max():g}, the frames "
            f"{wanted.min():g}-{wanted.max():g}; number the rows like the frames, or leave that "
            "column out and give one row per frame, in order."
        )
    return np.where(rows >= 0, values[rows], np.nan)


def _in_order(
    values: NDArray[np.float64], reference: str, source: FrameSource, what: str
) -> NDArray[np.float64]:
    n_frames = len(source.records)
    if values.size != n_frames:
        raise InputError(
            f"{what} {reference} has {values.size} values for {n_frames} frames; "
            "expected one per frame, or a table with a column 'frame'."
        )
    return values


def _named(source: FrameSource, wanted: str | None = None) -> str:
    """Which numbers the metadata hold, or the nearest of them."""
    known = set(source.columns)
    for row, record in enumerate(source.records):
        if not record.problem:
            try:
                known |= set(source.read(row).header)
            except FrameError:
                continue
            break
    if not known:
        return " They hold no number per frame."
    return did_you_mean(wanted, known) if wanted else f" There is: {', '.join(sorted(known))}."
