"""The command line: what it prints, and the exit codes of decision 16."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from xrdpipe import __version__, config
from xrdpipe.cli import Reporter, main
from xrdpipe.errors import EnvironmentProblemError
from xrdpipe.types import Outcome


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


@pytest.mark.parametrize("stage", config.STAGES)
def test_help_pages_show_every_option_and_an_example(stage, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    assert run(stage, "--help") == 0
    shown = capsys.readouterr().out
    assert f"Example: xrdpipe {stage}" in shown
    for definition in config.fields(config.STAGES[stage]):
        if not definition.metadata["argument"]:
            assert f"--{definition.name.replace('_', '-')}" in shown, definition.name


def test_unknown_commands_and_options_are_named(capsys):
    assert run("integrat") == 2
    assert "unknown command 'integrat'. Did you mean 'integrate'?" in capsys.readouterr().err
    assert run("map", "p.h5", "--modle", "x") == 2
    assert "--model" in capsys.readouterr().err


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


def test_doctor_finds_this_installation_healthy():
    done = subprocess.run(
        [sys.executable, "-c", "from xrdpipe.cli import main; main(['doctor'])"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "decompression filters: bitshuffle, LZ4, zstd" in done.stdout
    assert done.stdout.strip().endswith("healthy")
