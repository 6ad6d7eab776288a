"""Frames stand where they were measured, upright, with or without numbers."""

from __future__ import annotations

import numpy as np
import pytest

from xrdpipe.errors import InputError
from xrdpipe.scan import place_frames, scan_positions

L = np.array(
    [
        [1, 0, 0, 0],
        [1, 0, 0, 0],
        [1, 1, 1, 0],
    ]
)
"""An object that no flip, turn or transposition maps onto itself, on a 3 x 4 grid."""


def measured(fast_axis: str, snake: bool) -> list[tuple[int, int]]:
    """(row, column) of the beam, moved step by step over 3 rows and 4 columns."""
    ny, nx = L.shape
    path = []
    slow_steps, fast_steps = (ny, nx) if fast_axis == "x" else (nx, ny)
    for slow in range(slow_steps):
        fast_order = list(range(fast_steps))
        if snake and slow % 2:
            fast_order.reverse()
        path += [(slow, fast) if fast_axis == "x" else (fast, slow) for fast in fast_order]
    return path


@pytest.mark.parametrize("snake", [False, True])
@pytest.mark.parametrize("fast_axis", ["x", "y"])
def test_an_asymmetric_object_stands_upright(fast_axis, snake):
    path = measured(fast_axis, snake)
    np.testing.assert_array_equal(scan_positions((3, 4), fast_axis, snake), path)
    seen = np.array([L[place] for place in path])  # one value per frame, in order
    scan = place_frames(np.arange(12), False, (3, 4), fast_axis, snake)
    np.testing.assert_array_equal(seen[scan.frame_index], L)
    assert scan.shape == (3, 4)
    assert sorted(scan.frame_index.ravel()) == list(range(12))


@pytest.mark.parametrize("base", [0, 1])
@pytest.mark.parametrize("snake", [False, True])
@pytest.mark.parametrize("fast_axis", ["x", "y"])
def test_missing_frames_leave_holes_and_shift_nothing(fast_axis, snake, base):
    path = measured(fast_axis, snake)
    kept = np.array([0, 1, 2, 4, 5, 8, 9, 11])
    seen = np.array([L[path[point]] for point in kept])
    scan = place_frames(kept + base, True, (3, 4), fast_axis, snake)
    for point, place in enumerate(path):
        row = scan.frame_index[place]
        if point in kept:
            assert seen[row] == L[place]
            assert kept[row] == point
        else:
            assert row == -1


def test_as_many_frames_as_pixels_go_in_order_whatever_their_numbers():
    scan = place_frames(np.array([7, 20, 21, 300]), True, (2, 2))
    np.testing.assert_array_equal(scan.frame_index, [[0, 1], [2, 3]])


def test_without_a_shape_all_frames_are_one_row():
    scan = place_frames(np.array([3, 5, 9]), True, None)
    np.testing.assert_array_equal(scan.frame_index, [[0, 1, 2]])


def test_a_scan_of_one_point():
    assert place_frames(np.array([4]), True, (1, 1)).frame_index.tolist() == [[0]]


@pytest.mark.parametrize(
    ("numbers", "numbered", "shape", "message"),
    [
        (np.arange(7), True, (2, 3), r"7 frames do not fit the scan shape 2x3 \(6 pixels\)"),
        (np.arange(5), False, (2, 3), "carry no numbers.*--incomplete"),
        (
            np.arange(100, 105),
            True,
            (2, 3),
            r"numbers 100-104 do not tell.*--first-number \(100 if.*before them, 99 if.*after them",
        ),
        (np.array([0, 6]), True, (2, 3), "numbers 0-6 lie outside"),
        (np.array([1, 2, 2]), True, (2, 3), "some of them have the same number.*--incomplete"),
        (np.array([-1, 2]), True, (2, 3), "numbers -1-2 do not tell"),
    ],
)
def test_frames_that_do_not_fit_are_refused(numbers, numbered, shape, message):
    with pytest.raises(InputError, match=message):
        place_frames(numbers, numbered, shape)


@pytest.mark.parametrize(
    ("numbers", "numbered"), [(np.arange(5), False), (np.arange(90, 95), True)]
)
def test_incomplete_fills_in_order(numbers, numbered):
    scan = place_frames(numbers, numbered, (2, 3), snake=True, incomplete=True)
    np.testing.assert_array_equal(scan.frame_index, [[0, 1, 2], [-1, 4, 3]])


def test_incomplete_shifts_no_frame_that_has_a_number():
    scan = place_frames(np.array([90, 92, 93]), True, (2, 3), incomplete=True)
    np.testing.assert_array_equal(scan.frame_index, [[0, -1, 1], [2, -1, -1]])
    assert scan.confidence == "likely"
    assert "the first point has number 90, or 89" in scan.evidence
    scan = place_frames(np.array([10, 20, 30]), True, (2, 3), incomplete=True)
    np.testing.assert_array_equal(scan.frame_index, [[0, 1, 2], [-1, -1, -1]])
    assert scan.confidence == "likely"
    assert "numbers 10-30 span more than the 6 pixels" in scan.evidence


@pytest.mark.parametrize("first", [2, 101, 501])
def test_numbers_that_fill_the_shape_need_no_help(first):
    scan = place_frames(first + np.array([0, 1, 3, 5]), True, (2, 3))
    np.testing.assert_array_equal(scan.frame_index, [[0, 1, -1], [2, -1, 3]])
    assert scan.confidence == "given"


@pytest.mark.parametrize(
    ("numbers", "sure"),
    [([0, 1, 4], True), ([1, 2, 6], True), ([1, 2, 5], False), ([2, 3, 5], False)],
)
def test_a_first_point_that_may_be_0_or_1_is_said(numbers, sure):
    scan = place_frames(np.array(numbers), True, (2, 3))
    assert scan.confidence == ("given" if sure else "likely")
    assert ("the first point has number 1, or 0: --first-number" in scan.evidence) is not sure
    base = 0 if 0 in numbers else 1
    points = [number - base for number in numbers]
    np.testing.assert_array_equal(np.flatnonzero(scan.frame_index.ravel() >= 0), points)


def test_the_first_number_decides():
    numbers = np.array([1, 2, 5])
    for first, points in ((0, [1, 2, 5]), (1, [0, 1, 4])):
        scan = place_frames(numbers, True, (2, 3), first_number=first)
        np.testing.assert_array_equal(np.flatnonzero(scan.frame_index.ravel() >= 0), points)
        assert scan.confidence == "given"
    with pytest.raises(InputError, match="points have the numbers 2-7; frame 1 lies outside"):
        place_frames(numbers, True, (2, 3), first_number=2)
    with pytest.raises(InputError, match="needs frames that carry numbers"):
        place_frames(numbers, False, (2, 3), first_number=1)
    with pytest.raises(InputError, match="needs frames that carry numbers, each its own"):
        place_frames(np.array([1, 1]), True, (2, 3), first_number=1)


def test_as_many_frames_as_pixels_with_a_gap_are_in_doubt():
    numbers = np.array([1, 2, 4, 5, 6, 7])  # the third is lost, the seventh too many
    scan = place_frames(numbers, True, (2, 3))
    np.testing.assert_array_equal(scan.frame_index, [[0, 1, 2], [3, 4, 5]])
    assert scan.confidence == "likely"
    assert "numbers 1-7 have gaps" in scan.evidence
    with pytest.raises(InputError, match="frame 7 lies outside"):
        place_frames(numbers, True, (2, 3), first_number=1)
    for whole in (np.arange(7, 13), np.arange(0, 12, 2)):
        assert place_frames(whole, True, (2, 3)).confidence == "given"
