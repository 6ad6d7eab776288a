"""The same numbers as pyFAI: integrate1d with the same mask, and sigma_clip's decisions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import h5py
import numpy as np
import pytest

import xrdpipe
from known_frames import SHAPE, rings, run_cli, write_image, write_poni
from xrdpipe.frames.dead import pixel_kind, sentinels_of
from xrdpipe.integration.geometry import choose_binning, load_geometry
from xrdpipe.integration.reduce import FrameReducer, ReductionSettings
from xrdpipe.masks import without_measurement
from xrdpipe.quiet import quiet

with quiet():
    import pyFAI

LIMIT = 1e-6
"""Of max(|I|, sigma): decision 5."""

TOP = 2**32 - 1


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """pyFAI's own integrator of the fixture geometry."""
    path = write_poni(tmp_path_factory.mktemp("poni") / "g.poni", rotations=(0.02, -0.01))
    return pyFAI.load(str(path))


@pytest.fixture(scope="module")
def planes() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    flat = rng.uniform(0.8, 1.2, SHAPE).astype(np.float32)
    flat[0, 0] = 0  # a dead pixel of the flat, and the first one at that
    flat[5, 5] = np.nan
    return {
        "dark": rng.normal(3, 0.3, SHAPE).astype(np.float32),
        "flat": flat,
        "mask": rng.random(SHAPE) < 0.1,
    }


def with_spots(frame: np.ndarray, dtype: Any = np.uint16) -> np.ndarray:
    image = frame.astype(dtype)
    for y, x in ((30, 40), (80, 130), (120, 20)):
        image[y : y + 3, x : x + 3] += np.asarray(900, dtype)
    return image


def integrate_both(
    reference,
    geometry,
    image: np.ndarray,
    planes: dict[str, np.ndarray] | None = None,
    scale: float = 1.0,
    binning: tuple[Any, ...] = ("2theta", None, None),
    **settings: Any,
) -> dict[str, tuple[np.ndarray, np.ndarray, Any]]:
    """Per variant: our I and I_errors, and pyFAI's result for the same mask."""
    planes = planes or {}
    chosen = choose_binning(geometry, *binning)
    options = ReductionSettings(**{"variants": ("masked", "unmasked"), **settings})
    dark, flat = planes.get("dark"), planes.get("flat")
    reduce = FrameReducer(geometry, chosen, options, None, planes.get("mask"), dark, flat)
    rows = reduce.reduce(image, scale).rows
    masks = {
        "masked": reduce.masked_pixels(image, scale),
        "unmasked": ~reduce.static_valid["unmasked"] | reduce.sentinel_pixels(image),
    }
    results = {}
    for variant, row in rows.items():
        theirs = reference.integrate1d(
            image.astype(np.float32),
            chosen.count,
            unit=chosen.pyfai_unit,
            radial_range=(chosen.low, chosen.high),
            method=(options.splitting, "csc", "cython"),
            mask=masks[variant],
            dark=dark,
            flat=flat,
            normalization_factor=scale,
            correctSolidAngle=options.solid_angle,
            polarization_factor=options.polarization_factor,
            error_model=None if options.error_model == "none" else options.error_model,
        )
        # pyFAI widens the last edge by one part in 2²³, its float32.
        np.testing.assert_allclose(theirs.radial, chosen.centres, rtol=3e-7, atol=1e-8)
        results[variant] = (row["I"], row.get("I_errors"), theirs)
    return results


def assert_equal(results: dict[str, tuple[np.ndarray, np.ndarray, Any]]) -> None:
    for ours, errors, theirs in results.values():
        filled = theirs.count > 0
        np.testing.assert_array_equal(np.isfinite(ours), filled)  # bins without pixels are NaN
        sigma = np.zeros_like(theirs.intensity) if errors is None else theirs.sigma
        scale = np.maximum(np.abs(theirs.intensity), sigma)[filled]
        scale[scale == 0] = 1  # an empty bin of counts is exactly zero in both
        assert np.max(np.abs(ours - theirs.intensity)[filled] / scale) < LIMIT
        if errors is not None:
            np.testing.assert_array_equal(np.isfinite(errors), filled)
            assert np.max(np.abs(errors - theirs.sigma)[filled] / scale) < LIMIT


@pytest.mark.parametrize("engine", ["matrix", "pyfai"])
@pytest.mark.parametrize("splitting", ["no", "bbox", "full"])
@pytest.mark.parametrize("reject", ["none", "robust", "sigma-clip"])
def test_every_splitting_and_rejection(
    reference, geometry, frame, planes, engine, splitting, reject
):
    results = integrate_both(
        reference,
        geometry,
        with_spots(frame),
        planes,
        scale=0.7,
        engine=engine,
        splitting=splitting,
        reject=reject,
    )
    assert_equal(results)
    spots = np.nansum(results["unmasked"][0]) / np.nansum(results["masked"][0])
    assert (spots > 1.02) == (reject != "none")


