"""Every file layout that is written: what goes in comes out, and the files are like the real."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import time
import tracemalloc
import typing

import h5py
import hdf5plugin  # noqa: F401 - registers the decompression filter
import numpy as np
import pytest

from xrdpipe.config import FrameFormat, ScanOptions
from xrdpipe.errors import FrameError, InputError, OptionError
from xrdpipe.frames import open_frames, write
from xrdpipe.frames.auxiliary import load_exposure, load_monitor
from xrdpipe.frames.dead import pixel_kind
from xrdpipe.frames.images import read_image
from xrdpipe.frames.writers import dectris
from xrdpipe.frames.writers.series import PIXEL_MASK_DEAD, PIXEL_MASK_GAP, Series
from xrdpipe.quiet import quiet
from xrdpipe.stages.scans import resolve_scan

with quiet():
    import fabio

SHAPE = (24, 30)
GRID = (3, 4)
FRAMES = GRID[0] * GRID[1]
GAPS = np.zeros(SHAPE, bool)
GAPS[9:11] = True
GAPS[:, 14] = True
SATURATION = 1_048_575
WAVELENGTH, DISTANCE, EXPOSURE = 0.4959, 0.1, 0.25

BEAM = {"wavelength", "distance"}
CARRIES = {
    "tiff": {"numbers", "saturation", "exposure", "scan"} | BEAM,
    "tiff-stack": {"numbers", "saturation", "exposure", "scan"} | BEAM,
    "cbf": {"numbers", "saturation", "exposure"} | BEAM,
    "edf": {"numbers", "exposure", "scan"} | BEAM,
    "edf-stack": {"numbers", "exposure", "scan"} | BEAM,
    "marccd": {"numbers", "saturation", "exposure", "bits"} | BEAM,
    "mar345": {"numbers", "exposure"} | BEAM,
    "spe": {"numbers", "exposure"},
    "ge": {"numbers"},
    "eiger": {"numbers", "mask", "saturation", "exposure", "bits"} | BEAM,
    "eiger-4d": {"numbers", "mask", "saturation", "exposure", "bits"} | BEAM,
    "lima": {"exposure"},
    "bliss": {"exposure", "scan"},
    "areadetector": {"numbers", "exposure", "scan"},
    "maxiv": {"exposure", "scan"},
    "petra": {"mask", "saturation", "exposure", "bits", "distance"},
    "nexus": {"mask", "saturation", "exposure", "scan"} | BEAM,
    "nexus-stack": {"mask", "saturation", "exposure", "scan"} | BEAM,
    "hdf5": {"scan"},
}
"""What each layout has a place for."""

WITH_SCAN = [name for name in CARRIES if "scan" in CARRIES[name]]
WITHOUT_SCAN = [name for name in CARRIES if "scan" not in CARRIES[name]]
WAYS = [(axis, snake) for axis in "xy" for snake in (False, True)]


def detector() -> write.DetectorDescription:
    dead = np.zeros(SHAPE, bool)
    dead[5, 6] = True
    return write.DetectorDescription(
        name="Pilatus300k",
        pixel_size=(172e-6, 150e-6),
        distance=DISTANCE,
        wavelength=WAVELENGTH,
        beam_centre=(15.5, 12.25),
        saturation=SATURATION,
        pixel_mask=write.pixel_mask_bits(GAPS, dead, np.zeros(SHAPE, bool)),
        exposure=EXPOSURE,
    )


def scan(fast_axis: str = "x", snake: bool = True) -> write.ScanDescription:
    """Encoders that scatter by some nanometres around a grid of 5 µm."""
    random = np.random.default_rng(3)
    made = write.ScanDescription.regular(
        GRID, fast_axis=fast_axis, snake=snake, monitor=random.uniform(900, 1100, FRAMES).round(2)
    )
    positions = made.positions + random.normal(0, 5e-6, made.positions.shape)
    return dataclasses.replace(made, positions=positions.round(7))


def frames(dtype: str, number: int = FRAMES, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Poisson counts, a gap, a saturated and a hot pixel; no two alike."""
    made = np.random.default_rng(1).poisson(20, (number, *shape)).astype(dtype)
    made[:, 2, 3] = min(SATURATION, np.iinfo(dtype).max - 1)
    made[:, 7, 8] = 40_000 + np.arange(number)
    if shape == SHAPE:
        made[:, GAPS] = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else -1
    return made


def saved(folder, layout, described=None, number=FRAMES):
    """Write a series; the frames in the order of measurement."""
    images = frames(write.FORMAT_DTYPE[layout], number)
    with write.open_writer(layout, folder, "map", number, detector(), described) as put:
        for image in images:
            put(image)
    return images


