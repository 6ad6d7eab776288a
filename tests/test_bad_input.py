"""Broken inputs: each has its sentence and exit code, and costs no more than it must."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

import xrdpipe
from known_frames import SHAPE, rings, run_cli, write_image, write_poni
from xrdpipe.schema import FrameStatus
from xrdpipe.types import Progress

USAGE, LOST = 2, 3


@pytest.fixture
def bench(tmp_path, monkeypatch, scan, poni) -> Path:
    """A working folder: scan/ (six TIFF frames), geometry.poni, and everything that is broken."""
    monkeypatch.chdir(tmp_path)
    write_poni(Path("no_wavelength.poni"), wavelength=None)
    write_poni(Path("other_shape.poni"), shape=(SHAPE[0] + 1, SHAPE[1]))
    write_poni(Path("transposed.poni"), shape=SHAPE[::-1])
    write_poni(Path("pilatus.poni"), detector="Pilatus300k")
    Path("text.poni").write_text("this is a shopping list\n")
    Path("binary.poni").write_bytes(bytes(range(256)))
    Path("bad_number.poni").write_text(poni.read_text().replace("Distance: 0.2", "Distance: far"))
    np.save("small_mask.npy", np.zeros((5, 5), np.uint8))
    np.save("transposed_mask.npy", np.zeros(SHAPE[::-1], np.uint8))
    np.save("all_mask.npy", np.ones(SHAPE, np.uint8))
    np.save("cube.npy", np.zeros((2, *SHAPE), np.uint8))
    left = np.indices(SHAPE)[1] < 100
    np.save("left.npy", left)
    np.save("right.npy", ~left)
    Path("broken_mask.npy").write_bytes(b"\x93NUMPY")
    Path("text_mask.tif").write_text("no image")
    Path("empty").mkdir()
    Path("texts").mkdir()
    Path("texts/readme.txt").write_text("no frames")
    Path("garbage").mkdir()
    for number in (1, 2):
        Path(f"garbage/f_{number}.tif").write_bytes(b"garbage")
    Path("broken.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    return tmp_path


def contents(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}


INTEGRATE = {
    "no such folder": (["nowhere"], {}, "nowhere does not exist"),
    "no frames in the folder": (["empty"], {}, "no frames found in empty"),
    "only texts in the folder": (["texts"], {}, "no frames found in texts"),
    "glob without a match": (["scan/*.cbf"], {}, "no frames found in scan/*.cbf"),
    "no frame readable": (["garbage"], {}, "none of the 2 files of garbage can be read"),
    "broken HDF5": (["broken.h5"], {}, "broken.h5 cannot be opened as HDF5"),
    "PONI missing": (["scan"], {"poni": "nothing.poni"}, "PONI file nothing.poni does not exist"),
    "PONI is a text": (["scan"], {"poni": "text.poni"}, "text.poni is not a PONI file"),
    "PONI is binary": (["scan"], {"poni": "binary.poni"}, "binary.poni cannot be read as a PONI"),
    "PONI is a folder": (["scan"], {"poni": "empty"}, "empty cannot be read as a PONI"),
    "PONI with a broken number": (
        ["scan"],
        {"poni": "bad_number.poni"},
        "bad_number.poni: its line 'Distance: far' is damaged; expected a distance in metres",
    ),
    "PONI without wavelength": (
        ["scan"],
        {"poni": "no_wavelength.poni"},
        "no_wavelength.poni has no wavelength; add a line",
    ),
    "PONI of another shape": (
        ["scan"],
        {"poni": "other_shape.poni"},
        f"{SHAPE[0] + 1} x {SHAPE[1]} pixels, but the frames have {SHAPE[0]} x {SHAPE[1]}",
    ),
    "PONI of the turned detector": (
        ["scan"],
        {"poni": "transposed.poni"},
        "They fit after --rotate 90 or 270",
    ),
    "PONI of another detector": (["scan"], {"poni": "pilatus.poni"}, "Pilatus 300k with 619 x 487"),
    "mask missing": (["scan"], {"mask": "nothing.tif"}, "mask nothing.tif does not exist"),
    "mask of another shape": (
        ["scan"],
        {"mask": "small_mask.npy"},
        f"mask small_mask.npy has 5 x 5 pixels, the oriented frames have {SHAPE[0]} x {SHAPE[1]}",
    ),
    "mask of the turned detector": (["scan"], {"mask": "transposed_mask.npy"}, "fits transposed"),
    "mask unreadable": (["scan"], {"mask": "broken_mask.npy"}, "mask broken_mask.npy cannot be"),
    "mask is a text": (["scan"], {"mask": "text_mask.tif"}, "mask text_mask.tif cannot be read"),
    "mask of three dimensions": (["scan"], {"mask": "cube.npy"}, "is no image: 3 dimensions"),
    "mask of everything": (["scan"], {"mask": "all_mask.npy"}, "leave no pixel: nonzero must mean"),
    "mask with unmasked": (
        ["scan"],
        {"mask": "left.npy", "variant": "unmasked"},
        "--mask has no effect on --variant unmasked",
    ),
    "dark of another shape": (
        ["scan"],
        {"dark": "small_mask.npy"},
        "dark frame small_mask.npy has",
    ),
    "flat missing": (["scan"], {"flat": "nothing.npy"}, "flat field nothing.npy does not exist"),
    "unknown monitor": (["scan"], {"monitor": "I0"}, "monitor 'I0' is not in the metadata"),
    "empty radial range": (["scan"], {"radial-range": ("9", "3")}, "radial range 9 3 is empty"),
    "radial range beside": (["scan"], {"radial-range": ("60", "70")}, "lies outside the detector"),
    "radial range of a point": (["scan"], {"radial-range": ("5", "5.001")}, "narrower than a bin"),
    "spottiness of nothing": (
        ["scan"],
        {"spottiness": None, "reject": "none"},
        "it needs --reject robust or sigma-clip",
    ),
    "unknown choice": (["scan"], {"splitting": "bbx"}, "Did you mean 'bbox'"),
    "number out of bounds": (["scan"], {"polarization-factor": "2"}, "2.0 is above 1"),
    "no number": (["scan"], {"bins": "many"}, "expected a number, got 'many'"),
}


@pytest.mark.parametrize("case", INTEGRATE)
def test_integrate_says_what_is_wrong_and_writes_nothing(bench, capsys, case):
    frames, options, message = INTEGRATE[case]
    before = contents(bench)
    arguments = ["integrate", *frames, "-o", "p.h5"]
    for name, value in {"poni": "geometry.poni", **options}.items():
        arguments.append(f"--{name}")
        arguments += [] if value is None else [value] if isinstance(value, str) else value
    assert run_cli(arguments) == USAGE
    said = capsys.readouterr().err
    assert message in " ".join(said.split())
    assert said.strip().splitlines()[-1].startswith("xrdpipe: ")
    assert contents(bench) == before


def test_two_masks_that_leave_no_pixel_together(bench, capsys):
    options = ["--poni", "geometry.poni", "--mask", "left.npy", "--mask", "right.npy"]
    assert run_cli(["integrate", "scan", *options, "-o", "p.h5"]) == USAGE
    assert "leave no pixel" in capsys.readouterr().err


def test_unknown_option_in_a_pipeline_names_the_nearest(bench, capsys):
    Path("p.toml").write_text(
        '[integrate]\nframes = "scan"\nponi = "geometry.poni"\nspliting = "no"\noutput = "p.h5"\n'
    )
    before = contents(bench)
    assert run_cli(["run", "p.toml"]) == USAGE
    said = capsys.readouterr().err
    assert "p.toml [integrate]: unknown option 'spliting'. Did you mean 'splitting'?" in said
    assert contents(bench) == before


@pytest.fixture
def patterns(bench) -> Path:
    assert run_cli(["integrate", "scan", "--poni", "geometry.poni", "-o", "p.h5"]) == 0
    return Path("p.h5")


def test_output_of_another_run_is_not_touched(patterns, capsys):
    content = patterns.read_bytes()
    arguments = ["integrate", "scan", "--poni", "geometry.poni", "-o", "p.h5"]
    assert run_cli([*arguments, "--bins", "77"]) == USAGE
    said = capsys.readouterr().err
    assert "options.bins is None there, 77 here" in said
    assert "--restart" in said
    assert patterns.read_bytes() == content
    assert not Path("p.h5.part").exists()


@pytest.mark.parametrize("option", [[], ["--restart"]])
def test_only_what_the_command_wrote_is_ever_replaced(patterns, capsys, option):
    """A slip in --output must not cost a frame, the geometry or another stage's work."""
    Path("notes.h5").write_text("somebody's notes")
    arguments = ["integrate", "scan", "--poni", "geometry.poni", *option, "-o"]
    frame = sorted(Path("scan").iterdir())[0]
    for victim in (Path("notes.h5"), frame, Path("geometry.poni")):
        content = victim.read_bytes()
        assert run_cli([*arguments, victim]) == USAGE
        assert "was not made by this command" in capsys.readouterr().err
        assert victim.read_bytes() == content
    content = patterns.read_bytes()
    # A map is written into a patterns file beside the patterns; nothing else is.
    arguments = ["resample", patterns, "--grid", "5:9:0.1", "--wavelength", "0.5", *option, "-o"]
    assert run_cli([*arguments, patterns]) == USAGE
    assert patterns.read_bytes() == content


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--grid", "60:70:0.01", "--wavelength", "0.4959"], "does not cover the grid"),
        (["--grid", "5:24", "--wavelength", "0.4959"], "expected START:STOP:STEP"),
        (["--grid", "24:5:0.01", "--wavelength", "0.4959"], "start < stop"),
        (["--grid", "5:10:0.01"], "--grid needs --wavelength"),
        (["--model", "no-such-model"], "no-such-model"),
        ([], "either --grid with --wavelength, or --model"),
        (["--grid", "5:10:0.01", "--wavelength", "0.5", "--variant", "unmasked"], "masked variant"),
    ],
)
def test_resample_refuses(patterns, bench, capsys, options, message):
    before = contents(bench)
    assert run_cli(["resample", "p.h5", *options, "-o", "r.h5"]) == USAGE
    assert message in " ".join(capsys.readouterr().err.split())
    assert contents(bench) == before


