"""``xrdpipe inspect``: what is in there, with the evidence, and what is missing or odd."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from xrdpipe.bounds import MOST_NAMES, sound
from xrdpipe.config import InspectConfig
from xrdpipe.errors import FrameError, XrdpipeError
from xrdpipe.frames import open_frames
from xrdpipe.frames.auxiliary import load_masks, read_plane
from xrdpipe.frames.dead import PixelKind, oriented, pixel_kind, pixel_mask_reasons
from xrdpipe.frames.hdf5 import is_hdf5
from xrdpipe.frames.headers import is_image
from xrdpipe.frames.layouts.links import attribute, whole
from xrdpipe.frames.layouts.outside import files_outside
from xrdpipe.frames.names import frame_numbers
from xrdpipe.frames.powder_files import PATTERN_SUFFIXES, find_powder_files, read_powder_file
from xrdpipe.integration.geometry import (
    KEV_ANGSTROM,
    Geometry,
    choose_binning,
    load_geometry,
)
from xrdpipe.integration.orientation import best_orientation
from xrdpipe.masks import fraction_inside, shipped_masks, without_measurement
from xrdpipe.schema import FrameStatus
from xrdpipe.stages.integrate import contradictions, describe_pixels, first_frame
from xrdpipe.stages.scans import describe_scan, scan_of_files
from xrdpipe.store.validate import describe
from xrdpipe.types import FrameSource, Outcome, Progress, Table

FLIPS = ("none", "ud", "lr", "both")
GEOMETRY_SUFFIXES = (".poni", ".imctrl")

FIRST_PIXEL = {1: "top right", 2: "top left", 3: "bottom left", 4: "bottom right"}
"""Corner of the first pixel seen from the sample, by pyFAI's number of the orientation."""

LISTED = 8
"""So many missing numbers, columns and reasons are written out; all are counted."""


@dataclass(frozen=True)
class Finding:
    """One line of the answer: its label, the sentence for people, the values for programs."""

    label: str
    text: str
    values: Any = None

    @property
    def is_warning(self) -> bool:
        """True if something is odd."""
        return self.label == "warning"


def run(config: InspectConfig, progress: Progress | None = None) -> Outcome:
    """Describe frames, or a file xrdpipe wrote; nothing is written.

    Returns
    -------
    Outcome
        ``shown`` holds the table (label, text), ``details`` the same as values for programs.
    """
    progress = progress or Progress()
    path = Path(config.path[0])
    findings = None
    if len(config.path) == 1 and path.is_file():
        if path.suffix.lower() in GEOMETRY_SUFFIXES:
            findings = _calibration(config, path)
        elif is_hdf5(path):
            findings = _processed(path)
    if findings is None:
        findings = _powder(config, progress) or _frames(config, progress)
    name = ", ".join(config.path)
    values = {"path": name} | {f.label: f.values for f in findings if not f.is_warning}
    values["warnings"] = [f.text for f in findings if f.is_warning]
    if config.json:
        return Outcome(path, 0, json.dumps(values, indent=2, default=_plain), values)
    summary = "\n".join([name, *(f"  {f.label:<12}{f.text}" for f in findings)])
    table = Table((), tuple((f.label, f.text) for f in findings))
    return Outcome(path, 0, summary, values, shown=(name, table))


def _plain(value: Any) -> Any:
    """NumPy values as JSON can hold them."""
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value)


# --- a file of our own -----------------------------------------------------------------------


