"""Knobs of an operating point, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from fcbench.core.errors import FcbenchError, nearest

Knobs = Mapping[str, float | int | str]  # Values by name: ``{"lmbda": 0.3}``


@runtime_checkable
class ChecksKnobs(Protocol):
    """A plug-in that tells bad knobs before anything is built."""

    def check(self, params: Knobs) -> None:
        """Raise `FcbenchError` for knobs that `build` or `encode` would refuse."""


def only(knobs: Knobs, owner: str, *known: str) -> None:
    """Raise `FcbenchError` unless the knobs are exactly the known ones of their owner, such as "codec 'raw'"."""
    if set(knobs) != set(known):
        got = ", ".join(map(str, knobs)) or "none"
        wrong = next((str(name) for name in knobs if name not in known), "")
        raise FcbenchError(f"{owner} has the parameters {', '.join(known)}; got {got}{nearest(wrong, known)}")


def number(knobs: Knobs, name: str, low: float, high: float) -> float:
    """A number within [low, high]. Raises `FcbenchError` otherwise."""
    value = knobs[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise FcbenchError(f"parameter {name} must be a number from {low:g} to {high:g}, got {value!r}")
    return float(value)


def whole_number(knobs: Knobs, name: str, low: float, high: float) -> int:
    """A whole number within [low, high]. Raises `FcbenchError` otherwise."""
    value = number(knobs, name, low, high)
    if value != int(value):
        raise FcbenchError(f"parameter {name} must be a whole number, got {value:g}")
    return int(value)
