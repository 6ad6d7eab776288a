"""Tables, monitors, exposure, dark and flat: each divides or subtracts what it says, or refuses."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import xrdpipe
from known_frames import SHAPE, run_cli, write_image, write_poni
from xrdpipe.errors import InputError, InputMissingError, OptionError, XrdpipeError
from xrdpipe.frames.auxiliary import load_correction, load_exposure, load_monitor
from xrdpipe.frames.dead import PixelKind
from xrdpipe.frames.tables import number_column, read_column, read_table
from xrdpipe.schema import FrameFlag, FrameStatus
from xrdpipe.types import Frame, FrameRecord, Progress

SMALL = (20, 24)

# --- tables -----------------------------------------------------------------------------------

SPEC = """#F samples
#E 1478088347

#S 3 ascan  samx 0 1 2  1
#D Wed Nov 02 14:25:47 2016
#N 3
#L samx pos  Epoch  ion 1
0.0 1 100
0.5 2 110
1.0 3 120

#S 4 loopscan 2 1
#L Time  ion 1
@A 7 8 9\\
 1 2 3
1 200
2 220

#S 3 ascan  samx 0 1 1  1
#L samx pos  Epoch  ion 1
0.0 7 300
1.0 8 310
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("frame, I0\n1, 2.5\n2, \n3, nan\n", {"frame": [1, 2, 3], "I0": [2.5, np.nan, np.nan]}),
        ("# motors\n# x y I0\n1 2 3\n\n4 5 6\n", {"x": [1, 4], "y": [2, 5], "I0": [3, 6]}),
        ("x\ty pos\n1\t2\n", {"x": [1], "y pos": [2]}),
        ("x;time\n1;10:05\n2;10:06\n", {"x": [1, 2]}),  # a column of text is none of numbers
        ("1 2\n3 4\n", {"0": [1, 3], "1": [2, 4]}),
        ('\ufeff"I0, A",n\n-1e-9,2\n', {"I0, A": [-1e-9], "n": [2]}),
        (SPEC, {"samx pos": [0, 1], "Epoch": [7, 8], "ion 1": [300, 310]}),  # the last scan
    ],
)
def test_tables_of_text(tmp_path, text, expected):
    (tmp_path / "t.dat").write_text(text, encoding="utf-8")
    table = read_table(tmp_path / "t.dat", "monitor")
    assert list(table) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(table[name], values)
        np.testing.assert_array_equal(read_column(tmp_path / "t.dat", name, "monitor"), values)


def test_a_scan_of_a_spec_file_by_number(tmp_path):
    (tmp_path / "s.spec").write_text(SPEC)
    assert list(read_table(Path(f"{tmp_path}/s.spec::S4"), "monitor")) == ["Time", "ion 1"]
    np.testing.assert_array_equal(
        read_column(Path(f"{tmp_path}/s.spec::4"), "ion 1", "monitor"), [200, 220]
    )
    # Two scans of one number: the counter was reset, the later one is meant.
    assert read_table(Path(f"{tmp_path}/s.spec::S3"), "m")["Epoch"].tolist() == [7, 8]
    with pytest.raises(InputError, match="no scan 9; it holds scans 3, 4, 3"):
        read_table(Path(f"{tmp_path}/s.spec::S9"), "monitor")


