"""Opens a folder of your own: class folders, or images with any targets beside them.

Without split folders a fifth of the images (of every class, if there are classes) is the test split, chosen by the hash
of their paths. Samples are ordered by those hashes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fcbench.core.samples import OBJECTS, VOID, DataOptions, Dataset, DatasetMeta, DatasetPlugin, Sample
from fcbench.data.folder.layout import DEPTH_FILE, LAYOUT, Unit, has_targets, read_unit, split_folders
from fcbench.data.folder.part import Part, read_part
from fcbench.data.shared import coco_format
from fcbench.data.shared.contents import Contents
from fcbench.data.shared.folders import hash_order, hash_split_by, labelled
from fcbench.data.shared.images import (
    PHOTOGRAPHS,
    LazyTargets,
    as_sample,
    image_size,
    read_16_bit,
    read_aligned_image,
    read_array,
    read_class_mask,
    read_image,
    resize_targets,
)
from fcbench.data.shared.layout import some

PLACED = {"segmentation", "depth", "pose", *OBJECTS}
"""Tasks whose targets refer to pixels."""
Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Entry:
    """An image, and for each task the source of its target: a file, regions, or the target itself."""

    id: str
    path: Path
    known: Mapping[str, Any]


@dataclass
class WithTargets(Dataset):
    """One split."""

    split: str
    revision: str
    tasks: tuple[str, ...]
    meta: DatasetMeta
    entries: Sequence[Entry]
    unit: Unit | None  # of depth files, if there are any
    image_size_px: Size | None
    contents: Contents
    # why the split lacks a task: one line that says what was expected where
    absent: Mapping[str, str] = field(default_factory=dict)
    name: str = LAYOUT.name

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Sample:
        entry = self.entries[index]
        read = read_aligned_image if PLACED & set(self.tasks) else read_image
        return as_sample(entry.id, read(entry.path), self.image_size_px)

    def targets(self, index: int) -> Mapping[str, Any]:
        entry = self.entries[index]

        def one(task: str) -> Any:
            if task not in PLACED:
                return entry.known[task]
            size_px = image_size(entry.path)
            target = self._placed(task, entry.known[task], size_px)
            return resize_targets({task: target}, size_px, self.image_size_px or size_px)[task]

        return LazyTargets(self.tasks, one)

    def sizes(self) -> Mapping[str, Size]:
        return self.contents.sizes([entry.path for entry in self.entries])

    def _placed(self, task: str, known: Any, size_px: Size) -> Any:
        if task == "segmentation":
            if isinstance(known, Path):
                return read_class_mask(known, len(self.meta.class_names), size_px, VOID)
            return coco_format.semantic_mask(known, size_px)
        if task == "depth" and self.unit:
            return read_depth(known, self.unit, size_px)
        return coco_format.with_codes(known) if task == "instance_segmentation" else known


def read_depth(path: Path, unit: Unit, size_px: Size) -> Tensor:
    """Depth of an image of (H, W), float32 [H, W] metres; 0 where not finite, not above 0 or beyond the unit's limit.
    Raises `UnreadableSample`: the file is damaged, of another size, or holds no plane of numbers."""
    read: Callable[[Path, Size], np.ndarray] = read_array if path.suffix.lower() == ".npy" else read_16_bit
    metres = read(path, size_px).astype(np.float64) * unit.metres_per_unit
    valid = np.isfinite(metres) & (metres > 0) & (metres <= unit.max_m)
    return torch.from_numpy(np.where(valid, metres, 0).astype(np.float32))


Found = list[tuple[Path, str]]  # Images and their classes


def images_of(folder: Path, names: tuple[str, ...]) -> Found:
    """Images in the class folders of a folder."""
    images = []
    for name in LAYOUT.class_names(folder):
        if name not in names:
            raise LAYOUT.error(folder / name, f"is a class that the training images lack ({some(names)})")
        images += [(path, name) for path in LAYOUT.images_in(folder / name)]
    return images


def by_hash(root: Path, found: Found, split: Literal["train", "test"]) -> Found:
    """Images of one split of a root without split folders, class by class."""
    images = {path.relative_to(root).as_posix(): (path, name) for path, name in found}
    return [images[key] for key in hash_split_by({key: name for key, (_, name) in images.items()}, split)]


def open_classes(root: Path, split: Literal["train", "test"], options: DataOptions) -> Dataset:
    """Open a split of class folders."""
    if folders := split_folders(root):
        names = LAYOUT.class_names(root / "train")
        images = [i for f in folders[split] for i in images_of(f, names)]
    else:
        names = LAYOUT.class_names(root)
        images = by_hash(root, images_of(root, names), split)
    if not images:
        raise LAYOUT.error(root, f"holds too few images for a {split} split")
    return labelled(LAYOUT.name, split, root, images, names, options, "" if folders else "hash-split-")


SOURCES = {
    "segmentation": "masks/ (or COCO-style JSON with segmentations)",
    "depth": "depth/",
    "pose": "COCO-style JSON with keypoints",
    "captioning": "COCO-style JSON with captions",
    "classification": "class folders in images/",
    **dict.fromkeys(OBJECTS, "COCO-style JSON with a bbox and an area of every object"),
}
"""Task -> where its targets come from."""
Split = Literal["train", "test"]


def common_names(parts: Sequence[Part], task: str) -> tuple[str, ...]:
    """Names of a task's classes or keypoints, which must be the same in all folders of a split."""
    for part in parts[1:]:
        if task in part.names and part.names[task] != parts[0].names.get(task, part.names[task]):
            raise LAYOUT.error(part.folder, f"and {parts[0].folder} differ in their names for {task}")
    return parts[0].names.get(task, ())


