"""Simulate what you measured: a map's own patterns, without labels, narrow the ranges of a recipe.

Only what can be told without knowing the phases is used: how wide lines are, how far they stand
out, how many counts a pixel has, which part of each ring is seen, and how large a pixel is.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.channels import background, fill_gaps, noise
from xrdpipe.errors import InputError
from xrdpipe.frames.layouts.links import whole
from xrdpipe.resampling import inside_grid, plan_resampling
from xrdpipe.schema import FrameStatus
from xrdpipe.stages.ranges import SAME_WAVELENGTH, Changes, as_rows, with_ranges
from xrdpipe.stages.resample import check_coverage, resampled_blocks
from xrdpipe.store.nexus import text
from xrdpipe.store.patterns import PatternsFile
from xrdpipe.synthesis.recipe import Range, Recipe
from xrdpipe.types import BoolArray, FloatArray, Grid

Float = NDArray[np.float64]

MOST_PATTERNS = 1024
"""Patterns looked at, evenly spaced."""

FEWEST_LINES = 20
"""With fewer lines their widths are left to the recipe."""

CLEAR = 15.0
"""Height over noise from which on a line's width is measured."""

APART = 0.12
"""Degrees on either side in which a line must be the highest point."""

WIDEST = 1.0
"""Degrees; wider maxima are humps."""

WIDTH_MARGIN = (0.7, 1.15)
"""Instrument widths relative to the narrowest and the median line: size and strain broaden."""

RATIO_MARGIN = (1 / 1.5, 3.0)
"""The strongest ideal line relative to the highest one found, which few grains lower."""

PIXEL_MARGIN = 0.1
COVERAGE_MARGIN = 0.1
CUT_MARGIN = 0.02
"""Relative, relative, and as a part of the grid."""

ENDS = 0.01
"""Part of the grid at either end whose points do not count when cuts are looked for."""

SPLIT = 1.15
"""Pixels that are shared between bins lie on about this many bins times pixel over step."""


@dataclass(frozen=True)
class Seen:
    """What N patterns on a model's grid show.

    Parameters
    ----------
    widths
        Shape (M,), FWHM of clear lines, degrees.
    ratio
        Shape (N,), highest line over the median background.
    counts
        Shape (N,), counts per pixel of that background; None without errors or pixel size.
    coverage
        Shape (N,), at the best angle; None if the file does not tell.
    first, last
        Shape (N,), where data start and end, as a part of the grid.
    pixel
        Angular size of a pixel, degrees, or None.
    """

    widths: Float
    ratio: Float
    counts: Float | None
    coverage: Float | None
    first: Float
    last: Float
    pixel: float | None


@dataclass(frozen=True)
class Likeness:
    """A recipe like a map.

    Parameters
    ----------
    synthesis
        The narrowed recipe.
    changes
        ``{"profile.width": (before, after), …}``.
    key
        What the training's key records.
    text
        A table for the user.
    """

    synthesis: Recipe
    changes: Changes
    key: dict[str, str]
    text: str


def like(path: Path, grid: Grid, synthesis: Recipe) -> Likeness:
    """Narrow a recipe by the patterns of a file.

    Raises
    ------
    InputError
        No patterns file, another wavelength, or no pattern on the grid.
    """
    with PatternsFile(path) as source:
        if abs(source.wavelength / grid.wavelength - 1) > SAME_WAVELENGTH:
            raise InputError(
                f"{path} was measured at {source.wavelength:g} Å, --wavelength is "
                f"{grid.wavelength:g} Å; widths in degrees do not carry over: train at the "
                "wavelength of the patterns."
            )
        seen = look(source, grid)
    recipe, changes = narrowed(synthesis, seen)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Likeness(recipe, changes, {"patterns": digest}, _table(path, seen, changes))


