"""Diffraction of known structures: positions, multiplicities, |F|² and intensities by hand."""

from __future__ import annotations

import dataclasses

import gemmi
import numpy as np
import pytest

from crystal_texts import CALCITE, CERIA, HEXAGONAL, TRICLINIC, cif
from xrdpipe.crystal import (
    bragg_angle,
    load_phase,
    plane_spacing,
    powder_intensity,
    reciprocal_metric,
    reflections,
    scattering,
    spacing_gradient,
    structure,
    structure_factors,
)
from xrdpipe.crystal.lattice import cell_of_metric, direct_metric
from xrdpipe.crystal.structure import direct_basis
from xrdpipe.errors import InputError
from xrdpipe.phases import distractor_phases, shipped_phases
from xrdpipe.types import Phase

CU = 1.5406
CALCITE_LINES = ((0, 1, 2), (1, 0, 4), (0, 0, 6), (1, 1, 0), (1, 1, 3))


@pytest.fixture
def no_dispersion(monkeypatch):
    """Structure factors without f′ and f″, from tables that are not kept."""
    monkeypatch.setattr(scattering, "dispersion", lambda element, wavelength: 0j)


def table_of(text: str, wavelength: float = 0.7, d_min: float = 1.0):
    return reflections(Phase("test", text), wavelength, d_min)


def row(table, hkl) -> int:
    """Row whose orbit holds the indices."""
    return next(i for i in range(len(table)) if list(hkl) in table.orbit(i).tolist())


def percent(table, lines, polarization=False) -> list[float]:
    intensity = powder_intensity(table, table.wavelength, polarization)
    return [100 * intensity[row(table, hkl)] / intensity.max() for hkl in lines]


def f_of(element: str, d: float) -> float:
    """Form factor of the neutral atom from the second library's own sum."""
    return gemmi.Element(element).it92.calculate_sf(1 / (4 * d * d))


# --- intensities of real minerals -------------------------------------------------------------


def test_calcite_meets_the_published_intensities_at_0p4959():
    """λ 0.4959 Å; LP = (1 + cos²2θ)/(sin²θ cosθ); B 0.79, 0.79, 1.11 Å² (Ca, C, O); f′, f″."""
    table = reflections(load_phase(shipped_phases()["calcite"]), 0.4959, 1.0)
    found = percent(table, CALCITE_LINES, polarization=True)
    np.testing.assert_allclose(found, [8.3, 100, 2.2, 14.8, 20.9], atol=1.0)


def test_calcite_meets_the_published_intensities_at_the_copper_angle():
    """λ 1.5406 Å, the same LP, f′ and f″, atoms at rest."""
    text = CALCITE.replace("0.010", "0").replace("0.014", "0")
    found = percent(table_of(text, CU), CALCITE_LINES, polarization=True)
    np.testing.assert_allclose(found, [8.3, 100, 2.2, 14.8, 20.9], atol=1.0)


def test_calcite_fails_where_special_positions_count_once_per_operation(monkeypatch):
    whole = structure(Phase("calcite", CALCITE))
    wrong = dataclasses.replace(
        whole,
        sites=tuple(dataclasses.replace(s, multiplicity=len(whole.symmetry)) for s in whole.sites),
    )
    monkeypatch.setattr("xrdpipe.crystal.powder.structure", lambda phase: wrong)
    # Another name, so that no table in memory is met.
    table = reflections(Phase("calcite counted wrongly", CALCITE), 0.4959, 1.0)
    assert percent(table, CALCITE_LINES, polarization=True)[0] > 30


def test_ceria_per_pixel_intensities():
    # Measured on real ceria (mean per pixel): 220 61-63, 311 52-53, 422 20-21.
    found = percent(table_of(CERIA, 0.4959), [(2, 2, 0), (3, 1, 1), (4, 2, 2)])
    np.testing.assert_allclose(found, [61.5, 52, 20], atol=1.5)


@pytest.mark.parametrize(
    ("name", "d"),
    [("bastnaesite-(La)", 2.88 * 7.181 / 7.118), ("calcite", 3.035), ("rhenium", 2.107)],
)
def test_shipped_phases_have_their_published_strongest_line(name, d):
    """That of the La end member is the published one of the Ce phase, scaled by the cell."""
    table = reflections(load_phase(shipped_phases()[name]), 0.4959, 1.15)
    intensity = powder_intensity(table, 0.4959)
    assert table.d[np.argmax(intensity)] == pytest.approx(d, abs=0.01)


