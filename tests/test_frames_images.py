"""Image files: which are one series, what names and headers say, and what is wrong with them."""

from __future__ import annotations

import datetime
import struct
from pathlib import Path

import fabio.edfimage
import h5py
import numpy as np
import pytest

import xrdpipe
from known_frames import DATA
from layouts.images import (
    COUNTS,
    area_detector_tiff,
    cbf,
    edf,
    edf_gz,
    edf_header,
    mar345,
    mar_ccd,
    multi_tiff,
    pilatus_tiff,
    plain_tiff,
    spe,
    tiff,
)
from xrdpipe.errors import FrameError, InputError, InputMissingError
from xrdpipe.frames import images as images_module
from xrdpipe.frames import open_frames
from xrdpipe.frames.headers import detector_info, exposure_key, number, read_headers, text_values
from xrdpipe.frames.images import read_image
from xrdpipe.frames.names import original_name, pattern, read_names
from xrdpipe.scan import place_frames
from xrdpipe.schema import FrameStatus

SMALL = (20, 24)


def plane(value: int, dtype="i4", shape=SMALL) -> np.ndarray:
    return np.full(shape, value, dtype)


def series(folder: Path, names) -> Path:
    """A TIFF per name; every pixel tells its place in the list."""
    for place, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        plain_tiff(file, plane(place), place)
    return folder


def numbers_of(source) -> list[int]:
    return [record.index for record in source.records]


def problems_of(source) -> list[int]:
    return [record.problem for record in source.records]


# --- names ------------------------------------------------------------------------------------


def scan_of(names):
    found = read_names([Path(name) for name in names])
    return found, found.scan


RASTER = [(row, column) for row in range(3) for column in range(4)]


@pytest.mark.parametrize(
    ("form", "x", "y"),
    [
        ("map_r{0:03d}_c{1:03d}.tif", "name:c", "name:r"),
        ("map_c{1:03d}_r{0:03d}.tif", "name:c", "name:r"),
        ("x{1:03d}_y{0:03d}.cbf", "name:x", "name:y"),
        ("samy_{1}_samz_{0}.edf", "name:samy", "name:samz"),  # ESRF: z is vertical
        ("map_{0:03d}_{1:03d}.tif", "name:x", "name:y"),
        ("row_{0:03d}/img_{1:04d}.tif", "name:x", "name:row"),
        ("20260105_map_{0:02d}_{1:02d}.tif", "name:x", "name:y"),
    ],
)
def test_two_numbers_form_a_grid(form, x, y):
    found, scan = scan_of([form.format(row, column) for row, column in RASTER])
    assert (scan.x, scan.y, scan.shape, scan.source) == (x, y, (3, 4), "filename")
    assert found.numbered
    assert found.numbers == list(range(12))
    values = {name: column for name, (column, _) in found.columns.items()}
    assert list(zip(values[y].astype(int), values[x].astype(int), strict=True)) == RASTER


@pytest.mark.parametrize("lost", [[0], [5], [11], [4, 5, 6, 7]])
def test_a_hole_in_a_grid_shifts_nothing(lost):
    names = ["r{}_c{}.tif".format(*RASTER[n]) for n in range(12) if n not in lost]
    if lost == [0]:
        names += ["r0_c0.tif.gz"]
        lost = []
    found, scan = scan_of(sorted(names))
    assert scan.shape == (3, 4)
    assert found.numbers == [n for n in range(12) if n not in lost]


def test_numbers_in_steps_are_a_grid_too():
    names = [f"x{x:04d}_y{y:04d}.tif" for y in (0, 250, 750) for x in (100, 150, 200)]
    found, scan = scan_of(names)
    assert scan.shape == (4, 3)
    assert found.numbers == [0, 1, 2, 3, 4, 5, 9, 10, 11]


