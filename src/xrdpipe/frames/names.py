"""What file names say: acquisition numbers, places in a grid, positions, copies of one frame."""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xrdpipe.frames.headers import COMPRESSED
from xrdpipe.types import ScanHint

FULL = 0.5
"""Two numbers form a grid if more than this fraction of its pixels have a file."""

COUNTER_SPAN = 4
"""A counter runs over at most this many times the number of files; a time stamp runs over more."""

_COPY = re.compile(
    r"(?:[ _.-]+(?:copy|kopie|duplicate)(?:[ _-]*\(?\d+\)?)?|\s+\(\d+\))$|^copy of ",
    re.I,
)
"""Marks that file managers and users add to the name of a copy."""

_NUMBER = re.compile(r"(?:(?<!\d)[-+])?\d+(?:[.p]\d+)?")
"""A hyphen after a digit parts two numbers; elsewhere it may be a sign."""

_TIME = r"[0-2]\d[-:h]?[0-5]\d[-:m]?[0-5]\d"
_STAMP = re.compile(
    rf"(?<!\d)(?:19|20)\d\d([-_.]?)[01]\d\1[0-3]\d(?:[T _-]?{_TIME})?(?!\d)"
    r"|(?<!\d)[0-2]\d[-:h][0-5]\d[-:m][0-5]\d(?!\d)"
)
"""A date, a date with a time, or a time with a sign between its parts."""

_HEXADECIMAL = re.compile(
    r"(?<![A-Za-z0-9])(?=[0-9a-f]*(?:\d[a-f]+\d|[a-f]\d+[a-f]))[0-9a-f]{6,}(?:-[0-9a-f]{4,})*"
    r"(?![A-Za-z0-9])"
)
"""Identifiers as bluesky puts into names: 0a5f1c, not f00012."""

_POSITION = re.compile(
    r"(?:s|sam|samp|sample|pos|stage|piezo|pi|motor|m|p|t|d|n|f|c)?[_. -]?([xyz])|(hor)z?|(ver)t?",
    re.I,
)
"""Labels of sample motors."""

_UNITS = re.compile(r"(mm|um|µm|nm|deg)(?![A-Za-z])")

_OTHER_UNITS = re.compile(r"(?!(?:mm|um|µm|nm)(?![A-Za-z]))([A-Za-zµ%]+)(?![A-Za-z\d=])")
"""Letters behind a number that are no length, nor the label of the next number: 300K, 2GPa."""

_SERIES = frozenset({"scan", "sample", "run", "series", "set", "exp", "temp", "temperature"})
"""Words before a number that counts measurements, or states a condition."""


LARGEST_NUMBER = 2**62
"""A larger number in a name is an identity; it would not fit the files either."""


@dataclass(frozen=True)
class Names:
    """What the names of a series say.

    Parameters
    ----------
    order
        The files in this order are the series.
    numbers
        Acquisition number of each file, in that order.
    numbered
        True if the numbers come from the names, not from counting.
    columns
        Name → (values in that order, units).
    scan
        Grid or positions found in the names.
    evidence
        One phrase each.
    """

    order: list[int]
    numbers: list[int]
    numbered: bool
    columns: dict[str, tuple[NDArray[np.float64], str]] = field(default_factory=dict)
    scan: ScanHint | None = None
    evidence: tuple[str, ...] = ()


def frame_numbers(files: Sequence[Path]) -> tuple[list[int], bool]:
    """Acquisition numbers from the digit group that varies between the names (decision 14).

    Where no single group varies, or its numbers repeat or are too large to count anything, the
    order itself (0, 1, 2, …) and False.
    """
    groups = [re.findall(r"\d+", file.name) for file in files]
    by_order = list(range(len(files)))
    if len(files) == 1:
        own = re.findall(r"\d+", files[0].stem) or groups[0]  # .mar3450 or .bz2 numbers no frame
        counts = bool(own) and int(own[-1]) <= LARGEST_NUMBER
        return ([int(own[-1])], True) if counts else (by_order, False)
    if len({len(group) for group in groups}) != 1:
        return by_order, False
    columns = [[int(group[i]) for group in groups] for i in range(len(groups[0]))]
    varying = [column for column in columns if len(set(column)) > 1]
    if len(varying) != 1 or len(set(varying[0])) != len(files):
        return by_order, False
    if max(varying[0]) > LARGEST_NUMBER:
        return by_order, False
    return varying[0], True


