"""How long the report of a large map takes, and how large it is.

The map and its patterns are made up: the cost of a report depends on the number of pixels, bins
and phases, not on what they mean.

    python benchmarks/report_size.py --folder FOLDER [--shape 300x300]
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from processes import machine  # noqa: E402

import xrdpipe  # noqa: E402
from made_maps import NAMES, made_map  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="for map, patterns, report")
    parser.add_argument("--shape", default="300x300", help="NYxNX")
    given = parser.parse_args()
    shape = tuple(int(n) for n in given.shape.split("x"))
    given.folder.mkdir(parents=True, exist_ok=True)
    path = given.folder / "map.h5"
    if not path.exists():
        made_map(given.folder, shape)
    results = {}
    for name, options in {"report": {}, "export csv": {"format": "csv"}}.items():
        started, busy = time.perf_counter(), time.process_time()
        output = getattr(xrdpipe, name.split()[0])(map=path, **options).path
        seconds = time.perf_counter() - started
        busy, size = time.process_time() - busy, output.stat().st_size
        results[name] = {
            "seconds": round(seconds, 1),
            "processor_seconds": round(busy, 1),
            "bytes": size,
        }
        print(f"{name}: {seconds:.1f} s, {busy:.1f} s of processor time, {size / 1e6:.1f} MB")
    found = {
        "shape": shape,
        "phases": len(NAMES),
        "variants": 2,
        "patterns_bytes": (given.folder / "patterns.h5").stat().st_size,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "machine": machine(),
        **results,
    }
    (HERE / "results" / "report.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
