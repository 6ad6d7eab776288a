"""Exports: what other programs read is what the file holds."""

from __future__ import annotations

import csv
import json
import re

import fabio
import h5py
import numpy as np
import pytest

import xrdpipe
from made_maps import GRID, NAMES, made_map
from xrdpipe.errors import InputError, InputMissingError, OptionError, OutputExistsError
from xrdpipe.store.exports import HEADER_LINES, file_names, tiff_bytes, write_xye, xye_text
from xrdpipe.store.patterns import PatternsFile


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return made_map(tmp_path_factory.mktemp("made"))


def exported(path, tmp_path, form, **options):
    return xrdpipe.export(map=path, format=form, output=tmp_path / "out", **options).path


# --- images ----------------------------------------------------------------------------------


def test_images_hold_the_maps(made, tmp_path):
    folder = exported(made, tmp_path, "tiff")
    index = json.loads((folder / "index.json").read_text())
    with h5py.File(made) as file:
        group = file["entry/phase_map"]
        for name, values in {
            "calcite_probability": group["presence/probability"][1],
            "bastnaesite-La_spread": group["presence/spread"][0],
            "rhenium_decision": group["presence/decision"][2],
            "winner": group["winner/phase_id"][()],
            "unknown": group["unknown/score"][()],
            "status": group["status"][()],
        }.items():
            with fabio.open(folder / f"{name}.tif") as image:
                assert image.data.dtype == np.float32
                np.testing.assert_array_equal(image.data, values.astype(np.float32))
            assert f"{name}.tif" in index["images"]
    assert len(list(folder.glob("*.tif"))) == len(index["images"])
    assert index["columns"] == {
        "axis": "x", "motor": "sx", "unit": "um", "positions": [10, 10.5, 11, 11.5, 12],
    }  # fmt: skip


def test_imagej_finds_the_size_of_a_pixel():
    from io import BytesIO

    from PIL import Image

    with Image.open(BytesIO(tiff_bytes(np.eye(3), (0.25, 0.004), "um"))) as image:
        tags = image.tag_v2
        assert tags[270].startswith("ImageJ=")
        assert "unit=micron" in tags[270].splitlines()
        assert (float(tags[283]), float(tags[282])) == pytest.approx((4, 250))
    with Image.open(BytesIO(tiff_bytes(np.eye(3), (np.nan, 1.0), ""))) as image:
        assert "unit" not in image.tag_v2[270]


def test_scattered_points_are_no_image(tmp_path):
    path = made_map(tmp_path, (1, 30), irregular=True, patterns=False)
    with pytest.raises(InputError, match=r"form no grid.*--format csv"):
        exported(path, tmp_path, "tiff")


# --- the table -------------------------------------------------------------------------------


