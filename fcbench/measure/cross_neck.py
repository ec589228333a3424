"""Cross-neck analysis: what did adapting features to a task throw away of the others?

    features -> neck A (frozen) -> neck B -> head B          the chain A > B, every ordered pair
    features -> neck A -> neck B -> neck C -> head C         chains of three
    features -> neck A (frozen) -> neck A' -> head A         control: adapted to the same task again
    features -> one neck as deep as all together -> head B   control: the depth without the adaptation

and under coding, at equal bits: the bottleneck before neck A, or between neck A and neck B.

Every neck is trained as `fcbench run` trains it, on uncoded features; necks, heads and codecs are kept in the cache and
shared with it. Points are rows of an ordinary results folder, whose column ``neck`` names the chain and whose ``split``
where it was coded; `fcbench.analysis.cross_neck` makes the matrices of it.

References:
    Khairi Atani et al., "How Universal Are SAM2 Features?", PCS 2025, arXiv 2510.17051.
"""

from __future__ import annotations

import itertools
import json
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fcbench.core import registry
from fcbench.core.cache import digest
from fcbench.core.errors import FcbenchError
from fcbench.core.kinds import CEILING, CODED, ENDS
from fcbench.core.progress import Report
from fcbench.core.registry import build_encoder
from fcbench.measure import complexity, evaluate, rows
from fcbench.measure.bench import Bench
from fcbench.measure.coding import Coding, code
from fcbench.measure.derived import neck_bench, neck_name
from fcbench.measure.points import Job, jobs
from fcbench.measure.run import Summary
from fcbench.measure.study import open_data
from fcbench.measure.suite import Suite
from fcbench.results.chain import Chain
from fcbench.results.folder import ResultsFolder
from fcbench.results.row import OK, RatePoint
from fcbench.results.samples import SampleTable
from fcbench.training.readout import Readout, Standardize

VERSION = 1
"""Of how a chain is measured: raise it when that changes, and a resumed run measures anew."""
MAX_LENGTH = 3
log = logging.getLogger(__name__)


class ChainModel(nn.Module):
    """Frozen necks one after the other, then a readout: what `Readout` is to a direct chain.

    Args:
        necks: readouts whose necks come first, and the names of the split points that they give.
        last: the readout that reads the last of them.
    """

    def __init__(self, necks: Sequence[tuple[Readout, str]], last: Readout) -> None:
        super().__init__()
        self.necks, self.last = necks, last

    @property
    def head(self) -> nn.Module:
        """The last readout's head."""
        return self.last.head

    def forward(self, maps: Mapping[str, Tensor]) -> Any:
        """What the head reads of maps [B, C, h, w] of the encoder."""
        for readout, name in self.necks:
            maps = {name: readout.neck(Standardize.forward(readout, maps))}
        return self.last(maps)


@dataclass(frozen=True, slots=True)
class Link:
    """The end of a chain, trained: a task's readout on what comes before, its density, and what its neck takes."""

    readout: Readout
    reader: evaluate.Reader
    neck_macs: int
    neck_params: int


def measure(
    suite: Suite, out: Path, cache_dir: Path, device: torch.device, *, length: int = 2, coded: bool = False
) -> Summary:
    """Measure every chain of a suite's tasks that its results folder lacks.

    Args:
        length: of the longest chains, 2 or 3 necks.
        coded: measure the suite's codecs too, before the first neck and between the two of a pair.

    Raises:
        FcbenchError: bad input, or a folder that cannot be used. A chain that fails is a row with its reason.
    """
    check(suite, length, coded)
    failures: list[str] = []
    counts = [0, 0]
    with ResultsFolder(out) as folder, Report(n_stages(suite, length, coded)) as report:
        folder.add_provenance(suite.described() | {"cross_neck": {"length": length, "coded": coded}})
        data = open_data(suite, cache_dir)
        for name in suite.encoders:
            encoder = build_encoder(name, suite.weights, device)
            for seed in suite.seeds:
                bench = Bench(suite, data, encoder, seed, cache_dir, device, report)
                lab = Lab(bench, folder, counts, failures)
                lab.uncoded(length)
                if coded:
                    lab.coded()
    n_coded = len({r.point for r in folder.points if r.kind == CODED and r.status == OK})
    return Summary(counts[0], counts[1], n_coded, tuple(failures))