def test_all_distractors_can_be_computed():
    assert len(distractor_phases()) > 20
    for path in distractor_phases().values():
        assert len(reflections(load_phase(path), 0.4959, 1.0)) > 1


# --- structure factors by hand ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "atoms", "hkl", "amplitude"),
    [
        # Rock salt: 4 (f_Na ± f_Cl) for all even or all odd.
        ("F m -3 m", ("Na 0 0 0", "Cl .5 .5 .5"), (2, 0, 0), lambda na, cl: 4 * (na + cl)),
        ("F m -3 m", ("Na 0 0 0", "Cl .5 .5 .5"), (1, 1, 1), lambda na, cl: 4 * (na - cl)),
        # Caesium chloride: f_Cs ± f_Cl for h + k + l even or odd.
        ("P m -3 m", ("Cs 0 0 0", "Cl .5 .5 .5"), (1, 1, 0), lambda cs, cl: cs + cl),
        ("P m -3 m", ("Cs 0 0 0", "Cl .5 .5 .5"), (1, 0, 0), lambda cs, cl: cs - cl),
        # Diamond: 8 f for h + k + l = 4n, 4 √2 f for odd indices.
        ("F d -3 m :1", ("C 0 0 0",), (2, 2, 0), lambda c: 8 * c),
        ("F d -3 m :1", ("C 0 0 0",), (1, 1, 1), lambda c: 4 * np.sqrt(2) * c),
    ],
)
def test_structure_factors_of_simple_structures(no_dispersion, group, atoms, hkl, amplitude):
    edge = 4.321
    rows = [f"{atom.split()[0]} {atom} 1 0" for atom in atoms]
    table = table_of(cif((edge,), group, rows), 0.71)
    found = table.f_squared[row(table, hkl)]
    d = edge / np.linalg.norm(hkl)
    expected = amplitude(*[f_of(atom.split()[0], d) for atom in atoms])
    assert found == pytest.approx(expected**2, rel=1e-5)


def test_structure_factors_of_a_hexagonal_close_packing(no_dispersion):
    """|F|² = 4 f² cos²(π (h + 2k)/3 + π l/2)."""
    text = cif((2.76, 2.76, 4.458, *HEXAGONAL), "P 63/m m c", ("Re Re 0.33 0.67 0.25 1 0",))
    table = table_of(text, 0.712)
    for hkl, d, found in zip(table.hkl, table.d, table.f_squared, strict=True):
        angle = np.pi * (hkl[0] + 2 * hkl[1]) / 3 + np.pi * hkl[2] / 2
        expected = 4 * f_of("Re", d) ** 2 * np.cos(angle) ** 2
        assert found == pytest.approx(expected, rel=1e-5)
    # 0.33 is 1/3: lines that are extinct stay so.
    assert not any((h + 2 * k) % 3 == 0 and m % 2 for h, k, m in table.hkl.tolist())


@pytest.mark.parametrize("text", [CALCITE, CERIA, TRICLINIC])
def test_structure_factors_equal_those_of_gemmi(no_dispersion, text):
    table = table_of(text, 1.1, 0.9)
    small = gemmi.make_small_structure_from_block(gemmi.cif.read_string(text).sole_block())
    small.change_occupancies_to_crystallographic()
    calculator = gemmi.StructureFactorCalculatorX(small.cell)
    expected = [
        abs(calculator.calculate_sf_from_small_structure(small, hkl)) ** 2
        for hkl in table.hkl.tolist()
    ]
    np.testing.assert_allclose(table.f_squared, expected, rtol=1e-5, atol=1e-4)


