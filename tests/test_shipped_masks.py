"""Each shipped mask covers what its note claims, on frames of the demonstration."""

from __future__ import annotations

import importlib.util
import sys
import tomllib
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from xrdpipe.crystal import load_phase, reflections
from xrdpipe.integration.geometry import Geometry, load_geometry
from xrdpipe.masks import shipped_masks
from xrdpipe.phases import shipped_phases
from xrdpipe.quiet import quiet
from xrdpipe.simulation.diamonds import render_diamond_spots
from xrdpipe.simulation.frame import expected_counts, simulate_frame
from xrdpipe.simulation.instrument import Setup
from xrdpipe.simulation.sample import draw_sample
from xrdpipe.stages import simulate

with quiet():
    import fabio

FOLDER = Path(__file__).parents[1] / "masks"
NAMES = ("demo-aperture", "demo-beamstop", "demo-diamond-spots", "demo-pilatus300k")


def read(name: str) -> np.ndarray:
    return fabio.open(str(FOLDER / f"{name}.edf.gz")).data != 0


@cache
def note(name: str) -> dict[str, object]:
    return tomllib.loads((FOLDER / f"{name}.toml").read_text())


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> tuple[Geometry, Setup, np.ndarray, np.ndarray]:
    """Geometry, set-up, noise-free mean and measured minimum of a few demonstration frames."""
    poni = tmp_path_factory.mktemp("demo") / "demo.poni"
    geometry = simulate.write_geometry(poni, "Pilatus300k", 0.10, 0.4959)
    assert load_geometry(poni).shape == (619, 487)
    setup = simulate.plan_setup(geometry, 7)
    rhenium = reflections(load_phase(shipped_phases()["rhenium"]), 0.4959, 0.9)
    sample = draw_sample([rhenium], (2, 3), 7, layout="random")
    expected = np.mean([expected_counts(setup, sample, i, 7) for i in (0, 3, 5)], axis=0)
    measured = np.stack([simulate_frame(setup, sample, i, 7) for i in range(6)])
    return geometry, setup, expected, measured


@pytest.mark.parametrize("name", NAMES)
def test_note_says_what_the_mask_is(name):
    mask, said = read(name), note(name)
    assert list(mask.shape) == said["shape"]
    assert mask.mean() == pytest.approx(said["masked_fraction"], abs=1e-4)
    for key in ("origin", "purpose", "detector", "date"):
        assert said[key]
    assert (FOLDER / f"{name}.edf.gz").stat().st_size < 8000


def test_shipped_masks_are_found_by_name():
    assert set(NAMES) <= set(shipped_masks())


def test_masks_are_what_the_script_makes(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("make_masks", FOLDER / "make_masks.py")
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "make_masks", script)
    spec.loader.exec_module(script)
    written = script.write_masks(tmp_path)
    assert sorted(path.name.split(".")[0] for path in written) == sorted(NAMES)
    for name in NAMES:
        np.testing.assert_array_equal(
            fabio.open(str(tmp_path / f"{name}.edf.gz")).data != 0, read(name)
        )
        assert (tmp_path / f"{name}.toml").read_text() == (FOLDER / f"{name}.toml").read_text()


def test_detector_mask_covers_gaps_dead_and_hot_pixels(demo):
    geometry, _, expected, measured = demo
    mask = read("demo-pilatus300k")
    assert mask[geometry.gap_mask].all()
    always_zero = (measured == 0).all(axis=0) & (expected > 3)
    assert always_zero.any()
    assert mask[always_zero].all()
    hot = measured.min(axis=0) > expected + 8 * np.sqrt(expected) + 60
    assert hot.any()
    assert mask[hot & (expected < 1e3)].all()
    assert (mask & ~geometry.gap_mask).mean() < 1e-3


def test_beamstop_mask_covers_the_shadow(demo):
    geometry, setup, _, _ = demo
    mask = read("demo-beamstop")
    assert mask[geometry.two_theta < 3.5].all()
    assert mask[setup.transmission < 0.98].all()
    assert not mask[setup.transmission > 0.99].any()
    arm = mask & (geometry.two_theta > 6)
    assert arm.any()
    assert np.ptp(geometry.chi[arm]) < 10


def test_aperture_mask_covers_what_lies_beyond_the_cone(demo):
    geometry = demo[0]
    mask = read("demo-aperture")
    np.testing.assert_array_equal(mask, geometry.two_theta > 22)


def test_diamond_mask_covers_spots_and_halos(demo):
    _, setup, _, measured = demo
    mask = read("demo-diamond-spots")
    for progress in (0.0, 0.25, 1.0):
        assert render_diamond_spots(setup.plane, setup.diamonds, progress)[~mask].max() < 6
    # Nothing but zingers and hot pixels is left far above the smooth background.
    bright = (measured.min(axis=0) > 200) & ~read("demo-pilatus300k")
    assert bright.any()
    assert mask[bright].all()
    assert mask.mean() < 0.02
