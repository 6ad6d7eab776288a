"""The readers: what each is given, and how far it is driven."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from benchmarks.fuzz import mutations as damage
from benchmarks.fuzz import seeds
from benchmarks.fuzz.child import Seed

from xrdpipe.config import InspectConfig, ValidateConfig
from xrdpipe.crystal import load_phase, reflections
from xrdpipe.errors import FrameError, XrdpipeError
from xrdpipe.frames import open_frames
from xrdpipe.frames.auxiliary import load_masks
from xrdpipe.frames.powder_files import read_powder_file
from xrdpipe.frames.tables import number_column, read_column, read_table, read_texts
from xrdpipe.integration.batch import BatchReducer
from xrdpipe.integration.geometry import Geometry, choose_binning, load_geometry
from xrdpipe.integration.reduce import FrameReducer, ReductionSettings
from xrdpipe.nn.train_recipe import load_recipe
from xrdpipe.pipeline import load_pipeline
from xrdpipe.stages import inspect, validate
from xrdpipe.store.maps import read_map
from xrdpipe.store.patterns import PatternsFile
from xrdpipe.store.truth import read_truth
from xrdpipe.types import Encoded


@dataclass(frozen=True)
class Reader:
    """One way into the program.

    Parameters
    ----------
    name, what
        For the table.
    seeds
        Makes the sound inputs in a folder.
    mutations
        Ways of damage.
    attempt
        Reads everything that a run would read of the damaged file.
    prepare
        Once, before children are forked.
    """

    name: str
    what: str
    seeds: Callable[[Path], list[Seed]]
    mutations: tuple[damage.Mutation, ...]
    attempt: Callable[[Path], None]
    prepare: Callable[[], object] = lambda: None


# --- frames ----------------------------------------------------------------------------------


@functools.cache
def geometry() -> Geometry:
    """Of the small detector of the seeds."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.poni"
        path.write_text(seeds.PONI)
        made = load_geometry(path)
        assert made.two_theta.shape == seeds.SHAPE  # computed while the file is there
        return made


@functools.cache
def batch(dtype: np.dtype) -> BatchReducer | None:
    """The compiled kernel, as a run uses it; None for pixels that it does not take."""
    if dtype.str not in ("|u1", "<u2", "<u4", "<i4", "<f4"):
        return None
    settings = ReductionSettings(variants=("masked", "unmasked"), spottiness=True)
    binning = choose_binning(geometry(), "2theta", 60, None)
    return BatchReducer(FrameReducer(geometry(), binning, settings), dtype)


def prepare_kernel() -> None:
    """Plans of all pixel types."""
    for kind in ("u1", "u2", "u4", "i4", "f4"):
        batch(np.dtype(kind))


def frames(path: Path) -> None:
    """Open, look at everything stated, fetch, decode and reduce three frames."""
    source = open_frames(_openable(path))
    _ = source.exposure, source.detector, source.scan
    for name in list(source.columns)[:30]:
        source.column(name)
    kernel = batch(source.dtype) if source.shape == seeds.SHAPE else None
    refusal = None
    for row in range(min(len(source.records), 3)):
        try:
            fetched = source.fetch(row)
            if kernel is not None:
                kernel.reduce([fetched], [1.0])  # a damaged frame is None: read() says why
            if isinstance(fetched, Encoded):
                source.read(row)
        except FrameError as error:
            refusal = error
    if refusal is not None:
        raise refusal


def _openable(path: Path) -> Path:
    """What a user would name: the master, if the damage was done to one of its files."""
    folder = next((p for p in path.parents if p.name == "input"), path.parent)
    masters = sorted(folder.glob("*_master.h5")) or sorted(folder.glob("*.nxs"))
    return masters[0] if masters else path


def chunk(path: Path) -> None:
    """A compressed frame put into a dataset as it is."""
    filter_name, dtype = path.name.split(".")
    content = path.read_bytes()
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        seeds.new_dataset(file, filter_name, dtype, 1).id.write_direct_chunk((0, 0, 0), content)
    frames(path.with_suffix(".h5"))


