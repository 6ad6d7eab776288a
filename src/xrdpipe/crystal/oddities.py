"""What does not fit together in a CIF: its name, its formula, its numbers and its atoms."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from itertools import pairwise

import gemmi
import numpy as np

from xrdpipe.crystal.cif import structure
from xrdpipe.crystal.formulas import (
    LANTHANIDES,
    RARE_EARTH,
    formula_of_words,
    formula_text,
    parse_formula,
)
from xrdpipe.crystal.species import HYDROGEN
from xrdpipe.crystal.structure import SAME_PLACE, Structure, shortest_distances
from xrdpipe.types import Phase

FORMULA_TOLERANCE = 0.02
"""Largest difference of an element's part of the atoms between a formula and the sites."""

NAME_TOLERANCE = 0.15
"""The same for a mineral's name, where solid solutions share a name."""

VOLUME_PER_ATOM = (3.5, 130.0)
"""Å³ per atom other than hydrogen, from diamond under pressure to caesium."""

LARGEST_U = 0.05
"""Mean-square displacement in Å² (B = 4 Å²) above which an atom is liquid-like, or U is B."""

CONTACT = 0.7
"""Shortest distance as a part of the sum of covalent radii (a triple bond has 0.74)."""


@functools.lru_cache(maxsize=512)
def oddities(phase: Phase) -> tuple[str, ...]:
    """Contradictions within a CIF and what had to be assumed, one sentence each.

    Empty for a file in which everything fits. None of them stops a computation; a user should
    see them before a model is trained on the phase.

    Parameters
    ----------
    phase
        From :func:`load_phase`; its name, that is the file's, is one of the claims.

    Raises
    ------
    InputError
        The CIF cannot be used at all.
    """
    crystal = structure(phase)
    checks = (
        _names(phase.name, crystal),
        _formula(crystal),
        _numbers(crystal),
        _distances(crystal),
        _occupancies(crystal),
        _displacements(crystal),
        iter(crystal.remarks),
    )
    return tuple(f"{phase.name}: {sentence}." for check in checks for sentence in check)


def _names(name: str, crystal: Structure) -> Iterator[str]:
    """Compare the file's name and the names within it with the elements of the sites."""
    found = {}
    for text in (name, *crystal.claims.names):
        said = formula_of_words(text)
        if said:
            word, formula = said
            found[word.lower()] = formula
            if reason := _misfit(formula, crystal.content, NAME_TOLERANCE):
                yield (
                    f"'{word}' stands for {formula_text(formula)}, but the atom sites hold "
                    f"{formula_text(crystal.content)} ({reason})"
                )
    for (one, first), (other, second) in pairwise(found.items()):
        # Both ways, because "bastnaesite" leaves the rare earth open.
        if _misfit(first, second, NAME_TOLERANCE) and _misfit(second, first, NAME_TOLERANCE):
            yield f"it is called '{one}' and '{other}', which differ in composition"


def _formula(crystal: Structure) -> Iterator[str]:
    """Compare the formula of the file, and the units per cell, with the sites."""
    claims = crystal.claims
    if not claims.formula:
        return
    formula = parse_formula(claims.formula)
    if formula is None:
        yield f"the formula '{claims.formula}' cannot be read and was not compared"
        return
    content = crystal.content
    if reason := _misfit(formula, content, FORMULA_TOLERANCE):
        yield (
            f"the formula is '{claims.formula}', but the atom sites hold "
            f"{formula_text(content)} ({reason})"
        )
    elif "H" in formula and "H" not in content:
        yield f"the hydrogen of '{claims.formula}' has no atom site and is left out"
    heavy = _heavy(formula)
    if np.isfinite(claims.units) and heavy:
        units = sum(_heavy(content).values()) / sum(heavy.values())
        if abs(units - claims.units) > 0.05 * claims.units:
            yield (
                f"the cell is said to hold {claims.units:g} units of '{claims.formula}', "
                f"but the atom sites make {units:.3g}"
            )


