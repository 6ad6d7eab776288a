"""What image files state beside their pixels: read without decoding any pixel."""

from __future__ import annotations

import bz2
import gzip
import io
import math
import re
import struct
import tokenize
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from xrdpipe.bounds import LARGEST_FRAME, MOST_FRAMES, UNPACKED
from xrdpipe.types import DetectorInfo

Header = dict[str, str]

COMPRESSED = frozenset({".gz", ".bz2"})
"""Suffixes around a whole file that fabio opens transparently."""

CBF_START = b"\x0c\x1a\x04\xd5"
"""Marks the start of the binary section (CBFlib manual, imgCIF)."""

SMALLEST_FRAME = 256
"""Bytes: no detector has fewer pixels, and formats with many frames are not compressed."""

NUMPY_START = b"\x93NUMPY"

HEADER_LIMIT = 1 << 20
"""No text header is longer, in bytes: where its end is not found by then, the file is damaged."""

PAGE_LIMIT = 1_000_000
"""More TIFF directories than this are a chain that bites its own tail."""

TAG_LIMIT = 1 << 22
"""Bytes of all tags of a TIFF directory: they may lie on top of each other, and come to more than
the file."""

HC = 12.398419843320026
"""Planck constant times speed of light, keV·Å."""

_NUMBER = re.compile(
    r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?:\s*([^\W\d_][^\s,;]*).*)?\s*$"
)
_FIRST_NUMBER = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")
_HASH_LINE = re.compile(r"#\s*([A-Za-z]\w*)[\s:=,]+(.*\S)")
_TEXT_LINE = re.compile(r"\s*([A-Za-z][\w .]*?)\s*[:=]\s*(.*\S)")

_SECONDS = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "msec": 1e-3, "us": 1e-6, "µs": 1e-6}
_ANGSTROM = {"A": 1.0, "Å": 1.0, "angstrom": 1.0, "Angstrom": 1.0, "nm": 10.0, "m": 1e10}
_METRES = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6}
_KEV = {"keV": 1.0, "kev": 1.0, "KeV": 1.0, "eV": 1e-3, "ev": 1e-3}

_EXPOSURE = {
    "exposure_time": "s", "exposuretime": "s", "acq_expo_time": "s", "count_time": "s",
    "acquiretime": "s", "acquire_time": "s", "acquisitiontime": "s", "exp_time": "s",
    "elapsda": "s", "elapsdr": "s", "exposuretimeinmillisecs": "ms", "exposure": "s",
    "exposure_period": "s",
}  # fmt: skip
"""Key in lower case → unit where the header gives none; earlier ones win."""

_WAVELENGTH = {"wavelength": "A", "incident_wavelength": "A", "wavelen": "A"}
_ENERGY = ("photon_energy", "incident_energy", "energy", "beam_energy")
_DISTANCE = {
    "detector_distance": "m", "sampledistance": "m", "distance": "mm", "distanc": "cm",
}  # fmt: skip
_SATURATION = ("count_cutoff", "saturated_value", "saturation_value", "ccd_image_saturation")
_BITS = ("signif_bits", "bit_depth_readout", "imagedepthinbits")
_DETECTOR = (
    "detector", "detector_model", "detector_name", "detectortypename", "dettype",
    "detectorsignature", "model",
)  # fmt: skip

_COUNTING = re.compile(r"pilatus|eiger|maxipix|xpad|medipix|timepix|mythen|merlin", re.I)

_LAYOUT_KEYS = re.compile(
    r"Dim_\d|Size$|Image$|HeaderID|EDF_|X-Binary|datastart|HDRBLKS|NOVERFL|NOVER64|NumHigh|HIGH$|num_frames|NumberOfFrames",
    re.I,
)
"""Keys that describe the bytes of the file, not the measurement."""


# --- reading ----------------------------------------------------------------------------------


