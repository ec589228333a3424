"""Encoders in another arithmetic than float32: another encoder, with a name of its own, to caches, rows and codecs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fcbench.core import registry
from fcbench.core.features import Encoder, Features
from fcbench.core.registry import BFLOAT16


class InBfloat16(Encoder):
    """An encoder whose matrix products and convolutions are bfloat16, by autocast; its maps are float32.

    Its convolutions are channels-last, which a GPU's units for bfloat16 want.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.wrapped = encoder
        self.name = encoder.name + BFLOAT16
        self.specs, self.groups = encoder.specs, encoder.groups
        self.default_split_point, self.weights = encoder.default_split_point, encoder.weights
        self.module = encoder.module.to(memory_format=torch.channels_last)
        self.resizing = encoder.resizing

    def resized_px(self, image_px: tuple[int, int]) -> tuple[int, int]:
        """(H, W) that strides refer to, for images of (H, W)."""
        return self.wrapped.resized_px(image_px)

    def __call__(self, images: Tensor, split_points: Sequence[str]) -> Features:
        """Features of uint8 images [B, 3, H, W] at split points."""
        device = next(self.module.parameters()).device
        with torch.autocast(device.type, torch.bfloat16):
            maps = self.wrapped(images, split_points).maps
        return Features({name: m.float() for name, m in maps.items()})


def build_encoder(name: str, weights: str | None, device: torch.device) -> Encoder:
    """The encoder of ``NAME[:VARIANT]``, or with ``@bfloat16`` behind it the same in bfloat16."""
    encoder = registry.build_encoder(name.removesuffix(BFLOAT16), weights, device)
    return InBfloat16(encoder) if name.endswith(BFLOAT16) else encoder
