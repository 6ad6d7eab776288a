"""What silx view shows of a file: its window with the default plot selected, as a picture.

    QT_QPA_PLATFORM=offscreen python -m benchmarks.tools.silx_view FILE... -o FOLDER

Needs silx and a Qt binding (``pip install silx PySide6``).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from silx.app.view.Viewer import Viewer
from silx.gui import qt
from silx.gui.hdf5 import Hdf5TreeModel, Hdf5TreeView
from silx.io.nxdata import get_default


def wait(seconds: float) -> None:
    """Let the window work."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        qt.QApplication.processEvents()
        time.sleep(0.01)


def picture(path: Path, output: Path, size: tuple[int, int]) -> None:
    """Open one file, select its default plot, and save the window."""
    viewer = Viewer()
    viewer.resize(*size)
    viewer.show()
    viewer.appendFile(str(path))
    wait(2)
    tree = viewer.findChild(Hdf5TreeView)
    model = tree.findHdf5TreeModel()
    root = model.data(model.index(0, 0), Hdf5TreeModel.H5PY_OBJECT_ROLE)
    default = get_default(root)
    print(f"{path.name}: default plot {default.group.name}, {default.signal.shape}")
    tree.setSelectedH5Node(default.group)
    wait(2)
    viewer.grab().save(str(output / f"{path.stem}.png"))
    viewer.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path())
    given = parser.parse_args()
    application = qt.QApplication([])
    given.output.mkdir(parents=True, exist_ok=True)
    for file in given.files:
        picture(file, given.output, (1366, 768))
