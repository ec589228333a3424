"""Product quantization by k-means, with static entropy coding: the codec ``pq``.

    x --normalize--> groups of `dims` channels --nearest codeword--> [one histogram per group] --> bytes --> codewords

The vector-quantized anchor. Each group has its own codebook of 2**bits words, learned by k-means on normalized training
vectors, and one histogram of its training indexes (Krichevsky-Trofimov smoothing); both live in the checkpoint.

References: Jegou, Douze, Schmid, Product quantization for nearest neighbor search, TPAMI 2011.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fcbench.codecs.shared.base import MapStats
from fcbench.codecs.shared.static import MapQuantizer, StaticPlugin

_MAX_VECTORS = 1 << 13
_N_ITERATIONS = 10
_CHUNK = 4096  # vectors whose distances are in memory at a time


def nearest(x: Tensor, codebook: Tensor) -> Tensor:
    """Index [n] of the nearest of K codewords [K, d] of each vector [n, d]."""
    norms = codebook.square().sum(1)
    return torch.cat([(norms - 2 * part @ codebook.T).argmin(1) for part in x.split(_CHUNK)])


def k_means(x: Tensor, n_codewords: int, generator: torch.Generator) -> Tensor:
    """Codebook [K, d] of vectors [n, d] (Lloyd's iteration from K of the vectors; empty cells are restarted)."""
    start = torch.randperm(len(x), generator=generator)
    start = start.repeat(-(-n_codewords // len(x)))[:n_codewords]
    codebook = x[start].clone()
    for _ in range(_N_ITERATIONS):
        index = nearest(x, codebook)
        counts = torch.bincount(index, minlength=n_codewords)
        sums = torch.zeros_like(codebook).index_add_(0, index, x)
        restart = torch.randint(len(x), (n_codewords,), generator=generator)
        means = sums / counts.clamp(min=1)[:, None]
        codebook = torch.where(counts[:, None] > 0, means, x[restart])
    return codebook


class _MapQuantizer(MapQuantizer):
    """Codebooks [G, K, d] and tables of one map; channels beyond the last are zeros."""

    codebooks: Tensor

    def __init__(self, stats: MapStats, dims: int, bits: int) -> None:
        super().__init__()
        self.channels = len(stats.mean)
        self.dims = min(dims, self.channels)
        self.n_tables = -(-self.channels // self.dims)
        self.n_levels = 1 << bits
        self.register_buffer("codebooks", torch.zeros(self.n_tables, self.n_levels, self.dims))

    def vectors(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to [G, B * h * w, d]."""
        flat = x.permute(1, 0, 2, 3).flatten(1)
        extra = self.n_tables * self.dims - self.channels
        flat = F.pad(flat, (0, 0, 0, extra))
        return flat.reshape(self.n_tables, self.dims, -1).transpose(1, 2).contiguous()

    def quantize(self, x: Tensor) -> Tensor:
        return torch.stack([nearest(v, book) for v, book in zip(self.vectors(x), self.codebooks, strict=True)])

    def dequantize(self, symbols: Tensor, batch: int, grid: tuple[int, int]) -> Tensor:
        groups = torch.arange(self.n_tables, device=symbols.device)[:, None]
        flat = self.codebooks[groups, symbols].transpose(1, 2)
        maps = flat.reshape(-1, batch, *grid)[: self.channels]
        return maps.transpose(0, 1).contiguous()

    def learn(self, x: Tensor) -> None:
        generator = torch.Generator().manual_seed(0)
        vectors = self.vectors(x)
        n = vectors.shape[1]
        some = torch.randperm(n, generator=generator)
        few, many = some[:_MAX_VECTORS], some[: 4 * _MAX_VECTORS]
        n_codewords = self.codebooks.shape[1]
        histograms = []
        for group, v in enumerate(vectors):
            self.codebooks[group] = k_means(v[few], n_codewords, generator)
            index = nearest(v[many], self.codebooks[group])
            histograms.append(torch.bincount(index, minlength=n_codewords).numpy())
        self.fill(histograms)


PLUGIN = StaticPlugin(
    "pq", {"dims": (1, 64), "bits": (1, 12)}, ((16, 8), (8, 8), (4, 8), (2, 8), (1, 6)), _MapQuantizer, normalized=True
)
