"""GSAS-II image controls (``.imctrl``) as a pyFAI geometry.

GSAS-II (Toby & Von Dreele, J. Appl. Cryst. 46 (2013) 544) puts a pixel, dx to the right and dy down
of the beam centre, at the depth (along the beam, from the sample)

    z = D/cos(tilt) - sin(tilt)·(dx·sin(rotation) - dy·cos(rotation)) + depth·(1 - cos 2θ)

with depth = DetDepth·(D/cos(tilt))²/1000, all in mm, and 2θ in the last term without that term.
The first two terms are a flat tilted detector: Fit2D's convention with its tilt plane rotation 90°
ahead of GSAS-II's. The last term bends the detector; a PONI cannot say it, pixel positions can.
Images are not flipped: rows count down from the first row of the file.
"""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.bounds import check_image
from xrdpipe.errors import InputError

KNOWN = ("wavelength", "distance", "center", "tilt", "rotation")
"""What the file must state."""

UNSUPPORTED = {"det2theta": "a detector on a 2theta arm"}
"""Controls that move pixels and have no counterpart here: refused unless 0."""


@dataclass(frozen=True)
class ImageControls:
    """The geometry of an ``.imctrl`` file.

    Parameters
    ----------
    wavelength
        In Å.
    distance
        Along the detector normal, mm.
    center
        Where the beam hits the detector, (x, y), mm from the corner of the first pixel.
    tilt, rotation
        In degrees.
    depth
        ``DetDepth``, 1/m: see the module.
    pixel_size
        (x, y), µm; None where the file does not say.
    size
        (columns, rows); None where the file does not say.
    """

    wavelength: float
    distance: float
    center: tuple[float, float]
    tilt: float
    rotation: float
    depth: float = 0.0
    pixel_size: tuple[float, float] | None = None
    size: tuple[int, int] | None = None

    @property
    def beam_path(self) -> float:
        """Sample to detector along the beam, mm."""
        return self.distance / math.cos(math.radians(self.tilt))


def parse_imctrl(path: Path, text: str) -> ImageControls:
    """Read the geometry from the text of an ``.imctrl`` file.

    Raises
    ------
    InputError
        Naming what is absent or cannot be used.
    """
    given: dict[str, Any] = {}
    for line in text.splitlines():
        key, separator, value = line.partition(":")
        if separator:
            try:
                given[key.strip()] = ast.literal_eval(value.strip())
            except (ValueError, SyntaxError, MemoryError, RecursionError):  # nested too deeply
                given[key.strip()] = value.strip()
    absent = [key for key in KNOWN if key not in given]
    if absent:
        raise InputError(
            f"{path} holds no GSAS-II image controls: no line for {', '.join(absent)}; expected a "
            "file saved by 'Save controls' of an image."
        )
    for key, what in UNSUPPORTED.items():
        if given.get(key):
            raise InputError(
                f"{path} has {key} {given[key]}: {what} cannot be converted; give a PONI file."
            )

    def numbers(key: str, count: int) -> tuple[float, ...]:
        value = given.get(key, 0.0)
        values = value if isinstance(value, (list, tuple)) else (value,)
        try:
            found = tuple(float(number) for number in values)
        except (TypeError, ValueError, OverflowError):
            found = ()
        if len(found) != count or not np.isfinite(found).all():
            raise InputError(f"{path}: {key} is {given[key]!r}; expected {count} number(s).")
        return found

    def pair(key: str) -> tuple[float, float] | None:
        if not given.get(key):
            return None
        x, y = numbers(key, 2)
        return x, y

    center = numbers("center", 2)
    size = pair("size")
    controls = ImageControls(
        wavelength=numbers("wavelength", 1)[0],
        distance=numbers("distance", 1)[0],
        center=(center[0], center[1]),
        tilt=numbers("tilt", 1)[0],
        rotation=numbers("rotation", 1)[0],
        depth=numbers("DetDepth", 1)[0],
        pixel_size=pair("pixelSize"),
        size=None if size is None else (int(size[0]), int(size[1])),
    )
    if controls.size is not None:
        if min(controls.size) < 1:
            raise InputError(f"{path}: size is {given['size']}; expected numbers of pixels.")
        check_image(controls.size, f"{path}: size")
    if controls.distance <= 0 or abs(controls.tilt) >= 90:
        raise InputError(
            f"{path}: distance {controls.distance:g} mm and tilt {controls.tilt:g}° are no "
            "detector in front of the beam."
        )
    return controls


@dataclass(frozen=True)
class FlatGeometry:
    """pyFAI's six numbers: m and radian."""

    distance: float
    poni1: float
    poni2: float
    rot1: float
    rot2: float
    rot3: float = 0.0


def flat_geometry(controls: ImageControls) -> FlatGeometry:
    """The tilted flat detector, without the depth term.

    The beam's direction in pyFAI's detector axes (1 = rows, 2 = columns, 3 = normal) is the third
    row of pyFAI's rotation matrix: (sin rot2, -cos rot2·sin rot1, cos rot2·cos rot1).
    """
    tilt, rotation = math.radians(controls.tilt), math.radians(controls.rotation)
    along_rows = math.sin(tilt) * math.cos(rotation)
    along_columns = -math.sin(tilt) * math.sin(rotation)
    distance = controls.distance * 1e-3
    return FlatGeometry(
        distance=distance,
        poni1=controls.center[1] * 1e-3 - distance * along_rows / math.cos(tilt),
        poni2=controls.center[0] * 1e-3 - distance * along_columns / math.cos(tilt),
        rot1=math.atan2(-along_columns, math.cos(tilt)),
        rot2=math.asin(along_rows),
    )


def bend(
    corners: NDArray[np.float32], controls: ImageControls, rotation: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Move pixel corners along the beam by the depth term.

    Parameters
    ----------
    corners
        Shape (rows, columns, corners, 3), (z, y, x) on the detector, m, z = 0.
    rotation
        pyFAI's rotation matrix, shape (3, 3), from detector axes (1, 2, 3) to the laboratory.
    """
    flat = flat_geometry(controls)
    depth = controls.depth * controls.beam_path**2 / 1000 * 1e-3
    detector = np.stack(
        [
            corners[..., 1] - flat.poni1,
            corners[..., 2] - flat.poni2,
            corners[..., 0] + flat.distance,
        ]
    )
    along = np.tensordot(rotation[2], detector, 1)
    shift = depth * (1 - along / np.sqrt((detector**2).sum(axis=0)))
    # (z, y, x) is (3, 1, 2) of the detector axes.
    return np.asarray(corners + shift[..., None] * rotation[2][[2, 0, 1]], np.float32)
