"""Base of the tasks that are scored by COCO's average precision.

A head's ``predict`` returns a `fcbench.core.samples.Detections` per image; `coco_ap` says what is stored of it. No
probability of the annotated objects is stated, so there is no usable information.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from fcbench.core.errors import FcbenchError
from fcbench.core.samples import Dataset, Detections, Objects, require_tasks
from fcbench.core.tasks import MetricSpec, RankingTask, TaskPlugin
from fcbench.tasks.shared import coco_ap
from fcbench.tasks.shared.targets import require_same

PROTOCOL = "COCOeval, original pixels"


class DetectingTask(RankingTask):
    """Objects that a network finds by itself, scored by AP. No head can be trained: only tails are measured. `name`: of
    the plug-in. `kind`: type of comparison. `category_names`: by label."""

    def __init__(self, name: str, kind: coco_ap.Kind, category_names: Sequence[str]) -> None:
        self.name, self.kind, self.category_names = name, kind, tuple(category_names)
        self.metrics = tuple(MetricSpec(metric, True, "", PROTOCOL) for metric in coco_ap.metric_names(kind))
        self.n_statistics = coco_ap.n_statistics(kind, len(category_names))

    def head(self, width: int, grid: tuple[int, int], image_px: tuple[int, int]) -> nn.Module:
        raise FcbenchError(
            f"{self.name} has no trainable head: use --head tail and an encoder with a tail for it, "
            "such as torchvision:fasterrcnn_resnet50_fpn"
        )

    def collate(self, targets: Sequence[Mapping[str, Any]]) -> tuple[Objects, ...]:
        """The objects of each image."""
        batch: tuple[Objects, ...] = tuple(t[self.name] for t in targets)
        for objects in batch:
            n, wrong = len(objects.labels), objects.labels[(objects.labels < 0) | (objects.labels >= self._n)]
            if wrong.size:
                raise FcbenchError(f"{self.name}: label {wrong[0]} of an object is not one of {self._n} categories")
            shapes = objects.boxes.shape, objects.areas.shape, objects.crowd.shape
            if shapes != ((n, 4), (n,), (n,)):
                raise FcbenchError(f"{self.name}: boxes, areas, crowd of {n} objects have the shapes {shapes}")
        return batch

    def statistics(self, prediction: Sequence[Detections], batch: Sequence[Objects]) -> np.ndarray:
        """`coco_ap.image_statistics` of each image, float64 [B, S]."""
        if len(prediction) != len(batch):
            raise FcbenchError(f"{self.name}: a head predicted {len(prediction)} images of {len(batch)}")
        rows = [coco_ap.image_statistics(self.kind, o, found, self._n) for found, o in zip(prediction, batch)]
        return np.asarray(rows, np.float64).reshape(len(batch), self.n_statistics)

    def weighted_values(self, stats: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
        return coco_ap.metric_values(stats, weights, self.kind)

    @property
    def _n(self) -> int:
        return len(self.category_names)


@dataclass(frozen=True)
class DetectingPlugin(TaskPlugin):
    """A task of this kind as a plug-in."""

    name: str
    kind: coco_ap.Kind
    needs_coco_keypoints: bool = False  # COCO's OKS has constants only for its own 17 keypoints

    def build(self, train: Dataset, test: Dataset) -> DetectingTask:
        require_tasks([self.name], train, test)
        names = [tuple(data.meta.names(self.name)) for data in (train, test)]
        if self.needs_coco_keypoints and test.meta.keypoint_names:
            raise FcbenchError(
                f"{self.name} needs COCO's 17 keypoints, data set {test.name!r} has {len(test.meta.keypoint_names)} "
                "of its own"
            )
        return DetectingTask(self.name, self.kind, require_same("categories", *names))

    def weighted_values(self, stats: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
        """`DetectingTask.weighted_values`, without a data set."""
        return coco_ap.metric_values(stats, weights, self.kind)

    values = RankingTask.values
