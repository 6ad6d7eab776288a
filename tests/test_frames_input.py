"""Whatever the user points at becomes one ordered series; dead pixels and monitors are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fabio.edfimage
import h5py
import numpy as np
import pytest

import xrdpipe
from known_frames import SHAPE, geometry_of, rings, write_image, write_poni
from xrdpipe.errors import FrameError, InputError, InputMissingError
from xrdpipe.frames import open_frames
from xrdpipe.frames.auxiliary import load_masks
from xrdpipe.frames.dead import oriented, pixel_kind
from xrdpipe.frames.names import frame_numbers
from xrdpipe.masks import shipped_masks, without_measurement
from xrdpipe.schema import FrameFlag, FrameStatus

SMALL = (20, 24)


def plane(value: int, dtype: Any = np.int32) -> np.ndarray:
    """A frame that tells its own number in every pixel."""
    return np.full(SMALL, value, dtype)


def values(source) -> list[int]:
    return [int(source.read(row).image[3, 4]) for row in range(len(source.records))]


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "scan_7"
    folder.mkdir()
    for number in (1, 2, 9, 10, 11, 100):
        write_image(folder / f"a{number}.tif", plane(number))
    (folder / "notes.txt").write_text("beam time 12")
    (folder / "calibration.poni").write_text("")
    (folder / ".hidden.tif").write_bytes(b"")
    return folder


@pytest.fixture
def stack(tmp_path) -> Path:
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["entry/measurement/detector"] = np.stack([plane(v) for v in (5, 6, 7)])
        file["entry/measurement/I0"] = np.array([10.0, 20.0, 30.0])
        file["entry/instrument/pixel_mask"] = plane(0, np.uint8)
    return path


# --- which frames, in which order -------------------------------------------------------------


@pytest.mark.parametrize("way", ["folder", "glob", "list", "overlapping globs"])
def test_images_come_in_natural_order_with_their_numbers(images, way):
    paths = {
        "folder": images,
        "glob": str(images / "a*.tif"),
        "list": [images / f"a{n}.tif" for n in (100, 2, 9, 11, 1, 10)],
        "overlapping globs": [str(images / "a1*.tif"), str(images / "*.tif")],
    }[way]
    source = open_frames(paths)
    assert values(source) == [1, 2, 9, 10, 11, 100]
    assert [record.index for record in source.records] == [1, 2, 9, 10, 11, 100]
    assert source.numbered
    assert source.shape == SMALL
    assert source.dtype == np.int32


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["a_1.tif", "a_2.tif", "a_4.tif"], [1, 2, 4]),
        (["s3_0010.cbf", "s3_0011.cbf"], [10, 11]),
        (["2026-01-05_0003.tif"], [3]),
        (["lab6_300.mar3450"], [300]),
        (["x_0007.cbf.bz2"], [7]),
        (["frame.0001", "frame.0002"], [1, 2]),
        (["a_1_5.tif", "a_2_6.tif"], None),  # two groups vary
        (["a_1.tif", "b_1.tif"], None),  # the number does not
        (["a_1.tif", "a_01.tif"], None),  # twice the same number
        (["ring.tif"], None),
    ],
)
def test_numbers_come_from_the_one_varying_group(names, numbers):
    found, numbered = frame_numbers([Path(name) for name in names])
    assert numbered == (numbers is not None)
    assert found == (numbers or list(range(len(names))))


def test_a_link_to_a_frame_that_is_gone_keeps_its_place(images):
    (images / "a5.tif").symlink_to(images / "deleted.tif")
    for paths in (images, str(images / "*.tif"), sorted(images.glob("a*.tif"))):
        source = open_frames(paths)
        assert [record.index for record in source.records] == [1, 2, 5, 9, 10, 11, 100]
        with pytest.raises(FrameError) as caught:
            source.read(2)
        assert caught.value.status == FrameStatus.MISSING


def test_one_stray_first_image_does_not_set_the_shape(images):
    write_image(images / "a0.tif", np.zeros((10, 10), np.int32))
    source = open_frames(images)
    assert source.shape == SMALL
    with pytest.raises(FrameError, match="10 x 10 pixels, the series has 20 x 24") as caught:
        source.read(0)
    assert caught.value.status == FrameStatus.WRONG_SHAPE


def test_another_dtype_is_another_detector(images):
    write_image(images / "a12.tif", plane(12, np.uint16))
    source = open_frames(images)
    with pytest.raises(FrameError, match="uint16") as caught:
        source.read(5)
    assert caught.value.status == FrameStatus.WRONG_SHAPE


def test_a_folder_of_two_kinds_is_refused(images):
    write_image(images / "dark.edf", plane(0))
    with pytest.raises(InputError, match=r"several kinds of files.*6 × \.tif.*\*\.tif"):
        open_frames(images)


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        ("nothing_here", InputMissingError, "does not exist"),
        ("nothing*.tif", InputMissingError, "no frames found"),
        ("empty", InputMissingError, "no frames found"),
    ],
)
def test_nothing_there_is_said(tmp_path, path, kind, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(kind, match=message):
        open_frames(str(tmp_path / path))


def test_multi_frame_edf_counts_its_frames(tmp_path):
    image = fabio.edfimage.EdfImage(data=plane(1), header={"I0": "3"})
    for value in (2, 3):
        image.append_frame(data=plane(value), header={"I0": "4"})
    image.write(str(tmp_path / "multi.edf"))
    source = open_frames(tmp_path / "multi.edf")
    assert values(source) == [1, 2, 3]
    assert not source.numbered
    assert source.read(1).header["I0"] == "4"


# --- HDF5 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", "::/entry/measurement/detector"])
def test_a_stack_is_found_or_named(stack, suffix):
    source = open_frames(f"{stack}{suffix}")
    assert values(source) == [5, 6, 7]
    assert not source.numbered
    assert [record.index for record in source.records] == [0, 1, 2]


def test_axes_before_the_last_two_are_flattened(tmp_path):
    data = np.arange(6, dtype=np.uint16).reshape(2, 3, 1, 1) * np.ones(SMALL, np.uint16)
    with h5py.File(tmp_path / "grid.nxs", "w") as file:
        file["data"] = data
    assert values(open_frames(tmp_path / "grid.nxs")) == [0, 1, 2, 3, 4, 5]


def test_two_stacks_are_listed(stack):
    with h5py.File(stack, "a") as file:
        file["entry/other/detector"] = np.zeros((4, *SMALL), np.uint16)
    with pytest.raises(InputError) as caught:
        open_frames(stack)
    for part in ("2 stacks", "/entry/measurement/detector (3, 20, 24)", "/entry/other/detector"):
        assert part in str(caught.value)


def test_a_hard_link_is_not_a_second_stack(stack):
    with h5py.File(stack, "a") as file:
        file["entry/data"] = file["entry/measurement/detector"]
    assert len(open_frames(stack).records) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"I0": np.zeros(5)}, "holds no stack of frames"),
        ({"a": plane(1), "b": plane(2)}, r"2 images \(/a \(20, 24\), /b"),
    ],
)
def test_no_stack_is_said(tmp_path, content, message):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, value in content.items():
            file[name] = value
    with pytest.raises(InputError, match=message):
        open_frames(tmp_path / "x.h5")


def test_a_single_image_in_a_file_is_one_frame(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["image"] = plane(8)
    assert values(open_frames(tmp_path / "x.h5")) == [8]


def test_named_datasets_that_are_no_frames_are_refused(stack):
    with pytest.raises(InputMissingError, match="no dataset /entry/nothing"):
        open_frames(f"{stack}::/entry/nothing")
    with pytest.raises(InputError, match="no stack of frames: 1 dimensions"):
        open_frames(f"{stack}::/entry/measurement/I0")


def eiger(folder: Path, files: dict[int, int], linked: int, numbered: bool, **detector) -> Path:
    """A master file linking ``linked`` data files, of which ``files`` (number → frames) exist."""
    folder.mkdir(exist_ok=True)
    start = 1
    for number in range(1, linked + 1):
        count = files.get(number, 3)
        if number in files:
            with h5py.File(folder / f"x_data_{number:06d}.h5", "w") as file:
                frames = [plane(start + i, np.uint16) for i in range(count)]
                data = file.create_dataset("entry/data/data", data=np.stack(frames))
                if numbered:
                    data.attrs["image_nr_low"] = start
                    data.attrs["image_nr_high"] = start + count - 1
        start += count
    master = folder / "x_master.h5"
    with h5py.File(master, "w") as file:
        for number in range(1, linked + 1):
            file[f"entry/data/data_{number:06d}"] = h5py.ExternalLink(
                f"x_data_{number:06d}.h5", "/entry/data/data"
            )
        for name, value in detector.items():
            file[f"entry/instrument/detector/{name}"] = value
    return master


@pytest.mark.parametrize("numbered", [True, False])
@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_dangling_eiger_link_shifts_nothing(tmp_path, missing, numbered):
    files = {number: 3 for number in (1, 2, 3) if number != missing}
    source = open_frames(eiger(tmp_path / "e", files, 3, numbered))
    assert [record.index for record in source.records] == list(range(1, 10))
    assert source.numbered
    for row in range(9):
        if row // 3 + 1 == missing:
            with pytest.raises(FrameError) as caught:
                source.read(row)
            assert caught.value.status == FrameStatus.MISSING
        else:
            assert source.read(row).image[0, 0] == row + 1


def test_an_eiger_folder_is_its_master(tmp_path):
    eiger(tmp_path / "e", {1: 3, 2: 2}, 2, True)
    assert values(open_frames(tmp_path / "e")) == [1, 2, 3, 4, 5]


def test_a_data_file_that_was_never_linked_is_missed_too(tmp_path):
    master = eiger(tmp_path / "e", {1: 3, 2: 3, 3: 1}, 3, False)
    with h5py.File(master, "a") as file:
        del file["entry/data/data_000002"]
    source = open_frames(master)
    assert [record.index for record in source.records] == list(range(1, 8))
    assert source.read(6).image[0, 0] == 7
    with pytest.raises(FrameError):
        source.read(4)


def test_detector_metadata_of_a_master(tmp_path):
    mask = np.zeros(SMALL, np.uint32)
    mask[2, 3] = 1
    master = eiger(
        tmp_path / "e",
        {1: 2},
        1,
        True,
        description="Dectris EIGER2 Si 1M",
        pixel_mask=mask,
        saturation_value=40000,
    )
    detector = open_frames(master).detector
    assert detector.description == "Dectris EIGER2 Si 1M"
    assert detector.saturation_value == 40000
    np.testing.assert_array_equal(np.argwhere(detector.pixel_mask), [[2, 3]])


# --- dead pixels ------------------------------------------------------------------------------

TOP16, TOP32 = 2**16 - 1, 2**32 - 1


@pytest.mark.parametrize(
    ("dtype", "seen", "detector", "sentinels"),
    [
        (np.uint16, (TOP16,), "Eiger 4M", (TOP16,)),
        (np.uint32, (TOP32,), "Eiger 4M", (TOP32,)),
        (np.uint32, (TOP32,), "Detector", (TOP32,)),  # the value itself tells
        (np.uint16, (TOP16,), "Pixium", ()),  # saturation of a flat panel
        (np.uint16, (TOP16,), "Detector", ()),
        (np.int32, (-1, -2), "Pilatus 2M", (-1, -2)),
        (np.int32, (-1,), "Detector", (-1, -2)),  # only −1 and −2 below zero
        (np.int32, (-1, -7), "Detector", ()),  # noise around zero
        (np.int32, (), "Detector", ()),
        (np.float32, (-1,), "Detector", (-1, -2)),
        (np.float32, (-0.5, -3.25), "Detector", ()),
        (np.float32, (-0.5,), "Perkin", ()),
    ],
)
def test_sentinels_follow_detector_dtype_and_values(dtype, seen, detector, sentinels):
    image = np.full(SMALL, 10, dtype)
    image.ravel()[: len(seen)] = seen
    kind = pixel_kind(image, detector)
    assert kind.sentinels == sentinels
    dead = without_measurement(image, kind.sentinels)
    assert dead.sum() == (len(seen) if sentinels else 0)
    if dtype == np.uint16 and not sentinels:
        assert kind.saturation == TOP16
        assert kind.suspect == (detector == "Detector")


def test_metadata_names_the_detector_where_the_poni_does_not():
    image = np.full(SMALL, 3, np.uint16)
    assert pixel_kind(image, "Detector", "Dectris EIGER2").counting
    assert not pixel_kind(image, "Detector", None).counting
    assert pixel_kind(image, "Pilatus 1M", "my ccd").counting  # the PONI's class comes first


def test_no_number_is_no_measurement():
    image = np.ones(SMALL, np.float32)
    image[0, :3] = np.nan, np.inf, -np.inf
    assert without_measurement(image, ()).sum() == 3


@pytest.mark.parametrize(
    ("override", "expected"), [((7.0,), (7.0,)), ("none", ()), ((-1.0, 7.0), (-1.0, 7.0))]
)
def test_the_sentinel_option_wins(override, expected):
    image = np.full(SMALL, TOP16, np.uint16)
    image[0, 0] = 7
    kind = pixel_kind(image, "Eiger", override=override)
    assert kind.sentinels == expected
    # −1 does not exist in uint16: it must not wrap around to 65535.
    assert without_measurement(image, kind.sentinels).sum() == (7.0 in expected)


def test_negatives_of_an_integrating_detector_are_data(tmp_path, geometry):
    """Dark-subtracted: their mean is zero, and stays so."""
    rng = np.random.default_rng(4)
    image = rng.normal(0, 5, SHAPE).astype(np.float32)
    folder = tmp_path / "ccd"
    folder.mkdir()
    write_image(folder / "a_1.edf", image)
    poni = write_poni(tmp_path / "g.poni", rotations=(0.02, -0.01))
    xrdpipe.integrate(
        frames=[folder], poni=poni, bins=30, output=tmp_path / "p.h5", variant="both", reject="none"
    )
    with h5py.File(tmp_path / "p.h5") as file:
        assert file["entry/frames/n_sentinel"][0] == 0
        mean = np.average(file["entry/data/I"][0], weights=file["entry/data/norm"][()])
        assert "I_errors" not in file["entry/data"]  # no gain is known
    assert mean == pytest.approx(0, abs=4 * 5 / np.sqrt(image.size))


# --- masks, orientation, corrections ----------------------------------------------------------


def write_mask(path: Path, mask: np.ndarray) -> str:
    if path.suffix == ".npy":
        np.save(path, mask)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["mask"] = mask.astype(np.uint8)
    else:
        write_image(path.with_suffix(".tif"), mask.astype(np.uint8))
        if path.suffix == ".mask":
            path.with_suffix(".tif").rename(path)  # what Dioptas writes
        elif path.suffix == ".edf":
            write_image(path, mask.astype(np.int8))
    return str(path)


@pytest.mark.parametrize(
    "name", ["m.edf", "m.tif", "m.npy", "m.h5", "m.mask", "user@lab.npy", "m.h5::/mask"]
)
def test_mask_formats(tmp_path, name):
    mask = np.random.default_rng(5).random(SMALL) < 0.3
    file, _, dataset = name.partition("::")
    reference = write_mask(tmp_path / file, mask) + (f"::{dataset}" if dataset else "")
    loaded = load_masks((reference,), SMALL, "ud", 0)
    np.testing.assert_array_equal(loaded.pixels, mask)
    assert loaded.sources[0][1] == mask.sum()
    stored = load_masks((f"{reference}@stored",), SMALL, "ud", 0)
    np.testing.assert_array_equal(stored.pixels, mask[::-1])


def test_masks_add_up_and_nonzero_means_masked(tmp_path):
    first, second = np.zeros(SMALL, np.int32), np.zeros(SMALL, np.float32)
    first[0, 0], first[0, 1] = -1, 200
    second[0, 1], second[1, 1] = 0.5, np.nan
    np.save(tmp_path / "a.npy", first)
    np.save(tmp_path / "b.npy", second)
    union = load_masks((str(tmp_path / "a.npy"), str(tmp_path / "b.npy")), SMALL, "none", 0)
    np.testing.assert_array_equal(np.argwhere(union.pixels), [[0, 0], [0, 1], [1, 1]])
    assert [source[1] for source in union.sources] == [2, 2]


def test_shipped_masks_are_known_by_name():
    names = shipped_masks()
    assert "demo-beamstop" in names
    mask = load_masks(("demo-beamstop",), (619, 487), "none", 0)
    assert 0 < mask.fraction < 0.5


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
@pytest.mark.parametrize("flip", ["none", "ud", "lr", "both"])
def test_orientation_flips_first_and_turns_counter_clockwise(flip, rotate):
    image = np.arange(6).reshape(2, 3)
    expected = {
        "none": [[0, 1, 2], [3, 4, 5]],
        "ud": [[3, 4, 5], [0, 1, 2]],
        "lr": [[2, 1, 0], [5, 4, 3]],
        "both": [[5, 4, 3], [2, 1, 0]],
    }[flip]
    expected = [list(row) for row in expected]
    for _ in range(rotate // 90):  # the last column becomes the first row
        expected = [list(column) for column in zip(*expected, strict=True)][::-1]
    np.testing.assert_array_equal(oriented(image, flip, rotate), expected)


@pytest.mark.parametrize(("flip", "rotate"), [("ud", 0), ("lr", 90), ("none", 270)])
def test_everything_stored_is_turned_together(tmp_path, flip, rotate):
    """Frame, the file's pixel mask, dark and flat turn; the mask lies like the PONI."""
    geometry = geometry_of(tmp_path)
    shown = rings(geometry.two_theta, height=1e4, background=500)
    dark, flat = np.zeros(SHAPE), np.ones(SHAPE)
    dark[30:40], flat[:, 20:30] = 700, 2.0
    seen = np.round(shown * flat + dark).astype(np.uint32)
    dead, mask = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    dead[60:80, 100:110], mask[90:100, 20:50] = True, True
    seen[dead] = 400_000
    seen[mask] = 900_000

    def stored(plane: np.ndarray) -> np.ndarray:
        turned = np.rot90(plane, -(rotate // 90))
        return {"ud": turned[::-1], "lr": turned[:, ::-1], "none": turned}[flip]

    with h5py.File(tmp_path / "x_master.h5", "w") as file:
        file["entry/data/data_000001"] = stored(seen)[None]
        file["entry/instrument/detector/pixel_mask"] = stored(dead).astype(np.uint32)
        file["entry/instrument/detector/description"] = "Eiger"
    np.save(tmp_path / "dark.npy", stored(dark))
    np.save(tmp_path / "flat.npy", stored(flat))
    np.save(tmp_path / "mask.npy", mask)
    xrdpipe.integrate(
        frames=[tmp_path / "x_master.h5"],
        poni=tmp_path / "geometry.poni",
        flip=flip,
        rotate=rotate,
        dark=str(tmp_path / "dark.npy"),
        flat=str(tmp_path / "flat.npy"),
        mask=[str(tmp_path / "mask.npy")],
        output=tmp_path / "p.h5",
        variant="both",
        reject="none",
        solid_angle=False,
        polarization_factor=None,
        splitting="no",
        bins=150,
    )
    with h5py.File(tmp_path / "p.h5") as file:
        axis = file["entry/data/radial_axis"][()]
        masked, unmasked = (file[f"entry/azint1d_{v}/data/I"][0] for v in ("masked", "unmasked"))
        np.testing.assert_array_equal(
            file["entry/instrument/detector/mask_applied"][()], dead | mask
        )
        assert file["entry/reduction/input/rotate"][()] == rotate
    good = ~dead & ~mask
    step = axis[1] - axis[0]
    edges = np.append(axis - step / 2, axis[-1] + step / 2)
    pixels, _ = np.histogram(geometry.two_theta[good], edges, weights=flat[good])
    total, _ = np.histogram(geometry.two_theta[good], edges, weights=(shown * flat)[good])
    known = total / np.maximum(pixels, 1)
    inner = pixels > 40
    assert inner.sum() > 100
    np.testing.assert_allclose(masked[inner], known[inner], rtol=1e-3)
    assert np.nanmax(unmasked) > 20_000


@pytest.mark.parametrize("what", ["dark", "flat"])
def test_no_number_in_dark_or_flat_kills_the_pixel_not_the_ring(tmp_path, geometry, frame, what):
    plane = np.ones(SHAPE, np.float32)
    plane[10, 20] = np.nan
    np.save(tmp_path / "plane.npy", plane)
    write_image(tmp_path / "f_1.tif", frame)
    poni = write_poni(tmp_path / "g.poni", rotations=(0.02, -0.01))
    options = {what: str(tmp_path / "plane.npy"), "bins": 100, "variant": "unmasked"}
    xrdpipe.integrate(frames=[tmp_path / "f_1.tif"], poni=poni, output=tmp_path / "p.h5", **options)
    with h5py.File(tmp_path / "p.h5") as file:
        assert np.isfinite(file["entry/data/I"][0]).all()
        assert file["entry/frames/n_valid_pixels"][0] == SHAPE[0] * SHAPE[1] - 1


# --- monitor ----------------------------------------------------------------------------------


def monitored(tmp_path, scan, **options):
    poni = write_poni(tmp_path / "m.poni", rotations=(0.02, -0.01))
    xrdpipe.integrate(
        frames=[scan], poni=poni, bins=80, output=tmp_path / "m.h5", restart=True, **options
    )
    with h5py.File(tmp_path / "m.h5") as file:
        entry = file["entry"]
        return {
            "I": entry["data/I"][()],
            "status": entry["frames/status"][()].tolist(),
            "flags": entry["frames/flags"][()].tolist(),
            "reason": [r.decode() for r in entry["frames/reason"][()]],
            "monitor": entry["monitor/data"][()] if "monitor" in entry else None,
            "error": entry["monitor/relative_error"][()] if "monitor" in entry else None,
        }


COUNTS = (2000.0, 1000.0, 3000.0, 10.0, 0.0, 2500.0)


@pytest.mark.parametrize("origin", ["header", "csv", "table by number", "h5"])
def test_monitors_divide_and_zero_is_never_one(tmp_path, geometry, origin):
    folder = tmp_path / "scan"
    folder.mkdir()
    image = np.random.default_rng(6).poisson(rings(geometry.two_theta)).astype(np.int32)
    for number, counts in enumerate(COUNTS, 1):
        write_image(folder / f"f_{number}.edf", image + number, {"Monitor": f"{counts} cts"})
    (tmp_path / "i0.csv").write_text(
        "frame, I0\n" + "\n".join(f"{n}, {c}" for n, c in enumerate(COUNTS, 1))
    )
    (tmp_path / "i0.dat").write_text(
        "# Epoch Seconds IC1\n" + "\n".join(f"{n} 1 {c}" for n, c in enumerate(COUNTS, 1))
    )
    with h5py.File(tmp_path / "i0.h5", "w") as file:
        file["counters/ic1"] = np.array(COUNTS)
    reference = {
        "header": "Monitor",
        "csv": f"{tmp_path / 'i0.csv'}::I0",
        "table by number": f"{tmp_path / 'i0.dat'}::2",
        "h5": f"{tmp_path / 'i0.h5'}::/counters/ic1",
    }[origin]
    plain = monitored(tmp_path, folder)
    result = monitored(tmp_path, folder, monitor=reference)
    np.testing.assert_array_equal(result["monitor"], COUNTS)
    np.testing.assert_allclose(result["error"][[0, 3]], [2000**-0.5, 10**-0.5])
    assert np.isnan(result["error"][4])
    ok, skipped = FrameStatus.OK, FrameStatus.SKIPPED
    assert result["status"] == [ok, ok, ok, ok, skipped, ok]
    low = int(FrameFlag.LOW_MONITOR)
    assert result["flags"] == [0, 0, 0, low, low, 0]
    assert "monitor" in result["reason"][4]
    assert np.isnan(result["I"][4]).all()
    median = np.median([c for c in COUNTS if c > 0])
    for row in (0, 1, 2, 5):
        expected = plain["I"][row] * median / COUNTS[row]
        np.testing.assert_allclose(result["I"][row], expected, rtol=1e-5)
    scaled = monitored(tmp_path, folder, monitor=reference, monitor_reference=2 * median)
    np.testing.assert_allclose(scaled["I"][0], 2 * result["I"][0], rtol=1e-6)


def test_a_monitor_in_the_frames_own_file(tmp_path, geometry):
    image = np.random.default_rng(7).poisson(rings(geometry.two_theta)).astype(np.int32)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["1.1/measurement/eiger"] = np.stack([image, 2 * image])
        file["1.1/measurement/mon"] = np.array([1.0, 2.0])
    result = monitored(
        tmp_path, tmp_path / "scan.h5", monitor="/1.1/measurement/mon", reject="none"
    )
    np.testing.assert_allclose(result["I"][0], result["I"][1], rtol=1e-5)


def test_an_unreadable_frame_stays_lost_with_a_header_monitor(tmp_path, geometry):
    folder = tmp_path / "scan"
    folder.mkdir()
    image = np.random.default_rng(8).poisson(rings(geometry.two_theta)).astype(np.int32)
    for number in (1, 2, 3):
        write_image(folder / f"f_{number}.edf", image, {"Monitor": "5"})
    (folder / "f_2.edf").write_bytes((folder / "f_2.edf").read_bytes()[:9000])
    result = monitored(tmp_path, folder, monitor="Monitor")
    assert result["status"] == [FrameStatus.OK, FrameStatus.CORRUPT, FrameStatus.OK]


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("Monitr", r"'Monitr' is not in the metadata.*Did you mean 'Monitor'"),
        ("absent.csv::I0", "does not exist"),
        ("short.csv::I0", "2 values for 3 frames"),
        ("short.csv::I1", "no column 'I1'"),
        ("text.csv::I0", "not numeric"),
        ("zeros.csv::I0", "no positive value"),
    ],
)
def test_a_monitor_that_cannot_be_used_is_an_error(tmp_path, monkeypatch, reference, message):
    monkeypatch.chdir(tmp_path)
    Path("scan").mkdir()
    for number in (1, 2, 3):
        write_image(Path("scan") / f"f_{number}.edf", np.ones(SHAPE, np.int32), {"Monitor": "5"})
    Path("short.csv").write_text("I0\n1\n2\n")
    Path("text.csv").write_text("I0\n1\nx\n2\n")
    Path("zeros.csv").write_text("I0\n0\n0\n0\n")
    with pytest.raises((InputError, InputMissingError), match=message):
        monitored(tmp_path, tmp_path / "scan", monitor=reference)
    assert not Path("m.h5").exists()
    assert not Path("m.h5.part").exists()
