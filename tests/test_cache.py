"""The cache changes no byte of a result, whatever happens to its files."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

import xrdpipe
from h5compare import differences
from known_frames import SHAPE, rings, write_poni
from xrdpipe.errors import InputError, OptionError
from xrdpipe.integration import cache, compiled, geometry, matrix
from xrdpipe.integration.cache import ArrayCache, Once, digest
from xrdpipe.integration.geometry import load_geometry
from xrdpipe.types import Progress

KINDS = {"geometry", "norm", "matrix", "static", "bins"}
COMPILED = KINDS | {"tiles", "rings"}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty cache of this test."""
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def scan(tmp_path_factory, geometry) -> Path:
    """Three frames in HDF5, a geometry, a mask, a dark and a flat."""
    folder = tmp_path_factory.mktemp("scan")
    write_poni(folder / "geometry.poni", rotations=(0.02, -0.01))
    random = np.random.default_rng(3)
    stack = random.poisson(rings(geometry.two_theta), (3, *SHAPE)).astype(np.uint16)
    with h5py.File(folder / "frames.h5", "w") as file:
        file["stack"] = stack
    np.save(folder / "mask.npy", random.random(SHAPE) < 0.1)
    np.save(folder / "dark.npy", random.random(SHAPE).astype(np.float32))
    np.save(folder / "flat.npy", random.uniform(0.9, 1.1, SHAPE).astype(np.float32))
    return folder


def integrate(scan: Path, output: Path, **options) -> tuple[Path, list[str]]:
    """One run; the file it wrote and what it said of the cache."""
    from xrdpipe.config import IntegrateConfig
    from xrdpipe.stages import run_stage

    said: list[str] = []
    given = {"poni": f"{scan}/geometry.poni", "variant": "both", "spottiness": True} | options
    settings = IntegrateConfig.from_mapping(
        {"frames": [f"{scan}/frames.h5::stack"], "output": output, **given}
    )
    run_stage("integrate", settings, Progress(note=said.append))
    return output, [text for text in said if text.startswith("cache")]


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def kinds(names: set[str]) -> set[str]:
    return {name.partition("-")[0] for name in names}


def forbidden(*_args, **_kwargs):
    raise AssertionError("this should have come from the cache")


# --- results ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mask": ["{scan}/mask.npy"], "dark": ["{scan}/dark.npy"], "flat": ["{scan}/flat.npy"]},
        {"flip": "ud", "rotate": 180, "splitting": "full"},
        {"reject": "sigma-clip", "unit": "q", "polarization_factor": "none"},
        {"engine": "pyfai"},
        {"error_model": "azimuthal", "variant": "unmasked", "spottiness": False},
    ],
    ids=["plain", "planes", "turned", "sigma-clip", "pyfai", "azimuthal"],
)
@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "frame by frame"])
def test_without_with_empty_and_with_full_cache_give_the_same_bytes(
    scan, folder, tmp_path, monkeypatch, options, kernel
):
    if not kernel:
        monkeypatch.setenv(compiled.SWITCH, "off")
    given = {k: [v[0].format(scan=scan)] if isinstance(v, list) else v for k, v in options.items()}
    plain, _ = integrate(scan, tmp_path / "plain.h5", **given, cache=False)
    assert not folder.exists()
    empty, said = integrate(scan, tmp_path / "empty.h5", **given)
    assert said == []
    kept = entries(folder)
    monkeypatch.setattr(geometry, "_arrays", forbidden)
    monkeypatch.setattr(matrix, "_pyfai_matrix", forbidden)
    full, said = integrate(scan, tmp_path / "full.h5", **given)
    assert said == []
    assert entries(folder) == kept
    assert differences(plain, empty) == []
    assert differences(plain, full) == []


@pytest.mark.skipif(compiled.library() is None, reason="the kernel was not built")
def test_a_run_from_the_cache_starts_neither_pyfai_nor_scipy(scan, folder, tmp_path):
    code = (
        "import sys, xrdpipe\n"
        "scan, output = sys.argv[1:]\n"
        "xrdpipe.integrate(frames=[f'{scan}/frames.h5::stack'], poni=f'{scan}/geometry.poni',"
        " variant='unmasked', output=output)\n"
        "print([name for name in ('pyFAI', 'scipy', 'torch') if name in sys.modules])"
    )
    started = []
    for name in ("a.h5", "b.h5"):
        done = subprocess.run(
            [sys.executable, "-c", code, scan, tmp_path / name],
            capture_output=True,
            text=True,
            check=True,
        )
        started.append(done.stdout.strip())
    assert started == ["['pyFAI', 'scipy']", "[]"]


