"""One picture of speed.py and scaling.py: ratios, pixels, frames, threads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

BARS = {
    "diffmap": "pyFAI-diffmap, defaults",
    "integrate-tool": "pyFAI-integrate, csc",
    "script-csr": "script, csr",
    "script": "script, csc",
    "clip": "script, csc and sigma_clip_ng",
    "both-1": "xrdpipe, both variants, spottiness",
    "masked-1": "xrdpipe, masked",
    "unmasked-1": "xrdpipe, unmasked",
}

OURS, OTHERS, FLOOR = "#1b6ca8", "#9a9a9a", "#c0392b"


def draw(speed: Mapping[str, Any], scaling: Mapping[str, Any], target: Path) -> None:
    """Four panels; those without results stay out.

    Parameters
    ----------
    speed, scaling
        What the two benchmarks wrote.
    target
        Picture to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = [(_bars, speed["data"].get("eiger4m-low"))]
    panels += [
        (panel, scaling.get(name))
        for name, panel in (("pixels", _pixels), ("frames", _frames), ("threads", _threads))
    ]
    panels = [(panel, values) for panel, values in panels if values]
    if not panels:
        raise SystemExit("there are no results to draw.")
    rows = -(-len(panels) // 2)
    figure, axes = plt.subplots(
        rows, 2, figsize=(10, 3.9 * rows), layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (panel, values) in zip(axes.flat, panels, strict=False):
        panel(axis, values)
        axis.spines[["top", "right"]].set_visible(False)
        axis.title.set_fontsize(10)
    figure.savefig(target, dpi=90)
    plt.close(figure)


def _bars(axis: Any, entry: Mapping[str, Any]) -> None:
    names = [name for name in BARS if name in entry["summary"]]
    costs = [entry["summary"][name]["cpu_ms_per_frame"]["median"] for name in names]
    colors = [OURS if BARS[name].startswith("xrdpipe") else OTHERS for name in names]
    axis.barh([BARS[name] for name in names], costs, color=colors)
    floor = entry["floor"].get("floor")
    unit = floor["median"] if floor else min(costs)
    for row, cost in enumerate(costs):
        axis.text(cost * 1.06, row, f"{cost:.3g}  ({cost / unit:.3g}x)", va="center", fontsize=8)
    if floor:
        axis.axvline(unit, color=FLOOR, lw=1)
        axis.set_title(
            f"{entry['settings']['label']} per pixel; floor {unit:.2g} ms (line), multiples of it"
        )
    axis.set(xscale="log", xlabel="CPU ms per frame")
    axis.set_xlim(0.7 * min(unit, *costs), 5 * max(costs))
    axis.tick_params(axis="y", labelsize=8)


def _pixels(axis: Any, detectors: Mapping[str, Any]) -> None:
    known = sorted(detectors.values(), key=lambda of: of["pixels"])
    pixels = [of["pixels"] / 1e6 for of in known]
    for name, label, color, style in (
        ("script", "script, csc", OTHERS, "o-"),
        ("both-1", "xrdpipe, both variants, spottiness", OURS, "s--"),
        ("unmasked-1", "xrdpipe, unmasked", OURS, "o-"),
        ("floor", "floor", FLOOR, "-"),
    ):
        axis.plot(pixels, [of[name]["median"] for of in known], style, color=color, label=label)
    axis.set(xscale="log", yscale="log", xlabel="megapixels", ylabel="CPU ms per frame, 1 thread")
    axis.set_xticks(pixels, [f"{value:.2g}" for value in pixels])
    axis.minorticks_off()
    axis.set_ylim(top=20 * axis.get_ylim()[1])
    axis.set_title("Detectors")
    axis.legend(fontsize=8, frameon=False, loc="upper left")


def _frames(axis: Any, lengths: Mapping[str, Any]) -> None:
    numbers = [int(length) for length in lengths]
    wall = [of["wall"]["median"] for of in lengths.values()]
    memory = [of["peak_mb"]["median"] for of in lengths.values()]
    (first,) = axis.plot(numbers, wall, "o-", color=OURS, label="wall time (left)")
    axis.set(xscale="log", yscale="log", xlabel="frames", ylabel="whole run, s")
    axis.set_ylim(0.5 * min(wall), 4 * max(wall))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("")
    other = axis.twinx()
    (second,) = other.plot(numbers, memory, "s--", color=OTHERS, label="peak memory (right)")
    other.set_ylim(0, 1.6 * max(memory))
    other.set_ylabel("MB")
    axis.set_title("Half-megapixel frames, unmasked")
    axis.legend(handles=[first, second], fontsize=8, frameon=False, loc="upper left")
    other.spines["top"].set_visible(False)


def _threads(axis: Any, variants: Mapping[str, Any]) -> None:
    for (name, of), style in zip(variants.items(), ("o-", "s--"), strict=False):
        numbers = [int(number) for number in of]
        speed_up = [value["speed_up"]["median"] for value in of.values()]
        label = "unmasked" if name == "unmasked" else "both variants, spottiness"
        axis.plot(numbers, speed_up, style, color=OURS, label=f"xrdpipe, {label}")
    axis.plot(numbers, numbers, ":", color=OTHERS, label="as many times as threads")
    axis.set(xlabel="threads", ylabel="times as fast as one")
    axis.set_xticks(numbers)
    axis.set_title("Threads, Eiger 4M")
    axis.legend(fontsize=8, frameon=False)
