"""The errors xrdpipe raises: one base, each also the builtin a scientist would catch.

Every message names the file (and frame), says what was found and what was expected,
and what to do. ``exit_code`` is what the command line returns (decision 16).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_OK = 0
EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_LOST_FRAMES = 3
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class XrdpipeError(Exception):
    """Base of every error raised on purpose; its text is one clear sentence."""

    exit_code = EXIT_USAGE


class OptionError(XrdpipeError, ValueError):
    """An option has an unknown name or a value that cannot be used."""


class InputError(XrdpipeError, ValueError):
    """An input file was found but its content does not fit the task."""


class InputMissingError(XrdpipeError, FileNotFoundError):
    """A named input does not exist."""

    def __str__(self) -> str:
        """Return the sentence itself; OSError would print an errno tuple."""
        return str(self.args[0]) if self.args else ""


class OutputExistsError(XrdpipeError, FileExistsError):
    """The output belongs to another run (decision 21)."""

    def __str__(self) -> str:
        """Return the sentence itself; OSError would print an errno tuple."""
        return str(self.args[0]) if self.args else ""


class EnvironmentProblemError(XrdpipeError, RuntimeError):
    """Something outside xrdpipe failed (disk full, missing extra); the run can be resumed."""

    exit_code = EXIT_BUG


class InterruptedRunError(XrdpipeError):
    """Somebody asked to stop; what was finished is kept and the run can be resumed.

    Parameters
    ----------
    sentence
        What is kept, and how to go on.
    signal
        The number of the signal that asked.
    """

    def __init__(self, sentence: str, signal: int) -> None:
        super().__init__(sentence)
        self.exit_code = 128 + signal


class InvalidFileError(XrdpipeError, ValueError):
    """A file is not what it claims to be; lists every problem."""

    exit_code = EXIT_BUG


class FrameError(XrdpipeError, OSError):
    """One frame could not be used; it costs its pixel, never the map.

    Parameters
    ----------
    status
        The ``frames/status`` number (see :class:`xrdpipe.schema.FrameStatus`).
    reason
        One sentence naming the file and the frame.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason

    def __str__(self) -> str:
        """Return the reason."""
        return self.reason


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` or, with nothing near, the list of known names."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if near:
        return f" Did you mean '{near[0]}'?"
    return f" Known: {', '.join(names)}."
