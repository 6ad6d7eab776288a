"""Whole, cut, spoilt and random frames through a kernel; run by test_kernel_sanitized.py.

Its argument is the folder of a kernel to use instead of the installed one.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import xrdpipe.integration

xrdpipe.integration.__path__.insert(0, sys.argv[1])

from known_frames import SHAPE, geometry_of  # noqa: E402
from test_kernel import TOP, byte_offsets, compare, packed, random_frames, reducer  # noqa: E402
from xrdpipe.integration import compiled  # noqa: E402
from xrdpipe.integration.batch import BatchReducer  # noqa: E402
from xrdpipe.types import Encoded  # noqa: E402


def damaged(chunk: bytes, rng: np.random.Generator) -> Iterator[bytes]:
    """Cut off, bits turned, a header before nonsense, nonsense."""
    yield chunk[: rng.integers(0, len(chunk))]
    for flips in (1, 3, 30):
        spoilt = np.frombuffer(chunk, np.uint8).copy()
        spoilt[rng.integers(0, len(chunk), flips)] ^= 1 << rng.integers(0, 8, flips, np.uint8)
        yield spoilt.tobytes()
    yield chunk[:16] + rng.bytes(len(chunk) - 16)
    yield rng.bytes(len(chunk))


def main() -> None:
    """Compare and survive."""
    library = compiled._library()
    assert library is not None
    assert library._name.startswith(sys.argv[1]), library._name
    rng = np.random.default_rng(3)
    mask, dark = rng.random(SHAPE) < 0.1, rng.normal(1, 0.3, SHAPE).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        geometry = geometry_of(Path(folder))
    for number, level in enumerate(compiled.LEVELS[: library.xk_level() + 1]):
        os.environ[compiled.SWITCH] = level
        for dtype, reject, planes in (
            ("u4", "robust", {"mask": mask}),
            ("u2", "sigma-clip", {}),
            ("f4", "robust", {"dark": dark}),
            ("u1", "none", {}),
            ("i4", "none", {}),
        ):
            known = {
                "sentinels": () if dtype == "f4" else (TOP[dtype],),
                "saturation": 240.0 if dtype == "u1" else 20000.0,
            }
            reduce = reducer(geometry, planes, 120, reject=reject, spottiness=True, **known)
            batch = BatchReducer(reduce, np.dtype(dtype))
            frames = random_frames(geometry, dtype, rng, 3 + number)
            whole = [packed(frames[k], block) for k, block in enumerate((0, 8, 512))]
            if dtype == "i4":
                whole.append(Encoded(byte_offsets(frames[0]), "byte-offset"))
            compare(reduce, batch, frames, [1.0] * len(frames))
            for _ in range(4):
                given = [
                    Encoded(bad, one.encoding) for one in whole for bad in damaged(one.data, rng)
                ]
                for first in range(0, len(given), batch.size - 1):
                    part = [whole[0], *given[first : first + batch.size - 1]]
                    assert batch.reduce(part, [1.0] * len(part))[0] is not None
    print("survived")


if __name__ == "__main__":
    main()
