"""Classical methods: known amounts, strains and components come back; nothing gives nothing."""

import json
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
from scipy.optimize import nnls

import xrdpipe
from test_map_stage import write_patterns
from xrdpipe.classical import METHODS
from xrdpipe.classical.decision import fit_decision, log_odds, terms
from xrdpipe.classical.factorisation import Factorisation
from xrdpipe.classical.least_squares import LeastSquares, non_negative
from xrdpipe.classical.matched_filter import MatchedFilter
from xrdpipe.classical.methods import make_method
from xrdpipe.classical.observed import observe
from xrdpipe.classical.templates import LORENTZIAN, WIDTHS, binned
from xrdpipe.crystal import load_phase, powder_intensity, reflections
from xrdpipe.errors import InputError, OptionError
from xrdpipe.nn.classical_training import train_classical
from xrdpipe.nn.inference import load_model
from xrdpipe.nn.model_folder import determined, read_card
from xrdpipe.nn.task import Task
from xrdpipe.nn.train_recipe import TrainRecipe, load_recipe
from xrdpipe.nn.training import train
from xrdpipe.phases import distractor_phases, shipped_phases
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.types import Grid, PhaseLibrary, Progress

GRID = Grid(5, 24, 0.02, 0.4959)
ANGLE = GRID.two_theta
WIDTH = WIDTHS[3]
HUMP = 40 + 15 * np.exp(-(((ANGLE - 9) / 2.5) ** 2)) + 40 * np.exp(-ANGLE / 8)
BASTNAESITE, CALCITE, RHENIUM = range(3)


def pattern_of(phase, strain=0.0, zero=0.0, width=WIDTH):
    """Sum of pseudo-Voigt lines evaluated one by one; the strongest on the grid has area 1."""
    table = reflections(phase, GRID.wavelength, GRID.wavelength / (2 * np.sin(np.radians(13))))
    area = powder_intensity(table, GRID.wavelength)
    on = (table.two_theta >= GRID.start) & (table.two_theta <= GRID.stop)
    place = np.degrees(2 * np.arcsin(GRID.wavelength / (2 * table.d * (1 + strain)))) + zero
    x = (ANGLE[:, None] - place) / width
    gauss = np.sqrt(4 * np.log(2) / np.pi) * np.exp(-4 * np.log(2) * x**2)
    lorentz = 2 / np.pi / (1 + 4 * x**2)
    return ((1 - LORENTZIAN) * gauss + LORENTZIAN * lorentz) / width @ (area / area[on].max())


@pytest.fixture(scope="module")
def library():
    return PhaseLibrary(tuple(load_phase(path) for path in shipped_phases().values()))


@pytest.fixture(scope="module")
def pure(library):
    return np.array([pattern_of(phase) for phase in library.phases])


@pytest.fixture(scope="module")
def least_squares(library):
    return LeastSquares.of(library, GRID)


@pytest.fixture(scope="module")
def matched_filter(library):
    return MatchedFilter.of(library, GRID)


def seen(intensity, coverage=1.0):
    return observe(intensity, np.broadcast_to(coverage, intensity.shape), 1)


def counted(rng, expected, pixels=50):
    return rng.poisson(expected * pixels) / pixels


# --- least squares ---------------------------------------------------------------------------


def test_ideal_patterns_give_their_scale_factors(least_squares, pure):
    amount = np.array([[7, 2, 1], [0.5, 30, 0], [0, 0, 4], [1, 1, 1.0]])
    fit = least_squares.fit(seen(HUMP + amount @ pure))
    np.testing.assert_allclose(fit.scale, amount, rtol=0.02, atol=0.02)
    assert np.all(fit.width == WIDTH)
    assert np.all(np.abs(fit.strain[amount > 0]) < 1e-9)
    inner = slice(20, -20)
    np.testing.assert_allclose(fit.background[:, inner], [HUMP[inner]] * 4, rtol=0.02)


def test_units_of_intensity_do_not_matter(least_squares, pure):
    rng = np.random.default_rng(0)
    one = counted(rng, HUMP + [[3, 0, 2]] @ pure)
    small, large = (least_squares.fit(seen(one * factor)) for factor in (1e-9, 1e9))
    np.testing.assert_allclose(small.scale * 1e18, large.scale, rtol=1e-3)
    np.testing.assert_allclose(small.features, large.features, rtol=1e-3, atol=1e-3)


def test_stated_errors_cover_the_scatter(least_squares, pure):
    rng = np.random.default_rng(1)
    amount = np.array([0.8, 0.8, 0.8])  # faint: the spread of line intensities adds nothing
    fit = least_squares.fit(seen(counted(rng, np.tile(HUMP + amount @ pure, (128, 1)))))
    pull = (fit.scale - amount) / fit.error
    assert np.all(np.abs(pull.mean(axis=0)) < 0.7)
    assert np.all((pull.std(axis=0) > 0.6) & (pull.std(axis=0) < 1.4))


