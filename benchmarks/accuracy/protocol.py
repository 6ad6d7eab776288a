"""The committed protocol: which maps there are, and whether they are as hard as it says."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xrdpipe.errors import InputError
from xrdpipe.store.truth import Truth
from xrdpipe.types import BoolArray

PROTOCOL = Path(__file__).with_name("protocol.toml")

MAIN = ("independent", "co-occurrence")
"""Sets of the main table; the requirements are checked on them."""

FEW_GRAINS = 1000.0


@dataclass(frozen=True)
class MapPlan:
    """One map of the protocol.

    Parameters
    ----------
    name
        Unique, ``SET-NUMBER``.
    set
        Name of the set it belongs to.
    labels
        ``independent``, ``co-occurrence`` or ``none``.
    shape
        (ny, nx).
    seed
        Of sample, detector and frames.
    wavelength
        In Å.
    detector, distance
        pyFAI's name, and m.
    distractors
        Names of the phases that may lie in the distractor pixels.
    anvils
        Whether the anvils scatter.
    blind
        Range of 2θ without pixels at the protocol's wavelength, degrees; None for none.
    sample_of
        Name of the map whose sample this is, at another wavelength; None for a sample of its own.
    """

    name: str
    set: str
    labels: str
    shape: tuple[int, int]
    seed: int
    wavelength: float
    detector: str
    distance: float
    distractors: tuple[str, ...]
    anvils: bool
    blind: tuple[float, float] | None
    sample_of: str | None


@dataclass(frozen=True)
class Protocol:
    """The protocol file, and the maps that follow from it.

    Parameters
    ----------
    sha256
        Of the file.
    tables
        The tables of the file as they are.
    maps
        All maps; a sample comes before its copies at other wavelengths.
    """

    sha256: str
    tables: Mapping[str, Any]
    maps: tuple[MapPlan, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the label set in class order."""
        return tuple(self.tables["phases"]["labels"])

    @property
    def wavelength(self) -> float:
        """Wavelength at which 2θ ranges are meant, Å."""
        return float(self.tables["range"]["wavelength"])

    @property
    def two_theta(self) -> tuple[float, float]:
        """The range of the pattern at that wavelength, degrees."""
        low, high = self.tables["range"]["two_theta"]
        return float(low), float(high)

    @property
    def sets(self) -> tuple[str, ...]:
        """Names of the sets in the order of the file."""
        return tuple(dict.fromkeys(entry.set for entry in self.maps))

    def of_set(self, name: str) -> tuple[MapPlan, ...]:
        """The maps of one set."""
        return tuple(entry for entry in self.maps if entry.set == name)


def at_wavelength(two_theta: float, before: float, after: float) -> float:
    """2θ of the same sin θ / λ at another wavelength, degrees."""
    return float(np.degrees(2 * np.arcsin(np.sin(np.radians(two_theta / 2)) * after / before)))


def load_protocol(path: Path = PROTOCOL) -> Protocol:
    """Read a protocol file and lay out its maps.

    Raises
    ------
    InputError
        Two maps share a seed, or a set repeats the samples of a set that comes later.
    """
    content = path.read_bytes()
    tables = tomllib.loads(content.decode())
    laid: dict[str, list[MapPlan]] = {}
    for name, table in tables["set"].items():
        if "same" not in table:
            laid[name] = [_own_map(tables, name, table, number) for number in range(table["maps"])]
        elif table["same"] in laid:
            laid[name] = [_same_sample(tables, name, table, plan) for plan in laid[table["same"]]]
        else:
            raise InputError(
                f"{path}: set '{name}' repeats the samples of '{table['same']}', which is not "
                "above it; move it down or mend the name."
            )
    maps = tuple(plan for plans in laid.values() for plan in plans)
    seeds = [plan.seed for plan in maps if plan.sample_of is None]
    if len(set(seeds)) != len(seeds):
        raise InputError(f"{path}: two maps share a seed; set them further apart.")
    return Protocol(hashlib.sha256(content).hexdigest(), tables, maps)


def _own_map(
    tables: Mapping[str, Any], name: str, table: Mapping[str, Any], number: int
) -> MapPlan:
    difficulty = tables["difficulty"]
    detector, distance = table["detectors"][number % len(table["detectors"])]
    distractors = tables["phases"][table.get("distractors", "distractors")]
    if table.get("distractors") == "unknown":
        distractors = [distractors[number % len(distractors)]]
    return MapPlan(
        name=f"{name}-{number:02d}",
        set=name,
        labels=table["labels"],
        shape=(table["shape"][0], table["shape"][1]),
        seed=table["seed"] + number,
        wavelength=table["wavelength"],
        detector=detector,
        distance=distance,
        distractors=tuple(distractors),
        anvils=_turn(number, difficulty["anvils"]),
        blind=_blind(tables, number, table["maps"]),
        sample_of=None,
    )


