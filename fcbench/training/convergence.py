"""Whether a training has converged, and what more steps would gain: pure functions of its validation curve."""

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
        seconds: that they took.
        loss: of the averaged weights.
        unit: what gains are counted in: the bits in a codec's loss, the loss itself of a readout.
    """

    step: int
    seconds: float
    loss: float
    unit: float


def is_due(step: int) -> bool:
    """Whether to look at the validation loss after so many steps.

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


# ------------------------------------------------------------------------------------------- remaining gain
CAP, PLATEAU = "steps", "plateau"
"""Why a training ended: all its steps are done, or its validation loss was flat."""


class Record(NamedTuple):
    """How a training went.

    Attributes:
        stop: `CAP` or `PLATEAU`.
        gain: what endless training would still gain, as a share of the unit; NaN where the curve is too short to tell.
        curve: looks at the validation loss.
    """

    steps: int
    seconds: float
    stop: str
    gain: float
    curve: tuple[Look, ...]

    @property
    def loss(self) -> float:
        """Validation loss of the weights kept."""
        return min(look.loss for look in self.curve)

def remaining(curve, turn):
    return float("nan")
