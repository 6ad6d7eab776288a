"""What a frame is made of besides smooth powder rings; each effect has a switch of its own.

What describes sample, detector and beam is drawn whether or not its effect is on, so that an
effect left out changes nothing else of the experiment; grains and photons may be drawn anew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from xrdpipe.errors import OptionError, did_you_mean


@dataclass(frozen=True)
class Effects:
    """Switches; all are on by default.

    Parameters
    ----------
    grains
        A finite number of grains per phase; off: every ring is the powder average.
    texture
        Fibre texture of each phase.
    strain
        Strained cells, and the spread of strain from grain to grain.
    displacement
        Sample out of the calibrated plane, along the beam.
    air, fluid, compton
        The three smooth parts of the background.
    gasket
        Faint rings of the gasket, hit by the tails of the beam.
    diamonds, halos
        Single-crystal spots of the anvils, and the glow around them.
    beamstop
        Shadow of the beamstop and its arm.
    dead, hot
        Pixels that always read 0; pixels that count too much.
    zingers
        Events of stray high-energy photons.
    drift
        Incident intensity that changes from frame to frame.
    poisson
        Counting noise; off: expected counts rounded to integers.
    saturation
        The largest value of the counter.
    """

    grains: bool = True
    texture: bool = True
    strain: bool = True
    displacement: bool = True
    air: bool = True
    fluid: bool = True
    compton: bool = True
    gasket: bool = True
    diamonds: bool = True
    halos: bool = True
    beamstop: bool = True
    dead: bool = True
    hot: bool = True
    zingers: bool = True
    drift: bool = True
    poisson: bool = True
    saturation: bool = True

    @classmethod
    def without(cls, names: Iterable[str]) -> Self:
        """All effects but these; a name of GROUPS stands for several.

        Raises
        ------
        OptionError
            A name is unknown; with the nearest known one.
        """
        off: set[str] = set()
        for name in names:
            if name not in GROUPS and name not in EFFECTS:
                raise OptionError(
                    f"effect '{name}' is unknown; expected {', '.join(EFFECTS)}, or one of the "
                    f"groups {', '.join(GROUPS)}.{did_you_mean(name, (*EFFECTS, *GROUPS))}"
                )
            off.update(GROUPS.get(name, (name,)))
        return cls(**dict.fromkeys(off, False))


EVERY_EFFECT = Effects()

EFFECTS = tuple(field.name for field in dataclasses.fields(Effects))

GROUPS = {
    "all": EFFECTS,
    "background": ("air", "fluid", "compton"),
    "noise": ("dead", "hot", "zingers", "drift", "poisson", "saturation"),
}
"""Names for several effects at once."""
