"""Planted effects: features that lack something on purpose, to check that its cost is found.

- *zeroed 0.25*: a share of the channels, chosen by the seed, is set to its training mean.
- *projected 8*: the directions of feature space that a task's readout uses most, the leading
  eigenvectors of the mean outer product of the loss's gradients for standardized features, are projected out.
- *again*: the same features, readouts trained with another seed. Nothing was taken away.

Readouts are trained again on what is left. Rows are those of an uncoded run, with an encoder name that says what was
planted, so that `fcbench.analysis.cost` reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fcbench.core.cache import digest
from fcbench.core.codecs import ENDS, Kind
from fcbench.core.errors import FcbenchError
from fcbench.features.feature_set import FeatureSet, batches_of
from fcbench.features.source import Source, derive
from fcbench.measure.point import sample_table, send_and_read, wants_null
from fcbench.measure.points import Job
from fcbench.measure.rows import make_rows, point_key
from fcbench.measure.trial import Trial
from fcbench.results.folder import ResultsFolder
from fcbench.training.readout import Standardize

GRADIENT_SAMPLES = 64
GRADIENT_BATCH = 16
ANOTHER_SEED = 1000
Change = Callable[[Tensor], Tensor]
"""Function of standardized features [N, C, h, w]."""


@dataclass(frozen=True, slots=True)
class Effect:
    """A planted effect.

    Attributes:
        kind: "none", "again", "zeroed" or "projected".
        size: share of the channels, or number of directions.
    """

    kind: str
    size: float = 0

    @property
    def label(self) -> str:
        """``projected 8``; empty if nothing is planted."""
        if self.kind == "none":
            return ""
        return f"{self.kind} {self.size:g}" if self.size else self.kind


def effects(shares: Sequence[float], ranks: Sequence[int]) -> list[Effect]:
    """The reference first, then the planted effects, small to large."""
    zeroed = [Effect("zeroed", s) for s in shares]
    projected = [Effect("projected", r) for r in ranks]
    return [Effect("none"), Effect("again"), *zeroed, *projected]


def measure(trial: Trial, every: Sequence[Effect], folder: ResultsFolder) -> Iterator[str]:
    """Measure every effect on every task that the folder lacks. Yields one line per point."""
    for effect in every:
        for task in trial.study.suite.tasks:
            job = Job(Kind.CEILING, ENDS[Kind.CEILING], (task,))
            point = digest({"base": point_key(trial, job, task), "effect": effect.label})
            if folder.done(point):
                continue
            value = _measure(trial, effect, job, task, point, folder)
            yield f"{trial.source.encoder.name} {effect.label}: {task} {value:.4g}"


def _measure(trial: Trial, effect: Effect, job: Job, task: str, point: str, folder: ResultsFolder) -> float:
    planted = _planted_trial(trial, effect, task)
    reader = planted.reader(task)
    done = send_and_read(planted, job, planted.source, {task: reader}, Path())  # uncoded: writes no file
    assert done is not None
    found, costs = done.read.evaluations[task], planted.complexity.of_readout(reader)
    rows = make_rows(planted, job, reader, costs, done, task)
    name = f"{trial.source.encoder.name} {effect.label}".rstrip()
    about: dict[str, Any] = {"point": point, "encoder": name, "seed": trial.seed, "split": trial.source.split_point}
    plain = effect.kind == "none" and wants_null(trial, job, found)
    null = trial.null_likelihood(task) if plain else None
    folder.append([replace(row, **about) for row in rows], sample_table(trial, done, task, null))
    return float(rows[0].value or 0.0)


def _planted_trial(trial: Trial, effect: Effect, task: str) -> Trial:
    if effect.kind == "none":
        return trial
    if effect.kind == "again":
        return Trial(trial.study, trial.source, trial.seed + ANOTHER_SEED, trial.report)
    if len(trial.source.split_points) != 1:
        n, name = len(trial.source.split_points), trial.source.split_point
        raise FcbenchError(f"effects are planted in one map; split point {name} has {n}")
    change = zeroed(trial, effect.size) if effect.kind == "zeroed" else projected(trial, task, int(effect.size))
    source = _changed(trial.source, change, digest({"effect": effect.label, "of": trial.recipe(task).key}))
    return Trial(trial.study, source, trial.seed, trial.report)


def _changed(source: Source, change: Change, key: str) -> Source:
    """The source with changed features."""
    spec, _ = source.train.features.finest
    mean, std = (getattr(source.stats[spec.name], k).view(-1, 1, 1) for k in ("mean", "std"))

    def changed(features: FeatureSet) -> Tensor:
        x = features.batch(range(len(features)))[spec.name]
        return change((x - mean) / std) * std + mean

    return derive(source, source.split_point, f"planted-{key}", spec, changed)


def zeroed(trial: Trial, share: float) -> Change:
    """Set a share of the channels to its mean."""
    spec, _ = trial.source.train.features.finest
    order = torch.randperm(spec.channels, generator=torch.Generator().manual_seed(trial.seed))
    gone = order[: round(share * spec.channels)]

    def change(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, gone] = 0
        return x

    return change


def projected(trial: Trial, task: str, rank: int) -> Change:
    """Project out the directions that a task's readout uses most."""
    directions = sensitive_directions(trial, task)[:, :rank]  # [C, k]

    def change(x: Tensor) -> Tensor:
        seen = torch.einsum("nchw,ck->nkhw", x, directions)
        return x - torch.einsum("nkhw,ck->nchw", seen, directions)

    return change


def sensitive_directions(trial: Trial, name: str) -> Tensor:
    """Orthonormal directions [C, C] of standardized features, in order of a task's loss's sensitivity to them."""
    (split_point,) = trial.source.split_points
    task, readout = trial.reader(name).task, trial.trained(name)
    head: Any = readout.head
    features, targets = trial.source.train.features, trial.study.targets("train", name, trial.source)
    total: Tensor | None = None
    for indices in batches_of(min(len(features), GRADIENT_SAMPLES), GRADIENT_BATCH):
        x = Standardize.forward(readout, features.batch(indices))[split_point].requires_grad_()
        read = readout.neck({split_point: x})
        read = read if readout.adapter is None else readout.adapter(read)
        loss = head.loss(read, task.collate(targets(indices)))
        (gradient,) = torch.autograd.grad(loss, x)
        g = gradient.double().transpose(0, 1).flatten(1)  # [C, B h w]
        total = g @ g.T if total is None else total + g @ g.T
    assert total is not None
    vectors: Tensor = torch.linalg.eigh(total).eigenvectors.flip(1)
    return vectors.float()
