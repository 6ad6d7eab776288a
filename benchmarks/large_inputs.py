"""Time and memory to open and to inspect 10,000 small files and a 100,000-frame Eiger master.

Frames are tiny, so that what is measured is the cost per file and per frame, not decoding.

Run: ``python benchmarks/large_inputs.py -o benchmarks/results/large_inputs.json``
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import fabio.tifimage
import h5py
import hdf5plugin
import numpy as np
from folders import xrdpipe
from processes import Cost, describe, machine, own_peak_mb, run, say

SHAPE = (48, 64)
OPEN = "import sys; from xrdpipe.frames import open_frames; print(open_frames(sys.argv[1]).kind)"
NOTHING = "import sys; from xrdpipe.frames import open_frames"


def tiff_folder(folder: Path, frames: int) -> Path:
    """One TIFF per frame, with one number missing in the middle."""
    target = folder / "tiff"
    target.mkdir()
    image = np.random.default_rng(1).poisson(30, SHAPE).astype(np.int32)
    fabio.tifimage.TifImage(data=image).write(str(target / "scan_00001.tif"))
    content = (target / "scan_00001.tif").read_bytes()
    for number in range(2, frames + 2):
        if number != frames // 2:
            (target / f"scan_{number:05d}.tif").write_bytes(content)
    return target


def eiger_master(folder: Path, frames: int, per_file: int = 1000) -> Path:
    """A DECTRIS master with external links to data files of ``per_file`` frames each."""
    target = folder / "eiger"
    target.mkdir()
    stack = np.random.default_rng(2).poisson(30, (per_file, *SHAPE)).astype(np.uint32)
    master = target / "scan_master.h5"
    with h5py.File(master, "w") as file:
        for number in range(1, -(-frames // per_file) + 1):
            name = f"scan_data_{number:06d}.h5"
            with h5py.File(target / name, "w") as data_file:
                data = data_file.create_dataset(
                    "entry/data/data", data=stack, chunks=(1, *SHAPE), **hdf5plugin.LZ4()
                )
                data.attrs["image_nr_low"] = (number - 1) * per_file + 1
                data.attrs["image_nr_high"] = number * per_file
            link = h5py.ExternalLink(name, "/entry/data/data")
            file[f"entry/data/data_{number:06d}"] = link
        detector = file.create_group("entry/instrument/detector")
        detector["description"] = "Dectris EIGER2 Si 1M"
        detector["bit_depth_image"] = 32
    return master


def main() -> None:
    """Make the inputs, open and inspect them in processes of their own, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    makers: dict[str, Callable[[Path], Path]] = {
        f"{given.files} TIFF files": lambda folder: tiff_folder(folder, given.files),
        f"Eiger master, {given.frames} frames": lambda folder: eiger_master(folder, given.frames),
    }
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        start = [run([sys.executable, "-c", NOTHING], work / "log") for _ in range(given.rounds)]
        results["import only"] = _summary("import only", start)
        for label, make in makers.items():
            path = make(work)
            for what, command in {
                "open": [sys.executable, "-c", OPEN, str(path)],
                "inspect": [*xrdpipe(), "inspect", str(path)],
            }.items():
                costs = [run(command, work / "log") for _ in range(given.rounds)]
                results[f"{what}: {label}"] = _summary(f"{what}: {label}", costs)
            say((work / "log").read_text())
    answer = {"machine": machine(), "harness_peak_mb": own_peak_mb(), "results": results}
    if given.output:
        given.output.write_text(json.dumps(answer, indent=2) + "\n")


def _summary(label: str, costs: list[Cost]) -> dict[str, object]:
    median = {
        key: round(statistics.median(getattr(cost, key) for cost in costs), 3)
        for key in ("wall", "cpu", "peak_mb")
    }
    say(
        f"{label}: {median['wall']:.2f} s wall, {median['cpu']:.2f} s CPU, "
        f"{median['peak_mb']:.0f} MB"
    )
    return {**median, "runs": [describe(cost) for cost in costs]}


if __name__ == "__main__":
    main()
