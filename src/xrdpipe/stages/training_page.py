"""The report of a training as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from xrdpipe.page import page, picture, table
from xrdpipe.training_pictures import (
    draw_calibration,
    draw_confusion,
    draw_detection,
    draw_instrument,
    draw_learning,
)


def training_page(report: Mapping[str, Any], facts: Sequence[tuple[str, str]]) -> str:
    """The report as HTML, pictures inside.

    Parameters
    ----------
    report
        Content of ``report.json``.
    facts
        What was trained, label and text.
    """
    names = list(report["scores"]["all"])
    parts = [
        f"<h1>{escape(str(report['name']))}</h1>",
        "<p>Every number below is from synthetic patterns that training never saw, drawn by the "
        "same generator: what the model can do where the generator is right, an upper limit for "
        "measured patterns. Threshold 0.5.</p>",
        table(("", ""), facts),
        "<h2>Scores</h2>",
        *_scores(report),
        *_learning(report),
        "<h2>What is taken for what</h2>",
        picture(draw_confusion(names, report["confusion"]), "confusion"),
        "<p class='note'>Left: patterns with one visible phase of the library and no other; phases "
        "without a label may be there too. Beside the diagonal stands one phase taken for another; "
        "the last row holds false presences where there is none. Right: a phase that is visible "
        "and not found, by what else is there.</p>",
        _confusion_counts(report["confusion"]["phases"]),
        "<h2>Calibration</h2>",
        picture(draw_calibration(report["calibration"]), "calibration"),
        "<p class='note'>Bins of equal numbers of patterns, bars are 95 % intervals. ECE: mean "
        "distance from the diagonal.</p>",
        "<h2>Detection limits</h2>",
        picture(draw_detection(names, report["detection"]), "detection limits"),
        "<p class='note'>Solid: patterns in which the phase stands above the detection limit of "
        "the labels. Dotted: all patterns that hold it, the faintest included. Everything else "
        "varies as in training.</p>",
        *_limits(report["detection"], names),
        *_calibrant(report),
    ]
    return page(f"{report['name']}: training report", "\n".join(parts))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _scores(report: Mapping[str, Any]) -> Iterator[str]:
    head = ("phase", "patterns", "prevalence", "accuracy", "found if there", "absent if absent",
            "AUROC", "ECE")  # fmt: skip
    for kind, title in (("all", "All"), ("masked", "Masked"), ("unmasked", "Unmasked")):
        rows = [
            (
                name,
                str(s["patterns"]),
                _percent(s["prevalence"]),
                _percent(s["accuracy"]),
                _percent(s["true_positive_rate"]),
                _percent(s["true_negative_rate"]),
                "-" if s["auroc"] is None else f"{s['auroc']:.4f}",
                _number(s["ece"]),
            )
            for name, s in report["scores"][kind].items()
        ]
        yield f"<h3>{title} patterns</h3>" + table(head, rows)
    yield (
        f"<p>All phases right at once: {_percent(report['exact_match'])}. Phases below the "
        "detection limit are not judged here.</p>"
    )


def _learning(report: Mapping[str, Any]) -> Iterator[str]:
    if not report["learning"]:
        return
    yield "<h2>Learning curves</h2>"
    yield picture(draw_learning(report["learning"]), "learning curves")
    yield (
        "<p class='note'>A ring marks the weights that are kept, a dashed line the epoch after "
        "which there was no more gain. Losses of training are means over an epoch while the "
        "network changes, with dropout, so that the held-out loss can be lower.</p>"
    )


def _confusion_counts(phases: Mapping[str, Any]) -> str:
    head = ("phase", "found", "missed", "absent, right", "false presence",
            "below the limit: found", "missed")  # fmt: skip
    keys = ("true_present", "false_absent", "true_absent", "false_present",
            "below_detection_limit_found", "below_detection_limit_missed")  # fmt: skip
    return table(head, [(name, *(str(c[key]) for key in keys)) for name, c in phases.items()])


def _limits(detection: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    for key, measured in detection.items():
        if key == "false_presence":
            continue
        rows = []
        for name in names:
            entry = measured["phases"][name]
            limits = [entry[kind]["limits"][level] for kind in ("all", "visible")
                      for level in ("0.5", "0.9")]  # fmt: skip
            rows.append((name, *("not reached" if v is None else _number(v) for v in limits)))
        head = (f"found from this {measured['label']} on", "50 % (all)", "90 % (all)",
                "50 % (visible)", "90 % (visible)")  # fmt: skip
        yield table(head, rows)
    rows = [(name, _percent(detection["false_presence"][name])) for name in names]
    yield table(("said to be there where it is not", ""), rows)


def _calibrant(report: Mapping[str, Any]) -> Iterator[str]:
    if "calibrant" not in report:
        return
    found = report["calibrant"]
    yield f"<h2>Instrument, from {escape(found['calibrant'])}</h2>"
    yield picture(draw_instrument(found), "line widths of the calibrant")
    rows = [
        (name, _range(entry["before"]), _range(entry["after"]))
        for name, entry in found["ranges"].items()
    ]
    yield table(("[synthesis] key", "recipe", "with the calibrant"), rows)


def _range(value: Any) -> str:
    return " to ".join(f"{v:.4g}" for v in value) if isinstance(value, list) else f"{value:.4g}"
