"""Where a map comes from, as tables: files with their hashes, geometry, options, versions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xrdpipe import config
from xrdpipe.map_report.measured import Measured
from xrdpipe.store.map_patterns import parsed
from xrdpipe.store.map_record import MapRecord

Rows = list[tuple[str, str]]


def file_sha256(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files(record: MapRecord, measured: Measured | None) -> Rows:
    """The files, from the map back to the frames."""
    rows = [
        ("map", f"{record.path.name}, written {record.written} by xrdpipe {record.version}"),
        ("sha256", file_sha256(record.path)),
        ("patterns", str(record.patterns)),
    ]
    if measured is not None:
        made = measured.facts.get("end_time", "")
        version = measured.facts.get("xrdpipe_version", "")
        if made:
            rows.append(("", f"{measured.n_frames} rows, written {made} by xrdpipe {version}"))
        if measured.files:
            first, last, number = measured.files
            rows.append(("frames", f"{measured.n_frames} in {number} files: {first} … {last}"))
    if record.pipeline:
        told = ", ".join(f"{name} {value}" for name, value in record.pipeline.items() if value)
        rows.append(("pipeline", told))
    return rows


def integration(measured: Measured) -> Rows:
    """How frames became patterns."""
    facts = measured.facts
    rows: Rows = []
    for label, name in (
        ("detector", "detector"),
        ("geometry file", "poni_file"),
        ("sha256", "poni_sha256"),
        ("method", "method"),
        ("pixels", "pixel_kind"),
        ("pyFAI", "pyfai_version"),
    ):
        if facts.get(name) not in (None, ""):
            rows.append((label, str(facts[name]).removeprefix(f"{label}: ")))
    rows.append(("wavelength", f"{measured.wavelength:.6g} Å"))
    factor = measured.polarization_factor
    rows.append(("polarization", "not corrected" if factor is None else f"corrected, {factor:g}"))
    for source in parsed(facts, "mask_sources") or ():
        if isinstance(source, list) and len(source) == 3:
            name, count, digest = source
            rows.append((f"mask {name}", f"{count} pixels" + (f", sha256 {digest}" * bool(digest))))
    return rows


def poni(measured: Measured) -> str:
    """The geometry file as it was; empty where there is none."""
    text = str(measured.facts.get("poni", ""))
    return text if ":" in text and "\n" in text else ""


def changed_options(stage: str, recorded: Any) -> Rows:
    """Options that are not the default."""
    if not isinstance(recorded, Mapping):
        return []
    rows = []
    for definition in config.fields(config.STAGES[stage]):
        value = recorded.get(definition.name, definition.default)
        default = (
            list(definition.default)
            if isinstance(definition.default, tuple)
            else (definition.default)
        )
        if not definition.required and value != default:
            rows.append((f"--{definition.name.replace('_', '-')}", _told(value)))
    return rows


def options(record: MapRecord, measured: Measured | None) -> dict[str, Rows]:
    """Per stage, what was not the default; stages without a record are left out."""
    found = {}
    mapped = parsed(record.model, "config_json")
    if mapped is not None:
        found["map"] = changed_options("map", mapped)
    integrated = None if measured is None else parsed(measured.facts, "config_json")
    if isinstance(integrated, Mapping):
        stage = "integrate" if "poni" in integrated else "collect"
        found[stage] = changed_options(stage, integrated)
    return found


def model(record: MapRecord) -> Rows:
    """The model as the map remembers it."""
    labels = {
        "name": "model",
        "network": "network",
        "members": "members of the ensemble",
        "weights_sha256": "sha256 of the weights",
        "input_variant": "judged patterns",
        "channels": "channels",
        "grid": "trained for",
        "threshold": "threshold of presence",
        "prior": "prior of presence",
        "prior_trained": "prior of training",
        "neighbours": "neighbours as a prior",
        "device": "device",
    }
    return [(label, _told(record.model[name])) for name, label in labels.items()
            if name in record.model]  # fmt: skip


def versions(record: MapRecord) -> Rows:
    """Of what computed the map."""
    recorded = parsed(record.model, "versions_json")
    if not isinstance(recorded, Mapping):
        return []
    rows = [(name, str(value)) for name, value in recorded.items() if not isinstance(value, dict)]
    trained = recorded.get("trained_with")
    if isinstance(trained, Mapping):
        rows.append(("trained with", ", ".join(f"{name} {v}" for name, v in trained.items())))
    return rows


def _told(value: Any) -> str:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_told(item) for item in value)
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)
