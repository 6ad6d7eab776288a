"""``xrdpipe doctor``: what is installed, what of it is used here, and how to mend what is not."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from xrdpipe import __version__
from xrdpipe.cores import usable_cores
from xrdpipe.quiet import quiet
from xrdpipe.types import Outcome, Table

NEEDED = (
    "torch", "pyFAI", "fabio", "numpy", "scipy", "h5py", "hdf5plugin", "gemmi", "safetensors",
    "matplotlib", "typer", "rich",
)  # fmt: skip

FILTERS = {"bitshuffle": 32008, "LZ4": 32004, "zstd": 32015, "blosc": 32001, "blosc2": 32026}
"""Compressions that detectors use, by their HDF5 number."""

FOR_DEVELOPERS = {"test", "dev", "docs"}
"""Extras that nobody needs who only uses xrdpipe."""

OK, NOTE, PROBLEM = "ok", "note", "PROBLEM"
"""Works; works, and could do better; does not work."""

LITTLE = 2.0
"""GiB of free disk below which a map of 10⁵ frames may not fit."""

GIB = 1 << 30


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Parameters
    ----------
    state
        ``ok``, ``note`` or ``PROBLEM``.
    what
        What was looked at.
    found
        What is there.
    mend
        What to do about it, empty where there is nothing to do.
    """

    state: str
    what: str
    found: str
    mend: str = ""


def run(as_json: bool = False) -> Outcome:
    """Look at everything; the exit code is 1 where something does not work."""
    checks = examine()
    healthy = all(check.state != PROBLEM for check in checks)
    code = 0 if healthy else 1
    if as_json:
        listed = {"healthy": healthy, "checks": [dataclasses.asdict(check) for check in checks]}
        return Outcome(None, summary=json.dumps(listed, indent=2), exit_code=code)
    verdict = "healthy" if healthy else "not healthy: see PROBLEM above"
    lines = [f"  {c.state:<8}{_sentence(c)}" for c in checks]
    rows = tuple((c.what, c.state, _with_remedy(c)) for c in checks)
    return Outcome(
        None,
        summary="\n".join([_title(), *lines, verdict]),
        exit_code=code,
        shown=(_title(), Table(("what", "state", "found"), rows), verdict),
    )


def _title() -> str:
    return f"xrdpipe {__version__}, Python {sys.version.split()[0]}"


def _sentence(check: Check) -> str:
    return f"{check.what}: {_with_remedy(check)}"


def _with_remedy(check: Check) -> str:
    return f"{check.found}; {check.mend}" if check.mend else check.found


def examine() -> list[Check]:
    """Everything that was looked at, in the order of a run."""
    checks = [_needed(name) for name in NEEDED]
    looks: tuple[Callable[[], Iterable[Check]], ...] = (
        _extras, _filters, _integration, _cores, _inference, _cache, _models, _disk, _terminal,
    )  # fmt: skip
    for look in looks:
        try:
            checks += look()
        except Exception as error:  # whatever is wrong here is what the report is for
            checks.append(Check(PROBLEM, str(look.__doc__).rstrip("."), str(error)))
    return checks


def _needed(name: str) -> Check:
    try:
        with quiet():
            importlib.import_module(name)
        return Check(OK, name, version(name))
    except (ImportError, PackageNotFoundError) as error:
        return Check(PROBLEM, name, f"missing ({error})", "reinstall with 'pip install xrdpipe'")


def _extras() -> list[Check]:
    """Optional parts."""
    try:
        lines = requires("xrdpipe") or []
    except PackageNotFoundError:
        return [Check(NOTE, "extras", "unknown: xrdpipe runs from its source, not installed")]
    wanted: dict[str, list[str]] = {}
    for line in lines:
        extra = re.search(r"extra\s*==\s*['\"](\w+)['\"]", line)
        if extra and extra[1] not in FOR_DEVELOPERS:
            wanted.setdefault(extra[1], []).append(re.split(r"[^\w.-]", line)[0])
    return [_extra(name, packages) for name, packages in sorted(wanted.items())]


def _extra(name: str, packages: list[str]) -> Check:
    there, absent = [], []
    for package in packages:
        try:
            there.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            absent.append(package)
    what = f"extra {name}"
    if not absent:
        return Check(OK, what, ", ".join(there))
    return Check(
        NOTE,
        what,
        f"not installed ({', '.join(absent)})",
        f"if you want it: pip install 'xrdpipe[{name}]'",
    )


