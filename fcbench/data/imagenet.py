"""ImageNet-1k (ILSVRC 2012) classification (on disk: --data-root; test = the official validation set).

Labels are WordNet ids in sorted order, as in torchvision and timm. Samples come in the order of their paths' hashes,
so that the first ones are of all classes.

Reference: Russakovsky et al., *ImageNet Large Scale Visual Recognition Challenge*, IJCV 2015.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fcbench.core.errors import FcbenchError
from fcbench.core.samples import DataOptions, Dataset, DatasetMeta, DatasetPlugin
from fcbench.data.shared import folders, layout

NAME = "imagenet"
DEVKIT = "ILSVRC2012_devkit_t12/data"
TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
LAYOUT = (
    "ROOT/train/nXXXXXXXX/*.JPEG and ROOT/val/nXXXXXXXX/*.JPEG of the same synsets, or ROOT/val/ILSVRC2012_val_*.JPEG "
    f"with ROOT/{DEVKIT}/{{{TRUTH},{META}}}, from https://image-net.org/download-images (ILSVRC2012, account needed)"
)
SYNSET = re.compile(r"n\d{8}")
VAL_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})", re.IGNORECASE)

Found = list[tuple[Path, str]]
"""Images and their synsets."""


def synsets_in(folder: Path) -> tuple[str, ...]:
    """Synset folders, sorted.

    Raises:
        FcbenchError: there are none, or folders of other names.
    """
    names = folders.class_names(NAME, folder, LAYOUT)
    wrong = [n for n in names if not SYNSET.fullmatch(n)]
    if wrong:
        problem = f"holds {layout.some(wrong)}, no WordNet id (for other classes: --dataset folder)"
        raise FcbenchError(layout.layout_error(NAME, folder, problem, LAYOUT))
    return names


def validation_folders(val: Path, synsets: tuple[str, ...]) -> Found:
    """Validation images that lie in synset folders.

    Raises:
        FcbenchError: the synsets are not those of the training images.
    """
    differing = sorted(set(synsets) ^ set(synsets_in(val)))
    if differing:
        problem = f"and train differ in {layout.some(differing)}"
        raise FcbenchError(layout.layout_error(NAME, val, problem, LAYOUT))
    return [(p, s) for s in synsets for p in layout.images_in(NAME, val / s, LAYOUT)]


def read_truth(devkit: Path) -> list[str]:
    """Synset of each validation image, by its number, from the development kit.

    Raises:
        FcbenchError: a file is missing, damaged, or names a class that the other does not know.
    """
    rows = folders.read_mat(NAME, devkit / META, "synsets", LAYOUT)
    try:
        wnid = {int(r["ILSVRC2012_ID"]): str(r["WNID"]) for r in rows.flat}
        text = (devkit / TRUTH).read_text(encoding="ascii")
        return [wnid[int(line)] for line in text.split()]
    except (OSError, ValueError, KeyError, IndexError) as exc:
        problem = f"lacks {TRUTH}, or it and {META} do not fit each other ({exc!r})"
        raise FcbenchError(layout.layout_error(NAME, devkit, problem, LAYOUT)) from exc


def validation_flat(val: Path, devkit: Path, synsets: tuple[str, ...]) -> Found:
    """Validation images that lie in one folder, with the development kit's ground truth.

    Raises:
        FcbenchError: images are missing, have other names, or are of classes without training images.
    """
    images, truth = layout.images_in(NAME, val, LAYOUT), read_truth(devkit)
    numbers = [VAL_IMAGE.match(p.stem) for p in images]
    came = [int(m.group(1)) for m in numbers if m]
    if came != list(range(1, len(truth) + 1)) or len(came) != len(images):
        problem = f"holds {len(images)} images, the ground truth numbers {len(truth)} from ILSVRC2012_val_00000001 on"
        raise FcbenchError(layout.layout_error(NAME, val, problem, LAYOUT))
    unknown = sorted(set(truth) - set(synsets))
    if unknown:
        problem = f"shows {layout.some(unknown)}, of which train has no folder"
        raise FcbenchError(layout.layout_error(NAME, val, problem, LAYOUT))
    return list(zip(images, truth))


@dataclass(frozen=True)
class Plugin(DatasetPlugin):
    """ImageNet from ``--data-root``."""

    tasks: tuple[str, ...] = ("classification",)

    def open(self, split: Literal["train", "test"], options: DataOptions) -> Dataset:
        """Open a split.

        Raises:
            FcbenchError: the folder is missing or has another layout.
        """
        root = layout.require_root(NAME, options, LAYOUT)
        train, val = root / "train", root / "val"
        synsets = synsets_in(train)
        if not val.is_dir():
            raise FcbenchError(layout.layout_error(NAME, val, "is missing", LAYOUT))
        if split == "train":
            found = [(p, s) for s in synsets for p in layout.images_in(NAME, train / s, LAYOUT)]
        elif any(p.is_dir() for p in val.iterdir()):
            found = validation_folders(val, synsets)
        else:
            found = validation_flat(val, root / DEVKIT, synsets)
        return folders.Labelled(
            NAME,
            split,
            layout.files_revision(root, [path for path, _ in found]),
            DatasetMeta(label_names=synsets),
            folders.labelled(root, found, synsets)[: options.limit],
            options.image_size_px,
        )


PLUGIN = Plugin()
