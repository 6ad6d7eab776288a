"""Pipeline files: every shipped one is well formed, and what is wrong in one is named."""

from __future__ import annotations

import tomllib

import pytest

from xrdpipe.cli import main
from xrdpipe.errors import InputError, InputMissingError, OptionError
from xrdpipe.masks import shipped_folder, shipped_masks
from xrdpipe.pipeline import load_pipeline

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


def test_check_runs_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["run", "demo", "--check"])
    assert stop.value.code == 0
    assert "6 steps are well formed" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
