"""Images in class folders, for classification alone.

Without split folders a fifth of every class is the test split, chosen by the hash of the files' paths. Samples come in
the order of those hashes, so that the first ones are of all classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fcbench.core.samples import DataOptions, Dataset
from fcbench.data.folder.layout import LAYOUT, split_folders
from fcbench.data.shared.folders import hash_split_by, labelled
from fcbench.data.shared.layout import some

Found = list[tuple[Path, str]]  # Images and their classes


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
    images = {path.relative_to(root).as_posix(): (path, name) for path, name in found}
    return [images[key] for key in hash_split_by({key: name for key, (_, name) in images.items()}, split)]


def open_classes(root: Path, split: Literal["train", "test"], options: DataOptions) -> Dataset:
    """Open a split of class folders."""
    if folders := split_folders(root):
        names = LAYOUT.class_names(root / "train")
        found = [i for f in folders[split] for i in images_of(f, names)]
    else:
        names = LAYOUT.class_names(root)
        found = by_hash(root, images_of(root, names), split)
    if not found:
        raise LAYOUT.error(root, f"holds too few images for a {split} split")
    return labelled(LAYOUT.name, split, root, found, names, options, "" if folders else "hash-split-")