@pytest.mark.parametrize("width", [0.058, 0.13, 0.29])
def test_widths_between_those_tried_cost_little(least_squares, library, width):
    pure = np.array([pattern_of(phase, width=width) for phase in library.phases])
    fit = least_squares.fit(seen(HUMP + 10 * pure))
    np.testing.assert_allclose(np.diag(fit.scale), 10, rtol=0.12)


def test_a_subtracted_background_does_no_harm(least_squares, pure):
    rng = np.random.default_rng(12)
    intensity = counted(rng, np.tile(HUMP + [20, 10, 0] @ pure, (4, 1)))
    whole, less = (least_squares.fit(seen(each)) for each in (intensity, intensity - 1.2 * HUMP))
    np.testing.assert_allclose(less.scale[:, :2], whole.scale[:, :2], rtol=0.1)
    assert np.abs(less.features).max() < 10


@pytest.mark.parametrize("strain", [-0.008, 0.005])
def test_strain_of_each_phase_is_found(least_squares, matched_filter, library, strain):
    rng = np.random.default_rng(2)
    mixed = 30 * pattern_of(library.phases[CALCITE], strain) + 30 * pattern_of(
        library.phases[RHENIUM]
    )
    observed = seen(counted(rng, np.tile(HUMP + mixed, (8, 1))))
    fit = least_squares.fit(observed)
    np.testing.assert_allclose(fit.strain[:, CALCITE], strain, atol=0.0015)
    np.testing.assert_allclose(fit.strain[:, RHENIUM], 0, atol=0.0015)
    alone = seen(counted(rng, np.tile(HUMP + 30 * pattern_of(library.phases[0], strain), (8, 1))))
    np.testing.assert_allclose(matched_filter.match(alone).strain[:, 0], strain, atol=0.0015)


def test_coordinate_descent_agrees_with_lawson_and_hanson():
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(40, 30, 6)) + 0.5
    target = rng.normal(size=(40, 30))
    normal = np.einsum("nik,nil->nkl", matrix, matrix)
    right = np.einsum("nik,ni->nk", matrix, target)
    found = non_negative(normal, right, np.ones((40, 6), bool))
    expected = np.array([nnls(a, b)[0] for a, b in zip(matrix, target, strict=True)])
    assert (expected == 0).any()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_gaps_cost_little_and_their_content_nothing(least_squares, pure):
    rng = np.random.default_rng(4)
    whole = counted(rng, HUMP + [[20, 10, 15]] @ pure)
    gap = (ANGLE > 10) & (ANGLE < 12)
    holed = np.where(gap, np.nan, whole)
    one, other = (least_squares.fit(seen(each)) for each in (whole, holed))
    np.testing.assert_allclose(other.scale, one.scale, rtol=0.1)
    covered = np.where(gap, 0.0, 1.0)
    nonsense = least_squares.fit(seen(np.where(gap, 1e6, whole), covered))
    np.testing.assert_array_equal(nonsense.scale, other.scale)


def test_a_phase_without_a_covered_line_has_no_scale(least_squares, matched_filter, pure):
    rng = np.random.default_rng(5)
    intensity = counted(rng, HUMP + [[20, 10, 15]] @ pure)
    intensity[:, ANGLE > 11] = np.nan  # the first line of rhenium is at 11.9 degrees
    fit = least_squares.fit(seen(intensity))
    assert np.isnan(fit.scale[0, RHENIUM])
    assert np.isnan(fit.error[0, RHENIUM])
    assert fit.scale[0, BASTNAESITE] == pytest.approx(20, rel=0.1)
    for method in (least_squares, matched_filter):
        features = method.scores(intensity, np.ones_like(intensity))
        assert features.shape == (1, 3, method.features)
        assert np.all(features[0, RHENIUM] == 0)
        assert np.any(features[0, CALCITE] != 0)


def test_empty_patterns_break_nothing(least_squares, matched_filter):
    blank = np.stack([np.full(GRID.size, np.nan), np.zeros(GRID.size), np.full(GRID.size, 5.0)])
    for method in (least_squares, matched_filter):
        features = method.scores(blank, np.ones_like(blank))
        assert np.isfinite(features).all()
        assert np.all(features[:2] == 0)


def test_a_spot_is_no_phase(least_squares, pure):
    """One strong line where calcite has its strongest speaks less than all its lines together."""
    rng = np.random.default_rng(6)
    spot = 300 * np.exp(-4 * np.log(2) * ((ANGLE - 9.37) / WIDTH) ** 2)
    powder = 300 * pure[CALCITE] / pure[CALCITE].max()
    observed = seen(counted(rng, np.stack([HUMP + spot, HUMP + powder])))
    _, without_best, agreement = least_squares.fit(observed).features[:, CALCITE, :3].T
    assert without_best[1] > without_best[0] + 1
    assert agreement[1] > agreement[0] + 0.1


