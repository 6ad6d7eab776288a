"""Pipelines: files, placeholders, many scans in one call, and the check that runs nothing."""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from pathlib import Path

import h5py
import numpy as np
import pytest

from h5compare import differences
from known_frames import geometry_of, rings, run_cli, write_image, write_poni
from xrdpipe import pipeline
from xrdpipe.campaign import find_scans
from xrdpipe.config import IntegrateConfig, MapConfig, ResampleConfig
from xrdpipe.errors import (
    EnvironmentProblemError,
    InputError,
    InputMissingError,
    InterruptedRunError,
    OptionError,
)
from xrdpipe.masks import shipped_folder, shipped_masks
from xrdpipe.pipeline import ScanName, Step, load_pipeline, read_pipeline, run_steps
from xrdpipe.placeholders import filled
from xrdpipe.store.parts import PartFolder
from xrdpipe.types import Outcome, Progress

SHIPPED = sorted(
    path
    for path in shipped_folder("pipelines").glob("*.toml")
    if not path.stem.startswith("train-")  # recipes of `xrdpipe train`, see test_training.py
)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_pipelines_are_well_formed(path):
    steps = load_pipeline(path.stem)
    assert [step.name for step in steps] == [
        name for name in tomllib.loads(path.read_text()) if name != "pipeline"
    ]
    for step in steps:
        for name in getattr(step.settings, "mask", ()):
            assert name in shipped_masks()


def test_demo_maps_both_variants_and_scores_them():
    steps = {step.name: step for step in load_pipeline("demo", ("pipeline.output=elsewhere",))}
    assert steps["integrate"].settings.variant == "both"
    assert steps["map-masked"].settings.variant == "masked"
    assert steps["map-unmasked"].settings.variant == "unmasked"
    assert str(steps["evaluate-unmasked"].settings.map) == "elsewhere/map_unmasked.h5"


def test_set_changes_one_option():
    steps = load_pipeline("masked", ("map.scan_shape=3x5", "integrate.radial_range=[1, 2]"))
    assert steps[1].settings.scan_shape == (3, 5)
    assert steps[0].settings.radial_range == (1.0, 2.0)


def test_restart_reaches_every_step():
    assert all(step.settings.restart for step in load_pipeline("masked", restart=True))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("[integrate\n", InputError, "is not valid TOML"),
        ("", InputError, "has no step"),
        ("[integrat]\nframes = ['f']\n", OptionError, "no stage 'integrat'. Did you mean"),
        (
            "[integrate]\nframes = ['f']\nponi = 'p'\nvarriant = 'both'\n",
            OptionError,
            "[integrate]: unknown option 'varriant'. Did you mean 'variant'?",
        ),
        ("[integrate]\nframes = ['f']\n", OptionError, "option 'poni' is required"),
        ("[pipeline]\nouptut = 'x'\n", OptionError, "unknown key 'ouptut'. Did you mean 'output'?"),
        ("poni = 'p'\n", OptionError, "'poni' stands outside a table"),
        (
            "[integrate]\nframes = ['{scn}']\nponi = 'p'\n",
            OptionError,
            "[integrate]: '{scn}' has an unknown placeholder '{scn}'. Did you mean 'scan'?",
        ),
        (
            "[integrate]\nframes = ['{scan}']\nponi = 'p'\n",
            OptionError,
            "[integrate]: '{scan}': {scan} stands for a scan; name it with --scan PATH.",
        ),
        (
            "[pipeline]\noutput = '{output}'\n[integrate]\nframes = ['f']\nponi = 'p'\n",
            OptionError,
            "[pipeline]: '{output}' has an unknown placeholder",
        ),
        (
            "[integrate]\nframes = ['f']\nponi = 'p{'\n",
            OptionError,
            "'p{' has a single '{'; write '{{' for a brace.",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, error, message):
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(error) as refusal:
        load_pipeline(str(path))
    assert str(path) in str(refusal.value)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("map.scan_shape", "expected STEP.KEY=VALUE"),
        ("mp.scan_shape=1x1", "no step 'mp'. Did you mean 'map'?"),
        ("map.scan_shpe=1x1", "unknown option 'scan_shpe'. Did you mean 'scan_shape'?"),
    ],
)
def test_wrong_changes_are_refused(change, message):
    with pytest.raises(OptionError) as refusal:
        load_pipeline("masked", (change,))
    assert message in str(refusal.value)


