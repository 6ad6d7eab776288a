"""The neighbour prior: what it must find, what it must leave alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.special import expit, logit

from xrdpipe.neighbours import LIMIT, estimate, surroundings, with_neighbours


def evidence(truth, random, power=1.5):
    """Probabilities of a perfectly calibrated model: log-odds normal, N(±s²/2, s²)."""
    return expit(random.normal((truth - 0.5) * power**2, power))


def blobs(random, shape=(40, 40), width=3.0, part=0.5):
    field = gaussian_filter(random.standard_normal(shape), width, mode="wrap")
    return field > np.quantile(field, 1 - part)


def test_the_neighbourhood_of_one_pixel():
    """By hand: one sure pixel in 5x5 undecided ones, whose mean is 1/25."""
    odds = np.zeros((5, 5))
    odds[2, 2] = 80.0
    around = surroundings(odds, np.ones((5, 5), bool))
    shown, mean = 24 / 25, -1 / 25
    assert around[2, 1] == pytest.approx((shown + 3 * mean + 4 * mean / 2) / 6)
    assert around[1, 1] == pytest.approx((4 * mean + shown / 2 + 3 * mean / 2) / 6)
    assert around[2, 2] == pytest.approx(mean)
    # Beyond the border there is the mean: two edges and a corner are left.
    assert around[0, 0] == pytest.approx((2 * mean + mean / 2) / 6)


@pytest.mark.parametrize(("common", "strength"), [(0.0, 2.0), (-1.5, 1.0), (1.0, 2.5)])
def test_a_known_strength_comes_back(common, strength):
    """Truth drawn from the model itself; the standard error is about 0.07."""
    random = np.random.default_rng(5)
    around = random.uniform(-1, 1, 20_000)
    truth = random.random(around.size) < expit(common + strength * around)
    found = estimate(logit(evidence(truth, random)), around)
    assert found.strength == pytest.approx(strength, abs=0.25)
    assert found.gain > 100


@pytest.mark.parametrize("part", [0.0, 0.05, 0.5, 1.0])
def test_a_map_without_structure_stays_as_it_is(part):
    """Bit by bit, also where a phase is everywhere, nowhere or rare."""
    random = np.random.default_rng(8)
    truth = random.random((20, 60, 60)) < part
    alone = evidence(truth, random).astype(np.float32)
    coupled, couplings = with_neighbours(alone)
    assert [c.strength for c in couplings] == [0.0] * 20
    assert np.array_equal(coupled, alone)


@pytest.mark.parametrize("part", [0.2, 0.5, 0.8])
def test_a_map_with_structure_gets_better_and_stays_calibrated(part):
    random = np.random.default_rng(3)
    truth = np.stack([blobs(random, part=part) for _ in range(4)])
    alone = evidence(truth, random)
    coupled, couplings = with_neighbours(alone)
    assert all(c.strength > 1 for c in couplings)
    right = ((coupled > 0.5) == truth).mean()
    assert right > ((alone > 0.5) == truth).mean() + 0.05
    cross_entropy = [-np.log(np.where(truth, p, 1 - p)).mean() for p in (alone, coupled)]
    assert cross_entropy[1] < 0.85 * cross_entropy[0]


def test_what_a_pixel_is_sure_of_stands_alone():
    """A spot of one pixel in a map of two halves, against all of its neighbours."""
    alone = np.full((1, 30, 30), 0.02)
    alone[:, 15:] = 0.98
    weak, strong = alone.copy(), alone.copy()
    weak[0, 5, 5], strong[0, 5, 5] = 0.7, expit(LIMIT) + 0.002
    coupled, couplings = with_neighbours(weak)
    assert couplings[0].strength == LIMIT
    assert coupled[0, 5, 5] < 0.5
    assert with_neighbours(strong)[0][0, 5, 5] > 0.5


def test_lost_pixels_neither_give_nor_get():
    random = np.random.default_rng(1)
    alone = evidence(blobs(random), random)[None]
    lost = random.random(alone.shape) < 0.3
    alone[lost] = np.nan
    coupled, _ = with_neighbours(alone)
    assert np.array_equal(np.isnan(coupled), lost)
    known = ~lost[0]
    odds = logit(np.where(known, alone[0], 0.5))
    around = surroundings(odds, known)
    odds[~known] = 7.0
    assert np.array_equal(surroundings(odds, known), around)
    nothing, couplings = with_neighbours(np.full((2, 3, 4), np.nan))
    assert np.isnan(nothing).all()
    assert [c.strength for c in couplings] == [0.0, 0.0]


def test_phases_and_directions_are_alike():
    random = np.random.default_rng(2)
    truth = np.stack([blobs(random, (30, 20)) for _ in range(3)])
    alone = evidence(truth, random)
    coupled, couplings = with_neighbours(alone)
    again, _ = with_neighbours(alone)
    assert again.tobytes() == coupled.tobytes()
    permuted, strengths = with_neighbours(alone[[2, 0, 1]])
    assert np.array_equal(permuted, coupled[[2, 0, 1]])
    assert strengths == tuple(couplings[k] for k in (2, 0, 1))
    for turn in (lambda a: a[:, ::-1], lambda a: a.swapaxes(1, 2)):
        assert np.allclose(with_neighbours(turn(alone))[0], turn(coupled), atol=2e-3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 400), (400, 1)])
def test_lines_and_single_pixels(shape):
    """A line scan has two neighbours a pixel, a single pixel none."""
    random = np.random.default_rng(4)
    truth = np.arange(max(shape)).reshape(shape) // 20 % 2 == 0
    alone = evidence(truth, random)[None]
    coupled, couplings = with_neighbours(alone)
    if truth.size < 3:
        assert np.array_equal(coupled, alone.astype(np.float32))
    else:
        assert couplings[0].strength > 1
        assert ((coupled > 0.5) == truth).mean() > ((alone > 0.5) == truth).mean() + 0.02