# --- factorisation ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def foreign_map(library, pure):
    """Sixty patterns, two thirds of them with a phase that the library lacks."""
    rng = np.random.default_rng(7)
    fluorite = next(
        phase
        for phase in map(load_phase, distractor_phases().values())
        if "fluorite" in phase.name.lower()
    )
    foreign = pattern_of(fluorite)
    amount = rng.uniform(5, 30, 60) * (np.arange(60) % 3 > 0)
    known = rng.uniform(5, 30, (60, 3)) * (rng.random((60, 3)) < 0.5)
    return counted(rng, HUMP + known @ pure + np.outer(amount, foreign)), foreign, amount, known


def test_a_free_component_is_the_phase_that_was_not_known(library, foreign_map):
    intensity, foreign, amount, known = foreign_map
    method = Factorisation.of(library, GRID).for_map(intensity, np.ones_like(intensity))
    agreement = [np.corrcoef(part, foreign)[0, 1] for part in method.components]
    assert max(agreement) > 0.97
    fit = method.least_squares.fit(seen(intensity))
    total = fit.free[:, int(np.argmax(agreement))]
    assert np.corrcoef(total, amount)[0, 1] > 0.95
    without = Factorisation.of(library, GRID).least_squares.fit(seen(intensity))
    assert np.abs(fit.scale - known).mean() < np.abs(without.scale - known).mean()


def test_no_component_is_made_up(library, foreign_map, pure):
    intensity = foreign_map[0]
    method = Factorisation.of(library, GRID)
    few = method.for_map(intensity[:10], np.ones_like(intensity[:10]))
    assert len(few.components) == 0
    rng = np.random.default_rng(8)
    clean = counted(rng, HUMP + foreign_map[3] @ pure)
    assert len(method.for_map(clean, np.ones_like(clean)).components) == 0
    nothing = np.full_like(clean, np.nan)
    assert len(method.for_map(nothing, np.ones_like(clean)).components) == 0


# --- decision and model folder ---------------------------------------------------------------


def test_the_decision_finds_the_log_odds_of_two_gaussians():
    rng = np.random.default_rng(9)
    labels = (rng.random((20000, 1)) < 0.2).astype(int)
    features = rng.normal(2.0 * labels - 1, 1)[..., None]
    coefficients = fit_decision(features, labels)
    assert coefficients.shape == (1, terms(1))
    at = np.array([-1.0, 0.001, 1.0])[:, None, None]
    # Equal weights of both classes: log-odds are 2x whatever the prevalence.
    np.testing.assert_allclose(log_odds(at, coefficients)[:, 0], [-2, 0, 2], atol=0.15)
    assert log_odds(np.zeros((1, 1, 1)), coefficients) == 0


QUICK = TrainRecipe(network="nnls", epochs=1, patterns_per_epoch=512, held_out=128)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, library):
    made = {}
    for name in METHODS[:2]:
        work = tmp_path_factory.mktemp(name)
        task = Task(library, (), GRID, replace(QUICK, network=name), Recipe(), 1)
        train_classical(task, work, name, Progress())
        made[name] = work / "model"
    # Pattern by pattern, the factorisation is least squares, and so is its decision.
    made["nmf"] = tmp_path_factory.mktemp("nmf") / "model"
    shutil.copytree(made["nnls"], made["nmf"])
    card = made["nmf"] / "model.json"
    card.write_text(card.read_text().replace('"nnls"', '"nmf"').replace("'nnls'", "'nmf'"))
    return made


@pytest.mark.parametrize("name", METHODS)
def test_models_answer_plain_questions(folders, pure, name):
    rng = np.random.default_rng(10)
    model = load_model(folders[name], "cpu")
    empty = counted(rng, np.tile(HUMP, (40, 1)))
    probability, spread, _ = model.predict(empty, np.ones_like(empty))
    assert probability.shape == (40, 3)
    assert (spread == 0).all()
    assert (probability < 0.5).mean() > (0.75 if name == "matched-filter" else 0.95)
    label = np.arange(40)[:, None] % 8 // 2 ** np.arange(3) % 2
    clear = counted(rng, HUMP + 40 * label @ pure)
    probability, *_ = model.predict(clear, np.ones_like(clear))
    right = (probability >= 0.5) == (label == 1)
    assert right.mean() > (0.85 if name == "matched-filter" else 0.95)