@pytest.mark.parametrize("path", ["nothing.h5", "broken.h5", "geometry.poni", "empty"])
def test_what_is_no_patterns_file_is_refused(patterns, capsys, path):
    grid = ["--grid", "5:10:0.01", "--wavelength", "0.5"]
    assert run_cli(["resample", path, *grid, "-o", "r.h5"]) == USAGE
    assert path in capsys.readouterr().err
    assert not Path("r.h5").exists()


@pytest.mark.parametrize(
    ("shape", "message"),
    [("2x2", "6 frames do not fit the scan shape 2x2 (4 pixels)"), ("3by2", "expected NYxNX")],
)
def test_map_refuses_a_scan_shape_that_does_not_fit(patterns, bench, capsys, shape, message):
    before = contents(bench)
    assert run_cli(["map", "p.h5", "--scan-shape", shape, "-o", "map.h5"]) == USAGE
    assert message in " ".join(capsys.readouterr().err.split())
    assert contents(bench) == before


# --- one bad frame costs one row --------------------------------------------------------------


def spoil(frames: Path, kind: str) -> None:
    """Break frame 3 of the folder."""
    path = next(frames.glob("*_0003.*"))
    data = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif kind == "cut in the header":
        path.write_bytes(data[:100])
    elif kind == "without bytes":
        path.write_bytes(b"")
    elif kind == "garbage":
        path.write_bytes(b"garbage" * 1000)
    elif kind == "corrupt":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes(60) + data[middle + 60 :])
    elif kind == "another shape":
        write_image(path, np.ones((20, 30), np.int32))
    elif kind == "another dtype":
        write_image(path, np.ones(SHAPE, np.uint16))
    elif kind == "all zero":
        write_image(path, np.zeros(SHAPE, np.int32))
    elif kind == "dangling link":
        path.unlink()
        path.symlink_to("gone" + path.suffix)


