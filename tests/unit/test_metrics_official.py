"""Official protocols: COCO's keypoint AP against pycocotools, the crop of Eigen et al., the PTB tokenizer."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.cocoeval import COCOeval

from fcbench.core.samples import Pose
from fcbench.core.tasks import MetricSpec
from fcbench.tasks.captioning.head import words_of
from fcbench.tasks.depth import DepthTask
from fcbench.tasks.pose import PoseBatch, PoseTask
from fcbench.tasks.pose.metrics import N_AP_STATISTICS, N_BINS, ap_statistics, average_precision, matches, score_bins

EIGEN = (45 / 480, 471 / 480, 41 / 640, 601 / 640)

Crowd = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Predictions [P, 17, 2], truth [P, 17, 3], areas [P]."""


# ------------------------------------------------------------------------------------------- pose: ap
def crowd(rng: np.random.Generator, n: int) -> Crowd:
    """n persons near each other, so that predictions also resemble their neighbours; the last one is unlabelled."""
    centre = rng.uniform(0, 25, (n, 1, 2))
    points = centre + rng.uniform(0, 60, (1, 17, 2)) + rng.normal(0, 2, (n, 17, 2))
    v = rng.integers(0, 3, (n, 17, 1))
    v[:, 0] = 2
    v[n - 1] = 0 if n > 2 else v[n - 1]
    noise = rng.choice([1.0, 3.0, 8.0], (n, 1, 1))
    pred = points + rng.normal(0, 1, (n, 17, 2)) * noise
    return pred, np.concatenate([points, v], -1), rng.uniform(400, 4000, n)


def coco_ap(images: Sequence[Crowd], scores: Sequence[np.ndarray]) -> float:
    """AP of pycocotools' own COCOeval."""
    judge = COCOeval(iouType="keypoints")
    judge.params.imgIds, judge.params.catIds = list(range(len(images))), [1]
    judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
    judge._prepare = lambda: None  # the annotations are set here
    number = 0
    for i, (pred, truth, areas) in enumerate(images):
        for p, t, area, score in zip(pred, truth, areas, scores[i]):
            if not (t[:, 2] > 0).any():
                continue
            number += 1
            box = [0, 0, 10, 10]
            shared: dict[str, Any] = {"id": number, "image_id": i, "category_id": 1, "iscrowd": 0}
            shared |= {"bbox": box, "area": area}
            points = np.concatenate([p, np.ones((17, 1))], -1).ravel()
            judge._gts[i, 1].append({**shared, "keypoints": t.ravel(), "ignore": 0})
            judge._dts[i, 1].append({**shared, "keypoints": points, "score": score})
    judge.evaluate()
    judge.accumulate()
    precision = judge.eval["precision"]  # [T, R, K, A, M]
    return float(precision[precision > -1].mean())


def our_ap(images: Sequence[Crowd], scores: Sequence[np.ndarray]) -> float:
    sums = np.sum([ap_statistics(p, s, t, a) for (p, t, a), s in zip(images, scores)], axis=0)
    n = sum((t[..., 2] > 0).any(1).sum() for _, t, _ in images)
    return float(average_precision(sums, np.asarray(n)))


def rounded(bins: np.ndarray) -> np.ndarray:
    """A score in the middle of each bin."""
    return ((bins + 0.5) / N_BINS) ** 2


