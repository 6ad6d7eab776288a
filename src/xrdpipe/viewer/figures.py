"""The figures of the page: map, pattern with lines, probabilities, raw frame."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.models import (
    BasicTicker,
    BoxSelectTool,
    BoxZoomTool,
    ColorBar,
    ColumnDataSource,
    CustomJS,
    DataRange1d,
    FixedTicker,
    HoverTool,
    LassoSelectTool,
    Legend,
    LegendItem,
    LinearColorMapper,
    LogColorMapper,
    PanTool,
    Range1d,
    ResetTool,
    SaveTool,
    WheelZoomTool,
)
from bokeh.palettes import Greys256, Viridis256
from bokeh.plotting import figure
from numpy.typing import NDArray

from xrdpipe.crystal import PhaseLines
from xrdpipe.map_colors import NO_DATA_COLOR, PHASE_COLORS
from xrdpipe.types import FloatArray
from xrdpipe.viewer.plane import Pixel, Plane
from xrdpipe.viewer.scales import SCALES
from xrdpipe.viewer.scripts import EQUAL_SCALE
from xrdpipe.viewer.spectra import Spectrum
from xrdpipe.viewer.views import MapView

if TYPE_CHECKING:
    from xrdpipe.viewer.baseline import FitCurve
    from xrdpipe.viewer.raw_frames import FramePicture, Ring

PATTERN_COLOR, OTHER_COLOR, FIT_COLOR, REGION_COLOR = "#222222", "#999999", "#AA0044", "#332288"

NAME_LENGTH = 16
"""Characters of a phase's name beside an axis."""

IN_LEGEND = 10
"""Phases that a legend over the pattern has room for."""

STRONG = 0.05
"""Lines from this part of the strongest on reach into the pattern."""

LEFT = 92
"""Pixels left of pattern and lines, so that both begin at the same place."""


def color_of(k: int) -> str:
    """Colour of a phase."""
    return PHASE_COLORS[k % len(PHASE_COLORS)]


def short(name: str) -> str:
    """A name that fits beside an axis."""
    return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"


def _quiet(plot: Any) -> Any:
    """Small print, no logo."""
    plot.toolbar.logo = None
    plot.axis.axis_label_text_font_style = "normal"
    plot.axis.axis_label_text_font_size = "9pt"
    plot.axis.major_label_text_font_size = "8pt"
    plot.grid.grid_line_alpha = 0.4
    return plot


