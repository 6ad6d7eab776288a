"""Tables (between markers of a document) and figures of the results."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .evaluate import EDGES, PRIORS, SUBSETS, VARIANTS
from .protocol import MAIN

COLORS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000")
"""Okabe & Ito."""

AXES = {
    "fraction": ("fraction of the phase", "log"),
    "grains": ("grains in the beam", "log"),
    "signal_to_noise": ("signal to noise of the strongest line", "log"),
    "strain": ("|strain| of the cell", "linear"),
    "missing": ("part of the range missing", "linear"),
}


def percent(score: Mapping[str, Any] | None, *, ranged: bool = False) -> str:
    """A share with its interval, in per cent."""
    return _number(score, 100, 1, ranged)


def plain(score: Mapping[str, Any] | None, *, ranged: bool = False) -> str:
    """A number with its interval."""
    return _number(score, 1, 3, ranged)


def _number(score: Mapping[str, Any] | None, scale: float, digits: int, ranged: bool) -> str:
    if score is None or score["value"] is None:
        return "–"
    text = f"{scale * score['value']:.{digits}f}"
    if ranged and score["low"] is not None:
        text += f" ({scale * score['low']:.{digits}f} to {scale * score['high']:.{digits}f})"
    return text


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def tables(result: Mapping[str, Any]) -> dict[str, str]:
    """Markdown tables by the name of their marker."""
    made: dict[str, str] = {}
    for name in (*MAIN, "detectors"):
        for subset in SUBSETS:
            if name in result["truth"]:
                made[f"accuracy-{name}-{subset}"] = _accuracy(result, name, subset)
    if "main" in result["truth"]:
        made["accuracy-alone"] = _alone(result)
        made["accuracy-coverage"] = _coverage(result)
    if any(name.startswith("main-") for name in result["truth"]):
        made["accuracy-wavelength"] = _wavelength(result)
    if result["paired"]:
        made["accuracy-paired"] = _paired(result)
    if "calibration" in result:
        made["accuracy-calibration"] = _calibration(result)
    if {"nothing", "unknown"} & set(result["truth"]):
        made["accuracy-foreign"] = _foreign(result)
    return made


def _names(result: Mapping[str, Any]) -> list[str]:
    """The label set."""
    return list(next(iter(result["truth"].values()))["goals"]["positives"])


def _each(part: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for method, by_variant in part.items():
        for variant in VARIANTS:
            if variant in by_variant:
                yield f"{method}, {variant}", by_variant[variant]


def _accuracy(result: Mapping[str, Any], name: str, subset: str) -> str:
    numbers = result["truth"][name]
    names = list(numbers[subset]["positives"])
    shares = numbers[subset]["prevalence"]
    constant = [f"{100 * max(s, 1 - s):.1f} / 50.0 / 0.500" for s in shares.values()]
    mean = 100 * sum(max(s, 1 - s) for s in shares.values()) / len(shares)
    match = 100 * numbers[subset]["commonest_combination"]
    rows = [["best constant answer", *constant, f"{mean:.1f}", f"{match:.1f}", "–", "–", "–", "0"]]
    for label, by_set in _each(result["scores"]):
        scores = by_set[name][subset]
        phases = scores["phases"].values()
        cells = [
            f"{percent(p['accuracy'])} / {percent(p['balanced_accuracy'])} / {plain(p['auroc'])}"
            for p in phases
        ]
        undetermined = max((p["undetermined"]["value"] or 0.0) for p in phases)
        rows.append(
            [
                label,
                *cells,
                percent(scores["mean"]["accuracy"], ranged=True),
                percent(scores["exact_match"]),
                plain(scores["mean"]["mcc"]),
                plain(scores["mean"]["f1"]),
                _seeds(scores),
                f"{100 * undetermined:.1f}",
            ]
        )
    head = ["method, variant", *names, "mean accuracy (95 %)", "all right", "MCC", "F1",
            "each seed", "undetermined"]  # fmt: skip
    counts = ", ".join(
        f"{phase} {100 * shares[phase]:.0f} % ({numbers[subset]['positives'][phase]})"
        for phase in names
    )
    return (
        f"{_table(head, rows)}\n\n{numbers['pixels']} pixels in {numbers['maps']} maps. "
        f"Accuracy % / balanced accuracy % / AUROC. Prevalence (positives): {counts}."
    )


def _alone(result: Mapping[str, Any]) -> str:
    rows = []
    names = _names(result)
    for label, by_phase in _each(result["alone"]):
        for subset in by_phase[names[0]]:
            scores = [by_phase[name][subset] for name in names]
            cells = [f"{plain(score, ranged=True)}, n = {score['positives']}" for score in scores]
            rows.append([label, subset, *cells])
    return _table(["method, variant", "positives", *names], rows)


def _coverage(result: Mapping[str, Any]) -> str:
    ranges = next(_each(result["coverage"]))[1]
    rows = [["best constant answer", *(f"{100 * entry['constant']:.1f}" for entry in ranges)]]
    for label, entries in _each(result["coverage"]):
        means = [sum(e["accuracy"].values()) / len(e["accuracy"]) for e in entries]
        rows.append([label, *(f"{100 * mean:.1f}" for mean in means)])
    head = ["method, variant"]
    for entry in ranges:
        blind = entry["blind"]
        missing = "complete" if blind is None else f"without {blind[0]:.1f}-{blind[1]:.1f}°"
        head.append(f"{missing} ({entry['maps']} maps)")
    return _table(head, rows)


def _wavelength(result: Mapping[str, Any]) -> str:
    rows = []
    for label, by_ending in _each(result["wavelength"]):
        for ending, scores in by_ending.items():
            rows.append(
                [
                    label,
                    f"0.{ending} Å",
                    percent(scores["accuracy"], ranged=True),
                    percent(scores["loss"], ranged=True),
                    *(percent(loss) for loss in scores["loss_of_phases"].values()),
                ]
            )
    head = ["method, variant", "wavelength", "mean accuracy %", "points lost (95 %)",
            *(f"of {name}" for name in _names(result))]  # fmt: skip
    return _table(head, rows)


def _paired(result: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{other}, {variant}",
            name,
            *(percent(by_subset[subset], ranged=True) for subset in SUBSETS),
        ]
        for other, by_variant in result["paired"].items()
        for variant, by_set in by_variant.items()
        for name, by_subset in by_set.items()
    ]
    first = next(iter(result["methods"]))
    return _table([f"points of {first} over", "labels", *SUBSETS], rows)


def _calibration(result: Mapping[str, Any]) -> str:
    rows = []
    names = _names(result)
    for label, by_subset in _each(result["calibration"]):
        for subset, by_phase in by_subset.items():
            cells = [
                " / ".join(plain(by_phase[name][str(p)], ranged=p == PRIORS[0]) for p in PRIORS)
                for name in names
            ]
            rows.append([label, subset, *cells])
    return _table(["method, variant", "pixels", *names], rows)


def _foreign(result: Mapping[str, Any]) -> str:
    rows = []
    names = _names(result)
    for label, by_set in _each(result["scores"]):
        cells = ["–"] * len(names)
        if "nothing" in by_set:
            phases = by_set["nothing"]["everything"]["phases"]
            cells = [percent(phases[name]["false_presence"], ranged=True) for name in names]
        method, variant = label.rsplit(", ", 1)
        unknown = result.get("unknown", {}).get(method, {}).get(variant)
        with_unknown, score = ["–"] * len(names), ["–", "–", "–"]
        if unknown:
            found = unknown["false_presence"]
            with_unknown = [
                f"{percent(found[n]['with'])} ({percent(found[n]['without'])})" for n in names
            ]
            if unknown["auroc"]:
                score = [plain(unknown["auroc"][subset], ranged=True) for subset in SUBSETS]
                flagged = unknown["flagged"]
                score.append(f"{percent(flagged['with'])} ({percent(flagged['without'])})")
        rows.append([label, *cells, *with_unknown, *score])
    head = [
        "method, variant",
        *(f"{name} where nothing is" for name in names),
        *(f"{name} where an unknown is (is not)" for name in names),
        "unknown: AUROC, goals",
        "everything",
        "flagged where an unknown is (is not)",
    ]
    return _table(head, rows)


def held_out(result: Mapping[str, Any]) -> str:
    """The methods on held-out patterns of the generator."""
    rows = []
    for variant, numbers in result["truth"].items():
        best = [
            [100 * max(share, 1 - share) for share in numbers[subset]["prevalence"].values()]
            for subset in SUBSETS
        ]
        each = [f"{share:.1f} / 0.500" for share in best[0]]
        means = [f"{sum(shares) / len(shares):.1f}" for shares in best]
        rows.append([f"best constant answer, {variant}", *each, means[0], "–", means[1]])
    for label, by_subset in _each(result["scores"]):
        visible, everything = (by_subset[subset] for subset in SUBSETS)
        rows.append(
            [
                label,
                *(
                    f"{percent(phase['accuracy'])} / {plain(phase['auroc'])}"
                    for phase in visible["phases"].values()
                ),
                percent(visible["mean"]["accuracy"], ranged=True),
                _seeds(visible),
                percent(everything["mean"]["accuracy"], ranged=True),
            ]
        )
    names = next(iter(result["truth"].values()))["goals"]["positives"]
    head = ["method, variant", *names, "mean of what is visible (95 %)", "each seed",
            "everything: mean (95 %)"]  # fmt: skip
    pixels = next(iter(result["truth"].values()))["pixels"]
    return f"{_table(head, rows)}\n\n{pixels} patterns. Accuracy % / AUROC."


def _seeds(scores: Mapping[str, Any]) -> str:
    return " / ".join(f"{100 * share:.1f}" for share in scores["accuracy_of_each_seed"])


def members(result: Mapping[str, Any], one: str, together: str) -> str:
    """One network beside the ensemble, at the goals of the main sets.

    Parameters
    ----------
    result
        Of :func:`~benchmarks.accuracy.evaluate.evaluate`.
    one, together
        Methods: the members as seeds of one, and the ensemble.
    """
    rows = []
    others = [name for name in result["paired"] if name != together]
    for variant in VARIANTS:
        for name in MAIN:
            mean = {
                method: by_variant[variant][name]["goals"]["mean"]["accuracy"]
                for method, by_variant in result["scores"].items()
            }
            cells = [
                _seeds(result["scores"][one][variant][name]["goals"]),
                *(percent(mean[method], ranged=True) for method in (one, together)),
            ]
            for other in others:
                gain = result["paired"][other][variant][name]["goals"]
                cells += [percent(mean[other], ranged=True), percent(gain, ranged=True)]
            rows.append([f"{variant}, {name}", *cells])
    head = ["variant, labels", "each seed", "mean of the seeds (95 %)", "ensemble (95 %)"]
    for other in others:
        head += [f"{other} (95 %)", "the seeds more than that by"]
    return _table(head, rows)


def write_tables(document: Path, made: Mapping[str, str]) -> list[str]:
    """Put each table between its markers; returns the names that the document has no place for."""
    text = document.read_text(encoding="utf-8")
    homeless = []
    for name, table in made.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if start not in text or end not in text:
            homeless.append(name)
            continue
        between = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
        text = between.sub(lambda _, s=start, t=table, e=end: f"{s}\n{t}\n{e}", text)
    document.write_text(text, encoding="utf-8")
    return homeless


def draw_figures(folder: Path, result: Mapping[str, Any]) -> list[Path]:
    """Detection limits, calibration and risk-coverage; returns what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    if "detection" in result:
        written.append(_draw_detection(folder / "accuracy_detection.png", result["detection"]))
        written.append(_draw_risk(folder / "accuracy_risk.png", result["risk_coverage"]))
    if "reliability" in result:
        written.append(
            _draw_reliability(folder / "accuracy_calibration.png", result["reliability"])
        )
    return written


