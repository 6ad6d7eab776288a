"""Maps, scores and public data of the accuracy protocol: one command, three parts.

    python -m benchmarks.accuracy maps --work CACHE
    python -m benchmarks.accuracy score --work CACHE --model ours=A --model ours=B --model nnls=C
    python -m benchmarks.accuracy public --work CACHE --model hydrothermal-dac --train

Run from the checkout, with the package installed. ``maps`` goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

from xrdpipe.stages.versions import software_versions

from . import public_data
from .evaluate import evaluate
from .maps import Cache, make_maps
from .protocol import MAIN, PROTOCOL, Protocol, drawn_shares, load_protocol
from .report import draw_figures, tables, write_tables

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
    given.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    _publish(given, tables(result))
    if given.images:
        for path in draw_figures(given.images, result):
            _say(str(path))


def _public(given: argparse.Namespace) -> None:
    work = given.work / "public"
    work.mkdir(parents=True, exist_ok=True)
    systems = {}
    if given.train:
        systems = public_data.train_systems(work, given.seeds, given.recipe, _say, given.data)
    result = public_data.measure(given.model[0], systems, work, _say, given.data)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    public_data.write_result(given.output, result)
    for name in result["absent"]:
        _say(f"not there: {name}")
    _publish(given, public_data.tables(result))


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
    for part in (maps, score):
        part.add_argument("--protocol", type=Path, default=PROTOCOL)
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
    for part in (maps, score, public):
        part.add_argument("--work", type=Path, required=True, help="cache folder")
    for part in (score, public):
        part.add_argument("--doc", type=Path, help="document with the markers of the tables")
    given = parser.parse_args(arguments)
    given.run(given)


if __name__ == "__main__":
    main()