class MapFigure:
    """The map, the pixel that is looked at, and the region.

    Parameters
    ----------
    plane
        Where the pixels lie; later ones are drawn in the same way, scattered or not.
    """

    def __init__(self, plane: Plane) -> None:
        self._scattered = plane.scattered
        box = BoxSelectTool(description="region: drag a box")
        lasso = LassoSelectTool(description="region: drag around it")
        wheel = WheelZoomTool(zoom_on_axis=False)
        self.figure = _quiet(
            figure(
                x_range=Range1d(*plane.extent[:2]),
                y_range=Range1d(plane.extent[3], plane.extent[2]),
                tools=[box, lasso, PanTool(), wheel, ResetTool(), SaveTool()],
                active_drag=box,
                active_scroll=wheel,
                sizing_mode="stretch_both",
                min_height=200,
                x_axis_label=plane.x_label,
                y_axis_label=plane.y_label,
                name="map",
            )
        )
        self.figure.grid.visible = False
        self.figure.background_fill_color = "#F4F4F4"
        self.extent = ColumnDataSource(name="extent")
        self.mapper = LinearColorMapper(palette=Viridis256, nan_color=NO_DATA_COLOR)
        self.values = ColumnDataSource(name="map values")
        if plane.scattered:
            size = float(np.clip(420 / np.sqrt(max(plane.x.size, 1)), 3, 22))
            self.figure.scatter(
                "x",
                "y",
                size=size,
                fill_color={"field": "value", "transform": self.mapper},
                line_color=None,
                nonselection_fill_alpha=1.0,
                source=self.values,
            )
        else:
            self.figure.image(
                "image",
                x="x",
                y="y",
                dw="dw",
                dh="dh",
                color_mapper=self.mapper,
                source=self.values,
            )
        self.bar = ColorBar(
            color_mapper=self.mapper,
            width=10,
            padding=4,
            major_label_text_font_size="8pt",
            ticker=BasicTicker(desired_num_ticks=6),
        )
        self.figure.add_layout(self.bar, "right")
        self.marker = ColumnDataSource(name="marker")
        self.outline = ColumnDataSource({"x": [], "y": []}, name="outline")
        for color, width in (("white", 3.0), ("black", 1.2)):
            self.figure.rect(
                "x", "y", "w", "h", fill_alpha=0, line_color=color, line_width=width,
                source=self.marker,
            )  # fmt: skip
            # On a large map a pixel by itself could not be found again.
            self.figure.scatter(
                "x", "y", size=20, fill_alpha=0, line_color=color, line_width=width,
                source=self.marker,
            )  # fmt: skip
            self.figure.patches(
                "x", "y", fill_alpha=0, line_color=color, line_width=width, line_dash="dashed",
                source=self.outline,
            )  # fmt: skip
        fit = CustomJS(args={"map": self.figure, "extent": self.extent}, code=EQUAL_SCALE)
        for size_of in ("inner_width", "inner_height"):
            self.figure.js_on_change(size_of, fit)
        self.extent.js_on_change("data", fit)
        self.place(plane)

    def place(self, plane: Plane) -> None:
        """Another size of the map."""
        left, right, top, bottom = plane.extent
        self.extent.data = {
            "left": [left],
            "right": [right],
            "top": [top],
            "bottom": [bottom],
            "equal": [plane.equal],
        }

    def show(self, plane: Plane, view: MapView) -> None:
        """Draw a view."""
        left, right, top, bottom = plane.extent
        palette: Sequence[str] = view.colors or Viridis256
        self.mapper.update(palette=list(palette), low=view.low, high=view.high)
        self.bar.visible = not view.colors
        if self._scattered:
            self.values.data = {"x": plane.x[0], "y": plane.y[0], "value": view.values[0]}
        else:
            self.values.data = {
                "image": [view.values],
                "x": [left],
                "y": [top],
                "dw": [right - left],
                "dh": [bottom - top],
            }

    def mark(self, plane: Plane, pixel: Pixel) -> None:
        """Ring the pixel."""
        self.marker.data = {
            "x": [float(plane.x[pixel])],
            "y": [float(plane.y[pixel])],
            "w": [plane.width],
            "h": [plane.height],
        }

    def surround(self, region: Any) -> None:
        """Draw the outline of a region, or none."""
        if region is None:
            self.outline.data = {"x": [], "y": []}
        elif region["type"] == "rect":
            x0, x1, y0, y1 = (region[k] for k in ("x0", "x1", "y0", "y1"))
            self.outline.data = {"x": [[x0, x1, x1, x0]], "y": [[y0, y0, y1, y1]]}
        else:
            self.outline.data = {"x": [list(region["x"])], "y": [list(region["y"])]}


