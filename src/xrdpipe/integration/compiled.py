"""The compiled kernel: decode and integrate frames in batches, found at run time, never required.

The extension module holds plain C functions and no Python; ctypes calls them without Python's lock.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.integration.rejection import (
    GROWTH_THRESHOLD,
    MAX_OUTLYING,
    PixelNoise,
    skewness,
)
from xrdpipe.integration.rings import AzimuthalStatistics
from xrdpipe.integration.tiles import RingPlan, Tiles
from xrdpipe.types import BoolArray, Encoded

LANES = 16
"""Frames that are summed side by side."""

SWITCH = "XRDPIPE_KERNEL"
"""Environment variable: ``off`` to do without the kernel, or the best instruction set to use
(``base``, ``avx2``, ``avx512``)."""

LEVELS = ("base", "avx2", "avx512")

DTYPES = {"u1": 0, "u2": 1, "u4": 2, "i4": 3, "f4": 4}
"""What a pixel may be; others go through the reference path."""

SUMS = ("norm", "solid_angle", "pixels", "dark", "squares", "signal", "variance")
"""Order of the sums per bin: Σ c·n, Σ c·Ω, number of pixels, Σ c·dark, Σ c², Σ c·x and
Σ c²·max(x, floor)."""

STATIC_SUMS = 5
"""So many of them are known before any frame: those over the statically valid pixels."""

TAKEN = 8
"""Values per bin that the kernel takes off: :data:`SUMS`, and one without meaning."""

MOMENT_NAMES = ("signal", "value", "square", "counts", "norm", "inverse_squares", "pixels")
"""Over the valid pixels of a bin, with v = signal / norm: Σ signal, Σ v, Σ v², Σ max(x, 0) / norm²,
Σ norm, Σ 1 / norm², number."""

RAW = 0
ENCODINGS = {"bitshuffle-lz4": 1, "byte-offset": 2}
"""What the kernel decodes itself: the encodings of :class:`Encoded`."""

KEEP, JUDGE, MOMENTS = 1, 2, 4
OK, CORRUPT, EXCEPTIONAL, NO_MEMORY = 0, 1, 2, 3


class _Plan(ctypes.Structure):
    """``plan`` of plan.h."""

    _fields_ = [
        *[(name, ctypes.c_int64) for name in ("pixels", "columns", "tile", "tiles", "rows")],
        *[
            (name, ctypes.c_void_p)
            for name in (
                "tile_runs", "run_row", "run_entries", "entry_pixel", "entry_coefficient",
                "pixel_entries", "pixel_row", "pixel_coefficient", "valid_bits", "valid_bytes",
                "extra", "static_sums", "norm", "solid_angle", "dark",
            )
        ],
        ("floor", ctypes.c_double),
        ("saturation", ctypes.c_double),
        ("hot_limit", ctypes.c_double),
        ("sentinel_count", ctypes.c_int64),
        ("watched_count", ctypes.c_int64),
        ("sentinels", ctypes.c_void_p),
        ("watched", ctypes.c_void_p),
        ("bins", ctypes.c_int64),
        *[
            (name, ctypes.c_void_p)
            for name in (
                "bin", "ring_totals", "tile_ring_runs", "ring_run_bin", "ring_run_entries",
                "ring_entry_pixel", "ring_entry_inverse", "sample_start", "sample_pixel",
                "sample_norm",
            )
        ],
        ("edge_count", ctypes.c_int64),
        *[(name, ctypes.c_void_p) for name in ("edges", "ring_start", "ring_pixel")],
    ]  # fmt: skip


class _Frame(ctypes.Structure):
    """``frame_result`` of plan.h."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        *[
            (name, ctypes.c_int64)
            for name in (
                "size", "encoding", "status", "invalid", "invalid_extra", "saturated", "watched",
            )
        ],
        *[(name, ctypes.c_double) for name in ("sum", "max", "min")],
    ]  # fmt: skip


class _Rejection(ctypes.Structure):
    """``rejection`` of outliers.h."""

    _fields_ = [
        *[
            (name, ctypes.c_double)
            for name in ("threshold", "growth", "gain", "read_noise_squared", "skew", "most")
        ],
        ("halo", ctypes.c_int64),
    ]


