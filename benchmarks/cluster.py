"""Throughput and bytes of a run on Dask workers beside the threads of one process.

    python benchmarks/cluster.py -o benchmarks/results/cluster.json --doc docs/cluster.md

Every case integrates the same frames, few and many of them in turn, round after round. What a
frame costs follows from the difference of the two, what a start costs from what is left. In the
last case one of four workers is killed half-way.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from folders import Series, of_length, simulated, xrdpipe
from processes import ONE_THREAD, machine, say

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

MARKER = re.compile(r"(<!-- cluster -->\n).*?(<!-- /cluster -->)", re.S)

CASES = {
    "threads of one process": (),
    "one thread": ("--threads", "1"),
    "1 worker": ("--scheduler", "local:1", "--threads", "1"),
    "2 workers": ("--scheduler", "local:2"),
    "4 workers": ("--scheduler", "local:4"),
    "4 workers, one killed": ("--scheduler", "local:4"),
}
"""Arguments; one worker gets one thread, the others share the cores (at least one thread each)."""


BYTES_PER_FRAME = 20_000
"""Of finished blocks, less than there are: three signals of some 2,000 bins."""


@dataclass
class Run:
    """One process with its children: seconds, processor seconds, resident memory (MB), kills."""

    wall: float
    cpu: float
    memory: float
    killed: int


def descendants(pid: int) -> list[int]:
    """Processes below one, itself included."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text().split()]
            except OSError:
                continue
    return found


def resident_mb(pids: list[int]) -> float:
    """Memory of processes together; what they share counts several times."""
    total = 0
    for pid in pids:
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            continue
        total += pages * os.sysconf("SC_PAGE_SIZE")
    return total / 1e6


def run(words: list[str], output: Path, kill_at: int | None) -> Run:
    """Run a command; ``kill_at`` bytes of finished blocks, one worker process is killed."""
    blocks = output.with_name(output.name + ".part") / "rows.bin"
    log = output.with_suffix(".log").open("w")
    before = os.times()
    started = time.perf_counter()
    process = subprocess.Popen(words, env={**os.environ, **ONE_THREAD}, stderr=log, stdout=log)
    peak, killed = 0.0, 0
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak, killed
        while not ended.wait(0.05):
            pids = descendants(process.pid)
            peak = max(peak, resident_mb(pids))
            if kill_at and not killed and blocks.exists() and blocks.stat().st_size > kill_at:
                victim = next(pid for pid in pids if _is_worker(pid))
                os.kill(victim, signal.SIGKILL)
                killed = 1

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    wall = time.perf_counter() - started
    ended.set()
    watcher.join()
    log.close()
    if code:
        raise RuntimeError(f"exit {code}: {output.with_suffix('.log').read_text()[-2000:]}")
    after = os.times()
    cpu = sum(getattr(after, k) - getattr(before, k) for k in ("children_user", "children_system"))
    return Run(wall, cpu, peak, killed)


def command(series: Series, output: Path) -> list[str]:
    """The frames integrated with the defaults."""
    files = [str(file) for file in series.files]
    return [*xrdpipe(), "integrate", *files, "--poni", str(series.poni), "-o", str(output)]


def _is_worker(pid: int) -> bool:
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def measure(work: Path, few: int, many: int, rounds: int) -> dict[str, dict[str, object]]:
    """All cases on both lengths; checks that every file is the same."""
    from h5compare import differences

    frames = simulated(work, "Eiger500k", "eiger", 64, 10.0)
    series = {n: of_length(frames, n, work / f"frames-{n}") for n in (few, many)}
    runs: dict[str, dict[int, list[Run]]] = {name: {few: [], many: []} for name in CASES}
    reference: dict[int, Path] = {}
    same = dict.fromkeys(CASES, True)
    for length, one in series.items():  # these also fill the cache that every later run has
        reference[length] = work / f"reference-{length}.h5"
        reference[length].unlink(missing_ok=True)
        run(command(one, reference[length]), reference[length], None)
    for number in range(rounds):
        for name, arguments in CASES.items():
            for length, one in series.items():
                killing = "killed" in name
                if killing and length == few:
                    continue
                output = work / "output.h5"
                output.unlink(missing_ok=True)
                half = length * BYTES_PER_FRAME // 2 if killing else None
                found = run([*command(one, output), *arguments], output, half)
                runs[name][length].append(found)
                say(f"round {number}: {name}, {length} frames: {found}")
                same[name] &= not differences(output, reference[length])
                if killing and not found.killed:
                    raise RuntimeError("the run was over before a worker could be killed")
    return {
        name: {
            "same": same[name],
            "runs": {str(n): [asdict(one) for one in found] for n, found in by_length.items()},
        }
        for name, by_length in runs.items()
    }


def table(results: dict[str, dict[str, object]], few: int, many: int) -> str:
    """What a start, a frame and a run cost."""

    def best(name: str, length: int, what: str, of: Callable[[list[float]], float] = min) -> float:
        runs = results[name]["runs"]
        assert isinstance(runs, dict)
        return of([one[what] for one in runs[str(length)]])

    lines = [
        "| where | frames per second | CPU per frame, ms | start, s | whole run, s | memory, MB "
        "| same bytes |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        wall = best(name, many, "wall")
        memory = best(name, many, "memory", statistics.median)
        cells = ["-", "-", "-"]
        if "killed" not in name:
            per_frame = (wall - best(name, few, "wall")) / (many - few)
            cpu = (best(name, many, "cpu") - best(name, few, "cpu")) / (many - few)
            start = best(name, few, "wall") - few * per_frame
            cells = [f"{1 / per_frame:.0f}", f"{1e3 * cpu:.2f}", f"{start:.1f}"]
        same = "yes" if result["same"] else "NO"
        lines.append(
            f"| {name} | {' | '.join(cells)} | {wall:.1f} | {memory:.0f} | {same} |",
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--doc", type=Path, help="document whose table is replaced")
    parser.add_argument("--again", action="store_true", help="the table from the JSON")
    parser.add_argument("--few", type=int, default=512)
    parser.add_argument("--many", type=int, default=6144)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="keeps the simulated frames")
    options = parser.parse_args()
    if options.again:
        found = json.loads(options.output.read_text())
    else:
        work = options.work or Path(tempfile.mkdtemp())
        work.mkdir(parents=True, exist_ok=True)
        found = {"machine": machine(), "few": options.few, "many": options.many}
        found["cases"] = measure(work, options.few, options.many, options.rounds)
        if options.work is None:
            shutil.rmtree(work)
    text = table(found["cases"], found["few"], found["many"])
    print(text)
    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n")
    if options.doc:
        document = options.doc.read_text()
        options.doc.write_text(MARKER.sub(lambda m: m[1] + text + m[2], document))


if __name__ == "__main__":
    main()
