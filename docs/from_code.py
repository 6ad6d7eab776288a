"""The parts of the reference that are made from the program, so that they cannot go stale.

A page holds a mark such as ``<!-- commands -->``; ``conf.py`` puts the text there when the site
is built. Read as plain Markdown the page is short and says where to look instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from xrdpipe import config
from xrdpipe.cli import app


def commands() -> dict[str, Any]:
    """Name and command, in the order of ``xrdpipe --help``."""
    return dict(get_command(app).commands)


def options_of(command: Any) -> list[Any]:
    """Arguments and options that a user may give."""
    return [option for option in command.params if not getattr(option, "hidden", False)]


def command_reference() -> str:
    """Every command: what it does, an example, its options in their groups."""
    return "\n".join(line for item in commands().items() for line in _one_command(*item))


def _one_command(name: str, command: Any) -> Iterator[str]:
    said, *examples = [part.strip() for part in command.help.split("\n\n")]
    options = options_of(command)
    arguments = [option for option in options if option.param_type_name == "argument"]
    usage = " ".join(["xrdpipe", name, *(_metavar(option) for option in arguments), "[OPTIONS]"])
    yield f"## {name}\n\n{_escaped(said)}\n\n```text\n{usage}\n```\n"
    for example in examples:
        if example.startswith("Example:"):
            command_line = example.removeprefix("Example:").strip()
            yield f"```console\n$ {command_line}\n```\n"
        else:
            yield f"{_escaped(example)}\n"
    groups: dict[str, list[Any]] = {}
    for option in options:
        groups.setdefault(option.rich_help_panel or "", []).append(option)
    for group, members in groups.items():
        yield f"| {group or 'Option'} | |\n|---|---|"
        for option in members:
            yield f"| {_written(option)} | {_escaped(option.help or '')} |"
        yield ""


def _metavar(option: Any) -> str:
    return f"{option.metavar or option.name.upper()}{'...' if option.nargs == -1 else ''}"


def _written(option: Any) -> str:
    """How an option is written, as code in a table cell."""
    if option.param_type_name == "argument":
        return f"`{_metavar(option)}`".replace("|", "\\|")
    names = ", ".join([*option.opts, *option.secondary_opts])
    return f"`{names}{' ' + option.metavar if option.metavar else ''}`".replace("|", "\\|")


def _escaped(text: str) -> str:
    """Help is plain text: what Markdown would read as markup is escaped."""
    return re.sub(r"([\\`*_<>|\[\]{}])", r"\\\1", " ".join(text.split()))


def function_reference() -> str:
    """One function per stage, as autodoc finds it in the package."""
    lines = ["```{eval-rst}"]
    for name in config.STAGES:
        lines += [f".. autofunction:: xrdpipe.{name}", ""]
    return "\n".join([*lines, "```"])


MADE = {"commands": command_reference, "functions": function_reference}
"""Mark → text that takes its place."""


def filled(page: str) -> str:
    """The page with every mark replaced."""
    for mark, make in MADE.items():
        page = page.replace(f"<!-- {mark} -->", make())
    return page
