"""Chemical formulas, and the formulas that common names of minerals and materials stand for."""

from __future__ import annotations

import re

from xrdpipe.crystal.species import element_number

LANTHANIDES = frozenset(
    ("La", "Ce", "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Y")
)
"""Elements that share a place in rare-earth minerals."""

RARE_EARTH = "Ln"
"""Stands for any of ``LANTHANIDES`` in a formula."""

FORMULA_OF_NAME = {
    "akermanite": "Ca2MgSi2O7", "albite": "NaAlSi3O8", "alumina": "Al2O3", "aluminium": "Al",
    "aluminum": "Al", "anatase": "TiO2", "andalusite": "Al2SiO5", "anhydrite": "CaSO4",
    "ankerite": "CaFeC2O6", "anorthite": "CaAl2Si2O8", "aragonite": "CaCO3",
    "arsenopyrite": "FeAsS", "azurite": "Cu3C2O8H2", "baddeleyite": "ZrO2", "barite": "BaSO4",
    "baryte": "BaSO4", "bassanite": "Ca2S2O9H2", "bastnaesite": "LnCO3F", "bastnasite": "LnCO3F",
    "beryl": "Be3Al2Si6O18", "boehmite": "AlOOH", "bornite": "Cu5FeS4", "bridgmanite": "MgSiO3",
    "brookite": "TiO2", "brucite": "MgO2H2", "bunsenite": "NiO", "cadmium": "Cd",
    "calcite": "CaCO3", "cassiterite": "SnO2", "celestine": "SrSO4", "ceria": "CeO2",
    "cerianite": "CeO2", "cerussite": "PbCO3", "chalcocite": "Cu2S", "chalcopyrite": "CuFeS2",
    "chromite": "FeCr2O4", "chromium": "Cr", "cinnabar": "HgS", "cobalt": "Co",
    "cobaltite": "CoAsS", "copper": "Cu", "cordierite": "Mg2Al4Si5O18", "corundum": "Al2O3",
    "covellite": "CuS", "cristobalite": "SiO2", "cryolite": "Na3AlF6", "cuprite": "Cu2O",
    "diamond": "C", "diaspore": "AlOOH", "diopside": "CaMgSi2O6", "dolomite": "CaMgC2O6",
    "enstatite": "MgSiO3", "epsomite": "MgSO11H14", "eskolaite": "Cr2O3", "fayalite": "Fe2SiO4",
    "fluorite": "CaF2", "forsterite": "Mg2SiO4", "galena": "PbS", "gibbsite": "AlO3H3",
    "goethite": "FeOOH", "gold": "Au", "graphite": "C", "grossular": "Ca3Al2Si3O12",
    "gypsum": "CaSO6H4", "halite": "NaCl", "hausmannite": "Mn3O4", "hematite": "Fe2O3",
    "haematite": "Fe2O3", "hercynite": "FeAl2O4", "hydroxylapatite": "Ca5P3O13H",
    "fluorapatite": "Ca5P3O12F", "ice": "OH2", "ilmenite": "FeTiO3", "iron": "Fe",
    "jadeite": "NaAlSi2O6", "kaolinite": "Al2Si2O9H4", "kyanite": "Al2SiO5",
    "lanthanite": "Ln2C3O17H16", "lead": "Pb", "lepidocrocite": "FeOOH", "lime": "CaO",
    "maghemite": "Fe2O3", "magnesite": "MgCO3", "magnesium": "Mg", "magnetite": "Fe3O4",
    "malachite": "Cu2CO5H2", "marcasite": "FeS2", "millerite": "NiS", "molybdenite": "MoS2",
    "molybdenum": "Mo", "monazite": "LnPO4", "monticellite": "CaMgSiO4", "mullite": "Al6Si2O13",
    "nickel": "Ni", "niobium": "Nb", "orpiment": "As2S3", "orthoclase": "KAlSi3O8",
    "microcline": "KAlSi3O8", "palladium": "Pd", "parisite": "CaLn2C3O9F2", "periclase": "MgO",
    "perovskite": "CaTiO3", "platinum": "Pt", "portlandite": "CaO2H2", "pyrite": "FeS2",
    "pyrolusite": "MnO2", "pyrope": "Mg3Al2Si3O12", "quartz": "SiO2", "realgar": "AsS",
    "rhenium": "Re", "rhodochrosite": "MnCO3", "rutile": "TiO2", "scheelite": "CaWO4",
    "siderite": "FeCO3", "silicon": "Si", "sillimanite": "Al2SiO5", "silver": "Ag",
    "smithsonite": "ZnCO3", "sodalite": "Na4Al3Si3O12Cl", "sphalerite": "ZnS",
    "spinel": "MgAl2O4", "stishovite": "SiO2", "coesite": "SiO2", "strontianite": "SrCO3",
    "sylvite": "KCl", "synchysite": "CaLnC2O6F", "tantalum": "Ta", "thorianite": "ThO2",
    "tin": "Sn", "titanite": "CaTiSiO5", "titanium": "Ti", "tridymite": "SiO2",
    "tungsten": "W", "uraninite": "UO2", "vanadium": "V", "vaterite": "CaCO3",
    "wadsleyite": "Mg2SiO4", "witherite": "BaCO3", "wollastonite": "CaSiO3",
    "wulfenite": "PbMoO4", "wurtzite": "ZnS", "wuestite": "FeO", "wustite": "FeO",
    "xenotime": "YPO4", "zinc": "Zn", "zincite": "ZnO", "zircon": "ZrSiO4", "zirconium": "Zr",
}  # fmt: skip
"""End-member formulas (IMA list of minerals and textbooks of materials)."""

