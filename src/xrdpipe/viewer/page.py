"""The page: figures and controls of one browser tab, bound to what is being looked at."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.document import Document
from bokeh.events import DoubleTap, Press, SelectionGeometry, Tap
from bokeh.layouts import column, row
from bokeh.models import (
    Button,
    ColumnDataSource,
    CustomJS,
    Div,
    RadioButtonGroup,
    Select,
    Slider,
    Toggle,
)

from xrdpipe.crystal import PhaseLines
from xrdpipe.errors import InputMissingError, XrdpipeError
from xrdpipe.store.map_record import MapRecord, read_map_record
from xrdpipe.viewer.background import Background
from xrdpipe.viewer.explorer import Explorer
from xrdpipe.viewer.figures import (
    IN_LEGEND,
    FrameFigure,
    MapFigure,
    PatternFigure,
    ProbabilityFigure,
)
from xrdpipe.viewer.scales import SCALES
from xrdpipe.viewer.scripts import HANDS
from xrdpipe.viewer.spectra import Spectrum, mean_of_rows
from xrdpipe.viewer.views import TOGETHER, choices, pixels

if TYPE_CHECKING:
    from xrdpipe.viewer.baseline import Baseline
    from xrdpipe.viewer.raw_frames import FramePicture, Ring

LOOK_EVERY = 2000
"""Milliseconds between two looks at the map file."""

ALL_PHASES, PRESENT = "all phases", "present phases"

FONT = {"font-family": "system-ui, sans-serif", "font-size": "12px", "line-height": "1.35"}

HINT = (
    "Click a pixel, or go with the arrow keys (Shift: ten at once). Drag a box, or a lasso, for "
    "the mean of a region. The wheel zooms."
)

Stamp = tuple[int, int, int]


def stamp_of(path: Path) -> Stamp | None:
    """Changes when a file is replaced; None while there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


