"""Samples, and the protocol of data sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from fcbench.core.errors import FcbenchError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

VOID = 255  # Class index of pixels that no loss and no metric counts
OBJECTS = ("detection", "instance_segmentation", "keypoint_detection")  # Tasks that find objects: they need their areas
COCO_KEYPOINTS = tuple(
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist "
    "right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle".split()
)


@dataclass(frozen=True, slots=True)
class Pose:
    """The persons, or other bodies, of one image."""

    # [P, K, 3] float32 (x_px, y_px, v), in the order of ``DatasetMeta.keypoint_names``, else the 17 of COCO; v is 0
    # absent, 1 occluded, 2 visible
    keypoints: np.ndarray
    boxes: np.ndarray  # [P, 4] float32 (x0_px, y0_px, x1_px, y1_px)
    areas: np.ndarray  # [P] float32, square pixels of the person's mask (the scale of OKS)


@dataclass(frozen=True, slots=True)
class Sample:
    """One image; its targets are read separately (`Dataset.targets`)."""

    id: str
    image: Tensor  # uint8 [3, H, W], RGB
    size_px: tuple[int, int]  # (H, W) of the original image: the denominator of bpp


@dataclass(frozen=True, slots=True)
class DatasetMeta:
    """Facts about a data set that tasks need; a field is empty if the data set does not support its task."""

    class_names: tuple[str, ...] = ()  # of segmentation, by class index
    label_names: tuple[str, ...] = ()  # of classification, by label
    max_depth_m: float | None = None  # upper limit of valid depth
    # ``NAME[:VARIANT]`` of the task model that fits the data set, by task: the default of ``--head frozen``
    task_models: Mapping[str, str] = field(default_factory=dict)
    # crop of published depth metrics: top, bottom, left, right as shares of the image
    eval_crop: tuple[float, float, float, float] | None = None
    keypoint_names: tuple[str, ...] = ()  # of pose, by keypoint; empty for the 17 of COCO
    # of tasks that find objects, by task, then label
    category_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    commands: Mapping[str, str] = field(default_factory=dict)  # of the user, by the task whose metric they print
    lower_is_better: bool = False  # of the numbers that these print

    def names(self, task: str) -> tuple[str, ...]:
        """Names of a task's output classes or keypoints, by index; empty for a task without classes."""
        known = {"segmentation": self.class_names, "classification": self.label_names, **self.category_names}
        return known.get(task, ())


@dataclass(frozen=True, slots=True)
class DataOptions:
    """How to open a data set."""

    root: Path | None  # folder of the data on disk; None for embedded data
    cache_dir: Path  # for data made once (rendered scenes) or read once (digests of files)
    # (H, W) to which images and targets are resized; None keeps each image's own size
    image_size_px: tuple[int, int] | None = None
    limit: int | None = None  # the first samples of the split, at most this many; None for all
    metric_command: str | None = None  # of the user; reads decoded features


STRETCHED = "stretched"
"""Images resized bilinearly with antialiasing to one size, maps to the nearest pixel; the aspect ratio may change."""


class Dataset(Protocol):
    """One split of a data set. Subclass it to inherit the defaults. It must be picklable (several processes read
    images), and the same index must always give the same sample."""

    name: str  # of the plug-in
    split: str  # ``train`` or ``test``; the two have no image in common
    revision: str  # hash of what determines the samples (generator version, contents of files); part of every cache key
    tasks: tuple[str, ...]  # names of the tasks that it has targets for
    meta: DatasetMeta  # facts that its tasks need
    image_size_px: tuple[int, int] | None  # (H, W) of every image; None where each has its own size
    resizing: str = STRETCHED  # how images and targets are brought to it, by name, where they had another size
    has_images: bool = True  # else its samples hold features, for the one encoder that knows them
    # task -> why the split lacks it, in one line that says what was expected where
    absent: Mapping[str, str] = MappingProxyType({})

    def __len__(self) -> int:
        """Number of samples, at least 1."""

    def __getitem__(self, index: int) -> Sample:
        """Read an image; its id is unique in the split. Raises `UnreadableSample`: this image cannot be read (the
        message names its file); `FcbenchError`: no image can be read any more."""

    def targets(self, index: int) -> Mapping[str, Any]:
        """Targets of a sample by task, for the image at its final size [H, W]; the image need not be decoded.

        Maps are arrays or tensors: ``segmentation`` uint8 [H, W], class index or `VOID`; ``depth`` float32 [H, W],
        metres, 0 where invalid; ``pose`` a `Pose`; ``captioning`` a tuple of reference captions; ``classification`` an
        int; tasks that find objects a `fcbench.core.samples.Objects`, in pixels of the *original* image. Raises
        `UnreadableSample`: a target cannot be read or does not fit its image; the message names its file.
        """

    def sizes(self) -> Mapping[str, tuple[int, int]]:
        """(H, W) of the images before resizing, by file, if known without decoding them; empty if unknown."""
        return {}


