"""``xrdpipe mask``: which pixels to leave out of a whole series, from a look at its frames."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.config import MaskConfig, parse_polygon
from xrdpipe.errors import FrameError, InputError, OptionError
from xrdpipe.frames import open_frames
from xrdpipe.frames.auxiliary import load_masks
from xrdpipe.frames.dead import (
    PixelKind,
    oriented,
    pixel_kind,
    pixel_mask_reasons,
    sentinels_of,
)
from xrdpipe.integration.geometry import Geometry, choose_binning, load_geometry
from xrdpipe.integration.masking import azimuthal_outliers, spots
from xrdpipe.integration.matrix import bin_of_pixel
from xrdpipe.integration.rejection import PixelNoise
from xrdpipe.integration.rings import Rings
from xrdpipe.integration.shadow import shadows
from xrdpipe.integration.stack import DEAD_COUNTS, FrameStack
from xrdpipe.masks import (
    Component,
    describe_masks,
    inside_polygon,
    with_halo,
    without_measurement,
)
from xrdpipe.schema import FrameStatus
from xrdpipe.stages.integrate import describe_pixels, first_frame, listed
from xrdpipe.stages.versions import software_versions
from xrdpipe.store.masks import MaskRecord, mask_done, write_mask
from xrdpipe.types import BoolArray, FrameRecord, FrameSource, Mask, Outcome, Progress

POLARIZATION_FACTOR = 0.99
"""Along a ring only the ratio between its pixels matters: the default of integration is enough."""

SPOTS_TOO_MANY = 0.1
"""Spots over more of the detector than this are the sample, not the diamonds."""


@dataclass(frozen=True)
class Job:
    """Everything decided before the frames are looked at.

    Parameters
    ----------
    shape
        Rows and columns of an oriented frame.
    geometry
        None without ``--poni``.
    sample
        Rows of the frames to look at.
    fixed
        Components known without looking: gaps, pixel mask, polygons, combined masks.
    aside
        Pixels that are not looked at: those components, and gaps and pixel mask even where
        ``--no-detector`` keeps them out of the mask.
    """

    config: MaskConfig
    source: FrameSource
    shape: tuple[int, int]
    geometry: Geometry | None
    kind: PixelKind
    sample: tuple[int, ...]
    fixed: tuple[Component, ...]
    aside: BoolArray
    combined: Mask | None

    @property
    def noise(self) -> PixelNoise:
        """Noise of one frame's pixel."""
        return PixelNoise(self.config.gain or 1.0, self.config.read_noise or 0.0)


@dataclass(frozen=True)
class Seen:
    """What the frames showed; arrays have shape (rows, columns).

    Parameters
    ----------
    stack
        Sums of the frames.
    rows
        The frames that could be used.
    without_value, overexposed
        In how many frames a pixel held a sentinel, or was overexposed.
    picture
        The frame in the middle of the sample, and its name.
    skipped
        Reasons of the frames that could not be used.
    """

    stack: FrameStack
    rows: tuple[int, ...]
    without_value: NDArray[np.uint16]
    overexposed: NDArray[np.uint16]
    picture: NDArray[Any]
    picture_name: str
    skipped: tuple[str, ...]


def run(config: MaskConfig, progress: Progress | None = None) -> Outcome:
    """Build the mask that the options ask for, and draw it.

    Returns
    -------
    Outcome
        ``details["components"]`` holds the number of pixels of each component; ``lost`` counts
        the frames of the sample that could not be used.

    Raises
    ------
    XrdpipeError
        Before anything is written, if an input or option cannot be used.
    """
    progress = progress or Progress()
    job = prepare(config, progress)
    key = run_key(job)
    if mask_done(config.output, key, config.restart):
        return Outcome.already_done(config.output)
    seen = look(job, progress)
    components = find(job, seen, progress)
    if not components:
        raise OptionError(
            f"no component of a mask was asked for, so {config.output} was not written; give at "
            "least one, for example --hot 5, --dead or --polygon (overexposed pixels need a known "
            "saturation: --saturation)."
        )
    union = _refuse_everything(job.source.name, job.shape, components)
    write_mask(config.output, _record(job, seen, components, key))
    if config.png:
        from xrdpipe.pictures import draw_mask

        title = f"{config.output.name} over {seen.picture_name}"
        draw_mask(config.output.with_suffix(".png"), seen.picture, components, title)
    return Outcome(
        config.output,
        len(seen.skipped),
        _summary(job, seen, components, union),
        {
            "masked": int(union.sum()),
            "components": {part.name: part.count for part in components},
            "frames": seen.stack.frames,
        },
    )