TOP16, TOP64 = 2**16 - 1, 2**64 - 1
EIGER, CCD = "Dectris Eiger 500K", "Rayonix CCD"


@pytest.mark.parametrize(
    ("dtype", "description", "value", "first", "dead", "flags"),
    [
        # In the second frame only: left out there, and flagged.
        ("u4", None, TOP, False, True, [0, 4]),
        ("u4", EIGER, TOP16, False, True, [0, 4]),
        ("i4", None, -1, False, True, [0, 4]),
        ("f4", None, -2, False, True, [0, 4]),
        ("i8", EIGER, TOP, False, True, [0, 4]),
        ("i8", None, TOP, False, True, [0, 4]),
        ("f8", EIGER, TOP16, False, True, [0, 4]),
        ("u8", None, TOP64, False, True, [0, 4]),
        # One pixel of every frame.
        ("u4", EIGER, TOP16, True, True, [4, 4]),
        # Known for what it is.
        ("u8", EIGER, TOP64, True, True, [0, 0]),
        ("u8", None, TOP64, True, True, [0, 0]),
        ("i4", EIGER, -1, False, True, [0, 0]),
        # An integrating detector may reach it: data, suspect where nothing names the detector.
        ("u4", None, TOP16, False, False, [0, 4]),
        ("u2", None, TOP16, False, False, [0, 4]),
        ("u2", CCD, TOP16, False, False, [0, 0]),
        ("i4", CCD, -1, False, False, [0, 0]),
        ("i4", CCD, TOP16, False, False, [0, 0]),
        ("i4", None, -7, False, False, [0, 0]),
        ("u4", EIGER, TOP16 + 1, False, False, [0, 0]),
    ],
)
def test_sentinels_that_come_late_are_no_data(
    reference, tmp_path, frame, dtype, description, value, first, dead, flags
):
    clean = frame.astype(dtype)
    spoilt = clean.copy()
    spoilt[5, 7] = value
    with h5py.File(tmp_path / "s.h5", "w") as file:
        detector = file.create_group("entry/instrument/detector")
        detector["data"] = np.stack([spoilt if first else clean, spoilt])
        if description:
            detector["description"] = description
    write_poni(tmp_path / "g.poni", rotations=(0.02, -0.01))
    outcome = xrdpipe.integrate(
        frames=[tmp_path / "s.h5"],
        poni=tmp_path / "g.poni",
        variant="unmasked",
        error_model="none",
        output=tmp_path / "p.h5",
    )
    mask = np.zeros(SHAPE, bool)
    mask[5, 7] = dead
    with h5py.File(tmp_path / "p.h5") as file:
        frames = file["entry/frames"]
        edges = file["entry/data/radial_axis_edges"][()]
        theirs = reference.integrate1d(
            np.where(mask, 0, spoilt.astype(np.float32)),
            edges.size - 1,
            unit="2th_deg",
            radial_range=(edges[0], edges[-1]),
            method=("bbox", "csc", "cython"),
            mask=mask,
            polarization_factor=0.99,
        )
        filled = theirs.count > 0
        ours = file["entry/data/I"][1]
        np.testing.assert_allclose(ours[filled], theirs.intensity[filled], rtol=2e-6)
        assert frames["flags"][()].tolist() == flags
        assert frames["n_sentinel"][()].tolist() == [int(dead and first), int(dead)]
    told = f"{np.count_nonzero(flags)} frames hold values that may mean 'no measurement'"
    assert (told in outcome.summary) == any(flags)


def test_the_option_settles_what_the_values_do_not():
    image = np.full(SHAPE, 10, np.uint64)
    image[5, 7] = TOP64
    for override in ((float(TOP64),), "none"):
        kind = pixel_kind(image, "Eiger", override=override)
        assert sentinels_of(image, kind) == ((), False)
        assert without_measurement(image, kind.sentinels).sum() == (override != "none")


def test_a_sentinel_is_no_count_below_another():
    """65535 with larger counts beside it is data, also in frames of a counting detector."""
    image = np.full(SHAPE, 10, np.uint32)
    kind = pixel_kind(image, "Eiger")
    image[5, 7] = TOP16
    assert sentinels_of(image, kind) == ((TOP16,), True)
    image[5, 9] = TOP  # a gap says nothing of the counts
    assert sentinels_of(image, kind) == ((TOP16,), True)
    image[5, 8] = TOP16 + 5
    assert sentinels_of(image, kind) == ((), False)


