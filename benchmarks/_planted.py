"""Planted effects: features that lack something on purpose, and whether its cost is found.

- *zeroed 0.25*: a share of the channels, chosen by the seed, is set to its training mean.
- *projected 8*: the directions of feature space that a task's readout uses most are projected out: the leading
  eigenvectors of the mean outer product of the loss's gradients with respect to standardized features.
- *again*: the same features, readouts trained with another seed. Nothing was taken away.

Readouts are trained anew on what is left. Rows are those of an uncoded run, under an encoder's name that says what was
planted, so that `fcbench.analysis.cost` reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fcbench.core.cache import digest
from fcbench.core.errors import FcbenchError
from fcbench.core.kinds import CEILING, ENDS
from fcbench.measure import evaluate, rows
from fcbench.measure.bench import Bench
from fcbench.measure.coding import code
from fcbench.measure.derived import Derived, made_store
from fcbench.measure.points import Job
from fcbench.results.folder import ResultsFolder
from fcbench.results.samples import SampleTable
from fcbench.training.readout import Standardize

GRADIENT_SAMPLES = 64
GRADIENT_BATCH = 16
ANOTHER_SEED = 1000
Change = Callable[[Tensor], Tensor]
"""Of standardized features [N, C, h, w]."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What is planted.

    Attributes:
        kind: "none", "again", "zeroed" or "projected".
        size: share of the channels, or number of directions.
    """

    kind: str
    size: float = 0

    @property
    def label(self) -> str:
        """``projected 8``; empty for nothing at all."""
        if self.kind == "none":
            return ""
        return f"{self.kind} {self.size:g}" if self.size else self.kind


def effects(shares: Sequence[float], ranks: Sequence[int]) -> list[Effect]:
    """The reference first, then what is planted, small to large."""
    zeroed = [Effect("zeroed", s) for s in shares]
    projected = [Effect("projected", r) for r in ranks]
    return [Effect("none"), Effect("again"), *zeroed, *projected]


def measure(bench: Bench, every: Sequence[Effect], folder: ResultsFolder) -> Iterator[str]:
    """Measure every effect on every task that the folder lacks. Yields a line a point."""
    for effect in every:
        for task in bench.suite.tasks:
            job = Job(CEILING, ENDS[CEILING], (task,))
            point = digest({"base": rows.key(bench, job, task), "effect": effect.label})
            if folder.done(point):
                continue
            value = _measure(bench, effect, job, task, point, folder)
            yield f"{bench.encoder.name} {effect.label}: {task} {value:.4g}"


def _measure(bench: Bench, effect: Effect, job: Job, task: str, point: str, folder: ResultsFolder) -> float:
    planted = _bench(bench, effect, task)
    readers = {task: evaluate.reader(planted, task)}
    coding = code(planted, job, Path())  # uncoded: writes no file
    every, mse = evaluate.evaluate(planted, readers, coding.decoded)
    found, null = every[task], None
    made = rows.measured_rows(planted, job, task, coding, found.stats, mse)
    name = f"{bench.encoder.name} {effect.label}".rstrip()
    about = {"point": point, "encoder": name, "seed": bench.seed, "split": bench.split_point}
    named = [replace(row, **about) for row in made]  # type: ignore[arg-type]
    if effect.kind == "none" and evaluate.wants_null(bench, job, found):
        null = evaluate.null(bench, task)
    ids, n_bytes = bench.test.store.ids, coding.sample_bytes
    table = SampleTable(ids, n_bytes, found.stats, found.log_likelihood, null)
    folder.append(named, table)
    return float(named[0].value or 0.0)


def _bench(bench: Bench, effect: Effect, task: str) -> Bench:
    if effect.kind == "none":
        return bench
    if effect.kind == "again":
        other = Bench(
            bench.suite,
            bench.data,
            bench.encoder,
            bench.seed + ANOTHER_SEED,
            bench.cache_dir,
            bench.device,
            bench.report,
        )
        other.__dict__ |= {k: getattr(bench, k) for k in ("train", "test", "stats")}
        return other
    if len(bench.splits) != 1:
        raise FcbenchError(f"effects are planted in one map; split point {bench.split_point} has {len(bench.splits)}")
    change = zeroed(bench, effect.size) if effect.kind == "zeroed" else projected(bench, task, int(effect.size))
    return _changed(bench, change, digest({"effect": effect.label, "of": bench.readout_key(task)}))


def _changed(bench: Bench, change: Change, key: str) -> Derived:
    """The bench on changed features."""
    (name,) = bench.splits
    mean = bench.stats[name].mean.view(-1, 1, 1)
    std = bench.stats[name].std.view(-1, 1, 1)
    stores = []
    for which, split in (("train", bench.train), ("test", bench.test)):
        x = split.store.batch(range(len(split.store)))[name]
        made = change((x - mean) / std) * std + mean
        spec = split.store.specs[name]
        stores.append(made_store(split.store, f"planted-{which}-{key}", spec, made))
    return Derived(bench, *stores)


def zeroed(bench: Bench, share: float) -> Change:
    """Sets a share of the channels to its mean."""
    (name,) = bench.splits
    n = len(bench.stats[name].mean)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(bench.seed))
    gone = order[: round(share * n)]

    def change(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, gone] = 0
        return x

    return change


def projected(bench: Bench, task: str, rank: int) -> Change:
    """Projects out the directions that a task's readout uses most."""
    directions = sensitive_directions(bench, task)[:, :rank]  # [C, k]

    def change(x: Tensor) -> Tensor:
        seen = torch.einsum("nchw,ck->nkhw", x, directions)
        return x - torch.einsum("nkhw,ck->nchw", seen, directions)

    return change


def sensitive_directions(bench: Bench, name: str) -> Tensor:
    """Orthonormal directions [C, C] of standardized features, that to which a task's loss is most sensitive first."""
    (split,) = bench.splits
    task, readout = bench.readout(name)
    store, targets = bench.train.store, bench.targets("train", name)
    n = min(len(store), GRADIENT_SAMPLES)
    total: Tensor | None = None
    for i in range(0, n, GRADIENT_BATCH):
        places = range(i, min(i + GRADIENT_BATCH, n))
        x = Standardize.forward(readout, store.batch(places))[split].requires_grad_()
        read = readout.neck({split: x})
        read = read if readout.adapter is None else readout.adapter(read)
        loss = readout.head.loss(read, task.collate(targets(places)))
        (gradient,) = torch.autograd.grad(loss, x)
        g = gradient.double().transpose(0, 1).flatten(1)  # [C, B h w]
        total = g @ g.T if total is None else total + g @ g.T
    assert total is not None
    vectors: Tensor = torch.linalg.eigh(total).eigenvectors.flip(1)
    return vectors.float()