def test_unknown_pipeline_names_the_nearest():
    with pytest.raises(InputMissingError, match="Did you mean 'demo'"):
        load_pipeline("dmeo")


# --- placeholders ----------------------------------------------------------------------------


def test_placeholders_are_filled_once_and_braces_escaped():
    known = {"output": "out", "scan": "raw/{name}", "name": "s1"}
    assert filled("{output}/{{x}}/{name}", known) == "out/{x}/s1"
    assert filled(["{scan}/*.tif", 3, True], known) == ["raw/{name}/*.tif", 3, True]


def settings(text, scan, tmp_path, changes=()):
    """Settings of each step for one scan."""
    path = tmp_path / "p.toml"
    path.write_text(text)
    return {step.name: step.settings for step in read_pipeline(str(path), changes).steps(scan)}


INTEGRATE = "[integrate]\nponi = 'p'\noutput = '{output}/patterns.h5'\n"
SCAN = ScanName("raw/s1", "s1")


def test_scan_and_name_stand_where_they_are_written(tmp_path):
    text = "[pipeline]\noutput = 'all'\n[integrate]\nponi = '{scan}/g.poni'\n"
    text += "frames = ['{scan}/*.tif']\noutput = '{output}/{name}_patterns.h5'\n"
    step = settings(text, SCAN, tmp_path)["integrate"]
    assert step.frames == ("raw/s1/*.tif",)
    assert str(step.poni) == "raw/s1/g.poni"
    assert str(step.output) == "all/s1_patterns.h5"


@pytest.mark.parametrize(
    ("head", "folder"),
    [
        ("", "s1"),
        ("[pipeline]\noutput = 'all'\n", "all/s1"),
        ("[pipeline]\noutput = 'all/{name}/x'\n", "all/s1/x"),
        ("[pipeline]\noutput = '{scan}/x'\n", "raw/s1/x"),
    ],
)
def test_a_file_without_scan_gets_its_frames_and_a_folder(tmp_path, head, folder):
    step = settings(head + INTEGRATE, SCAN, tmp_path)["integrate"]
    assert step.frames == ("raw/s1",)
    assert str(step.output) == f"{folder}/patterns.h5"


def test_every_step_that_reads_the_same_frames_reads_the_scan(tmp_path):
    text = "[mask]\nframes = ['f']\noutput = '{output}/m.h5'\n[integrate]\nframes = ['f']\n"
    steps = settings(text + INTEGRATE.replace("[integrate]\n", ""), SCAN, tmp_path)
    assert steps["mask"].frames == steps["integrate"].frames == ("raw/s1",)
    with pytest.raises(OptionError, match=r"\[mask\] and \[integrate\] read different frames"):
        settings(text.replace("['f']\no", "['g']\no") + "poni = 'p'\n", SCAN, tmp_path)


def test_frames_that_the_pipeline_makes_are_not_replaced():
    with pytest.raises(OptionError, match="no step that reads frames"):
        read_pipeline("demo").steps(SCAN)


def test_map_reads_frames_only_with_a_geometry(tmp_path):
    text = "[map]\npatterns = ['f']\noutput = '{output}/map.h5'\n"
    assert settings(text + "poni = 'p'\n", SCAN, tmp_path)["map"].patterns == ("raw/s1",)
    with pytest.raises(OptionError, match="no step that reads frames"):
        settings(text, SCAN, tmp_path)


