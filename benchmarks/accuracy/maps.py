"""Truth, frames and patterns of every map of the protocol, in a cache folder, one after another."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import xrdpipe
from xrdpipe.config import SimulateConfig
from xrdpipe.errors import InputError
from xrdpipe.stages.simulate import truth_of, write_scan
from xrdpipe.store.truth import Truth, read_truth, write_truth
from xrdpipe.types import Progress

from .protocol import MAIN, MapPlan, Protocol, check_shares, drawn_shares
from .samples import ProtocolSample, draw_protocol_sample
from .visibility import seen_in_frame

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Cache:
    """Where the maps lie.

    Parameters
    ----------
    folder
        Holds one folder per map, with ``plan.json``, ``truth.h5`` and ``patterns.h5``.
    protocol
        The protocol that they belong to.
    """

    folder: Path
    protocol: Protocol

    def of(self, plan: MapPlan) -> Path:
        """Folder of one map; made, and checked to belong to this very plan.

        Raises
        ------
        InputError
            It holds a map of another protocol.
        """
        folder = self.folder / plan.name
        folder.mkdir(parents=True, exist_ok=True)
        key = {"map": dataclasses.asdict(plan), "protocol": self.protocol.sha256}
        text = json.dumps(key, indent=1)
        record = folder / "plan.json"
        if not record.exists():
            record.write_text(text)
        elif record.read_text() != text:
            raise InputError(
                f"'{folder}' holds a map of another protocol; remove it or give another --work."
            )
        return folder

    def truth(self, plan: MapPlan) -> Truth:
        """Truth of a map that has been made."""
        return read_truth(self.of(plan) / "truth.h5")

    def patterns(self, plan: MapPlan) -> Path:
        """Patterns of a map that has been made."""
        return self.of(plan) / "patterns.h5"


def make_maps(cache: Cache, names: Iterable[str], threads: int | None, say: Say) -> dict[str, Any]:
    """Draw every map, check the main sets, then simulate and integrate what is not there yet.

    Parameters
    ----------
    cache
        Where to.
    names
        Sets to make.
    threads
        Of simulation and integration; None for all cores.
    say
        Prints a line.

    Returns
    -------
    What was drawn in the main sets (:func:`drawn_shares`), empty unless both are made.

    Raises
    ------
    InputError
        The maps are easier than the protocol promises.
    """
    wanted = set(names)
    plans = [plan for plan in cache.protocol.maps if plan.set in wanted]
    for number, plan in enumerate(plans, start=1):
        _make_truth(cache, plan, threads, lambda text, n=number: say(f"[{n}/{len(plans)}] {text}"))
    shares: dict[str, Any] = {}
    if wanted >= set(MAIN):
        main = [cache.truth(plan) for plan in plans if plan.set in MAIN]
        shares = drawn_shares(main)
        check_shares(cache.protocol, shares)
        say(f"protocol fulfilled: {json.dumps(shares)}")
    for number, plan in enumerate(plans, start=1):
        _make_patterns(
            cache, plan, threads, lambda text, n=number: say(f"[{n}/{len(plans)}] {text}")
        )
    return shares


def _draw(cache: Cache, plan: MapPlan) -> ProtocolSample:
    """The sample of a map; one at another wavelength needs the truth of its first appearance."""
    if plan.sample_of is None:
        return draw_protocol_sample(cache.protocol, plan)
    first = next(entry for entry in cache.protocol.maps if entry.name == plan.sample_of)
    path = cache.of(first) / "truth.h5"
    if not path.exists():
        raise InputError(f"map {plan.name} has the sample of {first.name}; make its set, too.")
    exposure = read_truth(path).extra["exposure"].astype(float)
    return draw_protocol_sample(cache.protocol, plan, exposure)


def _make_truth(cache: Cache, plan: MapPlan, threads: int | None, say: Say) -> None:
    path = cache.of(plan) / "truth.h5"
    if path.exists():
        return
    begun = time.perf_counter()
    drawn = _draw(cache, plan)
    setup, sample = drawn.experiment.setup, drawn.experiment.sample

    def seen(index: int) -> tuple[NDArray[np.float64], int]:
        return seen_in_frame(setup, sample, drawn.rings, index, plan.seed)

    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(seen, range(sample.frame.size)))
    # Frames are numbered along the scan, pixels of the map by row and column.
    snr = np.stack([entry[0] for entry in found], axis=-1)[:, sample.frame].astype(np.float32)
    known = sample.labelled
    saturated = np.array([entry[1] for entry in found])[sample.frame]
    truth = truth_of(drawn.experiment, sample.frame)
    extra: dict[str, NDArray[Any]] = {
        "fraction": drawn.fraction.astype(np.float32),
        "strain": drawn.strain.astype(np.float32),
        "signal_to_noise": snr[:known],
        "foreign_signal_to_noise": snr[known:].max(axis=0),
        "foreign_fraction": drawn.foreign_fraction.astype(np.float32),
        "peak_signal_to_noise": drawn.peak_signal_to_noise.astype(np.float32),
        "exposure": drawn.exposure,
        "fluid": drawn.fluid.astype(np.float32),
        "foreign": drawn.foreign.astype(np.int16),
        "saturated": saturated.astype(np.int32),
        "missing": np.full(sample.shape, drawn.missing, np.float32),
    }
    part = path.with_suffix(".part")
    write_truth(part, dataclasses.replace(truth, extra=truth.extra | extra))
    part.replace(path)
    seconds = time.perf_counter() - begun
    say(f"{plan.name}: drawn, {1000 * seconds / sample.frame.size:.0f} ms per pixel")


def _make_patterns(cache: Cache, plan: MapPlan, threads: int | None, say: Say) -> None:
    folder = cache.of(plan)
    if (folder / "patterns.h5").exists():
        return
    begun = time.perf_counter()
    experiment = _draw(cache, plan).experiment
    scan = folder / "scan"
    shutil.rmtree(scan, ignore_errors=True)
    scan.mkdir()
    config = SimulateConfig(
        output=scan,
        scan_shape=plan.shape,
        seed=plan.seed,
        detector=plan.detector,
        distance=plan.distance,
        wavelength=plan.wavelength,
        threads=threads,
    )
    write_scan(scan, config, experiment, Progress())
    simulated = time.perf_counter()
    outcome = xrdpipe.integrate(
        frames=str(scan / "frames"),
        poni=scan / "geometry.poni",
        mask=[str(scan / "mask.npy"), str(scan / "diamond_spots.npy")],
        variant="both",
        spottiness=True,
        output=folder / "patterns.h5",
        threads=threads,
        restart=True,
    )
    if outcome.lost:
        raise InputError(f"{plan.name}: {outcome.lost} frames were lost: {outcome.summary}")
    shutil.rmtree(scan)
    ended = time.perf_counter()
    frames = experiment.sample.frame.size
    say(
        f"{plan.name}: {plan.detector}, simulated {frames / (simulated - begun):.1f} frames/s, "
        f"integrated {frames / (ended - simulated):.1f} frames/s, {ended - begun:.0f} s"
    )
