"""Write a series of frames in any file layout the reader knows, one frame at a time.

A writer is a context manager that gives a function taking one image at a time; memory holds
one frame whatever the length of the series. What an exception interrupts is no whole series to a
reader: files that are not complete are absent, frames that were announced and never came are
missing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import InputError, OptionError, did_you_mean
from xrdpipe.frames.writers import (
    areadetector,
    bliss,
    dectris,
    edf,
    lima,
    mar345,
    maxiv,
    minicbf,
    nexus,
    petra,
    raw,
    stack,
    tiff,
)
from xrdpipe.frames.writers.edf import write_edf
from xrdpipe.frames.writers.series import (
    DetectorDescription,
    ScanDescription,
    Series,
    Writer,
    pixel_mask_bits,
)
from xrdpipe.types import IntArray

__all__ = [
    "FORMATS",
    "FORMAT_DTYPE",
    "PIXEL_MASK_FORMATS",
    "DetectorDescription",
    "ScanDescription",
    "WriteFrame",
    "open_writer",
    "pixel_mask_bits",
    "stored_order",
    "write_edf",
]

WriteFrame = Callable[[NDArray[Any]], None]


@dataclass(frozen=True)
class FileLayout:
    """A file layout.

    Parameters
    ----------
    write
        Its writer.
    dtype
        Native dtype of the frames.
    pixel_mask
        True if it stores one.
    by_place
        True if frames lie at their place on the map, not in the order of measurement.
    """

    write: Writer
    dtype: str
    pixel_mask: bool = False
    by_place: bool = False


LAYOUTS = {
    "tiff": FileLayout(tiff.single, "int32"),
    "tiff-stack": FileLayout(tiff.stack, "int32"),
    "cbf": FileLayout(minicbf.cbf, "int32"),
    "edf": FileLayout(edf.single, "int32"),
    "edf-stack": FileLayout(edf.stack, "int32"),
    "marccd": FileLayout(tiff.marccd, "uint16"),
    "mar345": FileLayout(mar345.mar345, "uint32"),
    "spe": FileLayout(raw.spe, "uint16"),
    "ge": FileLayout(raw.ge, "uint16"),
    "eiger": FileLayout(dectris.legacy, "uint32", pixel_mask=True),
    "eiger-4d": FileLayout(dectris.channels, "uint32", pixel_mask=True),
    "lima": FileLayout(lima.lima, "uint32"),
    "bliss": FileLayout(bliss.bliss, "uint32"),
    "areadetector": FileLayout(areadetector.areadetector, "int32"),
    "maxiv": FileLayout(maxiv.maxiv, "int32"),
    "petra": FileLayout(petra.petra, "uint32", pixel_mask=True),
    "nexus": FileLayout(nexus.diamond, "uint32", pixel_mask=True, by_place=True),
    "nexus-stack": FileLayout(nexus.stack, "uint32", pixel_mask=True),
    "hdf5": FileLayout(stack.plain, "uint32"),
}

FORMATS = tuple(LAYOUTS)
FORMAT_DTYPE = {name: layout.dtype for name, layout in LAYOUTS.items()}
"""Native dtype of the frames; the sentinel follows from it."""
PIXEL_MASK_FORMATS = frozenset(name for name, layout in LAYOUTS.items() if layout.pixel_mask)
"""Layouts that store the pixel mask: their detectors blank known bad pixels, too."""


def open_writer(
    layout: str,
    folder: Path,
    name: str,
    frames: int,
    detector: DetectorDescription,
    scan: ScanDescription | None = None,
) -> contextlib.AbstractContextManager[WriteFrame]:
    """Writer of a series of ``frames`` frames, which come in the order of measurement.

    Parameters
    ----------
    layout
        One of ``FORMATS``.
    folder
        Existing folder.
    name
        Stem of the file names.
    frames
        Length of the series.
    detector, scan
        Go into headers or metadata, as far as the layout has a place for them.

    Raises
    ------
    OptionError
        The layout is unknown.
    InputError
        The scan does not have that many frames; later, for a frame of another shape or dtype, or
        one too many.
    """
    if layout not in LAYOUTS:
        raise OptionError(f"frame format '{layout}' is unknown.{did_you_mean(layout, FORMATS)}")
    if scan is not None:
        monitor = frames if scan.monitor is None else scan.monitor.size
        if not scan.shape[0] * scan.shape[1] == len(scan.positions) == monitor == frames:
            raise InputError(
                f"a scan of {scan.shape[0]}x{scan.shape[1]} with {len(scan.positions)} positions "
                f"and {monitor} monitor values cannot describe {frames} frames; expected one of "
                "each per frame."
            )
    if Path(name).name != name:
        raise InputError(f"the series name '{name}' is no name of a file; leave out the folder.")
    chosen = LAYOUTS[layout]
    series = Series(folder, name, frames, detector, scan, np.dtype(chosen.dtype))
    return _checked(layout, series, chosen.write)


@contextlib.contextmanager
def _checked(layout: str, series: Series, writer: Writer) -> Iterator[WriteFrame]:
    """A writer that counts the frames and refuses those that do not belong to the series."""
    written = 0
    with writer(series) as put:

        def write(image: NDArray[Any]) -> None:
            nonlocal written
            if image.shape != series.shape or image.dtype != series.dtype:
                raise InputError(
                    f"frames in format '{layout}' of this detector are {series.dtype} of shape "
                    f"{series.shape}; got {image.dtype} of shape {image.shape}."
                )
            if written == series.frames:
                raise InputError(f"series '{series.name}' has all its {series.frames} frames.")
            put(written, image)
            written += 1

        yield write


def stored_order(layout: str, scan: ScanDescription) -> IntArray:
    """Number in the order of measurement, from 0, of each frame in the order of the files."""
    if LAYOUTS[layout].by_place:
        return np.argsort(scan.cells)
    return np.arange(len(scan.positions))
