"""Feature maps for tests: correlated, of unequal scale, not centred; the same for the same seed."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fcbench.core.features import Features, FeatureSpec, FeatureStats

ONE = (FeatureSpec("stage3", 12, 16),)
TWO = (FeatureSpec("layer.2", 6, 8), FeatureSpec("layer.3", 10, 16))
GRIDS = ((1, 1), (5, 7), (8, 8), (23, 30))  # (h, w); both sides of (5, 7) are odd


def correlated(n: int, channels: int, grid: tuple[int, int], seed: int) -> Tensor:
    """[n, C, h, w] Gaussian features, correlated over channels and space."""
    generator = torch.Generator().manual_seed(seed)
    h, w = grid
    noise = torch.randn(n, channels, h + 2, w + 2, generator=generator)
    mixing = torch.randn(channels, channels, generator=torch.Generator().manual_seed(channels))
    x = torch.einsum("dc,nchw->ndhw", mixing, F.avg_pool2d(noise, 3, 1))
    scale = torch.logspace(-1, 1, channels)[:, None, None]
    return scale * (x + 3.0)


def batches(specs: Sequence[FeatureSpec], n: int, grid: tuple[int, int], seed: int) -> list[Tensor]:
    """One batch of each map; the second map has half the size."""
    grids = [grid, ((grid[0] + 1) // 2, (grid[1] + 1) // 2)]
    return [correlated(n, s.channels, g, seed) for s, g in zip(specs, grids)]


def features(specs: Sequence[FeatureSpec], grid: tuple[int, int], seed: int = 2) -> Features:
    """One sample."""
    return Features({s.name: x for s, x in zip(specs, batches(specs, 1, grid, seed))})


def statistics(x: Tensor) -> FeatureStats:
    """Statistics of a batch; the deviation of channels that do not vary is 1."""
    flat = x.transpose(0, 1).flatten(1)
    std = flat.std(1)
    return FeatureStats(flat.mean(1), torch.where(std > 0, std, torch.ones(())), flat.amin(1), flat.amax(1))