def test_intensities_equal_those_of_pymatgen(no_dispersion):
    """Same LP, B of every element, no f′: its form factors differ by less than 0.3 %."""
    core = pytest.importorskip("pymatgen.core")
    xrd = pytest.importorskip("pymatgen.analysis.diffraction.xrd")
    lattice = core.Lattice.hexagonal(4.99, 17.06)
    atoms = core.Structure.from_spacegroup(
        "R-3c", lattice, ["Ca", "C", "O"], [[0, 0, 0], [0, 0, 0.25], [0.257, 0, 0.25]]
    )
    b = {element: 8 * np.pi**2 * u for element, u in {"Ca": 0.01, "C": 0.01, "O": 0.014}.items()}
    calculator = xrd.XRDCalculator(wavelength=CU + 1e-5, debye_waller_factors=b)
    pattern = calculator.get_pattern(atoms, two_theta_range=(0, 40))
    found = percent(table_of(CALCITE, CU + 1e-5), CALCITE_LINES, polarization=True)
    np.testing.assert_allclose(found, pattern.y[:5], atol=0.2)


def test_forward_scattering_counts_the_electrons(no_dispersion):
    """F(000) is the sum of the atomic numbers: 6 units of CaCO3 of 20 + 6 + 24 electrons."""
    crystal = structure(Phase("calcite", CALCITE))
    forward, _ = structure_factors(crystal, np.zeros((1, 3), int), np.array([np.inf]), 0.7)
    assert forward[0].real == pytest.approx(6 * 50, rel=1e-3)


def test_dispersion_acts_and_splits_friedel_mates():
    """Zinc blende at the Cu wavelength: |F(111)| and |F(−1−1−1)| differ, their mean is used."""
    text = cif((5.41,), "F -4 3 m", ("Zn Zn 0 0 0 1 0", "S S .25 .25 .25 1 0"))
    crystal = structure(Phase("sphalerite", text))
    d = np.array([5.41 / np.sqrt(3)])
    forward, friedel = structure_factors(crystal, np.array([[1, 1, 1]]), d, CU)
    zinc, sulphur = (
        f_of(e, d[0]) + complex(*gemmi.cromer_liberman(gemmi.Element(e).atomic_number, 8047.8))
        for e in ("Zn", "S")
    )
    assert abs(forward[0]) == pytest.approx(4 * abs(zinc - 1j * sulphur), rel=1e-3)
    assert abs(friedel[0]) == pytest.approx(4 * abs(zinc + 1j * sulphur), rel=1e-3)
    mean = (abs(forward[0]) ** 2 + abs(friedel[0]) ** 2) / 2
    table = table_of(text, CU)
    assert table.f_squared[row(table, (1, 1, 1))] == pytest.approx(mean)
    assert abs(abs(forward[0]) - abs(friedel[0])) > 1


def test_partial_and_mixed_sites_scatter_their_share(no_dispersion):
    mixed = table_of(cif((2.9,), "I m -3 m", ("A Fe 0 0 0 .7 0", "B Co 0 0 0 .3 0")), 0.72)
    for d, found in zip(mixed.d, mixed.f_squared, strict=True):
        expected = (2 * (0.7 * f_of("Fe", d) + 0.3 * f_of("Co", d))) ** 2
        assert found == pytest.approx(expected, rel=1e-5)


# --- displacements ----------------------------------------------------------------------------


def aniso(kind: str, rows: list[str]) -> str:
    tags = "\n".join(f"_atom_site_aniso_{kind}_{ij}" for ij in ("11", "22", "33", "12", "13", "23"))
    return "\nloop_\n_atom_site_aniso_label\n" + tags + "\n" + "\n".join(rows) + "\n"


def test_isotropic_displacement_is_the_debye_waller_factor():
    still, moving = (
        table_of(cif((5.43,), "F d -3 m :1", (f"Si Si 0 0 0 1 {u}",))) for u in (0, 0.02)
    )
    expected = np.exp(-2 * 8 * np.pi**2 * 0.02 / (4 * still.d**2))
    np.testing.assert_allclose(moving.f_squared / still.f_squared, expected, rtol=1e-9)


def test_an_anisotropic_tensor_that_is_isotropic_changes_nothing():
    """Isotropic U in oblique axes: U_ij = U (a*_i · a*_j)/(|a*_i| |a*_j|)."""
    metric = reciprocal_metric((7.1, 8.3, 9.7, 81, 97, 108))
    stars = np.sqrt(np.diag(metric))
    rows = []
    for label, u in (("Si", 0.01), ("O", 0.02)):
        t = u * metric / np.outer(stars, stars)
        values = (t[0, 0], t[1, 1], t[2, 2], t[0, 1], t[0, 2], t[1, 2])
        rows.append(" ".join([label, *map(repr, map(float, values))]))
    same = table_of(TRICLINIC + aniso("U", rows))
    np.testing.assert_allclose(same.f_squared, table_of(TRICLINIC).f_squared, rtol=1e-9)
    np.testing.assert_array_equal(same.hkl, table_of(TRICLINIC).hkl)


