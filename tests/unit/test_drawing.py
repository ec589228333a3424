"""Small pictures of images, features and outputs."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fcbench.core.features import FeatureStats
from fcbench.core.samples import VOID, Detections, Pose
from fcbench.measure.drawing import SIDE_PX, Colours, output, photograph

NAMES = ("cat", "dog", "bird")


def read(address: str) -> np.ndarray:
    """[H, W, 4] uint8 of a picture's address."""
    data = base64.b64decode(address.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))


def drawn(said: Any, size_px: tuple[int, int] = (20, 30), most: float = 10.0) -> dict[str, Any]:
    found = output(said, NAMES, size_px, most)
    return {name: value if name == "text" else read(value) for name, value in found.items()}


def stats(std: torch.Tensor) -> FeatureStats:
    return FeatureStats(std * 0, std, std * 0, std)


@pytest.mark.parametrize("n_channels", [1, 2, 16])
def test_features_differ_where_their_main_direction_differs(n_channels: int) -> None:
    features = 0.01 * torch.randn(3, n_channels, 4, 6, generator=torch.Generator().manual_seed(0))
    features[:, :, :, 3:] += 5.0
    colours = Colours.of(features, stats(torch.ones(n_channels)))
    seen = np.asarray(colours.picture(features[0])).astype(int)
    assert seen.shape == (4, 6, 3)
    assert seen[:, :3, 0].max() < 50 and seen[:, 3:, 0].min() > 200  # red is the first component


def test_channels_count_by_their_training_deviation() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.stack([torch.randn(2, 4, 4, generator=generator), 1000 * torch.ones(2, 4, 4)], dim=1)
    features[:, 1] += torch.randn(2, 4, 4, generator=generator)
    features[:, 0, :2] += 8
    axes = Colours.of(features, stats(torch.tensor([1.0, 1000.0]))).axes
    assert axes[0, 0].abs() > 100 * axes[1, 0].abs()


def test_masks_keep_classes_apart_and_void_grey() -> None:
    mask = np.array([[0, 1, 2], [3, VOID, 2]], np.uint8)
    seen = drawn(mask)["whole"]
    assert seen.shape == (2, 3, 4) and len({tuple(c) for c in seen.reshape(-1, 4)}) == 5
    assert tuple(seen[1, 1]) == (128, 128, 128, 255)


def test_depth_is_lighter_far_away_and_white_at_the_limit() -> None:
    seen = drawn(np.linspace(0, 20, 64, dtype=np.float32).repeat(64).reshape(64, 64))["whole"][..., 0].astype(int)
    assert seen[0].mean() < 10 and abs(seen[16].mean() - 127) < 15 and seen[40:].min() > 245


def test_keypoints_lie_where_they_are_and_all_else_is_clear() -> None:
    points = np.array([[[15.0, 10.0, 2.0], [3.0, 4.0, 2.0]]], np.float32)
    alpha = drawn(Pose(points, np.zeros((1, 4)), np.zeros(1)))["marks"][..., 3]
    assert alpha.shape == (20, 30) and alpha[10, 15] == alpha[4, 3] == 255
    assert alpha[:, 22:].max() == 0 and (alpha > 0).mean() < 0.15
    assert drawn(Pose(points[:0], np.zeros((0, 4)), np.zeros(0))) == {"text": "none in this image"}


def test_objects_are_boxes_with_names_and_sure_ones_alone() -> None:
    found = Detections(
        np.array([0, 1, 2]), np.array([0.5, 0.9, 0.1]), np.array([[2, 2, 8, 8], [100, 50, 300, 150], [0, 0, 1, 1]])
    )
    seen = drawn(found, size_px=(200, 400))
    assert seen["text"] == "dog 0.90, cat 0.50" and seen["marks"].shape == (SIDE_PX // 2, SIDE_PX, 4)
    assert seen["marks"][50 * SIDE_PX // 400, 200 * SIDE_PX // 400, 3] == 255  # the edge of the dog's box
    assert seen["marks"][100 * SIDE_PX // 400, 200 * SIDE_PX // 400, 3] == 0  # its middle
    assert drawn(Detections(np.zeros(0, int), np.zeros(0), np.zeros((0, 4))))["text"] == "none"


def test_words_and_classes_are_texts() -> None:
    assert drawn(("a dog",)) == {"text": "a dog"} and drawn(1) == {"text": "dog"}


def test_a_photograph_is_small_and_itself() -> None:
    image = torch.zeros(3, 300, 600, dtype=torch.uint8)
    image[0, :, 300:] = 255
    seen = read(photograph(image))
    assert seen.shape[:2] == (SIDE_PX // 2, SIDE_PX) and seen[50, 20, 0] < 20 and seen[50, 170, 0] > 230
