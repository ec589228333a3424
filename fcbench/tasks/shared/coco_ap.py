"""COCO's average precision (AP) of detections in images that are each counted any number of times.

AP ranks the detections of all images by score, so it is not a function of sums over images. Stored per image is what
`pycocotools.cocoeval.COCOeval.evaluateImg` finds: how many objects count, by category and range of areas; and for each
detection its score, category, and by range and IoU threshold whether it is right and whether it counts. From that
`average_precisions` computes COCOeval's AP of the images, or of a resample in which each counts as often as drawn, with
ranks recomputed; a category that is missing in a resample has no AP. Equal scores rank in the order of the images.

Statistics of an image, float64 [S]: objects by category and range [K * A], then `MAX_DETECTIONS` rows of `FIELDS`, by
category and falling score, padded with zeros; flags are the bits of a number, one per range and threshold.

References:
    Lin et al., *Microsoft COCO: Common Objects in Context*, ECCV 2014; pycocotools.cocoeval.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from pycocotools import mask as rle
from pycocotools.cocoeval import COCOeval, Params
from scipy.sparse import csr_matrix

from fcbench.core.samples import Detections, Objects

Kind = Literal["bbox", "segm", "keypoints"]  # Type of comparison, in pycocotools' terms
FIELDS = ("score", "category + 1", "right", "ignored")
MAX_DETECTIONS = 300
"""Maximum number of detections per image, those with the highest scores; no network of torchvision reports more."""
BLOCK = 1 << 22  # Values in memory at a time, per array
_BOXES = Params(iouType="bbox")
THRESHOLDS: np.ndarray = _BOXES.iouThrs  # [T], of IoU or OKS, 0.5 to 0.95
RECALLS: np.ndarray = _BOXES.recThrs  # [101]


@cache
def area_names(kind: Kind) -> tuple[str, ...]:
    """Ranges of areas of a kind; the first one includes all.

    >>> area_names("keypoints")
    ('all', 'medium', 'large')
    """
    return tuple(Params(iouType=kind).areaRngLbl)


def n_statistics(kind: Kind, n_categories: int) -> int:
    """S."""
    return n_categories * len(area_names(kind)) + MAX_DETECTIONS * len(FIELDS)


def image_statistics(kind: Kind, objects: Objects, detections: Detections, n_categories: int) -> np.ndarray:
    """Statistics of one image, float64 [S]; see the module."""
    evaluator = COCOeval(iouType=kind)
    ranges, limit = evaluator.params.areaRng, evaluator.params.maxDets[-1]
    annotated, detected = _annotated(kind, objects), _detected(kind, detections)
    counts = np.zeros((n_categories, len(ranges)))
    rows = [np.zeros((0, len(FIELDS)))]
    for category in np.union1d(objects.labels, detections.labels[[d["at"] for d in detected]]).astype(int).tolist():
        key = 0, category
        evaluator._gts[key] = [o for o in annotated if o["category_id"] == category]
        evaluator._dts[key] = [d for d in detected if d["category_id"] == category]
        similarity = evaluator.computeOks if kind == "keypoints" else evaluator.computeIoU
        evaluator.ious = {key: similarity(*key)}
        by_range = [evaluator.evaluateImg(*key, r, limit) for r in ranges]
        counts[category] = [np.count_nonzero(np.asarray(e["gtIgnore"]) == 0) for e in by_range]
        scores = np.asarray(by_range[0]["dtScores"], np.float64)
        flags = [np.concatenate([e[k] for e in by_range]) > 0 for k in ("dtMatches", "dtIgnore")]  # [A T, D]
        bits = 2.0 ** np.arange(len(ranges) * len(THRESHOLDS))
        rows.append(np.stack([scores, np.full(len(scores), category + 1.0), *(bits @ f for f in flags)], axis=1))
    every = np.concatenate(rows)
    padded = np.concatenate([every, np.zeros((MAX_DETECTIONS - len(every), len(FIELDS)))])
    return np.concatenate([counts.ravel(), padded.ravel()])


def _annotated(kind: Kind, objects: Objects) -> list[dict[str, Any]]:
    rows = []
    for i, label in enumerate(objects.labels.tolist()):
        row: dict[str, Any] = {
            "id": i + 1,
            "category_id": label,
            "bbox": objects.boxes[i].tolist(),
            "area": float(objects.areas[i]),
            "iscrowd": int(objects.crowd[i]),
            "ignore": bool(objects.crowd[i]),
        }
        if kind == "segm":
            row["segmentation"] = objects.regions[i]
        if kind == "keypoints" and objects.keypoints is not None:
            row["keypoints"] = objects.keypoints[i].ravel().tolist()
            row["ignore"] = row["ignore"] or not (objects.keypoints[i, :, 2] > 0).any()
        rows.append(row)
    return rows


def _detected(kind: Kind, detections: Detections) -> list[dict[str, Any]]:
    """Detections in the form of COCO.loadRes, the best `MAX_DETECTIONS` in order; ``at`` is the index of each."""
    best = np.sort(np.argsort(-detections.scores, kind="stable")[:MAX_DETECTIONS])
    boxes = np.asarray(detections.boxes, np.float64)
    rows = []
    for i in best.tolist():
        x0, y0, x1, y1 = boxes[i].tolist()
        row: dict[str, Any] = {"id": i + 1, "at": i, "category_id": int(detections.labels[i])}
        row |= {"score": float(detections.scores[i]), "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
        if kind == "segm":
            row |= {"segmentation": detections.regions[i], "area": float(rle.area(detections.regions[i]))}
        if kind == "keypoints" and detections.keypoints is not None:
            points = np.asarray(detections.keypoints[i], np.float64)
            row["area"] = float(np.prod(np.ptp(points, axis=0)))
            row["keypoints"] = np.concatenate([points, np.ones((len(points), 1))], 1).ravel().tolist()
        rows.append(row)
    return rows


@dataclass(frozen=True, slots=True)
class _Ranking:
    """Detections of all images by category, then falling score: image, category [D]; right, counted [D, A * T]."""

    image: np.ndarray
    category: np.ndarray
    right: np.ndarray
    counted: np.ndarray
    objects: np.ndarray  # [N, K, A]


def _ranking(stats: np.ndarray, n_areas: int) -> _Ranking:
    n, n_rows = len(stats), MAX_DETECTIONS * len(FIELDS)
    objects = stats[:, :-n_rows].reshape(n, -1, n_areas)
    rows = stats[:, -n_rows:].reshape(n, MAX_DETECTIONS, len(FIELDS))
    image, place = np.nonzero(rows[..., 1])
    score, category, right, ignored = rows[image, place].T
    order = np.lexsort((-score, category))
    bits = np.arange(n_areas * len(THRESHOLDS))
    is_right, is_ignored = ((b[order, None].astype(np.int64) >> bits & 1).astype(bool) for b in (right, ignored))
    return _Ranking(image[order], category[order].astype(int) - 1, is_right & ~is_ignored, ~is_ignored, objects)


def average_precisions(stats: np.ndarray, weights: np.ndarray, kind: Kind) -> np.ndarray:
    """AP by range of areas and threshold, [R, A, T]; NaN if no object counts. `stats`: [N, S] of `image_statistics`.
    `weights`: [R, N] how often each image counts."""
    n_areas = len(area_names(kind))
    ranking = _ranking(np.asarray(stats, np.float64), n_areas)
    out = np.full((len(weights), n_areas, len(THRESHOLDS)), np.nan)
    for a in range(n_areas):
        n_objects = weights @ np.ascontiguousarray(ranking.objects[:, :, a])  # [R, K]
        shown = (n_objects > 0).sum(1)
        for t in range(len(THRESHOLDS)):
            total = _sum_of_categories(ranking, a * len(THRESHOLDS) + t, weights, n_objects)
            np.divide(total, shown, out=out[:, a, t], where=shown > 0)
    return out


def _sum_of_categories(ranking: _Ranking, flag: int, weights: np.ndarray, n_objects: np.ndarray) -> np.ndarray:
    """Sum over categories of AP at one range and threshold, [R].

    Between right detections precision falls and recall stays: only right detections are examined. A row of `before`
    sums the detections from one right detection to the next.
    """
    at = np.flatnonzero(ranking.right[:, flag])
    if not at.size:
        return np.zeros(len(weights))
    category, image = ranking.category[at], ranking.image[at]
    counted = np.flatnonzero(ranking.counted[:, flag])
    row = np.searchsorted(at, counted)
    inside = row < len(at)
    counted, row = counted[inside], row[inside]
    same = category[row] == ranking.category[counted]
    shape = len(at), weights.shape[1]
    before = csr_matrix((np.ones(same.sum()), (row[same], ranking.image[counted[same]])), shape)
    first = np.flatnonzero(np.diff(category, prepend=-1))
    group = np.cumsum(np.diff(category, prepend=-1) > 0) - 1
    out = []
    for block in _blocks(len(weights), len(at)):
        drawn = np.ascontiguousarray(weights[block].T)  # [N, R]
        n_said, n_right = (_running(x, first, group) for x in (before @ drawn, drawn[image]))
        precision = n_right / (n_said + np.spacing(1))
        recall = n_right / np.maximum(n_objects[block].T[category], 1)
        reached = np.searchsorted(RECALLS, recall, side="right")
        reached[1:] -= np.where(np.isin(np.arange(1, len(at)), first)[:, None], 0, reached[:-1])
        best = _best_from_here(precision, group)
        out.append((reached * best).sum(0) / len(RECALLS))
    return np.concatenate(out)


def _blocks(n: int, width: int) -> Iterator[slice]:
    step = max(1, BLOCK // width)
    return (slice(i, min(i + step, n)) for i in range(0, n, step))


def _running(x: np.ndarray, first: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Running sums of rows [P, R] within groups."""
    sums = np.cumsum(x, axis=0)
    start = np.concatenate([np.zeros((1, x.shape[1])), sums[first[1:] - 1]])
    return np.asarray(sums - start[group])