def _style(part: Mapping[str, Any]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Curves: a colour per method, full lines masked, broken lines unmasked, dots both."""
    for number, (method, by_variant) in enumerate(part.items()):
        for variant, line in zip(VARIANTS, ("-", "--", ":"), strict=True):
            color = COLORS[number % len(COLORS)]
            yield f"{method}, {variant}", by_variant[variant], {"color": color, "ls": line}


def _draw_detection(path: Path, part: Mapping[str, Any]) -> Path:
    from matplotlib.figure import Figure

    names = list(next(_style(part))[1]["fraction"])
    figure = Figure(figsize=(3.1 * len(names) + 2.2, 2.3 * len(AXES)), layout="constrained")
    axes = figure.subplots(len(AXES), len(names), squeeze=False, sharey=True)
    for row, (quantity, (label, scale)) in enumerate(AXES.items()):
        x = _middles(quantity)
        for column, name in enumerate(names):
            axis = axes[row][column]
            for legend, by_quantity, line in _style(part):
                classes = by_quantity[quantity][name]
                found, low, high = (
                    [math.nan if c[key] is None else c[key] for c in classes]
                    for key in ("value", "low", "high")
                )
                axis.plot(x, found, marker="o", ms=3, lw=1.2, label=legend, **line)
                if line["ls"] == "-":
                    axis.fill_between(x, low, high, color=line["color"], alpha=0.15, lw=0)
            axis.set_xscale(scale)
            if scale == "log":
                axis.set_xticks(x, [f"{float(f'{value:.2g}'):g}" for value in x], minor=False)
                axis.minorticks_off()
            else:
                axis.locator_params(axis="x", nbins=4)
                axis.set_xlim(left=0, right=2 * x[-1] - EDGES[quantity][-2])
            axis.set_ylim(-0.03, 1.03)
            axis.grid(alpha=0.3)
            axis.set_xlabel(label, fontsize=8)
            axis.tick_params(labelsize=7)
            if row == 0:
                axis.set_title(name, fontsize=9)
            if column == 0:
                axis.set_ylabel("found", fontsize=8)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=7)
    figure.savefig(path, dpi=130, metadata={"Software": "xrdpipe"})
    return path


def _middles(quantity: str) -> list[float]:
    """Where the classes of a quantity are drawn."""
    edges = [float(edge) for edge in EDGES[quantity]]
    if AXES[quantity][1] == "linear":
        return [(low + high) / 2 for low, high in itertools.pairwise(edges)]
    # The outer classes of signal to noise are open.
    closed = [max(edges[0], 0.5 * edges[1]), *edges[1:-1], min(edges[-1], 10 * edges[-2])]
    return [math.sqrt(low * high) for low, high in itertools.pairwise(closed)]


def _draw_risk(path: Path, part: Mapping[str, Any]) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axis = figure.subplots()
    for legend, curve, line in _style(part):
        axis.plot(curve["coverage"], curve["risk"], label=legend, **line)
    axis.set_xlabel("decisions kept, the surest first")
    axis.set_ylabel("part of them wrong")
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=7)
    figure.savefig(path, dpi=130, metadata={"Software": "xrdpipe"})
    return path


def _draw_reliability(path: Path, part: Mapping[str, Any]) -> Path:
    from matplotlib.figure import Figure

    names = list(next(_style(part))[1])
    figure = Figure(figsize=(2.8 * len(names) + 2.2, 2.9), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for axis, name in zip(axes, names, strict=True):
        axis.plot([0, 1], [0, 1], color="0.7", lw=1)
        for legend, by_phase, line in _style(part):
            bins = by_phase[name]
            stated, observed = [b["stated"] for b in bins], [b["observed"] for b in bins]
            axis.plot(stated, observed, marker="o", ms=2.5, lw=1, label=legend, **line)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("stated probability", fontsize=8)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("observed frequency", fontsize=8)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=7)
    figure.savefig(path, dpi=130, metadata={"Software": "xrdpipe"})
    return path
