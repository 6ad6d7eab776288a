"""What a report takes from the patterns behind a map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xrdpipe.maps import PhaseMap
from xrdpipe.schema import LOST, NONE_PRESENT, PRESENT, FrameStatus
from xrdpipe.store.map_patterns import (
    facts_of,
    flag_counts,
    held_variants,
    open_patterns,
    rows_of,
)
from xrdpipe.store.map_record import MapRecord
from xrdpipe.store.mean_patterns import MeanPattern, mean_patterns
from xrdpipe.store.patterns import PatternsFile
from xrdpipe.types import BoolArray, FloatArray

SURE = 0.9
"""Probability from which on a pixel enters the mean pattern of a phase."""

WORST = 6
"""Pixels that are shown one by one."""

LOST_SHOWN = 20


@dataclass(frozen=True)
class GroupMean:
    """The mean pattern of some pixels.

    Parameters
    ----------
    title
        What they have in common.
    phase
        Index of the phase they hold; None for those without one.
    curves
        Mean of each variant, the map's own first.
    """

    title: str
    phase: int | None
    curves: dict[str, MeanPattern]


@dataclass(frozen=True)
class SinglePixel:
    """A pixel that is shown with its pattern.

    Parameters
    ----------
    y, x
        Place in the map.
    position
        ``name value unit`` of each motor, empty where none is known.
    score
        Why it was chosen: its unknown score, or its confidence.
    answer
        What the map says of it.
    frame, file
        Number and file of its frame.
    curves
        Pattern of each variant.
    """

    y: int
    x: int
    position: tuple[str, ...]
    score: float
    answer: str
    frame: int
    file: str
    curves: dict[str, FloatArray]


@dataclass(frozen=True)
class LostFrame:
    """A frame without a result: its number, pixel, file, status and reason."""

    frame: int
    pixel: str
    file: str
    status: str
    reason: str


@dataclass(frozen=True)
class Measured:
    """Everything of the patterns that a report shows.

    Parameters
    ----------
    two_theta, wavelength, units
        Axis in degrees, wavelength in Å, units of the intensity.
    n_frames
        Rows of the patterns.
    variants
        The variants shown, the map's own first.
    groups, worst
        Mean patterns, and single pixels.
    lost, lost_counts
        The first frames without a result, and how many there are of each reason.
    flags
        Frames that carry each flag.
    facts
        What the file says of its making.
    files
        Frames' files: the first, the last, and how many.
    polarization_factor
        What was corrected for; None = not corrected.
    """

    two_theta: FloatArray
    wavelength: float
    units: str
    n_frames: int
    variants: tuple[str, ...]
    groups: tuple[GroupMean, ...]
    worst: tuple[SinglePixel, ...]
    lost: tuple[LostFrame, ...]
    lost_counts: dict[str, int]
    flags: dict[str, int]
    facts: dict[str, Any]
    files: tuple[str, ...]
    polarization_factor: float | None
    worst_by: str = field(default="unknown score")


def measure(
    record: MapRecord, read: Callable[[int, int], None] = lambda rows, all_rows: None
) -> Measured:
    """Read the patterns once per variant.

    Parameters
    ----------
    read
        Called with the rows read so far and those there are to read.

    Raises
    ------
    InputMissingError, InputError
        If the patterns are gone, or are not those of the map.
    """
    phase_map = record.phase_map
    titles, phases, chosen = _groups(phase_map)
    places, worst_by = _worst(phase_map)
    with open_patterns(record) as source:
        own = source.variant
        variants = (own, *(v for v in held_variants(source) if v != own))
        frame_index = phase_map.scan.frame_index
        members = rows_of(frame_index, chosen, source.n_rows)
        total = source.n_rows * len(variants)
        means, single = {}, {}
        for number, variant in enumerate(variants):

            def count(rows: int, before: int = number * source.n_rows) -> None:
                read(before + rows, total)

            with PatternsFile(source.path, variant) as one:
                means[variant] = mean_patterns(one, members, count, errors=False)
                single[variant] = _patterns_at(one, phase_map, places)
        lost, lost_counts = _lost(source, phase_map)
        files = source.source_files
        return Measured(
            two_theta=source.rows(0, 0).two_theta,
            wavelength=source.wavelength,
            units=source.units("I"),
            n_frames=source.n_rows,
            variants=variants,
            groups=tuple(
                GroupMean(title, phase, {v: means[v][number] for v in variants})
                for number, (title, phase) in enumerate(zip(titles, phases, strict=True))
            ),
            worst=tuple(
                _pixel(source, record, place, worst_by, files, {v: single[v][n] for v in variants})
                for n, place in enumerate(places)
            ),
            lost=lost,
            lost_counts=lost_counts,
            flags=flag_counts(source),
            facts=facts_of(source),
            files=(files[0], files[-1], str(len(set(files)))) if files else (),
            polarization_factor=source.polarization_factor,
            worst_by=worst_by,
        )


def _groups(phase_map: PhaseMap) -> tuple[list[str], list[int | None], BoolArray]:
    """Titles, phases, and pixels (M, ny, nx) of the mean patterns."""
    titles: list[str] = []
    phases: list[int | None] = []
    chosen = []
    for k, name in enumerate(phase_map.phase_names):
        present = phase_map.decision[k] == PRESENT
        sure = present & (phase_map.probability[k] >= SURE)
        if not present.any():
            continue
        pixels, why = (sure, f"p ≥ {SURE:g}") if sure.any() else (present, f"none has p ≥ {SURE:g}")
        titles.append(f"{name}: mean of the {pixels.sum()} pixels where it is present ({why})")
        phases.append(k)
        chosen.append(pixels)
    nothing = phase_map.winner == NONE_PRESENT
    if nothing.any():
        titles.append(f"none of the phases: mean of {nothing.sum()} pixels")
        phases.append(None)
        chosen.append(nothing)
    if phase_map.unknown_threshold is not None:
        strange = phase_map.unknown >= phase_map.unknown_threshold
        if strange.any():
            titles.append(
                f"something unknown: mean of the {strange.sum()} pixels with a score ≥ "
                f"{phase_map.unknown_threshold:.2f}"
            )
            phases.append(None)
            chosen.append(strange)
    return titles, phases, np.array(chosen, bool).reshape(-1, *phase_map.winner.shape)


def _worst(phase_map: PhaseMap) -> tuple[list[tuple[int, int]], str]:
    """The pixels that are explained worst, and by what."""
    if phase_map.unknown_threshold is not None and np.isfinite(phase_map.unknown).any():
        score, by = -phase_map.unknown, "unknown score"
    else:
        score, by = phase_map.confidence, "confidence"
    there = np.isfinite(score) & (phase_map.scan.frame_index >= 0)
    order = np.argsort(np.where(there, score, np.inf), axis=None, kind="stable")[:WORST]
    places = [np.unravel_index(place, score.shape) for place in order if there.flat[place]]
    return [(int(y), int(x)) for y, x in places], by


def _patterns_at(
    source: PatternsFile, phase_map: PhaseMap, places: list[tuple[int, int]]
) -> list[FloatArray]:
    rows = [int(phase_map.scan.frame_index[place]) for place in places]
    return [np.asarray(source.rows(row, row + 1).intensity[0], np.float64) for row in rows]


def _pixel(
    source: PatternsFile,
    record: MapRecord,
    place: tuple[int, int],
    by: str,
    files: list[str],
    curves: dict[str, FloatArray],
) -> SinglePixel:
    phase_map = record.phase_map
    row = int(phase_map.scan.frame_index[place])
    scores = phase_map.unknown if by == "unknown score" else phase_map.confidence
    present = [
        f"{name} {phase_map.probability[k][place]:.2f}"
        for k, name in enumerate(phase_map.phase_names)
        if phase_map.decision[k][place] == PRESENT
    ]
    return SinglePixel(
        y=place[0],
        x=place[1],
        position=position(phase_map, place),
        score=float(scores[place]),
        answer=", ".join(present) or "none of the phases",
        frame=int(source.frame[row]),
        file=files[row] if files else "",
        curves=curves,
    )


def position(phase_map: PhaseMap, place: tuple[int, int]) -> tuple[str, ...]:
    """``name value unit`` of each motor at a pixel, as measured where that is known."""
    scan = phase_map.scan
    found = []
    for axis, actual, number in (
        (scan.y, scan.y_actual, place[0]),
        (scan.x, scan.x_actual, place[1]),
    ):
        if axis is None:
            continue
        value = float(axis.values[number]) if actual is None else float(actual[place])
        found.append(f"{axis.name} {value:.6g} {axis.units}".strip())
    return tuple(found)


def _lost(
    source: PatternsFile, phase_map: PhaseMap
) -> tuple[tuple[LostFrame, ...], dict[str, int]]:
    rows = np.flatnonzero(np.isin(source.status, [*LOST]))
    files = source.source_files if rows.size else []
    counts: Counter[str] = Counter()
    shown: list[LostFrame] = []
    for row in rows.tolist():
        status = FrameStatus(int(source.status[row])).name.lower().replace("_", " ")
        file = files[row] if files else ""
        reason = source.reasons[row] if source.reasons else ""
        counts[f"{status}: {_without(file, reason)}" if reason else status] += 1
        if len(shown) < LOST_SHOWN:
            places = np.argwhere(phase_map.scan.frame_index == row).tolist()
            pixel = f"{places[0][0]}, {places[0][1]}" if places else "none"
            shown.append(LostFrame(int(source.frame[row]), pixel, file, status, reason))
    return tuple(shown), dict(counts.most_common())


def _without(file: str, reason: str) -> str:
    """A reason that is the same for all files it happens to."""
    return reason.removeprefix(f"{file}: ").replace(file, "the file") if file else reason
