"""A map against its truth: phases by name, every score beside prevalence, clear refusals."""

from __future__ import annotations

import dataclasses
import json

import h5py
import numpy as np
import pytest

from xrdpipe.config import EvaluateConfig
from xrdpipe.errors import InputError, InputMissingError
from xrdpipe.stages import evaluate
from xrdpipe.store.truth import Truth, read_truth, write_truth
from xrdpipe.types import Progress

NAMES = ("bastnaesite-(La)", "calcite", "rhenium")


def truth(names=NAMES, shape=(6, 8)) -> Truth:
    present = np.random.default_rng(4).random((len(names), *shape)) < 0.4
    fraction = present / np.maximum(present.sum(axis=0), 1)
    return Truth(
        phase_names=names,
        presence=present,
        weight_fraction=fraction.astype(np.float32),
        strength=present.astype(np.float32),
        lattice=np.ones((*present.shape, 6), np.float32),
        size=np.ones(present.shape, np.float32),
        extra={"frame": np.arange(shape[0] * shape[1], dtype=np.int32).reshape(shape)},
    )


def write_map(path, names, probability, decision) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("entry/phase_map")
        group["phase_names"] = np.array(names, dtype="S64")
        group["presence/probability"] = probability.astype(np.float32)
        group["presence/decision"] = decision.astype(np.int8)
        group["winner/phase_id"] = np.full(decision.shape[1:], -2, np.int16)
        group["status"] = np.ones(decision.shape[1:], np.uint8)


@pytest.fixture
def files(tmp_path):
    known = truth()
    write_truth(tmp_path / "truth.h5", known)
    decision = known.presence.astype(np.int8)
    decision[1, 0, :2] = 1 - decision[1, 0, :2]
    decision[2, 5, 7] = -1
    probability = np.where(known.presence, 0.9, 0.05)
    probability[2, 5, 7] = np.nan
    # The map has its phases in another order, and one more.
    order = [2, 0, 1]
    extra = np.zeros((1, 6, 8))
    write_map(
        tmp_path / "map.h5",
        [NAMES[i] for i in order] + ["halite"],
        np.concatenate([probability[order], extra]),
        np.concatenate([decision[order], extra]),
    )
    return tmp_path / "map.h5", tmp_path / "truth.h5"


def test_phases_are_matched_by_name(files):
    scores = evaluate.evaluate_maps(*files)
    by_name = {row["phase"]: row for row in scores["phases"]}
    assert list(by_name) == list(NAMES)
    assert by_name["bastnaesite-(La)"]["accuracy"] == 1
    assert by_name["calcite"]["accuracy"] == pytest.approx(46 / 48)
    assert by_name["rhenium"]["undetermined"] == 1
    assert by_name["rhenium"]["accuracy"] == 1
    assert scores["exact_match"]["exact_match"] == pytest.approx(45 / 47)
    assert scores["not_in_truth"] == ["halite"]


def test_the_unknown_score_is_judged_by_what_lies_outside_the_label_set(files):
    map_path, truth_path = files
    known = read_truth(truth_path)
    distractor = np.zeros((6, 8), np.float32)
    distractor[:3, :4] = 7.0
    write_truth(
        truth_path, dataclasses.replace(known, extra=known.extra | {"distractor": distractor})
    )
    score = np.where(distractor > 0, 0.8, 0.3)
    score[0, 0], score[5, :2], score[5, 7] = 0.5, 0.9, np.nan
    assert "unknown" not in evaluate.evaluate_maps(map_path, truth_path)
    with h5py.File(map_path, "a") as file:
        file["entry/phase_map/unknown/score"] = score
        file["entry/phase_map/unknown/threshold"] = 0.7
    found = evaluate.evaluate_maps(map_path, truth_path)["unknown"]
    assert found["pixels"] == 47
    assert found["prevalence"] == pytest.approx(12 / 47)
    assert found["found"] == pytest.approx(11 / 12)
    assert found["false_alarms"] == pytest.approx(2 / 35)
    # Two of the 35 others lie above every positive, the other 33 below.
    assert found["auroc"] == pytest.approx(1 - 2 / 35)
    text = evaluate.run(EvaluateConfig(map=map_path, truth=truth_path), Progress()).summary
    assert "91.7 % found, 5.7 % false alarms" in text


def test_run_gives_a_table_and_a_dict(files):
    outcome = evaluate.run(EvaluateConfig(map=files[0], truth=files[1]), Progress())
    assert "calcite" in outcome.summary
    assert outcome.summary.splitlines()[0] == f"{files[0]} against {files[1]}"
    assert "prevalence" in outcome.summary.splitlines()[1]
    assert json.loads(json.dumps(outcome.details))["pixels"] == 48


def test_truth_round_trip(tmp_path):
    known = truth()
    write_truth(tmp_path / "truth.h5", known)
    again = read_truth(tmp_path / "truth.h5")
    for field in dataclasses.fields(Truth):
        first, second = getattr(known, field.name), getattr(again, field.name)
        if field.name == "extra":
            assert first.keys() == second.keys()
        else:
            np.testing.assert_array_equal(first, second)
    with h5py.File(tmp_path / "truth.h5") as file:
        assert set(file["entry/truth"]) >= {
            "phase_names",
            "presence",
            "weight_fraction",
            "strength",
            "lattice",
            "size",
        }


def test_a_phase_that_the_map_lacks_is_named(files, tmp_path):
    write_truth(tmp_path / "other.h5", truth((*NAMES[:2], "quartz")))
    with pytest.raises(InputError, match=r"has no phase quartz; it holds rhenium, .* halite"):
        evaluate.evaluate_maps(files[0], tmp_path / "other.h5")


def test_another_shape_is_refused(files, tmp_path):
    write_truth(tmp_path / "other.h5", truth(shape=(8, 6)))
    with pytest.raises(InputError, match=r"has 6 x 8 pixels, the truth .* 8 x 6"):
        evaluate.evaluate_maps(files[0], tmp_path / "other.h5")


def test_broken_files_are_named(files, tmp_path):
    with pytest.raises(InputMissingError, match="does not exist"):
        evaluate.evaluate_maps(tmp_path / "none.h5", files[1])
    with pytest.raises(InputMissingError, match="does not exist"):
        evaluate.evaluate_maps(files[0], tmp_path / "none.h5")
    with pytest.raises(InputError, match="phase_names is absent"):
        evaluate.evaluate_maps(files[1], files[1])
    with pytest.raises(InputError, match="has no /entry/truth"):
        evaluate.evaluate_maps(files[0], files[0])
    text = tmp_path / "text.h5"
    text.write_text("not HDF5")
    with pytest.raises(InputError, match="as HDF5"):
        evaluate.evaluate_maps(text, files[1])
    with pytest.raises(InputError, match="cannot be read as HDF5"):
        read_truth(text)
