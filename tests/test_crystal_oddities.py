"""Files whose name, formula, numbers and atoms do not belong together are noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from crystal_texts import CALCITE, CERIA, HEXAGONAL, cif
from xrdpipe.crystal import load_phase, oddities, structure
from xrdpipe.crystal.formulas import FORMULA_OF_NAME, formula_of_words, formula_text, parse_formula
from xrdpipe.phases import distractor_phases, shipped_phases
from xrdpipe.types import Phase

CIFS = Path(__file__).parents[2] / "shared" / "data" / "phases_cif"


def told(name: str, text: str) -> str:
    return " ".join(oddities(Phase(name, text)))


def claim(text: str, *lines: str) -> str:
    return text.replace("loop_", "\n".join(lines) + "\nloop_", 1)


def test_nothing_is_said_of_a_file_that_fits():
    whole = claim(
        CALCITE, "_chemical_name_mineral Calcite", "_chemical_formula_sum 'C Ca O3'",
        "_cell_formula_units_Z 6", "_cell_volume 367.88(5)", "_exptl_crystal_density_diffrn 2.71",
    )  # fmt: skip
    assert oddities(Phase("my_calcite-300K", whole)) == ()


@pytest.mark.parametrize("path", [*shipped_phases().values(), *distractor_phases().values()],
                         ids=lambda path: path.stem)  # fmt: skip
def test_nothing_is_said_of_the_shipped_phases(path):
    assert oddities(load_phase(path)) == ()


def test_a_calcite_of_aluminium_is_noticed():
    atoms = CALCITE.replace("Ca Ca", "Al Al")
    by_file = told("calcite", atoms)
    assert "'calcite' stands for C Ca O3, but the atom sites hold Al C O3 (no Ca)" in by_file
    by_mineral = told("phase 3", claim(atoms, "_chemical_name_mineral Calcite"))
    assert "'Calcite' stands for" in by_mineral
    by_formula = told("phase 3", claim(atoms, "_chemical_formula_sum 'Ca C O3'"))
    assert "the formula is 'Ca C O3', but the atom sites hold Al C O3 (no Ca)" in by_formula
    by_label = told("phase 3", CALCITE.replace("Ca Ca", "Ca1 Al"))
    assert "site 'Ca1' is of type 'Al'" in by_label
    corundum = cif((4.759, 4.759, 12.992, *HEXAGONAL), "R -3 c :H",
                   ("Al Al 0 0 .352 1 .003", "O O .306 0 .25 1 .003"))  # fmt: skip
    assert "'calcite' stands for C Ca O3, but the atom sites hold Al2 O3" in told(
        "calcite", corundum
    )
    assert told("corundum", corundum) == ""
    metal = cif((4.05,), "F m -3 m", ("Al Al 0 0 0 1 0.01",))
    assert "(no O)" in told("calcite", metal)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("_chemical_formula_sum 'Ca C O2'", "the formula is 'Ca C O2'"),
        ("_chemical_formula_sum 'Ca C O3'\n_cell_formula_units_Z 2", "hold 2 units of 'Ca C O3', "
         "but the atom sites make 6"),
        ("_cell_volume 122.6", "the cell volume is said to be 122.6"),
        ("_exptl_crystal_density_diffrn 3.94", "the density is said to be 3.94"),
        ("_chemical_name_mineral Dolomite", "'Dolomite' stands for"),
        ("_chemical_name_common 'halite, rock salt'", "'halite' stands for"),
        ("_chemical_formula_sum '!!'", "cannot be read"),
        ("_chemical_formula_sum 'Ca C O3 H2'", "hydrogen of 'Ca C O3 H2' has no atom site"),
    ],
)  # fmt: skip
def test_claims_that_the_atoms_do_not_bear_out(line, message):
    assert message in told("sample", claim(CALCITE, line))


def test_contradicting_names_are_noticed():
    text = claim(CALCITE, "_chemical_name_mineral Calcite")
    assert "it is called 'quartz' and 'calcite'" in told("quartz", text)


def test_rare_earth_minerals_by_their_dominant_element():
    path = shipped_phases()["bastnaesite-(La)"]
    text = path.read_text()
    assert oddities(Phase("bastnaesite-(La)", text)) == ()
    assert (
        oddities(Phase("bastnaesite-(La)", claim(text, "_chemical_name_mineral Bastnasite"))) == ()
    )
    assert oddities(Phase("bastnaesite", text.replace("La La", "Ce Ce"))) == ()
    assert "no La" in told("bastnaesite-(La)", text.replace("La La", "Ce Ce"))
    assert "no rare earth" in told("bastnaesite", text.replace("La La", "Ca Ca"))


def test_a_spelt_formula_in_the_name_and_compounds_of_elements():
    assert oddities(Phase("CeO2_cal", CERIA)) == ()
    assert "'Al2O3' stands for" in told("Al2O3", CERIA)
    oxide = claim(CERIA, "_chemical_name_systematic 'Cerium Oxide'")
    assert oddities(Phase("x", oxide)) == ()
    quartz = distractor_phases()["quartz"].read_text()
    assert oddities(Phase("silicon oxide", quartz)) == ()
    assert "'silicon' stands for Si" in told("silicon", quartz)


def test_atoms_that_collide():
    overlapping = CALCITE.replace("0.257 0 0.25", "0.15 0 0.25")
    assert "closer than any bond" in told("calcite", overlapping)
    nanometres = cif((5.4112 / 2,), "F m -3 m", ("Ce Ce 0 0 0 1 .005", "O O .25 .25 .25 1 .01"))
    assert "closer than any bond" in told("ceria", nanometres)
    assert "per atom is not that of a crystal" in told("ceria", nanometres)


def test_disorder_is_no_collision_but_a_place_filled_twice_is_told():
    atoms = ("Fe1 Fe 0 0 0 .5 .01", "Fe2 Fe .1 0 0 .08 .01")
    assert "closer" not in told("x", cif((2.9,), "P m -3 m", atoms))
    mixed = ("Fe Fe 0 0 0 .7 .01", "Co Co 0 0 0 .3 .01")
    assert oddities(Phase("x", cif((2.9,), "I m -3 m", mixed))) == ()
    double = ("Fe Fe 0 0 0 1 .01", "Co Co 0 0 0 1 .01")
    assert "the place of Fe, Co is filled 2 times" in told("x", cif((2.9,), "I m -3 m", double))
    percent = ("Fe Fe 0 0 0 1.2 .01",)
    assert "more than one" in told("x", cif((2.9,), "I m -3 m", percent))


def test_displacements_that_are_none_or_in_another_unit():
    assert "unusually large (Ca 0.79" in told("x", CALCITE.replace("0 0 0 1 0.010", "0 0 0 1 0.79"))
    still = CALCITE.replace("0.010", "0").replace("0.014", "0")
    assert "every displacement is zero" in told("x", still)
    negative = Phase("x", CALCITE.replace("0.014", "-0.014"))
    assert "taken as zero" in " ".join(oddities(negative))
    assert structure(negative).sites[2].u_iso == 0


@pytest.mark.parametrize(
    ("text", "atoms"),
    [
        ("Ca C O3", {"Ca": 1, "C": 1, "O": 3}),
        ("C1 Ca1 O3", {"Ca": 1, "C": 1, "O": 3}),
        ("Ca (C O3)", {"Ca": 1, "C": 1, "O": 3}),
        ("'Ca ( O H )2'", {"Ca": 1, "O": 2, "H": 2}),
        ("CaSO4·2(H2O)", {"Ca": 1, "S": 1, "O": 6, "H": 4}),
        ("Ca S O4, 2H2O", {"Ca": 1, "S": 1, "O": 6, "H": 4}),
        ("(Mg0.9Fe0.1)2SiO4", {"Mg": 1.8, "Fe": 0.2, "Si": 1, "O": 4}),
        ("[Ca2(P O4)2]3", {"Ca": 6, "P": 6, "O": 24}),
        ("Na1+ Cl1-", {"Na": 1, "Cl": 1}),
        ("D2 O", {"H": 2, "O": 1}),
        ("?", None),
        ("Xx2", None),
        ("Ca(O", None),
        ("Ca O)", None),
        ("", None),
        ("C0", None),
    ],
)
def test_formulas(text, atoms):
    found = parse_formula(text)
    assert found == (atoms if atoms is None else pytest.approx(atoms))


def test_names_and_formulas_of_the_table():
    assert all(parse_formula(formula) for formula in FORMULA_OF_NAME.values())
    assert formula_text({"Al": 12.0, "O": 18.0}) == "Al2 O3"
    assert formula_text({"Mg": 0.9, "Fe": 0.1, "O": 1.0}) == "Fe Mg9 O10"
    for no_formula in ("frame_00017", "my CIF file", "ICSD12345", "COD1000032", "BCC1_2GPa"):
        assert formula_of_words(no_formula) is None
    assert formula_of_words("midas_calcite_v2")[0] == "calcite"


def test_what_is_said_of_files_of_other_programs():
    """Two say what they hold is unusual: hot calcite and vaterite spread over several places."""
    if not CIFS.is_dir():
        pytest.skip("the folder of CIF files of other programs is not here")
    said = {path.stem: oddities(load_phase(path)) for path in sorted(CIFS.glob("*.cif"))}
    assert {name for name, sentences in said.items() if sentences} == {
        "amcsd_Calcite",
        "xrdnet4cem_Vaterite",
    }
    assert all("unusually large" in " ".join(sentences) for sentences in said.values() if sentences)