def written(folder, layout, described=None, number=FRAMES):
    """Write a series and open it."""
    return saved(folder, layout, described, number), open_frames(folder)


def test_every_format_is_described_here():
    assert set(write.FORMATS) == set(CARRIES)
    assert frozenset(name for name in CARRIES if "mask" in CARRIES[name]) == (
        write.PIXEL_MASK_FORMATS
    )


def test_the_option_offers_every_format():
    assert typing.get_args(FrameFormat) == write.FORMATS


@pytest.mark.parametrize("layout", write.FORMATS)
@pytest.mark.parametrize("described", [None, scan()], ids=["no scan", "scan"])
def test_frames_come_back_bit_by_bit(tmp_path, layout, described):
    images, source = written(tmp_path, layout, described)
    order = np.arange(FRAMES) if described is None else write.stored_order(layout, described)
    assert source.dtype == write.FORMAT_DTYPE[layout]
    assert len(source.records) == FRAMES
    assert not any(record.problem for record in source.records)
    for row, number in enumerate(order):
        image = source.read(row).image
        assert image.dtype == images.dtype
        np.testing.assert_array_equal(image, images[number])
    # With a line per file, or without a scan: a single file of frames is not numbered.
    if layout not in ("tiff-stack", "edf-stack", "spe", "ge") or described is not None:
        assert source.numbered == ("numbers" in CARRIES[layout])
    first = source.records[0].index
    assert [r.index for r in source.records] == list(range(first, first + FRAMES))


@pytest.mark.parametrize("layout", write.FORMATS)
def test_detector_and_beam_are_found(tmp_path, layout):
    _, source = written(tmp_path, layout, scan())
    info, carries = source.detector, CARRIES[layout]

    def expect(what, value):
        return pytest.approx(value, rel=1e-6) if what in carries else None

    top = np.iinfo(write.FORMAT_DTYPE[layout]).max - 1
    assert info.wavelength == expect("wavelength", WAVELENGTH)
    assert info.distance == expect("distance", DISTANCE)
    assert info.saturation_value == expect("saturation", min(SATURATION, top))
    if "mask" in carries:
        expected = detector().pixel_mask
        assert expected[9, 0] == PIXEL_MASK_GAP
        assert expected[5, 6] == PIXEL_MASK_DEAD
        np.testing.assert_array_equal(info.pixel_mask, expected)
    else:
        assert info.pixel_mask is None
    if "exposure" in carries:
        np.testing.assert_allclose(load_exposure("auto", source), EXPOSURE)
    else:
        assert source.exposure is None


@pytest.mark.parametrize("layout", write.FORMATS)
def test_gaps_are_without_measurement(tmp_path, layout):
    """By the sentinel of the dtype, also where the PONI says nothing of the detector."""
    images, source = written(tmp_path, layout)
    image = source.read(0).image
    kind = pixel_kind(
        image,
        description=source.detector.description,
        saturation=source.detector.saturation_value,
        bit_depth=source.detector.bit_depth,
    )
    if images.dtype == "uint16" or layout == "mar345":  # integrating: the top is saturation
        assert not kind.counting
        assert kind.saturation is not None
        dead = image >= kind.saturation
        assert dead[GAPS].all()
    else:
        assert kind.counting
        np.testing.assert_array_equal(np.isin(image, kind.sentinels), GAPS)


