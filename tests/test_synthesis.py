"""The generator of training patterns against known answers: physics, statistics, numbering."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from scipy import stats

from xrdpipe.crystal import density, load_phase, powder_intensity, reflections
from xrdpipe.errors import InputError, OptionError
from xrdpipe.nn import counting
from xrdpipe.nn.lineshapes import Lines, render_lines
from xrdpipe.nn.literature_sets import draw_imperfect, paper_s_set
from xrdpipe.nn.patterns import draw_pairs, render
from xrdpipe.nn.stream import PatternStream, Stream
from xrdpipe.phases import distractor_phases, shipped_phases
from xrdpipe.synthesis.counter import counter, philox, poisson
from xrdpipe.synthesis.lines import MARCH_STEPS, march_dollase, phase_lines
from xrdpipe.synthesis.made_up import made_up_phases
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.synthesis.rings import grain_factors
from xrdpipe.synthesis.scene import draw_scene, make_generator
from xrdpipe.synthesis.surroundings import KNOT, make_knots
from xrdpipe.types import Grid, PhaseLibrary

GRID = Grid(5, 24, 0.01, 0.4959)
EFFECTS = [effect.name for effect in fields(Recipe)]
IDEAL = Recipe().without(*EFFECTS)
"""Every phase in every pattern with an amount of 1: powder lines and nothing else."""


@pytest.fixture(scope="module")
def library():
    return PhaseLibrary(tuple(load_phase(path) for path in shipped_phases().values()))


@pytest.fixture(scope="module")
def distractors():
    return tuple(load_phase(path) for path in distractor_phases().values())


@pytest.fixture(scope="module")
def everything(library, distractors):
    return make_generator(library, distractors, GRID, Recipe())


def generator_of(library, **effects):
    """The ideal powder with some effects replaced."""
    return make_generator(library, (), GRID, replace(IDEAL, **effects))


def effect(name, **values):
    """One effect of the recipe, switched on."""
    return replace(getattr(Recipe(), name), on=True, **values)


# --- numbers -----------------------------------------------------------------------------------


def test_philox_gives_the_published_words():
    """Known answers of Random123 (Salmon et al. 2011) for Philox4x32-10."""
    zero, ones = np.zeros(1, np.uint64), np.full(1, 2**32 - 1, np.uint64)
    words = [int(w[0]) for w in philox((zero,) * 4, (0, 0))]
    assert words == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    words = [int(w[0]) for w in philox((ones,) * 4, (2**32 - 1, 2**32 - 1))]
    assert words == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def test_numbers_depend_on_seed_sample_purpose_and_item_alone():
    whole = counter(5, 0, 20)
    part = counter(5, 7, 3)
    np.testing.assert_array_equal(whole.uniform("a", 9)[7:10], part.uniform("a", 9))
    np.testing.assert_array_equal(whole.uniform("a", 9)[:, :4], whole.uniform("a", 4))
    place, item = np.array([7, 9, 7]), np.array([3, 0, 70000])
    np.testing.assert_array_equal(
        whole.items("b", place, item, 6), part.items("b", place - 7, item, 6)
    )
    assert not np.any(whole.uniform("a", 9) == whole.uniform("c", 9))
    assert not np.any(whole.uniform("a", 9) == counter(6, 0, 20).uniform("a", 9))
    drawn = counter(1, 0, 500).uniform("d", 400).ravel()
    assert stats.kstest(drawn, "uniform").pvalue > 1e-3


def test_fields_are_uniform_and_independent():
    keys = torch.from_numpy(counter(1, 0, 40).keys("fields").view(np.int32))
    one, two = (counting.uniform_field(keys, number, 1901) for number in (0, 1))
    assert stats.kstest(one.numpy().ravel(), "uniform").pvalue > 1e-3
    stacked = torch.cat([one, two]) - 0.5
    correlation = np.corrcoef(stacked.numpy())
    assert np.abs(correlation - np.eye(80)).max() < 6 / np.sqrt(1901)
    neighbours = (stacked[:, 1:] * stacked[:, :-1]).mean() * 12
    assert abs(float(neighbours)) < 5 / np.sqrt(80 * 1901)


def test_the_largest_and_smallest_words_give_finite_numbers():
    """One word in 16 million used to round to 1, whose normal number is infinite."""
    words = torch.tensor([[-1, 0, 2**31 - 1, -(2**31)]], dtype=torch.int32)
    uniform = counting._fine(words)
    assert 0 < float(uniform.min()) < 1e-6
    assert 1 - 1e-6 < float(uniform.max()) < 1
    assert torch.isfinite(counting.normal(uniform)).all()


@pytest.mark.parametrize("mean", [0.05, 0.7, 3.9, 4.1, 9.0, 15.0, 29.0])
def test_small_poisson_numbers_follow_the_distribution(mean):
    quantile = (np.arange(200_000) + 0.5) / 200_000
    expected = stats.poisson.pmf(np.arange(120), mean)
    drawn = {
        "lines": poisson(quantile, np.full(quantile.shape, mean)),
        "points": counting.poisson(
            torch.full((1, 200_000), mean), torch.from_numpy(quantile).float()[None]
        ).numpy()[0],
    }
    for name, number in drawn.items():
        seen = np.bincount(number.astype(int), minlength=120) / len(quantile)
        assert np.abs(seen - expected).sum() / 2 < 0.003, name
        assert np.all(number == np.round(number)), name


@pytest.mark.parametrize("mean", [31.0, 1e3, 1e6])
def test_large_poisson_numbers_keep_mean_variance_and_skewness(mean):
    uniform = counting.uniform_field(torch.tensor([[1, 2, 3, 4]], dtype=torch.int32), 0, 400_000)
    number = counting.poisson(torch.full_like(uniform, mean), uniform).double().numpy()
    assert number.mean() == pytest.approx(mean, abs=4 * np.sqrt(mean / 4e5))
    assert number.var() == pytest.approx(mean, rel=0.01)
    assert stats.skew(number.ravel()) == pytest.approx(mean**-0.5, abs=0.015)


def test_running_sums():
    values = np.random.default_rng(0).random((3, 50)).astype(np.float32)
    half = np.array([0, 2, 7])
    fields = torch.from_numpy(np.stack([values, 2 * values]))
    summed, twice = counting.running_sum(fields, torch.from_numpy(half)).numpy()
    np.testing.assert_allclose(twice, 2 * summed, rtol=1e-6)
    for row, width in enumerate(half):
        kernel = np.ones(2 * width + 1)
        np.testing.assert_allclose(summed[row], np.convolve(values[row], kernel, "same"), rtol=1e-6)


# --- lines -------------------------------------------------------------------------------------


def direct_sum(position, width, mixing, area, size):
    """Pseudo-Voigt lines evaluated point by point."""
    u = 2 * (np.arange(size)[:, None] - position) / width
    gauss = 2 * np.sqrt(np.log(2) / np.pi) * np.exp(-np.log(2) * u * u)
    lorentz = 2 / np.pi / (1 + u * u)
    return ((1 - mixing) * gauss + mixing * lorentz) / width @ area


def drawn(sample, position, width, mixing, area, number, size):
    arrays = [torch.as_tensor(np.asarray(x, float)) for x in (position, width, mixing)]
    areas = torch.as_tensor(np.asarray(area, float))[:, None]
    lines = Lines(torch.as_tensor(np.asarray(sample)), *arrays, areas)
    return render_lines(lines, number, size)[:, 0].numpy()


@pytest.mark.parametrize("ratio", [1.0, 1.5, 4.0, 12.0])
def test_lines_of_many_widths_are_those_of_a_direct_sum(ratio):
    rng = np.random.default_rng(0)
    size, lines = 1901, 40
    position, mixing, area = (
        rng.uniform(0, size, lines), rng.uniform(0, 1, lines), rng.uniform(0.1, 1, lines)
    )  # fmt: skip
    width = 4 * np.exp(rng.uniform(0, np.log(ratio), lines))
    got = drawn(np.zeros(lines, int), position, width, mixing, area, 1, size)[0]
    expected = direct_sum(position, width, mixing, area, size)
    assert np.abs(got - expected).max() < 0.01 * expected.max()


def test_area_and_width_of_a_line_are_as_asked():
    width = np.array([4.0, 7.3, 20.0])
    got = drawn([0, 1, 2], [500.3, 500.5, 499.9], width, [0, 0, 0], [2.0, 3.0, 4.0], 3, 1001)
    np.testing.assert_allclose(got.sum(axis=1), [2, 3, 4], rtol=1e-4)
    points = np.arange(1001)
    for pattern, wanted in zip(got, width, strict=True):
        top = pattern.argmax()
        # A parabola through the logarithms of a Gaussian's points gives its width.
        near = slice(top - 2, top + 3)
        curvature = np.polyfit(points[near] - top, np.log(pattern[near]), 2)[0]
        assert 2 * np.sqrt(np.log(2) / -curvature) == pytest.approx(wanted, rel=0.01)


def test_no_lines_and_lines_outside():
    assert not drawn([], [], [], [], [], 2, 100).any()
    far = drawn([0, 1], [-500.0, 900.0], [4.0, 4.0], [0.5, 0.5], [1.0, 1.0], 2, 100)
    assert not far.any()


def test_ideal_intensities_are_those_of_the_reflection_table(library, distractors):
    """m|F|²/(sin²θ cosθ) per pixel, at the angle of each line, width as drawn."""
    ceria = load_phase(distractor_phases()["ceria"])
    generator = generator_of(PhaseLibrary((ceria,)))
    pairs = draw_pairs(generator, 0, 1, seed=0)
    table = reflections(ceria, 0.4959, 1.15)
    intensity = powder_intensity(table, 0.4959)
    pattern = pairs.masked[0].numpy()
    level = draw_scene(generator, 0, 1, 0).exposure.level[0]
    lines = {tuple(h): k for k, h in enumerate(table.hkl.tolist())}
    for hkl in ((1, 1, 1), (2, 0, 0), (2, 2, 0), (3, 1, 1), (4, 0, 0)):
        k = lines[hkl]
        near = np.abs(GRID.two_theta - table.two_theta[k]) < 0.35
        centre = np.sum(pattern[near] * GRID.two_theta[near]) / pattern[near].sum()
        assert centre == pytest.approx(table.two_theta[k], abs=0.002)
        # The highest point of the grid lies up to half a step beside the line.
        expected = level * intensity[k] / intensity.max()
        assert pattern[near].max() == pytest.approx(expected, rel=0.01)
    # The same numbers as on real frames of CeO2: 60/52 per cent of 111, not 98/99.
    assert intensity[lines[2, 2, 0]] / intensity[lines[1, 1, 1]] == pytest.approx(0.61, abs=0.03)


def test_a_strained_cell_moves_each_line_as_d_predicts(library):
    generator = generator_of(library, strain=effect("strain", isotropic=0.01, deviatoric=0.005))
    scene = draw_scene(generator, 0, 30, seed=1)
    first = generator.table.first
    for k, phase in enumerate(library.phases):
        table = reflections(phase, 0.4959, 1.1)
        spacing = phase_lines(phase, GRID).d
        row = np.searchsorted(-table.d, -spacing)
        for sample in range(5):
            mine = (scene.sticks.sample == sample) & (scene.sticks.owner == k)
            cell = tuple(scene.targets.lattice[sample, k])
            d = table.d_in_cell(cell)[row]
            expected = np.degrees(2 * np.arcsin(0.4959 / (2 * d)))
            shift = expected - table.two_theta[row]
            got = scene.sticks.position[mine] - table.two_theta[row]
            np.testing.assert_allclose(got, shift, atol=0.02 * np.abs(shift).max())
            assert np.abs(shift).max() > 0.01
    assert first[0] == 0


def test_displaced_detector_moves_lines_with_the_tangent(library):
    generator = generator_of(
        library, alignment=effect("alignment", zero_shift=0.0, distance_scale=0.01)
    )
    scene = draw_scene(generator, 0, 3, seed=2)
    still = draw_scene(generator_of(library), 0, 3, seed=2)
    tangent = np.tan(np.radians(still.sticks.position))
    moved = np.tan(np.radians(scene.sticks.position)) / tangent - 1
    np.testing.assert_allclose(moved, scene.exposure.scale[scene.sticks.sample], atol=1e-9)
    assert np.ptp(scene.exposure.scale) > 1e-3


def test_widths_follow_caglioti_scherrer_and_strain(library):
    calcite = PhaseLibrary((library.phases[1],))
    fixed = {"width": (0.1, 0.1), "v": (0.0, 0.0), "u": (0.0, 0.0), "lorentzian": (0.0, 0.0)}
    sharp = {"size": (1e7, 1e7), "microstrain": (1e-9, 1e-9)}

    def widths(**profile):
        scene = draw_scene(generator_of(calcite, profile=effect("profile", **profile)), 0, 1, 0)
        return scene.sticks.position, scene.sticks.width, scene.sticks.mixing

    position, width, _ = widths(**fixed, **sharp)
    np.testing.assert_allclose(width, 0.1, rtol=1e-3)
    tangent = np.tan(np.radians(position / 2))
    _, width, _ = widths(**{**fixed, "u": (50.0, 50.0), "v": (3.0, 3.0)}, **sharp)
    np.testing.assert_allclose(width**2, 0.01 * (1 + 3 * tangent + 50 * tangent**2), rtol=1e-3)
    _, width, mixing = widths(**{**fixed, "width": (1e-5, 1e-5)}, **{**sharp, "size": (20.0, 20.0)})
    scherrer = np.degrees(0.9 * 0.4959 / (200 * np.cos(np.radians(position / 2))))
    np.testing.assert_allclose(width, scherrer, rtol=2e-3)
    assert mixing.min() > 0.99
    strained = {**sharp, "microstrain": (3e-3, 3e-3)}
    _, width, _ = widths(**{**fixed, "width": (1e-5, 1e-5)}, **strained)
    np.testing.assert_allclose(width, np.degrees(4 * 3e-3 * tangent), rtol=2e-3)


def test_march_dollase_conserves_the_mean_over_all_directions():
    cosine = (np.arange(200_000) + 0.5) / 200_000
    for march in (0.4, 0.8, 1.7):
        mean = march_dollase(cosine[None, :] ** 2, march)
        assert mean[0] == pytest.approx(1, abs=1e-4)
    assert march_dollase(np.array([[1.0]]), 0.5)[0] == pytest.approx(8.0)


def test_textured_lines_take_their_weight_from_the_orbit(library):
    rhenium = library.phases[2]
    lines = phase_lines(rhenium, GRID)
    table = reflections(rhenium, 0.4959, 1.1)
    march = float(np.exp(MARCH_STEPS[23]))
    basal = table.axis_cosines_squared((0, 0, 1))
    expected = march_dollase(basal, march)
    kept = np.searchsorted(-table.d, -lines.d)
    np.testing.assert_allclose(lines.texture[0, 23], expected[kept], rtol=1e-9)
    # 002 lies along the axis, 100 across it.
    hkl = table.hkl[kept].tolist()
    along = next(k for k, h in enumerate(hkl) if h[:2] == [0, 0])
    assert lines.texture[0, 23, along] == pytest.approx(march**-3, rel=1e-9)


# --- grains ------------------------------------------------------------------------------------


def factors(mean, spread, limit=np.inf, saturation=np.inf, rest=0.0, number=200_000):
    full = [np.full(number, float(x)) for x in (mean, spread, limit, saturation, rest)]
    random = counter(3, 0, number).uniform("test", 4)
    return grain_factors(*full, tuple(random[:, k] for k in range(4)))


@pytest.mark.parametrize("spread", [0.3, 1.0])
@pytest.mark.parametrize("mean", [0.5, 5.0, 500.0])
def test_ring_factors_have_the_mean_and_variance_of_a_compound_poisson(mean, spread):
    faint, bright = factors(mean, spread)
    assert not bright.any()
    variance = np.exp(spread**2) / mean
    assert faint.mean() == pytest.approx(1, abs=5 * np.sqrt(variance / 2e5))
    assert faint.var() == pytest.approx(variance, rel=0.1)


def test_splitting_off_bright_grains_changes_no_sum():
    whole, _ = factors(4.0, 0.8)
    faint, bright = factors(4.0, 0.8, limit=1.5)
    total = faint + bright
    assert total.mean() == pytest.approx(1, abs=0.01)
    assert total.var() == pytest.approx(whole.var(), rel=0.05)
    # Without its brightest grains a ring is steadier than in proportion to its mean.
    assert 0.3 < faint.mean() < 0.7
    assert faint.var() / faint.mean() ** 2 < 0.6 * whole.var() / whole.mean() ** 2 + 0.2
    # All grains are masked: nothing is left but the rest.
    faint, bright = factors(4.0, 0.8, limit=1e-9)
    assert faint.max() < 1e-6
    faint, bright = factors(4.0, 0.8, limit=0.5, rest=0.2)
    assert (faint + bright).mean() == pytest.approx(1, abs=0.01)


def test_powder_limit_and_single_spots():
    faint, _ = factors(1e7, 1.0)
    assert np.abs(faint - 1).max() < 0.01
    faint, bright = factors(0.05, 1.0, limit=1e-3)
    none = (faint + bright) == 0
    assert none.mean() == pytest.approx(np.exp(-0.05), abs=2e-3)


def test_saturation_takes_from_the_brightest():
    _, open_end = factors(2.0, 1.0, limit=0.1)
    _, capped = factors(2.0, 1.0, limit=0.1, saturation=0.8)
    assert capped.mean() < 0.8 * open_end.mean()
    assert capped.max() < open_end.max()


def test_few_grains_scatter_lines_and_low_multiplicity_lines_most(library):
    calcite = PhaseLibrary((library.phases[1],))
    few = effect("grains", number=(3e3, 3e3), tolerance=(0.3, 0.3), volume_spread=(0.5, 0.5))
    scene = draw_scene(generator_of(calcite, grains=few), 0, 400, seed=0)
    areas = (scene.sticks.clean + scene.sticks.spots).reshape(400, -1)
    scene = draw_scene(generator_of(calcite), 0, 400, seed=0)
    ideal = scene.sticks.clean.reshape(400, -1)
    ratio = areas / ideal
    lines = phase_lines(library.phases[1], GRID)
    theta = np.arcsin(0.4959 / (2 * lines.d))
    mean = 3e3 * lines.multiplicity * np.radians(0.3) * np.cos(theta) / 2
    np.testing.assert_allclose(ratio.mean(axis=0), 1, atol=0.2)
    expected = np.exp(0.25) / mean
    np.testing.assert_allclose(ratio.var(axis=0), expected, rtol=0.35)


# --- surroundings ------------------------------------------------------------------------------


def test_waves_have_unit_variance_and_their_length():
    recipe = Recipe()
    knots = make_knots(GRID, recipe)
    for length, shapes in zip(recipe.background.lengths, knots.waves, strict=True):
        np.testing.assert_allclose(np.sum(shapes**2, axis=0), 1, rtol=1e-9)
        covariance = shapes.T @ shapes
        apart = np.abs(knots.two_theta[:, None] - knots.two_theta)
        expected = np.exp(-(apart**2) / (2 * length**2))
        assert np.abs(covariance - expected).max() < 0.06


def test_coverage_gaps_and_cuts_are_where_they_were_drawn(everything):
    pairs = draw_pairs(everything, 0, 64, seed=4)
    scene = draw_scene(everything, 0, 64, seed=4)
    blind = scene.scenery.coverage.blind
    checked = 0
    for sample in range(64):
        inside = np.zeros(GRID.size, bool)
        for low, high in blind[sample]:
            inside |= (GRID.two_theta >= low) & (GRID.two_theta <= high)
        if scene.split[sample]:
            checked += inside.any()
            np.testing.assert_array_equal(torch.isnan(pairs.masked[sample]).numpy(), inside)
    assert checked > 10


def test_hot_pixels_are_boxes_of_their_share_of_the_ring(library):
    hot = effect("hot_pixels", number=(1.0, 1.0), counts=(1e5, 1e5))
    empty = effect("composition", presence=0.0)
    pairs = draw_pairs(generator_of(library, hot_pixels=hot, composition=empty), 0, 80, seed=0)
    scene = draw_scene(generator_of(library, hot_pixels=hot, composition=empty), 0, 80, seed=0)
    assert not pairs.masked.any()
    seen = 0
    for sample, pattern in enumerate(pairs.unmasked.numpy()):
        lifted = np.flatnonzero(pattern)
        if (scene.towers.sample == sample).sum() != 1 or not lifted.size:
            continue
        seen += 1
        width, pixel = lifted.size * GRID.step, scene.pixel[sample]
        assert pixel - 0.02 <= width <= 1.41 * pixel + 0.02
        share = pixel / (2 * np.pi * GRID.two_theta[lifted].mean())
        assert pattern[lifted].mean() == pytest.approx(1e5 * share, rel=0.03)
    assert seen > 15


def test_noise_is_that_of_the_pixels_of_a_bin(library):
    """Var = I/n for the n pixels of a bin, or of the bins that share pixels."""
    background = effect(
        "background", line_to_background=(1.0, 1.0), waves=0.0, hump=(0.0, 0.0), air=(0.0, 0.0),
        slope=(0.0, 0.0),
    )  # fmt: skip
    noise = effect("noise", counts=(5.0, 5.0), readout=(0.0, 0.0), ripple=(1e-9, 1e-9))
    for pixel in (0.01, 0.05):
        detector = effect(
            "detector", pixel=(pixel, pixel), unsplit_probability=0.0, coverage=(1.0, 1.0),
            low_cut_probability=0.0, high_cut_probability=0.0, gap_probability=0.0,
        )  # fmt: skip
        generator = generator_of(
            library,
            composition=effect("composition", presence=0.0),
            background=background,
            noise=noise,
            detector=detector,
        )
        scene = draw_scene(generator, 0, 256, seed=0)
        pairs = render(generator, scene)
        relative = pairs.masked.numpy() / 5 - 1
        place = 1000
        covered = scene.scenery.coverage.knots[:, place // KNOT]
        bins = max(round(pixel / GRID.step), 1)
        pixels = 2 * np.pi * GRID.two_theta[place] / pixel * (GRID.step / pixel) * covered * bins
        pull = relative[:, place - 300 : place + 300].std(axis=1) * np.sqrt(5 * pixels)
        assert np.median(pull) == pytest.approx(1, abs=0.05), pixel
        near = np.mean(relative[:, 1:] * relative[:, :-1]) / np.mean(relative**2)
        assert near == pytest.approx(1 - 1 / bins, abs=0.05)


# --- compositions and targets ------------------------------------------------------------------


def test_labels_are_independent_and_every_combination_occurs(everything):
    present = draw_scene(everything, 0, 3000, seed=1).targets.present
    combinations, number = np.unique(present, axis=0, return_counts=True)
    assert len(combinations) == 8
    assert number.min() > 200
    kept = present[present.any(axis=1)]
    odds = [present[present[:, 0] == a, 1].mean() for a in (False, True)]
    # Nulls tie the phases together a little: 8 % of patterns lose all of them.
    assert abs(odds[0] - odds[1]) < 0.08
    assert 0.13 < 1 - len(kept) / len(present) < 0.24


def test_a_prior_of_combinations_is_drawn_when_asked_for(library):
    mapping = {"composition": {"combinations": {"110": 36, "010": 5, "001": 26, "000": 43}}}
    recipe = Recipe.from_mapping(mapping)
    generator = make_generator(library, (), GRID, recipe)
    present = draw_scene(generator, 0, 4000, seed=1).targets.present
    code = present @ [4, 2, 1]
    shares = np.bincount(code, minlength=8) / 4000
    np.testing.assert_allclose(shares[[6, 2, 1, 0]], np.array([36, 5, 26, 43]) / 110, atol=0.03)
    assert shares[[3, 4, 5, 7]].sum() == 0
    wrong = Recipe.from_mapping({"composition": {"combinations": {"11": 1}}})
    with pytest.raises(InputError, match="one digit per phase"):
        draw_scene(make_generator(library, (), GRID, wrong), 0, 4, 0)


def test_weight_fractions_come_from_volumes_and_densities(library):
    """Equal areas of the strongest lines, turned into masses with m|F|²/V² by hand."""
    scene = draw_scene(generator_of(library), 0, 2, seed=0)
    masses = []
    for phase in library.phases:
        table = reflections(phase, 0.4959, 1.1)
        on = (table.two_theta >= 5) & (table.two_theta <= 24)
        strongest = powder_intensity(table, 0.4959)[on].max() / table.volume**2
        masses.append(density(phase) / strongest)
    np.testing.assert_allclose(scene.targets.weight[0], np.array(masses) / sum(masses), rtol=1e-6)


def test_weights_add_up_to_one_without_distractors_only(everything, library):
    total = draw_scene(everything, 0, 300, seed=0).targets.weight.sum(axis=1)
    assert total.max() <= 1 + 1e-9
    assert ((total > 0) & (total < 0.99)).any()
    alone = make_generator(library, (), GRID, Recipe().without("distractors"))
    targets = draw_scene(alone, 0, 300, seed=0).targets
    some = targets.present.any(axis=1)
    np.testing.assert_allclose(targets.weight[some].sum(axis=1), 1)
    assert np.isnan(targets.lattice[~targets.present]).all()
    assert np.isfinite(targets.lattice[targets.present]).all()
    np.testing.assert_array_equal(targets.scattering > 0, targets.present)


# --- whole patterns ----------------------------------------------------------------------------


def test_a_sample_is_the_same_in_any_batch(everything):
    whole = draw_pairs(everything, 0, 40, seed=3).as_tensors()
    part = draw_pairs(everything, 17, 5, seed=3).as_tensors()
    for name, values in part.items():
        np.testing.assert_array_equal(whole[name][17:22].numpy(), values.numpy(), err_msg=name)
    other = draw_pairs(everything, 17, 5, seed=4)
    assert not torch.equal(torch.nan_to_num(other.masked), torch.nan_to_num(part["masked"]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_sample_is_the_same_on_a_gpu(everything):
    here, there = (draw_pairs(everything, 0, 64, 3, device) for device in ("cpu", "cuda"))
    top = torch.nan_to_num(here.unmasked).amax(dim=1, keepdim=True)
    apart = (there.unmasked.cpu() - here.unmasked).abs() / top
    assert (torch.nan_to_num(apart) > 1e-5).float().mean() < 1e-4


def test_the_versions_of_a_pair_differ_by_the_spots(everything):
    pairs = draw_pairs(everything, 0, 100, seed=0)
    shown = torch.isfinite(pairs.masked)
    assert torch.equal(shown, torch.isfinite(pairs.unmasked))
    assert torch.equal(shown, pairs.coverage > 0)
    more = (pairs.unmasked - pairs.masked - pairs.spottiness)[shown]
    assert float(more.min()) >= -1e-6 * float(pairs.unmasked[shown].max())
    assert float(pairs.spottiness[shown].min()) >= 0
    assert ((pairs.presence_masked != 0) == torch.from_numpy(pairs.targets.present)).all()
    # What is seen without spots is seen with them, unless a foreign spot lies on a line.
    more = (pairs.strength_unmasked >= 0.99 * pairs.strength_masked).float().mean()
    assert float(more) > 0.8


@pytest.mark.parametrize(("share", "told"), [(0.0, True), (1.0, False)])
def test_spottiness_lacks_what_a_mask_file_takes(library, share, told):
    recipe = replace(
        Recipe(),
        masking=effect("masking", file_probability=share),
        anvil_spots=effect("anvil_spots", probability=1.0, height=(50.0, 60.0)),
        hot_pixels=effect("hot_pixels", number=(20.0, 30.0), counts=(1e6, 1.1e6)),
    )
    generator = make_generator(library, (), GRID, recipe.without("spikes", "grains"))
    pairs = draw_pairs(generator, 0, 40, seed=1)
    taken = torch.nan_to_num(pairs.unmasked - pairs.masked).sum(dim=1)
    seen = torch.nan_to_num(pairs.spottiness).sum(dim=1)
    assert (taken > 0).all()
    if told:
        torch.testing.assert_close(seen, taken, rtol=1e-3, atol=0)
    else:
        assert not seen.any()
    scene = draw_scene(generator, 0, 40, seed=1)
    assert scene.towers.filed.all() == bool(share)


def test_made_up_crystals_are_all_different_and_none_is_a_phase_of_the_library(library):
    assert made_up_phases(40)[:20] == made_up_phases(20)
    generator = make_generator(library, (), GRID, Recipe())
    table = generator.table
    assert table.listed == table.labelled == 3
    assert 100 < len(table.names) - 3 <= 120
    assert all(name.startswith("made-up-") for name in table.names[3:])
    strongest = np.sort(table.d[table.strongest[3:]])
    assert np.ptp(np.log(strongest)) > 1
    assert len(np.unique(np.round(strongest, 3))) > 0.95 * len(strongest)


def test_a_phase_outside_the_library_has_a_label_of_its_own(library, distractors):
    some = distractors[:4]
    listed = effect("distractors", made_up=30, made_up_share=0.25, crowded=0.0)
    generator = make_generator(library, some, GRID, replace(Recipe(), distractors=listed))
    scene = draw_scene(generator, 0, 3000, seed=0)
    phase = scene.components.phase[scene.components.phase >= 3]
    share = (phase >= generator.table.listed).mean()
    assert share == pytest.approx(0.25, abs=0.03)
    assert scene.foreign.mean() == pytest.approx(1 - 0.65**2, abs=0.03)
    np.testing.assert_array_equal(
        scene.foreign,
        np.isin(np.arange(3000), scene.components.sample[scene.components.phase >= 3]),
    )
    pairs = render(generator, draw_scene(generator, 0, 200, seed=0))
    there = torch.from_numpy(scene.foreign[:200])
    assert ((pairs.foreign_unmasked != 0) == there).all()
    assert set(pairs.foreign_masked[there].tolist()) == {1, -1}
    full = effect("distractors", probability=0.0, crowded=0.3)
    generator = make_generator(library, some, GRID, replace(Recipe(), distractors=full))
    components = draw_scene(generator, 0, 3000, seed=0).components
    number = np.bincount(components.sample[components.phase >= 3], minlength=3000)
    share = [0.7 + 0.3 / 16, *(0.3 * n / 16 for n in (4, 6, 4, 1))]
    np.testing.assert_allclose(np.bincount(number) / 3000, share, atol=0.03)
    # Rings of the gasket belong to a phase of the library: they are not unknown.
    rims = effect("distractors", probability=0.0, crowded=0.0, parasite_probability=1.0)
    generator = make_generator(library, some, GRID, replace(Recipe(), distractors=rims))
    scene = draw_scene(generator, 0, 100, seed=0)
    assert scene.components.parasite.any()
    assert not scene.foreign.any()
    parasite = scene.components.parasite
    assert scene.crystals.grains[parasite].min() >= 1e4
    assert scene.crystals.grains[~parasite].max() <= 3e5
    assert (scene.sticks.owner == -1).any()


def test_a_faint_line_under_a_strong_one_is_not_visible(library):
    """Rhenium's lines stand apart from each other; those of the three phases do not."""
    labels = {overlap: effect("labels", overlap=overlap) for overlap in (0.0, 0.3)}
    noise = effect("noise", counts=(1e3, 1e3), ripple=(1e-9, 1e-9))
    alone, together = (
        {
            overlap: draw_pairs(
                generator_of(phases, labels=chosen, noise=noise), 0, 8, seed=0
            ).strength_masked[:, -1]
            for overlap, chosen in labels.items()
        }
        for phases in (PhaseLibrary(library.phases[2:]), library)
    )
    torch.testing.assert_close(alone[0.0], alone[0.3], rtol=0.02, atol=0)
    assert (together[0.3] < 0.9 * together[0.0]).all()


