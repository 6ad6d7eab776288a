"""Folders of image files, as the writers of detectors and beamlines leave them.

Bytes are written here after the public description of each format where fabio writes none, or
not what a beamline writes (MarCCD, SPE, GE, the tags of areaDetector and of a Pilatus).
"""

from __future__ import annotations

import functools
import gzip
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fabio.brukerimage
import fabio.cbfimage
import fabio.edfimage
import fabio.mar345image
import numpy as np

from layouts import SHAPE, Build, Built, Layout, some_frames
from xrdpipe.schema import FrameStatus

OK, MISSING = FrameStatus.OK, FrameStatus.MISSING
CORRUPT, WRONG_SHAPE = FrameStatus.CORRUPT, FrameStatus.WRONG_SHAPE
DUPLICATE = FrameStatus.DUPLICATE

N = 6
OTHER = (SHAPE[0] - 4, SHAPE[1] + 2)
"""Shape of the stray frame."""

Write = Callable[[Path, np.ndarray, int], None]
"""Write one file: path, image, place in the series."""


def folder(
    write: Write,
    name: str,
    kind: str,
    dtype: str = "i4",
    numbers: Sequence[int] = range(1, N + 1),
    **metadata: Any,
) -> Build:
    """One frame per file; ``name`` is a format of its number."""

    def build(path: Path) -> Built:
        frames = some_frames(len(numbers), dtype)
        for place, number in enumerate(numbers):
            write(path / name.format(number), frames[place], place)
        return Built((str(path),), frames, tuple(numbers), kind, **metadata)

    return build


def damages(write: Write, name: str, kind: str, dtype: str = "i4") -> dict[str, Build]:
    """What happens to any folder of single frames, numbered 1 to 6."""

    def files(path: Path, frames: np.ndarray) -> list[Path]:
        made = []
        for place, image in enumerate(frames):
            made.append(path / name.format(place + 1))
            write(made[-1], image, place)
        return made

    def missing(path: Path) -> Built:
        """The third was never written, the fifth is a link to a file that is gone."""
        frames = some_frames(N, dtype)
        made = files(path, frames)
        made[2].unlink()
        made[4].unlink()
        made[4].symlink_to(path / "moved" / made[4].name)
        kept = [0, 1, 3, 4, 5]
        status = (OK, OK, OK, MISSING, OK)
        return Built((str(path),), frames[kept], (1, 2, 4, 5, 6), kind, status)

    def damaged(path: Path) -> Built:
        """The second is cut short, the fourth has no bytes, the fifth others."""
        frames = some_frames(N, dtype)
        made = files(path, frames)
        whole = made[1].read_bytes()
        made[1].write_bytes(whole[: int(0.6 * len(whole))])
        made[3].write_bytes(b"")
        made[4].write_bytes(np.random.default_rng(3).bytes(len(whole)))
        status = (OK, CORRUPT, OK, CORRUPT, CORRUPT, OK)
        return Built((str(path),), frames, tuple(range(1, N + 1)), kind, status)

    def wrong_shape(path: Path) -> Built:
        frames = some_frames(N, dtype)
        made = files(path, frames)
        write(made[3], some_frames(1, dtype, 9, OTHER)[0], 3)
        status = (OK, OK, OK, WRONG_SHAPE, OK, OK)
        return Built((str(path),), frames, tuple(range(1, N + 1)), kind, status)

    def duplicate(path: Path) -> Built:
        """Someone copied the second frame, and the writer links the last one."""
        frames = some_frames(N, dtype)
        made = files(path, frames)
        stem, _, suffix = made[1].name.partition(".")
        (path / f"{stem} (1).{suffix}").write_bytes(made[1].read_bytes())
        (path / f"latest.{suffix}").symlink_to(made[5])
        rows = [0, 1, 1, 2, 3, 4, 5, 5]
        status = (OK, OK, DUPLICATE, OK, OK, OK, OK, DUPLICATE)
        numbers = (1, 2, 2, 3, 4, 5, 6, 6)
        return Built((str(path),), frames[rows], numbers, kind, status)

    return {
        "missing": missing,
        "damaged": damaged,
        "wrong shape": wrong_shape,
        "duplicate": duplicate,
    }


# --- TIFF -------------------------------------------------------------------------------------

