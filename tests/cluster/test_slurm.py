"""A job array of shards and a Dask cluster under a real SLURM give the file of a local run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from cluster.one_node_slurm import one_node_slurm, why_not
from h5compare import differences
from known_frames import rings, write_poni

ASKED = "XRDPIPE_TEST_SLURM"

pytestmark = pytest.mark.skipif(
    ASKED not in os.environ or bool(why_not()),
    reason=why_not() or f"starts daemons: only with {ASKED}=1",
)

PIPELINE = """
[cluster]
jobs = 2
cores = 1
processes = 1
memory = "1GB"
walltime = "00:10:00"
queue = "test"
interface = "lo"

[integrate]
frames = ["frames.h5"]
poni = "geometry.poni"
output = "patterns.h5"

[resample]
patterns = "patterns.h5"
grid = "5:12:0.05"
wavelength = 0.4959
output = "grid.h5"
"""

SHARD = """#!/bin/bash
#SBATCH --array=1-3
{xrdpipe} run pipeline.toml --shard $SLURM_ARRAY_TASK_ID/3
"""

MERGE = """#!/bin/bash
{xrdpipe} merge pipeline.toml
"""

XRDPIPE = f"{sys.executable} -c 'from xrdpipe.cli import main; main()'"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    with one_node_slurm(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


@pytest.fixture
def work(geometry, tmp_path):
    """Frames, a pipeline, and what a local run makes of them in ``local/``."""
    write_poni(tmp_path / "geometry.poni", rotations=(0.02, -0.01))
    expected = rings(geometry.two_theta) * np.linspace(0.5, 1.5, 330)[:, None, None]
    with h5py.File(tmp_path / "frames.h5", "w") as file:
        file["stack"] = np.random.default_rng(6).poisson(expected).astype(np.uint16)
    local = tmp_path / "local"
    local.mkdir()
    for name in ("frames.h5", "geometry.poni"):
        os.link(tmp_path / name, local / name)
    for folder in (tmp_path, local):
        (folder / "pipeline.toml").write_text(PIPELINE)
    subprocess.run(f"{XRDPIPE} run pipeline.toml", shell=True, cwd=local, check=True)
    return tmp_path


def submit(folder: Path, name: str, script: str, slurm, *options: str) -> str:
    """The number of a job."""
    (folder / name).write_text(script.format(xrdpipe=XRDPIPE))
    command = ["sbatch", "--parsable", *options, name]
    done = subprocess.run(
        command, cwd=folder, env=slurm, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def wait_until_over(slurm, patience: float = 120.0) -> None:
    end = time.monotonic() + patience
    while True:
        jobs = subprocess.run(
            ["squeue", "--noheader"], env=slurm, capture_output=True, text=True, check=True
        )
        if not jobs.stdout.strip():
            return
        assert time.monotonic() < end, jobs.stdout
        time.sleep(0.5)


def log_of(folder: Path) -> str:
    return "\n".join(file.read_text() for file in sorted(folder.glob("slurm-*.out")))


def check_same(folder: Path) -> None:
    for name in ("patterns.h5", "grid.h5"):
        assert (folder / name).exists(), log_of(folder)
        assert differences(folder / name, folder / "local" / name) == []


def test_a_job_array_of_shards_and_a_merge_that_waits_for_it(slurm, work):
    array = submit(work, "shards.sh", SHARD, slurm)
    submit(work, "merge.sh", MERGE, slurm, f"--dependency=afterok:{array}")
    wait_until_over(slurm)
    check_same(work)


def test_an_element_that_did_not_run_is_named_and_run_again(slurm, work):
    submit(work, "shards.sh", SHARD, slurm, "--array=1,3")
    wait_until_over(slurm)
    merge = subprocess.run(
        f"{XRDPIPE} merge pipeline.toml", shell=True, cwd=work, capture_output=True, text=True
    )
    assert merge.returncode == 1
    assert "run shard 2/3 (again)" in merge.stderr
    again = submit(work, "shards.sh", SHARD, slurm, "--array=2")
    submit(work, "merge.sh", MERGE, slurm, f"--dependency=afterok:{again}")
    wait_until_over(slurm)
    check_same(work)


def test_dask_workers_in_slurm_jobs(slurm, work):
    pytest.importorskip("dask_jobqueue", reason="needs xrdpipe[cluster]")
    command = f"{XRDPIPE} run pipeline.toml --scheduler slurm"
    done = subprocess.run(
        command, shell=True, cwd=work, env=slurm, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr + log_of(work)
    assert "SLURM: 2 jobs are submitted" in done.stderr
    check_same(work)
    wait_until_over(slurm)


def test_jobs_that_slurm_refuses(slurm, work):
    pytest.importorskip("dask_jobqueue", reason="needs xrdpipe[cluster]")
    command = f"{XRDPIPE} run pipeline.toml --scheduler slurm --set cluster.queue=nowhere"
    done = subprocess.run(
        command, shell=True, cwd=work, env=slurm, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "invalid partition" in done.stderr.lower()
    assert "nothing was integrated" in done.stderr