def _processed(path: Path) -> list[Finding] | None:
    """Description of one of our own files; None if it is something else or cannot be opened."""
    try:
        opened = h5py.File(path, "r", locking=False)
    except OSError:
        return None
    with sound(str(path)), opened as file:
        if attribute(file, "creator") != "xrdpipe":
            return None
        kind, problems = describe(file)
        findings = [Finding("layout", f"{kind} written by xrdpipe", kind)]
        entry: Any = file["entry"]
        if "data/I" in entry:
            data = entry["data"]
            axis, rows = data["radial_axis"], data["I"].shape[0]
            low, high, units = float(axis[0]), float(axis[-1]), str(axis.attrs["units"])
            findings.append(
                Finding(
                    "patterns",
                    f"{rows} x {axis.size} bins, {low:.4g}-{high:.4g} {units}",
                    {"rows": rows, "bins": axis.size, "range": [low, high], "units": units},
                )
            )
        if "frames/status" in entry:
            findings.append(_counted("status", _status_counts(whole(entry["frames/status"]))))
        if "phase_map/phase_names" in entry:
            names = [name.decode() for name in whole(entry["phase_map/phase_names"], MOST_NAMES)]
            ny, nx = entry["mapping/frame_index"].shape
            findings.append(
                Finding(
                    "map",
                    f"{ny}x{nx}, phases {', '.join(names)}",
                    {"shape": [ny, nx], "phases": names},
                )
            )
        problems += files_outside(file)
        return findings + [Finding("warning", problem) for problem in problems]


def _status_counts(status: NDArray[np.integer[Any]]) -> dict[str, int]:
    counts = Counter(int(value) for value in status)
    return {member.name.lower(): counts[member] for member in FrameStatus if counts[member]}


def _counted(label: str, counts: dict[str, int]) -> Finding:
    return Finding(label, ", ".join(f"{n} {name}" for name, n in counts.items()), counts)


# --- a geometry ------------------------------------------------------------------------------


def _calibration(config: InspectConfig, path: Path) -> list[Finding]:
    """Description of a geometry file by itself."""
    geometry = load_geometry(path, wavelength=config.wavelength, needs_wavelength=False)
    ny, nx = geometry.shape
    first = FIRST_PIXEL.get(geometry.orientation, "anywhere")
    height, width = (1e6 * size for size in geometry.pixel_size)
    low, high = geometry.two_theta_range
    known = np.isfinite(geometry.wavelength)
    beam = f"{geometry.wavelength:.6g} Å ({KEV_ANGSTROM / geometry.wavelength:.5g} keV)"
    findings = [
        Finding("layout", f"{geometry.file_format}, a detector geometry", geometry.file_format),
        Finding(
            "detector",
            f"{geometry.detector_name}, {ny} x {nx} pixels (rows x columns) of "
            f"{height:.5g} x {width:.5g} µm, {geometry.gap_mask.mean():.1%} of them gaps",
            {
                "name": geometry.detector_name,
                "shape": [ny, nx],
                "pixel_size": geometry.pixel_size,
                "gaps": float(geometry.gap_mask.mean()),
            },
        ),
        Finding("distance", f"{geometry.distance * 1e3:.3f} mm", geometry.distance),
        Finding("wavelength", beam if known else "none", geometry.wavelength if known else None),
        Finding(
            "orientation",
            f"{geometry.orientation}: seen from the sample, the first pixel is {first}",
            geometry.orientation,
        ),
        Finding("2theta", f"{low:.3f}-{high:.3f} degrees over the detector", [low, high]),
        _masks_that_fit(geometry),
    ]
    if not known:
        findings.append(Finding("warning", "no wavelength: give --wavelength to integrate or map"))
    if geometry.notes:
        findings.append(Finding("calibration", "; ".join(geometry.notes), geometry.notes))
    return findings


def _masks_that_fit(geometry: Geometry) -> Finding:
    """Shipped masks of the detector's shape; whether one is right, only frames tell."""
    fitting = []
    for name, path in shipped_masks().items():
        plane, _ = read_plane(str(path), "mask")
        if plane.shape == geometry.shape:
            fitting.append(name)
    return Finding("masks", f"of this shape ship: {', '.join(fitting) or 'none'}", fitting)


# --- 1D patterns -----------------------------------------------------------------------------