def prepare(config: MaskConfig, progress: Progress) -> Job:
    """Open everything and decide which frames to look at; raises before work starts."""
    source = open_frames(config.frames)
    progress.note(f"frames: {source.kind}")
    first = first_frame(source)
    rows, columns = oriented(first, config.flip, config.rotate).shape
    shape = int(rows), int(columns)
    geometry = None
    if config.poni is not None:
        geometry = load_geometry(config.poni, shape, needs_wavelength=False)
    kind = pixel_kind(
        first,
        "Detector" if geometry is None else geometry.detector_name,
        source.detector.description,
        config.saturation or source.detector.saturation_value,
        config.sentinel,
        source.detector.bit_depth,
    )
    progress.note(describe_pixels(kind))
    combined = load_masks(config.combine, shape, config.flip, config.rotate)
    for sentence in () if combined is None else describe_masks(combined):
        progress.note(sentence)
    usable = [row for row, record in enumerate(source.records) if not record.problem]
    # The middles of equal parts of the series, so that neither end weighs more.
    places = (np.arange(config.sample) + 0.5) * len(usable) / config.sample
    sample = tuple(usable[place] for place in np.unique(places.astype(int)))
    unmeasured = tuple(_unmeasured(config, source, geometry))
    if config.detector and not unmeasured:
        progress.note("no --poni and no pixel_mask: gaps are known by their values only")
    fixed = (*(unmeasured if config.detector else ()), *_given(config, source, shape, combined))
    _refuse_everything(source.name, shape, fixed)
    aside = _union(shape, (*fixed, *unmeasured))
    return Job(config, source, shape, geometry, kind, sample, fixed, aside, combined)


def look(job: Job, progress: Progress) -> Seen:
    """Read the sample, one frame in memory at a time.

    Raises
    ------
    InputError
        If none of the frames can be used.
    """
    config = job.config
    stack = FrameStack(job.shape, len(job.sample))
    without_value, overexposed = (np.zeros(job.shape, np.uint16) for _ in range(2))
    picture, picture_name = np.zeros(job.shape), ""
    rows: list[int] = []
    skipped: list[str] = []
    progress.start("mask: looking at frames", len(job.sample))
    for place, row in enumerate(job.sample):
        record = job.source.records[row]
        try:
            image, valid = _read(job, row)
            if not np.any(image[valid & ~job.aside]):
                raise FrameError(FrameStatus.EMPTY, f"{_name(record)}: every valid pixel is zero")
        except FrameError as error:
            named = record.file in error.reason or _name(record) in error.reason
            skipped.append(error.reason if named else f"{_name(record)}: {error.reason}")
            progress.advance(1)
            continue
        without_value += ~valid
        if job.kind.saturation is not None and config.overexposed:
            overexposed += valid & ~job.aside & (image >= job.kind.saturation)
        stack.add(place, image, valid & ~job.aside)
        rows.append(row)
        if not picture_name or place <= len(job.sample) // 2:
            picture, picture_name = image, _name(record)
        progress.advance(1)
    progress.done()
    if not rows:
        raise InputError(f"none of the frames of {job.source.name} can be used: {skipped[0]}.")
    return Seen(
        stack, tuple(rows), without_value, overexposed, picture, picture_name, tuple(skipped)
    )


