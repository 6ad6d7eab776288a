"""``xrdpipe integrate``: detector frames → 1D patterns (NXazint1d)."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.config import IntegrateConfig
from xrdpipe.errors import FrameError, InputError
from xrdpipe.frames import open_frames
from xrdpipe.frames.auxiliary import Correction, load_correction, load_masks
from xrdpipe.frames.dead import (
    PixelKind,
    oriented,
    pixel_kind,
    pixel_mask_reasons,
)
from xrdpipe.integration.batch import BatchReducer, unsuited
from xrdpipe.integration.cache import NO_CACHE, ArrayCache, open_cache
from xrdpipe.integration.compiled import describe as describe_kernel
from xrdpipe.integration.compiled import way
from xrdpipe.integration.geometry import Binning, Geometry, choose_binning, load_geometry
from xrdpipe.integration.reduce import FrameReducer, ReductionSettings
from xrdpipe.integration.rejection import POISSON, PixelNoise
from xrdpipe.masks import describe_masks, without_measurement
from xrdpipe.scan import one_per_frame
from xrdpipe.schema import LOST, VARIANTS, FrameFlag, FrameStatus
from xrdpipe.stages.job import Job, columns_of, read_pixels
from xrdpipe.stages.normalisation import Normalisation, load_normalisation
from xrdpipe.stages.reduction import BLOCK_ROWS, Execution
from xrdpipe.stages.stopping import stopping
from xrdpipe.stages.versions import software_versions
from xrdpipe.store.nexus import already_done
from xrdpipe.store.parts import PartFolder, discard_leftover
from xrdpipe.store.patterns import (
    KEY_PATH,
    PatternsHeader,
    Positioner,
    write_patterns,
)
from xrdpipe.store.written import frame_counts
from xrdpipe.types import FrameSource, Mask, Outcome, Progress

DISAGREEMENT = 1e-3
"""Two wavelengths that differ by more than this fraction are reported."""

DISTANCE_DISAGREEMENT = 0.05
"""The same for distances: motor positions are rarely calibrated."""

USUAL_FLAT = (0.1, 10.0)
"""A flat field is about 1; one whose median lies outside scales the intensities."""

KEPT = "every frame is integrated and kept in {}"
"""For the message where the disk refuses the final file."""

NOT_IN_KEY = (
    "output",
    "restart",
    "threads",
    "cache",
    "device",
    "frames",
    "poni",
    "mask",
    "dark",
    "flat",
)
"""Options that do not change the numbers, or whose content is hashed instead of the path."""


def run(
    config: IntegrateConfig, progress: Progress | None = None, execution: Execution | None = None
) -> Outcome:
    """Integrate every frame of ``config.frames`` and write one patterns file.

    Returns
    -------
    Outcome
        Path, number of lost frames, and the summary for the user.

    Raises
    ------
    XrdpipeError
        Before anything is written, if an input or option cannot be used.
    """
    progress = progress or Progress()
    execution = execution or Execution()
    output = config.output or Path("patterns.h5")
    job = prepare(config, progress)
    if already_done(output, dict(job.header.key), KEY_PATH, config.restart):
        discard_leftover(output)
        return _done_before(output)
    shard = execution.shard
    writer = "" if shard is None else shard.writer
    with PartFolder(output, columns_of(job), writer) as parts, stopping() as stop:
        _integrate_missing(job, parts, execution, dataclasses.replace(progress, stopped=stop))
        stop.check(f"the frames integrated so far are kept in {parts.folder}")
        if shard is not None:
            n_rows = shard.rows(len(job.source.records), BLOCK_ROWS).size
            done = f"{parts.folder}: shard {shard} is done, {n_rows} rows."
            return Outcome(parts.folder, summary=done)
        with job.clock("write"):
            write_patterns(output, job.header, parts.blocks(), KEPT.format(parts.folder))
        summary, lost = _summary(output, parts)
        parts.discard()
    progress.event("times", {"stage": "integrate", "seconds": job.clock.read()})
    return Outcome(output, lost, summary)


def _done_before(output: Path) -> Outcome:
    """Nothing to do; frames that were lost stay lost, and that is said."""
    outcome = Outcome.already_done(output)
    _, lost = frame_counts(output) or (0, 0)
    if not lost:
        return outcome
    told = f"{outcome.summary} {lost} of its frames were lost; --restart tries them again."
    return dataclasses.replace(outcome, summary=told)


def _integrate_missing(
    job: Job, parts: PartFolder, execution: Execution, progress: Progress
) -> None:
    """Integrate the rows that earlier runs left, each block safe on disk before the next."""
    n_rows = len(job.source.records)
    done = parts.begin(job.header.key, job.config.restart)
    rows = np.arange(n_rows)
    if execution.shard is not None:
        rows = execution.shard.rows(n_rows, BLOCK_ROWS)
    waiting = np.setdiff1d(rows, done)
    n_done = rows.size - waiting.size
    if n_done:
        progress.note(f"continuing: {n_done} of {rows.size} frames were already integrated")
    progress.start("integrate", rows.size, n_done)
    for first, block in execution.produce(job, waiting, progress):
        with job.clock("checkpoint"):
            parts.append(first, block)
    progress.done()


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Everything opened and decided; nothing slow is computed yet.

    Parameters
    ----------
    first
        The first frame that can be read, as stored.
    masked
        What ``--mask`` adds; None for nothing.
    dead
        The file's pixel mask, oriented, True = unusable; None where it has none.
    """

    config: IntegrateConfig
    cache: ArrayCache
    source: FrameSource
    first: NDArray[Any]
    geometry: Geometry
    kind: PixelKind
    masked: Mask | None
    dead: NDArray[np.bool_] | None
    corrections: Mapping[str, Correction]
    normalisation: Normalisation
    binning: Binning

    def mask_sources(self) -> tuple[tuple[str, int, str], ...]:
        """Why pixels are left out in every frame: (name, pixels, sha256 or "")."""
        gaps = int(self.geometry.gap_mask.sum())
        in_file = self.source.detector.pixel_mask
        sources = [(f"detector gaps of {self.geometry.detector_name}", gaps, "")]
        if in_file is not None:
            sources += [(f"pixel_mask: {why}", n, "") for why, n in pixel_mask_reasons(in_file)]
        sources += [*_dead_by(self.corrections), *(self.masked.sources if self.masked else ())]
        return tuple(sources)

    def key(self) -> dict[str, Any]:
        """The key of decision 21: what the numbers depend on, contents by hash."""
        options = {k: v for k, v in self.config.resolved().items() if k not in NOT_IN_KEY}
        hashes = {name: correction.sha256 for name, correction in self.corrections.items()}
        return {
            "stage": "integrate",
            "options": options,
            "poni": self.geometry.poni_sha256,
            "masks": [[_without_folder(name), *rest] for name, *rest in self.mask_sources()],
            "dark": hashes.get("dark", ""),
            "flat": hashes.get("flat", ""),
            **self.normalisation.key(),
            "frames": [
                [r.file, r.place, r.index, r.size, r.mtime_ns] for r in _relative(self.source)
            ],
            "versions": software_versions(),
            "sums": "torch on cuda" if self.config.device == "cuda" else way(),
        }


