"""How long after a frame is there is its pixel in the map, and does following keep up?

A writer puts frames into a folder at a steady rate, each under another name first and then renamed;
``xrdpipe run --follow`` maps them. A reader looks at the live view every 20 ms and notes when each
pixel is done, and opens view and map anew all the time. Then all frames are there already: the
time of ``--follow`` beside that of the ordinary run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from folders import Series, of_length, scan_shape, simulated, xrdpipe
from processes import machine, say
from speed_report import fill

HERE = Path(__file__).parent

PIPELINE = """
[integrate]
frames = ["{frames}"]
poni = "{poni}"
spottiness = true
output = "{output}/patterns.h5"
[map]
patterns = ["{output}/patterns.h5"]
scan_shape = "{shape}"
snake = true
output = "{output}/map.h5"
"""


def main() -> None:
    options = arguments()
    if not options.again:
        with tempfile.TemporaryDirectory() as temporary:
            found = measured(options, options.work or Path(temporary))
        options.output.write_text(json.dumps(found, indent=1) + "\n")
    found = json.loads(options.output.read_text())
    if options.image:
        draw(found, options.image)
    text = table(found)
    print(text)
    if options.doc:
        fill(options.doc, "live", text)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--rate", type=float, default=10.0, help="frames per second (10)")
    parser.add_argument("--distinct", type=int, default=30, help="simulated frames (30)")
    parser.add_argument("--detector", default="Pilatus1M", help="pyFAI's name (Pilatus1M)")
    parser.add_argument("--format", default="cbf", choices=["cbf", "tiff"])
    parser.add_argument("--rounds", type=int, default=2, help="of the runs on a finished scan (2)")
    parser.add_argument("--work", type=Path, help="keep the frames here (default: temporary)")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results" / "live.json")
    parser.add_argument("--image", type=Path, help="write the histogram here")
    parser.add_argument("--doc", type=Path, help="put the table into this document")
    parser.add_argument("--again", action="store_true", help="only make table and picture anew")
    parser.add_argument("--reader", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reader:
        read(*options.reader)
        sys.exit()
    return options


def measured(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Both parts, after a run that leaves the matrix in the cache."""
    say(f"simulating {options.distinct} frames")
    source = simulated(work, options.detector, options.format, options.distinct, 100.0)
    stored = of_length(source, options.frames, work / "stored")
    computer = machine()
    warm = of_length(source, 4, work / "warm")
    run_pipeline(pipeline(warm.folder, source.poni, work / "warm-out", 4), [])
    live = followed(options, stored, work)
    there: dict[str, list[float]] = {"batch": [], "follow": []}
    for turn in range(options.rounds):
        for way, given in (
            ("batch", []),
            ("follow", ["--follow", "--expect", str(options.frames)]),
        ):
            shutil.rmtree(work / "out", ignore_errors=True)
            begun = time.monotonic()
            path = pipeline(stored.folder, source.poni, work / "out", options.frames)
            run_pipeline(path, given)
            there[way].append(round(time.monotonic() - begun, 2))
            say(f"round {turn + 1}: {way} {there[way][-1]:.1f} s")
    return {
        "benchmark": "live",
        "date": time.strftime("%Y-%m-%d"),
        "machine": computer,
        "settings": {
            name: getattr(options, name)
            for name in ("frames", "rate", "distinct", "detector", "format", "rounds")
        },
        "live": live,
        "seconds_when_all_are_there": there,
    }


def pipeline(frames: Path, poni: Path, output: Path, n_frames: int) -> Path:
    path = output.with_suffix(".toml")
    shape = "x".join(map(str, scan_shape(n_frames)))
    text = PIPELINE.format(frames=frames, poni=poni, output=output, shape=shape)
    path.write_text(text)
    return path


