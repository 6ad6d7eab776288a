"""The web server of the viewer: on this computer only, unless it is told otherwise."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.server.server import Server

from xrdpipe.errors import EnvironmentProblemError
from xrdpipe.viewer.page import page_maker

FIRST_PORT, PORTS_TRIED = 5006, 50

EVERYWHERE = ("0.0.0.0", "::", "")


def start_server(path: Path, address: str, port: int | None) -> tuple[Server, str]:
    """A server that answers as soon as its loop runs, and the address of the page.

    The page lies under a name that cannot be guessed: on a computer that several people use,
    everybody can reach its ports.

    Raises
    ------
    EnvironmentProblemError
        If the port is taken, or none is free.
    """
    wanted = range(FIRST_PORT, FIRST_PORT + PORTS_TRIED) if port is None else (port,)
    key = secrets.token_urlsafe(16)
    for number in wanted:
        try:
            _try_port(address, number)
            server = Server(
                {f"/{key}": Application(FunctionHandler(page_maker(path)))},
                port=number,
                address=address,
                allow_websocket_origin=[f"{host}:{number}" for host in _hosts(address)],
                use_index=False,
                redirect_root=False,
            )
        except OSError as error:
            if port is None:
                continue
            raise EnvironmentProblemError(
                f"port {port} of {address} cannot be used ({error.strerror or error}); give "
                "another --port, or none."
            ) from error
        server.start()
        return server, f"http://{_hosts(address)[0]}:{server.port}/{key}"
    raise EnvironmentProblemError(
        f"no port between {FIRST_PORT} and {FIRST_PORT + PORTS_TRIED - 1} of {address} is free; "
        "give one with --port."
    )


def _try_port(address: str, port: int) -> None:
    """Raise OSError if it is taken; Bokeh would leave a socket behind."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((address, port))


def _hosts(address: str) -> list[str]:
    """Names under which a browser may have reached the page."""
    if address in ("127.0.0.1", "localhost", "::1"):
        return ["127.0.0.1", "localhost"]
    if address in EVERYWHERE:
        return [socket.getfqdn(), socket.gethostname(), "127.0.0.1", "localhost"]
    return [address]


def run_until_stopped(server: Server, running: Callable[[], None]) -> None:
    """Answer until Ctrl-C or SIGTERM.

    Parameters
    ----------
    running
        Called once the server answers.
    """
    loop = server.io_loop
    events: asyncio.AbstractEventLoop = loop.asyncio_loop
    signals = (signal.SIGINT, signal.SIGTERM)
    # Outside the main thread, and on Windows, whoever called stops the loop.
    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
        for number in signals:
            events.add_signal_handler(number, loop.stop)
    try:
        loop.add_callback(running)
        loop.start()
    finally:
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            for number in signals:
                events.remove_signal_handler(number)
        server.unlisten()
        server.stop()
