"""Keypoint metrics against ground truth: PCK and OKS. Keypoints are in COCO order."""

from __future__ import annotations

import numpy as np
from pycocotools.cocoeval import Params

N_KEYPOINTS = 17
PCK_FRACTION = 0.1


def pck_counts(pred: np.ndarray, truth: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Right and labelled keypoints of each person, float64 [P, 2].

    A keypoint is right within 0.1 of its person's box, max(width, height).

    Args:
        pred: [P, 17, 2] (x_px, y_px).
        truth: [P, 17, 3] (x_px, y_px, v); counted where v > 0.
        boxes: [P, 4] (x0_px, y0_px, x1_px, y1_px).

    References:
        Yang and Ramanan, "Articulated Human Detection with Flexible Mixtures of Parts", PAMI 2013.
    """
    labelled = truth[..., 2] > 0
    side = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    distance = np.linalg.norm(pred - truth[..., :2], axis=-1)
    right = labelled & (distance <= PCK_FRACTION * side[:, None])
    return np.stack([right.sum(1), labelled.sum(1)], axis=1).astype(np.float64)


def oks(pred: np.ndarray, truth: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Object keypoint similarity of each person, float64 [P]; NaN where no keypoint is labelled.

    Args:
        pred: [P, 17, 2] (x_px, y_px).
        truth: [P, 17, 3] (x_px, y_px, v); counted where v > 0.
        areas: [P] square pixels.

    References:
        COCO keypoint evaluation, pycocotools.cocoeval.COCOeval.computeOks (whose constants are used).
    """
    variances = (Params(iouType="keypoints").kpt_oks_sigmas * 2) ** 2  # [17]
    labelled = truth[..., 2] > 0
    square = ((pred - truth[..., :2]).astype(np.float64) ** 2).sum(-1)  # [P, 17]
    scale = 2 * variances * (areas.astype(np.float64)[:, None] + np.spacing(1))
    similar = np.exp(-square / scale) * labelled
    n = labelled.sum(1)
    return np.divide(similar.sum(1), n, out=np.full(len(n), np.nan), where=n > 0)
