"""Keypoint metrics against ground truth: PCK, OKS and COCO's AP, of K keypoints.

AP needs all predictions of a set sorted by score; here it is a function of sums over images, for resampling. Therefore
scores are put into `N_BINS` bins, and predictions in one bin count together. With scores rounded to the bins it equals
pycocotools' COCOeval of the same persons, except for the order of equal scores. Crowds and persons without a labelled
keypoint are not among them; COCOeval keeps them, and a prediction that matches none but them counts as neither right
nor wrong.
"""

import numpy as np
from pycocotools.cocoeval import Params

PCK_FRACTION = 0.1
_COCO = Params(iouType="keypoints")
COCO_SIGMAS: np.ndarray = _COCO.kpt_oks_sigmas  # [17]
OKS_THRESHOLDS: np.ndarray = _COCO.iouThrs  # [10], 0.5 to 0.95
RECALLS: np.ndarray = _COCO.recThrs  # [101]
MAX_PERSONS = int(max(_COCO.maxDets))
"""Maximum number of predictions per image that count, those with the highest scores."""
N_BINS = 64
N_AP_STATISTICS = N_BINS * (1 + len(OKS_THRESHOLDS))


def equal_sigmas(n_keypoints: int) -> np.ndarray:
    """OKS constants of keypoints without measured ones: 1 / K each, [K].

    References:
        Ultralytics, ``ultralytics.models.yolo.pose.val`` (the same convention).
    """
    return np.full(n_keypoints, 1 / n_keypoints)


def pck_counts(pred: np.ndarray, truth: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Right and labelled keypoints of each person, float64 [P, 2].

    A keypoint is right within 0.1 of its person's box, max(width, height). `pred`: [P, K, 2] (x_px, y_px). `truth`: [P,
    K, 3] (x_px, y_px, v); counted where v > 0. `boxes`: [P, 4] (x0_px, y0_px, x1_px, y1_px).

    References:
        Yang and Ramanan, "Articulated Human Detection with Flexible Mixtures of Parts", PAMI 2013.
    """
    labelled = truth[..., 2] > 0
    side = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    distance = np.linalg.norm(pred - truth[..., :2], axis=-1)
    right = labelled & (distance <= PCK_FRACTION * side[:, None])
    return np.stack([right.sum(1), labelled.sum(1)], axis=1).astype(np.float64)


def oks(pred: np.ndarray, truth: np.ndarray, areas: np.ndarray, sigmas: np.ndarray = COCO_SIGMAS) -> np.ndarray:
    """Object keypoint similarity of predictions and persons, float64 [...]; NaN if no keypoint is labelled.

    `pred`: [..., K, 2] (x_px, y_px). `truth`: [..., K, 3] (x_px, y_px, v); counted where v > 0. `areas`: [...] square
    pixels. `sigmas`: [K] constants of the keypoints.

    References:
        COCO keypoint evaluation, pycocotools.cocoeval.COCOeval.computeOks (whose constants are used).
    """
    variances = (sigmas * 2) ** 2  # [K]
    labelled = truth[..., 2] > 0
    square = ((pred - truth[..., :2]).astype(np.float64) ** 2).sum(-1)  # [..., K]
    scale = 2 * variances * (areas.astype(np.float64)[..., None] + np.spacing(1))
    similar = (np.exp(-square / scale) * labelled).sum(-1)
    n = np.broadcast_to(labelled.sum(-1), similar.shape)
    return np.divide(similar, n, out=np.full(n.shape, np.nan), where=n > 0)


def score_bins(scores: np.ndarray) -> np.ndarray:
    """Bin of each score in [0, 1], int64 [P]; finer towards 0, where mean probabilities lie."""
    roots = np.sqrt(np.clip(scores.astype(np.float64), 0, 1))
    return np.minimum((roots * N_BINS).astype(np.int64), N_BINS - 1)


def matches(similarity: np.ndarray) -> np.ndarray:
    """Predictions that are matched to a person, bool [10, D], at each of the `OKS_THRESHOLDS`.

    The first prediction takes the most similar person, the next one the most similar of the rest, as in COCOeval.
    `similarity`: [D, G] OKS of predictions, by falling score, and persons.
    """
    limits = np.minimum(OKS_THRESHOLDS, 1 - 1e-10)
    every = np.arange(len(limits))
    free = np.ones((len(limits), similarity.shape[1]), dtype=bool)
    found = np.zeros((len(limits), len(similarity)), dtype=bool)
    for d, row in enumerate(similarity):
        left = np.where(free, row, -1.0)  # [10, G]
        best = left.shape[1] - 1 - left[:, ::-1].argmax(1)  # the last of equal ones
        found[:, d] = left[every, best] >= limits
        free[every[found[:, d]], best[found[:, d]]] = False
    return found


def ap_statistics(
    pred: np.ndarray, scores: np.ndarray, truth: np.ndarray, areas: np.ndarray, sigmas: np.ndarray = COCO_SIGMAS
) -> np.ndarray:
    """Counts of one image for `average_precision`, float64 [64 + 10 * 64].

    The counts are predictions per score bin, and right ones per OKS threshold. Persons without a labelled keypoint are
    not ground truth, and predictions for them do not count. `pred`: [P, K, 2] (x_px, y_px), one for the box of each
    person. `scores`: [P] in [0, 1]. `truth`: [P, K, 3] (x_px, y_px, v). `areas`: [P] square pixels. `sigmas`: [K], see
    `oks`.
    """
    seen = np.flatnonzero((truth[..., 2] > 0).any(1))
    order = seen[np.argsort(-scores[seen], kind="stable")][:MAX_PERSONS]
    if not order.size:
        return np.zeros(N_AP_STATISTICS)
    bins = score_bins(scores[order])
    similarity = oks(pred[order][:, None], truth[seen][None], areas[seen][None], sigmas)
    rows = [np.ones(len(order)), *matches(similarity)]
    return np.concatenate([np.bincount(bins, r, minlength=N_BINS) for r in rows])


def average_precision(sums: np.ndarray, n_persons: np.ndarray) -> np.ndarray:
    """COCO's keypoint AP, [...]: precision, averaged over 10 OKS thresholds and 101 recalls; NaN without persons.
    `sums`: [..., 64 + 10 * 64] summed `ap_statistics`. `n_persons`: [...] persons with a labelled keypoint.

    References:
        pycocotools.cocoeval.COCOeval.accumulate.
    """
    shape = (*sums.shape[:-1], 1 + len(OKS_THRESHOLDS), N_BINS)
    counts = sums.reshape(shape)[..., ::-1].cumsum(-1)  # from the highest score down
    n_right, n_said = counts[..., 1:, :], counts[..., :1, :]
    precision = n_right / (n_said + np.spacing(1))  # [..., 10, 64]
    best = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    best = np.concatenate([best, np.zeros_like(best[..., :1])], axis=-1)
    recall = n_right / np.maximum(n_persons, 1)[..., None, None]
    total = np.zeros(best.shape[:-1])
    for least in RECALLS:
        first = (recall < least).sum(-1, keepdims=True)
        total += np.take_along_axis(best, first, axis=-1)[..., 0]
    return np.where(n_persons > 0, total.mean(-1) / len(RECALLS), np.nan)
