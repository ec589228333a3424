"""Tails of torchvision's networks: their own forward pass, with received maps instead of the backbone."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from pycocotools import mask as rle
from torch import Tensor, nn

from fcbench.core.samples import Detections, Objects
from fcbench.core.tasks import Head
from fcbench.encoders.shared.segmenting import Segmenting
from fcbench.encoders.torchvision.backbone import Backbone

NOTHING = ("__background__", "no person", "N/A")  # Placeholder categories: their detections are dropped
SURE = 0.5  # Minimum score of a detection that replaces an annotated object
LEAST_SIDE_PX = 1  # Minimum side of its box: the networks' losses refuse empty boxes
MASK_THRESHOLD = 0.5


class Received(nn.Module):
    """Stands in for a backbone in its network, computing its outputs from received maps. `backbone`:
    whole; only the layers that run here become layers of this module. `split_points`: of the maps."""

    def __init__(self, backbone: Backbone, split_points: Sequence[str]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(backbone.rest(split_points))
        self._resume, self.split_points = backbone.resume, tuple(split_points)
        self.maps: Mapping[str, Tensor] = {}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Inputs of the heads; the images are blank."""
        return self._resume(self.maps)


class _Tail(nn.Module):
    """A network whose backbone is `Received`."""

    def __init__(self, network: Any, backbone: Backbone, split_points: Sequence[str]) -> None:
        super().__init__()
        self.received = network.backbone = Received(backbone, split_points)
        self.network = network

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return next(self.network.parameters()).device

    def run(self, x: Mapping[str, Tensor], *arguments: Any) -> Any:
        """The network's own forward pass on received maps [B, C, h, w] by split point."""
        self.received.maps = {name: x[name].to(self.device) for name in self.received.split_points}
        try:
            return self.network(*arguments)
        finally:
            self.received.maps = {}