def label_names(parts: Sequence[Part], train: Path) -> tuple[str, ...]:
    """Classes of the training images. Raises `FcbenchError`: another part shows a class that they lack."""
    names = sorted(p.name for p in (train / "images").iterdir() if p.is_dir() and p.name[0] not in "._")
    for part in parts:
        if other := sorted(set(part.known["classification"].values()) - set(names)):
            raise LAYOUT.error(part.folder, f"shows class {other[0]}, which the training images lack")
    return tuple(names)


def chosen(root: Path, parts: Sequence[Part], split: Split, whole: bool) -> list[tuple[Part, str]]:
    """Images of a split in the order of their hashes, each as its folder and key. `whole`: the folders belong to the
    split, so they are not split again."""
    images = {path.relative_to(root).as_posix(): (part, key) for part in parts for key, path in part.images.items()}
    if whole:
        return [images[name] for name in hash_order(images)]
    classes = {name: str(part.known.get("classification", {}).get(key, "")) for name, (part, key) in images.items()}
    of_split = set(hash_split_by(classes, split))
    return [images[name] for name in hash_order(images) if name in of_split]


def open_with_targets(root: Path, split: Split, options: DataOptions) -> Dataset:
    """Open a split of images with targets beside them."""
    contents = Contents(root, options.cache_dir)
    folders = split_folders(root)
    parts = [read_part(root, folder, contents) for folder in folders.get(split, (root,))]
    tasks = tuple(task for task in SOURCES if all(task in part.known for part in parts))
    unit = read_unit(root / DEPTH_FILE) if "depth" in tasks else None
    labels = label_names(parts, folders["train"][-1] if folders else root) if "classification" in tasks else ()
    found = chosen(root, parts, split, bool(folders))
    if not found:
        raise LAYOUT.error(root, f"holds too few images for a {split} split")

    def entry(part: Part, key: str) -> Entry:
        known = {task: part.known[task][key] for task in tasks}
        if labels:
            known["classification"] = labels.index(known["classification"])
        return Entry(part.images[key].relative_to(root).as_posix(), part.images[key], known)

    revision = contents.revision(path for part in parts for path in part.files)
    meta = DatasetMeta(
        class_names=common_names(parts, "segmentation"),
        label_names=labels,
        max_depth_m=unit.max_m if unit else None,
        task_models=PHOTOGRAPHS,
        keypoint_names=common_names(parts, "pose"),
        category_names={task: common_names(parts, task) for task in OBJECTS if task in tasks},
    )
    absent = {
        task: str(LAYOUT.error(part.folder, f"holds no targets for {task}: expected {source}"))
        for part in parts
        for task, source in SOURCES.items()
        if task not in part.known
    }
    entries = [entry(part, key) for part, key in found[: options.limit]]
    revision = revision if folders else f"hash-split-{revision}"
    return WithTargets(split, revision, tasks, meta, entries, unit, options.image_size_px, contents, absent)


class Plugin(DatasetPlugin):
    """Your own images and targets from ``--data-root``."""

    tasks = tuple(SOURCES)

    def open(self, split: Split, options: DataOptions) -> Dataset:
        root = LAYOUT.root(options)
        first = next(iter(split_folders(root).get(split, ())), root)
        if has_targets(first) or has_targets(root):
            return open_with_targets(root, split, options)
        return open_classes(root, split, options)


PLUGIN = Plugin()
