"""``xrdpipe status``: where a run stands, read from its files; nothing is changed or locked."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xrdpipe.config import StatusConfig
from xrdpipe.errors import InputError, OutputExistsError
from xrdpipe.store.parts import (
    KEY_FILE,
    LIVE_SUFFIX,
    PART_SUFFIX,
    Block,
    live_folder,
    part_folder,
    read_block,
    rows_of,
    stored_columns,
    stored_key,
    whole_blocks,
    writers,
)
from xrdpipe.store.written import Frames, Written, frames_of, read_written
from xrdpipe.types import Outcome, Progress, Table

NOT_STARTED, RUNNING, INTERRUPTED, COMPLETE = "not started", "running", "interrupted", "complete"

RECENT_BLOCKS = 10
"""Blocks that the rate is taken of."""

LOOKS, PAUSE = 20, 0.05
"""Folders of unfinished work may vanish while they are read; pauses in s."""

DEPTH = 4
"""Levels of folders that are searched: OUTPUT/SCAN/STEP and one more."""

CARD, SIMULATED, SIMULATING = "model.json", "simulate.json", "simulate.part.json"
"""Files that tell a finished model, a finished simulation and an unfinished one."""

Writer = dict[str, Any]


@dataclass(frozen=True)
class Standing:
    """Where one output stands.

    Parameters
    ----------
    state
        ``not started``, ``running`` (its lock is held), ``interrupted`` or ``complete``.
    command
        What makes it: ``integrate``, ``map``, ``train`` …
    total, done
        Frames in all, and those that are on disk; None where there are none, or nothing tells.
    frames
        Of those done: how many are good or lost, and why.
    rate, seconds_left
        Frames per second over the last blocks, and what that means; only while it runs.
    last
        When the last block was written, or the file (Unix time, s).
    writers
        Processes at work: ``host``, ``pid``, ``since``.
    version
        Of xrdpipe, where the output is complete.
    note
        One sentence more.
    """

    output: str
    state: str
    command: str = ""
    total: int | None = None
    done: int | None = None
    frames: Frames | None = None
    rate: float | None = None
    seconds_left: float | None = None
    last: float | None = None
    writers: tuple[Writer, ...] = ()
    version: str = ""
    note: str = ""


def run(config: StatusConfig, progress: Progress | None = None) -> Outcome:
    """Say where the run stands; ``details["outputs"]`` holds one mapping per output."""
    found = standings(config.output)
    outputs = [dataclasses.asdict(standing) for standing in found]
    now = time.time()
    details = {"outputs": outputs}
    if config.json:
        return Outcome(config.output, 0, json.dumps({"time": now, **details}, indent=2), details)
    summary = "\n".join(line for standing in found for line in _sentences(standing, now))
    return Outcome(config.output, 0, summary, details, shown=_table(found, now))


def standings(output: Path) -> list[Standing]:
    """Where an output, or every output below a folder, stands.

    Raises
    ------
    InputError
        If something is there that no run of xrdpipe wrote.
    """
    if not output.name:
        output = output.absolute()  # '.' has no name
    for _ in range(LOOKS):
        with contextlib.suppress(FileNotFoundError):
            return _standings(output)
        time.sleep(PAUSE)  # a run has ended and removes its folder
    return _standings(output)


def _standings(output: Path) -> list[Standing]:
    if output.suffix == PART_SUFFIX:
        output = output.with_suffix("")
    if part_folder(output).is_dir():
        return [_unfinished(output)]
    if live_folder(output).is_dir():
        return [_followed(output)]
    if output.is_file():
        written = read_written(output)
        if written is None:
            raise InputError(f"{output} is no file that a run of xrdpipe wrote.")
        return [_finished(output, written)]
    if output.is_dir():
        found = [*_below(output, DEPTH)]
        if not found:
            raise InputError(f"folder {output} holds no output of xrdpipe, finished or not.")
        return found
    return [_absent(output)]


def _below(folder: Path, depth: int) -> Iterator[Standing]:
    """Every output in a folder and those below it, in order of their names."""
    if (folder / CARD).is_file():
        last = (folder / CARD).stat().st_mtime
        yield Standing(str(folder), COMPLETE, "train", last=last)
        return
    if (folder / SIMULATED).is_file() or (folder / SIMULATING).is_file():
        yield _simulation(folder)
        return
    with os.scandir(folder) as entries:
        items = sorted((Path(entry.path), entry.is_dir()) for entry in entries)
    for path, is_folder in items:
        if is_folder and path.suffix == PART_SUFFIX:
            yield _unfinished(path.with_suffix(""))
        elif is_folder and path.suffix == LIVE_SUFFIX:
            yield _followed(path.with_suffix(""))
        elif is_folder and depth > 0:
            yield from _below(path, depth - 1)
        elif path.suffix == ".h5" and not (
            part_folder(path).exists() or live_folder(path).exists()
        ):
            written = read_written(path)
            if written is not None:
                yield _finished(path, written)


def _simulation(folder: Path) -> Standing:
    done = (folder / SIMULATED).is_file()
    last = (folder / (SIMULATED if done else SIMULATING)).stat().st_mtime
    return Standing(str(folder), COMPLETE if done else INTERRUPTED, "simulate", last=last)


def _finished(path: Path, written: Written) -> Standing:
    done = None if written.frames is None else written.frames.ok + written.frames.lost
    pending = written.pending
    return Standing(
        str(path),
        INTERRUPTED if pending else COMPLETE,
        written.command,
        None if done is None else done + pending,
        done,
        written.frames,
        last=datetime.datetime.fromisoformat(written.date).timestamp(),
        version=written.version,
        note="a partial map of a scan that is being followed, or was." * bool(pending),
    )


def _absent(output: Path) -> Standing:
    """Nothing is there; a map of frames begins with its patterns, beside it."""
    patterns = output.with_name(f"{output.stem.removesuffix('_map')}_patterns.h5")
    if part_folder(patterns).is_dir():
        first = _unfinished(patterns)
        return dataclasses.replace(first, note=f"{output} follows when they are complete.")
    note = f"{patterns} is there, {output.name} is not." if patterns.is_file() else ""
    return Standing(str(output), NOT_STARTED, note=note)


def _unfinished(output: Path) -> Standing:
    """Where the blocks in ``OUTPUT.part`` stand; a finished run may have left them behind."""
    folder = part_folder(output)
    at_work = tuple(writers(folder))
    note = "an earlier one is there, and stays until this one is complete." * output.exists()
    try:
        key = stored_key(folder) if (folder / KEY_FILE).is_file() else {}
    except OutputExistsError as error:
        key, note = {}, str(error)
    begun = (folder / KEY_FILE).is_file()
    written = read_written(output) if output.is_file() and not (at_work and begun) else None
    if written is not None and (written.key == key or not begun):
        return _finished(output, written)  # what is left of the folder is being removed
    if "frames" not in key:  # training, or a folder that was only just made
        checkpoints = [file.stat().st_mtime for file in folder.glob("checkpoint-*.safetensors")]
        return Standing(
            str(output),
            RUNNING if at_work else INTERRUPTED,
            "train" if "train" in key else "",
            last=max(checkpoints, default=folder.stat().st_mtime),
            writers=at_work,
            note=note or ("whether it is being trained now, the files do not tell." * bool(key)),
        )
    blocks = whole_blocks(folder, verify=False)
    total, done = len(key["frames"]), int(rows_of(blocks).size)
    rate = _rate(blocks, at_work)
    return Standing(
        str(output),
        RUNNING if at_work else INTERRUPTED,
        str(key.get("stage", "")),
        total,
        done,
        _frames_in(folder, blocks),
        rate,
        None if rate is None else (total - done) / rate,
        max((block.time for block in blocks), default=(folder / KEY_FILE).stat().st_mtime),
        at_work,
        note=note,
    )


def _followed(output: Path) -> Standing:
    """Where the rows in ``OUTPUT.live`` stand, of a scan that is followed as it is measured."""
    folder = live_folder(output)
    at_work = tuple(writers(folder))
    blocks = whole_blocks(folder, verify=False)
    return Standing(
        str(output),
        RUNNING if at_work else INTERRUPTED,
        "integrate",
        done=sum(block.rows for block in blocks),
        frames=_frames_in(folder, blocks),
        rate=_rate(blocks, at_work),
        last=max((block.time for block in blocks), default=folder.stat().st_mtime),
        writers=at_work,
        note="the scan is followed as it is measured." if at_work else "",
    )


def _rate(blocks: Sequence[Block], at_work: Sequence[Writer]) -> float | None:
    """Frames per second of the processes at work, over their last blocks."""
    if not at_work:
        return None
    began = min(float(writer.get("since") or 0) for writer in at_work)
    recent = sorted((block for block in blocks if block.time > began), key=lambda b: b.time)
    if not recent:
        return None
    if len(recent) > RECENT_BLOCKS:
        began = recent[-RECENT_BLOCKS - 1].time
    rows = sum(block.rows for block in recent[-RECENT_BLOCKS:])
    return rows / max(recent[-1].time - began, 1e-3)


def _frames_in(folder: Path, blocks: Sequence[Block]) -> Frames | None:
    """What became of the frames on disk; None where nothing tells what a row holds."""
    columns = stored_columns(folder)
    if not {"status", "reason"} <= columns.keys():
        return None
    status: list[Any] = [np.empty(0, np.uint8)]
    reasons: list[bytes] = []
    with ExitStack() as opened:
        streams = {file: opened.enter_context(file.open("rb")) for file in {b.file for b in blocks}}
        for block in sorted(blocks, key=lambda b: b.first):
            rows = read_block(streams[block.file], block, columns, ("status", "reason"))
            status.append(rows["status"])
            reasons += [reason for reason in rows["reason"] if reason]
    return frames_of(np.concatenate(status), reasons)


# --- in words --------------------------------------------------------------------------------


def _table(found: Sequence[Standing], now: float) -> tuple[Table | str, ...]:
    """One line per output, and below what does not fit into one; the same as the sentences."""
    head = ("output", "state", "by", "frames", "lost", "rate", "left", "last sign of life")
    rows = []
    notes = []
    for one in found:
        frames = "" if one.done is None else str(one.done)
        if one.total not in (None, one.done):
            frames += f" of {one.total}"
        last = "" if one.last is None else f"{_duration(max(now - one.last, 0))} ago"
        rows.append(
            (
                one.output,
                one.state,
                one.command,
                frames,
                "" if one.frames is None else str(one.frames.lost),
                "" if one.rate is None else f"{one.rate:.3g}/s",
                "" if one.seconds_left is None else _duration(one.seconds_left),
                last,
            )
        )
        reasons = one.frames.reasons if one.frames is not None else ()
        notes += [f"{one.output}: {_reason(*reason)}" for reason in reasons]
        notes += [f"{one.output}: {_who(writer)}" for writer in one.writers]
        notes += [f"{one.output}: {one.note}"] * bool(one.note)
    if any(one.state == INTERRUPTED for one in found):
        notes.append("What is interrupted continues with the same command.")
    # Columns that no output has anything for only take room.
    kept = [place for place in range(len(head)) if any(row[place] for row in rows)]
    table = Table(
        tuple(head[place] for place in kept),
        tuple(tuple(row[place] for place in kept) for row in rows),
        frozenset({"frames", "lost", "rate", "left", "last sign of life"}),
    )
    return (table, "\n".join(notes)) if notes else (table,)


def _who(writer: Writer) -> str:
    return f"process {writer['pid']} on {writer['host']} since {_clock(writer['since'])}"


def _reason(reason: str, number: int) -> str:
    return reason if number == 1 else f"{number} frames: {reason}"


def _sentences(standing: Standing, now: float) -> Iterator[str]:
    who = ", ".join(map(_who, standing.writers))
    yield f"{standing.output}: {standing.state}{f' ({who})' if who else ''}"
    yield f"  {_line(standing, now)}" if standing.state != NOT_STARTED else "  nothing is there yet"
    frames = standing.frames or Frames()
    for reason, number in frames.reasons:
        yield f"  {_reason(reason, number)}"
    if standing.note:
        yield f"  {standing.note}"


def _line(standing: Standing, now: float) -> str:
    parts = [standing.command] if standing.command else []
    if standing.done is not None and standing.total is not None:
        whole = standing.state == COMPLETE
        parts.append(f"{standing.done}{'' if whole else f' of {standing.total}'} frames")
    if standing.frames is not None:
        parts.append(f"{standing.frames.lost or 'none'} lost")
    if standing.rate is not None:
        parts.append(f"{standing.rate:.3g}/s")
    if standing.done is not None and standing.done == standing.total and standing.writers:
        parts.append("writing the file")
    elif standing.seconds_left is not None:
        parts.append(f"about {_duration(standing.seconds_left)} left")
    if standing.last is not None and standing.state == COMPLETE:
        parts.append(_clock(standing.last))
    elif standing.last is not None:
        parts.append(f"last sign of life {_duration(max(now - standing.last, 0))} ago")
    if standing.version:
        parts.append(f"xrdpipe {standing.version}")
    again = "; the same command continues" if standing.state == INTERRUPTED else ""
    return ", ".join(parts) + again


def _clock(when: float) -> str:
    return datetime.datetime.fromtimestamp(when).astimezone().isoformat(" ", "seconds")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.0f} days"
