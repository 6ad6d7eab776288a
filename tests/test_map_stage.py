"""``xrdpipe map`` on patterns files: what is written, what is lost, what must not matter."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest
from silx.io.nxdata import NXdata, get_default

import xrdpipe
from h5compare import content, differences
from xrdpipe.config import MapConfig
from xrdpipe.crystal import load_phase
from xrdpipe.errors import InputError, OptionError, OutputExistsError
from xrdpipe.nn.model_folder import find_model, phase_library, read_card
from xrdpipe.nn.stream import Stream, draw_chosen
from xrdpipe.phases import distractor_phases
from xrdpipe.schema import FrameStatus, PixelStatus
from xrdpipe.stages import map as map_stage
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.types import Progress

NY, NX = 3, 4
CLEAR = Recipe.from_mapping(
    {
        "composition": {"fraction": [0.3, 1.0]},
        "grains": {"number": [3e4, 3e5]},
        "noise": {"counts": [30, 1000]},
        "background": {"line_to_background": [3.0, 10.0]},
        "detector": {"low_cut_probability": 0, "high_cut_probability": 0, "gap_probability": 0},
    }
)


@pytest.fixture(scope="module")
def card():
    return read_card(find_model())


@pytest.fixture(scope="module")
def batch(card):
    stream = Stream(phase_library(find_model()), (), card.grid, CLEAR, seed=3)
    return draw_chosen(stream, 0, 300, masked_share=0.5)


def write_patterns(path, two_theta, intensity, wavelength, status=None, coverage=None):
    """A patterns file as another program may write it."""
    with h5py.File(path, "w") as file:
        data = file.create_group("entry/data")
        data.attrs.update({"signal": "I", "NX_class": "NXdata"})
        data["I"] = np.asarray(intensity, np.float32)
        data["radial_axis"] = two_theta
        data["radial_axis"].attrs["units"] = "degrees"
        if coverage is not None:
            data["coverage"] = coverage
        file["entry/instrument/monochromator/wavelength"] = wavelength
        file["entry/polarization_applied"] = True
        file["entry/reduction/input/polarization_factor"] = 0.99
        if status is not None:
            file["entry/frames/status"] = np.asarray(status, np.uint8)
    return path


@pytest.fixture
def patterns(tmp_path, batch, card):
    """Twelve clear patterns; frame 5 was corrupt, frame 7 covers a tenth of the grid."""
    intensity = batch.intensity[: NY * NX].copy()
    coverage = batch.coverage[: NY * NX].copy()
    status = np.full(NY * NX, FrameStatus.OK)
    intensity[5], status[5] = np.nan, FrameStatus.CORRUPT
    intensity[7, 190:] = np.nan
    return write_patterns(
        tmp_path / "p.h5", card.grid.two_theta, intensity, card.wavelength, status, coverage
    )


def map_of(patterns, output, **options):
    return xrdpipe.map(
        patterns=str(patterns), output=output, scan_shape=f"{NY}x{NX}", png=False, **options
    )


def probability(path):
    with h5py.File(path) as file:
        return file["entry/phase_map/presence/probability"][()]


def test_a_lost_frame_costs_its_pixel_and_says_why(patterns, tmp_path, card, batch):
    outcome = map_of(patterns, tmp_path / "m.h5")
    assert outcome.lost == 1
    with h5py.File(tmp_path / "m.h5") as file:
        group = file["entry/phase_map"]
        names = [name.decode() for name in group["phase_names"][()]]
        assert names == ["bastnaesite-(La)", "calcite", "rhenium"]
        status = group["status"][()]
        assert status[1, 1] == FrameStatus.CORRUPT
        assert status[1, 3] == PixelStatus.OUTSIDE_GRID
        bad = status != FrameStatus.OK
        assert bad.sum() == 2
        assert (group["winner/phase_id"][()][bad] == -1).all()
        assert (group["presence/decision"][()][:, bad] == -1).all()
        assert np.isnan(group["presence/probability"][()][:, bad]).all()
        decision = group["presence/decision"][()].reshape(3, -1)
        truth = batch.presence[: NY * NX].T
        judged = (truth >= 0) & ~bad.ravel()
        assert (decision == truth)[judged].mean() > 0.9  # chance is 0.5
        assert file["entry/mapping/frame_index"][()].tolist() == [
            [0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]  # fmt: skip


def test_viewers_show_the_map_first(patterns, tmp_path):
    map_of(patterns, tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5") as file:
        default = get_default(file)
        assert default.group.name == "/entry/phase_map/co_occurrence"
        assert default.is_valid
        assert default.signal.shape == (NY, NX)
        found = []

        def check(name, item):
            if isinstance(item, h5py.Group) and item.attrs.get("NX_class") == "NXdata":
                assert NXdata(item).is_valid, name
                found.append(name)

        file.visititems(check)
        # Presence, winner, co-occurrence, unknown score.
        assert len(found) == 4
    assert xrdpipe.validate(file=tmp_path / "m.h5").summary.endswith("valid map file.")


def test_the_unknown_score_has_its_threshold_and_reasons(patterns, tmp_path, card):
    map_of(patterns, tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5") as file:
        group = file["entry/phase_map/unknown"]
        score, flag = group["score"][()].ravel(), group["flag"][()].ravel()
        assert group["threshold"][()] == card.unknown.threshold
        assert np.isnan(score[[5, 7]]).all()
        assert (flag[[5, 7]] == -1).all()
        told = np.isfinite(score)
        np.testing.assert_array_equal(flag[told] == 1, score[told] >= card.unknown.threshold)
        assert told.sum() == NY * NX - 2
        assert file["entry/phase_map/model/unknown_false_alarms"][()] == 0.05


def test_both_variants_give_the_mean_of_either(tmp_path, patterns, batch, card):
    """A file of integrate --variant both; the masked variant of one frame came out empty."""
    other = batch.intensity[100 : 100 + NY * NX]
    with h5py.File(patterns, "r+") as file:
        entry = file["entry"]
        for variant in ("masked", "unmasked"):
            entry.copy("data", f"azint1d_{variant}/data")
            entry[f"azint1d_{variant}/data"].attrs["variant"] = variant
        entry["azint1d_unmasked/data/I"][...] = other
        entry["azint1d_masked/data/I"][2] = np.nan
        del entry["data/coverage"], entry["azint1d_masked/data/coverage"]
        del entry["azint1d_unmasked/data/coverage"]
    maps = {}
    for variant in ("masked", "unmasked", "both"):
        path = tmp_path / f"{variant}.h5"
        xrdpipe.map(
            patterns=str(patterns), variant=variant, output=path, png=False, scan_shape="3x4"
        )
        with h5py.File(path) as file:
            group = file["entry/phase_map"]
            assert group["model/input_variant"].asstr()[()] == variant
            maps[variant] = {
                name: group[name][()].reshape(-1, NY * NX).astype(float)
                for name in ("presence/probability", "presence/spread", "unknown/score", "status")
            }
    one, two, both = (maps[name] for name in ("masked", "unmasked", "both"))
    shared = np.isfinite(one["unknown/score"][0]) & np.isfinite(two["unknown/score"][0])
    assert shared.sum() == NY * NX - 3
    for name in ("presence/probability", "unknown/score"):
        expected = (one[name] + two[name]) / 2
        np.testing.assert_allclose(both[name][:, shared], expected[:, shared], rtol=1e-5)
        np.testing.assert_array_equal(both[name][:, 2], two[name][:, 2])
    p, s = "presence/probability", "presence/spread"
    spread = np.sqrt((one[s] ** 2 + two[s] ** 2) / 2 + ((one[p] - two[p]) / 2) ** 2)
    np.testing.assert_allclose(both[s][:, shared], spread[:, shared], rtol=1e-4, atol=1e-7)
    assert both["status"][0, 2] == FrameStatus.OK
    assert both["status"][0, 5] == FrameStatus.CORRUPT


def test_the_link_to_the_patterns_moves_with_the_folder(patterns, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    shutil.move(patterns, home / "p.h5")
    map_of(home / "p.h5", home / "maps" / "m.h5")
    shutil.move(home, tmp_path / "elsewhere")
    with h5py.File(tmp_path / "elsewhere" / "maps" / "m.h5") as file:
        assert file["entry/patterns/data/I"].shape[0] == NY * NX


def test_maps_go_back_into_the_patterns_file(patterns, tmp_path):
    before = content(patterns)
    map_of(patterns, tmp_path / "m.h5")
    map_of(patterns, patterns)
    after = content(patterns)
    assert {name: after[name] for name in before} == before
    assert np.array_equal(probability(patterns), probability(tmp_path / "m.h5"), equal_nan=True)
    map_of(patterns, patterns, variant=None, prior=0.2)  # a second map replaces the first
    assert not np.array_equal(probability(patterns), probability(tmp_path / "m.h5"), equal_nan=True)
    assert {path.name for path in tmp_path.iterdir()} == {"p.h5", "m.h5"}


def test_resampling_first_gives_the_same_bits(patterns, tmp_path, card):
    """Decision 10: the stage of its own and the map's own resampling are one function."""
    with h5py.File(patterns, "r+") as file:  # off the grid by a third of a step
        file["entry/data/radial_axis"][...] = card.grid.two_theta + 0.0033
    xrdpipe.resample(patterns=patterns, model="hydrothermal-dac", output=tmp_path / "r.h5")
    map_of(tmp_path / "r.h5", tmp_path / "a.h5", with_patterns=True)
    map_of(patterns, tmp_path / "b.h5", with_patterns=True)
    same = differences(
        tmp_path / "a.h5", tmp_path / "b.h5",
        ignore=("run_key", "config_json", "uuid", "title", "/entry/patterns", "model/", "date"),
    )  # fmt: skip
    assert same == []


