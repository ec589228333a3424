"""Progress of long work: a bar with an estimate of what remains on a terminal, one line a finished stage elsewhere."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from fcbench.core.errors import one_line

Advance = Callable[[int, int], None]
Event = tuple[Any, ...] | logging.LogRecord
"""What a process says to the one that shows its progress: ("begin", part, name), ("at", part, done, total),
("end", part), ("say", line), or a record of a log."""


class Report:
    """Stages of a run, under one overall bar. Writes to standard error."""

    def __init__(self, n_stages: int, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._n_stages, self._n_done, self._began = n_stages, 0, time.monotonic()
        self._overall = self._progress.add_task("all stages", total=n_stages)
        self._relayed: dict[tuple[int, int], TaskID] = {}

    def __enter__(self) -> Report:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        """Print a line."""
        self._console.print(one_line(line), markup=False, soft_wrap=True)

    def skip(self, n: int) -> None:
        """Count stages that need no work."""
        self._n_done += n
        self._progress.advance(self._overall, n)

    def _bar(self, name: str) -> TaskID:
        """A new bar."""
        return self._progress.add_task(f"  {one_line(name)}", total=None)

    @contextmanager
    def part(self, name: str) -> Iterator[Advance]:
        """A part of a stage: a bar while it lasts. Call what it yields with (done, total)."""
        bar = self._bar(name)
        try:
            yield lambda done, total: self._progress.update(bar, completed=done, total=total)
        finally:
            self._progress.remove_task(bar)

    @contextmanager
    def stage(self, name: str) -> Iterator[Advance]:
        """One stage: a part that leaves a line behind."""
        began = time.monotonic()
        with self.part(name) as advance:
            yield advance
        self.finish(name, time.monotonic() - began)

    def finish(self, line: str, took_s: float) -> None:
        """Count a stage and leave its line."""
        self.skip(1)
        so_far = time.monotonic() - self._began
        left = so_far / self._n_done * max(0, self._n_stages - self._n_done)
        self.say(f"[{self._n_done}/{self._n_stages}] {line} ({took_s:.1f} s; about {left:.0f} s left)")

    def follow(self, who: int, event: Event) -> None:
        """Show what another process says."""
        if isinstance(event, logging.LogRecord):
            logging.getLogger(event.name).handle(event)
            return
        what, *values = event
        if what == "say":
            self.say(*values)
        elif what == "begin":
            part, name = values
            self._relayed[who, part] = self._bar(name)
        elif what == "at":
            part, done, total = values
            self._progress.update(self._relayed[who, part], completed=done, total=total)
        else:
            self._progress.remove_task(self._relayed.pop((who, *values)))

    def forget(self, who: int) -> None:
        """Drop the bars of another process: it is gone."""
        for key in [k for k in self._relayed if k[0] == who]:
            self._progress.remove_task(self._relayed.pop(key))


class RelayedReport(Report):
    """The report of a process whose progress another one shows.

    Args:
        tell: sends an event there.
    """

    PAUSE_S = 0.2
    """Between two events on how far a part is."""

    def __init__(self, tell: Callable[[Event], None]) -> None:
        super().__init__(0)
        self._tell, self._numbers = tell, itertools.count()

    def say(self, line: str) -> None:
        """Have a line printed."""
        self._tell(("say", line))

    @contextmanager
    def part(self, name: str) -> Iterator[Advance]:
        """A part of a stage, as of `Report`."""
        number, told = next(self._numbers), 0.0

        def advance(done: int, total: int) -> None:
            nonlocal told
            if time.monotonic() - told > self.PAUSE_S:
                told = time.monotonic()
                self._tell(("at", number, done, total))

        self._tell(("begin", number, name))
        try:
            yield advance
        finally:
            self._tell(("end", number))
