"""Vertical scales of a pattern: what is drawn of an intensity, and what the axis says there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from bokeh.models import BasicTickFormatter, CustomJSTickFormatter, TickFormatter
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """Intensities are transformed, not the axis: bokeh has no root, and no axis changes its kind.

    Parameters
    ----------
    drawn
        Intensities to heights in the figure, same shape; NaN where there is none.
    label
        Makes what is written at a tick from its height.
    """

    drawn: Callable[[Values], Values]
    label: Callable[[], TickFormatter]


def _root(values: Values) -> Values:
    """√ with the sign kept: errors and subtracted backgrounds reach below zero."""
    root: Values = np.sign(values) * np.sqrt(np.abs(values))
    return root


def _logarithm(values: Values) -> Values:
    logarithm: Values = np.log10(np.where(values > 0, values, np.nan))
    return logarithm


def _three_digits(code: str) -> Callable[[], TickFormatter]:
    return lambda: CustomJSTickFormatter(code=f"return Number(({code}).toPrecision(3)).toString()")


SCALES = {
    "linear": Scale(lambda values: values, BasicTickFormatter),
    "square root": Scale(_root, _three_digits("Math.sign(tick) * tick * tick")),
    "logarithmic": Scale(_logarithm, _three_digits("Math.pow(10, tick)")),
}
"""Name on the page → scale; the first is that of a new page."""