def read_headers(file: Path) -> list[Header]:
    """One header per frame in the file, and so the number of frames, without reading pixels.

    Raises
    ------
    OSError, ValueError, and what fabio raises
        For a file whose header cannot be read.
    """
    with open_stream(file) as stream:
        start = stream.read(64)
        stream.seek(0)
        if is_tiff(start):
            headers = _tiff_headers(stream)
        elif is_cbf(file, start):
            headers = [_cbf_header(stream)]
        elif start.startswith(NUMPY_START):
            headers = [{} for _ in numpy_frames(file)]
        elif start.lstrip().startswith(b"{") and not is_other_brace(file, start):
            headers = edf_headers(stream)
        else:
            headers = _fabio_headers(file)
    side = _side_file(file)
    return [{**side, **header} for header in headers] if side else headers


def open_stream(file: Path) -> BinaryIO:
    """Open for reading, out of gzip or bzip2 where the name says so.

    Raises
    ------
    OSError, EOFError, zlib.error
        For what is not there, or damaged.
    ValueError
        For more content than a file of images has.
    """
    suffix = file.suffix.lower()
    if suffix not in COMPRESSED:
        return file.open("rb")
    content = io.BytesIO()
    unpack = gzip.open if suffix == ".gz" else bz2.open
    with unpack(file, "rb") as stream:
        while piece := stream.read(1 << 20):
            content.write(piece)
            if content.tell() > UNPACKED:
                raise ValueError(
                    f"more than {UNPACKED} bytes are packed into it; unpack it first, if it is a "
                    "series of frames"
                )
    content.seek(0)
    return content


def is_tiff(start: bytes) -> bool:
    """True for the first bytes of a TIFF of either byte order."""
    return start[:4] in (b"II*\0", b"MM\0*")


def is_cbf(file: Path, start: bytes) -> bool:
    """True for a CBF by its first bytes; or by its name, as fabio does."""
    return start.startswith(b"###CBF") or ".cbf" in file.suffixes


def is_image(file: Path) -> bool:
    """True for a file that is a detector image by its first bytes, whatever its name."""
    try:
        with open_stream(file) as stream:
            start = stream.read(64)
    except (OSError, ValueError, EOFError, zlib.error):
        return False
    return is_tiff(start) or start.startswith((b"###CBF", NUMPY_START, b"{\n", b"{\r\n"))


def numpy_array(file: Path) -> NDArray[Any]:
    """The array of a ``.npy`` file, left on the disk.

    Raises
    ------
    OSError, ValueError
        If it is damaged, holds objects, or more pixels than an image has.
    """
    try:
        array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OverflowError, SyntaxError, TypeError, tokenize.TokenError) as error:
        raise ValueError(f"its header is damaged: {error}") from error
    if not isinstance(array, np.ndarray) or math.prod(array.shape[-2:]) > LARGEST_FRAME:
        raise ValueError("it holds no array, or more pixels than an image has")
    return array


def numpy_frames(file: Path) -> NDArray[Any]:
    """Frames of a ``.npy`` file, shape (frames, rows, columns), left on the disk.

    Raises
    ------
    OSError, ValueError
        If it is cut short, or holds no frames.
    """
    array = numpy_array(file)
    if array.ndim not in (2, 3) or array.dtype.kind not in "uif":
        raise ValueError(f"{array.ndim} dimensions of {array.dtype}; expected 2, or 3 for a stack")
    return array[None] if array.ndim == 2 else array


def is_other_brace(file: Path, start: bytes) -> bool:
    """ADSC and d*TREK headers begin with a brace as EDF does, and so do some of GE detectors."""
    name = file.with_suffix("").name if file.suffix.lower() in COMPRESSED else file.name
    return start.startswith(b"{\nHEA") or re.search(r"\.ge\d*$", name) is not None


