"""Lines to patterns, for a whole batch at once, by fast Fourier transforms.

A line of any width is written as a combination of lines of a few widths (Lagrange interpolation
in the logarithm of the width, nodes chosen per pattern), so that a batch needs one transform per
node instead of one evaluation per point and line. Lines are put between the points of the grid
with cubic B-splines, whose own transform is divided out.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from scipy.fft import next_fast_len
from torch import Tensor

MARGIN = 200
"""Points added at both ends, so that lines wrap around into what is cut away."""

NODES = {1: 0.001, 2: 0.25, 3: 0.7, 4: 1.4, 5: 2.1, 6: math.inf}
"""Nodes for a range of the logarithm of the width: errors stay below 1 % of a line's height."""

MOST_NODES = max(NODES)

TOGETHER = 32
"""Patterns transformed at a time on a processor: what stays in its cache."""

TOGETHER_ELSEWHERE = 2048
"""The same on other devices: places in a field must fit 32 bits."""


class Lines(NamedTuple):
    """Lines of a batch of patterns, M in all.

    Parameters
    ----------
    sample
        Shape (M,), pattern of each line.
    position, width
        Shape (M,), centre and FWHM in points of the grid.
    mixing
        Shape (M,), Lorentzian part.
    areas
        Shape (M, S): area in units × points, for S versions of every pattern.
    """

    sample: Tensor
    position: Tensor
    width: Tensor
    mixing: Tensor
    areas: Tensor


def render_lines(lines: Lines, number: int, size: int) -> Tensor:
    """Sums of pseudo-Voigt lines at the points of a grid.

    Parameters
    ----------
    lines
        What to draw.
    number, size
        Patterns N and points n.

    Returns
    -------
    Shape (N, S, n), float32.
    """
    near = (lines.position > -MARGIN + 2) & (lines.position < size + MARGIN - 3)
    near &= (lines.areas != 0).any(dim=1)
    order = torch.nonzero(near)[:, 0]
    order = order[torch.argsort(lines.sample[order], stable=True)]
    lines = Lines(*(values[order] for values in lines))
    device = lines.areas.device
    out = torch.zeros((number, lines.areas.shape[1], size), device=device)
    if not len(lines.sample):
        return out
    ladder = _ladder(lines, number)
    together = TOGETHER if device.type == "cpu" else TOGETHER_ELSEWHERE
    starts = torch.arange(0, number + together, together, device=device)
    ends = torch.searchsorted(lines.sample.contiguous(), starts).tolist()
    for k, first in enumerate(range(0, number, together)):
        mine = slice(ends[k], ends[k + 1])
        if mine.start < mine.stop:
            rows = slice(first, min(first + together, number))
            out[rows] = _render(lines, ladder, mine, rows, size)
    return out


class _Ladder(NamedTuple):
    """The nodes of every pattern, and the share of every line in them.

    Parameters
    ----------
    nodes, widths
        Shapes (N,) and (N, MOST_NODES): how many, and their FWHM in points.
    weight
        Shape (M, MOST_NODES), 0 for unused nodes.
    """

    nodes: Tensor
    widths: Tensor
    weight: Tensor


def _ladder(lines: Lines, number: int) -> _Ladder:
    log = torch.log(lines.width)
    low, span, nodes = _nodes(log, lines.sample, number)
    place = (log - low[lines.sample]) / torch.clamp(span[lines.sample], min=1e-12)
    weight = torch.zeros((len(place), MOST_NODES), dtype=place.dtype, device=place.device)
    widths = torch.ones((number, MOST_NODES), dtype=place.dtype, device=place.device)
    for count in range(1, MOST_NODES + 1):
        # Chebyshev nodes on [0, 1], whose interpolation errors are even over the range.
        at = [0.5 - 0.5 * math.cos(math.pi * (2 * k + 1) / (2 * count)) for k in range(count)]
        mine = nodes == count
        rows = torch.nonzero(mine[lines.sample])[:, 0]
        for k in range(count):
            widths[mine, k] = torch.exp(low[mine] + span[mine] * at[k])
            product = torch.ones_like(rows, dtype=place.dtype)
            for j in range(count):
                if j != k:
                    product *= (place[rows] - at[j]) / (at[k] - at[j])
            weight[rows, k] = product
    return _Ladder(nodes, widths, weight)


