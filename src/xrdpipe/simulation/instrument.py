"""What stays the same through a scan: detector, beam, beamstop, defects and diamond spots."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.simulation.beamstop import Beamstop, beamstop_mask, beamstop_transmission
from xrdpipe.simulation.counting import ZINGERS, BadPixels, draw_bad_pixels
from xrdpipe.simulation.diamonds import DiamondSpots, draw_diamond_spots
from xrdpipe.simulation.effects import EVERY_EFFECT, Effects
from xrdpipe.simulation.lines import Beam
from xrdpipe.simulation.plane import DetectorPlane
from xrdpipe.simulation.streams import SETUP_STREAM, stream
from xrdpipe.types import BoolArray, FloatArray


@dataclass(frozen=True)
class Setup:
    """What stays the same through a scan.

    Parameters
    ----------
    plane
        The detector.
    beam
        Widths that the beam adds.
    transmission
        Beamstop shadow, shape (rows, columns).
    shadow
        True where the beamstop or its arm takes more than 2 %.
    bad
        Dead and hot pixels.
    diamonds
        Spots of the anvils.
    saturation
        Largest value of the counter; None for a counter without end.
    zingers
        Mean number of zingers per frame.
    poisson
        Whether photons are counted one by one.
    """

    plane: DetectorPlane
    beam: Beam
    transmission: NDArray[np.float32]
    shadow: BoolArray
    bad: BadPixels
    diamonds: DiamondSpots
    saturation: int | None
    zingers: float = ZINGERS
    poisson: bool = True


def draw_setup(
    plane: DetectorPlane,
    two_theta: FloatArray,
    chi: FloatArray,
    seed: int,
    *,
    saturation: int | None,
    beam: Beam | None = None,
    beamstop: Beamstop | None = None,
    effects: Effects = EVERY_EFFECT,
) -> Setup:
    """Draw bad pixels and diamond spots, which depend on the seed and the detector only.

    Parameters
    ----------
    plane
        The detector.
    two_theta, chi
        Shape (rows, columns), degrees.
    seed
        Of the simulation.
    saturation
        Largest value of the counter.
    beam, beamstop
        Other than the usual ones.
    effects
        What is switched off is drawn all the same, and then left out.
    """
    random = stream(seed, SETUP_STREAM)
    bad = draw_bad_pixels(plane, random)
    diamonds = draw_diamond_spots(plane, random)
    if not effects.dead:
        bad = dataclasses.replace(bad, dead=np.zeros_like(bad.dead))
    if not effects.hot:
        bad = dataclasses.replace(bad, hot=np.zeros_like(bad.hot))
    if not effects.halos:
        diamonds = dataclasses.replace(diamonds, halo=0.0)
    if not effects.diamonds:
        diamonds = dataclasses.replace(diamonds, counts=np.zeros_like(diamonds.counts))
    transmission = np.ones(plane.shape, np.float32)
    if effects.beamstop:
        transmission = beamstop_transmission(two_theta, chi, beamstop or Beamstop())
    return Setup(
        plane=plane,
        beam=beam or Beam(),
        transmission=transmission,
        shadow=beamstop_mask(transmission),
        bad=bad,
        diamonds=diamonds,
        saturation=saturation if effects.saturation else None,
        zingers=ZINGERS if effects.zingers else 0.0,
        poisson=effects.poisson,
    )
