"""Per-channel uniform quantizer with static entropy coding: the codec ``uniform``.

    x --clip to training range--> round((x - mean) / step) --per-channel histogram--> bytes --> centroids

Everything that the decoder needs comes from the training split and lives in the checkpoint:

- The range of a channel is [low, high] of the training features within six standard deviations of the mean: with
  one outlier in the thousands, a quantizer of few bits would otherwise have all its levels where nothing is.
- ``bits`` sets the step: the range over 2**bits - 1. The grid stands on the training mean, so that the most common
  values share one level even at 2 bits; test values outside the range are clipped to its outermost levels.
- Entropy coding is static: one histogram a channel, of the training symbols (Krichevsky-Trofimov smoothing), as
  integer CDFs. A test sample of a few thousand symbols is too short to learn 100 histograms of its own.
- A level is decoded to the training centroid of its cell, to its middle where training never came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from fcbench.codecs._base import (
    CodecBase,
    MapStats,
    Params,
    fixed_numerics,
    number,
    only,
)
from fcbench.codecs._entropy import EntropyTables, Groups
from fcbench.codecs._escapes import PRECISION_BITS
from fcbench.codecs._strings import StringDecoder, StringEncoder
from fcbench.types import (
    Bitstream,
    Decoded,
    FcbenchError,
    Features,
    FeatureSpec,
    FeatureStats,
)

_CLIP_STD = 6.0


def frequencies(histogram: np.ndarray) -> np.ndarray:
    """Integer frequencies [L], all positive, with sum 65536, of counts [L] smoothed by one half each.

    References: Krichevsky and Trofimov, The performance of universal encoding, 1981.
    """
    share = (histogram + 0.5) / (histogram.sum() + 0.5 * len(histogram))
    free = (1 << PRECISION_BITS) - len(histogram)
    counts = 1 + np.floor(share * free).astype(np.int64)
    counts[counts.argmax()] += (1 << PRECISION_BITS) - counts.sum()
    return counts


class _MapQuantizer(nn.Module):
    """Quantizer and tables of one map.

    Attributes:
        step: [C, 1, 1]; first, last: [C, 1, 1] symbols of the range's ends; centroids: [C, L].
    """

    step: Tensor
    mean: Tensor
    first: Tensor
    last: Tensor
    centroids: Tensor

    def __init__(self, stats: MapStats, bits: int) -> None:
        super().__init__()
        low = torch.maximum(stats.low, stats.mean - _CLIP_STD * stats.std)
        high = torch.minimum(stats.high, stats.mean + _CLIP_STD * stats.std)
        width = high - low
        step = torch.where(width > 0, width / (2**bits - 1), torch.ones_like(width))
        self.register_buffer("step", step)
        self.register_buffer("mean", stats.mean.clone())
        # The rounding of the ends is bounded, so that statistics of a fresh object may be anything.
        self.register_buffer(
            "first", torch.round((low - stats.mean) / step).clamp(-(2**bits), 0)
        )
        self.register_buffer(
            "last", torch.round((high - stats.mean) / step).clamp(0, 2**bits)
        )
        self.register_buffer("centroids", torch.zeros(len(step), 2**bits + 2))
        self.tables = EntropyTables()

    def quantize(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to non-negative levels, float."""
        symbols = torch.round((x - self.mean) / self.step)
        return torch.minimum(torch.maximum(symbols, self.first), self.last) - self.first

    def dequantize(self, levels: Tensor) -> Tensor:
        """[B, C, h, w] levels to centroids."""
        b, c, h, w = levels.shape
        flat = levels.long().transpose(0, 1).reshape(c, -1)
        return self.centroids.gather(1, flat).reshape(c, b, h, w).transpose(0, 1)

    def learn(self, x: Tensor) -> None:
        """Histograms and centroids from training features [B, C, h, w]."""
        n_channels, n_levels = self.centroids.shape
        flat = x.transpose(0, 1).reshape(n_channels, -1).double()
        levels = self.quantize(x).transpose(0, 1).reshape(n_channels, -1).long()
        counts = torch.zeros(n_channels, n_levels, dtype=torch.float64)
        counts.scatter_add_(1, levels, torch.ones_like(flat))
        sums = torch.zeros_like(counts).scatter_add_(1, levels, flat)
        middle = (
            self.mean[:, :, 0]
            + (torch.arange(n_levels) + self.first[:, :, 0]) * self.step[:, :, 0]
        )
        self.centroids.copy_(
            torch.where(counts > 0, sums / counts.clamp(min=1), middle.double())
        )
        used = (self.last - self.first).flatten().long() + 1
        self._fill(
            counts.numpy(), used.clamp(min=2).tolist()
        )  # the coder needs two symbols; one is never sent

    def _fill(self, counts: np.ndarray, used: list[int]) -> None:
        cdf = torch.zeros(len(counts), max(used) + 1, dtype=torch.int32)
        for row, histogram, n in zip(cdf, counts, used, strict=True):
            row[1 : n + 1] = torch.from_numpy(frequencies(histogram[:n]).cumsum())
        self.tables.fill(
            cdf, torch.tensor(used) + 1, torch.zeros(len(used)), escape=False
        )

    def bits(self, levels: Tensor) -> Tensor:
        """Estimated bits [B] of levels [B, C, h, w]."""
        costs = [self.tables.bits(t) for t in range(levels.shape[1])]
        table = nn.utils.rnn.pad_sequence(costs, batch_first=True).to(levels.device)
        flat = levels.long().permute(1, 0, 2, 3).reshape(levels.shape[1], -1)
        each = table.gather(1, flat).reshape(levels.shape[1], levels.shape[0], -1)
        return each.sum(dim=(0, 2)).float()


