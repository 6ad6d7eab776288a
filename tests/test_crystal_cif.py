"""CIF files as their many writers make them, and the sentence that a broken one gets."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest

from crystal_texts import CALCITE, CERIA, HEXAGONAL, TRICLINIC, cif
from xrdpipe.crystal import load_phase, oddities, reflections, structure
from xrdpipe.crystal.symmetry import symmetry_of_triplets
from xrdpipe.errors import InputError, InputMissingError
from xrdpipe.types import Phase

CIFS = Path(__file__).parents[2] / "shared" / "data" / "phases_cif"


def read(text: str, name: str = "test"):
    return structure(Phase(name, text))


def elements(text: str) -> list[str]:
    return [site.element for site in read(text).sites]


def lines(text: str) -> np.ndarray:
    """Spacings times intensity factor: equal only for equal structures."""
    table = reflections(Phase("test", text), 0.71, 1.1)
    order = np.lexsort((np.round(table.f_squared, 3), np.round(table.d, 6)))
    return np.stack([table.d, table.multiplicity, table.f_squared], axis=1)[order]


def same(one: str, other: str) -> bool:
    first, second = lines(one), lines(other)
    return first.shape == second.shape and np.allclose(first, second, rtol=1e-4, atol=1e-4)


def only_label(text: str) -> str:
    """The same file without type symbols, each atom under its element's label."""
    head, rows = text.split("_atom_site_U_iso_or_equiv\n")
    kept = [" ".join(line.split()[1:]) for line in rows.splitlines()]
    return (
        head.replace("_atom_site_type_symbol\n", "")
        + "_atom_site_U_iso_or_equiv\n"
        + "\n".join(kept)
    )


# --- species ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("symbol", "element"),
    [("Ca", "Ca"), ("ca", "Ca"), ("CA2+", "Ca"), ("Ca+2", "Ca"), ("Ca2+", "Ca"), ("O2-", "O"),
     ("O-2", "O"), ("o", "O"), ("Fe3+", "Fe"), ("Fe0+", "Fe"), ("Cval", "C"), ("Siva", "Si"),
     ("D", "D"), ("H1+", "H"), ("La3+", "La"), ("Ca1", "Ca"), ("H2O", "O"), ("Wat", "O"),
     ("OH", "O"), ("OH-", "O"), ("'Ca2+'", "Ca"), ("P5+", "P"), ("W", "W"), ("V", "V"), ("Y", "Y")],
)  # fmt: skip
def test_type_symbols(symbol, element):
    text = cif((5,), "P 1", (f"x1 {symbol} 0.1 0.2 0.3 1 0.01",))
    assert elements(text) == [element]


@pytest.mark.parametrize(
    ("label", "element"),
    [("Ca1", "Ca"), ("CaM1", "Ca"), ("O1", "O"), ("OW1", "O"), ("Wat1", "O"), ("OH", "O"),
     ("H2O1", "O"), ("D1", "D"), ("SiT1", "Si"), ("O_co", "O"), ("Fe(1)", "Fe"), ("Al", "Al"),
     ("si2", "Si"), ("La", "La"), ("HO1", "H"), ("CO1", "C"), ("W1", "W"), ("C", "C")],
)  # fmt: skip
def test_labels_without_type_symbols(label, element):
    """The formula tells the carbon CO1 from cobalt and the hydrogen HO1 from holmium."""
    atoms = (f"{label} {label} 0.1 0.2 0.3 1 0.01",)
    more = "_chemical_formula_sum 'Ca Fe La Al Si C O3 H2 W'"
    assert elements(only_label(cif((9,), "P 1", atoms, more))) == [element]


def test_a_doubtful_label_is_told():
    text = only_label(cif((9,), "P 1", ("CO1 CO1 0.1 0.2 0.3 1 0.01",)))
    assert elements(text) == ["Co"]
    assert any("read as Co, not C" in sentence for sentence in oddities(Phase("x", text)))


