"""Metrics as sums of statistics against the libraries that define them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider as ReferenceCider
from pycocotools.cocoeval import COCOeval
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from fcbench.core.samples import VOID, Pose
from fcbench.tasks.captioning import CaptioningTask
from fcbench.tasks.captioning.head import Vocabulary
from fcbench.tasks.captioning.metrics import Cider, Words, bleu4, bleu_statistics
from fcbench.tasks.depth import DepthTask, depth_sums
from fcbench.tasks.pose import PoseTask
from fcbench.tasks.pose.metrics import oks, pck_counts
from fcbench.tasks.segmentation import SegmentationTask, class_counts
from fcbench.tasks.shared.targets import ratio

WORDS = "a the red blue cube cone left right of on two big small man".split()


# ------------------------------------------------------------------------------------ segmentation
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("absent", [False, True])
def test_miou_equals_torchmetrics(seed: int, absent: bool) -> None:
    rng = np.random.default_rng(seed)
    k = 5
    used = k - 2 if absent else k  # two classes occur nowhere
    target = rng.integers(0, used, (4, 17, 13)).astype(np.uint8)
    pred = np.where(rng.random(target.shape) < 0.6, target, rng.integers(0, used))
    target[rng.random(target.shape) < 0.2] = VOID
    values = SegmentationTask(k).values(class_counts(pred, target, k).sum(0))
    args = (torch.from_numpy(pred.astype(int)), torch.from_numpy(target.astype(int)))
    jaccard = MulticlassJaccardIndex(k, average="macro", ignore_index=VOID)
    accuracy = MulticlassAccuracy(k, average="micro", ignore_index=VOID)
    assert values["miou"] == pytest.approx(float(jaccard(*args)), abs=1e-6)
    assert values["pixel_accuracy"] == pytest.approx(float(accuracy(*args)), abs=1e-6)


def test_class_counts_by_hand() -> None:
    pred = np.array([[[0, 1, 1, 2]]])
    target = np.array([[[0, 1, VOID, 1]]], np.uint8)
    counts = class_counts(pred, target, 3)
    np.testing.assert_array_equal(counts, [[1, 1, 0, 1, 1, 1, 1, 2, 0]])
    values = SegmentationTask(3).values(counts[0])
    assert values["miou"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert values["pixel_accuracy"] == pytest.approx(2 / 3)


def test_all_void_counts_nothing() -> None:
    counts = class_counts(np.zeros((1, 2, 2), int), np.full((1, 2, 2), VOID, np.uint8), 2)
    assert not counts.any()


# ------------------------------------------------------------------------------------------- depth
@pytest.mark.parametrize("seed", range(4))
def test_depth_equals_its_definition_over_pooled_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = rng.uniform(0.5, 9, (5, 11, 7)).astype(np.float32)
    pred = (target * rng.lognormal(0, 0.3, target.shape)).astype(np.float32)
    target[rng.random(target.shape) < 0.3] = 0
    target[0, 2:] = 0  # images with unequal numbers of valid pixels
    values = DepthTask(10.0, 0.0, 1.0).values(depth_sums(pred, target).sum(0))
    p, t = pred[target > 0].astype(float), target[target > 0].astype(float)
    assert values["rmse"] == pytest.approx(np.mean((p - t) ** 2) ** 0.5)
    assert values["abs_rel"] == pytest.approx(np.mean(np.abs(p - t) / t))
    close = [max(a / b, b / a) < 1.25 for a, b in zip(p, t)]
    assert values["delta1"] == pytest.approx(sum(close) / len(close))
    assert 0.1 < values["delta1"] < 0.9


# -------------------------------------------------------------------------------------------- pose
def people(seed: int, n: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Predictions [P, 17, 2], truth [P, 17, 3], boxes [P, 4], areas [P]; person 0 has no labelled keypoint."""
    rng = np.random.default_rng(seed)
    truth = np.concatenate([rng.uniform(0, 100, (n, 17, 2)), rng.integers(0, 3, (n, 17, 1))], axis=-1)
    truth[0, :, 2] = 0
    pred = truth[..., :2] + rng.normal(0, 4, (n, 17, 2))
    low = rng.uniform(0, 30, (n, 2))
    boxes = np.concatenate([low, low + rng.uniform(30, 80, (n, 2))], axis=-1)
    return pred, truth, boxes, rng.uniform(200, 3000, n)


@pytest.mark.parametrize("seed", range(3))
def test_oks_equals_pycocotools(seed: int) -> None:
    pred, truth, boxes, areas = people(seed)
    ours = oks(pred, truth, areas)
    assert np.isnan(ours[0]) and np.isfinite(ours[1:]).all()
    judge = COCOeval(iouType="keypoints")
    for i in range(1, len(pred)):
        found = np.concatenate([pred[i], np.ones((17, 1))], axis=-1).ravel()
        judge._gts[i, 1] = [{"keypoints": truth[i].ravel(), "bbox": boxes[i], "area": areas[i]}]
        judge._dts[i, 1] = [{"keypoints": found, "score": 1.0}]
        assert ours[i] == pytest.approx(judge.computeOks(i, 1)[0, 0], abs=1e-12)
    assert ours[1:].std() > 0.01


