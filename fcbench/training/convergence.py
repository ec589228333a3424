"""Convergence of a training, and what more steps would gain: pure functions of its validation curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

FIRST = 32
"""Step of the first look at the validation loss."""
PER_DOUBLING = 4
"""Looks per doubling of the steps."""


class Look(NamedTuple):
    """A look at the validation loss.

    Attributes:
        step: steps done.
        seconds: time of these steps.
        loss: of the averaged weights.
        unit: the unit of gains: the bits in a codec's loss, or a readout's loss itself.
    """

    step: int
    seconds: float
    loss: float
    unit: float


def is_due(step: int) -> bool:
    """Whether to look at the validation loss after this step.

    >>> [step for step in range(150) if is_due(step)]
    [32, 38, 45, 53, 64, 76, 90, 107, 128]
    """
    if step < FIRST:
        return False
    k = round(PER_DOUBLING * math.log2(step / FIRST))
    return any(step == int(FIRST * 2 ** (j / PER_DOUBLING)) for j in (k, k + 1))


def is_flat(curve: Sequence[Look], tolerance: float) -> bool:
    """Whether the last doubling of the steps lowered the loss by less than a share of its unit.

    The first doubling that counts ends at step 4 `FIRST`.
    """
    last = curve[-1]
    before = [look.loss for look in curve if 2 * look.step <= last.step]
    if last.step < 4 * FIRST:
        return False
    return min(before) - min(look.loss for look in curve) < tolerance * last.unit


def has_settled(curve: Sequence[Look], tolerance: float) -> bool:
    """Whether a training of a given number of steps that began with good weights was flat at its end.

    Its loss rises before it falls again, which also looks flat: the lowest loss must lie in the last doubling.
    """
    best = min(curve, key=lambda look: look.loss)
    return 2 * best.step > curve[-1].step and is_flat(curve, tolerance)


# ------------------------------------------------------------------------------------------- how it went
CAP, PLATEAU = "steps", "plateau"
"""Why a training ended: all its steps are done, or its validation loss was flat."""

_TAIL_DOUBLINGS = 3.0
"""Length of a curve's end that is fitted [doublings of the steps]."""
_MIN_LOOKS = 5
_EXPONENTS = np.geomspace(0.25, 2.0, 25)
"""Exponents of the power laws; a doubling divides what is left by 1.2 to 4."""
_NOISE = 3e-4
"""Minimum deviation of a look at the loss, relative."""


class Gain(NamedTuple):
    """Gain of more steps as a share of the loss's unit; NaN if there are too few looks.

    Attributes:
        doubling: as many steps again; this can be checked by training that long.
        rest: endless steps: an extrapolation.
    """

    doubling: float
    rest: float


class Record(NamedTuple):
    """Course of a training.

    Attributes:
        stop: `CAP` or `PLATEAU`.
        curve: looks at the validation loss.
    """

    steps: int
    seconds: float
    stop: str
    gain: Gain
    curve: tuple[Look, ...]

    @property
    def loss(self) -> float:
        """Validation loss of the weights that were kept."""
        return min(look.loss for look in self.curve)


def gain(curve: Sequence[Look]) -> Gain:
    """Estimate what more steps would gain, from the validation curve before the learning rate falls.

    Power laws ``a + b * step**-c`` are fitted to the last doublings of the steps, and their gains are averaged, each c
    weighted by its fit, because c itself is poorly determined. Shares of the unit compound: if b stands for all of the
    unit, 1 - 1/e is left to gain.

    Args:
        curve: in order of the steps.
    """
    tail = [look for look in curve if look.step >= curve[-1].step / 2**_TAIL_DOUBLINGS]
    if len(tail) < _MIN_LOOKS:
        return Gain(math.nan, math.nan)
    x = np.array([look.step for look in tail]) / tail[-1].step
    losses = np.array([look.loss for look in tail])
    errors, left = np.array([_fit(x**-c, losses) for c in _EXPONENTS]).T
    variance = errors.min() / max(1, len(tail) - 3) + (_NOISE * losses[-1]) ** 2
    weights = np.exp((errors.min() - errors) / (2 * variance))
    weights /= weights.sum()
    unit = tail[-1].unit
    sums = weights @ (left * (1 - 2.0**-_EXPONENTS)), weights @ left
    return Gain(*(-math.expm1(-max(0.0, float(s)) / unit) for s in sums))


def _fit(basis: np.ndarray, losses: np.ndarray) -> tuple[float, float]:
    """Squared error of the best line of losses [n] over a basis [n], and its slope."""
    slope, level = np.polyfit(basis, losses, 1)
    return float(((level + slope * basis - losses) ** 2).sum()), float(slope)
