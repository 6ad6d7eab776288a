"""The experiments of Li et al. (2024) on maps of the protocol: training and scores.

Every network of the two tables of the paper is trained by its recipe, in ``WORK/paper/NAME-SEED``;
what is finished is not trained again, and what was interrupted goes on. Labelled patterns of the
hybrid trainings come from two maps of their own.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import xrdpipe
from xrdpipe.errors import InputError
from xrdpipe.nn.inference import logistic
from xrdpipe.nn.model_folder import CARD, find_model, model_sha256, read_card
from xrdpipe.nn.train_recipe import load_recipe
from xrdpipe.phases import shipped_phases
from xrdpipe.schema import ABSENT, PRESENT

from .evaluate import SUBSETS, Answers, Known, Seeds, _phase_rows, _scores, _truth_numbers
from .maps import Cache, make_maps
from .protocol import MapPlan, Protocol
from .scores import interval, map_weights, mean_rows

Say = Callable[[str], None]

LABELLED = (("Pilatus300k", 0.10), ("Eiger500k", 0.09))
"""Detectors of the maps that labelled patterns are taken from, and their distances in m."""

LABELLED_SEED = 965_001
"""Of the first of these maps: inside the range of the protocol, in none of its sets."""


@dataclasses.dataclass(frozen=True)
class Training:
    """One kind of network of the paper.

    Parameters
    ----------
    recipe
        File name without ending in the folder of recipes.
    network, data
        What it is called in the tables.
    variant
        Of the labelled patterns that a hybrid training adds; None for synthetic only.
    seeds
        Most seeds it is trained with; None for as many as are asked for.
    """

    recipe: str
    network: str
    data: str = "synthetic only"
    variant: str | None = None
    seeds: int | None = None


TRAININGS = {
    "mtl": Training("mtl", "MTL, CE"),
    "cnn": Training("cnn", "three CNNs", seeds=1),
    "mtl-weighted": Training("mtl-weighted", "MTL, weighted CE"),
    "mtl-hybrid": Training("mtl-hybrid", "MTL, CE", "hybrid", "masked"),
    "mtl-hybrid-unmasked": Training("mtl-hybrid", "MTL, CE", "hybrid", "unmasked"),
    "mtl-weighted-hybrid": Training(
        "mtl-weighted-hybrid", "MTL, weighted CE", "hybrid", "unmasked"
    ),
    "cnn-hybrid": Training("cnn-hybrid", "three CNNs", "hybrid", "masked", seeds=1),
}

PRINTED: dict[str, dict[str, tuple[int, ...] | None]] = {
    "masked": {
        "cnn": (89, 64, 74),
        "cnn-hybrid": (92, 90, 95),
        "mtl": (85, 72, 90),
        "mtl-hybrid": (95, 92, 98),
    },
    "unmasked": {
        "cnn": None,
        "mtl": (78, 69, 84),
        "mtl-hybrid-unmasked": (91, 89, 94),
        "mtl-weighted": (84, 72, 85),
        "mtl-weighted-hybrid": (93, 90, 96),
    },
}
"""Test accuracies of tables 1 and 2 in %, bastnaesite / calcite / rhenium, by variant of the test
patterns and training; None for what the paper has no number of."""


def labelled_maps(protocol: Protocol) -> Protocol:
    """Maps that labelled patterns are taken from: of the paper's label counts, none is scored."""
    plans = tuple(
        MapPlan(
            name=f"labelled-{number:02d}",
            set="labelled",
            labels="co-occurrence",
            shape=(15, 15),
            seed=LABELLED_SEED + number,
            wavelength=protocol.wavelength,
            detector=detector,
            distance=distance,
            distractors=tuple(protocol.tables["phases"]["distractors"]),
            anvils=True,
            blind=None,
            sample_of=None,
        )
        for number, (detector, distance) in enumerate(LABELLED)
    )
    return dataclasses.replace(protocol, maps=plans)


def rounds(seeds: int) -> list[list[tuple[str, int]]]:
    """Name and seed of every training: one seed of everything comes before the next seed."""
    return [
        [
            (name, seed)
            for name, training in TRAININGS.items()
            if seed < (seeds if training.seeds is None else min(training.seeds, seeds))
        ]
        for seed in range(seeds)
    ]


