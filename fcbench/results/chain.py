"""Names of chains of necks in a results folder. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Chain:
    """Frozen necks of other tasks, then a task's own neck and head."""

    neck: str  # of every position
    before: tuple[str, ...]  # tasks of the necks before it, in order; empty for a direct neck
    task: str  # task of the last neck and head
    coded_after: int = 0  # number of necks before the bottleneck

    @property
    def name(self) -> str:
        """``depth > pose``."""
        return " > ".join((*self.before, self.task))

    def up_to(self, i: int) -> Chain:
        """The chain that ends with neck number i (counted from 0), uncoded between its necks."""
        return Chain(self.neck, self.before[:i], (*self.before, self.task)[i])

    @property
    def label(self) -> str:
        """Value of a row's column ``neck``: ``neck_2L(depth) > neck_2L``; a direct neck by its own name."""
        return " > ".join((*(f"{self.neck}({t})" for t in self.before), self.neck))


def parse(label: str, task: str, split: str) -> Chain:
    """The chain of a row's neck, task and split point.

    >>> parse("neck_2L(depth) > neck_2L", "pose", "neck:depth")
    Chain(neck='neck_2L', before=('depth',), task='pose', coded_after=1)
    """
    *necks, last = label.split(" > ")
    before = tuple(re.sub(r"^.*\((.*)\)$", r"\1", neck) for neck in necks)
    coded_after = 0
    if split.startswith("neck:"):
        coded_after = before.index(split.removeprefix("neck:")) + 1
    return Chain(last, before, task, coded_after)
