"""The command line: what it prints, and the exit codes of decision 16."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shlex
import shutil
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import typer

from xrdpipe import __version__, config, terminal
from xrdpipe.cli import PANELS, Reporter, app, main
from xrdpipe.errors import EnvironmentProblemError
from xrdpipe.types import Outcome, Table

COMMANDS = typer.main.get_command(app).commands


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


def test_version_and_help(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out.strip() == f"xrdpipe {__version__}"
    assert run("--help") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in [*config.STAGES, "run", "doctor"])


def test_the_first_page_lists_every_command_by_its_purpose(capsys):
    run("--help")
    shown = capsys.readouterr().out
    assert "Other commands" not in shown
    for panel, names in PANELS.items():
        section = shown.partition(f"\n{panel}\n")[2].partition("\n\n")[0]
        there = [name for name in names if name in COMMANDS]
        assert [line.split()[0] for line in section.splitlines() if line[2] != " "] == there


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_pages_fit_and_show_every_option(command, width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    assert run(command, "--help") == 0
    shown = capsys.readouterr().out
    assert f"\n  xrdpipe {command}" in shown.partition("\nExample")[2]
    assert max(map(len, shown.splitlines())) <= width
    assert "\u00a0" not in shown
    assert "\nOptions\n" not in shown, "an option belongs to no group"
    for option in COMMANDS[command].params:
        if option.param_type_name == "option":
            assert max(option.opts, key=len) in shown


def test_help_tells_defaults_choices_and_units(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    run("integrate", "--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "--reject-threshold X Rejection threshold in standard deviations (default: 5)." in shown
    assert "--error-model poisson|azimuthal|none" in shown
    assert "--rotate 0|90|180|270" in shown
    assert "(default: 0)" in shown
    assert "'NAME[i]' takes frame i" in shown
    required = shown.partition("Required")[2].partition("Masks")[0]
    assert "FRAMES..." in required
    assert "--poni FILE" in required


def examples():
    """Every command line that a help page shows."""
    for command in COMMANDS.values():
        for line in (command.help or "").splitlines():
            if line.startswith("Example:"):
                yield line.removeprefix("Example:").strip()


@pytest.mark.parametrize("example", list(examples()))
def test_examples_of_the_help_pages_are_accepted(example, monkeypatch):
    asked = []

    def accepted(name, settings, *_):
        asked.append(settings)
        return Outcome("x")

    monkeypatch.setattr("xrdpipe.cli.run_stage", accepted)
    words = shlex.split(example)
    assert words[0] == "xrdpipe"
    assert len(example) <= 78
    if words[1] in config.STAGES:
        assert run(*words[1:]) == 0
        assert asked
    else:
        COMMANDS[words[1]].make_context(words[1], words[2:], resilient_parsing=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["integrat"], "unknown command 'integrat'. Did you mean 'integrate'?"),
        (
            ["map", "p.h5", "--modle", "x"],
            "unknown option '--modle'. Did you mean '--model'? See 'xrdpipe map --help'.",
        ),
        (["map", "p.h5", "--xyz"], "unknown option '--xyz'. See 'xrdpipe map --help'."),
        (["--x"], "unknown option '--x'. See 'xrdpipe --help'."),
        (["validate"], "missing argument 'FILE'. See 'xrdpipe validate --help'."),
        (["map", "p.h5", "--model"], "option '--model' requires an argument."),
        (["validate", "a.h5", "b.h5"], "got unexpected extra argument"),
        (
            ["integrate", "x", "--poni", "p", "--radial-range", "1", "q"],
            "option 'radial_range': expected a number, got 'q'",
        ),
        (["integrate", "x"], "option 'poni' is required"),
        (["map", "p.h5", "--method", "liner"], "Did you mean 'linear'?"),
    ],
)
def test_usage_errors_are_one_sentence_of_one_style(words, message, capsys):
    assert run(*words) == 2
    caught = capsys.readouterr()
    assert caught.out == ""
    assert caught.err.startswith("xrdpipe: ")
    assert caught.err.count("\n") == 1
    assert message in caught.err


def shell(*words, **environment):
    """Output of ``python -m xrdpipe``."""
    return subprocess.run(
        [sys.executable, "-m", "xrdpipe", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("module", ["xrdpipe", "xrdpipe.cli"])
def test_the_package_can_be_run_as_a_module(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"xrdpipe {__version__}"


def on_terminal(**environment):
    """What a failing command shows on a terminal."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", **environment}
    for name in ("NO_COLOR", "FORCE_COLOR"):
        if environment.get(name) in (None, ""):
            environment.pop(name, None)
    with subprocess.Popen(
        [sys.executable, "-m", "xrdpipe", "validate", "none.h5"],
        stdout=theirs, stderr=theirs, env=environment,
    ):  # fmt: skip
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # a terminal that is gone is an error on Linux
            while part := os.read(ours, 1000):
                shown += part
    os.close(ours)
    return shown.decode()