class PatternFigure:
    """Patterns over the lines of the phases.

    Parameters
    ----------
    names
        Phases in class order.
    lines
        Of every phase at the wavelength of the patterns: angle in degrees; or nothing.
    variants
        Of the patterns, that of the map first.
    """

    def __init__(
        self,
        names: Sequence[str],
        lines: Sequence[tuple[PhaseLines, NDArray[np.float64]]],
        variants: Sequence[str],
        span: tuple[float, float],
        units: str,
    ) -> None:
        x_range = Range1d(*span, bounds=(span[0] - 1, span[1] + 1))
        wheel = WheelZoomTool(dimensions="width")
        box = BoxZoomTool()
        self.figure = _quiet(
            figure(
                x_range=x_range,
                y_range=DataRange1d(only_visible=True),
                tools=[box, PanTool(), wheel, ResetTool(), SaveTool()],
                active_drag=box,
                active_scroll=wheel,
                sizing_mode="stretch_both",
                min_height=170,
                min_border_left=LEFT,
                y_axis_label=f"intensity ({units})" if units else "intensity",
                name="pattern",
            )
        )
        self.figure.xaxis.visible = False  # the lines below have the same
        self.scale = next(iter(SCALES))
        self.sources: dict[str, ColumnDataSource] = {}
        self._band = ColumnDataSource({"x": [], "low": [], "high": []}, name="errors")
        band = self.figure.varea("x", "low", "high", fill_color="#888888", fill_alpha=0.35,
                                 source=self._band)  # fmt: skip
        items: list[LegendItem] = []
        drawn = []
        main = variants[0] if variants else ""
        for name in variants[::-1]:
            color, width = (PATTERN_COLOR, 1.2) if name == main else (OTHER_COLOR, 1.0)
            renderer = self._line(name, color, width)
            items.insert(0, LegendItem(label=f"{name}", renderers=[renderer]))
            if name == main:
                drawn.append(renderer)
        items.append(LegendItem(label="± σ", renderers=[band]))
        fit, below = self._line("fit", FIT_COLOR, 1.3), self._line("background", FIT_COLOR, 1.0)
        below.glyph.line_dash = "dotted"
        mean = self._line("region", REGION_COLOR, 1.4)
        items.append(LegendItem(label="fit, its background", renderers=[fit, below]))
        items.append(LegendItem(label="mean of the region", renderers=[mean]))
        self.figure.y_range.renderers = [*drawn, mean]
        self.strip = self._strip(names, x_range)
        self.lines = [self._ticks(k, table, angle) for k, (table, angle) in enumerate(lines)]
        if len(lines) <= IN_LEGEND:
            items += [
                LegendItem(label=short(name), renderers=drawn)
                for name, drawn in zip(names, self.lines, strict=False)
            ]
        legend = Legend(
            items=items,
            click_policy="hide",
            location="top_right",
            label_text_font_size="8pt",
            background_fill_alpha=0.75,
            border_line_alpha=0.3,
            spacing=0,
            padding=4,
            margin=4,
            glyph_height=14,
            label_height=14,
        )
        self.figure.add_layout(legend)
        self.legend = legend

    def _line(self, name: str, color: str, width: float) -> Any:
        self.sources[name] = ColumnDataSource({"x": [], "y": []}, name=name)
        return self.figure.line("x", "y", color=color, width=width, source=self.sources[name])

    def _strip(self, names: Sequence[str], x_range: Range1d) -> Any:
        """A lane per phase for the ticks at its lines."""
        phases = max(len(names), 1)
        strip = figure(
            x_range=x_range,
            y_range=Range1d(phases - 0.4, -0.6),
            tools=[],
            toolbar_location=None,
            sizing_mode="stretch_width",
            height=int(np.clip(15 * phases, 15, 160)) + 48,
            min_border_left=LEFT,
            x_axis_label="2θ (degrees)",
            name="lines",
        )
        _quiet(strip)
        strip.ygrid.visible = False
        strip.yaxis.ticker = FixedTicker(ticks=list(range(len(names))))
        strip.yaxis.major_label_overrides = {k: short(name) for k, name in enumerate(names)}
        strip.yaxis.major_label_text_font_size = "8pt" if phases <= 10 else "6pt"
        strip.yaxis.major_tick_line_color = None
        return strip

    def _ticks(self, k: int, table: PhaseLines, angle: NDArray[np.float64]) -> list[Any]:
        """Ticks of a phase, and faint lines up into the pattern."""
        seen = np.isfinite(angle)
        intensity = table.intensity[seen]
        half = 0.15 + 0.3 * np.sqrt(intensity)
        ticks = ColumnDataSource(
            {
                "x": angle[seen],
                "y": np.full(int(seen.sum()), float(k)),
                "low": k + half,
                "high": k - half,
                "phase": [table.name] * int(seen.sum()),
                "hkl": [" ".join(map(str, hkl)) for hkl in table.hkl[seen].tolist()],
                "d": table.d[seen],
                "intensity": intensity,
            },
            name=f"lines of {table.name}",
        )
        color = color_of(k)
        drawn = self.strip.segment("x", "low", "x", "high", color=color, line_width=1.6,
                                   source=ticks)  # fmt: skip
        # Wider than the tick: a hair is hard to hit.
        target = self.strip.rect(
            "x", "y", width=7, height=0.9, width_units="screen", fill_alpha=0, line_alpha=0,
            source=ticks,
        )  # fmt: skip
        self.strip.add_tools(
            HoverTool(
                renderers=[target],
                tooltips=[
                    ("phase", "@phase"),
                    ("hkl", "@hkl"),
                    ("2θ", "@x{0.000}°"),
                    ("d", "@d{0.0000} Å"),
                    ("intensity", "@intensity{0.0 %}"),
                ],
            )
        )
        strong = intensity >= STRONG
        up = ColumnDataSource({"x": angle[seen][strong], "alpha": 0.12 + 0.4 * intensity[strong]})
        spans = self.figure.vspan(
            x="x", line_color=color, line_alpha="alpha", line_width=1.2, source=up
        )
        return [drawn, spans, target]

    def rescale(self, name: str) -> None:
        """Draw on one of :data:`~xrdpipe.viewer.scales.SCALES` what is shown from now on."""
        self.scale = name
        self.figure.yaxis.formatter = SCALES[name].label()

    def _height(self, values: FloatArray) -> NDArray[np.float64]:
        return SCALES[self.scale].drawn(np.asarray(values, dtype=np.float64))

    def show(self, spectra: Sequence[Spectrum]) -> None:
        """Draw the patterns of a pixel; none clears them."""
        held = {spectrum.name: spectrum for spectrum in spectra}
        for name, source in self.sources.items():
            if name in ("fit", "background", "region"):
                continue
            one = held.get(name)
            x, y = ([], []) if one is None else (one.two_theta, self._height(one.intensity))
            source.data = {"x": x, "y": y}
        band = _band(spectra[0]) if spectra else {"x": [], "low": [], "high": []}
        self._band.data = band | {edge: self._height(band[edge]) for edge in ("low", "high")}

    def show_lines(self, phases: Collection[int]) -> None:
        """Show the lines of some phases only."""
        for k, renderers in enumerate(self.lines):
            for renderer in renderers:
                renderer.visible = k in phases

    def show_fit(self, fit: FitCurve | None) -> None:
        """Draw a fit, or none."""
        for name in ("fit", "background"):
            data: dict[str, Any] = {"x": [], "y": []}
            if fit is not None:
                y = fit.total if name == "fit" else fit.background
                data = {"x": fit.two_theta, "y": self._height(y)}
            self.sources[name].data = data

    def show_region(self, mean: Spectrum | None) -> None:
        """Draw the mean of the region, or none."""
        x, y = ([], []) if mean is None else (mean.two_theta, self._height(mean.intensity))
        self.sources["region"].data = {"x": x, "y": y}


