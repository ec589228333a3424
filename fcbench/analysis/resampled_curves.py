"""Bjontegaard deltas of many resamples at once: a thousand in milliseconds.

`fcbench.analysis.curves` says which points are fitted, how and why; it calls this with a single resample. Slopes are
those of Fritsch and Butland (1984), with the three-point ends of Matlab's and SciPy's `pchip`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

MIN_POINTS = 4  # Measured points at different rates that a delta needs on each curve
MIN_HULL_POINTS = 3
"""Points that must be left on the hull: a saturated end may cost one, but two points are a straight line."""

MIN_OVERLAP = 0.25  # Least overlap of two curves, as a fraction of their joint range


@dataclass(frozen=True, slots=True)
class Resampled:
    """A curve under R resamples."""

    rates: np.ndarray  # [P, R] in any one unit of rate
    values: np.ndarray  # [P, R] of one metric
    higher_is_better: bool  # the metric's direction


@dataclass(frozen=True, slots=True)
class _Rows:
    """R functions, each of the first n of its points: x and y [R, P], x increasing over them; n [R]."""

    x: np.ndarray
    y: np.ndarray
    n: np.ndarray

    @property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """First and last x, each [R]."""
        last = np.maximum(self.n - 1, 0)[:, None]
        return self.x[:, 0], np.take_along_axis(self.x, last, 1)[:, 0]


def bd_rates(anchor: Resampled, test: Resampled) -> np.ndarray:
    """Mean extra rate of test over anchor at equal quality, [R] percent; NaN if there are too few points."""
    a, t = _hull(anchor), _hull(test)
    return np.asarray(100 * (10 ** _mean_difference(a, t, _allowed(anchor, test)) - 1))


def bd_accuracies(anchor: Resampled, test: Resampled) -> np.ndarray:
    """Mean value of test minus that of anchor at equal rate, [R]; NaN if there are too few points."""
    a, t = _running_best(anchor), _running_best(test)
    sign = 1 if anchor.higher_is_better else -1
    return sign * _mean_difference(a, t, _allowed(anchor, test))


def rates_at(c: Resampled, targets: np.ndarray) -> np.ndarray:
    """Rates [R] at which the hull of each resample reaches its own target [R]; infinite if no point reaches it, 0 if
    every point exceeds it, NaN if a hull is a single point."""
    rows = _hull(c)
    at = targets if c.higher_is_better else -targets
    low, high = rows.ends
    curved = rows.n >= 2
    rates = 10 ** _by_length(rows, curved & (at >= low) & (at <= high), _evaluate, at)
    rates[curved & (at > high)] = np.inf
    rates[curved & (at < low)] = 0
    return np.asarray(rates)


def _ordered(c: Resampled) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log rates and quality [R, P] in order of rate, the best at each rate first; and which are first at their rate."""
    log_rates, quality = np.log10(c.rates.T), c.values.T * (1 if c.higher_is_better else -1)
    order = np.lexsort((-quality, log_rates), axis=-1)
    r, q = (np.take_along_axis(v, order, 1) for v in (log_rates, quality))
    first = np.ones(r.shape, dtype=bool)
    first[:, 1:] = np.diff(r, axis=1) > 0
    return r, q, first


def _packed(x: np.ndarray, y: np.ndarray, keep: np.ndarray) -> _Rows:
    order = np.argsort(~keep, axis=1, kind="stable")
    return _Rows(np.take_along_axis(x, order, 1), np.take_along_axis(y, order, 1), keep.sum(axis=1))


def _hull(c: Resampled) -> _Rows:
    r, q, _ = _ordered(c)
    return _packed(q, r, rises(q))


def _running_best(c: Resampled) -> _Rows:
    r, q, first = _ordered(c)
    return _packed(r, np.maximum.accumulate(q, axis=1), first)


def rises(q: np.ndarray) -> np.ndarray:
    """Where quality [R, P] exceeds all before it."""
    first = np.ones((len(q), 1), dtype=bool)
    return np.hstack([first, q[:, 1:] > np.maximum.accumulate(q, axis=1)[:, :-1]])


