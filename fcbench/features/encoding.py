"""Encoders that compute in bfloat16 or compiled; caches, rows and codecs tell them apart by name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fcbench.core import registry
from fcbench.core.features import Encoder, Features
from fcbench.core.registry import BFLOAT16, COMPILED
from fcbench.core.tasks import TailedEncoder

BACKEND = "inductor"
"""Compiler of encoders and necks; it needs a C++ compiler."""


class _Wrapped(Encoder):
    """An encoder that computes another encoder's maps in another way."""

    def __init__(self, encoder: Encoder, end: str) -> None:
        self.wrapped, self.module = encoder, encoder.module
        self.name = encoder.name + end
        self.specs, self.groups = encoder.specs, encoder.groups
        self.default_split_point, self.weights = encoder.default_split_point, encoder.weights
        self.resizing, self.tails = encoder.resizing, getattr(encoder, "tails", {})

    def resized_px(self, image_px: tuple[int, int]) -> tuple[int, int]:
        """(H, W) that strides refer to, for images of (H, W)."""
        return self.wrapped.resized_px(image_px)

    def grid(self, split_point: str, image_px: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of a map for images of (H, W)."""
        return self.wrapped.grid(split_point, image_px)

    def tail(self, task: str, split_point: str, image_px: tuple[int, int]) -> nn.Module:
        """The plain encoder's tail, for the same maps."""
        assert isinstance(self.wrapped, TailedEncoder)
        return self.wrapped.tail(task, split_point, image_px)


class InBfloat16(_Wrapped):
    """An encoder whose matrix products and convolutions are bfloat16, by autocast; its maps are float32.

    Its convolutions are channels-last, which suits a GPU's bfloat16 units.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder, BFLOAT16)
        self.module.to(memory_format=torch.channels_last)

    def __call__(self, images: Tensor, split_points: Sequence[str]) -> Features:
        """Features of uint8 images [B, 3, H, W] at split points."""
        device = next(self.module.parameters(), images).device
        with torch.autocast(device.type, torch.bfloat16):
            maps = self.wrapped(images, split_points).maps
        return Features({name: m.float() for name, m in maps.items()})


class Compiled(_Wrapped):
    """An encoder that PyTorch compiles when it is first used."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder, COMPILED)
        self._call = torch.compile(encoder.__call__, backend=BACKEND)

    def __call__(self, images: Tensor, split_points: Sequence[str]) -> Features:
        """Features of uint8 images [B, 3, H, W] at split points."""
        return self._call(images, split_points)


def build_encoder(name: str, weights: str | None, device: torch.device) -> Encoder:
    """The encoder of ``NAME[:VARIANT]``, with the suffix ``@bfloat16`` or ``@compiled`` computing in that way."""
    encoder = registry.build_encoder(registry.plain(name), weights, device)
    if name.removesuffix(COMPILED).endswith(BFLOAT16):
        encoder = InBfloat16(encoder)
    return Compiled(encoder) if name.endswith(COMPILED) else encoder