def test_rows_do_not_depend_on_their_company(tmp_path, batch, card):
    """300 rows at once, or 20 of them alone: the blocks of inference are padded (decision 22)."""
    whole = write_patterns(
        tmp_path / "all.h5", card.grid.two_theta, batch.intensity, card.wavelength
    )
    few = write_patterns(
        tmp_path / "few.h5", card.grid.two_theta, batch.intensity[:20], card.wavelength
    )
    xrdpipe.map(patterns=str(whole), output=tmp_path / "a.h5", png=False)
    xrdpipe.map(patterns=str(few), output=tmp_path / "b.h5", png=False)
    assert np.array_equal(probability(tmp_path / "a.h5")[:, :, :20], probability(tmp_path / "b.h5"))


def test_another_wavelength_reaches_the_same_answer(tmp_path, batch, card):
    """The same structure measured at 0.42 Å: angles differ, sin θ / λ does not."""
    sine = np.sin(np.radians(card.grid.two_theta) / 2) * 0.42 / card.wavelength
    at_042 = np.degrees(2 * np.arcsin(sine))
    axis = np.arange(at_042[0], at_042[-1], 0.004)
    converted = [np.interp(axis, at_042, row) for row in batch.intensity[:60]]
    path = write_patterns(tmp_path / "p.h5", axis, converted, 0.42)
    same = write_patterns(
        tmp_path / "q.h5", card.grid.two_theta, batch.intensity[:60], card.wavelength
    )
    notes = []
    xrdpipe.map(
        patterns=str(path),
        output=tmp_path / "a.h5",
        png=False,
        progress=Progress(note=notes.append),
    )
    xrdpipe.map(patterns=str(same), output=tmp_path / "b.h5", png=False)
    here, there = probability(tmp_path / "a.h5"), probability(tmp_path / "b.h5")
    assert ((here >= 0.5) == (there >= 0.5)).mean() > 0.97
    assert any("equal sin θ / λ" in note for note in notes)


