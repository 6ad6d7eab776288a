"""On-disk names, numbers, units and NX classes: pure data, nothing is computed here.

Names here are read by other programs: they stay once released.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

SCHEMA_VERSION = "1"


class FrameStatus(IntEnum):
    """``/entry/frames/status`` (decision 15)."""

    PENDING = 0
    OK = 1
    MISSING = 2
    UNREADABLE = 3
    CORRUPT = 4
    WRONG_SHAPE = 5
    EMPTY = 6
    DUPLICATE = 7
    SKIPPED = 8


LOST = frozenset(range(FrameStatus.MISSING, FrameStatus.DUPLICATE + 1))


class PixelStatus(IntEnum):
    """``/entry/phase_map/status``: the frame's status, or what the map adds to it."""

    OUTSIDE_GRID = 32
    MODEL_FAILED = 33


class FrameFlag(IntFlag):
    """``/entry/frames/flags`` bits (decision 15)."""

    SATURATED = 1
    LOW_MONITOR = 2
    SENTINEL_SUSPECT = 4
    RETRIED = 8


SATURATED_FRACTION = 0.05
"""A frame with more than this fraction of its valid pixels saturated gets the flag."""

NO_RESULT, NONE_PRESENT, UNKNOWN, UNDETERMINED = -1, -2, -3, -4
WINNER_MEANINGS = {
    NO_RESULT: "no_result",
    NONE_PRESENT: "none_present",
    UNKNOWN: "unknown",
    UNDETERMINED: "undetermined",
}

PRESENT, ABSENT, UNDECIDED = 1, 0, -1

VARIANTS = ("masked", "unmasked")

VOLATILE = frozenset(
    {
        "file_time",
        "date",
        "start_time",
        "end_time",
        "host",
        "entry_identifier_uuid_time",
        "pipeline",
    }
)
"""Attributes and datasets left out when two outputs are compared (decisions 20 and 22)."""

UNITS = {
    "2theta": ("degrees", "2theta (degrees)"),
    "q": ("1/angstrom", "q (1/angstrom)"),
}
"""Option value → (stored @units, @long_name); viewers show the long_name and no unit beside it."""

# NXazint1d (NeXus contributed definition): what a patterns file must hold to be one.
NXAZINT1D_REQUIRED = (
    "definition",
    "solid_angle_applied",
    "polarization_applied",
    "normalization_applied",
    "monitor_applied",
    "instrument/name",
    "instrument/source/name",
    "instrument/source/type",
    "instrument/source/probe",
    "instrument/monochromator/wavelength",
    "instrument/monochromator/energy",
    "reduction/program",
    "reduction/version",
    "reduction/date",
    "reduction/reference",
    "reduction/note",
    "reduction/input/poni",
    "data/I",
    "data/radial_axis",
    "data/norm",
)