def open_inputs(config: IntegrateConfig, progress: Progress) -> Inputs:
    """Open everything and decide the pixels; raises if an input or option cannot be used."""
    cache = open_cache(progress.note) if config.cache else NO_CACHE
    source = open_frames(config.frames)
    progress.note(f"frames: {source.kind}")
    first = first_frame(source)
    shape = oriented(first, config.flip, config.rotate).shape
    geometry = load_geometry(
        config.poni,
        (int(shape[0]), int(shape[1])),
        config.wavelength,
        source.detector.wavelength,
        cache=cache,
    )
    for note in geometry.notes:
        progress.note(note)
    for warning in (*source.warnings, *contradictions(source, geometry)):
        progress.note(f"warning: {warning}")
    kind = pixel_kind(
        first,
        geometry.detector_name,
        source.detector.description,
        config.saturation or source.detector.saturation_value,
        config.sentinel,
        source.detector.bit_depth,
    )
    progress.note(describe_pixels(kind))
    masked = load_masks(config.mask, geometry.shape, config.flip, config.rotate)
    for sentence in () if masked is None else describe_masks(masked):
        progress.note(sentence)
    corrections = _corrections(config, geometry, kind, progress)
    measured = first[~without_measurement(first, kind.sentinels)]
    for warning in odd_corrections(corrections, measured):
        progress.note(f"warning: {warning}")
    normalisation = load_normalisation(config, source, progress)
    binning = choose_binning(geometry, config.unit, config.bins, config.radial_range)
    dead = _file_mask(source, geometry, config)
    return Inputs(
        config,
        cache,
        source,
        first,
        geometry,
        kind,
        masked,
        dead,
        corrections,
        normalisation,
        binning,
    )


