"""``xrdpipe export``: maps and patterns as files of other programs."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.config import ExportConfig
from xrdpipe.errors import InputError, InputMissingError, OptionError, did_you_mean
from xrdpipe.maps import PhaseMap
from xrdpipe.schema import ABSENT, PRESENT, UNDECIDED, WINNER_MEANINGS, FrameStatus, PixelStatus
from xrdpipe.store.exports import file_names, tiff_bytes, write_ours, write_xye
from xrdpipe.store.map_patterns import open_patterns, rows_of
from xrdpipe.store.map_record import MapRecord, read_map_record
from xrdpipe.store.mean_patterns import mean_patterns
from xrdpipe.types import BoolArray, Outcome, Progress, ScanAxis

INDEX = "index.json"
"""Beside exported images and patterns: what each of them is."""


def run(config: ExportConfig, progress: Progress) -> Outcome:
    """Write the files; a summary says which."""
    record = read_map_record(config.map)
    if record.pending:
        progress.note(
            f"warning: {config.map} is partial, {record.pending} pixels are still to come"
        )
    write = {"tiff": _write_tiff, "csv": _write_csv, "xye": _write_xye}[config.format]
    return write(record, config, progress)


def _beside(config: ExportConfig, ending: str) -> Path:
    return config.output or config.map.with_name(f"{config.map.stem}{ending}")


# --- images ----------------------------------------------------------------------------------


def _write_tiff(record: MapRecord, config: ExportConfig, progress: Progress) -> Outcome:
    """A float32 image per quantity, and what they mean in ``index.json``."""
    phase_map = record.phase_map
    scan = phase_map.scan
    if scan.irregular:
        raise InputError(
            f"{record.path}: its positions form no grid, so that it is no image; use --format csv."
        )
    folder = _beside(config, "_tiff")
    pixel = _step(scan.y), _step(scan.x)
    unit = scan.x.units if scan.x is not None and scan.y is not None else ""
    if scan.y is not None and scan.y.units != unit:
        unit = ""  # one unit is all that ImageJ knows; index.json has both axes
    meanings = {}
    for name, meaning, values in quantities(phase_map):
        write_ours(folder / f"{name}.tif", tiff_bytes(values, pixel, unit))
        meanings[f"{name}.tif"] = meaning
    index = {
        "software": f"xrdpipe, map written by version {record.version}",
        "map": str(record.path),
        "title": record.title,
        "shape": list(scan.shape),
        "rows": _axis_entry("y", scan.y, scan.shape[0]),
        "columns": _axis_entry("x", scan.x, scan.shape[1]),
        "images": meanings,
    }
    _write_index(folder, index)
    return Outcome(folder, summary=f"{folder}: {len(meanings)} images, explained in {INDEX}.")


def quantities(phase_map: PhaseMap) -> Iterator[tuple[str, str, NDArray[Any]]]:
    """File name, meaning and values (ny, nx) of every map."""
    for k, name in enumerate(file_names(phase_map.phase_names)):
        said = phase_map.phase_names[k]
        yield f"{name}_probability", f"probability of {said}", phase_map.probability[k]
        yield (
            f"{name}_spread",
            f"standard deviation of the probability of {said} over the ensemble",
            phase_map.spread[k],
        )
        yield (
            f"{name}_decision",
            f"{said}: 1 present, 0 absent, -1 undetermined or no data",
            phase_map.decision[k],
        )
    phases = ", ".join(f"{k} {name}" for k, name in enumerate(phase_map.phase_names))
    reasons = ", ".join(f"{n} {text}" for n, text in WINNER_MEANINGS.items())
    yield "winner", f"most probable present phase: {phases}, {reasons}", phase_map.winner
    yield "confidence", "probability of the answer", phase_map.confidence
    yield "n_phases", "number of present phases, -1 no result", phase_map.n_phases
    weights = ", ".join(f"{2**k} {name}" for k, name in enumerate(phase_map.phase_names))
    if len(phase_map.phase_names) <= 24:  # a float32 holds no larger sum
        yield (
            "combination",
            f"sum of the present phases: {weights}; -1 no result",
            phase_map.combination,
        )
    if phase_map.unknown_threshold is not None:
        told = f"unknown score; unknown from {phase_map.unknown_threshold:.6g} on"
        yield "unknown", told, phase_map.unknown
    statuses = ", ".join(f"{m.value} {m.name.lower()}" for m in (*FrameStatus, *PixelStatus))
    yield "status", statuses, phase_map.status


def _step(axis: ScanAxis | None) -> float:
    if axis is None or axis.values.size < 2:
        return float("nan")
    return abs(float(np.median(np.diff(axis.values))))


def _axis_entry(name: str, axis: ScanAxis | None, n: int) -> dict[str, Any]:
    if axis is None:
        return {"axis": name, "unit": "pixel", "positions": list(range(n))}
    return {"axis": name, "motor": axis.name, "unit": axis.units, "positions": axis.values.tolist()}


def _write_index(folder: Path, index: dict[str, Any]) -> None:
    text = json.dumps(index, indent=1, ensure_ascii=False) + "\n"
    write_ours(folder / INDEX, text.encode())


# --- a table ---------------------------------------------------------------------------------


def _write_csv(record: MapRecord, config: ExportConfig, progress: Progress) -> Outcome:
    """One line per pixel; cells are empty where nothing is known."""
    path = _beside(config, ".csv")
    frames, files = _frames(record, progress)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = list(_columns(record, frames, files))
    writer.writerow([name for name, _ in columns])
    writer.writerows(zip(*(values for _, values in columns), strict=True))
    content = stream.getvalue().encode()
    write_ours(path, content, mark=content.partition(b"\n")[0])
    return Outcome(path, summary=f"{path}: {record.phase_map.status.size} pixels.")


def _columns(
    record: MapRecord, frames: list[str], files: list[str]
) -> Iterator[tuple[str, list[Any]]]:
    """Header and values of each column, pixels in reading order."""
    phase_map = record.phase_map
    scan = phase_map.scan
    y, x = np.indices(scan.shape)
    yield "y", y.ravel().tolist()
    yield "x", x.ravel().tolist()
    for axis, actual, place in ((scan.y, scan.y_actual, y), (scan.x, scan.x_actual, x)):
        if axis is not None:
            values = axis.values[place] if actual is None else actual
            name = f"{axis.name} ({axis.units})" if axis.units else axis.name
            yield name, _cells(np.asarray(values, np.float64))
    rows = scan.frame_index.ravel().tolist()
    yield "row", [row if row >= 0 else "" for row in rows]
    yield "frame", [frames[row] if row >= 0 and frames else "" for row in rows]
    yield "file", [files[row] if row >= 0 and files else "" for row in rows]
    members = {m.value: m.name.lower() for m in (*FrameStatus, *PixelStatus)}
    yield "status", [members.get(value, value) for value in phase_map.status.ravel().tolist()]
    said = {PRESENT: "present", ABSENT: "absent", UNDECIDED: "undetermined"}
    usable = (phase_map.status == FrameStatus.OK).ravel().tolist()
    for k, name in enumerate(phase_map.phase_names):
        yield f"{name} probability", _cells(phase_map.probability[k])
        yield f"{name} spread", _cells(phase_map.spread[k])
        decisions = phase_map.decision[k].ravel().tolist()
        yield (
            f"{name} decision",
            [said[v] if known else "" for v, known in zip(decisions, usable, strict=True)],
        )
    winners = dict(enumerate(phase_map.phase_names)) | WINNER_MEANINGS
    yield "winner", [winners[value] for value in phase_map.winner.ravel().tolist()]
    yield "confidence", _cells(phase_map.confidence)
    if phase_map.unknown_threshold is not None:
        yield "unknown score", _cells(phase_map.unknown)


def _cells(values: NDArray[Any]) -> list[str]:
    """The shortest decimals that bring the numbers back; empty for NaN."""
    return ["" if value != value else str(value) for value in values.ravel()]


def _frames(record: MapRecord, progress: Progress) -> tuple[list[str], list[str]]:
    """Number and file of each row, empty where the patterns are not at hand."""
    try:
        with open_patterns(record) as source:
            return [str(number) for number in source.frame.tolist()], source.source_files
    except (InputMissingError, InputError) as error:
        progress.note(f"warning: no frame numbers and files: {error}")
        return [], []


# --- patterns --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chosen:
    """Pixels whose mean becomes a file: its name without ending, what they are, and which."""

    name: str
    told: str
    pixels: BoolArray


def _write_xye(record: MapRecord, config: ExportConfig, progress: Progress) -> Outcome:
    """A file per choice of pixels; without a choice, the mean of all with a result."""
    chosen = choose_pixels(record.phase_map, config)
    folder = _beside(config, "_xye")
    written: dict[str, Any] = {}
    with open_patterns(record, config.variant) as source:
        members = rows_of(
            record.phase_map.scan.frame_index,
            np.stack([choice.pixels for choice in chosen]),
            source.n_rows,
        )
        progress.start("export", source.n_rows)
        seen = 0

        def read(rows: int) -> None:
            nonlocal seen
            progress.advance(rows - seen)
            seen = rows

        means = mean_patterns(source, members, read)
        progress.done()
        two_theta = source.rows(0, 0).two_theta
        for choice, mean in zip(chosen, means, strict=True):
            if not mean.rows:
                raise InputError(f"{choice.told}: no pixel of it has a pattern with data.")
            suffix = ".xy" if mean.intensity_errors is None else ".xye"
            name = choice.name + suffix
            header = (
                f"xrdpipe, {record.path.name}, {source.variant}",
                f"{choice.told}: mean of {mean.rows} patterns",
                f"wavelength {source.wavelength:.10g} angstrom",
                f"intensity in {source.units('I') or 'arbitrary units'}, mean per detector pixel",
                "standard errors are those of counting" if suffix == ".xye" else "no errors",
                "2theta (degrees), intensity" + ", standard error" * (suffix == ".xye"),
            )
            write_xye(
                folder / name,
                two_theta,
                mean.intensity,
                mean.intensity_errors,
                header if config.header else (),
            )
            written[name] = {
                "pixels": choice.told,
                "patterns": mean.rows,
                "variant": source.variant,
                "wavelength_angstrom": source.wavelength,
            }
    index = {"software": "xrdpipe", "map": str(record.path), "files": written}
    _write_index(folder, index)
    return Outcome(folder, summary="\n".join(
        f"{folder / name}: {entry['pixels']}, {entry['patterns']} patterns"
        for name, entry in written.items()
    ))  # fmt: skip


def choose_pixels(phase_map: PhaseMap, config: ExportConfig) -> list[Chosen]:
    """What the options name.

    Raises
    ------
    OptionError
        A pixel, region or phase that the map does not have.
    """
    shape = phase_map.scan.shape
    chosen = []
    for text in config.pixel:
        y, x = _pixel(text, shape)
        pixels = np.zeros(shape, bool)
        pixels[y, x] = True
        chosen.append(Chosen(f"pixel_{y}_{x}", f"pixel {y}, {x}", pixels))
    for text in config.region:
        rows, columns = _region(text, shape)
        pixels = np.zeros(shape, bool)
        pixels[rows, columns] = True
        told = f"{rows.start}:{rows.stop},{columns.start}:{columns.stop}"
        name = f"region_{rows.start}-{rows.stop}_{columns.start}-{columns.stop}"
        chosen.append(Chosen(name, f"region {told}", pixels))
    names = list(phase_map.phase_names)
    for text in config.phase:
        if text not in names:
            raise OptionError(
                f"--phase '{text}' is not in the map, which has {', '.join(names)}."
                + did_you_mean(text, names)
            )
        k = names.index(text)
        pixels = phase_map.decision[k] == PRESENT
        if not pixels.any():
            raise OptionError(f"--phase '{text}' is present in no pixel of the map.")
        chosen.append(Chosen(file_names(names)[k], f"{text} is present", pixels))
    if not chosen:
        chosen.append(Chosen("all", "all pixels with a result", phase_map.status == FrameStatus.OK))
    return chosen


def _pixel(text: str, shape: tuple[int, int]) -> tuple[int, int]:
    match = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", text)
    if match is None:
        raise OptionError(f"--pixel '{text}' cannot be read; expected Y,X, for example 3,17.")
    y, x = int(match[1]), int(match[2])
    if y >= shape[0] or x >= shape[1]:
        raise OptionError(
            f"--pixel {y},{x} is outside the map of {shape[0]} rows and {shape[1]} columns; they "
            "are counted from 0."
        )
    return y, x


def _region(text: str, shape: tuple[int, int]) -> tuple[slice, slice]:
    match = re.fullmatch(r"\s*(\d+):(\d+)\s*,\s*(\d+):(\d+)\s*", text)
    if match is None:
        raise OptionError(
            f"--region '{text}' cannot be read; expected Y0:Y1,X0:X1, for example 0:10,5:20."
        )
    y0, y1, x0, x1 = (int(part) for part in match.groups())
    if not (y0 < y1 <= shape[0] and x0 < x1 <= shape[1]):
        raise OptionError(
            f"--region {text} is not inside the map of {shape[0]} rows and {shape[1]} columns; "
            "they are counted from 0, the last is not included."
        )
    return slice(y0, y1), slice(x0, x1)
