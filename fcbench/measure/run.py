"""`measure`: from a suite to rows.

data -> encoder -> features on disk -> codec -> .fcb file -> decoder -> neck and head -> statistics -> row
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from fcbench.core.cache import digest
from fcbench.core.errors import DiskFull
from fcbench.core.features import Encoder
from fcbench.core.files import is_disk_full, write_atomically
from fcbench.core.kinds import Kind
from fcbench.core.progress import Report
from fcbench.core.python_files import reason_of
from fcbench.features.source import Source
from fcbench.measure.evaluate import Evaluation, Found, Reader, evaluate
from fcbench.measure.points import Job, jobs
from fcbench.measure.rows import failed_row, key_of, make_rows, point_key
from fcbench.measure.study import Study
from fcbench.measure.suite import Suite
from fcbench.measure.trial import Trial
from fcbench.results.folder import ResultsFolder
from fcbench.results.row import OK, RatePoint
from fcbench.results.samples import SampleTable
from fcbench.transmit.senders import CodecSender, Sender, Sent

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Summary:
    """Outcome of a run.

    Attributes:
        n_measured: points measured now.
        n_found: points that the results folder held already.
        n_coded: coded points in the folder.
        failures: one line per failure.
    """

    n_measured: int
    n_found: int
    n_coded: int
    failures: tuple[str, ...]


def measure(study: Study, out: Path, *, keep_streams: bool = False) -> Summary:
    """Measure every point of a suite that its results folder lacks.

    Raises:
        FcbenchError: bad input, a folder that cannot be used, or a full disk. Any other failure of a point is a row
            with its reason.
    """
    suite = study.suite
    suite.check()
    failures: list[str] = []
    n_measured = n_found = 0
    points = jobs(suite)
    with ResultsFolder(out) as folder, Report(_n_stages(suite)) as report:
        folder.add_provenance(suite.as_json())
        for name in suite.encoders:
            encoder, source = study.encoder(name), None
            for seed in suite.seeds:
                pending = [(job, missing_tasks(study, folder, encoder, seed, job)) for job in points]
                n_left = sum(len(tasks) for _, tasks in pending)
                n_found += sum(len(job.tasks) for job in points) - n_left
                report.skip(sum(not tasks for _, tasks in pending))
                if not n_left:
                    continue
                source = source or study.source(encoder, report)
                trial = Trial(study, source, seed, report)
                for job, tasks in pending:
                    if tasks:
                        failed = measure_point(trial, job, tasks, folder, keep_streams)
                        failures += failed
                        n_measured += 0 if failed else len(tasks)
        return Summary(n_measured, n_found, n_coded(folder), tuple(failures))


def n_coded(folder: ResultsFolder) -> int:
    """Coded points of a results folder."""
    return len({row.point for row in folder.points if row.kind == Kind.CODED and row.status == OK})


def missing_tasks(study: Study, folder: ResultsFolder, encoder: Encoder, seed: int, job: Job) -> list[str]:
    """Tasks of a point that the results folder lacks."""
    return [t for t in job.tasks if not folder.done(key_of(study, encoder, seed, job, t))]


def _n_stages(suite: Suite) -> int:
    """Stages that a run from nothing reports: features, readouts, codecs, points."""
    readouts = len(suite.tasks) * (1 if suite.head == "trained" else 2)
    each = 2 + readouts * (2 if suite.null_model else 1) + len(jobs(suite))
    return len(suite.encoders) * len(suite.seeds) * each


# ------------------------------------------------------------------------------------------ one point
@dataclass(frozen=True, slots=True)
class Measured:
    """A point as it was sent and read."""

    sender: Sender
    sent: Sent
    read: Evaluation


def measure_point(
    trial: Trial, job: Job, tasks: Sequence[str], folder: ResultsFolder, keep_streams: bool = False
) -> list[str]:
    """Measure a point for some tasks and append the rows. Returns what failed, a line per reason.

    A task that fails takes no other with it.
    """
    where, began = f"{trial.source.encoder.name}: {job.point.label}", time.monotonic()
    failed: dict[str, str] = {}
    readers = make_readers(trial, tasks, failed)
    with tempfile.TemporaryDirectory(prefix=".streams-", dir=folder.path) as temporary:
        stream = Path(temporary) / f"{digest({'job': point_key(trial, job, tasks[0])})}.fcb"
        done = attempt(lambda: send_and_read(trial, job, trial.source, readers, stream), list(readers), failed)
        if done and keep_streams and stream.exists():
            _keep(stream, done.sender, folder.path / "streams")
    said = []
    if done:
        for task in readers:
            found = attempt(lambda: _rows_and_samples(trial, job, task, done), [task], failed)
            if found:
                rows, samples = found
                folder.append(rows, samples)
                said.append((rows[0].bpp, f"{rows[0].metric} {rows[0].value:.3f}"))
    for task, reason in failed.items():
        folder.append([failed_row(trial, job, task, reason)], None)
    lines = failure_lines(where, tasks, failed)
    for line in lines:
        trial.report.say(f"FAILED {line}")
    if said:
        took_s = time.monotonic() - began
        trial.report.finish(f"{where}: {said[0][0]:.4g} bpp, {', '.join(text for _, text in said)}", took_s)
    return lines


def make_readers(trial: Trial, tasks: Sequence[str], failed: dict[str, str]) -> dict[str, Reader]:
    """The readers of tasks; the reason of each that cannot be made goes to `failed`."""
    readers = {task: attempt(lambda: trial.reader(task), [task], failed) for task in tasks}
    return {task: reader for task, reader in readers.items() if reader}


def send_and_read(
    trial: Trial, job: Job, source: Source, readers: Mapping[str, Reader], stream: Path
) -> Measured | None:
    """Send the test set of a source through a file and read what comes out; None without readers."""
    if not readers:
        return None
    where, report = f"{source.encoder.name}: {job.point.label}", trial.report
    sender = trial.sender(job)
    with report.part(f"{where}, coding") as advance:
        sent = sender.send(stream, advance)
    with report.part(f"{where}, measuring"):
        return Measured(sender, sent, evaluate(sender.receive(stream), source, readers))


def attempt(call: Callable[[], T], tasks: Sequence[str], failed: dict[str, str]) -> T | None:
    """Result of a call. Whatever it raises becomes the reason why tasks failed: a plug-in may raise anything.

    Raises:
        DiskFull: there is no room; every other point would fail, too, some after hours of training.
    """
    try:
        return call()
    except DiskFull:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise DiskFull(f"disk full: {reason_of(error)}") from error
        log.debug("failed point", exc_info=error)
        failed |= dict.fromkeys(tasks, reason_of(error))
        return None


def failure_lines(where: str, tasks: Sequence[str], failed: Mapping[str, str]) -> list[str]:
    """One line per reason; it names the tasks where others of the point were measured."""
    lines = []
    for reason in dict.fromkeys(failed.values()):
        own = [t for t in tasks if failed.get(t) == reason]
        lines.append(f"{where}: {reason}" if len(own) == len(tasks) else f"{where}, {', '.join(own)}: {reason}")
    return lines


def _rows_and_samples(trial: Trial, job: Job, task: str, done: Measured) -> tuple[list[RatePoint], SampleTable]:
    found = done.read.found[task]
    null = trial.null_likelihood(task) if wants_null(trial, job, found) else None
    reader = trial.reader(task)
    counts = trial.complexity.of_readout(reader)
    rows = make_rows(trial, job, reader, counts, done.sender, done.sent, done.read, task)
    return rows, sample_table(trial, done.sent, found, null)


def sample_table(trial: Trial, sent: Sent, found: Found, null: np.ndarray | None) -> SampleTable:
    """What is kept of each sample of a point."""
    return SampleTable(trial.source.test.features.ids, sent.sample_bytes, found.stats, found.log_likelihood, null)


def wants_null(trial: Trial, job: Job, found: Found) -> bool:
    """Whether a point keeps the null model's likelihoods: the uncoded ceiling, where the run asks for them."""
    return found.log_likelihood is not None and job.kind == Kind.CEILING and trial.study.suite.null_model


def _keep(stream: Path, sender: Sender, folder: Path) -> None:
    """Move a file to where it stays, its codec's checkpoint beside it."""
    folder.mkdir(exist_ok=True)
    if isinstance(sender, CodecSender):
        beside = folder / stream.with_suffix(sender.checkpoint.suffix).name
        write_atomically(beside, sender.checkpoint.read_bytes())
    stream.replace(folder / stream.name)
