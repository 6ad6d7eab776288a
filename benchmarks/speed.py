"""Time xrdpipe against pyFAI's tools, the loop a pyFAI expert writes, and the floor.

Every case is a process of its own, run on the same frames. The cases are interleaved (A B C … A B
C …) so that a machine that becomes slower, or is shared, changes all of them alike, and each is run
on few and on many frames: the difference divided by their number is the cost per frame, the rest is
start-up (imports, geometry, matrix, model). What a frame costs at least is measured in turn with
them (floor.py).

Run: ``python benchmarks/speed.py --all --doc docs/performance.md --image docs/images/speed.png``
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from folders import (
    STAND_IN,
    Series,
    dead_pixels,
    find_or_train_model,
    of_length,
    paper_model,
    simulated,
    xrdpipe,
)
from processes import ONE_THREAD, Cost, describe, machine, own_peak_mb, run, say
from speed_agreement import check
from speed_cases import DATA, HERE, HIGH, PATTERN_ROWS, Case, Data, Work, cases
from speed_report import fill, judge, notes, per_frame, spread, summarize, tables

# --- the data --------------------------------------------------------------------------------


def prepare(
    name: str, data: Data, options: argparse.Namespace, work: Path, models: dict[str, Path]
) -> Work:
    """Simulate, cut to length, and make everything that is not to be timed."""
    distinct = min(options.distinct, options.small + options.fast)
    everything = simulated(work, data.detector, data.layout, distinct, data.counts)
    lengths = {"small": options.small}
    lengths |= {which: options.small + getattr(options, which) for which in ("slow", "fast")}
    series = {
        which: of_length(everything, length, work / name / which)
        for which, length in lengths.items()
    }
    small = series["small"]
    mask = work / name / "mask.edf"
    _write_mask(mask, small)
    reference = work / name / "reference.h5"
    reference.unlink(missing_ok=True)
    bins = ["--bins", str(data.bins)] if data.bins else []
    command = [*xrdpipe(), "integrate", str(small.folder), "--poni", str(small.poni), "--restart"]
    command += [*data.options, *bins, "--variant", "unmasked", "-o", str(reference)]
    run(command, reference.with_suffix(".log"))
    coverage = work / name / "coverage.npy"
    with h5py.File(reference) as file:
        edges = file["entry/data/radial_axis_edges"][()]
        np.save(coverage, file["entry/data/coverage"][0])
    patterns = tuple(
        _tiled(reference, options.small, rows, work / name / f"patterns_{rows}.h5")
        for rows in PATTERN_ROWS
    )
    outer = float(edges[0]), float(edges[-1]), edges.size - 1
    return Work(data, **series, bins=outer, mask=mask, coverage=coverage, models=models,
                patterns=patterns)  # fmt: skip


def _write_mask(path: Path, series: Series) -> None:
    from fabio.edfimage import EdfImage

    EdfImage(data=dead_pixels(series).astype(np.uint8)).write(str(path))


def _median_counts(series: Series) -> float:
    """Of the first frame."""
    import fabio

    valid = ~dead_pixels(series)
    if series.layout != "eiger":
        return float(np.median(fabio.open(str(series.files[0])).data[valid]))
    with h5py.File(series.files[0]) as file:
        group = file["entry/data"]
        return float(np.median(group[next(iter(group))][0][valid]))


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
    if case.over_patterns:
        given: Any = work.patterns[("small", "large").index(which)]
    else:
        given = work.small if which == "small" and not case.inside else case.long(work)
    return run(case.command(work, given, folder), folder / "log.txt", case.env)


def timed(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Prepare, warm up, check, time, check again: one kind of frames."""
    say(f"{name}: simulating")
    models = {"shipped": find_or_train_model(options.model, folder), "paper": paper_model(folder)}
    work = prepare(name, DATA[name], options, folder, models)
    chosen = _chosen(options.cases or work.data.cases, work)
    outputs = {case.name: folder / name / "out" / case.name for case in chosen}
    computer = machine()
    say(f"{name}: warming up {len(chosen)} cases")  # byte code, page and matrix cache
    for case in chosen:
        if not case.inside:
            measure(case, work, "small", outputs[case.name])
    check(outputs, models)
    runs: dict[str, dict[str, list[Cost]]] = {c.name: {"small": [], "large": []} for c in chosen}
    inside: list[dict[str, float]] = []
    for turn in range(options.rounds):
        for case in chosen:
            for which in ("large",) if case.inside else ("small", "large"):
                cost = measure(case, work, which, outputs[case.name])
                runs[case.name][which].append(cost)
            if case.inside:
                found = json.loads((outputs[case.name] / "floor.json").read_text())
                inside.append({"floor": found["floor"], **found["parts"]})
            busy = "" if cost.others is None else f", others {cost.others:.1f} cores"
            say(
                f"{name} round {turn + 1}: {case.name:<20} {cost.wall:7.2f} s wall "
                f"{cost.cpu:7.2f} s CPU {cost.peak_mb:6.0f} MB{busy}"
            )
    rounds = per_frame(chosen, runs, work)
    parts = {part: [each[part] for each in inside] for part in (inside[0] if inside else ())}
    rounds_of_all = rounds | {part: {"cpu": values} for part, values in parts.items()}
    entry: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": computer,
        "settings": _settings(work, options),
        "largest_differences": check(outputs, models),
        "harness_peak_mb": round(own_peak_mb(), 1),
        "floor": {part: spread(values) for part, values in parts.items()},
        "summary": summarize(chosen, runs, rounds, work),
        "ratios": judge(rounds_of_all, work.data.counts >= HIGH),
        "runs": {
            case: {which: [describe(cost) for cost in costs] for which, costs in both.items()}
            for case, both in runs.items()
        },
    }
    entry["notes"] = notes(entry)
    return entry


