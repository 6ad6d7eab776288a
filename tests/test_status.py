"""``xrdpipe status``: where a run stands, from its files alone."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

import xrdpipe
from known_frames import run_cli
from xrdpipe.errors import InputError
from xrdpipe.schema import FrameStatus
from xrdpipe.stages import status as status_module
from xrdpipe.stages.status import standings
from xrdpipe.store import parts as parts_module
from xrdpipe.store.parts import Column, PartFolder, part_folder

COLUMNS = {
    "masked.I": Column("<f4", (5,)),
    "status": Column("|u1"),
    "reason": Column("S256"),
}
KEY = {"stage": "integrate", "frames": [[f"f_{n}.tif", 0, n, 1, 1] for n in range(100)]}


def block(rows, lost=()):
    """Rows of which some were lost."""
    status = np.full(rows, FrameStatus.OK, np.uint8)
    reason = np.zeros(rows, "S256")
    for row in lost:
        status[row], reason[row] = FrameStatus.CORRUPT, b"f.tif: cut"
    return {"masked.I": np.zeros((rows, 5), "f4"), "status": status, "reason": reason}


class Clock:
    """Stands in for the module ``time``."""

    def __init__(self, now):
        self.now = now

    def time(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    """The blocks' clock, set by hand; it starts at 1000 s before now."""
    stands = Clock(time.time() - 1000)
    monkeypatch.setattr(parts_module, "time", stands)
    return stands


def begun(output, clock, blocks=((0, 20, 10.0), (20, 20, 10.0)), lost=(3,)):
    """A run that wrote some blocks: (first, rows, seconds)."""
    folder = PartFolder(output, COLUMNS)
    folder.begin(KEY, restart=False)
    for first, rows, seconds in blocks:
        clock.now += seconds
        folder.append(first, block(rows, lost))
    return folder


def test_nothing_is_there_yet(tmp_path, capsys):
    output = tmp_path / "patterns.h5"
    (standing,) = standings(output)
    assert standing.state == "not started"
    assert run_cli(["status", output]) == 0
    assert capsys.readouterr().out == f"{output}: not started\n  nothing is there yet\n"


def test_a_run_at_work_says_who_how_fast_and_how_long(tmp_path, clock, capsys):
    output = tmp_path / "patterns.h5"
    with begun(output, clock):
        clock.now += 100  # a look later changes no rate
        (standing,) = standings(output)
        assert run_cli(["status", output]) == 0
    shown = capsys.readouterr().out
    assert standing.state == "running"
    assert standing.writers[0]["pid"] == os.getpid()
    assert (standing.done, standing.total) == (40, 100)
    assert (standing.frames.ok, standing.frames.lost) == (38, 2)
    assert standing.rate == pytest.approx(2.0, rel=1e-3)
    assert standing.seconds_left == pytest.approx(30.0, rel=1e-3)
    assert f"{output}: running (process {os.getpid()} on " in shown
    assert "integrate, 40 of 100 frames, 2 lost, 2/s, about 30 s left, last sign of life" in shown
    assert "  2 frames: f.tif: cut" in shown


def test_the_rate_is_that_of_the_last_blocks(tmp_path, clock):
    slow = [(n, 1, 50.0) for n in range(5)]
    fast = [(5 + n, 1, 0.25) for n in range(10)]
    with begun(tmp_path / "p.h5", clock, [*slow, *fast], lost=()):
        (standing,) = standings(tmp_path / "p.h5")
    assert standing.rate == pytest.approx(4.0, rel=1e-3)


def test_a_run_that_died_can_be_continued(tmp_path, clock, capsys):
    output = tmp_path / "patterns.h5"
    begun(output, clock).__exit__()  # the lock ends with the process, the folder stays
    file = part_folder(output) / "rows.bin"
    file.write_bytes(file.read_bytes()[:-1])  # the second block is torn
    before = sorted((p.name, p.read_bytes()) for p in part_folder(output).iterdir())
    (standing,) = standings(part_folder(output))
    assert (standing.output, standing.state) == (str(output), "interrupted")
    assert (standing.done, standing.rate) == (20, None)
    assert standing.frames.reasons == (("f.tif: cut", 1),)
    assert run_cli(["status", output]) == 0
    assert "last sign of life 17 min ago; the same command continues" in capsys.readouterr().out
    assert sorted((p.name, p.read_bytes()) for p in part_folder(output).iterdir()) == before


def test_a_map_of_frames_begins_with_its_patterns(tmp_path, clock):
    begun(tmp_path / "m_patterns.h5", clock).__exit__()
    (standing,) = standings(tmp_path / "m_map.h5")
    assert standing.output == str(tmp_path / "m_patterns.h5")
    assert "m_map.h5 follows" in standing.note


