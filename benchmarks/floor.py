"""The floor: the least CPU time in which frames can be decoded, integrated and judged.

:file:`floor.c` is compiled for this very processor and run on one thread over frames in memory:
stock LZ4 (the copy inside hdf5plugin, else the system's), the bit planes that hold counts to
numbers, and ``c·x`` and ``c²·max(x, 1)`` of all valid pixels with pyFAI's coefficients. The floor
is the sum of these three. What else a program must do (read the file, bring 16 frames side by
side, look for damage and sentinels, divide, write) is its own affair; the second of these is
reported beside it. Timed in turn with it: with ``--kernel`` xrdpipe on the same
compressed frames in memory, and with ``--model`` networks alone, at the batch that suits the cache.

Run: ``python benchmarks/floor.py MASTER.h5 --poni P --mask M --bins LOW HIGH N -o OUT.json``
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from processes import ONE_THREAD

os.environ.update(ONE_THREAD)  # before numpy is imported

import fabio
import h5py
import hdf5plugin
import numpy as np
import pyFAI
import scipy.sparse as sp

FRAMES = 16
TILE = 1 << 15
LZ4, UNSHUFFLE, INTERLEAVE, SUMS = 1, 2, 4, 8
PARTS = {
    "lz4": LZ4,
    "unshuffle": UNSHUFFLE,
    "interleave": INTERLEAVE,
    "multiply_add": SUMS,
    "together": LZ4 | UNSHUFFLE | INTERLEAVE | SUMS,
}
"""What is timed alone, and all of it one after the other, tile by tile."""

CHUNK_SLACK = 64
"""Bytes behind a chunk: decoders load whole vectors, also at the end."""

DECODED = 4
"""Frames from which the bytes in use are known, and on which the sums are checked."""

ROUNDING = 5e-5
"""Of the float32 sums, in the largest."""

IN_FLOOR = ("lz4", "unshuffle", "multiply_add")

RARE = 1e-3
"""Fraction of a tile's pixels above one byte from which two are unshuffled: a program handles
fewer one by one."""


class _Plan(ctypes.Structure):
    """``floor_plan`` of floor.c."""

    _fields_ = [
        *[(name, ctypes.c_int64) for name in ("pixels", "item", "block", "tile", "tiles")],
        *[
            (name, ctypes.c_void_p)
            for name in (
                "width", "tile_runs", "run_entries", "run_bin", "pixel", "coefficient", "lz4",
                "planes", "rows", "lanes", "signal", "variance",
            )
        ],
    ]  # fmt: skip


def compiled(folder: Path) -> ctypes.CDLL:
    """``floor.c`` for this processor.

    Raises
    ------
    SystemExit
        Without a C compiler.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise SystemExit("no C compiler is found (cc, or CC in the environment); the floor is C.")
    target = folder / "floor.so"
    source = Path(__file__).with_suffix(".c")
    command = [compiler, "-O3", "-march=native", "-shared", "-fPIC", str(source), "-o", str(target)]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(target))


def stock_lz4() -> tuple[int, str]:
    """Address and origin of ``LZ4_decompress_safe``."""
    plugins = Path(hdf5plugin.PLUGINS_PATH)
    places = [*plugins.glob("libh5bshuf*"), *plugins.glob("libh5lz4*")]
    for place in [*map(str, places), ctypes.util.find_library("lz4")]:
        if place is None:
            continue
        try:
            function = ctypes.CDLL(place).LZ4_decompress_safe
        except (OSError, AttributeError):
            continue
        address = ctypes.cast(function, ctypes.c_void_p).value
        assert address is not None
        return address, Path(place).name
    raise SystemExit("no LZ4 library is found, neither in hdf5plugin nor in the system.")


def chunks_of(master: Path, count: int) -> tuple[list[np.ndarray], np.ndarray]:
    """The first frames as they are compressed, over and over if there are few, and some decoded."""
    chunks: list[np.ndarray] = []
    values = []
    with h5py.File(master, "r") as file:
        for data in file["entry/data"].values():
            for place in range(min(data.shape[0], count - len(chunks))):
                _, chunk = data.id.read_direct_chunk((place, 0, 0))
                chunks.append(np.frombuffer(chunk + bytes(CHUNK_SLACK), np.uint8))
                if len(values) < DECODED:
                    values.append(data[place].ravel())
    held = len(chunks)
    return [chunks[number % held] for number in range(count)], np.array(values)


def coefficients(options: argparse.Namespace, frame: np.ndarray, mask: np.ndarray) -> sp.csr_array:
    """pyFAI's splitting matrix of the valid pixels, shape (bins, pixels)."""
    low, high, count = float(options.bins[0]), float(options.bins[1]), int(options.bins[2])
    integrator = pyFAI.load(str(options.poni))
    result = integrator.integrate1d(
        frame.reshape(mask.shape),
        count,
        unit="2th_deg",
        radial_range=(low, high),
        method=("bbox", "csr", "cython"),
        mask=mask,
    )
    engine = integrator.engines[result.method].engine
    parts = tuple(np.asarray(part) for part in (engine.data, engine.indices, engine.indptr))
    return sp.csr_array(parts, shape=(count, frame.size))


