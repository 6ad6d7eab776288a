"""The nouns: read this first. Each has one line of meaning and its units.

Angles are in degrees, wavelengths in Å, lengths on the detector in metres (as in a PONI).
All are frozen; arrays inside them are not to be written to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import InputError

FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Grid:
    """A uniform 2θ axis and the wavelength that gives it a meaning.

    Parameters
    ----------
    start, stop, step
        First and last point and spacing, in degrees.
    wavelength
        In Å.
    """

    start: float
    stop: float
    step: float
    wavelength: float

    def __post_init__(self) -> None:
        if not (self.step > 0 and self.stop > self.start >= 0 and self.wavelength > 0):
            raise InputError(
                f"a grid needs 0 <= start < stop, step > 0 and wavelength > 0; got {self}."
            )

    @property
    def size(self) -> int:
        """Number of points."""
        return round((self.stop - self.start) / self.step) + 1

    @property
    def two_theta(self) -> NDArray[np.float64]:
        """The points, shape (size,), degrees, free of accumulated rounding."""
        decimals = 10
        return np.round(self.start + self.step * np.arange(self.size), decimals)

    @property
    def edges(self) -> NDArray[np.float64]:
        """Bin edges half a step around every point, shape (size + 1,), degrees."""
        return np.concatenate(
            [self.two_theta - self.step / 2, [self.two_theta[-1] + self.step / 2]]
        )

    @classmethod
    def parse(cls, text: str, wavelength: float) -> Grid:
        """Read ``"5:24:0.01"`` (start:stop:step in degrees)."""
        try:
            start, stop, step = (float(part) for part in text.split(":"))
        except ValueError as error:
            raise InputError(
                f"grid '{text}' cannot be read; expected START:STOP:STEP in degrees, "
                "for example 5:24:0.01."
            ) from error
        return cls(start, stop, step, wavelength)

    def __str__(self) -> str:
        """Return ``5-24° step 0.01° at 0.4959 Å``."""
        return f"{self.start:g}-{self.stop:g}° step {self.step:g}° at {self.wavelength:g} Å"


@dataclass(frozen=True)
class Frame:
    """One detector image as stored, before any flip or cast.

    Parameters
    ----------
    image
        Shape (rows, columns), native dtype.
    header
        Metadata of this frame (header of the file, or empty).
    """

    image: NDArray[Any]
    header: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Encoded:
    """The pixels of one detector image as a file holds them, still compressed.

    Parameters
    ----------
    data
        The bytes: a chunk of HDF5, the binary section of a CBF.
    encoding
        ``bitshuffle-lz4`` (HDF5 filter 32008) or ``byte-offset`` (CBF).
    """

    data: bytes
    encoding: str


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """Where one frame comes from: file, place in the file, acquisition number.

    ``problem`` is a ``frames/status`` known without reading the frame (missing, duplicate), with
    its ``reason``; 0 where none is known.
    """

    file: str
    place: int
    index: int
    size: int
    mtime_ns: int
    problem: int = 0
    reason: str = ""


@dataclass(frozen=True)
class DetectorInfo:
    """What the files say of the detector; None where they are silent.

    Parameters
    ----------
    description
        Name as in the metadata.
    pixel_mask
        Shape (rows, columns), nonzero = unusable, in stored orientation; where the file follows
        NXdetector the bits say why (0 gap, 1 dead, 2 under-, 3 over-responding, 4 noisy).
    saturation_value
        Raw counts at and above which a pixel is saturated.
    bit_depth
        Bits of a pixel as the detector read it, before a writer cast it to a wider type.
    wavelength
        In Å; the PONI wins, a disagreement is reported.
    distance
        Sample to detector, m; the PONI wins, a disagreement is reported.
    """

    description: str | None = None
    pixel_mask: IntArray | None = None
    saturation_value: float | None = None
    bit_depth: int | None = None
    wavelength: float | None = None
    distance: float | None = None


@dataclass(frozen=True)
class ScanHint:
    """What the files say of the scan, before positions are looked at; None where silent.

    Parameters
    ----------
    x, y
        Names of the columns (motors) that hold the positions; x is the axis drawn to the right.
    shape
        (ny, nx) that was asked for, also if the scan was aborted.
    fast_axis, snake
        As in :class:`Scan`.
    source
        Who says so: ``bliss``, ``areaDetector``, ``NXdata``, ``filename`` …
    evidence
        One phrase.
    at_most
        Confidence that a scan found by this hint can reach, whatever its positions show:
        ``likely`` or ``guess``; empty for no limit.
    """

    x: str | None = None
    y: str | None = None
    shape: tuple[int, int] | None = None
    fast_axis: str | None = None
    snake: bool | None = None
    source: str = ""
    evidence: str = ""
    at_most: str = ""


class FrameSource(Protocol):
    """An ordered series of frames: its records, the frame shape, and a way to read one."""

    @property
    def name(self) -> str:
        """What was opened, for messages."""

    @property
    def kind(self) -> str:
        """Layout found, in one line."""

    @property
    def evidence(self) -> tuple[str, ...]:
        """What in the files shows the layout, one phrase each."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about the series as a whole, one sentence each."""

    @property
    def scan(self) -> ScanHint | None:
        """What the files say of the scan; None if nothing."""

    @property
    def columns(self) -> dict[str, str]:
        """Metadata with one number per frame (motors, counters, times), as name → units or ''."""

    def column(self, name: str) -> NDArray[np.float64] | None:
        """Values of one column in the order of the records, NaN where unknown; None if absent.

        Positions of a continuous scan may be edges: one value more per line than frames.
        """

    @property
    def exposure(self) -> NDArray[np.float64] | float | None:
        """Exposure time in s, one per frame, or one for all; None where the files are silent."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of one stored frame."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Native dtype of the stored pixels."""

    @property
    def records(self) -> tuple[FrameRecord, ...]:
        """One record per frame, in order."""

    @property
    def numbered(self) -> bool:
        """True if the records' numbers come from the files, not from counting."""

    @property
    def detector(self) -> DetectorInfo:
        """Detector metadata of the series."""

    def read(self, row: int) -> Frame:
        """Read one frame; raises FrameError with a status and a reason. Thread-safe."""

    def fetch(self, row: int) -> Encoded | NDArray[Any]:
        """The pixels of one frame with as little work as possible.

        Compressed where the bytes are all there is to it, else what ``read`` gives. Whether
        compressed bytes are damaged is found by whoever decodes them.
        """