TAG = {"H": 3, "I": 4, "d": 12}


def tiff(
    images: Sequence[np.ndarray],
    extra: Sequence[dict[int, Any]] = (),
    order: str = "<",
    first_page: int = 8,
) -> bytes:
    """TIFF 6.0, uncompressed, one strip per page; ``extra`` = more tags of each page.

    The pixels of a Pilatus begin at byte 4096, its directory at byte 130.
    """
    data = bytearray((b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 0))
    data += bytes(first_page - len(data))
    link = 4
    for place, image in enumerate(images):
        image = np.ascontiguousarray(image.astype(image.dtype.newbyteorder(order)))
        tags: dict[int, tuple[str, Any]] = {
            256: ("I", image.shape[1]),
            257: ("I", image.shape[0]),
            258: ("H", 8 * image.dtype.itemsize),
            259: ("H", 1),
            262: ("H", 1),
            273: ("I", 0),
            277: ("H", 1),
            278: ("I", image.shape[0]),
            279: ("I", image.nbytes),
            339: ("H", {"u": 1, "i": 2, "f": 3}[image.dtype.kind]),
        }
        for tag, value in (extra[place] if extra else {}).items():
            code = "s" if isinstance(value, str) else "I" if isinstance(value, int) else "d"
            tags[tag] = (code, value)
        start = len(data)
        struct.pack_into(order + "I", data, link, start)
        after = start + 2 + 12 * len(tags) + 4
        values = bytearray()
        pixels_at = 0
        entries = bytearray(struct.pack(order + "H", len(tags)))
        for tag, (code, value) in sorted(tags.items()):
            if tag == 273:
                pixels_at = len(entries) + 8
            if code == "s":
                raw, kind = value.encode() + b"\0", 2
                count = len(raw)
            else:
                raw, kind, count = struct.pack(order + code, value), TAG[code], 1
            entries += struct.pack(order + "HHI", tag, kind, count)
            if len(raw) > 4:
                entries += struct.pack(order + "I", after + len(values))
                values += raw + b"\0" * (len(raw) % 2)
            else:
                entries += raw.ljust(4, b"\0")
        link = start + len(entries)
        data += entries + struct.pack(order + "I", 0) + values
        if first_page == 130:
            data += bytes(4096 - len(data))
        struct.pack_into(order + "I", data, start + pixels_at, len(data))
        data += image.tobytes()
    return bytes(data)


SAMPLE_X = np.tile([0.0, 0.05, 0.1], 2)
SAMPLE_Y = np.repeat([1.0, 1.1], 3)
COUNTS = np.array([5012.0, 4980.0, 5105.0, 5033.0, 4999.0, 5071.0])


def area_detector_tiff(path: Path, image: np.ndarray, place: int) -> None:
    """NDFileTIFF: its own tags from 65000, one ASCII tag ``name:value`` per NDAttribute."""
    attributes = {
        "ColorMode": "0",
        "AcquireTime": "0.250000",
        "SampleX": f"{SAMPLE_X[place]:.6f}",
        "SampleY": f"{SAMPLE_Y[place]:.6f}",
        "IC1": f"{COUNTS[place]:.6f}",
        "DriverFileName": "/dev/shm/x.tif",
    }
    tags: dict[int, Any] = {
        271: "Perkin Elmer",
        272: "XRD0820",
        65000: 1e9 + place / 4,
        65001: place + 1,
    }
    tags |= {65010 + i: f"{name}:{value}" for i, (name, value) in enumerate(attributes.items())}
    path.write_bytes(tiff([image], [tags]))


def metadata_tiff(path: Path, image: np.ndarray, place: int) -> None:
    """A TIFF and a text beside it, as QXRD leaves them at the APS."""
    path.write_bytes(tiff([image]))
    path.with_name(path.name + ".metadata").write_text(
        "[metadata]\nQXRDVersion=0.11.4\ndetectorTypeName=Perkin Elmer\nexposureTime=0.5\n"
        f"summedExposures=1\nfileIndex={place + 1}\n"
        f'dateTime="Fri Mar 4 12:00:0{place} 2022"\n'
    )


