"""What speed.py runs: the data, and the commands that are timed on them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from folders import SENTINEL16, Series, scan_shape, xrdpipe
from processes import ONE_THREAD

HERE = Path(__file__).parent

KERNEL_OFF = {"XRDPIPE_KERNEL": "off"}

PATTERN_ROWS = (256, 4096)
"""Rows of the patterns files that are mapped: whole blocks of 256 rows."""

SHORT = (
    "floor,script,script-map,diffmap,diffmap-csc,integrate-tool,clip,unmasked,unmasked-1,both-1,"
    "unmasked-off-1,map-frames-1"
)
"""Cases of the data on which not everything is run."""


@dataclass(frozen=True)
class Data:
    """Frames of one kind.

    Parameters
    ----------
    label
        In tables.
    detector
        pyFAI's name.
    layout
        See :class:`folders.Series`.
    counts
        Mean counts at the strongest line, which is about five times the median of all pixels.
    bins
        Number of bins; None: xrdpipe's default.
    options
        For every xrdpipe command, beyond the geometry.
    cases
        Names or patterns of the cases to run, separated by commas.
    """

    label: str
    detector: str
    layout: str
    counts: float
    bins: int | None = None
    options: tuple[str, ...] = ()
    cases: str = SHORT


CAMERA = ("--sentinel", str(SENTINEL16), "--gain", "1", "--read-noise", "0")
"""A 16-bit camera that counts photons: the files do not say so."""

LOW, HIGH = 5.0, 500.0
"""A median of about 1 and of about 100 counts per pixel."""

DATA = {
    "eiger4m-low": Data("Eiger 4M, 1 count", "Eiger4M", "eiger", LOW, 2000, cases="*"),
    "eiger4m-high": Data(
        "Eiger 4M, 100 counts", "Eiger4M", "eiger", HIGH, 2000, cases=f"{SHORT},paper-*"
    ),
    "pilatus1m-low": Data("Pilatus 1M CBF, 1 count", "Pilatus1M", "cbf", LOW),
    "pilatus1m-high": Data("Pilatus 1M CBF, 100 counts", "Pilatus1M", "cbf", HIGH),
    "tiff2k-low": Data("2k x 2k uint16 TIFF, 1 count", "HF-4M", "tiff16", LOW, None, CAMERA),
    "tiff2k-high": Data("2k x 2k uint16 TIFF, 100 counts", "HF-4M", "tiff16", HIGH, None, CAMERA),
}


@dataclass(frozen=True)
class Work:
    """What all cases on one kind of frames share.

    Parameters
    ----------
    data
        What the frames are.
    small, slow, fast
        The short series, and the long ones for slow and for fast cases.
    bins
        (low, high, count): outer edges in degrees.
    mask
        EDF file with the dead pixels, which xrdpipe finds by itself.
    coverage
        Covered part of each bin's ring, for the script with a network.
    models
        Model folders: ``shipped``, and ``paper`` with the network of Li et al. (2024).
    patterns
        Patterns files of :data:`PATTERN_ROWS` rows.
    """

    data: Data
    small: Series
    slow: Series
    fast: Series
    bins: tuple[float, float, int]
    mask: Path
    coverage: Path
    models: dict[str, Path]
    patterns: tuple[Path, Path]


Command = Callable[[Work, Any, Path], list[str]]
"""From what is shared, the series (or patterns file) and an output folder to the command."""


@dataclass(frozen=True)
class Case:
    """One thing to time.

    Parameters
    ----------
    name
        Key in the JSON.
    label
        In the table.
    command
        What is run.
    baseline
        The case it is compared with.
    env
        Added to the environment.
    slow
        Timed on fewer frames.
    over_patterns
        The input is a patterns file, not frames.
    inside
        It measures itself and writes what it found as OUT/floor.json.
    layouts
        Of frames that it can read; empty = all.
    """

    name: str
    label: str
    command: Command
    baseline: str
    env: dict[str, str] = field(default_factory=dict)
    slow: bool = False
    over_patterns: bool = False
    inside: bool = False
    layouts: tuple[str, ...] = ()

    def long(self, work: Work) -> Series:
        """The series of the long run."""
        return work.slow if self.slow else work.fast


# --- commands --------------------------------------------------------------------------------


def _about(work: Work, series: Series) -> list[str]:
    low, high, count = work.bins
    common = ["--poni", str(series.poni), "--mask", str(work.mask)]
    return [*common, "--bins", repr(low), repr(high), str(count)]


def _script(*options: str, model: str = "") -> Command:
    def command(work: Work, series: Series, out: Path) -> list[str]:
        text = [sys.executable, str(HERE / "script_loop.py"), *map(str, series.files)]
        text += [*_about(work, series), *options, "-o", str(out / "out.npz")]
        if model:
            text += ["--model", str(work.models[model]), "--coverage", str(work.coverage)]
        return text

    return command


def _floor(work: Work, series: Series, out: Path) -> list[str]:
    text = [sys.executable, str(HERE / "floor.py"), str(series.files[0]), *_about(work, series)]
    for name, folder in work.models.items():
        text += ["--model", f"{name}={folder}"]
    return [*text, "--kernel", "-o", str(out / "floor.json")]


def _xrdpipe(work: Work) -> list[str]:
    bins = ["--bins", str(work.data.bins)] if work.data.bins else []
    return [*work.data.options, *bins]


def integrate(*options: str) -> Command:
    """``xrdpipe integrate``."""

    def command(work: Work, series: Series, out: Path) -> list[str]:
        text = [*xrdpipe(), "integrate", str(series.folder), "--poni", str(series.poni)]
        return [*text, *_xrdpipe(work), *options, "-o", str(out / "patterns.h5")]

    return command


def _map_frames(*options: str, model: str = "shipped") -> Command:
    def command(work: Work, series: Series, out: Path) -> list[str]:
        rows, columns = scan_shape(series.frames)
        text = [*xrdpipe(), "map", str(series.folder), "--poni", str(series.poni)]
        text += ["--model", str(work.models[model]), "--scan-shape", f"{rows}x{columns}"]
        text += [*_xrdpipe(work), *options, "--device", "cpu", "--variant", "unmasked"]
        return [*text, "-o", str(out / "map.h5")]

    return command


def _map_patterns(*options: str) -> Command:
    def command(work: Work, patterns: Path, out: Path) -> list[str]:
        text = [*xrdpipe(), "map", str(patterns), "--model", str(work.models["shipped"])]
        return [*text, "--device", "cpu", *options, "-o", str(out / "map.h5")]

    return command


def _diffmap(algorithm: str | None) -> Command:
    """``pyFAI-diffmap --no-gui``; with an algorithm: set up to give what xrdpipe gives."""

    def command(work: Work, series: Series, out: Path) -> list[str]:
        rows, columns = scan_shape(series.frames)
        text = [sys.executable, "-c", "from pyFAI.app.diff_map import main; main()", "--no-gui"]
        text += ["-t", str(columns), "-r", str(rows), "-o", str(out / "diffmap.h5")]
        if algorithm is None:
            text += ["-p", str(series.poni), "-c", str(work.bins[2])]
        else:
            config = out / "diffmap.json"
            settings = _worker_settings(work, series, algorithm)
            config.write_text(json.dumps({"diffmap_config_version": 1, "ai": settings}))
            text += ["--config", str(config)]
        return text + [str(file.resolve()) for file in series.files]

    return command


def _integrate_tool(work: Work, series: Series, out: Path) -> list[str]:
    """``pyFAI-integrate --no-gui``, set up to give what xrdpipe gives."""
    config = out / "integrate.json"
    config.write_text(json.dumps(_worker_settings(work, series, "csc") | {"do_2D": False}))
    text = [sys.executable, "-c", "from pyFAI.app.integrate import main; main()", "--no-gui"]
    text += ["-j", str(config), "-o", str(out / "integrate.h5")]
    return text + [str(file.resolve()) for file in series.files]


def _worker_settings(work: Work, series: Series, algorithm: str) -> dict[str, Any]:
    low, high, count = work.bins
    return {
        "application": "worker",
        "version": 5,
        "poni": _poni(series.poni),
        "unit": "2th_deg",
        "nbpt_rad": count,
        "nbpt_azim": 1,
        "radial_range": [low, high],
        "method": ["bbox", algorithm, "cython"],
        "error_model": "poisson",
        "polarization_description": [0.99, 0],
        "correct_solid_angle": True,
        "mask_file": str(work.mask.resolve()),
    }


def _poni(path: Path) -> dict[str, Any]:
    """A PONI file as the JSON of pyFAI's workers wants it (metres and radian)."""
    lines = (line.split(":", 1) for line in path.read_text().splitlines() if line[:1] != "#")
    entries = {key.strip().lower(): value.strip() for key, value in lines}
    numbers = ("poni1", "poni2", "rot1", "rot2", "rot3", "wavelength")
    return {
        "poni_version": 2.1,
        "dist": float(entries["distance"]),
        **{name: float(entries[name]) for name in numbers},
        "detector": entries["detector"],
        "detector_config": json.loads(entries["detector_config"]),
    }


