"""The model that ships is what it says, and answers the plainest questions."""

import numpy as np
import pytest

from xrdpipe.crystal import load_phase
from xrdpipe.nn.inference import load_model
from xrdpipe.nn.model_folder import find_model, phase_library, read_card
from xrdpipe.nn.stream import Stream, draw_chosen
from xrdpipe.phases import shipped_phases
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.types import PhaseLibrary


@pytest.fixture(scope="module")
def card():
    return read_card(find_model())


def test_size_and_content(card):
    folder = find_model()
    weights = sum((folder / entry.file).stat().st_size for entry in card.weights)
    assert weights <= 4e6
    assert card.phase_names == ("bastnaesite-(La)", "calcite", "rhenium")
    assert str(card.grid) == "5-24° step 0.01° at 0.4959 Å"
    assert "assumption" in card.notes
    assert (folder / "report.json").is_file()
    shipped = {name: load_phase(path).sha256 for name, path in shipped_phases().items()}
    assert {phase.name: phase.sha256 for phase in phase_library(folder).phases} == shipped


def test_clear_patterns_get_clear_answers(card):
    library = phase_library(find_model())
    clear = Recipe.from_mapping(
        {
            "composition": {"fraction": [0.3, 1.0]},
            "grains": {"number": [3e4, 3e5]},
            "noise": {"counts": [30, 1000]},
            "background": {"line_to_background": [3.0, 10.0]},
            "detector": {"low_cut_probability": 0, "high_cut_probability": 0},
        }
    )
    model = load_model(find_model(), "cpu")
    batch = draw_chosen(Stream(library, (), card.grid, clear, seed=12345), 0, 200, 0.5)
    probability, *_ = model.predict(batch.intensity, batch.coverage)
    judged = batch.presence >= 0
    right = (probability >= 0.5) == (batch.presence == 1)
    assert right[judged].mean() > 0.95


def test_other_phases_and_empty_patterns_are_not_taken_for_ours(card):
    model = load_model(find_model(), "cpu")
    rng = np.random.default_rng(0)
    points = np.arange(card.grid.size)
    hump = 30 + 20 * np.exp(-(((points - 450) / 200) ** 2))
    empty = rng.poisson(100 * hump, (50, card.grid.size)) / 100
    probability, *_ = model.predict(empty, np.ones_like(empty))
    assert (probability < 0.5).mean() > 0.95
    assert isinstance(phase_library(find_model()), PhaseLibrary)
