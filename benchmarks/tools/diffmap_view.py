"""What pyFAI's diffmap viewer shows of a map with patterns, once it has the group that it wants.

    QT_QPA_PLATFORM=offscreen python -m benchmarks.tools.diffmap_view MAP PONI -o PICTURE

The viewer reads an NXprocess with ``result`` (the patterns on the map) and ``configuration/data``
(pyFAI's worker as JSON). MAP must come from ``xrdpipe map --with-patterns``; a copy beside PICTURE
gets the group, MAP stays as it is. Needs a Qt binding (``pip install PySide6``).
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

import h5py
from pyFAI.gui.pilx.MainWindow import MainWindow
from pyFAI.io.ponifile import PoniFile
from silx.gui import qt

PROCESS = "/entry/diffmap"


def prepare(original: Path, path: Path, poni: Path) -> None:
    """Copy a map and add the group; its patterns are a link."""
    shutil.copy(original, path)
    with h5py.File(original) as file:  # whose link to its patterns is relative
        shape = file["/entry/patterns/instrument/detector/mask_applied"].shape
    with h5py.File(path, "a") as file:
        process = file.create_group(PROCESS)
        process.attrs["NX_class"] = "NXprocess"
        process["result"] = h5py.SoftLink("/entry/map_patterns")
        worker = {
            "application": "worker",
            "poni": PoniFile(str(poni)).as_dict(),
            "nbpt_rad": int(file["/entry/map_patterns/two_theta"].size),
            "unit": "2th_deg",
            "shape": shape,
        }
        process["configuration/data"] = json.dumps(worker, default=str)


def picture(path: Path, output: Path) -> None:
    """Save the viewer's window."""
    window = MainWindow()
    window.warning = print  # a dialog otherwise: the frames are not in the file
    window.initData(str(path), nxprocess_path=PROCESS)
    window.resize(1366, 768)
    window.show()
    for _ in range(100):
        qt.QApplication.processEvents()
        time.sleep(0.01)
    window.grab().save(str(output))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("map", type=Path)
    parser.add_argument("poni", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    copy = given.output.with_suffix(".h5")
    prepare(given.map, copy, given.poni)
    application = qt.QApplication([])
    picture(copy, given.output)