def _powder(config: InspectConfig, progress: Progress) -> list[Finding] | None:
    """Description of 1D patterns in text files, or None if the paths hold something else."""
    try:
        files, _ = find_powder_files(config.path)
    except XrdpipeError:
        return None
    if is_image(files[0]) or any(file.suffix.lower() not in PATTERN_SUFFIXES for file in files):
        return None
    numbers, numbered = frame_numbers(files)
    values = {"files": len(files), "numbered": numbered}
    findings = [
        Finding("layout", f"{len(files)} 1D patterns; 'xrdpipe collect' packs them", values),
        *_numbering(np.array(numbers), numbered),
    ]
    chosen = _spread(len(files), config.sample)
    axes: Counter[str] = Counter()
    wavelengths: Counter[str] = Counter()
    reasons = []
    progress.start("read", chosen.size)
    for row in chosen:
        try:
            found = read_powder_file(files[row])
        except FrameError as error:
            reasons.append(error.reason)
        else:
            units = "degrees" if found.unit == "2theta" else "1/angstrom"
            axes[f"{found.axis.size} points {found.axis[0]:g}-{found.axis[-1]:g} {units}"] += 1
            stated = found.wavelength
            wavelengths["none stated" if stated is None else f"{stated:.6g} Å"] += 1
        progress.advance(1)
    progress.done()
    for label, counts in (("axes", axes), ("wavelength", wavelengths)):
        text = "; ".join(f"{n} with {name}" for name, n in counts.most_common(LISTED))
        findings.append(Finding(label, text or "none", dict(counts)))
    return findings + [Finding("warning", reason) for reason in reasons[:LISTED]]


# --- frames ----------------------------------------------------------------------------------


def _frames(config: InspectConfig, progress: Progress) -> list[Finding]:
    source = open_frames(config.path)
    first = first_frame(source)
    name = "Detector"
    geometry = None
    if config.poni is not None:
        shape = oriented(first, config.flip, config.rotate).shape
        geometry = load_geometry(config.poni, (int(shape[0]), int(shape[1])), config.wavelength)
        name = geometry.detector_name
    kind = pixel_kind(
        first,
        name,
        source.detector.description,
        config.saturation or source.detector.saturation_value,
        config.sentinel,
        source.detector.bit_depth,
    )
    findings = [
        Finding("layout", source.kind, source.kind),
        *[Finding("evidence", "; ".join(source.evidence), source.evidence)][: len(source.evidence)],
        *_numbers(source),
        *_status(source, config.sample, progress),
        *_pixels(first, kind, source),
        *_metadata(source),
        *_scan(source),
        *(Finding("warning", text) for text in source.warnings),
    ]
    if geometry is not None:
        findings += _geometry(config, source, geometry)
        findings += _orientation(config, first, kind, geometry)
    return findings


def _numbers(source: FrameSource) -> list[Finding]:
    """Numbering and gaps: what is missing shifts nothing, but must be seen."""
    counted = [record for record in source.records if record.problem != FrameStatus.DUPLICATE]
    return _numbering(np.array([record.index for record in counted]), source.numbered)


def _numbering(index: NDArray[np.integer[Any]], numbered: bool) -> list[Finding]:
    values: dict[str, Any] = {"frames": index.size, "numbered": numbered}
    if not numbered:
        frames = "1 frame" if index.size == 1 else f"{index.size} frames in order"
        return [Finding("numbering", f"none; {frames}", values)]
    low, high = int(index.min()), int(index.max())
    missing = np.setdiff1d(np.arange(low, high + 1), index)
    line = f"{low}-{high}, {index.size} frames" if index.size > 1 else f"{low}, 1 frame"
    if missing.size:
        shown = ", ".join(map(str, missing[:LISTED])) + (", …" if missing.size > LISTED else "")
        line += f"; {missing.size} missing ({shown})"
    values |= {"first": low, "last": high, "missing": missing}
    return [Finding("numbering", line, values)]


