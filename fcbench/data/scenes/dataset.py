"""Embedded data: procedural scenes with exact ground truth for every task. No download.

Scenes are rendered once, in chunks, by all cores, and kept under the cache folder. A split is an endless sequence of
which the first ``limit`` scenes are used (by default 2000 for training, 400 for test).
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from fcbench.core.cache import CACHE_HINT
from fcbench.core.errors import FcbenchError
from fcbench.core.files import disk_errors, write_atomically
from fcbench.core.samples import DataOptions, Dataset, DatasetMeta, DatasetPlugin, Pose, Sample
from fcbench.data.scenes.objects import CLASSES, KINDS
from fcbench.data.scenes.scene import MAX_DEPTH_M, VERSION, Rendered, render, sample_scene
from fcbench.data.scenes.words import captions, label

CHUNK = 100
SIZE_PX = (128, 128)
N_SAMPLES = {"train": 2000, "test": 400}
ARRAYS = ("image", "segmentation", "depth")
TASKS = ("segmentation", "depth", "pose", "captioning", "classification")

Chunk = tuple[dict[str, np.ndarray], list[dict[str, Any]]]


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

    def __init__(self, split: str, n: int, size_px: tuple[int, int], folder: Path) -> None:
        self.split, self.image_size_px, self._n, self._folder = split, size_px, n, folder
        self.revision = f"v{VERSION}"
        _render_missing(folder, split, n, size_px)
        self._chunks: dict[int, Chunk] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_chunks": {}}  # each process maps the files itself

    def __len__(self) -> int:
        return self._n

    def _chunk(self, number: int) -> Chunk:
        if number not in self._chunks:
            path = self._folder / f"{number:05d}"
            arrays = {k: np.load(path / f"{k}.npy", mmap_mode="r") for k in ARRAYS}
            words = json.loads((path / "words.json").read_text(encoding="utf-8"))
            self._chunks[number] = arrays, words
        return self._chunks[number]

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self._n:
            raise IndexError(index)
        arrays, _ = self._chunk(index // CHUNK)
        image = torch.from_numpy(np.array(arrays["image"][index % CHUNK]))
        return Sample(f"{self.split}-{index:06d}", image, (int(image.shape[1]), int(image.shape[2])))

    def targets(self, index: int) -> Mapping[str, Any]:
        """A scene's targets."""
        arrays, words = self._chunk(index // CHUNK)
        k = index % CHUNK
        pose = words[k]["pose"]
        return {
            "segmentation": np.array(arrays["segmentation"][k]),
            "depth": np.array(arrays["depth"][k]),
            "pose": Pose(
                np.array(pose["keypoints"], np.float32).reshape(-1, 17, 3),
                np.array(pose["boxes"], np.float32).reshape(-1, 4),
                np.array(pose["areas"], np.float32),
            ),
            "captioning": tuple(words[k]["captions"]),
            "classification": int(words[k]["label"]),
        }


def _render_missing(folder: Path, split: str, n: int, size_px: tuple[int, int]) -> None:
    """Render the chunks that are not on disk yet. Raises `FcbenchError` if the folder cannot be written."""
    numbers = range((n + CHUNK - 1) // CHUNK)
    missing = [i for i in numbers if not (folder / f"{i:05d}").exists()]
    if not missing:
        return
    with disk_errors(folder, CACHE_HINT):
        folder.mkdir(parents=True, exist_ok=True)
        jobs = [(folder, split, i, size_px) for i in missing]
        if len(jobs) == 1:
            render_chunk(*jobs[0])
            return
        workers = min(len(jobs), os.cpu_count() or 1)
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for future in [pool.submit(render_chunk, *job) for job in jobs]:
                future.result()


def render_chunk(folder: Path, split: str, number: int, size_px: tuple[int, int]) -> None:
    """Render one chunk into ``folder/NUMBER``, which appears only when it is complete."""
    first = number * CHUNK
    scenes = [render(sample_scene(split, i), *size_px) for i in range(first, first + CHUNK)]
    temporary = Path(tempfile.mkdtemp(prefix=".part-", dir=folder))
    try:
        for name, arrays in (
            ("image", [s.image for s in scenes]),
            ("segmentation", [s.classes for s in scenes]),
            ("depth", [s.depth for s in scenes]),
        ):
            write_atomically(temporary / f"{name}.npy", _npy(np.stack(arrays)), CACHE_HINT)
        words = [_annotations(s) for s in scenes]
        write_atomically(temporary / "words.json", json.dumps(words), CACHE_HINT)
        try:
            temporary.rename(folder / f"{number:05d}")
        except OSError:
            if not (folder / f"{number:05d}").exists():  # another process was first: the same scenes
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _npy(array: np.ndarray) -> bytes:
    """An array as a ``.npy`` file. (To a file itself numpy writes without telling why a write was cut short.)"""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _annotations(scene: Rendered) -> dict[str, Any]:
    pose = scene.pose
    return {
        "captions": captions(scene),
        "label": label(scene),
        "pose": {k: getattr(pose, k).tolist() for k in ("keypoints", "boxes", "areas")},
    }


class Plugin(DatasetPlugin):
    """Procedural scenes."""

    tasks = TASKS
    needs_root = False

    def open(self, split: Literal["train", "test"], options: DataOptions) -> Scenes:
        """Open a split, rendering what is not in the cache yet."""
        if options.root is not None:
            raise FcbenchError(f"data set 'scenes' is embedded and takes no --data-root, got {options.root}")
        size_px = options.image_size_px or SIZE_PX
        if min(size_px) < 32:
            raise FcbenchError(f"scenes must be at least 32x32 px, got {size_px[0]}x{size_px[1]}")
        n = N_SAMPLES[split] if options.limit is None else options.limit
        if n < 1:
            raise FcbenchError(f"--limit must be at least 1, got {n}")
        folder = options.cache_dir / f"scenes-v{VERSION}" / f"{size_px[0]}x{size_px[1]}" / split
        return Scenes(split, n, size_px, folder)


PLUGIN = Plugin()
