"""Sound inputs of every kind, small, for the damage to be done to."""

from __future__ import annotations

import gzip
import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from benchmarks.fuzz.child import Seed

from xrdpipe.frames import write
from xrdpipe.masks import Component
from xrdpipe.nn.model_folder import find_model
from xrdpipe.store.masks import MaskRecord, write_mask
from xrdpipe.store.truth import Truth, write_truth

SHAPE = (64, 80)
GRID = (2, 3)

PONI = f"""poni_version: 2.1
Detector: Detector
Detector_config: {{"pixel1": 5e-4, "pixel2": 5e-4, "orientation": 3, "max_shape": {list(SHAPE)}}}
Distance: 0.2
Poni1: 0.016
Poni2: 0.02
Rot1: 0.02
Rot2: -0.01
Rot3: 0.0
Wavelength: 4.959e-11
"""

IMCTRL = f"""type:PWDR
wavelength:0.4959
distance:200.0
center:[20.0, 16.0]
tilt:0.5
rotation:30.0
DetDepth:0.03
pixelSize:[500.0, 500.0]
size:[{SHAPE[1]}, {SHAPE[0]}]
det2theta:0.0
calibrant:CeO2
"""


def image(random: np.random.Generator, dtype: str = "u4") -> np.ndarray:
    """A ring, a hot pixel and Poisson noise."""
    y, x = np.indices(SHAPE)
    radius = np.hypot(y - 32, x - 40)
    counts = random.poisson(3 + 60 * np.exp(-0.5 * ((radius - 20) / 2) ** 2))
    counts[5, 5] = 30000
    return np.minimum(counts, 250 if dtype == "u1" else 30000).astype(dtype)


def detector() -> write.DetectorDescription:
    """With gaps and bad pixels."""
    gaps, dead = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    gaps[30:32], dead[5, 6] = True, True
    bits = write.pixel_mask_bits(gaps, dead, np.zeros(SHAPE, bool))
    return write.DetectorDescription(
        "Pilatus300k", (5e-4, 5e-4), 0.2, 0.4959, (40, 32), 1_048_575, bits, 0.25
    )


def series(layout: str, work: Path) -> list[Seed]:
    """A scan in one of the file layouts: each of its first three files takes the damage."""
    folder = work / layout
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    frames = GRID[0] * GRID[1]
    scan = write.ScanDescription.regular(GRID, snake=True, monitor=random.uniform(9, 11, frames))
    with write.open_writer(layout, folder, "a", frames, detector(), scan) as put:
        for _ in range(frames):
            put(image(random, write.FORMAT_DTYPE[layout]))
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    if not any(name.endswith((".h5", ".nxs")) for name in files):
        files = dict(list(files.items())[:1])
    return [Seed(files, name) for name in list(files)[:3]]


def images(work: Path, *layouts: str) -> list[Seed]:
    """Scans in several layouts."""
    return [one for layout in layouts for one in series(layout, work)]


def numpy_files(work: Path) -> list[Seed]:
    """Images and stacks as ``.npy``."""
    random = np.random.default_rng(2)
    found = []
    for array in (image(random), np.stack([image(random, "f4")] * 3)):
        stream = io.BytesIO()
        np.save(stream, array)
        found.append(Seed({"a_0001.npy": stream.getvalue()}, "a_0001.npy"))
    return found


def compressed(work: Path) -> list[Seed]:
    """Images in gzip."""
    return [
        Seed({f"{one.damaged}.gz": gzip.compress(one.files[one.damaged], mtime=0)},
             f"{one.damaged}.gz")
        for one in images(work, "tiff", "cbf", "edf")
    ]  # fmt: skip


FILTERS: dict[str, Any] = {
    "bitshuffle": hdf5plugin.Bitshuffle(),
    "bitshuffle8": hdf5plugin.Bitshuffle(nelems=8),
    "bitshufflezstd": hdf5plugin.Bitshuffle(cname="zstd"),
    "lz4": hdf5plugin.LZ4(),
    "lz4blocks": hdf5plugin.LZ4(nbytes=1024),
    "zstd": hdf5plugin.Zstd(),
    "blosc": hdf5plugin.Blosc(),
    "blosc2": hdf5plugin.Blosc2(),
    "gzip": {"compression": "gzip"},
    "gzipshuffle": {"compression": "gzip", "shuffle": True},
    "lzf": {"compression": "lzf"},
}
"""Compressions by the names in the names of chunk files."""


