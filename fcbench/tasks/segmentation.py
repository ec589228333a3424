"""Semantic segmentation: mean intersection over union, pixel accuracy.

The head predicts at stride 4 and is trained at that resolution, on the target pixel under each cell's centre. It is
evaluated at the full resolution of the target: logits are resized (bilinear), then the largest one gives the class.
Void pixels do not count. Classes that occur neither in targets nor in predictions of the set are left out of the mean.

A head's ``predict`` returns class indices, int64 or uint8 [B, H, W], at the targets' size.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcbench.core.errors import FcbenchError
from fcbench.core.samples import VOID, Dataset, require_tasks
from fcbench.core.tasks import MetricSpec, ProbabilisticHead, Task, TaskPlugin
from fcbench.tasks.shared.dense import DenseHead
from fcbench.tasks.shared.targets import ratio, require_maps, require_same, require_size, stack_maps


def class_counts(pred: np.ndarray, target: np.ndarray, n_classes: int) -> np.ndarray:
    """True positives, predicted pixels and target pixels of each class: [B, 3 K] float64. `pred`: [B, H, W] class
    index. `target`: [B, H, W] class index or `VOID`. `n_classes`: K."""
    rows = []
    for p, t in zip(pred, target):
        pairs = (p.astype(np.int32) * (VOID + 1) + t).ravel()
        counts = np.bincount(pairs, minlength=n_classes * (VOID + 1))
        table = counts.reshape(n_classes, VOID + 1)[:, :n_classes]  # predicted, target
        rows.append([table.diagonal(), table.sum(1), table.sum(0)])
    return np.asarray(rows, np.float64).reshape(len(pred), 3 * n_classes)


class SegmentationHead(DenseHead, ProbabilisticHead):
    """Logits at stride 4: [B, D, h, w] to [B, K, h', w']."""

    def loss(self, x: Tensor, batch: Tensor) -> Tensor:
        """Mean cross-entropy in nats over the cells that are not void, at the head's resolution."""
        logits, target = self._with_targets(x, batch)
        total = F.cross_entropy(logits, target, ignore_index=VOID, reduction="sum")
        return total / (target != VOID).sum().clamp(min=1)

    def predict(self, x: Tensor, batch: Tensor) -> Tensor:
        """Class indices at the images' size, int64 [B, H, W]."""
        return self.full(self(x)).max(dim=1).indices  # argmax is ten times slower

    def log_likelihood(self, x: Tensor, batch: Tensor) -> Tensor:
        """Log-probability of each sample's mask in nats, summed over the cells that are not void: [B]."""
        logits, target = self._with_targets(x, batch)
        nll = F.cross_entropy(logits, target, ignore_index=VOID, reduction="none")
        return -nll.flatten(1).sum(1)

    def _with_targets(self, x: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, K, h', w'] and classes [B, h', w']."""
        require_size("segmentation", batch.shape, self.image_px)
        logits = self(x)
        size = (logits.shape[-2], logits.shape[-1])
        return logits, self.at_centres(batch.to(x.device).long(), size, VOID)


def segmentation_values(sums: np.ndarray) -> dict[str, np.ndarray]:
    """``miou`` and ``pixel_accuracy``, [...], of sums [..., 3 K]."""
    k = sums.shape[-1] // 3
    tp, pred, target = sums[..., :k], sums[..., k : 2 * k], sums[..., 2 * k :]
    iou = ratio(tp, pred + target - tp)
    miou = ratio(np.nansum(iou, -1), np.isfinite(iou).sum(-1))
    return {"miou": miou, "pixel_accuracy": ratio(tp.sum(-1), target.sum(-1))}


class SegmentationTask(Task):
    """Segmentation into K classes. `n_classes`: K, at most 255. `class_names`: their names, which a frozen decoder
    compares with its own; may be empty."""

    name = "segmentation"
    metrics: tuple[MetricSpec, ...] = (MetricSpec("miou", True), MetricSpec("pixel_accuracy", True))

    def __init__(self, n_classes: int, class_names: Sequence[str] = ()) -> None:
        if not 1 <= n_classes <= VOID:
            raise FcbenchError(f"segmentation needs 1 to {VOID} classes, got {n_classes}")
        self.class_names = tuple(class_names)
        self.n_classes = n_classes
        self.n_statistics = 3 * n_classes

    def head(self, width: int, grid: tuple[int, int], image_px: tuple[int, int]) -> nn.Module:
        return SegmentationHead(width, grid, image_px, self.n_classes)

    def collate(self, targets: Sequence[Mapping[str, Any]]) -> Tensor:
        """Masks, uint8 [B, H, W]."""
        masks = stack_maps(targets, self.name, np.int32)
        wrong = masks[((masks >= self.n_classes) & (masks != VOID)) | (masks < 0)]
        if wrong.size:
            raise FcbenchError(
                f"a segmentation mask holds class index {int(wrong[0])}; "
                f"allowed are 0 to {self.n_classes - 1} and {VOID} (void). Check the class list"
            )
        return torch.from_numpy(masks.astype(np.uint8))

    def statistics(self, prediction: Tensor, batch: Tensor) -> np.ndarray:
        """True positives, predicted and target pixels per class, float64 [B, 3 K]."""
        require_maps(self.name, prediction, batch)
        return class_counts(prediction.cpu().numpy(), batch.cpu().numpy(), self.n_classes)

    values = staticmethod(segmentation_values)


class SegmentationPlugin(TaskPlugin):
    """Segmentation."""

    def build(self, train: Dataset, test: Dataset) -> Task:
        require_tasks(["segmentation"], train, test)
        names = require_same("segmentation classes", train.meta.class_names, test.meta.class_names)
        return SegmentationTask(len(names), names)

    values = staticmethod(segmentation_values)


PLUGIN = SegmentationPlugin()
