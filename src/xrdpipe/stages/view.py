"""``xrdpipe view``: a map in the browser."""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
import time
import webbrowser
from pathlib import Path

from xrdpipe.config import ViewConfig
from xrdpipe.errors import EnvironmentProblemError, InputError, InputMissingError
from xrdpipe.store.map_record import read_map_record
from xrdpipe.store.parts import LIVE_SUFFIX, PART_SUFFIX
from xrdpipe.types import Outcome, Progress


def run(config: ViewConfig, progress: Progress | None = None) -> Outcome:
    """Serve the page until somebody stops it.

    Raises
    ------
    EnvironmentProblemError
        If Bokeh is not installed, or the port is taken.
    InputMissingError, InputError
        If there is no map, nor any sign that one is being made.
    """
    progress = progress or Progress()
    if importlib.util.find_spec("bokeh") is None:
        raise EnvironmentProblemError(
            "the viewer needs Bokeh, which is not installed: pip install 'xrdpipe[view]'."
        )
    check_map(config.map, config.wait)
    from xrdpipe.viewer.server import EVERYWHERE, run_until_stopped, start_server

    server, url = start_server(config.map.absolute(), config.address, config.port)
    if not config.map.exists():
        progress.note(f"{config.map} is not there yet; the page shows it as soon as it is")
    if config.address in EVERYWHERE:
        progress.note("warning: everybody in the network who is given this address can see the map")
    progress.note(f"{config.map} is shown at\n  {url}\nCtrl-C ends it")

    def show() -> None:
        if config.open and has_desktop():
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

    started = time.monotonic()
    run_until_stopped(server, show)
    progress.event("times", {"stage": "view", "seconds": {"open": time.monotonic() - started}})
    return Outcome(config.map, 0, "the viewer is closed.")


def check_map(path: Path, wait: bool) -> None:
    """Refuse what cannot become a page.

    Raises
    ------
    InputMissingError, InputError
        One sentence; of a live view, which file to give instead.
    """
    live = path.stem.endswith("_live")
    if live:
        whole = path.with_name(f"{path.stem.removesuffix('_live')}{path.suffix}")
        raise InputError(
            f"{path} is the live view of a scan that is followed; give {whole}, which is renewed "
            "every few seconds."
        )
    if path.exists():
        read_map_record(path)
        return
    folder = path.absolute().parent
    unfinished = folder.is_dir() and any(
        entry.suffix in (PART_SUFFIX, LIVE_SUFFIX) or entry.stem == f"{path.stem}_live"
        for entry in folder.iterdir()
    )
    if not (wait or unfinished):
        raise InputMissingError(
            f"map file {path} does not exist, and nothing beside it is being made; give a map "
            "written by 'xrdpipe map', or --wait for one that is still to come."
        )


def has_desktop() -> bool:
    """Whether a browser would open in a window; in a terminal it would only be in the way."""
    if os.environ.get("SSH_CONNECTION"):
        return False
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
