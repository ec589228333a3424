"""Another data set with the aspect ratio of its images kept: letterbox:NAME fits them into --image-size, and pads.

Images are padded at the bottom and on the right. Objects are found in pixels of the original image extended by the
padding, in which its annotations stay as they are. Bits per pixel count the pixels of the original image, as ever;
padding is coded, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as rle
from torch import Tensor

from fcbench.core import registry
from fcbench.core.cache import digest
from fcbench.core.errors import FcbenchError
from fcbench.core.samples import STRETCHED, VOID, DataOptions, Dataset, DatasetPlugin, Objects, Pose, Sample
from fcbench.data.shared.images import LazyTargets, resize_image, resize_nearest, resize_pose

Size = tuple[int, int]
PADDING = (124, 116, 104)
"""ImageNet's mean colour: zero for networks that normalize with it."""


def fitted(size_px: Size, into_px: Size) -> tuple[Size, Size]:
    """(H, W) of an image resized to fit into a size, and (H, W) of that size in pixels of the image.

    >>> fitted((480, 640), (256, 256))
    ((192, 256), (640, 640))
    """
    scale = min(into / own for into, own in zip(into_px, size_px))
    height, width = (max(1, min(into, round(own * scale))) for into, own in zip(into_px, size_px))
    canvas_h, canvas_w = (max(own, round(into / scale)) for into, own in zip(into_px, size_px))
    return (height, width), (canvas_h, canvas_w)


class Letterboxed(Dataset):
    """A split whose images are brought to one size with their aspect ratio kept; None: each keeps its own size.

    Args:
        own: the split, opened without a size.

    Raises:
        FcbenchError: it has no images, resizes them by itself, or scores in a crop of them, which padding would move.
    """

    def __init__(self, own: Dataset, size_px: Size | None) -> None:
        for wrong, why in (
            (not own.has_images, "has no images"),
            (own.resizing != STRETCHED, f"resizes images itself ({own.resizing})"),
            (own.meta.eval_crop, "scores depth in a crop of the image, which padding would move"),
        ):
            if wrong:
                raise FcbenchError(f"data set {own.name!r} {why}: use it without letterbox:")
        self.own, self.image_size_px, self.resizing = own, size_px, "letterbox"
        self.split, self.tasks, self.meta, self.absent = own.split, own.tasks, own.meta, own.absent
        self.name, self.revision = f"letterbox:{own.name}", digest({"letterbox": own.revision})

    def __len__(self) -> int:
        return len(self.own)

    def __getitem__(self, index: int) -> Sample:
        sample = self.own[index]
        if self.image_size_px is None:
            return sample
        image = resize_image(sample.image, fitted(sample.size_px, self.image_size_px)[0])
        whole = torch.tensor(PADDING, dtype=torch.uint8)[:, None, None].repeat(1, *self.image_size_px)
        whole[:, : image.shape[1], : image.shape[2]] = image
        return replace(sample, image=whole)

    def targets(self, index: int) -> Mapping[str, Any]:
        own = self.own.targets(index)
        if self.image_size_px is None:
            return own
        return LazyTargets(self.tasks, partial(self._target, own, index, self.image_size_px))

    def _target(self, own: Mapping[str, Any], index: int, into_px: Size, task: str) -> Any:
        target = own[task]
        if isinstance(target, Pose):  # which does not tell the size of its image
            size_px = self.own[index].size_px
            return resize_pose(target, size_px, fitted(size_px, into_px)[0])
        if isinstance(target, Objects):
            return _extended(target, fitted(target.size_px, into_px)[1])
        return _padded(torch.as_tensor(target), into_px) if isinstance(target, Tensor | np.ndarray) else target

    def sizes(self) -> Mapping[str, Size]:
        return self.own.sizes()


def _padded(plane: Tensor, into_px: Size) -> Tensor:
    """A mask (uint8) or depth map [H, W] in the padded image."""
    height, width = fitted((plane.shape[0], plane.shape[1]), into_px)[0]
    nothing = VOID if plane.dtype == torch.uint8 else 0
    beside = (0, into_px[1] - width, 0, into_px[0] - height)
    return F.pad(resize_nearest(plane, (height, width)), beside, value=nothing)


def _extended(objects: Objects, size_px: Size) -> Objects:
    """Objects in their image extended to a size; boxes and keypoints stay where they are."""
    (height, width), regions = objects.size_px, []
    for region in objects.regions:
        mask = np.zeros(size_px, np.uint8, order="F")
        mask[:height, :width] = rle.decode(region)
        regions.append(rle.encode(mask))
    return replace(objects, size_px=size_px, regions=regions)


@dataclass(frozen=True)
class Letterbox(DatasetPlugin):
    """The plug-in of ``letterbox:NAME``."""

    of: str = ""

    @property
    def tasks(self) -> tuple[str, ...]:  # type: ignore[override]
        return registry.get("dataset", self.of).tasks if self.of else ()

    @property
    def needs_root(self) -> bool:  # type: ignore[override]
        return bool(self.of) and registry.get("dataset", self.of).needs_root

    def variant(self, name: str) -> Letterbox:
        registry.get("dataset", name)
        return Letterbox(name)

    def open(self, split: Literal["train", "test"], options: DataOptions) -> Dataset:
        if not self.of:
            raise FcbenchError("data set 'letterbox' needs another one: give --dataset letterbox:NAME")
        own = registry.get("dataset", self.of).open(split, replace(options, image_size_px=None))
        return Letterboxed(own, options.image_size_px)


PLUGIN = Letterbox()
