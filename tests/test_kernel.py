"""The compiled kernel gives the reference path's numbers and decisions, and survives damage."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest

from known_frames import SHAPE, rings
from xrdpipe.errors import FrameError
from xrdpipe.integration import compiled
from xrdpipe.integration.batch import BatchReducer, unsuited
from xrdpipe.integration.geometry import choose_binning
from xrdpipe.integration.reduce import FrameReducer, ReductionSettings
from xrdpipe.schema import FrameStatus
from xrdpipe.types import Encoded

pytestmark = pytest.mark.skipif(compiled._library() is None, reason="the kernel was not built")

LIMIT = 1e-6
"""Of max(|I|, sigma): decision 5."""

TOP = {"u1": 2**8 - 1, "u2": 2**16 - 1, "u4": 2**32 - 1, "i4": -1, "f4": np.nan}


@pytest.fixture(params=compiled.LEVELS)
def level(request, monkeypatch) -> str:
    """Every instruction set that this machine has."""
    if compiled.LEVELS.index(request.param) > compiled._library().xk_level():
        pytest.skip(f"no {request.param} here")
    monkeypatch.setenv(compiled.SWITCH, request.param)
    return request.param


def chunk_of(image: np.ndarray, block: int = 0) -> bytes:
    """The bytes that HDF5's bitshuffle-LZ4 filter stores; ``block`` in elements, 0 = its choice."""
    with h5py.File("chunk.h5", "w", driver="core", backing_store=False) as file:
        data = file.create_dataset(
            "x",
            data=image[None],
            chunks=(1, *image.shape),
            **hdf5plugin.Bitshuffle(nelems=block, cname="lz4"),
        )
        return bytes(data.id.read_direct_chunk((0, 0, 0))[1])


def packed(image: np.ndarray, block: int = 0) -> Encoded:
    return Encoded(chunk_of(image, block), "bitshuffle-lz4")


def random_frames(geometry, dtype: str, rng: np.random.Generator, n: int) -> list[np.ndarray]:
    """Rings with spots, hot pixels and pixels without measurement."""
    frames = []
    for _ in range(n):
        most = 2 if dtype == "u1" else 4
        height, background = 10 ** rng.uniform(0, most), 10 ** rng.uniform(-2, most / 2)
        image = rng.poisson(rings(geometry.two_theta, height=height, background=background))
        for _ in range(15):
            y, x = rng.integers(1, 148), rng.integers(1, 168)
            image[y - 1 : y + 2, x - 1 : x + 2] += rng.integers(10, 5000)
        image[rng.integers(0, 150, 20), rng.integers(0, 170, 20)] += 3000
        image = np.minimum(image, 250 if dtype == "u1" else 60000)
        if dtype == "u4":
            image[3, 4:9] = 70000 + rng.integers(0, 10**6, 5)
        stored = image.astype(dtype)
        if dtype == "f4":
            stored += rng.normal(0, 0.3, SHAPE).astype("f4")
        stored[rng.random(SHAPE) < rng.choice([0, 0.001, 0.03])] = TOP[dtype]
        frames.append(stored)
    return frames


def compare(
    reduce: FrameReducer, batch: BatchReducer, frames, scales, given=None, limit=LIMIT
) -> None:
    """Rows, counts, flags and decisions of a batch against the reference path."""
    rejected = np.zeros((len(frames), frames[0].size), np.uint8)
    given = frames if given is None else given
    results = batch.reduce(given, scales, rejected)
    for image, scale, result, gone in zip(frames, scales, results, rejected, strict=True):
        expected = reduce.reduce(image, scale)
        assert not isinstance(result, FrameError)
        assert result is not None
        assert result.flags == expected.flags
        assert result.counts == pytest.approx(expected.counts, rel=1e-6)
        for name in ("n_valid_pixels", "n_sentinel", "n_saturated", "n_masked_dynamic"):
            assert result.counts[name] == expected.counts[name], name
        assert result.rows.keys() == expected.rows.keys()
        if "masked" in result.rows and reduce.settings.reject != "none":
            frame = reduce._prepare(image, scale)
            np.testing.assert_array_equal(gone.astype(bool), reduce._rejected(frame).ravel())
        for variant, row in expected.rows.items():
            ours = result.rows[variant]
            assert ours.keys() == row.keys()
            scale_of = np.abs(row["I"])
            if "I_errors" in row:
                scale_of = np.maximum(scale_of, row["I_errors"])
            for name, values in row.items():
                np.testing.assert_array_equal(np.isfinite(ours[name]), np.isfinite(values))
                if name == "azimuthal_excess_variance":
                    np.testing.assert_allclose(ours[name], values, rtol=1e-5, atol=1e-5)
                    continue
                # Spottiness is the difference of two rounded means.
                unit = scale_of + (np.abs(values) if name == "spottiness" else 0)
                unit = np.where(unit > 0, unit, 1) if name != "coverage" else 1
                assert np.nanmax(np.abs(ours[name] - values) / unit, initial=0) < limit, name


