"""ImageNet's 1000 classes, whether images show all of them or not: the labels of published classifiers (--data-root).

Labels are the 1000 synsets of ILSVRC 2012 in sorted order, as in torchvision and timm. An image's class is the synset
that its folder or its file's name begins with.

With --image-size, images are prepared as in tests of classifiers: a central part with the shape of that size, 0.875 of
the largest that fits, is resized (bicubic, antialiased). That part is the original image that bits per pixel refer to;
nothing outside it is seen or sent.

Reference: Russakovsky et al., *ImageNet Large Scale Visual Recognition Challenge*, IJCV 2015.
"""

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fcbench.core.cache import digest
from fcbench.core.samples import DataOptions, Dataset, DatasetPlugin, Sample
from fcbench.data.shared.folders import Files, labelled
from fcbench.data.shared.images import read_image
from fcbench.data.shared.layout import Layout, some

LAYOUT = Layout(
    "imagenet1k",
    "ROOT/train and ROOT/test (or ROOT/val), each with images in synset folders (nXXXXXXXX/*.JPEG) or named by "
    "their synset (nXXXXXXXX.jpg, nXXXXXXXX_10026.JPEG), the synsets among ImageNet's 1000",
)
NAMED = re.compile(r"(n\d{8})(?!\d)")
CROP = 0.875  # Share of an image's side that classifiers are tested on
PREPARED = f"central {CROP}, bicubic"  # How images are brought to a size; part of the revision


def central(size_px: tuple[int, int], wanted_px: tuple[int, int]) -> tuple[int, int]:
    """(H, W) of the central part of an image that is resized to a given size.

    >>> central((256, 341), (224, 224))
    (224, 224)
    """
    scale = CROP * min(have / want for have, want in zip(size_px, wanted_px))
    height, width = (max(1, round(scale * want)) for want in wanted_px)
    return height, width


def prepared(image: Tensor, wanted_px: tuple[int, int]) -> Tensor:
    """The central part of uint8 [3, H, W], resized to a given size (H, W)."""
    size_px = int(image.shape[-2]), int(image.shape[-1])
    height, width = central(size_px, wanted_px)
    top, left = (size_px[0] - height) // 2, (size_px[1] - width) // 2
    part = image[None, :, top : top + height, left : left + width].float()
    smooth = F.interpolate(part, wanted_px, mode="bicubic", antialias=True, align_corners=False)
    return smooth[0].round().clamp(0, 255).to(torch.uint8)


class Cropped(Files):
    """Labelled images, prepared as in tests of classifiers."""

    resizing = PREPARED

    def __getitem__(self, index: int) -> Sample:
        if self.image_size_px is None:
            return super().__getitem__(index)
        sample_id, path, _ = self.files[index]
        image = read_image(path)
        size_px = central((int(image.shape[-2]), int(image.shape[-1])), self.image_size_px)
        return Sample(sample_id, prepared(image, self.image_size_px), size_px)

    def sizes(self) -> Mapping[str, tuple[int, int]]:
        by_file, expected_px = super().sizes(), self.image_size_px
        return by_file if expected_px is None else {key: central(size, expected_px) for key, size in by_file.items()}


def synsets() -> tuple[str, ...]:
    """The 1000 synsets, in order."""
    from timm.data.imagenet_info import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())


def images_of(folder: Path, known: tuple[str, ...]) -> list[tuple[Path, str]]:
    """Images of a split with their synsets."""
    folders = folder.is_dir() and any(p.is_dir() and p.name[0] not in "._" for p in folder.iterdir())
    if folders:
        images = [(path, name) for name in LAYOUT.class_names(folder) for path in LAYOUT.images_in(folder / name)]
    else:
        matches = [(path, NAMED.match(path.name)) for path in LAYOUT.images_in(folder)]
        images = [(path, match[1] if match else path.name) for path, match in matches]
    if wrong := sorted({name for _, name in images} - set(known)):
        raise LAYOUT.error(folder, f"holds {some(wrong)}, which is not one of the 1000 synsets")
    return images


class Plugin(DatasetPlugin):
    """Images of ImageNet's 1000 classes."""

    tasks = ("classification",)

    def open(self, split: Literal["train", "test"], options: DataOptions) -> Dataset:
        root, known = LAYOUT.root(options), synsets()
        folder = root / split
        if split == "test" and not folder.is_dir() and (root / "val").is_dir():
            folder = root / "val"
        labelled_images = labelled(LAYOUT.name, split, root, images_of(folder, known), known, options)
        revision = digest({"contents": labelled_images.revision, "prepared": PREPARED})
        return Cropped(
            **{f.name: getattr(labelled_images, f.name) for f in fields(labelled_images)} | {"revision": revision}
        )


PLUGIN = Plugin()
