"""From scores to log-odds: one logistic regression per phase."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from xrdpipe.types import FloatArray, IntArray

PULL = 1e-3
"""Weight of the squared coefficients, per pattern."""

Array = NDArray[np.float64]


def expanded(features: Array) -> Array:
    """Features, their products of two, and 1: (N, K, F) to (N, K, P)."""
    first, second = np.triu_indices(features.shape[2])
    ones = np.ones((*features.shape[:2], 1))
    return np.concatenate([ones, features, features[..., first] * features[..., second]], axis=2)


def terms(features: int) -> int:
    """Number P of coefficients for F features."""
    return 1 + features + features * (features + 1) // 2


def log_odds(features: Array, coefficients: Array) -> Array:
    """Log-odds of presence, (N, K); 0 where all features are: nothing is known there.

    Parameters
    ----------
    features
        Shape (N, K, F).
    coefficients
        Shape (K, P), from :func:`fit_decision`.
    """
    odds = np.einsum("nkp,kp->nk", expanded(features), coefficients)
    return np.where((features != 0).any(axis=2), odds, 0)


def fit_decision(features: Array, labels: IntArray) -> Array:
    """Coefficients of :func:`log_odds` at a prior of 0.5 per phase, shape (K, P).

    Minimises the cross-entropy, present and absent patterns of a phase having equal weight.

    Parameters
    ----------
    features
        Shape (N, K, F).
    labels
        Shape (N, K): 1, 0, or −1 for not judged.
    """
    fitted = []
    for k in range(features.shape[1]):
        judged = (labels[:, k] >= 0) & (features[:, k] != 0).any(axis=1)
        inputs = expanded(features[judged, k : k + 1])[:, 0]
        fitted.append(_fit_one(inputs, labels[judged, k] == 1))
    return np.array(fitted)


def _fit_one(inputs: Array, present: NDArray[np.bool_]) -> Array:
    count = inputs.shape[1]
    if present.all() or not present.any():
        return np.zeros(count)
    centre, spread = inputs.mean(axis=0), inputs.std(axis=0)
    # The constant term, and any feature that never varies, is not scaled.
    fixed = spread < 1e-9
    centre[fixed], spread[fixed] = 0, 1
    scaled = (inputs - centre) / spread
    share = np.where(present, 0.5 / present.sum(), 0.5 / (~present).sum())
    sign = np.where(present, 1.0, -1.0)

    def misfit(numbers: FloatArray) -> tuple[float, Array]:
        margin = sign * (scaled @ numbers)
        slope = -share * sign * 0.5 * (1 - np.tanh(margin / 2))
        value = np.sum(share * np.logaddexp(0, -margin)) + PULL * np.sum(numbers[1:] ** 2)
        gradient = slope @ scaled + 2 * PULL * np.append(0, numbers[1:])
        return float(value), gradient

    fit = minimize(misfit, np.zeros(count), jac=True, method="L-BFGS-B")
    result: Array = fit.x / spread
    result[0] -= result @ centre
    return result
