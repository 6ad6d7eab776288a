"""HDF5 inputs beyond the table of layouts: names, ambiguity, traps of links and casts, size."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

import xrdpipe
from known_frames import write_poni
from layouts import SHAPE, some_frames
from layouts.hdf5 import (
    area_detector,
    bliss_amesh,
    bliss_detector,
    bliss_entry,
    damage_chunk,
    diamond,
    eiger,
    eiger_channels,
    lambda_modules,
    lima_file,
    max_iv,
    nx,
    write_stack,
)
from xrdpipe.errors import FrameError, InputError, InputMissingError
from xrdpipe.frames import hdf5, open_frames
from xrdpipe.frames.dead import pixel_kind
from xrdpipe.frames.layouts import planes
from xrdpipe.frames.layouts.commands import hint, parse_command
from xrdpipe.masks import without_measurement
from xrdpipe.schema import FrameStatus
from xrdpipe.types import Progress

OK, MISSING = FrameStatus.OK, FrameStatus.MISSING


def statuses(source) -> list[int]:
    found = []
    for row in range(len(source.records)):
        try:
            source.read(row)
            found.append(int(OK))
        except FrameError as error:
            found.append(error.status)
    return found


# --- naming what is meant ----------------------------------------------------------------------


@pytest.fixture
def two_scans(tmp_path) -> Path:
    """A bliss file with frames in 2.1 and 3.1, and none in 1.1."""
    built = bliss_amesh(tmp_path)
    path = Path(built.paths[0])
    (tmp_path / "scan0003").mkdir()
    lima_file(tmp_path / "scan0003" / "eiger_0000.h5", some_frames(4, "u4", seed=3))
    with h5py.File(path, "a") as file:
        entry = bliss_entry(file, "3.1", "loopscan 4 0.2")
        bliss_detector(entry, [("scan0003/eiger_0000.h5", 0, 4)], 4, "u4")
    return path


def test_several_scans_with_frames_are_listed_with_titles(two_scans):
    with pytest.raises(InputError) as caught:
        open_frames(two_scans)
    for part in (
        "2 stacks of frames",
        "2.1 'amesh samy 0 4 2 samz 0 1.5 3 0.05 backnforth True': eiger 12 x 32 x 40",
        "3.1 'loopscan 4 0.2': eiger 4 x 32 x 40",
        f"for example {two_scans}::/2.1.",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "name", ["/3.1", "3.1", "/3.1/measurement", "/3.1/measurement/eiger", "/3.1/instrument/eiger"]
)
def test_a_scan_its_group_or_its_dataset_can_be_named(two_scans, name):
    source = open_frames(f"{two_scans}::{name}")
    np.testing.assert_array_equal(source.read(2).image, some_frames(4, "u4", seed=3)[2])
    assert source.kind.startswith("bliss")
    assert source.exposure == 0.05


def test_several_cameras_in_a_scan_are_listed(two_scans):
    with h5py.File(two_scans, "a") as file:
        camera = nx(file["3.1/instrument"], "basler", "NXdetector")
        camera["data"] = np.zeros((4, *SHAPE), np.uint8)
        file["3.1/measurement/basler"] = h5py.SoftLink("/3.1/instrument/basler/data")
    for name in ("/3.1", "/3.1/measurement"):
        with pytest.raises(InputError, match=r"basler 4 x 32 x 40.*example .*::/3.1/measurement/"):
            open_frames(f"{two_scans}::{name}")
    assert open_frames(f"{two_scans}::/3.1/measurement/basler").dtype == np.uint8


def test_a_bliss_file_without_frames_says_so(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        entry = bliss_entry(file, "1.1", "ascan samy 0 1 20 0.1")
        # A spectrum per point is no frame.
        entry["measurement/mca"] = np.zeros((21, 1024), np.uint32)
    with pytest.raises(InputError, match=r"1 scans \(1.1 'ascan samy 0 1 20 0.1'\), none of which"):
        open_frames(tmp_path / "x.h5")


def test_scans_behind_links_of_a_sample_file(two_scans):
    with h5py.File(two_scans.parent / "sample.h5", "w") as file:
        for number in (1, 2):
            file[f"dataset_{number}.1"] = h5py.ExternalLink(two_scans.name, f"/{number}.1")
    source = open_frames(two_scans.parent / "sample.h5")
    assert len(source.records) == 12
    assert source.scan.shape == (4, 3)


def test_a_group_of_a_master_keeps_its_missing_files(tmp_path):
    built = eiger(tmp_path, "missing")
    for name in ("/entry", "/entry/data"):
        source = open_frames(f"{built.paths[0]}::{name}")
        assert statuses(source) == list(built.status)
        assert source.detector.saturation_value == 40000


def test_a_named_data_file_keeps_its_numbers_and_metadata(tmp_path):
    path = eiger(tmp_path).paths[0]
    source = open_frames(f"{path}/s1_master.h5::/entry/data/data_000002")
    assert [record.index for record in source.records] == [5, 6, 7, 8]
    assert source.detector.wavelength == pytest.approx(0.4959)


def test_a_group_without_frames_is_refused(tmp_path):
    path = eiger(tmp_path).paths[0]
    with pytest.raises(InputError, match="group without a stack"):
        open_frames(f"{path}/s1_master.h5::/entry/instrument")


def test_another_threshold_can_be_named(tmp_path):
    built = eiger_channels(tmp_path)
    first = open_frames(built.paths[0])
    assert any("threshold_1 is taken" in phrase for phrase in first.evidence)
    second = open_frames(f"{built.paths[0]}::/entry/data/data[:, 1]")
    np.testing.assert_array_equal(second.read(4).image, built.frames[4] // 3)
    assert second.numbered
    assert first.detector.pixel_mask.any()
    assert not second.detector.pixel_mask.any()  # each threshold has its own


def test_one_line_of_a_grid_can_be_named(tmp_path):
    built = diamond(tmp_path)
    source = open_frames(f"{built.paths[0]}::/entry/pilatus2M/data[2]")
    assert len(source.records) == 3
    np.testing.assert_array_equal(source.read(1).image, built.frames[7])


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ("[:, 7]", "outside the axes"),
        ("[1, 2, 3]", "cannot be taken"),
        ("[1:2]", "cannot be read"),
    ],
)
def test_a_selection_that_does_not_fit(tmp_path, selection, message):
    path = diamond(tmp_path).paths[0]
    with pytest.raises(InputError, match=message):
        open_frames(f"{path}::/entry/pilatus2M/data{selection}")


# --- files that are not whole ------------------------------------------------------------------


def killed_writer(path: Path, libver: str, swmr: bool) -> None:
    code = (
        "import h5py, numpy, os\n"
        f"file = h5py.File({str(path)!r}, 'w', libver={libver!r})\n"
        "file.create_dataset('data', data=numpy.ones((3, 20, 24)), chunks=(1, 20, 24))\n"
        f"{'file.swmr_mode = True' if swmr else 'file.flush()'}\n"
        "file['data'].flush()\n"
        "os._exit(1)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False)


def test_a_file_whose_writer_was_killed(tmp_path):
    killed_writer(tmp_path / "x.h5", "latest", swmr=False)
    with pytest.raises(InputError, match="still being written, or its writer was killed"):
        open_frames(tmp_path / "x.h5")


def test_a_file_that_is_still_being_written(tmp_path):
    killed_writer(tmp_path / "x.h5", "latest", swmr=True)
    source = open_frames(tmp_path / "x.h5")
    assert statuses(source) == [OK] * 3
    assert any("still being written" in phrase for phrase in source.evidence)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda whole: b"", r"is empty \(0 bytes\)"),
        (lambda whole: whole[:-500], "is truncated"),
        (lambda whole: b"x" * 900, "is no HDF5 file"),
    ],
)
def test_a_file_that_cannot_be_opened(tmp_path, content, message):
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file["data"] = np.ones((3, *SHAPE))
    path = tmp_path / "x.h5"
    path.write_bytes(content((tmp_path / "whole.h5").read_bytes()))
    with pytest.raises(InputError, match=message):
        open_frames(path)


@pytest.mark.parametrize("content", [b"", b"x" * 900, None])
def test_a_damaged_data_file_costs_its_frames_only(tmp_path, content):
    built = eiger(tmp_path)
    path = tmp_path / "s1_data_000002.h5"
    path.write_bytes(path.read_bytes()[:-300] if content is None else content)
    source = open_frames(tmp_path / "s1_master.h5")
    lost = int(FrameStatus.CORRUPT)
    assert statuses(source) == [1] * 4 + [lost] * 4 + [1] * 2
    np.testing.assert_array_equal(source.read(8).image, built.frames[8])
    assert "s1_data_000002.h5" in source.records[5].reason


def test_a_lost_frame_does_not_take_the_number_of_one_that_is_there(tmp_path):
    frames = some_frames(4)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        write_stack(file, "entry/data/data", frames, skip=(1,))
        file["entry/instrument/NDAttributes/NDArrayUniqueId"] = [1, 2, 2, 2]
    expected = [OK, MISSING, OK, FrameStatus.DUPLICATE]
    assert statuses(open_frames(tmp_path / "x.h5")) == expected


def test_a_data_file_that_vanishes_later(tmp_path):
    eiger(tmp_path)
    source = open_frames(tmp_path / "s1_master.h5")
    (tmp_path / "s1_data_000003.h5").unlink()
    assert statuses(source) == [OK] * 8 + [MISSING] * 2


def test_nothing_is_left(tmp_path):
    eiger(tmp_path)
    for path in tmp_path.glob("s1_data*"):
        path.unlink()
    with pytest.raises(InputError, match=r"no frame that can be read: .*s1_data_000001.h5 is not"):
        open_frames(tmp_path / "s1_master.h5")
    max_iv(tmp_path)
    (tmp_path / "scan-1737_pilatus.h5").unlink()
    with pytest.raises(InputError, match=r"frames are lost: .*scan-1737_pilatus.h5 is not there"):
        open_frames(tmp_path / "scan-1737.h5")


def test_fewer_frames_than_announced_are_told(tmp_path):
    assert open_frames(eiger(tmp_path).paths[0]).warnings == ()
    gc.collect()
    with h5py.File(tmp_path / "s1_master.h5", "a") as file:
        specific = file["entry/instrument/detector/detectorSpecific"]
        specific["nimages"][()], specific["ntrigger"][()] = 3, 5
    source = open_frames(tmp_path / "s1_master.h5")
    said = "the master announces 15 frames (nimages × ntrigger), 10 are there"
    assert source.warnings == (said,)
    details = xrdpipe.inspect(path=[tmp_path]).details
    assert said in details["warnings"]


def test_the_last_missing_file_held_the_rest_of_what_was_announced(tmp_path):
    eiger(tmp_path)
    (tmp_path / "s1_data_000003.h5").unlink()
    source = open_frames(tmp_path / "s1_master.h5")
    assert [record.index for record in source.records] == list(range(1, 11))
    assert statuses(source) == [OK] * 8 + [MISSING] * 2


def shorten(path: Path, length: int) -> None:
    """The file was closed too early."""
    with h5py.File(path, "a") as file:
        file["entry/data/data"].resize(length, axis=0)


def forget_numbers(folder: Path) -> None:
    for path in folder.glob("s1_data*"):
        with h5py.File(path, "a") as file:
            del file["entry/data/data"].attrs["image_nr_low"]


@pytest.mark.parametrize("stated", [True, False])
def test_a_data_file_that_was_closed_early_shifts_nothing(tmp_path, stated):
    built = eiger(tmp_path)
    shorten(tmp_path / "s1_data_000002.h5", 1)
    if not stated:
        forget_numbers(tmp_path)
    source = open_frames(tmp_path / "s1_master.h5")
    assert [record.index for record in source.records] == list(range(1, 11))
    assert statuses(source) == [OK] * 5 + [MISSING] * 3 + [OK] * 2
    np.testing.assert_array_equal(source.read(9).image, built.frames[9])
    assert "holds 1 frames, other data files 4" in source.records[6].reason
    assert len({(record.file, record.place) for record in source.records}) == 10


def test_data_files_of_different_length_are_whole_if_all_announced_frames_are_there(tmp_path):
    eiger(tmp_path)
    shorten(tmp_path / "s1_data_000002.h5", 1)
    forget_numbers(tmp_path)
    with h5py.File(tmp_path / "s1_master.h5", "a") as file:
        file["entry/instrument/detector/detectorSpecific/nimages"][()] = 7
    source = open_frames(tmp_path / "s1_master.h5")
    assert statuses(source) == [OK] * 7
    assert source.warnings == ()


def test_no_more_frames_are_lost_than_were_announced(tmp_path):
    """A scan of 13 that was aborted: three files were never begun."""
    eiger(tmp_path)
    (tmp_path / "s1_data_000003.h5").unlink()
    with h5py.File(tmp_path / "s1_master.h5", "a") as file:
        file["entry/instrument/detector/detectorSpecific/nimages"][()] = 13
        for name in ("data_000004", "data_000005"):
            file["entry/data"][name] = h5py.ExternalLink(f"s1_{name}.h5", "/entry/data/data")
    source = open_frames(tmp_path / "s1_master.h5")
    assert statuses(source) == [OK] * 8 + [MISSING] * 5


def test_a_trigger_count_that_is_not_stated_hides_no_lost_file(tmp_path):
    """One image per trigger, and the number of triggers unknown."""
    built = eiger(tmp_path, "missing")
    forget_numbers(tmp_path)
    with h5py.File(tmp_path / "s1_master.h5", "a") as file:
        file["entry/instrument/detector/detectorSpecific/nimages"][()] = 1
    source = open_frames(tmp_path / "s1_master.h5")
    assert statuses(source) == list(built.status)


def test_a_counter_that_starts_again_in_each_data_file_is_not_used(tmp_path):
    eiger(tmp_path, "missing")
    for path in tmp_path.glob("s1_data*"):
        with h5py.File(path, "a") as file:
            file["entry/data/data"].attrs["image_nr_low"] = 1
    source = open_frames(tmp_path / "s1_master.h5")
    assert [record.index for record in source.records] == list(range(1, 11))
    assert statuses(source) == [OK] * 4 + [MISSING] * 4 + [OK] * 2
    assert any("image_nr_low does not rise" in phrase for phrase in source.evidence)


def test_a_lost_data_file_is_told_once(tmp_path):
    eiger(tmp_path, "missing")
    poni = write_poni(tmp_path / "a.poni", SHAPE)
    warnings = xrdpipe.inspect(path=[tmp_path / "s1_master.h5"]).details["warnings"]
    told = [text for text in warnings if "s1_data_000002.h5" in text]
    assert len(told) == 1
    assert told[0].startswith("4 frames: ")
    notes: list[str] = []
    outcome = xrdpipe.integrate(
        frames=[tmp_path / "s1_master.h5"],
        poni=poni,
        output=tmp_path / "out.h5",
        bins=50,
        progress=Progress(note=notes.append),
    )
    assert any(note.startswith("warning: the master announces 10 frames") for note in notes)
    assert outcome.lost == 4
    assert outcome.summary.count("s1_data_000002.h5") == 1
    assert "4 frames: " in outcome.summary


@pytest.mark.parametrize(
    ("numbers", "why"),
    [
        ([1, 2, 3, 1, 2, 3], "falls back from 3 to 1 at frame 3"),
        ([6, 7, 8, 1, 2, 3], "falls back from 8 to 1 at frame 3"),
        ([0] * 6, "is 0 in every frame"),
        ([501, 502, 504, 504, 505, 506], None),
    ],
)
def test_a_counter_that_starts_again_drops_no_frame(tmp_path, numbers, why):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        write_stack(file, "entry/data/data", some_frames(6))
        file["entry/instrument/NDAttributes/NDArrayUniqueId"] = numbers
    source = open_frames(tmp_path / "x.h5")
    if why is None:
        assert [record.index for record in source.records] == numbers
        assert source.records[3].problem == FrameStatus.DUPLICATE
    else:
        assert not source.numbered
        assert statuses(source) == [OK] * 6
        assert any(why in phrase for phrase in source.evidence)


def test_an_areadetector_file_with_a_group_of_dectris_keeps_its_counter(tmp_path):
    built = area_detector(tmp_path)
    with h5py.File(built.paths[0], "a") as file:
        file["entry/instrument/detector/detectorSpecific/nimages"] = 10
    source = open_frames(built.paths[0])
    assert "areaDetector" in source.kind
    assert tuple(record.index for record in source.records) == built.numbers
    assert "SampleX" in source.columns


# --- data files without a master ---------------------------------------------------------------


def test_a_run_of_files_is_numbered_by_their_names(tmp_path):
    frames = some_frames(12)
    for place, number in enumerate((2, 3, 5)):
        lima_file(tmp_path / f"eiger_{number:04d}.h5", frames[4 * place : 4 * place + 4])
    source = open_frames(tmp_path)
    expected = [*range(5, 13), *range(17, 21)]  # files 1 and 4 are gone
    assert [record.index for record in source.records] == expected
    assert source.numbered
    np.testing.assert_array_equal(source.read(7).image, frames[7])
    assert any("3 files without a master" in phrase for phrase in source.evidence)


def test_the_place_of_a_first_file_that_cannot_be_opened(tmp_path):
    built = eiger(tmp_path)
    (tmp_path / "s1_master.h5").unlink()
    (tmp_path / "s1_data_000001.h5").write_bytes(b"")
    source = open_frames(tmp_path / "*.h5")
    assert tuple(record.index for record in source.records) == built.numbers
    assert statuses(source) == [int(FrameStatus.CORRUPT)] * 4 + [OK] * 6
    assert source.records[0].file.endswith("s1_data_000001.h5::/entry/data/data")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda folder: lima_file(folder / "b_3.h5", some_frames(4)), "more than the last number"),
        (lambda folder: lima_file(folder / "a_0.h5", some_frames(3)), "different numbers of fra"),
        (lambda folder: lima_file(folder / "a_1.h5", some_frames(4, "u2")), "different kinds"),
    ],
)
def test_files_that_may_be_several_scans_are_refused(tmp_path, change, why):
    for name in ("one", "several"):
        (tmp_path / name).mkdir()
        for number in range(3):
            lima_file(tmp_path / name / f"a_{number}.h5", some_frames(4))
    assert len(open_frames(tmp_path / "one").records) == 12
    change(tmp_path / "several")
    with pytest.raises(InputError, match=f"that are not one series: .*{why}"):
        open_frames(tmp_path / "several")


def test_files_with_motors_are_scans_of_their_own(tmp_path):
    path = Path(area_detector(tmp_path).paths[0])
    path.with_name("scan_0008.h5").write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="it may be a scan of its own; name one of them"):
        open_frames(tmp_path)


def test_unrelated_stacks_of_an_entry_are_no_data_files(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        write_stack(file, "entry/data_1", some_frames(3))
        write_stack(file, "entry/data_2", some_frames(3))
    with pytest.raises(InputError, match="2 stacks"):
        open_frames(tmp_path / "x.h5")


@pytest.mark.parametrize("name", ["scan.tif", "scan"])
def test_the_content_tells_an_hdf5_file(tmp_path, name):
    lima_file(tmp_path / name, some_frames(4))
    assert "LImA" in open_frames(tmp_path / name).kind
    assert "LImA" in open_frames(tmp_path).kind
    assert xrdpipe.inspect(path=[tmp_path / name]).details["layout"].startswith("LImA")


@pytest.mark.parametrize("content", [b"", b"x" * 900])
def test_inspect_says_why_a_file_cannot_be_opened_as_integrate_does(tmp_path, content):
    (tmp_path / "x.h5").write_bytes(content)
    with pytest.raises(InputError) as opened:
        open_frames(tmp_path / "x.h5")
    with pytest.raises(InputError) as inspected:
        xrdpipe.inspect(path=[tmp_path / "x.h5"])
    assert str(inspected.value) == str(opened.value)


@pytest.mark.parametrize("chunks", [None, (1, *SHAPE), (2, 16, 40), (1, 16, 20)])
def test_what_was_never_written_is_missing(tmp_path, chunks):
    frames = some_frames(5)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("data", frames.shape, "u4", chunks=chunks)
        file.create_dataset("other/data", data=np.ones(5))
        if chunks is not None:
            data[:2] = frames[:2]
            data[4] = frames[4]
            data[2, :16] = 1 if chunks == (1, 16, 20) else 0
    if chunks is None:
        with pytest.raises(InputError, match="was never written"):
            open_frames(tmp_path / "x.h5")
        return
    found = statuses(open_frames(tmp_path / "x.h5"))
    third = {
        (1, *SHAPE): OK,
        (2, 16, 40): FrameStatus.CORRUPT,  # the chunks of two frames together
        (1, 16, 20): FrameStatus.CORRUPT,
    }[chunks]
    fourth = FrameStatus.CORRUPT if chunks[0] == 2 else MISSING
    assert found == [OK, OK, third, fourth, OK]


# --- virtual datasets --------------------------------------------------------------------------


def parts(folder: Path, frames: np.ndarray, each: int, dtype: str = "u4") -> list[str]:
    """Files of some frames each."""
    names = []
    for number, start in enumerate(range(0, len(frames), each)):
        names.append(f"part_{number}.h5")
        with h5py.File(folder / names[-1], "w") as file:
            write_stack(file, "entry/data", frames[start : start + each].astype(dtype))
    return names


def virtual(path: Path, names: list[str], each: int, dtype: str = "u4", dataset="entry/data"):
    layout = h5py.VirtualLayout((len(names) * each, *SHAPE), dtype)
    for number, name in enumerate(names):
        source = h5py.VirtualSource(name, dataset, (each, *SHAPE))
        layout[number * each : (number + 1) * each] = source
    with h5py.File(path, "w", libver="v110") as file:
        file.create_virtual_dataset("entry/data", layout)


def test_numbered_sources_of_a_virtual_dataset(tmp_path):
    """``part_%b.h5``: HDF5 itself ends the dataset before the first file that is missing."""
    frames = some_frames(9)
    parts(tmp_path, frames, 3)
    whole = (len(frames), *SHAPE)
    space = h5py.h5s.create_simple(whole, (h5py.h5s.UNLIMITED, *SHAPE))
    space.select_hyperslab((0, 0, 0), (h5py.h5s.UNLIMITED, 1, 1), (3, 1, 1), (3, *SHAPE))
    inner = h5py.h5s.create_simple((3, *SHAPE))
    inner.select_all()
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_virtual(space, b"part_%b.h5", b"/entry/data", inner)
    with h5py.File(tmp_path / "x.h5", "w", libver="v110") as file:
        extent = h5py.h5s.create_simple(whole, (h5py.h5s.UNLIMITED, *SHAPE))
        h5py.h5d.create(file.id, b"data", h5py.h5t.NATIVE_UINT32, extent, plist)
    source = open_frames(tmp_path / "x.h5")
    assert statuses(source) == [OK] * 9
    del source
    gc.collect()  # HDF5 remembers the length as long as the dataset is open
    (tmp_path / "part_1.h5").unlink()
    source = open_frames(tmp_path / "x.h5")
    assert statuses(source) == [OK] * 3 + [MISSING] * 3 + [OK] * 3
    np.testing.assert_array_equal(source.read(8).image, frames[8])


def test_a_virtual_dataset_over_virtual_datasets(tmp_path):
    frames = some_frames(8)
    names = parts(tmp_path, frames, 2)
    inner = tmp_path / "inner"
    inner.mkdir()
    virtual(inner / "a.h5", [f"../{name}" for name in names[:2]], 2)
    virtual(inner / "b.h5", [f"../{name}" for name in names[2:]], 2)
    virtual(tmp_path / "x.h5", ["inner/a.h5", "inner/b.h5"], 4)
    (tmp_path / "part_2.h5").unlink()
    source = open_frames(f"{tmp_path / 'x.h5'}::/entry/data")
    assert statuses(source) == [OK] * 4 + [MISSING] * 2 + [OK] * 2
    np.testing.assert_array_equal(source.read(7).image, frames[7])
    assert source.records[7].file == f"{tmp_path / 'part_3.h5'}::/entry/data"


@pytest.mark.parametrize("damage", ["short", "no dataset", "unmapped"])
def test_a_source_that_lacks_frames(tmp_path, damage):
    frames = some_frames(6)
    names = parts(tmp_path, frames, 3)
    if damage == "unmapped":
        layout = h5py.VirtualLayout((6, *SHAPE), "u4", maxshape=(None, *SHAPE))
        layout[:3] = h5py.VirtualSource(names[0], "entry/data", (3, *SHAPE))
        with h5py.File(tmp_path / "x.h5", "w", libver="v110") as file:
            file.create_virtual_dataset("entry/data", layout)
    else:
        virtual(tmp_path / "x.h5", names, 3)
        with h5py.File(tmp_path / names[1], "a") as file:
            if damage == "short":
                file["entry/data"].resize(1, axis=0)
            else:
                del file["entry/data"]
    found = statuses(open_frames(tmp_path / "x.h5"))
    assert found == [OK] * 3 + [OK if damage == "short" else MISSING] + [MISSING] * 2


def test_a_copied_folder_with_absolute_links(tmp_path):
    (tmp_path / "there").mkdir()
    eiger(tmp_path / "there")
    with h5py.File(tmp_path / "there" / "s1_master.h5", "a") as file:
        for number in (1, 2, 3):
            name = f"data_{number:06d}"
            del file[f"entry/data/{name}"]
            file[f"entry/data/{name}"] = h5py.ExternalLink(
                f"/data/visitor/ab123/s1_{name}.h5", "/entry/data/data"
            )
    assert statuses(open_frames(tmp_path / "there" / "s1_master.h5")) == [OK] * 10
    (tmp_path / "link_master.h5").symlink_to(tmp_path / "there" / "s1_master.h5")
    assert statuses(open_frames(tmp_path / "link_master.h5")) == [OK] * 10


def test_the_scan_file_stands_for_its_folder(tmp_path):
    built = max_iv(tmp_path)
    source = open_frames(tmp_path)
    assert source.kind.startswith("MAX IV")
    assert len(source.records) == len(built.frames)
    (tmp_path / "scan-1738.h5").write_bytes((tmp_path / "scan-1737.h5").read_bytes())
    with pytest.raises(InputError, match="holds 3 HDF5 files"):
        open_frames(tmp_path)


def test_a_circle_of_links_ends(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a"], file["b"] = h5py.SoftLink("/b"), h5py.SoftLink("/a")
    with pytest.raises(InputError, match="no stack of frames"):
        open_frames(tmp_path / "x.h5")


def test_changed_data_are_another_input(tmp_path):
    eiger(tmp_path)
    before = open_frames(tmp_path / "s1_master.h5").records
    time.sleep(0.01)
    os.utime(tmp_path / "s1_data_000002.h5")
    after = open_frames(tmp_path / "s1_master.h5").records
    assert [a == b for a, b in zip(before, after, strict=True)] == [
        row not in range(4, 8) for row in range(10)
    ]


def test_sources_beyond_those_opened_at_the_start(tmp_path, monkeypatch):
    """They are looked into when they are first read."""
    monkeypatch.setattr(planes, "OPENED", 2)
    frames = some_frames(8)
    names = parts(tmp_path, frames, 2)
    with h5py.File(tmp_path / names[3], "w") as file:
        write_stack(file, "entry/data", frames[6:], skip=(1,))
    virtual(tmp_path / "x.h5", names, 2)
    source = open_frames(tmp_path / "x.h5")
    assert not any(record.problem for record in source.records)
    assert statuses(source) == [OK] * 7 + [MISSING]
    del source
    with h5py.File(tmp_path / names[2], "a") as file:
        file["entry/data"].resize(1, axis=0)
    assert statuses(open_frames(tmp_path / "x.h5")) == [OK] * 5 + [MISSING, OK, MISSING]


# --- casts by writers --------------------------------------------------------------------------

TOP16, TOP32 = 2**16 - 1, 2**32 - 1


def test_frames_are_read_in_the_dtype_of_the_data_files(tmp_path):
    """A virtual dataset of uint32 over files of uint16: 65535 is known for what it is."""
    frames = some_frames(4)
    frames[:, 5, :3] = TOP16
    virtual(tmp_path / "x.h5", parts(tmp_path, frames, 2, "u2"), 2)
    source = open_frames(tmp_path / "x.h5")
    assert source.dtype == np.uint16
    assert pixel_kind(source.read(0).image, "Eiger 4M").sentinels == (TOP16,)


def test_modules_of_a_narrower_type_tell_their_bits(tmp_path):
    built = lambda_modules(tmp_path)
    layout = h5py.VirtualLayout((10, *SHAPE), "u4")
    for number, rows in ((1, slice(0, 14)), (2, slice(18, 32))):
        name, inside = f"sample_00001_m{number:02d}.nxs", "/entry/instrument/detector/data"
        layout[:, rows] = h5py.VirtualSource(name, inside, (10, 14, SHAPE[1]))
    with h5py.File(tmp_path / "wide.nxs", "w", libver="v110") as file:
        file.create_virtual_dataset("data", layout)
    source = open_frames(tmp_path / "wide.nxs")
    np.testing.assert_array_equal(source.read(3).image, built.frames[3])
    assert (source.dtype, source.detector.bit_depth) == (np.uint32, 16)
    np.testing.assert_array_equal(
        np.unique(np.nonzero(source.detector.pixel_mask)[0]), range(14, 18)
    )


def test_gaps_between_modules_are_seen_through_another_virtual_dataset(tmp_path):
    built = lambda_modules(tmp_path)
    layout = h5py.VirtualLayout((10, *SHAPE), "u2")
    inside = "/entry/instrument/detector/data"
    layout[:] = h5py.VirtualSource("sample_00001.nxs", inside, (10, *SHAPE))
    with h5py.File(tmp_path / "scan.h5", "w", libver="v110") as file:
        file.create_virtual_dataset("data", layout)
    source = open_frames(tmp_path / "scan.h5")
    np.testing.assert_array_equal(source.read(9).image, built.frames[9])
    assert source.detector.pixel_mask.sum() == 4 * SHAPE[1]
    del source
    (tmp_path / "sample_00001_m02.nxs").write_bytes(b"")
    with pytest.raises(InputError, match=r"sample_00001_m02.nxs is empty"):
        open_frames(tmp_path / "scan.h5")


@pytest.mark.parametrize(
    ("dtype", "values", "detector", "bits", "sentinels"),
    [
        ("u4", (TOP16, TOP16), "Eiger 4M", None, (TOP16, TOP32)),
        ("u4", (TOP16,), "Eiger 4M", None, (TOP32,)),  # one pixel may hold that many counts
        ("u4", (TOP16, TOP16, TOP16 + 1), "Eiger 4M", None, (TOP32,)),
        ("u4", (TOP16,), "Eiger 4M", 16, (TOP16, TOP32)),
        ("u4", (), "Eiger 4M", 16, (TOP16, TOP32)),
        ("u4", (TOP16 + 1,), "Eiger 4M", 16, (TOP32,)),  # 16-bit readouts were summed
        ("u4", (TOP32, TOP16, TOP16), "Eiger 4M", 32, (TOP16, TOP32)),
        ("u8", (TOP32, TOP32), "Eiger 4M", None, (TOP32, 2**64 - 1)),
        ("i8", (TOP32, TOP32), "Eiger 4M", None, (TOP32, -1, -2)),
        ("f4", (TOP32, TOP32), "Eiger 4M", None, (TOP32, -1, -2)),
        ("f4", (TOP16, TOP16, np.nan), "Eiger 4M", None, (TOP16, -1, -2)),
        ("f8", (TOP32,), "Detector", None, (-1, -2)),
        ("i4", (TOP16, TOP16, -1), "Pilatus 1M", None, (TOP16, -1, -2)),
        ("i4", (1048573,), "Pilatus 1M", 20, (-1, -2)),
        ("u2", (TOP16,), "Eiger 4M", 16, (TOP16,)),
        ("u4", (TOP16, TOP16), "Pixium", None, ()),
    ],
)
def test_the_value_of_dead_pixels_survives_casts(dtype, values, detector, bits, sentinels):
    image = np.full((20, 24), 10, dtype)
    image.ravel()[: len(values)] = values
    kind = pixel_kind(image, detector, bit_depth=bits)
    assert kind.sentinels == sentinels
    if sentinels and TOP16 + 1 not in values:
        meant = [v for v in values if v in (*sentinels, TOP32) or np.isnan(v)]
        if dtype != "f8":
            assert without_measurement(image, kind.sentinels).sum() == len(meant)
    if TOP16 in sentinels and dtype != "u2":
        assert "before a writer made it" in kind.reason


def test_a_cast_of_an_unknown_detector_is_suspect():
    image = np.full((20, 24), 10, np.uint32)
    image[0, :5] = TOP16
    kind = pixel_kind(image)
    assert (kind.counting, kind.sentinels, kind.suspect) == (False, (), True)
    assert kind.saturation == TOP16


# --- scan commands -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "frames", "x", "y", "shape", "fast", "snake"),
    [
        ("amesh samy 0 1 20 samz 0 1 10 0.1", 231, "samy", "samz", (11, 21), "x", None),
        ("dmesh(samz, 0, 1, 20, samy, 0, 1, 10, 0.1)", 7, "samy", "samz", (21, 11), "y", None),
        ("fscan2d dty 0 0.5 4 rot 0 1 3 0.1", 12, "rot", "dty", (4, 3), "x", None),
        ("l2scan samy 0 1 20 samz 0 1 10 0.1", 200, "samy", "samz", (10, 20), "x", None),
        ("l2scan samy 0 1 20 samz 0 1 10 0.1", 231, "samy", "samz", (11, 21), "x", None),
        ("kmap.dkmap nnp2 0 1 20 nnp3 0 1 10 0.1", 200, "nnp2", "nnp3", (10, 20), "x", None),
        ("amesh sy 0 1 2 sz 0 1 2 0.1 backnforth True", 9, "sy", "sz", (3, 3), "x", True),
        ("amesh sy 0 1 2 sz 0 1 2 0.1 backnforth=False", 9, "sy", "sz", (3, 3), "x", False),
        ("mesh px 0 1 2 py 0 1 3 0.1 True", 12, "px", "py", (4, 3), "x", True),
        ("mesh py 0 1 2 px 0 1 3 0.1", 12, "px", "py", (3, 4), "y", None),
        ("mygrid px 0 1 3 py 0 1 4 0.1", 12, "px", "py", (4, 3), "x", None),
        ("ascan samy 0 1 20 0.1", 21, "samy", None, (1, 21), "x", None),
        ("fscan rot 0 1 20 0.1", 20, "rot", None, (1, 20), "x", None),
    ],
)
def test_scan_commands(command, frames, x, y, shape, fast, snake):
    motion = parse_command(command, frames)
    found = hint(motion, "bliss")
    assert (found.x, found.y, found.shape) == (x, y, shape)
    assert (found.fast_axis, found.snake) == (fast, snake)
    assert motion.exposure == 0.1


@pytest.mark.parametrize(
    "command", ["", "ct 1", "loopscan 10 0.1", "mygrid px 0 1 3 py 0 1 4 0.1", "user scan of 3"]
)
def test_commands_that_say_nothing_of_a_map(command):
    assert parse_command(command, 999) is None


def test_positions_show_the_fast_motor():
    motion = parse_command("mesh px 0 1 2 py 0 1 3 0.1", 12)
    slow, fast = np.repeat([0.0, 1, 2], 4), np.tile([0.0, 1, 2, 3], 3)
    found = hint(motion, "MAX IV", {"px": slow, "py": fast}.get)
    assert (found.x, found.y, found.shape, found.fast_axis) == ("px", "py", (4, 3), "y")


# --- size and threads --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """20 data files of 500 frames, each telling its number."""
    folder = tmp_path_factory.mktemp("large")
    frames = np.arange(1, 10_001, dtype="u4").reshape(20, 500, 1, 1) * np.ones((16, 16), "u4")
    with h5py.File(folder / "x_master.h5", "w") as master:
        for number, part in enumerate(frames, 1):
            name = f"x_data_{number:06d}.h5"
            with h5py.File(folder / name, "w") as file:
                data = file.create_dataset("entry/data/data", data=part, chunks=(1, 16, 16))
                data.attrs["image_nr_low"] = np.int32(500 * number - 499)
            link = h5py.ExternalLink(name, "/entry/data/data")
            master[f"entry/data/data_{number:06d}"] = link
    return folder / "x_master.h5"


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0


def test_a_large_master_opens_in_bounded_memory(large, monkeypatch):
    monkeypatch.setattr(hdf5, "OPEN_FILES", 4)
    before = open_files()
    tracemalloc.start()
    source = open_frames(large)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(source.records) == 10_000
    assert peak < 1000 * len(source.records)  # bytes; the frames are of 1 kB
    for row in range(0, 10_000, 100):
        assert source.read(row).image[3, 4] == row + 1
    assert open_files() <= before + 8


def test_more_data_files_than_a_process_may_open(tmp_path):
    resource = pytest.importorskip("resource")
    with h5py.File(tmp_path / "part.h5", "w") as file:
        write_stack(file, "data", some_frames(1))
    with h5py.File(tmp_path / "x_master.h5", "w") as file:
        for number in range(1, 301):
            name = f"part_{number}.h5"
            (tmp_path / name).write_bytes((tmp_path / "part.h5").read_bytes())
            file[f"entry/data/data_{number:06d}"] = h5py.ExternalLink(name, "/data")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files() + 100, limits[1]))
    try:
        assert statuses(open_frames(tmp_path / "x_master.h5")) == [OK] * 300
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_threads_read_what_they_ask_for(large, monkeypatch):
    monkeypatch.setattr(hdf5, "OPEN_FILES", 2)
    source = open_frames(large)
    rows = np.random.default_rng(3).integers(0, 10_000, 2000).tolist()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda row: int(source.read(row).image[0, 0]), rows))
    assert found == [row + 1 for row in rows]


def test_columns_are_read_beside_frames(tmp_path):
    built = bliss_amesh(tmp_path)
    source = open_frames(built.paths[0])
    with ThreadPoolExecutor(4) as pool:
        columns = [pool.submit(source.column, "samy") for _ in range(50)]
        frames = [pool.submit(source.read, row % 12) for row in range(200)]
    for column in columns:
        np.testing.assert_array_equal(column.result(), built.positions["samy"])
    for row, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.result().image, built.frames[row % 12])


def test_an_unknown_filter_is_no_damage(tmp_path):
    """What cannot be decoded here is unreadable, not corrupt."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((1, *SHAPE))
        plist.set_filter(300, h5py.h5z.FLAG_OPTIONAL, (1, 2))
        space = h5py.h5s.create_simple((2, *SHAPE))
        data = h5py.h5d.create(file.id, b"data", h5py.h5t.NATIVE_UINT16, space, plist)
        for place in range(2):
            data.write_direct_chunk((place, 0, 0), b"x" * 100)
    assert statuses(open_frames(tmp_path / "x.h5")) == [FrameStatus.UNREADABLE] * 2


def test_a_damaged_chunk_names_its_frame(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        write_stack(file, "data", some_frames(3))
    damage_chunk(tmp_path / "x.h5", "data", 1)
    source = open_frames(tmp_path / "x.h5")
    with pytest.raises(FrameError, match=r"frame 1 of .*x.h5::/data cannot be decoded") as caught:
        source.read(1)
    assert caught.value.status == FrameStatus.CORRUPT


def test_a_link_that_was_named_and_dangles(tmp_path):
    eiger(tmp_path, "missing")
    with pytest.raises(InputMissingError, match=r"data_000002: .*s1_data_000002.h5 is not there"):
        open_frames(f"{tmp_path / 's1_master.h5'}::/entry/data/data_000002")
