"""Map files with made-up answers and patterns: any shape, any number of phases, in seconds."""

from __future__ import annotations

import json

import numpy as np

from xrdpipe.crystal import PhaseLines
from xrdpipe.maps import assemble
from xrdpipe.schema import FrameStatus
from xrdpipe.store.maps import MapHeader, write_map
from xrdpipe.store.parts import key_text
from xrdpipe.store.patterns import PatternsHeader, write_patterns
from xrdpipe.types import FrameRecord, Grid, Mask, Predictions, Scan, ScanAxis

GRID = Grid(5, 24, 0.01, 0.4959)
NAMES = ("bastnaesite-(La)", "calcite", "rhenium")
PONI = "Detector: Pilatus100k\nDistance: 0.05\nWavelength: 4.959e-11\n"
BLOCK = 1024


def made_lines(names):
    """Cubic crystals of different size."""
    squares = np.array([[h, k, n] for h in range(5) for k in range(h + 1) for n in range(k + 1)])
    squares = squares[squares.sum(axis=1) > 0]
    lines = []
    for number, name in enumerate(names):
        d = (4.1 + 0.37 * number) / np.sqrt((squares**2).sum(axis=1))
        d, first = np.unique(d, return_index=True)
        strength = np.random.default_rng(number).uniform(0.05, 1, d.size)
        lines.append(
            PhaseLines(name, d[::-1], (strength / strength.max())[::-1], squares[first][::-1])
        )
    return tuple(lines)


def made_predictions(shape, n_phases, rng, unknown=True):
    """Soft patches; a few pixels lost, one outside the grid, one with an undetermined phase."""
    ny, nx = shape
    y, x = np.mgrid[0:ny, 0:nx] / max(shape)
    probability = np.empty((ny * nx, n_phases))
    for k in range(n_phases):
        centre = rng.uniform(0, 1, 2) * [ny, nx] / max(shape)
        far = np.hypot(y - centre[0], x - centre[1]) + rng.normal(0, 0.05, shape)
        probability[:, k] = 1 / (1 + np.exp(np.clip(30 * (far - 0.3), -50, 50)).ravel())
    spread = 0.3 * probability * (1 - probability)
    score = rng.beta(1, 8, ny * nx) if unknown else np.full(ny * nx, np.nan)
    status = np.full(ny * nx, FrameStatus.OK, np.uint8)
    if ny * nx >= 6:
        status[1], status[2], status[4] = FrameStatus.CORRUPT, FrameStatus.MISSING, 32
        probability[status != FrameStatus.OK] = np.nan
        spread[status != FrameStatus.OK] = score[status != FrameStatus.OK] = np.nan
        probability[5, 0] = spread[5, 0] = np.nan
    return Predictions(probability, spread, score, status)


def made_scan(shape, units="um", irregular=False):
    ny, nx = shape
    index = np.arange(ny * nx, dtype=np.int32).reshape(shape)
    if irregular:
        rng = np.random.default_rng(11)
        actual = {f"{name}_actual": rng.uniform(0, 5, shape) for name in "xy"}
        axes = {name: ScanAxis(np.arange(float(n)), f"s{name}", units)
                for name, n in (("x", nx), ("y", ny))}  # fmt: skip
        return Scan(index, irregular=True, confidence="certain", **axes, **actual)
    if units is None:
        return Scan(index)
    return Scan(
        index,
        x=ScanAxis(10 + 0.5 * np.arange(nx), "sx", units),
        y=ScanAxis(-3 + 0.5 * np.arange(ny), "sy", units),
        confidence="certain",
        source="table",
    )


