"""Frames integrated by the workers of a Dask cluster: on this machine, elsewhere, or under SLURM.

The rows that are waiting are cut into ranges; workers reduce them with the function that a local
run uses, and this process alone writes. Dask does a range again if its worker dies. Which worker
did what, and how many there are, changes no number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import queue
import statistics
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from xrdpipe.cluster_worker import Refusal, Request, Share, prevent_interrupts, reduce_range
from xrdpipe.config import ClusterConfig
from xrdpipe.cores import usable_cores
from xrdpipe.errors import EnvironmentProblemError, OptionError, XrdpipeError
from xrdpipe.schema import LOST
from xrdpipe.stages.job import Job
from xrdpipe.stages.reduction import BLOCK_ROWS, Blocks, Execution
from xrdpipe.store.parts import first_difference, key_hash, key_text
from xrdpipe.types import Progress

EXPECTED = "local, local:N, tcp://HOST:PORT, tls://HOST:PORT or slurm"

AHEAD = 2
"""Ranges handed out per thread of the cluster: one under way and one waiting."""

BLOCKS_PER_RANGE = 4
"""At most; fewer where the scan is short, so that every thread has some."""

RANGES_PER_THREAD = 8
"""At least, where the scan is long enough: the last ones end at about the same time."""

TICK = 1.0
"""How often the state of the cluster is looked at, s."""

SILENCE = 60.0
"""A cluster without workers is mentioned again after so many seconds."""

STRAGGLING = 5.0
"""A range that takes so many times the median is given to a second worker, too …"""

STRAGGLING_SECONDS = 30.0
"""… but not before so many seconds."""

DELIVERY = 60.0
"""A finished range whose rows do not arrive for so many seconds is done again …"""

DELIVERIES = 3
"""… so many times at most."""

PATIENCE = 20.0
"""Once asked to stop, ranges under way are waited for so many seconds; batch systems kill soon."""

KEPT = "What is integrated is kept: run the same command to continue."


def check_scheduler(scheduler: str) -> None:
    """Refuse what is no scheduler, or one whose libraries are not installed.

    Raises
    ------
    OptionError, EnvironmentProblemError
    """
    kind, _, rest = scheduler.partition(":")
    known = {"local": not rest or (rest.isdigit() and int(rest) > 0), "slurm": not rest}
    address = rest.removeprefix("//").rpartition(":")
    known |= dict.fromkeys(
        ("tcp", "tls"), rest.startswith("//") and bool(address[0]) and address[2].isdigit()
    )
    if not known.get(kind):
        raise OptionError(f"--scheduler '{scheduler}' is no scheduler; expected {EXPECTED}.")
    _library("dask_jobqueue" if kind == "slurm" else "distributed")


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EnvironmentProblemError(
            f"--scheduler needs {name.replace('_', '-')}, which is not installed ({error}): "
            "pip install 'xrdpipe[cluster]', or leave --scheduler out to use this machine's cores."
        ) from error


@dataclass
class _Range:
    """Rows that one task reduces.

    Parameters
    ----------
    rows
        Within ``BLOCKS_PER_RANGE`` aligned blocks.
    handed_out
        When, on the monotonic clock, s.
    futures
        Its tasks: one, and a second one if the first straggles.
    undelivered
        Tasks whose rows did not arrive.
    """

    rows: NDArray[np.intp]
    handed_out: float = 0.0
    futures: list[Any] = field(default_factory=list)
    undelivered: int = 0


class _UndeliveredError(EnvironmentProblemError):
    """Rows that a worker has, and that do not arrive."""


class ClusterExecution:
    """A Dask cluster to integrate on; started or connected to once there is something to do.

    Parameters
    ----------
    scheduler
        ``local``, ``local:N`` (N worker processes), ``tcp://HOST:PORT`` or ``slurm``.
    options
        What a SLURM job asks for.
    """

    def __init__(self, scheduler: str, options: ClusterConfig | None = None) -> None:
        check_scheduler(scheduler)
        self._scheduler = scheduler
        self._options = options or ClusterConfig()
        self._cluster: Any = None
        self._client: Any = None

    @property
    def execution(self) -> Execution:
        """What stages take."""
        return Execution(self.produce)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for opened in (self._client, self._cluster):
            if opened is not None:
                opened.close()
        self._client = self._cluster = None

    def produce(self, job: Job, waiting: NDArray[np.intp], progress: Progress) -> Blocks:
        """Blocks of the rows that are waiting, in the order in which workers finish them.

        Raises
        ------
        EnvironmentProblemError
            The scheduler is lost, workers differ from this process, or die of a range again and
            again. What was yielded before stays valid.
        """
        if not waiting.size:
            return
        if self._client is None:
            self._connect(job.config.threads, progress)
        yield from _Conversation(self._client, self._scheduler, job, progress).blocks(waiting)

    def _connect(self, threads: int | None, progress: Progress) -> None:
        distributed = _library("distributed")
        try:
            if self._scheduler == "slurm":
                self._cluster = _slurm_cluster(self._options)
                progress.note(f"SLURM: {self._options.jobs} jobs are submitted")
            elif self._scheduler.startswith("local"):
                self._cluster = _local_cluster(self._scheduler, threads)
            self._client = distributed.Client(
                self._cluster or self._scheduler, set_as_default=False, name="xrdpipe"
            )
            if self._scheduler.startswith("local"):
                self._client.register_plugin(prevent_interrupts())
        except (OSError, RuntimeError, ValueError) as error:
            raise EnvironmentProblemError(
                f"no Dask cluster for --scheduler {self._scheduler}: {error}; nothing was "
                "integrated."
            ) from error


def _local_cluster(scheduler: str, threads: int | None) -> Any:
    """Worker processes on this machine that share its cores, or the ``threads`` asked for."""
    cores = threads or usable_cores()
    _, _, number = scheduler.partition(":")
    processes, per_process = _library("distributed.deploy.utils").nprocesses_nthreads(cores)
    if number:
        processes = int(number)
        per_process = max(1, cores // processes)
    return _library("distributed").LocalCluster(
        n_workers=processes, threads_per_worker=per_process, dashboard_address="127.0.0.1:0"
    )


def _slurm_cluster(options: ClusterConfig) -> Any:
    """Jobs that hold workers; what is not given comes from Dask's own configuration files."""
    given = {
        name: value
        for name, value in dataclasses.asdict(options).items()
        if value is not None and name != "jobs"
    }
    cluster = _library("dask_jobqueue").SLURMCluster(**given)
    try:
        # Dask submits from a task in the background, which tells nobody that it was refused.
        asked = subprocess.run(
            ["sbatch", "--test-only"], input=cluster.job_script(), capture_output=True, text=True
        )
        if asked.returncode:
            raise RuntimeError(f"sbatch: {' '.join(asked.stderr.split())}")
        cluster.scale(jobs=options.jobs)
    except BaseException:
        cluster.close()
        raise
    return cluster


