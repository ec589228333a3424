"""Curves as lines of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

_MARKS = "ox+*#@%&svd^<>"
_END = "-"


class Dot(NamedTuple):
    """One point."""

    panel: str  # the plot that it belongs to
    series: str  # its curve; empty for an end of the curves, which is a line across
    x: float | None  # drawn by its logarithm; None where it has none
    y: float


def text_plot(dots: Sequence[Dot], width: int, height: int, unit: str) -> list[str]:
    """Draw the dots of one panel.

    Args:
        width: of a line, in characters; at least 20.
        height: lines of the plot itself; a title, the ends of the x axis and the legend come on top.
        unit: of x.

    >>> print("\\n".join(text_plot([Dot("p", "a", 0.1, 1.0), Dot("p", "b", 10.0, 3.0)], 20, 3, "bpp")))
    p
         3 |           x
           |
         1 |o
            0.1  bpp  10
    o a  x b
    """
    series = list(dict.fromkeys(d.series for d in dots if d.series))
    marks = {name: _MARKS[i % len(_MARKS)] for i, name in enumerate(series)}
    xs = [math.log(d.x) for d in dots if d.series and d.x]
    low, high = min(d.y for d in dots), max(d.y for d in dots)
    inner = width - 8
    grid = [[" "] * inner for _ in range(height)]
    for dot in sorted(dots, key=lambda d: bool(d.series)):  # ends first: dots lie over them
        line = grid[-1 - round(_place(dot.y, low, high) * (height - 1))]
        if not dot.series:
            line[:] = _END * inner
        elif dot.x:
            line[round(_place(math.log(dot.x), min(xs), max(xs)) * (inner - 1))] = marks[dot.series]
    labels = [f"{high:6.3g} |", *["       |"] * (height - 2), f"{low:6.3g} |"]
    lines = [dots[0].panel[:width], *((label + "".join(row)).rstrip() for label, row in zip(labels, grid))]
    if xs:
        first, last = (f"{math.exp(x):.2g}" for x in (min(xs), max(xs)))
        lines.append(" " * 8 + first + unit.center(inner - len(first + last)) + last)
    return [*lines, "  ".join(f"{mark} {name}" for name, mark in marks.items())[:width]]


def _place(value: float, low: float, high: float) -> float:
    """Where a value lies between two, 0 to 1; in the middle where they are the same."""
    return (value - low) / (high - low) if high > low else 0.5
