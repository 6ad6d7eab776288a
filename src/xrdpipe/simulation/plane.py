"""Where the pixels are, sorted so that a ring is a slice and a spot a few short runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xrdpipe.errors import InputError
from xrdpipe.types import BoolArray, FloatArray

PROFILE_STEP = 0.01
"""Step of the radial profile that smooth intensity is drawn from, degrees 2θ."""

AZIMUTH_BINS = 2880
"""Azimuthal bins of a grainy ring: 0.125°."""

DEGREE = np.pi / 180


@dataclass(frozen=True)
class DetectorPlane:
    """The pixels of a detector in radial, then azimuthal order.

    Parameters
    ----------
    shape
        Rows and columns.
    gap_mask
        Shape (rows, columns), True where the detector has no pixel.
    efficiency
        Shape (rows, columns), solid angle times polarization: what integration divides out.
    wavelength
        In Å.
    distance
        From the sample to the detector along the beam, m.
    two_theta_limits
        Smallest and largest 2θ of a pixel, degrees.
    pitch
        Pixel width along 2θ in degrees, median over the detector.
    median_cosine
        Median of cos 2θ over the pixels.
    order
        Flat pixel index, sorted by radial bin, then azimuth; gaps are left out.
    two_theta, chi
        In that order, degrees; chi in [-180, 180).
    azimuth_bin
        In that order, index into AZIMUTH_BINS.
    key
        Radial bin plus the turn of azimuth, in that order: what spots are looked up in.
    bin_start
        First place of each radial bin (width ``pitch``), and the end of the last.
    profile_index, profile_weight
        In that order: where in the radial profile a pixel lies, for linear interpolation.
    """

    shape: tuple[int, int]
    gap_mask: BoolArray
    efficiency: NDArray[np.float32]
    wavelength: float
    distance: float
    two_theta_limits: tuple[float, float]
    pitch: float
    median_cosine: float
    order: NDArray[np.int64]
    two_theta: NDArray[np.float32]
    chi: NDArray[np.float32]
    azimuth_bin: NDArray[np.int32]
    key: NDArray[np.float64]
    bin_start: NDArray[np.int64]
    profile_index: NDArray[np.int32]
    profile_weight: NDArray[np.float32]

    @property
    def profile_two_theta(self) -> NDArray[np.float64]:
        """Points of the radial profile in degrees, from 0 past the last pixel."""
        points = int(self.two_theta_limits[1] / PROFILE_STEP) + 3
        return np.arange(points) * np.float64(PROFILE_STEP)

    def slice_between(self, low: float, high: float) -> slice:
        """Places of all pixels of the radial bins that touch [low, high] degrees 2θ."""
        last = len(self.bin_start) - 1
        first_bin = min(max(int(low / self.pitch), 0), last)
        last_bin = min(max(int(high / self.pitch) + 1, 0), last)
        return slice(int(self.bin_start[first_bin]), int(self.bin_start[last_bin]))

    def image(self, values: FloatArray) -> NDArray[np.float32]:
        """Put values in sorted order back onto the detector; gaps get 0."""
        flat = np.zeros(self.shape[0] * self.shape[1], dtype=np.float32)
        flat[self.order] = values
        return flat.reshape(self.shape)

    def interpolated(
        self, profile: FloatArray, places: slice = slice(None), first: int = 0
    ) -> NDArray[np.float32]:
        """Values in sorted order of a radial profile.

        Parameters
        ----------
        profile
            On the points of ``profile_two_theta`` from number ``first`` on; 0 outside.
        places
            Pixels wanted.
        first
            Number of the first point.
        """
        # Two zeros at each end: pixels beyond the next point get exactly nothing.
        table = np.zeros(len(profile) + 4, dtype=np.float32)
        table[2:-2] = profile
        step = np.diff(table, append=np.float32(0))
        index = self.profile_index[places]
        if first == 0 and len(profile) == len(self.profile_two_theta):
            table, step = table[2:], step[2:]
        else:
            index = np.clip(index - (first - 2), 0, len(table) - 1)
        values: NDArray[np.float32] = step[index]
        values *= self.profile_weight[places]
        values += table[index]
        return values


def detector_plane(
    two_theta: FloatArray,
    chi: FloatArray,
    wavelength: float,
    distance: float,
    *,
    solid_angle: FloatArray | float = 1.0,
    polarization: FloatArray | float = 1.0,
    gap_mask: BoolArray | None = None,
) -> DetectorPlane:
    """Sort the pixels of a detector once for all frames.

    Parameters
    ----------
    two_theta, chi
        Shape (rows, columns), degrees, at the pixel centres.
    wavelength
        In Å.
    distance
        From the sample to the detector along the beam, m.
    solid_angle, polarization
        Factors that the measurement carries and integration divides out.
    gap_mask
        True where there is no pixel.

    Raises
    ------
    InputError
        The shapes differ, or there is no pixel.
    """
    shape = (two_theta.shape[0], two_theta.shape[1])
    gaps = np.zeros(shape, dtype=bool) if gap_mask is None else np.asarray(gap_mask, dtype=bool)
    if chi.shape != shape or gaps.shape != shape:
        raise InputError(
            f"two_theta {shape}, chi {chi.shape} and gap mask {gaps.shape} must have one shape."
        )
    live = np.flatnonzero(~gaps)
    if not live.size:
        raise InputError(f"the detector of {shape[0]} x {shape[1]} pixels consists of gaps only.")
    along_rows, along_columns = np.gradient(np.asarray(two_theta, dtype=float))
    pitch = float(np.median(np.hypot(along_rows, along_columns)))
    angle = np.asarray(two_theta, dtype=float).ravel()[live]
    turn = ((np.asarray(chi, dtype=float).ravel()[live] + 180) / 360) % 1.0
    radial_bin = np.floor(angle / pitch)
    # Short of the next integer, so that a turn close to 1 stays in its radial bin.
    key = radial_bin + turn * (1 - 1e-9)
    by_key = np.argsort(key, kind="stable")
    angle, turn, radial_bin, key = (part[by_key] for part in (angle, turn, radial_bin, key))
    bin_start = np.searchsorted(radial_bin, np.arange(int(radial_bin[-1]) + 2))
    place = angle / PROFILE_STEP
    return DetectorPlane(
        shape=shape,
        gap_mask=gaps,
        efficiency=np.broadcast_to(
            np.asarray(solid_angle) * np.asarray(polarization), shape
        ).astype(np.float32),
        wavelength=float(wavelength),
        distance=float(distance),
        two_theta_limits=(float(angle.min()), float(angle.max())),
        pitch=pitch,
        median_cosine=float(np.median(np.cos(angle.astype(np.float32) * DEGREE))),
        order=live[by_key],
        two_theta=angle.astype(np.float32),
        chi=(360 * turn - 180).astype(np.float32),
        azimuth_bin=np.minimum((turn * AZIMUTH_BINS).astype(np.int32), AZIMUTH_BINS - 1),
        key=key,
        bin_start=bin_start,
        profile_index=place.astype(np.int32),
        profile_weight=(place % 1.0).astype(np.float32),
    )


def azimuth_difference(chi: FloatArray, centre: FloatArray) -> FloatArray:
    """Difference of two azimuths in [-180, 180), degrees."""
    difference: FloatArray = (chi - centre + 180) % 360 - 180
    return difference


def pixels_near(
    plane: DetectorPlane,
    two_theta: FloatArray,
    chi: FloatArray,
    reach: FloatArray,
    azimuthal_reach: FloatArray,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels in a window around each of n centres.

    Parameters
    ----------
    plane
        The detector.
    two_theta, chi
        Centres in degrees, shape (n,).
    reach, azimuthal_reach
        Half-widths of the windows, degrees, shape (n,).

    Returns
    -------
    Places in the plane's sorted order, and which centre each belongs to; same length.
    """
    bins = len(plane.bin_start) - 1
    first = np.clip(np.floor((two_theta - reach) / plane.pitch), 0, bins).astype(np.int64)
    last = np.clip(np.floor((two_theta + reach) / plane.pitch) + 1, 0, bins).astype(np.int64)
    rows, spot = _expand(first, last)
    centre = ((chi[spot] + 180) / 360) % 1.0
    half = np.minimum(azimuthal_reach[spot] / 360, 0.5)
    low, high = centre - half, centre + half
    # A window over the cut at ±180° is two windows, moved by a turn.
    wraps_low, wraps_high = low < 0, high > 1
    rows = np.concatenate([rows, rows[wraps_low], rows[wraps_high]])
    spot = np.concatenate([spot, spot[wraps_low], spot[wraps_high]])
    low, high = (
        np.concatenate([low, low[wraps_low] + 1, low[wraps_high] - 1]),
        np.concatenate([high, high[wraps_low] + 1, high[wraps_high] - 1]),
    )
    start = np.searchsorted(plane.key, rows + np.maximum(low, 0))
    stop = np.searchsorted(plane.key, rows + np.minimum(high, 1 - 1e-12))
    pixel, run = _expand(start, stop)
    return pixel, spot[run]


def _expand(
    start: NDArray[np.int64], stop: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All integers of the ranges [start, stop), and the range that each belongs to."""
    length = np.maximum(stop - start, 0)
    owner = np.repeat(np.arange(len(start)), length)
    within = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
    return start[owner] + within, owner
