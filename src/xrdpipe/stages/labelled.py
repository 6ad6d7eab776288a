"""Labelled patterns for hybrid training: integrated frames whose phases are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import InputError, OptionError
from xrdpipe.resampling import Resampling, plan_resampling
from xrdpipe.schema import FrameStatus
from xrdpipe.stages.resample import resampled_blocks
from xrdpipe.store.patterns import PatternsFile
from xrdpipe.store.truth import Truth, read_truth
from xrdpipe.types import Grid, Labelled


def read_labelled(
    patterns: Sequence[Path],
    truths: Sequence[Path],
    variant: str,
    names: tuple[str, ...],
    grid: Grid,
) -> Labelled | None:
    """Patterns on a model's grid with their labels; None if there are no files.

    Parameters
    ----------
    patterns, truths
        As many patterns files as truth files of ``simulate``, in the same order.
    variant
        ``masked`` or ``unmasked``.
    names
        Phases in class order.
    grid
        Of the model.

    Raises
    ------
    OptionError
        Not as many truths as patterns.
    InputError
        Phases or numbers of frames do not fit.
    """
    if len(patterns) != len(truths):
        raise OptionError(
            f"--labelled and --truth belong together: got {len(patterns)} and {len(truths)} files."
        )
    parts = [
        _one(path, truth, variant, names, grid)
        for path, truth in zip(patterns, truths, strict=True)
    ]
    if not parts:
        return None
    return Labelled(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in Labelled.FIELDS)
    )


def _one(
    path: Path, truth_path: Path, variant: str, names: tuple[str, ...], grid: Grid
) -> Labelled:
    truth = read_truth(truth_path)
    with PatternsFile(path, variant) as source:
        presence = _labels(source, truth, truth_path, names)
        plan: Resampling = plan_resampling(source.rows(0, 1), grid, "auto")
        blocks = [block for _, block in resampled_blocks(source, grid, plan)]
    intensity = np.concatenate([block.intensity for block in blocks])
    usable = np.concatenate([block.status for block in blocks]) == FrameStatus.OK
    usable &= np.isfinite(intensity).any(axis=1)
    spottiness = [
        np.zeros_like(block.intensity) if block.spottiness is None else block.spottiness
        for block in blocks
    ]
    return Labelled(
        intensity=intensity[usable].astype(np.float32),
        coverage=np.concatenate([block.coverage for block in blocks])[usable].astype(np.float32),
        spottiness=np.concatenate(spottiness)[usable].astype(np.float32),
        presence=presence[usable],
    )


def _labels(
    source: PatternsFile, truth: Truth, truth_path: Path, names: tuple[str, ...]
) -> NDArray[np.int8]:
    """Presence of every row, (N, K): rows and pixels in the order of their frames' numbers."""
    absent = [name for name in names if name not in truth.phase_names]
    if absent:
        raise InputError(
            f"{truth_path} knows no phase {', '.join(absent)}; it holds "
            f"{', '.join(truth.phase_names)}."
        )
    pixels = truth.presence[0].size
    if source.n_rows != pixels or "frame" not in truth.extra:
        raise InputError(
            f"{source.path} has {source.n_rows} patterns, {truth_path} {pixels} pixels; labelled "
            "patterns need a truth with one pixel for each."
        )
    order = [truth.phase_names.index(name) for name in names]
    present = truth.presence[order].reshape(len(names), pixels).T.astype(np.int8)
    labels = np.empty_like(present)
    labels[np.argsort(source.frame, kind="stable")] = present[
        np.argsort(truth.extra["frame"], axis=None, kind="stable")
    ]
    return labels
