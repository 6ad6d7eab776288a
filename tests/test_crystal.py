"""Crystallography has known answers: positions, intensities, and clear refusals."""

from pathlib import Path

import gemmi
import numpy as np
import pytest

from xrdpipe.crystal import bragg_angle, load_phase, powder_intensity, reflections
from xrdpipe.errors import InputError, InputMissingError
from xrdpipe.phases import distractor_phases, shipped_phases
from xrdpipe.types import Phase

CU = 1.5406
CIFS = Path(__file__).parents[2] / "shared" / "data" / "phases_cif"

HEAD = """data_x
_cell_length_a {a}
_cell_length_b {a}
_cell_length_c {c}
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma {gamma}
_symmetry_space_group_name_H-M '{group}'
"""
ATOMS = """loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
_atom_site_B_iso_or_equiv
"""
CALCITE = (
    HEAD.format(a=4.989, c=17.062, gamma=120, group="r-3c")
    + ATOMS
    + "s1 CA2+ 0 0 0 1 0.95\ns2 C 0 0 0.25 1 0.9\ns3 O 0.2569 0 0.25 1 0.94\n"
)
CERIA = (
    HEAD.format(a=5.4112, c=5.4112, gamma=90, group="fm-3m")
    + ATOMS
    + "Ce Ce 0 0 0 1 0.4\nO O .25 .25 .25 1 .8\n"
)


def percent(table, intensity, lines):
    of = {tuple(sorted(map(abs, hkl))): i for i, hkl in enumerate(table.hkl.tolist())}
    return [100 * intensity[of[tuple(sorted(line))]] / intensity.max() for line in lines]


def test_calcite_line_intensities_with_lower_case_group_and_ionic_species():
    # Lines 012, 104, 006, 110, 113. The reference (four programs within 0.3 % of the maximum)
    # is met at 0.4959 Å; the trap is 012 = 34 when special positions are not weighted.
    table = reflections(Phase("calcite", CALCITE), 0.4959, 1.0)
    lines = [(0, 1, 2), (1, 0, 4), (0, 0, 6), (1, 1, 2), (1, 2, 3)]
    hkl = {2: 3.854, 4: 3.035, 6: 2.8437, 0: 2.4945, 3: 2.2844}
    intensity = powder_intensity(table, 0.4959)
    found = [100 * intensity[np.argmin(abs(table.d - d))] / intensity.max() for d in hkl.values()]
    assert len(lines) == len(found)
    np.testing.assert_allclose(found, [8.3, 100, 2.2, 14.8, 20.9], atol=0.35)


def test_calcite_at_the_copper_wavelength():
    # (1 + cos²2θ)/(sin²θ cosθ), f′ and f″ of Cromer and Liberman, B of 0.95, 0.90 and 0.94 Å².
    table = reflections(Phase("calcite", CALCITE), CU, 1.0)
    intensity = powder_intensity(table, CU, polarization=True)
    np.testing.assert_allclose(
        100 * intensity[:5] / intensity.max(), [9.2, 100, 2.1, 14.3, 19.5], atol=0.2
    )
    assert table.multiplicity[:5].tolist() == [6, 6, 2, 6, 12]


def test_structure_factors_equal_those_of_gemmi(monkeypatch):
    monkeypatch.setattr(gemmi, "cromer_liberman", lambda z, energy: (0.0, 0.0))
    table = reflections(Phase("no anomalous terms", CALCITE), 1.1, 0.9)
    block = gemmi.cif.read_string(CALCITE).sole_block()
    structure = gemmi.make_small_structure_from_block(block)
    structure.change_occupancies_to_crystallographic()
    calculator = gemmi.StructureFactorCalculatorX(structure.cell)
    expected = [
        abs(calculator.calculate_sf_from_small_structure(structure, hkl)) ** 2
        for hkl in table.hkl.tolist()
    ]
    np.testing.assert_allclose(table.f_squared, expected, rtol=1e-6)


def test_ceria_positions_and_per_pixel_intensities():
    table = reflections(Phase("ceria", CERIA), 0.4959, 1.0)
    first = table.hkl.tolist().index([1, 1, 1])
    assert table.two_theta[first] == pytest.approx(
        np.degrees(2 * np.arcsin(0.4959 * np.sqrt(3) / 2 / 5.4112))
    )
    intensity = powder_intensity(table, 0.4959)
    # Measured on a real ceria frame (mean per pixel): 220 61-63, 311 52-53, 422 20-21.
    found = percent(table, intensity, [(2, 2, 0), (3, 1, 1), (2, 2, 4)])
    np.testing.assert_allclose(found, [61.5, 52, 20], atol=1.5)
    sizes = dict(zip(map(tuple, table.hkl.tolist()), table.multiplicity, strict=True))
    assert (sizes[1, 1, 1], sizes[2, 0, 0], sizes[2, 2, 0], sizes[3, 1, 1]) == (8, 6, 12, 24)