@pytest.mark.parametrize(
    "names",
    [
        [f"img_{n:04d}.tif" for n in range(12)],
        [f"img_{n:04d}_{2 * n:04d}.tif" for n in range(12)],
        [f"run{n}_{n + 3}.tif" for n in range(2)],
        [f"img_{n:05d}_2026010{1 + n // 6}.tif" for n in range(12)],
        [
            (datetime.datetime(2026, 1, 5, 12) + datetime.timedelta(seconds=20 * n)).strftime(
                "img_%Y%m%d_%H%M%S.tif"
            )
            for n in range(90)
        ],
        [
            (datetime.datetime(2026, 1, 5, 12) + datetime.timedelta(seconds=20 * n)).strftime(
                "img_%H-%M-%S.tif"
            )
            for n in range(90)
        ],
        [f"a_{n}.tif" for n in (1, 10, 100)],
        ["left.tif", "right.tif"],
    ],
)
def test_counters_and_time_stamps_are_no_grid(names):
    _, scan = scan_of(names)
    assert scan is None


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        ([f"img_{n:04d}_2026-01-05_12-00-{n:02d}.tif" for n in (1, 2, 4)], [1, 2, 4]),
        ([f"s_{uid}_{n:04d}.tif" for n, uid in ((7, "a1b2c3"), (8, "9f8e7d"))], [7, 8]),
        ([f"f{n:05d}.tif" for n in (12, 13)], [12, 13]),
        ([f"T25_{n:03d}.tif" for n in (1, 2)] + ["T50_003.tif"], [1, 2, 3]),
        ([f"row_{n // 4}/img_{n:04d}.tif" for n in range(8)], list(range(8))),
    ],
)
def test_the_counter_is_found_beside_other_numbers(names, numbers):
    found, _ = scan_of(names)
    assert found.numbered
    assert found.numbers == numbers


def test_the_time_of_day_is_no_frame_number():
    names = [f"img_20260105_12{n:02d}30.tif" for n in range(10)]
    found, _ = scan_of(names)
    assert not found.numbered
    assert found.numbers == list(range(10))


def test_a_counter_runs_on_through_folders_of_lines():
    names = [f"row_{n // 4}/img_{n:04d}.tif" for n in range(12) if n != 6]
    found, scan = scan_of(names)
    assert scan.shape == (3, 4)
    assert scan.fast_axis == "x"
    assert found.numbers == [n for n in range(12) if n != 6]


@pytest.mark.parametrize(("fast", "snake"), [("x", False), ("x", True), ("y", False), ("y", True)])
def test_a_third_number_counts_and_shows_the_path(fast, snake):
    path = []
    for slow in range(3 if fast == "x" else 4):
        line = list(range(4 if fast == "x" else 3))
        for step in line[::-1] if snake and slow % 2 else line:
            path.append((slow, step) if fast == "x" else (step, slow))
    names = sorted(f"r{y}_c{x}_{n:03d}.tif" for n, (y, x) in enumerate(path, 1))
    found, scan = scan_of(names)
    assert found.numbers == list(range(1, 13))
    assert (scan.fast_axis, scan.snake) == (fast, snake)
    rows, columns = (found.columns[name][0].astype(int) for name in ("name:r", "name:c"))
    assert list(zip(rows, columns, strict=True)) == path


def test_scattered_positions_have_no_shape():
    x, y = np.random.default_rng(1).uniform(-2, 2, (2, 9)).round(3)
    found, scan = scan_of([f"x{a:.3f}_y{b:.3f}.tif" for a, b in zip(x, y, strict=True)])
    assert scan.shape is None
    assert not found.numbered
    np.testing.assert_array_equal(found.columns["name:x"][0], x)
    np.testing.assert_array_equal(found.columns["name:y"][0], y)


def test_positions_of_a_line_are_no_frame_numbers():
    found, scan = scan_of([f"samx{x:.2f}mm.tif" for x in (0.25, 0.5, 0.75)])
    assert scan is None
    assert not found.numbered
    values, units = found.columns["name:samx"]
    assert values.tolist() == [0.25, 0.5, 0.75]
    assert units == "mm"


@pytest.mark.parametrize(
    ("name", "original"),
    [
        ("a_01.tif", "a_01.tif"),
        ("a_01.TIFF", "a_01.tif"),
        ("a_01.tif.gz", "a_01.tif"),
        ("a_01 (1).tif", "a_01.tif"),
        ("a_01_copy.tif", "a_01.tif"),
        ("a_01 - Copy (2).tif", "a_01.tif"),
        ("Copy of a_01.tif", "a_01.tif"),
        ("a_01_1.tif", "a_01_1.tif"),  # may be the first of a repetition
        ("hardcopy_1.tif", "hardcopy_1.tif"),
    ],
)
def test_marks_of_copies(name, original):
    assert original_name(name) == original


def test_the_pattern_does_not_see_numbers():
    assert pattern("x-0.5_y1p25_007.TIFF") == pattern("x12_y-3.0_123.tif.gz")
    assert pattern("dark_001.tif") != pattern("scan_001.tif")


