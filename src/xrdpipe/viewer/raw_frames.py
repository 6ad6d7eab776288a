"""The detector frame behind a pixel, with the rings of the phases and the mask."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xrdpipe.crystal import PhaseLines
from xrdpipe.errors import InputMissingError
from xrdpipe.frames import open_frames
from xrdpipe.frames.dead import oriented
from xrdpipe.integration.geometry import Geometry, load_geometry
from xrdpipe.store.frame_origin import FrameOrigin
from xrdpipe.types import BoolArray, FrameSource

DRAWN = 700
"""Pixels of the picture along its longer side; larger frames are averaged down."""

RINGS = 8
"""Strongest lines of each phase that are drawn as rings."""

FINE = 250
"""Points along the longer side at which angles are known for the rings."""


@dataclass(frozen=True)
class FramePicture:
    """A frame in the orientation of the geometry, averaged down.

    Parameters
    ----------
    counts
        Shape (h, w) float32, mean of the pixels that measure something, NaN where none does.
    masked
        Same shape: parts of which more than half is masked.
    shape
        Rows and columns of the frame itself.
    name
        File it comes from.
    """

    counts: NDArray[np.float32]
    masked: BoolArray
    shape: tuple[int, int]
    name: str


@dataclass(frozen=True)
class Ring:
    """Where a line lies on the detector: pieces of (column, row) in pixels."""

    hkl: str
    two_theta: float
    columns: tuple[NDArray[np.float64], ...]
    rows: tuple[NDArray[np.float64], ...]


class RawFrames:
    """The frames of a patterns file; finds and opens them when first asked.

    Parameters
    ----------
    origin
        What the patterns file says of them.
    near
        Folders that relative names of frames may be relative to.
    """

    def __init__(self, origin: FrameOrigin, near: Sequence[Path]) -> None:
        self._origin = origin
        self._near = tuple(near)
        self._series: FrameSource | None = None
        self._rows: dict[tuple[str, int], int] = {}
        self._geometry: Geometry | None = None

    def picture(self, row: int) -> FramePicture:
        """Read the frame of a row of the patterns.

        Raises
        ------
        InputMissingError
            If the frames have gone.
        FrameError
            If this one cannot be read.
        """
        origin = self._origin
        series, place = self._find(row)
        image = oriented(series.read(place).image, origin.flip, origin.rotate)
        dead = origin.mask if origin.mask.shape == image.shape else np.zeros(image.shape, bool)
        counts = image.astype(np.float32)
        counts[np.isin(image, origin.sentinels)] = np.nan
        step = -(-max(image.shape) // DRAWN)
        return FramePicture(
            block_mean(counts, step),
            block_mean(dead.astype(np.float32), step) > 0.5,
            (image.shape[0], image.shape[1]),
            origin.files[row],
        )

    def rings(self, shape: tuple[int, int], lines: PhaseLines) -> list[Ring]:
        """The strongest lines of a phase on frames of a shape."""
        geometry = self._calibrated(shape)
        angle = lines.two_theta(geometry.wavelength)
        low, high = geometry.two_theta_range
        seen = np.flatnonzero((angle > low) & (angle < high))
        strongest = seen[np.argsort(-lines.intensity[seen])[:RINGS]]
        return [
            _ring(geometry, " ".join(map(str, lines.hkl[i].tolist())), float(angle[i]))
            for i in np.sort(strongest)
        ]

    def _calibrated(self, shape: tuple[int, int]) -> Geometry:
        if self._geometry is None:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "geometry.poni"
                path.write_text(self._origin.poni)
                geometry = load_geometry(path, shape, self._origin.wavelength)
                _ = geometry.two_theta  # while the file is there
            self._geometry = geometry
        return self._geometry

    def _find(self, row: int) -> tuple[FrameSource, int]:
        """A series that holds the frame of a row, and its place there."""
        name, place = self._origin.files[row], self._origin.places[row]
        file, _, dataset = name.partition("::")
        path = next((p for p in self._candidates(file) if p.is_file()), None)
        if path is None:
            raise InputMissingError(
                f"The frames have gone: {file} is not where it was when the patterns were made, "
                "nor beside them."
            )
        path = path.resolve()
        if self._series is None or (str(path), place) not in self._rows:
            self._series = open_frames(f"{path}::{dataset}" if dataset else path)
            self._rows = {
                (str(Path(record.file.partition("::")[0]).resolve()), record.place): number
                for number, record in enumerate(self._series.records)
            }
        found = self._rows.get((str(path), place))
        if found is None:
            raise InputMissingError(f"{path} holds no frame {place} any more.")
        return self._series, found

    def _candidates(self, file: str) -> Iterator[Path]:
        """Places where a recorded file may lie."""
        for given in self._origin.given:
            base = Path(given.partition("::")[0])
            for folder in (Path(), *self._near):
                yield folder / base / file
                yield folder / base.parent / file
        for folder in self._near:
            yield folder / file


def _ring(geometry: Geometry, hkl: str, angle: float) -> Ring:
    """The contour of one 2θ."""
    from contourpy import contour_generator

    step = max(max(geometry.shape) // FINE, 1)
    rows = np.arange(0, geometry.shape[0], step)
    columns = np.arange(0, geometry.shape[1], step)
    height = geometry.two_theta[::step, ::step]
    pieces = contour_generator(columns, rows, height).lines(angle)
    return Ring(
        hkl,
        angle,
        tuple(np.asarray(piece)[:, 0] for piece in pieces),
        tuple(np.asarray(piece)[:, 1] for piece in pieces),
    )


def block_mean(values: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """Means over blocks of step x step that leave NaN out; the last blocks may be smaller."""
    if step == 1:
        return values
    known = np.isfinite(values)
    total, number = np.where(known, values, 0).astype(np.float64), known.astype(np.float64)
    for axis, size in enumerate(values.shape):
        starts = np.arange(0, size, step)
        total = np.add.reduceat(total, starts, axis=axis)
        number = np.add.reduceat(number, starts, axis=axis)
    with np.errstate(invalid="ignore"):
        return np.asarray(total / np.where(number > 0, number, np.nan), np.float32)
