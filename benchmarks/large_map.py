"""Peak memory and time of xrdpipe on longer and longer maps of one-megapixel frames.

A folder of N frames is made of ``--distinct`` simulated frames, repeated: as hard links under new
numbers (TIFF, CBF) or as a master that links one data file several times (Eiger). Every frame is
read and decoded anew, so memory and CPU are those of N distinct frames; the disk holds few.

Run: ``python benchmarks/large_map.py -o benchmarks/results/large_map.json``
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from folders import (
    COUNTS,
    Series,
    dead_pixels,
    find_or_train_model,
    of_length,
    scan_shape,
    simulated,
    xrdpipe,
)
from processes import Cost, describe, machine, own_peak_mb, run, say
from speed_cases import HERE
from speed_report import fill

LENGTHS = "250,500,1000,2000"

WATCH = 0.1
"""Seconds between two looks at the resident set."""


def integrate(series: Series, options: list[str], out: Path) -> Cost:
    command = [*xrdpipe(), "integrate", str(series.folder), "--poni", str(series.poni), *options]
    return run([*command, "-o", str(out / "patterns.h5")], out / "integrate.txt", watch=WATCH)


def map_patterns(series: Series, model: Path, out: Path) -> Cost:
    rows, columns = scan_shape(series.frames)
    command = [*xrdpipe(), "map", str(out / "patterns.h5"), "--model", str(model)]
    command += ["--scan-shape", f"{rows}x{columns}", "--device", "cpu"]
    return run([*command, "-o", str(out / "map.h5")], out / "map.txt")


def check(series: Series, distinct: int, out: Path) -> None:
    """Every frame has a pattern, and a repeated frame has the pattern of the first of its kind."""
    with h5py.File(out / "patterns.h5") as file:
        status, values = file["entry/frames/status"][()], file["entry/data/I"]
        if values.shape[0] != series.frames or not np.all(status == 1):
            raise AssertionError(f"{series.frames} frames, but {np.sum(status == 1)} patterns")
        for row in range(distinct, series.frames, max(series.frames // 7, 1)):
            if not np.array_equal(values[row], values[row % distinct], equal_nan=True):
                raise AssertionError(f"pattern {row} is not that of frame {row % distinct}")
    with h5py.File(out / "map.h5") as file:
        pixels = file["entry/phase_map/presence/probability"].shape[1:]
        if pixels != scan_shape(series.frames):
            raise AssertionError(f"the map has {pixels} pixels")


def slope(lengths: list[int], peaks: list[float]) -> dict[str, float]:
    """Straight line through the peaks: MB per 1000 frames with its standard error."""
    x, y = np.array(lengths, float) / 1000, np.array(peaks)
    centred = x - x.mean()
    gradient = float((centred * y).sum() / (centred**2).sum())
    residual = y - y.mean() - gradient * centred
    freedom = max(x.size - 2, 1)
    error = float(np.sqrt((residual**2).sum() / freedom / (centred**2).sum()))
    return {
        "mb_per_1000_frames": round(gradient, 2),
        "standard_error": round(error, 2),
        "mb_at_0_frames": round(float(y.mean() - gradient * x.mean()), 1),
    }


def slopes(
    lengths: list[int], runs: dict[int, dict[str, list[Cost]]]
) -> dict[str, dict[str, dict[str, float]]]:
    """Per stage and kind of memory the line through all runs."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for stage in ("integrate", "map"):
        for kind in ("peak_mb", "usual_mb"):
            points = [
                (length, value)
                for length in lengths
                for cost in runs[length][stage]
                if (value := getattr(cost, kind)) is not None
            ]
            if len({length for length, _ in points}) > 2:
                found.setdefault(stage, {})[kind] = slope(*map(list, zip(*points, strict=True)))
    return found


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    settings, computer = result["settings"], result["machine"]
    lines = [
        f"{settings['detector']} ({settings['pixels'] / 1e6:.2f} Mpixel), {settings['format']}, "
        f"{settings['distinct']} distinct frames repeated; {computer['cores']} cores, "
        f"{computer['processor']}; xrdpipe {computer['versions']['xrdpipe']}.",
        "",
        "| frames | decoded, GB | `integrate --variant both`: peak MB | usual MB | wall s | CPU s "
        "| `map`: peak MB | wall s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for length in settings["lengths"]:
        both = result["median"][str(length)]
        first, second = both["integrate"], both["map"]
        cells = [
            f"{length}",
            f"{length * settings['pixels'] * settings['bytes_per_pixel'] / 1e9:.1f}",
            f"{first['peak_mb']:.0f}",
            f"{first.get('usual_mb', float('nan')):.0f}",
            f"{first['wall']:.0f}",
            f"{first['cpu']:.0f}",
            f"{second['peak_mb']:.0f}",
            f"{second['wall']:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    names = {"peak_mb": "peak", "usual_mb": "usual memory"}
    sentences = [
        f"- {names[kind]} of `{stage}`: {line['mb_per_1000_frames']:+.1f} ± "
        f"{line['standard_error']:.1f} MB per 1000 frames"
        for stage, kinds in result["slope"].items()
        for kind, line in kinds.items()
    ]
    return "\n".join([*lines, "", *sentences]).rstrip()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", default=LENGTHS, help=f"numbers of frames ({LENGTHS})")
    parser.add_argument("--distinct", type=int, default=100, help="simulated frames (100)")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--detector", default="Eiger1M", help="pyFAI's name (Eiger1M)")
    parser.add_argument("--format", default="eiger", choices=["eiger", "tiff", "cbf"])
    parser.add_argument(
        "--counts", default="low", help="low, high, or counts at the strongest line"
    )
    parser.add_argument("--threads", type=int, help="of xrdpipe integrate (default: all cores)")
    parser.add_argument("--model", help="name or folder (default: the shipped one)")
    parser.add_argument("--work", type=Path, help="keep the frames here (default: temporary)")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results" / "large_map.json")
    parser.add_argument("--doc", type=Path, help="put the table into this document")
    parser.add_argument("--marker", default="large map", help="between <!-- MARKER --> lines")
    parser.add_argument("--again", action="store_true", help="only make the table of --output anew")
    return parser.parse_args()


def measured(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run both stages on every length; each round goes through all lengths."""
    lengths = sorted({int(text) for text in options.lengths.split(",")})
    distinct = min(options.distinct, lengths[-1])
    say(f"simulating {distinct} frames")
    counts = COUNTS.get(options.counts) or float(options.counts)
    source = simulated(folder, options.detector, options.format, distinct, counts)
    model = find_or_train_model(options.model, folder)
    computer = machine()
    runs: dict[int, dict[str, list[Cost]]] = {n: {"integrate": [], "map": []} for n in lengths}
    for turn in range(options.rounds):
        for length in lengths:
            series = of_length(source, length, folder / "repeated")
            out = folder / "out"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            threads = ["--threads", str(options.threads)] if options.threads else []
            first = integrate(series, ["--variant", "both", *threads], out)
            second = map_patterns(series, model, out)
            check(series, distinct, out)
            for stage, cost in (("integrate", first), ("map", second)):
                runs[length][stage].append(cost)
                say(
                    f"round {turn + 1}: {length:6d} frames {stage:9s} {cost.peak_mb:6.0f} MB "
                    f"{cost.wall:7.1f} s wall {cost.cpu:7.1f} s CPU"
                )
    pixels = dead_pixels(source)
    return {
        "benchmark": "large_map",
        "date": time.strftime("%Y-%m-%d"),
        "machine": computer,
        "settings": {
            "detector": options.detector,
            "pixels": int(pixels.size),
            "bytes_per_pixel": 4,
            "format": options.format,
            "counts": options.counts,
            "lengths": lengths,
            "distinct": distinct,
            "rounds": options.rounds,
            "threads": options.threads or "all cores",
        },
        "harness_peak_mb": round(own_peak_mb(), 1),
        "median": {
            str(length): {
                stage: {
                    name: round(statistics.median(getattr(cost, name) for cost in costs), 2)
                    for name in ("wall", "cpu", "peak_mb", "usual_mb")
                    if all(getattr(cost, name) is not None for cost in costs)
                }
                for stage, costs in both.items()
            }
            for length, both in runs.items()
        },
        "slope": slopes(lengths, runs),
        "runs": {
            str(length): {
                stage: [describe(cost) for cost in costs] for stage, costs in both.items()
            }
            for length, both in runs.items()
        },
    }


def main() -> None:
    options = arguments()
    if options.again:
        result = json.loads(options.output.read_text())
    else:
        with tempfile.TemporaryDirectory() as scratch:
            folder = options.work or Path(scratch)
            folder.mkdir(parents=True, exist_ok=True)
            result = measured(options, folder)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    text = table(result)
    options.output.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    if options.doc:
        fill(options.doc, options.marker, text)
    print(text)


if __name__ == "__main__":
    main()
