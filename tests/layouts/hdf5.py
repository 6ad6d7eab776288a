"""HDF5 files as control systems and detectors write them: names, attributes, dtypes, filters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np

from layouts import SHAPE, Build, Built, Layout, some_frames
from xrdpipe.schema import FrameStatus

OK, MISSING = FrameStatus.OK, FrameStatus.MISSING
CORRUPT, WRONG_SHAPE = FrameStatus.CORRUPT, FrameStatus.WRONG_SHAPE
DUPLICATE = FrameStatus.DUPLICATE

N = 10
BITSHUFFLE = hdf5plugin.Bitshuffle(cname="lz4")
LZ4 = hdf5plugin.LZ4()
WAVELENGTH, DISTANCE, EXPOSURE = 0.4959, 0.35, 0.05
ENERGY = 12.398419843320026 / WAVELENGTH

GAPS = np.zeros(SHAPE, np.uint32)
GAPS[15:17] = 1
GAPS[3, 4] = 2
GAPS[20, 30] = 8


def put(group: h5py.Group, name: str, value: Any, **attributes: Any) -> h5py.Dataset:
    """A dataset with attributes."""
    data = group.create_dataset(name, data=value)
    data.attrs.update(attributes)
    return data


def nx(parent: h5py.Group, name: str, nx_class: str, **attributes: Any) -> h5py.Group:
    """A NeXus group."""
    group = parent.require_group(name)
    group.attrs.update({"NX_class": nx_class, **attributes})
    return group


def write_stack(
    group: h5py.Group,
    name: str,
    frames: np.ndarray,
    filters: Any = BITSHUFFLE,
    length: int | None = None,
    skip: tuple[int, ...] = (),
) -> h5py.Dataset:
    """Frames one per chunk; ``skip`` are never written, the dataset is ``length`` long."""
    n = length or len(frames)
    shape = frames.shape[1:]
    data = group.create_dataset(
        name, (n, *shape), frames.dtype, chunks=(1, *shape), maxshape=(None, *shape), **filters
    )
    for place, frame in enumerate(frames):
        if place not in skip:
            data[place] = frame
    return data


def damage_chunk(path: Path, dataset: str, place: int) -> None:
    """Overwrite what a chunk holds, as a failing disk does."""
    with h5py.File(path, "r") as file:
        data = file[dataset]
        chunk = data.id.get_chunk_info_by_coord(
            tuple(place * int(i == 0) for i in range(data.ndim))
        )
    with path.open("r+b") as stream:
        stream.seek(chunk.byte_offset + 20)
        stream.write(b"\xff" * (chunk.size - 24))


def marked(status: FrameStatus, *rows: int, n: int = N) -> tuple[int, ...]:
    """Everything fine but these rows."""
    return tuple(int(status if row in rows else OK) for row in range(n))


# --- DECTRIS ---------------------------------------------------------------------------------


def eiger_metadata(entry: h5py.Group, bits: int, mask: np.ndarray | None = GAPS) -> None:
    """The tree of SIMPLON 1.8, legacy format."""
    instrument = nx(entry, "instrument", "NXinstrument")
    put(nx(instrument, "beam", "NXbeam"), "incident_wavelength", WAVELENGTH, units="angstrom")
    detector = nx(instrument, "detector", "NXdetector")
    put(detector, "description", b"Dectris EIGER2 Si 1M")
    put(detector, "detector_number", b"E-02-0123")
    put(detector, "bit_depth_image", np.uint32(bits))
    put(detector, "bit_depth_readout", np.uint32(16))
    put(detector, "saturation_value", np.uint32(40000))
    put(detector, "detector_distance", DISTANCE, units="m")
    put(detector, "count_time", EXPOSURE, units="s")
    put(detector, "frame_time", EXPOSURE + 1e-5, units="s")
    put(detector, "sensor_material", b"Si")
    put(detector, "x_pixel_size", 75e-6, units="m")
    specific = nx(detector, "detectorSpecific", "NXcollection")
    put(specific, "nimages", np.uint32(N))
    put(specific, "ntrigger", np.uint32(1))
    put(specific, "countrate_correction_count_cutoff", np.uint32(41000))
    if mask is not None:
        specific.create_dataset("pixel_mask", data=mask, chunks=mask.shape, **BITSHUFFLE)
        detector["pixel_mask"] = h5py.SoftLink(f"{specific.name}/pixel_mask")


EIGER = {
    "kind": "Eiger master",
    "exposure": EXPOSURE,
    "wavelength": WAVELENGTH,
    "distance": DISTANCE,
    "saturation": 40000.0,
    "pixel_mask": GAPS,
}


def eiger(
    folder: Path,
    damage: str = "",
    dtype: str = "u2",
    filters: Any = BITSHUFFLE,
    links: str = "data",
) -> Built:
    """Master with data files of 4, 4 and 2 frames; links of the oldest ones lie in the entry."""
    frames = some_frames(N, dtype)
    other = np.ones((4, SHAPE[0] - 4, SHAPE[1]), dtype)
    numbers = np.arange(1, N + 1)
    status = {
        "missing": marked(MISSING, 4, 5, 6, 7),
        "unwritten": marked(MISSING, 6),
        "damaged": marked(CORRUPT, 5),
        "wrong shape": marked(WRONG_SHAPE, 4, 5, 6, 7),
        "duplicate": marked(DUPLICATE, 8),
    }.get(damage)
    if damage == "duplicate":
        numbers[8:] -= 1
    for number, start in enumerate(range(0, N, 4), 1):
        part = other if damage == "wrong shape" and number == 2 else frames[start : start + 4]
        if damage == "missing" and number == 2:
            continue
        path = folder / f"s1_data_{number:06d}.h5"
        with h5py.File(path, "w") as file:
            group = nx(nx(file, "entry", "NXentry"), "data", "NXdata")
            skip = (2,) if damage == "unwritten" and number == 2 else ()
            data = write_stack(group, "data", part, filters, skip=skip)
            data.attrs["image_nr_low"] = np.int32(numbers[start])
            data.attrs["image_nr_high"] = np.int32(numbers[start] + len(part) - 1)
        if damage == "damaged" and number == 2:
            damage_chunk(path, "entry/data/data", 1)
    with h5py.File(folder / "s1_master.h5", "w") as file:
        entry = nx(file, "entry", "NXentry")
        data = nx(entry, links, "NXdata", signal="data_000001") if links else entry
        for number in (1, 2, 3):
            name = f"data_{number:06d}"
            data[name] = h5py.ExternalLink(f"s1_{name}.h5", "/entry/data/data")
        eiger_metadata(entry, 8 * frames.itemsize)
    path = str(folder) if damage == "" else str(folder / "s1_master.h5")
    return Built((path,), frames, tuple(numbers.tolist()), status=status, **EIGER)


def eiger_channels(folder: Path, damage: str = "") -> Built:
    """Format v2024.2: one virtual dataset (frame, channel, y, x) over the data files."""
    frames = some_frames(N, "u4")
    both = np.stack([frames, frames // 3], axis=1)
    virtual = h5py.VirtualLayout(both.shape, "u4")
    for number, start in enumerate(range(0, N, 5), 1):
        name = f"s2_data_{number:06d}.h5"
        stop = start + 5
        virtual[start:stop] = h5py.VirtualSource(name, "/entry/data/data", both[start:stop].shape)
        if damage == "missing" and number == 2:
            continue
        with h5py.File(folder / name, "w") as file:
            group = nx(nx(file, "entry", "NXentry"), "data", "NXdata")
            data = group.create_dataset(
                "data", both[start:stop].shape, "u4", chunks=(1, 1, *SHAPE), **BITSHUFFLE
            )
            for place in range(5):
                for channel in range(2):
                    if not (damage == "unwritten" and (number, place, channel) == (1, 3, 0)):
                        data[place, channel] = both[start + place, channel]
        if damage == "damaged" and number == 2:
            damage_chunk(folder / name, "entry/data/data", 2)
    with h5py.File(folder / "s2_master.h5", "w", libver="v110") as file:
        entry = nx(file, "entry", "NXentry", version="v1.5")
        put(entry, "program_name", "DECTRIS-DAQ", version="1.8.0")
        data = nx(entry, "data", "NXdata", signal="data", axes=["image_id", "channel", ".", "."])
        data.create_virtual_dataset("data", virtual)
        put(data, "image_id", np.arange(1, N + 1))
        put(data, "channel", ["threshold_1", "threshold_2"])
        instrument = nx(entry, "instrument", "NXinstrument")
        put(nx(instrument, "beam", "NXbeam"), "incident_energy", ENERGY * 1e3, units="eV")
        detector = nx(instrument, "detector", "NXdetector")
        put(detector, "description", "DECTRIS EIGER2 Si 1M")
        put(detector, "bit_depth_image", np.uint32(32))
        put(detector, "saturation_value", np.uint32(40000))
        put(detector, "distance", DISTANCE, units="m")
        put(detector, "count_time", EXPOSURE, units="s")
        put(nx(detector, "threshold_1_channel", "NXdetector_channel"), "pixel_mask", GAPS)
        other = nx(detector, "threshold_2_channel", "NXdetector_channel")
        put(other, "pixel_mask", np.zeros(SHAPE, np.uint32))
    status = {
        "missing": marked(MISSING, *range(5, 10)),
        "unwritten": marked(MISSING, 3),
        "damaged": marked(CORRUPT, 7),
    }.get(damage)
    path = str(folder / "s2_master.h5")
    return Built((path,), frames, tuple(range(1, N + 1)), status=status, **EIGER)


def eiger_in_master(folder: Path, damage: str = "") -> Built:
    """``nimages_per_file = 0``: no data files."""
    frames = some_frames(N, "u4")
    path = folder / "s3_master.h5"
    with h5py.File(path, "w") as file:
        entry = nx(file, "entry", "NXentry")
        group = nx(entry, "data", "NXdata", signal="data")
        skip = (8, 9) if damage == "unwritten" else ()
        data = write_stack(group, "data", frames, skip=skip)
        data.attrs["image_nr_low"] = np.int32(1)
        data.attrs["image_nr_high"] = np.int32(N)
        eiger_metadata(entry, 32)
    if damage == "damaged":
        damage_chunk(path, "entry/data/data", 0)
    status = {"unwritten": marked(MISSING, 8, 9), "damaged": marked(CORRUPT, 0)}.get(damage)
    return Built((str(path),), frames, tuple(range(1, N + 1)), status=status, **EIGER)


def eiger_single(folder: Path) -> Built:
    """One image without an axis of frames (externally gated HDR mode)."""
    frames = some_frames(1, "u4")
    with h5py.File(folder / "s4_data_000001.h5", "w") as file:
        group = nx(nx(file, "entry", "NXentry"), "data", "NXdata")
        group.create_dataset("data", data=frames[0], chunks=SHAPE, **BITSHUFFLE)
    with h5py.File(folder / "s4_master.h5", "w") as file:
        entry = nx(file, "entry", "NXentry")
        data = nx(entry, "data", "NXdata")
        data["data_000001"] = h5py.ExternalLink("s4_data_000001.h5", "/entry/data/data")
        eiger_metadata(entry, 32, None)
    rest = {**EIGER, "pixel_mask": None}
    return Built((str(folder / "s4_master.h5"),), frames, (1,), **rest)


def eiger_without_master(folder: Path, damage: str = "") -> Built:
    """Someone copied the data files only."""
    built = eiger(folder, damage)
    (folder / "s1_master.h5").unlink()
    return Built(
        (str(folder),), built.frames, built.numbers, kind="Eiger data files", status=built.status
    )


def eiger_data_file(folder: Path) -> Built:
    """A data file without its master: it knows its numbers, and nothing else."""
    eiger(folder)
    frames = some_frames(N, "u2")[4:8]
    path = folder / "s1_data_000002.h5"
    return Built((str(path),), frames, (5, 6, 7, 8), kind="Eiger data file")


# --- ESRF ------------------------------------------------------------------------------------


def lima_file(path: Path, frames: np.ndarray, **stack: Any) -> None:
    """What LImA's CtSaving writes."""
    with h5py.File(path, "w") as file:
        file.attrs.update(
            {"NX_class": "NXroot", "creator": "LIMA-1.9.24", "default": "/entry_0000"}
        )
        entry = nx(file, "entry_0000", "NXentry")
        put(entry, "title", "Lima 2D detector acquisition")
        detector = nx(nx(entry, "ESRF-ID13", "NXinstrument"), "eiger", "NXdetector")
        write_stack(detector, "data", frames, **stack)
        detector["data"].attrs["interpretation"] = "image"
        info = nx(detector, "detector_information", "NXcollection")
        put(info, "model", "Eiger 4M")
        put(info, "name", "DECTRIS")
        acquisition = nx(detector, "acquisition", "NXcollection")
        put(acquisition, "exposure_time", EXPOSURE, units="s")
        put(acquisition, "nb_frames", len(frames))
        nx(entry, "measurement", "NXcollection")["data"] = h5py.SoftLink(f"{detector.name}/data")


