"""Patterns and frames per second: the 1D generator with everything on, without, and the simulator.

    python benchmarks/throughput.py -o benchmarks/results/throughput.json --doc docs/synthesis.md

One thread, processor time; best of several rounds, medians beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from processes import machine

from xrdpipe import crystal
from xrdpipe.crystal import load_phase
from xrdpipe.nn.lineshapes import Lines, render_lines
from xrdpipe.nn.memory import keep_memory
from xrdpipe.nn.patterns import draw_pairs
from xrdpipe.nn.stream import BLOCK
from xrdpipe.phases import distractor_phases, shipped_phases
from xrdpipe.simulation.frame import expected_counts, simulate_frame
from xrdpipe.simulation.sample import draw_sample
from xrdpipe.stages import simulate
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.synthesis.scene import Generator, draw_scene, make_generator
from xrdpipe.types import Grid, PhaseLibrary

GRID = Grid(5, 24, 0.01, 0.4959)
MARKER = re.compile(r"(<!-- throughput -->\n).*?(<!-- /throughput -->)", re.S)


def rate(work: Callable[[int], object], per_call: int, rounds: int) -> dict[str, float]:
    """Items per second of processor time: best and median round."""
    work(0)
    found = []
    for number in range(1, rounds + 1):
        start = time.process_time()
        work(number)
        found.append(per_call / (time.process_time() - start))
    return {"best": round(max(found), 1), "median": round(statistics.median(found), 1)}


def patterns(rounds: int, block: int) -> dict[str, dict[str, float]]:
    """Rates of the 1D generator."""
    library = PhaseLibrary(tuple(load_phase(path) for path in shipped_phases().values()))
    others = tuple(load_phase(path) for path in distractor_phases().values())
    every = [effect.name for effect in fields(Recipe)]
    bare = Recipe().without(*(name for name in every if name != "composition"))
    found = {}
    for name, recipe, phases in (
        ("pairs, every effect on", Recipe(), others),
        ("pairs, no noise", Recipe().without("noise"), others),
        ("patterns without distortions", bare, ()),
    ):
        generator = make_generator(library, phases, GRID, recipe)

        def work(number: int, generator=generator) -> None:
            for part in range(4):
                draw_pairs(generator, (4 * number + part) * block, block, seed=1)

        found[name] = rate(work, 4 * block, rounds)
    lines = ideal_lines(make_generator(library, (), GRID, bare), block)
    found["ideal lines, rendering alone"] = rate(
        lambda _: [render_lines(lines, block, GRID.size) for _ in range(4)], 4 * block, rounds
    )
    return found


def ideal_lines(generator: Generator, block: int) -> Lines:
    """The lines of a block of patterns without distortions."""
    sticks = draw_scene(generator, 0, block, seed=1).sticks
    return Lines(
        torch.from_numpy(sticks.sample),
        torch.from_numpy((sticks.position - GRID.start) / GRID.step),
        torch.from_numpy(sticks.width / GRID.step),
        torch.from_numpy(sticks.mixing),
        torch.from_numpy(sticks.clean[:, None] / GRID.step),
    )


def frames(rounds: int) -> dict[str, dict[str, float]]:
    """Rates of the 2D simulator on an Eiger 1M, everything on."""
    with tempfile.TemporaryDirectory() as scratch:
        geometry = simulate.write_geometry(Path(scratch) / "g.poni", "Eiger1M", 0.1, 0.4959)
    setup = simulate.plan_setup(geometry, 1)
    tables = [
        crystal.reflections(load_phase(path), 0.4959, 0.9) for path in shipped_phases().values()
    ]
    sample = draw_sample(tables, (4, 8), 1)
    return {
        "frames, expected counts": rate(
            lambda n: [expected_counts(setup, sample, (2 * n + k) % 32, 1) for k in range(2)],
            2,
            rounds,
        ),
        "frames, counted": rate(
            lambda n: [simulate_frame(setup, sample, (2 * n + k) % 32, 1) for k in range(2)],
            2,
            rounds,
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--block", type=int, default=BLOCK)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--doc", type=Path, help="document whose table is replaced")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    result = {
        "machine": machine(),
        "block": arguments.block,
        "per_second_of_one_core": patterns(arguments.rounds, arguments.block)
        | frames(arguments.rounds),
    }
    print(json.dumps(result, indent=2))
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    if arguments.doc:
        lines = ["| per second and core | best round | median |", "|---|---|---|"]
        lines += [
            f"| {name} | {values['best']:,.0f} | {values['median']:,.0f} |"
            for name, values in result["per_second_of_one_core"].items()
        ]
        table = "\n".join(lines)
        text = arguments.doc.read_text()
        arguments.doc.write_text(MARKER.sub(rf"\g<1>{table}\n\g<2>", text))


if __name__ == "__main__":
    main()
