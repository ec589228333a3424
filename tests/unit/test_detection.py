"""AP of detections: COCOeval's own, of any multiset of images; targets from COCO's files."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_sets
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.samples import DataOptions, Detections, Objects
from fcbench.core.tasks import Ranking, metric_values
from fcbench.results import intervals
from fcbench.tasks.shared import coco_ap
from fcbench.tasks.shared.detecting import DetectingTask

KINDS: dict[str, coco_ap.Kind] = {
    "detection": "bbox",
    "instance_segmentation": "segm",
    "keypoint_detection": "keypoints",
}
SIZE = (200, 300)
N_CATEGORIES = 4
Image = tuple[Objects, Detections]


def region(box: np.ndarray) -> Any:
    """An ellipse in a box (x, y, width, height)."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    cx, cy = box[0] + box[2] / 2, box[1] + box[3] / 2
    inside = ((x - cx) / (box[2] / 2)) ** 2 + ((y - cy) / (box[3] / 2)) ** 2 <= 1
    return rle.encode(np.asfortranarray(inside.astype(np.uint8)))


def planted(seed: int, kind: coco_ap.Kind, ties: bool = False) -> Image:
    """Objects of all sizes, crowds among them, and detections: near ones, doubles, of other labels, of nothing."""
    rng = np.random.default_rng(seed)
    n, n_categories = int(rng.integers(0, 7)), 1 if kind == "keypoints" else N_CATEGORIES
    sides = rng.choice([9.0, 50.0, 130.0], (n, 1)) * rng.uniform(0.7, 1.3, (n, 2))
    boxes = np.concatenate([rng.uniform(0, 120, (n, 2)), sides], 1)
    labels = rng.integers(0, n_categories, n)
    spots = rng.uniform(0, 1, (n, 17, 2)) * boxes[:, None, 2:] + boxes[:, None, :2]
    seen = rng.integers(0, 3, (n, 17, 1)) * (rng.random((n, 1, 1)) < 0.8)
    areas = boxes[:, 2] * boxes[:, 3] * 0.8
    truth = Objects(SIZE, labels, boxes, areas, rng.random(n) < 0.15, [], np.concatenate([spots, seen], 2))
    of = rng.integers(0, n, int(rng.integers(0, 3 * n + 1)) if n else 0)
    shift = rng.normal(0, 0.12, (len(of), 4)) * boxes[of][:, [2, 3, 2, 3]]
    near = boxes[of] + shift
    near[:, 2:] = np.maximum(near[:, 2:], 2)
    others = np.concatenate([rng.uniform(0, 150, (3, 2)), rng.uniform(5, 100, (3, 2))], 1)
    found = np.concatenate([near, others])
    said = np.concatenate([np.where(rng.random(len(of)) < 0.8, labels[of], 0), rng.integers(0, n_categories, 3)])
    moved = spots[of] + rng.normal(0, 4, (len(of), 17, 2))
    points = np.concatenate([moved, rng.uniform(0, 200, (3, 17, 2))])
    scores = rng.random(len(found)).round(1 if ties else 12)
    corners = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], 1)
    if kind != "segm":
        return truth, Detections(said, scores, corners, [], points)
    whole = Objects(SIZE, labels, boxes, areas, truth.crowd, [region(b) for b in boxes])
    return whole, Detections(said, scores, corners, [region(b) for b in found])


def official(images: Sequence[Image], kind: coco_ap.Kind) -> list[float]:
    """COCOeval of a result file of the images, in the order of `coco_ap.metric_names`."""
    rows, found, listed = list[Any](), list[Any](), list[Any]()
    for image_id, (truth, said) in enumerate(images, 1):
        listed.append({"id": image_id, "height": SIZE[0], "width": SIZE[1]})
        for i in range(len(truth.labels)):
            row: dict[str, Any] = {"id": len(rows) + 1, "image_id": image_id, "iscrowd": int(truth.crowd[i])}
            row |= {"category_id": int(truth.labels[i]) + 1, "bbox": truth.boxes[i].tolist(), "area": truth.areas[i]}
            row |= {"segmentation": truth.regions[i]} if kind == "segm" else {}
            if kind == "keypoints" and truth.keypoints is not None:
                seen = int((truth.keypoints[i, :, 2] > 0).sum())
                row |= {"keypoints": truth.keypoints[i].ravel().tolist(), "num_keypoints": seen}
            rows.append(row)
        for i in range(len(said.labels)):
            x0, y0, x1, y1 = said.boxes[i].tolist()
            one: dict[str, Any] = {"image_id": image_id, "category_id": int(said.labels[i]) + 1}
            one["score"] = float(said.scores[i])
            if kind == "bbox":
                one["bbox"] = [x0, y0, x1 - x0, y1 - y0]
            elif kind == "segm":
                one["segmentation"] = said.regions[i]
            elif said.keypoints is not None:
                one["keypoints"] = np.concatenate([said.keypoints[i], np.ones((17, 1))], 1).ravel().tolist()
            found.append(one)
    with contextlib.redirect_stdout(io.StringIO()):
        truth_file = COCO()
        categories = [{"id": i + 1, "name": str(i)} for i in range(N_CATEGORIES)]
        truth_file.dataset = {"images": listed, "annotations": rows, "categories": categories}
        truth_file.createIndex()
        evaluator = COCOeval(truth_file, truth_file.loadRes(found), kind)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return [float(v) for v in evaluator.stats[: len(coco_ap.metric_names(kind))]]


