"""Base of every codec: checks of features and shapes, training statistics, the numeric setting of coding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from fcbench.core.errors import FcbenchError
from fcbench.core.features import Features, FeatureSpec, FeatureStats
from fcbench.core.rules import MAX_IMAGE_PX

MAX_POINTS = 1 << 28  # A sample has at most this many scalars: a damaged shape must not exhaust the memory
CLIP_STD = 6.0  # Quantizers of a fixed range clip values further from the mean


class CodecBase(nn.Module):
    """A codec's training statistics as buffers, and the checks that every codec makes. Maps are in the order of the
    specs; in the state dict they are numbered, because names may contain dots."""

    def __init__(self, specs: Sequence[FeatureSpec], stats: Mapping[str, FeatureStats]) -> None:
        super().__init__()
        if not specs:
            raise FcbenchError("a codec needs at least one feature spec: name a split point")
        self.specs = tuple(specs)
        self.stats = nn.ModuleList(MapStats(stats[s.name], s) for s in specs)

    @property
    def map_stats(self) -> list[MapStats]:
        """Statistics of each map, in coding order."""
        return [cast(MapStats, m) for m in self.stats]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the maps, in coding order."""
        return tuple(s.name for s in self.specs)

    def parts(self, name: str) -> tuple[str, ...]:
        """Names of a part of each map's stream (`Bitstream.parts`), in coding order.

        A codec of one map has the part ``z``, one of several the parts ``z of s3``, ``z of s4``.
        """
        return (name,) if len(self.specs) == 1 else tuple(f"{name} of {spec.name}" for spec in self.specs)

    def prepare(self, batches: Sequence[Tensor]) -> None:
        """Learn nothing from training features."""

    def freeze(self) -> None:
        """Switch to evaluation mode; there is nothing else to freeze."""
        self.eval()

    def sample(self, features: Features) -> list[Tensor]:
        """The maps of one sample on the CPU, each float32 [1, C, h, w], in coding order. Raises `FcbenchError`: other
        maps than the codec's, other channels, more than one sample, empty, NaN or inf."""
        if set(features.maps) != set(self.names):
            raise FcbenchError(
                f"the codec codes the maps {', '.join(self.names)}, the features have "
                f"{', '.join(features.maps) or 'none'}: extract the split points that it was built for"
            )
        self.grid(features.shapes)
        maps = [features.maps[s.name] for s in self.specs]
        for spec, x in zip(self.specs, maps, strict=True):
            if x.dim() != 4 or x.shape[:2] != (1, spec.channels):
                raise FcbenchError(
                    f"map {spec.name!r} has shape {list(x.shape)}; one sample [1, {spec.channels}, h, w] can be coded"
                )
            if not bool(torch.isfinite(x).all()):
                raise FcbenchError(f"map {spec.name!r} holds NaN or inf: such features cannot be coded")
        return [x.detach().to("cpu", torch.float32) for x in maps]

    def grid(self, shapes: Mapping[str, tuple[int, int]]) -> list[tuple[int, int]]:
        """(h, w) of the maps in coding order. Raises `FcbenchError`: missing maps, empty or absurd sizes."""
        if set(shapes) != set(self.names):
            raise FcbenchError(f"shapes are of the maps {', '.join(shapes)}; the codec has {', '.join(self.names)}")
        grid = [shapes[name] for name in self.names]
        if any(h < 1 or w < 1 for h, w in grid):
            raise FcbenchError(f"feature maps of size {grid} are empty: nothing can be coded")
        for spec, (h, w) in zip(self.specs, grid, strict=True):
            if ((h - 1) * spec.stride_px + 1) * ((w - 1) * spec.stride_px + 1) > MAX_IMAGE_PX:
                raise FcbenchError(
                    f"a map {spec.name!r} of {h}x{w} at stride {spec.stride_px} px is of an image of more than "
                    f"{MAX_IMAGE_PX} pixels: use smaller images"
                )
        if sum(s.channels * h * w for s, (h, w) in zip(self.specs, grid, strict=True)) > MAX_POINTS:
            raise FcbenchError(f"feature maps of size {grid} exceed {MAX_POINTS} scalars per sample: use smaller ones")
        return grid

    def named(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Maps in coding order, by name."""
        return dict(zip(self.names, maps, strict=True))


class MapStats(nn.Module):
    """Training statistics of one map as buffers [C, 1, 1]."""

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, stats: FeatureStats, spec: FeatureSpec) -> None:
        super().__init__()
        for name in ("mean", "std", "low", "high"):
            value: Tensor = getattr(stats, name)
            if value.shape != (spec.channels,):
                raise FcbenchError(
                    f"statistic {name!r} of map {spec.name!r} has shape {list(value.shape)}, not [{spec.channels}]"
                )
            self.register_buffer(name, value.detach().float().reshape(-1, 1, 1).clone())
        if not bool((self.std > 0).all()):
            raise FcbenchError(f"standard deviations of map {spec.name!r} must be positive (1 for constant channels)")

    @classmethod
    def identity(cls, spec: FeatureSpec) -> MapStats:
        """Statistics that change nothing."""
        zero, one = torch.zeros(spec.channels), torch.ones(spec.channels)
        return cls(FeatureStats(zero, one, zero, one), spec)

    def normalize(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to zero mean and unit variance over the training set."""
        return (x - self.mean) / self.std

    def restore(self, x: Tensor) -> Tensor:
        """Inverse of `normalize`."""
        return x * self.std + self.mean
