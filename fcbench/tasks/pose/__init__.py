"""Human pose in given boxes (the ground-truth-box protocol): PCK@0.1, OKS, COCO's AP.

The head predicts one map of logits per keypoint, [B, K, h', w'] at stride 4. For each person only the cells that the
box touches (widened by 20 %, clipped to the image) count: their softmax is the probability of the keypoint's cell.

    logits [B, K, h', w'] -> rows of the persons [P, K, h', w'] -> -inf outside the box -> softmax over h' w'

Training: cross-entropy against the keypoint's bilinear weights on its four nearest cells. Decoding: the cell with the
largest logit, refined by the mean position under the softmax in the 3x3 cells around it. Keypoints count where v > 0,
persons if at least one keypoint is labelled.

A head's ``predict`` takes the batch's boxes and returns, for its P persons in order, keypoints (x_px, y_px) [P, K, 2]
in pixels of the image and scores [P] in [0, 1] (higher is surer). ``ap`` ranks persons by these scores; it is COCO's
keypoint AP with ground-truth boxes, in pixels of the resized image, over persons with a labelled keypoint that are no
crowds. COCOeval also knows the others and ignores predictions near them: of the predictions for the same boxes, those
that match nobody else but such a person are wrong here, so ``ap`` is at most COCOeval's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fcbench.core.errors import FcbenchError
from fcbench.core.samples import Dataset, Pose, require_tasks
from fcbench.core.tasks import MetricSpec, ProbabilisticHead, Task, TaskPlugin
from fcbench.tasks.pose.metrics import (
    COCO_SIGMAS,
    N_AP_STATISTICS,
    ap_statistics,
    average_precision,
    equal_sigmas,
    oks,
    pck_counts,
)
from fcbench.tasks.shared.dense import DenseHead
from fcbench.tasks.shared.targets import ratio, require_same

BOX_MARGIN = 0.1  # Share of a box's width and height added on each side (20 % in total)


BOXES = "ground-truth boxes"  # Origin of the boxes: part of every metric's protocol


@dataclass(frozen=True, slots=True)
class PoseBatch:
    """The persons of a batch of images."""

    n_images: int  # B
    image: Tensor  # [P] int64, the image of each person
    keypoints: Tensor  # [P, K, 3] (x_px, y_px, v)
    boxes: Tensor  # [P, 4] (x0_px, y0_px, x1_px, y1_px)
    areas: Tensor  # [P] square pixels


def cells_in_boxes(
    boxes: Tensor, size: tuple[int, int], cell_px: tuple[float, float], image_px: tuple[int, int]
) -> Tensor:
    """Cells that each widened and clipped box touches, bool [P, h', w']; at least one per box. `boxes`: [P, 4] (x0_px,
    y0_px, x1_px, y1_px). `size`: (h', w'). `cell_px`: (height, width) of a cell. `image_px`: (H, W)."""
    sides = []
    for low, high, n, cell, limit in (
        (boxes[:, 1], boxes[:, 3], size[0], cell_px[0], image_px[0]),
        (boxes[:, 0], boxes[:, 2], size[1], cell_px[1], image_px[1]),
    ):
        margin = BOX_MARGIN * (high - low)
        first = (low - margin).clamp(0, limit - 1).div(cell).floor().clamp(max=n - 1)
        last = (high + margin).clamp(1, limit).div(cell).ceil().sub(1).clamp(max=n - 1)
        at = torch.arange(n, device=boxes.device)
        sides.append((at >= first[:, None]) & (at <= torch.maximum(first, last)[:, None]))
    return sides[0][:, :, None] & sides[1][:, None, :]


def bilinear_targets(points: Tensor, inside: Tensor, cell_px: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """The four nearest cells of each keypoint and their weights, each [P, K, 4].

    Cells outside the box have weight 0 and the others sum to one; all are 0 if none is inside. `points`: [P, K, 2]
    (x_px, y_px). `inside`: [P, h', w'] cells of the person. `cell_px`: (height, width) of a cell.
    """
    n_persons, h, w = inside.shape
    cells_xy = points[..., 0] / cell_px[1], points[..., 1] / cell_px[0]
    at = torch.stack(cells_xy, -1) - 0.5  # in cells, from the centre of the first one
    base = at.floor()
    part = at - base
    cells, weights = [], []
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        x, y = base[..., 0] + dx, base[..., 1] + dy
        weight = (part[..., 0] - (1 - dx)).abs() * (part[..., 1] - (1 - dy)).abs()
        within = (x >= 0) & (x < w) & (y >= 0) & (y < h)
        index = (y.clamp(0, h - 1) * w + x.clamp(0, w - 1)).long()
        within &= inside.flatten(1).gather(1, index)
        cells.append(index)
        weights.append(weight * within)
    weight = torch.stack(weights, -1)
    total = weight.sum(-1, keepdim=True)
    return torch.stack(cells, -1), weight / total.clamp(min=1e-6)


def peaks(log_probs: Tensor, cell_px: tuple[float, float]) -> Tensor:
    """Positions (x_px, y_px) of the largest cells, refined in their 3x3 neighbourhood: [P, K, 2]. `log_probs`: [P, K,
    h', w'], -inf outside the box. `cell_px`: (height, width) of a cell."""
    h, w = log_probs.shape[-2:]
    best = log_probs.flatten(2).argmax(-1)  # [P, K]
    step = torch.arange(-1, 2, device=log_probs.device)
    dy, dx = step.repeat_interleave(3), step.repeat(3)  # [9]
    y, x = (best // w)[..., None] + dy, (best % w)[..., None] + dx  # [P, K, 9]
    within = (x >= 0) & (x < w) & (y >= 0) & (y < h)
    index = y.clamp(0, h - 1) * w + x.clamp(0, w - 1)
    near = log_probs.flatten(2).gather(-1, index)
    weight = near.masked_fill(~within, -torch.inf).softmax(-1)
    x_px = ((x + 0.5) * weight).sum(-1) * cell_px[1]
    y_px = ((y + 0.5) * weight).sum(-1) * cell_px[0]
    return torch.stack([x_px, y_px], -1)


class PoseHead(DenseHead, ProbabilisticHead):
    """Logits of keypoints at stride 4: [B, D, h, w] to [B, K, h', w']."""

    def loss(self, x: Tensor, batch: PoseBatch) -> Tensor:
        """Mean cross-entropy in nats over the labelled keypoints inside their (widened) boxes."""
        nll, weight = self._cross_entropy(x, batch)
        return nll.sum() / weight.sum().clamp(min=1)

    def predict(self, x: Tensor, batch: PoseBatch) -> tuple[Tensor, Tensor]:
        """Keypoints (x_px, y_px) [P, K, 2], and the mean probability of their cells [P]."""
        log_probs, _, cell_px = self._persons(x, batch)
        score = log_probs.flatten(2).amax(-1).exp().mean(-1)
        return peaks(log_probs, cell_px), score

    def log_likelihood(self, x: Tensor, batch: PoseBatch) -> Tensor:
        """Log-probability of the labelled keypoints of each image's persons in nats, summed: [B]. That of a keypoint is
        the mean over its four nearest cells by their bilinear weights."""
        nll, _ = self._cross_entropy(x, batch)
        sums = nll.new_zeros(batch.n_images)
        return sums.index_add(0, batch.image.to(x.device), -nll.flatten(1).sum(1))

    def _cross_entropy(self, x: Tensor, batch: PoseBatch) -> tuple[Tensor, Tensor]:
        """Cross-entropy in nats by keypoint and cell, and the cells' weights: each [P, K, 4]."""
        log_probs, inside, cell_px = self._persons(x, batch)
        keypoints = batch.keypoints.to(x.device)
        cells, weight = bilinear_targets(keypoints[..., :2], inside, cell_px)
        weight = weight * (keypoints[..., 2:] > 0)
        chosen = log_probs.flatten(2).gather(-1, cells)
        return -torch.where(weight > 0, chosen, 0.0) * weight, weight

    def _persons(self, x: Tensor, batch: PoseBatch) -> tuple[Tensor, Tensor, tuple[float, float]]:
        """Log-probabilities [P, K, h', w'], cells of the boxes [P, h', w'], (height, width) of a cell in px."""
        logits = self(x)
        h, w = logits.shape[-2:]
        cell_px = (self.cover_px[0] / h, self.cover_px[1] / w)
        boxes = batch.boxes.to(x.device)
        inside = cells_in_boxes(boxes, (h, w), cell_px, self.image_px)
        rows = logits[batch.image.to(x.device)]
        masked = rows.masked_fill(~inside[:, None], -torch.inf).flatten(2)
        return masked.log_softmax(-1).view(rows.shape), inside, cell_px


