"""Any folder of images in class folders, for classification (on disk: --data-root).

Without split folders a fifth of every class is the test split, chosen by the hash of the files' paths. Samples come in
the order of those hashes, so that the first ones are of all classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fcbench.core.samples import DataOptions, Dataset, DatasetPlugin
from fcbench.data.shared.folders import hash_split, labelled
from fcbench.data.shared.layout import Layout, some

LAYOUT = Layout(
    "folder",
    "ROOT/{train,test}/CLASS/*.jpg (or .jpeg, .png; val in place of test, or for training beside it), or "
    "ROOT/CLASS/*.jpg without a split (from images of your own)",
)
SPLITS = ("train", "val", "test")

Found = list[tuple[Path, str]]
"""Images and their classes."""


def split_folders(root: Path) -> dict[str, tuple[Path, ...]]:
    """Split -> its folders; empty where the root holds classes and no split."""
    there = [s for s in SPLITS if (root / s).is_dir()]
    if not there:
        return {}
    if "train" not in there or len(there) < 2:
        raise LAYOUT.error(root, f"holds {' and '.join(there)} only: train and test (or val) go together")
    test = there[-1]
    train = tuple(root / s for s in there if s != test)
    return {"train": train[::-1], "test": (root / test,)}


def images_of(folder: Path, names: tuple[str, ...]) -> Found:
    """Images of the class folders of a folder."""
    found = []
    for name in LAYOUT.class_names(folder):
        if name not in names:
            raise LAYOUT.error(folder / name, f"is a class that the training images lack ({some(names)})")
        found += [(path, name) for path in LAYOUT.images_in(folder / name)]
    return found


def by_hash(root: Path, found: Found, split: Literal["train", "test"]) -> Found:
    """Images of one split of a root without split folders, class by class."""
    classes: dict[str, dict[str, Path]] = {}
    for path, name in found:
        classes.setdefault(name, {})[path.relative_to(root).as_posix()] = path
    return [(paths[key], name) for name, paths in classes.items() for key in hash_split(paths, split)]


class Plugin(DatasetPlugin):
    """Images in class folders from ``--data-root``."""

    tasks = ("classification",)

    def open(self, split: Literal["train", "test"], options: DataOptions) -> Dataset:
        """Open a split."""
        root = LAYOUT.root(options)
        if folders := split_folders(root):
            names = LAYOUT.class_names(root / "train")
            found = [i for f in folders[split] for i in images_of(f, names)]
        else:
            names = LAYOUT.class_names(root)
            found = by_hash(root, images_of(root, names), split)
        if not found:
            raise LAYOUT.error(root, f"holds too few images for a {split} split")
        return labelled(LAYOUT.name, split, root, found, names, options, "" if folders else "hash-split-")


PLUGIN = Plugin()
