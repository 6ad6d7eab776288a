"""Images and columns that go with frames: masks, dark, flat, monitor."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import FrameError, InputError, InputMissingError, did_you_mean
from xrdpipe.frames.dead import oriented
from xrdpipe.frames.hdf5 import HDF5_SUFFIXES, Hdf5Series, open_hdf5
from xrdpipe.frames.images import read_image
from xrdpipe.masks import combine, shipped_masks
from xrdpipe.types import FrameSource, Mask


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
    try:
        if path.suffix.lower() == ".npy":
            plane = np.load(path, allow_pickle=False)
        elif dataset or path.suffix.lower() in HDF5_SUFFIXES:
            series = open_hdf5(path, dataset or None)
            stack = [series.read(row).image for row in range(len(series.records))]
            plane = stack[0] if len(stack) == 1 else np.mean(stack, axis=0)
        else:
            plane = read_image(path).image
    except (FrameError, ValueError, OSError, EOFError) as error:
        raise InputError(f"{what} {path} cannot be read: {error}") from error
    if plane.dtype.kind == "b":
        plane = plane.astype(np.uint8)
    if plane.ndim != 2 or plane.dtype.kind not in "uif":
        raise InputError(f"{what} {path} is no image: {plane.ndim} dimensions of {plane.dtype}.")
    return plane, digest


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


def load_correction(
    reference: str | None, what: str, shape: tuple[int, int], flip: str, rotate: int
) -> tuple[NDArray[np.float32] | None, str]:
    """Read a dark frame or flat field, oriented; (None, "") if none is named."""
    if reference is None:
        return None, ""
    plane, digest = read_plane(reference, what)
    plane = np.ascontiguousarray(oriented(plane, flip, rotate), np.float32)
    if plane.shape != shape:
        raise InputError(
            f"{what} {reference} has {plane.shape[0]} x {plane.shape[1]} pixels, the oriented "
            f"frames have {shape[0]} x {shape[1]}."
        )
    return plane, digest


def load_monitor(reference: str, source: FrameSource) -> NDArray[np.float64]:
    """Monitor counts of each frame, shape (frames,); NaN where a header lacks the key.

    Raises
    ------
    InputError
        If the key or column is unknown, or the number of values differs from that of frames.
    """
    n_frames = len(source.records)
    name, _, column = reference.partition("::")
    if column:
        values = _column(Path(name), column)
    elif isinstance(source, Hdf5Series):
        found = source.values(reference)
        if found is None:
            raise InputError(f"monitor '{reference}' is no numeric dataset of {source.name}.")
        values = found
    else:
        return _header_values(reference, source)
    if values.size != n_frames:
        raise InputError(
            f"monitor {reference} has {values.size} values for {n_frames} frames; "
            "expected one per frame."
        )
    return values


def _header_values(key: str, source: FrameSource) -> NDArray[np.float64]:
    first = source.header if hasattr(source, "header") else {}
    if key not in first:
        raise InputError(
            f"monitor '{key}' is not in the headers of {source.name}."
            + (did_you_mean(key, first) if first else " The headers are empty.")
        )
    values = np.full(len(source.records), np.nan)
    for row in range(values.size):
        try:
            values[row] = float(source.read(row).header[key].split()[0])
        except (FrameError, KeyError, ValueError, IndexError):
            continue  # NaN: the frame is flagged low_monitor and skipped, never taken as 1.0
    return values


def _column(path: Path, column: str) -> NDArray[np.float64]:
    if not path.is_file():
        raise InputMissingError(f"monitor file {path} does not exist.")
    if path.suffix.lower() in HDF5_SUFFIXES:
        with h5py.File(path, "r", locking=False) as file:
            if column not in file:
                raise InputError(f"monitor: {path} has no dataset {column}.")
            return np.asarray(file[column][()], np.float64).ravel()
    lines = [line.lstrip("# ").strip() for line in path.read_text().splitlines() if line.strip()]
    separator = "," if lines and "," in lines[0] else None
    table = [[cell.strip() for cell in line.split(separator)] for line in lines]
    names = table[0] if table else []
    if column.isdigit() and column not in names:
        place, rows = int(column), table if _is_number(names[0]) else table[1:]
    elif column in names:
        place, rows = names.index(column), table[1:]
    else:
        raise InputError(f"monitor: {path} has no column '{column}'.{did_you_mean(column, names)}")
    try:
        return np.array([float(row[place]) for row in rows])
    except (ValueError, IndexError) as error:
        raise InputError(f"monitor: column '{column}' of {path} is not numeric: {error}") from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
