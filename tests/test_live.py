"""A scan that is followed while it is measured ends in the files of a run on the finished scan."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from h5compare import differences
from known_frames import rings, write_image
from xrdpipe.cli import main
from xrdpipe.config import IntegrateConfig, ScanOptions
from xrdpipe.errors import InputError, InputMissingError, OptionError, OutputExistsError
from xrdpipe.frames import open_frames
from xrdpipe.pipeline import follow_steps, load_pipeline, run_steps
from xrdpipe.schema import FrameStatus
from xrdpipe.stages.integrate import prepare
from xrdpipe.stages.live import arrivals as arrivals_module
from xrdpipe.stages.live import trials
from xrdpipe.stages.live.arrivals import Arrival, FileWatch, ReopenWatch
from xrdpipe.stages.live.ends import Ends
from xrdpipe.stages.live.kept import KeptRows
from xrdpipe.stages.live.placing import Placing
from xrdpipe.stages.reduction import reduced_blocks
from xrdpipe.store.live_view import LiveView
from xrdpipe.types import Progress

NY, NX = 3, 4
FRAMES = NY * NX


@pytest.fixture(scope="module")
def images(geometry):
    """One frame per point, numbered from 1; each of its own height."""
    return {
        number: np.random.default_rng(number)
        .poisson(rings(geometry.two_theta, height=20.0 * number))
        .astype(np.int32)
        for number in range(1, FRAMES + 1)
    }


@pytest.fixture
def incoming(tmp_path):
    folder = tmp_path / "incoming"
    folder.mkdir()
    return folder


def pipeline(tmp_path, poni, frames, output="result", extra=""):
    """Steps of a pipeline that integrates frames and maps them."""
    path = tmp_path / "pipeline.toml"
    path.write_text(
        f"""
[pipeline]
output = "{tmp_path / output}"
[integrate]
frames = ["{frames}"]
poni = "{poni}"
threads = 1
output = "{{output}}/patterns.h5"
[map]
patterns = ["{{output}}/patterns.h5"]
scan_shape = "{NY}x{NX}"
png = false
output = "{{output}}/map.h5"
{extra}
"""
    )
    return path


def name(number):
    return f"frame_{number:04d}.tif"


def put(folder, number, image):
    """Write a frame as careful writers do: under another name, then renamed."""
    temporary = write_image(folder / f".{number}.tif", image)
    temporary.rename(folder / name(number))


class Notes:
    """What a run says."""

    def __init__(self):
        self.texts = []

    @property
    def progress(self):
        return Progress(note=self.texts.append)

    def __contains__(self, text):
        return any(text in note for note in self.texts)


class Writer(threading.Thread):
    """Runs a function beside the run that is followed; its mistakes fail the test."""

    def __init__(self, work):
        super().__init__()
        self._work = work
        self.error = None

    def run(self):
        try:
            self._work()
        except BaseException as error:
            self.error = error

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.join()
        if self.error is not None:
            raise self.error


def follow(path, ends, notes=None):
    return follow_steps(load_pipeline(str(path)), (notes or Notes()).progress, ends)


def same_as_batch(tmp_path):
    """Run the pipeline again on the complete scan: the files must be the same."""
    (tmp_path / "result").rename(tmp_path / "followed")
    run_steps(load_pipeline(str(tmp_path / "pipeline.toml")), Progress())
    files = sorted(file.name for file in (tmp_path / "result").glob("*.h5"))
    assert {"patterns.h5", "map.h5"} <= set(files)
    for file in files:
        assert differences(tmp_path / "followed" / file, tmp_path / "result" / file) == []


def until(condition, seconds=20.0):
    """Wait for something that must happen."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def status_of(path):
    """Status of the pixels in a map or a live view, as another process reads it."""
    with h5py.File(path, "r", swmr=path.stem.endswith("_live")) as file:
        return file["entry/phase_map/status"][()].ravel()