def lima(folder: Path, damage: str = "") -> Built:
    frames = some_frames(N, "u4")
    path = folder / "eiger_0000.h5"
    # LImA makes room for a whole file before the frames come.
    lima_file(path, frames, skip=(8, 9) if damage == "unwritten" else ())
    if damage == "damaged":
        damage_chunk(path, "entry_0000/ESRF-ID13/eiger/data", 3)
    status = {"unwritten": marked(MISSING, 8, 9), "damaged": marked(CORRUPT, 3)}.get(damage)
    return Built((str(path),), frames, None, kind="LImA", status=status, exposure=EXPOSURE)


def lima_files(folder: Path, damage: str = "") -> Built:
    """Files of 4, 4 and 2 frames, counted from 0."""
    frames = some_frames(N, "u4")
    for number, start in enumerate(range(0, N, 4)):
        lima_file(folder / f"eiger_{number:04d}.h5", frames[start : start + 4])
    second = folder / "eiger_0001.h5"
    if damage == "missing":
        second.unlink()
        second.symlink_to(folder / "gone")
    if damage == "damaged":
        second.write_bytes(b"")
    state = {"missing": MISSING, "damaged": CORRUPT}.get(damage)
    status = None if state is None else marked(state, 4, 5, 6, 7)
    return Built(
        (str(folder),),
        frames,
        tuple(range(N)),
        kind="LImA files",
        status=status,
        exposure=EXPOSURE,
    )


