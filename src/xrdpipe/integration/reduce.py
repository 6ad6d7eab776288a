"""One oriented frame in, one row per variant out: everything slow is done in the constructor."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import FrameError
from xrdpipe.integration.cache import NO_CACHE, ArrayCache, Arrays, Once, digest
from xrdpipe.integration.geometry import Binning, Geometry
from xrdpipe.integration.matrix import bin_of_pixel, splitting_matrix
from xrdpipe.integration.rejection import (
    POISSON,
    PixelNoise,
    robust_outliers,
    sigma_clip_outliers,
)
from xrdpipe.integration.rings import SAMPLES, Rings, pixel_reach
from xrdpipe.masks import without_measurement
from xrdpipe.schema import SATURATED_FRACTION, FrameFlag, FrameStatus
from xrdpipe.types import BoolArray

if TYPE_CHECKING:
    import scipy.sparse as sp

MIN_EXCESS_PIXELS = 30
"""Spottiness and excess variance are NaN in bins with fewer pixels (decision 6)."""


@dataclass(frozen=True)
class ReductionSettings:
    """What to compute; the meaning of each is in :mod:`xrdpipe.config`.

    Parameters
    ----------
    variants
        Any of ``masked``, ``unmasked``.
    sentinels
        Raw values that carry no measurement.
    saturation
        Raw value from which a pixel is saturated; None = unknown.
    noise
        None = the counting noise is unknown (integrating detector without gain).
    """

    variants: tuple[str, ...] = ("masked",)
    splitting: str = "bbox"
    solid_angle: bool = True
    polarization_factor: float | None = 0.99
    error_model: str = "poisson"
    reject: str = "robust"
    reject_threshold: float = 5.0
    halo: int = 3
    spottiness: bool = False
    sentinels: tuple[float, ...] = ()
    saturation: float | None = None
    noise: PixelNoise | None = POISSON
    engine: str = "matrix"

    @property
    def counting(self) -> PixelNoise:
        """The noise that rejection assumes: one ADU per photon where nothing is known."""
        return self.noise or PixelNoise()


@dataclass(frozen=True)
class ReducedFrame:
    """The rows of one frame.

    Parameters
    ----------
    rows
        Per variant: ``I``, ``I_errors``, ``coverage``, ``spottiness``,
        ``azimuthal_excess_variance``; each float32 of shape (bins,), absent if not asked for.
    counts
        Per-frame numbers of pixels and their sums, as in ``/entry/frames``.
    flags
        FrameFlag bits.
    """

    rows: dict[str, dict[str, NDArray[np.float32]]]
    counts: dict[str, float]
    flags: int


@dataclass(frozen=True)
class _Frame:
    """One frame on its way: raw and dark-corrected values, normalisation, which pixels count."""

    raw: NDArray[np.float32]
    signal: NDArray[np.float32]
    norm: NDArray[np.float32]
    scale: float
    valid: dict[str, BoolArray]
    invalid: BoolArray
    saturated: BoolArray


@dataclass(frozen=True)
class _Sums:
    """Per bin: Σ c·norm, Σ c·solid angle (sr) and the number of pixels that touch it."""

    norm: NDArray[np.float64]
    solid_angle: NDArray[np.float64]
    pixels: NDArray[np.intp]


def saturation_flags(counts: Mapping[str, float]) -> int:
    """FrameFlag bits that a frame's ``counts`` set."""
    fraction = counts["n_saturated"] / max(counts["n_valid_pixels"], 1)
    return int(FrameFlag.SATURATED if fraction > SATURATED_FRACTION else FrameFlag(0))


