"""Scan commands, as control systems record them: ``amesh samy -1 1 20 samz 0 2 10 0.1``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from xrdpipe.types import ScanHint

Values = Callable[[str], NDArray[np.float64] | None]

# Counts that are intervals mean one point more; None: whichever the number of frames fits.
_MESH = {
    "amesh": True,
    "dmesh": True,
    "mesh": True,
    "meshct": True,
    "dmeshct": True,
    "l2scan": None,
    "kmap": False,
    "akmap": False,
    "dkmap": False,
    "fscan2d": False,
    "npointflyscan": True,
}
_SLOW_FIRST = {"fscan2d", "npointflyscan"}
_LINE = {"ascan": True, "dscan": True, "ascanct": True, "dscanct": True, "fscan": False}


@dataclass(frozen=True)
class Motion:
    """What a command says: motors with their points, the fast one first, and the rest.

    Parameters
    ----------
    motors
        (name, points) of the fast and, of a map, the slow motor.
    snake
        None if nothing is said.
    exposure
        s, or None.
    command
        The words themselves.
    """

    motors: tuple[tuple[str, int], ...]
    snake: bool | None
    exposure: float | None
    command: str


def parse_command(command: str, frames: int) -> Motion | None:
    """Read a scan command; None if it moves no motor in a way known here.

    Parameters
    ----------
    command
        One or two groups ``motor start stop count`` (``fscan2d``: motor start step count), then
        the exposure time.
    frames
        Number of frames, which decides between points and intervals where the command does not.
    """
    words = re.sub(r"[(),=]", " ", command).split()
    if not words:
        return None
    verb = words[0].split(".")[-1].lower()
    groups: list[tuple[str, int]] = []
    at = 1
    while at + 3 < len(words) and not _is_number(words[at]):
        if not all(_is_number(word) for word in words[at + 1 : at + 4]):
            break
        groups.append((words[at], int(float(words[at + 3]))))
        at += 4
    intervals = {**_MESH, **_LINE}.get(verb)
    known = verb in _MESH if len(groups) == 2 else verb in _LINE
    if len(groups) not in (1, 2) or any(count < 1 for _, count in groups):
        return None
    points = [(name, count + 1) for name, count in groups]
    if intervals is None:
        product = int(np.prod([count for _, count in points]))
        fits = int(np.prod([count for _, count in groups])) == frames
        if not known and not fits and product != frames:
            return None
        intervals = product == frames and not fits
    groups = points if intervals else groups
    if verb in _SLOW_FIRST:
        groups.reverse()
    exposure = float(words[at]) if at < len(words) and _is_number(words[at]) else None
    return Motion(tuple(groups), _snake(words[at:]), exposure, command.strip())


def _snake(rest: list[str]) -> bool | None:
    """``backnforth True`` (bliss), ``bidirectional`` or a last ``True`` (Sardana)."""
    low = [word.lower() for word in rest]
    for name in ("backnforth", "bidirectional", "zigzag"):
        if name in low:
            after = low[low.index(name) + 1 : low.index(name) + 2]
            return after not in (["false"], ["0"])
    if low[-1:] in (["true"], ["false"]):
        return low[-1] == "true"
    return None


def hint(motion: Motion, source: str, values: Values = lambda name: None) -> ScanHint:
    """The scan a motion makes, with x drawn to the right.

    The fast motor is x, unless the names say otherwise (``samz`` fast and ``samy`` slow). Where
    positions of both are known, they show which motor is the fast one.
    """
    evidence = f"command '{motion.command}'"
    if len(motion.motors) == 1:
        name, points = motion.motors[0]
        return ScanHint(x=name, shape=(1, points), fast_axis="x", source=source, evidence=evidence)
    fast, slow = motion.motors
    travel = [_travel(values(name)) for name, _ in (fast, slow)]
    if travel[0] is not None and travel[1] is not None and travel[1] > 2 * travel[0]:
        fast, slow = slow, fast
        evidence += f"; the positions show that {fast[0]} is the fast motor"
    found = axes_hint(fast[0], slow[0], fast[1], slow[1], source, evidence)
    return replace(found, snake=motion.snake)


def axes_hint(
    fast: str, slow: str, n_fast: int, n_slow: int, source: str, evidence: str
) -> ScanHint:
    """Which of two motors is drawn to the right, from their names."""
    ranks = _rank(fast), _rank(slow)
    if ranks[0] is not None and ranks[1] is not None and ranks[0] > ranks[1]:
        return ScanHint(slow, fast, (n_fast, n_slow), "y", None, source, evidence)
    return ScanHint(fast, slow, (n_slow, n_fast), "x", None, source, evidence)


def _rank(motor: str) -> int | None:
    """How vertical the last letter of a motor's name sounds; None for no idea."""
    name = re.sub(r"(_?(set|value|rbv|readback|pos|position|actual|encoder))+$", "", motor.lower())
    letters = re.findall(r"[a-z]", name)
    return {"x": 0, "y": 1, "z": 2}.get(letters[-1]) if letters else None


def _travel(values: NDArray[np.float64] | None) -> float | None:
    """Whole way in units of the range: large for the fast motor."""
    if values is None or np.isfinite(values).sum() < 3:
        return None
    values = values[np.isfinite(values)]
    span = float(np.ptp(values))
    return float(np.abs(np.diff(values)).sum()) / span if span > 0 else None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