SLOW, FAST = np.arange(4) * 0.5, np.arange(3) * 2.0
MAP = (4, 3)


def bliss_entry(file: h5py.File, name: str, title: str) -> h5py.Group:
    entry = nx(file, name, "NXentry")
    put(entry, "title", title)
    put(entry, "start_time", "2026-01-05T10:00:00.000000+01:00")
    nx(entry, "instrument", "NXinstrument")
    nx(entry, "measurement", "NXcollection")
    return entry


def bliss_channel(entry: h5py.Group, name: str, values: np.ndarray, units: str = "") -> None:
    """A counter or motor: its data below ``instrument``, a link in ``measurement``."""
    group = nx(entry["instrument"], name, "NXdetector")
    data = put(group, "data", values, **({"units": units} if units else {}))
    entry["measurement"][name] = h5py.SoftLink(data.name)


def bliss_detector(
    entry: h5py.Group, sources: list[tuple[str, int, int]], n: int, dtype: str
) -> None:
    """The camera: a virtual dataset over files of LImA, (name, first frame, frames) each."""
    virtual = h5py.VirtualLayout((n, *SHAPE), dtype)
    for name, start, count in sources:
        virtual[start : start + count] = h5py.VirtualSource(
            name, "/entry_0000/measurement/data", (count, *SHAPE)
        )
    camera = nx(entry["instrument"], "eiger", "NXdetector")
    camera.create_virtual_dataset("data", virtual)
    put(camera, "type", "lima")
    acquisition = nx(camera, "acq_parameters", "NXcollection")
    put(acquisition, "acq_expo_time", EXPOSURE)
    put(acquisition, "acq_mode", "SINGLE")
    entry["measurement"]["eiger"] = h5py.SoftLink(f"{camera.name}/data")


