"""A number with its interval."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number read off fitted curves, or the reason why there is none.

    Attributes:
        value: None where there is a reason.
        reason: "" where there is a value.
        overlap: of the two curves, in [0, 1]; None for a number of one curve.
    """

    value: float | None
    reason: str = ""
    overlap: float | None = None