def test_scan_and_set_must_not_both_name_the_frames(tmp_path):
    with pytest.raises(OptionError, match="both name the frames of"):
        settings(INTEGRATE, SCAN, tmp_path, ("integrate.frames=['x']",))
    step = settings(INTEGRATE, SCAN, tmp_path, ("integrate.frames=['{scan}/x']",))["integrate"]
    assert step.frames == ("raw/s1/x",)


# --- which scans -----------------------------------------------------------------------------


def test_scans_come_in_natural_order_once_and_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("raw/s_10", "raw/s_2", "raw/s_1"):
        Path(name).mkdir(parents=True)
    for name in ("raw/s_3_master.h5", "raw/s_3_data_000001.h5", "raw/s_4.nxs", "raw/s_5.log"):
        Path(name).touch()
    found = find_scans(["raw/s_*", "raw/s_1/"])
    assert [scan.name for scan in found] == ["s_1", "s_2", "s_3", "s_4", "s_10"]
    assert found[2].path == "raw/s_3_master.h5"
    assert find_scans(["raw/s_4.nxs::/entry/data"])[0] == ScanName(
        "raw/s_4.nxs::/entry/data", "s_4"
    )
    Path("raw/s_[1]").mkdir()
    assert [scan.path for scan in find_scans(["raw/s_[1]"])] == ["raw/s_[1]"]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (["x_*"], InputMissingError, "--scan x_* matches nothing"),
        (["a/*.tif"], InputMissingError, "matches files, but neither a folder nor an HDF5 file"),
        (["absent"], InputMissingError, "--scan absent does not exist"),
        (["a/s", "b/s"], InputError, "a/s and b/s are both scan 's'"),
    ],
)
def test_scans_that_cannot_be_run_are_named(tmp_path, monkeypatch, given, error, message):
    monkeypatch.chdir(tmp_path)
    for name in ("a/s", "b/s"):
        Path(name).mkdir(parents=True)
    Path("a/1.tif").touch()
    with pytest.raises(error) as refusal:
        find_scans(given)
    assert message in str(refusal.value)


# --- running ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Three scans of four frames, and their geometry; a frame of the second is cut."""
    folder = tmp_path_factory.mktemp("measured")
    geometry = geometry_of(folder, distance=0.1)
    for scan in (1, 2, 10):
        place = folder / f"scan_{scan}"
        place.mkdir()
        for number in range(4):
            image = np.random.default_rng(number).poisson(rings(geometry.two_theta))
            write_image(place / f"frame_{number:02d}.tif", image.astype(np.int32))
    broken = folder / "scan_2" / "frame_02.tif"
    broken.write_bytes(broken.read_bytes()[:5000])
    return folder


@pytest.fixture
def bench(raw, tmp_path, monkeypatch):
    """Working directory with a pipeline that integrates."""
    monkeypatch.chdir(tmp_path)
    text = f"[pipeline]\ntitle = 'quick'\noutput = 'out'\n{INTEGRATE}threads = 1\n"
    Path("p.toml").write_text(text.replace("'p'", f"'{raw / 'geometry.poni'}'"))
    return tmp_path


def test_many_scans_one_failing(bench, raw, capsys):
    (bench / "scan_3").mkdir()
    good, bad = str(raw / "scan_1*"), str(bench / "scan_3")
    assert run_cli(["run", "p.toml", "--scan", good, "--scan", bad]) == 3
    caught = capsys.readouterr()
    table = [line.split() for line in caught.out.splitlines()]
    assert table[0] == ["scan", "result", "frames", "ok", "lost", "output", "seconds"]
    assert {tuple(row[:5]) for row in table[1:4]} == {
        ("scan_1", "ok", "4", "0", "out/scan_1/patterns.h5"),
        ("scan_10", "ok", "4", "0", "out/scan_10/patterns.h5"),
        ("scan_3", "failed", "-", "-", "out/scan_3/patterns.h5"),
    }
    assert "3 scans: " in caught.out
    assert f"scan_3: no frames found in {bad}" in caught.out
    assert "scan_10: ── integrate" in caught.err
    assert run_cli(["run", "p.toml", "--scan", good]) == 0
    assert capsys.readouterr().out.count("already done") == 3  # a row each, and the sum
    assert run_cli(["run", "p.toml", "--scan", bad]) == 2


