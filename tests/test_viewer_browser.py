"""The viewer in a real Chromium: what a person does, and what the page then shows.

Skipped where there is no Chromium or no playwright. ``XRDPIPE_SCREENSHOTS=FOLDER`` keeps pictures.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from viewer_maps import GRID, grid_scan, made_map, pattern_of

pytest.importorskip("bokeh")
playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = os.environ.get("XRDPIPE_CHROMIUM") or shutil.which("chromium")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this computer (Debian: apt-get install chromium)"
)

# Without those about networking it waits for servers that a closed network does not have.
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip

NY, NX = 20, 30


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """A browser with a folder of its own, and what it loaded from elsewhere."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch_persistent_context(
            str(tmp_path_factory.mktemp("chromium")),
            executable_path=CHROMIUM,
            headless=True,
            args=FLAGS,
            viewport={"width": 1366, "height": 768},
            accept_downloads=True,
        )
        yield browser
        browser.close()


class Viewer:
    """``xrdpipe view`` as a process of its own."""

    def __init__(self, path: Path, *options: str) -> None:
        code = "from xrdpipe.cli import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "view", str(path), "--no-open", *options],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        said = ""
        for line in self.process.stderr:
            said += line
            if found := re.search(r"http://\S+", line):
                self.url = found.group()
                return
        raise AssertionError(said)

    def end(self) -> int:
        self.process.terminate()
        code = self.process.wait(20)
        self.process.stderr.close()
        return code


@pytest.fixture
def view(chromium, tmp_path):
    """Opens a map in the browser: returns the page."""
    opened = []

    def open_map(path, *options):
        viewer = Viewer(path, *options)
        page = chromium.new_page()
        opened.append((viewer, page))
        page.errors, page.elsewhere = [], []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on(
            "console",
            lambda said: page.errors.append(said.text) if said.type == "error" else None,
        )
        page.on("request", lambda asked: page.elsewhere.append(asked.url))
        page.goto(viewer.url)
        page.host = viewer.url.rsplit("/", 1)[0]
        return page

    yield open_map
    for viewer, page in opened:
        errors = [text for text in page.errors if "favicon" not in text]
        elsewhere = [url for url in page.elsewhere if not url.startswith((page.host, "blob:"))]
        page.close()
        assert viewer.end() == 0
        assert errors == []
        assert elsewhere == []


def data(page, name):
    """What a data source of the page holds, as lists."""
    return page.evaluate(
        """name => {
            let model
            try { model = Bokeh.documents[0]?.get_model_by_name(name) } catch { return null }
            if (!model) return null
            const plain = (value) => value?.length === undefined || typeof value == "string"
                ? value : Array.from(value, plain)
            return Object.fromEntries(Object.entries(model.data).map(([k, v]) => [k, plain(v)]))
        }""",
        name,
    )


def text(page, name):
    return page.evaluate("name => Bokeh.documents[0].get_model_by_name(name).text", name)


def until(look, what, seconds=10):
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"did not happen: {what}")


def drawn(page):
    """Wait until the map and a pattern are there; its ranges are those of equal scales."""
    until(lambda: (data(page, "external") or {}).get("y"), "a pattern")
    page.wait_for_timeout(500)


def place(page, x, y):
    """Where a point of the map is on the screen."""
    return page.evaluate(
        """([x, y]) => {
            const model = Bokeh.documents[0].get_model_by_name("map")
            const view = Bokeh.index.find_one(model)
            const frame = view.frame.bbox
            const box = view.canvas_view.el.getBoundingClientRect()
            const [sx, sy] = [view.frame.x_scale.compute(x), view.frame.y_scale.compute(y)]
            return [box.left + sx, box.top + sy]
        }""",
        [x, y],
    )