def prepare(config: IntegrateConfig, progress: Progress) -> Job:
    """Open everything, decide the pixels, build the matrix; raises before work starts."""
    inputs = open_inputs(config, progress)
    source, geometry, binning, kind = inputs.source, inputs.geometry, inputs.binning, inputs.kind
    normalisation = inputs.normalisation
    settings = _settings(config, kind, progress)
    planes = {name: correction.plane for name, correction in inputs.corrections.items()}
    mask = None if inputs.masked is None else inputs.masked.pixels
    reducer = FrameReducer(
        geometry, binning, settings, inputs.dead, mask, **planes, cache=inputs.cache
    )
    _check_pixels_left(reducer, config)
    batch, path = _batch_reducer(reducer, source, inputs.first, kind, config, progress)
    progress.note(f"integration: {path}")
    parameters = _parameters(config, source, geometry, binning, kind, inputs.corrections)
    parameters["integration_path"] = path
    header = _header(inputs, reducer, parameters)
    polarization = config.polarization_factor
    progress.note(
        f"polarization factor {'none' if polarization is None else polarization}, "
        f"{binning.count} bins {binning.centres[0]:.4g}-{binning.centres[-1]:.4g} "
        f"{'degrees' if binning.unit == '2theta' else '1/angstrom'}, {config.splitting} splitting, "
        f"wavelength {geometry.wavelength:.6g} Å"
    )
    return Job(config, source, geometry, binning, kind, reducer, batch, normalisation, header)


def _batch_reducer(
    reducer: FrameReducer,
    source: FrameSource,
    first: NDArray[Any],
    kind: PixelKind,
    config: IntegrateConfig,
    progress: Progress,
) -> tuple[BatchReducer | None, str]:
    """The compiled path or an accelerator if it can do this, and which way is taken."""
    turned = config.flip != "none" or config.rotate != 0
    device = "cuda" if config.device == "cuda" else "cpu"
    why_not = unsuited(reducer, first.dtype, device)
    if why_not and device != "cpu":
        progress.note(f"frames are integrated on the processor: {why_not}")
        device = "cpu"
        why_not = unsuited(reducer, first.dtype)
    if not why_not and turned and config.reject == "sigma-clip":
        why_not = "sigma clipping depends on the order of pixels, which the flip changes"
    if why_not:
        reducer.load()
        return None, f"frame by frame ({why_not})"
    stored = None
    if turned:
        stored = oriented(np.arange(first.size).reshape(first.shape), config.flip, config.rotate)
    batch = BatchReducer(reducer, first.dtype, stored, first.shape[1], kind.watched, device)
    return batch, describe_kernel() if device == "cpu" else f"torch on {device}"


def first_frame(source: FrameSource) -> NDArray[Any]:
    """The first frame that can be read; it tells the kind of the pixels.

    Raises
    ------
    InputError
        If none can be read.
    """
    reason = ""
    for row, record in enumerate(source.records):
        if record.problem:
            reason = reason or record.reason
            continue
        try:
            return read_pixels(source, row)
        except OSError as error:
            reason = reason or (error.reason if isinstance(error, FrameError) else str(error))
    raise InputError(f"none of the frames of {source.name} can be read; the first: {reason}.")


