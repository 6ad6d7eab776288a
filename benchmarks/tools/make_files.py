"""Files of every kind from one simulated scan, to be opened by other programs.

python -m benchmarks.tools.make_files FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import xrdpipe


def make(folder: Path) -> None:
    """Write patterns of one and both variants, resampled ones, and maps with and without them."""
    folder.mkdir(parents=True, exist_ok=True)
    scan = folder / "scan"
    xrdpipe.simulate(output=scan, scan_shape="6x8", seed=7, distractor=False, layout="inclusions")
    given = {"frames": str(scan / "frames"), "poni": scan / "geometry.poni"}
    xrdpipe.integrate(**given, output=folder / "one_variant.h5")
    both = folder / "both_variants.h5"
    xrdpipe.integrate(**given, output=both, variant="both", spottiness=True)
    xrdpipe.resample(patterns=both, model="hydrothermal-dac", output=folder / "resampled.h5")
    mapped = {"patterns": [str(both)], "scan_shape": "6x8"}
    xrdpipe.map(**mapped, output=folder / "map.h5")
    xrdpipe.map(**mapped, output=folder / "map_with_patterns.h5", with_patterns=True)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