class FrameReducer:
    """Integrate frames of one geometry, mask and binning; thread-safe and immutable.

    The matrix and the rings come from pyFAI or the cache when they are first used: a batch whose
    tiles are in the cache never needs them.

    Parameters
    ----------
    dead
        Pixels without measurement in every frame besides the detector's gaps (the file's
        pixel mask), shape (rows, columns), or None.
    mask
        What ``--mask`` adds, same shape, or None; used by the masked variant only.
    dark, flat
        Same shape, or None.
    cache
        Where everything slow is looked up.
    """

    def __init__(
        self,
        geometry: Geometry,
        binning: Binning,
        settings: ReductionSettings,
        dead: BoolArray | None = None,
        mask: BoolArray | None = None,
        dark: NDArray[np.float32] | None = None,
        flat: NDArray[np.float32] | None = None,
        cache: ArrayCache = NO_CACHE,
    ) -> None:
        self.geometry = geometry
        self.binning = binning
        self.settings = settings
        self._one_by_one = threading.Lock()
        self.cache = cache
        corrections = geometry.key, settings.polarization_factor, settings.solid_angle
        norm = cache.get("norm", corrections, self._corrections)["norm"]
        self._flat = flat
        if flat is not None:
            norm = norm * flat
        self.pixel_norm = np.asarray(norm, np.float32)
        self.dark = dark
        dead = geometry.gap_mask if dead is None else geometry.gap_mask | dead
        if flat is not None:  # a pixel whose flat is 0 or no number measures nothing
            dead = dead | ~(np.isfinite(flat) & (flat > 0))
        if dark is not None:
            dead = dead | ~np.isfinite(dark)
        self.static_valid = {"unmasked": ~dead, "masked": ~dead if mask is None else ~(dead | mask)}
        self._needs_rejection = settings.reject != "none" and (
            "masked" in settings.variants or settings.spottiness
        )
        self._matrix = Once(self._split)
        self._squared = Once(self._square)
        self._bins = Once(self._bin)
        self._all_rings = Once(self._sort)
        edges = np.radians(binning.two_theta_edges(geometry.wavelength))
        ring = 2 * np.pi * (np.cos(edges[:-1]) - np.cos(edges[1:]))
        solid = geometry.solid_angle.ravel().astype(np.float64) * geometry.reference_solid_angle
        self.pixel_solid_angle = solid  # steradian per pixel
        self.ring_solid_angle = np.where(ring > 0, ring, np.inf)
        planes = flat, self.static_valid["unmasked"], self.static_valid["masked"]
        self.key = digest(corrections, binning.key, settings.splitting, *planes, dark)
        """Hash of what every frame is integrated with."""
        self._static = cache.get("static", (self.key,), self._sum_static)
        self._static_sums = {
            name: _Sums(*(self._static[f"{name}.{of}"] for of in ("norm", "solid_angle", "pixels")))
            for name in self.static_valid
        }

    # What is looked up in the cache, and how it is made.

    def _corrections(self) -> Arrays:
        norm = self.geometry.polarization(self.settings.polarization_factor)
        return {"norm": norm * self.geometry.solid_angle if self.settings.solid_angle else norm}

    def _split(self) -> sp.csc_array[Any]:
        return splitting_matrix(self.geometry, self.binning, self.settings.splitting, self.cache)

    def _square(self) -> sp.csc_array[Any]:
        matrix = self.matrix
        return type(matrix)((matrix.data**2, matrix.indices, matrix.indptr), shape=matrix.shape)

    def _bin(self) -> Arrays:
        def build() -> Arrays:
            bins = bin_of_pixel(self.geometry, self.binning)
            reach = pixel_reach(bins.reshape(self.geometry.shape))
            return {"bins": bins.astype(np.int32), "reach": np.asarray(reach)}

        return self.cache.get("bins", (self.geometry.key, *self.binning.key), build)

    def _sort(self) -> Rings:
        usable = self.static_valid["masked"].ravel()
        return Rings(self.bin_of_pixel(), self.binning.count, self.geometry.shape, usable, SAMPLES)

    def _sum_static(self) -> Arrays:
        found: Arrays = {}
        for name, plane in self.static_valid.items():
            good = plane.ravel()
            sums = self._sums(self.matrix, self.pixel_norm.ravel(), self.pixel_solid_angle, good)
            found |= {f"{name}.{of}": array for of, array in vars(sums).items()}
            found[f"{name}.count"] = self.matrix @ good.astype(np.float64)
        return found

    @property
    def _by_pyfai(self) -> bool:
        return self.settings.engine == "pyfai" or self.settings.error_model == "azimuthal"

    @property
    def matrix(self) -> sp.csc_array[Any]:
        """The splitting matrix of pyFAI, shape (bins, pixels)."""
        return self._matrix()

    @property
    def _rings(self) -> Rings | None:
        """The rings, where anything is done along them."""
        if self._needs_rejection or self.settings.spottiness:
            return self._all_rings()
        return None

    def load(self) -> None:
        """Make now, in this thread, what :meth:`reduce` would make in the first that needs it."""
        self._squared()
        _ = self._rings
        if self._by_pyfai:
            _ = self.geometry.integrator

    def static_norm(self, variant: str) -> NDArray[np.float32]:
        """Pixels per bin (pyFAI's ``count``) of the static mask, shape (bins,)."""
        return np.asarray(self._static[f"{variant}.count"], np.float32)

    def bin_of_pixel(self) -> NDArray[np.intp]:
        """Bin of each pixel centre (no splitting), shape (pixels,); −1 outside all bins."""
        return self._bins()["bins"].astype(np.intp)

    @property
    def sampled(self) -> NDArray[np.intp]:
        """Pixels that the statistics of rings are taken of, bin by bin."""
        assert self._rings is not None
        return self._rings.sampled

    @property
    def reach(self) -> int:
        """Bins within half a pixel."""
        return int(self._bins()["reach"])

    def reduce(
        self, image: NDArray[Any], scale: float = 1.0, sentinels: tuple[float, ...] = ()
    ) -> ReducedFrame:
        """Integrate one oriented frame.

        Parameters
        ----------
        image
            Shape (rows, columns), native dtype.
        scale
            Normalisation factor of the frame: monitor / reference.
        sentinels
            Raw values without measurement in this frame besides those of the settings.

        Raises
        ------
        FrameError
            With status EMPTY if no valid pixel holds anything but zero.
        """
        settings = self.settings
        frame = self._prepare(image, scale, sentinels)
        valid, saturated = frame.valid, frame.saturated
        if not frame.raw.any():
            raise FrameError(FrameStatus.EMPTY, "every valid pixel is zero")
        rejected = self._rejected(frame)
        kept = {
            "unmasked": valid["unmasked"],
            "masked": valid["masked"] & ~saturated & ~rejected,
        }
        rows = {name: self._integrate(frame, kept[name], name) for name in settings.variants}
        if settings.spottiness:
            self._add_azimuthal(rows, frame, kept["masked"])
        n_valid = int(np.count_nonzero(valid["unmasked"]))
        counts = {
            "n_valid_pixels": n_valid,
            "n_sentinel": int(np.count_nonzero(frame.invalid & self.static_valid["unmasked"])),
            "n_masked_static": int(np.count_nonzero(valid["unmasked"] & ~valid["masked"])),
            "n_saturated": int(np.count_nonzero(saturated)),
            "n_masked_dynamic": int(np.count_nonzero(rejected & ~saturated)),
            "sum": float(frame.raw.sum(dtype=np.float64)),
            "max": float(frame.raw.max()),
        }
        return ReducedFrame(rows, counts, saturation_flags(counts))

    def sentinel_pixels(self, image: NDArray[Any]) -> BoolArray:
        """Pixels of this frame whose raw value says 'no measurement' (decision 1)."""
        return without_measurement(image, self.settings.sentinels)

    def masked_pixels(self, image: NDArray[Any], scale: float = 1.0) -> BoolArray:
        """The complete mask the masked variant of this frame is integrated with."""
        frame = self._prepare(image, scale)
        return ~frame.valid["masked"] | frame.saturated | self._rejected(frame)

    def _prepare(
        self, image: NDArray[Any], scale: float, sentinels: tuple[float, ...] = ()
    ) -> _Frame:
        """What every later step needs of a frame."""
        invalid = without_measurement(image, (*self.settings.sentinels, *sentinels))
        valid = {name: good & ~invalid for name, good in self.static_valid.items()}
        limit = self.settings.saturation
        saturated = np.zeros(image.shape, bool) if limit is None else image >= limit
        raw = np.where(valid["unmasked"], image, 0).astype(np.float32)
        return _Frame(
            raw=raw,
            signal=raw if self.dark is None else raw - self.dark,
            norm=self.pixel_norm if scale == 1.0 else self.pixel_norm * np.float32(scale),
            scale=scale,
            valid=valid,
            invalid=invalid,
            saturated=saturated & valid["unmasked"],
        )

    def _rejected(self, frame: _Frame) -> BoolArray:
        """Outliers of the masked variant, never a pixel that was not valid."""
        settings = self.settings
        valid = frame.valid["masked"]
        if not self._needs_rejection or self._rings is None:
            return np.zeros(valid.shape, bool)
        if settings.reject == "sigma-clip":
            poisson = settings.error_model == "poisson" and settings.noise is not None
            return sigma_clip_outliers(
                frame.signal,
                frame.norm,
                settings.counting.variance(frame.raw) if poisson else None,
                self._rings,
                valid & ~frame.saturated,
                settings.reject_threshold,
            )
        return robust_outliers(
            frame.signal,
            frame.norm,
            self._rings,
            valid,
            frame.saturated & valid,
            settings.reject_threshold,
            settings.halo,
            settings.counting,
        )

    def _integrate(
        self, frame: _Frame, kept: BoolArray, static: str
    ) -> dict[str, NDArray[np.float32]]:
        """Mean per pixel, its error and the coverage.

        Parameters
        ----------
        kept
            Pixels to use, shape (rows, columns).
        static
            Which static mask they are a part of.
        """
        settings = self.settings
        good = kept.ravel()
        sums = self._dynamic_sums(static, good)
        if self._by_pyfai:
            intensity, errors = self._integrate_by_pyfai(frame, kept)
        else:
            intensity, norm = self._mean(frame, good, sums)
            errors = None
            if settings.error_model == "poisson" and settings.noise is not None:
                variance = settings.noise.variance(frame.raw).ravel()
                errors = np.sqrt(self._squared() @ np.where(good, variance, 0.0)) / norm
        row = {
            "I": intensity.astype(np.float32),
            "coverage": np.clip(sums.solid_angle / self.ring_solid_angle, 0, 1).astype(np.float32),
        }
        if errors is not None:
            row["I_errors"] = errors.astype(np.float32)
        return row

    def _dynamic_sums(self, static: str, good: BoolArray) -> _Sums:
        """Sums over ``good`` pixels: those of the static mask less those of the pixels left out.

        Only few pixels differ from frame to frame, so this costs next to nothing.
        """
        whole = self._static_sums[static]
        out = np.flatnonzero(self.static_valid[static].ravel() & ~good)
        if not out.size:
            return whole
        part = self._sums(
            self.matrix[:, out],
            self.pixel_norm.ravel()[out],
            self.pixel_solid_angle[out],
            np.ones(out.size, bool),
        )
        return _Sums(
            whole.norm - part.norm,
            whole.solid_angle - part.solid_angle,
            whole.pixels - part.pixels,
        )

    @staticmethod
    def _sums(
        matrix: sp.csc_array[Any],
        norm: NDArray[np.float32],
        solid_angle: NDArray[np.float64],
        good: BoolArray,
    ) -> _Sums:
        touched = np.repeat(good, np.diff(matrix.indptr))
        return _Sums(
            norm=matrix @ np.where(good, norm, 0.0),
            solid_angle=matrix @ np.where(good, solid_angle, 0.0),
            pixels=np.bincount(matrix.indices[touched], minlength=matrix.shape[0]),
        )

    def _integrate_by_pyfai(
        self, frame: _Frame, kept: BoolArray
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """The reference path: integrate1d with (splitting, csc, cython).

        One thread at a time: two of them in one integrator now and then end the process (seen in
        3 of 7 runs on a busy machine, pyFAI 2026.9).

        Invalid pixels are handed over as NaN, which pyFAI leaves out exactly like masked ones,
        so that its matrix is built once and not per frame.
        """
        settings = self.settings
        variance = None
        model = settings.error_model
        if model == "poisson":
            variance = None if settings.noise is None else settings.noise.variance(frame.raw)
        with self._one_by_one:
            result = self.geometry.integrator.integrate1d(
                np.where(kept, frame.raw, np.float32(np.nan)),
                self.binning.count,
                unit=self.binning.pyfai_unit,
                radial_range=(self.binning.low, self.binning.high),
                method=(settings.splitting, "csc", "cython"),
                mask=self.geometry.gap_mask,
                correctSolidAngle=settings.solid_angle,
                polarization_factor=settings.polarization_factor,
                normalization_factor=frame.scale,
                dark=self.dark,
                flat=self._flat,
                variance=variance,
                error_model="azimuthal" if model == "azimuthal" else None,
            )
        empty = result.count <= 0
        intensity = np.where(empty, np.nan, result.intensity)
        if result.sigma is None or model == "none":
            return intensity, None
        return intensity, np.where(empty, np.nan, result.sigma)

    def _add_azimuthal(
        self, rows: dict[str, dict[str, NDArray[np.float32]]], frame: _Frame, kept: BoolArray
    ) -> None:
        """Add spottiness and azimuthal excess variance (decision 6) to every variant."""
        static = frame.valid["masked"]
        full = self._plain_mean(frame, static)
        clean = rows["masked"]["I"] if "masked" in rows else self._plain_mean(frame, kept)
        excess, pixels = self._excess_variance(frame, static)
        few = pixels < MIN_EXCESS_PIXELS
        spottiness = np.where(few, np.nan, full - clean).astype(np.float32)
        excess = np.where(few, np.nan, excess)
        for row in rows.values():
            row["spottiness"] = spottiness
            row["azimuthal_excess_variance"] = excess.astype(np.float32)

    def _mean(
        self, frame: _Frame, good: BoolArray, sums: _Sums
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean per pixel over ``good`` pixels, and its denominators; NaN without pixels."""
        norm = np.where(sums.pixels > 0, sums.norm * frame.scale, np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            return (self.matrix @ np.where(good, frame.signal.ravel(), 0.0)) / norm, norm

    def _plain_mean(self, frame: _Frame, kept: BoolArray) -> NDArray[np.float32]:
        """Mean over a part of the masked variant's pixels, as stored."""
        good = kept.ravel()
        return self._mean(frame, good, self._dynamic_sums("masked", good))[0].astype(np.float32)

    def _excess_variance(
        self, frame: _Frame, valid: BoolArray
    ) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """(azimuthal variance − counting variance) / mean², unsplit; and the pixels per bin."""
        assert self._rings is not None
        bins = self._rings.bins
        n_bins = self.binning.count
        use = np.flatnonzero(valid.ravel() & (bins >= 0))
        where = bins[use]
        weight = frame.norm.ravel()[use].astype(np.float64)
        value = frame.signal.ravel()[use] / weight
        pixels = np.bincount(where, minlength=n_bins)
        noise = self.settings.noise
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = np.bincount(where, frame.signal.ravel()[use], n_bins) / np.bincount(
                where, weight, n_bins
            )
            deviation = np.bincount(where, (value - mean[where]) ** 2, n_bins) / (pixels - 1)
            if noise is None:
                return np.full(n_bins, np.nan), pixels
            # Unlike pyFAI's errors this is the unbiased estimate: no floor of one count.
            photon = np.maximum(frame.raw.ravel()[use], 0) * noise.gain + noise.read_noise**2
            counting = np.bincount(where, photon / weight**2, n_bins) / pixels
            return (deviation - counting) / mean**2, pixels
