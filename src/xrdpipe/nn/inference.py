"""Patterns on the model's grid to calibrated presence probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from xrdpipe.channels import build_channels
from xrdpipe.errors import EnvironmentProblemError, InputError, OptionError
from xrdpipe.nn.model_folder import ModelCard, file_sha256, read_card
from xrdpipe.nn.networks import Network, make_network
from xrdpipe.types import FloatArray

BLOCK = 256
"""Rows per call of the network, aligned to row 0, the last block padded: results then do not
depend on how many rows are asked for (decision 22)."""


@dataclass(frozen=True)
class Model:
    """A trained ensemble, ready to predict.

    Parameters
    ----------
    card
        Grid, channels, phases, calibration.
    networks
        The members, in evaluation mode, on ``device``.
    device
        Where they run.
    """

    card: ModelCard
    networks: tuple[Network, ...]
    device: torch.device

    def predict(
        self,
        intensity: FloatArray,
        coverage: FloatArray,
        spottiness: FloatArray | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Presence probabilities and their spread over the ensemble.

        Parameters
        ----------
        intensity
            Shape (N, n) on the model's grid, NaN where there is no data.
        coverage
            Same shape, 0-1.
        spottiness
            Same shape, or None; only for models with that channel.

        Returns
        -------
        Probability (mean of the members) and spread (their standard deviation; 0 for one), each
        (N, K). Rows without any data are NaN.

        Raises
        ------
        InputError
            The patterns are not on the model's grid.
        """
        size = self.card.grid.size
        if intensity.ndim != 2 or intensity.shape[1] != size:
            raise InputError(
                f"model '{self.card.name}' needs patterns with {size} points "
                f"({self.card.grid}); got shape {intensity.shape}. Resample them first."
            )
        odds = [
            self._block(
                intensity[row : row + BLOCK],
                coverage[row : row + BLOCK],
                None if spottiness is None else spottiness[row : row + BLOCK],
            )
            for row in range(0, len(intensity), BLOCK)
        ]
        members = len(self.networks)
        empty = np.zeros((members, 0, len(self.card.phases)))
        log_odds = np.concatenate([empty, *odds], axis=1)
        each = np.stack(
            [
                logistic(log_odds[index] / entry.temperature + np.array(entry.bias))
                for index, entry in enumerate(self.card.weights)
            ]
        )
        blank = ~np.isfinite(intensity).any(axis=1)
        probability, spread = each.mean(axis=0), each.std(axis=0)
        probability[blank] = spread[blank] = np.nan
        return probability.astype(np.float32), spread.astype(np.float32)

    def _block(
        self, intensity: FloatArray, coverage: FloatArray, spottiness: FloatArray | None
    ) -> NDArray[np.float64]:
        """Raw log-odds of up to 256 rows, shape (members, rows, K)."""
        views = build_channels(self.card.channels, intensity, coverage, spottiness)
        padded = np.zeros((BLOCK, *views.shape[1:]), dtype=np.float32)
        padded[: len(views)] = views
        with torch.inference_mode():
            batch = torch.from_numpy(padded).to(self.device)
            odds = torch.stack([network.log_odds(batch) for network in self.networks])
        result: NDArray[np.float64] = odds[:, : len(views)].cpu().numpy().astype(np.float64)
        return result


def logistic(log_odds: FloatArray) -> NDArray[np.float64]:
    """1/(1 + exp(−x)) without overflow, same shape."""
    result: NDArray[np.float64] = 0.5 * (1 + np.tanh(np.asarray(log_odds, dtype=float) / 2))
    return result


def prior_shift(
    probability: FloatArray, trained: Sequence[float], wanted: Sequence[float]
) -> NDArray[np.float32]:
    """Probabilities for other priors: log-odds shifted by the difference of the priors' log-odds.

    Parameters
    ----------
    probability
        Shape (N, K), at the priors ``trained``; NaN stays NaN.
    trained, wanted
        One presence probability per phase, each between 0 and 1 exclusive.

    Raises
    ------
    OptionError
        A prior outside 0-1, or not one per phase.
    """
    before, after = np.asarray(trained, dtype=float), np.asarray(wanted, dtype=float)
    if before.shape != after.shape or after.shape != probability.shape[1:]:
        raise OptionError(
            f"give one prior per phase: expected {probability.shape[1]}, got {after.size}."
        )
    if np.any((after <= 0) | (after >= 1)):
        raise OptionError(f"priors must lie between 0 and 1, exclusive; got {after.tolist()}.")
    tiny = 1e-9
    clipped = np.clip(np.asarray(probability, dtype=float), tiny, 1 - tiny)
    shift = np.log(after / (1 - after)) - np.log(before / (1 - before))
    return logistic(np.log(clipped / (1 - clipped)) + shift).astype(np.float32)


def choose_device(name: str = "auto") -> torch.device:
    """``auto`` (CUDA if there is one), ``cpu`` or ``cuda``.

    Raises
    ------
    OptionError
        Unknown name.
    EnvironmentProblemError
        CUDA was asked for and is not there.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise OptionError(f"device must be auto, cpu or cuda; got '{name}'.")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise EnvironmentProblemError(
            "device 'cuda' was asked for, but torch finds no CUDA device; use --device cpu."
        )
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def load_model(folder: Path | str, device: str = "auto") -> Model:
    """Read a model folder and its weights.

    Raises
    ------
    InputError
        Weights that have changed since training, or do not fit the network.
    """
    folder = Path(folder)
    card = read_card(folder)
    where = choose_device(device)
    networks = []
    for entry in card.weights:
        path = folder / entry.file
        if file_sha256(path) != entry.sha256:
            raise InputError(
                f"'{path}' has changed since training (its sha256 is not that of model.json); "
                "restore it or train again."
            )
        network = make_network(card.network, len(card.channels), len(card.phases), card.grid.size)
        try:
            network.load_state_dict({k: v.float() for k, v in load_file(path).items()})
        except (SafetensorError, RuntimeError) as error:
            raise InputError(
                f"'{path}' does not fit network '{card.network}' with {len(card.phases)} phases "
                f"and {card.grid.size} points: {str(error).splitlines()[0]}"
            ) from error
        networks.append(network.to(where).eval())
    return Model(card, tuple(networks), where)
