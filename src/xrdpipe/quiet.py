"""Import pyFAI and fabio without their chatter (optional OpenCL and Qt parts absent)."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings, log lines and stderr of the libraries; for set-up, not for threads."""
    for name in ("pyFAI", "silx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # A frame that fabio cannot read is reported by us, once, with its status.
    logging.getLogger("fabio").setLevel(logging.CRITICAL)
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
