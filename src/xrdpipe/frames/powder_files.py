"""1D patterns integrated elsewhere: text columns, Fit2D, FullProf, GSAS and PANalytical files."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import FrameError, InputError, InputMissingError
from xrdpipe.frames.hdf5 import HDF5_SUFFIXES
from xrdpipe.frames.source import matching, natural_sort
from xrdpipe.schema import FrameStatus

PATTERN_SUFFIXES = (".xy", ".xye", ".chi", ".dat", ".xrdml", ".fxye")
"""What is taken from a folder; files named one by one may end otherwise (.txt, .csv)."""

REFUSED = {
    ".raw": "a binary file of Bruker or Rigaku",
    ".brml": "a Bruker archive",
    ".uxd": "a Bruker UXD file",
    ".ras": "a Rigaku file",
    ".rasx": "a Rigaku archive",
    ".udf": "a Philips UDF file",
    ".rd": "a binary Philips file",
    ".sd": "a binary Philips file",
    ".gsa": "a GSAS file of another layout than FXYE",
    ".gss": "a GSAS file of another layout than FXYE",
    ".gda": "a GSAS file of another layout than FXYE",
    ".gr": "a pair distribution function, not a diffraction pattern",
    ".fq": "a reduced structure function, not a diffraction pattern",
    ".sq": "a structure function, not a diffraction pattern",
    ".cif": "a structure",
    ".poni": "a detector geometry",
    ".pdf": "a document",
}
"""Suffixes that are known and not read: refused by name, not by a number that fails to parse."""

_LENGTHS = {"angstrom": 1.0, "nm": 10.0}
"""Units of a wavelength in XRDML, in Å."""

MIN_POINTS = 10
"""A table with fewer lines is no pattern."""

MAX_BYTES = 100_000_000
"""A text larger than this is no single pattern."""

_FIT2D_HEADER = 4
"""Lines: title, labels of the axes, number of points."""

_COMMENTS = "#!;'\"/%"

JUMP = 5
"""A first point this many steps before the second is no point but numbers of a header."""

_FLOAT = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_NUMBER = re.compile(rf"(?:{_FLOAT}|[-+]?nan|[-+]?inf)", re.I)
_WAVELENGTH = re.compile(
    rf"(?:wave_?length|lambda)\b[\"']?\s*(?:[(\[]\s*(?P<before>[^)\]]+)[)\]])?(?:\s*\d+(?=\s*[:=]))?[\s:=,]*"
    rf"(?P<value>\d+,\d+(?![\d.])|{_FLOAT})\s*(?P<after>angstroms?|nm|Å|A\b|m\b)?",
    re.I,
)
_POLARIZATION = re.compile(rf"polari[sz]ation factor\s*[:=]\s*(none|{_FLOAT})", re.I)
_ANODE = re.compile(r"anode(?:\s*material)?\s*[\"']?\s*[:=]\s*[\"']?\s*([A-Z][a-z]?)\b", re.I)
_SIGMA = re.compile(r"\bI\b.*\b(?:sigma|esd)\b", re.I)

_UNITS = (
    ("q-nm", r"q_nm\^-1|\bq\b.*(?:nm\^?-1|nm⁻¹|1\s*/\s*nm|inverse nano)"),
    ("q", r"q_A\^-1|\bq\b.*(?:(?:\bA|Å|angstroms?)\^?-1|Å⁻¹|1\s*/\s*(?:A\b|Å|ang)|inverse ang)"),
    ("2theta-rad", r"2th_rad|(?:2\W?theta|2\W?θ|two.?theta).*\brad"),
    ("2theta", r"2th_deg|2\W?theta|2θ|two.?theta|\b2th\b"),
    ("d", r"\bd[ _-]?spacing|\bd\s*[(\[/]\s*(?:Å|A\b|angstrom)"),
    ("a radius", r"\br_m?m\b|radial distance"),
    ("an azimuth", r"chi_(?:deg|rad)|azimuth"),
    ("q squared", r"d\*2"),
    ("theta", r"^\W*(?:theta|θ)\b[^:=]*$"),
    ("q without a unit", r"\bq\b"),
    ("a time of flight", r"\btof\b|time.of.flight"),
)
"""How headers name the first column: tried in this order."""

_UNIT_LINES = 4
"""The unit stands in the last lines above the data (Fit2D: the third from the end)."""


@dataclass(frozen=True)
class PowderFile:
    """One 1D pattern, its axis ascending in one of two units.

    Parameters
    ----------
    axis
        Shape (points,), ascending.
    unit
        ``2theta`` (degrees) or ``q`` (1/angstrom).
    intensity
        Same shape; NaN where the file says so.
    sigma
        Same shape, standard errors, or None.
    wavelength
        In Å, as the file states it, or None.
    polarization
        What the file says of a polarization correction: its factor, ``none``, or empty.
    anode
        Element of the X-ray tube, or empty.
    counting_time
        Seconds per point, or None.
    remarks
        What a user should know, one phrase each, the same words for the same matter.
    """

    axis: NDArray[np.float64]
    unit: str
    intensity: NDArray[np.float64]
    sigma: NDArray[np.float64] | None = None
    wavelength: float | None = None
    polarization: str = ""
    anode: str = ""
    counting_time: float | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Table:
    """What a layout gives, before order, unit and values are checked."""

    axis: NDArray[np.float64]
    intensity: NDArray[np.float64]
    sigma: NDArray[np.float64] | None = None
    header: str = ""
    unit: str = ""
    wavelength: float | None = None
    anode: str = ""
    counting_time: float | None = None
    remarks: tuple[str, ...] = ()
    label: str = ""


# --- which files -----------------------------------------------------------------------------


def find_powder_files(names: Sequence[str]) -> tuple[list[Path], dict[str, int]]:
    """Files behind folders, globs and names, in natural order, each once.

    Returns
    -------
    files
        Patterns; one that is named or linked and gone keeps its place.
    ignored
        Suffix → how many other files lie in the folders.

    Raises
    ------
    InputMissingError, InputError
        If there is nothing, or a folder holds several kinds of patterns.
    """
    files: dict[Path, None] = {}
    ignored: dict[str, int] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            found = _in_folder(path, ignored)
        elif path.exists() or path.is_symlink():
            found = [path]
        elif any(sign in name for sign in "*?["):
            found = [file for file in matching(name) if not file.is_dir() and file.name[0] != "."]
            if not found:
                raise InputMissingError(f"no file matches {name}.")
        else:
            raise InputMissingError(f"{name} does not exist; expected a folder, a glob or a file.")
        for file in found:
            if file.suffix.lower() in HDF5_SUFFIXES:
                raise InputError(
                    f"{file} is an HDF5 file: 'collect' packs text patterns; a patterns file needs "
                    "no collecting, and frames are for 'integrate'."
                )
        files |= dict.fromkeys(found)
    return natural_sort(list(files)), ignored


def _in_folder(folder: Path, ignored: dict[str, int]) -> list[Path]:
    """The patterns of a folder, of one kind: .xy beside .chi would be each pattern twice."""
    kinds: dict[str, list[Path]] = {}
    for file in folder.iterdir():
        if file.is_dir() or file.name.startswith("."):
            continue
        suffix = file.suffix.lower()
        if suffix in PATTERN_SUFFIXES:
            kinds.setdefault(suffix, []).append(file)
        else:
            ignored[suffix] = ignored.get(suffix, 0) + 1
    if not kinds:
        there = ", ".join(f"{n} x {suffix or 'no suffix'}" for suffix, n in ignored.items())
        raise InputMissingError(
            f"folder {folder} holds no 1D pattern ({', '.join(PATTERN_SUFFIXES)}); "
            f"it holds {there or 'no file at all'} (detector frames are for 'integrate')."
        )
    if len(kinds) > 1:
        listing = ", ".join(f"{len(found)} x {suffix}" for suffix, found in kinds.items())
        raise InputError(
            f"folder {folder} holds several kinds of patterns ({listing}); give a glob that "
            f"selects one, for example '{folder}/*{max(kinds, key=lambda k: len(kinds[k]))}'."
        )
    return kinds.popitem()[1]


# --- one file --------------------------------------------------------------------------------


def read_powder_file(
    path: Path, unit: str = "auto", columns: tuple[str, ...] | None = None
) -> PowderFile:
    """Read one pattern.

    Parameters
    ----------
    unit
        Of the first column: ``2theta``, ``2theta-rad``, ``q``, ``q-nm`` or ``d``; ``auto`` from
        the header, else 2theta. Formats that define their axis (.xrdml, .fxye) are read as defined.
    columns
        Roles ``axis``, ``I``, ``sigma``, ``skip`` of the columns of a text file.

    Raises
    ------
    FrameError
        With a status and a reason that names the file, and the line where there is one.
    """
    suffix = path.suffix.lower()
    if suffix in REFUSED:
        raise FrameError(
            FrameStatus.UNREADABLE,
            f"{path} is {REFUSED[suffix]}, which is not read here; export it as .xy or .xye",
        )
    content = _read_text(path)
    if suffix == ".xrdml" or "<xrdMeasurements" in content[:2000]:
        table = _read_xrdml(path, content)
    elif suffix == ".fxye" or re.search(r"^BANK\s.*\bFXYE\s*$", content[:5000], re.M):
        table = _read_fxye(path, content)
    else:
        table = _read_columns(path, content, columns)
    return _finished(path, table, unit)


def _read_text(path: Path) -> str:
    if not path.exists():
        raise FrameError(FrameStatus.MISSING, f"{path} does not exist")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FrameError(
                FrameStatus.UNREADABLE,
                f"{path} has {path.stat().st_size / 1e6:.0f} MB, too much for one pattern",
            )
        content = path.read_bytes()
    except OSError as error:
        if isinstance(error, FrameError):
            raise
        raise FrameError(FrameStatus.UNREADABLE, f"{path} cannot be opened: {error}") from error
    if not content.strip():
        raise FrameError(FrameStatus.CORRUPT, f"{path} is empty")
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", errors="replace")
    if b"\0" in content:
        raise FrameError(FrameStatus.UNREADABLE, f"{path} is a binary file, no text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _finished(path: Path, table: _Table, asked: str) -> PowderFile:
    """Axis in one of two units and ascending, values checked."""
    stated = table.unit or _stated_unit(table.header)
    remarks = list(table.remarks)
    if asked == "auto" or table.unit:
        unit = stated or "2theta"
        if asked not in ("auto", unit):
            remarks.append(f"the format says {unit}: --unit {asked} has no effect")
        if not stated and "poni" in table.header:
            # pyFAI 2026.9 writes its format string instead of the unit above three columns.
            raise FrameError(
                FrameStatus.UNREADABLE,
                f"{path} was written by pyFAI, and its header does not say whether the axis is "
                "2theta or q; give --unit",
            )
        if not stated and table.label:
            raise FrameError(
                FrameStatus.UNREADABLE,
                f"{path}: its axis is labelled '{table.label}', which is neither 2theta, q nor d; "
                "give --unit",
            )
        if not stated:
            remarks.append("no unit in the header: the axis is taken as 2theta in degrees")
    else:
        unit = asked
        if stated and stated != asked:
            remarks.append(f"the header says {stated}, taken as {asked} (--unit)")
    intensity = table.intensity
    sigma = table.sigma
    if sigma is not None:
        if "poni" in table.header:
            # A bin without any pixel is 0 ± 0 in pyFAI's text files.
            intensity = np.where((intensity == 0) & (sigma == 0), np.nan, intensity)
        sigma = np.where(np.isfinite(intensity) & (sigma > 0), sigma, np.nan)
    axis = _converted(path, table.axis, unit)
    _check_first_point(path, table.axis, axis)
    order = _ascending(path, axis, remarks)
    axis, intensity = axis[order], intensity[order]
    _check_values(path, axis, intensity, unit)
    if (intensity < 0).any():
        remarks.append("negative intensities are kept (a background was subtracted?)")
    match = _POLARIZATION.search(table.header)
    anode = _ANODE.search(table.header)
    return PowderFile(
        axis=axis,
        unit="2theta" if unit.startswith("2theta") else "q",
        intensity=intensity,
        sigma=None if sigma is None else sigma[order],
        wavelength=table.wavelength or _stated_wavelength(table.header),
        polarization=match.group(1).lower() if match else "",
        anode=table.anode or (anode.group(1) if anode else ""),
        counting_time=table.counting_time,
        remarks=tuple(remarks),
    )


def _converted(path: Path, axis: NDArray[np.float64], unit: str) -> NDArray[np.float64]:
    """Degrees or 1/angstrom from the unit of the file."""
    if unit not in ("2theta", "2theta-rad", "q", "q-nm", "d"):
        raise FrameError(
            FrameStatus.UNREADABLE,
            f"the axis of {path} is {unit} by its header; expected 2theta, q or d (--unit)",
        )
    if not np.isfinite(axis).all():
        place = int(np.flatnonzero(~np.isfinite(axis))[0])
        raise FrameError(
            FrameStatus.CORRUPT, f"{path}: the axis of point {place + 1} is {axis[place]}"
        )
    if axis.min() < 0 or (unit == "d" and axis.min() == 0):
        raise FrameError(
            FrameStatus.CORRUPT, f"{path}: the axis begins at {axis.min():g}; expected above zero"
        )
    if unit == "2theta-rad":
        return np.asarray(np.degrees(axis), np.float64)
    if unit == "q-nm":
        return axis / 10
    return np.asarray(2 * np.pi / axis if unit == "d" else axis, np.float64)


def _check_first_point(path: Path, stored: NDArray[np.float64], axis: NDArray[np.float64]) -> None:
    """Two numbers of a header, without a comment sign, would be a point far from the others."""
    steps = np.abs(np.diff(axis[:5]))
    if steps.size > 1 and steps[0] > JUMP * steps[1:].max():
        raise FrameError(
            FrameStatus.CORRUPT,
            f"{path}: the first point, at {stored[0]:g}, lies far from the next, at "
            f"{stored[1]:g}, for steps like those that follow; if it is no point but a header, "
            "begin that line with #",
        )


def _ascending(path: Path, axis: NDArray[np.float64], remarks: list[str]) -> NDArray[np.intp]:
    """Order of ascending axis: as it is, reversed, or sorted where that is beyond doubt."""
    steps = np.diff(axis)
    if (steps > 0).all():
        return np.arange(axis.size)
    if (steps < 0).all():
        return np.arange(axis.size)[::-1]
    order = np.argsort(axis, kind="stable")
    steps = np.diff(axis[order])
    if (steps == 0).any():
        twice = axis[order][int(np.flatnonzero(steps == 0)[0])]
        raise FrameError(
            FrameStatus.CORRUPT,
            f"{path}: the axis value {twice:g} occurs twice; two scans in one file, or digits cut?",
        )
    if steps.min() < 0.5 * np.median(steps):
        raise FrameError(
            FrameStatus.CORRUPT, f"{path}: its axis goes back and forth: two scans in one file?"
        )
    remarks.append("points were out of order: sorted")
    return order


def _check_values(
    path: Path, axis: NDArray[np.float64], intensity: NDArray[np.float64], unit: str
) -> None:
    if axis.size < MIN_POINTS:
        raise FrameError(
            FrameStatus.CORRUPT, f"{path} has {axis.size} points, too few for a pattern"
        )
    if unit.startswith("2theta") and axis[-1] > 180:
        raise FrameError(
            FrameStatus.UNREADABLE,
            f"{path}: the axis goes to {axis[-1]:g}, so it is no 2theta in degrees; give --unit",
        )
    if np.isinf(intensity).any():
        raise FrameError(FrameStatus.CORRUPT, f"{path}: an intensity is infinite")
    if not np.nan_to_num(intensity).any():
        raise FrameError(FrameStatus.EMPTY, f"{path}: every intensity is zero or absent")


# --- what headers say ------------------------------------------------------------------------


def _stated_unit(header: str) -> str:
    """Unit of the first column by the last line of the header that names one, or empty."""
    for line in reversed(header.splitlines()[-_UNIT_LINES:]):
        for unit, sign in _UNITS:
            if re.search(sign, line, re.I):
                return unit
    return ""


def _stated_wavelength(header: str) -> float | None:
    """In Å; numbers that can be no X-ray wavelength are passed over."""
    for match in _WAVELENGTH.finditer(header):
        value = float(match.group("value").replace(",", "."))
        unit = (match.group("after") or match.group("before") or "").strip().lower()
        if unit in ("m", "meter", "metre") or value < 1e-6:
            value *= 1e10
        elif unit.startswith(("nm", "nano")):
            value *= 10
        if 0.01 <= value <= 10:
            return float(f"{value:.12g}")
    return None


# --- columns of text, Fit2D, FullProf ----------------------------------------------------------


def _read_columns(path: Path, content: str, columns: tuple[str, ...] | None) -> _Table:
    lines = content.splitlines()
    first = next((n for n, line in enumerate(lines) if _is_row(line)), None)
    if first is None:
        raise FrameError(
            FrameStatus.UNREADABLE, f"{path} is no pattern: no line holds two numbers or more"
        )
    is_fit2d = path.suffix.lower() == ".chi" and not content.lstrip().startswith("#")
    if is_fit2d:
        first = max(first, _FIT2D_HEADER)
    header = "\n".join(lines[:first])
    rows = _separated(path, _data_lines(lines[first:]))
    if path.suffix.lower() == ".dat":
        table = _fullprof(path, rows, header)
        if table is not None:
            return table
    values = _numeric(path, rows, lines, first)
    label = ""
    if is_fit2d:
        _check_fit2d(path, lines[:first], len(values))
        label = lines[1].strip()
    roles, remarks = _roles(path, columns, values.shape[1], header)
    sigma = values[:, roles["sigma"]] if "sigma" in roles else None
    axis, intensity = values[:, roles["axis"]], values[:, roles["I"]]
    return _Table(axis, intensity, sigma, header, remarks=remarks, label=label)


def _is_data(line: str) -> bool:
    text = line.lstrip()
    return bool(text) and text[0] not in _COMMENTS


def _data_lines(lines: list[str]) -> list[str]:
    """Without comments and empty lines."""
    return [line.strip() for line in lines if _is_data(line)]


def _is_row(line: str) -> bool:
    """True for a line of two numbers or more, whatever separates them."""
    if not _is_data(line):
        return False
    tokens = re.sub(r"[,;]", " ", line).split()
    return len(tokens) >= 2 and all(_NUMBER.fullmatch(token) for token in tokens)


def _separated(path: Path, lines: list[str]) -> list[str]:
    """Lines with blanks between columns and points in numbers: one decision for the file."""
    text = "\n".join(lines)
    if "," in text:
        spaced = re.search(r",\s|\s,", text) is not None
        other = all(re.search(r"[\s;]", line) for line in lines)
        if "." in text and other and not spaced:
            raise FrameError(
                FrameStatus.UNREADABLE,
                f"{path} holds points, commas and other separators: it is not clear which is the "
                "decimal mark",
            )
        decimal = other and not spaced and "." not in text
        text = text.replace(",", "." if decimal else " ")
    return text.replace(";", " ").split("\n")


def _numeric(path: Path, data: list[str], lines: list[str], first: int) -> NDArray[np.float64]:
    """Shape (rows, columns) from the data lines of ``lines[first:]``; names a line that is odd."""
    try:
        return np.loadtxt(data, np.float64, comments=None, ndmin=2)
    except ValueError:
        pass
    numbers = [number for number, line in enumerate(lines[first:], first + 1) if _is_data(line)]
    rows = [line.split() for line in data]
    for row, number in zip(rows, numbers, strict=True):
        if not all(map(_NUMBER.fullmatch, row)):
            raise FrameError(
                FrameStatus.CORRUPT, f"{path} line {number} is no row of numbers: '{row[0]} …'"
            )
        if len(row) != len(rows[0]):
            raise FrameError(
                FrameStatus.CORRUPT,
                f"{path} line {number} has {len(row)} columns, the first has {len(rows[0])}"
                + (": cut short?" if number == numbers[-1] else ""),
            )
    raise FrameError(FrameStatus.CORRUPT, f"{path} is no table of numbers")


def _roles(
    path: Path, columns: tuple[str, ...] | None, width: int, header: str
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Role → place of the column, and what to say of those left out (decision 25)."""
    if columns is not None:
        if len(columns) > width:
            raise FrameError(
                FrameStatus.CORRUPT,
                f"{path} has {width} columns, --columns names {len(columns)}",
            )
        return {role: place for place, role in enumerate(columns) if role != "skip"}, ()
    roles = {"axis": 0, "I": 1}
    names = header.splitlines()[-1:]
    if width > 2 and (path.suffix.lower() == ".xye" or (names and _SIGMA.search(names[0]))):
        roles["sigma"] = 2
    left = width - len(roles)
    if left and "sigma" not in roles:
        return roles, ("a third column is left out ('--columns axis,I,sigma' if it is the error)",)
    return roles, ("columns after the third are left out",) if left else ()


