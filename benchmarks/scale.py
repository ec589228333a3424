"""The scale benchmark: gain and cost of sharing a run among processes.

    python -m benchmarks.scale                     everything
    python -m benchmarks.scale --part sweep        only one part
    python -m benchmarks.scale --quick             small sizes: to check that everything works

- *Workers*: a sweep of learned codecs with ``--jobs 2`` against ``--jobs 1``, one thread each, features and readouts
  in the cache; from the plan to the end, with the start of the worker processes. Efficiency is the time of one over
  twice the time of two.
- *Overhead*: nodes that do nothing, through two worker processes and through a local Ray cluster: time per node.
- *Sweep*: a suite of 10,000 points is planned, and all its nodes, which do nothing, run on a local Ray cluster:
  seconds for each, and growth of this process's memory from a tenth of the nodes to all of them.

Run nothing else at the same time. Ray: ``pip install ".[ray]"``.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import click
import torch

import fcbench
from fcbench.core.progress import Report
from fcbench.measure import executors
from fcbench.measure.executors import Executor
from fcbench.measure.graph import Node, build
from fcbench.measure.on_ray import on_ray
from fcbench.measure.run import outcomes
from fcbench.measure.study import Study, open_study
from fcbench.measure.workshop import Outcome, Setup

LEARNED = ("factorized", "hyperprior", "checkerboard")
STEPS = 240
"""Steps of each training in the sweep, which takes one core more than a minute."""
N_POINTS = 10_000
N_EMPTY = 2000
"""Number of nodes for measuring the overhead."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure and its bound."""

    what: str
    value: float
    unit: str
    bound: str
    holds: bool


Say = Callable[[Figure], None]


# -------------------------------------------------------------------------------------------- two workers
def workers(quick: bool, say: Say) -> None:
    """Two worker processes against one, on a real sweep."""
    codecs = LEARNED[:1] if quick else LEARNED
    run = [sys.executable, "-m", "fcbench", "run", "--encoder", "hiera_nano", "--threads", "1", "--quick"]
    run += ["--task", "depth", "--json-lines"]
    with tempfile.TemporaryDirectory() as name:
        folder, times = Path(name), dict[int, float]()

        def measure(cache: str, out: str, *options: str) -> float:
            """Seconds from the first line, the plan, to the last."""
            command = [*run, "--cache-dir", str(folder / cache), "--out", str(folder / out), *options]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
                assert process.stdout is not None and process.stdout.readline()
                began = time.monotonic()
                process.stdout.read()
            assert process.returncode == 0, command
            return time.monotonic() - began

        measure("cache-1", "warm", "--codec", "uniform")
        shutil.copytree(folder / "cache-1", folder / "cache-2")
        sweep = [f for codec in codecs for f in ("--codec", codec)] + ["--codec-steps", str(STEPS)]
        for n in (1, 2):
            times[n] = measure(f"cache-{n}", f"out-{n}", *sweep, "--jobs", str(n))
    value = times[1] / (2 * times[2])
    say(Figure(f"efficiency of 2 workers ({times[1]:.0f} s, {times[2]:.0f} s)", value, "", ">= 0.85", value >= 0.85))


# ----------------------------------------------------------------------------------------- empty nodes
def nothing(setup: Setup, node: Node, reasons: Mapping[str, str]) -> Outcome:
    """Replaces a node's work."""
    return Outcome(0.0)


def nothing_in_worker(node: Node, reasons: Mapping[str, str]) -> Outcome:
    """Replaces a node's work in a worker process."""
    return Outcome(0.0)


@contextmanager
def _study(folder: Path, n_points: int) -> Iterator[Study]:
    """A study of `n_points` coded points of hyperprior, none of them measured."""
    n_lmbdas = 100
    points = tuple({"lmbda": 0.001 * (i + 1)} for i in range(n_lmbdas))
    seeds = tuple(range(max(1, n_points // n_lmbdas)))
    suite = fcbench.Suite(
        encoders=("hiera_nano",),
        codecs=("hyperprior",),
        params={"hyperprior": points},
        tasks=("depth",),
        seeds=seeds,
        n_train=8,
        n_test=8,
    )
    yield open_study(suite, folder, torch.device("cpu"))


def _seconds(nodes: Mapping[str, Node], executor: Executor, at: Callable[[int], object] = lambda i: None) -> float:
    began = time.monotonic()
    for i, _ in enumerate(outcomes(nodes, executor), 1):
        at(i)
    return time.monotonic() - began


def overhead(quick: bool, say: Say) -> None:
    """Cost of a node that does nothing."""
    n = N_EMPTY // 10 if quick else N_EMPTY
    with tempfile.TemporaryDirectory() as folder, Report(0) as report, _study(Path(folder), n) as study:
        nodes = dict(list(build(study, lambda key: False).nodes.items())[:n])
        first, rest = dict(list(nodes.items())[:8]), dict(list(nodes.items())[8:])  # the first ones start processes
        with mock.patch.object(executors, "_do", nothing_in_worker):
            with executors.with_workers(study, Path(folder), False, report, n=2, threads=1) as found:
                _seconds(first, found)
                ms = 1000 * _seconds(rest, found) / len(rest)
        say(Figure("worker processes, per node", ms, "ms", "<= 100", ms <= 100))
        with on_ray(study, Path(folder), False, report, do=nothing) as found:
            _seconds(first, found)
            ms = 1000 * _seconds(rest, found) / len(rest)
        say(Figure("Ray, per node", ms, "ms", "<= 100", ms <= 100))


def sweep(quick: bool, say: Say) -> None:
    """A sweep of very many points, planned and dispatched."""
    n = N_POINTS // 10 if quick else N_POINTS
    with tempfile.TemporaryDirectory() as folder, Report(0) as report, _study(Path(folder), n) as study:
        began = time.monotonic()
        graph = build(study, lambda key: False)
        planned = time.monotonic() - began
        n_nodes, memory = len(graph.nodes), dict[int, float]()

        def at(i: int) -> None:
            if i in (n_nodes // 10, n_nodes):
                memory[i] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

        with on_ray(study, Path(folder), False, report, do=nothing) as found:
            took = _seconds(graph.nodes, found, at)
    total = planned + took
    what = f"{graph.n_points.total()} points, {n_nodes} nodes: planned in {planned:.1f} s, dispatched in {took:.1f} s"
    say(Figure(what, total, "s", "<= 60", total <= 60))
    growth = memory[n_nodes] / memory[n_nodes // 10]
    say(Figure(f"memory ({memory[n_nodes]:.0f} MiB) against a tenth of the way", growth, "", "<= 1.1", growth <= 1.1))


# ------------------------------------------------------------------------------------------ the program
PARTS = {"workers": workers, "overhead": overhead, "sweep": sweep}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--part", "parts", type=click.Choice(list(PARTS)), multiple=True, help="Repeatable. [all]")
@click.option("--quick", is_flag=True, help="Small sizes to check that everything works; not to be quoted.")
def main(parts: tuple[str, ...], quick: bool) -> None:
    """Measure gain and cost of several processes."""
    missed: list[str] = []

    def say(figure: Figure) -> None:
        click.echo(
            f"{figure.what}: {figure.value:.3g} {figure.unit} ({figure.bound}{'' if figure.holds else ', MISSED'})"
        )
        if not figure.holds:
            missed.append(figure.what)

    for part in parts or PARTS:
        PARTS[part](quick, say)
    if missed and not quick:
        raise click.ClickException(f"{len(missed)} bounds missed")


if __name__ == "__main__":
    main()