def _render(lines: Lines, ladder: _Ladder, mine: slice, rows: slice, size: int) -> Tensor:
    """Patterns ``rows``, whose lines are ``mine``."""
    length = next_fast_len(size + 2 * MARGIN, real=True)
    sample, position, _, mixing, areas = (values[mine] for values in lines)
    sample = sample - rows.start
    device, versions = areas.device, areas.shape[1]
    nodes, number = ladder.nodes[rows], rows.stop - rows.start
    # A lane is one node of one pattern; a line is put into all lanes of its pattern.
    used = torch.arange(MOST_NODES, device=device) < nodes[:, None]
    lane_width = ladder.widths[rows][used]
    lanes = len(lane_width)
    line, k = torch.nonzero(used[sample], as_tuple=True)
    lane = (torch.cumsum(nodes, 0) - nodes)[sample[line]] + k
    shifted = position + MARGIN
    cell = torch.floor(shifted)
    spline = _b_spline(shifted - cell)
    column = cell.to(torch.int64)[:, None] + torch.arange(-1, 3, device=device)
    # Values for (line and lane, shape, version, point), added into (…, …, versions, length).
    parts = [1 - mixing, mixing] if bool(mixing.any()) else [1 - mixing]
    kinds = len(parts)
    shapes = torch.stack(parts, dim=1)[:, :, None] * areas[:, None, :]
    values = (shapes[..., None] * spline[:, None, None, :]).to(torch.float32)[line]
    values *= ladder.weight[mine][line, k].to(torch.float32)[:, None, None, None]
    track = torch.arange(kinds * versions, device=device).reshape(kinds, versions)
    index = (lane[:, None, None] * (kinds * versions) + track)[..., None] * length
    index = index.to(torch.int32) + column[line].to(torch.int32)[:, None, None, :]
    field = torch.zeros(lanes * kinds * versions * length, device=device)
    field.index_add_(0, index.reshape(-1), values.reshape(-1))
    spectrum = torch.fft.rfft(field.reshape(lanes, kinds, versions, length))
    torch.view_as_real(spectrum).flatten(-2).mul_(_kernels(lane_width, length, kinds)[:, :, None])
    both = torch.view_as_real(spectrum).sum(dim=1)
    owner = torch.repeat_interleave(torch.arange(number, device=device), nodes)
    total = torch.zeros((number, *both.shape[1:]), device=device).index_add_(0, owner, both)
    frequency = torch.arange(length // 2 + 1, device=device) / length
    total *= (torch.sinc(frequency) ** -4)[:, None]  # the B-spline's own transform
    patterns: Tensor = torch.fft.irfft(torch.view_as_complex(total), n=length)
    return patterns[..., MARGIN : MARGIN + size]


def _nodes(log: Tensor, sample: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Smallest logarithm of the width, range of it, and number of nodes of every pattern."""
    low = torch.full((number,), math.inf, dtype=log.dtype, device=log.device)
    high = -low
    low = low.scatter_reduce(0, sample, log, "amin")
    high = high.scatter_reduce(0, sample, log, "amax")
    span = torch.nan_to_num(high - low, neginf=0.0)
    low = torch.nan_to_num(low, posinf=0.0)
    limits = torch.tensor(list(NODES.values())[:-1], dtype=span.dtype)
    return low, span, 1 + torch.bucketize(span, limits.to(span.device))


def _b_spline(fraction: Tensor) -> Tensor:
    """Cubic B-spline at the points −1, 0, 1, 2 around a place in [0, 1), shape (M, 4)."""
    t = fraction
    return torch.stack(
        [
            (1 - t) ** 3 / 6,
            (3 * t**3 - 6 * t**2 + 4) / 6,
            (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
            t**3 / 6,
        ],
        dim=1,
    )


def _kernels(width: Tensor, length: int, kinds: int) -> Tensor:
    """Transforms of unit-area Gaussians and Lorentzians, shape (lanes, kinds, length + 2 or + 1).

    Every number stands twice, for the real and the imaginary part that it multiplies. One kind is
    the Gaussian alone.
    """
    frequency = torch.arange(length // 2 + 1, device=width.device) / length
    product = -math.pi * width.to(torch.float32)[:, None] * frequency
    exponent = (product * product).mul_(-1 / (4 * math.log(2)))[:, None]
    if kinds == 2:
        exponent = torch.cat([exponent, product[:, None]], dim=1)
    # Numbers too small to be normal would make everything slow.
    kernel = torch.exp_(exponent.clamp_(min=-60.0))
    return torch.stack([kernel, kernel], dim=-1).flatten(-2)