def test_a_phase_without_a_line_in_range_is_undetermined(tmp_path, batch, card):
    """Decision 13: not 'absent'. The grid's upper part holds no strong line of bastnaesite."""
    intensity = batch.intensity[:6].copy()
    first = round((14.2 - card.grid.start) / card.grid.step)
    intensity[:, :first] = np.nan
    path = write_patterns(tmp_path / "p.h5", card.grid.two_theta, intensity, card.wavelength)
    xrdpipe.map(patterns=str(path), output=tmp_path / "m.h5", png=False)
    strongest = {phase.name: max(phase.strongest) for phase in card.phases}
    with h5py.File(tmp_path / "m.h5") as file:
        decision = file["entry/phase_map/presence/decision"][()][:, 0]
        winner = file["entry/phase_map/winner/phase_id"][()][0]
    for k, name in enumerate(card.phase_names):
        assert (decision[k] == -1).all() == (strongest[name] < 14.2), name
    assert not (winner == -2).any()  # 'none present' cannot be said
    assert (decision == -1).any()


def test_prior_shifts_the_log_odds_and_is_recorded(patterns, tmp_path):
    map_of(patterns, tmp_path / "a.h5")
    map_of(patterns, tmp_path / "b.h5", prior=[0.1, 0.5, 0.9])
    before, after = probability(tmp_path / "a.h5"), probability(tmp_path / "b.h5")

    def odds(p):
        return np.log(p) - np.log1p(-p)

    inside = np.isfinite(before) & (before > 1e-3) & (before < 1 - 1e-3)
    assert inside.any(axis=(1, 2)).all()
    for k, expected in enumerate([np.log(0.1 / 0.9), 0.0, np.log(9)]):
        old, new = before[k][inside[k]].astype(float), after[k][inside[k]].astype(float)
        assert np.allclose(odds(new) - odds(old), expected, atol=1e-2)
    with h5py.File(tmp_path / "b.h5") as file:
        assert file["entry/phase_map/model/prior"][()].tolist() == [0.1, 0.5, 0.9]
    with pytest.raises(OptionError, match="has 2 values, model hydrothermal-dac has 3 phases"):
        map_of(patterns, tmp_path / "c.h5", prior=[0.1, 0.2])