class DetectionTail(_Tail, Head):
    """The rest of a detection network (a `fcbench.core.tasks.Tail`).

    Predictions are in pixels of the original image; the network's own transform scales them back. `network`: a
    detection network; its transform resizes blank images of any size to the encoded size. `categories`: of its
    labels. `task`: ``detection``, ``instance_segmentation`` or ``keypoint_detection``.
    """

    def __init__(
        self, network: Any, backbone: Backbone, split_points: Sequence[str], categories: Sequence[str], task: str
    ) -> None:
        super().__init__(network, backbone, split_points)
        self.task = task
        own = [i for i, name in enumerate(categories) if name not in NOTHING]
        self.label_names = tuple(categories[i] for i in own)
        self._labels = np.full(len(categories), -1)  # the network's label -> index in label_names
        self._labels[own] = np.arange(len(own))
        if task == "detection" and getattr(getattr(network, "roi_heads", None), "mask_predictor", None) is not None:
            network.roi_heads.mask_roi_pool = network.roi_heads.mask_head = network.roi_heads.mask_predictor = None

    def forward(self, x: Mapping[str, Tensor], sizes_px: Sequence[tuple[int, int]]) -> list[dict[str, Tensor]]:
        """Output of the network for each sample, for original images of (H, W)."""
        found = []
        for i, size_px in enumerate(sizes_px):  # one by one, so that the output does not depend on the batch
            blank = torch.zeros(3, *size_px, device=self.device)
            found += self.run({name: m[i : i + 1] for name, m in x.items()}, [blank])
        return found

    def predict(self, x: Mapping[str, Tensor], batch: Sequence[Objects]) -> list[Detections]:
        """Detections of each sample; only the sizes of the original images are used from the batch."""
        return [self._detections(found) for found in self(x, [objects.size_px for objects in batch])]

    def _detections(self, found: Mapping[str, Tensor]) -> Detections:
        labels = self._labels[found["labels"].cpu().numpy()]
        kept = np.flatnonzero(labels >= 0)
        values = {k: found[k].detach().cpu().numpy()[kept] for k in ("scores", "boxes", "keypoints") if k in found}
        regions: list[Any] = []
        if self.task == "instance_segmentation":
            masks = (found["masks"].detach()[:, 0] > MASK_THRESHOLD).cpu().numpy().astype(np.uint8)
            regions = [rle.encode(np.asfortranarray(masks[i])) for i in kept]
        keypoints = values["keypoints"][..., :2] if "keypoints" in values else None
        return Detections(labels[kept], values["scores"], values["boxes"], regions, keypoints)

    def loss(self, x: Mapping[str, Tensor], batch: Sequence[Objects]) -> Tensor:
        """Sum of the network's own training losses, averaged over the samples; crowds are left out."""
        return self._loss(x, [self._targets(objects) for objects in batch], [o.size_px for o in batch])

    def imitation_loss(self, x: Mapping[str, Tensor], uncoded: Mapping[str, Tensor]) -> Tensor:
        """`loss` against the tail's detections in the uncoded maps with a score of at least `SURE`."""
        height, width = self.network.transform.fixed_size[::-1]
        sizes_px = [(height, width)] * len(next(iter(x.values())))
        with torch.no_grad():
            found = self(uncoded, sizes_px)
        targets = []
        for one in found:
            sides = one["boxes"][:, 2:] - one["boxes"][:, :2]
            sure = (one["scores"] >= SURE) & (sides >= LEAST_SIDE_PX).all(1)
            target = {k: v[sure] for k, v in one.items() if k in ("boxes", "labels", "keypoints", "masks")}
            if "masks" in target:
                target["masks"] = (target["masks"][:, 0] > MASK_THRESHOLD).byte()
            targets.append(target)
        return self._loss(x, targets, sizes_px)

    def _loss(
        self, x: Mapping[str, Tensor], targets: Sequence[Mapping[str, Tensor]], sizes_px: Sequence[tuple[int, int]]
    ) -> Tensor:
        losses = []
        with self._stating_losses():
            for i, (target, size_px) in enumerate(zip(targets, sizes_px)):
                blank = torch.zeros(3, *size_px, device=self.device)
                found = self.run({name: m[i : i + 1] for name, m in x.items()}, [blank], [dict(target)])
                losses.append(torch.stack([v for v in found.values() if v.requires_grad or v.isfinite()]).sum())
        return torch.stack(losses).mean()

    def _targets(self, objects: Objects) -> dict[str, Tensor]:
        kept = np.flatnonzero(~objects.crowd & (objects.boxes[:, 2:] > 0).all(1))
        corners = np.concatenate([objects.boxes[:, :2], objects.boxes[:, :2] + objects.boxes[:, 2:]], 1)[kept]
        labels = np.argsort(self._labels, kind="stable")[-len(self.label_names) :][objects.labels[kept]]
        found = {"boxes": torch.from_numpy(corners).float(), "labels": torch.from_numpy(labels)}
        if objects.keypoints is not None:
            found["keypoints"] = torch.from_numpy(objects.keypoints[kept]).float()
        if self.task == "instance_segmentation":
            masks = [rle.decode(objects.regions[i]) for i in kept]
            found["masks"] = torch.from_numpy(np.asarray(masks, np.uint8).reshape(-1, *objects.size_px))
        return {k: v.to(self.device) for k, v in found.items()}

    @contextmanager
    def _stating_losses(self) -> Iterator[None]:
        """Make the parts that return losses or detections return losses; normalization is unchanged."""
        parts = [self.network, *(getattr(self.network, n) for n in ("rpn", "roi_heads") if hasattr(self.network, n))]
        for part in parts:
            part.training = True
        try:
            yield
        finally:
            for part in parts:
                part.training = False


class SegmentationTail(_Tail, Segmenting):
    """The rest of a segmentation network (a `fcbench.core.tasks.Tail`). `categories`: of its classes. `image_px`: (H,
    W) of the images."""

    def __init__(
        self,
        network: Any,
        backbone: Backbone,
        split_points: Sequence[str],
        categories: Sequence[str],
        image_px: tuple[int, int],
    ) -> None:
        super().__init__(network, backbone, split_points)
        self.label_names = tuple("background" if name in NOTHING else name for name in categories)
        self.image_px = image_px

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        """Logits [B, K, H, W] at the images' size."""
        n = len(next(iter(x.values())))
        blank = torch.zeros(1, device=self.device).expand(n, 3, *self.image_px)
        return cast(Tensor, self.run(x, blank)["out"])
