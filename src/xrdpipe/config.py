"""Every option, defined once: library call, command line and TOML are three faces of this file.

A stage's configuration is a frozen dataclass composed of option groups. A field carries its
default, its sentence of help and its checks; the command line and the TOML reader are made
from the same fields, so the three cannot disagree.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from xrdpipe.errors import OptionError, did_you_mean


def option(
    help: str,
    default: Any = MISSING,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    parse: Callable[[Any], Any] | None = None,
    metavar: str | None = None,
    flags: tuple[str, ...] = (),
    argument: bool = False,
    group: str = "",
) -> Any:
    """Define one option.

    Parameters
    ----------
    help
        One sentence, with the unit.
    default
        Absent = required.
    low, above, high
        Inclusive lower, exclusive lower and inclusive upper bound of numbers.
    parse
        Reads the textual form (``"24x32"``); values already of the right type pass through it.
    metavar, flags, argument
        Placeholder, extra short flags, positional: for the command line only.
    group
        Heading of the help page under which it stands; that of its option group where empty.
    """
    metadata = {
        "help": help,
        "low": low,
        "above": above,
        "high": high,
        "parse": parse,
        "metavar": metavar,
        "flags": flags,
        "argument": argument,
        "group": group,
    }
    return field(default=default, metadata=metadata, kw_only=True)


def _parse_shape(value: Any) -> tuple[int, int]:
    if isinstance(value, str):
        parts = value.lower().replace("×", "x").split("x")
        if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
            raise OptionError(
                f"scan shape '{value}' cannot be read; expected NYxNX (rows x columns), e.g. 24x32."
            )
        value = [int(part) for part in parts]
    try:
        shape = tuple(int(part) for part in value)
    except (TypeError, ValueError, OverflowError) as error:
        raise OptionError(f"scan shape {value!r} must be two positive numbers, NYxNX.") from error
    if len(shape) != 2 or min(shape) < 1:
        raise OptionError(f"scan shape {value} must be two positive numbers, NYxNX.")
    return shape[0], shape[1]


def _parse_optional_number(value: Any) -> float | None:
    if value is None or (isinstance(value, str) and value.strip().lower() == "none"):
        return None
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise OptionError(f"'{value}' is neither a number nor 'none'.") from error


def _parse_sentinel(value: Any) -> tuple[float, ...] | str | None:
    if value is None or value in ("auto", "none"):
        return None if value == "auto" else value
    if isinstance(value, (int, float)):
        return (float(value),)
    parts = value.split(",") if isinstance(value, str) else value
    try:
        return tuple(float(part) for part in parts)
    except (TypeError, ValueError) as error:
        raise OptionError(
            f"sentinel '{value}' cannot be read; expected numbers separated by commas, "
            "'none' or 'auto'."
        ) from error


def _parse_prior(value: Any) -> tuple[float, ...] | None:
    if value is None:
        return None
    if isinstance(value, (int, float)):
        value = (value,)
    parts = value.split(",") if isinstance(value, str) else value
    try:
        prior = tuple(float(part) for part in parts)
    except (TypeError, ValueError) as error:
        raise OptionError(
            f"prior '{value}' cannot be read; expected one probability, or one per phase "
            "separated by commas."
        ) from error
    if not all(0 < p < 1 for p in prior):
        raise OptionError(f"prior {value}: every probability must lie between 0 and 1.")
    return prior


def _parse_columns(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    parts = tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value
    parts = tuple(parts)
    known = ("axis", "I", "sigma", "skip")
    for part in parts:
        if part not in known:
            raise OptionError(f"column '{part}' is not one of {', '.join(known)}.")
    if parts.count("axis") != 1 or parts.count("I") != 1 or parts.count("sigma") > 1:
        raise OptionError(
            f"columns {','.join(parts)}: expected one axis, one I, at most one sigma."
        )
    return parts


def parse_polygon(text: str) -> tuple[tuple[float, float], ...]:
    """Corners (column, row) of ``'10,20 60,20 60,80'``; at least three.

    Raises
    ------
    OptionError
        If the text cannot be read.
    """
    try:
        corners = tuple((float(x), float(y)) for x, y in (part.split(",") for part in text.split()))
    except ValueError as error:
        raise OptionError(
            f"polygon '{text}' cannot be read; expected 'column,row column,row …', "
            "for example '10,20 60,20 60,80'."
        ) from error
    if len(corners) < 3:
        raise OptionError(f"polygon '{text}' has {len(corners)} corners; it needs three or more.")
    return corners


MASK_SUFFIXES = (".h5", ".edf", ".npy")
"""File types of masks: NeXus (says why each pixel is masked), and what other programs read."""


def _parse_left_polarization(value: Any) -> float | str:
    text = str(value).strip().lower()
    if text in ("auto", "none"):
        return text
    try:
        return float(text)
    except ValueError as error:
        raise OptionError(f"'{value}' is neither a number, 'none' nor 'auto'.") from error


def _parse_word(value: Any) -> str | None:
    """Letters, digits and ``.,:+-_`` only: the value becomes a line of a batch script."""
    if value is None or re.fullmatch(r"[\w.,:+-]+", str(value)):
        return None if value is None else str(value)
    raise OptionError(f"{value!r} has characters other than letters, digits and . , : + - _.")


# --- option groups ---------------------------------------------------------------------------


@dataclass(frozen=True)
class GeometryOptions:
    """Geometry."""

    flip: Literal["none", "ud", "lr", "both"] = option(
        "Flip frames, dark, flat and the file's pixel mask before anything else: ud = up-down.",
        "none",
    )
    rotate: Literal[0, 90, 180, 270] = option(
        "Rotate them counter-clockwise by this many degrees, after the flip.", 0
    )
    wavelength: float | None = option(
        "Wavelength in Å, instead of the one in the geometry file.", None, above=0
    )
    unit: Literal["2theta", "q"] = option(
        "Radial axis: 2theta in degrees or q in 1/angstrom.", "2theta"
    )
    bins: int | None = option(
        "Number of bins (default: 0.01° wide, centred on multiples of 0.01°).", None, low=2
    )
    radial_range: tuple[float, float] | None = option(
        "First and last bin centre, in the unit of the axis (default: the full detector).",
        None,
        metavar="LO HI",
    )
    splitting: Literal["no", "bbox", "full"] = option(
        "How a pixel is shared between bins: pyFAI's pixel splitting.", "bbox"
    )
    solid_angle: bool = option("Correct for the solid angle of the pixels.", True)
    polarization_factor: float | None = option(
        "Polarization correction: 1 horizontal, -1 vertical, 0 circular, 'none' for none.",
        0.99,
        low=-1,
        high=1,
        parse=_parse_optional_number,
        metavar="FLOAT|none",
    )


@dataclass(frozen=True)
class MaskOptions:
    """Masks and rejection."""

    mask: tuple[str, ...] = option(
        "Mask file, or the name of a shipped mask; nonzero = masked; in the orientation of the "
        "PONI ('PATH@stored': of the stored frame). May be given several times.",
        (),
        metavar="FILE|NAME",
        flags=("-m",),
    )
    sentinel: tuple[float, ...] | str | None = option(
        "Raw values that mean 'no measurement' (default: decided from the detector and dtype).",
        None,
        parse=_parse_sentinel,
        metavar="VALUES|none|auto",
    )
    saturation: float | None = option(
        "Raw counts at and above which a pixel is saturated (default: from the metadata).",
        None,
        above=0,
    )
    reject: Literal["robust", "sigma-clip", "none"] = option(
        "Outlier rejection along the azimuth, for the masked variant.", "robust"
    )
    reject_threshold: float = option(
        "Rejection threshold in standard deviations.", 5.0, low=2, high=50
    )
    halo: int = option("Pixels grown around saturated spots by 'robust'.", 3, low=0, high=64)


@dataclass(frozen=True)
class CorrectionOptions:
    """Errors and normalisation."""

    error_model: Literal["poisson", "azimuthal", "none"] = option(
        "Where the errors come from.", "poisson"
    )
    gain: float | None = option(
        "ADU per photon of an integrating detector, needed for its Poisson errors.", None, above=0
    )
    read_noise: float | None = option(
        "Read noise of an integrating detector, ADU per pixel.", None, low=0
    )
    spottiness: bool = option("Also write spottiness and azimuthal excess variance.", False)
    dark: tuple[str, ...] = option(
        "Dark frames: file, folder, glob, or file.h5::/dataset; several are averaged, "
        "'NAME[i]' takes frame i of a stack.",
        (),
        metavar="FILE",
    )
    flat: tuple[str, ...] = option(
        "Flat field; named like --dark.",
        (),
        metavar="FILE",
    )
    monitor: tuple[str, ...] = option(
        "Monitor counts per frame: a name from the metadata, TABLE::COLUMN, or "
        "FILE.h5::/dataset. Several: normalised to each.",
        (),
        metavar="NAME|FILE::COLUMN",
    )
    monitor_reference: tuple[float, ...] = option(
        "Intensities become I·reference/monitor; one per --monitor (default: their medians).",
        (),
        metavar="X",
    )
    exposure: str | None = option(
        "Divide by the exposure time: 'auto' takes it from the metadata (s), else named like "
        "--monitor. The unit of intensity becomes counts per second.",
        None,
        metavar="auto|NAME|FILE::COLUMN",
    )


@dataclass(frozen=True)
class SynthesisOptions:
    """Synthetic patterns."""

    cif: tuple[Path, ...] = option(
        "CIF file of a phase, in class order; may be given several times "
        "(default: the three shipped).",
        (),
        metavar="FILE",
    )
    wavelength: float = option("Wavelength of the grid, Å.", above=0)
    recipe: str | None = option(
        "Recipe file, or the name of a shipped one (default: train-small).",
        None,
        metavar="NAME|FILE",
    )
    grid: str = option("2theta grid, degrees.", "5:24:0.01", metavar="START:STOP:STEP")


@dataclass(frozen=True)
class OutputOptions:
    """Output and running."""

    output: Path | None = option(
        "File to write (default: patterns.h5, map.h5 or resampled.h5, after what it is).",
        None,
        flags=("-o",),
        metavar="FILE",
    )
    restart: bool = option("Discard earlier work on this output and start again.", False)


@dataclass(frozen=True)
class RunOptions:
    """Output and running."""

    threads: int | None = option("Worker threads (default: all cores).", None, low=1)
    engine: Literal["matrix", "pyfai"] = option(
        "matrix: pyFAI's sparse matrix applied by xrdpipe; pyfai: pyFAI's own integrator.",
        "matrix",
    )
    device: Literal["auto", "cpu", "cuda"] = option(
        "Where networks run; auto: on a GPU if there is one. With cuda frames are summed there, "
        "too, unless pixels are rejected.",
        "auto",
    )
    cache: bool = option(
        "Keep on disk, for the next run, what geometry and masks alone decide.",
        True,
    )


@dataclass(frozen=True)
class ResamplingOptions:
    """Resampling."""

    method: Literal["linear", "overlap", "auto"] = option(
        "How patterns come onto the grid; auto: overlap onto an equal or coarser grid, linear "
        "onto a finer one.",
        "auto",
    )


@dataclass(frozen=True)
class ScanOptions:
    """Scan."""

    positions: str | None = option(
        "Where the frames lie: two motors 'X,Y' of the patterns, TABLE::X,Y, or 'none' for the "
        "order of the frames (default: what the files say).",
        None,
        metavar="X,Y|TABLE::X,Y|none",
    )
    position_unit: Literal["m", "mm", "um", "nm"] | None = option(
        "Unit of the positions, where the files do not say it; maps then have a scale bar.", None
    )
    scan_shape: tuple[int, int] | None = option(
        "Rows x columns of the scan (default: from the positions; without any, one row).",
        None,
        parse=_parse_shape,
        metavar="NYxNX",
    )
    snake: bool = option("Every second line of the scan runs backwards.", False)
    fast_axis: Literal["x", "y"] = option("The axis that moves from frame to frame.", "x")
    incomplete: bool = option(
        "Accept fewer frames than pixels where nothing tells which are missing: the last ones.",
        False,
    )
    first_number: int | None = option(
        "Number of the frame at the first point of the scan or row of the table (default: the one "
        "that fits).",
        None,
    )


NOT_RECORDED = frozenset({"output", "restart", "threads", "cache", "png"})
"""Options that change where, when or how fast, but no number."""


# --- stages ----------------------------------------------------------------------------------


class Config:
    """What every stage's configuration can do; fields are validated as it is made."""

    def __post_init__(self) -> None:
        for definition in fields(type(self)):
            value = _checked(definition, getattr(self, definition.name))
            object.__setattr__(self, definition.name, value)
        self.check_together()

    def check_together(self) -> None:
        """Refuse options that contradict each other; each stage adds its own."""

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], where: str = "") -> Self:
        """Build from a mapping (TOML table, command line); unknown keys are refused.

        Raises
        ------
        OptionError
            With the nearest known name, or the name of the required option that is absent.
        """
        prefix = f"{where}: " if where else ""
        known = {definition.name: definition for definition in fields(cls)}
        renamed = {key.replace("-", "_"): value for key, value in mapping.items()}
        for key in renamed:
            if key not in known:
                raise OptionError(f"{prefix}unknown option '{key}'.{did_you_mean(key, known)}")
        for name, definition in known.items():
            if definition.required and renamed.get(name) in (None, (), []):
                raise OptionError(f"{prefix}option '{name}' is required ({definition.help})")
        try:
            return cls(**renamed)
        except OptionError as error:
            raise OptionError(f"{prefix}{error}") from error

    def resolved(self) -> dict[str, Any]:
        """Every option with its value, as JSON can hold it."""
        values: dict[str, Any] = {}
        for definition in fields(type(self)):
            value = getattr(self, definition.name)
            if isinstance(value, Path):
                value = str(value)
            elif isinstance(value, tuple):
                value = [str(v) if isinstance(v, Path) else v for v in value]
            values[definition.name] = value
        return values

    def recorded(self) -> dict[str, Any]:
        """What an output keeps: the options that can change its content (decision 22)."""
        return {k: v for k, v in self.resolved().items() if k not in NOT_RECORDED}


