"""Does a frame lie like the PONI says? Rings are sharp only in the right orientation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.integration.geometry import Geometry

N_BINS = 1500
"""Fine enough to resolve rings, coarse enough that each bin averages many pixels."""

CLIP_QUANTILE = 0.995
"""Brighter pixels (hot pixels, single-crystal spots) say nothing about rings."""


def best_orientation(
    geometry: Geometry, images: Mapping[str, NDArray[Any]]
) -> tuple[dict[str, float], str]:
    """Ring sharpness of each oriented image, and the name of the sharpest.

    Sharpness is the mean squared step between neighbouring bins of the azimuthal mean, after the
    smooth part (21 bins) is removed: misplaced rings smear over many bins.

    Parameters
    ----------
    images
        Orientation → image of the geometry's shape, NaN where invalid.
    """
    edges = np.linspace(*geometry.two_theta_range, N_BINS + 1)
    where = np.clip(np.digitize(geometry.two_theta.ravel(), edges) - 1, 0, N_BINS - 1)
    sharpness = {}
    for name, image in images.items():
        flat = image.ravel().astype(np.float64)
        good = np.isfinite(flat) & ~geometry.gap_mask.ravel()
        flat = np.minimum(flat, np.quantile(flat[good], CLIP_QUANTILE))
        pixels = np.bincount(where[good], minlength=N_BINS)
        total = np.bincount(where[good], flat[good], minlength=N_BINS)
        mean = np.divide(total, pixels, out=np.zeros(N_BINS), where=pixels > 0)
        detail = (mean - np.convolve(mean, np.full(21, 1 / 21), "same"))[30:-30]
        weight = pixels[30:-30] > np.median(pixels[pixels > 0]) / 4
        sharpness[name] = float(np.mean(detail[weight] ** 2)) if weight.any() else 0.0
    return sharpness, max(sharpness, key=lambda name: sharpness[name])