@pytest.mark.parametrize("name", EFFECTS)
def test_every_effect_can_be_switched_off_and_leaves_the_others_alone(library, distractors, name):
    grid = Grid(5, 24, 0.01, 0.4959)
    some = tuple(distractors[:3])
    full = make_generator(library, some, grid, Recipe())
    less = make_generator(library, some, grid, Recipe().without(name))
    one, two = (draw_pairs(g, 0, 48, seed=2).as_tensors() for g in (full, less))
    assert any(
        not torch.equal(torch.nan_to_num(one[key]), torch.nan_to_num(two[key])) for key in one
    )
    if name not in ("composition",):
        np.testing.assert_array_equal(one["present"], two["present"])
    if name not in ("composition", "distractors"):
        scenes = [draw_scene(g, 0, 48, 2) for g in (full, less)]
        for part in ("sample", "owner"):
            a, b = (getattr(s.sticks, part)[s.sticks.owner >= 0] for s in scenes)
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("effect_name", "key"), [
    (e.name, k.name) for e in fields(Recipe) for k in fields(getattr(Recipe(), e.name))
    if k.name != "on"
])  # fmt: skip
def test_every_range_changes_the_patterns(library, distractors, effect_name, key):
    """A range that nothing reads would be a lie in a recipe file."""
    old = getattr(getattr(Recipe(), effect_name), key)
    new = {
        "combinations": (("111", 1.0),), "parasites": ("calcite",), "mean_phases": 0.6,
        "lengths": (3.0, 7.0, 9.0), "hump_q": (1.4, 2.7), "spacings": (1.9, 1.3), "made_up": 7,
    }.get(key)  # fmt: skip
    if new is None and isinstance(old, tuple):
        new = (0.6 * old[0] + 0.3 * old[1], 0.4 * old[0] + 0.6 * old[1])
        new = (0.01, 0.02) if old == (0.0, 0.0) else (5.0, 7.0) if old[0] == old[1] else new
    elif new is None:
        new = 0.5 * old + 0.3
    changed = replace(getattr(Recipe(), effect_name), **{key: new})
    some = tuple(distractors[:3])
    one, two = (
        draw_pairs(make_generator(library, some, GRID, recipe), 0, 64, seed=2).as_tensors()
        for recipe in (Recipe(), replace(Recipe(), **{effect_name: changed}))
    )
    assert any(
        not torch.equal(torch.nan_to_num(one[name]), torch.nan_to_num(two[name])) for name in one
    )


