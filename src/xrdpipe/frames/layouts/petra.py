"""PETRA III, Lambda detectors: ``/entry/instrument/detector/data`` of an .nxs file.

A detector of several modules has one file each, and a master with a virtual dataset over them;
what lies between the modules is in no file.
"""

from __future__ import annotations

import re

from xrdpipe.frames.layouts.layout import Layout, Scope, holds_frames
from xrdpipe.frames.layouts.links import find_dataset, find_group
from xrdpipe.frames.layouts.metadata import detector_info, exposure, text
from xrdpipe.frames.layouts.planes import planes_of

_LAMBDA = re.compile(r"lambda|x-?spectrum", re.I)
_TIMES = ("count_time", "exposure_time", "collection/shutter_time", "collection/exposure_time")


def probe(scope: Scope) -> Layout | None:
    """Find the frames of a Lambda file."""
    for name, entry in scope.entries():
        detector = find_group(entry, "instrument/detector")
        data = find_dataset(entry, "instrument/detector/data")
        if detector is None or data is None or not holds_frames(data) or not scope.means(data):
            continue
        said = [text(detector, key) for key in ("description", "local_name", "type", "name")]
        named = next((word for word in said if word and _LAMBDA.search(word)), None)
        if named is None:
            continue
        planes = planes_of(data)
        evidence = [f"/{name}/instrument/detector/data of '{named}'"]
        if data.is_virtual:
            parts = len(data.virtual_sources())
            evidence.append(f"virtual, of {parts} parts")
        info = detector_info(entry, detector)
        return Layout(
            "Lambda/PETRA",
            (f"/{name}/instrument/detector/data",),
            planes,
            tuple(evidence),
            detector=info,
            exposure=exposure(detector, planes.size, _TIMES),
        )
    return None