# --- everything else -------------------------------------------------------------------------


def mask(path: Path) -> None:
    """A mask of the detector."""
    load_masks((str(path),), seeds.SHAPE, "none", 0)


def processed(path: Path) -> None:
    """Read as every stage does; ``inspect`` and ``validate`` look, too."""
    _all_of(
        lambda: inspect.run(InspectConfig(path=(str(path),))),
        lambda: validate.run(ValidateConfig(file=path)),
        lambda: _patterns(path) if path.name == "patterns.h5" else read_map(path),
    )


def _patterns(path: Path) -> None:
    with PatternsFile(path) as file:
        for name in list(file.columns)[:30]:
            file.column(name)
        _ = file.scan, file.source_files, file.run_key(), file.signals
        for start in range(0, min(file.n_rows, 512), 256):
            file.rows(start, start + 256)


def truth(path: Path) -> None:
    """A truth file."""
    _all_of(lambda: read_truth(path), lambda: validate.run(ValidateConfig(file=path)))


def _all_of(*readings: Callable[[], object]) -> None:
    """Each of them, whatever the others say; the last refusal is raised at the end."""
    refusal = None
    for reading in readings:
        try:
            reading()
        except XrdpipeError as error:
            refusal = error
    if refusal is not None:
        raise refusal


def phase(path: Path) -> None:
    """A structure and its lines."""
    reflections(load_phase(path), 0.4959, 0.8)


def poni(path: Path) -> None:
    """A geometry, and bins over it."""
    found = load_geometry(path, seeds.SHAPE)
    choose_binning(found, "2theta", None, None)


def pipeline(path: Path) -> None:
    """A pipeline or a recipe; nothing is run."""
    try:
        load_pipeline(str(path))
    except XrdpipeError:
        load_recipe(path)


def model(path: Path) -> None:
    """A model folder, and one prediction."""
    from xrdpipe.nn.inference import load_model
    from xrdpipe.nn.model_folder import determined, phase_library

    folder = next(p for p in path.parents if (p / "model.json").is_file())
    phase_library(folder)
    loaded = load_model(folder, "cpu")
    grid = loaded.card.grid
    patterns = np.ones((2, grid.size), np.float32)
    determined(loaded.card, patterns)
    loaded.predict(patterns, patterns, patterns)


def prepare_model() -> None:
    """Import what takes seconds."""
    import torch

    from xrdpipe.nn.inference import load_model
    from xrdpipe.nn.model_folder import find_model

    torch.set_num_threads(1)
    load_model(find_model(), "cpu")


def table(path: Path) -> None:
    """Positions and monitors."""
    columns = read_table(path, "positions")
    number_column(columns)
    read_texts(path, "positions")
    for name in list(columns)[:5]:
        read_column(path, name, "monitor")


def powder(path: Path) -> None:
    """A 1D pattern."""
    read_powder_file(path)


def _model_seeds(_: Path) -> list[Seed]:
    cases: Iterable[dict[str, bytes]] = (seeds.model_files(), seeds.small_model())
    return [Seed(files, "model.json") for files in cases]


def _weights_seeds(_: Path) -> list[Seed]:
    return [Seed(seeds.model_files(), "weights-0.safetensors")]


BYTES = (damage.damaged, damage.header_damaged)
TEXT = (damage.reworded,)
HDF5 = ("eiger", "eiger-4d", "lima", "bliss", "areadetector", "maxiv", "petra", "nexus",
        "nexus-stack", "hdf5")  # fmt: skip

