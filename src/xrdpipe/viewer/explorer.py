"""What is being looked at: a map, a pixel, a region, thresholds. Knows nothing of the browser."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe import schema
from xrdpipe.map_colors import STATUS_WORDS, combination_label
from xrdpipe.maps import PhaseMap, decide
from xrdpipe.schema import FrameStatus
from xrdpipe.store.exports import xye_text
from xrdpipe.store.frame_origin import frame_origin
from xrdpipe.store.map_record import MapRecord
from xrdpipe.types import BoolArray
from xrdpipe.viewer.plane import Pixel, Plane, plane_of
from xrdpipe.viewer.spectra import Spectra, Spectrum
from xrdpipe.viewer.views import MapView, pixels, view_of

if TYPE_CHECKING:
    from xrdpipe.viewer.raw_frames import RawFrames

DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class PixelFacts:
    """A pixel in words and numbers.

    Parameters
    ----------
    answer, unknown, place, frame
        One line each; ``unknown`` is empty where the model cannot tell.
    probability, spread
        Shape (K,), NaN where undetermined.
    """

    answer: str
    unknown: str
    place: str
    frame: str
    probability: NDArray[np.float32]
    spread: NDArray[np.float32]


class Explorer:
    """One map under somebody's eyes.

    Parameters
    ----------
    record
        Of the map file.
    before
        What was looked at before the file was read anew: pixel, region and thresholds stay.
    """

    def __init__(self, record: MapRecord, before: Explorer | None = None) -> None:
        self.record = record
        self.plane: Plane = plane_of(record.phase_map.scan)
        self.spectra = Spectra(record)
        names = record.phase_map.phase_names
        stored = record.model.get("threshold", DEFAULT_THRESHOLD)
        self.thresholds = np.full(len(names), float(stored))
        self.unknown_threshold = record.phase_map.unknown_threshold
        self.region: Mapping[str, Any] | None = None
        self.pixel = _first(record.phase_map)
        if before is not None and before.names == names:
            self.thresholds = before.thresholds.copy()
            if before.unknown_threshold is not None and self.unknown_threshold is not None:
                self.unknown_threshold = before.unknown_threshold
            self.region = before.region
            ny, nx = self.plane.shape
            if before.pixel[0] < ny and before.pixel[1] < nx:
                self.pixel = before.pixel
        self._decided: PhaseMap | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Phases in class order."""
        return self.record.phase_map.phase_names

    def close(self) -> None:
        """Close the files."""
        self.spectra.close()

    # --- the map -----------------------------------------------------------------------------

    @property
    def phase_map(self) -> PhaseMap:
        """The maps as the thresholds decide."""
        if self._decided is None:
            stored = self.record.phase_map
            decided = decide(
                stored.probability,
                stored.unknown,
                stored.status == FrameStatus.OK,
                self.thresholds,
                self.unknown_threshold,
            )
            changed = {f.name: getattr(decided, f.name) for f in dataclasses.fields(decided)}
            self._decided = dataclasses.replace(
                stored, unknown_threshold=self.unknown_threshold, **changed
            )
        return self._decided

    def set_threshold(self, value: float, phase: str | None = None) -> None:
        """From which probability on a phase, or every phase, counts as present."""
        if phase is None:
            self.thresholds[:] = value
        else:
            self.thresholds[self.names.index(phase)] = value
        self._decided = None

    def set_unknown_threshold(self, value: float) -> None:
        """From which score on a pixel without any phase holds something unknown."""
        if self.record.phase_map.unknown_threshold is not None:
            self.unknown_threshold = value
            self._decided = None

    def view(self, name: str) -> MapView:
        """A picture of the map."""
        return view_of(self.phase_map, name)

    @property
    def headline(self) -> str:
        """What the map is, in one line."""
        status = self.record.phase_map.status
        ny, nx = self.plane.shape
        shape = f"{nx} points" if self.plane.scattered else f"{ny} × {nx} pixels"
        parts = [shape]
        if self.record.pending is not None:
            parts.append(f"{pixels(self.record.pending)} still to come")
        lost = int(np.count_nonzero(~np.isin(status, [FrameStatus.OK, FrameStatus.PENDING])))
        if lost:
            parts.append(f"{lost} without a result")
        model = str(self.record.model.get("name", ""))
        if model:
            parts.append(f"model {model}")
        parts.append(f"from {' and '.join(self.record.variants)} patterns")
        return ", ".join(parts)

    # --- the pixel ---------------------------------------------------------------------------

    def select(self, x: float, y: float) -> bool:
        """Go to the pixel at a place; False outside the map."""
        found = self.plane.at(x, y)
        if found is not None:
            self.pixel = found
        return found is not None

    def step(self, right: int, down: int) -> None:
        """Go some pixels on."""
        self.pixel = self.plane.moved(self.pixel, right, down)

    @property
    def row(self) -> int:
        """Row of the pixel in the patterns, −1 where there is none."""
        return int(self.record.phase_map.scan.frame_index[self.pixel])

    @property
    def spectrum(self) -> tuple[Spectrum, ...]:
        """Its patterns; none where it has no frame, or they are not at hand."""
        return self.spectra.of_row(self.row) if self.spectra.files and self.row >= 0 else ()

    @property
    def facts(self) -> PixelFacts:
        """The pixel in words and numbers."""
        phase_map = self.phase_map
        everywhere = (slice(None), *self.pixel)
        return PixelFacts(
            self._answer(),
            self._unknown(),
            self._place(),
            self._frame(),
            phase_map.probability[everywhere],
            phase_map.spread[everywhere],
        )

    def _place(self) -> str:
        row, column = self.pixel
        scan = self.record.phase_map.scan
        text = f"point {column}" if scan.irregular else f"row {row}, column {column}"
        for axis, actual, at in (
            (scan.x, scan.x_actual, column),
            (scan.y, scan.y_actual, row),
        ):
            if axis is None:
                continue
            value = float(axis.values[at]) if not scan.irregular else np.nan
            if actual is not None and np.isfinite(actual[self.pixel]):
                value = float(actual[self.pixel])
            text += f" · {axis.name} = {value:.6g}{f' {axis.units}' if axis.units else ''}"
        return text

    def _frame(self) -> str:
        status = int(self.record.phase_map.status[self.pixel])
        words = {int(member): text for member, text in STATUS_WORDS.items()}
        said = words.get(status, f"status {status}")
        if self.row < 0 or not self.spectra.files:
            return said
        number = int(self.spectra.any.frame[self.row])
        file = self.spectra.frame_file(self.row)
        text = f"frame {number}{f' ({file})' if file else ''}: {said}"
        reason = self.spectra.reason(self.row)
        return f"{text}. {reason}" if reason else text

    def _answer(self) -> str:
        phase_map = self.phase_map
        winner = int(phase_map.winner[self.pixel])
        if winner >= 0:
            return combination_label(int(phase_map.combination[self.pixel]), self.names)
        return {
            schema.NONE_PRESENT: "none of the phases",
            schema.UNKNOWN: "none of the phases, but something unknown",
            schema.UNDETERMINED: "undetermined: the lines of some phases are not covered",
        }.get(winner, "no result")

    def _unknown(self) -> str:
        score = float(self.phase_map.unknown[self.pixel])
        if self.unknown_threshold is None or not np.isfinite(score):
            return ""
        text = f"unknown score {score:.2f}, threshold {self.unknown_threshold:.2f}"
        if score >= self.unknown_threshold:
            text += ": there are lines of something else"
        return text

    # --- the region --------------------------------------------------------------------------

    @property
    def members(self) -> BoolArray:
        """Pixels of the region, shape (ny, nx)."""
        if self.region is None:
            return np.zeros(self.plane.shape, bool)
        return self.plane.inside(self.region)

    @property
    def region_rows(self) -> BoolArray:
        """Their rows in the patterns, shape (rows,)."""
        index = self.record.phase_map.scan.frame_index[self.members]
        rows = np.zeros(self.spectra.any.n_rows if self.spectra.files else 0, bool)
        rows[index[index >= 0]] = True
        return rows

    # --- frames and files --------------------------------------------------------------------

    @cached_property
    def frames(self) -> RawFrames:
        """The raw frames.

        Raises
        ------
        InputError
            If the patterns do not say where they are.
        """
        from xrdpipe.viewer.raw_frames import RawFrames  # with what reads images and geometries

        folder = self.record.patterns.resolve().parent
        return RawFrames(frame_origin(self.spectra.any), (Path.cwd(), folder, *folder.parents[:2]))

    def xye(self, spectrum: Spectrum) -> tuple[str, str]:
        """Name and text of a file of 2θ, intensity and σ for Rietveld programs."""
        row, column = self.pixel
        stem = self.record.path.stem
        if spectrum.rows > 1:
            name = f"{stem}_mean_of_{spectrum.rows}_{spectrum.name}.xye"
            what = f"mean of {pixels(spectrum.rows)}"
        else:
            name = f"{stem}_row{row}_column{column}_{spectrum.name}.xye"
            what = self._place()
        header = [
            f"{self.record.path.name}, {what}, {spectrum.name} pattern",
            f"wavelength {self.spectra.any.wavelength:.6g} angstrom",
        ]
        text = xye_text(spectrum.two_theta, spectrum.intensity, spectrum.errors, header)
        return name, text


def _first(phase_map: PhaseMap) -> Pixel:
    """A pixel with a result, near the middle."""
    good = np.argwhere(phase_map.status == FrameStatus.OK)
    if not len(good):
        return 0, 0
    middle = (np.array(phase_map.status.shape) - 1) / 2
    row, column = good[np.argmin(np.abs(good - middle).sum(axis=1))]
    return int(row), int(column)
