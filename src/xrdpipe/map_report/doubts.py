"""What a reader of a map must know before believing it: one sentence each, the gravest first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from xrdpipe.map_report.measured import Measured
from xrdpipe.map_report.summary import Summary
from xrdpipe.schema import LOST, FrameStatus
from xrdpipe.store.map_record import MapRecord

MANY_UNKNOWN = 0.1
"""Part of the pixels from which on unknown phases are a warning."""

FLAGS = {
    "saturated": "more than 5 % of the pixels saturated, so that the strongest lines are too weak",
    "low_monitor": "a low monitor, the beam was weak or away",
    "sentinel_suspect": "values that may mean 'no measurement' ('integrate --sentinel' settles it)",
}


def counted(number: int, noun: str) -> str:
    """``1 pixel``, ``2 pixels``."""
    return f"{number} {noun}" + "s" * (number != 1)


def doubts(record: MapRecord, summary: Summary, measured: Measured | None, why: str) -> list[str]:
    """Sentences for the top of the report.

    Parameters
    ----------
    measured
        None where the patterns cannot be read, because of ``why``.
    """
    found = [*_completeness(record, summary)]
    unknown = _unknown(record, summary)
    if unknown:
        found.append(unknown)
    scan = record.phase_map.scan
    if scan.confidence in ("guess", "likely"):
        found.append(
            f"The shape of the scan is {'a guess' if scan.confidence == 'guess' else 'likely only'}"
            f" ({scan.evidence or scan.source}); give --scan-shape or --positions to be sure."
        )
    if measured is None:
        found.append(f"Without patterns: {why}")
    else:
        found += _input(record, measured)
    if absent := str(record.model.get("channels_absent", "")):
        found.append(f"The model can use {absent}, which the patterns lack: it sees less.")
    if not record.lines:
        found.append(
            "The map was made by an older version and holds no reference lines; make it again with "
            "'xrdpipe map' to see them below the patterns."
        )
    return found


def _completeness(record: MapRecord, summary: Summary) -> list[str]:
    found = []
    if record.pending is not None:
        found.append(
            f"This map is partial: {record.pending} of {summary.pixels} pixels wait for their "
            "frame; every number below will change."
        )
    names = [FrameStatus(status).name.lower() for status in sorted(LOST)]
    lost = {name: summary.statuses.get(name, 0) for name in names}
    if sum(lost.values()):
        told = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in lost.items() if n)
        found.append(
            f"{sum(lost.values())} of {summary.pixels} pixels have no frame that could be used "
            f"({told})."
        )
    outside = summary.statuses.get("outside_grid", 0)
    if outside:
        found.append(
            f"{counted(outside, 'pixel')} outside the grid: too little of the model's range of "
            "angles to be judged."
        )
    failed = summary.statuses.get("model_failed", 0)
    if failed:
        found.append(f"The model gave no finite number for {counted(failed, 'pixel')}.")
    if not summary.with_result:
        found.append("No pixel has a result.")
    for k, phase in enumerate(summary.phases):
        usable = record.phase_map.status == FrameStatus.OK
        silent = int((usable & ~np.isfinite(record.phase_map.probability[k])).sum())
        if silent:
            found.append(
                f"{phase.name} is undetermined in {counted(silent, 'pixel')}: none of its three "
                "strongest lines is covered there."
            )
    return found


def _unknown(record: MapRecord, summary: Summary) -> str:
    if summary.unknown is None:
        return "The model cannot tell phases that it does not know."
    share = summary.unknown / max(summary.with_result, 1)
    alarms = _number(record.model, "unknown_false_alarms")
    if share <= max(MANY_UNKNOWN, 2 * (alarms or 0)):
        return ""
    expected = "" if alarms is None else f"; {alarms:.0%} would be false alarms"
    return (
        f"Lines of something that the model does not know: {counted(summary.unknown, 'pixel')} "
        f"({share:.0%}{expected}). Look at their patterns below before trusting the phases there."
    )


def _input(record: MapRecord, measured: Measured) -> list[str]:
    found = []
    trained = _number(record.model, "wavelength_trained")
    corrected = measured.polarization_factor is not None
    if trained is not None and measured.wavelength != trained:
        found.append(
            f"The patterns were measured at {measured.wavelength:.5g} Å and judged at the model's "
            f"{trained:.5g} Å: line positions convert exactly, widths and counting noise do not."
        )
    elif "polarization_corrected" in record.model:
        expected = bool(record.model["polarization_corrected"])
        if corrected != expected:
            found.append(
                f"The patterns are {'' if corrected else 'not '}corrected for polarization, those "
                f"that the model was trained on are {'' if expected else 'not '}corrected: "
                "intensities differ."
            )
    for flag, text in FLAGS.items():
        if flag in measured.flags:
            found.append(f"{counted(measured.flags[flag], 'frame')}: {text}.")
    return found


def _number(model: Mapping[str, Any], name: str) -> float | None:
    """A number that the map records of its model; None if it is absent."""
    value = np.asarray(model.get(name, np.nan), np.float64)
    return float(value) if value.ndim == 0 and np.isfinite(value) else None
