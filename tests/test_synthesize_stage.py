"""A set of synthetic patterns from CIF files: content, targets, refusals."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from silx.io.nxdata import get_default

import xrdpipe
from xrdpipe.cli import main
from xrdpipe.errors import InputError, OptionError, OutputExistsError
from xrdpipe.phases import distractor_phases

CIFS = Path(__file__).parents[2] / "shared" / "data" / "phases_cif"


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    return stop.value.code


def test_a_set_holds_patterns_and_targets(tmp_path):
    path = tmp_path / "set.h5"
    outcome = xrdpipe.synthesize(wavelength=0.4959, number=70, output=path, seed=3)
    assert "70 patterns of 3 phases" in outcome.summary
    assert path.with_suffix(".png").stat().st_size > 20_000
    with h5py.File(path) as file:
        data, targets = file["entry/data"], file["entry/targets"]
        for name in ("masked", "unmasked", "spottiness", "coverage"):
            assert data[name].shape == (70, 1901)
            assert data[name].attrs["long_name"]
        shown = data["coverage"][()] > 0
        assert np.array_equal(np.isfinite(data["masked"][()]), shown)
        assert targets["phase_names"].asstr()[()].tolist()[1] == "calcite"
        assert targets["lattice"].shape == (70, 3, 6)
        present = targets["present"][()] == 1
        assert np.array_equal(targets["weight"][()] > 0, present)
        assert np.array_equal(targets["presence_masked"][()] != 0, present)
        assert 0.2 < present.mean() < 0.7
        assert np.array_equal(np.isfinite(targets["grains"][()]), present)
        level = file["entry/drawn/level"][()]
        assert level.shape == (70,)
        assert level.max() / level.min() > 100
    longer = tmp_path / "longer.h5"
    xrdpipe.synthesize(wavelength=0.4959, number=75, output=longer, seed=3, png=False)
    assert not longer.with_suffix(".png").exists()
    with h5py.File(path) as one, h5py.File(longer) as two:
        np.testing.assert_array_equal(
            one["entry/data/unmasked"][()], two["entry/data/unmasked"][:70]
        )


def test_the_plot_is_found(tmp_path):
    path = tmp_path / "set.h5"
    xrdpipe.synthesize(wavelength=0.4959, number=3, output=path, png=False)
    with h5py.File(path) as file:
        plottable = get_default(file)
        assert plottable.is_valid
        assert plottable.signal_dataset_name == "masked"


def test_the_recipe_and_the_phases_decide(tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        "[synthesis.composition]\nfraction = [1.0, 1.0]\n[synthesis.distractors]\non = false\n"
    )
    cif = [distractor_phases()[name] for name in ("halite", "gold")]
    path = tmp_path / "set.h5"
    code = run(
        "synthesize", "--cif", cif[0], "--cif", cif[1], "--wavelength", "0.7", "--grid",
        "8:30:0.02", "-n", "20", "--recipe", recipe, "-o", path, "--no-png",
    )  # fmt: skip
    assert code == 0
    with h5py.File(path) as file:
        assert file["entry/data/masked"].shape == (20, 1101)
        scattering = file["entry/targets/scattering"][()]
        assert set(np.unique(scattering)) == {0.0, 1.0}
        assert file["entry/instrument/monochromator/wavelength"][()] == 0.7


def test_the_protocol_of_the_synthetic_crystals_by_name(tmp_path):
    path = tmp_path / "set.h5"
    xrdpipe.synthesize(
        wavelength=1.5406, grid="5:90:0.01", number=4, recipe="train-synthetic-crystals",
        output=path,
    )  # fmt: skip
    with h5py.File(path) as file:
        assert file["entry/data/masked"].shape == (4, 8501)
        assert file["entry/targets/present"][()].sum(axis=1).tolist() == [1, 1, 1, 1]


def test_again_other_and_refused(tmp_path):
    path = tmp_path / "set.h5"
    options = {"wavelength": 0.4959, "number": 2, "output": path, "png": False}
    xrdpipe.synthesize(**options)
    assert "already done" in xrdpipe.synthesize(**options).summary
    with pytest.raises(OutputExistsError, match="seed is 0 there, 1 here"):
        xrdpipe.synthesize(**options, seed=1)
    xrdpipe.synthesize(**options, seed=1, restart=True)
    with pytest.raises(OptionError, match="fixed set"):
        xrdpipe.synthesize(**options, recipe="paper/mtl")
    with pytest.raises(InputError, match="use a wider"):
        xrdpipe.synthesize(**{**options, "output": tmp_path / "o.h5"}, grid="1:1.5:0.01")
    assert not (tmp_path / "o.h5").exists()


@pytest.mark.skipif(not CIFS.is_dir(), reason="no CIF files of other makers here")
def test_five_phases_of_other_makers_go_in_without_a_line_of_code(tmp_path):
    names = ("xrdnet4cem_Quartz", "xrdnet4cem_Portlandite", "midas_alpha_fe", "midas_lab6")
    cifs = [CIFS / f"{name}.cif" for name in (*names, "xrdnet4cem_Dolomite")]
    arguments = [word for cif in cifs for word in ("--cif", cif)]
    path = tmp_path / "set.h5"
    assert run("synthesize", *arguments, "--wavelength", "0.4", "-n", 200, "-o", path) == 0
    with h5py.File(path) as file:
        present = file["entry/targets/present"][()]
        assert present.shape == (200, 5)
        # Two phases on average, at most: the chance of each is lower in a larger library.
        assert 1.2 < present.sum(axis=1).mean() < 2.2
        weight = file["entry/targets/weight"][()]
        assert (weight.sum(axis=1) <= 1 + 1e-5).all()
