"""What readouts make of decoded features: a task's statistics, and log-likelihoods of the targets.

A head that has ``log_likelihood(x, batch)`` states a probability of each sample's target (which one: see its task);
`fcbench.information` is computed from these. Where the head ``has_scale`` (depth's density), the scale is fitted on
training samples, for the readout and for the null model alike: a scale that fits neither would be counted as
information.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fcbench import fit
from fcbench._atomic import write_atomically
from fcbench.bench import PREPARE_SAMPLES, Bench, digest
from fcbench.coding import EVAL_BATCH
from fcbench.derived import null_bench
from fcbench.jobs import CEILING, Job
from fcbench.types import FcbenchError, Task

SCALES = (1e-3, 10.0)
"""Where a density's scale is looked for, in units of the target's deviation."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """The density that a head states."""

    head: Any  # a Head with log_likelihood
    scale: float | None  # of the density, where it has one

    def __call__(self, x: Any, batch: Any) -> np.ndarray:
        """Log-likelihood of each sample's target [B] nats, for what the head reads."""
        arguments = (x, batch) if self.scale is None else (x, batch, self.scale)
        found: Tensor = self.head.log_likelihood(*arguments)
        return found.double().cpu().numpy()


@dataclass(frozen=True, slots=True)
class Reader:
    """What reads decoded features for a task.

    Attributes:
        model: maps of the encoder to what the head reads; has the head.
        scorer: None where the head states no likelihood.
    """

    task: Task
    model: nn.Module
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


def scorer(bench: Bench, name: str) -> Scorer | None:
    """The density of a task's readout; None where its head states none."""
    head: Any = bench.readout(name)[1].head
    if not hasattr(head, "log_likelihood"):
        return None
    scaled = getattr(head, "has_scale", False)
    return Scorer(head, _kept_scale(bench, name) if scaled else None)


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
            difference = fit.normalized_mse(store.batch(places), maps, bench.stats)
            error += float(difference) * len(places)
            for key, r in readers.items():
                batch = r.task.collate(bench.targets("test", r.task.name)(places))
                head, x = r.model.head, r.model(maps)
                stats[key].append(r.task.statistics(head, x, batch))  # type: ignore[arg-type]
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


# ---------------------------------------------------------------------------------------------- scale
def _kept_scale(bench: Bench, name: str) -> float:
    """The scale of a readout's density, fitted once and kept beside the readout."""
    path = bench.models / f"scale-{digest(bench.readout_key(name))}.json"
    if not path.exists():
        scale = fitted_scale(_training_likelihood(bench, name))
        write_atomically(path, json.dumps(scale).encode())
    return float(json.loads(path.read_text(encoding="utf-8")))


def _training_likelihood(bench: Bench, name: str) -> Callable[[float], float]:
    """Sum of log-likelihoods over training samples as a function of the scale."""
    task, model = bench.readout(name)
    head: Any = model.head
    store, targets = bench.train.store, bench.targets("train", name)
    n, parts = min(len(store), PREPARE_SAMPLES), list[tuple[Any, Any]]()
    with torch.inference_mode():
        for i in range(0, n, EVAL_BATCH):
            places = range(i, min(i + EVAL_BATCH, n))
            parts.append((model(store.batch(places)), task.collate(targets(places))))

    def total(scale: float) -> float:
        with torch.inference_mode():
            return sum(float(head.log_likelihood(x, batch, scale).double().sum()) for x, batch in parts)

    return total


def fitted_scale(total: Callable[[float], float]) -> float:
    """The scale in `SCALES` at which a log-likelihood (a function of the scale) is largest.

    >>> deviations = np.array([0.1, 0.3, 0.2])  # of a Laplace density: the scale is their mean
    >>> round(fitted_scale(lambda s: float(np.sum(-deviations / s - np.log(2 * s)))), 3)
    0.2
    """
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log_scale: -total(float(np.exp(log_scale))),
        bounds=np.log(SCALES),
        method="bounded",
        options={"xatol": 1e-3},
    )
    return float(np.exp(found.x))
