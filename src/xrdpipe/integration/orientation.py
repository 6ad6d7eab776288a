"""Does a frame lie like the PONI says? Rings are sharp only in the right orientation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.integration.geometry import Geometry

N_BINS = 1500
"""Fine enough to resolve rings, coarse enough that a bin holds several pixels."""

CLIP_QUANTILE = 0.995
"""Brighter pixels (hot pixels, single-crystal spots) say nothing about rings."""

SHARPEST = 1e-6
"""Part of the variance that stays within the rings of a frame without noise."""


def best_orientation(
    geometry: Geometry, images: Mapping[str, NDArray[Any]]
) -> tuple[dict[str, float], str]:
    """Ring sharpness of each oriented image, and the name of the sharpest.

    Sharpness is the variance of all pixels over the variance within rings: 1 where pixels of one
    2theta have no more in common than any others. How steep the profile is does not tell: a flip
    about a point beside the beam gives steep profiles too, where bins hold few pixels.

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
        value, ring = flat[good], where[good]
        if not value.size:
            sharpness[name] = 1.0
            continue
        value = np.minimum(value, np.quantile(value, CLIP_QUANTILE))
        pixels = np.bincount(ring, minlength=N_BINS)
        mean = np.bincount(ring, value, N_BINS) / np.maximum(pixels, 1)
        freedom = max(value.size - int(np.count_nonzero(pixels)), 1)
        within = float(np.sum((value - mean[ring]) ** 2)) / freedom
        total = float(value.var())
        sharpness[name] = total / max(within, SHARPEST * total) if total else 1.0
    return sharpness, max(sharpness, key=lambda name: sharpness[name])
