"""A model on disk: ``model.json``, weights, the phases as CIF files, a report.

Nothing here needs torch, so a map can be planned and refused before the heavy import. No code
and no pickle come from a model folder: weights are safetensors, metadata JSON.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xrdpipe.bounds import MOST_BINS, UNPACKED, check_text
from xrdpipe.channels import check_channels
from xrdpipe.classical import METHODS
from xrdpipe.crystal import PhaseLines, load_phase, phase_lines
from xrdpipe.errors import InputError, InputMissingError, did_you_mean
from xrdpipe.types import BoolArray, FloatArray, Grid, PhaseLibrary

FORMAT_VERSION = 1
CARD = "model.json"
DEFAULT_MODEL = "hydrothermal-dac"
SHIPPED = Path(__file__).parents[1] / "models"


@dataclass(frozen=True)
class PhaseEntry:
    """One class of a model.

    Parameters
    ----------
    name
        Phase name.
    cif
        File relative to the model folder.
    sha256
        Of that file.
    strongest
        2θ of its three strongest lines on the grid in degrees, strongest first.
    """

    name: str
    cif: str
    sha256: str
    strongest: tuple[float, ...]


@dataclass(frozen=True)
class WeightsEntry:
    """One ensemble member: its file and what turns its log-odds into probabilities.

    The probability is the logistic function of log-odds/temperature + bias, at the model's prior.
    ``unknown`` is temperature and bias of the unknown score, for models that have one.
    """

    file: str
    sha256: str
    temperature: float
    bias: tuple[float, ...]
    unknown: tuple[float, float] | None = None


@dataclass(frozen=True)
class Unknown:
    """When a pattern counts as holding a phase that the model does not know.

    Parameters
    ----------
    threshold
        The unknown score from which on it does, 0-1.
    false_alarms
        Part of the held-out synthetic patterns without such a phase that reach it.
    """

    threshold: float
    false_alarms: float


@dataclass(frozen=True)
class ModelCard:
    """Content of ``model.json``: everything but the weights.

    Parameters
    ----------
    name
        Model name.
    network
        Name of the network, see :data:`xrdpipe.nn.networks.NETWORKS`, or of the classical method,
        see :data:`xrdpipe.classical.METHODS`.
    channels
        Ordered input channels, see :data:`xrdpipe.channels.CHANNELS`; none of a classical method.
    grid
        Start, stop and step in degrees and the wavelength in Å.
    normalisation
        One sentence: how intensities become inputs.
    polarization_corrected
        Whether patterns must come with polarization corrected (P = 1).
    min_coverage
        Smallest part of the grid that a pattern must cover.
    prior
        Presence probability of each phase that the probabilities refer to.
    phases, weights
        Classes in order, ensemble members.
    recipe
        The resolved training recipe.
    versions
        Versions of the programs that trained it.
    notes
        What a user must know.
    unknown
        When a pattern counts as unknown; None for models that cannot tell.
    """

    name: str
    network: str
    channels: tuple[str, ...]
    grid: Grid
    normalisation: str
    polarization_corrected: bool
    min_coverage: float
    prior: tuple[float, ...]
    phases: tuple[PhaseEntry, ...]
    weights: tuple[WeightsEntry, ...]
    recipe: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    notes: str = ""
    unknown: Unknown | None = None
    format_version: int = FORMAT_VERSION

    @property
    def wavelength(self) -> float:
        """Wavelength of the grid in Å."""
        return self.grid.wavelength

    @property
    def phase_names(self) -> tuple[str, ...]:
        """Phase names in class order."""
        return tuple(phase.name for phase in self.phases)


def write_card(card: ModelCard, folder: Path) -> None:
    """Write ``model.json``."""
    content = asdict(card)
    content["wavelength"] = content["grid"].pop("wavelength")
    content["calibration"] = [
        {name: member.pop(name) for name in ("temperature", "bias", "unknown")}
        for member in content["weights"]
    ]
    text = json.dumps(content, indent=2, ensure_ascii=False)
    (folder / CARD).write_text(text + "\n", encoding="utf-8")


def read_card(folder: Path | str) -> ModelCard:
    """Read and check ``model.json``, and that the files it names are there.

    Raises
    ------
    InputMissingError
        No such folder, card, weights or CIF.
    InputError
        The card is not readable, of a newer format, or inconsistent.
    """
    folder = Path(folder)
    path = folder / CARD
    if not path.is_file():
        raise InputMissingError(
            f"'{folder}' is no model folder: {CARD} is missing; give a folder written by "
            "xrdpipe train."
        )
    check_text(path.stat().st_size, f"'{path}'")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is not readable JSON ({error}).") from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise InputError(
            f"'{path}' has format_version {version!r}; this xrdpipe reads {FORMAT_VERSION}."
        )
    try:
        card = _card(content)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"'{path}': an entry is missing or has the wrong kind ({error})."
        ) from error
    grid = card.grid
    if not (0 < grid.step < np.inf and 0 < grid.stop - grid.start <= MOST_BINS * grid.step):
        raise InputError(f"'{path}' states a grid that cannot be used: {grid}.")
    if card.network not in METHODS:
        check_channels(card.channels)
    if not (len(card.prior) == len(card.phases) > 0 and card.weights):
        raise InputError(
            f"'{path}' lists {len(card.phases)} phases, {len(card.prior)} priors and "
            f"{len(card.weights)} weight files; expected one prior per phase and some weights."
        )
    if card.unknown is not None and any(member.unknown is None for member in card.weights):
        raise InputError(
            f"'{path}' has a threshold of the unknown score but no calibration of it for every "
            "member; train again."
        )
    for file in (*(w.file for w in card.weights), *(p.cif for p in card.phases)):
        inside = (folder / file).resolve().is_relative_to(folder.resolve())  # links, too
        if Path(file).is_absolute() or ".." in Path(file).parts or not inside:
            raise InputError(f"'{path}' names '{file}', which is outside the model folder.")
        if not (folder / file).is_file():
            raise InputMissingError(f"'{folder / file}', named in {CARD}, does not exist.")
        if (size := (folder / file).stat().st_size) > UNPACKED:
            raise InputError(f"'{folder / file}' has {size} bytes; expected at most {UNPACKED}.")
    return card


def _card(content: dict[str, Any]) -> ModelCard:
    grid = content["grid"]
    return ModelCard(
        name=str(content["name"]),
        network=str(content["network"]),
        channels=tuple(str(name) for name in content["channels"]),
        grid=Grid(
            float(grid["start"]),
            float(grid["stop"]),
            float(grid["step"]),
            float(content["wavelength"]),
        ),
        normalisation=str(content["normalisation"]),
        polarization_corrected=bool(content["polarization_corrected"]),
        min_coverage=float(content["min_coverage"]),
        prior=tuple(float(value) for value in content["prior"]),
        phases=tuple(
            PhaseEntry(
                str(entry["name"]),
                str(entry["cif"]),
                str(entry["sha256"]),
                tuple(float(angle) for angle in entry["strongest"]),
            )
            for entry in content["phases"]
        ),
        weights=tuple(
            WeightsEntry(
                str(entry["file"]),
                str(entry["sha256"]),
                float(calibration["temperature"]),
                tuple(float(value) for value in calibration["bias"]),
                _pair(calibration.get("unknown")),
            )
            for entry, calibration in zip(content["weights"], content["calibration"], strict=True)
        ),
        recipe=dict(content["recipe"]),
        versions=dict(content["versions"]),
        notes=str(content["notes"]),
        unknown=None if content.get("unknown") is None else _unknown(content["unknown"]),
    )


def _pair(values: Any) -> tuple[float, float] | None:
    return None if values is None else (float(values[0]), float(values[1]))


def _unknown(entry: dict[str, Any]) -> Unknown:
    return Unknown(float(entry["threshold"]), float(entry["false_alarms"]))


def shipped_models() -> dict[str, Path]:
    """Names and folders of the models that ship with xrdpipe."""
    return {path.parent.name: path.parent for path in sorted(SHIPPED.glob(f"*/{CARD}"))}


def find_model(name_or_folder: str | Path | None = None) -> Path:
    """Folder of a model: shipped names come before paths; None is the default shipped one.

    Raises
    ------
    InputMissingError
        Neither a shipped name nor a model folder.
    """
    shipped = shipped_models()
    wanted = str(name_or_folder) if name_or_folder is not None else DEFAULT_MODEL
    if wanted in shipped:
        return shipped[wanted]
    if name_or_folder is not None and (Path(wanted) / CARD).is_file():
        return Path(wanted)
    known = did_you_mean(wanted, shipped) if shipped else " No model ships with this build."
    raise InputMissingError(
        f"model '{wanted}' is neither a shipped model nor a folder with {CARD}.{known}"
    )


def phase_library(folder: Path | str) -> PhaseLibrary:
    """The phases of a model in class order, read from its CIF files and checked by hash.

    Raises
    ------
    InputError
        A CIF is not the one the model was trained on.
    """
    folder = Path(folder)
    card = read_card(folder)
    for entry in card.phases:
        found = file_sha256(folder / entry.cif)
        if found != entry.sha256:
            raise InputError(
                f"'{folder / entry.cif}' has changed since training (sha256 {found[:12]}…, "
                f"expected {entry.sha256[:12]}…); restore it or train again."
            )
    phases = [load_phase(folder / entry.cif) for entry in card.phases]
    return PhaseLibrary(tuple(phases))


def reference_lines(folder: Path | str) -> tuple[PhaseLines, ...]:
    """The lines of every phase of a model, in class order, as far as its grid reaches.

    Raises
    ------
    InputError
        A CIF is not the one the model was trained on.
    """
    grid = read_card(folder).grid
    d_min = grid.wavelength / (2 * np.sin(np.radians(grid.stop) / 2))
    library = phase_library(folder)
    return tuple(phase_lines(phase, grid.wavelength, d_min) for phase in library.phases)


def model_sha256(folder: Path | str) -> str:
    """One hash of a model: of its card and of all weights, for provenance and run keys."""
    folder = Path(folder)
    card = read_card(folder)
    parts = [file_sha256(folder / CARD), *(file_sha256(folder / w.file) for w in card.weights)]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Hash of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def determined(card: ModelCard, coverage: FloatArray) -> BoolArray:
    """Whether a pattern can say anything of a phase (decision 13).

    Parameters
    ----------
    card
        Of the model.
    coverage
        Shape (N, n) on the model's grid; 0 or NaN where there is no data.

    Returns
    -------
    Shape (N, K), False where none of the phase's three strongest lines is covered.
    """
    covered = np.nan_to_num(coverage) > 0
    grid = card.grid
    result = np.zeros((len(covered), len(card.phases)), dtype=bool)
    for index, phase in enumerate(card.phases):
        place = np.round((np.array(phase.strongest) - grid.start) / grid.step).astype(int)
        place = place[(place >= 0) & (place < grid.size)]
        result[:, index] = covered[:, place].any(axis=1)
    return result
