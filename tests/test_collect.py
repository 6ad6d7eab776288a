"""``xrdpipe collect``: patterns of other programs become a patterns file, or say why not."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from pyFAI.detectors import Detector
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

import powder_formats as write
import xrdpipe
from h5compare import differences
from powder_formats import peaks
from test_config import assert_all_non_default, three_faces
from xrdpipe.cli import main
from xrdpipe.config import CollectConfig
from xrdpipe.crystal import bragg_angle, load_phase, powder_intensity, reflections
from xrdpipe.errors import FrameError, InputError, InputMissingError, OptionError
from xrdpipe.frames.powder_files import find_powder_files, read_powder_file
from xrdpipe.phases import shipped_phases
from xrdpipe.schema import FrameStatus
from xrdpipe.store.patterns import PatternsFile
from xrdpipe.types import Progress

DATA = Path(__file__).parents[2] / "shared" / "data"
AXIS = np.round(5 + 0.05 * np.arange(400), 10)
COUNTS, SIGMA = peaks()
CU = 1.5418


def collect(patterns, output, notes=None, **options):
    progress = Progress(note=(notes if notes is not None else []).append)
    return xrdpipe.collect(patterns=str(patterns), output=output, progress=progress, **options)


def stored(path):
    """Axis, I and I_errors (or None) of a collected file."""
    with h5py.File(path) as file:
        data = file["entry/data"]
        assert data.attrs["variant"] == "external"
        errors = data["I_errors"][()] if "I_errors" in data else None
        return data["radial_axis"][()], data["I"][()], errors


# --- formats ---------------------------------------------------------------------------------


Q = 4 * np.pi * np.sin(np.radians(AXIS) / 2) / 0.4959

FORMATS = {
    "two columns": lambda p: write.write_xy(p / "a.xy", AXIS, COUNTS),
    "blanks, LF": lambda p: write.write_xy(p / "a.xy", AXIS, COUNTS, separator="  ", end="\n"),
    "semicolons": lambda p: write.write_xy(p / "a.xy", AXIS, COUNTS, separator="; "),
    "commas": lambda p: write.write_xy(p / "a.xy", AXIS, COUNTS, separator=","),
    "decimal commas": lambda p: write.write_xy(p / "a.xy", AXIS, COUNTS, decimal=","),
    "# header": lambda p: write.write_xy(p / "a.xy", AXIS, COUNTS, header="# 2theta I\n! done"),
    "names of columns": lambda p: write.write_xy(p / "a.csv", AXIS, COUNTS, header="Angle,Counts"),
    "descending": lambda p: write.write_xy(p / "a.xy", AXIS[::-1], COUNTS[::-1]),
    "Bruker .xye": lambda p: write.write_bruker(p / "a.xye", AXIS, COUNTS, SIGMA),
    "Fit2D .chi": lambda p: write.write_fit2d(p / "a.chi", AXIS, COUNTS),
    "Fit2D in q": lambda p: write.write_fit2d(p / "a.chi", 10 * Q, COUNTS, "q-nm"),
    "pyFAI .dat": lambda p: write.write_pyfai(p / "a.dat", AXIS, COUNTS, SIGMA),
    "pyFAI in rad": lambda p: write.write_pyfai(
        p / "a.dat", np.radians(AXIS), COUNTS, unit="2th_rad"
    ),
    "pyFAI .xy in q": lambda p: write.write_pyfai(p / "a.xy", Q, COUNTS, unit="q_A^-1"),
    "pyFAI .chi in q": lambda p: write.write_pyfai(p / "a.chi", 10 * Q, COUNTS, unit="q_nm^-1"),
    "FullProf .dat": lambda p: write.write_fullprof(p / "a.dat", 5, 0.05, COUNTS),
    "GSAS .fxye": lambda p: write.write_fxye(p / "a.fxye", AXIS, COUNTS, SIGMA),
    "PANalytical 1.5": lambda p: write.write_xrdml(p / "a.xrdml", AXIS[0], AXIS[-1], COUNTS),
    "PANalytical 2.1": lambda p: write.write_xrdml(
        p / "a.xrdml", AXIS[0], AXIS[-1], COUNTS, version="2.1", element="counts"
    ),
}  # fmt: skip
WITH_ERRORS = {"Bruker .xye", "pyFAI .dat", "GSAS .fxye"}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_pattern(name, tmp_path):
    collect(FORMATS[name](tmp_path), tmp_path / "p.h5", wavelength=0.4959)
    with PatternsFile(tmp_path / "p.h5") as file:
        patterns = file.rows(0, 1)
    np.testing.assert_allclose(patterns.two_theta, AXIS, atol=2e-4)
    np.testing.assert_allclose(patterns.intensity[0], COUNTS, rtol=1e-6)
    assert patterns.wavelength == 0.4959
    assert patterns.variant == "external"
    assert patterns.unit == ("1/angstrom" if "q" in name.split() else "degrees")
    assert (patterns.intensity_errors is not None) == (name in WITH_ERRORS)
    if name in WITH_ERRORS:
        np.testing.assert_allclose(patterns.intensity_errors[0], SIGMA, rtol=1e-6)
    with h5py.File(tmp_path / "p.h5") as file:
        assert "coverage" not in file["entry/data"]


def test_d_spacings_are_placed_without_a_wavelength(tmp_path):
    write.write_xy(tmp_path / "a.xy", 2 * np.pi / Q, COUNTS)
    collect(tmp_path / "a.xy", tmp_path / "p.h5", unit="d", wavelength=0.7)
    axis, intensity, _ = stored(tmp_path / "p.h5")
    np.testing.assert_allclose(axis, Q, rtol=1e-8)
    np.testing.assert_array_equal(intensity[0], COUNTS.astype(np.float32))


def test_utf16_and_latin_text(tmp_path):
    text = "# Probe Ü\n" + "".join(f"{x} {y}\n" for x, y in zip(AXIS, COUNTS, strict=True))
    for name, encoding in (("a.xy", "utf-16"), ("b.xy", "latin-1"), ("c.xy", "utf-8-sig")):
        (tmp_path / name).write_bytes(text.encode(encoding))
        np.testing.assert_array_equal(read_powder_file(tmp_path / name).intensity, COUNTS)


def test_attenuated_counts_are_scaled_and_processed_intensities_are_not(tmp_path):
    factors = np.where(COUNTS > 400, 10, 1)
    raw = COUNTS / factors
    listed = " ".join(map(str, factors))
    ends = AXIS[0], AXIS[-1]
    write.write_xrdml(tmp_path / "a.xrdml", *ends, raw, element="counts", attenuation=listed)
    write.write_xrdml(tmp_path / "b.xrdml", *ends, COUNTS, attenuation=listed)
    for name in ("a.xrdml", "b.xrdml"):
        np.testing.assert_allclose(read_powder_file(tmp_path / name).intensity, COUNTS)


def test_counting_times_that_differ_are_brought_to_their_mean(tmp_path):
    times = np.where(np.arange(400) < 100, 1.0, 3.0)
    listed = " ".join(map(str, times))
    write.write_xrdml(tmp_path / "a.xrdml", AXIS[0], AXIS[-1], COUNTS * times, times=listed)
    notes = []
    collect(tmp_path / "a.xrdml", tmp_path / "p.h5", notes)
    _, intensity, _ = stored(tmp_path / "p.h5")
    np.testing.assert_allclose(intensity[0], COUNTS * times.mean(), rtol=1e-6)
    assert any("counting times differ" in note for note in notes)
    with h5py.File(tmp_path / "p.h5") as file:
        assert file["entry/instrument/positioners/counting_time"][0] == times.mean()
        assert file["entry/instrument/source/type"][()] == b"Fixed Tube X-ray"


# --- columns and errors ----------------------------------------------------------------------


def test_a_third_column_is_sigma_only_where_something_says_so(tmp_path):
    write.write_xy(tmp_path / "a.xy", AXIS, COUNTS, SIGMA)
    notes = []
    collect(tmp_path / "a.xy", tmp_path / "p.h5", notes, wavelength=CU)
    assert stored(tmp_path / "p.h5")[2] is None
    assert any("a third column is left out" in note for note in notes)
    collect(tmp_path / "a.xy", tmp_path / "q.h5", wavelength=CU, columns="axis,I,sigma")
    np.testing.assert_allclose(stored(tmp_path / "q.h5")[2][0], SIGMA, rtol=1e-6)
    collect(tmp_path / "a.xy", tmp_path / "r.h5", wavelength=CU, columns="axis,skip,I")
    np.testing.assert_allclose(stored(tmp_path / "r.h5")[1][0], SIGMA, rtol=1e-6)
    with pytest.raises(OptionError, match="one axis"):
        collect(tmp_path / "a.xy", tmp_path / "s.h5", columns="I,I")


def test_errors_of_some_files_are_nan_for_the_others(tmp_path):
    write.write_bruker(tmp_path / "a1.xye", AXIS, COUNTS, np.where(COUNTS > 60, SIGMA, 0))
    write.write_xy(tmp_path / "a2.xye", AXIS, COUNTS)
    notes = []
    collect(tmp_path, tmp_path / "p.h5", notes, wavelength=CU)
    errors = stored(tmp_path / "p.h5")[2]
    np.testing.assert_array_equal(np.isnan(errors[0]), COUNTS <= 60)  # an error of zero is none
    assert np.isnan(errors[1]).all()
    assert any("1 of 2 files give errors" in note for note in notes)


def test_bins_without_pixels_of_pyfai_are_no_zeros(tmp_path):
    intensity, sigma = COUNTS.copy(), SIGMA.copy()
    intensity[:20] = sigma[:20] = 0
    write.write_pyfai(tmp_path / "a.dat", AXIS, intensity, sigma)
    write.write_bruker(tmp_path / "b.xye", AXIS, intensity, sigma)
    assert np.isnan(read_powder_file(tmp_path / "a.dat").intensity[:20]).all()
    assert (read_powder_file(tmp_path / "b.xye").intensity[:20] == 0).all()


def test_files_that_pyfai_writes_today(tmp_path):
    integrator = AzimuthalIntegrator(
        dist=0.1, poni1=0.005, poni2=0.005, wavelength=0.4959e-10,
        detector=Detector(1e-4, 1e-4, max_shape=(100, 100)),
    )  # fmt: skip
    image = np.random.default_rng(1).poisson(100, (100, 100)).astype(np.float32)

    def integrate(name, unit, **options):
        return integrator.integrate1d(
            image, 50, unit=unit, filename=str(tmp_path / name), method=("no", "csr", "cython"),
            **options,
        )  # fmt: skip

    given = integrate("a.dat", "q_A^-1", polarization_factor=0.95)
    found = read_powder_file(tmp_path / "a.dat")
    assert (found.unit, found.wavelength, found.polarization) == ("q", 0.4959, "0.95")
    np.testing.assert_allclose(found.axis, given.radial, rtol=1e-6)
    np.testing.assert_allclose(found.intensity, given.intensity, rtol=1e-6)
    given = integrate("b.dat", "2th_deg", error_model="poisson")
    found = read_powder_file(tmp_path / "b.dat", unit="2theta")
    np.testing.assert_allclose(found.axis, given.radial, rtol=1e-6)
    np.testing.assert_allclose(found.sigma, given.sigma, rtol=1e-6)


# --- wavelength, unit, polarization ------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("# Wavelength: 4.959e-11 m", 0.4959),
        ("# wavelength = 0.4959 Å", 0.4959),
        ("# Wavelength (nm): 0.04959", 0.4959),
        ("# Lambda 0.4959(1) A", 0.4959),
        ("# Wavelength: 1,5406", 1.5406),
        ("# wavelength [nm]: 0,15406", 1.5406),
        ("# lambda: 1.5406,1.5444", 1.5406),
        ("# wavelength, 1.5406, 2theta", 1.5406),
        ("! wavelength 1: 1.54056", 1.54056),
        ("# wavelength 12: 1.54056", 1.54056),
        ('# "wavelength": 4.959e-11', 0.4959),
        ("# wavelength: unknown", None),
        ("# wavelength 632.8", None),
        ("# Anode: Cu", None),
    ],
)
def test_wavelengths_in_headers(tmp_path, header, expected):
    found = read_powder_file(write.write_xy(tmp_path / "a.xy", AXIS, COUNTS, header=header))
    assert found.wavelength == (expected and pytest.approx(expected, rel=1e-9))


def test_wavelength_of_panalytical_files(tmp_path):
    path = tmp_path / "a.xrdml"
    write.write_xrdml(path, 5, 25, COUNTS)
    assert read_powder_file(path).wavelength == 1.5405980
    write.write_xrdml(path, 5, 25, COUNTS, intended="K-Alpha")
    mean = (2 * 1.5405980 + 1.5444260) / 3
    assert read_powder_file(path).wavelength == pytest.approx(mean, rel=1e-9)
    write.write_xrdml(path, 5, 25, COUNTS, intended="K-Beta")
    assert read_powder_file(path).wavelength == 1.39225
    in_nm = ("0.15405980", "0.15444260", "0.13922500")
    write.write_xrdml(path, 5, 25, COUNTS, wavelengths=in_nm, length="nm")
    assert read_powder_file(path).wavelength == pytest.approx(1.5405980, rel=1e-9)
    write.write_xrdml(path, 5, 25, COUNTS, length="keV")
    with pytest.raises(
        FrameError, match=r"a\.xrdml: its wavelength is in 'keV'; expected angstrom"
    ):
        read_powder_file(path)


def test_the_wavelength_is_required_where_files_are_silent(tmp_path):
    write.write_bruker(tmp_path / "a.xye", AXIS, COUNTS, SIGMA)
    with pytest.raises(InputError, match=r"a\.xye does not state .* Cu anode.*--wavelength"):
        collect(tmp_path, tmp_path / "p.h5")
    assert not (tmp_path / "p.h5").exists()


def test_a_stated_wavelength_is_used_and_printed_and_the_option_wins(tmp_path):
    write.write_pyfai(tmp_path / "a.dat", AXIS, COUNTS)
    notes = []
    collect(tmp_path, tmp_path / "p.h5", notes)
    assert "wavelength 0.4959 Å, as all files state" in notes
    notes = []
    collect(tmp_path, tmp_path / "q.h5", notes, wavelength=0.5)
    assert any("warning" in n and "0.4959" in n and "0.5 Å is used" in n for n in notes)
    with PatternsFile(tmp_path / "q.h5") as file:
        assert file.wavelength == 0.5
    write.write_pyfai(tmp_path / "b.dat", AXIS, COUNTS, wavelength=0.41)
    with pytest.raises(InputError, match=r"0\.4959 Å, .*b\.dat 0\.41 Å"):
        collect(tmp_path, tmp_path / "r.h5")


def test_an_unnamed_unit_is_said_and_the_option_wins_over_the_header(tmp_path):
    notes = []
    write.write_xy(tmp_path / "a.xy", AXIS, COUNTS)
    collect(tmp_path, tmp_path / "p.h5", notes, wavelength=0.2)
    assert any("taken as 2theta in degrees" in note for note in notes)
    notes = []
    write.write_pyfai(tmp_path / "a.dat", AXIS, COUNTS)
    collect(tmp_path / "a.dat", tmp_path / "q.h5", notes, wavelength=0.2, unit="q")
    assert any("header says 2theta, taken as q" in note for note in notes)
    axis, _, _ = stored(tmp_path / "q.h5")
    np.testing.assert_allclose(axis, AXIS, rtol=1e-6)


def test_a_label_that_is_not_known_needs_the_option(tmp_path):
    (tmp_path / "a.chi").write_text(f"title\n s (1/A)\n I\n 400\n{WHOLE}")
    assert read_powder_file(tmp_path / "a.chi", unit="2theta").unit == "2theta"


def test_radians_that_pyfai_fails_to_name_are_taken_as_such(tmp_path):
    write.write_pyfai(tmp_path / "a.dat", np.radians(AXIS), COUNTS, SIGMA, broken=True)
    collect(tmp_path, tmp_path / "p.h5", unit="2theta-rad")
    axis, _, _ = stored(tmp_path / "p.h5")
    np.testing.assert_allclose(axis, AXIS, rtol=1e-6)
    with h5py.File(tmp_path / "p.h5") as file:
        assert file["entry/data/radial_axis"].attrs["units"] == "degrees"


@pytest.mark.parametrize("axis", [2 * np.pi / Q[::-1], np.logspace(0.5, 1.4, 400), Q])
def test_axes_whose_steps_change_gently_are_taken(tmp_path, axis):
    unit = "d" if axis[0] > 3 and axis[-1] > 20 else "q"
    path = write.write_xy(tmp_path / "a.xy", axis, COUNTS)
    assert read_powder_file(path, unit=unit).axis.size == 400


def test_the_unit_pyfai_fails_to_write_is_asked_for(tmp_path):
    write.write_pyfai(tmp_path / "a.dat", Q, COUNTS, SIGMA, broken=True)
    with pytest.raises(InputError, match=r"2theta or q; give --unit"):
        collect(tmp_path, tmp_path / "p.h5")
    collect(tmp_path, tmp_path / "p.h5", unit="q")
    axis, _, errors = stored(tmp_path / "p.h5")
    np.testing.assert_allclose(axis, Q, rtol=1e-6)
    np.testing.assert_allclose(errors[0], SIGMA, rtol=1e-5)


def test_a_q_that_the_wavelength_cannot_reach_is_refused(tmp_path):
    write.write_pyfai(tmp_path / "a.dat", Q, COUNTS, unit="q_A^-1")
    with pytest.raises(InputError, match=r"beyond 4π/λ"):
        collect(tmp_path, tmp_path / "p.h5", wavelength=4)


@pytest.mark.parametrize(
    ("header", "option", "expected", "factor"),
    [
        ("None", "auto", None, 0.0),
        ("0.99", "auto", 0.99, 0.99),
        ("0.99", 0, None, 0.0),
        ("None", "none", np.nan, np.nan),
    ],
)
def test_polarization_says_what_is_left_in_the_patterns(tmp_path, header, option, expected, factor):
    write.write_pyfai(tmp_path / "a.dat", AXIS, COUNTS, polarization=header)
    collect(tmp_path, tmp_path / "p.h5", polarization_factor=option)
    with PatternsFile(tmp_path / "p.h5") as file:
        np.testing.assert_equal(file.polarization_factor, expected)
        np.testing.assert_equal(file.entry["reduction/input/polarization_factor"][()], factor)
        np.testing.assert_array_equal(file.rows(0, 1).intensity[0], COUNTS.astype(np.float32))


def test_polarization_is_divided_out_once_when_the_wavelength_changes(tmp_path):
    """Known answer: a flat unpolarized pattern becomes flat, a corrected one stays as it is."""
    axis = np.round(20 + 0.02 * np.arange(3001), 10)
    factor = (1 + np.cos(np.radians(axis)) ** 2) / 2
    write.write_xy(tmp_path / "lab.xy", axis, 1000 * factor)
    write.write_xy(tmp_path / "corrected.xy", axis, np.full(axis.size, 1000.0))
    for name, option in (("lab", 0), ("corrected", "none")):
        collect(
            tmp_path / f"{name}.xy", tmp_path / "p.h5", wavelength=CU, polarization_factor=option,
            restart=True,
        )  # fmt: skip
        xrdpipe.resample(
            patterns=tmp_path / "p.h5", grid="8:20:0.01", wavelength=0.4959,
            output=tmp_path / f"{name}.h5",
        )  # fmt: skip
        _, intensity, _ = stored(tmp_path / f"{name}.h5")
        np.testing.assert_allclose(intensity[0], 1000, rtol=1e-4)


def test_headers_that_differ_in_polarization_need_the_option(tmp_path):
    write.write_pyfai(tmp_path / "a.dat", AXIS, COUNTS, polarization="0.99")
    write.write_pyfai(tmp_path / "b.dat", AXIS, COUNTS)
    with pytest.raises(InputError, match=r"'0\.99' and 'none'.*--polarization-factor"):
        collect(tmp_path, tmp_path / "p.h5")


# --- axes ------------------------------------------------------------------------------------


def test_axes_that_differ_by_rounding_are_equal_and_others_are_not(tmp_path):
    write.write_xy(tmp_path / "a1.xy", AXIS, COUNTS)
    write.write_xy(tmp_path / "a2.xy", AXIS + 1e-4, COUNTS)
    collect(tmp_path, tmp_path / "p.h5", wavelength=CU)
    np.testing.assert_array_equal(stored(tmp_path / "p.h5")[0], AXIS)
    write.write_xy(tmp_path / "a3.xy", AXIS + 0.02, COUNTS)
    with pytest.raises(InputError, match=r"axes differ in 1 of 3 files.*a1\.xy.*a3\.xy.*common"):
        collect(tmp_path, tmp_path / "q.h5", wavelength=CU)
    assert not (tmp_path / "q.h5").exists()


def test_common_grid_has_the_finest_step_the_union_and_nan_outside(tmp_path):
    def line(x):
        return 100 + 900 * np.exp(-(((x - 20) / 0.4) ** 2))

    coarse, fine = 10 + 0.05 * np.arange(401), 15 + 0.02 * np.arange(1001)
    coarse[0] = 10.0
    write.write_xy(tmp_path / "a.xye", coarse, line(coarse), np.full(401, 3.0))
    write.write_xy(tmp_path / "b.xye", fine, line(fine), np.full(1001, 3.0))
    collect(tmp_path, tmp_path / "p.h5", wavelength=CU, common_grid=True)
    axis, intensity, errors = stored(tmp_path / "p.h5")
    np.testing.assert_allclose(axis, 10 + 0.02 * np.arange(1251), atol=1e-9)
    first, second = np.isfinite(intensity)
    assert axis[first][[0, -1]] == pytest.approx([10, 30])
    assert axis[second][[0, -1]] == pytest.approx([15, 35])
    np.testing.assert_allclose(intensity[1][second], line(axis[second]), rtol=1e-6)
    np.testing.assert_allclose(intensity[0][first], line(axis[first]), atol=4)
    np.testing.assert_allclose(errors[1][second], 3, rtol=1e-6)
    assert (errors[0][first] <= 3 + 1e-6).all()


def test_common_grid_of_q_and_2theta_is_in_2theta(tmp_path):
    write.write_pyfai(tmp_path / "a.dat", AXIS, COUNTS)
    write.write_pyfai(tmp_path / "b.dat", Q, COUNTS, unit="q_A^-1")
    collect(tmp_path, tmp_path / "p.h5", common_grid=True)
    with PatternsFile(tmp_path / "p.h5") as file:
        assert file.unit == "degrees"
        a, b = file.rows(0, 2).intensity
    both = np.isfinite(a) & np.isfinite(b)
    assert both.mean() > 0.98
    np.testing.assert_allclose(a[both], b[both], atol=2)


def test_common_grid_of_equal_axes_changes_nothing(tmp_path):
    write.write_xy(tmp_path / "a.xy", AXIS, COUNTS)
    collect(tmp_path / "a.xy", tmp_path / "p.h5", wavelength=CU, common_grid=True)
    collect(tmp_path / "a.xy", tmp_path / "q.h5", wavelength=CU)
    ignore = ("config_json", "run_key", "uuid")
    assert differences(tmp_path / "p.h5", tmp_path / "q.h5", ignore) == []


# --- bad files -------------------------------------------------------------------------------


def _text(content):
    def make(path):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def _columns(*columns):
    return lambda path: write.write_xy(path, *columns)


TWICE, NO_AXIS, INFINITE = AXIS.copy(), AXIS.copy(), COUNTS.copy()
TWICE[7], NO_AXIS[7], INFINITE[7] = TWICE[6], np.nan, np.inf
TWO_SCANS = np.concatenate([AXIS[:200], AXIS[100:300] + 0.01])
WHOLE = "".join(f"{x:.2f} {y:.0f}\n" for x, y in zip(AXIS, COUNTS, strict=True))

BAD = {
    "nothing": (".xy", _text(""), FrameStatus.CORRUPT, "is empty"),
    "blank": (".xy", _text(" \n\n"), FrameStatus.CORRUPT, "is empty"),
    "binary": (".xy", _text(b"RAW1.01\0\0\1"), FrameStatus.UNREADABLE, "binary"),
    "prose": (".xy", _text("Dear all,\nsee 3 files.\n"), FrameStatus.UNREADABLE, "no pattern"),
    "one column": (".xy", _text("1\n2\n3\n"), FrameStatus.UNREADABLE, "no line holds two numbers"),
    "few points": (".xy", _columns(AXIS[:5], COUNTS[:5]), FrameStatus.CORRUPT, "5 points"),
    "cut line": (".xy", _text(WHOLE + "25.00"), FrameStatus.CORRUPT, "line 401 has 1 columns"),
    "text inside": (
        ".xy", _text(WHOLE + "end of scan\n"), FrameStatus.CORRUPT, "line 401 is no row of numbers",
    ),
    "same value twice": (".xy", _columns(TWICE, COUNTS), FrameStatus.CORRUPT, "5.3 occurs twice"),
    "two scans": (".xy", _columns(TWO_SCANS, COUNTS), FrameStatus.CORRUPT, "back and forth"),
    "no axis": (".xy", _columns(NO_AXIS, COUNTS), FrameStatus.CORRUPT, "point 8 is nan"),
    "infinite": (".xy", _columns(AXIS, INFINITE), FrameStatus.CORRUPT, "infinite"),
    "below zero": (".xy", _columns(AXIS - 6, COUNTS), FrameStatus.CORRUPT, "begins at -1"),
    "above 180": (".xy", _columns(10 * AXIS, COUNTS), FrameStatus.UNREADABLE, "no 2theta"),
    "all zero": (".xy", _columns(AXIS, 0 * COUNTS), FrameStatus.EMPTY, "zero or absent"),
    "which comma": (
        ".xy", _text(WHOLE.replace(" ", "; 1,").replace("; ", ";")), FrameStatus.UNREADABLE,
        "decimal mark",
    ),
    "radius": (
        ".chi", lambda p: write.write_fit2d(p, AXIS, COUNTS, "radius"), FrameStatus.UNREADABLE,
        "is a radius",
    ),
    "theta": (
        ".chi", _text(f"title\n Theta (deg)\n I\n 400\n{WHOLE}"), FrameStatus.UNREADABLE,
        "is theta by its header",
    ),
    "theta in a column": (
        ".xy", _text(f"Theta (deg)  I\n{WHOLE}"), FrameStatus.UNREADABLE, "is theta by its header",
    ),
    "a label unheard of": (
        ".chi", _text(f"title\n s (1/A)\n I\n 400\n{WHOLE}"), FrameStatus.UNREADABLE,
        r"labelled 's \(1/A\)', .* give --unit",
    ),
    "numbers above the data": (
        ".xy", _text(f"1 2\n{WHOLE}"), FrameStatus.CORRUPT, "first point, at 1, .* begin .* with #",
    ),
    "number of points above the data": (
        ".xy", _text(f"100 2\n{WHOLE}"), FrameStatus.CORRUPT, "the first point, at 100, lies far",
    ),
    "cut chi": (
        ".chi", lambda p: write.write_fit2d(p, AXIS, COUNTS, points=500), FrameStatus.CORRUPT,
        "announces 500 points and holds 400",
    ),
    "cut FullProf": (
        ".dat", _text("5 0.05 24.95\n" + " 12 13 14 15\n" * 50), FrameStatus.CORRUPT,
        "400 points.*200 intensities",
    ),
    "cut fxye": (
        ".fxye", lambda p: write.write_fxye(p, AXIS, COUNTS, SIGMA, points=500),
        FrameStatus.CORRUPT, "announces 500",
    ),
    "no bank": (".fxye", _text(WHOLE), FrameStatus.UNREADABLE, "0 BANK lines"),
    "time of flight": (
        ".fxye", _text(f"title\nBANK 1 400 400 SLOG 5 25 0.1 0 FXYE\n{WHOLE}"),
        FrameStatus.UNREADABLE, "SLOG",
    ),
    "aborted": (
        ".xrdml", lambda p: write.write_xrdml(p, 5, 25, COUNTS, status="Aborted"),
        FrameStatus.CORRUPT, "Aborted",
    ),
    "half an xrdml": (".xrdml", _text("<xrdMeasurements><scan>"), FrameStatus.CORRUPT, "XML"),
    "rocking curve": (
        ".xrdml", lambda p: write.write_xrdml(p, 5, 25, COUNTS, axis="Chi"),
        FrameStatus.UNREADABLE, "no scan over 2theta",
    ),
    "divergence": (
        ".xrdml",
        lambda p: write.write_xrdml(
            p, 5, 25, COUNTS, element="counts",
            extra="<commonDivergenceCorrection>1.1</commonDivergenceCorrection>",
        ),
        FrameStatus.UNREADABLE, "divergence",
    ),
    "entities": (
        ".xrdml", _text('<!DOCTYPE x [<!ENTITY a "b">]><xrdMeasurements/>'),
        FrameStatus.UNREADABLE, "entities",
    ),
    "pair distribution": (".gr", _text(WHOLE), FrameStatus.UNREADABLE, "pair distribution"),
    "Bruker raw": (".raw", _text(b"RAW1.01\0"), FrameStatus.UNREADABLE, "export it as .xy"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_says_why(name, tmp_path):
    suffix, make, status, reason = BAD[name]
    path = tmp_path / f"bad{suffix}"
    make(path)
    with pytest.raises(FrameError, match=reason) as caught:
        read_powder_file(path)
    assert caught.value.status == status
    assert str(path) in caught.value.reason


def test_a_bad_file_costs_its_row_and_shifts_no_other(tmp_path):
    for number in range(1, 7):
        write.write_xy(tmp_path / f"scan_{number}.xy", AXIS, COUNTS + number)
    (tmp_path / "scan_3.xy").write_text("")
    (tmp_path / "scan_5.xy").unlink()  # a gap in the numbers
    (tmp_path / "scan_2.xy").unlink()
    (tmp_path / "scan_2.xy").symlink_to("gone.xy")
    (tmp_path / "notes.txt").write_text("hello")
    notes = []
    outcome = collect(tmp_path, tmp_path / "p.h5", notes, wavelength=CU)
    assert outcome.lost == 2
    assert "3 of 5 patterns" in outcome.summary
    assert "1 missing, 1 corrupt" in outcome.summary
    assert "scan_3.xy is empty" in outcome.summary
    assert "left out, not patterns by their names: 1 x .txt" in notes
    with PatternsFile(tmp_path / "p.h5") as file:
        assert file.status.tolist() == [1, 2, 4, 1, 1]
        assert file.frame.tolist() == [1, 2, 3, 4, 6]
        assert file.numbered
        assert "scan_2.xy does not exist" in file.reasons[1]
        intensity = file.rows(0, 5).intensity
    assert np.isnan(intensity[1:3]).all()
    np.testing.assert_array_equal(intensity[[0, 3, 4], 0], COUNTS[0] + np.array([1, 4, 6]))


def test_nan_and_negative_intensities_are_kept(tmp_path):
    intensity = COUNTS - 60
    intensity[30:40] = np.nan
    write.write_xy(tmp_path / "a.xy", AXIS, intensity)
    notes = []
    collect(tmp_path, tmp_path / "p.h5", notes, wavelength=CU)
    np.testing.assert_array_equal(stored(tmp_path / "p.h5")[1][0], intensity.astype(np.float32))
    assert any("negative intensities" in note for note in notes)
    with PatternsFile(tmp_path / "p.h5") as file:
        assert (file.rows(0, 1).coverage[0] == np.isfinite(intensity)).all()


def test_lines_out_of_order_are_sorted_and_that_is_said(tmp_path):
    order = np.concatenate([np.arange(200, 400), np.arange(200)])
    write.write_xy(tmp_path / "a.xy", AXIS[order], COUNTS[order])
    found = read_powder_file(tmp_path / "a.xy")
    np.testing.assert_array_equal(found.intensity, COUNTS)
    assert "points were out of order: sorted" in found.remarks


def test_when_nothing_can_be_used_nothing_is_written(tmp_path):
    (tmp_path / "a.xy").write_text("")
    (tmp_path / "b.xy").write_text("prose")
    with pytest.raises(InputError, match=r"none of the 2 files is .*a\.xy is empty"):
        collect(tmp_path, tmp_path / "p.h5")
    assert not (tmp_path / "p.h5").exists()


def test_what_is_no_folder_of_patterns_is_refused(tmp_path):
    with pytest.raises(InputMissingError, match="does not exist"):
        find_powder_files([str(tmp_path / "nowhere")])
    with pytest.raises(InputMissingError, match="no file matches"):
        find_powder_files([str(tmp_path / "*.xy")])
    (tmp_path / "frame_1.tif").write_bytes(b"II*\0")
    with pytest.raises(InputMissingError, match=r"no 1D pattern .*1 x \.tif"):
        find_powder_files([str(tmp_path)])
    write.write_xy(tmp_path / "a.xy", AXIS, COUNTS)
    write.write_fit2d(tmp_path / "a.chi", AXIS, COUNTS)
    with pytest.raises(InputError, match=r"several kinds .*\*\.(xy|chi)'"):
        find_powder_files([str(tmp_path)])
    files, ignored = find_powder_files([str(tmp_path / "*.xy"), str(tmp_path / "a.xy")])
    assert [file.name for file in files] == ["a.xy"]
    assert ignored == {}
    (tmp_path / "p.h5").write_bytes(b"")
    with pytest.raises(InputError, match="HDF5"):
        find_powder_files([str(tmp_path / "p.h5")])


# --- the command -----------------------------------------------------------------------------


def test_rerun_restart_and_faces(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write.write_pyfai(folder / "a1.xy", Q, COUNTS, SIGMA)
    write.write_pyfai(folder / "a2.xy", Q[10:], COUNTS[10:], SIGMA[10:])
    options = {
        "patterns": [str(folder)],
        "wavelength": 0.5,
        "unit": "q",
        "columns": ["axis", "I", "sigma"],
        "common_grid": True,
        "polarization_factor": "none",
        "restart": True,
        "output": "OUTPUT",
    }
    assert_all_non_default("collect", options)
    library, command, toml = three_faces("collect", options, tmp_path)
    assert differences(library, command) == []
    assert differences(library, toml) == []
    del options["restart"]
    options["output"] = library
    assert "already done" in xrdpipe.collect(**options).summary
    write.write_pyfai(folder / "a3.xy", Q, COUNTS, SIGMA)
    with pytest.raises(FileExistsError, match="frames has 2 entries there, 3 here"):
        xrdpipe.collect(**options)


def test_polarization_option_takes_a_number_none_or_auto():
    for given, expected in (("0", 0.0), (0.5, 0.5), ("NONE", "none"), ("auto", "auto")):
        assert (
            CollectConfig(patterns="x", polarization_factor=given).polarization_factor == expected
        )
    for given in ("some", 2):
        with pytest.raises(OptionError, match="polarization_factor"):
            CollectConfig(patterns="x", polarization_factor=given)


@pytest.mark.parametrize("damaged", [False, True])
def test_command_line(tmp_path, capsys, damaged):
    write.write_bruker(tmp_path / "a1.xye", AXIS, COUNTS, SIGMA)
    write.write_bruker(tmp_path / "a2.xye", AXIS, COUNTS, SIGMA)
    if damaged:
        (tmp_path / "a2.xye").write_text("")
    output = str(tmp_path / "p.h5")

    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            main([*map(str, arguments)])
        return stop.value.code

    assert run("collect", tmp_path, "-o", output) == 2
    assert "give --wavelength" in capsys.readouterr().err
    assert run("collect", tmp_path, "-o", output, "--wavelength", CU) == (3 if damaged else 0)
    assert run("validate", output) == 0
    assert run("inspect", output) == 0
    assert "2 x 400 bins, 5-24.95 degrees" in capsys.readouterr().out


# --- maps ------------------------------------------------------------------------------------


def probabilities(path):
    with h5py.File(path) as file:
        group = file["entry/phase_map"]
        names = [name.decode() for name in group["phase_names"][()]]
        return names, group["presence/probability"][()], group["winner/phase_id"][()]


def calcite_pattern(two_theta, wavelength):
    """Counts of a calcite powder on a falling background, polarized at a tube, seeded noise."""
    table = reflections(load_phase(shipped_phases()["calcite"]), wavelength, 0.8)
    strength = powder_intensity(table, wavelength, polarization=wavelength > 1)
    angle = bragg_angle(table.d, wavelength)
    width = 0.06 * wavelength / 0.4959
    lines = np.zeros(two_theta.size)
    for place, height in zip(angle, strength / np.nanmax(strength), strict=True):
        if np.isfinite(place):
            lines += height * np.exp(-4 * np.log(2) * ((two_theta - place) / width) ** 2)
    expected = 2000 * lines + 300 * np.exp(-two_theta / two_theta.max())
    return np.random.default_rng(5).poisson(expected)


@pytest.mark.parametrize("wavelength", [0.4959, CU])
def test_calcite_is_found_in_a_folder_of_xy(tmp_path, wavelength):
    reach = np.degrees(2 * np.arcsin(np.sin(np.radians([4, 25]) / 2) * wavelength / 0.4959))
    axis = np.round(np.arange(*reach, 0.01 * wavelength / 0.4959), 6)
    empty = np.random.default_rng(6).poisson(300 * np.exp(-axis / axis.max()))
    for number in range(1, 7):
        counts = calcite_pattern(axis, wavelength) if number in (2, 6) else empty
        write.write_xy(tmp_path / f"pixel_{number:02d}.xy", axis, counts)
    polarization = 0 if wavelength > 1 else "none"
    collect(
        tmp_path, tmp_path / "p.h5", wavelength=wavelength, polarization_factor=polarization
    )  # fmt: skip
    xrdpipe.map(
        patterns=tmp_path / "p.h5", output=tmp_path / "m.h5", scan_shape="2x3", snake=True,
        png=False,
    )  # fmt: skip
    names, probability, winner = probabilities(tmp_path / "m.h5")
    calcite = names.index("calcite")
    expected = np.array([[-2, calcite, -2], [calcite, -2, -2]])
    np.testing.assert_array_equal(winner, expected)
    assert (probability[calcite][expected == calcite] > 0.9).all()


@pytest.mark.parametrize(
    ("folder", "options", "shape"),
    [
        ("autoanalyzer_xy", {}, (9001,)),
        ("xrdnet4cem_1d", {"common_grid": True}, (4292,)),
    ],
)
def test_real_laboratory_patterns_hold_none_of_the_phases(tmp_path, folder, options, shape):
    if not (DATA / folder).is_dir():
        pytest.skip("the data set is not here")
    collect(DATA / folder, tmp_path / "p.h5", wavelength=CU, **options)
    axis, intensity, errors = stored(tmp_path / "p.h5")
    assert axis.shape == shape
    assert (errors is not None) == (folder == "xrdnet4cem_1d")
    assert np.isfinite(intensity).mean() > 0.9
    xrdpipe.map(patterns=tmp_path / "p.h5", output=tmp_path / "m.h5", png=False)
    _, probability, winner = probabilities(tmp_path / "m.h5")
    assert np.isfinite(probability).all()
    # None of the phases; that something else is there is seen in most of them.
    assert np.isin(winner, (-2, -3)).all()
    assert (winner == -3).mean() > 0.6
