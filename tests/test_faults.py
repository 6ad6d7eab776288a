"""Every fault costs what it must and no more, says so, and loses no finished frame.

The table of docs/faults.md names these tests.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest

import xrdpipe
from h5compare import differences
from known_frames import rings, write_image, write_poni
from xrdpipe.errors import EnvironmentProblemError, InputError
from xrdpipe.frames import images
from xrdpipe.integration.batch import BatchReducer
from xrdpipe.schema import FrameFlag, FrameStatus
from xrdpipe.stages import outcomes, patience, reduction
from xrdpipe.stages.stopping import stopping
from xrdpipe.store import writing
from xrdpipe.store.parts import Column, PartFolder, first_difference, writers
from xrdpipe.store.writing import whole_hdf5

DRIVER = Path(__file__).with_name("killed.py")
NOBODY = 65534


@pytest.fixture
def settings(scan, poni):
    """Options of a run of six frames."""
    return {"frames": [scan], "poni": poni, "bins": 150, "threads": 2}


@pytest.fixture
def whole(tmp_path, settings):
    """What comes out where nothing is wrong."""
    xrdpipe.integrate(**settings, output=tmp_path / "whole.h5")
    return tmp_path / "whole.h5"


def frames_of(path: Path) -> dict[str, list]:
    with h5py.File(path) as file:
        group = file["entry/frames"]
        return {
            "status": group["status"][()].tolist(),
            "flags": group["flags"][()].tolist(),
            "reason": [text.decode() for text in group["reason"][()]],
        }


def same_but(whole: Path, damaged: Path, rows: set[int]) -> bool:
    """Every other row has the same intensities, bit by bit; these have none."""
    with h5py.File(whole) as a, h5py.File(damaged) as b:
        first, second = a["entry/data/I"][()], b["entry/data/I"][()]
    kept = [row for row in range(len(first)) if row not in rows]
    assert np.isnan(second[sorted(rows)]).all()
    return first[kept].tobytes() == second[kept].tobytes()


@contextmanager
def as_nobody():
    """Without root's right to read and write everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder():
    """A folder that other users reach, which pytest's are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


# --- frames ----------------------------------------------------------------------------------


def test_truncated_corrupt_empty_and_dangling_frames_cost_their_pixels(
    tmp_path, scan, settings, whole
):
    content = (scan / "frame_0002.tif").read_bytes()
    (scan / "frame_0002.tif").write_bytes(content[: len(content) // 2])
    (scan / "frame_0003.tif").write_bytes(b"II*\0" + b"\xff" * 200)
    (scan / "frame_0004.tif").write_bytes(b"")
    (scan / "frame_0005.tif").unlink()
    (scan / "frame_0005.tif").symlink_to(scan / "nowhere.tif")
    outcome = xrdpipe.integrate(**settings, output=tmp_path / "p.h5")
    told = frames_of(tmp_path / "p.h5")
    assert outcome.lost == 4
    assert told["status"][1:5] == [
        FrameStatus.CORRUPT,
        FrameStatus.CORRUPT,
        FrameStatus.CORRUPT,
        FrameStatus.MISSING,
    ]
    for row, number in enumerate(range(2, 6), 1):
        assert f"frame_{number:04d}.tif" in told["reason"][row]
        assert f"frame_{number:04d}.tif" in outcome.summary
    assert same_but(whole, tmp_path / "p.h5", {1, 2, 3, 4})


def test_a_frame_that_may_not_be_read_costs_its_pixel(open_folder, geometry):
    folder = open_folder / "scan"
    folder.mkdir(mode=0o777)
    for number in range(4):
        image = np.random.default_rng(number).poisson(rings(geometry.two_theta))
        write_image(folder / f"f_{number}.tif", image.astype(np.int32))
    write_poni(open_folder / "g.poni", rotations=(0.02, -0.01))
    for path in (folder, *folder.iterdir(), open_folder / "g.poni"):
        path.chmod(0o777)
    (folder / "f_2.tif").chmod(0)
    with as_nobody():
        outcome = xrdpipe.integrate(
            frames=[folder], poni=open_folder / "g.poni", output=open_folder / "p.h5", cache=False
        )
    told = frames_of(open_folder / "p.h5")
    assert told["status"] == [1, 1, FrameStatus.UNREADABLE, 1]
    assert "f_2.tif" in told["reason"][2]
    assert "Permission denied" in told["reason"][2]
    assert outcome.lost == 1


def test_a_frame_that_vanishes_during_the_run_costs_its_pixel(
    tmp_path, monkeypatch, scan, settings, whole
):
    fetch = reduction.fetch

    def after_removal(job, rows):
        (scan / "frame_0006.tif").unlink(missing_ok=True)
        return fetch(job, rows)

    monkeypatch.setattr(reduction, "fetch", after_removal)
    outcome = xrdpipe.integrate(**settings, output=tmp_path / "p.h5")
    told = frames_of(tmp_path / "p.h5")
    assert outcome.lost == 1
    assert told["status"][5] == FrameStatus.MISSING
    assert "frame_0006.tif" in told["reason"][5]
    assert same_but(whole, tmp_path / "p.h5", {5})


def test_a_copy_of_a_frame_is_a_duplicate_and_shifts_nothing(tmp_path, scan, settings, whole):
    shutil.copy(scan / "frame_0003.tif", scan / "frame_0003 (1).tif")
    outcome = xrdpipe.integrate(**settings, output=tmp_path / "p.h5")
    told = frames_of(tmp_path / "p.h5")
    assert told["status"] == [1, 1, 1, FrameStatus.DUPLICATE, 1, 1, 1]
    assert outcome.lost == 1
    assert "frame_0003.tif" in told["reason"][3]


def test_a_late_frame_makes_another_run_and_is_not_lost_silently(
    tmp_path, monkeypatch, scan, settings
):
    append = PartFolder.append

    def with_late_frame(self, first, rows):
        shutil.copy(scan / "frame_0001.tif", scan / "frame_0007.tif")
        os.utime(scan / "frame_0007.tif")
        append(self, first, rows)

    with monkeypatch.context() as patched:
        patched.setattr(PartFolder, "append", with_late_frame)
        xrdpipe.integrate(**settings, output=tmp_path / "p.h5")
    assert len(frames_of(tmp_path / "p.h5")["status"]) == 6
    with pytest.raises(FileExistsError, match="frames has 6 entries there, 7 here"):
        xrdpipe.integrate(**settings, output=tmp_path / "p.h5")


# --- file servers ----------------------------------------------------------------------------


@pytest.fixture
def hiccups(monkeypatch):
    """Reading fails with some errno the first n times; returns the number of calls."""
    monkeypatch.setattr(patience, "PAUSES", (0.0, 0.0, 0.0))
    calls: dict[int, int] = {}

    def install(number: int, times: int):
        fetch = images.ImageSeries.fetch

        def fails_first(self, row):
            calls[row] = calls.get(row, 0) + 1
            if row == 2 and calls[row] <= times:
                raise OSError(number, os.strerror(number), self.records[row].file)
            return fetch(self, row)

        monkeypatch.setattr(images.ImageSeries, "fetch", fails_first)
        return calls

    return install


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_a_hiccup_of_the_file_server_costs_nothing_and_is_flagged(
    tmp_path, settings, whole, hiccups, number
):
    calls = hiccups(number, 3)
    outcome = xrdpipe.integrate(**settings, output=tmp_path / "p.h5")
    assert calls[2] == 4
    assert outcome.lost == 0
    told = frames_of(tmp_path / "p.h5")
    assert [bool(flags & FrameFlag.RETRIED) for flags in told["flags"]] == [
        row == 2 for row in range(6)
    ]
    assert same_but(whole, tmp_path / "p.h5", set())


def test_a_lasting_failure_is_given_up_and_says_how_often_was_tried(
    tmp_path, settings, whole, hiccups
):
    calls = hiccups(errno.EIO, 99)
    xrdpipe.integrate(**settings, output=tmp_path / "p.h5")
    told = frames_of(tmp_path / "p.h5")
    assert calls[2] == 4
    assert told["status"][2] == FrameStatus.UNREADABLE
    assert "tried 4 times" in told["reason"][2]
    assert same_but(whole, tmp_path / "p.h5", {2})


def test_an_outage_stops_the_run_instead_of_losing_the_scan(tmp_path, monkeypatch, settings, whole):
    monkeypatch.setattr(patience, "PAUSES", (0.0,))
    monkeypatch.setattr(patience, "OUTAGE", 3)

    fetch = images.ImageSeries.fetch

    def refuses(self, row):
        if row == 0:
            return fetch(self, row)
        raise OSError(errno.EIO, os.strerror(errno.EIO), self.records[row].file)

    with monkeypatch.context() as patched:
        patched.setattr(images.ImageSeries, "fetch", refuses)
        with pytest.raises(EnvironmentProblemError, match=r"3 frames one after the other"):
            xrdpipe.integrate(**settings, output=tmp_path / "p.h5")
    xrdpipe.integrate(**settings, output=tmp_path / "p.h5")
    assert differences(whole, tmp_path / "p.h5") == []


def test_what_cannot_pass_is_not_tried_again(tmp_path, settings, hiccups):
    calls = hiccups(errno.EACCES, 99)
    xrdpipe.integrate(**settings, output=tmp_path / "p.h5")
    assert calls[2] == 1


def test_the_pauses_grow():
    assert list(patience.PAUSES) == sorted(patience.PAUSES)
    assert 1 < sum(patience.PAUSES) < 10


def test_hdf5_errors_are_known_by_their_text():
    text = "Can't read data (file read failed: errno = {}, error message = 'Input/output error')"
    assert patience.is_transient(OSError(text.format(errno.EIO)))
    assert not patience.is_transient(OSError(text.format(errno.ENOSPC)))


# --- the output ------------------------------------------------------------------------------


def run_driver(point: str, settings: dict, output: Path) -> subprocess.CompletedProcess:
    """Integrate in a process that something happens to at ``point`` (see killed.py)."""
    plain = {k: [str(p) for p in v] if isinstance(v, list) else v for k, v in settings.items()}
    request = json.dumps({**plain, "poni": str(plain["poni"]), "output": str(output)})
    return subprocess.run(
        [sys.executable, DRIVER, point, request],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_a_full_disk_keeps_what_was_finished(tmp_path, settings, whole, blocks):
    """After one block, after two, and only for the final file."""
    done = run_driver(f"full-{blocks}", {**settings, "bins": 1500}, tmp_path / "p.h5")
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("xrdpipe: ")
    assert last.endswith(
        "free space or permissions, then run the same command"
        + (" to continue." if blocks < 3 else ".")
    )
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.glob("p.h5*")] == ["p.h5.part"]
    outcome = xrdpipe.integrate(**{**settings, "bins": 1500}, output=tmp_path / "p.h5")
    assert outcome.lost == 0
    xrdpipe.integrate(**{**settings, "bins": 1500}, output=tmp_path / "whole1500.h5")
    assert differences(tmp_path / "whole1500.h5", tmp_path / "p.h5") == []


def test_a_folder_that_may_not_be_written_is_said_before_any_work(open_folder, settings):
    closed = open_folder / "closed"
    closed.mkdir(mode=0o755)
    for path in (Path(settings["poni"]).parent, *Path(settings["poni"]).parent.parents[:3]):
        path.chmod(path.stat().st_mode | 0o055)
    with (
        as_nobody() if not os.geteuid() else read_only(closed),
        pytest.raises(
            EnvironmentProblemError, match=r"cannot write to .*closed.*Permission denied"
        ),
    ):
        xrdpipe.integrate(**settings, output=closed / "p.h5", cache=False)
    assert list(closed.iterdir()) == []


@contextmanager
def read_only(folder: Path):
    folder.chmod(0o555)
    yield
    folder.chmod(0o755)


def test_the_lock_of_a_dead_process_is_no_lock(tmp_path, settings, whole):
    folder = tmp_path / "p.h5.part"
    folder.mkdir()
    (folder / "lock").write_text(json.dumps({"host": "elsewhere", "pid": 1, "since": 0.0}))
    xrdpipe.integrate(**settings, output=tmp_path / "p.h5")
    assert differences(whole, tmp_path / "p.h5") == []


def test_two_runs_on_one_output_do_not_mix(tmp_path, settings):
    with PartFolder(tmp_path / "p.h5", {}) as first:
        first.begin({"a": 1}, restart=False)
        (holder,) = writers(tmp_path / "p.h5.part")
        assert (holder["host"], holder["pid"]) == (socket.gethostname(), os.getpid())
        with pytest.raises(EnvironmentProblemError, match=f"process {os.getpid()} on .* is writ"):
            xrdpipe.integrate(**settings, output=tmp_path / "p.h5", restart=True)
        assert json.loads((tmp_path / "p.h5.part" / "run.json").read_text()) == {"a": 1}
    assert writers(tmp_path / "p.h5.part") == []
    xrdpipe.integrate(**settings, output=tmp_path / "p.h5", restart=True)


def test_two_processes_do_not_write_one_file(tmp_path):
    with whole_hdf5(tmp_path / "m.h5") as file:
        file["a"] = 1
        with (
            pytest.raises(EnvironmentProblemError, match="another process is writing"),
            whole_hdf5(tmp_path / "m.h5"),
        ):
            pass
    with h5py.File(tmp_path / "m.h5") as file:
        assert file["a"][()] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["m.h5"]


def test_a_file_can_be_opened_from_the_moment_it_has_its_name(tmp_path, monkeypatch):
    """Readers lock it, too: as long as its writer does they were refused."""
    path, opened = tmp_path / "a.h5", []

    def look(_):
        with h5py.File(path, "r", locking=True) as file:
            opened.append(file["x"][()])

    monkeypatch.setattr(writing, "sync_folder", look)
    with whole_hdf5(path) as file:
        file["x"] = 5
    assert opened == [5]


@pytest.mark.parametrize("at", [4, 40])  # of its header, of its content
def test_a_block_that_changed_on_disk_is_done_again(tmp_path, at):
    columns = {"x": Column("<i4")}
    with PartFolder(tmp_path / "o.h5", columns) as parts:
        parts.begin({"a": 1}, restart=False)
        for first in (0, 2, 4):
            parts.append(first, {"x": np.array([first, first + 1], "<i4")})
    file = tmp_path / "o.h5.part" / "rows.bin"
    content = bytearray(file.read_bytes())
    content[len(content) // 3 + at] ^= 1  # in the second of three
    file.write_bytes(content)
    with PartFolder(tmp_path / "o.h5", columns) as parts:
        assert parts.begin({"a": 1}, restart=False).tolist() == [0, 1, 4, 5]


def test_a_key_inside_a_key_is_compared_and_told_briefly():
    old, new = (json.dumps({"frames": [["f.tif", n] * 100]}) for n in (1, 2))
    assert first_difference({"p": old}, {"p": new}) == "p.frames[0][1] is 1 there, 2 here"
    assert len(first_difference({"p": "x" * 999}, {"p": "y" * 999})) < 200


def test_a_damaged_key_is_said(tmp_path, settings):
    folder = tmp_path / "p.h5.part"
    folder.mkdir()
    (folder / "run.json").write_text('{"stage": "integ')
    with pytest.raises(FileExistsError, match=r"run.json is damaged .*--restart"):
        xrdpipe.integrate(**settings, output=tmp_path / "p.h5")


# --- HDF5 files in use -----------------------------------------------------------------------

WRITER = """
import sys, time, h5py, numpy as np
path, swmr = sys.argv[1], sys.argv[2] == "swmr"
file = h5py.File(path, "w", libver="latest")
data = file.create_dataset("entry/data/data", shape=(6, 40, 50), maxshape=(None, 40, 50),
                           chunks=(1, 40, 50), dtype="i4")
