"""The patterns of a map's pixels: single rows as they are asked for, and means of regions."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import InputError, XrdpipeError
from xrdpipe.store.map_record import MapRecord
from xrdpipe.store.mean_patterns import mean_patterns
from xrdpipe.store.patterns import PatternsFile
from xrdpipe.types import BoolArray, Patterns

KEPT = 64
"""Rows that stay in memory, for who goes back and forth."""

MASKED, UNMASKED = "masked", "unmasked"


@dataclass(frozen=True)
class Spectrum:
    """One pattern to be drawn.

    Parameters
    ----------
    name
        ``masked``, ``unmasked`` or ``external``.
    two_theta, intensity
        Shape (bins,), degrees and the file's unit; NaN where there is no data.
    errors
        Standard errors, same shape; None where the file has none.
    rows
        Of how many pixels it is the mean.
    """

    name: str
    two_theta: NDArray[np.float64]
    intensity: NDArray[np.float64]
    errors: NDArray[np.float64] | None
    rows: int = 1


class Spectra:
    """The patterns of one map; close it when the map is read anew.

    Parameters
    ----------
    record
        Of the map. Where its patterns cannot be shown, ``problem`` says why in one sentence.
    """

    def __init__(self, record: MapRecord) -> None:
        self.path = record.patterns
        self.problem = ""
        self.files: dict[str, PatternsFile] = {}
        self._kept: OrderedDict[int, dict[str, Patterns]] = OrderedDict()
        self._open = ExitStack()
        self._names: list[str] | None = None
        try:
            self._look(record)
        except XrdpipeError as error:
            self.close()
            self.files, self.problem = {}, str(error)

    def _look(self, record: MapRecord) -> None:
        if record.pending is not None:
            raise InputError(
                "The scan is still measured: patterns can be shown when it is over and the map is "
                "complete."
            )
        if not self.path.is_file():
            raise InputError(
                f"The patterns {self.path} are not there: put them back beside the map to see them."
            )
        for name in held_variants(self.path):
            self.files[name] = self._open.enter_context(PatternsFile(self.path, name or None))
        needed = int(record.phase_map.scan.frame_index.max(initial=-1)) + 1
        if needed > self.any.n_rows:
            raise InputError(
                f"{self.path} has {self.any.n_rows} rows, the map refers to {needed}: it belongs "
                "to other patterns."
            )
        # Where both variants are there, those that the model saw come first.
        self._order = sorted(self.files, key=lambda name: name not in record.variants)

    @property
    def any(self) -> PatternsFile:
        """What both variants share: frames, wavelength, unit."""
        return next(iter(self.files.values()))

    @property
    def variants(self) -> tuple[str, ...]:
        """Variants that can be shown, that of the map first."""
        return tuple(self._order) if self.files else ()

    @property
    def units(self) -> str:
        """Of intensities."""
        return self.any.units("I") if self.files else ""

    def close(self) -> None:
        """Close the files."""
        self._open.close()

    def patterns(self, row: int) -> dict[str, Patterns]:
        """The row of each variant, one row each."""
        if row not in self._kept:
            self._kept[row] = {name: file.rows(row, row + 1) for name, file in self.files.items()}
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(row)
        return self._kept[row]

    def of_row(self, row: int) -> tuple[Spectrum, ...]:
        """The patterns of a frame, that of the map's variant first."""
        held = self.patterns(row)
        found = []
        for name in self.variants:
            one = held[name]
            errors = None if one.intensity_errors is None else one.intensity_errors[0]
            found.append(
                Spectrum(
                    name,
                    one.two_theta,
                    one.intensity[0].astype(np.float64),
                    None if errors is None else errors.astype(np.float64),
                )
            )
        return tuple(found)

    def frame_file(self, row: int) -> str:
        """File of a frame as recorded; empty where nothing is."""
        if self._names is None:
            self._names = self.any.source_files
        return self._names[row] if row < len(self._names) else ""

    def reason(self, row: int) -> str:
        """Why a frame was lost."""
        reasons = self.any.reasons
        return reasons[row] if row < len(reasons) else ""


def mean_of_rows(path: Path, variant: str, rows: BoolArray) -> Spectrum:
    """Mean pattern of some rows, read in blocks; opens the file for itself, for another thread.

    Parameters
    ----------
    rows
        Shape (rows of the file,), True where a row belongs to the region.
    """
    with PatternsFile(path, variant or None) as source:
        mean = mean_patterns(source, rows[None])[0]
        two_theta = source.rows(0, 1).two_theta
    return Spectrum(variant, two_theta, mean.intensity, mean.intensity_errors, mean.rows)


def held_variants(path: Path) -> tuple[str, ...]:
    """Variants that a patterns file holds."""
    with PatternsFile(path) as file:
        if file.variant != MASKED:
            return (file.variant,)
        both = f"azint1d_{UNMASKED}" in file.entry
    return (MASKED, UNMASKED) if both else (MASKED,)
