"""The patterns behind a map: found, opened, and told where they do not belong to it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from xrdpipe.bounds import MOST_VALUES, sound
from xrdpipe.errors import InputError, InputMissingError
from xrdpipe.frames.layouts.links import whole
from xrdpipe.schema import FrameFlag
from xrdpipe.store.map_record import MapRecord
from xrdpipe.store.nexus import text
from xrdpipe.store.patterns import PatternsFile
from xrdpipe.types import BoolArray

LONGEST_FACT = 20_000
"""Characters of one entry of what a patterns file says of its making."""


def open_patterns(record: MapRecord, variant: str | None = None) -> PatternsFile:
    """Open the patterns that a map was made from.

    Parameters
    ----------
    variant
        None: the first that the map rests on.

    Raises
    ------
    InputMissingError, InputError
        If they are gone, have another variant, or are not those of the map.
    """
    if not record.patterns.is_file():
        raise InputMissingError(
            f"the patterns of {record.path} are not at {record.patterns}; bring them there, or "
            "make the map again from where they are."
        )
    source = PatternsFile(record.patterns, variant or record.variants[0])
    made_from = record.key.get("patterns")
    stored = source.run_key()
    last = int(record.phase_map.scan.frame_index.max(initial=-1))
    other_run = isinstance(made_from, str) and stored and stored != made_from
    if other_run or last >= source.n_rows:
        source.close()
        raise InputError(
            f"{record.patterns} holds other patterns than those that {record.path} was made from; "
            "make the map again."
        )
    return source


def held_variants(source: PatternsFile) -> tuple[str, ...]:
    """The variants in the file."""
    held = tuple(v for v in ("masked", "unmasked") if f"azint1d_{v}" in source.entry)
    return held or (source.variant,)


def rows_of(frame_index: NDArray[np.int32], chosen: BoolArray, n_rows: int) -> BoolArray:
    """Pixels as rows of the patterns.

    Parameters
    ----------
    frame_index
        Shape (ny, nx): row of each pixel, −1 without one.
    chosen
        Shape (M, ny, nx).

    Returns
    -------
    ndarray
        Shape (M, n_rows).
    """
    members = np.zeros((len(chosen), n_rows), bool)
    there = frame_index >= 0
    for group, pixels in zip(members, chosen, strict=True):
        group[frame_index[pixels & there]] = True
    return members


def facts_of(source: PatternsFile) -> dict[str, Any]:
    """What a patterns file says of its making: texts and numbers of ``reduction/input``."""
    found: dict[str, Any] = {}
    with sound(str(source.path)):
        given = source.entry.get("reduction/input", {})
        for name, item in given.items():
            if not isinstance(item, h5py.Dataset) or item.size > 64:
                continue
            value = whole(item, MOST_VALUES)
            if isinstance(value, (bytes, str)):
                found[name] = text(value)[:LONGEST_FACT]
            else:
                found[name] = np.asarray(value).tolist()
        for name in ("title", "end_time"):
            if isinstance(source.entry.get(name), h5py.Dataset):
                found[name] = text(source.entry[name])
        if "instrument/name" in source.entry:
            found["detector"] = text(source.entry["instrument/name"])
        program = source.entry.get("program_name")
        if program is not None:
            found["xrdpipe_version"] = text(program.attrs.get("version", ""))
    return found


def parsed(facts: Mapping[str, Any], name: str) -> Any:
    """An entry that holds JSON; None where it is absent or damaged."""
    try:
        return json.loads(str(facts.get(name, "")))
    except ValueError:
        return None


def flag_counts(source: PatternsFile) -> dict[str, int]:
    """How many frames carry each flag."""
    with sound(str(source.path)):
        frames = source.entry.get("frames", {})
        if "flags" not in frames:
            return {}
        counts: Counter[str] = Counter()
        values = np.asarray(whole(frames["flags"]))
        for flag in FrameFlag:
            counts[str(flag.name).lower()] = int(np.count_nonzero(values & flag.value))
        return {name: count for name, count in counts.items() if count}
