"""Time xrdpipe against pyFAI-diffmap and against the loop a pyFAI expert writes.

Every case is a process of its own, run on the same frames. The cases are interleaved (A B C … A B
C …) so that a machine that becomes slower, or is shared, changes all of them alike, and each is run
with ``--small`` frames and with ``--small`` + ``--frames`` frames: the difference divided by
``--frames`` is the cost per frame, the rest is start-up (imports, geometry, matrix, model).

Run: ``python benchmarks/speed.py -o benchmarks/results/speed.json [--doc docs/performance.md]``
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from folders import (
    COUNTS,
    STAND_IN,
    Series,
    dead_pixels,
    find_or_train_model,
    of_length,
    scan_shape,
    simulated,
    xrdpipe,
)
from processes import ONE_THREAD, Cost, describe, machine, own_peak_mb, run, say

HERE = Path(__file__).parent
TOLERANCE = 1e-6
"""Largest difference of I and sigma between xrdpipe and the script, in max(|I|, sigma)."""

PROBABILITY_TOLERANCE = 1e-3
"""Of probabilities: single patterns and blocks differ in their last bits. Noted, no failure."""

PATTERN_ROWS = (256, 4096)
"""Rows of the patterns files that are mapped: whole blocks of 256 rows."""


@dataclass(frozen=True)
class Work:
    """What all cases share.

    Parameters
    ----------
    small, large
        The two series.
    bins
        (low, high, count): outer edges in degrees; xrdpipe's default for the detector.
    mask
        EDF file with the dead pixels, which xrdpipe finds by itself.
    coverage
        Covered part of each bin's ring, for the script with a network.
    model
        Model folder.
    patterns
        Patterns files of :data:`PATTERN_ROWS` rows.
    """

    small: Series
    large: Series
    bins: tuple[float, float, int]
    mask: Path
    coverage: Path
    model: Path
    patterns: tuple[Path, Path]


@dataclass(frozen=True)
class Case:
    """One thing to time.

    Parameters
    ----------
    name
        Key in the JSON.
    label
        In the table.
    command
        From what is shared, the series (or patterns file) and an output folder to the command.
    baseline
        The case it is compared with.
    env
        Added to the environment.
    over_patterns
        The input is a patterns file, not frames.
    """

    name: str
    label: str
    command: Callable[[Work, Any, Path], list[str]]
    baseline: str
    env: dict[str, str] = field(default_factory=dict)
    over_patterns: bool = False


# --- the cases -------------------------------------------------------------------------------


def _script(algorithm: str, with_map: bool) -> Callable[[Work, Series, Path], list[str]]:
    def command(work: Work, series: Series, out: Path) -> list[str]:
        low, high, count = work.bins
        text = [sys.executable, str(HERE / "script_loop.py"), *map(str, series.files)]
        text += ["--poni", str(series.poni), "--mask", str(work.mask), "-o", str(out / "out.npz")]
        text += ["--bins", repr(low), repr(high), str(count), "--algorithm", algorithm]
        if with_map:
            text += ["--model", str(work.model), "--coverage", str(work.coverage)]
        return text

    return command


def _integrate(*options: str) -> Callable[[Work, Series, Path], list[str]]:
    def command(work: Work, series: Series, out: Path) -> list[str]:
        text = [*xrdpipe(), "integrate", str(series.folder), "--poni", str(series.poni)]
        return [*text, *options, "-o", str(out / "patterns.h5")]

    return command


def _map_frames(*options: str) -> Callable[[Work, Series, Path], list[str]]:
    def command(work: Work, series: Series, out: Path) -> list[str]:
        rows, columns = scan_shape(series.frames)
        text = [*xrdpipe(), "map", str(series.folder), "--poni", str(series.poni)]
        text += ["--model", str(work.model), "--scan-shape", f"{rows}x{columns}", *options]
        return [*text, "--device", "cpu", "--variant", "unmasked", "-o", str(out / "map.h5")]

    return command


def _map_patterns(*options: str) -> Callable[[Work, Path, Path], list[str]]:
    def command(work: Work, patterns: Path, out: Path) -> list[str]:
        text = [*xrdpipe(), "map", str(patterns), "--model", str(work.model), "--device", "cpu"]
        return [*text, *options, "-o", str(out / "map.h5")]

    return command


def _diffmap(algorithm: str | None) -> Callable[[Work, Series, Path], list[str]]:
    """``pyFAI-diffmap --no-gui``; with an algorithm: set up to give what xrdpipe gives."""

    def command(work: Work, series: Series, out: Path) -> list[str]:
        rows, columns = scan_shape(series.frames)
        low, high, count = work.bins
        text = [sys.executable, "-c", "from pyFAI.app.diff_map import main; main()", "--no-gui"]
        text += ["-t", str(columns), "-r", str(rows), "-o", str(out / "diffmap.h5")]
        if algorithm is None:
            text += ["-p", str(series.poni), "-c", str(count)]
        else:
            settings = {
                "application": "worker",
                "version": 5,
                "poni": _poni(series.poni),
                "unit": "2th_deg",
                "nbpt_rad": count,
                "nbpt_azim": 1,
                "radial_range": [low, high],
                "method": ["bbox", algorithm, "cython"],
                "error_model": "poisson",
                "polarization_description": [0.99, 0],
                "correct_solid_angle": True,
                "mask_file": str(work.mask.resolve()),
            }
            config = out / "diffmap.json"
            config.write_text(json.dumps({"diffmap_config_version": 1, "ai": settings}))
            text += ["--config", str(config)]
        return text + [str(file.resolve()) for file in series.files]

    return command


def _poni(path: Path) -> dict[str, Any]:
    """A PONI file as the JSON of pyFAI's workers wants it (metres and radian)."""
    lines = (line.split(":", 1) for line in path.read_text().splitlines() if line[:1] != "#")
    entries = {key.strip().lower(): value.strip() for key, value in lines}
    numbers = ("poni1", "poni2", "rot1", "rot2", "rot3", "wavelength")
    return {
        "poni_version": 2.1,
        "dist": float(entries["distance"]),
        **{name: float(entries[name]) for name in numbers},
        "detector": entries["detector"],
        "detector_config": json.loads(entries["detector_config"]),
    }


