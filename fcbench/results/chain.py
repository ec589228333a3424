"""How a chain of necks is named in a results folder. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Chain:
    """Frozen necks of other tasks, then a task's own neck and head."""

    neck: str  # of every level
    before: tuple[str, ...]  # the tasks of the necks that come before, in order; none for a direct neck
    task: str  # whose head reads
    coded_after: int = 0  # necks that stand before the bottleneck

    @property
    def name(self) -> str:
        """``depth > pose``."""
        return " > ".join((*self.before, self.task))

    def up_to(self, i: int) -> Chain:
        """The chain that ends with neck number i, uncoded between: the first is number 0."""
        return Chain(self.neck, self.before[:i], (*self.before, self.task)[i])

    @property
    def label(self) -> str:
        """As the column ``neck`` of a row has it: ``neck_2L(depth) > neck_2L``; a direct neck by its own name."""
        return " > ".join((*(f"{self.neck}({t})" for t in self.before), self.neck))


def parse(label: str, task: str, split: str) -> Chain:
    """The chain of a row's neck, task and split point.

    >>> parse("neck_2L(depth) > neck_2L", "pose", "neck:depth")
    Chain(neck='neck_2L', before=('depth',), task='pose', coded_after=1)
    """
    *levels, last = label.split(" > ")
    before = tuple(re.sub(r"^.*\((.*)\)$", r"\1", level) for level in levels)
    coded_after = 0
    if split.startswith("neck:"):
        coded_after = before.index(split.removeprefix("neck:")) + 1
    return Chain(last, before, task, coded_after)