def tiff_pages(stream: BinaryIO) -> list[dict[int, Any]]:
    """Tags of every image of a TIFF: number → value or text.

    Raises
    ------
    ValueError
        If the directories are cut off or run in a circle, which fabio would follow for ever.
    """
    size = stream.seek(0, 2)
    stream.seek(0)
    order = "<" if stream.read(2) == b"II" else ">"
    stream.seek(4)
    offset = _unpack(order + "I", stream.read(4))[0]
    pages: list[dict[int, Any]] = []
    seen: set[int] = set()
    while offset:
        if offset in seen or len(seen) > PAGE_LIMIT:
            raise ValueError("its TIFF directories run in a circle")
        if offset >= size:
            raise ValueError(f"{size} bytes; its directory lies at byte {offset}")
        seen.add(offset)
        stream.seek(offset)
        count = _unpack(order + "H", stream.read(2))[0]
        entries = stream.read(12 * count)
        if len(entries) < 12 * count:
            raise ValueError("its directory is cut off")
        offset = _unpack(order + "I", stream.read(4))[0]
        page = {}
        room = TAG_LIMIT
        for place in range(count):
            tag, kind, n = struct.unpack_from(order + "HHI", entries, 12 * place)
            room -= n
            if room < 0:
                raise ValueError("its directory states more values than a file has")
            page[tag] = _tiff_value(
                stream, order, kind, n, entries[12 * place + 8 : 12 * place + 12]
            )
        pages.append(page)
    return pages


_TIFF_KINDS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d"}
_TIFF_NAMES = {
    270: "imageDescription", 271: "make", 272: "model", 305: "software", 306: "date",
    65000: "NDTimeStamp", 65001: "NDUniqueId", 65002: "EPICSTSSec", 65003: "EPICSTSNsec",
}  # fmt: skip
"""TIFF 6.0 and, from 65000, EPICS areaDetector (NDFileTIFF)."""
_ATTRIBUTES = range(65010, 65501)
"""ASCII tags ``name:value`` of NDFileTIFF: the NDAttributes, motors among them."""


def _tiff_value(stream: BinaryIO, order: str, kind: int, n: int, inline: bytes) -> Any:
    code = "s" if kind == 2 else _TIFF_KINDS.get(kind)
    if code is None or n == 0 or n > HEADER_LIMIT:
        return None
    length = struct.calcsize(order + code) * n
    raw = inline
    if length > 4:
        stream.seek(_unpack(order + "I", inline)[0])
        raw = stream.read(length)
    if kind == 2:
        return raw[:n].split(b"\0")[0].decode(errors="replace")
    values = _unpack(f"{order}{n}{code}", raw[:length])
    return values[0] if n == 1 else values


def _unpack(layout: str, raw: bytes) -> tuple[Any, ...]:
    try:
        return struct.unpack(layout, raw)
    except struct.error as error:
        raise ValueError("its header is cut off") from error


def _tiff_headers(stream: BinaryIO) -> list[Header]:
    mar = _mar_header(stream)
    headers = []
    for page in tiff_pages(stream):
        header = dict(mar)
        for tag, value in page.items():
            if tag in _TIFF_NAMES and value is not None:
                header[_TIFF_NAMES[tag]] = str(value)
            elif tag in _ATTRIBUTES and isinstance(value, str) and ":" in value:
                name, _, text = value.partition(":")
                header[name] = text
        header |= text_values(header.get("imageDescription", ""))
        headers.append(header)
    return headers


def text_values(text: str) -> Header:
    """Keys and values of a text: lines ``# Key value`` as DECTRIS writes, or ``key = value``."""
    header = {}
    for line in text.splitlines():
        match = _HASH_LINE.search(line) if "#" in line else _TEXT_LINE.match(line)
        if match:
            header[match.group(1)] = match.group(2)
    return header


_MAR = {
    # key: (byte after the header's start, factor, unit)
    "signif_bits": (96, 1, ""),
    "saturated_value": (104, 1, ""),
    "distance": (640, 1e-3, "mm"),
    "integration_time": (652, 1e-3, "s"),
    "exposure_time": (656, 1e-3, "s"),
    "start_twotheta": (668, 1e-3, "deg"),
    "start_omega": (672, 1e-3, "deg"),
    "start_chi": (676, 1e-3, "deg"),
    "start_kappa": (680, 1e-3, "deg"),
    "start_phi": (684, 1e-3, "deg"),
    "pixelsize_x": (772, 1e-9, "m"),
    "pixelsize_y": (776, 1e-9, "m"),
    "wavelength": (908, 1e-5, "A"),
}
"""The frame header of MarCCD and Rayonix: 32-bit numbers in a block of 3072 bytes at byte 1024."""


