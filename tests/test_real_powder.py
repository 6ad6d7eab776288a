"""Areas of the lines of real CeO2 frames against the calculation from its structure."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

import xrdpipe
from known_frames import DATA
from xrdpipe.crystal import load_phase, powder_intensity, reflections
from xrdpipe.phases import distractor_phases

HKL = ((1, 1, 1), (2, 0, 0), (2, 2, 0), (3, 1, 1), (2, 2, 2), (4, 0, 0), (3, 3, 1), (4, 2, 0),
       (4, 2, 2))  # fmt: skip

FRAMES = {
    # Folder, frame, PONI, its wavelength (Å), half width of a line and of its surroundings (°).
    "pilatus 2M, 61 keV": (
        "hexrd_ceria_pilatus2m", "ceria_50x30_740mm_000005_Pilatus2M.hdf5", "derived_notilt.poni",
        "none", 0.20215155538, 0.055, 0.10,
    ),
    "large-volume press, 30 keV": (
        "cpf_bcc_iron", "CeO2_Pil207_E30_2Nov2016_001.tif", "CeO2_cal_Dioptas.poni",
        "ud", 0.40663, 0.15, 0.30,
    ),
}  # fmt: skip


def area(axis: np.ndarray, intensity: np.ndarray, line: float, half: float, reach: float) -> float:
    """Sum over a line above the straight background beside it."""
    off = axis - line
    near = np.abs(off) < half
    beside = (np.abs(off) >= half) & (np.abs(off) < reach) & np.isfinite(intensity)
    background = np.polyfit(off[beside], intensity[beside], 1)
    assert np.isfinite(intensity[near]).all()
    return float((intensity[near] - np.polyval(background, off[near])).sum())


@pytest.mark.parametrize("name", FRAMES)
def test_areas_of_ceria_lines_are_as_calculated(tmp_path, name):
    folder, frame, poni, flip, wavelength, half, reach = FRAMES[name]
    data: Path = DATA / folder
    if not data.is_dir():
        pytest.skip(f"real frames are not here: {data}")
    output = tmp_path / "p.h5"
    xrdpipe.integrate(
        frames=[data / frame], poni=data / poni, variant="masked", output=output, threads=2,
        flip=flip,
    )  # fmt: skip
    with h5py.File(output) as file:
        axis = file["entry/data/radial_axis"][()]
        intensity = file["entry/data/I"][0].astype(float)
    table = reflections(load_phase(distractor_phases()["ceria"]), wavelength, 1.0)
    rows = [
        next(i for i in range(len(table)) if list(hkl) in table.orbit(i).tolist()) for hkl in HKL
    ]
    lines = table.two_theta[rows]
    areas = np.array([area(axis, intensity, line, half, reach) for line in lines])
    expected = powder_intensity(table, wavelength)[rows]
    ratio = (areas / expected) / (areas / expected)[0]
    np.testing.assert_allclose(ratio, 1, atol=0.20)
    # The power of a whole ring, 1/sinθ, is wrong by 60-150 % from 220 on.
    theta = np.radians(lines / 2)
    ring = areas / (expected * np.sin(theta) * np.cos(theta))
    assert np.all((ring / ring[0])[2:] < 1 / 1.5)
