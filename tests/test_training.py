"""Training: resumes to the same weights, writes a folder that says what it is, predicts."""

import json
import shutil
import subprocess
import sys
import tomllib
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import xrdpipe
from xrdpipe.config import TrainConfig
from xrdpipe.crystal import load_phase
from xrdpipe.errors import InputError, InputMissingError, OptionError, OutputExistsError
from xrdpipe.nn import training
from xrdpipe.nn.calibration import calibrate
from xrdpipe.nn.inference import choose_device, load_model, prior_shift
from xrdpipe.nn.model_folder import determined, find_model, model_sha256, phase_library, read_card
from xrdpipe.nn.stream import batches
from xrdpipe.nn.task import Task
from xrdpipe.nn.train_recipe import TrainRecipe, find_recipe, load_recipe
from xrdpipe.nn.training import train
from xrdpipe.phases import shipped_phases
from xrdpipe.stages.labelled import read_labelled
from xrdpipe.stages.train import run
from xrdpipe.store.truth import read_truth
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.types import Grid, PhaseLibrary, Progress

GRID = Grid(6, 16, 0.02, 0.4959)
QUICK = TrainRecipe(
    epochs=3, patterns_per_epoch=32, batch=16, held_out=40, workers=0, precision="float32"
)


@pytest.fixture(scope="module")
def library():
    return PhaseLibrary(tuple(load_phase(path) for path in shipped_phases().values()))


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory, library):
    work = tmp_path_factory.mktemp("training")
    train(Task(library, (), GRID, QUICK, Recipe(), seed=1), work, "quick", Progress())
    return work / "model"


def weights(folder):
    return (folder / "model" / "weights-0.safetensors").read_bytes()


def test_an_interrupted_training_ends_in_the_same_weights(tmp_path, library, monkeypatch):
    task = Task(library, (), GRID, QUICK, Recipe(), seed=1)
    train(task, tmp_path / "whole", "x", Progress())

    class StopError(Exception):
        pass

    save = training.save_checkpoint

    def stop_after_two(path, network, optimizer, course):
        save(path, network, optimizer, course)
        if course.done == 2:
            raise StopError

    monkeypatch.setattr(training, "save_checkpoint", stop_after_two)
    with pytest.raises(StopError):
        train(task, tmp_path / "parts", "x", Progress())
    monkeypatch.setattr(training, "save_checkpoint", save)
    train(task, tmp_path / "parts", "x", Progress())
    assert weights(tmp_path / "whole") == weights(tmp_path / "parts")


def test_the_paper_recipe_learns_its_own_set(tmp_path, library):
    recipe, synthesis = load_recipe("paper/mtl-weighted")
    assert (recipe.loss, recipe.class_weights, recipe.noise) == ("cross-entropy", (1.0, 1.6), 0.05)
    assert (recipe.learning_rate, recipe.weight_decay, recipe.batch) == (1e-5, 1e-8, 60)
    assert (recipe.epochs, recipe.optimizer) == (300, "adam")
    short = replace(recipe, epochs=1, mixtures=4, held_out=16, batch=300, learning_rate=1e-3)
    task = Task(library, (), GRID, short, synthesis, seed=0)
    report = train(task, tmp_path, "paper", Progress())
    assert report["patterns_seen"] == 1060
    assert read_card(tmp_path / "model").network == "paper"


def test_the_card_says_what_the_model_is(model_folder, library):
    card = read_card(model_folder)
    assert card.phase_names == library.names
    assert card.grid == GRID
    assert card.wavelength == 0.4959
    assert card.prior == (0.5, 0.5, 0.5)
    assert card.recipe["train"]["batch"] == 16
    assert card.phases[1].strongest[0] == pytest.approx(9.37, abs=0.01)  # calcite 104
    assert phase_library(model_folder).names == library.names
    assert len(model_sha256(model_folder)) == 64
    report = json.loads((model_folder / "report.json").read_text())
    assert report["scores"]["masked"]["calcite"]["prevalence"] is not None


def test_predictions_do_not_depend_on_batches(model_folder):
    rng = np.random.default_rng(0)
    model = load_model(model_folder, "cpu")
    intensity = rng.gamma(5, 1, (600, GRID.size))
    coverage = np.ones_like(intensity)
    probability, spread, _ = model.predict(intensity, coverage)
    assert probability.shape == spread.shape == (600, 3)
    assert ((probability >= 0) & (probability <= 1)).all()
    assert (spread == 0).all()
    part, *_ = model.predict(intensity[256:300], coverage[256:300])
    np.testing.assert_array_equal(part, probability[256:300])
    intensity[3] = np.nan
    blank, *_ = model.predict(intensity, coverage)
    assert np.isnan(blank[3]).all()
    np.testing.assert_array_equal(blank[4:], probability[4:])
    none, *_ = model.predict(intensity[:0], coverage[:0])
    assert none.shape == (0, 3)