def bliss_amesh(folder: Path, damage: str = "") -> Built:
    """A snake step scan with a scan before it; data in files of 6 frames."""
    n = MAP[0] * MAP[1]
    frames = some_frames(n, "u4")
    scan = folder / "scan0002"
    scan.mkdir()
    for number in (0, 1):
        if damage == "missing" and number == 1:
            continue
        part = frames[6 * number : 6 * number + 6]
        if damage == "wrong shape" and number == 1:
            part = part.astype("u2")
        skip = (4,) if damage == "unwritten" and number == 0 else ()
        lima_file(scan / f"eiger_{number:04d}.h5", part, skip=skip)
    if damage == "damaged":
        damage_chunk(scan / "eiger_0001.h5", "entry_0000/ESRF-ID13/eiger/data", 5)
    y = np.repeat(SLOW, MAP[1])
    x = np.tile(FAST, (MAP[0], 1))
    x[1::2] = x[1::2, ::-1]
    x = x.ravel()
    counts = 1000.0 + np.arange(n)
    path = folder / "sample_dataset.h5"
    with h5py.File(path, "w", libver="v110") as file:
        file.attrs.update({"NX_class": "NXroot", "creator": "Bliss", "publisher": "bliss"})
        before = bliss_entry(file, "1.1", "ascan samy 0 1 20 0.1")
        bliss_channel(before, "samy", np.linspace(0, 1, 21), "mm")
        entry = bliss_entry(file, "2.1", "amesh samy 0 4 2 samz 0 1.5 3 0.05 backnforth True")
        sources = [(f"scan0002/eiger_{k:04d}.h5", 6 * k, 6) for k in (0, 1)]
        bliss_detector(entry, sources[:1] if damage == "unmapped" else sources, n, "u4")
        bliss_channel(entry, "samy", x, "mm")
        bliss_channel(entry, "samz", y, "mm")
        bliss_channel(entry, "p201_mon", counts)
        bliss_channel(entry, "epoch", 1.7e9 + np.arange(n), "s")
        bliss_channel(entry, "elapsed_time", np.arange(n) * 0.06, "s")
        positioners = nx(entry["instrument"], "positioners", "NXcollection")
        put(positioners, "samx", 3.5, units="mm")
        put(positioners, "samy", x, units="mm")
    status = {
        "missing": marked(MISSING, *range(6, 12), n=n),
        "unwritten": marked(MISSING, 4, n=n),
        "damaged": marked(CORRUPT, 11, n=n),
        "wrong shape": marked(WRONG_SHAPE, *range(6, 12), n=n),
    }.get(damage)
    return Built(
        (str(path),),
        frames,
        None,
        kind="bliss",
        status=status,
        positions={"samy": x, "samz": y},
        hint={
            "x": "samy",
            "y": "samz",
            "shape": MAP,
            "fast_axis": "x",
            "snake": True,
            "source": "bliss",
        },
        monitor=("p201_mon", counts),
        exposure=EXPOSURE,
    )


