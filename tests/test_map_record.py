"""A map file read back: everything a report or a viewer shows."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

import xrdpipe
from test_map_stage import write_patterns
from xrdpipe.crystal import phase_lines
from xrdpipe.errors import InputError, OptionError
from xrdpipe.nn.model_folder import find_model, phase_library, read_card
from xrdpipe.pictures import draw_map
from xrdpipe.schema import FrameStatus
from xrdpipe.stages import scans
from xrdpipe.store.map_record import read_map_record
from xrdpipe.store.mean_patterns import mean_patterns
from xrdpipe.store.patterns import PatternsFile
from xrdpipe.types import Scan, ScanAxis

NY, NX = 2, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six patterns, the fourth lost, their positions in a table, and their map."""
    folder = tmp_path_factory.mktemp("record")
    card = read_card(find_model())
    rng = np.random.default_rng(5)
    intensity = rng.poisson(40, (NY * NX, card.grid.size)).astype(np.float32)
    status = np.full(NY * NX, FrameStatus.OK)
    intensity[3], status[3] = np.nan, FrameStatus.CORRUPT
    write_patterns(folder / "p.h5", card.grid.two_theta, intensity, card.wavelength, status)
    y, x = np.divmod(np.arange(NY * NX), NX)
    rows = [f"{0.5 * b:g} {2.0 * a:g}" for a, b in zip(y, x, strict=True)]
    (folder / "stage.txt").write_text("sx sy\n" + "\n".join(rows) + "\n")
    mapped(folder, "map.h5", position_unit="um")
    return folder


def mapped(folder, name, **options):
    positions = f"{folder / 'stage.txt'}::sx,sy"
    given = {"patterns": str(folder / "p.h5"), "png": False, "output": folder / name}
    xrdpipe.map(**given, **{"positions": positions, **options})
    return folder / name


def test_a_record_holds_what_the_file_holds(folder, tmp_path):
    record = read_map_record(folder / "map.h5")
    found = record.phase_map
    with h5py.File(folder / "map.h5") as file:
        group = file["entry/phase_map"]
        for name, values in {
            "presence/probability": found.probability,
            "presence/spread": found.spread,
            "presence/decision": found.decision,
            "winner/phase_id": found.winner,
            "winner/confidence": found.confidence,
            "co_occurrence/combination": found.combination,
            "co_occurrence/n_phases": found.n_phases,
            "unknown/score": found.unknown,
            "status": found.status,
        }.items():
            np.testing.assert_array_equal(values, group[name][()], err_msg=name)
    assert found.phase_names == ("bastnaesite-(La)", "calcite", "rhenium")
    assert found.status[1, 0] == FrameStatus.CORRUPT
    assert (found.scan.x.name, found.scan.x.units) == ("sx", "um")
    np.testing.assert_allclose(found.scan.x.values, [0, 0.5, 1])
    np.testing.assert_allclose(found.scan.y.values, [0, 2])
    assert record.patterns == folder / "p.h5"
    assert (record.pending, record.variants) == (None, ("external",))
    assert record.model["name"] == "hydrothermal-dac"
    assert record.key["stage"] == "map"
    draw_map(tmp_path / "a.png", found, record.title)  # good for every picture of a map
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_the_lines_of_the_phases_are_in_the_map(folder):
    record = read_map_record(folder / "map.h5")
    library = phase_library(find_model())
    assert [lines.name for lines in record.lines] == list(library.names)
    for lines in record.lines:
        assert lines.intensity.max() == 1
        assert (np.diff(lines.d) <= 0).all()
    calcite = record.lines[1]
    strongest = int(np.argmax(calcite.intensity))
    # (104) of calcite: d = 3.035 Å (Graf, Am. Mineral. 46, 1283 (1961)), 1 1 -4 in another choice.
    assert calcite.d[strongest] == pytest.approx(3.035, abs=0.002)
    assert abs(calcite.hkl[strongest]).tolist() == [1, 0, 4]
    # Equal spacings at equal sin θ / λ.
    assert calcite.two_theta(1.5406)[strongest] == pytest.approx(29.41, abs=0.02)


def test_faint_and_far_lines_are_left_out():
    rhenium = phase_library(find_model()).phases[2]
    lines = phase_lines(rhenium, 0.4959, 1.0)
    assert lines.intensity.min() >= 0.002
    assert lines.d.min() >= 1.0


def test_a_mean_pattern_is_the_mean_of_its_rows(folder):
    with PatternsFile(folder / "p.h5") as source:
        rows = source.rows(0, 6).intensity
        members = np.zeros((2, 6), bool)
        members[0, [0, 3, 5]] = members[1, 2] = True
        seen = []
        first, second = mean_patterns(source, members, seen.append)
        np.testing.assert_allclose(first.intensity, (rows[0] + rows[5]) / 2, rtol=1e-6)
        np.testing.assert_array_equal(second.intensity, rows[2])
        assert (first.rows, second.rows, seen) == (2, 1, [6])
        assert first.intensity_errors is None
        with pytest.raises(InputError, match="has 6 rows; expected 5"):
            mean_patterns(source, np.ones((1, 5), bool))


def test_errors_of_a_mean_add_in_quadrature(folder, tmp_path):
    path = tmp_path / "p.h5"
    path.write_bytes((folder / "p.h5").read_bytes())
    with h5py.File(path, "a") as file:
        data = file["entry/data"]
        data["I_errors"] = np.full(data["I"].shape, 3.0, np.float32)
    with PatternsFile(path) as source:
        mean = mean_patterns(source, np.ones((1, 6), bool))[0]
    np.testing.assert_allclose(mean.intensity_errors, 3 / np.sqrt(5))


def test_the_unit_of_positions_that_the_files_leave_out(folder):
    with h5py.File(folder / "map.h5") as file:
        assert file["entry/mapping/x"].attrs["long_name"] == "sx (um)"
    stated = Scan(np.zeros((1, 2), np.int32), x=ScanAxis(np.arange(2.0), "sx", "mm"))
    with pytest.raises(OptionError, match="the files say that sx is in mm"):
        scans._with_unit(stated, "um", print)
    assert scans._with_unit(stated, "mm", print).x.units == "mm"
    said = []
    scans._with_unit(Scan(np.zeros((1, 2), np.int32)), "mm", said.append)
    assert said == ["warning: --position-unit mm changes nothing, as no positions are known"]


def test_a_map_without_what_it_needs_is_refused_by_name(folder, tmp_path):
    path = tmp_path / "map.h5"
    path.write_bytes((folder / "map.h5").read_bytes())
    with h5py.File(path, "a") as file:
        del file["entry/mapping/frame_index"]
    with pytest.raises(InputError, match="/entry/mapping/frame_index is absent"):
        read_map_record(path)