def new_dataset(file: h5py.File, filter_name: str, dtype: str, frames: int = 2) -> h5py.Dataset:
    """A dataset of frames of one chunk each."""
    entry = file.create_group("entry/data")
    return entry.create_dataset(
        "data", (frames, *SHAPE), dtype, chunks=(1, *SHAPE), **FILTERS[filter_name]
    )


def chunks(*names: str) -> list[Seed]:
    """Compressed frames: ``FILTER.DTYPE``."""
    random = np.random.default_rng(3)
    found = []
    for name in names:
        filter_name, dtype = name.split(".")
        with h5py.File(io.BytesIO(), "w") as file:
            data = new_dataset(file, filter_name, dtype, 1)
            data[0] = image(random, dtype)
            found.append(Seed({name: data.id.read_direct_chunk((0, 0, 0))[1]}, name))
    return found


def masks(work: Path) -> list[Seed]:
    """Masks as HDF5, EDF and .npy."""
    work.mkdir(parents=True, exist_ok=True)
    bad = np.zeros(SHAPE, bool)
    bad[3:9, 4:8] = True
    record = MaskRecord(SHAPE, (Component("hot", "made", bad),), "x", {}, {}, (), (), {})
    found = []
    for name in ("mask.h5", "mask.edf", "mask.npy"):
        write_mask(work / name, record)
        found.append(Seed({name: (work / name).read_bytes()}, name))
    return found


def truth(work: Path) -> list[Seed]:
    """A truth file."""
    work.mkdir(parents=True, exist_ok=True)
    plane = np.ones((2, *GRID), np.float32)
    lattice = np.ones((2, *GRID, 6), np.float32)
    made = Truth(("a", "b"), plane > 0, plane, plane, lattice, plane, {"frame": plane[0]})
    write_truth(work / "truth.h5", made)
    return [Seed({"truth.h5": (work / "truth.h5").read_bytes()}, "truth.h5")]


def patterns_and_map(work: Path) -> tuple[list[Seed], list[Seed]]:
    """A patterns file and a map of it, made by the stages themselves."""
    from xrdpipe.config import IntegrateConfig, MapConfig
    from xrdpipe.stages import integrate
    from xrdpipe.stages import map as map_stage

    (folder := work / "scan").mkdir(parents=True)
    for one in series("nexus-stack", work)[:1]:
        for name, content in one.files.items():
            (folder / name).write_bytes(content)
    # Near and bent, so that the shipped model's range is covered.
    (work / "a.poni").write_text(PONI.replace("Distance: 0.2", "Distance: 0.04"))
    patterns, phase_map = work / "patterns.h5", work / "map.h5"
    integrate.run(
        IntegrateConfig(
            frames=(str(folder),), poni=work / "a.poni", output=patterns, bins=300, cache=False,
            spottiness=True,
        )
    )  # fmt: skip
    map_stage.run(
        MapConfig(patterns=(str(patterns),), output=phase_map, scan_shape="2x3", device="cpu")
    )
    return (
        [Seed({"patterns.h5": patterns.read_bytes()}, "patterns.h5")],
        [Seed({"map.h5": phase_map.read_bytes()}, "map.h5")],
    )


def model_files() -> dict[str, bytes]:
    """The shipped model, with one member only."""
    folder = find_model()
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    card = json.loads(files["model.json"])
    for key in ("weights", "calibration"):
        card[key] = card[key][:1]
    files["model.json"] = json.dumps(card).encode()
    return {
        name: content
        for name, content in files.items()
        if name in ("model.json", "weights-0.safetensors") or name.endswith(".cif")
    }


