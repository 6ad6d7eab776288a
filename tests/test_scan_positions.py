"""Positions become a map: upright, without shifts, and honest about how sure that is."""

from __future__ import annotations

import csv
import itertools
import time
from dataclasses import dataclass, field

import h5py
import numpy as np
import pytest

import xrdpipe
from known_frames import geometry_of, rings, write_image, write_poni
from layouts import SHAPE, all_layouts
from xrdpipe.config import ScanOptions
from xrdpipe.errors import InputError, OptionError
from xrdpipe.frames import open_frames
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


def files(numbers, scan=None, numbered=False, problems=None, **values):
    problems = problems if problems is not None else np.zeros(len(numbers), int)
    records = tuple(
        FrameRecord("f", 0, int(number), 1, 0, int(problem))
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
