"""Small detectors and frames whose right answer is known; used by several test files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from xrdpipe.integration.geometry import Geometry, load_geometry
from xrdpipe.quiet import quiet

with quiet():
    import fabio.cbfimage
    import fabio.edfimage
    import fabio.tifimage

DATA = Path(__file__).parents[2] / "shared" / "data"
"""Real frames that are not part of the project; tests on them skip where they are absent."""

SHAPE = (150, 170)
WAVELENGTH = 0.4959
BAD = 255
"""Exit codes are named in the tests; this one means that nothing raised SystemExit."""


def write_poni(
    path: Path,
    shape: tuple[int, int] | None = SHAPE,
    pixel: float = 0.5e-3,
    distance: float = 0.20,
    centre: tuple[float, float] = (70.3, 80.6),
    rotations: tuple[float, float] = (0.0, 0.0),
    wavelength: float | None = WAVELENGTH,
    detector: str = "Detector",
) -> Path:
    """Write a PONI of version 2; ``centre`` in pixels, ``shape`` None = not stated."""
    config = {"pixel1": pixel, "pixel2": pixel, "orientation": 3}
    extra = "" if shape is None else f', "max_shape": [{shape[0]}, {shape[1]}]'
    text = (
        str(config).replace("'", '"').replace("}", extra + "}") if detector == "Detector" else "{}"
    )
    lines = [
        "poni_version: 2.1",
        f"Detector: {detector}",
        f"Detector_config: {text}",
        f"Distance: {distance}",
        f"Poni1: {centre[0] * pixel}",
        f"Poni2: {centre[1] * pixel}",
        f"Rot1: {rotations[0]}",
        f"Rot2: {rotations[1]}",
        "Rot3: 0.0",
    ]
    if wavelength is not None:
        lines.append(f"Wavelength: {wavelength * 1e-10}")
    path.write_text("\n".join(lines) + "\n")
    return path


def geometry_of(folder: Path, **poni: Any) -> Geometry:
    """The geometry of a PONI made by :func:`write_poni`."""
    return load_geometry(write_poni(folder / "geometry.poni", **poni))


def rings(
    two_theta: np.ndarray,
    lines: tuple[float, ...] = (6.0, 9.5, 14.2),
    width: float = 0.2,
    height: float = 100.0,
    background: float = 5.0,
) -> np.ndarray:
    """Expected counts: Gaussian rings (width = sigma, degrees) on a constant background."""
    profile = sum(np.exp(-0.5 * ((two_theta - line) / width) ** 2) for line in lines)
    return background + height * np.asarray(profile)


def write_image(path: Path, image: np.ndarray, header: dict[str, str] | None = None) -> Path:
    """Write one frame in the format of the suffix."""
    kinds = {
        ".tif": fabio.tifimage.TifImage,
        ".edf": fabio.edfimage.EdfImage,
        ".cbf": fabio.cbfimage.CbfImage,
    }
    with quiet():
        kinds[path.suffix](data=np.ascontiguousarray(image), header=dict(header or {})).write(
            str(path)
        )
    return path


def run_cli(arguments: list[Any]) -> int:
    """Call the command line in this process; returns its exit code."""
    from xrdpipe.cli import main

    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return BAD
