"""A large map with its patterns, made up but plausible, to try what shows maps.

Three phases in blobs, 300 x 300 pixels of 1901 bins in both variants with errors and coverage, some
lost frames and some unknown pixels. The noise is drawn once for some blocks of rows and repeated:
drawing all of it would take longer than writing it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from xrdpipe.maps import PhaseMap, assemble
from xrdpipe.nn.model_folder import find_model, model_sha256, read_card, reference_lines
from xrdpipe.schema import FrameStatus
from xrdpipe.store.maps import MapHeader, write_map
from xrdpipe.store.patterns import PatternsHeader, write_patterns
from xrdpipe.types import FrameRecord, Mask, Predictions, Scan, ScanAxis

BLOCK, BLOCKS = 256, 16
SIGNALS = ("I", "I_errors", "coverage")
STEP = 2.0
"""Micrometres between two pixels."""


def made_map(folder: Path, ny: int = 300, nx: int = 300, seed: int = 1) -> Path:
    """Write ``map.h5`` and ``patterns.h5``; returns the map."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    model = find_model()
    card, lines = read_card(model), reference_lines(model)
    grid = card.grid
    strength = np.stack([_blobs(rng, ny, nx) for _ in lines], axis=-1).reshape(-1, len(lines))
    logit = 14 * (strength - 0.35) + rng.normal(0, 1.2, strength.shape)
    status = np.where(rng.random(ny * nx) < 2e-4, FrameStatus.CORRUPT, FrameStatus.OK)
    predictions = Predictions(
        1 / (1 + np.exp(-logit)),
        rng.gamma(2.0, 0.02, strength.shape),
        rng.beta(1.2, 12.0, ny * nx),
        status.astype(np.uint8),
    )
    scan = Scan(
        np.arange(ny * nx, dtype=np.int32).reshape(ny, nx),
        x=ScanAxis(STEP * np.arange(nx), "samx", "um"),
        y=ScanAxis(STEP * np.arange(ny), "samy", "um"),
    )
    phase_map: PhaseMap = assemble(
        predictions, scan, card.phase_names, unknown_threshold=card.unknown.threshold
    )
    shapes = [
        sum(
            height * np.exp(-0.5 * ((grid.two_theta - at) / 0.06) ** 2)
            for at, height in zip(table.two_theta(grid.wavelength), table.intensity, strict=True)
            if np.isfinite(at)
        )
        for table in lines
    ]
    header = _header(folder, grid, ny * nx)
    write_patterns(
        folder / "patterns.h5", header, _rows(rng, strength, status, np.array(shapes), grid)
    )
    about = MapHeader(
        patterns=folder / "patterns.h5",
        title="made up: patterns, masked",
        key={},
        parameters={
            "name": card.name,
            "input_variant": "masked",
            "threshold": 0.5,
            "weights_sha256": model_sha256(model),
        },
        lines=lines,
    )
    path = folder / "map.h5"
    write_map(path, about, phase_map, grid)
    return path


def _blobs(rng: np.random.Generator, ny: int, nx: int) -> np.ndarray:
    """Smooth random amounts, 0-1."""
    y, x = np.mgrid[:ny, :nx]
    total = np.zeros((ny, nx))
    for _ in range(12):
        cy, cx, size = rng.uniform(0, ny), rng.uniform(0, nx), rng.uniform(0.04, 0.16) * ny
        total += np.exp(-0.5 * (((y - cy) / size) ** 2 + ((x - cx) / size) ** 2))
    return np.minimum(total, 1)


def _header(folder: Path, grid, frames: int) -> PatternsHeader:
    return PatternsHeader(
        variants=("masked", "unmasked"),
        radial_axis=grid.two_theta,
        radial_edges=grid.edges,
        unit="2theta",
        wavelength=grid.wavelength,
        polarization_factor=0.99,
        solid_angle=True,
        signals=SIGNALS,
        norm={v: np.full(grid.size, 300, np.float32) for v in ("masked", "unmasked")},
        records=tuple(
            FrameRecord(f"scan_{number:06d}.cbf", 0, number, 1_000_000, 0)
            for number in range(frames)
        ),
        numbered=True,
        detector_name="made up",
        pixel_size=(172e-6, 172e-6),
        mask=Mask(np.zeros((0, 0), bool)),
        config={},
        key={"made": "up"},
        title="made up",
        counts=(),
    )


def _rows(rng, strength, status, shapes, grid) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    angle = grid.two_theta
    base = 6 + 10 * np.exp(-(angle - 5) / 6)
    pixels = 40.0  # per bin: means are multiples of 1/40
    noise = rng.normal(0, 1, (BLOCKS, BLOCK, grid.size)).astype(np.float32)
    spots = np.zeros((BLOCKS, BLOCK, grid.size), np.float32)
    for block in spots:
        rows = rng.integers(0, BLOCK, 400)
        block[rows, rng.integers(0, grid.size, 400)] = rng.gamma(1.5, 40.0, 400)
    for number, first in enumerate(range(0, len(strength), BLOCK)):
        amount = strength[first : first + BLOCK]
        n, which = len(amount), number % BLOCKS
        expected = (base + amount @ (8 * shapes)).astype(np.float32)
        sigma = np.sqrt(expected / pixels)
        masked = np.round((expected + sigma * noise[which, :n]) * pixels) / pixels
        here = status[first : first + n]
        rows = {"status": here.astype(np.uint8), "flags": np.zeros(n, np.uint16)}
        lost = here != FrameStatus.OK
        rows["reason"] = np.where(lost, b"frame is corrupt", b"").astype("S256")
        for variant, intensity in (("masked", masked), ("unmasked", masked + spots[which, :n])):
            intensity = intensity.astype(np.float32)
            intensity[lost] = np.nan
            rows[f"{variant}.I"] = intensity
            rows[f"{variant}.I_errors"] = np.sqrt(np.maximum(intensity, 1 / pixels) / pixels)
            rows[f"{variant}.coverage"] = np.full((n, grid.size), 0.9, np.float32)
        yield first, rows
