"""Probabilities become decisions, winners and combinations by the published codes."""

from __future__ import annotations

import numpy as np
import pytest

from xrdpipe.maps import assemble
from xrdpipe.scan import place_frames
from xrdpipe.schema import (
    NO_RESULT,
    NONE_PRESENT,
    UNDETERMINED,
    UNKNOWN,
    WINNER_MEANINGS,
    FrameStatus,
    PixelStatus,
)
from xrdpipe.types import Predictions

NAN = np.nan
OK = FrameStatus.OK


def predictions(probability, status=None, unknown=None) -> Predictions:
    probability = np.asarray(probability, np.float32)
    status = np.full(len(probability), OK) if status is None else np.asarray(status)
    unknown = np.full(len(probability), NAN) if unknown is None else np.asarray(unknown)
    return Predictions(probability, probability / 10, unknown, status.astype(np.uint8))


ROWS = [
    # probabilities, status → decisions, winner, confidence, combination, number of phases
    ([0.9, 0.2, 0.6], OK, [1, 0, 1], 0, 0.9, 0b101, 2),
    ([0.1, 0.5, 0.49], OK, [0, 1, 0], 1, 0.5, 0b010, 1),
    ([0.6, 0.7, 0.8], OK, [1, 1, 1], 2, 0.8, 0b111, 3),
    ([0.1, 0.2, 0.3], OK, [0, 0, 0], NONE_PRESENT, 0.9 * 0.8 * 0.7, 0, 0),
    ([0.1, NAN, 0.3], OK, [0, -1, 0], UNDETERMINED, NAN, 0, 0),
    ([NAN, 0.8, 0.3], OK, [-1, 1, 0], 1, 0.8, 0b010, 1),
    ([NAN, NAN, NAN], OK, [-1, -1, -1], UNDETERMINED, NAN, -1, -1),
    ([0.9, 0.9, 0.9], FrameStatus.CORRUPT, [-1, -1, -1], NO_RESULT, NAN, -1, -1),
    ([NAN] * 3, PixelStatus.OUTSIDE_GRID, [-1, -1, -1], NO_RESULT, NAN, -1, -1),
    ([0.8] * 3, PixelStatus.MODEL_FAILED, [-1, -1, -1], NO_RESULT, NAN, -1, -1),
    ([0.8] * 3, FrameStatus.SKIPPED, [-1, -1, -1], NO_RESULT, NAN, -1, -1),
]


@pytest.mark.parametrize("case", range(len(ROWS)))
def test_codes_of_one_pixel(case):
    probability, status, decision, winner, confidence, combination, n_phases = ROWS[case]
    scan = place_frames(np.arange(1), False, (1, 1))
    found = assemble(predictions([probability], [status]), scan, ("a", "b", "c"))
    assert found.decision[:, 0, 0].tolist() == decision
    assert found.winner[0, 0] == winner
    np.testing.assert_allclose(found.confidence[0, 0], confidence, rtol=1e-6)
    assert found.combination[0, 0] == combination
    assert found.n_phases[0, 0] == n_phases
    assert found.status[0, 0] == status
    usable = status == OK
    np.testing.assert_array_equal(
        np.isnan(found.probability[:, 0, 0]), np.isnan(probability) | (not usable)
    )


