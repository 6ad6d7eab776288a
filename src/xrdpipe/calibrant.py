"""Line widths and angle errors of an instrument, from the powder pattern of a known substance.

Every line that stands alone is fitted with a pseudo-Voigt on a straight background: that says which
lines are there and where, and their places give the 2θ zero and the scale of the distance. Then all
of them are fitted at once with W, v and u of H² = W (1 + v tanθ + u tan²θ) (Caglioti, Paoletti &
Ricci, Nucl. Instrum. 3, 223 (1958)) and one Lorentzian part.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import curve_fit, least_squares, nnls

from xrdpipe.crystal import bragg_angle, powder_intensity, reflections
from xrdpipe.errors import InputError
from xrdpipe.types import FloatArray, Phase

FAINTEST = 0.02
"""Lines weaker than this part of the strongest are not fitted ..."""

DISTURBING = 0.003
"""... and those above this part are neighbours that a fit must not reach."""

REACH = 4.0
"""A fit takes this many widths to either side, if no neighbour is nearer."""

NARROWEST_REACH = 1.6
"""With fewer widths to either side, background and tails cannot be told apart: no fit."""

FIRST_REACH = 0.6
"""Degrees around the strongest lines in which a first width is looked for."""

OFF = 0.15
"""Lines further from their place than this, in degrees, are not theirs."""

SIGNIFICANT = 5.0
"""Height over its standard deviation from which on a line counts as found."""

FEWEST = 3
"""Lines that must be found."""

LARGEST_SCALE = 0.005
"""A larger relative error of the angles is a wrong wavelength, distance or structure."""

SMALLEST_SPACING = 0.6
"""Å; lines of smaller spacings are too weak to tell another wavelength by."""

Float = NDArray[np.float64]


@dataclass(frozen=True)
class FittedLine:
    """One line of the calibrant.

    Parameters
    ----------
    expected, position
        2θ as calculated and as found, degrees.
    position_error
        Standard deviation, degrees.
    fwhm, fwhm_error
        Full width at half maximum, degrees.
    mixing
        Lorentzian part of the pseudo-Voigt, 0-1.
    """

    expected: float
    position: float
    position_error: float
    fwhm: float
    fwhm_error: float
    mixing: float


@dataclass(frozen=True)
class Instrument:
    """What a calibrant says of an instrument.

    Parameters
    ----------
    width, v, u
        W½ in degrees, v and u: H² = W (1 + v tanθ + u tan²θ).
    lorentzian
        Twice the Lorentzian part of H: the Gaussian part of a Voigt is H (1 - lorentzian/2) wide,
        the Lorentzian part H lorentzian/2.
    scatter
        Relative deviation of the widths of single lines from the curve (1.48 times the median).
    zero, zero_error
        Found angles stand this much too high, degrees; None where lines are too few to tell.
    scale, scale_error
        Relative error of tan 2θ, that of the distance; None likewise.
    lines
        Those that were fitted.
    """

    width: float
    v: float
    u: float
    lorentzian: float
    scatter: float
    zero: float | None
    zero_error: float | None
    scale: float | None
    scale_error: float | None
    lines: tuple[FittedLine, ...]

    def fwhm(self, two_theta: FloatArray) -> Float:
        """Instrument's width H at angles, degrees."""
        tangent = np.tan(np.radians(np.asarray(two_theta, dtype=float)) / 2)
        width: Float = self.width * np.sqrt(1 + self.v * tangent + self.u * tangent**2)
        return width

    def line_shape(self, two_theta: FloatArray) -> tuple[Float, Float]:
        """FWHM and Lorentzian part of the pseudo-Voigt at angles."""
        return _voigt(self.fwhm(two_theta), self.lorentzian)


