"""Positions become a map: upright, without shifts, and honest about how sure that is."""

from __future__ import annotations

import csv
import itertools
import time
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pytest

import xrdpipe
from known_frames import geometry_of, rings, write_image, write_poni
from layouts import SHAPE, all_layouts
from xrdpipe.config import ScanOptions
from xrdpipe.errors import InputError, OptionError
from xrdpipe.frames import open_frames
from xrdpipe.frames.names import read_names
from xrdpipe.scan import one_per_frame, scan_from_positions, scan_positions
from xrdpipe.schema import FrameStatus
from xrdpipe.stages.scans import resolve_scan, scan_of_files
from xrdpipe.store.patterns import PatternsFile
from xrdpipe.types import FrameRecord, Progress, ScanHint

L = np.array(
    [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
    ]
)
"""Stands on its foot where x grows to the right and y downward; no symmetry, 5 x 7 pixels."""
STEP_X, STEP_Y = 0.005, 0.002
WAYS = list(itertools.product("xy", (False, True), (1, -1), (1, -1)))


@dataclass
class Travel:
    """A scan as a beamline makes it: where the beam was at each point, and what it saw."""

    x: np.ndarray
    y: np.ndarray
    cells: np.ndarray  # of (column, row), by ascending motor
    shape: tuple[int, int]
    lines: int

    @property
    def truth(self) -> np.ndarray:
        index = np.full(self.shape, -1)
        index[self.cells[:, 1], self.cells[:, 0]] = np.arange(self.x.size)
        return index

    def without(self, gone) -> np.ndarray:
        """Frame index of the map when these points have no frame."""
        kept = np.setdiff1d(np.arange(self.x.size), gone)
        rows = np.full(self.x.size, -1)
        rows[kept] = np.arange(kept.size)
        return rows[self.truth]


def travel(shape, fast_axis="x", snake=False, right=1, down=1, noise=0.0, backlash=0.0, seed=0):
    """Move over the grid; noise (rms) and backlash in steps; right, down: signs of the travel."""
    ny, nx = shape
    row, column = scan_positions(shape, fast_axis, snake).T
    column = column if right > 0 else nx - 1 - column
    row = row if down > 0 else ny - 1 - row
    back = np.arange(ny * nx) // (nx if fast_axis == "x" else ny) % 2 * backlash
    random = np.random.default_rng(seed)
    shaken = random.normal(0, noise, (2, ny * nx))
    if nx == 1:  # across a line there is no step: what shakes is as large as along it
        shaken[0] *= STEP_Y / STEP_X
    x = 12.3 + STEP_X * (column + shaken[0] + (back if fast_axis == "x" else 0))
    y = -4.0 + STEP_Y * (row + shaken[1] + (back if fast_axis == "y" else 0))
    lines = ny if fast_axis == "x" else nx
    return Travel(x, y, np.stack([column, row], axis=1), shape, lines)


@dataclass
class Files:
    """A FrameSource of which only what concerns the scan is alive."""

    records: tuple[FrameRecord, ...]
    values: dict[str, np.ndarray] = field(default_factory=dict)
    scan: ScanHint | None = None
    numbered: bool = False
    name: str = "files"

    @property
    def columns(self):
        return dict.fromkeys(self.values, "mm")

    def column(self, name):
        return self.values.get(name)


def files(numbers, scan=None, numbered=False, problems=None, named="f", **values):
    problems = problems if problems is not None else np.zeros(len(numbers), int)
    records = tuple(
        FrameRecord(named.format(number), 0, int(number), 1, 0, int(problem))
        for number, problem in zip(numbers, problems, strict=True)
    )
    return Files(records, values, scan, numbered)


def edges(scan: Travel, fast_axis, snake, right, down):
    """What a continuous scan saves: positions at the ends of each exposure, line by line."""
    ny, nx = scan.shape
    length = nx if fast_axis == "x" else ny
    fast, slow = (scan.x, scan.y) if fast_axis == "x" else (scan.y, scan.x)
    fast, slow = fast.reshape(-1, length), slow.reshape(-1, length)
    step = np.diff(fast, axis=1).mean(axis=1, keepdims=True)
    ends = np.hstack([fast - step / 2, fast[:, -1:] + step / 2]).ravel()
    held = np.hstack([slow, slow[:, -1:]]).ravel()
    return (ends, held) if fast_axis == "x" else (held, ends)


def resolved(source, notes=None, **options):
    progress = Progress(note=(lambda text: None) if notes is None else notes.append)
    return resolve_scan(ScanOptions(**options), source, progress)


