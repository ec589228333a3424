"""Readers of images with a label or a class map: imagenet, folder, ade20k."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tiny_sets
import torch

from fcbench.core import registry
from fcbench.core.errors import FcbenchError, UnreadableSample
from fcbench.core.samples import VOID, DataOptions, Dataset


def _open(name: str, root: Path, split: Literal["train", "test"] = "train", **options: Any) -> Dataset:
    return registry.get("dataset", name).open(split, DataOptions(root, root.parent, **options))


def _labels(data: Dataset) -> dict[str, str]:
    """Label name by file name."""
    names = data.meta.label_names
    return {Path(data[i].id).name: names[data.targets(i)["classification"]] for i in range(len(data))}


# ------------------------------------------------------------------------------------------ imagenet
@pytest.mark.parametrize("flat", [False, True], ids=["folders", "devkit"])
def test_imagenet_in_both_layouts(tmp_path: Path, flat: bool) -> None:
    tiny_sets.imagenet(tmp_path, flat)
    train, test = _open("imagenet", tmp_path), _open("imagenet", tmp_path, "test")
    assert train.meta.label_names == test.meta.label_names == tiny_sets.SYNSETS
    assert all(name.startswith(label) for name, label in _labels(train).items())
    assert len(train) == 9
    assert _labels(test) == {f"ILSVRC2012_val_{i + 1:08d}.JPEG": tiny_sets.SYNSETS[i % 3] for i in range(6)}


def test_the_first_images_are_of_all_classes(tmp_path: Path) -> None:
    for c in range(4):
        for i in range(10):
            tiny_sets.picture(tmp_path / "train" / f"n0000000{c}" / f"{i}.JPEG", c)
            tiny_sets.picture(tmp_path / "val" / f"n0000000{c}" / f"{i}.JPEG", c)
    few = _open("imagenet", tmp_path, limit=20)
    counts = Counter(_open_label(few, i) for i in range(20))
    assert len(counts) == 4 and max(counts.values()) < 10


def _open_label(data: Dataset, index: int) -> int:
    return int(data.targets(index)["classification"])


def test_imagenet_without_validation_images_of_a_class(tmp_path: Path) -> None:
    tiny_sets.imagenet(tmp_path)
    shutil.rmtree(tmp_path / "val" / tiny_sets.SYNSETS[1])
    with pytest.raises(FcbenchError, match=f"differ in {tiny_sets.SYNSETS[1]}.*https"):
        _open("imagenet", tmp_path, "test")


@pytest.mark.parametrize("part", ["meta.mat", "ILSVRC2012_validation_ground_truth.txt"])
@pytest.mark.parametrize("harm", ["gone", "cut", "half"])
def test_imagenet_with_half_a_devkit(tmp_path: Path, part: str, harm: str) -> None:
    tiny_sets.imagenet(tmp_path, flat=True)
    path = tmp_path / "ILSVRC2012_devkit_t12" / "data" / part
    if harm == "gone":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(content[: 5 if harm == "cut" else len(content) // 2])
    with pytest.raises(FcbenchError) as caught:
        _open("imagenet", tmp_path, "test")
    assert "\n" not in str(caught.value) and "image-net.org" in str(caught.value)


def test_imagenet_with_a_validation_image_missing(tmp_path: Path) -> None:
    tiny_sets.imagenet(tmp_path, flat=True)
    (tmp_path / "val" / "ILSVRC2012_val_00000002.JPEG").unlink()
    with pytest.raises(FcbenchError, match="holds 5 images, the ground truth numbers 6"):
        _open("imagenet", tmp_path, "test")


def test_other_class_names_are_no_imagenet(tmp_path: Path) -> None:
    tiny_sets.folder(tmp_path)
    with pytest.raises(FcbenchError, match="cat, dog.*--dataset folder"):
        _open("imagenet", tmp_path)


# -------------------------------------------------------------------------------------------- folder
def test_folder_with_train_and_test(tmp_path: Path) -> None:
    tiny_sets.folder(tmp_path)
    train, test = _open("folder", tmp_path), _open("folder", tmp_path, "test")
    assert train.meta.label_names == ("cat", "dog", "owl") and len(test) == 9
    for data in (train, test):
        for i in range(len(data)):
            assert data[i].id.split("/")[1] == ("cat", "dog", "owl")[_open_label(data, i)]


@pytest.mark.parametrize(("splits", "n_train"), [(("train", "val"), 9), (("train", "val", "test"), 18)])
def test_val_tests_or_else_trains(tmp_path: Path, splits: tuple[str, ...], n_train: int) -> None:
    tiny_sets.folder(tmp_path, splits)
    train, test = _open("folder", tmp_path), _open("folder", tmp_path, "test")
    assert (len(train), len(test)) == (n_train, 9)
    assert test[0].id.startswith(splits[-1])


def test_folder_without_split_is_split_class_by_class(tmp_path: Path) -> None:
    tiny_sets.folder(tmp_path, splits=(), n=10)
    train, test = _open("folder", tmp_path), _open("folder", tmp_path, "test")
    ids = [{d[i].id for i in range(len(d))} for d in (train, test)]
    assert not ids[0] & ids[1] and len(ids[0] | ids[1]) == 30
    assert Counter(i.split("/")[0] for i in ids[1]) == {"cat": 2, "dog": 2, "owl": 2}
    assert test.revision.startswith("hash-split-")
    again = _open("folder", tmp_path, "test")
    assert [again[i].id for i in range(6)] == [test[i].id for i in range(6)]


def test_folder_with_a_class_of_one_image_trains_on_it(tmp_path: Path) -> None:
    tiny_sets.folder(tmp_path, splits=(), n=1)
    assert len(_open("folder", tmp_path)) == 3
    with pytest.raises(FcbenchError, match="too few images for a test split"):
        _open("folder", tmp_path, "test")


@pytest.mark.parametrize(
    ("harm", "match"),
    [
        ("test", "holds train only"),
        ("train", "holds test only"),
        ("train/dog", "dog is a class that the training images lack"),
        ("empty", "owl holds no images"),
    ],
)
def test_half_a_folder(tmp_path: Path, harm: str, match: str) -> None:
    tiny_sets.folder(tmp_path)
    if harm == "empty":
        for path in (tmp_path / "test" / "owl").iterdir():
            path.unlink()
    else:
        shutil.rmtree(tmp_path / harm)
    with pytest.raises(FcbenchError, match=match):
        _open("folder", tmp_path, "test")


# -------------------------------------------------------------------------------------------- ade20k
def test_ade20k_zero_is_void(tmp_path: Path) -> None:
    tiny_sets.ade20k(tmp_path)
    data = _open("ade20k", tmp_path, "test")
    assert len(data.meta.class_names) == 150 and data.meta.class_names[0] == "class1"
    written = torch.arange(600).reshape(tiny_sets.SIZE) % 151
    mask = data.targets(0)["segmentation"].long()
    assert torch.equal(mask == VOID, written == 0)
    assert torch.equal(mask[mask != VOID], written[written > 0] - 1)


def test_ade20k_with_a_class_too_many(tmp_path: Path) -> None:
    tiny_sets.ade20k(tmp_path)
    path = tmp_path / "annotations" / "training" / "ADE_train_00000001.png"
    tiny_sets.write_map(path, np.full(tiny_sets.SIZE, 151, np.uint8))
    data = _open("ade20k", tmp_path)
    with pytest.raises(UnreadableSample, match="index 151: allowed are 1 to 150 and void 0"):
        data.targets(1)


@pytest.mark.parametrize(
    ("part", "match"),
    [
        ("objectInfo150.txt", "objectInfo150.txt is missing"),
        ("images/validation", "validation is missing"),
        ("annotations/validation/ADE_valid_00000002.png", "no PNG for ADE_valid_00000002.jpg"),
    ],
)
def test_half_of_ade20k(tmp_path: Path, part: str, match: str) -> None:
    tiny_sets.ade20k(tmp_path / "ade")
    (tmp_path / "ade" / part).rename(tmp_path / "gone")
    with pytest.raises(FcbenchError, match=f"{match}.*sceneparsing.csail.mit.edu"):
        _open("ade20k", tmp_path / "ade", "test")


def test_ade20k_with_other_classes(tmp_path: Path) -> None:
    tiny_sets.ade20k(tmp_path)
    info = tmp_path / "objectInfo150.txt"
    info.write_text("\n".join(info.read_text().splitlines()[:100]))
    with pytest.raises(FcbenchError, match="names 99 classes, expected 150"):
        _open("ade20k", tmp_path)


# ---------------------------------------------------------------------------------------- odd names
def test_a_pipe_in_a_class_folder_is_no_image(tmp_path: Path) -> None:
    for c in "ab":
        for i in range(4):
            tiny_sets.picture(tmp_path / c / f"{i}.png", i)
    n = len(_open("folder", tmp_path)) + len(_open("folder", tmp_path, "test"))
    os.mkfifo(tmp_path / "a" / "pipe.png")
    assert len(_open("folder", tmp_path)) + len(_open("folder", tmp_path, "test")) == n


@pytest.mark.parametrize("name", [b"\xff", b"caf\xe9.png", b"\x1b[31mred.png"])
def test_names_that_cannot_be_printed_are_refused(tmp_path: Path, name: bytes) -> None:
    for c in "ab":
        tiny_sets.picture(tmp_path / c / "0.png", 0)
    made = tmp_path / os.fsdecode(name) if b"." not in name else tmp_path / "a" / os.fsdecode(name)
    tiny_sets.picture(made / "0.png" if b"." not in name else made, 1)
    with pytest.raises(FcbenchError, match="is not printable UTF-8.*rename it") as caught:
        _open("folder", tmp_path)
    assert str(caught.value).isprintable()
