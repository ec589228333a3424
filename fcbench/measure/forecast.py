"""How long the parts of a run take: a few training steps and samples, on the first encoder. `fcbench.measure.plan` scales it.

Everything is made in a temporary cache that is thrown away: nothing that was trained for so few steps can be found
again.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from rich.console import Console

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Encoder
from fcbench.core.kinds import CEILING, CODED, ENDS, LABELS
from fcbench.core.progress import Advance, Report
from fcbench.core.registry import build_encoder
from fcbench.core.samples import Dataset
from fcbench.core.tasks import Task
from fcbench.features.extract import FeatureStore
from fcbench.features.source import Readable
from fcbench.measure import complexity
from fcbench.measure.bench import PREPARE_SAMPLES, Bench
from fcbench.measure.coding import code
from fcbench.measure.evaluate import evaluate, reader
from fcbench.measure.points import Job, jobs
from fcbench.measure.rows import measured_rows
from fcbench.measure.study import open_data
from fcbench.measure.suite import Suite
from fcbench.results.folder import ResultsFolder
from fcbench.results.samples import SampleTable

STEPS = 8
"""Training steps that are timed."""
N_TRAIN, N_TEST = 32, 8
"""Samples that are read."""
Variant = tuple[str, str | None]
"""A codec, and the task that it is fitted to or whose output it codes."""


def variant(job: Job) -> Variant:
    """What of a job's codec determines how long it takes; not its operating point, which matters less."""
    labels = job.tasks[0] if job.kind == LABELS else None
    return job.point.codec, job.fitted_to or labels


@dataclass(slots=True)
class Rates:
    """Seconds and bytes of the parts of a run.

    Attributes:
        encoder: that they were timed on.
        n_test: samples of the whole test set, which intervals are taken over.
        image_s: an image to features, by encoder (a task model's own among them).
        feature_bytes: features of one encoder, both splits.
        readout_s, readout_bytes: training of a readout, by task.
        train_s, train_bytes: training of a codec; what it keeps beside checkpoints.
        make_s, make_bytes: a checkpoint, once its codec is trained; counting its operations.
        code_s: a sample there and back.
        read_s: what a readout makes of a sample, by task.
        row_s, row_bytes: a measured point's intervals and rows, by task.
        failed: reasons, of codecs that could not be timed.
        load: processes that wanted to run, a core, where the system tells.
    """

    encoder: str
    n_test: int
    image_s: dict[str, float] = field(default_factory=dict)
    feature_bytes: int = 0
    readout_s: dict[str, float] = field(default_factory=dict)
    readout_bytes: dict[str, int] = field(default_factory=dict)
    train_s: dict[Variant, float] = field(default_factory=dict)
    train_bytes: dict[Variant, int] = field(default_factory=dict)
    make_s: dict[Variant, float] = field(default_factory=dict)
    make_bytes: dict[Variant, int] = field(default_factory=dict)
    code_s: dict[Variant, float] = field(default_factory=dict)
    read_s: dict[str, float] = field(default_factory=dict)
    row_s: dict[str, float] = field(default_factory=dict)
    row_bytes: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    load: float | None = None


