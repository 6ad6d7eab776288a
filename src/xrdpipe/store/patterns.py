"""Write and read patterns files (NXazint1d; layout in docs/files.md)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from xrdpipe import __version__
from xrdpipe.bounds import MOST_BINS, check_frames, sound
from xrdpipe.errors import InputError
from xrdpipe.frames.layouts.chunks import check_chunks
from xrdpipe.frames.layouts.links import check_sources, group_in, whole
from xrdpipe.resampling import UNPOLARIZED
from xrdpipe.schema import UNITS, FrameFlag, FrameStatus
from xrdpipe.store.nexus import (
    entry_uuid,
    fixed_strings,
    new_group,
    new_root,
    now,
    open_processed,
    put,
    put_key,
    rows_dataset,
    text,
)
from xrdpipe.store.parts import Rows
from xrdpipe.store.writing import whole_hdf5
from xrdpipe.types import FloatArray, FrameRecord, Grid, Mask, Patterns, ScanHint

HC = 12.398419843320026
"""h·c in keV·Å (2019 SI, exact constants)."""

KEY_PATH = "entry/reduction/run_key"

ARBITRARY, PER_SECOND = "arbitrary units", "counts/s"
"""Units of intensity, without and with ``--exposure``."""

SIGNALS = {
    "I": ("intensity", ARBITRARY),
    "I_errors": ("estimated standard error of the mean intensity", ARBITRARY),
    "coverage": ("solid angle of valid pixels over that of the full ring", ""),
    "spottiness": ("intensity carried by rejected outliers", ARBITRARY),
    "azimuthal_excess_variance": ("azimuthal variance beyond counting noise over mean²", ""),
}

COUNTS = {
    "n_valid_pixels": "pixels with a measurement",
    "n_sentinel": "pixels of this frame marked as without measurement by their value",
    "n_masked_static": "valid pixels under --mask files",
    "n_saturated": "saturated pixels",
    "n_masked_dynamic": "pixels rejected as outliers",
    "sum": "sum of the valid pixels, raw counts",
    "max": "largest valid pixel, raw counts",
}

NOTE = (
    "2theta and azimuth as pyFAI defines them; the azimuth chi starts at the positive second "
    "detector axis. Intensities are means per pixel."
)
REFERENCE = (
    "Kieffer, Valls, Blanc & Hennig, J. Synchrotron Rad. 27 (2020) 558-566, "
    "doi:10.1107/S1600577520000776"
)


@dataclass(frozen=True)
class Positioner:
    """A motor or counter: one value per frame, shape (frames,), NaN where unknown."""

    values: NDArray[np.float64]
    units: str = ""


@dataclass(frozen=True)
class Monitor:
    """What intensities were normalised to: I·reference/values.

    Parameters
    ----------
    name
        As ``--monitor`` named it.
    values
        Counts of each frame, shape (frames,), NaN where unknown.
    reference
        Counts that change nothing.
    """

    name: str
    values: NDArray[np.float64]
    reference: float


@dataclass(frozen=True)
class PatternsHeader:
    """Everything of a patterns file that is known before the first frame.

    Parameters
    ----------
    variants
        One or two of ``masked``, ``unmasked``; or ``external``.
    radial_axis, radial_edges
        Shapes (bins,), (bins + 1,), in the unit.
    unit
        ``2theta`` or ``q``.
    norm
        Per variant: pixels per bin of the static mask, shape (bins,).
    config
        The resolved configuration.
    key
        The run's key (decision 21).
    monitors
        What intensities were normalised to.
    exposure
        Exposure time they were divided by, s, shape (frames,); None = they were not.
    parameters
        Further entries of ``reduction/input``: texts, numbers, small arrays.
    positioners
        What the files hold per frame, by name.
    scan
        What the files say of the scan.
    pixel_size, mask
        In m, and the static mask; None and empty for patterns integrated elsewhere.
    counts
        Which of COUNTS the rows bring.
    source_type, reference, note
        Of the X-ray source, and how the patterns were made.
    """

    variants: tuple[str, ...]
    radial_axis: NDArray[np.float64]
    radial_edges: NDArray[np.float64]
    unit: str
    wavelength: float
    polarization_factor: float | None
    solid_angle: bool
    signals: tuple[str, ...]
    norm: Mapping[str, NDArray[np.float32]]
    records: tuple[FrameRecord, ...]
    numbered: bool
    detector_name: str
    pixel_size: tuple[float, float] | None
    mask: Mask
    config: Mapping[str, Any]
    key: Mapping[str, Any]
    title: str
    monitors: tuple[Monitor, ...] = ()
    exposure: NDArray[np.float64] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    positioners: Mapping[str, Positioner] = field(default_factory=dict)
    scan: ScanHint | None = None
    counts: tuple[str, ...] = tuple(COUNTS)
    source_type: str = "Synchrotron X-ray Source"
    reference: str = REFERENCE
    note: str = NOTE


def write_patterns(
    path: Path, header: PatternsHeader, blocks: Iterator[tuple[int, Rows]], kept: str = ""
) -> None:
    """Write the whole file once, from blocks in row order.

    Parameters
    ----------
    blocks
        (first row, columns): ``VARIANT.SIGNAL`` (rows, bins), ``status``, ``flags``,
        ``reason`` and the counts, each (rows,).
    kept
        What is not lost if the disk refuses.

    Raises
    ------
    EnvironmentProblemError
        If the disk refuses.
    """
    n_rows = len(header.records)
    with whole_hdf5(path, kept=kept) as file:
        new_root(file)
        entry = _write_entry(file, header)
        frames = _write_frames(entry, header)
        parents = _variant_groups(entry, header)
        signals: dict[str, h5py.Dataset] = {}
        for variant, parent in parents.items():
            data = _write_axes(parent, header, variant)
            for name in header.signals:
                label, unit = SIGNALS[name]
                if unit == ARBITRARY and header.exposure is not None:
                    unit = PER_SECOND
                extra = {"units": unit} if unit else {}
                signals[f"{variant}.{name}"] = rows_dataset(
                    data,
                    name,
                    n_rows,
                    header.radial_axis.size,
                    long_name=label,
                    interpretation="spectrum",
                    **extra,
                )
        per_frame = {
            name: frames[name] for name in ("status", "flags", "reason", *COUNTS) if name in frames
        }
        for first, rows in blocks:
            where = slice(first, first + rows["status"].shape[0])
            for name, dataset in (signals | per_frame).items():
                dataset[where] = rows[name]


def _write_entry(file: h5py.File, header: PatternsHeader) -> h5py.Group:
    """Scalars, instrument, sample, monitor and reduction of NXazint1d."""
    key = dict(header.key)
    entry = new_group(file, "entry", "NXentry", default="data")
    put(entry, "definition", "NXazint1d")
    put(entry, "title", header.title)
    put(entry, "entry_identifier_uuid", entry_uuid(key))
    put(entry, "end_time", now())
    put(entry, "program_name", "xrdpipe", version=__version__)
    _write_switches(entry, header)
    instrument = new_group(entry, "instrument", "NXinstrument")
    put(instrument, "name", header.detector_name)
    source = new_group(instrument, "source", "NXsource")
    put(source, "name", "unknown")
    put(source, "type", header.source_type)
    put(source, "probe", "x-ray")
    mono = new_group(instrument, "monochromator", "NXmonochromator")
    put(mono, "wavelength", header.wavelength, units="angstrom")
    put(mono, "energy", HC / header.wavelength, units="keV")
    detector = new_group(instrument, "detector", "NXdetector")
    put(detector, "description", header.detector_name)
    if header.pixel_size is not None:
        put(detector, "y_pixel_size", header.pixel_size[0], units="m")
        put(detector, "x_pixel_size", header.pixel_size[1], units="m")
    if header.mask.pixels.size:
        detector.create_dataset(
            "mask_applied", data=header.mask.pixels, compression="gzip", compression_opts=1
        ).attrs["long_name"] = "static mask used, True = masked"
    if header.exposure is not None:
        put(detector, "count_time", header.exposure, units="s")
    _write_positioners(instrument, header)
    new_group(entry, "sample", "NXsample")
    put(entry["sample"], "name", header.title)
    for name, monitor in zip(_monitor_names(header), header.monitors, strict=True):
        _write_monitor(entry, name, monitor)
    reduction = new_group(entry, "reduction", "NXprocess")
    put(reduction, "program", "xrdpipe")
    put(reduction, "version", __version__)
    put(reduction, "date", now())
    put(reduction, "reference", header.reference)
    put(reduction, "note", header.note)
    put(reduction, "sequence_index", 1)
    put_key(reduction, key)
    given = new_group(reduction, "input", "NXparameters")
    for name, value in header.parameters.items():
        put(given, name, value)
    put(given, "config_json", json.dumps(dict(header.config)))
    put(given, "mask_sources", json.dumps([list(source) for source in header.mask.sources]))
    return entry


def _monitor_names(header: PatternsHeader) -> list[str]:
    """Groups of the monitors: ``monitor``, ``monitor_2``, and so on."""
    numbers = range(1, len(header.monitors) + 1)
    return ["monitor" if number == 1 else f"monitor_{number}" for number in numbers]


def _write_monitor(entry: h5py.Group, name: str, monitor: Monitor) -> None:
    group = new_group(entry, name, "NXmonitor")
    put(group, "mode", "monitor")
    put(group, "data", monitor.values, long_name=monitor.name)
    put(group, "reference", monitor.reference)
    counted = np.where(monitor.values > 0, monitor.values, np.nan)
    put(
        group,
        "relative_error",
        1 / np.sqrt(counted),
        long_name="1/sqrt(monitor), if it counts photons; common to all bins, not in I_errors",
    )


def _write_positioners(instrument: h5py.Group, header: PatternsHeader) -> None:
    """Motors and counters per frame, and as attributes what the files say of the scan."""
    if not header.positioners and header.scan is None:
        return
    group = new_group(instrument, "positioners", "NXcollection")
    for name, positioner in header.positioners.items():
        extra = {"units": positioner.units} if positioner.units else {}
        put(group, name.replace("/", "|"), positioner.values, long_name=name, **extra)
    for name, value in dataclasses.asdict(header.scan or ScanHint()).items():
        if value not in (None, ""):
            group.attrs[f"scan_{name}"] = value


def _write_switches(group: h5py.Group, header: PatternsHeader) -> None:
    put(group, "solid_angle_applied", header.solid_angle)
    put(group, "polarization_applied", header.polarization_factor is not None)
    normalised = header.solid_angle or bool(header.monitors) or header.exposure is not None
    put(group, "normalization_applied", normalised)
    put(group, "monitor_applied", bool(header.monitors))


def _write_frames(entry: h5py.Group, header: PatternsHeader) -> h5py.Group:
    records = header.records
    frames = new_group(entry, "frames", "NXcollection")
    index = np.array([record.index for record in records], np.int64)
    put(frames, "index", index, numbered=header.numbered, long_name="acquisition number")
    status = put(frames, "status", np.zeros(len(records), np.uint8))
    status.attrs["flag_values"] = np.array([s.value for s in FrameStatus], np.uint8)
    status.attrs["flag_meanings"] = " ".join(s.name.lower() for s in FrameStatus)
    flags = put(frames, "flags", np.zeros(len(records), np.uint16))
    flags.attrs["flag_masks"] = np.array([f.value for f in FrameFlag], np.uint16)
    flags.attrs["flag_meanings"] = " ".join(str(f.name).lower() for f in FrameFlag)
    frames.create_dataset("reason", shape=(len(records),), dtype="S256")
    for name in header.counts:
        kind = np.float64 if name in ("sum", "max") else np.int64
        put(frames, name, np.zeros(len(records), kind), long_name=COUNTS[name])
    files = sorted({record.file for record in records})
    place = {file: number for number, file in enumerate(files)}
    put(frames, "source_files", fixed_strings(files))
    put(frames, "source_file_index", np.array([place[r.file] for r in records], np.int32))
    put(frames, "source_frame", np.array([r.place for r in records], np.int32))
    put(frames, "source_size", np.array([r.size for r in records], np.int64))
    put(frames, "source_mtime_ns", np.array([r.mtime_ns for r in records], np.int64))
    return frames


def _variant_groups(entry: h5py.Group, header: PatternsHeader) -> dict[str, h5py.Group]:
    """Where each variant's NXdata goes (decision 14)."""
    if len(header.variants) == 1:
        return {header.variants[0]: entry}
    parents = {}
    for variant in header.variants:
        parent = new_group(entry, f"azint1d_{variant}", "NXsubentry", default="data")
        put(parent, "definition", "NXazint1d")
        _write_switches(parent, header)
        for shared in ("instrument", "reduction", "sample", *_monitor_names(header)):
            parent[shared] = h5py.SoftLink(f"/entry/{shared}")
        parents[variant] = parent
    entry["data"] = h5py.SoftLink(f"/entry/azint1d_{header.variants[0]}/data")
    return parents