def table(images: Sequence[Image], kind: coco_ap.Kind) -> np.ndarray:
    return np.stack([coco_ap.image_statistics(kind, truth, said, N_CATEGORIES) for truth, said in images])


@pytest.mark.parametrize("task", list(KINDS))
def test_ap_is_cocoevals_of_the_images_and_of_resamples(task: str) -> None:
    kind = KINDS[task]
    images = [planted(seed, kind) for seed in range(24)]
    tied = [planted(seed, kind, ties=True) for seed in range(24)]
    plugin: Any = registry.get("task", task)
    weights = np.concatenate([np.ones((1, 24)), intervals.resampling_weights(24, 4)])
    values = metric_values(plugin, table(images, kind), weights)
    assert list(values) == list(coco_ap.metric_names(kind))
    for r, row in enumerate(weights.astype(int)):
        wanted = official([image for image, n in zip(images, row) for _ in range(n)], kind)
        got = [0 if np.isnan(v[r]) else float(v[r]) for v in values.values()]
        np.testing.assert_allclose(got, np.maximum(wanted, 0), rtol=0, atol=1e-9)
    values_of_tied = metric_values(plugin, table(tied, kind), np.ones((1, 24)))
    np.testing.assert_allclose([float(v[0]) for v in values_of_tied.values()], official(tied, kind), atol=1e-9)
    assert 0.05 < values["ap"][0] < 0.9 and len(set(values["ap"].round(6))) == 5


def test_planted_detections_are_perfect_and_corrupted_ones_are_not() -> None:
    images = [planted(seed, "bbox")[0] for seed in range(12)]
    exact, shifted = list[Image](), list[Image]()
    for truth in images:
        corners = np.concatenate([truth.boxes[:, :2], truth.boxes[:, :2] + truth.boxes[:, 2:]], 1)
        kept = ~truth.crowd
        for into, off in ((exact, 0.0), (shifted, 0.3 * truth.boxes[kept][:, 2:].mean(1, keepdims=True))):
            into.append((truth, Detections(truth.labels[kept], np.ones(kept.sum()), corners[kept] + off)))
    one = np.ones((1, len(images)))
    perfect, worse = (coco_ap.metric_values(table(i, "bbox"), one, "bbox") for i in (exact, shifted))
    assert perfect["ap"] == pytest.approx(1) and perfect["ap_small"] == pytest.approx(1)
    assert worse["ap"] < 0.3


def test_images_without_objects_or_detections_have_defined_values() -> None:
    nothing = np.zeros(0)
    bare = Objects(SIZE, nothing.astype(int), np.zeros((0, 4)), nothing, nothing.astype(bool))
    silent = Detections(nothing.astype(int), nothing, np.zeros((0, 4)))
    empty = table([(bare, silent)] * 2, "bbox")
    assert not empty.any()
    assert all(np.isnan(v).all() for v in coco_ap.metric_values(empty, np.ones((3, 2)), "bbox").values())
    truth, said = planted(3, "bbox")
    values = coco_ap.metric_values(table([(truth, silent), (bare, said)], "bbox"), np.ones((1, 2)), "bbox")
    assert values["ap"] == 0