def _filters() -> list[Check]:
    """Decompression filters."""
    import h5py
    import hdf5plugin  # noqa: F401 - registers the filters

    what = "decompression filters"
    absent = [name for name, number in FILTERS.items() if not h5py.h5z.filter_avail(number)]
    if absent:
        found = f"{', '.join(absent)} cannot be read"
        return [Check(PROBLEM, what, found, "pip install --force-reinstall hdf5plugin")]
    return [Check(OK, what, ", ".join(FILTERS))]


def _integration() -> list[Check]:
    """How frames are integrated."""
    from xrdpipe.integration.compiled import LEVELS, SWITCH, describe, library

    found, what = describe(), "integration"
    if library() is None:
        if os.environ.get(SWITCH) == "off":
            return [Check(NOTE, what, found, f"unset {SWITCH} for the compiled kernel")]
        mend = "install a wheel, or a C compiler and then xrdpipe again"
        return [Check(NOTE, what, found, mend)]
    wanted = os.environ.get(SWITCH)
    if wanted in LEVELS:
        return [Check(NOTE, what, f"{found}, as {SWITCH}={wanted} says")]
    return [Check(OK, what, found)]


def _cores() -> list[Check]:
    """Processor cores."""
    cores, usable = os.cpu_count() or 1, usable_cores()
    found = f"{usable}, all of them used unless --threads says otherwise"
    if usable < cores:
        found = f"{usable} of {cores}, which affinity or container leave; --threads says otherwise"
    return [Check(OK, "cores", found)]


def _inference() -> list[Check]:
    """Where networks run."""
    import torch

    what = "networks"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
        return [Check(OK, what, f"on the GPU: {', '.join(names)}")]
    found = f"on the CPU, {torch.get_num_threads()} threads of torch"
    if shutil.which("nvidia-smi") is None:
        return [Check(OK, what, found)]
    return [
        Check(
            NOTE,
            what,
            f"{found}; there is an NVIDIA driver that torch {torch.__version__} does not use",
            "install torch's CUDA build (pytorch.org, 'Get started') to use the GPU",
        )
    ]


def _cache() -> list[Check]:
    """Cache of geometries and matrices."""
    from xrdpipe.integration.cache import describe_cache

    found = describe_cache().removeprefix("cache: ")
    return [Check(NOTE if "read-only" in found or "none" in found else OK, "cache", found)]


def _models() -> list[Check]:
    """Shipped models."""
    from xrdpipe.nn.model_folder import read_card, shipped_models

    models = shipped_models()
    if not models:
        raise RuntimeError("none found; the installation is incomplete")
    described = []
    for name, folder in sorted(models.items()):
        card = read_card(folder)
        described.append(f"{name} ({len(card.phases)} phases, {card.grid.wavelength:g} Å)")
    return [Check(OK, "shipped models", ", ".join(described))]


def _disk() -> list[Check]:
    """Disk space."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "probe").write_bytes(b"x")
    checks = []
    for what, folder in (
        ("this folder", str(Path.cwd())),
        ("temporary files", tempfile.gettempdir()),
    ):
        free = shutil.disk_usage(folder).free / GIB
        found = f"{folder}, {free:.1f} GiB free"
        if not os.access(folder, os.W_OK):
            checks.append(Check(NOTE, what, f"{found}, read-only", "write elsewhere with --output"))
        elif free < LITTLE:
            checks.append(Check(NOTE, what, found, "make room, or write elsewhere with --output"))
        else:
            checks.append(Check(OK, what, found))
    return checks


def _terminal() -> list[Check]:
    """Terminal."""
    what = "terminal"
    if not sys.stdout.isatty():
        found = "none here, plain text"
    else:
        plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
        found = f"{shutil.get_terminal_size().columns} columns{', no colours' if plain else ''}"
    if (sys.stdout.encoding or "").lower().replace("-", "") != "utf8":
        found += f", encoding {sys.stdout.encoding}"
        return [Check(NOTE, what, found, "set PYTHONUTF8=1, or signs such as Å are not shown")]
    return [Check(OK, what, found)]