def test_b_and_beta_are_u_in_other_units():
    u = (0.01, 0.02, 0.015, 0.004, -0.003, 0.002)
    star = np.sqrt(np.diag(reciprocal_metric((7.1, 8.3, 9.7, 81, 97, 108))))
    pairs = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
    kinds = {
        "U": u,
        "B": [8 * np.pi**2 * value for value in u],
        "beta": [2 * np.pi**2 * v * star[i] * star[j] for v, (i, j) in zip(u, pairs, strict=True)],
    }
    tables = [
        table_of(TRICLINIC + aniso(kind, ["Si " + " ".join(map(str, values))]))
        for kind, values in kinds.items()
    ]
    for other in tables[1:]:
        np.testing.assert_allclose(other.f_squared, tables[0].f_squared, rtol=1e-9)
    isotropic = table_of(TRICLINIC)
    assert np.abs(tables[0].f_squared / isotropic.f_squared - 1).max() > 0.05


def test_displacements_turn_with_the_symmetry(no_dispersion):
    """An atom in general position written out in P 1, its tensors turned by hand."""
    cell = (5.0, 5.0, 7.0)
    group = cif(cell, "P 4", ("Fe Fe .11 .23 .31 1 .01",)) + aniso("U", ["Fe .01 .04 .02 .005 0 0"])
    turned = ["F1 .01 .04 .02 .005 0 0", "F2 .04 .01 .02 -.005 0 0",
              "F3 .01 .04 .02 .005 0 0", "F4 .04 .01 .02 -.005 0 0"]  # fmt: skip
    places = [".11 .23 .31", "-.23 .11 .31", "-.11 -.23 .31", ".23 -.11 .31"]
    atoms = [f"F{n + 1} Fe {place} 1 .01" for n, place in enumerate(places)]
    expanded = cif(cell, "P 1", atoms) + aniso("U", turned)
    total = [
        np.sum(powder_intensity(table_of(text, 0.713, 1.2), 0.713)) for text in (group, expanded)
    ]
    one, other = (table_of(text, 0.713, 1.2) for text in (group, expanded))
    assert total[0] == pytest.approx(total[1], rel=1e-9)
    for hkl in ((1, 0, 2), (2, 1, 3), (1, 2, 3)):
        first, second = one.f_squared[row(one, hkl)], other.f_squared[row(other, hkl)]
        assert first == pytest.approx(second, rel=1e-9)


# --- symmetry ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "cell", "sizes"),
    [
        ("P m -3 m", (4,), {(1, 0, 0): 6, (1, 1, 1): 8, (1, 1, 0): 12, (2, 1, 0): 24,
                            (2, 1, 1): 24, (3, 2, 1): 48}),
        ("P m -3", (4,), {(2, 1, 0): 12, (1, 2, 0): 12, (3, 2, 1): 24}),
        ("P 6/m m m", (4, 4, 6, *HEXAGONAL), {(0, 0, 1): 2, (1, 0, 0): 6, (1, 1, 0): 6,
                                             (1, 0, 1): 12, (2, 1, 0): 12, (2, 1, 1): 24}),
        ("R -3 m :H", (4, 4, 12, *HEXAGONAL), {(0, 0, 3): 2, (1, 0, 1): 6, (1, 1, 0): 6,
                                              (1, 1, 3): 12}),
        ("P 4/m m m", (4, 4, 6), {(0, 0, 1): 2, (1, 0, 0): 4, (1, 0, 1): 8, (2, 1, 1): 16}),
        ("P m m m", (4, 5, 6), {(1, 0, 0): 2, (1, 1, 0): 4, (1, 1, 1): 8}),
        ("P 2/m", (4, 5, 6, 90, 100, 90), {(0, 1, 0): 2, (1, 0, 1): 2, (1, 1, 1): 4}),
        ("P -1", (4, 5, 6, 80, 95, 100), {(1, 1, 1): 2}),
    ],
)  # fmt: skip
def test_multiplicities(group, cell, sizes):
    table = table_of(cif(cell, group, ("Fe Fe 0 0 0 1 0",)))
    for hkl, size in sizes.items():
        found = row(table, hkl)
        assert table.multiplicity[found] == size == len(table.orbit(found))
        spacing = plane_spacing(table.orbit(found), reciprocal_metric(table.cell))
        np.testing.assert_allclose(spacing, table.d[found])


