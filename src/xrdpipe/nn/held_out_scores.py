"""A written model on held-out synthetic patterns, and its report."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.metrics import auroc, brier, expected_calibration_error
from xrdpipe.nn.inference import load_model, prior_shift
from xrdpipe.nn.task import REPORT, Task
from xrdpipe.nn.training_report import draw_judged, performance
from xrdpipe.types import FloatArray, IntArray


def write_report(
    task: Task,
    model: Path,
    name: str,
    started: float,
    patterns_seen: int,
    learning: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Score a model folder on held-out patterns and write ``report.json`` into it.

    Parameters
    ----------
    task, model, name
        What was trained, where it lies, and its name.
    started
        ``time.perf_counter()`` at the start.
    patterns_seen
        Patterns that training saw, those of all members together.
    learning
        Learning curves of the members; a classical method has none.
    """
    report = {
        "name": name,
        "seed": task.seed,
        "seconds_of_this_session": round(time.perf_counter() - started, 1),
        "patterns_seen": patterns_seen,
        **evaluate(task, model),
        "learning": learning or [],
    }
    text = json.dumps(report, indent=2, ensure_ascii=False)
    (model / "report.json").write_text(text + "\n", encoding="utf-8")
    return report


def evaluate(task: Task, model_folder: Path) -> dict[str, Any]:
    """Scores of a written model on held-out synthetic patterns, beside prevalence.

    Patterns whose phase is below the detection limit are left out of the scores of that phase and
    counted apart. The calibration error is taken after shifting the prior to the prevalence.
    """
    model = load_model(model_folder, "cpu")
    recipe = task.recipe
    judged = draw_judged(task.stream(REPORT), recipe)
    batch = judged.batch
    probability, _, unknown = model.predict(batch.intensity, batch.coverage, batch.spottiness)
    rows = {
        "all": np.ones(len(batch.masked), dtype=bool),
        "masked": batch.masked,
        "unmasked": ~batch.masked,
    }
    scores = {
        label: {
            phase: _scores(batch.presence[chosen, index], probability[chosen, index])
            for index, phase in enumerate(task.library.names)
        }
        for label, chosen in rows.items()
    }
    known = (batch.presence >= 0).all(axis=1)
    exact = ((probability >= 0.5) == (batch.presence == 1)).all(axis=1)[known].mean()
    return {
        "held_out_patterns": len(batch.masked),
        "exact_match": float(exact) if known.any() else None,
        "scores": scores,
        "unknown": {
            label: _scores(batch.foreign[chosen], unknown[chosen]) for label, chosen in rows.items()
        }
        if model.card.unknown is not None
        else None,
        **performance(model, judged, probability),
    }


def _scores(label: IntArray, probability: FloatArray) -> dict[str, float | int | None]:
    judged = label >= 0
    truth, said = label[judged] == 1, probability[judged].astype(float)
    prevalence = float(truth.mean()) if truth.size else float("nan")
    if 0 < prevalence < 1:
        shifted = prior_shift(said[:, None], [0.5], [prevalence])[:, 0].astype(float)
    else:
        shifted = said
    decision = said >= 0.5
    faint = label == -1
    scores = {
        "patterns": int(judged.sum()),
        "prevalence": prevalence,
        "accuracy": _mean(decision == truth),
        "true_positive_rate": _mean(decision[truth]),
        "true_negative_rate": _mean(~decision[~truth]),
        "auroc": auroc(truth, said),
        "ece": expected_calibration_error(truth, shifted),
        "brier": brier(truth, shifted),
        "below_detection_limit": int(faint.sum()),
        "found_below_detection_limit": _mean(probability[faint] >= 0.5),
    }
    return {key: round(value, 5) if math.isfinite(value) else None for key, value in scores.items()}


def _mean(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if values.size else float("nan")
