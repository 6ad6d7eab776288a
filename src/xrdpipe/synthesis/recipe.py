"""What synthetic patterns vary, effect by effect: each with its ranges, each with a switch.

A pair is a range: "log" in its description means log-uniform between the two, otherwise uniform.
An effect with ``on = false`` is left out; all others then draw the same numbers as before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from xrdpipe.errors import OptionError, did_you_mean

Range = tuple[float, float]


@dataclass(frozen=True)
class Composition:
    """Which phases are there, and how much of each.

    Parameters
    ----------
    presence
        Chance of each phase, drawn independently so that every combination occurs.
    mean_phases
        Upper limit of the mean number of phases: large libraries get a smaller chance each.
    nulls
        Extra share of patterns without any phase of the library.
    combinations
        Instead of independent phases: weights of combinations, such as ``{"110" = 36}``, one digit
        per phase in class order. A network can learn such a prior in place of the lines, so it is
        never the default.
    fraction
        Scattering fraction of a phase that is present: the height of its strongest ideal line
        relative to one phase that fills the beam, log.
    """

    on: bool = True
    presence: float = 0.5
    mean_phases: float = 2.0
    nulls: float = 0.08
    combinations: tuple[tuple[str, float], ...] = ()
    fraction: Range = (0.03, 1.0)


@dataclass(frozen=True)
class Distractors:
    """Phases without a label.

    Parameters
    ----------
    probability
        Chance of each of two phases from outside the library.
    crowded
        Chance of a cell full of other things (capsule, heater, pressure medium, reaction products):
        each of four further phases is then there in every second pattern.
    parasites
        Phases that reach the detector from the cell (gasket) without being in the sample.
    parasite_probability
        Chance that such a phase is there as a trace where it is labelled absent.
    parasite_fraction
        Scattering fraction of the trace, log.
    parasite_grains
        Its grains, log: the wide tails of the beam meet more of them, so that its rings are smooth.
    made_up
        Further phases outside the library: crystals of random cells and atoms
        (:mod:`~xrdpipe.synthesis.made_up`), so that a network learns what it does not know rather
        than the few phases that it has met.
    made_up_share
        Part of the phases outside the library that are made up.
    """

    on: bool = True
    probability: float = 0.35
    crowded: float = 0.15
    parasites: tuple[str, ...] = ("rhenium",)
    parasite_probability: float = 0.25
    parasite_fraction: Range = (0.002, 0.03)
    parasite_grains: Range = (1e4, 1e8)
    made_up: int = 120
    made_up_share: float = 0.5


@dataclass(frozen=True)
class Strain:
    """The cell of each phase: Δd/d = nᵀ ε n for plane normals n.

    Parameters
    ----------
    isotropic
        Standard deviation of the strain common to all axes.
    deviatoric
        Standard deviation along each axis that symmetry leaves independent.
    common
        Strain of all phases of a pattern alike (pressure, temperature).
    """

    on: bool = True
    isotropic: float = 0.004
    deviatoric: float = 0.0012
    common: Range = (0.0, 0.0)


@dataclass(frozen=True)
class Alignment:
    """Errors of the geometry.

    Parameters
    ----------
    zero_shift
        Standard deviation of the 2θ zero, degrees.
    distance_scale
        Standard deviation of the relative error of the sample-detector distance, which scales
        tan 2θ.
    """

    on: bool = True
    zero_shift: float = 0.015
    distance_scale: float = 0.001


@dataclass(frozen=True)
class StructureModel:
    """Errors of the CIF: occupancies, positions, displacements.

    Parameters
    ----------
    line_jitter
        Log-normal σ of single lines, drawn once per phase and pattern, log.
    """

    on: bool = True
    line_jitter: Range = (0.03, 0.3)


@dataclass(frozen=True)
class Grains:
    """Few-grain statistics: n ~ Poisson(N m f Δω cosθ / 2) grains on a ring of mean factor 1.

    He, *Two-dimensional X-ray Diffraction*, 2nd ed., ch. 2; volumes are log-normal.

    Parameters
    ----------
    number
        Illuminated grains N of a phase, log.
    tolerance
        Angular width Δω (mosaic, divergence, bandwidth) in which a grain diffracts, degrees, log.
    volume_spread
        Log-normal σ of grain volumes.
    spot
        Part of the ring's azimuth that one grain's spot covers, log.
    """

    on: bool = True
    number: Range = (30.0, 3e5)
    tolerance: Range = (0.03, 1.0)
    volume_spread: Range = (0.3, 1.2)
    spot: Range = (5e-4, 2e-2)


@dataclass(frozen=True)
class Texture:
    """March-Dollase preferred orientation, averaged over the orbit.

    Dollase, J. Appl. Cryst. 19, 267 (1986).

    Parameters
    ----------
    probability
        Chance of it, for each phase.
    march
        Coefficient r, log; 1 is none.
    """

    on: bool = True
    probability: float = 0.4
    march: Range = (0.5, 2.0)


@dataclass(frozen=True)
class Profile:
    """Line widths: Caglioti instrument, Scherrer size and microstrain, pseudo-Voigt shape.

    Switched off, lines are Gaussian with the middle of ``width``.

    Parameters
    ----------
    width
        Instrumental FWHM W½ at small angles, degrees, log.
    v, u
        Growth with the angle: H² = W (1 + v tanθ + u tan²θ).
    lorentzian
        Lorentzian part of the instrument's width.
    size
        Coherent domains (Scherrer, K = 0.9), nm, log.
    microstrain
        Relative spread of d, broadening 4 ε tanθ, log.
    """

    on: bool = True
    width: Range = (0.025, 0.28)
    v: Range = (-1.0, 4.0)
    u: Range = (4.0, 4.0)
    lorentzian: Range = (0.0, 0.7)
    size: Range = (15.0, 1500.0)
    microstrain: Range = (1e-4, 4e-3)


@dataclass(frozen=True)
class Masking:
    """What the masked version of a pattern leaves out.

    Parameters
    ----------
    threshold
        Grains are removed whose spot rises above its ring by this many standard deviations of a
        pixel's counts.
    overexposed_probability
        Chance that only what saturates is removed (a mask of overexposed regions).
    rest
        What is left of a removed spot (its flanks), relative to the threshold.
    file_probability
        Chance that a mask file takes out the spots of the anvils, and another chance that it takes
        out the hot pixels. Rejection never sees what a file masks, so it is not in the spottiness
        of a pattern; the unmasked pattern holds it all the same.
    """

    on: bool = True
    threshold: Range = (4.0, 8.0)
    overexposed_probability: float = 0.25
    rest: Range = (0.0, 0.3)
    file_probability: float = 0.5


@dataclass(frozen=True)
class Saturation:
    """Pixels stop counting before the azimuthal mean is taken.

    Parameters
    ----------
    counts
        Largest value of a pixel, log.
    """

    on: bool = True
    counts: Range = (1e4, 4e6)


@dataclass(frozen=True)
class Background:
    """Smooth scattering.

    Parameters
    ----------
    line_to_background
        Height of the strongest ideal line over the mean background, log.
    waves
        Largest standard deviation of a Gaussian process in the logarithm.
    lengths
        Its correlation lengths, degrees; one is taken.
    hump
        Height of the fluid's maxima relative to the rest.
    hump_q, hump_width
        Their positions, 1/Å (water near 2.0 and 3.05: Soper, Chem. Phys. 258, 121 (2000)), and
        standard deviations.
    air
        Height of the air scattering at the first point.
    air_power
        It falls with q to this power.
    slope
        Exponent of absorption in cell and sample over the whole range.
    """

    on: bool = True
    line_to_background: Range = (0.1, 30.0)
    waves: float = 0.25
    lengths: tuple[float, ...] = (1.5, 2.5, 4.0, 6.5, 10.0)
    hump: Range = (0.0, 1.2)
    hump_q: tuple[float, ...] = (2.0, 3.05)
    hump_width: Range = (0.2, 0.6)
    air: Range = (0.0, 3.0)
    air_power: Range = (0.5, 4.0)
    slope: Range = (-0.3, 1.2)


@dataclass(frozen=True)
class Compton:
    """Incoherent scattering: rises as q²/(q² + k²) towards the number of electrons.

    Parameters
    ----------
    height
        Its limit at large q relative to the rest of the background.
    half
        k, where it is half of its limit, 1/Å.
    """

    on: bool = True
    height: Range = (0.0, 0.6)
    half: Range = (2.0, 5.0)


@dataclass(frozen=True)
class Shadows:
    """Beam stop at small angles, opening of the cell at large ones: both dim everything.

    Parameters
    ----------
    beam_stop_probability, beam_stop
        Chance and angle of the beam stop's edge, degrees.
    opening_probability, opening
        Chance of the cell's edge, and its place as a part of the range.
    softness
        Width of an edge, degrees, log.
    floor
        Transmission behind an edge.
    """

    on: bool = True
    beam_stop_probability: float = 0.3
    beam_stop: Range = (4.5, 7.0)
    opening_probability: float = 0.15
    opening: Range = (0.6, 1.1)
    softness: Range = (0.1, 0.6)
    floor: Range = (0.0, 0.4)


@dataclass(frozen=True)
class AnvilSpots:
    """Single-crystal spots of the diamonds, with halos.

    Parameters
    ----------
    spacings
        Plane spacings, Å: diamond 111, 220, 311, 400.
    probability
        Chance of each.
    height
        In the azimuthal mean, relative to the strongest ideal line, log.
    width
        FWHM relative to a line, log.
    left
        Part of the height that masking leaves, log.
    halo_probability
        Chance of a wide halo (glare of the detector, diffuse scattering).
    halo_height, halo_width
        Relative to the spot, log; FWHM in degrees, log.
    """

    on: bool = True
    spacings: tuple[float, ...] = (2.059, 1.261, 1.075, 0.892)
    probability: float = 0.5
    height: Range = (0.05, 300.0)
    width: Range = (0.6, 2.0)
    left: Range = (1e-4, 0.05)
    halo_probability: float = 0.5
    halo_height: Range = (1e-3, 0.1)
    halo_width: Range = (0.3, 3.0)


@dataclass(frozen=True)
class Spikes:
    """Strong spots at no known position.

    Parameters
    ----------
    number
        Mean number in a pattern, at most eight.
    height
        Relative to the strongest ideal line, log.
    """

    on: bool = True
    number: float = 1.5
    height: Range = (0.005, 30.0)


@dataclass(frozen=True)
class HotPixels:
    """Pixels that always count; a mask takes them out.

    Parameters
    ----------
    number
        Expected number on the grid's rings, log.
    counts
        Their raw value, log.
    """

    on: bool = True
    number: Range = (0.1, 200.0)
    counts: Range = (10.0, 1e6)


@dataclass(frozen=True)
class Detector:
    """Which part of each ring is seen, by how many pixels.

    Switched off, every ring is complete; the pixels keep their size.

    Parameters
    ----------
    pixel
        Angular size of a pixel, degrees.
    unsplit_probability
        Chance that pixels are not shared between bins: white noise, empty bins.
    coverage
        Fraction of the ring seen at the best angle.
    low_cut_probability, low_cut
        Chance of a missing start, and its end as a part of the range.
    high_cut_probability, high_cut
        Chance of a missing end, and its start as a part of the range.
    gap_probability, gap_width
        Chance of rings without any pixel; their width in degrees, log.
    unknown_probability
        Chance that the coverage is not told, as in patterns made by other programs: it is then 1
        wherever there is data.
    """

    on: bool = True
    pixel: Range = (0.02, 0.15)
    unsplit_probability: float = 0.1
    coverage: Range = (0.3, 1.0)
    low_cut_probability: float = 0.25
    low_cut: Range = (0.0, 0.12)
    high_cut_probability: float = 0.25
    high_cut: Range = (0.65, 1.0)
    gap_probability: float = 0.15
    gap_width: Range = (0.05, 0.8)
    unknown_probability: float = 0.15


@dataclass(frozen=True)
class Noise:
    """Counting, readout, and disturbances that are correlated between bins.

    Switched off, patterns are expectations; ``counts`` still sets their scale.

    Parameters
    ----------
    counts
        Expected counts per pixel of the strongest ideal line, log.
    readout
        Standard deviation of a pixel's offset, counts.
    ripple
        Relative standard deviation of a multiplicative disturbance, log.
    ripple_length
        Points over which it is smooth.
    """

    on: bool = True
    counts: Range = (0.03, 3000.0)
    readout: Range = (0.0, 0.3)
    ripple: Range = (0.0005, 0.02)
    ripple_length: Range = (5.0, 40.0)


@dataclass(frozen=True)
class Labels:
    """When a phase counts as visible.

    Parameters
    ----------
    detection_limit
        Below this matched-filter signal to noise the label is −1: present but not visible.
    overlap
        Part of the height of other lines at a line's place that counts as noise.
    """

    on: bool = True
    detection_limit: float = 5.0
    overlap: float = 0.3


@dataclass(frozen=True)
class Recipe:
    """Everything that synthetic patterns vary, in the order in which it acts."""

    composition: Composition = field(default_factory=Composition)
    distractors: Distractors = field(default_factory=Distractors)
    strain: Strain = field(default_factory=Strain)
    alignment: Alignment = field(default_factory=Alignment)
    structure: StructureModel = field(default_factory=StructureModel)
    grains: Grains = field(default_factory=Grains)
    texture: Texture = field(default_factory=Texture)
    profile: Profile = field(default_factory=Profile)
    saturation: Saturation = field(default_factory=Saturation)
    masking: Masking = field(default_factory=Masking)
    shadows: Shadows = field(default_factory=Shadows)
    background: Background = field(default_factory=Background)
    compton: Compton = field(default_factory=Compton)
    anvil_spots: AnvilSpots = field(default_factory=AnvilSpots)
    spikes: Spikes = field(default_factory=Spikes)
    hot_pixels: HotPixels = field(default_factory=HotPixels)
    detector: Detector = field(default_factory=Detector)
    noise: Noise = field(default_factory=Noise)
    labels: Labels = field(default_factory=Labels)

    @classmethod
    def from_mapping(cls, table: Mapping[str, Any], where: str = "recipe") -> Recipe:
        """Make a recipe from TOML tables; what is left out keeps its default.

        Raises
        ------
        OptionError
            Unknown effect or key (with the nearest known name), or a value of the wrong kind.
        """
        default = cls()
        known = {effect.name: getattr(default, effect.name) for effect in fields(cls)}
        effects: dict[str, Any] = {}
        for name, values in table.items():
            if name not in known:
                raise OptionError(
                    f"{where}: unknown effect '{name}' in [synthesis].{did_you_mean(name, known)}"
                )
            if not isinstance(values, Mapping):
                raise OptionError(f"{where}: [synthesis.{name}] must be a table; got {values!r}.")
            effects[name] = _effect(known[name], values, f"{where}: [synthesis.{name}]")
        return cls(**effects)

    def without(self, *effects: str) -> Recipe:
        """The recipe with these effects switched off.

        Raises
        ------
        OptionError
            There is no such effect.
        """
        known = {effect.name: getattr(self, effect.name) for effect in fields(self)}
        for name in effects:
            if name not in known:
                raise OptionError(f"there is no effect '{name}'.{did_you_mean(name, known)}")
        return replace(self, **{name: replace(known[name], on=False) for name in effects})


def _effect(default: Any, values: Mapping[str, Any], where: str) -> Any:
    """An effect with some of its defaults replaced."""
    known = {key.name: getattr(default, key.name) for key in fields(default)}
    checked = {}
    for key, value in values.items():
        if key not in known:
            raise OptionError(f"{where}: unknown key '{key}'.{did_you_mean(key, known)}")
        checked[key] = _value(value, known[key], f"{where} {key}")
    return type(default)(**known | checked)


_LISTS = ("parasites", "hump_q", "lengths", "spacings")


def _value(value: Any, default: Any, where: str) -> Any:
    """Bring a TOML value to the type of the default."""
    key = where.rpartition(" ")[2]
    if key == "combinations":
        return _combinations(value, where)
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        raise OptionError(f"{where} must be true or false; got {value!r}.")
    if key == "parasites":
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise OptionError(f"{where} must be a list of phase names; got {value!r}.")
    if isinstance(default, int):
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        raise OptionError(f"{where} must be a whole number from 0; got {value!r}.")
    if not isinstance(default, tuple):
        if _is_number(value):
            return float(value)
        raise OptionError(f"{where} must be a number; got {value!r}.")
    if isinstance(value, list) and value and all(map(_is_number, value)):
        if key in _LISTS:
            return tuple(float(item) for item in value)
        if len(value) == 2 and value[0] <= value[1]:
            return (float(value[0]), float(value[1]))
    raise OptionError(
        f"{where} must be {'a list of numbers' if key in _LISTS else '[low, high]'}; got {value!r}."
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _combinations(value: Any, where: str) -> tuple[tuple[str, float], ...]:
    good = isinstance(value, Mapping) and all(
        set(key) <= {"0", "1"} and _is_number(weight) and weight >= 0
        for key, weight in value.items()
    )
    if not good or len({len(key) for key in value}) > 1 or (value and not sum(value.values()) > 0):
        raise OptionError(
            f'{where} must be a table of weights such as {{"110" = 36, "000" = 43}}, one digit per '
            f"phase; got {value!r}."
        )
    return tuple((str(key), float(weight)) for key, weight in value.items())