# --- one series or several --------------------------------------------------------------------


def image_suffix(name: str) -> str:
    """Suffix that tells the kind of a file: ``.tif`` of ``a.TIFF.gz``, ``.#`` of ``a.0001``."""
    stem, suffix = os.path.splitext(name.lower())  # noqa: PTH122 - thousands of names
    if suffix in COMPRESSED:
        suffix = os.path.splitext(stem)[1]  # noqa: PTH122
    if suffix == ".tiff":
        return ".tif"
    return ".#" if suffix[1:].isdigit() else suffix


def original_name(name: str) -> str:
    """The name without marks of a copy and without the suffix of a compression."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    if suffix.lower() in COMPRESSED:
        stem, suffix = os.path.splitext(stem)  # noqa: PTH122
    suffix = ".tif" if suffix.lower() == ".tiff" else suffix.lower()
    return _COPY.sub("", stem) + suffix


def pattern(name: str) -> str:
    """The name with a sign in place of every number: equal for the files of one series."""
    return _NUMBER.sub("#", _HEXADECIMAL.sub("@", original_name(name)))


# --- numbers, grids, positions ----------------------------------------------------------------


@dataclass(frozen=True)
class _Column:
    """One number of the names that differs between files.

    Parameters
    ----------
    label
        The word before it.
    values
        Shape (files,).
    decimal
        True if it is a measure rather than a count.
    units
        Of a length or angle, behind it.
    place
        Which of the numbers of a name it is.
    attached
        True if nothing parts it from the word.
    condition
        The number of the first file with letters behind it that are no length: ``300K``.
    width
        Digits of a number padded with zeros, else 0.
    """

    label: str
    values: NDArray[np.float64]
    decimal: bool
    units: str
    place: int
    attached: bool = False
    condition: str = ""
    width: int = 0

    @property
    def known(self) -> bool:
        """True if the word before the number says along which axis it is a place."""
        return _side(self.label) != UNKNOWN

    @property
    def distinct(self) -> bool:
        return np.unique(self.values).size == self.values.size

    @property
    def positional(self) -> bool:
        return self.decimal and _POSITION.fullmatch(self.label) is not None

    @property
    def counts(self) -> bool:
        """A number that could be an acquisition number."""
        span = np.ptp(self.values) + 1
        return bool(not self.decimal and self.distinct and span <= COUNTER_SPAN * self.values.size)


def read_names(files: Sequence[Path]) -> Names:
    """Numbers and places of a series from its names, and from those of its folders.

    Parameters
    ----------
    files
        In natural order, each frame once.
    """
    files = [file.parent / original_name(file.name) for file in files]
    by_order = list(range(len(files)))
    numbers, numbered = frame_numbers(files)
    names = _relative(files)
    shown = pattern(names[0])
    plain = Names(by_order, numbers, numbered, evidence=_numbering(shown, numbers, numbered))
    columns = _varying([name[: len(name) - len(_suffix_text(name))] for name in names])
    if columns is None:
        return plain
    if not columns:
        if len(files) > 1 and max(numbers) - min(numbers) >= COUNTER_SPAN * len(files):
            # The time of day numbers nothing.
            return Names(by_order, by_order, False, evidence=_numbering(shown, by_order, False))
        return plain
    if len(columns) == 1:
        only = columns[0]
        if only.positional:
            name, column = _named(only, "x")
            return Names(
                by_order, by_order, False, {name: column},
                evidence=(f"positions '{only.label}' in the names",),
            )  # fmt: skip
        if not numbered and not only.decimal and only.distinct:
            # A time stamp or a folder varied too.
            found = [int(value) for value in only.values]
            if max(found) > LARGEST_NUMBER:
                return plain
            return Names(by_order, found, True, evidence=_numbering(shown, found, True))
        return plain
    return _places(files, columns, shown) or plain


def _numbering(shown: str, numbers: list[int], numbered: bool) -> tuple[str, ...]:
    if numbered:
        return (f"numbers {min(numbers)}-{max(numbers)} in the names ({shown})",)
    return (f"no numbers in the names ({shown}): counted in natural order",)


def _relative(files: Sequence[Path]) -> list[str]:
    """Names from the first folder that differs."""
    parents = {os.path.abspath(file.parent) for file in files}  # noqa: PTH100
    if len(parents) == 1:
        return [file.name for file in files]
    start = len(os.path.commonpath(parents).rstrip(os.sep)) + 1
    return [os.path.abspath(file)[start:] for file in files]  # noqa: PTH100


def _suffix_text(name: str) -> str:
    """Suffix as written, compression included; empty for a counter (``a.0001``)."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    if suffix.lower() in COMPRESSED:
        return _suffix_text(stem) + suffix
    return "" if suffix[1:].isdigit() else suffix


