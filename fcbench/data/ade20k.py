"""ADE20K scene parsing: 22,210 images, 150 classes (on disk: --data-root; test = the official validation set).

Reference: Zhou et al., *Scene Parsing through ADE20K Dataset*, CVPR 2017 (the Scene Parsing Challenge 2016 release).
"""

from pathlib import Path
from typing import Literal

from torch import Tensor

from fcbench.core.samples import DataOptions, Dataset, DatasetMeta, DatasetPlugin
from fcbench.data.shared.folders import image_and_map
from fcbench.data.shared.images import PHOTOGRAPHS, read_class_mask
from fcbench.data.shared.layout import Layout

LAYOUT = Layout(
    "ade20k",
    "ROOT/images/{training,validation}/*.jpg, ROOT/annotations/{training,validation}/*.png of the same stem and "
    "ROOT/objectInfo150.txt, ROOT being the folder ADEChallengeData2016 of ADEChallengeData2016.zip from "
    "http://sceneparsing.csail.mit.edu",
)
FOLDERS = {"train": "training", "test": "validation"}
N_CLASSES = 150
VOID_IN_FILE = 0  # Index of pixels without a class; classes are 1 to 150 in the file


def read_mask(path: Path, size_px: tuple[int, int]) -> Tensor:
    """Mask of an image of (H, W), uint8 [H, W], classes 0 to 149 or `VOID`. Raises `UnreadableSample`."""
    return read_class_mask(path, N_CLASSES, size_px, VOID_IN_FILE, first=1)


def read_class_names(path: Path) -> tuple[str, ...]:
    """First name of each class, from ``objectInfo150.txt`` (tab-separated, one header line, the name last)."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()[1:]
    except (OSError, UnicodeDecodeError) as exc:
        raise LAYOUT.error(path, f"is missing or cannot be read ({exc})") from exc
    names = [row.split("\t")[-1].split(",")[0].strip() for row in lines if row.strip()]
    if len(names) != N_CLASSES:
        raise LAYOUT.error(path, f"names {len(names)} classes, expected {N_CLASSES}")
    return tuple(names)


class Plugin(DatasetPlugin):
    """ADE20K from ``--data-root``."""

    tasks = ("segmentation",)

    def open(self, split: Literal["train", "test"], options: DataOptions) -> Dataset:
        root, folder = LAYOUT.root(options), FOLDERS[split]
        files = LAYOUT.pairs(root, root / "images" / folder, root / "annotations" / folder)
        info = root / "objectInfo150.txt"
        meta = DatasetMeta(class_names=read_class_names(info), task_models=PHOTOGRAPHS)
        return image_and_map(LAYOUT.name, split, root, "segmentation", meta, files, read_mask, options, [info])


PLUGIN = Plugin()
