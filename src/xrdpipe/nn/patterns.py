"""Drawn scenes to patterns: masked and unmasked version and spottiness from one draw.

Vectorised over a batch, on any torch device.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xrdpipe.nn.counting import fields, poisson, ripple, running_sum, uniform_field
from xrdpipe.nn.lineshapes import Lines, render_lines
from xrdpipe.synthesis.rings import GAUSSIAN_PEAK, LORENTZIAN_PEAK, peak_height
from xrdpipe.synthesis.scene import Generator, Scene, Targets, draw_scene
from xrdpipe.synthesis.surroundings import KNOT

CLEAN, SPOTS, RIPPLE, PIXELS = range(4)
"""Random fields of a sample."""


@dataclass(frozen=True)
class Pairs:
    """Synthetic patterns, each masked and unmasked; N samples, n points, K phases.

    Parameters
    ----------
    masked, unmasked
        Shape (N, n) float32, counts per pixel; NaN where there is no data.
    spottiness
        Same shape: the intensity that rejection took out; what a mask file took is not in it.
    coverage
        Same shape, 0-1; 1 wherever there is data if the coverage is not told.
    presence_masked, presence_unmasked
        Shape (N, K) int8: 1 present, 0 absent, −1 present below the detection limit.
    strength_masked, strength_unmasked
        Shape (N, K) float32: matched-filter signal to noise of the phase.
    foreign_masked, foreign_unmasked
        Shape (N,) int8, whether a phase outside the library is there; values as for the presence.
    targets
        What the patterns hold, in numpy.
    drawn
        What was drawn for each pattern as a whole, by name, (N,) each: counts per pixel, widths,
        errors of the geometry, noise.
    choice
        Shape (N,), one number in (0, 1) per sample: for choosing one of its versions.
    """

    masked: Tensor
    unmasked: Tensor
    spottiness: Tensor
    coverage: Tensor
    presence_masked: Tensor
    presence_unmasked: Tensor
    strength_masked: Tensor
    strength_unmasked: Tensor
    foreign_masked: Tensor
    foreign_unmasked: Tensor
    targets: Targets
    drawn: dict[str, NDArray[np.float64]]
    choice: Tensor

    def __len__(self) -> int:
        return len(self.masked)

    def as_tensors(self) -> dict[str, Tensor]:
        """All arrays by name, those of the targets included."""
        mine = {part.name: getattr(self, part.name) for part in dataclasses.fields(self)}
        targets, drawn = mine.pop("targets"), mine.pop("drawn")
        known = {part.name: getattr(targets, part.name) for part in dataclasses.fields(targets)}
        known |= {f"drawn_{name}": values for name, values in drawn.items()}
        return mine | {name: torch.as_tensor(values) for name, values in known.items()}


@dataclass(frozen=True)
class Chosen:
    """One version of each pattern, in numpy: what a network is trained and judged on.

    Parameters
    ----------
    intensity, coverage, spottiness
        Shape (N, n) float32.
    presence
        Shape (N, K) int8.
    strength
        Shape (N, K) float32.
    foreign
        Shape (N,) int8.
    masked
        Shape (N,), True where it is the masked version.
    """

    intensity: NDArray[np.float32]
    coverage: NDArray[np.float32]
    spottiness: NDArray[np.float32]
    presence: NDArray[np.int8]
    strength: NDArray[np.float32]
    foreign: NDArray[np.int8]
    masked: NDArray[np.bool_]

    def labels(self, unknown: bool) -> NDArray[np.int8]:
        """The presence, and with ``unknown`` whether something else is there, as last column."""
        return np.column_stack([self.presence, self.foreign]) if unknown else self.presence

    @classmethod
    def joined(cls, parts: list[Chosen]) -> Chosen:
        """Batches one after the other."""
        return cls(
            *(
                np.concatenate([getattr(one, part.name) for one in parts])
                for part in dataclasses.fields(cls)
            )
        )


def choose(batch: dict[str, Tensor], masked_share: float, spottiness_share: float = 1.0) -> Chosen:
    """The masked version of a share of the samples, the unmasked one of the others.

    Parameters
    ----------
    batch
        From :meth:`Pairs.as_tensors`.
    masked_share
        0-1; which samples it takes depends on their numbers alone.
    spottiness_share
        0-1, samples whose spottiness is told; that of the others is 0.
    """
    masked = batch["choice"] < masked_share
    # The digits of the same number further down are independent of it.
    told = torch.frac(batch["choice"].double() * 4096) < spottiness_share

    def version(name: str) -> NDArray[Any]:
        one, other = batch[f"{name}masked"], batch[f"{name}unmasked"]
        which = masked.reshape(-1, *(1,) * (one.ndim - 1))
        return np.asarray(torch.where(which, one, other).cpu().numpy())

    return Chosen(
        intensity=version(""),
        coverage=batch["coverage"].cpu().numpy(),
        spottiness=torch.where(told[:, None], batch["spottiness"], 0.0).cpu().numpy(),
        presence=version("presence_"),
        strength=version("strength_"),
        foreign=version("foreign_"),
        masked=masked.cpu().numpy(),
    )


def draw_pairs(
    generator: Generator, first: int, number: int, seed: int, device: str | torch.device = "cpu"
) -> Pairs:
    """Draw and render the samples first … first + number − 1 of a stream.

    Parameters
    ----------
    generator
        From :func:`~xrdpipe.synthesis.scene.make_generator`.
    first, number
        Part of the endless stream.
    seed
        Names the stream.
    device
        Where to render; the drawn numbers are the same for all.
    """
    return render(generator, draw_scene(generator, first, number, seed), device)


def render(generator: Generator, scene: Scene, device: str | torch.device = "cpu") -> Pairs:
    """Render a drawn scene."""
    canvas = _Canvas(generator, scene, torch.device(device))
    recipe = generator.recipe
    coverage = canvas.coverage()
    clean, spots, filed = (
        (lines + canvas.joined(smooth)).clamp_(min=0)
        for lines, smooth in zip(
            canvas.lines(),
            (scene.scenery.smooth + scene.halos.clean, scene.halos.spots, scene.halos.filed),
            strict=True,
        )
    )
    bright = spots + filed
    if recipe.noise.on:
        factor = 1 + canvas.column(scene.ripple) * canvas.ripple()
        counted, counted_bright, pixels = canvas.count(clean * factor, bright * factor, coverage)
    else:
        counted, counted_bright, pixels = clean, bright, canvas.pixels(coverage)
    shown = (pixels > 0) & (coverage > 0)
    nothing = torch.tensor(torch.nan, device=canvas.device)
    masked = torch.where(shown, counted, nothing)
    rejected = counted_bright * (spots / bright.clamp(min=1e-30))
    hot, hot_in_file = canvas.towers(filed=False), canvas.towers(filed=True)
    told = canvas.column(scene.told) > 0
    present = torch.as_tensor(scene.targets.present, device=canvas.device)
    foreign = canvas.tensor(scene.foreign, torch.bool)[:, None]
    every = torch.cat([present, foreign], dim=1)
    if recipe.labels.on:
        strengths = canvas.strengths(clean, clean + bright, pixels, shown)
        limit = recipe.labels.detection_limit
    else:
        certain = torch.where(every, torch.inf, 0.0)
        strengths, limit = (certain, certain), 0.0
    labels = [_labels(every, strength, limit) for strength in strengths]
    return Pairs(
        masked=masked,
        unmasked=masked + counted_bright + hot + hot_in_file,
        spottiness=torch.where(shown, rejected + hot, nothing),
        coverage=torch.where(shown, torch.where(told, coverage, 1.0), 0.0),
        presence_masked=labels[0][:, :-1],
        presence_unmasked=labels[1][:, :-1],
        strength_masked=strengths[0][:, :-1],
        strength_unmasked=strengths[1][:, :-1],
        foreign_masked=labels[0][:, -1],
        foreign_unmasked=labels[1][:, -1],
        targets=scene.targets,
        drawn=scene.drawn,
        choice=canvas.tensor(scene.choice),
    )


def _labels(present: Tensor, strength: Tensor, limit: float) -> Tensor:
    """1 present, 0 absent, −1 present but not visible."""
    visible = (strength >= limit).to(torch.int8) * 2 - 1
    return torch.where(present, visible, 0).to(torch.int8)


class _Canvas:
    """A scene on a device, with what turns its parts into curves on the grid."""

    def __init__(self, generator: Generator, scene: Scene, device: torch.device) -> None:
        self.generator = generator
        self.scene = scene
        self.device = device
        self.size = generator.grid.size
        self.step = generator.grid.step
        self.keys = torch.as_tensor(scene.keys.view(np.int32), device=device)

    def tensor(self, values: NDArray[np.generic], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.as_tensor(values, device=self.device).to(dtype)

    def column(self, values: NDArray[np.generic]) -> Tensor:
        """One number per sample, shape (N, 1), float32."""
        return self.tensor(values)[:, None]

    def joined(self, knots: NDArray[np.float64]) -> Tensor:
        """Values at the knots to values at the points, (N, n)."""
        if not knots.any():
            return torch.zeros((), device=self.device)
        points = (knots.shape[1] - 1) * KNOT + 1
        curve = torch.nn.functional.interpolate(
            self.tensor(knots)[:, None], size=points, mode="linear", align_corners=True
        )
        return curve[:, 0, : self.size]

    def coverage(self) -> Tensor:
        """Fraction of each ring that is seen, (N, n)."""
        covered = self.joined(self.scene.scenery.coverage.knots)
        blind = self.scene.scenery.coverage.blind
        two_theta = self.tensor(self.generator.grid.two_theta, torch.float64)
        for k in range(blind.shape[1]):
            rows = np.flatnonzero(blind[:, k, 0] <= blind[:, k, 1])
            if len(rows):
                low, high = (self.tensor(blind[rows, k, i], torch.float64)[:, None] for i in (0, 1))
                inside = (two_theta >= low) & (two_theta <= high)
                covered[rows] = torch.where(inside, 0.0, covered[rows])
        return covered

    def lines(self) -> list[Tensor]:
        """What masking leaves of all lines, what rejection takes, and what a mask file takes.

        Shape (N, n) each, counts per pixel.
        """
        sticks, grid, number = self.scene.sticks, self.generator.grid, len(self.scene)
        areas = (sticks.clean, sticks.spots, sticks.filed)
        versions = [area for area in areas if area.any()]
        nothing = torch.zeros((number, self.size), device=self.device)
        if not versions:
            return [nothing] * 3
        lines = Lines(
            self.tensor(sticks.sample, torch.int64),
            self.tensor((sticks.position - grid.start) / grid.step, torch.float64),
            self.tensor(sticks.width / grid.step, torch.float64),
            self.tensor(sticks.mixing, torch.float64),
            self.tensor(np.stack(versions, axis=1) / grid.step, torch.float64),
        )
        drawn = iter(render_lines(lines, number, self.size).unbind(1))
        return [next(drawn) if area.any() else nothing for area in areas]

    def ripple(self) -> Tensor:
        length = self.tensor(self.scene.ripple_length, torch.int64)
        return ripple(self.keys, RIPPLE, length, self.size)

    def pixels(self, coverage: Tensor) -> Tensor:
        """Expected number of pixels of every bin, (N, n)."""
        ring = self.tensor(self.generator.grid.two_theta) * (2 * np.pi * self.step)
        return ring / self.column(self.scene.pixel) ** 2 * coverage

    def count(
        self, clean: Tensor, spots: Tensor, coverage: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Means per pixel after counting, and the pixels that they come from; all (N, n).

        A ring at 2θ holds 2π·2θ/p pixels per pixel width p. Splitting spreads each pixel over p,
        which is several bins: a running sum of counts over one of pixels, so the noise of
        neighbouring bins is correlated.
        """
        scene, split = self.scene, self.scene.split
        pixels = self.pixels(coverage)
        if not split.all():
            rows = np.flatnonzero(~split)
            uniform = uniform_field(self.keys[rows], PIXELS, self.size)
            whole = poisson(pixels[rows], uniform)
            pixels = pixels.index_copy(0, self.tensor(rows, torch.int64), whole)
        uniform, disturbance = fields(self.keys, CLEAN, self.size)
        counts = poisson(pixels * clean, uniform)
        counts += self.column(scene.readout) * torch.sqrt(pixels) * disturbance
        bright = poisson(pixels * spots, uniform_field(self.keys, SPOTS, self.size))
        width = np.where(split, np.round(scene.pixel / self.step).astype(np.int64), 0)
        half = self.tensor(width // 2, torch.int64)
        counts, bright, pixels = running_sum(torch.stack([counts, bright, pixels]), half)
        safe = pixels.clamp(min=1e-9)
        return counts / safe, bright / safe, pixels

    def towers(self, filed: bool) -> Tensor:
        """Hot pixels, those in a mask file or the others, (N, n), counts per pixel."""
        towers, grid = self.scene.towers, self.generator.grid
        mine = np.flatnonzero(towers.filed == filed)
        if not len(mine):
            return torch.zeros((), device=self.device)
        edges = torch.zeros((len(self.scene), self.size + 1), device=self.device)
        sample = self.tensor(towers.sample[mine], torch.int64)
        for side, sign in ((towers.low[mine], 1.0), (towers.high[mine], -1.0)):
            place = np.clip(np.ceil((side - grid.start) / grid.step), 0, self.size)
            index = sample * (self.size + 1) + self.tensor(place, torch.int64)
            edges.view(-1).index_add_(0, index, sign * self.tensor(towers.counts[mine]))
        summed = torch.cumsum(edges, dim=1, dtype=torch.float64)[:, : self.size]
        return summed.clamp_(min=0).to(torch.float32)

    def strengths(
        self, clean: Tensor, whole: Tensor, pixels: Tensor, shown: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Matched-filter signal to noise of every phase, masked and unmasked, (N, K + 1) each.

        √(Σ s²/σ²) over the lines of the phase, each integrated over its profile; the last column
        is of all phases outside the library together. σ holds the counting noise and, where other
        lines stand, a part of their height: nobody knows them well enough to see a faint line
        under a strong one.
        """
        scene, sticks = self.scene, self.scene.sticks
        known = self.generator.table.labelled + 1
        mine = np.flatnonzero(sticks.owner >= 0)
        place = np.round((sticks.position[mine] - self.generator.grid.start) / self.step)
        inside = (place >= 0) & (place < self.size)
        mine, place = mine[inside], place[inside]
        sample = self.tensor(sticks.sample[mine], torch.int64)
        point = self.tensor(place, torch.int64)
        visible = shown[sample, point]
        count = pixels[sample, point].clamp(min=1e-9)
        square = self.tensor(_profile_square(sticks.mixing[mine]) / sticks.width[mine] / self.step)
        owner = sample * known + self.tensor(sticks.owner[mine], torch.int64)
        # Bins that share pixels carry the information of one; the ripple is one number per length.
        pixel_bins = np.where(scene.split, np.maximum(np.round(scene.pixel / self.step), 1), 1)
        together = self.tensor(pixel_bins)[sample]
        shaken = self.tensor(scene.ripple**2 * scene.ripple_length)[sample]
        read = self.tensor(scene.readout**2)[sample]
        smooth = self.joined(scene.scenery.smooth).expand(len(scene), self.size)[sample, point]
        peak = self.tensor(peak_height(sticks.mixing[mine]) / sticks.width[mine])
        doubt = self.generator.recipe.labels.overlap**2 * self.tensor(
            sticks.width[mine] / self.step
        )
        strengths = []
        for areas, level in ((sticks.clean, clean), (sticks.clean + sticks.spots, whole)):
            height = level[sample, point]
            variance = (height + read + 0.5 / count) / count
            # Sums of pixels over a running window are already in ``count``.
            area = self.tensor(areas[mine])
            others = (height - smooth - area * peak).clamp(min=0)
            variance = variance * together + shaken * height**2 + doubt * others**2
            signal = area**2 * square / variance.clamp(min=1e-30)
            total = torch.zeros(len(scene) * known, device=self.device)
            total.index_add_(0, owner, torch.where(visible, signal, 0.0))
            strengths.append(torch.sqrt(total).reshape(len(scene), known))
        return strengths[0], strengths[1]


def _profile_square(mixing: NDArray[np.float64]) -> NDArray[np.float64]:
    """∫ p² of a pseudo-Voigt of unit area and FWHM, between its Gaussian and Lorentzian limits."""
    gauss, lorentz = GAUSSIAN_PEAK / np.sqrt(2), LORENTZIAN_PEAK / 2
    squared: NDArray[np.float64] = gauss * (1 - mixing) + lorentz * mixing
    return squared
