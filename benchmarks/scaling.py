"""How the cost of integration grows with cores, frames and pixels.

Threads: the cost per frame of Eiger 4M frames on 1, 2, 4 … threads. Frames: whole runs over 10² to
10⁵ half-megapixel frames; few distinct ones are repeated through a master that links one data file
many times, and every one is read and decoded anew. Pixels: the cost per frame on one thread of
detectors of 0.5 to 16 megapixels, beside the script's and the floor. Runs of a section take turns.

Run: ``python benchmarks/scaling.py --doc docs/performance.md``
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from folders import of_length, simulated
from processes import ONE_THREAD, Cost, machine, run, say
from speed import prepare
from speed_cases import DATA, HERE, LOW, Case, Data, Work, cases, integrate
from speed_figure import draw
from speed_report import Rounds, fill, per_frame, spread

SECTIONS = ("threads", "frames", "pixels")

BINS = 2000

DETECTORS = {"Eiger500k": 0.53, "Eiger1M": 1.1, "Eiger4M": 4.5, "Eiger9M": 10.2, "Eiger16M": 18.1}
"""With their megapixels: small frames are timed on more of them."""

LENGTHS = "100,1000,10000,100000"

VARIANTS = {
    "unmasked": ("--variant", "unmasked"),
    "both": ("--variant", "both", "--spottiness"),
}


def taking_turns(
    chosen: list[Case], work: Work, folder: Path, rounds: int
) -> tuple[Rounds, dict[str, dict[str, list[Cost]]]]:
    """Milliseconds per frame of some cases, and their runs."""
    runs: dict[str, dict[str, list[Cost]]] = {c.name: {"small": [], "large": []} for c in chosen}
    for turn in range(rounds):
        for case in chosen:
            for which in ("small", "large"):
                out = folder / "out"
                shutil.rmtree(out, ignore_errors=True)
                out.mkdir(parents=True)
                series = work.small if which == "small" else case.long(work)
                cost = run(case.command(work, series, out), out / "log.txt", case.env)
                runs[case.name][which].append(cost)
            say(f"round {turn + 1}: {case.name:<16} {cost.wall:7.2f} s wall {cost.cpu:7.2f} s CPU")
    return per_frame(chosen, runs, work), runs


def over_threads(options: argparse.Namespace, folder: Path, model: dict[str, Path]) -> Any:
    """Wall and CPU milliseconds per frame by variant and number of threads."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    numbers = [2**k for k in range(8) if 2**k <= (cores or 1)]
    chosen = [
        Case(f"{name}-{n}", name, integrate(*given, "--threads", str(n)), "", ONE_THREAD)
        for name, given in VARIANTS.items()
        for n in numbers
    ]
    work = prepare("eiger4m-low", DATA["eiger4m-low"], options, folder, model)
    rounds, _ = taking_turns(chosen, work, folder, options.rounds)
    return {
        name: {
            str(n): {
                **{kind: spread(rounds[f"{name}-{n}"][kind]) for kind in ("cpu", "wall")},
                "speed_up": spread(
                    [
                        one / many
                        for one, many in zip(
                            rounds[f"{name}-1"]["wall"], rounds[f"{name}-{n}"]["wall"], strict=True
                        )
                    ]
                ),
            }
            for n in numbers
        }
        for name in VARIANTS
    }


def over_frames(options: argparse.Namespace, folder: Path, model: dict[str, Path]) -> Any:
    """Whole runs: wall, CPU and memory by number of frames."""
    lengths = [int(text) for text in options.lengths.split(",")]
    source = simulated(folder, "Eiger500k", "eiger", min(options.distinct, min(lengths)), LOW)
    found: dict[str, list[Cost]] = {str(length): [] for length in lengths}
    for turn in range(options.rounds):
        for length in lengths:
            series = of_length(source, length, folder / "frames" / "series")
            out = folder / "frames" / "out"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            data = Data("", "Eiger500k", "eiger", LOW, BINS)
            work = Work(data, series, series, series, (0, 0, 0), out, out, {}, (out, out))
            command = integrate(*VARIANTS["unmasked"])(work, series, out)
            cost = run(command, out / "log.txt", watch=0.1)
            found[str(length)].append(cost)
            shutil.rmtree(out)
            say(
                f"round {turn + 1}: {length:7d} frames {cost.wall:8.1f} s wall {cost.cpu:8.1f} s "
                f"CPU {cost.peak_mb:6.0f} MB"
            )
    names = ("wall", "cpu", "peak_mb", "usual_mb")
    return {
        length: {
            name: spread([getattr(cost, name) for cost in costs])
            for name in names
            if all(getattr(cost, name) is not None for cost in costs)
        }
        for length, costs in found.items()
    }


