"""Geometry from a PONI or GSAS-II file as plain arrays; pyFAI computes every one of them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.bounds import check_image, check_text, sound
from xrdpipe.errors import InputError, InputMissingError, OptionError, did_you_mean
from xrdpipe.integration.cache import NO_CACHE, ArrayCache, Arrays, Once, digest
from xrdpipe.integration.imctrl import bend, flat_geometry, parse_imctrl
from xrdpipe.quiet import quiet
from xrdpipe.types import BoolArray

BIN_STEP = 0.01
"""Default bin width, degrees: bin centres are its multiples (decision 8)."""

WAVELENGTHS = (0.01, 10.0)
"""Å; beyond, a number was given in another unit."""

KEV_ANGSTROM = 12.39842
"""Photon energy times wavelength."""

_SIX_NUMBERS = ("Distance", "Poni1", "Poni2", "Rot1", "Rot2", "Rot3")
"""Without one of these pyFAI takes zero, or fails."""


@dataclass(frozen=True)
class Geometry:
    """Where each pixel looks, as arrays of shape (rows, columns).

    What pyFAI is asked for is computed when it is first used: a run whose matrix is in the cache
    never imports pyFAI.

    Parameters
    ----------
    shape
        Rows and columns of an oriented frame.
    wavelength
        In Å; NaN if neither file nor option gives one, where none is needed.
    wavelength_in_file
        What the file says, Å; None where it is silent.
    distance
        Sample to PONI, m.
    pixel_size
        (rows direction, columns direction), m.
    orientation
        pyFAI's number (EXIF) of the corner where the first pixel lies, 1-4.
    two_theta_range
        Smallest and largest 2θ over all pixel corners, degrees.
    solid_angle
        Of a pixel relative to one at the PONI, dimensionless (pyFAI's cos³).
    gap_mask
        True where the detector class has no pixel.
    detector_name
        pyFAI's name of the detector, or ``"Detector"`` if the PONI names none.
    file_format
        ``PONI 2.1``, ``GSAS-II imctrl`` …
    notes
        What the reader of the file should know.
    poni_text
        The calibration as read, or converted to a PONI.
    poni_name, poni_sha256
        Name and hash of the file.
    key
        Hash of everything that the arrays depend on.
    calibration
        Reads the file with pyFAI.
    """

    shape: tuple[int, int]
    wavelength: float
    wavelength_in_file: float | None
    distance: float
    pixel_size: tuple[float, float]
    orientation: int
    two_theta_range: tuple[float, float]
    solid_angle: NDArray[np.float32]
    gap_mask: BoolArray
    detector_name: str
    file_format: str
    notes: tuple[str, ...]
    poni_text: str
    poni_name: str
    poni_sha256: str
    key: str
    calibration: Once[_Calibration]

    @property
    def integrator(self) -> Any:
        """The AzimuthalIntegrator of pyFAI; only ``integration`` touches it."""
        return self.calibration().integrator

    @cached_property
    def two_theta(self) -> NDArray[np.float64]:
        """2θ of the pixel centres, degrees."""
        with quiet():
            centre = self.integrator.array_from_unit(self.shape, "center", "2th_deg")
        return np.asarray(centre, np.float64)

    @cached_property
    def chi(self) -> NDArray[np.float64]:
        """Azimuth of the pixel centres, degrees."""
        with quiet():
            return np.asarray(np.degrees(self.integrator.chiArray(self.shape)), np.float64)

    @property
    def reference_solid_angle(self) -> float:
        """Solid angle of a pixel at the PONI, steradian."""
        return self.pixel_size[0] * self.pixel_size[1] / self.distance**2

    def polarization(self, factor: float | None) -> NDArray[np.float32]:
        """Polarization of each pixel for a factor; ones for None (pyFAI's convention)."""
        if factor is None:
            return np.ones(self.shape, np.float32)
        return np.asarray(self.integrator.polarization(self.shape, factor), np.float32)


def load_geometry(
    path: Path | str,
    shape: tuple[int, int] | None = None,
    wavelength: float | None = None,
    stated: float | None = None,
    needs_wavelength: bool = True,
    cache: ArrayCache = NO_CACHE,
) -> Geometry:
    """Read a geometry file and compute its arrays.

    Parameters
    ----------
    path
        PONI file (versions 1, 2, 2.1, 3 as pyFAI reads them) or GSAS-II ``.imctrl``.
    shape
        Rows and columns of the oriented frames; needed where the file names no detector.
    wavelength
        In Å; replaces the one in the file.
    stated
        What the frames say, Å: quoted where nothing else is given, never used.
    needs_wavelength
        False where only angles are asked for.
    cache
        Where the arrays are looked up.

    Raises
    ------
    InputMissingError
        If the file does not exist.
    InputError
        If it is no geometry, has no wavelength, or describes a detector of another shape.
    OptionError
        If ``wavelength`` is none of X-rays.
    """
    if wavelength is not None:
        check_wavelength(wavelength)
    path = Path(path)
    text = _text(path)

    def calibrate() -> _Calibration:
        if _text(path) != text:
            raise InputError(f"{path} was changed while it was in use; run the command again.")
        return _calibrate(path, text, shape, wavelength, stated, needs_wavelength)

    calibration = Once(calibrate)
    key = digest(path.name, text, _files_named(text), shape, wavelength, needs_wavelength)
    found = cache.get("geometry", (key,), lambda: _arrays(calibration()))
    about = json.loads(found["about"].tobytes())
    for name in ("shape", "pixel_size", "two_theta_range", "notes"):
        about[name] = tuple(about[name])
    return Geometry(
        **about,
        solid_angle=found["solid_angle"],
        # A copy: one of the two checksums that pyFAI chooses between refuses read-only memory.
        gap_mask=found["gap_mask"].copy(),
        poni_name=path.name,
        poni_sha256=hashlib.sha256(text.encode()).hexdigest(),
        key=key,
        calibration=calibration,
    )


def _files_named(text: str) -> tuple[str, ...]:
    """Hashes of the files that a geometry refers to: detectors, distortions."""
    named = [line.partition(":")[2].strip() for line in text.splitlines()]
    named += re.findall(r'"([^"\n]+)"', text)
    named = [name for name in named if len(name) < 4096 and "\0" not in name]
    files = sorted(name for name in {*named} if os.path.isfile(name))  # noqa: PTH113 - any text
    return tuple(hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in files)


def _calibrate(
    path: Path,
    text: str,
    shape: tuple[int, int] | None,
    wavelength: float | None,
    stated: float | None,
    needs_wavelength: bool,
) -> _Calibration:
    """Read and check a geometry file; the arguments are those of :func:`load_geometry`."""
    read = _read_imctrl if path.suffix.lower() == ".imctrl" else _read_poni
    with sound(str(path)):
        calibration = read(path, text, shape)
    integrator = calibration.integrator
    in_file = _plausible_wavelength(path, integrator.wavelength)
    if wavelength is not None:
        integrator.wavelength = wavelength * 1e-10
    elif in_file is None and needs_wavelength:
        accept = "" if stated is None else f" (the frames state {stated:.6g} Å, if that is right)"
        raise InputError(
            f"{path} has no wavelength; add a line 'Wavelength: <metres>' to it, or give "
            f"--wavelength in Å{accept}."
        )
    detector = integrator.detector
    if not (detector.pixel1 and detector.pixel2):
        raise InputError(f"{path} names neither a detector nor its pixel size.")
    detector.shape = _common_shape(path, detector, shape)
    return replace(calibration, wavelength_in_file=in_file)


def _arrays(calibration: _Calibration) -> Arrays:
    """What the cache keeps of a geometry: its large arrays, the rest as JSON."""
    integrator = calibration.integrator
    detector = integrator.detector
    shape = detector.shape
    with quiet():
        gaps = detector.mask
        corners = np.degrees(integrator.array_from_unit(shape, "corner", "2th_rad")[..., 0])
        solid_angle = integrator.solidAngleArray(shape)
    about = {
        "shape": [int(n) for n in shape],
        "wavelength": float(integrator.wavelength or np.nan) * 1e10,
        "wavelength_in_file": calibration.wavelength_in_file,
        "distance": float(integrator.dist),
        "pixel_size": [float(detector.pixel1), float(detector.pixel2)],
        "orientation": int(detector.orientation),
        "two_theta_range": [float(corners.min()), float(corners.max())],
        "detector_name": str(detector.name),
        "file_format": calibration.file_format,
        "notes": calibration.notes,
        "poni_text": calibration.poni_text,
    }
    return {
        "solid_angle": np.asarray(solid_angle, np.float32),
        "gap_mask": np.zeros(shape, bool) if gaps is None else np.asarray(gaps).astype(bool),
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
    }


@dataclass(frozen=True)
class _Calibration:
    """What a geometry file says: pyFAI's integrator, and the same as PONI text."""

    integrator: Any
    file_format: str
    poni_text: str
    notes: tuple[str, ...] = ()
    wavelength_in_file: float | None = None


def _text(path: Path) -> str:
    if not path.exists():
        raise InputMissingError(f"PONI file {path} does not exist; check --poni.")
    check_text(path.stat().st_size, str(path))
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a PONI file: {error}") from error


def _read_poni(path: Path, text: str, _shape: tuple[int, int] | None) -> _Calibration:
    lines = [line.split(":", 1) for line in text.splitlines() if ":" in line]
    given = {key.strip().lower(): value.strip() for key, value in lines}
    absent = [key for key in _SIX_NUMBERS if key.lower() not in given]
    if absent:
        what = "is not a PONI file" if len(absent) > 3 else "is a damaged PONI file"
        raise InputError(
            f"{path} {what}: it has no line for {', '.join(absent)}; expected a "
            "calibration saved by pyFAI or Dioptas, or a GSAS-II .imctrl file."
        )
    for key in _SIX_NUMBERS:
        _check_number(path, key, given[key.lower()])
    with quiet():
        import pyFAI
        from pyFAI.io.ponifile import PoniFile

        newest = PoniFile.API_VERSION
        try:
            if float(given.get("poni_version", 1)) > newest:
                raise InputError(
                    f"{path} is a PONI file of version {given['poni_version']}, pyFAI "
                    f"{pyFAI.version} reads up to {newest}; update pyFAI, or save the calibration "
                    "again with an older one."
                )
            version = PoniFile(str(path)).API_VERSION
            integrator = pyFAI.load(str(path))
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{path} cannot be read as a PONI file: {error}") from error
    return _Calibration(integrator, f"PONI {version:g}", text)


def _check_number(path: Path, key: str, text: str) -> None:
    """One of the six numbers: finite, and a distance above zero."""
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value) or (key == "Distance" and value <= 0):
        expected = "a distance in metres above 0" if key == "Distance" else "a number"
        raise InputError(f"{path}: its line '{key}: {text}' is damaged; expected {expected}.")


def _read_imctrl(path: Path, text: str, shape: tuple[int, int] | None) -> _Calibration:
    controls = parse_imctrl(path, text)
    of_frames = shape
    if controls.size is not None:
        shape = (controls.size[1], controls.size[0])
    if shape is None:
        raise InputError(f"{path} has no image size; give frames so that the shape is known.")
    notes = []
    pixel_size = controls.pixel_size
    if pixel_size is None:
        pixel_size, why = _pixel_size_by_shape(path, shape)
        notes.append(f"{path.name} states no pixel size: {why}")
    flat = flat_geometry(controls)
    with quiet():
        from pyFAI.detectors import Detector
        from pyFAI.integrator.azimuthal import AzimuthalIntegrator

        detector = Detector(
            pixel1=round(pixel_size[1] * 1e-6, 12),
            pixel2=round(pixel_size[0] * 1e-6, 12),
            max_shape=shape,
            orientation=3,
        )
        _common_shape(path, detector, of_frames)  # before corners are computed for a wrong size
        integrator = AzimuthalIntegrator(
            flat.distance,
            flat.poni1,
            flat.poni2,
            flat.rot1,
            flat.rot2,
            flat.rot3,
            detector=detector,
            wavelength=controls.wavelength * 1e-10,
        )
        if controls.depth:
            edge = float(integrator.array_from_unit(shape, "corner", "2th_deg")[..., 0].max())
            corners = bend(detector.get_pixel_corners(), controls, integrator.rotation_matrix())
            detector.set_pixel_corners(corners)
            integrator.reset()
            bent = float(integrator.array_from_unit(shape, "corner", "2th_deg")[..., 0].max())
            notes.append(
                f"{path.name}: DetDepth {controls.depth:g} changes 2theta from {edge:.4f} to "
                f"{bent:.4f} degrees at the edge; it is applied to the pixel positions, a PONI "
                "cannot hold it"
            )
    config = {
        "pixel1": detector.pixel1,
        "pixel2": detector.pixel2,
        "max_shape": list(shape),
        "orientation": 3,
    }
    lines = [
        f"# Converted from the GSAS-II image controls {path.name}: {controls}",
        *(f"# {note}" for note in notes),
        "poni_version: 2.1",
        "Detector: Detector",
        f"Detector_config: {json.dumps(config)}",
        f"Distance: {flat.distance!r}",
        f"Poni1: {flat.poni1!r}",
        f"Poni2: {flat.poni2!r}",
        f"Rot1: {flat.rot1!r}",
        f"Rot2: {flat.rot2!r}",
        f"Rot3: {flat.rot3!r}",
        f"Wavelength: {controls.wavelength * 1e-10!r}",
    ]
    return _Calibration(integrator, "GSAS-II imctrl", "\n".join(lines) + "\n", tuple(notes))


def _pixel_size_by_shape(path: Path, shape: tuple[int, int]) -> tuple[tuple[float, float], str]:
    """(x, y) in µm if every detector of that shape known to pyFAI agrees, and the reason."""
    with quiet():
        from pyFAI.detectors import ALL_DETECTORS

        same = {
            kind for kind in ALL_DETECTORS.values() if getattr(kind, "MAX_SHAPE", None) == shape
        }
        known = {str(d.name): (d.pixel2 * 1e6, d.pixel1 * 1e6) for d in (kind() for kind in same)}
    sizes = {(round(x, 3), round(y, 3)) for x, y in known.values()}
    if len(sizes) != 1:
        seen = ", ".join(f"{name} {size[0]:g} µm" for name, size in sorted(known.items())[:4])
        raise InputError(
            f"{path} states no pixel size, and {shape[0]} x {shape[1]} pixels "
            f"{f'are those of {seen}' if seen else 'are no detector that pyFAI knows'}; add a line "
            "'pixelSize:[<x>, <y>]' in µm."
        )
    size = sizes.pop()
    names = " and ".join(sorted(known))
    return size, f"{size[0]:g} x {size[1]:g} µm, as {shape[0]} x {shape[1]} pixels are {names}"


def check_wavelength(wavelength: float) -> None:
    """Refuse an option in another unit than Å, with the unit that it may be in.

    Raises
    ------
    OptionError
        If it is no wavelength of X-rays.
    """
    low, high = WAVELENGTHS
    if low <= wavelength <= high:
        return
    hint = ""
    if low <= wavelength * 1e10 <= high:
        hint = f"; is it in metres? Then give {wavelength * 1e10:.6g}"
    elif low <= KEV_ANGSTROM / wavelength <= high:
        hint = f"; is it an energy in keV? Then give {KEV_ANGSTROM / wavelength:.6g}"
    raise OptionError(f"--wavelength {wavelength:g} is not within {low:g}-{high:g} Å{hint}.")


def _plausible_wavelength(path: Path, metres: float | None) -> float | None:
    """Wavelength in Å; a value in another unit than the file's is refused."""
    if not metres:
        return None
    wavelength = float(metres) * 1e10
    if not WAVELENGTHS[0] < wavelength < WAVELENGTHS[1]:
        raise InputError(
            f"{path} states a wavelength of {wavelength:.4g} Å, expected "
            f"{WAVELENGTHS[0]:g}-{WAVELENGTHS[1]:g} Å; a PONI file holds it in metres."
        )
    return wavelength


def _common_shape(path: Path, detector: Any, shape: tuple[int, int] | None) -> tuple[int, int]:
    """Shape of detector and frames, which must agree."""
    expected: tuple[int, int] | None = None
    if detector.max_shape:
        try:
            expected = (int(detector.max_shape[0]), int(detector.max_shape[1]))
        except (TypeError, ValueError, OverflowError, IndexError) as error:
            raise InputError(f"{path}: its max_shape is {detector.max_shape}.") from error
    if expected is not None:
        check_image(expected, str(path))
    shape = shape or expected
    if shape is None:
        raise InputError(f"{path} names no detector shape; give frames so that the shape is known.")
    if expected is not None and shape != expected:
        hint = (
            " They fit after --rotate 90 or 270."
            if shape == expected[::-1]
            else " Check that PONI and frames belong together."
        )
        raise InputError(
            f"{path} describes the detector {detector.name} with {expected[0]} x {expected[1]} "
            f"pixels, but the frames have {shape[0]} x {shape[1]}.{hint}"
        )
    return shape


def save_poni(
    path: Path | str,
    detector_name: str,
    distance: float,
    poni1: float,
    poni2: float,
    wavelength: float,
    rotations: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> None:
    """Write a PONI file: distance and poni1/2 in m, wavelength in Å, rotations in radian.

    Raises
    ------
    InputError
        If pyFAI does not know the detector.
    """
    with quiet():
        from pyFAI.detectors import ALL_DETECTORS, detector_factory
        from pyFAI.integrator.azimuthal import AzimuthalIntegrator

        if detector_name.lower().replace("_", "") not in {
            name.lower().replace("_", "") for name in ALL_DETECTORS
        }:
            raise InputError(
                f"detector '{detector_name}' is unknown to pyFAI."
                f"{did_you_mean(detector_name.lower(), ALL_DETECTORS)}"
            )
        integrator = AzimuthalIntegrator(
            dist=distance,
            poni1=poni1,
            poni2=poni2,
            rot1=rotations[0],
            rot2=rotations[1],
            rot3=rotations[2],
            detector=detector_factory(detector_name),
            wavelength=wavelength * 1e-10,
        )
        path = Path(path)
        path.unlink(missing_ok=True)  # pyFAI appends to an existing file
        integrator.save(str(path))
    # pyFAI dates the file; the same geometry must give the same bytes.
    kept = [line for line in path.read_text().splitlines() if "Calibration done" not in line]
    path.write_text("\n".join(kept) + "\n")


@dataclass(frozen=True)
class Binning:
    """Radial bins: uniform, ``count`` of them between two edges.

    Parameters
    ----------
    unit
        ``2theta`` (degrees) or ``q`` (1/angstrom).
    low, high
        Outer edges of the first and last bin, in the unit.
    count
        Number of bins.
    """

    unit: str
    low: float
    high: float
    count: int

    @property
    def step(self) -> float:
        """Bin width in the unit."""
        return (self.high - self.low) / self.count

    @property
    def centres(self) -> NDArray[np.float64]:
        """Bin centres, shape (count,)."""
        return np.round(self.low + self.step * (np.arange(self.count) + 0.5), 9)

    @property
    def edges(self) -> NDArray[np.float64]:
        """Bin edges, shape (count + 1,)."""
        return np.round(self.low + self.step * np.arange(self.count + 1), 9)

    @property
    def key(self) -> tuple[str, float, float, int]:
        """What tells two binnings apart."""
        return self.unit, float(self.low), float(self.high), int(self.count)

    @property
    def pyfai_unit(self) -> str:
        """The name pyFAI gives the unit."""
        return {"2theta": "2th_deg", "q": "q_A^-1"}[self.unit]

    def two_theta_edges(self, wavelength: float) -> NDArray[np.float64]:
        """Bin edges in degrees; ``wavelength`` in Å is used for q only."""
        if self.unit == "2theta":
            return np.clip(self.edges, 0, 180)
        sine = np.clip(self.edges * wavelength / (4 * np.pi), 0, 1)
        return np.asarray(np.degrees(2 * np.arcsin(sine)), np.float64)


def choose_binning(
    geometry: Geometry,
    unit: str,
    count: int | None,
    centre_range: tuple[float, float] | None,
) -> Binning:
    """Bins for the options: by default 0.01° wide, centred on multiples of 0.01° (decision 8).

    Raises
    ------
    InputError
        If the range is empty or lies outside the detector.
    """
    low2, high2 = geometry.two_theta_range
    if not np.isfinite([low2, high2]).all():
        raise InputError(f"{geometry.poni_name} describes no detector: its angles are no numbers.")
    default_count = int(np.floor(high2 / BIN_STEP + 0.5) - np.floor(low2 / BIN_STEP + 0.5)) + 1
    if unit == "2theta":
        low, high = low2, high2
    else:
        low, high = (
            4 * np.pi * np.sin(np.radians(angle) / 2) / geometry.wavelength
            for angle in (low2, high2)
        )
    if centre_range is not None:
        first, last = centre_range
        if not first < last:
            raise InputError(f"radial range {first:g} {last:g} is empty; expected LO < HI.")
        if first > high or last < low:
            raise InputError(
                f"radial range {first:g}-{last:g} lies outside the detector, which covers "
                f"{low:.4g}-{high:.4g} ({'degrees' if unit == '2theta' else '1/angstrom'})."
            )
        if count is None:
            step = BIN_STEP if unit == "2theta" else (high - low) / default_count
            count = round((last - first) / step) + 1
        if count < 2:
            raise InputError(
                f"radial range {first:g}-{last:g} is narrower than a bin; widen it or give --bins."
            )
        step = (last - first) / (count - 1)
        return Binning(unit, first - step / 2, last + step / 2, count)
    if count is not None or unit == "q":
        return Binning(unit, low, high, count or default_count)
    k_low, k_high = (int(np.floor(angle / BIN_STEP + 0.5)) for angle in (low, high))
    k_low = max(k_low, 1)  # no bin may reach below 0°
    return Binning(unit, (k_low - 0.5) * BIN_STEP, (k_high + 0.5) * BIN_STEP, k_high - k_low + 1)
