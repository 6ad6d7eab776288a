"""Scores of presence predictions against a truth, always beside prevalence.

Undetermined pixels (decision -1, probability NaN) are counted and reported; they never vanish:
every accuracy comes once over the determined pixels and once with undetermined ones as wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import InputError
from xrdpipe.schema import ABSENT, PRESENT, UNDECIDED
from xrdpipe.types import BoolArray, FloatArray, IntArray, Table

Z95 = 1.959963984540054
"""Two-sided 95 % point of the normal distribution."""

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class PhaseScores:
    """How well the presence of one phase is predicted; NaN where a score is not defined.

    Parameters
    ----------
    phase
        Name.
    pixels
        Number of pixels compared.
    undetermined
        Pixels without a decision.
    without_probability
        Pixels whose probability is NaN, left out of auroc, brier, ece and aurc.
    prevalence
        Fraction of all pixels where the phase is present.
    accuracy, accuracy_low, accuracy_high
        Over the determined pixels, with its 95 % Wilson interval.
    accuracy_all
        The same with undetermined pixels counted as wrong.
    constant_accuracy
        Of the better constant answer over the determined pixels.
    balanced_accuracy, f1, mcc
        Over the determined pixels.
    auroc, brier, ece
        From the probabilities.
    aurc
        Area under the risk-coverage curve: mean error rate of the most confident pixels, over
        all parts of the pixels that one may keep.
    true_present, false_present, true_absent, false_absent
        Counts over the determined pixels.
    """

    phase: str
    pixels: int
    undetermined: int
    without_probability: int
    prevalence: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    accuracy_all: float
    constant_accuracy: float
    balanced_accuracy: float
    f1: float
    mcc: float
    auroc: float
    brier: float
    ece: float
    aurc: float
    true_present: int
    false_present: int
    true_absent: int
    false_absent: int


def wilson_interval(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Interval of a proportion (Wilson, J. Am. Stat. Assoc. 22, 209 (1927)); NaN for 0 trials."""
    if trials == 0:
        return float("nan"), float("nan")
    share = successes / trials
    centre = share + z * z / (2 * trials)
    half = z * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    scale = 1 + z * z / trials
    return max(float((centre - half) / scale), 0.0), min(float((centre + half) / scale), 1.0)


