"""From probabilities per row to maps: decisions, winner, co-occurrence (decision 17)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.schema import (
    ABSENT,
    NO_RESULT,
    NONE_PRESENT,
    PRESENT,
    UNDECIDED,
    UNDETERMINED,
    FrameStatus,
)
from xrdpipe.types import FloatArray, Predictions, Scan


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
        float32 (ny, nx): probability of the winner; for 'none present' that of no phase at all.
    combination
        int32 (ny, nx), int64 from 32 phases on: Σ 2^k over the present phases k, −1 without
        result.
    n_phases
        int16 (ny, nx): number of present phases, −1 without result.
    status
        uint8 (ny, nx): status of the frame, or what the map adds to it.
    """

    phase_names: tuple[str, ...]
    probability: NDArray[np.float32]
    spread: NDArray[np.float32]
    decision: NDArray[np.int8]
    winner: NDArray[np.int16]
    confidence: NDArray[np.float32]
    combination: NDArray[np.signedinteger[Any]]
    n_phases: NDArray[np.int16]
    status: NDArray[np.uint8]
    scan: Scan


def assemble(
    predictions: Predictions, scan: Scan, phase_names: tuple[str, ...], threshold: float = 0.5
) -> PhaseMap:
    """Place the rows of ``predictions`` on the scan and decide per phase.

    Pixels without a frame have status MISSING.
    """
    index = scan.frame_index
    has_frame = index >= 0
    rows = np.where(has_frame, index, 0)
    status = np.where(has_frame, predictions.status[rows], FrameStatus.MISSING).astype(np.uint8)
    usable = status == FrameStatus.OK
    probability = _on_map(predictions.probability, rows, usable)
    spread = _on_map(predictions.spread, rows, usable)
    known = np.isfinite(probability)
    decision = np.where(
        known, np.where(probability >= threshold, PRESENT, ABSENT), UNDECIDED
    ).astype(np.int8)
    present = decision == PRESENT
    n_present = present.sum(axis=0)
    ranked = np.where(present, np.nan_to_num(probability), -1.0)
    winner = np.argmax(ranked, axis=0).astype(np.int16)
    none_present = np.where(known.all(axis=0), NONE_PRESENT, UNDETERMINED)
    winner = np.where(n_present > 0, winner, none_present)
    winner = np.where(usable, winner, NO_RESULT).astype(np.int16)
    absent = np.where(known, 1 - np.nan_to_num(probability).astype(np.float64), 1)
    absence = np.prod(absent, axis=0)
    confidence = np.where(n_present > 0, ranked.max(axis=0), absence)
    confidence = np.where(usable & (winner != UNDETERMINED), confidence, np.nan)
    weight = (2 ** np.arange(len(phase_names), dtype=np.int64))[:, None, None]
    decided = usable & known.any(axis=0)
    combination = np.where(decided, (present * weight).sum(axis=0), NO_RESULT)
    return PhaseMap(
        phase_names=phase_names,
        probability=probability,
        spread=spread,
        decision=decision,
        winner=winner,
        confidence=confidence.astype(np.float32),
        combination=combination.astype(np.int32 if len(phase_names) < 32 else np.int64),
        n_phases=np.where(decided, n_present, NO_RESULT).astype(np.int16),
        status=status,
        scan=scan,
    )


def _on_map(
    values: FloatArray, rows: NDArray[np.int32], usable: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """(rows, K) → (K, ny, nx), NaN where not usable."""
    placed = np.moveaxis(np.asarray(values, np.float32)[rows], -1, 0)
    return np.asarray(np.where(usable[None], placed, np.nan), np.float32)
