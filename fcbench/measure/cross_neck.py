"""Cross-neck analysis: what does adapting features to one task cost the others?

    features -> neck A (frozen) -> neck B -> head B          the chain A > B, every ordered pair
    features -> neck A -> neck B -> neck C -> head C         chains of three
    features -> neck A (frozen) -> neck A' -> head A         control: adapted to the same task again
    features -> one neck as deep as all together -> head B   control: the depth without the adaptation

and under coding, at equal bits: the bottleneck before neck A, or between neck A and neck B.

Every neck is trained as in `fcbench run`, on uncoded features; necks, heads and codecs are shared with it through the
cache. Points are rows of an ordinary results folder: the column ``neck`` names the chain, ``split`` says where it was
coded. `fcbench.analysis.cross_neck` makes matrices from them.

References:
    Khairi Atani et al., "How Universal Are SAM2 Features?", PCS 2025, arXiv 2510.17051.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fcbench.core import registry
from fcbench.core.cache import digest
from fcbench.core.codecs import ENDS, Kind
from fcbench.core.errors import FcbenchError
from fcbench.core.features import FeatureSpec
from fcbench.core.progress import Report
from fcbench.features.source import Source, derive, left_out, mapped
from fcbench.measure.complexity import Cost, Costs
from fcbench.measure.evaluate import Reader
from fcbench.measure.point import attempt, failure_lines, sample_table, send_and_read, wants_null
from fcbench.measure.points import Job, jobs
from fcbench.measure.rows import Measured, failed_row, make_rows, point_key
from fcbench.measure.run import Summary, n_coded
from fcbench.measure.study import Study
from fcbench.measure.suite import Suite
from fcbench.measure.trial import Trial
from fcbench.results.chain import Chain
from fcbench.results.folder import ResultsFolder
from fcbench.results.row import RatePoint
from fcbench.results.samples import SampleTable
from fcbench.training.readout import Readout

VERSION = 2
"""Bump when chains are measured differently; resumed runs then start over."""
MAX_LENGTH = 3


class ChainModel(nn.Module):
    """Frozen necks one after the other, then a readout: the equivalent of `Readout` for a chain.

    Args:
        necks: readouts whose necks come first, with the names of their outputs as split points.
        last: the readout that reads the output of the last of them.
    """

    def __init__(self, necks: Sequence[tuple[Readout, str]], last: Readout) -> None:
        super().__init__()
        self.necks, self.last = necks, last

    @property
    def head(self) -> nn.Module:
        """The last readout's head."""
        return self.last.head

    def forward(self, maps: Mapping[str, Tensor]) -> Any:
        """Input of the head for maps [B, C, h, w] of the encoder."""
        for readout, name in self.necks:
            maps = {name: readout.neck_output(maps)}
        return self.last(maps)


@dataclass(frozen=True, slots=True)
class ChainEnd:
    """The last neck and head of a chain: a task's readout of the preceding necks' output."""

    readout: Readout
    reader: Reader
    costs: Costs


def measure(study: Study, out: Path, *, length: int = 2, coded: bool = False, deep: bool = True) -> Summary:
    """Measure every chain of a suite's tasks that its results folder lacks.

    Args:
        length: number of necks in the longest chains, 2 or 3.
        coded: measure the suite's codecs too, before the first neck and between the two of a pair.
        deep: measure direct necks as deep as the chains too.

    Raises:
        FcbenchError: bad input, or a folder that cannot be used. A chain that fails becomes a row with its reason.
    """
    suite = study.suite
    if suite.head == "tail":
        raise FcbenchError("cross-neck analysis needs necks, and a tail has none: use --head trained or frozen")
    check(suite, length, coded)
    n_measured, n_found, failures = 0, 0, list[str]()
    with ResultsFolder(out) as folder, Report(n_stages(suite, length, coded, deep)) as report:
        folder.add_provenance(suite.as_json() | {"cross_neck": {"length": length, "coded": coded}})
        for name in suite.encoders:
            source = study.source(study.encoder(name), report)
            for which, split in (("train", source.train), ("test", source.test)):
                for line in left_out(which, split.features):
                    report.say(line)
            for seed in suite.seeds:
                chains_of = Chains(Trial(study, source, seed, report), folder)
                for point, requested in passes(suite, length, coded, deep):
                    pending = [c for c in requested if not folder.done(chains_of.key(point, c))]
                    n_found += len(requested) - len(pending)
                    report.skip(len(requested) - len(pending))
                    if pending:
                        n_done, failed = chains_of.measure(point, pending)
                        n_measured, failures = n_measured + n_done, failures + failed
        return Summary(n_measured, n_found, n_coded(folder), tuple(failures))