def _check_fit2d(path: Path, header: list[str], n_points: int) -> None:
    """The number of points tells of a cut file."""
    counts = re.findall(r"\d+", header[_FIT2D_HEADER - 1])
    if counts and int(counts[0]) != n_points:
        raise FrameError(
            FrameStatus.CORRUPT, f"{path} announces {counts[0]} points and holds {n_points}"
        )


def _fullprof(path: Path, lines: list[str], header: str) -> _Table | None:
    """FullProf's free format: ``start step end``, then intensities, several to a line."""
    rows = [line.split() for line in lines]
    if len(rows) < 2 or len(rows[0]) != 3 or {len(row) for row in rows} == {3}:
        return None
    try:
        start, step, end = (float(token) for token in rows[0])
        intensity = np.array(list(itertools.chain(*rows[1:])), np.float64)
    except ValueError:
        return None
    if not (start < end and 0 < step < end - start):
        return None
    expected = round((end - start) / step) + 1
    if intensity.size != expected:
        raise FrameError(
            FrameStatus.CORRUPT,
            f"{path} begins like a FullProf file ({start:g} to {end:g}, step {step:g}: {expected} "
            f"points) and holds {intensity.size} intensities",
        )
    axis = np.linspace(start, start + step * (expected - 1), expected)
    return _Table(axis, intensity, None, header, "2theta")


