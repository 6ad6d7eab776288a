"""Other programs open our files unchanged (the table is in docs/tools.md).

silx is asked itself. h5web runs in a browser: its rules are checked here; benchmarks/tools opens
the files in the programs themselves.
"""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import silx.io
from silx.io.nxdata import NXdata, get_default

import xrdpipe
from xrdpipe.store.live_view import LiveView
from xrdpipe.store.nexus import say_values
from xrdpipe.store.patterns import PatternsFile

FILES = ("one variant", "both variants", "resampled", "map", "map with patterns", "live view")
NY, NX = 2, 3
PHASES = ("bastnaesite-(La)", "calcite", "rhenium")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One file of every kind, made from the same six simulated frames."""
    folder = tmp_path_factory.mktemp("files")
    scan = folder / "scan"
    xrdpipe.simulate(output=scan, scan_shape="2x3", seed=1, detector="Pilatus100k", distance=0.06)
    given = {"frames": str(scan / "frames"), "poni": scan / "geometry.poni"}
    made = {name: folder / f"{name.replace(' ', '_')}.h5" for name in FILES}
    xrdpipe.integrate(**given, output=made["one variant"])
    xrdpipe.integrate(**given, output=made["both variants"], variant="both", spottiness=True)
    xrdpipe.resample(
        patterns=made["both variants"], model="hydrothermal-dac", output=made["resampled"]
    )
    mapped = {"patterns": [str(made["both variants"])], "scan_shape": "2x3", "png": False}
    xrdpipe.map(**mapped, output=made["map"])
    xrdpipe.map(**mapped, output=made["map with patterns"], with_patterns=True)
    with LiveView(made["live view"], PHASES, (NY, NX)) as view:
        view.finish()  # all pixels are pending, as at the start of a scan
    return made


@pytest.fixture(params=FILES)
def path(request, files):
    return files[request.param]


def nxdata_groups(file):
    found = []

    def keep(name, item):
        if isinstance(item, h5py.Group) and item.attrs.get("NX_class") == "NXdata":
            found.append(item)

    file.visititems(keep)
    return found


DEFAULTS = {
    "one variant": "/entry/data",
    "both variants": "/entry/data",
    "resampled": "/entry/data",
    "map": "/entry/phase_map/co_occurrence",
    "map with patterns": "/entry/phase_map/co_occurrence",
    "live view": "/entry/phase_map/co_occurrence",
}


@pytest.mark.parametrize("name", FILES)
def test_silx_opens_every_file_and_finds_its_default_plot(files, name):
    with silx.io.open(str(files[name])) as file:
        default = get_default(file)
        assert default.is_valid, default.issues
        assert default.group.name == DEFAULTS[name]
        assert default.is_image or default.interpretation == "spectrum"


def test_silx_finds_every_nxdata_valid(path):
    with h5py.File(path) as file:
        groups = nxdata_groups(file)
        assert groups
        for group in groups:
            data = NXdata(group)
            assert data.is_valid, (group.name, data.issues)


# --- the rules of h5web ------------------------------------------------------------------------

SHOWN_AS = {"scalar", "spectrum", "image", "rgb-image"}
NUMERIC = "biufc"


def h5web_default(file):
    """The group that h5web opens first: ``default`` is followed from the root until NXdata."""
    item = file
    for _ in range(10):
        if item.attrs.get("NX_class") == "NXdata":
            return item
        item = item[item.attrs["default"]]
    raise AssertionError("no NXdata")


def test_h5web_follows_the_default_to_the_same_group(files):
    for name, path in files.items():
        with h5py.File(path) as file:
            assert h5web_default(file) == file[DEFAULTS[name]], name


def test_h5web_finds_signal_axes_and_errors_of_every_group(path):
    with h5py.File(path) as file:
        for group in nxdata_groups(file):
            signal = group[group.attrs["signal"]]
            assert isinstance(signal, h5py.Dataset)
            assert signal.dtype.kind in NUMERIC
            axes = np.atleast_1d(group.attrs["axes"]).tolist()
            assert len(axes) == signal.ndim or signal.ndim == 1  # points: x and y of a 1-D signal
            for axis, length in zip(axes, signal.shape, strict=False):
                if axis != ".":
                    assert group[axis].ndim == 1
                    assert group[axis].size in (length, length + 1)
                    assert np.isfinite(group[axis][()]).all()
            for name in group.attrs.get("auxiliary_signals", []):
                assert group[name].shape == signal.shape
            for item in (group, signal):
                assert item.attrs.get("interpretation", "image") in SHOWN_AS
            for errors in (f"{group.attrs['signal']}_errors", "errors"):
                if errors in group:
                    assert group[errors].shape == signal.shape


def test_h5web_needs_no_plugin_and_no_other_file(path):
    """A browser has gzip; and of what is shown first nothing lies elsewhere."""
    with h5py.File(path) as file:

        def check(name, item):
            if isinstance(item, h5py.Dataset):
                assert item.compression in (None, "gzip"), name
                assert item.dtype.kind != "f" or item.dtype.itemsize >= 4, name

        file.visititems(check)
        signal = h5web_default(file)
        assert signal.file.filename == file.filename
        assert not signal[signal.attrs["signal"]].is_virtual


LEGENDS = {
    "presence": "probability of presence of phase: 0 bastnaesite-(La), 1 calcite, 2 rhenium",
    "winner": "most probable present phase: 0 bastnaesite-(La), 1 calcite, 2 rhenium, "
    "-1 no_result, -2 none_present, -3 unknown, -4 undetermined",
    "co_occurrence": "present phases, the sum of: 1 bastnaesite-(La), 2 calcite, 4 rhenium",
}


@pytest.mark.parametrize("name", ["map", "live view"])
def test_viewers_tell_what_the_numbers_mean(files, name):
    """h5web shows a dataset 'title', and not the attribute that silx takes, too."""
    with h5py.File(files[name]) as file:
        for group, legend in LEGENDS.items():
            found = file[f"entry/phase_map/{group}"]
            assert found["title"].asstr()[()] == legend
            assert NXdata(found).title == legend


def test_axes_tell_their_unit_where_viewers_show_one_label_only(files):
    with h5py.File(files["both variants"]) as file:
        assert NXdata(file["entry/data"]).axes_names[-1] == "2theta (degrees)"
    with h5py.File(files["map with patterns"]) as file:
        assert NXdata(file["entry/map_patterns"]).axes_names[-1] == "2theta (degrees)"


def test_a_title_stays_short_with_many_phases(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        say_values(file, "phase", {n: f"phase-{n}" for n in range(20)})
        assert file["title"].asstr()[()].endswith("7 phase-7, …")


def test_a_map_finds_its_patterns_by_a_relative_link(files):
    with h5py.File(files["map"]) as file:
        link = file.get("entry/patterns", getlink=True)
        assert link.filename == files["both variants"].name
        assert file["entry/patterns/data/I"].shape[0] == NY * NX


# --- what programs that read stacks of spectra look for ----------------------------------------


def test_stacked_patterns_have_the_spectrum_last_and_say_so(files):
    with h5py.File(files["map with patterns"]) as file:
        data = NXdata(file["entry/map_patterns"])
        assert data.interpretation == "spectrum"
        assert data.signal.shape[:2] == (NY, NX)
        assert data.axes_dataset_names == ["y", "x", "two_theta"]
        assert data.axes[-1].attrs["units"] == "degrees"
        rows = file["entry/mapping/frame_index"][()]
        assert (rows >= 0).all()
    with PatternsFile(files["resampled"]) as patterns:
        single = patterns.rows(0, NY * NX).intensity
    with h5py.File(files["map with patterns"]) as file:
        stacked = file["entry/map_patterns/intensity"][()]
    np.testing.assert_array_equal(stacked.reshape(NY * NX, -1), single)


def test_a_file_of_links_is_the_cube_that_others_want(files):
    """docs/tools.md: signal and axis at the root of a file, nothing copied."""
    source = files["map with patterns"]
    with h5py.File(source.parent / "cube.h5", "w") as file:
        file["data"] = h5py.ExternalLink(source.name, "/entry/map_patterns/intensity")
        file["tth"] = h5py.ExternalLink(source.name, "/entry/map_patterns/two_theta")
    with h5py.File(source.parent / "cube.h5") as file:
        assert file["data"].shape == (NY, NX, file["tth"].size)