def pilatus_tiff(path: Path, image: np.ndarray, place: int) -> None:
    description = "".join(
        f"# {line}\r\n"
        for line in (
            "Pixel_size 172e-6 m x 172e-6 m",
            "Silicon sensor, thickness 0.000450 m",
            "Exposure_time 0.4000000 s",
            "Exposure_period 0.5000000 s",
            "Tau = 0 s",
            "Count_cutoff 1048574 counts",
            "Threshold_setting: 15000 eV",
            "N_excluded_pixels = 27",
            "Wavelength 0.4066 A",
            "Detector_distance 0.72000 m",
            f"Start_angle {place / 10:.4f} deg.",
        )
    )
    tags = {270: description, 272: "PILATUS 1M-F", 305: "TVX TIFF v 1.3     "}
    path.write_bytes(tiff([image], [tags], first_page=130))


def plain_tiff(path: Path, image: np.ndarray, place: int, order: str = "<") -> None:
    path.write_bytes(tiff([image], order=order))


def several(label: str, written_by: str, write: Write, name: str, kind: str) -> Layout:
    """Files of four frames each; ``write`` takes the frames of one."""

    def build(path: Path, per_file: Sequence[int] = (4, 4, 2), skip: int | None = None) -> Built:
        frames = some_frames(sum(per_file), "u2")
        start = 0
        for number, inside in enumerate(per_file, 1):
            if number != skip:
                write(path / name.format(number), frames[start : start + inside], number)
            start += inside
        return Built((str(path),), frames, tuple(range(1, len(frames) + 1)), kind)

    def missing(path: Path) -> Built:
        """The second file is not there, its place a link."""
        built = build(path, skip=2)
        (path / name.format(2)).symlink_to(path / "gone")
        status = (*[OK] * 4, *[MISSING] * 4, OK, OK)
        return Built(built.paths, built.frames, built.numbers, kind, status)

    def damaged(path: Path) -> Built:
        """The second file was closed two frames too early."""
        built = build(path)
        write(path / name.format(2), built.frames[4:6], 2)
        status = (*[OK] * 6, *[MISSING] * 2, OK, OK)
        return Built(built.paths, built.frames, built.numbers, kind, status)

    return Layout(label, written_by, build, {"missing": missing, "damaged": damaged})


def plain_npy(path: Path, image: np.ndarray, place: int) -> None:
    np.save(path, image)


def multi_npy(path: Path, images: np.ndarray, number: int) -> None:
    np.save(path, images)


def multi_tiff(path: Path, images: np.ndarray, number: int) -> None:
    path.write_bytes(tiff(list(images)))


# --- CBF, EDF ---------------------------------------------------------------------------------


def cbf(path: Path, image: np.ndarray, place: int) -> None:
    """DECTRIS mini-CBF."""
    lines = (
        "Detector: PILATUS3 6M, S/N 60-0127",
        f"2022-03-04T12:00:0{place}.123",
        "Pixel_size 172e-6 m x 172e-6 m",
        "Silicon sensor, thickness 0.001000 m",
        "Exposure_time 0.0995000 s",
        "Exposure_period 0.1000000 s",
        "Tau = 124.0e-09 s",
        "Count_cutoff 1009869 counts",
        "Threshold_setting: 15000 eV",
        "Wavelength 0.29070 A",
        "Detector_distance 0.60000 m",
        "Beam_xy (1231.50, 1263.50) pixels",
        f"Start_angle {place / 10:.4f} deg.",
    )
    header = {
        "_array_data.header_convention": "PILATUS_1.2",
        "_array_data.header_contents": "\r\n".join(f"# {line}" for line in lines),
    }
    fabio.cbfimage.CbfImage(data=image, header=header).write(str(path))


SAMY = np.tile([10.0, 10.002, 10.004], 2)
SAMZ = np.repeat([-3.0, -2.998], 3)


def edf_header(place: int) -> dict[str, str]:
    return {
        "time": "Fri Mar  4 12:00:00 2022",
        "time_of_day": f"{1646395200 + place}.25",
        "acq_expo_time": "0.05",
        "count_time": "0.05",
        "motor_mne": "energy samy samz det",
        "motor_pos": f"25.5 {SAMY[place]:g} {SAMZ[place]:g} 180",
        "counter_mne": "sec mon ic0",
        "counter_pos": f"0.05 {COUNTS[place]:g} 12.5",
        "WaveLength": "4.8622e-11",
        "SampleDistance": "0.18",
    }


