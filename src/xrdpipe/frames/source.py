"""Open whatever the user points at as one ordered series of frames."""

from __future__ import annotations

import glob as globbing
import itertools
import os
import re
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from xrdpipe.errors import InputError, InputMissingError
from xrdpipe.frames.hdf5 import HDF5_SUFFIXES, is_hdf5, open_hdf5, open_hdf5_files
from xrdpipe.frames.headers import is_image
from xrdpipe.frames.images import ImageSeries
from xrdpipe.frames.names import image_suffix, original_name, pattern
from xrdpipe.types import FrameSource

NOT_FRAMES = frozenset(
    {
        ".poni", ".txt", ".json", ".toml", ".md", ".log", ".csv", ".dat", ".png", ".jpg", ".jpeg",
        ".gif", ".bmp", ".svg", ".imctrl", ".immask", ".mask", ".msk", ".cif", ".xy", ".xye",
        ".chi", ".fxye", ".xrdml", ".gpx", ".py", ".ipynb", ".sh", ".mac", ".yml", ".yaml", ".html",
        ".pdf", ".npy", ".npz", ".metadata", ".hexrd", ".xml", ".tfw", ".ini", ".cfg", ".par",
        ".spec", ".fio", ".mda", ".inf", ".info", ".db", ".bak", ".tmp", ".part", ".lock",
        ".zip", ".tar",
    }
)  # fmt: skip
"""Suffixes that lie beside frames in a folder and are never frames themselves."""

PERHAPS_FRAMES = frozenset({".npy", ".dat"})
"""Of these, suffixes of files that may be frames where a folder holds no others."""

_NOT_OF_THE_SCAN = re.compile(
    r"(?<![a-z])(dark|flat|flood|bkg|background|empty|blank|mask|calib\w*|standard|ceo2|lab6|agbeh)"
    r"(?![a-z])",
    re.I,
)
"""Words in the names of images that are taken beside a scan."""

Found = dict[Path, os.stat_result | None]
"""Files, with what the disk says of each: asked once; None where a link points to nothing."""


def open_frames(paths: Sequence[str | Path] | str | Path) -> FrameSource:
    """Open a folder, a glob, files, or ``file.h5::/dataset``.

    A folder must hold one series: one kind of files whose names differ in their numbers only.
    Globs and lists of files are taken as they are.

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
        if dataset or (path.is_file() and is_hdf5(path)):
            return open_hdf5(path, dataset or None)
    found: Found = {}
    notes: list[str] = []
    for name in names:
        files, note = _expand(name)
        found |= files  # overlapping globs name a frame once
        notes += note
    stacks = _hdf5_of(natural_sort(list(found)))
    if stacks and len(stacks) == len(found):
        return _open_stacks(stacks, ", ".join(names))
    if stacks:
        raise InputError(
            f"{', '.join(names)} mixes image files and HDF5 files ({stacks[0].name}); "
            "give a glob that selects one kind, for example 'FOLDER/*.tif'."
        )
    if not found:
        raise InputMissingError(
            f"no frames found in {', '.join(names)}; expected detector images "
            f"(TIFF, CBF, EDF, …) or an HDF5 file.{_in_subfolders(names)}{_as_a_pattern(names)}"
        )
    ordered = natural_sort(list(found))
    patterns = _patterns(ordered)
    if len(patterns) > 1:
        notes.append(f"{len(patterns)} name patterns in natural order: {_listing(patterns)}")
    return ImageSeries({file: found[file] for file in ordered}, ", ".join(names), tuple(notes))


def _expand(name: str) -> tuple[Found, list[str]]:
    """Files behind one argument: a folder's images, a glob's matches, or the file itself."""
    path = Path(name)
    if path.is_dir():
        return _folder(path)
    if os.path.lexists(path):
        return {path: _stat(path)}, []
    if any(sign in name for sign in "*?["):
        found = {file: _stat(file) for file in matching(name) if not file.name.startswith(".")}
        return {file: s for file, s in found.items() if s is None or stat.S_ISREG(s.st_mode)}, []
    raise InputMissingError(f"{name} does not exist; expected a folder, a glob or a file.")


def matching(name: str) -> list[Path]:
    """Files that a pattern means; a folder that exists under its name as written is no pattern."""
    folder, rest = _folder_and_pattern(name)
    found = globbing.glob(f"{globbing.escape(str(folder))}{os.sep}{rest}")  # noqa: PTH207 - absolute
    return [Path(file) for file in found]


def _folder_and_pattern(name: str) -> tuple[Path, str]:
    folder = next(folder for folder in Path(name).parents if folder.is_dir())
    return folder, str(Path(name).relative_to(folder))


def _as_a_pattern(names: list[str]) -> str:
    """A sentence on brackets, if they may have been meant as they are written."""
    patterns = [_folder_and_pattern(name)[1] for name in names if not Path(name).is_dir()]
    match = re.search(r"\[.+?\]", " ".join(patterns))
    if match is None:
        return ""
    return f" {match[0]} was read as a pattern for one character; write [[] for a bracket."


def _hdf5_of(files: list[Path]) -> list[Path]:
    """The HDF5 files among others: by their names, or by their content if the first is one."""
    named = [file for file in files if file.suffix.lower() in HDF5_SUFFIXES]
    if named or not files or not is_hdf5(files[0]):
        return named
    return [file for file in files if is_hdf5(file)]


def _stat(path: Path | os.DirEntry[str]) -> os.stat_result | None:
    """What the disk says; None for a link to a frame that is gone: it keeps its place."""
    try:
        return path.stat()
    except OSError:
        return None


def _folder(folder: Path) -> tuple[Found, list[str]]:
    """Images of a folder, and what was left aside.

    Raises
    ------
    InputError
        If it holds several kinds of images or several series: mixing would double the scan.
    """
    found: Found = {}
    aside: dict[str, int] = {}
    perhaps: Found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            result = _stat(entry)
            if result is not None and not stat.S_ISREG(result.st_mode):
                continue
            suffix = image_suffix(entry.name)
            if suffix in NOT_FRAMES:
                aside[suffix] = aside.get(suffix, 0) + 1
                if suffix in PERHAPS_FRAMES and not _NOT_OF_THE_SCAN.search(entry.name):
                    perhaps[folder / entry.name] = result
            else:
                found[folder / entry.name] = result
    if not found and perhaps and is_image(min(perhaps)):
        found = perhaps
        for file in found:
            aside.pop(image_suffix(file.name), None)
    kinds: dict[str, list[Path]] = {}
    for file in found:
        suffix = image_suffix(file.name)
        kinds.setdefault("HDF5" if suffix in HDF5_SUFFIXES else suffix, []).append(file)
    if len(kinds) > 1 and "" in kinds:
        aside["no suffix"] = len(kinds.pop(""))  # README, SPEC scans, …
    if len(kinds) > 1:
        listing = ", ".join(f"{len(files)} × {kind}" for kind, files in kinds.items())
        raise InputError(
            f"folder {folder} holds several kinds of files ({listing}); "
            f"give a glob that selects the frames, for example '{folder}/*.tif'."
        )
    files = next(iter(kinds.values()), [])
    if "HDF5" not in kinds:
        places = Counter((s.st_dev, s.st_ino) for s in found.values() if s)
        _one_series([file for file in files if not _repeats(file, found[file], places)], folder)
    notes = []
    if aside:
        listing = ", ".join(f"{n} × {kind}" for kind, n in sorted(aside.items()))
        notes.append(f"beside the frames, not read: {listing}")
    return {file: found[file] for file in files}, notes


def _repeats(file: Path, result: os.stat_result | None, places: Counter[tuple[int, int]]) -> bool:
    """True for a link to a file that is there under another name (``latest.tif``)."""
    return result is not None and places[result.st_dev, result.st_ino] > 1 and file.is_symlink()


def _one_series(files: list[Path], folder: Path) -> None:
    """Refuse a folder of several series, or of a series and a dark, flat or calibrant beside it.

    Names of which most have a pattern of their own number nothing: they are one series.
    """
    patterns = _patterns(files)
    if len(patterns) < 2:
        return
    single = sum(len(group) == 1 for group in patterns.values())
    suspect = next((file.name for file in files if _NOT_OF_THE_SCAN.search(file.name)), None)
    if suspect is None and 2 * single > len(files):
        return
    most = max(patterns.values(), key=len)
    suffix = most[0].suffix
    raise InputError(
        f"folder {folder} holds {len(patterns)} series of images ({_listing(patterns)}); give a "
        f"glob that selects one, for example '{folder}/{_glob(most)}', or '{folder}/*{suffix}' "
        "to take all."
    )


def _patterns(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Files by the pattern of their names."""
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(pattern(file.name), []).append(file)
    return groups


