"""Maps, scores, public data, and the paper's networks: one command, a part for each.

    python -m benchmarks.accuracy maps --work CACHE
    python -m benchmarks.accuracy score --work CACHE --model ours=A --model ours=B --model nnls=C
    python -m benchmarks.accuracy public --work CACHE --model hydrothermal-dac --train
    python -m benchmarks.accuracy paper --work CACHE --seeds 3

Run from the checkout, with the package installed. ``maps`` and ``paper`` go on where they were
interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
from pathlib import Path
from typing import Any

from xrdpipe.stages.versions import software_versions
from xrdpipe.types import Grid

from . import paper, paper_report, public_data, unknown_scores
from .evaluate import evaluate, known_truth, map_answers
from .held_out import held_out
from .maps import Cache, make_maps
from .members import split
from .protocol import MAIN, PROTOCOL, Protocol, drawn_shares, load_protocol
from .report import draw_figures, members, tables, write_tables
from .report import held_out as held_out_table

HERE = Path(__file__).parents[1]


def _say(text: str) -> None:
    print(text, flush=True)


def _sets(given: argparse.Namespace, protocol: Protocol) -> list[str]:
    unknown = [name for name in given.set if name not in protocol.sets]
    if unknown:
        raise SystemExit(f"no set '{unknown[0]}'; the protocol has {', '.join(protocol.sets)}")
    return given.set or list(protocol.sets)


def _methods(entries: list[str]) -> dict[str, list[str]]:
    """``NAME=FOLDER`` entries by name; one name given several times is several seeds."""
    methods: dict[str, list[str]] = {}
    for entry in entries:
        name, _, folder = entry.partition("=")
        methods.setdefault(name, []).append(folder or name)
    return methods


def compact(result: dict[str, Any]) -> str:
    """JSON with five digits, one line per method and variant: to keep, not to compute with."""

    def rounded(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: rounded(entry) for key, entry in value.items()}
        if isinstance(value, (list, tuple)):
            return [rounded(entry) for entry in value]
        return float(f"{value:.5g}") if isinstance(value, float) else value

    def lines(value: Any, depth: int) -> str:
        if not isinstance(value, dict) or depth == 0:
            return json.dumps(value, separators=(",", ":"))
        entries = (f"{json.dumps(key)}: {lines(entry, depth - 1)}" for key, entry in value.items())
        return "{\n" + ",\n".join(entries) + "\n}"

    return lines(rounded(result), 3) + "\n"


def _publish(given: argparse.Namespace, made: dict[str, str]) -> None:
    for name, table in made.items():
        _say(f"\n{name}\n\n{table}")
    if given.doc:
        for name in write_tables(given.doc, made):
            _say(f"{given.doc} has no <!-- {name} --> ... <!-- /{name} -->")


def _maps(given: argparse.Namespace) -> None:
    protocol = load_protocol(given.protocol)
    make_maps(Cache(given.work, protocol), _sets(given, protocol), given.threads, _say)


def _score(given: argparse.Namespace) -> None:
    protocol = load_protocol(given.protocol)
    cache = Cache(given.work, protocol)
    names = _sets(given, protocol)
    methods = _methods(given.model)
    result: dict[str, Any] = {
        "protocol_sha256": protocol.sha256,
        "drawn": {},
        **evaluate(cache, methods, names, _say, repeats=given.repeats, keep=given.keep),
        "versions": software_versions(),
        "python": platform.python_version(),
    }
    if set(MAIN) <= set(names):
        main = [cache.truth(plan) for name in MAIN for plan in protocol.of_set(name)]
        result["drawn"] = drawn_shares(main)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(compact(result), encoding="utf-8")
    _publish(given, tables(result))
    if given.images:
        for path in draw_figures(given.images, result):
            _say(str(path))


def _members(given: argparse.Namespace) -> None:
    protocol = load_protocol(given.protocol)
    folder = given.work / "members"
    folder.mkdir(parents=True, exist_ok=True)
    one, together = "one network", "ensemble"
    methods = {one: split(given.ensemble, folder), together: [given.ensemble]}
    methods |= _methods(given.model)
    cache = Cache(given.work, protocol)
    result = evaluate(cache, methods, MAIN, _say, repeats=given.repeats, keep=given.keep)
    result = {"protocol_sha256": protocol.sha256, **result, "versions": software_versions()}
    given.output.write_text(compact(result), encoding="utf-8")
    _publish(given, {"accuracy-members": members(result, one, together)})


def _held_out(given: argparse.Namespace) -> None:
    protocol = load_protocol(given.protocol)
    grid = Grid(*protocol.two_theta, 0.01, protocol.wavelength)
    result = held_out(_methods(given.model), protocol.labels, grid, _say, given.blocks)
    result |= {"versions": software_versions(), "python": platform.python_version()}
    given.output.write_text(compact(result), encoding="utf-8")
    _publish(given, {"accuracy-held-out": held_out_table(result)})


def _public(given: argparse.Namespace) -> None:
    work = given.work / "public"
    work.mkdir(parents=True, exist_ok=True)
    systems = {}
    if given.train:
        systems = public_data.train_systems(work, given.seeds, given.recipe, _say, given.data)
    result = public_data.measure(given.model[0], systems, work, _say, given.data)
    result |= {"versions": software_versions(), "python": platform.python_version()}
    given.output.parent.mkdir(parents=True, exist_ok=True)
    public_data.write_result(given.output, result)
    for name in result["absent"]:
        _say(f"not there: {name}")
    _publish(given, public_data.tables(result))


def _unknown(given: argparse.Namespace) -> None:
    cache = Cache(given.work, load_protocol(given.protocol))
    found = unknown_scores.compare(cache, given.model[0])
    given.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    _publish(given, {"accuracy-unknown-scores": unknown_scores.table(found)})


def _paper(given: argparse.Namespace) -> None:
    protocol = load_protocol(given.protocol)
    cache = Cache(given.maps or given.work, protocol)
    workshop = paper.prepared(given.work, given.recipes, cache, given.threads, MAIN, _say)
    known = {name: known_truth(cache, protocol.of_set(name)) for name in MAIN}
    listener = paper.Listener(
        lambda model, variant, name: map_answers(
            cache, protocol.of_set(name), model, variant, given.keep
        )
    )
    ((name, ours),) = _methods([given.model]).items()
    seeds: dict[str, list[int]] = {}
    # Tables after every round: the first is complete with one seed.
    for entries in paper.rounds(given.seeds):
        for training, seed in entries:
            workshop.train(training, seed, _say)
            seeds.setdefault(training, []).append(seed)
        models = {t: [workshop.model(t, seed) for seed in of] for t, of in seeds.items()}
        result = {
            "protocol_sha256": protocol.sha256,
            "wavelength": protocol.wavelength,
            "labelled_maps": [dataclasses.asdict(p) for p in workshop.labelled.protocol.maps],
            "trainings": {t: workshop.record(t, of) for t, of in seeds.items()},
            "ours": {"name": name, "sha256": paper.hashes(ours)},
            "truth": paper.truth_numbers(known),
            "tables": paper.compare(known, models, ours, protocol.labels, listener, given.repeats),
            "versions": software_versions(),
            "python": platform.python_version(),
        }
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(compact(result), encoding="utf-8")
        _publish(given, paper_report.tables(result))


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and run one part."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = parser.add_subparsers(required=True, dest="part")
    maps = parts.add_parser("maps", help="make the maps of the protocol")
    maps.add_argument("--threads", type=int)
    maps.set_defaults(run=_maps)
    score = parts.add_parser("score", help="score models on them")
    score.add_argument(
        "--model", action="append", required=True, help="NAME[=FOLDER]; again: a seed"
    )
    score.add_argument("--repeats", type=int, default=1000, help="bootstrap resamples")
    score.add_argument("--keep", action="store_true", help="read answers that were made before")
    score.add_argument("--images", type=Path, help="folder for figures")
    score.add_argument("-o", dest="output", type=Path, default=HERE / "results" / "accuracy.json")
    score.set_defaults(run=_score)
    seeds = parts.add_parser("members", help="the networks of an ensemble, each by itself")
    seeds.add_argument("--ensemble", required=True, help="name or folder")
    seeds.add_argument(
        "--model", action="append", default=[], help="NAME=FOLDER to compare them with"
    )
    seeds.add_argument("--keep", action="store_true", help="read answers that were made before")
    seeds.add_argument("--repeats", type=int, default=1000, help="bootstrap resamples")
    seeds.add_argument(
        "-o", dest="output", type=Path, default=HERE / "results" / "accuracy_members.json"
    )
    seeds.set_defaults(run=_members)
    fresh = parts.add_parser("held-out", help="score models on fresh patterns of the generator")
    fresh.add_argument("--model", action="append", required=True, help="NAME[=FOLDER]")
    fresh.add_argument("--blocks", type=int, default=16, help="of 256 patterns")
    fresh.add_argument("-o", dest="output", type=Path, default=HERE / "results" / "held_out.json")
    fresh.set_defaults(run=_held_out)
    networks = parts.add_parser("paper", help="train and score the networks of Li et al. (2024)")
    networks.add_argument("--maps", type=Path, help="cache with maps (default: that of --work)")
    networks.add_argument("--seeds", type=int, default=3, help="of the multi-task networks")
    networks.add_argument("--threads", type=int)
    networks.add_argument(
        "--model", default="shipped=hydrothermal-dac", help="NAME=FOLDER to compare them with"
    )
    networks.add_argument("--keep", action="store_true", help="read answers that were made before")
    networks.add_argument("--repeats", type=int, default=1000, help="bootstrap resamples")
    networks.add_argument(
        "--recipes", type=Path, default=HERE.parent / "pipelines" / "paper", help="their folder"
    )
    networks.add_argument("-o", dest="output", type=Path, default=HERE / "results" / "paper.json")
    networks.set_defaults(run=_paper)
    for part in (maps, score, seeds, fresh, networks):
        part.add_argument("--protocol", type=Path, default=PROTOCOL)
    for part in (maps, score):
        part.add_argument(
            "--set", action="append", default=[], help="only this set; again for more"
        )
    public = parts.add_parser("public", help="public measured data")
    public.add_argument("--model", action="append", required=True, help="name or folder")
    public.add_argument("--data", type=Path, default=public_data.DATA)
    public.add_argument("--train", action="store_true", help="train the models of the positives")
    public.add_argument("--seeds", type=int, default=3)
    public.add_argument("--recipe", default="train-small")
    public.add_argument("-o", dest="output", type=Path, default=HERE / "results" / "public.json")
    public.set_defaults(run=_public)
    unknown = parts.add_parser("unknown", help="three unknown scores beside each other")
    unknown.add_argument("--model", action="append", required=True, help="name or folder")
    unknown.add_argument("--protocol", type=Path, default=PROTOCOL)
    unknown.add_argument("-o", dest="output", type=Path, default=HERE / "results" / "unknown.json")
    unknown.set_defaults(run=_unknown)
    for part in (maps, score, seeds, public, unknown, networks):
        part.add_argument("--work", type=Path, required=True, help="cache folder")
    for part in (score, seeds, fresh, public, unknown, networks):
        part.add_argument("--doc", type=Path, help="document with the markers of the tables")
    given = parser.parse_args(arguments)
    given.run(given)


if __name__ == "__main__":
    main()