def check_upright(scan, way, seen):
    np.testing.assert_array_equal(seen[scan.frame_index], L)
    assert (scan.fast_axis, scan.snake) == way[:2]


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("kind", ["exact", "noise", "loud", "edges", "table"])
def test_an_l_stands_upright_by_positions(tmp_path, way, kind):
    noise = {"noise": 0.05, "loud": 0.2}.get(kind, 0.0)
    moved = travel(L.shape, *way, noise=noise, seed=3)
    seen = L[moved.cells[:, 1], moved.cells[:, 0]]
    x, y = edges(moved, *way) if kind == "edges" else (moved.x, moved.y)
    numbers = np.arange(seen.size)
    options = {}
    if kind == "table":
        options = {"positions": f"{tmp_path / 'motors.csv'}::sx,sz"}
        rows = np.random.default_rng(0).permutation(seen.size)  # numbers place, not order
        table = [["frame", "sz", "sx"], *([n + 1, y[n], x[n]] for n in rows)]
        with (tmp_path / "motors.csv").open("w", newline="") as file:
            csv.writer(file).writerows(table)
        source = files(numbers + 1, numbered=True)
    else:
        hint = ScanHint(x="sx", y="sz", shape=L.shape if kind == "edges" else None, source="bliss")
        source = files(numbers, hint, sx=x, sz=y)
    scan = resolved(source, **options)
    check_upright(scan, way, seen)
    assert scan.confidence == ("likely" if kind == "loud" else "certain")
    if kind != "loud":
        np.testing.assert_allclose(scan.x.values, 12.3 + STEP_X * np.arange(7), atol=STEP_X / 20)
        np.testing.assert_allclose(scan.y.values, -4.0 + STEP_Y * np.arange(5), atol=STEP_Y / 20)
    if kind not in ("loud", "edges"):
        np.testing.assert_allclose(scan.x_actual, moved.x[scan.frame_index])
        np.testing.assert_allclose(scan.y_actual, moved.y[scan.frame_index])


@pytest.mark.parametrize("way", [way for way in WAYS if way[2:] == (1, 1)], ids=str)
@pytest.mark.parametrize("kind", ["options", "numbers"])
def test_an_l_stands_upright_by_options(way, kind):
    moved = travel(L.shape, *way)
    seen = L[moved.cells[:, 1], moved.cells[:, 0]]
    kept = np.arange(35) if kind == "options" else np.delete(np.arange(35), [4, 19])
    source = files(kept + 1, numbered=kind == "numbers")
    scan = resolved(source, scan_shape=L.shape, fast_axis=way[0], snake=way[1])
    placed = scan.frame_index >= 0
    assert placed.sum() == kept.size
    np.testing.assert_array_equal(seen[kept][scan.frame_index[placed]], L[placed])


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.2])
@pytest.mark.parametrize("shape", [(3, 4), (24, 32), (1, 30), (30, 1), (2, 40), (40, 2)])
def test_noise_of_the_encoder(shape, noise):
    for way, seed in itertools.product(WAYS[::3], range(3)):
        moved = travel(shape, *way, noise=noise, seed=seed)
        scan = scan_from_positions(moved.x, moved.y)
        np.testing.assert_array_equal(scan.frame_index, moved.truth)
        assert noise > 0.1 or scan.confidence in ("certain", "likely")


def test_evidence_is_a_sentence():
    moved = travel((24, 32), snake=True, noise=0.01)
    scan = scan_from_positions(moved.x, moved.y, names=("samz", "samy"))
    assert scan.evidence.startswith("768 of 768 positions within 0.0")
    assert scan.evidence.endswith("steps of a 24x32 grid; snake; fast axis x (samz)")


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.15])
@pytest.mark.parametrize("numbered", [False, True])
def test_gaps_shift_nothing(noise, numbered):
    moved = travel((10, 10), snake=True, noise=noise, seed=1)
    gone = np.array([34, 47, 48])
    kept = np.setdiff1d(np.arange(100), gone)
    scan = scan_from_positions(moved.x[kept], moved.y[kept], numbers=kept + 1 if numbered else None)
    np.testing.assert_array_equal(scan.frame_index, moved.without(gone))
    assert "3 pixels without a frame" in scan.evidence


def test_frames_without_a_position_lie_between_their_neighbours():
    moved = travel((5, 8), snake=True, down=-1)
    moved.x[[0, 13, 14, 39]] = np.nan
    scan = scan_from_positions(moved.x, moved.y)
    np.testing.assert_array_equal(scan.frame_index, moved.truth)
    gone = np.array([13, 20])  # now one of them could lie on either of two pixels
    kept = np.setdiff1d(np.arange(40), gone)
    scan = scan_from_positions(moved.x[kept], moved.y[kept])
    expected = moved.without(gone)
    expected[expected == 13] = -1
    np.testing.assert_array_equal(scan.frame_index, expected)
    assert "1 frame without a position left out" in scan.evidence
    assert scan.confidence == "likely"
    scan = scan_from_positions(moved.x[kept], moved.y[kept], numbers=kept + 1)
    np.testing.assert_array_equal(scan.frame_index, moved.without(gone))  # its number tells


