"""What readouts make of decoded features: a task's statistics, and log-likelihoods of the targets.

A `ProbabilisticHead` states a probability of each sample's target (which one: see its task); `fcbench.information` is
computed from these. The density of a `ScaledHead` (depth's) has a scale, which is fitted on training samples, for the
readout and for the null model alike: a scale that fits neither would be counted as information.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fcbench.core.errors import FcbenchError
from fcbench.core.kinds import CEILING
from fcbench.core.tasks import Task
from fcbench.measure.bench import Bench
from fcbench.measure.coding import EVAL_BATCH
from fcbench.measure.density import Scorer, scorer
from fcbench.measure.derived import null_bench
from fcbench.measure.points import Job
from fcbench.training import codec
from fcbench.training.readout import Readout


@dataclass(frozen=True, slots=True)
class Reader:
    """What reads decoded features for a task.

    Attributes:
        model: maps of the encoder to what the head reads; has the head.
        scorer: None where the head states no likelihood.
    """

    task: Task
    model: Readout
    scorer: Scorer | None


@dataclass(frozen=True, slots=True)
class Found:
    """Of one reader: statistics [N, S] of the task, and log-likelihoods [N] nats where the head states them."""

    stats: np.ndarray
    log_likelihood: np.ndarray | None


def reader(bench: Bench, name: str) -> Reader:
    """The reader of a task: its readout, and the density of its head."""
    task, model = bench.readout(name)
    return Reader(task, model, scorer(bench, name))


def evaluate(
    bench: Bench, readers: Mapping[str, Reader], batches: Iterable[Mapping[str, Tensor]]
) -> tuple[dict[str, Found], float]:
    """What each reader finds on decoded features, and the features' mean squared error.

    Args:
        batches: decoded maps in the order of the test features.

    Raises:
        FcbenchError: another number of samples than the test set has.
    """
    store, error, at = bench.test.store, 0.0, 0
    stats = {key: list[np.ndarray]() for key in readers}
    given = {key: list[np.ndarray]() for key, r in readers.items() if r.scorer}
    with torch.inference_mode():
        for maps in batches:
            places = range(at, at + len(next(iter(maps.values()))))
            at = places.stop
            difference = codec.normalized_mse(store.batch(places), maps, bench.stats)
            error += float(difference) * len(places)
            for key, r in readers.items():
                batch = r.task.collate(bench.targets("test", r.task.name)(places))
                x = r.model(maps)
                stats[key].append(r.task.statistics(r.model.head.predict(x, batch), batch))
                if r.scorer:
                    given[key].append(r.scorer(x, batch))
    if at != len(store):
        raise FcbenchError(f"decoded {at} samples of {len(store)}: the stream is not of this data set")
    found = {
        key: Found(np.concatenate(s), np.concatenate(given[key]) if key in given else None) for key, s in stats.items()
    }
    for key, one in found.items():
        if one.log_likelihood is not None and not np.isfinite(one.log_likelihood).all():
            raise FcbenchError(f"the head of {key} gives a target no probability at all, or NaN")
    return found, error / at


def wants_null(bench: Bench, job: Job, found: Found) -> bool:
    """Whether a point keeps the null model's likelihoods: the uncoded ceiling, where the run asks for them."""
    stated = found.log_likelihood is not None
    return stated and job.kind == CEILING and bench.suite.null_model


def null(bench: Bench, name: str) -> np.ndarray | None:
    """Log-likelihoods [N] nats of the null model: the same neck and head trained on a constant.

    None where the head states no likelihood.
    """
    constant = null_bench(bench)
    found, _ = evaluate(constant, {name: reader(constant, name)}, _batches(constant))
    return found[name].log_likelihood


def _batches(bench: Bench) -> Iterator[dict[str, Tensor]]:
    store = bench.test.store
    for i in range(0, len(store), EVAL_BATCH):
        yield store.batch(range(i, min(i + EVAL_BATCH, len(store))))