@pytest.mark.parametrize("layout", WITH_SCAN)
def test_motors_and_monitor_are_found(tmp_path, layout):
    described = scan()
    _, source = written(tmp_path, layout, described)
    order = write.stored_order(layout, described)
    found = resolve_scan(ScanOptions(), source)
    for axis, values in zip((found.x, found.y), described.positions.T, strict=True):
        assert axis.units == ("mm" if not layout.startswith(("tiff", "edf", "area")) else "")
        np.testing.assert_allclose(source.column(axis.name), values[order], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(load_monitor("I0", source), described.monitor[order], rtol=1e-8)


@pytest.mark.parametrize(("fast_axis", "snake"), WAYS)
@pytest.mark.parametrize("layout", WITH_SCAN)
def test_the_map_is_laid_out_without_options(tmp_path, layout, fast_axis, snake):
    described = scan(fast_axis, snake)
    images, source = written(tmp_path, layout, described)
    found = resolve_scan(ScanOptions(), source)
    assert found.shape == GRID
    column, row = np.round(described.positions / 0.005).astype(int).T
    for number, image in enumerate(images):
        there = found.frame_index[row[number], column[number]]
        np.testing.assert_array_equal(source.read(int(there)).image, image)


@pytest.mark.parametrize("layout", WITHOUT_SCAN)
def test_the_map_is_laid_out_by_options(tmp_path, layout):
    described = scan()
    images, source = written(tmp_path, layout, described)
    found = resolve_scan(ScanOptions(scan_shape=GRID, snake=True), source)
    assert "mm" not in source.columns.values()
    for number, cell in enumerate(described.cells):
        there = found.frame_index.flat[cell]
        np.testing.assert_array_equal(source.read(int(there)).image, images[number])


@pytest.mark.parametrize("layout", WITH_SCAN)
@pytest.mark.parametrize("shape", [(1, 5), (5, 1)], ids=["row", "column"])
def test_a_scan_of_one_line(tmp_path, layout, shape):
    described = write.ScanDescription.regular(shape, monitor=7.0 + np.arange(5))
    images, source = written(tmp_path, layout, described, 5)
    assert len(source.records) == 5
    np.testing.assert_array_equal(source.read(4).image, images[4])
    np.testing.assert_allclose(load_monitor("I0", source), described.monitor)


def readable(folder) -> dict[int, np.ndarray]:
    """Frames that a reader gets from what an interrupted writer left, by their place."""
    try:
        source = open_frames(folder)
    except InputError:
        return {}
    found = {}
    for row in range(len(source.records)):
        with contextlib.suppress(FrameError):
            found[row] = source.read(row).image
    return found


@pytest.mark.parametrize("layout", write.FORMATS)
def test_an_interrupted_series_is_not_taken_for_a_whole_one(tmp_path, layout):
    described = scan()
    images = frames(write.FORMAT_DTYPE[layout])

    def begin():
        with write.open_writer(layout, tmp_path, "map", FRAMES, detector(), described) as put:
            for image in images[:5]:
                put(image)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        begin()
    found = readable(tmp_path)
    order = write.stored_order(layout, described)
    assert 4 <= len(found) <= 5
    for row, image in found.items():
        assert order[row] < 5
        np.testing.assert_array_equal(image, images[order[row]])
    assert not list(tmp_path.glob("*.part"))


def test_the_same_frames_are_the_same_files(tmp_path):
    def sums(folder):
        for layout in write.FORMATS:
            (folder / layout).mkdir(parents=True)
            saved(folder / layout, layout, scan())
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {
            path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        }

    first, began = sums(tmp_path / "first"), int(time.time())
    while int(time.time()) == began:  # HDF5 stores seconds
        time.sleep(0.05)
    assert sums(tmp_path / "again") == first


@pytest.mark.parametrize("layout", write.FORMATS)
def test_memory_holds_a_few_frames(tmp_path, layout):
    shape, number = (256, 256), 60
    image = frames(write.FORMAT_DTYPE[layout], 1, shape)[0]
    wide = dataclasses.replace(detector(), pixel_mask=np.zeros(shape, np.uint32))
    with write.open_writer(layout, tmp_path, "map", number, wide) as put:
        put(image)
        tracemalloc.start()
        try:
            for _ in range(number - 1):
                put(image)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < number * image.nbytes / 3


@pytest.mark.parametrize("layout", write.FORMATS)
def test_frames_that_do_not_belong_are_refused(tmp_path, layout):
    dtype = np.dtype(write.FORMAT_DTYPE[layout])
    with write.open_writer(layout, tmp_path, "map", 1, detector()) as put:
        with pytest.raises(InputError, match=rf"are {dtype} of shape \(24, 30\); got .*\(4, 4\)"):
            put(np.zeros((4, 4), dtype))
        with pytest.raises(InputError, match="got float32"):
            put(np.zeros(SHAPE, np.float32))
        put(frames(str(dtype))[0])
        with pytest.raises(InputError, match="'map' has all its 1 frames"):
            put(frames(str(dtype))[0])


def test_a_scan_must_describe_every_frame(tmp_path):
    with pytest.raises(InputError, match="3x4 with 12 positions and 12 monitor values"):
        write.open_writer("tiff", tmp_path, "map", 13, detector(), scan())
    short = dataclasses.replace(scan(), monitor=np.ones(5))
    with pytest.raises(InputError, match="5 monitor values cannot describe 12 frames"):
        write.open_writer("tiff", tmp_path, "map", 12, detector(), short)


def test_unknown_format_names_the_nearest(tmp_path):
    with pytest.raises(OptionError, match="Did you mean 'eiger'"):
        write.open_writer("eigr", tmp_path, "scan", 1, detector())


# --- as the real writers leave them -----------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "suffix", "kind"),
    [
        ("tiff", "tif", None),
        ("cbf", "cbf", "CbfImage"),
        ("edf", "edf", "EdfImage"),
        ("marccd", "mccd", "MarccdImage"),
        ("mar345", "mar3450", "Mar345Image"),
    ],
)
def test_single_images_open_elsewhere(tmp_path, layout, suffix, kind):
    images = saved(tmp_path, layout, scan())
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"map_{number:05d}.{suffix}" for number in range(1, FRAMES + 1)]
    for name, image in zip(names, images, strict=True):
        with quiet():
            opened = fabio.open(str(tmp_path / name))
        assert kind in (None, opened.classname)
        np.testing.assert_array_equal(opened.data, image)


