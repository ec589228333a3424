"""Per-channel statistics of features."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fcbench.core.errors import FcbenchError
from fcbench.core.features import FeatureStats


def statistics(chunks: Iterator[Tensor]) -> FeatureStats:
    """Mean, population standard deviation and range per channel of chunks [B, C, h, w].

    Chunks are merged in float64 by means and squared deviations, which does not cancel where the mean is
    large beside the deviation.

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