def test_distractors_that_look_like_a_phase_are_left_out(distractors):
    nickel = load_phase(distractor_phases()["nickel"])
    generator = make_generator(PhaseLibrary((nickel,)), distractors, GRID, Recipe())
    others = set(generator.table.names[1:])
    assert "nickel" not in others
    assert {"gold", "halite", "diamond"} <= others


@pytest.mark.parametrize("count", [1, 20])
def test_libraries_of_one_and_of_twenty_phases(distractors, count):
    generator = make_generator(PhaseLibrary(distractors[:count]), (), GRID, Recipe())
    pairs = draw_pairs(generator, 0, 60, seed=0)
    assert pairs.presence_masked.shape == (60, count)
    assert 0.2 < pairs.targets.present.sum(axis=1).mean() < 2.5


def test_other_grids_and_wavelengths(library):
    for grid in (Grid(0, 60, 0.02, 0.4959), Grid(10, 90, 0.02, 1.5406), Grid(2, 9.13, 0.007, 0.2)):
        generator = make_generator(library, (), grid, Recipe())
        pairs = draw_pairs(generator, 0, 6, seed=0)
        assert pairs.masked.shape == (6, grid.size)
        shown = pairs.coverage > 0
        assert torch.isfinite(pairs.unmasked[shown]).all()
        assert shown.float().mean() > 0.5


