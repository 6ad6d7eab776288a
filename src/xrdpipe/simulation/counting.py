"""What the counter of a pixel shows: photons, defects, zingers, saturation, sentinels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.simulation.plane import DetectorPlane
from xrdpipe.types import BoolArray, FloatArray

MANY_PHOTONS = 1000.0
"""Above this the Poisson distribution is drawn as a Gaussian of the same mean and variance."""

ZINGERS = 3.0
"""Mean number of zingers per frame."""


@dataclass(frozen=True)
class BadPixels:
    """Static defects of the detector, shape (rows, columns) each.

    Parameters
    ----------
    dead
        True where a pixel always reads 0.
    hot
        Counts that a pixel adds to every frame, 0 for good pixels.
    """

    dead: BoolArray
    hot: NDArray[np.float32]

    @property
    def pixels(self) -> BoolArray:
        """Dead or hot."""
        either: BoolArray = self.dead | (self.hot > 0)
        return either


def draw_bad_pixels(
    plane: DetectorPlane,
    random: np.random.Generator,
    dead_fraction: float = 2e-4,
    hot_fraction: float = 1e-4,
) -> BadPixels:
    """Draw dead pixels, and hot ones of 10^2 to 10^5.5 counts; none in the gaps."""
    rows, columns = plane.shape
    live = ~plane.gap_mask
    chance = random.random((rows, columns))
    level = 10 ** random.uniform(2, 5.5, (rows, columns))
    dead = (chance < dead_fraction) & live
    hot = (chance > 1 - hot_fraction) & live
    return BadPixels(dead=dead, hot=np.where(hot, level, 0).astype(np.float32))


def photon_counts(expected: FloatArray, random: np.random.Generator) -> NDArray[np.int64]:
    """Poisson-distributed counts of the given expectation, same shape."""
    bright = np.nonzero(expected > MANY_PHOTONS)
    if not bright[0].size:
        return random.poisson(expected)
    mean = np.asarray(expected[bright], dtype=float)
    counts = random.poisson(np.where(expected > MANY_PHOTONS, 0, expected))
    counts[bright] = np.rint(mean + np.sqrt(mean) * random.standard_normal(mean.size))
    return counts


def add_zingers(counts: NDArray[np.int64], random: np.random.Generator, mean: float) -> None:
    """Add events of cosmic and stray high-energy photons, one to three pixels long, in place."""
    rows, columns = counts.shape
    for _ in range(int(random.poisson(mean))):
        row, column = int(random.integers(rows)), int(random.integers(columns))
        length = int(random.integers(1, 4))
        counts[row, column : column + length] += int(10 ** random.uniform(1.5, 4.5))


def expose(
    expected: FloatArray,
    plane: DetectorPlane,
    bad: BadPixels,
    random: np.random.Generator,
    *,
    saturation: int | None,
    zingers: float = ZINGERS,
    poisson: bool = True,
) -> NDArray[np.int64]:
    """Turn expected counts into what the counter of each pixel shows.

    Parameters
    ----------
    expected
        Shape (rows, columns), counts, efficiency included.
    plane
        The detector.
    bad
        Its defects.
    random
        Draws the photons.
    saturation
        Largest value that the counter can show; None for a counter without end.
    zingers
        Mean number of zingers per frame.
    poisson
        False rounds the expected counts.

    Returns
    -------
    Shape (rows, columns); gaps hold 0, see :func:`with_sentinels`.
    """
    mean = expected + bad.hot
    counts = photon_counts(mean, random) if poisson else np.rint(mean).astype(np.int64)
    add_zingers(counts, random, zingers)
    if saturation is not None:
        np.minimum(counts, saturation, out=counts)
    counts[bad.dead | plane.gap_mask] = 0
    return counts


def with_sentinels(
    counts: NDArray[np.int64], flagged: BoolArray, dtype: np.dtype[Any] | str
) -> NDArray[Any]:
    """Counts in the detector's dtype; flagged pixels get its sentinel.

    The sentinel of photon-counting detectors is 2ⁿ-1 of unsigned and -1 of signed types.
    """
    kind = np.dtype(dtype)
    sentinel = -1 if kind.kind == "i" else int(np.iinfo(kind).max)
    stored = np.minimum(counts, np.iinfo(kind).max - 1).astype(kind)
    stored[flagged] = sentinel
    return stored
