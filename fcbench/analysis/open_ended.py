"""Curves whose codecs had not converged when training stopped, and what that means for a comparison."""

import math

import pandas as pd

CAP = "steps"  # `codec_stop` or `task_stop` of a training that ran out of steps before it converged
_NO_DIFFERENCE = 1e-6  # percent: a curve and itself


def is_open(rows: pd.DataFrame) -> pd.Series:
    """Which rows are of a codec that had not converged; rows that do not say why its training ended count as False."""
    return rows["codec_stop"] == CAP


def left_percent(rows: pd.DataFrame) -> float | None:
    """Bits that more training of a curve's codecs would save, extrapolated [%]: the mean over its rows. None for a
    curve that has converged or was not trained; NaN if a row does not say."""
    if not is_open(rows).any():
        return None
    return float(rows["codec_rest"].astype(float).where(is_open(rows), 0.0).mean(skipna=False))


def doubt(bd_rate_percent: float | None, anchor: str, test: str, left: tuple[float | None, float | None]) -> str:
    """Warning that further training of one curve might undo a BD-rate; "" if it would not. `left`: `left_percent` of
    anchor and test.

    >>> doubt(-20.0, "hyperprior", "strata", (30.0, 10.0))
    'more training of hyperprior may undo this: about 30 % of its bits are left to save'
    >>> doubt(-20.0, "hyperprior", "strata", (10.0, 30.0))
    ''
    """
    if bd_rate_percent is None or abs(bd_rate_percent) < _NO_DIFFERENCE:
        return ""
    more = bd_rate_percent / 100
    worse, rest, needed = (test, left[1], more / (1 + more)) if more > 0 else (anchor, left[0], -more)
    if rest is None or rest < 100 * needed:
        return ""
    about = f"about {rest:.0f} % of its bits are left to save"
    known = "it is not known how many bits that saves" if math.isnan(rest) else about
    return f"more training of {worse} may undo this: {known}"
