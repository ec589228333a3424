"""Per-channel uniform quantizer with static entropy coding: the codec ``uniform``.

    x --clip to training range--> round((x - mean) / step) --per-channel histogram--> bytes --> centroids

A channel's range is that of the training features within six standard deviations of the mean (one outlier would
otherwise take most levels), ``bits`` sets the step: the range over 2**bits - 1, on a grid through the mean.
Histograms of the training symbols (Krichevsky-Trofimov smoothing) code the levels; a level is decoded to the training
centroid of its cell, or to its middle if no training value fell into it.
"""

import torch
from torch import Tensor

from fcbench.codecs.shared.base import CLIP_STD, MapStats
from fcbench.codecs.shared.static import MapQuantizer, StaticPlugin


class _MapQuantizer(MapQuantizer):
    """Quantizer and tables of one map."""

    step: Tensor  # [C, 1, 1]; first, last: [C, 1, 1] symbols of the range's ends; centroids: [C, L]
    mean: Tensor
    first: Tensor
    last: Tensor
    centroids: Tensor

    def __init__(self, stats: MapStats, bits: int) -> None:
        super().__init__()
        low = torch.maximum(stats.low, stats.mean - CLIP_STD * stats.std)
        high = torch.minimum(stats.high, stats.mean + CLIP_STD * stats.std)
        width = high - low
        step = torch.where(width > 0, width / (2**bits - 1), torch.ones_like(width))
        self.register_buffer("step", step)
        self.register_buffer("mean", stats.mean.clone())
        # The rounding of the ends is bounded, because statistics of a new object may be anything.
        self.register_buffer("first", torch.round((low - stats.mean) / step).clamp(-(2**bits), 0))
        self.register_buffer("last", torch.round((high - stats.mean) / step).clamp(0, 2**bits))
        self.register_buffer("centroids", torch.zeros(len(step), 2**bits + 2))
        self.n_tables, self.n_levels = self.centroids.shape

    def quantize(self, x: Tensor) -> Tensor:
        symbols = torch.round((x - self.mean) / self.step)
        levels = torch.minimum(torch.maximum(symbols, self.first), self.last)
        return (levels - self.first).transpose(0, 1).flatten(1).long()

    def dequantize(self, symbols: Tensor, batch: int, grid: tuple[int, int]) -> Tensor:
        maps = self.centroids.gather(1, symbols).unflatten(1, (batch, *grid))
        return maps.transpose(0, 1)

    def learn(self, x: Tensor) -> None:
        n_channels, n_levels = self.centroids.shape
        flat = x.transpose(0, 1).reshape(n_channels, -1).double()
        levels = self.quantize(x)
        counts = torch.zeros(n_channels, n_levels, dtype=torch.float64)
        counts.scatter_add_(1, levels, torch.ones_like(flat))
        sums = torch.zeros_like(counts).scatter_add_(1, levels, flat)
        middle = self.mean[:, :, 0] + (torch.arange(n_levels) + self.first[:, :, 0]) * self.step[:, :, 0]
        self.centroids.copy_(torch.where(counts > 0, sums / counts.clamp(min=1), middle.double()))
        # the coder needs two symbols; one is never sent
        used = ((self.last - self.first).flatten().long() + 1).clamp(min=2)
        self.fill([row[:n] for row, n in zip(counts.numpy(), used.tolist())])


PLUGIN = StaticPlugin("uniform", {"bits": (2, 8)}, [(bits,) for bits in range(2, 7)], _MapQuantizer, normalized=False)