@dataclass(frozen=True)
class IntegrateConfig(
    Config, RunOptions, OutputOptions, CorrectionOptions, MaskOptions, GeometryOptions
):
    """Integrate detector frames into 1D patterns with errors (NXazint1d file)."""

    frames: tuple[str, ...] = option(
        "Folder, glob, files, or file.h5::/dataset.", argument=True, metavar="FRAMES"
    )
    poni: Path = option("Geometry: the PONI file of the calibration.", metavar="FILE")
    variant: Literal["masked", "unmasked", "both"] = option(
        "masked: dead pixels, masks, saturated pixels and outliers left out; unmasked: only "
        "dead pixels; both: each frame read once, both written.",
        "masked",
        group="Masks and rejection",
    )

    def check_together(self) -> None:
        """See check_integration."""
        check_integration(self, self.variant)


def check_integration(config: MaskOptions, variant: str | None) -> None:
    """Masks belong to the masked variant; spottiness needs a rejection (decisions 2 and 6).

    Raises
    ------
    OptionError
        Naming both options.
    """
    if variant == "unmasked" and config.mask:
        raise OptionError(
            "--mask has no effect on --variant unmasked, which leaves out dead pixels only; "
            "drop the mask, or use --variant masked or both."
        )
    if isinstance(config, CorrectionOptions) and config.spottiness and config.reject == "none":
        raise OptionError(
            "--spottiness is what rejection removes: it needs --reject robust or sigma-clip."
        )