def test_a_strained_cell_moves_every_line_by_its_strain_response():
    table = reflections(Phase("calcite", CALCITE), 0.4959, 1.0)
    cell = (4.989 * 1.002, 4.989 * 1.002, 17.062 * 0.999, 90.0, 90.0, 120.0)
    exact = table.d_in_cell(cell) / table.d - 1
    first_order = table.strain_response() @ np.array([0.002, 0.002, -0.001])
    np.testing.assert_allclose(first_order, exact, atol=2e-5)
    assert table.volume == pytest.approx(4.989**2 * 17.062 * np.sqrt(3) / 2)


def test_axis_cosines_cover_the_orbit():
    table = reflections(Phase("calcite", CALCITE), 0.4959, 2.0)
    cosine = table.axis_cosines_squared((0, 0, 1))
    basal = table.hkl.tolist().index([0, 0, 6])
    np.testing.assert_allclose(cosine[basal], 1)
    prism = [index for index, hkl in enumerate(table.hkl) if hkl[2] == 0]
    np.testing.assert_allclose(cosine[prism], 0, atol=1e-12)


@pytest.mark.parametrize("name", ["bastnaesite-(La)", "calcite", "rhenium"])
def test_shipped_phases_have_their_published_lines(name):
    table = reflections(load_phase(shipped_phases()[name]), 0.4959, 1.15)
    intensity = powder_intensity(table, 0.4959)
    strongest = table.d[np.argmax(intensity)]
    # Published strongest lines; that of the La end member is scaled from the Ce phase by the cell.
    expected = {"bastnaesite-(La)": 2.88 * 7.181 / 7.118, "calcite": 3.035, "rhenium": 2.107}
    assert strongest == pytest.approx(expected[name], abs=0.01)


def test_all_distractors_can_be_computed():
    assert len(distractor_phases()) > 20
    for path in distractor_phases().values():
        assert len(reflections(load_phase(path), 0.4959, 1.0)) > 1


def test_real_cif_files_of_several_writers():
    if not CIFS.is_dir():
        pytest.skip("the folder of CIF files of other programs is not here")
    for path in sorted(CIFS.glob("*.cif")):
        phase = load_phase(path)
        assert phase.name == path.stem
        table = reflections(phase, 0.4959, 1.0)
        assert np.all(np.diff(table.d) <= 0)
        assert np.all(table.f_squared > 0)
    rhenium = reflections(load_phase(CIFS / "fact_rhenium.cif"), 0.4959, 1.0)
    assert rhenium.hkl.tolist()[:3] == [[1, 0, 0], [0, 0, 2], [1, 0, 1]]


def test_tables_are_cached_and_read_only():
    phase = Phase("ceria", CERIA)
    assert reflections(phase, 0.4959, 1.0) is reflections(phase, 0.4959, 1.0)
    with pytest.raises(ValueError, match="read-only"):
        reflections(phase, 0.4959, 1.0).d[0] = 1


def test_bragg_angle_out_of_reach_is_nan():
    assert np.isnan(bragg_angle(np.array([0.1]), 0.4959)[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not a cif at all", "not a readable CIF"),
        ("data_x\n_cell_length_a 4\n", "0 data blocks with atom sites"),
        (CALCITE.replace("_cell_length_c 17.062", ""), "no usable cell"),
        (CALCITE.replace("r-3c", "x-9z"), "space group 'x-9z' is not known"),
        (CALCITE.replace("r-3c", "f m -3 m"), "does not have the symmetry"),
        (CALCITE.replace("CA2+", "Qq"), "unknown species 'Qq'"),
        (CALCITE.replace("s1 CA2+ 0", "s1 CA2+ ?"), "no numeric position"),
    ],
)
def test_broken_cif_files_are_refused_in_one_sentence(tmp_path, text, message):
    path = tmp_path / "broken.cif"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_phase(path)
    assert "broken.cif" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_no_line_in_range(tmp_path):
    with pytest.raises(InputMissingError, match="does not exist"):
        load_phase(tmp_path / "none.cif")
    with pytest.raises(InputError, match="no reflection"):
        reflections(Phase("ceria", CERIA), 0.4959, 8.0)