@pytest.mark.parametrize("engine", ["matrix", "pyfai"])
@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int32, np.float32])
def test_every_dtype_with_its_sentinels(reference, geometry, frame, dtype, engine):
    image = frame.astype(dtype)
    dead = {"u": np.iinfo(dtype).max if dtype != np.float32 else 0, "i": -1, "f": np.nan}
    image[40:44] = dead[np.dtype(dtype).kind]
    kind = pixel_kind(image, "Eiger")
    results = integrate_both(reference, geometry, image, engine=engine, sentinels=kind.sentinels)
    assert_equal(results)
    assert np.nanmax(results["unmasked"][0]) < 200


@pytest.mark.parametrize("splitting", ["no", "bbox", "full"])
@pytest.mark.parametrize("dead", [0.9, 0.999])
def test_bins_that_hardly_have_a_pixel_left(reference, geometry, frame, splitting, dead):
    image = frame.astype(np.uint32)
    image[np.random.default_rng(3).random(SHAPE) < dead] = TOP
    options = {"sentinels": (float(TOP),), "splitting": splitting}
    for binning in (("2theta", None, None), ("2theta", 100, None)):
        assert_equal(
            integrate_both(reference, geometry, image, scale=0.37, binning=binning, **options)
        )


@pytest.mark.parametrize("engine", ["matrix", "pyfai"])
@pytest.mark.parametrize(
    "settings",
    [
        {"polarization_factor": None},
        {"polarization_factor": -0.5},
        {"solid_angle": False},
        {"error_model": "azimuthal"},
        {"error_model": "azimuthal", "splitting": "no"},
        {"error_model": "none"},
        {"polarization_factor": None, "solid_angle": False, "splitting": "full"},
    ],
    ids=str,
)
def test_every_correction_and_error_model(reference, geometry, frame, planes, settings, engine):
    results = integrate_both(reference, geometry, frame, planes, 1.3, engine=engine, **settings)
    assert_equal(results)
    assert (results["masked"][1] is None) == (settings.get("error_model") == "none")


@pytest.mark.parametrize(
    "binning",
    [
        ("2theta", 300, None),
        ("2theta", None, (3.0, 12.0)),
        ("2theta", None, (0.0, 40.0)),  # beyond both ends of the detector
        ("q", None, None),
        ("q", 200, (0.5, 3.0)),
    ],
    ids=str,
)
def test_every_axis(reference, geometry, frame, binning):
    assert_equal(integrate_both(reference, geometry, frame, binning=binning))


@pytest.mark.parametrize("centre", [(70.3, 80.6), (70, 80), (-300, 80)])
def test_default_bins_are_multiples_of_a_hundredth(tmp_path, centre):
    """From the first to the last angle of the detector, and never below 0°."""
    geometry = load_geometry(write_poni(tmp_path / "g.poni", centre=centre))
    binning = choose_binning(geometry, "2theta", None, None)
    number = np.round(binning.centres * 100)
    np.testing.assert_array_equal(binning.centres, number / 100)
    np.testing.assert_array_equal(np.diff(number), 1)
    low, high = geometry.two_theta_range
    assert number[0] == max(np.floor(low * 100 + 0.5), 1)
    assert number[-1] == np.floor(high * 100 + 0.5)
    assert binning.edges[0] > 0


def test_the_command_line_gives_pyfai_numbers(tmp_path, reference, frame, planes):
    """Folder, mask, dark, flat, monitor and flip, through files."""
    image = with_spots(frame)
    folder = tmp_path / "scan"
    folder.mkdir()
    for number, counts in ((1, 2000.0), (2, 1000.0), (3, 4000.0)):
        stored = np.ascontiguousarray(image[::-1] + number)
        write_image(folder / f"f_{number}.edf", stored, {"I0": str(counts)})
    names = {}
    for name in ("dark", "flat"):
        np.save(tmp_path / f"{name}.npy", planes[name][::-1])
        names[name] = tmp_path / f"{name}.npy"
    np.save(tmp_path / "mask.npy", planes["mask"])  # in the orientation of the PONI
    poni = write_poni(tmp_path / "g.poni", rotations=(0.02, -0.01))
    arguments = ["integrate", folder, "--poni", poni, "--mask", tmp_path / "mask.npy"]
    arguments += ["--flip", "ud", "--monitor", "I0", "--variant", "both", "--reject", "none"]
    arguments += ["--dark", names["dark"], "--flat", names["flat"], "--sentinel", "none"]
    arguments += ["--saturation", 60000, "--gain", 1, "--read-noise", 0, "--bins", 400]
    assert run_cli([*arguments, "-o", tmp_path / "p.h5"]) == 0
    with h5py.File(tmp_path / "p.h5") as file:
        entry = file["entry"]
        assert entry["monitor/reference"][()] == 2000
        for variant in ("masked", "unmasked"):
            data = entry[f"azint1d_{variant}/data"]
            low, high = data["radial_axis_edges"][[0, -1]]
            bad = ~(planes["flat"] > 0) | (planes["mask"] & (variant == "masked"))
            for row, counts in enumerate((2000.0, 1000.0, 4000.0)):
                theirs = reference.integrate1d(
                    image.astype(np.float32) + row + 1,
                    400,
                    unit="2th_deg",
                    radial_range=(low, high),
                    method=("bbox", "csc", "cython"),
                    mask=bad,
                    dark=planes["dark"],
                    flat=planes["flat"],
                    normalization_factor=counts / 2000,
                    polarization_factor=0.99,
                    error_model="poisson",
                )
                assert_equal({variant: (data["I"][row], data["I_errors"][row], theirs)})


