"""Detector folders for the benchmarks: simulated once, then shortened or repeated.

A folder of any length is made from the simulated one without decoding a frame: image files become
hard links under new numbers, frames of an Eiger series are copied as compressed chunks, and a
long Eiger master links the same data file several times. Repeated frames cost the reader exactly
what distinct ones cost, only the disk (and the page cache) holds them once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np

COUNTS = {"low": 10.0, "high": 1000.0}
"""Mean counts per pixel at the strongest line."""

DISTANCE = {
    "Eiger500k": 0.10,
    "Eiger1M": 0.12,
    "Eiger4M": 0.24,
    "Eiger9M": 0.36,
    "Eiger16M": 0.48,
    "Pilatus300k": 0.14,
    "Pilatus1M": 0.26,
    "Pilatus2M": 0.37,
    "HF-4M": 0.47,
}
"""Sample to detector in m, so that the corners lie at about 25° and the grid 5-24° is covered."""

WAVELENGTH = 0.4959
"""Of the simulated frames and of the stand-in model, Å."""

STAND_IN = "stand-in-model"

SUFFIX = {"tiff": ".tif", "tiff16": ".tif", "cbf": ".cbf"}

SENTINEL16 = 65535
"""Of pixels without measurement in ``tiff16`` frames."""


PAPER_RECIPE = """
[train]
network = "paper"
channels = ["minmax"]
epochs = 1
patterns_per_epoch = 32
batch = 32
held_out = 32
workers = 0
precision = "float32"

[synthesis]
"""


@dataclass(frozen=True)
class Series:
    """A folder of frames with its geometry.

    Parameters
    ----------
    folder
        Holds nothing but frames.
    poni
        Geometry file.
    layout
        ``eiger``, ``tiff``, ``tiff16`` (unsigned, 16 bits) or ``cbf``.
    frames
        Number of frames.
    """

    folder: Path
    poni: Path
    layout: str
    frames: int

    @property
    def files(self) -> list[Path]:
        """What a command line takes: the image files, or the one master file."""
        if self.layout == "eiger":
            return sorted(self.folder.glob("*_master.h5"))
        return sorted(self.folder.glob(f"*{SUFFIX[self.layout]}"))


def scan_shape(frames: int) -> tuple[int, int]:
    """Rows and columns of the map with this many points that is nearest to a square."""
    rows = max(n for n in range(1, int(frames**0.5) + 1) if frames % n == 0)
    return rows, frames // rows


def simulated(
    work: Path, detector: str, layout: str, frames: int, counts: float, seed: int = 5
) -> Series:
    """Simulate a folder, or reuse the one that an earlier call with these values left."""
    rows, columns = scan_shape(frames)
    folder = work / f"{detector}-{layout}-{counts:g}-{rows}x{columns}-{seed}"
    command = [*xrdpipe(), "simulate", "-o", str(folder), "--scan-shape", f"{rows}x{columns}"]
    written = "tiff" if layout == "tiff16" else layout
    command += ["--seed", str(seed), "--detector", detector, "--format", written]
    command += ["--counts", f"{counts:g}", "--distance", f"{DISTANCE.get(detector, 0.2):g}"]
    command += ["--wavelength", str(WAVELENGTH)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    series = Series(folder / "frames", folder / "geometry.poni", layout, frames)
    return _as_uint16(series, folder / "frames16") if layout == "tiff16" else series


def _as_uint16(series: Series, target: Path) -> Series:
    """The same frames as a camera of 16 bits writes them."""
    import fabio
    from fabio.tifimage import TifImage

    target.mkdir(exist_ok=True)
    for file in series.files:
        if not (target / file.name).exists():
            counts = fabio.open(str(file)).data
            cut = np.where(counts < 0, SENTINEL16, np.minimum(counts, SENTINEL16 - 1))
            TifImage(data=cut.astype(np.uint16)).write(str(target / file.name))
    return Series(target, series.poni, series.layout, series.frames)


def xrdpipe() -> list[str]:
    """The command of the installation this Python belongs to."""
    return [sys.executable, "-c", "from xrdpipe.cli import main; main()"]


def of_length(source: Series, frames: int, target: Path) -> Series:
    """The first ``frames`` frames of a series, or, if it is shorter, its frames over and over."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    if source.layout == "eiger":
        _eiger(source, frames, target)
    else:
        originals = source.files
        for number in range(frames):
            original = originals[number % len(originals)]
            new = target / f"map_{number + 1:05d}{original.suffix}"
            try:
                os.link(original, new)
            except OSError:  # another file system, or one without links
                shutil.copyfile(original, new)
    return Series(target, source.poni, source.layout, frames)


