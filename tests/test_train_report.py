"""What a training reports: numbers with known answers, pictures inside one file."""

from __future__ import annotations

import base64
import io
import json
import re

import matplotlib.image
import numpy as np
import pytest

import xrdpipe
from xrdpipe.crystal import load_phase
from xrdpipe.nn.patterns import Chosen
from xrdpipe.nn.stream import draw_chosen
from xrdpipe.nn.task import REPORT, Task
from xrdpipe.nn.train_recipe import TrainRecipe
from xrdpipe.nn.training_report import (
    Judged,
    calibration,
    confusion,
    detection,
    detection_limit,
    draw_judged,
)
from xrdpipe.phases import shipped_phases
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.training_pictures import (
    draw_calibration,
    draw_confusion,
    draw_detection,
    draw_learning,
)
from xrdpipe.types import Grid, PhaseLibrary

NAMES = ("a", "b")


def test_confusion_of_known_answers():
    present = np.array([[1, 0], [1, 0], [0, 1], [0, 0], [1, 1], [1, 1], [1, 0]], dtype=bool)
    labels = np.array([[1, 0], [1, 0], [0, 1], [0, 0], [1, 1], [1, 1], [-1, 0]], dtype=np.int8)
    said = np.array([[1, 0], [0, 1], [0, 1], [1, 0], [1, 1], [0, 1], [1, 0]])
    table = confusion(NAMES, present, labels, 0.1 + 0.8 * said)
    assert table["phases"]["a"] == {
        "true_present": 2, "false_absent": 2, "true_absent": 1, "false_present": 1,
        "below_detection_limit_found": 1, "below_detection_limit_missed": 0,
    }  # fmt: skip
    assert table["phases"]["b"]["false_present"] == 1
    # a alone and visible: two patterns; one found, in the other b is seen instead.
    assert table["alone"] == [[0.5, 0.5], [0.0, 1.0], [1.0, 0.0]]
    assert table["alone_patterns"] == [2, 1, 1]
    assert table["missed_beside"] == [[0.5, 0.5], [0.0, 0.0]]
    assert table["missed_beside_patterns"] == [[4, 2], [2, 3]]


def test_calibration_before_and_after():
    rng = np.random.default_rng(0)
    right = rng.uniform(0, 1, (40000, 1))
    labels = (rng.uniform(0, 1, right.shape) < right).astype(np.int8)
    wrong = np.clip(right + 0.2, 0, 1)
    entry = calibration(("a",), labels, right, wrong)["a"]
    # Prevalence 0.5: nothing is shifted. Above 0.8 the wrong ones are cut: 0.2 less their mean.
    assert entry["ece_after"] < 0.01
    assert entry["ece_before"] == pytest.approx(0.8 * 0.2 + 0.2 * 0.1, abs=0.01)
    assert len(entry["reliability_after"]) == 15
    assert sum(row[4] for row in entry["reliability_after"]) == 40000
    assert all(low <= part <= high for _, part, low, high, _ in entry["reliability_after"])
    assert calibration(("a",), labels, right, None)["a"]["ece_before"] is None


def judged(labels, fraction, strength, grains):
    """Patterns of one phase; what they look like does not matter."""
    number = len(labels)
    flat = np.ones((number, 20), np.float32)
    flat[:, 15:] = np.nan  # three quarters of the range
    batch = Chosen(
        flat, np.ones_like(flat), np.zeros_like(flat), labels[:, None].astype(np.int8),
        strength[:, None].astype(np.float32), np.zeros(number, np.int8), np.zeros(number, bool),
    )  # fmt: skip
    return Judged(batch, (labels != 0)[:, None], fraction[:, None], grains[:, None])


def test_detection_against_what_makes_it_hard():
    fraction = np.concatenate([np.geomspace(0.01, 1, 8000), np.zeros(1000)])
    there = fraction > 0
    strength = np.where(there, 200 * fraction, 0)
    labels = np.where(there, np.where(strength >= 5, 1, -1), 0)
    # Found with a chance that rises from 0 to 1 with the logarithm of the fraction.
    chance = np.where(there, (np.log10(np.maximum(fraction, 1e-9)) + 2) / 2, 0.03)
    probability = (np.random.default_rng(0).uniform(size=9000) < chance)[:, None] * 0.9
    table = detection(("a",), judged(labels, fraction, strength, np.full(9000, 50.0)), probability)
    found = table["fraction"]["phases"]["a"]["all"]
    assert sum(found["patterns"]) == 8000
    np.testing.assert_allclose(
        found["found"] / found["patterns"], (np.arange(8) + 0.5) / 8, atol=0.06
    )
    assert found["limits"]["0.5"] == pytest.approx(0.1, rel=0.1)
    assert found["limits"]["0.9"] == pytest.approx(10**-0.2, rel=0.15)
    visible = table["signal_to_noise"]["phases"]["a"]["visible"]
    assert sum(visible["patterns"]) == (labels == 1).sum()
    assert table["grains"]["edges"].size == 0  # all alike: nothing to say
    parts = table["range_with_data"]
    where = np.flatnonzero(parts["phases"]["a"]["all"]["patterns"])
    assert [parts["edges"][where[0]], parts["edges"][where[0] + 1]] == [0.7, 0.8]
    assert table["false_presence"]["a"] == pytest.approx(0.03, abs=0.02)