@dataclass(frozen=True)
class Mask:
    """Pixels left out: True = masked, with where each part came from.

    Parameters
    ----------
    pixels
        Shape (rows, columns), True = masked, in the PONI's orientation.
    sources
        (name, number of pixels, sha256 or "") per contribution.
    """

    pixels: BoolArray
    sources: tuple[tuple[str, int, str], ...] = ()

    @property
    def fraction(self) -> float:
        """Masked fraction, 0-1."""
        return float(np.mean(self.pixels))


@dataclass(frozen=True)
class Patterns:
    """1D patterns of one variant; rows are frames, columns 2θ (or q) bins.

    Parameters
    ----------
    radial_axis
        Bin centres, shape (bins,), degrees or 1/angstrom (see ``unit``).
    wavelength
        In Å.
    intensity
        Shape (rows, bins), mean per pixel; NaN where a bin has no data.
    intensity_errors
        Same shape, standard error of the mean; None without an error model.
    coverage
        Same shape, 0-1: solid angle of the valid pixels over that of the full ring.
    spottiness
        Same shape, units of intensity; None when not computed.
    frame
        Acquisition number of each row, shape (rows,).
    status
        ``frames/status`` of each row, shape (rows,).
    unit
        ``"degrees"`` (2θ) or ``"1/angstrom"`` (q).
    variant
        ``masked``, ``unmasked`` or ``external``.
    polarization_factor
        What was corrected for; None = not corrected.
    """

    radial_axis: NDArray[np.float64]
    wavelength: float
    intensity: FloatArray
    intensity_errors: FloatArray | None
    coverage: FloatArray
    spottiness: FloatArray | None
    frame: IntArray
    status: IntArray
    unit: str = "degrees"
    variant: str = "masked"
    polarization_factor: float | None = None

    @property
    def two_theta(self) -> NDArray[np.float64]:
        """Bin centres in degrees, converted from q at the wavelength if need be."""
        if self.unit == "degrees":
            return self.radial_axis
        sine = np.minimum(self.radial_axis * self.wavelength / (4 * np.pi), 1)
        return np.asarray(np.degrees(2 * np.arcsin(sine)), np.float64)


@dataclass(frozen=True)
class Phase:
    """A crystalline phase: its name and the CIF text that defines it."""

    name: str
    cif: str
    source: str = ""

    @property
    def sha256(self) -> str:
        """Hash of the CIF text."""
        return hashlib.sha256(self.cif.encode()).hexdigest()


@dataclass(frozen=True)
class Labelled:
    """Measured patterns on a model's grid whose phases are known.

    Parameters
    ----------
    intensity, coverage, spottiness
        Shape (N, n) float32.
    presence
        Shape (N, K) int8, 1 present, 0 absent.
    """

    FIELDS: ClassVar[tuple[str, ...]] = ("intensity", "coverage", "spottiness", "presence")

    intensity: NDArray[np.float32]
    coverage: NDArray[np.float32]
    spottiness: NDArray[np.float32]
    presence: NDArray[np.int8]


