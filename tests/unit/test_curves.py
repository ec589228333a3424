"""Curves against hand-computed numbers, the bjontegaard package, and known coverage."""

from __future__ import annotations

from collections.abc import Callable

import bjontegaard
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcbench.analysis import curves
from fcbench.analysis.curves import Curve, curve
from fcbench.core.errors import FcbenchError
from fcbench.results import intervals

RATES = np.array([0.1, 0.2, 0.4, 0.8, 1.6])
VALUES = np.array([0.20, 0.31, 0.40, 0.46, 0.48])


def mean(sums: np.ndarray) -> np.ndarray:
    return sums[:, 0] / sums[:, 1]


def paired(tables: list[np.ndarray], values: Callable, n: int = 1000, seed: int = 0) -> list[np.ndarray]:
    """Metric of each table under the same resamples, [R]."""
    return [intervals.resampled(t, lambda stats, w: {"": values(w @ stats)}, n, seed)[""] for t in tables]


# ----------------------------------------------------------------------------------- order and hull
def test_curve_is_ordered_by_rate() -> None:
    c = curve([3, 1, 2], [0.3, 0.1, 0.2])
    assert c.rates.tolist() == [1, 2, 3]
    assert c.values.tolist() == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(("higher", "best"), [(True, 0.4), (False, 0.1)])
def test_best_of_one_rate_is_kept(higher: bool, best: float) -> None:
    c = curve([1, 1, 1], [0.2, 0.4, 0.1], higher)
    assert (c.rates.tolist(), c.values.tolist()) == ([1], [best])


def test_hull_drops_dips_and_the_saturated_end() -> None:
    c = curve([1, 2, 3, 4, 5], [0.1, 0.3, 0.2, 0.4, 0.4])
    assert curves.hull(c).rates.tolist() == [1, 2, 4]


def test_hull_of_an_error_falls() -> None:
    c = curve([1, 2, 3, 4], [0.9, 0.5, 0.7, 0.4], higher_is_better=False)
    assert curves.hull(c).values.tolist() == [0.9, 0.5, 0.4]


@given(st.lists(st.tuples(st.floats(0.01, 10), st.floats(-1, 1)), min_size=1, max_size=12), st.booleans())
def test_hull_is_strictly_monotone_and_holds_the_best(points: list[tuple[float, float]], higher: bool) -> None:
    rates, values = zip(*points)
    c = curve(rates, values, higher)
    h = curves.hull(c)
    assert (np.diff(h.rates) > 0).all() and (np.diff(h.quality) > 0).all()
    assert h.quality[-1] == c.quality.max()


@pytest.mark.parametrize(
    ("rates", "values", "what"),
    [
        ([], [], "at least one"),
        ([1, 2], [1], r"\[2\]"),
        ([1, np.nan], [1, 2], "NaN"),
        ([1, 2], [1, np.inf], "NaN or infinite"),
        ([0, 1], [1, 2], "rate of 0"),
    ],
)
def test_curve_refuses(rates: list, values: list, what: str) -> None:
    with pytest.raises(FcbenchError, match=what):
        curve(rates, values)


# ------------------------------------------------------------------------------------------- deltas
def test_bd_rate_of_half_the_bits_is_minus_50_percent() -> None:
    pair = curve(RATES, VALUES), curve(RATES / 2, VALUES)
    found = curves.bd_rate(*pair)
    assert found.value == pytest.approx(-50, abs=1e-9)
    assert (curves.quality_overlap(*pair), found.reason) == (1.0, "")


def test_bd_accuracy_of_a_shifted_curve_is_the_shift() -> None:
    a, t = curve(RATES, VALUES), curve(RATES, VALUES + 0.03)
    assert curves.bd_accuracy(a, t).value == pytest.approx(0.03)


def test_bd_rate_golden_by_hand() -> None:
    """Log rate linear in quality on both curves, so PCHIP is the line and the integral is of a trapezium.

    Anchor: log10 r = q for q in 0..3. Test: log10 r = 0.5 q + 0.2 for q in 1..4. Over the shared 1..3 the mean of
    -0.5 q + 0.2 is -0.8: 10 ** -0.8 - 1 = -84.1511 %. They share 2 of 4: overlap 0.5.
    """
    q = np.arange(4.0)
    anchor, test = curve(10**q, q), curve(10 ** (0.5 * (q + 1) + 0.2), q + 1)
    found = curves.bd_rate(anchor, test)
    assert found.value == pytest.approx(-84.15106807538888, abs=1e-9)
    assert curves.quality_overlap(anchor, test) == 0.5