def test_an_unquoted_glob_works_too(bench, raw, capsys):
    scans = [str(raw / "scan_1"), str(raw / "scan_10")]
    assert run_cli(["run", "p.toml", "--scan", *scans]) == 0
    assert len(list(bench.glob("out/*/patterns.h5"))) == 2
    assert run_cli(["run", "p.toml", *scans]) == 2
    assert "is one argument too many; scans follow --scan" in capsys.readouterr().err


def test_lost_frames_are_counted_per_scan(bench, raw, capsys):
    arguments = ["run", "p.toml", "--scan", str(raw / "scan_[12]"), "--log-json"]
    assert run_cli(arguments) == 3
    event = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert event["lost"] == 1
    assert [(s["scan"], s["result"], s["ok"], s["lost"]) for s in event["scans"]] == [
        ("scan_1", "ok", 4, 0),
        ("scan_2", "frames lost", 3, 1),
    ]


def test_two_scans_must_not_share_an_output(bench, raw, capsys):
    text = Path("p.toml").read_text()
    Path("p.toml").write_text(text.replace("{output}/patterns.h5", "patterns.h5"))
    assert run_cli(["run", "p.toml", "--scan", str(raw / "scan_*")]) == 2
    assert "scans scan_1 and scan_2 would both write patterns.h5" in capsys.readouterr().err
    assert sorted(path.name for path in bench.iterdir()) == ["p.toml"]


@pytest.mark.parametrize(
    ("problem", "code", "text"),
    [
        (EnvironmentProblemError("disk full"), 1, "scan_1: disk full"),
        (OSError(5, "stale handle"), 1, "stale handle"),
        (ZeroDivisionError("n"), 1, "ZeroDivisionError: n (a bug in xrdpipe: please report it)"),
        (MemoryError(), 1, "out of memory"),
    ],
)
def test_trouble_in_one_scan_stops_no_other(bench, raw, capsys, monkeypatch, problem, code, text):
    seen = []

    def stage(name, settings, *_):
        seen.append(settings.frames[0])
        if len(seen) % 2:
            raise problem
        return Outcome(settings.output)

    monkeypatch.setattr("xrdpipe.pipeline.run_stage", stage)
    arguments = ["run", "p.toml", "--scan", str(raw / "scan_1"), str(raw / "scan_2")]
    assert run_cli(arguments) == 3
    assert text in capsys.readouterr().out
    assert [Path(path).name for path in seen] == ["scan_1", "scan_2"]
    assert run_cli(arguments[:-1]) == code  # all failed: the code of the first


@pytest.mark.parametrize(
    ("problem", "code"),
    [(KeyboardInterrupt(), 130), (InterruptedRunError("stopped", 15), 143)],
)
def test_an_interruption_stops_every_scan(bench, raw, capsys, monkeypatch, problem, code):
    def stage(*_):
        raise problem

    monkeypatch.setattr("xrdpipe.pipeline.run_stage", stage)
    assert run_cli(["run", "p.toml", "--scan", str(raw / "scan_*")]) == code
    assert "stopped at scan_1: 0 of 3 scans before" in capsys.readouterr().err


