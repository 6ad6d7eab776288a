"""Make the masks that ship with xrdpipe, from the set-up of the demonstration.

Run it from anywhere; it writes ``NAME.edf.gz`` (uint8, nonzero = masked) and ``NAME.toml``
beside itself. The demonstration (``pipelines/demo.toml``) simulates with the same detector,
distance, wavelength and seed, so the static dead pixels, the beamstop and the diamond spots
of its frames are those of these masks.
"""

from __future__ import annotations

import gzip
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xrdpipe.quiet import quiet
from xrdpipe.simulation.diamonds import diamond_mask
from xrdpipe.stages.simulate import HALO_THRESHOLD, plan_setup, write_geometry
from xrdpipe.types import BoolArray

DETECTOR = "Pilatus300k"
DISTANCE = 0.10  # m
WAVELENGTH = 0.4959  # Å, an assumed 25 keV
SEED = 7
APERTURE = 22.0  # degrees 2θ
DATE = "2026-11-21"


@dataclass(frozen=True)
class NotedMask:
    """A mask with what its note says of it; pixels: True = masked, (rows, columns)."""

    pixels: BoolArray
    purpose: str
    origin: str


def demo_masks() -> dict[str, NotedMask]:
    """Name and content of every shipped mask."""
    with tempfile.TemporaryDirectory() as scratch:
        poni = Path(scratch) / "demo.poni"
        geometry = write_geometry(poni, DETECTOR, DISTANCE, WAVELENGTH)
    setup = plan_setup(geometry, SEED)
    made_by = f"masks/make_masks.py, simulated set-up of seed {SEED}"
    return {
        "demo-pilatus300k": NotedMask(
            geometry.gap_mask | setup.bad.pixels,
            "Module gaps with the dead and hot pixels of the demonstration's detector.",
            made_by,
        ),
        "demo-beamstop": NotedMask(
            setup.shadow,
            "Beamstop with its arm: pixels that lose more than 2 % of their intensity.",
            made_by,
        ),
        "demo-aperture": NotedMask(
            geometry.two_theta > APERTURE,
            f"Opening cone of a diamond anvil cell: everything beyond 2theta = {APERTURE:g} "
            "degrees, for cells whose seats cast a shadow there.",
            "masks/make_masks.py, geometry of the demonstration",
        ),
        "demo-diamond-spots": NotedMask(
            diamond_mask(setup.plane, setup.diamonds, HALO_THRESHOLD),
            "Spots of the diamond anvils with their halos, wherever they drift in the scan: "
            f"more than {HALO_THRESHOLD:g} counts.",
            made_by,
        ),
    }


def write_masks(folder: Path) -> list[Path]:
    """Write every mask and its note into a folder; returns the mask files."""
    with quiet():
        from fabio.edfimage import EdfImage
    written = []
    for name, mask in demo_masks().items():
        plain = folder / f"{name}.edf"
        EdfImage(data=mask.pixels.astype(np.uint8)).write(str(plain))
        packed = folder / f"{name}.edf.gz"
        # No time stamp: the same mask is the same file.
        packed.write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
        plain.unlink()
        rows, columns = mask.pixels.shape
        note = {
            "origin": mask.origin,
            "purpose": mask.purpose,
            "detector": DETECTOR,
            "distance_m": DISTANCE,
            "wavelength_angstrom": WAVELENGTH,
            "shape": [rows, columns],
            "orientation": "that of the PONI",
            "date": DATE,
            "masked_fraction": round(float(mask.pixels.mean()), 5),
        }
        # JSON strings, numbers and lists are TOML values, too.
        lines = [f"{key} = {json.dumps(value)}" for key, value in note.items()]
        (folder / f"{name}.toml").write_text("\n".join(lines) + "\n")
        written.append(packed)
    return written


if __name__ == "__main__":
    for path in write_masks(Path(__file__).parent):
        print(path)