def test_a_phase_without_a_line_on_the_grid_is_refused(library):
    with pytest.raises(InputError, match="calcite' has no line"):
        make_generator(library, (), Grid(5, 6, 0.01, 0.4959), Recipe())


def test_recipe_refuses_unknown_names_and_wrong_values():
    with pytest.raises(OptionError, match="Did you mean 'strain'"):
        Recipe.from_mapping({"strian": {}})
    with pytest.raises(OptionError, match="Did you mean 'isotropic'"):
        Recipe.from_mapping({"strain": {"isotropc": 1}})
    with pytest.raises(OptionError, match="must be a table"):
        Recipe.from_mapping({"strain": 0.1})
    with pytest.raises(OptionError, match=r"\[low, high\]"):
        Recipe.from_mapping({"noise": {"counts": [3, 1]}})
    with pytest.raises(OptionError, match="must be a number"):
        Recipe.from_mapping({"strain": {"isotropic": "small"}})
    with pytest.raises(OptionError, match="must be true or false"):
        Recipe.from_mapping({"strain": {"on": 1}})
    with pytest.raises(OptionError, match="whole number from 0"):
        Recipe.from_mapping({"distractors": {"made_up": 1.5}})
    assert Recipe.from_mapping({"distractors": {"made_up": 3}}).distractors.made_up == 3
    with pytest.raises(OptionError, match="list of phase names"):
        Recipe.from_mapping({"distractors": {"parasites": "rhenium"}})
    for wrong in ({"12": 1}, {"1": -1}, {"1": 0}, {"1": 1, "00": 1}, [1]):
        with pytest.raises(OptionError, match="table of weights"):
            Recipe.from_mapping({"composition": {"combinations": wrong}})
    with pytest.raises(OptionError, match="no effect 'grain'"):
        Recipe().without("grain")
    recipe = Recipe.from_mapping({"noise": {"counts": [0.1, 1]}, "texture": {"on": False}})
    assert recipe.noise.counts == (0.1, 1.0)
    assert recipe == replace(recipe.without("texture"))


