"""Base of frozen encoders: images normalized and padded, maps cropped to the size that follows from their strides."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcbench.core.errors import FcbenchError, unknown
from fcbench.core.features import Encoder, Features, FeatureSpec, WeightsInfo, require_split_points
from fcbench.encoders.shared.weights import freeze

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # Mean and deviation of RGB in [0, 1]


def promised(spec: FeatureSpec, size_px: tuple[int, int]) -> tuple[int, int, int]:
    """(C, h, w) of a map for an image of (H, W)."""
    h, w = (-(-v // spec.stride_px) for v in size_px)
    return spec.channels, h, w


def normalized(images: Tensor, normalization: tuple[Sequence[float], Sequence[float]], levels: int = 1) -> Tensor:
    """uint8 images [B, 3, H, W] less their mean, divided by their deviation, float32.

    `normalization`: mean and deviation of RGB in [0, 1]. `levels`: divisor of pixels beforehand: 255, or 1 for
    statistics that are multiplied by 255 instead. Official pipelines differ in this, and features in their last bits.
    """
    mean, std = (torch.tensor(v, device=images.device).view(-1, 1, 1) * (255 / levels) for v in normalization)
    return (images.float() / levels - mean) / std


def pad_to(images: Tensor, multiple: int) -> Tensor:
    """Pad [B, 3, H, W] by repeating edge pixels on the right and below, up to multiples of `multiple`."""
    right, below = -images.shape[-1] % multiple, -images.shape[-2] % multiple
    if not right and not below:
        return images
    return F.pad(images, (0, right, 0, below), mode="replicate")


def variant_of(model: str, variant: str, variants: Mapping[str, Any]) -> str:
    """The variant as typed, or the first one if none was. Raises `FcbenchError`: there is no such variant."""
    chosen = variant or next(iter(variants))
    if chosen not in variants:
        raise FcbenchError(unknown(f"variant of {model}", chosen, variants))
    return chosen


class FrozenEncoder(Encoder, ABC):
    """A frozen module that computes maps at split points."""

    def __init__(
        self, name: str, module: nn.Module, specs: Mapping[str, FeatureSpec], weights: WeightsInfo, device: torch.device
    ) -> None:
        """Freeze a module with its weights. `name`: as typed, ``sam2:tiny``. `module`: the encoder alone. `specs`:
        its split points, fine to coarse. `weights`: origin of its weights. `device`: where it runs."""
        self.name, self.specs, self.weights, self.device = name, specs, weights, device
        self.module = freeze(module).to(device)

    def __call__(self, images: Tensor, split_points: Sequence[str]) -> Features:
        require_split_points(self.name, self.specs, split_points)
        with torch.inference_mode():
            maps = self.maps(images.to(self.device), split_points)
        # a copy made here is not an inference tensor, so a neck can be trained on it
        return Features(
            {n: maps[n].clone(memory_format=torch.contiguous_format) for n in self.specs if n in split_points}
        )

    @abstractmethod
    def maps(self, images: Tensor, split_points: Sequence[str]) -> Mapping[str, Tensor]:
        """Maps [B, C, h, w], at least the requested ones, of uint8 images [B, 3, H, W]."""


class PaddedEncoder(FrozenEncoder):
    """A frozen encoder whose image sides must be multiples of `multiple_px`. Other sizes are padded (edge pixels
    repeated, right and below); maps are cropped to the promised size."""

    default_split_point = "stage3"  # stride 16, at the same depth in every Hiera
    multiple_px: int = 32  # pixels of which image sides must be multiples
    normalization: tuple[Sequence[float], Sequence[float]] = IMAGENET  # mean and deviation of RGB in [0, 1]
    levels: int = 255  # see `normalized`

    def maps(self, images: Tensor, split_points: Sequence[str]) -> Mapping[str, Tensor]:
        x = pad_to(normalized(images, self.normalization, self.levels), self.multiple_px)
        found, size_px = self.run(x, split_points), (int(images.shape[-2]), int(images.shape[-1]))
        cropped = {}
        for name in split_points:
            expected = self.specs[name].channels, *self.grid(name, size_px)
            cropped[name] = found[name][..., : expected[1], : expected[2]]
            if cropped[name].shape[1:] != expected:
                shape = list(cropped[name].shape[1:])
                raise ValueError(f"{name} is {shape}, it should be {list(expected)}")
        return cropped

    @abstractmethod
    def run(self, x: Tensor, split_points: Sequence[str]) -> Mapping[str, Tensor]:
        """Maps [B, C, h, w], at least the requested ones, of normalized images [B, 3, H, W] of admitted sides."""