class Reader(threading.Thread):
    """Opens the live view and the map all the time; pixels only ever go from pending to done."""

    def __init__(self, *paths):
        super().__init__(daemon=True)
        self._paths, self._ended = paths, threading.Event()
        self.last = {path: np.zeros(FRAMES, np.uint8) for path in paths}
        self.opened, self.errors = 0, []

    def run(self):
        while not self._ended.wait(0.02):
            for path in self._paths:
                if path.exists():
                    try:
                        status = status_of(path)
                    except Exception as error:
                        self.errors.append(error)
                        continue
                    self.opened += 1
                    if ((self.last[path] != 0) & (status == 0)).any():
                        self.errors.append(f"{path.name}: {self.last[path]} became {status}")
                    self.last[path] = status

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self.join()


@pytest.fixture
def started(tmp_path):
    """Starts the command line in processes of their own; each writes what it says to a file."""
    running = []

    def start(path, *options):
        code = "import sys; from xrdpipe.cli import main; main(sys.argv[1:])"
        with (tmp_path / "said.txt").open("w") as said:
            running.append(
                subprocess.Popen(
                    [sys.executable, "-c", code, "run", str(path), "--follow", *options],
                    stdout=said,
                    stderr=said,
                    env=os.environ | {"OMP_NUM_THREADS": "1"},
                )
            )
        return running[-1]

    yield start
    for run in running:
        run.kill()
        run.wait()


