"""Scores with intervals by bootstrap over maps: pixels of a map are alike, maps are independent.

Every score is computed for a stack of weightings of the maps at once. Row 0 counts each map once:
the score itself. The other rows count each map as often as it was drawn (Efron & Tibshirani, *An
Introduction to the Bootstrap*, ch. 6). The same rows serve every method, so differences are paired.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xrdpipe.metrics import CALIBRATION_BINS, calibration_bins
from xrdpipe.nn.inference import prior_shift
from xrdpipe.schema import ABSENT, PRESENT
from xrdpipe.types import BoolArray, FloatArray, IntArray

Rows = NDArray[np.float64]
"""A score for every weighting, shape (rows,)."""


def map_weights(maps: int, repeats: int = 2000, seed: int = 0) -> NDArray[np.float64]:
    """Weightings of the maps, shape (1 + repeats, maps): once each, then drawn with replacement."""
    drawn = np.random.default_rng(seed).multinomial(maps, np.full(maps, 1 / maps), repeats)
    return np.concatenate([np.ones((1, maps)), drawn])


def interval(rows: Rows) -> dict[str, float | None]:
    """Value and 95 % interval (percentiles); None where it is not defined."""
    value = float(rows[0])
    drawn = rows[1:][np.isfinite(rows[1:])]
    # A resample without one of the classes has no score; with many of those there is no interval.
    if not np.isfinite(value) or drawn.size < 0.5 * (len(rows) - 1):
        return {"value": value if np.isfinite(value) else None, "low": None, "high": None}
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"value": value, "low": float(low), "high": float(high)}


def mean_rows(scores: Sequence[Rows]) -> Rows:
    """Mean over phases or seeds, row by row; NaN stays NaN."""
    return np.mean(np.stack(scores), axis=0)


def _divide(part: FloatArray, whole: FloatArray) -> Rows:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def decision_scores(
    truth: BoolArray, decision: IntArray, use: BoolArray, weights: FloatArray
) -> dict[str, Rows]:
    """Accuracy and its kin at the threshold; an undetermined pixel is a wrong one.

    Parameters
    ----------
    truth, decision, use
        Shape (maps, pixels): presence, 1/0/-1, and the pixels that count.
    weights
        From :func:`map_weights`.
    """

    def count(which: BoolArray) -> Rows:
        summed: Rows = weights @ (which & use).sum(axis=1)
        return summed

    true_present = count(truth & (decision == PRESENT))
    true_absent = count(~truth & (decision == ABSENT))
    false_present = count(~truth & (decision == PRESENT))
    positive, negative = count(truth), count(~truth)
    all_pixels = positive + negative
    missed, false_alarm = positive - true_present, negative - true_absent
    prevalence = _divide(positive, all_pixels)
    product = (true_present + false_alarm) * positive * negative * (true_absent + missed)
    return {
        "prevalence": prevalence,
        "constant": np.maximum(prevalence, 1 - prevalence),
        "accuracy": _divide(true_present + true_absent, all_pixels),
        "balanced_accuracy": (_divide(true_present, positive) + _divide(true_absent, negative)) / 2,
        "mcc": _divide(true_present * true_absent - false_alarm * missed, np.sqrt(product)),
        "f1": _divide(2 * true_present, 2 * true_present + false_alarm + missed),
        "recall": _divide(true_present, positive),
        "false_presence": _divide(false_present, negative),
        "undetermined": _divide(count(~np.isin(decision, (PRESENT, ABSENT))), all_pixels),
    }


def auroc_rows(truth: BoolArray, score: FloatArray, use: BoolArray, weights: FloatArray) -> Rows:
    """Area under the ROC curve, ties counting half; pixels without a score are left out."""
    use = use & np.isfinite(score)
    maps = len(truth)
    which = np.broadcast_to(np.arange(maps)[:, None], truth.shape)[use]
    levels, level = np.unique(score[use], return_inverse=True)
    cells = maps * len(levels)
    present = truth[use]
    place = which * len(levels) + level
    positive = np.bincount(place[present], minlength=cells).reshape(maps, -1).astype(np.float32)
    negative = np.bincount(place[~present], minlength=cells).reshape(maps, -1).astype(np.float32)
    rows = np.empty(len(weights))
    for first in range(0, len(weights), 256):
        part = weights[first : first + 256].astype(np.float32)
        ups, downs = (part @ positive).astype(float), (part @ negative).astype(float)
        below = np.cumsum(downs, axis=1) - downs / 2
        rows[first : first + 256] = _divide(
            (ups * below).sum(axis=1), ups.sum(axis=1) * downs.sum(axis=1)
        )
    return rows


def calibration_rows(
    truth: BoolArray,
    probability: FloatArray,
    use: BoolArray,
    weights: FloatArray,
    prior: float | None = None,
) -> dict[str, Rows]:
    """Expected calibration error (15 bins of equal mass, the same for every row) and Brier score.

    Parameters
    ----------
    truth, probability, use, weights
        As above; probabilities at a prior of 0.5.
    prior
        Bring the prevalence to this by weighting the pixels, and shift the log-odds of the
        probabilities alike; None leaves both as they are.
    """
    use = use & np.isfinite(probability)
    present = truth[use]
    stated = probability[use].astype(float)
    mass = np.ones(present.size)
    if prior is not None and 0 < present.sum() < present.size:
        stated = prior_shift(stated[:, None], [0.5], [prior])[:, 0].astype(float)
        mass = np.where(present, prior / present.mean(), (1 - prior) / (1 - present.mean()))
    if present.size == 0:
        nothing = np.full(len(weights), np.nan)
        return {"ece": nothing, "brier": nothing}
    maps = len(truth)
    which = np.broadcast_to(np.arange(maps)[:, None], truth.shape)[use]
    place = calibration_bins(stated, CALIBRATION_BINS, mass)
    gap = np.bincount(
        which * CALIBRATION_BINS + place,
        weights=mass * (present - stated),
        minlength=maps * CALIBRATION_BINS,
    ).reshape(maps, -1)
    squared = np.bincount(which, weights=mass * (present - stated) ** 2, minlength=maps)
    counted = weights @ np.bincount(which, weights=mass, minlength=maps)
    return {
        "ece": _divide(np.abs(weights @ gap).sum(axis=1), counted),
        "brier": _divide(weights @ squared, counted),
    }


def exact_match_rows(
    truth: BoolArray, decision: IntArray, use: BoolArray, weights: FloatArray
) -> Rows:
    """Share of the pixels where every phase is right; shapes (maps, K, pixels)."""
    counted = use.all(axis=1)
    right = np.all(np.where(truth, decision == PRESENT, decision == ABSENT), axis=1) & counted
    return _divide(weights @ right.sum(axis=1), weights @ counted.sum(axis=1))


def detection(
    found: BoolArray,
    values: FloatArray,
    use: BoolArray,
    edges: Sequence[float],
    weights: FloatArray,
) -> list[dict[str, float | int | None]]:
    """Probability of detection in classes of a quantity.

    Parameters
    ----------
    found, values, use
        Shape (maps, pixels): found present, the quantity, and the positives that count.
    edges
        Of the classes; the last class includes its upper edge.
    weights
        From :func:`map_weights`.
    """
    rows = []
    last = len(edges) - 2
    for number in range(last + 1):
        low, high = edges[number], edges[number + 1]
        here = use & (values >= low) & ((values < high) | ((number == last) & (values <= high)))
        share = _divide(weights @ (found & here).sum(axis=1), weights @ here.sum(axis=1))
        rows.append({"from": low, "to": high, "pixels": int(here.sum()), **interval(share)})
    return rows