def reducer(geometry, planes: dict[str, np.ndarray] | None = None, bins=None, **settings: Any):
    planes = planes or {}
    return FrameReducer(
        geometry,
        choose_binning(geometry, "2theta", bins, None),
        ReductionSettings(**{"variants": ("masked", "unmasked"), **settings}),
        **planes,
    )


@pytest.fixture(scope="module")
def planes() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    flat = rng.uniform(0.8, 1.2, SHAPE).astype(np.float32)
    flat[0, 0] = 0
    flat[5, 5] = np.nan
    return {
        "dead": rng.random(SHAPE) < 0.01,
        "dark": rng.normal(1, 0.3, SHAPE).astype(np.float32),
        "flat": flat,
        "mask": rng.random(SHAPE) < 0.1,
    }


@pytest.mark.parametrize("dtype", list(compiled.DTYPES))
@pytest.mark.parametrize("splitting", ["no", "bbox", "full"])
def test_sums_equal_the_reference(geometry, planes, level, dtype, splitting):
    rng = np.random.default_rng(5)
    for n, chosen in ((8, {}), (3, planes)):
        reduce = reducer(
            geometry,
            chosen,
            reject="none",
            splitting=splitting,
            sentinels=(TOP[dtype],) if dtype != "f4" else (),
            saturation={"u1": 200.0, "u2": 9000.0}.get(dtype, 65000.0),
        )
        batch = BatchReducer(reduce, np.dtype(dtype))
        for _ in range(2):
            frames = random_frames(geometry, dtype, rng, n)[: batch.size]
            given = [packed(image) if k % 2 else image for k, image in enumerate(frames)]
            compare(reduce, batch, frames, rng.uniform(0.5, 2, len(frames)), given)


@pytest.mark.parametrize("reject", ["robust", "sigma-clip"])
@pytest.mark.parametrize(
    ("dtype", "bins"), [("u1", 120), ("u2", None), ("u4", 120), ("i4", None), ("f4", 120)]
)
def test_rejection_takes_the_decisions_of_the_reference(
    geometry, planes, level, reject, dtype, bins
):
    rng = np.random.default_rng(7)
    for chosen, model in (({}, "none"), (planes, "poisson")):
        reduce = reducer(
            geometry,
            chosen,
            bins,
            reject=reject,
            error_model=model,
            spottiness=True,
            sentinels=(TOP[dtype],) if dtype != "f4" else (),
            saturation=240.0 if dtype == "u1" else 20000.0,
        )
        batch = BatchReducer(reduce, np.dtype(dtype))
        for _ in range(2):
            frames = random_frames(geometry, dtype, rng, 5)
            compare(reduce, batch, frames, rng.uniform(0.5, 2, 5))


# --- damage -----------------------------------------------------------------------------------


def unmasked(geometry, **settings: Any) -> FrameReducer:
    return reducer(geometry, variants=("unmasked",), reject="none", **settings)


