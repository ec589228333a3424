"""`measure`: from a suite to rows.

data -> encoder -> features on disk -> codec -> .fcb file -> decoder -> neck and head -> statistics -> row
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from queue import SimpleQueue

from fcbench.core.codecs import Kind
from fcbench.core.files import write_atomically
from fcbench.core.progress import Dot, Report, Work
from fcbench.measure.executors import Executor, Start, here
from fcbench.measure.expected import works
from fcbench.measure.graph import Makes, Node, build
from fcbench.measure.study import Study
from fcbench.measure.workshop import Outcome
from fcbench.results.folder import ResultsFolder
from fcbench.results.row import OK, RatePoint

STREAMS = "streams"
Show = Callable[[Mapping[str, Work], tuple[int, int]], Report]
"""Makes the report of a run from its expected work and its number of points: all, and those already there."""


def in_terminal(stages: Mapping[str, Work], n_points: tuple[int, int]) -> Report:
    """A report for a terminal."""
    return Report(stages, n_points=n_points)


@dataclass(frozen=True, slots=True)
class Summary:
    """Outcome of a run.

    Attributes:
        n_measured: points measured now.
        n_found: points that were already in the results folder.
        n_coded: coded points in the folder.
        failures: one line per failure.
    """

    n_measured: int
    n_found: int
    n_coded: int
    failures: tuple[str, ...]


def measure(
    study: Study, out: Path, *, keep_streams: bool = False, start: Start = here, show: Show = in_terminal
) -> Summary:
    """Measure every point of a suite that its results folder lacks.

    Args:
        keep_streams: keep the coded files in ``streams``.
        start: starts the executor: this process, workers, a cluster.
        show: makes the progress report.

    Raises:
        FcbenchError: bad input, a folder that cannot be used, or a full disk. Any other failure of a point becomes a
            row with its reason.
    """
    study.suite.check()
    failures: list[str] = []
    n_measured = 0
    with ResultsFolder(out) as folder:
        folder.add_provenance(study.suite.as_json())
        graph = build(study, folder.done)
        expected = works(graph, study)
        report = show(expected, (graph.n_points.total(), graph.n_found.total()))
        report.dots += dots(row for row in folder.points if row.point in graph.found)
        with report, start(study, out, keep_streams, report) as executor:
            nodes = graph.nodes if executor.n_at_once == 1 else urgent_first(graph.nodes, expected)
            for node, outcome in outcomes(nodes, executor):
                _keep(folder, outcome)
                _say(report, node, outcome)
                failures += outcome.failures
                n_measured += sum(samples is not None for _, samples in outcome.rows)
        return Summary(n_measured, graph.n_found.total(), n_coded(folder), tuple(failures))


def n_coded(folder: ResultsFolder) -> int:
    """Coded points of a results folder."""
    return len({row.point for row in folder.points if row.kind == Kind.CODED and row.status == OK})


def urgent_first(nodes: Mapping[str, Node], expected: Mapping[str, Work]) -> dict[str, Node]:
    """The nodes of each encoder and seed in turn, first those on which the longest chain of work waits."""
    waiting_s = dict.fromkeys(nodes, 0.0)
    for key in reversed(list(nodes)):
        waiting_s[key] += expected[key].expected_s
        for need in nodes[key].needs:
            if need in nodes:
                waiting_s[need] = max(waiting_s[need], waiting_s[key])
    trials = dict.fromkeys((node.encoder, node.seed) for node in nodes.values())
    turn = {trial: i for i, trial in enumerate(trials)}
    order = sorted(nodes, key=lambda key: (turn[nodes[key].encoder, nodes[key].seed], -waiting_s[key]))
    return {key: nodes[key] for key in order}


def outcomes(nodes: Mapping[str, Node], executor: Executor) -> Iterator[tuple[Node, Outcome]]:
    """Execute every node after those that it needs; of several that are ready, the first in order."""
    order = TopologicalSorter({key: [k for k in node.needs if k in nodes] for key, node in nodes.items()})
    order.prepare()
    keys = list(nodes)
    place = {key: i for i, key in enumerate(keys)}
    ready: list[int] = []  # a heap of positions
    n_running = 0
    done: SimpleQueue[tuple[Node, Future[Outcome]]] = SimpleQueue()
    reasons: dict[str, str] = {}
    while order.is_active():
        for key in order.get_ready():
            heapq.heappush(ready, place[key])
        while ready and n_running < executor.n_at_once:
            node = nodes[keys[heapq.heappop(ready)]]
            future = _submit(executor, node, {k: reasons[k] for k in node.needs if k in reasons})
            future.add_done_callback(lambda f, node=node: done.put((node, f)))  # type: ignore[misc]
            n_running += 1
        node, future = done.get()
        n_running -= 1
        outcome = future.result()
        if outcome.reason:
            reasons[node.key] = outcome.reason
        order.done(node.key)
        yield node, outcome


def _submit(executor: Executor, node: Node, reasons: Mapping[str, str]) -> Future[Outcome]:
    """Submit a node; one whose needs failed fails for the same reason, and a point gets its rows."""
    if not reasons or node.makes == Makes.POINT:
        return executor.submit(node, reasons)
    failed: Future[Outcome] = Future()
    failed.set_result(Outcome(0.0, node.label, next(iter(reasons.values()))))
    return failed


def _keep(folder: ResultsFolder, outcome: Outcome) -> None:
    for name, content in outcome.files.items():
        write_atomically(folder.path / STREAMS / name, content)
    for rows, samples in outcome.rows:
        folder.append(rows, samples)


def _say(report: Report, node: Node, outcome: Outcome) -> None:
    for line in (*outcome.notes, *(f"FAILED {line}" for line in outcome.failures)):
        report.say(line)
    if outcome.reason:
        report.say(f"failed: {node.label}: {outcome.reason}")
    report.measured(dots(row for rows, samples in outcome.rows if samples is not None for row in rows))
    is_said = not outcome.reason and node.makes != Makes.TABLES
    report.finish(outcome.line if is_said else "", outcome.took_s, node.key)


def dots(rows: Iterable[RatePoint]) -> list[Dot]:
    """Points as drawn during a run, by their primary metric; those without a finite value are not drawn."""
    ends = (Kind.CEILING, Kind.FLOOR)
    return [
        Dot(
            f"{row.encoder}: {row.task}, {row.metric}",
            "" if row.kind in ends else row.codec,
            None if row.kind in ends else row.bpp,
            row.value,
        )
        for row in rows
        if row.primary and row.value is not None and math.isfinite(row.value)
    ]