def _write_axes(parent: h5py.Group, header: PatternsHeader, variant: str) -> h5py.Group:
    unit, label = UNITS[header.unit]
    data = new_group(parent, "data", "NXdata", signal="I", interpretation="spectrum")
    data.attrs["axes"] = [".", "radial_axis"]
    data.attrs["variant"] = variant
    put(data, "radial_axis", header.radial_axis, units=unit, long_name=label)
    put(
        data,
        "radial_axis_edges",
        header.radial_edges,
        units=unit,
        long_name=f"bin edges of {label}",
    )
    put(
        data,
        "norm",
        header.norm[variant],
        units="pixels",
        long_name="number of pixels contributing to the bin",
    )
    return data


def write_resampled(
    path: Path,
    source: PatternsFile,
    grid: Grid,
    details: Mapping[str, Any],
    key: Mapping[str, Any],
    signals: tuple[str, ...],
    blocks: Iterator[tuple[int, Patterns]],
) -> None:
    """Write patterns on a grid: a copy of the source's metadata with new data.

    Parameters
    ----------
    details
        Recorded in ``/entry/resampling``: method, correlation length, source.
    blocks
        (first row, patterns on the grid) in row order.
    """
    with whole_hdf5(path) as file:
        new_root(file)
        entry = new_group(file, "entry", "NXentry", default="data")
        for name in source.entry:
            if name in ("data", "resampling") or name.startswith("azint1d_"):
                continue
            source.entry.copy(name, entry)
        if details["polarization_divided_out"]:
            _mark_polarization(entry)
        del entry["instrument/monochromator"]
        mono = new_group(entry["instrument"], "monochromator", "NXmonochromator")
        put(mono, "wavelength", grid.wavelength, units="angstrom")
        put(mono, "energy", HC / grid.wavelength, units="keV")
        process = new_group(entry, "resampling", "NXprocess")
        put(process, "program", "xrdpipe")
        put(process, "version", __version__)
        put(process, "date", now())
        put(process, "sequence_index", 2)
        put_key(process, key)
        for name, value in details.items():
            put(process, name, value)
        data = new_group(entry, "data", "NXdata", signal="I", interpretation="spectrum")
        data.attrs["axes"] = [".", "radial_axis"]
        data.attrs["variant"] = source.variant
        put(data, "radial_axis", grid.two_theta, units="degrees", long_name=UNITS["2theta"][1])
        put(data, "radial_axis_edges", grid.edges, units="degrees", long_name="2theta bin edges")
        put(data, "norm", np.full(grid.size, np.nan, np.float32), units="pixels")
        targets = {}
        for name in signals:
            label, _ = SIGNALS[name]
            unit = source.units(name)
            extra = {"units": unit} if unit else {}
            targets[name] = rows_dataset(
                data,
                name,
                source.n_rows,
                grid.size,
                long_name=label,
                interpretation="spectrum",
                **extra,
            )
        for first, patterns in blocks:
            where = slice(first, first + patterns.intensity.shape[0])
            for name, dataset in targets.items():
                dataset[where] = _signal(patterns, name)