# What each change must make anew; what it must find again is the rest.
CHANGES = {
    "mask": ({"mask": ["{scan}/mask.npy"]}, {"static", "tiles", "rings"}),
    "dark": ({"dark": ["{scan}/dark.npy"]}, {"static", "tiles", "rings"}),
    "flat": ({"flat": ["{scan}/flat.npy"]}, {"static", "tiles", "rings"}),
    "polarization": ({"polarization_factor": 0.5}, {"norm", "static", "tiles", "rings"}),
    "solid angle": ({"solid_angle": False}, {"norm", "static", "tiles", "rings"}),
    "splitting": ({"splitting": "full"}, {"matrix", "static", "tiles", "rings"}),
    "bins": ({"bins": 321}, COMPILED - {"geometry", "norm"}),
    "range": ({"radial_range": [5.0, 15.0]}, COMPILED - {"geometry", "norm"}),
    "unit": ({"unit": "q"}, COMPILED - {"geometry", "norm"}),
    "flip": ({"flip": "lr"}, {"tiles", "rings"}),
    "wavelength": ({"wavelength": 0.6, "unit": "q"}, COMPILED),
    "geometry": ({"poni": "other.poni"}, COMPILED),
}


@pytest.mark.skipif(compiled.library() is None, reason="the kernel was not built")
@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_is_not_found(scan, folder, tmp_path, name):
    options, new = CHANGES[name]
    options = {
        k: [v[0].format(scan=scan)] if k in ("mask", "dark", "flat") else v
        for k, v in options.items()
    }
    if "poni" in options:
        options["poni"] = write_poni(tmp_path / "other.poni", distance=0.2001)
    integrate(scan, tmp_path / "first.h5")
    before = entries(folder)
    assert kinds(before) == COMPILED
    changed, _ = integrate(scan, tmp_path / "changed.h5", **options)
    assert kinds(entries(folder) - before) == new
    plain, _ = integrate(scan, tmp_path / "plain.h5", **options, cache=False)
    assert differences(plain, changed) == []


def test_other_software_finds_nothing(tmp_path, monkeypatch):
    held = ArrayCache(tmp_path)
    found = cache._versions()
    assert len(found) == 7  # xrdpipe, the code of integration, pyFAI, numpy, scipy, the machine
    others = [(*found[:k], "another", *found[k + 1 :]) for k in range(len(found))]
    for number, versions in enumerate([found, *others, found]):
        monkeypatch.setattr(cache, "_versions", lambda versions=versions: versions)
        _put(held, "a")
        assert len(entries(tmp_path)) == min(number + 1, 1 + len(others))


def test_a_file_that_the_geometry_names_is_part_of_it(tmp_path):
    held = ArrayCache(tmp_path / "cache")
    poni = write_poni(tmp_path / "g.poni")
    distortion = tmp_path / "detector.dat"
    distortion.write_text("one")
    poni.write_text(f"{poni.read_text()}# SplineFile: {distortion}\n")
    keys = [load_geometry(poni, SHAPE, cache=held).key]
    distortion.write_text("other")
    keys.append(load_geometry(poni, SHAPE, cache=held).key)
    assert keys[0] != keys[1]


def test_a_geometry_that_changes_between_cache_and_pyfai_is_told(tmp_path):
    held = ArrayCache(tmp_path / "cache")
    poni = write_poni(tmp_path / "g.poni")
    expected = load_geometry(poni, cache=held).two_theta
    np.testing.assert_array_equal(load_geometry(poni, cache=held).two_theta, expected)
    found = load_geometry(poni, cache=held)
    write_poni(poni, distance=0.3)
    with pytest.raises(InputError, match=r"g\.poni was changed while it was in use"):
        _ = found.two_theta


# --- damage ----------------------------------------------------------------------------------


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1 if len(content) > 4096 else len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "a flipped bit": _flip,
    "a damaged header": lambda path: path.write_bytes(b"xrdpipe1" + path.read_bytes()[9:]),
    "another file": lambda path: path.write_text("this is no entry of a cache"),
    "a truncated file": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "half a file": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "an empty file": lambda path: path.write_bytes(b""),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_entries_are_told_and_built_anew(scan, folder, tmp_path, name):
    plain, _ = integrate(scan, tmp_path / "plain.h5")
    kept = entries(folder)
    for path in folder.iterdir():
        DAMAGE[name](path)
    again, said = integrate(scan, tmp_path / "again.h5")
    assert differences(plain, again) == []
    told = [text for text in said if "it is built anew" in text]
    assert any("geometry-" in text for text in told)
    if name != "a folder":  # which is not ours to remove
        assert len(told) == len(kept)
        assert entries(folder) == kept
        healed, said = integrate(scan, tmp_path / "healed.h5")
        assert said == []
        assert differences(plain, healed) == []


