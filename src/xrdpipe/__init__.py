"""xrdpipe: from a folder of 2D X-ray diffraction frames to per-pixel phase maps.

Every command is a function here, with the options of the command line::

    import xrdpipe

    outcome = xrdpipe.integrate(frames="scan_0042", poni="ceo2.poni", output="patterns.h5")
    xrdpipe.map(patterns=outcome.path, scan_shape="24x32", output="map.h5")
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xrdpipe.types import Outcome

__version__ = "0.1.0"


def __getattr__(name: str) -> Callable[..., Outcome]:
    """Make ``xrdpipe.integrate(...)`` and the other stages, importing nothing until called."""
    if name.startswith("_") or name == "config":
        raise AttributeError(f"module 'xrdpipe' has no attribute '{name}'")
    from xrdpipe.config import STAGES

    if name not in STAGES:
        raise AttributeError(f"module 'xrdpipe' has no attribute '{name}'")
    kind = STAGES[name]

    def stage(**options: Any) -> Outcome:
        from xrdpipe.stages import run_stage

        progress = options.pop("progress", None)
        return run_stage(name, kind.from_mapping(options), progress)

    stage.__name__ = name
    stage.__doc__ = kind.__doc__
    return stage
