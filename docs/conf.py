"""Sphinx: the pages of this folder as a site. Build it with ``sphinx-build -W docs site``."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from from_code import filled  # noqa: E402 - beside this file

from xrdpipe import __version__  # noqa: E402

REPOSITORY = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]["urls"][
    "Documentation"
]

project = "xrdpipe"
author = "The xrdpipe developers"
project_copyright = "The xrdpipe developers, BSD-3-Clause"
release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["site"]


myst_heading_anchors = 3
smartquotes_action = "qe"  # two dashes begin an option

copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
copybutton_line_continuation_character = "\\"

napoleon_google_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"

html_theme = "furo"
html_title = f"xrdpipe {__version__}"
html_theme_options = {"source_repository": REPOSITORY, "source_branch": "main"}
html_theme_options["source_directory"] = "docs/"
html_show_sphinx = False


def read_page(app: Any, name: str, content: list[str]) -> None:
    """Fill in what is made from the program; what lies outside this folder is in the repository."""
    page = filled(content[0])
    here = "docs/" + name.rpartition("/")[0]

    def to_repository(match: re.Match[str]) -> str:
        path = (HERE.parent / here / match[1]).resolve().relative_to(HERE.parent)
        if path.parts[0] == "docs":
            return match[0]
        return f"]({REPOSITORY}/blob/main/{path})"

    content[0] = re.sub(r"\]\((\.\./[^)]+)\)", to_repository, page)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", read_page)
