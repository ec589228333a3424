"""Weights of a pyramid's maps, by how much an error in each raises a task's loss.

A codec that is trained for the features' error alone takes every scalar of every map, divided by its standard
deviation, as equally important. Dividing by less gives a map more weight, in every codec alike: its error counts more,
and its steps become finer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from fcbench.core.errors import FcbenchError
from fcbench.core.features import FeatureStats
from fcbench.features.devices import moved
from fcbench.features.feature_set import FeatureSet, batches_of
from fcbench.training import loop
from fcbench.training.readout import TaskLoss

N_SAMPLES = 64
NOISE = 0.5
"""Standard deviation of the planted error, in those of the features: about what is left at half a bit a scalar."""
LEAST = 1e-3
"""Weight of a map that the task does not read. With zero, a codec would send it for nothing or not at all."""


@torch.no_grad()
def weights_of(
    features: FeatureSet, stats: Mapping[str, FeatureStats], task_loss: TaskLoss, batch_size: int, device: torch.device
) -> dict[str, float]:
    """Weight of a scalar's squared error by map: the rise of the task's loss per scalar with noise in this map alone.

    Their mean over all scalars of the pyramid is 1, so that lmbda keeps its meaning, unless a map is at `LEAST`.

    Args:
        features: of the training split; samples that are held out for validation are not read.
        task_loss: of a trained readout on features as decoded.

    Raises:
        FcbenchError: noise in no map raises the loss.
    """
    train, _ = loop.held_out(len(features))
    rng, noise = np.random.default_rng(0), torch.Generator().manual_seed(0)
    chosen = loop.sample_indices(rng, train, min(N_SAMPLES, len(train)))
    rises = dict.fromkeys(features.specs, 0.0)
    for batch in batches_of(len(chosen), batch_size):
        indices = [int(chosen[i]) for i in batch]
        maps = features.batch(indices)
        clean = float(task_loss(moved(maps, device), indices))
        for name, x in maps.items():
            planted = NOISE * stats[name].std[:, None, None] * torch.randn(x.shape, generator=noise)
            loss = float(task_loss(moved(maps | {name: x + planted}, device), indices))
            rises[name] += len(indices) * (loss - clean)
    if max(rises.values()) <= 0:
        raise FcbenchError("noise in no map raises the task's loss, so none can be weighed: use --objective mse")
    n_scalars = {name: spec.channels * math.prod(features.grids[name]) for name, spec in features.specs.items()}
    total = sum(max(rise, 0.0) for rise in rises.values()) / sum(n_scalars.values())
    return {name: max(rises[name] / n_scalars[name] / total, LEAST) for name in rises}


def weighted(stats: Mapping[str, FeatureStats], weights: Mapping[str, float]) -> dict[str, FeatureStats]:
    """Statistics with which the squared error of features divided by `std` is weighted by map."""
    return {name: replace(s, std=s.std / math.sqrt(weights[name])) for name, s in stats.items()}
