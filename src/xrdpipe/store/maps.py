"""Write and read map files (layout in docs/files.md)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from xrdpipe import __version__
from xrdpipe.bounds import MOST_NAMES, sound
from xrdpipe.crystal import PhaseLines
from xrdpipe.errors import InputError
from xrdpipe.frames.layouts.links import group_in, whole
from xrdpipe.maps import PhaseMap
from xrdpipe.schema import UNITS, WINNER_MEANINGS, FrameStatus, PixelStatus
from xrdpipe.store.nexus import (
    PENDING_PATH,
    entry_uuid,
    fixed_strings,
    new_group,
    new_root,
    now,
    open_processed,
    put,
    put_key,
    say_values,
    text,
)
from xrdpipe.store.writing import whole_hdf5
from xrdpipe.types import Grid, Patterns, Scan, ScanAxis

KEY_PATH = "entry/phase_map/run_key"


@dataclass(frozen=True)
class MapHeader:
    """What a map file says besides the maps themselves.

    Parameters
    ----------
    patterns
        The patterns file the map was made from.
    parameters
        Entries of ``phase_map/model``: texts, numbers and small arrays.
    lines
        Of every phase, in class order: what a picture of a pattern shows beside it.
    """

    patterns: Path
    title: str
    key: Mapping[str, Any]
    parameters: Mapping[str, Any]
    lines: tuple[PhaseLines, ...] = ()


def write_map(
    path: Path,
    header: MapHeader,
    phase_map: PhaseMap,
    grid: Grid,
    blocks: Iterator[tuple[int, Patterns]] | None = None,
    pending: int | None = None,
) -> None:
    """Write a map file of its own, linked to its patterns by a relative path.

    Parameters
    ----------
    path
        Where it will lie; the link is relative to its folder.
    blocks
        Resampled patterns to store too (``--with-patterns``), in row order.
    pending
        Pixels that still wait for their frame; marks the map as partial, to be replaced.
    """
    with whole_hdf5(path) as file:
        new_root(file)
        entry = new_group(file, "entry", "NXentry")
        put(entry, "title", header.title)
        put(entry, "entry_identifier_uuid", entry_uuid(dict(header.key)))
        put(entry, "end_time", now())
        put(entry, "program_name", "xrdpipe", version=__version__)
        target = os.path.relpath(header.patterns.resolve(), path.resolve().parent)
        entry["patterns"] = h5py.ExternalLink(target, "/entry")
        _write_groups(entry, header, phase_map)
        if pending is not None:
            put(file, PENDING_PATH, pending, long_name="pixels without a frame yet")
        if blocks is not None:
            _write_map_patterns(entry, phase_map.scan, grid, blocks)


def write_map_into_patterns(path: Path, header: MapHeader, phase_map: PhaseMap) -> None:
    """Add the maps to the patterns file itself, through a copy and a rename."""
    with whole_hdf5(path, like=path) as file:
        entry = file["entry"]
        for name in ("phase_map", "mapping"):
            if name in entry:
                del entry[name]
        _write_groups(entry, header, phase_map)


def _write_groups(entry: h5py.Group, header: MapHeader, phase_map: PhaseMap) -> None:
    entry.attrs["default"] = "phase_map"
    _write_mapping(entry, phase_map.scan)
    default = "scatter" if phase_map.scan.irregular else "co_occurrence"
    process = new_group(entry, "phase_map", "NXprocess", default=default)
    put(process, "program", "xrdpipe")
    put(process, "version", __version__)
    put(process, "date", now())
    put(process, "sequence_index", 3)
    put_key(process, header.key)
    names = put(process, "phase_names", fixed_strings(list(phase_map.phase_names)))
    names.attrs["long_name"] = "entry i names index i of every (phase, y, x) dataset"
    model = new_group(process, "model", "NXparameters")
    for name, value in header.parameters.items():
        put(model, name, value)
    _write_lines(process, header.lines)
    _write_presence(process, phase_map)
    _write_winner(process, phase_map)
    _write_co_occurrence(process, phase_map)
    if phase_map.unknown_threshold is not None:
        _write_unknown(process, phase_map, phase_map.unknown_threshold)
    if phase_map.scan.irregular:
        _write_scatter(process, phase_map)
    status = put(process, "status", phase_map.status, long_name="status of the pixel")
    members = [*FrameStatus, *PixelStatus]
    status.attrs["flag_values"] = np.array([m.value for m in members], np.uint8)
    status.attrs["flag_meanings"] = " ".join(m.name.lower() for m in members)


def _write_lines(process: h5py.Group, lines: tuple[PhaseLines, ...]) -> None:
    """One table of the lines of all phases, phase by phase, from large to small d."""
    if not lines:
        return
    group = new_group(process, "reference_lines", "NXcollection")
    phase = np.repeat(np.arange(len(lines)), [len(table.d) for table in lines])
    put(group, "phase", phase.astype(np.int16), long_name="phase index")
    d = np.concatenate([table.d for table in lines])
    put(group, "d", d, units="angstrom", long_name="plane spacing")
    put(
        group,
        "intensity",
        np.concatenate([table.intensity for table in lines]).astype(np.float32),
        long_name="of the ideal powder, the strongest line of each phase has 1",
    )
    hkl = np.concatenate([table.hkl for table in lines]).astype(np.int32)
    put(group, "hkl", hkl, long_name="Miller indices of one plane of each set")


def _write_mapping(entry: h5py.Group, scan: Scan) -> None:
    ny, nx = scan.shape
    mapping = new_group(entry, "mapping", "NXcollection")
    put(
        mapping,
        "frame_index",
        scan.frame_index,
        long_name="row in the patterns, -1 where there is no frame",
    )
    for name, axis, n in (("x", scan.x, nx), ("y", scan.y, ny)):
        values = np.arange(n, dtype=np.float64) if axis is None else axis.values
        units = "" if axis is None or scan.irregular else axis.units
        put(mapping, name, values, units=units, long_name=_axis_label(name, axis, scan.irregular))
        if axis is not None:
            put(mapping, f"{name}_motor", axis.name)
    for name, axis, actual in (("x", scan.x, scan.x_actual), ("y", scan.y, scan.y_actual)):
        if actual is not None:
            units = "" if axis is None else axis.units
            label = f"{_axis_label(name, axis, False)}, as measured"
            put(mapping, f"{name}_actual", actual, units=units, long_name=label)
    put(mapping, "scan_type", _scan_type(scan))
    put(mapping, "fast_axis", scan.fast_axis)
    put(mapping, "shape", np.array([ny, nx]))
    put(mapping, "source", scan.source)
    put(mapping, "confidence", scan.confidence)
    put(mapping, "evidence", scan.evidence)


def _axis_label(name: str, axis: ScanAxis | None, irregular: bool) -> str:
    """What viewers write at the axis: they show units only where there is no long_name."""
    if irregular:
        return "point" if name == "x" else "line"
    if axis is None:
        return f"{name} (pixel)"
    return f"{axis.name} ({axis.units})" if axis.units else axis.name


def _scan_type(scan: Scan) -> str:
    if scan.irregular:
        return "irregular"
    return "snake" if scan.snake else "raster"


def _image_group(process: h5py.Group, name: str, signal: str, **attributes: Any) -> h5py.Group:
    group = new_group(process, name, "NXdata", signal=signal, **attributes)
    group.attrs["axes"] = ["y", "x"]
    for axis in ("y", "x"):
        group[axis] = process.file[f"/entry/mapping/{axis}"]
    return group


def _write_presence(process: h5py.Group, phase_map: PhaseMap) -> None:
    group = new_group(process, "presence", "NXdata", signal="probability", interpretation="image")
    group.attrs["axes"] = ["phase", "y", "x"]
    say_values(group, "probability of presence of phase", dict(enumerate(phase_map.phase_names)))
    put(group, "phase", np.arange(len(phase_map.phase_names)), long_name="phase index")
    for axis in ("y", "x"):
        group[axis] = process.file[f"/entry/mapping/{axis}"]
    put(
        group,
        "probability",
        phase_map.probability,
        long_name="probability of presence",
        interpretation="image",
    )
    put(group, "spread", phase_map.spread, long_name="standard deviation over the ensemble")
    if phase_map.probability_alone is not None:
        put(
            group,
            "probability_alone",
            phase_map.probability_alone,
            long_name="probability of presence without the neighbours",
            interpretation="image",
        )
    decision = put(group, "decision", phase_map.decision, long_name="decision")
    decision.attrs["flag_values"] = np.array([1, 0, -1], np.int8)
    decision.attrs["flag_meanings"] = "present absent undetermined_or_no_data"


def _write_winner(process: h5py.Group, phase_map: PhaseMap) -> None:
    group = _image_group(process, "winner", "phase_id", interpretation="image")
    group.attrs["auxiliary_signals"] = ["confidence"]
    names = {**dict(enumerate(phase_map.phase_names)), **WINNER_MEANINGS}
    say_values(group, "most probable present phase", names)
    winner = put(group, "phase_id", phase_map.winner, long_name="most probable present phase")
    _say_winner(winner, phase_map)
    put(group, "confidence", phase_map.confidence, long_name="probability of the answer")


def _write_unknown(process: h5py.Group, phase_map: PhaseMap, threshold: float) -> None:
    group = _image_group(process, "unknown", "score", interpretation="image")
    group.attrs["auxiliary_signals"] = ["flag"]
    score = put(group, "score", phase_map.unknown, long_name="unknown score")
    score.attrs["meaning"] = "towards 1 where lines belong to no phase of the model"
    put(group, "threshold", threshold)
    known = np.isfinite(phase_map.unknown)
    reached = (phase_map.unknown >= threshold).astype(np.int8)
    flag = put(
        group, "flag", np.where(known, reached, -1).astype(np.int8), long_name="unknown phase"
    )
    flag.attrs["flag_values"] = np.array([1, 0, -1], np.int8)
    flag.attrs["flag_meanings"] = "unknown_phase nothing_unknown no_data"


def _write_scatter(process: h5py.Group, phase_map: PhaseMap) -> None:
    """The winner at each position: viewers draw a 1-D signal over two 1-D axes as points."""
    scan = phase_map.scan
    assert scan.x_actual is not None
    assert scan.y_actual is not None
    known = np.isfinite(scan.x_actual) & np.isfinite(scan.y_actual)
    group = new_group(process, "scatter", "NXdata", signal="phase_id")
    group.attrs["axes"] = ["x", "y"]
    winner = put(group, "phase_id", phase_map.winner[known], long_name="most probable phase")
    _say_winner(winner, phase_map)
    for name, axis, actual in (("x", scan.x, scan.x_actual), ("y", scan.y, scan.y_actual)):
        units = "" if axis is None else axis.units
        put(group, name, actual[known], units=units, long_name=_axis_label(name, axis, False))


def _say_winner(winner: h5py.Dataset, phase_map: PhaseMap) -> None:
    values = [*range(len(phase_map.phase_names)), *WINNER_MEANINGS]
    winner.attrs["flag_values"] = np.array(values, np.int16)
    winner.attrs["flag_meanings"] = " ".join(
        [*(name.replace(" ", "_") for name in phase_map.phase_names), *WINNER_MEANINGS.values()]
    )


def _write_co_occurrence(process: h5py.Group, phase_map: PhaseMap) -> None:
    group = _image_group(process, "co_occurrence", "combination", interpretation="image")
    group.attrs["auxiliary_signals"] = ["n_phases"]
    bits = {2**k: name for k, name in enumerate(phase_map.phase_names)}
    say_values(group, "present phases, the sum of", bits)
    put(
        group,
        "combination",
        phase_map.combination,
        long_name="present phases (sum of 2^index, -1 no result)",
    )
    put(group, "n_phases", phase_map.n_phases, long_name="number of present phases")


def _write_map_patterns(
    entry: h5py.Group, scan: Scan, grid: Grid, blocks: Iterator[tuple[int, Patterns]]
) -> None:
    """Resampled patterns on the map, spectrum last: (y, x, two_theta)."""
    ny, nx = scan.shape
    group = new_group(entry, "map_patterns", "NXdata", signal="intensity")
    group.attrs["axes"] = ["y", "x", "two_theta"]
    group.attrs["interpretation"] = "spectrum"
    for axis in ("y", "x"):
        group[axis] = entry[f"mapping/{axis}"]
    put(group, "two_theta", grid.two_theta, units="degrees", long_name=UNITS["2theta"][1])
    intensity = group.create_dataset(
        "intensity",
        shape=(ny, nx, grid.size),
        dtype="f4",
        chunks=(1, min(nx, 64), grid.size),
        compression="gzip",
        compression_opts=1,
        shuffle=True,
        fillvalue=np.nan,
    )
    intensity.attrs["units"] = "arbitrary units"
    intensity.attrs["interpretation"] = "spectrum"  # some readers look at the dataset only
    rows_at = {int(row): (y, x) for (y, x), row in np.ndenumerate(scan.frame_index) if row >= 0}
    line, held = -1, np.empty((nx, grid.size), np.float32)

    def flush() -> None:
        if line >= 0:
            intensity[line] = held

    for first, patterns in blocks:
        for offset, spectrum in enumerate(patterns.intensity):
            place = rows_at.get(first + offset)
            if place is None:
                continue
            if place[0] != line:
                flush()
                line = place[0]
                held = intensity[line]
            held[place[1]] = spectrum
    flush()


@dataclass(frozen=True)
class StoredMap:
    """The maps of a file, as arrays (see :class:`xrdpipe.maps.PhaseMap`).

    ``unknown`` is None, its threshold NaN, where the model cannot tell.
    """

    phase_names: tuple[str, ...]
    probability: Any
    decision: Any
    winner: Any
    status: Any
    model: str
    unknown: Any
    unknown_threshold: float


def read_map(path: Path) -> StoredMap:
    """Read the maps of a file.

    Raises
    ------
    InputMissingError, InputError
        If it is no map file; the absent dataset is named.
    """
    with sound(str(path)), open_processed(path, "map file") as file:
        entry = file["entry"]
        needed = ("phase_names", "presence/probability", "presence/decision", "winner/phase_id",
                  "status")  # fmt: skip
        for name in needed:
            if f"phase_map/{name}" not in entry:
                raise InputError(
                    f"{path} is no map file: /entry/phase_map/{name} is absent; expected a "
                    "file written by 'xrdpipe map'."
                )
        group = group_in(entry, "phase_map")
        return StoredMap(
            tuple(text(name) for name in whole(group["phase_names"], MOST_NAMES)),
            whole(group["presence/probability"]),
            whole(group["presence/decision"]),
            whole(group["winner/phase_id"]),
            whole(group["status"]),
            text(group["model/name"]) if "model/name" in group else "",
            whole(group["unknown/score"]) if "unknown" in group else None,
            float(whole(group["unknown/threshold"])) if "unknown" in group else np.nan,
        )
