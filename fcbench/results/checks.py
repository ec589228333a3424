"""What a check of a results folder found, and what it could not check."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fcbench.core.codecs import OF_A_TASK, Kind
from fcbench.core.errors import FcbenchError
from fcbench.results.row import RatePoint
from fcbench.results.table import RATES

TOLERANCE = 1e-6  # Relative difference between a cell and its recomputation


@dataclass(frozen=True, slots=True)
class Fault:
    """A claim of a folder that does not hold. `file`: below the folder. `row`: its name, empty if it is of none."""

    what: str
    file: str = RATES
    row: str = ""


@dataclass(slots=True)
class Checks:
    """Numbers of checks that were done, and of those left out, by what they are of; and the faults."""

    done: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)

    def fault(self, what: str, file: str = RATES, row: RatePoint | None = None) -> None:
        """Add a fault. `row`: None for a fault of no row."""
        self.faults.append(Fault(what, file, "" if row is None else name_of(row)))

    def compare(
        self, row: RatePoint, column: str, computed: float | None, because: str, rtol: float = TOLERANCE
    ) -> None:
        """Add a fault if a row's number is not the computed one."""
        claimed, right = (float("nan") if v is None else float(v) for v in (getattr(row, column), computed))
        if not np.isclose(claimed, right, rtol=rtol, atol=1e-12, equal_nan=True):
            said, expected = ("empty" if v != v else f"{v:.8g}" for v in (claimed, right))
            self.fault(f"{column} is {said}, but {because} {expected}", row=row)


def name_of(row: RatePoint) -> str:
    """A row, or all rows of its point, for a message."""
    return f"{row.point}: {row.encoder}, {row.codec} {row.params}, {row.task}"


def parts_of(row: RatePoint) -> dict[str, int]:
    """Bytes of a row's file by part. Raises `FcbenchError`: its cell is damaged."""
    try:
        return {str(name): int(n) for name, n in json.loads(row.parts or "{}").items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise FcbenchError(f"its parts are not JSON of bytes by name ({error})") from None


def grouped(rows: Iterable[RatePoint], key: Callable[[RatePoint], Any]) -> list[list[RatePoint]]:
    """Rows in groups of one key, in order of appearance."""
    groups: dict[Any, list[RatePoint]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.values())


def sending(row: RatePoint) -> tuple[Any, ...]:
    """Key of what crossed from sender to receiver: several tasks read the same file."""
    task = row.task if row.kind == Kind.LABEL or row.objective in OF_A_TASK else ""
    return row.run, row.kind, row.encoder, row.split, row.neck, row.codec, row.params, row.objective, row.seed, task
