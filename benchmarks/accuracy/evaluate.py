"""Every method on every map: scores, paired differences, calibration, detection limits."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

import xrdpipe
from xrdpipe.metrics import CALIBRATION_BINS, calibration_bins, risk_coverage
from xrdpipe.nn.model_folder import find_model, model_sha256
from xrdpipe.store.maps import read_map
from xrdpipe.types import BoolArray, FloatArray

from .maps import Cache
from .protocol import FEW_GRAINS, MAIN, MapPlan, eligible
from .scores import (
    Rows,
    auroc_rows,
    calibration_rows,
    decision_scores,
    detection,
    exact_match_rows,
    interval,
    map_weights,
    mean_rows,
)

Say = Callable[[str], None]

VARIANTS = ("masked", "unmasked", "both")
"""What a model is given; ``both`` is the mean of what it says of either."""

SUBSETS = ("goals", "everything")
"""Where the goals apply (every negative, positives with enough of the phase and a line), or all."""

PRIORS = (0.5, 0.1, 0.02)

NEIGHBOURS, PLAIN = "+neighbours", "+plain"
"""Behind a model: ``map --neighbours``, and patterns that bring no spottiness."""

WAVELENGTHS = ("40", "60")
"""Endings of the sets with the main samples at other wavelengths."""

EDGES: dict[str, tuple[float, ...]] = {
    "fraction": (0.03, 0.06, 0.1, 0.2, 0.4, 1.0),
    "grains": (1e2, 3e2, 1e3, 3e3, 1e4, 1e5),
    "signal_to_noise": (0, 1, 2, 5, 10, 20, 50, 1e6),
    "strain": (0, 0.002, 0.004, 0.006, 0.009),
    "missing": (0, 0.02, 0.15, 0.3, 1.0),
}
"""Classes of the detection-limit curves; strain without its sign."""

KEPT = np.linspace(0.5, 1.0, 51)
"""Parts of the decisions kept, at which the risk is stated."""


@dataclasses.dataclass(frozen=True)
class Known:
    """The truth of a group of maps; arrays are (maps, K, pixels) or (maps, pixels)."""

    names: tuple[str, ...]
    presence: BoolArray
    goals: BoolArray
    extra: Mapping[str, NDArray[Any]]

    def use(self, subset: str) -> BoolArray:
        """Pixels that count for each phase."""
        return self.goals if subset == "goals" else np.ones_like(self.goals)


@dataclasses.dataclass(frozen=True)
class Answers:
    """What one model said; arrays are (maps, K, pixels).

    ``unknown`` and ``flagged`` (maps, pixels) are its unknown score, and whether that is above
    the model's threshold; None for models that have none.
    """

    probability: FloatArray
    decision: NDArray[np.int8]
    unknown: FloatArray | None
    flagged: BoolArray | None = None


Seeds = Sequence[Answers]
"""Answers of one method, one entry per training seed."""


def known_truth(cache: Cache, plans: Sequence[MapPlan]) -> Known:
    """Truth of some maps of one shape."""
    truths = [cache.truth(plan) for plan in plans]

    def flat(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return np.stack([array.reshape(*array.shape[:-2], -1) for array in arrays])

    names = ("fraction", "grains", "signal_to_noise", "strain", "missing", "foreign",
             "foreign_fraction", "foreign_signal_to_noise")  # fmt: skip
    return Known(
        truths[0].phase_names,
        flat([truth.presence for truth in truths]),
        flat([eligible(cache.protocol, truth) for truth in truths]),
        {name: flat([truth.extra[name] for truth in truths]) for name in names},
    )


def map_answers(
    cache: Cache, plans: Sequence[MapPlan], model: str, variant: str, keep: bool = False
) -> Answers:
    """Map every plan with a model; phases in the order of the label set.

    Parameters
    ----------
    cache, plans
        The maps.
    model
        Folder or shipped name; with ``+neighbours`` behind it pixels are told of their neighbours,
        with ``+plain`` the patterns come without spottiness.
    variant
        ``masked`` or ``unmasked``.
    keep
        Read maps that this model made before. Its weights are checked, not the program.
    """
    name, ending = _asked(model)
    folder = find_model(name)
    mark = model_sha256(folder)[:12]
    probability, decision, unknown, flagged = [], [], [], []
    for plan in plans:
        output = cache.of(plan) / f"map_{folder.name}{ending}_{mark}_{variant}.h5"
        ny, nx = plan.shape
        if not (keep and output.exists()):
            patterns = cache.patterns(plan)
            xrdpipe.map(
                patterns=str(without_spottiness(patterns) if ending == PLAIN else patterns),
                model=str(folder),
                variant=variant,
                scan_shape=f"{ny}x{nx}",
                prior=0.5,
                neighbours=ending == NEIGHBOURS,
                output=output,
                png=False,
                restart=True,
            )
        stored = read_map(output)
        order = [stored.phase_names.index(name) for name in cache.protocol.labels]
        probability.append(stored.probability[order].reshape(len(order), -1))
        decision.append(stored.decision[order].reshape(len(order), -1))
        if (found := _of_unknown(output)) is not None:
            unknown.append(found[0])
            flagged.append(found[1])
    told = len(unknown) == len(plans)
    return Answers(
        np.stack(probability),
        np.stack(decision),
        np.stack(unknown) if told else None,
        np.stack(flagged) if told else None,
    )


def _asked(model: str) -> tuple[str, str]:
    """A model and what is behind it, if anything."""
    ending = next((known for known in (NEIGHBOURS, PLAIN) if model.endswith(known)), "")
    return model.removesuffix(ending), ending


def without_spottiness(patterns: Path) -> Path:
    """A copy as other programs integrate, which bring no spottiness; made once."""
    copy = patterns.with_name(f"{patterns.stem}_plain.h5")
    if not copy.exists():
        unfinished = copy.with_suffix(".part")
        shutil.copyfile(patterns, unfinished)
        with h5py.File(unfinished, "r+") as file:
            names: list[str] = []
            file.visit_links(names.append)
            for name in names:
                if name.endswith("/spottiness"):
                    del file[name]
        unfinished.rename(copy)
    return copy


def _of_unknown(path: Path) -> tuple[FloatArray, BoolArray] | None:
    """Unknown score and whether it is above the threshold, (pixels,) each; None if not there."""
    with h5py.File(path) as file:
        group = file.get("entry/phase_map/unknown")
        if group is None:
            return None
        score, flag = (np.asarray(group[name][()]).ravel() for name in ("score", "flag"))
        return score.astype(float), flag > 0


def joined(parts: Sequence[Known] | Seeds) -> Any:
    """Groups of maps, or answers to them, one after the other."""
    first = parts[0]
    fields = {}
    for field in dataclasses.fields(first):
        values = [getattr(part, field.name) for part in parts]
        if field.name == "names":
            fields[field.name] = values[0]
        elif field.name == "extra":
            fields[field.name] = {k: np.concatenate([v[k] for v in values]) for k in values[0]}
        else:
            absent = any(value is None for value in values)
            fields[field.name] = None if absent else np.concatenate(values)
    return type(first)(**fields)


def evaluate(
    cache: Cache,
    methods: Mapping[str, Sequence[str]],
    sets: Sequence[str],
    say: Say,
    *,
    repeats: int = 1000,
    keep: bool = False,
) -> dict[str, Any]:
    """All scores of all methods.

    Parameters
    ----------
    cache
        Holds truth and patterns of the maps.
    methods
        Name → model folders or names, one per training seed. The first method is compared with
        each of the others.
    sets
        Sets to score; each must be there.
    say
        Prints a line.
    repeats
        Bootstrap resamples.
    keep
        Read answers that were made before, see :func:`map_answers`.
    """
    known = {name: known_truth(cache, cache.protocol.of_set(name)) for name in sets}
    said: dict[str, dict[str, dict[str, list[Answers]]]] = {}
    for method, models in methods.items():
        said[method] = {}
        for variant in VARIANTS:
            say(f"{method}, {variant}: mapping")
            said[method][variant] = {
                name: [
                    map_answers(cache, cache.protocol.of_set(name), model, variant, keep)
                    for model in models
                ]
                for name in sets
            }
    _add_joined(known, said)
    weights = {name: map_weights(len(group.presence), repeats) for name, group in known.items()}
    result: dict[str, Any] = {
        "methods": {
            method: [model_sha256(find_model(_asked(model)[0])) for model in models]
            for method, models in methods.items()
        },
        "truth": {name: _truth_numbers(group) for name, group in known.items()},
    }
    for method, by_variant in said.items():
        say(f"{method}: scoring")
        for variant, by_set in by_variant.items():
            parts = _of_method(known, by_set, weights)
            if "main" in known:
                plans = [plan for name in MAIN for plan in cache.protocol.of_set(name)]
                parts["coverage"] = _by_coverage(known["main"], by_set["main"], plans)
            for part, content in parts.items():
                result.setdefault(part, {}).setdefault(method, {})[variant] = content
    result["paired"] = _paired(known, said, weights)
    return result


def _add_joined(known: dict[str, Known], said: Mapping[str, Any]) -> None:
    """Add ``main``, ``main-40`` …: both halves of the labels, where both are there."""
    for ending in ("", *(f"-{wavelength}" for wavelength in WAVELENGTHS)):
        halves = [f"{name}{ending}" for name in MAIN]
        if not all(half in known for half in halves):
            continue
        known[f"main{ending}"] = joined([known[half] for half in halves])
        for by_variant in said.values():
            for by_set in by_variant.values():
                pairs = zip(*(by_set[half] for half in halves), strict=True)
                by_set[f"main{ending}"] = [joined(pair) for pair in pairs]


def _truth_numbers(group: Known) -> dict[str, Any]:
    combinations = np.all(group.goals, axis=1)
    codes = (group.presence * 2 ** np.arange(len(group.names))[:, None]).sum(axis=1)
    numbers: dict[str, Any] = {
        "maps": len(group.presence),
        "pixels": int(group.presence[:, 0].size),
    }
    for subset in SUBSETS:
        use = group.use(subset)
        counted = codes[combinations] if subset == "goals" else codes.ravel()
        numbers[subset] = {
            "positives": {
                name: int((group.presence[:, k] & use[:, k]).sum())
                for k, name in enumerate(group.names)
            },
            "prevalence": {
                name: float(group.presence[:, k][use[:, k]].mean())
                for k, name in enumerate(group.names)
            },
            "commonest_combination": float(np.bincount(counted).max() / max(counted.size, 1)),
        }
    return numbers


def _of_method(
    known: Mapping[str, Known], by_set: Mapping[str, Seeds], weights: Mapping[str, FloatArray]
) -> dict[str, Any]:
    """Everything about one method and variant."""
    parts: dict[str, Any] = {
        "scores": {
            name: {
                subset: _scores(group, by_set[name], weights[name], subset) for subset in SUBSETS
            }
            for name, group in known.items()
        }
    }
    if "independent" in known:
        here = known["independent"], by_set["independent"], weights["independent"]
        parts["calibration"] = {subset: _calibration(*here, subset) for subset in SUBSETS}
        parts["reliability"] = _reliability(*here[:2])
    if "main" in known:
        main = known["main"], by_set["main"], weights["main"]
        parts["alone"] = _alone_against_nothing(*main)
        parts["detection"] = _detection(*main)
        parts["risk_coverage"] = _risk_coverage(*main[:2])
        parts["wavelength"] = {
            ending: _wavelength_loss(known, by_set, weights["main"], f"main-{ending}")
            for ending in WAVELENGTHS
            if f"main-{ending}" in known
        }
    if "unknown" in known:
        parts["unknown"] = _unknown(known["unknown"], by_set["unknown"], weights["unknown"])
    return parts


def _phase_rows(
    group: Known, seeds: Seeds, weights: FloatArray, subset: str
) -> list[dict[str, Rows]]:
    """Scores at the threshold per phase, mean over the seeds."""
    use = group.use(subset)
    rows = []
    for k in range(len(group.names)):
        each = [
            decision_scores(group.presence[:, k], said.decision[:, k], use[:, k], weights)
            for said in seeds
        ]
        rows.append({name: mean_rows([entry[name] for entry in each]) for name in each[0]})
    return rows


def _scores(group: Known, seeds: Seeds, weights: FloatArray, subset: str) -> dict[str, Any]:
    use = group.use(subset)
    phases = _phase_rows(group, seeds, weights, subset)
    for k, rows in enumerate(phases):
        shown = [(said.probability[:, k], use[:, k]) for said in seeds]
        present = group.presence[:, k]
        rows["auroc"] = mean_rows([auroc_rows(present, p, u, weights) for p, u in shown])
        for name in ("ece", "brier"):
            rows[name] = mean_rows(
                [calibration_rows(present, p, u, weights)[name] for p, u in shown]
            )
    averaged = ("accuracy", "constant", "balanced_accuracy", "auroc", "mcc", "f1")
    match = [exact_match_rows(group.presence, said.decision, use, weights) for said in seeds]
    each_seed = [
        float(np.mean([r["accuracy"][0] for r in _phase_rows(group, [said], weights[:1], subset)]))
        for said in seeds
    ]
    return {
        "phases": {
            name: {score: interval(rows) for score, rows in phases[k].items()}
            for k, name in enumerate(group.names)
        },
        "mean": {
            score: interval(mean_rows([rows[score] for rows in phases])) for score in averaged
        },
        "exact_match": interval(mean_rows(match)),
        "accuracy_of_each_seed": each_seed,
    }


def _calibration(
    group: Known, seeds: Seeds, weights: FloatArray, subset: str
) -> dict[str, dict[str, Any]]:
    """Calibration error per phase and prior, the log-odds shifted to it."""
    use = group.use(subset)
    return {
        name: {
            str(prior): interval(
                mean_rows(
                    [
                        calibration_rows(
                            group.presence[:, k], said.probability[:, k], use[:, k], weights, prior
                        )["ece"]
                        for said in seeds
                    ]
                )
            )
            for prior in PRIORS
        }
        for k, name in enumerate(group.names)
    }


def _reliability(group: Known, seeds: Seeds) -> dict[str, list[dict[str, float | int]]]:
    """Stated probability and observed frequency in bins of equal size, seeds together."""
    table = {}
    for k, name in enumerate(group.names):
        stated = np.concatenate([said.probability[:, k].ravel() for said in seeds]).astype(float)
        present = np.tile(group.presence[:, k].ravel(), len(seeds))
        present, stated = present[np.isfinite(stated)], stated[np.isfinite(stated)]
        bins = (
            [calibration_bins(stated) == b for b in range(CALIBRATION_BINS)] if stated.size else []
        )
        table[name] = [
            {
                "stated": float(stated[here].mean()),
                "observed": float(present[here].mean()),
                "pixels": int(here.sum()),
            }
            for here in bins
            if here.any()
        ]
    return table


def _alone_against_nothing(
    group: Known, seeds: Seeds, weights: FloatArray
) -> dict[str, dict[str, Any]]:
    """AUROC of each phase where it is the only one, against pixels without any.

    No co-occurrence can help here. ``coarse`` are the positives of the goals with few grains.
    """
    number = group.presence.sum(axis=1)
    table: dict[str, dict[str, Any]] = {}
    for k, name in enumerate(group.names):
        present = group.presence[:, k]
        coarse = group.goals[:, k] & (~present | (group.extra["grains"][:, k] < FEW_GRAINS))
        chosen = {
            "goals": group.goals[:, k],
            "coarse": coarse,
            "everything": np.ones_like(present),
        }
        table[name] = {}
        for subset, which in chosen.items():
            use = which & ((number == 0) | (present & (number == 1)))
            rows = [auroc_rows(present, s.probability[:, k], use, weights) for s in seeds]
            positives = int((use & present).sum())
            table[name][subset] = interval(mean_rows(rows)) | {
                "positives": positives,
                "negatives": int(use.sum()) - positives,
            }
    return table


def _detection(group: Known, seeds: Seeds, weights: FloatArray) -> dict[str, Any]:
    """Probability of detection of each phase against what makes it hard.

    Against the fraction: positives with a line above the noise; against signal to noise: those
    with enough of the phase; against the rest: those of the goals.
    """
    extra = group.extra
    table: dict[str, Any] = {}
    for quantity, edges in EDGES.items():
        table[quantity] = {}
        for k, name in enumerate(group.names):
            positive = group.presence[:, k]
            values = extra[quantity] if quantity == "missing" else extra[quantity][:, k]
            use = {
                "fraction": positive & (extra["signal_to_noise"][:, k] >= 5),
                "signal_to_noise": positive & (extra["fraction"][:, k] >= 0.1),
            }.get(quantity, positive & group.goals[:, k])
            # Seeds one below the other: the same maps, drawn together.
            found = np.concatenate([said.decision[:, k] == 1 for said in seeds], axis=1)
            several = (1, len(seeds))
            values = np.tile(np.abs(values), several)
            table[quantity][name] = detection(found, values, np.tile(use, several), edges, weights)
    return table


def _risk_coverage(group: Known, seeds: Seeds) -> dict[str, Any]:
    """Error rate of the decisions kept when the least sure are left out; phases together."""
    curves = []
    for said in seeds:
        determined = np.isfinite(said.probability)
        right = determined & ((said.probability > 0.5) == group.presence)
        sure = np.where(determined, np.abs(said.probability - 0.5), -1.0)
        coverage, risk = risk_coverage(right.ravel(), sure.ravel())
        curves.append(np.interp(KEPT, coverage, risk))
    return {"coverage": KEPT.tolist(), "risk": np.mean(curves, axis=0).tolist()}


def _wavelength_loss(
    known: Mapping[str, Known], by_set: Mapping[str, Seeds], weights: FloatArray, other: str
) -> dict[str, Any]:
    """Accuracy lost on the same samples at another wavelength, where the goals apply at both."""
    both = known["main"].goals & known[other].goals
    lost, kept = [], []
    for k in range(len(known["main"].names)):
        rows = [
            mean_rows(
                [
                    decision_scores(
                        known[name].presence[:, k], said.decision[:, k], both[:, k], weights
                    )["accuracy"]
                    for said in by_set[name]
                ]
            )
            for name in ("main", other)
        ]
        kept.append(rows[1])
        lost.append(rows[0] - rows[1])
    return {
        "loss": interval(mean_rows(lost)),
        "accuracy": interval(mean_rows(kept)),
        "loss_of_phases": {name: interval(lost[k]) for k, name in enumerate(known["main"].names)},
        "pixels": int(known[other].presence[:, 0].size),
    }


def _by_coverage(group: Known, seeds: Seeds, plans: Sequence[MapPlan]) -> list[dict[str, Any]]:
    """Accuracy at the goals by the range of 2θ that a map lacks; few maps each, so no interval."""
    table = []
    for blind in sorted({plan.blind for plan in plans}, key=lambda entry: entry or (0.0, 0.0)):
        maps = np.array([plan.blind == blind for plan in plans])
        rows = _phase_rows(group, seeds, maps[None].astype(float), "goals")
        table.append(
            {
                "blind": blind,
                "maps": int(maps.sum()),
                "accuracy": {
                    name: float(rows[k]["accuracy"][0]) for k, name in enumerate(group.names)
                },
                "constant": float(np.mean([phase["constant"][0] for phase in rows])),
            }
        )
    return table


def _unknown(group: Known, seeds: Seeds, weights: FloatArray) -> dict[str, Any]:
    """How well the unknown score tells an unknown phase, and what is taken for it."""
    there = group.extra["foreign"] >= 0
    clear = (group.extra["foreign_fraction"] >= 0.1) & (group.extra["foreign_signal_to_noise"] >= 5)
    scored = [said.unknown for said in seeds if said.unknown is not None]
    table: dict[str, Any] = {"auroc": None, "flagged": None, "false_presence": {}}
    if len(scored) == len(seeds):
        table["auroc"] = {
            subset: interval(mean_rows([auroc_rows(there, s, use, weights) for s in scored]))
            for subset, use in (("goals", ~there | clear), ("everything", np.ones_like(there)))
        }
    flags = [said.flagged for said in seeds if said.flagged is not None]
    if len(flags) == len(seeds):
        each = [decision_scores(there, flag.astype(np.int8), ~there | clear, weights)
                for flag in flags]  # fmt: skip
        table["flagged"] = {
            place: interval(mean_rows([rows[name] for rows in each]))
            for place, name in (("with", "recall"), ("without", "false_presence"))
        }
    for k, name in enumerate(group.names):
        table["false_presence"][name] = {
            place: interval(
                mean_rows(
                    [
                        decision_scores(group.presence[:, k], said.decision[:, k], where, weights)[
                            "false_presence"
                        ]
                        for said in seeds
                    ]
                )
            )
            for place, where in (("with", clear), ("without", ~there))
        }
    return table


def _paired(
    known: Mapping[str, Known], said: Mapping[str, Any], weights: Mapping[str, FloatArray]
) -> dict[str, Any]:
    """Mean accuracy of the first method less that of each other, on the same resampled maps."""
    first, *others = said
    groups = [name for name in (*MAIN, "main") if name in known]

    def accuracy(method: str, variant: str, name: str, subset: str) -> Rows:
        phases = _phase_rows(known[name], said[method][variant][name], weights[name], subset)
        return mean_rows([rows["accuracy"] for rows in phases])

    return {
        other: {
            variant: {
                name: {
                    subset: interval(
                        accuracy(first, variant, name, subset)
                        - accuracy(other, variant, name, subset)
                    )
                    for subset in SUBSETS
                }
                for name in groups
            }
            for variant in VARIANTS
        }
        for other in others
    }