BAD_FRAMES = [
    (".tif", "truncated", FrameStatus.CORRUPT),
    (".tif", "cut in the header", FrameStatus.CORRUPT),
    (".tif", "without bytes", FrameStatus.CORRUPT),
    (".tif", "garbage", FrameStatus.CORRUPT),
    (".tif", "another shape", FrameStatus.WRONG_SHAPE),
    (".tif", "another dtype", FrameStatus.WRONG_SHAPE),
    (".tif", "all zero", FrameStatus.EMPTY),
    (".tif", "dangling link", FrameStatus.MISSING),
    (".cbf", "truncated", FrameStatus.CORRUPT),
    (".cbf", "cut in the header", FrameStatus.CORRUPT),
    (".cbf", "corrupt", FrameStatus.CORRUPT),
    (".edf", "truncated", FrameStatus.CORRUPT),
    (".edf", "cut in the header", FrameStatus.CORRUPT),
]


def assert_one_row_lost(bad: str, good: str, row: int, status: int, n_rows: int = 6) -> None:
    """``bad`` equals ``good`` but for one flagged row."""
    with h5py.File(bad) as one, h5py.File(good) as other:
        frames, whole = one["entry/frames"], other["entry/frames"]
        expected = np.full(n_rows, FrameStatus.OK)
        expected[row] = status
        np.testing.assert_array_equal(frames["status"][()], expected)
        np.testing.assert_array_equal(frames["index"][()], whole["index"][()])
        reason = frames["reason"][row].decode()
        assert reason
        assert not any(frames["reason"][i] for i in range(n_rows) if i != row)
        others = np.arange(n_rows) != row
        for name in ("I", "coverage"):
            data = one[f"entry/data/{name}"][()]
            assert np.isnan(data[row]).all()
            np.testing.assert_array_equal(data[others], other[f"entry/data/{name}"][()][others])
        for name in ("sum", "n_valid_pixels", "n_masked_dynamic"):
            np.testing.assert_array_equal(frames[name][()][others], whole[name][()][others])