def test_bd_accuracy_golden_by_hand() -> None:
    """Values linear in log rate: 2 x over 0..3 and x + 1 over 1..4; the mean of 1 - x over 1..3 is -1."""
    x = np.arange(4.0)
    found = curves.bd_accuracy(curve(10**x, 2 * x), curve(10 ** (x + 1), x + 2))
    assert found.value == pytest.approx(-1.0, abs=1e-9)


def _integral_mean(x_a, y_a, x_t, y_t) -> float:  # type: ignore[no-untyped-def]
    """Mean of PCHIP(t) - PCHIP(a) over the shared range, by a fine trapezium rule."""
    from scipy.interpolate import PchipInterpolator

    low, high = max(x_a[0], x_t[0]), min(x_a[-1], x_t[-1])
    x = np.linspace(low, high, 200_001)
    y = PchipInterpolator(x_t, y_t)(x) - PchipInterpolator(x_a, y_a)(x)
    return float(((y[1:] + y[:-1]) / 2).mean())


@pytest.mark.parametrize("higher", [True, False])
def test_deltas_agree_with_the_package_and_with_plain_integration(higher: bool) -> None:
    sign = 1 if higher else -1
    q_a, q_t = VALUES, np.array([0.22, 0.35, 0.43, 0.47])
    r_t = np.array([0.09, 0.21, 0.37, 0.9])
    a, t = curve(RATES, sign * q_a, higher), curve(r_t, sign * q_t, higher)
    options = {"method": "pchip", "require_matching_points": False, "min_overlap": 0}
    rate, accuracy = curves.bd_rate(a, t).value, curves.bd_accuracy(a, t).value
    assert rate is not None and accuracy is not None
    assert rate == pytest.approx(bjontegaard.bd_rate(RATES, q_a, r_t, q_t, **options), abs=1e-6)
    assert sign * accuracy == pytest.approx(bjontegaard.bd_psnr(RATES, q_a, r_t, q_t, **options), abs=1e-6)
    log = _integral_mean(q_a, np.log10(RATES), q_t, np.log10(r_t))
    assert rate == pytest.approx(100 * (10**log - 1), abs=1e-6)
    plain = _integral_mean(np.log10(RATES), q_a, np.log10(r_t), q_t)
    assert sign * accuracy == pytest.approx(plain, abs=1e-6)


def test_a_dip_does_not_move_the_fit() -> None:
    dipped = curve(np.r_[RATES, 0.5], np.r_[VALUES, 0.1])
    other = curve(RATES * 1.3, VALUES)
    plain = curves.bd_rate(curve(RATES, VALUES), other)
    assert curves.bd_rate(dipped, other).value == pytest.approx(plain.value)


def test_bd_accuracy_keeps_a_saturated_end() -> None:
    saturated = curve(np.r_[RATES, 16], np.r_[VALUES, 0.47])
    far = curve([2, 4, 8, 16], [0.1, 0.2, 0.3, 0.4])
    assert curves.hull(saturated).rates[-1] == 1.6
    assert curves.bd_accuracy(saturated, far).value is not None


@pytest.mark.parametrize("delta", [curves.bd_rate, curves.bd_accuracy])
def test_no_delta_of_few_points_or_apart(delta) -> None:  # type: ignore[no-untyped-def]
    full = curve(RATES, VALUES)
    few = delta(full, curve(RATES[:3], VALUES[:3]))
    assert few.value is None and few.reason == "test has 3 points; need 4"
    flat = delta(curve(RATES, VALUES[::-1]), full)
    assert flat.value is None and "anchor rises at 1 of 5 points" in flat.reason
    apart = delta(full, curve(RATES * 100, VALUES + 1))
    assert apart.value is None and "overlap in 0 %" in apart.reason


def test_overlap_threshold() -> None:
    q = np.linspace(0, 1, 5)
    assert curves.bd_rate(curve(RATES, q), curve(RATES, q + 0.59)).value is not None
    assert curves.bd_rate(curve(RATES, q), curve(RATES, q + 0.61)).value is None


def test_deltas_refuse_metrics_of_two_directions() -> None:
    with pytest.raises(FcbenchError, match="directions"):
        curves.bd_rate(curve(RATES, VALUES), curve(RATES, VALUES, False))


# ------------------------------------------------------------------------------------------ rate at
def test_rate_at_interpolates_log_rate() -> None:
    c = curve([1, 10, 100, 1000], [0, 1, 2, 3])
    assert curves.rate_at(c, 1.5).value == pytest.approx(10**1.5)
    assert curves.rate_at(c, 3).value == pytest.approx(1000)


