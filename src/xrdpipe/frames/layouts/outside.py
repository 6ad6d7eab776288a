"""Files outside the folder of a master that it takes data from.

Masters name neighbours and files in folders below. What somebody sends may name any file that the
reader may open: its content would come out as frames.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import h5py

from xrdpipe.frames.layouts.links import as_written, beside

LOOKED_AT = 200_000
"""Links of a file that are looked at; masters have one per file of frames."""

LISTED = 3


def files_outside(file: h5py.File, known: Iterable[str] = ()) -> tuple[str, ...]:
    """Sentences on files outside the folder of ``file`` that it refers to; none for most.

    Parameters
    ----------
    known
        Files that the frames were found to lie in.
    """
    named = {*known, *_named(file)}
    folder = os.path.dirname(os.path.realpath(file.filename))  # noqa: PTH120
    outside = sorted(name for name in named if not _inside(name, folder))
    if not outside:
        return ()
    more = f" and {len(outside) - LISTED} more" if len(outside) > LISTED else ""
    return (
        f"{file.filename} takes data from outside its folder: {', '.join(outside[:LISTED])}{more}",
    )


def _inside(name: str, folder: str) -> bool:
    return os.path.realpath(name).startswith(folder.rstrip(os.sep) + os.sep)


def _named(file: h5py.File) -> set[str]:
    """Files of external links, virtual datasets and external storage, however deep in groups."""
    own = file.filename
    found: set[str] = set()
    seen = 0

    def look(path: str, link: object) -> bool | None:
        nonlocal seen
        seen += 1
        if isinstance(link, h5py.ExternalLink):
            found.add(as_written(beside(own, link.filename)))
        elif isinstance(link, h5py.HardLink) and file.get(path, getclass=True) is h5py.Dataset:
            data = file[path]
            # HDF5 looks for external storage in the current folder.
            found.update(os.path.abspath(name) for name, *_ in data.external or ())  # noqa: PTH100
            sources = data.virtual_sources() if data.is_virtual else ()
            names = {source.file_name for source in sources} - {"."}
            found.update(as_written(beside(own, name)) for name in names)
        return True if seen > LOOKED_AT else None

    file.visititems_links(look)
    return found