# --- which files are one series ---------------------------------------------------------------


@pytest.mark.parametrize("stray", ["dark.tif", "dark_001.tif", "CeO2_30s.tif", "scan_dark_1.tif"])
def test_a_dark_or_calibrant_beside_a_scan_is_refused_with_the_glob_to_use(tmp_path, stray):
    names = [f"scan_{n:03d}.tif" for n in range(1, 6)]
    series(tmp_path, [*names, stray])
    with pytest.raises(InputError) as caught:
        open_frames(tmp_path)
    text = str(caught.value)
    assert "2 series of images (5 × scan_001.tif, 1 × " + stray in text
    assert f"{tmp_path}/scan_[0-9]*.tif" in text
    assert numbers_of(open_frames(f"{tmp_path}/scan_[0-9]*.tif")) == [1, 2, 3, 4, 5]
    everything = open_frames(f"{tmp_path}/*.tif")
    assert len(everything.records) == 6
    assert any("2 name patterns" in phrase for phrase in everything.evidence)


def test_names_without_a_common_pattern_are_one_series(tmp_path):
    series(tmp_path, ["left.tif", "middle.tif", "right.tif"])
    source = open_frames(tmp_path)
    assert not source.numbered
    assert len(source.records) == 3
    assert any("3 name patterns in natural order" in phrase for phrase in source.evidence)


def test_side_files_are_left_aside_and_counted(tmp_path):
    series(tmp_path, [f"s_{n}.tif" for n in range(3)])
    for name in ("s_0.tif.metadata", "s_1.tif.metadata", "det.hexrd", "scan.xml", "README"):
        (tmp_path / name).write_text("x=1")
    source = open_frames(tmp_path)
    assert len(source.records) == 3
    phrase = next(phrase for phrase in source.evidence if "not read" in phrase)
    for part in ("2 × .metadata", "1 × .hexrd", "1 × .xml", "1 × no suffix"):
        assert part in phrase


def test_a_folder_of_folders_says_which_glob_to_use(tmp_path):
    series(tmp_path / "scan", [f"row_{n:02d}/a_{m}.tif" for n in (9, 10) for m in (2, 10)])
    with pytest.raises(InputMissingError, match=r"scan/\*/\*\.tif"):
        open_frames(tmp_path / "scan")
    source = open_frames(f"{tmp_path}/scan/*/*.tif")
    assert [int(source.read(row).image[0, 0]) for row in range(4)] == [0, 1, 2, 3]


def test_several_masters_are_listed(tmp_path):
    for name in ("a", "b"):
        with h5py.File(tmp_path / f"{name}_master.h5", "w") as file:
            file["entry/data/data_000001"] = h5py.ExternalLink(f"{name}_data.h5", "/data")
        (tmp_path / f"{name}_data_000001.h5").touch()
    with pytest.raises(InputError, match=r"2 HDF5 masters \(a_master\.h5, b_master\.h5\)"):
        open_frames(tmp_path)


@pytest.mark.parametrize(
    ("name", "opens"),
    [
        ("cpf_bcc_iron", "2 series of images"),
        ("cpf_bcc_iron/BCC1_*.tif", 1),
        ("lightform_pixium_series", r"frames?.*\*/\*\.tif"),
        ("lightform_pixium_series/frames", 3),
        ("hexrd_ceria_pilatus2m", 1),
        ("autoanalyzer_xy", "no frames found"),
    ],
)
def test_real_folders_open_or_say_why_not(name, opens):
    if not DATA.is_dir():
        pytest.skip(f"real frames are not here: {DATA}")
    if isinstance(opens, int):
        assert len(open_frames(str(DATA / name)).records) == opens
    else:
        with pytest.raises((InputError, InputMissingError), match=opens):
            open_frames(str(DATA / name))


def test_a_real_pilatus_header():
    file = DATA / "cpf_bcc_iron" / "BCC1_2GPa_10s_001_00001.tif"
    if not file.is_file():
        pytest.skip(f"real frames are not here: {file}")
    source = open_frames(file)
    assert source.detector.description == "PILATUS 1M-F"
    assert source.detector.saturation_value == 1048574
    assert source.exposure == pytest.approx(0.4)
    assert source.column("Start_angle").tolist() == [0]


# --- duplicates -------------------------------------------------------------------------------


