"""Maps with known content, written without a model: any number of phases, any kind of scan."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from xrdpipe.crystal import PhaseLines
from xrdpipe.maps import assemble
from xrdpipe.schema import FrameStatus
from xrdpipe.store.maps import MapHeader, write_map
from xrdpipe.types import Grid, Predictions, Scan, ScanAxis

GRID = Grid(5.0, 24.0, 0.05, 0.4959)


def lines_of(k: int) -> PhaseLines:
    """Three lines per phase at places of its own."""
    d = np.array([5.0, 3.0, 2.0]) - 0.03 * k
    hkl = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 1]])
    return PhaseLines(f"phase {k}", d, np.array([1.0, 0.5, 0.1]), hkl)


def pattern_of(row: int) -> np.ndarray:
    """The intensity of a row: its number, and a peak that moves with it."""
    return row + 50 * np.exp(-0.5 * ((GRID.two_theta - 6 - (row % 17)) / 0.1) ** 2)


def write_rows(path: Path, rows: int) -> Path:
    """A patterns file of ``rows`` patterns with errors."""
    intensity = np.array([pattern_of(row) for row in range(rows)], np.float32)
    temporary = path.with_name(path.name + ".new")  # who has the old one open keeps it
    with h5py.File(temporary, "w") as file:
        data = file.create_group("entry/data")
        data["I"], data["I_errors"] = intensity, np.sqrt(intensity + 1)
        data["I"].attrs["units"] = "arbitrary units"
        data["radial_axis"] = GRID.two_theta
        data["radial_axis"].attrs["units"] = "degrees"
        file["entry/instrument/monochromator/wavelength"] = GRID.wavelength
        file["entry/frames/status"] = np.full(rows, FrameStatus.OK, np.uint8)
        file["entry/frames/index"] = np.arange(rows) + 1
    return temporary.replace(path)


def grid_scan(ny: int, nx: int) -> Scan:
    """Rows in order, steps of 2 um along x and 5 um along y."""
    x = ScanAxis(100 + 2.0 * np.arange(nx), "sx", "um")
    y = ScanAxis(-10 + 5.0 * np.arange(ny), "sy", "um")
    return Scan(np.arange(ny * nx, dtype=np.int32).reshape(ny, nx), x=x, y=y)


def scattered_scan(points: int) -> Scan:
    """Points on a spiral."""
    turn = 2.4 * np.arange(points)
    radius = np.sqrt(np.arange(points))
    return Scan(
        np.arange(points, dtype=np.int32)[None],
        x=ScanAxis(np.arange(points, dtype=float), "px", "mm"),
        y=ScanAxis(np.zeros(1), "py", "mm"),
        x_actual=(radius * np.cos(turn))[None],
        y_actual=(radius * np.sin(turn))[None],
        irregular=True,
    )


def made_map(
    path: Path,
    scan: Scan | None = None,
    phases: int = 3,
    unknown: bool = True,
    lines: bool = True,
    patterns: bool = True,
    done: int | None = None,
) -> Path:
    """Write a map; phase k has the probability ((row + k) mod 10) / 10 in a row.

    Parameters
    ----------
    done
        So many rows have a result, the others are still to come: a partial map.
    """
    scan = grid_scan(4, 6) if scan is None else scan
    rows = int(scan.frame_index.max()) + 1
    row = np.arange(rows)
    probability = np.stack([((row + k) % 10) / 10 for k in range(phases)], axis=1)
    status = np.full(rows, FrameStatus.OK, np.uint8)
    if done is not None:
        status[done:] = FrameStatus.PENDING
    score = (row % 4) / 4 if unknown else np.full(rows, np.nan)
    predictions = Predictions(probability, probability / 20, score, status)
    names = tuple(f"phase {k}" for k in range(phases))
    phase_map = assemble(predictions, scan, names, unknown_threshold=0.7 if unknown else None)
    source = path.with_name(path.stem + "_patterns.h5")
    if patterns:
        write_rows(source, rows)
    header = MapHeader(
        patterns=source,
        title="made up",
        key={},
        parameters={"name": "made-up", "input_variant": "masked", "threshold": 0.5},
        lines=tuple(lines_of(k) for k in range(phases)) if lines else (),
    )
    pending = None if done is None else rows - done
    temporary = path.with_name(path.name + ".new")
    write_map(temporary, header, phase_map, GRID, pending=pending)
    temporary.replace(path)
    return path