def test_the_last_frames_have_no_position():
    moved = travel((5, 8), snake=True, down=-1)
    moved.y[25:] = np.nan
    scan = scan_from_positions(moved.x, moved.y, shape=(5, 8))
    np.testing.assert_array_equal(scan.frame_index, moved.truth)
    assert "15 frames without a position placed by the neighbours" in scan.evidence
    scan = scan_from_positions(moved.x, moved.y)  # nobody says where the fifth line lies
    np.testing.assert_array_equal(scan.frame_index, moved.truth[1:])
    assert "8 frames without a position left out" in scan.evidence
    assert scan.confidence == "likely"


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_an_aborted_scan_keeps_its_shape(way):
    moved = travel((6, 9), *way)
    n = 22
    scan = scan_from_positions(moved.x[:n], moved.y[:n], shape=(6, 9))
    np.testing.assert_array_equal(scan.frame_index, np.where(moved.truth < n, moved.truth, -1))
    np.testing.assert_allclose(scan.x.values, 12.3 + STEP_X * np.arange(9))
    np.testing.assert_allclose(scan.y.values, -4.0 + STEP_Y * np.arange(6))
    assert scan.confidence == "certain"
    without = scan_from_positions(moved.x[:n], moved.y[:n])
    assert without.shape in ((3, 9), (6, 4))


def test_aborted_in_the_first_line():
    moved = travel((6, 9), right=-1)
    scan = scan_from_positions(moved.x[:4], moved.y[:4], shape=(6, 9))
    assert scan.shape == (6, 9)
    assert scan.frame_index[0].tolist() == [-1] * 5 + [3, 2, 1, 0]
    assert scan.y is None  # one line does not tell how far the next is


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_short_rows(noise):
    moved = travel((20, 15), snake=True, noise=noise, seed=2)
    gone = np.arange(20) * 15 + np.where(np.arange(20) % 3 == 0, 14, 0)  # end or start of a line
    kept = np.setdiff1d(np.arange(300), gone)
    scan = scan_from_positions(moved.x[kept], moved.y[kept])
    np.testing.assert_array_equal(scan.frame_index, moved.without(gone))


@pytest.mark.parametrize(("backlash", "sure"), [(0.1, "certain"), (0.4, "likely"), (0.5, "likely")])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_backlash(backlash, sure, noise):
    moved = travel((12, 17), snake=True, backlash=backlash, noise=noise)
    scan = scan_from_positions(moved.x, moved.y)
    np.testing.assert_array_equal(scan.frame_index, moved.truth)
    assert scan.confidence == sure
    assert "lines forth and back lie 0." in scan.evidence


@pytest.mark.parametrize("drift", [0.3, 0.9])
def test_the_slow_axis_creeps_along_each_line(drift):
    moved = travel((12, 17))
    moved.y += STEP_Y * drift * (np.arange(204) % 17) / 17
    scan = scan_from_positions(moved.x, moved.y)
    np.testing.assert_array_equal(scan.frame_index, moved.truth)


@pytest.mark.parametrize("shape", [(3, 1000), (300, 400)])
@pytest.mark.parametrize("noise", [0.02, 0.2])
def test_large_grids_do_not_drift_and_take_no_time(shape, noise):
    moved = travel(shape, snake=True, noise=noise)
    start = time.process_time()
    scan = scan_from_positions(moved.x, moved.y)
    assert time.process_time() - start < 5  # 0.4 s on a free core
    np.testing.assert_array_equal(scan.frame_index, moved.truth)


def test_any_order_on_a_grid():
    moved = travel((9, 11))
    order = np.random.default_rng(0).permutation(99)
    scan = scan_from_positions(moved.x[order], moved.y[order])
    np.testing.assert_array_equal(order[scan.frame_index], moved.truth)


def spiral(n=150):
    angle, radius = 3.5 * np.sqrt(np.arange(n)), 0.01 * np.sqrt(np.arange(n))
    return 5 + radius * np.cos(angle), 2 + radius * np.sin(angle)


@pytest.mark.parametrize("kind", ["spiral", "random"])
def test_scattered_positions_are_irregular(kind):
    x, y = spiral() if kind == "spiral" else np.random.default_rng(4).random((2, 80))
    scan = scan_from_positions(x, y)
    assert scan.irregular
    assert scan.shape == (1, x.size)
    np.testing.assert_array_equal(scan.frame_index[0], np.arange(x.size))
    np.testing.assert_array_equal(scan.x_actual[0], x)
    np.testing.assert_array_equal(scan.y_actual[0], y)