@pytest.mark.parametrize(("suffix", "kind", "status"), BAD_FRAMES)
def test_a_bad_frame_costs_its_row_and_no_other(
    tmp_path, monkeypatch, capsys, geometry, poni, suffix, kind, status
):
    monkeypatch.chdir(tmp_path)
    for folder in ("good", "bad"):
        Path(folder).mkdir()
        for number in range(1, 7):
            rng = np.random.default_rng(number)
            image = rng.poisson(rings(geometry.two_theta)).astype(np.int32)
            write_image(Path(folder) / f"f_{number:04d}{suffix}", image)
    spoil(Path("bad"), kind)
    options = ["--poni", poni, "--bins", "200", "--threads", "2"]
    assert run_cli(["integrate", "good", *options, "-o", "good.h5"]) == 0
    capsys.readouterr()
    assert run_cli(["integrate", "bad", *options, "-o", "bad.h5"]) == LOST
    out = capsys.readouterr().out
    assert f"5 of 6 frames integrated (1 {status.name.lower()})" in out
    assert "f_0003" in out
    assert_one_row_lost("bad.h5", "good.h5", 2, status)


def test_a_frame_that_vanishes_while_the_scan_is_integrated(tmp_path, scan, poni):
    options = {"frames": [scan], "poni": poni, "bins": 200}
    xrdpipe.integrate(**options, output=tmp_path / "good.h5")
    gone = scan / "frame_0003.tif"
    outcome = xrdpipe.integrate(
        **options,
        output=tmp_path / "bad.h5",
        progress=Progress(start=lambda label, total, done: gone.unlink()),
    )
    assert outcome.lost == 1
    assert_one_row_lost(tmp_path / "bad.h5", tmp_path / "good.h5", 2, FrameStatus.MISSING)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_frame_without_permission_is_unreadable(tmp_path, scan, poni):
    options = {"frames": [scan], "poni": poni, "bins": 200}
    xrdpipe.integrate(**options, output=tmp_path / "good.h5")
    (scan / "frame_0003.tif").chmod(0)
    assert xrdpipe.integrate(**options, output=tmp_path / "bad.h5").lost == 1
    assert_one_row_lost(tmp_path / "bad.h5", tmp_path / "good.h5", 2, FrameStatus.UNREADABLE)


