"""Resumed runs give the same file; the files are what NeXus and its viewers expect."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from silx.io.nxdata import NXdata, get_default

import xrdpipe
from h5compare import differences
from known_frames import SHAPE, run_cli, write_poni
from xrdpipe.config import IntegrateConfig
from xrdpipe.errors import OutputExistsError
from xrdpipe.schema import FrameStatus
from xrdpipe.stages import integrate, reduction
from xrdpipe.store import parts
from xrdpipe.store.parts import Column, PartFolder, first_difference
from xrdpipe.store.patterns import PatternsFile


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def settings(tmp_path, scan, poni, monkeypatch):
    """Options of a run of six frames in three blocks."""
    monkeypatch.setattr(reduction, "BLOCK_ROWS", 2)
    (scan / "frame_0004.tif").write_bytes(b"")  # a lost frame takes part in everything
    np.save(tmp_path / "mask.npy", np.indices(SHAPE)[0] < 20)
    return {
        "frames": [scan],
        "poni": poni,
        "mask": [str(tmp_path / "mask.npy")],
        "variant": "both",
        "bins": 150,
        "spottiness": True,
        "gain": 1.0,
        "read_noise": 0.5,
        "threads": 2,
    }


def kill_after(monkeypatch, blocks: int, settings: dict, output: Path) -> Path:
    """Run until ``blocks`` blocks are written; returns the file of blocks."""
    append = PartFolder.append
    written = []

    def stop(self, first_row, rows):
        if len(written) == blocks:
            raise KilledError
        written.append(first_row)
        append(self, first_row, rows)

    with monkeypatch.context() as patched:
        patched.setattr(PartFolder, "append", stop)
        with pytest.raises(KilledError):
            xrdpipe.integrate(**settings, output=output)
    assert not output.exists()
    return output.with_name(output.name + ".part") / "rows.bin"


def integrated_rows(monkeypatch) -> list[int]:
    """Collects the rows that are integrated from now on."""
    seen: list[int] = []
    reduce = reduction.reduce

    def count(job, rows, fetching):
        seen.extend(rows)
        return reduce(job, rows, fetching)

    monkeypatch.setattr(reduction, "reduce", count)
    return seen


@pytest.mark.parametrize(
    ("damage", "redone"),
    [
        (lambda content: content, [4, 5]),  # two of three blocks are there
        (lambda content: content[:-1], [2, 3, 4, 5]),  # the second is torn
        (lambda content: content[: len(content) // 2 + 5], [2, 3, 4, 5]),  # in its header
        (lambda content: content[:-40] + b"x" + content[-39:], [2, 3, 4, 5]),  # a bit turned
        (lambda content: b"", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_a_resumed_run_gives_the_file_of_an_uninterrupted_one(
    tmp_path, monkeypatch, settings, damage, redone
):
    xrdpipe.integrate(**settings, output=tmp_path / "whole.h5")
    rows = kill_after(monkeypatch, 2, settings, tmp_path / "p.h5")
    rows.write_bytes(damage(rows.read_bytes()))
    seen = integrated_rows(monkeypatch)
    outcome = xrdpipe.integrate(**settings, output=tmp_path / "p.h5")
    assert sorted(seen) == redone
    assert outcome.lost == 1
    assert not rows.parent.exists()
    assert differences(tmp_path / "whole.h5", tmp_path / "p.h5") == []


def test_a_run_killed_while_the_file_is_written_integrates_nothing_again(
    tmp_path, monkeypatch, settings
):
    xrdpipe.integrate(**settings, output=tmp_path / "whole.h5")

    def die(path, header, blocks, kept):
        path.with_name(path.name + ".writing").write_bytes(b"half a file")
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(integrate, "write_patterns", die)
        with pytest.raises(KilledError):
            xrdpipe.integrate(**settings, output=tmp_path / "p.h5")
    assert not (tmp_path / "p.h5").exists()
    seen = integrated_rows(monkeypatch)
    xrdpipe.integrate(**settings, output=tmp_path / "p.h5")
    assert seen == []
    assert differences(tmp_path / "whole.h5", tmp_path / "p.h5") == []


@pytest.mark.parametrize("engine", ["matrix", "pyfai"])
def test_threads_and_blocks_change_nothing(tmp_path, monkeypatch, settings, engine):
    for threads, block in ((1, 2), (3, 2), (3, 64), (2, 1)):
        monkeypatch.setattr(reduction, "BLOCK_ROWS", block)
        xrdpipe.integrate(
            **{**settings, "threads": threads, "engine": engine},
            output=tmp_path / f"{threads}_{block}.h5",
        )
    for other in ("3_2", "3_64", "2_1"):
        assert differences(tmp_path / "1_2.h5", tmp_path / f"{other}.h5") == []


def test_the_same_command_again_is_already_done(tmp_path, monkeypatch, settings):
    output = tmp_path / "p.h5"
    xrdpipe.integrate(**settings, output=output)
    before = output.stat().st_mtime_ns
    seen = integrated_rows(monkeypatch)
    for threads in (2, 1):  # threads are not in the key
        again = xrdpipe.integrate(**{**settings, "threads": threads}, output=output)
        assert again.summary == (
            f"{output}: already done. 1 of its frames were lost; --restart tries them again."
        )
        assert again.lost == 0
    assert seen == []
    assert output.stat().st_mtime_ns == before
    xrdpipe.integrate(**settings, output=output, restart=True)
    assert sorted(seen) == [0, 1, 2, 3, 4, 5]


def test_inputs_that_moved_are_the_same_inputs(tmp_path, monkeypatch, settings):
    output = tmp_path / "p.h5"
    xrdpipe.integrate(**settings, output=output)
    there = tmp_path / "elsewhere"
    there.mkdir()
    for name in ("geometry.poni", "mask.npy"):
        shutil.move(tmp_path / name, there / name)
    shutil.move(tmp_path / "scan", there / "scan")
    moved = {
        "frames": [there / "scan"],
        "poni": there / "geometry.poni",
        "mask": [str(there / "mask.npy")],
    }
    assert xrdpipe.integrate(**{**settings, **moved}, output=output).done_before


def change_poni(folder: Path, settings: dict) -> dict:
    write_poni(folder / "other.poni", distance=0.21)
    return {**settings, "poni": folder / "other.poni"}


def change_mask(folder: Path, settings: dict) -> dict:
    np.save(folder / "mask.npy", np.indices(SHAPE)[1] < 20)
    return settings


def change_frame(folder: Path, settings: dict) -> dict:
    frame = folder / "scan" / "frame_0002.tif"
    os.utime(frame, ns=(1, frame.stat().st_mtime_ns + 1))
    return settings


def drop_frame(folder: Path, settings: dict) -> dict:
    (folder / "scan" / "frame_0006.tif").unlink()
    return settings


CHANGES = {
    "option": (lambda folder, s: {**s, "splitting": "no"}, "options.splitting is 'bbox' there"),
    "engine": (lambda folder, s: {**s, "engine": "pyfai"}, "options.engine is 'matrix' there"),
    "poni": (change_poni, "poni is '"),
    "mask": (change_mask, "masks[1][1] is"),
    "frame": (change_frame, "frames[1][4] is"),
    "number of frames": (drop_frame, "frames has 6 entries there, 5 here"),
}


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("what", CHANGES)
def test_another_run_is_refused_by_its_first_difference(
    tmp_path, monkeypatch, settings, what, finished
):
    output = tmp_path / "p.h5"
    if finished:
        xrdpipe.integrate(**settings, output=output)
    else:
        kill_after(monkeypatch, 1, settings, output)
    change, difference = CHANGES[what]
    changed = change(tmp_path, settings)
    with pytest.raises(OutputExistsError) as caught:
        xrdpipe.integrate(**changed, output=output)
    assert difference in str(caught.value)
    assert "--restart" in str(caught.value)
    xrdpipe.integrate(**changed, output=output, restart=True)
    xrdpipe.integrate(**changed, output=tmp_path / "fresh.h5")
    assert differences(output, tmp_path / "fresh.h5") == []


@pytest.mark.parametrize(
    ("old", "new", "phrase"),
    [
        ({"a": 1, "b": [1, {"c": 2}]}, {"a": 1, "b": [1, {"c": 2}]}, None),
        ({"a": 1}, {"a": 1, "b": 2}, "b is only here"),
        ({"a": {"x": 1}}, {"a": {}}, "a.x is only there"),
        ({"a": [1, 2]}, {"a": [1, 3]}, "a[1] is 2 there, 3 here"),
    ],
)
def test_first_difference(old, new, phrase):
    assert first_difference(old, new) == phrase


def test_blocks_come_back_in_row_order_and_bit_by_bit(tmp_path):
    columns = {
        "status": Column("|u1"),
        "I": Column("<f4", (5,)),
        "reason": Column("S8"),
        "n": Column("<f8"),
    }
    rng = np.random.default_rng(0)
    parts = PartFolder(tmp_path / "out.h5", columns)
    assert parts.begin({"a": 1}, restart=False).size == 0
    written = {}
    for first, count in ((4, 3), (0, 2), (2, 2)):
        rows = {
            "status": rng.integers(0, 9, count).astype(np.uint8),
            "I": rng.normal(size=(count, 5)).astype(np.float32),
            "reason": np.array([b"a", b"bcd", b""])[:count].astype("S8"),
            "n": np.full(count, np.nan),
        }
        parts.append(first, rows)
        written[first] = rows
    parts.__exit__()
    with PartFolder(tmp_path / "out.h5", columns) as again:
        assert list(again.begin({"a": 1}, False)) == list(range(7))
    found = dict(parts.blocks())
    assert list(found) == [0, 2, 4]
    for first, rows in found.items():
        for name, value in rows.items():
            assert value.tobytes() == written[first][name].tobytes()


# --- what the file says -----------------------------------------------------------------------


@pytest.fixture
def both(tmp_path, settings) -> Path:
    xrdpipe.integrate(**settings, output=tmp_path / "both.h5")
    return tmp_path / "both.h5"


@pytest.fixture
def single(tmp_path, settings) -> Path:
    del settings["spottiness"]
    xrdpipe.integrate(**{**settings, "variant": "masked"}, output=tmp_path / "single.h5")
    return tmp_path / "single.h5"


def resampled(path: Path, **options) -> Path:
    output = path.with_name("resampled.h5")
    xrdpipe.resample(patterns=path, grid="3:10:0.05", wavelength=0.45, output=output, **options)
    return output


def test_files_are_valid_for_ourselves(both, single, capsys):
    for path in (both, single, resampled(single)):
        assert run_cli(["validate", path]) == 0
        assert "valid patterns file" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["both", "single", "resampled"])
def test_viewers_find_valid_data_and_a_default_plot(request, name):
    path = resampled(request.getfixturevalue("single")) if name == "resampled" else None
    path = path or request.getfixturevalue(name)
    groups = ["entry/data"]
    if name == "both":
        groups += ["entry/azint1d_masked/data", "entry/azint1d_unmasked/data"]
    with h5py.File(path) as file:
        for group in groups:
            data = NXdata(file[group])
            assert data.is_valid, data.issues
            assert data.signal.name.endswith("data/I")
            assert data.errors.shape == data.signal.shape
            assert data.interpretation == "spectrum"
            assert data.axes_dataset_names[-1] == "radial_axis"
            np.testing.assert_array_equal(data.axes[-1][()], file[f"{group}/radial_axis"][()])
        default = get_default(file)
        assert default.is_valid
        assert default.signal.name == "/entry/data/I"
        assert file["/entry/data/radial_axis"].attrs["units"] == "degrees"


TREE = """
data/I data/I_errors data/coverage data/norm data/radial_axis data/radial_axis_edges
definition end_time entry_identifier_uuid
frames/flags frames/index frames/max frames/n_masked_dynamic frames/n_masked_static
frames/n_saturated frames/n_sentinel frames/n_valid_pixels frames/reason frames/source_file_index
frames/source_files frames/source_frame frames/source_mtime_ns frames/source_size frames/status
frames/sum
instrument/detector/description instrument/detector/mask_applied
instrument/detector/x_pixel_size instrument/detector/y_pixel_size
instrument/monochromator/energy instrument/monochromator/wavelength instrument/name
instrument/source/name instrument/source/probe instrument/source/type
monitor_applied normalization_applied polarization_applied program_name
reduction/date reduction/note reduction/program reduction/reference reduction/run_key
reduction/sequence_index reduction/version
reduction/input/config_json reduction/input/detector_orientation reduction/input/distance
reduction/input/distance_of_frames reduction/input/error_model reduction/input/flip
reduction/input/geometry_format reduction/input/mask_sources reduction/input/method
reduction/input/integration_path reduction/input/outlier_rejection
reduction/input/pixel_kind reduction/input/polarization_factor reduction/input/poni
reduction/input/poni_file reduction/input/poni_sha256 reduction/input/pyfai_version
reduction/input/radial_bins reduction/input/radial_range reduction/input/rotate
reduction/input/saturation_value reduction/input/sentinels reduction/input/solid_angle_formula
reduction/input/unit reduction/input/wavelength_of_frames
reduction/input/wavelength_of_geometry reduction/input/wavelength_source
sample/name solid_angle_applied title
"""
"""Every dataset of a file of one variant, below /entry."""

COMMON = TREE.split()


def tree(path: Path) -> set[str]:
    """Every dataset by hard links, without /entry."""
    names: set[str] = set()
    with h5py.File(path) as file:
        file["entry"].visititems(
            lambda name, item: names.add(name) if isinstance(item, h5py.Dataset) else None
        )
    return names


def test_golden_tree(both, single):
    assert tree(single) == set(COMMON)
    switches = ("definition", "monitor_applied", "normalization_applied", "polarization_applied",
                "solid_angle_applied")  # fmt: skip
    data = ("I", "I_errors", "azimuthal_excess_variance", "coverage", "norm", "radial_axis",
            "radial_axis_edges", "spottiness")  # fmt: skip
    expected = {name for name in COMMON if not name.startswith("data/")}
    for variant in ("masked", "unmasked"):
        expected |= {f"azint1d_{variant}/{name}" for name in switches}
        expected |= {f"azint1d_{variant}/data/{name}" for name in data}
    assert tree(both) == expected
    with h5py.File(both) as file:
        link = file.get("entry/data", getlink=True)
        assert isinstance(link, h5py.SoftLink)
        assert link.path == "/entry/azint1d_masked/data"
        for shared in ("instrument", "reduction", "sample"):
            assert f"entry/azint1d_unmasked/{shared}" in file
    with h5py.File(single) as file:
        assert file["entry/data"].attrs["variant"] == "masked"


def test_resampling_adds_its_own_group_and_keeps_the_rest(single):
    path = resampled(single)
    added = {
        f"resampling/{name}"
        for name in (
            "date", "error_correlation_length", "grid", "method", "polarization_divided_out",
            "program", "run_key", "sequence_index", "source", "source_wavelength", "version",
        )
    }  # fmt: skip
    assert tree(path) == set(COMMON) | added


def test_types_and_fill_values(both):
    with h5py.File(both) as file:
        entry = file["entry"]
        for variant in ("masked", "unmasked"):
            data = entry[f"azint1d_{variant}/data"]
            for name in ("I", "I_errors", "coverage", "spottiness", "azimuthal_excess_variance"):
                assert data[name].dtype == np.float32
                assert np.isnan(data[name].fillvalue)
                assert data[name].shape == (6, 150)
                assert data[name].chunks[1] == 150
                assert np.isnan(data[name][3]).all()  # the lost frame
            assert data["radial_axis"].dtype == np.float64
            assert data["radial_axis_edges"].shape == (151,)
        status = entry["frames/status"]
        assert status.dtype == np.uint8
        assert status[()].tolist() == [1, 1, 1, FrameStatus.CORRUPT, 1, 1]
        meanings = status.attrs["flag_meanings"].split()
        assert meanings[FrameStatus.CORRUPT] == "corrupt"
        assert len(meanings) == len(status.attrs["flag_values"]) == 9
        assert entry["frames/flags"].dtype == np.uint16
        assert entry["frames/index"][()].tolist() == [1, 2, 3, 4, 5, 6]
        assert entry["frames/index"].attrs["numbered"]
        assert [name.decode() for name in entry["frames/source_files"][()]] == [
            f"frame_{n:04d}.tif" for n in range(1, 7)
        ]
        assert entry["frames/n_masked_static"][0] == 20 * SHAPE[1]
        np.testing.assert_array_equal(
            entry["instrument/detector/mask_applied"][()], np.indices(SHAPE)[0] < 20
        )


def test_reading_chooses_the_variant(both, single):
    with h5py.File(both) as file:
        stored = {v: file[f"entry/azint1d_{v}/data/I"][()] for v in ("masked", "unmasked")}
    assert not np.array_equal(stored["masked"], stored["unmasked"], equal_nan=True)
    for variant, expected in ((None, "masked"), ("masked", "masked"), ("unmasked", "unmasked")):
        with PatternsFile(both, variant) as patterns:
            rows = patterns.rows(1, 3)
            assert patterns.variant == expected
            assert patterns.numbered
            assert rows.frame.tolist() == [2, 3]
            np.testing.assert_array_equal(rows.intensity, stored[expected][1:3])
            assert rows.polarization_factor == 0.99
    with pytest.raises(ValueError, match="holds the masked variant, not 'unmasked'"):
        PatternsFile(single, "unmasked")


def test_only_one_option_set_is_the_key(tmp_path, scan, poni):
    """The key holds every option that can change a number, by name."""
    config = IntegrateConfig(frames=(str(scan),), poni=poni, output=tmp_path / "p.h5")
    job = integrate.prepare(config, xrdpipe.types.Progress())
    options = set(job.header.key["options"])
    everything = set(config.resolved())
    assert everything - options == {
        "output", "restart", "threads", "cache", "device", "frames", "poni", "mask", "dark", "flat"
    }  # fmt: skip
    assert set(job.header.key) >= {"poni", "masks", "dark", "flat", "monitor", "frames", "versions"}


def test_of_two_that_begin_at_once_with_other_keys_one_is_refused(tmp_path, monkeypatch):
    columns = {"status": Column("|u1")}
    first = PartFolder(tmp_path / "p.h5", columns, "1-of-2")
    second = PartFolder(tmp_path / "p.h5", columns | {"flags": Column("<u2")}, "2-of-2")
    told = parts.key_text

    def meanwhile(key):  # the other one begins after this one has found no key
        monkeypatch.setattr(parts, "key_text", told)
        second.begin({"stage": "integrate", "frames": [2]}, restart=False)
        return told(key)

    monkeypatch.setattr(parts, "key_text", meanwhile)
    with first, second:
        with pytest.raises(OutputExistsError, match=r"frames\[0\] is 2 there, 1 here"):
            first.begin({"stage": "integrate", "frames": [1]}, restart=False)
        second.append(0, {"status": np.ones(2, "u1"), "flags": np.ones(2, "u2")})
        assert set(parts.stored_columns(second.folder)) == {"status", "flags"}
