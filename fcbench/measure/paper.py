"""The paper's experiment: every task behind a neck of its own, and behind the frozen neck of another task.

Both encoders, necks of several depths, with and without distillation, no codec. A suite for each neck and loss, each in
a folder of its own.

References:
    Khairi Atani et al., "How Universal Are SAM2 Features?", PCS 2025, arXiv 2510.17051.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from fcbench.core.errors import FcbenchError
from fcbench.core.features import OFFLINE
from fcbench.core.processes import workers
from fcbench.core.progress import Report
from fcbench.measure import cross_neck, plan
from fcbench.measure.executors import device_in_turn, setup_of
from fcbench.measure.forecast import probe
from fcbench.measure.graph import Graph, build
from fcbench.measure.rows import key_of
from fcbench.measure.run import Summary
from fcbench.measure.study import Study
from fcbench.measure.suite import Suite
from fcbench.measure.workshop import Setup

NECKS = ("neck_2L", "neck_4L", "neck_6L")
DISTILLATION: dict[str, Literal["task", "both"]] = {"off": "task", "on": "both"}
"""Distillation -> loss of the neck before a frozen decoder."""


def suites(base: Suite, necks: Sequence[str] = NECKS, distillation: Sequence[str] = ("off", "on")) -> dict[str, Suite]:
    """The experiment's suites by the name of their folder; a trained head has no distillation.

    Raises:
        FcbenchError: not two encoders, or bad input.
    """
    if len(base.encoders) != 2:
        got = ", ".join(base.encoders)
        raise FcbenchError(f"the experiment compares two encoders, general,special; got {len(base.encoders)}: {got}")
    plain, out = replace(base, name="paper", codecs=("raw",), params={}, null_model=False), {}
    for neck in necks:
        for name in distillation if base.head == "frozen" else ("off",):
            suite = replace(plain, neck=neck, neck_loss=DISTILLATION[name])
            cross_neck.check(suite, 2, coded=False)
            out[neck + ("-distilled" if name == "on" else "")] = suite
    return out


def measure(study: Study, every: Mapping[str, Suite], out: Path, n_jobs: int, threads: int | None) -> list[str]:
    """Measure what the folders of the suites lack. Returns a line for each failure.

    Args:
        n_jobs: number of processes that share the suites, each with one of the GPUs in turn.
        threads: of each process; None for all cores, or an equal share.
    """
    failures: list[str] = []
    if n_jobs == 1:
        for name, suite in every.items():
            failures += cross_neck.measure(study.of(suite), out / name, deep=False).failures
        return failures
    threads = threads or max(1, (os.cpu_count() or 1) // n_jobs)
    with workers(n_jobs, "measure") as pool, Report(len(every)) as report:
        running = {}
        for i, (name, suite) in enumerate(every.items()):
            setup = setup_of(study.of(suite), None, False, threads)
            setup = replace(setup, device=device_in_turn(study.device, i))
            running[pool.submit(_measure, setup, out / name)] = name
        for done in as_completed(running):
            failures += done.result().failures
            report.finish(running[done], 0.0)
    return failures


def _measure(setup: Setup, out: Path) -> Summary:
    """Measure a suite in a worker process."""
    return cross_neck.measure(setup.open(Report(0)).study, out, deep=False)


# ------------------------------------------------------------------------------------------------ before
@dataclass(frozen=True, slots=True)
class Weights:
    """Weights that the experiment needs.

    Attributes:
        n_bytes: of the parts in use, as float32.
        missing: why they cannot be used, and how to get them; empty if they can.
    """

    what: str
    n_bytes: int
    origin: str
    missing: str


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of a suite, and its cost.

    Attributes:
        n_points: chains of necks; each is a training too, unless the cache has it.
        points_s: if every training takes all its steps.
        features_s, feature_bytes: of features that the cache lacks; suites share them.
        memory_bytes: of a neck's output for all images, which stays in memory.
    """

    n_points: int
    n_found: int
    points_s: float = 0.0
    features_s: float = 0.0
    feature_bytes: int = 0
    model_bytes: int = 0
    result_bytes: int = 0
    memory_bytes: int = 0


@contextmanager
def offline() -> Iterator[None]:
    """Inside, no weights are downloaded: missing ones are errors."""
    before = os.environ.get(OFFLINE)
    os.environ[OFFLINE] = "1"
    try:
        yield
    finally:
        del os.environ[OFFLINE]
        if before is not None:
            os.environ[OFFLINE] = before


def weights_of(study: Study) -> list[Weights]:
    """Weights of the encoders and the frozen decoders. Random ones take the place of missing ones in this study, so
    that it can be timed.

    Raises:
        FcbenchError: an unknown name, a missing package, or features that do not fit.
    """
    suite, found = study.suite, []
    for name in suite.encoders:
        stand_in = study.of(replace(suite, weights="random"))
        encoder, missing = _or_random(lambda: study.encoder(name), lambda: stand_in.encoder(name))
        found.append(Weights(name, _n_bytes(encoder.module), encoder.weights.origin, missing))
    if suite.head != "frozen":
        return found
    plain = replace(suite, head="trained", neck_loss="task", task_models={}, task_weights={})
    source = next(iter(graph_of(study.of(plain)).sources.values()))
    for task in suite.tasks:
        stand_in = study.of(replace(suite, task_weights={task: "random"}))
        model, missing = _or_random(lambda: study.task_model(task, source), lambda: stand_in.task_model(task, source))
        n_bytes = _n_bytes(model.encoder.module) + _n_bytes(model.head())
        found.append(Weights(f"{task}: {model.name}", n_bytes, model.weights.origin, missing))
    return found


def _or_random(wanted: Callable[[], Any], stand_in: Callable[[], Any]) -> tuple[Any, str]:
    """A model, or one with random weights and the reason."""
    try:
        return wanted(), ""
    except FcbenchError as error:
        return stand_in(), str(error)


def graph_of(study: Study) -> Graph:
    """The single necks of a suite as work; features that the cache lacks have no values."""
    return build(study, lambda key: False)


def left(study: Study, out: Path) -> Left:
    """Count what a suite's folder lacks, and time it on the first encoder (`fcbench.measure.forecast.probe`)."""
    suite, done, pending, n_found = study.suite, plan.done(out), Counter[str](), 0
    for encoder in map(study.encoder, suite.encoders):
        for seed in suite.seeds:
            for job, chains in cross_neck.passes(suite, 2, coded=False, deep=False):
                for chain in chains:
                    key = cross_neck.key_of_chain(key_of(study, encoder, seed, job, chain.task), chain)
                    pending[chain.task] += key not in done
                    n_found += key in done
    if not pending.total():
        return Left(0, n_found)
    graph, rates, n_test = graph_of(study), probe(study), len(study.data["test"])
    features = plan.estimate(replace(plan.counts_of(graph, n_test), families={}), rates)
    each_s = {t: rates.readout_s[t] + n_test * rates.read_s[t] + rates.row_s[t] for t in pending}
    _, grid = next(iter(graph.sources.values())).train.features.finest
    return Left(
        pending.total(),
        n_found,
        sum(n * each_s[t] for t, n in pending.items()),
        features.features_s,
        features.feature_bytes,
        sum(n * rates.readout_bytes[t] for t, n in pending.items()),
        sum(n * rates.row_bytes[t] for t, n in pending.items()),
        4 * suite.budget.width * math.prod(grid) * sum(map(len, study.data.values())),
    )


def _n_bytes(module: nn.Module) -> int:
    return sum(4 * p.numel() for p in module.parameters())
