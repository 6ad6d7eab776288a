"""Draw the pictures of the explanations in the manual, from simulated frames.

    python benchmarks/explained.py -o docs/images

Writes ``explained_frame.png``, ``explained_variants.png``, ``explained_errors.png`` and
``explained_probability.png``; about two minutes on two cores.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import h5py
import matplotlib as mpl
import numpy as np
from matplotlib.colors import ListedColormap, LogNorm
from PIL import Image

mpl.use("Agg")
import matplotlib.pyplot as plt

import xrdpipe
from xrdpipe.crystal import bragg_angle, load_phase, powder_intensity, reflections
from xrdpipe.frames.source import open_frames
from xrdpipe.integration.geometry import choose_binning, load_geometry
from xrdpipe.integration.reduce import FrameReducer, ReductionSettings
from xrdpipe.phases import shipped_phases

WAVELENGTH = 0.4959  # Å
BLUE, GREEN, ORANGE, GREY = "#0072B2", "#009E73", "#D55E00", "#9A9A9A"
SATURATION = 2**20 - 1  # raw counts, of the simulated detector
RANGE = (5.0, 20.0)  # degrees, where the detectors of the pictures have whole rings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the pictures")
    output = parser.parse_args().output
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    with tempfile.TemporaryDirectory() as folder:
        for draw in (draw_frame, draw_variants, draw_errors, draw_probability):
            figure = draw(Path(folder) / draw.__name__)
            path = output / f"explained_{draw.__name__.removeprefix('draw_')}.png"
            figure.savefig(path, dpi=110)
            picture = Image.open(path).convert("RGB")
            picture.quantize(256, method=Image.Quantize.FASTOCTREE).save(path, optimize=True)
            print(path, f"{path.stat().st_size / 1000:.0f} kB")


def lines(phase: str) -> tuple[np.ndarray, np.ndarray]:
    """2θ (degrees) and height of the lines of a shipped phase that reach 3 % of the strongest."""
    table = reflections(load_phase(shipped_phases()[phase]), wavelength=WAVELENGTH, d_min=1.2)
    height = powder_intensity(table, WAVELENGTH)
    strong = height > 0.03 * height.max()
    return bragg_angle(table.d[strong], WAVELENGTH), height[strong] / height.max()


def simulated(folder: Path, **options: Any) -> tuple[np.ndarray, Any, np.ndarray]:
    """The frame with the strongest lines, its geometry, and the mask of detector and beamstop."""
    scan = xrdpipe.simulate(output=folder, scan_shape="3x4", **options).path
    with h5py.File(scan / "truth.h5") as truth:
        at = np.argmax(truth["entry/truth/strength"][0] * truth["entry/truth/presence"][0])
        frame = int(truth["entry/truth/frame"][()].flat[at])
    image = open_frames(scan / "frames").read(frame).image
    return image, load_geometry(scan / "geometry.poni"), np.load(scan / "mask.npy") > 0


def show(axis: Any, image: np.ndarray, hidden: np.ndarray) -> Any:
    """A frame in grey, logarithmic, four pixels drawn as one; what is hidden stays white."""
    rows, columns = (size // 2 * 2 for size in image.shape)
    shown = np.where(hidden, np.nan, image.astype(float))[:rows, :columns]
    with np.errstate(invalid="ignore"):
        shown = shown.reshape(rows // 2, 2, columns // 2, 2).mean(axis=(1, 3))
    low, high = np.nanquantile(shown, (0.02, 0.9985))
    drawn = axis.imshow(
        np.maximum(shown, low),
        norm=LogNorm(max(low, 0.5), high),
        cmap="gray_r",
        interpolation="nearest",
        extent=(-0.5, columns - 0.5, rows - 0.5, -0.5),
    )
    axis.set(xlabel="column (pixel)", ylabel="row (pixel)")
    return drawn


def unrolled(image: np.ndarray, geometry: Any, good: np.ndarray) -> np.ndarray:
    """Mean counts in cells of 2θ and azimuth, NaN where no pixel lies."""
    place = geometry.two_theta[good], geometry.chi[good]
    shape, ranges = (300, 60), (RANGE, (-180, 180))
    total = np.histogram2d(*place, bins=shape, range=ranges, weights=image[good].astype(float))[0]
    pixels = np.histogram2d(*place, bins=shape, range=ranges)[0]
    return np.where(pixels > 0, total / np.maximum(pixels, 1), np.nan).T


def ticks(axis: Any, phases: dict[str, str]) -> None:
    """Reference lines below a pattern, one row per phase."""
    for row, (name, color) in enumerate(phases.items()):
        angle, height = lines(name)
        axis.vlines(angle, -row - 0.9 * np.sqrt(height), -row, color=color, lw=1.5)
    names = list(phases)
    axis.set_yticks([-row - 0.5 for row in range(len(names))], names)
    axis.set_ylim(-len(names), 0.1)
    axis.tick_params(left=False)
    axis.spines["left"].set_visible(False)
    axis.set_xlabel("2θ (degrees)")


def draw_frame(folder: Path) -> Any:
    """A frame, the same unrolled around the beam, and its pattern."""
    image, geometry, mask = simulated(
        folder, seed=11, cif=[shipped_phases()["calcite"]], detector="Eiger1M", counts=60,
        grains=5.0, distractor=False, without="diamonds,gasket,zingers,fluid,compton",
    )  # fmt: skip
    reducer = FrameReducer(
        geometry,
        choose_binning(geometry, "2theta", None, None),
        ReductionSettings(variants=("masked",), error_model="none"),
        mask=mask,
    )
    row = reducer.reduce(image).rows["masked"]
    hidden = geometry.gap_mask | mask
    figure = plt.figure(figsize=(11.5, 5.4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.25))
    axis = left.subplots()
    drawn = show(axis, image, hidden)
    bar = left.colorbar(drawn, ax=axis, location="bottom", shrink=0.75, extend="both")
    bar.set_label("counts per pixel")
    axis.set_title("one frame: a ring per line, white where nothing is measured")
    around, pattern, marks = right.subplots(3, 1, sharex=True, height_ratios=(1.25, 1.2, 0.22))
    cells = unrolled(image, geometry, ~hidden)
    around.imshow(
        cells, norm=drawn.norm, cmap="gray_r", aspect="auto",
        extent=(*RANGE, -180, 180), origin="lower", interpolation="nearest",
    )  # fmt: skip
    around.set(ylabel="azimuth (degrees)", yticks=[-180, -90, 0, 90, 180])
    around.set_title("the same, unrolled around the beam: a line is a line")
    x = reducer.binning.centres
    shown = (x > RANGE[0]) & (x < RANGE[1])
    pattern.plot(x[shown], row["I"][shown], color="black", lw=0.8)
    pattern.set(ylabel="intensity\n(counts per pixel)", xlim=RANGE)
    pattern.set_title("its pattern: the mean of each column")
    ticks(marks, {"calcite": BLUE})
    return figure


def draw_variants(folder: Path) -> Any:
    """A frame of coarse grains and diamond spots, what the masked variant leaves out, and both."""
    image, geometry, mask = simulated(
        folder, seed=4, cif=[shipped_phases()["calcite"]], detector="Eiger1M", counts=60,
        grains=3.4, distractor=False,
    )  # fmt: skip
    reducer = FrameReducer(
        geometry,
        choose_binning(geometry, "2theta", None, None),
        ReductionSettings(
            variants=("masked", "unmasked"),
            error_model="none",
            saturation=SATURATION,
            spottiness=True,
        ),
        mask=mask,
    )
    rows = reducer.reduce(image).rows
    rejected = reducer.masked_pixels(image) & ~geometry.gap_mask & ~mask
    figure = plt.figure(figsize=(11.5, 8.2), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    first, second = upper.subplots(1, 2, sharey=True)
    show(first, image, geometry.gap_mask)
    first.set_title("unmasked: all but the gaps of the detector")
    show(second, image, geometry.gap_mask)
    second.set_ylabel("")
    layers = np.where(mask & ~geometry.gap_mask, 1.0, np.where(rejected, 2.0, np.nan))
    second.imshow(
        layers, cmap=ListedColormap([BLUE, ORANGE]), vmin=1, vmax=2, interpolation="nearest"
    )
    second.set_title("masked: without mask file (blue) and outliers (orange)")
    pattern, marks = lower.subplots(2, 1, sharex=True, height_ratios=(1, 0.24))
    x = reducer.binning.centres
    shown = (x > RANGE[0]) & (x < RANGE[1])
    for values, color, label in (
        (rows["unmasked"]["I"], GREY, "unmasked"),
        (rows["masked"]["I"], "black", "masked"),
        (rows["masked"]["spottiness"], ORANGE, "spottiness: what rejection took"),
    ):
        pattern.plot(x[shown], values[shown], color=color, lw=0.9, label=label)
    ceiling = 2 * float(np.nanmax(rows["masked"]["I"][shown]))
    pattern.set(ylabel="intensity (counts per pixel)", xlim=RANGE, ylim=(-0.03 * ceiling, ceiling))
    pattern.legend(framealpha=1, edgecolor="white", loc="upper right", ncols=3)
    ticks(marks, {"calcite": BLUE, "rhenium": GREEN})
    return figure


def draw_errors(folder: Path) -> Any:
    """The same exposure again and again: do intensities scatter as the errors say?"""
    _, geometry, mask = simulated(folder, seed=11, cif=[shipped_phases()["calcite"]])
    reducer = FrameReducer(
        geometry,
        choose_binning(geometry, "2theta", None, None),
        ReductionSettings(variants=("unmasked",), error_model="poisson", reject="none"),
        dead=mask,
    )
    angle, height = lines("calcite")
    width = 0.06  # σ of the lines, degrees
    two_theta = geometry.two_theta
    smooth = 0.3 + sum(
        2 * h * np.exp(-((two_theta - a) ** 2) / (2 * width**2))
        for a, h in zip(angle, height, strict=True)
    )
    x = reducer.binning.centres
    shown = (x > 10.8) & (x < 13.0)
    rng = np.random.default_rng(1)
    levels = 10.0 ** np.arange(-2, 2.01, 0.5)
    ratios = []
    for level in levels:
        runs = [
            reducer.reduce(rng.poisson(level * smooth / smooth.mean()).astype(np.int32)).rows
            for _ in range(60)
        ]
        intensity = np.array([run["unmasked"]["I"][shown] for run in runs])
        errors = np.array([run["unmasked"]["I_errors"][shown] for run in runs])
        ratios.append(np.sqrt((errors**2).mean() / intensity.var(axis=0, ddof=1).mean()))
        if np.isclose(level, 1.0):
            example = intensity, errors
    figure, (pattern, ratio) = plt.subplots(
        1, 2, figsize=(11.5, 3.9), layout="constrained", width_ratios=(1.6, 1)
    )
    intensity, errors = example
    for again in intensity[1:20]:
        pattern.plot(x[shown], again, color=GREY, lw=0.3)
    pattern.plot([], [], color=GREY, label="19 more of the same")
    every = slice(None, None, 4)
    pattern.errorbar(
        x[shown][every], intensity[0][every], errors[0][every], fmt=".", ms=3, lw=0.8,
        color=BLUE, label="one exposure, every fourth bin",
    )  # fmt: skip
    pattern.set(xlabel="2θ (degrees)", ylabel="intensity (counts per pixel)", xlim=(10.8, 13))
    pattern.legend(frameon=False)
    pattern.set_title("one count per pixel on average")
    ratio.semilogx(levels, ratios, "o-", color=BLUE)
    ratio.axhline(1, color="black", lw=0.8, ls="--")
    ratio.set(
        xlabel="mean counts per pixel",
        ylabel="stated error / scatter of 60 exposures",
        ylim=(0, 1.1 * max(ratios)),
    )
    ratio.set_title("errors are right above one count, too large below")
    return figure


def draw_probability(folder: Path) -> Any:
    """The same sample exposed longer and longer: what the network says where a phase is, or not."""
    exposures = 10.0 ** np.arange(-4, 2.1, 1)
    said = []
    for number, counts in enumerate(exposures):
        place = folder / str(number)
        scan = xrdpipe.simulate(
            output=place / "scan", scan_shape="6x8", seed=21, counts=float(counts), grains=4.5,
            format="cbf", distractor=False,
        ).path  # fmt: skip
        patterns = xrdpipe.integrate(
            frames=scan / "frames", poni=scan / "geometry.poni", spottiness=True,
            mask=[scan / "mask.npy", scan / "diamond_spots.npy"], output=place / "patterns.h5",
        ).path  # fmt: skip
        found = xrdpipe.map(
            patterns=patterns, scan_shape="6x8", png=False, output=place / "map.h5"
        ).path
        with h5py.File(found) as file, h5py.File(scan / "truth.h5") as truth:
            names = [name.decode() for name in file["entry/phase_map/phase_names"][()]]
            probability = file["entry/phase_map/presence/probability"][()]
            said.append((probability, truth["entry/truth/presence"][()] > 0))
    figure, axes = plt.subplots(1, 3, figsize=(11.5, 3.8), layout="constrained", sharey=True)
    for k, axis in enumerate(axes):
        for there, color, label in (
            (True, GREEN, "where it is"),
            (False, ORANGE, "where it is not"),
        ):
            values = [probability[k][presence[k] == there] for probability, presence in said]
            low, middle, high = np.array([np.nanquantile(v, (0.16, 0.5, 0.84)) for v in values]).T
            axis.fill_between(exposures, low, high, color=color, alpha=0.25, lw=0)
            axis.semilogx(exposures, middle, "o-", color=color, ms=4, label=label)
        axis.axhline(0.5, color="black", lw=0.8, ls="--")
        axis.set(title=names[k], xlabel="exposure (counts per pixel at a strong line)")
    axes[0].set(ylabel="probability of presence", ylim=(-0.02, 1.02))
    axes[0].legend(frameon=False, loc="center left", bbox_to_anchor=(0.02, 0.6))
    return figure


if __name__ == "__main__":
    main()