# --- GSAS ------------------------------------------------------------------------------------


def _read_fxye(path: Path, content: str) -> _Table:
    """GSAS raw data with the FXYE layout: a BANK line, then centidegrees, intensity, error."""
    lines = content.splitlines()
    banks = [n for n, line in enumerate(lines) if line.startswith("BANK")]
    if len(banks) != 1:
        raise FrameError(
            FrameStatus.UNREADABLE,
            f"{path} holds {len(banks)} BANK lines; expected a GSAS file with one bank",
        )
    words = lines[banks[0]].split()
    layout, binning = words[-1].upper(), words[4].upper() if len(words) > 4 else ""
    if layout != "FXYE" or binning not in ("CONS", "CONST"):
        raise FrameError(
            FrameStatus.UNREADABLE,
            f"{path} is a GSAS file of type {binning or '?'} {layout}; expected CONST FXYE (X-rays "
            "at one wavelength)",
        )
    first = banks[0] + 1
    rows = _data_lines(lines[first:])
    if not rows:
        raise FrameError(FrameStatus.CORRUPT, f"{path} holds no data after its BANK line")
    values = _numeric(path, rows, lines, first)
    if values.shape[1] != 3:
        raise FrameError(
            FrameStatus.CORRUPT, f"{path} has {values.shape[1]} columns; FXYE has three"
        )
    if words[2].isdigit() and int(words[2]) != len(values):
        raise FrameError(
            FrameStatus.CORRUPT, f"{path} announces {words[2]} points and holds {len(values)}"
        )
    header = "\n".join(lines[: banks[0]])
    return _Table(values[:, 0] / 100, values[:, 1], values[:, 2], header, "2theta")