def _turn(number: int, share: float) -> bool:
    """True for ``share`` of the numbers 0, 1, 2 …, spread evenly over them."""
    return int((number + 1) * share + 1e-9) > int(number * share + 1e-9)


def _blind(tables: Mapping[str, Any], number: int, maps: int) -> tuple[float, float] | None:
    """A part of the range that grows from map to map, at its low end, middle or high end."""
    difficulty = tables["difficulty"]
    share = difficulty["missing"]
    if not _turn(number, share):
        return None
    turn, turns = int(number * share + 1e-9), max(int(maps * share + 1e-9), 1)
    low, high = tables["range"]["two_theta"]
    least, most = difficulty["missing_part"]
    width = (least + (most - least) * (turn + 0.5) / turns) * (high - low)
    start = (low, (low + high - width) / 2, high - width)[turn % 3]
    return round(start, 4), round(start + width, 4)


def _same_sample(
    tables: Mapping[str, Any], name: str, table: Mapping[str, Any], plan: MapPlan
) -> MapPlan:
    """The sample of another map at another wavelength; the end of the range stays on its pixels."""
    wavelength = table["wavelength"]
    end = tables["range"]["two_theta"][1]
    reach = np.tan(np.radians(at_wavelength(end, tables["range"]["wavelength"], plan.wavelength)))
    new = np.tan(np.radians(at_wavelength(end, tables["range"]["wavelength"], wavelength)))
    return MapPlan(
        **(
            vars(plan)
            | {
                "name": f"{name}-{plan.name[-2:]}",
                "set": name,
                "wavelength": wavelength,
                "distance": float(plan.distance * reach / new),
                "sample_of": plan.name,
            }
        )
    )


def eligible(protocol: Protocol, truth: Truth) -> BoolArray:
    """Where the goals apply: every negative, and positives with enough of the phase and a line.

    Returns
    -------
    Shape (K, ny, nx).
    """
    goals = protocol.tables["goals"]
    enough = truth.extra["fraction"] >= goals["fraction"]
    seen = truth.extra["signal_to_noise"] >= goals["signal_to_noise"]
    applies: BoolArray = ~truth.presence | (enough & seen)
    return applies


def drawn_shares(truths: Sequence[Truth]) -> dict[str, Any]:
    """What was drawn, over all maps given: the numbers that the requirements speak of."""
    where = np.concatenate([truth.presence.ravel() for truth in truths])

    def positives(name: str) -> Any:
        return np.concatenate([truth.extra[name].ravel() for truth in truths])[where]

    def pixels(name: str) -> Any:
        return np.concatenate([truth.extra[name].ravel() for truth in truths])

    snr = pixels("peak_signal_to_noise")
    return {
        "maps": len(truths),
        "pixels": len(snr),
        "prevalence": np.mean(
            [truth.presence.mean(axis=(1, 2)) for truth in truths], axis=0
        ).tolist(),
        "few_grains": float((positives("grains") < FEW_GRAINS).mean()),
        "fluid": float((pixels("fluid") > 0).mean()),
        "saturated": float((pixels("saturated") > 0).mean()),
        "distractor": float((pixels("foreign") >= 0).mean()),
        "missing": float((pixels("missing") > 0.05).mean()),
        "fraction": _spread(positives("fraction")),
        "grains": _spread(positives("grains")),
        "strain": _spread(positives("strain")),
        "peak_signal_to_noise": _spread(snr),
        "signal_to_noise": _spread(positives("signal_to_noise")),
        "exposure": _spread(pixels("exposure")),
    }


def _spread(values: Any) -> list[float]:
    """Smallest, quartiles and largest."""
    return [float(edge) for edge in np.quantile(values, [0, 0.25, 0.5, 0.75, 1])]


def check_shares(protocol: Protocol, shares: Mapping[str, Any]) -> None:
    """Fail if what was drawn is easier or smaller than the protocol promises.

    Raises
    ------
    InputError
        A requirement is not met; names all of them.
    """
    short = [
        f"{name} {shares[name]:.3g} (at least {least:g})"
        for name, least in protocol.tables["require"].items()
        if shares[name] < least
    ]
    difficulty = protocol.tables["difficulty"]
    for name in ("fraction", "grains", "peak_signal_to_noise"):
        low, high = difficulty[name]
        least, most = shares[name][0], shares[name][-1]
        if least < 0.999 * low or most > 1.001 * high:
            short.append(f"{name} {least:.3g} to {most:.3g} (within {low:g} to {high:g})")
        # Log-uniform: a quarter of them lies in each quarter of the logarithmic range.
        quarters = low * (high / low) ** np.array([0.25, 0.5, 0.75])
        if np.abs(np.log(np.array(shares[name][1:4]) / quarters)).max() > 0.15 * np.log(high / low):
            short.append(f"{name} is not log-uniform: quartiles {shares[name][1:4]}")
    if short:
        raise InputError(
            f"the maps do not fulfil the protocol: {'; '.join(short)}. Change what draws them, "
            "not the requirements."
        )
