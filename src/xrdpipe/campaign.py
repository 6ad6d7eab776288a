"""Several scans through one pipeline: one after the other, and one failing stops no other."""

from __future__ import annotations

import dataclasses
import os
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from xrdpipe.errors import (
    EXIT_BUG,
    EXIT_LOST_FRAMES,
    InputError,
    InputMissingError,
    InterruptedRunError,
    OptionError,
    XrdpipeError,
)
from xrdpipe.frames.hdf5 import HDF5_SUFFIXES
from xrdpipe.frames.source import matching, natural_sort
from xrdpipe.pipeline import Pipeline, ScanName, Step, run_steps
from xrdpipe.stages.checks import Checked, check, outputs_of
from xrdpipe.store.written import frame_counts
from xrdpipe.types import Outcome, Progress, Table

Planned = list[tuple[ScanName, list[Step]]]

Run = Callable[[list[Step], Progress], Outcome]
"""What is done with the steps of a scan."""


@dataclass(frozen=True)
class Result:
    """How one scan ended; ``reason`` and ``exit_code`` only where it failed."""

    scan: str
    result: str
    ok: int | None
    lost: int | None
    output: str
    seconds: float
    reason: str = ""
    exit_code: int = 0


def find_scans(given: Sequence[str]) -> list[ScanName]:
    """Scans behind ``--scan``: folders, files or globs, in natural order, each once.

    Raises
    ------
    InputMissingError
        Naming what matches nothing.
    InputError
        If two scans have one name, as their outputs would be one, or a glob selects single
        images.
    """
    found: dict[str, str] = {}
    for text in given:
        for path in _expanded(text):
            found.setdefault(os.path.abspath(path), path)  # noqa: PTH100 - keeps links and '::'
    order = [str(path) for path in natural_sort([Path(path) for path in found])]
    scans = [ScanName(found[path], _name_of(path)) for path in order]
    named: dict[str, ScanName] = {}
    for scan in scans:
        other = named.setdefault(scan.name, scan)
        if other is not scan:
            raise InputError(
                f"{other.path} and {scan.path} are both scan '{scan.name}', and their outputs "
                "would be one; run them in separate calls, with different outputs."
            )
    return scans


def _expanded(text: str) -> list[str]:
    """The paths that one ``--scan`` means."""
    if os.path.lexists(text.partition("::")[0]):
        return [text.rstrip("/") or text]
    if not any(sign in text for sign in "*?["):
        raise InputMissingError(
            f"--scan {text} does not exist; expected a folder, an HDF5 file, or a glob in quotes."
        )
    pattern, separator, dataset = text.partition("::")
    paths = [path for path in matching(pattern) if _is_scan(path)]
    masters = {path.stem.removesuffix("_master") for path in paths if _is_master(path)}
    paths = [path for path in paths if path.stem.partition("_data_")[0] not in masters]
    if not paths:
        what = ", but neither a folder nor an HDF5 file" if matching(pattern) else ""
        raise InputMissingError(
            f"--scan {text} matches {'files' if what else 'nothing'}{what}; a scan is a folder or "
            "an HDF5 file."
        )
    return [f"{path}{separator}{dataset}" for path in paths]


