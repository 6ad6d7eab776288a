"""What is decided before the first frame is integrated, and what a block of rows holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from xrdpipe.config import IntegrateConfig
from xrdpipe.frames.dead import PixelKind
from xrdpipe.integration.batch import BatchReducer
from xrdpipe.integration.geometry import Binning, Geometry
from xrdpipe.integration.reduce import FrameReducer
from xrdpipe.stages.clock import Clock
from xrdpipe.stages.normalisation import Normalisation
from xrdpipe.stages.patience import Patience
from xrdpipe.store.parts import Column
from xrdpipe.store.patterns import COUNTS, PatternsHeader
from xrdpipe.types import Encoded, FrameSource

Pixels = Encoded | NDArray[Any]


@dataclass(frozen=True)
class Job:
    """Everything decided before the first frame is integrated."""

    config: IntegrateConfig
    source: FrameSource
    geometry: Geometry
    binning: Binning
    kind: PixelKind
    reducer: FrameReducer
    batch: BatchReducer | None
    """The same compiled, where that is possible."""
    normalisation: Normalisation
    header: PatternsHeader
    clock: Clock = field(default_factory=Clock)
    """Where the time goes."""
    patience: Patience = field(default_factory=Patience)
    """With the disk that the frames come from."""


def columns_of(job: Job) -> dict[str, Column]:
    """What a block of rows holds."""
    bins = (job.binning.count,)
    columns = {
        f"{variant}.{signal}": Column("<f4", bins)
        for variant in job.header.variants
        for signal in job.header.signals
    }
    columns |= {name: Column("<f8") for name in COUNTS}
    columns |= {"status": Column("|u1"), "flags": Column("<u2"), "reason": Column("S256")}
    return columns


def read_pixels(source: FrameSource, row: int) -> NDArray[Any]:
    """The decoded pixels of a frame; raises FrameError with a status and a reason."""
    fetched = source.fetch(row)
    return source.read(row).image if isinstance(fetched, Encoded) else fetched
