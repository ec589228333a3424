"""Progress of long work: a live display in a terminal, plain lines elsewhere, or JSON lines for machines."""

from __future__ import annotations

import io
import itertools
import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from fcbench.core.errors import one_line

Advance = Callable[[int, int], None]
Event = tuple[Any, ...] | logging.LogRecord
"""Message from a process to the one that shows its progress: ("work", key) as it begins a stage, ("begin", part, name),
("at", part, done, total), ("end", part), ("say", line), or a log record."""

PAUSE_S = 0.2  # Between two progress events of a part
PLOT_WIDTH, PLOT_HEIGHT = 36, 7  # Of a panel's plot, in characters


def duration(seconds: float) -> str:
    """A duration, rounded as an estimate should be.

    >>> duration(7.3), duration(200), duration(9000)
    ('7 s', '3 min', '2.5 h')
    """
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Report:
    """Stages of a run: what is under way, how many are done, what remains. Writes to standard error.

    `works`: the stages by key, or a number of equal stages. `n_points`: how many points the run is to measure, and how
    many of them were already measured.
    """

    def __init__(
        self, works: int | Mapping[str, Work], console: Console | None = None, n_points: tuple[int, int] = (0, 0)
    ) -> None:
        if isinstance(works, int):
            works = {str(i): Work(1.0, ("stage",)) for i in range(works)}
        self._console = console or Console(stderr=True, highlight=False)
        self._parts = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._works, self._eta, self._n_done = works, Eta(works), 0
        self._n_points, self._n_measured = n_points
        self._began: float | None = None
        self._bars: dict[tuple[int, int], TaskID] = {}
        self._running: dict[int, tuple[Running, float]] = {}  # by process, with its start time
        self._numbers = itertools.count()
        self.dots: list[Dot] = []
        self._live = Live(get_renderable=self._display, console=self._console, transient=True)

    def __enter__(self) -> Report:
        self._began = time.monotonic()
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def say(self, line: str) -> None:
        """Print a line."""
        self._console.print(one_line(line), markup=False, soft_wrap=True)

    def working(self, key: str) -> None:
        """Record that this process begins a stage."""
        self._tell(("work", key))

    @contextmanager
    def part(self, name: str) -> Iterator[Advance]:
        """Show a part of a stage as a bar while it lasts. Call what it yields with (done, total)."""
        number, told = next(self._numbers), 0.0

        def advance(done: int, total: int) -> None:
            nonlocal told
            if time.monotonic() - told > PAUSE_S:
                told = time.monotonic()
                self._tell(("at", number, done, total))

        self._tell(("begin", number, name))
        try:
            yield advance
        finally:
            self._tell(("end", number))

    def _tell(self, event: Event) -> None:
        self.follow(-1, event)

    def skip(self, n: int) -> None:
        """Count stages that need no work; all stages of the run are of one kind."""
        for _ in range(n):
            self._count(str(self._n_done), 0.0)

    def finish(self, line: str, took_s: float, key: str = "") -> None:
        """Count a finished stage, and print its line if it has one. `key`: of its work; if `works` is a number, the
        next one."""
        self._count(key or str(self._n_done), took_s)
        if line:
            about = f"about {duration(self._left_s())} left"
            self.say(f"[{self._n_done}/{len(self._works)}] {line} ({took_s:.1f} s; {about})")

    def measured(self, dots: Sequence[Dot]) -> None:
        """Count points and draw them."""
        self._n_measured += len(dots)
        self.dots += dots

    def _count(self, key: str, took_s: float) -> None:
        self._eta.finish(key, took_s)
        self._n_done += 1
        for who, (stage, _) in list(self._running.items()):
            if stage.key == key:
                del self._running[who]

    def _left_s(self) -> float:
        now = time.monotonic()
        running = [replace(stage, took_s=now - began) for stage, began in list(self._running.values())]
        return self._eta.left_s(self._elapsed_s(), running)

    def _elapsed_s(self) -> float:
        return 0.0 if self._began is None else time.monotonic() - self._began

    def follow(self, who: int, event: Event) -> None:
        """Handle a message from a process; this process is -1."""
        if isinstance(event, logging.LogRecord):
            logging.getLogger(event.name).handle(event)
            return
        what, *values = event
        if what == "say":
            self.say(*values)
        elif what == "work":
            self._running[who] = Running(values[0], 0.0), time.monotonic()
        elif what == "begin":
            part, name = values
            self._bars[who, part] = self._parts.add_task(f"  {one_line(name)}", total=None)
        elif what == "at":
            part, done, total = values
            self._parts.update(self._bars[who, part], completed=done, total=total)
            stage, began = self._running.get(who, (None, 0.0))
            if stage and self._works[stage.key].gradual:
                self._running[who] = replace(stage, share=done / total), began
        else:
            self._parts.remove_task(self._bars.pop((who, *values)))

    def forget(self, who: int) -> None:
        """Remove the bars of another process that is gone."""
        self._running.pop(who, None)
        for key in [k for k in self._bars if k[0] == who]:
            self._parts.remove_task(self._bars.pop(key))

    def _display(self) -> RenderableType:
        told = [f"stage {self._n_done} of {len(self._works)}", duration(self._elapsed_s())]
        if self._n_points:
            told.insert(0, f"{self._n_measured} of {self._n_points} points")
        if self._n_done < len(self._works):
            told.append(f"about {duration(self._left_s())} left")
        return Group(Text(", ".join(told), style="bold"), self._parts.get_renderable(), self._plots())

    def _plots(self) -> RenderableType:
        panels = list(dict.fromkeys(dot.panel for dot in reversed(self.dots)))
        n = max(1, self._console.width // (PLOT_WIDTH + 1))
        drawn = [[d for d in self.dots if d.panel == panel] for panel in reversed(panels[:n])]
        return Columns([Text("\n".join(text_plot(dots, PLOT_WIDTH, PLOT_HEIGHT, "bpp"))) for dots in drawn])


class JsonReport(Report):
    """A report for machines: one JSON object per line. ``plan`` lists the stages with their expected times, ``stage``
    is a finished one, ``points`` is what was measured, ``say`` a line for people. `write`: writes a line."""

    def __init__(self, works: Mapping[str, Work], n_points: tuple[int, int], *, write: Callable[[str], None]) -> None:
        super().__init__(works, Console(file=io.StringIO()), n_points)
        self._write = write
        plan = {key: asdict(work) for key, work in works.items()}
        self._event("plan", n_points=n_points[0], n_measured=n_points[1], stages=plan)

    def say(self, line: str) -> None:
        self._event("say", line=line)

    def finish(self, line: str, took_s: float, key: str = "") -> None:
        self._count(key, took_s)
        times = {"took_s": took_s, "elapsed_s": self._elapsed_s(), "left_s": self._left_s()}
        self._event("stage", key=key, line=line, n_done=self._n_done, **{k: round(v, 3) for k, v in times.items()})

    def measured(self, dots: Sequence[Dot]) -> None:
        super().measured(dots)
        for dot in dots:
            self._event("point", n_measured=self._n_measured, **dot._asdict())

    def _event(self, name: str, **values: Any) -> None:
        self._write(json.dumps({"event": name, **values}))


class RelayedReport(Report):
    """The report of a process whose progress another process shows. `tell`: sends an event there."""

    def __init__(self, tell: Callable[[Event], None]) -> None:
        super().__init__(0)
        self._send = tell

    def say(self, line: str) -> None:
        self._tell(("say", line))

    def _tell(self, event: Event) -> None:
        self._send(event)


LEAST = 0.05  # A running stage counts as evidence from this share on


@dataclass(frozen=True, slots=True)
class Work:
    """Expected work of a stage."""

    expected_s: float  # expected duration [s]
    # stages that resemble it, the most similar first: the first pool with finished work corrects the forecast
    pools: tuple[str, ...]
    gradual: bool = True  # its progress is proportional to time


@dataclass(frozen=True, slots=True)
class Running:
    """A stage in progress."""

    key: str  # of its work
    took_s: float  # so far
    share: float = 0.0  # share that is done, 0 to 1; 0 if unknown


class Eta:
    """Estimate of the time that remains in a run.

    Each pool knows the expected and the actual time of its finished stages. Their ratio corrects the remaining stages.
    Finished seconds over elapsed seconds say how many stages run at a time.

    >>> eta = Eta({name: Work(10, ("training",)) for name in "abc"})
    >>> eta.finish("a", 20)
    >>> eta.left_s(20)
    40.0
    """

    def __init__(self, works: Mapping[str, Work]) -> None:
        self._works = works
        self._left: dict[tuple[str, ...], float] = {}
        self._pools: dict[str, tuple[float, float]] = {}  # seconds taken and expected
        self._took_s = 0.0
        for work in works.values():
            self._left[work.pools] = self._left.get(work.pools, 0.0) + work.expected_s

    def finish(self, key: str, took_s: float) -> None:
        """Count a finished stage; one that took no time, because it failed, says nothing about others."""
        work = self._works[key]
        self._left[work.pools] -= work.expected_s
        self._took_s += took_s
        if took_s:
            _add(self._pools, work, took_s, work.expected_s)

    def left_s(self, elapsed_s: float, running: Iterable[Running] = ()) -> float:
        """Seconds that remain. `elapsed_s`: since the first stage began. `running`: the known stages in progress."""
        pools, left, took_s = dict(self._pools), dict(self._left), self._took_s
        for stage in running:
            work = self._works[stage.key]
            took_s += stage.took_s
            if stage.share >= LEAST:
                _add(pools, work, stage.took_s, stage.share * work.expected_s)
                left[work.pools] -= stage.share * work.expected_s
            else:
                left[work.pools] -= min(work.expected_s, stage.took_s / _ratio(pools, work.pools))
        serial_s = sum(seconds * _ratio(pools, pool) for pool, seconds in left.items())
        at_once = took_s / elapsed_s if took_s and elapsed_s else 1.0
        return max(0.0, serial_s) / at_once


def _add(pools: dict[str, tuple[float, float]], work: Work, took_s: float, expected_s: float) -> None:
    for name in work.pools:
        took, expected = pools.get(name, (0.0, 0.0))
        pools[name] = took + took_s, expected + expected_s


def _ratio(pools: Mapping[str, tuple[float, float]], names: Iterable[str]) -> float:
    return next((pools[name][0] / pools[name][1] for name in names if name in pools), 1.0)


_MARKS = "ox+*#@%&svd^<>"
_END = "-"


class Dot(NamedTuple):
    """One point."""

    panel: str  # its plot
    series: str  # its curve; empty for a ceiling or floor, drawn as a horizontal line
    x: float | None  # drawn on a logarithmic axis; None for a ceiling or floor
    y: float


def text_plot(dots: Sequence[Dot], width: int, height: int, unit: str) -> list[str]:
    """Draw the dots of one panel.

    Args:
        width: of a line, in characters; at least 20.
        height: lines of the plot itself, without title, x axis and legend.
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
    for dot in sorted(dots, key=lambda d: bool(d.series)):  # ceilings and floors first: dots are drawn over them
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
    """Position of a value between two others, 0 to 1; 0.5 if they are equal."""
    return (value - low) / (high - low) if high > low else 0.5
