"""Which scan is it? Options, recorded positions and what the files say, in that order."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xrdpipe.config import ScanOptions
from xrdpipe.errors import InputError, OptionError, did_you_mean
from xrdpipe.frames.tables import read_table
from xrdpipe.scan import (
    one_per_frame,
    place_frames,
    same_up_to_direction,
    scan_from_positions,
    with_positions,
)
from xrdpipe.schema import FrameStatus
from xrdpipe.store.patterns import PatternsFile
from xrdpipe.types import BoolArray, FrameSource, IntArray, Progress, Scan, ScanHint

NUMBER_COLUMNS = ("frame", "index", "number")
"""A column of a table with one of these names places its rows by acquisition number."""

AXIS_NAME = re.compile(
    r"^(?P<stem>.*?)[_.:|-]?(?P<axis>[xyz])"
    r"(?P<suffix>([_.:|-]?(rbv|readback|position|pos|value|enc|encoder|set|actual|center))*)$"
)
AXIS_PAIRS = (("x", "y"), ("y", "z"), ("x", "z"))
"""Which of two motors of one stage is horizontal."""


@dataclass(frozen=True)
class _Series:
    """What frames and patterns have in common."""

    name: str
    numbers: IntArray
    numbered: bool
    usable: BoolArray
    columns: Mapping[str, str]
    column: Callable[[str], NDArray[np.float64] | None]
    hint: ScanHint

    def positions(self, name: str) -> NDArray[np.float64] | None:
        """One value per frame of a column; None if it is absent or does not fit the frames."""
        values = self.column(name)
        if values is None:
            return None
        return one_per_frame(values, self.numbers.size, self.hint.shape)

    def in_order(self, options: ScanOptions | None = None) -> Scan:
        """Frames placed by the options; without any, in one row."""
        options = options or ScanOptions()
        return place_frames(
            self.numbers,
            self.numbered,
            options.scan_shape,
            options.fast_axis,
            options.snake,
            options.incomplete,
            self.usable,
        )

    def scan(
        self,
        x: NDArray[np.float64],
        y: NDArray[np.float64] | None,
        names: tuple[str, str],
        shape: tuple[int, int] | None,
        source: str,
    ) -> Scan:
        """Frames placed by positions."""
        return scan_from_positions(
            x,
            y,
            names=names,
            units=(self.columns.get(names[0], ""), self.columns.get(names[1], "")),
            numbers=self.numbers if self.numbered else None,
            usable=self.usable,
            shape=shape,
            source=source,
        )


def _series(source: FrameSource | PatternsFile) -> _Series:
    if isinstance(source, PatternsFile):
        name, numbers, status = str(source.path), source.frame, source.status
    else:
        name = source.name
        numbers = np.array([record.index for record in source.records])
        status = np.array([record.problem for record in source.records])
    return _Series(
        name,
        numbers,
        source.numbered,
        np.asarray(status != FrameStatus.DUPLICATE),
        source.columns,
        source.column,
        source.scan or ScanHint(),
    )


def resolve_scan(
    options: ScanOptions, source: FrameSource | PatternsFile, progress: Progress | None = None
) -> Scan:
    """Place the frames on the map.

    ``positions`` must give a scan; else shape, snake and fast axis of the options count; else what
    the files say, unless it is a guess; else all frames are one row.

    Raises
    ------
    OptionError, InputError
        If options contradict each other, or what they name does not fit the frames.
    """
    note = (progress or Progress()).note
    series = _series(source)
    if options.positions not in (None, "none"):
        return _by_positions(options, series, note)
    if options.positions == "none":
        return series.in_order(options)
    if options.scan_shape or options.snake or options.fast_axis != "x" or options.incomplete:
        return _compared(series.in_order(options), _found(series), note)
    found = _found(series)
    if found is None:
        return series.in_order()
    if found.confidence == "guess":
        note(
            f"the frames are mapped in one row; they may be {describe_scan(found)}. To use this, "
            "give --scan-shape or --positions"
        )
        return series.in_order()
    note(f"scan: {describe_scan(found)}")
    return found


def scan_of_files(source: FrameSource | PatternsFile) -> Scan | None:
    """What the files say of the scan, guesses included; None if nothing."""
    return _found(_series(source))


def describe_scan(scan: Scan) -> str:
    """One line: shape, how sure, and why."""
    shape = f"{scan.frame_index.size} scattered points" if scan.irregular else (
        f"{scan.shape[0]}x{scan.shape[1]}"
    )  # fmt: skip
    return f"{shape} from {scan.source}, {scan.confidence}: {scan.evidence}"


def positions_identity(options: ScanOptions) -> str | list[str] | None:
    """What a result depends on: the option; of a table its content, not where it lies."""
    table, separator, columns = (options.positions or "").rpartition("::")
    if not separator:
        return options.positions
    file = Path(table.partition("::")[0])
    digest = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
    return [digest, table.partition("::")[2], columns]


def _by_positions(options: ScanOptions, series: _Series, note: Callable[[str], None]) -> Scan:
    given = [
        name
        for name, value in (
            ("--snake", options.snake),
            ("--fast-axis y", options.fast_axis == "y"),
            ("--incomplete", options.incomplete),
        )
        if value
    ]
    if given:
        raise OptionError(
            f"{' and '.join(given)} cannot be combined with --positions {options.positions}: the "
            "positions say how the scan ran; drop one of the two."
        )
    assert options.positions is not None
    table, separator, pair = options.positions.rpartition("::")
    names = [name.strip() for name in pair.split(",")]
    if len(names) != 2 or not all(names):
        raise OptionError(
            f"--positions {options.positions} names {len(names)} columns; expected two, "
            "horizontal first: X,Y or TABLE::X,Y (or 'none')."
        )
    if separator:
        x, y = _columns_of_table(table, names, series, options.scan_shape)
        source = f"table {Path(table.partition('::')[0]).name}"
    else:
        x, y = (_column_of_series(name, series) for name in names)
        source = series.hint.source or "positions"
    shape = options.scan_shape or series.hint.shape
    scan = series.scan(x, y, (names[0], names[1]), shape, source)
    if options.scan_shape is not None and scan.shape != options.scan_shape:
        asked = "x".join(map(str, options.scan_shape))
        swap = " They fit with X and Y swapped." if scan.shape == options.scan_shape[::-1] else ""
        raise InputError(
            f"--positions {options.positions} and --scan-shape {asked} disagree: "
            f"{scan.evidence}.{swap} Drop --scan-shape to use the positions, or use "
            "--positions none."
        )
    warning = "warning: " if scan.confidence == "guess" else ""
    note(f"{warning}scan: {describe_scan(scan)}")
    return scan


def _column_of_series(name: str, series: _Series) -> NDArray[np.float64]:
    if name not in series.columns:
        known = did_you_mean(name, series.columns) if series.columns else " It holds none."
        raise InputError(f"--positions: {series.name} has no motor '{name}'.{known}")
    values = series.positions(name)
    if values is None:
        found = series.column(name)
        raise InputError(
            f"--positions: {name} of {series.name} has {0 if found is None else found.size} "
            f"values for {series.numbers.size} frames; expected one per frame, or the edges."
        )
    return values


def _columns_of_table(
    table: str, names: list[str], series: _Series, shape: tuple[int, int] | None
) -> list[NDArray[np.float64]]:
    columns = read_table(Path(table), "positions")
    for name in names:
        if name not in columns:
            raise InputError(
                f"--positions: table {table} has no column '{name}'.{did_you_mean(name, columns)}"
            )
    values = [columns[name] for name in names]
    number = next((n for n in columns if n.strip().lower() in NUMBER_COLUMNS), None)
    if number is not None and number not in names:
        return _by_number(table, number, columns[number], values, series)
    n_frames = series.numbers.size
    placed = []
    for name, column in zip(names, values, strict=True):
        per_frame = one_per_frame(column, n_frames, shape or series.hint.shape)
        if per_frame is None and column.size == np.count_nonzero(series.usable):
            per_frame = np.full(n_frames, np.nan)
            per_frame[series.usable] = column
        if per_frame is None:
            raise InputError(
                f"--positions: column '{name}' of {table} has {column.size} values for {n_frames} "
                f"frames of {series.name}; expected one per frame, or a column 'frame' that says "
                "which frame each belongs to."
            )
        placed.append(per_frame)
    return placed


def _by_number(
    table: str,
    name: str,
    numbers: NDArray[np.float64],
    values: list[NDArray[np.float64]],
    series: _Series,
) -> list[NDArray[np.float64]]:
    """Values in the order of the frames, NaN for frames the table does not name."""
    if any(column.size != numbers.size for column in values):
        raise InputError(f"--positions: the columns of {table} differ in length from '{name}'.")
    if not np.isfinite(numbers).all() or np.unique(numbers).size != numbers.size:
        raise InputError(f"--positions: column '{name}' of {table} names a frame twice or none.")
    frames = series.numbers if series.numbered else series.numbers + (numbers.min() == 1)
    order = np.argsort(numbers)
    at = np.clip(np.searchsorted(numbers[order], frames), 0, numbers.size - 1)
    known = numbers[order][at] == frames
    if not known.any():
        raise InputError(
            f"--positions: {table} names frames {numbers.min():g}-{numbers.max():g}, {series.name} "
            f"has frames {frames.min()}-{frames.max()}; expected the same numbers."
        )
    return [np.where(known, column[order][at], np.nan) for column in values]


def _compared(scan: Scan, found: Scan | None, note: Callable[[str], None]) -> Scan:
    """Options win; positions that agree lend their coordinates, others are reported."""
    if found is None or found.irregular or found.confidence == "guess":
        return scan
    if found.x is None and found.y is None:
        return scan
    if np.array_equal(scan.frame_index, found.frame_index):
        return with_positions(scan, found)
    if not same_up_to_direction(scan, found):
        note(
            "warning: the options place the frames elsewhere than the recorded positions "
            f"({describe_scan(found)}); to use the positions, drop --scan-shape, --snake, "
            "--fast-axis and --incomplete"
        )
    return scan


def _found(series: _Series) -> Scan | None:
    """The best that positions named by the files, positions by their names, or a shape give."""
    found = []
    hint = series.hint
    for x, y in ((hint.x, hint.y), *_named_pairs(series.columns)):
        scan = _from_columns(series, x, y)
        named = (x, y) == (hint.x, hint.y)
        if scan is not None and (named or not scan.irregular):
            found.append(scan)
        if scan is not None and scan.confidence == "certain":
            break
    if hint.shape is not None:
        found.append(_from_shape(series, hint.shape))

    def rank(scan: Scan) -> int:
        order = ("guess", "irregular", "likely", "certain")
        sure = scan.confidence
        return order.index("irregular" if scan.irregular and sure != "guess" else sure)

    return max(found, key=rank, default=None)


def _from_columns(series: _Series, x: str | None, y: str | None) -> Scan | None:
    """The scan of two motors (or one), if they have positions of the frames and move."""
    at_x, at_y = (None if name is None else series.positions(name) for name in (x, y))
    moves = [v is not None and np.nanmax(v) > np.nanmin(v) for v in (at_x, at_y) if _finite(v)]
    if not any(moves):
        return None
    hint, source = series.hint, series.hint.source or "positions"
    if at_x is not None:
        return series.scan(at_x, at_y, (x or "x", y or "y"), hint.shape, source)
    assert at_y is not None
    scan = series.scan(np.zeros_like(at_y), at_y, ("x", y or "y"), hint.shape, source)
    return dataclasses.replace(scan, x=None)


def _finite(values: NDArray[np.float64] | None) -> bool:
    return values is not None and bool(np.isfinite(values).any())


def _named_pairs(columns: Mapping[str, str]) -> list[tuple[str, str]]:
    """Motors that by their names are two axes of one stage, horizontal first."""
    stages: dict[tuple[str, str], dict[str, str]] = {}
    for name in columns:
        match = AXIS_NAME.match(name.lower())
        if match:
            stage = stages.setdefault((match["stem"], match["suffix"]), {})
            stage.setdefault(match["axis"], name)
    return [
        (stage[across], stage[down])
        for stage in stages.values()
        for across, down in AXIS_PAIRS
        if across in stage and down in stage
    ]


def _from_shape(series: _Series, shape: tuple[int, int]) -> Scan:
    """A shape without positions: likely where order or numbers fill it and snake is known."""
    hint = series.hint
    options = ScanOptions(
        scan_shape=shape, fast_axis="y" if hint.fast_axis == "y" else "x", snake=bool(hint.snake)
    )
    confidence = "guess" if hint.snake is None and min(shape) > 1 else "likely"
    try:
        scan = series.in_order(options)
    except InputError:
        confidence = "guess"
        if series.numbers.size > shape[0] * shape[1]:
            scan = series.in_order()
        else:
            scan = series.in_order(dataclasses.replace(options, incomplete=True))
    phrases = [p for p in (hint.evidence, scan.evidence) if p]
    return dataclasses.replace(
        scan, source=hint.source or "files", confidence=confidence, evidence="; ".join(phrases)
    )
