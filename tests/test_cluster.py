"""Frames integrated by several processes: whatever happens to them, the file is the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from h5compare import differences
from known_frames import rings, write_poni
from xrdpipe import cluster
from xrdpipe.cli import main
from xrdpipe.cluster import ClusterExecution, cut
from xrdpipe.cluster_worker import Refusal
from xrdpipe.config import IntegrateConfig
from xrdpipe.errors import EnvironmentProblemError, InterruptedRunError, OptionError
from xrdpipe.integration import compiled
from xrdpipe.pipeline import read_pipeline
from xrdpipe.stages import integrate
from xrdpipe.stages.reduction import BLOCK_ROWS
from xrdpipe.stages.shard import Shard
from xrdpipe.types import Progress

N_FRAMES = 5 * BLOCK_ROWS + 10

PIPELINE = """
[integrate]
frames = ["frames.h5"]
poni = "geometry.poni"
variant = "both"
output = "patterns.h5"

[resample]
patterns = "patterns.h5"
grid = "5:12:0.05"
wavelength = 0.4959
output = "grid.h5"
"""


@pytest.fixture(scope="module")
def frames(tmp_path_factory, geometry):
    """A folder with small frames, a geometry and a pipeline."""
    folder = tmp_path_factory.mktemp("frames")
    write_poni(folder / "geometry.poni", rotations=(0.02, -0.01))
    heights = np.random.default_rng(5).uniform(20, 200, N_FRAMES)
    expected = rings(geometry.two_theta, height=1.0, background=0.05)
    stack = np.random.default_rng(6).poisson(expected * heights[:, None, None])
    with h5py.File(folder / "frames.h5", "w") as file:
        file["stack"] = stack.astype(np.uint16)
    (folder / "pipeline.toml").write_text(PIPELINE)
    return folder


@pytest.fixture(scope="module")
def alone(frames):
    """What the threads of one process make of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(frames)
        assert exit_code("run", "pipeline.toml") == 0
        for name in ("patterns.h5", "grid.h5"):
            Path(name).rename(f"alone_{name}")
    return frames / "alone_patterns.h5"


