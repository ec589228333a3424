"""The frame of the official encoders: images normalized and padded, maps cropped to what their strides promise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Features, FeatureSpec, WeightsInfo
from fcbench.encoders.shared.weights import freeze


def promised(spec: FeatureSpec, size_px: tuple[int, int]) -> tuple[int, int, int]:
    """(C, h, w) of a map for an image of (H, W)."""
    h, w = (-(-v // spec.stride_px) for v in size_px)
    return spec.channels, h, w


def pad_to(images: Tensor, multiple: int) -> Tensor:
    """Repeat edge pixels of [B, 3, H, W] right and below up to multiples."""
    right, below = -images.shape[-1] % multiple, -images.shape[-2] % multiple
    if not right and not below:
        return images
    return F.pad(images, (0, right, 0, below), mode="replicate")


def check_splits(name: str, specs: Mapping[str, FeatureSpec], splits: Sequence[str]) -> None:
    """Refuse a split point that an encoder does not have.

    Raises:
        FcbenchError: with the nearest that it has.
    """
    for split in splits:
        if split not in specs:
            raise FcbenchError(registry.unknown(f"split point of {name}", split, specs))


def variant_of(model: str, variant: str, variants: Mapping[str, str]) -> str:
    """The variant typed, or the first one.

    Raises:
        FcbenchError: there is no such variant.
    """
    chosen = variant or next(iter(variants))
    if chosen not in variants:
        raise FcbenchError(registry.unknown(f"variant of {model}", chosen, variants))
    return chosen


class PaddedEncoder(ABC):
    """A frozen encoder whose image sides must be multiples of some pixels (a `fcbench.core.features.Encoder`).

    Other sizes are padded (edge pixels repeated, right and bottom); the maps are cropped to the shape promised.
    """

    groups: Mapping[str, tuple[str, ...]]
    default_split = "stage3"  # stride 16, at the same depth in every Hiera
    multiple_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __init__(
        self, name: str, module: nn.Module, specs: Mapping[str, FeatureSpec], weights: WeightsInfo, device: torch.device
    ) -> None:
        """Freeze a module, its weights loaded.

        Args:
            name: as typed, ``sam2:tiny``.
            module: the encoder alone.
            specs: its split points, fine to coarse.
            weights: where its weights came from.
            device: where it runs.
        """
        self.name, self.specs, self.weights = name, specs, weights
        self.module = freeze(module).to(device)
        self._device = device
        self._mean = torch.tensor(self.mean, device=device).view(-1, 1, 1)
        self._std = torch.tensor(self.std, device=device).view(-1, 1, 1)

    def __call__(self, images: Tensor, splits: Sequence[str]) -> Features:
        """Features of uint8 images [B, 3, H, W] at the split points asked for.

        Raises:
            FcbenchError: a split point that the encoder does not have.
        """
        check_splits(self.name, self.specs, splits)
        size_px = (int(images.shape[-2]), int(images.shape[-1]))
        with torch.inference_mode():
            x = (images.to(self._device).float() / 255 - self._mean) / self._std
            maps = self.maps(pad_to(x, self.multiple_px), splits)
        cropped = {}
        for name in (n for n in self.specs if n in splits):
            _, h, w = promised(self.specs[name], size_px)
            # a copy made here is no inference tensor: a neck can be trained on it
            cropped[name] = maps[name][..., :h, :w].clone(memory_format=torch.contiguous_format)
        return Features(cropped)

    @abstractmethod
    def maps(self, x: Tensor, splits: Sequence[str]) -> Mapping[str, Tensor]:
        """Maps [B, C, h, w], at least those asked for, of normalized images [B, 3, H, W] of admitted sides."""
