"""Open whatever the user points at as one ordered series of frames."""

from __future__ import annotations

import glob as globbing
import re
from collections.abc import Sequence
from pathlib import Path

from xrdpipe.errors import InputError, InputMissingError
from xrdpipe.frames.hdf5 import HDF5_SUFFIXES, open_hdf5
from xrdpipe.frames.images import ImageSeries
from xrdpipe.types import FrameSource

NOT_FRAMES = frozenset(
    {
        ".poni", ".txt", ".json", ".toml", ".md", ".log", ".csv", ".dat", ".png", ".jpg", ".svg",
        ".imctrl", ".immask", ".mask", ".msk", ".cif", ".xy", ".xye", ".py", ".yml", ".yaml",
        ".html", ".pdf", ".npy", ".npz", ".metadata", ".part",
    }
)  # fmt: skip
"""Suffixes that lie beside frames in a folder and are never frames themselves."""


def open_frames(paths: Sequence[str | Path] | str | Path) -> FrameSource:
    """Open a folder, a glob, files, or ``file.h5::/dataset``.

    Raises
    ------
    InputMissingError
        If nothing is there.
    InputError
        If what is there is no frame, or ambiguous; the message lists the candidates.
    """
    names = [str(paths)] if isinstance(paths, (str, Path)) else [str(path) for path in paths]
    if not names:
        raise InputMissingError("no frames given; expected a folder, a glob or files.")
    if len(names) == 1:
        file, _, dataset = names[0].partition("::")
        path = Path(file)
        if dataset or (path.is_file() and path.suffix.lower() in HDF5_SUFFIXES):
            return open_hdf5(path, dataset or None)
    # Overlapping globs name a frame once.
    files = list(dict.fromkeys(file for name in names for file in _expand(name)))
    stacks = [file for file in files if file.suffix.lower() in HDF5_SUFFIXES]
    if stacks and len(stacks) == len(files):
        masters = [file for file in files if file.stem.endswith("_master")]
        if len(files) == 1 or len(masters) == 1:
            return open_hdf5((masters or files)[0], None)
        raise InputError(
            f"{', '.join(names)} holds {len(files)} HDF5 files ({files[0].name}, …); "
            "name one of them, or file.h5::/dataset."
        )
    if stacks:
        raise InputError(
            f"{', '.join(names)} mixes image files and HDF5 files ({stacks[0].name}); "
            "give a glob that selects one kind, for example 'FOLDER/*.tif'."
        )
    if not files:
        raise InputMissingError(
            f"no frames found in {', '.join(names)}; expected detector images "
            "(TIFF, CBF, EDF, …) or an HDF5 file."
        )
    return ImageSeries(natural_sort(files), ", ".join(names))


def _expand(name: str) -> list[Path]:
    """Files behind one argument: a folder's images, a glob's matches, or the file itself."""
    path = Path(name)
    if path.is_dir():
        found = [
            file
            for file in path.iterdir()
            if (file.is_file() or _dangling(file))
            and not file.name.startswith(".")
            and file.suffix.lower() not in NOT_FRAMES
        ]
        return _one_kind(found, path)
    if path.exists() or _dangling(path):
        return [path]
    if any(sign in name for sign in "*?["):
        return [
            file
            for file in map(Path, globbing.glob(name))  # noqa: PTH207 - absolute patterns
            if (file.is_file() or _dangling(file)) and not file.name.startswith(".")
        ]
    raise InputMissingError(f"{name} does not exist; expected a folder, a glob or a file.")


def _dangling(path: Path) -> bool:
    """A link to a frame that is gone keeps its place: the frame is missing, nothing shifts."""
    return path.is_symlink() and not path.exists()


def _one_kind(found: list[Path], folder: Path) -> list[Path]:
    """A folder must hold one kind of frames: mixing would silently double the scan."""
    kinds: dict[str, int] = {}
    for file in found:
        kinds[file.suffix.lower()] = kinds.get(file.suffix.lower(), 0) + 1
    hdf5 = sum(n for suffix, n in kinds.items() if suffix in HDF5_SUFFIXES)
    images = {suffix: n for suffix, n in kinds.items() if suffix not in HDF5_SUFFIXES}
    if len(images) > 1 or (images and hdf5):
        listing = ", ".join(f"{n} × {suffix or 'no suffix'}" for suffix, n in kinds.items())
        raise InputError(
            f"folder {folder} holds several kinds of files ({listing}); "
            f"give a glob that selects the frames, for example '{folder}/*.tif'."
        )
    return found


def natural_sort(files: Sequence[Path]) -> list[Path]:
    """Sort so that frame_2 comes before frame_10."""

    def key(file: Path) -> list[tuple[int, int, str]]:
        parts = re.split(r"(\d+)", str(file))
        return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]

    return sorted(files, key=key)
