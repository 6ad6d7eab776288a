"""``xrdpipe mask``: every component finds what was planted, and nothing on clean frames."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import distance_transform_edt
from silx.io.nxdata import get_default

import xrdpipe
from known_frames import DATA, SHAPE, rings, run_cli, write_image, write_poni
from xrdpipe.config import MaskConfig, fields
from xrdpipe.errors import InputError, InvalidFileError, OptionError, OutputExistsError
from xrdpipe.frames.auxiliary import load_masks
from xrdpipe.integration.geometry import choose_binning, load_geometry
from xrdpipe.integration.masking import azimuthal_outliers, spots
from xrdpipe.integration.matrix import bin_of_pixel
from xrdpipe.integration.rejection import POISSON, PixelNoise
from xrdpipe.integration.rings import Rings
from xrdpipe.integration.shadow import shadows
from xrdpipe.integration.stack import PARTS, FrameStack
from xrdpipe.masks import Component, inside_polygon, reason_bits, with_halo
from xrdpipe.quiet import quiet
from xrdpipe.simulation.diamonds import diamond_mask
from xrdpipe.stages import simulate
from xrdpipe.types import Progress

with quiet():
    import fabio

N_FRAMES = 8
Y, X = np.indices(SHAPE)
SATURATION = 50_000
GAP = np.s_[:, 120:123]
HALF_GONE = np.s_[3, 3]
STUCK = np.s_[60, 20]


@pytest.fixture(scope="module")
def planted(geometry) -> dict[str, np.ndarray]:
    """What is wrong with the detector and the view of it; True = there."""
    rng = np.random.default_rng(5)
    plants = {"shadow": (np.hypot(Y - 70, X - 80) < 12) | ((abs(X - 80) < 5) & (Y > 70))}
    plants["diamond"] = np.hypot(Y - 30, X - 40) < 2.5
    plants["overexposed"] = np.hypot(Y - 110, X - 30) < 2.5
    plants["moving"] = np.hypot(Y - 40, X - 140) < 2.5
    plants["gap"] = np.zeros(SHAPE, bool)
    plants["gap"][GAP] = True
    near = np.logical_or.reduce(list(plants.values()))
    free = np.flatnonzero(with_halo(near, 8).ravel() == 0)
    places = rng.permutation(free)
    for name, at in (("hot", places[:12]), ("dead", places[12:24])):
        plants[name] = np.zeros(SHAPE, bool)
        plants[name].ravel()[at] = True
    return plants


@pytest.fixture(scope="module")
def frames(geometry, planted) -> np.ndarray:
    """Eight int32 frames; −1 in the gap, one pixel that holds −1 in three frames only."""
    rng = np.random.default_rng(6)
    clean = rings(geometry.two_theta, height=60, background=20)
    stack = np.empty((N_FRAMES, *SHAPE), np.int32)
    for i, image in enumerate(stack):
        expected = clean * (1 + 0.5 * np.cos(2 * np.radians(geometry.chi) + i))
        expected = np.where(planted["shadow"], 0.05, 1) * expected
        expected += 900 * planted["diamond"] + 400 * planted["hot"] * (1 + i % 2)
        expected += 700 * planted["moving"] * (i == 2)
        image[...] = rng.poisson(expected)
        image[planted["dead"]] = 0
        image[planted["overexposed"] & (i == 5)] = SATURATION
        image[GAP] = -1
        image[HALF_GONE] = -1 if i < 3 else image[HALF_GONE]
    return stack


@pytest.fixture(scope="module")
def folder(tmp_path_factory, frames):
    """The frames as files, with a geometry that lies like the frames."""
    path = tmp_path_factory.mktemp("mask")
    write_poni(path / "g.poni", rotations=(0.02, -0.01))
    (path / "scan").mkdir()
    for i, image in enumerate(frames):
        write_image(path / "scan" / f"f_{i + 1:03d}.tif", image)
    return path


EVERYTHING = {
    "saturation": SATURATION,
    "hot": 6,
    "dead": True,
    "shadow": 0.5,
    "spots": 8,
    "azimuthal": 6,
    "persistent": 0.5,
}


def components(path) -> dict[str, np.ndarray]:
    """Name → pixels, read from the bits as a user would."""
    with h5py.File(path) as file:
        mask = file["entry/mask/mask"]
        names = mask.attrs["flag_meanings"].split()
        parts = {
            name: mask[()] & bit != 0
            for name, bit in zip(names, mask.attrs["flag_masks"], strict=True)
        }
        listed = dict(
            zip(
                file["entry/components/name"].asstr()[()],
                file["entry/components/pixels"],
                strict=True,
            )
        )
    assert {name: part.sum() for name, part in parts.items()} == listed
    return parts


def mask_of(folder, tmp_path, **options) -> dict[str, np.ndarray]:
    output = tmp_path / "m.h5"
    xrdpipe.mask(
        output=output,
        png=False,
        restart=True,
        **{
            "frames": folder / "scan",
            "poni": folder / "g.poni",
            "detector": False,
            "overexposed": False,
            **options,
        },
    )
    return components(output)


# --- every component finds what was planted ---------------------------------------------------


def test_hot_pixels_are_found_and_nothing_else(folder, planted, tmp_path):
    """Without a geometry; the overexposed, diamond and moving spots are no hot pixels."""
    found = mask_of(folder, tmp_path, hot=6, poni=None, combine=[], detector=True)
    np.testing.assert_array_equal(found["hot"], planted["hot"])


def test_hot_pixels_that_touch_are_left_to_azimuthal(geometry, tmp_path):
    """Two bright neighbours may be a small diamond spot; as outliers of their ring they go."""
    stack = np.random.default_rng(8).poisson(rings(geometry.two_theta), (8, *SHAPE))
    stack[:, 30, 40:42] = stack[:, 90, 90] = 20_000
    (tmp_path / "scan").mkdir()
    write_poni(tmp_path / "g.poni", rotations=(0.02, -0.01))
    for i, image in enumerate(stack.astype(np.int32)):
        write_image(tmp_path / "scan" / f"f_{i}.tif", image)
    found = mask_of(tmp_path, tmp_path, hot=5, azimuthal=6)
    assert np.argwhere(found["hot"]).tolist() == [[90, 90]]
    assert np.argwhere(found["azimuthal"]).tolist() == [[30, 40], [30, 41]]


def test_dead_pixels_are_found_and_nothing_else(folder, planted, tmp_path):
    found = mask_of(folder, tmp_path, dead=True, detector=True, poni=None)["dead"]
    np.testing.assert_array_equal(found, planted["dead"])


def test_the_detector_component_is_what_never_measures(folder, planted, tmp_path):
    """A pixel without a value in three frames of eight is left to the integration, aloud."""
    said = []
    progress = xrdpipe.types.Progress(note=said.append)
    found = mask_of(folder, tmp_path, detector=True, progress=progress)
    np.testing.assert_array_equal(found["sentinel"], planted["gap"])
    assert any(text.startswith("1 pixels carry no measurement in fewer") for text in said)


@pytest.mark.parametrize("halo", [0, 3, 6])
def test_overexposed_pixels_go_with_an_exact_halo(folder, planted, tmp_path, halo):
    found = mask_of(folder, tmp_path, overexposed=True, saturation=SATURATION, halo=halo)
    expected = distance_transform_edt(~planted["overexposed"]) <= halo
    np.testing.assert_array_equal(found["overexposed"], expected)


@pytest.mark.parametrize("halo", [0, 4])
def test_diamond_spots_stay_and_moving_ones_go(folder, planted, tmp_path, halo):
    options = {"detector": True, "spots": 8, "halo": halo}
    lasting = mask_of(folder, tmp_path, persistent=0.5, **options)["spots"]
    anywhere = mask_of(folder, tmp_path, persistent=0, **options)["spots"]
    grown = distance_transform_edt(~planted["diamond"]) <= halo
    assert lasting[grown & ~planted["gap"]].all()
    assert (lasting & ~with_halo(grown, 3)).sum() == 0
    assert not lasting[planted["moving"]].any()
    assert anywhere[planted["moving"]].all()
    assert anywhere[lasting].all()
    # Single hot pixels are no spots.
    assert not anywhere[planted["hot"]].any()


def test_the_shadow_is_found_with_little_else(folder, planted, tmp_path):
    options = {"detector": True, "hot": 6, "dead": True, "overexposed": True}
    options |= {"saturation": SATURATION, "shadow": 0.5}
    found, truth = mask_of(folder, tmp_path, **options)["shadow"], planted["shadow"]
    others = planted["dead"] | planted["hot"]
    assert (found | others)[truth].mean() > 0.99
    assert (found & ~with_halo(truth, 4)).sum() == 0


def test_azimuthal_outliers_of_the_median(folder, planted, tmp_path):
    """What lasts is found, what passes is not."""
    found = mask_of(folder, tmp_path, detector=True, azimuthal=6)["azimuthal"]
    assert found[planted["diamond"] | planted["hot"]].mean() > 0.9  # corners have few pixels
    assert not found[planted["moving"] | planted["overexposed"]].any()
    known = np.logical_or.reduce([planted[name] for name in ("diamond", "hot", "dead", "shadow")])
    stray = found & ~known
    assert stray.sum() <= 3


def test_azimuthal_outliers_lie_above_or_below(geometry):
    rng = np.random.default_rng(11)
    binning = choose_binning(geometry, "2theta", 60, None)
    lines = Rings(bin_of_pixel(geometry, binning), binning.count, SHAPE)
    stack = FrameStack(SHAPE, 20)
    places = rng.choice(SHAPE[0] * SHAPE[1], 80, replace=False)
    for i in range(20):
        image = rng.poisson(50, SHAPE)
        image.ravel()[places[:40]] //= 2
        image.ravel()[places[40:]] *= 2
        stack.add(i, image, np.ones(SHAPE, bool))
    flat, everywhere = np.ones(SHAPE, np.float32), np.ones(SHAPE, bool)
    noise = stack.median_noise(POISSON)
    found = azimuthal_outliers(stack.median, flat, lines, everywhere, 6, noise)
    assert found.ravel()[places].all()
    assert found.sum() == 80


def test_threshold_is_of_the_median(folder, frames, tmp_path):
    found = mask_of(folder, tmp_path, threshold=(2, 300), detector=True)["threshold"]
    measured = frames.min(axis=0) >= 0
    median = np.median(frames, axis=0)
    # Eight frames make seven parts: two of them are averaged, and the median moves a little.
    clear = measured & (abs(median - 300) > 100) & ((median < 1) | (median > 4))
    assert clear.mean() > 0.9
    outside = (median < 2) | (median > 300)
    assert outside[clear].sum() > 300
    np.testing.assert_array_equal(found[clear], outside[clear])
    assert not found[GAP].any()


def test_polygons_lie_as_the_picture_shows_them(folder, tmp_path):
    found = mask_of(
        folder, tmp_path, polygon=["9.5,19.5 29.5,19.5 29.5,39.5 9.5,39.5", "100,5 104,5 100,9"]
    )
    expected = np.zeros(SHAPE, bool)
    expected[20:40, 10:30] = True
    part = found["polygon"].copy()
    assert 6 <= part[:20].sum() <= 12
    part[:20] = False
    np.testing.assert_array_equal(part, expected)


def test_a_polygon_is_even_odd_and_may_reach_outside():
    bow = inside_polygon([(0, 0), (10, 10), (10, 0), (0, 10)], (11, 11))
    assert bow[5, 2]
    assert bow[5, 8]
    assert not bow[1, 5]
    assert not bow[9, 5]
    assert inside_polygon([(-5, -5), (50, -5), (50, 50), (-5, 50)], (11, 11)).all()


def test_a_simulated_scan_gives_back_its_defects(tmp_path):
    """Grainy rings, diamond spots that drift, zingers, a beamstop: known for every pixel."""
    xrdpipe.simulate(output=tmp_path / "s", scan_shape="4x5", seed=3, detector="Pilatus100k")
    geometry = load_geometry(tmp_path / "s" / "geometry.poni")
    setup = simulate.plan_setup(geometry, 3)
    found = mask_of(
        tmp_path / "s", tmp_path, poni=tmp_path / "s/geometry.poni", frames=tmp_path / "s/frames",
        detector=True, overexposed=True, hot=5, dead=True, shadow=0.5, spots=10, halo=3,
    )  # fmt: skip
    lit = ~geometry.gap_mask & ~setup.shadow
    hot = (setup.bad.hot > 0) & lit
    assert hot.sum() >= 5
    np.testing.assert_array_equal(found["hot"] & lit, hot)
    dead = setup.bad.dead & lit
    assert found["dead"][dead].mean() > 0.8
    assert not found["dead"][lit & ~dead].any()
    assert found["shadow"][(setup.transmission < 0.5) & ~geometry.gap_mask].mean() > 0.98
    bright = diamond_mask(setup.plane, setup.diamonds, 100) & lit
    assert bright.sum() > 200
    assert (found["spots"] | found["overexposed"])[bright].mean() > 0.98
    union = np.logical_or.reduce(list(found.values()))
    spoiled = diamond_mask(setup.plane, setup.diamonds, 3) | setup.bad.pixels
    assert (union & lit & ~spoiled).sum() < 0.03 * lit.sum()


# --- clean frames -----------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.02, 0.3, 3.0, 100.0, 1e4])
@pytest.mark.parametrize("n", [1, 10])
def test_clean_frames_are_left_alone(geometry, level, n):
    """No pixel of 25,500, from 0.02 to 10⁴ counts per pixel; a ring with a texture of ±60 %."""
    rng = np.random.default_rng(round(100 * level) + n)
    texture = 1 + 0.6 * np.cos(2 * np.radians(geometry.chi))
    line = np.exp(-0.5 * ((geometry.two_theta - 7) / 0.15) ** 2)
    norm = geometry.solid_angle * geometry.polarization(0.99)
    expected = level * (1 + 8 * line * texture) * norm
    images = rng.poisson(expected, (n, *SHAPE)).astype(np.uint32)
    valid = np.ones(SHAPE, bool)
    stack = FrameStack(SHAPE, n)
    for i, image in enumerate(images):
        stack.add(i, image, valid)
    binning = choose_binning(geometry, "2theta", None, None)
    lines = Rings(bin_of_pixel(geometry, binning), binning.count, SHAPE)
    assert not stack.hot_pixels(6, POISSON).any()
    assert not stack.dead_pixels().any()
    assert not spots(images[0].astype(np.float32), norm, lines, valid, 8, 3, POISSON).any()
    noise = stack.median_noise(POISSON)
    assert not azimuthal_outliers(stack.median, norm, lines, valid, 6, noise).any()
    if level * n < 0.2:
        with pytest.raises(InputError, match="too faint to tell a shadow from noise"):
            shadows(stack.mean, norm, geometry.two_theta, valid, 0.5, 1 / n)
    else:
        assert not shadows(stack.mean, norm, geometry.two_theta, valid, 0.5, 1 / n).any()


@pytest.mark.parametrize("fraction", [0.3, 0.6])
def test_dark_arcs_of_textured_rings_are_no_shadow(geometry, fraction):
    """Rings a hundred times the background that cover a third of the azimuth only."""
    lit = np.abs(geometry.chi) < 60
    lines = rings(geometry.two_theta, background=0, height=1000)
    image = np.random.default_rng(1).poisson(10 + lines * lit).astype(np.float32)
    everywhere = np.ones(SHAPE, bool)
    flat = np.ones(SHAPE, np.float32)
    assert not shadows(image, flat, geometry.two_theta, everywhere, fraction, 1).any()


@pytest.mark.parametrize("level", [0.5, 5.0, 500.0])
def test_an_aperture_and_a_beamstop_that_fill_their_rings(geometry, level):
    """There is nothing on the same ring to compare with: the steep edge tells."""
    two_theta = geometry.two_theta
    dark = (two_theta < 2.5) | (two_theta > 12.5)
    expected = np.where(dark, 0.02, 1) * level * (1 + 3 * np.exp(-two_theta / 5))
    image = np.random.default_rng(2).poisson(expected, (4, *SHAPE)).mean(axis=0)
    everywhere = np.ones(SHAPE, bool)
    flat = np.ones(SHAPE, np.float32)
    found = shadows(image.astype(np.float32), flat, two_theta, everywhere, 0.4, 1 / 4)
    assert found[dark].mean() > 0.97
    assert (found & ~dark).mean() < 0.05
    assert not found[(two_theta > 4.5) & (two_theta < 11)].any()


# --- the stack --------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, PARTS])
def test_the_median_is_exact_for_as_many_frames_as_there_are_parts(n):
    rng = np.random.default_rng(n)
    images = rng.integers(0, 1000, (n, 20, 30)).astype(np.uint16)
    valid = rng.random(images.shape) < 0.8
    stack = FrameStack((20, 30), n)
    for i in range(n):
        stack.add(i, images[i], valid[i])
    known = valid.any(axis=0)
    shown = np.where(valid, images, np.nan)
    np.testing.assert_allclose(stack.median[known], np.nanmedian(shown[:, known], axis=0))
    np.testing.assert_allclose(stack.mean[known], np.nanmean(shown[:, known], axis=0), rtol=1e-6)
    assert np.isnan(stack.median[~known]).all()


def test_a_long_series_needs_no_more_memory_and_sees_past_a_flash():
    stack = FrameStack((5, 5), 1000)
    image = np.full((5, 5), 3, np.uint32)
    for i in range(1000):
        flash = image.copy()
        flash[2, 2] = 10**6 if i % 400 == 0 else 3
        stack.add(i, flash, np.ones((5, 5), bool))
    assert stack._sums.shape == (PARTS, 5, 5)
    np.testing.assert_array_equal(stack.median, 3)
    assert stack.mean[2, 2] > 1000


def test_noise_of_a_median_shrinks_with_the_frames():
    stack = FrameStack((40, 50), 60)
    rng = np.random.default_rng(8)
    for i in range(60):
        stack.add(i, rng.poisson(7, (40, 50)), np.ones((40, 50), bool))
    said = stack.median_noise(PixelNoise()).variance(np.full(1, 7, np.float32))[0]
    assert np.var(stack.median) == pytest.approx(said, rel=0.25)


# --- files ------------------------------------------------------------------------------------


def test_three_file_types_mask_alike_and_are_read_by_integrate(folder, tmp_path):
    rows = {}
    for suffix in ("h5", "edf", "npy"):
        output = tmp_path / f"m.{suffix}"
        xrdpipe.mask(
            frames=folder / "scan", poni=folder / "g.poni", output=output, png=False, **EVERYTHING
        )
        patterns = tmp_path / f"p_{suffix}.h5"
        xrdpipe.integrate(
            frames=folder / "scan", poni=folder / "g.poni", mask=[str(output)], output=patterns,
            saturation=SATURATION,
        )  # fmt: skip
        with h5py.File(patterns) as file:
            rows[suffix] = (
                file["entry/data/I"][()],
                file["entry/instrument/detector/mask_applied"][()],
            )
    bits = sum(components(tmp_path / "m.h5").values()) > 0
    with quiet():
        edf = fabio.open(str(tmp_path / "m.edf")).data
    npy = np.load(tmp_path / "m.npy")
    assert bits.sum() > 600
    for plane in (edf, npy):
        assert plane.dtype == np.uint8
        np.testing.assert_array_equal(plane, bits)
    for intensity, applied in rows.values():
        np.testing.assert_array_equal(intensity, rows["h5"][0])
        np.testing.assert_array_equal(applied != 0, bits)
    for suffix in ("edf", "npy"):
        said = json.loads((tmp_path / f"m.{suffix}.json").read_text())
        assert said["masked_pixels"] == bits.sum()
        assert [part["name"] for part in said["components"]] == list(components(tmp_path / "m.h5"))


def test_the_nexus_file_says_what_it_is(folder, tmp_path):
    output = tmp_path / "m.h5"
    outcome = xrdpipe.mask(
        frames=folder / "scan", poni=folder / "g.poni", output=output, png=False, **EVERYTHING
    )
    with h5py.File(output) as file:
        plottable = get_default(file)
        assert plottable.is_valid
        assert plottable.signal_dataset_name == "mask"
        process = file["entry/process"]
        assert process["poni_sha256"].asstr()[()]
        assert process["frames_used"].shape == (N_FRAMES,)
        assert "nonzero = masked" in file["entry/mask/mask"].attrs["convention"]
        sources = dict(
            zip(
                file["entry/components/name"].asstr()[()],
                file["entry/components/source"].asstr()[()],
                strict=True,
            )
        )
    assert sources["overexposed"].startswith(
        "from 50000 counts in any frame (21 in any frame, 0 in"
    )
    assert "8 standard deviations" in sources["spots"]
    for name, count in outcome.details["components"].items():
        assert f"  {name}: {count} (" in outcome.summary
    assert xrdpipe.validate(file=output).summary.endswith("valid mask file.")
    with h5py.File(output, "a") as file:
        file["entry/mask/mask"][3, 4] = 1 << 20
    with pytest.raises(InvalidFileError, match="carry bits that flag_masks does not name"):
        xrdpipe.validate(file=output)


def test_reason_bits_keep_every_reason():
    one, other = np.zeros((2, 3), bool), np.zeros((2, 3), bool)
    one[0] = other[:, 1] = True
    bits = reason_bits([Component("a", "", one), Component("b", "", other)], (2, 3))
    np.testing.assert_array_equal(bits, [[1, 3, 1], [0, 2, 0]])


def test_masks_are_combined_and_counted(folder, planted, tmp_path):
    first, second = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    first[:10], second[:, :7] = 1, 200
    np.save(tmp_path / "a.npy", first)
    write_image(tmp_path / "b.edf", second[::-1])
    found = mask_of(
        folder, tmp_path, flip="ud", combine=[tmp_path / "a.npy", f"{tmp_path / 'b.edf'}@stored"]
    )
    np.testing.assert_array_equal(found["combined"], (first > 0) | (second > 0))


@pytest.mark.parametrize("stage", ["mask", "integrate"])
def test_how_much_a_mask_masks_is_told_and_an_inverted_one_asked_about(folder, tmp_path, stage):
    good = np.ones(SHAPE, np.uint8)
    good[40:44] = 0
    np.save(tmp_path / "good.npy", good)
    np.save(tmp_path / "few.npy", np.eye(*SHAPE, dtype=np.uint8))
    masks = [tmp_path / "few.npy", tmp_path / "good.npy"]
    notes: list[str] = []
    options = {"combine": masks, "png": False} if stage == "mask" else {"mask": masks}
    getattr(xrdpipe, stage)(
        frames=folder / "scan",
        poni=folder / "g.poni",
        output=tmp_path / "o.h5",
        progress=Progress(note=notes.append),
        **options,
    )
    assert f"mask {masks[0]}: 0.6% of the pixels masked" in notes
    asked = [note for note in notes if "is it inverted" in note]
    assert asked == [
        f"warning: mask {masks[1]} masks 97.3% of the pixels; is it inverted? Nonzero means masked"
    ]


def test_boolean_masks_are_read_whatever_holds_them(folder, tmp_path):
    wanted = np.eye(*SHAPE, dtype=bool)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["mask"] = wanted
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["a/mask"], file["b/mask"] = wanted, ~wanted
    np.save(tmp_path / "b.npy", wanted)
    Image.fromarray(wanted).save(tmp_path / "b.tif")
    with fabio.open(tmp_path / "b.tif") as image:
        assert image.data.dtype == bool
    for name in ("b.h5", "b.h5::/mask", "two.h5::/a/mask", "b.npy", "b.tif"):
        np.testing.assert_array_equal(
            load_masks((str(tmp_path / name),), SHAPE, "none", 0).pixels, wanted
        )
    with pytest.raises(InputError):  # which of the two?
        load_masks((str(tmp_path / "two.h5"),), SHAPE, "none", 0)
    options = {"frames": folder / "scan", "poni": folder / "g.poni"}
    xrdpipe.integrate(**options, mask=[tmp_path / "b.npy"], output=tmp_path / "p.h5")
    again = load_masks(
        (f"{tmp_path}/p.h5::/entry/instrument/detector/mask_applied",), SHAPE, "none", 0
    )
    np.testing.assert_array_equal(again.pixels, wanted)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("m.npz", "m.npz is an archive of arrays; .* save the array itself as .npy"),
        ("m.immask", "m.immask is a GSAS-II mask, which lists polygons"),
        ("cube.npy", "cube.npy is no image: 3 dimensions"),
        ("cube.h5", r"cube.h5 holds 3 images; expected one: .*dataset\[0\]"),
    ],
)
def test_what_holds_no_single_mask_is_refused(tmp_path, name, message):
    cube = np.zeros((3, *SHAPE), np.uint8)
    np.savez(tmp_path / "m.npz", cube[0])
    np.save(tmp_path / "cube.npy", cube)
    (tmp_path / "m.immask").write_text("Points:[]\n")
    with h5py.File(tmp_path / "cube.h5", "w") as file:
        file["mask"] = cube
    with pytest.raises(InputError, match=message):
        load_masks((str(tmp_path / name),), SHAPE, "none", 0)
    assert not load_masks((f"{tmp_path}/cube.h5::/mask[0]",), SHAPE, "none", 0).pixels.any()


def test_a_mask_needs_no_wavelength(folder, tmp_path):
    silent = tmp_path / "silent.poni"
    silent.write_text((folder / "g.poni").read_text().partition("Wavelength")[0])
    given = mask_of(folder, tmp_path, **EVERYTHING)
    found = mask_of(folder, tmp_path, **EVERYTHING, poni=silent)
    for name, part in given.items():
        np.testing.assert_array_equal(part, found[name])


@pytest.mark.parametrize(("bits", "sentinels"), [(16, "65535, 4294967295"), (32, "4294967295")])
def test_the_bit_depth_of_the_metadata_tells_the_sentinel(frames, tmp_path, bits, sentinels):
    with h5py.File(tmp_path / "x_master.h5", "w") as file:
        file["entry/data/data_000001"] = np.maximum(frames, 0).astype(np.uint32)
        file["entry/instrument/detector/description"] = "Eiger 500K"
        file["entry/instrument/detector/bit_depth_readout"] = bits
    xrdpipe.mask(frames=tmp_path / "x_master.h5", output=tmp_path / "m.h5", png=False)
    with h5py.File(tmp_path / "m.h5") as file:
        source = file["entry/components/source"].asstr()[0]
    assert f"({sentinels})" in source


def test_a_sentinel_that_comes_late_is_one_in_the_mask_too(frames, tmp_path):
    stack = np.maximum(frames, 0).astype(np.uint32)
    stack[1:, 5, 7] = 2**16 - 1
    with h5py.File(tmp_path / "x_master.h5", "w") as file:
        file["entry/data/data_000001"] = np.minimum(stack, 2**16 - 1)
        file["entry/instrument/detector/description"] = "Eiger 500K"
    xrdpipe.mask(frames=tmp_path / "x_master.h5", output=tmp_path / "m.h5", png=False)
    np.testing.assert_array_equal(np.argwhere(components(tmp_path / "m.h5")["sentinel"]), [[5, 7]])


def test_a_mask_without_any_component_is_not_written(folder, tmp_path):
    with pytest.raises(OptionError, match="no component of a mask was asked for"):
        mask_of(folder, tmp_path)
    assert not (tmp_path / "m.h5").exists()


@pytest.mark.parametrize(("flip", "rotate"), [("ud", 0), ("lr", 0), ("none", 90), ("both", 270)])
def test_the_mask_lies_like_the_poni(folder, frames, planted, tmp_path, flip, rotate):
    """Frames stored the other way round give the same mask, after --flip and --rotate."""
    stored = np.rot90(frames, -rotate // 90, axes=(1, 2))
    if flip in ("ud", "both"):
        stored = stored[:, ::-1]
    if flip in ("lr", "both"):
        stored = stored[:, :, ::-1]
    (tmp_path / "scan").mkdir()
    (tmp_path / "g.poni").write_text((folder / "g.poni").read_text())
    for i, image in enumerate(stored):
        write_image(tmp_path / "scan" / f"f_{i}.tif", image)
    turned = mask_of(tmp_path, tmp_path, flip=flip, rotate=rotate, **EVERYTHING)
    plain = mask_of(folder, tmp_path, **EVERYTHING)
    for name, part in plain.items():
        np.testing.assert_array_equal(part, turned[name])


def test_the_file_pixel_mask_is_a_component(folder, frames, tmp_path):
    with h5py.File(tmp_path / "x_master.h5", "w") as file:
        file["entry/data/data_000001"] = frames.astype(np.uint32)
        marked = np.zeros(SHAPE, np.uint32)
        marked[4, 5], marked[9] = 8, 1
        file["entry/instrument/detector/pixel_mask"] = marked
    output = tmp_path / "m.h5"
    xrdpipe.mask(frames=tmp_path / "x_master.h5", output=output, flip="ud", png=False)
    np.testing.assert_array_equal(components(output)["pixel_mask"], marked[::-1] > 0)
    with h5py.File(output) as file:
        sources = " ".join(file["entry/components/source"].asstr()[()])
    assert "170 gap, 1 over-responding" in sources


def test_gaps_are_no_dead_pixels_nor_shadows_even_if_left_out_of_the_mask(folder, frames, tmp_path):
    """An integrating detector has no sentinel: its gaps read zero."""
    with h5py.File(tmp_path / "x_master.h5", "w") as file:
        file["entry/data/data_000001"] = np.maximum(frames, 0).astype(np.uint16)
        marked = np.zeros(SHAPE, np.uint32)
        marked[GAP] = 1
        file["entry/instrument/detector/pixel_mask"] = marked
    options = {"frames": tmp_path / "x_master.h5", "dead": True, "shadow": 0.5, "azimuthal": 6}
    found = mask_of(folder, tmp_path, detector=False, **options)
    assert set(found) == {"dead", "shadow", "azimuthal"}
    assert not np.logical_or.reduce(list(found.values()))[GAP].any()


def test_a_picture_is_drawn_unless_it_is_not_wanted(folder, tmp_path):
    options = {"frames": folder / "scan", "hot": 6, "dead": True}
    xrdpipe.mask(**options, output=tmp_path / "m.edf")
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")
    xrdpipe.mask(**options, output=tmp_path / "n.edf", png=False)
    assert not (tmp_path / "n.png").exists()


# --- frames that cannot be used ---------------------------------------------------------------


def test_bad_frames_are_skipped_and_reported(folder, planted, frames, tmp_path):
    (tmp_path / "scan").mkdir()
    for i, image in enumerate(frames):
        write_image(tmp_path / "scan" / f"f_{i}.tif", image)
    whole = (tmp_path / "scan" / "f_3.tif").read_bytes()
    (tmp_path / "scan" / "f_3.tif").write_bytes(whole[: len(whole) // 3])
    write_image(tmp_path / "scan" / "f_4.tif", np.where(frames[4] < 0, -1, 0).astype(np.int32))
    outcome = xrdpipe.mask(
        frames=tmp_path / "scan", output=tmp_path / "m.h5", hot=6, dead=True, png=False
    )
    assert outcome.lost == 2
    assert "from 6 of 8 frames" in outcome.summary
    assert "f_3.tif" in outcome.summary
    assert "f_4.tif frame 4: every valid pixel is zero" in outcome.summary
    np.testing.assert_array_equal(components(tmp_path / "m.h5")["hot"], planted["hot"])
    with h5py.File(tmp_path / "m.h5") as file:
        assert file["entry/process/frames_skipped"].shape == (2,)


def test_the_sample_is_spread_over_the_series(folder, tmp_path):
    outcome = xrdpipe.mask(
        frames=folder / "scan", output=tmp_path / "m.npy", sample=4, png=False, hot=6
    )
    used = json.loads((tmp_path / "m.npy.json").read_text())["frames_used"]
    assert [name.split()[-1] for name in used] == ["2", "4", "6", "8"]
    assert outcome.details["frames"] == 4


# --- decision 2: unmasked means unmasked ------------------------------------------------------


def test_unmasked_keeps_everything_but_dead_pixels(folder, frames, geometry, tmp_path):
    """Hot, saturated, shadowed and masked pixels count in it, with or without a mask."""
    xrdpipe.mask(
        frames=folder / "scan", poni=folder / "g.poni", output=tmp_path / "m.h5", png=False,
        **EVERYTHING,
    )  # fmt: skip
    options = {"frames": folder / "scan", "poni": folder / "g.poni", "saturation": SATURATION}
    options |= {"splitting": "no", "solid_angle": False, "polarization_factor": None}
    rows = {}
    for name, more in (
        ("with", {"variant": "both", "mask": [str(tmp_path / "m.h5")]}),
        ("without", {"variant": "unmasked"}),
    ):
        xrdpipe.integrate(output=tmp_path / f"{name}.h5", **options, **more)
        with h5py.File(tmp_path / f"{name}.h5") as file:
            entry = file["entry"]
            unmasked = entry.get("azint1d_unmasked", entry)
            rows[name] = unmasked["data/I"][()]
            masked = entry["data/I"][()]
        if name == "with":
            rows["masked"] = masked
    np.testing.assert_array_equal(rows["with"], rows["without"])
    binning = choose_binning(geometry, "2theta", None, None)
    bins = bin_of_pixel(geometry, binning)
    for image, row in zip(frames, rows["without"], strict=True):
        good = (image.ravel() >= 0) & (bins >= 0)  # dead pixels only are left out
        pixels = np.bincount(bins[good], minlength=binning.count)
        total = np.bincount(bins[good], image.ravel()[good], minlength=binning.count)
        mean = np.divide(total, pixels, out=np.full(binning.count, np.nan), where=pixels > 0)
        np.testing.assert_allclose(row, mean, rtol=1e-5)
    assert np.nanmax(rows["without"]) > 20 * np.nanmax(rows["masked"])


# --- options ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "more"),
    [
        ("flip", "lr", {}),
        ("rotate", 180, {}),
        ("combine", ["m.npy"], {}),
        ("detector", False, {"dead": True}),
        ("sentinel", "none", {}),
        ("overexposed", False, {"saturation": SATURATION}),
        ("saturation", SATURATION, {}),
        ("threshold", (3, 200), {}),
        ("hot", 6, {}),
        ("dead", True, {}),
        ("polygon", ["1,1 9,1 9,9"], {}),
        ("shadow", 0.5, {"poni": "g.poni"}),
        ("spots", 8, {"poni": "g.poni"}),
        ("persistent", 0.5, {"poni": "g.poni", "spots": 8}),
        ("halo", 1, {"saturation": SATURATION}),
        ("azimuthal", 6, {"poni": "g.poni"}),
        ("gain", 100, {"hot": 6}),
        ("read_noise", 400, {"hot": 6}),
        ("sample", 1, {"saturation": SATURATION}),
    ],
)
def test_every_option_changes_the_mask(folder, tmp_path, monkeypatch, name, value, more):
    monkeypatch.chdir(folder)
    np.save(folder / "m.npy", np.eye(*SHAPE, dtype=np.uint8))
    base = {"frames": "scan", "png": False, **more}
    masks = []
    for number, options in enumerate((base, {**base, name: value})):
        output = tmp_path / f"{number}.npy"
        xrdpipe.mask(**options, output=output)
        masks.append(np.load(output))
    assert not np.array_equal(*masks)


def test_every_option_is_tested_above():
    given = {mark.args[1][i][0] for mark in test_every_option_changes_the_mask.pytestmark
             for i in range(len(mark.args[1]))}  # fmt: skip
    rest = {"frames", "output", "poni", "png", "restart"}
    assert given | rest == {definition.name for definition in fields(MaskConfig)}


def test_the_command_line_and_the_library_agree(folder, tmp_path, capsys):
    arguments = ["mask", folder / "scan", "--poni", folder / "g.poni", "--hot", 6, "--dead"]
    arguments += ["--shadow", 0.5, "--spots", 8, "--azimuthal", 6, "--persistent", 0.5]
    arguments += ["--saturation", SATURATION, "--no-png"]
    assert run_cli([*arguments, "-o", tmp_path / "cli.npy"]) == 0
    assert "  hot: 12 (" in capsys.readouterr().out
    xrdpipe.mask(
        frames=folder / "scan", poni=folder / "g.poni", output=tmp_path / "lib.npy", png=False,
        **EVERYTHING,
    )  # fmt: skip
    np.testing.assert_array_equal(np.load(tmp_path / "cli.npy"), np.load(tmp_path / "lib.npy"))


@pytest.mark.parametrize("suffix", ["h5", "npy"])
def test_an_existing_mask_is_kept_unless_restart(folder, tmp_path, suffix):
    options = {"frames": folder / "scan", "output": tmp_path / f"m.{suffix}", "png": False}
    xrdpipe.mask(**options, hot=6)
    before = options["output"].read_bytes()
    assert "already done" in xrdpipe.mask(**options, hot=6).summary
    with pytest.raises(OutputExistsError, match=r"options\.hot is 6\.0 there, 7\.0 here"):
        xrdpipe.mask(**options, hot=7)
    assert options["output"].read_bytes() == before
    assert "already" not in xrdpipe.mask(**options, hot=7, restart=True).summary
    options["output"].write_bytes(b"something else")
    (tmp_path / f"m.{suffix}.json").unlink(missing_ok=True)
    with pytest.raises(OutputExistsError, match="was not made by this command"):
        xrdpipe.mask(**options, hot=7, restart=True)
    assert options["output"].read_bytes() == b"something else"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"spots": 5}, OptionError, "--spots compares pixels along their rings: give --poni"),
        ({"azimuthal": 5}, OptionError, "--azimuthal compares"),
        ({"shadow": 0.5}, OptionError, "--shadow compares"),
        ({"output": "m.tif"}, OptionError, "a mask is written as .h5, .edf, .npy; '.tif' is none"),
        ({"threshold": (5, 5)}, OptionError, "--threshold 5 5 is empty"),
        ({"polygon": ["1,1 2,2"]}, OptionError, "has 2 corners; it needs three"),
        ({"polygon": ["1;1 2;2 3;3"]}, OptionError, "cannot be read; expected 'column,row"),
        ({"polygon": ["900,900 950,900 900,950"]}, InputError, "covers no pixel of"),
        ({"polygon": ["-9,-9 900,-9 900,900 -9,900"]}, InputError, "would leave no pixel"),
        ({"combine": ["nothing.edf"]}, FileNotFoundError, "mask nothing.edf does not exist"),
        ({"poni": "nothing.poni"}, FileNotFoundError, "PONI file nothing.poni does not exist"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    folder, tmp_path, monkeypatch, options, error, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as caught:
        xrdpipe.mask(**{"frames": folder / "scan", "output": "m.h5", **options})
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_command_line_says_what_is_wrong(folder, tmp_path, capsys):
    assert run_cli(["mask", folder / "scan", "--spots", 5, "-o", tmp_path / "m.h5"]) == 2
    assert "give --poni" in capsys.readouterr().err


def test_frames_none_of_which_can_be_used(tmp_path):
    write_image(tmp_path / "f_1.tif", np.zeros(SHAPE, np.int32))
    with pytest.raises(InputError, match=r"none of the frames .* every valid pixel is zero"):
        xrdpipe.mask(frames=tmp_path / "f_1.tif", output=tmp_path / "m.h5", hot=5)
    assert not (tmp_path / "m.h5").exists()


# --- real frames ------------------------------------------------------------------------------


def real(name: str):
    if not (DATA / name).is_dir():
        pytest.skip(f"real frames are not here: {DATA / name}")
    return DATA / name


def test_hot_pixels_of_a_real_frame(tmp_path):
    """The two that pretend to be lines at 5.64° and 8.71°."""
    data = real("hexrd_ceria_pilatus2m")
    frame = data / "ceria_50x30_740mm_000005_Pilatus2M.hdf5"
    xrdpipe.mask(frames=frame, output=tmp_path / "m.h5", hot=5, png=False)
    with h5py.File(frame, locking=False) as file:
        image = file["imageseries/images"][0]
    hot = components(tmp_path / "m.h5")["hot"]
    assert hot[image > 1e6].all()
    assert hot.mean() < 5e-4


def test_the_shadows_of_a_press_are_those_that_were_drawn_by_hand(tmp_path):
    data = real("cpf_bcc_iron")
    xrdpipe.mask(
        frames=data / "BCC1_2GPa_10s_001_00001.tif", poni=data / "CeO2_cal_Dioptas.poni",
        flip="ud", hot=5, shadow=0.5, spots=10, output=tmp_path / "m.h5", png=False,
    )  # fmt: skip
    found = components(tmp_path / "m.h5")
    with quiet():
        drawn = fabio.open(str(data / "DiffractionMask_Dioptas.mask")).data > 0
    outside = ~found["sentinel"]
    assert (found["shadow"] & drawn)[outside].sum() > 0.85 * drawn[outside].sum()
    assert (found["shadow"] & drawn).sum() > 0.88 * found["shadow"].sum()
