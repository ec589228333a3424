"""CamVid: street frames with 11 classes, from a folder on disk.

Reference: Brostow, Fauqueur, Cipolla, *Semantic object classes in video*, Pattern Recognition Letters 2009;
the split and the classes of Badrinarayanan et al., *SegNet*, 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from fcbench.core.errors import FcbenchError
from fcbench.core.samples import DataOptions, Dataset, DatasetMeta, DatasetPlugin
from fcbench.data.shared import folders, layout, targets
from fcbench.data.shared.images import read_class_mask

NAME = "camvid"
LAYOUT = (
    "ROOT/{train,val,test}/images/*.jpg (or .png) and ROOT/{train,val,test}/masks/*.png of the same stem, "
    "8-bit class index, 11 is void (the frames and split of the SegNet tutorial's CamVid)"
)
CLASSES = "sky building pole road pavement tree sign fence car pedestrian bicyclist".split()
VOID_IN_FILE = 11
FOLDERS = {"train": ("train", "val"), "test": ("test",)}
"""Split -> its folders: ``val`` is for training too, as nothing here is tuned on it."""


def read_mask(path: Path, size_px: tuple[int, int]) -> Tensor:
    """Mask of an image of (H, W), uint8 [H, W], class index or `VOID`. Raises `UnreadableSample`."""
    return read_class_mask(path, len(CLASSES), size_px, VOID_IN_FILE)


def _pairs(root: Path, folder: str) -> list[tuple[str, Path, Path]]:
    """(id, image, mask) of one folder. Raises `FcbenchError` where an image has no mask."""
    images = layout.images_in(NAME, root / folder / "images", LAYOUT)
    masks = root / folder / "masks"
    if not masks.is_dir():
        raise FcbenchError(layout.layout_error(NAME, masks, "is missing", LAYOUT))
    there = {p.name for p in masks.iterdir()}
    lonely = [p.name for p in images if f"{p.stem}.png" not in there]
    if lonely:
        problem = f"has no mask for {layout.some(lonely)}"
        raise FcbenchError(layout.layout_error(NAME, masks, problem, LAYOUT))
    return [(f"{folder}/{p.stem}", p, masks / f"{p.stem}.png") for p in images]


@dataclass(frozen=True)
class Plugin(DatasetPlugin):
    """CamVid from ``--data-root``."""

    tasks: tuple[str, ...] = ("segmentation",)

    def open(self, split: Literal["train", "test"], options: DataOptions) -> Dataset:
        """Open a split.

        Raises:
            FcbenchError: the folder is missing, has another layout, or lacks masks.
        """
        root = layout.require_root(NAME, options, LAYOUT)
        pairs = [pair for folder in FOLDERS[split] for pair in _pairs(root, folder)]
        revision = layout.files_revision(root, [p for pair in pairs for p in pair[1:]])
        return folders.ImageAndMap(
            NAME,
            split,
            revision,
            self.tasks,
            DatasetMeta(class_names=tuple(CLASSES), task_models=targets.PHOTOGRAPHS),
            tuple(pairs[: options.limit]),
            read_mask,
            options.image_size_px,
        )


PLUGIN = Plugin()