@pytest.mark.parametrize("name", METHODS)
def test_what_is_not_covered_is_left_at_the_prior(folders, pure, name):
    model = load_model(folders[name], "cpu")
    intensity = np.tile(HUMP + [20, 10, 15] @ pure, (3, 1))
    intensity[1, ANGLE > 11] = np.nan
    intensity[2] = np.nan
    probability, *_ = model.predict(intensity, np.ones_like(intensity))
    assert probability[1, RHENIUM] == 0.5
    assert not determined(model.card, np.isfinite(intensity))[1, RHENIUM]
    assert np.isnan(probability[2]).all()
    assert np.isfinite(probability[:2]).all()


@pytest.mark.parametrize("name", METHODS)
def test_predictions_do_not_depend_on_batches(folders, name):
    rng = np.random.default_rng(11)
    intensity = rng.gamma(5, 1, (300, GRID.size))
    coverage = np.ones_like(intensity)
    model = load_model(folders[name], "cpu")
    whole, *_ = model.predict(intensity, coverage)
    part, *_ = model.predict(intensity[256:280], coverage[256:280])
    np.testing.assert_array_equal(part, whole[256:280])
    again, *_ = load_model(folders[name], "cpu").predict(intensity, coverage)
    np.testing.assert_array_equal(again, whole)


def test_training_again_gives_the_same_decision(library, tmp_path):
    recipe = replace(QUICK, network="matched-filter", patterns_per_epoch=64, held_out=32)
    task = Task(library, (), GRID, recipe, Recipe(), 1)
    tasks = {"a": task, "b": task, "c": replace(task, seed=2)}
    for name, one in tasks.items():
        train_classical(one, tmp_path / name, "x", Progress())
    first, again, other = (read_card(tmp_path / name / "model").weights for name in tasks)
    assert first == again
    assert first != other


def test_the_card_says_what_it_is(folders):
    for name, folder in folders.items():
        card = read_card(folder)
        assert (card.network, card.channels, card.prior) == (name, (), (0.5, 0.5, 0.5))
        assert "Classical method" in card.notes
        assert card.recipe["seed"] == 1
        report = json.loads((folder / "report.json").read_text())
        assert report["unknown"] is None  # no classical method tells
        assert report["patterns_seen"] == 512
        assert report["scores"]["masked"]["calcite"]["prevalence"] > 0
        assert xrdpipe.validate(file=folder).summary.endswith(f"valid model folder '{name}'.")


def test_a_map_with_a_phase_that_nobody_knows(folders, foreign_map, tmp_path):
    intensity, _, _, known = foreign_map
    path = write_patterns(tmp_path / "p.h5", ANGLE, intensity, GRID.wavelength)
    for name, folder in folders.items():
        output = tmp_path / f"{name}.h5"
        xrdpipe.map(
            patterns=str(path), model=str(folder), scan_shape="6x10", output=output, png=False
        )
        with h5py.File(output) as file:
            found = file["entry/phase_map/presence/decision"][()].reshape(3, -1)
            assert file["entry/phase_map/model/network"][()].decode() == name
        assert (found == (known.T > 0)).mean() > (0.65 if name == "matched-filter" else 0.85)


def test_recipes_are_shipped_for_every_method():
    for name in METHODS:
        recipe, _ = load_recipe(f"train-{name}")
        assert recipe.network == name
        assert recipe.data == "stream"


def test_the_stage_trains_a_classical_model(tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        "[train]\nnetwork = 'matched-filter'\nepochs = 1\npatterns_per_epoch = 64\nheld_out = 64\n"
    )
    paths = shipped_phases()
    outcome = xrdpipe.train(
        cif=(paths["rhenium"],),
        wavelength=0.7,
        grid="8:30:0.02",
        recipe=str(recipe),
        output=tmp_path / "m",
    )
    assert read_card(outcome.path).phase_names == ("rhenium",)


def test_wrong_wishes_are_refused(library, folders, tmp_path):
    recipe = replace(QUICK, members=3)
    task = Task(library, (), GRID, recipe, Recipe(), 0)
    with pytest.raises(OptionError, match="one member; the recipe has data 'stream' and 3 members"):
        train_classical(task, tmp_path, "x", Progress())
    with pytest.raises(OptionError, match="unknown network 'nnls'"):
        train(replace(task, recipe=replace(recipe, members=1)), tmp_path, "x", Progress())
    with pytest.raises(OptionError, match="Did you mean 'nnls'"):
        make_method("nnsl", library, GRID)
    with pytest.raises(InputError, match="has no line between 1 and 2 degrees"):
        make_method("nnls", library, Grid(1, 2, 0.01, 0.4959))
    card = folders["nnls"] / "model.json"
    content = card.read_text()
    try:
        card.write_text(content.replace('"network": "nnls"', '"network": "matched-filter"', 1))
        with pytest.raises(InputError, match="does not fit method 'matched-filter'"):
            load_model(folders["nnls"], "cpu")
    finally:
        card.write_text(content)


def test_bins_are_means_and_the_last_may_be_short():
    np.testing.assert_array_equal(binned(np.arange(7.0), 3), [1, 4, 6])