@pytest.mark.parametrize("twin", ["a_2 (1).tif", "a_2_copy.tif", "Copy of a_2.tif", "a_2.tiff"])
def test_a_copy_is_a_duplicate_and_shifts_nothing(tmp_path, twin):
    series(tmp_path, ["a_1.tif", "a_2.tif", "a_3.tif"])
    (tmp_path / twin).write_bytes((tmp_path / "a_2.tif").read_bytes())
    source = open_frames(tmp_path)
    assert numbers_of(source) == [1, 2, 2, 3]
    assert problems_of(source) == [0, 0, FrameStatus.DUPLICATE, 0]
    assert source.numbered
    assert source.records[2].reason == f"{tmp_path / twin} is, by its name, a copy of " + str(
        tmp_path / "a_2.tif"
    )
    with pytest.raises(FrameError, match="copy of") as caught:
        source.read(2)
    assert caught.value.status == FrameStatus.DUPLICATE
    assert any(phrase.startswith("1 duplicate,") for phrase in source.evidence)


def test_a_copy_whose_original_is_gone_is_the_frame(tmp_path):
    series(tmp_path, ["a_1.tif", "a_2 (1).tif", "a_3.tif"])
    source = open_frames(tmp_path)
    assert numbers_of(source) == [1, 2, 3]
    assert problems_of(source) == [0, 0, 0]
    assert source.numbered


def test_links_repeat_what_they_point_to(tmp_path):
    series(tmp_path, ["a_1.tif", "a_2.tif", "a_3.tif"])
    (tmp_path / "latest.tif").symlink_to("a_3.tif")
    (tmp_path / "a_2_copy.tif").hardlink_to(tmp_path / "a_2.tif")
    source = open_frames(tmp_path)
    assert numbers_of(source) == [1, 2, 2, 3, 3]
    twin = FrameStatus.DUPLICATE
    assert problems_of(source) == [0, 0, twin, 0, twin]
    assert source.records[2].reason.endswith("a_2.tif")
    assert source.records[4].reason.endswith("a_3.tif")


def test_a_link_with_a_number_of_its_own_is_a_frame(tmp_path):
    series(tmp_path, ["a_1.tif", "a_2.tif"])
    (tmp_path / "a_3.tif").hardlink_to(tmp_path / "a_1.tif")
    (tmp_path / "a_4.tif").symlink_to("a_2.tif")
    source = open_frames(tmp_path)
    assert numbers_of(source) == [1, 2, 3, 4]
    assert problems_of(source) == [0, 0, 0, 0]


def test_a_folder_of_links_is_a_series(tmp_path):
    series(tmp_path / "store", ["a_1.tif", "a_2.tif"])
    (tmp_path / "scan").mkdir()
    for n in (1, 2):
        (tmp_path / "scan" / f"b_{n}.tif").symlink_to(tmp_path / f"store/a_{n}.tif")
    assert problems_of(open_frames(tmp_path / "scan")) == [0, 0]


# --- headers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.5 s", (0.5, "s")),
        ("1048574 counts", (1048574, "counts")),
        ("12.4keV", (12.4, "keV")),
        ("-1e-3", (-1e-3, "")),
        (" 5 cts", (5, "cts")),
        ("0.0000 deg.", (0, "deg.")),
        ("172e-6 m x 172e-6 m", (172e-6, "m")),
        ("2026-01-05T12:00:00", None),
        ("12:30:01", None),
        ("1 2 3", None),
        ("(1.0, 2.0) pixels", None),
        ("Fri Mar 4", None),
        ("", None),
    ],
)
def test_numbers_and_units(text, value):
    assert number(text) == value


def test_lines_of_text():
    text = "# Exposure_time 0.5 s\r\n# Tau = 0 s\n# Threshold_setting: 9 eV\nkey = 3\nnonsense\n"
    assert text_values(text) == {
        "Exposure_time": "0.5 s",
        "Tau": "0 s",
        "Threshold_setting": "9 eV",
        "key": "3",
    }