def pose_values(sums: np.ndarray) -> dict[str, np.ndarray]:
    """``pck`` over labelled keypoints, ``oks`` over persons and ``ap``, [...], of sums [..., S]."""
    return {
        "pck": ratio(sums[..., 0], sums[..., 1]),
        "oks": ratio(sums[..., 2], sums[..., 3]),
        "ap": average_precision(sums[..., 4:], sums[..., 3]),
    }


class PoseTask(Task):
    """Keypoints of the persons, or other bodies, in given boxes. `keypoint_names`: empty for the 17 of COCO. For other
    keypoints OKS uses equal constants, 1 / K, as its protocol says."""

    name = "pose"
    n_statistics = 4 + N_AP_STATISTICS

    def __init__(self, keypoint_names: Sequence[str] = ()) -> None:
        self.keypoint_names = tuple(keypoint_names)
        self._sigmas = equal_sigmas(len(keypoint_names)) if keypoint_names else COCO_SIGMAS
        self.n_keypoints = len(self._sigmas)
        boxes = BOXES + (f", sigmas 1/{self.n_keypoints}" if keypoint_names else "")
        self.metrics: tuple[MetricSpec, ...] = (
            MetricSpec("pck", True, "", BOXES),
            MetricSpec("oks", True, "", boxes),
            MetricSpec("ap", True, "", boxes + ", 64 score bins, no ignored persons"),
        )

    def head(self, width: int, grid: tuple[int, int], image_px: tuple[int, int]) -> nn.Module:
        return PoseHead(width, grid, image_px, self.n_keypoints)

    def collate(self, targets: Sequence[Mapping[str, Any]]) -> PoseBatch:
        """The persons of all images."""
        poses: list[Pose] = [t[self.name] for t in targets]
        counts = [len(p.boxes) for p in poses]
        for pose, n in zip(poses, counts):
            shapes = (pose.keypoints.shape, pose.boxes.shape, pose.areas.shape)
            expected = ((n, self.n_keypoints, 3), (n, 4), (n,))
            if shapes != expected:
                raise FcbenchError(
                    f"pose arrays (keypoints, boxes, areas) must have the shapes {expected}, got {shapes}"
                )
        image = np.repeat(np.arange(len(poses)), counts)
        keypoints, boxes, areas = (
            torch.from_numpy(np.concatenate(parts).astype(np.float32))
            for parts in ([p.keypoints for p in poses], [p.boxes for p in poses], [p.areas for p in poses])
        )
        return PoseBatch(len(poses), torch.from_numpy(image), keypoints, boxes, areas)

    def statistics(self, prediction: tuple[Tensor, Tensor], batch: PoseBatch) -> np.ndarray:
        """Right keypoints, labelled keypoints, sum of OKS, persons, `ap_statistics`: float64 [B, S]."""
        pred, scores = (p.detach().cpu().numpy() for p in prediction)
        expected = (len(batch.boxes), self.n_keypoints, 2)
        if pred.shape != expected:
            raise FcbenchError(f"a head predicted keypoints of the shape {pred.shape}, expected {expected}")
        truth, boxes = batch.keypoints.cpu().numpy(), batch.boxes.cpu().numpy()
        areas, image = batch.areas.cpu().numpy(), batch.image.cpu().numpy()
        similarity = oks(pred, truth, areas, self._sigmas)
        counted = np.isfinite(similarity)
        each = np.concatenate(
            [pck_counts(pred, truth, boxes), np.where(counted, similarity, 0)[:, None], counted[:, None]], axis=1
        )
        sums = np.zeros((batch.n_images, self.n_statistics))
        np.add.at(sums[:, :4], image, each)
        for i in np.unique(image):
            persons = image == i
            sums[i, 4:] = ap_statistics(pred[persons], scores[persons], truth[persons], areas[persons], self._sigmas)
        return sums

    values = staticmethod(pose_values)


class PosePlugin(TaskPlugin):
    """Pose."""

    def build(self, train: Dataset, test: Dataset) -> Task:
        require_tasks(["pose"], train, test)
        names = train.meta.keypoint_names, test.meta.keypoint_names
        return PoseTask(require_same("keypoints", *names) if any(names) else ())

    values = staticmethod(pose_values)


PLUGIN = PosePlugin()
