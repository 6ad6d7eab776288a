"""Do the cases of speed.py compute the same numbers?"""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np

TOLERANCE = 1e-6
"""Largest difference of I and sigma between xrdpipe and the script, in max(|I|, sigma)."""

PYFAI_FILES = {
    "diffmap-csr": "diffmap.h5",
    "diffmap-csc": "diffmap.h5",
    "integrate-tool": "integrate.h5",
}

OURS = {
    "unmasked": "patterns.h5",
    "unmasked-1": "patterns.h5",
    "unmasked-off": "patterns.h5",
    "unmasked-off-1": "patterns.h5",
    "map-frames": "map_patterns.h5",
    "map-frames-1": "map_patterns.h5",
}


def check(outputs: dict[str, Path], models: dict[str, Path]) -> dict[str, float]:
    """Largest differences from what the script computed; absent where a case was not run.

    Intensities and errors relative to max(|I|, sigma) of the script, probabilities absolute.
    Cases of different lengths are compared on the frames that both had.

    Raises
    ------
    SystemExit
        If an intensity or error differs by more than :data:`TOLERANCE`.
    """
    found = compare(outputs, models)
    wrong = {
        name: value
        for name, value in found.items()
        if "probability" not in name and not value <= TOLERANCE
    }
    if wrong:
        raise SystemExit(f"the numbers differ too much: {wrong}")
    return found


def compare(outputs: dict[str, Path], models: dict[str, Path]) -> dict[str, float]:
    """See :func:`check`, which judges them."""
    found: dict[str, float] = {}
    if "script" not in outputs:
        return found
    with np.load(outputs["script"] / "out.npz") as file:
        intensity, sigma = file["intensity"], file["errors"]
    for name in outputs.keys() & OURS.keys():
        with h5py.File(outputs[name] / OURS[name]) as file:
            values, errors = file["entry/data/I"][()], file["entry/data/I_errors"][()]
        known = np.isfinite(values)
        rows = min(len(values), len(intensity))
        if np.any(~known[:rows] & (intensity[:rows] != 0)):
            raise AssertionError(f"{name} has no value where the script has one")
        found[f"{name}: I"] = _largest(values, intensity, intensity, sigma, known)
        found[f"{name}: sigma"] = _largest(errors, sigma, intensity, sigma, known)
    for name in outputs.keys() & PYFAI_FILES.keys():
        values, errors = _of_pyfai(outputs[name] / PYFAI_FILES[name], intensity.shape[1])
        known = sigma > 0
        found[f"{name}: I"] = _largest(values, intensity, intensity, sigma, known)
        found[f"{name}: sigma"] = _largest(errors, sigma, intensity, sigma, known)
    if "script-csr" in outputs:
        with np.load(outputs["script-csr"] / "out.npz") as file:
            values = file["intensity"]
        found["script-csr: I"] = _largest(values, intensity, intensity, sigma, sigma > 0)
    for prefix, model in (("", "shipped"), ("paper-", "paper")):
        script, ours = f"{prefix}script-map", f"{prefix}map-frames-1"
        if script in outputs and ours in outputs:
            found[f"{ours}: probability"] = _probability_difference(
                outputs[script], outputs[ours], models[model]
            )
    return dict(sorted(found.items()))


def _of_pyfai(path: Path, bins: int) -> tuple[np.ndarray, np.ndarray]:
    with h5py.File(path) as file:
        (entry,) = [file[key] for key in file if key.startswith("entry")]
        if "pyFAI" in entry:
            group, names = entry["pyFAI/result"], ("intensity", "errors")
        else:
            group, names = entry["integrate/results"], ("data", "data_errors")
        intensity, errors = (group[name][()].reshape(-1, bins) for name in names)
    return intensity, errors


def _largest(
    values: np.ndarray,
    expected: np.ndarray,
    intensity: np.ndarray,
    sigma: np.ndarray,
    known: np.ndarray,
) -> float:
    rows = min(len(values), len(expected))
    values, expected, known = values[:rows], expected[:rows], known[:rows]
    scale = np.maximum(np.abs(intensity[:rows]), sigma[:rows])
    return float((np.abs(values - expected)[known] / scale[known]).max())


def _probability_difference(script: Path, ours: Path, model: Path) -> float:
    with h5py.File(ours / "map.h5") as file:
        probability = file["entry/phase_map/presence/probability"][()]
    card = json.loads((model / "model.json").read_text())
    with np.load(script / "out.npz") as file:
        odds = file["log_odds"]
    phases = len(probability)
    members = [
        1 / (1 + np.exp(-(odds[:, i, :phases] / entry["temperature"] + np.array(entry["bias"]))))
        for i, entry in enumerate(card["calibration"])
    ]
    mapped = probability.reshape(phases, -1).T
    rows = min(len(mapped), len(odds))
    difference = np.abs(mapped[:rows] - np.mean(members, axis=0)[:rows])
    return float(difference[np.isfinite(mapped[:rows])].max())