def test_few_scattered_positions_are_hardly_ever_taken_for_a_grid():
    taken = 0
    for seed in range(100):
        x, y = np.random.default_rng(seed).random((2, 4 + seed % 16))
        scan = scan_from_positions(x, y)
        taken += not scan.irregular and scan.confidence != "guess"
    assert taken <= 3


def test_two_frames_never_share_a_pixel():
    moved = travel((4, 6))
    x, y = np.repeat(moved.x, 2), np.repeat(moved.y, 2)
    scan = scan_from_positions(x, y)
    np.testing.assert_array_equal(scan.frame_index, 2 * moved.truth)
    assert scan.confidence == "guess"
    assert "24 frames left out: on a pixel that an earlier frame has" in scan.evidence
    again = scan_from_positions(np.append(moved.x, moved.x[7]), np.append(moved.y, moved.y[7]))
    np.testing.assert_array_equal(again.frame_index, moved.truth)
    assert again.confidence == "guess"


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_repeated_point_at_the_end_of_each_line_is_no_column(noise):
    """Step scans that save a point too many per line."""
    moved = travel(L.shape, snake=True, noise=noise, seed=5)
    rows = np.insert(np.arange(35), np.arange(7, 36, 7), np.arange(6, 35, 7))
    scan = scan_from_positions(moved.x[rows], moved.y[rows])
    assert scan.shape == L.shape
    np.testing.assert_array_equal(rows[scan.frame_index], moved.truth)
    assert scan.confidence == "guess"
    assert "5 frames left out: on a pixel that an earlier frame has" in scan.evidence


def test_an_empty_line_of_a_noisy_grid_is_not_certain():
    for seed, number in itertools.product(range(60), (0, 1)):
        moved = travel((2, 10), snake=True, noise=0.1, seed=seed)
        kept = np.delete(np.arange(20), seed % 20)
        scan = scan_from_positions(moved.x[kept], moved.y[kept], numbers=kept + number)
        index = scan.frame_index
        if (index < 0).all(axis=0).any() or (index < 0).all(axis=1).any():
            assert scan.confidence != "certain"


def test_copies_of_frames_take_no_pixel():
    moved = travel((4, 6), snake=True)
    rows = np.sort(np.append(np.arange(24), 9))
    problems = np.zeros(25, int)
    problems[10] = FrameStatus.DUPLICATE
    expected = moved.truth + (moved.truth >= 10)
    source = files(rows + 1, numbered=True, problems=problems)
    by_number = resolved(source, scan_shape=(4, 6), snake=True)
    np.testing.assert_array_equal(by_number.frame_index, expected)
    source = files(rows, problems=problems, samx=moved.x[rows], samy=moved.y[rows])
    by_position = resolved(source)
    np.testing.assert_array_equal(by_position.frame_index, expected)
    assert by_position.confidence == "certain"


def test_motors_are_found_by_their_names_only_if_they_form_a_grid():
    moved = travel((4, 6))
    random = np.random.default_rng(0)
    noise = {"flux": random.random(24), "energy": np.full(24, 18.0), "th": np.zeros(24)}
    still = np.full(24, 7.0)
    for names in (("samx", "samy"), ("sy", "sz"), ("stage_x_rbv", "stage_y_rbv"), ("X", "Y")):
        source = files(np.arange(24), **noise, **dict(zip(names, (moved.x, moved.y), strict=True)))
        scan = resolved(source)
        assert (scan.x.name, scan.y.name) == names
        np.testing.assert_array_equal(scan.frame_index, moved.truth)
    source = files(np.arange(24), samx=moved.x, samy=moved.y, px=still, py=still)
    assert resolved(source).shape == (4, 6)
    x, y = random.random((2, 24))
    assert scan_of_files(files(np.arange(24), samx=x, samy=y)) is None
    assert resolved(files(np.arange(24), samx=x, samy=y)).shape == (1, 24)
    named = files(np.arange(24), ScanHint(x="samx", y="samy", source="bliss"), samx=x, samy=y)
    assert resolved(named).irregular


def test_positions_win_over_what_the_files_claim():
    moved = travel((4, 6), snake=True)
    hint = ScanHint("sx", "sy", shape=(6, 4), fast_axis="y", snake=False, source="title")
    scan = resolved(files(np.arange(24), hint, sx=moved.x, sy=moved.y))
    np.testing.assert_array_equal(scan.frame_index, moved.truth)
    assert (scan.fast_axis, scan.snake, scan.confidence) == ("x", True, "likely")
    assert "though 6x4 was asked for" in scan.evidence