def check(suite: Suite, length: int, coded: bool) -> None:
    """Raises `FcbenchError` for what cannot be measured, before any work is done."""
    suite.check()
    if not 2 <= length <= MAX_LENGTH:
        raise FcbenchError(f"chains of {length} necks were asked for; allowed are 2 to {MAX_LENGTH}")
    if len(suite.tasks) < 2:
        raise FcbenchError(f"cross-neck analysis needs at least two tasks; {', '.join(suite.tasks)} came")
    others = [c for c in suite.codecs if c not in registry.names("codec")]
    if coded and others:
        raise FcbenchError(
            f"{others[0]} codes no features: between necks only codecs of `fcbench list codecs` can stand"
        )
    if coded and suite.objective != "mse":
        raise FcbenchError(
            f"objective {suite.objective} fits a codec to one direct neck; cross-neck analysis takes mse"
        )


def chains(tasks: Sequence[str], neck: str, length: int) -> Iterator[Chain]:
    """Every chain of at most so many necks: direct ones, as deep ones, pairs (a task with itself too), threes."""
    for n in range(length):
        for above in itertools.permutations(tasks, n):
            for task in tasks:
                if n < 2 or task not in above:
                    yield Chain(neck, above, task)
    for n in range(2, min(length, max(2, len(tasks))) + 1):
        deep = as_deep(neck, n)
        if deep is not None:
            yield from (Chain(deep, (), task) for task in tasks)


def n_stages(suite: Suite, length: int, coded: bool) -> int:
    """Stages that a run from nothing reports: features, null models, readouts, points."""
    every = list(chains(suite.tasks, suite.neck, length))
    each = 2 + len(suite.tasks) + 2 * len(every)
    if coded:
        n_pairs = len(suite.tasks) ** 2
        n_points = sum(j.kind == CODED for j in jobs(suite))
        each += n_points * (len(suite.tasks) + 2 * n_pairs) + n_pairs
    return len(suite.encoders) * len(suite.seeds) * each


def as_deep(neck: str, times: int) -> str | None:
    """The neck with as many layers as several of another; None where there is none."""
    layers = registry.get("neck", neck).n_layers
    for name in registry.names("neck"):
        if layers is not None and registry.get("neck", name).n_layers == times * layers:
            return name
    return None