def bliss_fscan2d(folder: Path, damage: str = "") -> Built:
    """A continuous scan: parameters as texts, the slow motor once per line in ``N.2``, aborted.

    The counters stop where the scan did; the virtual dataset has the length asked for.
    """
    n = MAP[0] * MAP[1]
    done = 9 if damage == "unwritten" else n
    frames = some_frames(n, "u4")
    (folder / "scan0001").mkdir()
    lima_file(folder / "scan0001" / "eiger_0000.h5", frames[:done])
    if damage == "damaged":
        inside = "entry_0000/ESRF-ID13/eiger/data"
        damage_chunk(folder / "scan0001" / "eiger_0000.h5", inside, 0)
    x = np.tile(FAST, MAP[0])
    counts = 1000.0 + np.arange(n)
    path = folder / "sample_fly.h5"
    with h5py.File(path, "w", libver="v110") as file:
        file.attrs.update({"NX_class": "NXroot", "creator": "Bliss"})
        entry = bliss_entry(file, "1.1", "fscan2d dty 0 0.5 4 rot 0 2 3 0.05 0.06")
        bliss_detector(entry, [("./scan0001/eiger_0000.h5", 0, n)], n, "u4")
        bliss_channel(entry, "rot", x[:done], "deg")
        bliss_channel(entry, "p201_mon", counts[:done])
        parameters = nx(entry["instrument"], "fscan_parameters", "NXcollection")
        for name, value in {
            "slow_motor": "dty",
            "slow_npoints": "4",
            "fast_motor": "rot",
            "fast_npoints": "3",
            "fast_motor_mode": "REWIND",
            "acq_time": "0.05",
        }.items():
            put(parameters, name, value)
        second = bliss_entry(file, "1.2", "fscan2d dty 0 0.5 4 rot 0 2 3 0.05 0.06")
        bliss_channel(second, "dty", SLOW, "mm")
    late = np.where(np.arange(n) < done, 1, np.nan)
    return Built(
        (str(path),),
        frames,
        None,
        kind="bliss",
        status={
            "unwritten": marked(MISSING, 9, 10, 11, n=n),
            "damaged": marked(CORRUPT, 0, n=n),
        }.get(damage),
        positions={"rot": x * late, "dty": np.repeat(SLOW, MAP[1])},
        hint={"x": "rot", "y": "dty", "shape": MAP, "fast_axis": "x", "snake": False},
        monitor=("/1.1/measurement/p201_mon", counts * late),
        exposure=EXPOSURE,
    )


# --- areaDetector ----------------------------------------------------------------------------


def area_detector(folder: Path, damage: str = "") -> Built:
    """NDFileHDF5 with the default layout, and motors as attributes of each frame."""
    frames = some_frames(N, "u2")
    numbers = np.arange(1, N + 1) + np.where(np.arange(N) > 5, 3, 0)  # three were dropped
    if damage == "duplicate":
        numbers[4] = numbers[3]
    x = np.tile([0.0, 0.5, 1.0, 1.5, 2.0], 2)
    y = np.repeat([0.0, 1.0], 5)
    counts = 5000.0 + np.arange(N)
    path = folder / "scan_0007.h5"
    with h5py.File(path, "w") as file:
        entry = nx(file, "entry", "NXentry")
        instrument = nx(entry, "instrument", "NXinstrument")
        detector = nx(instrument, "detector", "NXdetector")
        skip = (9,) if damage == "unwritten" else ()
        data = write_stack(detector, "data", frames, {"compression": "gzip"}, skip=skip)
        nx(entry, "data", "NXdata", signal="data")["data"] = data
        attributes = nx(instrument, "NDAttributes", "NXcollection", hostname="ioc")
        sources = {
            "NDArrayUniqueId": (numbers.astype("i4"), "Driver"),
            "NDArrayTimeStamp": (1.0e9 + np.arange(N), "Driver"),
            "NDArrayEpicsTSSec": (np.arange(N, dtype="u4"), "Driver"),
            "SampleX": (x, "26idc:m1.RBV"),
            "SampleY": (y, "26idc:m2.RBV"),
            "SampleZ": (np.full(N, 3.0), "26idc:m3.RBV"),
            "I0": (counts, "26idc:scaler1.S3"),
            "AcquireTime": (np.full(N, EXPOSURE), "ACQ_TIME"),
            "Model": (np.array([b"PILATUS3 X 300K"] * N), "MODEL"),
            "Manufacturer": (np.array([b"Dectris"] * N), "MANUFACTURER"),
        }
        for name, (values, source) in sources.items():
            kind = "NDAttrSourceEPICSPV" if ":" in source else "NDAttrSourceParam"
            put(attributes, name, values, NDAttrName=name, NDAttrSource=source,
                NDAttrSourceType=kind, NDAttrDescription="")  # fmt: skip
        colour = nx(detector, "NDAttributes", "NXcollection")
        put(colour, "ColorMode", np.zeros(N, "i4"), NDAttrSource="COLOR_MODE")
    if damage == "damaged":
        damage_chunk(path, "entry/data/data", 2)
    status = {
        "unwritten": marked(MISSING, 9),
        "damaged": marked(CORRUPT, 2),
        "duplicate": marked(DUPLICATE, 4),
    }.get(damage)
    return Built(
        (str(path),),
        frames,
        tuple(numbers.tolist()),
        kind="areaDetector",
        status=status,
        positions={"SampleX": x, "SampleY": y},
        hint={"x": "SampleX", "y": "SampleY", "source": "areaDetector"},
        monitor=("I0", counts),
        exposure=EXPOSURE,
    )


