"""Where each frame lies on the map: from the order of frames, or from positions (decision 19)."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import InputError
from xrdpipe.scan_grid import SHARP, Path, Placement, place
from xrdpipe.types import BoolArray, IntArray, Scan, ScanAxis

CLOSE = 0.15
"""Rms deviation in steps, up to which positions on a grid are certain."""
ASIDE = 0.3
"""Steps of backlash from which on it is open to which column the lines that run back belong."""
FEW = 24
"""Fewer positions than this can look like a noisy grid by chance."""


def scan_positions(
    shape: tuple[int, int], fast_axis: str = "x", snake: bool = False
) -> NDArray[np.intp]:
    """Pixel of each point in the order of measurement, shape (ny·nx, 2) as (row, column)."""
    column, row = Path(shape, fast_axis, snake).cells(np.arange(shape[0] * shape[1]))
    return np.stack([row, column], axis=1)


def place_frames(
    numbers: IntArray,
    numbered: bool,
    shape: tuple[int, int] | None,
    fast_axis: str = "x",
    snake: bool = False,
    incomplete: bool = False,
    usable: BoolArray | None = None,
    first_number: int | None = None,
) -> Scan:
    """Place rows of a patterns file on the map by their order or number.

    Parameters
    ----------
    numbers
        Acquisition number of each row.
    numbered
        True if the numbers come from the files and not from counting rows.
    shape
        (ny, nx), or None for one line of all frames.
    incomplete
        Take the first frame for the first point where neither numbers nor their absence tell.
    usable
        False for rows that take no pixel (a second copy of a frame); None = all take one.
    first_number
        Number of the frame at the first point; None = what the numbers tell.

    Returns
    -------
    Scan
        ``likely`` if the frames may lie elsewhere as well; the evidence says where.

    Raises
    ------
    InputError
        If the frames do not fit the shape, or nothing tells which point is the first frame's.
    """
    rows = np.arange(numbers.size) if usable is None else np.flatnonzero(usable)
    numbers = numbers[rows]
    n = int(numbers.size)
    if shape is None:
        shape, numbered = (1, n), False
    pixels = shape[0] * shape[1]
    fit = f"{n} frames do not fit the scan shape {shape[0]}x{shape[1]} ({pixels} pixels)"
    if n > pixels:
        raise InputError(f"{fit}: give the right --scan-shape, or fewer frames.")
    low, high = (int(numbers.min()), int(numbers.max())) if n else (0, 0)
    counting = numbered and _distinct(numbers)
    points = np.arange(n)
    how, doubt = "frames in order", ""
    if first_number is not None:
        points = points_from(first_number, numbers, counting, pixels)
        how = f"frames by number from {first_number}, {pixels - n} missing"
    elif n == pixels:
        if counting and n > 1 and np.unique(np.diff(np.sort(numbers))).size > 1:
            doubt = (
                f"their numbers {low}-{high} have gaps: if frames are missing there, those after "
                "are shifted, and others are too many (leave them out, or give --first-number)"
            )
    elif counting and (base := _base(low, high, pixels, incomplete)) is not None:
        points = numbers.astype(np.intp) - base
        how = f"frames by number, {pixels - n} missing"
        if base != 0 and high - base + 1 < pixels:
            doubt = f"the first point has number {base}, or {base - 1}: --first-number decides"
    elif incomplete:
        how = f"frames in order, the last {pixels - n} pixels without one"
        if counting:
            doubt = f"their numbers {low}-{high} span more than the {pixels} pixels"
    else:
        raise InputError(f"{fit}, and {_no_place(numbers, numbered, pixels)}.")
    where = scan_positions(shape, fast_axis, snake)[points]
    frame_index = np.full(shape, -1, np.int32)
    frame_index[where[:, 0], where[:, 1]] = rows
    return Scan(
        frame_index,
        fast_axis,
        snake,
        confidence="likely" if doubt else "given",
        evidence="; ".join(phrase for phrase in (how, doubt) if phrase),
    )


def points_from(
    first_number: int, numbers: IntArray, counting: bool, n_points: int
) -> NDArray[np.intp]:
    """Point of each frame, counted from 0, where the frame at the first has this number.

    Raises
    ------
    InputError
        If the frames have no numbers of their own (not ``counting``), or one lies outside.
    """
    if not counting:
        raise InputError(
            f"--first-number {first_number} needs frames that carry numbers, each its own; these "
            "do not."
        )
    points = numbers.astype(np.intp) - first_number
    outside = numbers[(points < 0) | (points >= n_points)]
    if outside.size:
        raise InputError(
            f"with --first-number {first_number} the {n_points} points have the numbers "
            f"{first_number}-{first_number + n_points - 1}; frame {outside[0]} lies outside: leave "
            "it out, or give the right number or shape."
        )
    return points


def scan_from_positions(
    x: NDArray[np.float64],
    y: NDArray[np.float64] | None = None,
    *,
    names: tuple[str, str] = ("x", "y"),
    units: tuple[str, str] = ("", ""),
    numbers: IntArray | None = None,
    usable: BoolArray | None = None,
    shape: tuple[int, int] | None = None,
    source: str = "positions",
) -> Scan:
    """Find the grid under measured positions and place every frame on it.

    Columns follow ascending x, rows ascending y, whatever the direction of travel. Positions that
    form no grid give an irregular scan.

    Parameters
    ----------
    x, y
        Shape (frames,), in the order of acquisition; NaN where unknown. y None = a line along x.
    names, units
        Of x and y.
    numbers
        Acquisition number of each frame, where the files give one: tells gaps under noise.
    usable
        False for frames that take no pixel (a second copy of a frame).
    shape
        (ny, nx) that was asked for: an aborted scan is extended to it in the direction of travel.
        A scan of another shape keeps its own.

    Raises
    ------
    InputError
        If no frame has a position.
    """
    rows = np.arange(x.size) if usable is None else np.flatnonzero(usable)
    at_x = np.asarray(x, np.float64)[rows]
    at_y = np.zeros(rows.size) if y is None else np.asarray(y, np.float64)[rows]
    known = np.isfinite(at_x) & np.isfinite(at_y)
    if not known.any():
        raise InputError(f"no frame has a position in {names[0]} and {names[1]}.")
    order = np.arange(rows.size)
    counts = order if numbers is None else np.asarray(numbers)[rows].astype(np.intp)
    placement = place(at_x[known], at_y[known], counts[known], shape)
    if placement is None:
        return _scattered(x.size, rows, at_x, at_y, names, units, y is None, source)
    path, column, row = _extended(placement, shape)
    frames, column, row = _with_unknown(path, column, row, known, counts)
    first = np.sort(np.unique(path.points(column, row), return_index=True)[1])
    frames, column, row = frames[first], column[first], row[first]
    frame_index = np.full(path.shape, -1, np.int32)
    actual = np.full((2, *path.shape), np.nan)
    frame_index[row, column] = rows[frames]
    actual[:, row, column] = at_x[frames], at_y[frames]
    confidence, evidence = _judged(placement, names, known, frames, shape, path.shape)
    return Scan(
        frame_index,
        path.fast_axis,
        path.snake,
        source,
        x=_axis(at_x[frames], column, path.shape[1], names[0], units[0]),
        y=None if y is None else _axis(at_y[frames], row, path.shape[0], names[1], units[1]),
        x_actual=actual[0],
        y_actual=None if y is None else actual[1],
        confidence=confidence,
        evidence=evidence,
    )


def _scattered(
    n: int,
    rows: NDArray[np.intp],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    names: tuple[str, str],
    units: tuple[str, str],
    line: bool,
    source: str,
) -> Scan:
    """Every frame a point of its own, in one line."""
    lost = int(np.count_nonzero(~(np.isfinite(x) & np.isfinite(y))))
    evidence = f"the positions {names[0]}, {names[1]} of {rows.size} frames form no grid"
    if lost:
        evidence += f"; {_frames(lost)} without a position"
    return Scan(
        rows[None].astype(np.int32),
        source=source,
        x=ScanAxis(np.arange(rows.size, dtype=np.float64), names[0], units[0]),
        y=None if line else ScanAxis(np.zeros(1), names[1], units[1]),
        x_actual=x[None],
        y_actual=y[None],
        irregular=True,
        confidence="guess" if line else "likely",
        evidence=evidence,
    )


def _extended(
    placement: Placement, shape: tuple[int, int] | None
) -> tuple[Path, NDArray[np.intp], NDArray[np.intp]]:
    """The shape that was asked for, where the measured one is its beginning; columns and rows."""
    path, column, row = placement.path, placement.column, placement.row
    if shape is None or shape[0] < path.shape[0] or shape[1] < path.shape[1]:
        return path, column, row
    along, across = path.fast_forward, path.slow_forward
    right, down = (along, across) if path.fast_axis == "x" else (across, along)
    column = column + (0 if right else shape[1] - path.shape[1])
    row = row + (0 if down else shape[0] - path.shape[0])
    return dataclasses.replace(path, shape=shape), column, row


def _with_unknown(
    path: Path,
    column: NDArray[np.intp],
    row: NDArray[np.intp],
    known: BoolArray,
    numbers: NDArray[np.intp],
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Frames, columns and rows: those with a position, and those that can lie nowhere else.

    A run of frames without a position is placed where exactly as many points of the path are free
    between its neighbours (before the first, after the last), counted by the numbers of the
    frames where these agree with all positions, else by the frames themselves.
    """
    frames = np.flatnonzero(known)
    points = path.points(column, row)
    if known.all() or np.any(np.diff(points) <= 0):
        return frames, column, row
    total = path.shape[0] * path.shape[1]
    point = np.full(known.size, -1)
    start = points - numbers[frames]
    if (start == start[0]).all():
        point = numbers + start[0]
        point[(point < 0) | (point >= total)] = -1
    else:
        before = np.concatenate([[-1], frames])
        stops = np.concatenate([[-1], points])
        fits = np.diff(before, append=known.size) == np.diff(stops, append=total)
        gap = np.searchsorted(frames, np.arange(known.size))
        inside = fits[gap]
        point[inside] = (stops[gap] + np.arange(known.size) - before[gap])[inside]
        point[frames] = points
    chosen = np.flatnonzero(point >= 0)
    return chosen, *path.cells(point[chosen])