@functools.cache
def _library() -> ctypes.CDLL | None:
    """The compiled functions, or None where they were not built."""
    spec = importlib.util.find_spec("xrdpipe.integration._kernel")
    if spec is None or spec.origin is None:
        return None
    try:
        library = ctypes.CDLL(spec.origin)
    except OSError:
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.xk_level.restype = number
    library.xk_workspace.restype = pointer
    library.xk_workspace.argtypes = [pointer, number]
    library.xk_free.argtypes = [pointer]
    library.xk_free.restype = None
    library.xk_integrate.restype = number
    library.xk_integrate.argtypes = [pointer, pointer, pointer, *[number] * 4, pointer]
    for name, arguments in (
        ("xk_statistics", 7), ("xk_ring_pixels", 3), ("xk_moments", 3),
    ):  # fmt: skip
        function = getattr(library, name)
        function.restype, function.argtypes = None, [pointer] * arguments
    library.xk_robust.restype = library.xk_clip.restype = number
    library.xk_robust.argtypes = [pointer] * 11
    library.xk_clip.argtypes = [*[pointer] * 4, number, number, *[pointer] * 3]
    library.xk_decode.restype = number
    library.xk_decode.argtypes = [pointer, number, number, number, pointer]
    return library


def library() -> ctypes.CDLL | None:
    """The compiled functions; None where they were not built or are switched off."""
    return None if os.environ.get(SWITCH) == "off" else _library()


def level() -> int:
    """The instruction set to use, a place in :data:`LEVELS`."""
    found = library()
    best = 0 if found is None else int(found.xk_level())
    wanted = os.environ.get(SWITCH, "")
    return min(best, LEVELS.index(wanted)) if wanted in LEVELS else best


KERNEL, MATRIX = "compiled kernel", "pyFAI's matrix through scipy"
"""The two ways in which frames are integrated here: sums in another order differ in last bits."""


def way() -> str:
    """Which of the two is taken."""
    return MATRIX if library() is None else KERNEL


def describe() -> str:
    """Which way frames are integrated here, for people."""
    if library() is not None:
        return f"{KERNEL} ({LEVELS[level()]})"
    if os.environ.get(SWITCH) == "off":
        return f"{MATRIX} ({SWITCH}=off)"
    return f"{MATRIX} (the compiled kernel was not built; it is faster)"


def decode_chunk(chunk: bytes, dtype: np.dtype[Any], items: int) -> NDArray[Any] | None:
    """Values of a bitshuffle-LZ4 chunk as HDF5 filter 32008 stores it, flat; None if damaged."""
    found = _library()
    assert found is not None
    values = np.empty(items, dtype)
    done = found.xk_decode(chunk, len(chunk), dtype.itemsize, items, values.ctypes.data)
    return values if done else None


@dataclass(frozen=True)
class BatchSums:
    """What the kernel says of a batch of frames.

    Parameters
    ----------
    status
        OK, CORRUPT or EXCEPTIONAL per frame.
    invalid, invalid_extra, saturated, watched
        Numbers of statically valid pixels per frame; ``invalid_extra``: outside the first rows.
    total, highest, lowest
        Sum and extremes of the valid raw values per frame (extremes include 0).
    sums
        Shape (frames, len(SUMS), rows).
    """

    status: NDArray[np.int64]
    invalid: NDArray[np.int64]
    invalid_extra: NDArray[np.int64]
    saturated: NDArray[np.int64]
    watched: NDArray[np.int64]
    total: NDArray[np.float64]
    highest: NDArray[np.float64]
    lowest: NDArray[np.float64]
    sums: NDArray[np.float64]


@dataclass(frozen=True)
class Rejected:
    """What rejection takes off a batch.

    Parameters
    ----------
    taken
        Parts of the sums, shape (LANES, bins, TAKEN).
    alone
        Pixels rejected that are not saturated, shape (LANES,).
    """

    taken: NDArray[np.float64]
    alone: NDArray[np.int64]

    def unless(self, without_memory: bool) -> Rejected:
        """Return itself, or raise."""
        if without_memory:
            raise MemoryError
        return self


@dataclass(frozen=True)
class PixelPlanes:
    """What the kernel knows of each pixel; every array of shape (pixels,), in stored order.

    Parameters
    ----------
    valid
        Statically valid.
    extra
        Valid, but not in the first rows of the sums (the masked variant's); None = nowhere.
    norm
        Pixel normalisation.
    solid_angle
        Steradian.
    dark
        Raw counts, or None.
    """

    valid: BoolArray
    extra: BoolArray | None
    norm: NDArray[np.float32]
    solid_angle: NDArray[np.float64]
    dark: NDArray[np.float32] | None


@dataclass(frozen=True)
class PixelValues:
    """What raw values mean.

    Parameters
    ----------
    floor
        The variance counts at least this value.
    saturation
        A pixel is saturated from here on, or None.
    sentinels, watched
        As the dtype holds them: left out; only counted.
    hot_limit
        No isolated hot pixel has a lower signal.
    """

    floor: float = 1.0
    saturation: float | None = None
    sentinels: tuple[float, ...] = ()
    watched: tuple[float, ...] = ()
    hot_limit: float = 0.0


