"""What each stage would do, and everything that would stop it: nothing is run, nothing written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from xrdpipe.config import (
    CollectConfig,
    Config,
    EvaluateConfig,
    ExportConfig,
    IntegrateConfig,
    MapConfig,
    MaskConfig,
    ReportConfig,
    ResampleConfig,
    SimulateConfig,
    SynthesizeConfig,
    TrainConfig,
)
from xrdpipe.errors import InputError, XrdpipeError
from xrdpipe.frames import open_frames
from xrdpipe.frames.auxiliary import load_correction, load_masks, read_plane
from xrdpipe.frames.dead import oriented
from xrdpipe.integration.geometry import load_geometry
from xrdpipe.masks import shipped_masks
from xrdpipe.nn.model_folder import CARD, ModelCard, find_model, model_sha256, read_card
from xrdpipe.nn.train_recipe import load_recipe
from xrdpipe.resampling import plan_resampling
from xrdpipe.stages import collect, integrate, mask, resample, simulate, synthesize
from xrdpipe.stages import map as mapping
from xrdpipe.stages.evaluate import evaluate_maps
from xrdpipe.stages.normalisation import load_normalisation
from xrdpipe.stages.scans import resolve_scan
from xrdpipe.store import maps as map_files
from xrdpipe.store import patterns as pattern_files
from xrdpipe.store import training_set as set_files
from xrdpipe.store.map_record import read_map_record
from xrdpipe.store.masks import mask_done
from xrdpipe.store.nexus import already_done
from xrdpipe.store.parts import (
    KEY_FILE,
    being_written,
    part_folder,
    refuse_another,
    rows_of,
    whole_blocks,
    writers,
)
from xrdpipe.store.patterns import PatternsFile
from xrdpipe.types import FrameSource, Grid, Progress

DEFAULT_OUTPUT = {
    IntegrateConfig: "patterns.h5",
    CollectConfig: "patterns.h5",
    ResampleConfig: "resampled.h5",
    MapConfig: "map.h5",
}
"""What a stage writes where no output is named."""

Found = TypeVar("Found")
Given = ParamSpec("Given")


@dataclass(frozen=True)
class Checked:
    """What a step would do.

    Parameters
    ----------
    does
        One line: from what to what.
    state
        ``already done``, ``continues …`` or ``to do``.
    problems
        Whatever would stop it, one sentence each.
    outputs
        What it writes.
    source
        The frames behind its output, where they could be opened.
    """

    settings: Config
    does: str
    state: str
    problems: tuple[str, ...]
    outputs: tuple[Path, ...]
    source: FrameSource | None = None

    @property
    def done(self) -> bool:
        """True if nothing is left to do: whoever comes next finds the outputs."""
        return self.state == DONE


DONE, TO_DO = "already done", "to do"


def outputs_of(settings: Config) -> tuple[Path, ...]:
    """Files and folders that a stage writes."""
    output = getattr(settings, "output", None) or DEFAULT_OUTPUT.get(type(settings))
    if output is None:
        return ()
    output = Path(output)
    if isinstance(settings, MapConfig) and settings.poni is not None:
        return mapping.patterns_beside(output), output
    return (output,)


def check(
    settings: Config, earlier: Sequence[Checked] = (), progress: Progress | None = None
) -> Checked:
    """Check everything a stage would use, as far as it is there already.

    Parameters
    ----------
    earlier
        The steps before: what they will write need not exist.
    progress
        Warnings of the stage are handed on.
    """
    given = (progress or Progress()).note

    def warn(text: str) -> None:
        if text.startswith("warning"):
            given(text)

    step = _Step(settings, earlier, Progress(note=warn))
    does, state = _CHECKS[type(settings)](step)
    for output in outputs_of(settings):
        step.attempt(_check_writable, output)
    return Checked(
        settings, does, state or TO_DO, tuple(step.problems), outputs_of(settings), step.source
    )


@dataclass
class _Step:
    """A step under examination; ``problems`` are sentences, the first does not hide the next."""

    settings: Any
    earlier: Sequence[Checked]
    progress: Progress
    problems: list[str] = field(default_factory=list)
    source: FrameSource | None = None

    def maker(self, path: str | Path) -> Checked | None:
        """The earlier step that will write this path, or a folder it lies in."""
        place = Path(str(path).partition("::")[0]).absolute()
        for checked in reversed(self.earlier):
            if not checked.done and any(
                output.absolute() in (place, *place.parents) for output in checked.outputs
            ):
                return checked
        return None

    def attempt(
        self, what: Callable[Given, Found], *args: Given.args, **kwargs: Given.kwargs
    ) -> Found | None:
        """The result, or None and one sentence more."""
        try:
            return what(*args, **kwargs)
        except (XrdpipeError, OSError) as error:
            self.say(str(error))
        return None

    def say(self, problem: str) -> None:
        """Add a sentence, once."""
        if problem not in self.problems:
            self.problems.append(problem)

    def require(self, path: str | Path | None, what: str) -> None:
        """A file that must be there, unless an earlier step writes it."""
        if path is not None and not self.maker(path) and not Path(path).exists():
            self.say(f"{what} {path} does not exist.")


def _check_writable(output: Path) -> None:
    """Refuse a place in which nothing can be made."""
    place = output.parent
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise InputError(f"{output} cannot be written: {place} is a file, not a folder.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"{output} cannot be written: no permission to write into {place}.")


# --- the stages ------------------------------------------------------------------------------


def _integrate(step: _Step) -> tuple[str, str]:
    return _frames_to_patterns(step, step.settings, outputs_of(step.settings)[0])


def _frames_to_patterns(step: _Step, config: IntegrateConfig, output: Path) -> tuple[str, str]:
    """Frames, geometry, masks and corrections one by one; the rest if all of these are sound."""
    if any(step.maker(name) for name in config.frames):
        _check_beside_frames(step, config, None)
        return f"frames of an earlier step → {output}", ""
    source = step.source = step.attempt(open_frames, config.frames)
    shape = None
    if source is not None:
        first = step.attempt(integrate.first_frame, source)
        if first is not None:
            rows, columns = oriented(first, config.flip, config.rotate).shape
            shape = int(rows), int(columns)
        step.attempt(load_normalisation, config, source, Progress())
    _check_beside_frames(step, config, shape)
    does = f"{_frames(source)} → {output} ({config.variant})"
    if step.problems or source is None:
        return does, ""
    if step.maker(config.poni) or any(map(step.maker, config.mask)):
        return does, ""
    inputs = step.attempt(integrate.open_inputs, config, step.progress)
    if inputs is None:
        return does, ""
    found = step.attempt(_state, output, inputs.key(), pattern_files.KEY_PATH, config)
    return does, found or ""


def _check_beside_frames(
    step: _Step, config: IntegrateConfig, shape: tuple[int, int] | None
) -> None:
    """Geometry, masks, dark and flat; whether they fit, where the shape of the frames is known."""
    if not step.maker(config.poni):
        shape = step.attempt(_detector_shape, config, shape) or shape
    for reference in config.mask:
        if not step.maker(reference.removesuffix("@stored")):
            step.attempt(_check_mask, reference, config, shape)
    for given, what in ((config.dark, "dark frame"), (config.flat, "flat field")):
        if shape is not None:
            step.attempt(load_correction, given, what, shape, config.flip, config.rotate)


def _check_mask(reference: str, config: IntegrateConfig, shape: tuple[int, int] | None) -> None:
    if shape is not None:
        load_masks((reference,), shape, config.flip, config.rotate)
    elif reference.removesuffix("@stored") not in shipped_masks():
        read_plane(reference.removesuffix("@stored"), "mask")


def _detector_shape(config: IntegrateConfig, shape: tuple[int, int] | None) -> tuple[int, int]:
    return load_geometry(config.poni, shape, config.wavelength).shape


def _frames(source: FrameSource | None) -> str:
    return "frames" if source is None else f"{len(source.records)} frames of {source.name}"


def _state(output: Path, key: Mapping[str, Any], key_path: str, config: Any) -> str:
    """How far this output is; raises where it belongs to another run, or one is writing it."""
    if already_done(output, dict(key), key_path, config.restart):
        return DONE
    folder = part_folder(output)
    for writer in writers(folder):
        raise being_written(output, writer)
    if config.restart or not (folder / KEY_FILE).is_file():
        return TO_DO
    refuse_another(folder, key)
    done = rows_of(whole_blocks(folder, verify=False)).size
    return f"continues after {done} of {len(key['frames'])} frames"


def _map(step: _Step) -> tuple[str, str]:
    config: MapConfig = step.settings
    output = outputs_of(config)[-1]
    folder = step.attempt(find_model, config.model)
    card = None if folder is None else step.attempt(read_card, folder)
    if card is not None:
        step.attempt(mapping.prior_of, config, card)
    model = "" if card is None else f" by model {card.name}"
    if config.poni is not None:
        if card is None:
            return f"frames → {output}", ""
        inner = mapping.integration_of(config, output, card)
        does, state = _frames_to_patterns(step, inner, outputs_of(config)[0])
        if step.source is not None:
            source = step.source
            step.attempt(resolve_scan, config, source)
            if not step.problems:
                step.attempt(mapping.check_geometry_reaches, config, source, card.grid, Progress())
        if state == DONE:
            state = step.attempt(_check_patterns, step, outputs_of(config)[0], card, folder) or ""
        return f"{does} → {output}{model}", state
    maker = step.maker(config.patterns[0])
    does = f"{config.patterns[0]} → {output}{model}"
    if maker is not None:
        step.source = maker.source
        _check_coming_patterns(step, maker, card)
        return does, ""
    path = step.attempt(mapping.patterns_given, config)
    if path is None:
        return does, ""
    return does, step.attempt(_check_patterns, step, path, card, folder) or ""


def _check_coming_patterns(step: _Step, maker: Checked, card: ModelCard | None) -> None:
    """Scan and reach of patterns that an earlier step will write, from the frames behind them."""
    config: MapConfig = step.settings
    if maker.source is None:
        return
    source = maker.source
    step.attempt(resolve_scan, config, source)
    made_by = maker.settings
    if not isinstance(made_by, IntegrateConfig) or maker.problems:
        return
    held = ("masked", "unmasked") if made_by.variant == "both" else (made_by.variant,)
    wanted = ("masked", "unmasked") if config.variant == "both" else (config.variant or held[0],)
    lacking = [variant for variant in wanted if variant not in held]
    if lacking:
        step.say(
            f"{maker.outputs[0]} will hold the {made_by.variant} variant, not '{lacking[0]}'; "
            f'integrate with variant = "{lacking[0]}" or "both".'
        )
    if card is not None:
        step.attempt(mapping.check_geometry_reaches, made_by, source, card.grid, Progress())


def _check_patterns(step: _Step, path: Path, card: ModelCard | None, folder: Path | None) -> str:
    """Patterns that are there: variant, scan, reach, and how far the map is."""
    config: MapConfig = step.settings
    output = outputs_of(config)[-1]
    both = config.variant == mapping.BOTH
    with PatternsFile(path, "masked" if both else config.variant) as source:
        step.attempt(resolve_scan, config, source)
        if card is None or folder is None:
            return ""
        plan = plan_resampling(source.rows(0, 1), card.grid, config.method)
        step.attempt(resample.check_coverage, source, card.grid, plan)
        variant = mapping.BOTH if both else source.variant
        key = mapping.run_key(config, source, variant, model_sha256(folder))
    if both:
        PatternsFile(path, "unmasked").close()
    if output.resolve() == path.resolve():
        return ""
    return _state(output, key, map_files.KEY_PATH, config)


def _resample(step: _Step) -> tuple[str, str]:
    config: ResampleConfig = step.settings
    output = outputs_of(config)[0]
    does = f"{config.patterns} → {output}"
    grid = step.attempt(resample.grid_of, config)
    maker = step.maker(config.patterns)
    if maker is not None:
        step.source = maker.source
        return does, ""

    def state() -> str:
        with PatternsFile(config.patterns, config.variant) as source:
            if grid is None:
                return ""
            plan = plan_resampling(source.rows(0, 1), grid, config.method)
            resample.check_coverage(source, grid, plan)
            return _state(output, resample.run_key(config, source, grid), resample.KEY_PATH, config)

    return does, step.attempt(state) or ""


def _collect(step: _Step) -> tuple[str, str]:
    config: CollectConfig = step.settings
    output = outputs_of(config)[0]
    if any(map(step.maker, config.patterns)):
        return f"patterns of an earlier step → {output}", ""
    found = step.attempt(collect.list_files, config)
    if found is None:
        return f"patterns → {output}", ""
    files, names, _ = found
    key = collect.run_key(config, collect.records_of(files, names))
    state = step.attempt(_state, output, key, pattern_files.KEY_PATH, config)
    return f"{len(files)} patterns → {output}", state or ""


def _mask(step: _Step) -> tuple[str, str]:
    config: MaskConfig = step.settings
    if any(map(step.maker, (*config.frames, *config.combine))):
        return f"frames of an earlier step → {config.output}", ""
    if config.poni is not None and step.maker(config.poni):
        config = replace(config, poni=None, spots=None, azimuthal=None, shadow=None)
    job = step.attempt(mask.prepare, config, step.progress)
    if job is None:
        return f"frames → {config.output}", ""
    step.source = job.source
    state = step.attempt(
        lambda: DONE if mask_done(config.output, mask.run_key(job), config.restart) else TO_DO
    )
    return f"{len(job.sample)} of {_frames(job.source)} → {config.output}", state or ""


def _simulate(step: _Step) -> tuple[str, str]:
    config: SimulateConfig = step.settings
    ny, nx = config.scan_shape

    def state() -> str:
        experiment = simulate.plan(
            config, simulate.geometry_of(config), simulate.label_phases(config)
        )
        record = simulate.record_of(config, experiment)
        return DONE if simulate.simulated_before(config.output, config.restart, record) else TO_DO

    return f"{ny * nx} simulated frames → {config.output}", step.attempt(state) or ""


def _synthesize(step: _Step) -> tuple[str, str]:
    config: SynthesizeConfig = step.settings

    def state() -> str:
        key = synthesize.plan(config, Progress()).key
        return _state(config.output, key, set_files.KEY_PATH, config)

    return f"{config.number} synthetic patterns → {config.output}", step.attempt(state) or ""


def _train(step: _Step) -> tuple[str, str]:
    """Recipe, phases and the files it names; whether they fit each other, training says."""
    config: TrainConfig = step.settings
    step.attempt(load_recipe, config.recipe)
    step.attempt(synthesize.user_library, config.cif, Progress())
    step.attempt(Grid.parse, config.grid, config.wavelength)
    for path in (*config.labelled, *config.truth, config.calibrant, config.calibrant_cif):
        step.require(path, "input")
    step.require(config.like, "patterns file")
    if config.start is not None and not step.maker(config.start):
        step.attempt(find_model, config.start)
    if config.output.exists() and not (config.output / CARD).is_file():
        step.say(f"'{config.output}' exists and is no model folder; give another output.")
    there = config.output.exists() and not config.restart
    return f"training → {config.output}", "a model is there" if there else ""


def _evaluate(step: _Step) -> tuple[str, str]:
    config: EvaluateConfig = step.settings
    step.require(config.map, "map file")
    step.require(config.truth, "truth file")
    there = not (step.problems or step.maker(config.map) or step.maker(config.truth))
    if there:
        step.attempt(evaluate_maps, config.map, config.truth)
    return f"scores of {config.map} against {config.truth}", ""


def _of_map(step: _Step) -> tuple[str, str]:
    """A report or an export; what an export names in the map is checked once the map is there."""
    config: ReportConfig | ExportConfig = step.settings
    step.require(config.map, "map file")
    if not (step.problems or step.maker(config.map)):
        step.attempt(read_map_record, config.map)
    made = "report" if isinstance(config, ReportConfig) else config.format
    return f"{config.map} → {config.output or made}", ""


_CHECKS: Mapping[type[Config], Callable[[_Step], tuple[str, str]]] = {
    IntegrateConfig: _integrate,
    MapConfig: _map,
    ResampleConfig: _resample,
    CollectConfig: _collect,
    MaskConfig: _mask,
    SimulateConfig: _simulate,
    SynthesizeConfig: _synthesize,
    TrainConfig: _train,
    EvaluateConfig: _evaluate,
    ReportConfig: _of_map,
    ExportConfig: _of_map,
}
