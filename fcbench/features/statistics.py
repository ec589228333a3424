"""Per-channel statistics of features."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from fcbench.core import cache
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Features, FeatureStats
from fcbench.features.feature_set import FeatureSet

CHUNK_BYTES = 64 << 20
"""Amount of a set in memory at a time while computing its statistics."""
_STATS = ("mean", "std", "low", "high")


def stats_of(features: FeatureSet, file: Path | None = None) -> dict[str, FeatureStats]:
    """Per-channel statistics of each map over a set, in float64, one pass.

    Args:
        file: to store them in; None to not store them.
    """
    if file is None:
        return _taken(features)
    tensors = load(cache.cached(file, lambda: _as_bytes(_taken(features))))
    return {n: FeatureStats(*(tensors[f"{n}.{k}"] for k in _STATS)) for n in features.specs}


def _taken(features: FeatureSet) -> dict[str, FeatureStats]:
    return {name: statistics(_chunks(features, name)) for name in features.specs}


def _as_bytes(stats: Mapping[str, FeatureStats]) -> bytes:
    return save({f"{n}.{k}": getattr(s, k).contiguous() for n, s in stats.items() for k in _STATS})


def _chunks(features: FeatureSet, name: str) -> Iterator[Tensor]:
    array, n = features.arrays[name], len(features)
    step = max(1, CHUNK_BYTES // (features.specs[name].channels * math.prod(features.grids[name]) * 8))
    return (array[i : min(i + step, n)] for i in range(0, n, step))


def statistics(chunks: Iterator[Tensor]) -> FeatureStats:
    """Mean, population standard deviation and range per channel of chunks [B, C, h, w].

    Chunks are merged in float64 by means and squared deviations, which does not cancel if the mean is large compared
    with the deviation.

    References:
        Chan, Golub, LeVeque, *Updating formulae and a pairwise algorithm for computing sample variances*, 1979.
    """
    n, mean, squares, low, high = 0, None, None, None, None
    for chunk in chunks:
        x = chunk.double().transpose(0, 1).flatten(1)  # [C, B h w]
        m, x_mean, x_low, x_high = x.shape[1], x.mean(1), x.amin(1), x.amax(1)
        x_squares = (x - x_mean[:, None]).square().sum(1)
        if mean is None or squares is None or low is None or high is None:
            n, mean, squares, low, high = m, x_mean, x_squares, x_low, x_high
            continue
        delta = x_mean - mean
        squares = squares + x_squares + delta.square() * (n * m / (n + m))
        mean = mean + delta * (m / (n + m))
        low, high, n = torch.minimum(low, x_low), torch.maximum(high, x_high), n + m
    if mean is None or squares is None or low is None or high is None:
        raise FcbenchError("no features to take statistics of: the set is empty")
    std = (squares / n).sqrt().float()
    std = torch.where((low == high) | (std == 0), torch.ones_like(std), std)
    return FeatureStats(mean.float(), std, low.float(), high.float())


def sample_errors(a: Mapping[str, Tensor], b: Mapping[str, Tensor], stats: Mapping[str, FeatureStats]) -> Tensor:
    """Error of each sample [B], float64: `normalized_mse` is their mean."""
    total, n = torch.zeros((), dtype=torch.float64), 0
    for name, x in a.items():
        std = stats[name].std.to(x.device).view(-1, 1, 1)
        total = total + ((x - b[name].to(x.device)) / std).square().flatten(1).sum(dim=1, dtype=torch.float64).cpu()
        n += x[0].numel()
    return total / n


def normalized_mse(a: Mapping[str, Tensor], b: Mapping[str, Tensor], stats: Mapping[str, FeatureStats]) -> Tensor:
    """Mean squared error of features divided by their training standard deviation, over all scalars of all maps."""
    total = torch.zeros((), device=next(iter(a.values())).device)
    for name, x in a.items():
        std = stats[name].std.to(x.device).view(-1, 1, 1)
        total = total + ((x - b[name].to(x.device)) / std).square().sum()
    return total / Features(dict(a)).n_scalars