# --- sigma-clip -------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["azimuthal", "poisson"])
@pytest.mark.parametrize("bins", [None, 400, 100])
@pytest.mark.parametrize("seed", range(4))
def test_sigma_clip_takes_pyfai_decisions(reference, geometry, seed, bins, model):
    rng = np.random.default_rng(seed)
    height, background = 10 ** rng.uniform(0, 3), 10 ** rng.uniform(-1, 1.5)
    image = rng.poisson(rings(geometry.two_theta, height=height, background=background))
    for _ in range(40):
        y, x = rng.integers(2, 148), rng.integers(2, 168)
        image[y - 1 : y + 2, x - 1 : x + 2] += rng.integers(10, 5000)
    image = image.astype(np.uint16)
    binning = choose_binning(geometry, "2theta", bins, None)
    settings = ReductionSettings(reject="sigma-clip", splitting="no", error_model=model)
    reduce = FrameReducer(geometry, binning, settings)
    row = reduce.reduce(image).rows["masked"]
    rejected = reduce.masked_pixels(image).ravel()
    theirs = reference.sigma_clip_ng(
        image.astype(np.float32),
        binning.count,
        unit=binning.pyfai_unit,
        radial_range=(binning.low, binning.high),
        method=("no", "csr", "cython"),
        thresh=5,
        max_iter=5,
        error_model=model,
        polarization_factor=0.99,
    )
    where = reduce._rings.bins
    kept = np.bincount(where[(where >= 0) & ~rejected], minlength=binning.count)
    assert rejected.sum() > 40
    # pyFAI reports at least 3 pixels wherever there is one.
    np.testing.assert_array_equal(np.where(kept > 0, np.maximum(kept, 3), 0), theirs.count)
    scale = np.maximum(np.abs(theirs.intensity), theirs.sigma)
    filled = kept > 0
    difference = np.abs(row["I"] - theirs.intensity)[filled] / np.maximum(scale[filled], 1e-12)
    assert difference.max() < 1e-5


# --- threads ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{}, {"engine": "pyfai"}, {"reject": "sigma-clip"}, {"error_model": "azimuthal"}],
    ids=str,
)
def test_threads_share_one_reducer_without_a_trace(geometry, frame, settings):
    images = [with_spots(np.roll(frame, 3 * shift, axis=1)) for shift in range(12)]

    def reduce_all(threads: int) -> list[bytes]:
        binning = choose_binning(geometry, "2theta", 500, None)
        options = ReductionSettings(variants=("masked", "unmasked"), spottiness=True, **settings)
        reduce = FrameReducer(geometry, binning, options)
        with ThreadPoolExecutor(threads) as pool:
            results = list(pool.map(reduce.reduce, images))
        return [
            row[name].tobytes()
            for result in results
            for row in result.rows.values()
            for name in sorted(row)
        ]

    one, several = reduce_all(1), reduce_all(6)
    assert len(set(one)) > 24
    assert one == several


def test_the_pixel_matrix_serves_geometries_apart(tmp_path, frame):
    """Two reducers of different geometry give what each gives alone."""
    settings = ReductionSettings(engine="pyfai")
    rows = []
    for _ in range(2):
        reducers = []
        for distance in (0.2, 0.3):
            geometry = load_geometry(write_poni(tmp_path / "d.poni", distance=distance))
            binning = choose_binning(geometry, "2theta", 300, None)
            reducers.append(FrameReducer(geometry, binning, settings))
        rows.append([r.reduce(frame).rows["masked"]["I"] for r in reducers])
    np.testing.assert_array_equal(rows[0][0], rows[1][0])
    assert not np.array_equal(rows[0][0], rows[0][1], equal_nan=True)