class _Conversation:
    """One job's rows on their way to the workers and back.

    Dask calls back from a thread of its own; all else happens in the caller's, which looks after
    the cluster at least every ``TICK`` seconds.
    """

    def __init__(self, client: Any, scheduler: str, job: Job, progress: Progress) -> None:
        self._client = client
        self._scheduler = scheduler
        self._job = job
        self._progress = progress
        self._request = Request(
            config=dataclasses.replace(job.config, threads=1),
            folder=str(Path.cwd()),
            key_hash=key_hash(job.header.key),
            path=str(job.header.parameters["integration_path"]),
        )
        self._workers: dict[str, int] = {}
        self._looked = self._alone_since = time.monotonic()
        self._spoke = -np.inf
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._open: dict[str, _Range] = {}
        self._seconds: list[float] = []
        self._warned: set[str] = set()

    def blocks(self, waiting: NDArray[np.intp]) -> Blocks:
        """Hand out ranges, collect blocks."""
        asked_to_stop: float | None = None
        self._look_after_workers()
        ranges = deque(cut(waiting, sum(self._workers.values())))
        try:
            while self._open or (ranges and asked_to_stop is None):
                if asked_to_stop is None and self._progress.stopped():
                    asked_to_stop = time.monotonic()
                if asked_to_stop is not None and time.monotonic() - asked_to_stop > PATIENCE:
                    break
                while ranges and asked_to_stop is None and self._may_take_more():
                    self._hand_out(ranges.popleft())
                with contextlib.suppress(queue.Empty):
                    yield from self._collected(self._ended.get(timeout=TICK))
                if time.monotonic() - self._looked > TICK:
                    self._look_after_workers()
                    if not ranges and asked_to_stop is None:
                        self._help_stragglers()
        finally:
            for one in self._open.values():
                self._drop(one)

    def _may_take_more(self) -> bool:
        return len(self._open) < max(1, AHEAD * sum(self._workers.values()))

    def _hand_out(self, one: _Range, workers: list[str] | None = None) -> None:
        key = f"xrdpipe-{self._request.key_hash[:8]}-{one.rows[0]}-{time.monotonic_ns()}"
        future = self._client.submit(
            reduce_range, self._request, one.rows, key=key, pure=False, workers=workers
        )
        one.handed_out = one.handed_out or time.monotonic()
        one.futures.append(future)
        self._open[key] = one
        future.add_done_callback(self._ended.put)

    def _collected(self, future: Any) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
        """Blocks of a task that ended; none if its twin was faster, or may still succeed."""
        one = self._open.get(future.key)
        if one is None:
            return
        try:
            share = self._result(future, one)
        except EnvironmentProblemError as error:
            if not self._tried_elsewhere(future, one, error):
                raise
            return
        self._seconds.append(time.monotonic() - one.handed_out)
        self._drop(one)
        if share.path != self._request.path and share.path not in self._warned:
            self._warned.add(share.path)
            self._progress.note(
                f"warning: {share.host} integrates in another way (there: {share.path}; here: "
                f"{self._request.path}): values agree to 1e-6, not to the last bit; set "
                "XRDPIPE_KERNEL alike everywhere"
            )
        self._job.clock.add(share.seconds)
        for first, rows in share.blocks:
            lost = int(np.isin(rows["status"], [*LOST]).sum())
            self._progress.advance(len(rows["status"]), lost)
            yield first, rows

    def _tried_elsewhere(self, future: Any, one: _Range, why: EnvironmentProblemError) -> bool:
        """Whether a task that failed leaves its range to another."""
        del self._open[future.key]
        one.futures.remove(future)
        late = isinstance(why, _UndeliveredError)
        one.undelivered += late
        again = late and not one.futures and one.undelivered < DELIVERIES
        if one.futures or again:
            said = str(why).removesuffix(KEPT)
            self._progress.note(f"warning: {said}Another task does the same frames.")
            future.release()
            one.handed_out = time.monotonic()
        if again:
            self._hand_out(one)
        return bool(one.futures)

    def _result(self, future: Any, one: _Range) -> Share:
        distributed = _library("distributed")
        try:
            answer = future.result(timeout=DELIVERY)
        except TimeoutError as error:
            raise _UndeliveredError(
                f"{self._named(one)}: a worker has integrated these and does not hand them over "
                f"within {DELIVERY:g} s; is the network broken? {KEPT}"
            ) from error
        except distributed.KilledWorker as error:
            raise EnvironmentProblemError(
                f"{self._named(one)}: {error.allowed_failures + 1} workers died while integrating "
                f"these, the last at {error.last_worker.address}; out of memory, or a frame that "
                f"breaks a library? {KEPT}"
            ) from error
        except CancelledError as error:
            raise self._lost_scheduler() from error
        except XrdpipeError as error:
            raise EnvironmentProblemError(f"{self._named(one)}: a worker says: {error}") from error
        except Exception as error:
            if self._client.status != "running":
                raise self._lost_scheduler() from error
            what = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise EnvironmentProblemError(
                f"{self._named(one)}: a worker failed ({what}); is the same xrdpipe installed "
                f"where the scheduler and the workers run? {KEPT}"
            ) from error
        if isinstance(answer, Refusal):
            raise self._refused(answer)
        assert isinstance(answer, Share)
        return answer

    def _refused(self, answer: Refusal) -> EnvironmentProblemError:
        reason = answer.reason
        if answer.key is not None:
            here = json.loads(key_text(self._job.header.key))
            difference = first_difference(answer.key, here)
            reason = (
                f"it would compute something else ({difference}; there = the worker): same "
                "versions and the same files are needed everywhere"
            )
        return EnvironmentProblemError(
            f"the worker on {answer.host} cannot take part: {reason}. {KEPT}"
        )

    def _lost_scheduler(self) -> EnvironmentProblemError:
        return EnvironmentProblemError(
            f"the connection to the Dask scheduler ({self._scheduler}) was lost. {KEPT}"
        )

    def _named(self, one: _Range) -> str:
        """The frames of a range, for messages."""
        first, last = (self._job.source.records[int(one.rows[place])] for place in (0, -1))
        if first.file == last.file:
            return f"frames {one.rows[0]} to {one.rows[-1]} of {first.file}"
        return f"frames {first.file} to {last.file}"

    def _drop(self, one: _Range) -> None:
        """Forget the tasks of a range, whatever became of them."""
        self._open = {key: other for key, other in self._open.items() if other is not one}
        for future in one.futures:
            if future.done():
                future.release()
            else:
                future.cancel()

    def _look_after_workers(self) -> None:
        """Say who came and went."""
        self._looked = time.monotonic()
        now: dict[str, int] = self._asked("nthreads")
        for address in self._workers.keys() - now.keys():
            self._progress.note(
                f"worker {address} is gone; what it had not handed over is done again"
            )
        for address in now.keys() - self._workers.keys() if self._workers else ():
            self._progress.note(f"worker {address} has joined")
        if now and not self._workers:
            self._progress.note(
                f"Dask: {len(now)} worker processes, {sum(now.values())} threads in all"
            )
        self._workers = now
        if now:
            self._alone_since = time.monotonic()
        elif time.monotonic() - max(self._spoke, self._alone_since) > SILENCE or (
            self._spoke < self._alone_since
        ):
            self._spoke = time.monotonic()
            self._progress.note("Dask: no worker; waiting for one (Ctrl-C stops, nothing is lost)")

    def _asked(self, question: str) -> Any:
        """What the scheduler answers; raises EnvironmentProblemError if it does not."""
        try:
            if self._client.status != "running":
                raise OSError(self._client.status)
            return getattr(self._client, question)()
        except (OSError, CancelledError) as error:
            raise self._lost_scheduler() from error

    def _help_stragglers(self) -> None:
        """Once there is nothing new to hand out, give what takes too long to a second worker."""
        usual = statistics.median(self._seconds) if self._seconds else 0.0
        limit = max(STRAGGLING_SECONDS, STRAGGLING * usual)
        late = [
            (key, one)
            for key, one in self._open.items()
            if len(one.futures) == 1 and time.monotonic() - one.handed_out > limit
        ]
        if not late:
            return
        holders = {
            key: address for address, keys in self._asked("processing").items() for key in keys
        }
        for key, one in late:
            others = [address for address in self._workers if address != holders.get(key)]
            if key in holders and others:
                self._progress.note(
                    f"{self._named(one)} take long on {holders[key]}; another worker does them, too"
                )
                self._hand_out(one, others)


def cut(waiting: NDArray[np.intp], threads: int) -> Iterator[_Range]:
    """Ranges of the rows that are waiting, along the borders of blocks."""
    per_thread = waiting.size // (max(threads, 1) * RANGES_PER_THREAD * BLOCK_ROWS)
    length = BLOCK_ROWS * int(np.clip(per_thread, 1, BLOCKS_PER_RANGE))
    borders = np.flatnonzero(np.diff(waiting // length)) + 1
    for rows in np.split(waiting, borders):
        yield _Range(rows)
