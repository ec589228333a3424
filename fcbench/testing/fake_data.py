"""A tiny data set with targets of every task, deterministic by index."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from fcbench.core.samples import VOID, Dataset, DatasetMeta, Pose, Sample

CAPTIONS = (
    "A red cube left of a cone.",
    "Two green spheres!",
    "The person's small blue ball, under the table",
    "one big dog stands on grass",
)


def fake_pose(rng: np.random.Generator, size_px: tuple[int, int], n: int) -> Pose:
    """``n`` persons whose keypoints lie in their boxes."""
    scale = np.asarray([size_px[1], size_px[0]])
    low = rng.uniform(0.05, 0.3, (n, 2)) * scale
    high = rng.uniform(0.6, 0.95, (n, 2)) * scale
    xy = rng.uniform(low[:, None], high[:, None], (n, 17, 2))
    v = rng.integers(0, 3, (n, 17, 1))
    keypoints = np.concatenate([xy, v], axis=-1)
    area = np.prod(high - low, axis=-1) / 2
    return Pose(
        keypoints.astype(np.float32), np.concatenate([low, high], axis=-1).astype(np.float32), area.astype(np.float32)
    )


class FakeDataset(Dataset):
    """``n`` samples of random targets; image ``i`` has ``i % 3`` persons."""

    name = "fake"
    revision = "1"
    tasks: tuple[str, ...] = ("segmentation", "depth", "pose", "captioning", "classification")

    def __init__(self, n: int = 6, size_px: tuple[int, int] = (64, 64), split: str = "train") -> None:
        self.n = n
        self.size_px = size_px
        self.split = split
        self.image_size_px: tuple[int, int] | None = None
        self.meta = DatasetMeta(("sky", "wall", "thing"), tuple("abcdefg"), 10.0)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Sample:
        image = torch.zeros(3, *self.size_px, dtype=torch.uint8)
        return Sample(str(index), image, self.size_px)

    def targets(self, index: int) -> Mapping[str, Any]:
        rng = np.random.default_rng(index)
        height, width = self.size_px
        mask = np.full(self.size_px, index % 3, np.uint8)
        mask[height // 2 :, : width // 2] = (index + 1) % 3
        mask[: height // 8] = VOID
        depth = np.full(self.size_px, 1.0 + index, np.float32)
        depth[:, width // 2 :] += 2.0
        depth[:, -(width // 8) :] = 0.0
        k = index % len(CAPTIONS)
        return {
            "segmentation": mask,
            "depth": depth,
            "pose": fake_pose(rng, self.size_px, index % 3),
            "captioning": (CAPTIONS[k], CAPTIONS[k] + " here"),
            "classification": index % 7,
        }
