"""Synthetic patterns: same samples whatever the batches, right peaks, every combination."""

import numpy as np
import pytest

from xrdpipe.crystal import load_phase, reflections
from xrdpipe.errors import InputError, OptionError
from xrdpipe.phases import distractor_phases, shipped_phases
from xrdpipe.synthesis.generator import make_generator
from xrdpipe.synthesis.paper_set import paper_s_set
from xrdpipe.synthesis.patterns import draw, draw_patterns
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.types import Grid, PhaseLibrary

GRID = Grid(5, 24, 0.01, 0.4959)

# Nothing but ideal powder lines on a flat background of a hundred-thousandth.
IDEAL = Recipe(
    presence_probability=1.0,
    mean_phases=99,
    null_probability=0,
    distractor_probability=0,
    fraction=(1, 1),
    strain=0,
    deviatoric_strain=0,
    zero_shift=0,
    distance_scale=0,
    line_jitter=(1e-9, 1e-9),
    grains=(1e12, 1e12),
    texture_probability=0,
    instrument_width=(0.06, 0.06),
    crystallite_size=(1e6, 1e6),
    microstrain=(1e-9, 1e-9),
    counts=(7, 7),
    line_to_background=(1e5, 1e5),
    hump=(0, 0),
    air=(0, 0),
    waves=0,
    pixel=(0.01, 0.01),
    unsplit_probability=0,
    spot_probability=0,
    spikes=0,
    hot_pixels=(1e-9, 1e-9),
    beam_stop_probability=0,
    cut_probability=0,
    gap_probability=0,
    coverage=(1, 1),
    ripple=(1e-9, 1e-9),
)


@pytest.fixture(scope="module")
def library():
    return PhaseLibrary(tuple(load_phase(path) for path in shipped_phases().values()))


@pytest.fixture(scope="module")
def distractors():
    return tuple(load_phase(path) for path in distractor_phases().values())