# --- PANalytical -----------------------------------------------------------------------------


def _read_xrdml(path: Path, content: str) -> _Table:
    """XRDML 1.x and 2.x: one scan over 2theta.

    ``intensities`` are corrected for the beam attenuator already, ``counts`` are not.
    """
    if "<!DOCTYPE" in content:
        raise FrameError(FrameStatus.UNREADABLE, f"{path} defines its own XML entities")
    try:
        # The declared encoding is that of the bytes, which are decoded by now.
        root = ElementTree.fromstring(re.sub(r"^\s*<\?xml.*?\?>", "", content, flags=re.S))
    except ElementTree.ParseError as error:
        raise FrameError(FrameStatus.CORRUPT, f"{path} is no complete XML: {error}") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]  # the namespace names the schema's version
    scans = list(root.iter("scan"))
    points = [scan.find("dataPoints") for scan in scans]
    if len(scans) != 1 or points[0] is None:
        raise FrameError(
            FrameStatus.UNREADABLE, f"{path} holds {len(scans)} scans with data; expected one"
        )
    data = points[0]
    status = scans[0].get("status", "Completed")
    if status != "Completed":
        raise FrameError(FrameStatus.CORRUPT, f"{path}: the status of its scan is '{status}'")
    values = _xml_numbers(path, data, "intensities")
    if values is None:
        values = _xml_numbers(path, data, "counts")
        if values is None:
            raise FrameError(FrameStatus.CORRUPT, f"{path} holds neither intensities nor counts")
        if any("ivergenceCorrection" in child.tag for child in data):
            raise FrameError(
                FrameStatus.UNREADABLE,
                f"{path} holds raw counts to be corrected for the divergence slit, which is not "
                "done here; export it as .xy",
            )
        for name in ("beamAttenuationFactors", "commonBeamAttenuationFactor"):
            factors = _xml_numbers(path, data, name)
            if factors is not None:
                values = values * _one_or_each(path, name, factors, values.size)
    remarks: tuple[str, ...] = ()
    times = _xml_numbers(path, data, "commonCountingTime")
    if times is None:
        times = _xml_numbers(path, data, "countingTimes")
        if times is not None and np.ptp(times) > 0:
            times = _one_or_each(path, "countingTimes", times, values.size)
            values = values * times.mean() / times
            remarks = ("counting times differ from point to point: brought to their mean",)
    wavelength, anode = _xml_wavelength(path, root)
    return _Table(
        axis=_xml_axis(path, data, values.size),
        intensity=values,
        unit="2theta",
        wavelength=wavelength,
        anode=anode,
        counting_time=None if times is None else float(times.mean()),
        remarks=remarks,
    )