@dataclass(frozen=True)
class ResampleConfig(Config, OutputOptions, ResamplingOptions):
    """Bring patterns onto a 2θ grid, or a model's grid, through the wavelength."""

    patterns: Path = option("Patterns file.", argument=True, metavar="PATTERNS")
    grid: str | None = option(
        "2theta grid, degrees; needs --wavelength.", None, metavar="START:STOP:STEP", group="Grid"
    )
    wavelength: float | None = option("Wavelength of the grid, Å.", None, above=0, group="Grid")
    model: str | None = option(
        "Take grid and wavelength of this model (name or folder).",
        None,
        metavar="NAME|FOLDER",
        group="Grid",
    )
    variant: Literal["masked", "unmasked"] | None = option(
        "Which variant, where the file holds both (default: masked).", None, group="Resampling"
    )

    def check_together(self) -> None:
        """The grid comes from one place."""
        if (self.model is None) == (self.grid is None):
            raise OptionError("give either --grid with --wavelength, or --model.")
        if self.grid is not None and self.wavelength is None:
            raise OptionError("--grid needs --wavelength: a 2theta grid means nothing without it.")
        if self.model is not None and self.wavelength is not None:
            raise OptionError("--wavelength belongs to --grid; a model brings its own.")


@dataclass(frozen=True)
class MapConfig(
    Config,
    RunOptions,
    OutputOptions,
    CorrectionOptions,
    MaskOptions,
    GeometryOptions,
    ResamplingOptions,
    ScanOptions,
):
    """Map phases: patterns (or, with --poni, frames) to a per-pixel phase map (HDF5 + PNG)."""

    patterns: tuple[str, ...] = option(
        "Patterns file; with --poni: frames, integrated first.",
        argument=True,
        metavar="PATTERNS|FRAMES",
    )
    model: str | None = option(
        "Model name or folder (default: the shipped model).",
        None,
        metavar="NAME|FOLDER",
        group="Model",
    )
    variant: Literal["masked", "unmasked", "both"] | None = option(
        "Which variant, where the file holds both (default: masked); 'both': the mean of what the "
        "model says of either.",
        None,
        group="Model",
    )
    poni: Path | None = option(
        "Geometry: maps frames in one pass; the integration options apply.",
        None,
        metavar="FILE",
        group="Geometry",
    )
    prior: tuple[float, ...] | None = option(
        "Prior probability of presence, one or one per phase, instead of the model's.",
        None,
        parse=_parse_prior,
        metavar="P[,P...]",
        group="Model",
    )
    neighbours: bool = option(
        "Let neighbouring pixels be a prior on presence, as far as the map shows that they tell.",
        False,
        group="Model",
    )
    with_patterns: bool = option(
        "Store the resampled patterns in the map file too.", False, group="Output and running"
    )
    png: bool = option(
        "Write a picture of the maps beside the file.", True, group="Output and running"
    )

    def check_together(self) -> None:
        """See check_integration."""
        if self.poni is not None:
            check_integration(self, self.variant)