def cases() -> list[Case]:
    one = ("--threads", "1")
    script, mapped = "script", "script-map"
    both = ("--variant", "both", "--spottiness")
    return [
        Case(script, "script: read, integrate (csc)", _script("csc", False), script, ONE_THREAD),
        Case("script-csr", "script: the same with csr", _script("csr", False), script, ONE_THREAD),
        Case("unmasked", "`integrate` unmasked", _integrate("--variant", "unmasked"), script),
        Case(
            "unmasked-1",
            "`integrate` unmasked, 1 thread",
            _integrate("--variant", "unmasked", *one),
            script,
            ONE_THREAD,
        ),
        Case("masked", "`integrate` masked (robust rejection)", _integrate(), script),
        Case(
            "masked-1",
            "`integrate` masked (robust rejection), 1 thread",
            _integrate(*one),
            script,
            ONE_THREAD,
        ),
        Case("both", "`integrate --variant both --spottiness`", _integrate(*both), script),
        Case(
            "both-1",
            "`integrate --variant both --spottiness`, 1 thread",
            _integrate(*both, *one),
            script,
            ONE_THREAD,
        ),
        Case("diffmap", "`pyFAI-diffmap`, its defaults", _diffmap(None), script),
        Case("diffmap-csr", "`pyFAI-diffmap`, csr, Poisson errors", _diffmap("csr"), script),
        Case("diffmap-csc", "`pyFAI-diffmap`, csc, Poisson errors", _diffmap("csc"), script),
        Case(
            mapped,
            "script: read, integrate (csc), network at batch 1",
            _script("csc", True),
            mapped,
            ONE_THREAD,
        ),
        Case("map-frames", "`map FRAMES --poni` unmasked", _map_frames(), mapped),
        Case(
            "map-frames-1",
            "`map FRAMES --poni` unmasked, 1 thread",
            _map_frames(*one),
            mapped,
            ONE_THREAD,
        ),
        Case(
            "map-patterns",
            "`map patterns.h5` (per pattern)",
            _map_patterns(),
            mapped,
            over_patterns=True,
        ),
        Case(
            "map-patterns-1",
            "`map patterns.h5` (per pattern), 1 thread",
            _map_patterns(*one),
            mapped,
            ONE_THREAD,
            over_patterns=True,
        ),
    ]


