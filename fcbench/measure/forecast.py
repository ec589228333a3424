"""Time and disk use of the parts of a run, from a few training steps and samples on the first encoder.

`fcbench.measure.plan` scales the times to the whole run.

Everything is made in a temporary cache and then deleted, so that no run can find models trained for so few steps.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.status import Status

from fcbench.core.cache import ASIDE, Cache
from fcbench.core.codecs import ENDS, Kind
from fcbench.core.errors import printable
from fcbench.core.features import Encoder, FeaturesDtype
from fcbench.core.progress import Advance, Report
from fcbench.features.extract import extract
from fcbench.features.feature_set import FeatureSet
from fcbench.features.source import Readable, Source, Split, split_points_of
from fcbench.features.statistics import stats_of
from fcbench.measure.evaluate import TaskEvaluation
from fcbench.measure.point import send_and_read
from fcbench.measure.points import Job, jobs
from fcbench.measure.rows import make_rows
from fcbench.measure.study import Study
from fcbench.measure.trial import Trial
from fcbench.results.folder import ResultsFolder
from fcbench.results.samples import SampleTable
from fcbench.training.readout import own_samples
from fcbench.transmit.senders import CodecSender

STEPS = 8
"""Training steps to time."""
N_TRAIN, N_TEST = 32, 8
"""Samples to read."""
Variant = tuple[str, str | None]
"""A codec, and the task that it is fitted to or whose output it codes."""


def variant(job: Job) -> Variant:
    """The part of a job's codec that determines its time; the operating point matters less and is left out."""
    labels = job.tasks[0] if job.kind == Kind.LABEL else None
    return job.point.codec, job.fitted_to or labels