# --- MAX IV ----------------------------------------------------------------------------------


def max_iv(folder: Path, damage: str = "", *, detector_file: bool = False) -> Built:
    """Sardana's scan file; frames in a file of the streaming receiver."""
    frames = some_frames(12, "i4")
    frames[:, 15:17] = -1
    n = len(frames)
    x = np.tile(FAST, 4)
    y = np.repeat(SLOW, 3)
    counts = 1000.0 + np.arange(n)
    camera = folder / "scan-1737_pilatus.h5"
    skip = (10, 11) if damage == "unwritten" else ()
    with h5py.File(camera, "w") as file:
        entry = nx(file, "entry", "NXentry")
        detector = nx(nx(entry, "instrument", "NXinstrument"), "pilatus", "NXdetector")
        write_stack(detector, "data", frames, skip=skip)
        put(detector, "count_time", EXPOSURE, units="s")
    if damage == "damaged":
        damage_chunk(camera, "entry/instrument/pilatus/data", 4)
    scan = folder / "scan-1737.h5"
    with h5py.File(scan, "w", libver="v110") as file:
        entry = nx(file, "entry", "NXentry")
        put(entry, "title", "meshct samx 0 4 2 samy 0 1.5 3 0.05 False")
        put(entry, "program_name", "sardana")
        measurement = nx(entry, "measurement", "NXcollection")
        put(measurement, "samx", x, units="mm")
        put(measurement, "samy", y, units="mm")
        put(measurement, "albaem_1", counts)
        put(measurement, "point_nb", np.arange(n))
        instrument = nx(entry, "instrument", "NXinstrument")
        nx(instrument, "pilatus", "NXdetector")["data"] = h5py.ExternalLink(
            camera.name, "/entry/instrument/pilatus/data"
        )
    status = {
        "unwritten": marked(MISSING, 10, 11, n=n),
        "damaged": marked(CORRUPT, 4, n=n),
    }.get(damage)
    return Built(
        (str(camera if detector_file else scan),),
        frames,
        None,
        kind="MAX IV",
        status=status,
        positions={"samx": x, "samy": y},
        hint={"x": "samx", "y": "samy", "shape": MAP, "snake": False, "source": "MAX IV"},
        monitor=("albaem_1", counts),
        exposure=EXPOSURE,
    )


# --- Diamond ---------------------------------------------------------------------------------


def diamond(folder: Path, damage: str = "") -> Built:
    """GDA: a grid of four axes over the files of two writers, each with every second line."""
    ny, nx_points = MAP
    frames = some_frames(12, "u4").reshape(ny, nx_points, *SHAPE)
    virtual = h5py.VirtualLayout(frames.shape, "u4")
    for writer in (0, 1):
        name = f"i15-1-123_{writer + 1:06d}.h5"
        lines = frames[writer::2].reshape(-1, *SHAPE)
        virtual[writer::2] = h5py.VirtualSource(name, "data", (2, nx_points, *SHAPE))
        if damage == "missing" and writer == 1:
            continue
        with h5py.File(folder / name, "w") as file:
            data = file.create_dataset(
                "data", (2, nx_points, *SHAPE), "u4", chunks=(1, 1, *SHAPE), **BITSHUFFLE
            )
            data[...] = lines.reshape(2, nx_points, *SHAPE)
        if damage == "damaged" and writer == 0:
            damage_chunk(folder / name, "data", 1)
    keys = np.arange(1, 13).reshape(MAP)
    keys[1::2] = keys[1::2, ::-1]  # a snake: the order of arrival, not of storage
    if damage == "unwritten":
        keys[3, 0] = keys[3, 1] = 0
    x, y = FAST, SLOW
    noise = np.random.default_rng(1).normal(0, 1e-3, MAP)
    counts = 1000.0 + np.arange(12).reshape(MAP)
    path = folder / "i15-1-123.nxs"
    with h5py.File(path, "w", libver="v110") as file:
        entry = nx(file, "entry", "NXentry")
        instrument = nx(entry, "instrument", "NXinstrument")
        detector = nx(instrument, "pilatus2M", "NXdetector")
        detector.create_virtual_dataset("data", virtual)
        put(detector, "count_time", np.full(MAP, EXPOSURE), units="s")
        put(detector, "distance", DISTANCE * 1e3, units="mm")
        put(detector, "pixel_mask", GAPS)
        put(nx(instrument, "monochromator", "NXmonochromator"), "energy", ENERGY, units="keV")
        plot = nx(
            entry, "pilatus2M", "NXdata", signal="data",
            axes=["stage_y_set", "stage_x_set", ".", "."],
            stage_y_set_indices=0, stage_x_set_indices=1,
            stage_y_value_indices=[0, 1], stage_x_value_indices=[0, 1],
        )  # fmt: skip
        plot["data"] = h5py.SoftLink(f"{detector.name}/data")
        put(plot, "stage_y_set", y, units="mm")
        put(plot, "stage_x_set", x, units="mm")
        put(plot, "stage_y_value", y[:, None] + noise, units="mm")
        put(plot, "stage_x_value", x + noise, units="mm")
        put(entry, "I0", counts)
        scan = nx(entry, "diamond_scan", "NXcollection")
        put(scan, "scan_command", "mscan(grid(axes=('stage_y','stage_x')))")
        put(scan, "scan_shape", np.array(MAP))
        put(nx(scan, "keys", "NXcollection"), "uniqueKeys", keys)
    status = {
        "missing": marked(MISSING, 3, 4, 5, 9, 10, 11, n=12),
        "unwritten": marked(MISSING, 9, 10, n=12),
        "damaged": marked(CORRUPT, 6, n=12),
    }.get(damage)
    return Built(
        (str(path),),
        frames.reshape(-1, *SHAPE),
        None,
        kind="NeXus grid scan",
        status=status,
        positions={
            "stage_x_set": np.tile(x, ny),
            "stage_y_set": np.repeat(y, nx_points),
            "stage_x_value": (x + noise).ravel(),
            "stage_y_value": (y[:, None] + noise).ravel(),
        },
        hint={
            "x": "stage_x_value",
            "y": "stage_y_value",
            "shape": MAP,
            "fast_axis": "x",
            "snake": False,
            "source": "NXdata",
        },
        monitor=("/entry/I0", counts.ravel()),
        exposure=EXPOSURE,
        wavelength=WAVELENGTH,
        distance=DISTANCE,
        pixel_mask=GAPS,
    )