def test_colours_are_for_terminals_that_want_them():
    assert on_terminal(NO_COLOR="").startswith("\x1b[1;31mxrdpipe:\x1b[0m none.h5 does not exist.")
    assert on_terminal(NO_COLOR="1").count("\x1b[1;31m") == 0
    assert shell("validate", "none.h5").stderr == "xrdpipe: none.h5 does not exist.\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("xrdpipe ma", ["map", "mask"]),
        ("xrdpipe map p.h5 --variant ", ["masked", "unmasked", "both"]),
        ("xrdpipe map p.h5 --model hydro", ["hydrothermal-dac"]),
        ("xrdpipe map p.h5 --model my_own", []),
        ("xrdpipe simulate --format tiff", ["tiff", "tiff-stack"]),
        ("xrdpipe train --recipe train-ti", ["train-tiny"]),
        ("xrdpipe run de", ["demo"]),
        ("xrdpipe integrate x --mask demo-b", ["demo-beamstop"]),
        ("xrdpipe map p.h5 --scan-s", ["--scan-shape"]),
    ],
)
def test_shells_complete_commands_options_values_and_names(line, expected):
    words = line.split(" ")
    said = shell(
        _XRDPIPE_COMPLETE="complete_bash", COMP_WORDS="\n".join(words),
        COMP_CWORD=str(len(words) - 1),
    )  # fmt: skip
    assert said.stderr == ""
    assert said.stdout.split() == expected


