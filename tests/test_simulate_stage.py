"""The simulated detector folder: complete, repeatable, readable, and safe with old output."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest

from xrdpipe.config import Effect, FrameFormat, SimulateConfig
from xrdpipe.crystal import bragg_angle
from xrdpipe.errors import InputError, OptionError, OutputExistsError
from xrdpipe.frames import open_frames
from xrdpipe.frames.write import FORMATS
from xrdpipe.integration.geometry import load_geometry, save_poni
from xrdpipe.phases import distractor_phases, shipped_phases
from xrdpipe.simulation.effects import EFFECTS, GROUPS
from xrdpipe.simulation.layouts import LAYOUTS
from xrdpipe.stages import simulate
from xrdpipe.store.truth import read_truth
from xrdpipe.types import Progress

LITTLE = shipped_phases()["calcite"]
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
    assert record["configuration"]["without"] == []
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


def test_options_change_what_they_say(tmp_path):
    def changed(name: str, **changes: object) -> Path:
        options = {"detector": "Pilatus100k"} | changes
        simulate.run(config(tmp_path / name, **options), Progress())
        return tmp_path / name

    def image(folder: Path) -> np.ndarray:
        return open_frames((str(folder / "frames"),)).read(2).image

    plain = changed("plain")
    assert image(plain).shape == (195, 487)
    assert np.median(image(changed("counts", counts=300))) > 5 * np.median(image(plain))
    snake = read_truth(changed("snake", snake=True) / "truth.h5").extra["frame"]
    assert snake.tolist() == [[0, 1, 2, 3], [7, 6, 5, 4]]
    column = read_truth(changed("fast", fast_axis="y") / "truth.h5").extra["frame"]
    assert column.tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]
    noiseless = image(changed("without", without="poisson,zingers,hot"))
    lit = noiseless >= 0
    assert noiseless[lit].mean() == pytest.approx(image(plain)[lit].mean(), rel=0.2)
    smooth, noisy = (np.abs(np.diff(part, axis=0)) for part in (noiseless, image(plain)))
    assert np.median(smooth) == 0 < np.median(noisy)
    tilted = load_geometry(changed("tilt", tilt=(3, -1, 5)) / "geometry.poni")
    row, column = np.unravel_index(tilted.two_theta.argmin(), tilted.shape)
    assert tilted.two_theta.min() < 0.1  # the beam still hits the detector, in its middle
    assert abs(row - 97) < 3
    assert abs(column - 243) < 3
    assert np.ptp(tilted.solid_angle) > 0.05
    one = changed("cif", cif=(LITTLE,), distractor=False, layout="random", grains=6)
    truth = read_truth(one / "truth.h5")
    assert truth.phase_names == ("calcite",)
    assert not truth.extra["distractor"].any()
    grains = truth.extra["grains"][truth.presence]
    assert grains.size == 0 or np.median(grains) > 1e4
    far = load_geometry(changed("far", distance=0.2, wavelength=0.3) / "geometry.poni")
    assert far.wavelength == pytest.approx(0.3)
    assert far.two_theta.max() < 20
    assert read_truth(changed("layout", layout="crust") / "truth.h5").presence.any()


def test_options_name_what_exists():
    """The configuration repeats names, because it must not import what they belong to."""
    assert set(get_args(FrameFormat)) == set(FORMATS)
    assert set(get_args(Effect)) == {*EFFECTS, *GROUPS}
    hints = get_type_hints(SimulateConfig)
    assert set(get_args(hints["layout"])) == set(LAYOUTS)
    with pytest.raises(OptionError, match="'comptn' is not one of"):
        SimulateConfig(output="m", scan_shape=(1, 1), seed=1, without="air,comptn")


def test_threads_make_the_same_frames(folder, tmp_path):
    for threads in (1, 3):
        simulate.run(config(tmp_path / str(threads), threads=threads), Progress())
        assert digest(tmp_path / str(threads)) == digest(folder)


def test_geometry_of_the_user(folder, tmp_path):
    poni = tmp_path / "mine.poni"
    save_poni(poni, "Eiger500k", 0.15, 0.02, 0.05, 0.7, (0.1, 0.02, 0.0))
    simulate.run(config(tmp_path / "map", poni=poni), Progress())
    used, mine = load_geometry(tmp_path / "map" / "geometry.poni"), load_geometry(poni)
    np.testing.assert_array_equal(used.two_theta, mine.two_theta)
    assert open_frames((str(tmp_path / "map" / "frames"),)).shape == (514, 1030)
    with pytest.raises(OptionError, match="--wavelength belongs to a new geometry"):
        config(tmp_path / "map", poni=poni, wavelength=0.5)


def test_a_poni_without_a_wavelength_is_refused_with_what_helps(tmp_path):
    poni = tmp_path / "mine.poni"
    save_poni(poni, "Pilatus100k", 0.15, 0.02, 0.05, 0.7)
    lines = [line for line in poni.read_text().splitlines() if "avelength" not in line]
    poni.write_text("\n".join(lines) + "\n")
    with pytest.raises(
        InputError, match=r"mine\.poni has no wavelength.*'Wavelength: <metres>'\.$"
    ):
        simulate.run(config(tmp_path / "map", poni=poni), Progress())


def test_distance_along_the_beam_whatever_the_tilt(tmp_path):
    """Displacements are seen from where the beam meets the detector, not from the PONI."""
    geometry = simulate.write_geometry(tmp_path / "a.poni", "Pilatus100k", 0.2, 0.5, (0.3, 0, 0))
    plane = simulate.plan_setup(geometry, 1).plane
    assert plane.distance == pytest.approx(0.2 / np.cos(0.3), rel=0.02)


def test_a_phase_out_of_sight_is_refused(tmp_path):
    """Rhenium at 0.2 Å has no line within the 0.3° that a distant detector sees."""
    with pytest.raises(InputError, match=r"phase .rhenium. has no line between 0\.0 and 0\.4 deg"):
        simulate.run(
            config(
                tmp_path / "map", cif=(shipped_phases()["rhenium"],), distance=10, wavelength=0.2
            ),
            Progress(),
        )
    assert not (tmp_path / "map").exists()


def test_distractors_out_of_sight_are_left_out(tmp_path):
    """Within 5.3° only bastnaesite and lanthanum hydroxide have lines."""
    simulate.run(
        config(
            tmp_path / "map", cif=(shipped_phases()["bastnaesite-(La)"],), distance=0.72,
            without="beamstop",
        ),
        Progress(),
    )  # fmt: skip
    record = json.loads((tmp_path / "map" / "simulate.json").read_text())
    assert list(record["phases"]) == ["bastnaesite-(La)", "lanthanum-hydroxide"]


def test_twenty_phases_of_the_user(tmp_path):
    paths = [*shipped_phases().values(), *distractor_phases().values()][:20]
    simulate.run(
        config(tmp_path / "map", cif=tuple(paths), detector="Pilatus100k", layout="crust"),
        Progress(),
    )
    truth = read_truth(tmp_path / "map" / "truth.h5")
    assert len(truth.phase_names) == 20
    total = np.nansum(truth.weight_fraction, axis=0)
    assert np.all(total <= 1 + 1e-6)
    assert np.array_equal(truth.weight_fraction > 0, truth.presence)


def test_doubts_about_a_phase_are_said(tmp_path):
    """Salt under the name of calcite."""
    path = tmp_path / "calcite.cif"
    path.write_text(distractor_phases()["halite"].read_text())
    said = []
    options = {"scan_shape": (1, 1), "cif": (path,)}
    simulate.run(config(tmp_path / "map", **options), Progress(note=said.append))
    assert any("calcite" in text for text in said)


def test_counter_of_a_small_type_saturates_below_its_sentinel(tmp_path):
    simulate.run(config(tmp_path / "map", format="marccd", counts=500), Progress())
    source = open_frames((str(tmp_path / "map" / "frames"),))
    images = np.stack([source.read(i).image for i in range(4)])
    gaps = load_geometry(tmp_path / "map" / "geometry.poni").gap_mask
    assert images.dtype == np.uint16
    assert np.all(images[:, gaps] == 65535)
    assert images[:, ~gaps].max() == 65534


def test_positions_and_monitor_are_stored_where_the_layout_has_a_place(tmp_path):
    simulate.run(config(tmp_path / "map", format="bliss", snake=True), Progress())
    (file,) = (tmp_path / "map" / "frames").glob("*.h5")
    truth = read_truth(tmp_path / "map" / "truth.h5")
    source = open_frames((str(file),))
    order = np.argsort(truth.extra["frame"], axis=None)
    monitor = truth.extra["monitor"].ravel()[order]
    np.testing.assert_allclose(source.column("I0"), 1e6 * monitor, rtol=1e-5)
    row, column = np.divmod(order, 4)
    np.testing.assert_allclose(source.column("samx"), 0.005 * column)
    np.testing.assert_allclose(source.column("samy"), 0.005 * row)


def test_frames_that_lie_at_their_place_have_its_number(folder, tmp_path):
    """A DLS grid scan stores a snake unfolded: truth and monitor follow the file."""
    simulate.run(config(tmp_path / "map", format="nexus", snake=True), Progress())
    truth = read_truth(tmp_path / "map" / "truth.h5")
    assert truth.extra["frame"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    table = np.loadtxt(tmp_path / "map" / "monitor.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(table[:, 1], 1e6 * truth.extra["monitor"].ravel(), atol=0.6)


def test_displacement_is_in_the_truth(folder):
    displacement = read_truth(folder / "truth.h5").extra["displacement"]
    assert displacement.shape == (2, 4)
    assert 5 < np.abs(displacement).max() <= 50


def test_preview_is_one_picture(tmp_path):
    outcome = simulate.run(config(tmp_path / "map", preview=True), Progress())
    assert [path.name for path in tmp_path.iterdir()] == ["map.png"]
    assert outcome.path == tmp_path / "map.png"
    header = outcome.path.read_bytes()[:24]
    assert header[:4] == b"\x89PNG"
    assert struct.unpack(">II", header[16:24]) == (1366, 768)
    options = {"preview": True, "without": "all", "cif": (LITTLE,), "detector": "Pilatus100k"}
    simulate.run(config(tmp_path / "map", **options), Progress())
    outcome.path.write_bytes(b"my holiday")
    with pytest.raises(OutputExistsError, match="no picture of xrdpipe"):
        simulate.run(config(tmp_path / "map", preview=True), Progress())


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
