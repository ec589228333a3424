"""The data set ``folder`` with targets beside its images: what is read, and what is said of a wrong layout."""

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

from fcbench.core import registry
from fcbench.core.errors import FcbenchError, UnreadableSample
from fcbench.core.samples import VOID, DataOptions, Dataset, require_tasks

TASKS = ("segmentation", "depth", "pose", "captioning", "classification", "detection", "keypoint_detection")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tiny_sets.folder_of_all(tmp_path / "data")
    return tmp_path / "data"


def _open(root: Path, split: Literal["train", "test"] = "train", **options: Any) -> Dataset:
    return registry.get("dataset", "folder").open(split, DataOptions(root, root.parent / "cache", **options))


def _index(data: Dataset, name: str) -> int:
    return next(i for i in range(len(data)) if data[i].id.endswith(name))


def _edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _edit_bytes(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


# ------------------------------------------------------------------------------------------- targets
def test_all_tasks_side_by_side(root: Path) -> None:
    train, test = _open(root), _open(root, "test")
    assert train.tasks == test.tasks == TASKS and len(train) == len(test) == 6
    assert train.meta.class_names == ("sky", "tree", "bird") and train.meta.label_names == ("crow", "owl")
    assert train.meta.max_depth_m == 8 and train.meta.keypoint_names == tiny_sets.SKELETON
    targets = train.targets(_index(train, "owl/1.png"))
    expected = torch.arange(600).reshape(tiny_sets.SIZE) % 4
    assert torch.equal(targets["segmentation"], torch.where(expected == 3, VOID, expected).to(torch.uint8))
    assert targets["pose"].keypoints.shape == (1, 4, 3) and targets["classification"] == 1
    assert targets["captioning"] == ("a bird sits there 4",)


@pytest.mark.parametrize("name", ["owl/0.png", "owl/1.png"], ids=["png", "npy"])
def test_depth_is_in_metres_by_the_stated_unit(root: Path, name: str) -> None:
    data = _open(root)
    depth = data.targets(_index(data, name))["depth"]
    assert depth.dtype == torch.float32 and depth[0, :2].tolist() == [0, 0], "no reading, and one beyond 8 m"
    assert depth[0, 2].item() == pytest.approx(1.02) and depth[19, 29].item() == pytest.approx(6.99)


def test_classes_of_json_regions(root: Path) -> None:
    for split in ("train", "test"):
        shutil.rmtree(root / split / "masks")
        (root / split / "boxes.json").unlink()
        region = tiny_sets.box_polygon(2, 3, 6, 4)
        _edit(root / split / "birds.json", lambda c: [r.update(segmentation=region) for r in c["annotations"]])
        _edit(root / split / "birds.json", lambda c: [r.pop("keypoints") for r in c["annotations"]])
    data = _open(root)
    assert data.meta.class_names == ("background", "bird") and "pose" not in data.tasks
    mask = data.targets(0)["segmentation"]
    assert bool((mask[3:7, 2:8] == 1).all()) and int(mask.sum()) == 24


@pytest.mark.parametrize("nothing", [[], None])
def test_boxes_with_empty_regions_are_boxes_alone(root: Path, nothing: Any) -> None:
    """As detectors' exports have them."""
    for split in ("train", "test"):
        shutil.rmtree(root / split / "masks")
        (root / split / "birds.json").unlink()
        _edit(
            root / split / "boxes.json",
            lambda c: [r.update(segmentation=nothing, keypoints=nothing) for r in c["annotations"]],
        )
    assert _open(root).tasks == ("depth", "captioning", "classification", "detection")


@pytest.mark.parametrize("empty", [{}, {"keypoints": None}, {"keypoints": []}])
def test_categories_without_keypoints_are_no_poses(root: Path, empty: dict[str, Any]) -> None:
    def change(content: dict[str, Any]) -> None:
        content["categories"].append({"id": 8, "name": "egg"})
        egg = {"id": 99, "image_id": content["images"][0]["id"], "category_id": 8, "bbox": [1, 1, 3, 3], "area": 9}
        content["annotations"].append(egg | empty)

    _edit(root / "train" / "birds.json", change)
    data = _open(root)
    targets = data.targets(_index(data, "crow/0.png"))
    assert targets["pose"].keypoints.shape == (1, 4, 3)
    found = targets["keypoint_detection"]
    assert found.labels.tolist() == [0, 1] and found.keypoints[1].tolist() == [[0, 0, 0]] * 4


def test_the_17_keypoints_of_coco_are_known_as_such(root: Path) -> None:
    from fcbench.core.samples import COCO_KEYPOINTS

    def change(content: dict[str, Any]) -> None:
        content["categories"][0]["keypoints"] = list(COCO_KEYPOINTS)
        for row in content["annotations"]:
            row["keypoints"] = [5, 5, 2] * 17

    _edit(root / "train" / "birds.json", change)
    assert _open(root).meta.keypoint_names == ()


def test_a_root_without_splits_is_split_class_by_class(tmp_path: Path) -> None:
    tiny_sets.folder_of_all(tmp_path / "data", splits=(), n=10)
    train, test = _open(tmp_path / "data"), _open(tmp_path / "data", "test")
    ids = [{d[i].id for i in range(len(d))} for d in (train, test)]
    assert not ids[0] & ids[1] and len(ids[0] | ids[1]) == 20
    assert sorted(i.split("/")[1] for i in ids[1]) == ["crow"] * 2 + ["owl"] * 2
    assert test.revision.startswith("hash-split-") and test.revision == train.revision


def test_images_without_classes(root: Path) -> None:
    """Two tasks of five; the reasons for the others are stated."""
    for split in ("train", "test"):
        for path in (root / split).glob("*.json"):
            path.unlink()
        for kind in ("images", "masks", "depth"):
            for path in list((root / split / kind).glob("*/*")):
                path.rename(root / split / kind / f"{path.parent.name}{path.name}")
            for path in (root / split / kind).iterdir():
                if path.is_dir():
                    path.rmdir()
    data = _open(root)
    assert data.tasks == ("segmentation", "depth") == tuple(data.targets(0))
    with pytest.raises(FcbenchError, match="no targets for pose: expected COCO-style JSON.*Expected: ROOT/"):
        require_tasks(["pose"], data)


def test_train_and_val_train_together(tmp_path: Path) -> None:
    tiny_sets.folder_of_all(tmp_path / "data", ("train", "val", "test"))
    train, test = _open(tmp_path / "data"), _open(tmp_path / "data", "test")
    assert (len(train), len(test)) == (12, 6) and train.tasks == TASKS


def test_links_are_followed_also_out_of_the_folder(root: Path) -> None:
    before, away = _open(root).revision, root.parent / "away"
    away.mkdir()
    for number, part in enumerate(("images/owl", "masks/owl", "depth", "images/crow/0.png")):
        (root / "train" / part).rename(away / str(number))
        (root / "train" / part).symlink_to(away / str(number))
    (away / "1" / "back").symlink_to(root / "train" / "masks")
    data = _open(root)
    assert data.revision == before and len(data) == 6
    assert data.targets(_index(data, "owl/1.png"))["segmentation"].shape == tiny_sets.SIZE
    _edit_bytes(away / "1" / "0.png")
    assert _open(root).revision != before


@pytest.mark.parametrize("part", ["images/owl/0.png", "masks/owl/0.png"])
def test_a_link_that_leads_nowhere_is_an_error(root: Path, part: str) -> None:
    (root / "train" / part).unlink()
    (root / "train" / part).symlink_to(root.parent / "gone.png")
    with pytest.raises(FcbenchError, match=f"cannot read .*{part}"):
        _open(root)


def test_every_file_of_targets_is_in_the_revision(root: Path) -> None:
    seen = {_open(root).revision}
    for part, old, new in (
        ("classes.txt", "sky", "air"),
        ("depth.json", "0.01", "0.02"),
        ("train/birds.json", '"area": 75', '"area": 76'),
        ("train/texts.json", "sits", "eats"),
    ):
        path = root / part
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        seen.add(_open(root).revision)
    assert len(seen) == 5


# ------------------------------------------------------------------------------------- wrong layouts
Harm = Callable[[Path], object]


def _write(part: str, text: str) -> Harm:
    return lambda root: (root / part).write_text(text)


def _remove(part: str) -> Harm:
    def harm(root: Path) -> None:
        path = root / part
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return harm


def _move(part: str, to: str) -> Harm:
    return lambda root: (root / part).rename(root / to)


def _json(part: str, change: Callable[[dict[str, Any]], object]) -> Harm:
    return lambda root: _edit(root / part, change)


BIRDS, TEXTS, BOXES = "train/birds.json", "train/texts.json", "train/boxes.json"
WRONG: list[tuple[Harm, str]] = [
    (_remove("train/images"), "images is missing"),
    (_remove("train/masks/owl/1.png"), "masks has no file for image 1.png"),
    (_remove("train/depth/owl/1.npy"), "depth has no file for image 1.png"),
    (_move("train/masks/owl/1.png", "train/masks/owl/7.png"), "masks has no file for image 1.png"),
    (lambda r: tiny_sets.picture(r / "train/depth/owl/9.png", 0), "depth holds 9.png, for which there is no image"),
    (lambda r: tiny_sets.picture(r / "train/depth/owl/1.png", 0), "holds 1.npy and 1.png: stems must differ"),
    (_move("train/masks/owl/1.png", "train/masks/owl/1.bmp"), "masks holds owl/1.bmp: expected .png"),
    (_move("train/masks", "train/labels"), "train holds labels beside images"),
    (_remove("classes.txt"), "classes.txt is missing: write the name of class 0 in its first line"),
    (_write("classes.txt", "sky\n\nbird\n"), "classes.txt has no printable name in line 2"),
    (_write("classes.txt", "sky\nsky\n"), "classes.txt names sky twice"),
    (_write("classes.txt", ""), "classes.txt names 0 classes, expected 1 to 255"),
    (_remove("depth.json"), 'depth.json is missing: write {"metres_per_unit": 0.001'),
    (_write("depth.json", "{"), "depth.json is not JSON"),
    (_write("depth.json", '{"metres_per_unit": 1}'), "must hold metres_per_unit and max_m, nothing else"),
    (_write("depth.json", '{"metres_per_unit": "1 mm", "max_m": 3}'), "metres_per_unit '1 mm': expected a number"),
    (_write("depth.json", '{"metres_per_unit": true, "max_m": 3}'), "metres_per_unit True: expected a number"),
    (_write("depth.json", '{"metres_per_unit": 1, "max_m": NaN}'), "max_m nan: expected a number above 0"),
    (_write(BIRDS, "{"), "birds.json is cut short or not JSON"),
    (_write("train/info.json", '{"version": 1}'), "info.json lists no images or no annotations"),
    (_json(BIRDS, lambda c: c["images"].pop()), "birds.json annotates image_id 12, which it does not list"),
    (_json(TEXTS, lambda c: (c["images"].pop(), c["annotations"].pop())), "does not list image owl/2.png"),
    (_json(TEXTS, lambda c: c["annotations"].pop()), "texts.json has no caption of owl/2"),
    (
        _json(BIRDS, lambda c: c["images"][0].update(file_name="x.png")),
        "birds.json lists x.png, which is not in images",
    ),
    (_json(BIRDS, lambda c: c["images"][0].update(width=31)), "crow/0.png is 20x30, but .*birds.json states 20x31"),
    (_json(BIRDS, lambda c: c["categories"][0].pop("keypoints")), "0 different lists of keypoints"),
    (_json(BIRDS, lambda c: c["annotations"][0].update(keypoints=[1, 2, 2])), "birds.json is not in COCO's format"),
    (_json(BIRDS, lambda c: [r.pop("keypoints") for r in c["annotations"]]), "second source of targets for detection"),
    (_json(BOXES, lambda c: [r.pop("area") for r in c["annotations"]]), "a bbox alone needs its area"),
    (_json(BIRDS, lambda c: c.update(annotations=[3])), "birds.json is not in COCO's format"),
    (lambda r: shutil.copy(r / BIRDS, r / "train/more.json"), "second source of targets for pose"),
    (lambda r: tiny_sets.write_map(r / "train/masks/owl/1.png", np.zeros((9, 9), np.uint8)), "owl/1.png is 20x30, but"),
    (lambda r: np.save(r / "train/depth/owl/1.npy", np.zeros((9, 9))), "1.png is 20x30, but .*1.npy is 9x9"),
    (_move("train/images/owl", "train/images/test"), "images holds test: splits come first, as test/images"),
    (lambda r: tiny_sets.picture(r / "train/images/loose.png", 0), "images holds loose.png beside class folders"),
]


@pytest.mark.parametrize(("harm", "match"), WRONG, ids=[m[:40] for _, m in WRONG])
def test_a_wrong_layout_shows_the_expected_one(root: Path, harm: Harm, match: str) -> None:
    harm(root)
    with pytest.raises(FcbenchError, match=f"{match}.*Expected: ROOT/.*masks/") as caught:
        _open(root)
    assert "\n" not in str(caught.value)


def test_a_class_that_training_lacks(root: Path) -> None:
    for kind in ("images", "masks", "depth"):
        (root / "test" / kind / "owl").rename(root / "test" / kind / "emu")
    for path in (root / "test").glob("*.json"):
        path.write_text(path.read_text().replace("owl/", "emu/"))
    with pytest.raises(FcbenchError, match="test shows class emu, which the training images lack"):
        _open(root, "test")


def test_kinds_first_and_splits_below_are_refused(tmp_path: Path) -> None:
    """images/train, masks/train: read as classes 'train' and 'test' it would mean something else."""
    tiny_sets.picture(tmp_path / "data" / "images" / "train" / "0.png", 0)
    tiny_sets.picture(tmp_path / "data" / "images" / "test" / "0.png", 1)
    with pytest.raises(FcbenchError, match="splits come first"):
        _open(tmp_path / "data")


# --------------------------------------------------------------------------------- unreadable samples
def test_a_class_beyond_the_list_names_the_mask(root: Path) -> None:
    path = root / "train" / "masks" / "owl" / "1.png"
    tiny_sets.write_map(path, np.full(tiny_sets.SIZE, 3, np.uint8))
    data = _open(root)
    with pytest.raises(UnreadableSample, match="owl/1.png holds class index 3: allowed are 0 to 2 and void 255"):
        data.targets(_index(data, "owl/1.png"))["segmentation"]


@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY\x01\x00", np.zeros(tiny_sets.SIZE, complex), np.zeros((2, 3, 4)), np.array([None])]
)
def test_depth_that_is_none_names_the_file(root: Path, content: Any) -> None:
    path = root / "train" / "depth" / "owl" / "1.npy"
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content, allow_pickle=True)
    data = _open(root)
    with pytest.raises(UnreadableSample, match="owl/1.npy"):
        data.targets(_index(data, "owl/1.png"))["depth"]


def test_8_bit_depth_names_the_file(root: Path) -> None:
    tiny_sets.write_map(root / "train" / "depth" / "owl" / "0.png", np.zeros(tiny_sets.SIZE, np.uint8))
    data = _open(root)
    with pytest.raises(UnreadableSample, match="owl/0.png has pixel mode 'L': expected 16-bit"):
        data.targets(_index(data, "owl/0.png"))["depth"]
