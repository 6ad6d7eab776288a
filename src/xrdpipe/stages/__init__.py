"""Stages: read files, call functions, write one file. No arithmetic happens here."""

from __future__ import annotations

import importlib

from xrdpipe.config import Config
from xrdpipe.types import Outcome, Progress


def run_stage(name: str, settings: Config, progress: Progress | None = None) -> Outcome:
    """Import a stage and run it: heavy libraries load only here."""
    module = importlib.import_module(f"xrdpipe.stages.{name}")
    outcome: Outcome = module.run(settings, progress or Progress())
    return outcome