@pytest.fixture
def work(frames, alone, tmp_path, monkeypatch):
    """An empty working folder that sees the frames by relative paths."""
    os.link(frames / "frames.h5", tmp_path / "frames.h5")
    for name in ("geometry.poni", "pipeline.toml"):
        (tmp_path / name).write_bytes((frames / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def exit_code(*arguments):
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return end.value.code


def config(output="patterns.h5"):
    return IntegrateConfig(
        frames=["frames.h5"], poni="geometry.poni", variant="both", output=output
    )


# --- shards ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("total", "of"), [(1, 1), (64, 3), (330, 4), (6400, 7), (10, 20)])
def test_shards_are_whole_blocks_and_cover_every_row_once(total, of):
    shares = [Shard(number, of).rows(total, BLOCK_ROWS) for number in range(1, of + 1)]
    assert np.array_equal(np.concatenate(shares), np.arange(total))
    assert all(share[0] % BLOCK_ROWS == 0 for share in shares if share.size)
    sizes = [-(-share.size // BLOCK_ROWS) for share in shares]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3"])
def test_a_shard_that_does_not_exist_is_refused(text):
    with pytest.raises(OptionError, match="expected I/N, I from 1 to N"):
        Shard.parse(text)


def shard(number, of=3):
    code = "from xrdpipe.cli import main; main()"
    command = [sys.executable, "-c", code, "run", "pipeline.toml", "--shard", f"{number}/{of}"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_shards_at_once_one_killed_and_run_again(work, alone, capsys):
    first, second = shard(1), shard(2)
    # The second is killed as soon as it works; it may or may not have finished a block.
    while not list(Path("patterns.h5.part").glob("rows-shard-2-*")) and second.poll() is None:
        time.sleep(0.01)
    second.kill()
    second.communicate()
    first.communicate()
    assert first.returncode == 0

    assert exit_code("merge", "pipeline.toml") == 1
    said = capsys.readouterr().err
    assert "shard 2/3, 3/3 (again)" in said or "shard 3/3 (again)" in said
    assert not Path("patterns.h5").exists()

    again, third = shard(2), shard(3)
    for process in (again, third):
        process.communicate()
        assert process.returncode == 0
    # From anywhere, by the output alone.
    os.chdir("/")
    assert exit_code("merge", work / "patterns.h5") == 0
    assert differences(work / "patterns.h5", alone) == []
    assert differences(work / "grid.h5", alone.with_name("alone_grid.h5")) == []
    assert not (work / "patterns.h5.part").exists()
    assert exit_code("merge", work / "patterns.h5") == 2
    assert "is complete" in capsys.readouterr().err
    os.chdir(work)
    assert exit_code("merge", "pipeline.toml") == 0
    assert "already done" in capsys.readouterr().out


def test_shards_of_another_number_go_on_where_the_first_ended(work, alone):
    assert exit_code("run", "pipeline.toml", "--shard", "1/2") == 0
    before = Path("patterns.h5.part/rows-shard-1-of-2.bin").stat().st_size
    assert exit_code("run", "pipeline.toml", "--shard", "1/3") == 0
    assert Path("patterns.h5.part/rows-shard-1-of-3.bin").stat().st_size == 0
    for number in (2, 3):
        assert exit_code("run", "pipeline.toml", "--shard", f"{number}/3") == 0
    assert before
    assert exit_code("merge", "pipeline.toml") == 0
    assert differences("patterns.h5", alone) == []


def test_shards_of_several_scans(work, alone, capsys):
    for name in ("a", "b"):
        os.link("frames.h5", f"{name}.h5")
    Path("pipeline.toml").write_text(PIPELINE.replace('"frames.h5"', '"{scan}"'))
    scans = ("pipeline.toml", "--scan", "[ab].h5", "--set", "integrate.output='{name}/p.h5'")
    scans += ("--set", "resample.patterns='{name}/p.h5'", "--set", "resample.output='{name}/g.h5'")
    for number in (1, 2):
        assert exit_code("run", *scans, "--shard", f"{number}/2") == 0
    assert exit_code("merge", *scans) == 0
    assert "2 scans: 2 ok." in capsys.readouterr().out
    for name in ("a", "b"):
        with h5py.File(f"{name}/p.h5") as merged, h5py.File(alone) as expected:
            data = "entry/azint1d_masked/data/I"
            assert np.array_equal(merged[data][()], expected[data][()], equal_nan=True)
        assert Path(f"{name}/g.h5").exists()
    assert exit_code("merge", "a/p.h5", "--scan", "a.h5") == 2


def test_shards_with_other_options_are_refused(work, capsys):
    assert exit_code("run", "pipeline.toml", "--shard", "1/2") == 0
    other = ("--set", "integrate.reject=none")
    assert exit_code("run", "pipeline.toml", "--shard", "2/2", *other) == 2
    assert "options.reject is 'robust' there, 'none' here" in capsys.readouterr().err


def test_a_step_before_must_have_been_run(work, capsys):
    mask = '[mask]\nframes = ["frames.h5"]\noutput = "mask.edf"\npng = false\n'
    Path("pipeline.toml").write_text(mask + PIPELINE)
    assert exit_code("run", "pipeline.toml", "--shard", "1/2") == 2
    assert "step 'mask' comes before the integration and is not done" in capsys.readouterr().err
    assert not Path("patterns.h5.part").exists()


def test_without_frames_there_is_nothing_to_share(work, capsys):
    Path("pipeline.toml").write_text("[resample]" + PIPELINE.partition("[resample]")[2])
    assert exit_code("run", "pipeline.toml", "--shard", "1/2") == 2
    assert "no step of the pipeline integrates frames" in capsys.readouterr().err


@pytest.mark.parametrize("other", [("--restart",), ("--scheduler", "local")])
def test_shards_exclude(work, capsys, other):
    assert exit_code("run", "pipeline.toml", "--shard", "1/2", *other) == 2
    assert f"--shard and {other[0]} exclude each other" in capsys.readouterr().err


def test_what_cannot_be_merged_is_named(work, capsys):
    assert exit_code("merge", "patterns.h5") == 2
    assert "there is no patterns.h5.part" in capsys.readouterr().err
    Path("patterns.h5.part").mkdir()
    assert exit_code("merge", "patterns.h5") == 2
    assert "holds no finished shard" in capsys.readouterr().err
    Path("patterns.h5.part/steps.json").write_text(json.dumps({"folder": "."}))
    assert exit_code("merge", "patterns.h5") == 2
    assert "is damaged ('steps')" in capsys.readouterr().err


# --- Dask ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scheduler", ["lokal", "local:0", "local:x", "slurm:3", "tcp:", "tcp://host", "tcp://:80", ""]
)
def test_what_is_no_scheduler_is_refused(scheduler):
    with pytest.raises(OptionError, match="expected local, local:N, tcp://HOST:PORT"):
        ClusterExecution(scheduler)


@pytest.mark.parametrize(
    ("scheduler", "library"), [("local", "distributed"), ("slurm", "dask_jobqueue")]
)
def test_without_the_extra_one_sentence_says_what_to_install(
    work, monkeypatch, capsys, scheduler, library
):
    monkeypatch.setitem(sys.modules, library, None)
    assert exit_code("run", "pipeline.toml", "--scheduler", scheduler) == 1
    said = capsys.readouterr().err
    assert library.replace("_", "-") in said
    assert "pip install 'xrdpipe[cluster]'" in said
    assert not Path("patterns.h5.part").exists()


@pytest.mark.parametrize(("size", "threads", "longest"), [(330, 2, 64), (10_000, 4, 256)])
def test_ranges_keep_to_blocks(size, threads, longest):
    waiting = np.setdiff1d(np.arange(size), [3, 100, 101])
    ranges = [one.rows for one in cut(waiting, threads)]
    assert np.array_equal(np.concatenate(ranges), waiting)
    assert max(rows[-1] - rows[0] + 1 for rows in ranges) == longest
    assert all(len({row // longest for row in rows}) == 1 for rows in ranges)


@pytest.mark.parametrize("word", ["a b", "x\ny", "$(id)", "`id`", "a;b"])
def test_what_a_pipeline_asks_for_cannot_become_a_command(work, word):
    Path("pipeline.toml").write_text(f"[cluster]\nqueue = {json.dumps(word)}\n" + PIPELINE)
    with pytest.raises(OptionError, match="characters other than letters"):
        read_pipeline("pipeline.toml")


def test_options_of_jobs_come_from_the_pipeline(work):
    Path("pipeline.toml").write_text('[cluster]\nqueue = "short"\ncores = 4\n' + PIPELINE)
    pipeline = read_pipeline("pipeline.toml", ("cluster.jobs=3",))
    options = pipeline.cluster
    assert (options.queue, options.cores, options.jobs) == ("short", 4, 3)
    assert [step.name for step in pipeline.steps()] == ["integrate", "resample"]
    with pytest.raises(OptionError, match="unknown option 'prologue'"):
        read_pipeline("pipeline.toml", ("cluster.prologue=rm",))


class Notes:
    """What a run says, and something to do at its first block."""

    def __init__(self, at_start=lambda: None, at_first_block=lambda: None):
        self.said = []
        self._at_start, self._at_first_block = at_start, at_first_block

    @property
    def progress(self):
        return Progress(advance=self.advance, note=self.note)

    def note(self, text):
        self.said.append(text)
        if text.startswith("Dask: ") and "worker processes" in text:
            self._at_start()

    def advance(self, n, lost=0):
        self._at_first_block()
        self._at_first_block = lambda: None

    def tells(self, part):
        return any(part in text for text in self.said)


@pytest.fixture(scope="module")
def dask_cluster():
    """A Dask cluster of two processes with one thread each."""
    distributed = pytest.importorskip("distributed", reason="needs xrdpipe[cluster]")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
    ) as running:
        yield running


@pytest.fixture
def two_workers(dask_cluster, monkeypatch):
    """It, both workers alive (again), and looked after more often."""
    dask_cluster.wait_for_workers(2, timeout=30)
    monkeypatch.setattr(cluster, "TICK", 0.05)
    return dask_cluster


def pids(running):
    return [nanny.pid for nanny in running.workers.values()]


@pytest.mark.parametrize("number", [1, 2])
def test_any_number_of_workers_gives_the_same_file(work, alone, number):
    pytest.importorskip("distributed", reason="needs xrdpipe[cluster]")
    assert exit_code("run", "pipeline.toml", "--scheduler", f"local:{number}") == 0
    assert differences("patterns.h5", alone) == []
    assert differences("grid.h5", alone.with_name("alone_grid.h5")) == []


def test_the_ranges_of_a_worker_that_dies_are_done_again(work, alone, two_workers):
    victim = pids(two_workers)[0]
    # Stopped first, so that it surely has ranges that are not done when it is killed.
    notes = Notes(lambda: os.kill(victim, signal.SIGSTOP), lambda: os.kill(victim, signal.SIGKILL))
    with ClusterExecution(two_workers.scheduler_address) as on:
        integrate.run(config(), notes.progress, on.execution)
    assert notes.tells("is gone; what it had not handed over is done again")
    assert differences("patterns.h5", alone) == []


def test_a_straggler_is_helped(work, alone, two_workers, monkeypatch):
    monkeypatch.setattr(cluster, "STRAGGLING_SECONDS", 0.5)
    slow = pids(two_workers)[0]
    notes = Notes(lambda: os.kill(slow, signal.SIGSTOP))
    try:
        with ClusterExecution(two_workers.scheduler_address) as on:
            integrate.run(config(), notes.progress, on.execution)
    finally:
        os.kill(slow, signal.SIGCONT)
    assert notes.tells("another worker does them, too")
    assert differences("patterns.h5", alone) == []


def test_frames_that_kill_workers_are_named_and_the_rest_is_kept(work, alone, two_workers):
    victim = pids(two_workers)[0]
    allowed, two_workers.scheduler.allowed_failures = two_workers.scheduler.allowed_failures, 0
    notes = Notes(lambda: os.kill(victim, signal.SIGSTOP), lambda: os.kill(victim, signal.SIGKILL))
    try:
        with (
            ClusterExecution(two_workers.scheduler_address) as on,
            pytest.raises(EnvironmentProblemError, match=r"frames \d+ to \d+ of .*frames.h5") as no,
        ):
            integrate.run(config(), notes.progress, on.execution)
    finally:
        two_workers.scheduler.allowed_failures = allowed
    assert "1 workers died" in str(no.value)
    assert "run the same command to continue" in str(no.value)
    resumed = Notes()
    integrate.run(config(), resumed.progress)
    assert resumed.tells("frames were already integrated")
    assert differences("patterns.h5", alone) == []


def test_asked_to_stop_it_keeps_what_is_under_way(work, alone, two_workers):
    notes = Notes(at_first_block=lambda: os.kill(os.getpid(), signal.SIGTERM))
    with (
        ClusterExecution(two_workers.scheduler_address) as on,
        pytest.raises(InterruptedRunError, match="stopped by SIGTERM"),
    ):
        integrate.run(config(), notes.progress, on.execution)
    resumed = Notes()
    integrate.run(config(), resumed.progress)
    # The first block, and what the two workers had: at most AHEAD ranges each.
    kept = [int(text.split()[1]) for text in resumed.said if "were already integrated" in text]
    assert BLOCK_ROWS < kept[0] <= (1 + 2 * cluster.AHEAD) * BLOCK_ROWS
    assert differences("patterns.h5", alone) == []


def test_workers_that_see_other_files_are_refused(work, two_workers):
    Path("frames.h5").unlink()  # a link to what other tests use
    with h5py.File("frames.h5", "w") as file:
        file["stack"] = np.ones((N_FRAMES, 150, 170), np.uint16)
    notes = Notes(lambda: os.utime("frames.h5", ns=(1, 1)))
    with (
        ClusterExecution(two_workers.scheduler_address) as on,
        pytest.raises(EnvironmentProblemError, match=r"it would compute something else") as no,
    ):
        integrate.run(config(), notes.progress, on.execution)
    assert "frames[0][4] is 1 there" in str(no.value)


class Task:
    """A future of Dask that ends when it is told to."""

    def __init__(self, key, answer):
        self.key, self.answer, self._tell = key, answer, None
        self.over, self.before = False, ()

    def add_done_callback(self, tell):
        self._tell = tell
        if self.over:
            tell(self)
        for later in self.before:
            later.end()

    def end(self):
        self.over = True
        if self._tell is not None:
            self._tell(self)

    def result(self, timeout=None):
        assert timeout is not None, "it may never come"
        return self.answer()

    def done(self):
        return self.over

    def release(self):
        pass

    cancel = release


class TwoWorkers:
    """A client whose tasks are done at once, in this process, but for some of them.

    Parameters
    ----------
    odd
        Number of a task → what it answers instead; None: it hangs until a later one has ended.
    """

    status = "running"

    def __init__(self, odd):
        self.odd, self.tasks = odd, []

    def nthreads(self):
        return {"tcp://a": 1, "tcp://b": 1}

    def processing(self):
        return {"tcp://a": [task.key for task in self.tasks if not task.over], "tcp://b": []}

    def submit(self, function, request, rows, *, key, pure, workers):
        number = len(self.tasks)
        self.tasks.append(Task(key, lambda: function(request, rows)))
        if number in self.odd:
            if self.odd[number] is None:
                return self.tasks[-1]
            self.tasks[-1].answer = self.odd[number]
        self.tasks[-1].end()
        if workers is not None:  # a twin: the one it helps ends after it
            self.tasks[-1].before = [task for task in self.tasks if not task.over]
        return self.tasks[-1]


def fails():
    raise RuntimeError("the disk of this worker is broken")


def is_late():
    raise TimeoutError


def through(client, notes, monkeypatch):
    """Rows that come through a conversation with a cluster."""
    pytest.importorskip("distributed", reason="needs xrdpipe[cluster]")
    monkeypatch.setattr(cluster, "TICK", 0.01)
    monkeypatch.setattr(cluster, "STRAGGLING_SECONDS", 0.0)
    monkeypatch.setattr(cluster, "STRAGGLING", 0.0)
    job = integrate.prepare(config(), Progress())
    talk = cluster._Conversation(client, "tcp://x:1", job, notes.progress)
    blocks = talk.blocks(np.arange(N_FRAMES))
    return sorted(
        row for first, rows in blocks for row in range(first, first + len(rows["status"]))
    )


@pytest.mark.parametrize("answer", [fails, lambda: Refusal("b", "another version")])
def test_a_twin_that_fails_does_not_end_the_run(work, monkeypatch, answer):
    last = len(list(cut(np.arange(N_FRAMES), 2)))  # the number of the twin
    notes = Notes()
    rows = through(TwoWorkers({0: None, last: answer}), notes, monkeypatch)
    assert rows == list(range(N_FRAMES))
    assert notes.tells("Another task does the same frames")


def test_a_range_of_which_every_copy_fails_ends_the_run(work, monkeypatch):
    with pytest.raises(EnvironmentProblemError, match="disk of this worker is broken"):
        through(TwoWorkers({1: fails}), Notes(), monkeypatch)


def test_rows_that_do_not_arrive_are_done_again_three_times(work, monkeypatch):
    notes = Notes()
    rows = through(TwoWorkers({0: is_late}), notes, monkeypatch)
    assert rows == list(range(N_FRAMES))
    assert notes.tells("does not hand them over")
    client = TwoWorkers(dict.fromkeys(range(20), is_late))
    with pytest.raises(EnvironmentProblemError, match="does not hand them over within 60 s"):
        through(client, Notes(), monkeypatch)


@pytest.mark.skipif(compiled.library() is None, reason="the compiled kernel is not built")
def test_shards_with_and_without_the_kernel_do_not_mix(work, monkeypatch, capsys):
    assert exit_code("run", "pipeline.toml", "--shard", "1/2") == 0
    monkeypatch.setenv("XRDPIPE_KERNEL", "off")
    assert exit_code("run", "pipeline.toml", "--shard", "2/2") == 2
    assert "sums is 'compiled kernel' there, \"pyFAI's matrix" in capsys.readouterr().err


@pytest.mark.skipif(compiled.library() is None, reason="the compiled kernel is not built")
def test_workers_without_the_kernel_are_refused(work):
    distributed = pytest.importorskip("distributed", reason="needs xrdpipe[cluster]")
    without = {"n_workers": 1, "threads_per_worker": 1, "env": {"XRDPIPE_KERNEL": "off"}}
    with (
        distributed.LocalCluster(
            **without, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as running,
        ClusterExecution(running.scheduler_address) as on,
        pytest.raises(
            EnvironmentProblemError, match=r"there: frame by frame .*here: compiled kernel"
        ),
    ):
        integrate.run(config(), None, on.execution)


def test_a_lost_scheduler_costs_nothing_that_is_done(work, alone, tmp_path_factory):
    pytest.importorskip("distributed", reason="needs xrdpipe[cluster]")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    contact = elsewhere / "scheduler.json"
    run = [sys.executable, "-m"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": elsewhere}
    options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    scheduler = subprocess.Popen(
        [*run, "distributed.cli.dask_scheduler", *options, "--scheduler-file", contact], **quiet
    )
    one_thread = ["--nthreads", "1", "--no-nanny", "--no-dashboard"]
    worker = subprocess.Popen(
        [*run, "distributed.cli.dask_worker", "--scheduler-file", contact, *one_thread], **quiet
    )
    try:
        while not contact.exists():
            time.sleep(0.05)
        address = json.loads(contact.read_text())["address"]
        notes = Notes(at_first_block=scheduler.kill)
        with (
            ClusterExecution(address) as on,
            pytest.raises(EnvironmentProblemError, match=r"scheduler .* was lost"),
        ):
            integrate.run(config(), notes.progress, on.execution)
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()
    resumed = Notes()
    integrate.run(config(), resumed.progress)
    assert resumed.tells("frames were already integrated")
    assert differences("patterns.h5", alone) == []


def test_a_scheduler_that_does_not_answer(work, monkeypatch):
    dask = pytest.importorskip("dask", reason="needs xrdpipe[cluster]")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        ClusterExecution("tcp://127.0.0.1:9") as on,
        pytest.raises(EnvironmentProblemError, match="no Dask cluster for --scheduler tcp"),
    ):
        integrate.run(config(), None, on.execution)