class Kernel:
    """The kernel for one geometry, mask, binning and dtype; safe in threads.

    Each thread has its workspace: what :meth:`integrate` leaves there is what the other methods
    work on, until the same thread integrates the next batch.

    Parameters
    ----------
    tiles
        The matrix.
    rings
        None where nothing is asked of them.
    dtype
        Of the frames.
    columns
        Pixels per row of the frames.
    static_sums
        The first five of :data:`SUMS` over the statically valid pixels, shape (5, rows).
    """

    def __init__(
        self,
        tiles: Tiles,
        rings: RingPlan | None,
        dtype: np.dtype[Any],
        columns: int,
        planes: PixelPlanes,
        values: PixelValues,
        static_sums: NDArray[np.float64],
    ) -> None:
        found = library()
        assert found is not None
        self._library = found
        self._rows = tiles.rows
        self._dtype = DTYPES[dtype.str[1:]]
        self._pixels = planes.valid.size
        bits = np.packbits(planes.valid, bitorder="little")
        dark = planes.dark
        arrays: dict[str, NDArray[Any] | None] = {
            "tile_runs": tiles.tile_runs,
            "run_row": tiles.run_row,
            "run_entries": tiles.run_entries,
            "entry_pixel": tiles.entry_pixel,
            "entry_coefficient": tiles.entry_coefficient,
            "pixel_entries": tiles.pixel_entries,
            "pixel_row": tiles.pixel_row,
            "pixel_coefficient": tiles.pixel_coefficient,
            "valid_bits": np.append(bits, np.zeros(64, np.uint8)),
            "valid_bytes": np.where(planes.valid, np.uint8(255), np.uint8(0)),
            "extra": None if planes.extra is None else planes.extra.astype(np.uint8),
            "static_sums": np.ascontiguousarray(static_sums, np.float64),
            "norm": np.ascontiguousarray(planes.norm, np.float32),
            "solid_angle": np.ascontiguousarray(planes.solid_angle, np.float64),
            "dark": None if dark is None else np.ascontiguousarray(dark, np.float32),
            "sentinels": np.asarray(values.sentinels, np.float64),
            "watched": np.asarray(values.watched, np.float64),
        }
        self._bins = 0
        if rings is not None:
            self._bins = len(rings.ring_totals)
            arrays |= {field.name: getattr(rings, field.name) for field in fields(rings)}
        edges = arrays.get("edges")
        self._arrays = arrays  # the plan points into them
        pointers = {k: None if v is None else v.ctypes.data for k, v in arrays.items()}
        self._plan = _Plan(
            pixels=planes.valid.size,
            columns=columns,
            tile=tiles.tile,
            tiles=tiles.tile_runs.size - 1,
            rows=tiles.rows,
            floor=values.floor,
            saturation=np.inf if values.saturation is None else values.saturation,
            hot_limit=values.hot_limit,
            sentinel_count=len(values.sentinels),
            watched_count=len(values.watched),
            bins=self._bins,
            edge_count=0 if edges is None else edges.size,
            **pointers,
        )
        self._thread = threading.local()

    def integrate(
        self, frames: Sequence[Encoded | NDArray[Any]], exact: bool = False, work: int = 0
    ) -> BatchSums:
        """Sum at most :data:`LANES` frames.

        Parameters
        ----------
        frames
            Each compressed, or a contiguous array of the dtype.
        exact
            Sum in float64 throughout: large parts are taken off again afterwards.
        work
            What shall follow: :data:`KEEP` for :meth:`clip`, and :data:`JUDGE` for
            :meth:`statistics` and :meth:`robust`; :data:`MOMENTS` for :meth:`moments`.
        """
        n = len(frames)
        given = (_Frame * n)()
        for frame, one in zip(frames, given, strict=True):
            if isinstance(frame, Encoded):
                one.data = ctypes.cast(ctypes.c_char_p(frame.data), ctypes.c_void_p)
                one.size, one.encoding = len(frame.data), ENCODINGS[frame.encoding]
            else:
                one.data, one.size, one.encoding = frame.ctypes.data, frame.nbytes, RAW
        sums = np.empty((n, len(SUMS), self._rows))
        done = self._library.xk_integrate(
            ctypes.addressof(self._plan),
            self._workspace(),
            ctypes.addressof(given),
            n,
            self._dtype,
            exact,
            work,
            sums.ctypes.data,
        )
        if done == NO_MEMORY:
            raise MemoryError

        def column(name: str) -> NDArray[Any]:
            return np.array([getattr(one, name) for one in given])

        return BatchSums(
            status=column("status"),
            invalid=column("invalid"),
            invalid_extra=column("invalid_extra"),
            saturated=column("saturated"),
            watched=column("watched"),
            total=column("sum"),
            highest=column("max"),
            lowest=column("min"),
            sums=sums,
        )

    def statistics(self, scales: NDArray[np.float32]) -> AzimuthalStatistics:
        """Statistics of :meth:`Rings.statistics` for each frame of the batch, shape (frames, bins).

        ``scales`` as :func:`in_lanes` gives them.
        """
        centre, lower, upper = (np.empty((self._bins, LANES), np.float32) for _ in range(3))
        pixels = np.empty((self._bins, LANES), np.int32)
        self._library.xk_statistics(
            *self._here(), *(plane.ctypes.data for plane in (scales, centre, lower, upper, pixels))
        )
        return AzimuthalStatistics(centre.T, lower.T, upper.T, pixels.T.astype(np.intp))

    def moments(self) -> NDArray[np.float64]:
        """Sums over the pixels of each bin, shape (len(MOMENT_NAMES), LANES, bins)."""
        found = np.empty((len(MOMENT_NAMES), self._bins, LANES))
        self._library.xk_moments(*self._here(), found.ctypes.data)
        return found.transpose(0, 2, 1)

    def robust(
        self,
        how: Rejecting,
        scales: NDArray[np.float32],
        centre: NDArray[np.float32],
        width: NDArray[np.float32],
        lowest: NDArray[np.float32],
        rejected: NDArray[np.uint8] | None = None,
    ) -> Rejected:
        """Decide on saturated pixels and robust outliers of the batch.

        Parameters
        ----------
        scales
            As :func:`in_lanes` gives them.
        centre, width
            Of the bins, as in ``rejection.py``, shape (LANES, bins).
        lowest
            No outlier has a lower raw value; infinity = the bin is not judged; shape (LANES, bins).
        rejected
            Shape (frames, pixels); set to 1 where rejected.
        """
        never = np.full((LANES, 1), np.inf, np.float32)
        lanes = [
            np.ascontiguousarray(plane.T, np.float32)
            for plane in (centre, width, np.hstack([never, lowest, never]))
        ]
        pixels = np.empty((self._bins, LANES), np.int32)
        self._library.xk_ring_pixels(*self._here(), pixels.ctypes.data)
        found = self._nothing_rejected()
        planes: list[NDArray[Any]] = [scales, *lanes, pixels, found.taken, found.alone]
        whole = self._library.xk_robust(
            *self._here(),
            ctypes.addressof(how.structure),
            *(plane.ctypes.data for plane in planes),
            None if rejected is None else rejected.ctypes.data,
        )
        return found.unless(not whole)

    def clip(
        self,
        how: Rejecting,
        scales: NDArray[np.float32],
        poisson: bool,
        cycles: int,
        rejected: NDArray[np.uint8] | None = None,
    ) -> Rejected:
        """As :meth:`robust` for sigma clipping, with ``cycles`` 0 for saturated pixels only."""
        found = self._nothing_rejected()
        whole = self._library.xk_clip(
            *self._here(),
            ctypes.addressof(how.structure),
            scales.ctypes.data,
            poisson,
            cycles,
            found.taken.ctypes.data,
            found.alone.ctypes.data,
            None if rejected is None else rejected.ctypes.data,
        )
        return found.unless(not whole)

    def _nothing_rejected(self) -> Rejected:
        return Rejected(np.zeros((LANES, self._bins, TAKEN)), np.zeros(LANES, np.int64))

    def _here(self) -> tuple[int, int]:
        return ctypes.addressof(self._plan), self._workspace()

    def _workspace(self) -> int:
        """Memory of this thread; freed with the thread."""
        held = getattr(self._thread, "workspace", None)
        if held is None:
            address = self._library.xk_workspace(ctypes.addressof(self._plan), level())
            if not address:
                raise MemoryError
            held = self._thread.workspace = _Workspace(self._library, address)
        return int(held.address)


class Rejecting:
    """Threshold, halo and noise in the kernel's form."""

    def __init__(self, threshold: float, halo: int, noise: PixelNoise) -> None:
        self.structure = _Rejection(
            threshold=threshold,
            growth=GROWTH_THRESHOLD,
            gain=noise.gain,
            read_noise_squared=noise.read_noise**2,
            skew=skewness(threshold),
            most=MAX_OUTLYING,
            halo=halo,
        )


def in_lanes(scales: Sequence[float]) -> NDArray[np.float32]:
    """Normalisation factors of up to :data:`LANES` frames; 1 in lanes without a frame."""
    lanes = np.ones(LANES, np.float32)
    lanes[: len(scales)] = scales
    return lanes


class _Workspace:
    def __init__(self, library: ctypes.CDLL, address: int) -> None:
        self._library = library
        self.address = address

    def __del__(self) -> None:
        self._library.xk_free(self.address)