def test_the_table_brings_every_number_back(made, tmp_path):
    path = exported(made, tmp_path, "csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with h5py.File(made) as file:
        probability = file["entry/phase_map/presence/probability"][()]
        spread = file["entry/phase_map/presence/spread"][()]
        winner = file["entry/phase_map/winner/phase_id"][()]
    assert len(rows) == 20
    for row in rows:
        y, x = int(row["y"]), int(row["x"])
        assert float(row["sx (um)"]) == 10 + 0.5 * x
        assert float(row["sy (um)"]) == -3 + 0.5 * y
        assert int(row["frame"]) == 5 * y + x + 1
        assert row["file"] == f"raw/frame_{5 * y + x:06d}.tif"
        for k, name in enumerate(NAMES):
            for column, values in (("probability", probability), ("spread", spread)):
                cell = row[f"{name} {column}"]
                np.testing.assert_equal(np.float32(cell or "nan"), values[k, y, x])
        if winner[y, x] >= 0:
            assert row["winner"] == NAMES[winner[y, x]]
    assert (rows[1]["status"], rows[1]["calcite decision"]) == ("corrupt", "")
    assert (rows[4]["status"], rows[4]["winner"]) == ("outside_grid", "no_result")
    assert rows[5]["bastnaesite-(La) decision"] == "undetermined"


def test_a_table_without_patterns_says_what_it_lacks(tmp_path):
    path = made_map(tmp_path, (1, 9), irregular=True, patterns=False)
    notes = []
    from xrdpipe.types import Progress

    out = tmp_path / "o.csv"
    xrdpipe.export(map=path, format="csv", output=out, progress=Progress(note=notes.append))
    assert "no frame numbers and files" in notes[0]
    with out.open(newline="") as file:
        first = next(csv.DictReader(file))
    with h5py.File(path) as file:
        assert float(first["sx (um)"]) == file["entry/mapping/x_actual"][0, 0]
    assert (first["row"], first["frame"]) == ("0", "")


# --- patterns --------------------------------------------------------------------------------


def test_a_pixel_comes_back_through_collect(made, tmp_path):
    folder = exported(made, tmp_path, "xye", pixel=["2,3"])
    collected = tmp_path / "back.h5"
    xrdpipe.collect(patterns=str(folder / "pixel_2_3.xye"), output=collected)
    with PatternsFile(collected) as back, PatternsFile(made.parent / "patterns.h5") as source:
        row = source.rows(13, 14)
        good = np.isfinite(row.intensity[0])
        assert not good.all()  # bins without data are left out
        assert back.wavelength == GRID.wavelength
        again = back.rows(0, 1)
        np.testing.assert_array_equal(again.two_theta, GRID.two_theta[good])
        np.testing.assert_array_equal(again.intensity[0], row.intensity[0][good])
        np.testing.assert_array_equal(again.intensity_errors[0], row.intensity_errors[0][good])


def columns(path):
    return np.loadtxt(path, comments="'")


def test_means_of_regions_and_phases(made, tmp_path):
    folder = exported(
        made, tmp_path, "xye", region=["2:4,1:3"], phase=["calcite"], variant="unmasked"
    )
    with PatternsFile(made.parent / "patterns.h5", "unmasked") as source:
        rows = source.rows(0, 20)
    x, y, e = columns(folder / "region_2-4_1-3.xye").T
    chosen = rows.intensity[[11, 12, 16, 17]].astype(float)
    good = np.isfinite(chosen).all(axis=0)
    np.testing.assert_array_equal(x, GRID.two_theta[good])
    np.testing.assert_allclose(y, chosen.mean(axis=0)[good], rtol=1e-8)
    errors = rows.intensity_errors[[11, 12, 16, 17]].astype(float)
    np.testing.assert_allclose(e, np.sqrt((errors**2).sum(axis=0))[good] / 4, rtol=1e-6)
    with h5py.File(made) as file:
        present = file["entry/phase_map/presence/decision"][1].ravel() == 1
    _, y, _ = columns(folder / "calcite.xye").T
    np.testing.assert_allclose(y, rows.intensity[present].mean(axis=0)[good], rtol=1e-6)
    told = json.loads((folder / "index.json").read_text())["files"]["calcite.xye"]
    assert (told["patterns"], told["variant"]) == (int(present.sum()), "unmasked")


def test_without_a_choice_the_mean_of_all(made, tmp_path):
    folder = exported(made, tmp_path, "xye")
    assert [p.name for p in folder.glob("*.xye")] == ["all.xye"]
    assert json.loads((folder / "index.json").read_text())["files"]["all.xye"]["patterns"] == 17


def test_patterns_without_errors_have_two_columns(tmp_path):
    path = made_map(tmp_path, (2, 3), variants=("masked",), errors=False)
    folder = exported(path, tmp_path, "xye", pixel=["0,0"])
    assert columns(folder / "pixel_0_0.xy").shape[1] == 2


def gsas_ii_reads(text):
    """By the rules of GSAS-II's importer of .xye: comment signs, and a small q means Q."""
    lines = text.splitlines()
    header = 0
    while lines[header][:1] in ("'", "#", "!"):
        assert "q" not in lines[header]
        header += 1
    rows = [line.split() for line in lines[header:]]
    assert {len(row) for row in rows} == {3}
    return np.array(rows, float)


def fullprof_reads(text):
    """By the rules of CrysFML, FullProf's library: a title, then up to a line of two numbers."""
    lines = text.splitlines()[1:]

    def numbers(line):
        words = line.replace(",", " ").split()
        return len(words) > 1 and all(re.fullmatch(r"[-+\d.e]+", word) for word in words[:2])

    first = next(n for n, line in enumerate(lines) if numbers(line))
    assert first + 1 == HEADER_LINES  # older versions drop exactly these
    assert all(len(line) < 180 for line in lines)
    return np.array([line.split() for line in lines[first:]], float)


def test_rietveld_programs_read_it(made, tmp_path):
    folder = exported(made, tmp_path, "xye", phase=["rhenium"])
    text = (folder / "rhenium.xye").read_text(encoding="ascii")
    wanted = columns(folder / "rhenium.xye")
    np.testing.assert_array_equal(gsas_ii_reads(text), wanted)
    np.testing.assert_array_equal(fullprof_reads(text), wanted)
    assert (wanted[:, 2] > 0).all()


def test_a_header_survives_any_name():
    axis = np.arange(5.0)
    text = xye_text(axis, axis + 1, axis + 1, ("quartz, 2 Å\nsequel", "é"))
    lines = text.splitlines()
    assert lines[:3] == ["' Quartz, 2 angstrom seQuel", "' ?", "'"]
    assert len(lines) == HEADER_LINES + 5
    np.testing.assert_array_equal(gsas_ii_reads(text)[:, 1], axis + 1)


def test_bins_without_weight_are_left_out(tmp_path):
    axis, values = np.array([1.0, 2, 3, 4]), np.array([1.0, np.nan, 3, 4])
    write_xye(tmp_path / "a.xye", axis, values, np.array([1.0, 1, 0, np.nan]))
    assert (tmp_path / "a.xye").read_text() == "1.0 1 1\n"
    with pytest.raises(InputError, match="no bin with data"):
        xye_text(axis, values * np.nan, None)


def test_the_header_can_be_left_out(made, tmp_path):
    folder = exported(made, tmp_path, "xye", pixel=["0,0"], header=False)
    assert (folder / "pixel_0_0.xye").read_text().startswith("5.0 ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixel": ["4,0"]}, "outside the map of 4 rows and 5 columns"),
        ({"pixel": ["a"]}, "expected Y,X"),
        ({"region": ["0:9,0:1"]}, "not inside the map"),
        ({"region": ["1:1,0:1"]}, "not inside the map"),
        ({"region": ["0,1"]}, "expected Y0:Y1,X0:X1"),
        ({"phase": ["calcit"]}, "Did you mean 'calcite'"),
    ],
)
def test_wrong_choices_are_refused(made, tmp_path, options, message):
    with pytest.raises(OptionError, match=message):
        exported(made, tmp_path, "xye", **options)
    with pytest.raises(OptionError, match="is for --format xye"):
        exported(made, tmp_path, "csv", **options)


def test_a_lost_pixel_has_no_pattern(made, tmp_path):
    with pytest.raises(InputError, match="pixel 0, 1: no pixel of it has a pattern"):
        exported(made, tmp_path, "xye", pixel=["0,1"])


def test_patterns_that_are_gone_are_named(tmp_path):
    path = made_map(tmp_path, patterns=False)
    with pytest.raises(InputMissingError, match=r"are not at .*patterns\.h5"):
        exported(path, tmp_path, "xye")


def test_only_own_files_are_replaced(made, tmp_path):
    path = exported(made, tmp_path, "csv")
    assert exported(made, tmp_path, "csv") == path  # the same again
    path.write_text("mine")
    with pytest.raises(OutputExistsError):
        exported(made, tmp_path, "csv")


def test_names_become_file_names():
    assert file_names(["a/b", "ab", "(Fe,Mg)O", "..."]) == ["ab", "ab~2", "FeMgO", "..."]
