"""Label coding: what comes back is the target, and few bytes are needed."""

from __future__ import annotations

import importlib
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle

from fcbench.core.errors import FcbenchError
from fcbench.core.samples import VOID, Detections, Pose
from fcbench.labels import captioning, classification, depth, pose, segmentation
from fcbench.labels.shared import coder, detections

MODULES = ("segmentation", "depth", "pose", "captioning", "classification")
CAPTION = "A man riding a wave on top of a surfboard."


def mask() -> np.ndarray:
    y, x = np.mgrid[:60, :80]
    out = ((x > 20).astype(np.uint8) + (y > 30) * 3).astype(np.uint8)
    out[:5, :5] = VOID
    return out


def keypoints(n_persons: int) -> Pose:
    rng = np.random.default_rng(0)
    points = rng.integers(-10, 640, (n_persons, 17, 3)).astype(np.float32)
    points[..., 2] = rng.integers(0, 3, (n_persons, 17))
    return Pose(points, np.zeros((n_persons, 4)), np.zeros(n_persons))


TARGETS: dict[str, Any] = {
    "segmentation": mask(),
    "depth": np.linspace(0, 9, 60 * 80, dtype=np.float32).reshape(60, 80),
    "pose": keypoints(3),
    "captioning": (CAPTION,),
    "classification": 42,
}


def test_masks_are_lossless_and_small() -> None:
    data = segmentation.encode(mask())
    assert np.array_equal(segmentation.decode(data), mask())
    assert len(data) < 150
    assert segmentation.encode(torch.from_numpy(mask())) == data
    noise = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
    assert np.array_equal(segmentation.decode(segmentation.encode(noise)), noise)
    with pytest.raises(FcbenchError, match="uint8"):
        segmentation.encode(mask().astype(np.int64))
    with pytest.raises(FcbenchError, match="H, W"):
        segmentation.encode(mask()[None])


@pytest.mark.parametrize("deepest", [0.5, 10.0, 65.535, 66.0, 700.0])
def test_depth_keeps_its_precision(deepest: float) -> None:
    target = np.random.default_rng(0).uniform(0.1, deepest, (30, 40))
    target = target.astype(np.float32)
    target.flat[0], target[2, 3], target[4, 5] = deepest, 0, 1e-4
    data = depth.encode(target)
    decoded = depth.decode(data)
    step = depth.PRECISION_M * 2 ** data[0]
    assert decoded.dtype == np.float32 and decoded.shape == target.shape
    error = np.abs(decoded - target)
    error[4, 5] = 0
    assert error.max() <= step / 2 + 1e-4 * step
    assert step == depth.PRECISION_M or deepest > 65.535
    assert ((decoded == 0) == (target == 0)).all()


def test_depth_that_is_none_is_refused() -> None:
    for bad in (-1.0, float("nan"), float("inf"), 1e30):
        with pytest.raises(FcbenchError):
            depth.encode(np.full((4, 4), bad, np.float32))


@pytest.mark.parametrize("n_persons", [0, 1, 5])
def test_keypoints_survive(n_persons: int) -> None:
    target = keypoints(n_persons)
    decoded = pose.decode(pose.encode(target))
    expected = target.keypoints.copy()
    expected[expected[..., 2] == 0] = 0
    assert np.array_equal(decoded, expected)


@pytest.mark.parametrize("n_keypoints", [1, 4, 16, 18, 133])
@pytest.mark.parametrize("n_persons", [0, 1, 5])
def test_keypoints_of_any_skeleton_survive(n_persons: int, n_keypoints: int) -> None:
    rng = np.random.default_rng(1)
    points = rng.integers(-20, 4000, (n_persons, n_keypoints, 2)) / 4
    seen = rng.integers(0, 3, (n_persons, n_keypoints, 1))
    target = np.concatenate([points * (seen > 0), seen], axis=-1).astype(np.float32)
    coded = pose.encode(Pose(target, np.zeros((n_persons, 4)), np.zeros(n_persons)))
    np.testing.assert_array_equal(pose.decode(coded), target)


