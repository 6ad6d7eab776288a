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
from xrdpipe.frames.names import image_suffix, original_name
from xrdpipe.frames.tables import number_column, read_table, read_texts, rows_by_number
from xrdpipe.scan import (
    one_per_frame,
    place_frames,
    points_from,
    same_up_to_direction,
    scan_from_positions,
    with_positions,
)
from xrdpipe.schema import FrameStatus
from xrdpipe.store.patterns import PatternsFile
from xrdpipe.types import BoolArray, FrameSource, IntArray, Progress, Scan, ScanAxis, ScanHint

CONFIDENCES = ("guess", "likely", "certain")

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
    files: Callable[[], list[str]]

    @property
    def counting(self) -> bool:
        """True if every frame that takes a pixel has a number of its own."""
        numbers = self.numbers[self.usable]
        return self.numbered and np.unique(numbers).size == numbers.size > 0

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
            options.first_number,
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
        patterns = source

        def files() -> list[str]:
            return patterns.source_files

    else:
        name, records = source.name, source.records
        numbers = np.array([record.index for record in records])
        status = np.array([record.problem for record in records])

        def files() -> list[str]:
            return [record.file for record in records]

    return _Series(
        name,
        numbers,
        source.numbered,
        np.asarray(status != FrameStatus.DUPLICATE),
        source.columns,
        source.column,
        source.scan or ScanHint(),
        files,
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
    scan = _placed(options, _series(source), note)
    return scan if options.position_unit is None else _with_unit(scan, options.position_unit, note)


def _placed(options: ScanOptions, series: _Series, note: Callable[[str], None]) -> Scan:
    if options.positions not in (None, "none"):
        return _by_positions(options, series, note)
    if options.scan_shape:
        found = None if options.positions else _found(series)
        return _compared(series.in_order(options), found, note)
    if given := _ways_given(options):
        needs = "needs" if len(given) == 1 else "need"
        raise OptionError(f"{' and '.join(given)} {needs} --scan-shape.")
    if options.positions == "none":
        return series.in_order()
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


def _with_unit(scan: Scan, unit: str, note: Callable[[str], None]) -> Scan:
    """The scan with the unit of its positions, which the files left out."""

    def with_unit(axis: ScanAxis | None) -> ScanAxis | None:
        if axis is None:
            return None
        if axis.units not in ("", unit):
            raise OptionError(
                f"--position-unit {unit}: the files say that {axis.name} is in {axis.units}; drop "
                "the option."
            )
        return dataclasses.replace(axis, units=unit)

    if scan.x is None and scan.y is None:
        note(f"warning: --position-unit {unit} changes nothing, as no positions are known")
    return dataclasses.replace(scan, x=with_unit(scan.x), y=with_unit(scan.y))


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


def _ways_given(options: ScanOptions) -> list[str]:
    """Options that say how frames lie on a shape."""
    given = {
        "--snake": options.snake,
        "--fast-axis y": options.fast_axis == "y",
        "--incomplete": options.incomplete,
        f"--first-number {options.first_number}": options.first_number is not None,
    }
    return [name for name, value in given.items() if value]


def _by_positions(options: ScanOptions, series: _Series, note: Callable[[str], None]) -> Scan:
    assert options.positions is not None
    table, separator, pair = options.positions.rpartition("::")
    # A table has a first row, whose frame may have to be told; motors of the frames have not.
    rows = dataclasses.replace(options, first_number=None) if separator else options
    if given := _ways_given(rows):
        raise OptionError(
            f"{' and '.join(given)} cannot be combined with --positions {options.positions}: the "
            "positions say how the scan ran; drop one of the two."
        )
    names = [name.strip() for name in pair.split(",")]
    if len(names) != 2 or not all(names):
        raise OptionError(
            f"--positions {options.positions} names {len(names)} columns; expected two, "
            "horizontal first: X,Y or TABLE::X,Y (or 'none')."
        )
    doubt = ""
    if separator:
        (x, y), doubt = _columns_of_table(table, names, series, options)
        source = f"table {Path(table.partition('::')[0]).name}"
    else:
        x, y = (_column_of_series(name, series) for name in names)
        source = series.hint.source or "positions"
    shape = options.scan_shape or series.hint.shape
    scan = _capped(
        series.scan(x, y, (names[0], names[1]), shape, source), "likely" if doubt else "", doubt
    )
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
    table: str, names: list[str], series: _Series, options: ScanOptions
) -> tuple[list[NDArray[np.float64]], str]:
    """Two columns in the order of the frames, NaN where there is no row; and what is in doubt."""
    columns = read_table(Path(table), "positions")
    for name in names:
        if name not in columns:
            raise InputError(
                f"--positions: table {table} has no column '{name}'.{did_you_mean(name, columns)}"
            )
    values = [columns[name] for name in names]
    if len({column.size for column in values}) > 1:
        raise InputError(f"--positions: columns {' and '.join(names)} of {table} differ in length.")
    number = number_column({n: v for n, v in columns.items() if n not in names})
    named = _by_file(table, series)
    if number is None and named is None:
        return _by_rows(table, names[0], values, series, options)
    if options.first_number is not None:
        raise OptionError(
            f"--first-number {options.first_number} cannot be combined with --positions "
            f"{options.positions}: the table names the frame of each row; drop it."
        )
    rows = named
    if rows is None:
        assert number is not None
        rows = _by_number(table, number, columns[number], values[0].size, series)
    return [np.where(rows >= 0, column[rows], np.nan) for column in values], ""