def test_outputs_keep_the_pipeline_and_differ_in_nothing_else(bench, raw):
    frames, poni = str(raw / "scan_1"), str(raw / "geometry.poni")
    change = "integrate.bins=500"
    assert run_cli(["run", "p.toml", "--scan", frames, "--set", change]) == 0
    by_hand = ["integrate", frames, "--poni", poni, "--threads", "1", "--bins", "500", "-o"]
    assert run_cli([*by_hand, "hand.h5"]) == 0
    assert differences("hand.h5", "out/scan_1/patterns.h5") == []
    with h5py.File("out/scan_1/patterns.h5") as file:
        record = json.loads(file["entry/reduction"].attrs["pipeline"])
    digest = hashlib.sha256(Path("p.toml").read_bytes()).hexdigest()
    assert record == {
        "file": "p.toml",
        "sha256": digest,
        "title": "quick",
        "scan": frames,
        "set": [change],
        "step": "integrate",
    }
    with h5py.File("hand.h5") as file:
        assert "pipeline" not in file["entry/reduction"].attrs
    output = Path("out/scan_1/patterns.h5")
    before = output.stat().st_mtime_ns
    assert run_cli([*by_hand, output]) == 0
    assert output.stat().st_mtime_ns == before


# --- checking --------------------------------------------------------------------------------


def checked(*arguments):
    return run_cli(["run", *map(str, arguments), "--check"])


def test_check_of_the_demo_runs_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert checked("demo") == 0
    shown = capsys.readouterr().out
    assert "[simulate]: 192 simulated frames → demo/scan: to do" in shown
    assert "7 steps can run." in shown
    assert list(tmp_path.iterdir()) == []


def masked(raw, *changes):
    given = [f"integrate.poni={raw / 'geometry.poni'}", "map.scan_shape=2x2", *changes]
    return [part for change in given for part in ("--set", change)]


def test_check_looks_through_steps_that_have_not_run(bench, raw, capsys):
    scan = raw / "scan_1"
    assert checked("masked", "--scan", scan, *masked(raw)) == 0
    shown = capsys.readouterr().out
    patterns = "result/scan_1/patterns.h5"
    assert f"scan_1 [integrate]: 4 frames of {scan} → {patterns} (masked): to do" in shown
    assert f"scan_1 [map]: {patterns} → result/scan_1/map.h5 by model hydrothermal-dac" in shown
    assert sorted(path.name for path in bench.iterdir()) == ["p.toml"]


def test_check_tells_what_is_done(bench, raw, capsys):
    scan = ["--scan", raw / "scan_1"]
    assert run_cli(["run", "p.toml", *scan]) == 0
    assert checked("p.toml", *scan) == 0
    assert "out/scan_1/patterns.h5 (masked): already done" in capsys.readouterr().out
    assert checked("p.toml", *scan, "--restart") == 0
    assert "out/scan_1/patterns.h5 (masked): to do" in capsys.readouterr().out


