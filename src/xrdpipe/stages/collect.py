"""``xrdpipe collect``: 1D patterns integrated elsewhere → one patterns file (decision 25)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.config import CollectConfig
from xrdpipe.errors import FrameError, InputError
from xrdpipe.frames.names import Names, read_names
from xrdpipe.frames.powder_files import PowderFile, find_powder_files, read_powder_file
from xrdpipe.integration.geometry import check_wavelength
from xrdpipe.resampling import Resampling, plan_resampling, resample
from xrdpipe.schema import LOST, UNITS, FrameStatus
from xrdpipe.stages.versions import software_versions
from xrdpipe.store.nexus import already_done
from xrdpipe.store.parts import Rows
from xrdpipe.store.patterns import KEY_PATH, PatternsHeader, Positioner, write_patterns
from xrdpipe.types import FrameRecord, Grid, Mask, Outcome, Patterns, Progress

BLOCK_ROWS = 64
"""Patterns held at a time."""

SAME_AXIS = 0.01
"""Axes are equal if no point differs by more than this fraction of a step: digits are rounded."""

SAME_WAVELENGTH = 1e-4
"""Stated wavelengths are equal within this fraction."""

NOT_IN_KEY = ("output", "restart", "patterns")

NOTE = (
    "Patterns integrated elsewhere, values as in the files, backgrounds and Kα2 included; nothing "
    "is known here of solid angle, masks or normalisation."
)


@dataclass(frozen=True)
class Sheet:
    """What is kept of a file after the first reading: everything but the values.

    Parameters
    ----------
    status, reason
        ``frames/status``; the rest is without meaning unless it is OK.
    first, last, step
        Ends of the axis, and its step, in ``unit``.
    same
        True if unit and axis are those of the first good file.
    """

    status: int
    reason: str = ""
    unit: str = ""
    first: float = 0.0
    last: float = 0.0
    step: float = 0.0
    points: int = 0
    same: bool = False
    sigma: bool = False
    wavelength: float | None = None
    polarization: str = ""
    anode: str = ""
    counting_time: float | None = None
    remarks: tuple[str, ...] = ()

    @property
    def range(self) -> str:
        """The axis in words."""
        units = "°" if self.unit == "2theta" else " 1/angstrom"
        return f"{self.points} points {self.first:g}-{self.last:g}{units}, step {self.step:.4g}"


Good = list[tuple[Path, Sheet]]
"""Files that could be read, with their sheets; at least one."""


def run(config: CollectConfig, progress: Progress | None = None) -> Outcome:
    """Pack the patterns and write one patterns file, variant ``external``.

    Every file is read twice, so that memory holds a few patterns, not all.

    Returns
    -------
    Outcome
        Path, number of files that could not be used, and a summary with the reasons.

    Raises
    ------
    InputError
        If no file can be used, the wavelength is not stated, or the axes differ.
    """
    progress = progress or Progress()
    output = config.output or Path("patterns.h5")
    files, names, ignored = list_files(config)
    records = records_of(files, names)
    key = run_key(config, records)
    if already_done(output, key, KEY_PATH, config.restart):
        return Outcome.already_done(output)
    if ignored:
        listing = ", ".join(f"{n} x {suffix or 'no suffix'}" for suffix, n in ignored.items())
        progress.note(f"left out, not patterns by their names: {listing}")
    sheets, axis = _survey(files, config, progress)
    good = [(file, sheet) for file, sheet in zip(files, sheets, strict=True) if sheet.status == 1]
    if not good:
        which = (
            "" if len(files) == 1 else f"none of the {len(files)} files is a pattern; the first: "
        )
        raise InputError(f"{which}{sheets[0].reason}.")
    _note_remarks([sheet for _, sheet in good], progress)
    wavelength = _wavelength(config, good, progress)
    grid = _common_grid(config, good, wavelength)
    if grid is not None:
        axis = grid.two_theta
        progress.note(f"axes differ: brought onto {grid}")
    header = replace(
        _header(config, good, wavelength, axis, grid, progress),
        records=records,
        numbered=names.numbered,
        positioners=_positioners(names, sheets),
        scan=names.scan,
        key=key,
    )
    progress.start("write", len(files))
    write_patterns(output, header, _blocks(files, sheets, config, header, grid, progress))
    progress.done()
    return _outcome(output, sheets, header)


def list_files(config: CollectConfig) -> tuple[list[Path], Names, Mapping[str, int]]:
    """The files in order, what their names say, and how many others of each suffix lie there."""
    if config.wavelength is not None:
        check_wavelength(config.wavelength)
    found, ignored = find_powder_files(config.patterns)
    names = read_names(found)
    return [found[place] for place in names.order], names, ignored


def run_key(config: CollectConfig, records: tuple[FrameRecord, ...]) -> dict[str, Any]:
    """The key of decision 21."""
    return {
        "stage": "collect",
        "options": {k: v for k, v in config.resolved().items() if k not in NOT_IN_KEY},
        "frames": [[r.file, r.place, r.index, r.size, r.mtime_ns] for r in records],
        "versions": software_versions(),
    }


def records_of(files: list[Path], names: Names) -> tuple[FrameRecord, ...]:
    """One record per file, its name relative to the folder all have in common."""
    absolute = [file.absolute() for file in files]
    common = os.path.commonpath([file.parent for file in absolute])
    records = []
    for file, number in zip(absolute, names.numbers, strict=True):
        try:
            stat = file.stat()
            size, mtime = stat.st_size, stat.st_mtime_ns
        except OSError:
            size = mtime = 0
        records.append(FrameRecord(os.path.relpath(file, common), 0, number, size, mtime))
    return tuple(records)


# --- the first reading -----------------------------------------------------------------------


def _survey(
    files: list[Path], config: CollectConfig, progress: Progress
) -> tuple[list[Sheet], NDArray[np.float64]]:
    """A sheet per file, and the axis of the first good one (empty if there is none)."""
    reference: PowderFile | None = None
    sheets = []
    progress.start("read", len(files))
    for file in files:
        progress.advance(1)
        try:
            powder = read_powder_file(file, config.unit, config.columns)
        except FrameError as error:
            sheets.append(Sheet(error.status, error.reason))
            continue
        reference = reference or powder
        axis = powder.axis
        sheets.append(
            Sheet(
                FrameStatus.OK,
                unit=powder.unit,
                first=float(axis[0]),
                last=float(axis[-1]),
                step=_step(axis),
                points=axis.size,
                same=_same_axis(reference, powder),
                sigma=powder.sigma is not None,
                wavelength=powder.wavelength,
                polarization=powder.polarization,
                anode=powder.anode,
                counting_time=powder.counting_time,
                remarks=powder.remarks,
            )
        )
    progress.done()
    return sheets, np.empty(0) if reference is None else reference.axis


def _step(axis: NDArray[np.float64]) -> float:
    """Mean step of a uniform axis, whose digits may be rounded; else the median."""
    mean = float(axis[-1] - axis[0]) / (axis.size - 1)
    uniform = np.linspace(axis[0], axis[-1], axis.size)
    step = mean if np.abs(axis - uniform).max() < mean / 2 else float(np.median(np.diff(axis)))
    return float(f"{step:.9g}")


def _same_axis(one: PowderFile, other: PowderFile) -> bool:
    if one.unit != other.unit or one.axis.size != other.axis.size:
        return False
    return bool((np.abs(one.axis - other.axis)[1:] <= SAME_AXIS * np.diff(one.axis)).all())


def _note_remarks(sheets: list[Sheet], progress: Progress) -> None:
    counts = Counter(remark for sheet in sheets for remark in sheet.remarks)
    for remark, n in counts.items():
        which = "all files" if n == len(sheets) else f"{n} of {len(sheets)} files"
        progress.note(f"{which}: {remark}")
    with_errors = sum(sheet.sigma for sheet in sheets)
    if 0 < with_errors < len(sheets):
        progress.note(f"{with_errors} of {len(sheets)} files give errors; NaN for the others")


def _wavelength(config: CollectConfig, good: Good, progress: Progress) -> float:
    """The option, else what all files state (decision 25)."""
    stated = [(file, sheet.wavelength) for file, sheet in good if sheet.wavelength]
    wanted = config.wavelength
    if wanted is not None:
        other = [(f, w) for f, w in stated if abs(w / wanted - 1) > SAME_WAVELENGTH]
        if other:
            progress.note(
                f"warning: {len(other)} of {len(good)} files state another wavelength "
                f"({other[0][0].name}: {other[0][1]:.6g} Å); --wavelength {wanted:.6g} Å is used"
            )
        else:
            agree = f", as {len(stated)} of {len(good)} files state" if stated else ""
            progress.note(f"wavelength {wanted:.6g} Å{agree}")
        return wanted
    if len(stated) < len(good):
        silent, sheet = next((f, s) for f, s in good if not s.wavelength)
        hint = f" (it names a {sheet.anode} anode)" if sheet.anode else ""
        raise InputError(
            f"{silent} does not state the wavelength{hint}; give --wavelength in Å"
            + (
                ": for Kα1 and Kα2 together their mean weighted by intensity, 1.5418 for Cu."
                if sheet.anode == "Cu"
                else ", for example 1.5418 for Cu Kα."
            )
        )
    first, wavelength = stated[0]
    for file, other_one in stated:
        if abs(other_one / wavelength - 1) > SAME_WAVELENGTH:
            raise InputError(
                f"{first} states {wavelength:.6g} Å, {file} {other_one:.6g} Å; collect them "
                "separately, or give --wavelength if one is wrong."
            )
    progress.note(f"wavelength {wavelength:.6g} Å, as all files state")
    return wavelength


def _polarization(config: CollectConfig, good: Good, progress: Progress) -> tuple[float, bool]:
    """Polarization factor, and whether the patterns are corrected for it.

    Uncorrected patterns are stored as they are: `resample` and `map` divide by (1 + cos² 2θ) / 2 at
    the measured angle where they change the wavelength (decision 12).
    """
    wanted = config.polarization_factor
    stated = {sheet.polarization for _, sheet in good}
    if wanted == "auto" and len(stated) > 1:
        said = " and ".join(sorted(f"'{value or 'nothing'}'" for value in stated))
        raise InputError(
            f"the headers differ in the polarization correction ({said}); give "
            "--polarization-factor: 0 if they are not corrected, 'none' if they are."
        )
    by = "the option"
    if wanted == "auto":
        said = stated.pop()
        by = "the headers" if said else "assumption (give --polarization-factor to change it)"
        if said not in ("", "none"):
            progress.note(f"polarization: corrected with factor {float(said):g} by {by}")
            return float(said), True
        wanted = 0.0
    if isinstance(wanted, str):
        progress.note(f"polarization: corrected already by {by}")
        return float("nan"), True
    progress.note(f"polarization: factor {wanted:g}, not corrected, by {by}")
    return wanted, False


def _header(
    config: CollectConfig,
    good: Good,
    wavelength: float,
    axis: NDArray[np.float64],
    grid: Grid | None,
    progress: Progress,
) -> PatternsHeader:
    """What is known of all patterns together; the run adds what is known of each file."""
    unit = "2theta" if grid is not None else good[0][1].unit
    polarization, corrected = _polarization(config, good, progress)
    sigma = any(sheet.sigma for _, sheet in good)
    return PatternsHeader(
        variants=("external",),
        radial_axis=axis,
        radial_edges=_edges(axis),
        unit=unit,
        wavelength=wavelength,
        polarization_factor=polarization if corrected else None,
        solid_angle=False,
        signals=("I", "I_errors") if sigma else ("I",),
        norm={"external": np.full(axis.size, np.nan, np.float32)},
        records=(),
        numbered=False,
        detector_name="unknown (integrated elsewhere)",
        pixel_size=None,
        mask=Mask(np.zeros((0, 0), bool)),
        config=config.recorded(),
        key={},
        title=", ".join(config.patterns[:3]) + (", …" if len(config.patterns) > 3 else ""),
        parameters={
            "poni": "none: integrated elsewhere",
            "unit": unit,
            "radial_bins": axis.size,
            "polarization_factor": polarization,
            "error_model": "as in the files" if sigma else "none",
            "common_grid": grid is not None,
        },
        counts=(),
        source_type="Fixed Tube X-ray" if any(s.anode for _, s in good) else "unknown",
        reference="none",
        note=NOTE,
    )


# --- one axis --------------------------------------------------------------------------------


def _common_grid(config: CollectConfig, good: Good, wavelength: float) -> Grid | None:
    """2θ grid for patterns whose axes differ; None where all are equal.

    Raises
    ------
    InputError
        If they differ and no common grid is wanted, or a q cannot be reached.
    """
    for file, sheet in good:
        if sheet.unit == "q" and sheet.last * wavelength > 4 * np.pi:
            raise InputError(
                f"{file} goes to q = {sheet.last:.4g} 1/angstrom, beyond 4π/λ = "
                f"{4 * np.pi / wavelength:.4g} at {wavelength:.5g} Å; check --wavelength "
                "and --unit."
            )
    odd = [(file, sheet) for file, sheet in good if not sheet.same]
    if not odd:
        return None
    if not config.common_grid:
        (first, one), (second, other) = good[0], odd[0]
        raise InputError(
            f"the axes differ in {len(odd)} of {len(good)} files: {first} has {one.range}, "
            f"{second} {other.range}; collect equal ones separately, or give --common-grid."
        )
    ranges = np.array(
        [
            _two_theta(np.array([s.first, s.last, s.first + s.step]), s.unit, wavelength)
            for _, s in good
        ]
    )
    step = float(f"{(ranges[:, 2] - ranges[:, 0]).min():.9g}")
    return Grid(float(ranges[:, 0].min()), float(ranges[:, 1].max()), step, wavelength)


def _two_theta(values: NDArray[np.float64], unit: str, wavelength: float) -> NDArray[np.float64]:
    return _patterns(values, unit, wavelength, values[None], None).two_theta


def _patterns(
    axis: NDArray[np.float64],
    unit: str,
    wavelength: float,
    intensity: NDArray[np.float64],
    sigma: NDArray[np.float64] | None,
) -> Patterns:
    """One pattern as the functions of resampling take it; shapes (points,) and (1, points)."""
    return Patterns(
        radial_axis=axis,
        wavelength=wavelength,
        intensity=intensity,
        intensity_errors=sigma,
        coverage=np.isfinite(intensity).astype(np.float32),
        spottiness=None,
        frame=np.zeros(1, np.int64),
        status=np.ones(1, np.uint8),
        unit=UNITS[unit][0],
        variant="external",
    )


def _edges(axis: NDArray[np.float64]) -> NDArray[np.float64]:
    middle = (axis[1:] + axis[:-1]) / 2
    return np.concatenate([[2 * axis[0] - middle[0]], middle, [2 * axis[-1] - middle[-1]]])


# --- the second reading ----------------------------------------------------------------------


def _blocks(
    files: list[Path],
    sheets: list[Sheet],
    config: CollectConfig,
    header: PatternsHeader,
    grid: Grid | None,
    progress: Progress,
) -> Iterator[tuple[int, Rows]]:
    """(first row, columns) in row order."""
    plan: Resampling | None = None
    planned = _patterns(np.empty(0), "2theta", header.wavelength, np.empty((1, 0)), None)
    for first in range(0, len(files), BLOCK_ROWS):
        part = sheets[first : first + BLOCK_ROWS]
        shape = (len(part), header.radial_axis.size)
        rows: Rows = {
            f"external.{name}": np.full(shape, np.nan, np.float32) for name in header.signals
        }
        rows["status"] = np.array([sheet.status for sheet in part], np.uint8)
        rows["flags"] = np.zeros(len(part), np.uint16)
        rows["reason"] = np.array([_shortened(sheet.reason) for sheet in part], "S256")
        for place, (file, sheet) in enumerate(zip(files[first:], part, strict=False)):
            progress.advance(1)
            if sheet.status != FrameStatus.OK:
                continue
            pattern = _read_again(file, sheet, config, header.wavelength)
            if grid is not None:
                if plan is None or not np.array_equal(pattern.radial_axis, planned.radial_axis):
                    plan, planned = plan_resampling(pattern, grid), pattern
                pattern = resample(pattern, grid, plan)
            rows["external.I"][place] = pattern.intensity[0]
            if pattern.intensity_errors is not None:
                rows["external.I_errors"][place] = pattern.intensity_errors[0]
        yield first, rows


def _read_again(file: Path, sheet: Sheet, config: CollectConfig, wavelength: float) -> Patterns:
    try:
        powder = read_powder_file(file, config.unit, config.columns)
    except FrameError as error:
        raise InputError(f"{file} changed while it was read: {error}.") from error
    if (powder.axis.size, powder.unit) != (sheet.points, sheet.unit):
        raise InputError(f"{file} changed while it was read; run again when it is complete.")
    sigma = None if powder.sigma is None else powder.sigma[None]
    return _patterns(powder.axis, powder.unit, wavelength, powder.intensity[None], sigma)


def _shortened(reason: str) -> bytes:
    """At most 256 bytes, no character cut."""
    return reason.encode()[:256].decode(errors="ignore").encode()


def _positioners(names: Names, sheets: list[Sheet]) -> dict[str, Positioner]:
    found = {name: Positioner(*column) for name, column in names.columns.items()}
    times = np.array([np.nan if s.counting_time is None else s.counting_time for s in sheets])
    if np.isfinite(times).any():
        found["counting_time"] = Positioner(times, "s")
    return found


def _outcome(output: Path, sheets: list[Sheet], header: PatternsHeader) -> Outcome:
    counts = Counter(sheet.status for sheet in sheets)
    lost = sum(n for status, n in counts.items() if status in LOST)
    others = ", ".join(
        f"{counts[s]} {s.name.lower()}" for s in FrameStatus if s != FrameStatus.OK and counts[s]
    )
    axis = header.radial_axis
    sheet = Sheet(
        FrameStatus.OK,
        unit=header.unit,
        first=axis[0],
        last=axis[-1],
        step=_step(axis),
        points=axis.size,
    )
    errors = "with errors" if "I_errors" in header.signals else "without errors"
    text = (
        f"{output}: {counts[FrameStatus.OK]} of {len(sheets)} patterns collected"
        f"{f' ({others})' if others else ''}, {sheet.range}, {header.wavelength:.6g} Å, {errors}."
    )
    reasons = [s.reason for s in sheets if s.reason][:5]
    return Outcome(output, lost, "\n".join([text, *(f"  {reason}" for reason in reasons)]))
