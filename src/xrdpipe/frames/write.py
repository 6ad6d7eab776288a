"""Write detector folders: TIFF or CBF files, or an Eiger-like HDF5 series, frame by frame.

A writer is a context manager that gives a function taking one image at a time; memory holds
one frame whatever the length of the series.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from xrdpipe import __version__
from xrdpipe.errors import InputError, OptionError, did_you_mean
from xrdpipe.quiet import quiet
from xrdpipe.types import BoolArray

WriteFrame = Callable[[NDArray[Any]], None]

FORMATS = ("tiff", "cbf", "eiger")
FORMAT_DTYPE = {"tiff": "int32", "cbf": "int32", "eiger": "uint32"}
"""Native dtype of simulated frames; the sentinel follows from it."""

PIXEL_MASK_GAP, PIXEL_MASK_DEAD, PIXEL_MASK_HOT = 1, 2, 8
"""Bits of a DECTRIS ``pixel_mask``: gap, dead, over-responding."""


@dataclass(frozen=True)
class DetectorDescription:
    """What a detector writes about itself.

    Parameters
    ----------
    name
        For example ``Pilatus300k``.
    pixel_size
        (rows direction, columns direction), m.
    distance
        Sample to detector, m.
    wavelength
        In Å.
    beam_centre
        (column, row) of the direct beam, pixels.
    saturation
        Raw counts at and above which a pixel is saturated.
    pixel_mask
        Shape (rows, columns), bits as above, 0 = good.
    exposure
        Exposure time, s.
    """

    name: str
    pixel_size: tuple[float, float]
    distance: float
    wavelength: float
    beam_centre: tuple[float, float]
    saturation: int
    pixel_mask: NDArray[np.uint32]
    exposure: float = 1.0


def pixel_mask_bits(gaps: BoolArray, dead: BoolArray, hot: BoolArray) -> NDArray[np.uint32]:
    """DECTRIS pixel mask from three boolean masks of one shape."""
    return (
        np.where(gaps, PIXEL_MASK_GAP, 0)
        | np.where(dead, PIXEL_MASK_DEAD, 0)
        | np.where(hot, PIXEL_MASK_HOT, 0)
    ).astype(np.uint32)


def open_writer(
    layout: str, folder: Path, name: str, frames: int, detector: DetectorDescription
) -> contextlib.AbstractContextManager[WriteFrame]:
    """Writer of a series of ``frames`` frames.

    Parameters
    ----------
    layout
        ``tiff``, ``cbf`` or ``eiger``.
    folder
        Existing folder.
    name
        Stem of the file names.
    frames
        Length of the series.
    detector
        Goes into headers or the master file.

    Raises
    ------
    OptionError
        The layout is unknown.
    """
    if layout == "tiff":
        return tiff_writer(folder, name, detector)
    if layout == "cbf":
        return cbf_writer(folder, name, detector)
    if layout == "eiger":
        return eiger_writer(folder, name, frames, detector)
    raise OptionError(f"frame format '{layout}' is unknown.{did_you_mean(layout, FORMATS)}")


def _header_lines(detector: DetectorDescription) -> list[str]:
    """Lines of a DECTRIS mini-header."""
    rows, columns = detector.pixel_size
    return [
        f"# Detector: {detector.name.upper()}, simulated by xrdpipe {__version__}",
        f"# Pixel_size {rows:.4g} m x {columns:.4g} m",
        f"# Exposure_time {detector.exposure:g} s",
        f"# Count_cutoff {detector.saturation} counts",
        f"# Wavelength {detector.wavelength:g} A",
        f"# Detector_distance {detector.distance:g} m",
        f"# Beam_xy ({detector.beam_centre[0]:.2f}, {detector.beam_centre[1]:.2f}) pixels",
    ]


@contextlib.contextmanager
def tiff_writer(folder: Path, name: str, detector: DetectorDescription) -> Iterator[WriteFrame]:
    """Write ``NAME_00001.tif`` …, uncompressed, in the dtype of the images (integer)."""
    with quiet():
        from fabio.TiffIO import TiffIO
    lines = _header_lines(detector)
    # TiffIO joins key and value by "=": the last line takes that form, as in "# Tau = 0 s".
    description = {"\r\n".join(lines) + "\r\n# N_oscillations ": " 1"}
    number = 0

    def write(image: NDArray[Any]) -> None:
        nonlocal number
        _check(image, detector)
        number += 1
        file = TiffIO(str(folder / f"{name}_{number:05d}.tif"), mode="wb+")
        file.writeImage(np.ascontiguousarray(image), info=description, software="xrdpipe")

    yield write


@contextlib.contextmanager
def cbf_writer(folder: Path, name: str, detector: DetectorDescription) -> Iterator[WriteFrame]:
    """Write ``NAME_00001.cbf`` …, byte-offset compressed int32 with a mini-header."""
    with quiet():
        from fabio.cbfimage import CbfImage
    header = {
        "_array_data.header_convention": "PILATUS_1.2",
        "_array_data.header_contents": "\r\n".join(_header_lines(detector)),
    }
    number = 0

    def write(image: NDArray[Any]) -> None:
        nonlocal number
        _check(image, detector)
        if image.dtype != np.int32:
            raise InputError(f"CBF frames are int32; got {image.dtype}.")
        number += 1
        CbfImage(data=image, header=dict(header)).write(str(folder / f"{name}_{number:05d}.cbf"))

    yield write


def write_edf(path: Path, image: NDArray[Any], header: dict[str, str]) -> None:
    """Write one image as EDF with a few lines of header; the suffix of ``path`` is free."""
    with quiet():
        from fabio.edfimage import EdfImage

        EdfImage(data=np.ascontiguousarray(image), header=dict(header)).write(str(path))


@contextlib.contextmanager
def eiger_writer(
    folder: Path,
    name: str,
    frames: int,
    detector: DetectorDescription,
    *,
    frames_per_file: int = 1000,
) -> Iterator[WriteFrame]:
    """Write ``NAME_master.h5`` with external links to ``NAME_data_000001.h5`` ….

    The tree is that of a DECTRIS FileWriter; frames are uint32, bitshuffle-LZ4, one per chunk.
    A series that ends early leaves data files of the frames written; links to files that were
    never written dangle, as they do after an abort.
    """
    files = -(-frames // frames_per_file)
    _write_master(folder / f"{name}_master.h5", name, frames, files, detector)
    rows, columns = detector.pixel_mask.shape
    written = 0
    current: h5py.File | None = None

    def close() -> None:
        nonlocal current
        if current is None:
            return
        data = current["entry/data/data"]
        held = (written - 1) % frames_per_file + 1
        data.resize(held, axis=0)
        data.attrs["image_nr_low"] = np.int32(written - held + 1)
        data.attrs["image_nr_high"] = np.int32(written)
        current.close()
        current = None

    def write(image: NDArray[Any]) -> None:
        nonlocal written, current
        _check(image, detector)
        if image.dtype != np.uint32:
            raise InputError(f"Eiger frames are uint32; got {image.dtype}.")
        place = written % frames_per_file
        if place == 0:
            close()
            number = written // frames_per_file + 1
            current = h5py.File(folder / f"{name}_data_{number:06d}.h5", "w")
            group = _nexus_group(_nexus_group(current, "entry", "NXentry"), "data", "NXdata")
            group.create_dataset(
                "data",
                shape=(min(frames_per_file, max(frames - written, 1)), rows, columns),
                maxshape=(None, rows, columns),
                dtype=np.uint32,
                chunks=(1, rows, columns),
                **hdf5plugin.Bitshuffle(cname="lz4"),
            )
        assert current is not None
        data = current["entry/data/data"]
        if place >= data.shape[0]:
            data.resize(place + 1, axis=0)
        data[place] = image
        written += 1

    try:
        yield write
    finally:
        close()


def _nexus_group(parent: h5py.Group, name: str, nx_class: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = nx_class
    return group


def _write_master(
    path: Path, name: str, frames: int, files: int, detector: DetectorDescription
) -> None:
    """Metadata of the series, and the links."""
    rows, columns = detector.pixel_mask.shape

    def put(group: h5py.Group, key: str, value: Any, units: str | None = None) -> None:
        dataset = group.create_dataset(key, data=value)
        if units is not None:
            dataset.attrs["units"] = units

    with h5py.File(path, "w") as master:
        entry = _nexus_group(master, "entry", "NXentry")
        put(entry, "definition", "NXmx")
        data = _nexus_group(entry, "data", "NXdata")
        data.attrs["signal"] = "data_000001"
        for number in range(1, files + 1):
            data[f"data_{number:06d}"] = h5py.ExternalLink(
                f"{name}_data_{number:06d}.h5", "/entry/data/data"
            )
        instrument = _nexus_group(entry, "instrument", "NXinstrument")
        beam = _nexus_group(instrument, "beam", "NXbeam")
        put(beam, "incident_wavelength", detector.wavelength, "angstrom")
        group = _nexus_group(instrument, "detector", "NXdetector")
        put(group, "description", f"Simulated {detector.name}")
        put(group, "bit_depth_image", np.uint32(32))
        put(group, "bit_depth_readout", np.uint32(32))
        put(group, "saturation_value", np.uint32(detector.saturation))
        put(group, "beam_center_x", detector.beam_centre[0], "pixel")
        put(group, "beam_center_y", detector.beam_centre[1], "pixel")
        put(group, "detector_distance", detector.distance, "m")
        put(group, "y_pixel_size", detector.pixel_size[0], "m")
        put(group, "x_pixel_size", detector.pixel_size[1], "m")
        put(group, "count_time", detector.exposure, "s")
        put(group, "frame_time", detector.exposure, "s")
        specific = _nexus_group(group, "detectorSpecific", "NXcollection")
        put(specific, "nimages", np.uint32(frames))
        put(specific, "ntrigger", np.uint32(1))
        put(specific, "countrate_correction_count_cutoff", np.uint32(detector.saturation))
        put(specific, "x_pixels_in_detector", np.uint32(columns))
        put(specific, "y_pixels_in_detector", np.uint32(rows))
        specific.create_dataset(
            "pixel_mask",
            data=detector.pixel_mask,
            chunks=(rows, columns),
            **hdf5plugin.Bitshuffle(cname="lz4"),
        )
        group["pixel_mask"] = h5py.SoftLink(
            "/entry/instrument/detector/detectorSpecific/pixel_mask"
        )


def _check(image: NDArray[Any], detector: DetectorDescription) -> None:
    if image.shape != detector.pixel_mask.shape or image.dtype.kind not in "iu":
        raise InputError(
            f"expected an integer frame of shape {detector.pixel_mask.shape}; got "
            f"{image.dtype} of shape {image.shape}."
        )
