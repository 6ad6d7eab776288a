"""From probabilities per row to maps: decisions, winner, co-occurrence (decision 17)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.neighbours import Coupling, with_neighbours
from xrdpipe.schema import (
    ABSENT,
    NO_RESULT,
    NONE_PRESENT,
    PRESENT,
    UNDECIDED,
    UNDETERMINED,
    UNKNOWN,
    FrameStatus,
)
from xrdpipe.types import BoolArray, FloatArray, Predictions, Scan


@dataclass(frozen=True)
class PhaseMap:
    """Maps of one model on one scan; (phase, y, x) or (y, x) arrays.

    Parameters
    ----------
    probability
        float32 (K, ny, nx); NaN where undetermined or without data.
    spread
        float32 (K, ny, nx): standard deviation over the ensemble.
    decision
        int8 (K, ny, nx): 1 present, 0 absent, −1 undetermined or no data.
    winner
        int16 (ny, nx): index of the most probable present phase, or a negative reason.
    confidence
        float32 (ny, nx): probability of the winner; for 'none present' that of no phase at all, for
        'unknown' the unknown score.
    combination
        int32 (ny, nx), int64 from 32 phases on: Σ 2^k over the present phases k, −1 without
        result.
    n_phases
        int16 (ny, nx): number of present phases, −1 without result.
    unknown
        float32 (ny, nx), 0-1: larger where a phase outside the model's is there; NaN without data.
    unknown_threshold
        From which on a pixel counts as unknown; None if the model cannot tell.
    status
        uint8 (ny, nx): status of the frame, or what the map adds to it.
    probability_alone
        Where neighbours were a prior: float32 (K, ny, nx), the probability without them.
    couplings
        How far they counted, one entry per phase.
    """

    phase_names: tuple[str, ...]
    probability: NDArray[np.float32]
    spread: NDArray[np.float32]
    decision: NDArray[np.int8]
    winner: NDArray[np.int16]
    confidence: NDArray[np.float32]
    combination: NDArray[np.signedinteger[Any]]
    n_phases: NDArray[np.int16]
    unknown: NDArray[np.float32]
    unknown_threshold: float | None
    status: NDArray[np.uint8]
    scan: Scan
    probability_alone: NDArray[np.float32] | None = None
    couplings: tuple[Coupling, ...] = ()


def assemble(
    predictions: Predictions,
    scan: Scan,
    phase_names: tuple[str, ...],
    threshold: float = 0.5,
    unknown_threshold: float | None = None,
    neighbours: bool = False,
) -> PhaseMap:
    """Place the rows of ``predictions`` on the scan and decide per phase.

    Pixels without a frame have status MISSING. The winner of a pixel that holds no phase of the
    model, but something that it does not know, is UNKNOWN. With ``neighbours`` the pixels around
    are a prior (:mod:`xrdpipe.neighbours`); the scan must be a grid.
    """
    index = scan.frame_index
    has_frame = index >= 0
    rows = np.where(has_frame, index, 0)
    status = np.where(has_frame, predictions.status[rows], FrameStatus.MISSING).astype(np.uint8)
    usable = status == FrameStatus.OK
    probability = alone = _on_map(predictions.probability, rows, usable)
    couplings: tuple[Coupling, ...] = ()
    if neighbours:
        probability, couplings = with_neighbours(alone)
    spread = _on_map(predictions.spread, rows, usable)
    unknown = _on_map(predictions.unknown[:, None], rows, usable)[0]
    decided = decide(probability, unknown, usable, threshold, unknown_threshold)
    return PhaseMap(
        phase_names=phase_names,
        probability=probability,
        spread=spread,
        decision=decided.decision,
        winner=decided.winner,
        confidence=decided.confidence,
        combination=decided.combination,
        n_phases=decided.n_phases,
        unknown=unknown,
        unknown_threshold=unknown_threshold,
        status=status,
        scan=scan,
        probability_alone=alone if neighbours else None,
        couplings=couplings,
    )


@dataclass(frozen=True)
class Decided:
    """What thresholds make of probabilities; fields as in :class:`PhaseMap`."""

    decision: NDArray[np.int8]
    winner: NDArray[np.int16]
    confidence: NDArray[np.float32]
    combination: NDArray[np.signedinteger[Any]]
    n_phases: NDArray[np.int16]


def decide(
    probability: NDArray[np.float32],
    unknown: NDArray[np.float32],
    usable: BoolArray,
    threshold: float | FloatArray = 0.5,
    unknown_threshold: float | None = None,
) -> Decided:
    """Which phases are present, and what a pixel without any holds (decision 17).

    Parameters
    ----------
    probability
        Shape (K, ny, nx), NaN where undetermined.
    unknown, usable
        Shape (ny, nx): unknown score; whether the pixel has a result.
    threshold
        From which probability on a phase is present: one, or one per phase, shape (K,).
    unknown_threshold
        From which score on a pixel counts as unknown; None if the model cannot tell.
    """
    known = np.isfinite(probability)
    limit = threshold if isinstance(threshold, float) else threshold[:, None, None]
    decision = np.where(known, np.where(probability >= limit, PRESENT, ABSENT), UNDECIDED).astype(
        np.int8
    )
    present = decision == PRESENT
    n_present = present.sum(axis=0)
    ranked = np.where(present, np.nan_to_num(probability), -1.0)
    strange = unknown >= (np.inf if unknown_threshold is None else unknown_threshold)
    nothing_known = np.where(strange, UNKNOWN, NONE_PRESENT)
    none_present = np.where(known.all(axis=0), nothing_known, UNDETERMINED)
    winner = np.where(n_present > 0, np.argmax(ranked, axis=0), none_present)
    winner = np.where(usable, winner, NO_RESULT).astype(np.int16)
    absent = np.where(known, 1 - np.nan_to_num(probability).astype(np.float64), 1)
    absence = np.prod(absent, axis=0)
    confidence = np.where(n_present > 0, ranked.max(axis=0), absence)
    confidence = np.where(winner == UNKNOWN, unknown, confidence)
    confidence = np.where(usable & (winner != UNDETERMINED), confidence, np.nan)
    phases = len(probability)
    weight = (2 ** np.arange(phases, dtype=np.int64))[:, None, None]
    decided = usable & known.any(axis=0)
    combination = np.where(decided, (present * weight).sum(axis=0), NO_RESULT)
    return Decided(
        decision=decision,
        winner=winner,
        confidence=confidence.astype(np.float32),
        combination=combination.astype(np.int32 if phases < 32 else np.int64),
        n_phases=np.where(decided, n_present, NO_RESULT).astype(np.int16),
    )


def _on_map(
    values: FloatArray, rows: NDArray[np.int32], usable: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """(rows, K) → (K, ny, nx), NaN where not usable."""
    placed = np.moveaxis(np.asarray(values, np.float32)[rows], -1, 0)
    return np.asarray(np.where(usable[None], placed, np.nan), np.float32)
