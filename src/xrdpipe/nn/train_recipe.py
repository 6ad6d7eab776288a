"""How a model is trained: the ``[train]`` table of a recipe file, and where recipes are found."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from xrdpipe.bounds import check_text
from xrdpipe.channels import check_channels
from xrdpipe.classical import METHODS
from xrdpipe.errors import InputError, InputMissingError, OptionError, did_you_mean
from xrdpipe.masks import shipped_folder
from xrdpipe.synthesis.recipe import Recipe

DEFAULT_RECIPE = "train-small"

CHOICES = {
    "data": ("stream", "s-set", "synthetic-crystals"),
    "network": ("small-resnet", "paper", "single-task", *METHODS),
    "loss": ("bce", "cross-entropy"),
    "optimizer": ("adamw", "adam"),
    "schedule": ("one-cycle", "constant"),
    "precision": ("float32", "bfloat16"),
    "weights": ("float16", "float32"),
}


@dataclass(frozen=True)
class TrainRecipe:
    """Everything that steers a training run.

    Parameters
    ----------
    network
        ``small-resnet``, ``paper`` or ``single-task``, or a classical method, which uses of this
        table only ``epochs`` times ``patterns_per_epoch`` patterns for its decision,
        ``masked_share`` and ``held_out``.
    channels
        Input channels in order.
    data
        ``stream``: patterns drawn on the fly, never twice; ``s-set``: the fixed set of Li et al.
        (2024); ``synthetic-crystals``: a stream with the imperfections of Schopmans et al. (2023).
    masked_share
        Part of a stream's patterns shown in their masked version, the others unmasked.
    unknown
        Whether the network also tells if a phase outside the library is there; for a stream.
    spottiness_share
        Part of a stream's patterns whose spottiness is told; the network learns to do without.
    mixtures
        Mixed patterns added to the fixed set.
    labelled_patterns
        Labelled patterns added to the fixed set (hybrid training), chosen by the seed; they must
        be given. 0 is synthetic only.
    loss
        ``bce`` (mean over labels) or ``cross-entropy`` (sum over phases, Eq. 2-6).
    class_weights
        (absent, present) of the cross-entropy.
    noise
        Standard deviation of fresh Gaussian noise on the inputs (Eq. 7).
    optimizer, learning_rate, weight_decay, schedule
        ``one-cycle`` warms up over a tenth and decays to zero by a cosine.
    epochs, patterns_per_epoch, batch
        An epoch of a stream is ``patterns_per_epoch`` new patterns.
    members
        Ensemble members, trained one after the other.
    held_out
        Patterns of another stream for calibration, and as many for the report.
    validate_every
        Epochs between checks on at most 1024 held-out patterns of a stream of their own; 0: none.
    patience
        Checks in a row without a gain that end the training early, see
        :class:`~xrdpipe.nn.validation.Course`; the weights of the best check are then kept. 0:
        never, and the last weights are kept.
    checkpoint_every
        Epochs between checkpoints.
    workers
        Processes that draw patterns beside training; 0 draws in the training process.
    precision
        Of the training arithmetic; ``bfloat16`` is twice as fast on recent processors.
    weights
        Stored precision.
    """

    network: str = "small-resnet"
    channels: tuple[str, ...] = ("root", "highpass", "spottiness", "coverage")
    data: str = "stream"
    masked_share: float = 0.5
    unknown: bool = True
    spottiness_share: float = 0.6
    mixtures: int = 1056
    labelled_patterns: int = 0
    loss: str = "bce"
    class_weights: tuple[float, float] = (1.0, 1.0)
    noise: float = 0.0
    optimizer: str = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    schedule: str = "one-cycle"
    epochs: int = 40
    patterns_per_epoch: int = 8192
    batch: int = 128
    members: int = 1
    held_out: int = 4096
    validate_every: int = 1
    patience: int = 8
    checkpoint_every: int = 1
    workers: int = 1
    precision: str = "bfloat16"
    weights: str = "float16"

    @classmethod
    def from_mapping(cls, table: Mapping[str, Any], where: str = "recipe") -> TrainRecipe:
        """Make it from a TOML table; keys left out keep their defaults.

        Raises
        ------
        OptionError
            Unknown key, wrong kind or value out of range.
        """
        defaults = {item.name: getattr(cls(), item.name) for item in fields(cls)}
        values: dict[str, Any] = {}
        for key, value in table.items():
            if key not in defaults:
                raise OptionError(
                    f"{where}: unknown key '{key}' in [train].{did_you_mean(key, defaults)}"
                )
            values[key] = _checked(key, value, defaults[key], where)
        if values.get("data") == "s-set":
            values.setdefault("unknown", False)
        recipe = cls(**values)
        if recipe.patience and not recipe.validate_every:
            raise OptionError(
                f"{where}: 'patience' {recipe.patience} needs checks on held-out patterns; set "
                "'validate_every', or 'patience' to 0."
            )
        check_channels(recipe.channels)
        if recipe.unknown and recipe.data == "s-set":
            raise OptionError(
                f"{where}: the S set holds no phase outside the library, so 'unknown' cannot be "
                'learned from it; leave it out or use data = "stream".'
            )
        return recipe


def _checked(key: str, value: Any, default: Any, where: str) -> Any:
    """Bring a TOML value to the type of the default, within its bounds."""
    if key in CHOICES and value not in CHOICES[key]:
        allowed = ", ".join(CHOICES[key])
        raise OptionError(f"{where}: '{key}' must be one of {allowed}; got {value!r}.")
    if isinstance(default, str):
        return value
    if isinstance(default, tuple):
        kind: Any = str if isinstance(default[0], str) else (int, float)
        right_length = key == "channels" or (isinstance(value, list) and len(value) == 2)
        if isinstance(value, list) and right_length and all(isinstance(v, kind) for v in value):
            return tuple(value)
        raise OptionError(f"{where}: '{key}' must be a list like {list(default)}; got {value!r}.")
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        raise OptionError(f"{where}: '{key}' must be true or false; got {value!r}.")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise OptionError(f"{where}: '{key}' must be a number; got {value!r}.")
    if isinstance(default, int) and not isinstance(value, int):
        raise OptionError(f"{where}: '{key}' must be a whole number; got {value!r}.")
    free = (
        "workers",
        "masked_share",
        "spottiness_share",
        "noise",
        "weight_decay",
        "mixtures",
        "labelled_patterns",
        "validate_every",
        "patience",
    )
    if value < 0 or (value == 0 and key not in free):
        raise OptionError(f"{where}: '{key}' must be positive; got {value!r}.")
    return value


def find_recipe(name_or_path: str | Path | None) -> Path:
    """File of a recipe: a shipped name (``train-small``, ``paper/mtl``) or a path.

    None is the default.

    Raises
    ------
    InputMissingError
        Neither of the two.
    """
    wanted = str(name_or_path) if name_or_path is not None else DEFAULT_RECIPE
    folder = shipped_folder("pipelines")
    files = [*sorted(folder.glob("train-*.toml")), *sorted(folder.glob("paper/*.toml"))]
    shipped = {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}
    if wanted in shipped:
        return shipped[wanted]
    if Path(wanted).is_file():
        return Path(wanted)
    raise InputMissingError(
        f"recipe '{wanted}' is neither a file nor a shipped one.{did_you_mean(wanted, shipped)}"
    )


def load_recipe(name_or_path: str | Path | None) -> tuple[TrainRecipe, Recipe]:
    """Read the ``[train]`` and ``[synthesis]`` tables of a recipe.

    Raises
    ------
    InputError
        Not readable as TOML.
    OptionError
        Unknown table or key.
    """
    path = find_recipe(name_or_path)
    check_text(path.stat().st_size, f"recipe '{path}'")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"recipe '{path}' is not readable TOML ({error}).") from error
    tables = ("train", "synthesis")
    for key in content:
        if key not in tables:
            raise OptionError(f"{path}: unknown table or key '{key}'.{did_you_mean(key, tables)}")
    where = str(path)
    try:
        return (
            TrainRecipe.from_mapping(content.get("train", {}), where),
            Recipe.from_mapping(content.get("synthesis", {}), where),
        )
    except OverflowError as error:
        raise OptionError(f"{where}: a number is too large ({error}).") from error