def test_deuterium_scatters_as_hydrogen_and_weighs_two():
    hydrogen, deuterium = (
        cif((5,), "P 1", (f"X {e} 0 0 0 1 .01", "O O .3 .3 .3 1 .01")) for e in "HD"
    )
    assert same(hydrogen, deuterium)
    assert read(deuterium).density - read(hydrogen).density == pytest.approx(
        1.66053906892 * (2.014 - 1.008) / 125, rel=1e-3
    )


def test_dummy_atoms_and_vacancies_are_left_out_and_told():
    atoms = ("Fe Fe 0 0 0 1 .01", "V Va .5 .5 .5 1 .01")
    phase = Phase("x", cif((2.9,), "P m -3 m", atoms))
    assert [site.element for site in structure(phase).sites] == ["Fe"]
    assert any("vacancy or dummy" in sentence for sentence in oddities(phase))
    flagged = cif((2.9,), "P m -3 m", ("Fe Fe 0 0 0 1 .01", "Q Q ? ? ? 1 .01"))
    flagged = flagged.replace("_atom_site_occupancy", "_atom_site_calc_flag\n_atom_site_occupancy")
    flagged = flagged.replace("Fe Fe 0 0 0 1", "Fe Fe 0 0 0 d 1").replace("? 1", "? dum 1")
    assert elements(flagged) == ["Fe"]


# --- symmetry ---------------------------------------------------------------------------------


def group_only(text: str, group: str) -> str:
    return text.replace("_space_group_name_H-M_alt 'R -3 c :H'", group)


@pytest.mark.parametrize(
    "group",
    ["_symmetry_space_group_name_H-M r-3c", "_symmetry_space_group_name_H-M 'R-3c'",
     "_symmetry_space_group_name_H-M 'R -3 c H'", "_symmetry_space_group_name_H-M 'R -3 c HR'",
     "_space_group_IT_number 167", "_symmetry_Int_Tables_number 167",
     "_space_group_name_Hall '-R 3 2\"c'", "_space_group.name_H-M_alt 'R -3 c'",
     "_space_group_name_H-M_alt ?\n_space_group_IT_number 167",
     "_space_group_name_H-M_alt 'R −3 c'", "_SYMMETRY_SPACE_GROUP_NAME_H-M 'R -3 c'",
     "loop_\n_symmetry_equiv_pos_as_xyz\n'-y,x-y,z'\n'y,x,1/2-z'\n-x,-y,-z\n'X+2/3, Y+1/3, Z+1/3'",
     "loop_\n_symmetry_equiv_pos_site_id\n_symmetry_equiv_pos_as_xyz\n1 -y,x-y,z\n2 y,x,.5-z\n"
     "3 -x,-y,-z\n4 x+0.6667,y+0.3333,z+0.3333"],
)  # fmt: skip
def test_the_same_calcite_from_every_way_to_give_its_symmetry(group):
    assert same(group_only(CALCITE, group), CALCITE)


def test_rhombohedral_axes_follow_from_the_cell():
    """Calcite in its primitive cell: a² = (3 a_h² + c_h²)/9 and O at (x, 1/2 − x, 1/4)."""
    edge = np.sqrt(3 * 4.99**2 + 17.06**2) / 3
    angle = np.degrees(2 * np.arcsin(1.5 / np.sqrt(3 + (17.06 / 4.99) ** 2)))
    atoms = ("Ca Ca 0 0 0 1 .010", "C C .25 .25 .25 1 .010", "O O .507 -.007 .25 1 .014")
    tables = [
        reflections(Phase("x", cif((edge,) * 3 + (angle,) * 3, group, atoms)), 0.71, 1.1)
        for group in ("R -3 c", "R -3 c :R", "_space_group_IT_number 167")
    ]
    hexagonal = reflections(Phase("test", CALCITE), 0.71, 1.1)
    for table in tables:
        np.testing.assert_allclose(table.d, hexagonal.d, rtol=1e-6)
        np.testing.assert_allclose(9 * table.f_squared, hexagonal.f_squared, rtol=1e-3, atol=0.1)


