"""Write mask files: NeXus (.h5), or EDF and .npy with what they cannot say in a JSON beside them.

The NeXus file holds one image: nonzero = masked, and bit i is set by component i. Being the only
image of the file, it is what every reader of masks finds.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe import __version__
from xrdpipe.frames.write import write_edf
from xrdpipe.masks import Component, reason_bits
from xrdpipe.store.nexus import (
    already_done,
    check_same_run,
    entry_uuid,
    fixed_strings,
    new_group,
    new_root,
    now,
    put,
    put_key,
)
from xrdpipe.store.parts import key_text
from xrdpipe.store.writing import whole_hdf5

KEY_PATH = "entry/process/run_key"

CONVENTION = "nonzero = masked; oriented like the frames after --flip and --rotate, as the PONI"


@dataclass(frozen=True)
class MaskRecord:
    """A mask with everything that led to it.

    Parameters
    ----------
    shape
        Rows and columns.
    components
        The reasons, in the order of their bits.
    title
        What the frames were opened as.
    config
        The resolved configuration.
    key
        The run's key (decision 21).
    frames
        Frames that were looked at.
    skipped
        Reasons of frames that could not be used.
    parameters
        Texts and numbers: geometry, kind of the pixels, versions.
    """

    shape: tuple[int, int]
    components: tuple[Component, ...]
    title: str
    config: Mapping[str, Any]
    key: Mapping[str, Any]
    frames: tuple[str, ...]
    skipped: tuple[str, ...]
    parameters: Mapping[str, Any]

    @property
    def bits(self) -> NDArray[np.uint32]:
        """Why each pixel is masked, shape (rows, columns)."""
        return reason_bits(self.components, self.shape)


def sidecar(path: Path) -> Path:
    """The JSON beside an .edf or .npy mask."""
    return path.with_name(path.name + ".json")


def mask_done(path: Path, key: dict[str, Any], restart: bool) -> bool:
    """True if ``path`` was made with this key, and is not to be made again.

    Raises
    ------
    OutputExistsError
        If it exists and was made with another key, or by something else.
    """
    if path.suffix.lower() == ".h5":
        return already_done(path, key, KEY_PATH, restart)
    if not path.exists():
        return False
    old = None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        old = json.loads(sidecar(path).read_text())["run_key"]
    check_same_run(path, old, key, restart)
    return not restart


def write_mask(path: Path, record: MaskRecord) -> None:
    """Write a mask in the format of the suffix; complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".writing")
    try:
        if path.suffix.lower() == ".h5":
            _write_nexus(temporary, record)
        else:
            masked = (record.bits > 0).astype(np.uint8)
            if path.suffix.lower() == ".edf":
                write_edf(temporary, masked, {"Title": "xrdpipe mask", "Convention": CONVENTION})
            else:
                with temporary.open("wb") as stream:
                    np.save(stream, masked)
            sidecar(path).write_text(json.dumps(_description(record), indent=2) + "\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _description(record: MaskRecord) -> dict[str, Any]:
    return {
        "convention": CONVENTION,
        "frames": record.title,
        "program": "xrdpipe mask",
        "version": __version__,
        "date": now(),
        "shape": list(record.shape),
        "masked_pixels": int(np.count_nonzero(record.bits)),
        "components": [
            {"name": part.name, "pixels": part.count, "source": part.source}
            for part in record.components
        ],
        "frames_used": list(record.frames),
        "frames_skipped": list(record.skipped),
        "parameters": dict(record.parameters),
        "configuration": dict(record.config),
        "run_key": json.loads(key_text(record.key)),
    }


def _write_nexus(path: Path, record: MaskRecord) -> None:
    names = [part.name for part in record.components]
    with whole_hdf5(path) as file:
        new_root(file)
        entry = new_group(file, "entry", "NXentry", default="mask")
        put(entry, "title", f"mask of {record.title}")
        put(entry, "entry_identifier_uuid", entry_uuid(dict(record.key)))
        group = new_group(entry, "mask", "NXdata", signal="mask")
        bits = group.create_dataset(
            "mask", data=record.bits, chunks=True, compression="gzip", compression_opts=1,
            shuffle=True,
        )  # fmt: skip
        bits.attrs["interpretation"] = "image"
        bits.attrs["long_name"] = "mask: nonzero = masked, the bits say why"
        bits.attrs["convention"] = CONVENTION
        bits.attrs["flag_masks"] = np.array([1 << i for i in range(len(names))], np.uint32)
        bits.attrs["flag_meanings"] = " ".join(names)
        bits.attrs["masked_pixels"] = np.count_nonzero(record.bits)
        parts = new_group(entry, "components", "NXcollection")
        put(parts, "name", fixed_strings(names))
        put(parts, "source", fixed_strings([part.source for part in record.components]))
        put(parts, "pixels", np.array([part.count for part in record.components], np.int64))
        put(parts, "bit", np.arange(len(names), dtype=np.int64))
        process = new_group(entry, "process", "NXprocess")
        put(process, "program", "xrdpipe mask")
        put(process, "version", __version__)
        put(process, "date", now())
        put_key(process, record.key)
        put(process, "config_json", json.dumps(dict(record.config), sort_keys=True))
        put(process, "frames_used", fixed_strings(list(record.frames)))
        put(process, "frames_skipped", fixed_strings(list(record.skipped)))
        for name, value in record.parameters.items():
            put(process, name, value)
