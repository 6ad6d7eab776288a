"""Layout × what works: every cell of the table in docs/inputs.md is a test here."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import numpy as np
import pytest

from layouts import DAMAGES, Built, all_layouts
from xrdpipe.errors import FrameError
from xrdpipe.frames import open_frames
from xrdpipe.frames.auxiliary import load_exposure, load_monitor
from xrdpipe.schema import FrameStatus

LAYOUTS = all_layouts()


def statuses_and_frames(source):
    status, frames = [], []
    for row, record in enumerate(source.records):
        try:
            if record.problem:
                raise FrameError(record.problem, record.reason)
            frames.append(source.read(row).image)
            status.append(FrameStatus.OK)
        except FrameError as error:
            frames.append(None)
            status.append(error.status if error.reason else "no reason given")
    return status, frames


def check_opens(built: Built, source):
    assert built.kind in source.kind
    assert source.evidence
    check_frames(built, source)


def check_frames(built: Built, source):
    status, frames = statuses_and_frames(source)
    assert status == list(built.status or [FrameStatus.OK] * len(built.frames))
    for state, read, written in zip(status, frames, built.frames, strict=True):
        if state == FrameStatus.OK:
            assert read.dtype.newbyteorder("=") == built.frames.dtype.newbyteorder("=")
            np.testing.assert_array_equal(read, written)


def check_numbers(built: Built, source):
    assert source.numbered
    assert tuple(record.index for record in source.records) == built.numbers


def check_positions(built: Built, source):
    for name, values in built.positions.items():
        assert name in source.columns
        np.testing.assert_allclose(source.column(name), values)
    assert source.scan is not None
    found = dataclasses.asdict(source.scan)
    assert {name: found[name] for name in built.hint} == dict(built.hint)


def check_monitor(built: Built, source):
    name, values = built.monitor
    np.testing.assert_allclose(load_monitor(name, source), values)


def check_exposure(built: Built, source):
    np.testing.assert_allclose(load_exposure("auto", source), built.exposure)


def check_metadata(name, found=""):
    def check(built: Built, source):
        stated = getattr(source.detector, found or name)
        assert stated == pytest.approx(getattr(built, name), rel=1e-6)

    return check


def check_pixel_mask(built: Built, source):
    np.testing.assert_array_equal(source.detector.pixel_mask != 0, built.pixel_mask != 0)


FEATURES = {
    "numbers": (check_numbers, lambda built: built.numbers is not None),
    "pixel mask": (check_pixel_mask, lambda built: built.pixel_mask is not None),
    "saturation": (
        check_metadata("saturation", "saturation_value"),
        lambda built: built.saturation is not None,
    ),
    "positions": (check_positions, lambda built: bool(built.positions)),
    "monitor": (check_monitor, lambda built: built.monitor is not None),
    "exposure": (check_exposure, lambda built: built.exposure is not None),
    "wavelength": (check_metadata("wavelength"), lambda built: built.wavelength is not None),
    "distance": (check_metadata("distance"), lambda built: built.distance is not None),
}
"""Column of the table → its check, and whether the layout carries such a thing."""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Each layout once."""
    made = {}

    def build(layout, damage=""):
        key = layout.name, damage
        if key not in made:
            folder = tmp_path_factory.mktemp("layout")
            made[key] = (layout.damages[damage] if damage else layout.build)(folder)
        return made[key]

    return build


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_opens(layout, built):
    example = built(layout)
    check_opens(example, open_frames(example.paths))


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_feature(layout, feature, built):
    check, has = FEATURES[feature]
    example = built(layout)
    if has(example):
        check(example, open_frames(example.paths))


@pytest.mark.parametrize(
    ("layout", "damage"),
    [(layout, damage) for layout in LAYOUTS for damage in layout.damages],
    ids=lambda value: getattr(value, "name", value),
)
def test_damage(layout, damage, built):
    assert damage in DAMAGES
    example = built(layout, damage)
    assert set(example.status) - {FrameStatus.OK}
    source = open_frames(example.paths)
    check_frames(example, source)
    if example.numbers is not None:
        check_numbers(example, source)


DOCUMENT = Path(__file__).parents[1] / "docs" / "inputs.md"
START, END = "<!-- layouts -->", "<!-- /layouts -->"


def table(build) -> str:
    """The table of the document: a tick where a test above looks at it, a dash where the layout
    has no such thing."""
    columns = ["opens", *FEATURES, *DAMAGES]
    lines = ["| layout | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for layout in LAYOUTS:
        example = build(layout)
        has = [True, *(carries(example) for _, carries in FEATURES.values())]
        has += [damage in layout.damages for damage in DAMAGES]
        cells = ["✓" if there else "–" for there in has]
        lines.append(f"| {layout.name} ({layout.written_by}) | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def test_the_table_in_the_documents_says_what_is_tested(built):
    """XRDPIPE_UPDATE_DOCS=1 writes the table anew."""
    expected = f"{START}\n{table(built)}\n{END}"
    text = DOCUMENT.read_text()
    if os.environ.get("XRDPIPE_UPDATE_DOCS"):
        text = re.sub(f"{START}.*{END}", expected, text, flags=re.S)
        DOCUMENT.write_text(text)
    assert expected in text
