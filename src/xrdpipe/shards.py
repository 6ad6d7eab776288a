"""A pipeline whose frames are integrated by many processes that know nothing of each other.

Batch systems start them (job arrays): each does a share of the rows and leaves it in the part
folder of the output. Merging finds all rows there, writes the file, and runs the rest of the
pipeline.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.config import STAGES
from xrdpipe.errors import EnvironmentProblemError, InputError, InputMissingError
from xrdpipe.pipeline import Step, run_steps
from xrdpipe.stages import run_stage
from xrdpipe.stages.checks import outputs_of
from xrdpipe.stages.job import Job
from xrdpipe.stages.reduction import BLOCK_ROWS, Blocks, Execution
from xrdpipe.stages.shard import WRITER, Shard
from xrdpipe.store.parts import PART_SUFFIX, part_folder, write_whole
from xrdpipe.types import Outcome, Progress

STEPS = "steps.json"
"""In the part folder: the pipeline that a merge completes."""

LAST_FILE = {"simulate": "simulate.json", "train": "model.json"}
"""Stages whose output is a folder: the file that is written last."""


def run_shard(steps: list[Step], progress: Progress, shard: Shard) -> Outcome:
    """Integrate a share of the frames of every step that integrates; the other steps are left out.

    Raises
    ------
    InputError
        If no step integrates frames, or a step before has not been run: many processes that run
        it at once would be in each other's way.
    """
    places = [place for place, step in enumerate(steps) if step.integrates]
    if not places:
        raise InputError(
            "no step of the pipeline integrates frames, so there is nothing to share; run it "
            "without --shard."
        )
    for step in steps[: places[0]]:
        _check_done(step)
    outcomes = []
    for place in places:
        step = steps[place]
        progress.note(f"── {step.name}, shard {shard}")
        outcomes.append(run_stage(step.stage, step.settings, progress, Execution(shard=shard)))
        _record(outputs_of(step.settings)[0], steps)
    summary = "\n".join(outcome.summary for outcome in outcomes)
    return Outcome(outcomes[-1].path, 0, summary)


def merge_steps(steps: list[Step], progress: Progress) -> Outcome:
    """Complete a pipeline whose frames were integrated in shards.

    Raises
    ------
    EnvironmentProblemError
        If rows are missing: names the shards to run again.
    """
    return run_steps(steps, progress, Execution(_nothing_missing))


def merge_output(output: Path, progress: Progress) -> Outcome:
    """The same from the part folder, which the shards left their pipeline in.

    Raises
    ------
    InputMissingError, InputError
        If there is no such folder, or it is not from shards.
    """
    folder = output if output.suffix == PART_SUFFIX else part_folder(output)
    note = folder / STEPS
    if not folder.is_dir():
        if output.is_file():
            raise InputMissingError(
                f"nothing to merge: {output} is complete; 'xrdpipe merge' or 'run' with the "
                "pipeline file does the steps after it."
            )
        raise InputMissingError(f"nothing to merge: there is no {folder}.")
    try:
        recorded = json.loads(note.read_text())
        steps = [_step_of(entry, f"{note}") for entry in recorded["steps"]]
        origin = Path(recorded["folder"])
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} holds no finished shard of a pipeline ({STEPS} is missing); give merge the "
            "pipeline file, or run the command that began this output again."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{note} is damaged ({error}); give merge the pipeline file instead."
        ) from error
    if not origin.is_dir():
        raise InputMissingError(f"{origin}, the folder in which the shards ran, is not there.")
    with contextlib.chdir(origin):
        return merge_steps(steps, progress)


def _check_done(step: Step) -> None:
    for output in outputs_of(step.settings):
        last = output / LAST_FILE[step.stage] if step.stage in LAST_FILE else output
        if not last.exists():
            raise InputError(
                f"step '{step.name}' comes before the integration and is not done ({last} is not "
                "there); run it first, for example from a pipeline file of its own."
            )


def _record(output: Path, steps: list[Step]) -> None:
    """Leave the pipeline where a merge finds it; every shard writes the same."""
    folder = part_folder(output)
    if not folder.is_dir():  # the output is complete
        return
    content = {"folder": str(Path.cwd()), "steps": [_record_of(step) for step in steps]}
    write_whole(folder / STEPS, json.dumps(content, indent=1))


def _record_of(step: Step) -> dict[str, Any]:
    """A step as JSON holds it."""
    kept = {f.name: getattr(step, f.name) for f in dataclasses.fields(step)}
    options = step.settings.resolved()
    options.pop("restart", None)  # merging must not discard what it merges
    return {**kept, "settings": options}


def _step_of(record: Mapping[str, Any], where: str) -> Step:
    settings = STAGES[record["stage"]].from_mapping(record["settings"], where)
    return Step(**{**record, "settings": settings})


def _nothing_missing(job: Job, waiting: NDArray[np.intp], progress: Progress) -> Blocks:
    """In place of integrating: refuse to finish what is not complete."""
    if not waiting.size:
        return iter(())
    total = len(job.source.records)
    folder = part_folder(outputs_of(job.config)[0])
    shares = {
        Shard(int(match[1]), int(match[2]))
        for file in folder.glob("rows-*.bin")
        if (match := WRITER.search(file.name))
    }
    missing = [
        str(shard)
        for of in sorted({share.of for share in shares})
        for number in range(1, of + 1)
        if np.isin((shard := Shard(number, of)).rows(total, BLOCK_ROWS), waiting).any()
    ]
    what = f"shard {', '.join(missing)}" if missing else "every shard"
    raise EnvironmentProblemError(
        f"{waiting.size} of {total} rows are missing ({_spans(waiting)}); run {what} (again), "
        "then merge; or run the pipeline without --shard, which integrates what is missing."
    )


def _spans(rows: NDArray[np.intp]) -> str:
    """``0-63, 128-191``; at most four."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    spans = [f"{part[0]}-{part[-1]}" for part in np.split(rows, breaks)]
    return ", ".join(spans[:4]) + (", …" if len(spans) > 4 else "")