FrameFormat = Literal[
    "tiff",
    "tiff-stack",
    "cbf",
    "edf",
    "edf-stack",
    "marccd",
    "mar345",
    "spe",
    "ge",
    "eiger",
    "eiger-4d",
    "lima",
    "bliss",
    "areadetector",
    "maxiv",
    "petra",
    "nexus",
    "nexus-stack",
    "hdf5",
]

Effect = Literal[
    "all",
    "background",
    "noise",
    "grains",
    "texture",
    "strain",
    "displacement",
    "air",
    "fluid",
    "compton",
    "gasket",
    "diamonds",
    "halos",
    "beamstop",
    "dead",
    "hot",
    "zingers",
    "drift",
    "poisson",
    "saturation",
]


def _parse_effects(value: Any) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    return tuple(_as_kind(Effect, part.strip()) for part in parts)


@dataclass(frozen=True)
class SimulateConfig(Config):
    """Simulate a detector folder of a synthetic map with its truth file."""

    output: Path = option("Folder to write.", flags=("-o",), metavar="FOLDER")
    scan_shape: tuple[int, int] = option(
        "Rows x columns of the scan.", parse=_parse_shape, metavar="NYxNX"
    )
    seed: int = option("Seed: the same seed gives the same frames.", low=0)
    cif: tuple[Path, ...] = option(
        "CIF file of a phase, in class order; may be given several times "
        "(default: the three shipped).",
        (),
        metavar="FILE",
        group="Sample",
    )
    poni: Path | None = option(
        "Geometry to simulate with; replaces the four options that follow.",
        None,
        metavar="FILE",
        group="Geometry",
    )
    detector: str | None = option(
        "Detector, by pyFAI's name (default: Pilatus300k).", None, metavar="NAME", group="Geometry"
    )
    distance: float | None = option(
        "Sample to detector distance, m (default: 0.1).", None, above=0, group="Geometry"
    )
    wavelength: float | None = option(
        "Wavelength, Å (default: 0.4959).", None, above=0, group="Geometry"
    )
    tilt: tuple[float, float, float] | None = option(
        "Rotations rot1 rot2 rot3 of the detector, degrees (default: 0.57 -0.34 0).",
        None,
        metavar="ROT1 ROT2 ROT3",
        group="Geometry",
    )
    layout: Literal["independent", "crust", "gasket-rim", "inclusions", "random"] = option(
        "How the phases lie in the map; independent: every combination occurs.",
        "independent",
        group="Sample",
    )
    format: FrameFormat = option("File layout of the frames.", "tiff", group="Frames")
    counts: float = option(
        "Mean counts per pixel at the strongest line.", 30.0, above=0, group="Frames"
    )
    grains: float = option(
        "Mean log10 of the number of grains per phase.", 4.0, low=0, high=8, group="Sample"
    )
    distractor: bool = option("Add phases that are not in the label set.", True, group="Sample")
    without: tuple[str, ...] = option(
        f"Effects to leave out, separated by commas: {', '.join(typing.get_args(Effect))}.",
        (),
        parse=_parse_effects,
        metavar="EFFECT[,EFFECT...]",
        group="Frames",
    )
    snake: bool = option("Every second line of the scan runs backwards.", False, group="Scan")
    fast_axis: Literal["x", "y"] = option(
        "The axis that moves from frame to frame.", "x", group="Scan"
    )
    preview: bool = option(
        "Draw one picture, FOLDER.png, instead of writing frames.",
        False,
        group="Output and running",
    )
    threads: int | None = option(
        "Threads (default: all cores).", None, low=1, group="Output and running"
    )
    restart: bool = option(
        "Replace the content of an existing folder.", False, group="Output and running"
    )

    def check_together(self) -> None:
        """The geometry comes from one place."""
        if self.poni is not None:
            for name in ("detector", "distance", "wavelength", "tilt"):
                if getattr(self, name) is not None:
                    raise OptionError(f"--{name} belongs to a new geometry; --poni brings its own.")