def probe(suite: Suite, cache_dir: Path, device: torch.device) -> Rates:
    """Time the parts of a suite. The cache is used for the data set alone.

    A codec that fails here is named in the result: it would fail in the run too.

    Raises:
        FcbenchError: bad input, as the run would find it.
    """
    data = open_data(suite, cache_dir)
    encoder = build_encoder(suite.encoders[0], suite.weights, device)
    budget = replace(suite.budget, task_steps=STEPS, codec_steps=STEPS)
    short, rates = replace(suite, budget=budget), Rates(encoder.name, len(data["test"]))
    with tempfile.TemporaryDirectory(prefix="fcbench-probe-") as name:
        folder = Path(name)
        bench = Small(short, data, encoder, suite.seeds[0], folder, device, rates)
        each = 4 * bench.train.store.n_points // len(bench.train.store)
        rates.feature_bytes = each * sum(map(len, data.values()))
        for task in suite.tasks:
            _time_readout(bench, task, rates, suite.budget.task_steps)
            _time_reading(bench, task, rates, folder / "rows" / task)
        for job in _one_each(jobs(suite)):
            try:
                _time_codec(bench, job, rates, suite.budget.codec_steps, folder)
            except (FcbenchError, RuntimeError, ArithmeticError, MemoryError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                rates.failed[job.point.codec] = reason
    if hasattr(os, "getloadavg"):
        rates.load = os.getloadavg()[0] / (os.cpu_count() or 1)
    return rates


def _one_each(every: Sequence[Job]) -> list[Job]:
    """The middle operating point of each variant of each codec."""
    groups: dict[Variant, list[Job]] = {}
    for job in every:
        if job.kind not in ENDS:
            groups.setdefault(variant(job), []).append(job)
    return [group[len(group) // 2] for group in groups.values()]


# ---------------------------------------------------------------------------------------------- timed
def _time_readout(bench: Small, task: str, rates: Rates, steps: int) -> None:
    before = _n_bytes(bench.models)
    bench.readout(task)
    rates.readout_s[task] = bench.watch.step_s * steps
    rates.readout_bytes[task] = _n_bytes(bench.models) - before


def _time_reading(bench: Small, task: str, rates: Rates, folder: Path) -> None:
    """Time what a point takes that is decoded: statistics of each sample, intervals over as many as the run has."""
    job = Job(CEILING, ENDS[CEILING], (task,))
    readers = {task: reader(bench, task)}
    for _ in range(2):  # the first warms up
        coding = code(bench, job, folder)
        began = time.perf_counter()
        found, mse = evaluate(bench, readers, coding.decoded)
        rates.read_s[task] = (time.perf_counter() - began) / len(bench.test.store)
    complexity.of_point(bench, task, None)  # counted once for all points
    n_test = rates.n_test
    stats = np.resize(found[task].stats, (n_test, found[task].stats.shape[1]))
    n_bytes = list(np.resize(coding.sample_bytes, n_test))
    with ResultsFolder(folder) as rows:
        began = time.perf_counter()
        ids = [f"{task}-{i:012d}" for i in range(n_test)]
        measured = measured_rows(bench, job, task, coding, stats, mse)
        given = found[task].log_likelihood
        table = SampleTable(ids, n_bytes, stats, None if given is None else np.resize(given, n_test))
        rows.append(measured, table)
        rates.row_s[task] = time.perf_counter() - began
    rates.row_bytes[task] = _n_bytes(folder)


def _time_codec(bench: Small, job: Job, rates: Rates, steps: int, folder: Path) -> None:
    which, watch, checkpoint = variant(job), bench.watch, None
    if job.kind == CODED:
        before, began = _n_bytes(bench.models), time.perf_counter()
        checkpoint = bench.codec(job.point, job.fitted_to)
        ended = time.perf_counter()
        if watch.n_steps:  # one of variable rate makes more of them
            rates.train_s[which] = watch.step_s * watch.n_steps / STEPS * steps
            began = watch.ticks_s[-1]
        rates.make_s[which] = ended - began
        rates.make_bytes[which] = checkpoint.stat().st_size
        grown = _n_bytes(bench.models) - before
        rates.train_bytes[which] = grown - rates.make_bytes[which]
    n = len(bench.test.store)
    coding = code(bench, job, folder / "stream.fcb")
    ended = time.perf_counter()
    there_s = watch.step_s + (ended - watch.ticks_s[-1]) / n
    for _ in coding.decoded:
        pass
    rates.code_s[which] = there_s + (time.perf_counter() - ended) / n
    if checkpoint is not None:
        began = time.perf_counter()
        complexity.of_codec(bench, checkpoint)
        rates.make_s[which] += time.perf_counter() - began


def _n_bytes(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


# --------------------------------------------------------------------------------------------- tools
class Small(Bench):
    """A bench of a few samples that tells how long its features took; tasks know the whole data set."""

    def __init__(
        self,
        suite: Suite,
        data: Mapping[str, Dataset],
        encoder: Encoder,
        seed: int,
        cache_dir: Path,
        device: torch.device,
        rates: Rates,
    ) -> None:
        self.watch, self._rates = Stopwatch(), rates
        super().__init__(suite, data, encoder, seed, cache_dir, device, self.watch)

    def _extract(self, data: Dataset, encoder: Encoder, splits: Sequence[str], what: str) -> FeatureStore:
        test = what == "test"
        n = min(len(data), N_TEST if test else N_TRAIN)
        began = time.perf_counter()
        store = super()._extract(Readable(data, range(n)), encoder, splits, what)
        took_s = (time.perf_counter() - began) / n
        known = self._rates.image_s
        known[encoder.name] = min(took_s, known.get(encoder.name, took_s))
        return store if test else repeated(store, min(len(data), PREPARE_SAMPLES))

    def _task(self, name: str) -> Task:
        task: Task = registry.get("task", name).build(self.data["train"], self.data["test"])
        return task


def repeated(store: FeatureStore, n: int) -> FeatureStore:
    """As many samples as codecs take their initial values from, over and over the same."""
    places = [i % len(store) for i in range(n)]
    entries = [store.entries[i] for i in places]
    # not whole (its statistics are kept nowhere)
    return FeatureStore(
        store.folder, entries, store.skipped, store.image_px, store.specs, store.shapes, n + 1, store.batch(places)
    )


class Stopwatch(Report):
    """A report that prints nothing and keeps when each step of its last part ended."""

    def __init__(self) -> None:
        super().__init__(0, Console(quiet=True))
        self.ticks_s: list[float] = []

    @contextmanager
    def part(self, name: str) -> Iterator[Advance]:
        """A part; its beginning counts as the first tick."""
        self.ticks_s = [time.perf_counter()]
        yield lambda done, total: self.ticks_s.append(time.perf_counter())

    @property
    def n_steps(self) -> int:
        """Steps of the last part."""
        return len(self.ticks_s) - 1

    @property
    def step_s(self) -> float:
        """Median time of a step of the last part, the first left out: it warms up."""
        steps = np.diff(self.ticks_s[1:] if self.n_steps > 1 else self.ticks_s)
        return median(steps.tolist())
