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
from fcbench.data.scenes.figure import ARMS, LEGS
from fcbench.data.scenes.objects import COLOURS, KINDS, TEXTURES
from fcbench.data.scenes.scene import GROUNDS, Rendered

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


def attributes(rendered: Rendered) -> dict[str, tuple[int, int]]:
    """Image-level attributes, name -> (value, number of values); ``hiera_nano`` was fine-tuned on them."""
    scene, seen = rendered.scene, words.prominent(rendered)
    near = sorted(seen, key=lambda t: t.z_m)
    persons = [t for t in near if t.figure is not None]
    third = 0.15
    out = {
        "indoor": (int(scene.indoor), 2),
        "ground": (GROUNDS.index(scene.ground), 4),
        "light": (int(np.digitize(scene.light[0], (-0.3, 0.3))), 3),
        "horizon": (int(np.digitize(scene.horizon, (0.34, 0.4))), 3),
        "wall": (int(np.digitize(scene.wall_m, (9, 11, 13))) if scene.indoor else 4, 5),
        "n_things": (min(len(seen), 7), 8),
        "n_persons": (min(len(persons), 2), 3),
        "label": (words.label(rendered), len(KINDS)),
    }
    for kind in KINDS:
        of_kind = [t for t in near if t.kind == kind]
        out[f"n_{kind}"] = (min(len(of_kind), 3), 4)
        first = of_kind[0] if of_kind else None
        out[f"colour_{kind}"] = (1 + list(COLOURS).index(first.colour) if first else 0, 9)
        out[f"texture_{kind}"] = (1 + TEXTURES.index(first.texture) if first else 0, 5)
        out[f"where_{kind}"] = (1 + int(np.digitize(first.x_m / first.z_m, (-third, third))) if first else 0, 4)
        out[f"far_{kind}"] = (1 + int(np.digitize(first.z_m, (3, 4, 5.5))) if first else 0, 5)
    person = persons[0] if persons else None
    figure = person.figure if person else None
    out["left_arm"] = (1 + ARMS.index(figure.arms[0]) if figure else 0, 5)
    out["right_arm"] = (1 + ARMS.index(figure.arms[1]) if figure else 0, 5)
    out["legs"] = (1 + LEGS.index(figure.legs) if figure else 0, 4)
    out["facing"] = (1 + int(figure.facing_front) if figure else 0, 3)
    out["lean"] = (1 + int(np.digitize(figure.lean, (-0.08, 0.08))) if figure else 0, 4)
    out["trousers"] = (1 + list(COLOURS).index(person.colour2) if person else 0, 9)
    return out


def _render_chunk(start: int) -> tuple[int, dict[str, np.ndarray]]:
    scenes = [scene.render(scene.sample_scene("embedded", i), SIZE_PX, SIZE_PX) for i in range(start, start + CHUNK)]
    table = [[value for value, _ in attributes(s).values()] for s in scenes]
    return start, {
        "images": np.stack([s.image for s in scenes]),
        "instances": np.stack([s.instances for s in scenes]),
        "parts": np.stack([s.parts for s in scenes]),
        "attributes": np.array(table, np.int8),
    }


def load(folder: Path, n: int) -> Scenes:
    """Render the first n scenes into a folder, once, and map them."""
    kinds = attributes(scene.render(scene.sample_scene("embedded", 0), 32, 32))
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
