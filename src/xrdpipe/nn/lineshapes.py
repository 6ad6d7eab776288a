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

RATIO = 2.0
"""Largest ratio of neighbouring widths; errors stay below 0.3 % of a line's height."""

MOST_NODES = 6

TOGETHER = 16
"""Patterns transformed at a time on a processor: what stays in its cache."""


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
    order = torch.nonzero(near)[:, 0]
    order = order[torch.argsort(lines.sample[order], stable=True)]
    lines = Lines(*(values[order] for values in lines))
    device = lines.areas.device
    out = torch.zeros((number, lines.areas.shape[1], size), device=device)
    if not len(lines.sample):
        return out
    ladder = _ladder(lines, number)
    together = TOGETHER if device.type == "cpu" else max(number, 1)
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
    # Values for (line and lane, shape, version, point), added into (lanes, 2, versions, length).
    shapes = torch.stack([1 - mixing, mixing], dim=1)[:, :, None] * areas[:, None, :]
    values = (shapes[..., None] * spline[:, None, None, :]).to(torch.float32)[line]
    values *= ladder.weight[mine][line, k].to(torch.float32)[:, None, None, None]
    track = torch.arange(2 * versions, device=device).reshape(2, versions)
    index = (lane[:, None, None] * (2 * versions) + track)[..., None] * length
    index = index + column[line][:, None, None, :]
    field = torch.zeros(lanes * 2 * versions * length, device=device)
    field.index_add_(0, index.reshape(-1), values.reshape(-1))
    spectrum = torch.fft.rfft(field.reshape(lanes, 2, versions, length))
    torch.view_as_real(spectrum).flatten(-2).mul_(_kernels(lane_width, length)[:, :, None])
    owner = torch.repeat_interleave(torch.arange(number, device=device), nodes)
    total = torch.zeros((number, versions, length // 2 + 1), dtype=spectrum.dtype, device=device)
    total.index_add_(0, owner, spectrum[:, 0]).index_add_(0, owner, spectrum[:, 1])
    frequency = torch.arange(length // 2 + 1, device=device) / length
    total *= torch.sinc(frequency) ** -4  # the B-spline's own transform
    patterns: Tensor = torch.fft.irfft(total, n=length)
    return patterns[..., MARGIN : MARGIN + size]


def _nodes(log: Tensor, sample: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Smallest logarithm of the width, range of it, and number of nodes of every pattern."""
    low = torch.full((number,), math.inf, dtype=log.dtype, device=log.device)
    high = -low
    low = low.scatter_reduce(0, sample, log, "amin")
    high = high.scatter_reduce(0, sample, log, "amax")
    span = torch.nan_to_num(high - low, neginf=0.0)
    low = torch.nan_to_num(low, posinf=0.0)
    nodes = 2 + torch.ceil(span / math.log(RATIO)).to(torch.int64)
    return low, span, torch.where(span < 1e-3, 1, nodes.clamp(max=MOST_NODES))


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


def _kernels(width: Tensor, length: int) -> Tensor:
    """Transforms of unit-area Gaussians and Lorentzians, shape (lanes, 2, length + 2 or + 1).

    Every number stands twice, for the real and the imaginary part that it multiplies.
    """
    frequency = torch.arange(length // 2 + 1, device=width.device) / length
    frequency = frequency.repeat_interleave(2)
    product = -math.pi * width.to(torch.float32)[:, None] * frequency
    exponent = torch.stack([product * product * (-1 / (4 * math.log(2))), product], dim=1)
    # Numbers too small to be normal would make everything slow.
    return torch.exp_(exponent.clamp_(min=-60.0))
