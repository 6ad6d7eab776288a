"""PyMca's stack reader gives our numbers.

    python -m benchmarks.tools.pymca_stack FOLDER      (files of benchmarks.tools.make_files)

Needs PyMca5 (``pip install PyMca5``).
"""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
from PyMca5.PyMcaIO.HDF5Stack1D import HDF5Stack1D

STACKS = {
    "map_with_patterns.h5": ("/map_patterns/two_theta", "/map_patterns/intensity"),
    "one_variant.h5": ("/data/radial_axis", "/data/I"),
    "both_variants.h5": ("/data/radial_axis", "/data/I"),
    "resampled.h5": ("/data/radial_axis", "/data/I"),
}

for name, (axis, signal) in STACKS.items():
    path = Path(sys.argv[1]) / name
    stack = HDF5Stack1D([str(path)], {"x": [axis], "y": [signal], "m": []}, scanlist=["/entry"])
    with h5py.File(path) as file:
        numbers, radial = file[f"entry{signal}"][()], file[f"entry{axis}"][()]
    assert np.array_equal(np.squeeze(stack.data), numbers, equal_nan=True), name
    assert np.array_equal(stack.x[0], radial), name
    print(f"{name}: {stack.data.shape}, same numbers and axis")