def test_killed_stopped_and_continued(started, tmp_path, poni, incoming, images):
    """Out of order, with a late frame; readers see pixels go from pending to done, and no error."""
    path = pipeline(tmp_path, poni, incoming)
    result = tmp_path / "result"
    view, final = result / "map_live.h5", result / "map.h5"

    def come(reader, numbers):
        for number in numbers:
            put(incoming, number, images[number])
            until(lambda number=number: reader.last[view][number - 1] == FrameStatus.OK, 40)

    run = started(path)
    with Reader(view, final) as reader:
        come(reader, [2, 1, 3])
        until(lambda: reader.last[final].any())
        run.kill()
        run.wait()
    assert reader.errors == []
    assert (result / "patterns.h5.live").is_dir()
    run = started(path)
    with Reader(final) as reader:
        put(incoming, 6, images[6])
        until(lambda: reader.last[final][5] == FrameStatus.OK, 40)
        run.send_signal(signal.SIGTERM)
        assert run.wait() == 143
    said = (tmp_path / "said.txt").read_text()
    assert "continuing: 3 frames were already integrated" in said
    assert "the frames integrated so far are kept" in said
    assert reader.errors == []
    assert status_of(final).tolist() == [1, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    view.unlink()  # it begins anew
    run = started(path, "--expect", str(FRAMES))
    until(lambda: view.exists() and (status_of(view) == FrameStatus.OK).sum() == 4, 40)
    with Reader(view, final) as reader:
        come(reader, [5, 7, 8, 9, 10, 12, 11])
        put(incoming, 4, images[4])
        assert run.wait() == 0
    said = (tmp_path / "said.txt").read_text()
    assert f"{FRAMES} of {FRAMES} frames were integrated as they came" in said
    assert reader.errors == []
    assert reader.opened > 30
    assert not (result / "patterns.h5.live").exists()
    with h5py.File(view, "r", swmr=True) as shown, h5py.File(final) as file:
        assert shown["entry/phase_map/finished"][()] == 1
        assert shown["entry/phase_map/frame"][()].ravel().tolist() == list(range(1, FRAMES + 1))
        for image in ("presence/probability", "presence/decision", "winner/phase_id", "status",
                      "co_occurrence/combination"):  # fmt: skip
            np.testing.assert_array_equal(
                shown[f"entry/phase_map/{image}"][()], file[f"entry/phase_map/{image}"][()]
            )
    same_as_batch(tmp_path)


def test_files_that_are_written_slowly_and_one_that_never_is(tmp_path, poni, incoming, images):
    """The size grows, the content comes later, a frame is written again, one stays torn."""
    marker = tmp_path / "done"
    whole = {
        number: write_image(tmp_path / name(number), image).read_bytes()
        for number, image in images.items()
    }
    notes = Notes()

    def write():
        put(incoming, 1, images[1])
        with (incoming / name(2)).open("wb") as stream:
            for part in range(0, len(whole[2]), len(whole[2]) // 4 + 1):
                stream.write(whole[2][part : part + len(whole[2]) // 4 + 1])
                stream.flush()
                time.sleep(0.15)
        with (incoming / name(3)).open("wb") as stream:
            stream.write(whole[3][:400].ljust(len(whole[3]), b"\0"))  # space for what will come
            stream.flush()
            time.sleep(0.4)
            stream.seek(0)
            stream.write(whole[3])
        put(incoming, 4, images[5])
        (incoming / f"{name(5)}.tmp").write_bytes(whole[5])
        (incoming / ".frame_0099.tif").write_bytes(whole[5])
        (incoming / name(6)).write_bytes(whole[6][: len(whole[6]) // 2])
        (incoming / name(7)).write_bytes(b"")
        for number in range(8, FRAMES + 1):
            put(incoming, number, images[number])
        time.sleep(0.5)
        put(incoming, 4, images[4])  # again, and right
        (incoming / f"{name(5)}.tmp").rename(incoming / name(5))
        until(lambda: "lost: " + str(incoming / name(6)) in notes)
        marker.touch()

    with Writer(write):
        outcome = follow(pipeline(tmp_path, poni, incoming), Ends(timeout=20, marker=marker), notes)
    assert outcome.lost == 2
    assert f"{marker} is there, after {FRAMES} frames" in notes
    assert f"10 of {FRAMES} frames were integrated as they came" in notes
    same_as_batch(tmp_path)


def test_frames_that_are_there_already_and_a_scan_that_stops_early(
    tmp_path, poni, incoming, images
):
    """Frames 11 and 12 never come; a second map takes the same patterns."""
    for number in range(1, 11):
        put(incoming, number, images[number])
    extra = """[other]
stage = "map"
patterns = ["{output}/patterns.h5"]
prior = 0.2
scan_shape = "2x6"
snake = true
png = false
output = "{output}/other.h5"
"""
    notes = Notes()
    follow(pipeline(tmp_path, poni, incoming, extra=extra), Ends(expect=12, timeout=1.5), notes)
    assert "no new frame for 1.5 s, after 10 of 12" in notes
    same_as_batch(tmp_path)
    view = status_of(tmp_path / "followed" / "other_live.h5").reshape(2, 6)
    assert view.tolist() == [[1] * 6, [2, 2, 1, 1, 1, 1]]
    again = Notes()
    outcome = follow(pipeline(tmp_path, poni, incoming, extra=extra), Ends(timeout=1.5), again)
    assert outcome.summary.count("already done") == 3


HDF5_WRITER = """
import sys, time
import h5py, numpy as np
path, frames, way = sys.argv[1:]
frames = np.load(frames)
def create(file):
    group = file.create_group("entry/data")
    return group.create_dataset("data", shape=(0, *frames.shape[1:]), dtype=frames.dtype,
        maxshape=(None, *frames.shape[1:]), chunks=(1, *frames.shape[1:]), compression="gzip")
def add(data, number):
    data.resize(number + 1, axis=0)
    data[number] = frames[number]
if way == "swmr":
    with h5py.File(path, "w", libver="latest") as file:
        data = create(file)
        file.swmr_mode = True
        for number in range(len(frames)):
            add(data, number)
            data.flush()
            time.sleep(0.15)
else:
    for number in range(len(frames)):
        with h5py.File(path, "a") as file:
            data = create(file) if number == 0 else file["entry/data/data"]
            add(data, number)
        time.sleep(0.15)
"""


@pytest.mark.parametrize("way", ["swmr", "reopened"])
def test_an_hdf5_file_that_grows(tmp_path, poni, images, way):
    np.save(tmp_path / "frames.npy", np.stack([images[n] for n in range(1, FRAMES + 1)]))
    file = tmp_path / "scan.h5"
    writer = [sys.executable, "-c", HDF5_WRITER, file, tmp_path / "frames.npy", way]
    notes = Notes()
    with subprocess.Popen(list(map(str, writer))) as process:
        follow(pipeline(tmp_path, poni, file), Ends(expect=FRAMES, timeout=20), notes)
    assert process.returncode == 0
    assert f"{FRAMES} of {FRAMES} frames were integrated as they came" in notes
    same_as_batch(tmp_path)
    with h5py.File(tmp_path / "followed" / "map_live.h5", "r", swmr=True) as view:
        assert view["entry/phase_map/frame"][()].ravel().tolist() == list(range(FRAMES))


def test_a_handle_that_garbage_holds_does_not_hide_new_frames(tmp_path, images):
    file = tmp_path / "scan.h5"
    grow = (
        "import sys, h5py, numpy as np\n"
        "with h5py.File(sys.argv[1], 'a') as file:\n"
        "    shape = np.load(sys.argv[2]).shape\n"
        "    data = file.require_dataset('entry/data/data', (0, *shape), 'i4', exact=False,\n"
        "        maxshape=(None, *shape), chunks=(1, *shape)) if 'entry' not in file else (\n"
        "        file['entry/data/data'])\n"
        "    data.resize(len(data) + 2, axis=0)\n"
        "    data[-2:] = np.load(sys.argv[2])\n"
    )
    np.save(tmp_path / "frame.npy", images[1])
    grow = [sys.executable, "-c", grow, str(file), str(tmp_path / "frame.npy")]
    subprocess.run(grow, check=True)
    watch = ReopenWatch([str(file)])
    found = set()

    def until_there_are(number):
        def look():
            arrivals = watch.look()
            for arrival in arrivals.frames if arrivals else ():
                found.add(arrival.frame[1])
                watch.used(arrival)
            return len(found) == number

        until(look, 10)

    gc.disable()
    try:
        until_there_are(2)
        circle = [h5py.File(file, "r", locking=False)["entry/data/data"]]
        circle.append(circle)
        del circle
        subprocess.run(grow, check=True)
        until_there_are(4)
    finally:
        gc.enable()


def looked(watch):
    """Names of the files that a look finds."""
    arrivals = watch.look()
    return [] if arrivals is None else [Path(a.frame[0]).name for a in arrivals.frames]


def test_a_look_finds_what_is_new_or_has_changed(incoming, images):
    put(incoming, 1, images[1])
    notes = Notes()
    watch = FileWatch([str(incoming)], open_frames(incoming), notes.progress.note)
    put(incoming, 3, images[3])
    time.sleep(0.03)  # younger files may change again unseen
    arrivals = watch.look()
    assert [arrival.numbers for arrival in arrivals.frames] == [(1,), (3,)]
    for arrival in arrivals.frames:
        watch.used(arrival)
    assert looked(watch) == []
    for aside in (".frame_0002.tif", "frame_0002.tif.tmp", "frame_0002.tif.part", "dark_1.tif",
                  "frame_0003 (1).tif", "notes.txt"):  # fmt: skip
        (incoming / aside).write_bytes(b"x")
    assert looked(watch) == []
    said = sorted(notes.texts)
    assert len(said) == 2
    assert f"left out: {incoming / 'dark_1.tif'} is no frame of the series" in said[0]
    assert "frame_0003 (1).tif" in said[1]
    put(incoming, 3, images[4])
    time.sleep(0.03)
    assert looked(watch) == ["frame_0003.tif"]
    (incoming / "frame_0002.tif").write_bytes(b"torn")
    time.sleep(0.03)
    assert sorted(looked(watch)) == ["frame_0002.tif", "frame_0003.tif"]


def test_a_refused_frame_is_tried_again_until_its_file_is_still():
    tries = trials.Trials()
    frame, now, seen = ("a", 0), 100.0, []
    while not seen or not seen[-1][1]:
        if tries.due(frame, (1, 1), now):
            seen.append((now - 100, tries.refused(frame, (1, 1), now)))
        now += 0.01
    assert trials.STILL <= seen[-1][0] < 2 * trials.STILL
    assert len(seen) < 8
    assert tries.waiting == 0
    assert not tries.due(frame, (1, 1), now + 1000)
    assert tries.due(frame, (2, 2), now + 1000)
    assert not tries.refused(frame, (2, 2), now + 1000)


def test_frames_are_placed_by_number_whatever_comes_first():
    placing = Placing(ScanOptions(scan_shape=(2, 3), snake=True))
    for number in (5, 1, 6):
        placing.add((17, number))  # the scan's number is the same in all names
    scan, numbers = placing.place()
    assert numbers.tolist() == [[1, -1, -1], [6, 5, -1]]
    assert scan.frame_index.tolist() == [[1, -1, -1], [2, 0, -1]]
    placing.add((17, 0))  # so they are counted from 0; the last one is too many
    assert placing.place()[1].tolist() == [[0, 1, -1], [5, -1, -1]]
    named = Placing(ScanOptions(scan_shape=(2, 3), first_number=5))
    named.add((5,))
    assert named.place()[1].tolist() == [[5, -1, -1], [-1, -1, -1]]


def test_without_a_shape_frames_form_a_row_that_grows():
    placing = Placing(ScanOptions(snake=False))
    assert placing.shape == (1, 64)
    for number in range(100, 180):
        placing.add((number,))
    assert placing.shape == (1, 128)
    assert placing.place()[1][0, :80].tolist() == list(range(100, 180))
    assert Placing(ScanOptions(), 12).shape == (1, 12)


def test_a_map_without_a_shape(tmp_path, poni, incoming, images):
    for number in (1, 2, 3):
        put(incoming, number, images[number])
    path = pipeline(tmp_path, poni, incoming)
    path.write_text(path.read_text().replace(f'scan_shape = "{NY}x{NX}"\n', ""))
    notes = Notes()
    follow(path, Ends(timeout=1), notes)
    assert "shown in one row until the scan is complete" in notes
    assert status_of(tmp_path / "result" / "map_live.h5")[:4].tolist() == [1, 1, 1, 0]
    assert status_of(tmp_path / "result" / "map.h5").tolist() == [1, 1, 1]


def test_frames_to_a_map_in_one_step(tmp_path, poni, incoming, images):
    for number in images:
        put(incoming, number, images[number])
    (tmp_path / "result").mkdir()
    (tmp_path / "pipeline.toml").write_text(
        f"""
[map]
patterns = ["{incoming}"]
poni = "{poni}"
scan_shape = "{NY}x{NX}"
output = "{tmp_path}/result/scan_map.h5"
"""
    )
    notes = Notes()
    follow(tmp_path / "pipeline.toml", Ends(expect=FRAMES), notes)
    assert f"{FRAMES} of {FRAMES} frames were integrated as they came" in notes
    assert (tmp_path / "result" / "scan_map.png").stat().st_size > 10_000
    (tmp_path / "result").rename(tmp_path / "followed")
    (tmp_path / "result").mkdir()
    run_steps(load_pipeline(str(tmp_path / "pipeline.toml")), Progress())
    for file in ("scan_patterns.h5", "scan_map.h5"):
        assert differences(tmp_path / "followed" / file, tmp_path / "result" / file) == []


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ('integrate.monitor=["ic1"]', OptionError, "monitor ic1 as they come"),
        ("integrate.poni=absent.poni", InputMissingError, "absent.poni does not exist"),
        ("map.variant=unmasked", InputError, "needs the unmasked variant"),
    ],
)
def test_what_cannot_be_followed_is_refused(
    tmp_path, poni, incoming, images, change, error, message
):
    put(incoming, 1, images[1])
    steps = load_pipeline(str(pipeline(tmp_path, poni, incoming)), (change,))
    with pytest.raises(error, match=message):
        follow_steps(steps, Progress(), Ends(expect=1))


def test_nothing_of_another_is_replaced_and_a_scan_may_end_without_frames(
    tmp_path, poni, incoming, images
):
    marker = tmp_path / "done"
    marker.touch()
    path = pipeline(tmp_path, poni, incoming)
    with pytest.raises(InputMissingError, match="says that the scan is over, but no frame"):
        follow(path, Ends(marker=marker))
    put(incoming, 1, images[1])
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "map.h5").write_text("precious")
    with pytest.raises(OutputExistsError, match="is no partial map"):
        follow(path, Ends(marker=marker))
    assert (tmp_path / "result" / "map.h5").read_text() == "precious"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--expect", "5"], "need --follow"),
        (["--follow", "--expect", "0"], "--expect 0: expected a number of frames"),
        (["--follow", "--timeout", "0"], "--timeout 0: expected seconds"),
        (["--follow"], "no step takes frames"),
    ],
)
def test_options_of_the_command(tmp_path, capsys, options, message):
    (tmp_path / "p.toml").write_text("[evaluate]\nmap = 'm.h5'\ntruth = 't.h5'\n")
    with pytest.raises(SystemExit) as end:
        main(["run", str(tmp_path / "p.toml"), *options])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_an_eiger_master_whose_data_files_appear_later(tmp_path, poni, incoming, images):
    """Three data files of four frames; the second comes last."""
    master = incoming / "scan_master.h5"

    def write():
        with h5py.File(incoming / ".master", "w") as file:
            data = file.create_group("entry/data")
            for part in (1, 2, 3):
                data[f"data_00000{part}"] = h5py.ExternalLink(
                    f"scan_data_00000{part}.h5", "/entry/data/data"
                )
            file["entry/instrument/detector/detectorSpecific/nimages"] = FRAMES
        (incoming / ".master").rename(master)
        for part in (1, 3, 2):
            time.sleep(0.3)
            first = 4 * part - 3
            with h5py.File(incoming / ".data", "w") as file:
                stack = np.stack([images[first + n] for n in range(4)])
                data = file.create_dataset(
                    "entry/data/data", data=stack, chunks=(1, *stack[0].shape)
                )
                data.attrs["image_nr_low"] = first
                data.attrs["image_nr_high"] = first + 3
            (incoming / ".data").rename(incoming / f"scan_data_00000{part}.h5")

    notes = Notes()
    with Writer(write):
        follow(pipeline(tmp_path, poni, master), Ends(expect=FRAMES, timeout=20), notes)
    assert f"{FRAMES} of {FRAMES} frames were integrated as they came" in notes
    with h5py.File(tmp_path / "result" / "map_live.h5", "r", swmr=True) as view:
        assert view["entry/phase_map/frame"][()].ravel().tolist() == list(range(1, FRAMES + 1))
    same_as_batch(tmp_path)


def test_numbers_that_no_counter_reaches_give_the_order(tmp_path, images):
    stamp = 10**20
    placing = Placing(ScanOptions(scan_shape=(1, 3)))
    for number in (2, 0, 1):
        placing.add((stamp + number,))
    assert placing.place()[0].frame_index.tolist() == [[1, 2, 0]]
    beside = Placing(ScanOptions(scan_shape=(1, 3)))
    for number in (3, 1):
        beside.add((stamp, number))  # of the sample, say: it does not differ
    assert beside.place()[1].tolist() == [[1, -1, 3]]
    for number in (1, 2):
        write_image(tmp_path / f"{stamp + number}.tif", images[number])
    source = open_frames(tmp_path)
    assert [record.index for record in source.records] == [0, 1]
    assert not source.numbered


def test_names_that_are_too_long_to_keep_are_not_mixed_up(tmp_path, poni, incoming, images):
    """Cut short, both would be the same frame."""
    put(incoming, 1, images[1])
    put(incoming, 2, images[2])
    job = prepare(IntegrateConfig(frames=[str(incoming)], poni=poni, cache=False), Progress())
    ((_, rows),) = reduced_blocks(job, np.arange(2), Progress())
    rows = {name: np.repeat(values[:1], 4, axis=0) for name, values in rows.items()}
    folders = str(incoming / "/".join(["x" * 200] * 3))
    arrivals = [
        Arrival((f"{folders}/a.tif", 0), 0, (1, 1), (1,)),
        Arrival((f"{folders}/b.tif", 0), 1, (1, 1), (2,)),
        Arrival((str(incoming / "c.tif"), 0), 2, (1, 1), (10**100, 10**100)),
        Arrival((str(incoming / "d.tif"), 0), 3, (1, 1), (4,)),
    ]
    output = tmp_path / "patterns.h5"
    for restart in (True, False):  # as it is kept, and as it is found again
        kept = KeptRows(job, output, incoming, restart)
        if restart:
            kept.keep(arrivals, rows, [""] * 4, 1.0)
        assert len(kept) == 1
        ((again, held),) = kept.blocks()
        assert [arrival.numbers for arrival in again] == [(4,)]
        assert len(held["status"]) == 1
        kept.close()


REFUSED = """
import os, resource, sys
from pathlib import Path
import numpy as np
from xrdpipe.maps import assemble
from xrdpipe.store.live_view import LiveView
from xrdpipe.types import Predictions, Scan

path = Path("map_live.h5")
shape = 200, 200
n = shape[0] * shape[1]
values = np.random.default_rng(0).random((n, 2)).astype("f4")
found = Predictions(values, values, np.zeros(n, "f4"), np.ones(n, "u1"))
index = np.arange(n, dtype="i4").reshape(shape)
phase_map = assemble(found, Scan(index, "x", False), ("a", "b"), unknown_threshold=None)
with LiveView(path, ("a", "b"), shape) as view:
    at_most = path.stat().st_size + 300_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (at_most, resource.RLIM_INFINITY))
    memory = os.memfd_create

    def unlimited(name):  # a quota does not count memory, this limit does
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        return memory(name)

    os.memfd_create = unlimited
    try:
        for line in range(0, 200, 20):
            view.write(phase_map, index, np.arange(line, line + 20))
    except OSError as error:
        print("refused:", error)
print("there" if path.exists() else "removed")
"""


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs Linux")
def test_a_disk_that_refuses_the_view_costs_the_view_alone(tmp_path):
    """HDF5 cannot close a file that it cannot write: it would end the process with it."""
    done = subprocess.run(
        [sys.executable, "-c", REFUSED], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("refused: HDF5 cannot write it")
    assert done.stdout.endswith("removed\n")
    assert "Exception ignored" not in done.stderr


def test_a_run_goes_on_without_its_view(tmp_path, poni, incoming, images, monkeypatch):
    def refuse(view, *_):
        with view._or_given_up():
            raise OSError("quota exceeded")

    for number in (1, 2, 3):
        put(incoming, number, images[number])
    monkeypatch.setattr(LiveView, "write", refuse)
    notes = Notes()
    follow(pipeline(tmp_path, poni, incoming), Ends(timeout=1), notes)
    assert "map_live.h5 is given up (HDF5 cannot write it: quota exceeded)" in notes
    assert not (tmp_path / "result" / "map_live.h5").exists()
    assert (status_of(tmp_path / "result" / "map.h5") == FrameStatus.OK).sum() == 3


FILLER = """
import sys, time
import h5py, numpy as np
path, frames = sys.argv[1:]
frames = np.load(frames)
with h5py.File(path, "w") as file:
    file.create_dataset("entry/data/data", frames.shape, frames.dtype)
for number in range(len(frames)):
    with h5py.File(path, "r+") as file:
        file["entry/data/data"][number] = frames[number]
    time.sleep(0.15)
"""


def test_an_hdf5_file_whose_space_is_reserved_and_filled(tmp_path, poni, images):
    """Nothing but zeros is there where a frame is still to come."""
    np.save(tmp_path / "frames.npy", np.stack([images[n] for n in range(1, FRAMES + 1)]))
    file = tmp_path / "scan.h5"
    writer = [sys.executable, "-c", FILLER, file, tmp_path / "frames.npy"]
    notes = Notes()
    with subprocess.Popen(list(map(str, writer))) as process:
        follow(pipeline(tmp_path, poni, file), Ends(expect=FRAMES, timeout=20), notes)
    assert process.returncode == 0
    assert f"{FRAMES} of {FRAMES} frames were integrated as they came" in notes
    same_as_batch(tmp_path)


def test_a_look_at_many_files_costs_one_stat_of_each_new_one(incoming, images, monkeypatch):
    """20,000 names: what was used is not looked at again, however often one looks."""
    put(incoming, 1, images[1])
    watch = FileWatch([str(incoming)], open_frames(incoming), Notes().progress.note)
    for number in range(2, 20_001):
        os.link(incoming / name(1), incoming / name(number))
    time.sleep(0.03)
    stats = []
    monkeypatch.setattr(arrivals_module, "_stamp", lambda file: stats.append(file) or (1, 1))
    looks = 0
    while (arrivals := watch.look()) is not None:
        looks += 1
        for arrival in arrivals.frames:
            watch.used(arrival)
    assert looks == -(-20_000 // arrivals_module.AT_ONCE)
    watch._recent.clear()  # as after WATCHED_SECONDS
    stats.clear()
    assert watch.look() is None
    assert stats == []
