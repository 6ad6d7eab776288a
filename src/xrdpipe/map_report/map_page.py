"""The page of a report, section by section."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from xrdpipe.crystal import HC
from xrdpipe.map_colors import PHASE_COLORS
from xrdpipe.map_pictures import (
    MapPanel,
    composite,
    draw_panels,
    png_of,
    status_panel,
    svg_of,
    told_length,
)
from xrdpipe.map_report import origins
from xrdpipe.map_report.citations import CITATIONS
from xrdpipe.map_report.doubts import counted
from xrdpipe.map_report.measured import GroupMean, Measured, SinglePixel
from xrdpipe.map_report.summary import PhaseSummary, Summary
from xrdpipe.page import page, picture, table
from xrdpipe.pattern_pictures import Curve, MarkedPhase, PatternAxis, draw_pattern
from xrdpipe.store.map_record import MapRecord
from xrdpipe.types import FloatArray, Scan

ACCURACY = "https://github.com/xrdpipe/xrdpipe/blob/main/docs/accuracy.md"

STATUS_MEANINGS = {
    "pending": "its frame has not come yet",
    "ok": "judged",
    "missing": "there is no such frame",
    "unreadable": "the file could not be opened or decoded",
    "corrupt": "the file is damaged or cut short",
    "wrong_shape": "the frame has another shape than the others",
    "empty": "the frame holds nothing",
    "duplicate": "another frame has the same number",
    "skipped": "left out on purpose",
    "outside_grid": "the pattern covers less than half of the model's angles",
    "model_failed": "the model gave no finite number",
}

STYLE = """
body { max-width: 70rem; margin: 1.2rem auto; }
h1 { margin: 0 0 0.2rem; font-size: 1.6rem; overflow-wrap: anywhere; }
h2 { margin-top: 2.2rem; border-bottom: 2px solid #ddd; padding-bottom: 0.2rem; }
h3 { margin-bottom: 0.2rem; }
p.lead { margin: 0.2rem 0 0.8rem; color: #444; }
nav { font-size: 0.92em; margin-bottom: 0.6rem; }
nav a { margin-right: 1rem; }
ul.doubts { background: #fff4d6; border-left: 5px solid #e69f00; margin: 0.6rem 0;
            padding: 0.5rem 1rem 0.5rem 2rem; }
div.glance { display: flex; flex-wrap: wrap; gap: 0 1.5rem; align-items: flex-start; }
div.glance > div { flex: 1 1 24rem; min-width: 0; overflow-x: auto; }
div.glance > div:first-child { flex: 1.1 1 26rem; }
div.glance td { white-space: nowrap; padding: 0.2rem 0.5rem; }
p.legend { margin-bottom: 0.2rem; }
ul.legend { list-style: none; margin: 0; padding: 0; columns: 2; font-size: 0.92em; }
ul.legend li { break-inside: avoid; padding-left: 1.3em; text-indent: -1.3em; }
ul.legend + p { margin-top: 0.6rem; }
span.swatch { display: inline-block; width: 0.8em; height: 0.8em; border: 1px solid #555;
              margin-right: 0.45em; print-color-adjust: exact; }
div.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 0.5rem 1rem; }
div.pair > div { min-width: 0; }
table.facts td { text-align: left; vertical-align: top; overflow-wrap: anywhere; }
table.facts td:first-child { white-space: nowrap; color: #555; }
table.left td, table.left th { text-align: left; vertical-align: top; overflow-wrap: anywhere; }
td { font-variant-numeric: tabular-nums; }
figure { margin: 0.6rem 0; }
figure.wide img { width: 100%; }
figcaption { color: #555; font-size: 0.92em; }
pre { background: #f6f6f6; padding: 0.6rem; overflow-x: auto; font-size: 0.85em; }
@media (max-width: 50rem) { div.pair { grid-template-columns: 1fr; } }
@media print {
  body { max-width: none; margin: 0; font-size: 10pt; }
  nav { display: none; }
  figure, tr, ul.doubts { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  ul.doubts { border: 1px solid #e69f00; }
}
"""


@dataclass(frozen=True)
class Content:
    """All that the page shows.

    Parameters
    ----------
    measured
        None where the patterns cannot be read.
    doubts
        One sentence each.
    held_out
        Scores of the model on synthetic patterns it never saw, by phase; empty if not at hand.
    """

    record: MapRecord
    summary: Summary
    measured: Measured | None
    doubts: Sequence[str]
    held_out: Mapping[str, Any]


def map_page(content: Content) -> str:
    """The report as HTML, pictures inside."""
    record = content.record
    title = f"Phase map {record.path.name}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p class='lead'>{escape(headline(content))}</p>",
        "<nav><a href='#phases'>phases</a><a href='#whole'>confidence, unknown, status</a>"
        "<a href='#patterns'>patterns</a><a href='#worst'>worst explained</a>"
        "<a href='#lost'>lost frames</a><a href='#origin'>where it comes from</a>"
        "<a href='#cite'>how to cite</a></nav>",
        *_doubts(content.doubts),
        *_glance(content),
        *_phases(content),
        *_whole(content),
        *_patterns(content),
        *_worst(content),
        *_lost(content),
        *_origin(content),
        *_cite(),
        _machine(content),
    ]
    return page(title, "\n".join(parts), STYLE)


def headline(content: Content) -> str:
    """What was measured, in one line."""
    record, measured = content.record, content.measured
    scan = record.phase_map.scan
    ny, nx = scan.shape
    shape = f"{nx} scattered points" if scan.irregular else f"{ny} × {nx} pixels"
    parts = [f"{shape}, {content.summary.with_result} with a result"]
    if measured is not None:
        parts[0] += f", from {measured.n_frames} frames"
        parts.append(f"{measured.wavelength:.5g} Å ({HC / measured.wavelength / 1000:.4g} keV)")
    if size := _spacing(scan):
        parts.append(size)
    parts.append(f"model {record.model.get('name', 'unknown')}")
    parts.append(f"{' and '.join(record.variants)} patterns")
    if record.model.get("neighbours"):
        parts.append("neighbours as a prior")
    if record.written:
        parts.append(f"mapped {record.written[:10]}")
    return " · ".join(parts)


def _spacing(scan: Scan) -> str:
    """Spacing of the pixels in the units of the motors, where they have one."""
    if scan.irregular or scan.x is None or scan.y is None or not scan.x.units:
        return ""
    steps = [float(np.median(np.diff(axis.values))) if axis.values.size > 1 else math.nan
             for axis in (scan.y, scan.x)]  # fmt: skip
    if not all(math.isfinite(step) for step in steps):
        return ""
    told = [told_length(step, axis.units)
            for step, axis in zip(steps, (scan.y, scan.x), strict=True)]  # fmt: skip
    return f"steps {told[0]} × {told[1]}"


def _doubts(sentences: Sequence[str]) -> Iterator[str]:
    if sentences:
        items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
        yield f"<ul class='doubts'>{items}</ul>"


def _figure(image: bytes, name: str, caption: str = "", kind: str = "") -> str:
    told = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f"<figure class='{kind}'>{picture(image, name)}{told}</figure>"


# --- the answer ------------------------------------------------------------------------------


def _glance(content: Content) -> Iterator[str]:
    phase_map = content.record.phase_map
    together = composite(phase_map)
    drawn = draw_panels(phase_map.scan, [together], width=4.2, legend=False)
    yield "<div class='glance'><div>"
    yield _figure(png_of(drawn, 130), "which phases are present together")
    yield "</div><div>"
    phases = content.summary.phases
    # With more phases than colours a swatch would belong to several.
    colors = PHASE_COLORS if len(phases) <= len(PHASE_COLORS) else ("",) * len(phases)
    rows = "".join(map(_phase_row, phases, colors))
    yield (
        "<table><tr><th>phase</th><th>present</th><th>share</th>"
        f"<th>expected</th></tr>{rows}</table>"
    )
    yield "<p class='legend'>Present together, pixels:</p><ul class='legend'>"
    for kind in together.classes:
        yield f"<li>{_swatch(kind.color)}{escape(kind.label)}: {kind.count}</li>"
    yield "</ul>"
    if content.summary.unknown is not None:
        share = content.summary.unknown / max(content.summary.with_result, 1)
        yield (
            "<p>Lines of something that the model does not know: "
            f"{counted(content.summary.unknown, 'pixel')} ({percent(share)}).</p>"
        )
    yield (
        "<p class='note'>Present: pixels with a probability of 0.5 or more. Expected: the sum of "
        "the probabilities, first its standard deviation √Σp(1−p) if pixels err independently, "
        "then how far it moves if the networks of the ensemble err in all pixels alike. Both trust "
        "the calibration of the model, which is that of synthetic patterns: a sample unlike them "
        "can be off by more.</p></div></div>"
    )


def _phase_row(phase: PhaseSummary, color: str) -> str:
    swatch = _swatch(color) if color else ""
    share = percent(phase.share) if phase.judged else "-"
    return (
        f"<tr><td>{swatch}{escape(phase.name)}</td>"
        f"<td>{phase.present} of {phase.judged}</td><td>{share}</td>"
        f"<td>{expected(phase)}</td></tr>"
    )


def _swatch(color: str) -> str:
    return f"<span class='swatch' style='background:{color}'></span>"


def expected(phase: PhaseSummary) -> str:
    """``57.3 ± 2.9 ± 1.4``: Σp with both uncertainties."""
    digits = 1 if max(phase.counting, phase.model) < 20 else 0
    model = f" ± {phase.model:.{digits}f}" if phase.model > 0 else ""
    return f"{phase.expected:.{digits}f} ± {phase.counting:.{digits}f}{model}"


def percent(share: float) -> str:
    """A part in percent, with a decimal where it is small."""
    return f"{share:.1%}" if 0 < share < 0.1 else f"{share:.0%}"


def sentence(phase: PhaseSummary) -> str:
    """The answer for one phase, as HTML."""
    name = f"<b>{escape(phase.name)}</b>"
    if not phase.judged:
        return f"{name} could not be judged in any pixel."
    if not phase.present:
        return f"{name} is present in no pixel; the probabilities add up to {phase.expected:.1f}."
    return (
        f"{name} is present in {phase.present} of {phase.judged} pixels ({percent(phase.share)}); "
        f"by the probabilities {expected(phase)} are expected."
    )


# --- maps ------------------------------------------------------------------------------------


def phase_panels(record: MapRecord, k: int) -> list[MapPanel]:
    """Probability and spread of one phase."""
    phase_map = record.phase_map
    name = phase_map.phase_names[k]
    spread = phase_map.spread[k]
    top = max(float(np.nanmax(spread)) if np.isfinite(spread).any() else 0.0, 0.05)
    return [
        MapPanel(f"{name}: presence", phase_map.probability[k], "probability", threshold=0.5),
        MapPanel(f"{name}: spread", spread, "spread of the ensemble", "plasma", (0.0, top)),
    ]


def whole_panels(record: MapRecord) -> list[MapPanel]:
    """Confidence, unknown score, status."""
    phase_map = record.phase_map
    panels = [MapPanel("confidence", phase_map.confidence, "probability of the answer")]
    if phase_map.unknown_threshold is not None:
        panels.append(
            MapPanel(
                "something unknown",
                phase_map.unknown,
                "unknown score",
                "magma",
                threshold=phase_map.unknown_threshold,
            )
        )
    return [*panels, status_panel(phase_map)]


def _phases(content: Content) -> Iterator[str]:
    yield "<h2 id='phases'>Each phase</h2>"
    yield (
        "<p class='note'>Grey pixels have no result. The line on the colour bar is the threshold. "
        "The spread is the disagreement of the networks of the ensemble: where it is large, the "
        "probability is worth less.</p>"
    )
    for k, phase in enumerate(content.summary.phases):
        drawn = draw_panels(content.record.phase_map.scan, phase_panels(content.record, k))
        yield f"<h3>{escape(phase.name)}</h3><p>{sentence(phase)}</p>"
        yield _figure(png_of(drawn), f"{phase.name}: probability and spread")


def _whole(content: Content) -> Iterator[str]:
    yield "<h2 id='whole'>Confidence, unknown phases, status</h2>"
    scan = content.record.phase_map.scan
    panels = whole_panels(content.record)
    yield _figure(png_of(draw_panels(scan, panels[:-1])), "confidence and unknown score")
    yield (
        "<p class='note'>Confidence: the probability of the most probable present phase; where no "
        "phase is present, that of no phase at all. The unknown score rises to 1 where lines "
        "belong to no phase of the model; from the line on the colour bar on a pixel counts as "
        "unknown."
        f"{escape(_alarms(content))}</p>"
    )
    if set(content.summary.statuses) == {"ok"}:
        yield f"<p>Status: all {content.summary.pixels} pixels have a result.</p>"
        return
    yield _figure(png_of(draw_panels(scan, panels[-1:])), "status of every pixel")
    rows = [
        (name.replace("_", " "), str(count), STATUS_MEANINGS[name])
        for name, count in content.summary.statuses.items()
    ]
    yield table(("status", "pixels", "meaning"), rows, "left")


def _alarms(content: Content) -> str:
    value = np.asarray(content.record.model.get("unknown_false_alarms", np.nan), np.float64)
    if value.ndim or not np.isfinite(value):
        return ""
    return f" Of synthetic patterns without anything unknown {float(value):.0%} reach it."


# --- patterns --------------------------------------------------------------------------------


def _patterns(content: Content) -> Iterator[str]:
    yield "<h2 id='patterns'>Mean patterns</h2>"
    measured = content.measured
    if measured is None:
        yield "<p>The patterns are not at hand.</p>"
        return
    where = _axis(measured)
    yield (
        "<p class='note'>Intensities on a square-root scale. Below each pattern the lines of the "
        "ideal powders of the model's phases: height is the square root of the intensity. In a "
        "micro-beam few grains diffract, so that strong lines may be weak or absent; positions are "
        "what counts. Miller indices stand at the strongest lines. Where both variants are shown, "
        "the lower one sets the scale.</p>"
    )
    if not measured.groups:
        yield "<p>No pixel has a result.</p>"
    for group in measured.groups:
        drawn = draw_pattern(where, _curves(group), _marked(content, group.phase), group.title)
        yield _figure(svg_of(drawn, text=False), group.title, kind="wide")


def _axis(measured: Measured) -> PatternAxis:
    return PatternAxis(
        np.asarray(measured.two_theta, np.float64), measured.wavelength, measured.units
    )


def _curves(group: GroupMean) -> list[Curve]:
    variants = list(group.curves)
    return _styled([(v, group.curves[v].intensity) for v in reversed(variants)])


def _styled(patterns: Sequence[tuple[str, FloatArray]]) -> list[Curve]:
    """The map's own variant in black, drawn last; the other in grey behind it."""
    colors = ["#A0A0A0"] * (len(patterns) - 1) + ["black"]
    return [
        Curve(np.asarray(intensity, np.float64), variant, color)
        for (variant, intensity), color in zip(patterns, colors, strict=True)
    ]


def _marked(content: Content, subject: int | None) -> list[MarkedPhase]:
    """The phases whose lines are drawn: the subject first, then those found most often."""
    lines = content.record.lines
    if not lines:
        return []
    counts = [phase.present for phase in content.summary.phases]
    order = sorted(range(len(lines)), key=lambda k: (k != subject, -counts[k], k))
    return [MarkedPhase(lines[k], k, k == subject) for k in order]


def _worst(content: Content) -> Iterator[str]:
    yield "<h2 id='worst'>Worst-explained pixels</h2>"
    measured = content.measured
    if measured is None or not measured.worst:
        yield "<p>The patterns are not at hand.</p>" if measured is None else "<p>None.</p>"
        return
    by = measured.worst_by
    told = "highest unknown score" if by == "unknown score" else "lowest confidence"
    yield f"<p class='note'>The pixels with the {told}: look here first for what is missing.</p>"
    yield "<div class='pair'>"
    for pixel in measured.worst:
        title = f"pixel {pixel.y}, {pixel.x} · {by} {pixel.score:.2f}"
        curves = _styled([(v, pixel.curves[v]) for v in reversed(list(pixel.curves))])
        drawn = draw_pattern(
            _axis(measured), curves, _marked(content, None)[:4], title, size=(5.6, 2.6)
        )
        shown = _figure(svg_of(drawn, text=False), title, escape(_where(pixel)), "wide")
        yield f"<div>{shown}</div>"
    yield "</div>"


def _where(pixel: SinglePixel) -> str:
    parts = [f"row {pixel.y}, column {pixel.x}", *pixel.position, f"frame {pixel.frame}"]
    if pixel.file:
        parts.append(pixel.file)
    return f"{', '.join(parts)}: {pixel.answer}"


# --- what is not there -----------------------------------------------------------------------


def _lost(content: Content) -> Iterator[str]:
    yield "<h2 id='lost'>Lost frames</h2>"
    measured = content.measured
    if measured is None:
        yield "<p>The patterns, which hold the reasons, are not at hand.</p>"
        return
    total = sum(measured.lost_counts.values())
    if not total:
        yield f"<p>All {measured.n_frames} frames could be used.</p>"
        return
    yield f"<p>{total} of {measured.n_frames} frames could not be used.</p>"
    counts = [(reason, str(count)) for reason, count in list(measured.lost_counts.items())[:20]]
    yield table(("reason", "frames"), counts)
    yield (
        f"<p class='note'>The first {len(measured.lost)}:</p>" if total > len(measured.lost) else ""
    )
    yield table(
        ("frame", "pixel (row, column)", "file", "status", "reason"),
        [(str(f.frame), f.pixel, f.file, f.status, f.reason) for f in measured.lost],
        "left",
    )


# --- where it comes from ---------------------------------------------------------------------


def _origin(content: Content) -> Iterator[str]:
    record, measured = content.record, content.measured
    yield "<h2 id='origin'>Where it comes from</h2><h3>Files</h3>"
    yield table(("", ""), origins.files(record, measured), "facts")
    yield "<h3>Scan</h3>"
    scan = record.phase_map.scan
    rows = [
        ("shape", f"{scan.shape[0]} rows × {scan.shape[1]} columns"
         + (", irregular" if scan.irregular else ", every second line backwards" * scan.snake)),
        ("fast axis", scan.fast_axis),
        ("known from", f"{scan.source} ({scan.confidence}) {scan.evidence}".strip()),
    ]  # fmt: skip
    yield table(("", ""), rows, "facts")
    if measured is not None:
        yield "<h3>From frames to patterns</h3>"
        yield table(("", ""), origins.integration(measured), "facts")
        if poni := origins.poni(measured):
            yield f"<pre>{escape(poni.strip())}</pre>"
    yield "<h3>Options that are not the default</h3>"
    for stage, changed in origins.options(record, measured).items():
        yield f"<h4>{stage}</h4>"
        yield table(("", ""), changed, "facts") if changed else "<p>None.</p>"
    yield "<h3>Model</h3>"
    yield table(("", ""), origins.model(record), "facts")
    yield from _held_out(content.held_out)
    yield (
        "<p>How accurate such maps are, and where they fail: "
        f"<a href='{ACCURACY}'>accuracy</a>.</p>"
    )
    if rows := origins.versions(record):
        yield "<h3>Versions</h3>" + table(("", ""), rows, "facts")


def _held_out(scores: Mapping[str, Any]) -> Iterator[str]:
    if not scores:
        return
    rows = [
        (name, *(f"{100 * float(s[key]):.1f} %" for key in
                 ("accuracy", "true_positive_rate", "true_negative_rate")))
        for name, s in scores.items()
    ]  # fmt: skip
    yield (
        "<p>On synthetic patterns that training never saw, phases below the detection limit not "
        "judged: an upper limit for measured ones.</p>"
    )
    yield table(("phase", "right", "found if there", "absent if absent"), rows)


def _cite() -> Iterator[str]:
    yield "<h2 id='cite'>How to cite</h2><table class='left'>"
    for citation in CITATIONS:
        yield (
            f"<tr><td>{escape(citation.purpose)}</td><td>{escape(citation.text)} "
            f"<a href='https://doi.org/{citation.doi}'>doi:{escape(citation.doi)}</a></td></tr>"
        )
    yield "</table><p class='note'>And xrdpipe with its version, which stands above.</p>"


def machine(content: Content) -> dict[str, Any]:
    """The numbers of the page for programs."""
    record, measured, summary = content.record, content.measured, content.summary
    scan = record.phase_map.scan
    return {
        "xrdpipe_report": 1,
        "map": str(record.path),
        "title": record.title,
        "shape": list(scan.shape),
        "irregular": scan.irregular,
        "model": str(record.model.get("name", "")),
        "variants": list(record.variants),
        "wavelength_angstrom": None if measured is None else measured.wavelength,
        "frames": None if measured is None else measured.n_frames,
        "pixels_with_result": summary.with_result,
        "pending": record.pending,
        "phases": {
            phase.name: {
                "present": phase.present,
                "judged": phase.judged,
                "expected": phase.expected,
                "counting": phase.counting,
                "model": phase.model,
            }
            for phase in summary.phases
        },
        "unknown": summary.unknown,
        "statuses": summary.statuses,
        "combinations": {c.label: c.count for c in composite(record.phase_map).classes},
        "worst": []
        if measured is None
        else [{"y": p.y, "x": p.x, measured.worst_by: p.score} for p in measured.worst],
        "lost": {} if measured is None else measured.lost_counts,
        "doubts": list(content.doubts),
    }


def _machine(content: Content) -> str:
    # Written so, a "<" of a name can neither end the element nor begin a comment in it.
    text = json.dumps(machine(content), indent=1, ensure_ascii=False).replace("<", "\\u003c")
    return f"<script type='application/json' id='xrdpipe'>\n{text}\n</script>"
