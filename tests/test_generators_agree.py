"""The 1D generator against the 2D simulator integrated by pyFAI: two programs, one physics."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from xrdpipe import crystal
from xrdpipe.nn.patterns import draw_pairs
from xrdpipe.phases import shipped_phases
from xrdpipe.quiet import quiet
from xrdpipe.simulation.grains import render_phases
from xrdpipe.simulation.lines import Beam, IlluminatedPhase
from xrdpipe.stages import simulate
from xrdpipe.synthesis.recipe import Noise, Profile, Recipe, Strain
from xrdpipe.synthesis.scene import make_generator
from xrdpipe.types import Grid, PhaseLibrary

WAVELENGTH = 0.4959
BEAM = Beam()
COUNTS = 1000.0


@pytest.fixture(scope="module")
def geometry(tmp_path_factory):
    path = tmp_path_factory.mktemp("plane") / "g.poni"
    return simulate.write_geometry(path, "Eiger1M", 0.1, WAVELENGTH)


@pytest.fixture(scope="module")
def plane(geometry):
    return simulate.plan_setup(geometry, 7).plane


def same_widths(plane, size, microstrain):
    """The widths of the simulator's beam, pixels and crystals as ranges without a width."""
    pixel = 2 * np.sqrt(2 * np.log(2)) * plane.pitch / np.sqrt(12)
    width = float(np.hypot(BEAM.width, pixel))
    energy = 2 * BEAM.bandwidth * 180 / np.pi
    # Its microstrain is a standard deviation, that of a recipe the integral-breadth-like 4 ε tanθ.
    spread = 2 * np.sqrt(2 * np.log(2)) * 2 * microstrain / 4
    return Profile(
        width=(width, width),
        v=(0.0, 0.0),
        u=((energy / width) ** 2,) * 2,
        lorentzian=(0.0, 0.0),
        size=(size, size),
        microstrain=(spread, spread),
    )


@pytest.mark.parametrize("size", [60.0, 400.0])
@pytest.mark.parametrize("name", list(shipped_phases()))
def test_the_same_pattern_without_anything_random(geometry, plane, name, size):
    phase = crystal.load_phase(shipped_phases()[name])
    table = crystal.reflections(phase, WAVELENGTH, 0.9)
    lit = IlluminatedPhase(table, COUNTS, np.inf, table.cell, size=size)
    random = np.random.default_rng(0)
    image = plane.image(render_phases(plane, [lit], BEAM, random)) * plane.efficiency
    with quiet():
        # Pixels are not shared: the widths of the lines hold the pixel already.
        measured = geometry.integrator.integrate1d_ng(
            image, 1901, unit="2th_deg", radial_range=(4.995, 24.005), mask=plane.gap_mask,
            polarization_factor=0.99, method=("no", "csr", "cython"),
        )  # fmt: skip
    recipe = replace(
        Recipe().without(*(effect.name for effect in fields(Recipe))),
        profile=same_widths(plane, size, lit.microstrain),
        noise=Noise(on=False, counts=(COUNTS, COUNTS)),
        strain=Strain(on=False),
    )
    generator = make_generator(PhaseLibrary((phase,)), (), Grid(5, 24, 0.01, WAVELENGTH), recipe)
    drawn = draw_pairs(generator, 0, 1, seed=0).masked[0].numpy()
    seen = measured.count > 0
    assert seen.mean() > 0.95
    np.testing.assert_allclose(measured.radial, generator.grid.two_theta, atol=1e-6)
    apart = np.abs(drawn - measured.intensity)[seen]
    assert apart.max() < 0.02 * drawn.max()
    assert drawn.max() == pytest.approx(COUNTS, rel=0.03)