def test_rate_at_of_an_error() -> None:
    c = curve([1, 10, 100, 1000], [3, 2, 1, 0], higher_is_better=False)
    assert curves.rate_at(c, 1.5).value == pytest.approx(10**1.5)


def test_rate_at_never_extrapolates() -> None:
    c = curve(RATES, VALUES)
    assert curves.rate_at(c, 0.49).reason == "never reached: the best is 0.48"
    assert "below the lowest rate, 0.1" in curves.rate_at(c, 0.19).reason
    assert curves.rate_at(c, float("nan")).value is None
    assert curves.rate_at(curve([2], [0.5]), 0.5).value == 2


def test_target_lies_on_the_worse_side_of_the_ceiling() -> None:
    assert curves.ceiling_target(0.5, True) == pytest.approx(0.495)
    assert curves.ceiling_target(0.5, False) == pytest.approx(0.505)
    assert curves.ceiling_target(-2.0, True, curves.Loss(10)) == pytest.approx(-2.2)


# ---------------------------------------------------------------------------------------- bootstrap
def test_weights_draw_as_many_as_there_are() -> None:
    w = intervals.resampling_weights(7, 50, seed=3)
    assert w.shape == (50, 7) and (w.sum(axis=1) == 7).all()
    assert (w == intervals.resampling_weights(7, 50, seed=3)).all()
    assert (w != intervals.resampling_weights(7, 50, seed=4)).any()


def test_bootstrap_covers_a_known_mean_95_times_of_100() -> None:
    rng = np.random.default_rng(0)
    n_trials, n = 400, 60
    hits = 0
    for trial in range(n_trials):
        x = rng.normal(1.0, 2.0, n)
        stats = np.stack([x, np.ones(n)], axis=1)
        low, high = intervals.interval(paired([stats], mean, 200, trial)[0])
        hits += low <= 1.0 <= high
    assert 0.91 <= hits / n_trials <= 0.97  # 0.95 within 2 standard errors, a little less at n = 60


def test_interval_is_as_wide_as_theory_says() -> None:
    x = np.random.default_rng(1).normal(0, 1, 400)
    stats = np.stack([x, np.ones(400)], axis=1)
    low, high = intervals.interval(paired([stats], mean, 4000)[0])
    assert high - low == pytest.approx(2 * 1.96 * x.std() / 20, rel=0.06)


def test_paired_difference_of_identical_tables_is_exactly_0() -> None:
    stats = np.random.default_rng(0).random((30, 2))
    a, b = paired([stats, stats.copy()], mean, 100)
    assert a.std() > 0
    assert (a - b == 0).all()


def test_pairing_narrows_the_interval_of_a_difference() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 1, 200)
    a = np.stack([hard, np.ones(200)], axis=1)
    b = np.stack([hard + 0.1 + rng.normal(0, 0.05, 200), np.ones(200)], axis=1)
    m_a, m_b = paired([a, b], mean)
    low, high = intervals.interval(m_b - m_a)
    assert 0.08 < low < 0.1 < high < 0.12
    (alone,) = paired([b], mean, seed=1)
    low, high = intervals.interval(alone - m_a)
    assert low < 0 < high


def test_metric_is_of_summed_statistics_not_a_mean_of_ratios() -> None:
    stats = np.array([[1.0, 1.0], [0.0, 9.0]])
    (values,) = paired([stats], mean, 200)
    assert set(np.round(values, 12)) == {0.0, 0.1, 1.0}


def test_interval_leaves_undefined_resamples_out() -> None:
    assert intervals.interval([np.nan, 1, 1, 1]) == (1.0, 1.0)
    assert all(np.isnan(intervals.interval([np.nan, np.nan, 1])))


@pytest.mark.parametrize(
    ("tables", "what"),
    [
        ([np.ones(3)], r"\[3\]"),
        ([np.ones((0, 2))], "0 samples"),
        ([np.full((3, 2), np.nan)], "NaN"),
    ],
)
def test_bootstrap_refuses(tables: list[np.ndarray], what: str) -> None:
    with pytest.raises(FcbenchError, match=what):
        paired(tables, mean, 10)


def test_quality_turns_the_sign() -> None:
    c = Curve(RATES, VALUES, False)
    assert (c.quality == -VALUES).all()


def test_resamples_in_blocks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.random.default_rng(1).random((50, 3))
    weights, (whole,) = intervals.resampling_weights(50), paired([table], lambda s: s[:, 0])
    monkeypatch.setattr(intervals, "BLOCK", 50 * 300)
    assert np.array_equal(intervals.resampling_weights(50), weights)
    (blocks,) = paired([table], lambda s: s[:, 0])
    np.testing.assert_allclose(blocks, whole, rtol=1e-13)