def _misfit(said: dict[str, float], held: dict[str, float], tolerance: float) -> str:
    """Why two compositions differ, hydrogen aside; empty where they agree."""
    expected, actual = _heavy(said), _heavy(held)
    if not expected or not actual:
        expected, actual = said, held
    if RARE_EARTH in expected:
        count = sum(actual.pop(element) for element in LANTHANIDES & actual.keys())
        actual = {**actual, RARE_EARTH: count} if count else actual
    expected = {element: count / sum(expected.values()) for element, count in expected.items()}
    actual = {element: count / sum(actual.values()) for element, count in actual.items()}
    for element in sorted(expected, key=lambda element: -expected[element]):
        if element not in actual:
            return f"no {'rare earth' if element == RARE_EARTH else element}"
    for element in sorted(expected.keys() | actual.keys()):
        first, second = expected.get(element, 0.0), actual.get(element, 0.0)
        if abs(first - second) > tolerance:
            return f"{100 * second:.0f} % of the atoms are {element}, not {100 * first:.0f} %"
    return ""


def _heavy(atoms: dict[str, float]) -> dict[str, float]:
    """Atoms without hydrogen, which many structures do not locate."""
    return {element: n for element, n in atoms.items() if element not in HYDROGEN and n > 0}


def _numbers(crystal: Structure) -> Iterator[str]:
    """Compare volume and density with what the file says and with what matter can have."""
    claims, volume = crystal.claims, crystal.volume
    if np.isfinite(claims.volume) and abs(claims.volume - volume) > 0.01 * volume:
        yield f"the cell volume is said to be {claims.volume:g} Å³, but the cell has {volume:.4g}"
    if np.isfinite(claims.density) and claims.density > 0.05 * crystal.density:
        # kg/m³ and Mg/m³ are both found.
        said = claims.density / (1000 if claims.density > 50 else 1)
        if abs(said - crystal.density) > 0.05 * crystal.density:
            yield (
                f"the density is said to be {said:.4g} g/cm³, but the cell and its atoms "
                f"give {crystal.density:.4g}"
            )
    atoms = sum(_heavy(crystal.content).values()) or sum(crystal.content.values())
    each = volume / atoms if atoms else np.inf
    if not VOLUME_PER_ATOM[0] <= each <= VOLUME_PER_ATOM[1]:
        yield (
            f"{each:.3g} Å³ per atom is not that of a crystal ({VOLUME_PER_ATOM[0]:g} to "
            f"{VOLUME_PER_ATOM[1]:g}); check the cell, its unit and the symmetry"
        )


def _distances(crystal: Structure) -> Iterator[str]:
    """Look for atoms that overlap."""
    found = shortest_distances(crystal.cell, crystal.symmetry, crystal.sites)
    if found is None:
        yield f"{len(crystal.sites)} atom sites are too many to look for atoms that overlap"
        return
    for distance, first, second in sorted(found, key=lambda one: one[0]):
        # Partly filled sites that exclude each other may overlap: disorder.
        if first.occupancy + second.occupancy <= 1.01 or {first.element, second.element} & HYDROGEN:
            continue
        radii = [gemmi.Element(site.element).covalent_r for site in (first, second)]
        if distance < CONTACT * sum(radii):
            yield (
                f"atoms '{first.label}' and '{second.label}' are {distance:.2f} Å apart, closer "
                f"than any bond; check the positions, the cell and the choice of origin"
            )
            return


def _occupancies(crystal: Structure) -> Iterator[str]:
    """Look for places that hold more than one atom."""
    if len(crystal.sites) > 500:
        return
    basis = np.diag(crystal.cell[:3])
    for number, site in enumerate(crystal.sites):
        total, labels = site.occupancy, [site.label]
        for other in crystal.sites[number + 1 :]:
            step = crystal.symmetry.images(other.position) - site.position
            step -= np.rint(step)
            if np.linalg.norm(step @ basis, axis=1).min() < SAME_PLACE:
                total += other.occupancy
                labels.append(other.label)
        if len(labels) > 1 and total > 1.05:
            yield f"the place of {', '.join(labels)} is filled {total:.3g} times"


def _displacements(crystal: Structure) -> Iterator[str]:
    """Look for displacements that are none, or given in another unit."""
    large = [s for s in crystal.sites if s.element not in HYDROGEN and s.u_iso > LARGEST_U]
    if large:
        shown = ", ".join(f"{site.label} {site.u_iso:.3g}" for site in large[:6])
        yield (
            f"the displacement U in Å² is unusually large ({shown}); check that it is not B = 8π²U"
        )
    if all(site.u_iso == 0 for site in crystal.sites):
        yield "every displacement is zero, so the lines at large angle come out too strong"
