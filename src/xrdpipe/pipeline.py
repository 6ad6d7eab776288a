"""Pipelines: a TOML file whose tables are steps, run in order (files are the wires).

``[pipeline]`` may hold ``title`` and ``output``, a folder that every ``{output}`` in the steps
stands for; ``[cluster]`` what a batch system is asked for. Every other table is a step named after
its stage, or has ``stage = "…"``.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from xrdpipe import config
from xrdpipe.bounds import check_text
from xrdpipe.errors import InputError, InputMissingError, OptionError, did_you_mean
from xrdpipe.masks import shipped_folder
from xrdpipe.placeholders import filled, used
from xrdpipe.stages import run_stage
from xrdpipe.store.nexus import in_pipeline
from xrdpipe.types import Outcome, Progress

if TYPE_CHECKING:
    from xrdpipe.stages.live.ends import Ends
    from xrdpipe.stages.reduction import Execution

LOOK_ONLY = ("inspect", "validate", "status")
"""Commands that make nothing, and so are no steps."""

STAGES = {name: kind for name, kind in config.STAGES.items() if name not in LOOK_ONLY}

READS_FRAMES = {"integrate": "frames", "map": "patterns", "mask": "frames", "collect": "patterns"}
"""Stages that may read what was measured, and the option that names it (map: with ``poni``)."""

MADE_ANEW = ("evaluate", "report", "export")
"""Stages that look at a map and are done every time: they do not tell whether it was there."""

HEAD = ("output", "title")
"""What ``[pipeline]`` may hold."""

NO_STEPS = ("pipeline", "cluster")
"""Tables that are no steps."""


@dataclass(frozen=True)
class ScanName:
    """A scan that was given: its path as it was written, and its name."""

    path: str
    name: str


@dataclass(frozen=True)
class Step:
    """One step: its name in the file, its stage, its configuration.

    ``record`` says which step of which pipeline it is; the outputs keep it.
    """

    name: str
    stage: str
    settings: config.Config
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def integrates(self) -> bool:
        """Whether it integrates frames: ``map`` does where a geometry is given."""
        if isinstance(self.settings, config.MapConfig):
            return self.settings.poni is not None
        return isinstance(self.settings, config.IntegrateConfig)


@dataclass(frozen=True)
class Pipeline:
    """A pipeline file, changes applied, placeholders still open.

    Parameters
    ----------
    path, sha256
        The file, and the hash of its text.
    changes
        As ``--set`` gave them.
    title, output
        Of the table ``[pipeline]``.
    cluster
        What a batch system is asked for.
    tables
        Step → options.
    """

    path: Path
    sha256: str
    changes: tuple[str, ...]
    title: str
    output: str
    cluster: config.ClusterConfig
    tables: Mapping[str, Mapping[str, Any]]

    def steps(self, scan: ScanName | None = None, restart: bool = False) -> list[Step]:
        """The steps for one scan, every option checked; without a scan, as the file says.

        Where no input names the scan it takes the place of the frames; where no output does, each
        scan gets a folder of its own below ``{output}``, however many there are.

        Raises
        ------
        OptionError
            Naming the file, the table and the key.
        """
        tables = self.tables
        inputs = [
            value for table in tables.values() for key, value in table.items() if key != "output"
        ]
        if scan is not None and "scan" not in used(inputs):
            tables = self._reading_the_scan()
        known: dict[str, str | None] = {"scan": None, "name": None}
        if scan is not None:
            known = {"scan": scan.path, "name": scan.name}
        output = self._filled("pipeline", self.output, known)
        outputs = [self.output, *(table.get("output") for table in self.tables.values())]
        if scan is not None and not used(outputs) & {"scan", "name"}:
            output = str(Path(output) / scan.name)
        known["output"] = output
        record = {
            "file": self.path.name,
            "sha256": self.sha256,
            "title": self._filled("pipeline", self.title, known),
            "scan": "" if scan is None else scan.path,
            "set": list(self.changes),
        }
        return [
            self._step(name, self._filled(name, dict(table), known), restart, record)
            for name, table in tables.items()
        ]

    def _filled(self, table: str, value: Any, known: Mapping[str, str | None]) -> Any:
        try:
            if isinstance(value, dict):
                return {key: filled(item, known) for key, item in value.items()}
            return filled(value, known)
        except OptionError as error:
            raise OptionError(f"{self.path} [{table}]: {error}") from error

    def _step(
        self, name: str, options: dict[str, Any], restart: bool, record: Mapping[str, Any]
    ) -> Step:
        where = f"{self.path} [{name}]"
        stage = str(options.pop("stage", name))
        if stage not in STAGES:
            raise OptionError(f"{where}: there is no stage '{stage}'.{did_you_mean(stage, STAGES)}")
        kind = STAGES[stage]
        if restart and any(definition.name == "restart" for definition in config.fields(kind)):
            options["restart"] = True
        settings = kind.from_mapping(options, where)
        return Step(name, stage, settings, {**record, "step": name})

    def _reading_the_scan(self) -> dict[str, dict[str, Any]]:
        """The tables with ``{scan}`` as the frames of the first step that reads any.

        Steps that read the same frames get it, too; others would stay with what the file names,
        whatever the scan, and are refused.
        """
        tables = {name: dict(table) for name, table in self.tables.items()}
        readers = []
        for name, table in tables.items():
            stage = str(table.get("stage", name))
            key = READS_FRAMES.get(stage)
            if key is None or (stage == "map" and "poni" not in table):
                continue
            if not used(table.get(key)) & {"output", "name"}:
                readers.append((name, key))
        if not readers:
            if any("name" in used(table) for table in tables.values()):
                return tables
            raise OptionError(
                f"{self.path} has no step that reads frames, so --scan has nothing to replace; "
                "write {scan} where it belongs."
            )
        first, key = readers[0]
        stand_in = tables[first].get(key)
        changed = {change.partition("=")[0].strip() for change in self.changes}
        for name, key in readers:
            if tables[name].get(key) != stand_in:
                raise OptionError(
                    f"{self.path}: [{first}] and [{name}] read different frames, and only one can "
                    "be the --scan; write {scan} where it belongs."
                )
            if f"{name}.{key}" in changed:
                raise OptionError(
                    f"--scan and --set {name}.{key} both name the frames of [{name}]; give one of "
                    "them, or write {scan} into the value."
                )
        for name, key in readers:
            tables[name][key] = ["{scan}"]
        return tables


def read_pipeline(reference: str, changes: Sequence[str] = ()) -> Pipeline:
    """Read a pipeline file.

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
    check_text(path.stat().st_size, str(path))
    content = path.read_bytes()
    try:
        tables = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML: {error}.") from error
    for change in changes:
        _apply(tables, change)
    head, jobs = (tables.pop(name, {}) for name in NO_STEPS)
    for name, table in {"pipeline": head, "cluster": jobs, **tables}.items():
        if not isinstance(table, Mapping):
            raise OptionError(
                f"{path}: '{name}' stands outside a table; put it under a step such as [integrate]."
            )
    unknown = sorted(set(head) - set(HEAD))
    if unknown:
        raise OptionError(
            f"{path} [pipeline]: unknown key '{unknown[0]}'.{did_you_mean(unknown[0], HEAD)}"
        )
    if not tables:
        raise InputError(f"{path} has no step; expected a table such as [integrate].")
    return Pipeline(
        path,
        hashlib.sha256(content).hexdigest(),
        tuple(changes),
        str(head.get("title", "")),
        str(head.get("output", ".")),
        config.ClusterConfig.from_mapping(jobs, f"{path} [cluster]"),
        tables,
    )


