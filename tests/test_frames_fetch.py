"""Frames fetched past the libraries are those the libraries read."""

from __future__ import annotations

from pathlib import Path

import fabio.cbfimage
import fabio.edfimage
import fabio.tifimage
import h5py
import hdf5plugin
import numpy as np
import pytest

from xrdpipe.errors import FrameError
from xrdpipe.frames import open_frames
from xrdpipe.frames.layouts.packing import packing_of
from xrdpipe.frames.plain import byte_offset_pixels, plain_pixels
from xrdpipe.types import Encoded

SHAPE = (37, 53)


def images(dtype: str, n: int = 3) -> np.ndarray:
    rng = np.random.default_rng(4)
    stack = rng.poisson(30, (n, *SHAPE)).astype(dtype)
    stack[:, 5, 6] = 255 if dtype == "u1" else 12345
    return stack


def hdf5(path: Path, stack: np.ndarray, **settings) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("entry/data/data", data=stack, **settings)
    return path


def fetched(path: Path, encoding: str = "") -> np.ndarray:
    """All frames by ``fetch``, which must come in this encoding, and equal what ``read`` gives."""
    source = open_frames([path])
    found = []
    for row in range(len(source.records)):
        pixels = source.fetch(row)
        if encoding:
            assert isinstance(pixels, Encoded)
            assert pixels.encoding == encoding
            size = source.shape[0] * source.shape[1]
            if encoding == "byte-offset":
                pixels = byte_offset_pixels(pixels.data, size).reshape(source.shape)
            else:
                head = np.frombuffer(pixels.data[:8], ">u8")
                assert head == size * source.dtype.itemsize
                pixels = source.read(row).image
        assert isinstance(pixels, np.ndarray)
        assert pixels.dtype == source.dtype
        np.testing.assert_array_equal(pixels, source.read(row).image)
        found.append(pixels)
    return np.array(found)


# --- HDF5 -------------------------------------------------------------------------------------

ONE = (1, *SHAPE)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i4"])
def test_a_bitshuffle_lz4_chunk_is_handed_over_as_it_is(tmp_path, dtype):
    stack = images(dtype)
    path = hdf5(tmp_path / "a.h5", stack, chunks=ONE, **hdf5plugin.Bitshuffle(cname="lz4"))
    np.testing.assert_array_equal(fetched(path, "bitshuffle-lz4"), stack)


@pytest.mark.parametrize(
    "settings",
    [
        {"chunks": ONE},
        {"chunks": ONE, "compression": "gzip"},
        {"chunks": ONE, **hdf5plugin.LZ4()},
        {"chunks": ONE, **hdf5plugin.Bitshuffle(cname="zstd")},
        {"chunks": ONE, **hdf5plugin.Bitshuffle(cname="none")},
        {"chunks": (2, *SHAPE), **hdf5plugin.Bitshuffle(cname="lz4")},
        {"chunks": (1, 10, 53), **hdf5plugin.Bitshuffle(cname="lz4")},
        {"chunks": ONE, "shuffle": True, **hdf5plugin.Bitshuffle(cname="lz4")},
        {},
    ],
)
def test_every_other_storage_gives_the_pixels(tmp_path, settings):
    stack = images("u4")
    path = hdf5(tmp_path / "a.h5", stack, **settings)
    with h5py.File(path) as file:
        assert (packing_of(file["entry/data/data"]) is not None) == (settings == {})
    np.testing.assert_array_equal(fetched(path), stack)


def test_big_endian_numbers_are_left_to_hdf5(tmp_path):
    stack = images("u2")
    packed = {"chunks": ONE, **hdf5plugin.Bitshuffle(cname="lz4")}
    for name, settings in (("a.h5", {}), ("b.h5", packed)):
        path = hdf5(tmp_path / name, stack.astype(">u2"), **settings)
        source = open_frames([path])
        np.testing.assert_array_equal(source.fetch(1), stack[1])


def test_a_chunk_that_was_stored_without_the_filter_is_read_by_hdf5(tmp_path):
    stack = images("u4")
    path = hdf5(tmp_path / "a.h5", stack, chunks=ONE, **hdf5plugin.Bitshuffle(cname="lz4"))
    with h5py.File(path, "r+") as file:
        data = file["entry/data/data"]
        data.id.write_direct_chunk((1, 0, 0), stack[1].tobytes(), filter_mask=1)
    source = open_frames([path])
    assert isinstance(source.fetch(0), Encoded)
    np.testing.assert_array_equal(source.fetch(1), stack[1])


