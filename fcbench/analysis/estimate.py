"""A number with its interval."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fcbench.results import intervals


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval, or the reason why it is missing. `low, high`: None without samples."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""  # empty if there is a value


def estimate(value: float, resampled: ArrayLike | None = None) -> Estimate:
    """A number with the percentile interval of its resampled values [R], or without an interval if there are none.

    >>> estimate(2.0, [1.0, 1.0, 1.0])
    Estimate(value=2.0, low=1.0, high=1.0, reason='')
    """
    low, high = (np.nan, np.nan) if resampled is None else intervals.interval(resampled)
    if np.isnan(low):
        return Estimate(float(value))
    return Estimate(float(value), low + 0.0, high + 0.0)  # no -0.0
