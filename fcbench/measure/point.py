"""One operating point of a trial: sent through a file, read by every task, turned into rows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from fcbench.core import processes
from fcbench.core.codecs import Kind
from fcbench.core.errors import DiskFull
from fcbench.core.files import is_disk_full
from fcbench.core.python_files import reason_of
from fcbench.features.source import Source
from fcbench.measure.evaluate import Reader, TaskEvaluation, evaluate
from fcbench.measure.points import Job
from fcbench.measure.rows import Measured, make_rows
from fcbench.measure.trial import Trial
from fcbench.results.row import RatePoint
from fcbench.results.samples import SampleTable

T = TypeVar("T")
log = logging.getLogger(__name__)


def make_readers(trial: Trial, tasks: Sequence[str], failed: dict[str, str]) -> dict[str, Reader]:
    """The readers of tasks; the reason for each that cannot be made goes to `failed`."""
    readers = {task: attempt(lambda: trial.reader(task), [task], failed) for task in tasks}
    return {task: reader for task, reader in readers.items() if reader}


def send_and_read(
    trial: Trial, job: Job, source: Source, readers: Mapping[str, Reader], stream: Path
) -> Measured | None:
    """Send the test set of a source through a file and read the result; None without readers."""
    if not readers:
        return None
    where, report = f"{source.encoder.name}: {job.point.label}", trial.report
    sender = trial.sender(job)
    with report.part(f"{where}, coding") as advance:
        sent = sender.send(stream, advance)
    with report.part(f"{where}, measuring"):
        read = evaluate(sender.receive(stream), source, readers)
        with torch.inference_mode():
            code = sender.code_one()
            return Measured(sender, sent, read, processes.peak_bytes(code) if code else None)


def attempt(call: Callable[[], T], tasks: Sequence[str], failed: dict[str, str]) -> T | None:
    """Result of a call. Any exception becomes the reason why tasks failed: a plug-in may raise anything.

    Raises:
        DiskFull: the disk is full; every other point would fail too, some after hours of training.
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
    """One line per reason; it names the tasks if others of the point were measured."""
    lines = []
    for reason in dict.fromkeys(failed.values()):
        alike = [t for t in tasks if failed.get(t) == reason]
        lines.append(f"{where}: {reason}" if len(alike) == len(tasks) else f"{where}, {', '.join(alike)}: {reason}")
    return lines


def rows_and_samples(trial: Trial, job: Job, task: str, done: Measured) -> tuple[list[RatePoint], SampleTable]:
    evaluation = done.read.evaluations[task]
    null = trial.null_likelihood(task) if wants_null(trial, job, evaluation) else None
    reader = trial.reader(task)
    rows = make_rows(trial, job, reader, trial.complexity.of_readout(reader), done, task)
    return rows, sample_table(trial, done, task, null)


def sample_table(trial: Trial, done: Measured, task: str, null: np.ndarray | None) -> SampleTable:
    """Table of a point's samples, to be stored."""
    evaluation, errors = done.read.evaluations[task], done.read.feature_errors
    return SampleTable(
        trial.source.test.features.ids,
        done.sent.sample_bytes,
        evaluation.stats,
        evaluation.log_likelihood,
        null,
        errors if errors.any() else None,
    )


def wants_null(trial: Trial, job: Job, evaluation: TaskEvaluation) -> bool:
    """Whether a point stores the null model's likelihoods: the uncoded ceiling, if the run asks for them.

    A tail is not trained, so it has no counterpart trained on a constant.
    """
    if trial.study.suite.head == "tail":
        return False
    return evaluation.log_likelihood is not None and job.kind == Kind.CEILING and trial.study.suite.null_model
