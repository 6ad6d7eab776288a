"""One definition of every option: three faces, one output; no option without an effect."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

import xrdpipe
from h5compare import differences
from made_maps import made_map
from xrdpipe import config
from xrdpipe.cli import main
from xrdpipe.errors import OptionError
from xrdpipe.integration.geometry import load_geometry, save_poni
from xrdpipe.pipeline import load_pipeline, run_steps
from xrdpipe.types import Progress

N_FRAMES = 6


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """Six small frames with everything that options can refer to."""
    folder = tmp_path_factory.mktemp("scan")
    save_poni(folder / "geometry.poni", "Pilatus100k", 0.06, 0.0168, 0.0419, 0.4959, (0.02, 0, 0))
    geometry = load_geometry(folder / "geometry.poni")
    random = np.random.default_rng(3)
    rings = 40 * np.exp(-(((geometry.two_theta[..., None] - [8, 13, 19]) / 0.2) ** 2)).sum(-1)
    textured = (5 + rings) * (1 + 0.3 * np.cos(np.radians(2 * geometry.chi)))
    frames = random.poisson(textured, (N_FRAMES, *geometry.shape)).astype(np.int32)
    spots = random.integers(0, geometry.shape, (40, 2))
    frames[:, spots[:, 0], spots[:, 1]] += 8000
    # A spot that saturates at 3,000 raw counts, on a detector whose metadata says nothing.
    frames[:, 60:64, 200:204] = 3000
    frames[:, geometry.gap_mask] = -1
    frames[:, 100, 300:330] = -3
    with h5py.File(folder / "frames.h5", "w") as file:
        file["stack"] = frames
        file["monitor"] = 1e5 * (1 + 0.1 * np.arange(N_FRAMES))
        file["diode"] = 300 - 10.0 * np.arange(N_FRAMES)
        file["seconds"] = 0.5 + 0.1 * np.arange(N_FRAMES)
    (folder / "stage.csv").write_text(
        "sx,sy\n" + "".join(f"{row % 3},{row // 3}\n" for row in reversed(range(N_FRAMES)))
    )
    mask = np.zeros(geometry.shape, np.uint8)
    mask[:, 100:140] = 1
    np.save(folder / "mask.npy", mask)
    np.save(folder / "dark.npy", random.random(geometry.shape).astype(np.float32))
    np.save(folder / "flat.npy", (1 + 0.1 * random.random(geometry.shape)).astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def patterns(scan):
    """Both variants, integrated with the defaults."""
    path = scan / "both.h5"
    xrdpipe.integrate(
        frames=[str(scan / "frames.h5")],
        poni=scan / "geometry.poni",
        variant="both",
        spottiness=True,
        output=path,
    )
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model trained for seconds; the numbers it gives do not matter here."""
    folder = tmp_path_factory.mktemp("model")
    xrdpipe.train(wavelength=0.4959, recipe="train-tiny", output=folder / "tiny", seed=1)
    xrdpipe.train(wavelength=0.4959, recipe="train-tiny", output=folder / "other", seed=2)
    return folder


def integrate_options(scan):
    """Every option of integrate away from its default."""
    return {
        "frames": [f"{scan}/frames.h5::stack"],
        "poni": f"{scan}/geometry.poni",
        "variant": "both",
        "flip": "ud",
        "rotate": 180,
        "unit": "q",
        "bins": 300,
        "radial_range": [0.8, 5.0],
        "splitting": "full",
        "solid_angle": False,
        "polarization_factor": 0.9,
        "mask": [f"{scan}/mask.npy"],
        "sentinel": "-1,-2,-3",
        "saturation": 2500.0,
        "reject": "sigma-clip",
        "reject_threshold": 4.0,
        "halo": 1,
        "error_model": "azimuthal",
        "gain": 2.0,
        "read_noise": 1.5,
        "spottiness": True,
        "dark": [f"{scan}/dark.npy"],
        "flat": [f"{scan}/flat.npy"],
        "monitor": ["/monitor", f"{scan}/frames.h5::/diode"],
        "monitor_reference": [90000.0, 250.0],
        "exposure": "/seconds",
        "wavelength": 0.5,
        "output": "OUTPUT",
        "restart": True,
        "threads": 1,
        "cache": False,
        "device": "cpu",
        "engine": "pyfai",
    }