def _mar_header(stream: BinaryIO) -> Header:
    stream.seek(1024)
    block = stream.read(3072)
    stream.seek(0)
    if len(block) < 3072 or block[4:7] != b"MMX":
        return {}
    order = "<" if _unpack("<I", block[28:32])[0] == 1234 else ">"
    header = {"detector": "MarCCD"}
    for key, (place, factor, unit) in _MAR.items():
        value = _unpack(order + "i", block[place : place + 4])[0]
        if value:  # 0 = not filled in
            header[key] = f"{value * factor:.9g} {unit}".rstrip()
    if "exposure_time" not in header and "integration_time" in header:
        header["exposure_time"] = header["integration_time"]
    return header


def _cbf_header(stream: BinaryIO) -> Header:
    text = b""
    while CBF_START not in text:
        piece = stream.read(4096)
        if not piece or len(text) > HEADER_LIMIT:
            raise ValueError("its header has no end")
        text += piece
    return text_values(text.partition(CBF_START)[0].decode(errors="replace"))


EDF_END = re.compile(rb"}\r?\n")

EDF_TYPES = {
    "unsignedbyte": "u1",
    "unsignedshort": "u2",
    "unsignedinteger": "u4",
    "unsignedlong": "u4",
    "signedinteger": "i4",
    "signedlong": "i4",
    "float": "f4",
    "floatvalue": "f4",
}
"""Kinds of pixels that EDF names, in lower case."""


def edf_headers(stream: BinaryIO) -> list[Header]:
    """Header blocks of an EDF, each followed by the pixels its sizes tell."""
    headers: list[Header] = []
    general: Header = {}
    while True:
        place = stream.tell()
        block = b""
        while (end := EDF_END.search(block)) is None:
            piece = stream.read(1024)
            if not piece or len(block) > HEADER_LIMIT:
                if not headers:
                    raise ValueError("its header has no end")
                return headers
            block += piece
        header: Header = {}
        for line in block[: end.start()].split(b"{", 1)[-1].decode(errors="replace").split(";"):
            key, equal, value = line.partition("=")
            if equal:
                header[key.strip(" \t\r\n\0")] = value.strip(" \t\r\n\0")
        if "EDF_DataFormatVersion" in header:
            general, size = header, int(header.get("EDF_BinarySize", 0))
        else:
            headers.append(_with_mnemonics({**general, **header}))
            size = _edf_size(header)
        if size < 0 or len(headers) > MOST_FRAMES:
            raise ValueError(f"its header states {size} bytes of pixels")
        stream.seek(place + end.end() + size)


def _edf_size(header: Header) -> int:
    lower = {key.lower(): value for key, value in header.items()}
    for key in ("edf_binarysize", "size"):
        if key in lower:
            try:
                return int(float(lower[key]))
            except OverflowError as error:
                raise ValueError(f"its header states a size of {lower[key]}") from error
    raise ValueError("its header does not say how many bytes the pixels take")


def _with_mnemonics(header: Header) -> Header:
    """Add ``samx = 1.5`` for each name in ``motor_mne`` and value in ``motor_pos``."""
    found: Header = {}
    for kind in ("motor", "counter"):
        names, values = (
            " ".join(
                # Long lists go on in motor_mne~1, motor_mne~2, …
                header[key]
                for key in sorted(header)
                if key == f"{kind}_{part}" or key.startswith(f"{kind}_{part}~")
            ).split()
            for part in ("mne", "pos")
        )
        if len(names) == len(values):
            found |= dict(zip(names, values, strict=True))
    return {**found, **header}


def _fabio_headers(file: Path) -> list[Header]:
    from fabio.openimage import openheader

    opened = openheader(str(file))
    return [as_text(opened.header)] * frames_stated(opened, file)


def as_text(header: Mapping[Any, Any]) -> Header:
    """Header of any of fabio's readers with text keys and values."""
    return {
        str(key): value.decode(errors="replace").strip("\0 ")
        if isinstance(value, bytes)
        else str(value)
        for key, value in header.items()
    }