def test_samples_do_not_depend_on_the_split_into_batches(library, distractors):
    whole = draw_patterns(library, distractors, GRID, Recipe(), 0, 12, seed=3)
    parts = [
        draw_patterns(library, distractors, GRID, Recipe(), first, number, seed=3)
        for first, number in ((0, 5), (5, 1), (6, 6))
    ]
    for name in ("intensity", "coverage", "presence", "fraction", "strength", "masked"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(getattr(whole, name), joined)
    other = draw_patterns(library, distractors, GRID, Recipe(), 0, 12, seed=4)
    assert not np.array_equal(whole.intensity, other.intensity)


def test_shapes_types_and_what_nan_means(library, distractors):
    batch = draw_patterns(library, distractors, GRID, Recipe(), 0, 40, seed=0)
    assert batch.intensity.shape == batch.coverage.shape == (40, 1901)
    assert batch.intensity.dtype == batch.coverage.dtype == np.float32
    assert batch.presence.shape == (40, 3)
    assert batch.presence.dtype == np.int8
    np.testing.assert_array_equal(np.isnan(batch.intensity), batch.coverage == 0)
    assert (batch.coverage >= 0).all()
    assert (batch.coverage <= 1).all()
    np.testing.assert_array_equal(batch.presence == 0, batch.fraction == 0)


def test_all_combinations_and_empty_patterns_occur(library, distractors):
    batch = draw_patterns(library, distractors, GRID, Recipe(), 0, 400, seed=1)
    present = batch.fraction > 0
    combinations, counts = np.unique(present, axis=0, return_counts=True)
    assert len(combinations) == 8
    assert counts.min() > 20
    empty = (~present).all(axis=1).mean()
    assert 0.13 < empty < 0.26
    # Independent labels: no phase tells of another.
    correlation = np.corrcoef(present.T[:, present.any(axis=1)])
    assert np.abs(correlation - np.eye(3)).max() < 0.3
    assert 0.3 < batch.masked.mean() < 0.7


def test_ideal_ceria_has_its_positions_and_intensities():
    ceria = load_phase(distractor_phases()["ceria"])
    batch = draw_patterns(PhaseLibrary((ceria,)), (), GRID, IDEAL, 0, 1, seed=0)
    intensity = batch.intensity[0].astype(float)
    table = reflections(ceria, 0.4959, 1.2)
    for angle in table.two_theta:
        near = np.abs(GRID.two_theta - angle) < 0.1
        assert GRID.two_theta[near][np.argmax(intensity[near])] == pytest.approx(angle, abs=0.011)
    lines = {
        tuple(hkl): angle for hkl, angle in zip(table.hkl.tolist(), table.two_theta, strict=True)
    }

    def area(*hkl):
        near = np.abs(GRID.two_theta - lines[hkl]) < 0.3
        return intensity[near].sum()

    # Mean per pixel, measured on a real frame: 220 61-63, 311 52-53 of 111.
    assert area(2, 2, 0) / area(1, 1, 1) == pytest.approx(0.61, abs=0.03)
    assert area(3, 1, 1) / area(1, 1, 1) == pytest.approx(0.52, abs=0.03)
    assert area(2, 0, 0) / area(1, 1, 1) == pytest.approx(0.29, abs=0.02)


def test_few_grains_scatter_line_intensities_about_the_powder_mean(library):
    calcite = PhaseLibrary((library.phases[1],))
    steady = {**IDEAL.__dict__, "grain_width": (0.3, 0.3)}
    few = Recipe(**{**steady, "grains": (300.0, 300.0), "masked_probability": 0.0})
    place = np.abs(GRID.two_theta - 9.370).argmin()
    heights = draw_patterns(calcite, (), GRID, few, 0, 300, seed=0).intensity[:, place]
    ideal = draw_patterns(calcite, (), GRID, Recipe(**steady), 0, 1, seed=0).intensity[0, place]
    assert heights.std() / heights.mean() > 0.4
    assert heights.mean() / ideal == pytest.approx(1, abs=0.15)


def test_masking_removes_spots(library):
    generator = {**Recipe().__dict__, "spikes": 5.0, "spot_height": (100.0, 100.0)}
    shown = draw_patterns(
        library, (), GRID, Recipe(**{**generator, "masked_probability": 0.0}), 0, 60, 0
    )
    hidden = draw_patterns(
        library, (), GRID, Recipe(**{**generator, "masked_probability": 1.0}), 0, 60, 0
    )
    ratio = [np.nanmax(b.intensity, axis=1) / np.nanmedian(b.intensity, axis=1) for b in
             (shown, hidden)]  # fmt: skip
    assert np.median(ratio[0]) > 5 * np.median(ratio[1])


def test_a_hot_pixel_is_a_box_of_its_width_and_share_of_the_ring(library):
    quiet = {**IDEAL.__dict__, "presence_probability": 0.0, "counts": (-6.0, -6.0)}
    hot = {"hot_pixels": (1.0, 1.0), "hot_height": (1e5, 1e5), "pixel": (0.1, 0.1)}
    batch = draw_patterns(library, (), GRID, Recipe(**{**quiet, **hot}), 0, 80, seed=0)
    seen = 0
    for pattern, coverage in zip(batch.intensity, batch.coverage, strict=True):
        lifted = np.flatnonzero(pattern > 1)
        if lifted.size and np.ptp(lifted) + 1 == lifted.size <= 15:  # one pixel, alone
            seen += 1
            width = lifted.size * GRID.step
            assert 0.09 <= width <= 0.16
            place = GRID.two_theta[lifted].mean()
            share = 0.1 / (2 * np.pi * place * coverage[lifted].mean())  # of its ring's pixels
            assert pattern[lifted].mean() == pytest.approx(1e5 * share, rel=0.03)
    assert seen > 10
    masked = Recipe(**{**quiet, **hot, "masked_probability": 1.0})
    assert np.nanmax(draw_patterns(library, (), GRID, masked, 0, 80, seed=0).intensity) < 1


def test_noise_follows_counting_statistics_and_is_correlated_within_a_pixel(library):
    flat = {
        **IDEAL.__dict__,
        "presence_probability": 0.0,
        "counts": (0.0, 0.0),
        "line_to_background": (1.0, 1.0),
        "pixel": (0.05, 0.05),
    }
    batch = draw_patterns(library, (), GRID, Recipe(**flat), 0, 300, seed=0)
    # The background falls smoothly: take a parabola off.
    place = np.arange(400)
    window = batch.intensity[:, 100:500].astype(float)
    smooth = np.polynomial.polynomial.polyval(
        place, np.polynomial.polynomial.polyfit(place, window.T, 2)
    )
    deviation = window / smooth - 1
    near = np.mean(deviation[:, 1:] * deviation[:, :-1]) / np.mean(deviation**2)
    far = np.mean(deviation[:, 9:] * deviation[:, :-9]) / np.mean(deviation**2)
    assert near > 0.6
    assert abs(far) < 0.15


def test_distractors_that_look_like_a_phase_are_left_out(distractors):
    nickel = load_phase(distractor_phases()["nickel"])
    generator = make_generator(PhaseLibrary((nickel,)), distractors, GRID, Recipe())
    names = {lines.name for lines in generator.distractors}
    assert "nickel" not in names
    assert {"gold", "halite", "diamond"} <= names


@pytest.mark.parametrize("count", [1, 20])
def test_libraries_of_one_and_of_twenty_phases(distractors, count):
    library = PhaseLibrary(distractors[:count])
    batch = draw_patterns(library, (), GRID, Recipe(), 0, 60, seed=0)
    assert batch.presence.shape == (60, count)
    assert 0.2 < (batch.fraction > 0).sum(axis=1).mean() < 2.5


def test_paper_set_has_its_counts_and_no_background(library):
    patterns, labels = paper_s_set(library, GRID, seed=0, mixtures=50)
    assert patterns.shape == (1106, 1901)
    single = labels[:1056]
    assert single.sum(axis=0).tolist() == [384, 385, 287]
    assert (single.sum(axis=1) == 1).all()
    assert set(labels[1056:].sum(axis=1).tolist()) == {2, 3}
    assert patterns.min() >= 0
    again, _ = paper_s_set(library, GRID, seed=0, mixtures=50)
    np.testing.assert_array_equal(patterns, again)


def test_recipe_refuses_unknown_keys_and_wrong_values():
    with pytest.raises(OptionError, match="Did you mean 'strain'"):
        Recipe.from_mapping({"strian": 0.1})
    with pytest.raises(OptionError, match=r"\[low, high\]"):
        Recipe.from_mapping({"counts": [3, 1]})
    with pytest.raises(OptionError, match="must be a number"):
        Recipe.from_mapping({"strain": "small"})
    with pytest.raises(OptionError, match="list of phase names"):
        Recipe.from_mapping({"parasites": "rhenium"})
    recipe = Recipe.from_mapping({"counts": [0, 1], "spot_spacings": [2.0], "strain": 1})
    assert recipe.counts == (0.0, 1.0)
    assert recipe.spot_spacings == (2.0,)


def test_a_phase_without_a_line_on_the_grid_is_refused(library):
    with pytest.raises(InputError, match="calcite' has no line"):
        make_generator(library, (), Grid(5, 6, 0.01, 0.4959), Recipe())


def test_preparation_is_separate_from_drawing(library):
    generator = make_generator(library, (), GRID, Recipe())
    once = draw(generator, 7, 2, seed=5)
    again = draw_patterns(library, (), GRID, Recipe(), 7, 2, seed=5)
    np.testing.assert_array_equal(once.intensity, again.intensity)
