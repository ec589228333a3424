"""Data sets that are files in folders: images with a map each, images in class folders, splits by hash."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.io
from PIL import Image
from torch import Tensor

from fcbench.core.errors import FcbenchError, UnreadableSample
from fcbench.core.samples import Dataset, DatasetMeta, Sample
from fcbench.data.shared.images import DECODING_FAILS, as_sample, image_size, read_image, require_image_size
from fcbench.data.shared.layout import images_in, layout_error, some
from fcbench.data.shared.targets import resize_targets

TEST_SHARE = 0.2
"""Share of the samples that test, where the data come without an official split."""


# -------------------------------------------------------------------------------------------- splits
def hash_order(keys: Iterable[str]) -> list[str]:
    """Keys in the order of their hashes: a shuffle that is the same everywhere.

    >>> hash_order(["a", "b", "c"]) == hash_order(["c", "a", "b"])
    True
    """
    return sorted(keys, key=lambda k: hashlib.sha256(k.encode()).digest())


def hash_split(keys: Iterable[str], split: Literal["train", "test"]) -> list[str]:
    """Keys of one split: the fifth whose hashes come first tests, one at least, never the only one.

    >>> len(hash_split("abcdefghij", "train")), len(hash_split("abcdefghij", "test"))
    (8, 2)
    """
    ordered = hash_order(keys)
    n_test = min(max(1, round(TEST_SHARE * len(ordered))), len(ordered) - 1)
    return ordered[:n_test] if split == "test" else ordered[n_test:]


# -------------------------------------------------------------------------------- an image and a map
ReadMap = Callable[[Path, tuple[int, int]], Tensor]
"""Reads the map [H, W] of an image of a given (H, W). Raises `UnreadableSample`."""


@dataclass
class ImageAndMap(Dataset):
    """One split of a data set of one dense task: images, each with a map of its size.

    Attributes:
        files: (id, image, map) of each sample.
        read: reads a map; a function of a module, so that reading processes can have it.
    """

    name: str
    split: str
    revision: str
    tasks: tuple[str, ...]
    meta: DatasetMeta
    files: tuple[tuple[str, Path, Path], ...]
    read: ReadMap
    image_size_px: tuple[int, int] | None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        """Read an image."""
        sample_id, path, _ = self.files[index]
        return as_sample(sample_id, read_image(path), self.image_size_px)

    def targets(self, index: int) -> Mapping[str, Any]:
        """The map; of the image only the header is read."""
        _, image, path = self.files[index]
        size_px = image_size(image)
        return resize_targets({self.tasks[0]: self.read(path, size_px)}, size_px, self.image_size_px or size_px)


def pairs(name: str, root: Path, images: Path, maps: Path, layout: str) -> list[tuple[str, Path, Path]]:
    """(id, image, map) of two folders, paired by stem; the maps are PNG files.

    Raises:
        FcbenchError: a folder is missing or empty, or an image has no map.
    """
    files = images_in(name, images, layout)
    there = {p.name for p in images_in(name, maps, layout)}
    lonely = [p.name for p in files if f"{p.stem}.png" not in there]
    if lonely:
        problem = f"has no PNG for {some(lonely)}"
        raise FcbenchError(layout_error(name, maps, problem, layout))
    return [(p.relative_to(root).with_suffix("").as_posix(), p, maps / f"{p.stem}.png") for p in files]


def read_16_bit(path: Path, size_px: tuple[int, int]) -> np.ndarray:
    """Decode a 16-bit grey image. Returns uint16 [H, W].

    Raises:
        UnreadableSample: damaged, not 16-bit, or not of the size (H, W) of its image.
    """
    try:
        with Image.open(path) as file:
            mode, pixels = file.mode, np.array(file)
    except DECODING_FAILS as exc:
        raise UnreadableSample(f"cannot read map {path}: {exc}") from exc
    if not mode.startswith("I"):
        raise UnreadableSample(f"map {path} has pixel mode {mode!r}: expected 16-bit grey (I;16)")
    require_image_size("map", path, pixels.shape, size_px)
    return pixels.astype(np.uint16)


def read_mat(name: str, path: Path, key: str, layout: str) -> np.ndarray:
    """A variable of a MATLAB file of version 5 to 7, its unit dimensions left out.

    Raises:
        FcbenchError: the file is missing or damaged, or has no such variable.
    """
    if not path.is_file():
        raise FcbenchError(layout_error(name, path, "is missing", layout))
    try:
        return np.asarray(scipy.io.loadmat(path, squeeze_me=True)[key])
    except Exception as exc:  # whatever a damaged file makes scipy raise
        problem = f"is damaged or holds no {key} ({type(exc).__name__}: {exc})"
        raise FcbenchError(layout_error(name, path, problem, layout)) from exc


# -------------------------------------------------------------------------------- images with a label
@dataclass
class Labelled(Dataset):
    """One split of a data set for classification.

    Attributes:
        files: (id, image, index of its label in ``meta.label_names``) of each sample.
    """

    name: str
    split: str
    revision: str
    meta: DatasetMeta
    files: tuple[tuple[str, Path, int], ...]
    image_size_px: tuple[int, int] | None
    tasks: tuple[str, ...] = ("classification",)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        """Read an image."""
        sample_id, path, _ = self.files[index]
        return as_sample(sample_id, read_image(path), self.image_size_px)

    def targets(self, index: int) -> Mapping[str, Any]:
        """The label; no file is read."""
        return {"classification": self.files[index][2]}


def class_names(name: str, folder: Path, layout: str) -> tuple[str, ...]:
    """Names of the class folders in a folder, sorted.

    Raises:
        FcbenchError: no such folder, or it holds no folders.
    """
    if not folder.is_dir():
        raise FcbenchError(layout_error(name, folder, "is missing", layout))
    found = [p.name for p in folder.iterdir() if p.is_dir() and p.name[0] not in "._"]
    if not found:
        problem = "holds no class folders"
        raise FcbenchError(layout_error(name, folder, problem, layout))
    return tuple(sorted(found))


def labelled(root: Path, images: Iterable[tuple[Path, str]], names: Sequence[str]) -> tuple[tuple[str, Path, int], ...]:
    """(id, image, label) of images and their class, by hash: so the first ones are of all classes."""
    label = {name: i for i, name in enumerate(names)}
    by_id = {p.relative_to(root).as_posix(): (p, label[c]) for p, c in images}
    return tuple((key, *by_id[key]) for key in hash_order(by_id))
