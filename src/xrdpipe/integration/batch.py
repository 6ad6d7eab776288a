"""Batches of frames through the compiled kernel, with the numbers of :mod:`reduce`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import FrameError
from xrdpipe.integration import compiled
from xrdpipe.integration.accelerator import Accelerator
from xrdpipe.integration.cache import Arrays, as_arrays, from_arrays
from xrdpipe.integration.compiled import (
    DTYPES,
    JUDGE,
    KEEP,
    LANES,
    MOMENT_NAMES,
    MOMENTS,
    OK,
    SUMS,
    BatchSums,
    Kernel,
    PixelPlanes,
    PixelValues,
    Rejected,
    Rejecting,
    in_lanes,
)
from xrdpipe.integration.reduce import (
    MIN_EXCESS_PIXELS,
    FrameReducer,
    ReducedFrame,
    ReductionSettings,
    saturation_flags,
)
from xrdpipe.integration.rejection import (
    CLIP_CYCLES,
    hot_pixel_limit,
    lowest_outlier,
    ring_limits,
)
from xrdpipe.integration.rings import SAMPLES
from xrdpipe.integration.tiles import Pixels, RingPlan, Tiles, ring_plan, tiled
from xrdpipe.masks import as_stored
from xrdpipe.schema import FrameStatus
from xrdpipe.types import BoolArray, Encoded

if TYPE_CHECKING:
    import scipy.sparse as sp

_Sums = dict[str, NDArray[np.float64]]


def unsuited(reducer: FrameReducer, dtype: np.dtype[Any], device: str = "cpu") -> str:
    """Why batches cannot do what a reducer does; empty if they can."""
    settings = reducer.settings
    if device != "cpu" and (_leaves_out(settings) or settings.spottiness):
        return f"rejection is not done on {device}"
    if device == "cpu" and compiled.library() is None:
        return compiled.describe()
    if settings.engine != "matrix" or settings.error_model == "azimuthal":
        return "pyFAI's own integrator"
    if dtype.str not in {f"<{kind}" for kind in DTYPES} | {"|u1"}:
        return f"frames of {dtype}"
    if not (reducer.pixel_norm[reducer.static_valid["unmasked"]] > 0).all():
        return "pixels without polarization"
    return ""


def _leaves_out(settings: ReductionSettings) -> bool:
    """Whether the masked variant leaves out pixels frame by frame."""
    masked = "masked" in settings.variants or settings.spottiness
    return masked and (settings.reject != "none" or settings.saturation is not None)


class BatchReducer:
    """What a :class:`FrameReducer` does, many frames at a time; safe in threads.

    Parameters
    ----------
    reducer
        What to compute; ``unsuited`` must have found no obstacle.
    dtype
        Of the frames.
    stored
        For each pixel of the oriented frame its number in the stored one, shape (rows, columns);
        None = they are oriented as stored.
    columns
        Of the stored frame.
    watched
        Raw values with which a frame is left to the reducer.
    device
        ``cpu`` for the compiled kernel, else what torch calls an accelerator.
    """

    def __init__(
        self,
        reducer: FrameReducer,
        dtype: np.dtype[Any],
        stored: NDArray[np.intp] | None = None,
        columns: int | None = None,
        watched: Sequence[float] = (),
        device: str = "cpu",
    ) -> None:
        settings = reducer.settings
        self.encodings = frozenset(compiled.ENCODINGS if device == "cpu" else ())
        """What frames may be compressed with."""
        self._reducer = reducer
        self._bins = reducer.binning.count
        unmasked, masked = (reducer.static_valid[name] for name in ("unmasked", "masked"))
        self._extra = unmasked & ~masked
        self._masked = "masked" in settings.variants or settings.spottiness
        separate = self._masked and "unmasked" in settings.variants and bool(self._extra.any())
        self._two_classes = separate
        used = unmasked if separate or not self._masked else masked
        order = None if stored is None else np.argsort(stored, axis=None)

        def in_order(plane: NDArray[Any]) -> NDArray[Any]:
            flat = plane.ravel()
            return flat if order is None else flat[order]

        extra = in_order(self._extra)
        norm = in_order(reducer.pixel_norm)
        solid_angle = in_order(reducer.pixel_solid_angle)
        dark = None if reducer.dark is None else in_order(reducer.dark)
        self._noise = settings.noise if settings.error_model == "poisson" else None
        self._dark = dark is not None
        self._off = _leaves_out(settings)
        self._work = 0
        if self._masked and settings.reject != "none":
            self._work = KEEP | JUDGE if settings.reject == "robust" else KEEP
        self._work |= MOMENTS if settings.spottiness else 0
        columns = columns or reducer.geometry.shape[1]
        judging = bool(self._work & JUDGE)

        def ordered_matrix() -> sp.csc_array[Any]:
            matrix = reducer.matrix if order is None else reducer.matrix[:, order]
            return _classes(matrix, in_order(used), extra if separate else None)

        def tile_matrix() -> Arrays:
            matrix = ordered_matrix()
            sums = _static_sums(matrix, norm, solid_angle, dark)
            return {**as_arrays(tiled(matrix)), "static_sums": sums}

        def plan_rings() -> Arrays:
            bins = in_order(reducer.bin_of_pixel())
            pixels = Pixels(bins, self._bins, in_order(masked), norm, columns)
            sampled = None
            if judging:
                sampled = reducer.sampled if stored is None else stored.ravel()[reducer.sampled]
            moments, whole = bool(self._work & MOMENTS), settings.reject == "sigma-clip"
            plan = ring_plan(pixels, sampled, moments, whole)
            return {**as_arrays(plan), "extremes": np.stack(_extremes(pixels, dark))}

        key = reducer.key, stored
        tiles = reducer.cache.get("tiles", (*key, used, separate), tile_matrix)
        rings = None
        if self._off or self._work:
            what = columns, self._work, settings.reject, SAMPLES
            found = reducer.cache.get("rings", (*key, *what), plan_rings)
            rings = from_arrays(RingPlan, found)
            self._extremes = tuple(found["extremes"])
        counting = settings.counting
        self.size = LANES
        """Frames per batch.

        Rejection keeps their values in the thread's memory: 1 byte per pixel and frame, 2 above 255
        counts, 4 above 65535 or for floats; and 4 bytes per pixel besides.
        """
        planes = PixelPlanes(
            in_order(unmasked), extra if self._extra.any() else None, norm, solid_angle, dark
        )
        values = PixelValues(
            counting.gain,
            settings.saturation,
            as_stored(settings.sentinels, dtype),
            as_stored(watched, dtype),
            hot_pixel_limit(settings.reject_threshold, counting),
        )
        sums = tiles["static_sums"]
        self._summing: Kernel | Accelerator
        if device == "cpu":
            matrix = from_arrays(Tiles, tiles)
            self._summing = self._kernel = Kernel(
                matrix, rings, dtype, columns, planes, values, sums
            )
        else:
            self._summing = Accelerator(ordered_matrix(), dtype, planes, values, sums, device)
        self._how = Rejecting(settings.reject_threshold, settings.halo, counting)
        self._static_pixels = int(np.count_nonzero(unmasked))
        self._static_extra = int(np.count_nonzero(self._extra))

    def reduce(
        self,
        frames: Sequence[Encoded | NDArray[Any]],
        scales: Sequence[float],
        rejected: NDArray[np.uint8] | None = None,
    ) -> list[ReducedFrame | FrameError | None]:
        """Integrate up to ``size`` frames.

        Parameters
        ----------
        frames
            Each compressed as its file holds it, or an array of the dtype, as stored.
        scales
            Normalisation factors: monitor / reference.
        rejected
            Shape (frames, pixels); set to 1 where a pixel of the masked variant is rejected.

        Returns
        -------
        list
            Per frame its rows; the error of a frame without counts; None where another way has to
            decide: the frame is damaged, or not as the first was.

        Raises
        ------
        ValueError
            If there are more.
        """
        if len(frames) > self.size:
            raise ValueError(f"{len(frames)} frames, at most {self.size} at once")
        result = self._summing.integrate(frames, self._off, self._work)
        whole = result.sums
        bins = self._bins
        first = whole[:, :, :bins]
        sums = {"unmasked": first + whole[:, :, bins:] if self._two_classes else first}
        alone = np.zeros(len(frames), np.intp)
        if self._masked:
            sums["masked"] = first
            if self._off:
                found = self._reject(in_lanes(scales), rejected)
                taken = found.taken[: len(frames), :, : len(SUMS)]
                sums["masked"] = first - taken.transpose(0, 2, 1)
                alone = found.alone
        rows = self._rows(sums, first, scales)
        return [self._frame(number, result, rows, alone) for number in range(len(frames))]

    def _reject(self, scales: NDArray[np.float32], rejected: NDArray[np.uint8] | None) -> Rejected:
        """Decide which pixels the masked variant leaves out."""
        settings = self._reducer.settings
        if settings.reject != "robust":
            poisson = settings.error_model == "poisson" and settings.noise is not None
            cycles = CLIP_CYCLES if settings.reject == "sigma-clip" else 0
            return self._kernel.clip(self._how, scales, poisson, cycles, rejected)
        statistics = self._kernel.statistics(scales)
        centre, width, judged = ring_limits(statistics, self._reducer.reach)
        least_norm, top_norm, least_dark = self._extremes
        scale = scales[:, None].astype(np.float64)
        lowest = lowest_outlier(
            centre,
            width,
            judged,
            1.00001 * top_norm * scale,
            settings.reject_threshold,
            settings.counting,
        )
        # Rounding is far below the slack.
        norm = np.where(lowest < 0, 1.00001 * top_norm, 0.99999 * least_norm)
        raw = np.asarray(lowest * scale * norm + least_dark, np.float32)
        return self._kernel.robust(self._how, scales, centre, width, raw, rejected)

    def _excess(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Azimuthal excess variance as the reducer's, and the pixels it is of, (LANES, bins).

        Sums of squares in float64 lose nothing that matters: counting noise keeps the variance of a
        ring well above 1e-16 of its squared mean. The scale cancels.
        """
        noise = self._reducer.settings.counting
        part = dict(zip(MOMENT_NAMES, self._kernel.moments(), strict=True))
        n = part["pixels"]
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = part["signal"] / part["norm"]
            squares = part["square"] - 2 * mean * part["value"] + n * mean**2
            counting = noise.gain * part["counts"] + noise.read_noise**2 * part["inverse_squares"]
            return (squares / (n - 1) - counting / n) / mean**2, n

    def _rows(
        self,
        sums: dict[str, NDArray[np.float64]],
        static: NDArray[np.float64],
        scales: Sequence[float],
    ) -> dict[str, dict[str, NDArray[np.float32]]]:
        """Per variant the signals, each of shape (frames, bins)."""
        settings = self._reducer.settings
        scale = np.asarray(scales, np.float64)[:, None]
        found = {}
        for name in settings.variants:
            part = _named(sums[name])
            mean, norm = self._mean(part, scale)
            row = {"I": mean.astype(np.float32), "coverage": self._coverage(part)}
            if self._noise is not None:
                variance = (
                    self._noise.gain * part["variance"]
                    + self._noise.read_noise**2 * part["squares"]
                )
                error = np.sqrt(np.maximum(variance, 0)) / norm
                row["I_errors"] = error.astype(np.float32)
            found[name] = row
        if settings.spottiness:
            excess, pixels = (plane[: len(scales)] for plane in self._excess())
            full = self._mean(_named(static), scale)[0].astype(np.float32)
            clean = self._mean(_named(sums["masked"]), scale)[0].astype(np.float32)
            few = pixels < MIN_EXCESS_PIXELS
            unknown = few | (settings.noise is None)
            for row in found.values():
                row["spottiness"] = np.where(few, np.nan, full - clean).astype(np.float32)
                row["azimuthal_excess_variance"] = np.where(unknown, np.nan, excess).astype(
                    np.float32
                )
        return found

    def _mean(
        self, part: _Sums, scale: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        norm = np.where(part["pixels"] > 0, part["norm"] * scale, np.nan)
        signal = part["signal"] - part["dark"] if self._dark else part["signal"]
        with np.errstate(divide="ignore", invalid="ignore"):
            return signal / norm, norm

    def _coverage(self, part: _Sums) -> NDArray[np.float32]:
        covered = np.clip(part["solid_angle"] / self._reducer.ring_solid_angle, 0, 1)
        return np.asarray(covered, np.float32)

    def _frame(
        self,
        number: int,
        result: BatchSums,
        rows: dict[str, dict[str, NDArray[np.float32]]],
        alone: NDArray[np.intp],
    ) -> ReducedFrame | FrameError | None:
        if result.status[number] != OK or result.watched[number]:
            return None
        if result.highest[number] == 0 == result.lowest[number]:
            return FrameError(FrameStatus.EMPTY, "every valid pixel is zero")
        invalid = int(result.invalid[number])
        extra = self._static_extra - int(result.invalid_extra[number])
        counts = {
            "n_valid_pixels": self._static_pixels - invalid,
            "n_sentinel": invalid,
            "n_masked_static": extra,
            "n_saturated": int(result.saturated[number]),
            "n_masked_dynamic": int(alone[number]),
            "sum": float(result.total[number]),
            "max": float(result.highest[number]),
        }
        own = {
            variant: {name: plane[number] for name, plane in signals.items()}
            for variant, signals in rows.items()
        }
        return ReducedFrame(own, counts, saturation_flags(counts))


def _extremes(pixels: Pixels, dark: NDArray[np.float32] | None) -> tuple[NDArray[np.float64], ...]:
    """Least and largest normalisation, and least dark, of the pixels of each bin, shape (bins,)."""
    looked_at = np.flatnonzero(pixels.valid & (pixels.bins >= 0))
    ring, norm = pixels.bins[looked_at], pixels.norm[looked_at]
    least, most = np.full(pixels.count, np.inf), np.zeros(pixels.count)
    np.minimum.at(least, ring, norm)
    np.maximum.at(most, ring, norm)
    least_dark = np.zeros(pixels.count)
    if dark is not None:
        least_dark[:] = np.inf
        np.minimum.at(least_dark, ring, dark[looked_at])
    filled = most > 0
    return (
        np.where(filled, least, 1),
        np.where(filled, most, 1),
        np.where(filled, least_dark, 0),
    )


def _named(sums: NDArray[np.float64]) -> _Sums:
    return {name: sums[:, k] for k, name in enumerate(SUMS)}


def _classes(
    matrix: sp.csc_array[Any], used: BoolArray, extra: BoolArray | None
) -> sp.csc_array[Any]:
    """Leave out unused pixels; rows of ``extra`` pixels come after those of the others."""
    entries = np.diff(matrix.indptr)
    keep = np.repeat(used, entries)
    indices = matrix.indices[keep]
    rows = matrix.shape[0]
    if extra is not None:
        indices = indices + rows * np.repeat(extra[used], entries[used])
        rows *= 2
    start = np.concatenate([[0], np.cumsum(np.where(used, entries, 0))])
    return type(matrix)((matrix.data[keep], indices, start), shape=(rows, used.size))


def _static_sums(
    matrix: sp.csc_array[Any],
    norm: NDArray[np.float32],
    solid_angle: NDArray[np.float64],
    dark: NDArray[np.float32] | None,
) -> NDArray[np.float64]:
    """The first five of :data:`SUMS`, shape (5, rows)."""
    rows = matrix.shape[0]
    finite_norm = np.where(np.isfinite(norm), norm, 0).astype(np.float64)
    finite_dark = np.zeros(norm.size) if dark is None else np.where(np.isfinite(dark), dark, 0)
    return np.stack(
        [
            matrix @ finite_norm,
            matrix @ solid_angle,
            np.bincount(matrix.indices, minlength=rows),
            matrix @ finite_dark,
            np.bincount(matrix.indices, matrix.data**2, rows),
        ]
    )
