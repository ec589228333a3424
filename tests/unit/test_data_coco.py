"""The COCO reader: masks, persons, captions, splits, and what it says of half a data set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tiny_sets
import torch
from pycocotools import mask as rle

from fcbench.core import registry
from fcbench.core.errors import FcbenchError, UnreadableSample
from fcbench.core.samples import VOID, DataOptions, Dataset, require_tasks
from fcbench.data.shared.coco_format import Instance, semantic_mask

REAL = Path(__file__).parents[3] / "shared" / "data" / "coco_tiny"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    home = tmp_path / "coco"
    tiny_sets.coco(home)
    return home


def _open(root: Path, split: Literal["train", "test"] = "train", **options: Any) -> Dataset:
    where = options.pop("cache_dir", root.parent)
    return registry.get("dataset", "coco").open(split, DataOptions(root, where, **options))


def _edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# ------------------------------------------------------------------------------------------- targets
def test_instances_become_a_mask(root: Path) -> None:
    data = _open(root)
    assert data.meta.class_names == ("background", "person", "dog")
    expected = torch.zeros(tiny_sets.SIZE, dtype=torch.uint8)
    expected[2:10, 8:18] = 1
    expected[6:14, 14:22] = 2
    expected[6:10, 14:18] = VOID  # person and dog: nobody says who is in front
    expected[18:] = 1  # a crowd of persons, as a run-length code
    assert torch.equal(data.targets(0)["segmentation"], expected)


def test_three_classes_over_each_other_stay_void() -> None:
    regions = [Instance(k, [np.array([0.0, 0, 4, 0, 4, 4, 0, 4])]) for k in (1, 2, 1)]
    assert bool((semantic_mask(regions, (4, 4)) == VOID).all())
    assert bool((semantic_mask(regions[:1] * 3, (4, 4)) == 1).all())


def test_an_image_without_annotations_is_background(root: Path) -> None:
    path = root / "annotations" / "instances_train2017.json"
    _edit(path, lambda c: c.update(annotations=[]))
    assert not bool(_open(root).targets(3)["segmentation"].any())


def test_persons_are_those_with_keypoints_that_are_no_crowd(root: Path) -> None:
    data = _open(root)
    even, odd = data.targets(0)["pose"], data.targets(1)["pose"]
    assert even.boxes.tolist() == [[8, 2, 18, 10]] and even.areas.tolist() == [80]
    assert even.keypoints[0, :3].tolist() == [[10, 5, 2], [12, 6, 1], [0, 0, 0]]
    assert odd.keypoints.shape == (0, 17, 3) and odd.boxes.shape == (0, 4)


def test_a_person_leaves_the_box_clipped_to_the_image(root: Path) -> None:
    path = root / "annotations" / "person_keypoints_train2017.json"

    def change(content: dict[str, Any]) -> None:
        for row in content["annotations"]:
            row["bbox"] = [-3, 15, 40, 10]

    _edit(path, change)
    assert _open(root).targets(0)["pose"].boxes.tolist() == [[0, 15, 30, 20]]


@pytest.mark.parametrize("empty", [{}, {"segmentation": None}, {"segmentation": []}])
def test_an_object_without_a_region_has_an_empty_mask(root: Path, empty: dict[str, Any]) -> None:
    def change(content: dict[str, Any]) -> None:
        content["annotations"][0].pop("segmentation")
        content["annotations"][0].update(empty)

    _edit(root / "annotations" / "instances_train2017.json", change)
    targets = _open(root).targets(0)
    assert set(targets["segmentation"][2:6, 8:14].flatten().tolist()) == {0}
    assert [int(rle.area(code)) for code in targets["instance_segmentation"].regions] == [0, 64, 60]
    assert len(targets["detection"].boxes) == 3


def test_a_missing_caption_is_none(root: Path) -> None:
    _edit(root / "annotations" / "captions_train2017.json", lambda c: c["annotations"][0].update(caption=None))
    assert _open(root).targets(0)["captioning"] == ("Dog 1 of 0.",)


def test_captions(root: Path) -> None:
    assert _open(root, "test").targets(2)["captioning"] == ("Dog 0 of 102.", "Dog 1 of 102.")


def test_all_targets_go_along_with_the_size(root: Path) -> None:
    data = _open(root, image_size_px=(40, 90))
    sample, targets = data[0], data.targets(0)
    assert sample.image.shape == (3, 40, 90) and sample.size_px == (20, 30)
    assert targets["segmentation"].shape == (40, 90)
    assert targets["pose"].boxes.tolist() == [[24, 4, 54, 20]]
    assert targets["pose"].areas.tolist() == [480]


def test_who_wants_a_caption_decodes_no_mask(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("a mask was decoded")

    monkeypatch.setattr("fcbench.data.shared.coco_format.semantic_mask", never)
    targets = _open(root).targets(0)
    assert len(targets["captioning"]) == 2 and len(targets["pose"].areas) == 1
    with pytest.raises(AssertionError):
        targets["segmentation"]
    with pytest.raises(KeyError):
        targets["depth"]


# -------------------------------------------------------------------------------------------- splits
@pytest.mark.parametrize("gone", ["train2017", "annotations"])
def test_one_official_split_is_split_by_hash(root: Path, gone: str) -> None:
    """Whether the images or the annotations of the other one are missing."""
    if gone == "annotations":
        for path in (root / gone).glob("*_train2017.json"):
            path.unlink()
    else:
        shutil.rmtree(root / gone)
    train, test = _open(root, "train"), _open(root, "test")
    ids = [{d[i].id for i in range(len(d))} for d in (train, test)]
    assert (len(train), len(test)) == (4, 1) and not ids[0] & ids[1]
    assert all(i.startswith("val2017/") for i in ids[0] | ids[1])
    assert train.revision.startswith("hash-split-") and train.revision == test.revision
    assert not _open_whole_revision(root.parent).startswith("hash-split")


def _open_whole_revision(folder: Path) -> str:
    tiny_sets.coco(folder / "whole")
    return _open(folder / "whole").revision


@pytest.mark.parametrize("layout", ["images", "images/{}"])
def test_images_may_lie_in_a_folder_of_their_own(root: Path, layout: str) -> None:
    before = _open(root)[0]
    (root / "images").mkdir()
    for tag in ("train2017", "val2017"):
        for path in (root / tag).iterdir():
            target = root / layout.format(tag) / path.name
            target.parent.mkdir(exist_ok=True)
            path.rename(target)
        (root / tag).rmdir()
    after, test = _open(root), _open(root, "test")
    assert torch.equal(after[0].image, before.image) and len(test) == 5
    assert not test.revision.startswith("hash-split")


@pytest.mark.parametrize("layout", ["images", "images/val2017"])
def test_images_of_one_official_split_in_a_folder_of_their_own_are_split_by_hash(root: Path, layout: str) -> None:
    """The official zip of annotations holds those of both splits."""
    shutil.rmtree(root / "train2017")
    (root / layout).parent.mkdir(exist_ok=True)
    (root / "val2017").rename(root / layout)
    train, test = _open(root), _open(root, "test")
    ids = [{d[i].id for i in range(len(d))} for d in (train, test)]
    assert (len(train), len(test)) == (4, 1) and not ids[0] & ids[1]
    assert train.revision.startswith("hash-split-") and train.revision == test.revision
    for path in (root / layout).iterdir():
        path.rename(path.with_suffix(".png"))
    if layout == "images":
        with pytest.raises(FcbenchError, match="holds no images of .*val2017"):
            _open(root)


def test_the_limit_and_the_revision(root: Path) -> None:
    few = _open(root, limit=2)
    assert len(few) == 2 and few.revision == _open(root).revision
    _edit(root / "annotations" / "captions_train2017.json", lambda c: c.update(info=1))
    assert few.revision != _open(root).revision


# ------------------------------------------------------------------------------------- half data sets
def test_a_task_without_annotations_says_what_was_expected(root: Path) -> None:
    (root / "annotations" / "person_keypoints_val2017.json").unlink()
    train, test = _open(root), _open(root, "test")
    found = ("segmentation", "detection", "instance_segmentation")
    assert train.tasks == (*found, "pose", "keypoint_detection", "captioning")
    assert test.tasks == (*found, "captioning") == tuple(test.targets(0))
    require_tasks(["pose"], train)
    require_tasks(["captioning"], test)
    with pytest.raises(
        FcbenchError, match="person_keypoints_val2017.json is missing. Expected.*https://cocodataset.org"
    ):
        require_tasks(["captioning", "pose"], test)
    with pytest.raises(FcbenchError, match="no targets for task 'depth'; it has: seg"):
        require_tasks(["depth"], test)


def test_coco_voc_says_once_what_is_missing(root: Path) -> None:
    (root / "annotations" / "instances_val2017.json").unlink()
    with pytest.raises(FcbenchError, match="^data set 'coco': .*/instances_val2017.json is missing"):
        registry.get("dataset", "coco_voc").open("test", DataOptions(root, root.parent))


def test_missing_images(root: Path) -> None:
    (root / "train2017" / "000000000003.jpg").unlink()
    with pytest.raises(FcbenchError, match="lacks 1 of 5.*000000000003.jpg"):
        _open(root)
    assert len(_open(root, "test")) == 5


def test_two_years(root: Path) -> None:
    tiny_sets.coco(root, ("train2014",))
    with pytest.raises(FcbenchError, match="train2014 and train2017: keep one"):
        _open(root)


@pytest.mark.parametrize("content", ["", '{"images": [', "[]", '{"images": []}'])
def test_a_damaged_annotation_file(root: Path, content: str) -> None:
    (root / "annotations" / "captions_train2017.json").write_text(content)
    with pytest.raises(FcbenchError, match="captions_train2017.json") as caught:
        _open(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("empty", [[], {}, None])
def test_boxes_alone_are_detected_and_make_no_masks(root: Path, empty: Any) -> None:
    def change(content: dict[str, Any]) -> None:
        for row in content["annotations"]:
            row["segmentation"] = empty

    _edit(root / "annotations" / "instances_train2017.json", change)
    data = _open(root)
    assert "detection" in data.tasks and not {"segmentation", "instance_segmentation"} & set(data.tasks)
    assert "instances_train2017.json holds boxes alone" in data.absent["segmentation"]


@pytest.mark.parametrize(("kind", "lost"), [("captions", "caption"), ("person_keypoints", "keypoints")])
def test_annotations_of_another_format(root: Path, kind: str, lost: str) -> None:
    def change(content: dict[str, Any]) -> None:
        for row in content["annotations"]:
            row.pop(lost)

    _edit(root / "annotations" / f"{kind}_train2017.json", change)
    with pytest.raises(FcbenchError, match=f"not a COCO {kind} file.*{lost}"):
        _open(root)


def test_files_of_different_releases(root: Path) -> None:
    path = root / "annotations" / "captions_train2017.json"
    _edit(path, lambda c: c["images"].pop(1))
    with pytest.raises(FcbenchError, match="lacks 000000000001.jpg"):
        _open(root)


def test_an_image_without_a_caption(root: Path) -> None:
    path = root / "annotations" / "captions_train2017.json"
    _edit(path, lambda c: c.update(annotations=c["annotations"][2:]))
    with pytest.raises(FcbenchError, match="lacks 000000000000.jpg"):
        _open(root)


def test_resized_images_do_not_fit_their_annotations(root: Path) -> None:
    tiny_sets.picture(root / "train2017" / "000000000001.jpg", 0, (10, 15))
    data = _open(root)
    assert data[0].size_px == (20, 30)
    with pytest.raises(UnreadableSample, match="000000000001.jpg is 10x15.*20x30"):
        data[1]


# --------------------------------------------------------------------------------------- the real one
@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/data/coco_tiny beside the repository")
def test_the_real_coco(tmp_path: Path) -> None:
    train, test = _open(REAL, cache_dir=tmp_path), _open(REAL, "test", cache_dir=tmp_path)
    assert (len(train), len(test)) == (50, 50)
    assert len(train.meta.class_names) == 81 and train.meta == test.meta
    persons = [[len(d.targets(i)["pose"].areas) for i in range(len(d))] for d in (train, test)]
    assert [sum(p) for p in persons] == [57, 46]
    assert sum(len(test.targets(i)["captioning"]) for i in range(50)) == 250
    targets = test.targets(0)
    person = test.meta.class_names.index("person")
    for box in targets["pose"].boxes.astype(int):
        inside = targets["segmentation"][box[1] : box[3], box[0] : box[2]]
        assert (inside == person).float().mean() > 0.2, "mask and pose agree"
