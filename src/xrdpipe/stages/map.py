"""``xrdpipe map``: patterns (or frames) → a per-pixel phase map."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xrdpipe import config as options
from xrdpipe.channels import OPTIONAL
from xrdpipe.config import IntegrateConfig, MapConfig
from xrdpipe.errors import InputError, OptionError
from xrdpipe.frames import open_frames
from xrdpipe.integration.cache import NO_CACHE, open_cache
from xrdpipe.integration.geometry import choose_binning, load_geometry
from xrdpipe.maps import PhaseMap, assemble
from xrdpipe.nn.model_folder import (
    ModelCard,
    determined,
    find_model,
    model_sha256,
    read_card,
    reference_lines,
)
from xrdpipe.pictures import draw_map
from xrdpipe.resampling import Resampling, inside_grid, plan_resampling
from xrdpipe.schema import LOST, FrameStatus, PixelStatus
from xrdpipe.stages import integrate
from xrdpipe.stages.ahead import import_ahead
from xrdpipe.stages.clock import Clock
from xrdpipe.stages.reduction import Execution
from xrdpipe.stages.resample import check_coverage, check_reach, resampled_blocks, without_key
from xrdpipe.stages.scans import positions_identity, resolve_scan
from xrdpipe.stages.versions import software_versions
from xrdpipe.store.maps import KEY_PATH, MapHeader, write_map, write_map_into_patterns
from xrdpipe.store.nexus import already_done
from xrdpipe.store.patterns import PatternsFile
from xrdpipe.types import (
    FloatArray,
    FrameSource,
    Grid,
    Outcome,
    Patterns,
    Predictions,
    Progress,
)

if TYPE_CHECKING:
    from xrdpipe.nn.inference import Model

BOTH = "both"
"""As input: masked and unmasked patterns, each by itself, then together."""

NOT_IN_KEY = (
    "output",
    "restart",
    "threads",
    "cache",
    "patterns",
    "png",
    "model",
    "poni",
    "positions",
)


@dataclass(frozen=True)
class Decision:
    """What the map was asked for, resolved: model, prior, weights of resampling."""

    model: Model
    card: ModelCard
    prior: tuple[float, ...]
    plan: Resampling


def run(
    config: MapConfig, progress: Progress | None = None, execution: Execution | None = None
) -> Outcome:
    """Map the phases of every pattern.

    With ``config.poni`` the input is frames: they are integrated first, into
    ``NAME_patterns.h5`` beside the map.

    Returns
    -------
    Outcome
        Path of the map, number of lost pixels with a frame, and a summary.
    """
    progress = progress or Progress()
    output = config.output or Path("map.h5")
    folder = find_model(config.model)
    if config.poni is None:
        patterns = patterns_given(config)
    else:
        integrated = _integrated(config, output, read_card(folder), progress, execution)
        if execution is not None and execution.shard is not None:
            return integrated
        progress.note(integrated.summary)
        patterns = patterns_beside(output)
    from xrdpipe.nn.inference import load_model

    both = config.variant == BOTH
    with PatternsFile(patterns, "masked" if both else config.variant) as source:
        variant = BOTH if both else source.variant
        model = load_model(folder, config.device)
        card = model.card
        scan = resolve_scan(config, source, progress)
        plan = plan_resampling(source.rows(0, 1), card.grid, config.method)
        decision = Decision(model, card, prior_of(config, card), plan)
        key = run_key(config, source, variant, model_sha256(folder))
        into_patterns = output.resolve() == patterns.resolve()
        if not into_patterns and already_done(output, key, KEY_PATH, config.restart):
            return Outcome.already_done(output)
        check_coverage(source, card.grid, plan)
        _note_polarization(source, card, plan, progress)
        if missing := _missing_channels(source, card):
            progress.note(
                f"warning: model {card.name} can use {', '.join(missing)}, which {patterns} lacks; "
                "it copes, but sees less (integrate --spottiness gives it)"
            )
        clock = Clock()
        predictions = predict(source, decision, progress, clock)
        if both:
            with PatternsFile(patterns, "unmasked") as other:
                predictions = together(predictions, predict(other, decision, progress, clock))
        if config.neighbours and scan.irregular:
            progress.note(
                "warning: the positions form no grid, so pixels have no neighbours; "
                "--neighbours is left out"
            )
        neighbours = config.neighbours and not scan.irregular
        phase_map = assemble(
            predictions,
            scan,
            card.phase_names,
            unknown_threshold=None if card.unknown is None else card.unknown.threshold,
            neighbours=neighbours,
        )
        header = MapHeader(
            patterns=patterns,
            title=f"{patterns.stem}, {variant}, model {card.name}"
            f"{', with neighbours' if neighbours else ''}",
            key=key,
            parameters=_parameters(config, source, variant, decision, folder)
            | _neighbours(phase_map),
            lines=reference_lines(folder),
        )
        with clock("write"):
            if into_patterns:
                source.close()
                write_map_into_patterns(output, header, phase_map)
            else:
                blocks = resampled_blocks(source, card.grid, plan) if config.with_patterns else None
                write_map(output, header, phase_map, card.grid, blocks)
    if config.png:
        with clock("draw"):
            draw_map(output.with_suffix(".png"), phase_map, header.title)
    progress.event("times", {"stage": "map", "seconds": clock.read()})
    lost = int(np.isin(predictions.status, [*LOST]).sum())
    return Outcome(output, lost, _summary(output, phase_map, config.png))


def predict(
    source: PatternsFile, decision: Decision, progress: Progress, clock: Clock | None = None
) -> Predictions:
    """Probabilities of every row, in blocks of 256 rows aligned to row 0 (decision 22)."""
    clock = clock or Clock()
    patterns_of_map = (
        (first, patterns.intensity, patterns.coverage)
        for first, patterns in resampled_blocks(source, decision.card.grid, decision.plan)
    )
    model = decision.model.for_map(source.n_rows, patterns_of_map)
    decision = dataclasses.replace(decision, model=model)
    progress.start("map", source.n_rows)
    found = []
    blocks = resampled_blocks(source, decision.card.grid, decision.plan)
    for _, patterns in clock.each("resample", blocks):
        with clock("infer"):
            found.append(judge(patterns, decision))
        progress.advance(patterns.intensity.shape[0])
    progress.done()
    return Predictions(
        np.concatenate([block.probability for block in found]),
        np.concatenate([block.spread for block in found]),
        np.concatenate([block.unknown for block in found]),
        np.concatenate([block.status for block in found]),
    )


def judge(patterns: Patterns, decision: Decision) -> Predictions:
    """What the model says of some patterns on its grid, and why it says nothing of others."""
    from xrdpipe.nn.inference import prior_shift

    measured = patterns.status == FrameStatus.OK
    usable = measured & inside_grid(patterns.intensity)
    probability, spread, unknown = decision.model.predict(
        patterns.intensity, patterns.coverage, patterns.spottiness
    )
    if decision.prior != decision.card.prior:
        probability = prior_shift(probability, decision.card.prior, decision.prior)
    seen = determined(decision.card, np.isfinite(patterns.intensity).astype(np.float32))
    failed = usable & ~np.isfinite(probability).all(axis=1)
    status = patterns.status.astype(np.uint8)
    status[measured & ~usable] = PixelStatus.OUTSIDE_GRID
    status[failed] = PixelStatus.MODEL_FAILED
    judged = usable & ~failed
    good = judged[:, None] & seen
    return Predictions(
        np.where(good, probability, np.nan).astype(np.float32),
        np.where(good, spread, np.nan).astype(np.float32),
        np.where(judged, unknown, np.nan).astype(np.float32),
        status,
    )


def together(masked: Predictions, unmasked: Predictions) -> Predictions:
    """What a model says of both variants: the mean, and the spread over members and variants.

    Where one variant has no answer (rejection left nothing), that of the other stands.
    """
    probabilities = np.stack([masked.probability, unmasked.probability])
    spreads = np.stack([masked.spread, unmasked.spread])
    known = np.isfinite(probabilities)
    count = np.maximum(known.sum(axis=0), 1)

    def mean(values: FloatArray) -> FloatArray:
        summed = np.where(known, values, 0).sum(axis=0, dtype=np.float64) / count
        return np.where(known.any(axis=0), summed, np.nan)

    middle = mean(probabilities)
    variance = mean(spreads.astype(np.float64) ** 2) + mean((probabilities - middle) ** 2)
    scores = np.stack([masked.unknown, unmasked.unknown])
    told = np.isfinite(scores)
    unknown = np.where(told, scores, 0).sum(axis=0) / np.maximum(told.sum(axis=0), 1)
    return Predictions(
        probability=middle.astype(np.float32),
        spread=np.sqrt(variance).astype(np.float32),
        unknown=np.where(told.any(axis=0), unknown, np.nan).astype(np.float32),
        status=np.where(masked.status == FrameStatus.OK, masked.status, unmasked.status),
    )


def _integrated(
    config: MapConfig,
    output: Path,
    card: ModelCard,
    progress: Progress,
    execution: Execution | None,
) -> Outcome:
    """Integrate the frames of a map."""
    check_before_integrating(config, card, progress)
    import_ahead("xrdpipe.nn.inference")  # torch, which takes seconds
    return integrate.run(integration_of(config, output, card), progress, execution)


def patterns_given(config: MapConfig) -> Path:
    """The one patterns file of a map without ``--poni``."""
    if len(config.patterns) != 1:
        raise OptionError(
            f"map takes one patterns file, got {len(config.patterns)}; to map frames, give --poni."
        )
    path = Path(config.patterns[0])
    if path.is_dir():
        raise InputError(f"{path} is a folder; to map frames, give --poni.")
    return path


def patterns_beside(output: Path) -> Path:
    """Where the patterns of ``map --poni`` go."""
    return output.with_name(f"{output.stem.removesuffix('_map')}_patterns.h5")


def integration_of(config: MapConfig, output: Path, card: ModelCard) -> IntegrateConfig:
    """How the frames of ``map --poni`` are integrated, and where the patterns go."""
    shared = {d.name for d in options.fields(IntegrateConfig)} - {"frames", "output", "variant"}
    settings = {name: getattr(config, name) for name in shared if hasattr(config, name)}
    variant = config.variant or "masked"
    # Where outliers are rejected anyway, what they carried costs little and the model may see it.
    rejecting = variant != "unmasked" and config.reject != "none"
    settings["spottiness"] |= rejecting and "spottiness" in card.channels
    return IntegrateConfig(
        frames=config.patterns,
        output=patterns_beside(output),
        variant=variant,
        **settings,
    )


def check_before_integrating(config: MapConfig, card: ModelCard, progress: Progress) -> None:
    """Refuse a scan or geometry that cannot give a map before hours of integration."""
    source = open_frames(config.patterns)
    resolve_scan(config, source)
    check_geometry_reaches(config, source, card.grid, progress)


def check_geometry_reaches(
    config: MapConfig | IntegrateConfig, source: FrameSource, grid: Grid, progress: Progress
) -> None:
    """Refuse frames whose patterns cannot cover half of the grid."""
    assert config.poni is not None
    rows, columns = source.shape[::-1] if config.rotate in (90, 270) else source.shape
    geometry = load_geometry(
        config.poni,
        (rows, columns),
        config.wavelength,
        source.detector.wavelength,
        cache=open_cache(progress.note) if config.cache else NO_CACHE,
    )
    binning = choose_binning(geometry, config.unit, config.bins, config.radial_range)
    check_reach(binning.two_theta_edges(geometry.wavelength), geometry.wavelength, grid)


def prior_of(config: MapConfig, card: ModelCard) -> tuple[float, ...]:
    """Prior probability of each phase: the option's, or the model's."""
    if config.prior is None:
        return card.prior
    if len(config.prior) == 1:
        return config.prior * len(card.phases)
    if len(config.prior) != len(card.phases):
        raise OptionError(
            f"--prior has {len(config.prior)} values, model {card.name} has "
            f"{len(card.phases)} phases ({', '.join(card.phase_names)}); expected one or one each."
        )
    return config.prior


def _note_polarization(
    source: PatternsFile, card: ModelCard, plan: Resampling, progress: Progress
) -> None:
    # Another wavelength needs the correction, so resampling makes it where it is missing.
    corrected = source.polarization_factor is not None or plan.polarization is not None
    if corrected != card.polarization_corrected:
        progress.note(
            f"warning: the patterns are {'' if corrected else 'not '}corrected for polarization, "
            f"model {card.name} was trained on patterns that are "
            f"{'' if card.polarization_corrected else 'not '}corrected"
        )
    if source.wavelength != card.wavelength:
        progress.note(
            f"patterns at {source.wavelength:.5g} Å are brought to the model's "
            f"{card.wavelength:.5g} Å at equal sin θ / λ"
        )


def _missing_channels(source: PatternsFile, card: ModelCard) -> list[str]:
    """Optional channels of the model that the patterns do not bring."""
    return [name for name in OPTIONAL if name in card.channels and name not in source.signals]


def run_key(
    config: MapConfig, source: PatternsFile, variant: str, model_hash: str
) -> dict[str, Any]:
    """The key of decision 21."""
    resolved = {k: v for k, v in config.resolved().items() if k not in NOT_IN_KEY}
    return {
        "stage": "map",
        "options": resolved,
        "positions": positions_identity(config),
        "variant": variant,
        "patterns": source.run_key() or without_key(source.path),
        "model": model_hash,
        "versions": software_versions(),
    }


def _parameters(
    config: MapConfig, source: PatternsFile, variant: str, decision: Decision, folder: Path
) -> dict[str, Any]:
    card = decision.card
    return {
        "name": card.name,
        "network": card.network,
        "members": len(card.weights),
        "weights_sha256": model_sha256(folder),
        "input_variant": variant,
        "channels": ", ".join(card.channels),
        "channels_absent": ", ".join(_missing_channels(source, card)),
        "grid": str(card.grid),
        "wavelength_trained": card.wavelength,
        "normalisation": card.normalisation,
        "polarization_corrected": card.polarization_corrected,
        "threshold": 0.5,
        "unknown_false_alarms": np.nan if card.unknown is None else card.unknown.false_alarms,
        "prior": np.array(decision.prior),
        "prior_trained": np.array(card.prior),
        "resampling": decision.plan.method,
        "error_correlation_length": decision.plan.correlation_length,
        "device": str(decision.model.device),
        "phase_cif_sha256": json.dumps({phase.name: phase.sha256 for phase in card.phases}),
        "config_json": json.dumps(config.recorded()),
        "versions_json": json.dumps({**software_versions(), "trained_with": card.versions}),
    }


def _neighbours(phase_map: PhaseMap) -> dict[str, Any]:
    """What the map records of the neighbours."""
    couplings = phase_map.couplings
    recorded: dict[str, Any] = {"neighbours": phase_map.probability_alone is not None}
    if couplings:
        recorded["neighbour_strength"] = np.array([coupling.strength for coupling in couplings])
        recorded["neighbour_gain"] = np.array([coupling.gain for coupling in couplings])
    return recorded


def _summary(output: Path, phase_map: PhaseMap, png: bool) -> str:
    ny, nx = phase_map.scan.shape
    with_result = int((phase_map.status == FrameStatus.OK).sum())
    shape = f"{nx} scattered points" if phase_map.scan.irregular else f"{ny}x{nx} map"
    lines = [f"{output}: {shape}, {with_result} of {ny * nx} pixels with a result."]
    for k, name in enumerate(phase_map.phase_names):
        present = int((phase_map.decision[k] == 1).sum())
        share = present / max(with_result, 1)
        told = f", neighbours {phase_map.couplings[k].strength:g}" if phase_map.couplings else ""
        lines.append(f"  {name:<20} present in {present} pixels ({share:.0%}){told}")
    if png:
        lines.append(f"  picture: {output.with_suffix('.png')}")
    return "\n".join(lines)
