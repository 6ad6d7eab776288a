"""Patterns on the model's grid to calibrated presence probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from xrdpipe.channels import build_channels
from xrdpipe.classical import METHODS
from xrdpipe.classical.decision import log_odds, terms
from xrdpipe.classical.factorisation import Factorisation
from xrdpipe.classical.methods import Method, make_method
from xrdpipe.errors import EnvironmentProblemError, InputError, OptionError
from xrdpipe.nn.model_folder import ModelCard, file_sha256, phase_library, read_card
from xrdpipe.nn.networks import Network, make_network
from xrdpipe.types import FloatArray

BLOCK = 256
"""Rows whose channels are built at once, aligned to row 0."""

STRETCH = 32
"""Rows that go through a network at once, the last ones padded: results then do not depend on how
many rows are asked for (decision 22). Its features stay in the cache, which makes it twice as fast
as a whole block."""

MAP_ROWS = 1024
"""Patterns of a map, evenly spaced, that its free components are found from."""

COEFFICIENTS = "coefficients"
"""Name of a classical method's decision in its file of weights."""

MapPatterns = Iterable[tuple[int, FloatArray, FloatArray]]
"""First row, intensity and coverage of one block of a map after the other."""


class Prediction(NamedTuple):
    """What a model says of N patterns.

    Parameters
    ----------
    probability
        Shape (N, K), presence of each phase at the model's prior, mean of the members.
    spread
        Same shape: their standard deviation; 0 for one.
    unknown
        Shape (N,), 0-1, larger where a phase outside the model's is there; NaN if it cannot tell.
    """

    probability: NDArray[np.float32]
    spread: NDArray[np.float32]
    unknown: NDArray[np.float32]


class Evidence(Protocol):
    """What turns patterns into log-odds: an ensemble of networks, or a classical method."""

    def log_odds(
        self, intensity: FloatArray, coverage: FloatArray, spottiness: FloatArray | None
    ) -> NDArray[np.float64]:
        """Log-odds of up to 256 rows before calibration, shape (members, rows, K).

        K + 1 for models with an unknown score: it is the last.
        """

    def for_map(self, rows: int, patterns: MapPatterns) -> Evidence:
        """The same after a look at all patterns of a map."""