def picture(page, name):
    folder = os.environ.get("XRDPIPE_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.wait_for_timeout(400)
        page.screenshot(path=f"{folder}/{name}.png")


def marker(page):
    found = data(page, "marker")
    return found["x"][0], found["y"][0]


def test_click_keys_and_sweep(view, tmp_path):
    page = view(made_map(tmp_path / "map.h5", grid_scan(NY, NX)))
    drawn(page)
    assert page.evaluate("document.documentElement.scrollHeight") <= 768
    x, y = 100 + 2.0 * 7, -10 + 5.0 * 4
    page.mouse.click(*place(page, x, y))
    until(lambda: marker(page) == (x, y), "the pixel that was clicked")
    expected = pattern_of(4 * NX + 7)
    # The marker comes first, the pattern with the next message.
    until(lambda: np.allclose(data(page, "external")["y"], expected, rtol=1e-6), "its pattern")
    until(lambda: "row 4, column 7" in text(page, "facts"), "what is said of it")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    until(lambda: marker(page) == (x + 2, y + 5), "the pixel that the keys lead to")
    page.keyboard.press("Shift+ArrowUp")
    until(lambda: marker(page) == (x + 2, -10), "ten up ends at the edge")
    picture(page, "pixel")
    page.get_by_role("button", name="follow the mouse").click()
    page.mouse.move(*place(page, 110, 0))
    page.mouse.move(*place(page, 130, 40), steps=25)
    until(lambda: marker(page) == (130, 40), "the pixel under the mouse")
    until(
        lambda: np.allclose(data(page, "external")["y"], pattern_of(10 * NX + 15), rtol=1e-6),
        "its pattern",
    )


def test_region_slider_and_files(view, tmp_path):
    page = view(made_map(tmp_path / "map.h5", grid_scan(NY, NX)))
    drawn(page)
    page.mouse.move(*place(page, 101, -12))
    page.mouse.down()
    page.mouse.move(*place(page, 107, -3), steps=5)
    page.mouse.up()
    until(lambda: "Region of 6 pixels" in text(page, "region text"), "the region")
    until(lambda: data(page, "region")["y"], "its mean")
    rows = (1, 2, 3, NX + 1, NX + 2, NX + 3)
    mean = np.mean([pattern_of(row) for row in rows], axis=0)
    np.testing.assert_allclose(data(page, "region")["y"], mean, rtol=1e-6)
    picture(page, "region")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="save region mean (.xye)").click()
    saved = tmp_path / "saved.xye"
    waiting.value.save_as(saved)
    assert waiting.value.suggested_filename == "map_mean_of_6_external.xye"
    lines = [line.split() for line in saved.read_text().splitlines() if line[0] != "'"]
    columns = np.array(lines, float)
    np.testing.assert_allclose(columns[:, 0], GRID.two_theta)
    np.testing.assert_allclose(columns[:, 1], mean, rtol=1e-6)
    before = text(page, "legend")
    page.locator(".noUi-handle").first.focus()
    page.keyboard.press("PageUp")
    until(lambda: text(page, "legend") != before, "other counts at another threshold")
    height = max(data(page, "region")["y"])
    page.locator("select").filter(has_text="square root").select_option("square root")
    until(lambda: max(data(page, "region")["y"]) == pytest.approx(height**0.5), "the square root")
    picture(page, "square_root")
    page.locator("select").first.select_option("probability: phase 1")
    until(lambda: "probability of presence" in text(page, "legend"), "another view")
    picture(page, "probability")


def test_a_map_that_grows(view, tmp_path):
    path = tmp_path / "map.h5"
    page = view(path, "--wait")
    until(lambda: page.evaluate("Bokeh.documents.length"), "the page")
    until(lambda: "Waiting for" in (text(page, "waiting") or ""), "the message")
    made_map(path, grid_scan(NY, NX), done=250)
    until(lambda: "350 pixels still to come" in headline(page), "the partial map")
    page.wait_for_timeout(700)
    page.mouse.click(*place(page, 104, 0))
    until(lambda: marker(page) == (104, 0), "the pixel")
    picture(page, "growing")
    made_map(path, grid_scan(NY, NX))
    until(lambda: (data(page, "external") or {}).get("y"), "patterns")
    # Bokeh forgets the models of the page before after half a minute, or now.
    page.evaluate("Bokeh.documents[0]._recompute_all_models()")
    assert marker(page) == (104, 0)


def headline(page):
    # Where the page was built anew there are two of that name for a while.
    return page.evaluate(
        """() => {
            try { return Bokeh.documents[0].get_model_by_name("headline")?.text ?? "" }
            catch { return "" }
        }"""
    )


@pytest.mark.parametrize("size", [(1366, 768), (1920, 1080)])
@pytest.mark.parametrize("kind", ["twenty", "scattered", "row"])
def test_other_maps_fit_the_screen(view, tmp_path, kind, size):
    from viewer_maps import scattered_scan

    options = {
        "twenty": {"phases": 20, "scan": grid_scan(NY, NX)},
        "scattered": {"scan": scattered_scan(300), "unknown": False},
        "row": {"scan": grid_scan(1, 60), "phases": 1},
    }[kind]
    page = view(made_map(tmp_path / "map.h5", **options))
    page.set_viewport_size({"width": size[0], "height": size[1]})
    drawn(page)
    picture(page, f"{kind}_{size[0]}")
    assert page.evaluate("document.documentElement.scrollHeight") <= size[1]
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
