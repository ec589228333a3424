"""The paper's experiment: every task behind a neck of its own, and behind the frozen neck of another task.

Both encoders, necks of several depths, with and without distillation, no codec. A suite for each neck and loss, each in
a folder of its own.

References:
    Khairi Atani et al., "How Universal Are SAM2 Features?", PCS 2025, arXiv 2510.17051.
"""

from __future__ import annotations

import math
import os
import time
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
from fcbench.measure.forecast import Rates, probe
from fcbench.measure.graph import Graph, build
from fcbench.measure.plan import Counts, Estimate, Family
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
        threads: of each of several processes; None for an equal share. One alone keeps those it has.
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
            summary, took_s = done.result()
            failures += summary.failures
            report.finish(running[done], took_s)
    return failures


def _measure(setup: Setup, out: Path) -> tuple[Summary, float]:
    """Measure a suite in a worker process. Returns its duration, too [s]."""
    began = time.monotonic()
    return cross_neck.measure(setup.open(Report(0)).study, out, deep=False), time.monotonic() - began


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


def encoder_weights(study: Study) -> Iterator[Weights]:
    """Weights of the encoders; the study needs no data for this. Random ones take the place of missing ones in it, so
    that it can be timed.

    Raises:
        FcbenchError: an unknown name.
    """
    stand_in = study.of(replace(study.suite, weights="random"))
    for name in study.suite.encoders:
        encoder, missing = _or_random(lambda: study.encoder(name), lambda: stand_in.encoder(name))
        yield Weights(name, _n_bytes(encoder.module), encoder.weights.origin, missing)


def decoder_weights(study: Study) -> Iterator[Weights]:
    """Weights of the frozen decoders, with the task models' encoders; likewise.

    Raises:
        FcbenchError: a missing package, or images that do not fit.
    """
    suite = study.suite
    if suite.head != "frozen":
        return
    plain = replace(suite, head="trained", neck_loss="task", task_models={}, task_weights={})
    source = next(iter(graph_of(study.of(plain)).sources.values()))
    for task in suite.tasks:
        stand_in = study.of(replace(suite, task_weights={task: "random"}))
        model, missing = _or_random(lambda: study.task_model(task, source), lambda: stand_in.task_model(task, source))
        n_bytes = _n_bytes(model.encoder.module) + _n_bytes(model.head())
        yield Weights(f"{task}: {model.name}", n_bytes, model.weights.origin, missing)


def _or_random(build: Callable[[], Any], stand_in: Callable[[], Any]) -> tuple[Any, str]:
    """A model, or one with random weights and the reason."""
    try:
        return build(), ""
    except FcbenchError as error:
        return stand_in(), str(error)


def graph_of(study: Study) -> Graph:
    """The single necks of a suite as work; features that the cache lacks have no values."""
    return build(study, lambda key: False)


def left(study: Study, out: Path) -> tuple[Counts, Estimate]:
    """What a suite's folder lacks: points, each a training too unless the cache has it, and features; and its cost if
    every training takes all its steps, timed on the first encoder (`fcbench.measure.forecast.probe`)."""
    suite, done, chains = study.suite, plan.done(out), Family("chains")
    for encoder in map(study.encoder, suite.encoders):
        for seed in suite.seeds:
            for job, requested in cross_neck.passes(suite, 2, coded=False, deep=False):
                for chain in requested:
                    key = cross_neck.key_of_chain(key_of(study, encoder, seed, job, chain.task), chain)
                    chains.n_points, chains.n_found = chains.n_points + 1, chains.n_found + (key in done)
                    chains.read.update([chain.task] if key not in done else [])
    counts = Counts(len(study.data["test"]), {chains.name: chains}, chains.read)
    if not chains.read:
        return counts, plan.estimate(counts, Rates("", counts.n_test))
    features = plan.counts_of(graph_of(study), counts.n_test)
    n_bytes = features.feature_bytes if suite.store_features else 0
    counts = replace(counts, images=features.images, feature_bytes=n_bytes)
    return counts, plan.estimate(counts, probe(study))


def memory_bytes(study: Study) -> int:
    """Size of the output of a neck for all images, which stays in memory."""
    _, grid = next(iter(graph_of(study).sources.values())).train.features.finest
    return 4 * study.suite.budget.width * math.prod(grid) * sum(map(len, study.data.values()))


def _n_bytes(module: nn.Module) -> int:
    return sum(4 * p.numel() for p in module.parameters())
