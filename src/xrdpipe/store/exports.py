"""Files for other programs: .xye patterns, plain TIFF images, whole or not at all."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import EnvironmentProblemError, InputError, OutputExistsError

HEADER_LINES = 6
"""FullProf (``Ins = 10``) takes the first six lines of a file for comments, whatever they say."""

SEARCHED = 1 << 16
"""Bytes of a file in which the mark of its maker is looked for."""

_IMAGEJ_UNITS = {"um": "micron", "µm": "micron", "μm": "micron"}


def refuse_foreign(path: Path, beginning: bytes, mark: bytes = b"xrdpipe") -> None:
    """Refuse to replace a file unless it begins like the new one and holds the mark.

    Raises
    ------
    OutputExistsError
        If something else is there.
    """
    if not path.exists():
        return
    if path.is_file():
        with path.open("rb") as file:
            old = file.read(SEARCHED)
        if old.startswith(beginning) and mark in old:
            return
    raise OutputExistsError(
        f"{path} exists and was not made by this command, or from another map; remove it, or give "
        "another --output."
    )


def write_ours(path: Path, content: bytes, mark: bytes = b"xrdpipe") -> None:
    """Write a file whole, and replace only one of its kind that xrdpipe wrote, or the same.

    Parameters
    ----------
    mark
        Stands near the beginning of every such file.

    Raises
    ------
    OutputExistsError
        If something else is there.
    EnvironmentProblemError
        If the disk refuses.
    """
    try:
        if path.is_file() and path.read_bytes() == content:
            return
        refuse_foreign(path, content[:4], mark)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".writing")
        temporary.write_bytes(content)
        temporary.replace(path)
    except OutputExistsError:
        raise
    except OSError as error:
        raise EnvironmentProblemError(
            f"{path} cannot be written ({error.strerror}); free space or permissions, then run "
            "the same command."
        ) from error


def file_name(name: str, taken: Sequence[str] = ()) -> str:
    """The name of a phase as part of a file name; a number is added if it is ``taken``."""
    plain = re.sub(r"[^\w.+-]+", "", name) or "phase"
    same = sum(1 for other in taken if other == plain or other.startswith(f"{plain}~"))
    return f"{plain}~{same + 1}" if same else plain


def file_names(names: Sequence[str]) -> list[str]:
    """One for each name, all different."""
    found: list[str] = []
    for name in names:
        found.append(file_name(name, found))
    return found


# --- patterns --------------------------------------------------------------------------------


def xye_text(
    two_theta: NDArray[np.floating[Any]],
    intensity: NDArray[np.floating[Any]],
    errors: NDArray[np.floating[Any]] | None,
    header_lines: Sequence[str] = (),
) -> str:
    """Columns 2theta (degrees), intensity and its standard error, as Rietveld programs read them.

    Bins without data, or without an error above 0, are left out: programs weight by 1/error².
    The header is a compromise of what the readers accept. GSAS-II takes lines that begin with
    ``'``, ``#`` or ``!`` for comments, but one that holds a small q makes the axis a Q. FullProf
    drops six lines (its current reader: the first, and those that are no two numbers). ``'`` is the
    comment of TOPAS. So there are six lines with ``'``, plain ASCII and without a q, or none.

    Parameters
    ----------
    two_theta, intensity, errors
        Shape (bins,); without errors there are two columns.
    header_lines
        Up to six; fewer are filled up.

    Raises
    ------
    InputError
        If no bin is left.
    """
    good = np.isfinite(intensity) & np.isfinite(two_theta)
    if errors is not None:
        good &= np.isfinite(errors) & (errors > 0)
    if not good.any():
        raise InputError("the pattern has no bin with data; there is nothing to export.")
    if len(header_lines) > HEADER_LINES:
        raise ValueError(f"a header has up to {HEADER_LINES} lines")
    lines = []
    if header_lines:
        filled = [*header_lines, *[""] * (HEADER_LINES - len(header_lines))]
        lines = [f"' {_plain(line)}".rstrip() for line in filled]
    columns = [two_theta[good], intensity[good]]
    if errors is not None:
        columns.append(errors[good])
    for angle, *values in zip(*columns, strict=True):
        # Nine digits bring back every float32, the shortest decimal every angle.
        lines.append(" ".join([repr(float(angle)), *(f"{float(value):.9g}" for value in values)]))
    return "\n".join(lines) + "\n"


def write_xye(
    path: Path,
    two_theta: NDArray[np.floating[Any]],
    intensity: NDArray[np.floating[Any]],
    errors: NDArray[np.floating[Any]] | None,
    header_lines: Sequence[str] = (),
) -> None:
    """Write a pattern for Rietveld programs, see :func:`xye_text`."""
    text = xye_text(two_theta, intensity, errors, header_lines)
    write_ours(path, text.encode("ascii"))


def _plain(line: str) -> str:
    one_line = " ".join(line.replace("Å", "angstrom").split())
    return one_line.encode("ascii", "replace").decode().replace("q", "Q")


# --- images ----------------------------------------------------------------------------------


def tiff_bytes(image: NDArray[Any], pixel: tuple[float, float], unit: str) -> bytes:
    """A float32 TIFF of one image, row 0 at the top; ImageJ finds the size of a pixel in it.

    Parameters
    ----------
    image
        Shape (rows, columns).
    pixel
        Height and width of a pixel in ``unit``; NaN where unknown.
    """
    from PIL import Image
    from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

    tags = ImageFileDirectory_v2()
    description = ["ImageJ=1.53k", "images=1"]  # ImageJ reads the rest only after its own name
    if all(math.isfinite(size) and size > 0 for size in pixel) and unit:
        description.append(f"unit={_IMAGEJ_UNITS.get(unit, unit)}")
        for tag, size in ((283, pixel[0]), (282, pixel[1])):  # YResolution, XResolution
            tags[tag] = IFDRational(*_ratio(1 / size))
        tags[296] = 1  # ResolutionUnit: none of TIFF's own, the description says it
    tags[270] = "\n".join([*description, "software=xrdpipe", ""])
    tags[305] = "xrdpipe"
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image, np.float32)).save(stream, "TIFF", tiffinfo=tags)
    return stream.getvalue()


def _ratio(value: float) -> tuple[int, int]:
    """Numerator and denominator that fit 32 bits."""
    scale = 10 ** max(0, 6 - max(0, math.ceil(math.log10(value))))
    return max(round(value * scale), 1), scale