@pytest.mark.parametrize(
    ("group", "place", "choice"),
    [("F d -3 m", "0 0 0", ":1"), ("F d -3 m", ".125 .125 .125", ":2"), ("Fd3m", "0 0 0", ":1"),
     ("_space_group_IT_number 227", ".125 .125 .125", ":2")],
)  # fmt: skip
def test_an_open_origin_is_settled_by_the_distances_and_told(group, place, choice):
    phase = Phase("silicon", cif((5.431,), group, (f"Si Si {place} 1 .006",)))
    right = cif((5.431,), "F d -3 m :1", ("Si Si 0 0 0 1 .006",))
    assert same(phase.cif, right)
    told = [sentence for sentence in oddities(phase) if "origin open" in sentence]
    assert f"{choice}' is used" in told[0]
    assert oddities(Phase("silicon", right)) == ()


@pytest.mark.parametrize(
    ("symbol", "place"),
    [("F d -3 m S", "0 0 0"), ("F d -3 m Z", ".125 .125 .125"), ("F d -3 m O1", "0 0 0"),
     ("F d -3 m (origin choice 2)", ".125 .125 .125")],
)  # fmt: skip
def test_a_marked_origin_is_taken(symbol, place):
    phase = Phase("silicon", cif((5.431,), symbol, (f"Si Si {place} 1 .006",)))
    assert oddities(phase) == ()


def test_a_hall_symbol_settles_the_origin():
    more = "_space_group_name_Hall 'F 4d 2 3 -1d'"
    phase = Phase("silicon", cif((5.431,), "F d -3 m", ("Si Si 0 0 0 1 .006",), more))
    assert oddities(phase) == ()
    assert len(reflections(phase, 0.71, 1.0)) == 8


def test_a_general_list_of_operations_is_closed_and_bounded():
    symmetry, listed = symmetry_of_triplets(["y,z,x", "-y,x,z", "-x,-y,-z", "x+1/2,y+1/2,z"])
    assert (len(symmetry), listed) == (192, 4)
    for broken in (["x+y,y,z"], ["x,x,x"], ["x,y"], ["x,y,z+1/7"], ["2x,y,z"]):
        with pytest.raises(ValueError, match="symmetry operation"):
            symmetry_of_triplets(broken)


def test_conflicting_symmetry_is_told():
    listed = "loop_\n_space_group_symop_operation_xyz\nx,y,z\n"
    phase = Phase("x", CALCITE.replace("loop_", listed + "loop_", 1))
    assert any("are not those of space group" in sentence for sentence in oddities(phase))
    number = CERIA.replace("_space_group_name", "_space_group_IT_number 216\n_space_group_name")
    assert any("is number 225, not 216" in text for text in oddities(Phase("x", number)))


# --- values -----------------------------------------------------------------------------------


def test_uncertainties_unknowns_and_fractions():
    text = CALCITE.replace("0.257 0 0.25 1 0.014", "0.2570(3) 0.0 1/4 ? 0.0140(12)")
    text = text.replace("_cell_length_a 4.99", "_cell_length_a 4.99(2)")
    assert same(text, CALCITE)
    assert oddities(Phase("calcite", text)) == ()


def test_a_missing_displacement_has_a_stated_default():
    text = CALCITE.replace("1 0.014", "1 ?")
    assert [site.u_iso for site in read(text).sites] == [0.01, 0.01, 0.01]
    told = oddities(Phase("calcite", text))
    assert told == ("calcite: no displacement is given for O; U = 0.01 Å² is used.",)
    assert [s.u_iso for s in read(CALCITE.replace("1 0.014", "1 0")).sites][2] == 0


def test_b_is_eight_pi_squared_u():
    text = CALCITE.replace("_atom_site_U_iso", "_atom_site_B_iso")
    assert read(text).sites[0].u_iso == pytest.approx(0.010 / (8 * np.pi**2))


def test_anisotropic_rows_of_nothing_leave_the_isotropic_value():
    aniso = "\nloop_\n_atom_site_aniso_label\n" + "\n".join(
        f"_atom_site_aniso_U_{ij}" for ij in ("11", "22", "33", "12", "13", "23")
    )
    assert same(CALCITE + aniso + "\nCa ? ? ? ? ? ?\nC 0 0 0 0 0 0\n", CALCITE)
    whole = CALCITE + aniso + "\nO 0.02 0.03 0.03 0.015 0 0\n"
    assert not same(whole, CALCITE)
    wrong = Phase("calcite", CALCITE + aniso + "\nO 0.02 -0.03 0.03 0.015 0 0\n")
    assert any("not positive definite" in sentence for sentence in oddities(wrong))