def load_pipeline(reference: str, changes: Sequence[str] = (), restart: bool = False) -> list[Step]:
    """The steps of a pipeline file as it stands; see :func:`read_pipeline`."""
    return read_pipeline(reference, changes).steps(restart=restart)


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


def run_steps(steps: list[Step], progress: Progress, execution: Execution | None = None) -> Outcome:
    """Run steps in order; a frame that several of them lose is lost once.

    ``execution`` says where frames are integrated; None: by the threads of this process.
    """
    _tell_outside(steps, progress)
    return _together(steps, [_run_step(step, progress, execution) for step in steps])


def _tell_outside(steps: list[Step], progress: Progress) -> None:
    for step in steps:
        written = getattr(step.settings, "output", None)
        if written is not None and not written.resolve().is_relative_to(Path.cwd()):
            progress.note(f"{step.name} writes outside the current folder: {written}")


def follow_steps(steps: list[Step], progress: Progress, ends: Ends) -> Outcome:
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

    at = next((n for n, step in enumerate(steps) if step.integrates), None)
    if at is None:
        raise OptionError(
            "--follow: no step takes frames; expected [integrate], or [map] with a poni."
        )
    _tell_outside(steps, progress)
    first, later = steps[at], steps[at + 1 :]
    outcomes = [_run_step(step, progress) for step in steps[:at]]
    progress.note(f"── {first.name}, as frames come")
    integration, maps = _integration_and_maps(first, later)
    with follow(integration, maps, ends, progress) as followed:
        if followed.restart:
            settings = cast("config.IntegrateConfig", first.settings)
            first = replace(first, settings=replace(settings, restart=True))
        outcomes.append(_run_step(first, progress, followed.execution))
        followed.integrated()
        outcomes += [_run_step(step, progress) for step in later]
        followed.mapped()
    return _together(steps, outcomes)


