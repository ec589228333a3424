"""Embedded data: procedural scenes with exact ground truth for every task. No download.

Scenes are rendered once, in chunks, on all cores, and stored in the cache folder. A split is an endless sequence; its
first ``limit`` scenes are used (by default 2000 for training, 400 for test).
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch

from fcbench.core.errors import FcbenchError
from fcbench.core.samples import DataOptions, Dataset, DatasetMeta, DatasetPlugin, Pose, Sample
from fcbench.data.scenes import chunks
from fcbench.data.scenes.chunks import Chunk, Chunks
from fcbench.data.scenes.objects import CLASSES, KINDS
from fcbench.data.scenes.scene import MAX_DEPTH_M, VERSION
from fcbench.data.shared.images import LazyTargets

SIZE_PX = (128, 128)
N_SAMPLES = {"train": 2000, "test": 400}
TASKS = ("segmentation", "depth", "pose", "captioning", "classification")


class Scenes(Dataset):
    """One split of the procedural scenes."""

    name = "scenes"
    tasks = TASKS
    meta = DatasetMeta(
        class_names=CLASSES,
        label_names=KINDS,
        max_depth_m=MAX_DEPTH_M,
        task_models={task: f"nano_{task}" for task in TASKS[:4]},
    )

    def __init__(self, n: int, stored: Chunks) -> None:
        self.split, self.image_size_px, self._n, self._stored = stored.split, stored.size_px, n, stored
        self.revision = f"v{VERSION}"
        stored.make(range((n + chunks.SIZE - 1) // chunks.SIZE))
        self._chunks: dict[int, Chunk] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_chunks": {}}  # each process maps the files itself

    def __len__(self) -> int:
        return self._n

    def _at(self, index: int) -> tuple[Chunk, int]:
        number, place = divmod(index, chunks.SIZE)
        if number not in self._chunks:
            self._chunks[number] = self._stored.open(number)
        return self._chunks[number], place

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self._n:
            raise IndexError(index)
        (arrays, _), k = self._at(index)
        image = torch.from_numpy(np.array(arrays["image"][k]))
        return Sample(f"{self.split}-{index:06d}", image, (int(image.shape[1]), int(image.shape[2])))

    def targets(self, index: int) -> Mapping[str, Any]:
        (arrays, words), k = self._at(index)

        def one(task: str) -> Any:
            if task in ("segmentation", "depth"):
                return np.array(arrays[task][k])
            if task == "captioning":
                return tuple(words[k]["captions"])
            if task == "classification":
                return int(words[k]["label"])
            pose = words[k]["pose"]
            return Pose(
                np.array(pose["keypoints"], np.float32).reshape(-1, 17, 3),
                np.array(pose["boxes"], np.float32).reshape(-1, 4),
                np.array(pose["areas"], np.float32),
            )

        return LazyTargets(self.tasks, one)


class Plugin(DatasetPlugin):
    """Procedural scenes."""

    tasks = TASKS
    needs_root = False

    def open(self, split: Literal["train", "test"], options: DataOptions) -> Scenes:
        if options.root is not None:
            raise FcbenchError(f"data set 'scenes' is embedded and takes no --data-root, got {options.root}")
        size_px = options.image_size_px or SIZE_PX
        if min(size_px) < 32:
            raise FcbenchError(f"scenes must be at least 32x32 px, got {size_px[0]}x{size_px[1]}")
        n = N_SAMPLES[split] if options.limit is None else options.limit
        if n < 1:
            raise FcbenchError(f"--limit must be at least 1, got {n}")
        folder = options.cache_dir / f"scenes-v{VERSION}" / f"{size_px[0]}x{size_px[1]}" / split
        return Scenes(n, Chunks(folder, split, size_px))


PLUGIN = Plugin()
