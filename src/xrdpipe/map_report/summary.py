"""The numbers of a report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xrdpipe.maps import PhaseMap
from xrdpipe.schema import PRESENT, FrameStatus, PixelStatus


@dataclass(frozen=True)
class PhaseSummary:
    """How much of a map a phase takes.

    Parameters
    ----------
    name
        Of the phase.
    present
        Pixels where it is decided to be present.
    judged
        Pixels with a probability.
    expected
        Σp: the number of pixels that hold it, by calibrated probabilities.
    counting
        sqrt(Σ p(1 − p)): its standard deviation if pixels err independently.
    model
        Σ spread: how far it moves if the members of the ensemble err in all pixels alike; 0 for one
        member.
    """

    name: str
    present: int
    judged: int
    expected: float
    counting: float
    model: float

    @property
    def share(self) -> float:
        """Part of the judged pixels where it is present; NaN without any."""
        return self.present / self.judged if self.judged else float("nan")


@dataclass(frozen=True)
class Summary:
    """A map in numbers.

    Parameters
    ----------
    pixels, with_result
        All pixels, and those that the model judged.
    phases
        In class order.
    statuses
        Name of each status that occurs and the number of its pixels.
    unknown
        Pixels whose unknown score reaches the threshold; None if the model cannot tell.
    """

    pixels: int
    with_result: int
    phases: tuple[PhaseSummary, ...]
    statuses: dict[str, int]
    unknown: int | None


def summarise(phase_map: PhaseMap) -> Summary:
    """The numbers of a map."""
    unknown = None
    if phase_map.unknown_threshold is not None:
        unknown = int((phase_map.unknown >= phase_map.unknown_threshold).sum())
    return Summary(
        pixels=phase_map.status.size,
        with_result=int((phase_map.status == FrameStatus.OK).sum()),
        phases=tuple(_phase(phase_map, k) for k in range(len(phase_map.phase_names))),
        statuses={
            member.name.lower(): count
            for member in (*FrameStatus, *PixelStatus)
            if (count := int((phase_map.status == member).sum()))
        },
        unknown=unknown,
    )


def _phase(phase_map: PhaseMap, k: int) -> PhaseSummary:
    probability = phase_map.probability[k].astype(np.float64)
    known = np.isfinite(probability)
    p = probability[known]
    return PhaseSummary(
        name=phase_map.phase_names[k],
        present=int((phase_map.decision[k] == PRESENT).sum()),
        judged=int(known.sum()),
        expected=float(p.sum()),
        counting=float(np.sqrt((p * (1 - p)).sum())),
        model=float(np.nan_to_num(phase_map.spread[k].astype(np.float64)[known]).sum()),
    )