def test_pixels_without_a_frame_are_missing_and_types_are_the_published_ones():
    numbers = np.array([1, 2, 4, 6])
    scan = place_frames(numbers, True, (2, 3), snake=True)
    probability = [[0.9, 0.1], [0.1, 0.9], [0.8, 0.7], [0.2, 0.1]]
    found = assemble(predictions(probability), scan, ("a", "b"))
    np.testing.assert_array_equal(scan.frame_index, [[0, 1, -1], [3, -1, 2]])
    np.testing.assert_array_equal(found.winner, [[0, 1, NO_RESULT], [NONE_PRESENT, NO_RESULT, 0]])
    missing = FrameStatus.MISSING
    np.testing.assert_array_equal(found.status, [[OK, OK, missing], [OK, missing, OK]])
    np.testing.assert_array_equal(found.combination, [[1, 2, -1], [0, -1, 3]])
    np.testing.assert_allclose(found.probability[:, 1, 2], [0.8, 0.7], rtol=1e-6)
    np.testing.assert_allclose(found.spread[:, 1, 2], [0.08, 0.07], rtol=1e-6)
    for name, dtype in (
        ("probability", np.float32), ("spread", np.float32), ("decision", np.int8),
        ("winner", np.int16), ("confidence", np.float32), ("combination", np.int32),
        ("n_phases", np.int16), ("status", np.uint8),
    ):  # fmt: skip
        assert getattr(found, name).dtype == dtype, name
    assert found.probability.shape == found.decision.shape == (2, 2, 3)


@pytest.mark.parametrize("k", [1, 2, 20, 31, 40])
def test_any_number_of_phases(k):
    rng = np.random.default_rng(k)
    probability = rng.uniform(0, 1, (12, k))
    probability[3] = 0.9  # all of them
    probability[4] = 0.1  # none
    scan = place_frames(np.arange(12), False, (3, 4), "y", True)
    names = tuple(f"p{i}" for i in range(k))
    found = assemble(predictions(probability), scan, names)
    for place, row in np.ndenumerate(scan.frame_index):
        p = np.float32(probability[row])
        present = [i for i in range(k) if p[i] >= 0.5]
        assert found.combination[place] == sum(2**i for i in present)
        assert found.n_phases[place] == len(present)
        expected = max(present, key=lambda i: p[i]) if present else NONE_PRESENT
        assert found.winner[place] == expected
    assert found.combination.max() == 2**k - 1
    assert set(np.unique(found.winner)) <= {*range(k), *WINNER_MEANINGS}


def test_permuting_the_phases_permutes_the_maps():
    rng = np.random.default_rng(5)
    probability = rng.uniform(0, 1, (6, 4))
    order = [2, 0, 3, 1]
    scan = place_frames(np.arange(6), False, (2, 3))
    names = ("a", "b", "c", "d")
    one = assemble(predictions(probability), scan, names)
    other = assemble(predictions(probability[:, order]), scan, tuple(names[i] for i in order))
    np.testing.assert_array_equal(one.decision[order], other.decision)
    np.testing.assert_array_equal(one.n_phases, other.n_phases)
    np.testing.assert_array_equal(one.confidence, other.confidence)
    named = [np.where(m.winner >= 0, np.array(m.phase_names)[m.winner], "-") for m in (one, other)]
    np.testing.assert_array_equal(*named)


def test_what_holds_no_known_phase_but_an_unknown_one_is_unknown():
    scan = place_frames(np.arange(6), False, (1, 6))
    rows = [[0.1, 0.2], [0.1, 0.2], [0.9, 0.2], [NAN, 0.2], [0.1, 0.1], [0.1, 0.2]]
    status = [OK, OK, OK, OK, OK, FrameStatus.CORRUPT]
    given = predictions(rows, status, [0.8, 0.69, 0.9, 0.9, NAN, 0.9])
    found = assemble(given, scan, ("a", "b"), unknown_threshold=0.7)
    expected = [UNKNOWN, NONE_PRESENT, 0, UNDETERMINED, NONE_PRESENT, NO_RESULT]
    assert found.winner[0].tolist() == expected
    assert found.confidence[0, 0] == pytest.approx(0.8)
    np.testing.assert_allclose(found.unknown[0], [0.8, 0.69, 0.9, 0.9, NAN, NAN], rtol=1e-6)
    without = assemble(given, scan, ("a", "b"))
    assert without.winner[0].tolist() == [NONE_PRESENT, *expected[1:]]


def test_the_threshold_belongs_to_presence():
    scan = place_frames(np.arange(1), False, (1, 1))
    found = assemble(predictions([[0.5, 0.6]]), scan, ("a", "b"), threshold=0.55)
    assert found.decision[:, 0, 0].tolist() == [0, 1]
