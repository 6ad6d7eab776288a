"""The shadow of the beamstop and its arm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.simulation.plane import DEGREE
from xrdpipe.types import BoolArray, FloatArray


@dataclass(frozen=True)
class Beamstop:
    """A disc on an arm.

    Parameters
    ----------
    radius
        Shadow of the disc, degrees 2θ.
    arm_half_width
        Half the width of the arm over the detector distance, dimensionless.
    arm_chi
        Azimuth of the arm, degrees.
    edge
        Width of the penumbra, degrees.
    transmission
        What still comes through.
    """

    radius: float = 3.6
    arm_half_width: float = 0.007
    arm_chi: float = 90.0
    edge: float = 0.05
    transmission: float = 0.003


def beamstop_transmission(
    two_theta: FloatArray, chi: FloatArray, beamstop: Beamstop
) -> NDArray[np.float32]:
    """Transmission of the beamstop and its arm per pixel, shape (rows, columns)."""
    radius = np.tan(np.minimum(np.asarray(two_theta, dtype=float), 89.0) * DEGREE)
    turn = (np.asarray(chi, dtype=float) - beamstop.arm_chi) * DEGREE
    edge = beamstop.edge * DEGREE
    disc = (radius - np.tan(beamstop.radius * DEGREE)) / edge
    beside_arm = (np.abs(radius * np.sin(turn)) - beamstop.arm_half_width) / edge
    beside_arm = np.where(np.cos(turn) > 0, beside_arm, np.inf)
    distance = np.clip(np.minimum(disc, beside_arm), -30, 30)
    open_part = 1 / (1 + np.exp(-4 * distance))
    through = beamstop.transmission + (1 - beamstop.transmission) * open_part
    return np.asarray(through, dtype=np.float32)


def beamstop_mask(transmission: NDArray[np.float32]) -> BoolArray:
    """Pixels that lose more than 2 % to the beamstop or its arm."""
    shadow: BoolArray = transmission < 0.98
    return shadow
