"""pyFAI's splitting as a sparse matrix, applied with float64 sums.

In pyFAI, per bin: I = Σ c·(x − dark) / Σ c·n and sigma = sqrt(Σ c²·v) / Σ c·n with the
splitting coefficients c, the pixel normalisation n = flat · solid angle · polarization and
v = max(x, 1) for Poisson errors. The coefficients are pyFAI's own; the sums are sparse products.
A product with one scipy matrix is safe in several threads, pyFAI's CSR engine is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.integration.cache import NO_CACHE, ArrayCache, Arrays
from xrdpipe.integration.geometry import Binning, Geometry
from xrdpipe.quiet import quiet

if TYPE_CHECKING:
    import scipy.sparse as sp


def splitting_matrix(
    geometry: Geometry, binning: Binning, splitting: str, cache: ArrayCache = NO_CACHE
) -> sp.csc_array[Any]:
    """Return pyFAI's matrix of shape (bins, pixels) for all pixels outside the detector's gaps.

    Parameters
    ----------
    splitting
        ``no``, ``bbox`` or ``full``.
    cache
        Where it is looked up.
    """
    import scipy.sparse as sp

    found = cache.get(
        "matrix",
        (geometry.key, *binning.key, splitting),
        lambda: _pyfai_matrix(geometry, binning, splitting),
    )
    return sp.csc_array(
        (found["data"].astype(np.float64), found["indices"], found["indptr"]),
        shape=(binning.count, geometry.shape[0] * geometry.shape[1]),
    )


def _pyfai_matrix(geometry: Geometry, binning: Binning, splitting: str) -> Arrays:
    """The three arrays of the matrix, coefficients in pyFAI's precision."""
    import scipy.sparse as sp

    with quiet():
        engine = geometry.integrator.setup_sparse_integrator(
            geometry.shape,
            binning.count,
            mask=geometry.gap_mask,
            pos0_range=(binning.low, binning.high),
            unit=binning.pyfai_unit,
            split=splitting,
            algo="CSR",
        )
    by_bin = sp.csr_array(
        (
            np.asarray(engine.data),
            np.asarray(engine.indices),
            np.asarray(engine.indptr),
        ),
        shape=(binning.count, geometry.shape[0] * geometry.shape[1]),
    )
    # Column order: each pixel is read once and in sequence, the few bins stay in the cache
    # (5 ms instead of 10 ms per product for 1 Mpixel).
    matrix = by_bin.tocsc()
    return {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr}


def bin_of_pixel(geometry: Geometry, binning: Binning) -> NDArray[np.intp]:
    """Bin of each pixel centre (no splitting), shape (pixels,); −1 outside all bins and in gaps."""
    matrix = splitting_matrix(geometry, binning, "no")
    bins = np.full(matrix.shape[1], -1, np.intp)
    bins[np.diff(matrix.indptr) > 0] = matrix.indices
    return bins
