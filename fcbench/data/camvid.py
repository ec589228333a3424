"""CamVid: street frames with 11 classes, from a folder on disk.

Reference: Brostow, Fauqueur, Cipolla, *Semantic object classes in video*, Pattern Recognition Letters 2009;
the split and the classes of Badrinarayanan et al., *SegNet*, 2017.
"""

from pathlib import Path
from typing import Literal

from torch import Tensor

from fcbench.core.samples import DataOptions, Dataset, DatasetMeta, DatasetPlugin
from fcbench.data.shared.folders import image_and_map
from fcbench.data.shared.images import PHOTOGRAPHS, read_class_mask
from fcbench.data.shared.layout import Layout

LAYOUT = Layout(
    "camvid",
    "ROOT/{train,val,test}/images/*.jpg (or .png) and ROOT/{train,val,test}/masks/*.png of the same stem, "
    "8-bit class index, 11 is void (the frames and split of the SegNet tutorial's CamVid)",
)
CLASSES = "sky building pole road pavement tree sign fence car pedestrian bicyclist".split()
VOID_IN_FILE = 11
FOLDERS = {"train": ("train", "val"), "test": ("test",)}
"""Split -> its folders; ``val`` is used for training too, as nothing is tuned on it."""


def read_mask(path: Path, size_px: tuple[int, int]) -> Tensor:
    """Mask of an image of (H, W), uint8 [H, W], class index or `VOID`. Raises `UnreadableSample`."""
    return read_class_mask(path, len(CLASSES), size_px, VOID_IN_FILE)


def _pairs(root: Path, folder: str) -> list[tuple[str, Path, Path]]:
    pairs = LAYOUT.pairs(root, root / folder / "images", root / folder / "masks")
    return [(f"{folder}/{image.stem}", image, mask) for _, image, mask in pairs]


class Plugin(DatasetPlugin):
    """CamVid from ``--data-root``."""

    tasks = ("segmentation",)

    def open(self, split: Literal["train", "test"], options: DataOptions) -> Dataset:
        root = LAYOUT.root(options)
        files = [pair for folder in FOLDERS[split] for pair in _pairs(root, folder)]
        meta = DatasetMeta(class_names=tuple(CLASSES), task_models=PHOTOGRAPHS)
        return image_and_map(LAYOUT.name, split, root, "segmentation", meta, files, read_mask, options)


PLUGIN = Plugin()
