"""ImageNet's 1000 classes, whichever of them the images show: what published classifiers state (--data-root).

Labels are the 1000 synsets of ILSVRC 2012 in sorted order, as in torchvision and timm. An image's class is the
synset that its folder is named by or that its file's name begins with.

Reference: Russakovsky et al., *ImageNet Large Scale Visual Recognition Challenge*, IJCV 2015.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from fcbench.core.samples import DataOptions, Dataset, DatasetPlugin
from fcbench.data.shared.folders import labelled
from fcbench.data.shared.layout import Layout, some

LAYOUT = Layout(
    "imagenet1k",
    "ROOT/train and ROOT/test (or ROOT/val), each with images in synset folders (nXXXXXXXX/*.JPEG) or named by "
    "their synset (nXXXXXXXX.jpg, nXXXXXXXX_10026.JPEG), the synsets among ImageNet's 1000",
)
NAMED = re.compile(r"(n\d{8})(?!\d)")


def synsets() -> tuple[str, ...]:
    """The 1000 synsets, in order."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())


def images_of(folder: Path, known: tuple[str, ...]) -> list[tuple[Path, str]]:
    """Images of a split with their synsets."""
    folders = folder.is_dir() and any(p.is_dir() and p.name[0] not in "._" for p in folder.iterdir())
    if folders:
        found = [(path, name) for name in LAYOUT.class_names(folder) for path in LAYOUT.images_in(folder / name)]
    else:
        matches = [(path, NAMED.match(path.name)) for path in LAYOUT.images_in(folder)]
        found = [(path, match[1] if match else path.name) for path, match in matches]
    if wrong := sorted({name for _, name in found} - set(known)):
        raise LAYOUT.error(folder, f"holds {some(wrong)}, which is none of the 1000 synsets")
    return found


class Plugin(DatasetPlugin):
    """Images of ImageNet's 1000 classes."""

    needs_root = True
    tasks = ("classification",)

    def open(self, split: Literal["train", "test"], options: DataOptions) -> Dataset:
        """Open a split."""
        root, known = LAYOUT.root(options), synsets()
        folder = root / split
        if split == "test" and not folder.is_dir() and (root / "val").is_dir():
            folder = root / "val"
        return labelled(LAYOUT.name, split, root, images_of(folder, known), known, options)


PLUGIN = Plugin()
