"""Matched filter: how well the lines of each phase lie on a pattern."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.classical.observed import Observed, observe
from xrdpipe.classical.templates import (
    LARGEST_STRAIN,
    Templates,
    default_strains,
    make_templates,
)
from xrdpipe.types import FloatArray, Grid, PhaseLibrary

LINE_SPREAD = 0.1
"""Relative spread of intensities, as texture and few grains give: no bin counts more than
1/(2·0.1) standard deviations, so that one strong spot cannot stand for a pattern."""

STRAIN_SPREAD, ZERO_SPREAD = 0.005, 0.01
"""Distortions are weighed by normal priors of these widths: Δd/d, and degrees. In a pattern of
noise the undistorted lines are then preferred, clear lines lead wherever they lie."""

DECOYS = np.array([-0.06, -0.05, -0.04, -0.03, 0.03, 0.04, 0.05, 0.06])
"""Strains that no sample has: what a phase reaches there, it reaches by chance."""

VISIBLE = 1e-4
"""Part of a template's Σ T² that must be covered for the phase to have a score."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Match:
    """Best agreement of N patterns with K phases; all of shape (N, K).

    Parameters
    ----------
    score
        Correlation in standard deviations of the noise; 0 where no line is covered.
    width, strain, zero
        Where it was found: FWHM in degrees, Δd/d, degrees.
    """

    score: Array
    width: Array
    strain: Array
    zero: Array


def trusted(observed: Observed) -> Array:
    """Weights of bins that allow for the spread of line intensities, shape (N, n)."""
    excess = np.maximum(observed.intensity - observed.background, 0)
    return observed.weight / (1 + observed.weight * (LINE_SPREAD * excess) ** 2)


def correlate(weight: Array, signal: Array, values: NDArray[np.float32]) -> Array:
    """Σ w r T / √(Σ w T²) of patterns with templates; 0 where nothing of a template is seen.

    Parameters
    ----------
    weight, signal
        Shape (N, n).
    values
        Shape (..., n), A templates in all.

    Returns
    -------
    Shape (N, A).
    """
    flat = values.reshape(-1, values.shape[-1])
    # Relative to the largest weight, so that single precision serves any unit of intensity.
    largest = np.maximum(weight.max(axis=1, keepdims=True), 1e-300)
    relative = weight / largest
    top = (relative * (signal * np.sqrt(largest))).astype(np.float32) @ flat.T
    square = np.square(flat)
    norm = relative.astype(np.float32) @ square.T
    seen = norm > VISIBLE * square.sum(axis=1)
    score: Array = np.where(seen, top / np.sqrt(np.where(seen, norm, 1)), 0).astype(np.float64)
    return score


def all_matches(templates: Templates, observed: Observed) -> Array:
    """Scores of every width, phase and distortion, shape (N, W, K, M)."""
    signal = observed.intensity - observed.background
    score = correlate(trusted(observed), signal, templates.values)
    return score.reshape(len(score), *templates.values.shape[:3])


def likeliest(templates: Templates, score: Array) -> NDArray[np.int64]:
    """Number of the distortion to believe in, (...) from scores (..., M)."""
    prior = (templates.strains / STRAIN_SPREAD) ** 2 + (templates.zeros / ZERO_SPREAD) ** 2
    best: NDArray[np.int64] = (score * np.abs(score) - prior).argmax(axis=-1)
    return best


@dataclass(frozen=True)
class MatchedFilter:
    """Scores from the correlation with the lines of each phase.

    Parameters
    ----------
    templates
        Of the strains that occur.
    decoys
        Of strains that do not.
    """

    templates: Templates
    decoys: Templates

    @classmethod
    def of(cls, library: PhaseLibrary, grid: Grid) -> MatchedFilter:
        """Prepare it for phases and a grid."""
        return cls(
            make_templates(library, grid, default_strains(grid)),
            make_templates(library, grid, DECOYS),
        )

    def match(self, observed: Observed) -> Match:
        """Best score over all widths and distortions."""
        templates = self.templates
        score = all_matches(templates, observed)
        distortion = likeliest(templates, score)
        found = np.take_along_axis(score, distortion[..., None], axis=3)[..., 0]
        width = found.argmax(axis=1)
        distortion = np.take_along_axis(distortion, width[:, None], axis=1)[:, 0]
        return Match(
            found.max(axis=1),
            templates.widths[width],
            templates.strains[distortion],
            templates.zeros[distortion],
        )

    @property
    def features(self) -> int:
        """Number of features of the decision."""
        return 4

    def scores(self, intensity: FloatArray, coverage: FloatArray) -> Array:
        """Features of the decision, (N, K, 4).

        Best match, best match by chance, and all there is above the background, as logarithms;
        squared strain.
        """
        observed = observe(intensity, coverage, self.templates.together)
        match = self.match(observed)
        chance = all_matches(self.decoys, observed).max(axis=(1, 3))
        signal = observed.intensity - observed.background
        power = np.sqrt(np.einsum("nj,nj->n", trusted(observed), signal**2))
        power = np.broadcast_to(power[:, None], chance.shape)
        features = [np.log1p(np.maximum(part, 0)) for part in (match.score, chance, power)]
        features.append((match.strain / LARGEST_STRAIN) ** 2)
        return np.where(match.score[..., None] != 0, np.stack(features, axis=2), 0)
