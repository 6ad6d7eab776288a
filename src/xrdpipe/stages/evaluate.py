"""Score a phase map against the truth of the simulation, phase by phase."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from xrdpipe.config import EvaluateConfig
from xrdpipe.errors import InputError
from xrdpipe.metrics import score_map, score_table, score_unknown
from xrdpipe.store.maps import read_map
from xrdpipe.store.truth import read_truth
from xrdpipe.types import Outcome, Progress


def run(config: EvaluateConfig, progress: Progress) -> Outcome:
    """Scores as a table in ``summary`` and as a dict in ``details``."""
    progress.start("evaluate", 1)
    scores = evaluate_maps(config.map, config.truth)
    progress.advance(1)
    progress.done()
    if config.json:
        return Outcome(config.map, summary=json.dumps(scores, indent=2), details=scores)
    shown = (f"{config.map} against {config.truth}", *score_table(scores))
    return Outcome(config.map, summary="\n".join(map(str, shown)), details=scores, shown=shown)


def evaluate_maps(map_path: Path, truth_path: Path) -> dict[str, Any]:
    """Compare presence decisions and probabilities with the truth; phases match by name.

    Phases of the map that the truth does not know are listed in ``not_in_truth``; a phase of
    the truth that the map lacks is an error.

    Raises
    ------
    InputMissingError, InputError
        A file is absent, is no map or truth, or phases or shapes do not match.
    """
    truth = read_truth(truth_path)
    found = read_map(Path(map_path))
    names = list(found.phase_names)
    probability = np.asarray(found.probability, dtype=np.float64)
    decision = np.asarray(found.decision, dtype=np.int8)
    missing = [name for name in truth.phase_names if name not in names]
    if missing:
        raise InputError(
            f"map '{map_path}' has no phase {', '.join(missing)}; it holds {', '.join(names)}, "
            f"the truth {', '.join(truth.phase_names)}."
        )
    if probability.shape[1:] != truth.presence.shape[1:]:
        raise InputError(
            f"map '{map_path}' has {probability.shape[1]} x {probability.shape[2]} pixels, the "
            f"truth '{truth_path}' {truth.presence.shape[1]} x {truth.presence.shape[2]}; give "
            "the map the scan shape of the simulation."
        )
    order = [names.index(name) for name in truth.phase_names]
    scores = score_map(truth.phase_names, truth.presence, probability[order], decision[order])
    if found.unknown is not None and "distractor" in truth.extra:
        foreign = truth.extra["distractor"] > 0
        scores["unknown"] = score_unknown(foreign, found.unknown, found.unknown_threshold)
    scores["map"], scores["truth"] = str(map_path), str(truth_path)
    scores["not_in_truth"] = [name for name in names if name not in truth.phase_names]
    return scores
