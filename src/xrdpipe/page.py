"""HTML of the reports: one file, pictures inside, nothing loaded from elsewhere, no scripts."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; }
table { border-collapse: collapse; margin: 0.8rem 0; }
th, td { padding: 0.2rem 0.8rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; }
p.note { color: #555; font-size: 0.92em; }
"""

KINDS = {b"\x89PNG": "image/png", b"<?xm": "image/svg+xml"}


def page(title: str, body: str, style: str = "") -> str:
    """A whole document; ``style`` is added to what all reports share."""
    return (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'><meta name='generator' "
        f"content='xrdpipe'><title>{escape(title)}</title>\n<style>{STYLE}{style}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def picture(image: bytes, name: str) -> str:
    """A PNG or SVG as a part of the page."""
    data = base64.b64encode(image).decode("ascii")
    return f"<img alt='{escape(name)}' src='data:{KINDS[image[:4]]};base64,{data}'>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """A table of texts; ``kind`` is its class."""

    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    top = line("th", head) if any(head) else ""
    attribute = f" class='{kind}'" if kind else ""
    return f"<table{attribute}>" + top + "".join(line("td", row) for row in rows) + "</table>"
