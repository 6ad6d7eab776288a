"""Real frames with known answers; they are not part of the project, and skipped without them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.optimize import curve_fit

import xrdpipe
from known_frames import DATA

CERIA = 5.4116
"""Lattice parameter of CeO2 (NIST SRM 674b), Å."""

HKL = ((1, 1, 1), (2, 0, 0), (2, 2, 0), (3, 1, 1), (2, 2, 2), (4, 0, 0), (3, 3, 1), (4, 2, 0),
       (4, 2, 2), (5, 1, 1))  # fmt: skip

TITANIUM = (3.124, 3.379, 3.437, 3.552, 4.603, 4.861, 5.412, 5.955)
"""Lines of a Ti alloy at 0.1393 Å, degrees."""


def folder(name: str) -> Path:
    path = DATA / name
    if not path.is_dir():
        pytest.skip(f"real frames are not here: {path}")
    return path


def integrate(output: Path, frame: Path, poni: Path, **options) -> dict[str, np.ndarray]:
    """Both variants of one frame, with what the file says of the flip."""
    xrdpipe.integrate(
        frames=[frame], poni=poni, variant="both", output=output, threads=2, **options
    )
    with h5py.File(output) as file:
        entry = file["entry"]
        assert entry["reduction/input/flip"].asstr()[()] == options.get("flip", "none")
        return {
            "axis": entry["data/radial_axis"][()],
            "static": entry["instrument/detector/mask_applied"][()],
            "rejected": entry["frames/n_masked_dynamic"][0],
            **{v: entry[f"azint1d_{v}/data/I"][0] for v in ("masked", "unmasked")},
        }


def gaussian(x, height, centre, width, base, slope):
    return height * np.exp(-0.5 * ((x - centre) / width) ** 2) + base + slope * (x - centre)


def peak(axis: np.ndarray, intensity: np.ndarray, near: float, reach: float) -> tuple[float, float]:
    """Fitted centre and height of the line within ``reach`` of ``near``."""
    use = (np.abs(axis - near) < reach) & np.isfinite(intensity)
    x, y = axis[use], intensity[use].astype(float)
    top = int(np.argmax(y))
    start = (np.ptp(y), x[top], reach / 5, y.min(), 0.0)
    low = (0, near - reach, reach / 20, -np.inf, -np.inf)
    high = (np.inf, near + reach, reach, np.inf, np.inf)
    best, _ = curve_fit(gaussian, x, y, start, bounds=(low, high), max_nfev=20000)
    return float(best[1]), float(best[0])


def ceria_lines(wavelength: float) -> np.ndarray:
    spacing = CERIA / np.linalg.norm(HKL, axis=1)
    return np.degrees(2 * np.arcsin(wavelength / 2 / spacing))


def spacing_errors(data, variant: str, wavelength: float, reach: float) -> np.ndarray:
    """Δd/d of every line, in per cent."""
    expected = ceria_lines(wavelength)
    found = np.array([peak(data["axis"], data[variant], line, reach)[0] for line in expected])
    ratio = np.sin(np.radians(expected / 2)) / np.sin(np.radians(found / 2))
    return 100 * (ratio - 1)


@pytest.fixture(scope="module")
def pilatus(tmp_path_factory):
    """CeO2 on a Pilatus 2M at 61 keV: int32, gaps −1 and −2, two hot pixels of millions."""
    data = folder("hexrd_ceria_pilatus2m")
    return integrate(
        tmp_path_factory.mktemp("pilatus") / "p.h5",
        data / "ceria_50x30_740mm_000005_Pilatus2M.hdf5",
        data / "derived_notilt.poni",
    )


@pytest.mark.parametrize("variant", ["masked", "unmasked"])
def test_ceria_lines_lie_where_they_should(pilatus, variant):
    errors = spacing_errors(pilatus, variant, 0.20215155538, 0.07)
    assert errors.size == 10
    assert np.abs(errors).max() < 0.02
    assert np.median(np.abs(errors)) < 0.01


def height_over_surroundings(data, variant: str, near: float) -> float:
    window = np.abs(data["axis"] - near) < 0.06
    return float(np.max(data[variant][window]) / np.median(data[variant][window]))


@pytest.mark.parametrize("place", [5.64, 8.71])
def test_hot_pixels_make_no_line_in_the_masked_pattern(pilatus, place):
    assert height_over_surroundings(pilatus, "unmasked", place) > 1.9
    assert height_over_surroundings(pilatus, "masked", place) < 1.05


def test_a_weak_line_near_the_edge_is_no_hot_pixel(pilatus):
    """CeO2 444 at 14.87°: both variants keep it."""
    place = np.degrees(2 * np.arcsin(0.20215155538 / 2 * np.sqrt(48) / CERIA))
    assert height_over_surroundings(pilatus, "unmasked", place) > 1.8
    assert height_over_surroundings(pilatus, "masked", place) > 1.8


def test_rejection_leaves_the_rings_of_a_grainy_powder(pilatus):
    """The ceria is grainy (35 % along the rings): only its brightest grains may go.

    Clipping within a bin of 0.01°, narrower than a pixel, once took 14-31 % of every line.
    """
    kept = []
    for line in ceria_lines(0.20215155538):
        near = np.abs(pilatus["axis"] - line) < 0.04
        distance = np.abs(pilatus["axis"] - line)
        beside = (distance > 0.06) & (distance < 0.09)
        area = {
            v: (pilatus[v][near] - np.median(pilatus[v][beside])).sum()
            for v in ("masked", "unmasked")
        }
        kept.append(area["masked"] / area["unmasked"])
    assert np.median(kept) > 0.95
    assert min(kept) > 0.89
    assert max(kept) <= 1.001
    assert 1000 < pilatus["rejected"] < 0.006 * pilatus["static"].size


@pytest.mark.parametrize("mask", [False, True])
def test_flipped_ceria_of_a_large_volume_press(tmp_path, mask):
    data = folder("cpf_bcc_iron")
    masks = [data / "DiffractionMask_Dioptas.mask"] if mask else []
    result = integrate(
        tmp_path / "p.h5",
        data / "CeO2_Pil207_E30_2Nov2016_001.tif",
        data / "CeO2_cal_Dioptas.poni",
        flip="ud",
        mask=[str(m) for m in masks],
    )
    for variant in ("masked", "unmasked"):
        errors = np.abs(spacing_errors(result, variant, 0.40663, 0.25))
        assert np.median(errors) < 0.02
        assert errors.max() < 0.04
    assert result["static"].mean() == pytest.approx(0.191 if mask else 0.0, abs=0.002)


def test_masked_and_unmasked_iron_differ_by_the_press(tmp_path):
    """bcc-Fe 110 is in both; what the anvils scatter is in the unmasked pattern only."""
    data = folder("cpf_bcc_iron")
    result = integrate(
        tmp_path / "p.h5",
        data / "BCC1_2GPa_10s_001_00001.tif",
        data / "CeO2_cal_Dioptas.poni",
        flip="ud",
        mask=[str(data / "DiffractionMask_Dioptas.mask")],
    )
    iron = {v: peak(result["axis"], result[v], 11.549, 0.2) for v in ("masked", "unmasked")}
    for centre, height in iron.values():
        assert centre == pytest.approx(11.549, abs=0.01)
        assert height > 60
    second, _ = peak(result["axis"], result["masked"], 16.36, 0.2)
    assert second == pytest.approx(16.36, abs=0.01)
    masked, unmasked = result["masked"], result["unmasked"]
    assert np.nanmax(unmasked) > 2 * np.nanmax(masked)
    shared = np.isfinite(masked) & np.isfinite(unmasked)
    different = np.abs(unmasked - masked)[shared] > 0.05 * unmasked[shared]
    assert 0.1 < different.mean() < 0.9


PAIRINGS = {"right": ("ud", "DLS_CeO2_1200mm.poni"), "also": ("none", "DLS_CeO2_1200mm_pyFAI.poni"),
            "wrong": ("none", "DLS_CeO2_1200mm.poni")}  # fmt: skip


@pytest.fixture(scope="module")
def pixium(tmp_path_factory):
    data = folder("lightform_pixium_series")
    output = tmp_path_factory.mktemp("pixium")
    return {
        name: integrate(
            output / f"{name}.h5", data / "frames" / "pixium_03150.tif", data / poni, flip=flip
        )
        for name, (flip, poni) in PAIRINGS.items()
    }


@pytest.mark.parametrize("variant", ["masked", "unmasked"])
def test_two_pairings_of_flip_and_poni_agree(pixium, variant):
    one, other = (
        [peak(pixium[name]["axis"], pixium[name][variant], line, 0.035)[0] for line in TITANIUM]
        for name in ("right", "also")
    )
    np.testing.assert_allclose(one, other, rtol=0, atol=0.002)
    np.testing.assert_allclose(one, TITANIUM, rtol=0, atol=0.004)


def test_the_wrong_pairing_smears_and_inspect_says_so(pixium):
    tops = {name: np.nanmax(result["unmasked"]) for name, result in pixium.items()}
    assert tops["right"] == pytest.approx(tops["also"], rel=0.02)
    assert tops["wrong"] < 0.4 * tops["right"]
    data = folder("lightform_pixium_series")
    for name, (flip, poni) in PAIRINGS.items():
        text = xrdpipe.inspect(path=[data / "frames"], poni=data / poni, flip=flip).summary
        assert ("warning" in text) == (name == "wrong")
        assert ("sharper with --flip ud than with --flip none" in text) == (name == "wrong")
        assert "3150-3155, 3 frames; 3 missing (3151, 3153, 3154)" in text
        assert "taken as integrating" in text


def test_inspect_sees_a_mask_that_lies_the_other_way_round():
    data = folder("cpf_bcc_iron")
    text = {
        flip: xrdpipe.inspect(
            path=[data / "BCC1_2GPa_10s_001_00001.tif"],
            poni=data / "CeO2_cal_Dioptas.poni",
            mask=[str(data / "DiffractionMask_Dioptas.mask")],
            flip=flip,
        ).summary
        for flip in ("ud", "none")
    }
    assert "19.1% masked" in text["ud"]
    assert "warning" not in text["ud"]
    assert "--flip ud" in text["none"]
    assert "warning" in text["none"]
