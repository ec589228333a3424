"""DeepLabV3's head as published on MobileNetV2: one convolution and the mean of the map, no dilated branches.

Reference: Chen et al., *Rethinking Atrous Convolution for Semantic Image Segmentation*, 2017.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation import LRASPP_MobileNet_V3_Large_Weights

from fcbench.encoders.shared.segmenting import Segmenting

CLASSES = ("background", *LRASPP_MobileNet_V3_Large_Weights.COCO_WITH_VOC_LABELS_V1.meta["categories"][1:])
"""PASCAL VOC's."""


class Head(nn.Module):
    """Map [B, 320, h, w] to logits [B, 21, h, w]; layers in order of execution."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.Conv2d(320, 256, 1)
        self.whole = nn.Conv2d(320, 256, 1)
        self.both = nn.Conv2d(512, 256, 1)
        self.logits = nn.Conv2d(256, len(CLASSES), 1)

    def forward(self, x: Tensor) -> Tensor:
        cells, whole = self.cells(x).relu(), self.whole(x.mean((2, 3), keepdim=True)).relu()
        both = torch.cat([whole.expand_as(cells), cells], 1)
        return cast(Tensor, self.logits(self.both(both).relu()))


class DeepLab(nn.Module):
    """Trunk and head: scaled images [B, 3, H, W] to logits [B, 21, h, w] at stride 16."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk, self.head = trunk, Head()

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.trunk(x)[-1]))


class DeepLabTail(Segmenting):
    """The rest of the network after a block; logits are enlarged corner to corner, as published."""

    label_names = CLASSES

    def __init__(self, network: DeepLab, split_point: str, block: int, image_px: tuple[int, int]) -> None:
        super().__init__()
        trunk: Any = network.trunk
        self.network = nn.Sequential(*trunk.blocks[block + 1 :], network.head)
        self.split_point, self.image_px = split_point, image_px

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        """Logits [B, 21, H, W]."""
        device = next(self.parameters()).device
        logits = self.network(x[self.split_point].to(device))
        return F.interpolate(logits, size=self.image_px, mode="bilinear", align_corners=True)
