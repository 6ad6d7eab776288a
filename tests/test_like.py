"""Recipes narrowed by unlabelled patterns: known patterns give known ranges."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

import xrdpipe
from xrdpipe.errors import InputError, OptionError
from xrdpipe.stages.like import like, line_widths, look, narrowed
from xrdpipe.store.patterns import PatternsFile
from xrdpipe.synthesis.recipe import Recipe
from xrdpipe.types import Grid

GRID = Grid(5.0, 24.0, 0.01, 0.4959)
PIXEL, DISTANCE = 0.172e-3, 0.1
ANGLE = float(np.degrees(np.arctan(PIXEL / DISTANCE)))
FWHM = 0.12
PLACES = np.array([8.0, 11.3, 15.2, 20.0])


def pixels_per_bin(coverage=0.8):
    """A ring at 2θ is 2π 2θ long and a bin wide."""
    return coverage * 2 * np.pi * GRID.two_theta * GRID.step / ANGLE**2


def measured(random, background, rows=40, ratio=4.0, missing=()):
    """Raw counts per pixel of a smooth background and four Gaussian lines, and their errors."""
    distance = (GRID.two_theta[:, None] - PLACES) / FWHM
    shape = 1 + ratio * np.exp(-4 * np.log(2) * distance**2).sum(axis=1)
    number = np.full(GRID.size, 400.0)
    counts = random.poisson(number * background * shape, (rows, GRID.size))
    intensity = counts / number
    # pyFAI takes the variance of a pixel as max(x, 1): μ + e^−μ in the mean.
    mean = background * shape
    errors = np.sqrt((mean + np.exp(-mean)) / pixels_per_bin()) + 0 * intensity
    for start, stop in missing:
        gone = (GRID.two_theta >= start) & (GRID.two_theta < stop)
        intensity[:, gone] = errors[:, gone] = np.nan
    return intensity.astype(np.float32), errors.astype(np.float32)


def write(path, intensity, errors=None, wavelength=GRID.wavelength, told=True, rows_ok=None):
    with h5py.File(path, "w") as file:
        data = file.create_group("entry/data")
        data["I"] = intensity
        data["radial_axis"] = GRID.two_theta
        data["radial_axis"].attrs["units"] = "degrees"
        file["entry/instrument/monochromator/wavelength"] = wavelength
        if told:
            data["I_errors"] = errors
            data["coverage"] = np.where(np.isfinite(intensity), np.float32(0.8), 0)
            file["entry/instrument/detector/x_pixel_size"] = PIXEL
            file["entry/instrument/detector/y_pixel_size"] = PIXEL
            file["entry/reduction/input/distance"] = DISTANCE
            file["entry/reduction/input/method"] = "no csr cython"
        if rows_ok is not None:
            file["entry/frames/status"] = np.where(rows_ok, 1, 4).astype(np.uint8)
    return path


@pytest.mark.parametrize("fwhm", [0.05, 0.12, 0.3])
def test_widths_of_lines_that_are_clear_and_alone(fwhm):
    x = np.arange(0, 20, 0.01)

    def line(place, width, height=100.0):
        return height * np.exp(-4 * np.log(2) * ((x - place) / width) ** 2)

    above = np.stack([line(4.0, fwhm) + line(9.0, fwhm), line(4.0, fwhm), line(5.0, 3.0),
                      line(4.0, fwhm, 10.0)])  # fmt: skip
    known = np.ones(above.shape, bool)
    known[1, 430:440] = False
    found = line_widths(above, np.ones_like(above), known, 0.01)
    # A line near a gap, a hump and one of 10 sigma are left out.
    assert found.size == 2
    assert found == pytest.approx(fwhm, rel=0.02)


@pytest.mark.parametrize("background", [0.05, 0.5, 5.0, 200.0])
def test_what_patterns_show(tmp_path, background):
    random = np.random.default_rng(0)
    path = write(tmp_path / "p.h5", *measured(random, background))
    with PatternsFile(path) as source:
        seen = look(source, GRID)
    assert seen.pixel == pytest.approx(ANGLE)
    assert seen.coverage == pytest.approx(0.8)
    assert (seen.first == 0).all()
    assert (seen.last == 1).all()
    # The background is a lower envelope of noisy blocks, a little below the mean.
    assert np.median(seen.counts) == pytest.approx(background, rel=0.25)
    if background >= 0.5:
        assert np.median(seen.widths) == pytest.approx(FWHM, rel=0.05)
        assert np.median(seen.ratio) == pytest.approx(4.0, rel=0.25)


def test_ranges_hold_what_was_measured_and_are_narrower(tmp_path):
    random = np.random.default_rng(1)
    gone = ((0.0, 7.0), (22.0, 30.0))
    path = write(tmp_path / "p.h5", *measured(random, 5.0, missing=gone))
    recipe = Recipe()
    result = like(path, GRID, recipe)
    new = result.synthesis

    def holds(after, before, value):
        assert after[0] < value < after[1]
        assert np.log(after[1] / after[0]) < 0.8 * np.log(before[1] / before[0])

    holds(new.profile.width, recipe.profile.width, 0.9 * FWHM)
    holds(new.detector.pixel, recipe.detector.pixel, ANGLE)
    holds(new.background.line_to_background, recipe.background.line_to_background, 4.0)
    holds(new.noise.counts, recipe.noise.counts, 20.0)
    assert new.detector.coverage == pytest.approx((0.72, 0.88))
    assert new.detector.unknown_probability == 0
    assert new.detector.low_cut_probability == new.detector.high_cut_probability == 1
    assert np.mean(new.detector.low_cut) == pytest.approx(2 / 19, abs=0.005)
    assert np.mean(new.detector.high_cut) == pytest.approx(17 / 19, abs=0.005)
    assert {name.split(".")[0] for name in result.changes} == {
        "profile", "detector", "background", "noise"}  # fmt: skip
    for name, (before, after) in result.changes.items():
        effect, key = name.split(".")
        assert getattr(getattr(recipe, effect), key) == before
        assert getattr(getattr(new, effect), key) == after
        assert name in result.text
    assert Recipe.from_mapping({}) == recipe  # the given one is untouched


def test_what_cannot_be_told_stays_with_the_recipe(tmp_path):
    """Patterns of another program: no errors, no coverage, no geometry; noise without lines."""
    noise = np.random.default_rng(2).poisson(50, (30, GRID.size)).astype(np.float32)
    recipe = Recipe()
    result = like(write(tmp_path / "p.h5", noise, told=False), GRID, recipe)
    assert result.synthesis.profile == recipe.profile
    assert result.synthesis.noise == recipe.noise
    assert result.synthesis.detector.coverage == recipe.detector.coverage
    assert result.synthesis.detector.pixel == recipe.detector.pixel
    assert result.synthesis.detector.unknown_probability == recipe.detector.unknown_probability


def test_lost_rows_do_not_count(tmp_path):
    random = np.random.default_rng(3)
    intensity, errors = measured(random, 5.0)
    good = np.arange(len(intensity)) % 4 != 0
    alone = write(tmp_path / "a.h5", intensity[good], errors[good])
    intensity[~good] *= 1000
    mixed = write(tmp_path / "b.h5", intensity, errors, rows_ok=good)
    assert like(mixed, GRID, Recipe()).synthesis == like(alone, GRID, Recipe()).synthesis


def test_nothing_is_widened(tmp_path):
    """A recipe that is narrower already, say by a calibrant, is never made wider."""
    path = write(tmp_path / "p.h5", *measured(np.random.default_rng(4), 5.0))
    recipe = Recipe.from_mapping({"profile": {"width": [0.1, 0.11]}})
    with PatternsFile(path) as source:
        new, _ = narrowed(recipe, look(source, GRID))
    assert new.profile.width == (0.1, 0.11)


def test_refusals(tmp_path):
    random = np.random.default_rng(5)
    other = write(tmp_path / "o.h5", *measured(random, 5.0, rows=3), wavelength=0.7)
    with pytest.raises(InputError, match=r"measured at 0\.7 Å, --wavelength is 0\.4959 Å"):
        like(other, GRID, Recipe())
    with pytest.raises(OptionError, match="draws nothing from ranges"):
        xrdpipe.train(wavelength=0.4959, recipe="paper/mtl", like=other, output=tmp_path / "model")
    assert not (tmp_path / "model.part").exists()


def test_the_model_folder_records_it(tmp_path):
    path = write(tmp_path / "p.h5", *measured(np.random.default_rng(6), 5.0))
    model = tmp_path / "model"
    xrdpipe.train(wavelength=0.4959, recipe="train-tiny", like=path, output=model)
    key = json.loads((model / "run.json").read_text())
    assert len(key["like"]["patterns"]) == 64
    drawn = json.loads((model / "model.json").read_text())["recipe"]["synthesis"]
    assert drawn == key["synthesis"]
    assert drawn["profile"]["width"][0] < FWHM < drawn["profile"]["width"][1] < 0.28
