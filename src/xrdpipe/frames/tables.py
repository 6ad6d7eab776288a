"""Tables of numbers beside the frames: CSV, whitespace columns, SPEC scans, 1-D HDF5 datasets."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from xrdpipe.bounds import LARGEST_TABLE, check_text, sound
from xrdpipe.errors import InputError, InputMissingError, did_you_mean
from xrdpipe.frames.hdf5 import HDF5_SUFFIXES
from xrdpipe.frames.layouts.links import whole

NO_VALUE = frozenset({"", "na", "n/a", "none", "null", "-"})
"""Cells that say nothing; they read as NaN, like ``nan`` itself."""

NUMBER_COLUMNS = ("frame", "frame_number", "image", "image_number", "number", "index")
"""Names (any case, blanks as underscores) of a column that holds the acquisition number."""

_SPEC_SCAN = re.compile(r"#S\s+\d+")


def read_table(path: Path, what: str) -> dict[str, NDArray[np.float64]]:
    """Every numeric column of a table: name → values, in the order of the file.

    Parameters
    ----------
    path
        Text with a header line (CSV, or columns separated by blanks, tabs or semicolons; the
        header may start with ``#``; without one the columns are named 0, 1, …); a SPEC file (its
        last scan, or ``FILE::S3``); or an HDF5 file or ``FILE.h5::/group`` (its 1-D datasets).
    what
        What the table is for (``monitor``, ``positions``), for messages.

    Returns
    -------
    dict
        Columns of equal length, except those of an HDF5 file. Cells without a value are NaN;
        columns that hold text are left out.

    Raises
    ------
    InputMissingError, InputError
        If there is no such file, scan or group, or it is no table.
    """
    file, inside = _existing(path, what)
    if file.suffix.lower() in HDF5_SUFFIXES:
        return _read_hdf5(file, inside, what)
    table = _read_text(file, inside, what)
    columns: dict[str, NDArray[np.float64]] = {}
    for place, name in enumerate(table.names):
        try:
            columns.setdefault(name, table.column(place))
        except ValueError:
            continue
    return columns


def read_column(path: Path, column: str, what: str) -> NDArray[np.float64]:
    """One column of a table, shape (rows,).

    Parameters
    ----------
    path, what
        As in :func:`read_table`.
    column
        Its name, its place counted from 0, or the path of a dataset of an HDF5 file.

    Raises
    ------
    InputMissingError, InputError
        If there is no such column, or it holds text.
    """
    file, inside = _existing(path, what)
    if file.suffix.lower() in HDF5_SUFFIXES:
        return _read_dataset(file, f"{inside}/{column}" if inside else column, what)
    table = _read_text(file, inside, what)
    if table.names.count(column) > 1:
        places = [str(place) for place, name in enumerate(table.names) if name == column]
        raise InputError(
            f"{what}: {path} has {len(places)} columns '{column}'; name one by its place: "
            f"{' or '.join(places)}."
        )
    if column in table.names:
        place = table.names.index(column)
    elif column.isdigit() and int(column) < len(table.names):
        place = int(column)
    else:
        raise InputError(f"{what}: {path} has no column '{column}'.{_known(column, table.names)}")
    try:
        return table.column(place)
    except ValueError as error:
        raise InputError(f"{what}: column '{column}' of {path} is not numeric: {error}.") from error


def number_column(columns: dict[str, NDArray[np.float64]]) -> str | None:
    """Name of the column that holds acquisition numbers, or None."""
    for wanted in NUMBER_COLUMNS:
        for name in columns:
            if re.sub(r"[\s_]+", "_", name.strip().lower()) == wanted:
                return name
    return None


def read_texts(path: Path, what: str) -> dict[str, list[str]]:
    """Every column of a table of text that is not numeric: name → cells, without folders.

    Parameters
    ----------
    path, what
        As in :func:`read_table`; an HDF5 file has none.

    Raises
    ------
    InputMissingError, InputError
        As in :func:`read_table`.
    """
    file, inside = _existing(path, what)
    if file.suffix.lower() in HDF5_SUFFIXES:
        return {}
    table = _read_text(file, inside, what)
    columns = {}
    for place, name in enumerate(table.names):
        cells = [re.split(r"[\\/]", cells[place].strip())[-1] for _, cells in table.rows]
        if not all(_is_number(cell) for cell in cells if cell.lower() not in NO_VALUE):
            columns[name] = cells
    return columns


def rows_by_number(
    numbers: NDArray[np.float64], wanted: NDArray[np.floating[Any] | np.integer[Any]]
) -> NDArray[np.intp] | None:
    """Row of each frame in a table that numbers its rows.

    Parameters
    ----------
    numbers
        Shape (rows,), each once.
    wanted
        Number of each frame, shape (frames,).

    Returns
    -------
    array of shape (frames,), −1 for a frame without a row; or None if the table counts from another
    start: no frame has a row, or some have none and all would, were their numbers moved by one or
    by as much as the ends of the two differ.
    """
    order = np.argsort(numbers)

    def rows(of: NDArray[Any]) -> NDArray[np.intp]:
        place = order[np.minimum(np.searchsorted(numbers[order], of), numbers.size - 1)]
        return np.where(numbers[place] == of, place, -1)

    found = rows(wanted)
    if (found >= 0).all():
        return found
    ends = (numbers.min() - wanted.min(), numbers.max() - wanted.max())
    moved = any((rows(wanted + shift) >= 0).all() for shift in (1, -1, *ends))
    return None if moved or (found < 0).all() else found


@dataclass(frozen=True)
class _TextTable:
    """Names of the columns, and per row its line number in the file and its cells."""

    names: list[str]
    rows: list[tuple[int, list[str]]]

    def column(self, place: int) -> NDArray[np.float64]:
        """Values of one column; raises ValueError naming the line of a text."""
        values = np.empty(len(self.rows))
        for row, (line, cells) in enumerate(self.rows):
            cell = cells[place].strip()
            try:
                values[row] = np.nan if cell.lower() in NO_VALUE else float(cell)
            except ValueError as error:
                hint = " (a decimal comma? write a point)" if "," in cell else ""
                raise ValueError(f"line {line} has '{cell}'{hint}") from error
        return values


def _existing(path: Path, what: str) -> tuple[Path, str]:
    """Split ``FILE::INSIDE`` and check that the file is there."""
    name, _, inside = str(path).partition("::")
    if not Path(name).is_file():
        raise InputMissingError(f"{what}: {name} does not exist; expected a table or HDF5 file.")
    return Path(name), inside


# --- text ------------------------------------------------------------------------------------


def _read_text(file: Path, scan: str, what: str) -> _TextTable:
    check_text(file.stat().st_size, f"{what}: {file}", LARGEST_TABLE)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        text = file.read_text(encoding="latin-1")
    except OSError as error:
        raise InputError(f"{what}: {file} cannot be read: {error}.") from error
    if "\0" in text:
        raise InputError(f"{what}: {file} is no table but a binary file.")
    lines = list(enumerate(text.splitlines(), 1))
    if any(_SPEC_SCAN.match(line) for _, line in lines):
        return _read_spec(file, lines, scan, what)
    if scan:
        raise InputError(f"{what}: {file} is no SPEC file, it has no scan '{scan}'.")
    comments = [line.lstrip("# \t") for _, line in lines if line.lstrip().startswith("#")]
    body = [
        (number, line)
        for number, line in lines
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not body:
        raise InputError(f"{what}: {file} holds no rows; expected a table with a header line.")
    separator = _separator(body[-1][1])
    rows = [(number, _cells(line, separator)) for number, line in body]
    names = [str(place) for place in range(len(rows[-1][1]))]
    if not any(_is_number(cell) for cell in rows[0][1]):
        names = rows.pop(0)[1]
    else:
        # The last comment of as many words as there are columns is the header.
        for comment in reversed(comments):
            words = _cells(comment, _separator(comment))
            if len(words) == len(names):
                names = words
                break
    return _checked(file, names, rows, what)


def _read_spec(file: Path, lines: list[tuple[int, str]], scan: str, what: str) -> _TextTable:
    starts = [place for place, (_, line) in enumerate(lines) if _SPEC_SCAN.match(line)]
    numbers = [lines[place][1].split()[1] for place in starts]
    wanted = re.sub(r"^[Ss]\s*", "", scan)
    chosen = [k for k, number in enumerate(numbers) if not wanted or number == wanted]
    if not chosen:
        raise InputError(
            f"{what}: {file} has no scan {wanted}; it holds scans {', '.join(numbers[:20])}."
        )
    last = chosen[-1]
    block = lines[starts[last] : [*starts, len(lines)][last + 1]]
    header = next((line for _, line in block if line.startswith("#L")), None)
    rows = [
        (number, line.split())
        for number, line in block
        if line.strip() and (line[0].isdigit() or line[0] in "-+.")
    ]
    if header is None or not rows:
        raise InputError(f"{what}: scan {numbers[last]} of {file} has no points.")
    # SPEC separates names by two blanks, as a name may hold one.
    names = re.split(r"\s{2,}|\t", header[2:].strip())
    if len(names) != len(rows[0][1]):
        names = header[2:].split()
    return _checked(file, names, rows, what)


def _checked(
    file: Path, names: list[str], rows: list[tuple[int, list[str]]], what: str
) -> _TextTable:
    names = [name.strip() for name in names]
    for number, cells in rows:
        if len(cells) != len(names):
            raise InputError(
                f"{what}: line {number} of {file} has {len(cells)} columns, the header names "
                f"{len(names)} ({', '.join(names)}); a name must not hold the separator, "
                "nor a number a decimal comma."
            )
    if not rows:
        raise InputError(f"{what}: {file} holds a header but no rows.")
    return _TextTable(names, rows)


def _separator(line: str) -> str | None:
    return next((sign for sign in "\t;," if sign in line), None)


def _cells(line: str, separator: str | None) -> list[str]:
    if separator is None:
        return line.split()
    return next(csv.reader([line], delimiter=separator, skipinitialspace=True))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _known(name: str, known: list[str]) -> str:
    return did_you_mean(name, known) if known else ""


# --- HDF5 ------------------------------------------------------------------------------------


def _read_hdf5(file: Path, group: str, what: str) -> dict[str, NDArray[np.float64]]:
    columns: dict[str, NDArray[np.float64]] = {}
    with sound(f"{what}: {file}"), h5py.File(file, "r", locking=False) as opened:
        if group:
            place = opened.get(group)
            if not isinstance(place, h5py.Group):
                raise InputError(f"{what}: {file} has no group {group}.")
            # .get follows links (a bliss measurement is made of them); a dangling one is None.
            items = {name: place.get(name) for name in place}
        else:
            items = {}
            opened.visititems(items.__setitem__)
        for name, item in items.items():
            if isinstance(item, h5py.Dataset) and item.ndim == 1 and item.dtype.kind in "uif":
                columns[name] = np.asarray(whole(item), np.float64)
    return columns


def _read_dataset(file: Path, name: str, what: str) -> NDArray[np.float64]:
    with sound(f"{what}: {file}::{name}"), h5py.File(file, "r", locking=False) as opened:
        item = opened.get(name)
        if not isinstance(item, h5py.Dataset):
            parent = opened.get(name.rpartition("/")[0] or "/")
            known = list(parent) if isinstance(parent, h5py.Group) else list(opened)
            raise InputError(
                f"{what}: {file} has no dataset {name}." + _known(name.rpartition("/")[2], known)
            )
        if item.dtype.kind not in "uif":
            raise InputError(f"{what}: {file}::{name} is not numeric but {item.dtype}.")
        return np.asarray(whole(item), np.float64).ravel()