# --- PETRA III -------------------------------------------------------------------------------


def lambda_modules(folder: Path, damage: str = "") -> Built:
    """Two modules in files of their own, a master with a virtual dataset and a gap between."""
    frames = some_frames(N, "u2")
    upper, lower = slice(0, 14), slice(18, 32)
    frames[:, 14:18] = 0
    gap = np.zeros(SHAPE, np.uint32)
    gap[14:18] = 1
    dead = np.zeros(SHAPE, np.uint32)
    dead[5, 6] = 2
    virtual = h5py.VirtualLayout(frames.shape, "u2")
    for number, rows in enumerate((upper, lower), 1):
        name = f"sample_00001_m{number:02d}.nxs"
        part = np.ascontiguousarray(frames[:, rows])
        virtual[:, rows] = h5py.VirtualSource(name, "/entry/instrument/detector/data", part.shape)
        skip = (7, 8, 9) if damage == "unwritten" and number == 2 else ()
        with h5py.File(folder / name, "w") as file:
            module = nx(nx(file, "entry/instrument", "NXinstrument"), "detector", "NXdetector")
            write_stack(module, "data", part, skip=skip)
        if damage == "damaged" and number == 2:
            damage_chunk(folder / name, "entry/instrument/detector/data", 3)
    path = folder / "sample_00001.nxs"
    with h5py.File(path, "w", libver="v110") as file:
        entry = nx(file, "entry", "NXentry")
        detector = nx(nx(entry, "instrument", "NXinstrument"), "detector", "NXdetector")
        detector.create_virtual_dataset("data", virtual)
        put(detector, "description", "Lambda 2M")
        put(detector, "local_name", "LambdaP02")
        put(detector, "bit_depth_readout", np.uint32(24))
        put(detector, "count_time", EXPOSURE * 1e3, units="ms")
        put(detector, "distance", DISTANCE, units="m")
        put(detector, "saturation_value", np.uint32(30000))
        put(detector, "pixel_mask", dead[None])
    status = {"unwritten": marked(MISSING, 7, 8, 9), "damaged": marked(CORRUPT, 3)}.get(damage)
    return Built(
        (str(path),),
        frames,
        None,
        kind="Lambda/PETRA",
        status=status,
        exposure=EXPOSURE,
        distance=DISTANCE,
        saturation=30000.0,
        pixel_mask=gap | dead,
    )


# --- any other file --------------------------------------------------------------------------


