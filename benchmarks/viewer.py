"""How long a click takes in ``xrdpipe view``, and how long until the first page, on a large map.

A map of 300 x 300 pixels is made up (``made_map.py``), the viewer started as a process of its own
and used in a real Chromium: clicks at random pixels, arrow keys, a region, views. A click ends when
the browser has drawn the frame after the pattern has come.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from processes import machine
from speed_report import fill

HERE = Path(__file__).parent

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip

COMMAND = [sys.executable, "-c", "from xrdpipe.cli import main; main()", "view", "--no-open"]

WATCH = """name => {
    window.took = []
    const model = Bokeh.documents[0].get_model_by_name(name)
    const done = () => requestAnimationFrame(() => requestAnimationFrame(
        () => window.took.push(performance.now() - window.begun)))
    model.change.connect(done)
    document.addEventListener("pointerdown", () => { window.begun = performance.now() }, true)
    document.addEventListener("keydown", () => { window.begun = performance.now() }, true)
}"""


def main() -> None:
    options = arguments()
    if not options.again:
        with tempfile.TemporaryDirectory() as temporary:
            found = measured(options, options.work or Path(temporary))
        options.output.write_text(json.dumps(found, indent=1) + "\n")
    found = json.loads(options.output.read_text())
    text = table(found)
    print(text)
    if options.doc:
        fill(options.doc, "viewer", text)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=300, help="pixels of a side (300)")
    parser.add_argument("--clicks", type=int, default=200)
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    parser.add_argument("--work", type=Path, help="keep the map here (default: temporary)")
    parser.add_argument("--picture", type=Path, help="write a screenshot here")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results" / "viewer.json")
    parser.add_argument("--doc", type=Path, help="put the table into this document")
    parser.add_argument("--again", action="store_true", help="only make the table anew")
    return parser.parse_args()


def measured(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    path = work / "map.h5"
    if not path.is_file():
        from made_map import made_map

        made_map(work, options.side, options.side)
    with sync_playwright() as driver, tempfile.TemporaryDirectory() as profile:
        browser = driver.chromium.launch_persistent_context(
            profile, executable_path=options.chromium, headless=True, args=FLAGS,
            viewport={"width": 1366, "height": 768},
        )  # fmt: skip
        page = browser.new_page()
        page.goto("about:blank")
        found: dict[str, Any] = {"side": options.side, "machine": machine()}
        found["file_mb"] = round((work / "patterns.h5").stat().st_size / 1e6)
        found["start"] = []
        for last in (False, False, False, True):
            begun = time.perf_counter()
            process = subprocess.Popen([*COMMAND, str(path)], stderr=subprocess.PIPE, text=True)
            try:
                found["start"].append(first_page(process, page, begun))
                if last:
                    found |= used(page, process.pid, options)
            finally:
                process.terminate()
                process.wait(20)
        browser.close()
    return found


def first_page(process: subprocess.Popen[str], page: Any, begun: float) -> dict[str, float]:
    """Seconds from the command to the address, and to the first page with a pattern."""
    url = next(m.group() for line in process.stderr if (m := re.search(r"http://\S+", line)))
    told = time.perf_counter() - begun
    page.goto(url, wait_until="commit")
    page.wait_for_function(
        "window.Bokeh?.documents[0]?.get_model_by_name('masked')?.data.y?.length > 0"
        " && Bokeh.documents[0].is_idle"
    )
    return {"address": told, "page": time.perf_counter() - begun}


def resident(pid: int) -> float:
    """Resident set, MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def used(page: Any, pid: int, options: argparse.Namespace) -> dict[str, Any]:
    """Latency of clicks with and without the fit, keys, region and views; memory."""
    page.wait_for_function(
        "Bokeh.documents[0].get_model_by_name('fit').data.y.length > 0", timeout=60000
    )
    box = page.evaluate(
        "() => { const v = Bokeh.index.find_one(Bokeh.documents[0].get_model_by_name('map'));"
        " const b = v.canvas_view.el.getBoundingClientRect(), f = v.frame.bbox;"
        " const s = v.frame.x_scale, t = v.frame.y_scale, e = v.model.x_range;"
        " return {x0: b.left + f.left, y0: b.top + f.top, w: f.width, h: f.height} }"
    )
    side = min(box["w"], box["h"])
    left, top = box["x0"] + (box["w"] - side) / 2, box["y0"] + (box["h"] - side) / 2
    rng = np.random.default_rng(4)
    page.evaluate(WATCH, "masked")
    memory = [resident(pid)]

    def clicks(number: int) -> list[float]:
        page.evaluate("window.took = []")
        for n in range(number):
            at = rng.uniform(0.03, 0.97, 2) * side
            page.mouse.click(left + at[0], top + at[1])
            page.wait_for_function(f"window.took.length > {n}", timeout=10000)
            page.wait_for_timeout(250)  # what follows the pattern (the fit) is drawn, too
        return page.evaluate("window.took")

    clicks(5)
    found: dict[str, Any] = {"click": clicks(options.clicks)}
    page.mouse.click(left + 0.5 * side, top + 0.5 * side)  # away from the edge
    page.wait_for_timeout(1000)
    page.evaluate("window.took = []")
    for n in range(50):
        page.keyboard.press("ArrowRight" if n % 2 else "ArrowDown")
        page.wait_for_function(f"window.took.length > {n}")
        page.wait_for_timeout(60)
    found["key"] = page.evaluate("window.took")
    memory.append(resident(pid))
    found["region"] = {}
    for name, part in (("1/100 of the map", 0.1), ("all of it", 1.0)):
        page.mouse.move(left + 2, top + 2)
        page.mouse.down()
        page.mouse.move(left + part * side - 2, top + part * side - 2, steps=4)
        begun = time.perf_counter()
        page.mouse.up()
        page.wait_for_function(
            "Bokeh.documents[0].get_model_by_name('region text').text.includes('reading')"
        )
        page.wait_for_function(
            "Bokeh.documents[0].get_model_by_name('region text').text.includes('mean pattern')",
            timeout=120000,
        )
        found["region"][name] = time.perf_counter() - begun
    memory.append(resident(pid))
    found["memory_mb"] = memory
    if options.picture:
        page.screenshot(path=options.picture)
    return found


def table(found: dict[str, Any]) -> str:
    def row(name: str, values: list[float]) -> str:
        return (
            f"| {name} | {statistics.median(values):.0f} ms | "
            f"{np.quantile(values, 0.99):.0f} ms | {len(values)} |"
        )

    address = [s["address"] for s in found["start"]]
    first = [s["page"] for s in found["start"]]
    lines = [
        "| | median | 99 % | tries |",
        "|---|---|---|---|",
        row("click to drawn pattern", found["click"]),
        row("arrow key to drawn pattern", found["key"]),
        row("command to address", [1000 * s for s in address]),
        row("command to first page with a pattern", [1000 * s for s in first]),
        "",
        *(f"Mean of a region of {name}: {s:.1f} s." for name, s in found["region"].items()),
        f"Memory of the server: {found['memory_mb'][0]:.0f} MB after the first page, "
        f"{found['memory_mb'][1]:.0f} MB after the clicks, {found['memory_mb'][2]:.0f} MB after "
        f"the regions; the patterns file has {found['file_mb']} MB.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
