"""Train a model that ships: run the recipe, add the notes, put it under src/xrdpipe/models.

Run: ``python benchmarks/train_shipped_model.py [NAME [RECIPE [SEED]]]``, for example
``python benchmarks/train_shipped_model.py hydrothermal-dac train-ensemble 0``: about an hour
on two cores. Started again after an interruption it continues.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

from xrdpipe.config import TrainConfig
from xrdpipe.stages.train import run
from xrdpipe.types import Progress

WAVELENGTH = 0.4959
NOTES = (
    "Bastnaesite-(La), calcite and rhenium in a hydrothermal diamond-anvil cell, from synthetic "
    "patterns only. The wavelength 0.4959 Å (25 keV) is an assumption: the published experiment "
    "does not state it. The atom positions of bastnaesite-(La) are a model (see its CIF). "
    "'Present' means visible: a phase below the detection limit of a pattern is not judged in "
    "training. Rhenium as a trace (3 % of the strongest line or less) counts as absent."
)


def main() -> None:
    name, recipe, seed = (
        *sys.argv[1:],
        *["hydrothermal-dac", "train-ensemble", "0"][len(sys.argv) - 1 :],
    )
    work = Path("build") / "models" / name
    work.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()

    def note(text: str) -> None:
        print(f"{time.perf_counter() - started:7.0f} s  {text}", flush=True)

    config = TrainConfig(wavelength=WAVELENGTH, output=work, recipe=recipe, seed=int(seed))
    print(run(config, Progress(note=note)).summary)
    card = json.loads((work / "model.json").read_text(encoding="utf-8"))
    card["notes"] = NOTES
    text = json.dumps(card, indent=2, ensure_ascii=False)
    (work / "model.json").write_text(text + "\n", encoding="utf-8")
    report = json.loads((work / "report.json").read_text(encoding="utf-8"))
    report["command"] = f"python benchmarks/train_shipped_model.py {name} {recipe} {seed}"
    text = json.dumps(report, indent=2, ensure_ascii=False)
    (work / "report.json").write_text(text + "\n", encoding="utf-8")
    target = Path(__file__).parents[1] / "src" / "xrdpipe" / "models" / name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(work, target)


if __name__ == "__main__":
    main()
