"""Where phases lie in a synthetic map: presence per phase and pixel, with spatial structure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from xrdpipe.errors import OptionError, did_you_mean
from xrdpipe.types import BoolArray

LAYOUTS = ("independent", "crust", "inclusions", "random")


def smooth_field(
    shape: tuple[int, int], length: float, random: np.random.Generator
) -> NDArray[np.float64]:
    """Ranks of a random field with a correlation length, uniform on (0, 1), shape (ny, nx).

    Parameters
    ----------
    shape
        (ny, nx).
    length
        Correlation length in map pixels.
    random
        Draws the field.
    """
    noise = random.standard_normal(shape)
    field = gaussian_filter(noise, length, mode="wrap")
    # A long correlation on a small map leaves almost no variation: keep some white noise.
    field = field / max(float(field.std()), 1e-9) + 0.15 * noise
    ranks = np.argsort(np.argsort(field, axis=None), axis=None)
    uniform: NDArray[np.float64] = ((ranks + 0.5) / ranks.size).reshape(shape)
    return uniform


def presence_map(
    layout: str, phases: int, shape: tuple[int, int], random: np.random.Generator
) -> BoolArray:
    """Which phases are present where.

    Parameters
    ----------
    layout
        ``independent``: patches, each phase without regard to the others, in half of the map;
        every one of the 2^K combinations occurs if the map has that many pixels.
        ``crust``: layers that overlap, from a wavy edge inwards, then nothing.
        ``inclusions``: round grains of each phase, which may overlap.
        ``random``: no spatial structure, each phase in half of the map.
    phases
        K.
    shape
        (ny, nx).
    random
        Draws the map.

    Returns
    -------
    Shape (K, ny, nx).
    """
    if layout not in LAYOUTS:
        raise OptionError(f"layout '{layout}' is unknown.{did_you_mean(layout, LAYOUTS)}")
    if layout == "crust":
        return _crust(phases, shape, random)
    if layout == "inclusions":
        return np.stack([_inclusions(shape, random) for _ in range(phases)])
    if layout == "random":
        scattered: BoolArray = random.random((phases, *shape)) < 0.5
        return scattered
    length = max(min(shape) / 8, 1.0)
    present = np.stack([smooth_field(shape, length, random) > 0.5 for _ in range(phases)])
    return _with_every_combination(present, random)


def _with_every_combination(present: BoolArray, random: np.random.Generator) -> BoolArray:
    """Give each missing combination one pixel of the most common one."""
    phases = len(present)
    pixels = present[0].size
    # 2^K combinations cannot all occur in fewer pixels; beyond 16 phases they never do.
    if phases > 16 or pixels < 2**phases:
        return present
    weight = 1 << np.arange(phases)
    code = (weight[:, None] * present.reshape(phases, -1)).sum(axis=0)
    count = np.bincount(code, minlength=2**phases)
    for missing in np.flatnonzero(count == 0):
        donor = int(np.argmax(count))
        chosen = int(random.choice(np.flatnonzero(code == donor)))
        code[chosen] = missing
        count[donor] -= 1
        count[missing] += 1
    combined: BoolArray = (code[None, :] & weight[:, None]) > 0
    return combined.reshape(present.shape)


def _crust(phases: int, shape: tuple[int, int], random: np.random.Generator) -> BoolArray:
    """Overlapping layers that follow a wavy edge; the innermost part is empty."""
    ny, nx = shape
    rows, columns = np.mgrid[0:ny, 0:nx]
    direction = random.uniform(0, 2 * np.pi)
    depth = np.cos(direction) * columns / nx + np.sin(direction) * rows / ny
    depth = depth + 0.25 * smooth_field(shape, max(min(shape) / 5, 1.0), random)
    depth = (depth - depth.min()) / max(float(np.ptp(depth)), 1e-9) * (phases + 1)
    order = random.permutation(phases)
    return np.stack([(depth >= order[k]) & (depth < order[k] + 1.4) for k in range(phases)])


def _inclusions(shape: tuple[int, int], random: np.random.Generator) -> BoolArray:
    """Union of discs that covers about two fifths of the map."""
    ny, nx = shape
    rows, columns = np.mgrid[0:ny, 0:nx]
    mean_radius = max(min(shape) / 9, 0.8)
    # Boolean model: covered fraction 1 - exp(-n·area); the radius spread adds a quarter.
    expected = -np.log(1 - 0.4) * ny * nx / (np.pi * mean_radius**2 * 1.25)
    covered = np.zeros(shape, dtype=bool)
    for _ in range(max(int(random.poisson(expected)), 1)):
        row, column = random.uniform(0, ny), random.uniform(0, nx)
        radius = mean_radius * random.lognormal(0, 0.45)
        covered |= (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
    return covered
