"""Data sets of files in folders: images with a map each, images in class folders, splits by hash."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from fcbench.core.samples import DataOptions, Dataset, DatasetMeta, Sample
from fcbench.data.shared.contents import Contents
from fcbench.data.shared.images import as_sample, image_size, read_aligned_image, read_image, resize_targets

TEST_SHARE = 0.2  # Share of the samples in the test split, for data without an official split


def hash_order(keys: Iterable[str]) -> list[str]:
    """Keys in the order of their hashes: a shuffle that is the same on every machine.

    >>> hash_order(["a", "b", "c"]) == hash_order(["c", "a", "b"])
    True
    """
    return sorted(keys, key=lambda k: hashlib.sha256(k.encode()).digest())


def hash_split(keys: Iterable[str], split: Literal["train", "test"]) -> list[str]:
    """Keys of one split: the fifth with the lowest hashes is the test split; at least one key, never all.

    >>> len(hash_split("abcdefghij", "train")), len(hash_split("abcdefghij", "test"))
    (8, 2)
    """
    ordered = hash_order(keys)
    n_test = min(max(1, round(TEST_SHARE * len(ordered))), len(ordered) - 1)
    return ordered[:n_test] if split == "test" else ordered[n_test:]


def hash_split_by(group_of: Mapping[str, str], split: Literal["train", "test"]) -> list[str]:
    """Keys of one split, with each group split separately.

    >>> len(hash_split_by({"a": "x", "b": "x", "c": "y", "d": "y"}, "test"))
    2
    """
    groups: dict[str, list[str]] = {}
    for key, group in group_of.items():
        groups.setdefault(group, []).append(key)
    return [key for keys in groups.values() for key in hash_split(keys, split)]


ReadMap = Callable[[Path, tuple[int, int]], Tensor]
"""Reads the map [H, W] of an image of a given (H, W). Raises `UnreadableSample`."""


@dataclass
class Files(Dataset):
    """One split of a data set with one task: images, each with a map of its size or a label."""

    name: str
    split: str
    revision: str
    tasks: tuple[str, ...]
    meta: DatasetMeta
    files: Sequence[tuple[str, Path, Any]]  # (id, image, file of the map or index of the label) per sample
    image_size_px: tuple[int, int] | None
    contents: Contents
    read: ReadMap | None = None  # a module-level function, so that reading processes can import it; None for labels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        sample_id, path, _ = self.files[index]
        image = read_aligned_image(path) if self.read else read_image(path)
        return as_sample(sample_id, image, self.image_size_px)

    def targets(self, index: int) -> Mapping[str, Any]:
        _, image, target = self.files[index]
        if self.read is None:
            return {self.tasks[0]: target}
        size_px = image_size(image)
        return resize_targets({self.tasks[0]: self.read(target, size_px)}, size_px, self.image_size_px or size_px)

    def sizes(self) -> Mapping[str, tuple[int, int]]:
        return self.contents.sizes([image for _, image, _ in self.files])


def image_and_map(
    name: str,
    split: str,
    root: Path,
    task: str,
    meta: DatasetMeta,
    files: Sequence[tuple[str, Path, Path]],
    read: ReadMap,
    options: DataOptions,
    also: Sequence[Path] = (),
) -> Files:
    """A split of images and maps; the revision depends on all their files, and on further ones."""
    contents = Contents(root, options.cache_dir)
    revision = contents.revision([*also, *(p for file in files for p in file[1:])])
    size_px, files = options.image_size_px, files[: options.limit]
    return Files(name, split, revision, (task,), meta, files, size_px, contents, read)


def labelled(
    name: str,
    split: str,
    root: Path,
    images: Sequence[tuple[Path, str]],
    label_names: Sequence[str],
    options: DataOptions,
    prefix: str = "",
) -> Files:
    """A split of images and their classes, ordered by hash, so that the first ones cover all classes. `prefix`: start
    of the revision."""
    label = {c: i for i, c in enumerate(label_names)}
    by_id = {p.relative_to(root).as_posix(): (p, label[c]) for p, c in images}
    files = [(key, *by_id[key]) for key in hash_order(by_id)]
    contents = Contents(root, options.cache_dir)
    revision = prefix + contents.revision(path for path, _ in images)
    meta, size_px = DatasetMeta(label_names=tuple(label_names)), options.image_size_px
    return Files(name, split, revision, ("classification",), meta, files[: options.limit], size_px, contents)