def test_a_shape_without_positions():
    whole = ScanHint(shape=(4, 6), snake=True, source="title", evidence="amesh 4x6")
    scan = resolved(files(np.arange(24), whole))
    np.testing.assert_array_equal(scan.frame_index, travel((4, 6), snake=True).truth)
    assert (scan.confidence, scan.source) == ("likely", "title")
    notes = []
    unknown = ScanHint(shape=(4, 6), source="title")
    assert resolved(files(np.arange(24), unknown), notes).shape == (1, 24)
    assert "they may be 4x6 from title, guess" in notes[0]
    assert "--scan-shape" in notes[0]
    assert resolved(files(np.arange(20), whole)).shape == (1, 20)
    aborted = files(np.arange(1, 21), whole, numbered=True)
    assert resolved(aborted).shape == (4, 6)


def test_a_line_along_either_axis():
    along = np.linspace(0, 1, 11)
    hint = ScanHint(x="samx", source="bliss")
    scan = resolved(files(np.arange(11), hint, samx=along[::-1]))
    assert scan.frame_index.tolist() == [list(range(10, -1, -1))]
    assert scan.y is None
    scan = resolved(files(np.arange(11), ScanHint(y="samz"), samz=along))
    assert scan.frame_index[:, 0].tolist() == list(range(11))
    assert scan.x is None


def test_options_win_and_say_so():
    moved = travel((4, 6), snake=True)
    source = files(np.arange(24), samx=moved.x, samy=moved.y)
    notes = []
    agreeing = resolved(source, notes, scan_shape=(4, 6), snake=True)
    assert notes == []
    np.testing.assert_allclose(agreeing.x.values, 12.3 + STEP_X * np.arange(6))
    raster = resolved(source, notes, scan_shape=(4, 6))
    np.testing.assert_array_equal(raster.frame_index, np.arange(24).reshape(4, 6))
    assert raster.x is None
    assert "warning: the options place the frames elsewhere" in notes[0]
    assert resolved(source, positions="none").shape == (1, 24)
    assert resolved(source, positions="samx,samy", scan_shape=(4, 6)).shape == (4, 6)
    swapped = resolved(source, positions="samy,samx")
    np.testing.assert_array_equal(swapped.frame_index, moved.truth.T)


def test_a_shape_leaves_the_first_point_open_and_positions_close_it():
    moved = travel((4, 6), snake=True)
    kept = np.arange(1, 24)  # counted from 0, and 0 is lost
    notes = []
    scan = resolved(files(kept, numbered=True), notes, scan_shape=(4, 6), snake=True)
    assert scan.confidence == "likely"
    assert notes == [f"warning: {scan.evidence}"]
    assert "number 1, or 0: --first-number decides" in scan.evidence
    told = resolved(
        files(kept, numbered=True), notes, scan_shape=(4, 6), snake=True, first_number=0
    )
    np.testing.assert_array_equal(told.frame_index, moved.without([0]))
    assert len(notes) == 1
    source = files(kept, numbered=True, samx=moved.x[kept], samy=moved.y[kept])
    scan = resolved(source, notes, scan_shape=(4, 6), snake=True)
    assert "elsewhere than the recorded positions" in notes[1]
    scan = resolved(source, notes, scan_shape=(4, 6), snake=True, first_number=0)
    assert (scan.confidence, len(notes)) == ("given", 2)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"snake": True}, "--snake needs"),
        ({"fast_axis": "y", "incomplete": True}, "--fast-axis y and --incomplete need"),
        ({"first_number": 0}, "--first-number 0 needs"),
        ({"positions": "none", "snake": True}, "--snake needs"),
    ],
)
def test_a_way_without_a_shape_is_refused(options, named):
    moved = travel((4, 6), snake=True)
    source = files(np.arange(24), samx=moved.x, samy=moved.y)
    with pytest.raises(OptionError, match=f"{named} --scan-shape"):
        resolved(source, **options)


def stage_table(path, moved, first=None, column="frame"):
    """A row per point of the scan; with its number or file where ``first`` is given."""
    rows = [[x, y] for x, y in zip(moved.x, moved.y, strict=True)]
    names = ["sx", "sy"]
    if first is not None:
        file = column == "file"
        rows = [[f"raw/a_{n:03d}.cbf" if file else n, *row] for n, row in enumerate(rows, first)]
        names = [column, *names]
    if path.suffix == ".h5":
        with h5py.File(path, "w") as written:
            for name, values in zip(names, zip(*rows, strict=True), strict=True):
                written[f"m/{name}"] = values
        return f"{path}::/m::sx,sy"
    with path.open("w", newline="") as written:
        csv.writer(written).writerows([names, *rows])
    return f"{path}::sx,sy"