class Page:
    """One browser tab.

    Parameters
    ----------
    document
        Of Bokeh, empty.
    path
        Map file; it may come later, and be replaced.
    background
        Where long work is done; a thread of its own if not given.
    """

    def __init__(
        self, document: Document, path: Path, background: Background | None = None
    ) -> None:
        self.document, self.path = document, path
        self.background = background or Background(document)
        self.explorer: Explorer | None = None
        self._stamp: Stamp | None = None
        self._baseline: Baseline | None = None
        self._no_fit = ""
        self._showing = False
        self._mean: Spectrum | None = None
        document.title = f"{path.name} - xrdpipe"
        self.message = Div(
            text=f"<h3>{escape(path.name)}</h3>Waiting for {escape(str(path))}: it appears with "
            "the first frames of the scan.",
            name="waiting",
            styles=FONT | {"font-size": "16px", "margin": "40px"},
        )
        document.add_root(self.message)
        self.look()
        document.add_periodic_callback(self.look, LOOK_EVERY)
        document.on_session_destroyed(lambda _: self.close())

    def close(self) -> None:
        """The tab was closed."""
        self.background.close()
        if self.explorer is not None:
            self.explorer.close()

    # --- the file ----------------------------------------------------------------------------

    def look(self) -> None:
        """Read the map if it is another than before."""
        stamp = stamp_of(self.path)
        if stamp is None or stamp == self._stamp:
            return
        try:
            record = read_map_record(self.path)
        except InputMissingError:
            return  # replaced at this moment; the next look finds it
        except XrdpipeError as error:
            self._stamp = stamp
            self._say(str(error))
            return
        self._stamp = stamp
        self._take(record)

    def _take(self, record: MapRecord) -> None:
        before = self.explorer
        explorer = Explorer(record, before)
        same = before is not None and _alike(before, explorer)
        self.explorer = explorer
        if before is not None:
            before.close()
        self.background.forget("mean")
        if not same:
            self._baseline, self._no_fit = None, ""
            root = self.build()
        self.map.place(explorer.plane)
        self._update_map()
        self._update_pixel()
        self._update_region()
        if not same:
            self.document.clear()
            self.document.add_root(root)

    def _say(self, text: str) -> None:
        """A problem, in the head of the page."""
        if self.explorer is None:
            self.message.text = escape(text)
        else:
            self.problem.text = escape(text)

    # --- layout ------------------------------------------------------------------------------

    def build(self) -> Any:
        """Make figures and controls for a map of this kind; they enter the document filled."""
        explorer = self._explorer
        names = explorer.names
        self.map = MapFigure(explorer.plane)
        self.pattern = self._pattern_figure()
        self.probability = ProbabilityFigure(names)
        self.frame = FrameFigure(names)
        self.headline = Div(styles=FONT, sizing_mode="stretch_width", name="headline")
        self.problem = Div(styles=FONT | {"color": "#A00000"}, name="problem")
        self.facts = Div(styles=FONT, sizing_mode="stretch_width", name="facts")
        self.legend = Div(styles=FONT, sizing_mode="stretch_width", name="legend")
        self.region_text = Div(styles=FONT, sizing_mode="stretch_width", name="region text")
        self.frame_text = Div(styles=FONT, sizing_mode="stretch_width", name="frame text")
        self.notes = Div(styles=FONT, sizing_mode="stretch_width", name="notes")
        controls = self._map_controls()
        buttons = self._pattern_buttons()
        self.tabs = RadioButtonGroup(
            labels=["Pattern", "Raw frame"], active=0, width=170, height=28, margin=(2, 5, 2, 5),
            name="tabs",
        )  # fmt: skip
        self.tabs.on_change("active", lambda attr, old, new: self._turn())
        self.about_pattern = column(
            self.notes, self.pattern.figure, self.pattern.strip, sizing_mode="stretch_both"
        )
        self.about_frame = column(
            self.frame_text, self.frame.figure, sizing_mode="stretch_both", visible=False
        )
        self._bind()  # before the document has the figures: it asks them once
        left = column(
            controls,
            self.map.figure,
            self.legend,
            self._thresholds(),
            row(self.region_text, self.save_region, self.clear, sizing_mode="stretch_width"),
            sizing_mode="stretch_both",
        )
        right = column(
            row(self.facts, self.probability.figure, sizing_mode="stretch_width"),
            row(self.tabs, buttons, sizing_mode="stretch_width"),
            self.about_pattern,
            self.about_frame,
            sizing_mode="stretch_both",
        )
        return column(
            row(self.headline, self.problem, sizing_mode="stretch_width"),
            row(left, right, sizing_mode="stretch_both"),
            sizing_mode="stretch_both",
        )

    @property
    def _explorer(self) -> Explorer:
        assert self.explorer is not None
        return self.explorer

    def _pattern_figure(self) -> PatternFigure:
        explorer = self._explorer
        spectra, record = explorer.spectra, explorer.record
        angles: list[tuple[PhaseLines, Any]] = []
        span = (0.0, 1.0)
        if spectra.files:
            wavelength = spectra.any.wavelength
            two_theta = spectra.any.rows(0, 1).two_theta
            span = float(two_theta[0]), float(two_theta[-1])
            angles = [(table, table.two_theta(wavelength)) for table in record.lines]
        return PatternFigure(explorer.names, angles, spectra.variants, span, spectra.units)

    def _map_controls(self) -> Any:
        options: dict[Any, Any] = choices(self._explorer.record.phase_map)
        self.view = Select(
            title="", value=TOGETHER, options=options, width=260, name="view", margin=(2, 5, 2, 5)
        )
        self.view.on_change("value", lambda attr, old, new: self._update_map())
        self.follow = Toggle(label="follow the mouse", width=120, height=28, name="follow")
        hint = Div(text=HINT, styles=FONT | {"color": "#555", "font-size": "11px"},
                   sizing_mode="stretch_width")  # fmt: skip
        return row(self.view, self.follow, hint, sizing_mode="stretch_width")

    def _thresholds(self) -> Any:
        explorer = self._explorer
        names = [ALL_PHASES, *explorer.names]
        self.which = Select(title="", value=ALL_PHASES, options=names, width=130, name="which",
                            margin=(12, 5, 0, 5))  # fmt: skip
        self.threshold = Slider(
            start=0.01, end=0.99, step=0.01, value=float(explorer.thresholds[0]),
            title="present from probability", sizing_mode="stretch_width", name="threshold",
        )  # fmt: skip
        self.which.on_change("value", lambda attr, old, new: self._show_threshold())
        self.threshold.on_change("value", lambda attr, old, new: self._set_threshold(new))
        parts: list[Any] = [self.which, self.threshold]
        self.unknown: Slider | None = None
        if explorer.unknown_threshold is not None:
            self.unknown = Slider(
                start=0.0, end=1.0, step=0.01, value=explorer.unknown_threshold,
                title="unknown from score", sizing_mode="stretch_width", name="unknown",
            )  # fmt: skip
            self.unknown.on_change("value", lambda attr, old, new: self._set_unknown(new))
            parts.append(self.unknown)
        return row(*parts, sizing_mode="stretch_width")

    def _pattern_buttons(self) -> Any:
        small = {"height": 28, "margin": (2, 5, 2, 5)}
        self.fit = Toggle(label="fit", active=True, width=60, name="show fit", **small)
        self.fit.on_change("active", lambda attr, old, new: self._update_fit())
        self.save_pixel = Button(label="save pattern (.xye)", width=145, name="save", **small)
        self.save_region = Button(
            label="save region mean (.xye)", width=170, name="save region", disabled=True,
            **small,
        )  # fmt: skip
        self.clear = Button(label="drop region", width=95, disabled=True, name="clear", **small)
        self.save_pixel.on_click(self._save_pixel)
        self.save_region.on_click(self._save_region)
        self.clear.on_click(lambda: self._select_region(None))
        self.file = ColumnDataSource({"name": [""], "text": [""], "n": [0]}, name="file")
        names = self._explorer.names
        self.lines = Select(
            title="", value=PRESENT, options=[PRESENT, ALL_PHASES, *names], width=130,
            margin=(2, 5, 2, 5), visible=bool(self.pattern.lines), name="which lines",
        )  # fmt: skip
        if len(names) <= IN_LEGEND:
            self.lines.value = ALL_PHASES
        self.lines.on_change("value", lambda attr, old, new: self._update_lines())
        self.scale = Select(
            title="", value=self.pattern.scale, options=list(SCALES), width=105,
            margin=(2, 5, 2, 5), name="scale",
        )  # fmt: skip
        self.scale.on_change("value", lambda attr, old, new: self._rescale(new))
        return row(self.fit, self.lines, self.scale, self.save_pixel)

    def _bind(self) -> None:
        """Clicks, keys and regions."""
        self.wish = ColumnDataSource({"n": [0], "kind": [""], "x": [0.0], "y": [0.0]}, name="wish")
        self.done = ColumnDataSource({"n": [0]}, name="done")
        self.wish.on_change("data", lambda attr, old, new: self._wished(new))
        figure = self.map.figure
        for click in (Tap, DoubleTap, Press):  # a quick second click, a slow one
            figure.on_event(click, lambda event: self._tapped(event.x, event.y))
        figure.on_event(SelectionGeometry, self._surrounded)
        script = CustomJS(
            args={
                "map": figure,
                "wish": self.wish,
                "done": self.done,
                "follow": self.follow,
                "file": self.file,
            },
            code=HANDS,
        )
        figure.js_on_change("inner_width", script)  # once it is drawn

    # --- what happens ------------------------------------------------------------------------

    def _tapped(self, x: float, y: float) -> None:
        before = self._explorer.pixel
        if self._explorer.select(x, y) and self._explorer.pixel != before:
            self._update_pixel()

    def _wished(self, wish: dict[str, Any]) -> None:
        """An arrow key, or the mouse over the map."""
        x, y = wish["x"][0], wish["y"][0]
        before = self._explorer.pixel
        if wish["kind"][0] == "over":
            self._explorer.select(x, y)
        else:
            self._explorer.step(int(x), int(y))
        if self._explorer.pixel != before:
            self._update_pixel()
        self.done.data = {"n": list(wish["n"])}

    def _surrounded(self, event: SelectionGeometry) -> None:
        if event.final:
            self._select_region(event.geometry)

    def _select_region(self, geometry: Any) -> None:
        self._explorer.region = geometry
        self._update_region()

    def _show_threshold(self) -> None:
        """The slider shows that of the phase that was chosen."""
        explorer, which = self._explorer, str(self.which.value)
        place = 0 if which == ALL_PHASES else explorer.names.index(which)
        self._showing = True  # who moves it is not the user
        self.threshold.value = float(explorer.thresholds[place])
        self._showing = False

    def _set_threshold(self, value: float) -> None:
        if self._showing:
            return
        which = str(self.which.value)
        self._explorer.set_threshold(value, None if which == ALL_PHASES else which)
        self.background.soon("thresholds", self._decide)

    def _set_unknown(self, value: float) -> None:
        self._explorer.set_unknown_threshold(value)
        self.background.soon("thresholds", self._decide)

    def _decide(self) -> None:
        self._update_map()
        self._update_facts()
        if self.lines.value == PRESENT:
            self._update_lines()

    def _turn(self) -> None:
        """From the pattern to the frame, or back."""
        self.about_pattern.visible = self.tabs.active == 0
        self.about_frame.visible = self.tabs.active == 1
        self._update_frame()

    def _rescale(self, name: str) -> None:
        self.pattern.rescale(name)
        self._update_pixel()
        self.pattern.show_region(self._mean)

    # --- what is shown -----------------------------------------------------------------------

    def _update_map(self) -> None:
        explorer = self._explorer
        view = explorer.view(str(self.view.value))
        self.map.show(explorer.plane, view)
        parts = [
            "<span style='white-space:nowrap;margin-right:14px'>"
            f"{_swatch(color)}{escape(text)}</span>"
            for color, text in view.legend
        ]
        lead = f"<b>{escape(view.label)}</b>&ensp;" if view.label else ""
        self.legend.text = lead + " ".join(parts)
        written = datetime.datetime.fromtimestamp((self._stamp or (0,))[0] / 1e9)
        state = f"renewed {written:%H:%M:%S}" if explorer.record.pending is not None else ""
        self.headline.text = (
            f"<b style='font-size:15px'>{escape(self.path.name)}</b>&ensp;"
            f"{escape(explorer.headline)}&ensp;<span style='color:#555'>{state}</span>"
        )

    def _update_pixel(self) -> None:
        explorer = self._explorer
        self.map.mark(explorer.plane, explorer.pixel)
        self._update_facts()
        try:
            spectra = explorer.spectrum
            self.problem.text = ""
        except XrdpipeError as error:
            spectra = ()
            self.problem.text = escape(str(error))
        self.pattern.show(spectra)
        self.save_pixel.disabled = not spectra
        self._update_notes()
        self.pattern.show_fit(None)  # that of the pixel before
        self.background.soon("fit", self._update_fit)  # the pattern need not wait for it
        self._update_frame()
        if self.lines.value == PRESENT:
            self._update_lines()

    def _update_lines(self) -> None:
        explorer, which = self._explorer, str(self.lines.value)
        if which == PRESENT:
            decision = explorer.phase_map.decision[(slice(None), *explorer.pixel)]
            self.pattern.show_lines(np.flatnonzero(decision == 1).tolist())
        elif which == ALL_PHASES:
            self.pattern.show_lines(range(len(explorer.names)))
        else:
            self.pattern.show_lines([explorer.names.index(which)])

    def _update_notes(self) -> None:
        """What cannot be shown of this map, and why."""
        explorer = self._explorer
        notes = [explorer.spectra.problem, self._no_fit]
        if not explorer.record.lines:
            notes.append(
                "The map holds no lines of its phases: it was made by an older version; map the "
                "patterns again to see them."
            )
        self.notes.text = escape(" ".join(note for note in notes if note))
        self.notes.visible = any(notes)
        for figure in (self.pattern.figure, self.pattern.strip):
            figure.visible = bool(explorer.spectra.files)

    def _update_facts(self) -> None:
        facts = self._explorer.facts
        lines = [line for line in (facts.unknown, facts.place, facts.frame) if line]
        self.facts.text = f"<b style='font-size:14px'>{escape(facts.answer)}</b><br>" + "<br>".join(
            escape(line) for line in lines
        )
        self.probability.show(facts.probability, facts.spread, self._explorer.thresholds)

    def _update_fit(self) -> None:
        explorer = self._explorer
        if not (self.fit.active and explorer.spectra.files and explorer.row >= 0):
            self.pattern.show_fit(None)
            return
        if self._baseline is None:
            self.pattern.show_fit(None)
            self.fit.label = "fit …"
            self.background.start(
                "baseline",
                functools.partial(_prepare_fit, explorer.record),
                self._have_baseline,
                self._no_baseline,
            )
            return
        pattern = explorer.spectra.patterns(explorer.row)[explorer.spectra.variants[0]]
        good = np.isfinite(pattern.intensity).any()
        self.pattern.show_fit(self._baseline.fit(pattern) if good else None)

    def _have_baseline(self, baseline: Baseline) -> None:
        self._baseline = baseline
        self.fit.label = "fit"
        self._update_fit()

    def _no_baseline(self, error: Exception) -> None:
        self.fit.update(active=False, disabled=True, label="no fit")
        self._no_fit = f"No fit: {error}"
        self._update_notes()

    def _update_region(self) -> None:
        explorer = self._explorer
        self.map.surround(explorer.region)
        self._mean = None
        self.pattern.show_region(None)
        self.save_region.disabled = True
        self.clear.disabled = explorer.region is None
        if explorer.region is None:
            self.background.forget("mean")
            self.region_text.text = "No region is chosen."
            return
        number = int(np.count_nonzero(explorer.members))
        rows = explorer.region_rows
        self.region_text.text = f"Region of {pixels(number)}"
        if not rows.any():
            self.region_text.text += "; none of them has a pattern at hand."
            self.background.forget("mean")
            return
        self.region_text.text += ": reading …"
        self.background.start(
            "mean",
            functools.partial(
                mean_of_rows, explorer.spectra.path, explorer.spectra.variants[0], rows
            ),
            functools.partial(self._have_mean, number),
            functools.partial(self._failed, "mean of the region"),
        )

    def _have_mean(self, number: int, mean: Spectrum) -> None:
        self._mean = mean
        self.pattern.show_region(mean)
        self.save_region.disabled = mean.rows == 0
        self.region_text.text = (
            f"Region of {pixels(number)}; the mean pattern is that of {mean.rows} with data "
            f"({mean.name})."
        )

    def _update_frame(self) -> None:
        """Only while it is looked at: a frame takes its time."""
        explorer = self._explorer
        if self.tabs.active != 1:
            return
        if not explorer.spectra.files or explorer.row < 0:
            self.background.forget("frame")
            self.frame.clear()
            self.frame_text.text = escape(
                explorer.spectra.problem or "There is no frame at this pixel."
            )
            return
        self.frame_text.text = "reading …"
        self.background.start(
            "frame",
            functools.partial(_read_frame, explorer, explorer.row),
            self._have_frame,
            self._no_frame,
        )

    def _have_frame(self, found: tuple[FramePicture, list[list[Ring]]]) -> None:
        picture, rings = found
        self.frame.show(picture, rings)
        self.frame_text.text = (
            f"{escape(picture.name)}, {picture.shape[0]} × {picture.shape[1]} pixels, darker is "
            "more (logarithmic); blue: no measurement, orange: masked by "
            "detector, file or mask. Rings: the strongest lines of each phase."
        )

    def _no_frame(self, error: Exception) -> None:
        self.frame.clear()
        self.frame_text.text = escape(str(error))

    def _failed(self, what: str, error: Exception) -> None:
        self.problem.text = escape(f"No {what}: {error}")

    # --- files -------------------------------------------------------------------------------

    def _save_pixel(self) -> None:
        spectra = self._explorer.spectrum
        if spectra:
            self._save(spectra[0])

    def _save_region(self) -> None:
        if self._mean is not None:
            self._save(self._mean)

    def _save(self, spectrum: Spectrum) -> None:
        try:
            name, text = self._explorer.xye(spectrum)
        except XrdpipeError as error:
            self.problem.text = escape(str(error))
            return
        number = self.file.data["n"][0] + 1  # the same file twice is saved twice
        self.file.data = {"name": [name], "text": [text], "n": [number]}