def run_pipeline(path: Path, options: list[str]) -> None:
    command = [*xrdpipe(), "run", str(path), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def followed(options: argparse.Namespace, stored: Series, work: Path) -> dict[str, Any]:
    """Write at the rate; latency of each frame, and what the reader met."""
    incoming, output = work / "incoming", work / "live"
    for folder in (incoming, output):
        shutil.rmtree(folder, ignore_errors=True)
    incoming.mkdir()
    path = pipeline(incoming, stored.poni, output, options.frames)
    log = (work / "live.log").open("w+")
    command = [*xrdpipe(), "run", str(path), "--follow", "--expect", str(options.frames)]
    run = subprocess.Popen(command, stdout=log, stderr=log)
    noted = work / "reader.json"
    noted.unlink(missing_ok=True)
    reader = subprocess.Popen([sys.executable, __file__, "--reader", str(output), str(noted)])
    while "waiting for the first frame" not in (work / "live.log").read_text():
        if run.poll() is not None:
            raise SystemExit((work / "live.log").read_text())
        time.sleep(0.1)
    say(f"writing {options.frames} frames at {options.rate:g} Hz")
    closed = []
    begun = time.monotonic()
    for number, file in enumerate(stored.files):
        content = file.read_bytes()
        late = begun + number / options.rate - time.monotonic()
        time.sleep(max(late, 0))
        temporary = incoming / f".{file.name}"
        temporary.write_bytes(content)
        temporary.rename(incoming / file.name)
        closed.append(time.time())
    wrote = time.monotonic() - begun
    if run.wait() not in (0, None):
        raise SystemExit((work / "live.log").read_text())
    ended = time.monotonic() - begun - wrote
    load = os.getloadavg()[0]
    reader.wait()
    log.close()
    seen = json.loads(noted.read_text())
    latency = [seen["done"][str(n + 1)] - when for n, when in enumerate(closed)]
    say(f"median {np.median(latency):.2f} s, largest {max(latency):.2f} s")
    return {
        "rate_written": round(options.frames / wrote, 2),
        "seconds_from_last_frame_to_final_files": round(ended, 2),
        "load_average_at_the_end": round(load, 1),
        "latency": [round(value, 3) for value in latency],
        **{name: seen[name] for name in ("opened", "failed", "backwards")},
    }


def read(output: Path, noted: Path) -> None:
    """Look at the view until it is finished; open view and map anew all the time."""
    import h5py

    view, final = output / "map_live.h5", output / "map.h5"
    done: dict[int, float] = {}
    opened = {"view": 0, "map": 0}
    failed: list[str] = []
    backwards = 0
    while not view.exists():
        time.sleep(0.02)
    kept = h5py.File(view, "r", swmr=True)
    group = kept["entry/phase_map"]
    before: dict[str, Any] = {}
    turn = 0
    while True:
        turn += 1
        for name in ("status", "frame", "finished"):
            group[name].refresh()
        finished = bool(group["finished"][()])
        status, frame = group["status"][()], group["frame"][()]
        now = time.time()
        for number in frame[status != 0].tolist():
            done.setdefault(number, now)
        for name, path, swmr in (("view", view, True), ("map", final, False)):
            if turn % 5 or not path.exists():
                continue
            try:
                with h5py.File(path, "r", swmr=swmr) as file:
                    shown = file["entry/phase_map/status"][()]
            except OSError as error:
                failed.append(f"{name}: {error}")
                continue
            opened[name] += 1
            backwards += int(((before.get(name, shown) != 0) & (shown == 0)).sum())
            before[name] = shown
        if finished:
            break
        time.sleep(0.02)
    noted.write_text(
        json.dumps({"done": done, "opened": opened, "failed": failed, "backwards": backwards})
    )


def table(found: dict[str, Any]) -> str:
    """What the document shows."""
    live, settings = found["live"], found["settings"]
    latency = np.array(live["latency"])
    there = {way: min(times) for way, times in found["seconds_when_all_are_there"].items()}
    rows = [
        ("frames, written at", f"{settings['frames']}, {live['rate_written']:g} per second"),
        ("from frame closed to pixel in the live view, median", f"{np.median(latency):.2f} s"),
        ("99 % of the frames within", f"{np.quantile(latency, 0.99):.2f} s"),
        ("largest; that of the first frame", f"{latency.max():.2f} s; {latency[0]:.2f} s"),
        ("view opened anew, map opened anew", "{view}, {map} times".format(**live["opened"])),
        ("of these failed; pixels that went back to pending",
         f"{len(live['failed'])}; {live['backwards']}"),
        ("from the last frame to the final files",
         f"{live['seconds_from_last_frame_to_final_files']:.1f} s"),
        ("all frames there already: `xrdpipe run`", f"{there['batch']:.1f} s"),
        ("the same with `--follow`", f"{there['follow']:.1f} s"),
    ]  # fmt: skip
    computer = found["machine"]
    lines = ["| | |", "|---|---|", *(f"| {left} | {right} |" for left, right in rows), ""]
    lines.append(
        f"{settings['detector']}, {settings['format']}, masked, with spottiness and the shipped "
        f"model; {computer['processor']}, {computer['cores']} cores, on which the load was "
        f"{live['load_average_at_the_end']:.1f}, {found['date']}."
    )
    return "\n".join(lines)


def draw(found: dict[str, Any], target: Path) -> None:
    """Histogram of the latencies, and latency along the scan."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    latency = np.array(found["live"]["latency"])
    rate = found["settings"]["rate"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    left.hist(latency, bins=np.arange(0, max(latency.max(), 1) + 0.05, 0.05), color="#1b6ca8")
    left.axvline(2, color="#c0392b", linestyle="--", linewidth=1)
    left.set_xlabel("from frame closed to pixel in the live view (s)")
    left.set_ylabel("frames")
    right.plot(np.arange(latency.size) / rate, latency, ".", markersize=3, color="#1b6ca8")
    right.axhline(2, color="#c0392b", linestyle="--", linewidth=1)
    right.set_xlabel("time of the scan (s)")
    right.set_ylabel("latency (s)")
    right.set_ylim(0, None)
    figure.suptitle(f"{latency.size} frames at {rate:g} Hz; the dashed line is the limit of 2 s",
                    fontsize=10)  # fmt: skip
    figure.savefig(target, dpi=90)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    main()