def _xml_numbers(path: Path, parent: ElementTree.Element, name: str) -> NDArray[np.float64] | None:
    child = parent.find(name)
    if child is None:
        return None
    try:
        return np.array((child.text or "").split(), np.float64)
    except ValueError as error:
        raise FrameError(FrameStatus.CORRUPT, f"{path}: <{name}> is not numeric") from error


def _one_or_each(
    path: Path, name: str, values: NDArray[np.float64], n_points: int
) -> NDArray[np.float64]:
    if values.size not in (1, n_points):
        raise FrameError(
            FrameStatus.CORRUPT, f"{path} holds {values.size} {name} for {n_points} points"
        )
    return values


def _xml_axis(path: Path, data: ElementTree.Element, n_points: int) -> NDArray[np.float64]:
    for positions in data.iter("positions"):
        if positions.get("axis") != "2Theta":
            continue
        if positions.get("unit", "deg") != "deg":
            raise FrameError(
                FrameStatus.UNREADABLE, f"{path}: 2theta is in {positions.get('unit')}, not degrees"
            )
        start = _xml_numbers(path, positions, "startPosition")
        end = _xml_numbers(path, positions, "endPosition")
        listed = _xml_numbers(path, positions, "listPositions")
        if start is not None and end is not None and start.size == end.size == 1:
            return np.linspace(start[0], end[0], n_points)
        if listed is not None:
            if listed.size != n_points:
                raise FrameError(
                    FrameStatus.CORRUPT, f"{path} holds {listed.size} positions, {n_points} points"
                )
            return listed
    raise FrameError(FrameStatus.UNREADABLE, f"{path} is no scan over 2theta")


