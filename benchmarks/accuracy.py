"""Score models on simulated maps that no training saw, masked and unmasked, beside prevalence.

    python benchmarks/accuracy.py --model hydrothermal-dac --model paper=/path/to/paper-mtl

The maps come from the explicit-grain 2D simulator, the models learned from the 1D generator; the
two share structure factors and nothing else. Writes results/accuracy.json and, between the
markers of --doc, a table.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import xrdpipe
from xrdpipe.metrics import score_map
from xrdpipe.stages.versions import software_versions
from xrdpipe.store.maps import read_map
from xrdpipe.store.truth import read_truth

STRENGTHS = (0.0, 0.1, 0.2, 0.5, 1.0, 10.0)
"""Edges of the strongest line over local background, for the probability of detection."""

MAPS = {
    # seed → options of simulate: as the demo, coarse grains, few counts, fine grains and bright
    101: {},
    102: {"grains": 3.0},
    103: {"counts": 5.0},
    104: {"grains": 5.5, "counts": 100.0},
}


def make_map(seed: int, options: dict[str, Any], work: Path, shape: str) -> tuple[Path, Path]:
    """Simulate and integrate one map; returns (patterns, truth)."""
    folder = work / f"scan_{seed}"
    xrdpipe.simulate(output=folder, scan_shape=shape, seed=seed, format="cbf", **options)
    patterns = work / f"patterns_{seed}.h5"
    xrdpipe.integrate(
        frames=str(folder / "frames"),
        poni=folder / "geometry.poni",
        mask=[str(folder / "mask.npy"), str(folder / "diamond_spots.npy")],
        variant="both",
        spottiness=True,
        output=patterns,
    )
    return patterns, folder / "truth.h5"


def collect(
    name: str, model: str, maps: dict[int, tuple[Path, Path]], work: Path
) -> dict[str, Any]:
    """Scores of one model on all maps together and on each."""
    result: dict[str, Any] = {}
    for variant in ("masked", "unmasked"):
        found, truths = [], []
        each = {}
        for seed, (patterns, truth_path) in maps.items():
            output = work / f"map_{name}_{variant}_{seed}.h5"
            truth = read_truth(truth_path)
            ny, nx = truth.presence.shape[1:]
            xrdpipe.map(
                patterns=str(patterns),
                model=model,
                variant=variant,
                scan_shape=f"{ny}x{nx}",
                output=output,
                png=False,
                restart=True,
            )
            stored = read_map(output)
            found.append(stored)
            truths.append(truth)
            scores = score_map(
                truth.phase_names, truth.presence, stored.probability, stored.decision
            )
            each[str(seed)] = {row["phase"]: row["accuracy"] for row in scores["phases"]}
        # The maps one below the other: (K, maps * ny, nx).
        presence = np.concatenate([truth.presence for truth in truths], axis=1)
        probability = np.concatenate([stored.probability for stored in found], axis=1)
        decision = np.concatenate([stored.decision for stored in found], axis=1)
        strength = np.concatenate([truth.strength for truth in truths], axis=1)
        names = truths[0].phase_names
        pooled = score_map(names, presence, probability, decision)
        pooled["accuracy_of_each_map"] = each
        pooled["detection_by_strength"] = detection(names, presence, decision, strength)
        result[variant] = pooled
    return result


def detection(
    names: tuple[str, ...], presence: Any, decision: Any, strength: Any
) -> dict[str, list[dict[str, Any]]]:
    """Fraction of present pixels found, by the strength of the strongest line."""
    table = {}
    for k, name in enumerate(names):
        rows = []
        for low, high in itertools.pairwise(STRENGTHS):
            here = presence[k].astype(bool) & (strength[k] >= low) & (strength[k] < high)
            n, hit = int(here.sum()), int((decision[k][here] == 1).sum())
            rows.append({"from": low, "to": high, "n": n, "found": hit / n if n else None})
        table[name] = rows
    return table


def as_table(results: dict[str, Any]) -> str:
    """Markdown: per phase accuracy and balanced accuracy beside prevalence."""
    first = next(iter(results.values()))["masked"]
    names = [row["phase"] for row in first["phases"]]
    lines = [
        f"| model, variant | {' | '.join(names)} | all three right |",
        "|---|" + "---|" * (len(names) + 1),
    ]
    constant = " | ".join(f"{100 * row['constant_accuracy']:.1f} / 50.0" for row in first["phases"])
    whole = 100 * first["exact_match"]["constant"]
    lines.append(f"| best constant answer | {constant} | {whole:.1f} |")
    for model, variants in results.items():
        for variant, scores in variants.items():
            cells = " | ".join(
                f"{100 * row['accuracy']:.1f} / {100 * row['balanced_accuracy']:.1f}"
                for row in scores["phases"]
            )
            match = 100 * scores["exact_match"]["exact_match"]
            lines.append(f"| {model}, {variant} | {cells} | {match:.1f} |")
    prevalence = ", ".join(
        f"{row['phase']} {100 * row['prevalence']:.0f} %" for row in first["phases"]
    )
    lines += ["", f"Accuracy % / balanced accuracy %. Prevalence: {prevalence}; "
              f"{first['pixels']} pixels."]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", required=True, help="NAME or NAME=FOLDER")
    parser.add_argument("--shape", default="16x16")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--doc", type=Path, help="Markdown file with <!-- accuracy --> markers")
    parser.add_argument(
        "-o", type=Path, default=Path(__file__).parent / "results" / "accuracy.json", dest="output"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = given.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        maps = {seed: make_map(seed, options, work, given.shape) for seed, options in MAPS.items()}
        results = {}
        for entry in given.model:
            name, _, folder = entry.partition("=")
            results[name] = collect(name, folder or name, maps, work)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "maps": {
            str(seed): {"seed": seed, "shape": given.shape, "detector": "Pilatus300k", **options}
            for seed, options in MAPS.items()
        },
        "models": results,
        "versions": software_versions(),
        "python": platform.python_version(),
    }
    given.output.write_text(json.dumps(report, indent=1) + "\n")
    table = as_table(results)
    print(table)
    if given.doc:
        text = given.doc.read_text()
        start, end = "<!-- accuracy -->", "<!-- /accuracy -->"
        before, after = text.split(start)[0], text.split(end)[1]
        given.doc.write_text(f"{before}{start}\n{table}\n{end}{after}")


if __name__ == "__main__":
    main()
