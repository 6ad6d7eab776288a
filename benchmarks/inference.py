"""Patterns per second of the shipped model beside the network of Li et al. (2024), on one core.

    python benchmarks/inference.py -o benchmarks/results/inference.json --doc docs/networks.md

Patterns on the model's grid to probabilities, channels included: what ``map`` does for every pixel
after resampling. One thread, processor time; the two take turns in every round. The paper's network
has fresh weights, which cost what trained ones do.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from processes import machine

from xrdpipe.channels import build_channels
from xrdpipe.crystal import load_phase
from xrdpipe.nn.inference import BLOCK, Model, load_model
from xrdpipe.nn.model_folder import find_model
from xrdpipe.nn.networks import PaperNetwork
from xrdpipe.nn.stream import Stream, draw_chosen
from xrdpipe.phases import distractor_phases, shipped_phases
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.types import PhaseLibrary

MARKER = re.compile(r"(<!-- inference -->\n).*?(<!-- /inference -->)", re.S)


def main() -> None:
    """Measure, write, and put the table into a document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", dest="output", type=Path, required=True)
    parser.add_argument("--model", help="name or folder [default: the shipped one]")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--blocks", type=int, default=4, help=f"of {BLOCK} patterns, per round")
    parser.add_argument("--doc", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(find_model(given.model), "cpu")
    paper = PaperNetwork(phases=len(model.card.phases), points=model.card.grid.size).eval()
    library, others = (
        tuple(load_phase(path) for path in paths().values())
        for paths in (shipped_phases, distractor_phases)
    )
    stream = Stream(PhaseLibrary(library), others, model.card.grid, Recipe(), 7)
    drawn = draw_chosen(stream, 0, given.blocks * BLOCK, 0.5)

    def ours() -> None:
        model.predict(drawn.intensity, drawn.coverage, drawn.spottiness)

    def channels() -> None:
        for row in range(0, len(drawn.intensity), BLOCK):
            part = slice(row, row + BLOCK)
            build_channels(
                model.card.channels,
                drawn.intensity[part],
                drawn.coverage[part],
                drawn.spottiness[part],
            )

    def published() -> None:
        with torch.inference_mode():
            for row in range(0, len(drawn.intensity), BLOCK):
                part = slice(row, row + BLOCK)
                views = build_channels(("minmax",), drawn.intensity[part], drawn.coverage[part])
                paper.log_odds(torch.from_numpy(views))

    cases = {"shipped model": ours, "its channels alone": channels, "paper's network": published}
    rates: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(given.rounds + 1):
        for name, work in cases.items():
            start = time.process_time()
            work()
            rates[name].append(len(drawn.intensity) / (time.process_time() - start))
    found = {
        name: {
            "median": round(statistics.median(values[1:])),
            "least": round(min(values[1:])),
            "most": round(max(values[1:])),
        }
        for name, values in rates.items()
    }
    result = {
        "model": model.card.name,
        "members": len(model.card.weights),
        "parameters_of_a_member": _parameters(model),
        "patterns_per_second": found,
        "machine": machine(),
    }
    given.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    table = _table(result)
    print(table)
    if given.doc:
        text = given.doc.read_text(encoding="utf-8")
        given.doc.write_text(MARKER.sub(lambda m: m[1] + table + m[2], text), encoding="utf-8")


def _parameters(model: Model) -> int:
    networks = getattr(model.evidence, "networks", ())
    return sum(p.numel() for p in networks[0].parameters()) if networks else 0


def _table(result: dict) -> str:
    lines = ["| | patterns/s (median) | range |", "|---|---|---|"]
    for name, rate in result["patterns_per_second"].items():
        lines.append(f"| {name} | {rate['median']:,} | {rate['least']:,}-{rate['most']:,} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