class Uniform(CodecBase):
    """``{y: entropy-coded levels of all maps}``."""

    def __init__(
        self, specs: Sequence[FeatureSpec], stats: Mapping[str, FeatureStats], bits: int
    ) -> None:
        super().__init__(specs, stats)
        self.maps = nn.ModuleList(_MapQuantizer(s, bits) for s in self.map_stats)

    @property
    def quantizers(self) -> list[_MapQuantizer]:
        """Quantizer of each map, in coding order."""
        return [cast(_MapQuantizer, m) for m in self.maps]

    @torch.no_grad()
    def prepare(self, batches: Sequence[Tensor]) -> None:
        """Histograms and centroids from training features ([B, C, h, w] a map)."""
        for quantizer, x in zip(self.quantizers, batches, strict=True):
            quantizer.learn(x.float().cpu())

    def freeze(self) -> None:
        """Check that `prepare` was called."""
        if not all(q.tables.filled for q in self.quantizers):
            raise FcbenchError(
                "codec 'uniform' has no histograms: call prepare() with training features first"
            )
        self.cpu().eval()

    def forward(self, maps: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Quantized maps (gradient passes straight through), and the estimated bits [B]."""
        out, total = [], torch.zeros(())
        for name, quantizer in zip(self.names, self.quantizers, strict=True):
            x = maps[name]
            levels = quantizer.quantize(x.detach())
            out.append(quantizer.dequantize(levels) + (x - x.detach()))
            total = total.to(x.device) + quantizer.bits(levels)
        return self.named(out), total

    @fixed_numerics
    def encode(self, features: Features) -> Bitstream:
        """Code one sample."""
        string = StringEncoder()
        for quantizer, x in zip(self.quantizers, self.sample(features), strict=True):
            symbols = quantizer.quantize(x).flatten().to(torch.int32).numpy()
            string.put(
                quantizer.tables,
                symbols,
                Groups.equal(x.shape[1], x.shape[2] * x.shape[3]),
            )
        return Bitstream({"y": string.finish()}, string.n_symbols, string.check)

    @fixed_numerics
    def decode(self, payload: bytes, shapes: Mapping[str, tuple[int, int]]) -> Decoded:
        """Decode one sample. Raises `FcbenchError` on damage that can be seen."""
        string, maps = StringDecoder(payload), []
        for spec, quantizer, (h, w) in zip(
            self.specs, self.quantizers, self.grid(shapes), strict=True
        ):
            symbols = string.take(quantizer.tables, Groups.equal(spec.channels, h * w))
            maps.append(
                quantizer.dequantize(
                    torch.from_numpy(symbols).reshape(1, spec.channels, h, w)
                )
            )
        return Decoded(Features(self.named(maps)), string.n_symbols, string.check)


class _Plugin:
    trained = False

    def sweep(
        self, objective: Literal["mse", "task"]
    ) -> list[dict[str, float | int | str]]:
        """2 to 6 bits, whatever the objective."""
        return [{"bits": bits} for bits in range(2, 7)]

    def build(
        self,
        specs: Sequence[FeatureSpec],
        stats: Mapping[str, FeatureStats],
        params: Params,
    ) -> Uniform:
        """``bits``: 2 to 8."""
        only(params, "uniform", "bits")
        bits = number(params, "bits", 2, 8)
        if bits != int(bits):
            raise FcbenchError(f"parameter bits={bits:g} is not a whole number")
        return Uniform(specs, stats, int(bits))


PLUGIN = _Plugin()