def _eiger(source: Series, frames: int, target: Path) -> None:
    (original,) = source.files
    held = min(source.frames, frames)
    _copy_chunks(original, held, target / "held.h5")
    links = ["held.h5"] * (frames // held)
    if frames % held:
        _copy_chunks(original, frames % held, target / "rest.h5")
        links.append("rest.h5")
    shutil.copyfile(original, target / original.name)
    with h5py.File(target / original.name, "r+") as master:
        data = master["entry/data"]
        for name in list(data):
            del data[name]
        for number, file in enumerate(links, start=1):
            data[f"data_{number:06d}"] = h5py.ExternalLink(file, "/entry/data/data")
        master["entry/instrument/detector/detectorSpecific/nimages"][()] = frames


def _copy_chunks(master: Path, frames: int, target: Path) -> None:
    """Copy the first frames as they are compressed.

    The data file gets no ``image_nr_low``: it may stand at several places of a series.
    """
    with h5py.File(master, "r") as file, h5py.File(target, "w") as new:
        group = file["entry/data"]
        first = group[next(iter(group))]
        copy = new.create_dataset(
            "entry/data/data",
            (frames, *first.shape[1:]),
            first.dtype,
            chunks=(1, *first.shape[1:]),
            **hdf5plugin.Bitshuffle(cname="lz4"),
        )
        done = 0
        for data in group.values():
            for place in range(min(data.shape[0], frames - done)):
                filters, chunk = data.id.read_direct_chunk((place, 0, 0))
                copy.id.write_direct_chunk((done, 0, 0), chunk, filters)
                done += 1


def dead_pixels(series: Series) -> np.ndarray:
    """Pixels that the first frame marks as without measurement, True = masked."""
    if series.layout == "eiger":
        with h5py.File(series.files[0], "r") as file:
            group = file["entry/data"]
            first = group[next(iter(group))][0]
            known = file["entry/instrument/detector/pixel_mask"][()] > 0
        return known | (first == np.iinfo(first.dtype).max)
    import fabio

    first = fabio.open(str(series.files[0])).data
    return first == SENTINEL16 if series.layout == "tiff16" else first < 0


def paper_model(work: Path) -> Path:
    """A model with the network of Li et al. (2024) and weights from seconds of training.

    The time of a network does not depend on its weights.
    """
    folder = work / "paper-network"
    if not (folder / "model.json").is_file():
        recipe = work / "paper-network.toml"
        recipe.write_text(PAPER_RECIPE)
        command = [*xrdpipe(), "train", "--recipe", str(recipe), "-o", str(folder)]
        command += ["--wavelength", str(WAVELENGTH)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def find_or_train_model(name: str | None, work: Path) -> Path:
    """The model asked for, the shipped one, or, if none ships, one trained for seconds.

    The time of a network does not depend on its weights.
    """
    from xrdpipe.nn.model_folder import CARD, find_model, shipped_models

    if name is not None or shipped_models():
        return find_model(name)
    folder = work / STAND_IN
    if not (folder / CARD).is_file():
        command = [*xrdpipe(), "train", "--recipe", "train-tiny", "-o", str(folder)]
        command += ["--wavelength", str(WAVELENGTH)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder
