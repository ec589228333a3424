"""Objects in images: as they are annotated, and as a head finds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the nouns are plain data: importing them imports no torch
    import numpy as np


@dataclass(frozen=True, slots=True)
class Objects:
    """The annotated objects of one image, in pixels of the *original* image: that is where detections are scored."""

    size_px: tuple[int, int]  # (H, W) of the original image; all that a head may take from here to predict
    labels: np.ndarray  # [G] int64, index in the data set's category names
    boxes: np.ndarray  # [G, 4] float64 (x_px, y_px, width_px, height_px), as COCO's files have them
    areas: np.ndarray  # [G] float64, square pixels
    crowd: np.ndarray  # [G] bool; detections inside a crowd count neither as right nor as wrong
    regions: Sequence[Any] = ()  # [G] masks as run-length codes of pycocotools, where the task needs them
    # [G, K, 3] float64 (x_px, y_px, v), where the task needs them; v is 0 absent, 1 occluded, 2 visible
    keypoints: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Detections:
    """What a head finds in one image, in pixels of the original image."""

    labels: np.ndarray  # [D] int64, index in the head's label names
    scores: np.ndarray  # [D]; higher is surer
    boxes: np.ndarray  # [D, 4] (x0_px, y0_px, x1_px, y1_px)
    regions: Sequence[Any] = ()  # [D] masks as run-length codes of pycocotools, where the task needs them
    keypoints: np.ndarray | None = None  # [D, K, 2] (x_px, y_px), where the task needs them
