"""Rendered scenes of the ``embedded`` split on disk, with the labels that the training stages need."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from fcbench.core.processes import workers
from fcbench.data.scenes import scene, words

SIZE_PX = 128
CHUNK = 200


@dataclass(frozen=True)
class Scenes:
    """Memory-mapped arrays: images [N, 3, H, W], instances and parts [N, H, W], attributes [N, A]."""

    images: np.ndarray
    instances: np.ndarray
    parts: np.ndarray
    attributes: np.ndarray
    names: tuple[str, ...]
    sizes: tuple[int, ...]


def _render_chunk(start: int) -> tuple[int, dict[str, np.ndarray]]:
    scenes = [scene.render(scene.sample_scene("embedded", i), SIZE_PX, SIZE_PX) for i in range(start, start + CHUNK)]
    table = [[value for value, _ in words.attributes(s).values()] for s in scenes]
    return start, {
        "images": np.stack([s.image for s in scenes]),
        "instances": np.stack([s.instances for s in scenes]),
        "parts": np.stack([s.parts for s in scenes]),
        "attributes": np.array(table, np.int8),
    }


def load(folder: Path, n: int) -> Scenes:
    """Render the first n scenes into a folder, once, and map them."""
    kinds = words.attributes(scene.render(scene.sample_scene("embedded", 0), 32, 32))
    shapes: dict[str, tuple[int, ...]] = {
        "images": (3, SIZE_PX, SIZE_PX),
        "instances": (SIZE_PX, SIZE_PX),
        "parts": (SIZE_PX, SIZE_PX),
        "attributes": (len(kinds),),
    }
    done = folder / "done.json"
    if not done.exists() or json.loads(done.read_text()) != {"n": n, "version": scene.VERSION}:
        folder.mkdir(parents=True, exist_ok=True)
        out = {
            k: np.lib.format.open_memmap(
                folder / f"{k}.npy", "w+", np.int8 if k == "attributes" else np.uint8, (n, *shape)
            )
            for k, shape in shapes.items()
        }
        with workers(os.cpu_count() or 1, "render scenes") as pool:
            for start, arrays in track(pool.map(_render_chunk, range(0, n, CHUNK)), "rendering", total=n // CHUNK):
                for k, a in arrays.items():
                    out[k][start : start + CHUNK] = a
        done.write_text(json.dumps({"n": n, "version": scene.VERSION}))
    maps = {k: np.load(folder / f"{k}.npy", mmap_mode="r") for k in shapes}
    return Scenes(**maps, names=tuple(kinds), sizes=tuple(size for _, size in kinds.values()))
