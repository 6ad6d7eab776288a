"""What the intensities of each frame are divided by: monitors and exposure time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.config import CorrectionOptions
from xrdpipe.errors import FrameError, InputError, OptionError
from xrdpipe.frames.auxiliary import load_exposure, load_monitor
from xrdpipe.schema import FrameFlag, FrameStatus
from xrdpipe.store.patterns import Monitor
from xrdpipe.types import FrameSource, Progress

LOW_MONITOR = 0.01
"""A monitor below this fraction of its median flags the frame."""


@dataclass(frozen=True)
class Normalisation:
    """Divisors of every frame.

    Parameters
    ----------
    monitors
        Each with its values, shape (frames,).
    low
        Per monitor: values below it flag the frame.
    exposure
        In s, shape (frames,), or None.
    """

    monitors: tuple[Monitor, ...] = ()
    low: tuple[float, ...] = ()
    exposure: NDArray[np.float64] | None = None

    def flags(self, row: int) -> FrameFlag:
        """LOW_MONITOR if any monitor of the frame is low, zero, infinite or unknown."""
        low = any(
            not limit <= monitor.values[row] < np.inf
            for monitor, limit in zip(self.monitors, self.low, strict=True)
        )
        return FrameFlag.LOW_MONITOR if low else FrameFlag(0)

    def divisor(self, row: int) -> float:
        """Product of monitor/reference and seconds; raises FrameError for what divides nothing."""
        divisor = 1.0
        for monitor in self.monitors:
            divisor *= _positive(monitor.values[row], f"monitor {monitor.name}") / monitor.reference
        if self.exposure is not None:
            divisor *= _positive(self.exposure[row], "exposure time")
        return divisor

    def key(self) -> dict[str, Any]:
        """Hashes of the values, for the key of the run."""
        return {
            "monitor": [_hash(monitor.values) for monitor in self.monitors],
            "exposure": None if self.exposure is None else _hash(self.exposure),
        }


def load_normalisation(
    config: CorrectionOptions, source: FrameSource, progress: Progress
) -> Normalisation:
    """Read every monitor and the exposure before work starts.

    Raises
    ------
    InputMissingError, InputError, OptionError
        If one is absent, holds no positive value, or references and monitors differ in number.
    """
    if config.monitor_reference and len(config.monitor_reference) != len(config.monitor):
        raise OptionError(
            f"{len(config.monitor)} --monitor but {len(config.monitor_reference)} "
            "--monitor-reference; expected one reference per monitor, in the same order, or none."
        )
    monitors, low = [], []
    for place, name in enumerate(config.monitor):
        values = load_monitor(name, source)
        median = _median(values, f"monitor {name}", source)
        reference = config.monitor_reference[place] if config.monitor_reference else median
        if not reference > 0:
            raise OptionError(f"--monitor-reference {reference:g} must be greater than 0.")
        progress.note(f"monitor {name}: reference {reference:g}")
        monitors.append(Monitor(name, values, reference))
        low.append(LOW_MONITOR * median)
    exposure = None
    if config.exposure is not None:
        exposure = load_exposure(config.exposure, source)
        median = _median(exposure, f"exposure time {config.exposure}", source)
        progress.note(f"exposure time {config.exposure}: median {median:g} s; I is in counts/s")
    return Normalisation(tuple(monitors), tuple(low), exposure)


def _median(values: NDArray[np.float64], what: str, source: FrameSource) -> float:
    good = values[np.isfinite(values) & (values > 0)]
    if not good.size:
        raise InputError(
            f"{what} has no positive value in {source.name}; without one no frame can be "
            "normalised."
        )
    return float(np.median(good))


def _positive(value: float, what: str) -> float:
    if np.isfinite(value) and value > 0:
        return float(value)
    found = "unknown" if np.isnan(value) else f"{value:g}"
    raise FrameError(FrameStatus.SKIPPED, f"{what} is {found}: cannot be normalised")


def _hash(values: NDArray[np.float64]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
