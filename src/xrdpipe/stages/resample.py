"""``xrdpipe resample``: patterns → the same patterns on a grid."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.config import ResampleConfig
from xrdpipe.errors import InputError
from xrdpipe.nn.model_folder import find_model, read_card
from xrdpipe.resampling import (
    MIN_COVERED,
    Resampling,
    at_wavelength,
    inside_grid,
    plan_resampling,
    resample,
)
from xrdpipe.schema import FrameStatus
from xrdpipe.stages.versions import software_versions
from xrdpipe.store.nexus import already_done
from xrdpipe.store.patterns import PatternsFile, write_resampled
from xrdpipe.types import Grid, Outcome, Patterns, Progress

KEY_PATH = "entry/resampling/run_key"

BLOCK_ROWS = 256
"""Rows at a time; the block of inference, so that both stages read the same slices."""


def run(config: ResampleConfig, progress: Progress | None = None) -> Outcome:
    """Resample every pattern and write a patterns file on the grid.

    Raises
    ------
    InputError
        If no pattern covers half of the grid (decision 13).
    """
    progress = progress or Progress()
    output = config.output or Path("resampled.h5")
    if output.resolve() == config.patterns.resolve():
        raise InputError(f"{output} is the input; give another --output.")
    grid = grid_of(config)
    with PatternsFile(config.patterns, config.variant) as source:
        plan = plan_resampling(source.rows(0, 1), grid, config.method)
        key = run_key(config, source, grid)
        if already_done(output, key, KEY_PATH, config.restart):
            return Outcome.already_done(output)
        check_coverage(source, grid, plan)
        details: dict[str, Any] = {
            "method": plan.method,
            "grid": str(grid),
            "source": config.patterns.name,
            "source_wavelength": source.wavelength,
            "error_correlation_length": plan.correlation_length,
            "polarization_divided_out": plan.polarization is not None,
        }
        progress.start("resample", source.n_rows)
        blocks = _reported(resampled_blocks(source, grid, plan), progress)
        write_resampled(output, source, grid, details, key, source.signals, blocks)
        progress.done()
        return Outcome(
            output,
            0,
            f"{output}: {source.n_rows} {source.variant} patterns on {grid} ({plan.method}).",
        )


def grid_of(config: ResampleConfig) -> Grid:
    """The grid that the options name."""
    if config.model is not None:
        return read_card(find_model(config.model)).grid
    assert config.grid is not None
    assert config.wavelength is not None
    return Grid.parse(config.grid, config.wavelength)


def run_key(config: ResampleConfig, source: PatternsFile, grid: Grid) -> dict[str, Any]:
    """The key of decision 21."""
    return {
        "stage": "resample",
        "grid": [grid.start, grid.stop, grid.step, grid.wavelength],
        "method": config.method,
        "variant": source.variant,
        "patterns": source.run_key() or without_key(config.patterns),
        "versions": software_versions(),
    }


def without_key(path: Path) -> list[Any]:
    """Identifies a patterns file that xrdpipe did not write."""
    stat = path.stat()
    return [path.name, stat.st_size, stat.st_mtime_ns]


def resampled_blocks(
    source: PatternsFile, grid: Grid, plan: Resampling
) -> Iterator[tuple[int, Patterns]]:
    """(first row, patterns on the grid) in aligned blocks of 256 rows."""
    for first in range(0, source.n_rows, BLOCK_ROWS):
        yield first, resample(source.rows(first, first + BLOCK_ROWS), grid, plan)


def check_coverage(source: PatternsFile, grid: Grid, plan: Resampling) -> None:
    """Refuse patterns none of which covers half of the grid, before work starts."""
    for _, patterns in resampled_blocks(source, grid, plan):
        usable = patterns.status == FrameStatus.OK
        if np.any(inside_grid(patterns.intensity) & usable):
            return
    native = source.rows(0, 1).two_theta
    raise _uncovered(str(source.path), native, source.wavelength, grid)


def check_reach(two_theta: NDArray[np.float64], wavelength: float, grid: Grid) -> None:
    """Refuse a geometry that cannot cover half of the grid, whatever its frames hold.

    Parameters
    ----------
    two_theta
        Bin edges in degrees, at ``wavelength`` (Å).
    """
    reach = at_wavelength(two_theta[[0, -1]], wavelength, grid.wavelength)
    high = 180.0 if np.isnan(reach[1]) else reach[1]
    inside = (grid.two_theta >= reach[0]) & (grid.two_theta <= high)
    if inside.mean() < MIN_COVERED:
        raise _uncovered("the geometry", two_theta, wavelength, grid)


def _uncovered(
    what: str, two_theta: NDArray[np.float64], wavelength: float, grid: Grid
) -> InputError:
    return InputError(
        f"{what} ({two_theta[0]:.4g}-{two_theta[-1]:.4g}° at {wavelength:.4g} Å) does not "
        f"cover the grid {grid}: no pattern has {MIN_COVERED:.0%} of its points; use a model or "
        "grid made for this range."
    )


def _reported(
    blocks: Iterator[tuple[int, Patterns]], progress: Progress
) -> Iterator[tuple[int, Patterns]]:
    for first, patterns in blocks:
        yield first, patterns
        progress.advance(patterns.intensity.shape[0])
