"""Log-odds of a trained network brought to probabilities on held-out synthetic patterns."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from xrdpipe.channels import build_channels
from xrdpipe.nn.inference import BLOCK
from xrdpipe.nn.model_folder import Unknown
from xrdpipe.nn.networks import Network
from xrdpipe.nn.patterns import Chosen
from xrdpipe.types import FloatArray, IntArray

FALSE_ALARMS = 0.05
"""Part of the patterns without an unknown phase that the threshold of its score takes for one."""


def log_odds_of(network: Network, channels: tuple[str, ...], batch: Chosen) -> NDArray[np.float64]:
    """Raw log-odds of a batch, shape (N, K)."""
    odds = []
    with torch.inference_mode():
        for row in range(0, len(batch.intensity), BLOCK):
            part = slice(row, row + BLOCK)
            views = build_channels(
                channels, batch.intensity[part], batch.coverage[part], batch.spottiness[part]
            )
            odds.append(network.log_odds(torch.from_numpy(views)).numpy())
    return np.concatenate(odds).astype(np.float64)


def calibrate(log_odds: FloatArray, labels: IntArray) -> tuple[float, tuple[float, ...]]:
    """Temperature and biases that make log-odds/T + b calibrated at a prior of 0.5 per phase.

    Minimises the cross-entropy with present and absent patterns of each phase weighted to equal
    shares (temperature scaling: Guo et al., ICML 2017).

    Parameters
    ----------
    log_odds
        Shape (N, K), on patterns that were not trained on.
    labels
        Shape (N, K): 1, 0, or −1 for not judged.
    """
    present, absent = (labels == 1).sum(axis=0), (labels == 0).sum(axis=0)
    usable = (present > 0) & (absent > 0)
    share = np.where(labels == 1, 0.5 / np.maximum(present, 1), 0.5 / np.maximum(absent, 1))
    share = np.where((labels >= 0) & usable, share, 0)
    sign = np.where(labels == 1, 1.0, -1.0)

    def misfit(numbers: FloatArray) -> float:
        odds = log_odds * np.exp(-numbers[0]) + numbers[1:]
        # A weak pull to T = 1, b = 0 keeps a hopeless model from running away.
        return float(np.sum(share * np.logaddexp(0, -sign * odds)) + 1e-4 * np.sum(numbers**2))

    count = log_odds.shape[1]
    bounds = [(-3.0, 3.0)] + [(-10.0, 10.0)] * count
    fit = minimize(misfit, np.zeros(count + 1), method="L-BFGS-B", bounds=bounds)
    return float(np.exp(fit.x[0])), tuple(float(value) for value in fit.x[1:])


def unknown_threshold(score: FloatArray, held_out: Chosen) -> Unknown:
    """The threshold that few held-out patterns without an unknown phase reach."""
    return Unknown(float(np.quantile(score[held_out.foreign == 0], 1 - FALSE_ALARMS)), FALSE_ALARMS)