def _varying(names: list[str]) -> list[_Column] | None:
    """The numbers that differ between the names; None if the names have different patterns."""
    names = [_HEXADECIMAL.sub("@", name) for name in names]
    if len({_NUMBER.sub("#", name) for name in names}) != 1:
        return None
    rows = [_NUMBER.findall(name) for name in names]
    stamps = _stamped(names[0]) & _stamped(names[-1])
    first = [(match.start(), match.end()) for match in _NUMBER.finditer(names[0])]
    columns = []
    for place, texts in enumerate(zip(*rows, strict=True)):
        if place in stamps or len(set(texts)) == 1:
            continue
        start, end = first[place]
        decimal = any("." in text or "p" in text for text in texts)
        signs = {text[0] in "+-" for text in texts}
        if not decimal and signs == {True}:
            texts = tuple(text[1:] for text in texts)  # a hyphen between words
        label = re.search(r"([A-Za-z]+)([_=]?)$", names[0][:start])
        units = _UNITS.match(names[0][end:])
        condition = _OTHER_UNITS.match(names[0][end:])
        padded = len({len(text) for text in texts}) == 1 and any(t[0] == "0" for t in texts)
        columns.append(
            _Column(
                label.group(1) if label else "",
                np.array([float(text.replace("p", ".")) for text in texts]),
                decimal or signs == {True, False},
                units.group(1) if units else "",
                place,
                label is not None and label.group(2) != "_",
                names[0][start:end] + condition.group(1) if condition else "",
                len(texts[0]) if padded else 0,
            )
        )
    return columns


def _stamped(name: str) -> set[int]:
    """Which of the numbers of a name belong to a date or time."""
    spans = [match.span() for match in _STAMP.finditer(name)]
    return {
        place
        for place, match in enumerate(_NUMBER.finditer(name))
        if any(start <= match.end() - 1 < end for start, end in spans)
    }


