"""Per-channel statistics of features."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

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
        return statistics(_chunks(features))
    tensors = load(cache.cached(file, lambda: _as_bytes(statistics(_chunks(features)))))
    return {n: FeatureStats(*(tensors[f"{n}.{k}"] for k in _STATS)) for n in features.specs}


def _as_bytes(stats: Mapping[str, FeatureStats]) -> bytes:
    return save({f"{n}.{k}": getattr(s, k).contiguous() for n, s in stats.items() for k in _STATS})


def _chunks(features: FeatureSet) -> Iterator[tuple[str, Tensor]]:
    """Chunks of each map, as many samples as `CHUNK_BYTES` hold of it; every sample is read once with all its maps."""
    n, parts = len(features), {name: list[Tensor]() for name in features.specs}
    sizes = {name: spec.channels * math.prod(features.grids[name]) * 8 for name, spec in features.specs.items()}
    steps = {name: max(1, CHUNK_BYTES // size) for name, size in sizes.items()}
    for start, end in pairwise(sorted({n}.union(*(range(0, n, step) for step in steps.values())))):
        for name, step in steps.items():
            parts[name].append(features.arrays[name][start:end])
            if end % step == 0 or end == n:
                yield name, torch.cat(parts[name])
                parts[name].clear()


class _Moments(NamedTuple):
    """Of each channel: number of values, mean, sum of squared deviations, lowest and highest value."""

    n: int
    mean: Tensor
    squares: Tensor
    low: Tensor
    high: Tensor


def statistics(chunks: Iterable[tuple[str, Tensor]]) -> dict[str, FeatureStats]:
    """Mean, population standard deviation and range per channel of each map. `chunks`: [B, C, h, w], with its name.

    Chunks are merged in float64 by means and squared deviations, which does not cancel if the mean is large compared
    with the deviation.

    References:
        Chan, Golub, LeVeque, *Updating formulae and a pairwise algorithm for computing sample variances*, 1979.
    """
    found: dict[str, _Moments] = {}
    for name, chunk in chunks:
        moments = _moments(chunk)
        found[name] = _merged(found[name], moments) if name in found else moments
    if not found:
        raise FcbenchError("no features to take statistics of: the set is empty")
    return {name: _stats(moments) for name, moments in found.items()}


def _moments(chunk: Tensor) -> _Moments:
    x = chunk.double().transpose(0, 1).flatten(1)  # [C, B h w]
    mean = x.mean(1)
    return _Moments(x.shape[1], mean, (x - mean[:, None]).square().sum(1), x.amin(1), x.amax(1))


def _merged(a: _Moments, b: _Moments) -> _Moments:
    n, delta = a.n + b.n, b.mean - a.mean
    squares = a.squares + b.squares + delta.square() * (a.n * b.n / n)
    low, high = torch.minimum(a.low, b.low), torch.maximum(a.high, b.high)
    return _Moments(n, a.mean + delta * (b.n / n), squares, low, high)


def _stats(moments: _Moments) -> FeatureStats:
    n, mean, squares, low, high = moments
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