def test_pck_counts_labelled_keypoints_within_a_tenth_of_the_longer_side() -> None:
    truth = np.zeros((1, 17, 3))
    truth[0, :4, 2] = (1, 2, 2, 2)
    pred = np.full((1, 17, 2), 1000.0)
    pred[0, :5] = [(8, 0), (0, 8.001), (4.8, 6.4), (20, 0), (0, 0)]
    box = np.array([[0.0, 0.0, 40.0, 80.0]])  # 0.1 of 80 px is 8 px
    np.testing.assert_array_equal(pck_counts(pred, truth, box), [[2, 4]])


# ---------------------------------------------------------------------------------------- captions
def captions(seed: int, n: int = 25) -> tuple[list[Words], list[tuple[Words, ...]]]:
    """Candidates and references of n images, as tuples of words; some candidates copy a reference."""
    rng = np.random.default_rng(seed)

    def one() -> Words:
        return tuple(rng.choice(WORDS, rng.integers(1, 12)))

    references = [tuple(one() for _ in range(rng.integers(1, 6))) for _ in range(n)]
    said = [r[0][: rng.integers(1, 12)] if rng.random() < 0.7 else one() for r in references]
    said[0] = ()  # a head may say nothing
    return said, references


def as_strings(
    said: Sequence[Words], references: Sequence[Sequence[Words]]
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """References and candidates as the reference implementations take them."""
    gts = {i: [" ".join(c) for c in r] for i, r in enumerate(references)}
    return gts, {i: [" ".join(c)] for i, c in enumerate(said)}


@pytest.mark.parametrize("seed", range(4))
def test_cider_equals_pycocoevalcap_sample_by_sample(seed: int) -> None:
    said, references = captions(seed)
    mean, each = ReferenceCider().compute_score(*as_strings(said, references))
    cider = Cider(references)
    ours = [cider.score(c, r) for c, r in zip(said, references)]
    np.testing.assert_allclose(ours, each, atol=1e-10)
    assert mean > 0.5


@pytest.mark.parametrize("seed", range(4))
def test_bleu4_equals_pycocoevalcap(seed: int) -> None:
    said, references = captions(seed)
    expected, _ = Bleu(4).compute_score(*as_strings(said, references), verbose=0)
    sums = np.sum([bleu_statistics(c, r) for c, r in zip(said, references)], axis=0)
    assert float(bleu4(sums)) == pytest.approx(expected[3], rel=1e-12)
    assert 0.05 < expected[3] < 1


def test_caption_values_are_mean_cider_and_corpus_bleu() -> None:
    said, references = captions(9)
    gts, res = as_strings(said, references)
    task = CaptioningTask(vocabulary=Vocabulary(tuple(WORDS)), max_words=9, cider=Cider(references))
    values = task.values(task.score(said, references).sum(0))
    assert values["cider"] == pytest.approx(ReferenceCider().compute_score(gts, res)[0])
    assert values["bleu4"] == pytest.approx(Bleu(4).compute_score(gts, res, verbose=0)[0][3])


def test_cider_of_a_batch_keeps_the_whole_sets_frequencies() -> None:
    said, references = captions(1)
    task = CaptioningTask(vocabulary=Vocabulary(tuple(WORDS)), max_words=9, cider=Cider(references))
    whole = task.score(said, references)
    np.testing.assert_array_equal(whole[3:5], task.score(said[3:5], references[3:5]))


# ------------------------------------------------------------------------------------------ common
def test_ratio_is_nan_over_nothing() -> None:
    np.testing.assert_array_equal(ratio(np.array([1, 0]), np.array([2, 0])), [0.5, np.nan])


def test_oks_of_another_skeleton_takes_equal_constants() -> None:
    """Its protocol says so; COCO's own 17 keep COCO's."""
    truth = np.zeros((1, 4, 3))
    truth[..., 2] = 2
    pred = np.full((1, 4, 2), 3.0)
    task = PoseTask(("beak", "left_wing", "right_wing", "tail"))
    batch = task.collate([{"pose": Pose(truth, np.array([[0.0, 0, 20, 20]]), np.array([400.0]))}])
    sums = task.statistics((torch.from_numpy(pred), torch.ones(1)), batch).sum(0)
    expected = np.exp(-18 / (2 * (2 / 4) ** 2 * 400))
    assert task.values(sums)["oks"] == pytest.approx(expected)
    assert task.metrics[1].protocol == "ground-truth boxes, sigmas 1/4"
    assert PoseTask().metrics[1].protocol == "ground-truth boxes"
