"""``xrdpipe inspect``: what is in there, with the evidence, and what is missing or odd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from xrdpipe.config import InspectConfig
from xrdpipe.errors import InputError, XrdpipeError
from xrdpipe.frames import open_frames
from xrdpipe.frames.auxiliary import load_masks
from xrdpipe.frames.dead import PixelKind, oriented, pixel_kind
from xrdpipe.frames.hdf5 import HDF5_SUFFIXES
from xrdpipe.integration.geometry import Geometry, choose_binning, load_geometry
from xrdpipe.integration.orientation import best_orientation
from xrdpipe.masks import fraction_inside, without_measurement
from xrdpipe.schema import FrameStatus
from xrdpipe.stages.integrate import describe_pixels, first_frame
from xrdpipe.store.validate import describe
from xrdpipe.types import FrameSource, Outcome, Progress

FLIPS = ("none", "ud", "lr", "both")


def run(config: InspectConfig, progress: Progress | None = None) -> Outcome:
    """Describe frames, or a file xrdpipe wrote; nothing is written."""
    progress = progress or Progress()
    path = Path(config.path[0])
    if len(config.path) == 1 and path.suffix.lower() in HDF5_SUFFIXES and path.is_file():
        ours = _processed(path)
        if ours is not None:
            return Outcome(path, 0, ours)
    source = open_frames(config.path)
    first = first_frame(source)
    lines = [f"{source.name}", f"  layout      {source.kind}", *_numbers(source)]
    name = "Detector"
    geometry = None
    if config.poni is not None:
        shape = oriented(first, config.flip, config.rotate).shape
        geometry = load_geometry(config.poni, (int(shape[0]), int(shape[1])))
        name = geometry.detector_name
    kind = pixel_kind(
        first,
        name,
        source.detector.description,
        config.saturation or source.detector.saturation_value,
        config.sentinel,
    )
    lines += _pixels(first, kind, source)
    if geometry is not None:
        lines += _geometry(config, source, geometry)
        lines += _orientation(config, first, kind, geometry)
    return Outcome(path, 0, "\n".join(lines))


def _processed(path: Path) -> str | None:
    """Description of one of our own files, or None if it is something else."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            if file.attrs.get("creator") not in ("xrdpipe", b"xrdpipe"):
                return None
            kind, problems = describe(file)
            lines = [f"{path}", f"  layout      {kind} written by xrdpipe"]
            entry: Any = file["entry"]
            if "data/I" in entry:
                data = entry["data"]
                axis = data["radial_axis"]
                lines.append(
                    f"  patterns    {data['I'].shape[0]} x {data['I'].shape[1]} bins, "
                    f"{axis[0]:.4g}-{axis[-1]:.4g} {axis.attrs['units']}"
                )
            if "frames/status" in entry:
                lines.append(f"  status      {_status_line(entry['frames/status'][()])}")
            if "phase_map/phase_names" in entry:
                names = ", ".join(name.decode() for name in entry["phase_map/phase_names"][()])
                shape = entry["mapping/frame_index"].shape
                lines.append(f"  map         {shape[0]}x{shape[1]}, phases {names}")
            lines += [f"  problem     {problem}" for problem in problems]
            return "\n".join(lines)
    except (OSError, KeyError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error


def _status_line(status: NDArray[np.uint8]) -> str:
    return ", ".join(
        f"{int((status == member).sum())} {member.name.lower()}"
        for member in FrameStatus
        if (status == member).any()
    )


def _numbers(source: FrameSource) -> list[str]:
    """Numbering and gaps: what is missing shifts nothing, but must be seen."""
    index = np.array([record.index for record in source.records])
    if not source.numbered:
        return [f"  numbering   none; {index.size} frames in order"]
    low, high = int(index.min()), int(index.max())
    missing = sorted(set(range(low, high + 1)) - set(index.tolist()))
    line = f"  numbering   {low}-{high}, {index.size} frames"
    if missing:
        shown = ", ".join(map(str, missing[:8])) + (", …" if len(missing) > 8 else "")
        line += f"; {len(missing)} missing ({shown})"
    return [line]


def _pixels(first: NDArray[Any], kind: PixelKind, source: FrameSource) -> list[str]:
    dead = without_measurement(first, kind.sentinels)
    good = first[~dead]
    counts = "no counts"
    if good.size:
        counts = f"counts {good.min():g}-{good.max():g}, mean {good.mean():.4g}"
    lines = [
        f"  {describe_pixels(kind).replace('pixels: ', 'pixels      ', 1)}",
        f"  first frame {dead.sum()} pixels without measurement ({dead.mean():.1%}); {counts}",
    ]
    mask = source.detector.pixel_mask
    if mask is not None:
        lines.append(f"  pixel_mask  {int(mask.sum())} pixels marked in the file")
    return lines


def _geometry(config: InspectConfig, source: FrameSource, geometry: Geometry) -> list[str]:
    binning = choose_binning(geometry, config.unit, config.bins, config.radial_range)
    unit = "degrees" if binning.unit == "2theta" else "1/angstrom"
    lines = [
        f"  geometry    {geometry.poni_name}: {geometry.detector_name}, "
        f"{geometry.distance * 1e3:.2f} mm, {geometry.wavelength:.5g} Å",
        f"  bins        {binning.count} from {binning.centres[0]:.4g} to "
        f"{binning.centres[-1]:.4g} {unit}",
    ]
    stated = source.detector.wavelength
    if stated and abs(stated / geometry.wavelength - 1) > 1e-3:
        lines.append(
            f"  warning     the frames state {stated:.5g} Å, the PONI {geometry.wavelength:.5g} Å"
        )
    return lines


def _orientation(
    config: InspectConfig, first: NDArray[Any], kind: PixelKind, geometry: Geometry
) -> list[str]:
    """Warn where another flip fits the gaps, the mask or the rings clearly better."""
    dead = without_measurement(first, kind.sentinels)
    lines = []
    reference = geometry.gap_mask
    what = f"gaps of {geometry.detector_name}"
    if config.mask:
        try:
            mask = load_masks(config.mask, geometry.shape, config.flip, config.rotate)
        except XrdpipeError as error:
            return [f"  warning     {error}"]
        assert mask is not None
        lines.append(f"  mask        {', '.join(config.mask)}: {mask.fraction:.1%} masked")
        if not reference.any():
            reference, what = mask.pixels, f"mask {', '.join(config.mask)}"
    flips = {
        flip: np.asarray(oriented(dead, flip, config.rotate))
        for flip in FLIPS
        if oriented(dead, flip, config.rotate).shape == geometry.shape
    }
    if dead.any() and reference.any():
        # How much of the frame's own gaps the reference covers.
        covered = {flip: fraction_inside(image, reference) for flip, image in flips.items()}
        best = max(covered, key=lambda flip: covered[flip])
        lines.append(
            f"  gaps        {covered[config.flip]:.1%} of the frame's dead pixels lie in the {what}"
        )
        if covered[best] > covered[config.flip] + 0.02:
            lines.append(
                f"  warning     with --flip {best} it would be {covered[best]:.1%}: the frames "
                "seem to lie differently from the PONI and mask"
            )
    image = np.where(dead, np.nan, first.astype(np.float32))
    images = {flip: np.asarray(oriented(image, flip, config.rotate)) for flip in flips}
    sharpness, best = best_orientation(geometry, images)
    if sharpness[best] > 1.2 * sharpness[config.flip]:
        lines.append(
            f"  warning     rings are {sharpness[best] / sharpness[config.flip]:.1f} times sharper "
            f"with --flip {best} than with --flip {config.flip}: check that the PONI was made "
            "for frames that lie like these"
        )
    else:
        lines.append(f"  orientation rings are sharpest with --flip {config.flip} (as given)")
    return lines