def _places(files: Sequence[Path], columns: list[_Column], shown: str) -> Names | None:
    """Two numbers that are places, and maybe a third that counts."""
    pair = _best_pair(columns)
    if pair is None:
        return _counted_lines(columns, shown)
    y, x = _down_and_right(*pair)
    counters = [c for c in columns if c is not x and c is not y and c.counts]
    unlabelled = not (x.known or y.known)
    if unlabelled and counters:
        order = np.argsort(counters[0].values, kind="stable")
        moves = [np.count_nonzero(np.diff(column.values[order])) for column in (y, x)]
        if moves[0] > moves[1]:
            y, x = x, y
    at_most, doubt = _doubt(y, x)
    shape, places = _grid(y.values, x.values)
    if counters:
        order = np.argsort(counters[0].values, kind="stable")
        numbers = counters[0].values[order].astype(int)
    elif places is not None:
        order = np.argsort(places, kind="stable")
        numbers = places[order]
    else:
        order = np.arange(len(files))
        numbers = order
    fast, snake = None, None
    if counters:
        fast, snake = _path(y.values[order], x.values[order])
    elif len({file.parent for file in files}) > 1 and x.place != y.place:
        fast = "x" if x.place > y.place else "y"
    # A word before a number names it only if it is a known one: map_003_012 has no 'map'.
    name_y = f"name:{y.label if y.known else 'y'}"
    name_x = f"name:{x.label if x.known else 'x'}"
    if at_most == "guess":
        name_y, name_x = (
            f"name:{c.label if c.known or c.attached else c.place + 1}" for c in (y, x)
        )
    if name_y == name_x:
        name_y, name_x = "name:y", "name:x"
    names = {name_y: (y.values[order], y.units), name_x: (x.values[order], x.units)}
    ways = "numbers" if not (x.decimal or y.decimal) else "positions"
    grid = f"a grid of {shape[0]}x{shape[1]}" if shape else "no grid"
    text = f"{ways} {name_y} and {name_x} of {shown} form {grid}{doubt}"
    return Names(
        order.tolist(),
        numbers.tolist(),
        bool(counters) or places is not None,
        names,
        ScanHint(name_x, name_y, shape, fast, snake, "filename", text, at_most),
        (text,),
    )


def _doubt(y: _Column, x: _Column) -> tuple[str, str]:
    """Confidence that two numbers are row and column can have at most (empty: any), and why.

    Scans, samples and temperatures fill a grid with their frame numbers as well as rows do with
    columns. A word for rows tells them apart; without one, rows and columns begin equally and
    are written alike.
    """
    odd = next((column for column in (y, x) if column.condition), None)
    if odd is None and y.known:
        return "", ""
    words = (y,) if x.known else (y, x)
    other = next((c.label for c in words if c.attached or c.label.lower() in _SERIES), None)
    begins = y.values.min() == x.values.min() and (y.width == x.width or y.values.min() == 0)
    why = ""
    if odd is not None:
        why = f"{odd.condition} is no place"
    elif other is not None:
        why = f"'{other}' is not known for a row or column"
    elif not x.known and not begins:
        why = "nothing says that they are row and column"
    if why:
        return "guess", f", but {why}: these may be several scans"
    which = "first" if y.place < x.place else "second"
    return "likely", f", the {which} number taken as row, the other as column"


def _best_pair(columns: list[_Column]) -> tuple[_Column, _Column] | None:
    """The two columns that fill a grid best, or two positions that fill none."""
    best, best_filled = None, FULL
    for one, other in itertools.combinations(columns, 2):
        shape, _ = _grid(one.values, other.values)
        if shape is not None:
            filled = one.values.size / (shape[0] * shape[1])
            if filled > best_filled:
                best, best_filled = (one, other), filled
    if best is None:
        positions = [column for column in columns if column.positional]
        if len(positions) == 2:
            best = positions[0], positions[1]
    return best


def _grid(
    y: NDArray[np.float64], x: NDArray[np.float64]
) -> tuple[tuple[int, int] | None, NDArray[np.intp] | None]:
    """Shape of the grid that two columns form, and the place of each file in it, row by row."""
    (row, ny), (column, nx) = _steps(y), _steps(x)
    places = row * nx + column
    n = y.size
    whole = min(ny, nx) >= 2 and max(ny, nx) < n and np.unique(places).size == n
    if not whole or n <= FULL * ny * nx:
        return None, None
    return (ny, nx), places


