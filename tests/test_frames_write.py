"""Detector folders: what is written is what any reader of these formats gets back."""

from __future__ import annotations

import hashlib

import h5py
import hdf5plugin  # noqa: F401 - registers the decompression filter
import numpy as np
import pytest

from xrdpipe.errors import InputError, OptionError
from xrdpipe.frames import write
from xrdpipe.quiet import quiet

with quiet():
    import fabio

SHAPE = (24, 30)


def detector() -> write.DetectorDescription:
    flagged = np.zeros(SHAPE, bool)
    flagged[3] = True
    dead = np.zeros(SHAPE, bool)
    dead[5, 6] = True
    return write.DetectorDescription(
        name="Pilatus300k",
        pixel_size=(172e-6, 172e-6),
        distance=0.1,
        wavelength=0.4959,
        beam_centre=(15.0, 12.0),
        saturation=1_048_575,
        pixel_mask=write.pixel_mask_bits(flagged, dead, np.zeros(SHAPE, bool)),
    )


def frames(dtype: str, number: int = 5) -> np.ndarray:
    made = np.random.default_rng(1).poisson(20, (number, *SHAPE)).astype(dtype)
    made[:, 3] = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else -1
    return made


@pytest.mark.parametrize("dtype", ["int32", "uint16", "uint32"])
def test_tiff_round_trip(tmp_path, dtype):
    images = frames(dtype)
    with write.open_writer("tiff", tmp_path, "scan", 5, detector()) as put:
        for image in images:
            put(image)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"scan_{i:05d}.tif" for i in range(1, 6)]
    for name, image in zip(names, images, strict=True):
        read = fabio.open(str(tmp_path / name))
        assert read.data.dtype == dtype
        np.testing.assert_array_equal(read.data, image)
    text = (tmp_path / names[0]).read_bytes()
    assert b"# Count_cutoff 1048575 counts\r\n" in text
    assert b"# Wavelength 0.4959 A\r\n" in text


def test_cbf_round_trip(tmp_path):
    images = frames("int32")
    with write.open_writer("cbf", tmp_path, "scan", 5, detector()) as put:
        for image in images:
            put(image)
    for number, image in enumerate(images, start=1):
        read = fabio.open(str(tmp_path / f"scan_{number:05d}.cbf"))
        assert read.data.dtype == np.int32
        np.testing.assert_array_equal(read.data, image)
        assert "# Count_cutoff 1048575 counts" in read.header["_array_data.header_contents"]


def test_same_frames_are_the_same_files(tmp_path):
    sums = []
    for run in "ab":
        folder = tmp_path / run
        folder.mkdir()
        with write.open_writer("tiff", folder, "scan", 1, detector()) as put:
            put(frames("int32")[0])
        sums.append(hashlib.sha256((folder / "scan_00001.tif").read_bytes()).hexdigest())
    assert sums[0] == sums[1]


def test_eiger_tree_and_round_trip(tmp_path):
    images = frames("uint32", 7)
    with write.eiger_writer(tmp_path, "scan", 7, detector(), frames_per_file=3) as put:
        for image in images:
            put(image)
    with h5py.File(tmp_path / "scan_master.h5") as master:
        links = sorted(master["entry/data"])
        assert links == ["data_000001", "data_000002", "data_000003"]
        stored = [master["entry/data"][name] for name in links]
        np.testing.assert_array_equal(np.concatenate([part[()] for part in stored]), images)
        low = [int(part.attrs["image_nr_low"]) for part in stored]
        high = [int(part.attrs["image_nr_high"]) for part in stored]
        assert (low, high) == ([1, 4, 7], [3, 6, 7])
        assert stored[0].chunks == (1, *SHAPE)
        assert "32008" in stored[0]._filters  # bitshuffle
        assert stored[0].dtype == np.uint32
        group = master["entry/instrument/detector"]
        assert group["saturation_value"][()] == 1_048_575
        assert group["bit_depth_image"][()] == 32
        assert group["detectorSpecific/nimages"][()] == 7
        mask = group["detectorSpecific/pixel_mask"][()]
        assert mask[3, 0] == write.PIXEL_MASK_GAP
        assert mask[5, 6] == write.PIXEL_MASK_DEAD
        wavelength = master["entry/instrument/beam/incident_wavelength"]
        assert wavelength[()] == pytest.approx(0.4959)
    with fabio.open(str(tmp_path / "scan_master.h5")) as series:
        assert series.nframes == 7


def test_eiger_series_that_ends_early(tmp_path):
    with write.eiger_writer(tmp_path, "scan", 9, detector(), frames_per_file=4) as put:
        for image in frames("uint32", 6):
            put(image)
    with h5py.File(tmp_path / "scan_master.h5") as master:
        assert len(master["entry/data/data_000002"]) == 2
        assert master["entry/data"].get("data_000003", getlink=True) is not None
        with pytest.raises(KeyError):
            master["entry/data/data_000003"]


@pytest.mark.parametrize(
    ("layout", "image", "message"),
    [
        ("tiff", np.zeros((4, 4), np.int32), "expected an integer frame of shape"),
        ("tiff", np.zeros(SHAPE, np.float32), "got float32"),
        ("cbf", np.zeros(SHAPE, np.uint16), "CBF frames are int32"),
        ("eiger", np.zeros(SHAPE, np.int32), "Eiger frames are uint32"),
    ],
)
def test_wrong_frames_are_refused(tmp_path, layout, image, message):
    with (
        write.open_writer(layout, tmp_path, "scan", 1, detector()) as put,
        pytest.raises(InputError, match=message),
    ):
        put(image)


def test_unknown_format_names_the_nearest(tmp_path):
    with pytest.raises(OptionError, match="Did you mean 'eiger'"):
        write.open_writer("eigr", tmp_path, "scan", 1, detector())
