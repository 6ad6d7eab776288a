"""Values of a CIF: its one data block, columns, texts and numbers, without decoration."""

from __future__ import annotations

import re

import gemmi
import numpy as np

from xrdpipe.errors import InputError

_CATEGORIES = ("_atom_site_aniso", "_atom_site", "_space_group_symop", "_space_group",
               "_symmetry_equiv", "_symmetry", "_cell", "_chemical_formula",
               "_chemical_name", "_exptl_crystal")  # fmt: skip
"""Tag categories; newer dictionaries write a full stop after them."""

LONGEST_TEXT = 200
"""Characters of a name or formula that are looked at."""


def data_block(text: str, where: str) -> gemmi.cif.Block:
    """The only data block with atom sites."""
    plain = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    try:
        document = gemmi.cif.read_string(plain)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        printable = "".join(sign if sign.isprintable() else "?" for sign in reason)
        raise InputError(f"{where} is not a readable CIF ({printable}).") from error
    blocks = [block for block in document if column(block, "_atom_site_fract_x")]
    if len(blocks) == 1:
        return blocks[0]
    names = ", ".join(f"'{block.name}'" for block in blocks[:10])
    listed = f" ({names}{', …' if len(blocks) > 10 else ''})" if blocks else ""
    raise InputError(
        f"{where} holds {len(blocks)} data blocks with atom sites (_atom_site_fract_x){listed}; "
        "expected exactly one structure per CIF."
    )


def column(block: gemmi.cif.Block, *tags: str) -> list[str]:
    """Values of the first tag present, unquoted; '' for '?' and '.'; also in mmCIF's spelling."""
    for tag in tags:
        category = next((one for one in _CATEGORIES if tag.startswith(f"{one}_")), "")
        for spelling in (tag, f"{category}.{tag[len(category) + 1 :]}"):
            values = block.find_values(spelling)
            if len(values):
                texts = [gemmi.cif.as_string(value) for value in values]
                return ["" if text in ("?", ".") else text for text in texts]
    return []


def first_text(block: gemmi.cif.Block, *tags: str) -> str:
    """First value that is given of the tags, else empty."""
    for tag in tags:
        for value in column(block, tag):
            if value.strip():
                return " ".join(value.split())[:LONGEST_TEXT]
    return ""


def number(text: str) -> float:
    """Number with or without a standard uncertainty, or a fraction as 1/3; NaN otherwise."""
    text = text.strip().replace("−", "-")
    value = float(gemmi.cif.as_number(text)) if text else np.nan
    if np.isnan(value) and (parts := re.fullmatch(r"([+-]?\d+)/([1-9]\d*)", text)):
        value = int(parts[1]) / int(parts[2])
    return value