def test_an_unknown_score_is_learned_calibrated_and_written(model_folder):
    card = read_card(model_folder)
    assert 0 < card.unknown.threshold < 1
    assert card.unknown.false_alarms == 0.05
    assert len(card.weights[0].bias) == 3
    intensity = np.random.default_rng(0).gamma(5, 1, (4, GRID.size))
    prediction = load_model(model_folder, "cpu").predict(intensity, np.ones_like(intensity))
    assert prediction.probability.shape == (4, 3)
    assert ((prediction.unknown > 0) & (prediction.unknown < 1)).all()
    report = json.loads((model_folder / "report.json").read_text())
    assert report["unknown"]["masked"]["prevalence"] > 0.2
    # A card whose threshold has no calibration behind it is refused.
    content = json.loads((model_folder / "model.json").read_text())
    content["calibration"][0]["unknown"] = None
    broken = model_folder.parent / "broken"
    shutil.copytree(model_folder, broken)
    (broken / "model.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="no calibration"):
        read_card(broken)


def test_a_model_without_an_unknown_score_says_nan(tmp_path, library):
    recipe = replace(QUICK, epochs=1, unknown=False)
    train(Task(library, (), GRID, recipe, Recipe(), 0), tmp_path, "plain", Progress())
    assert read_card(tmp_path / "model").unknown is None
    intensity = np.ones((2, GRID.size))
    assert np.isnan(load_model(tmp_path / "model", "cpu").predict(intensity, intensity)[2]).all()


def test_training_starts_from_the_weights_of_a_model(tmp_path, library, model_folder):
    """At a rate of almost zero the weights stay: each member begins with those that were given."""
    recipe = replace(QUICK, epochs=1, members=2, learning_rate=1e-12, weights="float32")
    task = Task(library, (), GRID, recipe, Recipe(), 0, start=model_folder)
    train(task, tmp_path, "more", Progress())
    first = load_file(model_folder / "weights-0.safetensors")
    for member in range(2):
        found = load_file(tmp_path / "model" / f"weights-{member}.safetensors")
        for name, values in first.items():
            torch.testing.assert_close(found[name], values.float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("change", "message"), [
    ({"grid": "6:16:0.05"}, "its grid is 5-24"),
    ({"recipe": "train-nnls"}, "has no weights to start from"),
    ({"start": "hydrotermal-dac"}, "Did you mean 'hydrothermal-dac'"),
])  # fmt: skip
def test_weights_that_do_not_fit_are_refused(tmp_path, change, message):
    options = {"wavelength": 0.4959, "start": "hydrothermal-dac", "output": tmp_path / "m"} | change
    with pytest.raises((OptionError, InputMissingError), match=message):
        xrdpipe.train(**options)
    assert not (tmp_path / "m").exists()


def test_members_of_an_ensemble_give_a_spread(tmp_path, library):
    recipe = replace(QUICK, epochs=1, members=2)
    train(Task(library, (), GRID, recipe, Recipe(), 0), tmp_path, "two", Progress())
    model = load_model(tmp_path / "model", "cpu")
    intensity = np.random.default_rng(0).gamma(5, 1, (4, GRID.size))
    _, spread, _ = model.predict(intensity, np.ones_like(intensity))
    assert (spread > 0).all()


def test_patterns_off_the_grid_are_refused(model_folder):
    with pytest.raises(InputError, match="needs patterns with 501 points"):
        load_model(model_folder, "cpu").predict(np.ones((2, 400)), np.ones((2, 400)))


def test_a_phase_without_its_strong_lines_is_undetermined(model_folder):
    card = read_card(model_folder)
    coverage = np.ones((3, GRID.size))
    for angle in card.phases[1].strongest:
        coverage[1, np.abs(GRID.two_theta - angle) < 0.1] = 0
    coverage[2] = np.nan
    assert determined(card, coverage)[:, 1].tolist() == [True, False, False]
    assert determined(card, coverage)[1, 0]


def test_calibration_finds_temperature_and_prior():
    rng = np.random.default_rng(0)
    labels = (rng.random((40000, 1)) < 0.2).astype(int)
    # Log-odds of two unit Gaussians 2 apart are exactly 2x at equal priors; stretched and shifted.
    x = rng.normal(2.0 * labels - 1, 1)
    temperature, bias = calibrate(3 * 2 * x + 1.5, labels)
    assert temperature == pytest.approx(3, rel=0.05)
    assert bias[0] == pytest.approx(-0.5, abs=0.06)


def test_prior_shift_moves_log_odds():
    probability = np.array([[0.5, 0.9], [np.nan, 0.5]])
    shifted = prior_shift(probability, [0.5, 0.5], [0.1, 0.5])
    np.testing.assert_allclose(shifted, [[0.1, 0.9], [np.nan, 0.5]], rtol=1e-6)
    with pytest.raises(OptionError, match="one prior per phase"):
        prior_shift(probability, [0.5, 0.5], [0.1])
    with pytest.raises(OptionError, match="between 0 and 1"):
        prior_shift(probability, [0.5, 0.5], [0.1, 1.0])


def test_workers_change_no_sample(library):
    stream = Task(library, (), GRID, QUICK, Recipe(), 0).stream(0)
    alone = list(batches(stream, QUICK.channels, 0.5, 0, 3, 8, workers=0))
    beside = list(batches(stream, QUICK.channels, 0.5, 0, 3, 8, workers=1))
    for one, other in zip(alone, beside, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_stage_writes_resumes_and_refuses(tmp_path):
    config = TrainConfig(
        wavelength=0.4959, output=tmp_path / "m", recipe="train-tiny", grid="6:16:0.02"
    )
    outcome = run(config, Progress())
    assert "prevalence" in outcome.summary
    assert not (tmp_path / "m.part").exists()
    assert "already done" in run(config, Progress()).summary
    with pytest.raises(OutputExistsError, match="seed is 0 there and 1 now"):
        run(replace(config, seed=1), Progress())
    assert run(replace(config, seed=1, restart=True), Progress()).path == tmp_path / "m"
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="no model folder"):
        run(replace(config, output=tmp_path / "other"), Progress())


def test_own_phases_follow_the_order_given(tmp_path):
    paths = shipped_phases()
    config = TrainConfig(
        cif=(paths["rhenium"],),
        wavelength=0.7,
        output=tmp_path / "m",
        recipe="train-tiny",
        grid="8:30:0.02",
    )
    run(config, Progress())
    assert read_card(tmp_path / "m").phase_names == ("rhenium",)


def test_all_shipped_recipes_can_be_read():
    folder = Path(__file__).parents[1] / "pipelines"
    files = [*folder.glob("train-*.toml"), *folder.glob("paper/*.toml")]
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in files]
    assert {"train-small", "paper/mtl", "paper/cnn-hybrid", "train-nnls"} <= set(names)
    for name in names:
        recipe, _ = load_recipe(name)
        assert recipe.epochs > 0
    assert find_recipe(None).stem == "train-small"


