"""``xrdpipe doctor``: check this installation."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from xrdpipe import __version__
from xrdpipe.quiet import quiet

NEEDED = (
    "torch", "pyFAI", "fabio", "numpy", "scipy", "h5py", "hdf5plugin", "gemmi", "safetensors",
    "matplotlib", "typer",
)  # fmt: skip


def examine() -> tuple[str, bool]:
    """Return a report and whether everything needed works."""
    lines = [f"xrdpipe {__version__}, Python {sys.version.split()[0]}, {os.cpu_count()} cores"]
    healthy = True
    for name in NEEDED:
        try:
            with quiet():
                importlib.import_module(name)
            lines.append(f"  ok       {name} {version(name)}")
        except (ImportError, PackageNotFoundError) as error:
            healthy = False
            lines.append(f"  MISSING  {name}: {error}; reinstall with 'pip install xrdpipe'")
    for check in (_filters, _integration, _cache, _models, _device, _scratch):
        try:
            lines.append(f"  ok       {check()}")
        except Exception as error:  # whatever is wrong here is what the report is for
            healthy = False
            lines.append(f"  PROBLEM  {check.__doc__}: {error}")
    lines.append("healthy" if healthy else "not healthy: see the lines above")
    return "\n".join(lines), healthy


def _filters() -> str:
    """Decompression filters of detector files."""
    import h5py
    import hdf5plugin  # noqa: F401 - registers the filters

    names = {"bitshuffle": 32008, "LZ4": 32004, "zstd": 32015}
    absent = [name for name, number in names.items() if not h5py.h5z.filter_avail(number)]
    if absent:
        raise RuntimeError(f"{', '.join(absent)} cannot be read; reinstall hdf5plugin")
    return f"decompression filters: {', '.join(names)}"


def _integration() -> str:
    """How frames are integrated."""
    from xrdpipe.integration.compiled import describe

    return f"integration: {describe()}"


def _cache() -> str:
    """Cache of geometries and matrices."""
    from xrdpipe.integration.cache import describe_cache

    return describe_cache()


def _models() -> str:
    """Shipped models."""
    from xrdpipe.nn.model_folder import shipped_models

    names = sorted(shipped_models())
    if not names:
        raise RuntimeError("none found; the installation is incomplete")
    return f"shipped models: {', '.join(names)}"


def _device() -> str:
    """Inference device."""
    import torch

    if torch.cuda.is_available():
        return f"inference on {torch.cuda.get_device_name(0)}"
    return f"inference on the CPU, {torch.get_num_threads()} threads"


def _scratch() -> str:
    """Writable folder for temporary files."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "probe").write_bytes(b"x")
    return f"temporary files in {tempfile.gettempdir()}"
