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
        (np.arange(100, 105), True, (2, 3), "numbers 100-104 lie outside"),
        (np.array([0, 6]), True, (2, 3), "numbers 0-6 lie outside"),
        (np.array([1, 2, 2]), True, (2, 3), "some of them have the same number"),
        (np.array([-1, 2]), True, (2, 3), "lie outside"),
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