def over_pixels(options: argparse.Namespace, folder: Path, model: dict[str, Path]) -> Any:
    """CPU milliseconds per frame of the script, of xrdpipe and of the floor by detector."""
    wanted = ("floor", "script", "unmasked-1", "both-1")
    chosen = [case for case in cases() if case.name in wanted]
    found = {}
    for detector in options.detectors.split(","):
        say(detector)
        data = Data(detector, detector, "eiger", LOW, BINS)
        more = DETECTORS["Eiger4M"] / DETECTORS[detector]
        own = vars(options) | {
            "distinct": min(options.distinct, 16),
            "slow": max(round(options.slow * more), 4),
            "fast": max(round(options.fast * more), 16),
        }
        work = prepare(detector, data, argparse.Namespace(**own), folder, {})
        processes = [case for case in chosen if not case.inside]
        rounds, runs = taking_turns(processes, work, folder, options.rounds)
        (floor,) = (case for case in chosen if case.inside)
        inside = []
        out = folder / "out"
        for _ in range(options.rounds):
            run(floor.command(work, work.slow, out), out / "floor.txt", floor.env)
            inside.append(json.loads((out / "floor.json").read_text()))
        shape = dead_shape(work)
        found[detector] = {
            "pixels": shape[0] * shape[1],
            "floor": spread([one["floor"] for one in inside]),
            **{name: spread(values["cpu"]) for name, values in rounds.items()},
            "peak_mb": {
                name: spread([cost.peak_mb for cost in both["large"]])
                for name, both in runs.items()
            },
        }
        shutil.rmtree(folder / detector)
    return found


def dead_shape(work: Work) -> tuple[int, int]:
    """Rows and columns of the frames."""
    import fabio

    rows, columns = fabio.open(str(work.mask)).data.shape
    return int(rows), int(columns)


# --- results ---------------------------------------------------------------------------------


def table(result: dict[str, Any]) -> str:
    """Three small tables."""
    computer, settings = result["machine"], result["settings"]
    lines = [
        f"{computer['cores']} cores, {computer['processor']}; medians of {settings['rounds']}; "
        f"bitshuffle-LZ4 frames of about 1 count per pixel, {BINS} bins.",
    ]
    if "threads" in result:
        lines += [
            "",
            "| Eiger 4M, threads | unmasked: wall ms/frame | CPU | times as fast "
            "| both, spottiness: wall ms/frame | CPU | times as fast |",
            "|---|---|---|---|---|---|---|",
        ]
        for number in result["threads"]["unmasked"]:
            cells = [number]
            for name in VARIANTS:
                of = result["threads"][name][number]
                cells += [f"{of[kind]['median']:.3g}" for kind in ("wall", "cpu", "speed_up")]
            lines.append(f"| {' | '.join(cells)} |")
    if "frames" in result:
        lines += [
            "",
            "| Eiger 500k, frames | wall s | CPU s | CPU ms/frame | peak MB | usual MB |",
            "|---|---|---|---|---|---|",
        ]
        for length, of in result["frames"].items():
            usual = of.get("usual_mb")
            cells = [
                length,
                f"{of['wall']['median']:.3g}",
                f"{of['cpu']['median']:.3g}",
                f"{1e3 * of['cpu']['median'] / int(length):.3g}",
                f"{of['peak_mb']['median']:.0f}",
                f"{usual['median']:.0f}" if usual else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    if "pixels" in result:
        lines += [
            "",
            "| CPU ms/frame, 1 thread | Mpixel | floor | `integrate` unmasked "
            "| both, spottiness | script (csc) | peak MB, unmasked |",
            "|---|---|---|---|---|---|---|",
        ]
        for detector, of in result["pixels"].items():
            costs = [of[name]["median"] for name in ("floor", "unmasked-1", "both-1", "script")]
            cells = [detector, f"{of['pixels'] / 1e6:.2g}", *(f"{cost:.3g}" for cost in costs)]
            cells.append(f"{of['peak_mb']['unmasked-1']['median']:.0f}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sections", default=",".join(SECTIONS), help="of threads,frames,pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lengths", default=LENGTHS, help=f"numbers of frames ({LENGTHS})")
    parser.add_argument("--detectors", default=",".join(DETECTORS), help=", ".join(DETECTORS))
    parser.add_argument("--small", type=int, default=4, help="frames of the short runs (4)")
    parser.add_argument(
        "--slow", type=int, default=24, help="Eiger 4M frames more for the script (24)"
    )
    parser.add_argument(
        "--fast", type=int, default=512, help="Eiger 4M frames more for xrdpipe (512)"
    )
    parser.add_argument("--distinct", type=int, default=64, help="simulated frames (64)")
    parser.add_argument("--work", type=Path, help="keep the frames here (default: temporary)")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results" / "scaling.json")
    parser.add_argument("--doc", type=Path, help="put the tables into this document")
    parser.add_argument("--speed", type=Path, default=HERE / "results" / "speed.json")
    parser.add_argument("--image", type=Path, help="draw these results and those of --speed")
    parser.add_argument("--again", action="store_true", help="only tables and picture; no timing")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    result: dict[str, Any] = {"benchmark": "scaling"}
    if options.output.is_file():  # sections that are not run again stay
        result = json.loads(options.output.read_text(encoding="utf-8"))
    if not options.again:
        result |= {
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine(),
            "settings": {
                name: getattr(options, name)
                for name in ("rounds", "small", "slow", "fast", "distinct", "lengths")
            },
        }
        measures = {"threads": over_threads, "frames": over_frames, "pixels": over_pixels}
        with tempfile.TemporaryDirectory() as scratch:
            folder = (options.work or Path(scratch)).resolve()
            folder.mkdir(parents=True, exist_ok=True)
            # Start-up is that with a warm cache, which must not be the user's.
            os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
            for section in options.sections.split(","):
                result[section] = measures[section](options, folder, {})
                options.output.parent.mkdir(parents=True, exist_ok=True)
                options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    text = table(result)
    options.output.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    if options.doc:
        fill(options.doc, "scaling", text)
    if options.image:
        draw(json.loads(options.speed.read_text(encoding="utf-8")), result, options.image)
    print(text)


if __name__ == "__main__":
    main()