# --- the stream --------------------------------------------------------------------------------


def test_the_dataset_is_the_same_for_any_number_of_workers(library):
    stream = Stream(library, (), GRID, Recipe(), seed=9)
    alone = list(torch.utils.data.DataLoader(PatternStream(stream, 8, 2, 6), batch_size=None))
    beside = list(
        torch.utils.data.DataLoader(
            PatternStream(stream, 8, 2, 6), batch_size=None, num_workers=2,
            multiprocessing_context="spawn",
        )
    )  # fmt: skip
    assert len(alone) == len(beside) == 4
    for one, two in zip(alone, beside, strict=True):
        assert one.keys() == two.keys()
        for name in one:
            np.testing.assert_array_equal(one[name].numpy(), two[name].numpy(), err_msg=name)
    larger = next(iter(PatternStream(stream, 16, 1)))
    np.testing.assert_array_equal(larger["masked"][:8].numpy(), alone[0]["masked"].numpy())
    assert {"present", "scattering", "weight", "lattice", "size"} <= set(larger)


# --- the sets of two papers --------------------------------------------------------------------


def test_the_s_set_has_its_range_its_counts_and_no_background(library):
    patterns, labels, grid = paper_s_set(library, 0.4959, seed=0, mixtures=50)
    assert patterns.shape == (1106, 5701)
    assert (grid.start, grid.stop) == (3.0, 60.0)
    single = labels[:1056]
    assert single.sum(axis=0).tolist() == [384, 385, 287]
    assert (single.sum(axis=1) == 1).all()
    assert set(labels[1056:].sum(axis=1).tolist()) == {2, 3}
    assert patterns.min() >= 0
    assert np.median(patterns[:1056].min(axis=1) / patterns[:1056].max(axis=1)) < 1e-3
    again, _, _ = paper_s_set(library, 0.4959, seed=0, mixtures=50)
    np.testing.assert_array_equal(patterns, again)
    # Positions, intensities and widths vary within a phase.
    calcite = patterns[384:769]
    assert len(np.unique(calcite.argmax(axis=1))) > 20