@pytest.mark.parametrize("suffix", [".csv", ".h5"])
@pytest.mark.parametrize("first", [0, 1, 101])
@pytest.mark.parametrize("column", [None, "image_number", "Frame Number", "index", "file"])
def test_rows_of_a_longer_table_find_their_frames(tmp_path, suffix, first, column):
    if (suffix, column) == (".h5", "file"):
        pytest.skip("a table of HDF5 datasets names no files")
    moved = travel(L.shape, snake=True)
    given = stage_table(tmp_path / f"t{suffix}", moved, None if column is None else first, column)
    for gone in ([10, 11], [0, 17] if column else [17]):
        kept = np.setdiff1d(np.arange(35), gone)
        source = files(kept + first, numbered=True, named="/data/a_{:03d}.tif")
        scan = resolved(source, positions=given)
        np.testing.assert_array_equal(scan.frame_index, moved.without(gone))
        assert scan.confidence == "certain"


def test_a_longer_table_is_never_cut(tmp_path):
    moved = travel(L.shape, snake=True)
    given = stage_table(tmp_path / "t.csv", moved)
    for first in (1, 2):
        kept = np.arange(33) + first  # two are gone at either end: nobody knows
        shown = f"35 values for 33 frames of files, numbered {first}-{first + 32}; .*--first-number"
        with pytest.raises(InputError, match=shown):
            resolved(files(kept, numbered=True), positions=given)
        told = resolved(files(kept, numbered=True), positions=given, first_number=1)
        np.testing.assert_array_equal(
            told.frame_index, moved.without(np.setdiff1d(np.arange(35), kept - 1))
        )
    with pytest.raises(InputError, match="35 values for 33 frames"):
        resolved(files(np.arange(33)), positions=given)
    with pytest.raises(InputError, match="35 values for 34 frames"):
        resolved(files(np.arange(2, 36), numbered=True), positions=given)
    with pytest.raises(InputError, match="numbers 5-39; frame 1 lies outside"):
        resolved(files(np.arange(1, 34), numbered=True), positions=given, first_number=5)
    numbered = stage_table(tmp_path / "n.csv", moved, 1)
    with pytest.raises(OptionError, match="names the frame of each row"):
        resolved(files(np.arange(1, 34), numbered=True), positions=numbered, first_number=1)


def test_one_row_more_than_frames_is_the_end_of_the_scan(tmp_path):
    """Edges of a continuous line: one more than frames; not certain where frame 0 may be lost."""
    line = np.column_stack([np.arange(12) - 0.5, np.zeros(12)])
    np.savetxt(tmp_path / "t.csv", line, delimiter=",", header="x,y", comments="")
    given = f"{tmp_path / 't.csv'}::x,y"
    for first, confidence in ((0, "certain"), (1, "likely")):
        scan = resolved(files(np.arange(11) + first, numbered=True), positions=given)
        assert scan.frame_index.tolist() == [list(range(11))]
        np.testing.assert_allclose(scan.x_actual[0], np.arange(11))
        assert scan.confidence == confidence


@pytest.mark.parametrize(("first", "table"), [(0, 1), (1, 0)])
@pytest.mark.parametrize("gone", [[], [10, 11], [3]])
def test_a_table_that_counts_from_another_start_is_refused(tmp_path, first, table, gone):
    moved = travel(L.shape, snake=True)
    given = stage_table(tmp_path / "t.csv", moved, table)
    kept = np.setdiff1d(np.arange(35), gone)
    with pytest.raises(InputError, match=rf"names frames {table}-{table + 34}, .* has frames"):
        resolved(files(kept + first, numbered=True), positions=given)


def test_a_table_with_numbers_has_every_frame_that_is_only_counted(tmp_path):
    moved = travel(L.shape, snake=True)
    source = files(np.arange(35))
    for first in (0, 1):
        given = stage_table(tmp_path / "t.csv", moved, first)
        np.testing.assert_array_equal(resolved(source, positions=given).frame_index, moved.truth)
    given = stage_table(tmp_path / "t.csv", moved, 2)
    with pytest.raises(InputError, match=r"names frames 2-36, .*0-34 \(counted\)"):
        resolved(source, positions=given)


def test_a_file_that_the_table_names_twice_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("file,x,y\na_1.tif,0,0\na_1.tif,1,0\na_2.tif,2,0\n")
    with pytest.raises(InputError, match=r"'file' of .*t.csv names a file twice"):
        resolved(files([1, 2], named="a_{}.tif"), positions=f"{tmp_path / 't.csv'}::x,y")


def of_names(form, rows, columns):
    """The scan that the names of one file per row and column show, and what is said of it."""
    points = [(row, column) for row in rows for column in columns]
    names = [form.format(row, column, number) for number, (row, column) in enumerate(points)]
    found = read_names([Path(name) for name in names])
    values = {name: column for name, (column, _) in found.columns.items()}
    source = files(found.numbers, found.scan, found.numbered, **values)
    return resolved(source), scan_of_files(source)


