"""torchvision's networks as encoders that have tails."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import KeypointRCNN, MaskRCNN
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from fcbench.core.features import WeightsInfo
from fcbench.encoders.shared.padded import IMAGENET, FrozenEncoder, normalized
from fcbench.encoders.shared.weights import freeze
from fcbench.encoders.torchvision.backbone import backbone_of
from fcbench.encoders.torchvision.tails import DetectionTail, SegmentationTail

Size = tuple[int, int]


class TorchvisionEncoder(FrozenEncoder):
    """The backbone of a network, with the resizing that the network itself does.

    `network`: with its weights. `categories`: of its outputs, by their places. `side_px`: shorter side to which a
    detection network resizes; None for its own.
    """

    def __init__(
        self,
        name: str,
        network: Any,
        categories: Sequence[str],
        weights: WeightsInfo,
        device: torch.device,
        side_px: int | None = None,
    ) -> None:
        backbone = backbone_of(network)
        super().__init__(name, backbone, backbone.specs, weights, device)
        self.backbone, self.groups = backbone, backbone.groups
        self._categories = tuple(categories)
        self._rest = network  # all but the backbone
        self._rest.backbone, self._rest.aux_classifier = nn.Identity(), None
        self._transform: Any = getattr(network, "transform", None)
        if side_px and self._transform is not None:
            transform = self._transform
            transform.max_size = round(transform.max_size * side_px / transform.min_size[-1])
            transform.min_size = (side_px,)
        freeze(self._rest).to(device)
        single = [n for n in backbone.resumable if n in backbone.specs]
        self.default_split_point = single[-1]
        self.tails = {task: backbone.resumable for task in _tasks_of(network)}
        self.resizing = _described(self._transform)

    def resized_px(self, image_px: Size) -> Size:
        return image_px if self._transform is None else self._resized(image_px)[1]

    def maps(self, images: Tensor, split_points: Sequence[str]) -> Mapping[str, Tensor]:
        if self._transform is None:
            return self.backbone.maps(normalized(images, IMAGENET, 255), split_points)
        resized, _ = self._transform(list(images.float() / 255))
        return self.backbone.maps(resized.tensors, split_points)

    def tail(self, task: str, split_point: str, image_px: Size) -> nn.Module:
        """The rest of the network after a split point or group that `tails` names."""
        received = self.groups.get(split_point, (split_point,))
        rest: Any = copy.deepcopy(self._rest)
        if self._transform is None:
            return freeze(SegmentationTail(rest, self.backbone, received, self._categories, image_px))
        own, (height, width) = self._transform, self._resized(image_px)[0]
        rest.transform = GeneralizedRCNNTransform(
            own.min_size, own.max_size, own.image_mean, own.image_std, own.size_divisible, (width, height)
        )
        return freeze(DetectionTail(rest, self.backbone, received, self._categories, task))

    def _resized(self, image_px: Size) -> tuple[Size, Size]:
        """(H, W) of an image as the network resizes it, and with its padding."""
        images, _ = self._transform([torch.zeros(3, *image_px)])
        (size,), (height, width) = images.image_sizes, images.tensors.shape[-2:]
        return size, (int(height), int(width))


def _tasks_of(network: nn.Module) -> tuple[str, ...]:
    if not hasattr(network, "transform"):
        return ("segmentation",)
    if isinstance(network, KeypointRCNN):
        return ("keypoint_detection",)
    return ("detection", "instance_segmentation") if isinstance(network, MaskRCNN) else ("detection",)


def _described(transform: Any) -> str:
    """What a network does to its images before it reads them, in words."""
    if transform is None:
        return ""
    if transform.fixed_size:
        width, height = transform.fixed_size
        return f"network: {height}x{width}, bilinear"
    return f"network: shorter side {transform.min_size[-1]}, longer at most {transform.max_size}, bilinear"
