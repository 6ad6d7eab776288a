"""``xrdpipe report``: a map on one page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xrdpipe.config import ReportConfig
from xrdpipe.errors import InputError, InputMissingError, XrdpipeError
from xrdpipe.map_pictures import composite, draw_panels, png_of, svg_of
from xrdpipe.map_report.doubts import doubts
from xrdpipe.map_report.map_page import Content, map_page, phase_panels, whole_panels
from xrdpipe.map_report.measured import Measured, measure
from xrdpipe.map_report.summary import summarise
from xrdpipe.nn.model_folder import find_model, model_sha256
from xrdpipe.store.exports import file_names, refuse_foreign, write_ours
from xrdpipe.store.map_patterns import parsed
from xrdpipe.store.map_record import MapRecord, read_map_record
from xrdpipe.types import Outcome, Progress

PUBLICATION_DPI = 300


def run(config: ReportConfig, progress: Progress) -> Outcome:
    """Write the page, and with ``images`` every map as PNG and SVG."""
    record = read_map_record(config.map)
    output = config.output or config.map.with_name(f"{config.map.stem}_report.html")
    refuse_foreign(output, b"<!DO")
    measured, why = _measured(record, progress)
    summary = summarise(record.phase_map)
    content = Content(
        record, summary, measured, doubts(record, summary, measured, why), _held_out(record)
    )
    write_ours(output, map_page(content).encode())
    lines = [f"{output}: report of {config.map}."]
    if config.images is not None:
        number = _write_images(record, config.images)
        lines.append(f"  {number} pictures in {config.images}")
    lines += [f"  {sentence}" for sentence in content.doubts]
    return Outcome(output, summary="\n".join(lines))


def _measured(record: MapRecord, progress: Progress) -> tuple[Measured | None, str]:
    """What the patterns say; None and a reason where they are not at hand."""
    begun = 0

    def read(rows: int, total: int) -> None:
        nonlocal begun
        if not begun:
            progress.start("report", total)
        progress.advance(rows - begun)
        begun = rows

    try:
        return measure(record, read), ""
    except (InputMissingError, InputError) as error:
        return None, str(error)
    finally:
        progress.done()


def _held_out(record: MapRecord) -> Mapping[str, Any]:
    """The model's own scores, where the same model is at hand."""
    options = parsed(record.model, "config_json")
    named = options.get("model") if isinstance(options, dict) else None
    try:
        folder = find_model(named)
        if model_sha256(folder) != record.model.get("weights_sha256"):
            return {}
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        scores = report["scores"]["all"]
        return {name: scores[name] for name in record.phase_map.phase_names}
    except (XrdpipeError, OSError, ValueError, KeyError, TypeError):
        return {}


def _write_images(record: MapRecord, folder: Path) -> int:
    """Each map by itself; returns the number of files."""
    phase_map = record.phase_map
    named = [("composite", composite(phase_map))]
    for k, name in enumerate(file_names(phase_map.phase_names)):
        presence, spread = phase_panels(record, k)
        named += [(f"{name}_presence", presence), (f"{name}_spread", spread)]
    for panel in whole_panels(record):
        named.append((panel.title.replace(" ", "_"), panel))
    for name, panel in named:
        drawn = draw_panels(phase_map.scan, [panel])
        write_ours(folder / f"{name}.png", png_of(drawn, PUBLICATION_DPI))
        write_ours(folder / f"{name}.svg", svg_of(drawn))
    return 2 * len(named)
