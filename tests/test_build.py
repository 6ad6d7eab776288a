"""The compiled kernel is optional: a checkout installs with and without a compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def checkout(tmp_path) -> Path:
    """What building the extension needs, and nothing that was built before."""
    kernel = "src/xrdpipe/integration/kernel"
    shutil.copytree(ROOT / kernel, tmp_path / kernel)
    shutil.copy(ROOT / "setup.py", tmp_path)
    return tmp_path


def build(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("setuptools")
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", "built"]
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_without_a_compiler_everything_but_the_kernel_is_built(checkout):
    done = build(checkout, CC="/nonexistent/compiler")
    assert done.returncode == 0, done.stderr
    assert "_kernel" in done.stderr  # it is said
    assert not list(checkout.rglob("*.so"))


@pytest.mark.skipif(
    shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0]) is None, reason="no compiler"
)
def test_with_a_compiler_the_kernel_is_built_without_a_warning(checkout):
    done = build(checkout, CFLAGS="-Wall -Wextra -Werror -Wno-unused-parameter -Wno-psabi")
    assert done.returncode == 0, done.stderr
    (built,) = checkout.rglob("_kernel.abi3.*")
    assert built.stat().st_size > 20_000, done.stderr