@dataclass(frozen=True)
class SynthesizeConfig(Config, SynthesisOptions):
    """Write a set of synthetic 1D patterns with everything that is known about them."""

    output: Path = option("HDF5 file to write.", flags=("-o",), metavar="FILE")
    number: int = option(
        "Patterns, each masked and unmasked.",
        1000,
        flags=("-n",),
        low=1,
        group="Synthetic patterns",
    )
    seed: int = option(
        "Seed: pattern i is the same for the same seed.", 0, low=0, group="Synthetic patterns"
    )
    png: bool = option(
        "Draw the first twelve patterns beside the file.", True, group="Output and running"
    )
    restart: bool = option("Replace an earlier set.", False, group="Output and running")


@dataclass(frozen=True)
class TrainConfig(Config, SynthesisOptions):
    """Train a model from CIF files and a wavelength."""

    output: Path = option("Model folder to write.", flags=("-o",), metavar="FOLDER")
    labelled: tuple[Path, ...] = option(
        "Patterns with known phases, for a hybrid recipe. May be given several times.",
        (),
        metavar="FILE",
        group="Measured patterns",
    )
    truth: tuple[Path, ...] = option(
        "What they hold: a truth file for each, in the same order.",
        (),
        metavar="FILE",
        group="Measured patterns",
    )
    variant: Literal["masked", "unmasked"] = option(
        "Variant of the labelled patterns.", "masked", group="Measured patterns"
    )
    calibrant: Path | None = option(
        "Pattern of a calibrant, measured as the patterns to map (.h5 of integrate or collect, or "
        ".xy, .xye, .chi): its line widths replace the recipe's ranges.",
        None,
        metavar="PATTERN",
        group="Measured patterns",
    )
    calibrant_cif: Path | None = option(
        "CIF file of the calibrant.", None, metavar="FILE", group="Measured patterns"
    )
    like: Path | None = option(
        "Patterns file of a map, without labels: its line widths, background, counts and coverage "
        "narrow the recipe's ranges.",
        None,
        metavar="PATTERNS",
        group="Measured patterns",
    )
    start: str | None = option(
        "Model whose weights training starts from: same network, channels, phases and grid.",
        None,
        metavar="NAME|FOLDER",
        group="Training",
    )
    seed: int = option("Seed of weights and patterns.", 0, low=0, group="Training")
    threads: int | None = option(
        "Threads (default: all cores).", None, low=1, group="Output and running"
    )
    restart: bool = option(
        "Discard earlier work on this output and start again.", False, group="Output and running"
    )

    def check_together(self) -> None:
        """A calibrant is a pattern and its structure."""
        if (self.calibrant is None) != (self.calibrant_cif is None):
            raise OptionError("--calibrant PATTERN and --calibrant-cif FILE belong together.")


@dataclass(frozen=True)
class EvaluateConfig(Config):
    """Score a map against the truth, beside prevalence."""

    map: Path = option("Map file.", argument=True, metavar="MAP")
    truth: Path = option("Truth file of the simulation.", argument=True, metavar="TRUTH")
    json: bool = option("Print the scores as JSON.", False, group="Output and running")


@dataclass(frozen=True)
class InspectConfig(Config, GeometryOptions, MaskOptions):
    """Say what is in a file or folder, and what is missing or odd."""

    path: tuple[str, ...] = option(
        "Folder, glob, files, file.h5::/dataset, or a file xrdpipe wrote.",
        argument=True,
        metavar="PATH",
    )
    poni: Path | None = option(
        "Check the frames against this geometry.", None, metavar="FILE", group="Geometry"
    )
    sample: int = option(
        "Frames read, spread over the series; 0 = all.", 20, low=0, group="Output and running"
    )
    json: bool = option("Print the answer as JSON.", False, group="Output and running")


