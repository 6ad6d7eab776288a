"""Versions of what computes: part of every key and every output."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

from xrdpipe import __version__


@cache
def software_versions() -> dict[str, str]:
    """Versions of xrdpipe, pyFAI and torch, without importing them."""
    found = {"xrdpipe": __version__}
    for name in ("pyFAI", "torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found