def _allowed(anchor: Resampled, test: Resampled) -> np.ndarray:
    """[R] resamples in which both curves are finite and have the points that a delta needs."""
    allowed = np.ones(anchor.values.shape[1], dtype=bool)
    for c in (anchor, test):
        _, q, first = _ordered(c)
        finite = np.isfinite(c.rates).all(axis=0) & np.isfinite(c.values).all(axis=0)
        allowed &= finite & (first.sum(axis=1) >= MIN_POINTS)
        allowed &= rises(q).sum(axis=1) >= MIN_HULL_POINTS
    return allowed


def _mean_difference(a: _Rows, t: _Rows, allowed: np.ndarray) -> np.ndarray:
    """Mean of t - a over the shared range of x, [R]; NaN where not allowed or the range is too small."""
    (low_a, high_a), (low_t, high_t) = a.ends, t.ends
    low, high = np.maximum(low_a, low_t), np.minimum(high_a, high_t)
    union = np.maximum(high_a, high_t) - np.minimum(low_a, low_t)
    ok = allowed & (high > low) & (high - low >= MIN_OVERLAP * union)
    width = np.where(ok, high - low, np.nan)
    areas = [_by_length(rows, ok, _integral, low, high) for rows in (t, a)]
    return np.asarray((areas[0] - areas[1]) / width)


def _by_length(rows: _Rows, ok: np.ndarray, of: Callable[..., np.ndarray], *arguments: np.ndarray) -> np.ndarray:
    """Apply a function of x, y [r, n] and arguments [r] to all rows of one length n at a time; NaN elsewhere."""
    out = np.full(len(ok), np.nan)
    for n in np.unique(rows.n[ok]):
        at = ok & (rows.n == n)
        out[at] = of(rows.x[at, :n], rows.y[at, :n], *(a[at] for a in arguments))
    return out


def _integral(x: np.ndarray, y: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Integral [R] of the PCHIP through x, y [R, n] from low to high [R], which lie inside."""
    c0, c1, c2, c3 = _pieces(x, y)

    def primitive(at: np.ndarray) -> np.ndarray:
        u = np.clip(at[:, None], x[:, :-1], x[:, 1:]) - x[:, :-1]
        return u * (c0 + u * (c1 / 2 + u * (c2 / 3 + u * c3 / 4)))

    return np.asarray((primitive(high) - primitive(low)).sum(axis=1))


def _evaluate(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The PCHIP through x, y [R, n] at one position inside per row, [R]."""
    piece = (at[:, None] >= x[:, 1:-1]).sum(axis=1)[:, None]
    c0, c1, c2, c3, x0 = (np.take_along_axis(v, piece, 1)[:, 0] for v in (*_pieces(x, y), x[:, :-1]))
    u = at - x0
    return np.asarray(c0 + u * (c1 + u * (c2 + u * c3)))


def _pieces(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
    """Coefficients of powers 0 to 3 of the distance from each piece's left end, each [R, n - 1]."""
    h = np.diff(x, axis=1)
    d = np.diff(y, axis=1) / h
    m = _slopes(h, d)
    left, right = m[:, :-1], m[:, 1:]
    return (y[:, :-1], left, (3 * d - 2 * left - right) / h, (left + right - 2 * d) / h**2)


def _slopes(h: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Slopes [R, n] at the points, from widths h and secants d [R, n - 1] of the pieces."""
    if d.shape[1] == 1:
        return np.repeat(d, 2, axis=1)
    before, after = d[:, :-1], d[:, 1:]
    w_before, w_after = 2 * h[:, 1:] + h[:, :-1], h[:, 1:] + 2 * h[:, :-1]
    same = before * after > 0
    weighted = w_before * np.where(same, after, 1) + w_after * np.where(same, before, 1)
    inside = np.where(same, (w_before + w_after) * before * after / weighted, 0)
    return np.column_stack(
        [_end_slope(h[:, 0], h[:, 1], d[:, 0], d[:, 1]), inside, _end_slope(h[:, -1], h[:, -2], d[:, -1], d[:, -2])]
    )


def _end_slope(h0: np.ndarray, h1: np.ndarray, d0: np.ndarray, d1: np.ndarray) -> np.ndarray:
    """Three-point slope at an end [R], limited to the shape of the two pieces beside it."""
    slope = ((2 * h0 + h1) * d0 - h0 * d1) / (h0 + h1)
    slope = np.where(np.sign(slope) != np.sign(d0), 0, slope)
    steep = (np.sign(d0) != np.sign(d1)) & (np.abs(slope) > 3 * np.abs(d0))
    return np.where(steep, 3 * d0, slope)