def fit_instrument(
    two_theta: Float, intensity: Float, phase: Phase, wavelength: float, where: str
) -> Instrument:
    """Fit the lines of a calibrant.

    Parameters
    ----------
    two_theta
        Shape (n,), ascending, degrees.
    intensity
        Same shape; NaN where there is no data.
    phase
        The calibrant.
    wavelength
        In Å.
    where
        Name of the pattern, for messages.

    Raises
    ------
    InputError
        Fewer than three lines are found where they should be, or all are displaced.
    """
    known = np.isfinite(intensity)
    x, y = two_theta[known], intensity[known].astype(float)
    if x.size < 30 or x[-1] - x[0] < 1:
        raise InputError(
            f"{where} has {x.size} points with data; expected a powder pattern of at least 30 "
            "points over at least 1 degree."
        )
    expected, height = _lines(phase, wavelength, x)
    fitted = _fit_all(x, y, expected, height) if len(expected) else []
    if len(fitted) < FEWEST:
        raise InputError(
            f"{len(fitted)} of {int((height >= FAINTEST).sum())} lines of '{phase.name}' at "
            f"{wavelength:g} Å are found in {where} ({x[0]:.2f}-{x[-1]:.2f} degrees), at least "
            f"{FEWEST} are needed{_other_wavelength(x, y, phase, wavelength)}; check "
            "the wavelength and that the CIF is that of the calibrant."
        )
    zero, zero_error, scale, scale_error = _angle_errors(fitted)
    if scale is not None and abs(scale) > LARGEST_SCALE:
        raise InputError(
            f"lines of '{phase.name}' stand {100 * scale:+.2f} % from where {wavelength:g} Å puts "
            f"them in {where}; expected at most {100 * LARGEST_SCALE:g} %: the wavelength, the "
            "distance or the CIF is wrong."
        )
    width, v, u, lorentzian = _common_profile(x, y, fitted, expected)
    instrument = Instrument(
        width, v, u, lorentzian, 0.0, zero, zero_error, scale, scale_error, tuple(fitted)
    )
    total, _ = instrument.line_shape(np.array([line.expected for line in fitted]))
    ratio = np.array([line.fwhm for line in fitted]) / total
    return replace(instrument, scatter=1.4826 * float(np.median(np.abs(ratio - 1))))


def _lines(phase: Phase, wavelength: float, x: Float) -> tuple[Float, Float]:
    """2θ and relative intensity of the separate lines within a range, ascending."""
    stop = min(float(x[-1]), 170.0)
    d_min = wavelength / (2 * np.sin(np.radians(stop / 2)))
    try:
        table = reflections(phase, wavelength, float(d_min))
    except InputError:
        return np.empty(0), np.empty(0)
    angle, strength = table.two_theta, powder_intensity(table, wavelength)
    usable = np.isfinite(strength) & (angle >= x[0]) & (angle <= stop)
    if not usable.any():
        return np.empty(0), np.empty(0)
    place, row = np.unique(np.round(angle[usable], 5), return_inverse=True)
    height: Float = np.bincount(row, weights=strength[usable]).astype(np.float64)
    height = height / height.max()
    strong = height >= DISTURBING
    return place[strong], height[strong]


def _fit_all(x: Float, y: Float, expected: Float, height: Float) -> list[FittedLine]:
    """Fit every line that stands alone; twice, as the first widths tell how far a fit may reach."""
    order = [k for k in np.argsort(-height) if height[k] >= FAINTEST]
    gaps = np.diff(expected, prepend=-np.inf, append=np.inf)
    room = np.minimum(gaps[:-1], gaps[1:]) / 2
    widths = [_rough_width(x, y, expected[k], min(room[k], FIRST_REACH)) for k in order[:8]]
    known = [width for width in widths if width is not None]
    fitted: list[FittedLine] = []
    for _ in range(2):
        if not known:
            return []
        width = float(np.median(known))
        tries = [
            _fit(x, y, float(expected[k]), width, float(min(room[k], REACH * width)))
            for k in sorted(order)
            if room[k] >= NARROWEST_REACH * width
        ]
        fitted = [line for line in tries if line is not None]
        known = [line.fwhm for line in fitted]
    return fitted


def _rough_width(x: Float, y: Float, place: float, reach: float) -> float | None:
    """Width at half height of the highest point near a place."""
    near = np.flatnonzero(np.abs(x - place) <= reach)
    if near.size < 5:
        return None
    part = y[near]
    top = int(np.argmax(part))
    half = (part[top] + np.quantile(part, 0.2)) / 2
    low, high = part[: top + 1] < half, part[top:] < half
    if not low.any() or not high.any():
        return None
    left, right = int(np.flatnonzero(low)[-1]), top + int(np.flatnonzero(high)[0])
    return float(x[near[right]] - x[near[left]])


def pseudo_voigt(x: Float, place: float, fwhm: float, mixing: float) -> Float:
    """Pseudo-Voigt profile of height 1."""
    distance = 2 * (x - place) / fwhm
    gauss = np.exp(-np.log(2) * distance**2)
    profile: Float = mixing / (1 + distance**2) + (1 - mixing) * gauss
    return profile


