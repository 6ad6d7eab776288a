"""What DECTRIS detectors write above their pixels, and CBF files with it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from xrdpipe import __version__
from xrdpipe.frames.writers.images import one_per_file
from xrdpipe.frames.writers.series import Put, Series
from xrdpipe.quiet import quiet


def header_lines(series: Series) -> list[str]:
    """Lines of a mini-header (DECTRIS, 'minimal CBF header', PILATUS convention 1.2)."""
    detector = series.detector
    rows, columns = detector.pixel_size
    return [
        f"# Detector: {detector.name.upper()}, simulated by xrdpipe {__version__}",
        f"# Pixel_size {columns:.4g} m x {rows:.4g} m",
        f"# Exposure_time {detector.exposure:g} s",
        f"# Exposure_period {detector.exposure:g} s",
        f"# Count_cutoff {series.saturation} counts",
        f"# Wavelength {detector.wavelength:g} A",
        f"# Detector_distance {detector.distance:g} m",
        f"# Beam_xy ({detector.beam_centre[0]:.2f}, {detector.beam_centre[1]:.2f}) pixels",
    ]


def cbf(series: Series) -> contextlib.AbstractContextManager[Put]:
    """``NAME_00001.cbf`` …, int32, byte-offset compressed. No place for motors."""
    with quiet():
        from fabio.cbfimage import CbfImage
    header = {
        "_array_data.header_convention": "PILATUS_1.2",
        "_array_data.header_contents": "\r\n".join(header_lines(series)),
    }

    def write(path: Path, index: int, image: NDArray[Any]) -> None:
        CbfImage(data=image, header=dict(header)).write(str(path))

    return one_per_file(series, "cbf", write)
