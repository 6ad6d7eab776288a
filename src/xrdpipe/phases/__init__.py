"""Phases that ship with xrdpipe: CIF files written from published facts, source inside each."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent


def shipped_phases() -> dict[str, Path]:
    """Names and CIF files of the phases a shipped model can be trained on."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.cif"))}


def distractor_phases() -> dict[str, Path]:
    """Names and CIF files of phases mixed into training patterns without a label."""
    return {path.stem: path for path in sorted((_FOLDER / "distractors").glob("*.cif"))}
