"""``torchvision:NAME``: torchvision's detection and segmentation networks, cut, with the rest as a tail.

* Detection (tail for ``detection``): ``fasterrcnn_resnet50_fpn``, ``retinanet_resnet50_fpn`` (each also ``_v2``),
  ``fasterrcnn_mobilenet_v3_large_fpn`` and ``_320_fpn``, ``fcos_resnet50_fpn``, ``ssdlite320_mobilenet_v3_large``.
* ``maskrcnn_resnet50_fpn`` and ``_v2`` (also ``instance_segmentation``), ``keypointrcnn_resnet50_fpn``
  (``keypoint_detection``).
* Semantic segmentation (``segmentation``): ``deeplabv3_*``, ``fcn_*``, ``lraspp_mobilenet_v3_large``. They have the 21
  classes of Pascal VOC, the first of which is named ``background`` here.

Split points: ``c2`` to ``c5``, the stages of the trunk by depth (ResNets) or by stride 4 to 32 (MobileNets); ``trunk``,
those that the rest reads, as one sample; ``fpn``, the outputs of the feature pyramid network, as one sample
(``fpn1``, ``fpn2``, ...; the tail computes levels that follow from others).

Tails: detection, instance_segmentation (Mask R-CNN), keypoint_detection (Keypoint R-CNN), segmentation; at ``trunk``,
``fpn``, and each stage from which the tail can be computed: c2 of Faster R-CNN, c2 and c3 of RetinaNet, all of
DeepLabV3.

Detection networks resize every image themselves (`GeneralizedRCNNTransform`: shorter side 800, longer at most 1333,
bilinear; SSDlite 320x320) and pad it to a multiple of 32; rows name this in ``resizing``. Strides count pixels of that
image. ``NAME@400`` resizes to half of it: cheaper, but not its training size. Boxes, masks and keypoints
are returned in pixels of the original image. The official evaluation keeps each image's aspect ratio; a data set whose
images differ in size is first brought to one by --image-size.

Weights: torchvision's defaults, from download.pytorch.org into torch.hub's folder (TORCH_HOME), checked against the
SHA-256 in the file's name.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import detection, segmentation
from torchvision.models.detection import KeypointRCNN, MaskRCNN
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from fcbench.core.errors import FcbenchError, unknown
from fcbench.core.features import EncoderPlugin, WeightsInfo
from fcbench.encoders.shared.padded import IMAGENET, FrozenEncoder, normalized
from fcbench.encoders.shared.weights import freeze, seeded
from fcbench.encoders.torchvision.backbone import backbone_of
from fcbench.encoders.torchvision.tails import DetectionTail, SegmentationTail
from fcbench.encoders.torchvision.weights import load

Size = tuple[int, int]


class TorchvisionEncoder(FrozenEncoder):
    """The backbone of a network, with the network's own resizing.

    `network`: with its weights. `categories`: of its outputs, by index. `side_px`: shorter side to which a
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
        self._rest = network  # everything but the backbone
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
    if transform is None:
        return ""
    if transform.fixed_size:
        width, height = transform.fixed_size
        return f"network: {height}x{width}, bilinear"
    return f"network: shorter side {transform.min_size[-1]}, longer at most {transform.max_size}, bilinear"


UNCUT = ("ssd300_vgg16",)  # Networks that are not cut here: a VGG's features are not coded in practice
MIN_SIDE_PX = 64


def names() -> list[str]:
    """Names of the networks."""
    found = [*models.list_models(module=detection), *models.list_models(module=segmentation)]
    return [name for name in found if name not in UNCUT]


def parse(variant: str) -> tuple[str, int | None]:
    """Name and shorter side [px] from the name as typed; None for the network's own.

    >>> parse("fcos_resnet50_fpn@400")
    ('fcos_resnet50_fpn', 400)
    """
    if not variant:
        raise FcbenchError("torchvision needs a network: torchvision:fasterrcnn_resnet50_fpn")
    name, at, side = variant.partition("@")
    if name not in names():
        raise FcbenchError(unknown("torchvision network", name, names()))
    if not at:
        return name, None
    if name in models.list_models(module=segmentation) or name.startswith("ssd"):
        raise FcbenchError(f"torchvision:{variant}: {name} has no shorter side to set after @: give --image-size")
    if not side.isdigit() or int(side) < MIN_SIDE_PX:
        raise FcbenchError(
            f"torchvision:{variant}: the shorter side after @ is {side!r}: at least {MIN_SIDE_PX} pixels"
        )
    return name, int(side)


def create(name: str) -> nn.Module:
    """A network with the architecture of its published weights, and random weights."""
    auxiliary = {"aux_loss": True} if name.startswith(("deeplabv3", "fcn")) else {}
    return cast(nn.Module, models.get_model(name, weights=None, weights_backbone=None, **auxiliary))


@dataclass(frozen=True)
class Plugin(EncoderPlugin):
    """torchvision's networks."""

    def build(self, variant: str, weights: str | None, device: torch.device) -> TorchvisionEncoder:
        name, side_px = parse(variant)
        with seeded():
            network = create(name)
        published = models.get_model_weights(name).DEFAULT
        info = load(f"torchvision:{variant}", name, network, published.url, weights)
        return TorchvisionEncoder(
            f"torchvision:{variant}", network, published.meta["categories"], info, device, side_px
        )


PLUGIN = Plugin()
