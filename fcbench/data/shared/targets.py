"""Targets: resized with their image, made on request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from fcbench.core.samples import Pose

PHOTOGRAPHS = {"segmentation": "sam2_masks", "depth": "depth_anything", "pose": "vitpose", "captioning": "blip"}
"""Task models for photographs: the default of ``--head frozen`` there."""


def resize_nearest(plane: Tensor, size_px: tuple[int, int]) -> Tensor:
    """Resize a mask or a depth map [H, W] to (H, W) without making new values."""
    if plane.shape == size_px:
        return plane
    return F.interpolate(plane[None, None], size_px, mode="nearest-exact")[0, 0]


def resize_pose(pose: Pose, old_px: tuple[int, int], new_px: tuple[int, int]) -> Pose:
    """Scale keypoints, boxes and areas with an image resized from one (H, W) to another."""
    sy, sx = new_px[0] / old_px[0], new_px[1] / old_px[1]
    scale = np.array([sx, sy, 1.0], dtype=np.float32)
    return Pose(
        keypoints=pose.keypoints * scale,
        boxes=pose.boxes * np.array([sx, sy, sx, sy], dtype=np.float32),
        areas=pose.areas * np.float32(sx * sy),
    )


def resize_targets(targets: Mapping[str, Any], old_px: tuple[int, int], new_px: tuple[int, int]) -> dict[str, Any]:
    """Targets by task, resized with their image from one (H, W) to another. Targets without a place in the image
    (captions, a label) are returned as they are."""

    def one(target: Any) -> Any:
        if isinstance(target, Tensor):
            return resize_nearest(target, new_px)
        return resize_pose(target, old_px, new_px) if isinstance(target, Pose) else target

    return {task: one(target) for task, target in targets.items()}


class LazyTargets(Mapping[str, Any]):
    """Targets by task, each made on request: reading a pose decodes no mask."""

    def __init__(self, tasks: Sequence[str], make: Callable[[str], Any]) -> None:
        self._tasks, self._make = tuple(tasks), make

    def __getitem__(self, task: str) -> Any:
        if task not in self._tasks:
            raise KeyError(task)
        return self._make(task)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)
