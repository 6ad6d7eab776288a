"""LImA (ESRF and others): ``/entry_0000/measurement/data`` in a file of the detector's own."""

from __future__ import annotations

import re

import h5py

from xrdpipe.frames.layouts.layout import Layout, Scope, holds_frames
from xrdpipe.frames.layouts.links import attribute, find_dataset, own_groups
from xrdpipe.frames.layouts.metadata import detector_info, exposure
from xrdpipe.frames.layouts.planes import joined, planes_of

_ENTRY = re.compile(r"entry_\d{4}$")


def probe(scope: Scope) -> Layout | None:
    """Find the frames of a LImA file; several entries follow one another."""
    found = []
    for name, entry in scope.entries():
        data = find_dataset(entry, "measurement/data") if _ENTRY.match(name) else None
        if data is not None and holds_frames(data, 2) and scope.means(data):
            found.append((name, entry, data))
    if not found:
        return None
    found.sort(key=lambda item: item[0])
    planes = joined([planes_of(data) for _, _, data in found])
    detector = _detector(found[0][1])
    creator = attribute(scope.file, "creator") or attribute(scope.file, "default")
    return Layout(
        "LImA",
        tuple(f"/{name}/measurement/data" for name, _, _ in found),
        planes,
        (f"entries {found[0][0]} to {found[-1][0]} with measurement/data", f"creator '{creator}'"),
        detector=detector_info(found[0][1], detector),
        exposure=exposure(
            detector,
            planes.size,
            ("acquisition/exposure_time", "acq_parameters/acq_expo_time", "header/acq_expo_time"),
        ),
    )


def _detector(entry: h5py.Group) -> h5py.Group | None:
    """``/entry_0000/<instrument>/<detector>``, where LImA describes acquisition and camera."""
    for _, group in own_groups(entry):
        for _, inner in own_groups(group):
            if "detector_information" in inner or "acquisition" in inner:
                return inner
    return None