def edf(path: Path, image: np.ndarray, place: int) -> None:
    fabio.edfimage.EdfImage(data=image, header=edf_header(place)).write(str(path))


def edf_gz(path: Path, image: np.ndarray, place: int) -> None:
    plain = path.with_suffix("")
    edf(plain, image, place)
    path.write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
    plain.unlink()


def multi_edf(path: Path, images: np.ndarray, number: int) -> None:
    first = fabio.edfimage.EdfImage(data=images[0], header={"acq_expo_time": "0.1"})
    for image in images[1:]:
        first.append_frame(data=image, header={"acq_expo_time": "0.1"})
    first.write(str(path))


# --- other detectors --------------------------------------------------------------------------


def mar_ccd(path: Path, image: np.ndarray, place: int) -> None:
    """A TIFF whose directory is followed, at byte 1024, by 3072 bytes of frame header."""
    block = bytearray(3072)
    struct.pack_into("<I16s", block, 0, 2, b"MMX")
    struct.pack_into("<II", block, 28, 1234, 1234)
    struct.pack_into("<III", block, 80, image.shape[1], image.shape[0], 2)
    struct.pack_into("<II", block, 96, 16, 0)
    struct.pack_into("<I", block, 104, 65535)
    struct.pack_into("<i", block, 640, 250_000)  # distance, µm
    struct.pack_into("<ii", block, 652, 0, 1500)  # integration and exposure time, ms
    struct.pack_into("<ii", block, 772, 79_000, 79_000)  # pixels, nm
    struct.pack_into("<i", block, 908, 41_328)  # wavelength, fm
    plain = bytearray(tiff([image]))
    pixels = plain[-image.nbytes :]
    head = plain[: -image.nbytes].ljust(1024, b"\0")
    where = head.index(struct.pack("<HHI", 273, 4, 1)) + 8
    struct.pack_into("<I", head, where, 4096)
    path.write_bytes(head + block + pixels)


def mar345(path: Path, image: np.ndarray, place: int) -> None:
    header = {
        "PROGRAM": "mar345 Version 4.3",
        "SCANNER": "113",
        "WAVELENGTH": "0.38745",
        "DISTANCE": "300.5",
        "MODE": "TIME",
        "TIME": "60.0",
        "PIXEL_LENGTH": "100",
        "PIXEL_HEIGHT": "100",
        "FORMAT_TYPE": "PCK",
    }
    made = fabio.mar345image.Mar345Image(data=image, header=header)
    made.byteorder = "little"
    made.write(str(path))


def spe(path: Path, images: np.ndarray, number: int) -> None:
    """WinView/WinSpec 2.x: 4100 bytes of header, then the frames."""
    images = images if images.ndim == 3 else images[None]
    header = bytearray(4100)
    struct.pack_into("<H", header, 6, images.shape[2])
    struct.pack_into("<f", header, 10, 2.0)
    struct.pack_into("<H", header, 18, images.shape[1])
    header[20:29] = b"04Mar2022"
    struct.pack_into("<H", header, 42, images.shape[2])
    struct.pack_into("<H", header, 108, 3)  # uint16
    header[172:178] = b"120000"
    struct.pack_into("<H", header, 656, images.shape[1])
    struct.pack_into("<i", header, 1446, len(images))
    path.write_bytes(bytes(header) + images.astype("<u2").tobytes())


def ge(path: Path, images: np.ndarray, number: int) -> None:
    """GE a-Si Angio: ``ADEPT`` header of 8192 bytes, then uint16 frames."""
    images = images if images.ndim == 3 else images[None]
    header = bytearray(8192)
    header[:5] = b"ADEPT"
    struct.pack_into(
        "<HIHIHHHH", header, 10, 8001, 8192, 0, 0, len(images), images.shape[1], images.shape[2], 16
    )
    path.write_bytes(bytes(header) + images.astype("<u2").tobytes())


