"""Images with their aspect ratio kept, padded at the bottom and on the right, and their targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as rle
from tiny_sets import MAKERS

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.samples import VOID, DataOptions, Dataset, DatasetMeta, Objects, Pose, Sample
from fcbench.data.letterbox import PADDING, Letterboxed, fitted
from fcbench.testing.datasets import LIMIT, DatasetContract, Options

HIGH, WIDE = (40, 20), (20, 40)  # sizes (H, W) of two images
INTO = (30, 30)


class TestOfCoco(DatasetContract):
    plugin = "letterbox:coco"

    @pytest.fixture(scope="class")
    @classmethod
    def options(cls, tmp_path_factory: pytest.TempPathFactory) -> Options:
        folder = tmp_path_factory.mktemp("letterbox")
        MAKERS["coco"](folder / "data")
        return lambda **changes: DataOptions(folder / "data", folder / "cache", **{"limit": LIMIT, **changes})


class Two(Dataset):
    """Two images, one upright and one lying."""

    name, split, revision, image_size_px = "two", "test", "1", None
    tasks = ("segmentation", "depth", "pose", "captioning", "instance_segmentation")
    meta = DatasetMeta()

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Sample:
        size = (HIGH, WIDE)[index]
        return Sample(str(index), torch.full((3, *size), 200, dtype=torch.uint8), size)

    def targets(self, index: int) -> Mapping[str, Any]:
        h, w = (HIGH, WIDE)[index]
        region = np.zeros((h, w), np.uint8, order="F")
        region[10:20, 5:15] = 1
        box = np.array([[5.0, 10.0, 15.0, 20.0]])
        return {
            "segmentation": torch.from_numpy(np.array(region)),
            "depth": torch.full((h, w), 2.0),
            "pose": Pose(np.array([[[10.0, 10.0, 2.0]]], np.float32), box.astype(np.float32), np.array([100.0], "f4")),
            "captioning": ("a thing",),
            "instance_segmentation": Objects(
                (h, w), np.array([0]), box, np.array([100.0]), np.array([False]), [rle.encode(region)]
            ),
        }


@given(st.tuples(*[st.integers(1, 3000)] * 2), st.tuples(*[st.integers(1, 600)] * 2))
def test_the_image_fits_and_so_does_its_extension(size: tuple[int, int], into: tuple[int, int]) -> None:
    inner, canvas = fitted(size, into)
    assert all(1 <= i <= n for i, n in zip(inner, into)) and any(i == n for i, n in zip(inner, into))
    assert all(c >= s for c, s in zip(canvas, size)) and any(c == s for c, s in zip(canvas, size))


@pytest.mark.parametrize("index", [0, 1])
def test_image_and_targets_stay_together(index: int) -> None:
    data = Letterboxed(Two(), INTO)
    sample, targets = data[index], data.targets(index)
    inside = (slice(None), slice(0, 15)) if index == 0 else (slice(0, 15), slice(None))
    covered = np.zeros(INTO, bool)
    covered[inside] = True
    image = sample.image.numpy().transpose(1, 2, 0)
    assert sample.size_px == (HIGH, WIDE)[index], "bpp counts original pixels"
    assert (image[covered] == 200).all() and (image[~covered] == PADDING).all()
    mask, depth = targets["segmentation"].numpy(), targets["depth"].numpy()
    assert ((mask == VOID) == ~covered).all() and ((depth == 0) == ~covered).all()
    (x, y, _), *_ = targets["pose"].keypoints[0]
    assert (x, y) == (7.5, 7.5) and targets["pose"].areas[0] == 100 * 0.75**2
    assert mask[8:15, 4:11].min() == 1 and targets["captioning"] == ("a thing",)
    objects = targets["instance_segmentation"]
    assert objects.size_px == (40, 40) and objects.boxes.tolist() == [[5, 10, 15, 20]]
    whole = rle.decode(objects.regions[0])
    assert whole.shape == (40, 40) and whole.sum() == 100 and whole[10:20, 5:15].all()


def test_rows_cannot_be_mixed_with_stretched_ones() -> None:
    data = Letterboxed(Two(), INTO)
    assert (data.name, data.resizing) == ("letterbox:two", "letterbox") and data.revision != Two.revision


@pytest.mark.parametrize("wrong", ["meta", "resizing", "has_images"])
def test_what_cannot_be_padded_is_refused(wrong: str) -> None:
    data = Two()
    changed = {"meta": replace(DatasetMeta(), eval_crop=(0.1, 0.9, 0.1, 0.9)), "resizing": "own", "has_images": False}
    setattr(data, wrong, changed[wrong])
    with pytest.raises(FcbenchError, match="use it without letterbox:"):
        Letterboxed(data, INTO)


def test_it_needs_another_data_set(tmp_path: Path) -> None:
    with pytest.raises(FcbenchError, match="--dataset letterbox:NAME"):
        registry.get("dataset", "letterbox").open("test", DataOptions(None, tmp_path))
    with pytest.raises(FcbenchError, match="unknown dataset 'cocoo'.*coco"):
        registry.get("dataset", "letterbox:cocoo")


def test_the_data_set_of_a_file_can_be_letterboxed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_files", {})
    file = tmp_path / "my_pictures.py"
    file.write_text("from fcbench.data.coco import PLUGIN\n")
    name = registry.use("dataset", f"letterbox:{file}")
    assert (
        name == "letterbox:my_pictures" and registry.get("dataset", name).tasks == registry.get("dataset", "coco").tasks
    )
    assert registry.origin("dataset", name) == registry.origin("dataset", "my_pictures") != {}
    assert registry.split_root(f"letterbox:{file}:/data") == (f"letterbox:{file}", "/data")