def test_tables_in_hdf5(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["1.1/instrument/ic1/data"] = np.array([1, 2, 3])
        file["1.1/measurement/ic1"] = h5py.SoftLink("/1.1/instrument/ic1/data")
        file["1.1/measurement/gone"] = h5py.ExternalLink("no.h5", "/x")
        file["1.1/measurement/image"] = np.zeros((3, 4, 5))
        file["1.1/title"] = "ascan"
    file = tmp_path / "t.h5"
    assert set(read_table(file, "monitor")) == {"1.1/instrument/ic1/data"}
    table = read_table(Path(f"{file}::/1.1/measurement"), "monitor")
    assert {name: values.tolist() for name, values in table.items()} == {"ic1": [1, 2, 3]}
    assert read_column(file, "/1.1/measurement/ic1", "monitor").tolist() == [1, 2, 3]
    assert read_column(Path(f"{file}::/1.1/measurement"), "ic1", "m").tolist() == [1, 2, 3]
    with pytest.raises(InputError, match=r"no dataset /1.1/measurement/ic2.*Did you mean 'ic1'"):
        read_column(file, "/1.1/measurement/ic2", "monitor")
    with pytest.raises(InputError, match="is not numeric"):
        read_column(file, "/1.1/title", "monitor")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x y\n1 2\n3\n", "line 3 of .* has 1 columns, the header names 2"),
        ("x,y\n", "a header but no rows"),
        ("# nothing\n", "no rows"),
        ("a\0b\n", "binary"),
        ("#S 1 ascan\n#D now\n", "scan 1 of .* has no points"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, text, message):
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "t.txt", "monitor")
    with pytest.raises(InputMissingError, match=r"monitor: .*none\.csv does not exist"):
        read_table(tmp_path / "none.csv", "monitor")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("x", "Frame Number"), "Frame Number"),
        (("x", "frames"), None),
        (("INDEX", "frame"), "frame"),
    ],
)
def test_the_column_of_numbers(names, found):
    assert number_column({name: np.zeros(1) for name in names}) == found


# --- which value belongs to which frame -------------------------------------------------------


@dataclass
class FakeSource:
    """Frames that exist only as numbers."""

    numbers: tuple[int, ...]
    numbered: bool = True
    name: str = "fake"
    kind: str = "fake frames"
    columns: dict[str, str] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    exposure: Any = None

    @property
    def records(self) -> tuple[FrameRecord, ...]:
        return tuple(FrameRecord("f", place, n, 1, 1) for place, n in enumerate(self.numbers))

    def column(self, name: str) -> np.ndarray | None:
        return self.values.get(name)

    def read(self, row: int) -> Frame:
        return Frame(np.zeros(SMALL), {"Ion_Chamber": "5"})

    def fetch(self, row: int) -> np.ndarray:
        return self.read(row).image


def table(tmp_path: Path, numbers, name: str = "frame") -> str:
    lines = [f"{name},I0", *(f"{n},{10 * n}" for n in numbers)]
    (tmp_path / "i0.csv").write_text("\n".join(lines))
    return f"{tmp_path / 'i0.csv'}::I0"


def test_rows_find_their_frames_by_number(tmp_path):
    source = FakeSource((3, 5, 6, 5))
    given = table(tmp_path, [6, 1, 2, 5, 4, 3])
    np.testing.assert_array_equal(load_monitor(given, source), [30, 50, 60, 50])
    np.testing.assert_array_equal(
        load_monitor(table(tmp_path, range(1, 5)), FakeSource((1, 2, 4))), [10, 20, 40]
    )
    given = table(tmp_path, [5, 3, 7, 1])  # no row for frame 6: unknown, not shifted, not 1
    np.testing.assert_array_equal(load_monitor(given, source), [30, 50, np.nan, 50])


def test_frames_without_numbers_take_the_rows_in_their_order(tmp_path):
    source = FakeSource((0, 1, 2), numbered=False)
    np.testing.assert_array_equal(
        load_monitor(table(tmp_path, [103, 101, 102]), source), [1010, 1020, 1030]
    )
    np.testing.assert_array_equal(
        load_monitor(table(tmp_path, [7, 5, 9], "energy"), source), [70, 50, 90]
    )


