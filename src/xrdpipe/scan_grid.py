"""The grid under measured positions: steps, columns and rows, and the path of the beam over it.

Three ways, from the most direct: every position has a grid point of its own (:func:`nearest`);
the positions follow the points one by one in the order of acquisition (:func:`counted`); they
follow them with gaps (:func:`aligned`). The second and third need the order, and bear noise that
makes the nearest point the wrong one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatVector = NDArray[np.float64]
IntVector = NDArray[np.intp]

SURE = 0.4
"""Steps between a position and its grid point, up to which no other point is in question."""
SHARP = 0.05
"""Rms deviation, in steps, up to which gaps in a grid are gaps, not a step taken too small."""
NOISE = 0.3
"""Largest rms deviation of positions that still form a grid, in steps (without one: 0.29)."""
FILLED = 0.5
"""Share of grid points that must have a position."""
MAX_LEVELS = 16000
HISTOGRAM_BINS = 1 << 16
PADDING = 4
FEW = 200
"""Up to this many positions every length of a line is tried."""
ALIGNMENT_WORK = 30_000_000
"""Largest positions x gaps of an alignment; more would take seconds."""


@dataclass(frozen=True)
class Path:
    """The way of the beam over a grid of (ny, nx) points.

    Parameters
    ----------
    fast_axis, snake
        As in :class:`xrdpipe.types.Scan`.
    fast_forward, slow_forward
        True if the axis starts at its low end.
    """

    shape: tuple[int, int]
    fast_axis: str = "x"
    snake: bool = False
    fast_forward: bool = True
    slow_forward: bool = True

    @property
    def lengths(self) -> tuple[int, int]:
        """Points along the fast axis, and along the slow one."""
        ny, nx = self.shape
        return (nx, ny) if self.fast_axis == "x" else (ny, nx)

    def cells(self, points: IntVector) -> tuple[IntVector, IntVector]:
        """Column and row of the points with these numbers (from 0)."""
        line, fast = np.divmod(points, self.lengths[0])
        fast, slow = self._along(fast, line), self._across(line)
        return (fast, slow) if self.fast_axis == "x" else (slow, fast)

    def points(self, column: IntVector, row: IntVector) -> IntVector:
        """Number of each grid point along the path: the inverse of :meth:`cells`."""
        fast, slow = (column, row) if self.fast_axis == "x" else (row, column)
        line = self._across(slow)
        return line * self.lengths[0] + self._along(fast, line)

    def _along(self, fast: IntVector, line: IntVector) -> IntVector:
        """Turn index into travel along the line, or back."""
        backward = np.full(line.shape, not self.fast_forward) ^ (self.snake & (line % 2 == 1))
        return np.where(backward, self.lengths[0] - 1 - fast, fast)

    def _across(self, slow: IntVector) -> IntVector:
        """Turn index into the number of the line, or back."""
        return slow if self.slow_forward else self.lengths[1] - 1 - slow


@dataclass(frozen=True)
class Placement:
    """Positions on a grid.

    Parameters
    ----------
    column, row
        Shape (positions,).
    path
        The grid and the way over it.
    deviation
        Distance of each position from its grid point along x or y, the larger, in steps.
    aside
        Steps between lines that run forth and back (backlash), as measured and corrected for.
    in_order
        True if the order of acquisition was needed to tell the grid points.
    gaps
        True if it was also needed to tell where positions are missing.
    """

    column: IntVector
    row: IntVector
    path: Path
    deviation: FloatVector
    aside: float = 0.0
    in_order: bool = False
    gaps: bool = False

    @property
    def rms(self) -> float:
        """Of the deviation, in steps."""
        return float(np.sqrt(np.mean(self.deviation**2)))

    @property
    def crowded(self) -> int:
        """Positions on a grid point that an earlier one has."""
        cells = self.row * self.path.shape[1] + self.column
        return int(cells.size - np.unique(cells).size)


@dataclass(frozen=True)
class _Axis:
    """One coordinate of the positions as levels of a comb: places in steps, levels 0 … n − 1."""

    places: FloatVector
    index: IntVector
    levels: int
    step: float
    aside: float = 0.0

    @property
    def deviation(self) -> FloatVector:
        return np.abs(self.places - self.index)


def place(
    x: FloatVector, y: FloatVector, numbers: IntVector, shape: tuple[int, int] | None = None
) -> Placement | None:
    """Find the grid of the positions and the grid point of each.

    Parameters
    ----------
    x, y
        Finite, shape (positions,), in the order of acquisition.
    numbers
        Acquisition number of each, ascending where the files give one, else counted.
    shape
        (ny, nx) that was asked for, as one more guess.

    Returns
    -------
    Placement, or None if the positions form no grid.
    """
    order = np.arange(x.size)
    if x.size == 1:
        return Placement(order, order, Path((1, 1)), np.zeros(1))
    grids = list(_grids(x, y))
    placements = [nearest(*grid) for grid in grids]
    clear = [p for p in placements if p and not p.crowded and p.deviation.max() <= SURE]
    for placement in clear:
        points = placement.path.points(placement.column, placement.row)
        if np.array_equal(points, order) or placement.rms <= SHARP:
            return placement
    counts = [order]
    if numbers[0] >= 0 and np.all(np.diff(numbers) > 0) and np.ptp(numbers) >= x.size:
        counts += [numbers - base for base in {int(numbers[0]), 0, 1} if base <= numbers[0]]
    along = counted(x, y, counts, shape)
    if along is not None:
        limit = min(NOISE, along.rms) / 2
        return next((p for p in placements if p and _some_twice(p) and p.rms < limit), along)
    if clear:
        return clear[0]
    for grid, rounded in zip(grids, placements, strict=True):
        along = None if rounded is None else aligned(*grid, rounded.path)
        if along is not None:
            return along
        if rounded is not None and rounded.rms <= NOISE / 2:  # points that were visited twice
            return rounded
    return None


def _some_twice(placement: Placement) -> bool:
    """True if few grid points were visited again: the ends of the lines, or a repeated one."""
    return 0 < placement.crowded <= placement.column.size / 4


def _grids(x: FloatVector, y: FloatVector) -> list[tuple[_Axis, _Axis]]:
    """Pairs of combs worth trying: both, or one where the other coordinate hardly moves."""
    columns, rows = _comb(x), _comb(y)
    still = _Axis(np.zeros(x.size), np.zeros(x.size, np.intp), 1, 0.0)
    pairs = []
    if columns is not None and rows is not None:
        pairs.append((columns, rows))
    if columns is not None and columns.levels > 1 and np.ptp(y) <= 0.5 * columns.step:
        pairs.append((columns, still))
    if rows is not None and rows.levels > 1 and np.ptp(x) <= 0.5 * rows.step:
        pairs.append((still, rows))
    return pairs


def _comb(values: FloatVector) -> _Axis | None:
    """Equidistant levels of one coordinate, in any order, or None.

    The step is the longest period of the histogram of values, refined over the whole range by
    regression, so that it does not drift however many levels there are. Values of lines that run
    forth and back are free to lie aside of each other.
    """
    span = float(np.ptp(values))
    if span <= 1e-9 * float(np.abs(values).max()):
        return _Axis(np.zeros(values.size), np.zeros(values.size, np.intp), 1, 0.0)
    group = _directions(values)
    step = _period(values, group, span)
    if step is None:
        return None
    centre = float(values.mean())
    offsets = np.zeros(2)
    for turn in range(2):
        if (group == turn).any():
            phase = np.angle(np.exp(2j * np.pi * (values[group == turn] - centre) / step).mean())
            offsets[turn] = phase / (2 * np.pi) * step
    offsets[1] -= step * np.rint((offsets[1] - offsets[0]) / step)
    for _ in range(6):
        index = np.rint((values - centre - offsets[group]) / step)
        offsets, step = _regress(values - centre, index, group, offsets, step)
    shifted = (values - centre - offsets[group]) / step
    index = np.rint(shifted)
    aside = (offsets[1] - offsets[0]) / step if group.any() else 0.0
    if abs(aside) > 0.3:
        # The phase leaves whole steps open: lines forth and back cover the same levels.
        ends = [np.array([index[group == t].min(), index[group == t].max()]) for t in (0, 1)]
        shift = min((0, 1, -1), key=lambda k: float(np.abs(ends[1] + k - ends[0]).sum()))
        index, shifted = index + shift * (group == 1), shifted + shift * (group == 1)
        aside -= shift
    index, shifted = index - index.min(), shifted - index.min()
    index = _without_stray_edges(shifted, index)
    index, shifted = index - index.min(), shifted - index.min()
    if float(np.std(shifted - index)) > NOISE * 0.9:
        return None
    return _Axis(shifted, index.astype(np.intp), int(index.max()) + 1, step, aside)


def _without_stray_edges(places: FloatVector, index: FloatVector) -> FloatVector:
    """Give the first and last level to their neighbours where they are but its noise."""
    noisy = float(np.std(places - index)) > 0.12
    usual = float(np.median(np.unique(index, return_counts=True)[1]))
    for inner, edge in ((1, index == index.min()), (-1, index == index.max())):
        inward = inner * float((places - index)[edge].mean())
        rare = noisy and np.count_nonzero(edge) <= 0.15 * usual
        if inward > 0.3 or (rare and inward > 0.1):
            index = index + inner * edge
    return index


def _directions(values: FloatVector) -> IntVector:
    """0 or 1 per value: on a line running up or down; all 0 unless both are common."""
    ahead = np.append(values[1:], values[-1])
    behind = np.insert(values[:-1], 0, values[0])
    down = ahead < behind
    persistent = float(np.mean(down[1:] == down[:-1])) > 0.6
    both = 0.25 < float(down.mean()) < 0.75
    return down.astype(np.intp) if persistent and both else np.zeros(values.size, np.intp)


def _period(values: FloatVector, group: IntVector, span: float) -> float | None:
    """The longest period that the values share, from the spectrum of their histogram."""
    place = np.rint((values - values.min()) / span * (HISTOGRAM_BINS - 1)).astype(np.intp)
    padded = PADDING * HISTOGRAM_BINS
    power = np.zeros(padded // 2 + 1)
    for turn in range(int(group.max()) + 1):
        histogram = np.bincount(place[group == turn], minlength=HISTOGRAM_BINS)
        power += np.abs(np.fft.rfft(histogram, padded))
    power /= values.size
    last = PADDING * (min(values.size, MAX_LEVELS) + 1)
    inside = power[2 : last + 2]
    peaks = np.flatnonzero((inside[1:-1] >= inside[:-2]) & (inside[1:-1] > inside[2:])) + 3
    if not peaks.size:
        return None
    strongest = power[peaks].max()
    if strongest < max(0.25, 3 / np.sqrt(values.size) if values.size > 36 else 0):
        return None
    first = int(peaks[power[peaks] >= 0.8 * strongest][0])
    return float(span / (HISTOGRAM_BINS - 1) * padded / first)


def _regress(
    values: FloatVector, index: FloatVector, group: IntVector, offsets: FloatVector, step: float
) -> tuple[FloatVector, float]:
    """Least squares of values = offset of the group + step · index."""
    means = [
        (values[group == t].mean(), index[group == t].mean()) if (group == t).any() else (0.0, 0.0)
        for t in (0, 1)
    ]
    of_value, of_index = np.array(means).T
    inner = index - of_index[group]
    spread = float(inner @ inner)
    if spread == 0:
        return offsets, step
    slope = float(inner @ (values - of_value[group])) / spread
    return of_value - slope * of_index, slope


def nearest(columns: _Axis, rows: _Axis) -> Placement | None:
    """Every position on the nearest grid point; None if the grid stays mostly empty."""
    shape = (rows.levels, columns.levels)
    path = _path(columns.index, rows.index, shape)
    aside = columns.aside if abs(columns.aside) > abs(rows.aside) else rows.aside
    deviation = np.maximum(columns.deviation, rows.deviation)
    placement = Placement(columns.index, rows.index, path, deviation, aside)
    taken = deviation.size - placement.crowded
    return placement if taken >= FILLED * shape[0] * shape[1] else None


def _path(column: IntVector, row: IntVector, shape: tuple[int, int]) -> Path:
    """The way over the grid points, from the moves between them."""
    across, down = np.diff(column), np.diff(row)
    by_x = bool(np.count_nonzero(across) >= np.count_nonzero(down))
    fast, line = (across, row) if by_x else (down, column)
    slow_forward = bool(line[-1] >= line[0])
    # Sign of the travel on every line, in the order of the lines.
    inside = np.diff(line) == 0
    travel = np.sign(np.bincount(line[1:][inside], np.sign(fast[inside])))
    travel = travel if slow_forward else np.pad(travel, (0, line.max() + 1 - travel.size))[::-1]
    moved = np.flatnonzero(travel)
    if not moved.size:
        return Path(shape, "x" if by_x else "y", slow_forward=slow_forward)
    turns = travel[moved]
    snake = bool(turns.size > 1 and np.mean(turns[1:] != turns[:-1]) > 0.5)
    forward = bool(turns[0] > 0) != (snake and moved[0] % 2 == 1)
    return Path(shape, "x" if by_x else "y", snake, forward, slow_forward)


def counted(
    x: FloatVector,
    y: FloatVector,
    counts: list[IntVector],
    shape: tuple[int, int] | None = None,
) -> Placement | None:
    """Positions that follow the grid points as the counts say, or None.

    Parameters
    ----------
    counts
        Number of each position along the path, shape (positions,), ascending; several guesses.
    """
    best: tuple[float, Placement] | None = None
    for points in counts:
        if points[-1] >= 4 * points.size:
            continue
        for fast_axis, fast, slow in (("x", x, y), ("y", y, x)):
            guess = None if shape is None else shape[1 if fast_axis == "x" else 0]
            for length in _line_lengths(fast, int(points[-1]) + 1, guess):
                for snake in (False, True)[: 1 if points[-1] < length else 2]:
                    best = _count_fit(fast, slow, points, length, fast_axis, snake, best) or best
    return None if best is None else best[1]


def _count_fit(
    fast: FloatVector,
    slow: FloatVector,
    points: IntVector,
    length: int,
    fast_axis: str,
    snake: bool,
    best: tuple[float, Placement] | None,
) -> tuple[float, Placement] | None:
    """Mean square deviation (steps) from lines of this length, and placement; None if no better."""
    line, along = np.divmod(points, length)
    back = (line % 2 if snake else np.zeros_like(line)).astype(np.intp)
    along = np.where(back == 1, length - 1 - along, along)
    offsets, step = _regress(fast, along.astype(np.float64), back, np.zeros(2), 0.0)
    if step == 0:
        return None
    off_fast = (fast - offsets[back] - step * along) / step
    limit = NOISE**2 if best is None else min(best[0], NOISE**2)
    if float(off_fast @ off_fast) > limit * points.size:
        return None
    if line[0] != line[-1]:
        start, slow_step = _regress(
            slow, line.astype(np.float64), np.zeros_like(back), np.zeros(2), 0.0
        )
        if slow_step == 0:
            return None
        off_slow = (slow - start[0] - slow_step * line) / slow_step
    else:
        # A line may wander by a small part of its length, however short its steps.
        slow_step, off_slow = 1.0, (slow - slow.mean()) / (abs(step) * max(1, length / 20))
    badness = float(np.mean(off_fast**2) + np.mean(off_slow**2))
    if best is not None and badness >= best[0]:
        return None
    if not (_like_noise(off_fast) and _like_noise(off_slow)):
        return None
    lines = int(line[-1]) + 1
    path = Path(
        (lines, length) if fast_axis == "x" else (length, lines),
        fast_axis,
        snake,
        fast_forward=step > 0,
        slow_forward=slow_step > 0,
    )
    aside = float((offsets[1] - offsets[0]) / step) if back.any() else 0.0
    deviation = np.maximum(np.abs(off_fast), np.abs(off_slow))
    return badness, Placement(*path.cells(points), path, deviation, aside, in_order=True)


def _like_noise(off: FloatVector) -> bool:
    """True if deviations (in steps) are small and no run of them is a step aside."""
    if float(np.sqrt(np.mean(off**2))) > NOISE:
        return False
    spread = 1.4826 * float(np.median(np.abs(off)))
    for width in (1, 3):
        if off.size >= width:
            mean = np.convolve(off, np.full(width, 1 / width), "valid")
            if np.abs(mean).max() > max(0.55, 5.5 * spread / np.sqrt(width)):
                return False
    return True


def _line_lengths(fast: FloatVector, n_points: int, guess: int | None) -> list[int]:
    """Lengths of a line worth trying: all for few points, else from how the axis comes back."""
    if n_points <= FEW:
        return list(range(2, n_points + 1))
    found = {n_points} if guess is None else {n_points, guess}
    middle, quarter = (fast.max() + fast.min()) / 2, np.ptp(fast) / 4
    far = np.flatnonzero(np.abs(fast - middle) > quarter)
    side = fast[far] > middle
    crossing = far[1:][side[1:] & ~side[:-1]]
    roots = [int(np.argmax(fast)) + 1, int(np.argmin(fast)) + 1]
    if crossing.size > 1:
        period = float(np.median(np.diff(crossing)))
        roots += [round(period), round(period / 2)]
    for root in roots:
        found |= set(range(root - 3, root + 4))
    return sorted(length for length in found if 2 <= length <= n_points)


def aligned(columns: _Axis, rows: _Axis, path: Path) -> Placement | None:
    """Positions that follow the path with gaps: the likeliest place of each, or None.

    Position i lies on point i + m(i), m not falling; the m with the least sum of squares is found
    exactly, by dynamic programming over m, along all positions at once.
    """
    n = columns.places.size
    most = path.shape[0] * path.shape[1] - n
    if not 0 <= most <= ALIGNMENT_WORK // n:
        return None
    on_x, on_y = path.cells(np.arange(n + most))
    order = np.arange(n)
    lowest = np.full(n, np.inf)  # cost up to i with at most m points skipped
    stays = np.zeros((most + 1, n), bool)
    passes = np.zeros((most + 1, n), bool)
    for m in range(most + 1):
        cost = (columns.places - on_x[m : m + n]) ** 2 + (rows.places - on_y[m : m + n]) ** 2
        total = np.cumsum(cost)
        # Reached from a smaller m before i, or from the start; then m stays.
        entered = np.append(0.0, lowest[:-1]) - np.append(0.0, total[:-1])
        reached = np.minimum.accumulate(entered)
        stays[m, 1:] = reached[1:] == reached[:-1]
        here = total + reached
        passes[m] = lowest <= here
        lowest = np.minimum(lowest, here)
    skipped = np.empty(n, np.intp)
    m = most
    for i in order[::-1]:
        while passes[m, i]:
            m -= 1
        skipped[i] = m
        if i and not stays[m, i]:
            m -= 1
    column, row = path.cells(order + skipped)
    off_x, off_y = columns.places - column, rows.places - row
    if not (_like_noise(off_x) and _like_noise(off_y)):
        return None
    deviation = np.maximum(np.abs(off_x), np.abs(off_y))
    aside = columns.aside if path.fast_axis == "x" else rows.aside
    return Placement(column, row, path, deviation, aside, in_order=True, gaps=most > 0)
