"""What people see: help pages, tables and errors in one style; plain text where it is piped.

Colours follow rich: on a terminal only, and never with ``NO_COLOR``.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from rich import box
from rich import table as rich_table
from rich.console import Console
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from xrdpipe.errors import did_you_mean
from xrdpipe.types import Table

REQUIRED, OTHER, LAST = "Required", "Options", "Output and running"
"""Sections of a help page: the first, that of options without a group, and the last."""

WIDEST = 110
"""Columns of a help page; longer lines are hard to read."""

NAMES = 28
"""Column where the help of an option begins; longer names have a line of their own."""

NARROWEST = 16
"""Columns to which text in a table may be squeezed."""

STATES = {
    "green": ("ok", "complete", "already done"),
    "yellow": ("warning", "note", "interrupted", "frames lost", "running", "not started"),
    "red": ("PROBLEM", "failed"),
}
"""Colours of words that tell how something stands."""

_COLOURS = {word: colour for colour, words in STATES.items() for word in words}


# --- errors ----------------------------------------------------------------------------------


def say_error(text: str) -> None:
    """``xrdpipe: sentence`` on stderr."""
    line = Text.assemble(("xrdpipe:", "bold red"), " ", text)
    Console(stderr=True).print(line, soft_wrap=True, highlight=False)


def usage_sentence(error: Any) -> str:
    """What typer found wrong with a command line, in our words.

    Parameters
    ----------
    error
        A ``UsageError`` of typer.
    """
    context = error.ctx
    page = f"See '{context.command_path} --help'." if context else "See 'xrdpipe --help'."
    if hasattr(error, "possibilities"):
        known = [name for option in context.command.params for name in option.opts]
        nearest = did_you_mean(error.option_name, known)
        hint = nearest if "Did you mean" in nearest else ""
        return f"unknown option '{error.option_name}'.{hint} {page}"
    message = error.format_message().rstrip(".")
    return f"{message[:1].lower()}{message[1:]}. {page}"


# --- tables ----------------------------------------------------------------------------------


def show(parts: tuple[str | Table, ...]) -> None:
    """Print sentences and tables on a terminal; what is too long wraps inside its column."""
    console = Console()
    for part in parts:
        if isinstance(part, Table):
            console.print(_that_fits(part, console.width), highlight=False, soft_wrap=True)
        else:
            console.print(part, highlight=False, markup=False, emoji=False)


def _that_fits(table: Table, width: int) -> Any:
    """The table drawn; turned where its numbers are too wide, as text where that is, too."""
    if not table.head or _least(table) <= width:
        return _drawn(table)
    columns = tuple(zip(*table.rows, strict=True))
    names = columns[0]
    turned = Table(
        (table.head[0], *names),
        tuple((name, *cells) for name, cells in zip(table.head[1:], columns[1:], strict=True)),
        frozenset(names),
    )
    return _drawn(turned) if _least(turned) <= width else str(table)


def _least(table: Table) -> int:
    """Columns of a terminal below which numbers, which must not wrap, would."""
    widths = [max(map(len, column)) for column in zip(table.head, *table.rows, strict=True)]
    numbers = [name in table.right for name in table.head]
    return sum(
        3 + (size if number else min(size, NARROWEST))
        for size, number in zip(widths, numbers, strict=True)
    )


def _drawn(table: Table) -> Any:
    columns = len(table.head or table.rows[0])
    drawn = rich_table.Table(
        box=box.SIMPLE_HEAD if table.head else None,
        show_header=bool(table.head),
        header_style="bold",
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    for number, name in enumerate(table.head or ("",) * columns):
        drawn.add_column(
            name,
            justify="right" if name in table.right else "left",
            style="bold" if number == 0 else "",
            no_wrap=name in table.right or not (number or table.head),
            overflow="fold",
        )
    for row in table.rows:
        drawn.add_row(*(Text(cell, style=_COLOURS.get(cell, "")) for cell in row))
    return drawn


# --- help pages ------------------------------------------------------------------------------


class Command(TyperCommand):
    """A command whose help page is :func:`_command_page`."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the page."""
        _print(_command_page, ctx)


class Group(TyperGroup):
    """The root, whose help page lists the commands by purpose."""

    panels: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Heading → names of commands."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the page."""
        _print(_root_page, ctx)


def _print(page: Any, context: Any) -> None:
    console = Console()
    for line in page(context, min(console.width, WIDEST)):
        console.print(line, soft_wrap=True, highlight=False)