def nexus(folder: Path, damage: str = "") -> Built:
    """NXdata with the default chain, x and y of every frame."""
    frames = some_frames(N, "u2")
    x, y = np.tile(np.arange(5.0), 2), np.repeat([0.0, 1.0], 5)
    counts = 100.0 + np.arange(N)
    path = folder / "map.nxs"
    with h5py.File(path, "w") as file:
        file.attrs.update({"NX_class": "NXroot", "default": "entry"})
        entry = nx(file, "entry", "NXentry", default="data")
        instrument = nx(entry, "instrument", "NXinstrument")
        detector = nx(instrument, "detector", "NXdetector")
        skip = (0,) if damage == "unwritten" else ()
        write_stack(detector, "data", frames, skip=skip)
        put(detector, "description", "Maxipix")
        put(detector, "exposure_time", EXPOSURE, units="s")
        beam = nx(instrument, "beam", "NXbeam")
        put(beam, "incident_wavelength", WAVELENGTH / 10, units="nm")
        data = nx(entry, "data", "NXdata", signal="data", axes=["x", ".", "."])
        data["data"] = detector["data"]
        put(data, "x", x, units="um")
        put(data, "y", y, units="um")
        put(nx(entry, "monitor", "NXmonitor"), "data", counts)
    if damage == "damaged":
        damage_chunk(path, "entry/data/data", 6)
    status = {"unwritten": marked(MISSING, 0), "damaged": marked(CORRUPT, 6)}.get(damage)
    return Built(
        (str(path),),
        frames,
        None,
        kind="NeXus stack",
        status=status,
        positions={"x": x, "y": y},
        hint={"x": "x", "y": "y", "shape": None},
        monitor=("monitor", counts),
        exposure=EXPOSURE,
        wavelength=WAVELENGTH,
    )


def any_stack(folder: Path, damage: str = "") -> Built:
    """A file somebody made; the stack is named by hand."""
    frames = some_frames(N, "f4")
    counts = 100.0 + np.arange(N)
    path = folder / "mine.h5"
    with h5py.File(path, "w") as file:
        skip = (4,) if damage == "unwritten" else ()
        write_stack(file, "exp/images", frames, {"compression": "gzip"}, skip=skip)
        file["exp/summary"] = np.zeros((3, *SHAPE), "f4")
        file["exp/i0"] = counts
    if damage == "damaged":
        damage_chunk(path, "exp/images", 2)
    return Built(
        (f"{path}::/exp/images",),
        frames,
        None,
        kind="HDF5 stack",
        status={"unwritten": marked(MISSING, 4), "damaged": marked(CORRUPT, 2)}.get(damage),
        monitor=("/exp/i0", counts),
    )


def damages(build: Callable[..., Built], *names: str, **options: Any) -> dict[str, Build]:
    return {name: partial(build, damage=name, **options) for name in names}


ALL = ("missing", "unwritten", "damaged", "wrong shape", "duplicate")
MOST = ("missing", "unwritten", "damaged")
SINGLE = ("unwritten", "damaged")
LZ4_U4 = {"dtype": "u4", "filters": LZ4}

HDF5_LAYOUTS = [
    Layout("Eiger master, bitshuffle-LZ4", "DECTRIS FileWriter", eiger, damages(eiger, *ALL)),
    Layout(
        "Eiger master, LZ4",
        "DECTRIS FileWriter",
        partial(eiger, **LZ4_U4),
        damages(eiger, *ALL, **LZ4_U4),
    ),
    Layout(
        "Eiger master, 4 axes", "DECTRIS v2024.2", eiger_channels, damages(eiger_channels, *MOST)
    ),
    Layout(
        "Eiger master with the data",
        "DECTRIS, nimages_per_file = 0",
        eiger_in_master,
        damages(eiger_in_master, *SINGLE),
    ),
    Layout("Eiger master, one 2-D frame", "GSECARS", eiger_single),
    Layout(
        "Eiger master, links in the entry",
        "DECTRIS, first FileWriters",
        partial(eiger, links="", **LZ4_U4),
        damages(eiger, *ALL, links="", **LZ4_U4),
    ),
    Layout("Eiger data file", "DECTRIS FileWriter", eiger_data_file),
    Layout(
        "Eiger data files without a master",
        "DECTRIS FileWriter",
        eiger_without_master,
        damages(eiger_without_master, "unwritten", "damaged"),
    ),
    Layout("bliss, amesh", "ESRF", bliss_amesh, damages(bliss_amesh, *MOST, "wrong shape")),
    Layout("bliss, fscan2d", "ESRF", bliss_fscan2d, damages(bliss_fscan2d, *SINGLE)),
    Layout("LImA", "ESRF and others", lima, damages(lima, *SINGLE)),
    Layout(
        "LImA, several files",
        "ESRF and others",
        lima_files,
        damages(lima_files, "missing", "damaged"),
    ),
    Layout(
        "areaDetector HDF5",
        "APS, NSLS-II, Diamond, …",
        area_detector,
        damages(area_detector, "unwritten", "damaged", "duplicate"),
    ),
    Layout("MAX IV scan file", "MAX IV", max_iv, damages(max_iv, *SINGLE)),
    Layout(
        "MAX IV detector file",
        "MAX IV",
        partial(max_iv, detector_file=True),
        damages(max_iv, *SINGLE, detector_file=True),
    ),
    Layout("Lambda modules", "PETRA III", lambda_modules, damages(lambda_modules, *SINGLE)),
    Layout("NeXus grid scan", "Diamond", diamond, damages(diamond, *MOST)),
    Layout("NeXus stack", "any NeXus writer", nexus, damages(nexus, *SINGLE)),
    Layout("file::/path", "anybody", any_stack, damages(any_stack, *SINGLE)),
]