def test_a_damaged_chunk_costs_its_frame_alone(geometry, level):
    """Bytes changed, cut off, added: an error or other numbers, never a crash or another frame."""
    rng = np.random.default_rng(11)
    reduce = unmasked(geometry)
    batch = BatchReducer(reduce, np.dtype("u4"))
    good = random_frames(geometry, "u4", rng, 1)[0]
    chunk = chunk_of(good)
    expected = reduce.reduce(good).rows["unmasked"]["I"]
    corrupt = 0
    for _ in range(60):
        bad = []
        for kind in rng.integers(0, 5, 14):
            spoilt = bytearray(chunk)
            for at in rng.integers(0, len(chunk), rng.integers(1, 6)):
                spoilt[at] = rng.integers(0, 256)
            cut = int(rng.integers(0, len(chunk)))
            bad.append(
                [
                    bytes(spoilt),
                    chunk[:cut],
                    chunk[:12] + rng.bytes(len(chunk) - 12),
                    chunk + b"x",
                    rng.bytes(cut),
                ][kind]
            )
        frames = [Encoded(text, "bitshuffle-lz4") for text in (chunk, *bad, chunk)]
        results = batch.reduce(frames, [1.0] * len(frames))
        for result in (results[0], results[-1]):
            np.testing.assert_allclose(result.rows["unmasked"]["I"], expected, rtol=1e-6)
        corrupt += sum(result is None for result in results)
    assert corrupt > 0.5 * 60 * 14
    for text in (b"", b"\0" * 12, chunk[:8] + b"\xff\xff\xff\xf8" + chunk[12:]):
        assert batch.reduce([Encoded(text, "bitshuffle-lz4")], [1.0]) == [None]


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8"])
@pytest.mark.parametrize("block", [0, 8, 24, 1024, 4096])
@pytest.mark.parametrize("shape", [(1, 5), (3, 7), (64, 129), (150, 170)])
def test_chunks_decode_to_what_hdf5_reads(dtype, block, shape):
    rng = np.random.default_rng(block)
    image = rng.poisson(2, shape).astype(dtype)
    image[rng.random(shape) < 0.1] = np.iinfo(dtype).max
    decoded = compiled.decode_chunk(chunk_of(image, block), image.dtype, image.size)
    np.testing.assert_array_equal(decoded, image.ravel())


@pytest.mark.parametrize("block", [8, 24, 512, 1 << 17])
def test_every_block_size_gives_the_same_sums(geometry, frame, block):
    batch = BatchReducer(unmasked(geometry), np.dtype("u4"))
    image = frame.astype("u4")
    one, other = batch.reduce([packed(image, block), image], [1.0, 1.0])
    np.testing.assert_array_equal(one.rows["unmasked"]["I"], other.rows["unmasked"]["I"])


def test_literal_and_overlapping_copies_of_lz4():
    """Hand-made blocks: long literals, every small offset, lengths around the vector size."""
    for offset in range(1, 40):
        for length in (4, 15, 18, 19, 33, 300):
            seed = bytes(range(1, offset + 1))
            text = seed + bytes(seed[k % offset] for k in range(length))
            text += b"z" * (-len(text) % 8 + 8)
            tail = text[offset + length :]
            block = bytearray(_token(len(seed), length - 4) + _more(len(seed)) + seed)
            block += struct.pack("<H", offset) + _more(length - 4)
            block += _token(len(tail), 0) + _more(len(tail)) + tail
            chunk = struct.pack(">QI", len(text), len(text)) + struct.pack(">I", len(block)) + block
            decoded = compiled.decode_chunk(bytes(chunk), np.dtype("u1"), len(text))
            planes = np.frombuffer(text, np.uint8).reshape(8, -1)
            bits = np.unpackbits(planes, axis=1, bitorder="little")
            expected = np.packbits(bits, axis=0, bitorder="little")[0]
            np.testing.assert_array_equal(decoded, expected)


def byte_offsets(image: np.ndarray) -> bytes:
    """x-CBF_BYTE_OFFSET, written out from the definition of imgCIF."""
    text, before = b"", 0
    for value in image.ravel().tolist():
        step, before = value - before, value
        for kind, least in (("<b", -128), ("<h", -32768), ("<i", -(2**31))):
            if least < step < -least:
                text += struct.pack(kind, step)
                break
            text += struct.pack(kind, least)
        else:
            text += struct.pack("<q", step)
    return text