def test_imperfections_of_the_synthetic_crystals(library, distractors):
    grid = Grid(5, 90, 0.01, 1.5406)
    generator = make_generator(library, distractors[:5], grid, Recipe())
    pairs = draw_imperfect(generator, 0, 40, seed=0)
    assert torch.equal(pairs.masked, pairs.unmasked)
    assert (pairs.presence_masked.sum(dim=1) == 1).all()
    assert not torch.equal(pairs.masked, draw_imperfect(generator, 40, 40, seed=0).masked)
    np.testing.assert_array_equal(
        pairs.masked[7:9].numpy(), draw_imperfect(generator, 7, 2, seed=0).masked.numpy()
    )
    # Additive noise up to 0.02 and multiplicative up to 0.16 of a maximum of 1 above background.
    steps = (pairs.masked[:, 1:] - pairs.masked[:, :-1]).abs().median(dim=1).values / 0.954
    assert float(steps.max()) < 0.03
    assert float(steps.max()) > 0.008


def test_the_background_of_the_protocol_has_its_length_scale_and_sum(library):
    from xrdpipe.nn.literature_sets import _gaussian_process

    grid = Grid(5, 90, 0.01, 1.5406)
    number = 600
    random = counter(1, 0, number)
    for length in (7.0, 20.0):
        share = np.full(number, (length - 7) / 33)
        curve = _gaussian_process(grid, share, np.full(number, 0.5), random)
        np.testing.assert_allclose(curve.min(axis=1), 0, atol=1e-12)
        # E[(f(x) − f(x + d))²] = 2a (1 − exp(−d²/2l²)), at d = l/2 and d = l.
        steps = [round(length * part / grid.step) for part in (0.5, 1.0)]
        half, whole = (np.mean((curve[:, step:] - curve[:, :-step]) ** 2) for step in steps)
        assert half / whole == pytest.approx((1 - np.exp(-1 / 8)) / (1 - np.exp(-1 / 2)), rel=0.1)
    sums = _gaussian_process(grid, np.full(number, 0.5), random.uniform("s", 1)[:, 0], random)
    total = sums.sum(axis=1)
    assert total.max() < 150
    assert total.mean() == pytest.approx(stats.truncnorm(0, 2, scale=75).mean(), rel=0.1)


def test_the_doublet_of_a_tube_is_drawn(library):
    calcite = PhaseLibrary((library.phases[1],))
    tube = make_generator(calcite, (), Grid(80, 110, 0.01, 1.5406), Recipe())
    pattern = draw_imperfect(tube, 0, 60, seed=1).masked.numpy()
    smooth = np.median(pattern, axis=0)
    assert np.isfinite(smooth).all()
    table = reflections(library.phases[1], 1.5406, 0.9)
    strong = table.two_theta[np.nanargmax(np.where(table.two_theta > 80, 1, np.nan))]
    second = np.degrees(2 * np.arcsin(1.544427 / 1.540593 * np.sin(np.radians(strong / 2))))
    assert 0.1 < second - strong < 1
