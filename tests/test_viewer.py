"""What the viewer looks at, without a browser; and the documents it would send to one."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from known_frames import SHAPE
from viewer_maps import GRID, grid_scan, made_map, pattern_of, scattered_scan
from xrdpipe import config
from xrdpipe.errors import InputError, InputMissingError
from xrdpipe.maps import assemble
from xrdpipe.nn.model_folder import find_model, phase_library, reference_lines
from xrdpipe.scan import place_frames
from xrdpipe.schema import UNKNOWN
from xrdpipe.stages.view import check_map
from xrdpipe.store.frame_origin import frame_origin
from xrdpipe.store.map_record import read_map_record
from xrdpipe.store.mean_patterns import mean_patterns
from xrdpipe.store.patterns import PatternsFile
from xrdpipe.types import Predictions
from xrdpipe.viewer.baseline import baseline_of, model_folder
from xrdpipe.viewer.explorer import Explorer
from xrdpipe.viewer.plane import plane_of
from xrdpipe.viewer.raw_frames import RawFrames, block_mean
from xrdpipe.viewer.spectra import KEPT, mean_of_rows
from xrdpipe.viewer.views import TOGETHER, choices, view_of

bokeh = pytest.importorskip("bokeh")

from bokeh.document import Document  # noqa: E402 - optional
from bokeh.events import SelectionGeometry, Tap  # noqa: E402

from xrdpipe.viewer.background import Background  # noqa: E402
from xrdpipe.viewer.page import ALL_PHASES, Page  # noqa: E402
from xrdpipe.viewer.server import start_server  # noqa: E402

BOX = {"type": "rect", "x0": 101.0, "x1": 107.0, "y0": -11.0, "y1": -4.0}
"""Columns 1-3 and rows 0-1 of :func:`grid_scan`."""


def explorer_of(path: Path) -> Explorer:
    return Explorer(read_map_record(path))


@pytest.fixture
def explorer(tmp_path):
    found = explorer_of(made_map(tmp_path / "map.h5"))
    yield found
    found.close()


# --- pixels ------------------------------------------------------------------------------------


def test_a_place_is_the_pixel_drawn_there():
    plane = plane_of(grid_scan(4, 6))
    assert plane.extent == (99, 111, -12.5, 7.5)
    assert (plane.x_label, plane.y_label, plane.equal) == ("sx (µm)", "sy (µm)", True)
    assert plane.at(100.9, -12.4) == (0, 0)
    assert plane.at(101.1, -7.4) == (1, 1)
    assert plane.at(110.9, 7.4) == (3, 5)
    assert plane.at(111.1, 0) is None
    assert plane.at(np.nan, 0) is None
    assert (plane.x[2, 3], plane.y[2, 3]) == (106, 0)


def test_keys_stay_on_the_map():
    plane = plane_of(grid_scan(4, 6))
    assert plane.moved((0, 0), 2, 1) == (1, 2)
    assert plane.moved((3, 5), 10, 10) == (3, 5)
    assert plane.moved((0, 0), -1, -1) == (0, 0)


def test_scattered_points_have_neighbours_too():
    plane = plane_of(scattered_scan(50))
    assert plane.at(float(plane.x[0, 7]) + 0.01, float(plane.y[0, 7])) == (0, 7)
    there = plane.moved((0, 0), 1, 0)
    assert plane.x[there] > plane.x[0, 0]
    last = (0, int(np.argmax(plane.x[0])))
    assert plane.moved(last, 1, 0) == last


def test_regions_hold_the_pixels_inside():
    plane = plane_of(grid_scan(4, 6))
    expected = np.zeros((4, 6), bool)
    expected[:2, 1:4] = True
    np.testing.assert_array_equal(plane.inside(BOX), expected)
    backwards = {**BOX, "x0": BOX["x1"], "x1": BOX["x0"]}
    np.testing.assert_array_equal(plane.inside(backwards), expected)
    corners = {"type": "poly", "x": [101, 107, 107, 101], "y": [-11, -11, -4, -4]}
    np.testing.assert_array_equal(plane.inside(corners), expected)
    triangle = {"type": "poly", "x": [99, 111, 99], "y": [-12.5, -12.5, 7.5]}
    assert plane.inside(triangle)[0].tolist() == [True] * 5 + [False]
    assert not plane.inside({"type": "poly", "x": [0, 1], "y": [0, 1]}).any()


# --- thresholds and views ----------------------------------------------------------------------


def test_thresholds_decide_as_the_map_does(explorer):
    stored = explorer.record.phase_map
    for name in ("decision", "winner", "combination", "n_phases", "confidence"):
        np.testing.assert_array_equal(
            getattr(explorer.phase_map, name), getattr(stored, name), err_msg=name
        )
    explorer.set_threshold(0.85, "phase 1")
    expected = (stored.probability[1] >= 0.85).astype(np.int8)
    np.testing.assert_array_equal(explorer.phase_map.decision[1], expected)
    np.testing.assert_array_equal(explorer.phase_map.decision[0], stored.decision[0])
    explorer.set_threshold(0.95)
    assert explorer.phase_map.n_phases.max() == 0
    assert (explorer.phase_map.winner == UNKNOWN).sum() == (stored.unknown >= 0.7).sum() > 0
    explorer.set_unknown_threshold(0.9)
    assert (explorer.phase_map.winner != UNKNOWN).all()


def test_views_count_what_they_show(explorer):
    view = explorer.view(TOGETHER)
    assert sum(int(text.rsplit(": ", 1)[1]) for _, text in view.legend) == 24
    assert len(view.colors) == len(set(view.colors)) == len(np.unique(view.values))
    for names in choices(explorer.phase_map).values():
        for name in names:
            shown = explorer.view(name)
            assert shown.values.shape == (4, 6)
            known = shown.values[np.isfinite(shown.values)]
            assert known.size == 24, name
            assert (known >= shown.low).all(), name
            assert (known <= shown.high).all(), name
    present = int((explorer.record.phase_map.probability[2] >= 0.5).sum())
    assert f"present in {present} pixels" in explorer.view("probability: phase 2").legend[0][1]


def test_unknown_pixels_have_a_colour_of_their_own(explorer):
    explorer.set_threshold(0.95)
    texts = [text for _, text in explorer.view(TOGETHER).legend]
    assert "none of them, something unknown: 6" in texts
    assert "none of the phases: 18" in texts


def test_twenty_phases_are_more_combinations_than_a_legend_names():
    rng = np.random.default_rng(1)
    probability = rng.random((400, 20)).astype(np.float32)
    nothing = np.full(400, np.nan)
    scan = place_frames(np.arange(400), True, (20, 20), "x", False, False, np.ones(400, bool), None)
    found = Predictions(probability, probability, nothing, np.ones(400, np.uint8))
    phase_map = assemble(found, scan, tuple(f"p{k}" for k in range(20)))
    view = view_of(phase_map, TOGETHER)
    assert len(view.legend) == 10
    counts = [int(text.rsplit(": ", 1)[1]) for _, text in view.legend]
    assert sum(counts) == 400
    assert "unknown score" not in str(choices(phase_map))


# --- patterns ----------------------------------------------------------------------------------


def test_a_pixel_brings_its_pattern_and_its_words(explorer):
    assert explorer.select(104.2, -4.9)
    assert explorer.pixel == (1, 2)
    assert explorer.row == 8
    (pattern,) = explorer.spectrum
    np.testing.assert_allclose(pattern.intensity, pattern_of(8), rtol=1e-6)
    np.testing.assert_allclose(pattern.errors, np.sqrt(pattern_of(8) + 1), rtol=1e-6)
    facts = explorer.facts
    assert facts.place == "row 1, column 2 · sx = 104 um · sy = -5 um"
    assert facts.frame == "frame 9: good"
    assert facts.answer == "phase 0 + phase 1"
    assert facts.unknown == "unknown score 0.00, threshold 0.70"
    np.testing.assert_allclose(facts.probability, [0.8, 0.9, 0.0], atol=1e-6)
    explorer.step(1, -1)
    assert explorer.row == 3
    assert not explorer.select(0, 0)


def test_few_rows_stay_in_memory(tmp_path):
    found = explorer_of(made_map(tmp_path / "map.h5", grid_scan(10, 12)))
    for row in range(120):
        found.spectra.of_row(row)
    assert len(found.spectra._kept) == KEPT
    found.close()


def test_the_mean_of_a_region(explorer):
    explorer.region = BOX
    rows = explorer.region_rows
    assert np.flatnonzero(rows).tolist() == [1, 2, 3, 7, 8, 9]
    mean = mean_of_rows(explorer.spectra.path, "", rows)
    with PatternsFile(explorer.spectra.path) as source:
        expected = mean_patterns(source, rows[None])[0]
    np.testing.assert_array_equal(mean.intensity, expected.intensity)
    np.testing.assert_array_equal(mean.errors, expected.intensity_errors)
    assert mean.rows == 6
    name, text = explorer.xye(mean)
    assert name.startswith("map_mean_of_6")
    columns = np.array([line.split() for line in text.splitlines() if line[0] != "'"], float)
    np.testing.assert_allclose(columns[:, 0], GRID.two_theta)
    np.testing.assert_allclose(columns[:, 1], expected.intensity, rtol=1e-6)
    np.testing.assert_allclose(columns[:, 2], expected.intensity_errors, rtol=1e-6)


def test_without_patterns_the_map_is_shown_all_the_same(tmp_path):
    found = explorer_of(made_map(tmp_path / "map.h5", patterns=False))
    assert found.spectrum == ()
    assert "are not there" in found.spectra.problem
    assert found.facts.frame == "good"
    found.close()


def test_patterns_of_another_scan_are_refused(tmp_path):
    path = made_map(tmp_path / "map.h5")
    made_map(tmp_path / "small.h5", grid_scan(2, 2))
    (tmp_path / "small_patterns.h5").replace(tmp_path / "map_patterns.h5")
    found = explorer_of(path)
    assert "has 4 rows, the map refers to 24" in found.spectra.problem
    found.close()


def test_what_was_looked_at_stays_when_the_map_grows(tmp_path):
    path = made_map(tmp_path / "map.h5", done=5)
    before = explorer_of(path)
    before.pixel, before.region = (1, 1), BOX
    before.set_threshold(0.3, "phase 2")
    assert "19 pixels still to come" in before.headline
    assert "still measured" in before.spectra.problem
    made_map(path)
    after = Explorer(read_map_record(path), before)
    assert (after.pixel, after.region) == ((1, 1), BOX)
    assert after.thresholds.tolist() == [0.5, 0.5, 0.3]
    assert after.spectra.problem == ""
    made_map(path, grid_scan(1, 3), phases=1)
    other = Explorer(read_map_record(path), after)
    assert (other.pixel, other.thresholds.tolist()) == ((0, 1), [0.5])
    for each in (before, after, other):
        each.close()


# --- the fit and the frames of a measured map --------------------------------------------------


@pytest.fixture(scope="module")
def measured(tmp_path_factory, geometry):
    """Six frames of rings, integrated in both variants and mapped with the shipped model."""
    import xrdpipe
    from known_frames import rings, write_image, write_poni

    folder = tmp_path_factory.mktemp("measured")
    (folder / "scan").mkdir()
    rng = np.random.default_rng(2)
    for number in range(1, 7):
        image = rng.poisson(rings(geometry.two_theta, height=30.0 * number)).astype(np.int32)
        image[:10, :20] = -1
        write_image(folder / "scan" / f"frame_{number:04d}.tif", image)
    poni = write_poni(folder / "geometry.poni", rotations=(0.02, -0.01))
    mask = np.zeros(SHAPE, np.uint8)
    mask[100:, 100:] = 1
    np.save(folder / "mask.npy", mask)
    xrdpipe.integrate(
        frames=str(folder / "scan"), poni=poni, variant="both", output=folder / "patterns.h5",
        mask=[str(folder / "mask.npy")], threads=1,
    )  # fmt: skip
    xrdpipe.map(
        patterns=str(folder / "patterns.h5"), scan_shape="2x3", png=False,
        output=folder / "map.h5",
    )  # fmt: skip
    return folder


def test_both_variants_are_shown(measured):
    found = explorer_of(measured / "map.h5")
    found.pixel = (1, 0)
    masked, unmasked = found.spectrum
    assert (masked.name, unmasked.name) == ("masked", "unmasked")
    assert not np.array_equal(masked.intensity, unmasked.intensity, equal_nan=True)
    assert found.facts.frame == "frame 4 (frame_0004.tif): good"
    found.close()


def test_the_fit_finds_a_phase_at_its_strength(measured):
    record = read_map_record(measured / "map.h5")
    baseline = baseline_of(record)
    templates = baseline.method.templates
    width = len(templates.widths) // 2
    unstrained = int(np.argmin(np.abs(templates.strains) + np.abs(templates.zeros)))
    calcite = templates.values[width, 1, unstrained]
    grid = baseline.grid
    pure = 40 + 30 * np.interp(grid.two_theta, templates.two_theta, calcite)
    with PatternsFile(measured / "patterns.h5") as source:
        one = source.rows(0, 1)
    import dataclasses

    noisy = np.random.default_rng(3).normal(pure, 0.5).astype(np.float32)[None]
    pattern = dataclasses.replace(
        one, radial_axis=grid.two_theta, wavelength=grid.wavelength, intensity=noisy,
        coverage=np.ones_like(noisy), intensity_errors=None, spottiness=None,
    )  # fmt: skip
    fit = baseline.fit(pattern)
    assert fit.scale[1] == pytest.approx(30, rel=0.05)
    assert fit.scale[0] < 1
    assert fit.scale[2] < 1
    drawn = np.interp(fit.two_theta, grid.two_theta, pure)
    assert np.nanmax(np.abs(fit.total - drawn)) < 0.05 * pure.max()
    assert np.nanmedian(fit.background) == pytest.approx(40, rel=0.05)


def test_a_model_that_changed_is_not_fitted(measured):
    model = dict(read_map_record(measured / "map.h5").model)
    assert model_folder(model) == find_model()
    with pytest.raises(InputError, match="not the one that made this map"):
        model_folder(model | {"weights_sha256": "0" * 64})
    with pytest.raises(InputMissingError, match="neither a shipped model"):
        model_folder({"config_json": json.dumps({"model": "gone"})})


def test_the_frame_of_a_pixel_with_mask_and_rings(measured, geometry, monkeypatch):
    monkeypatch.chdir(measured)
    found = explorer_of(measured / "map.h5")
    picture = found.frames.picture(3)
    assert (picture.name, picture.shape) == ("frame_0004.tif", SHAPE)
    assert np.isnan(picture.counts[:10, :20]).all()
    assert picture.masked[100:, 100:].all()
    assert not picture.masked[20:90, 20:90].any()
    for lines in reference_lines(find_model()):
        rings = found.frames.rings(SHAPE, lines)
        assert rings
        for ring in rings:
            for x, y in zip(ring.columns, ring.rows, strict=True):
                inside = (x < SHAPE[1] - 1) & (y < SHAPE[0] - 1)
                at = np.round(y[inside]).astype(int), np.round(x[inside]).astype(int)
                # A pixel is 0.14° wide.
                assert np.abs(geometry.two_theta[at] - ring.two_theta).max(initial=0) < 0.2
    found.close()


def test_frames_are_found_beside_moved_patterns_or_told_gone(measured, tmp_path):
    with PatternsFile(measured / "patterns.h5") as source:
        origin = frame_origin(source)
    assert origin.files[3] == "frame_0004.tif"
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    import dataclasses

    lost = dataclasses.replace(origin, given=("scan",))
    with pytest.raises(InputMissingError, match=r"The frames have gone: frame_0001.tif"):
        RawFrames(lost, (moved,)).picture(0)
    name = "frame_0001.tif"
    (moved / name).write_bytes((measured / "scan" / name).read_bytes())
    assert RawFrames(lost, (moved,)).picture(0).shape == SHAPE


def test_patterns_from_elsewhere_have_no_frames(tmp_path):
    found = explorer_of(made_map(tmp_path / "map.h5"))
    with pytest.raises(InputError, match="does not say which frames"):
        _ = found.frames
    found.close()


def test_blocks_are_means_of_what_is_known():
    values = np.arange(15, dtype=np.float32).reshape(3, 5)
    values[0, 0] = np.nan
    found = block_mean(values, 2)
    assert found.shape == (2, 3)
    assert found[0, 0] == pytest.approx((1 + 5 + 6) / 3)
    assert found[1, 2] == 14
    assert np.isnan(block_mean(np.full((2, 2), np.nan, np.float32), 2)).all()


# --- documents ---------------------------------------------------------------------------------


class AtOnce(Background):
    """Work that is done before :meth:`start` returns."""

    def soon(self, kind, then):
        then()

    def start(self, kind, work, then, failed):
        try:
            result = work()
        except Exception as error:
            failed(error)
        else:
            then(result)


def page_of(path: Path) -> Page:
    document = Document()
    return Page(document, path, AtOnce(document))


def source(page: Page, name: str) -> dict:
    return page.document.get_model_by_name(name).data


def test_a_click_shows_the_pixel(tmp_path):
    page = page_of(made_map(tmp_path / "map.h5"))
    figure = page.document.get_model_by_name("map")
    page.document.callbacks.trigger_event(Tap(figure, x=104.2, y=-4.9))
    np.testing.assert_allclose(source(page, "external")["y"], pattern_of(8), rtol=1e-6)
    assert source(page, "marker")["x"] == [104]
    np.testing.assert_allclose(source(page, "probability")["p"], [0.8, 0.9, 0], atol=1e-6)
    np.testing.assert_allclose(source(page, "probability")["high"], [0.84, 0.945, 0], atol=1e-6)
    assert "row 1, column 2" in page.document.get_model_by_name("facts").text
    band = source(page, "errors")
    np.testing.assert_allclose(
        np.asarray(band["high"]) - band["low"], 2 * np.sqrt(pattern_of(8) + 1), rtol=1e-5
    )
    # There is no model of that name.
    assert page.fit.disabled
    assert "No fit: model &#x27;made-up&#x27;" in page.notes.text
    page.close()


def test_keys_and_mouse_move_the_pixel(tmp_path):
    page = page_of(made_map(tmp_path / "map.h5"))
    page.explorer.pixel = (0, 0)
    page.wish.data = {"n": [1], "kind": ["step"], "x": [3], "y": [1]}
    assert page.explorer.pixel == (1, 3)
    assert page.done.data == {"n": [1]}
    page.wish.data = {"n": [2], "kind": ["over"], "x": [100.0], "y": [5.0]}
    assert page.explorer.pixel == (3, 0)
    page.wish.data = {"n": [3], "kind": ["over"], "x": [-1.0], "y": [5.0]}
    assert page.explorer.pixel == (3, 0)
    assert page.done.data == {"n": [3]}
    page.close()


def test_a_region_gives_its_mean_and_its_file(tmp_path):
    page = page_of(made_map(tmp_path / "map.h5"))
    figure = page.document.get_model_by_name("map")
    page.document.callbacks.trigger_event(SelectionGeometry(figure, geometry=BOX, final=False))
    assert page.save_region.disabled
    page.document.callbacks.trigger_event(SelectionGeometry(figure, geometry=BOX, final=True))
    expected = np.mean([pattern_of(row) for row in (1, 2, 3, 7, 8, 9)], axis=0)
    np.testing.assert_allclose(source(page, "region")["y"], expected, rtol=1e-6)
    assert "Region of 6 pixels" in page.region_text.text
    page._save_region()
    assert page.file.data["name"][0].endswith(".xye")
    page._save_region()
    assert page.file.data["n"] == [2]
    page._select_region(None)
    assert page.save_region.disabled
    assert len(source(page, "outline")["x"]) == 0
    page.close()


def test_the_scale_is_that_of_everything_drawn(tmp_path):
    page = page_of(made_map(tmp_path / "map.h5"))
    page.explorer.pixel = (0, 0)
    page._update_pixel()
    page._select_region(BOX)
    linear = {
        (name, edge): np.asarray(source(page, name)[edge], float)
        for name, edge in (
            ("external", "y"), ("region", "y"), ("errors", "low"), ("errors", "high")
        )
    }  # fmt: skip
    assert (linear["errors", "low"] < 0).any()

    def expect(of):
        for (name, edge), values in linear.items():
            np.testing.assert_allclose(source(page, name)[edge], of(values), rtol=1e-6)

    page.scale.value = "square root"
    expect(lambda y: np.sign(y) * np.abs(y) ** 0.5)
    page.scale.value = "logarithmic"
    expect(lambda y: np.log10(y, where=y > 0, out=np.full_like(y, np.nan)))
    saved = page.explorer.spectrum[0].intensity
    page.scale.value = "linear"
    expect(lambda y: y)
    np.testing.assert_array_equal(page.explorer.spectrum[0].intensity, saved)
    page.close()


def test_sliders_decide_anew(tmp_path):
    page = page_of(made_map(tmp_path / "map.h5"))
    before = page.legend.text
    page.threshold.value = 0.95
    assert page.legend.text != before
    assert "none of the phases: 18" in page.legend.text
    assert source(page, "probability")["threshold"].tolist() == [0.95] * 3
    page.which.value = "phase 1"
    page.threshold.value = 0.1
    assert page.explorer.thresholds.tolist() == [0.95, 0.1, 0.95]
    page.which.value = "phase 2"
    assert page.threshold.value == 0.95
    page.which.value = "phase 1"
    assert page.threshold.value == 0.1
    page.which.value = ALL_PHASES
    assert page.threshold.value == 0.95
    assert page.explorer.thresholds.tolist() == [0.95, 0.1, 0.95]
    page.unknown.value = 0.2
    assert page.explorer.unknown_threshold == 0.2
    page.close()


def test_the_page_waits_for_the_map_and_follows_it(tmp_path):
    path = tmp_path / "map.h5"
    page = page_of(path)
    assert "Waiting for" in page.message.text
    path.write_bytes(b"no map")
    page.look()
    assert "cannot be opened as HDF5" in page.message.text
    made_map(path, done=5)
    page.look()
    assert "19 pixels still to come" in page.headline.text
    page.explorer.pixel = (2, 2)
    page.view.value = "probability: phase 1"
    figure = page.map.figure
    made_map(path, done=9)
    page.look()
    assert "15 pixels still to come" in page.headline.text
    assert page.map.figure is figure
    assert page.explorer.pixel == (2, 2)
    assert page.view.value == "probability: phase 1"
    assert np.isfinite(page.map.values.data["image"][0]).sum() == 9
    page.look()
    made_map(path)
    page.look()
    assert "still to come" not in page.headline.text
    assert page.explorer.pixel == (2, 2)
    assert len(source(page, "external")["y"]) == GRID.size
    page.close()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("one phase", {"phases": 1}),
        ("twenty phases", {"phases": 20}),
        ("one row", {"scan": grid_scan(1, 40)}),
        ("one pixel", {"scan": grid_scan(1, 1)}),
        ("scattered", {"scan": scattered_scan(60)}),
        ("without unknown score", {"unknown": False}),
        ("without lines", {"lines": False}),
        ("without patterns", {"patterns": False}),
        ("nothing done yet", {"done": 0}),
    ],
)
def test_every_kind_of_map_makes_a_page(tmp_path, name, options):
    page = page_of(made_map(tmp_path / "map.h5", **options))
    for names in page.view.options.values():
        for view in names:
            page.view.value = view
    page.tabs.active = 1
    assert page.frame_text.text
    if name == "without lines":
        assert "holds no lines" in page.notes.text
    if name == "without patterns":
        assert "are not there" in page.notes.text
    if name == "without unknown score":
        assert page.unknown is None
    page.document.to_json()  # what is sent can be sent
    page.document.validate()
    page.close()


def test_lines_stand_at_their_angles(tmp_path):
    page = page_of(made_map(tmp_path / "map.h5"))
    ticks = source(page, "lines of phase 0")
    np.testing.assert_allclose(
        ticks["x"], np.degrees(2 * np.arcsin(0.4959 / 2 / np.array([5.0, 3.0, 2.0])))
    )
    assert ticks["hkl"] == ["1 0 0", "1 1 0", "1 1 1"]
    page.close()


def test_the_tab_of_frames_shows_one(measured, monkeypatch):
    monkeypatch.chdir(measured)
    page = page_of(measured / "map.h5")
    assert not page.fit.disabled
    assert len(source(page, "fit")["y"]) > 100
    page.tabs.active = 1
    assert source(page, "counts")["image"][0].shape == SHAPE
    assert "frame_000" in page.frame_text.text
    library = phase_library(find_model())
    assert len(source(page, f"rings of {library.names[1]}")["x"]) > 0
    page.close()


# --- the server --------------------------------------------------------------------------------


def test_every_option_reaches_the_viewer(monkeypatch):
    import xrdpipe
    from xrdpipe.cli import main
    from xrdpipe.stages import view
    from xrdpipe.types import Outcome

    seen = []
    monkeypatch.setattr(view, "run", lambda config, progress: seen.append(config) or Outcome(None))
    options = {"port": 6001, "address": "localhost", "open": False, "wait": True}
    assert {d.name for d in config.fields(config.ViewConfig)} == {"map", *options}
    xrdpipe.view(map="m.h5", **options)
    arguments = "view m.h5 --port 6001 --address localhost --no-open --wait"
    with pytest.raises(SystemExit):
        main(arguments.split())
    assert seen[0] == seen[1] != config.ViewConfig(map=Path("m.h5"))


def test_what_cannot_be_a_map_is_refused_before_the_server_starts(tmp_path):
    with pytest.raises(InputMissingError, match="nothing beside it is being made"):
        check_map(tmp_path / "map.h5", wait=False)
    check_map(tmp_path / "map.h5", wait=True)
    (tmp_path / "patterns.h5.live").mkdir()
    check_map(tmp_path / "map.h5", wait=False)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["entry/x"] = 1
    with pytest.raises(InputError, match="is no map file"):
        check_map(tmp_path / "other.h5", wait=False)
    with pytest.raises(InputError, match=r"give .*map\.h5, which is renewed"):
        check_map(tmp_path / "map_live.h5", wait=False)


def test_the_server_listens_here_only_and_under_a_secret_name(tmp_path):
    path = made_map(tmp_path / "map.h5")
    server, url = start_server(path, "127.0.0.1", None)
    other, _ = start_server(path, "127.0.0.1", None)
    try:
        assert url.startswith(f"http://127.0.0.1:{server.port}/")
        assert len(url.rsplit("/", 1)[1]) >= 20
        assert other.port != server.port
        assert server._tornado.websocket_origins == {
            f"127.0.0.1:{server.port}",
            f"localhost:{server.port}",
        }
        sockets = server._http._sockets.values()
        assert {s.getsockname()[0] for s in sockets} == {"127.0.0.1"}
        with pytest.raises(RuntimeError, match="give another --port"):
            start_server(path, "127.0.0.1", server.port)
    finally:
        for each in (server, other):
            each.unlisten()
            each.stop()
