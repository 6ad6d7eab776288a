"""Integrate in this process, to which something happens at a chosen point.

``python killed.py POINT JSON``: the options of ``xrdpipe.integrate``. ``kill-…`` is SIGKILL, as
by the kernel or a power cut; ``signal-N`` a request to stop after the first batch; ``full-N`` a
disk that is full after N of the three blocks (a limit of file sizes stands for it).
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path

from xrdpipe import cli
from xrdpipe.stages import integrate, reduction
from xrdpipe.store import patterns
from xrdpipe.store.parts import PartFolder


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def after(owner, name: str, action, calls: int = 1) -> None:
    """Do something after the n-th call of a function."""
    original = getattr(owner, name)
    count = 0

    def patched(*arguments, **keywords):
        nonlocal count
        result = original(*arguments, **keywords)
        count += 1
        if count == calls:
            action(*arguments)
        return result

    setattr(owner, name, patched)


def tear(parts: PartFolder, first: int, rows) -> None:
    """As if the last block had been written in half."""
    file = parts.folder / "rows.bin"
    file.write_bytes(file.read_bytes()[:-100])
    die()


def fill(parts: PartFolder, *block) -> None:
    """From now on the disk is full: no file grows beyond the one of the blocks."""
    size = (parts.folder / "rows.bin").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def arrange(point: str) -> None:
    reduction.BLOCK_ROWS = 2
    kill = lambda *arguments: die()  # noqa: E731
    if point == "kill-prepared":
        after(integrate, "prepare", kill)
    elif point == "kill-begun":
        after(PartFolder, "begin", kill)
    elif point == "kill-block":
        after(PartFolder, "append", kill, 2)
    elif point == "kill-torn":
        after(PartFolder, "append", tear, 2)
    elif point == "kill-final":
        after(patterns, "rows_dataset", kill, 2)
    elif point == "kill-renamed":
        replace = Path.replace

        def last(source: Path, target: Path) -> None:
            replace(source, target)
            if target.suffix == ".h5":
                die()

        Path.replace = last
    elif point.startswith("signal-"):
        number = int(point.partition("-")[2])
        after(reduction, "_collect", lambda *arguments: os.kill(os.getpid(), number))
    elif point.startswith("full-"):
        after(PartFolder, "append", fill, int(point.partition("-")[2]))


if __name__ == "__main__":
    point, request = sys.argv[1:]
    options = json.loads(request)
    arrange(point)
    frames = options.pop("frames")
    arguments = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
    cli.main(["integrate", *frames, *arguments])
