"""CamVid: street frames with 11 classes, from a folder on disk.

Reference: Brostow, Fauqueur, Cipolla, *Semantic object classes in video*, Pattern Recognition Letters 2009;
the split and the classes of Badrinarayanan et al., *SegNet*, 2017.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fcbench.data import _common
from fcbench.types import DataOptions, Dataset, DatasetMeta, FcbenchError, Sample

NAME = "camvid"
LAYOUT = (
    "ROOT/{train,val,test}/images/*.jpg (or .png) and ROOT/{train,val,test}/masks/*.png of the same stem, "
    "8-bit class index, 11 is void (the frames and split of the SegNet tutorial's CamVid)"
)
CLASSES = (
    "sky building pole road pavement tree sign fence car pedestrian bicyclist".split()
)
VOID_IN_FILE = 11
FOLDERS = {"train": ("train", "val"), "test": ("test",)}
"""Split -> its folders: ``val`` is for training too, as nothing here is tuned on it."""


@dataclass
class CamVid:
    """One split of CamVid, resized where `DataOptions` asks for it."""

    split: str
    revision: str
    files: tuple[tuple[str, Path, Path], ...]  # (id, image, mask)
    image_size_px: tuple[int, int] | None
    name: str = NAME
    tasks: tuple[str, ...] = ("segmentation",)
    meta: DatasetMeta = DatasetMeta(
        class_names=tuple(CLASSES), task_models=_common.PHOTOGRAPHS
    )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        """Read a sample. Raises `UnreadableSample` naming the file."""
        sample_id, path, _ = self.files[index]
        image = _common.read_image(path)
        size_px = (int(image.shape[-2]), int(image.shape[-1]))
        targets = self._targets(index, size_px)
        image = _common.resize_image(image, self.image_size_px or size_px)
        return Sample(sample_id, image, targets, size_px)

    def targets(self, index: int) -> Mapping[str, Any]:
        """The mask alone; of the image only the header is read."""
        return self._targets(index, _common.image_size(self.files[index][1]))

    def _targets(self, index: int, size_px: tuple[int, int]) -> Mapping[str, Any]:
        mask = _common.read_class_mask(
            self.files[index][2], len(CLASSES), size_px, VOID_IN_FILE
        )
        new_px = self.image_size_px or size_px
        return _common.resize_targets({"segmentation": mask}, size_px, new_px)


def _pairs(root: Path, folder: str) -> list[tuple[str, Path, Path]]:
    """(id, image, mask) of one folder. Raises `FcbenchError` where an image has no mask."""
    images = _common.images_in(NAME, root / folder / "images", LAYOUT)
    masks = root / folder / "masks"
    if not masks.is_dir():
        raise FcbenchError(_common.layout_error(NAME, masks, "is missing", LAYOUT))
    there = {p.name for p in masks.iterdir()}
    lonely = [p.name for p in images if f"{p.stem}.png" not in there]
    if lonely:
        problem = f"has no mask for {_common.some(lonely)}"
        raise FcbenchError(_common.layout_error(NAME, masks, problem, LAYOUT))
    return [(f"{folder}/{p.stem}", p, masks / f"{p.stem}.png") for p in images]


@dataclass(frozen=True)
class Plugin:
    """CamVid from ``--data-root``."""

    tasks: tuple[str, ...] = ("segmentation",)
    needs_root: bool = True

    def open(self, split: Literal["train", "test"], options: DataOptions) -> Dataset:
        """Open a split.

        Raises:
            FcbenchError: the folder is missing, has another layout, or lacks masks.
        """
        root = _common.require_root(NAME, options, LAYOUT)
        pairs = [pair for folder in FOLDERS[split] for pair in _pairs(root, folder)]
        revision = _common.files_revision(root, [p for pair in pairs for p in pair[1:]])
        return CamVid(
            split, revision, tuple(pairs[: options.limit]), options.image_size_px
        )


PLUGIN = Plugin()
