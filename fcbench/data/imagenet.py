"""ImageNet-1k (ILSVRC 2012) classification (on disk: --data-root; test = the official validation set).

Labels are WordNet ids in sorted order, as in torchvision and timm. Samples are ordered by the hash of their paths, so
that the first ones cover all classes.

Reference: Russakovsky et al., *ImageNet Large Scale Visual Recognition Challenge*, IJCV 2015.
"""

import re
from pathlib import Path
from typing import Literal

from fcbench.core.samples import DataOptions, Dataset, DatasetPlugin
from fcbench.data.shared.folders import labelled
from fcbench.data.shared.layout import Layout, some

DEVKIT = "ILSVRC2012_devkit_t12/data"
TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
LAYOUT = Layout(
    "imagenet",
    "ROOT/train/nXXXXXXXX/*.JPEG and ROOT/val/nXXXXXXXX/*.JPEG of the same synsets, or ROOT/val/ILSVRC2012_val_*.JPEG "
    f"with ROOT/{DEVKIT}/{{{TRUTH},{META}}}, from https://image-net.org/download-images (ILSVRC2012, account needed)",
)
SYNSET = re.compile(r"n\d{8}")
VAL_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})", re.IGNORECASE)

Found = list[tuple[Path, str]]  # Images and their synsets


def synsets_in(folder: Path) -> tuple[str, ...]:
    """Synset folders, sorted."""
    names = LAYOUT.class_names(folder)
    wrong = [n for n in names if not SYNSET.fullmatch(n)]
    if wrong:
        raise LAYOUT.error(
            folder, f"holds {some(wrong)}, which is not a WordNet id (for other classes: --dataset folder)"
        )
    return names


def validation_folders(val: Path, synsets: tuple[str, ...]) -> Found:
    """Validation images in synset folders."""
    differing = sorted(set(synsets) ^ set(synsets_in(val)))
    if differing:
        raise LAYOUT.error(val, f"and train differ in {some(differing)}")
    return [(p, s) for s in synsets for p in LAYOUT.images_in(val / s)]


def read_truth(devkit: Path) -> list[str]:
    """Synset of each validation image, by its number, from the development kit."""
    rows = LAYOUT.mat(devkit / META, "synsets")
    try:
        wnid = {int(r["ILSVRC2012_ID"]): str(r["WNID"]) for r in rows.flat}
        text = (devkit / TRUTH).read_text(encoding="ascii")
        return [wnid[int(line)] for line in text.split()]
    except (OSError, ValueError, KeyError, IndexError) as exc:
        raise LAYOUT.error(devkit, f"lacks {TRUTH}, or it and {META} do not fit each other ({exc!r})") from exc


def validation_flat(val: Path, devkit: Path, synsets: tuple[str, ...]) -> Found:
    """Validation images in one folder, with the ground truth of the development kit."""
    images, truth = LAYOUT.images_in(val), read_truth(devkit)
    numbers = [VAL_IMAGE.match(p.stem) for p in images]
    if [int(m.group(1)) if m else 0 for m in numbers] != list(range(1, len(truth) + 1)):
        raise LAYOUT.error(
            val, f"holds {len(images)} images, the ground truth numbers {len(truth)} from ILSVRC2012_val_00000001 on"
        )
    unknown = sorted(set(truth) - set(synsets))
    if unknown:
        raise LAYOUT.error(val, f"shows {some(unknown)}, which has no folder in train")
    return list(zip(images, truth))


class Plugin(DatasetPlugin):
    """ImageNet from ``--data-root``."""

    tasks = ("classification",)

    def open(self, split: Literal["train", "test"], options: DataOptions) -> Dataset:
        root = LAYOUT.root(options)
        train, val = root / "train", root / "val"
        synsets = synsets_in(train)
        if not val.is_dir():
            raise LAYOUT.error(val, "is missing")
        if split == "train":
            images = [(p, s) for s in synsets for p in LAYOUT.images_in(train / s)]
        elif any(p.is_dir() for p in val.iterdir()):
            images = validation_folders(val, synsets)
        else:
            images = validation_flat(val, root / DEVKIT, synsets)
        return labelled(LAYOUT.name, split, root, images, synsets, options)


PLUGIN = Plugin()