def find(job: Job, seen: Seen, progress: Progress) -> tuple[Component, ...]:
    """Every component the options ask for; rings are judged by what the earlier ones leave."""
    config, stack = job.config, seen.stack
    most = stack.frames // 2
    found = list(job.fixed)

    def add(name: str, pixels: BoolArray, source: str) -> None:
        found.append(Component(name, source, pixels))

    if config.detector:
        pixels = seen.without_value > most
        values = listed(job.kind.sentinels) or "NaN"
        add("sentinel", pixels, f"no measurement in most frames ({values})")
        passing = int(np.count_nonzero((seen.without_value > 0) & ~pixels))
        if passing:
            progress.note(
                f"{passing} pixels carry no measurement in fewer than half of the frames: they "
                "are left to 'integrate', which masks them frame by frame"
            )
    if config.overexposed and job.kind.saturation is not None:
        add(
            "overexposed",
            with_halo(seen.overexposed > 0, config.halo),
            f"from {job.kind.saturation:.0f} counts in any frame "
            f"({_frames_of(seen.overexposed, most)}), halo {config.halo}",
        )
    if config.threshold is not None:
        low, high = config.threshold
        median = stack.median
        outside = (median < low) | (median > high)
        add("threshold", outside, f"median over the stack outside {low:g} to {high:g}")
    if config.hot is not None:
        hot = stack.hot_pixels(config.hot, job.noise)
        add("hot", hot, f"{config.hot:g} standard deviations and 3 times above all neighbours")
    if config.dead:
        enough = np.mean(stack.total >= DEAD_COUNTS)
        add(
            "dead",
            stack.dead_pixels(),
            "zero in every frame where most neighbours count; the frames hold enough counts to "
            f"tell in {enough:.0%} of the detector",
        )
    if config.shadow is not None:
        dark = shadows(
            stack.mean,
            _norm(job),
            _geometry(job).two_theta,
            _left(job, found),
            config.shadow,
            job.noise.gain / stack.frames,
        )
        add("shadow", dark, f"regions below {config.shadow:g} of the background at their 2theta")
    if config.spots is None and config.azimuthal is None:
        return tuple(found)
    rings, norm = _rings(job), _norm(job)
    if config.spots is not None:
        # The core of a spot may be overexposed; it is a part of the spot all the same.
        valid = _left(job, [part for part in found if part.name != "overexposed"])
        times = _spot_counts(job, seen.rows, rings, norm, valid, progress)
        lasting = times > config.persistent * stack.frames
        add(
            "spots",
            with_halo(lasting, config.halo),
            f"{config.spots:g} standard deviations above the ring in more than "
            f"{config.persistent:.0%} of the frames ({np.count_nonzero(lasting)} pixels; "
            f"{_frames_of(times, most)}), halo {config.halo}",
        )
        covered = found[-1].pixels.mean()
        if covered > SPOTS_TOO_MANY:
            progress.note(
                f"warning: spots cover {covered:.0%} of the detector: these are grains of the "
                "sample, which 'integrate' rejects frame by frame; raise --spots or --persistent"
            )
    if config.azimuthal is not None:
        noise = stack.median_noise(job.noise)
        outliers = azimuthal_outliers(
            stack.median, norm, rings, _left(job, found), config.azimuthal, noise
        )
        source = f"{config.azimuthal:g} standard deviations off the ring in the stack's median"
        add("azimuthal", outliers, source)
    return tuple(found)


def _unmeasured(
    config: MaskConfig, source: FrameSource, geometry: Geometry | None
) -> Iterator[Component]:
    """What the detector and the file say of pixels that measure nothing."""
    if geometry is not None:
        yield Component(
            "detector_gaps", f"gaps of pyFAI's {geometry.detector_name}", geometry.gap_mask
        )
    in_file = source.detector.pixel_mask
    if in_file is not None:
        if in_file.shape != source.shape:
            raise InputError(
                f"{source.name}: its pixel_mask has {in_file.shape[0]} x {in_file.shape[1]} "
                f"pixels, its frames {source.shape[0]} x {source.shape[1]}."
            )
        why = ", ".join(f"{n} {reason}" for reason, n in pixel_mask_reasons(in_file))
        pixels = np.asarray(oriented(in_file != 0, config.flip, config.rotate), bool)
        yield Component("pixel_mask", f"pixel_mask of the file ({why or 'empty'})", pixels)


def _given(
    config: MaskConfig, source: FrameSource, shape: tuple[int, int], combined: Mask | None
) -> Iterator[Component]:
    """What the user drew or made before."""
    if config.polygon:
        drawn = [inside_polygon(parse_polygon(text), shape) for text in config.polygon]
        for text, pixels in zip(config.polygon, drawn, strict=True):
            if not pixels.any():
                raise InputError(
                    f"polygon '{text}' covers no pixel of {source.name}, which has {shape[0]} rows "
                    f"and {shape[1]} columns; corners are column,row."
                )
        yield Component("polygon", "; ".join(config.polygon), np.logical_or.reduce(drawn))
    if combined is not None:
        parts = "; ".join(f"{name} ({n} pixels)" for name, n, _ in combined.sources)
        yield Component("combined", parts, combined.pixels)


def _spot_counts(
    job: Job,
    rows: tuple[int, ...],
    rings: Rings,
    norm: NDArray[np.float32],
    left: BoolArray,
    progress: Progress,
) -> NDArray[np.uint16]:
    """In how many frames each pixel lies in a spot; reads the frames a second time."""
    config = job.config
    assert config.spots is not None
    times = np.zeros(job.shape, np.uint16)
    progress.start("mask: spots", len(rows))
    for row in rows:
        image, valid = _read(job, row)
        valid &= left
        shown = np.where(valid, image, 0).astype(np.float32)
        times += spots(shown, norm, rings, valid, config.spots, config.halo, job.noise)
        progress.advance(1)
    progress.done()
    return times


def _read(job: Job, row: int) -> tuple[NDArray[Any], BoolArray]:
    """One oriented frame, and where it carries a measurement."""
    image = job.source.read(row).image
    image = np.ascontiguousarray(oriented(image, job.config.flip, job.config.rotate))
    if image.shape != job.shape:
        raise FrameError(
            FrameStatus.WRONG_SHAPE,
            f"{_name(job.source.records[row])} has {image.shape[0]} x {image.shape[1]} pixels, "
            f"the first frame {job.shape[0]} x {job.shape[1]}",
        )
    late, _ = sentinels_of(image, job.kind)
    return image, ~without_measurement(image, (*job.kind.sentinels, *late))


