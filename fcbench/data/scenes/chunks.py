"""Chunks of rendered scenes on disk: written whole, checked when a process opens them, rendered again when damaged."""

import io
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fcbench.core import cache
from fcbench.core.cache import CACHE_HINT
from fcbench.core.files import disk_errors
from fcbench.core.processes import workers
from fcbench.data.scenes.scene import Rendered, render, sample_scene
from fcbench.data.scenes.words import captions, label

SIZE = 100  # Scenes per chunk
ARRAYS = ("image", "segmentation", "depth")
WORDS = "words.json"
FILES = (*(f"{k}.npy" for k in ARRAYS), WORDS)
PART = ".part-"

Chunk = tuple[dict[str, np.ndarray], list[dict[str, Any]]]
"""Arrays [SIZE, ...] by name, and the other data of each scene."""


@dataclass(frozen=True, slots=True)
class Chunks:
    """The chunks of a split, ``folder/NUMBER/``: arrays, words, and an index of their digests."""

    folder: Path
    split: str
    size_px: tuple[int, int]  # (H, W) of the images

    def path(self, number: int) -> Path:
        """Folder of a chunk."""
        return self.folder / f"{number:05d}"

    def make(self, numbers: Sequence[int]) -> None:
        """Render the chunks that are not on disk, on all cores. Raises `FcbenchError`: the folder cannot be written, or
        a process died."""
        if not self._lacking(numbers):
            return
        with cache.locked(self.folder):
            with disk_errors(self.folder, CACHE_HINT):
                for left in self.folder.glob(f"{PART}*"):  # a killed process left it half made
                    shutil.rmtree(left)
            missing = self._lacking(numbers)  # another process may have made some by now
            if len(missing) > 1:
                with workers(min(len(missing), os.cpu_count() or 1), "render scenes") as pool:
                    for future in [pool.submit(self.render, i) for i in missing]:
                        future.result()
            elif missing:
                self.render(missing[0])

    def open(self, number: int) -> Chunk:
        """Open a chunk with its arrays mapped; a damaged one is rendered again. Raises `FcbenchError`: the folder
        cannot be read or written."""
        path = self.path(number)
        if not _is_whole(path):
            with cache.locked(self.folder):
                if not _is_whole(path):
                    self.render(number)
        with disk_errors(path, CACHE_HINT):
            arrays = {k: np.load(path / f"{k}.npy", mmap_mode="r") for k in ARRAYS}
            return arrays, json.loads((path / WORDS).read_text(encoding="utf-8"))

    def render(self, number: int) -> None:
        """Render a chunk. It appears under its name only when complete, and replaces an existing one. Raises
        `FcbenchError`: the folder cannot be written."""
        first = number * SIZE
        files = _files([render(sample_scene(self.split, i), *self.size_px) for i in range(first, first + SIZE)])
        with disk_errors(self.folder, CACHE_HINT):
            self.folder.mkdir(parents=True, exist_ok=True)
            part = Path(tempfile.mkdtemp(prefix=PART, dir=self.folder))
            try:
                for name, data in files.items():
                    cache.put(part / name, data)
                shutil.rmtree(self.path(number), ignore_errors=True)
                part.rename(self.path(number))
            finally:
                shutil.rmtree(part, ignore_errors=True)

    def _lacking(self, numbers: Sequence[int]) -> list[int]:
        return [i for i in numbers if not all(cache.has_digest(self.path(i) / name) for name in FILES)]


def _is_whole(chunk: Path) -> bool:
    return all(cache.is_whole(chunk / name) for name in FILES)


def _files(scenes: Sequence[Rendered]) -> dict[str, bytes]:
    arrays = {
        "image": [s.image for s in scenes],
        "segmentation": [s.classes for s in scenes],
        "depth": [s.depth for s in scenes],
    }
    words = json.dumps([_annotations(s) for s in scenes]).encode()
    return {f"{k}.npy": _npy(np.stack(maps)) for k, maps in arrays.items()} | {WORDS: words}


def _npy(array: np.ndarray) -> bytes:
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