class Lab:
    """The chains of one encoder and seed.

    Args:
        counts: points measured and points found done; counted on.
        failures: what failed, a line each; appended to.
    """

    def __init__(self, bench: Bench, folder: ResultsFolder, counts: list[int], failures: list[str]) -> None:
        self.bench, self.folder, self._counts, self._failures = (bench, folder, counts, failures)
        self._benches: dict[tuple[str, ...], Bench] = {}
        self._links: dict[Chain, Link] = {}

    def uncoded(self, length: int) -> None:
        """Every chain on uncoded features."""
        suite, job = self.bench.suite, Job(CEILING, ENDS[CEILING], self.bench.suite.tasks)
        every = list(chains(suite.tasks, suite.neck, length))
        for _, group in itertools.groupby(every, key=lambda c: (c.neck, c.above)):
            self._measure(self.bench, job, list(group))

    def coded(self) -> None:
        """Pairs and direct chains behind every operating point: coded before the first neck, and between the two."""
        suite = self.bench.suite
        every = list(chains(suite.tasks, suite.neck, 2))
        before = [c for c in every if c.neck == suite.neck]
        points = [j for j in jobs(suite) if j.kind == CODED]
        for job in points:
            self._measure(self.bench, job, before)
        for task in suite.tasks:
            pairs = [replace(c, coded_after=1) for c in before if c.above == (task,)]
            for job in points:
                self._measure(None, job, pairs)

    # ------------------------------------------------------------------------------------ one pass
    def _measure(self, at: Bench | None, job: Job, wanted: Sequence[Chain]) -> None:
        """Chains behind one operating point. `at`: whose features are coded; None for the neck above the last."""
        keys = {c: self._key(job, c) for c in wanted}
        pending = [c for c in wanted if not self.folder.done(keys[c])]
        self._counts[1] += len(wanted) - len(pending)
        self.bench.report.skip(len(wanted) - len(pending))
        if not pending:
            return
        began = time.monotonic()
        where = f"{self.bench.encoder.name}: {job.point.label}"
        try:
            coded_at = at or self._above(pending[0].above)
            readers = {keys[c]: self._reader(c) for c in pending}
            with tempfile.TemporaryDirectory(prefix=".streams-", dir=self.folder.path) as temporary:
                coding = code(coded_at, job, Path(temporary) / "stream.fcb")
                found, mse = evaluate.evaluate(coded_at, readers, coding.decoded)
        except (FcbenchError, RuntimeError, ArithmeticError, MemoryError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            log.debug("failed chain", exc_info=error)
            self._fail(job, pending, keys, f"{where}: {reason}", reason)
            return
        for chain in pending:
            self._write(coded_at, job, chain, coding, found[keys[chain]], mse)
        self._counts[0] += len(pending)
        took = (time.monotonic() - began) / len(pending)
        for chain in pending:
            self.bench.report.finish(f"{where}: {chain.name}", took)

    def _fail(self, job: Job, pending: Sequence[Chain], keys: Mapping[Chain, str], line: str, reason: str) -> None:
        self.bench.report.say(f"FAILED {line}")
        self._failures.append(line)
        for chain in pending:
            row = rows.failed_row(self.bench, job, chain.task, reason)
            self.folder.append([self._named(row, chain, keys[chain])], None)

    def _key(self, job: Job, chain: Chain) -> str:
        described = {
            "version": VERSION,
            "base": rows.key(self.bench, job, chain.task),
            "neck": chain.neck,
            "above": chain.above,
            "coded_after": chain.coded_after,
        }
        return digest(described)

    def _write(self, at: Bench, job: Job, chain: Chain, coding: Coding, found: evaluate.Found, mse: float) -> None:
        """Rows and samples of a chain's point."""
        key = self._key(job, chain)
        made = rows.measured_rows(at, job, chain.task, coding, found.stats, mse)
        kmac, params = self._spent(made[0], chain)
        named = [replace(self._named(r, chain, key), kmac_per_px=kmac, n_params=params) for r in made]
        direct = chain.name == chain.task and chain.neck == self.bench.suite.neck
        null = None
        if direct and evaluate.wants_null(self.bench, job, found):
            null = evaluate.null(self.bench, chain.task)
        ids, n_bytes = at.test.store.ids, coding.sample_bytes
        table = SampleTable(ids, n_bytes, found.stats, found.log_likelihood, null)
        self.folder.append(named, table)

    def _named(self, row: RatePoint, chain: Chain, point: str) -> RatePoint:
        split = self.bench.split_point
        if chain.coded_after:
            split = neck_name(chain.above[chain.coded_after - 1])
        return replace(row, point=point, neck=chain.label, split=split)

    def _spent(self, row: RatePoint, chain: Chain) -> tuple[str, str]:
        """A row's multiply-accumulates and parameters with all necks of its chain."""
        links = [self._link(chain.up_to(i)) for i in range(len(chain.above) + 1)]
        height, width = self.bench.test.store.sizes_px[0]
        spent = sum(link.neck_macs for link in links) / 1e3 / (height * width)
        kmac, params = json.loads(row.kmac_per_px), json.loads(row.n_params)
        kmac["neck"] = float(f"{spent:.6g}")
        params["neck"] = sum(link.neck_params for link in links)
        return json.dumps(kmac), json.dumps(params)

    # ------------------------------------------------------------------------------- benches, readouts
    def _direct(self, neck: str) -> Bench:
        """The bench on the encoder's features, with another neck where it is not the suite's."""
        if neck == self.bench.suite.neck:
            return self.bench
        other = Bench(
            replace(self.bench.suite, neck=neck),
            self.bench.data,
            self.bench.encoder,
            self.bench.seed,
            self.bench.cache_dir,
            self.bench.device,
            self.bench.report,
        )
        other.__dict__ |= {k: getattr(self.bench, k) for k in ("train", "test", "stats")}
        return other

    def _above(self, above: tuple[str, ...]) -> Bench:
        """The bench on the output of the necks above; those of other chains are let go."""
        if not above:
            return self.bench
        for kept in list(self._benches):
            if kept != above[: len(kept)]:
                del self._benches[kept]
        if above not in self._benches:
            self._benches[above] = neck_bench(self._above(above[:-1]), above[-1])
        return self._benches[above]

    def _link(self, chain: Chain) -> Link:
        """The last neck and head of a chain, trained or found; kept as long as the lab."""
        key = replace(chain, coded_after=0)
        if key not in self._links:
            last = self._above(chain.above) if chain.above else self._direct(chain.neck)
            spent = complexity.of_readout(last, chain.task)["neck"]
            reader = evaluate.reader(last, chain.task)
            self._links[key] = Link(last.readout(chain.task)[1], reader, *spent)
        return self._links[key]

    def _reader(self, chain: Chain) -> evaluate.Reader:
        links = [self._link(chain.up_to(i)) for i in range(len(chain.above) + 1)]
        names = [neck_name(task) for task in chain.above]
        necks = [(link.readout, name) for link, name in zip(links, names)]
        model = ChainModel(necks[chain.coded_after :], links[-1].readout)
        return replace(links[-1].reader, model=model)
