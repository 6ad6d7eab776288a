"""The command line, made from the configurations in config.py; the only place that prints."""

from __future__ import annotations

import inspect
import json
import signal
import sys
import time
import typing
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import typer

from xrdpipe import __version__, config, terminal
from xrdpipe.errors import (
    EXIT_BUG,
    EXIT_INTERRUPTED,
    EXIT_LOST_FRAMES,
    EXIT_TERMINATED,
    EXIT_USAGE,
    OptionError,
    XrdpipeError,
    did_you_mean,
)
from xrdpipe.stages import run_stage
from xrdpipe.types import Outcome, Progress

if TYPE_CHECKING:
    from xrdpipe.campaign import Run
    from xrdpipe.pipeline import Pipeline, ScanName, Step
    from xrdpipe.stages.live.ends import Ends
    from xrdpipe.stages.reduction import Execution

PANELS = {
    "From frames to maps": ("integrate", "map", "resample", "mask", "collect"),
    "Looking": ("inspect", "report", "view", "export", "validate"),
    "Pipelines": ("run", "merge", "status"),
    "Models": ("train", "synthesize"),
    "Simulation and scores": ("simulate", "evaluate"),
    "Installation": ("doctor",),
}
"""Commands by what they are for: the order of ``xrdpipe --help``."""


class _Root(terminal.Group):
    panels = PANELS


app = typer.Typer(
    name="xrdpipe",
    cls=_Root,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a folder of 2D X-ray diffraction frames to per-pixel phase maps.",
)

EXAMPLES = {
    "integrate": "xrdpipe integrate scan_0042/ --poni ceo2.poni --mask cell.edf -o patterns.h5\n"
    "xrdpipe integrate 'raw/*.cbf' --poni ceo2.poni --variant both",
    "resample": "xrdpipe resample patterns.h5 --grid 5:24:0.01 --wavelength 0.4959 -o grid.h5\n"
    "xrdpipe resample patterns.h5 --model my_model -o grid.h5",
    "map": "xrdpipe map patterns.h5 --scan-shape 24x32 --snake -o map.h5\n"
    "xrdpipe map scan_0042/ --poni ceo2.poni --scan-shape 24x32 -o map.h5",
    "simulate": "xrdpipe simulate -o demo_scan --scan-shape 12x16 --seed 7",
    "synthesize": "xrdpipe synthesize --cif a.cif --wavelength 0.4959 -n 5000 -o set.h5",
    "train": "xrdpipe train --cif a.cif --cif b.cif --wavelength 0.4959 -o my_model\n"
    "xrdpipe train --wavelength 0.4959 --like patterns.h5 -o my_model",
    "evaluate": "xrdpipe evaluate map.h5 demo_scan/truth.h5",
    "inspect": "xrdpipe inspect scan_0042/ --poni ceo2.poni\n"
    "xrdpipe inspect ceo2.poni\n"
    "xrdpipe inspect map.h5",
    "collect": "xrdpipe collect lab/*.xye --wavelength 1.5418 -o patterns.h5",
    "mask": "xrdpipe mask scan_0042/ --poni ceo2.poni --spots 10 --halo 4 -o cell.edf",
    "validate": "xrdpipe validate patterns.h5",
    "status": "xrdpipe status result/",
    "report": "xrdpipe report map.h5 -o report.html --images figures/",
    "export": "xrdpipe export map.h5 --format xye --phase calcite -o patterns/",
    "view": "xrdpipe view map.h5",
}
"""Command lines for the help pages, one a line."""


LONGEST_CHOICES = 60
"""Characters of choices that stand beside the option; more stand in its sentence."""

SECONDS_BETWEEN_LINES = 10
"""Of progress, where there is no terminal."""

USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
"""What typer raises for a command line it cannot read; it exports only this class of them."""


# --- reporting -------------------------------------------------------------------------------