def test_axes_before_the_image_and_parts_in_other_files(tmp_path):
    stack = images("u4", 6)
    settings = {"chunks": (1, 1, *SHAPE), **hdf5plugin.Bitshuffle(cname="lz4")}
    path = hdf5(tmp_path / "a.h5", stack.reshape(2, 3, *SHAPE), **settings)
    np.testing.assert_array_equal(fetched(path, "bitshuffle-lz4"), stack)
    path = hdf5(tmp_path / "b.h5", stack.reshape(2, 3, *SHAPE))
    np.testing.assert_array_equal(fetched(path), stack)
    layout = h5py.VirtualLayout((6, *SHAPE), "u4")
    for half in (0, 1):
        part = hdf5(
            tmp_path / f"part{half}.h5",
            stack[3 * half : 3 * half + 3],
            chunks=ONE,
            **hdf5plugin.Bitshuffle(cname="lz4"),
        )
        layout[3 * half : 3 * half + 3] = h5py.VirtualSource(
            part.name, "entry/data/data", (3, *SHAPE)
        )
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file.create_virtual_dataset("entry/data/data", layout)
    np.testing.assert_array_equal(fetched(tmp_path / "master.h5", "bitshuffle-lz4"), stack)


def test_a_file_that_became_shorter_costs_its_last_frames(tmp_path):
    path = hdf5(tmp_path / "a.h5", images("u4"))
    source = open_frames([path])
    content = path.read_bytes()
    path.write_bytes(content[: -SHAPE[0] * SHAPE[1] * 4 + 100])
    np.testing.assert_array_equal(source.fetch(0), images("u4")[0])
    with pytest.raises(FrameError, match=r"a\.h5"):
        source.fetch(2)


# --- image files ------------------------------------------------------------------------------

WRITERS = {
    "cbf": (fabio.cbfimage.CbfImage, "i4"),
    "tif": (fabio.tifimage.TifImage, "u2"),
    "edf": (fabio.edfimage.EdfImage, "f4"),
}


def folder(path: Path, kind: str, stack: np.ndarray) -> Path:
    path.mkdir()
    for number, image in enumerate(stack):
        WRITERS[kind][0](data=image).write(str(path / f"a_{number:04d}.{kind}"))
    return path


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("cbf", "i4"), ("tif", "u1"), ("tif", "u2"), ("tif", "u4"), ("tif", "i4"), ("tif", "f4")]
    + [("edf", dtype) for dtype in ("u1", "u2", "u4", "i4", "f4")],
)
def test_plain_image_files_are_read_without_a_library(tmp_path, kind, dtype):
    stack = images(dtype)
    path = folder(tmp_path / "s", kind, stack)
    found = fetched(path, "byte-offset" if kind == "cbf" else "")
    np.testing.assert_array_equal(found, stack)
    for file in path.iterdir():
        assert plain_pixels(file, SHAPE, np.dtype(dtype)) is not None


@pytest.mark.parametrize("kind", sorted(WRITERS))
def test_a_damaged_image_file_is_named_as_before(tmp_path, kind):
    """What is cut off, or is another image than the series holds, is left to the reader."""
    dtype = WRITERS[kind][1]
    path = folder(tmp_path / "s", kind, images(dtype))
    source = open_frames([path])
    file = path / f"a_0001.{kind}"
    whole = file.read_bytes()
    for damaged in (whole[:-900], whole[:40], b"", whole[: len(whole) // 2] + b"\0\0\0"):
        file.write_bytes(damaged)
        with pytest.raises(FrameError) as told:
            source.fetch(1)
        with pytest.raises(FrameError) as expected:
            source.read(1)
        assert told.value.reason == expected.value.reason
        assert file.name in told.value.reason
    WRITERS[kind][0](data=images(dtype)[0, :20]).write(str(file))
    with pytest.raises(FrameError, match="20 x 53"):
        source.fetch(1)
    np.testing.assert_array_equal(
        source.read(2).image,
        pixels_of(source.fetch(2)),
    )


def pixels_of(fetched: Encoded | np.ndarray) -> np.ndarray:
    if isinstance(fetched, Encoded):
        return byte_offset_pixels(fetched.data, SHAPE[0] * SHAPE[1]).reshape(SHAPE)
    return fetched


def test_a_cbf_whose_pixels_changed_is_refused(tmp_path):
    path = folder(tmp_path / "s", "cbf", images("i4"))
    source = open_frames([path])
    file = path / "a_0001.cbf"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(FrameError, match="checksum"):
        source.fetch(1)