@pytest.mark.parametrize("shape", [(24, 30), (33, 47), (2, 5)])
@pytest.mark.parametrize("top", [1, 2, 20, 300, 40_000, 2**32])
def test_any_image_can_be_packed(tmp_path, shape, top):
    """Every length and bit depth of a block, and steps from nothing to the largest value."""
    image = np.random.default_rng(top).integers(0, top, shape).astype(np.uint32)
    image.flat[2] = 2**32 - 1
    plain = dataclasses.replace(detector(), pixel_mask=np.zeros(shape, np.uint32))
    with write.open_writer("mar345", tmp_path, "map", 1, plain) as put:
        put(image)
    np.testing.assert_array_equal(read_image(tmp_path / "map_00001.mar3450").image, image)


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("tiff-stack", "map_00002.tif"),
        ("edf-stack", "map_00002.edf"),
        ("spe", "map_00002.spe"),
        ("ge", "map_00002.ge2"),
    ],
)
def test_a_file_per_line_opens_elsewhere(tmp_path, layout, name):
    images = saved(tmp_path, layout, scan())
    assert len(list(tmp_path.iterdir())) == GRID[0]
    with quiet():
        opened = fabio.open(str(tmp_path / name))
        for place in range(GRID[1]):
            # fabio counts frames of SPE in its own way.
            if layout == "spe":
                data = fabio.open(str(tmp_path / name), place).data
            else:
                data = opened.getframe(place).data
            np.testing.assert_array_equal(data, images[GRID[1] + place])


def test_headers_are_those_of_the_detector(tmp_path):
    for layout in ("tiff", "cbf"):
        saved(tmp_path, layout)
    text = (tmp_path / "map_00003.tif").read_bytes()
    for line in (
        b"# Count_cutoff 1048575 counts\r\n",
        b"# Wavelength 0.4959 A\r\n",
        b"# Pixel_size 0.00015 m x 0.000172 m\r\n",
        b"# Beam_xy (15.50, 12.25) pixels\r\n",
    ):
        assert line in text
        assert line in (tmp_path / "map_00003.cbf").read_bytes()


def test_edf_tells_motors_by_mnemonics(tmp_path):
    described = scan()
    saved(tmp_path, "edf", described)
    header = fabio.open(str(tmp_path / "map_00006.edf")).header
    x, y = described.positions[5]
    assert header["motor_mne"] == "samx samy"
    np.testing.assert_allclose([float(v) for v in header["motor_pos"].split()], [x, y])
    assert header["counter_mne"] == "sec I0"
    assert float(header["WaveLength"]) == pytest.approx(WAVELENGTH * 1e-10)  # m


def test_eiger_tree(tmp_path):
    images = frames("uint32", 7)
    series = Series(tmp_path, "scan", 7, detector(), None, np.dtype("uint32"))
    with dectris.legacy(series, per_file=3) as put:
        for index, image in enumerate(images):
            put(index, image)
    with h5py.File(tmp_path / "scan_master.h5") as master:
        links = sorted(master["entry/data"])
        assert links == ["data_000001", "data_000002", "data_000003"]
        stored = [master["entry/data"][name] for name in links]
        np.testing.assert_array_equal(np.concatenate([part[()] for part in stored]), images)
        low = [int(part.attrs["image_nr_low"]) for part in stored]
        high = [int(part.attrs["image_nr_high"]) for part in stored]
        assert (low, high) == ([1, 4, 7], [3, 6, 7])
        assert stored[0].chunks == (1, *SHAPE)
        assert "32008" in stored[0]._filters  # bitshuffle
        assert stored[0].dtype == np.uint32
        group = master["entry/instrument/detector"]
        assert group["saturation_value"][()] == SATURATION
        assert group["bit_depth_image"][()] == 32
        assert group["detectorSpecific/nimages"][()] == 7
        np.testing.assert_array_equal(group["pixel_mask"][()], detector().pixel_mask)
        wavelength = master["entry/instrument/beam/incident_wavelength"]
        assert wavelength[()] == pytest.approx(WAVELENGTH)
    with fabio.open(str(tmp_path / "scan_master.h5")) as opened:
        assert opened.nframes == 7


