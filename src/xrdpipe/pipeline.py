"""Pipelines: a TOML file whose tables are steps, run in order (files are the wires).

``[pipeline]`` may hold ``output``, a folder that every ``{output}`` in the steps stands for.
A table is a step named after its stage, or has ``stage = "…"``.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from xrdpipe import config
from xrdpipe.errors import InputError, InputMissingError, OptionError, did_you_mean
from xrdpipe.masks import shipped_folder
from xrdpipe.stages import run_stage
from xrdpipe.types import Outcome, Progress

if TYPE_CHECKING:
    from xrdpipe.stages.live.ends import Ends

STAGES = {name: kind for name, kind in config.STAGES.items() if name not in ("inspect", "validate")}


@dataclass(frozen=True)
class Step:
    """One step: its name in the file, its stage, its configuration."""

    name: str
    stage: str
    settings: config.Config


def load_pipeline(
    reference: str, changes: tuple[str, ...] = (), restart: bool = False
) -> list[Step]:
    """Read a pipeline file and check every option of every step.

    Parameters
    ----------
    reference
        Path, or the name of a shipped pipeline.
    changes
        ``step.key=value``; the value is read as TOML, or as text if it is none.

    Raises
    ------
    InputMissingError, InputError, OptionError
        Naming the file, the table and the key.
    """
    path = find_pipeline(reference)
    try:
        tables = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}.") from error
    for change in changes:
        _apply(tables, change)
    head = tables.pop("pipeline", {})
    unknown = set(head) - {"output", "title"}
    if unknown:
        name = sorted(unknown)[0]
        raise OptionError(
            f"{path} [pipeline]: unknown key '{name}'.{did_you_mean(name, ('output', 'title'))}"
        )
    output = str(head.get("output", "."))
    steps = [_step(path, name, table, output, restart) for name, table in tables.items()]
    if not steps:
        raise InputError(f"{path} has no step; expected a table such as [integrate].")
    return steps


def find_pipeline(reference: str) -> Path:
    """The file a name or path stands for; paths win."""
    path = Path(reference)
    if path.is_file():
        return path
    shipped = shipped_folder("pipelines")
    names = {file.stem: file for file in sorted(shipped.glob("*.toml"))}
    if reference in names:
        return names[reference]
    raise InputMissingError(
        f"pipeline {reference} is neither a file nor a shipped name."
        f"{did_you_mean(reference, names)}"
    )


def run_steps(steps: list[Step], progress: Progress) -> Outcome:
    """Run steps in order; lost frames of any step are added up."""
    lost, summaries = 0, []
    outcome = Outcome(None)
    for step in steps:
        progress.note(f"── {step.name}")
        outcome = run_stage(step.stage, step.settings, progress)
        lost += outcome.lost
        summaries.append(outcome.summary)
    return Outcome(outcome.path, lost, "\n".join(filter(None, summaries)))


def follow_steps(steps: list[Step], ends: Ends, progress: Progress) -> Outcome:
    """Run steps while the frames are still being measured.

    The first step that takes frames is followed until the scan is over, together with every map
    of its patterns. Then it and the steps after it are run as usual, from the rows that are there.
    Steps before it are run first.

    Raises
    ------
    OptionError
        If no step takes frames.
    """
    from xrdpipe.stages.live.follow import follow

    at = next((n for n, step in enumerate(steps) if _takes_frames(step)), None)
    if at is None:
        raise OptionError(
            "--follow: no step takes frames; expected [integrate], or [map] with a poni."
        )
    first, later = steps[at], steps[at + 1 :]
    outcomes = [run_steps(steps[:at], progress)]
    progress.note(f"── {first.name}, as frames come")
    integration, maps = _integration_and_maps(first, later)
    with follow(integration, maps, ends, progress) as followed:
        settings = first.settings
        if followed.restart:
            settings = dataclasses.replace(cast("config.IntegrateConfig", settings), restart=True)
        outcomes.append(run_stage(first.stage, settings, progress, followed.execution))
        followed.integrated()
        outcomes.append(run_steps(later, progress))
        followed.mapped()
    return Outcome(
        next(outcome.path for outcome in reversed(outcomes) if outcome.path),
        sum(outcome.lost for outcome in outcomes),
        "\n".join(outcome.summary for outcome in outcomes if outcome.summary),
    )


def _takes_frames(step: Step) -> bool:
    """Whether a step integrates frames."""
    settings = step.settings
    if isinstance(settings, config.MapConfig):
        return settings.poni is not None
    return isinstance(settings, config.IntegrateConfig)


def _integration_and_maps(
    first: Step, later: list[Step]
) -> tuple[config.IntegrateConfig, list[tuple[config.MapConfig, Path]]]:
    """How a step integrates its frames, and the maps made of its patterns with their files."""
    from xrdpipe.nn.model_folder import find_model, read_card
    from xrdpipe.stages.map import integration_of

    maps = []
    integration = first.settings
    if isinstance(integration, config.MapConfig):
        output = integration.output or Path("map.h5")
        maps.append((integration, output))
        integration = integration_of(integration, output, read_card(find_model(integration.model)))
    assert isinstance(integration, config.IntegrateConfig)
    patterns = (integration.output or Path("patterns.h5")).resolve()
    for step in later:
        settings = step.settings
        if (
            isinstance(settings, config.MapConfig)
            and settings.poni is None
            and [Path(name).resolve() for name in settings.patterns] == [patterns]
        ):
            maps.append((settings, settings.output or Path("map.h5")))
    return integration, maps


def _step(path: Path, name: str, table: Any, output: str, restart: bool) -> Step:
    if not isinstance(table, Mapping):
        raise OptionError(
            f"{path}: '{name}' stands outside a table; put it under a step such as [integrate]."
        )
    options = {key: _filled(value, output) for key, value in table.items()}
    stage = str(options.pop("stage", name))
    if stage not in STAGES:
        raise OptionError(
            f"{path} [{name}]: there is no stage '{stage}'.{did_you_mean(stage, STAGES)}"
        )
    kind = STAGES[stage]
    if restart and any(definition.name == "restart" for definition in config.fields(kind)):
        options["restart"] = True
    return Step(name, stage, kind.from_mapping(options, f"{path} [{name}]"))


def _filled(value: Any, output: str) -> Any:
    if isinstance(value, str):
        return value.replace("{output}", output)
    if isinstance(value, list):
        return [_filled(item, output) for item in value]
    return value


def _apply(tables: dict[str, Any], change: str) -> None:
    target, sign, text = change.partition("=")
    step, dot, key = target.strip().partition(".")
    if not (sign and dot and step and key):
        raise OptionError(f"--set {change}: expected STEP.KEY=VALUE.")
    if step not in tables:
        raise OptionError(f"--set {change}: no step '{step}'.{did_you_mean(step, tables)}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    tables[step][key.strip()] = value