# --- the data --------------------------------------------------------------------------------


def prepare(options: argparse.Namespace, work: Path) -> Work:
    """Simulate, cut to length, and make everything that is not to be timed."""
    counts = COUNTS.get(options.counts) or float(options.counts)
    total = options.small + options.frames
    everything = simulated(work, options.detector, options.format, total, counts, options.seed)
    large = of_length(everything, total, work / "large")
    small = of_length(everything, options.small, work / "small")
    mask = work / "mask.edf"
    _write_mask(mask, small)
    model = find_or_train_model(options.model, work)
    reference = work / "reference.h5"
    reference.unlink(missing_ok=True)
    command = [*xrdpipe(), "integrate", str(small.folder), "--poni", str(small.poni), "--restart"]
    run([*command, "--variant", "unmasked", "-o", str(reference)], work / "reference.log")
    with h5py.File(reference) as file:
        edges = file["entry/data/radial_axis_edges"][()]
        np.save(work / "coverage.npy", file["entry/data/coverage"][0])
    patterns = tuple(
        _tiled(reference, options.small, rows, work / f"patterns_{rows}.h5")
        for rows in PATTERN_ROWS
    )
    low, high, count = float(edges[0]), float(edges[-1]), edges.size - 1
    return Work(small, large, (low, high, count), mask, work / "coverage.npy", model, patterns)


def _write_mask(path: Path, series: Series) -> None:
    from fabio.edfimage import EdfImage

    EdfImage(data=dead_pixels(series).astype(np.uint8)).write(str(path))