def _band(spectrum: Spectrum) -> dict[str, Any]:
    if spectrum.errors is None:
        return {"x": [], "low": [], "high": []}
    good = np.isfinite(spectrum.intensity) & np.isfinite(spectrum.errors)
    return {
        "x": spectrum.two_theta[good],
        "low": (spectrum.intensity - spectrum.errors)[good],
        "high": (spectrum.intensity + spectrum.errors)[good],
    }


class ProbabilityFigure:
    """A bar per phase: probability, spread over the ensemble, and the threshold."""

    def __init__(self, names: Sequence[str]) -> None:
        phases = max(len(names), 1)
        many = phases > 8
        self.figure = _quiet(
            figure(
                x_range=Range1d(0, 1.02),
                y_range=Range1d(phases - 0.4, -0.6),
                tools=[],
                toolbar_location=None,
                width=330,
                height=int(np.clip((10 if many else 20) * phases, 24, 170)) + 42,
                x_axis_label="probability of presence ± spread",
                name="probabilities",
            )
        )
        self.figure.axis.axis_label_text_font_size = "8pt"
        self.figure.ygrid.visible = False
        self.figure.yaxis.ticker = FixedTicker(ticks=list(range(len(names))))
        self.figure.yaxis.major_label_overrides = {k: short(n) for k, n in enumerate(names)}
        self.figure.yaxis.major_label_text_font_size = "6pt" if many else "8pt"
        self.figure.yaxis.major_tick_line_color = None
        self.source = ColumnDataSource(name="probability")
        self._names = names
        self.figure.hbar(
            y="y", right="p", height=0.7, fill_color="color", line_color=None, source=self.source
        )
        self.figure.segment(
            "low", "y", "high", "y", line_color="black", line_width=2, source=self.source
        )
        self.figure.segment(
            "threshold", "top", "threshold", "bottom", line_color="black", line_width=1.4,
            line_dash=[3, 2], source=self.source,
        )  # fmt: skip
        self.figure.text(
            x=0.02, y="y", text="text", text_baseline="middle", text_font_size="8pt",
            source=self.source,
        )  # fmt: skip

    def show(
        self,
        probability: NDArray[np.float32],
        spread: NDArray[np.float32],
        thresholds: NDArray[np.float64],
    ) -> None:
        """Draw the probabilities of a pixel."""
        p = probability.astype(float)
        s = np.nan_to_num(spread.astype(float))
        k = np.arange(len(p), dtype=float)
        self.source.data = {
            "y": k,
            "p": p,
            "low": np.clip(p - s, 0, 1),
            "high": np.clip(p + s, 0, 1),
            "threshold": thresholds.copy(),
            "top": k - 0.45,
            "bottom": k + 0.45,
            "color": [color_of(i) for i in range(len(p))],
            "text": ["" if np.isfinite(v) else "undetermined" for v in p],
        }