def frames_stated(opened: Any, file: Path) -> int:
    """Number of frames of a file opened by fabio; some of its readers leave it to the header.

    Raises
    ------
    ValueError
        If the file cannot hold as many.
    """
    stated = opened.nframes
    for key in ("NumberOfFrames", "num_frames"):
        stated = opened.header.get(key, stated)
    packed = file.suffix.lower() in COMPRESSED
    most = MOST_FRAMES if packed else file.stat().st_size // SMALLEST_FRAME + 1
    if int(stated) > min(most, MOST_FRAMES):
        raise ValueError(f"its header states {stated} frames")
    return max(1, int(stated))


def _side_file(file: Path) -> Header:
    """What ``name.tif.metadata`` says (GSAS-II and QXRD at the APS)."""
    try:
        with file.with_name(file.name + ".metadata").open(errors="replace") as stream:
            text = stream.read(HEADER_LIMIT)
    except OSError:
        return {}
    return text_values(text)


# --- meaning ----------------------------------------------------------------------------------


def number(text: str) -> tuple[float, str] | None:
    """``"0.5 s"`` → (0.5, "s"); None for lists, dates and words."""
    match = _NUMBER.match(text)
    if match is None:
        return None
    return float(match.group(1)), match.group(2) or ""


def numbers(header: Header) -> dict[str, tuple[float, str]]:
    """Every key of the measurement whose value is one number: key → (value, unit)."""
    found = {}
    for key, text in header.items():
        if not _LAYOUT_KEYS.match(key) and (value := number(text)) is not None:
            found[key] = value
    return found


def exposure_key(header: Header) -> tuple[str, float] | None:
    """Key of the exposure time and what turns its value into s; None if the header is silent."""
    by_lower = {key.lower(): key for key in reversed(header)}
    if "PixelLength" in header:  # mar345
        by_lower["exposure_time"] = "TIME"
    for lower, unit in _EXPOSURE.items():
        key = by_lower.get(lower)
        value = number(header.get(key, "")) if key is not None else None
        if key is not None and value is not None and value[0] > 0:
            return key, _SECONDS.get(value[1] or unit, 1.0)
    return None


def detector_info(header: Header) -> DetectorInfo:
    """What a header says of detector and beam; zeros and impossible values are silence."""
    lower = {key.lower(): value for key, value in reversed(header.items())}
    saturation = _first(lower, _SATURATION)
    bits = _first(lower, _BITS)
    return DetectorInfo(
        description=_description(lower),
        saturation_value=saturation,
        bit_depth=None if bits is None else int(bits),
        wavelength=_wavelength(lower),
        distance=_quantity(lower, _DISTANCE, _METRES),
    )


def _first(lower: Header, keys: tuple[str, ...]) -> float | None:
    for key in keys:
        value = number(lower.get(key, ""))
        if value is not None and value[0] > 0:
            return value[0]
    return None


def _quantity(lower: Header, keys: dict[str, str], units: dict[str, float]) -> float | None:
    for key, default in keys.items():
        match = _FIRST_NUMBER.match(lower.get(key, ""))  # Bruker lists mean, Kα1, Kα2
        if match is None or float(match.group(1)) <= 0:
            continue
        stated = number(lower[key])
        unit = stated[1] if stated and stated[1] in units else default
        return float(match.group(1)) * units[unit]
    return None


def _wavelength(lower: Header) -> float | None:
    value = _quantity(lower, _WAVELENGTH, _ANGSTROM)
    if value is not None and value < 1e-6:
        value *= 1e10  # ESRF EDF files give metres without saying so
    if value is None:
        for key in _ENERGY:
            energy = number(lower.get(key, ""))
            if energy is not None and energy[0] > 0 and energy[1] in _KEV:
                value = HC / (energy[0] * _KEV[energy[1]])
                break
    return value if value is not None and 0.01 <= value <= 10 else None


def _description(lower: Header) -> str | None:
    if "scanner" in lower:
        return f"mar345 image plate {lower['scanner']}"
    for key in _DETECTOR:
        text = lower.get(key, "").strip(" \"'")
        if re.search("[a-z]", text, re.I) and not re.match("unknown|unspecified|none", text, re.I):
            return text
    match = _COUNTING.search(" ".join(lower.values()))
    return match.group(0) if match else None
