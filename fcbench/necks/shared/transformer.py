"""The neck of the paper: linear embedding, learnable positions, pre-norm Transformer layers.

    maps -> resize to the finest, concatenate -> 1x1 linear -> + position -> n layers -> norm -> [B, D, h, w]

References:
    Khairi Atani et al., "How Universal Are SAM2 Features?", PCS 2025, arXiv 2510.17051.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcbench.core.errors import FcbenchError
from fcbench.core.features import FeatureSpec
from fcbench.core.tasks import NeckPlugin

HEAD_WIDTH = 32  # Channels per attention head (on a CPU, 32 trains a quarter faster than 16)


def finest_grid(specs: Sequence[FeatureSpec], shapes: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    """(h, w) of the finest map: the grid of the neck's output."""
    if not specs:
        raise FcbenchError("a neck got no split point; it needs at least one")
    missing = [s.name for s in specs if s.name not in shapes]
    if missing:
        raise FcbenchError(f"a neck got no shape for {missing}, only for {sorted(shapes)}")
    placed = [s for s in specs if s.layout == "BCHW"] or specs
    return max((shapes[s.name] for s in placed), key=lambda hw: hw[0] * hw[1])


def heads_of(width: int) -> int:
    """Number of attention heads at a width."""
    if width < 1 or width % HEAD_WIDTH:
        raise FcbenchError(f"neck width must be a multiple of {HEAD_WIDTH}, got {width}")
    return width // HEAD_WIDTH


class Embedding(nn.Module):
    """Linear embedding of the maps and a learnable positional encoding. `specs`: split points, fine to coarse.
    `shapes`: (h, w) of each map. `width`: D."""

    def __init__(self, specs: Sequence[FeatureSpec], shapes: Mapping[str, tuple[int, int]], width: int) -> None:
        super().__init__()
        self.grid = finest_grid(specs, shapes)
        if width < 1:
            raise FcbenchError(f"neck width must be at least 1, got {width}")
        self.specs = tuple(specs)
        self.shapes = {s.name: tuple(shapes[s.name]) for s in specs}
        # tokens without a place are seen everywhere, where others have one
        self.seen_everywhere = {s.name for s in specs if s.layout == "BNC" and len({s.layout for s in specs}) > 1}
        n_tokens = {s.name: shapes[s.name][1] if s.name in self.seen_everywhere else 1 for s in specs}
        self.linear = nn.Conv2d(sum(s.channels * n_tokens[s.name] for s in specs), width, 1)
        self.position = nn.Parameter(torch.empty(1, width, *self.grid))
        nn.init.trunc_normal_(self.position, std=0.02)

    def forward(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Embed maps, each [B, C, h, w], as [B, D, h, w]."""
        for spec in self.specs:
            self._check(spec, maps)
        out: Tensor = self.linear(torch.cat([self._on_grid(s.name, maps[s.name]) for s in self.specs], dim=1))
        return out + self.position

    def _on_grid(self, name: str, m: Tensor) -> Tensor:
        if name in self.seen_everywhere:
            return m.flatten(1)[..., None, None].expand(-1, -1, *self.grid)
        return m if tuple(m.shape[-2:]) == self.grid else F.interpolate(m, size=self.grid, mode="bilinear")

    def _check(self, spec: FeatureSpec, maps: Mapping[str, Tensor]) -> None:
        if spec.name not in maps:
            raise FcbenchError(f"the neck needs the map {spec.name!r}, got {sorted(maps)}")
        shape, expected = tuple(maps[spec.name].shape[1:]), (spec.channels, *self.shapes[spec.name])
        if shape != expected:
            raise FcbenchError(
                f"map {spec.name!r} has shape (C, h, w) = {shape}, expected {expected}: "
                "build the neck for this image size, or resize the images"
            )


class Layer(nn.Module):
    """Pre-norm Transformer encoder layer: self-attention, then a GELU network of ratio 4. `width`: D, a multiple of
    `HEAD_WIDTH`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.n_heads = heads_of(width)
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] to [B, N, D]."""
        b, n, d = x.shape
        qkv = self.qkv(self.norm1(x)).view(b, n, 3, self.n_heads, d // self.n_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, heads, N, D / heads]
        mixed = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, n, d))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class TransformerNeck(nn.Module):
    """Embedding, then ``n_layers`` Transformer layers, then a norm. `embedding`: maps to [B, D, h, w]. `width`: D, a
    multiple of `HEAD_WIDTH`. `n_layers`: its capacity: 2, 4 or 6 in the paper."""

    def __init__(self, embedding: Embedding, width: int, n_layers: int) -> None:
        super().__init__()
        self.embedding = embedding
        self.layers = nn.Sequential(*(Layer(width) for _ in range(n_layers)))
        self.norm = nn.LayerNorm(width)

    def forward(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Output [B, D, h, w] for maps, each [B, C, h, w]."""
        x = self.embedding(maps)
        tokens = self.norm(self.layers(x.flatten(2).transpose(1, 2)))  # [B, h w, D]
        out: Tensor = tokens.transpose(1, 2).reshape(x.shape)
        return out


@dataclass(frozen=True, slots=True)
class TransformerPlugin(NeckPlugin):
    """A Transformer neck with a fixed number of layers."""

    n_layers: int

    def build(self, specs: Sequence[FeatureSpec], shapes: Mapping[str, tuple[int, int]], width: int) -> nn.Module:
        return TransformerNeck(Embedding(specs, shapes, width), width, self.n_layers)
