"""A map file as a person looks at it: maps, lines of the phases, and where it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from xrdpipe.bounds import MOST_NAMES, MOST_VALUES, sound
from xrdpipe.crystal import PhaseLines
from xrdpipe.errors import InputError
from xrdpipe.frames.layouts.links import attribute, group_in, whole
from xrdpipe.maps import PhaseMap
from xrdpipe.store.maps import read_map
from xrdpipe.store.nexus import PENDING_PATH, open_processed, text
from xrdpipe.types import Scan, ScanAxis

NEEDED = (
    "mapping/frame_index",
    "phase_map/winner/confidence",
    "phase_map/co_occurrence/combination",
    "phase_map/co_occurrence/n_phases",
    "phase_map/presence/spread",
)
"""Besides what :func:`read_map` needs."""


@dataclass(frozen=True)
class MapRecord:
    """Everything a map file holds.

    Parameters
    ----------
    path, title, written, version
        The file, its title, when it was written (ISO 8601) and by which version of xrdpipe.
    phase_map
        The maps and the scan.
    model
        Entries of ``phase_map/model``: texts, numbers and small arrays.
    lines
        Of every phase, in class order; empty for files that do not have them.
    patterns
        The file the map was made from; it may be gone.
    pending
        Pixels that still wait for their frame; None of a finished map.
    key, pipeline
        What the numbers depend on (decision 21), and which step of which pipeline asked for them.
    """

    path: Path
    title: str
    written: str
    version: str
    phase_map: PhaseMap
    model: Mapping[str, Any]
    lines: tuple[PhaseLines, ...]
    patterns: Path
    pending: int | None
    key: Mapping[str, Any]
    pipeline: Mapping[str, Any]

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants of the patterns that the answer rests on."""
        variant = str(self.model.get("input_variant", "masked"))
        return ("masked", "unmasked") if variant == "both" else (variant,)


def read_map_record(path: Path) -> MapRecord:
    """Read a map file, finished or partial.

    Raises
    ------
    InputMissingError, InputError
        If it is no map file; the absent dataset is named.
    """
    stored = read_map(path)
    with sound(str(path)), open_processed(path, "map file") as file:
        entry = file["entry"]
        for name in NEEDED:
            if name not in entry:
                raise InputError(
                    f"{path} is no complete map file: /entry/{name} is absent; make it again with "
                    "'xrdpipe map'."
                )
        process = group_in(entry, "phase_map")
        presence = process["presence"]
        phase_map = PhaseMap(
            phase_names=stored.phase_names,
            probability=stored.probability,
            spread=whole(presence["spread"]),
            decision=stored.decision,
            winner=stored.winner,
            confidence=whole(process["winner/confidence"]),
            combination=whole(process["co_occurrence/combination"]),
            n_phases=whole(process["co_occurrence/n_phases"]),
            unknown=np.full(stored.winner.shape, np.nan, np.float32)
            if stored.unknown is None
            else stored.unknown,
            unknown_threshold=None if stored.unknown is None else stored.unknown_threshold,
            status=stored.status,
            scan=_scan(group_in(entry, "mapping")),
            probability_alone=whole(presence["probability_alone"])
            if "probability_alone" in presence
            else None,
        )
        if phase_map.scan.shape != stored.winner.shape:
            raise InputError(
                f"{path}: /entry/mapping/frame_index has shape {phase_map.scan.shape}, the maps "
                f"have {stored.winner.shape}; expected the same."
            )
        return MapRecord(
            path=path,
            title=_text(entry, "title"),
            written=_text(entry, "end_time"),
            version=attribute(entry["program_name"], "version") if "program_name" in entry else "",
            phase_map=phase_map,
            model=_parameters(process),
            lines=_lines(process, stored.phase_names),
            patterns=_patterns(path, entry),
            pending=int(whole(file[PENDING_PATH])) if PENDING_PATH in file else None,
            key=_json(_text(process, "run_key")),
            pipeline=_json(attribute(process, "pipeline")),
        )


def _scan(mapping: h5py.Group) -> Scan:
    actual: dict[str, NDArray[np.float64]] = {
        name: np.asarray(whole(mapping[name]), np.float64)
        for name in ("x_actual", "y_actual")
        if name in mapping
    }
    kind = _text(mapping, "scan_type")
    return Scan(
        frame_index=np.asarray(whole(mapping["frame_index"]), np.int32),
        fast_axis=_text(mapping, "fast_axis") or "x",
        snake=kind == "snake",
        source=_text(mapping, "source"),
        x=_axis(mapping, "x"),
        y=_axis(mapping, "y"),
        irregular=kind == "irregular",
        confidence=_text(mapping, "confidence"),
        evidence=_text(mapping, "evidence"),
        **actual,
    )


def _axis(mapping: h5py.Group, name: str) -> ScanAxis | None:
    """The axis where a motor gave positions; its units are those of the positions as measured."""
    if f"{name}_motor" not in mapping:
        return None
    measured = f"{name}_actual"
    units = attribute(mapping[measured if measured in mapping else name], "units")
    values = np.asarray(whole(mapping[name]), np.float64)
    return ScanAxis(values, _text(mapping, f"{name}_motor"), units)


def _lines(process: h5py.Group, names: tuple[str, ...]) -> tuple[PhaseLines, ...]:
    if "reference_lines" not in process:
        return ()
    group = group_in(process, "reference_lines")
    phase, d, intensity, hkl = (
        np.asarray(whole(group[name])) for name in ("phase", "d", "intensity", "hkl")
    )
    if not len(phase) == len(d) == len(intensity) == len(hkl):
        raise InputError(
            f"{process.file.filename}: the columns of {group.name} have {len(phase)}, {len(d)}, "
            f"{len(intensity)} and {len(hkl)} rows; expected the same."
        )
    return tuple(
        PhaseLines(
            name,
            d[phase == k].astype(np.float64),
            intensity[phase == k].astype(np.float64),
            hkl[phase == k].astype(np.int64),
        )
        for k, name in enumerate(names)
    )


def _parameters(process: h5py.Group) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "model" not in process:
        return found
    for name, item in group_in(process, "model").items():
        if isinstance(item, h5py.Dataset):
            value = whole(item, MOST_NAMES if item.ndim else MOST_VALUES)
            found[name] = text(value) if isinstance(value, (bytes, str)) else value
    return found


def _patterns(path: Path, entry: h5py.Group) -> Path:
    """The linked patterns file, or the file itself where the map was added to its patterns."""
    link = entry.get("patterns", getlink=True)
    return path.parent / link.filename if isinstance(link, h5py.ExternalLink) else path


def _text(group: h5py.Group, name: str) -> str:
    return text(group[name]) if isinstance(group.get(name), h5py.Dataset) else ""


def _json(value: str) -> Mapping[str, Any]:
    try:
        found = json.loads(value or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
