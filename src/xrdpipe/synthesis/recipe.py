"""The ranges that synthetic training patterns are drawn from, each with its unit.

A pair is a range; "log" in its description means log-uniform between the two, otherwise uniform.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from xrdpipe.errors import OptionError, did_you_mean

Range = tuple[float, float]


@dataclass(frozen=True)
class Recipe:
    """What synthetic patterns vary, and by how much.

    Parameters
    ----------
    presence_probability
        Chance of each phase, drawn independently so that every combination occurs.
    mean_phases
        Upper limit of the mean number of phases: large libraries get a smaller chance each.
    null_probability
        Extra share of patterns without any phase of the library.
    distractor_probability
        Chance of each of two phases from outside the library.
    parasite_probability
        Chance that an absent phase named in ``parasites`` is there as a trace.
    parasites
        Phases that reach the detector from the cell (gasket) without being in the sample.
    parasite_fraction
        Scattering fraction of such a trace, log.
    fraction
        Scattering fraction of a phase that is present (strongest ideal line, relative), log.
    strain
        Standard deviation of the isotropic strain.
    deviatoric_strain
        Standard deviation of the strain along each symmetry-independent axis.
    zero_shift
        Standard deviation of the 2θ zero in degrees.
    distance_scale
        Standard deviation of the relative error of the detector distance.
    line_jitter
        Log-normal σ of single lines (errors of the structure model), log.
    grains
        Illuminated grains of a phase, log.
    grain_width
        Total angular width Δω that lets a grain diffract, degrees, log.
    grain_size_spread
        Log-normal σ of grain volumes.
    texture_probability
        Chance of March-Dollase preferred orientation.
    texture
        March coefficient, log.
    instrument_width
        Instrumental FWHM in degrees, log.
    crystallite_size
        Scherrer size in Å, log.
    microstrain
        Relative, log.
    counts
        log10 of the expected counts per pixel of the strongest ideal line.
    line_to_background
        Height of the strongest ideal line over the mean background, log.
    hump
        Height of the fluid humps relative to the mean background.
    hump_q
        Their positions, 1/Å.
    hump_width
        Their standard deviation in 1/Å.
    air
        Height of the air scattering at the first point, relative to the mean background.
    waves
        Standard deviation of the smooth random background, relative.
    pixel
        Angular size of a detector pixel in degrees.
    unsplit_probability
        Chance that pixels are not split over bins (white noise, empty bins).
    masked_probability
        Chance that strong spots were removed (variant ``masked``); else they are all there.
    spot_spacings
        Plane spacings of the anvils' single-crystal spots, Å.
    spot_probability
        Chance of each of them.
    spot_height
        Height relative to the strongest ideal line, log.
    halo
        Part of a spot's height that masking leaves, log.
    halo_probability
        Chance that an anvil spot has a wide halo (detector glare, diffuse scattering).
    halo_height
        Height of that halo relative to the spot, log.
    halo_width
        Its FWHM in degrees, log.
    spikes
        Mean number of strong spots at no known position.
    hot_pixels
        Expected number of hot pixels on the grid's rings, log; unmasked patterns only.
    hot_height
        Their raw counts, log.
    beam_stop_probability
        Chance of a beam-stop edge inside the grid.
    beam_stop
        Angle of that edge, degrees.
    cut_probability
        Chance of each missing end.
    low_end, high_end
        First and last measured angle when cut, as a part of the grid's range.
    gap_probability
        Chance of rings without any valid pixel.
    gap_width
        Their width in degrees, log.
    coverage
        Fraction of the ring seen at the best angle.
    coverage_unknown_probability
        Chance that only the presence of data is known, as in patterns made by other programs: the
        coverage is then 1 wherever there is data.
    ripple
        Multiplicative error correlated over several bins, relative standard deviation, log.
    detection_limit
        Phases below this matched-filter signal to noise are labelled −1: present but not visible.
    """

    presence_probability: float = 0.5
    mean_phases: float = 2.0
    null_probability: float = 0.08
    distractor_probability: float = 0.35
    parasite_probability: float = 0.25
    parasites: tuple[str, ...] = ("rhenium",)
    parasite_fraction: Range = (0.002, 0.03)
    fraction: Range = (0.03, 1.0)
    strain: float = 0.004
    deviatoric_strain: float = 0.0012
    zero_shift: float = 0.015
    distance_scale: float = 0.001
    line_jitter: Range = (0.03, 0.3)
    grains: Range = (30.0, 3e5)
    grain_width: Range = (0.03, 1.0)
    grain_size_spread: Range = (0.3, 1.2)
    texture_probability: float = 0.4
    texture: Range = (0.5, 2.0)
    instrument_width: Range = (0.04, 0.28)
    crystallite_size: Range = (150.0, 15000.0)
    microstrain: Range = (1e-4, 4e-3)
    counts: Range = (-1.5, 3.5)
    line_to_background: Range = (0.1, 30.0)
    hump: Range = (0.0, 1.2)
    hump_q: tuple[float, ...] = (2.0, 3.05)
    hump_width: Range = (0.2, 0.6)
    air: Range = (0.0, 3.0)
    waves: float = 0.25
    pixel: Range = (0.02, 0.11)
    unsplit_probability: float = 0.1
    masked_probability: float = 0.5
    spot_spacings: tuple[float, ...] = (2.059, 1.261, 1.075, 0.892)
    spot_probability: float = 0.5
    spot_height: Range = (0.05, 300.0)
    halo: Range = (1e-4, 0.05)
    halo_probability: float = 0.5
    halo_height: Range = (1e-3, 0.1)
    halo_width: Range = (0.3, 3.0)
    spikes: float = 1.5
    hot_pixels: Range = (0.1, 60.0)
    hot_height: Range = (10.0, 1e6)
    beam_stop_probability: float = 0.3
    beam_stop: Range = (4.5, 7.0)
    cut_probability: float = 0.25
    low_end: Range = (0.0, 0.12)
    high_end: Range = (0.65, 1.0)
    gap_probability: float = 0.15
    gap_width: Range = (0.05, 0.8)
    coverage: Range = (0.3, 1.0)
    coverage_unknown_probability: float = 0.15
    ripple: Range = (0.0005, 0.02)
    detection_limit: float = 5.0

    @classmethod
    def from_mapping(cls, table: Mapping[str, Any], where: str = "recipe") -> Recipe:
        """Make a recipe from a TOML table; keys left out keep their defaults.

        Raises
        ------
        OptionError
            Unknown key (with the nearest known name) or a value of the wrong kind.
        """
        defaults = {field.name: getattr(cls(), field.name) for field in fields(cls)}
        values: dict[str, Any] = {}
        for key, value in table.items():
            if key not in defaults:
                raise OptionError(
                    f"{where}: unknown key '{key}' in [synthesis].{did_you_mean(key, defaults)}"
                )
            values[key] = _checked(key, value, defaults[key], where)
        return cls(**values)


_LISTS = ("parasites", "hump_q", "spot_spacings")


def _checked(key: str, value: Any, default: Any, where: str) -> Any:
    """Bring a TOML value to the type of the default."""
    number = (int, float)
    if key == "parasites":
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise OptionError(f"{where}: '{key}' must be a list of phase names; got {value!r}.")
    if not isinstance(default, tuple):
        if isinstance(value, number) and not isinstance(value, bool):
            return float(value)
        raise OptionError(f"{where}: '{key}' must be a number; got {value!r}.")
    if isinstance(value, list) and all(isinstance(item, number) for item in value):
        if key in _LISTS:
            return tuple(float(item) for item in value)
        if len(value) == 2 and value[0] <= value[1]:
            return (float(value[0]), float(value[1]))
    raise OptionError(f"{where}: '{key}' must be [low, high]; got {value!r}.")
