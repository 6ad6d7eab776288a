"""From the runs of speed.py to costs per frame, ratios, and tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import Cost
from speed_cases import DATA, PATTERN_ROWS, Case, Work

PROBABILITY_TOLERANCE = 1e-3
"""Of probabilities: single patterns and blocks differ in their last bits. Noted, no failure."""

Rounds = dict[str, dict[str, list[float]]]
"""Per case and kind (cpu, wall) the milliseconds per frame of every round."""


@dataclass(frozen=True)
class Ratio:
    """A ratio of costs per frame, taken within each round.

    Parameters
    ----------
    name
        Key in the JSON.
    label
        In the table.
    above, below
        Cases, or parts of the floor, whose costs are added and divided.
    kind
        ``cpu`` or ``wall``.
    limit
        What it should be at least (``≥``) or at most (``≤``); empty: only reported.
    """

    name: str
    label: str
    above: tuple[str, ...]
    below: tuple[str, ...]
    kind: str = "cpu"
    limit: str = ""


def ratios(high: bool) -> list[Ratio]:
    """Those that say whether a frame costs what it should.

    Parameters
    ----------
    high
        Of bright frames, which decode more slowly.
    """
    ours, network = "paper-map-frames-1", "network: paper"
    at_least = "≥ 6" if high else "≥ 12"
    rest = dict.fromkeys(("csr", "diffmap", "kernel", "end", "both", "clip"), "")
    if not high:
        rest = {
            "csr": "≥ 25",
            "diffmap": "≥ 80",
            "kernel": "≤ 1.6",
            "end": "≤ 2",
            "both": "≤ 4",
            "clip": "≥ 10",
        }
    return [
        Ratio(
            "csc",
            "script (csc, paper's network) ÷ `map FRAMES`",
            ("paper-script-map",),
            (ours,),
            limit=at_least,
        ),
        Ratio(
            "csr",
            "script (csr, paper's network) ÷ `map FRAMES`",
            ("paper-script-map-csr",),
            (ours,),
            limit=rest["csr"],
        ),
        Ratio(
            "diffmap",
            "`pyFAI-diffmap` with its defaults ÷ `map FRAMES`",
            ("diffmap",),
            (ours,),
            limit=rest["diffmap"],
        ),
        Ratio(
            "shipped",
            "script (csc, shipped ensemble) ÷ `map FRAMES`",
            ("script-map",),
            ("map-frames-1",),
        ),
        Ratio("integrate", "script (csc) ÷ `integrate` unmasked", ("script",), ("unmasked-1",)),
        Ratio(
            "kernel",
            "decode + integrate in memory ÷ floor",
            ("xrdpipe: unmasked",),
            ("floor",),
            limit=rest["kernel"],
        ),
        Ratio("command", "`integrate` unmasked ÷ floor", ("unmasked-1",), ("floor",)),
        Ratio(
            "end",
            "`map FRAMES` ÷ (floor + paper's network)",
            (ours,),
            ("floor", network),
            limit=rest["end"],
        ),
        Ratio(
            "end-shipped",
            "`map FRAMES` ÷ (floor + shipped ensemble)",
            ("map-frames-1",),
            ("floor", "network: shipped"),
        ),
        Ratio(
            "both",
            "both variants and spottiness ÷ unmasked, `integrate`",
            ("both-1",),
            ("unmasked-1",),
            limit=rest["both"],
        ),
        Ratio(
            "both-kernel",
            "both variants and spottiness ÷ unmasked, in memory",
            ("xrdpipe: both with spottiness",),
            ("xrdpipe: unmasked",),
        ),
        Ratio(
            "clip",
            "`sigma_clip_ng` + `integrate1d` ÷ both variants and spottiness",
            ("clip",),
            ("both-1",),
            limit=rest["clip"],
        ),
        Ratio(
            "clip-no",
            "the same without pixel splitting",
            ("clip-no",),
            ("both-1",),
        ),
        Ratio(
            "off",
            "`integrate` unmasked without the kernel ÷ script (csc)",
            ("unmasked-off-1",),
            ("script",),
            limit="≤ 1",
        ),
        Ratio(
            "threads",
            "wall time of `integrate` unmasked, 1 thread ÷ all",
            ("unmasked-1",),
            ("unmasked",),
            "wall",
        ),
    ]


# --- numbers ---------------------------------------------------------------------------------


def spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 5),
        "min": round(min(values), 5),
        "max": round(max(values), 5),
    }


def sizes(case: Case, work: Work) -> tuple[int, int]:
    """Frames (or patterns) of the two runs of a case."""
    return PATTERN_ROWS if case.over_patterns else (work.small.frames, case.long(work).frames)


def per_frame(chosen: Sequence[Case], runs: dict[str, dict[str, list[Cost]]], work: Work) -> Rounds:
    """Milliseconds per frame: the difference of the two runs over that of their frames."""
    found: Rounds = {}
    for case in chosen:
        if case.inside:
            continue
        few, many = sizes(case, work)
        pairs = list(zip(runs[case.name]["small"], runs[case.name]["large"], strict=True))
        found[case.name] = {
            kind: [
                1e3 * (getattr(large, kind) - getattr(small, kind)) / (many - few)
                for small, large in pairs
            ]
            for kind in ("cpu", "wall")
        }
    return found


def summarize(
    chosen: Sequence[Case],
    runs: dict[str, dict[str, list[Cost]]],
    rounds: Rounds,
    work: Work,
) -> dict[str, Any]:
    """Per case: cost per frame, start-up, peak, and ratios to the baseline of the same round."""
    summary: dict[str, Any] = {}
    for case in chosen:
        if case.inside:
            continue
        few, many = sizes(case, work)
        small, large = runs[case.name]["small"], runs[case.name]["large"]
        cpu, wall = rounds[case.name]["cpu"], rounds[case.name]["wall"]
        summary[case.name] = {
            "label": case.label,
            "frames": [few, many],
            "cpu_ms_per_frame": spread(cpu),
            "wall_ms_per_frame": spread(wall),
            "start_cpu_s": spread([s.cpu - few * c / 1e3 for s, c in zip(small, cpu, strict=True)]),
            "start_wall_s": spread(
                [s.wall - few * w / 1e3 for s, w in zip(small, wall, strict=True)]
            ),
            "whole_wall_s": spread([cost.wall for cost in large]),
            "whole_cpu_s": spread([cost.cpu for cost in large]),
            "peak_mb": spread([cost.peak_mb for cost in large]),
        }
        if case.baseline not in rounds:
            continue
        for kind in ("cpu", "wall"):
            of = _quotients(rounds, (case.name,), (case.baseline,), kind)
            if of:
                summary[case.name][f"{kind}_ratio"] = spread(of)
                summary[case.name]["baseline"] = case.baseline
    return summary


def judge(rounds: Rounds, high: bool) -> dict[str, Any]:
    """Every ratio of :func:`ratios` that these rounds can give."""
    found = {}
    for ratio in ratios(high):
        of = _quotients(rounds, ratio.above, ratio.below, ratio.kind)
        if of:
            value = spread(of)
            found[ratio.name] = {"label": ratio.label, "limit": ratio.limit, **value}
            if ratio.limit:
                sign, limit = ratio.limit.split()
                good = value["median"] >= float(limit)
                found[ratio.name]["holds"] = good if sign == "≥" else not good
    return found


def _quotients(
    rounds: Rounds, above: tuple[str, ...], below: tuple[str, ...], kind: str
) -> list[float]:
    """Per round; nothing where a case was not run or too short to be seen."""
    if not all(name in rounds and kind in rounds[name] for name in (*above, *below)):
        return []
    tops, bottoms = (
        [sum(values) for values in zip(*(rounds[name][kind] for name in names), strict=True)]
        for names in (above, below)
    )
    return [top / bottom for top, bottom in zip(tops, bottoms, strict=True) if bottom > 0]


def notes(entry: Mapping[str, Any]) -> list[str]:
    """What a reader must know of this very run."""
    found = []
    settings = entry["settings"]
    others = [
        cost["others"]
        for both in entry["runs"].values()
        for cost in both["large"]
        if cost["others"] is not None
    ]
    if others and statistics.median(others) > 0.1:
        found.append(
            f"Other work kept {statistics.median(others):.1f} cores busy meanwhile (median): the "
            "wall times are too long, the ratios less reliable."
        )
    if settings["rounds"] < 3 or settings["fast"] < 256:
        found.append(
            f"{settings['label']}: {_rounds(settings['rounds'])} of {settings['fast']} frames, so "
            "differences below a third are noise."
        )
    apart = [v for name, v in entry["largest_differences"].items() if "probability" in name]
    if not max(apart, default=0) <= PROBABILITY_TOLERANCE:
        found.append(
            f"Probabilities of xrdpipe and of the script differ by up to {max(apart):.2g}."
        )
    if settings["fast"] % 256:
        found.append(
            "The network runs on blocks of 256 patterns, padded: with a number of frames that is "
            "no multiple of 256 the cost per frame of `map FRAMES` is off by up to a block."
        )
    if settings["stand_in_model"]:
        found.append(
            "No model ships with this build: the network has the shipped recipe's shape, its "
            "weights come from seconds of training."
        )
    return found


# --- tables ----------------------------------------------------------------------------------


def tables(result: Mapping[str, Any]) -> dict[str, str]:
    """Markdown by marker: ``ratios``, ``table`` (all cases), ``data`` (all kinds of frames)."""
    entries = {name: result["data"][name] for name in DATA if name in result["data"]}
    whole = [name for name in entries if DATA[name].cases == "*"]
    found = {"ratios": _ratio_table(entries), "data": _data_table(entries)}
    if whole:
        found["table"] = _case_table(entries[whole[0]])
    return found


def _rounds(number: int) -> str:
    return f"{number} interleaved round{'s' if number > 1 else ''}"


def _described(entry: Mapping[str, Any]) -> str:
    settings, computer = entry["settings"], entry["machine"]
    versions = computer["versions"]
    return (
        f"{settings['label']} per pixel: {settings['detector']} ({settings['shape'][0]} x "
        f"{settings['shape'][1]}), {settings['layout']}, median {settings['median_counts']:.0f} "
        f"counts, {settings['bytes_per_frame'] / 1e6:.2f} MB per frame on disk, "
        f"{settings['bins'][2]} bins; {_rounds(settings['rounds'])}; {computer['cores']} cores, "
        f"{computer['processor']}; xrdpipe {versions['xrdpipe']}, pyFAI {versions['pyFAI']}, numpy "
        f"{versions['numpy']}, torch {versions['torch']}."
    )


def _case_table(entry: Mapping[str, Any]) -> str:
    lines = [
        f"{_described(entry)} Median, with the smallest and the largest in brackets.",
        "",
        "| | CPU ms/frame | CPU ÷ script | wall ms/frame | wall ÷ script | start-up s | peak MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in entry["summary"].values():
        cells = [
            row["label"],
            _cell(row["cpu_ms_per_frame"]),
            _cell(row.get("cpu_ratio")),
            _cell(row["wall_ms_per_frame"]),
            _cell(row.get("wall_ratio")),
            f"{row['start_wall_s']['median']:.1f}",
            f"{row['peak_mb']['median']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return _with_notes(lines, entry)


def _ratio_table(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Ratios of the kinds of frames that have a floor, and the parts of the floor."""
    floored = {name: entry for name, entry in entries.items() if entry["floor"]}
    if not floored:
        return "No frames with a floor were run."
    labels = [entry["settings"]["label"] for entry in floored.values()]
    lines = [
        "One thread, CPU time per frame unless stated; median of the rounds, with the smallest and "
        "the largest in brackets.",
        "",
        f"| ratio | should be | {' | '.join(labels)} |",
        f"|---|---|{'---|' * len(labels)}",
    ]
    names = dict.fromkeys(name for entry in floored.values() for name in entry["ratios"])
    for name in names:
        of = [entry["ratios"].get(name) for entry in floored.values()]
        known = next(value for value in of if value)
        limits = dict.fromkeys(value["limit"] for value in of if value and value["limit"])
        cells = [known["label"], ", ".join(limits), *map(_cell, of)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"| CPU ms/frame | {' | '.join(labels)} |", f"|---|{'---|' * len(labels)}"]
    parts = dict.fromkeys(part for entry in floored.values() for part in entry["floor"])
    for part in parts:
        cells = [_cell(entry["floor"].get(part)) for entry in floored.values()]
        lines.append(f"| {part} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _data_table(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """One column per kind of frames."""
    labels = [entry["settings"]["label"] for entry in entries.values()]
    lines = [
        "CPU milliseconds per frame, and in brackets the same divided by the script (csc; with the "
        "network where a map is made).",
        "",
        f"| | {' | '.join(labels)} |",
        f"|---|{'---|' * len(labels)}",
    ]
    most = max(entries.values(), key=lambda entry: len(entry["summary"]))
    for name, row in most["summary"].items():
        if sum(name in entry["summary"] for entry in entries.values()) < min(2, len(entries)):
            continue
        cells = []
        for entry in entries.values():
            of = entry["summary"].get(name)
            ratio = of and of.get("cpu_ratio")
            divided = f" ({ratio['median']:.3g})" if ratio else ""
            cells.append(f"{of['cpu_ms_per_frame']['median']:.3g}{divided}" if of else "")
        lines.append(f"| {row['label']} | {' | '.join(cells)} |")
    unquiet = dict.fromkeys(note for entry in entries.values() for note in entry["notes"])
    return "\n".join([*lines, "", *(f"- {note}" for note in unquiet)]).rstrip()


def _with_notes(lines: Sequence[str], entry: Mapping[str, Any]) -> str:
    return "\n".join([*lines, "", *(f"- {note}" for note in entry["notes"])]).rstrip()


def _cell(values: Mapping[str, Any] | None) -> str:
    if values is None:
        return ""
    median, low, high = (f"{values[key]:.3g}" for key in ("median", "min", "max"))
    return f"**{median}** ({low} … {high})"


def fill(doc: Path, marker: str, text: str) -> None:
    """Put text between ``<!-- MARKER -->`` and ``<!-- /MARKER -->`` of a document."""
    begin, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    old = doc.read_text(encoding="utf-8")
    if begin not in old:
        raise SystemExit(f"{doc} has no line {begin}")
    head, _, tail = old.partition(begin)
    if end in tail:
        tail = tail.partition(end)[2]
    doc.write_text(f"{head}{begin}\n{text}\n{end}{tail}", encoding="utf-8")
