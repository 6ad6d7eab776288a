"""What synthetic patterns hold, drawn sample by sample: lines, smooth curves, numbers for noise.

The drawing is done in double precision on the processor, so that a sample is the same whatever
device renders it. Intensities are those of the azimuthal mean per pixel, solid angle and
polarization corrected. The 2D simulator that tests models shares structure factors with this and
nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from xrdpipe.synthesis.composition import Components, draw_components
from xrdpipe.synthesis.counter import between, counter, log_between
from xrdpipe.synthesis.lines import LineTable, line_table
from xrdpipe.synthesis.made_up import made_up_phases
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.synthesis.rings import (
    Crystals,
    Exposure,
    Float,
    Scenery,
    Sticks,
    draw_exposure,
    draw_rings,
    middle,
)
from xrdpipe.synthesis.spots import Halos, Towers, draw_hot_pixels, draw_spots
from xrdpipe.synthesis.surroundings import (
    Knots,
    draw_background,
    draw_coverage,
    draw_transmission,
    make_knots,
)
from xrdpipe.types import Grid, Phase, PhaseLibrary


@dataclass(frozen=True)
class Generator:
    """What all samples share.

    Parameters
    ----------
    table
        Lines of all phases.
    grid, recipe
        What is drawn, and how.
    knots
        Where smooth functions are held.
    """

    table: LineTable
    grid: Grid
    recipe: Recipe
    knots: Knots


def make_generator(
    library: PhaseLibrary, distractors: tuple[Phase, ...], grid: Grid, recipe: Recipe
) -> Generator:
    """Prepare :func:`draw_scene`; distractors that look like a phase of the library are left out.

    Raises
    ------
    InputError
        A phase of the library has no line on the grid.
    """
    others = recipe.distractors
    made_up = made_up_phases(others.made_up) if others.on else ()
    table = line_table(library, distractors if others.on else (), grid, made_up)
    return Generator(table, grid, recipe, make_knots(grid, recipe))


@dataclass(frozen=True)
class Targets:
    """What a network may be asked, known exactly; (N, K) unless said otherwise.

    Parameters
    ----------
    present
        True where the phase is there.
    scattering
        Height of the strongest ideal line relative to a phase that fills the beam; 0 = absent.
    weight
        Mass over the mass of all crystalline matter in the beam, distractors included.
    lattice
        Shape (N, K, 6), strained cell in Å and degrees; NaN where absent.
    size
        Crystallite size in nm; NaN where absent.
    microstrain, grains, march
        Relative spread of d, number of grains in the beam, March coefficient; NaN where absent.
    """

    present: NDArray[np.bool_]
    scattering: Float
    weight: Float
    lattice: Float
    size: Float
    microstrain: Float
    grains: Float
    march: Float


@dataclass(frozen=True)
class Scene:
    """N patterns as they are drawn, before they are rendered.

    Parameters
    ----------
    sticks, towers
        Lines and hot pixels.
    scenery
        Coverage, transmission and background at the knots.
    halos
        Wide light around the spots of the anvils.
    exposure
        What all lines of a pattern share.
    pixel
        Angular size of a pixel, degrees.
    split
        Whether pixels are shared between bins.
    told
        Whether the coverage is told.
    readout, ripple, ripple_length
        Noise of a pixel in counts, relative disturbance, and the points over which it is smooth.
    keys
        Shape (N, 4), for fields of random numbers.
    targets
        The truth.
    foreign
        Shape (N,), True where a phase outside the library is there.
    choice
        Shape (N,), one number in (0, 1) per sample: for choosing one of its versions.
    components, crystals
        All phases of all patterns, distractors included, and their state.
    """

    sticks: Sticks
    towers: Towers
    scenery: Scenery
    halos: Halos
    exposure: Exposure
    pixel: Float
    split: NDArray[np.bool_]
    told: NDArray[np.bool_]
    readout: Float
    ripple: Float
    ripple_length: NDArray[np.int64]
    keys: NDArray[np.uint32]
    targets: Targets
    foreign: NDArray[np.bool_]
    choice: Float
    components: Components
    crystals: Crystals

    def __len__(self) -> int:
        return len(self.pixel)

    @property
    def drawn(self) -> dict[str, Float]:
        """What was drawn for each pattern as a whole, (N,) each: the exposure and the detector."""
        shared = {part.name: getattr(self.exposure, part.name) for part in fields(Exposure)}
        return shared | {
            "pixel": self.pixel,
            "readout": self.readout,
            "ripple": self.ripple,
            "ripple_length": self.ripple_length.astype(np.float64),
            "split": self.split.astype(np.float64),
        }


def draw_scene(generator: Generator, first: int, number: int, seed: int) -> Scene:
    """Draw the samples first … first + number − 1 of a stream.

    Parameters
    ----------
    generator
        What all samples share.
    first, number
        Part of the endless stream.
    seed
        Names the stream.
    """
    random = counter(seed, first, number)
    recipe, grid, knots = generator.recipe, generator.grid, generator.knots
    exposure = draw_exposure(recipe, random)
    transmission = draw_transmission(knots, grid, recipe, random)
    scenery = Scenery(
        knots,
        draw_coverage(knots, grid, recipe, random),
        transmission,
        exposure.base[:, None] * draw_background(knots, recipe, random) * transmission,
    )
    components = draw_components(generator.table, recipe, random)
    rings, crystals = draw_rings(
        generator.table, grid, components, exposure, scenery, recipe, random
    )
    in_file = random.uniform("mask files", 2) < recipe.masking.file_probability
    in_file &= recipe.masking.on
    spots, halos = draw_spots(grid, exposure, scenery, in_file[:, 0], recipe, random)
    draws = random.uniform("detector", 3)
    detector, noise = recipe.detector, recipe.noise
    nothing = np.zeros(number)
    pixel = log_between(draws[:, 0], detector.pixel)
    if not detector.on:
        pixel = nothing + middle(detector.pixel)
    disturbance = random.uniform("noise", 3)
    return Scene(
        sticks=_joined(rings, spots),
        towers=draw_hot_pixels(grid, pixel, scenery, in_file[:, 1], recipe, random),
        scenery=scenery,
        halos=halos,
        exposure=exposure,
        pixel=pixel,
        split=(draws[:, 1] >= detector.unsplit_probability) | (not detector.on),
        told=(draws[:, 2] >= detector.unknown_probability) | (not detector.on),
        readout=between(disturbance[:, 0], noise.readout) * noise.on,
        ripple=log_between(disturbance[:, 1], noise.ripple) * noise.on,
        ripple_length=np.round(between(disturbance[:, 2], noise.ripple_length)).astype(np.int64),
        keys=random.keys("fields"),
        targets=targets_of(generator.table, components, crystals),
        foreign=np.bincount(
            components.sample, components.phase >= generator.table.labelled, minlength=number
        )
        > 0,
        choice=random.uniform("version", 1)[:, 0],
        components=components,
        crystals=crystals,
    )


def _joined(one: Sticks, other: Sticks) -> Sticks:
    return Sticks(
        *(
            np.concatenate([getattr(one, part.name), getattr(other, part.name)])
            for part in fields(Sticks)
        )
    )


def targets_of(table: LineTable, components: Components, crystals: Crystals) -> Targets:
    """The truth about N patterns, from the state of their components."""
    number, known = components.label.shape
    sample, phase = components.sample, components.phase
    mass = components.fraction * table.weight[phase]
    total = np.bincount(sample, weights=mass, minlength=number)
    mine = np.flatnonzero((phase < known) & components.label[sample, np.minimum(phase, known - 1)])
    where = sample[mine], phase[mine]

    def placed(values: Float, elsewhere: float = np.nan) -> Float:
        table = np.full((number, known, *values.shape[1:]), elsewhere)
        table[where] = values[mine]
        return table

    strained = table.basis[phase] * (1 + crystals.strain[:, None, :])
    return Targets(
        present=components.label,
        scattering=placed(components.fraction, 0.0),
        weight=placed(mass / total[sample], 0.0),
        lattice=placed(_cells(strained)),
        size=placed(crystals.size / 10),
        microstrain=placed(crystals.microstrain),
        grains=placed(crystals.grains),
        march=placed(crystals.march),
    )


def _cells(basis: Float) -> Float:
    """Cell constants of direct vectors, (E, 6) from (E, 3, 3); Å and degrees."""
    length = np.linalg.norm(basis, axis=2)
    unit = basis / length[..., None]
    cosines = [np.einsum("ei,ei->e", unit[:, i], unit[:, j]) for i, j in ((1, 2), (0, 2), (0, 1))]
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1))).T
    return np.concatenate([length, angles], axis=1)