@pytest.mark.parametrize("text", [CALCITE, CERIA, TRICLINIC])
def test_orbits_hold_every_plane_once(text):
    """Planes within 1/d_min, counted one by one, are the sum of the multiplicities."""
    text = text.replace("R -3 c :H", "R 3 :H")  # no glide, so only the centring is extinct
    table = table_of(text, 0.7, 1.3)
    axes = [np.arange(-20, 21)] * 3
    hkl = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    hkl = hkl[np.any(hkl != 0, axis=1)]
    hkl = hkl[plane_spacing(hkl, reciprocal_metric(table.cell)) >= 1.3]
    centring = structure(Phase("test", text)).symmetry.centring
    seen = np.all(np.abs(np.exp(2j * np.pi * hkl @ centring.T) - 1) < 1e-9, axis=1)
    assert table.multiplicity.sum() == seen.sum()


@pytest.mark.parametrize(
    ("group", "cell", "extinct"),
    [
        ("I 2 3", (5,), lambda h, k, m: (h + k + m) % 2),
        ("F 2 3", (6,), lambda h, k, m: len({h % 2, k % 2, m % 2}) > 1),
        ("C 2 2 2", (5, 6, 7), lambda h, k, m: (h + k) % 2),
        ("R 3 :H", (6, 6, 9, *HEXAGONAL), lambda h, k, m: (-h + k + m) % 3),
        ("P 1 21 1", (5, 6, 7, 90, 99, 90), lambda h, k, m: h == m == 0 and k % 2),
        ("P 1 c 1", (5, 6, 7, 90, 99, 90), lambda h, k, m: k == 0 and m % 2),
        ("P 43", (5, 5, 9), lambda h, k, m: h == k == 0 and m % 4),
        ("P n m a", (5, 6, 7), lambda h, k, m: (h == 0 and (k + m) % 2) or (m == 0 and h % 2)),
    ],
)
def test_extinctions(group, cell, extinct):
    table = table_of(cif(cell, group, ("Fe Fe .113 .247 .319 1 .01",)), 0.7, 1.2)
    everything = table_of(cif(cell, "P 1", ("Fe Fe .113 .247 .319 1 .01",)), 0.7, 1.2)
    members = {tuple(h) for i in range(len(table)) for h in table.orbit(i).tolist()}
    assert not any(extinct(*hkl) for hkl in members)
    missing = [h for h in everything.hkl.tolist() if tuple(h) not in members]
    assert missing
    assert all(extinct(*hkl) for hkl in missing)


# --- positions --------------------------------------------------------------------------------


def test_bragg_positions():
    table = table_of(CERIA, 0.4959)
    expected = np.degrees(2 * np.arcsin(0.4959 * np.sqrt(3) / 2 / 5.4112))
    assert table.two_theta[0] == pytest.approx(expected)
    assert np.isnan(bragg_angle(np.array([0.1]), 0.4959)[0])


@pytest.mark.parametrize("text", [CALCITE, CERIA, TRICLINIC])
def test_a_strain_of_six_components_moves_every_line_as_d_predicts(text):
    """The cell is strained as vectors; its new plane spacings are compared with n ε n."""
    table = table_of(text, 0.7, 1.2)
    voigt = 1e-4 * np.array([3.0, -2.0, 1.5, 2.5, -1.0, 4.0])
    e11, e22, e33, g23, g13, g12 = voigt
    strain = np.array([[e11, g12 / 2, g13 / 2], [g12 / 2, e22, g23 / 2], [g13 / 2, g23 / 2, e33]])
    # Direct vectors in the frame of the normals: rows of the inverse transpose.
    rows = np.linalg.inv(np.linalg.cholesky(reciprocal_metric(table.cell))).T @ (np.eye(3) + strain)
    strained = cell_of_metric(rows @ rows.T)
    exact = table.d_in_cell(strained) / table.d - 1
    predicted = table.tensor_strain_response() @ voigt
    np.testing.assert_allclose(predicted, exact, atol=5e-7)
    assert np.abs(exact).max() > 2e-4
    np.testing.assert_array_equal(table.tensor_strain_response()[:, :3], table.strain_response())


