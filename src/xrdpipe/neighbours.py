"""Neighbouring pixels as a prior on presence, its strength estimated from the map itself.

The auto-logistic model of Besag, J. R. Stat. Soc. B 36, 192 (1974): the log-odds of a phase, before
a pixel's own pattern is looked at, are linear in what its neighbours show. Only the patterns of the
neighbours enter, never what the prior made of them, so nothing is counted twice and one pass does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from xrdpipe.types import BoolArray, FloatArray

Float = NDArray[np.float64]

LIMIT = 3.0
"""Largest strength, and largest log-odds that neighbours give.

A pixel surer than 0.953 by itself keeps its decision whatever is around it.
"""

DIAGONAL = 0.5
"""Weight of a neighbour across a corner; of one across an edge 1."""

SURE = 1e-6
"""A pattern is taken to be no surer than this."""

WIDE = 10.0
"""Largest log-odds of how common a phase is."""

DECIMALS = 3
"""To which a coupling is rounded: the last bits of an optimum differ between processors."""


@dataclass(frozen=True)
class Coupling:
    """How far the neighbours of a phase's pixels tell what a pixel holds.

    Parameters
    ----------
    strength
        Log-odds that eight sure neighbours give where half of the map holds the phase; 0 where
        the map shows no coupling.
    gain
        Rise of the log pseudo-likelihood that the strength brings; 0 where there is none.
    """

    strength: float
    gain: float


def with_neighbours(
    probability: FloatArray,
) -> tuple[NDArray[np.float32], tuple[Coupling, ...]]:
    """Presence probabilities that know of the neighbours.

    How common a phase is stays with the prior that the probabilities hold: neighbours count
    relative to the mean of the map.

    Parameters
    ----------
    probability
        Shape (K, ny, nx), of each pixel by itself, NaN where there is none: such pixels neither
        give nor get.

    Returns
    -------
    The same shape, and the coupling of each phase.
    """
    coupled = np.empty(probability.shape, np.float32)
    couplings = []
    for k, alone in enumerate(np.asarray(probability, np.float64)):
        known = np.isfinite(alone)
        odds = logit(np.clip(np.where(known, alone, 0.5), SURE, 1 - SURE))
        around = surroundings(odds, known)
        coupling = estimate(odds[known], around[known])
        told = np.clip(coupling.strength * around, -LIMIT, LIMIT)
        # Without coupling the probabilities stay what they are, to the bit.
        changed = expit(odds + told) if coupling.strength else alone
        coupled[k] = np.where(known, changed, np.nan)
        couplings.append(coupling)
    return coupled, tuple(couplings)


def surroundings(odds: Float, known: BoolArray) -> Float:
    """What the eight neighbours show, relative to the mean of the map.

    Parameters
    ----------
    odds
        Log-odds of presence, shape (ny, nx).
    known
        Same shape: where there is a result.

    Returns
    -------
    Same shape: weighted mean of 2 p − 1, p the probability of each neighbour by itself, minus that
    of the map; a neighbour that is not there counts as the mean.
    """
    shown = np.tanh(odds / 2)
    mean = shown[known].mean() if known.any() else 0.0
    padded = np.pad(np.where(known, shown - mean, 0.0), 1)
    middle, before, after = slice(1, -1), slice(None, -2), slice(2, None)
    edges = [(before, middle), (middle, before), (middle, after), (after, middle)]
    corners = [(before, before), (before, after), (after, before), (after, after)]
    total = np.zeros(odds.shape)
    for weight, places in ((1.0, edges), (DIAGONAL, corners)):
        for place in places:
            total += weight * padded[place]
    return total / (len(edges) + DIAGONAL * len(corners))


def estimate(odds: Float, around: Float) -> Coupling:
    """Coupling of the largest pseudo-likelihood, without labels.

    The chance of a pixel's pattern given its neighbours is, but for a constant,
    π e^λ + 1 − π with λ the log-odds of the pattern and logit π = a + b · around. a stands for how
    common the phase is and is not used further; b must raise the logarithm by more than log n
    (each pair of pixels counts twice, hence twice the ½ log n of the Bayesian information
    criterion), otherwise it is 0.

    Parameters
    ----------
    odds, around
        Of the n pixels with a result: log-odds, and what the neighbours show.
    """

    def loss(parameters: Float) -> tuple[float, Float]:
        prior = parameters[0] + parameters[1] * around
        slope = expit(prior) - expit(prior + odds)
        value = np.logaddexp(0, prior).sum() - np.logaddexp(0, prior + odds).sum()
        return float(value), np.array([slope.sum(), (slope * around).sum()])

    def best(strongest: float) -> tuple[float, float]:
        bounds = [(-WIDE, WIDE), (0.0, strongest)]
        from scipy.optimize import minimize  # slow to import, and rarely needed

        found = minimize(loss, [0.0, strongest / 2], jac=True, method="L-BFGS-B", bounds=bounds)
        return float(found.x[1]), float(found.fun)

    if odds.size == 0:
        return Coupling(0.0, 0.0)
    strength, coupled = best(LIMIT)
    gain = best(0.0)[1] - coupled
    if gain <= np.log(odds.size):
        return Coupling(0.0, 0.0)
    return Coupling(round(strength, DECIMALS), round(gain, DECIMALS))