def passes(suite: Suite, length: int, coded: bool, deep: bool = True) -> Iterator[tuple[Job, list[Chain]]]:
    """Operating points with the chains that are measured at each; all are coded at the same position."""
    uncoded = Job(Kind.CEILING, ENDS[Kind.CEILING], suite.tasks)
    for _, group in itertools.groupby(chains(suite.tasks, suite.neck, length), key=lambda c: (c.neck, c.before)):
        if (same_necks := list(group))[0].neck == suite.neck or deep:
            yield uncoded, same_necks
    if not coded:
        return
    before = [c for c in chains(suite.tasks, suite.neck, 2) if c.neck == suite.neck]
    points = [job for job in jobs(suite) if job.kind == Kind.CODED]
    for job in points:
        yield job, before
    for task in suite.tasks:
        pairs = [replace(c, coded_after=1) for c in before if c.before == (task,)]
        for job in points:
            yield job, pairs


def check(suite: Suite, length: int, coded: bool) -> None:
    """Raise `FcbenchError` for anything that cannot be measured, before any work is done."""
    suite.check()
    if not 2 <= length <= MAX_LENGTH:
        raise FcbenchError(f"chains must have 2 to {MAX_LENGTH} necks, got {length}")
    if len(suite.tasks) < 2:
        raise FcbenchError(f"cross-neck analysis needs at least two tasks, got 1: {', '.join(suite.tasks)}")
    others = [c for c in suite.codecs if c not in registry.names("codec")]
    if coded and others:
        raise FcbenchError(
            f"{others[0]} does not code features: only codecs of `fcbench list codecs` can code between necks"
        )
    if coded and suite.objective != "mse":
        raise FcbenchError(
            f"objective {suite.objective} fits a codec to one direct neck; cross-neck analysis needs mse"
        )


def chains(tasks: Sequence[str], neck: str, length: int) -> Iterator[Chain]:
    """Every chain of at most `length` necks: direct necks, deeper ones, pairs (a task with itself too), triples."""
    for n in range(length):
        for before in itertools.permutations(tasks, n):
            for task in tasks:
                if n < 2 or task not in before:
                    yield Chain(neck, before, task)
    for n in range(2, min(length, max(2, len(tasks))) + 1):
        deep = neck_of_depth(neck, n)
        if deep is not None:
            yield from (Chain(deep, (), task) for task in tasks)


def n_stages(suite: Suite, length: int, coded: bool, deep: bool = True) -> int:
    """Number of points of a run that starts from nothing."""
    requested = sum(len(chains) for _, chains in passes(suite, length, coded, deep))
    return len(suite.encoders) * len(suite.seeds) * requested


def neck_of_depth(neck: str, times: int) -> str | None:
    """The neck with n times the layers of another; None if there is none."""
    layers = registry.get("neck", neck).n_layers
    for name in registry.names("neck"):
        if layers is not None and registry.get("neck", name).n_layers == times * layers:
            return name + neck.removeprefix(registry.plain(neck))
    return None


def key_of_chain(base: str, chain: Chain) -> str:
    """Resumption key of a chain's point, given that of the task's point behind the suite's neck."""
    contents = {
        "version": VERSION,
        "base": base,
        "neck": chain.neck,
        "before": chain.before,
        "coded_after": chain.coded_after,
    }
    return digest(contents)


