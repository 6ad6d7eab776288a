"""Train the model that ships: a chain of trainings, notes, and the folder under src/xrdpipe/models.

Run: ``python benchmarks/train_shipped_model.py``: about three hours on two cores. Started again
after an interruption it continues. The shipped weights came out of this chain while the program
grew: each step had the generator of its day, which the tables below bring back as far as keys of a
recipe can.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from xrdpipe.config import TrainConfig
from xrdpipe.nn.train_recipe import find_recipe
from xrdpipe.stages.train import run
from xrdpipe.types import Progress

NAME = "hydrothermal-dac"
WAVELENGTH = 0.4959
NOTES = (
    "Bastnaesite-(La), calcite and rhenium in a hydrothermal diamond-anvil cell, from synthetic "
    "patterns only. The wavelength 0.4959 Å (25 keV) is an assumption: the published experiment "
    "does not state it. The atom positions of bastnaesite-(La) are a model (see its CIF). "
    "'Present' means visible: a phase below the detection limit of a pattern is not judged in "
    "training. Rhenium as a trace (3 % of the strongest line or less) counts as absent."
)


@dataclass(frozen=True)
class Step:
    """One training of the chain; all but the first begin with the weights of the one before.

    Parameters
    ----------
    recipe, seed
        As for ``xrdpipe train``.
    epochs
        Instead of those of the recipe.
    table
        Further lines of the recipe.
    """

    recipe: str
    seed: int
    epochs: int | None = None
    table: str = ""

    def text(self) -> str:
        """The recipe."""
        lines = find_recipe(self.recipe).read_text(encoding="utf-8").splitlines()
        if self.epochs is not None:
            lines = [f"epochs = {self.epochs}" if x.startswith("epochs =") else x for x in lines]
        return "\n".join([*lines, "", self.table, ""])


CHAIN = (
    Step("train-ensemble", 0, table="[synthesis.distractors]\ncrowded = 0"),
    Step("train-continue", 1, table="[synthesis.labels]\noverlap = 0"),
    Step("train-continue", 2),
    Step("train-continue", 3, epochs=150),
)


def main() -> None:
    """Train, step after step, and copy the last model."""
    work = Path("build") / "models"
    work.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()

    def note(text: str) -> None:
        print(f"{time.perf_counter() - started:7.0f} s  {text}", flush=True)

    folder: Path | None = None
    for number, step in enumerate(CHAIN):
        recipe = work / f"{NAME}-{number}.toml"
        recipe.write_text(step.text(), encoding="utf-8")
        last = step is CHAIN[-1]
        output = work / (NAME if last else f"{NAME}-{number}")
        config = TrainConfig(
            wavelength=WAVELENGTH, output=output, recipe=str(recipe), seed=step.seed, start=folder
        )
        note(run(config, Progress(note=note)).summary)
        folder = output
    ship(folder)


def ship(folder: Path) -> None:
    """Put a trained model where the package looks for it, with notes and how it was made."""
    target = Path(__file__).parents[1] / "src" / "xrdpipe" / "models" / NAME
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("report.html"))
    _add(target / "model.json", name=NAME, notes=NOTES)
    _add(target / "report.json", name=NAME, command="python benchmarks/train_shipped_model.py")


def _add(path: Path, **entries: str) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) | entries
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