@pytest.mark.parametrize(
    ("header", "wavelength", "distance"),
    [
        ({"Wavelength": "0.4959 A", "Detector_distance": "0.2 m"}, 0.4959, 0.2),
        ({"WaveLength": "4.959e-11", "SampleDistance": "0.2"}, 0.4959, 0.2),
        ({"WAVELEN": "0.71073 0.70930 0.71359", "DISTANC": "6.0"}, 0.71073, 0.06),
        ({"Wavelength": "0.05 nm", "Distance": "200"}, 0.5, 0.2),
        ({"Photon_energy": "12398.4198 eV"}, 1.0, None),
        ({"Wavelength": "0.0 A", "Detector_distance": "0.0 m"}, None, None),
        ({"Wavelength": "500 nm", "energy": "12"}, None, None),
        ({"Wavelength": "unknown"}, None, None),
    ],
)
def test_wavelength_and_distance_in_every_unit(header, wavelength, distance):
    found = detector_info(header)
    assert found.wavelength == (None if wavelength is None else pytest.approx(wavelength))
    assert found.distance == (None if distance is None else pytest.approx(distance))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ({"Exposure_time": "0.5 s", "Exposure_period": "1 s"}, 0.5),
        ({"Exposure_time": "250 ms"}, 0.25),
        ({"acq_expo_time": "0.1", "count_time": "1"}, 0.1),
        ({"ELAPSDR": "30.0", "ELAPSDA": "29.5"}, 29.5),
        ({"exposure_time": "0"}, None),
        ({"TIME": "12:00:00"}, None),
    ],
)
def test_exposure_times(header, seconds):
    found = exposure_key(header)
    if seconds is None:
        assert found is None
    else:
        assert number(header[found[0]])[0] * found[1] == pytest.approx(seconds)


def test_a_header_names_the_detector_in_its_values_only():
    assert detector_info({"lambda": "0.5", "Wavelength_lambda": "0.5"}).description is None
    assert detector_info({"Image_path": "/data/pilatus/"}).description == "pilatus"
    assert detector_info({"Detector": "EIGER2 X CdTe 1M, S/N E-02"}).description.startswith(
        "EIGER2"
    )


def write_edf(path: Path, value: int, header: dict[str, str]) -> None:
    fabio.edfimage.EdfImage(data=plane(value), header=header).write(str(path))


def test_motors_of_long_lists_are_columns(tmp_path):
    for n in range(4):
        header = {
            "motor_mne": "del eta chi",
            "motor_pos": "0 0 90",
            "motor_mne~1": "pix piy",
            "motor_pos~1": f"{n / 10} -1",
            "counter_mne": "sec mon det",
            "counter_pos": f"1 {1000 + n}",  # one short: not to be trusted
        }
        write_edf(tmp_path / f"a_{n}.edf", n, header)
    source = open_frames(tmp_path)
    assert set(source.columns) == {"pix"}
    np.testing.assert_allclose(source.column("pix"), [0, 0.1, 0.2, 0.3])
    np.testing.assert_allclose(source.column("chi"), [90] * 4)
    assert source.column("mon") is None
    assert source.column("nothing") is None


@pytest.mark.parametrize("write", [edf, edf_gz, area_detector_tiff, cbf, pilatus_tiff])
def test_columns_read_every_header_once_and_no_pixel(tmp_path, monkeypatch, write):
    suffix = {edf: "edf", edf_gz: "edf.gz", cbf: "cbf"}.get(write, "tif")
    for n in range(6):
        write(tmp_path / f"a_{n}.{suffix}", plane(n), n)
    source = open_frames(tmp_path)
    count = []
    monkeypatch.setattr(
        images_module, "read_headers", lambda file: count.append(file) or read_headers(file)
    )
    monkeypatch.setattr(images_module, "_decode", None)
    assert len(source.columns) >= 1
    for name in source.columns:
        assert np.unique(source.column(name)).size > 1
    assert len(count) == 6


def test_a_header_that_cannot_be_read_gives_nan(tmp_path):
    for n in range(6):
        edf(tmp_path / f"a_{n}.edf", plane(n), n)
    (tmp_path / "a_2.edf").write_bytes(b"{\nno end")
    (tmp_path / "a_4.edf").unlink()
    (tmp_path / "a_4.edf").symlink_to("gone")
    found = open_frames(tmp_path).column("mon")
    np.testing.assert_array_equal(found, np.where(np.isin(range(6), (2, 4)), np.nan, COUNTS))


def test_exposure_may_differ_between_frames(tmp_path):
    for n in range(4):
        write_edf(tmp_path / f"a_{n}.edf", n, edf_header(n) | {"acq_expo_time": f"{0.1 * (n + 1)}"})
    np.testing.assert_allclose(open_frames(tmp_path).exposure, [0.1, 0.2, 0.3, 0.4])


