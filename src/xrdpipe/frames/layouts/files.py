"""Data files without the master that lists them: one series, if nothing speaks against it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from xrdpipe.errors import InputError
from xrdpipe.frames.layouts.layout import Layout
from xrdpipe.frames.layouts.links import LostDatasetError
from xrdpipe.frames.layouts.planes import joined, lost_planes
from xrdpipe.types import IntArray

_COUNTER = re.compile(r"\d+(?=\D*$)")


def file_counters(files: Sequence[Path]) -> list[int]:
    """The last number in each name.

    Raises
    ------
    InputError
        If the names differ in anything else.
    """
    names = {(file.parent, _COUNTER.sub("#", file.stem)) for file in files}
    counters = [int(match[0]) for file in files if (match := _COUNTER.search(file.stem))]
    if len(names) != 1 or len(set(counters)) != len(files):
        raise InputError("their names differ in more than the last number")
    return counters


def check_no_scan(file: Path, layout: Layout) -> None:
    """Raise InputError for a file that may be a scan of its own."""
    if layout.columns or layout.scan is not None:
        raise InputError(f"{file.name} holds motors or counters: it may be a scan of its own")


def continued(
    files: Sequence[Path], counters: Sequence[int], found: Sequence[Layout | LostDatasetError]
) -> Layout:
    """One layout of files after each other; one that cannot be opened has the places of a full one.

    At least one must be open. Frames have the numbers that the files state, else those that files
    of equal length give them.

    Raises
    ------
    InputError
        If the frames differ, or cannot be numbered.
    """
    layouts = [item for item in found if isinstance(item, Layout)]
    if len({(one.name, s.shape, s.dtype.str) for one in layouts for s in one.planes.stored}) > 1:
        raise InputError("they hold different kinds of frames")
    first = layouts[0]
    full = max(one.planes.size for one in layouts)
    parts = []
    for item in found:
        if isinstance(item, LostDatasetError):
            item.dataset = first.datasets[0]
            parts.append(lost_planes(full, item))
        else:
            parts.append(item.planes)
    sizes = [part.size for part in parts]
    numbers = _stated(found, full)
    said = "frame numbers as the files state them"
    if numbers is None:
        if any(size != full for size in sizes[:-1]):
            listing = ", ".join(map(str, sizes[:6])) + (", …" if len(sizes) > 6 else "")
            raise InputError(f"they hold different numbers of frames ({listing}), uncounted")
        base = min(1, *counters)
        numbers = [
            base + (counter - base) * full + np.arange(size)
            for counter, size in zip(counters, sizes, strict=True)
        ]
        said = f"frames numbered by the names, {full} in each file"
    exposures = {one.exposure if isinstance(one.exposure, float) else None for one in layouts}
    return replace(
        first,
        name=f"{first.name.removesuffix(' file')} files",
        datasets=tuple(
            f"{file.name}::{item.datasets[0]}"
            for file, item in zip(files, found, strict=True)
            if isinstance(item, Layout)
        ),
        planes=joined(parts),
        evidence=(
            f"{len(files)} files without a master, {files[0].name} to {files[-1].name}",
            said,
            *first.evidence,
        ),
        numbers=np.concatenate(numbers),
        exposure=exposures.pop() if len(exposures) == 1 else None,
    )


def _stated(found: Sequence[Layout | LostDatasetError], full: int) -> list[IntArray] | None:
    """Frame numbers that the files themselves count, if all do and the counter runs through."""
    if any(isinstance(item, Layout) and item.numbers is None for item in found):
        return None
    known = [item.numbers if isinstance(item, Layout) else None for item in found]
    lost = np.arange(full)
    for row in reversed(range(len(known) - 1)):
        following = known[row + 1]
        if known[row] is None and following is not None:
            known[row] = following[0] - full + lost
    numbers: list[IntArray] = []
    for item in known:
        numbers.append(numbers[-1][-1] + 1 + lost if item is None else item)
    runs = (np.diff(np.concatenate(numbers)) > 0).all()
    return numbers if runs else None
