"""Inputs from strangers: nothing runs, nothing is written elsewhere, nothing is too large."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import json
import os
import shutil
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
from numpy.typing import NDArray

from known_frames import SHAPE, rings, write_image, write_poni
from xrdpipe import bounds
from xrdpipe.config import InspectConfig, IntegrateConfig
from xrdpipe.errors import FrameError, InputError, OptionError, XrdpipeError
from xrdpipe.frames import open_frames, write
from xrdpipe.frames.auxiliary import load_masks, read_plane
from xrdpipe.frames.images import read_image
from xrdpipe.frames.layouts import areadetector
from xrdpipe.frames.layouts.layout import Column
from xrdpipe.frames.tables import read_column, read_table
from xrdpipe.integration.geometry import load_geometry
from xrdpipe.nn.model_folder import find_model, phase_library, read_card
from xrdpipe.pipeline import load_pipeline, run_steps
from xrdpipe.schema import FrameStatus
from xrdpipe.stages import inspect, integrate
from xrdpipe.store.patterns import PatternsFile
from xrdpipe.store.truth import read_truth
from xrdpipe.types import Progress

ROOT = Path(__file__).parents[1]
LITTLE = 200 << 20
"""Bytes: what refusing an input may take at most."""


def test_no_reader_lets_damage_through():
    """The fuzzer on a few inputs of most readers; docs/security.md says how to go on."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fuzz", "--inputs", "80", "--seed", "5",
         "--readers", "chunks;CBF;EDF;HDF5 frames, objects;truth;masks;CIF;GSAS;TOML;tables;1D"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if " inputs, " in line]
    assert len(lines) > 10, done.stdout + done.stderr
    assert not [line for line in lines if " 0 findings" not in line], done.stdout
    assert not any(" 0 read" in line or " 0 refused" in line for line in lines), done.stdout


# --- nothing runs ----------------------------------------------------------------------------


class Trap:
    """Unpickled, it leaves a file behind."""

    def __reduce__(self):
        return os.mkdir, ("sprung",)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def model(folder) -> Path:
    shutil.copytree(find_model(), folder / "model")
    return folder / "model"


def change_card(model: Path, change) -> None:
    card = json.loads((model / "model.json").read_text())
    change(card)
    (model / "model.json").write_text(json.dumps(card))


def test_weights_are_never_unpickled(model):
    import hashlib
    import pickle

    from xrdpipe.nn.inference import load_model

    weights = model / "weights-0.safetensors"
    weights.write_bytes(pickle.dumps(Trap()))
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    change_card(model, lambda card: card["weights"][0].update(sha256=digest))
    with pytest.raises(InputError, match="does not fit network"):
        load_model(model, "cpu")
    assert not Path("sprung").exists()


@pytest.mark.parametrize("name", ["mask.npy", "frames_1.npy"])
def test_arrays_of_objects_are_refused(folder, name):
    np.save(name, np.array([[Trap()]], object), allow_pickle=True)
    with pytest.raises(XrdpipeError, match="cannot be"):
        load_masks((name,), SHAPE, "none", 0) if name == "mask.npy" else open_frames(name)
    assert not Path("sprung").exists()


@pytest.mark.parametrize("kind", [h5py.string_dtype(), h5py.ref_dtype, h5py.vlen_dtype("i4"), "V8"])
def test_hdf5_of_objects_is_refused(folder, kind):
    with h5py.File("a.h5", "w") as file:
        file.create_dataset("entry/data/I", (3, 20), kind)
        file.create_dataset("entry/data/radial_axis", (20,), kind)
        file["entry/instrument/monochromator/wavelength"] = 0.5
    with pytest.raises(InputError, match=r"a\.h5"):
        PatternsFile(Path("a.h5"))
    with pytest.raises(InputError, match="holds no stack"):
        open_frames("a.h5")


@pytest.mark.parametrize(
    "text",
    [
        "[integrate]\nframes = ['scan']\nponi = \"__import__('os').mkdir('sprung')\"\n",
        "[integrate]\nframes = ['$(mkdir sprung)']\nponi = '`mkdir sprung`'\n",
    ],
)
def test_a_pipeline_is_data(folder, text):
    Path("a.toml").write_text(text)
    steps = load_pipeline("a.toml")
    with pytest.raises(XrdpipeError):
        run_steps(steps, Progress())
    assert not Path("sprung").exists()