file["entry"].attrs["NX_class"] = "NXentry"
file["entry/data"].attrs["NX_class"] = "NXdata"
if swmr:
    file.swmr_mode = True
for row in range(4):
    data[row] = np.random.default_rng(row).poisson(5, (40, 50))
file.flush()
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("kind", ["swmr", "locked"])
def test_a_file_that_is_being_written_gives_what_is_in_it(tmp_path, kind):
    """Four of six frames are written; the writer holds the file, and its lock."""
    write_poni(tmp_path / "g.poni", shape=(40, 50))
    command = [sys.executable, "-c", WRITER, tmp_path / "scan.h5", kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        writer.stdout.readline()
        settings = {"frames": [tmp_path / "scan.h5"], "poni": tmp_path / "g.poni", "bins": 20}
        try:
            if kind == "swmr":
                outcome = xrdpipe.integrate(**settings, output=tmp_path / "p.h5")
                assert frames_of(tmp_path / "p.h5")["status"] == [1, 1, 1, 1, 2, 2]
                assert outcome.lost == 2
            else:
                with pytest.raises(InputError, match="still being written"):
                    xrdpipe.integrate(**settings, output=tmp_path / "p.h5")
        finally:
            writer.kill()


# --- memory and mistakes ---------------------------------------------------------------------


def test_too_little_memory_makes_smaller_batches(tmp_path, monkeypatch, settings, whole):
    together = BatchReducer.reduce
    sizes = []

    def small_machine(self, frames, scales):
        sizes.append(len(frames))
        if len(frames) > 1:
            raise MemoryError
        return together(self, frames, scales)

    monkeypatch.setattr(BatchReducer, "reduce", small_machine)
    outcome = xrdpipe.integrate(**settings, output=tmp_path / "p.h5")
    assert outcome.lost == 0
    assert max(sizes) > 1
    assert differences(whole, tmp_path / "p.h5") == []


def test_no_memory_for_one_frame_stops_the_run_resumably(tmp_path, monkeypatch, settings, whole):
    def tiny_machine(self, frames, scales):
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(BatchReducer, "reduce", tiny_machine)
        with pytest.raises(EnvironmentProblemError, match=r"out of memory .* fewer --threads"):
            xrdpipe.integrate(**settings, output=tmp_path / "p.h5")
    xrdpipe.integrate(**settings, output=tmp_path / "p.h5")
    assert differences(whole, tmp_path / "p.h5") == []


def test_a_mistake_in_a_worker_costs_the_frame_that_provoked_it(
    tmp_path, monkeypatch, settings, whole
):
    def breaks(self, frames, scales):
        raise ZeroDivisionError("unforeseen")

    alone = outcomes.one_frame

    def breaks_again(job, row, *rest):
        if row == 3:
            raise ZeroDivisionError("unforeseen")
        return alone(job, row, *rest)

    monkeypatch.setattr(BatchReducer, "reduce", breaks)
    monkeypatch.setattr(outcomes, "one_frame", breaks_again)
    outcome = xrdpipe.integrate(**settings, output=tmp_path / "p.h5")
    told = frames_of(tmp_path / "p.h5")
    assert told["status"] == [1, 1, 1, FrameStatus.CORRUPT, 1, 1]
    assert "frame_0004.tif" in told["reason"][3]
    assert "ZeroDivisionError: unforeseen" in told["reason"][3]
    assert outcome.lost == 1


# --- being stopped ---------------------------------------------------------------------------

POINTS = ("prepared", "begun", "block", "torn", "final", "renamed")


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_and_continued(tmp_path, settings, whole, point):
    done = run_driver(f"kill-{point}", settings, tmp_path / "p.h5")
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "p.h5").exists() == (point == "renamed")
    xrdpipe.integrate(**settings, output=tmp_path / "p.h5")
    assert differences(whole, tmp_path / "p.h5") == []
    assert not (tmp_path / "p.h5.part").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_asked_to_stop_finishes_what_is_under_way(tmp_path, settings, whole, number, code):
    done = run_driver(f"signal-{int(number)}", {**settings, "threads": 1}, tmp_path / "p.h5")
    assert done.returncode == code, done.stderr
    assert "run the same command to continue" in done.stderr
    assert not (tmp_path / "p.h5").exists()
    notes = []
    progress = xrdpipe.types.Progress(note=notes.append)
    from xrdpipe.config import IntegrateConfig
    from xrdpipe.stages import integrate

    integrate.run(IntegrateConfig(**settings, output=tmp_path / "p.h5"), progress)
    (continuing,) = [note for note in notes if note.startswith("continuing")]
    assert 0 < int(continuing.split()[1]) < 6  # some were kept, not all were done
    assert differences(whole, tmp_path / "p.h5") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_request_stops_at_once_as_usual(number):
    class UsualError(Exception):
        pass

    def usual(*_):
        raise UsualError

    before = signal.signal(number, usual)
    try:
        with stopping() as stop:
            signal.raise_signal(number)
            assert stop()
            with pytest.raises(UsualError):
                signal.raise_signal(number)
        assert signal.getsignal(number) is usual
    finally:
        signal.signal(number, before)


def test_signals_in_other_threads_stay_what_they_were(tmp_path, settings):
    before = signal.getsignal(signal.SIGTERM)
    failures = []

    def work():
        try:
            xrdpipe.integrate(**settings, output=tmp_path / "p.h5")
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failures == []
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_time_of_each_kind_of_work_is_told(tmp_path, settings):
    from xrdpipe.config import IntegrateConfig
    from xrdpipe.stages import integrate

    events = []
    progress = xrdpipe.types.Progress(event=lambda kind, content: events.append((kind, content)))
    begun = time.perf_counter()
    integrate.run(IntegrateConfig(**settings, output=tmp_path / "p.h5"), progress)
    spent = time.perf_counter() - begun
    ((kind, content),) = events
    assert kind == "times"
    assert set(content["seconds"]) == {"read", "integrate", "checkpoint", "write"}
    assert all(0 < seconds < 2 * spent for seconds in content["seconds"].values())