@dataclass(frozen=True)
class Ensemble:
    """Networks of one kind, in evaluation mode.

    Parameters
    ----------
    networks, channels
        The members and their common input.
    device
        Where they run.
    """

    networks: tuple[Network, ...]
    channels: tuple[str, ...]
    device: torch.device

    def log_odds(
        self, intensity: FloatArray, coverage: FloatArray, spottiness: FloatArray | None
    ) -> NDArray[np.float64]:
        """Log-odds of up to 256 rows before calibration, shape (members, rows, K)."""
        views = build_channels(self.channels, intensity, coverage, spottiness)
        stretches = -(-len(views) // STRETCH)
        padded = np.zeros((stretches * STRETCH, *views.shape[1:]), dtype=np.float32)
        padded[: len(views)] = views
        with torch.inference_mode():
            batch = torch.from_numpy(padded).to(self.device)
            odds = torch.stack(
                [
                    torch.cat([network.log_odds(part) for part in torch.split(batch, STRETCH)])
                    for network in self.networks
                ]
            )
        result: NDArray[np.float64] = odds[:, : len(views)].cpu().numpy().astype(np.float64)
        return result

    def for_map(self, rows: int, patterns: MapPatterns) -> Ensemble:
        """Networks judge every pattern by itself."""
        return self


@dataclass(frozen=True)
class Classical:
    """A classical method with its decision.

    Parameters
    ----------
    method
        Gives features of a decision.
    coefficients
        Shape (K, P), of the logistic regression.
    """

    method: Method
    coefficients: NDArray[np.float64]

    def log_odds(
        self, intensity: FloatArray, coverage: FloatArray, spottiness: FloatArray | None
    ) -> NDArray[np.float64]:
        """Log-odds of up to 256 rows, shape (1, rows, K); 0 where no line is covered."""
        rows = len(intensity)
        padded = np.full((BLOCK, intensity.shape[1]), np.nan)
        seen = np.zeros_like(padded)
        padded[:rows], seen[:rows] = intensity, coverage
        odds = log_odds(self.method.scores(padded, seen)[:rows], self.coefficients)
        return odds[None]

    def for_map(self, rows: int, patterns: MapPatterns) -> Classical:
        """With the free components of the map, for methods that have any."""
        if not isinstance(self.method, Factorisation):
            return self
        every = -(-rows // MAP_ROWS)
        chosen = [
            (intensity[-first % every :: every], coverage[-first % every :: every])
            for first, intensity, coverage in patterns
        ]
        intensity, coverage = (np.concatenate(part) for part in zip(*chosen, strict=True))
        return replace(self, method=self.method.for_map(intensity, coverage))


@dataclass(frozen=True)
class Model:
    """A trained model, ready to predict.

    Parameters
    ----------
    card
        Grid, channels, phases, calibration.
    evidence
        Networks or a classical method.
    device
        Where it runs.
    """

    card: ModelCard
    evidence: Evidence
    device: torch.device

    def predict(
        self,
        intensity: FloatArray,
        coverage: FloatArray,
        spottiness: FloatArray | None = None,
    ) -> Prediction:
        """Presence probabilities, their spread over the ensemble, and the unknown score.

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
        Prediction
            Rows without any data are NaN.

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
            self.evidence.log_odds(
                intensity[row : row + BLOCK],
                coverage[row : row + BLOCK],
                None if spottiness is None else spottiness[row : row + BLOCK],
            )
            for row in range(0, len(intensity), BLOCK)
        ]
        members, phases = len(self.card.weights), len(self.card.phases)
        empty = np.zeros((members, 0, phases + (self.card.unknown is not None)))
        raw = np.concatenate([empty, *odds], axis=1)
        each = np.stack(
            [
                logistic(raw[index, :, :phases] / entry.temperature + np.array(entry.bias))
                for index, entry in enumerate(self.card.weights)
            ]
        )
        blank = ~np.isfinite(intensity).any(axis=1)
        probability, spread = each.mean(axis=0), each.std(axis=0)
        unknown = self._unknown(raw)
        probability[blank] = spread[blank] = unknown[blank] = np.nan
        return Prediction(*(v.astype(np.float32) for v in (probability, spread, unknown)))

    def _unknown(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Unknown score from log-odds (members, N, K + 1), shape (N,); NaN if there is none."""
        if self.card.unknown is None:
            return np.full(raw.shape[1], np.nan)
        members = []
        for odds, entry in zip(raw[:, :, -1], self.card.weights, strict=True):
            assert entry.unknown is not None  # read_card refuses a card without
            temperature, bias = entry.unknown
            members.append(logistic(odds / temperature + bias))
        return np.asarray(np.mean(members, axis=0), np.float64)

    def for_map(self, rows: int, patterns: MapPatterns) -> Model:
        """The model after a look at all patterns of a map, for methods that use it.

        Parameters
        ----------
        rows
            Patterns of the map.
        patterns
            Number of the first row, intensity and coverage of one block after the other; read
            only by methods that look at them.
        """
        return replace(self, evidence=self.evidence.for_map(rows, patterns))


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


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: several wait for each other where others keep the cores busy.

    A few rows then take ten times as long.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
    for entry in card.weights:
        if file_sha256(folder / entry.file) != entry.sha256:
            raise InputError(
                f"'{folder / entry.file}' has changed since training (its sha256 is not that of "
                "model.json); restore it or train again."
            )
    if card.network in METHODS:
        return Model(card, _load_classical(folder, card), torch.device("cpu"))
    networks = []
    answers = len(card.phases) + (card.unknown is not None)
    for entry in card.weights:
        path = folder / entry.file
        network = make_network(card.network, len(card.channels), answers, card.grid.size)
        try:
            network.load_state_dict({k: v.float() for k, v in load_file(path).items()})
        except (SafetensorError, RuntimeError) as error:
            raise InputError(
                f"'{path}' does not fit network '{card.network}' with {len(card.phases)} phases "
                f"and {card.grid.size} points: {str(error).splitlines()[0]}"
            ) from error
        networks.append(network.to(where).eval())
    return Model(card, Ensemble(tuple(networks), card.channels, where), where)


def _load_classical(folder: Path, card: ModelCard) -> Classical:
    """Method and decision of a classical model."""
    path = folder / card.weights[0].file
    method = make_method(card.network, phase_library(folder), card.grid)
    expected = (len(card.phases), terms(method.features))
    try:
        found = load_file(path)[COEFFICIENTS].numpy()
    except (SafetensorError, KeyError) as error:
        raise InputError(f"'{path}' holds no '{COEFFICIENTS}' of a decision ({error}).") from error
    if found.shape != expected:
        raise InputError(
            f"'{path}' does not fit method '{card.network}': its coefficients have shape "
            f"{found.shape}, expected {expected}; train again."
        )
    return Classical(method, found.astype(np.float64))