@pytest.mark.parametrize(
    "text",
    ["[os]\nsystem = 'mkdir sprung'\n", "[a]\nstage = 'os.system'\n", "x = " + "[" * 5000],
)
def test_a_pipeline_names_stages_and_options_only(folder, text):
    Path("a.toml").write_text(text)
    with pytest.raises((OptionError, InputError)):
        load_pipeline("a.toml")


def test_image_controls_are_literals(folder):
    Path("a.imctrl").write_text("wavelength:__import__('os').mkdir('sprung')\n" * 3)
    with pytest.raises(InputError, match="holds no GSAS-II image controls"):
        load_geometry("a.imctrl", SHAPE)
    assert not Path("sprung").exists()


# --- nothing is read or written elsewhere ----------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../secret.cif", "/etc/hostname", "phases/link.cif", "below/x.cif"]
)
def test_a_model_stays_in_its_folder(model, name):
    (model.parent / "secret.cif").write_text("data_x")
    (model / "phases/link.cif").symlink_to("../../secret.cif")
    (model.parent / "elsewhere").mkdir()
    (model.parent / "elsewhere/x.cif").write_text("data_x")
    (model / "below").symlink_to("../elsewhere")
    change_card(model, lambda card: card["phases"][0].update(cif=name))
    with pytest.raises(InputError, match="outside the model folder"):
        phase_library(model)


def test_a_link_inside_the_model_is_followed(model):
    (model / "phases/calcite.cif").rename(model / "c.cif")
    (model / "phases/calcite.cif").symlink_to("../c.cif")
    assert "calcite" in phase_library(model).names


def data_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.random.default_rng(1).poisson(5, (3, *SHAPE)).astype(np.uint32)
    with h5py.File(path, "w") as file:
        file["entry/data/data"] = frames
    return path


def master(folder: Path, how: str, target: str) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        if how == "link":
            file["entry/data/data_000001"] = h5py.ExternalLink(target, "entry/data/data")
        elif how == "virtual":
            layout = h5py.VirtualLayout((3, *SHAPE), "u4")
            layout[...] = h5py.VirtualSource(target, "entry/data/data", (3, *SHAPE))
            file.create_virtual_dataset("entry/data/data", layout)
        else:
            size = 3 * SHAPE[0] * SHAPE[1] * 4
            (folder / target).write_bytes(bytes(size - 1) + b"\1")
            file.create_dataset("entry/data/data", (3, *SHAPE), "u4", external=[(target, 0, size)])
    return folder / "a.h5"


@pytest.mark.parametrize("how", ["link", "virtual", "storage"])
@pytest.mark.parametrize(
    ("target", "outside"),
    [("b.h5", False), ("scan0001/b.h5", False), ("../other/b.h5", True), ("{}/b.h5", True)],
)
def test_files_outside_the_folder_are_reported(tmp_path, monkeypatch, how, target, outside):
    (folder := tmp_path / "scan").mkdir()
    monkeypatch.chdir(folder)
    target = target.format(tmp_path / "absolute")
    data_file(folder / target)
    path = master(folder, how, target)
    warnings = [text for text in open_frames(path).warnings if "outside its folder" in text]
    assert len(warnings) == outside
    table = inspect.run(InspectConfig(path=(str(path),))).details["warnings"]
    assert [text for text in table if "outside its folder" in text] == warnings
    if outside:
        assert str(path) in warnings[0]
        assert "b.h5" in warnings[0]
        notes: list[str] = []
        poni = write_poni(tmp_path / "a.poni")
        progress = Progress(note=notes.append)
        integrate.run(
            IntegrateConfig(frames=(str(path),), poni=poni, output=tmp_path / "p.h5", cache=False),
            progress,
        )
        assert f"warning: {warnings[0]}" in notes


def test_names_do_not_lead_out_of_a_folder(tmp_path):
    detector = write.DetectorDescription(
        "x", (1e-4, 1e-4), 0.1, 0.5, (8, 8), 100, np.zeros((16, 16), np.uint32)
    )
    for name in ("../a", "a/b", "/tmp/a"):
        with pytest.raises(InputError, match="is no name of a file"):
            write.open_writer("tiff", tmp_path, name, 1, detector)