def _status(source: FrameSource, sample: int, progress: Progress) -> list[Finding]:
    """What is known of every frame without reading it, and what reading some of them shows."""
    records = source.records
    known = np.array([record.problem for record in records])
    reasons = [record.reason for record in records if record.problem]
    readable = np.flatnonzero(known == 0)
    rows = _sampled(source, readable, sample)
    read = []
    progress.start("read", rows.size)
    for row in rows:
        try:
            source.read(int(row))
            read.append(int(FrameStatus.OK))
        except FrameError as error:
            read.append(error.status)
            reasons.append(error.reason)
        progress.advance(1)
    progress.done()
    findings = []
    if (known != 0).any():
        findings.append(_counted("lost", _status_counts(known[known != 0])))
    counts = _status_counts(np.array(read, int))
    text = ", ".join(f"{n} {name}" for name, n in counts.items())
    if rows.size < readable.size:
        text += f" of {rows.size} frames read ({readable.size} there; --sample 0 reads all)"
    findings.append(Finding("read", text, {"frames": rows.size, **counts}))
    said = Counter(reasons).most_common()
    for reason, n in said[:LISTED]:
        findings.append(Finding("warning", reason if n == 1 else f"{n} frames: {reason}"))
    if len(said) > LISTED:
        more = sum(n for _, n in said[LISTED:])
        findings.append(Finding("warning", f"… and {more} frames more"))
    return findings


def _sampled(source: FrameSource, readable: NDArray[np.intp], sample: int) -> NDArray[np.intp]:
    """Rows to read: spread over the series, with the smallest and the largest file.

    A file that was cut short is often the smallest.
    """
    chosen = readable[_spread(readable.size, sample)]
    if chosen.size == readable.size:
        return readable
    size = np.array([source.records[row].size for row in readable])
    return np.union1d(chosen, readable[[size.argmin(), size.argmax()]])


def _spread(n: int, sample: int) -> NDArray[np.intp]:
    """``sample`` of n numbers, evenly spread; all for 0."""
    if sample == 0 or n <= sample:
        return np.arange(n)
    return np.linspace(0, n - 1, sample).round().astype(np.intp)


def _pixels(first: NDArray[Any], kind: PixelKind, source: FrameSource) -> list[Finding]:
    dead = without_measurement(first, kind.sentinels)
    good = first[~dead]
    counts = "no counts"
    if good.size:
        counts = f"counts {good.min():g}-{good.max():g}, mean {good.mean():.4g}"
    findings = [
        Finding(
            "pixels",
            describe_pixels(kind).removeprefix("pixels: "),
            {
                "counting": kind.counting,
                "reason": kind.reason,
                "sentinels": kind.sentinels,
                "saturation": kind.saturation,
            },
        ),
        Finding(
            "first frame",
            f"{dead.sum()} pixels without measurement ({dead.mean():.1%}); {counts}",
            {
                "without_measurement": int(dead.sum()),
                "min": good.min() if good.size else None,
                "max": good.max() if good.size else None,
                "mean": float(good.mean()) if good.size else None,
            },
        ),
    ]
    if source.detector.pixel_mask is not None:
        reasons = dict(pixel_mask_reasons(source.detector.pixel_mask))
        findings.append(_counted("pixel_mask", reasons or {"pixels marked in the file": 0}))
    return findings


def _metadata(source: FrameSource) -> list[Finding]:
    """What the files say of the measurement; the PONI and the options win over all of it."""
    detector = source.detector
    values: dict[str, Any] = {
        "detector": detector.description,
        "wavelength": detector.wavelength,
        "distance": detector.distance,
        "saturation_value": detector.saturation_value,
        "bit_depth": detector.bit_depth,
    }
    exposure = source.exposure
    values["exposure"] = None if exposure is None else float(np.nanmedian(exposure))
    units = {"wavelength": " Å", "distance": " m", "exposure": " s", "bit_depth": " bits"}
    said = [
        f"{name.replace('_', ' ')} {value if isinstance(value, str) else format(value, '.8g')}"
        f"{units.get(name, '')}"
        for name, value in values.items()
        if value is not None
    ]
    findings = [Finding("metadata", ", ".join(said) or "none", values)]
    if source.columns:
        names = [f"{name} ({unit})" if unit else name for name, unit in source.columns.items()]
        more = f", … ({len(names)} in all)" if len(names) > LISTED else ""
        findings.append(
            Finding("per frame", ", ".join(names[:LISTED]) + more, dict(source.columns))
        )
    return findings