class FrameFigure:
    """The raw frame in grey, the mask in red over it, the rings of the phases in their colours."""

    def __init__(self, names: Sequence[str]) -> None:
        box = BoxZoomTool(match_aspect=True)
        wheel = WheelZoomTool(zoom_on_axis=False)
        self.figure = _quiet(
            figure(
                x_range=Range1d(0, 1),
                y_range=Range1d(1, 0),
                tools=[PanTool(), box, wheel, ResetTool(), SaveTool()],
                active_scroll=wheel,
                sizing_mode="stretch_both",
                min_height=200,
                x_axis_label="column (pixel)",
                y_axis_label="row (pixel)",
                name="frame",
            )
        )
        self.figure.grid.visible = False
        self.figure.background_fill_color = "#DDDDDD"
        self.mapper = LogColorMapper(palette=Greys256[::-1], low=0.5, high=10, nan_color="#8FB7D9",
                                     low_color="#FFFFFF")  # fmt: skip
        self.values = ColumnDataSource(name="counts")
        self.mask = ColumnDataSource(name="mask over the frame")
        self.extent = ColumnDataSource()
        self.figure.image("image", x=0, y=0, dw="dw", dh="dh", color_mapper=self.mapper,
                          source=self.values)  # fmt: skip
        red = LinearColorMapper(palette=["rgba(0,0,0,0)", "rgba(213,94,0,0.35)"], low=0, high=1)
        masked = self.figure.image("image", x=0, y=0, dw="dw", dh="dh", color_mapper=red,
                                   source=self.mask)  # fmt: skip
        self.rings = []
        # An image has no sign in a legend of its own.
        sign = self.figure.quad(0, 0, 0, 0, fill_color="#D55E00", fill_alpha=0.35, line_color=None)
        items = [LegendItem(label="mask", renderers=[sign, masked])]
        for k, name in enumerate(names):
            source = ColumnDataSource({"x": [], "y": [], "hkl": []}, name=f"rings of {name}")
            drawn = self.figure.multi_line("x", "y", line_color=color_of(k), line_width=1.4,
                                           line_alpha=0.8, source=source)  # fmt: skip
            self.rings.append(source)
            items.append(LegendItem(label=short(name), renderers=[drawn]))
            self.figure.add_tools(
                HoverTool(
                    renderers=[drawn],
                    tooltips=[("phase", name), ("hkl", "@hkl"), ("2θ", "@angle{0.000}°")],
                    line_policy="interp",
                )
            )
        self.figure.add_layout(
            Legend(
                items=items,
                click_policy="hide",
                location="top_left",
                label_text_font_size="8pt",
                spacing=0,
                padding=4,
                glyph_height=14,
                label_height=14,
            ),
            "right",
        )
        self.figure.add_layout(
            ColorBar(
                color_mapper=self.mapper,
                width=10,
                title="counts per pixel",
                title_text_font_size="8pt",
                major_label_text_font_size="8pt",
            ),
            "right",
        )
        fit = CustomJS(args={"map": self.figure, "extent": self.extent}, code=EQUAL_SCALE)
        for size_of in ("inner_width", "inner_height"):
            self.figure.js_on_change(size_of, fit)
        self.extent.js_on_change("data", fit)
        self.clear()

    def show(self, picture: FramePicture, rings: Sequence[Sequence[Ring]]) -> None:
        """Draw a frame with the rings of each phase."""
        rows, columns = picture.shape
        known = picture.counts[np.isfinite(picture.counts) & (picture.counts > 0)]
        low, high = np.quantile(known, [0.02, 0.999]) if known.size else (0.5, 1.0)
        self.mapper.update(low=float(low), high=float(max(high, 2 * low)))
        size = {"dw": [columns], "dh": [rows]}
        self.values.data = {"image": [picture.counts], **size}
        self.mask.data = {
            "image": [(picture.masked & np.isfinite(picture.counts)).astype(np.uint8)],
            **size,
        }
        for source, found in zip(self.rings, rings, strict=False):
            pieces = [(ring, x, y) for ring in found
                      for x, y in zip(ring.columns, ring.rows, strict=True)]  # fmt: skip
            source.data = {
                "x": [x for _, x, _ in pieces],
                "y": [y for _, _, y in pieces],
                "hkl": [ring.hkl for ring, _, _ in pieces],
                "angle": [ring.two_theta for ring, _, _ in pieces],
            }
        extent = {"left": [0], "right": [columns], "top": [0], "bottom": [rows], "equal": [True]}
        if dict(self.extent.data) != extent:  # a zoom stays from frame to frame
            self.extent.data = extent

    def clear(self) -> None:
        """Show no frame."""
        self.values.data = {"image": [], "dw": [], "dh": []}
        self.mask.data = {"image": [], "dw": [], "dh": []}
        for source in self.rings:
            source.data = {"x": [], "y": [], "hkl": [], "angle": []}
