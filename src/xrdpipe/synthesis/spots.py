"""Spots that belong to no phase: diamond anvils with their halos, spikes, hot pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.synthesis.counter import Counter, between, log_between, poisson
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.synthesis.rings import Exposure, Float, Scenery, Sticks, peak_height
from xrdpipe.synthesis.surroundings import Knots
from xrdpipe.types import Grid

MOST_SPIKES = 8

SPOT = (1e-3, 1e-2)
"""Part of the ring's azimuth that an anvil's spot covers."""


def draw_spots(
    grid: Grid,
    exposure: Exposure,
    scenery: Scenery,
    in_file: NDArray[np.bool_],
    recipe: Recipe,
    counter: Counter,
) -> tuple[Sticks, Halos]:
    """Spots of the anvils and unindexed spikes, as sticks; halos at the knots.

    Parameters
    ----------
    grid, exposure, scenery, recipe, counter
        What they are drawn with.
    in_file
        Shape (N,), whether a mask file takes out the spots of the anvils.
    """
    anvils, spikes, number = recipe.anvil_spots, recipe.spikes, len(counter.samples)
    if not (anvils.on or spikes.on):
        nowhere, nothing = np.zeros(0, np.int64), np.zeros(0)
        dark = np.zeros_like(scenery.smooth)
        return Sticks(nowhere, nowhere, *(nothing,) * 6), Halos(dark, dark, dark)
    spacing = np.array(anvils.spacings if anvils.on else ())
    spacing = spacing[spacing > 1.02 * grid.wavelength / 2]
    known = len(spacing)
    places = counter.uniform("anvil spots", 6 * known).reshape(number, 6, known)
    there = places[:, 0] < anvils.probability
    strained = spacing * (1 + 0.001 * counter.normal("anvil strain", known))
    sample = np.repeat(np.arange(number), known).reshape(number, known)
    angle = np.degrees(2 * np.arcsin(np.minimum(grid.wavelength / (2 * strained), 1)))
    position = exposure.shifted(sample, angle)
    height = log_between(places[:, 1], anvils.height)
    count = MOST_SPIKES if spikes.on else 0
    stray = counter.uniform("spikes", 1 + 3 * count)
    shown = np.arange(count) < poisson(stray[:, :1], np.full((number, 1), spikes.number))
    stray = stray[:, 1:].reshape(number, 3, count)
    place = between(stray[:, 0], (grid.start, grid.stop))
    position = np.concatenate([position, place], axis=1)
    height = np.concatenate([height, log_between(stray[:, 1], spikes.height)], axis=1)
    there = np.concatenate([there, shown], axis=1)
    draws = counter.uniform("spot shapes", 4 * (known + count)).reshape(number, 4, known + count)
    width = exposure.width[:, None] * log_between(draws[:, 0], anvils.width)
    spot = log_between(draws[:, 1], SPOT)
    # A spot that fills its pixels counts no further.
    counts = np.minimum(exposure.level[:, None] * height, exposure.saturation[:, None] * spot)
    row = np.broadcast_to(np.arange(number)[:, None], there.shape)
    local = scenery.knots.at(scenery.smooth, row, position)
    filed = in_file[:, None] & (np.arange(there.shape[1]) < known)
    masked = filed | ((counts / spot > exposure.limit(row, local)) & recipe.masking.on)
    left = np.where(masked, log_between(draws[:, 2], anvils.left), 1.0)
    shade = scenery.knots.at(scenery.transmission, row, position)
    area = shade * counts * width / peak_height(draws[:, 3])
    taken = area * (1 - left)
    keep = np.nonzero(there)
    sticks = Sticks(
        sample=keep[0],
        owner=np.full(len(keep[0]), -1),
        position=position[keep],
        width=width[keep],
        mixing=draws[:, 3][keep],
        clean=(area * left)[keep],
        spots=np.where(filed, 0.0, taken)[keep],
        filed=np.where(filed, taken, 0.0)[keep],
    )
    clean, spots = _halos(
        scenery.knots,
        position[:, :known],
        np.where(
            there[:, :known] & (places[:, 2] < anvils.halo_probability),
            counts[:, :known] * log_between(places[:, 3], anvils.halo_height),
            0.0,
        ),
        log_between(places[:, 4], anvils.halo_width),
        left[:, :known],
        exposure.level,
    )
    spots *= scenery.transmission
    rejected = np.where(in_file[:, None], 0.0, spots)
    return sticks, Halos(clean * scenery.transmission, rejected, spots - rejected)


@dataclass(frozen=True)
class Halos:
    """Counts per pixel of halos at the knots, (N, J) each.

    Parameters
    ----------
    clean, spots, filed
        What masking leaves, what rejection takes, and what a mask file takes.
    """

    clean: Float
    spots: Float
    filed: Float


def _halos(
    knots: Knots, position: Float, height: Float, width: Float, left: Float, level: Float
) -> tuple[Float, Float]:
    """Wide Lorentzians around anvil spots, at the knots."""
    clean = np.zeros((len(position), len(knots.two_theta)))
    spots = np.zeros_like(clean)
    for k in range(position.shape[1]):
        rows = np.flatnonzero(height[:, k])
        distance = 2 * (knots.two_theta - position[rows, k, None]) / width[rows, k, None]
        shape = 1 / (1 + distance**2)
        # Rejection follows a halo down to its own threshold: little of it stays.
        stays = np.minimum(height[rows, k] * left[rows, k], 0.3 * level[rows])
        stays = np.where(left[rows, k] < 1, stays, height[rows, k])
        clean[rows] += stays[:, None] * shape
        spots[rows] += (height[rows, k] - stays)[:, None] * shape
    return clean, spots


@dataclass(frozen=True)
class Towers:
    """Hot pixels in the azimuthal mean: boxes, T in all.

    Parameters
    ----------
    sample
        Shape (T,), place in the batch.
    low, high
        Ends of the box, degrees.
    counts
        Height, counts per pixel.
    filed
        Whether a mask file takes it.
    """

    sample: NDArray[np.int64]
    low: Float
    high: Float
    counts: Float
    filed: NDArray[np.bool_]


def draw_hot_pixels(
    grid: Grid,
    pixel: Float,
    scenery: Scenery,
    in_file: NDArray[np.bool_],
    recipe: Recipe,
    counter: Counter,
) -> Towers:
    """Hot pixels of unmasked patterns.

    One pixel of width p at 2θ is one of 2π·2θ·coverage/p on its ring: it lifts every bin it covers
    by its counts times p/(2π·2θ·coverage), a box of its width. Their number grows with the ring.
    """
    hot = recipe.hot_pixels
    if not hot.on:
        nothing = np.zeros(0)
        return Towers(np.zeros(0, np.int64), nothing, nothing, nothing, np.zeros(0, bool))
    draws = counter.uniform("hot pixels", 2)
    number = poisson(draws[:, 1], log_between(draws[:, 0], hot.number))
    ring = scenery.knots.two_theta * scenery.coverage.knots
    sample = np.repeat(np.arange(len(number)), number.astype(np.int64))
    first = np.cumsum(number) - number
    item = np.arange(len(sample)) - first.astype(np.int64)[sample]
    words = counter.items("hot pixel", sample, item, 4)
    # Places in proportion to the rings: the samples' cumulative sums, end to end, are one search.
    share = np.cumsum(ring, axis=1)
    share /= share[:, -1:]
    flat = (share + np.arange(len(share))[:, None]).ravel()
    found = np.searchsorted(flat, sample + words[:, 0]) - sample * ring.shape[1]
    knot = np.clip(found, 0, ring.shape[1] - 1)
    centre = scenery.knots.two_theta[knot] + scenery.knots.step * (words[:, 1] - 0.5)
    # A pixel seen along its diagonal is up to √2 wide.
    half = pixel[sample] * between(words[:, 2], (0.5, 0.705))
    circumference = np.radians(360 * np.maximum(ring[sample, knot], 1e-6))
    counts = log_between(words[:, 3], hot.counts) * np.minimum(pixel[sample] / circumference, 1)
    return Towers(sample, centre - half, centre + half, counts, in_file[sample])