def test_the_default_recipe_states_every_default():
    """What a user copies and changes must be what happens without a change."""
    content = tomllib.loads(find_recipe(None).read_text())
    recipe, synthesis = load_recipe(None)
    assert recipe == TrainRecipe()
    assert synthesis == Recipe()
    known = {"network", "channels", "data", "loss", "optimizer", "learning_rate", "epochs"}
    assert known <= set(content["train"])
    for effect in fields(Recipe):
        keys = {key.name for key in fields(getattr(synthesis, effect.name))} - {"combinations"}
        assert set(content["synthesis"][effect.name]) == keys


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nepoch = 3", "Did you mean 'epochs'"),
        ("[train]\nnetwork = 'big'", "must be one of small-resnet, paper, single-task"),
        ("[train]\nepochs = 0", "must be positive"),
        ("[train]\nepochs = 1.5", "whole number"),
        ("[train]\nchannels = ['sqr']", "Did you mean 'sqrt'"),
        ("[synthesis]\nstrian = 3", "Did you mean 'strain'"),
        ("[syntesis]\n", "Did you mean 'synthesis'"),
    ],
)
def test_recipes_with_mistakes_are_refused(tmp_path, text, message):
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(OptionError, match=message):
        load_recipe(path)


def test_unreadable_recipe_and_unknown_names(tmp_path):
    (tmp_path / "r.toml").write_text("[train")
    with pytest.raises(InputError, match="not readable TOML"):
        load_recipe(tmp_path / "r.toml")
    with pytest.raises(InputMissingError, match="Did you mean 'train-small'"):
        load_recipe("train-smal")
    with pytest.raises(InputMissingError, match="neither a shipped model"):
        find_model("hydrotermal-dac")
    with pytest.raises(OptionError, match="auto, cpu or cuda"):
        choose_device("tpu")