class Reporter:
    """Progress for people (a bar on a terminal, plain lines in a log) or machines (JSON)."""

    def __init__(self, log_json: bool) -> None:
        self._json = log_json
        self._bar: Any = None
        self._label, self._total, self._seen, self._lost = "", 0, 0, 0
        self._before = 0
        self._started = self._spoke = 0.0

    @property
    def progress(self) -> Progress:
        """The functions a stage calls."""
        return Progress(self.start, self.advance, self.done, self.note, self.event)

    def note(self, text: str) -> None:
        """Say one thing."""
        if self._json:
            self._say_event("note", text=text)
        else:
            print(text, file=sys.stderr)

    def start(self, label: str, total: int, done: int = 0) -> None:
        """Begin counting, after the ``done`` of an earlier run."""
        self._label, self._total, self._seen, self._lost = label, total, done, 0
        self._before = done
        self._started = self._spoke = time.monotonic()
        if self._json:
            self._say_event("start", label=label, total=total, done=done)
        elif sys.stderr.isatty():
            from rich import progress as rich_progress
            from rich.console import Console

            self._bar = rich_progress.Progress(
                rich_progress.TextColumn("{task.description}"),
                rich_progress.BarColumn(),
                rich_progress.MofNCompleteColumn(),
                rich_progress.TextColumn("{task.fields[rate]}"),
                rich_progress.TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._bar.add_task(label, total=total, completed=done, rate="")

    def advance(self, n: int, lost: int = 0) -> None:
        """Count; ``lost`` of them without a result."""
        self._seen += n
        self._lost += lost
        now = time.monotonic()
        rate = (self._seen - self._before) / max(now - self._started, 1e-9)
        lost_text = f", {self._lost} lost" if self._lost else ""
        if self._bar is not None:
            task = self._bar.task_ids[0]
            self._bar.update(task, completed=self._seen, rate=f"{rate:.1f}/s{lost_text}")
        elif now - self._spoke > SECONDS_BETWEEN_LINES:
            self._spoke = now
            left = max(self._total - self._seen, 0) / max(rate, 1e-9)  # a total may be unknown
            if self._json:
                self._say_event(
                    "progress",
                    label=self._label,
                    done=self._seen,
                    total=self._total,
                    lost=self._lost,
                    rate=round(rate, 2),
                    seconds_left=round(left, 1),
                )
            else:
                print(
                    f"{self._label}: {self._seen}/{self._total}, {rate:.1f}/s, {left:.0f} s left"
                    f"{lost_text}",
                    file=sys.stderr,
                )

    def event(self, kind: str, content: dict[str, Any]) -> None:
        """Tell machines what people need not read."""
        if self._json:
            self._say_event(kind, **content)

    def done(self) -> None:
        """Stop counting."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        elif self._json:
            self._say_event("done", label=self._label, done=self._seen, lost=self._lost)

    def finish(self, outcome: Outcome) -> None:
        """Say how it ended."""
        if self._json:
            self._say_event(
                "outcome",
                path=str(outcome.path),
                lost=outcome.lost,
                summary=outcome.summary,
                **{name: outcome.details[name] for name in ("scans",) if name in outcome.details},
            )
        elif outcome.shown and sys.stdout.isatty():
            terminal.show(outcome.shown)
        elif outcome.summary:
            print(outcome.summary)

    def fail(self, text: str) -> None:
        """Say why it did not work."""
        self.done()
        if self._json:
            self._say_event("error", text=text)
        else:
            terminal.say_error(text)

    def _say_event(self, kind: str, **content: Any) -> None:
        print(json.dumps({"event": kind, "time": time.time(), **content}), file=sys.stderr)


class _TerminatedError(BaseException):
    """SIGTERM: batch systems send it before they kill; whoever cleans up can."""


def _terminated(number: int, frame: FrameType | None) -> None:
    raise _TerminatedError


def _carry_out(log_json: bool, work: Callable[[Progress], Outcome]) -> None:
    """Run ``work``, print its end, exit with the code of decision 16."""
    reporter = Reporter(log_json)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        outcome = work(reporter.progress)
    except XrdpipeError as error:
        reporter.fail(str(error))
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt:
        reporter.fail("interrupted; run the same command to continue.")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except _TerminatedError:
        reporter.fail("terminated; run the same command to continue.")
        raise typer.Exit(EXIT_TERMINATED) from None
    except OSError as error:
        reporter.fail(f"{error}; the work so far is kept, run the same command to continue.")
        raise typer.Exit(EXIT_BUG) from error
    except MemoryError as error:
        reporter.fail("out of memory; try fewer --threads.")
        raise typer.Exit(EXIT_BUG) from error
    reporter.done()
    reporter.finish(outcome)
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)
    if outcome.lost:
        raise typer.Exit(EXIT_LOST_FRAMES)


# --- commands made from configurations -------------------------------------------------------


def _annotation(definition: config.OptionDefinition) -> tuple[Any, Any]:
    """The typer annotation and default of one option.

    Values arrive as text and are checked by config.py, so that messages are the same in TOML.
    """
    metadata = definition.metadata
    members = [m for m in config.members(definition.annotation) if m is not type(None)]
    kind: Any = members[0]
    metavar = metadata["metavar"]
    help_text = definition.help
    choices = "|".join(map(str, definition.choices))
    if len(choices) > LONGEST_CHOICES:
        help_text = f"{help_text.rstrip('.')}: {choices.replace('|', ', ')}."
        metavar = definition.name.upper()
    elif choices:
        metavar = choices
    help_text = _with_default(help_text, definition)
    complete = _completion(definition)
    if metadata["argument"]:
        annotation: Any = list[str] if definition.many else str
        info = typer.Argument(
            help=help_text, metavar=metavar, show_default=False, autocompletion=complete
        )
        return typing.Annotated[annotation, info], inspect.Parameter.empty
    default = None
    names = [f"--{definition.name.replace('_', '-')}"]
    if kind is bool:
        names[0] += f"/--no-{definition.name.replace('_', '-')}"
        annotation, default = bool, definition.default
    elif definition.many:
        annotation = list[str] | None
    elif typing.get_origin(kind) is tuple and metadata["parse"] is None:
        annotation = tuple.__class_getitem__((str,) * len(typing.get_args(kind))) | None
    else:
        annotation = str | None
        metavar = metavar or {int: "N", float: "X", Path: "FILE"}.get(kind)
    info = typer.Option(
        *names,
        *metadata["flags"],
        help=help_text,
        metavar=metavar,
        show_default=False,
        rich_help_panel=terminal.REQUIRED if definition.required else definition.group or None,
        autocompletion=complete,
    )
    return typing.Annotated[annotation, info], default


def _with_default(sentence: str, definition: config.OptionDefinition) -> str:
    """The help of an option with its default at the end, where it has one to tell."""
    default = definition.default
    if definition.required or default is None or default is False or default == ():
        return sentence
    if "(default" in sentence:
        return sentence
    shown = "on" if default is True else f"{default:g}" if type(default) is float else default
    return f"{sentence.removesuffix('.')} (default: {shown})."


# --- shell completion ------------------------------------------------------------------------


def _models() -> list[str]:
    folder = Path(__file__).parent / "models"  # nn.model_folder would load scipy for it
    return sorted(card.parent.name for card in folder.glob("*/model.json"))


def _masks() -> Iterable[str]:
    from xrdpipe.masks import shipped_masks

    return shipped_masks()


def _pipelines(recipes: bool = False) -> list[str]:
    """Shipped pipelines, or the recipes that lie beside them."""
    from xrdpipe.masks import shipped_folder

    folder = shipped_folder("pipelines")
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.toml")]
    return sorted(n for n in names if n.startswith(("train-", "paper/")) == recipes)


SHIPPED_NAMES: dict[str, Callable[[], Iterable[str]]] = {
    "model": _models,
    "start": _models,
    "mask": _masks,
    "combine": _masks,
    "recipe": partial(_pipelines, recipes=True),
}
"""Options that take the name of something shipped; where none fits, shells complete files."""


def _completion(definition: config.OptionDefinition) -> Callable[[str], list[str]] | None:
    """What a shell asks for the values of an option; None: files."""
    names = SHIPPED_NAMES.get(definition.name)
    if definition.choices:
        return _beginnings(lambda: map(str, definition.choices))
    return _beginnings(names) if names else None


def _beginnings(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


def _command(name: str, kind: type[config.Config]) -> Callable[..., None]:
    """Build the function typer calls for one stage."""
    definitions = config.fields(kind)

    def command(log_json: bool = False, scheduler: str | None = None, **values: Any) -> None:
        given = {key: value for key, value in values.items() if value not in (None, [], ())}

        def work(progress: Progress) -> Outcome:
            settings = kind.from_mapping(given)
            with _on_cluster(scheduler) as execution:
                return run_stage(name, settings, progress, execution)

        _carry_out(log_json, work)

    parameters = []
    for definition in definitions:
        annotation, default = _annotation(definition)
        parameters.append(
            inspect.Parameter(
                definition.name,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=annotation,
                default=default,
            )
        )
    if name in ("integrate", "map"):
        parameters.append(_SCHEDULER_PARAMETER)
    parameters.append(_LOG_JSON)
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__name__ = name
    examples = [f"Example: {example}" for example in EXAMPLES[name].splitlines()]
    command.__doc__ = "\n\n".join([str(inspect.getdoc(kind)), *examples])
    return command


@contextmanager
def _on_cluster(
    scheduler: str | None, options: config.ClusterConfig | None = None
) -> Iterator[Execution | None]:
    """Where frames are integrated if a scheduler is named; None: here."""
    if scheduler is None:
        yield None
        return
    from xrdpipe.cluster import ClusterExecution

    with ClusterExecution(scheduler, options) as cluster:
        yield cluster.execution


_CLUSTER, _SCANS = "Clusters", "Scans and changes"

_Scheduler = typing.Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        help="Integrate frames on the workers of a Dask cluster: local or local:N processes of "
        "this machine, tcp://HOST:PORT of a running scheduler, or slurm (a pipeline's table "
        "'cluster' says what its jobs ask for).",
        metavar="local[:N]|tcp://HOST:PORT|slurm",
        show_default=False,
        rich_help_panel=_CLUSTER,
    ),
]

_SCHEDULER_PARAMETER = inspect.Parameter(
    "scheduler", inspect.Parameter.KEYWORD_ONLY, annotation=_Scheduler, default=None
)

_LogJson = typing.Annotated[
    bool, typer.Option("--log-json", help="One JSON line per event, for batch jobs.")
]

_LOG_JSON = inspect.Parameter(
    "log_json", inspect.Parameter.KEYWORD_ONLY, annotation=_LogJson, default=False
)

_Scans = typing.Annotated[
    list[str] | None,
    typer.Option(
        "--scan",
        help="Scan to run the steps for: a folder, an HDF5 file, or a glob. May be given "
        "several times; scans are run one after the other.",
        metavar="PATH",
        rich_help_panel=_SCANS,
    ),
]

_MoreScans = typing.Annotated[list[str] | None, typer.Argument(hidden=True, metavar="PATH")]

_Changes = typing.Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Change one option of the file. May be given several times.",
        metavar="STEP.KEY=VALUE",
        rich_help_panel=_SCANS,
    ),
]


for _name, _kind in config.STAGES.items():
    app.command(_name, cls=terminal.Command)(_command(_name, _kind))


_FOLLOWING = "Following a scan while it is measured"


@app.command("run", cls=terminal.Command)
def run_pipeline(
    pipeline: typing.Annotated[
        str,
        typer.Argument(
            help="TOML file, or the name of a shipped pipeline.",
            metavar="FILE|NAME",
            autocompletion=_beginnings(_pipelines),
        ),
    ],
    more: _MoreScans = None,
    scan: _Scans = None,
    set_: _Changes = None,
    restart: typing.Annotated[
        bool,
        typer.Option(
            "--restart",
            help="Discard earlier work of every step.",
            rich_help_panel=terminal.LAST,
        ),
    ] = False,
    resume: typing.Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue earlier work (this is the default).",
            rich_help_panel=terminal.LAST,
        ),
    ] = False,
    check: typing.Annotated[
        bool,
        typer.Option(
            "--check",
            help="Check every option and input of every step; run nothing.",
            rich_help_panel=terminal.LAST,
        ),
    ] = False,
    scheduler: _Scheduler = None,
    shard: typing.Annotated[
        str | None,
        typer.Option(
            "--shard",
            help="Integrate only the I-th of N shares of the frames, for job arrays; "
            "'xrdpipe merge' completes the pipeline.",
            metavar="I/N",
            rich_help_panel=_CLUSTER,
        ),
    ] = None,
    follow: typing.Annotated[
        bool,
        typer.Option(
            "--follow",
            help="Map frames as they come, until the scan is over.",
            rich_help_panel=_FOLLOWING,
        ),
    ] = False,
    expect: typing.Annotated[
        int | None,
        typer.Option(help="The scan has so many frames.", metavar="N", rich_help_panel=_FOLLOWING),
    ] = None,
    timeout: typing.Annotated[
        float | None,
        typer.Option(
            help="The scan is over after so many seconds without a new frame (default: 60).",
            metavar="S",
            rich_help_panel=_FOLLOWING,
        ),
    ] = None,
    end_marker: typing.Annotated[
        str | None,
        typer.Option(
            help="The scan is over once this file is there.",
            metavar="FILE",
            rich_help_panel=_FOLLOWING,
        ),
    ] = None,
    log_json: _LogJson = False,
) -> None:
    """Run the steps of a pipeline file in order, for one scan or many.

    Example: xrdpipe run demo --set simulate.seed=8

    Example: xrdpipe run masked --scan 'raw/scan_*' --set integrate.poni=ceo2.poni
    """

    def work(progress: Progress) -> Outcome:
        from xrdpipe import campaign
        from xrdpipe.pipeline import read_pipeline
        from xrdpipe.stages.live.ends import Ends

        if restart and resume:
            raise OptionError("--restart and --resume contradict each other.")
        if shard is not None and (restart or scheduler):
            raise OptionError(
                f"--shard and {'--restart' if restart else '--scheduler'} exclude each other: "
                "shards share the work that is there, each with the cores of its own process."
            )
        if not follow and (expect, timeout, end_marker) != (None, None, None):
            raise OptionError("--expect, --timeout and --end-marker need --follow.")
        if follow and (shard or scheduler):
            raise OptionError(
                f"--follow and {'--shard' if shard else '--scheduler'} exclude each other: frames "
                "that come one by one are integrated here."
            )
        file = read_pipeline(pipeline, set_ or ())
        planned = _planned(file, scan, more, restart)
        if follow and len(planned) > 1:
            raise OptionError(f"--follow takes one --scan at a time, got {len(planned)}.")
        ends = Ends(expect, timeout, end_marker) if follow else None
        with _way_to_run(scheduler, shard, ends, file.cluster) as run:
            if check:
                return campaign.check_scans(planned, progress)
            return _run_planned(planned, progress, run)

    _carry_out(log_json, work)


@contextmanager
def _way_to_run(
    scheduler: str | None, shard: str | None, ends: Ends | None, options: config.ClusterConfig
) -> Iterator[Run]:
    """How the steps of a scan are run: here, on a cluster, a share of them, or as frames come."""
    from xrdpipe.pipeline import follow_steps, run_steps

    if ends is not None:
        yield partial(follow_steps, ends=ends)
        return
    if shard is not None:
        from xrdpipe.shards import run_shard
        from xrdpipe.stages.shard import Shard

        yield partial(run_shard, shard=Shard.parse(shard))
        return
    with _on_cluster(scheduler, options) as execution:
        yield partial(run_steps, execution=execution)


def _planned(
    file: Pipeline, scan: list[str] | None, more: list[str] | None, restart: bool = False
) -> list[tuple[ScanName | None, list[Step]]]:
    """The steps of every scan; where none is given, the steps as the file has them."""
    from xrdpipe import campaign

    if more and not scan:
        raise OptionError(f"'{more[0]}' is one argument too many; scans follow --scan.")
    if not scan:
        return [(None, file.steps(restart=restart))]
    # An unquoted glob arrives as one value of --scan and further arguments.
    scans = campaign.find_scans([*scan, *(more or ())])
    return [*campaign.plan_scans(file, scans, restart)]


def _run_planned(
    planned: list[tuple[ScanName | None, list[Step]]], progress: Progress, run: Run
) -> Outcome:
    from xrdpipe import campaign

    scans = [(scan, steps) for scan, steps in planned if scan is not None]
    return campaign.run_scans(scans, progress, run) if scans else run(planned[0][1], progress)


@app.command("merge", cls=terminal.Command)
def merge(
    target: typing.Annotated[
        str,
        typer.Argument(
            help="Pipeline file or name, as given to 'run --shard'; or the patterns file whose "
            "shards are done.",
            metavar="FILE",
        ),
    ],
    more: _MoreScans = None,
    scan: _Scans = None,
    set_: _Changes = None,
    log_json: _LogJson = False,
) -> None:
    """Complete what 'run --shard' began: write the patterns, run the steps after them.

    Example: xrdpipe merge pipeline.toml

    Example: xrdpipe merge patterns.h5
    """

    def work(progress: Progress) -> Outcome:
        from xrdpipe.pipeline import read_pipeline
        from xrdpipe.shards import merge_output, merge_steps
        from xrdpipe.store.parts import part_folder

        unfinished = part_folder(Path(target)).is_dir()
        if not unfinished and Path(target).suffix not in (".h5", ".part"):
            planned = _planned(read_pipeline(target, set_ or ()), scan, more)
            return _run_planned(planned, progress, merge_steps)
        if scan or set_ or more:
            raise OptionError(
                f"--scan and --set go with a pipeline file; {target} tells its own pipeline."
            )
        return merge_output(Path(target), progress)

    _carry_out(log_json, work)


@app.command(cls=terminal.Command)
def doctor(
    as_json: typing.Annotated[
        bool,
        typer.Option("--json", help="Print the answer as JSON.", rich_help_panel=terminal.LAST),
    ] = False,
) -> None:
    """Say whether this installation is healthy, what it uses here, and how to mend the rest.

    Example: xrdpipe doctor
    """

    def work(progress: Progress) -> Outcome:
        from xrdpipe.stages.doctor import run

        return run(as_json)

    _carry_out(False, work)


def _version(value: bool) -> None:
    if value:
        print(f"xrdpipe {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: typing.Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """From a folder of 2D X-ray diffraction frames to per-pixel phase maps."""


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the ``xrdpipe`` command."""
    arguments = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    group = cast("terminal.Group", typer.main.get_command(app))
    try:
        if not arguments[0].startswith("-") and arguments[0] not in group.commands:
            nearest = did_you_mean(arguments[0], group.commands)
            raise OptionError(f"unknown command '{arguments[0]}'.{nearest}")
        code = group.main(args=arguments, prog_name="xrdpipe", standalone_mode=False)
    except OptionError as error:
        terminal.say_error(str(error))
        code = EXIT_USAGE
    except USAGE_ERROR as error:
        terminal.say_error(terminal.usage_sentence(error))
        code = EXIT_USAGE
    sys.exit(code or 0)


if __name__ == "__main__":
    main()
