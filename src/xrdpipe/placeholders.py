"""``{output}``, ``{scan}`` and ``{name}`` in the texts of a pipeline file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from xrdpipe.errors import OptionError, did_you_mean

_TOKEN = re.compile(r"\{\{|\}\}|\{(?P<word>[^{}]*)\}|[{}]")
"""An escaped brace, a placeholder, or a brace by itself."""


def filled(value: Any, known: Mapping[str, str | None]) -> Any:
    """The value with every placeholder replaced, in one pass; ``{{`` and ``}}`` become braces.

    Parameters
    ----------
    value
        A text, or a list of values; anything else is given back as it is.
    known
        What each placeholder stands for; None = nothing in this run.

    Raises
    ------
    OptionError
        For an unknown placeholder (with the nearest known one), one that stands for nothing, or
        a single brace.
    """
    if isinstance(value, list):
        return [filled(item, known) for item in value]
    if not isinstance(value, str):
        return value

    def replaced(match: re.Match[str]) -> str:
        token, word = match[0], match["word"]
        if token in ("{{", "}}"):
            return token[0]
        if word is None:
            raise OptionError(f"'{value}' has a single '{token}'; write '{token * 2}' for a brace.")
        if word not in known:
            raise OptionError(
                f"'{value}' has an unknown placeholder '{token}'.{did_you_mean(word, known)}"
            )
        text = known[word]
        if text is None:
            raise OptionError(f"'{value}': {token} stands for a scan; name it with --scan PATH.")
        return text

    return _TOKEN.sub(replaced, value)


def used(value: Any) -> set[str]:
    """Names of all placeholders in a text, or in the texts of a list or mapping."""
    return set(_words(value))


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _words(item)
    elif isinstance(value, str):
        yield from (match["word"] for match in _TOKEN.finditer(value) if match["word"])
