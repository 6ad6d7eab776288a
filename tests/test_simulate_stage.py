"""The simulated detector folder: complete, repeatable, readable, and safe with old output."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from xrdpipe.config import SimulateConfig
from xrdpipe.crystal import bragg_angle
from xrdpipe.errors import InputError, OutputExistsError
from xrdpipe.frames import open_frames
from xrdpipe.integration.geometry import load_geometry
from xrdpipe.phases import shipped_phases
from xrdpipe.stages import simulate
from xrdpipe.store.truth import read_truth
from xrdpipe.types import Progress

NAMES = ("bastnaesite-(La)", "calcite", "rhenium")


def config(output: Path, **changes: object) -> SimulateConfig:
    return SimulateConfig(**({"output": output, "scan_shape": (2, 4), "seed": 7} | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("simulated") / "map"
    simulate.run(config(output), Progress())
    return output


def digest(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((folder / "frames").iterdir())
    }


def test_folder_is_complete(folder):
    assert {path.name for path in folder.iterdir()} == set(simulate.OUTPUTS) - {simulate.BEGUN}
    assert len(list((folder / "frames").glob("map_*.tif"))) == 8
    record = json.loads((folder / "simulate.json").read_text())
    assert record["configuration"]["seed"] == 7
    assert record["configuration"]["scan_shape"] == [2, 4]
    assert set(record["phases"]) == {*NAMES, *simulate.DISTRACTORS}
    truth = read_truth(folder / "truth.h5")
    assert truth.phase_names == NAMES
    assert truth.presence.shape == (3, 2, 4)
    assert np.array_equal(np.isnan(truth.size), ~truth.presence)
    assert np.array_equal(truth.extra["frame"].ravel(), np.arange(8))
    # 8 pixels and 3 phases: every combination once
    assert len(np.unique(np.tensordot([1, 2, 4], truth.presence, axes=1))) == 8


def test_frames_fit_geometry_and_masks(folder):
    geometry = load_geometry(folder / "geometry.poni")
    mask = np.load(folder / "mask.npy") != 0
    spots = np.load(folder / "diamond_spots.npy") != 0
    source = open_frames((str(folder / "frames"),))
    assert source.shape == geometry.shape == mask.shape == spots.shape
    assert len(source.records) == 8
    assert source.detector.saturation_value == simulate.SATURATION
    image = source.read(0).image
    assert image.dtype == np.int32
    assert np.all(image[geometry.gap_mask] == -1)
    assert (image[~geometry.gap_mask] >= 0).all()
    assert mask[geometry.gap_mask].all()
    assert mask[geometry.two_theta < 3].all()
    # The beam hits the middle, so 5-24° is seen over most of the ring.
    for angle, seen in ((5, 0.85), (15, 0.85), (20, 0.85), (24, 0.5)):
        ring = np.abs(geometry.two_theta - angle) < 0.1
        valid = ring & ~mask
        turn = np.histogram(geometry.chi[valid], 90, (-180, 180))[0] > 0
        assert turn.mean() > seen


def test_rings_of_present_phases_are_where_integration_looks(folder):
    truth = read_truth(folder / "truth.h5")
    geometry = load_geometry(folder / "geometry.poni")
    usable = (np.load(folder / "mask.npy") == 0) & (np.load(folder / "diamond_spots.npy") == 0)
    correction = geometry.solid_angle * geometry.polarization(simulate.POLARIZATION_FACTOR)
    source = open_frames((str(folder / "frames"),))
    strength = np.where(truth.presence[2], truth.strength[2], 0)
    best = np.unravel_index(np.argmax(strength), strength.shape)
    image = source.read(int(truth.extra["frame"][best])).image / correction
    a, _, c = truth.lattice[2][best][:3]
    d_101 = 1 / np.sqrt(4 / 3 / a**2 + 1 / c**2)
    centre = float(bragg_angle(d_101, 0.4959))
    ring = usable & (np.abs(geometry.two_theta - centre) < 0.05)
    beside = usable & (np.abs(np.abs(geometry.two_theta - centre) - 0.5) < 0.08)
    contrast = image[ring].mean() / image[beside].mean() - 1
    assert contrast == pytest.approx(strength[best], rel=0.4)


def test_same_seed_same_frames_whatever_the_path(folder, tmp_path):
    simulate.run(config(tmp_path / "again"), Progress())
    assert digest(tmp_path / "again") == digest(folder)
    simulate.run(config(tmp_path / "other", seed=8), Progress())
    assert not set(digest(tmp_path / "other").values()) & set(digest(folder).values())


def test_formats_hold_the_same_counts(folder, tmp_path):
    simulate.run(config(tmp_path / "cbf", format="cbf"), Progress())
    simulate.run(config(tmp_path / "eiger", format="eiger"), Progress())
    tiff = open_frames((str(folder / "frames"),))
    cbf = open_frames((str(tmp_path / "cbf" / "frames"),))
    eiger = open_frames((str(tmp_path / "eiger" / "frames" / "map_master.h5"),))
    assert eiger.detector.saturation_value == simulate.SATURATION
    flagged = eiger.detector.pixel_mask != 0
    for row in (0, 5):
        image = tiff.read(row).image
        np.testing.assert_array_equal(cbf.read(row).image, image)
        stored = eiger.read(row).image
        assert np.all(stored[flagged] == 2**32 - 1)
        np.testing.assert_array_equal(stored[~flagged], image[~flagged])


def test_options_change_what_they_say(folder, tmp_path):
    def changed(name: str, **changes: object) -> Path:
        simulate.run(config(tmp_path / name, **changes), Progress())
        return tmp_path / name

    def median(folder: Path) -> float:
        return float(np.median(open_frames((str(folder / "frames"),)).read(2).image))

    assert median(changed("counts", counts=300)) > 5 * median(folder)
    snake = read_truth(changed("snake", snake=True) / "truth.h5").extra["frame"]
    assert snake.tolist() == [[0, 1, 2, 3], [7, 6, 5, 4]]
    column = read_truth(changed("fast", fast_axis="y") / "truth.h5").extra["frame"]
    assert column.tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]
    only = shipped_phases()["calcite"]
    one = changed("cif", cif=(only,), distractor=False, layout="random", grains=6)
    truth = read_truth(one / "truth.h5")
    assert truth.phase_names == ("calcite",)
    assert not truth.extra["distractor"].any()
    grains = truth.extra["grains"][truth.presence]
    assert grains.size == 0 or np.median(grains) > 1e4
    far = load_geometry(changed("far", distance=0.2, wavelength=0.6) / "geometry.poni")
    assert far.wavelength == pytest.approx(0.6)
    assert far.two_theta.max() < 20
    other = load_geometry(changed("detector", detector="Pilatus100k") / "geometry.poni")
    assert other.shape == (195, 487)
    assert read_truth(changed("layout", layout="crust") / "truth.h5").presence.any()


def test_existing_output_is_safe(tmp_path):
    output = tmp_path / "map"
    simulate.run(config(output, scan_shape=(1, 2)), Progress())
    before = digest(output)
    with pytest.raises(OutputExistsError, match="not empty"):
        simulate.run(config(output, scan_shape=(1, 1)), Progress())
    assert digest(output) == before
    simulate.run(config(output, scan_shape=(1, 1), restart=True), Progress())
    assert len(digest(output)) == 1
    (output / "notes.txt").write_text("precious")
    with pytest.raises(OutputExistsError, match=r"holds 'notes.txt'"):
        simulate.run(config(output, restart=True), Progress())
    assert len(digest(output)) == 1
    with pytest.raises(OutputExistsError, match="is a file"):
        simulate.run(config(output / "notes.txt"), Progress())


def test_unknown_detector_leaves_no_folder_behind(tmp_path):
    with pytest.raises(InputError, match="unknown to pyFAI"):
        simulate.run(config(tmp_path / "map", detector="Pilatus301k"), Progress())
    assert not (tmp_path / "map").exists()


def test_two_phases_of_one_name_are_refused(tmp_path):
    copy = tmp_path / "calcite.cif"
    copy.write_text(shipped_phases()["calcite"].read_text())
    with pytest.raises(InputError, match="phase names must differ"):
        simulate.run(config(tmp_path / "m", cif=(copy, shipped_phases()["calcite"])), Progress())