@pytest.mark.parametrize(
    ("name", "file", "values"),
    [
        ("bash", ".bash_completions/xrdpipe.sh", {"COMP_WORDS": "xrdpipe map --variant ",
                                                  "COMP_CWORD": "3"}),
        ("zsh", ".zfunc/_xrdpipe", {"_TYPER_COMPLETE_ARGS": "xrdpipe map --variant "}),
        ("fish", ".config/fish/completions/xrdpipe.fish",
         {"_TYPER_COMPLETE_ARGS": "xrdpipe map --variant ",
          "_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
    ],
)  # fmt: skip
def test_completion_is_installed_and_answers_each_shell(name, file, values, tmp_path):
    done = shell(
        "--install-completion", name,
        HOME=str(tmp_path), _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "_XRDPIPE_COMPLETE" in (tmp_path / file).read_text()
    said = shell(_XRDPIPE_COMPLETE=f"complete_{name}", **values)
    assert all(choice in said.stdout for choice in ("masked", "unmasked", "both")), said


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_itself_completes(tmp_path):
    command = tmp_path / "xrdpipe"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m xrdpipe "$@"\n')
    command.chmod(0o755)
    script = shell(
        "--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"
    ).stdout
    lines = [
        script,
        "COMP_WORDS=(xrdpipe map p.h5 --method '')",
        "COMP_CWORD=4",
        "_xrdpipe_completion xrdpipe",
        'echo "${COMPREPLY[@]}"',
    ]
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        capture_output=True, text=True, check=True,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.stdout.split() == ["linear", "overlap", "auto"]


def test_a_table_is_aligned_in_a_log_and_drawn_on_a_terminal(capsys, monkeypatch):
    table = Table(("scan", "frames"), (("a", "12"), ("long", "3")), frozenset({"frames"}))
    assert str(table).splitlines() == ["scan  frames", "a         12", "long       3"]
    outcome = Outcome("x", summary=str(table), shown=(table, "2 scans."))
    Reporter(log_json=False).finish(outcome)
    assert capsys.readouterr().out == f"{table}\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    Reporter(log_json=False).finish(outcome)
    shown = capsys.readouterr().out
    assert "────" in shown
    assert shown.endswith("2 scans.\n")


def test_errors_are_one_sentence_on_stderr(capsys):
    assert run("validate", "no_such_file.h5") == 2
    caught = capsys.readouterr()
    assert caught.out == ""
    assert caught.err == "xrdpipe: no_such_file.h5 does not exist.\n"


def test_validate_exits_1_on_an_invalid_file(tmp_path, capsys):
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["entry/data/I"] = np.zeros((2, 3))
    assert run("validate", tmp_path / "p.h5") == 1
    assert "/entry/reduction/input/poni is absent" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("problem", "code", "text"),
    [
        (KeyboardInterrupt(), 130, "interrupted; run the same command to continue"),
        (EnvironmentProblemError("disk full"), 1, "xrdpipe: disk full"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (MemoryError(), 1, "try fewer --threads"),
    ],
)
def test_exit_codes_of_trouble(monkeypatch, capsys, problem, code, text):
    def fail(*_):
        raise problem

    monkeypatch.setattr("xrdpipe.cli.run_stage", fail)
    assert run("validate", "x.h5") == code
    assert text in capsys.readouterr().err


def test_lost_frames_exit_3(monkeypatch, capsys):
    monkeypatch.setattr("xrdpipe.cli.run_stage", lambda *_: Outcome("x", 2, "2 frames lost"))
    assert run("validate", "x.h5") == 3
    assert capsys.readouterr().out == "2 frames lost\n"


def test_json_log_has_one_event_a_line(capsys):
    reporter = Reporter(log_json=True)
    progress = reporter.progress
    progress.note("hello")
    progress.start("integrate", 3)
    progress.advance(3)
    progress.done()
    reporter.finish(Outcome("p.h5", 1, "done"))
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [event["event"] for event in events] == ["note", "start", "done", "outcome"]
    assert events[1]["total"] == 3
    assert events[-1]["lost"] == 1


def test_plain_log_tells_rate_and_time_left(capsys, monkeypatch):
    clock = iter([0.0, 11.0, 22.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    progress = Reporter(log_json=False).progress
    progress.start("integrate", 40)
    progress.advance(11)
    assert capsys.readouterr().err == "integrate: 11/40, 1.0/s, 29 s left\n"


def test_a_table_of_numbers_too_wide_for_the_terminal_is_turned(capsys, monkeypatch):
    names = tuple(f"measure {n}" for n in range(8))
    rows = tuple((phase, *("12.345" for _ in names)) for phase in ("calcite", "rhenium"))
    table = Table(("phase", *names), rows, frozenset(names))
    monkeypatch.setenv("COLUMNS", "60")
    terminal.show((table,))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["phase", "calcite", "rhenium"]
    assert lines[3].split() == ["measure", "0", "12.345", "12.345"]
    assert max(map(len, lines)) <= 60
    monkeypatch.setenv("COLUMNS", "20")
    terminal.show((table,))
    assert capsys.readouterr().out.rstrip() == str(table)


def test_labels_beside_sentences_need_no_heading(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    terminal.show((Table((), (("layout", "six frames of a small map"), ("warning", "odd"))),))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["layout   six frames of a small", "         map", "warning  odd"]
