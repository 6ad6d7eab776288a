"""Sums through torch equal those of the reference path; on the processor here, as CI has no GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from known_frames import SHAPE, geometry_of
from test_kernel import TOP, compare, random_frames, reducer
from xrdpipe.errors import EnvironmentProblemError
from xrdpipe.integration.batch import BatchReducer, unsuited

DEVICES = ["cpu:0", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device"
))]  # fmt: skip
"""``cpu:0`` is torch's processor, ``cpu`` would be the compiled kernel."""


@pytest.fixture(scope="module")
def geometry(tmp_path_factory):
    return geometry_of(tmp_path_factory.mktemp("geometry"))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i4", "f4"])
def test_sums_equal_those_of_the_reference(geometry, dtype, device):
    rng = np.random.default_rng(8)
    planes = {
        "dead": rng.random(SHAPE) < 0.01,
        "mask": rng.random(SHAPE) < 0.1,
        "dark": rng.normal(1, 0.3, SHAPE).astype(np.float32),
    }
    for variants, chosen, saturation in (
        (("unmasked",), {}, 9000.0 if dtype != "u1" else 200.0),
        (("masked", "unmasked"), planes, None),
    ):
        reduce = reducer(
            geometry,
            chosen,
            variants=variants,
            reject="none",
            saturation=saturation,
            sentinels=(TOP[dtype],) if dtype != "f4" else (),
        )
        assert not unsuited(reduce, np.dtype(dtype), device)
        batch = BatchReducer(reduce, np.dtype(dtype), device=device)
        assert not batch.encodings
        frames = random_frames(geometry, dtype, rng, 4)
        compare(reduce, batch, frames, rng.uniform(0.5, 2, 4), limit=1e-5)


def test_rejection_stays_on_the_processor(geometry):
    for settings in ({"reject": "robust"}, {"reject": "none", "spottiness": True}):
        assert "cuda" in unsuited(reducer(geometry, **settings), np.dtype("u4"), "cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_device_that_is_not_there_is_named(geometry, tmp_path):
    reduce = reducer(geometry, variants=("unmasked",), reject="none")
    with pytest.raises(EnvironmentProblemError, match=r"cuda.*--device cpu"):
        BatchReducer(reduce, np.dtype("u4"), device="cuda")