def _xml_wavelength(path: Path, root: ElementTree.Element) -> tuple[float | None, str]:
    """Wavelength the instrument was meant to use, Å, and the anode.

    ``K-Alpha`` is both lines: their mean, weighted by intensity. ``K-Alpha 1`` is what most
    instruments write even where the second line is there.
    """
    anode = next((a.text or "" for a in root.iter("anodeMaterial")), "")
    used = next(root.iter("usedWavelength"), None)
    if used is None:
        return None, anode

    intended = used.get("intended", "K-Alpha 1").replace(" ", "").lower()
    first, second, beta = (
        _xml_length(path, used.find(name)) for name in ("kAlpha1", "kAlpha2", "kBeta")
    )
    if intended == "k-beta":
        return beta, anode
    if intended == "k-alpha" and first and second:
        stated = used.findtext("ratioKAlpha2KAlpha1") or ""
        ratio = float(stated) if _NUMBER.fullmatch(stated.strip()) else 0.0
        return (first + ratio * second) / (1 + ratio), anode
    return first, anode


def _xml_length(path: Path, element: ElementTree.Element | None) -> float | None:
    """A wavelength in Å; None where none is stated."""
    stated = "" if element is None else (element.text or "").strip()
    if element is None or not _NUMBER.fullmatch(stated):
        return None
    unit = element.get("unit", "Angstrom")
    if unit.lower() not in _LENGTHS:
        raise FrameError(
            FrameStatus.UNREADABLE,
            f"{path}: its wavelength is in '{unit}'; expected {' or '.join(_LENGTHS)}",
        )
    return float(stated) * _LENGTHS[unit.lower()]
