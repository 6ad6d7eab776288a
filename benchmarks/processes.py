"""Run a command as a process of its own and say what it cost; describe the machine.

The peak of the resident set that Linux reports for a child is at least that of the process it
was forked from. The harness therefore imports no heavy library, and its own peak is recorded.
"""

from __future__ import annotations

import os
import platform
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "xrdpipe", "pyFAI", "fabio", "h5py", "hdf5plugin", "numpy", "scipy", "torch", "silx",
)  # fmt: skip

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
}
"""One thread for every library that starts its own."""


@dataclass(frozen=True)
class Cost:
    """What a process cost.

    Parameters
    ----------
    wall, cpu
        Seconds; CPU is user + system of all its threads.
    peak_mb
        Largest resident set, MB (10⁶ bytes).
    others
        Cores that others kept busy meanwhile (or the hypervisor kept for others), on average;
        None where the system does not say.
    usual_mb
        Median resident set over the second half of the run, MB; None where not watched. Unlike
        the peak, which waits for the worst coincidence, it does not creep up with the length.
    """

    wall: float
    cpu: float
    peak_mb: float
    others: float | None
    usual_mb: float | None = None


def run(
    command: Sequence[str],
    log: Path,
    env: Mapping[str, str] | None = None,
    watch: float | None = None,
) -> Cost:
    """Run a command to its end.

    Parameters
    ----------
    watch
        Look at the resident set every so many seconds, for ``usual_mb``; None: not at all.

    Raises
    ------
    RuntimeError
        If it fails; with the end of what it said.
    """
    busy = _busy_seconds()
    started = time.perf_counter()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
        )
        watcher = _Watcher(process.pid, watch) if watch else None
        _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise RuntimeError(f"exit {process.returncode}: {' '.join(command)}\n{end}")
    cpu = usage.ru_utime + usage.ru_stime
    after = _busy_seconds()
    others = None if busy is None or after is None else max(after - busy - cpu, 0) / wall
    usual = None if watcher is None else watcher.usual_mb()
    return Cost(wall, cpu, _megabytes(usage.ru_maxrss), others, usual)


class _Watcher(threading.Thread):
    """Notes the resident set of a process until it ends."""

    def __init__(self, pid: int, every: float) -> None:
        super().__init__(daemon=True)
        self._status = Path(f"/proc/{pid}/status")
        self._every = every
        self._ended = threading.Event()
        self._seen: list[float] = []
        self.start()

    def run(self) -> None:
        while not self._ended.wait(self._every):
            try:
                lines = self._status.read_text().splitlines()
            except OSError:  # ended, or a system without /proc
                return
            self._seen += [
                int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmRSS:")
            ]

    def usual_mb(self) -> float | None:
        self._ended.set()
        self.join()
        half = self._seen[len(self._seen) // 2 :]
        return statistics.median(half) if half else None


def own_peak_mb() -> float:
    """Largest resident set of this process so far, MB; no measured peak can be below it."""
    return _megabytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def machine() -> dict[str, Any]:
    """Processor, cores, memory, system and versions."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "versions": {name: _version(name) for name in PACKAGES},
    }


def describe(cost: Cost) -> dict[str, float | None]:
    """The cost as JSON holds it."""
    return {k: None if v is None else round(v, 4) for k, v in asdict(cost).items()}


def say(text: str) -> None:
    """One line of progress, with the load of the machine."""
    print(f"[load {os.getloadavg()[0]:.1f}] {text}", file=sys.stderr, flush=True)


def _megabytes(maxrss: int) -> float:
    return maxrss * (1 if platform.system() == "Darwin" else 1024) / 1e6


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def _processor() -> str:
    """Model name and the width of its vectors, which decides much here."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    entries = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    entries = {key.strip(): value.strip() for key, value in entries.items()}
    flags = entries.get("flags", "").split()
    vectors = next((name for name in ("avx512f", "avx2", "sse4_2") if name in flags), "")
    name = entries.get("model name", platform.processor())
    family = f"family {entries.get('cpu family')} model {entries.get('model')}"
    return ", ".join(part for part in (name, family, vectors) if part)


def _busy_seconds() -> float | None:
    """Seconds of all cores so far in which something ran, time stolen by the host included."""
    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