def test_atoms_near_a_special_position_are_on_it_and_others_are_not():
    """On both sides of the mirror x = 0, 0.08 Å and 0.4 Å apart in a cell of 20 Å."""
    near, far = (
        read(cif((20.0,), "P m m m", (f"Fe Fe {x} .2 .3 1 .01",))).sites[0] for x in (0.002, 0.01)
    )
    assert (near.multiplicity, near.position[0]) == (4, pytest.approx(0, abs=1e-12))
    assert (far.multiplicity, far.position[0]) == (8, 0.01)


def test_line_ends_byte_order_marks_and_comments(tmp_path):
    path = tmp_path / "calcite.cif"
    noted = "# a comment\n" + CALCITE.replace("loop_", "loop_ # atoms", 1)
    for raw in (
        noted.encode(),
        noted.replace("\n", "\r\n").encode(),
        noted.replace("\n", "\r").encode(),
        b"\xef\xbb\xbf" + noted.encode(),
        noted.encode("utf-16"),
        noted.replace("a comment", "Grünewald").encode("latin-1"),
    ):
        path.write_bytes(raw)
        phase = load_phase(path)
        assert (phase.name, phase.source) == ("calcite", str(path))
        assert same(phase.cif, CALCITE)


def test_a_block_about_the_publication_is_passed_over():
    text = "data_global\n_publ_section_title 'calcite'\n_journal_year 1961\n" + CALCITE
    assert same(text, CALCITE)


def test_two_structures_are_refused_with_their_names():
    with pytest.raises(InputError, match=r"2 data blocks .*'test', 'second'"):
        read(CALCITE + CERIA.replace("data_test", "data_second"))


def test_a_cell_slightly_off_its_symmetry_is_made_symmetric():
    phase = Phase("x", CERIA.replace("_cell_length_b 5.4112", "_cell_length_b 5.4200"))
    cell = structure(phase).cell
    assert cell[0] == pytest.approx(cell[1]) == pytest.approx(cell[2])
    assert any("made symmetric" in sentence for sentence in oddities(phase))


# --- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0 data blocks with atom sites"),
        ("not a cif at all", "not a readable CIF"),
        ("data_x\n_cell_length_a 4\n", "0 data blocks with atom sites"),
        (CALCITE.split("loop_")[0], "0 data blocks with atom sites"),
        (CALCITE[: len(CALCITE) // 2], "not a readable CIF"),
        (CALCITE.rsplit(" ", 3)[0], "not a readable CIF"),
        (CALCITE.replace("_cell_length_c 17.06", ""), "no usable cell"),
        (CALCITE.replace("_cell_length_c 17.06", "_cell_length_c ?"), "no usable cell"),
        (CALCITE.replace("_cell_length_c 17.06", "_cell_length_c -17"), "no usable cell"),
        (CALCITE.replace("_cell_length_c 17.06", "_cell_length_c 1e400"), "no usable cell"),
        (CALCITE.replace("_cell_length_c 17.06", "_cell_length_c 1e9"), "no crystal's"),
        (CALCITE.replace("4.99", "0.499"), "no crystal's"),
        (CALCITE.replace("gamma 120", "gamma 180"), "no usable cell"),
        (TRICLINIC.replace("alpha 81", "alpha 10"), "no usable cell"),
        (CALCITE.replace("R -3 c :H", "x-9z"), "space group 'x-9z' is not known"),
        (CALCITE.replace("R -3 c :H", "?"), "space group '' is not known"),
        (CALCITE.replace("R -3 c :H", "f m -3 m"), "does not have the symmetry"),
        (CALCITE.replace("R -3 c :H", "R -3 c :R"), "does not have the symmetry"),
        (CALCITE.replace("Ca Ca", "Ca Qq"), "unknown species 'Qq'"),
        (CALCITE.replace("Ca Ca", "Ca Fm"), "no form factor"),
        (CALCITE.replace("Ca Ca 0", "Ca Ca ?"), "no numeric position"),
        (CALCITE.replace("Ca Ca 0", "Ca Ca 1e30"), "no numeric position"),
        (CALCITE.replace("0 0 0 1", "0 0 0 100"), "occupancy '100'"),
        (CALCITE.replace("0 0 0 1", "0 0 0 -1"), "occupancy '-1'"),
        (CALCITE.replace("_atom_site_fract_y", "_atom_site_Cartn_y"), "no numeric position"),
        (CALCITE.replace("Ca Ca", "Ca Va").replace("C C", "C Va").replace("O O", "O Va"),
         "no atom that scatters"),
        (cif((3,), "P 1", ("Fe Fe 0 0 0 0 .01",)), "no atom that scatters"),
        (CALCITE + "loop_\n_space_group_symop_operation_xyz\nx+y,y,z\n", "no space group"),
        (CALCITE + "loop_\n_space_group_symop_operation_xyz\nfoo\n", "'foo' cannot be read"),
        (CALCITE.replace("_atom_site_occupancy", "_atom_site_x") + "_atom_site_occupancy 1\n",
         "1 values of _atom_site_occupancy for 3"),
        (CALCITE + "_cell_length_a 5\n", "duplicate tag"),
    ],
)  # fmt: skip
def test_broken_cif_files_are_refused_in_one_sentence(tmp_path, text, message):
    path = tmp_path / "broken.cif"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_phase(path)
    assert "broken.cif" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_huge_files(tmp_path):
    with pytest.raises(InputMissingError, match="does not exist"):
        load_phase(tmp_path / "none.cif")
    huge = tmp_path / "huge.cif"
    with huge.open("wb") as file:
        file.truncate(10**9)
    with pytest.raises(InputError, match="1000000000 bytes"):
        load_phase(huge)


