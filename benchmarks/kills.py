"""Kill a map of 2,000 frames at random moments, again and again: is the end always the same?

``xrdpipe map FRAMES`` runs once to its end. Then it is started anew, killed by SIGKILL at a random
moment, and given the same command again, until it ends; then from the beginning, until the asked
number of kills has hit. Every map and patterns file that comes out must equal the first one: every
dataset and attribute, bit by bit, but the times that schema.VOLATILE lists.

Run: ``python benchmarks/kills.py --doc docs/faults.md``
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from folders import of_length, scan_shape, simulated, xrdpipe
from processes import machine, say
from speed_report import fill

from xrdpipe.store.parts import part_folder, whole_blocks

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))
from h5compare import differences  # noqa: E402 - the tests' own comparison

OUTPUTS = ("map.h5", "map_patterns.h5")


def command(series: Any, folder: Path) -> list[str]:
    """Frames to map, masked with rejection and spottiness, as JSON events."""
    rows, columns = scan_shape(series.frames)
    return [
        *xrdpipe(), "map", str(series.folder), "--poni", str(series.poni), "--no-png",
        "--scan-shape", f"{rows}x{columns}", "--log-json", "-o", str(folder / "map.h5"),
    ]  # fmt: skip


def uninterrupted(series: Any, folder: Path) -> dict[str, Any]:
    """Run to the end: seconds, and those that the main thread spent on checkpoints."""
    folder.mkdir()
    begun = time.monotonic()
    done = subprocess.run(command(series, folder), capture_output=True, text=True, check=True)
    seconds = time.monotonic() - begun
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    times = next(e["seconds"] for e in events if e["event"] == "times")
    return {"seconds": seconds, "times": times}


def killed(series: Any, folder: Path, delay: float) -> dict[str, Any] | None:
    """One start, killed after ``delay`` s; None if it had ended before."""
    with (folder / "log.txt").open("a") as log:
        process = subprocess.Popen(
            command(series, folder), stdout=log, stderr=log, start_new_session=True
        )
        try:
            code = process.wait(delay)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        else:
            if code:
                raise RuntimeError(f"exit {code}: {(folder / 'log.txt').read_text()[-2000:]}")
            return None
    patterns = folder / "map_patterns.h5"
    rows = sum(block.rows for block in whole_blocks(part_folder(patterns)))
    return {
        "after_s": round(delay, 3),
        "rows": series.frames if patterns.exists() else rows,
        "writing": sorted(path.name for path in folder.glob("**/*.writing")),
    }


def measured(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    distinct = simulated(work, options.detector, options.layout, 64, 10.0)
    series = of_length(distinct, options.frames, work / "series")
    uninterrupted(series, work / "warm")  # fills the matrix cache
    reference = uninterrupted(series, work / "whole")
    say(f"uninterrupted: {reference['seconds']:.1f} s")
    rng = np.random.default_rng(options.seed)
    trials: list[list[dict[str, Any]]] = []
    while sum(map(len, trials)) < options.kills:
        folder = work / f"trial{len(trials)}"
        folder.mkdir()
        kills = []
        while (kill := killed(series, folder, rng.uniform(0, reference["seconds"]))) is not None:
            kills.append(kill)
        trials.append(kills)
        for name in OUTPUTS:
            different = differences(work / "whole" / name, folder / name)
            if different:
                raise AssertionError(f"{folder / name} differs: {different[:5]}")
        left = [path.name for path in folder.iterdir() if path.name not in (*OUTPUTS, "log.txt")]
        if left:
            raise AssertionError(f"{folder} holds {left}")
        say(f"{sum(map(len, trials))} kills in {len(trials)} runs, all equal")
        for path in folder.iterdir():
            path.unlink()
    return {
        "benchmark": {"machine": machine(), "frames": options.frames, "seed": options.seed,
                      "detector": options.detector, "layout": options.layout},
        "uninterrupted": reference,
        "trials": trials,
    }  # fmt: skip


def table(result: dict[str, Any]) -> str:
    about, kills = result["benchmark"], [kill for trial in result["trials"] for kill in trial]
    n = about["frames"]
    where = {
        "before the first frame was safe": sum(k["rows"] == 0 for k in kills),
        "with 1 to all but one frame safe": sum(0 < k["rows"] < n for k in kills),
        "with all frames safe, the patterns file or the map not yet": sum(
            k["rows"] == n for k in kills
        ),
        "of these while an HDF5 file was being written": sum(bool(k["writing"]) for k in kills),
    }
    times, seconds = result["uninterrupted"]["times"], result["uninterrupted"]["seconds"]
    lines = [
        f"{len(kills)} kills in {len(result['trials'])} runs of `xrdpipe map FRAMES` on {n} frames "
        f"({about['detector']}, {about['layout']}, seed {about['seed']}); every final map and "
        "patterns file equal to the uninterrupted one, every time.",
        "",
        "| killed | times |",
        "|---|---|",
        *(f"| {text} | {count} |" for text, count in where.items()),
        "",
        f"The uninterrupted run took {seconds:.1f} s; the main thread spent "
        f"{times['checkpoint']:.3f} s of them writing checkpoints "
        f"({100 * times['checkpoint'] / seconds:.2f} %), while the others went on.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--detector", default="Eiger500k")
    parser.add_argument("--layout", default="eiger")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results" / "kills.json")
    parser.add_argument("--doc", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        result = measured(options, Path(scratch))
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    text = table(result)
    if options.doc:
        fill(options.doc, "KILLS", text)
    print(text)


if __name__ == "__main__":
    main()