def bruker(path: Path, image: np.ndarray, place: int) -> None:
    """Frame format 86, with overflows behind the pixels."""
    header = {
        "FORMAT": "86",
        "VERSION": "9",
        "HDRBLKS": 15,
        "TYPE": "ADD frame",
        "MODEL": "D8",
        "USER": "x",
        "CUMULAT": "30.000000",
        "ELAPSDR": "30.000000",
        "ELAPSDA": "30.000000",
        "NUMBER": str(place),
        "DISTANC": "6.000000",
        "WAVELEN": "0.710730 0.709300 0.713590",
        "DETTYPE": "CCD-PXL",
    }
    made = fabio.brukerimage.BrukerImage(data=image, header=header)
    limit = 255 if (image >= 255).sum() < 4096 else 65535
    made.header["NOVERFL"] = str(int((image >= limit).sum()))
    made.write(str(path))


# --- maps told by the names -------------------------------------------------------------------


def grid(
    path: Path, name: str, rows: int, columns: int, order: Sequence[int], lost: Sequence[int] = ()
) -> tuple[np.ndarray, list[int]]:
    """Write a raster of TIFFs; ``name`` formats row, column and counter."""
    frames = some_frames(rows * columns, "u2")
    kept = []
    for counter, place in enumerate(order):
        if place not in lost:
            file = path / name.format(place // columns, place % columns, counter)
            file.parent.mkdir(exist_ok=True)
            plain_tiff(file, frames[place], place)
            kept.append(place)
    return frames, kept


def rows_and_columns(path: Path, lost: Sequence[int] = ()) -> Built:
    frames, kept = grid(path, "map_r{:03d}_c{:03d}.tif", 3, 4, range(12), lost)
    return Built(
        (str(path),),
        frames[kept],
        tuple(kept),
        "TIFF",
        (OK,) * len(kept),
        positions={
            "name:r": np.array(kept, float) // 4,
            "name:c": np.array(kept, float) % 4,
        },
        hint={"x": "name:c", "y": "name:r", "shape": (3, 4), "source": "filename"},
    )


def lost_in_the_grid(path: Path) -> Built:
    """The sixth was never written, the last is a link to nothing: neither shifts the others."""
    built = rows_and_columns(path, lost=(5,))
    (path / "map_r002_c003.tif").unlink()
    (path / "map_r002_c003.tif").symlink_to(path / "gone")
    status = (*built.status[:-1], MISSING)
    return Built(built.paths, built.frames, built.numbers, built.kind, status)


def folder_per_line(path: Path) -> Built:
    frames, _ = grid(path, "row_{:03d}/img_{:04d}.tif", 3, 4, range(12))
    return Built(
        (str(path / "*" / "*.tif"),),
        frames,
        tuple(range(12)),
        "TIFF",
        positions={"name:row": np.repeat([0.0, 1, 2], 4), "name:x": np.tile([0.0, 1, 2, 3], 3)},
        hint={"x": "name:x", "y": "name:row", "shape": (3, 4), "fast_axis": "x"},
    )


SNAKE = (0, 1, 2, 3, 7, 6, 5, 4, 8, 9, 10, 11)


def snake_with_a_counter(path: Path) -> Built:
    frames, _ = grid(path, "scan_y{:02d}_x{:02d}_{:05d}.tif", 3, 4, SNAKE)
    order = np.array(SNAKE)
    return Built(
        (str(path),),
        frames[order],
        tuple(range(12)),
        "TIFF",
        positions={"name:y": order // 4 * 1.0, "name:x": order % 4 * 1.0},
        hint={"x": "name:x", "y": "name:y", "shape": (3, 4), "fast_axis": "x", "snake": True},
    )


def labelled_positions(path: Path) -> Built:
    """Motor values in the names, one of them with p as the decimal sign."""
    frames = some_frames(12, "u2")
    x, y = np.tile([-0.125, 0.0, 0.125, 0.25], 3), np.repeat([-1.5, -1.25, -1.0], 4)
    for place in range(12):
        decimal = f"{y[place]:.3f}".replace(".", "p")
        plain_tiff(path / f"ore_sx{x[place]:.3f}mm_sy{decimal}mm.tif", frames[place], place)
    return Built(
        (str(path),),
        frames,
        tuple(range(12)),
        "TIFF",
        positions={"name:sx": x, "name:sy": y},
        hint={"x": "name:sx", "y": "name:sy", "shape": (3, 4)},
    )


# --- the registry -----------------------------------------------------------------------------


def single(
    label: str,
    written_by: str,
    write: Write,
    name: str,
    kind: str,
    dtype: str = "i4",
    **metadata: Any,
) -> Layout:
    return Layout(
        label,
        written_by,
        folder(write, name, kind, dtype, **metadata),
        damages(write, name, kind, dtype),
    )


MOTORS_XY = {
    "positions": {"SampleX": SAMPLE_X, "SampleY": SAMPLE_Y},
    "hint": {"x": "SampleX", "y": "SampleY", "source": "header"},
}
MOTORS_YZ = {
    "positions": {"samy": SAMY, "samz": SAMZ},
    "hint": {"x": "samy", "y": "samz", "source": "header"},
}

IMAGE_LAYOUTS = [
    single(
        "TIFF of areaDetector", "APS, NSLS-II, DLS (NDFileTIFF)", area_detector_tiff,
        "sample_{:05d}.tif", "TIFF", "u2", exposure=0.25, monitor=("IC1", COUNTS), **MOTORS_XY,
    ),
    single(
        "TIFF with .metadata", "APS (QXRD, GSAS-II)", metadata_tiff,
        "LaB6-{:05d}.tif", "TIFF", "f4", exposure=0.5,
    ),
    single(
        "TIFF of a Pilatus", "camserver: APS, SPring-8, lab", pilatus_tiff,
        "BCC1_2GPa_10s_001_{:05d}.tif", "Pilatus TIFF", "i4",
        exposure=0.4, saturation=1048574, wavelength=0.4066, distance=0.72,
    ),
    single(
        "TIFF, big-endian", "ImageJ, older cameras",
        functools.partial(plain_tiff, order=">"), "frame{:d}.tiff", "TIFF", "f4",
    ),
    several("TIFF, multi-frame", "tifffile, areaDetector", multi_tiff, "stack_{:04d}.tif", "TIFF"),
    single(
        "CBF", "DECTRIS: PETRA III, SLS, DLS, ESRF", cbf, "sample_00001_{:05d}.cbf", "CBF",
        exposure=0.0995, saturation=1009869, wavelength=0.2907, distance=0.6,
    ),
    single(
        "EDF", "SPEC and LImA: ESRF", edf, "ore_{:04d}.edf", "EDF", "u2",
        exposure=0.05, wavelength=0.48622, distance=0.18, monitor=("mon", COUNTS), **MOTORS_YZ,
    ),
    single(
        "EDF, compressed", "ESRF archives", edf_gz, "ore_{:04d}.edf.gz", "EDF", "u2",
        exposure=0.05, monitor=("mon", COUNTS), **MOTORS_YZ,
    ),
    several("EDF, multi-frame", "LImA: ESRF", multi_edf, "ore_{:04d}.edf", "EDF"),
    single(
        "MarCCD", "Rayonix: APS, SSRL, PETRA III", mar_ccd, "lab6_{:03d}.mccd", "MarCCD", "u2",
        exposure=1.5, saturation=65535, wavelength=0.41328, distance=0.25, bit_depth=16,
    ),
    single(
        "mar345", "image plates", mar345, "lab6_{:03d}.mar2300", "mar345", "u4",
        exposure=60.0, wavelength=0.38745, distance=0.3005,
    ),
    single(
        "SPE", "Princeton Instruments (WinView)", spe, "run_{:03d}.spe", "SPE", "u2", exposure=2.0,
    ),
    several("SPE, multi-frame", "Princeton Instruments", spe, "run_{:03d}.SPE", "SPE"),
    several("GE", "APS 1-ID (a-Si flat panel)", ge, "ceo2_{:05d}.ge2", "GE"),
    single(
        "Bruker", "D8 with area detector (.gfrm, .001)", bruker, "sample_01.{:04d}", "Bruker", "i4",
        exposure=30.0, wavelength=0.71073, distance=0.06,
    ),
    single("NumPy", "anybody", plain_npy, "frame_{:04d}.npy", "NumPy", "u2"),
    several("NumPy, stacks", "anybody", multi_npy, "line_{:02d}.npy", "NumPy"),
    Layout(
        "names: row and column", "many", rows_and_columns, {"missing": lost_in_the_grid}
    ),
    Layout("names: folder per line", "fly scans of TIFFs or CBFs", folder_per_line),
    Layout("names: place and counter", "SPEC macros", snake_with_a_counter),
    Layout("names: motor positions", "step scans", labelled_positions),
]  # fmt: skip