def test_check_follows_a_chain_before_and_after_it_ran(bench, raw, capsys):
    Path("chain.toml").write_text(f"""
[pipeline]
output = "chain"
[mask]
frames = ["{{scan}}"]
poni = "{raw / "geometry.poni"}"
hot = 10
png = false
output = "{{output}}/mask.h5"
[integrate]
frames = ["{{scan}}"]
poni = "{raw / "geometry.poni"}"
mask = ["{{output}}/mask.h5"]
output = "{{output}}/patterns.h5"
[resample]
patterns = "{{output}}/patterns.h5"
grid = "5:20:0.05"
wavelength = 0.4959
output = "{{output}}/grid.h5"
[synthesize]
wavelength = 0.4959
number = 2
png = false
output = "{{output}}/set.h5"
""")
    run = ["chain.toml", "--scan", raw / "scan_1"]
    assert checked(*run) == 0
    assert capsys.readouterr().out.count(": to do\n") == 4
    assert not Path("chain").exists()
    assert run_cli(["run", *run]) == 0
    capsys.readouterr()
    assert checked(*run) == 0
    assert capsys.readouterr().out.count(": already done\n") == 4
    for group, file in (("process", "mask"), ("resampling", "grid"), ("process", "set")):
        with h5py.File(f"chain/scan_1/{file}.h5", locking=False) as written:
            record = json.loads(written[f"entry/{group}"].attrs["pipeline"])
            assert record["file"] == "chain.toml"
    change = ["--set", "resample.grid=5:20:0.04", "--set", "synthesize.seed=1"]
    assert checked(*run, *change) == 2
    refusal = capsys.readouterr().err
    assert "[resample]: chain/scan_1/grid.h5 exists and belongs to another run (grid" in refusal
    assert "[synthesize]: chain/scan_1/set.h5 exists and belongs to another run (seed" in refusal


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("[evaluate]\nmap = 'm.h5'\ntruth = 't.h5'\n", "[evaluate]: truth file t.h5 does not"),
        ("[collect]\npatterns = ['none']\n", "[collect]: "),
        ("[train]\nwavelength = 1.0\noutput = 'm'\nrecipe = 'x'\n", "[train]: "),
        ("[train]\nwavelength = 1.0\noutput = 'm'\nlike = 'x'\n", "[train]: patterns file x"),
        ("[train]\nwavelength = 1.0\noutput = 'full'\n", "[train]: 'full' exists and is no model"),
        ("[simulate]\nscan_shape = '2x2'\nseed = 1\noutput = 'full'\n", "'full' is not empty"),
        ("[synthesize]\nwavelength = 1.0\ncif = ['x']\noutput = 's.h5'\n", "[synthesize]: "),
        ("[resample]\npatterns = 'x'\nmodel = 'hydrothermal-dac'\n", "[resample]: patterns file x"),
        ("[mask]\nframes = ['x']\noutput = 'm.npy'\n", "[mask]: x does not exist"),
    ],
)
def test_check_of_the_other_stages(tmp_path, monkeypatch, capsys, table, message):
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full/x").touch()
    Path("p.toml").write_text(table)
    assert checked("p.toml") == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "p.toml"]


def test_check_tells_what_is_left_and_who_is_at_work(bench, raw, capsys, monkeypatch):
    written = []
    append = PartFolder.append

    def die(self, first, rows):
        if written:
            raise OSError(28, "No space left on device")
        written.append(first)
        append(self, first, rows)

    scan = ["--scan", raw / "scan_1"]
    with monkeypatch.context() as patched:
        patched.setattr("xrdpipe.stages.reduction.BLOCK_ROWS", 3)
        patched.setattr(PartFolder, "append", die)
        assert run_cli(["run", "p.toml", *scan]) == 1
    capsys.readouterr()
    assert checked("p.toml", *scan) == 0
    assert "patterns.h5 (masked): continues after 3 of 4 frames" in capsys.readouterr().out
    assert checked("p.toml", *scan, "--set", "integrate.bins=400") == 2
    assert "holds unfinished work of another run (options.bins" in capsys.readouterr().err
    with PartFolder(Path("out/scan_1/patterns.h5"), {}) as other:
        other._lock()
        assert checked("p.toml", *scan) == 2
    assert f"process {os.getpid()} on " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("integrate.poni=absent.poni", "[integrate]: PONI file absent.poni does not exist"),
        ("integrate.poni=other.poni", "[integrate]: other.poni describes"),
        ("integrate.mask=['absent.npy']", "[integrate]: mask absent.npy does not exist"),
        ("integrate.mask=['small.npy']", "[integrate]: mask small.npy has 3 x 3 pixels"),
        ("integrate.mask=['full.npy']", "leave no pixel"),
        ("integrate.dark=['small.npy']", "[integrate]: dark frame small.npy has 3 x 3 pixels"),
        ("integrate.monitor=['diode']", "[integrate]: monitor 'diode'"),
        ("map.model=absent", "[map]: model 'absent' is neither"),
        ("map.prior=0.1,0.2", "[map]: --prior has 2 values"),
        ("map.scan_shape=1x3", "[map]: 4 frames do not fit"),
        ("map.variant=unmasked", "will hold the masked variant, not 'unmasked'"),
        ("map.patterns=['absent.h5']", "[map]: patterns file absent.h5 does not exist"),
        ("integrate.radial_range=[20, 24]", "[map]: the geometry (20"),
    ],
)
def test_check_names_one_broken_thing(bench, raw, capsys, change, message):
    write_poni(Path("other.poni"), shape=(99, 88))
    np.save("small.npy", np.zeros((3, 3)))
    np.save("full.npy", np.ones((150, 170)))
    assert checked("masked", "--scan", raw / "scan_1", *masked(raw, change)) == 2
    refusal = capsys.readouterr().err.partition("xrdpipe: ")[2]
    assert message in refusal
    assert refusal.count("\n") == 1, refusal


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("p.toml/x.h5", "p.toml is a file, not a folder"),
        ("p.toml", "p.toml exists and was not made by this command"),
        ("done.h5", "done.h5 exists and belongs to another run (options.bins is 400 there"),
    ],
)
def test_check_refuses_an_output_that_cannot_be_written(bench, raw, capsys, output, message):
    run = ["p.toml", "--scan", raw / "scan_1", "--set", f"integrate.output={output}", "--set"]
    if output == "done.h5":
        assert run_cli(["run", *run, "integrate.bins=400"]) == 0
    capsys.readouterr()
    assert checked(*run, "integrate.bins=500") == 2
    refusal = capsys.readouterr().err.partition("xrdpipe: ")[2]
    assert message in refusal
    assert refusal.count("\n") == 1


