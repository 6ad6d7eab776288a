"""``xrdpipe doctor``: what it finds here, and what it says of what is missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple

import pytest

from xrdpipe import cores
from xrdpipe.stages import doctor
from xrdpipe.stages.doctor import NOTE, OK, PROBLEM, Check

Usage = namedtuple("Usage", "total used free")


def only(checks):
    (check,) = checks
    return check


def test_this_installation_is_healthy():
    """In a process of its own: imports of other tests must not help."""
    done = subprocess.run(
        [sys.executable, "-m", "xrdpipe", "doctor"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "decompression filters: bitshuffle, LZ4, zstd" in done.stdout
    assert "shipped models: hydrothermal-dac (3 phases, 0.4959 Å)" in done.stdout
    assert done.stdout.strip().endswith("\nhealthy")


def test_a_problem_makes_it_unhealthy_and_is_told_with_its_remedy(monkeypatch):
    found = [Check(OK, "numpy", "2.0"), Check(PROBLEM, "torch", "missing", "install it")]
    monkeypatch.setattr(doctor, "examine", lambda: found)
    outcome = doctor.run()
    assert outcome.exit_code == 1
    assert "  ok      numpy: 2.0\n  PROBLEM torch: missing; install it" in outcome.summary
    assert outcome.summary.endswith("not healthy: see PROBLEM above")
    said = json.loads(doctor.run(as_json=True).summary)
    assert said["healthy"] is False
    assert said["checks"][1]["mend"] == "install it"


def test_a_check_that_fails_is_a_problem_and_stops_no_other(monkeypatch):
    def broken():
        raise OSError("disk on fire")

    monkeypatch.setattr(doctor, "NEEDED", ())
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: broken())
    checks = {check.what: check for check in doctor.examine()}
    assert checks["Disk space"] == Check(PROBLEM, "Disk space", "disk on fire")
    assert checks["terminal"].state == OK


def test_an_absent_package_is_a_problem():
    check = doctor._needed("no_such_package")
    assert check.state == PROBLEM
    assert check.mend == "reinstall with 'pip install xrdpipe'"


def test_an_extra_that_is_absent_is_no_problem(monkeypatch):
    listed = ["numpy>=2", "numpy>=2; extra == 'view'", 'no-such-package>=1 ; extra == "cluster"']
    monkeypatch.setattr(doctor, "requires", lambda name: [*listed, "pytest; extra == 'test'"])
    cluster, view = doctor._extras()
    assert view.state == OK
    assert view.found.startswith("numpy ")
    assert cluster == Check(
        NOTE,
        "extra cluster",
        "not installed (no-such-package)",
        "if you want it: pip install 'xrdpipe[cluster]'",
    )


def test_cores_that_a_container_or_batch_job_withholds_are_not_used(monkeypatch, tmp_path):
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(cores, "QUOTA", quota)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    assert cores.usable_cores() == 64
    for text, usable in (("max 100000\n", 64), ("400000 100000\n", 4), ("50000 100000\n", 1)):
        quota.write_text(text)
        assert cores.usable_cores() == usable
    quota.unlink()
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    assert cores.usable_cores() == 2
    assert only(doctor._cores()).found.startswith("2 of 64, which affinity or container leave")


def test_a_slower_path_is_told_with_its_reason(monkeypatch):
    monkeypatch.setenv("XRDPIPE_KERNEL", "off")
    check = only(doctor._integration())
    assert check.state == NOTE
    assert check.mend == "unset XRDPIPE_KERNEL for the compiled kernel"


def test_a_gpu_that_torch_cannot_use_is_told(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert only(doctor._inference()).state == OK
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    check = only(doctor._inference())
    assert check.state == NOTE
    assert "CUDA build" in check.mend


def test_a_full_disk_is_told(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(1 << 40, 0, 1 << 29))
    assert [check.state for check in doctor._disk()] == [NOTE, NOTE]
    assert "0.5 GiB free" in doctor._disk()[0].found
