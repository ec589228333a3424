"""Rate-accuracy curves: ordering, monotone hull, Bjontegaard deltas, confidence.

Points are reported raw; fits are made on the *hull*: the points that are better than every point of a lower rate (not
the convex hull, whose chords nobody measured). Fits are PCHIP between log10 of the rate and quality: the metric's
value, negated if lower is better.

References:
    G. Bjontegaard, "Calculation of average PSNR differences between RD-curves", VCEG-M33, 2001.
    C. Herglotz et al., "The Bjontegaard bible: why your way of comparing video codecs may be wrong", IEEE TIP 2024.
    F. N. Fritsch and J. Butland, "A method for constructing local monotone piecewise cubic interpolants", 1984.
    B. Efron and R. J. Tibshirani, "An introduction to the bootstrap", 1993, chapter 13 (percentile interval).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fcbench.analysis import resampled_curves
from fcbench.analysis.estimate import Estimate
from fcbench.analysis.resampled_curves import MIN_HULL_POINTS, MIN_OVERLAP, MIN_POINTS, Resampled
from fcbench.core.errors import FcbenchError


@dataclass(frozen=True, slots=True)
class Curve:
    """Rate points in order of rate."""

    rates: np.ndarray  # [P] float64, increasing, in any one unit of rate
    values: np.ndarray  # [P] float64, of one metric
    higher_is_better: bool  # the metric's direction

    @property
    def quality(self) -> np.ndarray:
        """[P] values, negated if lower is better."""
        return self.values if self.higher_is_better else -self.values

    @property
    def once(self) -> Resampled:
        """The curve as a single resample."""
        return Resampled(self.rates[:, None], self.values[:, None], self.higher_is_better)


def curve(rates: ArrayLike, values: ArrayLike, higher_is_better: bool = True) -> Curve:
    """Order points by rate; of several at the same rate, keep the best. `rates`: [P] above 0, in any order. `values`:
    [P] of one metric. Raises `FcbenchError`: arrays of other shapes, no points, NaN or inf, a rate not above 0."""
    r, v = np.asarray(rates, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if r.ndim != 1 or r.shape != v.shape or r.size == 0:
        raise FcbenchError(
            f"got rates {list(r.shape)} and values {list(v.shape)}; need as many rates as values, at least one."
        )
    if not (np.isfinite(r).all() and np.isfinite(v).all()):
        raise FcbenchError("got a NaN or infinite rate or value in a curve; leave failed points out.")
    if r.min() <= 0:
        raise FcbenchError(f"got a rate of {r.min():g} in a curve; need rates above 0 (the floor is not a point).")
    best_first = np.lexsort((-v if higher_is_better else v, r))
    r, v = r[best_first], v[best_first]
    first = np.r_[True, np.diff(r) > 0]
    return Curve(r[first], v[first], higher_is_better)


def hull(c: Curve) -> Curve:
    """Points better than every point of a lower rate: rates and quality both strictly increase.

    >>> hull(curve([1, 2, 3, 4], [0.1, 0.3, 0.2, 0.4])).values.tolist()
    [0.1, 0.3, 0.4]
    """
    keep = resampled_curves.rises(c.quality[None])[0]
    return Curve(c.rates[keep], c.values[keep], c.higher_is_better)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """The part that the ranges of a [P] and b [Q] share, as a fraction of their joint range, in [0, 1].

    >>> overlap(np.array([0.0, 2.0]), np.array([1.0, 4.0]))
    0.25
    """
    union = max(a.max(), b.max()) - min(a.min(), b.min())
    shared = min(a.max(), b.max()) - max(a.min(), b.min())
    return float(max(shared, 0.0) / union) if union > 0 else 0.0


def quality_overlap(a: Curve, b: Curve) -> float:
    """Overlap of two hulls in quality: the range that a BD-rate averages over."""
    return overlap(hull(a).quality, hull(b).quality)


def rate_overlap(a: Curve, b: Curve) -> float:
    """Overlap of two curves in log rate: the range that a BD-accuracy averages over."""
    return overlap(np.log10(a.rates), np.log10(b.rates))


def bd_rate(anchor: Curve, test: Curve) -> Estimate:
    """Mean extra rate of test over anchor at equal quality [percent]; negative if test needs fewer bits.

    No value (with the reason) for fewer than `MIN_POINTS` points, fewer than `MIN_HULL_POINTS` on a hull, or an overlap
    in quality below `MIN_OVERLAP`. Raises `FcbenchError`: curves of metrics with different directions.
    """
    reason = _refusal(anchor, test, quality_overlap(anchor, test), "quality")
    return Estimate(reason=reason) if reason else _only(resampled_curves.bd_rates(anchor.once, test.once))


def bd_accuracy(anchor: Curve, test: Curve) -> Estimate:
    """Mean value of test minus that of anchor at equal rate, over log rate [the metric's unit].

    Fitted on the best value so far, which keeps a saturated end. The sign is the metric's own: a negative difference of
    an error is an improvement. No value (with the reason) as in `bd_rate`, with the overlap in log rate. Raises
    `FcbenchError`: curves of metrics with different directions.
    """
    reason = _refusal(anchor, test, rate_overlap(anchor, test), "rate")
    return Estimate(reason=reason) if reason else _only(resampled_curves.bd_accuracies(anchor.once, test.once))


def _only(values: np.ndarray) -> Estimate:
    return Estimate(float(values[0]) + 0.0)  # no -0.0


def _refusal(anchor: Curve, test: Curve, share: float, of: str) -> str:
    if anchor.higher_is_better != test.higher_is_better:
        raise FcbenchError("got an anchor and a test curve of metrics with different directions; compare one metric.")
    for name, c in (("anchor", anchor), ("test", test)):
        if len(c.rates) < MIN_POINTS:
            return f"{name} has {len(c.rates)} points; need {MIN_POINTS}"
        n_left = len(hull(c).rates)
        if n_left < MIN_HULL_POINTS:
            return f"{name} rises at {n_left} of {len(c.rates)} points only; need {MIN_HULL_POINTS}"
    if share < MIN_OVERLAP:
        return f"the curves overlap in {100 * share:.0f} % of their {of}; need {100 * MIN_OVERLAP:.0f} %"
    return ""


class Loss(NamedTuple):
    """How far below the uncoded ceiling a rate is read: percent of the ceiling, or points of a fraction metric."""

    amount: float = 1.0
    unit: Literal["%", "pt"] = "%"

    def __str__(self) -> str:
        return f"{self.amount:g} %" if self.unit == "%" else f"{self.amount:g} point" + "s" * (self.amount != 1)


def ceiling_target(ceiling: float, higher_is_better: bool, loss: Loss = Loss()) -> float:
    """The value that is a loss below the uncoded ceiling (above it if lower is better).

    >>> ceiling_target(0.5, True), ceiling_target(0.5, True, Loss(2, "pt"))
    (0.495, 0.48)
    """
    step = (abs(ceiling) if loss.unit == "%" else 1) * loss.amount / 100
    return ceiling - step if higher_is_better else ceiling + step


def rate_at(c: Curve, target: float) -> Estimate:
    """Rate at which a curve's hull reaches a target value, interpolated, never extrapolated [unit of the rates]."""
    h = hull(c)
    quality = target if c.higher_is_better else -target
    if not np.isfinite(quality):
        return Estimate(reason=f"the target is {target}")
    if quality > h.quality[-1]:
        return Estimate(reason=f"never reached: the best is {h.values[-1]:.4g}")
    if quality < h.quality[0]:
        return Estimate(reason=f"reached below the lowest rate, {h.rates[0]:.4g}")
    if len(h.rates) == 1:
        return Estimate(float(h.rates[0]))
    return _only(resampled_curves.rates_at(c.once, np.array([target])))