@pytest.mark.parametrize("seed", range(6))
def test_ap_equals_pycocotools_where_no_scores_are_equal(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = [crowd(rng, n) for n in (3, 1, 6, 2, 9, 4, 12, 5)]
    order, scores = rng.permutation(N_BINS), []
    for pred, _, _ in images:
        scores.append(rounded(order[: len(pred)]))
        order = order[len(pred) :]
    expected = coco_ap(images, scores)
    assert our_ap(images, scores) == pytest.approx(expected, abs=1e-9)
    assert 0.1 < expected < 0.9


@pytest.mark.parametrize("seed", range(3))
def test_ap_is_close_to_pycocotools_where_bins_are_shared(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = [crowd(rng, rng.integers(1, 8)) for _ in range(150)]
    scores = [rng.uniform(0, 1, len(p)) for p, _, _ in images]
    assert our_ap(images, scores) == pytest.approx(coco_ap(images, scores), abs=0.01)


def test_ap_takes_the_twenty_surest_persons() -> None:
    rng = np.random.default_rng(3)
    images = [crowd(rng, 30)]
    scores = [rounded(rng.permutation(30) * 2)]
    assert our_ap(images, scores) == pytest.approx(coco_ap(images, scores), abs=1e-9)


def test_ap_falls_when_wrong_predictions_are_the_surest() -> None:
    rng = np.random.default_rng(0)
    truth = crowd(rng, 2)[1]
    areas = np.array([900.0, 900.0])
    pred = truth[..., :2].copy()
    pred[1] += 1000
    right_first = our_ap([(pred, truth, areas)], [np.array([0.9, 0.1])])
    wrong_first = our_ap([(pred, truth, areas)], [np.array([0.1, 0.9])])
    assert right_first == pytest.approx(51 / 101)  # recalls 0 to 0.5
    assert wrong_first == pytest.approx(51 / 101 / 2)


def test_two_predictions_never_find_the_same_person() -> None:
    similarity = np.array([[0.97, 0.6], [0.99, 0.52]])
    found = matches(similarity)
    assert found[0].tolist() == [True, True]  # at 0.5 the second takes who is left
    assert found[2].tolist() == [True, False]


def test_score_bins_cover_all_scores() -> None:
    scores = np.array([-1, 0, 1e-6, 0.25, 0.999, 1, 7])
    assert score_bins(scores).tolist() == [0, 0, 0, 32, 63, 63, 63]


def test_images_without_persons_count_nothing() -> None:
    none = ap_statistics(np.zeros((0, 17, 2)), np.zeros(0), np.zeros((0, 17, 3)), np.zeros(0))
    assert none.shape == (N_AP_STATISTICS,) and not none.any()
    assert np.isnan(average_precision(none, np.asarray(0)))


def prediction(batch: PoseBatch, off_px: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The truth shifted, and scores."""
    return batch.keypoints[..., :2] + off_px, torch.full((len(batch.boxes),), 0.4)


def test_the_pose_task_gives_ap_by_image() -> None:
    rng = np.random.default_rng(1)
    poses = []
    for n in (2, 0, 5):
        pred, truth, areas = crowd(rng, max(n, 1))
        boxes = np.tile(np.array([[0.0, 0, 90, 90]]), (n, 1))
        poses.append(Pose(truth[:n].astype("f4"), boxes.astype("f4"), areas[:n].astype("f4")))
    task = PoseTask()
    batch = task.collate([{"pose": p} for p in poses])
    table = task.statistics(prediction(batch, 0.0), batch)
    assert not table[1].any()
    assert task.values(table.sum(0))["ap"] == pytest.approx(1)
    far = task.statistics(prediction(batch, 500.0), batch)
    assert task.values(far.sum(0))["ap"] == 0
    assert table[:, 4 : 4 + N_BINS].sum(1).tolist() == [2, 0, 4]


# ------------------------------------------------------------------------------------- depth: the crop
@pytest.mark.parametrize("size", [(480, 640), (120, 160), (96, 96)])
def test_eigen_metrics_are_means_over_images_inside_the_crop(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    target = rng.uniform(0.5, 9, (3, *size)).astype(np.float32)
    pred = target * rng.lognormal(0, 0.2, target.shape).astype(np.float32).clip(0.5, 2)
    pred = pred.clip(0.1, 10)
    target[0, : size[0] // 2] = 0
    rows = slice(round(45 * size[0] / 480), round(471 * size[0] / 480))
    columns = slice(round(41 * size[1] / 640), round(601 * size[1] / 640))
    expected = []
    for p, t in zip(pred[:, rows, columns], target[:, rows, columns]):
        p, t = p[t > 0].astype(float), t[t > 0].astype(float)
        close = np.maximum(p / t, t / p) < 1.25
        expected.append([np.mean((p - t) ** 2) ** 0.5, np.mean(abs(p - t) / t), close.mean()])
    task = DepthTask(10.0, 0.0, 1.0, EIGEN)
    table = task.statistics(torch.from_numpy(pred), torch.from_numpy(target))
    values = task.values(table.sum(0))
    names = ("rmse_eigen", "abs_rel_eigen", "delta1_eigen")
    np.testing.assert_allclose([values[n] for n in names], np.mean(expected, 0), rtol=1e-6)
    assert values["rmse"] != pytest.approx(values["rmse_eigen"], rel=1e-5)


def test_what_lies_outside_the_crop_changes_the_other_metrics_only() -> None:
    target = torch.full((1, 48, 64), 2.0)
    good, bad = target.clone(), target.clone()
    bad[:, :4] = 9.0  # rows 0 to 3 lie above the crop
    task = DepthTask(10.0, 0.0, 1.0, EIGEN)
    a, b = (task.values(task.statistics(p, target)[0]) for p in (good, bad))
    assert b["rmse_eigen"] == a["rmse_eigen"] == 0 and b["rmse"] > 1 > a["rmse"]


def test_an_image_without_valid_pixels_in_the_crop_is_left_out() -> None:
    target = torch.full((2, 48, 64), 2.0)
    target[1, 4:] = 0
    task = DepthTask(10.0, 0.0, 1.0, EIGEN)
    table = task.statistics(target + 0.1, target)
    assert table[:, 7].tolist() == [1, 0] and table[1, 3] > 0
    assert task.values(table.sum(0))["rmse_eigen"] == pytest.approx(0.1, rel=1e-5)


def test_without_a_crop_there_are_no_eigen_metrics() -> None:
    task = DepthTask(10.0, 0.0, 1.0)
    assert [m.name for m in task.metrics] == ["rmse", "abs_rel", "delta1"]
    assert task.n_statistics == 4 and isinstance(task.metrics[0], MetricSpec)


# ---------------------------------------------------------------------------------- captions: the words
@pytest.mark.skipif(shutil.which("java") is None, reason="the PTB tokenizer needs Java")
def test_our_words_are_those_of_the_ptb_tokenizer_but_for_possessives_and_hyphens() -> None:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    plain = ["A man, riding a red horse.", "Two dogs; one cat!", "12 cups -- no tea"]
    differing = ["A man's dog", "a close-up of a stove"]
    rows = {i: [{"caption": c}] for i, c in enumerate(plain + differing)}
    official = [v[0].split() for _, v in sorted(PTBTokenizer().tokenize(rows).items())]
    ours = [list(words_of(c)) for c in plain + differing]
    assert official[:3] == ours[:3]
    assert official[3:] == [["a", "man", "'s", "dog"], ["a", "close-up", "of", "a", "stove"]]
    assert ours[3:] == [["a", "mans", "dog"], ["a", "close", "up", "of", "a", "stove"]]