def test_an_empty_mar_header_is_silent(tmp_path):
    mar_ccd(tmp_path / "a_1.tif", plane(5, "u2"), 0)  # .tif: its content tells
    data = bytearray((tmp_path / "a_1.tif").read_bytes())
    filled = open_frames(tmp_path)
    assert filled.detector.wavelength == pytest.approx(0.41328)
    assert "MarCCD" in filled.kind
    data[1024 + 640 : 1024 + 1024] = bytes(384)
    (tmp_path / "a_1.tif").write_bytes(data)
    silent = open_frames(tmp_path)
    assert silent.detector.wavelength is None
    assert silent.detector.distance is None
    assert silent.exposure is None


# --- several frames in a file -----------------------------------------------------------------


def test_a_lone_file_of_frames_counts_from_zero(tmp_path):
    multi_tiff(tmp_path / "a_0007.tif", np.stack([plane(n, "u2") for n in range(5)]), 0)
    source = open_frames(tmp_path)
    assert numbers_of(source) == [0, 1, 2, 3, 4]
    assert not source.numbered
    assert [int(source.read(row).image[1, 1]) for row in range(5)] == [0, 1, 2, 3, 4]


def test_a_first_file_that_was_cut_keeps_its_places(tmp_path):
    for number_, n in ((1, 2), (2, 4), (3, 1)):
        frames = np.stack([plane(10 * number_ + i, "u2") for i in range(n)])
        spe(tmp_path / f"a_{number_}.spe", frames, 0)
    source = open_frames(tmp_path)
    missing = FrameStatus.MISSING
    assert problems_of(source) == [0, 0, missing, missing, 0, 0, 0, 0, 0]
    assert numbers_of(source) == list(range(1, 10))
    assert "holds 2 frames, other files 4" in source.records[2].reason
    assert source.read(8).image[0, 0] == 30


@pytest.mark.parametrize("first", [0, 1])
def test_a_first_file_of_frames_that_is_gone_has_its_places(tmp_path, first):
    for line in range(4):
        frames = np.stack([plane(10 * line + i, "u2") for i in range(3)])
        multi_tiff(tmp_path / f"row_{line + first}.tif", frames, 0)
    (tmp_path / f"row_{2 + first}.tif").unlink()
    assert numbers_of(open_frames(tmp_path)) == [first + n for n in (0, 1, 2, 3, 4, 5, 9, 10, 11)]
    if first:
        (tmp_path / "row_1.tif").unlink()
        source = open_frames(tmp_path)
        assert numbers_of(source) == [4, 5, 6, 10, 11, 12]
        assert place_frames(np.array(numbers_of(source)), True, (4, 3)).frame_index.tolist() == [
            [-1, -1, -1],
            [0, 1, 2],
            [-1, -1, -1],
            [3, 4, 5],
        ]


def test_a_stack_of_numpy_is_left_on_the_disk(tmp_path):
    stack = np.lib.format.open_memmap(tmp_path / "big.npy", "w+", "u2", (3, *SMALL))
    stack[:] = np.arange(3)[:, None, None]
    stack.flush()
    source = open_frames(tmp_path / "big.npy")
    assert [int(source.read(row).image[2, 3]) for row in range(3)] == [0, 1, 2]
    assert type(source.read(1).image) is np.ndarray
    whole = (tmp_path / "big.npy").read_bytes()
    (tmp_path / "big.npy").write_bytes(whole[:-100])
    with pytest.raises(InputError, match="cannot be decoded"):
        open_frames(tmp_path / "big.npy")
    np.save(tmp_path / "big.npy", np.zeros((2, 2, *SMALL)))
    with pytest.raises(InputError, match="4 dimensions of float64"):
        open_frames(tmp_path / "big.npy")


def test_numpy_files_beside_frames_are_none(tmp_path):
    series(tmp_path, ["a_1.tif", "a_2.tif"])
    np.save(tmp_path / "average.npy", plane(3))
    assert len(open_frames(tmp_path).records) == 2
    for file in tmp_path.glob("*.tif"):
        file.unlink()
    (tmp_path / "average.npy").rename(tmp_path / "mask.npy")
    with pytest.raises(InputMissingError, match="no frames found"):
        open_frames(tmp_path)