def test_d_follows_the_metric():
    table = table_of(TRICLINIC)
    metric = reciprocal_metric(table.cell)
    gradient = spacing_gradient(table.hkl, metric)
    for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)):
        change = np.zeros((3, 3))
        change[i, j] = change[j, i] = 1e-7
        up, down = (plane_spacing(table.hkl, metric + s * change) for s in (1, -1))
        numeric = (up - down) / 2
        predicted = np.einsum("rij,ij->r", gradient, change)
        np.testing.assert_allclose(predicted, numeric, rtol=1e-5, atol=1e-14)


def test_cells_and_metrics_invert_each_other():
    cell = (7.1, 8.3, 9.7, 81.0, 97.0, 108.0)
    assert cell_of_metric(direct_metric(cell)) == pytest.approx(cell)
    basis = direct_basis(cell)
    np.testing.assert_allclose(basis @ basis.T, direct_metric(cell), atol=1e-12)
    assert table_of(CALCITE).volume == pytest.approx(4.99**2 * 17.06 * np.sqrt(3) / 2)


def test_axis_cosines_cover_the_orbit():
    table = table_of(CALCITE, 0.4959, 2.0)
    cosine = table.axis_cosines_squared((0, 0, 1))
    np.testing.assert_allclose(cosine[row(table, (0, 0, 6))], 1)
    prism = [index for index, hkl in enumerate(table.hkl) if hkl[2] == 0]
    np.testing.assert_allclose(cosine[prism], 0, atol=1e-12)


# --- Lorentz and polarization -----------------------------------------------------------------


def test_lorentz_factor_and_polarization_in_their_limits():
    """Per pixel: 1/θ² and P = 1 at small angles; at 2θ = 90°, 2 √2 and P = 1/2; at 60° P = 5/8."""
    table = table_of(CERIA, 0.7, 1.2)
    bare = table.multiplicity * table.f_squared
    short = 1e-5
    theta = short / (2 * table.d)
    np.testing.assert_allclose(powder_intensity(table, short) / bare, theta**-2, rtol=1e-6)
    np.testing.assert_allclose(
        powder_intensity(table, short, polarization=True), powder_intensity(table, short), rtol=1e-6
    )
    right = np.sqrt(2) * table.d[0]
    factor = powder_intensity(table, right)[0] / bare[0]
    assert factor == pytest.approx(2 * np.sqrt(2))
    assert powder_intensity(table, right, polarization=True)[0] / bare[0] == pytest.approx(
        factor / 2
    )
    # At 2θ = 60°: 1/(sin²30° cos30°) and P = 5/8.
    sixty = powder_intensity(table, table.d[0], polarization=True)[0] / bare[0]
    assert sixty == pytest.approx(8 / np.sqrt(3) * 5 / 8)
    assert np.isnan(powder_intensity(table, 2.01 * table.d[0])[0])


# --- tables -----------------------------------------------------------------------------------


def test_tables_are_cached_and_read_only():
    assert table_of(CERIA) is table_of(CERIA)
    with pytest.raises(ValueError, match="read-only"):
        table_of(CERIA).d[0] = 1


def test_no_line_in_range_and_cells_beyond_reason():
    with pytest.raises(InputError, match="no reflection"):
        table_of(CERIA, 0.4959, 8.0)
    with pytest.raises(InputError, match="positive"):
        table_of(CERIA, -1.0)
    with pytest.raises(InputError, match="check that the cell is in Å"):
        table_of(cif((9e4,), "P 1", ("Fe Fe 0 0 0 1 0",)))
    with pytest.raises(InputError, match="expected at most"):
        table_of(cif((9e4, 1, 1), "P 1", ("Fe Fe 0 0 0 1 0",)), 0.01, 0.005)