def _chosen(wanted: str, work: Work) -> list[Case]:
    patterns = wanted.split(",")
    chosen = [
        case
        for case in cases()
        if any(fnmatch.fnmatch(case.name, pattern) for pattern in patterns)
        and work.data.layout in (case.layouts or (work.data.layout,))
    ]
    if not chosen:
        raise SystemExit(f"no case is named so; there are {', '.join(c.name for c in cases())}")
    return chosen


def _settings(work: Work, options: argparse.Namespace) -> dict[str, Any]:
    pixels = dead_pixels(work.small)
    files = [f for f in work.small.folder.iterdir() if "master" not in f.name]
    on_disk = sum(file.stat().st_size for file in files)
    return {
        "label": work.data.label,
        "detector": work.data.detector,
        "shape": list(pixels.shape),
        "dead_pixels": int(pixels.sum()),
        "layout": work.data.layout,
        "counts": work.data.counts,
        "median_counts": _median_counts(work.small),
        "bytes_per_frame": round(on_disk / work.small.frames),
        "bins": list(work.bins),
        "options": list(work.data.options),
        **{
            name: getattr(options, name) for name in ("small", "slow", "fast", "distinct", "rounds")
        },
        "pattern_rows": list(PATTERN_ROWS),
        "threads": "all cores, or one where the label says so; the scripts use one",
        "one_thread": ONE_THREAD,
        "stand_in_model": work.models["shipped"].name == STAND_IN,
    }


# --- the command -----------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="every kind of frames, and scaling.py")
    parser.add_argument(
        "--data", default="eiger4m-low", help=f"names or patterns: {', '.join(DATA)} (eiger4m-low)"
    )
    parser.add_argument(
        "--cases", help="names or patterns separated by commas: script,unmasked* (default: all)"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", type=int, default=8, help="frames of the short runs (8)")
    parser.add_argument("--slow", type=int, default=32, help="frames more for slow cases (32)")
    parser.add_argument("--fast", type=int, default=1024, help="frames more for fast cases (1024)")
    parser.add_argument("--distinct", type=int, default=64, help="simulated frames (64)")
    parser.add_argument("--model", help="name or folder (default: the shipped one)")
    parser.add_argument("--work", type=Path, help="keep the frames here (default: temporary)")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results" / "speed.json")
    parser.add_argument("--doc", type=Path, help="put the tables into this document")
    parser.add_argument("--image", type=Path, help="with --all: draw the results")
    parser.add_argument(
        "--again", action="store_true", help="only make the tables of --output anew; no timing"
    )
    return parser.parse_args()


def main() -> None:
    options = arguments()
    result: dict[str, Any] = {"benchmark": "speed", "data": {}}
    if options.output.is_file():  # what is not run again stays
        result = json.loads(options.output.read_text(encoding="utf-8"))
    if options.again:
        finish(result, options)
        return
    wanted = ["*"] if options.all else options.data.split(",")
    names = [name for name in DATA if any(fnmatch.fnmatch(name, pattern) for pattern in wanted)]
    if not names:
        raise SystemExit(f"no frames are named so; there are {', '.join(DATA)}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.work or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        # Start-up is that with a warm cache, which must not be the user's.
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        for name in names:
            result["data"][name] = timed(name, options, folder)
            finish(result, options)
            if not options.work:
                shutil.rmtree(folder / name)
        if options.all:
            _scale(options, folder)


def _scale(options: argparse.Namespace, folder: Path) -> None:
    """Run scaling.py on the frames that are already there."""
    command = [sys.executable, str(HERE / "scaling.py"), "--rounds", str(options.rounds)]
    command += ["--work", str(folder), "--speed", str(options.output)]
    command += ["-o", str(options.output.with_name("scaling.json"))]
    for name in ("doc", "image"):
        if getattr(options, name):
            command += [f"--{name}", str(getattr(options, name))]
    subprocess.run(command, check=True)


def finish(result: dict[str, Any], options: argparse.Namespace) -> None:
    """Write the JSON, the tables beside it, and those of the document."""
    made = tables(result)
    if not options.again:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=1, ensure_ascii=False)
        options.output.write_text(text + "\n", encoding="utf-8")
    together = "\n\n".join(f"## {marker}\n\n{text}" for marker, text in made.items())
    options.output.with_suffix(".md").write_text(together + "\n", encoding="utf-8")
    if options.doc:
        for marker, text in made.items():
            fill(options.doc, marker, text)
    print(together)


if __name__ == "__main__":
    main()
