"""What a network sees: named views of a pattern, the same code in training and in production.

Every view is a pure function of the intensity and coverage on the model's grid. Windows are
given in grid points. Bins without data are NaN on input and never counts of zero: gaps are filled
linearly and the ends by the nearest value before any view is made (decision 13).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import InputError, OptionError, did_you_mean
from xrdpipe.types import FloatArray

Array32 = NDArray[np.float32]

BLOCK = 10
"""Points averaged before the background is sought."""

CLIP_BLOCKS = 12
"""Largest half window of the background clipping, in blocks (1.2° on a 0.01° grid)."""

NOISE_LAG = 12
"""Distance of the differences that measure noise, in points: beyond the width of a detector
pixel, over which the noise of neighbouring bins is correlated."""

NOISE_BLOCK = 100
"""Points per local noise estimate."""

ASINH_SCALE = 3.0
"""The high-pass view is asinh(signal / (3 σ)): linear below the noise, logarithmic above."""


def fill_gaps(intensity: FloatArray) -> Array32:
    """Fill NaN: gaps linearly between their neighbours, ends by the nearest value.

    Parameters
    ----------
    intensity
        Shape (N, n). A row without any finite value becomes zeros.

    Returns
    -------
    float32 of the same shape.
    """
    filled = np.array(intensity, dtype=np.float32)
    finite = np.isfinite(filled)
    points = np.arange(filled.shape[1])
    for row in np.flatnonzero(~finite.all(axis=1)):
        good = finite[row]
        filled[row] = np.interp(points, points[good], filled[row, good]) if good.any() else 0.0
    return filled


def minmax(intensity: FloatArray) -> Array32:
    """(I − min)/(max − min) per pattern (Li et al. 2024, Eq. 1), NaN ignored; constant → 0.

    Parameters
    ----------
    intensity
        Shape (N, n); NaN stays NaN.
    """
    values = np.asarray(intensity, dtype=np.float32)
    finite = np.isfinite(values)
    low = np.where(finite, values, np.inf).min(axis=1, keepdims=True)
    high = np.where(finite, values, -np.inf).max(axis=1, keepdims=True)
    span = high - low
    usable = np.isfinite(span) & (span > 0)
    with np.errstate(invalid="ignore"):
        scaled = (values - low) / np.where(usable, span, 1)
    result: Array32 = np.where(usable | ~finite, scaled, np.float32(0)).astype(np.float32)
    return result


def background(filled: FloatArray) -> Array32:
    """Smooth lower envelope of patterns without NaN, shape (N, n).

    Block means are clipped to the mean of their neighbours at ± w blocks, for w from 12 down to 1
    (SNIP with decreasing windows: Morháč et al., Nucl. Instrum. Meth. A 401, 113 (1997)), then
    joined linearly.
    """
    values = np.asarray(filled, dtype=np.float32)
    size = values.shape[1]
    blocks = -(-size // BLOCK)
    padded = np.pad(values, ((0, 0), (0, blocks * BLOCK - size)), mode="edge")
    level = padded.reshape(len(values), blocks, BLOCK).mean(axis=2)
    place = np.arange(blocks)
    for half in range(min(CLIP_BLOCKS, blocks - 1), 0, -1):
        left = level[:, np.maximum(place - half, 0)]
        right = level[:, np.minimum(place + half, blocks - 1)]
        # Near an end only the inner neighbour exists; the mean with itself would cut slopes.
        inside = (place >= half) & (place < blocks - half)
        level = np.where(inside, np.minimum(level, (left + right) / 2), level)
    return _join(level, (place + 0.5) * BLOCK - 0.5, size)


def noise(filled: FloatArray) -> Array32:
    """Local standard deviation of the noise of patterns without NaN, shape (N, n).

    1.4826/√2 times the median of |I(j + 12) − I(j)| in blocks of 100 points, smoothed over
    neighbouring blocks and joined linearly; peaks fill less than half of a block. Never below a
    tenth of the median over the pattern.
    """
    values = np.asarray(filled, dtype=np.float32)
    size = values.shape[1]
    lag = min(NOISE_LAG, size // 2)
    steps = np.abs(values[:, lag:] - values[:, :-lag])
    blocks = max(steps.shape[1] // NOISE_BLOCK, 1)
    width = steps.shape[1] // blocks
    median = np.median(steps[:, : blocks * width].reshape(len(values), blocks, width), axis=2)
    sigma = (1.4826 / np.sqrt(2) * median).astype(np.float32)
    around = np.pad(sigma, ((0, 0), (1, 1)), mode="edge")
    sigma = np.median(np.stack([around[:, :-2], around[:, 1:-1], around[:, 2:]]), axis=0)
    sigma = np.maximum(sigma, 0.1 * np.median(sigma, axis=1, keepdims=True))
    return _join(sigma, (np.arange(blocks) + 0.5) * width + lag / 2 - 0.5, size)


def _join(level: FloatArray, place: FloatArray, size: int) -> Array32:
    """Linear interpolation of (N, blocks) values at ``place`` onto 0 … size − 1, flat ends."""
    points = np.clip(np.arange(size), place[0], place[-1])
    upper = np.clip(np.searchsorted(place, points), 1, max(len(place) - 1, 1))
    if len(place) == 1:
        return np.repeat(level, size, axis=1).astype(np.float32)
    weight = ((points - place[upper - 1]) / (place[upper] - place[upper - 1])).astype(np.float32)
    joined: Array32 = level[:, upper - 1] * (1 - weight) + level[:, upper] * weight
    return joined.astype(np.float32)


@dataclass(frozen=True)
class _Seen:
    """Patterns as the views take them: (N, n) without NaN, coverage, and spottiness if measured."""

    filled: Array32
    coverage: Array32
    spottiness: FloatArray | None

    @functools.cached_property
    def noise(self) -> Array32:
        """Local noise, which several views need."""
        return noise(self.filled)


def _minmax_view(seen: _Seen) -> Array32:
    return minmax(seen.filled)


def _sqrt_view(seen: _Seen) -> Array32:
    """√ of the intensity between its 1st and 99th percentile, not clipped above until 9."""
    low, high = np.percentile(seen.filled, [1, 99], axis=1, keepdims=True)
    span = np.where(high > low, high - low, 1)
    root: Array32 = np.sqrt(np.clip((seen.filled - low) / span, 0, 9)).astype(np.float32)
    return root


def _root_view(seen: _Seen) -> Array32:
    """√ of the intensity over its median, at most 4: how high lines stand over the background.

    Whatever part of the pattern hot pixels and spots fill, they do not set the scale. Where the
    median is lost in the noise (patterns without background), the noise stands for it.
    """
    level = np.median(seen.filled, axis=1, keepdims=True)
    level = np.maximum(level, np.median(seen.noise, axis=1, keepdims=True))
    safe = np.where(level > 0, level, np.maximum(seen.filled.max(axis=1, keepdims=True), 1e-30))
    root: Array32 = np.sqrt(np.clip(seen.filled / safe, 0, 16)).astype(np.float32)
    return root


def _highpass_view(seen: _Seen) -> Array32:
    """asinh((I − background)/(3 σ)); 0 where there is no data."""
    sigma = seen.noise
    scale = ASINH_SCALE * np.where(sigma > 0, sigma, np.float32(np.inf))
    flat = np.all(sigma <= 0, axis=1, keepdims=True)
    # Noise-free patterns (a simulated one): a thousandth of the range stands for the noise.
    span = (seen.filled.max(axis=1, keepdims=True) - seen.filled.min(axis=1, keepdims=True)) / 1000
    scale = np.where(flat, ASINH_SCALE * np.where(span > 0, span, 1), scale)
    view: Array32 = np.arcsinh((seen.filled - background(seen.filled)) / scale).astype(np.float32)
    return np.where(seen.coverage > 0, view, np.float32(0))


def _coverage_view(seen: _Seen) -> Array32:
    return seen.coverage


def _spottiness_view(seen: _Seen) -> Array32:
    """asinh(spottiness/(3 σ)): what rejection removed, in units of the pattern's noise.

    0 where it was not measured: patterns integrated elsewhere bring none.
    """
    if seen.spottiness is None:
        return np.zeros_like(seen.filled)
    sigma = seen.noise
    excess = np.nan_to_num(np.asarray(seen.spottiness, dtype=np.float32))
    scale = ASINH_SCALE * np.where(sigma > 0, sigma, np.float32(np.inf))
    view: Array32 = np.arcsinh(excess / scale).astype(np.float32)
    return view


OPTIONAL = ("spottiness",)
"""Channels that patterns may lack."""

CHANNELS: dict[str, Callable[[_Seen], Array32]] = {
    "minmax": _minmax_view,
    "sqrt": _sqrt_view,
    "root": _root_view,
    "highpass": _highpass_view,
    "coverage": _coverage_view,
    "spottiness": _spottiness_view,
}
"""Name in ``model.json`` → view. Names stay once a model with them is released."""


def check_channels(names: tuple[str, ...]) -> None:
    """Refuse unknown channel names, naming the nearest known one."""
    for name in names:
        if name not in CHANNELS:
            raise OptionError(f"unknown input channel '{name}'.{did_you_mean(name, CHANNELS)}")
    if not names:
        raise OptionError(f"a network needs an input channel.{did_you_mean('', CHANNELS)}")


def build_channels(
    names: tuple[str, ...],
    intensity: FloatArray,
    coverage: FloatArray,
    spottiness: FloatArray | None = None,
) -> Array32:
    """Stack the named views of patterns.

    Parameters
    ----------
    names
        Keys of :data:`CHANNELS`, in the order of the network's input.
    intensity
        Shape (N, n) on the model's grid, NaN where there is no data.
    coverage
        Same shape, 0-1.
    spottiness
        Same shape, or None when not measured; its channel is then 0.

    Returns
    -------
    float32, shape (N, C, n).

    Raises
    ------
    OptionError
        Unknown channel name.
    InputError
        Arrays of different shapes.
    """
    check_channels(names)
    if intensity.ndim != 2 or coverage.shape != intensity.shape:
        raise InputError(
            "intensity and coverage must have one shape (patterns, points); got "
            f"{intensity.shape} and {coverage.shape}."
        )
    filled = fill_gaps(intensity)
    known = np.where(np.isfinite(intensity), np.nan_to_num(coverage), 0)
    seen = _Seen(filled, np.clip(known, 0, 1).astype(np.float32), spottiness)
    return np.stack([CHANNELS[name](seen) for name in names], axis=1)