def test_a_folder_that_cannot_be_written_does_not_hurt(scan, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / "file" / "cache"))
    plain, _ = integrate(scan, tmp_path / "plain.h5", cache=False)
    result, said = integrate(scan, tmp_path / "a.h5")
    assert differences(plain, result) == []
    assert len(said) == 1
    assert "cannot be written" in said[0]


def test_a_read_only_folder_is_read(scan, folder, tmp_path, monkeypatch):
    plain, _ = integrate(scan, tmp_path / "plain.h5")

    def refuse(*_args, **_kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(matrix, "_pyfai_matrix", forbidden)
    result, said = integrate(scan, tmp_path / "a.h5")
    assert said == []
    assert differences(plain, result) == []


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    said: list[str] = []
    held = ArrayCache(tmp_path, note=said.append)
    written = Path.open

    def full(path, mode="r", *args, **kwargs):
        file = written(path, mode, *args, **kwargs)
        if mode == "xb":
            file.write(b"x" * 10_000)
            file.close()
            raise OSError(errno.ENOSPC, "No space left on device")
        return file

    monkeypatch.setattr(Path, "open", full)
    for _ in range(2):
        found = held.get("a", (1,), lambda: {"x": np.arange(5)})
        np.testing.assert_array_equal(found["x"], np.arange(5))
    assert list(tmp_path.iterdir()) == []
    assert len(said) == 1
    assert "No space left on device" in said[0]


# --- several at once -------------------------------------------------------------------------


BUILDER = """
import sys, time
from pathlib import Path
import numpy as np
from xrdpipe.integration.cache import ArrayCache

folder, me, others = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

def build():
    (folder / f"{me}.building").touch()
    while len(list(folder.glob("*.building"))) < others:
        time.sleep(0.005)
    return {"x": np.arange(2_000_000), "y": np.ones((3, 4), np.float32)}

said = []
held = ArrayCache(folder / "cache", note=said.append)
for _ in range(3):
    found = held.get("a", ("key", 1.5), build)
    assert (found["x"] == np.arange(2_000_000)).all() and (found["y"] == 1).all()
print(said)
"""


def test_processes_may_build_at_once(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", BUILDER, tmp_path, str(n), "3"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(3)
    ]
    for process in processes:
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert said.strip() == "[]"
    assert len(entries(tmp_path / "cache")) == 1


def test_a_mapped_entry_outlives_its_file(tmp_path):
    held = ArrayCache(tmp_path)
    held.get("a", (), lambda: {"x": np.arange(100_000)})
    mapped = held.get("a", (), forbidden)["x"]
    for path in tmp_path.iterdir():
        path.unlink()
    np.testing.assert_array_equal(mapped, np.arange(100_000))


def test_entries_are_read_where_removed_files_are_forgotten(tmp_path, monkeypatch):
    """A page of a mapped file that is gone would end the process."""
    held = ArrayCache(tmp_path)
    held.get("a", (), lambda: {"x": np.arange(1000)})
    assert isinstance(held.get("a", (), forbidden)["x"].base, mmap.mmap)
    monkeypatch.setattr(cache, "_forgets_removed_files", lambda folder: True)
    found = held.get("a", (), forbidden)["x"]
    assert isinstance(found.base, bytes)
    np.testing.assert_array_equal(found, np.arange(1000))


def test_network_file_systems_are_known_by_the_longest_mount(tmp_path, monkeypatch):
    mounts = (
        f"disk / ext4 rw 0 0\nserver:/home {tmp_path} nfs4 rw 0 0\n"
        f"disk {tmp_path}/local xfs rw 0 0\nserver:/x {tmp_path}/a\\040b cifs rw 0 0\n"
    )
    monkeypatch.setattr(Path, "read_text", lambda self: mounts)
    forgets = cache._forgets_removed_files.__wrapped__
    assert forgets(tmp_path / "cache")
    assert forgets(tmp_path / "a b" / "cache")
    assert not forgets(tmp_path / "local" / "cache")
    assert not forgets(tmp_path.parent)


def test_a_value_is_made_once_whichever_thread_asks():
    made = []

    def make():
        time.sleep(0.02)
        made.append(1)
        return object()

    once = Once(make)
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: once(), range(8)))
    assert len(made) == len(found) == 1


# --- room ------------------------------------------------------------------------------------


def _put(held: ArrayCache, name: str, size: int = 100_000) -> None:
    held.get(name, (name,), lambda: {"x": np.zeros(size, np.uint8)})


def _held(folder: Path) -> str:
    return "".join(sorted(kinds(entries(folder))))


