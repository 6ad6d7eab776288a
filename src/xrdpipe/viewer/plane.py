"""Where the pixels of a map lie on the sample, and which of them a click, key or region means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.pictures import axis_label, equal_units, scan_extent
from xrdpipe.types import BoolArray, Scan

Pixel = tuple[int, int]
"""(row, column) of the map, from 0."""

MARGIN = 0.04
"""Of the width of scattered points, left free around them."""


@dataclass(frozen=True)
class Plane:
    """The pixels in the coordinates of the sample, y downward.

    Parameters
    ----------
    x, y
        Centres as drawn, shape (ny, nx), in the units of the axes; NaN where a scattered point
        has no position.
    width, height
        Of a pixel; of scattered points, a fraction of their usual distance.
    extent
        left, right, top, bottom: outer edges of what is drawn.
    x_label, y_label
        Motor and unit.
    equal
        True if a length is the same along both axes.
    scattered
        True for points that form no grid: shape (1, n).
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    width: float
    height: float
    extent: tuple[float, float, float, float]
    x_label: str
    y_label: str
    equal: bool
    scattered: bool

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx)."""
        ny, nx = self.x.shape
        return ny, nx

    def at(self, x: float, y: float) -> Pixel | None:
        """The pixel at a place; of scattered points the nearest. None outside the map."""
        if not (np.isfinite(x) and np.isfinite(y)):
            return None
        left, right, top, bottom = self.extent
        if not (left <= x <= right and top <= y <= bottom):
            return None
        if self.scattered:
            distance = ((self.x - x) / self.width) ** 2 + ((self.y - y) / self.height) ** 2
            if not np.isfinite(distance).any():
                return None
            return 0, int(np.nanargmin(distance))
        ny, nx = self.shape
        row, column = int((y - top) / self.height), int((x - left) / self.width)
        return min(row, ny - 1), min(column, nx - 1)

    def moved(self, pixel: Pixel, right: int, down: int) -> Pixel:
        """The pixel some steps away, within the map; of scattered points the next that way."""
        if self.scattered:
            for _ in range(abs(right) + abs(down)):
                pixel = self._next(pixel, int(np.sign(right)), int(np.sign(down)))
            return pixel
        ny, nx = self.shape
        row, column = pixel[0] + down, pixel[1] + right
        return int(np.clip(row, 0, ny - 1)), int(np.clip(column, 0, nx - 1))

    def _next(self, pixel: Pixel, right: int, down: int) -> Pixel:
        """The nearest point within 45 degrees of a direction, or the same if there is none."""
        dx = (self.x[0] - self.x[pixel]) / self.width
        dy = (self.y[0] - self.y[pixel]) / self.height
        along, across = dx * right + dy * down, dx * down - dy * right
        that_way = (along > 0) & (np.abs(across) <= along)
        if not that_way.any():
            return pixel
        distance = np.where(that_way, along**2 + across**2, np.inf)
        return 0, int(np.argmin(distance))

    def inside(self, geometry: Mapping[str, Any]) -> BoolArray:
        """Pixels whose centre lies in a box or polygon as Bokeh's selection tools give it.

        Parameters
        ----------
        geometry
            ``type`` ``rect`` with ``x0, x1, y0, y1``, or ``poly`` with the corners ``x`` and ``y``.
        """
        if geometry.get("type") == "rect":
            xs, ys = (sorted((geometry[f"{a}0"], geometry[f"{a}1"])) for a in "xy")
            return np.asarray(
                (self.x >= xs[0]) & (self.x <= xs[1]) & (self.y >= ys[0]) & (self.y <= ys[1])
            )
        if geometry.get("type") == "poly" and len(geometry["x"]) >= 3:
            return self._in_polygon(geometry["x"], geometry["y"])
        return np.zeros(self.shape, bool)

    def _in_polygon(self, xs: Sequence[float], ys: Sequence[float]) -> BoolArray:
        """Even-odd rule: a ray to the right of the centre crosses the outline an odd number."""
        found = np.zeros(self.shape, bool)
        corners = list(zip(xs, ys, strict=True))
        for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
            if y0 == y1:
                continue
            crosses = (self.y >= min(y0, y1)) & (self.y < max(y0, y1))
            where = x0 + (self.y - y0) * (x1 - x0) / (y1 - y0)
            found ^= crosses & (self.x < where)
        return found


def plane_of(scan: Scan) -> Plane:
    """Where the pixels of a scan are drawn."""
    labels = axis_label("x", scan.x), axis_label("y", scan.y)
    if scan.irregular and scan.x_actual is not None and scan.y_actual is not None:
        return _scattered(scan.x_actual, scan.y_actual, labels, equal_units(scan))
    left, right, bottom, top = scan_extent(scan)
    ny, nx = scan.shape
    width, height = (right - left) / nx, (bottom - top) / ny
    x = left + width * (np.arange(nx) + 0.5)
    y = top + height * (np.arange(ny) + 0.5)
    extent = (left, right, top, bottom)
    drawn = np.meshgrid(x, y)
    return Plane(drawn[0], drawn[1], width, height, extent, *labels, equal_units(scan), False)


def _scattered(
    x: NDArray[np.float64], y: NDArray[np.float64], labels: tuple[str, str], equal: bool
) -> Plane:
    def span(values: NDArray[np.float64]) -> tuple[float, float]:
        known = values[np.isfinite(values)]
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
        free = MARGIN * (high - low) or 0.5
        return low - free, high + free

    (left, right), (top, bottom) = span(x), span(y)
    # As far apart as on a square grid that fills the same area.
    number = np.sqrt(max(x.size, 1))
    width, height = 0.6 * (right - left) / number, 0.6 * (bottom - top) / number
    return Plane(x, y, width, height, (left, right, top, bottom), *labels, equal, True)