def _tiled(source: Path, held: int, rows: int, target: Path) -> Path:
    """A patterns file with its rows repeated: a longer map without integrating one."""
    with h5py.File(source) as old, h5py.File(target, "w") as new:

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            per_row = name.startswith(("entry/data/", "entry/frames/"))
            if isinstance(item, h5py.Group):
                made = new.require_group(name)
            elif per_row and item.ndim and item.shape[0] == held:
                repeats = (-(-rows // held), *[1] * (item.ndim - 1))
                values = np.tile(item[()], repeats)[:rows]
                if name == "entry/frames/index":
                    values = np.arange(rows, dtype=item.dtype)
                made = new.create_dataset(name, data=values, dtype=item.dtype)
            else:
                made = new.create_dataset(name, data=item[()], dtype=item.dtype)
            for key, value in item.attrs.items():
                if key not in ("DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME"):
                    made.attrs[key] = value

        new.attrs.update(old.attrs)
        old.visititems(copy)
    return target


# --- measuring -------------------------------------------------------------------------------


def measure(case: Case, work: Work, which: str, folder: Path) -> Cost:
    """Run one case once in an emptied folder, which then holds its output."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    number = ("small", "large").index(which)
    given = work.patterns[number] if case.over_patterns else (work.small, work.large)[number]
    return run(case.command(work, given, folder), folder / "log.txt", case.env)


def sizes(case: Case, work: Work) -> tuple[int, int]:
    """Frames (or patterns) of the two runs of a case."""
    return PATTERN_ROWS if case.over_patterns else (work.small.frames, work.large.frames)


def compare(outputs: dict[str, Path]) -> dict[str, float]:
    """Largest differences between what the cases computed; absent where one was not run.

    Intensities and errors relative to max(|I|, sigma) of the script, probabilities absolute.
    """
    found: dict[str, float] = {}
    if "script" not in outputs:
        return found
    with np.load(outputs["script"] / "out.npz") as file:
        intensity, sigma = file["intensity"], file["errors"]
    scale = np.maximum(np.abs(intensity), sigma)

    def largest(values: np.ndarray, expected: np.ndarray, known: np.ndarray) -> float:
        difference = np.abs(values.reshape(expected.shape) - expected)
        return float((difference[known] / scale[known]).max())

    for name in ("unmasked", "unmasked-1", "map-frames"):
        if name in outputs:
            file_name = "map_patterns.h5" if name == "map-frames" else "patterns.h5"
            with h5py.File(outputs[name] / file_name) as file:
                values, errors = file["entry/data/I"][()], file["entry/data/I_errors"][()]
            known = np.isfinite(values)
            if np.any(~known & (intensity != 0)):
                raise AssertionError(f"{name} has no value where the script has one")
            found[f"{name}: I"] = largest(values, intensity, known)
            found[f"{name}: sigma"] = largest(errors, sigma, known)
    for name in ("diffmap-csr", "diffmap-csc"):
        if name in outputs:
            with h5py.File(outputs[name] / "diffmap.h5") as file:
                (entry,) = [file[key] for key in file if key.startswith("entry")]
                values = entry["pyFAI/result/intensity"][()]
                errors = entry["pyFAI/result/errors"][()]
            known = sigma > 0
            found[f"{name}: I"] = largest(values, intensity, known)
            found[f"{name}: sigma"] = largest(errors, sigma, known)
    if "script-csr" in outputs:
        with np.load(outputs["script-csr"] / "out.npz") as file:
            found["script-csr: I"] = largest(file["intensity"], intensity, sigma > 0)
    if "script-map" in outputs and "map-frames" in outputs:
        found["map-frames: probability"] = _probability_difference(outputs)
    return found


def _probability_difference(outputs: dict[str, Path]) -> float:
    with h5py.File(outputs["map-frames"] / "map.h5") as file:
        group = file["entry/phase_map"]
        probability = group["presence/probability"][()]
        card = json.loads((Path(group.file.filename).parent / "model.json").read_text())
    with np.load(outputs["script-map"] / "out.npz") as file:
        odds = file["log_odds"]
    phases = len(probability)
    members = [
        1 / (1 + np.exp(-(odds[:, i, :phases] / entry["temperature"] + np.array(entry["bias"]))))
        for i, entry in enumerate(card["calibration"])
    ]
    ours = probability.reshape(probability.shape[0], -1).T
    difference = np.abs(ours - np.mean(members, axis=0))
    return float(difference[np.isfinite(ours)].max())


def check(outputs: dict[str, Path], model: Path) -> dict[str, float]:
    """The differences, after refusing any that is too large."""
    if "map-frames" in outputs:
        shutil.copy(model / "model.json", outputs["map-frames"] / "model.json")
    found = compare(outputs)
    wrong = {
        name: value
        for name, value in found.items()
        if "probability" not in name and not value <= TOLERANCE
    }
    if wrong:
        raise SystemExit(f"the numbers differ too much: {wrong}")
    return found


# --- results ---------------------------------------------------------------------------------


def spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 5),
        "min": round(min(values), 5),
        "max": round(max(values), 5),
    }


def summarize(chosen: Sequence[Case], runs: dict[str, dict[str, list[Cost]]], work: Work) -> dict:
    """Per case: cost per frame, start-up, peak, and ratios to the baseline of the same round."""
    per_frame: dict[str, dict[str, list[float]]] = {}
    summary: dict[str, Any] = {}
    for case in chosen:
        few, many = sizes(case, work)
        pairs = list(zip(runs[case.name]["small"], runs[case.name]["large"], strict=True))
        cpu = [1e3 * (large.cpu - small.cpu) / (many - few) for small, large in pairs]
        wall = [1e3 * (large.wall - small.wall) / (many - few) for small, large in pairs]
        per_frame[case.name] = {"cpu": cpu, "wall": wall}
        start_cpu = [small.cpu - few * c / 1e3 for (small, _), c in zip(pairs, cpu, strict=True)]
        start = [small.wall - few * w / 1e3 for (small, _), w in zip(pairs, wall, strict=True)]
        summary[case.name] = {
            "label": case.label,
            "frames": [few, many],
            "cpu_ms_per_frame": spread(cpu),
            "wall_ms_per_frame": spread(wall),
            "start_cpu_s": spread(start_cpu),
            "start_wall_s": spread(start),
            "whole_wall_s": spread([large.wall for _, large in pairs]),
            "whole_cpu_s": spread([large.cpu for _, large in pairs]),
            "peak_mb": spread([large.peak_mb for _, large in pairs]),
        }
    for case in chosen:
        if case.baseline not in per_frame:
            continue
        for kind in ("cpu", "wall"):
            ratios = [
                mine / theirs
                for mine, theirs in zip(
                    per_frame[case.name][kind], per_frame[case.baseline][kind], strict=True
                )
                if theirs > 0
            ]
            if ratios:
                summary[case.name][f"{kind}_ratio"] = spread(ratios)
                summary[case.name]["baseline"] = case.baseline
    return summary


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    settings, computer = result["settings"], result["machine"]
    versions = computer["versions"]
    few, many = settings["small"], settings["small"] + settings["frames"]
    lines = [
        f"{settings['detector']} ({settings['shape'][0]} x {settings['shape'][1]}), "
        f"{settings['format']}, {settings['counts']} counts "
        f"({settings['bytes_per_frame'] / 1e6:.2f} MB per frame on disk), {settings['bins'][2]} "
        f"bins, {settings['rounds']} interleaved "
        f"round{'s' if settings['rounds'] > 1 else ''} of {few} and {many} frames; "
        f"{computer['cores']} cores, {computer['processor']}; xrdpipe {versions['xrdpipe']}, "
        f"pyFAI {versions['pyFAI']}, numpy {versions['numpy']}, torch {versions['torch']}. "
        "Median, with the smallest and the largest in brackets.",
        "",
        "| | CPU ms/frame | CPU ÷ script | wall ms/frame | wall ÷ script | start-up s | peak MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in result["summary"].values():
        cells = [
            entry["label"],
            _cell(entry["cpu_ms_per_frame"]),
            _cell(entry.get("cpu_ratio")),
            _cell(entry["wall_ms_per_frame"]),
            _cell(entry.get("wall_ratio")),
            f"{entry['start_wall_s']['median']:.1f}",
            f"{entry['peak_mb']['median']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"- {note}" for note in result["notes"])]).rstrip()


def _cell(values: dict[str, float] | None) -> str:
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


def notes(result: dict[str, Any]) -> list[str]:
    """What a reader must know of this very run."""
    found = []
    settings = result["settings"]
    others = [
        cost["others"]
        for both in result["runs"].values()
        for cost in both["large"]
        if cost["others"] is not None
    ]
    if others and statistics.median(others) > 0.1:
        found.append(
            f"Other work kept {statistics.median(others):.1f} cores busy meanwhile (median): the "
            "wall times are too long, the ratios less reliable."
        )
    if settings["rounds"] < 3 or settings["frames"] < 128:
        found.append(
            f"A trial run ({settings['frames']} frames, {settings['rounds']} "
            f"round{'s' if settings['rounds'] > 1 else ''}): too short to be quoted."
        )
    apart = result["largest_differences"].get("map-frames: probability", 0)
    if not apart <= PROBABILITY_TOLERANCE:
        found.append(f"Probabilities of xrdpipe and of the script differ by up to {apart:.2g}.")
    if settings["frames"] % 256:
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


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=256, help="frames to divide by (256)")
    parser.add_argument("--small", type=int, default=8, help="frames of the short runs (8)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--detector", default="Eiger1M", help="pyFAI's name (Eiger1M)")
    parser.add_argument("--format", default="eiger", choices=["eiger", "tiff", "cbf"])
    parser.add_argument(
        "--counts", default="low", help="low (10 counts at the strongest line), high (1000), or N"
    )
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--model", help="name or folder (default: the shipped one)")
    parser.add_argument(
        "--cases", default="*", help="names or patterns separated by commas: script,unmasked*"
    )
    parser.add_argument("--work", type=Path, help="keep the frames here (default: temporary)")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results" / "speed.json")
    parser.add_argument("--doc", type=Path, help="put the table into this document")
    parser.add_argument("--marker", default="table", help="between <!-- MARKER --> lines (table)")
    parser.add_argument(
        "--again", action="store_true", help="only make the table of --output anew; no timing"
    )
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.again:
        finish(json.loads(options.output.read_text()), options)
        return
    wanted = options.cases.split(",")
    chosen = [c for c in cases() if any(fnmatch.fnmatch(c.name, pattern) for pattern in wanted)]
    if not chosen:
        raise SystemExit(f"no case is named so; there are {', '.join(c.name for c in cases())}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.work or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        finish(timed(options, chosen, folder), options)


def timed(options: argparse.Namespace, chosen: list[Case], folder: Path) -> dict[str, Any]:
    """Prepare, warm up, check, time, check again."""
    say("simulating")
    work = prepare(options, folder)
    outputs = {case.name: folder / "out" / case.name for case in chosen}
    computer = machine()
    say(f"warming up {len(chosen)} cases")  # byte code, page cache; and a first look at the numbers
    for case in chosen:
        measure(case, work, "small", outputs[case.name])
    check(outputs, work.model)
    runs: dict[str, dict[str, list[Cost]]] = {c.name: {"small": [], "large": []} for c in chosen}
    for turn in range(options.rounds):
        for case in chosen:
            for which in ("small", "large"):
                cost = measure(case, work, which, outputs[case.name])
                runs[case.name][which].append(cost)
            busy = "" if cost.others is None else f", others {cost.others:.1f} cores"
            say(
                f"round {turn + 1}: {case.name:<14} {cost.wall:7.2f} s wall {cost.cpu:7.2f} s CPU "
                f"{cost.peak_mb:6.0f} MB{busy}"
            )
    agreement = check(outputs, work.model)
    pixels = dead_pixels(work.small)
    on_disk = sum(f.stat().st_size for f in work.large.folder.iterdir() if "master" not in f.name)
    result: dict[str, Any] = {
        "benchmark": "speed",
        "date": time.strftime("%Y-%m-%d"),
        "machine": computer,
        "settings": {
            "detector": options.detector,
            "shape": list(pixels.shape),
            "dead_pixels": int(pixels.sum()),
            "format": options.format,
            "counts": options.counts,
            "bytes_per_frame": round(on_disk / work.large.frames),
            "bins": list(work.bins),
            "frames": options.frames,
            "small": options.small,
            "rounds": options.rounds,
            "pattern_rows": list(PATTERN_ROWS),
            "threads": "all cores, or one where the label says so; the scripts use one",
            "one_thread": ONE_THREAD,
            "stand_in_model": work.model.name == STAND_IN,
        },
        "largest_differences": agreement,
        "harness_peak_mb": round(own_peak_mb(), 1),
        "summary": summarize(chosen, runs, work),
        "runs": {
            name: {which: [describe(cost) for cost in costs] for which, costs in both.items()}
            for name, both in runs.items()
        },
    }
    result["notes"] = notes(result)
    return result


def finish(result: dict[str, Any], options: argparse.Namespace) -> None:
    """Write the JSON, the table beside it, and the table of the document."""
    text = table(result)
    if not options.again:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    options.output.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    if options.doc:
        fill(options.doc, options.marker, text)
    print(text)
    print("largest differences:", json.dumps(result["largest_differences"], indent=1))


if __name__ == "__main__":
    main()