# --- cases -----------------------------------------------------------------------------------


def cases() -> list[Case]:
    """Every case, in the order in which a round runs them."""
    return [*_of_pyfai(), *_of_integrate(), *_of_map()]


def _of_pyfai() -> list[Case]:
    script = "script"
    rows: list[tuple[str, str, Command, dict[str, str]]] = [
        (script, "script: read, integrate (csc)", _script(), ONE_THREAD),
        ("script-csr", "script: the same with csr", _script("--algorithm", "csr"), ONE_THREAD),
        (
            "clip",
            "script: csc and `sigma_clip_ng` (bbox)",
            _script("--clip", "bbox"),
            ONE_THREAD,
        ),
        (
            "clip-no",
            "script: csc and `sigma_clip_ng` (no splitting)",
            _script("--clip", "no"),
            ONE_THREAD,
        ),
        ("diffmap", "`pyFAI-diffmap`, its defaults", _diffmap(None), {}),
        ("diffmap-csr", "`pyFAI-diffmap`, csr, Poisson errors", _diffmap("csr"), {}),
        ("diffmap-csc", "`pyFAI-diffmap`, csc, Poisson errors", _diffmap("csc"), {}),
        ("integrate-tool", "`pyFAI-integrate`, csc, Poisson errors", _integrate_tool, {}),
    ]
    floor = Case(
        "floor", "floor", _floor, script, ONE_THREAD, slow=True, inside=True, layouts=("eiger",)
    )
    return [floor, *(Case(*row[:3], script, row[3], slow=True) for row in rows)]