def _axis(
    values: NDArray[np.float64], index: NDArray[np.intp], n: int, name: str, units: str
) -> ScanAxis | None:
    """Nominal centres by regression; None where one level must not tell the step of several."""
    known = np.isfinite(values)
    values, index = values[known], index[known]
    inner = index - index.mean()
    spread = float(inner @ inner)
    if spread == 0:
        return ScanAxis(np.array([values.mean()]), name, units) if n == 1 else None
    step = float(inner @ (values - values.mean())) / spread
    return ScanAxis(values.mean() + step * (np.arange(n) - index.mean()), name, units)


def _judged(
    placement: Placement,
    names: tuple[str, str],
    known: BoolArray,
    placed: NDArray[np.intp],
    asked: tuple[int, int] | None,
    grid: tuple[int, int],
) -> tuple[str, str]:
    """Confidence and the phrase that says why."""
    path, rms, crowded = placement.path, placement.rms, placement.crowded
    n = placement.deviation.size
    phrases = [
        f"{n - crowded} of {known.size} positions within {placement.deviation.max():.2f} steps of "
        f"a {path.shape[0]}x{path.shape[1]} grid",
        "snake" if path.snake else "raster",
        f"fast axis {path.fast_axis} ({names[0] if path.fast_axis == 'x' else names[1]})",
    ]
    doubts = [rms > CLOSE, n < 4]
    if placement.in_order and rms > CLOSE:
        phrases.append(f"rms {rms:.2f} steps, so the order of the frames decides")
    if placement.in_order and any(
        np.unique(level).size < n
        for level, n in ((placement.row, path.shape[0]), (placement.column, path.shape[1]))
    ):
        phrases.append("a row or column is empty")
        doubts.append(True)
    if placement.gaps:
        phrases.append("the likeliest places of the gaps")
    if abs(placement.aside) > 0.05:
        phrases.append(f"lines forth and back lie {abs(placement.aside):.2f} steps apart")
        doubts.append(abs(placement.aside) > ASIDE)
    if asked is not None and grid != path.shape:
        phrases.append(f"of {grid[0]}x{grid[1]} asked for")
    elif asked is not None and grid != asked:
        phrases.append(f"though {asked[0]}x{asked[1]} was asked for")
        doubts.append(True)
    by_neighbours = int(np.count_nonzero(~known[placed]))
    left_out = int(np.count_nonzero(~known)) - by_neighbours
    if by_neighbours:
        phrases.append(f"{_frames(by_neighbours)} without a position placed by the neighbours")
    if left_out:
        phrases.append(f"{_frames(left_out)} without a position left out")
        doubts.append(True)
    if crowded:
        phrases.append(f"{_frames(crowded)} left out: on a pixel that an earlier frame has")
    if free := grid[0] * grid[1] - placed.size:
        phrases.append(f"{free} pixel{'s' * (free != 1)} without a frame")
    evidence = "; ".join(phrases)
    limit = SHARP if n < FEW / 3 else CLOSE
    if crowded or (n < FEW and rms > limit and grid != asked):
        return "guess", evidence
    return "likely" if any(doubts) else "certain", evidence


