"""Which element an atom site is: CIF writers decorate the symbol or give a label alone."""

from __future__ import annotations

import re
from dataclasses import dataclass

import gemmi

HYDROGEN = frozenset({"H", "D"})

_OXYGEN_GROUPS = {"OH", "OH2", "H2O", "HOH", "WAT", "WATER", "OW", "D2O"}
"""Names that stand for a hydroxyl or a water molecule, whose hydrogen is not located."""

_EMPTY = {"VA", "VAC", "VC", "VACANCY", "DU", "DUM", "DUMMY"}


@dataclass(frozen=True)
class Species:
    """What a site holds.

    Parameters
    ----------
    element
        Symbol, ``D`` for deuterium; None for a dummy atom or a vacancy.
    remark
        What was assumed, empty where the file was plain.
    """

    element: str | None
    remark: str = ""


def element_number(symbol: str) -> int:
    """Atomic number of a symbol in any case, 0 where there is no such element."""
    return int(gemmi.Element(symbol.title()).atomic_number) if symbol else 0


def has_form_factor(element: str) -> bool:
    """Whether *International Tables* give a form factor of the element."""
    return gemmi.Element(element).it92 is not None


def species_of(type_symbol: str, label: str, formula: frozenset[str]) -> Species | None:
    """Species of a site, or None where it cannot be known.

    Parameters
    ----------
    type_symbol
        ``_atom_site_type_symbol`` (Ca, ca, CA2+, Ca+2, O-2, Cval …); empty where absent.
    label
        ``_atom_site_label`` (Ca1, CaM1, OW1, Wat …), used where there is no type symbol.
    formula
        Elements of the file's own formula, which settle a label such as CO1; may be empty.
    """
    return _of_type(type_symbol) if type_symbol else _of_label(label, formula)


def plain_label_element(label: str) -> str:
    """Element that a label spells beyond doubt (``Ca1``, ``Al``), else empty.

    Single letters and capitals are left out: A1, B2, s3, RE or M1 are names of sites.
    """
    found = re.match(r"([A-Z][a-z])(?![a-z])", label)
    return found.group(1) if found and element_number(found.group(1)) else ""


def _of_type(symbol: str) -> Species | None:
    parts = re.fullmatch(r"([A-Za-z]+)((?:[\d.+\-()*]|va[l]?)*)", symbol)
    word = symbol.upper()
    if word in _EMPTY:
        return Species(None, "is a vacancy or dummy atom and scatters nothing")
    if re.split(r"[+\-]", word)[0] in _OXYGEN_GROUPS:
        return Species("O", "is read as oxygen; its hydrogen is not located and left out")
    if not parts:
        return None
    letters = parts.group(1)
    for suffix in ("val", "va"):  # CIF core names such as Cval or Siva
        if letters.endswith(suffix) and element_number(letters.removesuffix(suffix)):
            letters = letters.removesuffix(suffix)
    return Species(letters.title()) if element_number(letters) else None


def _of_label(label: str, formula: frozenset[str]) -> Species | None:
    letters = (re.match(r"[A-Za-z]+", label) or [""])[0]
    word = re.match(r"[A-Za-z]*(?:2O)?", label)
    if word and word[0].upper() in _OXYGEN_GROUPS - {"OW"}:
        return Species("O", "is read as oxygen; its hydrogen is not located and left out")
    if letters.upper() in _EMPTY - {"VA"}:
        return Species(None, "is a vacancy or dummy atom and scatters nothing")
    possible = [part.title() for part in (letters[:2], letters[:1]) if element_number(part)]
    possible = list(dict.fromkeys(possible))
    known = [element for element in possible if element in formula] or possible
    if not known:
        return None
    # "Ca" spells calcium; "CA" and "ca" may also be a carbon called A.
    doubtful = len(known) > 1 and not letters[1:2].islower()
    remark = f"is read as {known[0]}, not {known[1]}; there is no type symbol" if doubtful else ""
    return Species(known[0], remark)