def _listing(patterns: dict[str, list[Path]]) -> str:
    groups = sorted(patterns.values(), key=len, reverse=True)
    shown = ", ".join(f"{len(group)} × {min(file.name for file in group)}" for group in groups[:4])
    return shown + (", …" if len(groups) > 4 else "")


def _glob(files: list[Path]) -> str:
    """A glob that selects these files: what their names have in common, then a digit."""
    if len(files) == 1:
        return files[0].name
    names = [original_name(file.name) for file in files]
    same = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    start = "".join(letters[0] for letters in same).rstrip("0123456789")
    return f"{start}[0-9]*{files[0].suffix}"


def _open_stacks(files: list[Path], name: str) -> FrameSource:
    """A folder of HDF5 files: its only one, its only master, its scan file, or a run of data files.

    A scan file names those of its detectors: ``scan-1737.h5`` beside ``scan-1737_pilatus.h5``.
    """
    masters = [file for file in files if file.stem.endswith("_master")] or [
        file
        for file in files
        if all(other == file or other.stem.startswith(f"{file.stem}_") for other in files)
    ]
    if len(files) == 1 or len(masters) == 1:
        return open_hdf5((masters or files)[0], None)
    why = ""
    if not masters:
        try:
            return open_hdf5_files(files, name)
        except InputError as error:
            why = f" that are not one series: {str(error).rstrip('.')}"
    shown = sorted(file.name for file in masters or files)
    listing = ", ".join(shown[:6]) + (", …" if len(shown) > 6 else "")
    raise InputError(
        f"{name} holds {len(shown)} HDF5 {'masters' if masters else 'files'} ({listing}){why}; "
        "name one of them, or file.h5::/dataset."
    )


def _in_subfolders(names: list[str]) -> str:
    """A sentence on where the images are, if they lie one level deeper."""
    for name in names:
        if Path(name).is_dir():
            for folder in sorted(path for path in Path(name).iterdir() if path.is_dir()):
                for file in folder.iterdir():
                    suffix = image_suffix(file.name)
                    if suffix and suffix not in NOT_FRAMES and file.is_file():
                        kind = file.suffix
                        return f" Its folders hold {kind} files: try '{name}/*/*{kind}'."
    return ""


def natural_sort(files: Sequence[Path]) -> list[Path]:
    """Sort so that frame_2 comes before frame_10."""

    def key(file: Path) -> list[tuple[int, int, str]]:
        parts = re.split(r"(\d+)", str(file))
        return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]

    return sorted(files, key=key)