def _run_step(step: Step, progress: Progress, execution: Execution | None = None) -> Outcome:
    progress.note(f"── {step.name}")
    with in_pipeline(step.record):
        on = execution if step.integrates else None
        return run_stage(step.stage, step.settings, progress, on)


def _together(steps: list[Step], outcomes: list[Outcome]) -> Outcome:
    """The end of the last step, with what all of them lost and said."""
    return Outcome(
        outcomes[-1].path,
        _lost(steps, outcomes),
        "\n".join(outcome.summary for outcome in outcomes if outcome.summary),
        done_before=all(
            outcome.done_before
            for step, outcome in zip(steps, outcomes, strict=True)
            if step.stage not in MADE_ANEW
        ),
        shown=tuple(
            part for outcome in outcomes for part in outcome.shown or (outcome.summary,) if part
        ),
    )


def _lost(steps: list[Step], outcomes: list[Outcome]) -> int:
    """Frames that were lost, each once: steps after the first that meets them lose them again."""
    lost: dict[tuple[str, ...], int] = {}
    made_of: dict[str, tuple[str, ...]] = {}
    for step, outcome in zip(steps, outcomes, strict=True):
        given = getattr(step.settings, READS_FRAMES.get(step.stage, "patterns"), ())
        named = (given,) if isinstance(given, str | Path) else given
        inputs = tuple(str(Path(name).resolve()) for name in named)
        frames = next((made_of[name] for name in inputs if name in made_of), inputs)
        made_of[str(Path(outcome.path).resolve())] = frames
        lost[frames] = max(lost.get(frames, 0), outcome.lost)
    return sum(lost.values())


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


def _apply(tables: dict[str, Any], change: str) -> None:
    target, sign, text = change.partition("=")
    step, dot, key = target.strip().partition(".")
    if not (sign and dot and step and key):
        raise OptionError(f"--set {change}: expected STEP.KEY=VALUE.")
    if step not in tables and step not in NO_STEPS:
        raise OptionError(f"--set {change}: no step '{step}'.{did_you_mean(step, tables)}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    tables.setdefault(step, {})[key.strip()] = value
