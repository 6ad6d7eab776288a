"""Is a file what it claims to be? Every problem is one sentence."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from xrdpipe.bounds import MOST_BINS, check_frames, sound
from xrdpipe.frames.layouts.chunks import check_chunks
from xrdpipe.frames.layouts.links import group_in, whole
from xrdpipe.schema import NXAZINT1D_REQUIRED, WINNER_MEANINGS, FrameStatus
from xrdpipe.store.nexus import text


def problems_of_patterns(entry: h5py.Group) -> list[str]:
    """Check the fields of NXazint1d and the consistency of the arrays."""
    holders = [group_in(entry, name) for name in entry if name.startswith("azint1d_")] or [entry]
    found = []
    for holder in holders:
        where = holder.name
        found += [
            f"{where}/{name} is absent (required by NXazint1d)"
            for name in NXAZINT1D_REQUIRED
            if name not in holder
        ]
        if "definition" in holder and text(holder["definition"]) != "NXazint1d":
            found.append(f"{where}/definition is {text(holder['definition'])}, not NXazint1d")
        if "data" in holder:
            found += _problems_of_data(group_in(holder, "data"), entry)
    if "frames/status" not in entry:
        found.append("/entry/frames/status is absent")
    return found


def _problems_of_data(data: h5py.Group, entry: h5py.Group) -> list[str]:
    found = []
    if "I" not in data or "radial_axis" not in data:
        return [f"{data.name} has no I or no radial_axis"]
    intensity, axis = data["I"], data["radial_axis"]
    check_frames(intensity.shape[0], data.name)
    if intensity.ndim != 2 or intensity.shape[1] != axis.shape[0]:
        found.append(f"{data.name}/I has shape {intensity.shape}, radial_axis {axis.shape}")
    if axis.size > MOST_BINS:
        found.append(f"{data.name}/radial_axis has {axis.size} points, at most {MOST_BINS}")
    if not np.all(np.diff(whole(axis)) > 0):
        found.append(f"{data.name}/radial_axis is not ascending")
    if "units" not in axis.attrs:
        found.append(f"{data.name}/radial_axis has no @units")
    for name in ("I_errors", "coverage", "spottiness"):
        if name in data and data[name].shape != intensity.shape:
            found.append(f"{data.name}/{name} has shape {data[name].shape}, I {intensity.shape}")
    if text(data.attrs.get("signal", "")) != "I":
        found.append(f"{data.name}@signal is not 'I'")
    status = entry.get("frames/status")
    if status is not None:
        if status.shape[0] != intensity.shape[0]:
            found.append(f"frames/status has {status.shape[0]} rows, I {intensity.shape[0]}")
        elif np.any(whole(status) == FrameStatus.PENDING):
            found.append("some frames are still pending: the run is not finished")
    if "coverage" in data and not found:
        check_chunks(data["coverage"])
        for start in range(0, intensity.shape[0], 256):
            coverage = data["coverage"][start : start + 256]
            good = np.isfinite(coverage)
            if np.any((coverage[good] < 0) | (coverage[good] > 1)):
                found.append(f"{data.name}/coverage leaves 0-1 in rows {start}-{start + 255}")
                break
    return found


def problems_of_map(entry: h5py.Group) -> list[str]:
    """Check names, shapes and value ranges of a map."""
    needed = (
        "phase_map/phase_names",
        "phase_map/presence/probability",
        "phase_map/presence/decision",
        "phase_map/winner/phase_id",
        "phase_map/winner/confidence",
        "phase_map/status",
        "mapping/frame_index",
    )
    found = [f"/entry/{name} is absent" for name in needed if name not in entry]
    if found:
        return found
    group = group_in(entry, "phase_map")
    probability = whole(group["presence/probability"])
    n_phases = group["phase_names"].shape[0]
    shape = entry["mapping/frame_index"].shape
    if probability.shape != (n_phases, *shape):
        found.append(
            f"presence/probability has shape {probability.shape}, expected {(n_phases, *shape)}"
        )
    for name in ("winner/phase_id", "winner/confidence", "status"):
        if group[name].shape != shape:
            found.append(f"{name} has shape {group[name].shape}, expected {shape}")
    good = np.isfinite(probability)
    if np.any((probability[good] < 0) | (probability[good] > 1)):
        found.append("presence/probability leaves 0-1")
    winner = whole(group["winner/phase_id"])
    allowed = [*range(n_phases), *WINNER_MEANINGS]
    if not np.isin(winner, allowed).all():
        found.append(f"winner/phase_id holds other values than {allowed}")
    if isinstance(entry.get("patterns", getlink=True), h5py.ExternalLink):
        link = entry.get("patterns", getlink=True)
        if Path(link.filename).is_absolute():
            found.append("/entry/patterns is linked by an absolute path")
    return found


def problems_of_truth(entry: h5py.Group) -> list[str]:
    """Check the arrays of a truth file."""
    group = group_in(entry, "truth")
    found = [
        f"/entry/truth/{name} is absent" for name in ("phase_names", "presence")
        if name not in group
    ]  # fmt: skip
    if not found and group["presence"].shape[0] != group["phase_names"].shape[0]:
        found.append("truth/presence and truth/phase_names differ in the number of phases")
    return found


def problems_of_mask(entry: h5py.Group) -> list[str]:
    """Check that every masked pixel of a mask file says why."""
    if "mask" not in group_in(entry, "mask"):
        return ["/entry/mask/mask is absent"]
    mask = entry["mask/mask"]
    if mask.ndim != 2 or mask.dtype.kind not in "ui":
        return [f"mask/mask is {mask.dtype} of shape {mask.shape}, expected integers in 2-D"]
    known = int(np.bitwise_or.reduce(np.asarray(mask.attrs.get("flag_masks", [0]), np.uint64)))
    unnamed = np.count_nonzero(whole(mask) & ~np.uint64(known))
    return [f"{unnamed} pixels of mask/mask carry bits that flag_masks does not name"] * bool(
        unnamed
    )


def describe(file: h5py.File) -> tuple[str, list[str]]:
    """What an HDF5 file of ours is, and its problems.

    Raises
    ------
    InputError
        If it is damaged, or so different that its problems cannot be listed.
    """
    with sound(file.filename):
        return _described(file)


def _described(file: h5py.File) -> tuple[str, list[str]]:
    if "entry" not in file:
        return "HDF5 file", ["there is no group /entry"]
    entry = group_in(file, "entry")
    found: list[str] = []
    kinds = []
    if "truth" in entry:
        kinds.append("truth file")
        found += problems_of_truth(entry)
    if "data" in entry:
        kinds.append("patterns file")
        found += problems_of_patterns(entry)
    if "phase_map" in entry:
        kinds.append("map file")
        found += problems_of_map(entry)
    if isinstance(entry.get("mask"), h5py.Group):
        kinds.append("mask file")
        found += problems_of_mask(entry)
    if not kinds:
        return "HDF5 file", [
            "it holds neither patterns (/entry/data), a map (/entry/phase_map), a mask "
            "(/entry/mask) nor a truth (/entry/truth)"
        ]
    return " and ".join(kinds), found