def map_options(patterns, model):
    """Every option of map that has a meaning for a patterns file, away from its default."""
    return {
        "patterns": [str(patterns)],
        "model": str(model / "tiny"),
        "variant": "unmasked",
        "prior": [0.2, 0.3, 0.4],
        "neighbours": True,
        "device": "cpu",
        "with_patterns": True,
        "png": False,
        "positions": "none",
        "position_unit": "um",
        "scan_shape": "3x4",
        "snake": True,
        "fast_axis": "y",
        "incomplete": True,
        "method": "linear",
        "output": "OUTPUT",
        "restart": True,
        "threads": 1,
    }


def resample_options(patterns):
    return {
        "patterns": str(patterns),
        "grid": "5:12:0.02",
        "wavelength": 0.6,
        "method": "linear",
        "variant": "unmasked",
        "output": "OUTPUT",
        "restart": True,
    }


def as_arguments(stage, options):
    """The command line that says the same."""
    arguments = [stage]
    definitions = {d.name: d for d in config.fields(config.STAGES[stage])}
    for name, value in options.items():
        definition = definitions[name]
        if definition.metadata["argument"]:
            arguments += value if isinstance(value, list) else [value]
            continue
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            arguments.append(flag if value else f"--no-{name.replace('_', '-')}")
        elif definition.many:
            for item in value:
                arguments += [flag, str(item)]
        elif isinstance(value, list) and definition.metadata["parse"] is None:
            arguments += [flag, *map(str, value)]
        elif isinstance(value, list):
            arguments += [flag, ",".join(map(str, value))]
        else:
            arguments += [flag, str(value)]
    return arguments


def as_toml(stage, options):
    return f"[{stage}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in options.items())


