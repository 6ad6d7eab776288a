"""Counting noise of whole batches: random fields from counters, Poisson numbers, pixel splitting.

A field depends on the keys of its sample and the place in it alone, so that it is the same in any
batch and on any device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

EXACT = 30.0
"""Poisson numbers of a larger mean are continuous, with the mean, variance and skewness kept."""

SEARCHED = 4.0
"""Those of a smaller mean are found by adding up probabilities."""


EMPTY = 1e-8
"""Smaller means give 0: less than a uniform number resolves."""


def uniform_field(keys: Tensor, field: int, size: int) -> Tensor:
    """Numbers in (0, 1), shape (N, size), float32.

    Two keyed rounds of a 32-bit mixing function (the finalizer of MurmurHash3 with constants by
    C. Wellons' prospector, of low bias) over the place.

    Parameters
    ----------
    keys
        Shape (N, 4), int32; two words are used.
    field
        Number of the field, for several of one sample.
    size
        Numbers per sample.
    """
    return _fine(_words(keys, field, size))


def fields(keys: Tensor, field: int, size: int) -> tuple[Tensor, Tensor]:
    """Numbers in (0, 1) and, independent of them, standard normal ones; shapes (N, size).

    The second are of 256 values, out to 2.9: enough for a small disturbance.

    Parameters
    ----------
    keys, field, size
        See :func:`uniform_field`.
    """
    words = _words(keys, field, size)
    levels = normal((torch.arange(256, device=keys.device) + 0.5) / 256)
    coarse = levels[words & 0xFF]
    return _fine(words), coarse


def _words(keys: Tensor, field: int, size: int) -> Tensor:
    place = torch.arange(size, dtype=torch.int32, device=keys.device) + field * 0x01000003
    return _mix(_mix(place ^ keys[:, :1]).add_(keys[:, 1:2]))


def _fine(words: Tensor) -> Tensor:
    """The upper 23 bits and a half: with one bit more, the largest would round to 1."""
    upper = words.bitwise_right_shift_(9).bitwise_and_(0x7FFFFF)
    return upper.to(torch.float32).add_(0.5).mul_(2.0**-23)


def _mix(x: Tensor) -> Tensor:
    """Mix the bits of int32 numbers, in place."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B - (1 << 32)), (16, 1)):
        # Shifts of signed numbers bring in sign bits, which are masked away.
        x ^= (x >> shift).bitwise_and_((1 << (32 - shift)) - 1)
        if factor != 1:
            x *= factor
    return x


def normal(uniform: Tensor) -> Tensor:
    """Numbers in (0, 1) to standard normal ones."""
    return torch.erfinv(2 * uniform - 1).mul_(math.sqrt(2))


def poisson(mean: Tensor, uniform: Tensor) -> Tensor:
    """Poisson numbers from numbers in (0, 1), float32, shape (N, n) of both.

    Whole numbers for means below ``EXACT``: the inverse of the distribution below ``SEARCHED``,
    above it the rounded Cornish-Fisher expansion of the quantile.
    """
    z = normal(uniform)
    skew = (z * z).sub_(1).div_(6)
    number = torch.addcmul(skew, torch.sqrt(mean), z).add_(mean).clamp_(min=0)
    rows = torch.nonzero(mean.amin(dim=-1) < EXACT)[:, 0]
    if len(rows):
        m, v = mean[rows], z[rows]
        # Rounding adds 1/12 to the variance.
        root = (m - 1 / 12).clamp_(min=1e-6).sqrt_()
        bend = v * (v * v).sub_(1) / (-72 * root)
        whole = torch.addcmul(skew[rows], root, v).add_(m).add_(bend).add_(0.5).floor_()
        whole = torch.where(m < EXACT, whole.clamp_(min=0), number[rows])
        rare = torch.nonzero((m < SEARCHED).reshape(-1))[:, 0]
        whole.view(-1)[rare] = _inverse(m.reshape(-1)[rare], uniform[rows].reshape(-1)[rare])
        number[rows] = whole
    return number


def _inverse(mean: Tensor, uniform: Tensor) -> Tensor:
    """Smallest number whose cumulative probability reaches ``uniform``, for small means."""
    number = torch.zeros_like(mean)
    there = torch.nonzero(mean >= EMPTY)[:, 0]
    if len(there) < len(mean):
        if len(there):
            number[there] = _inverse(mean[there], uniform[there])
        return number
    term = torch.exp(-mean)
    total = term.clone()
    for k in range(1, 24):
        above = uniform > total
        if k % 4 == 1 and not bool(above.any()):
            break
        number += above
        term = term * (mean / k)
        total = total + term
    return number


def running_sum(values: Tensor, half: Tensor) -> Tensor:
    """Sums over 2·half + 1 points centred on each, shorter at the ends, shape (V, N, n).

    Parameters
    ----------
    values
        Shape (V, N, n): V fields of N samples.
    half
        Shape (N,), whole numbers ≥ 0; few different ones.
    """
    summed = values.clone()
    for width in torch.unique(half).tolist():
        rows = torch.nonzero(half == width)[:, 0]
        field = values[:, rows]
        total = field.clone()
        for shift in range(1, int(width) + 1):
            total[..., shift:] += field[..., :-shift]
            total[..., :-shift] += field[..., shift:]
        summed[:, rows] = total
    return summed


def ripple(keys: Tensor, field: int, length: Tensor, size: int) -> Tensor:
    """A disturbance of about unit variance that is smooth over ``length`` points, shape (N, size).

    Parameters
    ----------
    keys, field
        See :func:`uniform_field`.
    length
        Shape (N,), points ≥ 2.
    size
        Points.
    """
    knots = normal(uniform_field(keys, field, size // int(length.min()) + 2))
    place = torch.arange(size, device=keys.device) / length[:, None]
    below = place.to(torch.int64)
    weight = place - below
    left, right = torch.gather(knots, 1, below), torch.gather(knots, 1, below + 1)
    return left + (right - left) * weight
