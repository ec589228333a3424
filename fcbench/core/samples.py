"""Samples, and what a data set must do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:  # the nouns are plain data: importing them imports no torch
    import numpy as np
    from torch import Tensor


VOID = 255
"""Class index of a pixel that no loss and no metric counts."""


@dataclass(frozen=True, slots=True)
class Pose:
    """The persons of one image.

    Attributes:
        keypoints: [P, 17, 3] float32 (x_px, y_px, v), COCO order; v is 0 absent, 1 occluded, 2 visible.
        boxes: [P, 4] float32 (x0_px, y0_px, x1_px, y1_px).
        areas: [P] float32, square pixels of the person's mask (the scale of OKS).
    """

    keypoints: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray


@dataclass(frozen=True, slots=True)
class Sample:
    """One image and what is known of it.

    ``targets`` by task, maps as arrays or tensors: ``segmentation`` uint8 [H, W] class index or `VOID`; ``depth``
    float32 [H, W] metres, 0 where invalid; ``pose`` `Pose`; ``captioning`` tuple of reference captions;
    ``classification`` int.
    """

    id: str
    image: Tensor  # uint8 [3, H, W], RGB
    targets: Mapping[str, Any]
    size_px: tuple[int, int]  # (H, W) of the original image: the denominator of bpp


@dataclass(frozen=True, slots=True)
class DatasetMeta:
    """What a head must know of a data set. Empty where the data set does not carry the task."""

    class_names: tuple[str, ...] = ()  # segmentation
    label_names: tuple[str, ...] = ()  # classification
    max_depth_m: float | None = None
    task_models: Mapping[str, str] = field(default_factory=dict)
    """``NAME[:VARIANT]`` of the task model that fits the data set, by task: the default of ``--head frozen``."""
    eval_crop: tuple[float, float, float, float] | None = (
        None  # of published depth metrics: top, bottom, left, right as shares of the image
    )


@dataclass(frozen=True, slots=True)
class DataOptions:
    """How to open a data set.

    Attributes:
        root: folder of the data on disk; None for the embedded data.
        cache_dir: where a data set may keep what it made (rendered scenes).
        image_size_px: (H, W) every image and its targets are resized to; None keeps each image's own.
        limit: at most so many samples of the split, the first ones; None for all.
    """

    root: Path | None
    cache_dir: Path
    image_size_px: tuple[int, int] | None = None
    limit: int | None = None


class Dataset(Protocol):
    """One split of a data set."""

    name: str
    split: str
    revision: str  # hash of what determines the samples (generator version, file list)
    tasks: tuple[str, ...]
    meta: DatasetMeta
    image_size_px: tuple[int, int] | None  # of every image; None: each its own

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """Read a sample. Raises `UnreadableSample` naming the file."""

    def targets(self, index: int) -> Mapping[str, Any]:
        """The sample's targets alone, without decoding the image where that can be had."""


class DatasetPlugin(Protocol):
    """``PLUGIN`` of a file in ``fcbench/data``."""

    tasks: tuple[str, ...]
    needs_root: bool

    def open(self, split: Literal["train", "test"], options: DataOptions) -> Dataset:
        """Open a split. Raises `FcbenchError`: which layout was expected where, and how to get it."""
