"""A SLURM of one node for tests: Debian's daemons on ports of their own, everything in one folder.

    python tests/cluster/one_node_slurm.py FOLDER -- COMMAND …

starts munged, slurmctld and slurmd, runs the command with ``SLURM_CONF`` set, and stops them
again. Needs root and the packages ``slurmctld slurmd slurm-client munge``; touches nothing outside
the folder, so it can run beside the machine's own SLURM.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "sinfo")

PATIENCE = 30.0
"""For a daemon to answer, s."""


def why_not() -> str:
    """Why no SLURM can be started here; empty if one can."""
    missing = [name for name in PROGRAMS if _program(name) is None]
    if missing:
        return (
            f"{', '.join(missing)} not installed (apt install slurmctld slurmd slurm-client munge)"
        )
    return "" if os.geteuid() == 0 else "slurmd needs root"


@contextmanager
def one_node_slurm(folder: Path) -> Iterator[dict[str, str]]:
    """A running SLURM; yields the environment in which its commands find it."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    for name in ("state", "spool", "log"):
        (folder / name).mkdir(exist_ok=True)
    daemons = [_start_munge(folder)]
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    (folder / "slurm.conf").write_text(_configuration(folder))
    try:
        for name, arguments in (("slurmctld", ["-D", "-c"]), ("slurmd", ["-D"])):
            program = [str(_program(name)), *arguments, "-f", str(folder / "slurm.conf")]
            daemons.append(_started(program, folder / "log" / f"{name}.out", environment))
        _wait_until_idle(environment, folder)
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()


def _program(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def _started(command: list[str], log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with log.open("w") as stream:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=environment
        )


def _start_munge(folder: Path) -> subprocess.Popen[bytes]:
    """The daemon by which SLURM's parts trust each other, with a key of its own."""
    private = folder / "munge"
    private.mkdir(exist_ok=True)
    private.chmod(0o711)
    key = private / "key"
    key.unlink(missing_ok=True)
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    files = {
        "key-file": key,
        "socket": private / "socket",
        "pid-file": private / "pid",
        "log-file": private / "log",
        "seed-file": private / "seed",
    }
    arguments = [f"--{name}={path}" for name, path in files.items()]
    command = [str(_program("munged")), "-F", "--force", *arguments]
    daemon = _started(command, folder / "log" / "munged.out", dict(os.environ))
    end = time.monotonic() + PATIENCE
    while not files["socket"].exists():
        if daemon.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"munged does not start; see {folder}/log and {private / 'log'}")
        time.sleep(0.1)
    return daemon


def _configuration(folder: Path) -> str:
    host = socket.gethostname().split(".")[0]
    controller, node = _free_ports(2)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20 * 9 // 10
    return f"""\
ClusterName=xrdpipe-test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
# No control groups: containers rarely give them away.
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# Array elements start within a second instead of a minute.
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} RealMemory={memory} State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _wait_until_idle(environment: dict[str, str], folder: Path) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        done = subprocess.run(
            ["sinfo", "--noheader", "--format=%T"], env=environment, capture_output=True, text=True
        )
        if "idle" in done.stdout:
            return
        if time.monotonic() > end:
            raise RuntimeError(f"SLURM is not ready ({done.stdout}{done.stderr}); see {folder}/log")
        time.sleep(0.3)


def main() -> int:
    """Run a command beside a SLURM of one node."""
    if "--" not in sys.argv or sys.argv.index("--") != 2:
        print(__doc__, file=sys.stderr)
        return 2
    if reason := why_not():
        print(f"no SLURM here: {reason}", file=sys.stderr)
        return 2
    with one_node_slurm(Path(sys.argv[1]).absolute()) as environment:
        return subprocess.run(sys.argv[3:], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