@pytest.mark.parametrize(
    ("frames", "rows", "message"),
    [
        ((0, 1, 2), (1, 2, 3), "counts 1-3, the frames 0-2"),  # counted from another start
        ((1, 2, 4, 5), (0, 1, 2, 3, 4), "counts 0-4, the frames 1-5"),  # and one was dropped
        ((0, 1, 3), (1, 2, 3, 4), "counts 1-4, the frames 0-3"),
        ((11, 12), (1, 2, 3), "counts 1-3, the frames 11-12"),
        ((1, 2, 3), (1, 2, 2), "must number the rows, each once"),
        ((1, 2, 3), (1.5, 2, 3), "must number the rows"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(tmp_path, frames, rows, message):
    with pytest.raises(InputError, match=message):
        load_monitor(table(tmp_path, rows), FakeSource(frames))


def test_a_row_too_many_is_refused_where_nothing_says_which(tmp_path):
    with pytest.raises(InputError, match="3 values for 2 frames"):
        load_monitor(table(tmp_path, (1, 2, 3), "energy"), FakeSource((1, 2)))
    source = FakeSource((1, 2), values={"edges": np.arange(3.0)})
    with pytest.raises(InputError, match="3 values for 2 frames"):
        load_monitor("edges", source)


def test_a_name_that_is_not_there_says_what_is():
    source = FakeSource((1, 2), columns={"ic1": "cts"}, values={"ic1": np.ones(2)})
    with pytest.raises(InputError, match=r"'ion_chamber' is not in .* mean 'Ion_Chamber'"):
        load_monitor("ion_chamber", source)
    with pytest.raises(InputError, match=r"'zzz'.*Known: Ion_Chamber, ic1\."):
        load_monitor("zzz", source)
    with pytest.raises(InputError, match=r"'i0\.csv'.*TABLE::COLUMN"):
        load_monitor("i0.csv", source)


def test_exposure_is_per_frame_whoever_states_it(tmp_path):
    one = FakeSource((1, 2, 3), exposure=0.5)
    np.testing.assert_array_equal(load_exposure("auto", one), [0.5, 0.5, 0.5])
    each = FakeSource((1, 2, 3), exposure=np.array([0.5, 1, 2]))
    np.testing.assert_array_equal(load_exposure("auto", each), [0.5, 1, 2])
    np.testing.assert_array_equal(load_exposure(table(tmp_path, (1, 2, 3)), one), [10, 20, 30])
    odd = FakeSource((1, 2, 3), exposure=np.ones(2))
    with pytest.raises(InputError, match="2 values for 3 frames"):
        load_exposure("auto", odd)
    silent = FakeSource((1,), columns={"ic1": ""})
    with pytest.raises(InputError, match=r"state no exposure time.*--exposure.*Ion_Chamber, ic1"):
        load_exposure("auto", silent)


# --- through the command ----------------------------------------------------------------------

SECONDS = (1.0, 2.0, 0.5, 0.0)
IC1 = (1000.0, 2000.0, 4000.0, 2000.0)
IC2 = (50.0, 25.0, 0.4, 100.0)


@pytest.fixture
def scan(tmp_path) -> Path:
    """Four equal frames of 100 counts, with counters and exposure times in their headers."""
    folder = tmp_path / "scan"
    folder.mkdir()
    for number, (seconds, ic1, ic2) in enumerate(zip(SECONDS, IC1, IC2, strict=True), 1):
        header = {"ic1": str(ic1), "ic2": str(ic2), "count_time": f"{seconds}"}
        write_image(folder / f"f_{number}.edf", np.full(SHAPE, 100, np.int32), header)
    write_poni(tmp_path / "g.poni")
    return folder


def integrated(folder: Path, **options: Any) -> dict[str, Any]:
    """Intensity per frame (equal pixels make flat patterns) and every dataset by its path."""
    output = folder.parent / "p.h5"
    options = {"solid_angle": False, "polarization_factor": None, **options}
    options |= {"bins": 40, "gain": 1, "read_noise": 0, "output": output, "restart": True}
    xrdpipe.integrate(frames=[str(folder)], poni=folder.parent / "g.poni", **options)
    found: dict[str, Any] = {}

    def keep(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with h5py.File(output) as file:
        file["entry"].visititems(keep)
        found["units"] = file["entry/data/I"].attrs["units"]
    found |= {"I": found["data/I"][:, 10], "errors": found["data/I_errors"][:, 10]}
    found |= {name: found[f"frames/{name}"].tolist() for name in ("status", "flags")}
    return found | {"reason": [reason.decode() for reason in found["frames/reason"]]}


OK, SKIPPED = int(FrameStatus.OK), int(FrameStatus.SKIPPED)
LOW = int(FrameFlag.LOW_MONITOR)


def test_two_monitors_divide_one_after_the_other(scan):
    found = integrated(scan, monitor=["ic1", "ic2"])
    median1, median2 = np.median(IC1), np.median(IC2)
    expected = 100 * median1 / np.array(IC1) * median2 / np.array(IC2)
    np.testing.assert_allclose(found["I"], expected, rtol=1e-5)
    assert found["flags"] == [0, 0, 0, 0]
    for group, values, reference in (("monitor", IC1, median1), ("monitor_2", IC2, median2)):
        np.testing.assert_array_equal(found[f"{group}/data"], values)
        assert found[f"{group}/reference"] == reference
        np.testing.assert_allclose(found[f"{group}/relative_error"], np.array(values) ** -0.5)
    assert found["monitor_applied"]
    assert found["normalization_applied"]
    given = integrated(scan, monitor=["ic1", "ic2"], monitor_reference=[2000, 5])
    np.testing.assert_allclose(given["I"], 2e6 * 0.5 / np.array(IC1) / np.array(IC2), rtol=1e-5)


def test_nothing_is_applied_that_was_not_asked_for(scan):
    found = integrated(scan)
    np.testing.assert_allclose(found["I"], 100, rtol=1e-6)
    assert not found["monitor_applied"]
    assert not found["normalization_applied"]
    assert found["units"] == "arbitrary units"
    assert not [name for name in found if name.startswith("monitor") and "/" in name]
    assert "instrument/detector/count_time" not in found


@pytest.mark.parametrize("bad", ["0", "-3", "nan"])
def test_one_bad_value_of_any_monitor_skips_its_frame_and_no_other(tmp_path, scan, bad):
    (tmp_path / "i.csv").write_text(f"frame,a,b\n1,5,5\n2,5,{bad}\n3,5,0.04\n4,5,5\n")
    found = integrated(scan, monitor=[f"{tmp_path}/i.csv::a", f"{tmp_path}/i.csv::b"])
    assert found["status"] == [OK, SKIPPED, OK, OK]
    assert found["flags"] == [0, LOW, LOW, 0]  # 0.04 is below one percent of the median
    assert "i.csv::b is " in found["reason"][1]
    assert "cannot be normalised" in found["reason"][1]
    np.testing.assert_allclose(found["I"], [100, np.nan, 12500, 100], rtol=1e-5)


def test_a_frame_the_table_does_not_know_is_skipped(tmp_path, scan):
    found = integrated(scan, monitor=[table(tmp_path, [4, 1, 3])])
    assert found["status"] == [OK, SKIPPED, OK, OK]
    assert "is unknown" in found["reason"][1]
    np.testing.assert_allclose(found["I"][[0, 2, 3]], 3000 / np.array([10, 30, 40]), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"monitor": ["ic1"], "monitor_reference": [1, 2]}, OptionError, "1 --monitor but 2"),
        ({"monitor_reference": [1]}, OptionError, "0 --monitor but 1"),
        ({"monitor": ["ic1"], "monitor_reference": [0]}, OptionError, "greater than 0"),
        ({"monitor": ["ic1", "ic3"]}, InputError, "'ic3' is not in the metadata"),
        ({"exposure": "seconds"}, InputError, "exposure time 'seconds' is not in the metadata"),
    ],
)
def test_what_cannot_be_normalised_is_refused_before_work(scan, options, error, message):
    with pytest.raises(error, match=message):
        integrated(scan, **options)
    assert not (scan.parent / "p.h5").exists()
    assert not (scan.parent / "p.h5.part").exists()


def test_exposure_makes_counts_per_second(scan):
    found = integrated(scan, exposure="auto", monitor=["ic1"])
    assert found["status"] == [OK, OK, OK, SKIPPED]
    assert "exposure time is 0" in found["reason"][3]
    assert found["flags"] == [0, 0, 0, 0]
    factor = np.median(IC1) / np.array(IC1[:3]) / np.array(SECONDS[:3])
    np.testing.assert_allclose(found["I"][:3], 100 * factor, rtol=1e-5)
    np.testing.assert_allclose(
        found["errors"][:3] / found["errors"][0], factor / factor[0], rtol=1e-5
    )
    assert found["units"] == "counts/s"
    assert found["normalization_applied"]
    np.testing.assert_array_equal(found["instrument/detector/count_time"], SECONDS)
    by_name = integrated(scan, exposure="count_time", monitor=["ic1"])
    np.testing.assert_array_equal(by_name["I"], found["I"])


def test_resampling_keeps_the_unit_and_the_normalisation(scan):
    integrated(scan, exposure="auto", monitor=["ic1", "ic2"])
    xrdpipe.resample(
        patterns=scan.parent / "p.h5",
        grid="5:9:0.1",
        wavelength=0.4959,
        output=scan.parent / "r.h5",
    )
    with h5py.File(scan.parent / "r.h5") as file:
        assert file["entry/data/I"].attrs["units"] == "counts/s"
        assert file["entry/data/I_errors"].attrs["units"] == "counts/s"
        np.testing.assert_array_equal(file["entry/monitor_2/data"], IC2)


def test_both_variants_link_every_monitor(scan):
    output = scan.parent / "p.h5"
    options = {"variant": "both", "monitor": ["ic1", "ic2"], "bins": 40}
    xrdpipe.integrate(frames=[str(scan)], poni=scan.parent / "g.poni", output=output, **options)
    with h5py.File(output) as file:
        for variant in ("masked", "unmasked"):
            assert file[f"entry/azint1d_{variant}/monitor_2/reference"][()] == np.median(IC2)


def test_other_counts_are_another_run(tmp_path, scan, capsys):
    given = table(tmp_path, (1, 2, 3, 4))
    arguments = ["integrate", scan, "--poni", tmp_path / "g.poni", "--monitor", given]
    arguments += ["-o", tmp_path / "run.h5", "--bins", "40"]
    assert run_cli(arguments) == 0
    assert run_cli(arguments) == 0
    assert "already done" in capsys.readouterr().out
    path = tmp_path / "i0.csv"
    path.write_text(path.read_text().replace("2,20", "2,21"))
    assert run_cli(arguments) == 2
    assert "--restart" in capsys.readouterr().err


# --- dark and flat ----------------------------------------------------------------------------


def plane(value: float, dtype: Any = np.int32) -> np.ndarray:
    return np.full(SMALL, value, dtype)


@pytest.fixture
def stacks(tmp_path, monkeypatch) -> Path:
    """Planes of 2, 4 and 9 counts as folder, single files and HDF5."""
    monkeypatch.chdir(tmp_path)
    Path("darks").mkdir()
    for number, value in enumerate((2, 4, 9), 1):
        write_image(Path(f"darks/d_{number}.edf"), plane(value))
    with h5py.File("d.h5", "w") as file:
        file["dark"] = np.stack([plane(value) for value in (2, 4, 9)])
    np.save("d.npy", plane(30.0, np.float64))
    np.save("stack.npy", np.stack([plane(value) for value in (2, 4, 9)]))
    return tmp_path


@pytest.mark.parametrize(
    ("references", "mean", "frames"),
    [
        (("darks",), 5, 3),
        (("darks/d_[12].edf",), 3, 2),
        (("d.h5",), 5, 3),
        (("d.h5::/dark",), 5, 3),
        (("d.h5::/dark[1]",), 4, 1),
        (("darks[2]",), 9, 1),
        (("darks/d_1.edf",), 2, 1),
        (("d.npy",), 30, 1),
        (("stack.npy",), 5, 3),
        (("stack.npy[2]",), 9, 1),
        (("darks", "d.npy"), 45 / 4, 4),  # the mean over frames, not over files
    ],
)
def test_darks_are_averaged_over_all_frames(stacks, references, mean, frames):
    dark = load_correction(references, "dark frame", SMALL, "none", 0)
    assert dark is not None
    np.testing.assert_array_equal(dark.plane, np.float32(mean))
    assert dark.frames == frames
    assert [name for name, _ in dark.sources] == list(references)


def test_a_sentinel_in_a_dark_is_no_measurement(stacks):
    images = np.stack([plane(value, np.uint32) for value in (2, 4)])
    images[0, 3, 4] = images[:, 5, 6] = 2**32 - 1
    with h5py.File("s.h5", "w") as file:
        file["dark"] = images
    np.save("s.npy", np.where(images[0] == 2, 3.0, -1.0))  # the same detector, written as floats
    counting = PixelKind(True, (-1.0, -2.0), None, "of int32 frames")
    dark = load_correction(("s.h5",), "dark frame", SMALL, "none", 0, counting)
    assert dark.plane[3, 4] == 4  # one of the two frames measured there
    assert np.isnan(dark.plane[5, 6])
    assert (np.delete(dark.plane.ravel(), [3 * 24 + 4, 5 * 24 + 6]) == 3).all()
    dark = load_correction(("s.npy",), "dark frame", SMALL, "none", 0, counting)
    assert np.isnan(dark.plane).sum() == 2
    integrating = PixelKind(False, (), 65535, "a flat panel: its negative values are data")
    dark = load_correction(("s.npy",), "dark frame", SMALL, "none", 0, integrating)
    assert dark.plane.min() == -1


@pytest.mark.parametrize(
    ("references", "message"),
    [
        (("nothing.npy",), "dark frame nothing.npy does not exist"),
        (("nothing.edf",), "dark frame nothing.edf does not exist"),
        (("d.h5::/dark[3]",), r"dark frame d.h5::/dark\[3\]: d.h5::/dark holds frames 0-2"),
        (("d.npy[1]",), r"dark frame d.npy\[1\]: d.npy holds frames 0-0"),
        (("stack.npy[3]",), r"dark frame stack.npy\[3\]: stack.npy holds frames 0-2"),
        (("none.npy",), "dark frame none.npy: none.npy holds no frame"),
        (("four.npy",), "dark frame four.npy cannot be read: 4 dimensions"),
        (("d.h5::/light",), "light"),
        (("broken",), "dark frame broken: frame 1 cannot be used .*name the good ones"),
        (("darks", "wide.npy"), "dark frame wide.npy has 20 x 30 pixels, the oriented frames"),
    ],
)
def test_a_dark_that_is_not_whole_is_refused(stacks, references, message):
    Path("broken").mkdir()
    np.save("none.npy", np.zeros((0, *SMALL)))
    np.save("four.npy", np.zeros((1, 1, *SMALL)))
    for number in (1, 2, 3):
        write_image(Path(f"broken/d_{number}.edf"), plane(number))
    Path("broken/d_2.edf").write_bytes(Path("broken/d_2.edf").read_bytes()[:700])
    np.save("wide.npy", np.zeros((20, 30)))
    with pytest.raises(XrdpipeError, match=message):
        load_correction(references, "dark frame", SMALL, "none", 0)


def test_dark_and_flat_give_back_the_light(tmp_path, scan):
    random = np.random.default_rng(4)
    flat = random.choice([0.5, 1.0, 2.0], SHAPE)
    np.save(tmp_path / "flat.npy", flat)
    (tmp_path / "darks").mkdir()
    for number, value in ((1, 10), (2, 30)):
        write_image(tmp_path / f"darks/d_{number}.edf", np.full(SHAPE, value, np.int32))
    for file in scan.glob("*.edf"):
        write_image(file, (100 * flat + 20).astype(np.int32))
    options = {"dark": [str(tmp_path / "darks")], "flat": [str(tmp_path / "flat.npy")]}
    found = integrated(scan, **options, reject="none")
    np.testing.assert_allclose(found["I"], 100, rtol=1e-5)
    assert found["reduction/input/dark_frames"] == 2
    assert found["reduction/input/flat_frames"] == 1
    assert json.loads(found["reduction/input/dark_sources"]) == [[f"{tmp_path / 'darks'}", 2]]
    # The dark's own noise is common to all frames and stays out of I_errors, as in pyFAI.
    one = integrated(scan, **options | {"dark": [f"{tmp_path / 'darks'}[0]"]}, reject="none")
    np.testing.assert_array_equal(one["errors"], found["errors"])


def test_another_dark_is_another_run(tmp_path, scan, capsys):
    np.save(tmp_path / "d.npy", np.ones(SHAPE))
    arguments = ["integrate", scan, "--poni", tmp_path / "g.poni", "--dark", tmp_path / "d.npy"]
    arguments += ["-o", tmp_path / "run.h5", "--bins", "40"]
    assert run_cli(arguments) == 0
    np.save(tmp_path / "d.npy", np.full(SHAPE, 2.0))
    assert run_cli(arguments) == 2
    assert "dark" in capsys.readouterr().err


def test_what_dark_and_flat_leave_out_is_a_source_of_the_mask(tmp_path, scan):
    flat, dark = np.ones(SHAPE), np.zeros(SHAPE)
    flat[10:12], flat[20, 3], dark[30, :5] = 0, np.nan, np.nan
    np.save(tmp_path / "f.npy", flat)
    np.save(tmp_path / "d.npy", dark)
    found = integrated(scan, flat=[tmp_path / "f.npy"], dark=[tmp_path / "d.npy"])
    sources = {name: n for name, n, _ in json.loads(found["reduction/input/mask_sources"])}
    assert sources["flat: not above zero"] == 2 * SHAPE[1] + 1
    assert sources["dark: no number"] == 5
    assert found["instrument/detector/mask_applied"].sum() == 2 * SHAPE[1] + 6
    np.save(tmp_path / "f.npy", np.ones(SHAPE))
    found = integrated(scan, flat=[tmp_path / "f.npy"])
    assert b"flat" not in found["reduction/input/mask_sources"]


@pytest.mark.parametrize(
    ("option", "value", "warned"),
    [
        ("dark", 1e6, "the median of the dark is 1e+06, that of the first frame 100"),
        ("dark", 99, None),
        ("flat", 1000, "the median of the flat is 1000, not about 1"),
        ("flat", 2, None),
    ],
)
def test_an_unusual_dark_or_flat_is_mentioned(tmp_path, scan, option, value, warned):
    np.save(tmp_path / "c.npy", np.full(SHAPE, float(value)))
    notes: list[str] = []
    xrdpipe.integrate(
        frames=[str(scan)],
        poni=tmp_path / "g.poni",
        output=tmp_path / "o.h5",
        progress=Progress(note=notes.append),
        **{option: [tmp_path / "c.npy"]},
    )
    found = [note for note in notes if f"the median of the {option}" in note]
    assert len(found) == (warned is not None)
    assert all(note.startswith(f"warning: {warned}") for note in found)


def test_an_infinite_monitor_is_flagged(tmp_path, scan):
    (tmp_path / "i.csv").write_text("frame,a\n1,5\n2,inf\n3,5\n4,5\n")
    found = integrated(scan, monitor=[f"{tmp_path}/i.csv::a"])
    assert found["status"] == [OK, SKIPPED, OK, OK]
    assert found["flags"] == [0, LOW, 0, 0]
    assert "i.csv::a is inf: cannot be normalised" in found["reason"][1]


def test_gaps_in_the_numbers_are_refused_where_the_frames_have_none(tmp_path):
    source = FakeSource((0, 1, 2), numbered=False)
    with pytest.raises(InputError, match="counts 1-4 with gaps, the frames of fake have no num"):
        load_monitor(table(tmp_path, [1, 2, 4]), source)


def test_a_name_that_comes_twice_is_refused_and_its_place_is_not(tmp_path):
    (tmp_path / "t.csv").write_text("I0,x,I0\n1,2,3\n4,5,6\n")
    with pytest.raises(InputError, match="2 columns 'I0'; name one by its place: 0 or 2"):
        read_column(tmp_path / "t.csv", "I0", "monitor")
    assert read_column(tmp_path / "t.csv", "2", "monitor").tolist() == [3, 6]


@pytest.mark.parametrize("text", ["frame;I0\n1;1,5\n", "frame I0\n1 1,5\n", "I0\n1,5\n"])
def test_decimal_commas_are_refused_by_name(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match="a decimal comma"):
        read_column(tmp_path / "t.csv", "I0", "monitor")
