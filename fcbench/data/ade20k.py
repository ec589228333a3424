"""ADE20K scene parsing: 22,210 images, 150 classes (on disk: --data-root; test = the official validation set).

Reference: Zhou et al., *Scene Parsing through ADE20K Dataset*, CVPR 2017 (the Scene Parsing Challenge 2016 release).
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

NAME = "ade20k"
LAYOUT = (
    "ROOT/images/{training,validation}/*.jpg, ROOT/annotations/{training,validation}/*.png of the same stem and "
    "ROOT/objectInfo150.txt, ROOT being the folder ADEChallengeData2016 of ADEChallengeData2016.zip from "
    "http://sceneparsing.csail.mit.edu"
)
FOLDERS = {"train": "training", "test": "validation"}
N_CLASSES = 150
VOID_IN_FILE = 0
"""Of pixels that are none of the 150 classes; those are 1 to 150 in the file."""


def read_mask(path: Path, size_px: tuple[int, int]) -> Tensor:
    """Mask of an image of (H, W), uint8 [H, W], classes 0 to 149 or `VOID`. Raises `UnreadableSample`."""
    return read_class_mask(path, N_CLASSES, size_px, VOID_IN_FILE, first=1)


def read_class_names(path: Path) -> tuple[str, ...]:
    """First name of each class, from ``objectInfo150.txt`` (tab-separated, one header line, the name last).

    Raises:
        FcbenchError: the file is missing or does not hold 150 rows.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()[1:]
    except (OSError, UnicodeDecodeError) as exc:
        problem = f"is missing or cannot be read ({exc})"
        raise FcbenchError(layout.layout_error(NAME, path, problem, LAYOUT)) from exc
    names = [row.split("\t")[-1].split(",")[0].strip() for row in lines if row.strip()]
    if len(names) != N_CLASSES:
        problem = f"names {len(names)} classes, {N_CLASSES} are known"
        raise FcbenchError(layout.layout_error(NAME, path, problem, LAYOUT))
    return tuple(names)


@dataclass(frozen=True)
class Plugin(DatasetPlugin):
    """ADE20K from ``--data-root``."""

    tasks: tuple[str, ...] = ("segmentation",)

    def open(self, split: Literal["train", "test"], options: DataOptions) -> Dataset:
        """Open a split.

        Raises:
            FcbenchError: the folder is missing, has another layout, or lacks annotations.
        """
        root = layout.require_root(NAME, options, LAYOUT)
        folder = FOLDERS[split]
        images, masks = root / "images" / folder, root / "annotations" / folder
        files = folders.pairs(NAME, root, images, masks, LAYOUT)
        info = root / "objectInfo150.txt"
        names = read_class_names(info)
        used = [info, *(p for pair in files for p in pair[1:])]
        return folders.ImageAndMap(
            NAME,
            split,
            layout.files_revision(root, used),
            self.tasks,
            DatasetMeta(class_names=names, task_models=targets.PHOTOGRAPHS),
            tuple(files[: options.limit]),
            read_mask,
            options.image_size_px,
        )


PLUGIN = Plugin()
