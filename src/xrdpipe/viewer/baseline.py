"""The fit of the classical baseline to one pattern, with the phases of the map's model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.classical.least_squares import LeastSquares
from xrdpipe.classical.observed import observe
from xrdpipe.errors import InputError
from xrdpipe.nn.model_folder import find_model, model_sha256, phase_library, read_card
from xrdpipe.resampling import Resampling, at_wavelength, plan_resampling, resample
from xrdpipe.store.map_record import MapRecord
from xrdpipe.types import Grid, Patterns


@dataclass(frozen=True)
class FitCurve:
    """What the fit makes of a pattern.

    Parameters
    ----------
    two_theta
        Shape (n,), degrees at the wavelength of the pattern.
    total, background
        Same shape, intensities of the pattern; NaN where it has no data.
    scale, error
        Shape (K,): area of each phase's strongest line, intensity x degree, and its standard
        deviation; NaN where no line of the phase is covered.
    misfit
        χ² per bin.
    """

    two_theta: NDArray[np.float64]
    total: NDArray[np.float64]
    background: NDArray[np.float64]
    scale: NDArray[np.float64]
    error: NDArray[np.float64]
    misfit: float


@dataclass
class Baseline:
    """Least squares of all phases on a smooth background, prepared for one model.

    Parameters
    ----------
    method, grid
        The fit, and the 2θ axis that it works on.
    """

    method: LeastSquares
    grid: Grid
    _plan: Resampling | None = None

    def fit(self, pattern: Patterns) -> FitCurve:
        """Fit one row; every pattern that comes has the axis of the first."""
        if self._plan is None:
            self._plan = plan_resampling(pattern, self.grid)
        on_grid = resample(pattern, self.grid, self._plan)
        templates = self.method.templates
        observed = observe(on_grid.intensity, on_grid.coverage, templates.together)
        found = self.method.fit(observed)
        there = observed.weight[0] > 0
        total = observed.intensity[0] - found.unexplained[0]
        return FitCurve(
            two_theta=at_wavelength(templates.two_theta, self.grid.wavelength, pattern.wavelength),
            total=np.where(there, total, np.nan),
            background=np.where(there, found.background[0], np.nan),
            scale=found.scale[0],
            error=found.error[0],
            misfit=float(found.misfit[0]),
        )


def baseline_of(record: MapRecord) -> Baseline:
    """Prepare the fit for the model of a map; takes a second.

    Raises
    ------
    InputError, InputMissingError
        If the model is not there any more, or has changed.
    """
    folder = model_folder(record.model)
    grid = read_card(folder).grid
    return Baseline(LeastSquares.of(phase_library(folder), grid), grid)


def model_folder(model: dict[str, Any] | Any) -> Path:
    """Folder of the model that made a map, if it is still the same."""
    try:
        given = json.loads(model.get("config_json", "{}")).get("model")
    except (ValueError, AttributeError):
        given = None
    folder = find_model(given or model.get("name") or None)
    recorded = str(model.get("weights_sha256", ""))
    if recorded and model_sha256(folder) != recorded:
        raise InputError(
            f"The model {folder.name} is not the one that made this map any more: no fit is shown."
        )
    return folder