class Floor:
    """Frames, matrix and buffers of one measurement.

    Parameters
    ----------
    library
        ``floor.c``.
    lz4
        Address of the stock decoder.
    matrix
        Coefficients of the valid pixels, shape (bins, pixels).
    chunks
        Compressed frames, as many as a multiple of 16.
    values
        Some of the same decoded, shape (frames, pixels).
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        lz4: int,
        matrix: sp.csr_array,
        chunks: list[np.ndarray],
        values: np.ndarray,
    ) -> None:
        self._library = library
        bins, pixels = matrix.shape
        tiles = -(-pixels // TILE)
        item = values.dtype.itemsize
        block = int.from_bytes(bytes(chunks[0][8:12]), "big") // item
        if TILE % block:
            raise SystemExit(f"blocks of {block} pixels do not fit into tiles of {TILE}.")
        used = np.diff(matrix.tocsc().indptr) > 0
        width = np.ones(tiles, np.uint8)
        for tile in range(tiles):
            part = slice(tile * TILE, (tile + 1) * TILE)
            seen = values[:, part][:, used[part]]
            width[tile] = 1 + (seen.size > 0 and np.mean(seen > 255) > RARE)
        runs, lengths, rows, pixel, coefficient = [0], [], [], [], []
        columns = matrix.tocsc()
        for tile in range(tiles):
            part = columns[:, tile * TILE : (tile + 1) * TILE].tocsr()
            part.sort_indices()
            length = np.diff(part.indptr)
            rows.append(np.flatnonzero(length))
            lengths.append(length[length > 0])
            pixel.append(part.indices)
            coefficient.append(part.data)
            runs.append(runs[-1] + len(rows[-1]))
        self.signal = np.zeros((bins, FRAMES), np.float32)
        self.variance = np.zeros((bins, FRAMES), np.float32)
        self.two_byte_tiles = float(np.mean(width == 2))
        self._held: dict[str, np.ndarray] = {
            "width": width,
            "tile_runs": np.array(runs, np.int64),
            "run_entries": np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype("i8"),
            "run_bin": np.concatenate(rows).astype(np.int32),
            "pixel": np.concatenate(pixel).astype(np.uint16),
            "coefficient": np.concatenate(coefficient).astype(np.float32),
            "planes": np.zeros(block * item + 64, np.uint8),
            "rows": np.zeros(2 * FRAMES * TILE + 64, np.uint8),
            "lanes": np.zeros(2 * FRAMES * TILE + 64, np.uint8),
        }
        # Sums are loaded and stored as aligned vectors.
        for name in ("signal", "variance"):
            self._held[name] = _aligned(getattr(self, name))
            setattr(self, name, self._held[name])
        self._plan = _Plan(pixels=pixels, item=item, block=block, tile=TILE, tiles=tiles, lz4=lz4)
        for name, array in self._held.items():
            setattr(self._plan, name, array.ctypes.data)
        self._chunks = chunks
        self._batches = [
            (ctypes.c_void_p * FRAMES)(*[c.ctypes.data for c in chunks[at : at + FRAMES]])
            for at in range(0, len(chunks), FRAMES)
        ]

    @property
    def entries(self) -> int:
        return int(self._held["pixel"].size)

    def run(self, parts: int) -> None:
        """All frames, batch by batch."""
        for batch in self._batches:
            self._library.floor_batch(ctypes.byref(self._plan), batch, parts)

    def sums_of_first(self) -> tuple[np.ndarray, np.ndarray]:
        """Signal and variance sums of the first batch, each of shape (bins, 16)."""
        self.signal[:], self.variance[:] = 0, 0
        parts = PARTS["together"]
        self._library.floor_batch(ctypes.byref(self._plan), self._batches[0], parts)
        return self.signal.copy(), self.variance.copy()


def _aligned(array: np.ndarray) -> np.ndarray:
    """A copy that begins at a multiple of 64 bytes."""
    raw = np.zeros(array.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    copy = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[:] = array
    return copy


def check(floor: Floor, matrix: sp.csr_array, values: np.ndarray) -> None:
    """The floor computes what it claims to, where no pixel exceeds the bytes that it looks at."""
    first = values.astype(np.float64)
    # The last pixels of a frame are not compressed; the floor leaves them out.
    end = first.shape[1] // 8 * 8
    matrix = matrix[:, :end]
    first = first[:, :end]
    signal, variance = floor.sums_of_first()
    used = np.diff(matrix.tocsc().indptr) > 0
    first[:, ~used] = 0
    width = np.repeat(floor._held["width"], TILE)[: first.shape[1]]
    seen = np.where(width == 1, first % 256, first % 65536)
    for found, expected in (
        (signal, matrix @ seen.T),
        (variance, matrix.power(2) @ np.maximum(seen, 1).T),
    ):
        apart = np.abs(found[:, : len(first)] - expected).max() / np.abs(expected).max()
        if not apart < ROUNDING:
            raise SystemExit(f"the floor's sums are wrong by {apart:.2g}.")


def cpu_ms(work: Callable[[], object], items: int) -> float:
    """CPU milliseconds per item."""
    started = time.process_time()
    work()
    return 1e3 * (time.process_time() - started) / items


def of_network(name: str, folder: str, patterns: int = 256) -> dict[str, Callable[[], object]]:
    """The networks of a model alone, and what they are shown, on one block of patterns."""
    import torch

    from xrdpipe.channels import build_channels
    from xrdpipe.nn.inference import STRETCH, load_model

    torch.set_num_threads(1)
    model = load_model(Path(folder), "cpu")
    drawn = np.random.default_rng(3).gamma(2.0, 1.0, (patterns, model.card.grid.size))
    intensity = drawn.astype(np.float32)
    covered = np.ones_like(intensity)
    views = torch.from_numpy(build_channels(model.card.channels, intensity, covered))

    def network() -> None:
        with torch.inference_mode():
            for member in model.evidence.networks:
                for row in range(0, patterns, STRETCH):
                    member.log_odds(views[row : row + STRETCH])

    def channels() -> None:
        build_channels(model.card.channels, intensity, covered)

    return {f"network: {name}": network, f"channels: {name}": channels}


def of_kernel(
    options: argparse.Namespace, chunks: list[np.ndarray]
) -> dict[str, Callable[[], object]]:
    """xrdpipe's decoding and integration of the same chunks; nothing where it has no kernel."""
    from xrdpipe.config import IntegrateConfig
    from xrdpipe.stages.integrate import prepare
    from xrdpipe.types import Encoded, Progress

    frames = [Encoded(chunk[:-CHUNK_SLACK].tobytes(), "bitshuffle-lz4") for chunk in chunks]
    works: dict[str, Callable[[], object]] = {}
    for name, more in (
        ("unmasked", {"variant": "unmasked"}),
        ("both with spottiness", {"variant": "both", "spottiness": True}),
    ):
        given = IntegrateConfig(
            frames=(str(options.master.parent),),
            poni=options.poni,
            bins=int(options.bins[2]),
            **more,
        )
        batch = prepare(given, Progress()).batch
        if batch is None:
            return {}

        def work(batch: Any = batch) -> None:
            for at in range(0, len(frames), batch.size):
                part = frames[at : at + batch.size]
                batch.reduce(part, [1.0] * len(part))

        works[f"xrdpipe: {name}"] = work
    return works


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds per frame of every part: median over repeats in which they take turns."""
    mask = fabio.open(str(options.mask)).data
    chunks, values = chunks_of(options.master, options.batches * FRAMES)
    matrix = coefficients(options, values[0], mask)
    address, origin = stock_lz4()
    with tempfile.TemporaryDirectory() as folder:
        floor = Floor(compiled(Path(folder)), address, matrix, chunks, values)
        check(floor, matrix, values)
    works = {
        name: (lambda parts=parts: floor.run(parts), len(chunks)) for name, parts in PARTS.items()
    }
    if options.kernel:
        works |= {name: (work, len(chunks)) for name, work in of_kernel(options, chunks).items()}
    for given in options.model:
        name, _, path = given.partition("=")
        works |= {part: (work, 256) for part, work in of_network(name, path).items()}
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(options.repeats + 1):
        for name, (work, items) in works.items():
            spent = cpu_ms(work, items)
            if turn:  # the first warms up
                times[name].append(spent)
    parts = {name: round(statistics.median(spent), 4) for name, spent in times.items()}
    return {
        "floor": round(sum(parts[name] for name in IN_FLOOR), 4),
        "parts": parts,
        "frames": len(chunks),
        "valid_pixels": int((np.diff(matrix.tocsc().indptr) > 0).sum()),
        "entries": floor.entries,
        "two_byte_tiles": round(floor.two_byte_tiles, 3),
        "lz4": origin,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("master", type=Path)
    parser.add_argument("--poni", type=Path, required=True)
    parser.add_argument("--mask", type=Path, required=True)
    parser.add_argument("--bins", nargs=3, required=True, metavar=("LOW", "HIGH", "N"))
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME=FOLDER", help="also time its networks"
    )
    parser.add_argument("--kernel", action="store_true", help="also time xrdpipe's kernel")
    parser.add_argument("--batches", type=int, default=2, help="of 16 frames (2)")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    text = json.dumps(measure(options), indent=1)
    if options.output:
        options.output.write_text(text + "\n")
    print(text, file=sys.stdout)


if __name__ == "__main__":
    main()
