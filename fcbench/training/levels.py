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
from torch import Tensor

from fcbench.core.errors import FcbenchError
from fcbench.core.features import FeatureStats
from fcbench.features.devices import moved
from fcbench.features.feature_set import FeatureSet, batches_of
from fcbench.training import loop
from fcbench.training.readout import TaskLoss

N_SAMPLES = 128  # Fewer, if together they do not fit into memory
DISTORTION = 0.25
"""Planted error, as a share of a map's variance: about what is left where a curve bends towards its ceiling."""
LEAST = 0.02
"""Weight of a map that the task does not seem to read. With less, a codec would send next to nothing of it, which is a
larger error than the planted one."""


@torch.no_grad()
def weights_of(
    features: FeatureSet, stats: Mapping[str, FeatureStats], task_loss: TaskLoss, batch_size: int, device: torch.device
) -> dict[str, float]:
    """Weight of a scalar's squared error by map: the rise of the task's loss per scalar with an error in it alone.

    Their mean over all scalars of the pyramid is 1, so that lmbda keeps its meaning, unless a map is at `LEAST`.

    Args:
        features: of the training split; samples that are held out for validation are not read.
        task_loss: of a trained readout on features as decoded.

    Raises:
        FcbenchError: an error in no map raises the loss.
    """
    train, _ = loop.held_out(len(features))
    rng, noise = np.random.default_rng(0), torch.Generator().manual_seed(0)
    chosen = loop.sample_indices(rng, train, min(N_SAMPLES, features.n_at_once, len(train)))
    maps = features.batch(chosen)
    ideal = {name: _decoded(x, stats[name], noise) for name, x in maps.items()}
    rises = dict.fromkeys(maps, 0.0)
    for batch in batches_of(len(chosen), batch_size):
        indices, own = [chosen[i] for i in batch], {name: x[batch.start : batch.stop] for name, x in maps.items()}
        clean = float(task_loss(moved(own, device), indices))
        for name, x in ideal.items():
            loss = float(task_loss(moved(own | {name: x[batch.start : batch.stop]}, device), indices))
            rises[name] += len(indices) * (loss - clean)
    if max(rises.values()) <= 0:
        raise FcbenchError("an error in no map raises the task's loss, so none can be weighed: use --objective mse")
    n_scalars = {name: spec.channels * math.prod(features.grids[name]) for name, spec in features.specs.items()}
    total = sum(max(rise, 0.0) for rise in rises.values()) / sum(n_scalars.values())
    return {name: max(rises[name] / n_scalars[name] / total, LEAST) for name in rises}


def _decoded(x: Tensor, stats: FeatureStats, noise: torch.Generator) -> Tensor:
    """Features [B, C, h, w] as an ideal codec of Gaussian channels would decode them, with `DISTORTION`.

    Errors of a codec are not white: directions of little variance are left out, those of more are shrunk and blurred.

    References: Berger, Rate Distortion Theory, 1971 (reverse water-filling and its test channel).
    """
    mean, std = stats.mean[:, None], stats.std[:, None]
    flat = (x.transpose(0, 1).flatten(1) - mean) / std
    values, vectors = torch.linalg.eigh((flat @ flat.T / flat.shape[1]).double())
    variances = values.clamp(min=0)
    low, high = variances.new_zeros(()), variances.max()
    for _ in range(50):
        level = (low + high) / 2
        if torch.minimum(level, variances).sum() < DISTORTION * variances.sum():
            low = level
        else:
            high = level
    kept = (1 - high / variances.clamp(min=1e-12)).clamp(min=0)
    y = vectors.T @ flat.double() * kept[:, None]
    y += torch.randn(y.shape, generator=noise, dtype=y.dtype) * (high * kept).sqrt()[:, None]
    flat = (vectors @ y).to(x) * std + mean
    return flat.unflatten(1, (len(x), *x.shape[2:])).transpose(0, 1)


def weighted(stats: Mapping[str, FeatureStats], weights: Mapping[str, float]) -> dict[str, FeatureStats]:
    """Statistics with which the squared error of features divided by `std` is weighted by map."""
    return {name: replace(s, std=s.std / math.sqrt(weights[name])) for name, s in stats.items()}
