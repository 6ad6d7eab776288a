"""The kernel is faster than the path without it, and the benchmarks compute what they say.

Speed is judged by ratios of minima in one process, with margins that no busy machine uses up.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from fabio.edfimage import EdfImage

from xrdpipe.integration import compiled
from xrdpipe.integration.batch import BatchReducer
from xrdpipe.integration.geometry import Geometry, choose_binning, load_geometry
from xrdpipe.integration.reduce import FrameReducer, ReductionSettings
from xrdpipe.types import Encoded

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

SHAPE = (514, 1030)

FRAMES = 16

PONI = """poni_version: 2.1
Detector: Eiger500k
Detector_config: {"orientation": 3}
Distance: 0.1
Poni1: 0.019
Poni2: 0.038
Rot1: 0.0
Rot2: 0.0
Rot3: 0.0
Wavelength: 4.959e-11
"""


@pytest.fixture(scope="module")
def poni(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("geometry") / "eiger.poni"
    path.write_text(PONI)
    return path


@pytest.fixture(scope="module")
def geometry(poni: Path) -> Geometry:
    return load_geometry(poni, SHAPE)


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    rng = np.random.default_rng(11)
    return [rng.poisson(1.5, SHAPE).astype(np.uint32) for _ in range(FRAMES)]


def series(path: Path, frames: list[np.ndarray]) -> list[Encoded]:
    """Write frames as an Eiger does; their chunks."""
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "entry/data/data_000001",
            data=np.array(frames),
            chunks=(1, *SHAPE),
            **hdf5plugin.Bitshuffle(cname="lz4"),
        )
        chunks = [bytes(data.id.read_direct_chunk((n, 0, 0))[1]) for n in range(len(frames))]
    return [Encoded(chunk, "bitshuffle-lz4") for chunk in chunks]


def cheapest(works: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """CPU seconds of the fastest of some repeats, in which the works take turns."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            started = time.process_time()
            work()
            times[name].append(time.process_time() - started)
    return {name: min(spent) for name, spent in times.items()}


@pytest.mark.skipif(compiled.library() is None, reason="the kernel was not built")
@pytest.mark.parametrize(
    "settings",
    [
        {"variants": ("unmasked",), "reject": "none"},
        {"variants": ("masked", "unmasked"), "spottiness": True},
    ],
    ids=["unmasked", "both"],
)
def test_kernel_is_faster_than_the_path_without_it(
    tmp_path: Path, geometry: Geometry, frames: list[np.ndarray], settings: dict[str, Any]
) -> None:
    """It is about ten times as fast, decoding included; half of the time would be a fault."""
    chunks = series(tmp_path / "frames.h5", frames)
    reduce = FrameReducer(
        geometry, choose_binning(geometry, "2theta", 1000, None), ReductionSettings(**settings)
    )
    batch = BatchReducer(reduce, frames[0].dtype)
    scales = [1.0] * batch.size

    def with_kernel() -> None:
        batch.reduce(chunks[: batch.size], scales)

    def without() -> None:
        with h5py.File(tmp_path / "frames.h5") as file:
            for number in range(2):
                reduce.reduce(file["entry/data/data_000001"][number], 1.0)

    with_kernel()
    spent = cheapest({"kernel": with_kernel, "without": without}, 5)
    assert spent["kernel"] / batch.size < 0.5 * spent["without"] / 2


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_floor_sums_what_it_says(tmp_path: Path, poni: Path, frames: list[np.ndarray]) -> None:
    """It stops where its sums are not those of the matrix; bright and masked pixels are there."""
    frames = [frame.copy() for frame in frames]
    for frame in frames:
        frame[100:140] += 300
        frame[:, 250:260] = 2**32 - 1
    mask = (frames[0] == 2**32 - 1).astype(np.uint8)
    EdfImage(data=mask).write(str(tmp_path / "mask.edf"))
    series(tmp_path / "eiger_master.h5", frames)
    command = [sys.executable, str(BENCHMARKS / "floor.py"), str(tmp_path / "eiger_master.h5")]
    command += ["--poni", str(poni), "--mask", str(tmp_path / "mask.edf"), "--batches", "1"]
    command += ["--bins", "1", "20", "500", "--repeats", "1", "-o", str(tmp_path / "floor.json")]
    subprocess.run(command, check=True, capture_output=True)
    found = json.loads((tmp_path / "floor.json").read_text())
    assert 0 < found["two_byte_tiles"] < 1
    assert found["valid_pixels"] < (mask == 0).sum()
    parts = found["parts"]
    assert found["floor"] == pytest.approx(
        parts["lz4"] + parts["unshuffle"] + parts["multiply_add"], abs=1e-3
    )


def test_cost_per_frame_and_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start-up drops out of the difference; ratios are taken within a round."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    report = pytest.importorskip("speed_report")
    rounds = {
        "script": {"cpu": [60.0, 80.0]},
        "unmasked-1": {"cpu": [3.0, 4.0]},
        "unmasked-off-1": {"cpu": [120.0, 40.0]},
        "floor": {"cpu": [2.0, 2.0]},
        "xrdpipe: unmasked": {"cpu": [3.0, 3.6]},
    }
    found = report.judge(rounds, high=False)
    assert found["integrate"]["median"] == pytest.approx(20)
    assert found["kernel"]["median"] == pytest.approx(1.65)
    assert found["kernel"]["holds"] is False
    assert found["off"]["min"] == pytest.approx(0.5)
    assert "csc" not in found
