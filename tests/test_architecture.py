"""Imports point one way, and each heavy library has one owner."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "xrdpipe"

LAYERS = [
    {"errors", "bounds", "types", "schema", "config", "cores", "quiet", "__init__"},
    {
        "masks",
        "placeholders",
        "resampling",
        "scan",
        "scan_grid",
        "maps",
        "neighbours",
        "crystal",
        "calibrant",
        "channels",
        "metrics",
        "phases",
        "models",
    },
    {"frames", "integration"},
    {"synthesis", "simulation"},
    {"classical"},
    {"nn"},
    {
        "store",
        "page",
        "map_colors",
        "pictures",
        "map_pictures",
        "pattern_pictures",
        "training_pictures",
    },
    {"map_report", "viewer"},
    {"stages"},
    {"pipeline", "campaign"},
    {"cluster", "cluster_worker", "shards"},
    {"terminal"},
    {"cli"},
    {"__main__"},
]

OWNERS = {
    "gemmi": {"crystal"},
    "fabio": {"frames"},
    "pyFAI": {"integration"},
    "torch": {"nn", "stages", "integration"},  # doctor asks for the device, accelerator.py sums
    "safetensors": {"nn"},
    "matplotlib": {"pictures", "map_pictures", "pattern_pictures", "training_pictures"},
    "PIL": {"store"},
    "typer": {"cli", "terminal"},
    "rich": {"cli", "terminal"},
    "h5py": {"frames", "store", "stages"},  # inspect and doctor look into any file
    "hdf5plugin": {"frames", "stages"},
    "bokeh": {"viewer"},
    "dask": {"cluster"},
    "distributed": {"cluster", "cluster_worker"},
    "dask_jobqueue": {"cluster"},
}


def level(part: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if part in layer)


def imports(path: Path) -> list[tuple[str, int]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.module, node.lineno))
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return found


MODULES = sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_to_lower_layers_and_owners(path):
    part = part_of(path)
    for name, line in imports(path):
        pieces = name.split(".")
        if pieces[0] in OWNERS:
            assert part in OWNERS[pieces[0]], f"{path}:{line} imports {pieces[0]}"
        if pieces[0] == "xrdpipe" and len(pieces) > 1 and part != "__init__":
            target = pieces[1]
            if any(target in layer for layer in LAYERS):
                assert level(target) <= level(part), f"{path}:{line} imports {name}"


@pytest.mark.parametrize(
    ("part", "other"), [("simulation", "synthesis"), ("synthesis", "simulation")]
)
def test_the_two_simulators_know_nothing_of_each_other(part, other):
    """A model must not be tested on frames that share more than structure factors with it."""
    modules = sorted((PACKAGE / part).rglob("*.py"))
    assert len(modules) > 3
    for path in modules:
        for name, line in imports(path):
            assert not name.startswith(f"xrdpipe.{other}"), f"{path}:{line} imports {name}"


def test_help_imports_no_heavy_library():
    heavy = ["torch", "pyFAI", "fabio", "h5py", "scipy", "matplotlib", "gemmi", "bokeh"]
    code = f"import sys, xrdpipe.cli\nprint([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_package_is_in_the_wheel():
    """An editable installation finds what a wheel would lack."""
    project = tomllib.loads((PACKAGE.parents[1] / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"])
    there = {
        ".".join(path.parent.relative_to(PACKAGE.parent).parts)
        for path in PACKAGE.rglob("__init__.py")
    }
    assert there <= listed