@dataclasses.dataclass(frozen=True)
class Workshop:
    """Where and how the networks are trained.

    Parameters
    ----------
    folder
        Holds one model folder per training and seed.
    recipes
        Folder of the recipes.
    protocol
        Gives label set, wavelength and range.
    labelled
        The maps of :func:`labelled_maps`, made.
    threads
        Of training; None for all cores.
    """

    folder: Path
    recipes: Path
    protocol: Protocol
    labelled: Cache
    threads: int | None

    def model(self, name: str, seed: int) -> Path:
        """Folder of one model."""
        return self.folder / f"{name}-{seed}"

    def train(self, name: str, seed: int, say: Say) -> None:
        """Train one network, or go on; a finished one is only checked.

        Raises
        ------
        InputError
            The folder holds a network of another recipe.
        """
        training, output = TRAININGS[name], self.model(name, seed)
        recipe = self.recipes / f"{training.recipe}.toml"
        if (output / CARD).is_file():
            _check_recipe(output, recipe)
            return
        say(f"{output.name}: training")
        files: dict[str, Any] = {}
        if training.variant is not None:
            plans = self.labelled.protocol.maps
            files = {
                "labelled": [str(self.labelled.patterns(plan)) for plan in plans],
                "truth": [str(self.labelled.of(plan) / "truth.h5") for plan in plans],
                "variant": training.variant,
            }
        low, high = self.protocol.two_theta
        phases = shipped_phases()
        outcome = xrdpipe.train(
            cif=[str(phases[label]) for label in self.protocol.labels],
            wavelength=self.protocol.wavelength,
            grid=f"{low:g}:{high:g}:0.01",
            recipe=str(recipe),
            seed=seed,
            threads=self.threads,
            output=output,
            **files,
        )
        seconds = outcome.details.get("seconds_of_this_session", 0.0)
        say(f"{output.name}: trained, {seconds / 60:.1f} min in this session")

    def record(self, name: str, seeds: Sequence[int]) -> dict[str, Any]:
        """What was trained: recipe, seeds, patterns, hashes."""
        folders = [self.model(name, seed) for seed in seeds]
        settings = read_card(folders[0]).recipe["train"]
        reports = [json.loads((folder / "report.json").read_text()) for folder in folders]
        training = TRAININGS[name]
        return {
            "network": training.network,
            "data": training.data,
            "labelled_variant": training.variant,
            "seeds": list(seeds),
            "patterns": reports[0]["patterns_seen"] // settings["epochs"],
            "seconds_of_last_session": [report["seconds_of_this_session"] for report in reports],
            "sha256": [model_sha256(folder) for folder in folders],
            "recipe": settings,
        }


def _check_recipe(folder: Path, recipe: Path) -> None:
    """Raise unless a finished network was trained by this recipe."""
    wanted = json.loads(json.dumps(dataclasses.asdict(load_recipe(recipe)[0])))
    found = json.loads(json.dumps(read_card(folder).recipe["train"]))
    for key in ("workers", "checkpoint_every"):
        found.pop(key, None)
    for key, value in found.items():
        if key in wanted and wanted[key] != value:
            raise InputError(
                f"'{folder}' was trained with {key} = {value!r}, '{recipe}' has "
                f"{wanted[key]!r}; remove the folder or give another --work."
            )


def as_trained(said: Answers, temperature: float, bias: Sequence[float]) -> Answers:
    """Answers without the calibration that ``train`` adds: the softmax of the network alone.

    The paper takes the class with the larger softmax output. Calibration on patterns of another
    generator moves that threshold, far for a network that has seen no background.

    Parameters
    ----------
    said
        Of one network, at a prior of 0.5; probabilities are logistic(log-odds/T + b).
    temperature, bias
        T, and b of each phase in the order of the answers.
    """
    stated = said.probability.astype(float)
    with np.errstate(divide="ignore"):  # a probability of 0 or 1 has infinite log-odds
        calibrated = np.log(stated) - np.log1p(-stated)
    odds = temperature * (calibrated - np.asarray(bias, dtype=float)[:, None])
    known = np.isin(said.decision, (PRESENT, ABSENT))
    decided = np.where(odds >= 0, PRESENT, ABSENT)
    decision = np.where(known, decided, said.decision).astype(np.int8)
    return dataclasses.replace(said, probability=logistic(odds), decision=decision)


def undo_calibration(said: Answers, model: Path, labels: Sequence[str]) -> Answers:
    """:func:`as_trained` with the calibration of a model folder with one network."""
    card = read_card(model)
    (entry,) = card.weights
    names = [phase.name for phase in card.phases]
    return as_trained(said, entry.temperature, [entry.bias[names.index(name)] for name in labels])


Said = Mapping[str, Mapping[str, Seeds]]
"""Set → answers of one method to one variant: ``as_trained`` and ``calibrated``, one per seed."""