def _best_from_here(precision: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Largest of each row [P, R] and the later ones in its group."""
    lift = 2.0 * (group[-1] - group)[:, None]  # groups that come first in reverse order lie lowest
    return np.asarray(np.maximum.accumulate((precision + lift)[::-1], axis=0)[::-1] - lift)


def metric_names(kind: Kind) -> tuple[str, ...]:
    """``ap``, ``ap50``, ``ap75``, and AP by range of areas.

    >>> metric_names("bbox")
    ('ap', 'ap50', 'ap75', 'ap_small', 'ap_medium', 'ap_large')
    """
    return ("ap", "ap50", "ap75", *(f"ap_{name}" for name in area_names(kind)[1:]))


def metric_values(stats: np.ndarray, weights: np.ndarray, kind: Kind) -> dict[str, np.ndarray]:
    """Values [R] for the names of `metric_names`, from statistics [N, S] and weights [R, N]."""
    by_area = average_precisions(stats, weights, kind)  # [R, A, T]
    mean = by_area.mean(-1)
    at = {f"ap{round(100 * t)}": by_area[:, 0, i] for i, t in enumerate(THRESHOLDS) if round(100 * t) in (50, 75)}
    of_areas: Sequence[np.ndarray] = mean.T
    return {"ap": mean[:, 0]} | at | {f"ap_{n}": v for n, v in zip(area_names(kind)[1:], of_areas[1:])}