def _of_integrate() -> list[Case]:
    variants = {
        "unmasked": ("unmasked", ("--variant", "unmasked")),
        "masked": ("masked (robust rejection)", ()),
        "both": ("both variants, spottiness", ("--variant", "both", "--spottiness")),
    }
    made = []
    for name, (label, options) in variants.items():
        text = f"`integrate` {label}"
        one = integrate(*options, "--threads", "1")
        made += [
            Case(name, text, integrate(*options), "script"),
            Case(f"{name}-1", f"{text}, 1 thread", one, "script", ONE_THREAD),
        ]
        if name != "masked":
            made += [
                Case(
                    f"{name}-off",
                    f"{text}, no kernel",
                    integrate(*options),
                    "script",
                    KERNEL_OFF,
                    slow=True,
                ),
                Case(
                    f"{name}-off-1",
                    f"{text}, no kernel, 1 thread",
                    one,
                    "script",
                    ONE_THREAD | KERNEL_OFF,
                    slow=True,
                ),
            ]
    return made


def _of_map() -> list[Case]:
    one = ("--threads", "1")
    made = []
    for model, prefix, label in (
        ("shipped", "", "shipped ensemble"),
        ("paper", "paper-", "paper's network"),
    ):
        script = f"{prefix}script-map"
        made += [
            Case(
                script,
                f"script: csc, {label} at batch 1",
                _script(model=model),
                script,
                ONE_THREAD,
                slow=True,
            ),
            Case(
                f"{prefix}script-map-csr",
                f"script: csr, {label} at batch 1",
                _script("--algorithm", "csr", model=model),
                script,
                ONE_THREAD,
                slow=True,
            ),
            Case(
                f"{prefix}map-frames",
                f"`map FRAMES --poni` unmasked, {label}",
                _map_frames(model=model),
                script,
            ),
            Case(
                f"{prefix}map-frames-1",
                f"`map FRAMES --poni` unmasked, {label}, 1 thread",
                _map_frames(*one, model=model),
                script,
                ONE_THREAD,
            ),
        ]
    made += [
        Case(
            "map-patterns",
            "`map patterns.h5` (per pattern)",
            _map_patterns(),
            "script-map",
            over_patterns=True,
        ),
        Case(
            "map-patterns-1",
            "`map patterns.h5` (per pattern), 1 thread",
            _map_patterns(*one),
            "script-map",
            ONE_THREAD,
            over_patterns=True,
        ),
    ]
    return made