def _mark_polarization(entry: h5py.Group) -> None:
    """Say that the correction was made, so that it is not made twice."""
    given = entry.require_group("reduction/input")
    for group, name in ((entry, "polarization_applied"), (given, "polarization_factor")):
        if name in group:
            del group[name]
    put(entry, "polarization_applied", True)
    put(given, "polarization_factor", UNPOLARIZED)


def _signal(patterns: Patterns, name: str) -> Any:
    return {
        "I": patterns.intensity,
        "I_errors": patterns.intensity_errors,
        "coverage": patterns.coverage,
        "spottiness": patterns.spottiness,
    }[name]


class PatternsFile:
    """One variant of a patterns file, read in blocks of rows; use as a context manager.

    Parameters
    ----------
    path
        Patterns file, or the output of ``xrdpipe resample``.
    variant
        ``masked`` or ``unmasked`` where the file holds both; None = masked, else what is there.

    Raises
    ------
    InputError
        If it is no patterns file, or holds another variant.
    """

    def __init__(self, path: Path, variant: str | None = None) -> None:
        self.path = path
        self._file = open_processed(path, "patterns file")
        self.entry = self._file["entry"]
        try:
            with sound(str(path)):
                self._look(variant)
        except BaseException:
            self._file.close()
            raise

    def _look(self, variant: str | None) -> None:
        self._data = self._choose(variant)
        for name in ("I", "radial_axis"):
            if name not in self._data:
                raise InputError(
                    f"{self.path} is no patterns file: /entry/data/{name} is absent; expected "
                    "a file written by 'xrdpipe integrate' or 'resample'."
                )
        self.variant = text(self._data.attrs.get("variant", "external"))
        self.unit = text(self._data["radial_axis"].attrs.get("units", "degrees"))
        self.radial_axis = np.asarray(whole(self._data["radial_axis"]), np.float64)
        self.wavelength = self._wavelength()
        shape = self._data["I"].shape
        if len(shape) != 2 or shape[1:] != self.radial_axis.shape or shape[1] > MOST_BINS:
            raise InputError(
                f"{self.path}: /entry/data/I has shape {shape}; expected rows of "
                f"{self.radial_axis.size} bins, at most {MOST_BINS}."
            )
        self.n_rows = int(shape[0])
        check_frames(self.n_rows, str(self.path))
        for name in self.signals:
            check_sources(self._data[name])
            check_chunks(self._data[name])
        self.polarization_factor = self._polarization()
        frames = self.entry.get("frames", {})
        ok = np.full(self.n_rows, FrameStatus.OK, np.uint8)
        self.status = np.asarray(whole(frames["status"]) if "status" in frames else ok)
        self.reasons = (
            [text(value) for value in whole(frames["reason"])] if "reason" in frames else []
        )
        order = np.arange(self.n_rows, dtype=np.int64)
        self.frame = np.asarray(whole(frames["index"]) if "index" in frames else order)
        if not self.status.shape == self.frame.shape == (self.n_rows,):
            raise InputError(
                f"{self.path}: /entry/frames describes {self.status.size} and {self.frame.size} "
                f"rows, /entry/data/I has {self.n_rows}."
            )
        self.numbered = bool("index" in frames and frames["index"].attrs.get("numbered", False))

    def __enter__(self) -> PatternsFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def signals(self) -> tuple[str, ...]:
        """Which of intensity, errors, coverage and spottiness the file has."""
        return tuple(
            name for name in ("I", "I_errors", "coverage", "spottiness") if name in self._data
        )

    def units(self, signal: str) -> str:
        """Units of one of them; empty where it has none."""
        return text(self._data[signal].attrs.get("units", ""))

    @property
    def columns(self) -> dict[str, str]:
        """Motors and counters stored per frame, as name → units."""
        with sound(str(self.path)):
            group = self.entry.get("instrument/positioners", {})
            return {
                text(item.attrs.get("long_name", name)): text(item.attrs.get("units", ""))
                for name, item in group.items()
            }

    def column(self, name: str) -> NDArray[np.float64] | None:
        """One of them, shape (rows,); None if there is none of that name."""
        with sound(str(self.path)):
            item = self.entry.get(f"instrument/positioners/{name.replace('/', '|')}")
            return None if item is None else np.asarray(whole(item), np.float64)

    @property
    def scan(self) -> ScanHint | None:
        """What the files said of the scan."""
        with sound(str(self.path)):
            if "instrument/positioners" not in self.entry:
                return None
            given = self.entry["instrument/positioners"].attrs
            values: dict[str, Any] = {}
            for definition in dataclasses.fields(ScanHint):
                value = given.get(f"scan_{definition.name}")
                if definition.name == "shape" and value is not None:
                    value = (int(value[0]), int(value[1]))
                elif definition.name == "snake" and value is not None:
                    value = bool(value)
                elif value is not None:
                    value = text(value)
                if value is not None:
                    values[definition.name] = value
            return ScanHint(**values) if values else None

    @property
    def source_files(self) -> list[str]:
        """File of each row as recorded; empty where nothing is."""
        with sound(str(self.path)):
            frames = self.entry.get("frames", {})
            if "source_files" not in frames:
                return []
            files = [text(name) for name in whole(frames["source_files"])]
            return [files[place] for place in whole(frames["source_file_index"])]

    def rows(self, start: int, stop: int) -> Patterns:
        """Rows start … stop − 1; a file without coverage counts finite bins as covered."""
        with sound(str(self.path)):
            where = slice(start, min(stop, self.n_rows))
            intensity = self._data["I"][where]

            def read(name: str) -> Any:
                return self._data[name][where] if name in self._data else None

            coverage = read("coverage")
            if coverage is None:
                coverage = np.isfinite(intensity).astype(np.float32)
            return Patterns(
                radial_axis=self.radial_axis,
                wavelength=self.wavelength,
                intensity=intensity,
                intensity_errors=read("I_errors"),
                coverage=coverage,
                spottiness=read("spottiness"),
                frame=self.frame[where],
                status=self.status[where],
                unit=self.unit,
                variant=self.variant,
                polarization_factor=self.polarization_factor,
            )

    def signal(self, name: str, start: int, stop: int) -> FloatArray:
        """Rows start … stop − 1 of one of ``signals``."""
        with sound(str(self.path)):
            values: FloatArray = self._data[name][start : min(stop, self.n_rows)]
            return values

    def run_key(self) -> str:
        """The key of the run that made the data (last stage)."""
        with sound(str(self.path)):
            for path in ("resampling/run_key", "reduction/run_key"):
                if path in self.entry:
                    return text(self.entry[path])
            return ""

    def _choose(self, variant: str | None) -> Any:
        entry = self.entry
        held = [name.removeprefix("azint1d_") for name in entry if name.startswith("azint1d_")]
        if held:
            chosen = variant or "masked"
            if chosen not in held:
                raise InputError(f"{self.path} holds {' and '.join(held)}, not '{chosen}'.")
            return group_in(entry, f"azint1d_{chosen}/data")
        if "data" not in entry:
            raise InputError(f"{self.path} is no patterns file: it has no group /entry/data.")
        data = group_in(entry, "data")
        there = text(data.attrs.get("variant", "external"))
        if variant is not None and there != variant:
            raise InputError(
                f"{self.path} holds the {there} variant, not '{variant}'; integrate with "
                f"--variant {variant} or both."
            )
        return data

    def _wavelength(self) -> float:
        for place in ("instrument/monochromator/wavelength",):
            if place in self.entry:
                return float(whole(self.entry[place]))
        raise InputError(
            f"{self.path} has no wavelength (/entry/instrument/monochromator/wavelength); "
            "a 2theta axis means nothing without it."
        )

    def _polarization(self) -> float | None:
        if "polarization_applied" in self.entry and not whole(self.entry["polarization_applied"]):
            return None
        stored = self.entry.get("reduction/input/polarization_factor")
        return None if stored is None else float(whole(stored))
