"""Random numbers that depend on what they are for, not on when they are asked for.

Every number is a function of (seed, sample, purpose, item): sample i is the same whoever draws it,
in whatever batch, and switching one effect off leaves the numbers of all others as they were.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Float = NDArray[np.float64]
Words = NDArray[np.uint64]

_MASK = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox(counter: tuple[Words, Words, Words, Words], key: tuple[int, int]) -> list[Words]:
    """Philox4x32-10: four 32-bit words for every counter, each of the counters' shape.

    Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC11 (2011).

    Parameters
    ----------
    counter
        Four arrays with values below 2³², of shapes that broadcast.
    key
        Two numbers below 2³².
    """
    a, b, c, d = (np.array(word) for word in np.broadcast_arrays(*counter))
    first, second = np.empty_like(a), np.empty_like(a)
    low, high = key
    for _ in range(_ROUNDS):
        np.multiply(a, _MULTIPLIERS[0], out=first)
        np.multiply(c, _MULTIPLIERS[1], out=second)
        np.right_shift(second, _SHIFT, out=a)
        a ^= b
        a ^= np.uint64(low)
        np.bitwise_and(second, _MASK, out=b)
        np.right_shift(first, _SHIFT, out=c)
        c ^= d
        c ^= np.uint64(high)
        np.bitwise_and(first, _MASK, out=d)
        low, high = (low + _WEYL[0]) & 0xFFFFFFFF, (high + _WEYL[1]) & 0xFFFFFFFF
    return [a, b, c, d]


@dataclass(frozen=True)
class Counter:
    """Random numbers of some samples of a stream.

    Parameters
    ----------
    seed
        Names the stream, below 2⁶⁴.
    samples
        Shape (N,), the numbers of the samples.
    """

    seed: int
    samples: NDArray[np.uint64]

    def uniform(self, purpose: str, count: int) -> Float:
        """``count`` numbers per sample in (0, 1), shape (N, count)."""
        blocks = -(-count // 4)
        item = np.arange(blocks, dtype=np.uint64)
        words = self._words(purpose, self.samples[:, None], item[None, :])
        return words.reshape(len(self.samples), 4 * blocks)[:, :count]

    def normal(self, purpose: str, count: int) -> Float:
        """``count`` standard normal numbers per sample, shape (N, count)."""
        return np.asarray(ndtri(self.uniform(purpose, count)), np.float64)

    def items(
        self, purpose: str, place: NDArray[np.int64], item: NDArray[np.int64], count: int
    ) -> Float:
        """Numbers in (0, 1) of single items of samples, shape (M, count).

        Parameters
        ----------
        purpose
            What they are for.
        place
            Shape (M,), which of this object's samples an item belongs to.
        item
            Shape (M,), the number of the item in its sample.
        count
            Numbers per item.
        """
        blocks = -(-count // 4)
        each = np.arange(blocks, dtype=np.uint64)
        number: Words = item.astype(np.uint64)[:, None] * np.uint64(blocks) + each
        words = self._words(purpose, self.samples[place][:, None], number)
        return words.reshape(len(place), 4 * blocks)[:, :count]

    def keys(self, purpose: str) -> NDArray[np.uint32]:
        """Four words per sample, shape (N, 4), for random fields made elsewhere."""
        zero = np.zeros(len(self.samples), np.uint64)
        return np.stack(self._philox(purpose, self.samples, zero), axis=-1).astype(np.uint32)

    def _words(self, purpose: str, sample: Words, item: Words) -> Float:
        words = np.stack(self._philox(purpose, sample, item), axis=-1)
        return np.asarray((words + 0.5) * 2.0**-32, np.float64)

    def _philox(self, purpose: str, sample: Words, item: Words) -> list[Words]:
        what = np.array(zlib.crc32(purpose.encode()), np.uint64)
        key = (self.seed & 0xFFFFFFFF, (self.seed >> 32) & 0xFFFFFFFF)
        return philox((item & _MASK, what, sample & _MASK, sample >> _SHIFT), key)


def counter(seed: int, first: int, number: int) -> Counter:
    """Random numbers of the samples first … first + number − 1 of a stream."""
    return Counter(seed, np.arange(first, first + number, dtype=np.uint64))


def between(uniform: Float, limits: tuple[float, float]) -> Float:
    """Numbers in (0, 1) to numbers uniform between two limits."""
    return limits[0] + (limits[1] - limits[0]) * uniform


def log_between(uniform: Float, limits: tuple[float, float]) -> Float:
    """Numbers in (0, 1) to numbers log-uniform between two positive limits."""
    return np.asarray(np.exp(between(uniform, (np.log(limits[0]), np.log(limits[1])))), np.float64)


SEARCHED = 10.0
"""Poisson numbers of a smaller mean are found by adding up probabilities."""


def poisson(uniform: Float, mean: Float) -> Float:
    """Poisson numbers from numbers in (0, 1), as whole float64; shape of both.

    The inverse of the distribution: exact for small means; for means above ``SEARCHED`` the
    Cornish-Fisher expansion of the quantile, which misses the distribution by less than 0.1 %.
    """
    uniform, mean = np.broadcast_arrays(uniform, mean)
    z = ndtri(uniform)
    # Rounding adds 1/12 to the variance.
    root = np.sqrt(np.maximum(mean - 1 / 12, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        wide = mean + root * z + (z * z - 1) / 6 - (z**3 - z) / (72 * root)
    number = np.floor(np.maximum(wide, 0) + 0.5)
    few = np.flatnonzero(mean.ravel() < SEARCHED)
    u, m = uniform.ravel()[few], mean.ravel()[few]
    found = np.zeros(len(few))
    term = np.exp(-m)
    total = term.copy()
    left = np.flatnonzero(u > total)
    while len(left):
        found[left] += 1
        term[left] *= m[left] / found[left]
        total[left] += term[left]
        # A term below rounding cannot lift the total over u any more.
        left = left[(u[left] > total[left]) & (term[left] > 1e-18)]
    number = np.array(number)
    number.ravel()[few] = found
    return number