def describe_pixels(kind: PixelKind) -> str:
    """One sentence: the decision on dead pixels and its reason."""
    sentinels = listed(kind.sentinels) or "NaN only"
    saturation = "unknown" if kind.saturation is None else f"{kind.saturation:.0f}"
    warning = (
        " Pixels at the largest value were seen: if they are gaps, give --sentinel."
        if kind.suspect
        else ""
    )
    return f"pixels: {kind.reason}; sentinels {sentinels}; saturated from {saturation}.{warning}"


def listed(sentinels: Sequence[float]) -> str:
    """Raw values for people; an int as it is, as 2^64-1 is no float."""
    return ", ".join(f"{v}" if isinstance(v, int) else f"{v:.0f}" for v in sentinels)


def contradictions(source: FrameSource, geometry: Geometry) -> list[str]:
    """Where the frames or the geometry file contradict the geometry that is used, in sentences.

    The option wins over the geometry file, the geometry file over the frames: a calibration was
    looked at by somebody, a header often only copied from the last experiment.
    """
    found = []
    used = geometry.wavelength
    in_file, in_frames = geometry.wavelength_in_file, source.detector.wavelength
    if in_file is not None and abs(in_file / used - 1) > DISAGREEMENT:
        found.append(
            f"--wavelength {used:.5g} Å is used; {geometry.poni_name} was made for {in_file:.5g} Å"
        )
    if in_frames is not None and abs(in_frames / used - 1) > DISAGREEMENT:
        origin = geometry.poni_name if in_file == used else "--wavelength"
        found.append(
            f"the frames state a wavelength of {in_frames:.5g} Å; {used:.5g} Å of {origin} is used"
        )
    stated = source.detector.distance
    if stated is not None and abs(stated / geometry.distance - 1) > DISTANCE_DISAGREEMENT:
        found.append(
            f"the frames state a distance of {stated * 1e3:.4g} mm; "
            f"{geometry.distance * 1e3:.4g} mm of {geometry.poni_name} is used"
        )
    return found


def _corrections(
    config: IntegrateConfig, geometry: Geometry, kind: PixelKind, progress: Progress
) -> dict[str, Correction]:
    """Those of ``dark`` and ``flat`` that were asked for."""
    found = {}
    for name, given, what in (
        ("dark", config.dark, "dark frame"),
        ("flat", config.flat, "flat field"),
    ):
        one = load_correction(given, what, geometry.shape, config.flip, config.rotate, kind)
        if one is not None:
            found[name] = one
            if one.frames > 1:
                progress.note(f"{name}: mean of {one.frames} frames")
    return found


def odd_corrections(corrections: Mapping[str, Correction], measured: NDArray[Any]) -> Iterator[str]:
    """What is unusual about dark and flat, in sentences; they are used all the same.

    Parameters
    ----------
    measured
        Raw values of the first frame's pixels that measure something.
    """
    if "dark" in corrections and measured.size:
        level, signal = float(np.nanmedian(corrections["dark"].plane)), float(np.median(measured))
        if level > signal:
            yield (
                f"the median of the dark is {level:.6g}, that of the first frame {signal:.6g}: "
                "most intensities become negative; is it a dark of the same exposure?"
            )
    if "flat" in corrections:
        level = float(np.nanmedian(corrections["flat"].plane))
        if not USUAL_FLAT[0] <= level <= USUAL_FLAT[1]:
            yield (
                f"the median of the flat is {level:.6g}, not about 1: intensities become that "
                "many times smaller, and are no counts"
            )


def _dead_by(corrections: Mapping[str, Correction]) -> Iterator[tuple[str, int, str]]:
    """Pixels that dark and flat leave without measurement, as sources of the mask."""
    for name, correction in corrections.items():
        dead = ~np.isfinite(correction.plane)
        if name == "flat":
            dead |= ~(correction.plane > 0)
        if dead.any():
            what = "not above zero" if name == "flat" else "no number"
            yield f"{name}: {what}", int(np.count_nonzero(dead)), ""


