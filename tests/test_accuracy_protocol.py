"""The accuracy protocol: its promises, its maps on a small scale, and its scores."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from xrdpipe import metrics
from xrdpipe.errors import InputError
from xrdpipe.nn.inference import load_model
from xrdpipe.nn.model_folder import find_model
from xrdpipe.phases import distractor_phases, shipped_phases
from xrdpipe.simulation.frame import expected_counts
from xrdpipe.store.map_record import read_map_record
from xrdpipe.store.truth import read_truth

ROOT = Path(__file__).parents[1]


def part(name: str):
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return importlib.import_module(f"benchmarks.accuracy.{name}")


protocol, samples, visibility, maps, scores, evaluate, report = (
    part(name)
    for name in ("protocol", "samples", "visibility", "maps", "scores", "evaluate", "report")
)

TINY = """
[set.independent]
labels = "independent"
maps = 2
shape = [3, 4]
seed = 960001
wavelength = 0.4959
detectors = [["Pilatus100k", 0.05]]

[set.co-occurrence]
labels = "co-occurrence"
maps = 1
shape = [3, 4]
seed = 970001
wavelength = 0.4959
detectors = [["Pilatus100k", 0.05]]

[set.co-occurrence-60]
same = "co-occurrence"
wavelength = 0.60

[set.unknown]
labels = "independent"
distractors = "unknown"
maps = 1
shape = [3, 4]
seed = 980001
wavelength = 0.4959
detectors = [["Pilatus100k", 0.05]]
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The difficulty of the committed protocol on a few small maps."""
    text = protocol.PROTOCOL.read_text()
    text = text[: text.index("[set.independent]")] + TINY
    text = text.replace("pixels = 5000\nmaps = 20", "pixels = 36\nmaps = 3")
    # Few spots of the anvils fall on the small detector.
    text = text.replace("saturated = 0.30", "saturated = 0.05")
    path = tmp_path_factory.mktemp("protocol") / "tiny.toml"
    path.write_text(text)
    return path


# The committed file.


def test_protocol_is_as_promised():
    full = protocol.load_protocol()
    main = [plan for plan in full.maps if plan.set in protocol.MAIN]
    assert len(main) >= 20
    assert sum(plan.shape[0] * plan.shape[1] for plan in main) >= 5000
    assert {plan.wavelength for plan in main} == {0.4959}
    halves = [len(full.of_set(name)) for name in protocol.MAIN]
    assert halves[0] == halves[1]
    assert {full.of_set(name)[0].labels for name in protocol.MAIN} == set(protocol.MAIN)
    difficulty, required = full.tables["difficulty"], full.tables["require"]
    assert difficulty["fraction"] == [0.03, 1.0]
    assert difficulty["grains"] == [1e2, 1e5]
    assert difficulty["peak_signal_to_noise"] == [2.0, 200.0]
    assert difficulty["strain"] + difficulty["axial_strain"] == pytest.approx(0.01)
    assert required["few_grains"] == required["saturated"] == required["distractor"] == 0.3
    assert required["fluid"] == 0.5
    assert full.tables["co-occurrence"] == {"110": 36, "010": 5, "001": 26, "000": 43}
    others = {plan.wavelength for plan in full.maps if plan.sample_of is not None}
    assert others == {0.40, 0.60}
    assert len({plan.detector for plan in full.maps}) >= 5
    assert {"nothing", "unknown", "detectors"} <= set(full.sets)


def test_no_condition_goes_with_a_detector_in_the_main_sets():
    plans = protocol.load_protocol().of_set("independent")
    for detector in {(plan.detector, plan.distance) for plan in plans}:
        here = [plan for plan in plans if (plan.detector, plan.distance) == detector]
        assert sum(plan.anvils for plan in here) >= 2
        assert sum(plan.blind is not None for plan in here) == 1
    ends = [plan.blind for plan in plans if plan.blind]
    assert min(low for low, _ in ends) == 5
    assert max(high for _, high in ends) == 24


def test_unknown_phases_are_in_no_training():
    full = protocol.load_protocol()
    trained = set(distractor_phases()) | set(shipped_phases())
    unknown = set(full.tables["phases"]["unknown"])
    assert not unknown & trained
    assert {path.stem for path in samples.UNKNOWN.glob("*.cif")} == unknown
    assert set(full.tables["phases"]["distractors"]) <= trained


def test_seeds_belong_to_the_protocol():
    full = protocol.load_protocol()
    seeds = [plan.seed for plan in full.maps if plan.sample_of is None]
    assert len(seeds) == len(set(seeds))
    assert 910_001 <= min(seeds) <= max(seeds) <= 990_999
    # Neither the demonstration nor any recipe or pipeline uses one of them.
    for path in sorted((ROOT / "pipelines").glob("*.toml")):
        assert not any(str(seed) in path.read_text() for seed in seeds)


def test_another_wavelength_keeps_the_sample_and_the_range():
    full = protocol.load_protocol()
    by_name = {plan.name: plan for plan in full.maps}
    copies = [plan for plan in full.maps if plan.sample_of]
    assert len(copies) == 48
    for copy in copies:
        first = by_name[copy.sample_of]
        assert (copy.seed, copy.blind, copy.anvils) == (first.seed, first.blind, first.anvils)
        edge = math.radians(protocol.at_wavelength(24.0, 0.4959, copy.wavelength))
        assert copy.distance * math.tan(edge) == pytest.approx(
            first.distance * math.tan(math.radians(24.0))
        )
    # 2 d sin θ = λ at both wavelengths
    spacing = 0.4959 / 2 / math.sin(math.radians(5))
    assert 2 * spacing * math.sin(
        math.radians(protocol.at_wavelength(10, 0.4959, 0.6) / 2)
    ) == pytest.approx(0.6)


def test_broken_protocols_are_refused(tiny, tmp_path):
    text = tiny.read_text()
    broken = tmp_path / "broken.toml"
    broken.write_text(text.replace("seed = 970001", "seed = 960002"))
    with pytest.raises(InputError, match="share a seed"):
        protocol.load_protocol(broken)
    broken.write_text(text.replace('same = "co-occurrence"', 'same = "later"'))
    with pytest.raises(InputError, match="repeats the samples of 'later', which is not above it"):
        protocol.load_protocol(broken)


# Maps.


@pytest.fixture(scope="module")
def drawn(tiny):
    small = protocol.load_protocol(tiny)
    return small, [samples.draw_protocol_sample(small, plan) for plan in small.maps]


def test_values_are_even_by_rank(drawn):
    where = np.zeros((20, 20), bool)
    where[:, :10] = True
    values = samples._log_uniform(where, np.random.default_rng(0), (1e2, 1e5))
    assert (values[~where] == 0).all()
    decades = np.histogram(np.log10(values[where]), bins=[2, 3, 4, 5])[0]
    assert np.abs(decades - 200 / 3).max() < 1


def test_sample_is_what_the_protocol_says(drawn):
    small, entries = drawn
    for plan, entry in zip(small.maps, entries, strict=True):
        sample = entry.experiment.sample
        present = sample.presence
        assert sample.labelled == 3
        assert ((sample.grains >= 1e2) & (sample.grains <= 1e5))[present].all()
        assert np.array_equal(entry.fraction > 0, present[:3])
        height = (sample.peak_counts * sample.monitor)[:3][present[:3]]
        expected = (entry.fraction * entry.exposure)[present[:3]]
        assert height == pytest.approx(expected, rel=0.03)  # the monitor drifts by a per cent
        cells = np.array([table.cell[0] for table in sample.tables])[:, None, None]
        assert np.abs(sample.lattice[..., 0] / cells - 1).max() <= 0.0100001
        assert np.abs(entry.strain).max() > 0.007
        if plan.sample_of is None:
            snr = entry.peak_signal_to_noise
            assert snr.min() > 1.99
            assert snr.max() < 200.1
            # Reached wherever the exposure has not come to its end
            free = entry.exposure < 999
            quarter = np.sort(snr.ravel())[: snr.size // 4]
            assert free.any()
            assert quarter.max() < 9
        rhenium = sample.parasitic[2] > 0
        assert not (rhenium & present[2]).any()
        assert (entry.foreign >= 0).mean() == pytest.approx(0.4, abs=0.05)


def test_labels(drawn):
    small, entries = drawn
    combinations = set()
    for plan, entry in zip(small.maps, entries, strict=True):
        held = entry.experiment.sample.presence[:3].reshape(3, -1)
        if plan.labels == "co-occurrence":
            combinations |= {tuple(column) for column in held.T.astype(int)}
    assert combinations <= {(1, 1, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)}
    assert len(combinations) >= 3
    plan = dataclasses.replace(protocol.load_protocol().of_set("co-occurrence")[0], shape=(110, 10))
    held = samples._labels(small, plan, np.random.default_rng(1)).reshape(3, -1)
    count = np.bincount([4, 2, 1] @ held.astype(int), minlength=8)
    assert count.tolist() == [430, 260, 50, 0, 0, 0, 360, 0]
    none = dataclasses.replace(plan, labels="none")
    assert not samples._labels(small, none, np.random.default_rng(1)).any()


def test_signal_to_noise_of_a_frame(drawn):
    """Many grains: the noise-free frame gives the powder average; no texture, no diamonds."""
    small, entries = drawn
    entry = entries[0]
    setup, sample = entry.experiment.setup, entry.experiment.sample
    fine = dataclasses.replace(
        sample,
        grains=np.full_like(sample.grains, np.inf),
        march=np.ones_like(sample.march),
    )
    held = sample.presence[:3].any(axis=0)
    row, column = (int(n[0]) for n in np.nonzero(held))
    index = int(sample.frame[row, column])
    seed = small.maps[0].seed
    found, _ = visibility.seen_in_frame(setup, fine, entry.rings, index, seed)
    assert np.array_equal(found > 0, sample.presence[:, row, column])
    assert found[:3].max() == pytest.approx(entry.peak_signal_to_noise[row, column], rel=0.05)
    # Four times the photons: twice the signal to noise
    longer = dataclasses.replace(fine, monitor=4 * fine.monitor)
    again, _ = visibility.seen_in_frame(setup, longer, entry.rings, index, seed)
    assert again == pytest.approx(2 * found, rel=1e-3)


def test_frame_by_phases_is_the_frame(drawn):
    """Rendered one by one, the phases have the grains that they have in the frame."""
    small, entries = drawn
    number = next(i for i, plan in enumerate(small.maps) if plan.anvils)
    entry, seed = entries[number], small.maps[number].seed
    setup, sample = entry.experiment.setup, entry.experiment.sample
    held = sample.presence[:3].sum(axis=0)
    row, column = np.unravel_index(int(np.argmax(held)), held.shape)
    index = int(sample.frame[row, column])
    counts = expected_counts(setup, sample, index, seed)
    level = float(np.quantile(counts[~setup.bad.pixels], 0.999))
    lower = dataclasses.replace(setup, saturation=level)
    _, saturated = visibility.seen_in_frame(lower, sample, entry.rings, index, seed)
    full = int(((counts >= level) & ~setup.bad.pixels).sum())
    assert full > 20
    assert abs(saturated - full) <= 1


def test_easier_maps_are_refused():
    full = protocol.load_protocol()
    good = {
        "maps": 24, "pixels": 5400, "few_grains": 0.33, "fluid": 0.6, "saturated": 0.58,
        "distractor": 0.4, "fraction": [0.03, 0.072, 0.173, 0.416, 1.0],
        "grains": [1e2, 562.3, 3162, 17783, 1e5],
        "peak_signal_to_noise": [2.0, 6.3, 20.0, 63.2, 200.0],
    }  # fmt: skip
    protocol.check_shares(full, good)
    with pytest.raises(InputError, match=r"few_grains 0.2 \(at least 0.3\)"):
        protocol.check_shares(full, good | {"few_grains": 0.2})
    with pytest.raises(InputError, match="fraction is not log-uniform"):
        protocol.check_shares(full, good | {"fraction": [0.03, 0.3, 0.5, 0.75, 1.0]})
    with pytest.raises(InputError, match="grains 100 to 1e\\+07"):
        protocol.check_shares(full, good | {"grains": [1e2, 562.3, 3162, 17783, 1e7]})


MADE = ("independent", "co-occurrence", "co-occurrence-60")


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    work = tmp_path_factory.mktemp("maps")
    lines: list[str] = []
    cache = maps.Cache(work, protocol.load_protocol(tiny))
    shares = maps.make_maps(cache, MADE, 1, lines.append)
    return cache, shares, lines


def test_maps_are_made_checked_and_kept(made):
    cache, shares, lines = made
    assert shares["pixels"] == 36
    assert shares["few_grains"] >= 0.3
    assert any("protocol fulfilled" in line for line in lines)
    assert sum("frames/s" in line for line in lines) == 4
    for plan in (plan for plan in cache.protocol.maps if plan.set in MADE):
        assert sorted(path.name for path in cache.of(plan).iterdir()) == [
            "patterns.h5", "plan.json", "truth.h5",
        ]  # fmt: skip
        with h5py.File(cache.patterns(plan)) as file:
            entry = file["entry"]
            assert entry["azint1d_masked/data/I"].shape[0] == 12
            assert "spottiness" in entry["data"]
        truth = read_truth(cache.of(plan) / "truth.h5")
        assert np.array_equal(truth.extra["signal_to_noise"] > 0, truth.presence)
    again: list[str] = []
    maps.make_maps(cache, MADE, 1, again.append)
    assert not any("frames/s" in line for line in again)


def test_copies_at_another_wavelength_hold_the_same_sample(made):
    cache, _, _ = made
    for plan in cache.protocol.of_set("co-occurrence-60"):
        copy = cache.truth(plan)
        first = cache.truth(next(p for p in cache.protocol.maps if p.name == plan.sample_of))
        for name in ("fraction", "grains", "strain", "exposure", "foreign"):
            np.testing.assert_array_equal(copy.extra[name], first.extra[name])
        np.testing.assert_array_equal(copy.presence, first.presence)
        ratio = copy.extra["signal_to_noise"] / np.where(
            first.presence, first.extra["signal_to_noise"], 1
        )
        assert 0.4 < np.median(ratio[first.presence]) < 2.5


def test_cache_of_another_protocol_is_refused(made, tiny):
    cache, _, _ = made
    other = dataclasses.replace(cache.protocol, sha256="0" * 64)
    with pytest.raises(InputError, match="a map of another protocol"):
        maps.Cache(cache.folder, other).of(cache.protocol.maps[0])


# Scores.


def test_scores_agree_with_those_of_one_map():
    random = np.random.default_rng(5)
    truth = random.random((6, 40)) < 0.4
    probability = np.clip(truth * 0.4 + random.random((6, 40)) * 0.6, 0, 1).round(2)
    decision = (probability > 0.5).astype(np.int8)
    use = np.ones_like(truth)
    weights = scores.map_weights(6, 50)
    rows = scores.decision_scores(truth, decision, use, weights)
    known = metrics.score_phase("calcite", truth, probability, decision)
    for name in ("accuracy", "balanced_accuracy", "mcc", "f1", "prevalence"):
        assert rows[name][0] == pytest.approx(getattr(known, name))
    assert rows["constant"][0] == pytest.approx(known.constant_accuracy)
    area = scores.auroc_rows(truth, probability, use, weights)
    assert area[0] == pytest.approx(known.auroc)
    calibration = scores.calibration_rows(truth, probability, use, weights)
    assert calibration["ece"][0] == pytest.approx(known.ece)
    assert calibration["brier"][0] == pytest.approx(known.brier)
    # A resample is the score of the maps that were drawn, as often as they were.
    drawn = np.repeat(np.arange(6), weights[7].astype(int))
    again = metrics.score_phase("calcite", truth[drawn], probability[drawn], decision[drawn])
    assert area[7] == pytest.approx(again.auroc)
    assert rows["mcc"][7] == pytest.approx(again.mcc)
    assert calibration["brier"][7] == pytest.approx(again.brier)
    match = scores.exact_match_rows(truth[:, None], decision[:, None], use[:, None], weights)
    np.testing.assert_allclose(match, rows["accuracy"])


def test_undetermined_pixels_are_wrong_answers():
    truth = np.array([[True, True, False, False]])
    decision = np.array([[1, -1, 0, -1]], np.int8)
    weights = scores.map_weights(1, 3)
    rows = scores.decision_scores(truth, decision, np.ones_like(truth), weights)
    assert rows["accuracy"][0] == 0.5
    assert rows["recall"][0] == 0.5
    assert rows["undetermined"][0] == 0.5
    assert rows["false_presence"][0] == 0


def test_calibration_after_a_shift_of_the_prior():
    random = np.random.default_rng(6)
    probability = random.random((1, 200_000))
    truth = random.random(probability.shape) < probability
    use = np.ones_like(truth)
    weights = scores.map_weights(1, 1)
    for prior in (0.5, 0.1, 0.02):
        found = scores.calibration_rows(truth, probability, use, weights, prior)["ece"][0]
        assert found < 0.01
    # Probabilities that ignore the new prevalence are far off.
    odd = scores.calibration_rows(truth, np.sqrt(probability), use, weights, 0.1)["ece"][0]
    assert odd > 0.03


def test_intervals_are_of_maps_not_pixels():
    """Whole maps right or wrong: as many independent answers as there are maps."""
    right = np.array([1] * 16 + [0] * 4, bool)
    truth = np.ones((20, 400), bool)
    decision = np.repeat(right[:, None], 400, axis=1).astype(np.int8)
    weights = scores.map_weights(20, 4000)
    found = scores.interval(
        scores.decision_scores(truth, decision, np.ones_like(truth), weights)["accuracy"]
    )
    assert found["value"] == 0.8
    # Binomial of 20 maps: standard error √(0.8·0.2/20)
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * 0.0894, abs=0.06)
    assert scores.interval(np.full(5, np.nan)) == {"value": None, "low": None, "high": None}


def test_paired_differences_are_narrower_than_the_methods(made):
    cache, _, _ = made
    known = {"independent": evaluate.known_truth(cache, cache.protocol.of_set("independent"))}
    truth = known["independent"].presence
    wrong = np.zeros_like(truth)
    wrong[0, :, :6] = True  # both methods fail on half of the first map
    one_more = wrong.copy()
    one_more[:, :, 11] ^= True

    def said(errors):
        decision = (truth ^ errors).astype(np.int8)
        return [evaluate.Answers(decision.astype(float), decision, None)]

    answers = {
        "ours": {v: {"independent": said(wrong)} for v in evaluate.VARIANTS},
        "other": {v: {"independent": said(one_more)} for v in evaluate.VARIANTS},
    }
    weights = {"independent": scores.map_weights(2, 200)}
    found = evaluate._paired(known, answers, weights)
    gap = found["other"]["masked"]["independent"]["everything"]
    assert gap["value"] == pytest.approx(1 / 12)
    assert gap["low"] == pytest.approx(1 / 12)
    assert gap["high"] == pytest.approx(1 / 12)


def test_perfect_answers_score_perfectly(made):
    cache, _, _ = made
    plans = cache.protocol.of_set("independent")
    group = evaluate.known_truth(cache, plans)
    truth = group.presence
    perfect = [evaluate.Answers(truth.astype(float), truth.astype(np.int8), None)] * 2
    weights = scores.map_weights(len(plans), 20)
    found = evaluate._scores(group, perfect, weights, "everything")
    assert found["mean"]["accuracy"]["value"] == 1
    assert found["exact_match"]["value"] == 1
    assert found["accuracy_of_each_seed"] == [1, 1]
    for row in evaluate._detection(group, perfect, weights)["fraction"]["calcite"]:
        assert row["pixels"] == 0 or row["value"] == 1
    assert evaluate._risk_coverage(group, perfect)["risk"][-1] == 0
    alone = evaluate._alone_against_nothing(group, perfect, weights)["calcite"]["everything"]
    number = truth.sum(axis=1)
    assert alone["positives"] == int((truth[:, 1] & (number == 1)).sum())
    # The goals take fewer positives, and every negative.
    assert (group.goals | truth).all()
    assert (group.goals & truth).sum() < truth.sum()


def group_of(presence, **extra):
    shape = presence.shape
    values = {
        "foreign": np.full((shape[0], shape[2]), -1),
        "foreign_fraction": np.zeros((shape[0], shape[2])),
        "foreign_signal_to_noise": np.zeros((shape[0], shape[2])),
    }
    return evaluate.Known(("a", "b"), presence, np.ones_like(presence), values | extra)


def test_loss_at_another_wavelength_counts_what_is_seen_at_both():
    presence = np.random.default_rng(8).random((5, 2, 50)) < 0.5
    here, there = group_of(presence), group_of(presence)
    # One pixel in ten is wrong there; half of these have no line above the noise there.
    wrong = np.zeros_like(presence)
    wrong[:, 0, ::10] = True
    there.goals[:, 0, ::20] = False
    answers = {
        "main": [evaluate.Answers(presence.astype(float), presence.astype(np.int8), None)],
        "main-60": [
            evaluate.Answers(
                (presence ^ wrong).astype(float), (presence ^ wrong).astype(np.int8), None
            )
        ],
    }
    found = evaluate._wavelength_loss(
        {"main": here, "main-60": there}, answers, scores.map_weights(5, 50), "main-60"
    )
    counted = wrong[:, 0] & there.goals[:, 0]
    lost = counted.sum() / there.goals[:, 0].sum()
    assert found["loss_of_phases"]["a"]["value"] == pytest.approx(lost)
    assert found["loss_of_phases"]["b"]["value"] == 0
    assert found["loss"]["value"] == pytest.approx(lost / 2)
    assert found["accuracy"]["value"] == pytest.approx(1 - lost / 2)


def test_accuracy_by_what_is_missing():
    presence = np.zeros((3, 2, 10), bool)
    presence[:, 0, :4] = True
    decision = presence.astype(np.int8)
    decision[1, 0, :4] = 0  # the map that lacks a range misses the first phase
    said = [evaluate.Answers(decision.astype(float), decision, None)]
    plans = [SimpleNamespace(blind=blind) for blind in (None, (5.0, 8.0), None)]
    complete, blind = evaluate._by_coverage(group_of(presence), said, plans)
    assert (complete["blind"], complete["maps"]) == (None, 2)
    assert complete["accuracy"] == {"a": 1, "b": 1}
    assert (blind["blind"], blind["maps"]) == ((5.0, 8.0), 1)
    assert blind["accuracy"] == {"a": pytest.approx(0.6), "b": 1}
    assert blind["constant"] == pytest.approx(0.8)
    cells = report._coverage({"coverage": {"ours": {"masked": [complete, blind]}}}).splitlines()
    assert cells[0] == "| method, variant | complete (2 maps) | without 5.0-8.0° (1 maps) |"
    assert cells[-1] == "| ours, masked | 100.0 | 80.0 |"


def test_unknown_phase_is_told_by_its_score():
    random = np.random.default_rng(9)
    foreign = np.where(random.random((4, 60)) < 0.5, 0, -1)
    weak = (foreign >= 0) & (random.random(foreign.shape) < 0.3)
    group = group_of(
        np.zeros((4, 2, 60), bool),
        foreign=foreign,
        foreign_fraction=np.where(foreign >= 0, 0.5, 0.0),
        foreign_signal_to_noise=np.where(weak, 1.0, 20.0),
    )
    decision = np.zeros((4, 2, 60), np.int8)
    decision[:, 1] = (foreign >= 0) & ~weak  # taken for the second phase where it is clear
    score = np.where((foreign >= 0) & ~weak, 0.9, 0.1)
    said = [evaluate.Answers(decision.astype(float), decision, score)]
    weights = scores.map_weights(4, 30)
    found = evaluate._unknown(group, said, weights)
    assert found["auroc"]["goals"]["value"] == 1
    assert found["auroc"]["everything"]["value"] == pytest.approx(
        1 - weak.sum() / (foreign >= 0).sum() / 2
    )
    assert found["false_presence"]["a"]["with"]["value"] == 0
    assert found["false_presence"]["b"]["with"]["value"] == 1
    assert found["false_presence"]["b"]["without"]["value"] == 0
    assert found["flagged"] is None
    flagged = [dataclasses.replace(said[0], flagged=(score > 0.5) | (foreign < 0))]
    found = evaluate._unknown(group, flagged, weights)
    assert found["flagged"]["with"]["value"] == 1
    assert found["flagged"]["without"]["value"] == 1
    silent = [dataclasses.replace(said[0], unknown=None)]
    assert evaluate._unknown(group, silent, weights)["auroc"] is None


def test_patterns_without_spottiness_are_mapped_as_such(made):
    cache, _, _ = made
    plans = cache.protocol.of_set("independent")
    full, plain = (
        evaluate.map_answers(cache, plans, f"hydrothermal-dac{ending}", "masked")
        for ending in ("", "+plain")
    )
    assert full.probability.shape == plain.probability.shape
    assert np.abs(full.probability - plain.probability).max() > 1e-3
    copy = evaluate.without_spottiness(cache.patterns(plans[0]))
    with h5py.File(copy) as file:
        names: list[str] = []
        file.visit_links(names.append)
    assert not [name for name in names if "spottiness" in name]
    lacks = {
        path.name.split("_")[1]: read_map_record(path).model["channels_absent"]
        for path in copy.parent.glob("map_*")
    }
    assert lacks == {"hydrothermal-dac": "", "hydrothermal-dac+plain": "spottiness"}
    for plan in plans:
        for path in (
            evaluate.without_spottiness(cache.patterns(plan)),
            *cache.of(plan).glob("map_*"),
        ):
            path.unlink()


def test_members_are_models_of_their_own(tmp_path):
    alone = part("members").split("hydrothermal-dac", tmp_path)
    whole = load_model(find_model("hydrothermal-dac"), "cpu")
    models = [load_model(folder, "cpu") for folder in alone]
    assert [model.card.weights for model in models] == [(w,) for w in whole.card.weights]
    random = np.random.default_rng(4)
    patterns = random.poisson(50, (3, whole.card.grid.size)).astype(np.float32)
    together = whole.predict(patterns, np.ones_like(patterns), np.zeros_like(patterns))
    each = [m.predict(patterns, np.ones_like(patterns), np.zeros_like(patterns)) for m in models]
    np.testing.assert_allclose(
        np.mean([one.probability for one in each], axis=0), together.probability, atol=1e-6
    )
    assert part("members").split("hydrothermal-dac", tmp_path) == alone


def test_held_out_command_scores_every_variant(tiny, tmp_path):
    document = tmp_path / "accuracy.md"
    document.write_text("<!-- accuracy-held-out -->\nold\n<!-- /accuracy-held-out -->")
    part("__main__").main(
        ["held-out", "--protocol", str(tiny), "--blocks", "1", "--model", "ours=hydrothermal-dac",
         "-o", str(tmp_path / "held_out.json"), "--doc", str(document)]
    )  # fmt: skip
    result = json.loads((tmp_path / "held_out.json").read_text())
    for variant in evaluate.VARIANTS:
        scores = result["scores"]["ours"][variant]
        # Phases that cannot be seen are there only where everything counts.
        visible, everything = (result["truth"][variant][s]["positives"] for s in evaluate.SUBSETS)
        assert all(0 < visible[name] < everything[name] for name in visible)
        assert scores["goals"]["mean"]["auroc"]["value"] > 0.9
        assert scores["everything"]["mean"]["auroc"]["value"] > 0.7
    assert document.read_text().count("| ours, ") == 3


def test_score_command_writes_results_tables_and_figures(made, tiny, tmp_path, capsys):
    cache, _, _ = made
    document = tmp_path / "accuracy.md"
    names = ("accuracy-independent-goals", "accuracy-alone", "accuracy-calibration")
    document.write_text("\n".join(f"<!-- {n} -->\nold\n<!-- /{n} -->\nkept" for n in names))
    part("__main__").main(
        ["score", "--work", str(cache.folder), "--protocol", str(tiny), "--repeats", "20", "--keep",
         *(word for name in MADE for word in ("--set", name)),
         "--model", "ours=hydrothermal-dac", "--model", "other=hydrothermal-dac",
         "-o", str(tmp_path / "accuracy.json"), "--doc", str(document),
         "--images", str(tmp_path / "images")]
    )  # fmt: skip
    result = json.loads((tmp_path / "accuracy.json").read_text())
    assert result["protocol_sha256"] == cache.protocol.sha256
    assert result["drawn"]["maps"] == 3
    assert result["paired"]["other"]["masked"]["main"]["goals"]["value"] == 0
    accuracy = result["scores"]["ours"]["unmasked"]["independent"]["everything"]["mean"]["accuracy"]
    assert 0 < accuracy["value"] <= 1
    text = document.read_text()
    assert "old" not in text
    assert text.count("kept") == 3
    assert "| best constant answer |" in text
    images = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert images == ["accuracy_calibration.png", "accuracy_detection.png", "accuracy_risk.png"]
    assert "has no <!-- accuracy-paired -->" in capsys.readouterr().out
