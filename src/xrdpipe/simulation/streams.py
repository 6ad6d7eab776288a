"""Random numbers that depend on a seed and a purpose, never on order or process."""

from __future__ import annotations

import numpy as np

SAMPLE_STREAM, SETUP_STREAM, FRAME_STREAM = 0, 1, 2


def stream(seed: int, *key: int) -> np.random.Generator:
    """Random numbers of one purpose: the same for a seed and key, independent otherwise."""
    return np.random.Generator(np.random.Philox(_sequence(seed, key)))


def photon_stream(seed: int, *key: int) -> np.random.Generator:
    """As :func:`stream`, from a generator that is a quarter faster where a million are drawn."""
    return np.random.Generator(np.random.SFC64(_sequence(seed, key)))


def _sequence(seed: int, key: tuple[int, ...]) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=key)