def _settings(config: IntegrateConfig, kind: PixelKind, progress: Progress) -> ReductionSettings:
    noise: PixelNoise | None = POISSON
    if not kind.counting:
        noise = None
        if config.gain is not None and config.read_noise is not None:
            noise = PixelNoise(config.gain, config.read_noise)
        elif config.error_model == "poisson":
            progress.note(
                "no Poisson errors: an integrating detector needs --gain and --read-noise "
                "(or use --error-model azimuthal)"
            )
    elif config.error_model == "poisson":
        progress.note(
            "errors: Poisson with at least one count per pixel (as pyFAI), too large below "
            "about 1 count per pixel"
        )
    variants = VARIANTS if config.variant == "both" else (config.variant,)
    return ReductionSettings(
        variants=variants,
        splitting=config.splitting,
        solid_angle=config.solid_angle,
        polarization_factor=config.polarization_factor,
        error_model=config.error_model,
        reject=config.reject,
        reject_threshold=config.reject_threshold,
        halo=config.halo,
        spottiness=config.spottiness,
        sentinels=kind.sentinels,
        saturation=kind.saturation,
        noise=noise,
        engine=config.engine,
    )


def _file_mask(
    source: FrameSource, geometry: Geometry, config: IntegrateConfig
) -> NDArray[np.bool_] | None:
    """The pixel mask of the file, oriented like the frames."""
    if source.detector.pixel_mask is None:
        return None
    mask = source.detector.pixel_mask != 0
    if mask.shape != source.shape:
        raise InputError(
            f"{source.name}: its pixel_mask has {mask.shape[0]} x {mask.shape[1]} pixels, its "
            f"frames {source.shape[0]} x {source.shape[1]}."
        )
    return np.asarray(oriented(mask, config.flip, config.rotate), bool)


def _check_pixels_left(reducer: FrameReducer, config: IntegrateConfig) -> None:
    for variant in reducer.settings.variants:
        if not reducer.static_valid[variant].any():
            raise InputError(
                f"the detector gaps, the file's pixel mask, dark, flat and the masks "
                f"{', '.join(config.mask) or '(none given)'} together leave no pixel for the "
                f"{variant} variant; check the orientation of the masks (--flip, PATH@stored)."
            )


def _parameters(
    config: IntegrateConfig,
    source: FrameSource,
    geometry: Geometry,
    binning: Binning,
    kind: PixelKind,
    corrections: Mapping[str, Correction],
) -> dict[str, Any]:
    """What ``reduction/input`` keeps besides options and mask sources; NaN = not stated."""

    def stated(value: float | None) -> float:
        return np.nan if value is None else float(value)

    parameters: dict[str, Any] = {
        "poni": geometry.poni_text,
        "poni_file": geometry.poni_name,
        "poni_sha256": geometry.poni_sha256,
        "geometry_format": geometry.file_format,
        "detector_orientation": geometry.orientation,
        "distance": geometry.distance,
        "distance_of_frames": stated(source.detector.distance),
        "wavelength_source": "geometry file" if config.wavelength is None else "option",
        "wavelength_of_geometry": stated(geometry.wavelength_in_file),
        "wavelength_of_frames": stated(source.detector.wavelength),
        "flip": config.flip,
        "rotate": config.rotate,
        "unit": binning.unit,
        "radial_bins": binning.count,
        "radial_range": np.array([binning.low, binning.high]),
        "method": f"{config.splitting}/csc/{config.engine}",
        "pixel_kind": describe_pixels(kind),
        "sentinels": np.array(kind.sentinels, np.float64),
        "saturation_value": stated(kind.saturation),
        "pyfai_version": software_versions()["pyFAI"],
        "solid_angle_formula": "cos³ of the incidence angle, relative to the PONI (pyFAI)",
    }
    if geometry.notes:
        parameters["geometry_notes"] = "\n".join(geometry.notes)
    if config.polarization_factor is not None:
        parameters["polarization_factor"] = config.polarization_factor
    for name, correction in corrections.items():
        parameters[f"{name}_frames"] = correction.frames
        parameters[f"{name}_sha256"] = correction.sha256
        parameters[f"{name}_sources"] = json.dumps(correction.sources)
    return parameters