def _fit(x: Float, y: Float, place: float, width: float, reach: float) -> FittedLine | None:
    """A pseudo-Voigt on a straight background; None if no line stands there."""
    near = np.abs(x - place) <= reach
    if near.sum() < 9:
        return None
    x, y = x[near], y[near]
    base, top = float(np.quantile(y, 0.2)), float(y.max())
    if top <= base:
        return None

    def shape(
        x: Float, height: float, shift: float, fwhm: float, mixing: float, level: float, tilt: float
    ) -> Float:
        profile = pseudo_voigt(x, place + shift, fwhm, mixing)
        return height * profile + level + tilt * (x - place)

    limit = min(OFF, reach)
    shift = float(np.clip(x[int(np.argmax(y))] - place, -0.9 * limit, 0.9 * limit))
    start = [top - base, shift, width, 0.3, base, 0.0]
    low = [0, -limit, 0.2 * width, 0, -np.inf, -np.inf]
    high = [np.inf, limit, 4 * width, 1, np.inf, np.inf]
    try:
        best, covariance = curve_fit(shape, x, y, start, bounds=(low, high), max_nfev=400)
    except RuntimeError:  # no convergence: nothing that looks like a line
        return None
    error = np.sqrt(np.diag(covariance))
    found = np.isfinite(error).all() and best[0] > SIGNIFICANT * error[0]
    inside = abs(best[1]) < 0.99 * limit and 0.25 * width < best[2] < min(3.5 * width, 2 * reach)
    if not found or not inside:
        return None
    shift, fwhm, mixing = (float(value) for value in best[1:4])
    return FittedLine(place, place + shift, float(error[1]), fwhm, float(error[2]), mixing)


def _angle_errors(
    lines: list[FittedLine],
) -> tuple[float | None, float | None, float | None, float | None]:
    """Zero (degrees) and relative scale of tan 2θ with their errors; None if not told apart."""
    if len(lines) < FEWEST + 1:
        return None, None, None, None
    expected = np.radians([line.expected for line in lines])
    off = np.array([line.position - line.expected for line in lines])
    # d(2θ) = s sin 2θ cos 2θ for a relative error s of tan 2θ.
    terms = np.stack([np.ones_like(expected), np.degrees(np.sin(2 * expected) / 2)], axis=1)
    floor = 0.02 * np.median([line.fwhm for line in lines])
    weight = 1 / np.hypot([line.position_error for line in lines], floor)
    answer, rest, rank, _ = np.linalg.lstsq(terms * weight[:, None], off * weight, rcond=None)
    if rank < 2:
        return None, None, None, None
    chi = max(float(rest[0]) / (len(lines) - 2), 1.0) if rest.size else 1.0
    covariance = np.linalg.inv((terms * weight[:, None]).T @ (terms * weight[:, None])) * chi
    errors = np.sqrt(np.diag(covariance))
    return float(answer[0]), float(errors[0]), float(answer[1]), float(errors[1])


def _voigt(total: Float, lorentzian: float) -> tuple[Float, Float]:
    """Pseudo-Voigt nearest to a Voigt profile whose two widths add up to ``total``.

    Thompson, Cox & Hastings, J. Appl. Cryst. 20, 79 (1987).
    """
    gauss, lorentz = 1 - lorentzian / 2, lorentzian / 2
    terms = (1, 2.69269, 2.42843, 4.47163, 0.07842, 1)
    fifth = sum(c * gauss ** (5 - k) * lorentz**k for k, c in enumerate(terms))
    fwhm = fifth**0.2
    part = lorentz / fwhm
    mixing = part * (1.36603 - part * (0.47719 - part * 0.11116))
    return total * fwhm, np.full_like(total, mixing)


def _common_profile(
    x: Float, y: Float, lines: list[FittedLine], expected: Float
) -> tuple[float, float, float, float]:
    """W½, v, u and the Lorentzian part that all lines share, from one fit to all of them.

    Single lines leave width and shape too loose: their tails go into the background. Here four
    numbers describe all lines, H at three angles and the Lorentzian part; height, background and
    slope of each line follow by linear least squares.
    """
    windows = [_window(x, y, line, expected) for line in lines]
    tangent = np.tan(np.radians([line.expected for line in lines]) / 2)
    anchors = np.linspace(tangent.min(), tangent.max(), 3)
    typical = float(np.median([line.fwhm for line in lines]))

    def misfit(numbers: Float) -> Float:
        total = np.sqrt(_through(anchors, np.exp(2 * numbers[:3]), tangent).clip(min=1e-12))
        fwhm, mixing = _voigt(total, float(numbers[3]))
        return np.concatenate(
            [
                _unexplained(window, line, width, shape)
                for window, line, width, shape in zip(windows, lines, fwhm, mixing, strict=True)
            ]
        )

    start = np.array([np.log(typical)] * 3 + [0.3])
    low, high = start - 1.5, start + 1.5
    low[3], high[3] = 0.0, 2.0
    best = least_squares(misfit, start, bounds=(low, high), loss="soft_l1").x
    square = _growth(anchors, np.exp(2 * best[:3]))
    level = float(square[0])
    return (
        float(np.sqrt(level)),
        float(square[1] / level),
        float(square[2] / level),
        float(best[3]),
    )


