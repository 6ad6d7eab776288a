"""Where phases lie in a synthetic map: presence per phase and pixel, with spatial structure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from xrdpipe.errors import OptionError, did_you_mean
from xrdpipe.types import BoolArray

LAYOUTS = ("independent", "crust", "gasket-rim", "inclusions", "random")


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
    layout: str,
    phases: int,
    shape: tuple[int, int],
    random: np.random.Generator,
    rim: int | None = None,
) -> BoolArray:
    """Which phases are present where.

    Parameters
    ----------
    layout
        ``independent``: patches, each phase without regard to the others, in half of the map;
        every one of the 2^K combinations occurs if the map has that many pixels.
        ``crust``: a crystal of one phase, overgrown by layers of the others, in an empty map.
        ``gasket-rim``: one phase around a round hole, in which the others lie independently.
        ``inclusions``: round grains of each phase, which may overlap.
        ``random``: no spatial structure, each phase in half of the map.
    phases
        K.
    shape
        (ny, nx).
    random
        Draws the map.
    rim
        The phase around the hole (default: the last).

    Returns
    -------
    Shape (K, ny, nx).

    Raises
    ------
    OptionError
        The layout is unknown.
    """
    if layout not in LAYOUTS:
        raise OptionError(f"layout '{layout}' is unknown.{did_you_mean(layout, LAYOUTS)}")
    if layout == "crust":
        return _crust(phases, shape, random)
    if layout == "gasket-rim":
        return _gasket_rim(phases, shape, random, phases - 1 if rim is None else rim)
    if layout == "inclusions":
        return np.stack([_inclusions(shape, random) for _ in range(phases)])
    if layout == "random":
        scattered: BoolArray = random.random((phases, *shape)) < 0.5
        return scattered
    return _with_every_combination(_patches(phases, shape, random), random)


def _patches(phases: int, shape: tuple[int, int], random: np.random.Generator) -> BoolArray:
    """Each phase in half of the map, in patches of an eighth of its shorter side."""
    length = max(min(shape) / 8, 1.0)
    return np.stack([smooth_field(shape, length, random) > 0.5 for _ in range(phases)])


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


def _from_centre(
    shape: tuple[int, int], random: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance (pixels) and azimuth (radian) of every pixel from a point near the middle."""
    ny, nx = shape
    rows, columns = np.mgrid[0:ny, 0:nx]
    down = rows - (ny - 1) / 2 - random.uniform(-0.08, 0.08) * ny
    right = columns - (nx - 1) / 2 - random.uniform(-0.08, 0.08) * nx
    return np.hypot(down, right), np.arctan2(down, right)


def _wavy(azimuth: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Radius of a rounded outline over its mean, 2 to 4 waves around."""
    outline = np.ones_like(azimuth)
    for waves in (2, 3, 4):
        outline += random.uniform(0.0, 0.09) * np.cos(waves * azimuth + random.uniform(0, 6.3))
    return outline


def _crust(phases: int, shape: tuple[int, int], random: np.random.Generator) -> BoolArray:
    """A crystal in the middle; each further phase is a layer on it, overlapping the one below.

    The beam crosses the first layer before the crystal, so the two overlap like the layers.
    """
    distance, azimuth = _from_centre(shape, random)
    side = min(shape)
    depth = distance - 0.27 * side * _wavy(azimuth, random)
    # The pixel nearest to the centre belongs to the crystal on the smallest map, too.
    layers = [depth <= max(0.0, float(depth.min()))]
    if phases > 1:
        pitch = 0.2 * side / (phases - 1)
        thickness = max(1.5 * pitch, 1.5)  # no layer falls between two pixels
        start = [k * pitch - 0.25 * thickness for k in range(phases - 1)]
        layers += [(depth > low) & (depth <= low + thickness) for low in start]
    order = random.permutation(phases)
    return np.stack([layers[k] for k in order])


def _gasket_rim(
    phases: int, shape: tuple[int, int], random: np.random.Generator, rim: int
) -> BoolArray:
    """A rim around a round hole; the beam on its edge sees both sides."""
    distance, azimuth = _from_centre(shape, random)
    ny, nx = shape
    # An ellipse that leaves a rim on all four sides of the map.
    half = 0.72 / np.hypot(2 * np.cos(azimuth) / nx, 2 * np.sin(azimuth) / ny)
    inside = half * _wavy(azimuth, random) - distance
    present = _patches(phases, shape, random) & (inside > -0.5)
    present[rim] = inside < 0.5
    return present


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
