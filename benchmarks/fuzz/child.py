"""A forked child takes one input after the other; what kills it is the input it was at."""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xrdpipe.errors import XrdpipeError

SECONDS = 10
"""An input that takes longer counts as a hang."""

MEMORY = 1 << 30
"""Bytes that an input may take on top of what the child has."""

PER_CHILD = 250
"""Inputs after which a fresh child is forked: leaks of libraries do not add up."""

SLOWEST = 1.0
"""Inputs slower than so many seconds are counted."""


@dataclass(frozen=True)
class Seed:
    """A sound input: the files of a folder, and the one of them that is damaged."""

    files: dict[str, bytes]
    damaged: str


@dataclass
class Score:
    """What became of the inputs of one reader.

    Parameters
    ----------
    inputs, read, refused, slow
        Tried, taken without an error, refused by a named error, and those above SLOWEST.
    seconds
        Of the processor's time in all, and of the slowest input.
    findings
        Signature → number of inputs, the first of them, and what happened.
    """

    inputs: int = 0
    read: int = 0
    refused: int = 0
    slow: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    slowest_input: int = 0
    findings: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, index: int, outcome: str, seconds: float, detail: str = "") -> None:
        """Count one input; ``outcome`` is read, refused, or the signature of a finding."""
        self.inputs += 1
        self.seconds += seconds
        if seconds > self.slowest:
            self.slowest, self.slowest_input = seconds, index
        self.slow += seconds > SLOWEST
        if outcome in ("read", "refused"):
            setattr(self, outcome, getattr(self, outcome) + 1)
        else:
            found = self.findings.setdefault(
                outcome, {"inputs": 0, "first": index, "detail": detail}
            )
            found["inputs"] += 1


def drawn(reader: Any, seeds: list[Seed], seed: int, index: int) -> Seed:
    """Input number ``index``: the seeds as they are, then damaged ones."""
    random = np.random.default_rng([seed, zlib.crc32(reader.name.encode()), index])
    if index < len(seeds):
        return seeds[index]
    chosen = seeds[random.integers(len(seeds))]
    mutation = reader.mutations[random.integers(len(reader.mutations))]
    content = mutation(random, chosen.files[chosen.damaged])
    return Seed(chosen.files | {chosen.damaged: content}, chosen.damaged)


def unpack(one: Seed, folder: Path) -> None:
    """Write the files of an input into an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in one.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def fuzz(reader: Any, count: int, seconds: float, seed: int, work: Path) -> Score:
    """Give a reader ``count`` inputs, or as many as it takes in so many seconds."""
    score = Score()
    seeds = reader.seeds(work / "seeds")
    reader.prepare()
    started = time.monotonic()
    index = 0
    while index < count and time.monotonic() - started < seconds:
        stop = min(index + PER_CHILD, count)
        last, made = index, False
        for answer in _forked(reader, seeds, seed, range(index, stop), work):
            if "made" in answer:
                made = True
                continue
            if not made:  # it was HDF5 that failed to make the damaged file
                last += 1
                continue
            made = False
            if "signal" in answer:
                name = signal.Signals(answer["signal"]).name
                what = {"SIGALRM": f"hang, above {SECONDS} s"}.get(name, f"crash, {name}")
                score.add(last, what, answer["seconds"])
                last += 1
            else:
                score.add(last, answer["outcome"], answer["seconds"], answer["detail"])
                last += 1
        index = max(last, index + 1)
    return score


def apart(reader: Any, count: int, seconds: float, seed: int, work: Path) -> dict[str, Any]:
    """The score of a reader, in a process of its own: pyFAI hangs in forks of one that used it."""
    work.mkdir(parents=True)
    child = os.fork()
    if child == 0:
        score = asdict(fuzz(reader, count, seconds, seed, work))
        (work / "score.json").write_text(json.dumps(score))
        os._exit(0)
    os.waitpid(child, 0)
    return dict(json.loads((work / "score.json").read_text()))


def _forked(
    reader: Any, seeds: list[Seed], seed: int, numbers: range, work: Path
) -> Iterator[dict[str, Any]]:
    """Answers of a child, one per input; the last is a signal if it did not reach the end."""
    read_end, write_end = os.pipe()
    sys.stdout.flush()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        _serve(reader, seeds, seed, numbers, work, write_end)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as stream:
        for line in stream:
            started = time.monotonic()
            yield json.loads(line)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        yield {"signal": os.WTERMSIG(status), "seconds": time.monotonic() - started}
    elif os.WEXITSTATUS(status):
        yield {"outcome": f"exit {status}", "seconds": 0.0, "detail": ""}


def _serve(
    reader: Any, seeds: list[Seed], seed: int, numbers: range, work: Path, answers: int
) -> None:
    with Path(os.devnull).open("r+b") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    warnings.simplefilter("ignore")
    # Each thread reserves memory that it does not use: here reserved memory counts.
    threading.stack_size(1 << 20)
    ctypes.CDLL(None).mallopt(-8, 1)  # M_ARENA_MAX
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    folder = work / "input"
    os.chdir(work)
    with os.fdopen(answers, "w", buffering=1) as stream:
        for index in numbers:
            one = drawn(reader, seeds, seed, index)
            unpack(one, folder)
            stream.write('{"made": true}\n')
            signal.alarm(SECONDS)
            started = time.process_time()
            outcome, detail = tried(reader, folder / one.damaged)
            seconds = time.process_time() - started
            signal.alarm(0)
            stream.write(
                json.dumps({"outcome": outcome, "seconds": seconds, "detail": detail}) + "\n"
            )


def tried(reader: Any, path: Path) -> tuple[str, str]:
    """``read``, ``refused`` or the signature of a finding; and the sentence, or the traceback."""
    try:
        reader.attempt(path)
    except XrdpipeError as error:
        text = str(error)
        if re.search("unable to allocate|n.t allocate|allocation failed", text.lower()):
            return "memory, above 1 GB", text[:500]
        return "refused", ""
    except BaseException as error:  # whatever it is, it is the answer
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if "xrdpipe" in frame.filename] or frames[-1:]
        where = f"{Path(own[-1].filename).name}:{own[-1].name}"
        kind = "memory, above 1 GB" if isinstance(error, MemoryError) else type(error).__name__
        listing = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames[-8:]))
        return f"{kind} in {where}", f"{str(error)[:300]} [{listing}]"
    return "read", ""