def small_model() -> dict[str, bytes]:
    """A model of the least weights, so that most damage hits what describes them."""
    files = model_files()
    header = {"coefficients": {"dtype": "F32", "shape": [3, 2], "data_offsets": [0, 24]}}
    text = json.dumps(header).encode()
    files["weights-0.safetensors"] = struct.pack("<Q", len(text)) + text + bytes(24)
    card = json.loads(files["model.json"])
    card["network"], card["channels"], card["unknown"] = "matched-filter", [], None
    files["model.json"] = json.dumps(card).encode()
    return files


def cifs() -> list[Seed]:
    """Shipped structures."""
    files = list(find_model().rglob("*.cif"))
    files += sorted((Path(__file__).parents[2] / "src/xrdpipe/phases").glob("*.cif"))
    return [Seed({"a.cif": path.read_bytes()}, "a.cif") for path in files]


def tables() -> list[Seed]:
    """Positions and monitors as text, SPEC and HDF5."""
    rows = [(i, 0.1 * (i % 3), 0.2 * (i // 3), 1000 + i) for i in range(1, 7)]
    csv = "frame,x,y,I0\n" + "".join(f"{a},{b:.3f},{c:.3f},{d}\n" for a, b, c, d in rows)
    blank = "# frame x y I0\n" + "".join(f"{a} {b:.3f} {c:.3f} {d}\n" for a, b, c, d in rows)
    spec = "#F a\n#S 1 ascan x 0 1 5\n#N 4\n#L frame  x  y  I0\n" + blank.partition("\n")[2] + "\n"
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        for place, name in enumerate(("frame", "x", "y", "I0")):
            file[name] = np.array([row[place] for row in rows])
    return [
        Seed({name: content}, name)
        for name, content in (
            ("a.csv", csv.encode()), ("a.txt", blank.encode()), ("a.spec", spec.encode()),
            ("a.h5", memory.getvalue()),
        )
    ]  # fmt: skip


def powders() -> list[Seed]:
    """1D patterns in every text format that is read."""
    axis = np.linspace(5, 25, 201)
    counts = 10 + 100 * np.exp(-0.5 * ((axis - 12) / 0.1) ** 2)
    columns = "".join(f"{x:.3f} {y:.3f} {y**0.5:.3f}\n" for x, y in zip(axis, counts, strict=True))
    two = "".join(f" {x:.7E} {y:.7E}\n" for x, y in zip(axis, counts, strict=True))
    centi = "".join(
        f"{100 * x:.4f} {y:.4f} {y**0.5:.4f}\n" for x, y in zip(axis, counts, strict=True)
    )
    xml = (
        '<?xml version="1.0"?><xrdMeasurements xmlns="http://www.xrdml.com/XRDMeasurement/1.5">'
        "<xrdMeasurement><usedWavelength><kAlpha1>1.5406</kAlpha1></usedWavelength><scan>"
        '<dataPoints><positions axis="2Theta" unit="deg"><startPosition>5</startPosition>'
        "<endPosition>25</endPosition></positions><commonCountingTime>1</commonCountingTime>"
        f"<intensities>{' '.join(f'{y:.0f}' for y in counts)}</intensities></dataPoints></scan>"
        "</xrdMeasurement></xrdMeasurements>"
    )
    texts = {
        "a.xye": "# wavelength: 0.4959 A\n# 2th_deg I sigma\n" + columns,
        "a.xy": "# 2th_deg I\n" + two,
        "a.chi": f"a.chi\n2-Theta Angle (Degrees)\nIntensity\n  {axis.size}\n{two}",
        "a.dat": f" 5.0 0.1 25.0 title\n{' '.join(f'{y:.0f}' for y in counts)}\n",
        "a.fxye": f"title\nBANK 1 201 201 CONS 500.0 10.0 0 0 FXYE\n{centi}",
        "a.xrdml": xml,
    }
    return [Seed({name: text.encode()}, name) for name, text in texts.items()]


def pipelines() -> list[Seed]:
    """Shipped pipelines and recipes."""
    folder = Path(__file__).parents[2] / "pipelines"
    return [Seed({"a.toml": path.read_bytes()}, "a.toml") for path in _files(folder)]


def _files(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.rglob("*.toml"))