_CODE = re.compile("ICSD|COD|AMCSD|PDF|CIF|SRM|BCC|FCC|HCP|.*[0-9]{4}")


def parse_formula(text: str) -> dict[str, float] | None:
    """Atoms of each element in a formula, or None where it cannot be read.

    Understands ``Ca C O3``, ``C1 Ca1 O3``, ``Ca (C O3)``, ``(Mg0.9 Fe0.1)2 Si O4``, ``Ca2+``,
    ``CaSO4 · 2(H2O)``; deuterium counts as hydrogen. ``Ln`` stands for a rare earth.
    """
    plain = re.sub(r"\d*[+\-]+(?=[\s)]|$)|'|\"", "", text)
    parts = [part for part in re.split(r"[·•*]|,(?=\s|\d)", plain) if part.strip()]
    total: dict[str, float] = {}
    for part in parts:
        leading = re.match(r"\s*(\d+(?:\.\d+)?)(?=\s*[(A-Z])", part)
        factor = float(leading.group(1)) if leading else 1.0
        found = _group(part[leading.end() :] if leading else part)
        if found is None:
            return None
        for element, count in found.items():
            total[element] = total.get(element, 0.0) + factor * count
    return total if sum(total.values()) > 0 else None


def _group(text: str) -> dict[str, float] | None:
    """One part of a formula, with nested brackets."""
    stack: list[dict[str, float]] = [{}]
    token = re.compile(r"\s+|([A-Z][a-z]?)(\d*\.?\d+)?|([(\[{])|[)\]}](\d*\.?\d+)?|,")
    at = 0
    while at < len(text):
        found = token.match(text, at)
        if found is None:
            return None
        at = found.end()
        element, count, opened, times = found.groups()
        if element:
            element = "H" if element == "D" else element
            if element != RARE_EARTH and not element_number(element):
                return None
            stack[-1][element] = stack[-1].get(element, 0.0) + float(count or 1)
        elif opened:
            stack.append({})
        elif found.group().startswith((")", "]", "}")):
            if len(stack) == 1:
                return None
            for inner, number in stack.pop().items():
                stack[-1][inner] = stack[-1].get(inner, 0.0) + number * float(times or 1)
    return stack[0] if len(stack) == 1 else None


def formula_text(atoms: dict[str, float]) -> str:
    """Formula scaled to its least common element, such as ``C Ca O3`` or ``Al2 O3``."""
    least = min(count for count in atoms.values() if count > 0)
    for factor in range(1, 13):
        scaled = {element: factor * count / least for element, count in atoms.items()}
        if all(abs(count - round(count)) < 0.02 for count in scaled.values()):
            break
    else:
        scaled = {element: count / least for element, count in atoms.items()}
    shown = [
        element if abs(count - 1) < 0.02 else f"{element}{count:.3g}"
        for element, count in sorted(scaled.items())
        if count > 0
    ]
    return " ".join(shown)


def formula_of_words(text: str) -> tuple[str, dict[str, float]] | None:
    """The word of a name that stands for a formula, and that formula; None where none does.

    ``midas_calcite`` holds calcite, ``bastnaesite-(La)`` the lanthanum end member, and
    ``CeO2_cal`` spells its formula.
    """
    words = re.findall(r"[A-Za-z]+", text.replace("æ", "ae").replace("ä", "ae"))
    compound = any(word.lower().endswith(("ide", "ate")) for word in words)
    for word in words:
        formula = FORMULA_OF_NAME.get(word.lower())
        # The silicon of "silicon oxide" is no silicon.
        if formula and not (compound and element_number(formula)):
            # Rare-earth minerals carry their dominant element in brackets (Levinson 1966).
            dominant = re.search(rf"{word}-?\(([A-Z][a-z]?)\)", text)
            if dominant and dominant.group(1) in LANTHANIDES:
                formula = formula.replace(RARE_EARTH, dominant.group(1))
            return word, parse_formula(formula) or {}
    for word in re.findall(r"[A-Za-z0-9.]+", text):
        spelt = parse_formula(word)
        # A digit after an element makes a formula likely; a database code such as ICSD123,
        # or the lattice of a metal, is none.
        if spelt and len(spelt) > 1 and re.search(r"[A-Za-z]\d", word) and not _CODE.match(word):
            return word, spelt
    return None