def _is_scan(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() in HDF5_SUFFIXES


def _is_master(path: Path) -> bool:
    return path.stem.endswith("_master")


def _name_of(path: str) -> str:
    """Name of a folder, or of a file without suffix and ``_master``."""
    place = Path(path.partition("::")[0])
    return place.name if place.is_dir() else place.stem.removesuffix("_master")


def plan_scans(pipeline: Pipeline, scans: Sequence[ScanName], restart: bool = False) -> Planned:
    """The steps of every scan.

    Raises
    ------
    OptionError
        If the file has a mistake, or two scans would write one output.
    """
    planned = [(scan, pipeline.steps(scan, restart)) for scan in scans]
    owners: dict[Path, ScanName] = {}
    for scan, steps in planned:
        for step in steps:
            for output in outputs_of(step.settings):
                other = owners.setdefault(output.resolve(), scan)
                if other is not scan:
                    raise OptionError(
                        f"{pipeline.path} [{step.name}]: scans {other.name} and {scan.name} would "
                        f"both write {output}; put {{output}} or {{name}} into the output."
                    )
    return planned


# --- running ---------------------------------------------------------------------------------


def run_scans(planned: Planned, progress: Progress, run: Run = run_steps) -> Outcome:
    """All steps of a scan, then the next scan; the outcome's summary is a table.

    Its exit code is 0 if all is good, 3 if some scans failed or frames were lost; if all failed,
    that of the first. An interruption stops everything.
    """
    results: list[Result] = []
    for scan, steps in planned:
        try:
            results.append(_one(scan, steps, _named(progress, scan.name), run))
        except BaseException:
            progress.note(f"stopped at {scan.name}: {len(results)} of {len(planned)} scans before")
            raise
        if results[-1].reason:
            progress.note(f"{scan.name}: failed: {results[-1].reason}")
    failed = [result for result in results if result.exit_code]
    lost = sum(result.lost or 0 for result in results if result.result == "frames lost")
    code = 0
    if failed:
        code = failed[0].exit_code if len(failed) == len(results) else EXIT_LOST_FRAMES
    shown = _table(results)
    return Outcome(
        results[-1].output,
        lost,
        "\n".join(map(str, shown)),
        {"scans": [dataclasses.asdict(result) for result in results]},
        exit_code=code,
        shown=shown,
    )


def _one(scan: ScanName, steps: list[Step], progress: Progress, run: Run) -> Result:
    started = time.monotonic()
    reason, code, result = "", 0, "ok"
    try:
        outcome = run(steps, progress)
    except InterruptedRunError:
        raise
    except XrdpipeError as error:
        reason, code = str(error), error.exit_code
    except OSError as error:
        reason, code = str(error), EXIT_BUG
    except MemoryError:
        reason, code = "out of memory; try fewer threads.", EXIT_BUG
    except Exception as error:  # a bug that one scan meets must not cost the others
        progress.note(traceback.format_exc())
        reason = f"{type(error).__name__}: {error} (a bug in xrdpipe: please report it)"
        code = EXIT_BUG
    else:
        if outcome.done_before:
            result = "already done"
        elif outcome.lost:
            result = "frames lost"
    outputs = [output for step in steps for output in outputs_of(step.settings)]
    counts = [] if code else [found for found in map(frame_counts, outputs) if found is not None]
    return Result(
        scan.name,
        "failed" if code else result,
        min((ok for ok, _ in counts), default=None),
        max((lost for _, lost in counts), default=None),
        _folder(outputs),
        time.monotonic() - started,
        reason,
        code,
    )


def _folder(outputs: list[Path]) -> str:
    """The file that was written, or the folder that holds all of them."""
    if len(outputs) == 1:
        return str(outputs[0])
    return os.path.commonpath([output.parent for output in outputs]) or "." if outputs else ""


def _named(progress: Progress, name: str) -> Progress:
    """Progress whose lines begin with the scan."""
    return dataclasses.replace(
        progress,
        start=lambda label, *counts: progress.start(f"{name}: {label}", *counts),
        note=lambda text: progress.note(f"{name}: {text}"),
        event=lambda kind, content: progress.event(kind, {"scan": name, **content}),
    )


def _table(results: list[Result]) -> tuple[Table, str]:
    """How each scan ended, and the sentences below."""
    rows = []
    for result in results:
        ok, lost = ("-" if n is None else str(n) for n in (result.ok, result.lost))
        rows.append((result.scan, result.result, ok, lost, result.output, f"{result.seconds:.1f}"))
    head = ("scan", "result", "frames ok", "lost", "output", "seconds")
    kinds = Counter(result.result for result in results)
    total = ", ".join(f"{n} {kind}" for kind, n in kinds.items())
    reasons = [f"{result.scan}: {result.reason}" for result in results if result.reason]
    table = Table(head, tuple(rows), frozenset({"frames ok", "lost", "seconds"}))
    return table, "\n".join([f"{len(results)} scans: {total}.", *reasons])


# --- checking --------------------------------------------------------------------------------


def check_scans(
    planned: Sequence[tuple[ScanName | None, list[Step]]], progress: Progress
) -> Outcome:
    """Check every step of every scan; nothing is run, nothing written.

    Raises
    ------
    InputError
        Listing every problem of every step.
    """
    problems: dict[str, list[str]] = {}
    rows: list[tuple[str, str, str]] = []
    for scan, steps in planned:
        done: list[Checked] = []
        for step in steps:
            label = f"[{step.name}]" if scan is None else f"{scan.name} [{step.name}]"
            checked = check(step.settings, done, progress)
            done.append(checked)
            state = "cannot run" if checked.problems else checked.state
            rows.append((label, checked.does, state))
            for problem in checked.problems:
                problems.setdefault(problem, []).append(label)
    lines = [": ".join(row) for row in rows]
    if problems:
        progress.note("\n".join(lines))
        found = [f"{_labels(labels)}: {problem}" for problem, labels in problems.items()]
        heading = [f"{len(found)} problems:"] if found[1:] else []
        raise InputError("\n  ".join([*heading, *found]))
    verdict = f"{len(rows)} steps can run."
    table = Table(("step", "does", "state"), tuple(rows))
    return Outcome(None, 0, "\n".join([*lines, verdict]), shown=(table, verdict))


def _labels(labels: list[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{labels[0]} and {len(labels) - 1} more"