def test_keypoints_keep_a_quarter_pixel() -> None:
    target = keypoints(2)
    target.keypoints[..., :2] += np.float32(0.33)
    decoded = pose.decode(pose.encode(target))
    seen = target.keypoints[..., 2] > 0
    error = np.abs(decoded - target.keypoints)[seen]
    assert 0 < error.max() <= pose.PRECISION_PX / 2 + 1e-4
    assert len(pose.encode(target)) < 2 * 17 * (2 + 2 * 12) / 8 + 8


def test_keypoints_that_are_none_are_refused() -> None:
    good = keypoints(1)
    for value, match in ((float("nan"), "NaN"), (1e9, "outside")):
        points = good.keypoints.copy()
        points[0, 0] = (value, 1, 2)
        with pytest.raises(FcbenchError, match=match):
            pose.encode(Pose(points, good.boxes, good.areas))
    with pytest.raises(FcbenchError, match="shape"):
        pose.encode(Pose(good.keypoints[..., :2], good.boxes, good.areas))


@pytest.mark.parametrize("text", [CAPTION, "", "x", "naïve café ☕", "a " * 500])
def test_captions_survive(text: str) -> None:
    assert captioning.decode(captioning.encode((text,))) == (text,)


def test_captions_of_usual_words_shrink() -> None:
    assert len(captioning.encode((CAPTION,))) < 0.75 * len(CAPTION)


@pytest.mark.parametrize(("index", "n_bytes"), [(0, 1), (1, 1), (255, 1), (256, 2), (65535, 2)])
def test_classes_take_whole_bytes(index: int, n_bytes: int) -> None:
    data = classification.encode(index)
    assert len(data) == n_bytes and classification.decode(data) == index
    for bad in (-1, 65536):
        with pytest.raises(FcbenchError, match="below"):
            classification.encode(bad)


@settings(deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=50))
def test_any_bytes_survive(data: bytes, dictionary: bytes) -> None:
    squeezed = coder.squeeze(data, dictionary)
    assert coder.expand(squeezed, dictionary) == data
    assert len(squeezed) <= len(data) + 1


def test_long_repetitions_take_few_bytes() -> None:
    assert len(coder.squeeze(b"abcd" * 10000)) < 100


@pytest.mark.parametrize("name", MODULES)
def test_damage_is_an_error_or_another_target(name: str) -> None:
    module = importlib.import_module(f"fcbench.labels.{name}")
    data = module.encode(TARGETS[name])
    rng = random.Random(0)
    flips = []
    for _ in range(100):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        flips.append(bytes(flipped))
    cuts = [data[: len(data) * i // 8] for i in range(8)]
    for damaged in [*flips, *cuts, rng.randbytes(40)]:
        try:
            module.decode(damaged)
        except FcbenchError:
            continue
    with pytest.raises(FcbenchError):
        module.decode(b"")
    assert isinstance(module.PLUGIN.versions(), dict)


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("n", [0, 1, 40])
def test_detections_come_back_to_the_step(n: int, masks: bool) -> None:
    rng = np.random.default_rng(0)
    boxes, points = rng.uniform(0, 640, (n, 4)), rng.uniform(-9, 640, (n, 17, 2))
    plane = np.asfortranarray(np.pad(np.ones((6, 7), np.uint8), 20))
    regions = [rle.encode(plane)] * n if masks else []
    found = Detections(rng.integers(0, 80, n), rng.random(n), boxes, regions, None if masks else points)
    said = detections.output([found])
    data = detections.encode(said)
    again = detections.decode(data)
    assert detections.same(again, said) and len(data) < 40 + n * (20 if masks else 100)
    assert np.abs(again.numbers[:, 2:6] / 4 - boxes).max(initial=0) <= 0.125
    assert [rle.decode({"size": again.size_px, "counts": c}).tolist() for c in again.regions] == [
        plane.tolist() for _ in regions
    ]
    for cut in range(0, len(data) - 1, 7):
        with pytest.raises(FcbenchError):
            detections.decode(data[:cut])


def test_detections_that_are_none_are_refused() -> None:
    far = Detections(np.zeros(1, int), np.ones(1), np.array([[0, 0, 9000.0, 1]]))
    with pytest.raises(FcbenchError, match="8191 pixels"):
        detections.output([far])