@dataclass(frozen=True)
class CollectConfig(Config, OutputOptions):
    """Pack 1D patterns made elsewhere (.xy, .xye, .chi, .dat, .xrdml, .fxye) into one file."""

    patterns: tuple[str, ...] = option(
        "Folder, glob or files of 1D patterns, in natural order of their names.",
        argument=True,
        metavar="PATTERNS",
    )
    wavelength: float | None = option(
        "Wavelength in Å (default: what every file states; required where they are silent).",
        None,
        above=0,
        group="Columns and units",
    )
    unit: Literal["auto", "2theta", "2theta-rad", "q", "q-nm", "d"] = option(
        "First column: 2theta in degrees or radians, q in 1/angstrom or 1/nm, or d in angstrom "
        "(auto: from the header, else 2theta).",
        "auto",
        group="Columns and units",
    )
    columns: tuple[str, ...] | None = option(
        "What the columns are, in order: axis, I, sigma, or skip (default: a third column is "
        "sigma only in .xye and .fxye, or where the header names it so).",
        None,
        parse=_parse_columns,
        metavar="axis,I[,sigma]",
        group="Columns and units",
    )
    common_grid: bool = option(
        "Bring patterns with different axes onto one: finest step, union of the ranges.",
        False,
        group="Resampling",
    )
    polarization_factor: float | str = option(
        "Polarization of the beam, left in the patterns: 0 for a lab tube; 'none': they are "
        "corrected (default 'auto': what pyFAI's header says, else 0).",
        "auto",
        low=-1,
        high=1,
        parse=_parse_left_polarization,
        metavar="FLOAT|none|auto",
        group="Columns and units",
    )


@dataclass(frozen=True)
class MaskConfig(Config):
    """Build a mask from a stack of frames, and combine it with others; draws it on a frame."""

    frames: tuple[str, ...] = option(
        "Folder, glob, files, or file.h5::/dataset.", argument=True, metavar="FRAMES"
    )
    output: Path = option(
        "Mask to write: .edf, .npy, or .h5 (NeXus); a .png of the same name shows it.",
        flags=("-o",),
        metavar="FILE",
    )
    poni: Path | None = option(
        "Geometry: tells the detector's gaps; needed by --spots, --azimuthal and --shadow.",
        None,
        metavar="FILE",
        group="Geometry",
    )
    flip: Literal["none", "ud", "lr", "both"] = option(
        "Flip the frames first, as 'integrate' will: a mask lies like the PONI.",
        "none",
        group="Geometry",
    )
    rotate: Literal[0, 90, 180, 270] = option(
        "Rotate them counter-clockwise by this many degrees, after the flip.", 0, group="Geometry"
    )
    combine: tuple[str, ...] = option(
        "Add this mask (file or shipped name; 'PATH@stored' lies like the stored frames). May be "
        "given several times.",
        (),
        metavar="FILE|NAME",
        group="Other masks and shapes",
    )
    detector: bool = option(
        "Mask gaps, dead pixels and sentinels of detector and file.",
        True,
        group="Pixels by themselves",
    )
    sentinel: tuple[float, ...] | str | None = option(
        "Raw values that mean 'no measurement' (default: decided from the detector and dtype).",
        None,
        parse=_parse_sentinel,
        metavar="VALUES|none|auto",
        group="Pixels by themselves",
    )
    overexposed: bool = option(
        "Mask pixels that are overexposed in any frame, grown by --halo.",
        True,
        group="Pixels by themselves",
    )
    saturation: float | None = option(
        "Raw counts at and above which a pixel is overexposed (default: from the metadata).",
        None,
        above=0,
        group="Pixels by themselves",
    )
    threshold: tuple[float, float] | None = option(
        "Mask pixels whose median over the stack lies outside LO HI (raw counts).",
        None,
        metavar="LO HI",
        group="Pixels by themselves",
    )
    hot: float | None = option(
        "Mask pixels brighter than all their neighbours through most of the series, by this many "
        "standard deviations and a factor of 3.",
        None,
        above=0,
        group="Pixels by themselves",
    )
    dead: bool = option(
        "Mask pixels that never count where their neighbours do.",
        False,
        group="Pixels by themselves",
    )
    polygon: tuple[str, ...] = option(
        "Mask a polygon 'column,row column,row …' in pixels, as the picture shows them. May be "
        "given several times.",
        (),
        metavar="POINTS",
        group="Other masks and shapes",
    )
    shadow: float | None = option(
        "Mask the shadow of beamstop and cell: connected regions below this fraction of the "
        "brightness expected at their 2theta, 0.5 for example.",
        None,
        above=0,
        high=0.95,
        group="Pixels against their ring",
    )
    spots: float | None = option(
        "Mask diamond spots: peaks above their ring by this many standard deviations, in more "
        "than --persistent of the frames, grown by --halo.",
        None,
        above=0,
        group="Pixels against their ring",
    )
    persistent: float = option(
        "Fraction of the frames in which a spot must be seen: the diamonds' spots stay while the "
        "sample's move; 0 masks what is a spot in any frame.",
        0.1,
        low=0,
        high=0.99,
        group="Pixels against their ring",
    )
    halo: int = option(
        "Pixels grown around overexposed pixels and spots.",
        3,
        low=0,
        high=64,
        group="Pixels against their ring",
    )
    azimuthal: float | None = option(
        "Mask pixels outside their ring by this many standard deviations in the stack's median.",
        None,
        above=0,
        group="Pixels against their ring",
    )
    gain: float | None = option(
        "ADU per photon of an integrating detector, for the standard deviations (default: 1).",
        None,
        above=0,
        group="Pixels against their ring",
    )
    read_noise: float | None = option(
        "Read noise of an integrating detector, ADU per pixel (default: 0).",
        None,
        low=0,
        group="Pixels against their ring",
    )
    sample: int = option(
        "Frames looked at, spread over the series.", 50, low=1, group="Output and running"
    )
    png: bool = option(
        "Draw the mask over a frame, beside the file.", True, group="Output and running"
    )
    restart: bool = option("Replace an existing mask.", False, group="Output and running")

    def check_together(self) -> None:
        """Rings need a geometry; the file type must be known; polygons must be readable."""
        for name in ("spots", "azimuthal", "shadow"):
            if getattr(self, name) is not None and self.poni is None:
                raise OptionError(f"--{name} compares pixels along their rings: give --poni.")
        if self.output.suffix.lower() not in MASK_SUFFIXES:
            raise OptionError(
                f"output '{self.output}': a mask is written as {', '.join(MASK_SUFFIXES)}; "
                f"'{self.output.suffix}' is none of them."
            )
        if self.threshold is not None and not self.threshold[0] < self.threshold[1]:
            low, high = self.threshold
            raise OptionError(f"--threshold {low:g} {high:g} is empty; expected LO < HI.")
        for text in self.polygon:
            parse_polygon(text)