def _header(inputs: Inputs, reducer: FrameReducer, parameters: dict[str, Any]) -> PatternsHeader:
    config, source, geometry = inputs.config, inputs.source, inputs.geometry
    binning, normalisation = inputs.binning, inputs.normalisation
    settings = reducer.settings
    signals = ["I", "coverage"]
    if config.error_model == "azimuthal" or (
        config.error_model == "poisson" and settings.noise is not None
    ):
        signals.insert(1, "I_errors")
    if config.spottiness:
        signals += ["spottiness", "azimuthal_excess_variance"]
    used = {
        "error_model": config.error_model if "I_errors" in signals else "none",
        "outlier_rejection": config.reject if "masked" in settings.variants else "none",
    }
    static = ~reducer.static_valid[settings.variants[0]]
    return PatternsHeader(
        variants=settings.variants,
        radial_axis=binning.centres,
        radial_edges=binning.edges,
        unit=binning.unit,
        wavelength=geometry.wavelength,
        polarization_factor=config.polarization_factor,
        solid_angle=config.solid_angle,
        signals=tuple(signals),
        norm={variant: reducer.static_norm(variant) for variant in settings.variants},
        records=_relative(source),
        numbered=source.numbered,
        detector_name=geometry.detector_name,
        pixel_size=geometry.pixel_size,
        mask=Mask(static, inputs.mask_sources()),
        config=config.recorded(),
        key=inputs.key(),
        title=source.name,
        monitors=normalisation.monitors,
        exposure=normalisation.exposure,
        parameters=parameters | used,
        positioners=_positioners(source),
        scan=source.scan,
    )


def _positioners(source: FrameSource) -> dict[str, Positioner]:
    """Every number the files hold per frame: whoever maps the patterns finds the motors there."""
    found = {}
    for name, units in source.columns.items():
        values = source.column(name)
        hint = source.scan
        per_frame = None
        if values is not None:
            per_frame = one_per_frame(
                values, len(source.records), None if hint is None else hint.shape
            )
        if per_frame is not None:
            found[name] = Positioner(per_frame, units)
    return found


def _relative(source: FrameSource) -> tuple[Any, ...]:
    """Records with file names relative to their common folder."""
    files = [os.path.abspath(record.file) for record in source.records]  # noqa: PTH100 - h5::path
    common = os.path.dirname(files[0].split("::")[0])  # noqa: PTH120
    if len({os.path.dirname(file.split("::")[0]) for file in files}) > 1:  # noqa: PTH120
        common = os.path.commonpath(files)
    return tuple(
        dataclasses.replace(record, file=os.path.relpath(file, common))
        for record, file in zip(source.records, files, strict=True)
    )


def _without_folder(reference: str) -> str:
    """A mask's own name: where it lies changes no number."""
    file, separator, dataset = reference.partition("::")
    return os.path.basename(file) + separator + dataset  # noqa: PTH119 - no path for built-in ones


def _summary(output: Path, parts: PartFolder) -> tuple[str, int]:
    """What happened to the frames, in words, and how many were lost."""
    counts = np.zeros(256, np.int64)
    reasons: Counter[str] = Counter()
    rejected = 0.0
    suspect = 0
    for _, rows in parts.blocks(("status", "flags", "reason", "n_masked_dynamic")):
        suspect += int(np.count_nonzero(rows["flags"] & FrameFlag.SENTINEL_SUSPECT))
        counts += np.bincount(rows["status"], minlength=256)
        rejected += float(rows["n_masked_dynamic"].sum())
        reasons.update(text.decode() for text in rows["reason"] if text)
    lost = int(sum(counts[status] for status in LOST))
    ok = int(counts[FrameStatus.OK])
    others = ", ".join(
        f"{counts[s]} {s.name.lower()}" for s in FrameStatus if s != FrameStatus.OK and counts[s]
    )
    text = f"{output}: {ok} of {int(counts.sum())} frames integrated"
    text += f" ({others})" if others else ""
    text += f", {rejected / max(ok, 1):.0f} outlier pixels per frame rejected." if ok else "."
    if suspect:
        text += (
            f"\n  {suspect} frames hold values that may mean 'no measurement', which the first "
            "frame did not settle (flag sentinel_suspect); --sentinel does."
        )
    lines = [f"  {why}" if n == 1 else f"  {n} frames: {why}" for why, n in reasons.items()]
    return "\n".join([text, *lines[:5]]), lost
