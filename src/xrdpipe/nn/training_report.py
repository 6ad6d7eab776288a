"""What a model can do on held-out synthetic patterns: confusion, calibration, detection limits.

The numbers behind the pictures of a training report. Everything is taken at the threshold of 0.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.metrics import calibration_bins, expected_calibration_error, wilson_interval
from xrdpipe.nn.inference import Model, prior_shift
from xrdpipe.nn.patterns import Chosen, choose
from xrdpipe.nn.stream import BLOCK, Stream, draw_block
from xrdpipe.nn.train_recipe import TrainRecipe
from xrdpipe.types import BoolArray, FloatArray

THRESHOLD = 0.5
LEVELS = (0.5, 0.9)
"""Probabilities of detection whose limits are given."""

FEWEST = 10
"""Patterns in a bin below which it says nothing about a detection limit."""

BINS = 8
"""Of fraction and grain number, of equal width in the logarithm."""

STRENGTHS = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0, 300.0)
"""Edges of the bins of matched-filter signal to noise; further ones would all be detected."""

PARTS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
"""Edges of the bins of the part of the grid with data."""


@dataclass(frozen=True)
class Judged:
    """Patterns that a model is judged on, with what they hold; N patterns, K phases.

    Parameters
    ----------
    batch
        What the model sees, and the labels.
    present
        Shape (N, K), True where the phase is there, visible or not.
    scattering, grains
        Shape (N, K), scattering fraction and number of grains in the beam.
    """

    batch: Chosen
    present: BoolArray
    scattering: FloatArray
    grains: FloatArray


def draw_judged(stream: Stream, recipe: TrainRecipe) -> Judged:
    """The first ``held_out`` patterns of a stream, one version of each."""
    parts, truth = [], []
    for first in range(0, recipe.held_out, BLOCK):
        number = min(BLOCK, recipe.held_out - first)
        tensors = draw_block(stream, first, number).as_tensors()
        parts.append(choose(tensors, recipe.masked_share, recipe.spottiness_share))
        truth.append([tensors[name].numpy() for name in ("present", "scattering", "grains")])
    present, scattering, grains = (np.concatenate(part) for part in zip(*truth, strict=True))
    return Judged(Chosen.joined(parts), present, scattering, grains)


def performance(model: Model, judged: Judged, probability: FloatArray) -> dict[str, Any]:
    """Confusion, calibration and detection limits of a model.

    Parameters
    ----------
    model
        As written, calibrated.
    judged
        From :func:`draw_judged`.
    probability
        Shape (N, K), what the model says of them; NaN without any data.

    Returns
    -------
    ``confusion``, ``calibration`` and ``detection``, plain numbers, None where there is none.
    """
    names = model.card.phase_names
    batch = judged.batch
    answers: dict[str, Any] = {
        "confusion": confusion(names, judged.present, batch.presence, probability),
        "calibration": calibration(names, batch.presence, probability, _uncalibrated(model, batch)),
        "detection": detection(names, judged, probability),
    }
    plain: dict[str, Any] = _plain(answers)
    return plain


def _uncalibrated(model: Model, batch: Chosen) -> FloatArray | None:
    """Probabilities without temperature and bias; None if there were none to begin with."""
    none = (0.0,) * len(model.card.phases)
    raw = tuple(replace(entry, temperature=1.0, bias=none) for entry in model.card.weights)
    if raw == model.card.weights:
        return None
    before = replace(model, card=replace(model.card, weights=raw))
    probability: FloatArray = before.predict(batch.intensity, batch.coverage, batch.spottiness)[0]
    return probability


def confusion(
    names: tuple[str, ...],
    present: BoolArray,
    labels: NDArray[np.int8],
    probability: FloatArray,
) -> dict[str, Any]:
    """What is taken for what.

    Parameters
    ----------
    names
        Of the K phases.
    present
        Shape (N, K), what is there.
    labels
        Same shape: 1 present, 0 absent, −1 present below the detection limit.
    probability
        Same shape.

    Returns
    -------
    ``phases``
        Counts of right and wrong answers per phase, and those below the detection limit apart.
    ``alone``
        Row i: patterns that hold phase i, visible, and no other phase of the library; the last row
        those that hold none. Column j: part of them in which phase j is said to be there. What
        stands beside the diagonal is one phase taken for another.
    ``alone_patterns``
        Patterns in each row, K + 1 numbers.
    ``missed_beside``
        Row i, column j: part of the patterns with both visible in which phase i is not found.
    ``missed_beside_patterns``
        Patterns behind each.
    """
    said = probability >= THRESHOLD
    visible = labels == 1
    count = len(names)
    only = present.sum(axis=1) == 1
    rows = [only & visible[:, i] for i in range(count)] + [~present.any(axis=1)]
    pairs = [[visible[:, i] & visible[:, j] for j in range(count)] for i in range(count)]
    return {
        "phases": {
            name: {
                "true_present": int((visible & said)[:, k].sum()),
                "false_absent": int((visible & ~said)[:, k].sum()),
                "true_absent": int(((labels == 0) & ~said)[:, k].sum()),
                "false_present": int(((labels == 0) & said)[:, k].sum()),
                "below_detection_limit_found": int(((labels == -1) & said)[:, k].sum()),
                "below_detection_limit_missed": int(((labels == -1) & ~said)[:, k].sum()),
            }
            for k, name in enumerate(names)
        },
        "alone": [[_share(said[row, j]) for j in range(count)] for row in rows],
        "alone_patterns": [int(row.sum()) for row in rows],
        "missed_beside": [[_share(~said[pair, i]) for pair in pairs[i]] for i in range(count)],
        "missed_beside_patterns": [[int(pair.sum()) for pair in row] for row in pairs],
    }


def calibration(
    names: tuple[str, ...],
    labels: NDArray[np.int8],
    probability: FloatArray,
    before: FloatArray | None,
) -> dict[str, Any]:
    """Reliability of each phase, on the patterns that are judged.

    Calibrated probabilities are those at a prior of 0.5 and are shifted to the prevalence first;
    those before calibration stand as the network learned them, at the prevalence of its training.

    Returns
    -------
    Per phase ``ece_before``, ``ece_after``, and for both ``reliability_…``: a list of
    (mean probability, frequency, its 95 % interval, patterns), one per bin of equal patterns.
    """
    return {name: _reliability(labels[:, k], probability[:, k], None if before is None else
            before[:, k]) for k, name in enumerate(names)}  # fmt: skip


def _reliability(
    labels: NDArray[np.int8], probability: FloatArray, before: FloatArray | None
) -> dict[str, Any]:
    known = (labels >= 0) & np.isfinite(probability)
    truth = labels[known] == 1
    prevalence = _share(truth)
    after = np.asarray(probability[known], dtype=float)
    if 0 < prevalence < 1:
        after = prior_shift(after[:, None], [0.5], [prevalence])[:, 0].astype(float)
    raw = None if before is None else np.asarray(before[known], dtype=float)
    return {
        "patterns": int(known.sum()),
        "prevalence": prevalence,
        "ece_before": None if raw is None else expected_calibration_error(truth, raw),
        "ece_after": expected_calibration_error(truth, after),
        "reliability_before": None if raw is None else _bins(truth, raw),
        "reliability_after": _bins(truth, after),
    }


def _bins(truth: BoolArray, probability: FloatArray) -> list[list[float]]:
    if not truth.size:
        return []
    place = calibration_bins(probability)
    rows = []
    for number in np.unique(place):
        inside = place == number
        found, patterns = int(truth[inside].sum()), int(inside.sum())
        mean = float(probability[inside].mean())
        rows.append([mean, found / patterns, *wilson_interval(found, patterns), patterns])
    return rows


def detection(names: tuple[str, ...], judged: Judged, probability: FloatArray) -> dict[str, Any]:
    """Probability of detection of each phase against what makes it hard.

    Returns
    -------
    Per quantity its ``label``, whether its axis is ``logarithmic``, the ``edges`` of its bins, and
    per phase ``patterns`` and ``found`` in each bin, of ``all`` patterns that hold the phase and of
    those where it is ``visible`` (above the detection limit of the labels); for each ``limits``:
    the smallest value from which on that part is found. ``false_presence``: part of the patterns
    without the phase in which it is said to be there.
    """
    said = probability >= THRESHOLD
    batch, present = judged.batch, judged.present
    seen = np.isfinite(batch.intensity).mean(axis=1)[:, None] + np.zeros(present.shape)
    strength = np.clip(np.where(np.isfinite(batch.strength), batch.strength, STRENGTHS[-1]),
                       STRENGTHS[0], STRENGTHS[-1])  # fmt: skip
    quantities = {
        "fraction": ("scattering fraction", True, judged.scattering, None),
        "grains": ("grains in the beam", True, judged.grains, None),
        "signal_to_noise": (
            "matched-filter signal to noise",
            True,
            strength,
            np.array(STRENGTHS),
        ),
        "range_with_data": (
            "part of the 2θ range with data",
            False,
            np.clip(seen, PARTS[0], 1),
            np.array(PARTS),
        ),
    }
    table: dict[str, Any] = {}
    for name, (label, logarithmic, values, given) in quantities.items():
        usable = present & np.isfinite(values) & (values > 0)
        edges = given if given is not None else _log_edges(values[usable])
        table[name] = {
            "label": label,
            "logarithmic": logarithmic,
            "edges": edges,
            "phases": {
                phase: {
                    kind: _detected(values[rows, k], said[rows, k], edges, logarithmic)
                    for kind, rows in (
                        ("all", usable[:, k]),
                        ("visible", usable[:, k] & (batch.presence[:, k] == 1)),
                    )
                }
                for k, phase in enumerate(names)
            },
        }
    table["false_presence"] = {
        phase: _share(said[~present[:, k], k]) for k, phase in enumerate(names)
    }
    return table


def _log_edges(values: FloatArray) -> NDArray[np.float64]:
    """Edges of equal bins in the logarithm; none if there is nothing to bin."""
    if not values.size or values.min() == values.max():
        return np.empty(0)
    edges = np.geomspace(values.min(), values.max(), BINS + 1)
    edges[-1] = values.max()  # rounding must not leave the largest out
    return edges


def _detected(
    values: FloatArray, found: BoolArray, edges: NDArray[np.float64], logarithmic: bool
) -> dict[str, Any]:
    if not edges.size:
        return {"patterns": [], "found": [], "limits": {str(level): None for level in LEVELS}}
    patterns = np.histogram(values, edges)[0]
    hits = np.histogram(values[found], edges)[0]
    limits = {
        str(level): detection_limit(edges, hits, patterns, level, logarithmic) for level in LEVELS
    }
    return {"patterns": patterns, "found": hits, "limits": limits}


def detection_limit(
    edges: FloatArray,
    found: NDArray[np.int64],
    patterns: NDArray[np.int64],
    level: float,
    logarithmic: bool = True,
) -> float | None:
    """Smallest value from which on at least ``level`` of the patterns are found.

    Interpolated between the middles of the two bins around it; the lower edge of the lowest bin
    if all are above, None if the highest is not. Bins of fewer than ten patterns are left out.
    """
    usable = patterns >= FEWEST
    if not usable.any():
        return None
    scale = np.log(edges) if logarithmic else np.asarray(edges, dtype=float)
    middle = ((scale[1:] + scale[:-1]) / 2)[usable]
    share = (found[usable] / patterns[usable]).astype(float)
    below = np.flatnonzero(share < level)
    if not below.size:
        limit = float(scale[:-1][usable][0])
    elif below[-1] == len(share) - 1:
        return None
    else:
        low = below[-1]
        part = (level - share[low]) / (share[low + 1] - share[low])
        limit = float(middle[low] + part * (middle[low + 1] - middle[low]))
    return math.exp(limit) if logarithmic else limit


def _share(values: BoolArray) -> float:
    return float(values.mean()) if values.size else float("nan")


def _plain(value: Any) -> Any:
    """Numbers that JSON knows, five digits; None for what is not finite."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(entry) for entry in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value