@pytest.mark.parametrize("count", [1, 20])
def test_any_number_of_phases(tmp_path, count):
    """K = 1 and K = 20 through train and map."""
    cifs = list(distractor_phases().values())[:count]
    model = xrdpipe.train(
        cif=cifs, wavelength=0.4, recipe="train-tiny", grid="4:16:0.02", output=tmp_path / "model"
    ).path
    card = read_card(model)
    random = np.random.default_rng(0)
    path = write_patterns(
        tmp_path / "p.h5", card.grid.two_theta, random.poisson(20, (6, card.grid.size)), 0.4
    )
    xrdpipe.map(patterns=str(path), model=str(model), scan_shape="2x3", output=tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5") as file:
        group = file["entry/phase_map"]
        names = [name.decode() for name in group["phase_names"][()]]
        assert names == [load_phase(cif).name for cif in cifs]
        assert group["presence/probability"].shape == (count, 2, 3)
        present = group["presence/decision"][()] == 1
        weight = (2 ** np.arange(count))[:, None, None]
        assert np.array_equal(group["co_occurrence/combination"][()], (present * weight).sum(0))
    assert (tmp_path / "m.png").stat().st_size > 5000
    assert xrdpipe.validate(file=model).summary.endswith("valid model folder 'model'.")


def test_refusals(patterns, tmp_path, card):
    map_of(patterns, tmp_path / "m.h5")
    assert "already done" in map_of(patterns, tmp_path / "m.h5").summary
    with pytest.raises(OutputExistsError, match=r"prior.*use --restart"):
        map_of(patterns, tmp_path / "m.h5", prior=0.3)
    with pytest.raises(InputError, match="12 frames do not fit the scan shape 3x3"):
        xrdpipe.map(patterns=str(patterns), scan_shape="3x3", output=tmp_path / "n.h5")
    with pytest.raises(InputError, match="give --poni"):
        xrdpipe.map(patterns=str(tmp_path), output=tmp_path / "n.h5")
    short = write_patterns(
        tmp_path / "short.h5", np.arange(30, 60, 0.01), np.ones((2, 3000)), card.wavelength
    )
    with pytest.raises(InputError, match=r"does not cover the grid 5-24° step 0.01°"):
        xrdpipe.map(patterns=str(short), output=tmp_path / "n.h5")
    assert not list(tmp_path.glob("n.*"))


def with_positions(path, at_x, at_y, **scan):
    """Add two motors to a patterns file, and what the files said of the scan."""
    with h5py.File(path, "r+") as file:
        group = file.create_group("entry/instrument/positioners")
        for name, values in (("samy", at_x), ("samz", at_y)):
            group[name] = values
            group[name].attrs.update({"long_name": name, "units": "mm"})
        group.attrs.update({f"scan_{name}": value for name, value in scan.items()})
    return path


def test_positions_of_the_files_make_the_map(patterns, tmp_path):
    """A snake, fast along y, with x running down: placed by its motors without any option."""
    row, column = np.divmod(np.arange(12), 4)
    point = np.where(column % 2 == 0, row, NY - 1 - row) + NY * (NX - 1 - column)
    order = np.argsort(point)
    with_positions(
        patterns, 5 + 0.01 * column[order], 1 + 0.02 * row[order],
        x="samy", y="samz", source="bliss",
    )  # fmt: skip
    notes = []
    outcome = xrdpipe.map(
        patterns=str(patterns), output=tmp_path / "m.h5", progress=Progress(note=notes.append)
    )
    assert "3x4 map" in outcome.summary
    assert any("scan: 3x4 from bliss, certain: 12 of 12 positions" in note for note in notes)
    with h5py.File(tmp_path / "m.h5") as file:
        mapping = file["entry/mapping"]
        np.testing.assert_array_equal(
            order[mapping["frame_index"][()]], np.arange(12).reshape(3, 4)
        )
        np.testing.assert_allclose(mapping["x"][()], [5, 5.01, 5.02, 5.03])
        np.testing.assert_allclose(mapping["y"][()], [1, 1.02, 1.04])
        np.testing.assert_allclose(mapping["x_actual"][()], 5 + 0.01 * column.reshape(3, 4))
        np.testing.assert_allclose(mapping["y_actual"][()], 1 + 0.02 * row.reshape(3, 4))
        assert mapping["x"].attrs["units"] == "mm"
        assert mapping["x"].attrs["long_name"] == "samy (mm)"
        said = {name: mapping[name].asstr()[()] for name in (
            "x_motor", "y_motor", "scan_type", "fast_axis", "source", "confidence")}  # fmt: skip
        assert said == {
            "x_motor": "samy", "y_motor": "samz", "scan_type": "snake", "fast_axis": "y",
            "source": "bliss", "confidence": "certain",
        }  # fmt: skip
        assert get_default(file).group.name == "/entry/phase_map/co_occurrence"
    assert xrdpipe.validate(file=tmp_path / "m.h5").summary.endswith("valid map file.")
    in_order = probability(tmp_path / "m.h5").reshape(3, -1)
    map_of(patterns, tmp_path / "n.h5", positions="none")
    assert np.array_equal(
        in_order, probability(tmp_path / "n.h5").reshape(3, -1)[:, point], equal_nan=True
    )
    with h5py.File(tmp_path / "n.h5") as file:
        assert file["entry/mapping/x"].attrs["long_name"] == "x (pixel)"
        assert "x_motor" not in file["entry/mapping"]


def test_neighbours_are_a_recorded_choice(tmp_path, batch, card):
    """Two halves of clear patterns, and in the left one a pattern of bare noise."""
    kind = batch.presence[:, 2] == 1
    left, right = np.flatnonzero(kind)[:30], np.flatnonzero(batch.presence[:, 2] == 0)[:30]
    order = np.stack([left.reshape(6, 5), right.reshape(6, 5)], axis=1).reshape(-1)
    intensity = batch.intensity[order].copy()
    intensity[32] = np.random.default_rng(0).poisson(5.0, card.grid.size)
    path = write_patterns(
        tmp_path / "p.h5", card.grid.two_theta, intensity, card.wavelength,
        coverage=batch.coverage[order],
    )  # fmt: skip
    told = {"patterns": str(path), "scan_shape": "6x10", "png": False}
    xrdpipe.map(**told, output=tmp_path / "a.h5")
    outcome = xrdpipe.map(**told, output=tmp_path / "b.h5", neighbours=True)
    with h5py.File(tmp_path / "a.h5") as alone, h5py.File(tmp_path / "b.h5") as coupled:
        before, after = (f["entry/phase_map/presence"] for f in (alone, coupled))
        assert np.array_equal(after["probability_alone"][()], before["probability"][()])
        assert "probability_alone" not in before
        model = coupled["entry/phase_map/model"]
        assert model["neighbours"][()]
        assert not alone["entry/phase_map/model/neighbours"][()]
        assert model["neighbour_strength"][2] > 1
        assert after["probability"][2, 3, 2] > before["probability"][2, 3, 2]
        assert f"neighbours {model['neighbour_strength'][2]:g}" in outcome.summary
        decision = after["decision"][()]
        assert np.array_equal(decision == 1, after["probability"][()] >= 0.5)
    assert xrdpipe.validate(file=tmp_path / "b.h5").summary.endswith("valid map file.")


def test_scattered_positions_have_no_neighbours(patterns, tmp_path):
    with_positions(patterns, np.arange(12) ** 1.5, np.sin(np.arange(12.0)))
    notes = []
    path = tmp_path / "m.h5"
    xrdpipe.map(
        patterns=str(patterns), output=path, positions="samy,samz", png=False, neighbours=True,
        progress=Progress(note=notes.append),
    )  # fmt: skip
    assert any("--neighbours is left out" in note for note in notes)
    with h5py.File(path) as file:
        assert not file["entry/phase_map/model/neighbours"][()]
        assert "probability_alone" not in file["entry/phase_map/presence"]


def test_scattered_positions_are_points_in_every_viewer(patterns, tmp_path):
    angle = 2.4 * np.arange(12)
    x, y = np.sqrt(np.arange(12)) * [np.cos(angle), np.sin(angle)]
    x[3] = np.nan
    with_positions(patterns, x, y)
    outcome = xrdpipe.map(patterns=str(patterns), output=tmp_path / "m.h5", positions="samy,samz")
    assert "12 scattered points" in outcome.summary
    assert (tmp_path / "m.png").stat().st_size > 5000
    with h5py.File(tmp_path / "m.h5") as file:
        assert file["entry/mapping/scan_type"].asstr()[()] == "irregular"
        assert file["entry/mapping/frame_index"].shape == (1, 12)
        default = get_default(file)
        assert default.is_valid
        assert default.is_scatter
        assert default.axes_dataset_names == ["x", "y"]
        np.testing.assert_array_equal(default.axes[0], np.delete(x, 3))
        winner = file["entry/phase_map/winner/phase_id"][0]
        np.testing.assert_array_equal(default.signal, np.delete(winner, 3))
        groups = [item for item in file["entry/phase_map"].values() if isinstance(item, h5py.Group)]
        assert all(NXdata(g).is_valid for g in groups if g.attrs["NX_class"] == "NXdata")
    assert xrdpipe.validate(file=tmp_path / "m.h5").summary.endswith("valid map file.")


def test_a_table_of_positions_belongs_to_the_run(patterns, tmp_path):
    row, column = np.divmod(np.arange(12), 4)
    table = tmp_path / "t.csv"

    def write(x):
        np.savetxt(table, np.column_stack([x, row]), delimiter=",", header="a,b", comments="")

    write(column)
    map_of(patterns, tmp_path / "m.h5", positions=f"{table}::a,b")
    moved = table.rename(tmp_path / "moved.csv")
    again = map_of(patterns, tmp_path / "m.h5", positions=f"{moved}::a,b")
    assert "already done" in again.summary
    write(3 - column)
    with pytest.raises(OutputExistsError, match="positions"):
        map_of(patterns, tmp_path / "m.h5", positions=f"{table}::a,b")


def test_the_time_of_each_kind_of_work_is_told(patterns, tmp_path):
    events = []
    progress = Progress(event=lambda kind, content: events.append((kind, content)))
    config = MapConfig(patterns=(str(patterns),), output=tmp_path / "m.h5")
    map_stage.run(config, progress)
    ((kind, content),) = events
    assert (kind, content["stage"]) == ("times", "map")
    assert set(content["seconds"]) == {"resample", "infer", "write", "draw"}
    assert all(seconds > 0 for seconds in content["seconds"].values())
