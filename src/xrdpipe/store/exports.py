"""Files for other programs: .xye patterns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import InputError


def xye_text(
    two_theta: NDArray[np.floating[Any]],
    intensity: NDArray[np.floating[Any]],
    errors: NDArray[np.floating[Any]] | None,
    header_lines: Sequence[str] = (),
) -> str:
    """Columns 2theta (degrees), intensity and its standard error, as Rietveld programs read them.

    Parameters
    ----------
    two_theta, intensity, errors
        Shape (bins,); without errors there are two columns. Bins without data are left out.
    header_lines
        Up to six.

    Raises
    ------
    InputError
        If no bin is left.
    """
    good = np.isfinite(intensity)
    if errors is not None:
        good &= np.isfinite(errors) & (errors > 0)
    if not good.any():
        raise InputError("the pattern has no bin with data; there is nothing to export.")
    lines = [f"' {line}" for line in header_lines]
    columns = [two_theta[good], intensity[good]]
    if errors is not None:
        columns.append(errors[good])
    for angle, *values in zip(*columns, strict=True):
        lines.append(" ".join([repr(float(angle)), *(f"{float(value):.9g}" for value in values)]))
    return "\n".join(lines) + "\n"