@pytest.mark.parametrize(
    ("found", "patterns", "limit"),
    [
        ([0, 50, 100], [100, 100, 100], 10**1.5 * 10**0.8),  # 0.9 between the last two middles
        ([95, 95, 95], [100, 100, 100], 1.0),  # all above: from the lowest edge
        ([95, 95, 50], [100, 100, 100], None),  # the highest is below
        ([95, 0, 100], [100, 100, 100], 10**1.5 * 10**0.9),  # a dip counts
        ([0, 5, 100], [100, 5, 100], 10**0.5 * 10**1.8),  # too few in the middle
    ],
)
def test_detection_limits_between_bins(found, patterns, limit):
    edges = np.array([1.0, 10, 100, 1000])
    answer = detection_limit(edges, np.array(found), np.array(patterns), 0.9)
    assert answer == (None if limit is None else pytest.approx(limit))


def test_judged_patterns_are_those_of_the_report_stream():
    library = PhaseLibrary((load_phase(shipped_phases()["calcite"]),))
    recipe = TrainRecipe(held_out=300, masked_share=0.3)
    stream = Task(library, (), Grid(6, 16, 0.05, 0.4959), recipe, Recipe(), 4).stream(REPORT)
    drawn = draw_judged(stream, recipe)
    same = draw_chosen(stream, 0, 300, 0.3, recipe.spottiness_share)
    np.testing.assert_array_equal(drawn.batch.intensity, same.intensity)
    np.testing.assert_array_equal(drawn.present, same.presence != 0)
    assert ((drawn.scattering > 0) == drawn.present).all()
    assert (np.isfinite(drawn.grains) == drawn.present).all()


def pictures_of(page):
    """Every picture as an array of pixels."""
    found = re.findall(r"src='data:image/png;base64,([^']+)'", page)
    return [matplotlib.image.imread(io.BytesIO(base64.b64decode(data))) for data in found]


def test_a_model_folder_has_one_self_contained_report(tmp_path):
    output = tmp_path / "m"
    outcome = xrdpipe.train(output=output, wavelength=0.4959, recipe="train-tiny", grid="6:16:0.05")
    assert str(output / "report.html") in outcome.summary
    report = json.loads((output / "report.json").read_text())
    curve = report["learning"][0]
    assert len(curve["training_loss"]) == 2
    assert curve["checked"] == [1, 2]
    counts = report["confusion"]["phases"]["calcite"]
    assert sum(counts.values()) == report["held_out_patterns"] == 64
    scores = report["scores"]["all"]["calcite"]
    assert counts["true_present"] + counts["true_absent"] == round(
        scores["accuracy"] * scores["patterns"]
    )
    assert report["calibration"]["calcite"]["ece_after"] == pytest.approx(scores["ece"], abs=1e-4)
    assert set(report["detection"]) == {
        "fraction", "grains", "signal_to_noise", "range_with_data", "false_presence",
    }  # fmt: skip
    page = (output / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|<script|<link|src='(?!data:)", page)
    shown = pictures_of(page)
    assert len(shown) == 4  # no calibrant
    assert all(min(picture.shape[:2]) > 200 and picture.std() > 0.02 for picture in shown)
    for word in ("bastnaesite-(La)", "calcite", "rhenium", "0.4959", "6 to 16 degrees"):
        assert word in page


def test_a_classical_method_has_no_learning_curve(tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        "[train]\nnetwork = 'matched-filter'\nepochs = 1\npatterns_per_epoch = 200\nheld_out = 60\n"
    )
    xrdpipe.train(output=tmp_path / "m", wavelength=0.4959, recipe=recipe, grid="6:16:0.02")
    report = json.loads((tmp_path / "m" / "report.json").read_text())
    assert report["learning"] == []
    assert report["calibration"]["calcite"]["ece_before"] is None
    assert len(pictures_of((tmp_path / "m" / "report.html").read_text())) == 3


@pytest.mark.parametrize("count", [1, 9])
def test_pictures_of_any_number_of_phases(count):
    rng = np.random.default_rng(count)
    names = [f"phase with a long name {k}" for k in range(count)]
    labels = rng.integers(-1, 2, (400, count)).astype(np.int8)
    probability = rng.uniform(size=labels.shape)
    table = confusion(tuple(names), labels != 0, labels, probability)
    assert draw_confusion(names, table).startswith(b"\x89PNG")
    reliability = calibration(tuple(names), labels, probability, None)
    assert draw_calibration(reliability).startswith(b"\x89PNG")
    flat = np.ones((400, 5), np.float32)
    patterns = Judged(
        Chosen(
            flat,
            flat,
            flat,
            labels,
            rng.uniform(1, 20, labels.shape),
            np.zeros(400, np.int8),
            np.zeros(400, bool),
        ),
        labels != 0,
        rng.uniform(0.03, 1, labels.shape),
        rng.uniform(30, 3e5, labels.shape),
    )
    found = detection(tuple(names), patterns, probability)
    assert draw_detection(names, found).startswith(b"\x89PNG")


def test_learning_curves_without_checks_are_drawn():
    curve = {
        "member": 0, "training_loss": [0.5, 0.4], "checked": [], "held_out_loss": [],
        "held_out_accuracy": [], "stopped": None, "chosen": None,
    }  # fmt: skip
    assert draw_learning([curve]).startswith(b"\x89PNG")