def _root_page(context: Any, width: int) -> Iterator[Text]:
    group = context.command
    yield from _heading(context, ["COMMAND", "[OPTIONS]"], _prose(group.help)[0], width)
    listed = {name for names in group.panels.values() for name in names}
    others = tuple(name for name in group.commands if name not in listed)
    for panel, names in [*group.panels.items(), (OTHER, others)]:
        there = [name for name in names if name in group.commands]
        if there:
            yield _section("Other commands" if panel == OTHER else panel)
        for name in there:
            sentence = _prose(group.commands[name].help)[0][0]
            yield from _entry(name, "", sentence, width, 14)
    yield _section(OTHER)
    for option in group.get_params(context):
        yield from _entry(_names(option), "", option.help or "", width, NAMES)


def _command_page(context: Any, width: int) -> Iterator[Text]:
    command = context.command
    prose, examples = _prose(command.help)
    sections: dict[str, list[Any]] = {REQUIRED: [], OTHER: []}
    for option in command.get_params(context):
        if getattr(option, "hidden", False):
            continue
        section = getattr(option, "rich_help_panel", None) or OTHER
        if option.required:
            section = REQUIRED
        elif option.name in ("help", "log_json"):
            section = LAST
        sections.setdefault(section, []).append(option)
    sections[LAST] = sections.pop(LAST)
    needed = [_usage(option) for option in sections[REQUIRED]]
    # Arguments first: a list of them would swallow what follows an option without a value.
    yield from _heading(context, [*needed, "[OPTIONS]"], prose, width)
    if examples:
        yield _section("Examples" if examples[1:] else "Example")
        yield from (Text.assemble("  ", (example, "green")) for example in examples)
    for section, options in sections.items():
        if options:
            yield _section(section)
        for option in options:
            yield from _entry(_names(option), _metavar(option), option.help or "", width, NAMES)


def _heading(context: Any, pieces: list[str], prose: list[str], width: int) -> Iterator[Text]:
    yield Text.assemble("\n", ("Usage", "bold"), f"  {context.command_path} {' '.join(pieces)}")
    for paragraph in prose:
        yield Text("\n" + "\n".join(textwrap.wrap(paragraph, width, break_on_hyphens=False)))


def _section(name: str) -> Text:
    return Text.assemble("\n", (name, "bold"))


def _entry(names: str, metavar: str, sentence: str, width: int, column: int) -> Iterator[Text]:
    """Names and placeholder, and the sentence beside them, or below where they are long."""
    whole = re.sub(r"\(default: (\S+)\)", "(default:\u00a0\\1)", sentence)
    wrapped = textwrap.wrap(
        whole, max(width - column, 20), break_long_words=False, break_on_hyphens=False
    )
    lines = [line.replace("\u00a0", " ") for line in wrapped]
    label = Text.assemble("  ", (names, "cyan"), f" {metavar}" if metavar else "")
    if len(label) <= column - 2 and lines:
        yield Text.assemble(label, " " * (column - len(label)), lines.pop(0))
    else:
        yield label
    yield from (Text(" " * column + line) for line in lines)


def _prose(text: str | None) -> tuple[list[str], list[str]]:
    """Paragraphs of a docstring, and the command lines of those that begin with ``Example:``."""
    paragraphs = [" ".join(part.split()) for part in inspect.cleandoc(text or "").split("\n\n")]
    examples = [part for part in paragraphs if part.startswith("Example:")]
    prose = [part.replace("``", "") for part in paragraphs if part not in examples]
    return prose, [re.sub(r"^Example:\s*", "", example) for example in examples]


def _names(option: Any) -> str:
    """``-o, --output``; the negative form too where the option is on by default."""
    if option.param_type_name == "argument":
        return _metavar(option, argument=True)
    names = ", ".join(sorted(option.opts, key=len))
    if option.secondary_opts and option.default is True:
        names += f", {option.secondary_opts[0]}"
    return names


def _metavar(option: Any, argument: bool = False) -> str:
    if (option.param_type_name == "argument") != argument or getattr(option, "is_flag", False):
        return ""
    metavar = str(option.metavar or option.name.upper())
    return f"{metavar}..." if argument and option.nargs == -1 else metavar


def _usage(option: Any) -> str:
    """How it stands in the usage line."""
    if option.param_type_name == "argument":
        return _metavar(option, argument=True)
    return f"{max(option.opts, key=len)} {_metavar(option)}"