def _steps(values: NDArray[np.float64]) -> tuple[NDArray[np.intp], int]:
    """Place of each value on its axis and the length of the axis.

    Whole numbers run in their common step, so that a line without any file keeps its place (of
    two lines the step is not known: they are counted); decimal ones take the places of the values
    that occur.
    """
    seen, place = np.unique(values, return_inverse=True)
    if seen.size < 2 or (seen != np.round(seen)).any():
        return place, int(seen.size)
    step = math.gcd(*(int(gap) for gap in np.diff(seen))) if seen.size > 2 else 1
    return ((values - seen[0]) // step).astype(np.intp), int((seen[-1] - seen[0]) // step) + 1


_SIDES = {
    "z": 0, "ver": 0, "y": 1, "r": 1, "row": 1, "rows": 1, "line": 1, "lines": 1,
    "x": 3, "hor": 3, "c": 3, "col": 3, "column": 3, "pt": 3, "point": 3,
}  # fmt: skip
UNKNOWN = 2
"""Down, down unless z is there (then y is horizontal), unknown, right."""


def _side(label: str) -> int:
    motor = _POSITION.fullmatch(label)
    if motor is not None:
        label = next(part for part in motor.groups() if part)
    return _SIDES.get(label.lower(), UNKNOWN)


def _down_and_right(first: _Column, second: _Column) -> tuple[_Column, _Column]:
    """Which of the two is y (rows) and which x: by their labels, else the first is the row."""
    one, other = _side(first.label), _side(second.label)
    if one == UNKNOWN:
        swapped = other < UNKNOWN
    elif other == UNKNOWN:
        swapped = one > UNKNOWN
    else:
        swapped = one > other
    return (second, first) if swapped else (first, second)


def motor_axes(columns: Sequence[str]) -> ScanHint | None:
    """The two sample motors among columns of headers, by their names; None if not just two."""
    motors = [name for name in columns if _POSITION.fullmatch(name)]
    if len(motors) != 2 or _side(motors[0]) == _side(motors[1]):
        return None
    y, x = sorted(motors, key=_side)
    text = f"motors {x} and {y} differ between the headers"
    return ScanHint(x, y, source="header", evidence=text)


def _path(y: NDArray[np.float64], x: NDArray[np.float64]) -> tuple[str | None, bool | None]:
    """Fast axis and whether every second line runs backwards, from the order of the counter."""
    moves_x, moves_y = np.diff(x) != 0, np.diff(y) != 0
    if moves_x.sum() == moves_y.sum():
        return None, None
    fast = "x" if moves_x.sum() > moves_y.sum() else "y"
    along, across = (x, y) if fast == "x" else (y, x)
    lines = np.split(along, np.flatnonzero(np.diff(across) != 0) + 1)
    ways = [np.sign(line[-1] - line[0]) for line in lines if line.size > 1]
    if len(ways) < 2:
        return fast, None
    return fast, bool(all(a == -b for a, b in itertools.pairwise(ways)))


def _counted_lines(columns: list[_Column], shown: str) -> Names | None:
    """A counter that runs on through the lines: ``row_003/img_0041``; or a counter beside others.

    None if no number, or more than one, could be the counter.
    """
    counters = [column for column in columns if column.counts]
    others = [column for column in columns if not column.counts]
    if len(counters) != 1:
        return None
    order = np.argsort(counters[0].values, kind="stable")
    numbers = counters[0].values[order].astype(int)
    names = {}
    for column in others:
        name, (values, units) = _named(column, str(column.place + 1))
        name = f"{name}:{column.place + 1}" if name in names else name
        names[name] = values[order], units
    scan = None
    found = [int(number) for number in numbers]
    evidence = _numbering(shown, found, True)
    if len(others) == 1:
        lines, length = others[0].values[order], 0
        rows, ny = _steps(lines)
        span = int(numbers[-1] - numbers[0]) + 1
        if ny >= 2 and span > ny:
            length = -(-span // ny)
        if length >= 2 and ((numbers - numbers[0]) // length == rows).all():
            text = f"{ny} lines of {length} numbers in {shown}"
            name = next(iter(names))
            scan = ScanHint(None, name, (ny, length), "x", None, "filename", text)
            evidence += (text,)
    return Names(order.tolist(), found, True, names, scan, evidence)


def _named(column: _Column, otherwise: str) -> tuple[str, tuple[NDArray[np.float64], str]]:
    return f"name:{column.label or otherwise}", (column.values, column.units)