def auroc(truth: BoolArray, score: FloatArray) -> float:
    """Probability that a present pixel scores above an absent one, ties counting half.

    From the rank sum (Mann & Whitney 1947); NaN if only one class occurs.

    Parameters
    ----------
    truth, score
        Shape (n,); scores finite.
    """
    positive = int(truth.sum())
    negative = truth.size - positive
    if positive == 0 or negative == 0:
        return float("nan")
    _, inverse, count = np.unique(score, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(count) - (count - 1) / 2
    rank_sum = float(mean_rank[inverse][truth].sum())
    return (rank_sum - positive * (positive + 1) / 2) / (positive * negative)


def brier(truth: BoolArray, probability: FloatArray) -> float:
    """Mean squared difference of probability and truth; NaN without pixels."""
    if truth.size == 0:
        return float("nan")
    return float(np.mean((probability - truth) ** 2))


def calibration_bins(
    probability: FloatArray, bins: int = CALIBRATION_BINS, weight: FloatArray | None = None
) -> IntArray:
    """Bin of each pixel, 0 to ``bins`` - 1, by probability; the bins hold equal weights.

    Parameters
    ----------
    probability
        Shape (n,), finite. Equal probabilities share a bin, so that the order of the pixels
        does not matter.
    bins
        Number of bins wanted; fewer are filled where there are fewer distinct probabilities.
    weight
        Shape (n,), how much a pixel counts [default: all the same].
    """
    values, inverse = np.unique(probability, return_inverse=True)
    mass = np.bincount(inverse, weights=weight, minlength=len(values))
    # A value goes to the bin that its middle rank falls into.
    middle = (np.cumsum(mass) - mass / 2) / mass.sum()
    place: IntArray = np.minimum((middle * bins).astype(int), bins - 1)[inverse]
    return place


def expected_calibration_error(
    truth: BoolArray,
    probability: FloatArray,
    bins: int = CALIBRATION_BINS,
    weight: FloatArray | None = None,
) -> float:
    """Mean |observed frequency - mean probability| over bins of equal weight; NaN without pixels.

    Parameters
    ----------
    truth, probability
        Shape (n,); probabilities finite.
    bins, weight
        See :func:`calibration_bins`.
    """
    if truth.size == 0:
        return float("nan")
    mass = np.ones(truth.size) if weight is None else np.asarray(weight, dtype=float)
    place = calibration_bins(probability, bins, mass)
    gap = np.bincount(place, weights=mass * (truth - probability), minlength=bins)
    return float(np.abs(gap).sum() / mass.sum())


def risk_coverage(
    right: BoolArray, confidence: FloatArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Error rate among the most confident pixels, against the part of the pixels kept.

    El-Yaniv & Wiener, J. Mach. Learn. Res. 11, 1605 (2010). Pixels of equal confidence are kept
    or left together.

    Parameters
    ----------
    right, confidence
        Shape (n,): right answers and how sure each is, finite.

    Returns
    -------
    Coverage, rising to 1, and risk; one entry per distinct confidence.
    """
    values, inverse = np.unique(-np.asarray(confidence, dtype=float), return_inverse=True)
    kept = np.cumsum(np.bincount(inverse, minlength=len(values)))
    wrong = np.cumsum(np.bincount(inverse, weights=~right, minlength=len(values)))
    return kept / max(right.size, 1), wrong / kept


def area_under_risk(right: BoolArray, confidence: FloatArray) -> float:
    """Mean risk over all coverages, from :func:`risk_coverage`; NaN without pixels."""
    if right.size == 0:
        return float("nan")
    coverage, risk = risk_coverage(right, confidence)
    return float(np.sum(np.diff(coverage, prepend=0.0) * risk))


def matthews(true_present: int, false_present: int, true_absent: int, false_absent: int) -> float:
    """Matthews correlation coefficient of a 2x2 table; NaN if a row or column is empty."""
    product = (
        float(true_present + false_present)
        * float(true_present + false_absent)
        * float(true_absent + false_present)
        * float(true_absent + false_absent)
    )
    if product == 0:
        return float("nan")
    return (true_present * true_absent - false_present * false_absent) / float(np.sqrt(product))


def score_phase(
    phase: str, truth: BoolArray, probability: FloatArray, decision: IntArray
) -> PhaseScores:
    """Score one phase.

    Parameters
    ----------
    phase
        Name.
    truth
        True = present; any shape.
    probability
        Same shape, 0-1 or NaN.
    decision
        Same shape: 1 present, 0 absent, -1 undetermined or no data.

    Raises
    ------
    InputError
        Shapes differ, or a decision or probability is out of range.
    """
    if not truth.shape == probability.shape == decision.shape:
        raise InputError(
            f"{phase}: truth {truth.shape}, probability {probability.shape} and decision "
            f"{decision.shape} must have one shape."
        )
    truth = np.asarray(truth, dtype=bool).ravel()
    probability = np.asarray(probability, dtype=float).ravel()
    decision = np.asarray(decision).ravel()
    if not np.isin(decision, (PRESENT, ABSENT, UNDECIDED)).all():
        raise InputError(f"{phase}: decisions must be 1, 0 or -1; found {np.unique(decision)}.")
    finite = np.isfinite(probability)
    if np.any((probability[finite] < 0) | (probability[finite] > 1)):
        raise InputError(f"{phase}: probabilities must lie between 0 and 1.")
    present, absent = decision == PRESENT, decision == ABSENT
    table = (
        int((present & truth).sum()),
        int((present & ~truth).sum()),
        int((absent & ~truth).sum()),
        int((absent & truth).sum()),
    )
    true_present, false_present, true_absent, false_absent = table
    determined = sum(table)
    correct = true_present + true_absent
    positive, negative = true_present + false_absent, true_absent + false_present
    low, high = wilson_interval(correct, determined)
    return PhaseScores(
        phase=phase,
        pixels=truth.size,
        undetermined=truth.size - determined,
        without_probability=int((~finite).sum()),
        prevalence=_ratio(int(truth.sum()), truth.size),
        accuracy=_ratio(correct, determined),
        accuracy_low=low,
        accuracy_high=high,
        accuracy_all=_ratio(correct, truth.size),
        constant_accuracy=_ratio(max(positive, negative), determined),
        balanced_accuracy=(_ratio(true_present, positive) + _ratio(true_absent, negative)) / 2,
        f1=_ratio(2 * true_present, 2 * true_present + false_present + false_absent),
        mcc=matthews(*table),
        auroc=auroc(truth[finite], probability[finite]),
        brier=brier(truth[finite], probability[finite]),
        ece=expected_calibration_error(truth[finite], probability[finite]),
        aurc=area_under_risk(
            ((probability > 0.5) == truth)[finite], np.abs(probability - 0.5)[finite]
        ),
        true_present=true_present,
        false_present=false_present,
        true_absent=true_absent,
        false_absent=false_absent,
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def exact_match(truth: BoolArray, decision: IntArray) -> dict[str, float]:
    """Share of pixels where every phase is right.

    Parameters
    ----------
    truth, decision
        Shape (K, ...).

    Returns
    -------
    ``exact_match`` over the pixels with every phase determined, with ``low`` and ``high``
    (95 %), ``all`` with the others as wrong, ``undetermined`` pixels, and ``constant``: the
    share of the most common combination among the determined pixels.
    """
    phases = truth.shape[0]
    truth = np.asarray(truth, dtype=bool).reshape(phases, -1)
    decision = np.asarray(decision).reshape(phases, -1)
    determined = np.all(decision != UNDECIDED, axis=0)
    right = determined & np.all((decision == PRESENT) == truth, axis=0)
    low, high = wilson_interval(int(right.sum()), int(determined.sum()))
    combinations = Counter(map(bytes, truth.T[determined]))
    return {
        "exact_match": _ratio(int(right.sum()), int(determined.sum())),
        "low": low,
        "high": high,
        "all": _ratio(int(right.sum()), right.size),
        "undetermined": int((~determined).sum()),
        "constant": _ratio(max(combinations.values(), default=0), int(determined.sum())),
    }


def block_interval(
    correct: BoolArray,
    valid: BoolArray,
    block: int,
    *,
    repeats: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % interval of an accuracy whose pixels are alike in neighbourhoods: block bootstrap.

    Square blocks of the map are drawn with replacement (Künsch, Ann. Stat. 17, 1217 (1989)).

    Parameters
    ----------
    correct, valid
        Shape (ny, nx): right answers, and the pixels that count.
    block
        Side of a block in pixels; larger than the neighbourhood.
    repeats
        Number of bootstrap maps.
    seed
        Of the draw.
    """
    ny, nx = correct.shape
    columns = -(-nx // block)
    rows_index, columns_index = np.mgrid[0:ny, 0:nx] // block
    label = (rows_index * columns + columns_index).ravel()
    blocks = int(label.max()) + 1
    right = np.bincount(label, weights=(correct & valid).ravel(), minlength=blocks)
    total = np.bincount(label, weights=valid.ravel(), minlength=blocks)
    if total.sum() == 0:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(0, blocks, (repeats, blocks))
    counted = total[drawn].sum(axis=1)
    share = right[drawn].sum(axis=1)[counted > 0] / counted[counted > 0]
    low, high = np.quantile(share, [0.025, 0.975])
    return float(low), float(high)


def score_map(
    phases: Sequence[str],
    truth: BoolArray,
    probability: FloatArray,
    decision: IntArray,
    *,
    block: int | None = None,
) -> dict[str, Any]:
    """All scores of a map.

    Parameters
    ----------
    phases
        K names.
    truth, probability, decision
        Shape (K, ny, nx).
    block
        Side of the bootstrap blocks in pixels [default: a sixth of the shorter side].

    Returns
    -------
    ``phases``: a dict per phase (see PhaseScores, plus ``accuracy_block_low/high``) and
    ``exact_match``.
    """
    if not truth.shape == probability.shape == decision.shape or truth.ndim != 3:
        raise InputError(
            f"truth {truth.shape}, probability {probability.shape} and decision "
            f"{decision.shape} must share one shape (phases, ny, nx)."
        )
    side = max(min(truth.shape[1:]) // 6, 1) if block is None else block
    scored = []
    for k, phase in enumerate(phases):
        scores = asdict(score_phase(phase, truth[k], probability[k], decision[k]))
        right = (decision[k] == PRESENT) == truth[k]
        low, high = block_interval(right, decision[k] != UNDECIDED, side)
        scored.append(scores | {"accuracy_block_low": low, "accuracy_block_high": high})
    return {
        "pixels": int(np.prod(truth.shape[1:])),
        "block": side,
        "phases": scored,
        "exact_match": exact_match(truth, decision),
    }


def score_unknown(truth: BoolArray, score: FloatArray, threshold: float) -> dict[str, float]:
    """How well an unknown score tells pixels with a phase outside the label set.

    Parameters
    ----------
    truth
        Shape (ny, nx), True where there is such a phase, however little of it.
    score
        Same shape, NaN without data: left out.
    threshold
        From which on a pixel counts as unknown.
    """
    known = np.isfinite(score)
    there, said = truth[known], score[known] >= threshold
    with np.errstate(invalid="ignore"):
        return {
            "pixels": int(known.sum()),
            "prevalence": float(there.mean()) if there.size else np.nan,
            "auroc": auroc(there, score[known]),
            "found": float(said[there].mean()) if there.any() else np.nan,
            "false_alarms": float(said[~there].mean()) if (~there).any() else np.nan,
        }


def score_table(scores: dict[str, Any]) -> tuple[Table, str]:
    """Scores for people: prevalence and the constant answer beside accuracy; the sentences below.

    Shares in percent.
    """
    head = (
        "phase", "prevalence", "constant", "accuracy (95 %)", "balanced", "F1", "MCC", "AUROC",
        "Brier", "ECE", "undetermined",
    )  # fmt: skip
    rows = tuple(
        (
            row["phase"],
            _percent(row["prevalence"]),
            _percent(row["constant_accuracy"]),
            f"{_percent(row['accuracy'])} ({_percent(row['accuracy_low'])}-"
            f"{_percent(row['accuracy_high'])})",
            _percent(row["balanced_accuracy"]),
            *(_number(row[name]) for name in ("f1", "mcc", "auroc", "brier", "ece")),
            str(row["undetermined"]),
        )
        for row in scores["phases"]
    )
    match = scores["exact_match"]
    lines = [
        f"exact match of all phases: {_percent(match['exact_match'])} % "
        f"({_percent(match['low'])}-{_percent(match['high'])}), constant "
        f"{_percent(match['constant'])} %; {scores['pixels']} pixels, "
        f"{match['undetermined']} with an undetermined phase "
        f"({_percent(match['all'])} % with these as wrong)."
    ]
    if unknown := scores.get("unknown"):
        lines.append(
            f"phases outside the label set: in {_percent(unknown['prevalence'])} % of the pixels; "
            f"AUROC of the unknown score {_number(unknown['auroc'])}, at its threshold "
            f"{_percent(unknown['found'])} % found, {_percent(unknown['false_alarms'])} % false "
            "alarms."
        )
    return Table(head, rows, frozenset(head[1:])), "\n".join(lines)


def _percent(share: float) -> str:
    return "-" if np.isnan(share) else f"{100 * share:.1f}"


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"