def _geometry(job: Job) -> Geometry:
    assert job.geometry is not None  # the options were checked together
    return job.geometry


def _rings(job: Job) -> Rings:
    """The bins that ``integrate`` uses by default, so that its rejection decides alike."""
    geometry = _geometry(job)
    binning = choose_binning(geometry, "2theta", None, None)
    return Rings(bin_of_pixel(geometry, binning), binning.count, geometry.shape)


def _norm(job: Job) -> NDArray[np.float32]:
    geometry = _geometry(job)
    return np.asarray(geometry.polarization(POLARIZATION_FACTOR) * geometry.solid_angle, np.float32)


def _frames_of(times: NDArray[np.uint16], most: int) -> str:
    anywhere, mostly = np.count_nonzero(times), np.count_nonzero(times > most)
    return f"{anywhere} in any frame, {mostly} in most frames"


def _left(job: Job, found: list[Component]) -> BoolArray:
    """Pixels that no component has masked so far."""
    return ~(job.aside | _union(job.shape, found))


def _refuse_everything(
    name: str, shape: tuple[int, int], components: Sequence[Component]
) -> BoolArray:
    """Union of the components, unless it leaves no pixel."""
    union = _union(shape, components)
    if union.all():
        listing = ", ".join(f"{part.name} {part.count}" for part in components)
        raise InputError(
            f"the mask of {name} would leave no pixel ({listing}); nothing was written."
        )
    return union


def _union(shape: tuple[int, int], components: Sequence[Component]) -> BoolArray:
    union = np.zeros(shape, bool)
    for part in components:
        union |= part.pixels
    return union


def _name(record: FrameRecord) -> str:
    return f"{_file(record)} frame {record.index}"


def _file(record: FrameRecord) -> str:
    return Path(record.file.partition("::")[0]).name


def run_key(job: Job) -> dict[str, Any]:
    """What the mask depends on, contents by hash (decision 21)."""
    config = job.config
    records = [job.source.records[row] for row in job.sample]
    masks = job.combined.sources if job.combined is not None else ()
    in_file = job.source.detector.pixel_mask
    return {
        "stage": "mask",
        "options": {
            name: value
            for name, value in config.recorded().items()
            if name not in ("frames", "poni", "combine")
        },
        "poni": None if job.geometry is None else job.geometry.poni_sha256,
        "masks": [digest for _, _, digest in masks],
        "pixel_mask": None if in_file is None else hashlib.sha256(in_file.tobytes()).hexdigest(),
        "frames": [[_file(r), r.place, r.index, r.size, r.mtime_ns] for r in records],
        "versions": software_versions(),
    }


def _record(
    job: Job, seen: Seen, components: tuple[Component, ...], key: dict[str, Any]
) -> MaskRecord:
    geometry = job.geometry
    parameters: dict[str, Any] = {
        "flip": job.config.flip,
        "rotate": job.config.rotate,
        "pixel_kind": describe_pixels(job.kind),
        "frames_looked_at": seen.stack.frames,
        "frames_in_series": len(job.source.records),
        "pyfai_version": software_versions()["pyFAI"],
    }
    if geometry is not None:
        parameters |= {
            "poni": geometry.poni_text,
            "poni_file": geometry.poni_name,
            "poni_sha256": geometry.poni_sha256,
        }
    for number, (name, pixels, digest) in enumerate(job.combined.sources if job.combined else ()):
        parameters[f"combined_{number}"] = f"{name}: {pixels} pixels, sha256 {digest}"
    return MaskRecord(
        shape=job.shape,
        components=components,
        title=job.source.name,
        config=job.config.recorded(),
        key=key,
        frames=tuple(_name(job.source.records[row]) for row in seen.rows),
        skipped=seen.skipped,
        parameters=parameters,
    )


def _summary(job: Job, seen: Seen, components: tuple[Component, ...], union: BoolArray) -> str:
    used, total = seen.stack.frames, len(job.source.records)
    lines = [
        f"{job.config.output}: {int(union.sum())} pixels masked ({union.mean():.2%}), from "
        f"{used} of {total} frames."
    ]
    lines += [f"  {part.name}: {part.count} ({part.source})" for part in components]
    if job.config.png:
        lines.append(f"  drawn over {seen.picture_name} in {job.config.output.with_suffix('.png')}")
    if seen.skipped:
        lines.append(f"  {len(seen.skipped)} frames could not be used:")
        lines += [f"    {reason}" for reason in seen.skipped[:5]]
    return "\n".join(lines)