def made_map(folder, shape=(4, 5), names=NAMES, *, units="um", irregular=False, unknown=True,
             pending=None, lines=True, variants=("masked", "unmasked"), errors=True,
             patterns=True, seed=1):  # fmt: skip
    """Write ``map.h5`` and ``patterns.h5`` into a folder; returns the map's path."""
    rng = np.random.default_rng(seed)
    scan = made_scan(shape, units, irregular)
    predictions = made_predictions(shape, len(names), rng, unknown)
    phase_map = assemble(
        predictions, scan, tuple(names), unknown_threshold=0.6 if unknown else None
    )
    key = {"stage": "integrate", "made": [list(shape), len(names), seed]}
    if patterns:
        _write_patterns(folder / "patterns.h5", phase_map, made_lines(names), key, variants, errors)
    model = {
        "name": "made-up",
        "members": 3,
        "weights_sha256": "0" * 64,
        "input_variant": variants[0],
        "channels_absent": "",
        "wavelength_trained": GRID.wavelength,
        "polarization_corrected": True,
        "unknown_false_alarms": 0.05,
        "prior": np.full(len(names), 0.5),
        "config_json": json.dumps({"patterns": ["patterns.h5"], "prior": [0.3]}),
        "versions_json": json.dumps({"xrdpipe": "0.1.0", "trained_with": {"torch": "2.9"}}),
    }
    header = MapHeader(
        patterns=folder / "patterns.h5",
        title="made-up sample <1>",
        key={"stage": "map", "patterns": key_text(key)},
        parameters=model,
        lines=made_lines(names) if lines else (),
    )
    write_map(folder / "map.h5", header, phase_map, GRID, pending=pending)
    return folder / "map.h5"


def _write_patterns(path, phase_map, lines, key, variants, errors):
    status = phase_map.status.ravel()
    axis = GRID.two_theta
    shapes = np.zeros((len(lines), axis.size))
    for k, table in enumerate(lines):
        for position, strength in zip(
            table.two_theta(GRID.wavelength), table.intensity, strict=True
        ):
            if axis[0] < position < axis[-1]:
                shapes[k] += 40 * strength * np.exp(-(((axis - position) / 0.04) ** 2))
    background = 30 * np.exp(-axis / 12) + 4
    weight = np.nan_to_num(phase_map.probability.reshape(len(lines), -1).T)
    records = [FrameRecord(f"raw/frame_{n:06d}.tif", 0, n + 1, 0, 0) for n in range(status.size)]
    signals = ("I", "I_errors", "coverage") if errors else ("I", "coverage")
    header = PatternsHeader(
        variants=variants,
        radial_axis=axis,
        radial_edges=GRID.edges,
        unit="2theta",
        wavelength=GRID.wavelength,
        polarization_factor=0.99,
        solid_angle=True,
        signals=signals,
        norm={v: np.ones(axis.size, np.float32) for v in variants},
        records=tuple(records),
        numbered=True,
        detector_name="Pilatus100k",
        pixel_size=(172e-6, 172e-6),
        mask=Mask(np.zeros((2, 2), bool), (("cell.tif", 123, "ab" * 32),)),
        config={"frames": ["raw"], "poni": "a.poni", "mask": ["cell.tif"]},
        key=key,
        title="made-up",
        parameters={
            "poni": PONI,
            "poni_file": "a.poni",
            "poni_sha256": "cd" * 32,
            "polarization_factor": 0.99,
        },
        counts=(),
    )

    def blocks():
        rng = np.random.default_rng(7)
        for first in range(0, status.size, BLOCK):
            part = slice(first, first + BLOCK)
            ideal = weight[part] @ shapes + background
            rows = {"status": np.where(status[part] == 32, 1, status[part])}
            good = np.isin(status[part], (FrameStatus.OK, 32))
            rows["flags"] = np.zeros(good.size, np.uint16)
            rows["reason"] = np.array(
                [b"" if fine else f"{records[first + n].file}: cut short".encode()
                 for n, fine in enumerate(good)]
            )  # fmt: skip
            for number, variant in enumerate(variants):
                counts = rng.poisson(20 * (ideal + 3 * number)) / 20
                counts[:, 900:910] = np.nan
                counts[~good] = np.nan
                sigma = np.sqrt(np.maximum(counts, 0.05) / 20)
                rows[f"{variant}.I"] = counts.astype(np.float32)
                if errors:
                    rows[f"{variant}.I_errors"] = sigma.astype(np.float32)
                rows[f"{variant}.coverage"] = np.isfinite(counts).astype(np.float32)
            yield first, rows

    write_patterns(path, header, blocks())