def broken(folder, tmp_path, **changes):
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(folder), str(copy)], check=True)
    card = json.loads((copy / "model.json").read_text())
    card.update(changes)
    (copy / "model.json").write_text(json.dumps(card))
    return copy


def test_broken_model_folders_are_refused(model_folder, tmp_path):
    with pytest.raises(InputMissingError, match="no model folder"):
        read_card(tmp_path)
    folder = broken(model_folder, tmp_path, format_version=99)
    with pytest.raises(InputError, match="format_version 99"):
        read_card(folder)
    (folder / "model.json").write_text("{")
    with pytest.raises(InputError, match="not readable JSON"):
        read_card(folder)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"grid": {}}, InputError, "an entry is missing"),
        ({"prior": [0.5]}, InputError, "1 priors"),
        ({"channels": ["sqr"]}, OptionError, "unknown input channel"),
        (
            {"weights": [{"file": "../x", "sha256": ""}]},
            InputError,
            "outside the model folder",
        ),
        ({"weights": [{"file": "gone", "sha256": ""}]}, InputMissingError, "does not exist"),
    ],
)
def test_inconsistent_cards_are_refused(model_folder, tmp_path, changes, error, message):
    folder = broken(model_folder, tmp_path, **changes)
    with pytest.raises(error, match=message):
        read_card(folder)


def test_changed_weights_and_phases_are_refused(model_folder, tmp_path):
    folder = broken(model_folder, tmp_path, network="paper")
    with pytest.raises(InputError, match="does not fit network 'paper'"):
        load_model(folder, "cpu")
    with (folder / "weights-0.safetensors").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(InputError, match="has changed since training"):
        load_model(folder, "cpu")
    (folder / "phases" / "calcite.cif").write_text("data_x")
    with pytest.raises(InputError, match="has changed since training"):
        phase_library(folder)


def test_reading_a_card_needs_no_torch():
    code = (
        "import sys; import xrdpipe.nn.model_folder, xrdpipe.nn.train_recipe, xrdpipe.stages.train;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_cuda_is_asked_for_only_where_it_is():
    assert choose_device("cpu") == torch.device("cpu")


def test_hybrid_training_takes_labelled_patterns(tmp_path, library):
    """A few integrated frames with known phases join the fixed set, rows matched by number."""
    scan, patterns = tmp_path / "scan", tmp_path / "p.h5"
    xrdpipe.simulate(output=scan, scan_shape="2x4", seed=5, snake=True, threads=1)
    xrdpipe.integrate(
        frames=scan / "frames", poni=scan / "geometry.poni", output=patterns, variant="both"
    )
    truth = read_truth(scan / "truth.h5")
    names = tuple(phase.name for phase in library.phases)
    grid = Grid(5, 24, 0.02, 0.4959)
    labelled = read_labelled([patterns], [scan / "truth.h5"], "unmasked", names, grid)
    assert labelled.intensity.shape == (8, grid.size)
    for row, number in enumerate(np.argsort(truth.extra["frame"], axis=None)):
        np.testing.assert_array_equal(
            labelled.presence[row], truth.presence.reshape(3, 8).T[number]
        )
    recipe = tmp_path / "hybrid.toml"
    text = (Path(__file__).parents[1] / "pipelines" / "paper" / "mtl-hybrid.toml").read_text()
    text = text.replace("epochs = 300", "epochs = 1").replace("= 22", "= 6")
    recipe.write_text(text.replace("mixtures = 1056", "mixtures = 4\nheld_out = 16"))
    options = {
        "wavelength": 0.4959, "grid": "5:24:0.02", "recipe": str(recipe),
        "output": tmp_path / "m",
    }  # fmt: skip
    with pytest.raises(OptionError, match="adds 6 labelled patterns, 0 files"):
        xrdpipe.train(**options)
    with pytest.raises(OptionError, match="belong together"):
        xrdpipe.train(**options, labelled=patterns)
    outcome = xrdpipe.train(**options, labelled=patterns, truth=scan / "truth.h5")
    assert outcome.details["patterns_seen"] == 1056 + 4 + 6
