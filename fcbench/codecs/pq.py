"""Product quantization by k-means, with static entropy coding: the codec ``pq``.

    x --normalize--> groups of `dims` channels --nearest codeword--> [histogram a group] --> bytes --> codewords

The vector-quantized anchor. At every position the channels are cut into groups of ``dims`` neighbours; each group has
its own codebook of 2**bits words, learned by k-means on normalized training vectors (so that every channel's error
counts the same), and one histogram of its training indexes (Krichevsky-Trofimov smoothing), as integer CDFs. Both live
in the checkpoint.

References: Jegou, Douze, Schmid, Product quantization for nearest neighbor search, TPAMI 2011.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from fcbench.codecs._base import CodecBase, Params, fixed_numerics, number, only
from fcbench.codecs._entropy import EntropyTables, Groups
from fcbench.codecs._strings import StringDecoder, StringEncoder
from fcbench.codecs.uniform import frequencies
from fcbench.types import (
    Bitstream,
    Decoded,
    FcbenchError,
    Features,
    FeatureSpec,
    FeatureStats,
)

_MAX_VECTORS = 1 << 13
_N_ITERATIONS = 10
_CHUNK = 4096  # vectors whose distances are held at once


def nearest(x: Tensor, codebook: Tensor) -> Tensor:
    """Index [n] of the nearest of K codewords [K, d] of each vector [n, d]."""
    norms = codebook.square().sum(1)
    return torch.cat(
        [(norms - 2 * part @ codebook.T).argmin(1) for part in x.split(_CHUNK)]
    )


def k_means(x: Tensor, n_codewords: int, generator: torch.Generator) -> Tensor:
    """Codebook [K, d] of vectors [n, d] (Lloyd's iteration from K of the vectors; empty cells start anew)."""
    start = torch.randperm(len(x), generator=generator)
    start = start.repeat(-(-n_codewords // len(x)))[:n_codewords]
    codebook = x[start].clone()
    for _ in range(_N_ITERATIONS):
        index = nearest(x, codebook)
        counts = torch.bincount(index, minlength=n_codewords)
        sums = torch.zeros_like(codebook).index_add_(0, index, x)
        anew = torch.randint(len(x), (n_codewords,), generator=generator)
        means = sums / counts.clamp(min=1)[:, None]
        codebook = torch.where(counts[:, None] > 0, means, x[anew])
    return codebook


class _MapQuantizer(nn.Module):
    """Codebooks [G, K, d] and tables of one map; channels beyond the last are zeros."""

    codebooks: Tensor

    def __init__(self, channels: int, dims: int, bits: int) -> None:
        super().__init__()
        self.channels, self.dims = channels, min(dims, channels)
        self.n_groups = -(-channels // self.dims)
        shape = (self.n_groups, 1 << bits, self.dims)
        self.register_buffer("codebooks", torch.zeros(shape))
        self.tables = EntropyTables()

    def vectors(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to [G, B * h * w, d]."""
        flat = x.permute(1, 0, 2, 3).flatten(1)
        extra = self.n_groups * self.dims - self.channels
        flat = nn.functional.pad(flat, (0, 0, 0, extra))
        return flat.reshape(self.n_groups, self.dims, -1).transpose(1, 2).contiguous()

    def quantize(self, x: Tensor) -> Tensor:
        """Normalized [B, C, h, w] to indexes [G, B * h * w]."""
        return torch.stack(
            [
                nearest(v, book)
                for v, book in zip(self.vectors(x), self.codebooks, strict=True)
            ]
        )

    def dequantize(self, index: Tensor, batch: int, grid: tuple[int, int]) -> Tensor:
        """Indexes [G, B * h * w] to normalized [B, C, h, w]."""
        groups = torch.arange(self.n_groups, device=index.device)[:, None]
        flat = self.codebooks[groups, index].transpose(1, 2)
        maps = flat.reshape(-1, batch, *grid)[: self.channels]
        return maps.transpose(0, 1).contiguous()

    def learn(self, x: Tensor) -> None:
        """Codebooks and histograms from normalized training features [B, C, h, w]."""
        generator = torch.Generator().manual_seed(0)
        vectors = self.vectors(x)
        n = vectors.shape[1]
        some = torch.randperm(n, generator=generator)
        few, many = some[:_MAX_VECTORS], some[: 4 * _MAX_VECTORS]
        n_codewords = self.codebooks.shape[1]
        cdf = torch.zeros(self.n_groups, n_codewords + 1, dtype=torch.int32)
        for group, v in enumerate(vectors):
            self.codebooks[group] = k_means(v[few], n_codewords, generator)
            index = nearest(v[many], self.codebooks[group])
            counts = torch.bincount(index, minlength=n_codewords)
            cdf[group, 1:] = torch.from_numpy(frequencies(counts.numpy()).cumsum())
        lengths = torch.full((self.n_groups,), n_codewords + 1)
        self.tables.fill(cdf, lengths, torch.zeros(self.n_groups), escape=False)

    def bits(self, index: Tensor, batch: int) -> Tensor:
        """Estimated bits [B] of indexes [G, B * h * w]."""
        costs = torch.stack([self.tables.bits(g) for g in range(self.n_groups)])
        each = costs.to(index.device).gather(1, index)
        return each.reshape(self.n_groups, batch, -1).sum(dim=(0, 2)).float()


class ProductQuantizer(CodecBase):
    """``{y: entropy-coded indexes of all maps}``."""

    def __init__(
        self,
        specs: Sequence[FeatureSpec],
        stats: Mapping[str, FeatureStats],
        dims: int,
        bits: int,
    ) -> None:
        super().__init__(specs, stats)
        self.maps = nn.ModuleList(
            _MapQuantizer(s.channels, dims, bits) for s in self.specs
        )

    @property
    def quantizers(self) -> list[_MapQuantizer]:
        """Quantizer of each map, in coding order."""
        return [cast(_MapQuantizer, m) for m in self.maps]

    @fixed_numerics
    def prepare(self, batches: Sequence[Tensor]) -> None:
        """Codebooks and histograms from training features ([B, C, h, w] a map)."""
        for quantizer, stats, x in zip(
            self.quantizers, self.map_stats, batches, strict=True
        ):
            quantizer.learn(stats.normalize(x.float().cpu()))

    def freeze(self) -> None:
        """Check that `prepare` was called."""
        if not all(q.tables.filled for q in self.quantizers):
            raise FcbenchError(
                "codec 'pq' has no codebooks: call prepare() with training features first"
            )
        self.cpu().eval()

    def forward(self, maps: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Quantized maps (gradient passes straight through), and the estimated bits [B]."""
        out, total = [], torch.zeros(())
        for name, quantizer, stats in zip(
            self.names, self.quantizers, self.map_stats, strict=True
        ):
            x = maps[name]
            batch, _, h, w = x.shape
            index = quantizer.quantize(stats.normalize(x.detach()))
            decoded = stats.restore(quantizer.dequantize(index, batch, (h, w)))
            out.append(decoded + (x - x.detach()))
            total = total.to(x.device) + quantizer.bits(index, batch)
        return self.named(out), total

    @fixed_numerics
    def encode(self, features: Features) -> Bitstream:
        """Code one sample."""
        string = StringEncoder()
        for quantizer, stats, x in zip(
            self.quantizers, self.map_stats, self.sample(features), strict=True
        ):
            index = quantizer.quantize(stats.normalize(x))
            symbols = index.flatten().to(torch.int32).numpy()
            string.put(quantizer.tables, symbols, Groups.equal(*index.shape))
        return Bitstream({"y": string.finish()}, string.n_symbols, string.check)

    @fixed_numerics
    def decode(self, payload: bytes, shapes: Mapping[str, tuple[int, int]]) -> Decoded:
        """Decode one sample. Raises `FcbenchError` on damage that can be seen."""
        string, maps = StringDecoder(payload), []
        for quantizer, stats, (h, w) in zip(
            self.quantizers, self.map_stats, self.grid(shapes), strict=True
        ):
            groups = Groups.equal(quantizer.n_groups, h * w)
            index = torch.from_numpy(string.take(quantizer.tables, groups)).long()
            index = index.reshape(quantizer.n_groups, h * w)
            maps.append(stats.restore(quantizer.dequantize(index, 1, (h, w))))
        return Decoded(Features(self.named(maps)), string.n_symbols, string.check)


class _Plugin:
    trained = False

    def sweep(
        self, objective: Literal["mse", "task"]
    ) -> list[dict[str, float | int | str]]:
        """At most 1/2 to 6 bits a scalar, whatever the objective."""
        points = ((16, 8), (8, 8), (4, 8), (2, 8), (1, 6))
        return [{"dims": dims, "bits": bits} for dims, bits in points]

    def build(
        self,
        specs: Sequence[FeatureSpec],
        stats: Mapping[str, FeatureStats],
        params: Params,
    ) -> ProductQuantizer:
        """``dims``: channels a group, 1 to 64; ``bits``: codebooks have 2**bits words, 1 to 12."""
        only(params, "pq", "dims", "bits")
        whole = {}
        for name, high in (("dims", 64), ("bits", 12)):
            value = number(params, name, 1, high)
            if value != int(value):
                raise FcbenchError(f"parameter {name}={value:g} is not a whole number")
            whole[name] = int(value)
        return ProductQuantizer(specs, stats, whole["dims"], whole["bits"])


PLUGIN = _Plugin()