def test_the_best_detections_of_an_image_count() -> None:
    truth = planted(3, "bbox")[0]
    n, corner = 400, np.concatenate([truth.boxes[0, :2], truth.boxes[0, :2] + truth.boxes[0, 2:]])
    scores = np.linspace(1, 0, n)
    labels = np.arange(n) % 3  # at most 100 of a category count, as COCOeval has it
    many = Detections(labels, scores, np.tile(corner, (n, 1)))
    best = Detections(labels[:300], scores[:300], many.boxes[:300])
    of_many, of_best = (table([(truth, said)], "bbox") for said in (many, best))
    np.testing.assert_array_equal(of_many, of_best)


def test_batches_do_not_matter_and_what_does_not_fit_is_refused() -> None:
    task = DetectingTask("detection", "bbox", [str(i) for i in range(N_CATEGORIES)])
    images = [planted(seed, "bbox") for seed in range(5)]
    batch = task.collate([{"detection": truth} for truth, _ in images])
    whole = task.statistics([said for _, said in images], batch)
    assert whole.shape == (5, task.n_statistics) and isinstance(task, Ranking)
    np.testing.assert_array_equal(whole[2:4], task.statistics([said for _, said in images[2:4]], batch[2:4]))
    with pytest.raises(FcbenchError, match="predicted 4 images of 5"):
        task.statistics([said for _, said in images[:4]], batch)
    with pytest.raises(FcbenchError, match="label . of an object is not one of 2 categories"):
        DetectingTask("detection", "bbox", ["a", "b"]).collate([{"detection": truth} for truth, _ in images])
    for refused in (lambda: task.head(8, (4, 4), SIZE), lambda: task.values(whole.sum(0))):
        with pytest.raises(FcbenchError, match="--head tail|rank samples"):
            refused()


# --------------------------------------------------------------------------------------------- targets
@pytest.mark.parametrize("task", list(KINDS))
def test_targets_are_those_of_the_files(task: str, tmp_path: Path) -> None:
    """COCOeval on COCO's own file, and here on the data set's targets, of the same detections."""
    tiny_sets.coco(tmp_path)
    data = registry.get("dataset", "coco").open("test", DataOptions(tmp_path, tmp_path / "cache", (64, 64)))
    kind = "person_keypoints" if task == "keypoint_detection" else "instances"
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(tmp_path / "annotations" / f"{kind}_val2017.json")
        for row in truth.anns.values():
            row["num_keypoints"] = sum(v > 0 for v in row.get("keypoints", [])[2::3])
        ids, said, found = sorted(truth.getCatIds()), [], []
        for index, image_id in enumerate(truth.getImgIds()):
            of = [a for a in truth.loadAnns(truth.getAnnIds(image_id)) if not a.get("iscrowd")][1:]
            boxes = np.array([a["bbox"] for a in of], np.float64).reshape(-1, 4) + [1, 0, 0, 0]
            corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
            regions = [truth.annToRLE(a) for a in of] if task == "instance_segmentation" else []
            points = np.array([a["keypoints"] for a in of], np.float64).reshape(-1, 17, 3) if "key" in task else None
            labels = np.array([ids.index(a["category_id"]) for a in of], int)
            said.append(Detections(labels, 1 / np.arange(2, len(of) + 2), corners, regions, _points(points)))
            for i, a in enumerate(of):
                one = {"image_id": image_id, "category_id": a["category_id"], "score": float(said[-1].scores[i])}
                if regions:
                    one["segmentation"] = regions[i]
                elif points is not None:
                    one["keypoints"] = points[i].ravel().tolist()
                else:
                    one["bbox"] = boxes[i].tolist()
                found.append(one)
            assert data.targets(index)[task].size_px == (truth.imgs[image_id]["height"], truth.imgs[image_id]["width"])
        evaluator = COCOeval(truth, truth.loadRes(found), KINDS[task])
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    bound = registry.get("task", task).build(data, data)
    batch = bound.collate([data.targets(i) for i in range(len(data))])
    values = metric_values(bound, bound.statistics(said, batch), np.ones((1, len(data))))
    assert float(values["ap"][0]) == pytest.approx(float(evaluator.stats[0]), abs=1e-9)
    assert values["ap"] > 0


def _points(points: np.ndarray | None) -> np.ndarray | None:
    return None if points is None else points[..., :2]


def test_another_skeleton_is_refused(tmp_path: Path) -> None:
    tiny_sets.folder_of_all(tmp_path)
    data = registry.get("dataset", "folder").open("test", DataOptions(tmp_path, tmp_path / "cache"))
    assert data.meta.names("detection") == ("bird",)
    with pytest.raises(FcbenchError, match="needs COCO's 17 keypoints, data set 'folder' has 4 of its own"):
        registry.get("task", "keypoint_detection").build(data, data)
