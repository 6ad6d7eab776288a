"""From nothing to a phase map in Python: simulate, integrate, map, read the result.

    python examples/quickstart.py [FOLDER]

Takes about a minute; the folder (default: quickstart) then holds every file of the way.
"""

from __future__ import annotations

import sys
from pathlib import Path

import h5py

import xrdpipe

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "quickstart")

# A detector folder with known truth: 4 x 5 positions, some with several phases, some with none.
scan = xrdpipe.simulate(output=folder / "scan", scan_shape="4x5", seed=7, format="cbf").path

# Frames to patterns: masked and unmasked from one read.
patterns = xrdpipe.integrate(
    frames=scan / "frames",
    poni=scan / "geometry.poni",
    mask=scan / "mask.npy",
    variant="both",
    output=folder / "patterns.h5",
).path

# Patterns to a map, with a picture beside it.
phase_map = xrdpipe.map(patterns=patterns, scan_shape="4x5", output=folder / "map.h5").path

with h5py.File(phase_map) as file:
    group = file["entry/phase_map"]
    names = [name.decode() for name in group["phase_names"][()]]
    for k, name in enumerate(names):
        print(name)
        for row in group["presence/probability"][k]:
            print("   ", " ".join(f"{value:4.2f}" for value in row))

print(xrdpipe.evaluate(map=phase_map, truth=scan / "truth.h5").summary)
