"""The networks: from channels on the model's grid to one log-odds per phase."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from xrdpipe.errors import OptionError, did_you_mean


class PaperNetwork(nn.Module):
    """The multi-task network of Li et al. (2024): shared convolutions, one branch per phase.

    Two rounds of convolution (kernel 11, stride 2, no padding), ReLU and max-pooling take 1901
    points to 946, 468, 229 and 112; each phase has a branch of linear layers 1024-256-64-2 on the
    flattened 3584 features, with ReLU and dropout 0.2 after the first three. For three phases
    11,852,998 parameters, 2,944 of them shared.

    Parameters
    ----------
    channels
        Input channels; 1 in the paper (min-max).
    phases
        Number of phases K.
    points
        Points of the grid; 1901 in the paper.
    """

    def __init__(self, channels: int = 1, phases: int = 3, points: int = 1901) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(channels, 8, kernel_size=11, stride=2),
            nn.ReLU(),
            nn.MaxPool1d(kernel_size=11, stride=2),
            nn.Conv1d(8, 32, kernel_size=11, stride=2),
            nn.ReLU(),
            nn.MaxPool1d(kernel_size=7, stride=2),
            nn.Flatten(),
        )
        length = points
        for kernel in (11, 11, 11, 7):
            length = (length - kernel) // 2 + 1
        if length < 1:
            raise OptionError(
                f"the paper's network needs at least 120 grid points; got {points}. "
                "Use a finer or wider grid."
            )
        self.branches = nn.ModuleList(_branch(32 * length) for _ in range(phases))

    def forward(self, views: Tensor) -> Tensor:
        """Logits of (absent, present), shape (N, K, 2), from views (N, C, n)."""
        latent = self.features(views)
        return torch.stack([branch(latent) for branch in self.branches], dim=1)

    def log_odds(self, views: Tensor) -> Tensor:
        """Log-odds of presence, shape (N, K): the softmax over two classes is their logistic."""
        logits = self.forward(views)
        return logits[..., 1] - logits[..., 0]

    def latent(self, views: Tensor) -> Tensor:
        """Shared features before the branches, shape (N, F)."""
        return cast(Tensor, self.features(views))


def _branch(features: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(features, 1024),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(1024, 256),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(256, 64),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(64, 2),
    )


class SingleTaskNetworks(nn.Module):
    """One network per phase that shares nothing: the predecessor of the multi-task network.

    Li et al. (2024) compare with three independent binary networks of an earlier study without
    giving their layers; each is here the paper's own network for one phase, so that sharing is all
    that differs.

    Parameters
    ----------
    channels, phases, points
        As in PaperNetwork.
    """

    def __init__(self, channels: int = 1, phases: int = 3, points: int = 1901) -> None:
        super().__init__()
        self.networks = nn.ModuleList(PaperNetwork(channels, 1, points) for _ in range(phases))

    def forward(self, views: Tensor) -> Tensor:
        """Logits of (absent, present), shape (N, K, 2), from views (N, C, n)."""
        return torch.cat([network(views) for network in self.networks], dim=1)

    def log_odds(self, views: Tensor) -> Tensor:
        """Log-odds of presence, shape (N, K)."""
        logits = self.forward(views)
        return logits[..., 1] - logits[..., 0]

    def latent(self, views: Tensor) -> Tensor:
        """Features of all networks, shape (N, K F)."""
        parts = [cast(PaperNetwork, network).latent(views) for network in self.networks]
        return torch.cat(parts, dim=1)


class _Block(nn.Module):
    """Residual block of two convolutions with group normalisation."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(inside, outside, kernel, stride, kernel // 2, bias=False)
        self.first_norm = nn.GroupNorm(8, outside)
        self.second = nn.Conv1d(outside, outside, kernel, 1, kernel // 2, bias=False)
        self.second_norm = nn.GroupNorm(8, outside)
        self.shortcut: nn.Module = nn.Identity()
        if inside != outside or stride != 1:
            self.shortcut = nn.Conv1d(inside, outside, 1, stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        # In place: a copy of every feature map would cost 5 % of the time.
        inner = self.first_norm(self.first(features)).relu_()
        inner = self.second_norm(self.second(inner))
        return cast(Tensor, inner.add_(self.shortcut(features)).relu_())


class SmallResNet(nn.Module):
    """1D ResNet with group normalisation that keeps the position of every peak.

    A peak's meaning is where it stands, so each place of the first feature map has its own gain
    and offset, and the head sees all places of the last one instead of their mean. One log-odds
    per answer. 15 million multiplications a pattern of 1901 points, so that an ensemble of three
    judges a thousand patterns a second on one core.

    Parameters
    ----------
    channels
        Input channels.
    phases
        Number of answers: phases, and one more where unknown phases are asked for.
    points
        Points of the grid.
    """

    def __init__(self, channels: int = 4, phases: int = 3, points: int = 1901) -> None:
        super().__init__()
        self.stem = nn.Conv1d(channels, 32, kernel_size=13, stride=4, padding=6, bias=False)
        self.stem_norm = nn.GroupNorm(8, 32)
        length = (points - 1) // 4 + 1
        self.gain = nn.Parameter(torch.ones(32, length))
        self.offset = nn.Parameter(torch.zeros(32, length))
        self.body = nn.Sequential(
            _Block(32, 40, 5, 2),
            _Block(40, 64, 5, 2),
            _Block(64, 96, 3, 2),
            _Block(96, 96, 3, 1),
        )
        for _ in range(3):
            length = (length - 1) // 2 + 1
        self.squeeze = nn.Conv1d(96, 16, kernel_size=1)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(16 * length, 192),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(192, phases),
        )

    def latent(self, views: Tensor) -> Tensor:
        """Position-preserving features before the head, shape (N, F)."""
        features = torch.addcmul(self.offset, self.stem_norm(self.stem(views)), self.gain).relu_()
        features = torch.relu(self.squeeze(self.body(features)))
        return features.flatten(1)

    def forward(self, views: Tensor) -> Tensor:
        """Log-odds of presence, shape (N, K), from views (N, C, n)."""
        return cast(Tensor, self.head(self.latent(views)))

    def log_odds(self, views: Tensor) -> Tensor:
        """The same as :meth:`forward`; the common name of all networks."""
        return self.forward(views)


Network = PaperNetwork | SingleTaskNetworks | SmallResNet

NETWORKS: dict[str, Callable[[int, int, int], Network]] = {
    "paper": PaperNetwork,
    "single-task": SingleTaskNetworks,
    "small-resnet": SmallResNet,
}
"""Name in ``model.json`` → network. Names stay once a model with them is released."""


def make_network(name: str, channels: int, phases: int, points: int) -> Network:
    """Build a network by its name, with fresh weights.

    Raises
    ------
    OptionError
        Unknown name, or a grid too short for it.
    """
    if name not in NETWORKS:
        raise OptionError(f"unknown network '{name}'.{did_you_mean(name, NETWORKS)}")
    return NETWORKS[name](channels, phases, points)