@dataclass(frozen=True)
class PhaseLibrary:
    """Phases in class order: entry i is index i of every (phase, …) array."""

    phases: tuple[Phase, ...]

    def __post_init__(self) -> None:
        names = self.names
        if len(set(names)) != len(names):
            raise InputError(f"phase names must differ; got {', '.join(names)}.")

    @property
    def names(self) -> tuple[str, ...]:
        """Phase names in class order."""
        return tuple(phase.name for phase in self.phases)

    def __len__(self) -> int:
        return len(self.phases)


@dataclass(frozen=True)
class ScanAxis:
    """One axis of a map.

    Parameters
    ----------
    values
        Nominal centres of the pixels, shape (n,), ascending.
    name
        Motor name, or ``x`` / ``y``.
    units
        Of the values; empty for pixel numbers.
    """

    values: NDArray[np.float64]
    name: str
    units: str = ""


@dataclass(frozen=True)
class Scan:
    """How frames lie on the sample.

    Parameters
    ----------
    frame_index
        Shape (ny, nx) int32: row in the patterns, −1 where there is no frame. Scattered positions
        that form no grid are one line, (1, n), with ``irregular``.
    fast_axis
        ``x`` or ``y``: the axis that moves from frame to frame.
    snake
        True if every second line runs backwards.
    source
        Where the shape comes from: ``option``, or the source of the positions.
    x, y
        The axes where positions are known; None = pixel numbers.
    x_actual, y_actual
        Positions as measured, shape (ny, nx), NaN where there is no frame; None = not known.
    irregular
        True if the positions form no grid.
    confidence
        ``given`` (by options), ``certain``, ``likely`` or ``guess``.
    evidence
        One phrase: why this shape.
    """

    frame_index: NDArray[np.int32]
    fast_axis: str = "x"
    snake: bool = False
    source: str = "option"
    x: ScanAxis | None = None
    y: ScanAxis | None = None
    x_actual: NDArray[np.float64] | None = None
    y_actual: NDArray[np.float64] | None = None
    irregular: bool = False
    confidence: str = "given"
    evidence: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx), rows and columns of the map."""
        ny, nx = self.frame_index.shape
        return ny, nx


@dataclass(frozen=True)
class Predictions:
    """What a model says of each row.

    Parameters
    ----------
    probability
        Shape (rows, K), calibrated presence probability; NaN where undetermined or no data.
    spread
        Same shape: standard deviation over the ensemble (0 for one member).
    unknown
        Shape (rows,), 0-1: larger where a phase outside the model's is there; NaN without data or
        where the model cannot tell.
    status
        Shape (rows,): pixel status (see :class:`xrdpipe.schema.PixelStatus`).
    """

    probability: FloatArray
    spread: FloatArray
    unknown: FloatArray
    status: IntArray


@dataclass(frozen=True)
class Progress:
    """How a stage reports: the command line supplies real functions, a library call need not.

    ``start(label, total, done)``, ``advance(n, lost)``, ``done()``, ``note(text)``, and for
    machines ``event(kind, content)``; nothing is printed here. ``stopped()`` is true once
    somebody asked to stop: a stage that can finishes what is under way.
    """

    start: Callable[..., None] = lambda label, total, done=0: None
    advance: Callable[..., None] = lambda n, lost=0: None
    done: Callable[[], None] = lambda: None
    note: Callable[[str], None] = lambda text: None
    event: Callable[[str, dict[str, Any]], None] = lambda kind, content: None
    stopped: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Table:
    """Rows of text under headings; ``str()`` aligns them for logs.

    Parameters
    ----------
    head
        One heading per column; empty where the first column labels the others.
    rows
        As many texts each.
    right
        Headings of the columns that hold numbers.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[str] = frozenset()

    def __str__(self) -> str:
        lines = [*([self.head] if self.head else []), *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        right = [name in self.right for name in self.head] or [False] * len(widths)
        return "\n".join(
            "  ".join(
                cell.rjust(width) if number else cell.ljust(width)
                for cell, width, number in zip(line, widths, right, strict=True)
            ).rstrip()
            for line in lines
        )


@dataclass(frozen=True)
class Outcome:
    """What a stage gives back: the file written, lost frames, and a sentence for the user.

    ``done_before`` is True where the same run had written it already (decision 21);
    ``exit_code`` is what the command line returns, where lost frames do not say it; ``shown`` is
    what a terminal shows in place of the summary, where there is a table in it.
    """

    path: Any
    lost: int = 0
    summary: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    done_before: bool = False
    exit_code: int = 0
    shown: tuple[str | Table, ...] = ()

    @classmethod
    def already_done(cls, path: Any) -> Outcome:
        """Nothing was left to do."""
        return cls(path, summary=f"{path}: already done.", done_before=True)