@pytest.mark.parametrize("compression", ["gzip", "bitshuffle"])
def test_a_corrupt_chunk_costs_its_frame(tmp_path, geometry, poni, compression):
    import hdf5plugin

    filters = {"gzip": {"compression": "gzip"}, "bitshuffle": hdf5plugin.Bitshuffle()}[compression]
    images = np.stack(
        [np.random.default_rng(n).poisson(rings(geometry.two_theta)) for n in range(6)]
    ).astype(np.uint16)
    for name in ("good", "bad"):
        with h5py.File(tmp_path / f"{name}_in.h5", "w") as file:
            data = file.create_dataset("data", data=images, chunks=(1, *SHAPE), **filters)
            place = data.id.get_chunk_info(2)
    with (tmp_path / "bad_in.h5").open("r+b") as stream:
        stream.seek(place.byte_offset + 20)
        stream.write(b"\xff" * (place.size - 40))
    options = {"poni": poni, "bins": 200, "reject": "none"}
    for name in ("good", "bad"):
        outcome = xrdpipe.integrate(
            frames=[tmp_path / f"{name}_in.h5"], output=tmp_path / f"{name}.h5", **options
        )
        assert outcome.lost == (name == "bad")
    assert_one_row_lost(tmp_path / "bad.h5", tmp_path / "good.h5", 2, FrameStatus.CORRUPT)


def test_a_virtual_dataset_without_its_source_is_missing_not_zero(tmp_path, geometry, poni):
    images = [np.random.default_rng(n).poisson(rings(geometry.two_theta)) for n in range(6)]
    layout = h5py.VirtualLayout((6, *SHAPE), np.int32)
    for number, image in enumerate(images):
        with h5py.File(tmp_path / f"part_{number}.h5", "w") as file:
            file["data"] = image.astype(np.int32)
        layout[number] = h5py.VirtualSource(str(tmp_path / f"part_{number}.h5"), "data", SHAPE)
    with h5py.File(tmp_path / "vds.h5", "w", libver="latest") as file:
        file.create_virtual_dataset("data", layout)
    options = {"frames": [f"{tmp_path / 'vds.h5'}::/data"], "poni": poni, "bins": 200}
    xrdpipe.integrate(**options, output=tmp_path / "good.h5")
    (tmp_path / "part_2.h5").unlink()
    assert xrdpipe.integrate(**options, output=tmp_path / "bad.h5").lost == 1
    assert_one_row_lost(tmp_path / "bad.h5", tmp_path / "good.h5", 2, FrameStatus.MISSING)


@pytest.mark.parametrize("shift", ["", "x"])  # one of them would be cut through a letter
def test_a_long_reason_is_cut_between_letters(tmp_path, geometry, poni, shift):
    folder = tmp_path / (shift + "Å" * 100) / ("Å" * 100)
    folder.mkdir(parents=True)
    for number in (1, 2, 3):
        write_image(folder / f"f_{number}.tif", np.ones(SHAPE, np.int32) * number)
    (folder / "f_2.tif").write_bytes(b"")
    outcome = xrdpipe.integrate(frames=[folder], poni=poni, bins=50, output=tmp_path / "p.h5")
    assert outcome.lost == 1
    with h5py.File(tmp_path / "p.h5") as file:
        reason = file["entry/frames/reason"][1]
        assert len(reason) > 240
        assert "Å" in reason.decode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no hdf5", "cannot be opened as HDF5"),
        ({"x": 1}, "no group /entry"),
        ({"entry/x": 1}, "neither patterns"),
        ({"entry/data/I": np.zeros((3, 4))}, "definition is absent"),
    ],
)
def test_validate_says_every_problem_and_returns_one(tmp_path, capsys, content, message):
    path = tmp_path / "x.h5"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with h5py.File(path, "w") as file:
            for name, value in content.items():
                file[name] = value
    assert run_cli(["validate", path]) == 1
    assert message in capsys.readouterr().err
