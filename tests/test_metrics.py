"""Scores with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from xrdpipe import metrics
from xrdpipe.errors import InputError


def test_wilson_interval():
    # Newcombe, Stat. Med. 17, 857 (1998), table I: 81 of 263, 0 of 20 and 29 of 29
    assert metrics.wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert metrics.wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert metrics.wilson_interval(29, 29) == pytest.approx((0.8830, 1.0), abs=1e-4)
    assert all(math.isnan(edge) for edge in metrics.wilson_interval(0, 0))


def test_auroc():
    truth = np.array([0, 0, 1, 1], bool)
    assert metrics.auroc(truth, np.array([0.1, 0.4, 0.35, 0.8])) == 0.75
    assert metrics.auroc(truth, np.array([0.1, 0.2, 0.7, 0.8])) == 1
    assert metrics.auroc(truth, np.full(4, 0.3)) == 0.5
    assert math.isnan(metrics.auroc(np.ones(4, bool), np.arange(4.0)))
    random = np.random.default_rng(0)
    truth, score = random.random(300) < 0.3, np.round(random.random(300), 1)
    pairs = score[truth][:, None] - score[~truth][None, :]
    assert metrics.auroc(truth, score) == pytest.approx(((pairs > 0) + (pairs == 0) / 2).mean())


def test_calibration_and_brier():
    truth = np.array([1, 0, 1, 1], bool)
    assert metrics.brier(truth, np.array([1.0, 0.0, 1.0, 0.0])) == 0.25
    assert metrics.expected_calibration_error(truth, truth.astype(float)) == 0
    assert metrics.expected_calibration_error(truth, np.full(4, 0.5)) == 0.25
    random = np.random.default_rng(1)
    probability = random.random(60_000)
    drawn = random.random(60_000) < probability
    assert metrics.expected_calibration_error(drawn, probability) < 0.015
    # Always 0.2 too sure of presence
    shifted = np.clip(probability + 0.2, 0, 1.2) / 1.2
    expected = np.mean(np.abs(shifted - probability))
    error = metrics.expected_calibration_error(drawn, shifted)
    assert error == pytest.approx(expected, abs=0.01)
    order = random.permutation(60_000)
    assert metrics.expected_calibration_error(drawn[order], shifted[order]) == pytest.approx(error)


def test_calibration_with_weights_is_that_of_repeated_pixels():
    truth = np.array([1, 0, 1, 0, 0], bool)
    probability = np.array([0.9, 0.6, 0.6, 0.2, 0.1])
    weight = np.array([2, 1, 3, 4, 1])
    once = metrics.expected_calibration_error(truth, probability, 4, weight)
    again = np.repeat(truth, weight), np.repeat(probability, weight)
    assert once == pytest.approx(metrics.expected_calibration_error(*again, 4))
    assert metrics.calibration_bins(np.arange(6.0), 3).tolist() == [0, 0, 1, 1, 2, 2]
    assert metrics.calibration_bins(np.array([1.0, 2.0]), 2, np.array([9.0, 1.0])).tolist() == [
        0,
        1,
    ]


def test_risk_coverage():
    right = np.array([1, 1, 0, 1], bool)
    coverage, risk = metrics.risk_coverage(right, np.array([0.9, 0.8, 0.7, 0.6]))
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert risk.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 4])
    # Equal confidence is one step, in whatever order the pixels come.
    coverage, risk = metrics.risk_coverage(right, np.full(4, 0.5))
    assert (coverage.tolist(), risk.tolist()) == ([1], [0.25])
    sure = np.array([0.9, 0.8, 0.1, 0.6])
    assert metrics.area_under_risk(right, sure) == pytest.approx(1 / 16)
    assert metrics.area_under_risk(right, 1 - sure) > 0.25
    assert math.isnan(metrics.area_under_risk(right[:0], sure[:0]))


def test_scores_of_a_known_table():
    # 20 present (18 found), 70 absent (7 false alarms), 10 undetermined
    truth = np.array([1] * 20 + [0] * 70 + [1] * 4 + [0] * 6, bool)
    decision = np.array([1] * 18 + [0] * 2 + [1] * 7 + [0] * 63 + [-1] * 10, np.int8)
    probability = np.where(decision < 0, np.nan, np.where(decision == 1, 0.9, 0.1))
    scores = metrics.score_phase("calcite", truth, probability, decision)
    assert (scores.pixels, scores.undetermined, scores.without_probability) == (100, 10, 10)
    assert scores.prevalence == pytest.approx(0.24)
    assert scores.accuracy == pytest.approx(81 / 90)
    assert scores.accuracy_all == pytest.approx(0.81)
    assert scores.constant_accuracy == pytest.approx(70 / 90)
    assert scores.balanced_accuracy == pytest.approx(0.9)
    assert scores.f1 == pytest.approx(36 / 45)
    expected = (18 * 63 - 7 * 2) / math.sqrt(25 * 20 * 70 * 65)
    assert scores.mcc == pytest.approx(expected)
    assert scores.brier == pytest.approx((81 * 0.01 + 9 * 0.81) / 90)
    assert scores.aurc == pytest.approx(9 / 90)
    assert scores.accuracy_low < 0.9 < scores.accuracy_high
    parts = scores.true_present, scores.false_present, scores.true_absent, scores.false_absent
    assert parts == (18, 7, 63, 2)


def test_undefined_scores_are_nan_not_errors():
    nothing = metrics.score_phase("calcite", np.zeros(5, bool), np.full(5, np.nan), np.full(5, -1))
    assert nothing.undetermined == 5
    assert nothing.accuracy_all == 0
    for name in ("accuracy", "balanced_accuracy", "f1", "mcc", "auroc", "brier", "ece", "aurc"):
        assert math.isnan(getattr(nothing, name))


def test_exact_match():
    truth = np.array([[1, 0, 0, 1], [0, 0, 1, 1]], bool)
    decision = np.array([[1, 0, 1, -1], [0, 0, 1, 1]])
    match = metrics.exact_match(truth, decision)
    assert match["exact_match"] == pytest.approx(2 / 3)
    assert match["all"] == 0.5
    assert match["undetermined"] == 1
    assert match["constant"] == pytest.approx(1 / 3)
    empty = metrics.exact_match(truth, np.full((2, 4), -1))
    assert math.isnan(empty["exact_match"])
    assert empty["all"] == 0


def test_block_interval():
    ones = np.ones((12, 12), bool)
    assert metrics.block_interval(ones, ones, 3) == (1.0, 1.0)
    random = np.random.default_rng(2)
    white = random.random((60, 60)) < 0.8
    low, high = metrics.block_interval(white, np.ones_like(white), 1)
    assert metrics.wilson_interval(int(white.sum()), white.size) == pytest.approx(
        (low, high), abs=0.004
    )
    # Errors in patches of 6 x 6: as many blocks, so an interval about six times as wide
    patches = np.kron(random.random((10, 10)) < 0.8, np.ones((6, 6), bool))
    wide = np.diff(metrics.block_interval(patches, np.ones_like(patches), 6))[0]
    assert 4 < wide / (high - low) < 8
    assert np.isnan(metrics.block_interval(ones, ~ones, 3)).all()


def test_score_map_and_table():
    random = np.random.default_rng(3)
    truth = random.random((2, 12, 18)) < 0.4
    probability = np.where(truth, 0.8, 0.1)
    decision = truth.astype(np.int8)
    decision[0, 0, 0], probability[0, 0, 0] = -1, np.nan
    scores = metrics.score_map(("calcite", "rhenium"), truth, probability, decision)
    assert [row["accuracy"] for row in scores["phases"]] == [1, 1]
    assert scores["phases"][0]["undetermined"] == 1
    assert scores["block"] == 2
    table, sentences = metrics.score_table(scores)
    assert [row[0] for row in table.rows] == ["calcite", "rhenium"]
    assert dict(zip(table.head, table.rows[0], strict=True))["undetermined"] == "1"
    assert "1 with an undetermined phase" in sentences


@pytest.mark.parametrize(
    ("probability", "decision", "message"),
    [
        (np.full(3, 0.5), np.zeros(4), "must have one shape"),
        (np.full(4, 1.5), np.zeros(4), "between 0 and 1"),
        (np.full(4, 0.5), np.full(4, 7), "decisions must be"),
    ],
)
def test_wrong_input_is_refused(probability, decision, message):
    with pytest.raises(InputError, match=message):
        metrics.score_phase("calcite", np.zeros(4, bool), probability, decision)