@dataclass(slots=True)
class Rates:
    """Seconds and bytes of the parts of a run.

    Attributes:
        encoder: on which they were timed.
        n_test: samples of the whole test set, for intervals.
        image_s: encoding per image, by encoder (including a task model's own).
        feature_bytes: features of one encoder, both splits.
        readout_s, readout_bytes: training of a readout, by task.
        train_s, train_bytes: training of a codec; its files beside checkpoints.
        make_s, make_bytes: a checkpoint of a trained codec; counting its operations.
        code_s: encoding and decoding per sample.
        read_s: evaluation per sample, by task.
        row_s, row_bytes: intervals and rows per point, by task.
        failed: codecs that could not be timed, with the reason.
        load: runnable processes per core, if the system reports them.
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


def probe(study: Study) -> Rates:
    """Time the parts of a suite, on its first encoder. Only the data set is taken from the cache.

    A codec that fails here is named in the result: it would fail in the run too.

    Raises:
        FcbenchError: bad input, as in the run.
    """
    suite, encoder = study.suite, study.encoder(study.suite.encoders[0])
    budget = replace(suite.budget, task_steps=STEPS, codec_steps=STEPS)
    rates = Rates(encoder.name, len(study.data["test"]))
    shown = Console(stderr=True, highlight=False).status(f"timing {encoder.name}: features")
    with shown, tempfile.TemporaryDirectory(prefix="fcbench-probe-") as name:
        watch = Stopwatch(shown)
        folder = Path(name)
        small = study.of(replace(suite, budget=budget), replace(study.cache, root=folder).make())
        source = _few_features(small, encoder, rates)
        trial = Trial(small, source, suite.seeds[0], watch)
        for task in suite.tasks:
            _time_readout(trial, task, watch, rates, suite.budget.task_steps)
            _time_reading(trial, task, rates, folder / "rows" / task)
        for job in _one_each(jobs(suite)):
            try:
                _time_codec(trial, job, watch, rates, suite.budget.codec_steps, folder / "stream.fcb")
            except Exception as error:  # a plug-in may raise anything
                rates.failed[job.point.codec] = str(error).splitlines()[0] if str(error) else type(error).__name__
    if hasattr(os, "getloadavg"):
        rates.load = os.getloadavg()[0] / (os.cpu_count() or 1)
    return rates


def _one_each(every: Sequence[Job]) -> list[Job]:
    """The middle operating point of each variant of each codec; of those trained, the one that starts from scratch."""
    groups: dict[Variant, list[Job]] = {}
    for job in every:
        if job.kind not in ENDS:
            groups.setdefault(variant(job), []).append(job)
    return [sorted(group, key=_lmbda)[len(group) // 2] for group in groups.values()]


def _lmbda(job: Job) -> float:
    return float(job.point.params.get("lmbda", 0.0))


# ---------------------------------------------------------------------------------------------- timed
def _few_features(study: Study, encoder: Encoder, rates: Rates) -> Source:
    """Features of a few samples, timed. Tasks see the whole data set."""
    names, splits = split_points_of(encoder, study.suite.split_point), {}
    for which, n in (("train", N_TRAIN), ("test", N_TEST)):
        data = study.data[which]
        samples = Readable(data, range(min(n, len(data))))
        features = _timed_extract(samples, encoder, names, study.cache, rates, study.suite.features_dtype)
        rates.feature_bytes += features.n_bytes // len(features) * len(data)
        splits[which] = Split(Readable(data, range(len(data))), features)
    train = splits["train"]
    name = study.suite.split_point or encoder.default_split_point
    return Source(encoder, names, name, train, splits["test"], stats_of(train.features))


def _timed_extract(
    samples: Readable,
    encoder: Encoder,
    split_points: Sequence[str],
    cache: Cache,
    rates: Rates,
    dtype: FeaturesDtype = "float32",
) -> FeatureSet:
    began = time.perf_counter()
    features = extract(samples, encoder, split_points, cache, dtype=dtype)
    if not cache.keeps_features:
        stats_of(features)
    took_s = (time.perf_counter() - began) / len(features)
    rates.image_s[encoder.name] = min(took_s, rates.image_s.get(encoder.name, took_s))
    return features


def _time_readout(trial: Trial, task: str, watch: Stopwatch, rates: Rates, steps: int) -> None:
    cache, recipe = trial.study.cache, trial.recipe(task)
    if recipe.tail is not None:
        return
    if recipe.decoder is not None:
        _timed_extract(
            own_samples(recipe),
            recipe.decoder.encoder,
            recipe.decoder.inputs,
            cache,
            rates,
            trial.source.train.features.dtype,
        )
    before = _n_bytes(cache.models)
    trial.readout(task)
    rates.readout_s[task] = watch.step_s * steps
    rates.readout_bytes[task] = _n_bytes(cache.models) - before


def _time_reading(trial: Trial, task: str, rates: Rates, folder: Path) -> None:
    """Time the evaluation of a point: statistics of each sample, intervals over as many samples as in the run."""
    job, reader = Job(Kind.CEILING, ENDS[Kind.CEILING], (task,)), trial.reader(task)
    for _ in range(2):  # the first warms up
        began = time.perf_counter()
        done = send_and_read(trial, job, trial.source, {task: reader}, folder)
        rates.read_s[task] = (time.perf_counter() - began) / len(trial.source.test.features)
    assert done is not None
    costs = trial.complexity.of_readout(reader)
    trial.complexity.columns(costs, None)  # measured once for all points
    evaluation, n_test = done.read.evaluations[task], rates.n_test
    log_likelihood = evaluation.log_likelihood
    stats = np.resize(evaluation.stats, (n_test, evaluation.stats.shape[1]))
    whole = TaskEvaluation(stats, None if log_likelihood is None else np.resize(log_likelihood, n_test))
    done = replace(done, read=replace(done.read, evaluations={task: whole}))
    with ResultsFolder(folder) as rows:
        began = time.perf_counter()
        ids = [f"{task}-{i:012d}" for i in range(n_test)]
        made = make_rows(trial, job, reader, costs, done, task)
        n_bytes = list(np.resize(done.sent.sample_bytes, n_test))
        rows.append(made, SampleTable(ids, n_bytes, stats, whole.log_likelihood))
        rates.row_s[task] = time.perf_counter() - began
    rates.row_bytes[task] = _n_bytes(folder)


def _time_codec(trial: Trial, job: Job, watch: Stopwatch, rates: Rates, steps: int, stream: Path) -> None:
    which, models = variant(job), trial.study.cache.models
    before, began = _n_bytes(models), time.perf_counter()
    sender = trial.sender(job)
    if isinstance(sender, CodecSender):
        ended = time.perf_counter()
        if watch.n_steps:  # a codec of variable rate makes more of them
            rates.train_s[which] = watch.step_s * watch.n_steps / STEPS * steps
            began = watch.ticks_s[-1]
        rates.make_bytes[which] = sender.checkpoint.stat().st_size
        rates.train_bytes[which] = _n_bytes(models) - before - rates.make_bytes[which]
        trial.complexity.of_codec(sender.loaded)
        rates.make_s[which] = ended - began + time.perf_counter() - ended
    with watch.part(f"{trial.source.encoder.name}: {job.point.label}, coding") as advance:
        sender.send(stream, advance)
    ended, n = time.perf_counter(), len(trial.source.test.features)
    there_s = watch.step_s + (ended - watch.ticks_s[-1]) / n
    for _ in sender.receive(stream):
        pass
    rates.code_s[which] = there_s + (time.perf_counter() - ended) / n


def _n_bytes(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.name.endswith(ASIDE))


class Stopwatch(Report):
    """A report that records when each step of its last part ended, and shows no more than that part, in a terminal."""

    def __init__(self, shown: Status) -> None:
        super().__init__(0, Console(quiet=True))
        self.shown, self.ticks_s = shown, list[float]()

    @contextmanager
    def part(self, name: str) -> Iterator[Advance]:
        """Start a part; its start counts as the first tick."""
        self.shown.update(f"timing {escape(printable(name))}")
        self.ticks_s = [time.perf_counter()]
        yield lambda done, total: self.ticks_s.append(time.perf_counter())

    @property
    def n_steps(self) -> int:
        """Number of steps of the last part."""
        return len(self.ticks_s) - 1

    @property
    def step_s(self) -> float:
        """Mean time of a step of the last part without the first, which warms up. A GPU may do most in the last one."""
        steps = np.diff(self.ticks_s[1:] if self.n_steps > 1 else self.ticks_s)
        return float(np.mean(steps))
