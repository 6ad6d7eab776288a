"""Training losses on log-odds; −1 in the labels means "do not judge this one"."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def multitask_cross_entropy(
    log_odds: Tensor, labels: Tensor, weights: tuple[float, float] = (1.0, 1.0)
) -> Tensor:
    """Sum over phases of (weighted) cross-entropies (Li et al. 2024, Eq. 2-6).

    −Σ w_k log y_k with k the true class, summed over phases and averaged over patterns (the paper
    sums; Adam does not feel the constant). A softmax over two classes is the logistic function of
    their difference, so the log-odds carry all of it.

    Parameters
    ----------
    log_odds
        Shape (N, K).
    labels
        Shape (N, K): 1 present, 0 absent, −1 not judged.
    weights
        (w0, w1) of absent and present; (1.0, 1.6) in the paper for unmasked data.
    """
    judged = (labels >= 0).to(log_odds.dtype)
    target = labels.clamp(min=0).to(log_odds.dtype)
    each = functional.binary_cross_entropy_with_logits(log_odds, target, reduction="none")
    scale = torch.where(target > 0, weights[1], weights[0])
    return (each * scale * judged).sum() / max(len(labels), 1)


def binary_cross_entropy(log_odds: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross-entropy over all judged labels; arguments as above."""
    judged = (labels >= 0).to(log_odds.dtype)
    target = labels.clamp(min=0).to(log_odds.dtype)
    each = functional.binary_cross_entropy_with_logits(log_odds, target, reduction="none")
    return (each * judged).sum() / judged.sum().clamp(min=1)


def add_noise(views: Tensor, sigma: float, random: torch.Generator) -> Tensor:
    """Views plus fresh Gaussian noise N(0, σ) (Li et al. 2024, Eq. 7)."""
    if sigma == 0:
        return views
    return views + sigma * torch.randn(views.shape, generator=random)