@pytest.mark.parametrize("way", ["", "*.dat"])
def test_images_named_dat_are_frames_for_inspect_too(tmp_path, way):
    series(tmp_path, ["a_1.dat", "a_2.dat"])
    assert numbers_of(open_frames(tmp_path / way)) == [1, 2]
    layout = xrdpipe.inspect(path=[tmp_path / way]).details["layout"]
    assert layout == open_frames(tmp_path / way).kind


def test_brackets_in_the_name_of_a_folder_are_no_pattern(tmp_path):
    folder = tmp_path / "t10[1]"
    series(folder, ["a_1.tif", "a_2.tif"])
    assert numbers_of(open_frames(folder / "*.tif")) == [1, 2]
    assert numbers_of(open_frames(folder / "a_[2].tif")) == [2]
    with pytest.raises(InputMissingError, match=r"\[7\] was read as a pattern"):
        open_frames(folder / "a_[7].tif")
    with pytest.raises(InputMissingError) as caught:
        open_frames(folder / "*.cbf")
    assert "pattern" not in str(caught.value)


def test_a_file_of_several_among_single_frames_is_no_frame(tmp_path):
    series(tmp_path, ["a_1.tif", "a_2.tif", "a_3.tif"])
    multi_tiff(tmp_path / "a_2.tif", np.stack([plane(1), plane(2)]), 0)
    source = open_frames(tmp_path)
    assert len(source.records) == 3
    with pytest.raises(FrameError, match="holds 2 frames, the other files one each") as caught:
        source.read(1)
    assert caught.value.status == FrameStatus.WRONG_SHAPE


# --- damage -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (plain_tiff, "a.tif"),
        (pilatus_tiff, "a.tif"),
        (mar_ccd, "a.mccd"),
        (cbf, "a.cbf"),
        (edf, "a.edf"),
        (edf_gz, "a.edf.gz"),
        (mar345, "a.mar2300"),
        (spe, "a.spe"),
    ],
)
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.3, 0.7, 0.9, 0.95])
def test_a_file_cut_anywhere_is_corrupt(tmp_path, write, name, kept):
    dtype = "u2" if write in (mar_ccd, spe) else "u4" if write is mar345 else "i4"
    image = np.random.default_rng(2).poisson(50, (32, 40)).astype(dtype)
    write(tmp_path / name, image, 0)
    whole = (tmp_path / name).read_bytes()
    np.testing.assert_array_equal(read_image(tmp_path / name).image, image)
    (tmp_path / name).write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(FrameError) as caught:
        read_image(tmp_path / name)
    assert caught.value.status == FrameStatus.CORRUPT
    assert name in caught.value.reason


def test_a_tiff_whose_directories_run_in_a_circle_ends(tmp_path):
    data = bytearray(tiff([plane(1)]))
    (count,) = struct.unpack_from("<H", data, 8)
    struct.pack_into("<I", data, 8 + 2 + 12 * count, 8)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(FrameError, match="circle"):
        read_image(tmp_path / "a.tif")


def test_a_mar345_with_too_many_pixels_is_not_decoded(tmp_path):
    """fabio writes behind the end of its memory."""
    mar345(tmp_path / "a.mar2300", np.full((32, 40), 7, "u4"), 0)
    data = bytearray((tmp_path / "a.mar2300").read_bytes())
    start = data.index(b"CCP4 packed image")
    first = data.index(b"\n", start) + 1
    data[first:] = b"\x07\x00" * (len(data) - first)
    (tmp_path / "a.mar2300").write_bytes(data)
    with pytest.raises(FrameError, match="damaged"):
        read_image(tmp_path / "a.mar2300")


def test_nothing_readable_names_the_first_reason(tmp_path):
    for n in range(3):
        (tmp_path / f"a_{n}.tif").write_bytes(b"")
    with pytest.raises(InputError, match=r"none of the 3 files.*a_0\.tif is empty"):
        open_frames(tmp_path)


# --- scale ------------------------------------------------------------------------------------


def test_opening_looks_into_a_few_files_only(tmp_path, monkeypatch):
    data = tiff([plane(3)])
    for n in range(1000):
        (tmp_path / f"a_{n:04d}.tif").write_bytes(data)
    opened = []
    for name in ("_decode", "read_headers"):
        real = getattr(images_module, name)
        monkeypatch.setattr(
            images_module, name, lambda file, *rest, real=real: opened.append(file) or real(file)
        )
    source = open_frames(tmp_path)
    assert len(source.records) == 1000
    assert source.records[999].size == len(data)
    assert len(opened) <= 8