@pytest.mark.parametrize("kind", [dectris.legacy, dectris.channels])
def test_an_eiger_series_that_ends_early(tmp_path, kind):
    series = Series(tmp_path, "scan", 9, detector(), None, np.dtype("uint32"))
    with kind(series, per_file=4) as put:
        for index, image in enumerate(frames("uint32", 6)):
            put(index, image)
    source = open_frames(tmp_path)
    problems = [bool(record.problem) for record in source.records]
    assert problems == [False] * 6 + [True] * 3
    assert not (tmp_path / "scan_data_000003.h5").exists()


def test_eiger_of_2024_has_an_axis_of_channels(tmp_path):
    images = saved(tmp_path, "eiger-4d")
    with h5py.File(tmp_path / "map_master.h5") as master:
        data = master["entry/data/data"]
        assert data.is_virtual
        assert data.shape == (FRAMES, 1, *SHAPE)
        np.testing.assert_array_equal(data[:, 0], images)
        assert list(master["entry/data"].attrs["axes"]) == ["image_id", "channel", ".", "."]
        assert master["entry/data/channel"].asstr()[0] == "threshold_1"
        mask = master["entry/instrument/detector/threshold_1_channel/pixel_mask"]
        np.testing.assert_array_equal(mask, detector().pixel_mask)


def test_bliss_links_lima_files_and_tells_the_command(tmp_path):
    images = saved(tmp_path, "bliss", scan(fast_axis="y", snake=True))
    with h5py.File(tmp_path / "map.h5") as file:
        words = file["1.1/title"].asstr()[()].split()
        assert words[0] == "amesh"
        assert (words[1], words[4], words[5], words[8]) == ("samy", "2", "samx", "3")  # intervals
        assert words[9:] == ["0.25", "backnforth", "True"]
        data = file["1.1/measurement/pilatus"]
        assert data.is_virtual
        assert data.virtual_sources()[0].file_name == "scan0001/pilatus_0000.h5"
        np.testing.assert_array_equal(data, images)
        assert file["1.1/measurement/samx"].attrs["units"] == "mm"
    with h5py.File(tmp_path / "scan0001" / "pilatus_0000.h5") as file:
        assert file["entry_0000/measurement/data"].shape == (FRAMES, *SHAPE)


def test_nexus_stores_the_grid_and_the_order_of_arrival(tmp_path):
    described = scan(fast_axis="y", snake=True)
    images = saved(tmp_path, "nexus", described)
    with h5py.File(tmp_path / "map.nxs") as file:
        data = file["entry/pilatus/data"]
        assert data.shape == (*GRID, *SHAPE)
        assert list(file["entry/pilatus"].attrs["axes"]) == ["samy_set", "samx_set", ".", "."]
        keys = file["entry/diamond_scan/keys/uniqueKeys"][()]
        # Down the first column, up the second.
        np.testing.assert_array_equal(keys[:, 0], [1, 2, 3])
        np.testing.assert_array_equal(keys[:, 1], [6, 5, 4])
        np.testing.assert_array_equal(data[0, 1], images[5])
        x, y = file["entry/pilatus/samx_value"][0, 1], file["entry/pilatus/samy_value"][0, 1]
        np.testing.assert_array_equal([x, y], described.positions[5])


def test_petra_has_a_file_per_module(tmp_path):
    images = saved(tmp_path, "petra")
    with h5py.File(tmp_path / "map_m01.nxs") as upper, h5py.File(tmp_path / "map_m02.nxs") as lower:
        inside = "entry/instrument/detector/data"
        np.testing.assert_array_equal(upper[inside], images[:, :9])
        np.testing.assert_array_equal(lower[inside], images[:, 11:])
    whole = tmp_path / "whole"
    whole.mkdir()
    one = dataclasses.replace(detector(), pixel_mask=np.zeros(SHAPE, np.uint32))
    with write.open_writer("petra", whole, "map", 1, one) as put:
        put(images[0])
    assert [path.name for path in whole.iterdir()] == ["map.nxs"]
    np.testing.assert_array_equal(open_frames(whole).read(0).image, images[0])
