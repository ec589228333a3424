"""The density that a head assigns to its targets, and the scale fitted to it.

A `ProbabilisticHead` states a probability of each sample's target (see its task). The density of a `ScaledHead`
(depth's) has a scale, which is fitted on training samples, for the readout and for the null model alike: a bad scale
would be counted as information.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fcbench.core.cache import Cache, cached
from fcbench.core.tasks import ProbabilisticHead, ScaledHead
from fcbench.features.feature_set import batches_of
from fcbench.training.options import PREPARE_SAMPLES
from fcbench.training.readout import Readout, ReadoutRecipe, TailReadout
from fcbench.training.targets import Targets
from fcbench.transmit.senders import at_once

SCALES = (1e-3, 10.0)
"""Search range of a density's scale, in units of the target's deviation."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """The density of a head."""

    log_likelihood: Callable[[Any, Any], Tensor]

    def __call__(self, x: Any, batch: Any) -> np.ndarray:
        """Log-likelihood of each sample's target [B] nats, for an input of the head."""
        return self.log_likelihood(x, batch).double().cpu().numpy()


def make_scorer(recipe: ReadoutRecipe, model: Readout | TailReadout, targets: Targets, cache: Cache) -> Scorer | None:
    """The density of a readout, with its scale fitted once and cached; None if the head states none.

    Args:
        targets: of the training samples.
    """
    head = model.head
    if not isinstance(head, ScaledHead):
        return Scorer(head.log_likelihood) if isinstance(head, ProbabilisticHead) else None
    path = cache.model("scale", recipe.key, ".json")
    scale = cached(path, lambda: json.dumps(fitted_scale(_training_likelihood(recipe, model, targets))).encode())
    return Scorer(partial(head.log_density, scale=float(json.loads(scale))))


def _training_likelihood(
    recipe: ReadoutRecipe, model: Readout | TailReadout, targets: Targets
) -> Callable[[float], float]:
    """Sum of log-likelihoods over training samples as a function of the scale."""
    features, head = recipe.source.train.features, model.head
    n, batch_size = min(PREPARE_SAMPLES, features.n_at_once), at_once(features.n_scalars // len(features))
    with torch.inference_mode():
        parts = [
            (model(features.batch(indices)), recipe.task.collate(targets(indices)))
            for indices in batches_of(n, batch_size)
        ]

    def total(scale: float) -> float:
        with torch.inference_mode():
            return sum(float(head.log_density(x, batch, scale).double().sum()) for x, batch in parts)

    return total


def fitted_scale(total: Callable[[float], float]) -> float:
    """The scale in `SCALES` at which a log-likelihood (a function of the scale) is largest.

    >>> deviations = np.array([0.1, 0.3, 0.2])  # of a Laplace density: the scale is their mean
    >>> round(fitted_scale(lambda s: float(np.sum(-deviations / s - np.log(2 * s)))), 3)
    0.2
    """
    from scipy.optimize import minimize_scalar

    minimum = minimize_scalar(
        lambda log_scale: -total(float(np.exp(log_scale))),
        bounds=np.log(SCALES),
        method="bounded",
        options={"xatol": 1e-3},
    )
    return float(np.exp(minimum.x))