def _by_file(table: str, series: _Series) -> NDArray[np.intp] | None:
    """Row of each frame in a table that names the files, −1 for none; None if it does not."""

    def plain(name: str) -> str:
        name = original_name(Path(name).name)
        suffix = image_suffix(name)
        return name.removesuffix(suffix) if suffix != ".#" else name

    texts = read_texts(Path(table), "positions")
    if not texts:
        return None
    frames = [plain(file) for file in series.files()]
    if len(set(frames)) < np.count_nonzero(series.usable):
        return None
    for column, cells in texts.items():
        names = [plain(cell) for cell in cells]
        row = {name: place for place, name in enumerate(names)}
        found = np.array([row.get(frame, -1) for frame in frames], np.intp)
        if (found >= 0).any():
            if len(row) < len(names):
                raise InputError(f"--positions: column '{column}' of {table} names a file twice.")
            return found
    return None


def _by_number(
    table: str, name: str, numbers: NDArray[np.float64], n_rows: int, series: _Series
) -> NDArray[np.intp]:
    """Row of each frame in a table with a column of acquisition numbers, −1 for none."""
    if numbers.size != n_rows:
        raise InputError(f"--positions: the columns of {table} differ in length from '{name}'.")
    if not np.isfinite(numbers).all() or np.unique(numbers).size != numbers.size:
        raise InputError(f"--positions: column '{name}' of {table} names a frame twice or none.")
    frames = series.numbers if series.numbered else series.numbers + (numbers.min() == 1)
    rows = rows_by_number(numbers, frames)
    if rows is None or (not series.numbered and (rows < 0).any()):
        raise InputError(
            f"--positions: {table} names frames {numbers.min():g}-{numbers.max():g}, {series.name} "
            f"has frames {frames.min()}-{frames.max()}"
            f"{'' if series.numbered else ' (counted)'}; expected the same numbers."
        )
    return rows


def _by_rows(
    table: str, name: str, values: list[NDArray[np.float64]], series: _Series, options: ScanOptions
) -> tuple[list[NDArray[np.float64]], str]:
    """Columns of a table that does not say which row is which frame's: one row per point.

    Frames that are missing have a row too if there are as many rows as numbers from the first
    frame's to the last one's.
    """
    n_rows, n_frames = values[0].size, series.numbers.size
    if options.first_number is not None:
        points = points_from(options.first_number, series.numbers, series.counting, n_rows)
        return [column[points] for column in values], ""
    span, points = n_frames, np.arange(n_frames)
    low = high = 0
    if series.counting:
        low, high = int(series.numbers.min()), int(series.numbers.max())
        span, points = high - low + 1, series.numbers.astype(np.intp) - low
    if n_rows == span:
        return [column[points] for column in values], ""
    if n_rows == n_frames:
        return values, ""
    if n_rows == np.count_nonzero(series.usable):
        rows = np.cumsum(series.usable) - 1
        return [np.where(series.usable, column[rows], np.nan) for column in values], ""
    shape = options.scan_shape or series.hint.shape
    placed = [one_per_frame(column, span, shape, aborted=False) for column in values]
    if low > 1 and n_rows == span + 1:
        placed = [None]
    counted = f", numbered {low}-{high}" if series.counting else ""
    per_frame = [column[points] for column in placed if column is not None]
    if len(per_frame) < len(values):
        tell = ""
        if n_rows > span:
            tell = ", --scan-shape if these are the edges of every line"
            tell += ", --first-number if there is a row per point" if series.counting else ""
        raise InputError(
            f"--positions: column '{name}' of {table} has {n_rows} values for {n_frames} frames of "
            f"{series.name}{counted}; expected one per frame, or a column 'frame' or of file names "
            f"that says which frame each belongs to{tell}."
        )
    if n_rows == span + 1 and low == 1:
        return per_frame, (
            f"{table} has a row more than there are frames: taken for the end of the scan, not for "
            "a frame 0 that is missing"
        )
    return per_frame, ""


def _compared(scan: Scan, found: Scan | None, note: Callable[[str], None]) -> Scan:
    """Options win; positions that agree lend coordinates and confidence, others are reported."""
    positions = found is not None and not (found.x is None and found.y is None)
    if found is None or not positions or found.irregular or found.confidence == "guess":
        if scan.confidence != "given":
            note(f"warning: {scan.evidence}")
        return scan
    if np.array_equal(scan.frame_index, found.frame_index):
        return dataclasses.replace(with_positions(scan, found), confidence="given")
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
        if scan is not None and named:
            scan = _capped(scan, hint.at_most, hint.evidence)
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


def _capped(scan: Scan, at_most: str, why: str) -> Scan:
    """The scan with no more confidence than this, and the reason."""
    if not at_most:
        return scan
    confidence = min(scan.confidence, at_most, key=CONFIDENCES.index)
    return dataclasses.replace(scan, confidence=confidence, evidence=f"{scan.evidence}; {why}")


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
    confidence = hint.at_most or "likely"
    if hint.snake is None and min(shape) > 1:
        confidence = "guess"
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
