"""What happens in a worker process of a Dask cluster: frames in, rows of patterns out."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.config import IntegrateConfig
from xrdpipe.errors import XrdpipeError
from xrdpipe.nn.memory import keep_memory
from xrdpipe.stages.clock import Clock
from xrdpipe.stages.integrate import prepare
from xrdpipe.stages.job import Job
from xrdpipe.stages.reduction import reduced_blocks
from xrdpipe.store.parts import Rows, key_hash, key_text
from xrdpipe.types import Progress


@dataclass(frozen=True)
class Request:
    """The job that a range belongs to.

    Parameters
    ----------
    config
        With one thread: Dask runs as many ranges at once as the worker has threads.
    folder
        Working folder of the asking process, which relative paths start from.
    key_hash
        Of the key there; a worker whose key differs would compute other numbers.
    path
        How frames are integrated there (kernel and instruction set).
    """

    config: IntegrateConfig
    folder: str
    key_hash: str
    path: str


@dataclass(frozen=True)
class Share:
    """What a worker made of a range: its blocks, where, how, and in what time (s)."""

    blocks: list[tuple[int, Rows]]
    host: str
    path: str
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Refusal:
    """Why a worker cannot take part: a reason, or the key it would compute with."""

    host: str
    reason: str = ""
    key: Any = None


class _RefusedError(Exception):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


_preparing = threading.Lock()


def reduce_range(request: Request, rows: NDArray[np.intp]) -> Share | Refusal:
    """Integrate some rows with one thread of this process."""
    try:
        with _preparing:
            prepared = _prepared(request)
    except _RefusedError as refused:
        return refused.refusal
    job = dataclasses.replace(prepared, clock=Clock())
    blocks = list(reduced_blocks(job, rows, Progress()))
    path = str(job.header.parameters["integration_path"])
    return Share(blocks, socket.gethostname(), path, job.clock.read())


@lru_cache(maxsize=1)
def _prepared(request: Request) -> Job:
    """Geometry, matrix and frames, made once per process and job.

    Raises
    ------
    _RefusedError
        If this process does not see the same files, or would compute other numbers.
    """
    host = socket.gethostname()
    # Dask starts workers so that they give every freed array back to the kernel at once; clearing
    # fresh pages for every frame would cost a third of the time.
    keep_memory()
    try:
        if Path.cwd() != Path(request.folder):
            os.chdir(request.folder)
        job = prepare(request.config, Progress())
    except (XrdpipeError, OSError) as error:
        raise _RefusedError(Refusal(host, f"{str(error).rstrip('.')}")) from error
    path = str(job.header.parameters["integration_path"])
    if path.partition(" (")[0] != request.path.partition(" (")[0]:
        # Other sums in another order: the last bits would tell which worker did a row.
        raise _RefusedError(
            Refusal(
                host,
                f"it integrates in another way (there: {path}; here: {request.path}); build the "
                "kernel in both installations, or set XRDPIPE_KERNEL=off for both",
            )
        )
    if key_hash(job.header.key) != request.key_hash:
        raise _RefusedError(Refusal(host, key=json.loads(key_text(job.header.key))))
    return job


def prevent_interrupts() -> Any:
    """A plugin for workers on this machine: Ctrl-C is the asking process's to handle."""
    from distributed import WorkerPlugin

    class DeafToInterrupts(WorkerPlugin):  # type: ignore[misc, unused-ignore]
        """The terminal sends Ctrl-C to every process it started."""

        name = "xrdpipe-deaf-to-interrupts"

        def setup(self, worker: Any) -> None:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, signal.SIG_IGN)

    return DeafToInterrupts()