def _scan(source: FrameSource) -> list[Finding]:
    if len(source.records) == 1:
        return []
    scan = scan_of_files(source)
    if scan is None:
        return [Finding("scan", "nothing says how the frames lie; give --scan-shape")]
    ny, nx = scan.shape
    values = {
        "shape": [ny, nx],
        "fast_axis": scan.fast_axis,
        "snake": scan.snake,
        "irregular": scan.irregular,
        "source": scan.source,
        "confidence": scan.confidence,
        "evidence": scan.evidence,
        "pixels_without_frame": int((scan.frame_index < 0).sum()),
        "x": None if scan.x is None else scan.x.name,
        "y": None if scan.y is None else scan.y.name,
    }
    return [Finding("scan", describe_scan(scan), values)]


# --- against a geometry ----------------------------------------------------------------------


def _geometry(config: InspectConfig, source: FrameSource, geometry: Geometry) -> list[Finding]:
    binning = choose_binning(geometry, config.unit, config.bins, config.radial_range)
    unit = "degrees" if binning.unit == "2theta" else "1/angstrom"
    low, high = float(binning.centres[0]), float(binning.centres[-1])
    findings = [
        Finding(
            "geometry",
            f"{geometry.poni_name}: {geometry.detector_name}, "
            f"{geometry.distance * 1e3:.2f} mm, {geometry.wavelength:.5g} Å",
            {
                "file": geometry.poni_name,
                "detector": geometry.detector_name,
                "distance": geometry.distance,
                "wavelength": geometry.wavelength,
            },
        ),
        Finding(
            "bins",
            f"{binning.count} from {low:.4g} to {high:.4g} {unit}",
            {"count": binning.count, "range": [low, high], "units": unit},
        ),
    ]
    findings += [Finding("warning", text) for text in contradictions(source, geometry)]
    if geometry.notes:
        findings.append(Finding("calibration", "; ".join(geometry.notes), geometry.notes))
    return findings


def _orientation(
    config: InspectConfig, first: NDArray[Any], kind: PixelKind, geometry: Geometry
) -> list[Finding]:
    """Warn where another flip fits the gaps, the mask or the rings clearly better."""
    dead = without_measurement(first, kind.sentinels)
    findings = []
    reference = geometry.gap_mask
    what = f"gaps of {geometry.detector_name}"
    if config.mask:
        try:
            mask = load_masks(config.mask, geometry.shape, config.flip, config.rotate)
        except XrdpipeError as error:
            return [Finding("warning", str(error))]
        assert mask is not None
        findings.append(
            Finding(
                "mask",
                f"{', '.join(config.mask)}: {mask.fraction:.1%} masked",
                {"files": config.mask, "fraction": mask.fraction},
            )
        )
        if not reference.any():
            reference, what = mask.pixels, f"mask {', '.join(config.mask)}"
    flips = {
        flip: np.asarray(oriented(dead, flip, config.rotate))
        for flip in FLIPS
        if oriented(dead, flip, config.rotate).shape == geometry.shape
    }
    if dead.any() and reference.any():
        # How much of the frame's own gaps the reference covers.
        covered = {flip: fraction_inside(image, reference) for flip, image in flips.items()}
        best = max(covered, key=lambda flip: covered[flip])
        findings.append(
            Finding(
                "gaps",
                f"{covered[config.flip]:.1%} of the frame's dead pixels lie in the {what}",
                covered,
            )
        )
        if covered[best] > covered[config.flip] + 0.02:
            findings.append(
                Finding(
                    "warning",
                    f"with --flip {best} it would be {covered[best]:.1%}: the frames seem to "
                    "lie differently from the PONI and mask",
                )
            )
    image = np.where(dead, np.nan, first.astype(np.float32))
    images = {flip: np.asarray(oriented(image, flip, config.rotate)) for flip in flips}
    sharpness, best = best_orientation(geometry, images)
    if sharpness[best] > 1.2 * sharpness[config.flip]:
        ratio = sharpness[best] / sharpness[config.flip]
        findings.append(
            Finding(
                "warning",
                f"rings are {ratio:.1f} times sharper with --flip {best} than with --flip "
                f"{config.flip}: check that the PONI was made for frames that lie like these",
            )
        )
    else:
        text = f"rings are sharpest with --flip {config.flip} (as given)"
        findings.append(Finding("orientation", text, {"sharpness": sharpness}))
    return findings
