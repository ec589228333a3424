"""PASCAL VOC segmentation: 20 classes and background (on disk: --data-root; test = the official validation set).

Reference: Everingham et al., *The Pascal Visual Object Classes (VOC) Challenge*, IJCV 2010.
"""

from pathlib import Path
from typing import Literal

from torch import Tensor

from fcbench.core.samples import DataOptions, Dataset, DatasetMeta, DatasetPlugin
from fcbench.data.shared.folders import image_and_map
from fcbench.data.shared.images import PHOTOGRAPHS, read_class_mask
from fcbench.data.shared.layout import Layout, some
from fcbench.data.shared.voc import CLASSES, VOID_IN_FILE

LAYOUT = Layout(
    "voc",
    "ROOT/JPEGImages/*.jpg, ROOT/SegmentationClass/*.png and ROOT/ImageSets/Segmentation/{train,val}.txt, ROOT being "
    "the folder VOCdevkit/VOC2012 of VOCtrainval_11-May-2012.tar from http://host.robots.ox.ac.uk/pascal/VOC",
)
LISTS = {"train": "train", "test": "val"}


def read_mask(path: Path, size_px: tuple[int, int]) -> Tensor:
    """Mask of an image of (H, W), uint8 [H, W], class index or `VOID`. Raises `UnreadableSample`."""
    return read_class_mask(path, len(CLASSES), size_px, VOID_IN_FILE)


def files_of(root: Path, listing: Path) -> list[tuple[str, Path, Path]]:
    """(id, image, mask) of the names in a list. Raises `FcbenchError`: the list or one of its files is missing."""
    try:
        names = listing.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as exc:
        raise LAYOUT.error(listing, f"is missing or cannot be read ({exc})") from exc
    images = {path.stem: path for path in LAYOUT.images_in(root / "JPEGImages")}
    masks = {path.stem: path for path in LAYOUT.images_in(root / "SegmentationClass")}
    lost = [name for name in names if name not in images or name not in masks]
    if lost or not names:
        raise LAYOUT.error(listing, f"names {some(lost)}, whose image or mask is missing" if lost else "is empty")
    return [(name, images[name], masks[name]) for name in names]


class Plugin(DatasetPlugin):
    """PASCAL VOC from ``--data-root``."""

    tasks = ("segmentation",)

    def open(self, split: Literal["train", "test"], options: DataOptions) -> Dataset:
        root = LAYOUT.root(options)
        listing = root / "ImageSets" / "Segmentation" / f"{LISTS[split]}.txt"
        meta = DatasetMeta(class_names=tuple(CLASSES), task_models=PHOTOGRAPHS)
        files = files_of(root, listing)
        return image_and_map(LAYOUT.name, split, root, "segmentation", meta, files, read_mask, options, [listing])


PLUGIN = Plugin()
