"""Any folder of images in class folders, for classification (on disk: --data-root).

Without split folders a fifth of every class tests, chosen by the hash of the files' paths. Samples come in the order
of those hashes, so that the first ones are of all classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fcbench.core.errors import FcbenchError
from fcbench.core.samples import DataOptions, Dataset, DatasetMeta, DatasetPlugin
from fcbench.data.shared import layout
from fcbench.data.shared.folders import Labelled, class_names, hash_split, labelled

NAME = "folder"
LAYOUT = (
    "ROOT/{train,test}/CLASS/*.jpg (or .jpeg, .png; val in place of test, or for training beside it), or "
    "ROOT/CLASS/*.jpg without a split (from images of your own)"
)
SPLITS = ("train", "val", "test")

Found = list[tuple[Path, str]]
"""Images and their classes."""


def split_folders(root: Path) -> dict[str, tuple[Path, ...]]:
    """Split -> its folders; empty where the root holds classes and no split.

    Raises:
        FcbenchError: some split folders are there, but not all that a run needs.
    """
    there = [s for s in SPLITS if (root / s).is_dir()]
    if not there:
        return {}
    if "train" not in there or len(there) < 2:
        problem = f"holds {' and '.join(there)} only: train and test (or val) go together"
        raise FcbenchError(layout.layout_error(NAME, root, problem, LAYOUT))
    test = there[-1]
    train = tuple(root / s for s in there if s != test)
    return {"train": train[::-1], "test": (root / test,)}


def images_of(folder: Path, names: tuple[str, ...]) -> Found:
    """Images of the class folders of a folder.

    Raises:
        FcbenchError: a class is not among the names, or a class folder is empty.
    """
    found = []
    for name in class_names(NAME, folder, LAYOUT):
        if name not in names:
            problem = f"is a class that the training images lack ({layout.some(names)})"
            raise FcbenchError(layout.layout_error(NAME, folder / name, problem, LAYOUT))
        images = layout.images_in(NAME, folder / name, LAYOUT)
        found += [(path, name) for path in images]
    return found


def by_hash(root: Path, found: Found, split: Literal["train", "test"]) -> Found:
    """Images of one split of a root without split folders, class by class."""
    classes: dict[str, dict[str, Path]] = {}
    for path, name in found:
        classes.setdefault(name, {})[path.relative_to(root).as_posix()] = path
    return [(paths[key], name) for name, paths in classes.items() for key in hash_split(paths, split)]


@dataclass(frozen=True)
class Plugin(DatasetPlugin):
    """Images in class folders from ``--data-root``."""

    tasks: tuple[str, ...] = ("classification",)

    def open(self, split: Literal["train", "test"], options: DataOptions) -> Dataset:
        """Open a split.

        Raises:
            FcbenchError: the folder is missing or has another layout.
        """
        root = layout.require_root(NAME, options, LAYOUT)
        folders = split_folders(root)
        if folders:
            names = class_names(NAME, root / "train", LAYOUT)
            found = [i for f in folders[split] for i in images_of(f, names)]
            how = ""
        else:
            names = class_names(NAME, root, LAYOUT)
            found = by_hash(root, images_of(root, names), split)
            how = "hash-split-"
        if not found:
            problem = f"holds too few images for a {split} split"
            raise FcbenchError(layout.layout_error(NAME, root, problem, LAYOUT))
        files = labelled(root, found, names)
        return Labelled(
            NAME,
            split,
            how + layout.files_revision(root, [path for path, _ in found]),
            DatasetMeta(label_names=names),
            files[: options.limit],
            options.image_size_px,
        )


PLUGIN = Plugin()
