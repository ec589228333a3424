"""Any RGB-D recording: images and 16-bit depth maps in millimetres, in folders (on disk: --data-root).

Depth files hold millimetres, the convention of depth cameras' own recorders; 0 is invalid. Readings beyond
`MAX_DEPTH_M` are invalid too (65535 among them): indoor depth cameras only guess there, and a few such pixels would
rule every error. It is also the limit of the usual NYU evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fcbench.core.samples import DataOptions, Dataset, DatasetMeta, DatasetPlugin
from fcbench.data.shared import folders, layout, targets

NAME = "rgbd"
LAYOUT = (
    "ROOT/{train,test}/rgb/*.jpg (or .png) and ROOT/{train,test}/depth/*.png of the same stem and size, 16-bit grey, "
    "millimetres, 0 where invalid (from a recording of your own: any depth camera's export)"
)
METRES_PER_UNIT = 1e-3
MAX_DEPTH_M = 10.0


def read_depth(path: Path, size_px: tuple[int, int]) -> Tensor:
    """Depth of an image of (H, W), float32 [H, W] metres, 0 where invalid. Raises `UnreadableSample`."""
    metres = folders.read_16_bit(path, size_px).astype(np.float32) * METRES_PER_UNIT
    return torch.from_numpy(np.where(metres <= MAX_DEPTH_M, metres, 0).astype("f4"))


@dataclass(frozen=True)
class Plugin(DatasetPlugin):
    """RGB-D frames from ``--data-root``."""

    tasks: tuple[str, ...] = ("depth",)

    def open(self, split: Literal["train", "test"], options: DataOptions) -> Dataset:
        """Open a split.

        Raises:
            FcbenchError: the folder is missing, has another layout, or lacks depth maps.
        """
        root = layout.require_root(NAME, options, LAYOUT)
        images, maps = root / split / "rgb", root / split / "depth"
        files = folders.pairs(NAME, root, images, maps, LAYOUT)
        used = [p for pair in files for p in pair[1:]]
        return folders.ImageAndMap(
            NAME,
            split,
            layout.files_revision(root, used),
            self.tasks,
            DatasetMeta(max_depth_m=MAX_DEPTH_M, task_models=targets.PHOTOGRAPHS),
            tuple(files[: options.limit]),
            read_depth,
            options.image_size_px,
        )


PLUGIN = Plugin()