def _window(x: Float, y: Float, line: FittedLine, expected: Float) -> tuple[Float, Float, float]:
    """2θ, intensity and standard deviation of the points around a line.

    One number for all points of a line: weights that follow the counts would favour the points
    that noise has lowered and lose the tails. Noise from differences of neighbouring points;
    beside it 2 % of the height for what no profile describes, so that the strongest line does not
    decide alone.
    """
    others = np.abs(expected - line.expected)
    room = float(others[others > 0].min(initial=np.inf)) / 2
    near = np.abs(x - line.position) <= min(REACH * line.fwhm, room)
    x, y = x[near], y[near]
    top = float(y.max() - y.min())
    # Second differences of noise spread √6 times as much; the median of |N(0, 1)| is 0.6745.
    noise = float(np.median(np.abs(np.diff(y, 2)))) / (0.6745 * np.sqrt(6))
    return x, y, float(np.hypot(noise, 0.02 * top))


def _unexplained(
    window: tuple[Float, Float, float], line: FittedLine, fwhm: float, mixing: float
) -> Float:
    """Weighted residual of a line after its height, background and slope are fitted."""
    x, y, sigma = window
    profile = pseudo_voigt(x, line.position, fwhm, mixing)
    terms = np.stack([profile, np.ones_like(x), x - line.position], axis=1)
    basis = np.linalg.qr(terms)[0]
    rest: Float = (y - basis @ (basis.T @ y)) / sigma
    return rest


def _through(anchors: Float, squares: Float, tangent: Float) -> Float:
    """The parabola through three values, at other places."""
    return np.asarray(np.polyval(np.polyfit(anchors, squares, 2), tangent))


def _growth(anchors: Float, squares: Float) -> Float:
    """W, W v and W u of H² = W + W v tanθ + W u tan²θ from H² at three places.

    Where the parabola leaves the range in which W means anything (H² below half of W between the
    lines), W (1 + u tan²θ) with u ≥ 0 takes its place, and a constant where that fails too.
    """
    answer = np.polyfit(anchors, squares, 2)[::-1]
    between = np.linspace(0, anchors[-1], 50)
    if answer[0] > 0 and np.polyval(answer[::-1], between).min() >= 0.5 * answer[0]:
        return np.asarray(answer)
    terms = np.stack([np.ones(3), anchors**2], axis=1) / squares[:, None]
    level, growth = nnls(terms, np.ones(3))[0]
    return np.array([level, 0.0, growth]) if level > 0 else np.array([squares.mean(), 0.0, 0.0])


def _other_wavelength(x: Float, y: Float, phase: Phase, wavelength: float) -> str:
    """Half a sentence on the wavelength that the lines would fit; empty if none does.

    The pattern without its smooth part is compared with the calculated lines over half to twice
    the wavelength; the best must stand out and be another.
    """
    step = float(np.median(np.diff(x)))
    points = np.arange(x[0], x[-1], step)
    curve = np.sqrt(np.maximum(np.interp(points, x, y) - np.min(y), 0))
    wide = max(int(0.8 / step), 3)
    kernel = np.ones(wide) / wide
    bumps = np.maximum(curve - np.convolve(curve, kernel, mode="same"), 0)
    trials = wavelength * np.exp(np.arange(-np.log(2), np.log(2), 5e-4))
    smallest = trials[0] / (2 * np.sin(np.radians(x[-1] / 2)))
    table = reflections(phase, wavelength, max(float(smallest), SMALLEST_SPACING))
    # The factor 1/(sin²θ cosθ) is close to d² for all of them.
    strength = table.multiplicity * table.f_squared * table.d**2
    scores = []
    for trial in trials:
        place = bragg_angle(table.d, float(trial))
        there = (place >= x[0]) & (place <= x[-1])
        if there.sum() < FEWEST:
            scores.append(0.0)
            continue
        index = np.round((place[there] - points[0]) / step).astype(int).clip(0, len(points) - 1)
        weight = np.sqrt(strength[there])
        scores.append(float((bumps[index] * weight).sum() / np.sqrt((weight**2).sum())))
    best = int(np.argmax(scores))
    clear = scores[best] > np.mean(scores) + 6 * np.std(scores)
    if not clear or abs(trials[best] / wavelength - 1) < LARGEST_SCALE:
        return ""
    return f" (they would fit {trials[best]:.4g} Å)"