class Chains:
    """The chains of one trial: necks and heads, each trained or loaded once."""

    def __init__(self, trial: Trial, folder: ResultsFolder) -> None:
        self.trial, self.folder = trial, folder
        self._trials: dict[tuple[str, ...], Trial] = {(): trial}
        self._ends: dict[Chain, ChainEnd] = {}

    def key(self, job: Job, chain: Chain) -> str:
        """Resumption key of a chain's point."""
        return key_of_chain(point_key(self.trial, job, chain.task), chain)

    def measure(self, job: Job, requested: Sequence[Chain]) -> tuple[int, list[str]]:
        """Measure chains at one operating point, all coded at the same position.

        Returns the number of those measured, and what failed.
        """
        where, began = f"{self.trial.source.encoder.name}: {job.point.label}", time.monotonic()
        names, failed = {c.name: c for c in requested}, dict[str, str]()
        readers = {name: attempt(lambda: self.reader(c), [name], failed) for name, c in names.items()}
        ready = {name: reader for name, reader in readers.items() if reader}
        with tempfile.TemporaryDirectory(prefix=".streams-", dir=self.folder.path) as temporary:
            stream = Path(temporary) / "stream.fcb"
            done = attempt(lambda: self._send_and_read(job, requested[0], ready, stream), list(ready), failed)
        if done:
            for name in ready:
                found = attempt(lambda: self._rows_and_samples(job, names[name], done), [name], failed)
                if found:
                    self.folder.append(*found)
        for name, reason in failed.items():
            row = failed_row(self.trial, job, names[name].task, reason)
            self.folder.append([self._named(row, job, names[name])], None)
        lines = failure_lines(where, list(names), failed)
        for line in lines:
            self.trial.report.say(f"FAILED {line}")
        took_s = (time.monotonic() - began) / len(names)
        for name in names:
            self.trial.report.finish("" if name in failed else f"{where}: {name}", took_s)
        return len(names) - len(failed), lines

    def reader(self, chain: Chain) -> Reader:
        """The reader of the features that are coded in a chain."""
        ends = [self._end(chain.up_to(i)) for i in range(len(chain.before) + 1)]
        necks = [(end.readout, neck_name(task)) for end, task in zip(ends, chain.before)]
        return replace(ends[-1].reader, model=ChainModel(necks[chain.coded_after :], ends[-1].readout))

    # ---------------------------------------------------------------------------------------- one point
    def _send_and_read(self, job: Job, first: Chain, readers: Mapping[str, Reader], stream: Path) -> Measured | None:
        at = self._at(first)
        return send_and_read(at, job, at.source, readers, stream)

    def _rows_and_samples(self, job: Job, chain: Chain, done: Measured) -> tuple[list[RatePoint], SampleTable]:
        at, reader, evaluation = self._at(chain), self._end(chain).reader, done.read.evaluations[chain.name]
        rows = make_rows(at, job, reader, self._costs(chain), done, chain.name)
        direct = chain == Chain(self.trial.study.suite.neck, (), chain.task)
        null = self.trial.null_likelihood(chain.task) if direct and wants_null(self.trial, job, evaluation) else None
        return [self._named(row, job, chain) for row in rows], sample_table(at, done, chain.name, null)

    def _named(self, row: RatePoint, job: Job, chain: Chain) -> RatePoint:
        split_point = self.trial.source.split_point
        if chain.coded_after:
            split_point = neck_name(chain.before[chain.coded_after - 1])
        return replace(row, point=self.key(job, chain), neck=chain.label, split=split_point)

    def _costs(self, chain: Chain) -> Costs:
        """Costs of all necks of a chain, and of its head."""
        necks = [self._end(chain.up_to(i)).costs["neck"] for i in range(len(chain.before) + 1)]
        n_macs, weights = sum(n.n_macs for n in necks), sum(n.n_weights for n in necks)
        neck = Cost(n_macs, weights, sum(n.ms or 0.0 for n in necks))
        return {"neck": neck, "head": self._end(chain).costs["head"]}

    # -------------------------------------------------------------------------------- trials and readouts
    def _at(self, chain: Chain) -> Trial:
        """The trial whose features are coded."""
        return self._after(chain.before[: chain.coded_after]) if chain.coded_after else self.trial

    def _after(self, before: tuple[str, ...]) -> Trial:
        """The trial on the output of necks; those of other chains are dropped from memory."""
        for kept in list(self._trials):
            if kept != before[: len(kept)]:
                del self._trials[kept]
        if before not in self._trials:
            last = self._after(before[:-1])
            source = neck_source(last, before[-1])
            self._trials[before] = Trial(last.study, source, last.seed, last.report)
        return self._trials[before]

    def _end(self, chain: Chain) -> ChainEnd:
        """The last neck and head of a chain; cached."""
        key = replace(chain, coded_after=0)
        if key not in self._ends:
            trial = self._after(chain.before) if chain.before else self.trial
            if chain.neck != trial.neck:
                trial = Trial(trial.study, trial.source, trial.seed, trial.report, chain.neck)
            reader = trial.reader(chain.task)
            self._ends[key] = ChainEnd(trial.trained(chain.task), reader, trial.complexity.of_readout(reader))
        return self._ends[key]


def neck_name(task: str) -> str:
    """Name of a task's neck as a split point: ``neck:depth``."""
    return f"neck:{task}"


def neck_source(trial: Trial, task: str) -> Source:
    """The samples of a trial as output by the frozen neck of a task."""
    source, readout, name = trial.source, trial.trained(task), neck_name(task)
    finest, _ = source.train.features.finest
    spec = FeatureSpec(name, trial.study.suite.budget.width, finest.stride_px)
    key = f"neck-{trial.recipe(task).key}"
    return derive(source, name, key, spec, lambda f: mapped(f, lambda maps: readout.neck_output(maps)))
