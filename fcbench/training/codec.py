"""Training of a codec."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fcbench.core.features import Features, FeatureStats
from fcbench.core.kinds import Objective
from fcbench.features.extract import FeatureStore
from fcbench.training.loop import Progress, draw, optimize
from fcbench.training.options import Budget

VARIABLE_STEPS = 3
"""A codec of variable rate trains once for all its points, for so many times the steps of one."""


def fit_codec(
    codec: Any,
    lmbdas: tuple[float, float],
    store: FeatureStore,
    stats: Mapping[str, FeatureStats],
    budget: Budget,
    *,
    objective: Objective,
    task_loss: Callable[[Mapping[str, Tensor], Sequence[int]], Tensor] | None,
    device: torch.device,
    seed: int,
    resume: Path,
    progress: Progress | None = None,
) -> float:
    """Train a codec: bits per scalar + lmbda x distortion.

    The distortion is the squared error of features divided by their training standard deviation (``mse``), the loss
    of a frozen neck and head (in nats) on the decoded features (``task``), or their sum (``both``).

    Args:
        lmbdas: lowest and highest. Where they differ the codec is of variable rate: every step draws one, uniform in
            its logarithm, and training takes `VARIABLE_STEPS` times the steps of one point.
    """
    codec.to(device)
    low, high = np.log(lmbdas)

    def loss_of(rng: np.random.Generator) -> Tensor:
        places = draw(rng, len(store), budget.codec_batch)
        lmbda = lmbdas[0]
        if low < high:
            lmbda = float(np.exp(rng.uniform(low, high)))
            codec.at(lmbda)
        maps = {k: v.to(device) for k, v in store.batch(places).items()}
        decoded, bits = codec(maps)
        loss: Tensor = bits.sum() / Features(maps).n_points
        if objective != "task":
            loss = loss + lmbda * normalized_mse(maps, decoded, stats)
        if objective != "mse":
            assert task_loss is not None
            loss = loss + lmbda * task_loss(decoded, places)
        return loss

    final = optimize(
        codec,
        loss_of,
        steps=budget.codec_steps * (VARIABLE_STEPS if low < high else 1),
        rate=budget.codec_rate,
        seed=seed,
        resume=resume,
        progress=progress,
    )
    codec.to("cpu")
    return final


def normalized_mse(a: Mapping[str, Tensor], b: Mapping[str, Tensor], stats: Mapping[str, FeatureStats]) -> Tensor:
    """Mean squared error of features divided by their training standard deviation, over all scalars of all maps."""
    total = torch.zeros((), device=next(iter(a.values())).device)
    for name, x in a.items():
        std = stats[name].std.to(x.device).view(-1, 1, 1)
        total = total + ((x - b[name].to(x.device)) / std).square().sum()
    return total / Features(dict(a)).n_points
