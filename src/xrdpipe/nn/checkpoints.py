"""One network's training on disk: a safetensors file, written aside and renamed."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from xrdpipe.nn.networks import Network
from xrdpipe.nn.validation import Course, Curve


def save_checkpoint(
    path: Path, network: Network, optimizer: torch.optim.Optimizer, course: Course
) -> None:
    """Write weights, optimiser state and the course so far as one safetensors file."""
    tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
    tensors |= {f"best.{key}": value for key, value in course.best.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{index}.{key}": value for key, value in state.items()})
    temporary = path.with_suffix(".tmp")
    save_file(
        {k: v.contiguous() for k, v in tensors.items()},
        temporary,
        {"curve": course.curve.as_json()},
    )
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.replace(path)


def load_checkpoint(
    path: Path, network: Network, optimizer: torch.optim.Optimizer, course: Course
) -> None:
    """Restore what :func:`save_checkpoint` wrote."""
    with safe_open(path, "pt") as stream:
        course.curve = Curve.from_json(stream.metadata()["curve"])
    tensors = load_file(path)

    def under(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    network.load_state_dict(under("network."))
    course.best = under("best.")
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in under("optimizer.").items():
        index, entry = key.split(".", 1)
        state.setdefault(int(index), {})[entry] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