def test_a_cbf_is_decoded_as_it_was_encoded(geometry, frame, level):
    rng = np.random.default_rng(5)
    image = frame.astype("i4")
    for at, size in ((100, 7), (9000, 8), (20000, 14), (25000, 23)):  # long steps, both signs
        image.flat[at : at + size] = rng.integers(-(2**31), 2**31, size)
    image.flat[-3:] = (-(2**31), 2**31 - 1, 0)
    batch = BatchReducer(unmasked(geometry), np.dtype("i4"))
    text = byte_offsets(image)
    for ending in (b"", b"\0" * 4095):
        one, other = batch.reduce([Encoded(text + ending, "byte-offset"), image], [1.0, 1.0])
        np.testing.assert_array_equal(one.rows["unmasked"]["I"], other.rows["unmasked"]["I"])
        assert one.counts == other.counts
    for cut in (0, 1, len(text) // 2, len(text) - 1):
        assert batch.reduce([Encoded(text[:cut], "byte-offset")], [1.0]) == [None]


def _token(literals: int, match: int) -> bytes:
    return bytes([min(literals, 15) << 4 | min(match, 15)])


def _more(length: int) -> bytes:
    if length < 15:
        return b""
    return b"\xff" * ((length - 15) // 255) + bytes([(length - 15) % 255])


# --- what it leaves to the reference path ------------------------------------------------------


def test_frames_it_cannot_judge_are_left_to_the_reference(geometry, frame):
    image = frame.astype("u4")
    watched = image.copy()
    watched[3, 4] = 65535
    flooded = image.copy()
    flooded[::2] = 2**32 - 1
    reduce = unmasked(geometry, sentinels=(2.0**32 - 1,))
    batch = BatchReducer(reduce, np.dtype("u4"), watched=(65535,))
    results = batch.reduce([image, watched, flooded, np.zeros_like(image)], [1.0] * 4)
    assert results[0] is not None
    assert results[1] is None
    assert results[2] is None
    assert isinstance(results[3], FrameError)
    assert results[3].status == FrameStatus.EMPTY


def test_what_it_is_not_made_for(geometry, monkeypatch):
    reduce = unmasked(geometry)
    assert unsuited(reduce, np.dtype("u4")) == ""
    assert "float64" in unsuited(reduce, np.dtype("f8"))
    assert unsuited(unmasked(geometry, engine="pyfai"), np.dtype("u4"))
    assert unsuited(unmasked(geometry, error_model="azimuthal"), np.dtype("u4"))
    monkeypatch.setenv(compiled.SWITCH, "off")
    assert "off" in unsuited(reduce, np.dtype("u4"))


@pytest.mark.parametrize(("flip", "rotate"), [("ud", 0), ("lr", 90), ("none", 270)])
def test_frames_are_taken_as_stored(geometry, flip, rotate):
    from xrdpipe.frames.dead import oriented

    rng = np.random.default_rng(4)
    reduce = reducer(geometry, saturation=20000.0, spottiness=True)
    frames = random_frames(geometry, "u2", rng, 3)
    columns = SHAPE[0] if rotate in (90, 270) else SHAPE[1]
    shape = (frames[0].size // columns, columns)
    stored = oriented(np.arange(frames[0].size).reshape(shape), flip, rotate)
    given = []
    for image in frames:
        plane = np.empty(image.size, image.dtype)
        plane[stored.ravel()] = image.ravel()
        given.append(plane.reshape(shape))
    batch = BatchReducer(reduce, np.dtype("u2"), stored, columns)
    results = batch.reduce(given, [1.0] * 3)
    for image, result in zip(frames, results, strict=True):
        expected = reduce.reduce(image)
        assert result.counts == pytest.approx(expected.counts)
        for name, values in expected.rows["masked"].items():
            np.testing.assert_allclose(result.rows["masked"][name], values, rtol=1e-5, atol=1e-5)


def test_threads_share_one_kernel(geometry):
    rng = np.random.default_rng(9)
    reduce = reducer(geometry, spottiness=True, sentinels=(2.0**32 - 1,))
    batch = BatchReducer(reduce, np.dtype("u4"))
    blocks = [random_frames(geometry, "u4", rng, 4) for _ in range(6)]

    def rows(frames):
        return [result.rows["masked"]["I"] for result in batch.reduce(frames, [1.0] * 4)]

    alone = [rows(frames) for frames in blocks]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(rows, blocks * 3))
    np.testing.assert_array_equal(together, alone * 3)
