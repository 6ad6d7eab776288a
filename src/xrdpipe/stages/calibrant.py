"""A calibrant's pattern as the description of an instrument: narrower ranges for training."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.calibrant import Instrument, fit_instrument
from xrdpipe.crystal import load_phase
from xrdpipe.errors import FrameError, InputError
from xrdpipe.frames.layouts.links import whole
from xrdpipe.frames.powder_files import read_powder_file
from xrdpipe.schema import FrameStatus
from xrdpipe.stages.ranges import SAME_WAVELENGTH, Changes, as_rows, with_ranges
from xrdpipe.store.patterns import PatternsFile
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.types import Grid

HDF5_SUFFIXES = (".h5", ".hdf5", ".nxs", ".hdf")

WIDTH_MARGIN = (0.85, 1.3)
"""Widths of a measurement relative to those of the calibrant: a sample may be thicker or
further along the beam than the calibrant, seldom much less so."""

GROWTH_MARGIN = 0.05
"""Relative uncertainty of the width at the end of the grid, taken up by v."""

LORENTZIAN_MARGIN = 0.15
"""Uncertainty of the Lorentzian part."""

ERROR_MARGIN = 2.0
"""Errors of the geometry may be this many times what the calibrant shows."""

SMALLEST_ZERO, SMALLEST_SCALE = 0.004, 0.0005
"""Degrees, and relative: a sample never sits exactly where the calibrant sat."""

PIXEL_MARGIN = 0.1
"""Of the angular size of a pixel, which falls from the centre to the edge of a detector."""

MOST_ROWS = 256
"""Rows of a patterns file that are averaged."""


@dataclass(frozen=True)
class Measured:
    """A calibrant's pattern and what its file says.

    Parameters
    ----------
    two_theta, intensity
        Shape (n,), degrees and mean counts; NaN where there is no data.
    wavelength
        In Å, as the file states it, or None.
    pixel
        Angular size of a pixel at the centre in degrees, or None.
    """

    two_theta: NDArray[np.float64]
    intensity: NDArray[np.float64]
    wavelength: float | None
    pixel: float | None


@dataclass(frozen=True)
class Described:
    """What a calibrant changes.

    Parameters
    ----------
    synthesis
        The recipe with narrowed ranges.
    key
        What the training's key records of the calibrant.
    report
        Numbers for the report.
    text
        One table for the user.
    """

    synthesis: Recipe
    key: dict[str, Any]
    report: dict[str, Any]
    text: str


def describe(pattern: Path, cif: Path, grid: Grid, synthesis: Recipe) -> Described:
    """Fit a calibrant and narrow the ranges of a recipe.

    Parameters
    ----------
    pattern
        Patterns file, or a text pattern.
    cif
        Of the calibrant.
    grid
        Of the model.
    synthesis
        The recipe to narrow.

    Raises
    ------
    InputError
        The pattern cannot be read, is of another wavelength, does not reach the grid, or does not
        show the lines of the calibrant.
    """
    phase = load_phase(cif)
    measured = read_calibrant(pattern, grid.wavelength)
    _check(measured, pattern, grid)
    instrument = fit_instrument(
        measured.two_theta, measured.intensity, phase, grid.wavelength, str(pattern)
    )
    narrowed, changes = narrow(synthesis, instrument, grid, measured.pixel)
    found = asdict(instrument)
    lines = list(found.pop("lines"))
    end = np.array([grid.stop])
    return Described(
        synthesis=narrowed,
        key={
            "pattern": hashlib.sha256(pattern.read_bytes()).hexdigest(),
            "cif": phase.sha256,
        },
        report={
            "pattern": pattern.name,
            "calibrant": phase.name,
            "instrument": found,
            "shape": float(instrument.line_shape(end)[0][0] / instrument.fwhm(end)[0]),
            "lines": lines,
            "ranges": {
                name: {"before": _listed(old), "after": _listed(new)}
                for name, (old, new) in changes.items()
            },
        },
        text=_table(phase.name, instrument, grid, changes),
    )


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def read_calibrant(path: Path, wavelength: float) -> Measured:
    """The mean pattern of a file.

    Parameters
    ----------
    wavelength
        In Å, for a q axis in a file that states none.

    Raises
    ------
    InputError
        Not readable, or without any usable row.
    """
    if path.suffix.lower() in HDF5_SUFFIXES:
        return _of_patterns_file(path)
    try:
        file = read_powder_file(path)
    except FrameError as error:
        raise InputError(f"calibrant: {error.reason}.") from error
    axis = file.axis
    if file.unit == "q":
        sine = axis * (file.wavelength or wavelength) / (4 * np.pi)
        axis = np.degrees(2 * np.arcsin(np.minimum(sine, 1)))
    return Measured(axis, np.asarray(file.intensity, dtype=float), file.wavelength, None)


def _of_patterns_file(path: Path) -> Measured:
    with PatternsFile(path) as source:
        usable = np.flatnonzero(source.status == FrameStatus.OK)[:MOST_ROWS]
        if not usable.size:
            raise InputError(f"{path} holds no usable pattern of a calibrant.")
        rows = source.rows(int(usable[0]), int(usable[-1]) + 1)
        intensity = np.asarray(rows.intensity, dtype=float)[usable - usable[0]]
        number = np.isfinite(intensity).sum(axis=0)
        total = np.nansum(intensity, axis=0)
        mean = np.where(number > 0, total / np.maximum(number, 1), np.nan)
        sizes = [
            source.entry.get(f"instrument/detector/{name}")
            for name in ("y_pixel_size", "x_pixel_size")
        ]
        distance = source.entry.get("reduction/input/distance")
        pixel = None
        if distance is not None and None not in sizes and float(whole(distance)) > 0:
            mean_size = math.sqrt(float(whole(sizes[0])) * float(whole(sizes[1])))
            pixel = math.degrees(math.atan(mean_size / float(whole(distance))))
        return Measured(rows.two_theta, mean, source.wavelength, pixel)


def _check(measured: Measured, path: Path, grid: Grid) -> None:
    stated = measured.wavelength
    if stated is not None and abs(stated / grid.wavelength - 1) > SAME_WAVELENGTH:
        raise InputError(
            f"calibrant {path} was measured at {stated:g} Å, --wavelength is "
            f"{grid.wavelength:g} Å; line widths in degrees do not carry over: give a calibrant "
            "of the same experiment."
        )
    known = np.isfinite(measured.intensity)
    if not known.any():
        raise InputError(f"calibrant {path} holds no data.")
    first, last = measured.two_theta[known][[0, -1]]
    if last < grid.start or first > grid.stop:
        raise InputError(
            f"calibrant {path} covers {first:.2f}-{last:.2f} degrees and does not reach the grid, "
            f"{grid.start:g}-{grid.stop:g} degrees; give a pattern of that range or another --grid."
        )


def narrow(
    synthesis: Recipe, instrument: Instrument, grid: Grid, pixel: float | None
) -> tuple[Recipe, Changes]:
    """Ranges around what the calibrant shows, with the margins stated above."""
    end = math.tan(math.radians(grid.stop) / 2)
    growth = 1 + instrument.v * end + instrument.u * end**2
    # A change of v by this much changes the width at the end of the grid by the margin.
    v_margin = 2 * GROWTH_MARGIN * max(growth, 0.5) / end
    low, high = WIDTH_MARGIN
    profile = {
        "width": (instrument.width * low, instrument.width * high),
        "v": (instrument.v - v_margin, instrument.v + v_margin),
        "u": (instrument.u, instrument.u),
        "lorentzian": (
            max(instrument.lorentzian - LORENTZIAN_MARGIN, 0.0),
            min(instrument.lorentzian + LORENTZIAN_MARGIN, 2.0),
        ),
    }
    new: dict[str, dict[str, Any]] = {"profile": profile}
    if instrument.zero is not None and instrument.scale is not None:
        new["alignment"] = {
            "zero_shift": max(ERROR_MARGIN * abs(instrument.zero), SMALLEST_ZERO),
            "distance_scale": max(ERROR_MARGIN * abs(instrument.scale), SMALLEST_SCALE),
        }
    if pixel is not None:
        # Seen at 2θ, a pixel of a flat detector is cos²(2θ) smaller than at the centre.
        shrunk = math.cos(math.radians(min(grid.stop, 60))) ** 2
        new["detector"] = {
            "pixel": (pixel * shrunk * (1 - PIXEL_MARGIN), pixel * (1 + PIXEL_MARGIN))
        }
    return with_ranges(synthesis, new)


def _table(name: str, instrument: Instrument, grid: Grid, changes: Changes) -> str:
    lines = instrument.lines
    ends = instrument.line_shape(np.array([grid.start, grid.stop]))[0]
    low, high = lines[0].expected, lines[-1].expected
    rows = [
        f"instrument from {len(lines)} lines of {name} ({low:.2f}-{high:.2f} degrees), widths "
        f"within {100 * instrument.scatter:.1f} % of the curve:",
        f"  FWHM at {grid.start:g} / {grid.stop:g} degrees   {ends[0]:.4f} / {ends[1]:.4f} degrees",
    ]
    if instrument.zero is not None and instrument.scale is not None:
        rows += [
            f"  2theta zero          {instrument.zero:+.4f} ± {instrument.zero_error:.4f} degrees",
            f"  scale of tan 2theta  {instrument.scale:+.5f} ± {instrument.scale_error:.5f}",
        ]
    rows += as_rows(changes, "with the calibrant")
    return "\n".join(rows)
