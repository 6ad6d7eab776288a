"""What damage, haste or ill will does to a file, drawn from a seeded random generator."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import struct
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

Random = np.random.Generator
Mutation = Callable[[Random, bytes], bytes]

WHOLE = (0, 1, -1, 2, 7, 255, 256, 32767, 65535, 10**6, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
"""Sizes, counts and offsets that parsers rarely expect."""

WORDS = (
    *(str(number) for number in WHOLE),
    "-2147483648", "18446744073709551616", "1e308", "-1e308", "1e400", "1e-320", "nan", "inf",
    "-inf", "", " ", "\0", "0x10", "1e6", "1000000000", "'", '"', "[", "]", "{", "}", "[[[[[[[[",
    "null", "true", "None", "../../x", "/etc/passwd", "°Å", "\ufeff", "\u202e", "a" * 5000,
    "9" * 400, "%s%n", "$(x)", "__import__('os')", "1,2", "1;2", "(" * 300, "[" * 5000,
)  # fmt: skip

_NUMBER = re.compile(rb"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?")


def damaged(random: Random, content: bytes) -> bytes:
    """One to four changes of bytes."""
    raw = bytearray(content)
    for _ in range(int(random.choice((1, 1, 1, 2, 4)))):
        raw = _CHANGES[random.integers(len(_CHANGES))](random, raw)
    return bytes(raw)


def header_damaged(random: Random, content: bytes) -> bytes:
    """The same within the first 512 bytes, where formats keep their sizes."""
    return damaged(random, content[:512]) + content[512:]


def reworded(random: Random, content: bytes) -> bytes:
    """Numbers of a text replaced, lines lost, doubled, moved or extended."""
    if random.random() < 0.15:
        return damaged(random, content)
    for _ in range(int(random.choice((1, 1, 2, 5)))):
        numbers = list(_NUMBER.finditer(content))
        word = WORDS[random.integers(len(WORDS))].encode()
        if numbers and random.random() < 0.6:
            hit = numbers[random.integers(len(numbers))]
            content = content[: hit.start()] + word + content[hit.end() :]
            continue
        lines = content.splitlines(keepends=True) or [b""]
        place, other = random.integers(0, len(lines), 2)
        match random.integers(5):
            case 0:
                del lines[place]
            case 1:
                lines.insert(other, lines[place])
            case 2:
                lines[place], lines[other] = lines[other], lines[place]
            case 3:
                at = random.integers(len(lines[place]) + 1)
                lines[place] = lines[place][:at] + word + lines[place][at:]
            case _:
                key = re.match(rb"[^:=]*[:=]?", lines[place])
                lines[place] = (key[0] if key else b"") + b" " + word + b"\n"
        content = b"".join(lines)
    return content


def _cut(random: Random, raw: bytearray) -> bytearray:
    return raw[: random.integers(len(raw) + 1)]


def _flip(random: Random, raw: bytearray) -> bytearray:
    for place in random.integers(0, max(len(raw), 1), random.choice((1, 3, 30))):
        if raw:
            raw[place] ^= 1 << random.integers(8)
    return raw


def _number(random: Random, raw: bytearray) -> bytearray:
    """A whole number of 1 to 8 bytes and either byte order overwritten."""
    size = int(random.choice((1, 2, 4, 4, 8)))
    value = WHOLE[random.integers(len(WHOLE))] % (1 << 8 * size)
    place = int(random.integers(len(raw) + 1))
    if random.random() < 0.5:
        place -= place % size
    raw[place : place + size] = value.to_bytes(size, "little" if random.random() < 0.6 else "big")
    return raw


def _insert(random: Random, raw: bytearray) -> bytearray:
    place = random.integers(len(raw) + 1)
    raw[place:place] = random.bytes(int(random.choice((1, 2, 16, 500))))
    return raw


def _remove(random: Random, raw: bytearray) -> bytearray:
    place = random.integers(len(raw) + 1)
    del raw[place : place + int(random.choice((1, 4, 16, 500)))]
    return raw


def _repeat(random: Random, raw: bytearray) -> bytearray:
    start, target = random.integers(0, len(raw) + 1, 2)
    raw[target:target] = raw[start : start + int(random.choice((1, 16, 512)))]
    return raw


def _blank(random: Random, raw: bytearray) -> bytearray:
    place = int(random.integers(len(raw) + 1))
    size = min(int(random.choice((4, 64, 1024))), len(raw) - place)
    raw[place : place + size] = bytes([random.choice((0, 255))]) * size
    return raw


def _noise(random: Random, raw: bytearray) -> bytearray:
    place = int(random.integers(len(raw) + 1))
    size = min(int(random.choice((4, 64, 1024))), len(raw) - place)
    raw[place : place + size] = random.bytes(size)
    return raw


_CHANGES = (
    _cut,
    _flip,
    _flip,
    _number,
    _number,
    _number,
    _insert,
    _remove,
    _repeat,
    _blank,
    _noise,
)


# --- JSON and what carries it ----------------------------------------------------------------


def rewritten(random: Random, content: bytes) -> bytes:
    """Values of a JSON text replaced by values of other kinds, or taken out."""
    if random.random() < 0.2:
        return reworded(random, content)
    tree = json.loads(content)
    for _ in range(int(random.choice((1, 1, 2)))):
        places = list(_places(tree))
        holder, key = places[random.integers(len(places))]
        if random.random() < 0.2:
            del holder[key]
            continue
        holder[key] = _any_json(random)
    return json.dumps(tree).encode()


def _places(tree: Any) -> Any:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


def _any_json(random: Random) -> Any:
    choice: tuple[Any, ...] = (
        None, True, [], {}, "", [[]], {"a": 1}, [None], 0.1, -1, 1e308, 1e-308, float("nan"),
        *WHOLE, "../../../etc/passwd", "/etc/passwd", "..", ".", "a/b", "x" * 5000, [1] * 1000,
    )  # fmt: skip
    return choice[random.integers(len(choice))]


def tensors(random: Random, content: bytes) -> bytes:
    """The header of a safetensors file rewritten, or its bytes damaged."""
    if random.random() < 0.5:
        return header_damaged(random, content)
    size = struct.unpack("<Q", content[:8])[0]
    header = rewritten(random, content[8 : 8 + size])
    return struct.pack("<Q", len(header)) + header + content[8 + size :]


# --- HDF5 ------------------------------------------------------------------------------------


def restructured(random: Random, content: bytes) -> bytes:
    """Objects and attributes of an HDF5 file replaced by others that HDF5 allows."""
    memory = io.BytesIO(content)
    with h5py.File(memory, "r+") as file:
        names: list[str] = []
        file.visit_links(names.append)
        for _ in range(int(random.choice((1, 1, 1, 2, 4)))):
            name = names[random.integers(len(names))]
            try:
                if random.random() < 0.35:
                    _other_attribute(random, file, name)
                else:
                    _other_object(random, file, name)
            except (KeyError, OSError, ValueError, TypeError, RuntimeError):
                continue  # the change before took it away, or HDF5 does not allow this one
    return memory.getvalue()


def _other_attribute(random: Random, file: h5py.File, name: str) -> None:
    item = file[name] if random.random() < 0.9 else file
    held = list(item.attrs)
    key = held[random.integers(len(held))] if held and random.random() < 0.7 else _ATTRIBUTES[
        random.integers(len(_ATTRIBUTES))
    ]  # fmt: skip
    if random.random() < 0.1 and held:
        del item.attrs[key]
        return
    values: tuple[Any, ...] = (
        *WHOLE[:13], np.nan, "", "x", b"\xff\xfe\x80", "x" * 60000, h5py.Empty("f8"),
        h5py.Empty("S1"), [], [1, 2, 3], ["a", "b"], np.zeros((2, 2)), "/entry/data",
        "no/such", np.void(b"\0\1\2"), np.zeros(1, "i4,f8"), True, item.ref, "nexus", "NXdetector",
    )  # fmt: skip
    item.attrs[key] = values[random.integers(len(values))]


_ATTRIBUTES = (
    "NX_class", "units", "signal", "axes", "default", "creator", "image_nr_low", "image_nr_high",
    "variant", "numbered", "long_name", "depends_on", "scan_shape",
)  # fmt: skip

_SHAPES = (
    (10**6, 10**6), (10**9, 64, 80), (10**12,), (3, 10**6, 10**6), (0, 64, 80), (3, 0, 80), (0,),
    (2**40, 64, 80), (1,), (2, 64, 80), (5, 64, 80), (64, 80), (1, 1, 1, 64, 80), (10**5, 16, 16),
    (3, 16, 10**9), (2**31, 2**31),
)  # fmt: skip

_KINDS = ("u1", "i2", "u4", "i8", "u8", "f2", "f4", "f8", ">u4", "?", "S3", "c8", "i4,f8", "V5")


def _other_object(random: Random, file: h5py.File, name: str) -> None:
    old = file.get(name)
    parent, own = file[name.rpartition("/")[0] or "/"], name.rpartition("/")[2]
    dataset = isinstance(old, h5py.Dataset)
    held = dataset and not old.is_virtual and 0 < (old.size or 0) < 10**7
    if held and old.dtype.kind in "iuf" and random.random() < 0.25:
        _other_values(random, old)
        return
    shape = old.shape if dataset and random.random() < 0.4 else _SHAPES[
        random.integers(len(_SHAPES))
    ]  # fmt: skip
    kind = _KINDS[random.integers(len(_KINDS))]
    if dataset and random.random() < 0.4:
        kind = old.dtype
    del file[name]
    match random.integers(14):
        case 0:
            pass
        case 1 | 2 | 3:
            chunks = tuple(min(max(n, 1), 64) for n in shape) or None
            parent.create_dataset(own, shape, kind, chunks=chunks)
        case 4:
            parent[own] = WHOLE[random.integers(len(WHOLE) - 1)]
        case 5:
            parent[own] = WORDS[random.integers(len(WORDS))].replace("\0", " ")
        case 6:
            parent.create_dataset(own, data=h5py.Empty("f4"))
        case 7:
            parent.create_dataset(own, data=["a", "b"], dtype=h5py.string_dtype())
        case 8:
            parent.create_group(own)
        case 9:
            links = (f"/{name}", "/", "..", "/no/such", ".", name.split("/")[0])
            parent[own] = h5py.SoftLink(links[random.integers(len(links))])
        case 10:
            files = ("absent.h5", ".", "/", "/dev/null", "/dev/zero", "input.h5", "../x.h5", "")
            parent[own] = h5py.ExternalLink(files[random.integers(len(files))], f"/{name}")
        case 11:
            small = tuple(min(n, 100) for n in shape)
            layout = h5py.VirtualLayout(small, "u4")
            sources = (".", "absent.h5", "absent_%b.h5", "/dev/zero")
            layout[...] = h5py.VirtualSource(
                sources[random.integers(len(sources))], f"/{name}", small
            )
            parent.create_virtual_dataset(own, layout)
        case 12:
            parent[own] = np.dtype("f8")
        case _:
            few = tuple(min(n, 8) for n in shape)
            parent.create_dataset(own, data=np.full(few, np.nan))


def _other_values(random: Random, data: h5py.Dataset) -> None:
    values = data[()]
    flat = np.atleast_1d(values).ravel().copy()
    places = random.integers(0, flat.size, random.choice((1, 3, flat.size)))
    if data.dtype.kind == "f":
        nasty = np.array((np.nan, np.inf, -np.inf, 0, -1, 1e308, 1e-308))
        with np.errstate(over="ignore"):
            flat[places] = nasty[random.integers(len(nasty))].astype(data.dtype)
    else:
        limits = np.iinfo(data.dtype)
        flat[places] = (limits.min, limits.max, 0, 1)[random.integers(4)]
    data[()] = flat.reshape(values.shape)


def repacked(random: Random, content: bytes) -> bytes:
    """The content of a gzip file damaged, and packed again."""
    return gzip.compress(damaged(random, gzip.decompress(content)), 1, mtime=0)


# --- CBF and EDF -----------------------------------------------------------------------------

_CBF_START = b"\x0c\x1a\x04\xd5"


def header_reworded(random: Random, content: bytes) -> bytes:
    """The text before the pixels of an EDF."""
    end = content.find(b"}\n") + 2
    return reworded(random, content[:end]) + content[end:]


def resealed(random: Random, content: bytes) -> bytes:
    """A CBF whose header is reworded, or whose damaged pixels have the checksum that fits."""
    header, start, rest = content.partition(_CBF_START)
    if random.random() < 0.4:
        return reworded(random, header) + start + rest
    rest = damaged(random, rest)
    size = re.search(rb"X-Binary-Size:\s*(\d+)", header)
    stated = int(size[1]) if size else len(rest)
    digest = base64.b64encode(hashlib.md5(rest[:stated], usedforsecurity=False).digest())
    header = re.sub(rb"(Content-MD5:\s*)\S+", lambda match: match[1] + digest, header)
    return header + start + rest