@pytest.mark.parametrize(
    ("form", "rows"),
    [
        ("LaB_S{:04d}_{:05d}.tif", (41, 42)),
        ("LaB_{:03d}_{:05d}.tif", (41, 42)),
        ("sample{}_{:04d}.tif", (1, 2)),
        ("scan_{:03d}_{:03d}.tif", (0, 1)),
        ("LaFe_{}K_{:04d}.tif", (300, 350, 400)),
        ("run{}/img_{:04d}.tif", (0, 1, 2)),
        ("T{}_x{:04d}.tif", (0, 1, 2)),
    ],
)
def test_several_scans_in_one_folder_are_no_map(form, rows):
    scan, said = of_names(form, rows, range(12))
    assert scan.shape == (1, 12 * len(rows))
    assert said.confidence == "guess"
    assert "these may be several scans" in said.evidence


@pytest.mark.parametrize(
    ("form", "confidence", "reason"),
    [
        ("map_r{:02d}_c{:02d}.tif", "certain", ""),
        ("row_{:03d}/img_{:04d}.tif", "certain", ""),
        ("map_{}_{}.tif", "likely", "the first number taken as row, the other as column"),
        ("map_{:02d}_x{:02d}.tif", "likely", "the first number taken as row"),
        ("map_{1}_{0}_{2:04d}.tif", "likely", "the second number taken as row"),
        ("map_{0}_{1}_{2:04d}.tif", "likely", "the first number taken as row"),
    ],
)
def test_rows_and_columns_of_names_are_as_sure_as_their_labels(form, confidence, reason):
    scan, _ = of_names(form, range(5), range(7))
    np.testing.assert_array_equal(scan.frame_index, np.arange(35).reshape(5, 7))
    assert scan.confidence == confidence
    assert reason in scan.evidence


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"positions": "samx,samz"}, InputError, r"no motor 'samz'. Did you mean 'sam[xy]'"),
        ({"positions": "samx"}, OptionError, "names 1 columns; expected two, horizontal first"),
        ({"positions": "samx,samy", "snake": True}, OptionError, "--snake cannot be combined"),
        ({"positions": "samx,samy", "fast_axis": "y"}, OptionError, "--fast-axis y cannot be"),
        (
            {"positions": "samx,samy", "scan_shape": (6, 4)},
            InputError,
            "samx,samy and --scan-shape 6x4 disagree: .* 4x6 grid.* fit with X and Y swapped",
        ),
        ({"positions": "few.csv::a,b"}, InputError, r"'a' of few.csv has 2 values for 24 frames"),
        ({"positions": "few.csv::a,c"}, InputError, r"few.csv has no column 'c'"),
        ({"positions": "far.csv::a,b"}, InputError, r"names frames 90-91, .* has frames 0-23"),
        ({"positions": "twice.csv::a,b"}, InputError, "'frame' of twice.csv names a frame twice"),
    ],
)
def test_refusals(tmp_path, monkeypatch, options, error, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few.csv").write_text("a,b\n1,2\n2,3\n")
    (tmp_path / "far.csv").write_text("frame,a,b\n90,1,2\n91,2,3\n")
    (tmp_path / "twice.csv").write_text("frame,a,b\n3,1,2\n3,2,3\n")
    moved = travel((4, 6), snake=True)
    source = files(np.arange(24), samx=moved.x, samy=moved.y)
    with pytest.raises(error, match=message):
        resolved(source, **options)


def test_positions_of_the_frames_from_what_is_saved():
    x = np.arange(12.0)
    np.testing.assert_array_equal(one_per_frame(x, 12), x)
    np.testing.assert_array_equal(one_per_frame(np.arange(13.0) - 0.5, 12), x)
    lines = np.tile(np.arange(5.0) - 0.5, 3)  # three lines of four frames
    np.testing.assert_array_equal(one_per_frame(lines, 12, (3, 4)), np.tile(np.arange(4.0), 3))
    np.testing.assert_array_equal(one_per_frame(lines, 12, (4, 3)), np.tile(np.arange(4.0), 3))
    np.testing.assert_array_equal(one_per_frame(lines, 9, (3, 4)), np.tile(np.arange(4.0), 3)[:9])
    np.testing.assert_array_equal(one_per_frame(lines, 13, (3, 5)), lines[:13])  # aborted
    raster = np.tile(np.arange(4.0), 3)
    np.testing.assert_array_equal(one_per_frame(raster, 11), raster[:11])  # one frame was lost
    sevens = np.tile(np.arange(7.0), 5)
    np.testing.assert_array_equal(one_per_frame(sevens, 20), sevens[:20])
    assert one_per_frame(lines, 12) is None  # edges of 3x4, or 12 of 3x5 points: nothing tells
    assert one_per_frame(x, 13) is None


@pytest.fixture(scope="module")
def hundred(tmp_path_factory):
    """A snake of 10 x 10 frames, each with a height of its own; also without three of them."""
    folder = tmp_path_factory.mktemp("hundred")
    geometry = geometry_of(folder, shape=(60, 70), pixel=1e-3, distance=0.09, centre=(2.0, 3.0))
    moved = travel((10, 10), snake=True, noise=0.05)
    gone = np.array([44, 45, 57])
    for name in ("whole", "gaps"):
        (folder / name).mkdir()
    random = np.random.default_rng(0)
    for point in range(100):
        image = random.poisson(rings(geometry.two_theta, height=20.0 + 5 * point)).astype(np.int32)
        write_image(folder / "whole" / f"f_{point + 1:04d}.tif", image)
        if point not in gone:
            write_image(folder / "gaps" / f"f_{point + 1:04d}.tif", image)
    for name, rows in (("whole", np.arange(100)), ("gaps", np.setdiff1d(np.arange(100), gone))):
        table = np.column_stack([moved.x, moved.y])[rows]
        np.savetxt(folder / f"{name}.csv", table, delimiter=",", header="sx,sz", comments="")
        xrdpipe.integrate(
            frames=str(folder / name), poni=folder / "geometry.poni", output=folder / f"{name}.h5",
            reject="none",
        )  # fmt: skip
    return folder, moved, gone


@pytest.mark.parametrize("by", ["numbers", "positions"])
def test_three_lost_frames_shift_no_other_pixel(hundred, tmp_path, by):
    folder, moved, gone = hundred
    maps = {}
    for name in ("whole", "gaps"):
        how = {"scan_shape": "10x10", "snake": True}
        if by == "positions":
            how = {"positions": f"{folder / name}.csv::sx,sz"}
        output = tmp_path / f"{name}_map.h5"
        xrdpipe.map(patterns=str(folder / f"{name}.h5"), output=output, png=False, **how)
        with h5py.File(output) as file:
            index = file["entry/mapping/frame_index"][()]
            total = file["entry/patterns/frames/sum"][()]
            maps[name] = (
                np.where(index >= 0, total[index], np.nan),
                file["entry/phase_map/presence/probability"][()],
            )
            assert file["entry/mapping/scan_type"][()] == b"snake"
    holes = np.isin(moved.truth, gone)
    assert holes.sum() == 3
    for whole, gaps in zip(maps["whole"], maps["gaps"], strict=True):
        assert np.isnan(gaps[..., holes]).all()
        np.testing.assert_array_equal(gaps[..., ~holes], whole[..., ~holes])
    counts = maps["whole"][0].ravel()[np.argsort(moved.truth.ravel())]
    assert (np.diff(counts) > 0).mean() > 0.9  # brighter from frame to frame, so no mix-up hides


def test_bliss_counters_hold_the_positions_of_fast_motors(tmp_path):
    moved = travel((4, 5))
    with h5py.File(tmp_path / "s.h5", "w") as file:
        entry = file.create_group("1.1")
        entry["title"] = "dkmap( nnp2 , 0 , 4 , 5 , nnp3 , 0 , 6 , 4 , 0.02 )"
        entry["instrument/positioners/nnp2"] = 12.3  # where it was before the scan
        entry["measurement/eiger"] = np.ones((20, *SHAPE), np.uint16)
        entry["measurement/nnp2_position"] = moved.x
        entry["measurement/nnp3_position"] = moved.y
    scan = resolved(open_frames(tmp_path / "s.h5"))
    np.testing.assert_array_equal(scan.frame_index, moved.truth)
    assert (scan.x.name, scan.y.name) == ("nnp2_position", "nnp3_position")
    assert scan.confidence == "certain"


@pytest.mark.parametrize("name", ["bliss, amesh", "bliss, fscan2d", "areaDetector HDF5", "EDF"])
def test_patterns_remember_the_scan_of_the_frames(tmp_path, name):
    layout = next(layout for layout in all_layouts() if layout.name == name)
    (tmp_path / "raw").mkdir()
    built = layout.build(tmp_path / "raw")
    poni = write_poni(tmp_path / "g.poni", shape=SHAPE)
    before = resolved(open_frames(built.paths))
    xrdpipe.integrate(frames=built.paths, poni=poni, output=tmp_path / "p.h5", reject="none")
    with PatternsFile(tmp_path / "p.h5") as patterns:
        after = resolved(patterns)
    assert min(before.shape) > 1
    np.testing.assert_array_equal(after.frame_index, before.frame_index)
    np.testing.assert_allclose(after.x_actual, before.x_actual)
    assert after.x.name == before.x.name
    assert after.x.units == before.x.units
    assert after.evidence == before.evidence
