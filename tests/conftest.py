"""Fixtures shared by the tests of frames, integration and files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from known_frames import geometry_of, rings, write_image, write_poni
from xrdpipe.integration.geometry import Geometry


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config) -> None:
    """With ``-n``, one thread for each worker: torch's otherwise wait for each other."""
    if getattr(config.option, "numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """A cache that is neither the user's nor older than this run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XRDPIPE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def geometry(tmp_path_factory) -> Geometry:
    """A small detector with the beam inside, slightly tilted; 0.14° per pixel."""
    return geometry_of(tmp_path_factory.mktemp("geometry"), rotations=(0.02, -0.01))


@pytest.fixture(scope="session")
def frame(geometry) -> np.ndarray:
    """One uint16 frame of rings."""
    return np.random.default_rng(1).poisson(rings(geometry.two_theta)).astype(np.uint16)


@pytest.fixture
def poni(tmp_path) -> Path:
    return write_poni(tmp_path / "geometry.poni", rotations=(0.02, -0.01))


@pytest.fixture
def scan(tmp_path, geometry) -> Path:
    """A folder of six TIFF frames, numbered 1 to 6; each ring pattern has its own height."""
    folder = tmp_path / "scan"
    folder.mkdir()
    for number in range(1, 7):
        rng = np.random.default_rng(number)
        image = rng.poisson(rings(geometry.two_theta, height=40.0 * number))
        write_image(folder / f"frame_{number:04d}.tif", image.astype(np.int32))
    return folder
