"""Stage ``synthesize``: CIF files and a wavelength to a set of synthetic patterns with targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from xrdpipe.config import SynthesizeConfig
from xrdpipe.crystal import load_phase, oddities
from xrdpipe.errors import OptionError
from xrdpipe.nn.train_recipe import load_recipe
from xrdpipe.phases import distractor_phases, shipped_phases
from xrdpipe.pictures import draw_patterns
from xrdpipe.stages.versions import software_versions
from xrdpipe.store.nexus import already_done
from xrdpipe.store.training_set import KEY_PATH, TrainingSet, write_training_set
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.types import Grid, Outcome, Phase, PhaseLibrary, Progress

if TYPE_CHECKING:
    from xrdpipe.nn.stream import Stream

SHOWN = 12
"""Patterns in the picture."""


@dataclass(frozen=True)
class Plan:
    """What a set is made of; ``key`` is what it depends on (decision 21)."""

    data: str
    synthesis: Recipe
    grid: Grid
    library: PhaseLibrary
    distractors: tuple[Phase, ...]
    key: dict[str, Any]


def run(config: SynthesizeConfig, progress: Progress | None = None) -> Outcome:
    """Write the first patterns of a stream.

    Raises
    ------
    InputError
        A CIF cannot be used, or a phase has no line on the grid.
    OptionError
        The recipe is of a fixed set.
    OutputExistsError
        The output exists and is another set.
    """
    progress = progress if progress is not None else Progress()
    planned = plan(config, progress)
    grid, library, key = planned.grid, planned.library, planned.key
    if already_done(config.output, key, KEY_PATH, config.restart):
        return Outcome.already_done(config.output)

    # torch is loaded only when everything that can be refused has been checked.
    from xrdpipe.nn.stream import Stream

    kind = "synthetic-crystals" if planned.data == "synthetic-crystals" else "physics"
    stream = Stream(library, planned.distractors, grid, planned.synthesis, config.seed, kind)
    about = TrainingSet(
        tuple(phase.name for phase in library.phases), grid, config.number, config.recorded(), key
    )
    progress.start("synthesize", config.number)
    write_training_set(config.output, about, _blocks(stream, config.number, progress))
    progress.done()
    if config.png:
        _draw(config, stream, library.phases)
    return Outcome(
        config.output, 0, f"{config.output}: {config.number} patterns of {len(library)} phases."
    )


def plan(config: SynthesizeConfig, progress: Progress) -> Plan:
    """Read recipe and phases; raises what ``run`` does before anything is written."""
    recipe, synthesis = load_recipe(config.recipe)
    if recipe.data == "s-set":
        raise OptionError(
            f"recipe '{config.recipe}' trains on a fixed set, not on a stream that can be written; "
            "use another recipe."
        )
    grid = Grid.parse(config.grid, config.wavelength)
    library = user_library(config.cif, progress)
    distractors = tuple(load_phase(path) for path in distractor_phases().values())
    key = {
        "stage": "synthesize",
        "phases": {phase.name: phase.sha256 for phase in library.phases},
        "distractors": {phase.name: phase.sha256 for phase in distractors},
        "grid": asdict(grid),
        "data": recipe.data,
        "synthesis": asdict(synthesis),
        "number": config.number,
        "seed": config.seed,
        "versions": software_versions(),
    }
    return Plan(recipe.data, synthesis, grid, library, distractors, key)


def user_library(cifs: tuple[Any, ...], progress: Progress) -> PhaseLibrary:
    """Phases of CIF files (default: the shipped ones); what is odd about them is told."""
    paths = cifs or tuple(shipped_phases().values())
    library = PhaseLibrary(tuple(load_phase(path) for path in paths))
    for phase in library.phases:
        for oddity in oddities(phase):
            progress.note(f"warning: {oddity}")
    return library


def _blocks(stream: Stream, number: int, progress: Progress) -> Iterator[dict[str, NDArray[Any]]]:
    from xrdpipe.nn.stream import BLOCK, draw_block

    for first in range(0, number, BLOCK):
        count = min(BLOCK, number - first)
        tensors = draw_block(stream, first, count).as_tensors()
        yield {name: values.numpy() for name, values in tensors.items()}
        progress.advance(count)


def _draw(config: SynthesizeConfig, stream: Stream, phases: tuple[Phase, ...]) -> None:
    from xrdpipe.nn.stream import draw_block

    tensors = draw_block(stream, 0, min(SHOWN, config.number)).as_tensors()
    draw_patterns(
        config.output.with_suffix(".png"),
        stream.grid,
        tensors["masked"].numpy(),
        tensors["unmasked"].numpy(),
        tensors["present"].numpy(),
        [phase.name for phase in phases],
    )
