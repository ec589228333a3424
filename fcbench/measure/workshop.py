"""Execution of a graph's nodes in one process."""

from __future__ import annotations

import tempfile
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from fcbench.core import registry
from fcbench.core.cache import digest
from fcbench.core.errors import FcbenchError
from fcbench.core.progress import Report
from fcbench.features.source import left_out
from fcbench.measure.graph import Makes, Node
from fcbench.measure.point import attempt, failure_lines, make_readers, rows_and_samples, send_and_read
from fcbench.measure.rows import Measured, failed_row, point_key
from fcbench.measure.study import Study, device_of, open_study
from fcbench.measure.suite import Suite
from fcbench.measure.trial import Trial
from fcbench.results.row import RatePoint
from fcbench.results.samples import SampleTable
from fcbench.transmit.coders import Coders
from fcbench.transmit.senders import CodecSender

N_TRIALS = 4
"""Maximum number of trials in memory, each with its readouts and the features of its source."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of a node; plain values, so that it can pass between processes.

    Attributes:
        line: message about it.
        reason: why nothing was made; empty on success. For a point, each task has its own in its rows.
        rows: of each task of a point, with its samples; a failed one has none.
        failures: of a point, one line per reason.
        files: of a point, to be stored by name.
        notes: further messages.
    """

    took_s: float
    line: str = ""
    reason: str = ""
    rows: tuple[tuple[list[RatePoint], SampleTable | None], ...] = ()
    failures: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Setup:
    """Everything a process needs to open a workshop.

    Attributes:
        device: see `device_of`.
        threads: of PyTorch; None for its default.
        scratch: folder for temporary files; None for the system's.
        keep_streams: return the coded files.
        coding_workers: processes that code samples.
        plugins: kind and path of plug-in files.
    """

    suite: Suite
    cache_dir: Path
    device: str
    threads: int | None = None
    scratch: Path | None = None
    keep_streams: bool = False
    coding_workers: int = 1
    plugins: tuple[tuple[str, Path], ...] = ()

    def open(self, report: Report) -> Workshop:
        """A workshop in this process.

        Raises:
            FcbenchError: bad input, or a cache or device that cannot be used.
        """
        if self.threads:
            torch.set_num_threads(self.threads)
        for kind, path in self.plugins:
            registry.use(kind, str(path))
        study = open_study(self.suite, self.cache_dir, device_of(self.device))
        study.coders = Coders(self.coding_workers)
        return Workshop(study, report, self.scratch, self.keep_streams)


class Workshop:
    """A study at work in a process: trials, and sources that they share, are opened on first use."""

    def __init__(self, study: Study, report: Report, scratch: Path | None, keep_streams: bool = False) -> None:
        self.study, self.report, self.scratch, self.keep_streams = study, report, scratch, keep_streams
        self._trials: OrderedDict[tuple[str, int], Trial] = OrderedDict()

    def do(self, node: Node, reasons: Mapping[str, str]) -> Outcome:
        """Make the product of a node.

        Args:
            reasons: failures of nodes that it needs, by key.

        Raises:
            FcbenchError: no features, which everything else needs, or a full disk. Other failures are outcomes.
        """
        began = time.monotonic()
        self.report.working(node.key)
        if node.makes == Makes.POINT:
            return self._measure(node, reasons, began)
        if node.makes == Makes.FEATURES:
            features = self.study.features(node.split, self.study.encoder(node.encoder), self.report)
            return Outcome(time.monotonic() - began, node.label, notes=tuple(left_out(node.split, features)))
        failed: dict[str, str] = {}
        attempt(lambda: self._make(node), [node.key], failed)
        return Outcome(time.monotonic() - began, node.label, failed.get(node.key, ""))

    def refuse(self, node: Node, reason: str) -> Outcome:
        """The outcome of a node that cannot be executed.

        Raises:
            FcbenchError: it makes features.
        """
        if node.makes == Makes.FEATURES:
            raise FcbenchError(f"{node.label}: {reason}")
        if node.makes != Makes.POINT:
            return Outcome(0.0, node.label, reason)
        return self._measured(node, dict.fromkeys(node.tasks, reason), None, {}, time.monotonic())

    def _make(self, node: Node) -> None:
        trial = self._trial(node)
        if node.makes == Makes.READOUT:
            trial.reader(node.task)
        elif node.makes == Makes.NULL_MODEL:
            trial.null_reader(node.task)
        elif node.makes == Makes.SWEEP:
            trial.sweep(node.of_job)
        else:
            trial.codec(node.of_job)

    def _measure(self, node: Node, reasons: Mapping[str, str], began: float) -> Outcome:
        """Measure a point. A task that fails does not affect the others."""
        trial, job = self._trial(node), node.of_job
        failed = {task: reason for key, reason in reasons.items() for task in node.needs[key]}
        files: dict[str, bytes] = {}
        readers = make_readers(trial, [t for t in node.tasks if t not in failed], failed)
        with tempfile.TemporaryDirectory(prefix=".streams-", dir=self.scratch) as temporary:
            stream = Path(temporary) / f"{digest({'job': point_key(trial, job, node.tasks[0])})}.fcb"
            done = attempt(lambda: send_and_read(trial, job, trial.source, readers, stream), list(readers), failed)
            if done and self.keep_streams and stream.exists():
                files[stream.name] = stream.read_bytes()
                if isinstance(done.sender, CodecSender):
                    beside = stream.with_suffix(done.sender.checkpoint.suffix)
                    files[beside.name] = done.sender.checkpoint.read_bytes()
        return self._measured(node, failed, done, files, began)

    def _measured(
        self, node: Node, failed: dict[str, str], done: Measured | None, files: Mapping[str, bytes], began: float
    ) -> Outcome:
        """The rows of a point."""
        trial, job, said = self._trial(node), node.of_job, []
        rows: list[tuple[list[RatePoint], SampleTable | None]] = []
        for task in [t for t in node.tasks if t not in failed]:
            assert done is not None
            rows_of_task = attempt(partial(rows_and_samples, trial, job, task, done), [task], failed)
            if rows_of_task:
                rows.append(rows_of_task)
                first = rows_of_task[0][0]
                said.append((first.bpp, f"{first.metric} {first.value:.3f}"))
        rows += [([failed_row(trial, job, task, reason)], None) for task, reason in failed.items()]
        line = f"{node.label}: {said[0][0]:.4g} bpp, {', '.join(text for _, text in said)}" if said else ""
        failures = failure_lines(node.label, node.tasks, failed)
        return Outcome(time.monotonic() - began, line, "", tuple(rows), tuple(failures), files)

    def _trial(self, node: Node) -> Trial:
        """The trial of a node; the least recently used one is dropped from memory."""
        key = node.encoder, node.seed
        if key not in self._trials:
            shared = [t.source for (encoder, _), t in self._trials.items() if encoder == node.encoder]
            source = shared[0] if shared else self.study.source(self.study.encoder(node.encoder), self.report)
            self._trials[key] = Trial(self.study, source, node.seed, self.report)
        self._trials.move_to_end(key)
        while len(self._trials) > N_TRIALS:
            self._trials.popitem(last=False)
        return self._trials[key]