def scored(
    known: Mapping[str, Known], networks: Mapping[str, Said], ours: Said, repeats: int = 1000
) -> dict[str, Any]:
    """Scores of the networks of one table, and by how much another model is better.

    Parameters
    ----------
    known
        Set → truth.
    networks
        Training → its answers.
    ours
        Answers of the model that they are compared with; ``calibrated`` alone counts.
    repeats
        Bootstrap resamples of the maps.

    Returns
    -------
    ``networks`` → training → set → ``as_trained`` and ``calibrated`` → subset → scores, with
    ``gain``, the points that ours has more; ``ours`` → set → subset → scores.
    """
    weights = {name: map_weights(len(group.presence), repeats) for name, group in known.items()}
    result: dict[str, Any] = {"networks": {}, "ours": {}}
    for name, group in known.items():
        best = {}
        for subset in SUBSETS:
            said = ours[name]["calibrated"]
            found = _scores(group, said, weights[name], subset)
            result["ours"].setdefault(name, {})[subset] = found
            rows = _phase_rows(group, said, weights[name], subset)
            best[subset] = mean_rows([phase["accuracy"] for phase in rows])
        for training, by_set in networks.items():
            place = result["networks"].setdefault(training, {}).setdefault(name, {})
            for kind, said in by_set[name].items():
                place[kind] = {}
                for subset in SUBSETS:
                    found = _scores(group, said, weights[name], subset)
                    rows = _phase_rows(group, said, weights[name], subset)
                    accuracy = mean_rows([phase["accuracy"] for phase in rows])
                    place[kind][subset] = found | {"gain": interval(best[subset] - accuracy)}
    return result


def truth_numbers(known: Mapping[str, Known]) -> dict[str, Any]:
    """Maps, pixels, prevalence of each set."""
    return {name: _truth_numbers(group) for name, group in known.items()}


@dataclasses.dataclass
class Listener:
    """Maps each model once and remembers what it said.

    Parameters
    ----------
    ask
        Model folder or name, variant, set → answers.
    """

    ask: Callable[[str, str, str], Answers]
    heard: dict[tuple[str, str, str], Answers] = dataclasses.field(default_factory=dict)

    def answers(self, model: str, variant: str, name: str) -> Answers:
        """Of a model to the patterns of a set."""
        key = (model, variant, name)
        if key not in self.heard:
            self.heard[key] = self.ask(*key)
        return self.heard[key]


def compare(
    known: Mapping[str, Known],
    models: Mapping[str, Sequence[Path]],
    ours: Sequence[str],
    labels: Sequence[str],
    listener: Listener,
    repeats: int,
) -> dict[str, Any]:
    """Both tables: variant → :func:`scored`.

    Parameters
    ----------
    known
        Set → truth.
    models
        Training → its model folders, one per seed.
    ours
        The model that they are compared with, one folder or name per seed.
    labels
        Label set in class order.
    listener
        Asks the models.
    repeats
        Bootstrap resamples of the maps.
    """
    table = {}
    for variant, printed in PRINTED.items():
        networks: dict[str, dict[str, dict[str, list[Answers]]]] = {}
        for training in printed:
            for name in known:
                said = [listener.answers(str(m), variant, name) for m in models[training]]
                plain = [
                    undo_calibration(answers, model, labels)
                    for answers, model in zip(said, models[training], strict=True)
                ]
                networks.setdefault(training, {})[name] = {"as_trained": plain, "calibrated": said}
        own: dict[str, dict[str, list[Answers]]] = {
            name: {"calibrated": [listener.answers(m, variant, name) for m in ours]}
            for name in known
        }
        table[variant] = scored(known, networks, own, repeats)
    return table


def prepared(
    work: Path, recipes: Path, cache: Cache, threads: int | None, sets: Sequence[str], say: Say
) -> Workshop:
    """Make the maps that are scored, and those of the labelled patterns, where they are missing.

    Parameters
    ----------
    work, recipes
        Cache folder of the networks, and folder of the recipes.
    cache
        Maps of the protocol.
    threads
        Of simulation and training.
    sets
        Sets that are scored.
    say
        Prints a line.
    """
    folder = work / "paper"
    labelled = Cache(folder / "labelled", labelled_maps(cache.protocol))
    make_maps(labelled, ["labelled"], threads, say)
    make_maps(cache, sets, threads, say)
    return Workshop(folder, recipes, cache.protocol, labelled, threads)


def hashes(models: Sequence[str]) -> list[str]:
    """Of the weights of model folders or names."""
    return [model_sha256(find_model(model)) for model in models]
