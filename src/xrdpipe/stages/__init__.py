"""Stages: read files, call functions, write one file. No arithmetic happens here."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from xrdpipe.config import Config
from xrdpipe.types import Outcome, Progress

if TYPE_CHECKING:
    from xrdpipe.stages.reduction import Execution


def run_stage(
    name: str,
    settings: Config,
    progress: Progress | None = None,
    execution: Execution | None = None,
) -> Outcome:
    """Import a stage and run it: heavy libraries load only here.

    ``execution`` is for stages that integrate frames; None: the threads of this process.
    """
    module = importlib.import_module(f"xrdpipe.stages.{name}")
    arguments = (settings, progress or Progress())
    outcome: Outcome = module.run(*arguments, execution) if execution else module.run(*arguments)
    return outcome