def test_spoilt_files_are_read_or_refused_never_worse(tmp_path):
    """Bytes flipped, lines dropped and shuffled, numbers absurd: a sentence or a table, soon."""
    random_numbers = random.Random(4)
    path = tmp_path / "spoilt.cif"
    absurd = ("1e300", "-1e300", "nan", "inf", "0", "?", ".", "1e-300", "''", "\x00", "9" * 400)
    started, sentences = time.process_time(), []
    for number in range(400):
        text = random_numbers.choice([CALCITE, CERIA, TRICLINIC])
        kind = number % 4
        if kind == 0:
            raw = bytearray(text.encode())
            for _ in range(random_numbers.randrange(1, 30)):
                raw[random_numbers.randrange(len(raw))] = random_numbers.randrange(256)
        elif kind == 1:
            rows = text.splitlines()
            random_numbers.shuffle(rows)
            raw = bytearray("\n".join(rows[random_numbers.randrange(5) :]).encode())
        elif kind == 2:
            words = text.split(" ")
            words[random_numbers.randrange(len(words))] = random_numbers.choice(absurd)
            raw = bytearray(" ".join(words).encode())
        else:
            raw = bytearray(text.encode()[: random_numbers.randrange(len(text))])
        path.write_bytes(raw)
        try:
            phase = load_phase(path)
            oddities(phase)
            table = reflections(phase, 0.71, 1.5)
            assert np.all(np.isfinite(table.f_squared))
        except InputError as error:
            sentences.append(str(error).replace(str(path), ""))
    assert 100 < len(sentences) < 400
    assert all(len(sentence) < 500 and sentence.isprintable() for sentence in sentences)
    assert time.process_time() - started < 20
    path.write_bytes(random_numbers.randbytes(10_000))
    with pytest.raises(InputError):
        load_phase(path)


def test_cif_files_of_other_programs():
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
    quartz = structure(load_phase(CIFS / "xrdnet4cem_Quartz.cif"))
    assert all(site.u_star is not None for site in quartz.sites)
    assert quartz.content == pytest.approx({"Si": 3, "O": 6})


def test_hexagonal_axes_are_needed_for_a_hexagonal_cell():
    text = cif((4.99, 4.99, 17.06, *HEXAGONAL), "R -3 c", ("Ca Ca 0 0 0 1 0.01",))
    assert len(read(text).symmetry) == 36
