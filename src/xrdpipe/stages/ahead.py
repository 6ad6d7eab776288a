"""What is slow to import is imported while something else is being computed."""

from __future__ import annotations

import contextlib
import importlib
import threading


def import_ahead(module: str) -> None:
    """Begin to import a module in a thread of its own; who imports it later waits for the rest.

    Whatever goes wrong is told to the one who imports it later.
    """

    def attempt() -> None:
        with contextlib.suppress(Exception):
            importlib.import_module(module)

    # No daemon: a process that ends inside a library's first steps can crash.
    threading.Thread(target=attempt, name=f"import {module}").start()
