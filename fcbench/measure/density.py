"""The density that a head states, and the scale that is fitted to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fcbench.core.cache import digest
from fcbench.core.files import write_atomically
from fcbench.core.tasks import ProbabilisticHead, ScaledHead
from fcbench.measure.bench import PREPARE_SAMPLES, Bench
from fcbench.measure.coding import EVAL_BATCH

SCALES = (1e-3, 10.0)
"""Where a density's scale is looked for, in units of the target's deviation."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """The density that a head states."""

    log_likelihood: Callable[[Any, Any], Tensor]

    def __call__(self, x: Any, batch: Any) -> np.ndarray:
        """Log-likelihood of each sample's target [B] nats, for what the head reads."""
        return self.log_likelihood(x, batch).double().cpu().numpy()


def scorer(bench: Bench, name: str) -> Scorer | None:
    """The density of a task's readout; None where its head states none."""
    head = bench.readout(name)[1].head
    if isinstance(head, ScaledHead):
        return Scorer(partial(head.log_density, scale=_kept_scale(bench, name)))
    return Scorer(head.log_likelihood) if isinstance(head, ProbabilisticHead) else None


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
    store, targets = bench.train.store, bench.targets("train", name)
    n, parts = min(len(store), PREPARE_SAMPLES), list[tuple[Any, Any]]()
    with torch.inference_mode():
        for i in range(0, n, EVAL_BATCH):
            places = range(i, min(i + EVAL_BATCH, n))
            parts.append((model(store.batch(places)), task.collate(targets(places))))

    def total(scale: float) -> float:
        with torch.inference_mode():
            return sum(float(model.head.log_density(x, batch, scale).double().sum()) for x, batch in parts)

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