def require_one_size(*datasets: Dataset) -> None:
    """Refuse splits whose images differ in size and are not resized. No image is decoded. Raises `FcbenchError`: two
    images differ."""
    sizes = {name: size for data in datasets if data.image_size_px is None for name, size in data.sizes().items()}
    first = next(iter(sizes.items()), None)
    others = [item for item in sizes.items() if first and item[1] != first[1]]
    if first and others:
        (name, (h, w)), (other, (other_h, other_w)) = first, others[0]
        raise FcbenchError(
            f"images differ in size: {name} is {h}x{w}, {other} is {other_h}x{other_w}, "
            f"{len(set(sizes.values()))} sizes in all: give --image-size to bring all to one"
        )


def require_tasks(tasks: Iterable[str], *datasets: Dataset) -> None:
    """Refuse splits that lack the targets of a task. Raises `FcbenchError`: names the first missing task, with the
    reason if the data set states it."""
    for data, task in product(datasets, tasks):
        if task not in data.tasks:
            has = ", ".join(data.tasks) or "none"
            missing = f"data set {data.name!r} ({data.split}) has no targets for task {task!r}; it has: {has}"
            raise FcbenchError(data.absent.get(task) or missing)


class DatasetPlugin(Protocol):
    """``PLUGIN`` of a module in ``fcbench/data``. Subclass it to inherit the defaults."""

    tasks: tuple[str, ...]  # names of the tasks that its splits can have targets for
    needs_root: bool = True  # whether ``--data-root`` must be given

    def variant(self, name: str) -> DatasetPlugin:
        """The plug-in of ``NAME:VARIANT``. Raises `FcbenchError`: it has no variants."""
        raise FcbenchError(f"this data set has no variants, got {name!r}: leave the variant out")

    def open(self, split: Literal["train", "test"], options: DataOptions) -> Dataset:
        """Open a split. Raises `FcbenchError`: the data are missing, incomplete or laid out differently; the message
        says which layout was expected where, and how to get the data."""


@dataclass(frozen=True, slots=True)
class Objects:
    """The annotated objects of one image, in pixels of the *original* image, where detections are scored."""

    size_px: tuple[int, int]  # (H, W) of the original image; the only field that a head may use to predict
    labels: np.ndarray  # [G] int64, index in the data set's category names
    boxes: np.ndarray  # [G, 4] float64 (x_px, y_px, width_px, height_px), as COCO's files have them
    areas: np.ndarray  # [G] float64, square pixels
    crowd: np.ndarray  # [G] bool; detections inside a crowd count neither as right nor as wrong
    regions: Sequence[Any] = ()  # [G] masks as run-length codes of pycocotools, where the task needs them
    # [G, K, 3] float64 (x_px, y_px, v), where the task needs them; v is 0 absent, 1 occluded, 2 visible
    keypoints: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Detections:
    """Objects that a head finds in one image, in pixels of the original image."""

    labels: np.ndarray  # [D] int64, index in the head's label names
    scores: np.ndarray  # [D]; higher is surer
    boxes: np.ndarray  # [D, 4] (x0_px, y0_px, x1_px, y1_px)
    regions: Sequence[Any] = ()  # [D] masks as run-length codes of pycocotools, where the task needs them
    keypoints: np.ndarray | None = None  # [D, K, 2] (x_px, y_px), where the task needs them