def look(source: PatternsFile, grid: Grid) -> Seen:
    """Measure the patterns of a file, evenly spaced ones if there are many."""
    plan = plan_resampling(source.rows(0, 1), grid, "auto")
    check_coverage(source, grid, plan)
    every = -(-source.n_rows // MOST_PATTERNS)
    parts = []
    for first, block in resampled_blocks(source, grid, plan):
        chosen = (block.status == FrameStatus.OK) & inside_grid(block.intensity)
        chosen &= (first + np.arange(len(chosen))) % every == 0
        errors = block.intensity_errors
        parts.append(
            (
                block.intensity[chosen],
                block.coverage[chosen],
                np.full_like(block.intensity, np.nan)[chosen] if errors is None else errors[chosen],
            )
        )
    intensity, coverage, errors_of = (np.concatenate(part) for part in zip(*parts, strict=True))
    known = np.isfinite(intensity)
    filled = fill_gaps(intensity)
    level = background(filled)
    above = (filled - level).astype(np.float64)
    base = _middle(level, known)
    pixel = _pixel(source)
    counts = None
    if pixel is not None and "I_errors" in source.signals:
        per_bin = 2 * np.pi * grid.two_theta * grid.step / pixel**2 * coverage
        if "no" not in _splitting(source):
            per_bin *= SPLIT * max(pixel / grid.step, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            counts = _of_poisson(_middle((level / errors_of) ** 2 / per_bin, known))
    ends = int(ENDS * grid.size)
    inner = known[:, ends : grid.size - ends]
    return Seen(
        widths=line_widths(above, noise(filled), known, grid.step),
        ratio=np.array([np.quantile(a[k], 0.998) for a, k in zip(above, known, strict=True)])
        / np.maximum(base, 1e-9),
        counts=counts,
        coverage=_best(coverage, known) if "coverage" in source.signals else None,
        first=_cut(inner, ends) / grid.size,
        last=1 - _cut(inner[:, ::-1], ends) / grid.size,
        pixel=pixel,
    )


def line_widths(above: FloatArray, sigma: FloatArray, known: BoolArray, step: float) -> Float:
    """FWHM of lines that are clear, alone and away from gaps, degrees.

    Parameters
    ----------
    above, sigma, known
        Shape (N, n): intensity above the background, its noise, and where there is data.
    step
        Of the grid, degrees.
    """
    reach, size = round(APART / step), above.shape[1]
    span = round(WIDEST / step)
    widths = []
    for row, place in np.argwhere(above > CLEAR * np.maximum(sigma, 1e-12)):
        values = above[row]
        start, stop = max(place - span, 0), min(place + span + 1, size)
        near = values[max(place - reach, 0) : place + reach + 1]
        if values[place] < near.max() or not known[row, start:stop].all():
            continue
        half = values[place] / 2
        left = np.flatnonzero(values[start:place] < half)
        right = np.flatnonzero(values[place:stop] < half)
        if left.size and right.size:
            low, high = start + left[-1], place + right[0]
            into = (half - values[low]) / (values[low + 1] - values[low])
            beyond = (values[high - 1] - half) / (values[high - 1] - values[high])
            widths.append((high - 1 + beyond - low - into) * step)
    found = np.array(widths)
    return found[found < WIDEST] if found.size else found


def narrowed(recipe: Recipe, seen: Seen) -> tuple[Recipe, Changes]:
    """Ranges of a recipe cut to what was seen, with the margins stated above."""
    new: dict[str, dict[str, Any]] = {"detector": {}}
    if seen.widths.size >= FEWEST_LINES:
        narrow, median = np.quantile(seen.widths, [0.05, 0.5])
        wanted = WIDTH_MARGIN[0] * narrow, WIDTH_MARGIN[1] * median
        new["profile"] = {"width": _common(wanted, recipe.profile.width)}
    low, high = np.quantile(seen.ratio, [0.3, 0.98]) * RATIO_MARGIN
    ratio = _common((low, high), recipe.background.line_to_background)
    new["background"] = {"line_to_background": ratio}
    if seen.counts is not None:
        low, high = np.quantile(seen.counts, [0.02, 0.98]) * ratio
        new["noise"] = {"counts": _common((low, high), recipe.noise.counts)}
    detector = new["detector"]
    if seen.pixel is not None:
        detector["pixel"] = (seen.pixel * (1 - PIXEL_MARGIN), seen.pixel * (1 + PIXEL_MARGIN))
    if seen.coverage is not None:
        low, high = seen.coverage.min(), seen.coverage.max()
        wanted = low * (1 - COVERAGE_MARGIN), min(high * (1 + COVERAGE_MARGIN), 1.0)
        detector["coverage"] = _common(wanted, recipe.detector.coverage)
        detector["unknown_probability"] = 0.0
    for end, cut, at in (("low", seen.first, seen.first > 0), ("high", seen.last, seen.last < 1)):
        detector[f"{end}_cut_probability"] = float(at.mean())
        if at.any():
            low, high = cut[at].min() - CUT_MARGIN, cut[at].max() + CUT_MARGIN
            detector[f"{end}_cut"] = (max(low, 0.0), min(high, 1.0))
    return with_ranges(recipe, new)


def _middle(values: Any, known: BoolArray) -> Float:
    """Median of each row where there is data."""
    return np.nanmedian(np.where(known, values, np.nan), axis=1).astype(np.float64)


def _best(coverage: Any, known: BoolArray) -> Float:
    """Coverage at the best angles of each row."""
    values = np.nanquantile(np.where(known, coverage, np.nan), 0.98, axis=1)
    return np.asarray(values, np.float64)


def _cut(known: BoolArray, ends: int) -> Float:
    """Points without data at the start of each row, 0 if there is data from the start."""
    missing = np.argmax(known, axis=1).astype(np.float64)
    return np.where(missing > 0, missing + ends, 0.0)


def _of_poisson(apparent: Float) -> Float:
    """Mean μ of counts whose variance was taken as the mean of max(x, 1): μ²/(μ + e^−μ) → μ."""
    means = np.geomspace(1e-4, 1e7, 2000)
    return np.interp(apparent, means**2 / (means + np.exp(-means)), means)


def _pixel(source: PatternsFile) -> float | None:
    """Angular size of a pixel at the centre of the detector, degrees."""
    names = ("instrument/detector/y_pixel_size", "instrument/detector/x_pixel_size")
    sizes = [float(whole(source.entry[name])) for name in names if name in source.entry]
    stated = source.entry.get("reduction/input/distance")
    distance = 0.0 if stated is None else float(whole(stated))
    if len(sizes) < 2 or not distance > 0:
        return None
    return math.degrees(math.atan(math.sqrt(sizes[0] * sizes[1]) / distance))


def _splitting(source: PatternsFile) -> str:
    """How pixels were shared between bins, as recorded."""
    name = "reduction/input/method"
    return text(source.entry[name]) if name in source.entry else "no"


def _common(wanted: tuple[float, float], allowed: Range) -> Range:
    """The part of two ranges that is common; the allowed one if there is none."""
    low, high = max(float(wanted[0]), allowed[0]), min(float(wanted[1]), allowed[1])
    return (low, high) if low < high else allowed


def _table(path: Path, seen: Seen, changes: Changes) -> str:
    head = f"{path}: {len(seen.ratio)} patterns, {seen.widths.size} clear lines"
    return "\n".join([head, *as_rows(changes, "like these patterns")])