def run_command(arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    return stop.value.code


def three_faces(stage, options, tmp_path, name="out.h5"):
    """Output of the library, the command line and a TOML file."""
    outputs = []
    for face in ("library", "command", "toml"):
        folder = tmp_path / face
        folder.mkdir()
        given = {**options, "output": str(folder / name)}
        if face == "library":
            getattr(xrdpipe, stage)(**given)
        elif face == "command":
            assert run_command(as_arguments(stage, given)) == 0
        else:
            (folder / "p.toml").write_text(as_toml(stage, given))
            run_steps(load_pipeline(str(folder / "p.toml")), Progress())
        outputs.append(folder / name)
    return outputs


def assert_all_non_default(stage, options, exempt=()):
    for definition in config.fields(config.STAGES[stage]):
        if definition.name in exempt:
            continue
        assert definition.name in options, f"{stage}.{definition.name} is not in this test"
        assert options[definition.name] != definition.default, definition.name


def test_integrate_faces_agree(scan, tmp_path):
    options = integrate_options(scan)
    assert_all_non_default("integrate", options)
    library, command, toml = three_faces("integrate", options, tmp_path)
    assert differences(library, command) == []
    assert differences(library, toml) == []


def test_map_faces_agree(patterns, model, tmp_path):
    options = map_options(patterns, model)
    integration = {d.name for d in config.fields(config.IntegrateConfig)} - set(options)
    # first_number needs frames that carry numbers: test_scan_positions has it.
    assert_all_non_default("map", options, exempt=integration | {"poni", "first_number"})
    # The link to the patterns is relative to each output's folder.
    library, command, toml = three_faces("map", options, tmp_path)
    assert differences(library, command) == []
    assert differences(library, toml) == []


def test_map_of_frames_takes_the_integration_options(scan, model, tmp_path):
    given = integrate_options(scan) | map_options("", model)
    given |= {"patterns": given.pop("frames"), "variant": "masked", "scan_shape": "2x3"}
    given |= {"unit": "2theta", "radial_range": [5.0, 24.0], "bins": 1901, "incomplete": False}
    assert_all_non_default(
        "map", {**given, "unit": "", "variant": "m", "incomplete": 1, "first_number": 1}
    )
    library, command, toml = three_faces("map", given, tmp_path)
    assert differences(library, command) == []
    assert differences(library, toml) == []
    one_by_one = {d.name for d in config.fields(config.IntegrateConfig)} & set(given)
    options = {k: given[k] for k in one_by_one}
    options |= {"frames": given["patterns"], "output": tmp_path / "alone.h5"}
    xrdpipe.integrate(**options)
    assert differences(tmp_path / "alone.h5", tmp_path / "library" / "out_patterns.h5") == []


def test_resample_faces_agree(patterns, tmp_path):
    options = resample_options(patterns)
    assert_all_non_default("resample", options, exempt={"model"})
    library, command, toml = three_faces("resample", options, tmp_path)
    assert differences(library, command) == []
    assert differences(library, toml) == []


@pytest.mark.parametrize("stage", ["report", "export"])
def test_faces_of_what_looks_at_a_map_agree(stage, tmp_path):
    path = str(made_map(tmp_path))
    if stage == "report":
        options = {"map": path, "images": str(tmp_path / "figures"), "output": "OUTPUT"}
    else:
        options = {"map": path, "format": "xye", "pixel": ["0,0", "2,2"], "region": ["0:2,0:3"]}
        options |= {"phase": ["calcite"], "variant": "unmasked", "header": False}
        options |= {"output": "OUTPUT"}
    assert_all_non_default(stage, options)
    contents = [
        [(file.name, file.read_bytes()) for file in sorted([*output.glob("*"), output])
         if file.is_file()]
        for output in three_faces(stage, options, tmp_path, "out")
    ]  # fmt: skip
    assert contents[0]
    assert contents[0] == contents[1] == contents[2]


# What each option is tried against: where the plain defaults would hide its effect.
COMPANIONS = {
    "bins": {"radial_range": [6.0, 20.0]},
    "halo": {"saturation": 2500.0},
    "monitor_reference": {"monitor": ["/monitor"]},
    "wavelength": {"unit": "q", "radial_range": [1.0, 4.0]},
}
NO_NUMBERS = {"device", "output", "restart", "threads", "cache"}
SAME_NUMBERS = {"engine"}  # to 1e-6, see test_pyfai_equality.py


@pytest.mark.parametrize(
    "name",
    [
        d.name
        for d in config.fields(config.IntegrateConfig)
        # gain and read_noise: test_gain_and_read_noise_give_errors
        if d.name not in NO_NUMBERS | {"frames", "poni", "gain", "read_noise"}
    ],
)
def test_every_integration_option_changes_a_result(scan, tmp_path, name):
    base = {"frames": f"{scan}/frames.h5::stack", "poni": f"{scan}/geometry.poni"}
    base |= {"radial_range": [6.0, 20.0], "spottiness": name != "spottiness"}
    base |= COMPANIONS.get(name, {})
    xrdpipe.integrate(**base, output=tmp_path / "a.h5")
    value = integrate_options(scan)[name]
    if name == "unit":
        base["radial_range"] = None
    if name == "radial_range":
        value = [7.0, 15.0]
    if name == "monitor_reference":
        value = value[:1]
    xrdpipe.integrate(**{**base, name: value}, output=tmp_path / "b.h5")
    changed = differences(
        tmp_path / "a.h5", tmp_path / "b.h5", ignore=("config_json", "run_key", "uuid")
    )
    data = [where for where in changed if "/data" in where or "/azint1d" in where]
    if name in SAME_NUMBERS:
        assert any("reduction/input/method" in where for where in changed)
    else:
        assert data, f"{name} changed nothing but {changed}"


def test_gain_and_read_noise_give_errors(scan, tmp_path):
    """An integrating detector has no Poisson errors without them, and they scale as they must."""
    with h5py.File(scan / "frames.h5") as file:
        frames = file["stack"][()].clip(-100).astype(np.float32)
    frames[:, 0, 0] = -17.5  # a value below zero that is no sentinel: an integrating detector
    save_poni(tmp_path / "g.poni", "Pilatus100k", 0.06, 0.0168, 0.0419, 0.4959, (0.02, 0, 0))
    text = (tmp_path / "g.poni").read_text().replace("Pilatus100k", "Detector")
    text = "\n".join(
        'Detector_config: {"pixel1": 0.000172, "pixel2": 0.000172, "orientation": 3}'
        if line.startswith("Detector_config")
        else line
        for line in text.splitlines()
    )
    (tmp_path / "g.poni").write_text(text)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["stack"] = frames[:2]

    def errors(**options):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.h5"
        given = {"reject": "none", "radial_range": [6.0, 20.0], "splitting": "no", **options}
        xrdpipe.integrate(
            frames=str(tmp_path / "f.h5"), poni=tmp_path / "g.poni", output=path, **given
        )
        with h5py.File(path) as file:
            return file["entry/data/I_errors"][()] if "I_errors" in file["entry/data"] else None

    assert errors() is None
    one = errors(gain=1.0, read_noise=0.0)
    noisy = errors(gain=1.0, read_noise=50.0)
    assert np.nanmedian(noisy / one) > 3
    # var = gain · max(x, gain): bright bins scale with sqrt(gain).
    bright = np.nanargmax(one[0])
    assert errors(gain=4.0, read_noise=0.0)[0, bright] / one[0, bright] == pytest.approx(2, 0.02)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", None),
        ("variant", "unmasked"),
        ("prior", [0.05]),
        ("neighbours", True),
        ("with_patterns", True),
        ("scan_shape", "3x2"),
        ("positions", None),
        ("snake", True),
        ("fast_axis", "y"),
        ("method", "linear"),
    ],
)
def test_every_map_option_changes_a_result(patterns, model, tmp_path, name, value):
    base = {"patterns": str(patterns), "model": str(model / "tiny"), "png": False}
    base |= {"scan_shape": "2x3"}
    if name == "method":
        xrdpipe.integrate(
            frames=str(patterns.parent / "frames.h5::stack"),
            poni=patterns.parent / "geometry.poni",
            radial_range=[5.0, 24.0],
            bins=2500,  # finer than the grid: overlap and interpolation differ
            output=tmp_path / "p.h5",
        )
        base["patterns"] = str(tmp_path / "p.h5")
    if name == "model":
        value = str(model / "other")
    if name == "positions":
        del base["scan_shape"]
        value = f"{patterns.parent}/stage.csv::sx,sy"
    xrdpipe.map(**base, output=tmp_path / "a.h5")
    xrdpipe.map(**{**base, name: value}, output=tmp_path / "b.h5")
    changed = differences(tmp_path / "a.h5", tmp_path / "b.h5", ignore=("config_json", "run_key"))
    results = ("probability", "unknown/score", "map_patterns")
    assert any(result in where for where in changed for result in results), changed