# fmt: off
READERS = (
    Reader(
        "bitshuffle-LZ4 chunks",
        "chunk header and blocks, through the compiled kernel, then the HDF5 filter",
        lambda _: seeds.chunks(
            "bitshuffle.u4", "bitshuffle.u2", "bitshuffle.u1", "bitshuffle.i4", "bitshuffle8.u4"
        ),
        BYTES,
        chunk,
        prepare_kernel,
    ),
    Reader(
        "other chunks",
        "LZ4, bitshuffle-zstd, zstd, blosc, blosc2, gzip and LZF, through the HDF5 filters",
        lambda _: seeds.chunks(
            "lz4.u4", "lz4blocks.u2", "bitshufflezstd.u4", "zstd.u4", "blosc.u4", "blosc2.u4",
            "gzip.u4", "gzipshuffle.u4", "lzf.u4",
        ),
        BYTES,
        chunk,
        prepare_kernel,
    ),
    Reader("CBF", "header and byte offsets", lambda w: seeds.images(w, "cbf"),
           (*BYTES, damage.header_damaged, damage.resealed), frames, prepare_kernel),
    Reader("TIFF", "tags, pages, strips; MarCCD",
           lambda w: seeds.images(w, "tiff", "tiff-stack", "marccd"), BYTES, frames,
           prepare_kernel),
    Reader("EDF", "headers and stacks", lambda w: seeds.images(w, "edf", "edf-stack"),
           (*BYTES, damage.header_reworded), frames, prepare_kernel),
    Reader("other images", "mar345, SPE, GE, NumPy",
           lambda w: [*seeds.images(w, "mar345", "spe", "ge"), *seeds.numpy_files(w)], BYTES,
           frames, prepare_kernel),
    Reader("images in gzip", "TIFF, CBF and EDF", lambda w: seeds.compressed(w),
        (damage.damaged, damage.repacked, damage.repacked), frames,
           prepare_kernel),
    Reader("HDF5 frames, objects", "groups, datasets, attributes and links of ten layouts",
           lambda w: seeds.images(w, *HDF5), (damage.restructured,), frames, prepare_kernel),
    Reader("HDF5 frames, bytes", "the same files damaged as files",
           lambda w: seeds.images(w, *HDF5), BYTES, frames, prepare_kernel),
    Reader("patterns and maps, objects", "read by every stage, `inspect` and `validate`",
           lambda w: [s for part in seeds.patterns_and_map(w) for s in part],
           (damage.restructured,), processed),
    Reader("patterns and maps, bytes", "the same files damaged as files",
           lambda w: [s for part in seeds.patterns_and_map(w) for s in part], BYTES, processed),
    Reader("truth files", "objects", lambda w: seeds.truth(w), (damage.restructured,), truth),
    Reader("masks", "HDF5, EDF, NumPy", lambda w: seeds.masks(w), BYTES, mask),
    Reader("CIF", "structure, symmetry, lines", lambda _: seeds.cifs(), TEXT, phase),
    Reader("PONI", "through pyFAI", lambda _: [Seed({"a.poni": seeds.PONI.encode()}, "a.poni")],
           TEXT, poni),
    Reader("GSAS-II image controls", "`.imctrl`",
           lambda _: [Seed({"a.imctrl": seeds.IMCTRL.encode()}, "a.imctrl")], TEXT, poni),
    Reader("TOML", "pipelines and recipes", lambda _: seeds.pipelines(), TEXT, pipeline),
    Reader("model.json", "with loading and one prediction", _model_seeds, (damage.rewritten,),
           model, prepare_model),
    Reader("safetensors", "hash made to fit", _weights_seeds, (damage.tensors,),
           lambda path: rehashed(path), prepare_model),
    Reader("tables", "CSV, columns, SPEC, HDF5", lambda _: seeds.tables(), TEXT, table),
    Reader("1D patterns", "XY, XYE, CHI, FullProf, FXYE, XRDML", lambda _: seeds.powders(), TEXT,
           powder),
)
# fmt: on


def rehashed(path: Path) -> None:
    """Weights that the card vouches for: who sends a model sends both."""
    import hashlib
    import json

    card = path.with_name("model.json")
    content = json.loads(card.read_text())
    content["weights"][0]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    card.write_text(json.dumps(content))
    model(path)