def _frames(n: int) -> str:
    return f"{n} frame{'s' * (n != 1)}"


def with_positions(scan: Scan, found: Scan) -> Scan:
    """A scan placed by options, with the coordinates of positions that place it equally."""
    return dataclasses.replace(
        scan, x=found.x, y=found.y, x_actual=found.x_actual, y_actual=found.y_actual
    )


def same_up_to_direction(one: Scan, other: Scan) -> bool:
    """True if two scans put the frames on the same pixels, or mirrored along x or y."""
    index = one.frame_index
    return one.shape == other.shape and any(
        np.array_equal(other.frame_index, turned)
        for turned in (index, index[::-1], index[:, ::-1], index[::-1, ::-1])
    )


def one_per_frame(
    values: NDArray[np.float64],
    n_frames: int,
    shape: tuple[int, int] | None = None,
    aborted: bool = True,
) -> NDArray[np.float64] | None:
    """Positions of the frames from what a scan saved: itself, or the centres of edges.

    Parameters
    ----------
    values
        One value per frame; or one more than frames, or one more per line (continuous scans save
        the edges); or more, of a scan that was aborted.
    shape
        (ny, nx) of the scan, where known.
    aborted
        True if values without a frame are those at the end, as in what the scan itself saved.

    Returns
    -------
    array of shape (frames,), or None if the number of values fits none of these.
    """
    n = values.size
    if n_frames < 1 or n < n_frames:
        return None
    if n == n_frames:
        return values
    if shape is not None:
        ny, nx = shape
        if n == ny * nx:
            return values[:n_frames] if aborted else None
        for lines, length in ((ny, nx), (nx, ny)):
            fewest = 1 if aborted else lines * length
            if lines > 1 and n == lines * (length + 1) and fewest <= n_frames <= lines * length:
                return _centres(values, length)[:n_frames]
    if n == n_frames + 1:
        moves = np.abs(np.diff(values))
        # Edges follow the beam; positions of a raster jump back, and then one is left over.
        jumps = moves.max() > 2.5 * np.median(moves) > 0
        return values[:n_frames] if jumps else _centres(values, n_frames)
    lines = n - n_frames
    if not aborted:
        return None
    if n_frames % lines == 0 and _breaks_at(values, n_frames // lines + 1):
        return None  # edges of every line, or lines of one more point, aborted: nothing tells
    return values[:n_frames]


def _centres(edges: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Centres between the edges of lines of ``length`` points."""
    lines = edges.reshape(-1, length + 1)
    return ((lines[:, 1:] + lines[:, :-1]) / 2).ravel()


def _breaks_at(values: NDArray[np.float64], length: int) -> bool:
    """True if the values go on differently exactly after every ``length`` of them."""
    moves = np.abs(np.diff(values))
    breaks = np.arange(1, moves.size + 1) % length == 0
    if not breaks.any() or breaks.all():
        return False
    usual = moves[~breaks]
    margin = 0.5 * max(float(np.median(usual)), float(np.median(moves[breaks])))
    odd = np.abs(moves - np.median(usual)) > margin
    return bool(np.array_equal(odd, breaks))


def _distinct(numbers: IntArray) -> bool:
    return np.unique(numbers).size == numbers.size


def _base(low: int, high: int, pixels: int, incomplete: bool) -> int | None:
    """Number of the first point; None if the numbers do not fit, or leave it open.

    0 if a frame is numbered 0, else 1; where this does not fit, the first number there is, if no
    other fits or it may be assumed that nothing is missing before it.
    """
    base = 0 if low == 0 else 1
    if base <= low and high - base < pixels:
        return base
    span = high - low + 1
    return low if span == pixels or (incomplete and span < pixels) else None


def _no_place(numbers: IntArray, numbered: bool, pixels: int) -> str:
    """Why neither order nor numbers place the frames, and what does."""
    low, high = int(numbers.min()), int(numbers.max())
    if not numbered or not _distinct(numbers):
        why = "some of them have the same number" if numbered else "they carry no numbers"
        return f"{why} to place them by: use --incomplete to fill pixels in order"
    if high - low >= pixels:
        return f"their numbers {low}-{high} lie outside it: give the right --scan-shape"
    return (
        f"their numbers {low}-{high} do not tell which of them is the first point's: give it with "
        f"--first-number ({low} if no frame is missing before them, {high - pixels + 1} if none "
        "is missing after them)"
    )
