"""The sums of :class:`Kernel` on an accelerator that torch sees: sparse products of whole batches.

Rejection needs order statistics of every ring and stays on the processor. All sums are in float64.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import EnvironmentProblemError
from xrdpipe.integration.compiled import (
    OK,
    STATIC_SUMS,
    SUMS,
    BatchSums,
    PixelPlanes,
    PixelValues,
)

if TYPE_CHECKING:
    import scipy.sparse as sp
    from torch import Tensor


class Accelerator:
    """As :class:`Kernel`, without rings.

    Parameters
    ----------
    matrix
        Shape (rows, pixels).
    dtype
        Of the frames.
    planes, values
        As for :class:`Kernel`.
    static_sums
        The first five of :data:`SUMS` over the statically valid pixels, shape (5, rows).
    device
        As torch names it.

    Raises
    ------
    EnvironmentProblemError
        If torch finds no such device, or its memory does not suffice.
    """

    def __init__(
        self,
        matrix: sp.csc_array[Any],
        dtype: np.dtype[Any],
        planes: PixelPlanes,
        values: PixelValues,
        static_sums: NDArray[np.float64],
        device: str,
    ) -> None:
        import torch

        self._torch = torch
        self._dtype = dtype
        self._values = values
        self._device = torch.device(device)
        self._static = static_sums
        try:
            by_row = matrix.tocsr()
            self._matrix = self._sparse(by_row, by_row.data.astype(np.float64))
            self._squared = self._sparse(by_row, by_row.data.astype(np.float64) ** 2)
            self._touches = self._sparse(by_row, np.ones(by_row.data.size))
            self._valid = self._plane(planes.valid)
            none = np.zeros(planes.valid.size)
            self._extra = self._plane(none > 0 if planes.extra is None else planes.extra)
            self._weights = [
                self._plane(np.where(np.isfinite(plane), plane, 0).astype(np.float64))
                for plane in (
                    planes.norm,
                    planes.solid_angle,
                    none if planes.dark is None else planes.dark,
                )
            ]
        except (RuntimeError, AssertionError) as error:
            raise EnvironmentProblemError(
                f"the frames cannot be integrated on {device} ({_first_line(error)}); "
                "use --device cpu."
            ) from error

    def integrate(self, frames: Sequence[Any], exact: bool = True, work: int = 0) -> BatchSums:
        """Sum decoded frames; every sum is exact, and no work may follow."""
        assert not work
        images = np.stack([frame.ravel() for frame in frames])
        try:
            return self._sums(self._on_device(images))
        except (RuntimeError, AssertionError) as error:
            raise EnvironmentProblemError(
                f"{self._device} gave up ({_first_line(error)}); use --device cpu."
            ) from error

    def _sums(self, raw: Tensor) -> BatchSums:
        torch = self._torch
        values = self._values
        invalid = ~torch.isfinite(raw) | _any_of(raw, values.sentinels)
        usable = self._valid & ~invalid
        invalid &= self._valid
        x = torch.where(usable, raw, 0.0)
        least = torch.where(usable, x.clamp(min=values.floor), 0.0)
        lost = invalid.to(x.dtype)
        off = [self._matrix @ (plane * lost) for plane in self._weights]
        off.insert(2, self._touches @ lost)
        off.append(self._squared @ lost)
        dynamic = torch.stack([self._matrix @ x, self._squared @ least])
        sums = np.empty((raw.shape[1], len(SUMS), self._static.shape[1]))
        sums[:, :STATIC_SUMS] = self._static - _host(torch.stack(off)).transpose(2, 0, 1)
        sums[:, STATIC_SUMS:] = _host(dynamic).transpose(2, 0, 1)
        saturation = np.inf if values.saturation is None else values.saturation

        def count(mask: Tensor) -> NDArray[np.int64]:
            return _host(mask.sum(dim=0)).astype(np.int64)

        return BatchSums(
            status=np.full(raw.shape[1], OK),
            invalid=count(invalid),
            invalid_extra=count(invalid & self._extra),
            saturated=count(usable & (raw >= saturation)),
            watched=count(self._valid & _any_of(raw, values.watched)),
            total=_host(x.sum(dim=0)),
            highest=_host(x.amax(dim=0).clamp(min=0)),
            lowest=_host(x.amin(dim=0).clamp(max=0)),
            sums=sums,
        )

    def _on_device(self, images: NDArray[Any]) -> Tensor:
        """Raw values in float64, shape (pixels, frames)."""
        # torch has no arithmetic for unsigned words: they travel as signed ones.
        unsigned = images.dtype.kind == "u" and images.dtype.itemsize > 1
        words = images.view(images.dtype.str.replace("u", "i")) if unsigned else images
        raw: Tensor = self._torch.from_numpy(words).to(self._device).T.to(self._torch.float64)
        if unsigned:
            raw[raw < 0] += 2.0 ** (8 * images.dtype.itemsize)
        return raw

    def _plane(self, values: NDArray[Any]) -> Tensor:
        on_device: Tensor = self._torch.from_numpy(values).to(self._device)
        return on_device[:, None]

    def _sparse(self, by_row: Any, data: NDArray[np.float64]) -> Tensor:
        torch = self._torch
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            made: Tensor = torch.sparse_csr_tensor(
                torch.from_numpy(by_row.indptr.astype(np.int64)),
                torch.from_numpy(by_row.indices.astype(np.int64)),
                torch.from_numpy(data),
                size=by_row.shape,
                check_invariants=False,
            ).to(self._device)
        return made


def _any_of(raw: Tensor, values: Sequence[float]) -> Tensor:
    found = raw.isnan() & False
    for value in values:
        found = found | (raw == value)
    return found


def _host(values: Tensor) -> NDArray[Any]:
    return np.asarray(values.cpu().numpy())


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
