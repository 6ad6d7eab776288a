"""The kernel stays inside its arrays and inside the language, whatever a chunk holds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import xrdpipe

HERE = Path(__file__).parent
SOURCE = Path(xrdpipe.__file__).parent / "integration" / "kernel" / "kernel.c"
FLAGS = (
    "-fsanitize=address,undefined,float-cast-overflow",
    "-fno-sanitize-recover=all",
    "-ffp-contract=off",
    "-O1",
    "-g",
    "-shared",
    "-fPIC",
    "-DPy_LIMITED_API=0x030b0000",
)


def test_nothing_is_read_or_written_outside(tmp_path):
    compiler = shutil.which("gcc")
    if compiler is None or sys.platform != "linux" or not SOURCE.is_file():
        pytest.skip("needs gcc on Linux, and a checkout")
    runtime = subprocess.run(
        [compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    headers = Path(sysconfig.get_paths()["include"])
    if not Path(runtime).is_file() or not (headers / "Python.h").is_file():
        pytest.skip("gcc comes without its address sanitizer, or Python without headers")
    target = tmp_path / "_kernel.abi3.so"
    subprocess.run([compiler, *FLAGS, f"-I{headers}", SOURCE, "-o", target], check=True)
    environment = os.environ | {
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
        "PYTHONPATH": os.pathsep.join([str(HERE), str(SOURCE.parents[3])]),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, HERE / "sanitized_kernel.py", tmp_path],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "survived" in done.stdout
