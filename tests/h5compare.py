"""Compare two outputs: every dataset and non-volatile attribute, bit by bit (decision 22)."""

from __future__ import annotations

import h5py
import numpy as np

from xrdpipe.schema import VOLATILE


def content(path):
    """Name → value of every dataset, attribute and link of a file, without volatile ones."""
    found = {}

    def walk(group):
        for key, value in group.attrs.items():
            if key not in VOLATILE:
                found[f"{group.name}@{key}"] = np.asarray(value).tolist()
        for name in group:
            where = f"{group.name.rstrip('/')}/{name}"
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                found[where] = (link.filename, link.path)
                continue
            if isinstance(link, h5py.SoftLink):
                found[where] = link.path
                continue
            item = group[name]
            if isinstance(item, h5py.Group):
                walk(item)
            elif name not in VOLATILE:
                value = item[()]
                raw = value.tobytes() if isinstance(value, np.ndarray) else repr(value)
                found[where] = (str(item.dtype), item.shape, raw)
                for key, attribute in item.attrs.items():
                    if key not in VOLATILE:
                        found[f"{where}@{key}"] = np.asarray(attribute).tolist()

    with h5py.File(path, "r") as file:
        walk(file)
    return found


def differences(a, b, ignore=()):
    """Names in which two files differ."""
    left, right = content(a), content(b)
    names = sorted(left.keys() | right.keys())
    return [
        name
        for name in names
        if left.get(name) != right.get(name) and not any(part in name for part in ignore)
    ]