def test_a_pipeline_says_what_it_writes_elsewhere(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "p.h5"
    text = "[integrate]\nframes = ['scan']\nponi = 'a.poni'\noutput = '{}'\n"
    for output, said in ((elsewhere, 1), ("p.h5", 0), ("below/p.h5", 0), ("../p.h5", 1)):
        Path("a.toml").write_text(text.format(output))
        notes: list[str] = []
        progress = Progress(note=notes.append)
        with pytest.raises(XrdpipeError):  # there is no scan
            run_steps(load_pipeline("a.toml"), progress)
        assert sum("writes outside the current folder" in note for note in notes) == said


# --- nothing is too large --------------------------------------------------------------------


@pytest.fixture
def little():
    """Fail where refusing takes memory."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < LITTLE


def stack(path: Path, shape: tuple[int, ...]) -> Path:
    chunks = (*(1,) * (len(shape) - 2), *(min(n, 256) for n in shape[-2:]))
    with h5py.File(path, "w") as file:
        file.create_dataset("entry/data/data", shape, "u2", chunks=chunks)
    return path


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((3, 10**6, 10**6), "1000000 x 1000000 pixels"),
        ((10**9, 64, 64), "1000000000 frames"),
        ((10**6, 10**6, 64, 64), "1000000000000 frames"),
    ],
)
def test_absurd_stacks(tmp_path, little, shape, said):
    path = stack(tmp_path / "a.h5", shape)
    with pytest.raises(InputError, match=said) as found:
        open_frames(path)
    assert str(path) in str(found.value)


def test_absurd_virtual_stack_and_one_made_of_itself(tmp_path, little):
    for shape, said in (((10**9, 64, 64), "frames"), ((3, 64, 64), "made of itself")):
        layout = h5py.VirtualLayout(shape, "u2")
        layout[...] = h5py.VirtualSource(".", "entry/data/data", shape)
        path = tmp_path / f"{said[:4]}.h5"
        with h5py.File(path, "w", libver="latest") as file:
            file.create_virtual_dataset("entry/data/data", layout)
        with pytest.raises(InputError, match=said):
            open_frames(path)


def test_datasets_of_nothing_but_fill_values(tmp_path, little):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("motor", (10**12,), "f8", chunks=(1000,), fillvalue=1.0)
        file.create_dataset("entry/truth/phase_names", (10**11,), "S9", chunks=(1000,))
        for name in ("presence", "weight_fraction", "strength", "lattice", "size"):
            file.create_dataset(f"entry/truth/{name}", (1,), "f4")
        file.create_dataset("entry/data/I", (10**9, 10**6), "f4", chunks=(1, 1000))
        file.create_dataset("entry/data/radial_axis", (10**6,), "f8", chunks=(1000,))
        file["entry/instrument/monochromator/wavelength"] = 0.5
    for reading in (
        lambda: read_table(path, "positions"),
        lambda: read_column(path, "motor", "monitor"),
        lambda: read_truth(path),
        lambda: PatternsFile(path),
    ):
        with pytest.raises(InputError, match="at most"):
            reading()


def tiff(width: int, height: int) -> bytes:
    tags = ((256, width), (257, height), (258, 16), (259, 1), (273, 200), (278, height), (279, 500))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return (b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)).ljust(1000, b"\0")


def edf(columns: int, rows: int, size: int = 512) -> bytes:
    lines = ["HeaderID = EH:000001:000000:000000 ;", "Image = 1 ;", "ByteOrder = LowByteFirst ;",
             "DataType = UnsignedShort ;", f"Dim_1 = {columns} ;", f"Dim_2 = {rows} ;",
             f"Size = {size} ;"]  # fmt: skip
    return ("{\n" + "\n".join(lines)).ljust(1022).encode() + b"}\n" + bytes(512)


def cbf(columns: int, rows: int, size: int = 400) -> bytes:
    return (
        b"###CBF: VERSION 1.5\r\ndata_a\r\n_array_data.data\r\n;\r\n"
        b'--CIF-BINARY-FORMAT-SECTION--\r\nconversions="x-CBF_BYTE_OFFSET"\r\n'
        + f"X-Binary-Size: {size}\r\n".encode()
        + b'X-Binary-Element-Type: "signed 32-bit integer"\r\n'
        + f"X-Binary-Size-Fastest-Dimension: {columns}\r\n".encode()
        + f"X-Binary-Size-Second-Dimension: {rows}\r\n\r\n".encode()
        + b"\x0c\x1a\x04\xd5" + bytes(400)
    )  # fmt: skip


def npy(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<u2", "fortran_order": False, "shape": shape}
    )
    return stream.getvalue() + bytes(1000)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a_1.tif", tiff(2**16, 2**15)),
        ("a_1.tif", tiff(2**32 - 1, 2**32 - 1)),
        ("a_1.edf", edf(2**16, 2**15)),
        ("a_1.edf", edf(10**4, 10**4)),
        ("a_1.edf", edf(16, 16, -1024)),
        ("a_1.edf", edf(16, 16).replace(b"Image = 1", b"Dim_9999999999 = 1")),
        ("a_1.edf", edf(16, 16).replace(b"Image = 1", b"EDF_BinaryFileName = b")),
        ("a_1.edf", edf(16, 16).replace(b"Image = 1", b"Compression = GZIP")),
        ("a_1.cbf", cbf(2**16, 2**15)),
        ("a_1.cbf", cbf(10**4, 10**4)),
        ("a_1.cbf", cbf(20, 20, 10**30)),
        ("a_1.cbf", b"nothing of a CBF" * 20),
        ("a_1.npy", npy((10**6, 10**6))),
        ("a_1.npy", npy((10**12, 16, 16))),
    ],
)
def test_images_that_claim_more_than_they_hold(tmp_path, little, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="can be read as a detector image") as found:
        open_frames(tmp_path / name)
    assert str(tmp_path / name) in str(found.value)


@pytest.mark.parametrize("name", ["a_1.tif.gz", "a_1.cbf.gz", "a_1.edf.gz", "a_1.tif.bz2"])
def test_packed_bombs(tmp_path, monkeypatch, little, name):
    monkeypatch.setattr("xrdpipe.frames.headers.UNPACKED", 1 << 25)
    pack = bz2.compress if name.endswith("bz2") else gzip.compress
    content = {"tif": tiff(20, 10), "cbf": cbf(20, 20), "edf": edf(16, 16)}[name.split(".")[1]]
    (tmp_path / name).write_bytes(pack(content + bytes(1 << 26), 1))
    with pytest.raises(FrameError, match="packed into it"):
        read_image(tmp_path / name)
    with pytest.raises(InputError, match="packed into it"):
        open_frames(tmp_path / name)


def chunk_file(path: Path, chunk: bytes, shape=(2, 64, 80), **filters) -> Path:
    """Two frames: a good one, and one whose chunk is given."""
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "entry/data/data", shape, "u4", chunks=(1, *shape[1:]), **filters
        )
        data[0] = np.arange(shape[1] * shape[2]).reshape(shape[1:])
        data.id.write_direct_chunk((1, 0, 0), chunk)
    return path


SIZE = 64 * 80 * 4


@pytest.mark.parametrize(
    ("filters", "chunk"),
    [
        (hdf5plugin.Bitshuffle(), struct.pack(">QI", 2**40, 8192) + bytes(100)),
        (hdf5plugin.Bitshuffle(), struct.pack(">QII", SIZE, 8192, 2**31) + bytes(100)),
        (hdf5plugin.Bitshuffle(), struct.pack(">QI", SIZE, 2**31) + bytes(100)),
        (hdf5plugin.Bitshuffle(), b"short"),
        (hdf5plugin.LZ4(), struct.pack(">QI", 2**40, 2**30) + bytes(100)),
        (hdf5plugin.LZ4(), struct.pack(">QII", SIZE, 2**30, SIZE) + bytes(100)),
        (hdf5plugin.Zstd(), b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 2**40) + bytes(100)),
        (hdf5plugin.Blosc(), struct.pack("<4BIII", 2, 1, 1, 4, 2**31 - 1, 1024, 116) + bytes(100)),
    ],
)
def test_chunks_that_lie(tmp_path, little, filters, chunk):
    """These crash the filters of HDF5, or make them take what they state."""
    path = chunk_file(tmp_path / "a.h5", chunk, **filters)
    source = open_frames(path)
    assert source.read(0).image[3, 4] == 244
    with pytest.raises(FrameError, match=r"frame 1 of .*truncated or damaged") as found:
        source.read(1)
    assert found.value.status == FrameStatus.CORRUPT


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_deflated_chunk_that_expands(tmp_path, monkeypatch, little, shuffle):
    import zlib

    monkeypatch.setattr("xrdpipe.frames.layouts.chunks.UNPACKED", 1 << 22)
    bomb = zlib.compress(bytes(1 << 24))
    path = chunk_file(tmp_path / "a.h5", bomb, compression="gzip", shuffle=shuffle)
    source = open_frames(path)
    assert source.read(0).image[3, 4] == 244
    with pytest.raises(FrameError, match="holds more than the 20480 bytes expected"):
        source.read(1)


def test_a_mask_of_damaged_chunks(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("mask", SHAPE, "u4", chunks=SHAPE, **hdf5plugin.Bitshuffle())
        data.id.write_direct_chunk((0, 0), struct.pack(">QII", 600 * SHAPE[0], 8192, 2**31))
    with pytest.raises(InputError, match=r"a\.h5"):
        read_plane(str(path), "mask")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.imctrl", "wavelength:0.5\ndistance:100\ncenter:[1,1]\ntilt:0\nrotation:0\n"
                     "pixelSize:[100,100]\nsize:[1000000,1000000]\n"),
        ("a.poni", "poni_version: 2.1\nDetector: Detector\nDetector_config: {\"pixel1\": 1e-4, "
                   "\"pixel2\": 1e-4, \"max_shape\": [1000000, 1000000]}\nDistance: 0.1\nPoni1: 0\n"
                   "Poni2: 0\nRot1: 0\nRot2: 0\nRot3: 0\nWavelength: 5e-11\n"),
    ],
)  # fmt: skip
def test_geometries_of_detectors_that_cannot_be(tmp_path, little, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match="1000000 x 1000000 pixels"):
        load_geometry(tmp_path / name)


def test_numbers_of_frames_that_are_far_apart(tmp_path, little):
    """As many as lie between are not made up in order to be counted."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        ids = file.create_dataset("NDArrayUniqueId", data=np.array([1, 2, 4, 2**31]))
        numbers, said = areadetector._numbers(ids, 4)
    assert numbers is not None
    assert said == f"NDArrayUniqueId 1-{2**31}, {2**31 - 4} dropped"


def test_corners_are_not_computed_for_a_size_that_the_frames_have_not(tmp_path, little):
    text = "wavelength:0.5\ndistance:100\ncenter:[1,1]\ntilt:0\nrotation:0\nDetDepth:0.3\n"
    (tmp_path / "a.imctrl").write_text(text + "pixelSize:[100,100]\nsize:[65,1000001]\n")
    with pytest.raises(InputError, match=r"1000001 x 65 pixels, but the frames have"):
        load_geometry(tmp_path / "a.imctrl", SHAPE)


@pytest.mark.parametrize("step", [1e-12, 0.0, float("nan"), -1.0])
def test_a_model_of_a_grid_that_cannot_be(model, little, step):
    change_card(model, lambda card: card["grid"].update(step=step))
    with pytest.raises(InputError, match=r"grid|entry is missing"):
        read_card(model)


def test_texts_that_nobody_wrote(folder):
    size = bounds.LARGEST_TEXT + 1
    for name in ("a.toml", "a.poni"):
        with Path(name).open("wb") as stream:
            stream.truncate(size)
    with pytest.raises(InputError, match="at most"):
        load_pipeline("a.toml")
    with pytest.raises(InputError, match="at most"):
        load_geometry("a.poni", SHAPE)


def test_what_detectors_write_is_within_the_bounds(tmp_path):
    """An Eiger2 16M and a flat panel of 36 Mpixel are frames; so are 200,000 of them."""
    for shape in ((3, 4362, 4148), (2, 6000, 6000), (200_000, 514, 1030)):
        bounds.check_image(shape[1:], "x")
        bounds.check_frames(shape[0], "x")
    image = rings(np.linspace(2, 20, 40 * 50).reshape(40, 50)).astype(np.int32)
    for name in ("a_1.tif", "b_1.cbf", "c_1.edf"):
        path = write_image(tmp_path / name, image)
        packed = path.with_name(f"{name}.gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        np.testing.assert_array_equal(read_image(packed).image, image)


# --- modules that a virtual dataset joins ----------------------------------------------------


def joined_modules(folder: Path, frames: int = 4, files: int = 1) -> NDArray[np.uint32]:
    """Two modules beside each other, each in so many files of frames; returns the frames."""
    images = np.random.default_rng(0).poisson(3, (frames, 32, 40)).astype(np.uint32) + 1
    layout = h5py.VirtualLayout((frames, 64, 40), np.uint32)
    each = frames // files
    for module, part in itertools.product(range(2), range(files)):
        name, rows = f"module_{module}_{part:04d}.h5", slice(part * each, (part + 1) * each)
        with h5py.File(folder / name, "w") as file:
            file.create_dataset(
                "data", data=images[rows], chunks=(1, 32, 40), **hdf5plugin.Bitshuffle()
            )
        source = h5py.VirtualSource(name, "data", (each, 32, 40))
        layout[rows, 32 * module : 32 * (module + 1)] = source
    with h5py.File(folder / "scan.h5", "w") as file:
        file.create_group("entry/data").create_virtual_dataset("data", layout)
    return np.concatenate([images, images], axis=1)


@pytest.mark.parametrize("damage", [4, 6, 13])
def test_a_damaged_chunk_of_a_joined_module_costs_its_frame(tmp_path, damage):
    """The filter would read and write outside its memory."""
    frames = joined_modules(tmp_path)
    with h5py.File(tmp_path / "module_1_0000.h5", "r+") as file:
        chunk = bytearray(file["data"].id.read_direct_chunk((2, 0, 0))[1])
        chunk[damage] ^= 0x7F
        file["data"].id.write_direct_chunk((2, 0, 0), bytes(chunk))
    series = open_frames(tmp_path / "scan.h5")
    assert [record.problem for record in series.records] == [0, 0, 0, 0]
    for row in (0, 1, 3):
        np.testing.assert_array_equal(series.read(row).image, frames[row])
    with pytest.raises(FrameError, match=r"frame 2 of .*truncated or damaged .*module_1_0000"):
        series.read(2)


def test_a_module_that_vanishes_costs_its_frames(tmp_path):
    """HDF5 would fill its place with zeros, and say nothing."""
    frames = joined_modules(tmp_path, frames=8, files=4)
    series = open_frames(tmp_path / "scan.h5")
    (tmp_path / "module_1_0002.h5").unlink()
    for row in (0, 1, 2, 3, 6, 7):
        np.testing.assert_array_equal(series.read(row).image, frames[row])
    for row in (4, 5):
        with pytest.raises(FrameError, match=r"module_1_0002\.h5 is not there") as found:
            series.read(row)
        assert found.value.status == FrameStatus.MISSING


OPENING_MANY = """
import resource, sys
import numpy as np
from xrdpipe.frames import open_frames

resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
series = open_frames("scan.h5")
for row in range(len(series.records)):
    np.save(sys.stdout.buffer, series.read(row).image)
"""


def test_more_modules_than_open_files(tmp_path):
    """HDF5 keeps every module open, and beyond the limit fills frames with zeros."""
    frames = joined_modules(tmp_path, frames=150, files=150)
    done = subprocess.run(
        [sys.executable, "-c", OPENING_MANY],
        cwd=tmp_path, capture_output=True, env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}"},
    )  # fmt: skip
    assert not done.returncode, done.stderr.decode()
    stream = io.BytesIO(done.stdout)
    for frame in frames:
        np.testing.assert_array_equal(np.load(stream), frame)


def joined_column(path: Path, damage: bool) -> None:
    """A stack of frames whose monitor lies in chunks of another file."""
    counts = np.arange(4000, dtype=np.uint32)
    with h5py.File(path.with_name("counts.h5"), "w") as file:
        data = file.create_dataset("c", data=counts, chunks=(1000,), **hdf5plugin.Bitshuffle())
        if damage:
            chunk = bytearray(data.id.read_direct_chunk((2000,))[1])
            chunk[6] ^= 0x7F
            data.id.write_direct_chunk((2000,), bytes(chunk))
    layout = h5py.VirtualLayout((4000,), np.uint32)
    layout[:] = h5py.VirtualSource("counts.h5", "c", (4000,))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("monitor", layout)


def test_a_damaged_chunk_of_a_joined_column_is_refused(tmp_path):
    joined_column(tmp_path / "a.h5", damage=False)
    np.testing.assert_array_equal(
        read_column(tmp_path / "a.h5", "monitor", "monitor"), np.arange(4000)
    )
    joined_column(tmp_path / "a.h5", damage=True)
    with pytest.raises(InputError, match=r"a\.h5"):
        read_column(tmp_path / "a.h5", "monitor", "monitor")


def test_a_column_of_more_files_than_may_be_open(tmp_path, monkeypatch):
    joined_column(tmp_path / "a.h5", damage=False)
    monkeypatch.setattr(bounds, "OTHER_FILES", 10**9)
    with pytest.raises(InputError, match=r"takes its values from 1 files.*ulimit -n"):
        read_column(tmp_path / "a.h5", "monitor", "monitor")


def test_a_column_made_of_itself_is_refused(tmp_path):
    """HDF5 follows it until the stack overflows."""
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        file["entry/data"] = np.ones((6, 16, 16), np.uint16)
        layout = h5py.VirtualLayout((6,), "u4")
        layout[:] = h5py.VirtualSource(".", "/entry/motor", (6,))
        file.create_virtual_dataset("entry/motor", layout)
    with pytest.raises(InputError, match="made of itself"):
        Column(str(tmp_path / "a.h5"), "/entry/motor").read()