@dataclass(frozen=True)
class ValidateConfig(Config):
    """Check that a file is what it claims to be."""

    file: Path = option("Patterns, map, model folder or truth file.", argument=True, metavar="FILE")


@dataclass(frozen=True)
class StatusConfig(Config):
    """Say where a run stands, from its files alone: also one that runs elsewhere, or died."""

    output: Path = option(
        "Patterns, map, mask or model that a run writes or wrote, or a folder of them.",
        argument=True,
        metavar="OUTPUT",
    )
    json: bool = option("Print the answer as JSON.", False, group="Output and running")


@dataclass(frozen=True)
class ReportConfig(Config):
    """Tell a map on one page: an HTML file with pictures, numbers, doubts and origins."""

    map: Path = option("Map file.", argument=True, metavar="MAP")
    output: Path | None = option(
        "HTML file to write (default: MAP_report.html beside the map).",
        None,
        flags=("-o",),
        metavar="FILE",
        group="Output and running",
    )
    images: Path | None = option(
        "Also write every map as PNG (300 dpi) and SVG into this folder.",
        None,
        metavar="FOLDER",
        group="Output and running",
    )


@dataclass(frozen=True)
class ExportConfig(Config):
    """Write maps as TIFF images or a CSV table, or patterns as .xye, for other programs."""

    map: Path = option("Map file.", argument=True, metavar="MAP")
    format: Literal["tiff", "csv", "xye"] = option(
        "tiff: an image per quantity; csv: a row per pixel; xye: mean patterns."
    )
    output: Path | None = option(
        "Folder of the images or patterns, or the CSV file (default: MAP_tiff, MAP_xye or "
        "MAP.csv beside the map).",
        None,
        flags=("-o",),
        metavar="PATH",
        group="Output and running",
    )
    pixel: tuple[str, ...] = option(
        "xye: the pattern of one pixel, counted from 0. May be given several times.",
        (),
        metavar="Y,X",
        group="Patterns",
    )
    region: tuple[str, ...] = option(
        "xye: the mean of a rectangle of pixels, the last row and column not included. May be "
        "given several times.",
        (),
        metavar="Y0:Y1,X0:X1",
        group="Patterns",
    )
    phase: tuple[str, ...] = option(
        "xye: the mean of the pixels where this phase is present. May be given several times.",
        (),
        metavar="NAME",
        group="Patterns",
    )
    variant: Literal["masked", "unmasked"] | None = option(
        "xye: which variant of the patterns (default: the one the map was made from).",
        None,
        group="Patterns",
    )
    header: bool = option(
        "xye: six comment lines above the numbers say what they are.", True, group="Patterns"
    )

    def check_together(self) -> None:
        """Refuse options of .xye files for the other formats."""
        if self.format == "xye":
            return
        for definition in fields(type(self)):
            own = definition.help.startswith("xye: ")
            if own and getattr(self, definition.name) != definition.default:
                raise OptionError(f"--{definition.name} is for --format xye, not {self.format}.")


@dataclass(frozen=True)
class ViewConfig(Config):
    """Explore a map in the browser: patterns, lines, fit and frames; also while it grows."""

    map: Path = option("Map file.", argument=True, metavar="MAP")
    port: int | None = option(
        "Port of the page (default: 5006, or the next that is free).",
        None,
        low=1,
        high=65535,
        group="Page",
    )
    address: str = option(
        "Address to listen on; others than 127.0.0.1 let other computers in.",
        "127.0.0.1",
        metavar="ADDRESS",
        group="Page",
    )
    open: bool = option("Open the page, where there is a desktop.", True, group="Page")
    wait: bool = option("Wait for a map that is not there yet.", False, group="Page")