def test_check_lists_every_problem_of_every_step_and_scan(bench, raw, capsys):
    (bench / "scan_3").mkdir()
    changes = masked(
        raw, "integrate.mask=['absent.npy']", "map.model=absent", "integrate.poni=absent.poni"
    )
    assert checked("masked", "--scan", raw / "scan_1", "scan_3", *changes) == 2
    refusal = capsys.readouterr().err.partition("xrdpipe: ")[2]
    assert refusal.startswith("4 problems:\n")
    assert "no frames found in scan_3" in refusal
    for what in ("mask absent.npy", "model 'absent'", "PONI file absent.poni"):
        assert refusal.count(what) == 1
    assert refusal.count(" and 1 more: ") == 3


def test_a_frame_that_every_step_loses_is_lost_once(raw, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    resample = ResampleConfig(
        patterns="one.h5", output="grid.h5", grid="5:12:0.05", wavelength=0.4959
    )
    steps = [
        Step("one", "integrate", IntegrateConfig(frames=["a"], poni="p", output="one.h5")),
        Step("two", "integrate", IntegrateConfig(frames=["a"], poni="p", output="two.h5")),
        Step("grid", "resample", resample),
        Step("map", "map", MapConfig(patterns=["grid.h5"], output="map.h5")),
        Step("other", "integrate", IntegrateConfig(frames=["b"], poni="p", output="b.h5")),
        Step("others", "map", MapConfig(patterns=["b.h5"], output="b_map.h5")),
    ]
    lost = {"one": 2, "two": 2, "grid": 0, "map": 2, "other": 1, "others": 1}

    def run(stage, settings, *_):
        step = next(step for step in steps if step.settings is settings)
        return Outcome(settings.output, lost[step.name], step.name)

    monkeypatch.setattr(pipeline, "run_stage", run)
    outcome = run_steps(steps, Progress())
    assert outcome.lost == 3
    assert outcome.summary == "\n".join(lost)


def test_one_lost_frame_of_two_integrations_is_one(bench, raw, capsys):
    text = Path("p.toml").read_text()
    again = text.partition("[integrate]")[2].replace("patterns", "again")
    again = f"[again]\nstage = 'integrate'\nvariant = 'unmasked'\n{again}"
    frames = f"['{raw / 'scan_2'}']"
    Path("p.toml").write_text(text + again)
    changes = [f"--set={step}.frames={frames}" for step in ("integrate", "again")]
    assert run_cli(["run", "p.toml", *changes, "--log-json"]) == 3
    assert json.loads(capsys.readouterr().err.splitlines()[-1])["lost"] == 1
