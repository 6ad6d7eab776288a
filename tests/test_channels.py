"""The views of a pattern that networks see."""

import numpy as np
import pytest

from xrdpipe.channels import background, build_channels, fill_gaps, minmax, noise
from xrdpipe.errors import InputError, OptionError

ALL = ("minmax", "sqrt", "root", "highpass", "coverage", "spottiness")


def pattern(size=1901):
    place = np.arange(size)
    return 50 + 20 * np.sin(place / 900) + 80 * np.exp(-(((place - 700) / 8) ** 2))


def test_minmax_is_equation_one_and_ignores_nan():
    values = np.array([[2.0, np.nan, 4.0, 3.0], [5, 5, 5, 5], [np.nan] * 4])
    scaled = minmax(values)
    np.testing.assert_array_equal(scaled[0], np.array([0, np.nan, 1, 0.5], np.float32))
    np.testing.assert_array_equal(scaled[1], 0)
    assert np.isnan(scaled[2]).all()


def test_gaps_linear_and_ends_nearest():
    filled = fill_gaps(np.array([[np.nan, 2, np.nan, np.nan, 5, np.nan], [np.nan] * 6]))
    np.testing.assert_allclose(filled[0], [2, 2, 3, 4, 5, 5])
    np.testing.assert_array_equal(filled[1], 0)


def test_background_follows_the_hump_and_not_the_peak():
    values = pattern()[None]
    level = background(values)[0]
    smooth = 50 + 20 * np.sin(np.arange(1901) / 900)
    np.testing.assert_allclose(level, smooth, atol=1.5)


def test_noise_is_measured_under_peaks_and_correlated_over_bins():
    rng = np.random.default_rng(0)
    white = rng.normal(0, 3, (20, 1920))
    smooth = np.stack([np.convolve(row, np.ones(6) / 6, "valid")[:1901] for row in white])
    found = noise(pattern() + smooth)
    assert np.median(found) == pytest.approx(3 / np.sqrt(6), rel=0.15)


def test_scale_and_constant_background_change_neither_minmax_nor_highpass():
    rng = np.random.default_rng(1)
    values = (pattern() + rng.normal(0, 2, 1901))[None]
    coverage = np.ones_like(values)
    names = ("minmax", "sqrt", "highpass")
    once = build_channels(names, values, coverage)
    again = build_channels(names, 40 * values + 1000, coverage)
    np.testing.assert_allclose(once, again, atol=2e-3)


def test_one_saturated_spot_leaves_the_highpass_view_elsewhere_alone():
    rng = np.random.default_rng(2)
    values = (pattern() + rng.normal(0, 2, 1901))[None]
    spot = values.copy()
    spot[0, 1200:1206] += 1e5
    views = [build_channels(("highpass",), v, np.ones_like(v))[0, 0] for v in (values, spot)]
    np.testing.assert_allclose(views[0][600:800], views[1][600:800], rtol=0.05, atol=0.02)


def test_the_root_view_shows_lines_over_the_background_whatever_hot_pixels_do():
    values = pattern()[None]
    view = build_channels(("root",), values, np.ones_like(values))[0, 0]
    expected = np.sqrt(values[0] / np.median(values))
    np.testing.assert_allclose(view, expected, rtol=1e-5)
    scaled = build_channels(("root",), 1e-3 * values, np.ones_like(values))[0, 0]
    np.testing.assert_allclose(scaled, view, rtol=1e-5)
    hot = values.copy()
    hot[0, 1200:1400:4] = 1e6
    changed = build_channels(("root",), hot, np.ones_like(values))[0, 0]
    elsewhere = hot[0] < 1e6
    np.testing.assert_allclose(changed[elsewhere], view[elsewhere], rtol=0.05)
    assert changed.max() == 4
    # Without a background the noise sets the scale, and nothing is infinite.
    bare = np.random.default_rng(0).normal(0, 1, (1, 1901)) + 50 * (values - values.min())
    assert np.isfinite(build_channels(("root",), bare, np.ones_like(bare))).all()
    flat = build_channels(("root",), np.zeros((1, 1901)), np.ones((1, 1901)))
    np.testing.assert_array_equal(flat, 0)


def test_shapes_types_and_empty_bins():
    values = np.stack([pattern(), np.full(1901, np.nan), np.full(1901, 3.0)])
    values[0, :200] = np.nan
    views = build_channels(ALL, values, np.ones_like(values), np.zeros_like(values))
    assert views.shape == (3, len(ALL), 1901)
    assert views.dtype == np.float32
    assert np.isfinite(views).all()
    # No data is no coverage.
    np.testing.assert_array_equal(views[0, ALL.index("coverage"), :200], 0)
    np.testing.assert_array_equal(views[0, ALL.index("highpass"), :200], 0)
    np.testing.assert_array_equal(views[1], 0)


def test_rows_do_not_depend_on_their_neighbours():
    rng = np.random.default_rng(3)
    values = pattern() + rng.normal(0, 2, (5, 1901))
    coverage = np.ones_like(values)
    together = build_channels(ALL[:4], values, coverage)
    apart = [build_channels(ALL[:4], values[i : i + 1], coverage[:1]) for i in range(5)]
    np.testing.assert_array_equal(together, np.concatenate(apart))


def test_unknown_names_and_missing_inputs_are_refused():
    values = pattern()[None]
    with pytest.raises(OptionError, match="Did you mean 'highpass'"):
        build_channels(("highpas",), values, values)
    without = build_channels(("highpass", "spottiness"), values, values)
    assert not without[:, 1].any()
    with pytest.raises(InputError, match="one shape"):
        build_channels(("minmax",), values, values[:, 1:])
