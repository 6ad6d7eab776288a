"""Ranges of a recipe replaced by measured ones, and what changed as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from xrdpipe.synthesis.recipe import Recipe

Changes = dict[str, tuple[Any, Any]]
"""``{"profile.width": (before, after), …}``; pairs or single numbers."""

SAME_WAVELENGTH = 1e-3
"""Relative difference from which on widths and pixels in degrees do not carry over."""


def with_ranges(
    recipe: Recipe, measured: Mapping[str, Mapping[str, Any]]
) -> tuple[Recipe, Changes]:
    """A recipe with some values replaced, rounded to what a user can copy.

    Parameters
    ----------
    recipe
        What is changed.
    measured
        ``{"profile": {"width": (low, high)}, …}``.
    """
    changes: Changes = {}
    effects: dict[str, Any] = {}
    for effect, values in measured.items():
        before = getattr(recipe, effect)
        rounded = {name: _rounded(value) for name, value in values.items()}
        effects[effect] = replace(before, **rounded)
        changes |= {f"{effect}.{k}": (getattr(before, k), v) for k, v in rounded.items()}
    return replace(recipe, **effects), changes


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(float(f"{number:.4g}") for number in value)
    return float(f"{value:.4g}")


def as_rows(changes: Changes, after: str) -> list[str]:
    """Lines of a table; ``after`` heads the column of the new values."""
    head = f"  {'[synthesis] key':<32}{'recipe':>18}    {after}"
    rows = [f"  {k:<32}{_shown(old):>18}    {_shown(new)}" for k, (old, new) in changes.items()]
    return [head, *rows]


def _shown(value: Any) -> str:
    return f"{value[0]:.4g} to {value[1]:.4g}" if isinstance(value, tuple) else f"{value:.4g}"