def test_least_recently_used_entries_go(tmp_path):
    held = ArrayCache(tmp_path, limit=350_000)
    for age, name in enumerate("cba"):
        _put(held, name)
        path = next(tmp_path.glob(f"{name}-*"))
        os.utime(path, (time.time() - 100 + age,) * 2)
    _put(held, "c")  # used again
    _put(held, "d")
    assert _held(tmp_path) == "acd"
    _put(held, "e", 240_000)
    assert _held(tmp_path) == "de"
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= held.limit


def test_an_entry_beyond_the_limit_is_not_kept(tmp_path):
    said: list[str] = []
    held = ArrayCache(tmp_path, limit=150_000, note=said.append)
    _put(held, "a")
    _put(held, "b", 200_000)
    assert _held(tmp_path) == "a"
    assert len(said) == 1
    assert cache.LIMIT in said[0]


def test_what_killed_processes_left_goes_and_nothing_else(tmp_path):
    held = ArrayCache(tmp_path, limit=10_000)
    others = tmp_path / "data.h5"
    others.write_bytes(bytes(5000))
    left, under_way = tmp_path / ".a-1.part", tmp_path / ".a-2.part"
    for path in (left, under_way):
        path.write_bytes(bytes(10))
    os.utime(left, (time.time() - 2 * cache.ABANDONED,) * 2)
    _put(held, "a", 10)
    assert not left.exists()
    assert under_way.exists()
    assert others.exists()


# --- keys, folders, words --------------------------------------------------------------------


def test_keys_tell_everything_apart():
    x = np.arange(6, dtype=np.int32)
    parts = [
        (x,), (x.astype(np.int64),), (x.reshape(2, 3),), (x.reshape(3, 2),), (x[::-1],),
        (x.view(np.float32),), (), ((),), (None,), (0,), (0.0,), (False,), ("0",), ("",),
        (1, 2), (12,), ("1", "2"), ("12",), ((1,), 2), (1, (2,)), (0.1 + 0.2,), (0.3,),
    ]  # fmt: skip
    assert len({digest(*one) for one in parts}) == len(parts)
    assert digest(x[::2]) == digest(x[::2].copy())
    assert digest(np.float64(0.3), np.int64(2)) == digest(0.3, 2)
    with pytest.raises(TypeError, match="cannot be part of a key"):
        digest(object())


def test_arrays_come_back_as_they_were(tmp_path):
    given = {
        "number": np.asarray(7),
        "empty": np.zeros((0, 3), np.float32),
        "flags": np.array([[True, False]]),
        "turned": np.arange(12.0).reshape(3, 4).T,
        "last": np.zeros(0, np.int64),
    }
    held = ArrayCache(tmp_path)
    for _ in range(2):
        found = held.get("a", (), lambda: given)
        assert list(found) == list(given)
        for name, array in found.items():
            assert array.dtype == given[name].dtype
            assert array.shape == given[name].shape
            assert not array.flags.writeable
            np.testing.assert_array_equal(array, given[name])
    assert given["flags"].flags.writeable


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"XRDPIPE_CACHE": "/a/b", "XDG_CACHE_HOME": "/c"}, "/a/b"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/xrdpipe"),
        ({"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/xrdpipe"),
        ({}, "/home/me/.cache/xrdpipe"),
    ],
)
def test_the_folder(monkeypatch, environment, expected):
    for name in ("XRDPIPE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **environment}.items():
        monkeypatch.setenv(name, value)
    assert cache.cache_folder() == Path(expected)


def test_a_limit_that_is_no_size_is_refused(scan, folder, tmp_path, monkeypatch):
    monkeypatch.setenv(cache.LIMIT, "much")
    with pytest.raises(OptionError, match="XRDPIPE_CACHE_LIMIT is 'much'; expected a size in GiB"):
        integrate(scan, tmp_path / "a.h5")
    monkeypatch.setenv(cache.LIMIT, "0")
    _, said = integrate(scan, tmp_path / "a.h5")
    assert not folder.exists()
    assert said == []


def test_doctor_tells_folder_size_and_limit(folder, monkeypatch):
    monkeypatch.setenv(cache.LIMIT, "2")
    assert cache.describe_cache() == f"cache: {folder}, 0 entries, 0.00 of 2 GiB"
    _put(ArrayCache(folder), "a", 20 << 20)
    assert cache.describe_cache() == f"cache: {folder}, 1 entry, 0.02 of 2 GiB"


def test_the_library_takes_the_option(scan, folder, tmp_path):
    given = {"frames": f"{scan}/frames.h5::stack", "poni": f"{scan}/geometry.poni"}
    xrdpipe.integrate(**given, output=tmp_path / "a.h5", cache=False)
    assert not folder.exists()
    xrdpipe.integrate(**given, output=tmp_path / "b.h5")
    assert "geometry" in kinds(entries(folder))