def test_png_is_written_unless_refused(patterns, model, tmp_path):
    base = {"patterns": str(patterns), "model": str(model / "tiny")}
    xrdpipe.map(**base, output=tmp_path / "a.h5")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    xrdpipe.map(**base, output=tmp_path / "b.h5", png=False)
    assert not (tmp_path / "b.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"varaint": "masked"}, "unknown option 'varaint'. Did you mean 'variant'?"),
        ({"variant": "mask"}, "'mask' is not one of masked, unmasked, both. Did you mean 'masked'"),
        ({"bins": 1}, "option 'bins': 1 is below 2"),
        ({"bins": 10.5}, "expected a whole number"),
        ({"solid_angle": "yes"}, "expected true or false"),
        ({"polarization_factor": "horizontal"}, "neither a number nor 'none'"),
        ({"radial_range": [1.0]}, "expected 2 values, got 1"),
        ({"variant": "unmasked", "mask": ["m.npy"]}, "--mask has no effect on --variant unmasked"),
        ({"spottiness": True, "reject": "none"}, "--spottiness is what rejection removes"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(OptionError) as refusal:
        config.IntegrateConfig.from_mapping({"frames": ["f"], "poni": "p", **options})
    assert message in str(refusal.value)


def test_required_option_is_named():
    with pytest.raises(OptionError, match="option 'poni' is required"):
        config.IntegrateConfig.from_mapping({"frames": ["f"]})


def test_configurations_are_frozen():
    settings = config.IntegrateConfig(frames=("f",), poni=Path("p"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.variant = "both"
    assert config.IntegrateConfig.from_mapping(settings.resolved()) == settings
