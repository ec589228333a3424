"""A number with its interval."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fcbench.results import intervals

_FEW = 5  # Percent of the resamples that may be undefined without a note


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval, or the reason why it is missing.

    Attributes:
        low, high: None without samples, or if most resamples are undefined.
        reason: why there is no value; empty if there is one.
        note: what share of the resamples the interval, or its absence, is based on; empty if on all.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    note: str = ""


def estimate(value: float, resampled: ArrayLike | None = None, undefined: str = "it is undefined") -> Estimate:
    """A number with the percentile interval of its resampled values [R], or without an interval if there are none.
    `undefined`: what holds in the resamples that are NaN, for the note.

    >>> estimate(2.0, [1.0, 1.0, 1.0])
    Estimate(value=2.0, low=1.0, high=1.0, reason='', note='')
    """
    if resampled is None:
        return Estimate(float(value))
    percent = 100 * float(np.isnan(resampled).mean())
    low, high = intervals.interval(resampled)
    if np.isnan(low):
        return Estimate(float(value), note=f"no interval: in {percent:.0f} % of the resamples {undefined}")
    note = f"interval of {100 - percent:.0f} % of the resamples; in the others {undefined}" if percent > _FEW else ""
    return Estimate(float(value), low + 0.0, high + 0.0, note=note)  # no -0.0
