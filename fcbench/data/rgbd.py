"""Any RGB-D recording: images and 16-bit depth maps in millimetres, in folders (on disk: --data-root).

Depth files hold millimetres, as depth cameras' own recorders write them; 0 is invalid. Readings beyond `MAX_DEPTH_M`
(including 65535) are invalid too: indoor depth cameras only guess there, and a few such pixels would dominate every
error. It is also the limit of the usual NYU evaluation.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fcbench.core.samples import DataOptions, Dataset, DatasetMeta, DatasetPlugin
from fcbench.data.shared.folders import image_and_map
from fcbench.data.shared.images import PHOTOGRAPHS, read_16_bit
from fcbench.data.shared.layout import Layout

LAYOUT = Layout(
    "rgbd",
    "ROOT/{train,test}/rgb/*.jpg (or .png) and ROOT/{train,test}/depth/*.png of the same stem and size, 16-bit grey, "
    "millimetres, 0 where invalid (from a recording of your own: any depth camera's export)",
)
METRES_PER_UNIT = 1e-3
MAX_DEPTH_M = 10.0


def read_depth(path: Path, size_px: tuple[int, int]) -> Tensor:
    """Depth of an image of (H, W), float32 [H, W] metres, 0 where invalid. Raises `UnreadableSample`."""
    metres = read_16_bit(path, size_px).astype(np.float32) * METRES_PER_UNIT
    return torch.from_numpy(np.where(metres <= MAX_DEPTH_M, metres, 0).astype("f4"))


class Plugin(DatasetPlugin):
    """RGB-D frames from ``--data-root``."""

    tasks = ("depth",)

    def open(self, split: Literal["train", "test"], options: DataOptions) -> Dataset:
        root = LAYOUT.root(options)
        files = LAYOUT.pairs(root, root / split / "rgb", root / split / "depth")
        meta = DatasetMeta(max_depth_m=MAX_DEPTH_M, task_models=PHOTOGRAPHS)
        return image_and_map(LAYOUT.name, split, root, "depth", meta, files, read_depth, options)


PLUGIN = Plugin()
