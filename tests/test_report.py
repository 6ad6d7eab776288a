"""The report of a map: its numbers are the file's, and it is one file that opens anywhere."""

from __future__ import annotations

import html
import json
import re
import shutil

import h5py
import numpy as np
import pytest

import xrdpipe
from made_maps import GRID, NAMES, made_lines, made_map
from xrdpipe.config import ExportConfig, ReportConfig
from xrdpipe.errors import OutputExistsError
from xrdpipe.map_pictures import composite, round_length
from xrdpipe.map_report.doubts import doubts
from xrdpipe.map_report.map_page import expected, sentence
from xrdpipe.map_report.measured import measure
from xrdpipe.map_report.summary import PhaseSummary, summarise
from xrdpipe.pattern_pictures import Curve, MarkedPhase, PatternAxis, draw_pattern
from xrdpipe.stages.checks import check
from xrdpipe.store.map_record import read_map_record
from xrdpipe.store.patterns import PatternsFile


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A map of 4 x 5 pixels with its report and pictures."""
    folder = tmp_path_factory.mktemp("made")
    path = made_map(folder)
    outcome = xrdpipe.report(map=path, images=folder / "figures")
    return path, outcome, outcome.path.read_text(encoding="utf-8")


def numbers(page):
    """The block for programs."""
    block = re.search(r"<script type='application/json' id='xrdpipe'>(.*?)</script>", page, re.S)
    return json.loads(block[1])


def text_of(page):
    """What a person reads."""
    page = re.sub(r"<(style|script).*?</\1>", "", page, flags=re.S)
    return html.unescape(re.sub(r"<[^>]+>", " ", page))


def test_the_numbers_are_those_of_the_file(made):
    path, _, page = made
    told = numbers(page)
    with h5py.File(path) as file:
        group = file["entry/phase_map"]
        probability = group["presence/probability"][()].astype(float)
        decision = group["presence/decision"][()]
        spread = group["presence/spread"][()].astype(float)
        status = group["status"][()]
        score = group["unknown/score"][()]
    assert list(told["phases"]) == list(NAMES)
    for k, name in enumerate(NAMES):
        p = probability[k][np.isfinite(probability[k])]
        phase = told["phases"][name]
        assert phase["present"] == int((decision[k] == 1).sum())
        assert phase["judged"] == p.size
        assert phase["expected"] == pytest.approx(p.sum())
        assert phase["counting"] == pytest.approx(np.sqrt((p * (1 - p)).sum()))
        assert phase["model"] == pytest.approx(np.nansum(spread[k]))
        assert f"{phase['present']} of {p.size}" in text_of(page)
    assert told["pixels_with_result"] == int((status == 1).sum())
    assert told["unknown"] == int((score >= 0.6).sum())
    assert told["statuses"] == {"ok": 17, "missing": 1, "corrupt": 1, "outside_grid": 1}
    assert sum(told["combinations"].values()) == 20
    first = told["worst"][0]
    assert first["unknown score"] == pytest.approx(np.nanmax(score))
    assert score[first["y"], first["x"]] == np.nanmax(score)
    assert told["wavelength_angstrom"] == GRID.wavelength


def test_the_head_states_wavelength_and_energy(made):
    path, _, page = made
    with PatternsFile(path.with_name("patterns.h5")) as source:
        wavelength = source.wavelength
    assert f"{wavelength:.5g} Å ({12.39842 / wavelength:.4g} keV)" in text_of(page)


def test_it_is_one_file_that_loads_nothing(made):
    _, outcome, page = made
    assert outcome.path.name == "map_report.html"
    loaded = re.findall(r"(?:src|data|action)='([^']*)'|url\(([^)]*)\)|@import", page)
    assert loaded
    assert all(first.startswith("data:image/") for first, _ in loaded)
    assert not re.search(r"<(link|iframe|object|embed)\b", page)
    scripts = re.findall(r"<script([^>]*)>", page)
    assert scripts == [" type='application/json' id='xrdpipe'"]
    assert "<1>" not in page  # the title of the sample is text, not an element
    assert len(page) < 3_000_000


def test_lost_frames_are_told_with_their_reasons(made):
    _, _, page = made
    read = " ".join(text_of(page).split())
    assert "2 of 20 pixels have no frame that could be used (1 missing, 1 corrupt)" in read
    assert "2 of 20 frames could not be used" in read
    assert "2 0, 1 raw/frame_000001.tif corrupt raw/frame_000001.tif: cut short" in read
    assert numbers(page)["lost"] == {"corrupt: cut short": 1, "missing: cut short": 1}


def test_origins_and_references_stand_in_it(made):
    _, _, page = made
    read = text_of(page)
    for expected_text in (
        "cd" * 32,  # sha256 of the geometry
        "mask cell.tif",
        "Detector: Pilatus100k",
        "--prior",
        "10.1002/aisy.202400204",
        "10.1107/S1600576715004306",
        "trained with",
        "sx 1",  # a motor of the worst pixels
    ):
        assert expected_text in read, expected_text


def test_pictures_for_publication(made):
    path, _, _ = made
    folder = path.parent / "figures"
    names = {file.stem for file in folder.iterdir()}
    assert names == {
        "composite", "confidence", "something_unknown", "status",
        "bastnaesite-La_presence", "calcite_presence", "rhenium_presence",
        "bastnaesite-La_spread", "calcite_spread", "rhenium_spread",
    }  # fmt: skip
    svg = (folder / "calcite_presence.svg").read_text()
    assert ">calcite: presence</text>" in svg
    assert "µm" in svg  # the scale bar
    from PIL import Image

    with Image.open(folder / "calcite_presence.png") as image:
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_a_report_replaces_a_report_and_nothing_else(tmp_path):
    path = made_map(tmp_path, (2, 2), ("calcite",), patterns=False)
    output = tmp_path / "r.html"
    output.write_text("<!DOCTYPE html><meta name='generator' content='xrdpipe'> an older one")
    xrdpipe.report(map=path, output=output)
    output.write_text("<html>mine</html>")
    with pytest.raises(OutputExistsError, match="was not made by this command"):
        xrdpipe.report(map=path, output=output)
    before = path.read_bytes()
    with pytest.raises(OutputExistsError):
        xrdpipe.report(map=path, output=path)
    assert path.read_bytes() == before


SHAPES = [
    {"shape": (4, 5), "names": (r"$\frac{odd & <b>",)},
    {"shape": (3, 4), "names": tuple(f"phase {k}" for k in range(20)), "patterns": False},
    {"shape": (1, 40), "irregular": True},
    {"shape": (1, 12), "units": "mm"},
    {"shape": (7, 1), "units": None},
    {"shape": (2, 3), "unknown": False, "errors": False, "variants": ("masked",)},
]


@pytest.mark.parametrize("given", SHAPES, ids=lambda given: "x".join(map(str, given["shape"])))
def test_maps_of_every_kind(tmp_path, given):
    path = made_map(tmp_path, **given)
    page = xrdpipe.report(map=path).path.read_text(encoding="utf-8")
    told = numbers(page)
    names = given.get("names", NAMES)
    assert list(told["phases"]) == list(names)
    assert told["irregular"] == given.get("irregular", False)
    pictures = len(re.findall("src='data:image/png", page))
    assert pictures == len(names) + 3
    if given.get("patterns", True):
        assert "src='data:image/svg+xml" in page
    else:
        assert told["frames"] is None
        assert "the patterns of" in text_of(page)
    if not given.get("unknown", True):
        assert told["unknown"] is None
        assert "cannot tell phases that it does not know" in text_of(page)
        assert "confidence" in told["worst"][0]


def test_a_check_looks_at_the_map(made, tmp_path):
    path, _, _ = made
    found = check(ReportConfig(map=path))
    assert (found.problems, found.state) == ((), "to do")
    wanted = ExportConfig(map=tmp_path / "no.h5", format="csv")
    assert check(wanted).problems == (f"map file {tmp_path / 'no.h5'} does not exist.",)


def test_a_partial_map_says_so_first(tmp_path):
    path = made_map(tmp_path, names=("calcite",), pending=7, patterns=False)
    page = xrdpipe.report(map=path).path.read_text(encoding="utf-8")
    first = re.search(r"<li>(.*?)</li>", page)[1]
    assert first.startswith("This map is partial: 7 of 20 pixels wait")
    assert numbers(page)["pending"] == 7


def test_a_map_without_lines_or_with_other_patterns(tmp_path):
    path = made_map(tmp_path, names=("calcite",), lines=False)
    page = xrdpipe.report(map=path).path.read_text(encoding="utf-8")
    assert "holds no reference lines" in text_of(page)
    other = tmp_path / "other"
    other.mkdir()
    made_map(other, seed=2)
    shutil.copy(other / "patterns.h5", tmp_path / "patterns.h5")
    page = xrdpipe.report(map=path).path.read_text(encoding="utf-8")
    assert "holds other patterns than those" in text_of(page)
    assert numbers(page)["frames"] is None


def test_mean_patterns_are_those_of_the_sure_pixels(made):
    path, _, _ = made
    record = read_map_record(path)
    measured = measure(record)
    assert measured.variants == ("masked", "unmasked")
    found = {group.phase: group for group in measured.groups if group.phase is not None}
    for k, group in found.items():
        sure = (record.phase_map.decision[k] == 1) & (record.phase_map.probability[k] >= 0.9)
        rows = record.phase_map.scan.frame_index[sure]
        for variant, mean in group.curves.items():
            with PatternsFile(path.parent / "patterns.h5", variant) as source:
                data = source.rows(0, source.n_rows).intensity[rows]
            np.testing.assert_allclose(mean.intensity, data.mean(axis=0), rtol=1e-6)
            assert mean.rows == rows.size
        assert f"the {rows.size} pixels" in group.title
    assert found


def test_pending_lost_and_unknown_are_doubted_in_that_order(tmp_path):
    record = read_map_record(made_map(tmp_path, pending=3))
    record.phase_map.unknown[...] = 0.99
    said = doubts(record, summarise(record.phase_map), None, "gone.")
    parts = ("partial", "no frame", "outside", "undetermined", "does not know", "gone.")
    order = [next(n for n, s in enumerate(said) if part in s) for part in parts]
    assert order == sorted(order)
    assert "5% would be false alarms" in " ".join(said)


def test_both_uncertainties_are_written():
    phase = PhaseSummary("calcite", 57, 192, 58.31, 2.94, 1.42)
    assert expected(phase) == "58.3 ± 2.9 ± 1.4"
    assert "57 of 192 pixels (30%)" in sentence(phase)
    assert "no pixel" in sentence(PhaseSummary("a", 0, 5, 0.2, 0.4, 0))
    assert "not be judged" in sentence(PhaseSummary("a", 0, 0, 0, 0, 0))


def test_rare_combinations_share_a_colour(tmp_path):
    names = tuple(f"phase {k}" for k in range(20))
    record = read_map_record(made_map(tmp_path, (30, 30), names, patterns=False))
    classes = composite(record.phase_map).classes
    assert len(classes) <= 15
    assert "rarer combinations" in " ".join(c.label for c in classes)
    assert len({c.color for c in classes}) == len(classes)
    assert sum(c.count for c in classes) == 900
    values = composite(record.phase_map).values
    for place, kind in enumerate(classes):
        assert (values == place).sum() == kind.count


def test_one_phase_alone_keeps_its_colour(tmp_path):
    record = read_map_record(made_map(tmp_path, (20, 20), patterns=False))
    classes = {c.label: c.color for c in composite(record.phase_map).classes}
    assert classes["calcite"] == "#56B4E9"
    assert classes["none of the phases"] == "#000000"


@pytest.mark.parametrize(
    ("longest", "length"), [(7.3, 5), (0.019, 0.01), (2, 2), (0, 0), (float("nan"), 0)]
)
def test_scale_bars_are_round(longest, length):
    assert round_length(longest) == pytest.approx(length)


def test_lines_stand_where_bragg_puts_them():
    line = made_lines(("a",))[0]
    where = PatternAxis(GRID.two_theta, GRID.wavelength, "")
    curve = Curve(np.ones(GRID.size), "masked")
    figure = draw_pattern(where, [curve], [MarkedPhase(line, 0, subject=True)], "")
    drawn = figure.axes[1].collections[0].get_segments()
    positions = line.two_theta(GRID.wavelength)
    inside = positions[(positions >= 5) & (positions <= 24)]
    np.testing.assert_allclose(sorted(s[0][0] for s in drawn), sorted(inside))