def test_a_finished_file_says_when_and_by_which_version(scan, poni, tmp_path, capsys):
    (scan / "frame_0003.tif").write_bytes(b"II*\0")
    output = tmp_path / "patterns.h5"
    xrdpipe.integrate(frames=str(scan), poni=poni, threads=1, output=output)
    assert run_cli(["status", output, "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["outputs"]
    assert (told["state"], told["command"], told["version"]) == (
        "complete",
        "integrate",
        xrdpipe.__version__,
    )
    assert (told["frames"]["ok"], told["frames"]["lost"]) == (5, 1)
    assert "frame_0003.tif" in told["frames"]["reasons"][0][0]
    assert abs(told["last"] - time.time()) < 60
    assert run_cli(["status", output]) == 0
    shown = capsys.readouterr().out
    assert f"{output}: complete\n  integrate, 6 frames, 1 lost, " in shown


def test_work_left_behind_by_a_finished_run_is_no_interruption(scan, poni, tmp_path, monkeypatch):
    output = tmp_path / "patterns.h5"
    monkeypatch.setattr(parts_module.shutil, "rmtree", lambda *_, **__: None)
    xrdpipe.integrate(frames=str(scan), poni=poni, threads=1, output=output)
    assert part_folder(output).is_dir()
    (standing,) = standings(output)
    assert standing.state == "complete"


def test_a_folder_shows_everything_below(scan, poni, tmp_path, clock):
    out = tmp_path / "out"
    (out / "s1").mkdir(parents=True)
    xrdpipe.integrate(frames=str(scan), poni=poni, threads=1, output=out / "s1" / "patterns.h5")
    begun(out / "s2" / "patterns.h5", clock).__exit__()
    model = out / "model"
    model.mkdir()
    (model / "model.json").touch()
    training = out / "other.part"
    training.mkdir()
    (training / "run.json").write_text('{"train": {}}')
    (out / "raw.h5").write_bytes(b"no HDF5")
    found = {str(Path(s.output).relative_to(out)): (s.state, s.command) for s in standings(out)}
    assert found == {
        "model": ("complete", "train"),
        "other": ("interrupted", "train"),
        "s1/patterns.h5": ("complete", "integrate"),
        "s2/patterns.h5": ("interrupted", "integrate"),
    }


def test_what_no_run_wrote_is_refused(tmp_path):
    (tmp_path / "x.h5").write_bytes(b"no HDF5")
    with pytest.raises(InputError, match="no file that a run of xrdpipe wrote"):
        standings(tmp_path / "x.h5")
    with pytest.raises(InputError, match="holds no output of xrdpipe"):
        standings(tmp_path)


def test_a_damaged_key_is_said(tmp_path, clock):
    begun(tmp_path / "p.h5", clock).__exit__()
    (part_folder(tmp_path / "p.h5") / "run.json").write_text("{")
    (standing,) = standings(tmp_path / "p.h5")
    assert "is damaged" in standing.note


def test_the_current_folder_has_a_standing(tmp_path, monkeypatch, clock):
    with begun(tmp_path / "p.h5", clock):
        monkeypatch.chdir(tmp_path)
        (standing,) = standings(Path())
        assert (standing.done, standing.total) == (40, 100)


def test_a_scan_that_is_followed_is_not_complete(tmp_path, clock):
    with PartFolder(tmp_path / "p.h5", COLUMNS, suffix=".live") as kept:
        kept.begin(KEY, restart=False)
        kept.append(0, block(20))
        for found in (standings(tmp_path / "p.h5"), standings(tmp_path)):
            (standing,) = found
            assert (standing.state, standing.done) == ("running", 20)
    (standing,) = standings(tmp_path / "p.h5")
    assert standing.state == "interrupted"


def test_a_folder_that_vanishes_meanwhile_is_that_of_a_finished_run(
    scan, poni, tmp_path, monkeypatch
):
    output = tmp_path / "patterns.h5"
    removed = parts_module.shutil.rmtree
    monkeypatch.setattr(parts_module.shutil, "rmtree", lambda *_, **__: None)
    xrdpipe.integrate(frames=str(scan), poni=poni, threads=1, output=output)
    (standing,) = standings(output)  # its key is gone, and nobody else's work is there
    assert standing.state == "complete"
    (part_folder(output) / "run.json").write_text('{"frames": []}')

    def vanish(folder, **_):
        removed(folder)
        raise FileNotFoundError(folder)

    monkeypatch.setattr(status_module, "whole_blocks", vanish)
    (standing,) = standings(output)
    assert standing.state == "complete"