@dataclass(frozen=True)
class ClusterConfig(Config):
    """What one SLURM job of ``--scheduler slurm`` asks for: ``[cluster]`` of a pipeline file.

    What is not given comes from Dask's own configuration files (``jobqueue.slurm``). Scripts that
    run in a job are theirs alone to name: a pipeline file from somebody else runs no command.
    """

    jobs: int = option("SLURM jobs to submit.", 1, low=1)
    cores: int | None = option("Cores of a job.", None, low=1)
    processes: int | None = option("Worker processes that share the cores of a job.", None, low=1)
    memory: str | None = option("Memory of a job, '16GB' for example.", None, parse=_parse_word)
    walltime: str | None = option("Longest time of a job, 'HH:MM:SS'.", None, parse=_parse_word)
    queue: str | None = option("Partition.", None, parse=_parse_word)
    account: str | None = option("Account that pays.", None, parse=_parse_word)
    interface: str | None = option(
        "Network interface of scheduler and workers, 'ib0' for example.", None, parse=_parse_word
    )


STAGES: dict[str, type[Config]] = {
    "integrate": IntegrateConfig,
    "resample": ResampleConfig,
    "map": MapConfig,
    "simulate": SimulateConfig,
    "synthesize": SynthesizeConfig,
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "inspect": InspectConfig,
    "collect": CollectConfig,
    "mask": MaskConfig,
    "validate": ValidateConfig,
    "status": StatusConfig,
    "report": ReportConfig,
    "export": ExportConfig,
    "view": ViewConfig,
}
"""Every stage and its options; the faces are made from this table."""


# --- fields as the faces read them -----------------------------------------------------------


@dataclass(frozen=True)
class OptionDefinition:
    """One option as the command line, TOML and the checks read it."""

    name: str
    annotation: Any
    default: Any
    group: str
    metadata: Mapping[str, Any]

    @property
    def required(self) -> bool:
        """True if there is no default."""
        return self.default is MISSING

    @property
    def help(self) -> str:
        """The sentence of help."""
        return str(self.metadata["help"])

    @property
    def choices(self) -> tuple[Any, ...]:
        """Allowed values of a Literal, else empty."""
        for part in members(self.annotation):
            if typing.get_origin(part) is Literal:
                return typing.get_args(part)
        return ()

    @property
    def many(self) -> bool:
        """True for options that may be given several times."""
        return (
            typing.get_origin(self.annotation) is tuple
            and self.metadata["parse"] is None
            and typing.get_args(self.annotation)[-1] is Ellipsis
        )


def members(annotation: Any) -> tuple[Any, ...]:
    """The parts of a union, or the one type itself."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def fields(config: type[Any]) -> tuple[OptionDefinition, ...]:
    """Every option of a configuration: own fields first, then its groups."""
    hints = typing.get_type_hints(config)
    groups = {
        name: (base.__doc__ or "").strip().rstrip(".")
        for base in reversed(config.__mro__)
        for name in inspect.get_annotations(base)
    }
    own = inspect.get_annotations(config)
    definitions = [
        OptionDefinition(
            f.name,
            hints[f.name],
            f.default,
            f.metadata["group"] or ("" if f.name in own else groups[f.name]),
            f.metadata,
        )
        for f in dataclasses.fields(config)
    ]
    return tuple(sorted(definitions, key=lambda d: d.name not in own))


def _checked(definition: OptionDefinition, value: Any) -> Any:
    """Return the value as its annotation wants it, or raise OptionError naming the option."""
    try:
        return _check_bounds(definition, _coerced(definition, value))
    except OptionError as error:
        raise OptionError(f"option '{definition.name}': {error}") from error


def _coerced(definition: OptionDefinition, value: Any) -> Any:
    allowed = members(definition.annotation)
    if value is None:
        if type(None) in allowed:
            return None
        raise OptionError("a value is required.")
    if definition.metadata["parse"] is not None:
        return definition.metadata["parse"](value)
    kind = next(m for m in allowed if m is not type(None))
    return _as_kind(kind, value)


def _as_kind(kind: Any, value: Any) -> Any:
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        for choice in choices:
            if value == choice or str(value) == str(choice):
                return choice
        raise OptionError(
            f"'{value}' is not one of {', '.join(map(str, choices))}."
            + did_you_mean(str(value), map(str, choices))
        )
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)
        if isinstance(value, (str, Path, int, float)):
            value = (value,)
        if inner[-1] is Ellipsis:
            return tuple(_as_kind(inner[0], item) for item in value)
        if len(value) != len(inner):
            raise OptionError(f"expected {len(inner)} values, got {len(value)}.")
        return tuple(_as_kind(k, item) for k, item in zip(inner, value, strict=True))
    if kind is bool:
        if isinstance(value, bool):
            return value
        raise OptionError(f"expected true or false, got {value!r}.")
    if kind in (int, float):
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise OptionError(f"expected a number, got {value!r}.")
        try:
            number = kind(value)
        except (ValueError, OverflowError) as error:
            raise OptionError(f"expected a number, got '{value}'.") from error
        if kind is int and float(value) != number:
            raise OptionError(f"expected a whole number, got {value}.")
        return number
    if kind in (Path, str):
        if not isinstance(value, (str, Path)):
            raise OptionError(f"expected text, got {value!r}.")
        return kind(value)
    raise TypeError(f"no rule for {kind}")  # a bug in this file, not the user's


def _check_bounds(definition: OptionDefinition, value: Any) -> Any:
    low, above, high = (definition.metadata[key] for key in ("low", "above", "high"))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if low is not None and not value >= low:
            raise OptionError(f"{value} is below {low:g}.")
        if above is not None and not value > above:
            raise OptionError(f"{value} must be greater than {above:g}.")
        if high is not None and not value <= high:
            raise OptionError(f"{value} is above {high:g}.")
    return value