def _swatch(color: str) -> str:
    if not color:
        return ""
    return (
        f"<span style='display:inline-block;width:10px;height:10px;background:{color};"
        "border:1px solid #555;margin-right:4px'></span>"
    )


def _alike(before: Explorer, after: Explorer) -> bool:
    """Whether the figures of one map can show another."""

    def kind(explorer: Explorer) -> tuple[Any, ...]:
        plane, spectra = explorer.plane, explorer.spectra
        return (
            explorer.names,
            plane.scattered,
            plane.x_label,
            plane.y_label,
            spectra.variants,
            len(explorer.record.lines),
            explorer.unknown_threshold is None,
        )

    return kind(before) == kind(after)


def _prepare_fit(record: MapRecord) -> Baseline:
    from xrdpipe.viewer.baseline import baseline_of  # with what only the fit needs

    return baseline_of(record)


def _read_frame(explorer: Explorer, at: int) -> tuple[FramePicture, list[list[Ring]]]:
    frames = explorer.frames
    picture = frames.picture(at)
    return picture, [frames.rings(picture.shape, lines) for lines in explorer.record.lines]


def page_maker(path: Path) -> Callable[[Document], None]:
    """What the server calls for each tab."""

    def make(document: Document) -> None:
        Page(document, path)

    return make
