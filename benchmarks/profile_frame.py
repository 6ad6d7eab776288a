"""Say where the CPU time of one frame goes in ``xrdpipe integrate``, on one thread.

Run: ``python benchmarks/profile_frame.py FRAMES --poni P [--variant masked] [--spottiness]``
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import time
from collections.abc import Callable
from pathlib import Path

from processes import ONE_THREAD


def cpu_ms(work: Callable[[int], object], rows: range, repeats: int = 3) -> float:
    """CPU milliseconds per row, the best of some repeats: others only ever add."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        for row in rows:
            work(row)
        times.append(time.process_time() - started)
    return 1e3 * min(times) / len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("frames")
    parser.add_argument("--poni", type=Path, required=True)
    parser.add_argument("--variant", default="masked", choices=["masked", "unmasked", "both"])
    parser.add_argument("--spottiness", action="store_true")
    parser.add_argument("--most", type=int, default=24, help="frames to look at (24)")
    parser.add_argument("--lines", type=int, default=20, help="functions to list (20)")
    given = parser.parse_args()
    os.environ.update(ONE_THREAD)  # before numpy is imported
    from xrdpipe.config import IntegrateConfig
    from xrdpipe.stages.integrate import prepare
    from xrdpipe.types import Progress

    started = time.process_time()
    job = prepare(
        IntegrateConfig(
            frames=(given.frames,),
            poni=given.poni,
            variant=given.variant,
            spottiness=given.spottiness,
        ),
        Progress(),
    )
    print(f"set-up without imports: {time.process_time() - started:.2f} s CPU")
    rows = range(min(given.most, len(job.source.records)))

    def whole(row: int) -> object:
        return job.reducer.reduce(job.source.read(row).image)

    whole(0)
    print(f"read and decode: {cpu_ms(job.source.read, rows):.1f} ms CPU per frame")
    print(f"read, decode, reduce: {cpu_ms(whole, rows):.1f} ms CPU per frame")
    profile = cProfile.Profile(time.process_time)
    profile.enable()
    for row in rows:
        whole(row)
    profile.disable()
    print(f"own time of the functions, in all {len(rows)} frames:")
    pstats.Stats(profile).strip_dirs().sort_stats("tottime").print_stats(given.lines)


if __name__ == "__main__":
    main()
